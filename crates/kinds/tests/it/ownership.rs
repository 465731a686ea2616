//! The recordings of a real server, replayed on managed fields, apply and strategic merge alone: a store that is a map,
//! no admission, no validation. What comes out is held against what was recorded.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use kinds::apply::{self, ApplyError};
use kinds::decode;
use kinds::fieldset::Element;
use kinds::managed::{self, Write};
use kinds::{Kind, Registry, strategic};
use serde_json::{Value, json};

/// Recordings that are about more than is replayed here.
const NOT_ALONE: &[(&str, &str)] = &[
    ("apply-pod-admission", "defaults that are code"),
    ("apply-terminating", "deletion"),
    ("apply-versions", "conversion between versions"),
    ("apply-versions-events", "conversion between versions"),
    ("managed-fields-shapes", "defaults that are code"),
    ("strategic-errors", "defaults that are code"),
    ("update-immutable", "defaults that are code"),
];

/// Fewer steps than this held against a recording mean that the replay does not see them any more.
const STEPS_MIN: usize = 180;

#[test]
fn recordings_of_apply_and_patches() {
    let mut names: Vec<String> = std::fs::read_dir(corpus().join("apply"))
        .expect("recordings")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    let (mut passed, mut failed) = (0, Vec::new());
    for name in names.iter().filter(|name| NOT_ALONE.iter().all(|(other, _)| other != name)) {
        let replay = replay("apply", name);
        passed += replay.passed;
        failed.extend(replay.failed);
    }
    assert!(failed.is_empty(), "{} steps differ\n\n{}", failed.len(), failed.join("\n\n"));
    assert!(passed >= STEPS_MIN, "only {passed} steps were compared");
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testkit/golden/corpus")
}

/// Replays one recording. `passed` are the steps that could be held against something.
fn replay(folder: &str, name: &str) -> Replay {
    let text = std::fs::read_to_string(corpus().join(folder).join(format!("{name}.json"))).expect("recording");
    let scenario: Value = serde_json::from_str(&text).expect("recording is JSON");
    let mut replay = Replay { registry: kinds::builtin(), ..Replay::default() };
    for (at, step) in scenario["steps"].as_array().into_iter().flatten().enumerate() {
        if let Err(difference) = replay.step(step) {
            let call = format!(
                "{} {}",
                step["method"].as_str().unwrap_or_default(),
                step["path"].as_str().unwrap_or_default()
            );
            replay.failed.push(format!("{folder}/{name} step {at} {call}\n{difference}"));
        }
    }
    replay
}

#[derive(Default)]
struct Replay {
    registry: Registry,
    store: HashMap<String, Value>,
    variables: BTreeMap<String, Value>,
    seconds: Cell<u32>,
    passed: usize,
    failed: Vec<String>,
}

struct Call {
    kind: Arc<Kind>,
    /// Where the object is stored.
    key: String,
    subresource: String,
    query: HashMap<String, String>,
    /// The version of the object of which this is the scale.
    scale_of: Option<String>,
}

/// The status code and the body of an answer.
type Answer = (u64, Value);

impl Replay {
    fn step(&mut self, step: &Value) -> Result<(), String> {
        let step = self.fill(step);
        if !step["watch"].is_null() {
            // Recordings wait for the next second by watching nothing.
            self.seconds.set(self.seconds.get() + 2);
            return Ok(());
        }
        let expect = &step["expect"];
        let recorded = expect["status"].as_u64().unwrap_or_default();
        let Some(call) = self.parse(step["path"].as_str().unwrap_or_default(), &step) else { return Ok(()) };
        if step["method"] == "DELETE" && recorded < 300 {
            let waits = self.store.get(&call.key).is_some_and(|object| object["metadata"]["finalizers"].is_array());
            if !waits {
                self.store.remove(&call.key);
            }
            return Ok(());
        }
        let Some((status, mut body)) = self.answer(&call, &step) else {
            // What is refused for other reasons changes nothing; what is not replayed is taken from the recording.
            return self.adopt(&call, recorded, &expect["body"]);
        };
        if status < 300 && recorded >= 300 {
            return Ok(());
        }
        if status != recorded {
            return Err(format!("{status} {body}\nwanted {recorded} {}", expect["body"]));
        }
        if status < 300 && !call.query.contains_key("dryRun") {
            self.put(&call, &body);
            for (name, pointer) in step["save"].as_object().into_iter().flatten() {
                let value = body.pointer(pointer.as_str().unwrap_or_default()).cloned().unwrap_or_default();
                self.variables.insert(name.clone(), value);
            }
        }
        // The answer to a write of a scale is made anew and does not show who owns it.
        if let Some(wanted) = expect.get("body").filter(|_| call.scale_of.is_none() || status >= 300) {
            let mut wanted = wanted.clone();
            for body in [&mut body, &mut wanted] {
                *body = plain(body);
                if status < 300 {
                    *body = body.pointer("/metadata/managedFields").cloned().unwrap_or_default();
                    for entry in body.as_array_mut().into_iter().flatten() {
                        if entry.get("time").is_some() {
                            entry["time"] = "<time>".into();
                        }
                    }
                }
            }
            if status >= 300 {
                wanted = json!({ "message": wanted["message"], "causes": wanted["details"]["causes"] });
                for cause in wanted["causes"].as_array_mut().into_iter().flatten() {
                    cause.as_object_mut().map(|cause| cause.shift_remove("reason"));
                }
            }
            if body != wanted {
                return Err(format!("got    {body}\nwanted {wanted}"));
            }
            self.passed += 1;
        }
        Ok(())
    }

    fn live(&self, call: &Call) -> Option<Value> {
        let object = self.store.get(&call.key)?;
        let Some(version) = &call.scale_of else { return Some(object.clone()) };
        let entries =
            managed::to_scale(&object["metadata"]["managedFields"], &replicas(version)).expect("managed fields");
        Some(json!({
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": { "name": object["metadata"]["name"], "uid": object["metadata"]["uid"], "managedFields": entries },
            "spec": { "replicas": object["spec"]["replicas"] },
            "status": { "replicas": 0 }
        }))
    }

    fn put(&mut self, call: &Call, body: &Value) {
        let Some(version) = &call.scale_of else {
            self.store.insert(call.key.clone(), body.clone());
            return;
        };
        let Some(object) = self.store.get_mut(&call.key) else { return };
        let entries = &object["metadata"]["managedFields"];
        let scale = &body["metadata"]["managedFields"];
        let entries = managed::from_scale(entries, scale, version, &replicas(version)).expect("managed fields");
        object["spec"]["replicas"] = body["spec"]["replicas"].clone();
        object["metadata"]["managedFields"] = entries;
    }

    /// `None` where the step is about something that is not replayed.
    fn answer(&self, call: &Call, step: &Value) -> Option<Answer> {
        let old = self.live(call).filter(|_| step["method"] != "POST");
        let old = old.as_ref();
        let agent = match step["headers"].get("user-agent") {
            Some(agent) => agent.as_str().unwrap_or_default(),
            None => "golden/1",
        };
        let query = |name: &str| call.query.get(name).map(String::as_str).unwrap_or_default();
        let manager = managed::manager_name(query("fieldManager"), agent);
        let api_version = call.kind.api_version();
        let now = format!("2026-01-01T00:00:{:02}Z", self.seconds.get());
        let owned = managed::resets(&api_version, &call.kind.kind, &call.subresource, call.kind.has_status(), false);
        let write = Write {
            manager: &manager,
            api_version: &api_version,
            kind: &call.kind.kind,
            subresource: &call.subresource,
            now: &now,
            owned: &owned,
            convert: &managed::one_version,
        };
        let (schema, root) = (&*call.kind.schema, call.kind.root);
        let mut body = step["body"].clone();
        if let Value::String(text) = &body {
            body = serde_json::from_str(text).ok()?;
        }
        let body = &body;
        let media = step["headers"]["content-type"].as_str().unwrap_or("application/json");
        let mut new = match (step["method"].as_str()?, media) {
            ("POST" | "PUT", "application/json") => {
                let mut new = body.clone();
                if old.is_none() {
                    for field in
                        ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"]
                    {
                        new["metadata"].as_object_mut()?.shift_remove(field);
                    }
                }
                new
            }
            ("PATCH", "application/merge-patch+json") => merge_patch(old?.clone(), body),
            ("PATCH", "application/json-patch+json") => {
                let mut new = old?.clone();
                json_patch::patch(&mut new, &serde_json::from_value::<json_patch::Patch>(body.clone()).ok()?).ok()?;
                new
            }
            ("PATCH", "application/strategic-merge-patch+json") => match strategic::merge(schema, root, old?, body) {
                Ok(new) => new,
                Err(error) => {
                    return Some((strategic_status(&error), json!({ "message": error.to_string(), "causes": null })));
                }
            },
            ("PATCH", "application/apply-patch+yaml") if body.is_object() && !query("fieldManager").is_empty() => {
                match apply::apply(schema, root, old, body, query("force") == "true", &write) {
                    Ok(Some(mut new)) => {
                        settle(call, &mut new, old)?;
                        if let Some(old) = old {
                            managed::keep_times_of_no_op(old, &mut new);
                        }
                        return Some((if old.is_some() { 200 } else { 201 }, new));
                    }
                    Ok(None) => return Some((200, old?.clone())),
                    Err(error) => return Some(refusal(&error)),
                }
            }
            _ => return None,
        };
        if !new.is_object() {
            return None;
        }
        let reset = managed::asks_reset(&new);
        settle(call, &mut new, None)?;
        if reset {
            managed::mark_reset(&mut new);
        }
        managed::update(schema, root, old, &mut new, &write);
        settle(call, &mut new, old)?;
        if let Some(old) = old {
            managed::keep_times_of_no_op(old, &mut new);
        }
        Some((if old.is_some() { 200 } else { 201 }, new))
    }

    fn adopt(&mut self, call: &Call, recorded: u64, body: &Value) -> Result<(), String> {
        if recorded < 300 && body["metadata"].is_object() && body["kind"].as_str() == Some(&call.kind.kind) {
            let text = body.to_string().replace("<time>", "2026-01-01T00:00:00Z");
            let text = text.replace("<uid>", "00000000-0000-4000-8000-000000000000");
            self.store.insert(call.key.clone(), serde_json::from_str(&text).expect("JSON"));
        }
        Ok(())
    }

    fn parse(&self, path: &str, step: &Value) -> Option<Call> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] => ("", version, rest),
            ["apis", group, version, rest @ ..] => (*group, version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, step["body"]["metadata"]["name"].as_str()?, ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return None,
        };
        let kind = self.registry.kind(group, version, plural)?.clone();
        let key = format!("{}/{namespace}/{name}", kind.group_resource());
        let mut call = Call { key, kind, subresource: subresource.to_owned(), query: query.collect(), scale_of: None };
        if subresource == "scale" {
            let root = call.kind.subresource("scale")?.root;
            call.scale_of = Some(call.kind.api_version());
            let scale = Kind {
                group: "autoscaling".into(),
                version: "v1".into(),
                kind: "Scale".into(),
                root,
                behaviour: kinds::builtin::behaviour("autoscaling", "Scale"),
                ..(*call.kind).clone()
            };
            call.kind = Arc::new(scale);
        }
        let own = ["", "scale"].contains(&subresource)
            || call.kind.subresource(subresource).is_some_and(|s| s.kind == call.kind.kind);
        own.then_some(call)
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let whole = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
                if let Some(value) = whole.and_then(|name| self.variables.get(name)) {
                    return value.clone();
                }
                let mut text = text.clone();
                for (name, value) in &self.variables {
                    text = text.replace(&format!("${{{name}}}"), value.as_str().unwrap_or_default());
                }
                text.into()
            }
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.fill(value))).collect(),
            other => other.clone(),
        }
    }
}

fn replicas(version: &str) -> Vec<(&str, Option<Vec<Element>>)> {
    vec![(version, Some(vec![Element::field("spec"), Element::field("replicas")]))]
}

/// Uids as recordings write them.
fn plain(value: &Value) -> Value {
    let text = |text: &str| {
        let mut out = text.to_owned();
        for (at, _) in text.match_indices('-').collect::<Vec<_>>() {
            // The first dash of a UUID that stands in the text.
            let uuid = at.checked_sub(8).and_then(|from| text.get(from..from + 36));
            if let Some(uuid) = uuid.filter(|uuid| is_uuid(uuid)) {
                out = out.replace(uuid, "<uid>");
            }
        }
        out
    };
    match value {
        Value::String(value) => text(value).into(),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (text(key), plain(value))).collect(),
        other => other.clone(),
    }
}

fn is_uuid(text: &str) -> bool {
    text.bytes()
        .enumerate()
        .all(|(at, b)| if [8, 13, 18, 23].contains(&at) { b == b'-' } else { b.is_ascii_hexdigit() })
}

/// What the server makes of an object around this: decoding, defaults and what only it sets.
/// `None` where the object is none of its kind.
fn settle(call: &Call, object: &mut Value, old: Option<&Value>) -> Option<()> {
    let decoded = decode::normalize(&call.kind.schema, call.kind.root, std::mem::take(object));
    *object = decoded.ok()?.object;
    call.kind.default(object);
    let name = call.key.rsplit('/').next().unwrap_or_default();
    object["apiVersion"] = call.kind.api_version().into();
    object["kind"] = (*call.kind.kind).into();
    if let Some(old) = old {
        match &*call.subresource {
            "" => call.kind.prepare_update(object, old),
            "status" => call.kind.prepare_status(object, old),
            _ => {}
        }
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = name.into();
    object["metadata"]["uid"] = match old {
        Some(old) => old["metadata"]["uid"].clone(),
        None => {
            let hash = name.bytes().fold(7u32, |hash, b| hash.wrapping_mul(31).wrapping_add(b.into()));
            format!("{hash:08x}-0000-4000-8000-000000000000").into()
        }
    };
    Some(())
}

fn strategic_status(error: &strategic::PatchError) -> u64 {
    match error {
        strategic::PatchError::BadRequest(_) => 400,
        strategic::PatchError::Unprocessable(_) => 422,
        strategic::PatchError::Internal(_) => 500,
    }
}

fn refusal(error: &ApplyError) -> Answer {
    let (status, causes) = match error {
        ApplyError::BadRequest(_) => (400, Value::Null),
        ApplyError::Internal(_) => (500, Value::Null),
        ApplyError::Conflict(conflicts) => {
            let cause = |cause: &apply::ConflictCause| json!({ "message": cause.message, "field": cause.field });
            (409, conflicts.causes.iter().map(cause).collect())
        }
    };
    (status, json!({ "message": error.to_string(), "causes": causes }))
}

/// RFC 7396.
fn merge_patch(mut target: Value, patch: &Value) -> Value {
    json_patch::merge(&mut target, patch);
    target
}
