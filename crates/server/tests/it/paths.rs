//! Paths and methods that lead nowhere or elsewhere, forms that nobody has, and names that the server makes: as kube-apiserver 1.37
//! answers them.

use serde_json::{Value, json};
use server::Options;

use crate::Asked;

/// The code and the first line of what is said.
fn told((code, answer): (u16, Value)) -> String {
    let text = answer["message"].as_str().or(answer.as_str()).unwrap_or_default();
    format!("{code} {}", text.lines().next().unwrap_or_default()).trim_end().to_string()
}

async fn check(asked: &Asked, ask: &str, expected: &str) {
    assert_eq!(told(asked.ask(ask, None).await), expected, "{ask}");
}

#[tokio::test]
async fn who_watches_or_proxies_says_what() {
    let asked = Asked::start(Options::default()).await;
    for path in ["/api/v1/watch", "/api/v1/watch/?x=1", "/apis/apps/v1/proxy", "/apis/nope/v1/watch", "/api/v2/proxy/"]
    {
        let why = "failed to create RequestInfo: unable to determine kind and namespace from url";
        let expected = format!("500 Internal Server Error: {path:?}: {why}, {path}");
        check(&asked, &format!("GET {path}"), &expected).await;
    }
    // Two parts are no path of a resource.
    for path in ["/api/watch", "/apis/apps/watch"] {
        check(&asked, &format!("GET {path}"), "404 the server could not find the requested resource").await;
    }
}

#[tokio::test]
async fn what_is_passed_on_may_ask_for_anything() {
    let asked = Asked::start(Options::default()).await;
    let of_services = "/api/v1/namespaces/default/services/x/proxy";
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        check(&asked, &format!("{method} /api/v1/nodes/x/proxy/y"), r#"404 nodes "x" not found"#).await;
        check(&asked, &format!("{method} {of_services}"), r#"503 no endpoints available for service "x""#).await;
    }
    check(&asked, "HEAD /api/v1/nodes/x/proxy", r#"404 nodes "x" not found"#).await;
    check(&asked, "HEAD /api/v1/namespaces/default/pods/x/exec", METHOD).await;
    check(&asked, "TRACE /api/v1/nodes/x/proxy", METHOD).await;
}

const METHOD: &str = "405 the server does not allow this method on the requested resource";

#[tokio::test]
async fn a_log_is_no_picture() {
    let asked = Asked::start(Options::default()).await;
    let log = "GET /api/v1/namespaces/default/pods/nope/log";
    let nobody = "406 406: Not Acceptable";
    let errors = "406 only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    for (accept, expected) in [
        ("*/*", r#"404 pods "nope" not found"#),
        ("text/html, application/json", r#"404 pods "nope" not found"#),
        ("image/png", nobody),
        ("text/*", nobody),
        ("TEXT/PLAIN", nobody),
        ("text/plain", errors),
        ("text/plain;q=0.5,image/png", errors),
        ("application/json;as=Table;g=meta.k8s.io;v=v1", errors),
    ] {
        assert_eq!(told(asked.accepting(accept, log).await), expected, "{accept}");
    }
}

#[tokio::test]
async fn parts_of_the_server_are_selected_by_name_alone() {
    let asked = Asked::start(Options::default()).await;
    let known = r#"400 "foo" is not a known field selector: only "metadata.name", "metadata.namespace""#;
    check(&asked, "GET /api/v1/componentstatuses?fieldSelector=foo=x", known).await;
    let (code, answer) = asked.ask("GET /api/v1/componentstatuses?fieldSelector=metadata.name=etcd-0", None).await;
    assert_eq!((code, answer["items"].as_array().map(Vec::len)), (200, Some(1)));
}

#[tokio::test]
async fn names_are_made_or_measured_as_the_kind_has_it() {
    let asked = Asked::start(Options::default()).await;
    let ranges = "POST /api/v1/namespaces/default/limitranges";
    let (code, made) = asked.ask(ranges, Some(&json!({"spec": {"limits": []}}))).await;
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    assert_eq!((code, name.len()), (201, 36), "{made}");
    assert_ne!(name, made["metadata"]["uid"]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let controller = |metadata: Value| json!({"metadata": metadata, "spec": {"template": template.clone()}});
    let controllers = "POST /api/v1/namespaces/default/replicationcontrollers";
    let long = "a".repeat(254);
    let (code, answer) = asked.ask(controllers, Some(&controller(json!({"name": long})))).await;
    let text = answer["message"].as_str().unwrap_or_default();
    assert!(code == 422 && text.ends_with("must be no more than 253 bytes"), "{answer}");
    let (code, made) = asked.ask(controllers, Some(&controller(json!({"generateName": long})))).await;
    assert_eq!(code, 201, "{made}");
    let (code, answer) = asked.ask(controllers, Some(&controller(json!({"generateName": "B_"})))).await;
    let causes = answer["details"]["causes"].as_array().map(Vec::len);
    assert_eq!((code, causes), (422, Some(1)), "{answer}");
}
