//! What a deletion shows of its object.

use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::Options;
use server::authn::MASTERS;

use crate::Asked;

#[tokio::test]
async fn an_object_that_would_wait_is_shown_in_gos_order() {
    let asked = Asked::start(Options::default()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"b": "c"}}});
    asked.ask(&format!("POST {maps}"), Some(&body)).await;
    for dry_run in ["&dryRun=All", ""] {
        let (_, shown) = asked.ask(&format!("DELETE {maps}/a?propagationPolicy=Foreground{dry_run}"), None).await;
        let metadata = shown["metadata"].as_object().into_iter().flat_map(|metadata| metadata.keys());
        let order: Vec<&str> = metadata.map(String::as_str).filter(|key| *key != "uid").collect();
        let want = "name namespace resourceVersion creationTimestamp deletionTimestamp deletionGracePeriodSeconds labels \
                    finalizers managedFields";
        assert_eq!(order.join(" "), want, "{}", Value::to_string(&shown));
    }
}

/// A node takes a pod away as soon as it sees that it may. Whose deletion it saw is told of success nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_deletes_without_grace_succeeds_though_a_node_is_faster() {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    const COUNT: usize = 300;
    let asked = Arc::new(Asked::start(Options::default()).await);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    asked.ask("POST /api/v1/namespaces/default/serviceaccounts", Some(&account)).await;
    let watch = asked.send("node", &[MASTERS], &format!("GET {PODS}?watch=1"), None).await;
    let node = tokio::spawn({
        let (asked, mut events) = (asked.clone(), watch.into_body());
        async move {
            let mut text = Vec::new();
            while let Some(Ok(frame)) = events.frame().await {
                text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                for line in
                    text.drain(..end).collect::<Vec<u8>>().split(|byte| *byte == b'\n').filter(|it| !it.is_empty())
                {
                    let event: Value = serde_json::from_slice(line).expect("an event");
                    if event["type"] == "MODIFIED" && event["object"]["metadata"]["deletionTimestamp"].is_string() {
                        let name = event["object"]["metadata"]["name"].as_str().expect("a name");
                        asked.ask(&format!("DELETE {PODS}/{name}?gracePeriodSeconds=0"), None).await;
                    }
                }
            }
        }
    });
    for number in 0..COUNT {
        let name = format!("p{number}");
        let spec = json!({"nodeName": "node", "containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        let (code, answer) = asked.ask(&format!("POST {PODS}"), Some(&pod)).await;
        assert_eq!(code, 201, "{answer}");
        let (code, answer) = asked.ask(&format!("DELETE {PODS}/{name}?gracePeriodSeconds=0"), None).await;
        assert_eq!((code, answer["kind"].as_str()), (200, Some("Pod")), "{name}: {answer}");
    }
    node.abort();
}
