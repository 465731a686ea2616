//! Labels and annotations: a small map of text, in one piece of memory. A tree of maps would take half a kilobyte for one entry,
//! which is most of what a cache of metadata holds.

use std::fmt;
use std::ops::Index;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_core::ser::{Serialize, SerializeMap, Serializer};

/// Keys and values, ordered by key. For a handful of entries: writing one moves those after it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StringMap(Vec<(Box<str>, Box<str>)>);

impl StringMap {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.find(key).ok().map(|at| &*self.0[at].1)
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// Sets a key's value.
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        let (key, value) = (key.as_ref(), value.as_ref().into());
        match self.find(key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key.into(), value)),
        }
    }

    /// Takes a key out, and gives the value it had.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1.into())
    }

    /// All entries, in the order of keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(key))
    }
}

impl Index<&str> for StringMap {
    type Output = str;

    /// The value of a key that must be there.
    fn index(&self, key: &str) -> &str {
        self.get(key).unwrap_or_else(|| panic!("no key {key:?}"))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for StringMap {
    /// Of entries with the same key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> StringMap {
        let mut map = StringMap::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map.0.shrink_to_fit();
        map
    }
}

impl fmt::Debug for StringMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for StringMap {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<StringMap, D::Error> {
        input.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = StringMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<StringMap, A::Error> {
        let mut map = StringMap::default();
        // Servers write them in order, so that each goes to the end.
        while let Some((key, value)) = entries.next_entry::<Box<str>, Box<str>>()? {
            match map.find(&key) {
                Ok(at) => map.0[at].1 = value,
                Err(at) => map.0.insert(at, (key, value)),
            }
        }
        map.0.shrink_to_fit();
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_in_order() {
        let mut map: StringMap = serde_json::from_str(r#"{"b":"1","a":"2","b":"3"}"#).unwrap();
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":"2","b":"3"}"#);
        map.insert("ab", "x");
        map.insert("a", "y");
        assert_eq!(map.remove("b").as_deref(), Some("3"));
        assert_eq!(map, [("ab", "x"), ("a", "y")].into_iter().collect());
        assert_eq!((&map["a"], map.get("c"), map.contains_key("ab"), map.len()), ("y", None, true, 2));
    }
}
