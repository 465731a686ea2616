//! What a deletion shows of its object.

use serde_json::{Value, json};
use server::Options;

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
