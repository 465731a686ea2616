//! What all controllers share: caches that follow the server, queues of things to look at, and the tasks' owner.
//! Knows no kinds and decides nothing.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kemudi_client::kinds::{ConfigMap, Namespace, ServiceAccount};
use kemudi_client::{Api, ApiResource, Client, Dynamic, Event, FieldSelector, ListOptions, Resource, Result};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::root_ca;

/// Pauses before something that failed is tried again; they double from the first to the last.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Keys of one queue that are worked on at once.
pub(crate) const WORKERS: usize = 8;

/// Owns the tasks of all controllers.
pub(crate) struct Runner {
    pub client: Client,
    pub options: Arc<Options>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Runner {
    pub fn new(client: Client, options: Options) -> Runner {
        Runner { client, options: Arc::new(options), tasks: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// A task that ends with the controllers, at its next wait.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Works off a queue, some keys at once, each key by one worker at a time. Begins when all caches that the work reads
    /// are filled: an object not yet listed must not be taken for one that is gone.
    pub fn work<T, F, W>(&mut self, queue: &Arc<Queue<T>>, caches: Vec<Synced>, work: F)
    where
        T: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
        F: Fn(T) -> W + Send + Sync + 'static,
        W: Future<Output = Result<Next>> + Send,
    {
        let queue = queue.clone();
        self.spawn(async move {
            for cache in caches {
                cache.wait().await;
            }
            let mut running = FuturesUnordered::new();
            loop {
                tokio::select! {
                    key = queue.next(), if running.len() < WORKERS => {
                        let outcome = work(key.clone());
                        running.push(async move { (key, outcome.await) });
                    }
                    Some((key, outcome)) = running.next() => queue.done(key, outcome),
                }
            }
        });
    }

    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller broke");
            }
        }
    }
}

/// What is to be done after a key was worked on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Nothing, until something happens.
    Done,
    /// The same again, if nothing happens before.
    After(Duration),
}

/// Keys of things to look at. A key waits once however often it is added, and is never worked on twice at a time, so a
/// queue is no longer than the number of things there are.
pub(crate) struct Queue<T> {
    state: Mutex<Waiting<T>>,
    wake: Notify,
}

struct Waiting<T> {
    ready: VecDeque<T>,
    /// The keys of `ready`.
    queued: HashSet<T>,
    busy: HashSet<T>,
    /// Busy, and something happened since.
    again: HashSet<T>,
    later: BTreeMap<(Instant, u64), T>,
    /// Makes the keys of `later` unique.
    count: u64,
    failures: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash + fmt::Debug> Queue<T> {
    pub fn new() -> Arc<Queue<T>> {
        let state = Waiting {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            later: BTreeMap::new(),
            count: 0,
            failures: HashMap::new(),
        };
        Arc::new(Queue { state: Mutex::new(state), wake: Notify::new() })
    }

    pub fn add(&self, key: T) {
        self.lock().add(key);
        self.wake.notify_one();
    }

    pub fn add_after(&self, key: T, pause: Duration) {
        self.lock().add_at(key, Instant::now() + pause);
        self.wake.notify_one();
    }

    /// The next key; whoever takes it says when it is [`Queue::done`].
    async fn next(&self) -> T {
        loop {
            let due = match self.lock().take(Instant::now()) {
                Ok(key) => return key,
                Err(due) => due,
            };
            match due {
                None => self.wake.notified().await,
                Some(due) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    fn done(&self, key: T, outcome: Result<Next>) {
        let mut state = self.lock();
        state.busy.remove(&key);
        if state.again.remove(&key) {
            state.add(key.clone());
        }
        match outcome {
            Ok(next) => {
                state.failures.remove(&key);
                if let Next::After(pause) = next {
                    state.add_at(key, Instant::now() + pause);
                }
            }
            Err(error) => {
                let failures = state.failures.entry(key.clone()).or_default();
                let pause = back_off(*failures);
                *failures += 1;
                match error.is_conflict() {
                    true => tracing::debug!(?key, %error, ?pause, "trying again"),
                    false => tracing::warn!(?key, %error, ?pause, "trying again"),
                }
                state.add_at(key, Instant::now() + pause);
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash> Waiting<T> {
    fn add(&mut self, key: T) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: T, due: Instant) {
        self.count += 1;
        self.later.insert((due, self.count), key);
    }

    /// A key, or when the next is due.
    fn take(&mut self, now: Instant) -> Result<T, Option<Instant>> {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            self.add(key);
        }
        match self.ready.pop_front() {
            None => Err(self.later.keys().next().map(|(due, _)| *due)),
            Some(key) => {
                self.queued.remove(&key);
                self.busy.insert(key.clone());
                Ok(key)
            }
        }
    }
}

fn back_off(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.min(20)).min(RETRY_MAX)
}

/// An object's place. The namespace is `""` where the resource has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(object: &impl Resource) -> Key {
        Key::new(object.namespace(), object.name())
    }
}

/// The objects of one resource as the server last told them.
pub(crate) struct Cache<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Cache<K> {
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// In the order of namespaces and names.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The objects of one namespace.
    pub fn within(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let from = objects.range(Key::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    pub fn synced(&self) -> Synced {
        Synced(self.synced.subscribe())
    }

    fn put(&self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(key, object)
    }

    fn remove(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }
}

/// Whether a cache has had its first list.
pub(crate) struct Synced(watch::Receiver<bool>);

impl Synced {
    async fn wait(mut self) {
        // The sender is gone only when everything ends.
        let _ = self.0.wait_for(|synced| *synced).await;
    }
}

/// What became of an object: made (no old), changed, gone (no new).
pub(crate) struct Change<'a, K> {
    pub old: Option<&'a K>,
    pub new: Option<&'a K>,
}

impl<'a, K> Change<'a, K> {
    /// The object as it is or last was.
    pub fn last(&self) -> Option<&'a K> {
        self.new.or(self.old)
    }
}

type Hear<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// Follows one resource: fills its cache and tells those who asked to hear of changes, after the cache has them.
pub(crate) struct Informer<K> {
    pub cache: Arc<Cache<K>>,
    api: Api<K>,
    options: ListOptions,
    hearers: Vec<Hear<K>>,
}

impl<K: Resource> Informer<K> {
    fn new(api: Api<K>, fields: &str) -> Informer<K> {
        let fields = FieldSelector::parse(fields).unwrap_or_default();
        let options = ListOptions { fields, ..ListOptions::default() };
        let cache = Cache { objects: RwLock::default(), synced: watch::Sender::new(false) };
        Informer { cache: Arc::new(cache), api, options, hearers: Vec::new() }
    }

    pub fn hear(&mut self, hear: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.hearers.push(Box::new(hear));
    }

    async fn run(self) {
        let mut watcher = self.api.watcher(&self.options);
        // What a list under way has told; the rest of the cache is gone at its end.
        let mut listed: HashSet<Key> = HashSet::new();
        loop {
            match watcher.next().await {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApplied(object)) => {
                    listed.insert(Key::of(&object));
                    self.applied(object);
                }
                Ok(Event::InitDone) => {
                    let keys: Vec<Key> = self.cache.all().iter().map(|object| Key::of(&**object)).collect();
                    for key in keys.iter().filter(|key| !listed.contains(*key)) {
                        self.gone(key, None);
                    }
                    listed = HashSet::new();
                    self.cache.synced.send_replace(true);
                }
                Ok(Event::Applied(object)) => self.applied(object),
                Ok(Event::Deleted(object)) => self.gone(&Key::of(&object), Some(&object)),
                Err(error) => tracing::warn!(resource = self.api.resource().group_resource(), %error, "watching again"),
            }
        }
    }

    fn applied(&self, object: K) {
        let object = Arc::new(object);
        let old = self.cache.put(Key::of(&*object), object.clone());
        if old.as_ref().is_some_and(|old| old.resource_version() == object.resource_version()) {
            return;
        }
        match old.filter(|old| old.uid() != object.uid()) {
            // Deleted and made again behind our back: two things that happened.
            Some(other) => {
                self.tell(&Change { old: Some(&*other), new: None });
                self.tell(&Change { old: None, new: Some(&*object) });
            }
            None => self.tell(&Change { old: None, new: Some(&*object) }),
        }
    }

    fn gone(&self, key: &Key, last: Option<&K>) {
        let old = self.cache.remove(key);
        self.tell(&Change { old: last.or(old.as_deref()), new: None });
    }

    fn tell(&self, change: &Change<'_, K>) {
        for hear in &self.hearers {
            hear(change);
        }
    }
}

/// The resources that are followed, each once, whoever reads them.
pub(crate) struct Informers {
    pub namespaces: Informer<Namespace>,
    pub service_accounts: Informer<ServiceAccount>,
    /// Only those that publish the root CA.
    pub root_cas: Informer<ConfigMap>,
    pub cluster_roles: Informer<Dynamic>,
}

pub(crate) const CLUSTER_ROLES: ApiResource =
    ApiResource::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);

impl Informers {
    pub fn new(client: &Client) -> Informers {
        let all = |resource: &ApiResource| Api::<Dynamic>::all_of(client.clone(), resource);
        Informers {
            namespaces: Informer::new(Api::all(client.clone()), ""),
            service_accounts: Informer::new(Api::all(client.clone()), ""),
            root_cas: Informer::new(Api::all(client.clone()), &format!("metadata.name={}", root_ca::NAME)),
            cluster_roles: Informer::new(all(&CLUSTER_ROLES), ""),
        }
    }

    pub fn start(self, runner: &mut Runner) {
        runner.spawn(self.namespaces.run());
        runner.spawn(self.service_accounts.run());
        runner.spawn(self.root_cas.run());
        runner.spawn(self.cluster_roles.run());
    }
}
