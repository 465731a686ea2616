//! What field selectors take that no object shows by its own name.

use serde_json::{Value, json};
use server::Options;

use crate::Asked;

const WRONG_NAME: &str = "400 fieldSelector metadata.name doesn't match requested name";

async fn check(asked: &Asked, path: &str, selector: &str, expected: &str) {
    let (code, answer) = asked.ask(&format!("GET {path}?fieldSelector={selector}"), None).await;
    let names = answer["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str());
    let told = match answer["message"].as_str() {
        Some(message) => format!("{code} {message}"),
        None => names.collect::<Vec<_>>().join(" "),
    };
    assert_eq!(told, expected, "{selector}");
}

#[tokio::test]
async fn old_names_and_stand_ins_select() {
    let asked = Asked::start(Options::default()).await;
    let events = "/api/v1/namespaces/default/events";
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    let old: Value = json!({
        "metadata": {"name": "old"}, "involvedObject": about, "reason": "R", "source": {"component": "c"},
    });
    let new: Value = json!({
        "metadata": {"name": "new"}, "involvedObject": about, "reason": "R", "reportingComponent": "c",
        "reportingInstance": "i", "action": "A", "type": "Normal", "eventTime": "2024-01-01T00:00:00.000000Z",
    });
    for event in [old, new] {
        let (code, answer) = asked.ask(&format!("POST {events}"), Some(&event)).await;
        assert_eq!(code, 201, "{answer}");
    }
    check(&asked, events, "source=c", "new old").await;
    check(&asked, events, "reportingComponent=c", "new").await;
    let pods = "/api/v1/namespaces/default/pods";
    check(&asked, pods, "spec.host=n", "").await;
    check(&asked, pods, "status.podIPs=1.2.3.4", "").await;
    check(&asked, "/api/v1/watch/namespaces/default/pods/a", "status.phase=x", WRONG_NAME).await;
    check(&asked, "/api/v1/watch/namespaces/default/pods/a", "metadata.name=b", WRONG_NAME).await;
    check(&asked, pods, "spec.hostIP=n", "400 field label not supported: spec.hostIP").await;
}
