//! The agent's own HTTPS server, for an API server in another process: the same answers as `serve`, to those alone who may ask.
//! Who asks is told by a client certificate of the cluster or a token; whether they may, by the API server, as with a kubelet.
//! Nobody is served without.

use crate::agent::{Shared, lock};
use crate::network;
use crate::serve::{self, Body, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use kemudi_client::{Api, ApiResource, Dynamic, Error, FieldSelector, ListOptions};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use streams::upgrade::OnUpgrade;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 512;
/// From the first byte to the end of the TLS handshake, and for the head of a request.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Before what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Decisions that are remembered, and for how long.
const DECISIONS_MAX: usize = 1024;
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// The part of a certificate's life after which there is a new one, in hundredths.
const RENEW_AT_PERCENT: i64 = 70;

const CSRS: ApiResource =
    ApiResource::new("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", false);
const TOKEN_REVIEWS: ApiResource =
    ApiResource::new("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false);
const ACCESS_REVIEWS: ApiResource =
    ApiResource::new("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", false);
const SIGNER: &str = "kubernetes.io/kubelet-serving";

/// How the agent serves others.
#[derive(Clone, Debug)]
pub struct ServingConfig {
    /// The port that it listens on, at the node's address; 0 for any.
    pub port: u16,
    /// Whose client certificates count, PEM. Without any, only tokens do.
    pub client_ca: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Caller {
    name: String,
    uid: String,
    groups: Vec<String>,
}

/// What was decided: of tokens, whose they are; of callers, whether they may.
#[derive(Default)]
struct Decisions {
    callers: HashMap<String, (Instant, Option<Caller>)>,
    rights: HashMap<(Caller, &'static str, &'static str), (Instant, bool)>,
}

struct Server {
    shared: Arc<Shared>,
    decisions: Mutex<Decisions>,
}

/// Serves until the agent ends. Begins when it has a certificate.
pub async fn run(shared: Arc<Shared>, listener: std::net::TcpListener, config: ServingConfig) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let server = Arc::new(Server { shared: shared.clone(), decisions: Mutex::default() });
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let (tls, renew_after) = match certificate(&shared, &config).await {
            Ok(made) => made,
            Err(why) => {
                shared.events.node_warning("NoServingCertificate", &format!("logs and exec cannot be served: {why}"));
                tracing::warn!(why, "the node has no serving certificate yet");
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(tls);
        let mut renew = std::pin::pin!(tokio::time::sleep(renew_after));
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = &mut renew => break,
                accepted = async {
                    let seat = seats.clone().acquire_owned().await.ok();
                    (network::accept(&listener).await, seat)
                } => accepted,
            };
            let (stream, seat) = accepted;
            let (server, acceptor) = (server.clone(), acceptor.clone());
            connections.spawn(async move {
                server.connection(stream, acceptor).await;
                drop(seat);
            });
        }
    }
}

impl Server {
    async fn connection(self: Arc<Server>, stream: TcpStream, acceptor: TlsAcceptor) {
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await else { return };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let caller = certificates.first().and_then(|first| caller_of(first));
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (server, caller) = (self.clone(), caller.clone());
            async move { Ok::<_, Infallible>(server.answer(caller, request).await) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
        let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }

    async fn answer(&self, caller: Option<Caller>, mut request: Request<hyper::body::Incoming>) -> Response<Body> {
        let caller = match caller {
            Some(caller) => caller,
            None => match self.by_token(request.headers()).await {
                Some(caller) => caller,
                None => return text(StatusCode::UNAUTHORIZED, "Unauthorized".into()),
            },
        };
        let verb = match *request.method() {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let parts = subresources(request.uri().path());
        let mut allowed = false;
        for part in parts {
            allowed = allowed || self.may(&caller, verb, part).await;
        }
        if !allowed {
            let message = format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
                caller.name,
                parts.join(" ")
            );
            return text(StatusCode::FORBIDDEN, message);
        }
        if let Some(connection) = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>() {
            let connection = async move {
                let upgraded = connection.await.map_err(std::io::Error::other)?;
                Ok(Box::new(TokioIo::new(upgraded)) as streams::Io)
            };
            request.extensions_mut().insert(OnUpgrade::new(connection));
        }
        serve::handle(&self.shared, &request.into_parts().0).await
    }

    /// Whose bearer token it is.
    async fn by_token(&self, headers: &http::HeaderMap) -> Option<Caller> {
        let token = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.trim().to_owned();
        let now = Instant::now();
        if let Some((until, known)) = lock(&self.decisions).callers.get(&token)
            && *until > now
        {
            return known.clone();
        }
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let answer = self.ask(&TOKEN_REVIEWS, review).await?;
        let user = &answer["status"]["user"];
        let caller = (answer["status"]["authenticated"] == true).then(|| Caller {
            name: text_of(&user["username"]),
            uid: text_of(&user["uid"]),
            groups: user["groups"].as_array().into_iter().flatten().map(text_of).collect(),
        });
        let mut decisions = lock(&self.decisions);
        if decisions.callers.len() >= DECISIONS_MAX {
            decisions.callers.clear();
        }
        decisions.callers.insert(token, (now + REFUSED_FOR, caller.clone()));
        caller
    }

    /// Whether the API server says that somebody may.
    async fn may(&self, caller: &Caller, verb: &'static str, part: &'static str) -> bool {
        let key = (caller.clone(), verb, part);
        let now = Instant::now();
        if let Some((until, allowed)) = lock(&self.decisions).rights.get(&key)
            && *until > now
        {
            return *allowed;
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": caller.name, "uid": caller.uid, "groups": caller.groups,
                "resourceAttributes": {
                    "verb": verb, "version": "v1", "resource": "nodes", "subresource": part,
                    "name": self.shared.config.name,
                },
            },
        });
        // Who cannot be asked about may not, and is asked about again.
        let Some(answer) = self.ask(&ACCESS_REVIEWS, review).await else { return false };
        let allowed = answer["status"]["allowed"] == true;
        let mut decisions = lock(&self.decisions);
        if decisions.rights.len() >= DECISIONS_MAX {
            decisions.rights.clear();
        }
        decisions.rights.insert(key, (now + if allowed { ALLOWED_FOR } else { REFUSED_FOR }, allowed));
        allowed
    }

    async fn ask(&self, resource: &ApiResource, review: Value) -> Option<Value> {
        let api = Api::<Dynamic>::all_of(self.shared.config.client.clone(), resource);
        match api.create(&Dynamic(review)).await {
            Ok(answer) => Some(answer.0),
            Err(error) => {
                tracing::warn!(%error, "the API server could not be asked about who asks this node");
                None
            }
        }
    }
}

/// What of a node a path is, the finest part first.
fn subresources(path: &str) -> &'static [&'static str] {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "healthz" => &["healthz", "proxy"],
        "pods" => &["pods", "proxy"],
        _ => &["proxy"],
    }
}

/// Whom a certificate names, which the handshake has verified.
fn caller_of(certificate: &CertificateDer<'_>) -> Option<Caller> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|it| it.as_str().ok())?.to_owned();
    let groups = subject.iter_organization().filter_map(|it| it.as_str().ok().map(str::to_owned));
    // Whoever has proved to be somebody is in this group too.
    let groups = groups.chain(["system:authenticated".to_owned()]).collect();
    Some(Caller { name, uid: String::new(), groups })
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A serving certificate that the cluster's signer has given, and when it is to be replaced.
async fn certificate(shared: &Shared, config: &ServingConfig) -> Result<(Arc<ServerConfig>, Duration), String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let request = request(shared, &key)?;
    let requests = Api::<Dynamic>::all_of(shared.config.client.clone(), &CSRS);
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": STANDARD.encode(request), "signerName": SIGNER, "usages": ["digital signature", "server auth"],
        },
    });
    let told = |error: Error| format!("its request for a certificate was refused: {error}");
    let made = requests.create(&Dynamic(object)).await.map_err(told)?;
    let name = api::meta::name(&made).to_owned();
    // Who may approve requests needs nobody else for their own node's; else somebody has to: kubectl certificate approve.
    let mut approved = made.0;
    approved["status"]["conditions"] = json!([{
        "type": "Approved", "status": "True", "reason": "NodeStarted",
        "message": format!("The node {} was started by who may approve this", shared.config.name),
    }]);
    if let Err(error) = requests.replace_subresource::<Value>(&name, "approval", &approved).await {
        tracing::info!(%error, name, "the node's serving certificate waits for an approval");
    }
    let fields = FieldSelector::parse(&format!("metadata.name={name}")).map_err(|why| why.to_string())?;
    let mut watcher = requests.watcher(&ListOptions { fields, ..ListOptions::default() });
    let pem = loop {
        let found = match watcher.next().await {
            Ok(kemudi_client::Event::InitApplied(found) | kemudi_client::Event::Applied(found)) => found,
            Ok(kemudi_client::Event::Deleted(_)) => return Err("its request for a certificate was deleted".into()),
            _ => continue,
        };
        let ended = |kind: &str| {
            let all = api::meta::items_at(&found, &["status", "conditions"]).iter();
            all.filter(|it| it["type"] == kind).map(|it| text_of(&it["message"])).next()
        };
        if let Some(why) = ended("Denied").or_else(|| ended("Failed")) {
            return Err(format!("its request for a certificate was refused: {why}"));
        }
        let certificate = api::meta::text_at(&found, &["status", "certificate"]);
        if !certificate.is_empty() {
            break STANDARD.decode(certificate).map_err(|error| error.to_string())?;
        }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let first = chain.first().ok_or("the signer gave no certificate")?;
    let (_, parsed) = X509Certificate::from_der(first).map_err(|error| error.to_string())?;
    let ends = parsed.validity().not_after.timestamp();
    let left = (ends - Timestamp::now().as_second()).max(0) * RENEW_AT_PERCENT / 100;
    let renew_after = Duration::from_secs(left.try_into().unwrap_or(0)).max(RETRY_AFTER);
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(|error| error.to_string())?;
    Ok((Arc::new(tls(chain, key, config.client_ca.as_deref())?), renew_after))
}

fn request(shared: &Shared, key: &KeyPair) -> Result<String, String> {
    let hosts = [shared.config.name.clone(), shared.facts.host_ip.clone()];
    let mut params = CertificateParams::new(hosts).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", shared.config.name));
    let request = params.serialize_request(key).map_err(|error| error.to_string())?;
    request.pem().map_err(|error| error.to_string())
}

fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<&str>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in client_ca.map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())).into_iter().flatten() {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let builder = match roots.is_empty() {
        true => builder.with_no_client_auth(),
        false => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.allow_unauthenticated().build().map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

#[cfg(test)]
mod tests {
    #[test]
    fn parts_of_a_node() {
        let check = |path: &str, expected: &[&str]| assert_eq!(super::subresources(path), expected, "{path}");
        check("/healthz", &["healthz", "proxy"]);
        check("/stats/summary", &["stats"]);
        check("/metrics/resource", &["metrics"]);
        check("/exec/shop/web/main", &["proxy"]);
        check("/", &["proxy"]);
    }
}
