//! The lines of a watch stream.

use std::fmt;
use std::marker::PhantomData;

use serde_core::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_core::ser::{Serialize, SerializeMap, Serializer};

/// What happened to the object of a [`WatchEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    /// Only `metadata.resourceVersion` is set: nothing of interest happened up to there.
    Bookmark,
    /// The object is a `Status`; the stream ends.
    Error,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark => "BOOKMARK",
            EventType::Error => "ERROR",
        }
    }
}

impl EventType {
    const ALL: [EventType; 5] =
        [EventType::Added, EventType::Modified, EventType::Deleted, EventType::Bookmark, EventType::Error];

    /// The one that is written so.
    pub fn named(name: &str) -> Option<EventType> {
        EventType::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<EventType, D::Error> {
        input.deserialize_str(Name)
    }
}

struct Name;

impl Visitor<'_> for Name {
    type Value = EventType;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type of an event")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<EventType, E> {
        EventType::named(name)
            .ok_or_else(|| E::unknown_variant(name, &["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]))
    }
}

/// One line of a watch stream.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchEvent<T> {
    pub event_type: EventType,
    pub object: T,
}

impl<T: Serialize> Serialize for WatchEvent<T> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut out = out.serialize_map(Some(2))?;
        out.serialize_entry("type", &self.event_type)?;
        out.serialize_entry("object", &self.object)?;
        out.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WatchEvent<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<WatchEvent<T>, D::Error> {
        input.deserialize_map(Line(PhantomData))
    }
}

struct Line<T>(PhantomData<fn() -> T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Line<T> {
    type Value = WatchEvent<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of a watch")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WatchEvent<T>, A::Error> {
        let (mut event_type, mut object) = (None, None);
        while let Some(key) = map.next_key_seed(Key)? {
            match key {
                Part::Type => event_type = Some(map.next_value()?),
                Part::Object => object = Some(map.next_value()?),
                Part::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(WatchEvent {
            event_type: event_type.ok_or_else(|| A::Error::missing_field("type"))?,
            object: object.ok_or_else(|| A::Error::missing_field("object"))?,
        })
    }
}

/// A field of a watch's line.
pub enum Part {
    Type,
    Object,
    Other,
}

/// Reads the name of one.
pub struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Part;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Part, D::Error> {
        input.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of an event")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Part, E> {
        Ok(match name {
            "type" => Part::Type,
            "object" => Part::Object,
            _ => Part::Other,
        })
    }
}
