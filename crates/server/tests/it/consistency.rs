//! Lists and watches against each other, among concurrent writers of generated changes: a list and the changes since it
//! give a later list, and a watch that is resumed anywhere goes on exactly there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use server::Options;
use server::authn::{AUTHENTICATED, MASTERS};

use crate::Asked;

/// Runs of generated changes, each in a namespace of its own.
const CASES: u32 = 6;
const WRITERS: usize = 3;
const WRITES_MAX: usize = 24;
/// How long a change is waited for that was made already.
const WAIT: Duration = Duration::from_secs(20);

const PLURALS: [&str; 3] = ["configmaps", "secrets", "serviceaccounts"];
/// All of a collection, and what is chosen from it: objects come and go as they are relabelled.
const SELECTIONS: [&str; 2] = ["", "&labelSelector=on%3Dyes"];
/// The last object that is made: whoever sees it has seen all.
const LAST: &str = "zz-last";

#[derive(Clone, Debug)]
struct Write {
    plural: &'static str,
    name: u8,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    /// Make it, or change it where it is there.
    Put {
        chosen: bool,
        value: u8,
    },
    Delete,
}

fn write() -> impl Strategy<Value = Write> {
    let put = (any::<bool>(), 0..4u8).prop_map(|(chosen, value)| Action::Put { chosen, value });
    let action = prop_oneof![3 => put, 1 => Just(Action::Delete)];
    (prop::sample::select(&PLURALS[..]), 0..5u8, action).prop_map(|(plural, name, action)| Write {
        plural,
        name,
        action,
    })
}

#[derive(Clone, Debug, PartialEq)]
struct Event {
    sort: String,
    revision: u64,
    object: Value,
}

type Objects = BTreeMap<String, Value>;

#[test]
fn lists_and_watches_tell_the_same() {
    check_store("memory://".into());
}

/// On a disk writers share batches, and a watch is told of several changes at once.
#[test]
fn lists_and_watches_tell_the_same_on_a_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    check_store(format!("disk://{}", folder.path().join("store").display()));
}

fn check_store(store: String) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = Arc::new(runtime.block_on(Asked::start(Options { store, ..Options::default() })));
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let writers = vec(vec(write(), 1..WRITES_MAX), WRITERS);
    let (case, resumed) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let outcome = runner.run(&writers, |writers| {
        case.set(case.get() + 1);
        resumed.set(resumed.get() + runtime.block_on(check(&asked, &format!("n{}", case.get()), writers)));
        Ok(())
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));
    assert!(resumed.get() > 100, "writers were through before anybody followed them: {} resumed", resumed.get());
}

/// Gives how many watches were resumed.
async fn check(asked: &Arc<Asked>, namespace: &str, writers: Vec<Vec<Write>>) -> usize {
    asked.ask("POST /api/v1/namespaces", Some(&json!({"metadata": {"name": namespace}}))).await;
    let path = |plural: &str| format!("/api/v1/namespaces/{namespace}/{plural}");
    let writing: Vec<_> = writers
        .into_iter()
        .map(|writes| {
            let (asked, namespace) = (asked.clone(), namespace.to_owned());
            tokio::spawn(async move {
                for one in writes {
                    carry_out(&asked, &namespace, &one).await;
                }
            })
        })
        .collect();
    // Lists somewhere in the middle of it, and follows from there while it goes on.
    let mut followed = Vec::new();
    for plural in PLURALS {
        for selection in SELECTIONS {
            let (revision, first) = list(asked, &path(plural), selection).await;
            let watch = follow(asked.clone(), path(plural), selection, revision);
            followed.push((plural, selection, revision, first, tokio::spawn(watch)));
        }
    }
    for writer in writing {
        writer.await.expect("a writer");
    }
    let mut last_revision = 0;
    for plural in PLURALS {
        let last = json!({"metadata": {"name": LAST, "labels": {"on": "yes"}}});
        let (code, made) = asked.ask(&format!("POST {}", path(plural)), Some(&last)).await;
        assert_eq!(code, 201, "{made}");
        last_revision = revision_of(&made);
    }
    let mut resumed = 0;
    for (plural, selection, from, first, watch) in followed {
        let events = watch.await.expect("a watch");
        let (_, later) = list(asked, &path(plural), selection).await;
        assert_eq!(replayed(first, &events), later, "{plural}{selection} from {from}");
        for revision in from..last_revision {
            let want: Vec<Event> = events.iter().filter(|event| event.revision > revision).cloned().collect();
            if want.is_empty() {
                break;
            }
            let got = follow(asked.clone(), path(plural), selection, revision).await;
            assert_eq!(got, want, "{plural}{selection} resumed at {revision}");
            resumed += 1;
        }
    }
    resumed
}

async fn carry_out(asked: &Asked, namespace: &str, write: &Write) {
    let path = format!("/api/v1/namespaces/{namespace}/{}", write.plural);
    let name = format!("o{}", write.name);
    match &write.action {
        Action::Delete => drop(asked.ask(&format!("DELETE {path}/{name}"), None).await),
        Action::Put { chosen, value } => {
            let on = if *chosen { "yes" } else { "no" };
            let metadata = json!({"name": name, "labels": {"on": on}, "annotations": {"v": value.to_string()}});
            let object = json!({ "metadata": metadata });
            let (code, _) = asked.ask(&format!("POST {path}"), Some(&object)).await;
            if code == 409 {
                // Where somebody deletes it meanwhile there is nothing to change.
                asked.ask(&format!("PUT {path}/{name}"), Some(&object)).await;
            }
        }
    }
}

async fn list(asked: &Asked, path: &str, selection: &str) -> (u64, Objects) {
    let (code, list) = asked.ask(&format!("GET {path}?limit=0{selection}"), None).await;
    assert_eq!(code, 200, "{list}");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    (revision_of(&list), items.into_iter().map(|item| (name_of(&item), plain(item))).collect())
}

/// The events of a watch from a revision up to the last object.
async fn follow(asked: Arc<Asked>, path: String, selection: &'static str, revision: u64) -> Vec<Event> {
    let line = format!("GET {path}?watch=1&resourceVersion={revision}{selection}");
    let mut body = asked.send("admin", &[MASTERS, AUTHENTICATED], &line, None).await.into_body();
    let (mut events, mut rest) = (Vec::new(), Vec::new());
    loop {
        let frame = tokio::time::timeout(WAIT, body.frame()).await.unwrap_or_else(|_| panic!("{line}: {events:?}"));
        let frame = frame.expect("it goes on").expect("a frame");
        rest.extend_from_slice(frame.data_ref().expect("bytes"));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("JSON");
            let object = event["object"].clone();
            let sort = event["type"].as_str().unwrap_or_default().to_owned();
            let is_last = name_of(&object) == LAST;
            events.push(Event { sort, revision: revision_of(&object), object });
            if is_last {
                return events;
            }
        }
    }
}

/// What the changes make of a list. They come in order, each once, and fit to what is there.
fn replayed(mut objects: Objects, events: &[Event]) -> Objects {
    let mut revision = 0;
    for event in events {
        assert!(event.revision > revision, "{event:?} after {revision}");
        revision = event.revision;
        let name = name_of(&event.object);
        let before = match event.sort.as_str() {
            "DELETED" => objects.remove(&name),
            _ => objects.insert(name, plain(event.object.clone())),
        };
        assert_eq!(before.is_none(), event.sort == "ADDED", "{event:?}");
    }
    objects
}

/// Lists leave out what their items are.
fn plain(mut object: Value) -> Value {
    if let Some(root) = object.as_object_mut() {
        root.shift_remove("kind");
        root.shift_remove("apiVersion");
    }
    object
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}
