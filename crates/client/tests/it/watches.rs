//! Watches and watchers: what they ask, what they tell.

use futures_util::StreamExt;
use kemudi_client::kinds::Pod;
use kemudi_client::{Api, Event, ListOptions, Metadata, ObjectKey, Resource, Retries, Store, WatchEvent};

use crate::table::Table;

fn show(event: &Result<WatchEvent<Pod>, kemudi_client::Error>) -> String {
    match event {
        Ok(WatchEvent::Added(pod)) => format!("+{}", pod.name()),
        Ok(WatchEvent::Modified(pod)) => format!("~{}", pod.name()),
        Ok(WatchEvent::Deleted(pod)) => format!("-{}", pod.name()),
        Ok(WatchEvent::Bookmark { resource_version, .. }) => format!("@{resource_version}"),
        Err(error) => format!("! {error}"),
    }
}

fn line(event: &str, name: &str, version: u64) -> String {
    format!(r#"{{"type":"{event}","object":{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}}}"#)
}

fn lines(lines: &[String]) -> String {
    format!("200 {}\n", lines.join("\n"))
}

const EXPIRED: &str = r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"too old resource version: 9 (12)","reason":"Expired","code":410}}"#;

#[tokio::test]
async fn a_watch_goes_on_where_it_was_cut() {
    let first = lines(&[line("ADDED", "a", 5), line("BOOKMARK", "", 9)]);
    let (client, table) = Table::client(&[&first, &lines(&[line("DELETED", "a", 11)]), &lines(&[EXPIRED.into()])]);
    let pods: Api<Pod> = Api::namespaced(client, "a");
    let watch = pods.watch(&ListOptions { resource_version: Some(4), ..ListOptions::default() }).await.unwrap();
    let told: Vec<String> = watch.into_stream().map(|event| show(&event)).collect().await;
    assert_eq!(told, ["+a", "@9", "-a", "! too old resource version: 9 (12)"]);
    expect_test::expect![[r#"
        GET /api/v1/namespaces/a/pods?resourceVersion=4&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        GET /api/v1/namespaces/a/pods?resourceVersion=9&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        GET /api/v1/namespaces/a/pods?resourceVersion=11&timeoutSeconds=290&allowWatchBookmarks=true&watch=true"#]]
    .assert_eq(&table.asked());
}

/// The events of a watcher, as far as these answers lead, and what it asked.
async fn watched(answers: &[&str], events: usize) -> (Vec<String>, String) {
    let (client, table) = Table::client(answers);
    let client = client.with_retries(Retries::NONE);
    let mut watcher = Api::<Pod>::all(client).watcher(&ListOptions::default());
    let mut told = Vec::new();
    for _ in 0..events {
        told.push(match watcher.next().await {
            Ok(Event::Init) => "init".to_string(),
            Ok(Event::InitApplied(pod)) => format!("={}", pod.name()),
            Ok(Event::InitDone) => "done".to_string(),
            Ok(Event::Applied(pod)) => format!("~{}", pod.name()),
            Ok(Event::Deleted(pod)) => format!("-{}", pod.name()),
            Err(error) => format!("! {error}"),
        });
    }
    (told, table.asked().replace("/api/v1/pods?", ""))
}

/// What a server says that knows the words, and does not tell lists by watches.
const REFUSED: &str = r#"422 {"kind":"Status","status":"Failure","message":"sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled","reason":"Invalid","code":422}"#;
const END: &str = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_all_objects_by_its_watch() {
    let first = lines(&[
        line("ADDED", "a", 3),
        line("ADDED", "b", 5),
        line("ADDED", "c", 5),
        line("DELETED", "b", 6),
        line("DELETED", "c", 6),
        line("ADDED", "c", 7),
        END.into(),
        line("MODIFIED", "a", 8),
    ]);
    let (told, asked) = watched(
        &[
            &first,
            &lines(&[line("DELETED", "a", 9), EXPIRED.into()]),
            &lines(&[line("ADDED", "c", 7)]),
            &lines(&[line("ADDED", "d", 7)]),
            r#"200 {"metadata":{"resourceVersion":"12"},"items":[{"metadata":{"name":"d"}}]}"#,
            "429 retry-after:3 {}",
        ],
        17,
    )
    .await;
    let want = [
        "init",
        "=a",
        "=b",
        "=c",
        "=c",
        "done",
        "-b",
        "~a",
        "-a",
        "init",
        "=c",
        "! the connection to the API server was lost: the watch ended before it told a revision to go on from",
        "init",
        "=d",
        "! the connection to the API server was lost: the watch ended before it told a revision to go on from",
        "init",
        "=d",
    ];
    assert_eq!(told, want);
    expect_test::expect![[r#"
        GET resourceVersionMatch=NotOlderThan&timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true&watch=true
        GET resourceVersion=8&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        GET resourceVersionMatch=NotOlderThan&timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true&watch=true
        GET resourceVersionMatch=NotOlderThan&timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true&watch=true
        GET limit=500"#]]
    .assert_eq(&asked);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_tells_no_end_of_its_list_is_not_waited_for() {
    let page = r#"200 {"metadata":{"resourceVersion":"12"},"items":[{"metadata":{"name":"a"}}]}"#;
    let open = format!("open {}\n", line("ADDED", "a", 3));
    let (told, asked) = watched(&[&open, page, "403 no"], 5).await;
    assert_eq!(told, ["init", "=a", "init", "=a", "! no"]);
    assert_eq!(asked.lines().nth(1), Some("GET limit=500"));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_waits_as_long_as_it_is_told_to() {
    let started = tokio::time::Instant::now();
    let (told, _) = watched(&["429 retry-after:60 full", "403 no"], 2).await;
    assert_eq!(told, ["! full", "! no"]);
    assert!(started.elapsed() >= std::time::Duration::from_secs(60), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_lists_in_pages_where_watches_tell_no_lists() {
    let page = |continues: &str, name: &str, version: u64| {
        format!(
            r#"200 {{"metadata":{{"resourceVersion":"{version}","continue":"{continues}"}},"items":[{{"metadata":{{"name":"{name}"}}}}]}}"#
        )
    };
    let (told, asked) = watched(
        &[
            REFUSED,
            &page("more", "a", 3),
            &page("", "b", 3),
            &lines(&[line("MODIFIED", "a", 4), EXPIRED.into()]),
            &page("", "c", 12),
            &lines(&[line("DELETED", "c", 13)]),
            "403 no",
        ],
        10,
    )
    .await;
    assert_eq!(told, ["init", "=a", "=b", "done", "~a", "init", "=c", "done", "-c", "! no"]);
    expect_test::expect![[r#"
        GET resourceVersionMatch=NotOlderThan&timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true&watch=true
        GET limit=500
        GET limit=500&continue=more
        GET resourceVersion=3&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        GET limit=500
        GET resourceVersion=12&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        GET resourceVersion=13&timeoutSeconds=290&allowWatchBookmarks=true&watch=true"#]]
    .assert_eq(&asked);
}

#[tokio::test(start_paused = true)]
async fn a_store_holds_what_the_watcher_tells() {
    let pod = |event: &str, name: &str, node: &str| {
        format!(
            r#"{{"type":"{event}","object":{{"metadata":{{"name":"{name}","namespace":"x","resourceVersion":"7"}},"spec":{{"nodeName":"{node}"}}}}}}"#
        )
    };
    let (client, _) = Table::client(&[
        "403 no",
        &lines(&[pod("ADDED", "a", "n1"), pod("ADDED", "b", "n1"), END.into(), EXPIRED.into()]),
        &lines(&[pod("ADDED", "b", "n2"), pod("ADDED", "c", "n2"), END.into(), pod("DELETED", "c", "n2")]),
    ]);
    let pods = Api::<Pod>::all(client.with_retries(Retries::NONE));
    let builder = Store::<Pod>::builder().index("node", |pod| vec![pod.spec.node_name.clone()]);
    let mut reflector = builder.reflector(&pods, &ListOptions::default());
    let store = reflector.store();
    let show = || {
        let names = |pods: Vec<std::sync::Arc<Pod>>| {
            let mut names: Vec<String> = pods.iter().map(|pod| pod.name().to_string()).collect();
            names.sort();
            names.join("")
        };
        format!(
            "{}: {}, {}",
            names(store.all()),
            names(store.by_index("node", "n1")),
            names(store.by_index("node", "n2"))
        )
    };
    assert!(reflector.next().await.is_err());
    assert_eq!(store.ready().await.unwrap_err().to_string(), "no");
    let mut told = Vec::new();
    for _ in 0..9 {
        reflector.next().await.unwrap();
        told.push(show());
    }
    assert!(store.ready().await.is_ok() && store.is_ready());
    let want = [": , ", "a: a, ", "ab: ab, ", "ab: ab, ", "ab: ab, ", "ab: a, b", "abc: a, bc", "bc: , bc", "b: , b"];
    assert_eq!(told, want);
    assert_eq!(store.find("x", "b").unwrap().spec.node_name, "n2");
    assert!(store.find("x", "a").is_none() && store.by_index("other", "n1").is_empty());
    assert_eq!((store.len(), ObjectKey::new("x", "b").to_string().as_str()), (1, "x/b"));
}

#[tokio::test]
async fn metadata_is_asked_for_alone() {
    let (client, table) = Table::client(&[
        r#"200 {"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a","labels":{"x":"y"}}}]}"#,
        &lines(&[line("ADDED", "a", 5)]),
    ]);
    let pods = Api::<Metadata<Pod>>::all(client);
    assert_eq!(pods.list().await.unwrap()[0].metadata.labels.get("x"), Some("y"));
    let told = pods.watch(&ListOptions::default()).await.unwrap().next().await.unwrap().unwrap();
    assert!(matches!(told, WatchEvent::Added(pod) if pod.name() == "a"));
    expect_test::expect![[r#"
        application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json
        application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"#]]
    .assert_eq(&table.accepted());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_object_ends_when_it_is_as_wanted() {
    let ready =
        r#"{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"9"},"status":{"phase":"Running"}}}"#;
    let (client, table) = Table::client(&[
        &lines(&[line("ADDED", "a", 5), END.into(), line("MODIFIED", "a", 8), ready.into()]),
        &lines(&[END.into()]),
        "403 no",
    ]);
    let pods = Api::<Pod>::namespaced(client.with_retries(Retries::NONE), "x");
    let pod = pods.wait_until("a", |pod| pod.is_some_and(|pod| pod.status.phase == "Running")).await.unwrap();
    assert_eq!(pod.unwrap().metadata.resource_version, "9");
    assert!(pods.wait_until("a", |pod| pod.is_none()).await.unwrap().is_none());
    assert!(pods.wait_until("a", |pod| pod.is_some()).await.unwrap_err().is_forbidden());
    assert!(table.asked().contains("fieldSelector=metadata.name%3Da"));
}
