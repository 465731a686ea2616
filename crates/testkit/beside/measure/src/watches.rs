//! How many connections some watches take: a TLS server on loopback that speaks both versions of HTTP, and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use kemudi_client::config::{Ca, Pem, Server};
use kemudi_client::{ListOptions, kinds};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

pub const WATCHES: usize = 400;
/// Streams that a server allows on a connection: more than are asked for here.
const STREAMS: u32 = 1000;

/// Ours and theirs.
pub async fn connections() -> (usize, usize) {
    let served = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).expect("a certificate");
    let pem = served.cert.pem();
    let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![served.cert.der().clone()],
            PrivateKeyDer::Pkcs8(served.signing_key.serialize_der().into()),
        )
        .expect("a key");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), accepted.clone()));

    let config = kemudi_client::Config {
        ca: Ca::Of(Pem::Inline(pem.clone().into_bytes())),
        ..kemudi_client::Config::new(Server::parse(&format!("https://127.0.0.1:{port}")).expect("an address"))
    };
    let api = kemudi_client::Api::<kinds::Pod>::all(kemudi_client::Client::new(config).expect("a client"));
    let options = ListOptions { resource_version: Some(1), ..ListOptions::default() };
    let open = stream::iter(0..WATCHES).map(|_| api.watch(&options)).buffer_unordered(WATCHES);
    let ours = open.map(|watch| watch.expect("a watch")).collect::<Vec<_>>().await;
    let our_connections = accepted.swap(0, Ordering::Relaxed);
    drop(ours);

    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().expect("an address"));
    config.root_cert = Some(vec![served.cert.der().to_vec()]);
    let api = kube::Api::<Pod>::all(kube::Client::try_from(config).expect("a client"));
    let parameters = kube::api::WatchParams::default();
    let open = stream::iter(0..WATCHES).map(|_| api.watch(&parameters, "1")).buffer_unordered(WATCHES);
    let theirs = open.map(|watch| watch.expect("a watch").boxed()).collect::<Vec<_>>().await;
    let their_connections = accepted.swap(0, Ordering::Relaxed);
    drop(theirs);
    server.abort();
    (our_connections, their_connections)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, accepted: Arc<AtomicUsize>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        accepted.fetch_add(1, Ordering::Relaxed);
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(|_| async {
                // A watch to which nothing happens.
                let silence = stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
                Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(silence).boxed_unsync()))
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(STREAMS);
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
