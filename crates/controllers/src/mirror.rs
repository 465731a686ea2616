//! What a controller has seen of one resource: the objects by namespace and name. Follows a watcher's events; asks nobody.

use std::collections::{BTreeMap, BTreeSet};

use api::meta;
use kemudi_client::{Dynamic, Event, Resource};
use serde_json::Value;

/// Namespace (empty for cluster-wide objects) and name.
pub type Key = (String, String);

/// The objects of one resource as far as they were told.
#[derive(Debug)]
pub struct Mirror {
    /// Takes out of an object what its reader does not need.
    lean: fn(&mut Value),
    objects: BTreeMap<Key, Dynamic>,
    /// What a new list has not told yet; gone when it ends.
    unseen: BTreeSet<Key>,
    /// One whole list was told.
    complete: bool,
}

impl Default for Mirror {
    fn default() -> Mirror {
        Mirror::new(|_| ())
    }
}

impl Mirror {
    /// A mirror that holds no more of an object than `lean` leaves.
    pub fn new(lean: fn(&mut Value)) -> Mirror {
        Mirror { lean, objects: BTreeMap::new(), unseen: BTreeSet::new(), complete: false }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(namespace.to_string(), name.to_string())).map(|object| &object.0)
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.objects.values().map(|object| &object.0)
    }

    /// The objects of one namespace.
    pub fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        let from = (namespace.to_string(), String::new());
        self.objects.range(from..).take_while(move |((of, _), _)| of == namespace).map(|(_, object)| &object.0)
    }

    /// Takes an event in; gives the objects that it changed, as they are now or as they were last.
    pub fn follow(&mut self, event: Event<Dynamic>) -> Vec<Dynamic> {
        match event {
            Event::Init => {
                self.unseen = self.objects.keys().cloned().collect();
                Vec::new()
            }
            Event::InitApplied(object) | Event::Applied(object) => {
                let object = self.lean(object);
                let key = key_of(&object);
                self.unseen.remove(&key);
                // What its reader does not see of an object has not changed for it.
                if self.objects.get(&key).is_some_and(|known| known.0 == object.0) {
                    return Vec::new();
                }
                self.objects.insert(key, object.clone());
                vec![object]
            }
            Event::Deleted(object) => {
                self.objects.remove(&key_of(&object));
                vec![object]
            }
            Event::InitDone => {
                self.complete = true;
                let gone = std::mem::take(&mut self.unseen);
                gone.iter().filter_map(|key| self.objects.remove(key)).collect()
            }
        }
    }

    /// Managed fields are half of many objects, and no controller reads them.
    fn lean(&self, mut object: Dynamic) -> Dynamic {
        meta::metadata_mut(&mut object).shift_remove("managedFields");
        (self.lean)(&mut object);
        object
    }
}

pub fn key_of(object: &Dynamic) -> Key {
    (object.namespace().to_string(), object.name().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str) -> Dynamic {
        Dynamic(json!({"metadata": {"name": name, "namespace": "a", "managedFields": [{}]}}))
    }

    #[test]
    fn a_new_list_drops_what_it_does_not_tell() {
        let mut mirror = Mirror::default();
        for event in [Event::Init, Event::InitApplied(named("x")), Event::InitApplied(named("y")), Event::InitDone] {
            mirror.follow(event);
        }
        assert!(mirror.is_complete() && mirror.get("a", "x").unwrap()["metadata"]["managedFields"].is_null());
        mirror.follow(Event::Init);
        mirror.follow(Event::InitApplied(named("y")));
        let gone = mirror.follow(Event::InitDone);
        assert_eq!(gone.iter().map(|object| object.name()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(mirror.of_namespace("a").count(), 1);
    }
}
