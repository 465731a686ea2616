//! The way to nodes that another process runs: their own HTTPS API, shown a client certificate of this cluster, and held to a
//! certificate of the cluster's for the address that the node has told. Keeps no connection and knows no pod.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::meta;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use streams::Io;
use streams::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::bootstrap_objects::ensure_rights_on_nodes;
use crate::respond::{Body, BodyError};
use crate::state::{NodeApi, State};

/// Who the server is to nodes. They ask whether it may, as they do of anybody: whoever writes a node's status and is connected to in
/// its stead has nothing of a certificate that is good for more.
const NAME: &str = "kube-apiserver-kubelet-client";
/// How long it may take to reach a node, with its handshake.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Where nodes are reached, the best first.
const ADDRESSES: [&str; 3] = ["InternalIP", "Hostname", "ExternalIP"];

/// A node of another process.
pub struct NodeLink {
    state: Arc<State>,
    host: String,
    port: u16,
}

impl NodeLink {
    /// The way to a node, from its object; none if it tells of no API of its own.
    pub fn to(state: &Arc<State>, node: &Value) -> Option<NodeLink> {
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?;
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        let addresses = meta::items_at(node, &["status", "addresses"]);
        let of = |kind: &&str| addresses.iter().find(|it| it["type"] == **kind).and_then(|it| it["address"].as_str());
        let host = ADDRESSES.iter().find_map(of)?.to_string();
        Some(NodeLink { state: state.clone(), host, port })
    }

    async fn connect(&self) -> io::Result<Io> {
        ensure_rights_on_nodes(&self.state, NAME).await.map_err(|status| io::Error::other(status.message))?;
        let tls = self.tls().map_err(io::Error::other)?;
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
            Ok(Box::new(stream) as Io)
        };
        tokio::time::timeout(CONNECT_TIME_MAX, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// A certificate is made for each connection: it is cheaper than to keep one in step with the authority.
    fn tls(&self) -> Result<ClientConfig, String> {
        let (certificate, key) = self.state.pki.issue_client(NAME, None)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.state.pki.ca_pem().as_bytes()) {
            roots.add(certificate.map_err(|why| why.to_string())?).map_err(|why| why.to_string())?;
        }
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|why| why.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|why| why.to_string())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .map_err(|why| why.to_string())
    }
}

impl NodeApi for NodeLink {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Body>> {
        async move {
            let asked = match self.connect().await {
                Ok(io) => exchange(io, request, &self.state).await,
                Err(why) => Err(why),
            };
            asked.unwrap_or_else(|why| {
                let why = why.to_string();
                let why = why.split(" (os error").next().unwrap_or_default().to_lowercase();
                let text = format!("error dialing backend: dial tcp {}:{}: connect: {why}", self.host, self.port);
                crate::respond::raw(StatusCode::BAD_GATEWAY.as_u16(), "text/plain", text)
            })
        }
        .boxed()
    }
}

/// Asks on a connection made for it, and passes the answer on as it comes. Where the connection becomes another, and the request
/// brought its client's, the two are joined until one of them ends.
pub async fn exchange(io: Io, mut request: Request<Bytes>, state: &Arc<State>) -> io::Result<Response<Body>> {
    let client = request.extensions_mut().remove::<OnUpgrade>();
    if !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, http::HeaderValue::from_static("node"));
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let moving = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    }));
    let mut response = sender.send_request(request.map(Full::new)).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = response.into_parts();
        let body = Owned { body, _moving: moving, _sender: sender };
        return Ok(Response::from_parts(head, body.boxed_unsync()));
    }
    let Some(client) = client else {
        return Err(io::Error::other("the connection became another, which nobody asked for"));
    };
    let server = hyper::upgrade::on(&mut response);
    let stopping = state.stopping.clone();
    // It ends with either side, or with the server.
    tokio::spawn(async move {
        let joined = async {
            let (mut client, server) = (client.connection().await?, server.await.map_err(io::Error::other)?);
            tokio::io::copy_bidirectional(&mut client, &mut TokioIo::new(server)).await
        };
        tokio::select! {
            _ = joined => {}
            () = stopping.cancelled() => {}
        }
        drop((moving, sender));
    });
    let (head, _) = response.into_parts();
    Ok(Response::from_parts(head, crate::respond::full(Bytes::new())))
}

/// A body, and the connection that it comes over.
struct Owned<S> {
    body: hyper::body::Incoming,
    _moving: AbortOnDropHandle<()>,
    /// The connection is shut when this goes.
    _sender: S,
}

impl<S: Unpin> http_body::Body for Owned<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body.frame()).poll(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
