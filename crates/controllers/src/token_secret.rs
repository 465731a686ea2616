//! A Secret of type `kubernetes.io/service-account-token` holds a token of its account, the CA and the namespace; it goes
//! with the account. Such tokens never expire: they are made only for whoever asks with such a Secret.

use std::sync::Arc;

use api::meta;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kemudi_client::Dynamic;
use serde_json::Value;
use tokio::sync::watch;

use crate::TokenSigner;
use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::{SECRETS, SERVICE_ACCOUNTS};
use crate::mirror::{Key, Mirror};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub struct TokenSecrets {
    ca_pem: watch::Receiver<String>,
    signer: Arc<dyn TokenSigner>,
}

impl TokenSecrets {
    pub fn new(ca_pem: watch::Receiver<String>, signer: Arc<dyn TokenSigner>) -> TokenSecrets {
        TokenSecrets { ca_pem, signer }
    }
}

impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "service account tokens"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::fields(SECRETS, "type=kubernetes.io/service-account-token"), Source::all(SERVICE_ACCOUNTS)]
    }

    fn stirred_by(&self) -> Option<watch::Receiver<String>> {
        Some(self.ca_pem.clone())
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let namespace = meta::namespace(object);
        let key = |secret: &Value| (namespace.to_string(), meta::name(secret).to_string());
        match source {
            0 => vec![key(object)],
            _ => {
                let of_account = |secret: &&Value| account_of(secret) == meta::name(object);
                seen[0].of_namespace(namespace).filter(of_account).map(key).collect()
            }
        }
    }

    fn decide(&self, (namespace, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some(secret) = seen[0].get(namespace, name) else { return Vec::new() };
        let ca_pem: Arc<str> = self.ca_pem.borrow().as_str().into();
        let account = seen[1].get(namespace, account_of(secret));
        let good = account.is_some_and(|account| belongs(secret, account) && is_filled(secret, account, &ca_pem));
        if good {
            return Vec::new();
        }
        // The two watches may be out of step, so the action looks at both objects once more.
        let signer = self.signer.clone();
        vec![Action::TokenSecret { namespace: namespace.clone(), name: name.clone(), ca_pem, signer }]
    }
}

/// The name of the account that a Secret is for.
pub fn account_of(secret: &Value) -> &str {
    meta::entry(secret, "annotations", ACCOUNT_NAME).unwrap_or_default()
}

/// Whether the account is the one the Secret was made for, not another of its name.
pub fn belongs(secret: &Value, account: &Value) -> bool {
    meta::entry(secret, "annotations", ACCOUNT_UID).is_none_or(|uid| uid.is_empty() || uid == meta::uid(account))
}

fn is_filled(secret: &Value, account: &Value, ca_pem: &str) -> bool {
    let data = &secret["data"];
    data["token"].as_str().is_some_and(|token| !token.is_empty())
        && data["ca.crt"] == STANDARD.encode(ca_pem)
        && data["namespace"] == STANDARD.encode(meta::namespace(secret))
        && meta::entry(secret, "annotations", ACCOUNT_UID) == Some(meta::uid(account))
}

/// The Secret with all it needs; `None` where it has that.
pub fn filled(
    secret: &Value,
    account: &Value,
    ca_pem: &str,
    signer: &dyn TokenSigner,
) -> Result<Option<Value>, String> {
    if is_filled(secret, account, ca_pem) {
        return Ok(None);
    }
    let mut filled = secret.clone();
    if filled["data"]["token"].as_str().is_none_or(str::is_empty) {
        let token =
            signer.sign(meta::namespace(account), meta::name(account), meta::uid(account), meta::name(secret))?;
        filled["data"]["token"] = STANDARD.encode(token).into();
    }
    filled["data"]["ca.crt"] = STANDARD.encode(ca_pem).into();
    filled["data"]["namespace"] = STANDARD.encode(meta::namespace(secret)).into();
    filled["metadata"]["annotations"][ACCOUNT_UID] = meta::uid(account).into();
    Ok(Some(filled))
}
