//! The cluster's own signers: approves what nodes may ask for themselves, and signs what was approved, as
//! kube-controller-manager does. Driven by the watch of the requests; writes through the API like everybody else.

use std::sync::Arc;
use std::time::Duration;

use api::meta;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, Pem};

use crate::authn::{AUTHENTICATED, User, service_account};
use crate::authz::Attributes;
use crate::connection::Peer;
use crate::issue::Terms;
use crate::objects::Collection;
use crate::serve;
use crate::state::State;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The organisation of nodes, and what their names begin with.
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// The longest life of a certificate, and that of one whose request says nothing.
const SECONDS_MAX: i64 = 365 * 24 * 60 * 60;
const SECONDS_MIN: i64 = 600;
/// Certificates count from this long ago, for clients whose clock is behind.
const BACKDATE_SECONDS: i64 = 5 * 60;
/// Changes that are taken in one turn.
const CHANGES_MAX: usize = 64;
/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Approves and signs until the server stops.
pub async fn run(state: Arc<State>) {
    let Some(kind) = state.registry.load().preferred(GROUP, RESOURCE).cloned() else { return };
    let Ok(collection) = state.collection(&kind) else { return };
    let mut changes = collection.subscribe();
    let mut seen = 0;
    let mut failed = true;
    loop {
        match failed {
            true => (seen, failed) = all(&state, &collection).await,
            false => match collection.changes_after(seen, CHANGES_MAX) {
                Ok(batch) if batch.is_empty() => {
                    let changed = tokio::select! {
                        () = state.stopping.cancelled() => return,
                        changed = changes.changed() => changed,
                    };
                    if changed.is_err() {
                        return;
                    }
                }
                Ok(batch) => {
                    for change in batch {
                        seen = change.revision;
                        if let Some(entry) = &change.new {
                            failed |= !advance(&state, &entry.value()).await;
                        }
                    }
                }
                Err(_) => failed = true,
            },
        }
        if failed {
            tokio::select! {
                () = state.stopping.cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }
}

/// Looks at every request. Answers up to which revision that was, and whether something failed.
async fn all(state: &Arc<State>, collection: &Collection) -> (store::Revision, bool) {
    let snapshot = collection.snapshot();
    let mut failed = false;
    for entry in snapshot.entries.values() {
        failed |= !advance(state, &entry.value()).await;
    }
    (snapshot.revision, failed)
}

/// Does the next thing about a request, if there is one. Answers whether that went well.
async fn advance(state: &Arc<State>, request: &Value) -> bool {
    let now = jiff::Timestamp::now().as_second();
    let may = |user: &User, subresource: &str| {
        let attributes = Attributes { subresource, ..Attributes::resource(user, "create", GROUP, RESOURCE) };
        state.authorizer.authorize(&attributes).is_allowed()
    };
    let sign = |terms: &Terms<'_>| state.pki.issue(terms);
    let (name, outcome) = (meta::name(request), decide(request, now, may, sign));
    match outcome {
        Ok(None) => true,
        Ok(Some((part, object))) => write(state, name, part, &object).await,
        Err(why) => {
            tracing::warn!(name, why, "a certificate could not be issued");
            false
        }
    }
}

/// Writes a part of a request. Whoever changed it meanwhile is heard of again.
async fn write(state: &Arc<State>, name: &str, part: &str, object: &Value) -> bool {
    const NAMESPACE: &str = "kube-system";
    const ACCOUNT: &str = "certificate-controller";
    let mut groups = service_account::groups(NAMESPACE);
    groups.push(AUTHENTICATED.to_string());
    let user = Arc::new(User::new(service_account::user_name(NAMESPACE, ACCOUNT), groups));
    let body = Full::new(api::codec::to_json(object).into()).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder()
        .method(Method::PUT)
        .uri(format!("/apis/{GROUP}/v1/{RESOURCE}/{name}/{part}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-controller-manager")
        .body(body);
    let Ok(request) = request else { return true };
    let peer = Peer { internal: Some(user), ..Peer::default() };
    let answered = serve::serve(state, &peer, request).await.status();
    if answered.is_server_error() {
        tracing::warn!(name, part, code = answered.as_u16(), "a certificate request could not be written");
    }
    !answered.is_server_error()
}

/// What is to be written about a request: which part of it, and what it becomes. `may` says whether a user may make a
/// subresource of requests.
fn decide(
    request: &Value,
    now: i64,
    may: impl Fn(&User, &str) -> bool,
    sign: impl Fn(&Terms<'_>) -> Result<String, String>,
) -> Result<Option<(&'static str, Value)>, String> {
    let has = |type_: &str| meta::items_at(request, &["status", "conditions"]).iter().any(|c| c["type"] == type_);
    let issued = !meta::text_at(request, &["status", "certificate"]).is_empty();
    if issued || has("Denied") || has("Failed") {
        return Ok(None);
    }
    let signer = meta::text_at(request, &["spec", "signerName"]);
    if !matches!(signer, CLIENT | KUBELET_CLIENT | KUBELET_SERVING) {
        return Ok(None);
    }
    let asked = Asked::parse(meta::text_at(request, &["spec", "request"]))?;
    let usages: Vec<&str> = meta::items_at(request, &["spec", "usages"]).iter().filter_map(Value::as_str).collect();
    if !has("Approved") {
        let message = if signer == KUBELET_CLIENT { approval(request, &asked, &usages, may) } else { None };
        return Ok(message.map(|message| ("approval", with_condition(request, "Approved", "AutoApproved", message))));
    }
    if let Err(why) = asked.suits(signer, &usages) {
        return Ok(Some(("status", with_condition(request, "Failed", "SignerValidationFailure", &why))));
    }
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(SECONDS_MAX);
    let certificate = sign(&Terms {
        subject: &asked.subject,
        public_key: &asked.public_key,
        alternative_names: asked.alternative_names.as_deref(),
        usages: &usages,
        not_before: now - BACKDATE_SECONDS,
        not_after: now + seconds.clamp(SECONDS_MIN, SECONDS_MAX),
    })?;
    let mut signed = request.clone();
    signed["status"]["certificate"] = json!(STANDARD.encode(certificate));
    Ok(Some(("status", signed)))
}

/// Why a node's client certificate is approved without a person, if it is.
fn approval(
    request: &Value,
    asked: &Asked,
    usages: &[&str],
    may: impl Fn(&User, &str) -> bool,
) -> Option<&'static str> {
    asked.suits(KUBELET_CLIENT, usages).ok()?;
    let user = requester(request);
    if user.name == asked.name && may(&user, "selfnodeclient") {
        return Some("Auto approving self kubelet client certificate after SubjectAccessReview.");
    }
    may(&user, "nodeclient").then_some("Auto approving kubelet client certificate after SubjectAccessReview.")
}

fn requester(request: &Value) -> User {
    let spec = &request["spec"];
    let user = json!({
        "username": meta::text_at(spec, &["username"]),
        "uid": meta::text_at(spec, &["uid"]),
        "groups": meta::items_at(spec, &["groups"]),
        "extra": spec.get("extra").cloned().unwrap_or_else(|| json!({})),
    });
    serde_json::from_value(user).unwrap_or_default()
}

fn with_condition(request: &Value, type_: &str, reason: &str, message: &str) -> Value {
    let condition = json!({"type": type_, "status": "True", "reason": reason, "message": message});
    let mut changed = request.clone();
    let mut conditions = meta::items_at(request, &["status", "conditions"]).to_vec();
    conditions.push(condition);
    changed["status"]["conditions"] = json!(conditions);
    changed
}

/// A certification request as far as signers look at it.
#[derive(Debug, Default)]
pub struct Asked {
    /// The subject's common name.
    pub name: String,
    /// The subject's organisations.
    pub groups: Vec<String>,
    hosts: usize,
    others: usize,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    alternative_names: Option<Vec<u8>>,
}

impl Asked {
    /// Reads the base64 of a PEM block, and holds its signature against its key.
    ///
    /// # Errors
    /// Why it is no request.
    pub fn parse(text: &str) -> Result<Asked, String> {
        let pem = STANDARD.decode(text).map_err(|why| why.to_string())?;
        let block = Pem::iter_from_buffer(&pem).find_map(Result::ok);
        let block = block.filter(|block| block.label == "CERTIFICATE REQUEST");
        let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
        let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|why| why.to_string())?;
        let wrong =
            |why: x509_parser::error::X509Error| format!("unable to verify certificate request signature: {why}");
        request.verify_signature().map_err(wrong)?;
        let info = &request.certification_request_info;
        let texts =
            |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_string);
        let mut asked = Asked {
            name: info.subject.iter_common_name().filter_map(texts).last().unwrap_or_default(),
            groups: info.subject.iter_organization().filter_map(texts).collect(),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Asked::default()
        };
        let extensions = info.iter_attributes().filter_map(|attribute| match attribute.parsed_attribute() {
            x509_parser::cri_attributes::ParsedCriAttribute::ExtensionRequest(request) => Some(&request.extensions),
            _ => None,
        });
        for extension in extensions.flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            let is_host = |name: &&GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
            asked.hosts = names.general_names.iter().filter(is_host).count();
            asked.others = names.general_names.len() - asked.hosts;
            asked.alternative_names = Some(extension.value.to_vec());
        }
        Ok(asked)
    }

    /// Whether a signer gives certificates of this kind.
    fn suits(&self, signer: &str, usages: &[&str]) -> Result<(), String> {
        let wanted = match signer {
            KUBELET_SERVING => "server auth",
            _ => "client auth",
        };
        let known = |usage: &&str| matches!(*usage, "digital signature" | "key encipherment") || *usage == wanted;
        if signer == CLIENT {
            return match usages.contains(&wanted) && usages.iter().all(|usage| known(&usage)) {
                true => Ok(()),
                false => Err(format!("invalid usages for client certificate: [{}]", usages.join(" "))),
            };
        }
        let both = ["digital signature", wanted].iter().all(|usage| usages.contains(usage));
        let problem = match signer {
            _ if self.groups != [NODES] => Some("organization in subject must be [system:nodes]"),
            _ if !self.name.starts_with(NODE_PREFIX) => Some("subject common name does not begin with system:node:"),
            _ if !both || !usages.iter().all(|usage| known(&usage)) => Some("usages did not match what is allowed"),
            _ if self.others > 0 => Some("email addresses and URIs are not allowed in subject alternative names"),
            KUBELET_SERVING if self.hosts == 0 => Some("DNS or IP subjectAltName is required"),
            KUBELET_CLIENT if self.hosts > 0 => Some("DNS and IP subject alternative names are not allowed"),
            _ => None,
        };
        problem.map_or(Ok(()), |problem| Err(problem.to_string()))
    }
}
