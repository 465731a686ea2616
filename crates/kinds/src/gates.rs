//! Fields of feature gates that are off: what a client writes to them is dropped, as the API server drops it, without a
//! warning. Which these are is the table `schema/gates.txt`; nothing here turns a gate on.

use std::sync::{Arc, LazyLock};

use api::meta;
use serde_json::Value;

use crate::defaults::struct_of;
use crate::schema::{Schema, Shape, TypeId};
use crate::{Kind, tables};

const TABLE: &str = include_str!("../schema/gates.txt");

/// Gates, a bit each.
type Gates = u64;

/// What the table says of each type.
struct Marks {
    /// Its own fields, with their gate.
    gated: Vec<Vec<(Arc<str>, Gates)>>,
    /// Whether it or a type below it has such fields: most have none, and are not looked at.
    reach: Vec<bool>,
}

static MARKS: LazyLock<Marks> = LazyLock::new(|| {
    let schema = tables::schema();
    let mut gated = vec![Vec::new(); schema.types.len()];
    for (gate, fields) in table().enumerate() {
        for (of, field) in fields {
            if let Some(id) = schema.find(of) {
                gated[id.0 as usize].push((field.into(), 1 << gate));
            }
        }
    }
    let mut reach: Vec<bool> = gated.iter().map(|fields| !fields.is_empty()).collect();
    while let Some(at) = (0..reach.len()).find(|at| !reach[*at] && leads_on(schema, &reach, *at)) {
        reach[at] = true;
    }
    Marks { gated, reach }
});

/// The type and the name of each field of a gate, gate by gate.
fn table() -> impl Iterator<Item = impl Iterator<Item = (&'static str, &'static str)>> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(' ').skip(1).filter_map(|path| path.rsplit_once('.')))
}

fn leads_on(schema: &Schema, reach: &[bool], at: usize) -> bool {
    let mut below = schema.types[at].fields.iter().filter_map(|field| struct_of(&field.shape));
    below.any(|id| reach[id.0 as usize])
}

/// Drops what is written to the fields of gates that are off and that the old object did not use.
pub(crate) fn drop_disabled(kind: &Kind, new: &mut Value, old: Option<&Value>) {
    if !Arc::ptr_eq(&kind.schema, tables::schema()) || !MARKS.reach[kind.root.0 as usize] {
        return;
    }
    let mut new_uses = 0;
    used(kind.root, new, &mut new_uses);
    if new_uses == 0 {
        return;
    }
    let mut kept = 0;
    if let Some(old) = old {
        used(kind.root, old, &mut kept);
    }
    drop_fields(kind.root, new, kept);
}

/// The gates that an object uses.
fn used(id: TypeId, object: &Value, gates: &mut Gates) {
    let Some(map) = object.as_object() else { return };
    for (field, gate) in &MARKS.gated[id.0 as usize] {
        if meta::field(map, field).is_some_and(|value| !value.is_null()) {
            *gates |= gate;
        }
    }
    for field in &tables::schema().get(id).fields {
        if let (Some(below), Some(value)) = (below(&field.shape), meta::field(map, &field.name)) {
            each(&field.shape, value, &mut |value| used(below, value, gates));
        }
    }
}

fn drop_fields(id: TypeId, object: &mut Value, kept: Gates) {
    let Some(map) = object.as_object_mut() else { return };
    for (field, _) in MARKS.gated[id.0 as usize].iter().filter(|(_, gate)| gate & kept == 0) {
        map.shift_remove(&**field);
    }
    for field in &tables::schema().get(id).fields {
        if let (Some(below), Some(value)) = (below(&field.shape), map.get_mut(&*field.name)) {
            each_mut(&field.shape, value, &mut |value| drop_fields(below, value, kept));
        }
    }
}

/// The struct below a field, where it is worth a look.
fn below(shape: &Shape) -> Option<TypeId> {
    struct_of(shape).filter(|id| MARKS.reach[id.0 as usize])
}

fn each(shape: &Shape, value: &Value, look: &mut dyn FnMut(&Value)) {
    match (shape, value) {
        (Shape::List(item, _), Value::Array(items)) => items.iter().for_each(|value| each(item, value, look)),
        (Shape::Map(item), Value::Object(map)) => map.values().for_each(|value| each(item, value, look)),
        _ => look(value),
    }
}

fn each_mut(shape: &Shape, value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    match (shape, value) {
        (Shape::List(item, _), Value::Array(items)) => items.iter_mut().for_each(|value| each_mut(item, value, change)),
        (Shape::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| each_mut(item, value, change)),
        (_, value) => change(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_names_fields_that_there_are() {
        let mut gates = 0;
        for fields in table() {
            gates += 1;
            for (of, field) in fields {
                let id = tables::schema().find(of).unwrap_or_else(|| panic!("there is no type {of}"));
                let mut named = tables::schema().get(id).fields.iter();
                assert!(named.any(|one| &*one.name == field), "{of} has no field {field}");
            }
        }
        assert!((1..=Gates::BITS).contains(&gates), "{gates} gates");
    }

    #[track_caller]
    fn check(kind: (&str, &str, &str), old: Option<Value>, new: Value, want: Value) {
        let registry = tables::builtin();
        let kind = registry.kind(kind.0, kind.1, kind.2).unwrap();
        let mut new = new;
        drop_disabled(kind, &mut new, old.as_ref());
        assert_eq!(new, want);
    }

    #[test]
    fn fields_of_gates_that_are_off_are_dropped() {
        let pods = ("", "v1", "pods");
        let mount = |options: Value| json!({"spec": {"containers": [{"name": "a", "volumeMounts": [options]}]}});
        let plain = || mount(json!({"name": "v", "mountPath": "/v"}));
        let with = || mount(json!({"name": "v", "mountPath": "/v", "bindMountOptions": ["noexec"]}));
        check(pods, None, with(), plain());
        check(pods, Some(plain()), with(), plain());
        check(pods, None, plain(), plain());
    }

    #[test]
    fn what_is_used_already_stays() {
        let deployments = ("apps", "v1", "deployments");
        let of = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
        let used = of(json!({"volumes": [{"name": "a", "emptyDir": {"mode": 448}}]}));
        let more = of(json!({"volumes": [{"name": "b", "emptyDir": {"mode": 511}}], "schedulingGroup": {"x": "y"}}));
        let kept = of(json!({"volumes": [{"name": "b", "emptyDir": {"mode": 511}}]}));
        check(deployments, Some(used), more, kept);
    }

    #[test]
    fn how_the_holder_of_a_lease_is_chosen_is_not_kept() {
        let lease = json!({"spec": {"holderIdentity": "a", "strategy": "Odd", "preferredHolder": "b"}});
        let want = json!({"spec": {"holderIdentity": "a"}});
        check(("coordination.k8s.io", "v1", "leases"), None, lease, want);
    }

    #[test]
    fn other_kinds_are_left_alone() {
        let map = json!({"data": {"bindMountOptions": "x"}});
        check(("", "v1", "configmaps"), None, map.clone(), map);
    }
}
