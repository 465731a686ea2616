//! Events: what controllers tell people about an object. One that is lost changes nothing.

use jiff::Timestamp;
use kemudi_client::{Api, Client, Dynamic};
use serde_json::{Value, json};

use crate::kinds::EVENTS;

/// What an Event is about: `involvedObject`.
pub fn reference(api_version: &str, kind: &str, namespace: &str, name: &str, uid: &str) -> Value {
    json!({"kind": kind, "namespace": namespace, "name": name, "uid": uid, "apiVersion": api_version})
}

/// What happened, in the words of `kubectl describe`.
pub struct Happened<'a> {
    /// `Normal` or `Warning`.
    pub kind: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
}

/// Tells an Event as a component.
pub async fn tell(client: &Client, component: &str, about: Value, happened: Happened<'_>) {
    let now = Timestamp::now();
    let name = format!("{}.{:x}", about["name"].as_str().unwrap_or_default(), now.as_nanosecond());
    let namespace = match about["namespace"].as_str() {
        Some(namespace) if !namespace.is_empty() => namespace.to_string(),
        _ => "default".to_string(),
    };
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": about,
        "reason": happened.reason, "message": happened.message,
        "source": {"component": component},
        "firstTimestamp": time(now), "lastTimestamp": time(now), "count": 1,
        "type": happened.kind,
        "reportingComponent": component, "reportingInstance": "",
    });
    let events = Api::<Dynamic>::namespaced_of(client.clone(), &namespace, &EVENTS);
    if let Err(error) = events.create(&Dynamic(event)).await {
        tracing::debug!(%error, "an Event could not be told");
    }
}

/// A time as objects have it: in seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
