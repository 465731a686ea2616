//! One watch of each resource for all controllers: an object is read once, without what none of them reads, and handed to
//! all who follow it. Holds no objects; who is behind makes the others wait, so that what waits is bounded.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kemudi_client::{Api, ApiResource, Client, Dynamic, Event, ListOptions, Resource};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::control::Source;

/// Events that may wait for one controller.
const EVENTS_WAITING_MAX: usize = 256;

/// An event of the source of this number.
pub type News = (usize, Event<Arc<Dynamic>>);

/// The watches of all controllers.
#[derive(Default)]
pub struct Feeds(Vec<Feed>);

struct Feed {
    resource: ApiResource,
    options: ListOptions,
    readers: Vec<(usize, mpsc::Sender<News>)>,
}

impl Feeds {
    /// What happens to the objects of these sources, from the beginning; to be called before [`Feeds::run`].
    pub fn follow(&mut self, sources: &[Source]) -> mpsc::Receiver<News> {
        let (send, receive) = mpsc::channel(EVENTS_WAITING_MAX);
        for (nth, source) in sources.iter().enumerate() {
            let is_same =
                |feed: &&mut Feed| feed.resource == source.resource && feed.options.print() == source.options.print();
            let reader = (nth, send.clone());
            match self.0.iter_mut().find(is_same) {
                Some(feed) => feed.readers.push(reader),
                None => self.0.push(Feed {
                    resource: source.resource.clone(),
                    options: source.options.clone(),
                    readers: vec![reader],
                }),
            }
        }
        receive
    }

    /// Tells what happens, as long as it is polled.
    pub async fn run(self, client: Client) {
        // Only the feed that has something to tell is polled.
        let mut feeds: FuturesUnordered<_> = self.0.into_iter().map(|feed| feed.run(client.clone())).collect();
        while feeds.next().await.is_some() {}
    }
}

impl Feed {
    async fn run(self, client: Client) {
        let mut watcher = Api::<Read>::of(client, &self.resource, "").watcher(&self.options);
        loop {
            let event = match watcher.next().await {
                Ok(event) => shared(event),
                // The watcher goes on by itself.
                Err(error) => {
                    tracing::warn!(resource = self.resource.group_resource(), %error, "a watch was interrupted");
                    continue;
                }
            };
            for (nth, reader) in &self.readers {
                // A controller that has ended reads no more.
                let _ = reader.send((*nth, event.clone())).await;
            }
        }
    }
}

fn shared(event: Event<Read>) -> Event<Arc<Dynamic>> {
    match event {
        Event::Init => Event::Init,
        Event::InitApplied(Read(object)) => Event::InitApplied(Arc::new(object)),
        Event::InitDone => Event::InitDone,
        Event::Applied(Read(object)) => Event::Applied(Arc::new(object)),
        Event::Deleted(Read(object)) => Event::Deleted(Arc::new(object)),
    }
}

/// An object without what no controller reads, which is most of many.
#[derive(Debug)]
struct Read(Dynamic);

/// Fields that are passed over, and what is passed over below others. A list's items are as the list.
struct Unread(&'static [(&'static str, Option<&'static Unread>)]);

const OF_OBJECT: Unread = Unread(&[("metadata", Some(&OF_METADATA)), ("spec", Some(&OF_SPEC))]);
const OF_METADATA: Unread = Unread(&[("managedFields", None)]);
const OF_SPEC: Unread = Unread(&[("containers", Some(&OF_CONTAINER)), ("initContainers", Some(&OF_CONTAINER))]);
const OF_CONTAINER: Unread = Unread(&[
    ("args", None),
    ("command", None),
    ("env", None),
    ("envFrom", None),
    ("lifecycle", None),
    ("livenessProbe", None),
    ("readinessProbe", None),
    ("resources", None),
    ("securityContext", None),
    ("startupProbe", None),
    ("volumeMounts", None),
]);

impl Resource for Read {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn namespace(&self) -> &str {
        self.0.namespace()
    }
    fn uid(&self) -> &str {
        self.0.uid()
    }
    fn resource_version(&self) -> &str {
        self.0.resource_version()
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Read, D::Error> {
        (&OF_OBJECT).deserialize(decoder).map(|object| Read(Dynamic(object)))
    }
}

impl<'de> DeserializeSeed<'de> for &Unread {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, decoder: D) -> Result<Value, D::Error> {
        decoder.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Unread {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, a list or null")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.0.iter().find(|(field, _)| *field == key) {
                Some((_, None)) => drop(map.next_value::<IgnoredAny>()?),
                Some((_, Some(below))) => drop(out.insert(key, map.next_value_seed(*below)?)),
                None => drop(out.insert(key, map.next_value()?)),
            }
        }
        Ok(Value::Object(out))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let read: Read = serde_json::from_str(text).unwrap();
        assert_eq!(read.0.to_string(), want);
    }

    #[test]
    fn what_no_controller_reads_is_passed_over() {
        check(
            r#"{"metadata":{"name":"a","managedFields":[{"x":1}],"labels":{"env":"b"}},"spec":{"env":1,"containers":[{"name":"c","env":[],"ports":[1]}]}}"#,
            r#"{"metadata":{"name":"a","labels":{"env":"b"}},"spec":{"env":1,"containers":[{"name":"c","ports":[1]}]}}"#,
        );
        check(r#"{"metadata":null,"spec":{"containers":null}}"#, r#"{"metadata":null,"spec":{"containers":null}}"#);
    }

    #[test]
    fn what_two_follow_is_watched_once() {
        let mut feeds = Feeds::default();
        let pods = || Source::all(crate::kinds::PODS);
        let _first = feeds.follow(&[pods(), Source::all(crate::kinds::NODES)]);
        let _second = feeds.follow(&[Source::fields(crate::kinds::PODS, "spec.nodeName=x"), pods()]);
        let readers: Vec<usize> = feeds.0.iter().map(|feed| feed.readers.len()).collect();
        assert_eq!(readers, [2, 1, 1]);
    }
}
