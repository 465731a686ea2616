//! Tokens of service accounts: what they claim, how they are issued, when they count. A signature is verified once and
//! remembered; whether the account and what the token is bound to are still there is looked up on every use.

use std::sync::Arc;

use api::go;
use serde_json::{Map, Value, json};

use super::jwt;
use super::key_ring::KeyRing;
use super::legacy_token::{self, LegacyClaims};
use super::remembered::{Remembered, hash};
use super::{Authenticated, CREDENTIAL_ID, User, authenticated, intersect};
use crate::lookup::{Identity, Lookup};

/// Verified tokens that are remembered, in two generations of this size.
pub const VERIFIED_TOKENS_MAX: usize = 4096;

/// How far clocks may be apart, and how long a deleted object still vouches for a token, in seconds.
const LEEWAY_SECONDS: i64 = 60;

pub const USER_PREFIX: &str = "system:serviceaccount:";
const INVALIDATED: &str = "service account token has been invalidated";

/// Issues and checks the tokens of service accounts.
pub struct ServiceAccounts {
    /// The first one signs; tokens of all of them are taken.
    pub issuers: Vec<String>,
    /// What tokens are for that name no audience.
    pub audiences: Vec<String>,
    pub keys: Arc<KeyRing>,
    /// Claims whose signatures held.
    verified: Remembered<Verified>,
}

/// A token with a good signature: what it says, and whom that makes.
struct Verified {
    claims: Claims,
    user: Arc<User>,
    /// Of the keys, when it was verified.
    turn: u64,
}

/// A named object of a certain incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// What a token says. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
    pub issued_at: Option<i64>,
    pub not_before: Option<i64>,
    pub expires_at: Option<i64>,
    /// The unique id of the token.
    pub id: String,
    pub namespace: String,
    pub service_account: Reference,
    pub pod: Option<Reference>,
    pub secret: Option<Reference>,
    pub node: Option<Reference>,
    /// From here on the token should have been renewed; it still counts until it expires.
    pub warn_after: Option<i64>,
}

impl ServiceAccounts {
    pub fn new(issuers: Vec<String>, audiences: Vec<String>, keys: Arc<KeyRing>) -> ServiceAccounts {
        ServiceAccounts { issuers, audiences, keys, verified: Remembered::new(VERIFIED_TOKENS_MAX) }
    }

    /// Signs a token. May wait for the signing key right after the start.
    pub fn issue(&self, claims: &Claims) -> Result<String, String> {
        self.keys.load().signing.get()?.sign(&claims.to_value())
    }

    /// Signs a token that lives as long as its Secret.
    pub fn issue_legacy(&self, claims: &LegacyClaims) -> Result<String, String> {
        self.keys.load().signing.get()?.sign(&claims.to_value())
    }

    /// Nothing where the token is none of ours; an error where it is and does not count.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn Lookup,
        now: i64,
    ) -> Result<Option<Authenticated>, String> {
        let Some(verified) = self.verify(token)? else { return self.authenticate_legacy(token, audiences, lookup) };
        let claims = &verified.claims;
        let given = if claims.audiences.is_empty() { &self.audiences } else { &claims.audiences };
        let common = intersect(given, audiences);
        if common.is_empty() {
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                go::quote_list(given),
                go::quote_list(audiences)
            ));
        }
        claims.check_times(now)?;
        claims.check_objects(lookup, now)?;
        Ok(Some(Authenticated {
            user: verified.user.clone(),
            audiences: common,
            warning: None,
            annotations: claims.stale(now).into_iter().collect(),
        }))
    }

    /// Tokens of the old kind name no audience and are for this server only.
    fn authenticate_legacy(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn Lookup,
    ) -> Result<Option<Authenticated>, String> {
        if jwt::issuer_of(token).as_deref() != Some(legacy_token::ISSUER) {
            return Ok(None);
        }
        let Some(claims) = self.signed(token)? else { return Ok(None) };
        let common = intersect(&self.audiences, audiences);
        if common.is_empty() {
            return Ok(None);
        }
        let legacy = LegacyClaims::from_value(&claims)?;
        legacy.check(token, lookup)?;
        let annotations = legacy.annotations(lookup);
        let service_account = Reference { name: legacy.account, uid: legacy.account_uid };
        let claims = Claims { namespace: legacy.namespace, service_account, ..Claims::default() };
        Ok(Some(Authenticated { user: Arc::new(claims.user()), audiences: common, warning: None, annotations }))
    }

    /// The claims of a token with a good signature.
    fn verify(&self, token: &str) -> Result<Option<Arc<Verified>>, String> {
        let hash = hash(token);
        let turn = self.keys.turn();
        if let Some(verified) = self.verified.get(&hash).filter(|verified| verified.turn == turn) {
            return Ok(Some(verified));
        }
        if !jwt::issuer_of(token).is_some_and(|issuer| self.issuers.contains(&issuer)) {
            return Ok(None);
        }
        let Some(claims) = self.signed(token)? else { return Ok(None) };
        let claims = Claims::from_value(&claims).ok_or("the claims of the token cannot be read")?;
        let user = authenticated(Arc::new(claims.user()));
        let verified = Arc::new(Verified { claims, user, turn });
        self.verified.put(hash, verified.clone());
        Ok(Some(verified))
    }

    /// What a token says that one of our keys has signed.
    fn signed(&self, token: &str) -> Result<Option<Value>, String> {
        let Some(parsed) = jwt::Parsed::parse(token) else { return Ok(None) };
        let keys = self.keys.load();
        let keys = keys.candidates(&parsed.key_id);
        if keys.is_empty() {
            return Err("invalid signature, no keys found".into());
        }
        if !keys.into_iter().any(|key| parsed.is_signed_by(key)) {
            return Err("go-jose/go-jose: error in cryptographic primitive".into());
        }
        Ok(Some(parsed.claims))
    }
}

impl Claims {
    /// The payload, its keys sorted as Kubernetes has them.
    pub fn to_value(&self) -> Value {
        let object = |r: &Reference| json!({"name": r.name, "uid": r.uid});
        let mut kubernetes = Map::new();
        kubernetes.insert("namespace".into(), json!(self.namespace));
        for (key, reference) in [("node", &self.node), ("pod", &self.pod), ("secret", &self.secret)] {
            if let Some(reference) = reference {
                kubernetes.insert(key.into(), object(reference));
            }
        }
        kubernetes.insert("serviceaccount".into(), object(&self.service_account));
        if let Some(at) = self.warn_after {
            kubernetes.insert("warnafter".into(), json!(at));
        }
        json!({
            "aud": self.audiences,
            "exp": self.expires_at,
            "iat": self.issued_at,
            "iss": self.issuer,
            "jti": self.id,
            "kubernetes.io": kubernetes,
            "nbf": self.not_before,
            "sub": self.subject,
        })
    }

    fn from_value(claims: &Value) -> Option<Claims> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_string();
        let seconds = |value: Option<&Value>| match value {
            None | Some(Value::Null) => Some(None),
            Some(value) => value.as_f64().map(|seconds| Some(seconds as i64)),
        };
        let own = claims.get("kubernetes.io")?.as_object()?;
        let reference = |key: &str| {
            let object = own.get(key)?.as_object()?;
            Some(Reference { name: text(object.get("name")), uid: text(object.get("uid")) })
        };
        Some(Claims {
            issuer: text(claims.get("iss")),
            subject: text(claims.get("sub")),
            audiences: api::token::audiences(&claims["aud"])?,
            issued_at: seconds(claims.get("iat"))?,
            not_before: seconds(claims.get("nbf"))?,
            expires_at: seconds(claims.get("exp"))?,
            id: text(claims.get("jti")),
            namespace: text(own.get("namespace")),
            service_account: reference("serviceaccount")?,
            pod: reference("pod"),
            secret: reference("secret"),
            node: reference("node"),
            warn_after: seconds(own.get("warnafter"))?.filter(|at| *at != 0),
        })
    }

    fn check_times(&self, now: i64) -> Result<(), String> {
        if self.not_before.is_some_and(|at| now + LEEWAY_SECONDS < at) {
            return Err("service account token is not valid yet".into());
        }
        if self.expires_at.is_some_and(|at| now - LEEWAY_SECONDS > at) {
            return Err("service account token has expired".into());
        }
        if self.issued_at.is_some_and(|at| now + LEEWAY_SECONDS < at) {
            return Err("service account token is issued in the future".into());
        }
        Ok(())
    }

    /// The account and what the token is bound to are the ones of its making, and still there.
    fn check_objects(&self, lookup: &dyn Lookup, now: i64) -> Result<(), String> {
        let gone = |object: &Identity| object.deleted_at.is_some_and(|at| at < now - LEEWAY_SECONDS);
        let name = &self.service_account.name;
        let account = lookup
            .identity("", "serviceaccounts", &self.namespace, name)
            .ok_or_else(|| format!("serviceaccounts {} not found", go::quote(name)))?;
        if account.uid != self.service_account.uid {
            return Err(format!(
                "service account UID ({}) does not match claim ({})",
                account.uid, self.service_account.uid
            ));
        }
        if gone(&account) {
            return Err(format!("service account {}/{name} has been deleted", self.namespace));
        }
        // A pod's token names the node it runs on, but is bound to the pod only.
        let node = self.node.as_ref().filter(|_| self.pod.is_none());
        let bound = [
            ("secret", "secrets", self.namespace.as_str(), self.secret.as_ref()),
            ("pod", "pods", self.namespace.as_str(), self.pod.as_ref()),
            ("node", "nodes", "", node),
        ];
        for (kind, resource, namespace, reference) in bound {
            let Some(reference) = reference else { continue };
            let object = lookup.identity("", resource, namespace, &reference.name).ok_or(INVALIDATED)?;
            if object.uid != reference.uid {
                return Err(format!(
                    "{kind} UID ({}) does not match service account {kind} ref claim ({})",
                    object.uid, reference.uid
                ));
            }
            if gone(&object) {
                return Err(INVALIDATED.into());
            }
        }
        Ok(())
    }

    fn user(&self) -> User {
        let mut extra = std::collections::BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_string()]);
            }
        };
        if let Some(pod) = &self.pod {
            put("pod-name", &pod.name);
            put("pod-uid", &pod.uid);
        }
        if let Some(node) = self.node.as_ref().filter(|node| !node.name.is_empty()) {
            put("node-name", &node.name);
            put("node-uid", &node.uid);
        }
        if !self.id.is_empty() {
            extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={}", self.id)]);
        }
        User {
            name: user_name(&self.namespace, &self.service_account.name),
            uid: self.service_account.uid.clone(),
            groups: groups(&self.namespace),
            extra,
        }
    }

    /// The audit annotation of a token that should have been renewed.
    fn stale(&self, now: i64) -> Option<(&'static str, String)> {
        let seconds = now - self.warn_after?;
        (seconds > 0).then(|| {
            let text = format!("subject: {}, seconds after warning threshold: {seconds}", self.subject);
            ("authentication.k8s.io/stale-token", text)
        })
    }
}

pub use rights::user_of as user_name;

/// Namespace and name behind the user name of a service account.
pub fn split_user_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    let is_label = |text: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
    };
    (!namespace.is_empty() && is_label(namespace) && api::selector::is_dns_subdomain(name)).then_some((namespace, name))
}

/// The groups every service account of a namespace is in.
pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::jwt::{Algorithm, Keys, LazyKey, SigningKey};
    use crate::authn::token_file::TokenFile;
    use crate::authn::{Authenticator, Credentials};
    use crate::lookup::Objects;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
    const NOW: i64 = 1_800_000_000;

    fn authenticator() -> Authenticator {
        let signing = LazyKey::ready(SigningKey::generate(Algorithm::Es256).unwrap());
        let keys = Arc::new(KeyRing::new(Keys { signing, others: Vec::new() }));
        let audiences = vec![ISSUER.to_string()];
        Authenticator::new(
            TokenFile::parse("static,admin,admin,system:masters").unwrap(),
            ServiceAccounts::new(audiences.clone(), audiences.clone(), keys),
            audiences,
        )
    }

    fn objects() -> Objects {
        let mut objects = Objects::default();
        let meta = |name: &str, uid: &str| json!({"metadata": {"name": name, "namespace": "ns", "uid": uid}});
        objects.put("", "serviceaccounts", meta("sa", "s1"));
        objects.put("", "pods", meta("p", "p1"));
        objects.put("", "secrets", meta("sec", "x1"));
        objects.put("", "nodes", json!({"metadata": {"name": "n", "uid": "n1"}}));
        objects
    }

    fn claims() -> Claims {
        Claims {
            issuer: ISSUER.into(),
            subject: "system:serviceaccount:ns:sa".into(),
            audiences: vec![ISSUER.into()],
            issued_at: Some(NOW),
            not_before: Some(NOW),
            expires_at: Some(NOW + 3600),
            id: "j".into(),
            namespace: "ns".into(),
            service_account: Reference { name: "sa".into(), uid: "s1".into() },
            ..Claims::default()
        }
    }

    fn reference(name: &str, uid: &str) -> Option<Reference> {
        Some(Reference { name: name.into(), uid: uid.into() })
    }

    #[track_caller]
    fn check(authenticator: &Authenticator, claims: &Claims, objects: &Objects, now: i64, want: &str) {
        let token = authenticator.service_accounts.issue(claims).unwrap();
        for _ in 0..2 {
            let got = match authenticator.begin_review(&token, &[], objects, now).known() {
                Ok(found) => serde_json::to_string(&*found.user).unwrap(),
                Err(error) => error.reason,
            };
            assert_eq!(got, want);
        }
    }

    #[test]
    fn who_a_token_says_it_is() {
        let (authn, objects) = (authenticator(), objects());
        check(
            &authn,
            &claims(),
            &objects,
            NOW,
            r#"{"username":"system:serviceaccount:ns:sa","uid":"s1","groups":["system:serviceaccounts","system:serviceaccounts:ns","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=j"]}}"#,
        );
        let bound = Claims { pod: reference("p", "p1"), node: reference("gone", ""), ..claims() };
        check(
            &authn,
            &bound,
            &objects,
            NOW,
            r#"{"username":"system:serviceaccount:ns:sa","uid":"s1","groups":["system:serviceaccounts","system:serviceaccounts:ns","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=j"],"authentication.kubernetes.io/node-name":["gone"],"authentication.kubernetes.io/pod-name":["p"],"authentication.kubernetes.io/pod-uid":["p1"]}}"#,
        );
    }

    #[test]
    fn what_ends_a_token() {
        let (authn, mut objects) = (authenticator(), objects());
        let bad = |what: &str| format!("[invalid bearer token, {what}]");
        check(&authn, &claims(), &objects, NOW + 3661, &bad("service account token has expired"));
        check(&authn, &claims(), &objects, NOW - 61, &bad("service account token is not valid yet"));
        let early = Claims { not_before: None, ..claims() };
        check(&authn, &early, &objects, NOW - 61, &bad("service account token is issued in the future"));
        let other = Claims { audiences: vec!["vault".into(), "db".into()], ..claims() };
        check(
            &authn,
            &other,
            &objects,
            NOW,
            &bad(&format!("token audiences [\"vault\" \"db\"] is invalid for the target audiences [\"{ISSUER}\"]")),
        );
        let gone = Claims { service_account: reference("gone", "g").unwrap(), ..claims() };
        check(&authn, &gone, &objects, NOW, &bad("serviceaccounts \"gone\" not found"));
        let again = Claims { service_account: reference("sa", "s0").unwrap(), ..claims() };
        check(&authn, &again, &objects, NOW, &bad("service account UID (s1) does not match claim (s0)"));
        for claims in [
            Claims { pod: reference("q", "p1"), ..claims() },
            Claims { secret: reference("q", "p1"), ..claims() },
            Claims { node: reference("q", "p1"), ..claims() },
        ] {
            check(&authn, &claims, &objects, NOW, &bad(INVALIDATED));
        }
        let pod = Claims { pod: reference("p", "p0"), ..claims() };
        check(&authn, &pod, &objects, NOW, &bad("pod UID (p1) does not match service account pod ref claim (p0)"));
        objects.put(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "p1", "deletionTimestamp": "2027-01-15T08:00:00Z"}}),
        );
        let pod = Claims { pod: reference("p", "p1"), ..claims() };
        check(&authn, &pod, &objects, NOW + 61, &bad(INVALIDATED));
        check(
            &authn,
            &Claims { issuer: "https://else.where".into(), ..claims() },
            &objects,
            NOW,
            "invalid bearer token",
        );
    }

    #[test]
    fn tokens_that_are_none() {
        let (authn, objects) = (authenticator(), objects());
        let token = authn.service_accounts.issue(&claims()).unwrap();
        let ask = |token: &str| match authn.begin_review(token, &[], &objects, NOW).known() {
            Ok(found) => found.user.name.clone(),
            Err(error) => error.reason,
        };
        assert_eq!(ask(&token), "system:serviceaccount:ns:sa");
        assert_eq!(
            ask(&format!("{token}x")),
            "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]"
        );
        assert_eq!(ask(&format!("x{token}")), "invalid bearer token");
        assert_eq!(ask(&format!("{token}.")), "invalid bearer token");
        assert_eq!(ask("a.b.c"), "invalid bearer token");
        assert_eq!(ask("static"), "admin");
        // A TokenReview passes its token on as a header: with a space in front of it, nothing was presented at all.
        assert_eq!(ask(&format!(" {token}")), "system:anonymous");
        let found = authn.begin_review("static", &["vault".into()], &objects, NOW).known().unwrap_err();
        assert_eq!(found.reason, "invalid bearer token");
    }

    #[test]
    fn audiences_are_those_in_common_as_asked() {
        let (authn, objects) = (authenticator(), objects());
        let both = Claims { audiences: vec!["vault".into(), ISSUER.into(), "db".into()], ..claims() };
        let token = authn.service_accounts.issue(&both).unwrap();
        let ask = |audiences: &[&str]| {
            let audiences: Vec<String> = audiences.iter().map(ToString::to_string).collect();
            authn.begin_review(&token, &audiences, &objects, NOW).known().unwrap().audiences.join(",")
        };
        assert_eq!(ask(&[]), ISSUER);
        assert_eq!(ask(&["db", "vault", "none"]), "db,vault");
        assert_eq!(ask(&["vault", "vault"]), "vault,vault");
    }

    #[test]
    fn requests_without_a_token_are_anonymous_and_stale_tokens_are_noted() {
        let (authn, objects) = (authenticator(), objects());
        let ask = |header: Option<&str>, now| {
            let mut headers = http::HeaderMap::new();
            if let Some(header) = header {
                headers.insert("authorization", header.parse().unwrap());
            }
            let (certificate, proxy) = Default::default();
            let credentials = Credentials { headers: &headers, path: "/", certificate: &certificate, proxy: &proxy };
            authn.begin(credentials, &objects, now).known()
        };
        let anonymous = ask(None, NOW).unwrap();
        assert_eq!(*anonymous.user, User::anonymous());
        assert!(ask(Some("Bearer  static"), NOW).unwrap().warning.is_some());
        assert_eq!(ask(Some("Bearer static"), NOW).unwrap().user.groups, ["system:masters", "system:authenticated"]);
        assert!(ask(Some("Bearer other"), NOW).is_err());
        let long = Claims { warn_after: Some(NOW + 3607), expires_at: Some(NOW + 31_536_000), ..claims() };
        let token = authn.service_accounts.issue(&long).unwrap();
        let found = ask(Some(&format!("bearer {token}")), NOW + 3617).unwrap();
        assert_eq!(
            found.annotations,
            [(
                "authentication.k8s.io/stale-token",
                "subject: system:serviceaccount:ns:sa, seconds after warning threshold: 10".to_string()
            )]
        );
    }

    #[test]
    fn names_of_service_accounts() {
        assert_eq!(split_user_name("system:serviceaccount:ns:robot"), Some(("ns", "robot")));
        for bad in
            ["system:serviceaccount:bad", "system:serviceaccount:ns:robot:x", "alice", "system:serviceaccount::x"]
        {
            assert_eq!(split_user_name(bad), None, "{bad}");
        }
    }
}
