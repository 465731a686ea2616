//! Tokens of a trusted issuer (OpenID Connect): who they say one is, by the rules of the configuration. Its keys are got
//! with the first token, and again when one is signed with a key that is not known, but not more often than every
//! [`KEYS_PAUSE`]. A signature is verified once and remembered, as long as the keys are the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::go;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use serde_json::Value;
use tokio::time::Instant;

use super::expression::{Expression, Subject, texts};
use super::jwt::{Algorithm, Compact, WebKey};
use super::remembered::{Remembered, hash};
use super::{CREDENTIAL_ID, User, configuration, fetch};

/// The least time between two attempts to get an issuer's keys.
pub const KEYS_PAUSE: Duration = Duration::from_secs(10);
/// The keys of an issuer that are looked at.
const KEYS_MAX: usize = 100;
/// Verified tokens that are remembered of each issuer, in two generations of this size.
const VERIFIED_TOKENS_MAX: usize = 4096;
/// How far clocks may be apart where a token does not count yet, in seconds.
const LEEWAY_SECONDS: i64 = 60;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// An issuer whose tokens leave out the scheme.
const GOOGLE: &str = "https://accounts.google.com";

/// An issuer as it is configured, checked.
pub struct Trusted {
    pub issuer: configuration::Issuer,
    /// The names of the signature algorithms that are taken.
    pub algorithms: Vec<String>,
    pub rules: Rules,
}

/// What its tokens' claims come to.
pub struct Rules {
    pub username: Source,
    pub groups: Option<Source>,
    pub uid: Option<Source>,
    pub extra: Vec<(String, Expression)>,
    /// Claims that must have this value.
    pub required: BTreeMap<String, String>,
    /// What must hold of the claims, and what to say where it does not.
    pub claim_rules: Vec<(Expression, String)>,
    /// The same of the user.
    pub user_rules: Vec<(Expression, String)>,
}

/// Where a part of the user comes from.
pub enum Source {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

/// Takes the tokens of one issuer.
pub struct Issuer {
    trusted: Trusted,
    keys: Arc<Keys>,
    verified: Remembered<Verified>,
}

/// What a token with a good signature comes to.
#[derive(Debug)]
struct Verified {
    user: Arc<User>,
    expires_at: i64,
    not_before: Option<i64>,
    /// By which edition of the keys.
    edition: u64,
}

impl Issuer {
    pub fn new(trusted: Trusted) -> Issuer {
        let authority = Some(trusted.issuer.certificate_authority.clone()).filter(|pem| !pem.is_empty());
        let discovery = match trusted.issuer.discovery_url.as_str() {
            "" => format!("{}{WELL_KNOWN}", trusted.issuer.url.trim_end_matches('/')),
            url => url.to_string(),
        };
        let keys = Keys {
            issuer: trusted.issuer.url.clone(),
            discovery,
            authority,
            pause: KEYS_PAUSE,
            state: Mutex::default(),
        };
        Issuer { trusted, keys: Arc::new(keys), verified: Remembered::new(VERIFIED_TOKENS_MAX) }
    }

    /// Whom a token stands for; nothing where it is another issuer's. `now` is in seconds since 1970. Waits only for keys.
    ///
    /// # Errors
    /// Why a token of this issuer does not count.
    pub async fn authenticate(&self, token: &str, now: i64) -> Result<Option<Arc<User>>, String> {
        let hash = hash(token);
        let known = self.verified.get(&hash).filter(|known| known.edition == self.keys.edition());
        let verified = match known {
            Some(known) => known,
            None => {
                let Some(compact) = Compact::parse(token).filter(|compact| self.is_issuer_of(compact)) else {
                    return Ok(None);
                };
                let verified = Arc::new(self.verify(&compact, now).await?);
                self.verified.put(hash, verified.clone());
                verified
            }
        };
        check_times(verified.expires_at, verified.not_before, now)
            .map_err(|why| format!("oidc: verify token: {why}"))?;
        Ok(Some(verified.user.clone()))
    }

    fn is_issuer_of(&self, compact: &Compact<'_>) -> bool {
        let url = &self.trusted.issuer.url;
        compact.claims["iss"]
            .as_str()
            .is_some_and(|issuer| issuer == url || (url == GOOGLE && GOOGLE.strip_prefix("https://") == Some(issuer)))
    }

    async fn verify(&self, compact: &Compact<'_>, now: i64) -> Result<Verified, String> {
        let not_verified = |why: String| format!("oidc: verify token: {why}");
        let edition = self.check_signature(compact).await.map_err(not_verified)?;
        let claims = &compact.claims;
        self.check_audience(claims).map_err(not_verified)?;
        let (expires_at, not_before) = times(claims).map_err(not_verified)?;
        check_times(expires_at, not_before, now).map_err(not_verified)?;
        Ok(Verified { user: Arc::new(self.trusted.rules.user(claims)?), expires_at, not_before, edition })
    }

    /// Which edition of the keys has one that signed this.
    async fn check_signature(&self, compact: &Compact<'_>) -> Result<u64, String> {
        let taken = &self.trusted.algorithms;
        let algorithm = Algorithm::named(&compact.algorithm).filter(|_| taken.contains(&compact.algorithm));
        let algorithm = algorithm.ok_or_else(|| {
            let got = go::quote(&compact.algorithm);
            format!("oidc: id token signed with unsupported algorithm, expected {} got {got}", go::quote_list(taken))
        })?;
        let failed = "failed to verify signature: failed to verify id token signature";
        if compact.is_critical {
            return Err(failed.into());
        }
        let known = self.keys.known();
        if let Some(edition) = known.as_ref().and_then(|known| known.signed(compact, algorithm)) {
            return Ok(edition);
        }
        match self.keys.get().await {
            Ok(fresh) => fresh.signed(compact, algorithm).ok_or_else(|| failed.to_string()),
            Err(_) if known.is_none() => Err("oidc: authenticator not initialized".into()),
            Err(why) => Err(format!("failed to verify signature: fetching keys {why}")),
        }
    }

    fn check_audience(&self, claims: &Value) -> Result<(), String> {
        let given = api::token::audiences(&claims["aud"])
            .ok_or("oidc: failed to unmarshal claims: the audience is no text and no list of texts")?;
        let wanted = &self.trusted.issuer.audiences;
        if wanted.iter().any(|audience| given.contains(audience)) {
            return Ok(());
        }
        match wanted.as_slice() {
            [one] => Err(format!("oidc: expected audience {} got {}", go::quote(one), go::quote_list(&given))),
            many => {
                let mut sorted = many.to_vec();
                sorted.sort();
                Err(format!("oidc: expected audience in {} got {}", go::quote_list(&sorted), go::quote_list(&given)))
            }
        }
    }
}

/// When a token ends and begins. One without an end has ended.
fn times(claims: &Value) -> Result<(i64, Option<i64>), String> {
    let seconds = |claim: &str| match &claims[claim] {
        Value::Null => Ok(None),
        value => {
            let seconds = value.as_f64().map(|seconds| Some(seconds as i64));
            seconds.ok_or_else(|| format!("oidc: failed to unmarshal claims: {claim} is no number"))
        }
    };
    Ok((seconds("exp")?.unwrap_or(GO_ZERO_SECONDS), seconds("nbf")?))
}

/// Go's zero time, the first of January of the year 1.
const GO_ZERO_SECONDS: i64 = -62_135_596_800;

fn check_times(expires_at: i64, not_before: Option<i64>, now: i64) -> Result<(), String> {
    let shown = |seconds: i64| {
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
    };
    if expires_at < now {
        return Err(format!("oidc: token is expired (Token Expiry: {})", shown(expires_at)));
    }
    match not_before {
        Some(begin) if now + LEEWAY_SECONDS < begin => {
            Err(format!("oidc: current time {} before the nbf (not before) time: {}", shown(now), shown(begin)))
        }
        _ => Ok(()),
    }
}

impl Rules {
    /// The user that claims come to.
    ///
    /// # Errors
    /// Which claim is missing or wrong, or which rule does not hold.
    pub fn user(&self, claims: &Value) -> Result<User, String> {
        if !claims.is_object() {
            return Err("oidc: parse claims: they are no JSON object".into());
        }
        let subject = Subject::claims(claims);
        self.check_distributed(claims)?;
        let mut user = User::new(self.username(claims, &subject)?, self.groups(claims, &subject)?);
        user.uid = self.uid(claims, &subject)?;
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            user.extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let values = expression.evaluate(&subject)?;
            let failed = |why| format!("oidc: error evaluating extra claim expression: {}: {why}", expression.text);
            let values = texts(&values).map_err(failed)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        for (claim, wanted) in &self.required {
            if claims.get(claim).is_none() {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let found = text(claims, claim).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
            if found != *wanted {
                let what = format!("oidc: required claim {claim} value does not match");
                return Err(format!("{what}. Got = {found}, want = {wanted}"));
            }
        }
        let failed = |why| format!("oidc: error evaluating claim validation expression: {why}");
        hold(&self.claim_rules, &subject).map_err(failed)?;
        let failed = |why| format!("oidc: error evaluating user info validation rule: {why}");
        hold(&self.user_rules, &Subject::user(&user)).map_err(failed)?;
        Ok(user)
    }

    /// Groups that are kept elsewhere are not got. Without them the user would have less than they should, and rules that
    /// keep some groups out would not see them.
    fn check_distributed(&self, claims: &Value) -> Result<(), String> {
        let Some(Source::Claim { name, .. }) = &self.groups else { return Ok(()) };
        if claims.get(name).is_none() && claims["_claim_names"].get(name).is_some() {
            return Err(format!(
                "oidc: could not expand distributed claims: the claim {name} is not in the token itself"
            ));
        }
        Ok(())
    }

    fn username(&self, claims: &Value, subject: &Subject) -> Result<String, String> {
        let name = match &self.username {
            Source::Expression(expression) => {
                let failed = |why: &str| format!("oidc: error evaluating username claim expression: {why}");
                match expression.evaluate(subject).map_err(|why| failed(&why))? {
                    cel::Value::String(name) if name.is_empty() => {
                        return Err("oidc: empty username via CEL expression is not allowed".into());
                    }
                    cel::Value::String(name) => name.to_string(),
                    _ => return Err(failed("username claim expression must return a string")),
                }
            }
            Source::Claim { name: claim, prefix } => {
                let failed = |why: &str| format!("oidc: parse username claims {}: {why}", go::quote(claim));
                let name = text(claims, claim).map_err(|why| failed(&why))?;
                if claim == "email" {
                    check_email(claims)?;
                }
                format!("{prefix}{name}")
            }
        };
        match name.is_empty() {
            true => Err("oidc: empty username is not allowed".into()),
            false => Ok(name),
        }
    }

    fn groups(&self, claims: &Value, subject: &Subject) -> Result<Vec<String>, String> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Claim { name, prefix }) => {
                let found = match claims.get(name) {
                    None | Some(Value::Null) => Vec::new(),
                    Some(Value::Array(items)) if items.iter().all(|item| item.is_string() || item.is_null()) => {
                        items.iter().map(|item| item.as_str().unwrap_or_default().to_string()).collect()
                    }
                    Some(_) => {
                        let failed = |why: String| format!("oidc: parse groups claim {}: {why}", go::quote(name));
                        vec![text(claims, name).map_err(failed)?]
                    }
                };
                Ok(found.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
            Some(Source::Expression(expression)) => {
                let made = expression.evaluate(subject).and_then(|value| texts(&value));
                made.map_err(|why| format!("oidc: error evaluating group claim expression: {why}"))
            }
        }
    }

    fn uid(&self, claims: &Value, subject: &Subject) -> Result<String, String> {
        match &self.uid {
            None => Ok(String::new()),
            Some(Source::Claim { name, .. }) => {
                text(claims, name).map_err(|why| format!("oidc: parse uid claim {}: {why}", go::quote(name)))
            }
            Some(Source::Expression(expression)) => {
                let failed = |why: &str| format!("oidc: error evaluating uid claim expression: {why}");
                match expression.evaluate(subject).map_err(|why| failed(&why))? {
                    cel::Value::String(uid) => Ok(uid.to_string()),
                    _ => Err(failed("uid claim expression must return a string")),
                }
            }
        }
    }
}

/// Whoever is named by an address that somebody else may have given must have shown that it is theirs, where the issuer
/// says whether they have.
fn check_email(claims: &Value) -> Result<(), String> {
    match claims.get("email_verified") {
        None | Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false) | Value::Null) => Err("oidc: email not verified".into()),
        Some(other) => {
            let found = go::json_type(other);
            Err(format!(
                "oidc: parse 'email_verified' claim: json: cannot unmarshal {found} into Go value of type bool"
            ))
        }
    }
}

/// Whether all rules hold.
fn hold(rules: &[(Expression, String)], subject: &Subject) -> Result<(), String> {
    for (rule, message) in rules {
        match rule.evaluate(subject)? {
            cel::Value::Bool(true) => {}
            cel::Value::Bool(false) => {
                return Err(format!("validation expression '{}' failed: {message}", rule.text));
            }
            _ => return Err("validation expression must return a boolean".into()),
        }
    }
    Ok(())
}

/// A claim that is a text.
fn text(claims: &Value, claim: &str) -> Result<String, String> {
    match claims.get(claim) {
        None => Err("claim not present".into()),
        Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("json: cannot unmarshal {} into Go value of type string", go::json_type(other))),
    }
}

/// An issuer's keys, as they were last got.
struct Keys {
    issuer: String,
    /// The URL of the discovery document.
    discovery: String,
    /// PEM.
    authority: Option<String>,
    /// The least time between two attempts.
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<Arc<Known>>,
    /// From the discovery document.
    keys_url: Option<String>,
    tried_at: Option<Instant>,
    /// Why the last attempt failed.
    failure: Option<String>,
    /// The attempt under way, as long as somebody waits for it.
    running: Option<WeakShared<Getting>>,
    edition: u64,
}

type Getting = BoxFuture<'static, Result<Arc<Known>, String>>;

struct Known {
    edition: u64,
    keys: Vec<WebKey>,
    /// As they were got, to tell whether they are others.
    text: Value,
}

impl Known {
    fn signed(&self, compact: &Compact<'_>, algorithm: Algorithm) -> Option<u64> {
        let fits = |key: &&WebKey| compact.key_id.is_empty() || key.id == compact.key_id;
        self.keys.iter().filter(fits).any(|key| key.verifies(compact, algorithm)).then_some(self.edition)
    }
}

impl Keys {
    fn known(&self) -> Option<Arc<Known>> {
        self.lock().known.clone()
    }

    fn edition(&self) -> u64 {
        self.lock().edition
    }

    /// Gets them anew. All who ask meanwhile wait for the same attempt; who asks too soon after it hears how it went.
    async fn get(self: &Arc<Keys>) -> Result<Arc<Known>, String> {
        let getting = {
            let mut state = self.lock();
            match state.running.as_ref().and_then(WeakShared::upgrade) {
                Some(running) => running,
                None => {
                    if state.tried_at.is_some_and(|at| at.elapsed() < self.pause) {
                        return match (&state.failure, &state.known) {
                            (None, Some(known)) => Ok(known.clone()),
                            (failure, _) => Err(failure.clone().unwrap_or_default()),
                        };
                    }
                    state.tried_at = Some(Instant::now());
                    let getting: Shared<Getting> = self.clone().fetch().boxed().shared();
                    state.running = getting.downgrade();
                    getting
                }
            }
        };
        getting.await
    }

    async fn fetch(self: Arc<Keys>) -> Result<Arc<Known>, String> {
        let fetched = self.documents().await;
        let mut state = self.lock();
        state.running = None;
        state.tried_at = Some(Instant::now());
        match fetched {
            Err(why) => {
                tracing::warn!(issuer = self.issuer, why, "the keys of an issuer cannot be got");
                state.failure = Some(why.clone());
                Err(why)
            }
            Ok((keys_url, text)) => {
                state.failure = None;
                state.keys_url = Some(keys_url);
                if let Some(known) = state.known.clone().filter(|known| known.text == text) {
                    return Ok(known);
                }
                // What was verified with the keys before counts no longer.
                state.edition += 1;
                let keys = text["keys"].as_array().into_iter().flatten().take(KEYS_MAX);
                let keys = keys.filter_map(|key| {
                    let read = WebKey::parse(key);
                    read.map_err(|why| tracing::debug!(issuer = self.issuer, why, "a key is left out")).ok()
                });
                let known = Arc::new(Known { edition: state.edition, keys: keys.collect(), text: text.clone() });
                state.known = Some(known.clone());
                Ok(known)
            }
        }
    }

    /// Where the keys are, and the set of them.
    async fn documents(&self) -> Result<(String, Value), String> {
        let authority = self.authority.as_deref();
        let known_url = self.lock().keys_url.clone();
        let keys_url = match known_url {
            Some(url) => url,
            None => {
                let document = fetch::json(&self.discovery, authority).await?;
                let issuer = document["issuer"].as_str().unwrap_or_default();
                if issuer != self.issuer {
                    return Err(format!(
                        "oidc: issuer did not match the issuer returned by provider, expected {} got {}",
                        go::quote(&self.issuer),
                        go::quote(issuer)
                    ));
                }
                document["jwks_uri"].as_str().ok_or("provider did not return JWKS URL")?.to_string()
            }
        };
        let set = fetch::json(&keys_url, authority).await?;
        match set["keys"].is_array() {
            true => Ok((keys_url, set)),
            false => Err(format!("oidc: failed to decode keys: no list of keys at {keys_url}")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::ServerConfig;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::authn::configuration::Configuration;
    use crate::authn::jwt::SigningKey;

    const NOW: i64 = 1_800_000_000;

    /// An issuer on this machine, over HTTPS: what it says at which path, and how often it was asked.
    struct Provider {
        url: String,
        ca: String,
        documents: Arc<Mutex<HashMap<String, String>>>,
        asked: Arc<AtomicUsize>,
        _serving: JoinSet<()>,
    }

    impl Provider {
        async fn start() -> Provider {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let ca = params.self_signed(&key).unwrap();
            let authority = rcgen::Issuer::from_ca_cert_der(ca.der(), key).unwrap();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let tls = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
                .unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("https://{}", listener.local_addr().unwrap());
            let documents: Arc<Mutex<HashMap<String, String>>> = Arc::default();
            let asked = Arc::new(AtomicUsize::new(0));
            let mut serving = JoinSet::new();
            let (held, count) = (documents.clone(), asked.clone());
            serving.spawn(async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read_exact(&mut byte).await.is_err() {
                            break;
                        }
                        request.push(byte[0]);
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    let path = String::from_utf8(request).unwrap().split(' ').nth(1).unwrap_or_default().to_string();
                    let document = held.lock().unwrap().get(&path).cloned();
                    let (code, body) = document.map_or((404, String::new()), |body| (200, body));
                    let head =
                        format!("HTTP/1.1 {code} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
            let provider = Provider { url, ca: ca.pem(), documents, asked, _serving: serving };
            let discovery = json!({"issuer": provider.url, "jwks_uri": format!("{}/keys", provider.url)});
            provider.says(WELL_KNOWN, &discovery);
            provider
        }

        fn says(&self, path: &str, document: &Value) {
            self.documents.lock().unwrap().insert(path.into(), document.to_string());
        }

        fn has_keys(&self, keys: &[(&SigningKey, &str)]) {
            let key = |(key, id): &(&SigningKey, &str)| {
                let mut key = key.public.to_jwk();
                key["kid"] = json!(id);
                key.as_object_mut().unwrap().remove("alg");
                key
            };
            self.says("/keys", &json!({"keys": keys.iter().map(key).collect::<Vec<_>>()}));
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        /// Trusted for the audience `a`; `rest` is YAML of what else is configured.
        fn trusted(&self, rest: &str) -> Issuer {
            issuer(&self.url, &self.ca, rest)
        }

        fn claims(&self) -> Value {
            json!({"iss": self.url, "aud": "a", "sub": "ann", "exp": NOW + 60})
        }
    }

    fn issuer(url: &str, ca: &str, rest: &str) -> Issuer {
        let mut text = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": url, "certificateAuthority": ca, "audiences": ["a"]},
                "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
            }],
        });
        if let Value::Object(more) = api::codec::from_yaml(rest).unwrap_or_default() {
            for (key, value) in more {
                let of = if key == "discoveryURL" { &mut text["jwt"][0]["issuer"] } else { &mut text["jwt"][0] };
                of[key] = value;
            }
        }
        let all = Algorithm::ALL.map(|algorithm| algorithm.name().to_string());
        let trusted = Configuration::parse(&text.to_string()).unwrap().compile(&[], &all).unwrap();
        Issuer::new(trusted.into_iter().next().unwrap())
    }

    async fn ask(issuer: &Issuer, token: &str) -> String {
        match issuer.authenticate(token, NOW).await {
            Ok(Some(user)) => serde_json::to_string(&*user).unwrap(),
            Ok(None) => "not mine".into(),
            Err(why) => why,
        }
    }

    fn with_pause(mut issuer: Issuer, pause: Duration) -> Issuer {
        Arc::get_mut(&mut issuer.keys).unwrap().pause = pause;
        issuer
    }

    const ANN: &str = r#"{"username":"ann"}"#;
    const NOT_SIGNED: &str = "oidc: verify token: failed to verify signature: failed to verify id token signature";

    #[tokio::test]
    async fn keys_are_got_once_and_tokens_verified_once() {
        let (provider, key) = (Provider::start().await, SigningKey::generate(Algorithm::Es256).unwrap());
        provider.has_keys(&[(&key, "one")]);
        let issuer = provider.trusted("");
        assert_eq!(provider.asked(), 0, "nobody is asked before a token comes");
        let token = key.sign_as(Algorithm::Es256, "one", &provider.claims()).unwrap();
        let all = futures_util::future::join_all((0..20).map(|_| ask(&issuer, &token))).await;
        assert!(all.iter().all(|one| one == ANN), "{all:?}");
        let other = key.sign_as(
            Algorithm::Es256,
            "one",
            &json!({"iss": provider.url, "aud": ["b", "a"], "sub": "bob", "exp": NOW + 1}),
        );
        assert_eq!(ask(&issuer, &other.unwrap()).await, r#"{"username":"bob"}"#);
        assert_eq!(provider.asked(), 2, "the discovery document and the keys");
        assert_eq!(ask(&issuer, "a.b.c").await, "not mine");
        let foreign = json!({"iss": "https://other.example", "aud": "a", "sub": "ann", "exp": NOW + 60});
        assert_eq!(ask(&issuer, &key.sign(&foreign).unwrap()).await, "not mine");
        // A remembered token ends all the same.
        let late = issuer.authenticate(&token, NOW + 61).await.unwrap_err();
        assert_eq!(late, "oidc: verify token: oidc: token is expired (Token Expiry: 2027-01-15 08:01:00 +0000 UTC)");
    }

    #[tokio::test]
    async fn keys_that_are_not_known_are_looked_for_but_not_too_often() {
        let provider = Provider::start().await;
        let (old, new) =
            (SigningKey::generate(Algorithm::Es256).unwrap(), SigningKey::generate(Algorithm::Es384).unwrap());
        provider.has_keys(&[(&old, "old")]);
        let (patient, eager) = (provider.trusted(""), with_pause(provider.trusted(""), Duration::ZERO));
        let with_old = old.sign_as(Algorithm::Es256, "old", &provider.claims()).unwrap();
        let with_new = new.sign_as(Algorithm::Es384, "new", &provider.claims()).unwrap();
        for issuer in [&patient, &eager] {
            assert_eq!(ask(issuer, &with_old).await, ANN);
            assert_eq!(ask(issuer, &with_new).await, NOT_SIGNED);
        }
        provider.has_keys(&[(&new, "new")]);
        let before = provider.asked();
        assert_eq!(ask(&patient, &with_new).await, NOT_SIGNED);
        assert_eq!(provider.asked(), before, "it is too early to look again");
        assert_eq!(ask(&eager, &with_new).await, ANN);
        assert_eq!(provider.asked(), before + 1, "the keys alone");
        assert_eq!(ask(&eager, &with_old).await, NOT_SIGNED, "what the old key signed counts no longer");
        assert_eq!(ask(&patient, &with_old).await, ANN, "it knows no better");
    }

    #[tokio::test]
    async fn issuers_that_cannot_be_asked() {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let claims = |url: &str| json!({"iss": url, "aud": "a", "sub": "ann", "exp": NOW + 60});
        let not_ready = "oidc: verify token: oidc: authenticator not initialized";
        let provider = Provider::start().await;
        provider.has_keys(&[(&key, "one")]);
        let token = key.sign_as(Algorithm::Es256, "one", &claims(&provider.url)).unwrap();
        // Nobody is there.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let gone = issuer(&format!("https://{closed}"), &provider.ca, "");
        let token_of_gone = key.sign_as(Algorithm::Es256, "one", &claims(&format!("https://{closed}"))).unwrap();
        for _ in 0..2 {
            assert_eq!(ask(&gone, &token_of_gone).await, not_ready);
        }
        // Somebody else is there.
        let other = Provider::start().await;
        assert_eq!(ask(&issuer(&provider.url, &other.ca, ""), &token).await, not_ready);
        // They say they are another, or nothing that can be read.
        for document in
            [json!({"issuer": "https://x.example", "jwks_uri": format!("{}/keys", provider.url)}), json!([])]
        {
            provider.says(WELL_KNOWN, &document);
            assert_eq!(ask(&provider.trusted(""), &token).await, not_ready);
        }
        // Their document lies elsewhere.
        let discovery = json!({"issuer": provider.url, "jwks_uri": format!("{}/keys", provider.url)});
        provider.says("/elsewhere", &discovery);
        let elsewhere = provider.trusted(&format!("discoveryURL: '{}/elsewhere'", provider.url));
        assert_eq!(ask(&elsewhere, &token).await, ANN);
        // A document without end is not read to its end.
        provider.says(WELL_KNOWN, &json!({"x": "x".repeat(2 << 20)}));
        assert_eq!(ask(&provider.trusted(""), &token).await, not_ready);
        // It was a passing failure.
        let again = with_pause(provider.trusted(""), Duration::ZERO);
        assert_eq!(ask(&again, &token).await, not_ready);
        provider.says(WELL_KNOWN, &discovery);
        assert_eq!(ask(&again, &token).await, ANN);
    }

    #[tokio::test]
    async fn every_algorithm_and_nothing_but_signatures() {
        let provider = Provider::start().await;
        let rsa = SigningKey::generate(Algorithm::Rs256).unwrap();
        let curves = [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512];
        let curves = curves.map(|algorithm| (algorithm, SigningKey::generate(algorithm).unwrap()));
        let mut keys = vec![(&rsa, "rsa")];
        keys.extend(curves.iter().map(|(algorithm, key)| (key, algorithm.name())));
        provider.has_keys(&keys);
        let issuer = provider.trusted("");
        for algorithm in Algorithm::ALL {
            let key = curves.iter().find(|(of, _)| *of == algorithm);
            let (key, id) = key.map_or((&rsa, "rsa"), |(_, key)| (key, algorithm.name()));
            for id in [id, ""] {
                let token = key.sign_as(algorithm, id, &provider.claims()).unwrap();
                assert_eq!(ask(&issuer, &token).await, ANN, "{algorithm:?}");
            }
            let mut claims = provider.claims();
            claims["sub"] = json!("other");
            let token = key.sign_as(algorithm, id, &claims).unwrap();
            let (message, _) = token.rsplit_once('.').unwrap();
            let signed = key.sign_as(algorithm, id, &provider.claims()).unwrap();
            let (_, signature) = signed.rsplit_once('.').unwrap();
            assert_eq!(ask(&issuer, &format!("{message}.{signature}")).await, NOT_SIGNED, "{algorithm:?}");
        }
        // The key of one curve does not sign for another, and no text of a header makes it.
        let wrong = curves[0].1.sign_as(Algorithm::Es256, "ES384", &provider.claims()).unwrap();
        assert_eq!(ask(&issuer, &wrong).await, NOT_SIGNED);
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        for (header, got) in [(r#"{"alg":"none"}"#, "none"), (r#"{"alg":"HS256","kid":"rsa"}"#, "HS256")] {
            let token = format!("{}.{}.{}", encode(header), encode(&provider.claims().to_string()), encode("x"));
            let all = r#"["ES256" "ES384" "ES512" "PS256" "PS384" "PS512" "RS256" "RS384" "RS512"]"#;
            let want = format!(
                "oidc: verify token: oidc: id token signed with unsupported algorithm, expected {all} got \"{got}\""
            );
            assert_eq!(ask(&issuer, &token).await, want);
        }
        let critical = format!(
            "{}.{}.{}",
            encode(r#"{"alg":"ES256","crit":["x"]}"#),
            encode(&provider.claims().to_string()),
            encode("x")
        );
        assert_eq!(ask(&issuer, &critical).await, NOT_SIGNED);
        assert_eq!(provider.asked(), 2, "none of these is a reason to look for other keys so soon");
    }

    /// What the claims come to under these rules, without any token.
    #[track_caller]
    fn check(rules: &str, claims: Value, want: &str) {
        let issuer = issuer("https://a.example", "", &format!("{{{rules}}}"));
        let got = issuer.trusted.rules.user(&claims).map(|user| serde_json::to_string(&user).unwrap());
        assert_eq!(got.unwrap_or_else(|why| why), want, "{rules} {claims}");
    }

    #[test]
    fn whom_claims_name() {
        let by_claim = "claimMappings: {username: {claim: name, prefix: 'oidc:'}, groups: {claim: groups, prefix: 'oidc:'}, uid: {claim: sub}}";
        check(by_claim, json!({"name": "ann", "sub": "7"}), r#"{"username":"oidc:ann","uid":"7"}"#);
        check(
            by_claim,
            json!({"name": "ann", "sub": "7", "groups": ["a", null], "jti": "j"}),
            r#"{"username":"oidc:ann","uid":"7","groups":["oidc:a","oidc:"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=j"]}}"#,
        );
        check(
            by_claim,
            json!({"name": "ann", "sub": "7", "groups": "a"}),
            r#"{"username":"oidc:ann","uid":"7","groups":["oidc:a"]}"#,
        );
        check(
            by_claim,
            json!({"name": "ann", "sub": "7", "groups": [1]}),
            "oidc: parse groups claim \"groups\": json: cannot unmarshal array into Go value of type string",
        );
        check(
            by_claim,
            json!({"name": 1, "sub": "7"}),
            "oidc: parse username claims \"name\": json: cannot unmarshal number into Go value of type string",
        );
        check(by_claim, json!({"sub": "7"}), "oidc: parse username claims \"name\": claim not present");
        check(by_claim, json!({"name": "ann"}), "oidc: parse uid claim \"sub\": claim not present");
        check(
            by_claim,
            json!({"name": "ann", "sub": "7", "_claim_names": {"groups": "src"}}),
            "oidc: could not expand distributed claims: the claim groups is not in the token itself",
        );
        check(
            "claimMappings: {username: {claim: name, prefix: ''}}",
            json!({"name": ""}),
            "oidc: empty username is not allowed",
        );
        let by_email = "claimMappings: {username: {claim: email, prefix: ''}}";
        check(by_email, json!({"email": "a@b.c"}), r#"{"username":"a@b.c"}"#);
        check(by_email, json!({"email": "a@b.c", "email_verified": true}), r#"{"username":"a@b.c"}"#);
        check(by_email, json!({"email": "a@b.c", "email_verified": false}), "oidc: email not verified");
        check(
            by_email,
            json!({"email": "a@b.c", "email_verified": "yes"}),
            "oidc: parse 'email_verified' claim: json: cannot unmarshal string into Go value of type bool",
        );
        let by_expression = "claimMappings: {username: {expression: claims.sub + ':x'}, groups: {expression: 'claims.roles.split(\",\")'}, \
             uid: {expression: claims.sub}, extra: [{key: a.example/t, valueExpression: claims.t}, {key: a.example/none, valueExpression: '\"\"'}]}";
        check(
            by_expression,
            json!({"sub": "ann", "roles": "a,,b", "t": ["x", "", "y"]}),
            r#"{"username":"ann:x","uid":"ann","groups":["a","b"],"extra":{"a.example/t":["x","y"]}}"#,
        );
        check(
            by_expression,
            json!({"sub": "ann", "t": ""}),
            "oidc: error evaluating group claim expression: expression 'claims.roles.split(\",\")' resulted in error: no such key: roles",
        );
        check(
            by_expression,
            json!({"sub": "ann", "roles": "", "t": 1}),
            "oidc: error evaluating extra claim expression: claims.t: expression must return a string or a list of strings",
        );
        check(
            "claimMappings: {username: {expression: claims.sub}}",
            json!({"sub": ""}),
            "oidc: empty username via CEL expression is not allowed",
        );
        check(
            "claimMappings: {username: {expression: claims.sub}}",
            json!({"sub": 1}),
            "oidc: error evaluating username claim expression: username claim expression must return a string",
        );
        check("", json!([]), "oidc: parse claims: they are no JSON object");
    }

    #[test]
    fn what_rules_keep_out() {
        let required = "claimValidationRules: [{claim: hd, requiredValue: a}]";
        check(required, json!({"sub": "ann", "hd": "a"}), r#"{"username":"ann"}"#);
        check(required, json!({"sub": "ann"}), "oidc: required claim hd not present in ID token");
        check(
            required,
            json!({"sub": "ann", "hd": "b"}),
            "oidc: required claim hd value does not match. Got = b, want = a",
        );
        check(
            required,
            json!({"sub": "ann", "hd": 1}),
            "oidc: parse claim hd: json: cannot unmarshal number into Go value of type string",
        );
        let short =
            "claimValidationRules: [{expression: 'claims.exp - claims.nbf <= 86400', message: too long a life}]";
        check(short, json!({"sub": "ann", "exp": 86400, "nbf": 0}), r#"{"username":"ann"}"#);
        check(
            short,
            json!({"sub": "ann", "exp": 86401, "nbf": 0}),
            "oidc: error evaluating claim validation expression: validation expression 'claims.exp - claims.nbf <= 86400' failed: too long a life",
        );
        check(
            short,
            json!({"sub": "ann"}),
            "oidc: error evaluating claim validation expression: expression 'claims.exp - claims.nbf <= 86400' resulted in error: no such key: exp",
        );
        let reserved = "claimMappings: {username: {claim: sub, prefix: ''}, groups: {claim: groups, prefix: ''}}, userValidationRules: \
             [{expression: '!user.username.startsWith(\"system:\")', message: reserved}, {expression: 'user.groups.all(g, !g.startsWith(\"system:\"))', message: reserved}]";
        check(reserved, json!({"sub": "ann", "groups": ["a"]}), r#"{"username":"ann","groups":["a"]}"#);
        check(
            reserved,
            json!({"sub": "system:admin"}),
            "oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith(\"system:\")' failed: reserved",
        );
        check(
            reserved,
            json!({"sub": "ann", "groups": ["system:masters"]}),
            "oidc: error evaluating user info validation rule: validation expression 'user.groups.all(g, !g.startsWith(\"system:\"))' failed: reserved",
        );
    }

    #[tokio::test]
    async fn audiences_and_times() {
        let (provider, key) = (Provider::start().await, SigningKey::generate(Algorithm::Es256).unwrap());
        provider.has_keys(&[(&key, "one")]);
        let issuer = provider.trusted("");
        let one = |field: &str, value: Value| {
            let mut claims = provider.claims();
            claims[field] = value;
            key.sign_as(Algorithm::Es256, "one", &claims).unwrap()
        };
        for (field, value, want) in [
            ("aud", json!("b"), "oidc: expected audience \"a\" got [\"b\"]"),
            ("aud", json!(["b", "c"]), "oidc: expected audience \"a\" got [\"b\" \"c\"]"),
            ("aud", json!(null), "oidc: expected audience \"a\" got []"),
            ("exp", json!(NOW - 1), "oidc: token is expired (Token Expiry: 2027-01-15 07:59:59 +0000 UTC)"),
            ("exp", json!(null), "oidc: token is expired (Token Expiry: 0001-01-01 00:00:00 +0000 UTC)"),
            ("exp", json!("later"), "oidc: failed to unmarshal claims: exp is no number"),
            (
                "nbf",
                json!(NOW + 61),
                "oidc: current time 2027-01-15 08:00:00 +0000 UTC before the nbf (not before) time: 2027-01-15 08:01:01 +0000 UTC",
            ),
        ] {
            assert_eq!(ask(&issuer, &one(field, value)).await, format!("oidc: verify token: {want}"));
        }
        assert_eq!(ask(&issuer, &one("nbf", json!(NOW + 60))).await, ANN);
    }
}
