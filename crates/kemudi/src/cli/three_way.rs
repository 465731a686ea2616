//! The patch of a client-side apply, from three values: what was applied last, what is wished now, what is there.
//! A field that was applied and is wished no more goes; a field of others stays. Pure.

use kinds::schema::{Field, Schema, Shape, TypeId};
use serde_json::{Map, Value, json};

/// Where in a type we are; `None` for custom resources and free-form maps, whose lists are replaced as a whole.
type Place<'a> = Option<(&'a Schema, TypeId)>;

/// The patch that makes `current` what `modified` says: a strategic merge patch where the type is known, a JSON merge
/// patch where it is not. Empty where there is nothing to do.
pub fn patch(place: Place, original: &Value, modified: &Value, current: &Value) -> Value {
    Value::Object(maps(place, original, modified, current))
}

fn maps(place: Place, original: &Value, modified: &Value, current: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, wish) in modified.as_object().into_iter().flatten() {
        let field = place.and_then(|(schema, id)| schema.get(id).fields.iter().find(|field| *field.name == **name));
        let (before, now) = (&original[name.as_str()], &current[name.as_str()]);
        match (wish, now) {
            (Value::Null, Value::Null) => {}
            (wish, now) if wish == now => {}
            (Value::Object(_), Value::Object(_)) => {
                let mut inner = maps(inside(place, field), before, wish, now);
                if inner.is_empty() {
                    continue;
                }
                if field.is_some_and(|field| field.patch.retain_keys) {
                    inner.insert("$retainKeys".to_string(), keys(wish));
                }
                out.insert(name.clone(), Value::Object(inner));
            }
            (Value::Array(wish), Value::Array(now)) => match field.filter(|field| field.patch.merge) {
                Some(field) => lists(place, field, before, wish, now, &mut out),
                None => drop(out.insert(name.clone(), json!(wish))),
            },
            _ => drop(out.insert(name.clone(), wish.clone())),
        }
    }
    let dropped = |name: &&String| modified.get(name.as_str()).is_none() && current.get(name.as_str()).is_some();
    for name in original.as_object().into_iter().flat_map(Map::keys).filter(dropped) {
        out.insert(name.clone(), Value::Null);
    }
    out
}

/// A list that is merged: by key, or as a set where its items have none.
fn lists(place: Place, field: &Field, before: &Value, wish: &[Value], now: &[Value], out: &mut Map<String, Value>) {
    let before = before.as_array().map(Vec::as_slice).unwrap_or_default();
    let name = &field.name;
    let Some(key) = &field.patch.merge_key else {
        let new: Vec<&Value> = wish.iter().filter(|item| !now.contains(item)).collect();
        let gone: Vec<&Value> = before.iter().filter(|item| !wish.contains(item) && now.contains(item)).collect();
        if !gone.is_empty() {
            out.insert(format!("$deleteFromPrimitiveList/{name}"), json!(gone));
        }
        if !new.is_empty() {
            out.insert(format!("$setElementOrder/{name}"), json!(wish));
            out.insert(name.to_string(), json!(new));
        }
        return;
    };
    let of = |items: &'_ [Value], wanted: &Value| items.iter().position(|item| item.get(&**key) == Some(wanted));
    let mut changes = Vec::new();
    for item in wish {
        let id = &item[&**key];
        match of(now, id) {
            None => changes.push(item.clone()),
            Some(at) => {
                let before = of(before, id).map_or(&Value::Null, |at| &before[at]);
                let mut change = maps(inside(place, Some(field)), before, item, &now[at]);
                if !change.is_empty() {
                    if field.patch.retain_keys {
                        change.insert("$retainKeys".to_string(), keys(item));
                    }
                    change.insert(key.to_string(), id.clone());
                    changes.push(Value::Object(change));
                }
            }
        }
    }
    for item in before {
        let id = &item[&**key];
        if of(wish, id).is_none() && of(now, id).is_some() {
            changes.push(json!({"$patch": "delete", &**key: id}));
        }
    }
    if !changes.is_empty() {
        let order: Vec<Value> = wish.iter().map(|item| json!({&**key: item[&**key]})).collect();
        out.insert(format!("$setElementOrder/{name}"), Value::Array(order));
        out.insert(name.to_string(), Value::Array(changes));
    }
}

/// The type of a field's value, or of its list's items.
fn inside<'a>(place: Place<'a>, field: Option<&Field>) -> Place<'a> {
    let (schema, _) = place?;
    match &field?.shape {
        Shape::Struct(id) => Some((schema, *id)),
        Shape::List(item, _) => match **item {
            Shape::Struct(id) => Some((schema, id)),
            _ => None,
        },
        _ => None,
    }
}

fn keys(value: &Value) -> Value {
    let mut keys: Vec<&String> = value.as_object().into_iter().flat_map(Map::keys).collect();
    keys.sort();
    json!(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: &str, original: Value, modified: Value, current: Value, want: &str) {
        let registry = kinds::builtin();
        let kind = registry.by_kind("", "v1", kind);
        let place = kind.map(|kind| (&*kind.schema, kind.root));
        assert_eq!(patch(place, &original, &modified, &current).to_string(), want);
    }

    #[test]
    fn maps_are_merged_three_ways() {
        check("ConfigMap", json!({}), json!({"data": {"a": "1"}}), json!({"data": {"a": "1", "b": "2"}}), "{}");
        check(
            "ConfigMap",
            json!({"data": {"a": "1", "z": "2"}}),
            json!({"data": {"a": "3"}}),
            json!({"data": {"a": "1", "z": "2", "other": "x"}}),
            r#"{"data":{"a":"3","z":null}}"#,
        );
    }

    #[test]
    fn lists_are_merged_by_key() {
        let pod = |containers: Value| json!({"spec": {"containers": containers}});
        check(
            "Pod",
            pod(json!([{"name": "a", "image": "x:1"}, {"name": "gone", "image": "y"}])),
            pod(json!([{"name": "a", "image": "x:2"}])),
            pod(
                json!([{"name": "a", "image": "x:1", "imagePullPolicy": "Always"}, {"name": "gone", "image": "y"}, {"name": "side"}]),
            ),
            r#"{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"image":"x:2","name":"a"},{"$patch":"delete","name":"gone"}]}}"#,
        );
        check("Pod", json!({}), pod(json!([{"name": "a"}])), pod(json!([{"name": "a", "image": "x"}])), "{}");
        check(
            "CronTab",
            json!({}),
            json!({"spec": {"list": [1]}}),
            json!({"spec": {"list": [1, 2]}}),
            r#"{"spec":{"list":[1]}}"#,
        );
    }
}
