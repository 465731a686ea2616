//! Certificate signing requests, trust bundles and pod certificates.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, Pem, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::read::Read;
use super::{check, columns, internal, rows};
use crate::validate::{ANNOTATIONS_BYTES_MAX, dns1123_label, dns1123_subdomain, push_all, qualified_name};
use crate::{Behaviour, Cause, NameRule};

pub static CERTIFICATE_SIGNING_REQUEST: Behaviour = Behaviour {
    columns: columns::CERTIFICATE_SIGNING_REQUEST,
    row: rows::certificate_signing_request,
    selectable: &[("spec.signerName", "/spec/signerName")],
    has_status: true,
    name: NameRule::Own(|_, _| Vec::new()),
    prepare_update: keep_request,
    prepare_status: keep_decisions,
    prepare_part: prepare_approval,
    validate_create: validate_request,
    validate_update: |new, old| validate_conditions_update(new, old, Writes { decisions: false, certificate: false }),
    validate_status: |new, old| validate_conditions_update(new, old, Writes { decisions: false, certificate: true }),
    validate_part: |_, new, old| validate_conditions_update(new, old, Writes { decisions: true, certificate: false }),
    ..Behaviour::PLAIN
};

pub static CLUSTER_TRUST_BUNDLE: Behaviour = Behaviour {
    columns: columns::CLUSTER_TRUST_BUNDLE,
    row: rows::cluster_trust_bundle,
    selectable: &[("spec.signerName", "/spec/signerName")],
    // The rule needs the signer; see `validate_bundle`.
    name: NameRule::Own(|_, _| Vec::new()),
    validate_create: validate_bundle,
    validate_update: validate_bundle_update,
    unconditional_update: false,
    ..Behaviour::PLAIN
};

pub static POD_CERTIFICATE_REQUEST: Behaviour = Behaviour {
    columns: columns::POD_CERTIFICATE_REQUEST,
    row: rows::pod_certificate_request,
    selectable: &[
        ("spec.signerName", "/spec/signerName"),
        ("spec.podName", "/spec/podName"),
        ("spec.nodeName", "/spec/nodeName"),
    ],
    has_status: true,
    validate_create: validate_pod_request,
    validate_update: |new, old| {
        let type_ = "api.certificates.v1.PodCertificateRequestSpec";
        internal::immutable(type_, new.at("spec"), old.at("spec"), "spec").into_iter().collect()
    },
    validate_status: validate_pod_status,
    unconditional_update: false,
    ..Behaviour::PLAIN
};

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const EXPIRATION_SECONDS_MIN: i64 = 600;
const SIGNER_DOMAIN_BYTES_MAX: usize = 253;
/// A domain, a slash, and a path of a label and a subdomain.
const SIGNER_BYTES_MAX: usize = SIGNER_DOMAIN_BYTES_MAX + 1 + 253 + 63 + 1;
const OMITTED: &str = "<value omitted>";

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What is asked for never changes.
fn keep_request(new: &mut Value, old: &Value) {
    new["spec"] = old.at("spec").clone();
}

/// Writers of the status leave decisions as they are, to the time.
fn keep_decisions(new: &mut Value, old: &Value) {
    for type_ in [APPROVED, DENIED] {
        let kept: Vec<Value> = conditions(old, type_).cloned().collect();
        if conditions(new, type_).count() != kept.len() {
            continue;
        }
        let list = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten();
        list.filter(|condition| condition.text("type") == type_).zip(kept).for_each(|(place, old)| *place = old);
    }
}

/// An approval writes conditions, nothing else.
fn prepare_approval(_: &str, new: &mut Value, old: &Value) {
    keep_request(new, old);
    let decided = new.at("status.conditions").clone();
    new["status"] = old.at("status").clone();
    match decided.is_nothing() {
        true => drop(new["status"].as_object_mut().map(|status| status.shift_remove("conditions"))),
        false => new["status"]["conditions"] = decided,
    }
}

fn conditions<'a>(object: &'a Value, type_: &'a str) -> impl Iterator<Item = &'a Value> {
    object.list("status.conditions").iter().filter(move |condition| condition.text("type") == type_)
}

fn validate_request(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = object.at("spec");
    if let Err(why) = check_request(spec.text("request")) {
        causes.push(Cause::invalid("spec.request", spec.at("request"), why));
    }
    let usages = spec.list("usages");
    if usages.is_empty() {
        causes.push(Cause::required("spec.usages", ""));
    }
    for (nth, usage) in usages.iter().enumerate() {
        check::one_of(&mut causes, usage, format_args!("spec.usages[{nth}]"), USAGES);
    }
    for (nth, usage) in usages.iter().enumerate().filter(|(nth, usage)| usages[..*nth].contains(usage)) {
        causes.push(Cause::duplicate(format!("spec.usages[{nth}]"), usage));
    }
    let signer = spec.at("signerName");
    if signer == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        causes.push(Cause::invalid("spec.signerName", signer, why));
    } else {
        causes.extend(validate_signer(signer.text(""), "spec.signerName"));
    }
    if let Some(seconds) = spec.opt_int("expirationSeconds").filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.push(Cause::invalid("spec.expirationSeconds", &json!(seconds), why));
    }
    causes.extend(validate_status(object));
    causes
}

/// `text` is base64 of a PEM document.
fn check_request(text: &str) -> Result<(), &'static str> {
    let pem = STANDARD.decode(text).unwrap_or_default();
    let block = Pem::iter_from_buffer(&pem).find_map(Result::ok).filter(|block| block.label == "CERTIFICATE REQUEST");
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    match X509CertificationRequest::from_der(&block.contents) {
        Ok(([], _)) => Ok(()),
        Ok(_) => Err("asn1: syntax error: trailing data"),
        Err(_) => Err("asn1: structure error: not a certificate request"),
    }
}

/// How long a certificate of a pod may be asked for at most: Kubernetes' own signers sign for a day.
pub fn pod_certificate_seconds_max(signer: &str) -> i64 {
    const DAY: i64 = 24 * 60 * 60;
    let domain = signer.split('/').next().unwrap_or_default();
    if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") { DAY } else { 91 * DAY }
}

/// What a pod tells its signer: as annotations, but each key has a domain.
pub fn user_annotations(out: &mut Vec<Cause>, annotations: &Value, path: &str) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let key = key.to_lowercase();
        if key.is_empty() {
            out.push(Cause::required(path, ""));
            continue;
        }
        let wrong = qualified_name(&key);
        if wrong.is_empty() && !key.contains('/') {
            let why = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            out.push(Cause::invalid(path, &json!(key), why));
        }
        push_all(out, path, &key, wrong);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        out.push(Cause::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

/// A signer is named by a domain and a path.
pub fn validate_signer(name: &str, field: &str) -> Vec<Cause> {
    if name.is_empty() {
        return vec![Cause::required(field, "")];
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![Cause::invalid(field, &json!(name), why)];
    };
    let mut causes = Vec::new();
    if domain.len() > SIGNER_DOMAIN_BYTES_MAX {
        causes.push(Cause::too_long(field, SIGNER_DOMAIN_BYTES_MAX));
    }
    labels(&mut causes, field, domain, dns1123_label);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        causes.push(Cause::invalid(field, &json!(domain), why));
    }
    labels(&mut causes, field, path, dns1123_subdomain);
    if name.len() > SIGNER_BYTES_MAX {
        causes.push(Cause::too_long(field, SIGNER_BYTES_MAX));
    }
    causes
}

fn labels(causes: &mut Vec<Cause>, field: &str, whole: &str, check: fn(&str) -> Vec<String>) {
    // The first that is wrong is enough.
    let wrong = whole.split('.').map(|label| (label, check(label))).find(|(_, wrong)| !wrong.is_empty());
    for (label, why) in wrong.into_iter().flat_map(|(label, wrong)| wrong.into_iter().map(move |why| (label, why))) {
        let why = format!("validating label {}: {why}", crate::kind::go_quote(label));
        causes.push(Cause::invalid(field, &json!(whole), &why));
    }
}

/// Conditions and certificate, whoever writes them.
fn validate_status(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let list = object.list("status.conditions");
    for (nth, condition) in list.iter().enumerate() {
        let path = format!("status.conditions[{nth}]");
        let type_ = condition.text("type");
        if type_.is_empty() {
            causes.push(Cause::required(format!("{path}.type"), ""));
        }
        let allowed: &[&str] = match type_ {
            APPROVED | DENIED | FAILED => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        match condition.text("status") {
            "" => causes.push(Cause::required(format!("{path}.status"), "")),
            status if !allowed.contains(&status) => {
                causes.push(Cause::not_supported(format!("{path}.status"), &json!(status), allowed));
            }
            _ => {}
        }
        if list[..nth].iter().any(|earlier| earlier.text("type") == type_) {
            causes.push(Cause::duplicate(format!("{path}.type"), &json!(type_)));
        }
    }
    let certificate = STANDARD.decode(object.text("status.certificate")).unwrap_or_default();
    if let Err(why) = check_certificates(&certificate) {
        causes.push(Cause::invalid("status.certificate", &json!("<certificate data>"), &why));
    }
    if [APPROVED, DENIED].iter().all(|type_| conditions(object, type_).next().is_some()) {
        let (approved, denied) = (r#"conditions[{"type": "Approved"}]"#, r#"conditions[{"type": "Denied"}]"#);
        let why = format!("must specify at most one of: `{approved}`, `{denied}`");
        causes.push(Cause::invalid("status.conditions", &json!(format!("{{{approved}, {denied}}}")), &why));
    }
    causes
}

fn check_certificates(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    let mut count = 0;
    for block in Pem::iter_from_buffer(pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            let label = crate::kind::go_quote(&block.label);
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {label}"));
        }
        X509Certificate::from_der(&block.contents).map_err(|why| format!("x509: malformed certificate: {why}"))?;
        count += 1;
    }
    if count == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

/// What a write may touch.
#[derive(Clone, Copy)]
struct Writes {
    decisions: bool,
    certificate: bool,
}

fn validate_conditions_update(new: &Value, old: &Value, writes: Writes) -> Vec<Cause> {
    let mut causes = validate_status(new);
    let count = |object: &Value, type_: &str| conditions(object, type_).count();
    for type_ in [APPROVED, DENIED, FAILED] {
        if count(new, type_) < count(old, type_) {
            let why = format!("updates may not remove a condition of type \"{type_}\"");
            causes.push(Cause::forbidden("status.conditions", &why));
        }
    }
    for type_ in [APPROVED, DENIED] {
        if !writes.decisions && count(new, type_) > count(old, type_) {
            let why = format!("updates may not add a condition of type \"{type_}\"");
            causes.push(Cause::forbidden("status.conditions", &why));
        }
    }
    let (after, before) = (new.text("status.certificate"), old.text("status.certificate"));
    if after != before {
        match (writes.certificate, before) {
            (true, "") => {}
            (true, _) => {
                let why = "updates may not modify existing certificate content";
                causes.push(Cause::forbidden("status.certificate", why));
            }
            (false, _) => {
                causes.push(Cause::forbidden("status.certificate", "updates may not set certificate content"))
            }
        }
    }
    causes
}

fn validate_bundle(object: &Value) -> Vec<Cause> {
    let signer = object.text("spec.signerName");
    let mut causes = Vec::new();
    for (field, prefix) in [("generateName", true), ("name", false)] {
        let name = object.at("metadata").text(field);
        if !name.is_empty() {
            push_all(&mut causes, format_args!("metadata.{field}"), name, bundle_name(signer, name, prefix));
        }
    }
    if !signer.is_empty() {
        causes.extend(validate_signer(signer, "spec.signerName"));
    }
    causes.extend(validate_anchors(object.text("spec.trustBundle")));
    causes
}

/// The bundles of a signer carry its name in front.
pub fn bundle_name(signer: &str, name: &str, prefix: bool) -> Vec<String> {
    if signer.is_empty() && name.contains(':') {
        return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()];
    }
    let wanted = if signer.is_empty() { String::new() } else { format!("{}:", signer.replace('/', ":")) };
    match name.strip_prefix(&wanted) {
        Some(rest) => crate::validate::name(NameRule::Subdomain, rest, prefix),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {wanted}")],
    }
}

fn validate_anchors(pem: &str) -> Vec<Cause> {
    let wrong = |why: String| Cause::invalid("spec.trustBundle", &json!(OMITTED), &why);
    let mut causes = Vec::new();
    let mut anchors: Vec<(Vec<u8>, Vec<String>)> = Vec::new();
    for (nth, block) in Pem::iter_from_buffer(pem.as_bytes()).map_while(Result::ok).enumerate() {
        if block.label != "CERTIFICATE" {
            causes.push(wrong(format!("entry {nth} has bad block type: {}", block.label)));
            continue;
        }
        let Ok((_, certificate)) = X509Certificate::from_der(&block.contents) else {
            causes.push(wrong(format!("entry {nth} does not parse as X.509")));
            continue;
        };
        if !certificate.is_ca() {
            causes.push(wrong(format!("entry {nth} does not have the CA bit set")));
            continue;
        }
        match anchors.iter_mut().find(|(der, _)| *der == block.contents) {
            Some((_, places)) => places.push(nth.to_string()),
            None => anchors.push((block.contents, vec![nth.to_string()])),
        }
    }
    if !causes.is_empty() {
        return causes;
    }
    for (_, places) in anchors.iter().filter(|(_, places)| places.len() > 1) {
        causes.push(wrong(format!("duplicate trust anchor (indices [{}])", places.join(" "))));
    }
    if anchors.is_empty() {
        causes.push(wrong("at least one trust anchor must be provided".into()));
    }
    causes
}

fn validate_bundle_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = validate_bundle(new);
    if new.text("spec.trustBundle") == old.text("spec.trustBundle") {
        causes.retain(|cause| cause.field != "spec.trustBundle");
    }
    let [after, before] = [new, old].map(|bundle| bundle.at("spec.signerName"));
    causes.extend(crate::validate::immutable_text(after, before, "spec.signerName"));
    causes
}

/// Once it is decided nothing changes any more, and what was refused has nothing but the decision.
fn validate_pod_status(new: &Value, old: &Value) -> Vec<Cause> {
    const DECISIONS: &[&str] = &["Issued", "Denied", "Failed"];
    let mut causes = Vec::new();
    let list = new.list("status.conditions");
    let mut known = 0;
    for (nth, condition) in list.iter().enumerate() {
        // Upstream makes of the index a step of the path.
        let path = format!("status.conditions.[{nth}]");
        let type_ = condition.text("type");
        if !DECISIONS.contains(&type_) {
            causes.push(Cause::not_supported(format!("{path}.type"), &json!(type_), DECISIONS));
            continue;
        }
        known += 1;
        if known > 1 {
            let why = r#"There may be at most one condition with type "Issued", "Denied", or "Failed""#;
            causes.push(Cause::invalid(format!("{path}.type"), &json!(type_), why));
        }
        if condition.text("status") != "True" {
            causes.push(Cause::not_supported(format!("{path}.status"), condition.at("status"), &["True"]));
        }
    }
    check::conditions(&mut causes, list, "status.conditions");
    if !causes.is_empty() {
        return causes;
    }
    let decided = |object: &Value, type_: &str| conditions(object, type_).any(|c| c.text("status") == "True");
    let (after, before) = (new.at("status"), old.at("status"));
    let mut still = |wrong: bool, why: &str| {
        if wrong {
            causes.push(check::invalid_unshown("status", why));
        }
    };
    if DECISIONS.iter().any(|type_| decided(old, type_)) {
        still(after != before, "immutable after PodCertificateRequest is issued, denied, or failed");
    } else if decided(new, DENIED) || decided(new, FAILED) {
        let more = after.entries().iter().any(|(field, value)| *field != "conditions" && !value.is_nothing());
        still(more, "non-condition status fields must be empty when denying or failing the PodCertificateRequest");
    } else if decided(new, "Issued") {
        causes.extend(validate_issued(after));
    } else {
        let why = r#"status is immutable unless transitioning to "Issued", "Denied", or "Failed""#;
        still(after != before, why);
    }
    causes
}

/// A chain of certificates, and when to come again.
fn validate_issued(status: &Value) -> Vec<Cause> {
    let chain = status.text("certificateChain");
    let wrong = |why: &str| vec![Cause::invalid("status.certificateChain", &json!(chain), why)];
    let mut blocks = Pem::iter_from_buffer(chain.as_bytes()).map_while(Result::ok);
    let Some(leaf) = blocks.next() else {
        return wrong("issued certificate chain must contain at least one certificate");
    };
    if leaf.label != "CERTIFICATE" {
        return wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    if X509Certificate::from_der(&leaf.contents).is_err() {
        return wrong("leaf certificate does not parse as valid X.509");
    }
    let same = "must be present and consistent with the issued certificate";
    let fields = [
        ("notBefore", same),
        ("notAfter", same),
        ("beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]"),
    ];
    let missing = fields.iter().filter(|(field, _)| !status.has(field));
    missing.map(|(field, why)| Cause::required(format!("status.{field}"), why)).collect()
}

const UID_BYTES_MAX: usize = 128;
const POD_SECONDS_MIN: i64 = 3600;

fn validate_pod_request(object: &Value) -> Vec<Cause> {
    let spec = object.at("spec");
    let mut causes = validate_signer(spec.text("signerName"), "spec.signerName");
    user_annotations(&mut causes, spec.at("unverifiedUserAnnotations"), "spec.unverifiedUserAnnotations");
    for of in ["pod", "serviceAccount", "node"] {
        let name = format!("{of}Name");
        check::text(&mut causes, spec.text(&name), format_args!("spec.{name}"), dns1123_subdomain);
        let uid = format!("{of}UID");
        if spec.text(&uid).is_empty() {
            causes.push(Cause::invalid(format!("spec.{uid}"), &json!(""), "must not be empty"));
        }
        if spec.text(&uid).len() > UID_BYTES_MAX {
            causes.push(Cause::too_long(format!("spec.{uid}"), UID_BYTES_MAX));
        }
    }
    match spec.opt_int("maxExpirationSeconds") {
        None => {
            causes.push(Cause::required("spec.maxExpirationSeconds", "must be set"));
            return causes;
        }
        Some(seconds) => {
            let most = pod_certificate_seconds_max(spec.text("signerName"));
            if !(POD_SECONDS_MIN..=most).contains(&seconds) {
                let why = format!("must be in the range [{POD_SECONDS_MIN}, {most}]");
                causes.push(Cause::invalid("spec.maxExpirationSeconds", &json!(seconds), &why));
            }
        }
    }
    let set = |field: &str| !spec.text(field).is_empty();
    match (set("stubPKCS10Request"), set("pkixPublicKey"), set("proofOfPossession")) {
        (true, false, false) => causes.extend(validate_stub(spec)),
        (false, true, true) => causes.extend(validate_public_key(spec)),
        _ => {
            let why = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            causes.push(check::invalid_unshown("spec", why));
        }
    }
    causes
}

/// What a pod's request for a certificate may hold of each of its parts.
const KEY_BYTES_MAX: usize = 10 * 1024;

/// A request of the older standard, of which only the key counts. Its signature is the signer's to look at.
fn validate_stub(spec: &Value) -> Option<Cause> {
    const PATH: &str = "spec.stubPKCS10Request";
    let der = STANDARD.decode(spec.text("stubPKCS10Request")).unwrap_or_default();
    if der.len() > KEY_BYTES_MAX {
        return Some(Cause::too_long(PATH, KEY_BYTES_MAX));
    }
    let request = X509CertificationRequest::from_der(&der).ok().filter(|(rest, _)| rest.is_empty());
    let Some(key) = request.and_then(|(_, request)| Key::of(&request.certification_request_info.subject_pki)) else {
        return Some(check::invalid_unshown(PATH, "must be a valid PKCS#10 CSR"));
    };
    key.refusal(PATH, "P256, P384, or P521")
}

/// The same as a bare key.
fn validate_public_key(spec: &Value) -> Option<Cause> {
    const PATH: &str = "spec.pkixPublicKey";
    for field in ["pkixPublicKey", "proofOfPossession"] {
        if STANDARD.decode(spec.text(field)).unwrap_or_default().len() > KEY_BYTES_MAX {
            return Some(Cause::too_long(format!("spec.{field}"), KEY_BYTES_MAX));
        }
    }
    let der = STANDARD.decode(spec.text("pkixPublicKey")).unwrap_or_default();
    let info = SubjectPublicKeyInfo::from_der(&der).ok().filter(|(rest, _)| rest.is_empty());
    let Some(key) = info.and_then(|(_, info)| Key::of(&info)) else {
        return Some(Cause::invalid(PATH, spec.at("pkixPublicKey"), "must be a valid PKIX-serialized public key"));
    };
    key.refusal(PATH, "P256 or P384")
}

/// The kinds of keys that upstream's parser takes.
enum Key {
    Edwards,
    /// Whether the curve is long enough.
    Curve(bool),
    /// The bits of the modulus.
    Rsa(usize),
}

impl Key {
    const EDWARDS: &str = "1.3.101.112";
    const ELLIPTIC: &str = "1.2.840.10045.2.1";
    const RSA: &str = "1.2.840.113549.1.1.1";
    const P224: &str = "1.3.132.0.33";
    const CURVES: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];

    fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
        match info.algorithm.algorithm.to_id_string().as_str() {
            Key::EDWARDS => Some(Key::Edwards),
            Key::ELLIPTIC => {
                let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
                (curve == Key::P224 || Key::CURVES.contains(&curve.as_str())).then(|| Key::Curve(curve != Key::P224))
            }
            Key::RSA => match info.parsed().ok()? {
                PublicKey::RSA(key) => Some(Key::Rsa(key.key_size())),
                _ => None,
            },
            _ => None,
        }
    }

    fn refusal(&self, path: &str, curves: &str) -> Option<Cause> {
        match self {
            Key::Curve(false) => {
                let why = format!("elliptic public keys must use curve {curves}");
                Some(Cause::invalid(path, &json!("curve P-224"), &why))
            }
            Key::Rsa(bits) if ![3072, 4096].contains(bits) => {
                let why = "RSA keys must have modulus size 3072 or 4096";
                Some(Cause::invalid(path, &json!(format!("{bits}-bit modulus")), why))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: Value, new: Value, expected: &[&str]) {
        let request = |status: Value| json!({"status": status});
        let causes = validate_pod_status(&request(new), &request(old));
        let told: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn pods_are_answered_once() {
        let condition = |type_: &str| {
            json!({
                "type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z",
            })
        };
        let denied = json!({"conditions": [condition("Denied")]});
        check(json!({}), denied.clone(), &[]);
        check(
            denied,
            json!({"conditions": [condition("Failed")]}),
            &["status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"],
        );
        check(
            json!({}),
            json!({"conditions": [condition("Issued")]}),
            &["status.certificateChain: Invalid value: \"\": issued certificate chain must contain at least one \
               certificate"],
        );
        check(
            json!({}),
            json!({"conditions": [condition("Odd")]}),
            &["status.conditions.[0].type: Unsupported value: \"Odd\": supported values: \"Issued\", \"Denied\", \
               \"Failed\""],
        );
        check(
            json!({}),
            json!({"certificateChain": "x"}),
            &["status: Invalid value: status is immutable unless transitioning to \"Issued\", \"Denied\", or \
               \"Failed\""],
        );
    }

    #[test]
    fn the_keys_of_pods_are_looked_at() {
        let of = |field: &str, value: &str| {
            let mut request = json!({
                "spec": {
                    "signerName": "a.b/c", "podName": "p", "podUID": "u", "serviceAccountName": "s",
                    "serviceAccountUID": "u", "nodeName": "n", "nodeUID": "u", "maxExpirationSeconds": 3600,
                    "unverifiedUserAnnotations": {"A.b/c": ""},
                },
            });
            request["spec"][field] = json!(value);
            let causes = validate_pod_request(&request);
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>().join("; ")
        };
        const P224: &str = "MIGnMFcCAQAwADBOMBAGByqGSM49AgEGBSuBBAAhAzoABMyJ878KqLjG75Bo/ohLDC3q10f9zwsBzCeq9ykSYjYZDLs\
                            8CWidZ8Dv337Xljp/cN4AH5kkUZ0eoAAwCgYIKoZIzj0EAwIDQAAwPQIcEEfU9yhkLF3hUPpyUH1m81y/qAV8KudB9B\
                            RVPAIdAOjN9JMvuI4yxcXOYCmQG/WMovwf2060h0feLrA=";
        const P256: &str = "MIG7MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAm0h0XX1yJm78H/fXtxMjtEDbKDKQbyo/Nen6OlFgdPYO\
                            EIt/5L7G+s0v9Y3aMxzIqsUDscIMXxXSoAUiisxMSgADAKBggqhkjOPQQDAgNJADBGAiEAjEsDIV7FUGbm8/yM1nNqShK/\
                            Pl0ryBgoFTg1k70PBbECIQDj2GveTXW0EHyNfAimsbarQKJXJY9+80P4svdIqd52bA==";
        assert_eq!(of("stubPKCS10Request", P256), "");
        assert_eq!(
            of("stubPKCS10Request", P224),
            "spec.stubPKCS10Request: Invalid value: \"curve P-224\": elliptic public keys must use curve P256, P384, \
             or P521"
        );
        assert_eq!(
            of("stubPKCS10Request", "aGk="),
            "spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR"
        );
    }

    #[test]
    fn what_pods_tell_their_signer_has_a_domain() {
        let mut told = Vec::new();
        user_annotations(&mut told, &json!({"Plain": "x", "a.b/c": "y"}), "p");
        let told: Vec<String> = told.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(told, ["p: Invalid value: \"plain\": must be a domain-prefixed key (such as \"acme.io/foo\")"]);
    }
}
