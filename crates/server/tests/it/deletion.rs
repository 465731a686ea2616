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

/// What becomes of dependents is said by the request, else by the finalizers that are there already.
#[tokio::test]
async fn a_later_deletion_says_anew_what_becomes_of_dependents() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let asked = Asked::start(Options::default()).await;
    for (finalizers, options, left) in [
        (vec!["a/b", "orphan"], json!({}), "a/b orphan"),
        (vec!["a/b", "foregroundDeletion"], json!({}), "a/b foregroundDeletion"),
        (vec!["a/b", "orphan"], json!({"propagationPolicy": "Background"}), "a/b"),
        (vec!["a/b", "foregroundDeletion"], json!({"orphanDependents": false}), "a/b"),
        (vec!["a/b", "foregroundDeletion"], json!({"propagationPolicy": "Orphan"}), "a/b orphan"),
        (vec!["orphan", "a/b"], json!({"propagationPolicy": "Orphan"}), "orphan a/b"),
        (vec!["a/b"], json!({"propagationPolicy": "Foreground"}), "a/b foregroundDeletion"),
        (vec!["orphan"], json!({"propagationPolicy": "Background"}), ""),
    ] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": finalizers}});
        assert_eq!(asked.ask(&format!("POST {MAPS}"), Some(&map)).await.0, 201);
        asked.ask(&format!("DELETE {MAPS}/a"), Some(&options)).await;
        let (_, shown) = asked.ask(&format!("GET {MAPS}/a"), None).await;
        let kept = shown["metadata"]["finalizers"].as_array().into_iter().flatten();
        assert_eq!(kept.filter_map(Value::as_str).collect::<Vec<_>>().join(" "), left, "{finalizers:?} {options}");
        let none = json!({"metadata": {"finalizers": null}});
        asked.patching("application/merge-patch+json", &format!("PATCH {MAPS}/a"), &none).await;
    }
}

/// Nothing depends on events.
#[tokio::test]
async fn events_wait_for_no_dependents() {
    const EVENTS: &str = "/api/v1/namespaces/default/events";
    let asked = Asked::start(Options::default()).await;
    let of = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": of});
    assert_eq!(asked.ask(&format!("POST {EVENTS}"), Some(&event)).await.0, 201);
    asked.ask(&format!("DELETE {EVENTS}/a?propagationPolicy=Foreground"), None).await;
    assert_eq!(asked.ask(&format!("GET {EVENTS}/a"), None).await.0, 404);
}

/// A deletion of what cannot be read deletes nothing that can be.
#[tokio::test]
async fn what_can_be_read_is_not_deleted_unseen() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let asked = Asked::start(Options::default()).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    asked.ask(&format!("POST {MAPS}"), Some(&map)).await;
    let options = json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true});
    let in_query = format!("DELETE {MAPS}/a?ignoreStoreReadErrorWithClusterBreakingPotential=true");
    for (ask, body) in [(format!("DELETE {MAPS}/a"), Some(&options)), (in_query, None)] {
        let (code, answer) = asked.ask(&ask, body).await;
        let told = answer["message"].as_str().unwrap_or_default();
        assert_eq!(code, 409);
        assert!(
            told.ends_with("unsafe deletion is not allowed because the object is decodable from storage"),
            "{told}"
        );
    }
    assert_eq!(asked.ask(&format!("GET {MAPS}/a"), None).await.0, 200);
}

/// `uid` and `resourceVersion` in the query, where the fields are `preconditions.uid` and so on in a body.
#[tokio::test]
async fn preconditions_are_taken_from_the_query_too() {
    let asked = Asked::start(Options::default()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    asked.ask(&format!("POST {maps}"), Some(&body)).await;
    for (query, want) in
        [("uid=x", 409), ("resourceVersion=1", 409), ("preconditions.uid=x&dryRun=All", 200), ("", 200)]
    {
        assert_eq!(asked.ask(&format!("DELETE {maps}/a?{query}"), None).await.0, want, "{query}");
    }
}

/// Whose dependents are to go the old way is told that it goes on; a namespace then waits for them.
#[tokio::test]
async fn what_waits_is_accepted_where_no_orphans_are_asked_for() {
    let asked = Asked::start(Options::default()).await;
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "orphanDependents": false});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["a.io/b"]}});
    asked.ask("POST /api/v1/namespaces/default/configmaps", Some(&map)).await;
    let (code, _) = asked.ask("DELETE /api/v1/namespaces/default/configmaps/a", Some(&options)).await;
    assert_eq!(code, 202);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    asked.ask("POST /api/v1/namespaces", Some(&namespace)).await;
    let (code, shown) = asked.ask("DELETE /api/v1/namespaces/n", Some(&options)).await;
    assert_eq!((code, &shown["metadata"]["finalizers"]), (202, &json!(["foregroundDeletion"])));
    // What has begun is not changed by another deletion.
    let (_, shown) = asked.ask("DELETE /api/v1/namespaces/n?propagationPolicy=Orphan", None).await;
    assert_eq!(shown["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

/// A pod that waits for its grace period waits on as it does, unless it is to wait less long.
#[tokio::test]
async fn a_deletion_that_waits_is_only_ever_shortened() {
    let asked = Asked::start(Options::default()).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    asked.ask("POST /api/v1/namespaces/default/serviceaccounts", Some(&account)).await;
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    asked.ask("POST /api/v1/namespaces/default/pods", Some(&pod)).await;
    for (query, finalizers, seconds) in [
        ("propagationPolicy=Orphan", json!(["orphan"]), 30),
        ("propagationPolicy=Background", json!(["orphan"]), 30),
        ("propagationPolicy=Background&gracePeriodSeconds=40", json!(["orphan"]), 30),
        ("propagationPolicy=Background&gracePeriodSeconds=20", Value::Null, 20),
    ] {
        let (code, shown) = asked.ask(&format!("DELETE /api/v1/namespaces/default/pods/p?{query}"), None).await;
        let metadata = &shown["metadata"];
        let shown = (&metadata["finalizers"], &metadata["deletionGracePeriodSeconds"]);
        assert_eq!((code, shown), (200, (&finalizers, &json!(seconds))), "{query}");
    }
}
