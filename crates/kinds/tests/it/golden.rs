//! The recordings of a real server, replayed on what kinds do of their own: defaults, what a new object starts with,
//! validation, immutability. No server, no admission, no controllers: what those add is taken off both sides first.
//!
//! `GOLDEN=REGEX-FREE-WORD cargo test -p kemudi-kinds golden -- --nocapture` prints every difference of the scenarios and
//! kinds whose `folder/name kind` holds the word.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use kinds::{Kind, Registry, strategic, validate};
use serde_json::{Map, Value, json};

/// How many steps agree today. It only ever grows.
const AGREE_MIN: usize = 1221;

/// What admission, allocation and controllers put into objects: not the kind's own, taken off both sides.
const NOT_THE_KINDS_OWN: &[(&str, &[&str])] = &[
    ("", &["metadata/uid", "metadata/resourceVersion", "metadata/creationTimestamp", "metadata/managedFields"]),
    (
        "Pod",
        &[
            "spec/tolerations",
            "spec/priority",
            "spec/preemptionPolicy",
            "spec/serviceAccountName",
            "spec/serviceAccount",
            "spec/imagePullSecrets",
            // The runtime class and the limit ranges of a namespace.
            "spec/overhead",
            "spec/nodeSelector",
            "metadata/annotations",
        ],
    ),
    ("PersistentVolume", &["metadata/finalizers"]),
    ("PersistentVolumeClaim", &["metadata/finalizers"]),
    ("VolumeAttributesClass", &["metadata/finalizers"]),
    ("Node", &["spec/taints"]),
    ("CertificateSigningRequest", &["spec/username", "spec/uid", "spec/groups", "spec/extra"]),
    (
        "Service",
        &["spec/clusterIP", "spec/clusterIPs", "spec/ipFamilies", "spec/ipFamilyPolicy", "spec/healthCheckNodePort"],
    ),
];

/// Folders whose objects are of built-in kinds.
const FOLDERS: &[&str] = &["kinds", "identity", "apply", "controllers", "lists", "protocol", "extensions"];

#[test]
fn recordings_of_kinds() {
    let word = std::env::var("GOLDEN").ok();
    let mut tally = Tally { shown: word, ..Tally::default() };
    for folder in FOLDERS {
        let mut names: Vec<String> = std::fs::read_dir(corpus().join(folder))
            .expect("recordings")
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
            .collect();
        names.sort();
        names.iter().for_each(|name| replay(folder, name, &mut tally));
    }
    let (agree, all) = tally.by_kind.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    for (kind, (agree, all)) in &tally.by_kind {
        println!("{kind:45} {agree:4} of {all:4}");
    }
    println!("{:45} {agree:4} of {all:4}", "all");
    assert!(agree >= AGREE_MIN, "{agree} steps agree, {AGREE_MIN} did before");
}

/// Agreeing and all steps by kind and status.
#[derive(Default)]
struct Tally {
    by_kind: BTreeMap<String, (usize, usize)>,
    shown: Option<String>,
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testkit/golden/corpus")
}

fn replay(folder: &str, name: &str, tally: &mut Tally) {
    let text = std::fs::read_to_string(corpus().join(folder).join(format!("{name}.json"))).expect("recording");
    let text = text.replace("${ns}", "golden-ns").replace("${id}", "gid");
    let scenario: Value = serde_json::from_str(&text).expect("recording is JSON");
    let registry = kinds::builtin();
    let mut store: HashMap<String, Value> = HashMap::new();
    for (at, step) in scenario["steps"].as_array().into_iter().flatten().enumerate() {
        let Some(outcome) = self::step(&registry, folder, &mut store, step) else { continue };
        let (kind, difference) = outcome;
        let status = step["expect"]["status"].as_u64().unwrap_or_default();
        let count = tally.by_kind.entry(format!("{kind} {status}")).or_default();
        count.1 += 1;
        match difference {
            None => count.0 += 1,
            Some(difference) => {
                let head = format!("{folder}/{name} {kind}");
                if tally.shown.as_ref().is_some_and(|word| head.contains(word.as_str())) {
                    println!("{head} step {at} {} {}\n{difference}\n", step["method"], step["path"]);
                }
            }
        }
    }
}

/// `None` for a step that is not replayed; else the kind and the difference, if there is one.
fn step(
    registry: &Registry,
    folder: &str,
    store: &mut HashMap<String, Value>,
    step: &Value,
) -> Option<(String, Option<String>)> {
    let call = parse(registry, folder, step)?;
    let expect = &step["expect"];
    let status = expect["status"].as_u64()?;
    let recorded = &expect["body"];
    let kind = &call.kind;
    let dry = step["path"].as_str()?.contains("dryRun=All");
    let own = ["", "status", "ephemeralcontainers", "resize"];
    if !own.contains(&call.subresource.as_str()) {
        if step["method"] != "GET" && !dry && status < 300 {
            store.remove(&call.key); // What the subresource made of it is not known.
        }
        return None;
    }
    if recorded["kind"] == "Table" {
        let made = match step["method"].as_str()? {
            "GET" => None,
            _ => match write(&call, step, store.get(&call.key))? {
                Outcome::Object(object) => Some(object),
                Outcome::Refused(causes) => return Some((kind.kind.to_string(), Some(causes.join("\n")))),
            },
        };
        // Rows of what controllers have been at are theirs to tell.
        let known = |key: &str| made.clone().or_else(|| store.get(key).filter(|_| folder != "controllers").cloned());
        return Some((format!("{}.{} table", kind.kind, kind.group), table(&call, recorded, known)));
    }
    let outcome = match (step["method"].as_str()?, status) {
        ("GET", 200) => None,
        ("DELETE", 200) => {
            store.remove(&call.key);
            return None;
        }
        ("POST", 201 | 422) if call.name.is_empty() => write(&call, step, None),
        ("PUT" | "PATCH", 200 | 422) => {
            let old = store.get(&call.key)?.clone();
            write(&call, step, Some(&old))
        }
        _ => return None,
    };
    if outcome.is_none() && step["method"] != "GET" && !dry {
        store.remove(&call.key); // An apply: what it makes is only known where it was recorded.
    }
    let is_object = recorded["metadata"].is_object() && recorded["kind"].as_str() == Some(&kind.kind);
    let label = if kind.group.is_empty() { kind.kind.to_string() } else { format!("{}.{}", kind.kind, kind.group) };
    let difference = match outcome {
        None => None,
        Some(Outcome::Object(object)) => {
            let difference = (status < 300 && is_object).then(|| compare(kind, recorded, &object));
            if !dry && !is_object {
                store.insert(call.key.clone(), object);
            }
            match (difference, status) {
                (Some(difference), _) => Some(difference),
                (None, 422) => {
                    let wanted = causes_of_kind(kind, recorded)?;
                    let texts: Vec<String> =
                        wanted.iter().map(|c| format!("{}: {}", c["field"], c["message"])).collect();
                    Some(Some(format!("wanted to be refused: {}", texts.join(" & "))))
                }
                (None, _) => None,
            }
        }
        Some(Outcome::Refused(causes)) if status == 422 => {
            let wanted = causes_of_kind(kind, recorded);
            // Refusals without causes are admission's, and those whose text was not recorded show nothing.
            wanted.map(|wanted| compare_causes(wanted, &causes))
        }
        Some(Outcome::Refused(causes)) => Some(Some(format!("refused: {}", Value::from(causes)))),
    };
    if is_object && status < 300 && !dry {
        store.insert(call.key.clone(), settle(recorded));
    }
    Some((label, difference?))
}

/// The columns of a recorded table, and the rows of objects that are known as they were.
fn table(call: &Call, recorded: &Value, known: impl Fn(&str) -> Option<Value>) -> Option<String> {
    let given = |column: &kinds::Column| json!({"name": column.name, "type": column.type_, "format": column.format, "priority": column.priority});
    let behaviour = call.kind.behaviour;
    if behaviour.columns.is_empty() {
        let name = recorded["columnDefinitions"][1]["name"].as_str();
        return name.filter(|name| *name != "Created At").map(|name| format!("columns: wanted {name}"));
    }
    let columns: Value = behaviour.columns.iter().map(given).collect();
    let recorded_columns = recorded["columnDefinitions"].as_array().into_iter().flatten();
    let wanted: Value = recorded_columns
        .map(|column| {
            let field = |name: &str| column[name].clone();
            json!({"name": field("name"), "type": field("type"), "format": field("format"), "priority": field("priority")})
        })
        .collect();
    if wanted != json!([]) && columns != wanted {
        return Some(format!("columns: wanted {wanted}\ngot {columns}"));
    }
    for row in recorded["rows"].as_array().into_iter().flatten() {
        let name = row["cells"][0].as_str().unwrap_or_default();
        let key = format!("{}/{}/{name}", call.kind.group_resource(), call.namespace);
        if let Some(object) = known(&key) {
            let cells = Value::from((behaviour.row)(&object, NOW.parse().expect("time")));
            if let Some(difference) = difference(&row["cells"], &cells, name) {
                return Some(difference);
            }
        }
    }
    None
}

const NOW: &str = TIME;

/// The causes of a refusal by the kind's own validation. Others come from admission, or from the server, which names the
/// resource and not the kind.
fn causes_of_kind<'a>(kind: &Kind, recorded: &'a Value) -> Option<&'a Vec<Value>> {
    let own = recorded.pointer("/details/kind").and_then(Value::as_str) == Some(&kind.kind);
    let causes = recorded.pointer("/details/causes").and_then(Value::as_array)?;
    let allocated = |cause: &Value| {
        const SERVERS: [&str; 8] = [
            "provided port",
            "not in the valid range",
            "not configured",
            "pod-security",
            // Expressions are compiled where they run.
            "compilation failed",
            "must evaluate to",
            "estimated",
            "oldSelf",
        ];
        SERVERS.iter().any(|words| cause.to_string().contains(words))
    };
    (own && !causes.iter().any(allocated)).then_some(causes)
}

enum Outcome {
    Object(Value),
    /// `field: message` of every cause.
    Refused(Vec<String>),
}

struct Call {
    kind: Arc<Kind>,
    key: String,
    namespace: String,
    /// Empty for a collection.
    name: String,
    subresource: String,
}

/// The groups of `extensions` that are looked at.
const EXTENDING: &[&str] = &["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"];

fn parse(registry: &Registry, folder: &str, step: &Value) -> Option<Call> {
    let path = step["path"].as_str()?.split('?').next()?;
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] => ("", version, rest),
        ["apis", group, version, rest @ ..] => (*group, version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !matches!(rest[0], "status" | "finalize") => {
            (*namespace, rest)
        }
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return None,
    };
    let kind = registry.kind(group, version, plural)?.clone();
    if kind.list_kind.is_empty() {
        return None; // A review is a question, not an object.
    }
    if folder == "extensions" && !EXTENDING.contains(&group) {
        return None; // What policies and webhooks make of it.
    }
    let stored = if name.is_empty() { step["body"]["metadata"]["name"].as_str().unwrap_or_default() } else { name };
    Some(Call {
        key: format!("{}/{namespace}/{stored}", kind.group_resource()),
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    })
}

fn write(call: &Call, step: &Value, old: Option<&Value>) -> Option<Outcome> {
    let kind = &call.kind;
    let mut body = step["body"].clone();
    if let Value::String(text) = &body {
        body = serde_json::from_str(text).ok()?;
    }
    if body.to_string().contains("${") {
        return None;
    }
    let media = step["headers"]["content-type"].as_str().unwrap_or("application/json");
    let mut new = match (step["method"].as_str()?, media) {
        ("POST" | "PUT", "application/json") => body,
        ("PATCH", "application/merge-patch+json") => {
            let mut new = old?.clone();
            json_patch::merge(&mut new, &body);
            new
        }
        ("PATCH", "application/json-patch+json") => {
            let mut new = old?.clone();
            json_patch::patch(&mut new, &serde_json::from_value::<json_patch::Patch>(body).ok()?).ok()?;
            new
        }
        ("PATCH", "application/strategic-merge-patch+json") => {
            strategic::merge(&kind.schema, kind.root, old?, &body).ok()?
        }
        _ => return None,
    };
    if !new.is_object() || !new.get("metadata").is_none_or(Value::is_object) {
        return None;
    }
    let metadata = new.as_object_mut()?.entry("metadata").or_insert(json!({})).as_object_mut()?;
    match old {
        None => admit(metadata, call),
        Some(old) => carry(metadata, &old["metadata"]),
    }
    let mut new = kind.normalize(new).ok()?.object;
    kind.default(&mut new);
    if &*kind.kind == "Pod" && old.is_none() {
        // The service account plugin gives every pod an account.
        if new["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty() && new["spec"].is_object() {
            new["spec"]["serviceAccountName"] = "default".into();
            new["spec"]["serviceAccount"] = "default".into();
        }
    }
    let mut new = kind.tidy(new).ok()?;
    let causes = match (old, call.subresource.as_str()) {
        (None, _) => {
            kind.prepare_create(&mut new);
            validate::create(kind, &new)
        }
        (Some(old), "status") => {
            kind.prepare_status(&mut new, old);
            validate::status(kind, &new, old)
        }
        (Some(old), part) if !part.is_empty() => {
            (kind.behaviour.prepare_part)(part, &mut new, old);
            validate::part(kind, part, &new, old)
        }
        (Some(old), _) => {
            kind.prepare_update(&mut new, old);
            let new = kind.tidy(new.clone()).ok()?;
            validate::update(kind, &new, old)
        }
    };
    if !causes.is_empty() {
        return Some(Outcome::Refused(causes.iter().map(|cause| settle_text(&cause.to_string())).collect()));
    }
    Some(Outcome::Object(kind.tidy(new).ok()?))
}

/// What the server gives every new object.
fn admit(metadata: &mut Map<String, Value>, call: &Call) {
    for field in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"]
    {
        metadata.shift_remove(field);
    }
    if !call.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), call.namespace.clone().into());
    }
    metadata.insert("uid".to_owned(), UID.into());
    metadata.insert("creationTimestamp".to_owned(), TIME.into());
    let prefix = metadata.get("generateName").and_then(Value::as_str).filter(|prefix| !prefix.is_empty());
    if let (Some(prefix), None | Some("")) = (prefix, metadata.get("name").and_then(Value::as_str)) {
        metadata.insert("name".to_owned(), format!("{prefix}x").into());
    }
}

/// What the server keeps of the old object.
fn carry(metadata: &mut Map<String, Value>, old: &Value) {
    metadata.shift_remove("selfLink");
    for field in ["uid", "namespace", "resourceVersion", "name"] {
        let missing = metadata.get(field).and_then(Value::as_str).is_none_or(str::is_empty);
        if missing && !old[field].is_null() {
            metadata.insert(field.to_owned(), old[field].clone());
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if !old[field].is_null() && (field == "creationTimestamp" || metadata.get(field).is_none_or(Value::is_null)) {
            metadata.insert(field.to_owned(), old[field].clone());
        }
    }
    if metadata.get("resourceVersion").is_none_or(|version| version == "") {
        metadata.insert("resourceVersion".to_owned(), "1".into());
    }
}

const UID: &str = "00000000-0000-4000-8000-000000000000";
const TIME: &str = "2026-01-01T00:00:00Z";

/// A recorded object as one to go on with.
fn settle(recorded: &Value) -> Value {
    let text = recorded.to_string().replace("<time>", TIME).replace("<uid>", UID).replace("\"<rv>\"", "\"1\"");
    let ip = recorded.pointer("/status/hostIPs/0/ip").and_then(Value::as_str).unwrap_or("10.96.0.10");
    let text = text.replace("\"hostIP\":\"<ip>\"", &format!("\"hostIP\":\"{ip}\""));
    let ip = recorded.pointer("/status/podIPs/0/ip").and_then(Value::as_str).unwrap_or("10.96.0.10");
    let text = text.replace("\"<ip>\"", &format!("\"{ip}\"")).replace("\"<port>\"", "30000");
    serde_json::from_str(&text).expect("JSON")
}

/// Times and uids as recordings show them.
fn settle_text(text: &str) -> String {
    let mut out = text.replace(TIME, "<time>");
    for (len, mark) in [(20, "<time>"), (36, "<uid>")] {
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit() || b"-:TZ".contains(&b));
        let dashes = |part: &str| part.bytes().filter(|b| *b == b'-').count();
        let is = |part: &str| match len {
            20 => digits(part) && part.ends_with('Z') && dashes(part) == 2 && part.as_bytes()[10] == b'T',
            _ => digits(part) && dashes(part) == 4,
        };
        let starts: Vec<usize> = out.match_indices('"').map(|(at, _)| at + 1).collect();
        for at in starts.into_iter().rev() {
            if out.get(at..at + len).is_some_and(is) && out[at + len..].starts_with('"') {
                out.replace_range(at..at + len, mark);
            }
        }
    }
    out
}

/// The first difference.
fn compare(kind: &Kind, wanted: &Value, got: &Value) -> Option<String> {
    let (mut wanted, mut got) = (wanted.clone(), got.clone());
    let of = |name: &str| name.is_empty() || name == &*kind.kind;
    for path in NOT_THE_KINDS_OWN.iter().filter(|(name, _)| of(name)).flat_map(|(_, paths)| *paths) {
        for side in [&mut wanted, &mut got] {
            let (parent, field) = path.rsplit_once('/').expect("a path of two");
            if let Some(parent) = side.pointer_mut(&format!("/{parent}")).and_then(Value::as_object_mut) {
                parent.shift_remove(field);
            }
        }
    }
    for side in [&mut wanted, &mut got] {
        without_account(side);
    }
    difference(&wanted, &got, "")
}

/// Pods without the volume of their account, which admission mounts.
fn without_account(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let of_account = |volume: &Value| volume["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-"));
    let strip = |owner: &mut Map<String, Value>, field: &str| {
        let Some(list) = owner.get_mut(field).and_then(Value::as_array_mut) else { return };
        list.retain(|volume| !of_account(volume));
        if list.is_empty() {
            owner.shift_remove(field);
        }
    };
    strip(spec, "volumes");
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                strip(container, "volumeMounts");
            }
        }
    }
}

fn difference(wanted: &Value, got: &Value, path: &str) -> Option<String> {
    match (wanted, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                difference(a, b, &format!("{path}/{key}"))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(at, (a, b))| difference(a, b, &format!("{path}/{at}")))
        }
        (Value::String(text), got) if text == "<port>" || (text.contains('<') && !got.is_null()) => None,
        _ if wanted == got => None,
        _ => Some(format!("{path}: wanted {wanted}, got {got}")),
    }
}

fn compare_causes(wanted: &[Value], got: &[String]) -> Option<String> {
    let text = |cause: &Value| {
        let (field, message) =
            (cause["field"].as_str().unwrap_or("<nil>"), cause["message"].as_str().unwrap_or_default());
        // Differences of objects are not recorded and cannot be held against anything.
        format!("{field}: {message}")
    };
    let wanted: Vec<String> = wanted.iter().map(text).collect();
    let missing: Vec<&String> = wanted.iter().filter(|cause| !got.contains(cause)).collect();
    let more: Vec<&String> = got.iter().filter(|cause| !wanted.contains(cause)).collect();
    if missing.is_empty() && more.is_empty() {
        return (wanted != got).then(|| format!("order: wanted {wanted:#?}, got {got:#?}"));
    }
    Some(format!("missing {missing:#?}\nnot wanted {more:#?}"))
}
