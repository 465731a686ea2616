//! ConfigMaps and Secrets that volumes are made of, each followed once however many pods have it: every pod has the ConfigMap
//! with the root certificates. What no pod asks for any more is not followed any more. Writes no file.

use crate::agent::lock;
use crate::env::{Data, ObjectKind};
use base64::Engine;
use kemudi_client::{Api, ApiResource, Client, Dynamic, Event, FieldSelector, ListOptions};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

const CONFIG_MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
const SECRETS: ApiResource = ApiResource::new("", "v1", "Secret", "secrets", true);

/// The objects of a namespace.
pub fn objects_of(client: Client, namespace: &str, kind: ObjectKind) -> Api<Dynamic> {
    let resource = match kind {
        ObjectKind::ConfigMap => &CONFIG_MAPS,
        ObjectKind::Secret => &SECRETS,
    };
    Api::namespaced_of(client, namespace, resource)
}

/// What is known of an object.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// As of when; 0 where nobody has said.
    pub revision: u64,
    /// What it holds, if it is there.
    pub data: Option<Arc<Data>>,
}

impl Known {
    pub fn of(kind: ObjectKind, object: &Value) -> Known {
        Known { revision: revision_of(object), data: Some(Arc::new(data_of(kind, object))) }
    }
}

/// All that is followed.
#[derive(Default)]
pub struct Followed(Mutex<HashMap<Key, Weak<Source>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: ObjectKind,
    namespace: String,
    name: String,
}

/// The watch of one object; it ends with the last who holds this.
struct Source {
    /// Nothing until the first word of the server.
    known: watch::Receiver<Option<Known>>,
    _watch: AbortOnDropHandle<()>,
}

/// One who wants to know of an object.
pub struct Follower {
    known: watch::Receiver<Option<Known>>,
    _source: Arc<Source>,
}

impl Followed {
    /// Follows an object. Must be called on a tokio runtime.
    pub fn follow(&self, client: &Client, kind: ObjectKind, namespace: &str, name: &str) -> Follower {
        let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let mut sources = lock(&self.0);
        let source = sources.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            sources.retain(|_, source| source.strong_count() > 0);
            let (tell, known) = watch::channel(None);
            let watch = tokio::spawn(run(client.clone(), key.clone(), tell));
            let source = Arc::new(Source { known, _watch: AbortOnDropHandle::new(watch) });
            sources.insert(key, Arc::downgrade(&source));
            source
        });
        let mut known = source.known.clone();
        // What was known before is news to who begins.
        known.mark_changed();
        Follower { known, _source: source }
    }
}

impl Follower {
    /// The newest, once there is something that was not told yet.
    pub async fn next(&mut self) -> Known {
        loop {
            if self.known.changed().await.is_err() {
                // The source lives as long as we do; its watch does not end by itself.
                return std::future::pending().await;
            }
            if let Some(known) = self.known.borrow_and_update().clone() {
                return known;
            }
        }
    }
}

async fn run(client: Client, Key { kind, namespace, name }: Key, tell: watch::Sender<Option<Known>>) {
    let Ok(fields) = FieldSelector::parse(&format!("metadata.name={name}")) else { return };
    let options = ListOptions { fields, ..ListOptions::default() };
    let mut watcher = objects_of(client, &namespace, kind).watcher(&options);
    let (mut found, mut last) = (false, 0);
    loop {
        let known = match watcher.next().await {
            Ok(Event::Init) => {
                found = false;
                continue;
            }
            Ok(Event::InitApplied(object) | Event::Applied(object)) => {
                found = true;
                Known::of(kind, &object)
            }
            Ok(Event::Deleted(object)) => Known { revision: revision_of(&object), data: None },
            // It was gone when the list was made; when it went nobody says.
            Ok(Event::InitDone) if !found => Known { revision: last, data: None },
            Ok(Event::InitDone) | Err(_) => continue,
        };
        last = known.revision;
        tell.send_replace(Some(known));
    }
}

fn revision_of(object: &Value) -> u64 {
    api::meta::resource_version(object).parse().unwrap_or(0)
}

/// What a ConfigMap or Secret holds. What is no base64 is left out: the server does not take it.
pub fn data_of(kind: ObjectKind, object: &Value) -> Data {
    let mut data = Data::new();
    let entries = |field: &str| object[field].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let decode = |value: &Value| base64::engine::general_purpose::STANDARD.decode(text(value)).ok();
    match kind {
        ObjectKind::ConfigMap => {
            data.extend(entries("data").map(|(key, value)| (key.clone(), text(value).into_bytes())));
            data.extend(entries("binaryData").filter_map(|(key, value)| Some((key.clone(), decode(value)?))));
        }
        ObjectKind::Secret => {
            data.extend(entries("data").filter_map(|(key, value)| Some((key.clone(), decode(value)?))));
        }
    }
    data
}
