//! Conversations of more than one request, put together of recorded answers: discovery in both forms, a list in pages and the
//! watch behind it, a list that a watch tells.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use kemudi_client::discovery::Discovery;
use kemudi_client::transport::full;
use kemudi_client::{
    Api, ApiResource, Body, Client, Dynamic, Event, ListOptions, Resource, Result, Retries, Transport, Watcher,
};
use serde_json::{Value, json};

use super::{Said, Sent, Step, steps};

/// A server's documents by path, in the form that is asked for where it has both.
struct Documents {
    aggregated: BTreeMap<String, Value>,
    old: BTreeMap<String, Value>,
}

impl Documents {
    /// All that the recordings have of a server without custom resources.
    fn recorded() -> Documents {
        let mut all = Documents { aggregated: BTreeMap::new(), old: BTreeMap::new() };
        let folder = steps("protocol/discovery-");
        for step in folder.iter().filter(|step| step.method == "GET" && step.code == 200) {
            let Said::Json(body) = &step.said else { continue };
            match step.header("accept") {
                None => drop(all.old.insert(step.target.clone(), body.clone())),
                Some(_) if body["kind"] == "APIGroupDiscoveryList" => {
                    all.aggregated.insert(step.target.clone(), body.clone());
                }
                Some(_) => {}
            }
        }
        // The lists of groups were sent back inside of an object, without the custom resources of other recordings.
        let inside = |file: &str| {
            let step = folder.iter().find(|step| step.name == format!("protocol/{file} step 1")).unwrap();
            let Said::Json(body) = &step.said else { panic!("{} has an answer", step.name) };
            body["data"].clone()
        };
        let mut groups = inside("discovery-aggregated-apis.json");
        groups["kind"] = json!("APIGroupDiscoveryList");
        all.aggregated.insert("/apis".to_string(), groups);
        all.old.insert("/apis".to_string(), inside("discovery-apis.json"));
        all
    }

    fn client(self) -> Client {
        Client::with_transport(Arc::new(self))
    }
}

impl Transport for Documents {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        let accept = request.headers()["accept"].to_str().unwrap();
        let path = request.uri().path();
        let aggregated = self.aggregated.get(path).filter(|_| accept.contains("APIGroupDiscoveryList"));
        let document = aggregated.or_else(|| self.old.get(path));
        let answer = match document {
            Some(document) => Response::new(full(document.to_string())),
            None => Response::builder().status(404).body(full("404 page not found\n")).unwrap(),
        };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

#[tokio::test]
async fn both_forms_of_discovery_tell_the_same() {
    let mut documents = Documents::recorded();
    let new = Discovery::fetch(&Documents::recorded().client()).await.unwrap();
    documents.aggregated.clear();
    let described: BTreeSet<String> = documents.old.keys().cloned().collect();
    let old = Discovery::fetch(&documents.client()).await.unwrap();
    let show = |discovery: &Discovery| {
        let described = discovery.resources.iter().filter(|found| {
            let resource = &found.resource;
            resource.group.is_empty() || described.contains(&format!("/apis/{}/{}", resource.group, resource.version))
        });
        let shown = described.map(|found| {
            let mut subresources = found.subresources.clone();
            subresources.sort();
            let resource = &found.resource;
            format!(
                "{} {} {} {} {} {:?} {:?} {:?} {subresources:?} {}",
                resource.api_version(),
                resource.plural,
                resource.kind,
                resource.namespaced,
                found.singular,
                found.short_names,
                found.categories,
                found.verbs,
                found.preferred
            )
        });
        shown.collect::<BTreeSet<_>>()
    };
    let (new_shown, old_shown) = (show(&new), show(&old));
    let differ: Vec<_> = new_shown.symmetric_difference(&old_shown).collect();
    assert!(differ.is_empty(), "{differ:#?}");
    let versions: BTreeSet<String> = new.resources.iter().map(|found| found.resource.api_version()).collect();
    let words = ["po", "deploy", "events", "ev.events.k8s.io", "hpa", "crd", "ing", "sa", "bindings", "cs", "frobnitz"];
    let mut meant = String::new();
    for word in words {
        let resource =
            new.resolve(word).map(|found| format!("{} {}", found.resource.api_version(), found.resource.plural));
        meant += &format!("{word}: {}\n", resource.unwrap_or_else(|error| error.to_string()));
    }
    expect_test::expect![[r#"
        72 resources of 23 versions
        po: v1 pods
        deploy: apps/v1 deployments
        events: v1 events
        ev.events.k8s.io: events.k8s.io/v1 events
        hpa: autoscaling/v2 horizontalpodautoscalers
        crd: apiextensions.k8s.io/v1 customresourcedefinitions
        ing: networking.k8s.io/v1 ingresses
        sa: v1 serviceaccounts
        bindings: v1 bindings
        cs: v1 componentstatuses
        frobnitz: the server doesn't have a resource type "frobnitz"
    "#]]
    .assert_eq(&format!("{} resources of {} versions\n{meant}", new.resources.len(), versions.len()));
}

/// Recorded answers, one after the other; after the last the server is gone for good.
struct Script {
    answers: Mutex<VecDeque<Arc<Step>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn client(of: &[&str]) -> (Client, Arc<Script>) {
        let answers = of.iter().map(|name| {
            let file = name.split(' ').next().unwrap();
            steps(file).into_iter().find(|step| step.name == *name).unwrap_or_else(|| panic!("no {name}"))
        });
        let script = Arc::new(Script { answers: Mutex::new(answers.collect()), asked: Mutex::default() });
        (Client::with_transport(script.clone()).with_retries(Retries::NONE), script)
    }
}

impl Transport for Script {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        let query = request.uri().query().unwrap_or_default().to_string();
        self.asked.lock().unwrap().push(query);
        let answer = match self.answers.lock().unwrap().pop_front() {
            Some(step) => step.answer(),
            None => Response::builder().status(403).body(full("no more")).unwrap(),
        };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

async fn told(mut watcher: Watcher<Dynamic>) -> String {
    let mut out = String::new();
    loop {
        let word = match watcher.next().await {
            Ok(Event::Init) => "init".to_string(),
            Ok(Event::InitApplied(object)) => format!("={}", object.name()),
            Ok(Event::InitDone) => "done".to_string(),
            Ok(Event::Applied(object)) => format!("~{}", object.name()),
            Ok(Event::Deleted(object)) => format!("-{}", object.name()),
            Err(error) => format!("! {error}"),
        };
        out += &word;
        if word == "! no more" {
            return out;
        }
        out.push(' ');
    }
}

fn api(client: Client, group: &'static str, kind: &'static str, plural: &'static str) -> Api<Dynamic> {
    Api::namespaced_of(client, "one", &ApiResource::new(group, "v1", kind, plural, true))
}

#[tokio::test(start_paused = true)]
async fn a_recorded_list_in_pages_is_watched_on() {
    let (client, script) = Script::client(&[
        "lists/paging.json step 5",
        "lists/paging.json step 9",
        "lists/paging.json step 10",
        "lists/watch-history.json step 11",
    ]);
    let leases = api(client, "coordination.k8s.io", "Lease", "leases");
    let told = told(leases.watcher(&ListOptions::default()).with_lists()).await;
    expect_test::expect!["init =a =b =c =d =e done ~a ~b ~a -b ~a -a ! no more"].assert_eq(&told);
    expect_test::expect![[r#"
        limit=500
        limit=500&continue=bmV4dA
        limit=500&continue=bmV4dA
        resourceVersion=77&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        resourceVersion=77&timeoutSeconds=290&allowWatchBookmarks=true&watch=true"#]]
    .assert_eq(&script.asked.lock().unwrap().join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_recorded_list_that_a_watch_tells_is_watched_on() {
    // The recorded watch ends where its second was over.
    let (client, script) = Script::client(&["lists/watch-list.json step 3", "lists/watch-history.json step 11"]);
    let leases = api(client, "coordination.k8s.io", "Lease", "leases");
    let told = told(leases.watcher(&ListOptions::default())).await;
    expect_test::expect!["init =a =b done ~a ~b ~a -b ~a -a ! no more"].assert_eq(&told);
    expect_test::expect![[r#"
        resourceVersionMatch=NotOlderThan&timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true&watch=true
        resourceVersion=77&timeoutSeconds=290&allowWatchBookmarks=true&watch=true
        resourceVersion=77&timeoutSeconds=290&allowWatchBookmarks=true&watch=true"#]]
    .assert_eq(&script.asked.lock().unwrap().join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_to_tell_lists_is_asked_for_them() {
    let refusals = steps("lists/watch-list-errors.json");
    let refused = refusals.iter().filter(|step| step.code == 422).count();
    assert!(refused > 0, "there are refusals");
    for refusal in refusals.iter().filter(|step| step.code == 422) {
        let (client, script) = Script::client(&[&refusal.name, "lists/paging.json step 10"]);
        assert!(matches!(refusal.body, Sent::Nothing));
        let told = told(api(client, "", "Secret", "secrets").watcher(&ListOptions::default())).await;
        assert_eq!(told, "init =e ! no more", "{}", refusal.name);
        assert_eq!(script.asked.lock().unwrap()[1], "limit=500");
    }
}
