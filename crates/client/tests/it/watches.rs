//! Watches and watchers: what they ask, what they tell.

use futures_util::StreamExt;
use kemudi_client::kinds::Pod;
use kemudi_client::{Api, Event, ListOptions, Resource, WatchEvent};

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

#[tokio::test]
async fn a_watcher_lists_in_pages_and_lists_again_when_history_is_gone() {
    let page = |continues: &str, name: &str, version: u64| {
        format!(
            r#"200 {{"metadata":{{"resourceVersion":"{version}","continue":"{continues}"}},"items":[{{"metadata":{{"name":"{name}"}}}}]}}"#
        )
    };
    let (client, table) = Table::client(&[
        &page("more", "a", 3),
        &page("", "b", 3),
        &lines(&[line("MODIFIED", "a", 4), EXPIRED.into()]),
        &page("", "c", 12),
        &lines(&[line("DELETED", "c", 13)]),
        "403 no",
    ]);
    let mut watcher = Api::<Pod>::all(client).watcher(&ListOptions::default());
    let mut told = Vec::new();
    for _ in 0..10 {
        told.push(match watcher.next().await {
            Ok(Event::Init) => "init".to_string(),
            Ok(Event::InitApplied(pod)) => format!("={}", pod.name()),
            Ok(Event::InitDone) => "done".to_string(),
            Ok(Event::Applied(pod)) => format!("~{}", pod.name()),
            Ok(Event::Deleted(pod)) => format!("-{}", pod.name()),
            Err(error) => format!("! {error}"),
        });
    }
    assert_eq!(told, ["init", "=a", "=b", "done", "~a", "init", "=c", "done", "-c", "! no"]);
    expect_test::expect![[r#"
        GET /api/v1/pods?limit=500
        GET /api/v1/pods?limit=500&continue=more
        GET /api/v1/pods?resourceVersion=3&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        GET /api/v1/pods?limit=500
        GET /api/v1/pods?resourceVersion=12&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        GET /api/v1/pods?resourceVersion=13&timeoutSeconds=290&allowWatchBookmarks=true&watch=true"#]]
    .assert_eq(&table.asked());
}
