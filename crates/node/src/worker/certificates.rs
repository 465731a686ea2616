//! Certificates in a pod's volumes: those of others, which follow the ClusterTrustBundles, and the pod's own, which are asked
//! for, waited for and replaced in time. Signs nothing; keys never leave the node.

use super::files::{jitter, mount_failed};
use super::{Message, Worker, sleep_until};
use crate::decide;
use crate::pod::{CertificateProjection, Pod, TrustProjection};
use crate::volumes::{self, Credential};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kemudi_client::{
    Api, ApiResource, Client, Dynamic, Event as WatchEvent, FieldSelector, LabelSelector, ListOptions, Resource,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long the preparation of a pod waits for the first word on its certificates before it says that it waits.
const FIRST_WORD: Duration = Duration::from_secs(2);
/// The pause before a certificate is asked for again.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// What a certificate lives that does not say, as the API server has it.
const SECONDS: i64 = 24 * 3600;
const TRUST_BUNDLES: ApiResource =
    ApiResource::new("certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles", false);
const REQUESTS: ApiResource =
    ApiResource::new("certificates.k8s.io", "v1", "PodCertificateRequest", "podcertificaterequests", true);
const ACCOUNTS: ApiResource = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
const NODES: ApiResource = ApiResource::new("", "v1", "Node", "nodes", false);

/// A projected source: the volume's name, and its place in the volume.
pub(super) type Source = (String, usize);

/// What is known of a pod's certificates.
#[derive(Default)]
pub(super) struct Certificates {
    /// Somebody sees to them.
    kept: bool,
    /// PEM.
    pub(super) trusted: BTreeMap<Source, String>,
    /// An error is final.
    pub(super) own: BTreeMap<Source, Result<Credential, String>>,
}

/// What the tasks that see to them tell.
pub(super) enum Certified {
    Trusted(Source, String),
    Own(Source, Result<Credential, String>),
}

impl Worker {
    /// Sees to the certificates that the pod's volumes want from now on, and waits a while for the first word on each.
    pub(super) async fn keep_certificates(&mut self) {
        let pod = self.pod.clone();
        let wanted: usize = pod.spec.volumes.iter().map(|it| sources(it).count()).sum();
        if wanted == 0 {
            return;
        }
        if !std::mem::replace(&mut self.certificates.kept, true) {
            self.start_keepers(&pod);
        }
        let until = Instant::now() + FIRST_WORD;
        while self.certificates.trusted.len() + self.certificates.own.len() < wanted {
            match tokio::time::timeout_at(until, self.messages.recv()).await {
                Ok(Some(message)) => self.take_message(*message),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn start_keepers(&mut self, pod: &Arc<Pod>) {
        let client = &self.shared.config.client;
        for volume in &pod.spec.volumes {
            for (at, trust) in volumes::trusted(volume) {
                let (source, tell) = ((volume.name.clone(), at), self.sender.clone());
                self.tasks.spawn(follow(client.clone(), trust.clone(), source, tell));
            }
            for (at, wanted) in volumes::certificates(volume) {
                let asking = Asking {
                    client: client.clone(),
                    node: self.shared.config.name.clone(),
                    pod: pod.clone(),
                    wanted: wanted.clone(),
                };
                self.tasks.spawn(asking.keep((volume.name.clone(), at), self.sender.clone()));
            }
        }
    }

    pub(super) fn note_certified(&mut self, news: Certified) {
        let volume = match news {
            Certified::Trusted(source, text) => {
                self.certificates.trusted.insert(source.clone(), text);
                source.0
            }
            Certified::Own(source, outcome) => {
                self.certificates.own.insert(source.clone(), outcome);
                source.0
            }
        };
        // Whoever prepares the pod writes all volumes.
        if !self.mounted {
            return;
        }
        for volume in self.pod.clone().spec.volumes.iter().filter(|it| it.name == volume) {
            // What is refused or gone keeps the files as they were.
            if let Err(error) = self.write_volume(volume) {
                self.shared.events.warning(&self.pod, None, "FailedMount", &mount_failed(&volume.name, &error));
            }
        }
    }
}

fn sources(volume: &crate::pod::Volume) -> impl Iterator<Item = usize> {
    volumes::trusted(volume).map(|(at, _)| at).chain(volumes::certificates(volume).map(|(at, _)| at))
}

/// Tells what the bundles hold that a source takes, now and whenever it changes.
async fn follow(client: Client, trust: TrustProjection, source: Source, tell: mpsc::Sender<Box<Message>>) {
    let news = |text: String| Box::new(Message::Certified(Certified::Trusted(source.clone(), text)));
    let Some(options) = bundles_of(&trust) else {
        // Without a selector, nothing is taken.
        let _ = tell.send(news(String::new())).await;
        return;
    };
    let mut watcher = Api::<Dynamic>::all_of(client, &TRUST_BUNDLES).watcher(&options);
    let mut bundles = BTreeMap::new();
    let mut is_whole = false;
    loop {
        match watcher.next().await {
            Ok(WatchEvent::Init) => {
                bundles.clear();
                is_whole = false;
            }
            Ok(WatchEvent::InitApplied(bundle) | WatchEvent::Applied(bundle)) => {
                let text = bundle.pointer("/spec/trustBundle").and_then(Value::as_str).unwrap_or_default();
                bundles.insert(bundle.name().to_owned(), text.to_owned());
            }
            Ok(WatchEvent::InitDone) => is_whole = true,
            Ok(WatchEvent::Deleted(bundle)) => drop(bundles.remove(bundle.name())),
            Err(error) => {
                tracing::debug!(%error, "trust bundles cannot be watched at the moment");
                continue;
            }
        }
        if is_whole && tell.send(news(volumes::anchors(bundles.values().map(String::as_str)))).await.is_err() {
            return;
        }
    }
}

/// Which bundles a source takes; `None` if it can take none.
fn bundles_of(trust: &TrustProjection) -> Option<ListOptions> {
    if let Some(name) = &trust.name {
        let fields = FieldSelector::parse(&format!("metadata.name={name}")).ok()?;
        return Some(ListOptions { fields, ..ListOptions::default() });
    }
    let fields = FieldSelector::parse(&format!("spec.signerName={}", trust.signer_name.as_ref()?)).ok()?;
    let labels = LabelSelector::of_object(trust.label_selector.as_ref()?)?;
    Some(ListOptions { fields, labels, ..ListOptions::default() })
}

/// One source that wants a certificate for its pod.
struct Asking {
    client: Client,
    node: String,
    pod: Arc<Pod>,
    wanted: CertificateProjection,
}

/// Why there is no certificate.
enum Refusal {
    /// The signer has spoken.
    Final(String),
    /// Another attempt may do better.
    Passing(String),
}

impl From<kemudi_client::Error> for Refusal {
    fn from(error: kemudi_client::Error) -> Refusal {
        Refusal::Passing(error.to_string())
    }
}

impl Asking {
    /// Gets a certificate, and another one each time that its signer says it is time.
    async fn keep(self, source: Source, tell: mpsc::Sender<Box<Message>>) {
        loop {
            let soonest = Timestamp::now() + ASK_AGAIN;
            let again = match self.ask().await {
                Ok((credential, refresh_at)) => {
                    let news = Certified::Own(source.clone(), Ok(credential));
                    if tell.send(Box::new(Message::Certified(news))).await.is_err() {
                        return;
                    }
                    refresh_at.map_or(Timestamp::MAX, |at| (at + jitter()).max(soonest))
                }
                Err(Refusal::Final(why)) => {
                    let _ = tell.send(Box::new(Message::Certified(Certified::Own(source, Err(why))))).await;
                    return;
                }
                Err(Refusal::Passing(why)) => {
                    tracing::warn!(pod = self.pod.metadata.name, why, "a pod's certificate could not be had yet");
                    soonest
                }
            };
            sleep_until(again).await;
        }
    }

    /// A new key, and the certificate for it once its signer has given it; with when to ask again.
    async fn ask(&self) -> Result<(Credential, Option<Timestamp>), Refusal> {
        let kind = self.wanted.key_type.clone();
        // A long RSA key takes a second.
        let made = tokio::task::spawn_blocking(move || key_and_request(&kind)).await;
        let (key, proof) = made.map_err(|error| Refusal::Passing(error.to_string()))?.map_err(Refusal::Final)?;
        let requests = Api::<Dynamic>::namespaced_of(self.client.clone(), &self.pod.metadata.namespace, &REQUESTS);
        let request: Value = self.request(&proof).await?;
        let made = requests.create(&Dynamic(request)).await?;
        let name = made.name().to_owned();
        let fields = format!("metadata.name={name},spec.nodeName={}", self.node);
        let fields = FieldSelector::parse(&fields).map_err(Refusal::Passing)?;
        let mut watcher = requests.watcher(&ListOptions { fields, ..ListOptions::default() });
        let mut seen = false;
        loop {
            let answered = match watcher.next().await {
                Ok(WatchEvent::InitApplied(request) | WatchEvent::Applied(request)) => {
                    seen = true;
                    answer(&request)
                }
                Ok(WatchEvent::Init) => {
                    seen = false;
                    None
                }
                Ok(WatchEvent::InitDone) if seen => None,
                Ok(WatchEvent::InitDone | WatchEvent::Deleted(_)) => {
                    return Err(Refusal::Passing(format!("the request {name} was deleted")));
                }
                Err(error) => {
                    tracing::debug!(%error, name, "waiting for a certificate goes on");
                    None
                }
            };
            match answered {
                Some(Ok((chain, refresh_at))) => return Ok((Credential { key, chain }, refresh_at)),
                Some(Err(why)) => return Err(Refusal::Final(why)),
                None => {}
            }
        }
    }

    async fn request(&self, proof: &[u8]) -> Result<Value, Refusal> {
        let (meta, spec) = (&self.pod.metadata, &self.pod.spec);
        let account = decide::account(spec);
        let accounts = Api::<Dynamic>::namespaced_of(self.client.clone(), &meta.namespace, &ACCOUNTS);
        let nodes = Api::<Dynamic>::all_of(self.client.clone(), &NODES);
        let (of_account, of_node) = tokio::try_join!(accounts.get(account), nodes.get(&self.node))?;
        let uid = |object: &Dynamic| object.pointer("/metadata/uid").cloned().unwrap_or_default();
        Ok(json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "PodCertificateRequest",
            "metadata": {
                "generateName": "req-",
                "namespace": meta.namespace,
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid}],
            },
            "spec": {
                "signerName": self.wanted.signer_name,
                "podName": meta.name,
                "podUID": meta.uid,
                "serviceAccountName": account,
                "serviceAccountUID": uid(&of_account),
                "nodeName": self.node,
                "nodeUID": uid(&of_node),
                "maxExpirationSeconds": self.wanted.max_expiration_seconds.unwrap_or(SECONDS),
                "stubPKCS10Request": STANDARD.encode(proof),
                "unverifiedUserAnnotations": self.wanted.user_annotations,
            },
        }))
    }
}

/// What a signer said, in the kubelet's words where it refused: the chain, and when to ask again.
fn answer(request: &Value) -> Option<Result<(String, Option<Timestamp>), String>> {
    let status = &request["status"];
    let conditions = status["conditions"].as_array()?;
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    for condition in conditions.iter().filter(|condition| condition["status"] == "True") {
        let word = match condition["type"].as_str() {
            Some("Issued") => {
                let refresh_at = status["beginRefreshAt"].as_str().and_then(|at| at.parse().ok());
                return Some(Ok((text(status, "certificateChain"), refresh_at)));
            }
            Some("Denied") => "denied",
            Some("Failed") => "failed",
            _ => continue,
        };
        let (reason, message) = (text(condition, "reason"), text(condition, "message"));
        return Some(Err(format!(
            "PodCertificateRequest was permanently {word}: reason={reason:?} message={message:?}"
        )));
    }
    None
}

/// A new key of this type as PEM (PKCS #8), and a certificate request without a name, which proves that we hold it.
fn key_and_request(kind: &str) -> Result<(String, Vec<u8>), String> {
    let key = match kind {
        "RSA3072" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        "RSA4096" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        "ECDSAP256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        "ECDSAP384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        "ECDSAP521" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        "ED25519" => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        other => return Err(format!("unknown key type {other:?}")),
    };
    let key = key.map_err(|error| error.to_string())?;
    let mut request = CertificateParams::default();
    request.distinguished_name = DistinguishedName::new();
    let request = request.serialize_request(&key).map_err(|error| error.to_string())?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    #[test]
    fn requests_prove_the_key_and_name_nobody() {
        for kind in ["RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"] {
            let (key, request) = key_and_request(kind).unwrap();
            let (_, read) = X509CertificationRequest::from_der(&request).unwrap();
            assert_eq!(read.certification_request_info.subject.iter().count(), 0, "{kind}");
            let public = KeyPair::from_pem(&key).unwrap();
            let raw = read.certification_request_info.subject_pki.raw;
            assert_eq!(raw, rcgen::PublicKeyData::subject_public_key_info(&public), "{kind}");
        }
        assert_eq!(key_and_request("DSA").unwrap_err(), "unknown key type \"DSA\"");
    }

    #[test]
    fn answers_of_signers() {
        let check = |status: Value, expected: &str| {
            let text = match answer(&json!({"status": status})) {
                None => "none yet".to_owned(),
                Some(Ok((chain, at))) => format!("{chain} until {}", at.map_or("ever".into(), |at| at.to_string())),
                Some(Err(why)) => why,
            };
            assert_eq!(text, expected);
        };
        let condition = |kind: &str| json!([{"type": kind, "status": "True", "reason": "R", "message": "m"}]);
        check(json!({}), "none yet");
        check(json!({"conditions": condition("Odd")}), "none yet");
        check(json!({"conditions": condition("Issued"), "certificateChain": "PEM"}), "PEM until ever");
        let at = "2030-01-01T00:00:00Z";
        check(
            json!({"conditions": condition("Issued"), "certificateChain": "PEM", "beginRefreshAt": at}),
            "PEM until 2030-01-01T00:00:00Z",
        );
        for word in ["denied", "failed"] {
            let kind = if word == "denied" { "Denied" } else { "Failed" };
            let want = format!("PodCertificateRequest was permanently {word}: reason=\"R\" message=\"m\"");
            check(json!({"conditions": condition(kind)}), &want);
        }
    }
}
