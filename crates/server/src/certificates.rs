//! The cluster's own signers: approves what nodes may ask for themselves, and signs what was approved, as
//! kube-controller-manager does. Driven by the watch of the requests; writes through the API like everybody else.

use std::sync::Arc;
use std::time::Duration;

use api::meta;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, Pem};

use crate::as_controller;
use crate::authn::User;
use crate::authz::{Attributes, Hearing};
use crate::issue::Terms;
use crate::objects::Collection;
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
    let hearing = &Hearing::default();
    let may = |user: &User, subresource: &str| {
        let attributes = Attributes { subresource, ..Attributes::resource(user, "create", GROUP, RESOURCE) };
        state.authorizer.authorize(&attributes, hearing).is_allowed()
    };
    let sign = |terms: &Terms<'_>| state.pki.issue(terms);
    let name = meta::name(request);
    let outcome = hearing.settle(|| decide(request, now, may, sign)).await;
    match outcome {
        Ok(None) => true,
        Ok(Some((part, object))) => {
            let path = format!("/apis/{GROUP}/v1/{RESOURCE}/{name}/{part}");
            as_controller::put(state, "certificate-controller", &path, &object).await
        }
        Err(why) => {
            tracing::warn!(name, why, "a certificate could not be issued");
            false
        }
    }
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
            return match usages.contains(&wanted) && usages.iter().all(known) {
                true => Ok(()),
                false => Err(format!("invalid usages for client certificate: [{}]", usages.join(" "))),
            };
        }
        let both = ["digital signature", wanted].iter().all(|usage| usages.contains(usage));
        let problem = match signer {
            _ if self.groups != [NODES] => Some("organization in subject must be [system:nodes]"),
            _ if !self.name.starts_with(NODE_PREFIX) => Some("subject common name does not begin with system:node:"),
            _ if !both || !usages.iter().all(known) => Some("usages did not match what is allowed"),
            _ if self.others > 0 => Some("email addresses and URIs are not allowed in subject alternative names"),
            KUBELET_SERVING if self.hosts == 0 => Some("DNS or IP subjectAltName is required"),
            KUBELET_CLIENT if self.hosts > 0 => Some("DNS and IP subject alternative names are not allowed"),
            _ => None,
        };
        problem.map_or(Ok(()), |problem| Err(problem.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_parser::prelude::X509Certificate;

    use super::*;
    use crate::pki::{Options, Pki};

    fn request(signer: &str, name: &str, group: &str, usages: &[&str], hosts: &[&str], approved: bool) -> Value {
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let conditions = if approved { json!([{"type": "Approved", "status": "True"}]) } else { json!([]) };
        json!({
            "metadata": {"name": "r"},
            "spec": {"signerName": signer, "username": name, "request": STANDARD.encode(pem), "usages": usages, "expirationSeconds": 3600},
            "status": {"conditions": conditions},
        })
    }

    /// What is done about a request: which part is written, and the last condition or the certificate's subject.
    #[track_caller]
    fn check(request: Value, may: &str, want: &str) {
        let pki = Pki::in_memory(&Options::default()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let decided = decide(&request, now, |_, part| part == may, |terms| pki.issue(terms));
        let got = match decided {
            Err(why) => why,
            Ok(None) => "nothing".into(),
            Ok(Some((part, object))) => match object["status"]["certificate"].as_str() {
                None => {
                    let last = object["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
                    format!("{part} {}: {}", last["type"].as_str().unwrap(), last["message"].as_str().unwrap())
                }
                Some(text) => {
                    let pem = STANDARD.decode(text).unwrap();
                    let block = Pem::iter_from_buffer(&pem).next().unwrap().unwrap();
                    let (_, certificate) = X509Certificate::from_der(&block.contents).unwrap();
                    let authority = pki.certificates().clients().clone();
                    let chain = [rustls::pki_types::CertificateDer::from(block.contents.clone())];
                    let counts = authority.identify(&chain, now).user(now).is_ok_and(|user| user.is_some());
                    let validity = certificate.validity();
                    let seconds = validity.not_after.timestamp() - now;
                    format!("{part} {} {seconds}s client: {counts}", certificate.subject())
                }
            },
        };
        assert_eq!(got, want);
    }

    #[test]
    fn what_was_approved_is_signed() {
        let client = ["digital signature", "client auth"];
        let server = ["digital signature", "server auth"];
        let jane = |approved| request(CLIENT, "jane", "devs", &client, &[], approved);
        check(jane(true), "", "status O=devs, CN=jane 3600s client: true");
        check(jane(false), "nodeclient", "nothing");
        check(
            request(CLIENT, "jane", "devs", &server, &[], true),
            "",
            "status Failed: invalid usages for client certificate: [digital signature server auth]",
        );
        check(request("example.com/own", "jane", "devs", &client, &[], true), "", "nothing");
        let node = "system:node:n1";
        check(
            request(KUBELET_SERVING, node, NODES, &server, &["n1.example.com"], true),
            "",
            "status O=system:nodes, CN=system:node:n1 3600s client: false",
        );
        check(
            request(KUBELET_SERVING, node, NODES, &server, &[], true),
            "",
            "status Failed: DNS or IP subjectAltName is required",
        );
    }

    #[test]
    fn nodes_renew_their_own_certificates() {
        let usages = ["digital signature", "client auth"];
        let node = |name: &str, group: &str| request(KUBELET_CLIENT, name, group, &usages, &[], false);
        let own = "approval Approved: Auto approving self kubelet client certificate after SubjectAccessReview.";
        let any = "approval Approved: Auto approving kubelet client certificate after SubjectAccessReview.";
        check(node("system:node:n1", NODES), "selfnodeclient", own);
        check(node("system:node:n1", NODES), "nodeclient", any);
        check(node("system:node:n1", NODES), "", "nothing");
        check(node("system:node:n1", "others"), "selfnodeclient", "nothing");
        check(node("jane", NODES), "nodeclient", "nothing");
    }
}
