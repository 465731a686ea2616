//! Brings a custom resource into the form its schema gives it: unknown fields dropped and told of, nulls that mean
//! nothing dropped, metadata read as metadata, defaults filled in. Values of a wrong type stay; to refuse them is
//! validation's business. Never fails but for metadata that is none.

use serde_json::{Map, Value};

use super::node::{Additional, Node};
use crate::decode::{self, DecodeError};
use crate::kind::go_quote;
use crate::schema::TypeId;

/// Fields that every object has, whatever its schema says.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema does not know. Answers where it was, sorted: `spec.list[1].q`.
pub fn prune(object: &mut Value, node: &Node) -> Vec<String> {
    let mut walk = Prune { path: String::new(), dropped: Vec::new() };
    if let Value::Object(root) = object {
        walk.fields(root, Some(node), true);
    }
    walk.dropped.sort();
    walk.dropped
}

/// The same for any value.
pub fn prune_value(value: &mut Value, node: &Node) -> Vec<String> {
    let mut walk = Prune { path: String::new(), dropped: Vec::new() };
    walk.value(value, Some(node));
    walk.dropped
}

struct Prune {
    path: String,
    dropped: Vec<String>,
}

impl Prune {
    fn value(&mut self, value: &mut Value, node: Option<&Node>) {
        match value {
            Value::Object(fields) => self.fields(fields, node, node.is_some_and(|node| node.embedded)),
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.step(&format!("[{at}]"), |walk| match node {
                        // What is kept in a list is kept in its items.
                        Some(list) if list.keeps_unknown => walk.kept(item, list.items.as_deref()),
                        _ => walk.value(item, node.and_then(|list| list.items.as_deref())),
                    });
                }
            }
            _ => {}
        }
    }

    /// Below a list that keeps what is unknown: only what is declared is looked at.
    fn kept(&mut self, value: &mut Value, node: Option<&Node>) {
        let Some(node) = node else { return };
        match value {
            Value::Object(fields) => self.declared(fields, node, node.embedded),
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.step(&format!("[{at}]"), |walk| walk.kept(item, node.items.as_deref()));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, fields: &mut Map<String, Value>, node: Option<&Node>, has_meta: bool) {
        if let Some(node) = node.filter(|node| node.keeps_unknown) {
            return self.declared(fields, node, has_meta);
        }
        let mut dropped = Vec::new();
        fields.retain(|name, value| {
            if has_meta && META_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let known = node.and_then(|node| match (node.properties.get(name.as_str()), &node.additional) {
                (Some(field), _) => Some(Some(field)),
                (None, Additional::Node(field)) => Some(Some(&**field)),
                (None, Additional::Any) => Some(None),
                (None, Additional::No) => None,
            });
            match known {
                Some(below) => self.step(&format!(".{name}"), |walk| walk.value(value, below)),
                None => dropped.push(name.clone()),
            }
            known.is_some()
        });
        for name in dropped {
            self.step(&format!(".{name}"), |walk| walk.dropped.push(walk.path.clone()));
        }
    }

    fn declared(&mut self, fields: &mut Map<String, Value>, node: &Node, has_meta: bool) {
        for (name, value) in fields {
            if has_meta && META_FIELDS.contains(&name.as_str()) {
                continue;
            }
            if let Some(field) = node.field(name) {
                self.step(&format!(".{name}"), |walk| walk.value(value, Some(field)));
            }
        }
    }

    fn step(&mut self, step: &str, walk: impl FnOnce(&mut Prune)) {
        let length = self.path.len();
        self.path.push_str(if length == 0 { step.trim_start_matches('.') } else { step });
        walk(self);
        self.path.truncate(length);
    }
}

/// Drops fields that are null, may not be and have no default.
pub fn drop_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let field = node.and_then(|node| node.field(name));
            if value.is_null() && field.is_some_and(|field| !field.nullable && field.default.is_none()) {
                return false;
            }
            drop_nulls(value, field);
            true
        }),
        Value::Array(items) => {
            let node = node.and_then(|list| list.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(item, node));
        }
        _ => {}
    }
}

/// Fills in what nobody set and has a default.
pub fn default(value: &mut Value, node: &Node) {
    let unset = |value: Option<&Value>, node: &Node| value.is_none_or(|value| value.is_null() && !node.nullable);
    match value {
        Value::Object(fields) => {
            for (name, field) in &node.properties {
                if let Some(default) = &field.default
                    && unset(fields.get(&**name), field)
                {
                    fields.insert(name.to_string(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(field) = node.properties.get(name.as_str()) {
                    default(value, field);
                } else if let Additional::Node(field) = &node.additional {
                    default_or_null(value, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &node.items {
                items.iter_mut().for_each(|value| default_or_null(value, item));
            }
        }
        _ => {}
    }
}

/// A value of a map or a list: it is there, so that only null asks for the default.
fn default_or_null(value: &mut Value, node: &Node) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
    default(value, node);
}

/// Metadata that was read as metadata, and what its decoder noticed.
pub struct Metadata {
    pub value: Value,
    noticed: Vec<String>,
}

impl Metadata {
    /// Reads the metadata of an object; unknown fields are dropped, errors are Go's own. `None` where there is none.
    pub fn of(object: &Value) -> Result<Option<Metadata>, DecodeError> {
        let Some(metadata) = object.get("metadata") else { return Ok(None) };
        let decoded = decode::normalize(crate::tables::schema(), object_meta(), metadata.clone())?;
        Ok(Some(Metadata { value: decoded.object, noticed: decoded.strict }))
    }

    /// `unknown field "spec.t.metadata.lables"`, for the metadata at a path.
    pub fn noticed(&self, path: &str) -> impl Iterator<Item = String> {
        self.noticed.iter().filter_map(move |text| {
            let (what, name) = text.strip_suffix('"')?.split_once('"')?;
            Some(format!("{what}{}", go_quote(&format!("{path}.{name}"))))
        })
    }
}

/// The number of `metav1.ObjectMeta` among the built-in types.
pub fn object_meta() -> TypeId {
    static ID: std::sync::OnceLock<TypeId> = std::sync::OnceLock::new();
    const NAME: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";
    *ID.get_or_init(|| crate::tables::schema().find(NAME).expect("every object has metadata"))
}

/// Reads the metadata of embedded objects as metadata. Answers unknown fields in them.
pub fn embedded(value: &mut Value, node: &Node, path: &str, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    match value {
        Value::Object(_) => {
            if node.embedded {
                embedded_meta(value, path, unknown)?;
            }
            for (name, value) in value.as_object_mut().into_iter().flatten() {
                match (node.properties.get(name.as_str()), &node.additional) {
                    (Some(field), _) => embedded(value, field, &child(path, name), unknown)?,
                    (None, Additional::Node(field)) => embedded(value, field, &format!("{path}[{name}]"), unknown)?,
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &node.items {
                for (at, value) in items.iter_mut().enumerate() {
                    embedded(value, item, &format!("{path}[{at}]"), unknown)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn embedded_meta(object: &mut Value, path: &str, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    for field in ["apiVersion", "kind"] {
        if let Some(value) = object.get(field).filter(|value| !value.is_string()) {
            let cause = crate::Cause::invalid(child(path, field), value, "must be a string");
            return Err(DecodeError::Type(cause.to_string()));
        }
    }
    let path = child(path, "metadata");
    let read = Metadata::of(object).map_err(|why| {
        let given = object.get("metadata").unwrap_or(&Value::Null);
        DecodeError::Type(crate::Cause::invalid(&path, given, &why.to_string()).to_string())
    })?;
    if let Some(metadata) = read {
        unknown.extend(metadata.noticed(&path));
        object["metadata"] = metadata.value;
    }
    Ok(())
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Numbers as Go holds those of which it knows no type: whole ones that fit as such, all others as floats.
pub fn numbers(value: &mut Value) {
    match value {
        Value::Number(given) if given.as_i64().is_none() => {
            *value = given.as_f64().map_or(Value::Null, crate::decode::number);
        }
        Value::Array(items) => items.iter_mut().for_each(numbers),
        Value::Object(map) => map.values_mut().for_each(numbers),
        _ => {}
    }
}

/// Objects as Go writes maps: keys in order, all the way down.
pub fn sort(value: &mut Value) {
    if let Value::Object(_) | Value::Array(_) = value {
        value.sort_all_objects();
    }
}
