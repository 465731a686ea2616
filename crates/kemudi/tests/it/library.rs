//! The client library's caches, controllers, elections and events, against a real server in this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kemudi::Cluster;
use kemudi_client::config::{Ca, Config, Credentials, Pem, Server};
use kemudi_client::kinds::{ConfigMap, Namespace};
use kemudi_client::lease::Times;
use kemudi_client::transport::full;
use kemudi_client::{
    Action, Api, ApiResource, Body, Client, Controller, Dynamic, Election, Error, EventType, Finalizer, Led,
    ListOptions, Metadata, ObjectKey, Patch, Recorder, Resource, Result, Store, Transport, Typed, finalizer, owned_by,
};
use serde_json::{Value, json};

const MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
/// Longest wait for something that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

async fn make(client: &Client, name: &str, data: Value) {
    let map = json!({"metadata": {"name": name, "labels": {"kept": "yes"}}, "data": data});
    maps(client).create(&Dynamic(map)).await.unwrap();
}

fn maps(client: &Client) -> Api<Dynamic> {
    Api::namespaced_of(client.clone(), "default", &MAPS)
}

fn kept() -> ListOptions {
    ListOptions { labels: kemudi_client::LabelSelector::parse("kept").unwrap(), ..ListOptions::default() }
}

/// Waits until something is so.
#[track_caller]
fn eventually<'a>(what: &'a str, so: impl Fn() -> bool + 'a) -> impl Future<Output = ()> + 'a {
    let place = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while !so() {
            look.tick().await;
            assert!(started.elapsed() < PATIENCE, "{what} never came ({place})");
        }
    }
}

#[tokio::test]
async fn a_store_is_a_moment_late_and_complete() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.admin();
    make(&client, "a", json!({"of": "x"})).await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let by_of = |map: &ConfigMap| map.data.get("of").cloned().into_iter().collect();
    let store = Store::builder().index("of", by_of).follow(&api, &kept());
    store.ready().await.unwrap();
    assert_eq!(store.find("default", "a").unwrap().data["of"], "x");
    make(&client, "b", json!({"of": "x"})).await;
    eventually("b", || store.by_index("of", "x").len() == 2).await;
    maps(&client).patch("a", &Patch::Merge(&json!({"data": {"of": "y"}}))).await.unwrap();
    eventually("the change", || store.by_index("of", "y").len() == 1 && store.by_index("of", "x").len() == 1).await;
    maps(&client).delete("b").await.unwrap();
    eventually("the deletion", || store.len() == 1).await;

    // The server sends the metadata alone, and refuses as it refuses anybody.
    let names = Store::follow(&Api::<Metadata<ConfigMap>>::namespaced(client, "default"), &kept());
    names.ready().await.unwrap();
    assert_eq!(names.all()[0].metadata.labels.get("kept"), Some("yes"));
    let nobody = Store::follow(&Api::<Namespace>::all(cluster.client_as("ann")), &ListOptions::default());
    assert_eq!(nobody.ready().await.unwrap_err().forbidden().unwrap().missing_rule(), "watch namespaces");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_controller_keeps_what_it_promises() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.admin();
    make(&client, "one", json!({})).await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    // How often each was looked at, and which are being looked at now.
    let looks: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let busy: Arc<Mutex<Vec<String>>> = Arc::default();
    let failures = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controller = Controller::of(api.clone(), &kept())
        .owns(Api::<Metadata<ConfigMap>>::namespaced(client.clone(), "default"))
        .concurrency(3)
        .until(async move { _ = stopped.await });
    let reconcile = {
        let (api, looks, busy) = (api.clone(), looks.clone(), busy.clone());
        move |map: Arc<ConfigMap>| {
            let (api, looks, busy) = (api.clone(), looks.clone(), busy.clone());
            async move {
                let name = map.metadata.name.clone();
                {
                    let mut busy = busy.lock().unwrap();
                    assert!(!busy.contains(&name) && busy.len() < 3, "{name} beside {busy:?}");
                    busy.push(name.clone());
                }
                let look = {
                    let mut looks = looks.lock().unwrap();
                    let look = looks.entry(name.clone()).or_default();
                    *look += 1;
                    *look
                };
                let outcome = async {
                    if map.data.contains_key("fails") && look < 3 {
                        return Err(Error::Request("not yet".to_string()));
                    }
                    if map.data.contains_key("again") && look < 3 {
                        return Ok(Action::again_after(Duration::from_millis(50)));
                    }
                    let child = json!({
                        "apiVersion": "v1", "kind": "ConfigMap",
                        "metadata": {"name": format!("{name}-child"), "ownerReferences": [owned_by(&MAPS, &*map)]},
                    });
                    let apply = Patch::Apply { manager: "test", force: true, object: &child };
                    api.patch(&format!("{name}-child"), &apply).await.map(|_| Action::done())
                }
                .await;
                busy.lock().unwrap().retain(|other| *other != name);
                outcome
            }
        }
    };
    let failed = failures.clone();
    let running = tokio::spawn(controller.run(reconcile, move |map: &ConfigMap, error: &Error| {
        assert_eq!((map.metadata.name.as_str(), error.to_string().as_str()), ("failing", "not yet"));
        failed.fetch_add(1, Ordering::SeqCst);
    }));
    let children =
        Store::follow(&Api::<Metadata<ConfigMap>>::namespaced(client.clone(), "default"), &ListOptions::default());
    let has = |name: &str| children.find("default", &format!("{name}-child")).is_some();
    eventually("the first child", || has("one")).await;

    // What fails comes back after a pause, and is told of; what asks to come back does.
    make(&client, "failing", json!({"fails": "twice"})).await;
    make(&client, "again", json!({"again": "twice"})).await;
    eventually("the child after failures", || has("failing")).await;
    eventually("the child after its times", || has("again")).await;
    assert_eq!(failures.load(Ordering::SeqCst), 2);

    // What is owned is put back, and is another one.
    let uid = children.find("default", "one-child").unwrap().metadata.uid.clone();
    maps(&client).delete("one-child").await.unwrap();
    eventually("the child again", || {
        children.find("default", "one-child").is_some_and(|child| child.metadata.uid != uid)
    })
    .await;

    for number in 0..20 {
        make(&client, &format!("many-{number}"), json!({})).await;
    }
    eventually("twenty children", || (0..20).all(|number| has(&format!("many-{number}")))).await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_controller_that_may_not_watch_says_so() {
    let cluster = Cluster::start().await.unwrap();
    let controller = Controller::new(Api::<Namespace>::all(cluster.client_as("ann")));
    let outcome = controller.run(async |_| Ok::<_, Error>(Action::done()), |_, _| {}).await;
    assert!(outcome.unwrap_err().is_forbidden());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_cleared_away() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.admin();
    make(&client, "guarded", json!({})).await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let done: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = done.clone();
    let within = api.clone();
    let running = tokio::spawn(Controller::of(api, &kept()).run(
        move |map: Arc<ConfigMap>| {
            let (api, told) = (within.clone(), told.clone());
            async move {
                finalizer(&api, "example.com/test", map, async |step| {
                    let line = match step {
                        Finalizer::Apply(map) => format!("apply {}", map.metadata.finalizers.join(",")),
                        Finalizer::Cleanup(map) => format!("clean {}", map.metadata.name),
                    };
                    let first = !told.lock().unwrap().contains(&line);
                    told.lock().unwrap().push(line.clone());
                    // The first cleaning does not work out.
                    if first && line.starts_with("clean") {
                        return Err(Error::Request("busy".to_string()));
                    }
                    Ok::<_, Error>(Action::done())
                })
                .await
            }
        },
        |_, _| {},
    ));
    eventually("the finalizer", || !done.lock().unwrap().is_empty()).await;
    assert_eq!(done.lock().unwrap()[0], "apply example.com/test");
    maps(&client).delete("guarded").await.unwrap();
    let all = maps(&client);
    let gone = all.wait_until("guarded", |map| map.is_none());
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    let cleanings = done.lock().unwrap().iter().filter(|line| *line == "clean guarded").count();
    assert_eq!(cleanings, 2);
    running.abort();
    cluster.stop().await.unwrap();
}

/// Carries requests until the line is cut.
struct Line {
    client: Client,
    cut: Arc<AtomicBool>,
}

impl Transport for Line {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>>> {
        Box::pin(async move {
            match self.cut.load(Ordering::SeqCst) {
                true => Err(Error::Lost("cut".to_string())),
                false => self.client.send(request).await,
            }
        })
    }
}

#[tokio::test]
async fn one_leads_at_a_time_and_another_takes_over() {
    let cluster = Cluster::start().await.unwrap();
    let times = Times {
        lease_duration: Duration::from_secs(2),
        renew_deadline: Duration::from_secs(1),
        retry_period: Duration::from_millis(100),
    };
    let cut = Arc::new(AtomicBool::new(false));
    let line = Client::with_transport(Arc::new(Line { client: cluster.admin(), cut: cut.clone() }));
    let of = |client: Client, identity: &str| Election::new(client, "default", "test", identity, times).unwrap();
    let leaders = Arc::new(AtomicUsize::new(0));
    let enter = |leaders: &Arc<AtomicUsize>| assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "two lead");

    // Giving up lets the next lead at once.
    let (first, second) = (of(line.clone(), "first"), of(cluster.admin(), "second"));
    let outcome = first.lead(async {
        enter(&leaders);
        assert_eq!(second.leader().await.unwrap().as_deref(), Some("first"));
        let other = tokio::time::timeout(Duration::from_millis(500), second.lead(async {})).await;
        assert!(other.is_err(), "the second led too");
        leaders.fetch_sub(1, Ordering::SeqCst);
        7
    });
    assert_eq!(outcome.await.unwrap(), Led::Finished(7));
    assert_eq!(second.leader().await.unwrap(), None);
    let started = Instant::now();
    assert_eq!(second.lead(async {}).await.unwrap(), Led::Finished(()));
    assert!(started.elapsed() < times.lease_duration, "{:?}", started.elapsed());

    // Whoever cannot renew stops before another begins.
    let others = leaders.clone();
    let waiting = of(cluster.admin(), "third");
    let cut_off = cut.clone();
    let (outcome, after) = tokio::join!(
        first.lead(async {
            struct Leaving<'a>(&'a AtomicUsize);
            impl Drop for Leaving<'_> {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            enter(&leaders);
            let _leaving = Leaving(&leaders);
            cut_off.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await
        }),
        async {
            eventually("the first leader", || cut.load(Ordering::SeqCst)).await;
            waiting.lead(async { enter(&others) }).await
        }
    );
    assert_eq!(outcome.unwrap(), Led::Lost);
    assert_eq!(after.unwrap(), Led::Finished(()));
    let lease = ApiResource::new("coordination.k8s.io", "v1", "Lease", "leases", true);
    let lease = Api::namespaced_of(cluster.admin(), "default", &lease).get("test").await.unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 3, "{lease:?}");
    assert_eq!(lease["spec"]["holderIdentity"], "");
    let refused = of(cluster.client_as("ann"), "ann").lead(async {}).await;
    assert!(refused.unwrap_err().is_forbidden());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn what_happens_again_is_told_with_a_count() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.admin();
    make(&client, "busy", json!({})).await;
    let map = maps(&client).get("busy").await.unwrap();
    let recorder = Recorder::new(client.clone(), "example.com/test", "test-1");
    for note in ["first", "second", "third"] {
        recorder.try_record(&MAPS, &map, EventType::Warning, "Late", "Waiting", note).await.unwrap();
    }
    recorder.try_record(&MAPS, &map, EventType::Normal, "Done", "Waiting", "at last").await.unwrap();
    let namespace = Api::<Namespace>::all(client.clone()).get("default").await.unwrap();
    recorder
        .try_record(&Namespace::api_resource(), &namespace, EventType::Normal, "Seen", "Looking", "it")
        .await
        .unwrap();
    let events = ApiResource::new("events.k8s.io", "v1", "Event", "events", true);
    let mut told: Vec<String> = Api::namespaced_of(client.clone(), "default", &events)
        .list()
        .await
        .unwrap()
        .iter()
        .filter(|event| event["reportingController"] == "example.com/test")
        .map(|event| {
            let (kind, name) = (&event["regarding"]["kind"], &event["regarding"]["name"]);
            format!(
                "{} {} {kind}/{name} {} {}",
                event["type"], event["reason"], event["note"], event["series"]["count"]
            )
        })
        .collect();
    told.sort();
    let want = [
        r#""Normal" "Done" "ConfigMap"/"busy" "at last" null"#,
        r#""Normal" "Seen" "Namespace"/"default" "it" null"#,
        r#""Warning" "Late" "ConfigMap"/"busy" "first" 3"#,
    ];
    assert_eq!(told, want);
    assert_eq!(ObjectKey::of(&map).to_string(), "default/busy");
    cluster.stop().await.unwrap();
}

/// Carries requests, and does to them what networks and busy servers do: turns some away, loses some, cuts watches short, and
/// now and then says that history is gone.
struct Chaos {
    client: Client,
    asked: AtomicUsize,
    cuts: AtomicUsize,
    expiries: AtomicUsize,
}

impl Chaos {
    const EXPIRIES: usize = 4;
    const EXPIRED: &str = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"status\":\"Failure\",\"message\":\"too old resource version\",\"reason\":\"Expired\",\"code\":410}}\n";

    /// A watch's body that ends badly after some frames.
    fn cut(&self, body: Body, after: usize) -> Body {
        let expires = self.cuts.fetch_add(1, Ordering::SeqCst) % 3 == 2
            && self.expiries.fetch_add(1, Ordering::SeqCst) < Chaos::EXPIRIES;
        let frames = futures_util::stream::unfold(Some((body, 0)), move |state| async move {
            let (mut body, told) = state?;
            if told < after {
                let frame = body.frame().await?;
                return Some((frame, Some((body, told + 1))));
            }
            let last = match expires {
                true => Ok(Frame::data(Bytes::from_static(Chaos::EXPIRED.as_bytes()))),
                false => Err(Error::Lost("cut".to_string())),
            };
            Some((last, None))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

impl Transport for Chaos {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>>> {
        Box::pin(async move {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            match number % 4 {
                1 => {
                    let away = http::Response::builder().status(429).header("retry-after", "0");
                    return Ok(away.body(full("{}".to_string())).unwrap());
                }
                2 => return Err(Error::Lost("cut".to_string())),
                _ => {}
            }
            let response = self.client.send(request).await?;
            Ok(match watches {
                true => response.map(|body| self.cut(body, 2 + number % 5)),
                false => response,
            })
        })
    }
}

#[tokio::test]
async fn a_store_ends_as_the_server_whatever_happens_on_the_way() {
    const CHANGES: usize = 401;
    const NAMES: usize = 30;
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.admin();
    let [asked, cuts, expiries] = [(); 3].map(|()| AtomicUsize::new(0));
    let chaos = Arc::new(Chaos { client: client.clone(), asked, cuts, expiries });
    let shaken = Client::with_transport(chaos.clone());
    let store = Store::follow(&Api::<Metadata<ConfigMap>>::namespaced(shaken, "default"), &kept());
    store.ready().await.unwrap();
    for change in 0..CHANGES {
        let name = format!("chaos-{}", change * 7 % NAMES);
        let patch = json!({"data": {"change": change.to_string()}});
        match maps(&client).patch(&name, &Patch::Merge(&patch)).await {
            Err(error) if error.is_not_found() => make(&client, &name, json!({})).await,
            Ok(_) if change % 5 == 0 => drop(maps(&client).delete(&name).await.unwrap()),
            answer => drop(answer.unwrap()),
        }
        if change % 20 == 0 {
            let mut there = Vec::new();
            for map in &maps(&client).list_with(&kept()).await.unwrap() {
                there.push((map.name().to_string(), map.resource_version().to_string()));
            }
            there.sort();
            eventually("the server's state", || {
                let all = store.all();
                let names = all.iter().map(|map| (map.name().to_string(), map.resource_version().to_string()));
                let mut here: Vec<_> = names.collect();
                here.sort();
                here == there
            })
            .await;
        }
    }
    assert!(store.len() > NAMES / 3, "{}", store.len());
    let [asked, expiries] = [&chaos.asked, &chaos.expiries].map(|count| count.load(Ordering::SeqCst));
    assert!(asked > 10 && expiries > 0, "{asked} requests, {expiries} expiries");
    cluster.stop().await.unwrap();
}

/// Carries requests, and writes down in which form each was answered.
struct Forms {
    client: Client,
    told: Mutex<Vec<String>>,
}

impl Transport for Forms {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>>> {
        Box::pin(async move {
            let response = self.client.send(request).await?;
            let form = response.headers().get("content-type").and_then(|form| form.to_str().ok()).unwrap_or_default();
            self.told.lock().unwrap().push(form.trim_start_matches("application/").to_string());
            Ok(response)
        })
    }
}

#[tokio::test]
async fn what_is_read_in_protobuf_is_what_is_read_in_json() {
    const TABS: ApiResource = ApiResource::new("example.com", "v1", "Tab", "tabs", true);
    const DEFINITIONS: ApiResource =
        ApiResource::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false);
    let cluster = Cluster::start().await.unwrap();
    let json = cluster.admin();
    let forms = Arc::new(Forms { client: json.clone(), told: Mutex::default() });
    let protobuf = Client::with_transport(forms.clone()).with_protobuf();
    let told = || std::mem::take(&mut *forms.told.lock().unwrap()).join(" ");

    let map = json!({"metadata": {"name": "one", "labels": {"kept": "yes"}, "annotations": {"a": "b"}},
        "data": {"text": "é"}, "binaryData": {"bytes": "AAEC/w=="}});
    maps(&json).create(&Dynamic(map)).await.unwrap();
    let of = |client: &Client| Api::<ConfigMap>::namespaced(client.clone(), "default");
    let (wanted, found) = (of(&json).list().await.unwrap(), of(&protobuf).list().await.unwrap());
    assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
    assert_eq!(found.len(), 2, "one, and the root CA");
    let (wanted, found) = (of(&json).get("one").await.unwrap(), of(&protobuf).get("one").await.unwrap());
    assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
    assert_eq!(told(), ["vnd.kubernetes.protobuf"; 2].join(" "));

    // Refusals too.
    let missing = of(&protobuf).get("two").await.unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!(missing.to_string(), "configmaps \"two\" not found");
    assert_eq!(told(), "vnd.kubernetes.protobuf");

    let store = Store::follow(&of(&protobuf), &kept());
    let names = Store::follow(&Api::<Metadata<ConfigMap>>::namespaced(protobuf.clone(), "default"), &kept());
    store.ready().await.unwrap();
    names.ready().await.unwrap();
    make(&json, "two", json!({"of": "x"})).await;
    eventually("what is new", || store.len() == 2 && names.len() == 2).await;
    maps(&json).patch("two", &Patch::Merge(&json!({"data": {"of": "y"}}))).await.unwrap();
    eventually("the change", || store.find("default", "two").is_some_and(|map| map.data["of"] == "y")).await;
    maps(&json).delete("two").await.unwrap();
    eventually("the deletion", || store.len() == 1 && names.len() == 1).await;
    assert_eq!(names.all()[0].metadata.annotations.get("a"), Some("b"));
    assert_eq!(told(), ["vnd.kubernetes.protobuf;stream=watch"; 2].join(" "));

    // A type that cannot be read so, and an object that there is in JSON only, but for its metadata.
    assert_eq!(Api::<Dynamic>::namespaced_of(protobuf.clone(), "default", &MAPS).list().await.unwrap().len(), 2);
    let definition = json!({"metadata": {"name": "tabs.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "tabs", "kind": "Tab"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = Api::all_of(json.clone(), &DEFINITIONS);
    definitions.create(&Dynamic(definition)).await.unwrap();
    let is_served = |definition: Option<&Dynamic>| {
        let conditions = definition.map(|definition| definition["status"]["conditions"].to_string());
        conditions.is_some_and(|conditions| conditions.contains(r#""type":"Established""#))
    };
    definitions.wait_until("tabs.example.com", is_served).await.unwrap();
    let tab = Dynamic(json!({"metadata": {"name": "t", "labels": {"l": "m"}}}));
    Api::namespaced_of(json, "default", &TABS).create(&tab).await.unwrap();
    let tabs = Api::<Metadata<ConfigMap>>::of(protobuf, &TABS, "default").list().await.unwrap();
    assert_eq!(tabs[0].metadata.labels.get("l"), Some("m"));
    assert_eq!(told(), "json vnd.kubernetes.protobuf");
    drop((store, names));
    cluster.stop().await.unwrap();
}

/// An account's token that is worth something for as long as a Secret is there.
async fn token_until_deleted(client: &Client, secret: &str) -> String {
    let secrets = Api::namespaced_of(client.clone(), "default", &ApiResource::new("", "v1", "Secret", "secrets", true));
    let made = secrets.create(&Dynamic(json!({"metadata": {"name": secret}}))).await.unwrap();
    let accounts = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
    let bound = json!({"kind": "Secret", "apiVersion": "v1", "name": secret, "uid": made.uid()});
    let wish = json!({"spec": {"boundObjectRef": bound}});
    let accounts: Api<Dynamic> = Api::namespaced_of(client.clone(), "default", &accounts);
    let answer: Dynamic = accounts.create_subresource("default", "token", &wish).await.unwrap();
    answer["status"]["token"].as_str().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_rotated_and_revoked_on_a_real_server_fail_no_call() {
    let mut cluster = Cluster::start().await.unwrap();
    cluster.listen(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let admin = cluster.admin();
    make(&admin, "read", json!({})).await;
    let bindings = ApiResource::new("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true);
    let binding = json!({"metadata": {"name": "view"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    Api::namespaced_of(admin.clone(), "default", &bindings).create(&Dynamic(binding)).await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, token_until_deleted(&admin, "token-0").await).unwrap();
    let config = Config {
        ca: Ca::Of(Pem::Inline(cluster.ca_pem().as_bytes().to_vec())),
        credentials: Credentials::TokenFile(token.clone()),
        ..Config::new(Server::parse(&cluster.url()).unwrap())
    };
    let maps = Api::<ConfigMap>::namespaced(Client::new(config).unwrap(), "default");
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (maps, over, done) = (maps.clone(), over.clone(), done.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    maps.get("read").await?;
                    done.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    let secrets = Api::namespaced_of(admin.clone(), "default", &ApiResource::new("", "v1", "Secret", "secrets", true));
    for round in 1..=8 {
        let before = done.load(Ordering::SeqCst);
        eventually("some reads", || done.load(Ordering::SeqCst) > before + 100).await;
        let fresh = token_until_deleted(&admin, &format!("token-{round}")).await;
        std::fs::write(dir.path().join("next"), fresh).unwrap();
        std::fs::rename(dir.path().join("next"), &token).unwrap();
        // From here on the old one is worth nothing.
        secrets.delete(&format!("token-{}", round - 1)).await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    assert!(done.load(Ordering::SeqCst) > 800);
    cluster.stop().await.unwrap();
}
