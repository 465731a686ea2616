//! As much of an API server as an agent needs: objects in memory, lists and watches with field selectors, status patches,
//! graceful deletion, tokens. Believes everything it is told.

use api::{Ask, FieldSelector, Verb};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, StreamBody};
use kemudi_client::transport::full;
use kemudi_client::{Body, Transport};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<Objects>>);

struct Objects {
    /// By `resource/namespace/name`.
    all: BTreeMap<String, Value>,
    revision: u64,
    watches: Vec<Watch>,
    changed: watch::Sender<u64>,
    token_seconds: i64,
    tokens: u64,
}

impl Default for Objects {
    fn default() -> Objects {
        Objects {
            all: BTreeMap::new(),
            revision: 1,
            watches: Vec::new(),
            changed: watch::channel(0).0,
            token_seconds: 3607,
            tokens: 0,
        }
    }
}

struct Watch {
    prefix: String,
    fields: FieldSelector,
    lines: mpsc::UnboundedSender<String>,
}

impl FakeApi {
    /// How long the tokens live that it gives.
    pub fn set_token_seconds(&self, seconds: i64) {
        self.0.lock().unwrap().token_seconds = seconds;
    }

    /// Makes or replaces an object: `configmaps`, and the object with its name and namespace.
    pub fn put(&self, resource: &str, mut object: Value) {
        let mut objects = self.0.lock().unwrap();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = format!("{resource}/{namespace}/{name}");
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-of-{name}-{}", objects.revision).into();
        }
        objects.put(&key, object);
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.lock().unwrap().all.get(&format!("{resource}/{namespace}/{name}")).cloned()
    }

    pub fn list(&self, resource: &str) -> Vec<Value> {
        let objects = self.0.lock().unwrap();
        let prefix = format!("{resource}/");
        objects.all.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, object)| object.clone()).collect()
    }

    /// Deletes a pod as a user does.
    pub fn delete_pod(&self, namespace: &str, name: &str, grace_seconds: i64) {
        let mut objects = self.0.lock().unwrap();
        let key = format!("pods/{namespace}/{name}");
        objects.delete(&key, grace_seconds);
    }

    /// Waits until something holds of the objects; panics with what is there if it never does.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&FakeApi) -> Option<T>) -> T {
        let mut changed = self.0.lock().unwrap().changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = look(self) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{what} never held: {:#}", Value::from(self.list("pods"))),
        }
    }

    fn answer(&self, request: http::Request<Bytes>) -> http::Response<Body> {
        let mut objects = self.0.lock().unwrap();
        let target = request.uri().path_and_query().unwrap().as_str();
        let ask = Ask::parse(request.method().as_str(), target).ok().unwrap();
        let at = ask.target.clone().unwrap();
        let scope = if at.namespace.is_empty() { String::new() } else { format!("{}/", at.namespace) };
        let prefix = match at.namespace.is_empty() && at.name.is_empty() {
            true => format!("{}/", at.resource),
            false => format!("{}/{scope}", at.resource),
        };
        let key = format!("{}/{}/{}", at.resource, at.namespace, at.name);
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let fields = FieldSelector::parse(ask.query.get("fieldSelector").unwrap_or_default()).unwrap();
        match ask.verb {
            Verb::Get => match objects.all.get(&key) {
                Some(object) => json_answer(200, object),
                None => not_found(&at.resource, &at.name),
            },
            Verb::List => {
                let found =
                    objects.all.iter().filter(|(key, object)| key.starts_with(&prefix) && selected(object, &fields));
                let items: Vec<Value> = found.map(|(_, object)| object.clone()).collect();
                let revision = objects.revision.to_string();
                json_answer(200, &json!({"kind": "List", "metadata": {"resourceVersion": revision}, "items": items}))
            }
            Verb::Watch => {
                let (lines, receiver) = mpsc::unbounded_channel();
                let since: u64 = ask.query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
                // What changed between the list and the watch is told again as a change, and everything where there was no list.
                for (known, object) in objects.all.iter().filter(|(known, _)| known.starts_with(&prefix)) {
                    let revision: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                    if revision > since && selected(object, &fields) {
                        let _ = (known, lines.send(line("MODIFIED", object)));
                    }
                }
                if ask.query.flag("sendInitialEvents") == Some(true) {
                    let end = json!({"metadata": {
                        "resourceVersion": objects.revision.to_string(),
                        "annotations": {"k8s.io/initial-events-end": "true"},
                    }});
                    let _ = lines.send(line("BOOKMARK", &end));
                }
                objects.watches.push(Watch { prefix, fields, lines });
                let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
                    let line = receiver.recv().await?;
                    Some((Ok::<_, kemudi_client::Error>(http_body::Frame::data(Bytes::from(line))), receiver))
                });
                http::Response::new(StreamBody::new(stream).boxed_unsync())
            }
            Verb::Create if at.subresource == "token" => {
                objects.tokens += 1;
                let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(objects.token_seconds);
                let bound = body["spec"]["boundObjectRef"]["name"].as_str().unwrap_or_default();
                let token = format!("token-{}-of-{}-for-{bound}", objects.tokens, at.name);
                json_answer(201, &json!({"status": {"token": token, "expirationTimestamp": expires.to_string()}}))
            }
            Verb::Create => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                let mut object = body;
                object["metadata"]["uid"] = format!("uid-of-{name}-{}", objects.revision).into();
                objects.put(&format!("{}/{}/{name}", at.resource, at.namespace), object.clone());
                json_answer(201, &object)
            }
            Verb::Patch => match objects.all.get(&key).cloned() {
                None => not_found(&at.resource, &at.name),
                Some(mut object) => {
                    merge(&mut object, &body);
                    objects.put(&key, object.clone());
                    json_answer(200, &object)
                }
            },
            Verb::Delete => {
                objects.delete(&key, body["gracePeriodSeconds"].as_i64().unwrap_or(30));
                json_answer(200, &json!({"kind": "Status", "status": "Success"}))
            }
            verb => panic!("{verb:?} {target}"),
        }
    }
}

impl Objects {
    fn put(&mut self, key: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let kind = if self.all.contains_key(key) { "MODIFIED" } else { "ADDED" };
        self.tell(kind, key, &object);
        self.all.insert(key.to_owned(), object);
        self.changed.send_modify(|count| *count += 1);
    }

    fn delete(&mut self, key: &str, grace_seconds: i64) {
        let Some(mut object) = self.all.get(key).cloned() else { return };
        if grace_seconds > 0 && key.starts_with("pods/") {
            object["metadata"]["deletionTimestamp"] = jiff::Timestamp::now().to_string().into();
            object["metadata"]["deletionGracePeriodSeconds"] = grace_seconds.into();
            return self.put(key, object);
        }
        self.all.remove(key);
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.tell("DELETED", key, &object);
        self.changed.send_modify(|count| *count += 1);
    }

    fn tell(&mut self, kind: &str, key: &str, object: &Value) {
        let reaches = |watch: &&mut Watch| key.starts_with(&watch.prefix) && selected(object, &watch.fields);
        for watch in self.watches.iter_mut().filter(|watch| reaches(watch)) {
            let _ = watch.lines.send(line(kind, object));
        }
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn selected(object: &Value, fields: &FieldSelector) -> bool {
    fields.matches(|field| {
        object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str).unwrap_or_default()
    })
}

/// A merge patch, but conditions are merged by their type.
fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else { return *object = patch.clone() };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (name, value) in patch {
        if name == "conditions" && object[name].is_array() {
            for condition in value.as_array().unwrap() {
                let known = object[name].as_array_mut().unwrap();
                known.retain(|known| known["type"] != condition["type"]);
                if condition["$patch"] != "delete" {
                    known.push(condition.clone());
                }
            }
        } else if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut object[name], value);
        }
    }
}

fn json_answer(code: u16, value: &Value) -> http::Response<Body> {
    http::Response::builder().status(code).body(full(value.to_string())).unwrap()
}

fn not_found(resource: &str, name: &str) -> http::Response<Body> {
    let message = format!("{resource} {name:?} not found");
    json_answer(
        404,
        &json!({"kind": "Status", "status": "Failure", "message": message, "reason": "NotFound", "code": 404}),
    )
}

impl Transport for FakeApi {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, kemudi_client::Result<http::Response<Body>>> {
        async move { Ok(self.answer(request)) }.boxed()
    }
}
