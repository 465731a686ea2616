//! Objects kept in memory as a watcher tells them: each once, shared, found by key or by indexes of the user's own. Holds what
//! `K` holds: a narrow struct or [`Metadata`](crate::Metadata) makes a small store. Never writes to the server.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ::api::{ListOptions, Status};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::api::Api;
use crate::error::{Error, Result};
use crate::resource::Resource;
use crate::watch::{Event, Watcher};

/// Which object of a resource: `NAMESPACE/NAME`, or `NAME` where the resource has no namespaces. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

/// Objects of one resource as they are on the server, a moment late. Clones are the same store; with the last of them the
/// task that follows the server ends.
pub struct Store<K> {
    shared: Arc<Shared<K>>,
    _task: Option<Arc<Task>>,
}

/// Makes a [`Store`] with indexes.
pub struct StoreBuilder<K> {
    indexes: Vec<Index<K>>,
}

/// Follows the server and keeps a [`Store`] in step.
pub struct Reflector<K> {
    store: Store<K>,
    watcher: Watcher<K>,
}

struct Shared<K> {
    objects: RwLock<Objects<K>>,
    progress: watch::Sender<Progress>,
}

struct Objects<K> {
    by_key: HashMap<ObjectKey, Arc<K>>,
    indexes: Vec<Index<K>>,
    /// While a list is told: what it told so far.
    listed: Option<HashSet<ObjectKey>>,
}

/// The values of an object in an index.
type Values<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

struct Index<K> {
    name: &'static str,
    values: Values<K>,
    keys: HashMap<String, HashSet<ObjectKey>>,
}

#[derive(Clone)]
enum Progress {
    Waiting,
    /// The server's refusal of the first list.
    Refused(Arc<Status>),
    Ready,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<K: Resource> Store<K> {
    /// A store that follows these objects from now on, in a task that ends with the store.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn follow(api: &Api<K>, options: &ListOptions) -> Store<K> {
        Store::builder().follow(api, options)
    }

    /// To give a store indexes.
    pub fn builder() -> StoreBuilder<K> {
        StoreBuilder { indexes: Vec::new() }
    }

    /// Waits until all objects are there.
    ///
    /// # Errors
    /// The server's answer, where the first list is refused (401, 403, 404); the store goes on trying.
    pub async fn ready(&self) -> Result<()> {
        let mut progress = self.shared.progress.subscribe();
        let told = progress.wait_for(|progress| !matches!(progress, Progress::Waiting)).await;
        match told.as_deref() {
            Ok(Progress::Refused(status)) => Err(Error::from(Status::clone(status))),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Lost("the store is no longer followed".to_string())),
        }
    }

    /// Whether all objects are there.
    pub fn is_ready(&self) -> bool {
        matches!(*self.shared.progress.borrow(), Progress::Ready)
    }

    /// The object of a key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read().by_key.get(key).cloned()
    }

    /// The object of this name in this namespace; `""` for what has none.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// All objects, in no order. A copy of the references: no lock is held.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().by_key.values().cloned().collect()
    }

    /// The objects that have this value in the index of this name; none where there is no such index.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let objects = self.read();
        let index = objects.indexes.iter().find(|other| other.name == index);
        let keys = index.and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| objects.by_key.get(key).cloned()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what a watcher told.
    fn take(&self, event: &Event<Arc<K>>) {
        let mut objects = self.shared.objects.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => objects.listed = Some(HashSet::new()),
            Event::InitApplied(object) | Event::Applied(object) => objects.put(object.clone()),
            Event::Deleted(object) => objects.remove(&ObjectKey::of(&**object)),
            Event::InitDone => {
                objects.remove_unlisted();
                drop::<RwLockWriteGuard<_>>(objects);
                self.shared.progress.send_replace(Progress::Ready);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects<K>> {
        self.shared.objects.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource> StoreBuilder<K> {
    /// Finds objects by what `values` says of them: [`Store::by_index`].
    pub fn index(
        mut self,
        name: &'static str,
        values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> StoreBuilder<K> {
        self.indexes.push(Index { name, values: Box::new(values), keys: HashMap::new() });
        self
    }

    /// As [`Store::follow`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn follow(self, api: &Api<K>, options: &ListOptions) -> Store<K> {
        let reflector = self.reflector(api, options);
        let shared = reflector.store.shared.clone();
        let task = tokio::spawn(reflector.run());
        Store { shared, _task: Some(Arc::new(Task(task.abort_handle()))) }
    }

    /// A store that somebody else drives: whoever calls [`Reflector::next`].
    pub fn reflector(self, api: &Api<K>, options: &ListOptions) -> Reflector<K> {
        let objects = Objects { by_key: HashMap::new(), indexes: self.indexes, listed: None };
        let shared = Shared { objects: RwLock::new(objects), progress: watch::Sender::new(Progress::Waiting) };
        let store = Store { shared: Arc::new(shared), _task: None };
        Reflector { store, watcher: api.watcher(options) }
    }
}

impl<K: Resource> Reflector<K> {
    /// The store that is kept in step.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// What comes next; the store has it already. Errors are followed by another attempt, as with a [`Watcher`].
    pub async fn next(&mut self) -> Result<Event<Arc<K>>> {
        match self.watcher.next().await {
            Ok(event) => {
                let event = shared(event);
                self.store.take(&event);
                Ok(event)
            }
            Err(error) => {
                if let Some(status) = error.status()
                    && matches!(status.code, 401 | 403 | 404)
                {
                    let refused = Progress::Refused(Arc::new(status.clone()));
                    self.store.shared.progress.send_if_modified(|progress| {
                        let waits = !matches!(progress, Progress::Ready);
                        if waits {
                            *progress = refused;
                        }
                        waits
                    });
                }
                Err(error)
            }
        }
    }

    /// Follows for ever. Errors go to the log.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.next().await {
                tracing::warn!(%error, "a store is not in step; trying again");
            }
        }
    }
}

fn shared<K>(event: Event<K>) -> Event<Arc<K>> {
    match event {
        Event::Init => Event::Init,
        Event::InitApplied(object) => Event::InitApplied(Arc::new(object)),
        Event::InitDone => Event::InitDone,
        Event::Applied(object) => Event::Applied(Arc::new(object)),
        Event::Deleted(object) => Event::Deleted(Arc::new(object)),
    }
}

impl<K: Resource> Objects<K> {
    fn put(&mut self, object: Arc<K>) {
        let key = ObjectKey::of(&*object);
        // One key for all who hold it.
        let key = self.by_key.get_key_value(&key).map(|(held, _)| held.clone()).unwrap_or(key);
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        if let Some(old) = self.by_key.insert(key.clone(), object.clone()) {
            self.indexes.iter_mut().for_each(|index| index.remove(&key, &old));
        }
        for index in &mut self.indexes {
            for value in (index.values)(&object) {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(old) = self.by_key.remove(key) {
            self.indexes.iter_mut().for_each(|index| index.remove(key, &old));
        }
    }

    fn remove_unlisted(&mut self) {
        let Some(listed) = self.listed.take() else { return };
        let gone: Vec<ObjectKey> = self.by_key.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }
}

impl<K> Index<K> {
    fn remove(&mut self, key: &ObjectKey, old: &K) {
        for value in (self.values)(old) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

impl ObjectKey {
    /// The key of an object of this name; `""` for no namespace.
    pub fn new(namespace: &str, name: &str) -> ObjectKey {
        match namespace {
            "" => ObjectKey(name.into()),
            namespace => ObjectKey(format!("{namespace}/{name}").into()),
        }
    }

    /// The key of an object.
    pub fn of(object: &impl Resource) -> ObjectKey {
        ObjectKey::new(object.namespace(), object.name())
    }

    /// `""` where the resource has no namespaces.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl Borrow<str> for ObjectKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Store<K> {
        Store { shared: self.shared.clone(), _task: self._task.clone() }
    }
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}
