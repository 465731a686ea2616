//! How far back lists and watches reach.

use std::time::Duration;

use serde_json::{Value, json};
use server::Options;
use server::objects::HistoryLimits;

use crate::Asked;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_three_maps(history: HistoryLimits) -> Asked {
    let asked = Asked::start(Options { history, ..Options::default() }).await;
    for name in ["a", "b", "c"] {
        create(&asked, name).await;
    }
    asked
}

async fn create(asked: &Asked, name: &str) -> Value {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let (code, made) = asked.ask(&format!("POST {MAPS}"), Some(&body)).await;
    assert_eq!(code, 201, "{made}");
    made
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

/// The list goes on as it was while it is remembered; then it is told how to go on with what there is.
async fn check_expiry(asked: &Asked, expire: impl AsyncFn()) {
    let (_, first) = asked.ask(&format!("GET {MAPS}?limit=1"), None).await;
    assert_eq!(names(&first), ["a"]);
    let token = first["metadata"]["continue"].as_str().expect("a token").to_string();
    asked.ask(&format!("DELETE {MAPS}/b"), None).await;
    let (_, rest) = asked.ask(&format!("GET {MAPS}?limit=5&continue={token}"), None).await;
    assert_eq!(names(&rest), ["b", "c"], "the list is of one moment");
    expire().await;
    let (code, gone) = asked.ask(&format!("GET {MAPS}?limit=5&continue={token}"), None).await;
    assert_eq!((code, gone["reason"].as_str()), (410, Some("Expired")), "{gone}");
    let text = gone["message"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("The provided continue parameter is too old to display a consistent list result."),
        "{text}"
    );
    let token = gone["metadata"]["continue"].as_str().expect("a token that goes on all the same");
    let (code, rest) = asked.ask(&format!("GET {MAPS}?limit=5&continue={token}"), None).await;
    assert_eq!((code, names(&rest)), (200, vec!["c"]), "what there is now, behind the first page");
    let revision = &first["metadata"]["resourceVersion"].as_str().expect("a revision");
    let exact = format!("GET {MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    let (code, gone) = asked.ask(&exact, None).await;
    assert_eq!((code, gone["reason"].as_str()), (410, Some("Expired")), "{gone}");
    let (_, event) = asked.ask(&format!("GET {MAPS}?watch=1&resourceVersion={revision}"), None).await;
    assert_eq!(event["code"], 410, "{event}");
}

#[tokio::test]
async fn lists_go_on_until_their_state_is_forgotten_for_its_number() {
    let asked = with_three_maps(HistoryLimits { changes_max: 4, ..HistoryLimits::default() }).await;
    check_expiry(&asked, async || {
        for name in ["d0", "d1", "d2", "d3", "d4"] {
            create(&asked, name).await;
            asked.ask(&format!("DELETE {MAPS}/{name}"), None).await;
        }
    })
    .await;
}

#[tokio::test]
async fn lists_go_on_until_their_state_is_forgotten_for_its_bytes() {
    let asked = with_three_maps(HistoryLimits { bytes_max: 4096, ..HistoryLimits::default() }).await;
    check_expiry(&asked, async || {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"x": "x".repeat(8192)}});
        asked.ask(&format!("POST {MAPS}"), Some(&body)).await;
        asked.ask(&format!("DELETE {MAPS}/d"), None).await;
    })
    .await;
}

/// The clock is the test's: it moves on when everybody waits for it.
#[tokio::test(start_paused = true)]
async fn lists_go_on_until_their_state_is_forgotten_for_its_time() {
    let time = Duration::from_secs(300);
    let asked = with_three_maps(HistoryLimits { time, ..HistoryLimits::default() }).await;
    check_expiry(&asked, async || forgotten(time * 2).await).await;
}

/// Lets a time pass on the clock of the test, step by step, so that everything in between happens.
async fn forgotten(time: Duration) {
    const STEPS: u32 = 8;
    for _ in 0..STEPS {
        tokio::time::advance(time / STEPS).await;
        tokio::task::yield_now().await;
    }
}
