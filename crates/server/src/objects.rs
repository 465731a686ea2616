//! Objects as the server holds them: per resource a cache over the store, in the form in which they are sent.
//! The only caller of the store. Knows no kind by name and decides nothing about what may be written.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use api::meta;
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use imbl::OrdMap;
use serde_json::Value;
use store::{Change, Event, Expect, Follower, Revision, Store, Write};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::held_json::{HeldJson, Texts};
use crate::pick::pick;

/// Most changes that one resource remembers for watches that resume and lists that continue.
pub const HISTORY_CHANGES_MAX: usize = 8192;
/// Most bytes of past object states that one resource remembers.
pub const HISTORY_BYTES_MAX: usize = 32 << 20;
/// How often all resources forget what was past the last time: the API server's default. So the past is remembered for
/// at least this long, and never for twice this long.
pub const HISTORY_TIME: Duration = Duration::from_secs(5 * 60);

/// Most bytes of what was told last that one resource remembers.
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// How much of the past each resource remembers.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    pub changes_max: usize,
    pub bytes_max: usize,
    /// Between two compactions, each of which forgets what came before the one before it.
    pub time: Duration,
}

impl Default for HistoryLimits {
    fn default() -> HistoryLimits {
        HistoryLimits { changes_max: HISTORY_CHANGES_MAX, bytes_max: HISTORY_BYTES_MAX, time: HISTORY_TIME }
    }
}

/// All objects, by resource.
pub struct Objects {
    store: Arc<dyn Store>,
    /// Few and rarely more: the whole map is replaced, so that readers never wait.
    collections: ArcSwap<HashMap<Arc<str>, Arc<Collection>>>,
    /// Opening a collection reads the store: one at a time, so that none is opened twice.
    opening: Mutex<()>,
    /// Told every revision that any collection applied.
    reached: Arc<watch::Sender<Revision>>,
    /// Watches are to end: the server stops.
    ending: Arc<AtomicBool>,
    /// Why the last write that the disk refused was refused; none after one that it took.
    failure: ArcSwapOption<String>,
    limits: HistoryLimits,
}

/// What the cache must know of a resource to hold its objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The store's table: `group/plural`, or `plural` for the core group. Versions of a kind share it.
    pub table: Arc<str>,
    /// JSON pointers of the fields that selectors may ask for, without the metadata ones.
    pub selectable: Vec<Arc<str>>,
    /// What each of them counts as where an object does not have it; `""` for those beyond the end.
    pub unset: Vec<&'static str>,
    /// The revision since which the resource is what it is: a newer shape takes the place of an older one.
    pub since: Revision,
    /// Objects are written with their keys in order, as Go writes maps.
    pub sorted: bool,
}

/// The objects of one resource: the present as a snapshot, the recent past as a ring.
pub struct Collection {
    shape: Shape,
    present: ArcSwap<Snapshot>,
    history: Mutex<History>,
    /// Told the revision of every batch that was applied, and once more when there is something else to look at: what
    /// watches wait for.
    changed: watch::Sender<Revision>,
    reached: Arc<watch::Sender<Revision>>,
    ending: Arc<AtomicBool>,
    /// What a watch was told last, for the others that are where it was.
    told: Mutex<Option<Arc<Told>>>,
    /// Called for every change before anybody can see it, on the thread that commits.
    observers: Mutex<Vec<Observer>>,
}

/// Keeps something in step with a collection, an index of roles for example. Must be quick and must not read objects.
pub type Observer = Box<dyn Fn(&Changed) + Send + Sync>;

/// One consistent state of a resource. Cheap to clone, never changes.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// The last change of this resource.
    pub revision: Revision,
    pub entries: OrdMap<Arc<str>, Arc<Entry>>,
}

/// One object at one revision, encoded, with what selects it.
#[derive(Debug)]
pub struct Entry {
    /// `namespace/name`, or `name`.
    pub key: Arc<str>,
    pub revision: Revision,
    /// The whole object as JSON, `resourceVersion` included.
    pub json: HeldJson,
    pub uid: Box<str>,
    /// `metadata.deletionTimestamp` in seconds since 1970.
    pub deleted_at: Option<i64>,
    /// Where in the JSON the resource version is.
    version_at: Option<u32>,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// See [`signature`], of all labels.
    signature: u64,
    /// The object, decoded, where it is one that requests look up.
    decoded: OnceLock<Arc<Value>>,
    /// In the order of [`Shape::selectable`].
    fields: Box<[Box<str>]>,
}

/// What was told to a watch, as bytes.
#[derive(Clone, Debug)]
pub struct Told {
    /// Of the changes after this revision, up to that one.
    pub after: Revision,
    pub until: Revision,
    /// `""` for all.
    pub namespace: Box<str>,
    /// How many events that are.
    pub events: u64,
    pub bytes: Bytes,
}

/// One change of one object.
#[derive(Debug)]
pub struct Changed {
    pub revision: Revision,
    pub old: Option<Arc<Entry>>,
    pub new: Option<Arc<Entry>>,
}

struct History {
    limits: HistoryLimits,
    changes: std::collections::VecDeque<Arc<Changed>>,
    bytes: usize,
    /// Changes after this revision are all remembered.
    complete_after: Revision,
    /// States before this revision are no longer shown, even where nothing has changed since: as after a compaction of etcd.
    compacted: Revision,
    /// What the objects have in common.
    texts: Texts,
}

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the object exists")]
    Exists,
    #[error("the object was changed")]
    Changed,
    #[error("{0}")]
    Store(store::Error),
}

/// History no longer reaches back to the revision that was asked for.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Compacted {
    pub asked: Revision,
    pub oldest: Revision,
}

impl Objects {
    pub fn new(store: Arc<dyn Store>, limits: HistoryLimits) -> Objects {
        let reached = Arc::new(watch::Sender::new(store.revision()));
        Objects {
            store,
            collections: ArcSwap::default(),
            opening: Mutex::new(()),
            reached,
            ending: Arc::default(),
            failure: ArcSwapOption::empty(),
            limits,
        }
    }

    /// Forgets what is past its time, and what else the caller has to forget, until the server stops. A watch that is
    /// further behind, and a list that goes on at an older revision, are told that it is gone.
    pub async fn compact_in_time(&self, stopping: &CancellationToken, also: impl Fn()) {
        let mut ticks = tokio::time::interval(self.limits.time);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut mark = 0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.compact(std::mem::replace(&mut mark, self.revision()));
            also();
        }
    }

    /// Forgets what came before a revision.
    pub fn compact(&self, revision: Revision) {
        for collection in self.collections.load().values() {
            lock(&collection.history).compact(revision);
        }
    }

    /// The revision up to which every read sees everything.
    pub fn revision(&self) -> Revision {
        self.store.revision()
    }

    /// The collection of a resource; the first call reads it from the store.
    pub fn collection(&self, shape: &Shape) -> Result<Arc<Collection>, store::Error> {
        let found =
            || self.collections.load().get(&shape.table).filter(|found| found.shape.since >= shape.since).cloned();
        if let Some(found) = found() {
            return Ok(found);
        }
        let _one_at_a_time = lock(&self.opening);
        if let Some(found) = found() {
            return Ok(found);
        }
        let opened = Collection::open(self, shape.clone())?;
        let mut collections = HashMap::clone(&self.collections.load());
        let outdated = collections.insert(shape.table.clone(), opened.clone());
        self.collections.store(Arc::new(collections));
        if let Some(outdated) = outdated {
            let follower: Arc<dyn Follower> = outdated;
            self.store.unfollow(&shape.table, &follower);
        }
        Ok(opened)
    }

    /// The tables of all collections.
    pub fn tables(&self) -> Vec<Arc<str>> {
        self.collections.load().keys().cloned().collect()
    }

    /// The collection of a table, where somebody has asked for it before.
    pub fn found(&self, table: &str) -> Option<Arc<Collection>> {
        self.collections.load().get(table).cloned()
    }

    /// How many objects each resource has that anybody asked for, by table.
    pub fn counts(&self) -> std::collections::BTreeMap<Arc<str>, usize> {
        let collections = self.collections.load();
        collections.iter().map(|(table, collection)| (table.clone(), collection.snapshot().entries.len())).collect()
    }

    /// Resolves when the store has made a revision.
    pub async fn reach(&self, revision: Revision) {
        let mut reached = self.reached.subscribe();
        // The sender lives as long as this value, so waiting cannot fail.
        let _ = reached.wait_for(|now| *now >= revision).await;
    }

    /// Forgets the cache of a resource that is no longer served; its objects stay in the store.
    pub fn forget(&self, table: &str) {
        let _one_at_a_time = lock(&self.opening);
        let mut collections = HashMap::clone(&self.collections.load());
        if let Some(gone) = collections.remove(table) {
            self.collections.store(Arc::new(collections));
            let follower: Arc<dyn Follower> = gone.clone();
            self.store.unfollow(table, &follower);
        }
    }

    pub async fn create(&self, shape: &Shape, key: &str, object: &mut Value) -> Result<Written, WriteError> {
        self.put(shape, key, Expect::Absent, object).await
    }

    /// Creates an object that is JSON already, with some resource version. Not for a shape whose keys are sorted.
    pub async fn create_json(&self, shape: &Shape, key: &str, json: Vec<u8>) -> Result<Written, WriteError> {
        self.collection(shape).map_err(WriteError::Store)?;
        let (head, tail) = around_version(json, false);
        self.write(shape, key, Expect::Absent, head, tail).await
    }

    /// Writes a new state over the one of `revision`.
    pub async fn update(
        &self,
        shape: &Shape,
        key: &str,
        revision: Revision,
        object: &mut Value,
    ) -> Result<Written, WriteError> {
        self.put(shape, key, Expect::At(revision), object).await
    }

    /// Takes away the state of `revision`. Answers the revision of the deletion.
    pub async fn delete(&self, shape: &Shape, key: &str, revision: Revision) -> Result<Revision, WriteError> {
        self.collection(shape).map_err(WriteError::Store)?;
        let write = Write {
            table: shape.table.clone(),
            key: key.to_string(),
            expect: Expect::At(revision),
            change: Change::Delete,
        };
        self.commit(write).await
    }

    async fn put(&self, shape: &Shape, key: &str, expect: Expect, object: &mut Value) -> Result<Written, WriteError> {
        // The collection must follow before the write: it is what the writer's next read sees.
        self.collection(shape).map_err(WriteError::Store)?;
        let (head, tail) = encode(object, shape.sorted);
        let written = self.write(shape, key, expect, head, tail).await?;
        set_resource_version(object, written.revision);
        Ok(written)
    }

    /// Writes the JSON around its resource version.
    async fn write(
        &self,
        shape: &Shape,
        key: &str,
        expect: Expect,
        head: Bytes,
        tail: Bytes,
    ) -> Result<Written, WriteError> {
        let change = Change::Put(store::Value::Stamped { head: head.clone(), tail: tail.clone() });
        let write = Write { table: shape.table.clone(), key: key.to_string(), expect, change };
        let revision = self.commit(write).await?;
        let json = store::Value::Stamped { head, tail }.at(revision);
        Ok(Written { revision, json })
    }

    async fn commit(&self, write: Write) -> Result<Revision, WriteError> {
        let done = self.store.commit(write).await;
        match &done {
            Err(store::Error::Io(why)) => self.failure.store(Some(Arc::new(why.clone()))),
            Ok(_) if self.failure.load().is_some() => self.failure.store(None),
            _ => {}
        }
        done.map_err(write_error)
    }

    /// Why the store takes no writes, where it takes none.
    pub fn failure(&self) -> Option<String> {
        self.failure.load().as_ref().map(|why| why.to_string())
    }

    /// Lets all watches end, once they have told what happened.
    pub fn end_watches(&self) {
        self.ending.store(true, Ordering::Release);
        self.collections.load().values().for_each(|collection| collection.wake());
    }

    /// Gives the store up; everything acknowledged stays in it.
    pub async fn close(&self) -> Result<(), store::Error> {
        self.store.close().await
    }
}

/// A state that was written.
pub struct Written {
    pub revision: Revision,
    /// The whole object as JSON, `resourceVersion` included.
    pub json: Bytes,
}

impl Collection {
    fn open(objects: &Objects, shape: Shape) -> Result<Arc<Collection>, store::Error> {
        let history = History {
            limits: objects.limits,
            changes: std::collections::VecDeque::new(),
            bytes: 0,
            complete_after: 0,
            compacted: 0,
            texts: Texts::default(),
        };
        let collection = Arc::new(Collection {
            shape,
            present: ArcSwap::default(),
            history: Mutex::new(history),
            changed: watch::Sender::new(0),
            reached: objects.reached.clone(),
            ending: objects.ending.clone(),
            told: Mutex::default(),
            observers: Mutex::default(),
        });
        // Changes may arrive while the snapshot is still being taken in: they wait for this lock.
        let mut history = lock(&collection.history);
        let snapshot = objects.store.follow(&collection.shape.table, collection.clone())?;
        let entries = snapshot.items.into_iter().map(|item| {
            let entry = collection.entry(item.key.into(), item.revision, item.value, &mut history.texts);
            (entry.key.clone(), entry)
        });
        collection.present.store(Arc::new(Snapshot { revision: snapshot.revision, entries: entries.collect() }));
        history.complete_after = snapshot.revision;
        drop(history);
        Ok(collection)
    }

    /// What it knows of its resource.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.present.load_full()
    }

    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.present.load().entries.get(key).cloned()
    }

    /// What happened after `revision`, oldest first, at most `limit` changes. Empty when nothing did.
    pub fn changes_after(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<Changed>>, Compacted> {
        let history = lock(&self.history);
        if revision < history.complete_after {
            return Err(Compacted { asked: revision, oldest: history.complete_after });
        }
        let from = history.changes.partition_point(|change| change.revision <= revision);
        Ok(history.changes.range(from..).take(limit).cloned().collect())
    }

    /// The state as it was at `revision`: the present with everything later undone.
    pub fn at(&self, revision: Revision) -> Result<Arc<Snapshot>, Compacted> {
        let history = lock(&self.history);
        let present = self.present.load_full();
        let oldest = history.complete_after.max(history.compacted);
        if revision < oldest {
            return Err(Compacted { asked: revision, oldest });
        }
        let mut past = Snapshot::clone(&present);
        for change in history.changes.iter().rev().take_while(|change| change.revision > revision) {
            match (&change.old, &change.new) {
                (Some(old), _) => past.entries.insert(old.key.clone(), old.clone()),
                (None, Some(new)) => past.entries.remove(&*new.key),
                (None, None) => None,
            };
        }
        past.revision = revision;
        Ok(Arc::new(past))
    }

    /// Shows an observer everything there is, then every change, each once and in order.
    pub fn observe(&self, observer: Observer) {
        let _nothing_changes_meanwhile = lock(&self.history);
        for entry in self.present.load().entries.values() {
            observer(&Changed { revision: entry.revision, old: None, new: Some(entry.clone()) });
        }
        lock(&self.observers).push(observer);
    }

    /// Told of every applied batch.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// Lets those who watch look again, though nothing of it has changed.
    pub fn wake(&self) {
        self.changed.send_modify(|_| {});
    }

    /// Watches are to end.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// What was told last, where that is what comes after a revision.
    pub fn told(&self, after: Revision, namespace: &str) -> Option<Arc<Told>> {
        lock(&self.told).as_ref().filter(|told| told.after == after && *told.namespace == *namespace).cloned()
    }

    /// Remembers it for the next who is told the same.
    pub fn tell(&self, told: Told) {
        if told.bytes.len() <= TOLD_BYTES_MAX {
            *lock(&self.told) = Some(Arc::new(told));
        }
    }

    /// The index of a selectable field.
    pub fn field_index(&self, pointer: &str) -> Option<usize> {
        self.shape.selectable.iter().position(|known| **known == *pointer)
    }

    fn entry(&self, key: Arc<str>, revision: Revision, json: Bytes, texts: &mut Texts) -> Arc<Entry> {
        let mut pointers: Vec<&str> = vec!["/metadata/uid", "/metadata/labels", "/metadata/deletionTimestamp"];
        pointers.extend(self.shape.selectable.iter().map(|pointer| &**pointer));
        let version_at = version_starts(&json, self.shape.sorted).and_then(|at| u32::try_from(at).ok());
        let picked = pick(&json, &pointers);
        let labels: Box<[(Box<str>, Box<str>)]> = match &picked[1] {
            Value::Object(map) => {
                map.iter().map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect()
            }
            _ => Box::default(),
        };
        let unset = self.shape.unset.iter().copied().chain(std::iter::repeat(""));
        let fields = picked[3..].iter().zip(unset).map(|(value, unset)| field_text(value, unset).into()).collect();
        let deleted_at = picked[2].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Arc::new(Entry {
            key,
            revision,
            json: texts.hold(json),
            version_at,
            uid: picked[0].as_str().unwrap_or_default().into(),
            deleted_at: deleted_at.map(|at| at.as_second()),
            signature: labels.iter().fold(0, |all, (key, value)| all | signature(key, value)),
            decoded: OnceLock::new(),
            labels,
            fields,
        })
    }
}

impl Follower for Collection {
    fn apply(&self, events: &[Event]) {
        let mut history = lock(&self.history);
        let mut next = Snapshot::clone(&self.present.load());
        for event in events {
            let texts = &mut history.texts;
            let new =
                event.value.clone().map(|json| self.entry(event.key.as_str().into(), event.revision, json, texts));
            let old = match &new {
                Some(entry) => next.entries.insert(entry.key.clone(), entry.clone()),
                None => next.entries.remove(event.key.as_str()),
            };
            next.revision = event.revision;
            let change = Arc::new(Changed { revision: event.revision, old, new });
            lock(&self.observers).iter().for_each(|observer| observer(&change));
            history.push(change);
        }
        let revision = next.revision;
        self.present.store(Arc::new(next));
        drop(history);
        self.changed.send_replace(revision);
        self.reached.send_if_modified(|reached| std::mem::replace(reached, revision.max(*reached)) < revision);
    }
}

impl History {
    fn push(&mut self, change: Arc<Changed>) {
        self.bytes += change.bytes();
        self.changes.push_back(change);
        let HistoryLimits { changes_max, bytes_max, .. } = self.limits;
        while self.changes.len() > changes_max || (self.bytes > bytes_max && self.changes.len() > 1) {
            self.forget_oldest();
        }
    }

    fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        while self.changes.front().is_some_and(|oldest| oldest.revision <= revision) {
            self.forget_oldest();
        }
        self.changes.shrink_to(self.changes.len() * 2);
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.changes.pop_front() {
            self.bytes -= oldest.bytes();
            self.complete_after = oldest.revision;
        }
    }
}

impl Changed {
    /// What this change alone keeps in memory: the state it replaced.
    fn bytes(&self) -> usize {
        self.old.as_ref().map_or(0, |old| old.json.len())
    }
}

impl Snapshot {
    /// The entries of a namespace, or all where it is `""`, from a text on, in order of their keys.
    pub fn range<'a>(&'a self, namespace: &str, from: Option<&str>) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        // A token may name a key of another namespace, behind which there is nothing of this one.
        let is_here = from.is_none_or(|from| from.starts_with(&prefix));
        let start: Bound<Arc<str>> = Bound::Included(from.unwrap_or(&prefix).into());
        // Up to the character behind the slash: no key has to be looked at to see whose it is.
        let end: Bound<Arc<str>> = match namespace {
            "" => Bound::Unbounded,
            namespace => Bound::Excluded(format!("{namespace}0").into()),
        };
        let range = is_here.then(|| self.entries.range((start, end)));
        range.into_iter().flatten().map(|(_, entry)| entry)
    }
}

impl Entry {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| **k == *key).map(|(_, value)| &**value)
    }

    /// A selectable field's value by its index.
    pub fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |value| value)
    }

    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// Whether the labels may be ones with this [`signature`]; where not, they are not.
    pub fn may_have(&self, signature: u64) -> bool {
        self.signature & signature == signature
    }

    /// The object, decoded. What is stored was encoded here, so it always decodes.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json.bytes()).unwrap_or_default()
    }

    /// The same, kept as long as the entry is there: for the few objects that requests are judged by.
    pub fn shared_value(&self) -> Arc<Value> {
        self.decoded.get_or_init(|| Arc::new(self.value())).clone()
    }

    /// The JSON with another revision in it, as a deletion shows the last state.
    pub fn json_at(&self, revision: Revision) -> Bytes {
        let json = self.json.bytes();
        let Some(at) = self.version_at.map(|at| at as usize) else { return json };
        let end = at + memchr::memchr(b'"', &json[at..]).unwrap_or(0);
        [&json[..at], revision.to_string().as_bytes(), &json[end..]].concat().into()
    }
}

/// A label as one bit of 64: labels are looked at only where the bits of those that are wanted are all there.
pub fn signature(key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    1 << (hasher.finish() % u64::from(u64::BITS))
}

/// The key of an object in its table.
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_string() } else { format!("{namespace}/{name}") }
}

/// `metadata.resourceVersion` set to a number.
pub fn set_resource_version(object: &mut Value, revision: Revision) {
    let metadata = meta::metadata_mut(object);
    metadata.insert("resourceVersion".into(), revision.to_string().into());
}

const VERSION_FIELD: &[u8] = b"\"resourceVersion\":\"";

/// The JSON around the place of the resource version.
fn encode(object: &mut Value, sorted: bool) -> (Bytes, Bytes) {
    match sorted {
        false => order_metadata(object),
        true => {
            set_resource_version(object, 0);
            object.sort_all_objects();
        }
    }
    around_version(api::codec::value_to_json(object), sorted)
}

fn around_version(json: Vec<u8>, sorted: bool) -> (Bytes, Bytes) {
    let json = Bytes::from(json);
    let at = version_starts(&json, sorted).unwrap_or(json.len());
    let end = at + memchr::memchr(b'"', &json[at..]).unwrap_or(0);
    (json.slice(..at), json.slice(end..))
}

fn version_starts(json: &[u8], sorted: bool) -> Option<usize> {
    match sorted {
        // Names before it in `metadata` were validated and hold no quotes: the first occurrence is the object's own.
        false => memchr::memmem::find(json, VERSION_FIELD).map(|at| at + VERSION_FIELD.len()),
        // Anything may be before it, labels and a user's own fields of that name among others.
        true => place_of_version(json),
    }
}

fn place_of_version(json: &[u8]) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct Root<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        #[serde(borrow)]
        resource_version: &'a serde_json::value::RawValue,
    }
    let root: Root = serde_json::from_slice(json).ok()?;
    let raw = root.metadata.resource_version.get();
    // The text is a part of the document; it begins behind its quote.
    Some(raw.as_ptr() as usize - json.as_ptr() as usize + 1)
}

/// Metadata in Go's order, with a resource version (of whatever value) in its place.
fn order_metadata(object: &mut Value) {
    const ORDER: [&str; 16] = [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
        "",
    ];
    let metadata = meta::metadata_mut(object);
    let mut old = std::mem::take(metadata);
    old.insert("resourceVersion".into(), "0".into());
    for field in ORDER {
        if let Some(value) = old.get_mut(field) {
            metadata.insert(field.into(), value.take());
        }
    }
}

fn field_text(value: &Value, unset: &str) -> String {
    match value {
        Value::Null => unset.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn write_error(error: store::Error) -> WriteError {
    match error {
        store::Error::Conflict { found: Some(_) } => WriteError::Exists,
        store::Error::Conflict { found: None } => WriteError::Changed,
        other => WriteError::Store(other),
    }
}

/// A panic while a lock was held left nothing half done: every critical section here swaps whole values at its end.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
