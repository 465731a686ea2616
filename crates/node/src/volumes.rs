//! What the files of a pod's volumes hold, from the objects and tokens they are made of. Pure; `atomic` writes them.

use crate::env::{ObjectKind, Objects, Surroundings, field_value, resource_value};
use crate::pod::{
    CertificateProjection, ConfigMapVolume, DownwardVolume, KeyToPath, Pod, Projection, SecretVolume, TokenProjection,
    TrustProjection, Volume,
};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::{BTreeMap, BTreeSet};

/// The mode of files whose volume names none.
const DEFAULT_MODE: u32 = 0o644;
/// Seconds that a token lives whose projection does not say.
pub const TOKEN_SECONDS: i64 = 3600;
/// A token is replaced after this part of its life ..
const ROTATE_AFTER_PERCENT: i64 = 80;
/// .. or after this long, whichever comes first ..
const TOKEN_AGE_MAX: SignedDuration = SignedDuration::from_hours(24);
/// .. less a random part of this, so that not all are replaced at once.
pub const ROTATE_JITTER_MAX: SignedDuration = SignedDuration::from_secs(10);

/// Files by their path in the volume.
pub type Payload = BTreeMap<String, File>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
}

/// The objects that a volume is made of.
pub fn references(volume: &Volume) -> Vec<(ObjectKind, String)> {
    let mut found = Vec::new();
    found.extend(volume.config_map.iter().map(|source| (ObjectKind::ConfigMap, source.name.clone())));
    found.extend(volume.secret.iter().map(|source| (ObjectKind::Secret, source.secret_name.clone())));
    for source in projections(volume) {
        found.extend(source.config_map.iter().map(|source| (ObjectKind::ConfigMap, source.name.clone())));
        found.extend(source.secret.iter().map(|source| (ObjectKind::Secret, source.name.clone())));
    }
    found
}

/// The tokens that a volume holds.
pub fn tokens(volume: &Volume) -> impl Iterator<Item = &TokenProjection> {
    projections(volume).iter().filter_map(|source| source.service_account_token.as_deref())
}

/// The certificates of others that a volume holds, each with the place of its source in the volume.
pub fn trusted(volume: &Volume) -> impl Iterator<Item = (usize, &TrustProjection)> {
    let sources = projections(volume).iter().enumerate();
    sources.filter_map(|(at, source)| Some((at, source.cluster_trust_bundle.as_deref()?)))
}

/// The pod's own certificates that a volume holds, each with the place of its source in the volume.
pub fn certificates(volume: &Volume) -> impl Iterator<Item = (usize, &CertificateProjection)> {
    let sources = projections(volume).iter().enumerate();
    sources.filter_map(|(at, source)| Some((at, source.pod_certificate.as_deref()?)))
}

fn projections(volume: &Volume) -> &[Projection] {
    volume.projected.as_ref().map_or(&[], |projected| &projected.sources)
}

/// Whether the pod's own labels, annotations and the like are in the volume.
pub fn shows_pod(volume: &Volume) -> bool {
    volume.downward_api.is_some() || projections(volume).iter().any(|source| source.downward_api.is_some())
}

/// What was got for a volume, beside the objects that it names.
#[derive(Debug, Default)]
pub struct Issued<'a> {
    /// By path.
    pub tokens: BTreeMap<&'a str, &'a str>,
    /// Certificates of others as PEM, by the place of the source.
    pub trusted: BTreeMap<usize, &'a str>,
    /// By the place of the source; an error is final.
    pub credentials: BTreeMap<usize, &'a Result<Credential, String>>,
}

impl Issued<'_> {
    /// Is there anything that is the pod's own?
    pub fn is_any(&self) -> bool {
        !(self.tokens.is_empty() && self.trusted.is_empty() && self.credentials.is_empty())
    }
}

/// A key and the certificate for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// PEM.
    pub key: String,
    /// PEM, the pod's own certificate first.
    pub chain: String,
}

/// The files of a volume that is made of objects; `None` for other volumes.
///
/// # Errors
/// What is missing, in Kubernetes' words for the event `FailedMount`.
pub fn payload(
    pod: &Pod,
    volume: &Volume,
    objects: &Objects,
    issued: &Issued,
    around: &Surroundings,
) -> Result<Option<Payload>, String> {
    let mut files = Files { pod, objects, around, payload: Payload::new() };
    if let Some(ConfigMapVolume { name, items, default_mode, optional }) = volume.config_map.as_deref() {
        files.object(ObjectKind::ConfigMap, name, items, *default_mode, *optional)?;
    } else if let Some(SecretVolume { secret_name, items, default_mode, optional }) = volume.secret.as_deref() {
        files.object(ObjectKind::Secret, secret_name, items, *default_mode, *optional)?;
    } else if let Some(downward) = &volume.downward_api {
        files.downward(downward, downward.default_mode)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        let own_mode = own_mode(pod, mode.unwrap_or(DEFAULT_MODE));
        for (at, source) in projected.sources.iter().enumerate() {
            if let Some(token) = &source.service_account_token {
                let value = issued.tokens.get(&*token.path).ok_or("the token has not come yet")?;
                files.add(&token.path, value.as_bytes().to_vec(), own_mode)?;
            }
            if let Some(trust) = &source.cluster_trust_bundle {
                let text = issued.trusted.get(&at).ok_or("the trust anchors have not come yet")?;
                if text.is_empty() && !trust.optional {
                    return Err(no_anchors(trust));
                }
                files.add(&trust.path, text.as_bytes().to_vec(), own_mode)?;
            }
            if let Some(wanted) = &source.pod_certificate {
                let got = issued.credentials.get(&at).ok_or("credential bundle is not issued yet")?;
                let Credential { key, chain } = got.as_ref().map_err(Clone::clone)?;
                let all = [
                    (&wanted.credential_bundle_path, [key.as_str(), chain].concat()),
                    (&wanted.key_path, key.clone()),
                    (&wanted.certificate_chain_path, chain.clone()),
                ];
                for (path, text) in all.into_iter().filter(|(path, _)| !path.is_empty()) {
                    files.add(path, text.into_bytes(), own_mode)?;
                }
            }
            let objects = [(ObjectKind::ConfigMap, &source.config_map), (ObjectKind::Secret, &source.secret)];
            for (kind, source) in objects.into_iter().filter_map(|(kind, source)| Some((kind, source.as_ref()?))) {
                files.object(kind, &source.name, &source.items, mode, source.optional)?;
            }
            if let Some(downward) = &source.downward_api {
                files.downward(downward, mode)?;
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files.payload))
}

struct Files<'a> {
    pod: &'a Pod,
    objects: &'a Objects,
    around: &'a Surroundings,
    payload: Payload,
}

impl Files<'_> {
    fn object(
        &mut self,
        kind: ObjectKind,
        name: &str,
        items: &[KeyToPath],
        default_mode: Option<u32>,
        optional: bool,
    ) -> Result<(), String> {
        let Some(data) = self.objects.get(&(kind, name.to_owned())) else {
            return if optional { Ok(()) } else { Err(format!("{} {name:?} not found", kind.word())) };
        };
        let default_mode = default_mode.unwrap_or(DEFAULT_MODE);
        if items.is_empty() {
            return data.iter().try_for_each(|(key, value)| self.add(key, value.clone(), default_mode));
        }
        for item in items {
            match data.get(&item.key) {
                Some(value) => self.add(&item.path, value.clone(), item.mode.unwrap_or(default_mode))?,
                None if optional => {}
                None => {
                    let word = if kind == ObjectKind::ConfigMap { "config" } else { "secret" };
                    return Err(format!("references non-existent {word} key: {}", item.key));
                }
            }
        }
        Ok(())
    }

    fn downward(&mut self, volume: &DownwardVolume, default_mode: Option<u32>) -> Result<(), String> {
        for item in &volume.items {
            let value = if let Some(field) = &item.field_ref {
                field_value(self.pod, self.around, &field.field_path)?
            } else if let Some(field) = &item.resource_field_ref {
                resource_value(self.pod, None, field, &self.around.allocatable)?
            } else {
                continue;
            };
            let mode = item.mode.or(default_mode).unwrap_or(DEFAULT_MODE);
            self.add(&item.path, value.into_bytes(), mode)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, content: Vec<u8>, mode: u32) -> Result<(), String> {
        let path = path.trim_end_matches('/');
        let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !path.split('/').all(inside) || path.starts_with("..") {
            return Err(format!("invalid path {path:?}: must be a relative path without '..'"));
        }
        // With fsGroup the group reads what the owner reads.
        let group = if self.pod.spec.security_context.fs_group.is_some() { 0o440 } else { 0 };
        self.payload.insert(path.to_owned(), File { content, mode: mode | group });
        Ok(())
    }
}

/// In the kubelet's words.
fn no_anchors(trust: &TrustProjection) -> String {
    match &trust.name {
        Some(name) => {
            format!("while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io {name:?} not found")
        }
        None => "combination of signerName and labelSelector matched zero ClusterTrustBundles".to_owned(),
    }
}

/// The certificates of bundles as one PEM text: each once, in the order in which they come, and nothing but certificates.
pub fn anchors<'a>(bundles: impl IntoIterator<Item = &'a str>) -> String {
    let mut seen = BTreeSet::new();
    let mut out = String::new();
    for bundle in bundles {
        // What cannot be read was refused by the server.
        for der in CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten() {
            if seen.insert(der.to_vec()) {
                out.push_str(&api::pem::write("CERTIFICATE", &der));
            }
        }
    }
    out
}

/// What is the pod's own, a token for one, is for its user alone where that user is known.
fn own_mode(pod: &Pod, mode: u32) -> u32 {
    if pod.spec.security_context.fs_group.is_some() || one_user(pod).is_some() { 0o600 } else { mode }
}

/// The user that all containers run as, if they name one and the same.
pub fn one_user(pod: &Pod) -> Option<u32> {
    let all = || pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let user = |container: &crate::pod::Container| {
        container.security_context.run_as_user.or(pod.spec.security_context.run_as_user)
    };
    let first = user(all().next()?)?;
    all().all(|container| user(container) == Some(first)).then_some(first)
}

/// When a token is to be replaced.
pub fn rotate_at(issued: Timestamp, expires: Timestamp, jitter: SignedDuration) -> Timestamp {
    let life = expires.duration_since(issued);
    let part = SignedDuration::from_millis(life.as_secs().saturating_mul(ROTATE_AFTER_PERCENT * 10));
    let age = part.min(TOKEN_AGE_MAX);
    // The jitter is small beside any life that the server gives; a shorter one still lasts half of it.
    issued + (age - jitter.min(ROTATE_JITTER_MAX)).max(age / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn check(spec: serde_json::Value, volume: serde_json::Value, expected: &str) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"namespace": "shop", "labels": {"a": "b"}}, "spec": spec}))
                .unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let data = |key: &str, value: &str| Arc::new(BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]));
        let objects = Objects::from([
            ((ObjectKind::ConfigMap, "kube-root-ca.crt".into()), data("ca.crt", "PEM\n")),
            ((ObjectKind::Secret, "keys".into()), data("password", "1234")),
        ]);
        let got = Ok(Credential { key: "K\n".into(), chain: "C\n".into() });
        let refused = Err("refused".into());
        let issued = Issued {
            tokens: BTreeMap::from([("token", "T")]),
            trusted: BTreeMap::from([(0, "ANCHORS\n"), (1, "")]),
            credentials: BTreeMap::from([(0, &got), (1, &refused)]),
        };
        let text = match payload(&pod, &volume, &objects, &issued, &Surroundings::default()) {
            Err(error) => error,
            Ok(None) => "none".into(),
            Ok(Some(payload)) => {
                let file = |(path, file): (String, File)| {
                    format!("{path} {:o} {:?}", file.mode, String::from_utf8(file.content).unwrap())
                };
                payload.into_iter().map(file).collect::<Vec<_>>().join(", ")
            }
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn payloads() {
        let api_access = json!({"name": "kube-api-access-abcde", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
        let one = |context: serde_json::Value| json!({"securityContext": context, "containers": [{"name": "c"}]});
        check(one(json!({})), api_access.clone(), r#"ca.crt 644 "PEM\n", namespace 644 "shop", token 644 "T""#);
        check(
            one(json!({"runAsUser": 7})),
            api_access.clone(),
            r#"ca.crt 644 "PEM\n", namespace 644 "shop", token 600 "T""#,
        );
        check(one(json!({"fsGroup": 7})), api_access, r#"ca.crt 644 "PEM\n", namespace 644 "shop", token 640 "T""#);
        check(json!({}), json!({"secret": {"secretName": "keys", "defaultMode": 256}}), r#"password 400 "1234""#);
        check(
            json!({}),
            json!({"secret": {"secretName": "keys", "items": [{"key": "password", "path": "a/b", "mode": 511}]}}),
            r#"a/b 777 "1234""#,
        );
        check(json!({}), json!({"configMap": {"name": "no"}}), "configmap \"no\" not found");
        check(json!({}), json!({"configMap": {"name": "no", "optional": true}}), "");
        check(
            json!({}),
            json!({"secret": {"secretName": "keys", "items": [{"key": "user", "path": "x"}]}}),
            "references non-existent secret key: user",
        );
        check(json!({}), json!({"emptyDir": {}}), "none");
        let escape = json!({"secret": {"secretName": "keys", "items": [{"key": "password", "path": "../x"}]}});
        check(json!({}), escape, "invalid path \"../x\": must be a relative path without '..'");
    }

    #[test]
    fn certificates_are_files() {
        let projected = |sources: serde_json::Value| json!({"projected": {"defaultMode": 420, "sources": sources}});
        let by_name = |optional: bool| json!({"clusterTrustBundle": {"name": "x", "path": "y", "optional": optional}});
        let by_signer = json!({"clusterTrustBundle": {"signerName": "a.b/c", "path": "z"}});
        check(json!({}), projected(json!([by_name(false)])), r#"y 644 "ANCHORS\n""#);
        check(json!({}), projected(json!([by_name(false), by_name(true)])), r#"y 644 """#);
        let gone = "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"x\" not found";
        check(json!({}), projected(json!([by_name(false), by_name(false)])), gone);
        let none = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        check(json!({}), projected(json!([by_name(false), by_signer])), none);
        let two = json!({"podCertificate": {"keyPath": "k", "certificateChainPath": "c"}});
        check(json!({}), projected(json!([two])), r#"c 644 "C\n", k 644 "K\n""#);
        let one = json!({"podCertificate": {"credentialBundlePath": "b"}});
        check(
            json!({"containers": [{"securityContext": {"runAsUser": 7}}]}),
            projected(json!([one])),
            r#"b 600 "K\nC\n""#,
        );
        check(json!({}), projected(json!([one, one])), "refused");
        check(json!({}), projected(json!([one, {}, one])), "credential bundle is not issued yet");
    }

    #[test]
    fn anchors_come_once() {
        let (a, b) = (api::pem::write("CERTIFICATE", b"a"), api::pem::write("CERTIFICATE", b"b"));
        let text = anchors([&*format!("words\n{a}{b}"), &*format!("{b}{a}{}", api::pem::write("PRIVATE KEY", b"c"))]);
        assert_eq!(text, [a, b].concat());
    }

    #[test]
    fn tokens_are_replaced_in_time() {
        let check = |life: i64, jitter: i64, expected: i64| {
            let issued = Timestamp::from_second(1_700_000_000).unwrap();
            let at = rotate_at(issued, issued + SignedDuration::from_secs(life), SignedDuration::from_secs(jitter));
            assert_eq!(at.duration_since(issued).as_secs(), expected);
        };
        check(3607, 0, 2885);
        check(3607, 10, 2875);
        check(600, 5, 475);
        check(365 * 86400, 0, 86400);
        check(3600, 1000, 2870);
        check(10, 10, 4);
    }
}
