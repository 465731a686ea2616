//! The two documents that let others verify service account tokens: the discovery document and the public keys. Data
//! only: who may read them is decided like any other path.

use serde_json::{Value, json};

use crate::authn::jwt::Keys;

pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
pub const KEYS_PATH: &str = "/openid/v1/jwks";

/// How long clients may keep the documents: keys change rarely.
pub const CACHE_CONTROL: &str = "public, max-age=3600";

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    Configuration,
    Keys,
}

impl Document {
    /// The document at a path; both answer with and without a slash at the end.
    pub fn at(path: &str) -> Option<Document> {
        match path.strip_suffix('/').unwrap_or(path) {
            CONFIGURATION_PATH => Some(Document::Configuration),
            KEYS_PATH => Some(Document::Keys),
            _ => None,
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Document::Configuration => "application/json",
            Document::Keys => "application/jwk-set+json",
        }
    }

    /// The document. `keys_uri` is where clients find the other one.
    pub fn body(self, issuer: &str, keys_uri: &str, keys: &Keys) -> Value {
        match self {
            Document::Configuration => {
                let mut algorithms: Vec<&str> = keys.all().map(|key| key.algorithm.name()).collect();
                algorithms.sort_unstable();
                algorithms.dedup();
                json!({
                    "issuer": issuer,
                    "jwks_uri": keys_uri,
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": algorithms,
                })
            }
            Document::Keys => json!({"keys": keys.all().map(|key| key.to_jwk()).collect::<Vec<_>>()}),
        }
    }
}

/// Whether there is anything to serve: OpenID Connect wants an https issuer without query and fragment.
pub fn is_served(issuer: &str) -> bool {
    issuer.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::jwt::{Algorithm, LazyKey, SigningKey};

    #[test]
    fn what_is_served() {
        let media = |path: &str| Document::at(path).map(Document::media_type);
        assert_eq!(media("/.well-known/openid-configuration"), Some("application/json"));
        assert_eq!(media("/openid/v1/jwks/"), Some("application/jwk-set+json"));
        assert_eq!(media("/openid/v1"), None);
        assert!(is_served("https://kubernetes.default.svc"));
        for issuer in ["http://a", "https://", "https://a?b", "https://a#b", "kubernetes/serviceaccount"] {
            assert!(!is_served(issuer), "{issuer}");
        }
    }

    #[test]
    fn documents() {
        let own = SigningKey::generate(Algorithm::Es256).unwrap();
        let others = vec![SigningKey::generate(Algorithm::Es512).unwrap().public];
        let keys = Keys { signing: LazyKey::ready(own), others };
        let uri = "https://192.0.2.1:6443/openid/v1/jwks";
        assert_eq!(
            Document::Configuration.body("https://kubernetes.default.svc", uri, &keys).to_string(),
            r#"{"issuer":"https://kubernetes.default.svc","jwks_uri":"https://192.0.2.1:6443/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","ES512"]}"#
        );
        let keys = Document::Keys.body("", "", &keys);
        assert_eq!((&keys["keys"][0]["alg"], &keys["keys"][1]["alg"]), (&json!("ES256"), &json!("ES512")));
    }
}
