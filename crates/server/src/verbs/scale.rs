//! The `scale` subresource: a small object that stands for the replicas of a bigger one, whatever its kind. Who owns the
//! replicas of the one owns those of the other.

use std::borrow::Cow;

use api::status::GroupResource;
use api::{Status, WriteOptions, go, meta};
use http::header;
use kinds::fieldset::{Element, Filter};
use kinds::managed::{self, Write};
use kinds::{Kind, Registry, Subresource};
use serde_json::{Value, json};

use super::body::Wanted;
use super::patch::{self, Subject, View};
use super::write::{Part, change_object, invalid, place, timestamp};
use super::{At, subresource};
use crate::respond::Answer;
use crate::serve::{Cx, RequestBody};
use crate::transform;

const API_VERSION: &str = "autoscaling/v1";

/// GET, PUT and PATCH of `Scale`.
pub async fn answer(
    cx: &Cx<'_>,
    at: &At<'_>,
    sub: &Subresource,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    at.check_name()?;
    let shown = |object: &Value| -> Result<Answer, Status> {
        Ok(Answer::ok(transform::object(cx, at.kind, scale_of(at.kind, object), cx.accept)?))
    };
    if cx.ask.method == "GET" {
        let entry = cx.state.collection(at.kind)?.get(&at.key()).ok_or_else(|| at.not_found())?;
        let object = at.value(&entry);
        if let Some(scale) = at.kind.custom.as_ref().and_then(|custom| custom.scale.as_ref())
            && object.pointer(&scale.spec_replicas).is_none()
        {
            let path = go::quote(&scale.spec_replicas.replace('/', "."));
            return Err(Status::internal(format!("the spec replicas field {path} does not exist")));
        }
        return shown(&object);
    }
    let registry = cx.state.registry.load();
    let part = Part::Other("scale");
    if cx.ask.method == "PUT" {
        let options = WriteOptions::update(&cx.ask.query)?;
        let wanted = subresource::own_body(cx, at, sub, body, options.field_validation, warnings).await?;
        let wanted = place(at, wanted, Some(&at.target.name))?;
        let scale = Scale::new(cx, at, sub, &registry, &options);
        let change = |old: &Value| scale.put(old, wanted.clone(), false);
        let stored = change_object(cx, at, part, &patch::owned(&options), warnings, false, change).await?;
        return shown(&stored.into_object());
    }
    let options = WriteOptions {
        field_manager: cx.ask.query.get("fieldManager").unwrap_or_default().into(),
        ..WriteOptions::default()
    };
    let view = Scale::new(cx, at, sub, &registry, &options);
    let wanted = Wanted {
        registry: &registry,
        kind: at.kind,
        group: &sub.group,
        version: &sub.version,
        kind_name: &sub.kind,
        root: sub.root,
    };
    let (_, stored) = patch::patch_subject(cx, at, Subject { part, wanted, view: &view }, body, warnings).await?;
    shown(&stored.into_object())
}

/// The scale of an object, for one request that writes it.
struct Scale<'a> {
    at: &'a At<'a>,
    sub: &'a Subresource,
    manager: String,
    now: String,
    /// Where the replicas are, in each version that is served.
    paths: Vec<(String, Option<Vec<Element>>)>,
}

impl<'a> Scale<'a> {
    fn new(
        cx: &Cx<'_>,
        at: &'a At<'a>,
        sub: &'a Subresource,
        registry: &Registry,
        options: &WriteOptions,
    ) -> Scale<'a> {
        let agent = cx.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let versions = registry.group(&at.kind.group).map(|group| group.versions.as_slice()).unwrap_or_default();
        let kinds = versions.iter().filter_map(|version| version.kind(&at.kind.plural));
        let path = |kind: &Kind| kind.subresource("scale").map(|_| elements(spec_replicas(kind)));
        Scale {
            at,
            sub,
            manager: managed::manager_name(&options.field_manager, agent),
            now: timestamp(cx.now),
            paths: kinds.map(|kind| (kind.api_version(), path(kind))).collect(),
        }
    }

    fn paths(&self) -> Vec<(&str, Option<Vec<Element>>)> {
        self.paths.iter().map(|(version, path)| (version.as_str(), path.clone())).collect()
    }
}

impl View for Scale<'_> {
    fn of<'o>(&self, object: &'o Value) -> Result<Cow<'o, Value>, Status> {
        let mut scale = scale_of(self.at.kind, object);
        let entries = managed::to_scale(&object["metadata"]["managedFields"], &self.paths());
        let entries = entries.map_err(Status::unexplained)?;
        if !entries.is_null() {
            scale["metadata"]["managedFields"] = entries;
        }
        Ok(Cow::Owned(scale))
    }

    fn put(&self, object: &Value, mut scale: Value, applied: bool) -> Result<Value, Status> {
        let kind = self.at.kind;
        if !applied {
            let write = Write {
                manager: &self.manager,
                api_version: API_VERSION,
                kind: &self.sub.kind,
                subresource: &self.sub.name,
                now: &self.now,
                owned: &Filter::All,
                convert: &managed::one_version,
            };
            managed::update(&kind.schema, self.sub.root, Some(&*self.of(object)?), &mut scale, &write);
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        // Custom resources are validated as a whole.
        if replicas < 0 && !kind.is_custom() {
            let cause = kinds::Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
            return Err(invalid("autoscaling", "Scale", meta::name(object), vec![cause]));
        }
        let (given, uid) = (meta::uid(&scale), meta::uid(object));
        if !given.is_empty() && given != uid {
            let resource = format!("{}/{}", kind.plural, self.sub.name);
            let of = GroupResource { group: &kind.group, resource: &resource };
            let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
            return Err(Status::conflict(of, meta::name(object), why));
        }
        let mut new = object.clone();
        let pointer = spec_replicas(kind);
        set(&mut new, pointer, json!(replicas));
        let (before, after) = (&object["metadata"]["managedFields"], &scale["metadata"]["managedFields"]);
        let entries = managed::from_scale(before, after, &kind.api_version(), &self.paths());
        let metadata = meta::metadata_mut(&mut new);
        match entries.map_err(Status::unexplained)? {
            Value::Null => metadata.shift_remove("managedFields"),
            entries => metadata.insert("managedFields".into(), entries),
        };
        match meta::resource_version(&scale) {
            "" => metadata.shift_remove("resourceVersion"),
            version => metadata.insert("resourceVersion".into(), json!(version)),
        };
        Ok(new)
    }

    fn owns(&self) -> bool {
        true
    }
}

/// Where the wanted replicas are, as a JSON pointer.
fn spec_replicas(kind: &Kind) -> &str {
    custom(kind).map_or("/spec/replicas", |scale| &scale.spec_replicas)
}

fn custom(kind: &Kind) -> Option<&kinds::custom::Scale> {
    kind.custom.as_ref()?.scale.as_ref()
}

/// Where the replicas that are there are told.
fn status_replicas(kind: &Kind) -> &str {
    custom(kind).map_or("/status/replicas", |scale| &scale.status_replicas)
}

fn elements(pointer: &str) -> Vec<Element> {
    pointer.split('/').skip(1).map(Element::field).collect()
}

/// Puts a value where a pointer leads, through objects that may have to be made.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for step in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[step];
    }
    *place = value;
}

fn scale_of(kind: &Kind, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut shown = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !metadata[field].is_null() {
            shown[field] = metadata[field].clone();
        }
    }
    let mut scale = json!({"kind": "Scale", "apiVersion": API_VERSION, "metadata": shown, "spec": {}, "status": {}});
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let replicas = number(spec_replicas(kind));
    if replicas != 0 {
        scale["spec"]["replicas"] = json!(replicas);
    }
    scale["status"]["replicas"] = json!(number(status_replicas(kind)));
    let selector = match custom(kind) {
        None => selector_text(&object["spec"]["selector"]),
        Some(scale) => {
            let text = scale.selector.as_ref().and_then(|pointer| object.pointer(pointer)).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        }
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

fn selector_text(selector: &Value) -> String {
    let labels = match selector["matchLabels"].as_object() {
        Some(labels) => Some(labels),
        // A ReplicationController selects by a plain map.
        None => selector.as_object().filter(|map| map.values().all(Value::is_string)),
    };
    let mut terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = term["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        terms.push(match term["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_string(),
        });
    }
    terms.sort();
    terms.join(",")
}
