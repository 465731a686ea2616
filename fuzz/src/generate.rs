//! Objects of any kind out of a tape: made from the tables, from few names and few values, so that two of them often say
//! something about the same field. Made things are of their types; whether they are valid is nobody's business here.

use kinds::schema::{Alternative, Field, ListType, Schema, Shape, TypeId};
use kinds::{Kind, Registry};
use serde_json::{Map, Value, json};
use std::sync::Arc;

use crate::tape::Tape;

/// Structs, lists and maps in each other: some types hold themselves.
const DEPTH_MAX: usize = 8;
/// Fields of one struct, items of one list.
const SOME_MAX: usize = 5;

/// A kind that is served.
pub fn kind(tape: &mut Tape, registry: &Registry) -> Arc<Kind> {
    let all: Vec<&Arc<Kind>> = registry.kinds().collect();
    all[tape.below(all.len())].clone()
}

/// An object of the kind, as the server would keep it.
pub fn object(tape: &mut Tape, kind: &Kind) -> Value {
    let mut made = make_struct(tape, &kind.schema, kind.root, 0);
    name(&mut made, kind);
    tidy(kind, made)
}

/// An object that differs from this one in places.
pub fn varied(tape: &mut Tape, kind: &Kind, object: &Value) -> Value {
    let mut varied = vary(tape, &kind.schema, &Shape::Struct(kind.root), object, 0);
    name(&mut varied, kind);
    tidy(kind, varied)
}

/// Something of an object, as somebody applies it.
pub fn part(tape: &mut Tape, kind: &Kind, object: &Value) -> Value {
    let mut part = thin(tape, object);
    name(&mut part, kind);
    part
}

/// The form in which the server keeps an object.
pub fn tidy(kind: &Kind, object: Value) -> Value {
    let read = kind.normalize(object).expect("what is made is of its types");
    assert_eq!(read.strict, Vec::<String>::new());
    kind.tidy(read.object).expect("what was read is of its types")
}

fn name(object: &mut Value, kind: &Kind) {
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = (*kind.kind).into();
    object["metadata"]["name"] = "x".into();
    // Who owns what is never the client's to say.
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.shift_remove("managedFields");
    }
}

fn make_struct(tape: &mut Tape, schema: &Schema, of: TypeId, depth: usize) -> Value {
    let fields = &schema.get(of).fields;
    let mut out = Map::new();
    if fields.is_empty() || depth > DEPTH_MAX {
        return out.into();
    }
    for _ in 0..tape.below(SOME_MAX) {
        let field = &fields[tape.below(fields.len())];
        out.insert(field.name.to_string(), make_field(tape, schema, field, depth));
    }
    out.into()
}

fn make_field(tape: &mut Tape, schema: &Schema, field: &Field, depth: usize) -> Value {
    match &field.shape {
        Shape::String if !field.one_of.is_empty() => Value::from(&*tape.one_of(&field.one_of)),
        Shape::List(item, _) => make_list(tape, schema, field, item, depth),
        shape => make(tape, schema, shape, depth),
    }
}

fn make_list(tape: &mut Tape, schema: &Schema, field: &Field, item: &Shape, depth: usize) -> Value {
    let made = (0..tape.below(SOME_MAX)).map(|_| make_item(tape, schema, field, item, depth)).collect();
    distinct(tape, field, made)
}

fn make_item(tape: &mut Tape, schema: &Schema, field: &Field, item: &Shape, depth: usize) -> Value {
    let mut made = make(tape, schema, item, depth + 1);
    // What tells items apart is nearly always said.
    for key in keys(field) {
        if made.get(&key).is_none() && made.is_object() && !tape.chance(8) {
            let known = match item {
                Shape::Struct(of) => schema.get(*of).fields.iter().find(|field| *field.name == *key),
                _ => None,
            };
            if let Some(known) = known {
                made[key] = make_field(tape, schema, known, depth + 1);
            }
        }
    }
    made
}

/// What tells the items of a list apart, for patches and for applies.
fn keys(field: &Field) -> Vec<String> {
    let mut keys: Vec<String> = field.patch.merge_key.iter().map(|key| key.to_string()).collect();
    if let Shape::List(_, ListType::Map(more)) = &field.shape {
        keys.extend(
            more.iter().map(|key| key.to_string()).filter(|key| !field.patch.merge_key.iter().any(|k| **k == **key)),
        );
    }
    keys
}

/// Most lists whose items are told apart hold no item twice.
fn distinct(tape: &mut Tape, field: &Field, items: Vec<Value>) -> Value {
    let keys = keys(field);
    let is_set = matches!(&field.shape, Shape::List(_, ListType::Set)) || field.patch.merge;
    if (keys.is_empty() && !is_set) || tape.chance(16) {
        return items.into();
    }
    let id = |item: &Value| match keys.is_empty() || !item.is_object() {
        true => item.to_string(),
        false => keys.iter().map(|key| item[key.as_str()].to_string()).collect::<Vec<_>>().join(" "),
    };
    let mut seen = std::collections::HashSet::new();
    items.into_iter().filter(|item| seen.insert(id(item))).collect::<Vec<_>>().into()
}

fn make(tape: &mut Tape, schema: &Schema, shape: &Shape, depth: usize) -> Value {
    match shape {
        Shape::String => tape.one_of(&["a", "b", "c", "", "x y", "é\n"]).into(),
        Shape::Bool => tape.chance(128).into(),
        Shape::Int32 | Shape::Int64 => tape.one_of(&[0, 1, 2, 80, -1]).into(),
        Shape::Float => tape.one_of(&[json!(0), json!(1), json!(1.5)]),
        Shape::Bytes => tape.one_of(&["", "YQ==", "YWI="]).into(),
        Shape::Time => tape.one_of(&[json!("2026-01-02T03:04:05Z"), json!("1969-12-31T23:59:59Z"), Value::Null]),
        Shape::MicroTime => tape.one_of(&[json!("2026-01-02T03:04:05.000006Z"), Value::Null]),
        Shape::Duration => tape.one_of(&["0s", "1m0s", "-1.5s"]).into(),
        Shape::Quantity => tape.one_of(&["0", "1", "500m", "1Gi", "1e3", "-2"]).into(),
        Shape::IntOrString => tape.one_of(&[json!(0), json!(80), json!("http"), json!("50%")]),
        // Built-in kinds have none of these two.
        Shape::Deduced | Shape::Scalar => tape.one_of(&[json!(1), json!("a"), json!(true)]),
        Shape::Any => tape.one_of(&[json!({"a": 1}), json!({"b": [{"c": null}]}), json!({}), json!({"a": {"b": "2"}})]),
        Shape::Struct(of) => make_struct(tape, schema, *of, depth + 1),
        Shape::StructOr(of, other) => match (other, tape.chance(128)) {
            (Alternative::Bool, true) => tape.chance(128).into(),
            (Alternative::List, true) => json!([make_struct(tape, schema, *of, depth + 1)]),
            (Alternative::Strings, true) => json!([tape.one_of(&["a", "b"])]),
            _ => make_struct(tape, schema, *of, depth + 1),
        },
        Shape::List(item, _) => (0..tape.below(3)).map(|_| make(tape, schema, item, depth + 1)).collect(),
        Shape::Map(item) => {
            let mut out = Map::new();
            for _ in 0..tape.below(4) {
                let key = tape.one_of(&["a", "b", "c", "example.com/d"]).to_owned();
                out.insert(key, make(tape, schema, item, depth + 1));
            }
            out.into()
        }
    }
}

fn vary(tape: &mut Tape, schema: &Schema, shape: &Shape, value: &Value, depth: usize) -> Value {
    match (shape, value) {
        (Shape::Struct(of) | Shape::StructOr(of, _), Value::Object(old)) => {
            let mut out = Map::new();
            let fields = &schema.get(*of).fields;
            for (key, value) in old {
                let Some(field) = fields.iter().find(|field| *field.name == **key) else { continue };
                match tape.byte() {
                    // Most of it stays.
                    0..112 => drop(out.insert(key.clone(), value.clone())),
                    112..144 => {}
                    144..160 => drop(out.insert(key.clone(), make_field(tape, schema, field, depth))),
                    _ => drop(out.insert(key.clone(), vary_field(tape, schema, field, value, depth))),
                }
            }
            if tape.chance(96) && !fields.is_empty() && depth < DEPTH_MAX {
                let field = &fields[tape.below(fields.len())];
                out.insert(field.name.to_string(), make_field(tape, schema, field, depth));
            }
            out.into()
        }
        (Shape::Map(item), Value::Object(old)) => {
            let mut out = Map::new();
            for (key, value) in old {
                match tape.byte() {
                    0..96 => drop(out.insert(key.clone(), value.clone())),
                    96..144 => {}
                    _ => drop(out.insert(key.clone(), vary(tape, schema, item, value, depth + 1))),
                }
            }
            if tape.chance(96) {
                out.insert(tape.one_of(&["a", "b", "c"]).to_owned(), make(tape, schema, item, depth + 1));
            }
            out.into()
        }
        (shape, _) => make(tape, schema, shape, depth),
    }
}

fn vary_field(tape: &mut Tape, schema: &Schema, field: &Field, value: &Value, depth: usize) -> Value {
    match (&field.shape, value) {
        (Shape::List(item, _), Value::Array(old)) => {
            let mut out = Vec::new();
            for value in old {
                match tape.byte() {
                    0..112 => out.push(value.clone()),
                    112..152 => {}
                    _ => out.push(vary_item(tape, schema, field, item, value, depth)),
                }
            }
            for _ in 0..tape.below(3) {
                out.insert(tape.below(out.len() + 1), make_item(tape, schema, field, item, depth));
            }
            if out.len() > 1 && tape.chance(64) {
                let (a, b) = (tape.below(out.len()), tape.below(out.len()));
                out.swap(a, b);
            }
            distinct(tape, field, out)
        }
        (Shape::String, _) if !field.one_of.is_empty() => make_field(tape, schema, field, depth),
        (shape, value) => vary(tape, schema, shape, value, depth + 1),
    }
}

/// An item that stays the same one.
fn vary_item(tape: &mut Tape, schema: &Schema, field: &Field, item: &Shape, value: &Value, depth: usize) -> Value {
    let mut varied = vary(tape, schema, item, value, depth + 1);
    for key in keys(field) {
        if let (true, Some(old)) = (varied.is_object(), value.get(&key)) {
            varied[key] = old.clone();
        }
    }
    varied
}

/// Some fields of a value; lists keep the items that they keep as they are.
fn thin(tape: &mut Tape, value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                match tape.byte() {
                    0..128 => drop(out.insert(key.clone(), value.clone())),
                    128..176 => {}
                    _ => drop(out.insert(key.clone(), thin(tape, value))),
                }
            }
            out.into()
        }
        Value::Array(items) => items.iter().filter(|_| !tape.chance(64)).cloned().collect(),
        other => other.clone(),
    }
}
