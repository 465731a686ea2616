//! The strategic merge patch: a merge patch that knows which lists are merged, by which key, and its directives
//! (`$patch`, `$retainKeys`, `$setElementOrder/x`, `$deleteFromPrimitiveList/x`). Pure; decoding what comes out is the
//! business of `decode`.

use serde_json::{Map, Value};

use crate::decode;
use crate::schema::{Field, Schema, Shape, TypeId};

/// The most items of a list that is merged; what a merge costs grows with their square.
pub const MERGED_ITEMS_MAX: usize = 10_000;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// A patch that cannot be used; `Display` is Kubernetes' text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// 422 without a field.
    #[error("{0}")]
    Unprocessable(String),
    /// 500: Kubernetes answers these as internal errors.
    #[error("{0}")]
    Internal(String),
}

/// `current` with the patch merged into it. The result may hold fields and types that the kind does not have: it has
/// still to be decoded.
///
/// # Errors
/// Directives that are malformed or unknown, lists that mix types, items without their merge key.
pub fn merge(schema: &Schema, root: TypeId, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch = match patch {
        Value::Object(patch) => patch.clone(),
        Value::Null => Map::new(),
        other => {
            let what = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            return Err(PatchError::BadRequest(format!(
                "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            )));
        }
    };
    let merged = merge_map(schema, &Place::Struct(root), current.as_object().cloned().unwrap_or_default(), patch)?;
    Ok(Value::Object(merged))
}

/// The patch that makes `new` of `old`, as kubectl's two-way difference does: [`merge`] into `old` gives `new`, but for
/// the nulls that Go writes where it has nothing. Where merging cannot say it (items of a list that cannot be told apart,
/// maps and lists in maps that are no structs, nulls in free-form values) the patch replaces the whole of what holds them.
pub fn difference(schema: &Schema, root: TypeId, old: &Value, new: &Value) -> Value {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return new.clone() };
    let how = Differing { schema };
    Value::Object(how.maps(&Place::Struct(root), old, new, false).unwrap_or_else(|| replacement(new)))
}

/// Why a merged value cannot become an object of the type, in the words of Go's converter, which sees maps and not JSON.
pub fn conversion_error(schema: &Schema, root: TypeId, value: &Value) -> Option<String> {
    let Value::Object(map) = value else { return Some(format!("cannot restore struct from: {}", kind_of_json(value))) };
    let fields = schema.get(root).fields.iter();
    fields
        .filter_map(|field| Some((field, map.get(&*field.name)?)))
        .find_map(|(field, value)| conversion_of(schema, &field.shape, field.named.as_deref(), value))
}

fn conversion_of(schema: &Schema, shape: &Shape, named: Option<&str>, value: &Value) -> Option<String> {
    let kind = kind_of_json(value);
    if value.is_null() {
        return None;
    }
    // What Go converts between basic types, it converts; numbers to text it could, and does not.
    let basic = |target: &str, fits: bool, convertible: bool| match (fits, convertible) {
        (true, _) => None,
        (_, true) => Some(format!("cannot convert {kind} to {}", named.unwrap_or(target))),
        _ => Some(format!("unrecognized type: {target}")),
    };
    match shape {
        Shape::String => basic("string", value.is_string(), kind == "int64"),
        Shape::Bool => basic("bool", value.is_boolean(), false),
        Shape::Int32 | Shape::Int64 => {
            let whole = value.as_f64().is_some_and(|n| n.fract() == 0.0);
            basic(if *shape == Shape::Int32 { "int32" } else { "int64" }, whole, value.is_number())
        }
        Shape::Float => basic("float64", value.is_number(), false),
        Shape::Struct(id) => conversion_error(schema, *id, value),
        Shape::List(item, _) => match value {
            Value::Array(items) => {
                let named = named.and_then(|name| name.strip_prefix("[]"));
                items.iter().find_map(|value| conversion_of(schema, item, named, value))
            }
            _ => Some(format!("cannot restore slice from {kind}")),
        },
        Shape::Map(item) => match value {
            Value::Object(map) => map.values().find_map(|value| conversion_of(schema, item, None, value)),
            _ => Some(format!("cannot restore map from {kind}")),
        },
        Shape::Bytes => match value {
            Value::String(_) => {
                decode::own_error(schema, shape, value).map(|why| format!("error decoding from json: {why}"))
            }
            Value::Array(items) => {
                let wrong = items.iter().any(|item| !item.is_number() && !item.is_null());
                wrong.then(|| "unrecognized type: uint8".to_owned())
            }
            _ => Some(format!("cannot restore slice from {kind}")),
        },
        // These read themselves from JSON.
        Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Duration => {
            decode::own_error(schema, shape, value)
        }
        _ => None,
    }
}

/// The Go kind of a value that came from JSON.
fn kind_of_json(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// The map as a patch that takes the place of what was there.
fn replacement(new: &Map<String, Value>) -> Map<String, Value> {
    let directive = (DIRECTIVE.to_owned(), Value::from("replace"));
    std::iter::once(directive).chain(new.iter().map(|(key, value)| (key.clone(), value.clone()))).collect()
}

/// How two values of one schema differ. `None`: merging cannot say it.
struct Differing<'s> {
    schema: &'s Schema,
}

impl Differing<'_> {
    fn maps(
        &self,
        place: &Place,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        retain_keys: bool,
    ) -> Option<Map<String, Value>> {
        let mut patch = Map::new();
        for (name, value) in new {
            match (old.get(name), value) {
                (Some(before), value) if before == value => {}
                (Some(Value::Object(before)), Value::Object(after)) => {
                    let (field, below) = place.field(self.schema, name, false).ok()?;
                    let inner = match strategy(field) {
                        Strategy::Replace => Some(after.clone()),
                        _ => {
                            let inner = self.maps(&below, before, after, field.patch.retain_keys);
                            Some(inner.unwrap_or_else(|| replacement(after))).filter(|inner| !inner.is_empty())
                        }
                    };
                    patch.extend(inner.map(|inner| (name.clone(), Value::Object(inner))));
                }
                (Some(Value::Array(before)), Value::Array(after)) => {
                    let (field, below) = place.field(self.schema, name, true).ok()?;
                    match (strategy(field), field.patch.merge_key.as_deref()) {
                        (Strategy::Merge, Some(key)) => {
                            let retain_keys = field.patch.retain_keys;
                            patch.extend(self.keyed_lists(name, &below, key, before, after, retain_keys)?);
                        }
                        (Strategy::Merge, None) => patch.extend(sets(name, before, after)?),
                        _ => drop(patch.insert(name.clone(), value.clone())),
                    }
                }
                // What is new is merged without its nulls.
                (before, value) => {
                    if place.keeps_null(self.schema, name, value) {
                        return None;
                    }
                    if before.is_some() || !value.is_null() {
                        patch.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        patch.extend(gone.map(|name| (name.clone(), Value::Null)));
        if retain_keys && !patch.is_empty() {
            let mut kept: Vec<&String> =
                new.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name).collect();
            kept.sort();
            patch.insert(RETAIN_KEYS.to_owned(), kept.into_iter().cloned().collect());
        }
        Some(patch)
    }

    /// The items of the patch, and the order of all.
    fn keyed_lists(
        &self,
        name: &str,
        below: &Place,
        key: &str,
        old: &[Value],
        new: &[Value],
        retain_keys: bool,
    ) -> Option<Vec<(String, Value)>> {
        let (old_ids, new_ids) = (ids(old, key)?, ids(new, key)?);
        let mut changes = Vec::new();
        for (item, id) in new.iter().zip(&new_ids) {
            let before = old_ids.iter().position(|old| old == id).and_then(|at| old[at].as_object());
            let (Some(before), Some(after)) = (before, item.as_object()) else {
                changes.push(item.clone());
                continue;
            };
            let Some(mut change) = self.maps(below, before, after, retain_keys) else {
                // One item cannot be replaced for itself.
                let directive = Value::Object(replacement(&Map::new()));
                let items = std::iter::once(directive).chain(new.iter().cloned());
                return Some(vec![(name.to_owned(), items.collect())]);
            };
            if !change.is_empty() {
                change.insert(key.to_owned(), (*id).clone());
                changes.push(Value::Object(change));
            }
        }
        let gone = old_ids.iter().filter(|id| !new_ids.contains(id));
        changes.extend(gone.map(|id| serde_json::json!({ DIRECTIVE: "delete", key: id })));
        if changes.is_empty() && old_ids == new_ids {
            return Some(Vec::new());
        }
        let order: Vec<Value> = new_ids.iter().map(|id| serde_json::json!({ key: id })).collect();
        let parts = [(format!("{SET_ORDER}/{name}"), order), (name.to_owned(), changes)];
        Some(
            parts
                .into_iter()
                .filter(|(_, items)| !items.is_empty())
                .map(|(name, items)| (name, items.into()))
                .collect(),
        )
    }
}

/// What tells the items of a list apart; `None` where two are the same, or one has nothing to be told by.
fn ids<'v>(items: &'v [Value], key: &str) -> Option<Vec<&'v Value>> {
    let ids: Vec<&Value> = items.iter().map(|item| item.as_object()?.get(key)).collect::<Option<_>>()?;
    all_differ(&ids).then_some(ids)
}

fn all_differ(items: &[&Value]) -> bool {
    items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
}

/// Lists of scalars that are merged.
fn sets(name: &str, old: &[Value], new: &[Value]) -> Option<Vec<(String, Value)>> {
    let all: Vec<&Value> = old.iter().chain(new).collect();
    let scalars = all.iter().all(|item| go_type(item) == go_type(all[0]) && !item.is_object() && !item.is_array());
    if !scalars || !all_differ(&all[..old.len()]) || !all_differ(&all[old.len()..]) {
        return None;
    }
    let missing = |of: &[Value], here: &[Value]| of.iter().filter(|item| !here.contains(item)).cloned().collect();
    let (added, gone): (Vec<Value>, Vec<Value>) = (missing(new, old), missing(old, new));
    let parts = [
        (format!("{DELETE_FROM}/{name}"), gone),
        (format!("{SET_ORDER}/{name}"), new.to_vec()),
        (name.to_owned(), added),
    ];
    Some(parts.into_iter().filter(|(_, items)| !items.is_empty()).map(|(name, items)| (name, items.into())).collect())
}

/// The Go type that holds what is being merged: only structs know about their fields.
enum Place {
    Struct(TypeId),
    /// The kind of the Go type (`map`, `slice`, `string`).
    Other(&'static str),
    /// A struct without fields that JSON can see: `RawExtension`.
    Opaque,
}

#[derive(Clone, Copy, PartialEq)]
enum Strategy {
    None,
    Merge,
    Replace,
}

fn internal<T>(message: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Internal(message.into()))
}

fn bad_retain_keys() -> PatchError {
    PatchError::BadRequest("invalid patch format of retainKeys".to_owned())
}

fn merge_map(
    schema: &Schema,
    place: &Place,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => {
            patch.shift_remove(DIRECTIVE);
            return Ok(patch);
        }
        Some(Value::String(directive)) if directive == "delete" => return Ok(Map::new()),
        Some(directive) => return Err(unknown_directive(directive, &patch)),
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(schema, place, &mut original, &mut patch)?;
    for (key, patch) in patch {
        let (key, deletes) = match key.starts_with(DELETE_FROM) {
            true => (extract_key(&key, DELETE_FROM)?, true),
            false => (key, false),
        };
        if patch.is_null() {
            original.shift_remove(&key);
            continue;
        }
        let merged = match (original.get_mut(&key), patch) {
            (Some(Value::Object(old)), Value::Object(patch)) => {
                let (field, below) = place.field(schema, &key, false)?;
                match strategy(field) {
                    Strategy::Replace => Value::Object(patch),
                    _ => Value::Object(merge_map(schema, &below, std::mem::take(old), patch)?),
                }
            }
            (Some(Value::Array(old)), Value::Array(patch)) => {
                let (field, below) = place.field(schema, &key, true)?;
                let key = field.patch.merge_key.as_deref();
                let how = Merging { schema, below: &below, key, strategy: strategy(field), deletes };
                Value::Array(how.merge_list(&mut Backing::new(std::mem::take(old)), patch)?)
            }
            // Nothing to delete from.
            _ if deletes => continue,
            (_, mut patch) => {
                // What is new to the object is taken without its nulls and directives.
                discard_nulls(&mut patch);
                match without_directives(patch) {
                    Some(value) => value,
                    None => {
                        original.shift_remove(&key);
                        continue;
                    }
                }
            }
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let directive = match directive {
        Value::String(text) => text.clone(),
        Value::Null => "%!s(<nil>)".to_owned(),
        other => format!("%!s({}={})", go_type(other), go_print(other)),
    };
    PatchError::Internal(format!("unknown patch type: {directive} in map: {}", go_print_map(patch)))
}

fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(retain) = patch.shift_remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retain) = retain else { return Err(bad_retain_keys()) };
    let retained = |key: &str| retain.iter().any(|retain| retain.as_str() == Some(key));
    for (key, value) in &*patch {
        let free = value.is_null() || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
        if !free && !retained(key) {
            return Err(bad_retain_keys());
        }
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// Merges the lists that have a `$setElementOrder` and takes them out of the patch.
fn set_orders(
    schema: &Schema,
    place: &Place,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let order = match patch.shift_remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_type("[]interface {}", &other.unwrap_or(Value::Null))),
        };
        let name = extract_key(&directive, SET_ORDER)?;
        let list = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(other) => Err(bad_type("[]interface {}", other)),
        };
        let (old, new) = (list(original.get(&name))?, list(patch.get(&name))?);
        let (field, below) = place.field(schema, &name, true)?;
        let key = field.patch.merge_key.as_deref();
        check_order(new.as_deref().unwrap_or_default(), &order, key)?;
        let how = Merging { schema, below: &below, key, strategy: strategy(field), deletes: false };
        let mut live = Backing::new(old.clone().unwrap_or_default());
        let merged = match (&old, &new) {
            (Some(old), None) => old.clone(),
            (None, Some(new)) => match without_directives(Value::Array(new.clone())) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(_), Some(new)) => how.merge_list(&mut live, new.clone())?,
            (None, None) => continue,
        };
        let (patch_items, server_items) = partition(merged, &order, key)?;
        let maps = elements_are_maps(&[&live.items, new.as_deref().unwrap_or_default()])?;
        let both = order_elements(patch_items, server_items, &order, &live.items, key, maps)?;
        original.insert(name.clone(), Value::Array(both));
        patch.shift_remove(&name);
    }
    Ok(())
}

/// The patch's items must be in the order of the directive, and among its items.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let kept: Vec<&Value> = match key {
        None => patch.iter().collect(),
        Some(_) => {
            if let Some(odd) = patch.iter().find(|item| !item.is_object()) {
                return Err(bad_type("map[string]interface {}", odd));
            }
            patch.iter().filter(|item| item.get(DIRECTIVE).and_then(Value::as_str) != Some("delete")).collect()
        }
    };
    let (mut p, mut o) = (0, 0);
    while p < kept.len() && o < order.len() {
        if kept[p].as_object().is_some_and(|item| item.contains_key(DIRECTIVE)) {
            p += 1;
            continue;
        }
        let equal = match key {
            None => kept[p] == &order[o],
            Some(key) => merge_value(kept[p], key)? == merge_value(&order[o], key)?,
        };
        p += usize::from(equal);
        o += 1;
    }
    if p < kept.len() && o >= order.len() {
        return internal(format!(
            "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
            go_print_list(patch),
            go_print_list(order)
        ));
    }
    Ok(())
}

fn merge_value<'v>(item: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    let Value::Object(map) = item else { return Err(bad_type("map[string]interface {}", item)) };
    map.get(key).ok_or_else(|| no_merge_key(map, key))
}

fn no_merge_key(map: &Map<String, Value>, key: &str) -> PatchError {
    PatchError::Internal(format!("map: {} does not contain declared merge key: {key}", go_print_map(map)))
}

fn bad_type(expected: &str, actual: &Value) -> PatchError {
    PatchError::Internal(format!("expected a {expected}, but received a {}", go_type(actual)))
}

fn extract_key(key: &str, prefix: &str) -> Result<String, PatchError> {
    match key.split_once('/') {
        Some((before, name)) if before == prefix => Ok(name.to_owned()),
        _ if prefix == DELETE_FROM => Err(PatchError::BadRequest("invalid patch format of primitive list".to_owned())),
        _ => Err(PatchError::BadRequest("invalid patch format of setElementOrder list".to_owned())),
    }
}

impl Place {
    /// The field of that name and the type below it (of its items when it is a list).
    fn field<'s>(&self, schema: &'s Schema, name: &str, list: bool) -> Result<(&'s Field, Place), PatchError> {
        let id = match self {
            Place::Struct(id) => *id,
            Place::Other(kind) => {
                return internal(format!("merging an object in json but data type is not struct, instead is: {kind}"));
            }
            Place::Opaque => {
                return internal(format!(
                    "unable to find api field in struct RawExtension for the json field {name:?}"
                ));
            }
        };
        let of = schema.get(id);
        let exact = of.fields.iter().find(|field| *field.name == *name);
        let field = exact.or_else(|| of.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)));
        let Some(field) = field else {
            let go_name = of.name.rsplit('.').next().unwrap_or_default();
            return internal(format!("unable to find api field in struct {go_name} for the json field {name:?}"));
        };
        let shape = match (&field.shape, list) {
            (Shape::List(item, _), true) => item,
            (shape, true) => {
                return internal(format!("expected slice or array type, but got: {}", go_kind(shape)));
            }
            (shape, false) => shape,
        };
        Ok((
            field,
            match shape {
                Shape::Struct(id) | Shape::StructOr(id, _) => Place::Struct(*id),
                Shape::Any => Place::Opaque,
                other => Place::Other(go_kind(other)),
            },
        ))
    }
}

impl Place {
    /// The value of this field holds a null that means something: in a struct a null is what is not there.
    fn keeps_null(&self, schema: &Schema, name: &str, value: &Value) -> bool {
        match self {
            Place::Struct(id) => {
                let field = schema.get(*id).fields.iter().find(|field| *field.name == *name);
                field.is_some_and(|field| keeps_null(schema, &field.shape, value))
            }
            Place::Other(_) | Place::Opaque => holds_null(value),
        }
    }
}

fn keeps_null(schema: &Schema, shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::Any, Value::Object(_) | Value::Array(_)) => holds_null(value),
        (Shape::Struct(id) | Shape::StructOr(id, _), Value::Object(map)) => {
            map.iter().any(|(name, value)| Place::Struct(*id).keeps_null(schema, name, value))
        }
        (Shape::StructOr(..), Value::Array(items)) => items.iter().any(|item| keeps_null(schema, shape, item)),
        (Shape::List(item, _), Value::Array(items)) => items.iter().any(|value| keeps_null(schema, item, value)),
        // In a map a null is a value: a time of which only the key is known.
        (Shape::Map(item), Value::Object(map)) => {
            map.values().any(|value| value.is_null() || keeps_null(schema, item, value))
        }
        _ => false,
    }
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(holds_null),
        Value::Object(map) => map.values().any(holds_null),
        _ => false,
    }
}

fn go_kind(shape: &Shape) -> &'static str {
    match shape {
        Shape::String => "string",
        Shape::Bool => "bool",
        Shape::Int32 => "int32",
        Shape::Int64 | Shape::Duration => "int64",
        Shape::Float => "float64",
        Shape::Bytes | Shape::List(..) => "slice",
        Shape::Map(_) => "map",
        Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::IntOrString => "struct",
        Shape::Any | Shape::Deduced | Shape::Scalar | Shape::Struct(_) | Shape::StructOr(..) => "struct",
    }
}

fn strategy(field: &Field) -> Strategy {
    match &field.patch {
        patch if patch.merge => Strategy::Merge,
        patch if patch.replace => Strategy::Replace,
        _ => Strategy::None,
    }
}

/// A live list while it is merged. Deleting and appending happen in place, as on the array below a Go slice, because
/// what is left in the array decides where new items are put when `$setElementOrder` is given.
struct Backing {
    items: Vec<Value>,
    /// How many of the items are still the list.
    len: usize,
}

impl Backing {
    fn new(items: Vec<Value>) -> Backing {
        Backing { len: items.len(), items }
    }

    fn list(&self) -> &[Value] {
        &self.items[..self.len]
    }

    fn delete(&mut self, at: usize) {
        for i in at..self.len - 1 {
            self.items[i] = self.items[i + 1].clone();
        }
        self.len -= 1;
    }

    /// Appends in place while there is room, else nothing of the array changes any more.
    fn note_append(&mut self, item: &Value) {
        if self.len < self.items.len() {
            self.items[self.len] = item.clone();
            self.len += 1;
        }
    }
}

/// How the items of one list are merged.
struct Merging<'a> {
    schema: &'a Schema,
    below: &'a Place,
    key: Option<&'a str>,
    strategy: Strategy,
    /// The patch lists what is to go.
    deletes: bool,
}

impl Merging<'_> {
    fn merge_list(&self, live: &mut Backing, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
        if self.strategy != Strategy::Merge && !self.deletes {
            return Ok(patch);
        }
        if live.len == 0 && patch.is_empty() {
            return Ok(Vec::new());
        }
        let maps = elements_are_maps(&[live.list(), &patch])?;
        if !maps && self.deletes {
            return Ok(live.list().iter().filter(|item| !patch.contains(item)).cloned().collect());
        }
        let (merged, patch, order) = if maps {
            let Some(key) = self.key else { return internal("cannot merge lists without merge key for struct") };
            let (old, patch) = self.take_directives(live, patch, key)?;
            let order = old.clone();
            (self.merge_items(live, old, &patch, key)?, patch, order)
        } else {
            let order = live.list().to_vec();
            let both = order.iter().chain(&patch).cloned().collect();
            (deduplicate(both), patch, order)
        };
        let (patch_items, server_items) = partition(merged, &patch, self.key)?;
        order_elements(patch_items, server_items, &patch, &order, self.key, maps)
    }

    /// Carries out the `$patch` items of a list; gives what is left of the live list and of the patch.
    fn take_directives(
        &self,
        live: &mut Backing,
        patch: Vec<Value>,
        key: &str,
    ) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
        let (mut rest, mut replace) = (Vec::with_capacity(patch.len()), false);
        for item in patch {
            let Value::Object(map) = &item else { continue };
            match map.get(DIRECTIVE) {
                None => rest.push(item),
                Some(Value::String(directive)) if directive == "delete" => {
                    let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                    while let Some(at) = live.list().iter().position(|item| item.get(key) == Some(value)) {
                        live.delete(at);
                    }
                }
                Some(Value::String(directive)) if directive == "replace" => replace = true,
                Some(Value::String(directive)) if directive == "merge" => {
                    return internal("merging lists cannot yet be specified in the patch");
                }
                Some(directive) => return Err(unknown_directive(directive, map)),
            }
        }
        if replace { Ok((rest, Vec::new())) } else { Ok((live.list().to_vec(), rest)) }
    }

    fn merge_items(
        &self,
        live: &mut Backing,
        mut items: Vec<Value>,
        patch: &[Value],
        key: &str,
    ) -> Result<Vec<Value>, PatchError> {
        for item in patch {
            let value = merge_value(item, key)?;
            match items.iter_mut().find(|old| old.get(key) == Some(value)) {
                Some(old) => {
                    let Value::Object(patch) = item else { continue };
                    let map = old.as_object_mut().map(std::mem::take).unwrap_or_default();
                    *old = Value::Object(merge_map(self.schema, self.below, map, patch.clone())?);
                }
                None => {
                    live.note_append(item);
                    items.push(item.clone());
                }
            }
        }
        Ok(items)
    }
}

/// Are the items of all lists maps? They must all be of one type, and no lists.
fn elements_are_maps(lists: &[&[Value]]) -> Result<bool, PatchError> {
    let longest = lists.iter().map(|list| list.len()).max().unwrap_or_default();
    if longest > MERGED_ITEMS_MAX {
        let message = format!("cannot merge a list of {longest} items: at most {MERGED_ITEMS_MAX}");
        return Err(PatchError::Unprocessable(message));
    }
    let mut items = lists.iter().flat_map(|list| list.iter());
    let Some(first) = items.next() else { return internal("no elements in any of the given slices") };
    if first.is_array() {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
    }
    let kind = go_type(first);
    if items.any(|item| go_type(item) != kind) {
        let lists: Vec<String> = lists.iter().map(|list| go_print_list(list)).collect();
        return internal(format!("list element types are not identical: [{}]", lists.join(" ")));
    }
    Ok(first.is_object())
}

/// Takes repeated items out, as Go does it: the last item takes the place of one that goes.
fn deduplicate(mut items: Vec<Value>) -> Vec<Value> {
    let mut i = 0;
    while i + 1 < items.len() {
        let mut j = i + 1;
        while j < items.len() {
            if items[i] == items[j] {
                items.swap_remove(j);
            } else {
                j += 1;
            }
        }
        i += 1;
    }
    items
}

/// Splits the items into those that are in the list and those that are not.
fn partition(items: Vec<Value>, list: &[Value], key: Option<&str>) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for item in items {
        let found = match key {
            None => list.contains(&item),
            Some(key) => {
                let value = merge_value(&item, key)?;
                if let Some(at) = list.iter().position(|other| !other.is_object()) {
                    return internal(format!("value for key {at} is not a map"));
                }
                list.iter().any(|other| other.get(key) == Some(value))
            }
        };
        if found { inside.push(item) } else { outside.push(item) }
    }
    Ok((inside, outside))
}

fn order_elements(
    patch: Vec<Value>,
    server: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
    maps: bool,
) -> Result<Vec<Value>, PatchError> {
    let index = |list: &[Value], item: &Value| match key {
        Some(key) if maps => list.iter().position(|other| other.get(key) == item.get(key)),
        _ => list.iter().position(|other| other == item),
    };
    let sort = |mut items: Vec<Value>, order: &[Value]| {
        let mut deleted = Vec::new();
        if maps && let Some(key) = key {
            for item in items.iter().chain(order) {
                merge_value(item, key)?;
            }
            let is_deleted = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
            (deleted, items) = items.into_iter().partition(is_deleted);
        }
        go_stable_sort(&mut items, |a, b| match (index(order, a), index(order, b)) {
            (Some(a), Some(b)) => a < b,
            _ => true,
        });
        items.extend(deleted);
        Ok::<_, PatchError>(items)
    };
    let mut patch = sort(patch, patch_order)?.into_iter().peekable();
    let mut server = sort(server, server_order)?.into_iter().peekable();
    let mut out = Vec::with_capacity(patch.len() + server.len());
    loop {
        let server_first = match (server.peek(), patch.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(s), Some(p)) => match (index(server_order, s), index(server_order, p)) {
                (Some(s), Some(p)) => s < p,
                _ => false,
            },
        };
        out.extend(if server_first { server.next() } else { patch.next() });
    }
}

/// Go's `sort.SliceStable`, step by step: the comparison above is no order (items that cannot be compared are all less
/// than each other), so the outcome is that of the very algorithm.
fn go_stable_sort(items: &mut [Value], less: impl Fn(&Value, &Value) -> bool) {
    const BLOCK: usize = 20;
    fn insertion(items: &mut [Value], less: &impl Fn(&Value, &Value) -> bool) {
        for i in 1..items.len() {
            let mut j = i;
            while j > 0 && less(&items[j], &items[j - 1]) {
                items.swap(j, j - 1);
                j -= 1;
            }
        }
    }
    fn sym_merge(items: &mut [Value], a: usize, m: usize, b: usize, less: &impl Fn(&Value, &Value) -> bool) {
        if m - a == 1 {
            let (mut i, mut j) = (m, b);
            while i < j {
                let h = i + (j - i) / 2;
                if less(&items[h], &items[a]) { i = h + 1 } else { j = h }
            }
            return items[a..i].rotate_left(1);
        }
        if b - m == 1 {
            let (mut i, mut j) = (a, m);
            while i < j {
                let h = i + (j - i) / 2;
                if !less(&items[m], &items[h]) { i = h + 1 } else { j = h }
            }
            return items[i..=m].rotate_right(1);
        }
        let mid = a + (b - a) / 2;
        let n = mid + m;
        let (mut start, mut r) = if m > mid { (n - b, mid) } else { (a, m) };
        let p = n - 1;
        while start < r {
            let c = start + (r - start) / 2;
            if !less(&items[p - c], &items[c]) { start = c + 1 } else { r = c }
        }
        let end = n - start;
        if start < m && m < end {
            items[start..end].rotate_left(m - start);
        }
        if a < start && start < mid {
            sym_merge(items, a, start, mid, less);
        }
        if mid < end && end < b {
            sym_merge(items, mid, end, b, less);
        }
    }
    let n = items.len();
    for block in items.chunks_mut(BLOCK) {
        insertion(block, &less);
    }
    let mut size = BLOCK;
    while size < n {
        let (mut a, mut b) = (0, 2 * size);
        while b <= n {
            sym_merge(items, a, a + size, b, &less);
            a = b;
            b += 2 * size;
        }
        let m = a + size;
        if m < n {
            sym_merge(items, a, m, n, &less);
        }
        size *= 2;
    }
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// `None` where the value is itself a directive.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

// ---- values in Go's words ----------------------------------------------------------------------------------------

/// A decoded JSON value as Go's `%v` prints it: `map[a:1 b:[x y]]`.
pub fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or(0.0), 21),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => go_print_list(items),
        Value::Object(map) => go_print_map(map),
    }
}

fn go_print_list(items: &[Value]) -> String {
    let items: Vec<String> = items.iter().map(go_print).collect();
    format!("[{}]", items.join(" "))
}

fn go_print_map(map: &Map<String, Value>) -> String {
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}:{}", go_print(value))).collect();
    format!("map[{}]", fields.join(" "))
}

/// As Go's `%#v` prints it: `map[string]interface {}{"a":1}`.
pub fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or(0.0), 21),
        Value::Number(number) => number.to_string(),
        Value::String(text) => crate::kind::go_quote(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}:{}", crate::kind::go_quote(key), go_syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
    }
}

/// The Go type of a decoded JSON value: `%T`.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's shortest form: an exponent below 1e-4 and from `1e<exponent_from>` on.
fn go_float(value: f64, exponent_from: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..exponent_from).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(current: Value, patch: Value, want: Value) {
        let schema = crate::tables::schema();
        let root = schema.find("api.core.v1.Pod").expect("a type");
        let got = match merge(schema, root, &current, &patch) {
            Ok(merged) => merged,
            Err(error) => error.to_string().into(),
        };
        assert_eq!(got, want);
    }

    fn containers(items: Value) -> Value {
        json!({ "spec": { "containers": items } })
    }

    #[test]
    fn maps_and_scalars_merge_and_null_deletes() {
        let current = json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": { "nodeName": "n" } });
        check(
            current.clone(),
            json!({ "metadata": { "labels": { "b": null, "c": "3", "d": null } }, "spec": { "tolerations": [{ "key": null }] } }),
            json!({ "metadata": { "labels": { "a": "1", "c": "3" } }, "spec": { "nodeName": "n", "tolerations": [{}] } }),
        );
        check(current.clone(), json!({ "spec": null }), json!({ "metadata": { "labels": { "a": "1", "b": "2" } } }));
        check(
            current,
            json!({ "metadata": { "labels": { "$patch": "replace", "z": "1" } } }),
            json!({ "metadata": { "labels": { "z": "1" } }, "spec": { "nodeName": "n" } }),
        );
    }

    #[test]
    fn lists_merge_by_key_or_are_replaced() {
        let two = json!([{ "name": "a", "image": "i", "args": ["x"] }, { "name": "b", "image": "i" }]);
        check(
            containers(two.clone()),
            containers(json!([{ "name": "b", "image": "j" }, { "name": "c" }])),
            containers(
                json!([{ "name": "a", "image": "i", "args": ["x"] }, { "name": "b", "image": "j" }, { "name": "c" }]),
            ),
        );
        check(
            containers(two.clone()),
            containers(json!([{ "name": "a", "args": ["y"] }, { "name": "b", "$patch": "delete" }])),
            containers(json!([{ "name": "a", "image": "i", "args": ["y"] }])),
        );
        check(
            containers(two.clone()),
            containers(json!([{ "$patch": "replace" }, { "name": "z" }])),
            containers(json!([{ "name": "z" }])),
        );
        check(
            containers(two),
            json!({ "spec": { "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }] } }),
            containers(json!([{ "name": "b", "image": "i" }, { "name": "a", "image": "i", "args": ["x"] }])),
        );
    }

    #[test]
    fn lists_of_scalars_merge_without_repeating() {
        let meta = |finalizers: Value| json!({ "metadata": { "finalizers": finalizers } });
        check(meta(json!(["a", "b"])), meta(json!(["b", "c"])), meta(json!(["a", "b", "c"])));
        check(
            meta(json!(["a", "b", "c"])),
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a", "c"] } }),
            meta(json!(["b"])),
        );
        check(
            meta(json!(["a", "b"])),
            json!({ "metadata": { "$setElementOrder/finalizers": ["c", "a"], "finalizers": ["c"] } }),
            meta(json!(["c", "a", "b"])),
        );
    }

    #[test]
    fn retained_keys_are_the_only_ones() {
        let volumes = |item: Value| json!({ "spec": { "volumes": [item] } });
        let live = volumes(json!({ "name": "v", "emptyDir": {} }));
        check(
            live.clone(),
            volumes(json!({ "name": "v", "$retainKeys": ["name", "secret"], "secret": { "secretName": "s" } })),
            volumes(json!({ "name": "v", "secret": { "secretName": "s" } })),
        );
        check(
            live,
            volumes(json!({ "name": "v", "$retainKeys": ["name"], "secret": {} })),
            "invalid patch format of retainKeys".into(),
        );
    }

    #[test]
    fn a_difference_is_the_patch_from_one_to_the_other() {
        let check = |old: Value, new: Value, want: Value| {
            let schema = crate::tables::schema();
            let root = schema.find("api.core.v1.Pod").expect("a type");
            let patch = difference(schema, root, &old, &new);
            assert_eq!(patch, want);
            assert_eq!(merge(schema, root, &old, &patch), Ok(new));
        };
        let labels = |labels: Value| json!({ "metadata": { "labels": labels } });
        check(
            labels(json!({ "a": "1", "b": "2" })),
            labels(json!({ "a": "3" })),
            labels(json!({ "a": "3", "b": null })),
        );
        check(
            containers(json!([{ "name": "a", "image": "i" }, { "name": "b", "args": ["x"] }, { "name": "c" }])),
            containers(json!([{ "name": "b", "args": ["y"] }, { "name": "d" }, { "name": "a" }])),
            json!({ "spec": {
                "$setElementOrder/containers": [{ "name": "b" }, { "name": "d" }, { "name": "a" }],
                "containers": [
                    { "args": ["y"], "name": "b" },
                    { "name": "d" },
                    { "image": null, "name": "a" },
                    { "$patch": "delete", "name": "c" },
                ],
            } }),
        );
        let meta = |finalizers: Value| json!({ "metadata": { "finalizers": finalizers } });
        check(
            meta(json!(["a", "b"])),
            meta(json!(["c", "b"])),
            json!({ "metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["c", "b"],
                "finalizers": ["c"],
            } }),
        );
        let volumes = |item: Value| json!({ "spec": { "volumes": [item] } });
        check(
            volumes(json!({ "name": "v", "emptyDir": {} })),
            volumes(json!({ "name": "v", "secret": { "secretName": "s" } })),
            json!({ "spec": {
                "$setElementOrder/volumes": [{ "name": "v" }],
                "volumes": [{
                    "secret": { "secretName": "s" }, "emptyDir": null, "$retainKeys": ["name", "secret"], "name": "v",
                }],
            } }),
        );
    }

    #[test]
    fn what_no_merge_can_say_is_replaced() {
        let ports = |ports: Value| containers(json!([{ "name": "a", "ports": ports }]));
        let (tcp, udp) = (json!({ "containerPort": 53 }), json!({ "containerPort": 53, "protocol": "UDP" }));
        let (old, new) = (ports(json!([tcp])), ports(json!([tcp, udp])));
        let schema = crate::tables::schema();
        let root = schema.find("api.core.v1.Pod").expect("a type");
        let patch = difference(schema, root, &old, &new);
        let replaced = json!([{ "$patch": "replace" }, { "name": "a", "ports": [tcp, udp] }]);
        assert_eq!(patch, containers(replaced));
        assert_eq!(merge(schema, root, &old, &patch), Ok(new));
        // A null in a map is a value.
        let root = schema.find("api.policy.v1.PodDisruptionBudget").expect("a type");
        let (old, new) = (json!({ "status": {} }), json!({ "status": { "disruptedPods": { "a": null } } }));
        let patch = difference(schema, root, &old, &new);
        assert_eq!(patch, json!({ "status": { "$patch": "replace", "disruptedPods": { "a": null } } }));
        assert_eq!(merge(schema, root, &old, &patch), Ok(new));
    }

    #[test]
    fn refusals_are_in_kubernetes_words() {
        let live = containers(json!([{ "name": "a", "image": "i" }]));
        let refused = |patch: Value, want: &str| check(live.clone(), patch, want.into());
        refused(containers(json!([{ "image": "x" }])), "map: map[image:x] does not contain declared merge key: name");
        refused(containers(json!(["c"])), "list element types are not identical: [[map[image:i name:a]] [c]]");
        refused(
            containers(json!([{ "name": "a", "$patch": "erase" }])),
            "unknown patch type: erase in map: map[$patch:erase name:a]",
        );
        refused(json!({ "$patch": 5 }), "unknown patch type: %!s(int64=5) in map: map[$patch:5]");
        refused(json!([]), "json: cannot unmarshal array into Go value of type map[string]interface {}");
        refused(json!({ "spec": { "$setElementOrder": [] } }), "invalid patch format of setElementOrder list");
    }
}
