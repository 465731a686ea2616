//! Changes of objects: what a patch makes of an object is an object or is refused, a difference makes the second object of
//! the first, and an apply leaves alone what is others'.

use std::collections::{BTreeMap, HashSet};

use kinds::apply::{self, ApplyError};
use kinds::fieldset::{Element, Path, Set};
use kinds::managed::{self, Write};
use kinds::{Kind, strategic};
use serde_json::Value;

use crate::generate;
use crate::tape::Tape;
use crate::values::{kind_of, stays};

/// An object and a strategic merge patch of it, one JSON value after the other.
pub fn strategic(bytes: &[u8]) {
    let mut values = values(bytes);
    let Some((kind, object)) = values.next().and_then(object_of) else { return };
    let Some(patch) = values.next() else { return };
    let Ok(patched) = strategic::merge(&kind.schema, kind.root, &object, &patch) else { return };
    let converts = strategic::conversion_error(&kind.schema, kind.root, &patched).is_none();
    let Ok(read) = kind.normalize(patched) else { return };
    if converts {
        stays(&kind, &read.object);
    }
    // The difference says the same as the patch did.
    let object = kind.tidy(object).expect("what is read is of its types");
    let patched = kind.tidy(read.object).expect("what is read is of its types");
    makes(&kind, &object, &patched);
}

/// Two objects of a kind, made from the tables.
pub fn differences(bytes: &[u8]) {
    let tape = &mut Tape::new(bytes);
    let kind = generate::kind(tape, &kinds::builtin());
    let first = generate::object(tape, &kind);
    let second = if tape.chance(64) { generate::object(tape, &kind) } else { generate::varied(tape, &kind, &first) };
    makes(&kind, &first, &second);
    makes(&kind, &second, &first);
}

/// The strategic difference of two objects, merged into the first, gives the second.
fn makes(kind: &Kind, first: &Value, second: &Value) {
    let patch = strategic::difference(&kind.schema, kind.root, first, second);
    let made = strategic::merge(&kind.schema, kind.root, first, &patch);
    let made = made.unwrap_or_else(|why| panic!("{why}\n{first}\n{second}\n{patch}"));
    let read = kind.normalize(made).unwrap_or_else(|why| panic!("{why}\n{first}\n{second}\n{patch}"));
    let made = kind.tidy(read.object).expect("what is read is of its types");
    assert_eq!(made.to_string(), second.to_string(), "{first}\n{patch}");
    let none = strategic::difference(&kind.schema, kind.root, second, &made);
    assert_eq!(none.to_string(), "{}");
}

/// Managers who apply configurations of an object made from the tables, some by force, and others who update it.
pub fn apply(bytes: &[u8]) {
    let tape = &mut Tape::new(bytes);
    let kind = generate::kind(tape, &kinds::builtin());
    let mut wanted = generate::object(tape, &kind);
    let mut live: Option<Value> = None;
    for second in 0..STEPS_MAX {
        let manager = tape.one_of(&["one", "two", "three"]);
        let force = tape.chance(48);
        let step = Step { kind: &kind, manager, now: &format!("2026-01-01T00:00:{second:02}Z") };
        live = match (&live, tape.chance(48)) {
            (Some(live), true) => Some(step.update(live, generate::varied(tape, &kind, live))),
            _ => step.apply(live.as_ref(), &generate::part(tape, &kind, &wanted), force).or(live),
        };
        if tape.is_over() {
            break;
        }
        wanted = generate::varied(tape, &kind, &wanted);
    }
}

/// Writes in one run: each may use up the tape.
const STEPS_MAX: usize = 8;

/// One write by one manager.
pub struct Step<'a> {
    pub kind: &'a Kind,
    pub manager: &'a str,
    pub now: &'a str,
}

impl Step<'_> {
    /// The object after an apply; `None` where it was refused or changed nothing.
    pub fn apply(&self, live: Option<&Value>, config: &Value, force: bool) -> Option<Value> {
        let new = match self.merged(live, config, force) {
            Ok(new) => new?,
            Err(ApplyError::Conflict(_)) if force => panic!("a forced apply has no conflicts: {config}"),
            Err(_) => return None,
        };
        if let Some(live) = live.filter(|_| !force) {
            self.leaves_alone_what_is_others(live, &new, config);
        }
        let read = self.kind.normalize(new).unwrap_or_else(|why| panic!("{why}: {config}"));
        // A custom resource may leave open what it holds, and drop it again.
        assert!(read.strict.is_empty() || self.kind.is_custom(), "{:?} {config}", read.strict);
        let new = self.kind.tidy(read.object).expect("what is read is of its types");
        stays(self.kind, &new);
        if let Ok(Some(twice)) = self.merged(Some(&new), config, force) {
            let read = self.kind.normalize(twice).expect("an apply that was done can be done again");
            let twice = self.kind.tidy(read.object).expect("what is read is of its types");
            // What Go's pruning has emptied it drops, even where the client says that it is there, empty; the next apply puts it back.
            let shown = |object: &Value| without_empty(without_times(object));
            assert_eq!(shown(&twice), shown(&new), "applied twice: {config}");
        }
        Some(new)
    }

    fn merged(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Option<Value>, ApplyError> {
        self.writing(|write| apply::apply(&self.kind.schema, self.kind.root, live, config, force, write))
    }

    /// The object after an update, with its owners.
    fn update(&self, live: &Value, mut new: Value) -> Value {
        self.writing(|write| managed::update(&self.kind.schema, self.kind.root, Some(live), &mut new, write));
        new
    }

    fn writing<T>(&self, write: impl FnOnce(&Write) -> T) -> T {
        let api_version = self.kind.api_version();
        let owned = managed::resets(&api_version, &self.kind.kind, "", self.kind.has_status(), self.kind.is_custom());
        write(&Write {
            manager: self.manager,
            api_version: &api_version,
            kind: &self.kind.kind,
            subresource: "",
            now: self.now,
            owned: &owned,
            convert: &managed::one_version,
        })
    }

    /// A field that only others own has the value that it had.
    fn leaves_alone_what_is_others(&self, live: &Value, new: &Value, config: &Value) {
        let (before, after) = (owners(live), owners(new));
        let own = before.iter().find(|(who, _)| who.0 == self.manager && who.1).map(|(_, set)| set.clone());
        let own = own.unwrap_or_default();
        // Whoever adds to a list or a map changes what holds it, and takes nothing away.
        let holders: HashSet<String> = before.values().chain(after.values()).flat_map(holders).collect();
        for set in before.iter().filter(|(who, _)| !(who.0 == self.manager && who.1)).map(|(_, set)| set) {
            for path in set.paths() {
                if own.has(&path.0) || holders.contains(&path.to_string()) {
                    continue;
                }
                let (old, now) = (at(live, &path.0), at(new, &path.0));
                assert_eq!(old, now, "{path} is not {}'s: {config}\n{live}\n{new}", self.manager);
            }
        }
    }
}

/// Who owns which fields, by manager and whether they apply.
fn owners(object: &Value) -> BTreeMap<(String, bool), Set> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let set = Set::parse(&entry["fieldsV1"]).expect("what is stored is a set");
            ((text("manager"), text("operation") == "Apply"), set)
        })
        .collect()
}

/// What holds a field of the set.
fn holders(set: &Set) -> Vec<String> {
    let paths = set.paths();
    let steps = |path: &Path| -> Vec<String> {
        let mut at = String::new();
        let holders = path.0[..path.0.len() - 1].iter().map(|element| {
            at += &element.to_string();
            at.clone()
        });
        holders.collect()
    };
    paths.iter().flat_map(steps).collect()
}

/// What a path leads to.
fn at<'v>(value: &'v Value, path: &[Element]) -> Option<&'v Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    let inner = match (first, value) {
        (Element::Field(name), Value::Object(map)) => map.get(name),
        (Element::Key(keys), Value::Array(items)) => {
            items.iter().find(|item| keys.iter().all(|(k, v)| item.get(k) == Some(v)))
        }
        (Element::Item(wanted), Value::Array(items)) => items.iter().find(|item| *item == wanted),
        (Element::Index(at), Value::Array(items)) => usize::try_from(*at).ok().and_then(|at| items.get(at)),
        _ => None,
    };
    at(inner?, rest)
}

/// An object without fields that hold an empty object, but for its metadata.
fn without_empty(mut object: Value) -> Value {
    fn empty(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.values_mut().for_each(empty);
                map.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
            }
            Value::Array(items) => items.iter_mut().for_each(empty),
            _ => {}
        }
    }
    let parts = object.as_object_mut().into_iter().flat_map(|map| map.iter_mut());
    parts.filter(|(name, _)| *name != "metadata").for_each(|(_, part)| empty(part));
    object
}

fn without_times(object: &Value) -> Value {
    let mut object = object.clone();
    for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
        entry["time"] = Value::Null;
    }
    object
}

fn object_of(value: Value) -> Option<(std::sync::Arc<Kind>, Value)> {
    let says = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = kind_of(&kinds::builtin(), says("apiVersion"), says("kind"))?;
    let read = kind.normalize(value).ok()?;
    Some((kind, read.object))
}

fn values(bytes: &[u8]) -> impl Iterator<Item = Value> {
    serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().map_while(Result::ok)
}
