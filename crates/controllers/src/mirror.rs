//! What a controller has seen of one resource: the objects by namespace and name. Follows a watch's events; asks nobody.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::meta;
use kemudi_client::{Dynamic, Event};
use serde_json::Value;

use crate::lean::Lean;

/// Namespace (empty for cluster-wide objects) and name.
pub type Key = (String, String);

/// Lean objects that are held as values as well, because somebody read them. With one more all become text again.
const UNPACKED_MAX: usize = 1000;

/// The objects of one resource as far as they were told.
#[derive(Debug, Default)]
pub struct Mirror {
    /// `None` where the whole object is read.
    lean: Option<Lean>,
    objects: BTreeMap<Key, Held>,
    /// What a new list has not told yet; gone when it ends.
    unseen: BTreeSet<Key>,
    /// One whole list was told.
    complete: bool,
    /// Lean objects that are held as values.
    unpacked: Cell<usize>,
}

/// An object as it is held: a small value takes several times the memory of its text, and most are never looked at.
#[derive(Debug)]
enum Held {
    Whole(Arc<Dynamic>),
    Lean(Box<str>, OnceCell<Box<Value>>),
}

impl Mirror {
    /// A mirror that holds no more of an object than `lean` leaves.
    pub fn new(lean: Option<Lean>) -> Mirror {
        Mirror { lean, ..Mirror::default() }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(namespace.to_string(), name.to_string())).map(|held| self.value(held))
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.objects.values().map(|held| self.value(held))
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// The objects of one namespace.
    pub fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        let from = (namespace.to_string(), String::new());
        let objects = self.objects.range(from..).take_while(move |((of, _), _)| of == namespace);
        objects.map(|(_, held)| self.value(held))
    }

    fn value<'a>(&self, held: &'a Held) -> &'a Value {
        match held {
            Held::Whole(object) => object,
            Held::Lean(text, value) => value.get_or_init(|| {
                self.unpacked.set(self.unpacked.get() + 1);
                // It is what was printed here.
                Box::new(serde_json::from_str(text).unwrap_or_default())
            }),
        }
    }

    /// Takes an event in; gives the objects that it changed, as they are now or as they were last.
    pub fn follow(&mut self, event: Event<Arc<Dynamic>>) -> Vec<Arc<Dynamic>> {
        match event {
            Event::Init => {
                self.unseen = self.objects.keys().cloned().collect();
                Vec::new()
            }
            Event::InitApplied(object) | Event::Applied(object) => self.put(object).into_iter().collect(),
            Event::Deleted(object) => match (self.objects.remove(&key_of(&object)), self.lean) {
                // It never was, for its reader.
                (None, Some(_)) => Vec::new(),
                _ => vec![object],
            },
            Event::InitDone => {
                self.complete = true;
                let gone = std::mem::take(&mut self.unseen);
                gone.iter().filter_map(|key| self.objects.remove(key)).map(Held::into_object).collect()
            }
        }
    }

    /// What its reader does not see of an object has not changed for it.
    fn put(&mut self, object: Arc<Dynamic>) -> Option<Arc<Dynamic>> {
        let lent = self.lean.map(|lean| lean(&object));
        // Most readers are not concerned by most objects, which are told to all.
        if matches!(lent, Some(None)) && self.objects.is_empty() {
            return None;
        }
        let key = key_of(&object);
        self.unseen.remove(&key);
        let Some(lent) = lent else {
            let held = self.objects.insert(key, Held::Whole(object.clone()));
            let same = held.is_some_and(|held| matches!(held, Held::Whole(old) if old == object));
            return (!same).then_some(object);
        };
        let Some(text) = lent.map(|lent| lent.text()) else {
            return self.objects.remove(&key).map(Held::into_object);
        };
        if matches!(self.objects.get(&key), Some(Held::Lean(old, _)) if *old == text) {
            return None;
        }
        self.objects.insert(key, Held::Lean(text, OnceCell::new()));
        Some(object)
    }

    /// Lets go of what was only read; to be called from time to time.
    pub fn pack(&mut self) {
        if self.unpacked.get() > UNPACKED_MAX {
            self.unpacked.set(0);
            for held in self.objects.values_mut() {
                if let Held::Lean(_, value) = held {
                    value.take();
                }
            }
        }
    }
}

impl Held {
    fn into_object(self) -> Arc<Dynamic> {
        match self {
            Held::Whole(object) => object,
            Held::Lean(text, _) => Arc::new(Dynamic(serde_json::from_str(&text).unwrap_or_default())),
        }
    }
}

pub fn key_of(object: &Value) -> Key {
    (meta::namespace(object).to_string(), meta::name(object).to_string())
}

#[cfg(test)]
mod tests {
    use api::meta;
    use serde_json::json;

    use super::*;
    use crate::lean::Lent;

    fn named(name: &str, colour: &str) -> Arc<Dynamic> {
        Arc::new(Dynamic(json!({"metadata": {"name": name, "namespace": "a"}, "colour": colour})))
    }

    /// Shows a mirror of red objects one more; gives the name of what changed for its reader.
    #[track_caller]
    fn check(mirror: &mut Mirror, event: Event<Arc<Dynamic>>, want: &str) {
        let changed: Vec<String> = mirror.follow(event).iter().map(|object| meta::name(object).to_string()).collect();
        assert_eq!(changed.join(" "), want);
    }

    #[test]
    fn a_new_list_drops_what_it_does_not_tell() {
        let mut mirror = Mirror::default();
        for (event, want) in
            [(Event::Init, ""), (Event::InitApplied(named("x", "")), "x"), (Event::InitApplied(named("y", "")), "y")]
        {
            check(&mut mirror, event, want);
        }
        check(&mut mirror, Event::InitDone, "");
        assert!(mirror.is_complete());
        check(&mut mirror, Event::Init, "");
        check(&mut mirror, Event::InitApplied(named("y", "")), "");
        check(&mut mirror, Event::InitDone, "x");
        assert_eq!(mirror.of_namespace("a").count(), 1);
    }

    #[test]
    fn a_lean_mirror_holds_what_matters_to_its_reader() {
        fn lean(object: &Value) -> Option<Lent<'_>> {
            (object["colour"] == "red").then(|| Lent::object([("metadata", Lent::Part(&object["metadata"]))]))
        }
        let mut mirror = Mirror::new(Some(lean));
        check(&mut mirror, Event::Applied(named("x", "green")), "");
        check(&mut mirror, Event::Applied(named("x", "red")), "x");
        check(&mut mirror, Event::Applied(named("x", "red")), "");
        check(&mut mirror, Event::Applied(named("x", "blue")), "x");
        check(&mut mirror, Event::Deleted(named("x", "blue")), "");
        for i in 0..=UNPACKED_MAX {
            check(&mut mirror, Event::Applied(named(&format!("o{i}"), "red")), &format!("o{i}"));
        }
        assert!(mirror.iter().all(|object| meta::name(object).starts_with('o')));
        mirror.pack();
        assert_eq!((mirror.unpacked.get(), mirror.get("a", "o7").is_some(), mirror.unpacked.get()), (0, true, 1));
    }
}
