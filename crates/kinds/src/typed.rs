//! Objects seen through their types, as server-side apply sees them: which fields an object has, how two objects differ,
//! what merging and removing gives. Works on values and schemas only; who owns what is the business of `managed`.

use std::collections::{BTreeMap, BTreeSet};

use api::meta;
use serde_json::{Map, Value};

use crate::decode;
use crate::fieldset::{Children, Element, Set, same_values};
use crate::schema::{Field, ListType, MapType, Omit, Schema, Shape, Type, TypeId};
use crate::strategic::{go_print, go_syntax, go_type};

mod added;

pub(crate) use added::{Without, added};

/// What is different between two objects. No field is in more than one of the sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

/// The type of a value at some place of an object.
#[derive(Clone, Copy, Debug)]
pub enum Ref<'a> {
    Type(TypeId),
    /// A field, a list item or a map value; `Some` where the field has its own `x-kubernetes-map-type`.
    Shape(&'a Shape, Option<MapType>),
    /// Any JSON, owned as a whole.
    Untyped,
    /// Any JSON whose objects are owned key by key: unknown fields that are kept.
    Deduced,
}

/// A type resolved against a value.
enum Atom<'a> {
    Scalar(Scalar),
    List { item: Ref<'a>, list: &'a ListType },
    Map { fields: Option<&'a Type>, rest: Option<Ref<'a>>, atomic: bool },
}

#[derive(Clone, Copy, PartialEq)]
enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

/// What a value of an open type turned out to be.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Open,
    Scalar,
    List,
    Map,
}

impl<'a> Ref<'a> {
    fn is_open(self) -> bool {
        matches!(self, Ref::Untyped | Ref::Deduced | Ref::Shape(Shape::Any | Shape::Deduced | Shape::StructOr(..), _))
    }

    fn form(self, value: Option<&Value>) -> Form {
        match value {
            _ if !self.is_open() => Form::Open,
            None | Some(Value::Null) => Form::Open,
            Some(Value::Array(_)) => Form::List,
            Some(Value::Object(_)) => Form::Map,
            Some(_) => Form::Scalar,
        }
    }

    fn atom(self, schema: &'a Schema, form: Form) -> Atom<'a> {
        match self {
            Ref::Type(id) => struct_atom(schema, id, None),
            Ref::Shape(Shape::Any, _) | Ref::Untyped => Ref::open_atom(form, Ref::Untyped, true),
            // Kubernetes publishes these without a type.
            Ref::Deduced | Ref::Shape(Shape::Deduced | Shape::StructOr(..), _) => {
                Ref::open_atom(form, Ref::Deduced, false)
            }
            Ref::Shape(shape, own) => match shape {
                Shape::String | Shape::Bytes => Atom::Scalar(Scalar::String),
                Shape::Bool => Atom::Scalar(Scalar::Boolean),
                Shape::Int32 | Shape::Int64 | Shape::Float => Atom::Scalar(Scalar::Numeric),
                Shape::Struct(id) => struct_atom(schema, *id, own),
                Shape::List(item, list) => Atom::List { item: Ref::Shape(item, None), list },
                Shape::Map(item) => {
                    let atomic = own == Some(MapType::Atomic);
                    Atom::Map { fields: None, rest: Some(Ref::Shape(item, None)), atomic }
                }
                _ => Atom::Scalar(Scalar::Untyped),
            },
        }
    }

    fn open_atom(form: Form, item: Ref<'a>, atomic: bool) -> Atom<'a> {
        match form {
            Form::Scalar => Atom::Scalar(Scalar::Untyped),
            // The items of a list of unknown type are never told apart.
            Form::List => Atom::List { item: Ref::Untyped, list: &ListType::Atomic },
            Form::Map | Form::Open => Atom::Map { fields: None, rest: Some(item), atomic },
        }
    }

    /// The type of what is below an element, where the schema knows it.
    fn below(self, schema: &'a Schema, element: &Element) -> Option<Ref<'a>> {
        match (self.atom(schema, Form::Open), element) {
            (Atom::Map { fields, rest, .. }, Element::Field(name)) => child(fields, rest, name),
            (Atom::List { item, .. }, Element::Key(_) | Element::Item(_) | Element::Index(_)) => Some(item),
            _ => None,
        }
    }
}

fn struct_atom(schema: &Schema, id: TypeId, own: Option<MapType>) -> Atom<'_> {
    let fields = schema.get(id);
    let atomic = own.map_or(fields.atomic, |own| own == MapType::Atomic);
    Atom::Map { fields: Some(fields), rest: fields.preserve_unknown.then_some(Ref::Deduced), atomic }
}

fn find<'a>(fields: &'a Type, name: &str) -> Option<&'a Field> {
    fields.fields.iter().find(|field| *field.name == *name)
}

/// The same, where most names come in the order of the fields: `likely` is where the next one probably is.
fn child_near<'a>(fields: Option<&'a Type>, rest: Option<Ref<'a>>, name: &str, likely: &mut usize) -> Option<Ref<'a>> {
    let found = fields.and_then(|fields| {
        let all = &fields.fields;
        let (before, after) = all.split_at((*likely).min(all.len()));
        let at = after.iter().position(|field| *field.name == *name).map(|at| at + before.len());
        at.or_else(|| before.iter().position(|field| *field.name == *name)).map(|at| (at, &all[at]))
    });
    if let Some((at, _)) = found {
        *likely = at + 1;
    }
    found.map(|(_, field)| Ref::Shape(&field.shape, field.map_type)).or(rest)
}

fn child<'a>(fields: Option<&'a Type>, rest: Option<Ref<'a>>, name: &str) -> Option<Ref<'a>> {
    let field = fields.and_then(|fields| find(fields, name));
    field.map(|field| Ref::Shape(&field.shape, field.map_type)).or(rest)
}

fn list_of(value: Option<&Value>) -> Option<&Vec<Value>> {
    value.and_then(Value::as_array)
}

fn map_of(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

// ---- elements of lists -------------------------------------------------------------------------------------------

/// The element that names an item of a set or an associative list.
fn element_of(schema: &Schema, item: Ref, list: &ListType, value: &Value) -> Result<Element, String> {
    if let Some(why) = nameless(schema, item, list, value) {
        return Err(why);
    }
    Ok(match list {
        ListType::Map(keys) => {
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let value = value.get(&**key).cloned().or_else(|| key_default(schema, item, key));
                found.extend(value.map(|value| (key.to_string(), value)));
            }
            Element::key(found)
        }
        _ => Element::Item(value.clone()),
    })
}

/// Why an item has no such element.
fn nameless(schema: &Schema, item: Ref, list: &ListType, value: &Value) -> Option<String> {
    let why = match (list, value) {
        (ListType::Atomic, _) => "invalid indexing of non-associative list",
        (ListType::Set, Value::Object(_)) => "associative list without keys has an element that's a map type",
        (ListType::Set, Value::Array(_)) => "not supported: associative list with lists as elements",
        (ListType::Set, Value::Null) => "associative list without keys has an element that's an explicit null",
        (ListType::Set, _) => return None,
        (ListType::Map(_), Value::Null) => "associative list with keys may not have a null element",
        (ListType::Map(keys), Value::Object(fields)) => {
            if keys.iter().any(|key| fields.contains_key(&**key) || key_default(schema, item, key).is_some()) {
                return None;
            }
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            return Some(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        (ListType::Map(_), _) => "associative list with keys may not have non-map elements",
    };
    Some(why.to_owned())
}

/// The default of a key field. A field that Go always writes has its zero value as default.
fn key_default(schema: &Schema, item: Ref, key: &str) -> Option<Value> {
    let Atom::Map { fields: Some(fields), .. } = item.atom(schema, Form::Open) else { return None };
    let field = find(fields, key)?;
    let always = field.omit == Omit::Never && !field.pointer;
    field.default.clone().or_else(|| always.then(|| decode::zero(schema, &field.shape)))
}

// ---- validate ----------------------------------------------------------------------------------------------------

/// Does the value have the type? The error lists every deviation, in the words of structured-merge-diff.
pub fn validate(schema: &Schema, ty: Ref, value: &Value, allow_duplicates: bool) -> Result<(), String> {
    let mut walk = Validate { schema, allow_duplicates, path: Vec::new(), errors: Vec::new() };
    walk.visit(ty, value);
    match walk.errors.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Validate<'a, 'v> {
    schema: &'a Schema,
    allow_duplicates: bool,
    path: Vec<Step<'a, 'v>>,
    errors: Vec<String>,
}

/// A step of the way to a value, which is told only where something is wrong.
enum Step<'a, 'v> {
    Field(&'v str),
    Item { item: Ref<'a>, list: &'a ListType, at: usize, value: &'v Value },
}

impl<'a, 'v> Validate<'a, 'v> {
    fn error(&mut self, message: String) {
        let print = |step: &Step| match step {
            Step::Field(name) => Element::field(*name).to_string(),
            Step::Item { item, list, at, value } => {
                element_of(self.schema, *item, list, value).unwrap_or(Element::Index(*at as i64)).to_string()
            }
        };
        let path: String = self.path.iter().map(print).collect();
        self.errors.push(if path.is_empty() { message } else { format!("{path}: {message}") });
    }

    fn visit(&mut self, ty: Ref<'a>, value: &'v Value) {
        match ty.atom(self.schema, ty.form(Some(value))) {
            // Kubernetes publishes it without a type: what it cannot be is found when it is read.
            Atom::Scalar(_) if matches!(ty, Ref::Shape(Shape::IntOrString, _)) => {}
            Atom::Scalar(scalar) => {
                if let Some(message) = scalar_error(scalar, value) {
                    self.error(message);
                }
            }
            Atom::List { item, list } => match value {
                Value::Null => {}
                Value::Array(items) => self.visit_items(item, list, items),
                other => self.error(format!("expected list, got &{{{}}}", go_print(other))),
            },
            Atom::Map { fields, rest, .. } => match value {
                Value::Null => {}
                Value::Object(map) => {
                    let mut likely = 0;
                    for (key, value) in map {
                        self.path.push(Step::Field(key));
                        match child_near(fields, rest, key, &mut likely) {
                            Some(ty) => self.visit(ty, value),
                            None => {
                                // The first of a struct is told, not all.
                                self.error("field not declared in schema".to_owned());
                                self.path.pop();
                                break;
                            }
                        }
                        self.path.pop();
                    }
                }
                other => self.error(format!("expected map, got &{{{}}}", go_print(other))),
            },
        }
    }

    fn visit_items(&mut self, item: Ref<'a>, list: &'a ListType, items: &'v [Value]) {
        let mut seen = BTreeSet::new();
        for (at, value) in items.iter().enumerate() {
            if *list != ListType::Atomic
                && let Some(why) = nameless(self.schema, item, list, value)
            {
                return self.error(format!("element {at}: {why}"));
            }
            if !self.allow_duplicates {
                let element = element_of(self.schema, item, list, value).unwrap_or(Element::Index(at as i64));
                if !seen.insert(element.clone()) {
                    self.error(format!("duplicate entries for key {element}"));
                }
            }
            self.path.push(Step::Item { item, list, at, value });
            self.visit(item, value);
            self.path.pop();
        }
    }
}

fn scalar_error(scalar: Scalar, value: &Value) -> Option<String> {
    match (scalar, value) {
        (_, Value::Null) => None,
        (Scalar::Numeric, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_)) => None,
        (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => None,
        (Scalar::Numeric, value) => Some(format!("expected numeric (int or float), got {}", go_type(value))),
        (Scalar::String, value) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)))
        }
        (Scalar::Boolean, value) => Some(format!("expected boolean, got &{{{}}}", go_print(value))),
        (Scalar::Untyped, value) => Some(format!("expected any scalar, got &{{{}}}", go_print(value))),
    }
}

// ---- the set of an object ----------------------------------------------------------------------------------------

/// Every leaf field and every item of the value. Atomic values are one leaf; items of a set or an associative list are
/// members beside what is below them.
pub fn set_of(schema: &Schema, ty: Ref, value: &Value) -> Set {
    let mut walk = SetOf { schema, path: Vec::new(), set: Set::default() };
    walk.visit(ty, value);
    walk.set
}

struct SetOf<'a> {
    schema: &'a Schema,
    path: Vec<Element>,
    set: Set,
}

impl<'a> SetOf<'a> {
    fn visit(&mut self, ty: Ref<'a>, value: &Value) {
        match ty.atom(self.schema, ty.form(Some(value))) {
            Atom::Scalar(_) => self.set.insert(&self.path),
            Atom::List { list: ListType::Atomic, .. } | Atom::Map { atomic: true, .. } => self.set.insert(&self.path),
            Atom::List { item, list } => {
                let Some(items) = value.as_array() else { return };
                let mut named: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
                for value in items {
                    if let Ok(element) = element_of(self.schema, item, list, value) {
                        named.entry(element).or_default().push(value);
                    }
                }
                for (element, values) in named {
                    self.path.push(element);
                    self.set.insert(&self.path);
                    // Items with the same key are owned together, as one leaf.
                    if let [value] = values.as_slice() {
                        self.visit(item, value);
                    }
                    self.path.pop();
                }
            }
            Atom::Map { fields, rest, .. } => {
                let Some(map) = value.as_object() else { return };
                for (key, value) in map {
                    let declared = fields.is_some_and(|fields| find(fields, key).is_some());
                    self.path.push(Element::field(key));
                    if let Some(ty) = child(fields, rest, key) {
                        self.visit(ty, value);
                    }
                    if !declared || value.is_null() || value.as_object().is_some_and(Map::is_empty) {
                        self.set.insert(&self.path);
                    }
                    self.path.pop();
                }
            }
        }
    }
}

// ---- compare -----------------------------------------------------------------------------------------------------

/// What of `new` is different from `old`.
pub fn compare(schema: &Schema, ty: Ref, old: &Value, new: &Value) -> Comparison {
    Compare { schema }.visit(ty, Some(old), Some(new)).below
}

struct Compare<'a> {
    schema: &'a Schema,
}

/// What is different at one place: the place itself, and what is below it.
#[derive(Default)]
struct Difference {
    removed: bool,
    modified: bool,
    added: bool,
    below: Comparison,
}

/// The differences of the children of one place.
#[derive(Default)]
struct Differences {
    removed: Children,
    modified: Children,
    added: Children,
}

impl Differences {
    fn add(&mut self, element: impl Fn() -> Element, child: Difference) {
        let Difference { removed, modified, added, below } = child;
        let all = [
            (&mut self.removed, removed, below.removed),
            (&mut self.modified, modified, below.modified),
            (&mut self.added, added, below.added),
        ];
        for (to, member, below) in all {
            if member || !below.is_empty() {
                to.push(element(), member, below);
            }
        }
    }

    fn difference(self) -> Difference {
        let Differences { removed, modified, added } = self;
        let below = Comparison {
            removed: Set::of_children(removed),
            modified: Set::of_children(modified),
            added: Set::of_children(added),
        };
        Difference { below, ..Difference::default() }
    }
}

impl<'a> Compare<'a> {
    fn visit(&self, ty: Ref<'a>, old: Option<&Value>, new: Option<&Value>) -> Difference {
        let (mut out, leaf) = match forms(ty, old, new) {
            (form, None) => self.visit_as(ty, form, old, new),
            (first, Some(second)) => {
                let (first, _) = self.visit_as(ty, first, old, new);
                let (second, leaf) = self.visit_as(ty, second, old, new);
                (first.and(second), leaf)
            }
        };
        if !leaf {
            out.added |= old.is_none();
            out.removed |= old.is_some() && new.is_none();
        }
        out
    }

    /// And was it a leaf?
    fn visit_as(&self, ty: Ref<'a>, form: Form, old: Option<&Value>, new: Option<&Value>) -> (Difference, bool) {
        match ty.atom(self.schema, form) {
            Atom::Scalar(_) => (leaf(old, new), true),
            Atom::List { item, list } => {
                let (a, b) = (list_of(old), list_of(new));
                let empty = a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty);
                if empty || *list == ListType::Atomic {
                    return (leaf(old, new), true);
                }
                let children = self.visit_items(item, list, a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice));
                (children.difference(), false)
            }
            Atom::Map { fields, rest, atomic } => {
                let (a, b) = (map_of(old), map_of(new));
                let empty = a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty);
                if empty || atomic {
                    return (leaf(old, new), true);
                }
                let mut children = Differences::default();
                let mut likely = 0;
                for (key, old, new) in zip_maps(a, b) {
                    if let Some(ty) = child_near(fields, rest, key, &mut likely) {
                        children.add(|| Element::field(key), self.visit(ty, old, new));
                    }
                }
                (children.difference(), false)
            }
        }
    }

    fn visit_items(&self, item: Ref<'a>, list: &ListType, old: &[Value], new: &[Value]) -> Differences {
        let mut all: Vec<(Element, bool, &Value)> = Vec::with_capacity(old.len() + new.len());
        for (is_new, values) in [(false, old), (true, new)] {
            let elements =
                values.iter().filter_map(|value| Some((element_of(self.schema, item, list, value).ok()?, value)));
            all.extend(elements.map(|(element, value)| (element, is_new, value)));
        }
        all.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let mut children = Differences::default();
        let mut rest = all.as_slice();
        while let Some((element, ..)) = rest.first() {
            let same = rest.iter().take_while(|(other, ..)| other == element).count();
            let (group, later) = rest.split_at(same);
            rest = later;
            let of = |wanted: bool| group.iter().filter(move |(_, is_new, _)| *is_new == wanted).map(|(.., v)| *v);
            let (a, b): (Vec<&Value>, Vec<&Value>) = (of(false).collect(), of(true).collect());
            let difference = match (a.as_slice(), b.as_slice()) {
                ([] | [_], [] | [_]) => self.visit(item, a.first().copied(), b.first().copied()),
                // Items with the same key are compared as one atomic value.
                ([_, _, ..], [_, _, ..]) => Difference {
                    modified: a.len() != b.len() || !a.iter().zip(&b).all(|(a, b)| same_values(a, b)),
                    ..Difference::default()
                },
                ([_, _, ..], _) => {
                    let new = b.first().map(|new| self.visit(item, None, Some(new)));
                    Difference { removed: true, ..new.unwrap_or_default() }
                }
                (_, [_, _, ..]) => {
                    let old = a.first().map(|old| self.visit(item, Some(old), None));
                    Difference { added: true, ..old.unwrap_or_default() }
                }
            };
            children.add(|| element.clone(), difference);
        }
        children
    }
}

impl Difference {
    fn and(self, other: Difference) -> Difference {
        Difference {
            removed: self.removed || other.removed,
            modified: self.modified || other.modified,
            added: self.added || other.added,
            below: Comparison {
                removed: self.below.removed.union(other.below.removed),
                modified: self.below.modified.union(other.below.modified),
                added: self.below.added.union(other.below.added),
            },
        }
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Difference {
    Difference {
        added: old.is_none(),
        removed: old.is_some() && new.is_none(),
        modified: matches!((old, new), (Some(old), Some(new)) if !same_values(old, new)),
        below: Comparison::default(),
    }
}

/// As what to look at the two values: twice where an open type holds different things on both sides.
fn forms(ty: Ref, old: Option<&Value>, new: Option<&Value>) -> (Form, Option<Form>) {
    let (a, b) = (ty.form(old), ty.form(new));
    if new.is_none() {
        (a, None)
    } else if old.is_none() || a == b {
        (b, None)
    } else {
        (a, Some(b))
    }
}

type Pair<'v> = (&'v str, Option<&'v Value>, Option<&'v Value>);

fn zip_maps<'v>(a: Option<&'v Map<String, Value>>, b: Option<&'v Map<String, Value>>) -> Vec<Pair<'v>> {
    let mut out: Vec<Pair> = Vec::with_capacity(a.map_or(0, Map::len).max(b.map_or(0, Map::len)));
    for (key, value) in a.into_iter().flatten() {
        out.push((key, Some(value), b.and_then(|b| meta::field(b, key))));
    }
    for (key, value) in b.into_iter().flatten() {
        if a.is_none_or(|a| meta::field(a, key).is_none()) {
            out.push((key, None, Some(value)));
        }
    }
    out
}

// ---- merge -------------------------------------------------------------------------------------------------------

/// `live` with everything `config` says. Nothing is removed; items stand as in `live`, or as in `config` where that
/// names them in another order.
pub fn merge(schema: &Schema, ty: Ref, live: &Value, config: &Value) -> Result<Value, String> {
    let mut walk = Merge { schema, path: Vec::new(), errors: Vec::new() };
    let out = walk.visit(ty, Some(live), Some(config));
    match walk.errors.as_slice() {
        [] => Ok(out.unwrap_or(Value::Null)),
        [only] => Err(only.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Merge<'a> {
    schema: &'a Schema,
    path: Vec<Element>,
    errors: Vec<String>,
}

impl<'a> Merge<'a> {
    fn visit(&mut self, ty: Ref<'a>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
        match forms(ty, live, config) {
            (form, None) => self.visit_as(ty, form, live, config),
            (_, Some(second)) => self.visit_as(ty, second, live, config),
        }
    }

    fn visit_as(&mut self, ty: Ref<'a>, form: Form, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
        let leaf = || config.or(live).cloned();
        match ty.atom(self.schema, form) {
            Atom::Scalar(_) => leaf(),
            Atom::List { item, list } => {
                let (a, b) = (list_of(live), list_of(config));
                let empty = a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty);
                if empty || *list == ListType::Atomic {
                    return leaf();
                }
                self.merge_items(item, list, a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice))
            }
            Atom::Map { fields, rest, atomic } => {
                let (a, b) = (map_of(live), map_of(config));
                let empty = a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty);
                if empty || atomic {
                    return leaf();
                }
                let mut out = Map::new();
                for (key, live, config) in zip_maps(a, b) {
                    self.path.push(Element::field(key));
                    if let Some(ty) = child(fields, rest, key)
                        && let Some(value) = self.visit(ty, live, config)
                    {
                        out.insert(key.to_owned(), value);
                    }
                    self.path.pop();
                }
                (!out.is_empty()).then_some(Value::Object(out))
            }
        }
    }

    fn elements(&mut self, item: Ref, list: &ListType, items: &[Value], allow_duplicates: bool) -> Vec<Element> {
        let mut out: Vec<Element> = Vec::with_capacity(items.len());
        let mut seen = BTreeSet::new();
        let path: String = self.path.iter().map(Element::to_string).collect();
        for (at, value) in items.iter().enumerate() {
            match element_of(self.schema, item, list, value) {
                Err(message) => self.errors.push(format!("{path}: element {at}: {message}")),
                Ok(element) if !seen.insert(element.clone()) && !allow_duplicates => {
                    self.errors.push(format!("{path}: duplicate entries for key {element}"));
                }
                Ok(element) => out.push(element),
            }
        }
        out
    }

    /// Interleaves both lists: items of `live` keep their places around the items of `config`, which stand in the order
    /// `config` gives them.
    fn merge_items(&mut self, item: Ref<'a>, list: &ListType, live: &[Value], config: &[Value]) -> Option<Value> {
        let before = self.errors.len();
        let config_elements = self.elements(item, list, config, false);
        let live_elements = self.elements(item, list, live, true);
        if self.errors.len() > before {
            return None;
        }
        let mut live_values: BTreeMap<&Element, &Value> = BTreeMap::new();
        for (element, value) in live_elements.iter().zip(live) {
            // An item whose key is there twice is not merged with anything.
            live_values.entry(element).and_modify(|value| *value = &Value::Null).or_insert(value);
        }
        let config_values: BTreeMap<&Element, &Value> = config_elements.iter().zip(config).collect();
        let of_live = |element: &Element| live_values.get(element).copied();
        let of_config = |element: &Element| config_values.get(element).copied();
        let mut shared = config_elements.iter().filter(|element| live_values.contains_key(element));
        let mut next_shared = shared.next();
        let mut merged: BTreeSet<&Element> = BTreeSet::new();
        let mut out = Vec::new();
        let (mut l, mut c) = (0, 0);
        while l < live_elements.len() || c < config_elements.len() {
            if l < live_elements.len() && c < config_elements.len() {
                let element = &live_elements[l];
                if *element == config_elements[c] {
                    merged.insert(element);
                    out.extend(self.merge_item(item, element, of_live(element), of_config(element)));
                    l += 1;
                    c += 1;
                    next_shared = shared.next();
                    continue;
                }
                if of_config(element).is_some() && next_shared.is_some_and(|next| next != element) {
                    // Shared, but its turn in the order of the config has not come or is over.
                    l += 1;
                    continue;
                }
            }
            if l < live_elements.len() {
                let element = &live_elements[l];
                if of_config(element).is_none() {
                    out.extend(self.merge_item(item, element, Some(&live[l]), None));
                    l += 1;
                    continue;
                } else if merged.contains(element) {
                    l += 1;
                }
            }
            if c < config_elements.len() {
                let element = &config_elements[c];
                merged.insert(element);
                out.extend(self.merge_item(item, element, of_live(element), of_config(element)));
                c += 1;
                if next_shared == Some(element) {
                    next_shared = shared.next();
                }
            }
        }
        (!out.is_empty()).then_some(Value::Array(out))
    }

    fn merge_item(
        &mut self,
        item: Ref<'a>,
        at: &Element,
        live: Option<&Value>,
        config: Option<&Value>,
    ) -> Option<Value> {
        self.path.push(at.clone());
        let out = self.visit(item, live, config);
        self.path.pop();
        out
    }
}

// ---- remove ------------------------------------------------------------------------------------------------------

/// The value without the items and fields of the set.
pub fn remove(schema: &Schema, ty: Ref, value: &Value, gone: &Set) -> Value {
    match ty.atom(schema, ty.form(Some(value))) {
        Atom::Scalar(_) => value.clone(),
        Atom::List { list: ListType::Atomic, .. } | Atom::Map { atomic: true, .. } => Value::Null,
        Atom::List { item, list } => {
            let mut out = Vec::new();
            for value in value.as_array().into_iter().flatten() {
                let Ok(element) = element_of(schema, item, list, value) else { continue };
                if gone.has_member(&element) {
                    continue;
                }
                out.push(match gone.below(&element) {
                    Some(gone) => remove(schema, item, value, gone),
                    None => value.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        Atom::Map { fields, rest, .. } => {
            let mut out = Map::new();
            for (key, value) in value.as_object().into_iter().flatten() {
                let element = Element::field(key);
                if gone.has_member(&element) {
                    continue;
                }
                let value = match (gone.below(&element), child(fields, rest, key)) {
                    (Some(gone), Some(ty)) => remove(schema, ty, value, gone),
                    _ => value.clone(),
                };
                out.insert(key.clone(), value);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
    }
}

// ---- sets and types ----------------------------------------------------------------------------------------------

/// The set with every struct field on the way to a member made a member too.
pub fn with_named_fields(schema: &Schema, ty: Option<Ref>, set: &Set) -> Set {
    let mut out = Set::default();
    for (element, member, below) in set.children() {
        let declared = match (element, ty.map(|ty| ty.atom(schema, Form::Open))) {
            (Element::Field(name), Some(Atom::Map { fields: Some(fields), .. })) => find(fields, name).is_some(),
            _ => false,
        };
        let child = ty.and_then(|ty| ty.below(schema, element));
        let member = member || (declared && !below.is_empty());
        out.set_child(element.clone(), member, with_named_fields(schema, child, below));
    }
    out
}

/// The set as the schema would have it today: what became atomic since the set was written is owned as a whole.
pub fn reconcile(schema: &Schema, ty: Ref, set: Set) -> Set {
    let (mut whole, mut path) = (Set::default(), Vec::new());
    find_whole(schema, ty, Some(&set), false, &mut path, &mut whole);
    if whole.is_empty() { set } else { set.difference_deep(&whole).union(whole) }
}

/// `leaf`: the set owns this very place and nothing below it.
fn find_whole(schema: &Schema, ty: Ref, set: Option<&Set>, leaf: bool, path: &mut Vec<Element>, whole: &mut Set) {
    if matches!(ty, Ref::Deduced) {
        return;
    }
    match ty.atom(schema, Form::Open) {
        Atom::Scalar(_) => return,
        Atom::List { list: ListType::Atomic, .. } if !leaf => return whole.insert(path),
        Atom::Map { atomic: true, .. } if !leaf => {
            if set.is_some_and(|set| !set.is_empty()) {
                whole.insert(path);
            }
            return;
        }
        _ => {}
    }
    for (element, member, below) in set.into_iter().flat_map(Set::children) {
        if let Some(ty) = ty.below(schema, element) {
            path.push(element.clone());
            find_whole(schema, ty, Some(below), member && below.is_empty(), path, whole);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tables::schema;

    fn ty(name: &str) -> Ref<'static> {
        Ref::Type(schema().find(name).expect("a type"))
    }

    const POD: &str = "api.core.v1.PodSpec";

    #[test]
    fn sets_know_lists_maps_and_atoms() {
        #[track_caller]
        fn check(name: &str, value: Value, want: &str) {
            assert_eq!(
                set_of(schema(), ty(name), &value).print().to_string().replace('"', "'").replace("\\'", "`"),
                want
            );
        }
        check(POD, json!({ "nodeName": "n", "nodeSelector": { "a": "b" } }), "{'f:nodeName':{},'f:nodeSelector':{}}");
        check(
            POD,
            json!({ "nodeSelector": {}, "tolerations": [], "volumes": [] }),
            "{'f:nodeSelector':{},'f:tolerations':{}}",
        );
        check(
            POD,
            json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80 }], "resources": {} }] }),
            "{'f:containers':{'k:{`name`:`c`}':{'.':{},'f:name':{},'f:ports':{'k:{`containerPort`:80,`protocol`:`TCP`}':\
             {'.':{},'f:containerPort':{}}},'f:resources':{}}}}",
        );
        check(
            "apimachinery.pkg.apis.meta.v1.ObjectMeta",
            json!({ "finalizers": ["b", "a"], "labels": { "x": "1" } }),
            "{'f:finalizers':{'v:`a`':{},'v:`b`':{}},'f:labels':{'f:x':{}}}",
        );
        // A field may see a struct otherwise than its type.
        let reference =
            json!({ "claimRef": { "name": "c" }, "nodeAffinity": { "required": { "nodeSelectorTerms": [] } } });
        check(
            "api.core.v1.PersistentVolumeSpec",
            reference,
            "{'f:claimRef':{'f:name':{}},'f:nodeAffinity':{'f:required':{}}}",
        );
        let twice = json!({ "containers": [{ "name": "c", "env": [{ "name": "E" }, { "name": "E", "value": "1" }] }] });
        check(POD, twice, "{'f:containers':{'k:{`name`:`c`}':{'.':{},'f:env':{'k:{`name`:`E`}':{}},'f:name':{}}}}");
    }

    #[test]
    fn merging_keeps_order_where_it_can() {
        #[track_caller]
        fn check(live: &str, config: &str, want: &str) {
            let list = |words: &str| -> Value { words.split_whitespace().collect() };
            let object = |words: &str| json!({ "finalizers": list(words) });
            let merged =
                merge(schema(), ty("apimachinery.pkg.apis.meta.v1.ObjectMeta"), &object(live), &object(config));
            assert_eq!(merged, Ok(object(want)));
        }
        check("a b c", "b", "a b c");
        check("a b c", "c a", "b c a");
        check("a b c d", "d x b", "a c d x b");
        check("a", "b a", "b a");
        check("a b", "x y", "a b x y");
        check("a b c", "c b a", "c b a");
    }

    #[test]
    fn errors_are_those_of_structured_merge_diff() {
        #[track_caller]
        fn check(value: Value, want: &str) {
            assert_eq!(validate(schema(), ty(POD), &value, false), Err(want.to_owned()));
        }
        check(json!({ "nothing": 1 }), ".nothing: field not declared in schema");
        check(json!({ "nodeName": 5 }), ".nodeName: expected string, got &value.valueUnstructured{Value:5}");
        check(json!({ "hostNetwork": "x" }), ".hostNetwork: expected boolean, got &{x}");
        check(json!({ "priority": "x" }), ".priority: expected numeric (int or float), got string");
        check(json!({ "containers": "x" }), ".containers: expected list, got &{x}");
        check(json!({ "nodeSelector": ["x"] }), ".nodeSelector: expected map, got &{[x]}");
        check(
            json!({ "containers": [{ "name": "c" }, { "name": "c" }] }),
            r#".containers: duplicate entries for key [name="c"]"#,
        );
        check(
            json!({ "nodeName": 5, "priority": "x" }),
            "errors:\n  .nodeName: expected string, got &value.valueUnstructured{Value:5}\n  \
             .priority: expected numeric (int or float), got string",
        );
    }

    #[test]
    fn removing_takes_items_with_all_below_them() {
        let value =
            json!({ "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }], "nodeName": "n" });
        let gone = json!({ "f:containers": { "k:{\"name\":\"a\"}": {}, "k:{\"name\":\"b\"}": { "f:image": {} } } });
        let gone = Set::parse(&gone).expect("a set");
        let want = json!({ "containers": [{ "name": "b" }], "nodeName": "n" });
        assert_eq!(remove(schema(), ty(POD), &value, &gone), want);
    }

    #[test]
    fn what_became_atomic_is_owned_whole() {
        let old = json!({ "f:nodeSelector": { ".": {}, "f:a": {} }, "f:nodeName": {} });
        let set = reconcile(schema(), ty(POD), Set::parse(&old).expect("a set"));
        assert_eq!(set.print(), json!({ "f:nodeName": {}, "f:nodeSelector": {} }));
    }
}
