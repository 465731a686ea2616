//! One audit event, as `audit.k8s.io/v1` has it, field for field in Go's order. Made of what is handed in; decides nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::policy::{Level, Stage};
use crate::authn::User;

/// Bytes of a user agent that are kept.
const USER_AGENT_BYTES_MAX: usize = 1024;
const TRUNCATED: &str = "...TRUNCATED";

/// What is known of a request so far.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub kind: &'static str,
    pub api_version: &'static str,
    pub level: Level,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: String,
    pub user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// `metav1.Status` without its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Value>,
    #[serde(serialize_with = "micro_time")]
    pub request_received_timestamp: Timestamp,
    #[serde(serialize_with = "micro_time")]
    pub stage_timestamp: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationMetadata {
    /// The verb that allowed it to act as somebody else, where that is a constrained one.
    pub impersonation_constraint: String,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

impl Event {
    pub fn new(audit_id: String, request_uri: String, received: Timestamp) -> Event {
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: Level::None,
            audit_id,
            stage: Stage::RequestReceived,
            request_uri,
            verb: String::new(),
            user: User::default(),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: received,
            stage_timestamp: received,
            annotations: BTreeMap::new(),
        }
    }

    /// The line of a log.
    pub fn line(&self) -> Vec<u8> {
        let mut line = api::codec::to_json(self);
        line.push(b'\n');
        line
    }

    /// What an answer says of itself: all of a `Status` but its type and its list metadata.
    pub fn set_status(&mut self, status: &Value) {
        let mut kept = Map::from_iter([("metadata".to_string(), json!({}))]);
        for field in ["status", "message", "reason", "details", "code"] {
            if let Some(value) = status.get(field) {
                kept.insert(field.into(), value.clone());
            }
        }
        self.response_status = Some(kept);
    }

    /// The HTTP code of the answer.
    pub fn set_code(&mut self, code: u16) {
        let status = self.response_status.get_or_insert_with(|| Map::from_iter([("metadata".to_string(), json!({}))]));
        status.insert("code".into(), json!(code));
    }
}

fn micro_time<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ"))
}

/// The object without the fields that say who owns its fields; the same for each item of a list and each row of a Table.
pub fn without_managed_fields(mut object: Value) -> Value {
    fn strip(object: &mut Value) {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
    }
    strip(&mut object);
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        strip(item);
    }
    for row in object.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        row.get_mut("object").into_iter().for_each(strip);
    }
    object
}

/// What a client calls itself, cut where it is very long.
pub fn user_agent(headers: &HeaderMap) -> String {
    let bytes = headers.get(http::header::USER_AGENT).map(|value| value.as_bytes()).unwrap_or_default();
    match bytes.get(..USER_AGENT_BYTES_MAX) {
        Some(cut) if bytes.len() > USER_AGENT_BYTES_MAX => format!("{}{TRUNCATED}", String::from_utf8_lossy(cut)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Where a request came from: what `X-Forwarded-For` says, what `X-Real-Ip` adds, and the other end of the connection.
/// Only the last can be relied on.
pub fn source_ips(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut all: Vec<IpAddr> = text("x-forwarded-for").split(',').filter_map(|part| parse_ip(part.trim())).collect();
    all.extend(parse_ip(text("x-real-ip")).filter(|ip| !all.contains(ip)));
    all.extend(peer.map(|ip| ip.to_canonical()).filter(|ip| all.last() != Some(ip)));
    all.iter().map(IpAddr::to_string).collect()
}

/// An address as Go once read it: zeros in front of a number mean nothing.
fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical());
    }
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u32>().ok().filter(|_| digits).and_then(|number| u8::try_from(number).ok())
    };
    let parts: Vec<Option<u8>> = text.split('.').map(number).collect();
    match parts.as_slice() {
        [Some(a), Some(b), Some(c), Some(d)] => Some(Ipv4Addr::new(*a, *b, *c, *d).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(forwarded: &str, real: &str, peer: &str, want: &[&str]) {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-forwarded-for", forwarded), ("x-real-ip", real)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        assert_eq!(source_ips(&headers, peer.parse().ok()), want);
    }

    #[test]
    fn where_a_request_came_from() {
        check("", "", "192.0.2.1", &["192.0.2.1"]);
        check("", "", "::ffff:192.0.2.1", &["192.0.2.1"]);
        check("192.0.2.1", "", "192.0.2.1", &["192.0.2.1"]);
        check("192.0.2.1, 192.0.2.9", "", "192.0.2.1", &["192.0.2.1", "192.0.2.9", "192.0.2.1"]);
        check("1.2.3.4", "1.2.3.4", "192.0.2.1", &["1.2.3.4", "192.0.2.1"]);
        check("", "2001:DB8::1", "192.0.2.1", &["2001:db8::1", "192.0.2.1"]);
        // As kube-apiserver answers the same request.
        let want = ["1.2.3.4", "10.0.0.1", "5.6.7.8", "9.9.9.9", "192.0.2.1"];
        check("1.2.3.4, bad, 010.0.0.1 ,::ffff:5.6.7.8", "9.9.9.9", "192.0.2.1", &want);
        check("256.0.0.1,1.2.3,1.2.3.4.5,+1.2.3.4,", "", "", &[]);
    }

    #[test]
    fn user_agents_are_cut() {
        let of = |text: &str| user_agent(&HeaderMap::from_iter([(http::header::USER_AGENT, text.parse().unwrap())]));
        assert_eq!(of("kubectl"), "kubectl");
        assert_eq!(of(&"a".repeat(1024)), "a".repeat(1024));
        assert_eq!(of(&"a".repeat(1025)), format!("{}...TRUNCATED", "a".repeat(1024)));
    }

    #[test]
    fn managed_fields_are_left_out_wherever_they_are() {
        let owned = || json!({"name": "a", "managedFields": [1]});
        let all = json!({
            "metadata": owned(),
            "items": [{"metadata": owned()}],
            "rows": [{"object": {"metadata": owned()}}, {"object": null}],
        });
        let left = without_managed_fields(all).to_string();
        assert!(!left.contains("managedFields") && left.matches("\"a\"").count() == 3, "{left}");
    }
}
