//! Brings an object that code has changed into the form in which Go writes it, in place: fields in order, what Go leaves
//! out left out. For objects that were read before: values are only looked at, not read again.

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

    /// What is tidied in place is what reading it again gives, but for empty lists that are stored as none.
    #[test]
    fn tidying_is_reading_again() {
        let registry = crate::builtin();
        let check = |group: &str, plural: &str, object: Value| {
            let kind = registry.kind(group, "v1", plural).unwrap();
            let mut read = crate::decode::normalize(&kind.schema, kind.root, object.clone()).unwrap().object;
            assert!(tidy(&kind.schema, kind.root, &mut read).is_ok());
            assert_eq!(kind.tidy(object).unwrap().to_string(), read.to_string());
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
