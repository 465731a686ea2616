//! Objects in another form: Tables and partial metadata. The columns and rows are the kind's; only which of its
//! objects is the default one is looked up.

use std::sync::Arc;

use api::Status;
use jiff::Timestamp;
use kinds::{Behaviour, Column, Custom, Kind, custom};
use serde_json::{Map, Value, json};

use crate::accept::{Accept, Include, MetaVersion, Transform};
use crate::serve::Cx;
use crate::state::State;

/// One object in the form that was agreed on.
pub fn object(cx: &Cx<'_>, kind: &Kind, object: Value, accept: Accept) -> Result<Value, Status> {
    match accept.transform {
        None => Ok(object),
        Some(Transform::Table(version)) => {
            let metadata = table_metadata(&object);
            let mut table =
                table(kind, behaviour(kind, &object), vec![object], metadata, version, accept.include, cx.now);
            mark_default_of_all(cx.state, kind, &mut table);
            Ok(table)
        }
        Some(Transform::PartialObjectMetadata(version)) => Ok(partial(kind, object, version)),
        // What is kept as a map is asked whether it is a list.
        Some(Transform::PartialObjectMetadataList(_)) if kind.is_custom() => {
            Err(Status::unexplained("content is not a list"))
        }
        Some(Transform::PartialObjectMetadataList(_)) => {
            let what = format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                go_type(kind, "")
            );
            Err(Status::failure(406, api::Reason::NotAcceptable, what))
        }
    }
}

/// A list in the form that was agreed on.
pub fn list(cx: &Cx<'_>, kind: &Kind, items: Vec<Value>, metadata: Value, accept: Accept) -> Result<Value, Status> {
    match accept.transform {
        None => Ok(plain_list(kind, items, metadata)),
        Some(Transform::Table(version)) => {
            let default = kind.behaviour.default_of.and_then(|of| of(&items)).map(str::to_owned);
            let mut table = table(kind, kept_behaviour(kind), items, metadata, version, accept.include, cx.now);
            mark(&mut table, default.as_deref());
            Ok(table)
        }
        Some(Transform::PartialObjectMetadata(_)) => {
            let what = format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                go_type(kind, "List")
            );
            Err(Status::failure(406, api::Reason::NotAcceptable, what))
        }
        Some(Transform::PartialObjectMetadataList(version)) => {
            let items: Vec<Value> = items.into_iter().map(|item| partial(kind, item, version)).collect();
            Ok(json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": version.api_version(),
                "metadata": metadata,
                // Go makes this list item by item, and none of nothing.
                "items": if items.is_empty() { Value::Null } else { items.into() },
            }))
        }
    }
}

/// The list document of a kind.
pub fn plain_list(kind: &Kind, mut items: Vec<Value>, metadata: Value) -> Value {
    if kind.is_custom() {
        let metadata = custom_metadata(metadata);
        return json!({"apiVersion": kind.api_version(), "items": items, "kind": &*kind.list_kind, "metadata": metadata});
    }
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.shift_remove("kind");
        item.shift_remove("apiVersion");
    }
    json!({"kind": &*kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
}

/// `ListMeta` of a list of custom resources: Go writes a map, which always says how the list goes on.
pub fn custom_metadata(mut metadata: Value) -> Value {
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.entry("continue").or_insert_with(|| "".into());
    }
    metadata.sort_all_objects();
    metadata
}

/// `PartialObjectMetadata` of an object: a struct of Go, with its fields in their order, also where a custom resource, which is a map,
/// has them by name.
pub fn partial(kind: &Kind, mut object: Value, version: MetaVersion) -> Value {
    let mut metadata = object["metadata"].take();
    hide_annotations(&mut metadata, kind.behaviour.annotations_of_versions);
    let metadata = if kind.is_custom() { custom::struct_metadata(metadata) } else { metadata };
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata})
}

fn hide_annotations(metadata: &mut Value, keys: &[&str]) {
    let Some(metadata) = metadata.as_object_mut().filter(|_| !keys.is_empty()) else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    annotations.retain(|key, _| !keys.contains(&key.as_str()));
    if annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
}

/// The table of one watch event.
pub fn watched_table(state: &State, kind: &Kind, object: Value, accept: Accept, columns: bool) -> Value {
    let version = match accept.transform {
        Some(Transform::Table(version)) => version,
        _ => MetaVersion::V1,
    };
    let metadata = table_metadata(&object);
    let mut table =
        table(kind, kept_behaviour(kind), vec![object], metadata, version, accept.include, Timestamp::now());
    mark_default_of_all(state, kind, &mut table);
    if !columns {
        table["columnDefinitions"] = Value::Null;
    }
    table
}

/// An object alone in a table is marked where it is the default of all there are; in a list, the default of the list is.
fn mark_default_of_all(state: &State, kind: &Kind, table: &mut Value) {
    if let Some(of) = kind.behaviour.default_of {
        mark(table, of(&state.list(&kind.group, &kind.plural)));
    }
}

fn mark(table: &mut Value, default: Option<&str>) {
    let rows = table["rows"].as_array_mut().into_iter().flatten();
    for name in rows.filter_map(|row| row["cells"].get_mut(0)) {
        if name.is_string() && name.as_str() == default {
            *name = json!(format!("{} (default)", default.unwrap_or_default()));
        }
    }
}

/// An object of a kind with nothing in it, as Go encodes its zero value.
pub fn empty(kind: &Kind) -> Value {
    if kind.is_custom() {
        return json!({"apiVersion": kind.api_version(), "kind": &*kind.kind});
    }
    let mut out = kind.zero();
    let root = match &mut out {
        Value::Object(root) => root,
        _ => return out,
    };
    let mut object = Map::new();
    object.insert("kind".into(), json!(&*kind.kind));
    object.insert("apiVersion".into(), json!(kind.api_version()));
    for (key, value) in std::mem::take(root) {
        if !matches!(key.as_str(), "kind" | "apiVersion") {
            object.insert(key, value);
        }
    }
    Value::Object(object)
}

const NAME: Column = Column {
    name: "Name",
    type_: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

const CREATED_AT: Column = Column {
    name: "Created At",
    type_: "date",
    format: "",
    description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    priority: 0,
};

/// What is special about an object: mostly its resource's, but `scale` answers objects of another kind.
fn behaviour(kind: &Kind, object: &Value) -> &'static Behaviour {
    match object["kind"].as_str() {
        Some(own) if own != &*kind.kind => {
            let api_version = object["apiVersion"].as_str().unwrap_or_default();
            kinds::builtin::behaviour(api_version.split_once('/').map_or("", |(group, _)| group), own)
        }
        _ => kept_behaviour(kind),
    }
}

/// Rows are made of objects as they are kept, whatever version asks for them.
fn kept_behaviour(kind: &Kind) -> &'static Behaviour {
    match kind.kept() {
        Some(kept) => kinds::builtin::behaviour(kept.group, &kind.kind),
        None => kind.behaviour,
    }
}

/// The metadata of a table of one object, which has no version where it was not stored.
fn table_metadata(object: &Value) -> Value {
    match object["metadata"]["resourceVersion"].as_str() {
        Some(version) => json!({"resourceVersion": version}),
        None => json!({}),
    }
}

fn table(
    kind: &Kind,
    behaviour: &Behaviour,
    objects: Vec<Value>,
    metadata: Value,
    version: MetaVersion,
    include: Include,
    now: Timestamp,
) -> Value {
    let own = behaviour.columns;
    let default = [NAME, CREATED_AT];
    let columns: &[Column] = if own.is_empty() { &default } else { own };
    // What stands for a part of a custom resource has no columns of it.
    let custom = kind.custom.as_ref().filter(|_| objects.iter().all(|object| object["kind"] == json!(&*kind.kind)));
    let definitions = match custom {
        None => columns.iter().map(definition).collect(),
        Some(custom) => custom_definitions(custom),
    };
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|mut object| {
            let mut kept = None;
            if kind.kept().is_some() && !own.is_empty() {
                // What was read comes as it is kept, what was written as the client has it.
                if object["apiVersion"] == json!(kind.api_version()) {
                    kept = Some(kind.to_kept(object.clone()));
                } else {
                    let shown = kind.from_kept(object.clone());
                    kept = Some(std::mem::replace(&mut object, shown));
                }
            }
            let shaped = kept.as_ref().unwrap_or(&object);
            let cells = match own {
                _ if custom.is_some() => custom_cells(custom, &object, now),
                [] => vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()],
                _ => (behaviour.row)(shaped, now),
            };
            let mut row = json!({"cells": cells});
            let conditions = (behaviour.row_conditions)(shaped);
            if !conditions.is_empty() {
                row["conditions"] = conditions.into();
            }
            row["object"] = match include {
                Include::None => Value::Null,
                Include::Object => object,
                Include::Metadata => partial(kind, object, version),
            };
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": version.api_version(),
        "metadata": metadata,
        "columnDefinitions": definitions,
        // The general conversion makes rows one by one, and none of nothing.
        "rows": if rows.is_empty() && custom.is_none() && (own.is_empty() || behaviour.no_rows_are_null) { Value::Null } else { rows.into() },
    })
}

fn definition(c: &Column) -> Value {
    json!({"name": c.name, "type": c.type_, "format": c.format, "description": c.description, "priority": c.priority})
}

fn custom_definitions(custom: &Custom) -> Vec<Value> {
    let own = custom.columns.iter().map(|c| {
        json!({"name": &*c.name, "type": &*c.type_, "format": &*c.format, "description": &*c.description, "priority": c.priority})
    });
    std::iter::once(definition(&NAME)).chain(own).collect()
}

fn custom_cells(custom: Option<&Arc<Custom>>, object: &Value, now: Timestamp) -> Vec<Value> {
    let columns = custom.map(|custom| custom.columns.as_slice()).unwrap_or_default();
    let name = object["metadata"]["name"].clone();
    std::iter::once(name).chain(columns.iter().map(|column| column.cell(object, now))).collect()
}

/// The Go type that an error text names: `*core.ConfigMap`.
fn go_type(kind: &Kind, suffix: &str) -> String {
    if kind.is_custom() {
        return format!("*unstructured.Unstructured{suffix}");
    }
    let group = kind.kept().map_or(&*kind.group, |kept| kept.group).split('.').next().unwrap_or_default();
    let package = if group.is_empty() { "core" } else { group };
    format!("*{package}.{}{suffix}", kind.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_a_table_is_marked() {
        let check = |default: Option<&str>, want: [&str; 2]| {
            let mut table = json!({"rows": [{"cells": ["a", "p"]}, {"cells": ["b", "a"]}]});
            mark(&mut table, default);
            assert_eq!(table, json!({"rows": [{"cells": [want[0], "p"]}, {"cells": [want[1], "a"]}]}));
        };
        check(None, ["a", "b"]);
        check(Some("a"), ["a (default)", "b"]);
        check(Some("c"), ["a", "b"]);
    }
}
