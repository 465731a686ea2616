//! Who is asking: a front proxy's headers, then a client certificate, then a bearer token (static, of a service account, of
//! a bootstrap Secret; then of a trusted issuer, of whom a webhook knows), else anonymous. All but the last two are judged on
//! the spot.
//! Decides nothing about rights and touches no connection; the clock and the objects are handed in.

pub mod bootstrap_token;
pub mod configuration;
pub mod expression;
mod fetch;
pub mod front_proxy;
pub mod issuer;
pub mod jwt;
pub mod key_ring;
pub mod legacy_token;
pub mod reload;
pub mod remembered;
pub mod service_account;
pub mod token_file;
pub mod webhook;
pub mod x509;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::lookup::Lookup;

pub const ANONYMOUS: &str = "system:anonymous";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The extra key that names the credential a request came with.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The extra key that names the pod which a token is bound to.
pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// What a browser's WebSocket puts in front of a base64url token, as one of its subprotocols.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

const INVALID_TOKEN: &str = "invalid bearer token";
const EXTRA_SPACE: &str =
    "the provided Authorization header contains extra space before the bearer token, and is ignored";

/// An identity; serialises as `authentication.k8s.io/v1` `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    #[serde(rename = "username", default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> User {
        User { name: name.into(), groups: groups.into_iter().map(Into::into).collect(), ..User::default() }
    }

    pub fn anonymous() -> User {
        User::new(ANONYMOUS, [UNAUTHENTICATED])
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The outcome of a successful authentication.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub user: Arc<User>,
    /// The audiences that credential and question have in common.
    pub audiences: Vec<String>,
    /// To be sent as `Warning: 299` header.
    pub warning: Option<&'static str>,
    /// For the audit log: `authentication.k8s.io/stale-token` and the like.
    pub annotations: Vec<(&'static str, String)>,
}

/// No. Clients see a bare 401; the reason is for TokenReview and the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unauthenticated {
    pub reason: String,
}

/// All the ways to prove an identity, in the order they are tried.
pub struct Authenticator {
    pub tokens: token_file::TokenFile,
    pub service_accounts: service_account::ServiceAccounts,
    /// The audiences of this API server, at least its issuer.
    pub audiences: Vec<String>,
    pub front_proxy: Option<front_proxy::FrontProxy>,
    /// Tokens of bootstrap Secrets are taken.
    pub bootstrap_tokens: bool,
    /// Issuers whose tokens are taken, in the order they are asked.
    pub issuers: ArcSwap<Vec<issuer::Issuer>>,
    /// The text of the file that these are from; empty where they are from none.
    pub configured: String,
    /// Who judges what nobody here knows.
    pub webhook: Option<Arc<webhook::Webhook>>,
    pub anonymous: configuration::Anonymous,
}

/// What is on besides what always is: nothing, unless it is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub front_proxy: front_proxy::Options,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap_tokens: bool,
    /// `--authentication-config`
    pub config_file: Option<std::path::PathBuf>,
    /// `--anonymous-auth`, where it is given.
    pub anonymous: Option<bool>,
    /// The older flags for one issuer, where any is given.
    pub oidc: Option<configuration::OidcFlags>,
    pub webhook: Option<webhook::Options>,
}

/// What comes of a request before anybody else is asked.
pub enum Judged {
    Known(Result<Authenticated, Unauthenticated>),
    /// Nobody here knows the token; others may.
    Open(Open),
}

impl Judged {
    /// What is known already; that nobody knows the token where others could be asked.
    pub fn known(self) -> Result<Authenticated, Unauthenticated> {
        match self {
            Judged::Known(known) => known,
            Judged::Open(open) => Err(refused(open.errors)),
        }
    }
}

/// All that was shown of who is asking.
struct Shown<'a> {
    /// What the connection proves, and what a proxy on it says.
    peer: &'a [Result<Option<Arc<User>>, String>],
    /// A bearer token, or why what should be one is none.
    token: Option<Result<String, String>>,
    warning: Option<&'static str>,
    path: &'a str,
}

/// A token that others are to be asked about.
pub struct Open {
    token: String,
    audiences: Vec<String>,
    warning: Option<&'static str>,
    errors: Vec<String>,
}

/// What a request brings along.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    pub headers: &'a HeaderMap,
    /// The decoded path that is asked for.
    pub path: &'a str,
    pub certificate: &'a x509::Peer,
    pub proxy: &'a front_proxy::Peer,
}

impl Authenticator {
    /// With what every server has; all else is off.
    pub fn new(
        tokens: token_file::TokenFile,
        service_accounts: service_account::ServiceAccounts,
        audiences: Vec<String>,
    ) -> Authenticator {
        Authenticator {
            tokens,
            service_accounts,
            audiences,
            front_proxy: None,
            bootstrap_tokens: false,
            issuers: ArcSwap::default(),
            configured: String::new(),
            webhook: None,
            anonymous: configuration::Anonymous::everywhere(),
        }
    }

    /// Turns on what is asked for.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn configure(&mut self, options: &Options, own_issuers: &[String]) -> Result<(), String> {
        self.bootstrap_tokens = options.bootstrap_tokens;
        let loaded = configuration::load(options, own_issuers)?;
        self.issuers.store(Arc::new(loaded.trusted.into_iter().map(issuer::Issuer::new).collect()));
        self.anonymous = loaded.anonymous;
        self.configured = loaded.text;
        if let Some(options) = &options.webhook {
            self.webhook = Some(Arc::new(webhook::Webhook::new(options, self.audiences.clone())?));
        }
        Ok(())
    }

    /// Asks the others about a token, one after the other.
    ///
    /// # Errors
    /// Why nobody vouches for it.
    pub async fn finish(&self, open: Open, now: i64) -> Result<Authenticated, Unauthenticated> {
        let Open { token, audiences, warning, mut errors } = open;
        let done = |user, audiences| {
            Ok(Authenticated { user: authenticated(user), audiences, warning, annotations: Vec::new() })
        };
        // An issuer of the configuration is trusted for the API server only.
        let own = intersect(&self.audiences, &audiences);
        let issuers = self.issuers.load_full();
        for issuer in issuers.iter().filter(|_| !own.is_empty()) {
            match issuer.authenticate(&token, now).await {
                Ok(Some(user)) => return done(user, own),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.authenticate(&token, &audiences).await {
                Ok(Some((user, audiences))) => return done(user, audiences),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        Err(refused(errors))
    }

    /// Whether the token of a TokenReview is good for `audiences`; the API server's own where there are none.
    pub fn begin_review(&self, token: &str, audiences: &[String], lookup: &dyn Lookup, now: i64) -> Judged {
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        let (token, warning) = match bearer(&format!("Bearer {token}")) {
            Bearer::Token(token) => (Some(Ok(token.to_string())), None),
            Bearer::None(warning) => (None, warning),
        };
        self.judge(Shown { peer: &[], token, warning, path: "" }, audiences, lookup, now)
    }

    /// Who sent the request. `now` is in seconds since 1970.
    pub fn begin(&self, credentials: Credentials<'_>, lookup: &dyn Lookup, now: i64) -> Judged {
        let proxied = match &self.front_proxy {
            Some(proxy) => proxy.user(credentials.proxy, credentials.headers, now),
            None => Ok(None),
        };
        let peer = &[proxied, credentials.certificate.user(now)];
        let header = credentials.headers.get(AUTHORIZATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let (token, warning) = match bearer(header.as_deref().unwrap_or_default()) {
            Bearer::Token(token) => (Some(Ok(token.to_string())), None),
            Bearer::None(warning) => (websocket_token(credentials.headers), warning),
        };
        self.judge(Shown { peer, token, warning, path: credentials.path }, &self.audiences, lookup, now)
    }

    /// The first proof that holds wins; a proof that fails is forgiven only when another one holds.
    fn judge(&self, shown: Shown<'_>, audiences: &[String], lookup: &dyn Lookup, now: i64) -> Judged {
        let Shown { peer, token, warning, path } = shown;
        let mut errors = Vec::new();
        let known = |user, audiences: Vec<String>| {
            Judged::Known(Ok(Authenticated { user, audiences, warning, annotations: Vec::new() }))
        };
        for proof in peer {
            match proof {
                Ok(Some(user)) => return known(authenticated(user.clone()), intersect(&self.audiences, audiences)),
                Ok(None) => {}
                Err(error) => errors.push(error.clone()),
            }
        }
        match token {
            Some(Ok(token)) => match self.token(&token, audiences, lookup, now) {
                Ok(Some(found)) => {
                    Judged::Known(Ok(Authenticated { user: authenticated(found.user), warning, ..found }))
                }
                declined => {
                    errors.extend(declined.err());
                    match self.issuers.load().is_empty() && self.webhook.is_none() {
                        true => Judged::Known(Err(refused(errors))),
                        false => Judged::Open(Open { token, audiences: audiences.to_vec(), warning, errors }),
                    }
                }
            },
            Some(Err(error)) => {
                errors.push(error);
                Judged::Known(Err(refused(errors)))
            }
            None if errors.is_empty() && self.anonymous.is_allowed(path) => {
                known(Arc::new(User::anonymous()), audiences.to_vec())
            }
            None => Judged::Known(Err(Unauthenticated { reason: crate::authz::aggregate(&errors) })),
        }
    }

    fn token(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn Lookup,
        now: i64,
    ) -> Result<Option<Authenticated>, String> {
        // A static token knows of no audience: it is good for the API server only.
        let own = intersect(&self.audiences, audiences);
        if !own.is_empty()
            && let Some(user) = self.tokens.find(token)
        {
            return Ok(Some(Authenticated { user, audiences: own, warning: None, annotations: Vec::new() }));
        }
        if let Some(found) = self.service_accounts.authenticate(token, audiences, lookup, now)? {
            return Ok(Some(found));
        }
        let bootstraps = self.bootstrap_tokens && !own.is_empty();
        let user = bootstraps.then(|| bootstrap_token::authenticate(token, lookup, now)).flatten();
        Ok(user.map(|user| Authenticated {
            user: Arc::new(user),
            audiences: own,
            warning: None,
            annotations: Vec::new(),
        }))
    }
}

/// A token that nobody vouches for. The server's own loopback token is tried before all others, and says the first of every
/// token but its own.
fn refused(mut errors: Vec<String>) -> Unauthenticated {
    errors.insert(0, INVALID_TOKEN.to_string());
    Unauthenticated { reason: crate::authz::aggregate(&errors) }
}

enum Bearer<'a> {
    Token(&'a str),
    /// No attempt at a bearer token, maybe with a warning about it.
    None(Option<&'static str>),
}

/// Reads an Authorization header as Kubernetes does: the scheme in any case, one space, and whatever follows the next
/// space does not matter.
fn bearer(header: &str) -> Bearer<'_> {
    let mut parts = header.trim().splitn(3, ' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(scheme), Some(""), Some(_)) if scheme.eq_ignore_ascii_case("bearer") => Bearer::None(Some(EXTRA_SPACE)),
        (Some(scheme), Some(token), _) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => {
            Bearer::Token(token)
        }
        _ => Bearer::None(None),
    }
}

/// The token among the subprotocols of a WebSocket request.
fn websocket_token(headers: &HeaderMap) -> Option<Result<String, String>> {
    let has = |name, wanted: &str| {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).any(|v| v.to_ascii_lowercase().contains(wanted))
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        return None;
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let (mut token, mut others) = (None, 0);
    for protocol in offered.flat_map(|value| value.split(',')).map(str::trim) {
        let Some(encoded) = protocol.strip_prefix(WEBSOCKET_TOKEN_PREFIX) else {
            others += 1;
            continue;
        };
        if token.is_some() {
            return Some(Err("multiple base64.bearer.authorization tokens specified".into()));
        }
        let decoded = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded {
            Some(decoded) => token = Some(decoded),
            None => return Some(Err("invalid base64.bearer.authorization token encoding".into())),
        }
    }
    match token {
        Some(token) if token.is_empty() => None,
        Some(_) if others == 0 => Some(Err("missing additional subprotocol".into())),
        token => token.map(Ok),
    }
}

/// A header of a request as others may see it: without the token that a browser's WebSocket puts among its subprotocols.
pub fn without_token(name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let Some(offered) = value.to_str().ok().filter(|_| name == SEC_WEBSOCKET_PROTOCOL) else { return value.clone() };
    let others = offered.split(',').map(str::trim).filter(|protocol| !protocol.starts_with(WEBSOCKET_TOKEN_PREFIX));
    HeaderValue::from_str(&others.collect::<Vec<_>>().join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// Adds the group of everybody who is somebody.
fn authenticated(user: Arc<User>) -> Arc<User> {
    if user.name == ANONYMOUS || user.is_in(AUTHENTICATED) || user.is_in(UNAUTHENTICATED) {
        return user;
    }
    let mut user = Arc::unwrap_or_clone(user);
    user.groups.push(AUTHENTICATED.to_string());
    Arc::new(user)
}

/// The wanted audiences that are among `given`, as often and in the order they are wanted.
fn intersect(given: &[String], wanted: &[String]) -> Vec<String> {
    wanted.iter().filter(|audience| given.contains(audience)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, want: &str) {
        let got = match bearer(header) {
            Bearer::Token(token) => token,
            Bearer::None(Some(warning)) => warning,
            Bearer::None(None) => "no attempt",
        };
        assert_eq!(got, want);
    }

    #[test]
    fn authorization_headers() {
        check("Bearer tok", "tok");
        check("bEaReR tok", "tok");
        check("  Bearer tok ", "tok");
        check("Bearer tok more", "tok");
        check("Bearer tok, Bearer tok", "tok,");
        check("Bearer  tok", EXTRA_SPACE);
        check("Bearer\ttok", "no attempt");
        check("tok", "no attempt");
        check("Bearer", "no attempt");
        check("Bearer ", "no attempt");
        check("", "no attempt");
        check("Basic YWxpY2U6c2VjcmV0", "no attempt");
        check("Bearer:tok", "no attempt");
        check("Bearer \"tok\"", "\"tok\"");
    }

    #[test]
    fn a_websocket_may_carry_its_token_as_a_subprotocol() {
        let headers = |protocols: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, "Upgrade".parse().unwrap());
            headers.insert(UPGRADE, "websocket".parse().unwrap());
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
            headers
        };
        let token = format!("{WEBSOCKET_TOKEN_PREFIX}dG9r");
        assert_eq!(websocket_token(&headers(&format!("v4.channel.k8s.io, {token}"))), Some(Ok("tok".into())));
        assert_eq!(websocket_token(&headers(&token)), Some(Err("missing additional subprotocol".into())));
        assert!(websocket_token(&headers(&format!("a, {token}, {token}"))).unwrap().is_err());
        assert_eq!(websocket_token(&headers("v4.channel.k8s.io")), None);
        assert_eq!(websocket_token(&HeaderMap::new()), None);
    }
}
