//! What a service account token says about itself. Reads, never verifies: only the server can do that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// The claims of a token that programs and people ask about.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Claims {
    #[serde(rename = "iss")]
    pub issuer: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(rename = "sub")]
    pub subject: String,
    #[serde(rename = "aud", deserialize_with = "one_or_many")]
    pub audiences: Vec<String>,
    /// Seconds since 1970; `None` for tokens that never expire.
    #[serde(rename = "exp")]
    pub expires: Option<i64>,
    #[serde(rename = "iat")]
    pub issued: Option<i64>,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
}

/// What the token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: Named,
    pub pod: Option<Named>,
    pub node: Option<Named>,
    pub secret: Option<Named>,
    /// From here on a fresh token should be in use, in seconds since 1970.
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

impl Claims {
    /// The claims of a token, `None` where it is no JWT.
    pub fn decode(token: &str) -> Option<Claims> {
        serde_json::from_value(payload(token)?).ok()
    }
}

/// All claims of a token as they are, `None` where it is no JWT.
pub fn payload(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    let aud = Value::deserialize(input)?;
    Ok(::api::token::audiences(&aud).unwrap_or_default())
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
