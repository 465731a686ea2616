//! Events about objects (`events.k8s.io/v1`), as `kubectl describe` shows them. What happens again and again is told once, with
//! a count. Recording never fails a caller: what cannot be told goes to the log.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::api::{Api, Patch};
use crate::client::Client;
use crate::error::Result;
use crate::resource::{ApiResource, Dynamic, Resource};
use crate::time;

const EVENTS: ApiResource = ApiResource::new("events.k8s.io", "v1", "Event", "events", true);
/// What happens again within this time is of the same series.
const SERIES_TIME: Duration = Duration::from_secs(6 * 60);
/// Series that are remembered; the oldest are forgotten first.
const SERIES_MAX: usize = 4096;
/// Longest note, in bytes, as servers take it.
const NOTE_BYTES_MAX: usize = 1024;
/// Where events about objects without a namespace go.
const CLUSTER_NAMESPACE: &str = "default";

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something to look at.
    Warning,
}

/// Tells events as one reporter. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    controller: String,
    instance: String,
    series: Arc<Mutex<HashMap<Key, Series>>>,
}

/// What is the same in all events of a series. The note may differ.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    object: String,
    kind: EventType,
    reason: String,
    action: String,
}

struct Series {
    name: String,
    namespace: String,
    count: u32,
    last: Instant,
}

impl Recorder {
    /// A recorder for a controller (`example.com/greeter`) and this copy of it (the pod's name).
    pub fn new(client: Client, controller: &str, instance: &str) -> Recorder {
        let (controller, instance) = (controller.to_string(), instance.to_string());
        Recorder { client, controller, instance, series: Arc::default() }
    }

    /// Tells that something happened: `reason` and `action` are single words in upper camel case (`FailedMount`, `Mounting`),
    /// `note` is for people. What cannot be told is logged.
    pub async fn record<K: Resource>(
        &self,
        resource: &ApiResource,
        object: &K,
        kind: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        if let Err(error) = self.try_record(resource, object, kind, reason, action, note).await {
            tracing::warn!(%error, object = object.name(), reason, note, "an event could not be told");
        }
    }

    /// As [`Recorder::record`], and says whether it worked.
    ///
    /// # Errors
    /// Those of the write.
    pub async fn try_record<K: Resource>(
        &self,
        resource: &ApiResource,
        object: &K,
        kind: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) -> Result<()> {
        let key = Key {
            object: format!("{} {}", resource.group_resource(), object.uid()),
            kind,
            reason: reason.to_string(),
            action: action.to_string(),
        };
        let now = time::now();
        if let Some((namespace, name, count)) = self.again(&key) {
            let series = json!({"series": {"count": count, "lastObservedTime": time::micros(now)}});
            match self.events(&namespace).patch(&name, &Patch::Merge(&series)).await {
                // Events live for an hour; a new one begins a new series.
                Err(error) if error.is_not_found() => drop(self.lock().remove(&key)),
                answer => return answer.map(drop),
            }
        }
        let namespace = match object.namespace() {
            "" => CLUSTER_NAMESPACE,
            namespace => namespace,
        };
        let name = format!("{}.{:x}", object.name(), now);
        let event = json!({
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": time::micros(now),
            "reportingController": self.controller,
            "reportingInstance": self.instance,
            "action": action,
            "reason": reason,
            "regarding": {
                "apiVersion": resource.api_version(),
                "kind": resource.kind,
                "name": object.name(),
                "namespace": object.namespace(),
                "uid": object.uid(),
                "resourceVersion": object.resource_version(),
            },
            "note": cut(note),
            "type": format!("{kind:?}"),
        });
        self.events(namespace).create(&Dynamic(event)).await?;
        let mut series = self.lock();
        forget_old(&mut series);
        let namespace = namespace.to_string();
        series.insert(key, Series { name, namespace, count: 1, last: Instant::now() });
        Ok(())
    }

    /// The event that told of this before, and how often it has happened now.
    fn again(&self, key: &Key) -> Option<(String, String, u32)> {
        let mut all = self.lock();
        let series = all.get_mut(key).filter(|series| series.last.elapsed() < SERIES_TIME)?;
        series.count = series.count.saturating_add(1);
        series.last = Instant::now();
        Some((series.namespace.clone(), series.name.clone(), series.count))
    }

    fn events(&self, namespace: &str) -> Api<Dynamic> {
        Api::namespaced_of(self.client.clone(), namespace, &EVENTS)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_old(series: &mut HashMap<Key, Series>) {
    if series.len() < SERIES_MAX {
        return;
    }
    series.retain(|_, series| series.last.elapsed() < SERIES_TIME);
    let oldest = series.iter().min_by_key(|(_, series)| series.last).map(|(key, _)| key.clone());
    if let Some(oldest) = oldest.filter(|_| series.len() >= SERIES_MAX) {
        series.remove(&oldest);
    }
}

fn cut(note: &str) -> &str {
    match note.len() <= NOTE_BYTES_MAX {
        true => note,
        false => &note[..note.floor_char_boundary(NOTE_BYTES_MAX)],
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({} {})", self.controller, self.instance)
    }
}
