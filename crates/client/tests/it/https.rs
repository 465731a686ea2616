//! The network transport against a real TLS server: both HTTP versions, rotation of token and CA, many streams, bad endpoints.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kemudi_client::config::{Ca, Config, Credentials, Pem, Server};
use kemudi_client::{Api, Client, ListOptions, kinds::Pod};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A TLS server that takes one token, and lists no pods or watches them for ever.
pub struct Endpoint {
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
    pub token: Arc<Mutex<String>>,
    connections: Arc<AtomicUsize>,
    /// Requests whose token was another.
    pub refused: Arc<AtomicUsize>,
    listener: std::net::TcpListener,
    tasks: JoinSet<()>,
}

pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    pub fn new() -> Issuer {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Issuer(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn server(&self, protocols: &[&str]) -> TlsAcceptor {
        self.server_for(protocols, None)
    }

    /// A certificate and its key for a client, PEM.
    pub fn client(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["someone".to_string()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A server that serves nobody but whom `clients` vouches for.
    pub fn server_for(&self, protocols: &[&str], clients: Option<&Issuer>) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(clients.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut tls = builder
            .with_single_cert(vec![certificate.into()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(tls))
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn answer(request: &Request<Incoming>, token: &str) -> Answer {
    let given = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_string());
    let full = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    if given != Some(format!("Bearer {token}")) {
        return Response::builder().status(401).body(full("Unauthorized".into())).unwrap();
    }
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        let first =
            Bytes::from_static(b"{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"1\"}}}\n");
        let first = futures_util::stream::once(async { Ok(Frame::data(first)) });
        let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        return Response::new(StreamBody::new(body).boxed_unsync());
    }
    let text = format!(r#"{{"metadata":{{"resourceVersion":"{:?}"}},"items":[]}}"#, request.version());
    Response::new(full(text))
}

impl Endpoint {
    pub async fn start(issuer: &Issuer, protocols: &[&str], streams_max: u32) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Endpoint::on(listener, issuer, issuer.server(protocols), streams_max)
    }

    /// Serves nobody but whom `clients` vouches for.
    pub async fn guarded(issuer: &Issuer, clients: &Issuer) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Endpoint::on(listener, issuer, issuer.server_for(&["h2"], Some(clients)), 100)
    }

    /// Cuts all connections; new ones are taken by the machine and wait.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Cuts all connections and serves on with what another authority signed; the port stays open.
    pub fn restart(&mut self, issuer: &Issuer, protocols: &[&str], streams_max: u32) {
        self.tasks.abort_all();
        let listener = self.listener.try_clone().unwrap();
        self.serve(TcpListener::from_std(listener).unwrap(), issuer.server(protocols), streams_max);
    }

    fn on(listener: TcpListener, issuer: &Issuer, acceptor: TlsAcceptor, streams_max: u32) -> Endpoint {
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.crt"), issuer.0.pem()).unwrap();
        fs::write(dir.path().join("token"), "one").unwrap();
        let token = Arc::new(Mutex::new("one".to_string()));
        let connections = Arc::new(AtomicUsize::new(0));
        let refused = Arc::new(AtomicUsize::new(0));
        let listener = listener.into_std().unwrap();
        let kept = listener.try_clone().unwrap();
        let tasks = JoinSet::new();
        let mut endpoint = Endpoint { address, dir, token, connections, refused, listener: kept, tasks };
        endpoint.serve(TcpListener::from_std(listener).unwrap(), acceptor, streams_max);
        endpoint
    }

    fn serve(&mut self, listener: TcpListener, acceptor: TlsAcceptor, streams_max: u32) {
        let (expected, count, refusals) = (self.token.clone(), self.connections.clone(), self.refused.clone());
        self.tasks.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, expected, count) = (acceptor.clone(), expected.clone(), count.clone());
                let refusals = refusals.clone();
                serving.spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    count.fetch_add(1, Ordering::SeqCst);
                    let (asked, _) = tokio::sync::watch::channel(0);
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = answer(&request, &expected.lock().unwrap());
                        let path = request.uri().path().to_string();
                        match path.as_str() {
                            "/livez/ping" => asked.send_modify(|times| *times += 1),
                            _ if answer.status() == 401 => drop(refusals.fetch_add(1, Ordering::SeqCst)),
                            _ => {}
                        }
                        let mut asked = asked.subscribe();
                        async move {
                            if path != "/slow" {
                                return Ok::<_, Infallible>(answer);
                            }
                            let times = *asked.wait_for(|times| *times == 2).await.unwrap();
                            Ok(Response::new(Full::new(format!(r#"{{"asked":{times}}}"#).into()).boxed_unsync()))
                        }
                    });
                    let mut http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    http.http2().max_concurrent_streams(streams_max);
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> Config {
        config(self.address, self.dir.path())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub fn config(address: SocketAddr, dir: &Path) -> Config {
    Config {
        ca: Ca::Of(Pem::File(dir.join("ca.crt"))),
        credentials: Credentials::TokenFile(dir.join("token")),
        ..Config::new(Server { host: address.ip().to_string(), port: address.port(), base_path: String::new() })
    }
}

pub async fn listed(client: &Client) -> String {
    match Api::<Pod>::all(client.clone()).list().await {
        Ok(list) => list.metadata.resource_version,
        Err(error) => error.to_string(),
    }
}

/// The way kubelets swap a file: a new one, renamed over the old.
pub fn swap(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}

#[tokio::test]
async fn both_http_versions_share_connections() {
    let issuer = Issuer::new();
    for (protocols, version) in [(["h2", "http/1.1"].as_slice(), "HTTP/2.0"), (["http/1.1"].as_slice(), "HTTP/1.1")] {
        let server = Endpoint::start(&issuer, protocols, 100).await;
        let client = Client::new(server.config()).unwrap();
        for _ in 0..5 {
            assert_eq!(listed(&client).await, version);
        }
        assert_eq!(server.connections(), 1, "{version}");
    }
}

#[tokio::test]
async fn a_refused_token_is_read_again_and_the_request_repeated() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
    let client = Client::new(server.config()).unwrap();
    assert_eq!(listed(&client).await, "HTTP/2.0");
    *server.token.lock().unwrap() = "two".to_string();
    assert_eq!(listed(&client).await, "Unauthorized");
    swap(&server.file("token"), "two\n");
    assert_eq!(listed(&client).await, "HTTP/2.0");
    fs::remove_file(server.file("token")).unwrap();
    assert_eq!(listed(&client).await, "HTTP/2.0", "the last token stays in use while there is no file");
}

#[tokio::test]
async fn a_new_ca_is_picked_up_when_the_old_one_does_not_verify() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let server = Endpoint::start(&new, &["h2"], 100).await;
    swap(&server.file("ca.crt"), &old.0.pem());
    let client = Client::new(server.config()).unwrap();
    let address = server.address;
    assert_eq!(
        listed(&client).await,
        format!(
            "no trusted connection to the API server at https://{address}: invalid peer certificate: BadSignature\n  \
             the CA we trust did not sign the server's certificate: is this the CA of this cluster?"
        )
    );
    swap(&server.file("ca.crt"), &new.0.pem());
    assert_eq!(listed(&client).await, "HTTP/2.0");
}

#[tokio::test]
async fn more_watches_than_a_connection_takes_open_the_next() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 20).await;
    let client = Client::new(server.config()).unwrap();
    assert_eq!(listed(&client).await, "HTTP/2.0");
    let pods: Api<Pod> = Api::all(client.clone());
    let mut watches = Vec::new();
    for _ in 0..50 {
        let mut watch = pods.watch(&ListOptions::default()).await.unwrap();
        assert!(watch.next().await.unwrap().is_ok());
        watches.push(watch);
    }
    assert_eq!(server.connections(), 3);
    drop(watches);
    assert_eq!(listed(&client).await, "HTTP/2.0");
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn four_hundred_watches_fit_on_one_connection() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 1000).await;
    let client = Client::new(server.config()).unwrap();
    assert_eq!(listed(&client).await, "HTTP/2.0");
    let pods: Api<Pod> = Api::all(client);
    let mut watches = Vec::new();
    for _ in 0..400 {
        watches.push(pods.watch(&ListOptions::default()).await.unwrap());
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_is_asked_at_once_fits_on_one_connection_too() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 1000).await;
    let pods: Api<Pod> = Api::all(Client::new(server.config()).unwrap());
    let options = ListOptions::default();
    let watches = futures_util::future::try_join_all((0..400).map(|_| pods.watch(&options))).await.unwrap();
    assert_eq!((watches.len(), server.connections()), (400, 1));
}

#[tokio::test]
async fn bad_endpoints_are_explained() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::new(config(closed, server.dir.path())).unwrap();
    assert_eq!(
        listed(&client).await,
        format!(
            "cannot reach the API server at https://{closed}: Connection refused (os error 111)\n  \
             nothing listens there: is the server running, and is this its address?"
        )
    );
    let mut named = server.config();
    named.tls_server_name = Some("kubernetes.default.svc".to_string());
    let error = listed(&Client::new(named).unwrap()).await;
    assert!(error.contains("the certificate is for other names"), "{error}");
}
