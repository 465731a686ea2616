//! Brings an object that code has changed into the form in which Go writes it: fields in order, what Go leaves out left out.
//! In place, or on the way into its JSON. For objects that were read before: values are only looked at, not read again.

use api::codec::{write_text, write_value};
use serde_json::{Map, Value};

use crate::decode::{Written, absent, written};
use crate::schema::{Alternative, Field, Schema, Shape, Type, TypeId};

/// A value is of another type than its field: code has put it there, or the object was never read.
pub(crate) struct Unlike;

pub(crate) fn tidy(schema: &Schema, root: TypeId, object: &mut Value) -> Result<(), Unlike> {
    match object {
        Value::Object(map) => tidy_struct(schema, root, map),
        _ => Err(Unlike),
    }
}

fn tidy_struct(schema: &Schema, id: TypeId, map: &mut Map<String, Value>) -> Result<(), Unlike> {
    let Type { fields, preserve_unknown, .. } = schema.get(id);
    // Most structs are as they should be; the others are put together anew.
    let (mut next, mut right) = (0, true);
    for (key, value) in map.iter_mut() {
        let Some(at) = position(fields, key, next) else {
            right = right && *preserve_unknown;
            continue;
        };
        let field = &fields[at];
        if !value.is_null() {
            tidy_value(schema, &field.shape, value)?;
        }
        right = right
            && at >= next
            && fields[next..at].iter().all(|field| absent(schema, field).is_none())
            && match value {
                Value::Null => absent(schema, field).is_some_and(|absent| absent.is_null()),
                value => matches!(written(field, value), Written::AsItIs),
            };
        next = at + 1;
    }
    if right && fields[next.min(fields.len())..].iter().all(|field| absent(schema, field).is_none()) {
        return Ok(());
    }
    let mut slots: Vec<Option<(String, Value)>> = Vec::with_capacity(fields.len());
    slots.resize_with(fields.len(), || None);
    let mut unknown = Map::new();
    for (key, value) in std::mem::take(map) {
        match position(fields, &key, 0) {
            Some(at) => slots[at] = Some((key, value)),
            None if *preserve_unknown => {
                unknown.insert(key, value);
            }
            None => {}
        }
    }
    for (field, slot) in fields.iter().zip(slots) {
        match slot.filter(|(_, value)| !value.is_null()) {
            Some((key, value)) => match written(field, &value) {
                Written::AsItIs => {
                    map.insert(key, value);
                }
                Written::Null => {
                    map.insert(key, Value::Null);
                }
                Written::LeftOut => {}
            },
            None => {
                if let Some(value) = absent(schema, field) {
                    map.insert(field.name.to_string(), value);
                }
            }
        }
    }
    map.extend(unknown);
    Ok(())
}

fn tidy_value(schema: &Schema, shape: &Shape, value: &mut Value) -> Result<(), Unlike> {
    match (shape, value) {
        (Shape::Struct(id) | Shape::StructOr(id, _), Value::Object(map)) => tidy_struct(schema, *id, map),
        (Shape::StructOr(id, Alternative::List), Value::Array(items)) => {
            items.iter_mut().try_for_each(|item| tidy_value(schema, &Shape::Struct(*id), item))
        }
        (Shape::List(shape, _), Value::Array(items)) => {
            items.iter_mut().try_for_each(|item| tidy_value(schema, shape, item))
        }
        (Shape::Map(shape), Value::Object(map)) => {
            if !map.keys().is_sorted() {
                map.sort_keys();
            }
            map.values_mut().try_for_each(|value| tidy_value(schema, shape, value))
        }
        (shape, value) => plain(shape, value),
    }
}

/// Is a value that is no struct, list or map of its type?
fn plain(shape: &Shape, value: &Value) -> Result<(), Unlike> {
    match (shape, value) {
        (Shape::Any | Shape::Deduced | Shape::StructOr(..), _) => Ok(()),
        (Shape::Bool, Value::Bool(_)) => Ok(()),
        (Shape::Int32 | Shape::Int64, Value::Number(n)) if n.is_i64() => Ok(()),
        (Shape::Float | Shape::IntOrString, Value::Number(_)) => Ok(()),
        (
            Shape::String
            | Shape::Bytes
            | Shape::Time
            | Shape::MicroTime
            | Shape::Duration
            | Shape::Quantity
            | Shape::IntOrString,
            Value::String(_),
        ) => Ok(()),
        // Zero times stand in lists and maps too.
        (Shape::Time | Shape::MicroTime, Value::Null) => Ok(()),
        _ => Err(Unlike),
    }
}

/// The JSON of an object to be stored, as [`tidy`] would bring it into order: with a resource version, whatever it is, and
/// with the managed fields that are given, which are JSON, `null` for none.
pub(crate) fn to_json(schema: &Schema, root: TypeId, object: &Value, managed_fields: &str) -> Result<Vec<u8>, Unlike> {
    let map = object.as_object().ok_or(Unlike)?;
    let mut out = Vec::with_capacity(2048 + managed_fields.len());
    let mut writer = Writer { schema, slots: Vec::with_capacity(96), out: &mut out };
    writer.write_struct(root, map, Level::Object(managed_fields))?;
    Ok(out)
}

/// Where a struct stands.
#[derive(Clone, Copy)]
enum Level<'a> {
    /// It is the object, which is to have these managed fields.
    Object(&'a str),
    Metadata(&'a str),
    Below,
}

struct Writer<'s, 'v, 'o> {
    schema: &'s Schema,
    /// The fields of the structs that are being written, one range for each.
    slots: Vec<Option<&'v Value>>,
    out: &'o mut Vec<u8>,
}

impl<'v> Writer<'_, 'v, '_> {
    fn write_struct(&mut self, id: TypeId, map: &'v Map<String, Value>, level: Level<'_>) -> Result<(), Unlike> {
        let schema = self.schema;
        let Type { fields, preserve_unknown, .. } = schema.get(id);
        let base = self.slots.len();
        self.slots.resize(base + fields.len(), None);
        let (mut next, mut unknown) = (0, Vec::new());
        for (key, value) in map {
            match position(fields, key, next) {
                Some(at) => {
                    self.slots[base + at] = Some(value).filter(|value| !value.is_null());
                    next = at + 1;
                }
                None if *preserve_unknown => unknown.push((key, value)),
                None => {}
            }
        }
        let mut before = b'{';
        for (at, field) in fields.iter().enumerate() {
            let value = self.slots[base + at];
            match (level, &*field.name) {
                (Level::Metadata(_), "resourceVersion") => {
                    self.name(&mut before, "resourceVersion");
                    self.out.extend_from_slice(b"\"0\"");
                    continue;
                }
                (Level::Metadata(managed_fields), "managedFields") => {
                    if managed_fields != "null" {
                        self.name(&mut before, "managedFields");
                        self.out.extend_from_slice(managed_fields.as_bytes());
                    }
                    continue;
                }
                (Level::Object(managed_fields), "metadata") => {
                    self.name(&mut before, "metadata");
                    let (Shape::Struct(id), Some(Value::Object(map))) = (&field.shape, value) else {
                        return Err(Unlike);
                    };
                    self.write_struct(*id, map, Level::Metadata(managed_fields))?;
                    continue;
                }
                _ => {}
            }
            match value.map(|value| (value, written(field, value))) {
                Some((value, Written::AsItIs)) => {
                    self.name(&mut before, &field.name);
                    self.write(&field.shape, value)?;
                }
                Some((value, Written::Null)) => {
                    // It must be of its type all the same.
                    let start = self.out.len();
                    self.write(&field.shape, value)?;
                    self.out.truncate(start);
                    self.name(&mut before, &field.name);
                    self.out.extend_from_slice(b"null");
                }
                Some((value, Written::LeftOut)) => {
                    let start = self.out.len();
                    self.write(&field.shape, value)?;
                    self.out.truncate(start);
                }
                None => {
                    if let Some(value) = absent(schema, field) {
                        self.name(&mut before, &field.name);
                        write_value(self.out, &value);
                    }
                }
            }
        }
        self.slots.truncate(base);
        for (key, value) in unknown {
            self.name(&mut before, key);
            write_value(self.out, value);
        }
        self.out.extend_from_slice(if before == b'{' { b"{}" } else { b"}" });
        Ok(())
    }

    fn name(&mut self, before: &mut u8, name: &str) {
        self.out.push(std::mem::replace(before, b','));
        write_text(self.out, name);
        self.out.push(b':');
    }

    fn write(&mut self, shape: &Shape, value: &'v Value) -> Result<(), Unlike> {
        match (shape, value) {
            (Shape::Struct(id) | Shape::StructOr(id, _), Value::Object(map)) => {
                self.write_struct(*id, map, Level::Below)?;
            }
            (Shape::StructOr(id, Alternative::List), Value::Array(items)) => {
                self.write_items(&Shape::Struct(*id), items)?;
            }
            (Shape::List(shape, _), Value::Array(items)) => self.write_items(shape, items)?,
            (Shape::Map(shape), Value::Object(map)) => {
                let mut entries: Vec<(&String, &Value)> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                let mut before = b'{';
                for (key, value) in entries {
                    self.name(&mut before, key);
                    self.write(shape, value)?;
                }
                self.out.extend_from_slice(if before == b'{' { b"{}" } else { b"}" });
            }
            (shape, value) => {
                plain(shape, value)?;
                write_value(self.out, value);
            }
        }
        Ok(())
    }

    fn write_items(&mut self, shape: &Shape, items: &'v [Value]) -> Result<(), Unlike> {
        let mut before = b'[';
        for item in items {
            self.out.push(std::mem::replace(&mut before, b','));
            self.write(shape, item)?;
        }
        self.out.extend_from_slice(if before == b'[' { b"[]" } else { b"]" });
        Ok(())
    }
}

fn position(fields: &[Field], key: &str, likely: usize) -> Option<usize> {
    match fields.get(likely) {
        Some(field) if *field.name == *key => Some(likely),
        _ => fields.iter().position(|field| *field.name == *key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is tidied in place is what reading it again gives, but for empty lists that are stored as none; and what is
    /// tidied on its way is the same.
    #[test]
    fn tidying_is_reading_again() {
        let registry = crate::builtin();
        let check = |group: &str, plural: &str, object: Value| {
            let kind = registry.kind(group, "v1", plural).unwrap();
            let mut read = crate::decode::normalize(&kind.schema, kind.root, object.clone()).unwrap().object;
            assert!(tidy(&kind.schema, kind.root, &mut read).is_ok());
            let owners = json!([{"manager": "<a>", "fieldsV1": {}}]);
            let owned = api::codec::value_to_json(&owners);
            let mut at_once = object.clone();
            api::meta::metadata_mut(&mut at_once);
            let json = to_json(&kind.schema, kind.root, &at_once, std::str::from_utf8(&owned).unwrap());
            let like = tidy(&kind.schema, kind.root, &mut at_once).is_ok();
            assert_eq!(kind.tidy(object).unwrap().to_string(), read.to_string());
            let metadata = api::meta::metadata_mut(&mut read);
            metadata.insert("resourceVersion".into(), json!("0"));
            metadata.insert("managedFields".into(), owners);
            let read = kind.tidy(read).unwrap();
            // Both ways stop at the same objects, which are read again.
            let want = like.then(|| String::from_utf8(api::codec::value_to_json(&read)).unwrap());
            assert_eq!(json.ok().map(|json| String::from_utf8(json).unwrap()), want);
        };
        check("", "pods", json!({}));
        check(
            "",
            "pods",
            json!({"status": {"phase": "Pending"}, "metadata": {"labels": {"b": "1", "a": "2"}, "name": "x"}}),
        );
        check(
            "",
            "pods",
            json!({"metadata": null, "spec": {"volumes": [], "hostNetwork": false, "containers": [
            {"image": "", "name": "c", "resources": {"limits": {}}, "securityContext": {}, "tty": true, "bogus": 1}]}}),
        );
        check("rbac.authorization.k8s.io", "roles", json!({"metadata": {"name": "a"}, "rules": []}));
        check("", "events", json!({"involvedObject": {"name": "x"}, "firstTimestamp": null, "count": 0}));
        check(
            "apps",
            "deployments",
            json!({"spec": {"template": {"spec": {"containers": []}}, "replicas": 0, "paused": false}}),
        );
        check("", "replicationcontrollers", json!({"spec": {"replicas": 2.0}}));
    }
}
