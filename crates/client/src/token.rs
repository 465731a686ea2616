//! What a service account token says about itself. Reads, never verifies: only the server can do that.

use ::api::fields;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The claims of a token that programs and people ask about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// Who made it: `iss`.
    pub issuer: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// Whom it is for: `aud`.
    pub audiences: Vec<String>,
    /// Seconds since 1970; `None` for tokens that never expire.
    pub expires: Option<i64>,
    /// When it was made, in seconds since 1970.
    pub issued: Option<i64>,
    /// What Kubernetes adds.
    pub kubernetes: Bound,
}

/// What the token is bound to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bound {
    /// The account's namespace.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Named,
    /// The pod that it ends with.
    pub pod: Option<Named>,
    /// The node that the pod runs on.
    pub node: Option<Named>,
    /// The Secret that it ends with.
    pub secret: Option<Named>,
    /// From here on a fresh token should be in use, in seconds since 1970.
    pub warnafter: Option<i64>,
}

/// An object by name and uid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The claims as they are written.
#[derive(Default)]
struct Written {
    iss: String,
    sub: String,
    /// One or many.
    aud: Value,
    exp: Option<i64>,
    iat: Option<i64>,
    kubernetes: Bound,
}

fields!(Written, read { iss: "iss", sub: "sub", aud: "aud", exp: "exp", iat: "iat", kubernetes: "kubernetes.io" });

fields!(
    Bound,
    read {
        namespace: "namespace",
        serviceaccount: "serviceaccount",
        pod: "pod",
        node: "node",
        secret: "secret",
        warnafter: "warnafter",
    }
);

fields!(Named, read { name: "name", uid: "uid" });

impl Claims {
    /// The claims of a token, `None` where it is no JWT.
    pub fn decode(token: &str) -> Option<Claims> {
        let claims: Written = serde_json::from_value(payload(token)?).ok()?;
        Some(Claims {
            issuer: claims.iss,
            subject: claims.sub,
            audiences: ::api::token::audiences(&claims.aud).unwrap_or_default(),
            expires: claims.exp,
            issued: claims.iat,
            kubernetes: claims.kubernetes,
        })
    }
}

/// All claims of a token as they are, `None` where it is no JWT.
pub fn payload(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read() {
        let payload = r#"{"iss":"i","sub":"system:serviceaccount:a:b","aud":"x","exp":5,"kubernetes.io":{"namespace":"a","pod":{"name":"p","uid":"u"}}}"#;
        let claims = Claims::decode(&format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload))).unwrap();
        assert_eq!(claims.audiences, ["x"]);
        assert_eq!((claims.expires, claims.kubernetes.pod.unwrap().name.as_str()), (Some(5), "p"));
        assert_eq!(Claims::decode("static-token"), None);
    }
}
