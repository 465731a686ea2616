//! The transport over the network: TLS, HTTP/2 (HTTP/1.1 where the server has no other), tokens, connections that are shared.
//! Repairs what rotation breaks: a refused token is read again and the request repeated once, a CA likewise.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Ca, Config, ConfigError, Credentials, Pem, Server};
use crate::credentials::TokenSource;
use crate::error::{Error, Result};
use crate::exec::Credential;
use crate::files::FileChanges;
use crate::retry::is_idempotent;
#[cfg(feature = "http2")]
use crate::shared::{Asker, PROTOCOLS, Shared, Stream};
use crate::tls;
#[cfg(feature = "remote")]
use crate::transport::Upgraded;
use crate::transport::{Body, Transport, Unhurried};
#[cfg(not(feature = "http2"))]
use crate::unshared::{Asker, PROTOCOLS, Shared, Stream};

/// Tokens that are tried after the first for one request.
const TOKENS_MAX: usize = 3;
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Idle HTTP/1.1 connections that are kept.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// How often a connection is tried with other files after the server and the ones that were there did not agree.
const TLS_CHANGES_MAX: usize = 3;
/// How often a request is sent again on another connection when one turns out to be closed before it took the request.
const STALE_CONNECTIONS_MAX: usize = 3;

/// Sends requests to one API server. Connections close when the transport and all bodies it gave are dropped.
pub struct Https {
    config: Config,
    authority: Authority,
    name: ServerName<'static>,
    tokens: TokenSource,
    /// What is read again when it changes.
    files: FileChanges,
    tls: Mutex<Tls>,
    pool: Arc<Pool>,
    /// Held while a connection is made, so that a burst of requests makes one.
    connecting: tokio::sync::Mutex<()>,
}

struct Tls {
    connector: TlsConnector,
    files: tls::Files,
    /// How often `connector` was replaced.
    revision: u64,
    /// Of the files, when they were read.
    generation: u64,
}

#[derive(Default)]
struct Pool(Mutex<Connections>);

#[derive(Default)]
struct Connections {
    shared: Vec<Shared>,
    idle: Vec<http1::SendRequest<Full<Bytes>>>,
    /// Drive the connections; they end with the pool.
    drivers: JoinSet<()>,
}

/// The use of a connection for one request and its answer.
enum Lease {
    Shared(Stream),
    Exclusive { sender: Option<http1::SendRequest<Full<Bytes>>> },
}

impl Https {
    /// Files of the configuration are read now, the server is contacted with the first request.
    pub fn new(config: Config) -> Result<Https, ConfigError> {
        let files = FileChanges::of(paths(&config));
        let read = tls::Files::load(&config)?;
        let connector = TlsConnector::from(Arc::new(tls::client_config(&config, &read)?));
        let authority = config.server.authority();
        let authority = Authority::try_from(authority.as_str()).map_err(|_| {
            ConfigError::new(crate::config::ConfigCode::ServerInvalid, format!("{authority:?} is no host and port"))
                .fix("write the server like https://10.96.0.1:443")
        })?;
        Ok(Https {
            name: tls::server_name(&config)?,
            tokens: TokenSource::new(&config.credentials)?,
            tls: Mutex::new(Tls { connector, files: read, revision: 0, generation: files.generation() }),
            files,
            pool: Arc::default(),
            connecting: tokio::sync::Mutex::new(()),
            authority,
            config,
        })
    }

    /// Delivers a request with the token of the moment, and again with another one as long as the server refuses.
    async fn exchange<T, Answer: Future<Output = Result<T>>>(
        &self,
        request: Request<Bytes>,
        deliver: impl Fn(Request<Bytes>) -> Answer,
        status: impl Fn(&T) -> StatusCode,
    ) -> Result<T> {
        let mut used = self.token().await?;
        let mut answer = deliver(with_token(&request, used.as_ref())).await?;
        // What was answered with 401 was not done, so any method may be repeated. A token that was read just before the next
        // took its place may be refused too.
        for _ in 0..TOKENS_MAX {
            if status(&answer) != StatusCode::UNAUTHORIZED {
                break;
            }
            let Some(other) = self.token_after_refusal(used.as_ref()).await else { break };
            answer = deliver(with_token(&request, Some(&other))).await?;
            used = Some(other);
        }
        Ok(answer)
    }

    /// The token for the next request. Connections to come are in step with the files by then.
    async fn token(&self) -> Result<Option<HeaderValue>> {
        let generation = self.files.generation();
        let token = self.tokens.header(generation).await?;
        self.renew_tls(generation);
        Ok(token)
    }

    /// The server refused `used`: another token that is worth a try, if there is one by now.
    async fn token_after_refusal(&self, used: Option<&HeaderValue>) -> Option<HeaderValue> {
        let generation = self.files.generation();
        let token = self.tokens.header_after_refusal(used, generation).await?;
        tracing::debug!("the server refused the token; there is another by now");
        self.renew_tls(generation);
        Some(token)
    }

    /// Sends on a connection that is there or a new one.
    async fn deliver(&self, mut request: Request<Bytes>) -> Result<Response<Body>> {
        let patience = match request.extensions().get::<Unhurried>() {
            Some(Unhurried) => FOREVER,
            None => self.config.timeouts.answer,
        };
        // What may be sent twice is sent again where nobody is at the other end, once.
        let mut spare = Some(&request).filter(|request| patience < FOREVER && is_idempotent(request)).cloned();
        for _ in 0..STALE_CONNECTIONS_MAX {
            let lease = self.lease().await?;
            let asker = lease.asker().filter(|_| spare.is_some());
            let sending = lease.send(&self.authority, &self.config.server, request, &self.pool);
            let sending = async {
                match asker {
                    Some(asker) => asker.unless_gone(sending).await,
                    None => Some(sending.await),
                }
            };
            match (timeout(patience, sending).await, &mut spare) {
                (Err(_), _) => return Err(Error::Timeout { what: "answer", after: patience }),
                (Ok(Some(Sent::Answer(answer))), _) => return Ok(answer),
                (Ok(Some(Sent::Lost(why))), _) => return Err(Error::Lost(why)),
                // The connection was closing; the request never left.
                (Ok(Some(Sent::Unsent(back))), _) => request = back,
                (Ok(None), spare) => match spare.take() {
                    Some(again) => request = again,
                    None => return Err(nobody_answers()),
                },
            }
        }
        Err(Error::Connect {
            server: self.config.server.to_string(),
            why: "the server closes each connection before it takes a request".to_string(),
            hint: "it may be shutting down, or be no Kubernetes API server; try `kemudi doctor`",
            transient: true,
        })
    }

    async fn lease(&self) -> Result<Lease> {
        if let Some(lease) = self.pool.lease() {
            return Ok(lease);
        }
        let _turn = self.connecting.lock().await;
        if let Some(mut allowed) = self.pool.unsaid() {
            // The first thing that a server says is how many streams it allows: what does not fit before may fit then.
            let said = async { allowed.wait_for(Option::is_some).await.is_ok() };
            let _ = timeout(self.config.timeouts.handshake, said).await;
        }
        if let Some(lease) = self.pool.lease() {
            return Ok(lease);
        }
        let begun = Instant::now();
        let stream = self.open(PROTOCOLS).await?;
        let limit = self.config.timeouts.handshake;
        timeout(limit, self.pool.add(stream, begun.elapsed(), &self.config, &self.authority))
            .await
            .map_err(|_| Error::Timeout { what: "finish the HTTP handshake", after: limit })?
    }

    async fn open(&self, protocols: &[&[u8]]) -> Result<TlsStream<TcpStream>> {
        let (mut connector, mut used) = self.connector();
        for _ in 0..TLS_CHANGES_MAX {
            let answer = self.connect_with(connector, protocols).await;
            if !matches!(answer, Err(Error::Tls { .. })) {
                return answer;
            }
            // The files may have changed since, and another request may have read them already.
            self.read_tls();
            let (other, revision) = self.connector();
            if revision == used {
                return answer;
            }
            (connector, used) = (other, revision);
        }
        self.connect_with(connector, protocols).await
    }

    /// For connections to come, and which one it is.
    fn connector(&self) -> (TlsConnector, u64) {
        let tls = lock(&self.tls);
        (tls.connector.clone(), tls.revision)
    }

    async fn connect_with(&self, connector: TlsConnector, protocols: &[&[u8]]) -> Result<TlsStream<TcpStream>> {
        let protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let connector = connector.with_alpn(protocols);
        let Server { host, port, .. } = &self.config.server;
        let connecting = async {
            match &self.config.proxy {
                None => TcpStream::connect(self.config.addresses(host, *port).await?.as_slice()).await,
                Some(proxy) => proxy.connect(&self.config).await,
            }
        };
        let tcp = match timeout(self.config.timeouts.connect, connecting).await {
            Err(_) => return Err(self.unreachable(&std::io::ErrorKind::TimedOut.into())),
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Ok(Ok(tcp)) => tcp,
        };
        // Requests are small and waited for.
        let _ = tcp.set_nodelay(true);
        let limit = self.config.timeouts.handshake;
        match timeout(limit, connector.connect(self.name.clone(), tcp)).await {
            Err(_) => Err(Error::Timeout { what: "finish the TLS handshake", after: limit }),
            Ok(Err(error)) => Err(self.untrusted(&error)),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    /// Once a change of the files, or of what a plugin gives: connections to come trust the CA and show the certificate
    /// that there is now.
    fn renew_tls(&self, generation: u64) {
        let generation = generation + self.tokens.plugin().map_or(0, Credential::runs);
        let outdated = std::mem::replace(&mut lock(&self.tls).generation, generation) != generation;
        if outdated {
            self.read_tls();
        }
    }

    /// Connections to come use what the files have now.
    fn read_tls(&self) {
        // Half of a change (a certificate whose key is still to come) is not usable; the other half is told too.
        let Ok(mut files) = tls::Files::load(&self.config) else { return };
        if let Some(shown) = self.tokens.plugin().and_then(Credential::shown) {
            files.shown = Some(shown);
        }
        let mut tls = lock(&self.tls);
        if files == tls.files {
            return;
        }
        let Ok(config) = tls::client_config(&self.config, &files) else { return };
        if files.shown != tls.files.shown {
            // Connections are who the certificate of their beginning says.
            self.pool.retire();
        }
        tls.connector = TlsConnector::from(Arc::new(config));
        tls.files = files;
        tls.revision += 1;
    }

    fn unreachable(&self, error: &std::io::Error) -> Error {
        use std::io::ErrorKind::*;
        let hint = match error.kind() {
            _ if self.config.proxy.is_some() => {
                "the way leads through a proxy: see proxy-url in the kubeconfig, HTTPS_PROXY and NO_PROXY"
            }
            ConnectionRefused => "nothing listens there: is the server running, and is this its address?",
            TimedOut => "no answer at all: a firewall or a NetworkPolicy may drop the packets",
            HostUnreachable | NetworkUnreachable => "no route: this network cannot reach that address",
            _ if error.to_string().contains("lookup") || error.to_string().contains("resolve") => {
                "the name has no address here: check the spelling, and in a pod its DNS (dnsPolicy, the DNS service)"
            }
            _ => "`kemudi doctor` checks each step of the way",
        };
        let why = if error.kind() == TimedOut {
            format!("no connection in {:?}", self.config.timeouts.connect)
        } else {
            error.to_string()
        };
        let transient = matches!(error.kind(), ConnectionRefused | ConnectionReset | ConnectionAborted);
        Error::Connect { server: self.config.server.to_string(), why, hint, transient }
    }

    fn untrusted(&self, error: &std::io::Error) -> Error {
        use rustls::CertificateError::*;
        let server = self.config.server.to_string();
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            let hint = "the connection ended during the TLS handshake: is this an HTTPS port?";
            return Error::Tls { server, why: error.to_string(), hint, transient: true };
        };
        let hint = match tls {
            rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
                "the CA we trust did not sign the server's certificate: is this the CA of this cluster?"
            }
            rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
                "the certificate is for other names: use one of those as the server, or set tls-server-name"
            }
            rustls::Error::InvalidCertificate(
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
            ) => "compare the certificate's dates with this machine's clock",
            rustls::Error::InvalidMessage(_) => "what answers there does not speak TLS: is this an HTTPS port?",
            rustls::Error::AlertReceived(_) => "the server refused us: does it want another client certificate?",
            _ => "`kemudi doctor` checks each step of the way",
        };
        Error::Tls { server, why: tls.to_string(), hint, transient: false }
    }
}

#[cfg(feature = "remote")]
impl Https {
    /// Sends on a connection of its own, with HTTP/1.1, a request that asks for another protocol.
    async fn deliver_upgrade(&self, request: Request<Bytes>) -> Result<Upgraded> {
        let lost = |error: hyper::Error| Error::Lost(chain(&error));
        let io = TokioIo::new(self.open(&[b"http/1.1"]).await?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(lost)?;
        lock(&self.pool.0).drive(async { drop(connection.with_upgrades().await) });
        let request = addressed(request, &self.authority, &self.config.server, false).map(Full::new);
        let limit = self.config.timeouts.answer;
        let answer = timeout(limit, sender.send_request(request)).await;
        let mut response = answer.map_err(|_| Error::Timeout { what: "answer", after: limit })?.map_err(lost)?;
        let io = match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                let upgraded = hyper::upgrade::on(&mut response).await.map_err(lost)?;
                Some(Box::new(TokioIo::new(upgraded)) as streams::Io)
            }
            _ => None,
        };
        Ok((response.map(|body| body.map_err(|error| Error::Lost(chain(&error))).boxed_unsync()), io))
    }
}

impl Transport for Https {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        Box::pin(self.exchange(request, |request| self.deliver(request), Response::status))
    }

    #[cfg(feature = "remote")]
    fn upgrade(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Upgraded>> {
        Box::pin(self.exchange(request, |request| self.deliver_upgrade(request), |(answer, _)| answer.status()))
    }

    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if let Lease::Exclusive { sender: Some(sender) } = self.lease().await? {
                self.pool.give_back(sender);
            }
            Ok(())
        })
    }

    fn server(&self) -> String {
        self.config.server.to_string()
    }
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Https({})", self.config.server)
    }
}

impl Pool {
    /// A connection with room, if there is one.
    fn lease(&self) -> Option<Lease> {
        let mut connections = lock(&self.0);
        connections.shared.retain(|shared| !shared.is_over());
        if let Some(shared) = connections.shared.iter().find(|shared| shared.has_room()) {
            return Some(Lease::Shared(shared.lease()));
        }
        while let Some(sender) = connections.idle.pop() {
            if sender.is_ready() {
                return Some(Lease::Exclusive { sender: Some(sender) });
            }
        }
        None
    }

    /// To hear from the server of a connection how many streams it allows, where it has not said so yet.
    fn unsaid(&self) -> Option<watch::Receiver<Option<usize>>> {
        lock(&self.0).shared.iter().find_map(Shared::unsaid)
    }

    async fn add(
        &self,
        stream: TlsStream<TcpStream>,
        took: Duration,
        config: &Config,
        authority: &Authority,
    ) -> Result<Lease> {
        let lost = |error: hyper::Error| Error::Lost(chain(&error));
        if !Shared::is_meant(&stream) {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
            lock(&self.0).drive(async { drop(connection.await) });
            return Ok(Lease::Exclusive { sender: Some(sender) });
        }
        let (shared, driver) = Shared::begin(stream, took, config, authority).await.map_err(lost)?;
        let lease = Lease::Shared(shared.lease());
        let mut connections = lock(&self.0);
        connections.drive(driver);
        connections.shared.push(shared);
        Ok(lease)
    }

    /// No further request takes a connection of now; those under way are finished.
    fn retire(&self) {
        let mut connections = lock(&self.0);
        connections.shared.clear();
        connections.idle.clear();
    }

    fn give_back(&self, sender: http1::SendRequest<Full<Bytes>>) {
        let mut connections = lock(&self.0);
        if !sender.is_closed() && connections.idle.len() < IDLE_CONNECTIONS_MAX {
            connections.idle.push(sender);
        }
    }
}

impl Connections {
    fn drive(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.drivers.try_join_next().is_some() {}
        self.drivers.spawn(connection);
    }
}

enum Sent {
    Answer(Response<Body>),
    Unsent(Request<Bytes>),
    Lost(String),
}

impl Lease {
    /// What asks on the connection, where others use it too.
    fn asker(&self) -> Option<Asker> {
        match self {
            Lease::Shared(stream) => Some(stream.asker()),
            Lease::Exclusive { .. } => None,
        }
    }

    async fn send(mut self, authority: &Authority, server: &Server, request: Request<Bytes>, pool: &Arc<Pool>) -> Sent {
        let reads = is_idempotent(&request);
        let outcome = match &mut self {
            Lease::Shared(stream) => {
                let request = addressed(request, authority, server, true);
                match stream.ready().await {
                    Err(_) => return Sent::Unsent(unaddressed(request, server)),
                    Ok(()) => stream.send(request.map(Full::new)).await,
                }
            }
            Lease::Exclusive { sender } => {
                let request = addressed(request, authority, server, false);
                match sender {
                    None => return Sent::Unsent(unaddressed(request, server)),
                    Some(sender) => match sender.ready().await {
                        Err(_) => return Sent::Unsent(unaddressed(request, server)),
                        Ok(()) => sender.try_send_request(request.map(Full::new)).await,
                    },
                }
            }
        };
        match outcome {
            Ok(answer) => {
                let pool = pool.clone();
                let gone = match &self {
                    Lease::Shared(stream) if reads => Some(stream.gone()),
                    _ => None,
                };
                Sent::Answer(answer.map(|body| Leased { body, lease: Some(self), pool, gone }.boxed_unsync()))
            }
            Err(mut error) => match error.take_message() {
                Some(back) => {
                    let (head, body) = back.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    Sent::Unsent(unaddressed(Request::from_parts(head, body), server))
                }
                None => Sent::Lost(chain(error.error())),
            },
        }
    }
}

/// A body that keeps its connection, and gives it back at its end.
struct Leased {
    body: Incoming,
    lease: Option<Lease>,
    pool: Arc<Pool>,
    /// Of a read: resolves when its connection is taken for gone.
    gone: Option<BoxFuture<'static, ()>>,
}

impl Leased {
    fn finish(&mut self) {
        if let Some(Lease::Exclusive { sender: Some(sender) }) = self.lease.take() {
            self.pool.give_back(sender);
        }
    }
}

impl hyper::body::Body for Leased {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let gone = self.gone.as_mut().is_some_and(|gone| gone.as_mut().poll(cx).is_ready());
            return if gone { Poll::Ready(Some(Err(nobody_answers()))) } else { Poll::Pending };
        };
        if frame.is_none() || self.body.is_end_stream() {
            self.finish();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Error::Lost(chain(&error)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        // An HTTP/1.1 connection with an unread body is of no use; one whose answer had none is.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}

fn nobody_answers() -> Error {
    Error::Lost("nobody answers on its connection".to_string())
}

fn with_token(request: &Request<Bytes>, token: Option<&http::HeaderValue>) -> Request<Bytes> {
    let mut request = request.clone();
    if let Some(token) = token {
        request.headers_mut().entry(AUTHORIZATION).or_insert_with(|| token.clone());
    }
    request
}

/// HTTP/2 wants the server's name in the URI, HTTP/1.1 in a header.
fn addressed(mut request: Request<Bytes>, authority: &Authority, server: &Server, http2: bool) -> Request<Bytes> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = format!("{}{path}", server.base_path);
    let mut parts = http::uri::Parts::default();
    // The path was a valid one before, and a base path is checked with the first request at the latest.
    parts.path_and_query = path.parse().ok();
    if http2 {
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(authority.clone());
        *request.version_mut() = Version::HTTP_2;
    } else {
        *request.version_mut() = Version::HTTP_11;
        if let Ok(host) = http::HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

fn unaddressed(mut request: Request<Bytes>, server: &Server) -> Request<Bytes> {
    request.headers_mut().remove(HOST);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = path.strip_prefix(server.base_path.as_str()).unwrap_or(path).to_string();
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// The files of a configuration that are read again when they change.
fn paths(config: &Config) -> Vec<PathBuf> {
    let pem = |pem: &Pem| match pem {
        Pem::File(path) => Some(path.clone()),
        Pem::Inline(_) => None,
    };
    let token = match &config.credentials {
        Credentials::TokenFile(path) => Some(path.clone()),
        _ => None,
    };
    let ca = match &config.ca {
        Ca::Of(ca) => pem(ca),
        Ca::System => None,
    };
    let shown = config.client_certificate.iter().flat_map(|(certificate, key)| [pem(certificate), pem(key)]);
    token.into_iter().chain(ca).chain(shown.flatten()).collect()
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !out.contains(&text) {
            out = format!("{out}: {text}");
        }
        next = cause.source();
    }
    out
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
