//! Reading and writing what all objects have: names, versions, labels, owners. Works on plain JSON values.

use serde_json::{Map, Value};

use crate::Object;

/// Fields through which it is quicker to look one by one than to hash a name.
const LOOKED_THROUGH_MAX: usize = 16;

/// The value of a key. What is asked of every object that is written asks here: most objects are small.
pub fn field<'a>(map: &'a Object, key: &str) -> Option<&'a Value> {
    match map.len() <= LOOKED_THROUGH_MAX {
        true => map.iter().find(|(name, _)| *name == key).map(|(_, value)| value),
        false => map.get(key),
    }
}

/// The same to write to.
pub fn field_mut<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Value> {
    match map.len() <= LOOKED_THROUGH_MAX {
        true => map.iter_mut().find(|(name, _)| *name == key).map(|(_, value)| value),
        false => map.get_mut(key),
    }
}

/// The value of a key; none where the object is none.
pub fn get<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.as_object().and_then(|map| field(map, key))
}

/// `metadata.X` of an object as text, `""` where it is absent or no text.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    get(object, "metadata").and_then(|m| get(m, field)).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.deletionTimestamp` is set.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// A label, annotation: `entry(object, "labels", "app")`.
pub fn entry<'a>(object: &'a Value, map: &str, key: &str) -> Option<&'a str> {
    get(get(get(object, "metadata")?, map)?, key)?.as_str()
}

/// The labels of an object.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    let labels = get(object, "metadata").and_then(|m| get(m, "labels")).and_then(Value::as_object);
    labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    let list = get(object, "metadata").and_then(|m| get(m, "finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// `metadata` to write to; made when it is missing or no object.
pub fn metadata_mut(object: &mut Value) -> &mut Object {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    match metadata {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The value at a path of field names: `at(pod, &["spec", "nodeName"])`.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, field| get(value, field))
}

/// As [`at`], as text, `""` where there is none.
pub fn text_at<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list at a path, none where there is no list.
pub fn items_at<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The group of an `apiVersion`: `""` for `v1`.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// `group/version`, or the version alone for the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}
