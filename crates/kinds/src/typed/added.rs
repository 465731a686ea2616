//! The fields of a new object, written down in one walk over it: what `compare` with the empty object, the algebra of sets
//! and their printing say together, without a set in between. Every create asks for it. Answers nothing where an object
//! is unusual, for example not of its type, and never guesses: whoever asked then goes the long way.

use std::cmp::Ordering;
use std::sync::Arc;

use api::codec::{write_escaped, write_text};
use api::meta;
use serde_json::{Map, Value};

use super::{Atom, Ref, child_near, element_of, list_of, map_of, scalar_error, validate};
use crate::fieldset::{Element, Set, compare_values, print_key, same_values};
use crate::schema::{ListType, Schema};

/// What of the fields is not written.
#[derive(Clone, Copy, Default)]
pub(crate) struct Without<'s> {
    /// These and all below them.
    pub deep: Option<&'s Set>,
    /// These themselves.
    pub shallow: Option<&'s Set>,
}

/// The `fieldsV1` of what `new` has and `empty`, the object that says nothing, has not; `{}` where that is nothing.
pub(crate) fn added(schema: &Schema, ty: Ref, empty: &Value, new: &Value, without: Without) -> Option<String> {
    /// Of the fields of a pod with two containers.
    const TEXT_BYTES: usize = 2048;
    let mut walk = Walk { schema, out: Vec::with_capacity(TEXT_BYTES), fields: Vec::with_capacity(64) };
    let found = walk.below(ty, Some(empty), new, false, without)?;
    if !found.has_children {
        walk.out.extend_from_slice(b"{}");
    }
    String::from_utf8(walk.out).ok()
}

struct Walk<'a, 'v> {
    schema: &'a Schema,
    out: Vec<u8>,
    /// The fields of the objects that are being walked through, one range for each.
    fields: Vec<(&'v str, Ref<'a>, &'v Value)>,
}

/// What was found at one place.
struct Found {
    /// It is a member itself.
    own: bool,
    /// Something is below it, which was written.
    has_children: bool,
}

/// What says that a place with something below it is a member too.
const OWN: &[u8] = br#"".":{},"#;

impl<'a, 'v> Walk<'a, 'v> {
    /// Writes what is below a place, if there is anything. `may`: the place itself may be a member.
    fn below(
        &mut self,
        ty: Ref<'a>,
        old: Option<&Value>,
        new: &'v Value,
        may: bool,
        without: Without,
    ) -> Option<Found> {
        // Where anything can be, other things may have been before.
        if ty.is_open() && old.is_some() {
            return None;
        }
        let own = may && old.is_none();
        match ty.atom(self.schema, ty.form(Some(new))) {
            Atom::Scalar(scalar) => match scalar_error(scalar, new) {
                None => Some(Found { own: may && is_other(old, new), has_children: false }),
                Some(_) => None,
            },
            Atom::List { item, list } => {
                let items = match new {
                    Value::Array(items) => items.as_slice(),
                    Value::Null => &[],
                    _ => return None,
                };
                match (list_of(old).map_or(0, Vec::len), items) {
                    (_, _) if *list == ListType::Atomic => self.whole(ty, old, new, may),
                    (0, []) => self.whole(ty, old, new, may),
                    (0, items) => self.items(item, list, items, own, without),
                    _ => None,
                }
            }
            Atom::Map { fields, rest, atomic } => {
                let map = match new {
                    Value::Object(map) => Some(map),
                    Value::Null => None,
                    _ => return None,
                };
                let before = map_of(old);
                if atomic || (before.is_none_or(Map::is_empty) && map.is_none_or(Map::is_empty)) {
                    return self.whole(ty, old, new, may);
                }
                let (base, mut likely) = (self.fields.len(), 0);
                for (key, value) in map.into_iter().flatten() {
                    self.fields.push((key, child_near(fields, rest, key, &mut likely)?, value));
                }
                self.fields[base..].sort_unstable_by_key(|(key, ..)| *key);
                let start = self.begin(own);
                for at in base..self.fields.len() {
                    let (key, ty, value) = self.fields[at];
                    let old = before.and_then(|before| meta::field(before, key));
                    let name = |out: &mut Vec<u8>| {
                        out.extend_from_slice(b"\"f:");
                        write_escaped(out, key);
                        out.push(b'"');
                    };
                    match without.deep.or(without.shallow) {
                        None => self.child(ty, old, value, true, without, name)?,
                        Some(_) => self.child_without(ty, old, value, &Element::field(key), without, name)?,
                    }
                }
                self.fields.truncate(base);
                Some(self.end(start, own))
            }
        }
    }

    /// What is owned as a whole, if all in it is of its type.
    fn whole(&self, ty: Ref<'a>, old: Option<&Value>, new: &Value, may: bool) -> Option<Found> {
        validate(self.schema, ty, new, true).ok()?;
        Some(Found { own: may && is_other(old, new), has_children: false })
    }

    fn items(
        &mut self,
        item: Ref<'a>,
        list: &ListType,
        items: &'v [Value],
        own: bool,
        without: Without,
    ) -> Option<Found> {
        if let (ListType::Map(keys), None, None) = (list, without.deep, without.shallow) {
            return self.keyed_items(item, keys, items, own);
        }
        let mut named: Vec<(Element, &Value)> = Vec::with_capacity(items.len());
        for value in items {
            named.push((element_of(self.schema, item, list, value).ok()?, value));
        }
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        // What is there twice is owned together, which is the long way's business.
        if named.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let start = self.begin(own);
        for (element, value) in &named {
            self.child_without(item, None, value, element, without, |out| write_text(out, &element.print()))?;
        }
        Some(self.end(start, own))
    }

    /// Items with all their keys, for which no element has to be made.
    fn keyed_items(&mut self, item: Ref<'a>, keys: &[Arc<str>], items: &'v [Value], own: bool) -> Option<Found> {
        if items.iter().any(|value| keys.iter().any(|key| meta::get(value, key).is_none())) {
            return None;
        }
        let mut names: Vec<&str> = keys.iter().map(|key| &**key).collect();
        names.sort_unstable();
        // All of them are there.
        let key = |value: &'v Value, name: &str| meta::get(value, name).unwrap_or(&Value::Null);
        let order = |a: &'v Value, b: &'v Value| {
            let differing = names.iter().map(|name| compare_values(key(a, name), key(b, name)));
            differing.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        };
        let mut sorted: Vec<&Value> = items.iter().collect();
        sorted.sort_by(|a, b| order(a, b));
        if sorted.windows(2).any(|pair| order(pair[0], pair[1]).is_eq()) {
            return None;
        }
        let start = self.begin(own);
        let mut element = String::new();
        for value in sorted {
            element.clear();
            print_key(&mut element, names.iter().map(|name| (*name, key(value, name))));
            self.child(item, None, value, true, Without::default(), |out| write_text(out, &element))?;
        }
        Some(self.end(start, own))
    }

    /// A child of the object or list that was begun, of which something may be left out.
    fn child_without(
        &mut self,
        ty: Ref<'a>,
        old: Option<&Value>,
        value: &'v Value,
        element: &Element,
        without: Without,
        name: impl Fn(&mut Vec<u8>),
    ) -> Option<()> {
        let is_in = |set: Option<&Set>| set.is_some_and(|set| set.has_member(element));
        if is_in(without.deep) {
            // It is nobody's, but it must be of its type.
            return validate(self.schema, ty, value, true).ok();
        }
        let may = !is_in(without.shallow);
        let below = Without {
            deep: without.deep.and_then(|set| set.below(element)),
            shallow: without.shallow.and_then(|set| set.below(element)),
        };
        self.child(ty, old, value, may, below, name)
    }

    fn child(
        &mut self,
        ty: Ref<'a>,
        old: Option<&Value>,
        value: &'v Value,
        may: bool,
        without: Without,
        name: impl Fn(&mut Vec<u8>),
    ) -> Option<()> {
        let start = self.out.len();
        name(&mut self.out);
        self.out.push(b':');
        match self.below(ty, old, value, may, without)? {
            Found { has_children: true, .. } => {}
            Found { own: true, .. } => self.out.extend_from_slice(b"{}"),
            Found { .. } => {
                self.out.truncate(start);
                return Some(());
            }
        }
        self.out.push(b',');
        Some(())
    }

    fn begin(&mut self, own: bool) -> usize {
        let start = self.out.len();
        self.out.push(b'{');
        if own {
            self.out.extend_from_slice(OWN);
        }
        start
    }

    fn end(&mut self, start: usize, own: bool) -> Found {
        let has_children = self.out.len() > start + 1 + if own { OWN.len() } else { 0 };
        match has_children {
            // Over the comma behind the last child.
            true => self.out.last_mut().into_iter().for_each(|last| *last = b'}'),
            false => self.out.truncate(start),
        }
        Found { own, has_children }
    }
}

fn is_other(old: Option<&Value>, new: &Value) -> bool {
    old.is_none_or(|old| !same_values(old, new))
}
