//! Each call of `Api`: which request it makes, what it makes of the answer.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use kemudi_client::kinds::Pod;
use kemudi_client::{
    Api, ApiResource, DeleteOptions, Deleted, Dynamic, LabelSelector, ListOptions, LogOptions, ObjectMeta, Patch,
    RateLimit, Retries, WriteOptions, typed,
};
use serde_json::json;

use crate::table::Table;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct CronTab {
    metadata: ObjectMeta,
    spec: serde_json::Value,
}
typed!(CronTab, group "stable.example.com", version "v1", plural "crontabs", namespaced);

const POD: &str = r#"200 {"metadata":{"name":"web","namespace":"a"},"status":{"phase":"Running","podIP":"10.0.0.1"}}"#;
const DONE: &str = r#"200 {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}"#;

#[tokio::test]
async fn requests_are_made_as_kubernetes_wants_them() {
    let (client, table) = Table::client(&[
        POD,
        POD,
        r#"200 {"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"web"}}]}"#,
        r#"201 {"metadata":{"name":"c"},"spec":{}}"#,
        r#"200 {"metadata":{"name":"c"},"spec":{}}"#,
        DONE,
        r#"200 {"kind":"PodList","items":[]}"#,
        "200 one\ntwo\nthree",
        "200 one\ntwo\nthree",
        r#"201 {"status":{"token":"t"}}"#,
        r#"201 {"kind":"Status","status":"Success"}"#,
        r#"200 {"spec":{"replicas":2}}"#,
    ]);
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    assert_eq!(pods.get("web").await.unwrap().status.pod_ip, "10.0.0.1");
    let tab = CronTab { metadata: ObjectMeta::named("c"), spec: json!({"cron": "*"}) };
    let tabs: Api<CronTab> = Api::default_namespaced(client.clone());
    let merge = json!({"metadata": {"labels": {"x": null}}});
    pods.patch_with("web", &Patch::Merge(&merge), &WriteOptions { dry_run: true, ..Default::default() }).await.unwrap();
    let labels = LabelSelector::parse("app in (a,b)").unwrap();
    let some = ListOptions { labels, limit: 5, ..ListOptions::default() };
    assert_eq!(Api::<Pod>::all(client.clone()).list_with(&some).await.unwrap()[0].metadata.name, "web");
    tabs.create(&tab).await.unwrap();
    let apply = json!({"kind": "CronTab"});
    tabs.patch("c", &Patch::Apply { manager: "me", force: true, object: &apply }).await.unwrap();
    assert!(matches!(pods.delete("web").await.unwrap(), Deleted::Done(_)));
    pods.delete_collection(&DeleteOptions::default(), &ListOptions::default()).await.unwrap();
    let log = LogOptions { tail_lines: Some(3), ..LogOptions::default() };
    assert_eq!(pods.logs("web", &log).await.unwrap(), "one\ntwo\nthree");
    let lines = pods.log_lines("web", &LogOptions { follow: true, ..log }).await.unwrap();
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>().await, ["one", "two", "three"]);
    let accounts = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
    let token: Dynamic = Api::namespaced_of(client, "a", &accounts)
        .create_subresource("bot", "token", &json!({"spec": {}}))
        .await
        .unwrap();
    assert_eq!(token["status"]["token"], "t");
    let dry = WriteOptions { dry_run: true, field_manager: "me".to_string(), ..WriteOptions::default() };
    let _: Dynamic = pods.create_subresource_with("web", "eviction", &json!({"kind": "Eviction"}), &dry).await.unwrap();
    let scale: Dynamic =
        tabs.replace_subresource_with("c", "scale", &json!({"spec": {"replicas": 2}}), &dry).await.unwrap();
    assert_eq!(scale["spec"]["replicas"], 2);
    expect_test::expect![[r#"
        GET /api/v1/namespaces/a/pods/web
        PATCH /api/v1/namespaces/a/pods/web?dryRun=All (application/merge-patch+json) {"metadata":{"labels":{"x":null}}}
        GET /api/v1/pods?labelSelector=app+in+%28a%2Cb%29&limit=5
        POST /apis/stable.example.com/v1/namespaces/default/crontabs {"metadata":{"name":"c"},"spec":{"cron":"*"},"apiVersion":"stable.example.com/v1","kind":"CronTab"}
        PATCH /apis/stable.example.com/v1/namespaces/default/crontabs/c?fieldManager=me&force=true (application/apply-patch+yaml) {"kind":"CronTab"}
        DELETE /api/v1/namespaces/a/pods/web {"kind":"DeleteOptions","apiVersion":"v1"}
        DELETE /api/v1/namespaces/a/pods {"kind":"DeleteOptions","apiVersion":"v1"}
        GET /api/v1/namespaces/a/pods/web/log?tailLines=3
        GET /api/v1/namespaces/a/pods/web/log?follow=true&tailLines=3
        POST /api/v1/namespaces/a/serviceaccounts/bot/token {"spec":{}}
        POST /api/v1/namespaces/a/pods/web/eviction?dryRun=All&fieldManager=me {"kind":"Eviction"}
        PUT /apis/stable.example.com/v1/namespaces/default/crontabs/c/scale?dryRun=All&fieldManager=me {"spec":{"replicas":2}}"#]]
    .assert_eq(&table.asked());
}

/// Gets or creates a pod, and says what came of it and how many requests were sent.
async fn check(call: &str, answers: &[&str], want: &str) {
    let (client, table) = Table::client(answers);
    let tabs: Api<CronTab> = Api::namespaced(client, "a");
    let outcome = match call.split_once(' ').unwrap() {
        ("get", name) => tabs.get(name).await,
        ("create", name) => tabs.create(&CronTab { metadata: ObjectMeta::named(name), spec: json!({}) }).await,
        (other, _) => panic!("no call {other}"),
    };
    let text = match outcome {
        Ok(tab) => format!("ok {}", tab.metadata.name),
        Err(error) => error.to_string(),
    };
    let requests = table.asked().lines().count();
    assert_eq!(format!("{text} [{requests}]"), want, "{call} {answers:?}");
}

#[tokio::test]
async fn only_what_is_safe_is_repeated() {
    const OK: &str = r#"200 {"metadata":{"name":"x"},"spec":{}}"#;
    check("get x", &["lost", OK], "ok x [2]").await;
    check("create x", &["lost", OK], "the connection to the API server was lost: cut [1]").await;
    check("create x", &["429 retry-after:0 {}", OK], "ok x [2]").await;
    check("get x", &["503 retry-after:0 {}", "429 retry-after:0 {}", OK], "ok x [3]").await;
    check("get x", &["429 {}", OK], "ok x [2]").await;
    check("get x", &["504 slow", "503 away", OK], "ok x [3]").await;
    check("create x", &["429 {}", OK], "{} [1]").await;
    check("create x", &["503 retry-after:0 away", OK], "away [1]").await;
    check("create x", &["504 slow", OK], "slow [1]").await;
    check("create x", &["refused", OK], "ok x [2]").await;
    check("get x", &["lost"; 9], "the connection to the API server was lost: cut [6]").await;
    check("get x", &["503 retry-after:3600 away", OK], "away [1]").await;
    check("get x", &["500 broken", OK], "broken [1]").await;
    check("get x", &["half {", OK], "ok x [2]").await;
    check("get x", &["half {"; 9], "the connection to the API server was lost: cut [6]").await;
    check("create x", &["half {", OK], "the connection to the API server was lost: cut [1]").await;
}

#[tokio::test]
async fn answers_that_are_no_objects_are_errors_worth_reading() {
    let forbidden = r#"403 {"kind":"Status","status":"Failure","message":"pods is forbidden: User \"u\" cannot get resource \"pods\" in API group \"\" in the namespace \"a\"","reason":"Forbidden","code":403}"#;
    check(
        "get x",
        &[forbidden],
        r#"pods is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "a" [1]"#,
    )
    .await;
    check("get x", &["404 "], "Not Found [1]").await;
    check("get a/b", &[], r#"invalid resource name "a/b": it contains '/' [0]"#).await;
    check("get ..", &[], r#"invalid resource name "..": it is a relative path [0]"#).await;
    let (client, _) = Table::client(&[forbidden, "200 <html>"]);
    let pods: Api<Pod> = Api::namespaced(client, "a");
    let error = pods.get("x").await.unwrap_err();
    assert!(error.is_forbidden() && !error.is_not_found());
    assert_eq!(error.forbidden().unwrap().missing_rule(), "get pods");
    assert_eq!((error.forbidden().unwrap().user.as_str(), error.forbidden().unwrap().namespace.as_str()), ("u", "a"));
    assert_eq!(
        pods.get("x").await.unwrap_err().to_string(),
        "the answer to GET /api/v1/namespaces/a/pods/x is not kemudi_client::kinds::Pod: expected value at line 1 column 1"
    );
}

#[cfg(feature = "k8s-openapi")]
#[tokio::test]
async fn generated_types_are_resources() {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};

    let (client, table) =
        Table::client(&[r#"200 {"items":[{"metadata":{"name":"n"}}]}"#, r#"201 {"metadata":{"name":"d"}}"#]);
    let nodes = Api::<Node>::all(client.clone()).list().await.unwrap();
    assert_eq!(nodes[0].metadata.name.as_deref(), Some("n"));
    let mut deployment = Deployment::default();
    deployment.metadata.name = Some("d".to_string());
    Api::default_namespaced(client).create(&deployment).await.unwrap();
    expect_test::expect![[r#"
        GET /api/v1/nodes
        POST /apis/apps/v1/namespaces/default/deployments {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{},"template":{}}}"#]]
    .assert_eq(&table.asked());
}

/// Which of the questions an error answers with yes, and what it says about time.
#[tokio::test]
async fn errors_are_for_branching() {
    let check = async |answer: &str, want: &str| {
        let (client, _) = Table::client(&[answer]);
        let error = client.with_retries(Retries::NONE).get::<serde_json::Value>("/version").await.unwrap_err();
        let all = [
            ("not found", error.is_not_found()),
            ("exists", error.is_already_exists()),
            ("conflict", error.is_conflict()),
            ("forbidden", error.is_forbidden()),
            ("unauthorized", error.is_unauthorized()),
            ("invalid", error.is_invalid()),
            ("bad request", error.is_bad_request()),
            ("expired", error.is_expired()),
            ("too many", error.is_too_many_requests()),
            ("unavailable", error.is_unavailable()),
            ("timeout", error.is_timeout()),
            ("no such verb", error.is_method_not_allowed()),
            ("lost", error.is_lost()),
            ("unsent", error.is_unsent()),
        ];
        let mut yes: Vec<String> = all.iter().filter(|(_, yes)| *yes).map(|(word, _)| word.to_string()).collect();
        yes.extend(error.retry_after().map(|wait| format!("in {wait:?}")));
        assert_eq!(yes.join(", "), want, "{answer}");
    };
    let status = |code: u16, reason: &str| {
        format!(r#"{code} {{"kind":"Status","status":"Failure","message":"m","reason":"{reason}","code":{code}}}"#)
    };
    check(&status(404, "NotFound"), "not found").await;
    check(&status(409, "AlreadyExists"), "exists").await;
    check(&status(409, "Conflict"), "conflict").await;
    check(&status(403, "Forbidden"), "forbidden").await;
    check(&status(401, "Unauthorized"), "unauthorized").await;
    check(&status(422, "Invalid"), "invalid").await;
    check(&status(400, "BadRequest"), "bad request").await;
    check(&status(410, "Expired"), "expired").await;
    check(&status(405, "MethodNotAllowed"), "no such verb").await;
    check(&status(500, "ServerTimeout"), "timeout").await;
    check("429 retry-after:7 Too many requests, please try again later.", "too many, in 7s").await;
    check("503 retry-after:1 away", "unavailable, in 1s").await;
    check("504 slow", "timeout").await;
    check("lost", "lost").await;
    check("refused", "unsent").await;
}

#[tokio::test(start_paused = true)]
async fn requests_are_told_of_and_held_back() {
    let (client, _) = Table::client(&["503 away", POD, "lost"]);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let hear = told.clone();
    let client = client
        .with_rate_limit(RateLimit { per_second: 0.1, burst: 2 })
        .with_retries(Retries { repeats_max: 1, ..Retries::default() })
        .on_request(move |sent| {
            let ask = sent.ask().unwrap();
            let code = sent.code.map_or("-".to_string(), |code| code.as_u16().to_string());
            let line = format!(
                "{} {} {code} {} {}s",
                ask.verb.as_str(),
                ask.target.unwrap().resource,
                sent.repeat,
                sent.held_back.as_secs()
            );
            hear.lock().unwrap().push(line);
        });
    let pods: Api<Pod> = Api::namespaced(client, "a");
    pods.get("web").await.unwrap();
    pods.delete("web").await.unwrap_err();
    assert_eq!(*told.lock().unwrap(), ["get pods 503 0 0s", "get pods 200 1 0s", "delete pods - 0 9s"]);
}
