//! TokenRequest: issues a token for a service account, plain or bound to a pod, a secret or a node.

use api::status::GroupResource;
use api::{Cause, Status, go, meta};
use serde_json::{Map, Value, json};

use crate::authn::service_account::{Claims, Reference, ServiceAccounts, user_name};
use crate::lookup::Lookup;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

/// The annotation of audit events that names the token.
const ISSUED_CREDENTIAL: &str = "authentication.kubernetes.io/issued-credential-id";

const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;
const EXPIRATION_SECONDS_MIN: i64 = 600;
const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;

/// What kubelets ask for on behalf of pods that did not ask themselves.
const POD_EXPIRATION_SECONDS: i64 = 3607;
/// How long such a token really counts: clients from before tokens expired must not break.
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Answers a request for a token of the named account. Nothing is kept of a token, so a dry run issues one as well.
pub fn answer(
    cx: &crate::serve::Cx<'_>,
    namespace: &str,
    name: &str,
    object: Value,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let issuer = Cx {
        accounts: &cx.state.authenticator.service_accounts,
        lookup: &**cx.state,
        expiration_seconds_max: cx.state.options.token_seconds_max,
        extend_expiration: cx.state.options.extend_token_expiration,
        now: cx.now.as_second(),
    };
    let issued = token_request(&issuer, namespace, name, object)?;
    warnings.extend(issued.warning);
    cx.audit.annotate(ISSUED_CREDENTIAL, format!("JTI={}", issued.id));
    Ok(issued.object)
}

/// Fills in how long the token should count, where the request does not say.
pub fn default(request: &mut Value) {
    if meta::at(request, &["spec", "expirationSeconds"]).is_none_or(Value::is_null) {
        if !request["spec"].is_object() {
            request["spec"] = json!({});
        }
        request["spec"]["expirationSeconds"] = json!(EXPIRATION_SECONDS_DEFAULT);
    }
}

/// How tokens are issued here.
#[derive(Clone, Copy)]
struct Cx<'a> {
    accounts: &'a ServiceAccounts,
    lookup: &'a dyn Lookup,
    /// `--service-account-max-token-expiration`, in seconds.
    expiration_seconds_max: Option<i64>,
    /// `--service-account-extend-token-expiration`
    extend_expiration: bool,
    /// Seconds since 1970.
    now: i64,
}

/// A token that was issued.
#[derive(Debug)]
struct Issued {
    /// The request with its status.
    object: Value,
    /// To be sent as `Warning: 299` header.
    warning: Option<String>,
    /// Of the token.
    id: String,
}

/// Issues a token for the named account. Errors are the answers to the client.
fn token_request(cx: &Cx<'_>, namespace: &str, name: &str, mut object: Value) -> Result<Issued, Status> {
    let (given, place) = (meta::name(&object), meta::namespace(&object));
    if !place.is_empty() && place != namespace {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(text));
    }
    if !given.is_empty() && given != name {
        let why = format!("Invalid value: {}: must match the service account name if specified", go::quote(given));
        return Err(invalid(name, "metadata.name", why));
    }
    let Some(account) = cx.lookup.get("", "serviceaccounts", namespace, name) else {
        return Err(match cx.lookup.identity("", "namespaces", "", namespace) {
            Some(_) => not_found("serviceaccounts", name),
            None => not_found("namespaces", namespace),
        });
    };
    let uid = meta::uid(&account);
    let given = meta::uid(&object);
    if !given.is_empty() && given != uid {
        let why =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        return Err(Status::conflict(GroupResource { group: GROUP, resource: KIND }, name, why));
    }

    let mut seconds =
        meta::at(&object, &["spec", "expirationSeconds"]).and_then(Value::as_i64).unwrap_or(EXPIRATION_SECONDS_DEFAULT);
    if let Some(why) = wrong_duration(seconds) {
        return Err(invalid("", "spec.expirationSeconds", format!("Invalid value: {seconds}: {why}")));
    }
    let mut audiences: Vec<String> =
        meta::items_at(&object, &["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    if audiences.is_empty() {
        audiences.clone_from(&cx.accounts.audiences);
    }
    let reference = meta::at(&object, &["spec", "boundObjectRef"]).cloned().unwrap_or(Value::Null);
    let bound = bind(cx, namespace, name, &reference)?;

    let mut warning = None;
    if let Some(max) = cx.expiration_seconds_max.filter(|max| *max > 0 && seconds > *max) {
        warning = Some(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
        seconds = max;
    }
    let extended = cx.extend_expiration
        && bound.pod.is_some()
        && seconds == POD_EXPIRATION_SECONDS
        && audiences.iter().all(|audience| cx.accounts.audiences.contains(audience));

    let id = uuid::Uuid::new_v4().hyphenated().to_string();
    let claims = Claims {
        issuer: cx.accounts.issuers.first().cloned().unwrap_or_default(),
        subject: user_name(namespace, name),
        audiences: audiences.clone(),
        issued_at: Some(cx.now),
        not_before: Some(cx.now),
        expires_at: Some(cx.now + if extended { EXTENDED_SECONDS } else { seconds }),
        id: id.clone(),
        namespace: namespace.to_string(),
        service_account: Reference { name: name.to_string(), uid: uid.to_string() },
        warn_after: extended.then_some(cx.now + seconds),
        ..bound
    };
    let token = cx.accounts.issue(&claims).map_err(Status::internal)?;

    fill_metadata(&mut object, namespace, name, uid, &time(cx.now)?);
    object["spec"] = json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": reference});
    object["status"] = json!({"token": token, "expirationTimestamp": time(cx.now + seconds)?});
    Ok(Issued { object, warning, id })
}

/// The unexpiring token of a Secret of type `kubernetes.io/service-account-token`, for whoever fills such Secrets.
///
/// # Errors
/// Why nothing can be signed.
pub fn legacy_token(
    state: &crate::State,
    namespace: &str,
    account: &str,
    account_uid: &str,
    secret_name: &str,
) -> Result<String, String> {
    let claims = crate::authn::legacy_token::LegacyClaims {
        namespace: namespace.to_string(),
        secret: secret_name.to_string(),
        account: account.to_string(),
        account_uid: account_uid.to_string(),
    };
    state.authenticator.service_accounts.issue_legacy(&claims)
}

/// Why tokens of this life are not issued. Projected volumes are held to the same.
pub fn wrong_duration(seconds: i64) -> Option<&'static str> {
    match seconds {
        ..EXPIRATION_SECONDS_MIN => Some("may not specify a duration less than 10 minutes"),
        EXPIRATION_SECONDS_MIN..=EXPIRATION_SECONDS_MAX => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    }
}

/// The claims about what the token is bound to.
fn bind(cx: &Cx<'_>, namespace: &str, name: &str, reference: &Value) -> Result<Claims, Status> {
    if !reference.is_object() {
        return Ok(Claims::default());
    }
    let text = |field: &str| meta::text_at(reference, &[field]);
    let (group, version) = match text("apiVersion").split_once('/') {
        None => ("", text("apiVersion")),
        Some((group, version)) => (group, version),
    };
    let (kind, bound) = (text("kind"), text("name"));
    let (resource, place) = match (group, kind) {
        ("", "Pod") => ("pods", namespace),
        ("", "Secret") => ("secrets", namespace),
        ("", "Node") => ("nodes", ""),
        _ => {
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(text));
        }
    };
    if bound.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let object = cx.lookup.get_once("", resource, place, bound).ok_or_else(|| not_found(resource, bound))?;
    let this = Some(Reference { name: bound.to_string(), uid: meta::uid(&object).to_string() });
    let claims = match resource {
        "pods" if meta::text_at(&object, &["spec", "serviceAccountName"]) != name => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                go::quote(name)
            )));
        }
        "pods" => Claims { pod: this, node: node_of(cx.lookup, &object), ..Claims::default() },
        "secrets" => Claims { secret: this, ..Claims::default() },
        _ => Claims { node: this, ..Claims::default() },
    };
    if !text("uid").is_empty() && text("uid") != meta::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(GroupResource { group: "", resource: kind }, bound, why));
    }
    Ok(claims)
}

/// The node a pod runs on, without uid where the node is gone.
fn node_of(lookup: &dyn Lookup, pod: &Value) -> Option<Reference> {
    let name = meta::text_at(pod, &["spec", "nodeName"]);
    let uid = || lookup.identity("", "nodes", "", name).map(|node| node.uid).unwrap_or_default();
    (!name.is_empty()).then(|| Reference { name: name.to_string(), uid: uid() })
}

/// Fills in what the client left out, the fields in Go's order.
fn fill_metadata(object: &mut Value, namespace: &str, name: &str, uid: &str, created: &str) {
    let given = std::mem::take(meta::metadata_mut(object));
    let mut metadata = Map::new();
    for (field, value) in [("name", name), ("namespace", namespace), ("uid", uid), ("creationTimestamp", created)] {
        metadata.insert(field.into(), json!(value));
    }
    for (field, value) in given {
        metadata.entry(field).or_insert(value);
    }
    *meta::metadata_mut(object) = metadata;
}

fn time(seconds: i64) -> Result<String, Status> {
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).map_err(Status::internal)
}

fn invalid(name: &str, field: &str, message: String) -> Status {
    let cause = Cause { reason: "FieldValueInvalid".into(), message, field: field.into() };
    Status::invalid(GROUP, KIND, name, vec![cause])
}

fn not_found(resource: &str, name: &str) -> Status {
    Status::not_found(GroupResource { group: "", resource }, name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authn::jwt::{Algorithm, Keys, LazyKey, Parsed, SigningKey};
    use crate::authn::key_ring::KeyRing;
    use crate::lookup::Objects;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
    const NOW: i64 = 1_800_000_000;

    fn ask(object: Value, max: Option<i64>) -> Result<Issued, Status> {
        ask_of("ns", "s", object, max)
    }

    fn ask_of(place: &str, name: &str, object: Value, max: Option<i64>) -> Result<Issued, Status> {
        let mut objects = Objects::default();
        let meta = |name: &str, uid: &str| json!({"name": name, "namespace": "ns", "uid": uid});
        objects.put("", "serviceaccounts", json!({"metadata": meta("s", "s1")}));
        objects.put("", "secrets", json!({"metadata": meta("sec", "x1")}));
        objects.put("", "namespaces", json!({"metadata": {"name": "ns"}}));
        objects.put(
            "",
            "pods",
            json!({"metadata": meta("p", "p1"), "spec": {"serviceAccountName": "s", "nodeName": "n"}}),
        );
        objects.put("", "pods", json!({"metadata": meta("q", "q1"), "spec": {"serviceAccountName": "t"}}));
        objects.put("", "nodes", json!({"metadata": {"name": "n", "uid": "n1"}}));
        let signing = LazyKey::ready(SigningKey::generate(Algorithm::Es256).unwrap());
        let keys = Arc::new(KeyRing::new(Keys { signing, others: Vec::new() }));
        let accounts = ServiceAccounts::new(vec![ISSUER.into()], vec![ISSUER.into()], keys);
        let cx = Cx {
            accounts: &accounts,
            lookup: &objects,
            expiration_seconds_max: max,
            extend_expiration: true,
            now: NOW,
        };
        token_request(&cx, place, name, object)
    }

    /// The answer and the claims of its token, without what is new every time.
    #[track_caller]
    fn check(object: Value, want: &str) {
        let got = match ask(object, None) {
            Err(status) => status.message.clone(),
            Ok(Issued { mut object, .. }) => {
                let token = object["status"]["token"].take();
                let mut claims = Parsed::parse(token.as_str().unwrap()).unwrap().claims;
                claims["jti"] = json!("j");
                format!("{object}\n{claims}")
            }
        };
        assert_eq!(got, want);
    }

    fn bound(reference: Value) -> Value {
        json!({"spec": {"boundObjectRef": reference}})
    }

    #[test]
    fn what_is_issued() {
        check(
            json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {"labels": {"a": "b"}}, "spec": {"audiences": null}}),
            concat!(
                r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","metadata":{"name":"s","namespace":"ns","uid":"s1","creationTimestamp":"2027-01-15T08:00:00Z","labels":{"a":"b"}},"spec":{"audiences":["https://kubernetes.default.svc.cluster.local"],"expirationSeconds":3600,"boundObjectRef":null},"status":{"token":null,"expirationTimestamp":"2027-01-15T09:00:00Z"}}"#,
                "\n",
                r#"{"aud":["https://kubernetes.default.svc.cluster.local"],"exp":1800003600,"iat":1800000000,"iss":"https://kubernetes.default.svc.cluster.local","jti":"j","kubernetes.io":{"namespace":"ns","serviceaccount":{"name":"s","uid":"s1"}},"nbf":1800000000,"sub":"system:serviceaccount:ns:s"}"#
            ),
        );
    }

    #[test]
    fn a_pods_own_token_lives_longer_than_it_says() {
        let mut request = bound(json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "p1"}));
        request["spec"]["expirationSeconds"] = json!(3607);
        let claims_of = |request: &Value| {
            let issued = ask(request.clone(), None).unwrap();
            assert_eq!(issued.object["status"]["expirationTimestamp"], "2027-01-15T09:00:07Z");
            Parsed::parse(issued.object["status"]["token"].as_str().unwrap()).unwrap().claims
        };
        let claims = claims_of(&request);
        assert_eq!(claims["exp"], NOW + 31_536_000);
        assert_eq!(
            claims["kubernetes.io"].to_string(),
            r#"{"namespace":"ns","node":{"name":"n","uid":"n1"},"pod":{"name":"p","uid":"p1"},"serviceaccount":{"name":"s","uid":"s1"},"warnafter":1800003607}"#
        );
        request["spec"]["audiences"] = json!([ISSUER, "vault"]);
        let claims = claims_of(&request);
        assert_eq!((&claims["exp"], &claims["kubernetes.io"]["warnafter"]), (&json!(NOW + 3607), &Value::Null));
    }

    #[test]
    fn what_is_refused() {
        let spec = |seconds: i64| json!({"spec": {"expirationSeconds": seconds}});
        let head = "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: ";
        check(spec(599), &format!("{head}599: may not specify a duration less than 10 minutes"));
        check(spec(-1), &format!("{head}-1: may not specify a duration less than 10 minutes"));
        check(spec(4_294_967_297), &format!("{head}4294967297: may not specify a duration larger than 2^32 seconds"));
        check(
            json!({"metadata": {"name": "other"}}),
            "TokenRequest.authentication.k8s.io \"s\" is invalid: metadata.name: Invalid value: \"other\": must match the service account name if specified",
        );
        check(
            json!({"metadata": {"uid": "zzz"}}),
            "Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"s\": the UID in the token request (zzz) does not match the UID of the service account (s1)",
        );
        check(
            bound(json!({"kind": "Pod", "name": "p", "uid": "zzz"})),
            "Operation cannot be fulfilled on Pod \"p\": the UID in the bound object reference (zzz) does not match the UID in record. The object might have been deleted and then recreated",
        );
        check(
            bound(json!({"kind": "Pod", "name": "q"})),
            "cannot bind token for serviceaccount \"s\" to pod running with different serviceaccount name.",
        );
        check(bound(json!({"kind": "Pod", "apiVersion": "v1", "name": "nosuch"})), "pods \"nosuch\" not found");
        check(bound(json!({"kind": "Node", "apiVersion": "v1", "name": "nosuch"})), "nodes \"nosuch\" not found");
        check(bound(json!({"kind": "Secret", "apiVersion": "v1"})), "Name parameter required.");
        check(bound(json!({})), "cannot bind token to object of type /, Kind=");
        check(bound(json!({"kind": "pod", "apiVersion": "v1"})), "cannot bind token to object of type /v1, Kind=pod");
        check(
            bound(json!({"kind": "Pod", "apiVersion": "apps/v1", "name": "p"})),
            "cannot bind token to object of type apps/v1, Kind=Pod",
        );
    }

    #[test]
    fn accounts_that_are_not_there() {
        let why = |place: &str, name: &str, object: Value| ask_of(place, name, object, None).unwrap_err().message;
        assert_eq!(why("ns", "nosuch", json!({})), "serviceaccounts \"nosuch\" not found");
        assert_eq!(why("elsewhere", "s", json!({})), "namespaces \"elsewhere\" not found");
        assert_eq!(
            why("ns", "s", json!({"metadata": {"namespace": "other"}})),
            "the namespace of the provided object does not match the namespace sent on the request"
        );
    }

    #[test]
    fn the_server_may_shorten() {
        let issued = ask(json!({"spec": {"expirationSeconds": 7200}}), Some(3600)).unwrap();
        assert_eq!(issued.warning.as_deref(), Some("requested expiration of 7200 seconds shortened to 3600 seconds"));
        assert_eq!(issued.object["spec"]["expirationSeconds"], 3600);
    }
}
