//! The defaults that OpenAPI documents state. Those that are code upstream are [`crate::Behaviour::default`]; what is
//! Go's zero value anyway is not defaulted at all.

use std::sync::OnceLock;

use api::meta;
use serde_json::Value;

use crate::decode::is_empty;
use crate::schema::{Field, Schema, Shape, TypeId};

/// Fills in every field that nobody set and that has a default. New fields stand last in their struct until the object is
/// brought into order ([`crate::Kind::tidy`]).
pub fn apply(schema: &Schema, root: TypeId, object: &mut Value) {
    let reach = schema.default_reach.get_or_init(|| reach(schema));
    apply_struct(schema, reach, root, object);
}

/// For every type, whether it or a type below it has a default: most have none, and are not looked at.
#[derive(Debug, Default)]
pub(crate) struct Reach(OnceLock<Vec<bool>>);

impl Reach {
    fn get_or_init(&self, compute: impl FnOnce() -> Vec<bool>) -> &[bool] {
        self.0.get_or_init(compute)
    }
}

fn reach(schema: &Schema) -> Vec<bool> {
    let own = |field: &Field| default_of(field).is_some();
    let mut reach: Vec<bool> = schema.types.iter().map(|t| t.fields.iter().any(own)).collect();
    loop {
        let mut changed = false;
        for (at, one) in schema.types.iter().enumerate() {
            if !reach[at]
                && one.fields.iter().any(|field| struct_of(&field.shape).is_some_and(|id| reach[id.0 as usize]))
            {
                reach[at] = true;
                changed = true;
            }
        }
        if !changed {
            return reach;
        }
    }
}

/// The struct that the values of a shape are made of.
pub(crate) fn struct_of(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(id) => Some(*id),
        Shape::List(item, _) | Shape::Map(item) => struct_of(item),
        _ => None,
    }
}

/// A field that is no pointer has its zero value anyway.
fn default_of(field: &Field) -> Option<&Value> {
    field.default.as_ref().filter(|default| field.pointer || !is_empty(&field.shape, default))
}

fn apply_struct(schema: &Schema, reach: &[bool], id: TypeId, object: &mut Value) {
    let Some(map) = object.as_object_mut().filter(|_| reach[id.0 as usize]) else { return };
    for field in &schema.get(id).fields {
        if let Some(default) = default_of(field) {
            let set = meta::field(map, &field.name).is_some_and(|value| match field.pointer {
                true => !value.is_null(),
                false => !is_empty(&field.shape, value),
            });
            if !set {
                map.insert(field.name.to_string(), default.clone());
            }
        }
        if struct_of(&field.shape).is_some_and(|below| reach[below.0 as usize])
            && let Some(value) = meta::field_mut(map, &field.name)
        {
            apply_shape(schema, reach, &field.shape, value);
        }
    }
}

fn apply_shape(schema: &Schema, reach: &[bool], shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(id), value) => apply_struct(schema, reach, *id, value),
        (Shape::List(item, _), Value::Array(items)) => {
            items.iter_mut().for_each(|value| apply_shape(schema, reach, item, value));
        }
        (Shape::Map(item), Value::Object(map)) => {
            map.values_mut().for_each(|value| apply_shape(schema, reach, item, value));
        }
        _ => {}
    }
}
