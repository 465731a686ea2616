//! Tokens of the old kind: they live in a Secret of type `kubernetes.io/service-account-token`, never expire, and count as long
//! as that Secret holds them and the account is the same. Makes and checks claims; knows no keys.

use api::meta;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::service_account::{split_user_name, user_name};
use crate::lookup::Lookup;

/// Who issues them, whatever the cluster's issuer is.
pub const ISSUER: &str = "kubernetes/serviceaccount";

const NAMESPACE: &str = "kubernetes.io/serviceaccount/namespace";
const SECRET: &str = "kubernetes.io/serviceaccount/secret.name";
const ACCOUNT: &str = "kubernetes.io/serviceaccount/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/serviceaccount/service-account.uid";

/// What such a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyClaims {
    pub namespace: String,
    pub secret: String,
    pub account: String,
    pub account_uid: String,
}

impl LegacyClaims {
    pub fn to_value(&self) -> Value {
        json!({
            "iss": ISSUER,
            NAMESPACE: self.namespace,
            SECRET: self.secret,
            ACCOUNT: self.account,
            ACCOUNT_UID: self.account_uid,
            "sub": user_name(&self.namespace, &self.account),
        })
    }

    /// # Errors
    /// Which claim is missing or does not fit the others.
    pub fn from_value(claims: &Value) -> Result<LegacyClaims, String> {
        let text = |key: &str, what: &str| match claims[key].as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_string()),
            _ => Err(format!("{what} is required")),
        };
        let found = LegacyClaims {
            namespace: text(NAMESPACE, "namespace")?,
            secret: text(SECRET, "secretName")?,
            account: text(ACCOUNT, "serviceAccountName")?,
            account_uid: text(ACCOUNT_UID, "serviceAccountUID")?,
        };
        match claims["sub"].as_str().and_then(split_user_name) {
            Some((namespace, name)) if namespace == found.namespace && name == found.account => Ok(found),
            _ => Err("sub claim is invalid".into()),
        }
    }

    /// The Secret still holds this very token, and the account is the one it was made for.
    ///
    /// # Errors
    /// What has changed since.
    pub fn check(&self, token: &str, lookup: &dyn Lookup) -> Result<(), String> {
        let secret = lookup.get("", "secrets", &self.namespace, &self.secret);
        let secret = secret.filter(|secret| !meta::is_deleting(secret)).ok_or("Token has been invalidated")?;
        if secret["data"]["token"].as_str().and_then(|held| STANDARD.decode(held).ok()).as_deref()
            != Some(token.as_bytes())
        {
            return Err("Token does not match server's copy".into());
        }
        let account = lookup
            .identity("", "serviceaccounts", &self.namespace, &self.account)
            .ok_or_else(|| format!("serviceaccounts {} not found", api::go::quote(&self.account)))?;
        if account.deleted_at.is_some() {
            return Err(format!("ServiceAccount {}/{} has been deleted", self.namespace, self.account));
        }
        match account.uid == self.account_uid {
            true => Ok(()),
            false => Err(format!("ServiceAccount UID ({}) does not match claim ({})", account.uid, self.account_uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::Objects;

    const TOKEN: &str = "a.b.c";

    #[track_caller]
    fn check(claims: &LegacyClaims, token: &str, want: &str) {
        let mut objects = Objects::default();
        let meta = |name: &str, uid: &str| json!({"name": name, "namespace": "ns", "uid": uid});
        objects.put("", "serviceaccounts", json!({"metadata": meta("sa", "s1")}));
        objects.put("", "secrets", json!({"metadata": meta("t", "x1"), "data": {"token": STANDARD.encode(TOKEN)}}));
        let read = LegacyClaims::from_value(&claims.to_value());
        let got = read.and_then(|read| {
            assert_eq!(read, *claims);
            read.check(token, &objects)
        });
        assert_eq!(got.err().unwrap_or("counts".into()), want);
    }

    #[test]
    fn a_token_counts_while_its_secret_holds_it() {
        let good =
            LegacyClaims { namespace: "ns".into(), secret: "t".into(), account: "sa".into(), account_uid: "s1".into() };
        check(&good, TOKEN, "counts");
        check(&good, "x.y.z", "Token does not match server's copy");
        check(&LegacyClaims { secret: "gone".into(), ..good.clone() }, TOKEN, "Token has been invalidated");
        check(&LegacyClaims { account: "no".into(), ..good.clone() }, TOKEN, "serviceaccounts \"no\" not found");
        let other = LegacyClaims { account_uid: "s0".into(), ..good.clone() };
        check(&other, TOKEN, "ServiceAccount UID (s1) does not match claim (s0)");
        check(&LegacyClaims { secret: String::new(), ..good }, TOKEN, "secretName is required");
    }
}
