//! Bootstrap tokens, `ID.SECRET`: each lives in a Secret of kube-system and counts as long as that says so. Looked up on
//! every use, nothing is remembered. What is wrong with a Secret is for the log; the client is just not known.

use api::meta;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::User;
use crate::lookup::Lookup;

const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const USER_PREFIX: &str = "system:bootstrap:";
/// The group of all who come with such a token; others that a Secret names begin with it and a colon.
const GROUP: &str = "system:bootstrappers";

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 16;
/// What may follow the colon of a further group.
const GROUP_BYTES_MAX: usize = 256;

/// Whom a token stands for. `now` is in seconds since 1970. Nothing where it is no token of this kind, or where its Secret is
/// missing, says otherwise, or has expired.
pub fn authenticate(token: &str, lookup: &dyn Lookup, now: i64) -> Option<User> {
    let (id, secret_text) = parse(token)?;
    let name = format!("{NAME_PREFIX}{id}");
    let secret = lookup.get("", "secrets", NAMESPACE, &name)?;
    match judge(&secret, id, secret_text, now) {
        Ok(groups) => Some(User::new(format!("{USER_PREFIX}{id}"), groups)),
        Err(why) => {
            tracing::debug!(secret = name, why, "a bootstrap token does not count");
            None
        }
    }
}

/// Id and secret of what looks like such a token.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == ID_BYTES && secret.len() == SECRET_BYTES && is_plain(id) && is_plain(secret)).then_some((id, secret))
}

/// The groups of who comes with this token.
fn judge(secret: &Value, id: &str, secret_text: &str, now: i64) -> Result<Vec<String>, String> {
    if meta::is_deleting(secret) {
        return Err("is deleted and awaiting removal".into());
    }
    if secret["type"] != TYPE {
        return Err(format!("has invalid type, expected {TYPE}"));
    }
    let text = |key: &str| {
        let encoded = secret["data"][key].as_str().unwrap_or_default();
        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    if verify_slices_are_equal(text("token-secret").as_bytes(), secret_text.as_bytes()).is_err() {
        return Err("has another value for key token-secret".into());
    }
    if text("token-id") != id {
        return Err("has another value for key token-id".into());
    }
    let expiration = text("expiration");
    let ends = expiration.parse::<Timestamp>().map_or(i64::MIN, |ends| ends.as_second());
    if !expiration.is_empty() && ends <= now {
        return Err(format!("expired at {expiration}"));
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err("is not marked usage-bootstrap-authentication=true".into());
    }
    groups(&text("auth-extra-groups"))
}

/// The group of all, and those that a Secret names with commas between: sorted, each once.
fn groups(named: &str) -> Result<Vec<String>, String> {
    let mut groups = vec![GROUP.to_string()];
    for group in named.split(',').filter(|_| !named.is_empty()) {
        if !is_group(group) {
            return Err(format!("has invalid value for key auth-extra-groups: {group}"));
        }
        groups.push(group.to_string());
    }
    groups.sort();
    groups.dedup();
    Ok(groups)
}

fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-';
    (1..=GROUP_BYTES_MAX).contains(&rest.len())
        && rest.bytes().all(is_inner)
        && rest.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lookup::Objects;

    const NOW: i64 = 1_800_000_000;
    const TOKEN: &str = "abcdef.0123456789abcdef";

    /// The Secret `bootstrap-token-abcdef` as kubeadm makes it, with some of its keys otherwise.
    fn secret(others: Value) -> Value {
        let mut data = json!({
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
        });
        for (key, value) in others.as_object().unwrap() {
            data[key] = value.clone();
        }
        let data = data.as_object().unwrap().iter().filter_map(|(key, value)| Some((key, value.as_str()?)));
        let data: serde_json::Map<String, Value> =
            data.map(|(key, value)| (key.clone(), json!(STANDARD.encode(value)))).collect();
        json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": NAMESPACE}, "type": TYPE, "data": data})
    }

    #[track_caller]
    fn check(secret: Value, token: &str, want: &str) {
        let mut objects = Objects::default();
        objects.put("", "secrets", secret);
        let got = authenticate(token, &objects, NOW)
            .map_or("nobody".into(), |user| format!("{} {}", user.name, user.groups.join(" ")));
        assert_eq!(got, want);
    }

    #[test]
    fn who_comes_with_a_bootstrap_token() {
        let plain = "system:bootstrap:abcdef system:bootstrappers";
        check(secret(json!({})), TOKEN, plain);
        check(secret(json!({"expiration": "2027-01-15T08:00:01Z"})), TOKEN, plain);
        check(secret(json!({"expiration": "2027-01-15T09:00:01+01:00"})), TOKEN, plain);
        check(
            secret(
                json!({"auth-extra-groups": "system:bootstrappers:worker,system:bootstrappers:a,system:bootstrappers:a"}),
            ),
            TOKEN,
            "system:bootstrap:abcdef system:bootstrappers system:bootstrappers:a system:bootstrappers:worker",
        );
    }

    #[test]
    fn what_makes_a_bootstrap_token_worth_nothing() {
        for other in [
            json!({"token-secret": "0123456789abcdeg"}),
            json!({"token-secret": ""}),
            json!({"token-id": "abcdeg"}),
            json!({"token-id": null}),
            json!({"expiration": "2027-01-15T08:00:00Z"}),
            json!({"expiration": "soon"}),
            json!({"usage-bootstrap-authentication": "yes"}),
            json!({"usage-bootstrap-authentication": null}),
            json!({"auth-extra-groups": "system:masters"}),
            json!({"auth-extra-groups": "system:bootstrappers"}),
            json!({"auth-extra-groups": "system:bootstrappers:"}),
            json!({"auth-extra-groups": "system:bootstrappers:a-"}),
            json!({"auth-extra-groups": "system:bootstrappers:a,"}),
            json!({"auth-extra-groups": "system:bootstrappers:a b"}),
            json!({"auth-extra-groups": "system:bootstrappers:A"}),
        ] {
            check(secret(other), TOKEN, "nobody");
        }
        let mut opaque = secret(json!({}));
        opaque["type"] = json!("Opaque");
        check(opaque, TOKEN, "nobody");
        let mut deleting = secret(json!({}));
        deleting["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
        check(deleting, TOKEN, "nobody");
    }

    #[test]
    fn what_is_no_bootstrap_token() {
        for token in [
            "",
            "abcdef",
            "abcdef.",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdef0",
            "abcdeF.0123456789abcdef",
            "ghijkl.0123456789abcdef",
            "abcdef.0123456789abcdef\n",
        ] {
            check(secret(json!({})), token, "nobody");
        }
    }
}
