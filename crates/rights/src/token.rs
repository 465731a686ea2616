//! Why a token is not taken: by what it says about itself and by what a server says about it. Never verifies a signature,
//! and never shows the token.

use api::{go, meta};
use serde_json::Value;

use crate::explain::{Cause, Finding};

/// How far clocks may be apart, in seconds.
const LEEWAY_SECONDS: i64 = 10;

/// What to do about a token that says nothing.
const LOOK: &str = "look for a typing error or a cut in it, or ask for another";

/// What is known of a token that a server refused.
#[derive(Clone, Debug, Default)]
pub struct Refused<'a> {
    /// What the token says about itself; `None` where it is no JWT.
    pub claims: Option<&'a Value>,
    /// `status.error` of a TokenReview, or what the server wrote down; `""` where nobody could ask.
    pub reason: &'a str,
    /// Whom the server's own tokens are from; `""` where nobody could ask.
    pub issuer: &'a str,
    /// What it is bound to and is no longer there, for people; `""` where all is there or nobody could ask.
    pub gone: &'a str,
    /// In seconds since 1970.
    pub now: i64,
}

/// Why, the surest reason first; never empty.
pub fn causes(refused: &Refused<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let again = renew(refused.claims);
    let mut add = |cause: Cause, message: String, repair: &str| {
        if !found.iter().any(|finding: &Finding| finding.cause == cause) {
            found.push(Finding::new(cause, message, repair));
        }
    };
    let Some(claims) = refused.claims else {
        if refused.reason.is_empty() {
            let message = "the token is no JWT, so that it says nothing about itself, and the server does not know it";
            add(Cause::TokenUnknown, message.into(), LOOK);
        } else {
            let (cause, what) = of_reason(refused.reason);
            let is_unknown = cause == Cause::TokenUnknown;
            add(cause, format!("{what}: {}", refused.reason), if is_unknown { LOOK } else { &again });
        }
        return found;
    };
    let second = |name: &str| claims.get(name).and_then(Value::as_i64);
    let issuer = meta::text_at(claims, &["iss"]);
    let audiences = api::token::audiences(&claims["aud"]).unwrap_or_default();
    if let Some(expires) = second("exp").filter(|expires| *expires <= refused.now) {
        add(Cause::TokenExpired, format!("the token expired {} ago", span(refused.now - expires)), &again);
    }
    let begins = second("nbf").or(second("iat")).filter(|begins| *begins > refused.now + LEEWAY_SECONDS);
    if let Some(begins) = begins {
        let message = format!("the token is good in {} only", span(begins - refused.now));
        add(Cause::TokenNotYetValid, message, "set this machine's or the server's clock right");
    }
    if !refused.gone.is_empty() {
        add(Cause::TokenRevoked, format!("the token is bound to {}", refused.gone), &again);
    }
    if !refused.reason.is_empty() {
        let (cause, what) = of_reason(refused.reason);
        if cause != Cause::TokenUnknown {
            add(cause, format!("{what}: {}", refused.reason), &again);
        }
    }
    let issuer_differs = !refused.issuer.is_empty() && refused.issuer != issuer;
    if issuer_differs {
        let message =
            format!("the token is of {}, the server's own are of {}", go::quote(issuer), go::quote(refused.issuer));
        add(Cause::TokenForeign, message, "use a token of this cluster, or the cluster of this token");
    }
    // Without other word, a cluster's audience is its issuer.
    let own = if refused.issuer.is_empty() { issuer } else { refused.issuer };
    let is_for_server = |audience: &String| audience == own || audience.starts_with("https://kubernetes.default.svc");
    if !audiences.is_empty() && !audiences.iter().any(is_for_server) {
        let message = format!("the token is for {}, which is not this server", audiences.join(" and "));
        add(Cause::TokenWrongAudience, message, "ask for one without an audience, which is for the server itself");
    }
    if found.is_empty() {
        let (cause, what) = of_reason(refused.reason);
        let message = if refused.reason.is_empty() {
            "what the token says is in order; its account, pod or secret may be gone, or another cluster's key signed it".into()
        } else {
            format!("{what}: {}", refused.reason)
        };
        found.push(Finding::new(cause, message, again));
    }
    found
}

/// What a server's own words mean: those of kube-apiserver's authenticators.
fn of_reason(reason: &str) -> (Cause, &'static str) {
    const WORDS: [(&str, Cause, &str); 14] = [
        ("token has expired", Cause::TokenExpired, "the token has expired"),
        ("token is expired", Cause::TokenExpired, "the token has expired"),
        ("is not valid yet", Cause::TokenNotYetValid, "the token is not good yet"),
        ("issued in the future", Cause::TokenNotYetValid, "the token is not good yet"),
        ("has been invalidated", Cause::TokenRevoked, "what the token is bound to is gone"),
        ("has been deleted", Cause::TokenRevoked, "what the token is bound to is gone"),
        ("does not match claim", Cause::TokenRevoked, "what the token is bound to was made anew"),
        ("UID", Cause::TokenRevoked, "what the token is bound to was made anew"),
        ("not found", Cause::TokenRevoked, "what the token is bound to is gone"),
        ("audience", Cause::TokenWrongAudience, "the token is for somebody else"),
        ("no keys found", Cause::TokenForeign, "the token is signed with a key that the server does not have"),
        ("signature", Cause::TokenForeign, "the token's signature does not hold"),
        ("verification", Cause::TokenForeign, "the token's signature does not hold"),
        ("issuer", Cause::TokenForeign, "the token is of another issuer"),
    ];
    let found = WORDS.iter().find(|(word, ..)| reason.contains(word));
    found.map_or((Cause::TokenUnknown, "the server does not know the token"), |(_, cause, what)| (*cause, what))
}

/// How to get another token.
fn renew(claims: Option<&Value>) -> String {
    let text = |path: &[&str]| claims.map(|claims| meta::text_at(claims, path)).unwrap_or_default();
    let namespace = text(&["kubernetes.io", "namespace"]);
    let name = text(&["kubernetes.io", "serviceaccount", "name"]);
    if name.is_empty() {
        return "ask for another token".to_string();
    }
    let pod = text(&["kubernetes.io", "pod", "name"]);
    let fresh = format!("kubectl create token {name} -n {namespace}");
    match pod {
        "" => format!("ask for another: {fresh}"),
        _ => format!("in the pod, read the token's file again for each request; elsewhere ask for another: {fresh}"),
    }
}

/// `5s`, `3m`, `2h`, `4d`.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[track_caller]
    fn check(claims: Option<Value>, reason: &str, issuer: &str, want: &str) {
        let refused = Refused { claims: claims.as_ref(), reason, issuer, gone: "", now: NOW };
        let got: Vec<String> = causes(&refused).iter().map(|f| format!("{:?}: {}", f.cause, f.message)).collect();
        assert_eq!(got.join("; "), want);
    }

    #[test]
    fn tokens_are_explained() {
        let sound = json!({"iss": "i", "aud": ["i"], "exp": NOW + 60, "iat": NOW - 60});
        let with = |field: &str, value: Value| {
            let mut claims = sound.clone();
            claims[field] = value;
            Some(claims)
        };
        check(with("exp", json!(NOW - 300)), "", "", "TokenExpired: the token expired 5m ago");
        check(with("iat", json!(NOW + 300)), "", "", "TokenNotYetValid: the token is good in 5m only");
        check(
            with("aud", json!("vault")),
            "",
            "",
            "TokenWrongAudience: the token is for vault, which is not this server",
        );
        check(
            with("iss", json!("other")),
            "",
            "i",
            "TokenForeign: the token is of \"other\", the server's own are of \"i\"",
        );
        check(
            with("exp", json!(NOW + 60)),
            "[invalid bearer token, service account token has been invalidated]",
            "i",
            "TokenRevoked: what the token is bound to is gone: [invalid bearer token, service account token has been invalidated]",
        );
        check(
            None,
            "",
            "",
            "TokenUnknown: the token is no JWT, so that it says nothing about itself, and the server does not know it",
        );
        check(
            with("exp", json!(NOW + 60)),
            "",
            "",
            "TokenUnknown: what the token says is in order; its account, pod or secret may be gone, or another cluster's key signed it",
        );
        check(
            None,
            "invalid bearer token",
            "",
            "TokenUnknown: the server does not know the token: invalid bearer token",
        );
    }
}
