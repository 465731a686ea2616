//! A controller: it calls a function for every object that something happened to, until what the function wants is so. Keeps
//! the objects, the queue and the pauses; what is to be done is the function's.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use ::api::ListOptions;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered, SelectAll};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::{Api, Patch};
use crate::error::{Error, Result};
use crate::queue::Queue;
use crate::resource::{ApiResource, OwnerReference, Resource};
use crate::store::{ObjectKey, Reflector, Store, StoreBuilder};
use crate::watch::Event;

/// Objects that are worked on at once, unless [`Controller::concurrency`] says otherwise.
const CONCURRENCY: usize = 8;
/// How long what is being worked on may take to end once the controller is to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// What a reconciliation wants next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    again_after: Option<Duration>,
}

impl Action {
    /// Nothing until something happens.
    pub fn done() -> Action {
        Action::default()
    }

    /// The same object again after this time, or when something happens before.
    pub fn again_after(time: Duration) -> Action {
        Action { again_after: Some(time) }
    }
}

/// Calls a function for objects of `K` when they, or what belongs to them, change.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use kemudi_client::{Action, Api, Client, Controller, Result, kinds::{ConfigMap, Pod}};
/// # async fn run(client: Client) -> Result<()> {
/// async fn reconcile(map: Arc<ConfigMap>) -> Result<Action> {
///     println!("{} is to be looked after", map.metadata.name);
///     Ok(Action::done())
/// }
///
/// Controller::new(Api::<ConfigMap>::default_namespaced(client.clone()))
///     .owns(Api::<Pod>::default_namespaced(client))
///     .run(reconcile, |map, error| eprintln!("{}: {error}", map.metadata.name))
///     .await
/// # }
/// ```
pub struct Controller<K> {
    api: Api<K>,
    reflector: Reflector<K>,
    sources: SelectAll<BoxStream<'static, Result<Vec<ObjectKey>>>>,
    concurrency: usize,
    stop: BoxFuture<'static, ()>,
}

impl<K: Resource> Controller<K> {
    /// A controller of these objects.
    pub fn new(api: Api<K>) -> Controller<K> {
        Controller::of(api, &ListOptions::default())
    }

    /// A controller of those objects that the options select.
    pub fn of(api: Api<K>, options: &ListOptions) -> Controller<K> {
        Controller::with_store(api, options, Store::builder())
    }

    /// As [`Controller::of`], with a store that has indexes.
    pub fn with_store(api: Api<K>, options: &ListOptions, store: StoreBuilder<K>) -> Controller<K> {
        let reflector = store.reflector(&api, options);
        Controller { api, reflector, sources: SelectAll::new(), concurrency: CONCURRENCY, stop: pending().boxed() }
    }

    /// The objects of the controller as they were last told.
    pub fn store(&self) -> Store<K> {
        self.reflector.store()
    }

    /// Looks at an object also when something changes that it owns: whose controller it is, by their `ownerReferences`.
    /// [`Metadata`](crate::Metadata) is enough of the owned.
    pub fn owns<O: Resource>(self, owned: Api<O>) -> Controller<K> {
        let resource = self.api.resource().clone();
        self.watches(owned, &ListOptions::default(), move |object: &O| {
            let meta = object.object_meta();
            let owner = meta.owner_references.iter().find(|owner| is_controller(owner, &resource));
            let namespace = if resource.namespaced { object.namespace() } else { "" };
            owner.map(|owner| ObjectKey::new(namespace, &owner.name)).into_iter().collect()
        })
    }

    /// Looks at those objects also whose keys `about` names, when other objects change. They are not kept.
    pub fn watches<O: Resource>(
        mut self,
        others: Api<O>,
        options: &ListOptions,
        about: impl Fn(&O) -> Vec<ObjectKey> + Send + 'static,
    ) -> Controller<K> {
        let keys = others.watcher(options).into_stream().map(move |event| {
            Ok(match event? {
                Event::InitApplied(object) | Event::Applied(object) | Event::Deleted(object) => about(&object),
                Event::Init | Event::InitDone => Vec::new(),
            })
        });
        self.sources.push(keys.boxed());
        self
    }

    /// Works on so many objects at once, never twice on the same; eight where nothing is said.
    pub fn concurrency(mut self, objects: usize) -> Controller<K> {
        self.concurrency = objects.max(1);
        self
    }

    /// Ends the controller when this future does, such as on a signal. What is being worked on is finished before.
    pub fn until(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Controller<K> {
        self.stop = stop.boxed();
        self
    }

    /// Calls `reconcile` for every object, and again when something happened to it or its time has come. Where that fails,
    /// `on_error` is told, and it is called again after a pause that grows from 50 ms to 5 minutes. Works on several objects
    /// at once, in this task. What is gone is not told: what is to be cleared away before is a [`finalizer`]'s.
    ///
    /// # Errors
    /// When the server refuses a watch (401, 403, 404): that does not mend while we wait, and whoever restarts us shows it.
    /// Everything else is logged and tried again.
    pub async fn run<F, R, E>(mut self, reconcile: F, mut on_error: impl FnMut(&K, &E)) -> Result<()>
    where
        F: Fn(Arc<K>) -> R,
        R: Future<Output = Result<Action, E>>,
    {
        let store = self.store();
        // As a stream it goes on with what it has begun, whoever else is listened to meanwhile.
        let changes = stream::unfold(self.reflector, |mut reflector| async move {
            let event = reflector.next().await;
            Some((event, reflector))
        });
        let mut changes = std::pin::pin!(changes);
        let mut queue = Queue::default();
        let mut running = FuturesUnordered::new();
        let mut outcomes = |queue: &mut Queue, key: ObjectKey, object: Arc<K>, outcome: Result<Action, E>| {
            let now = Instant::now();
            match outcome {
                Ok(action) => queue.done(key, action.again_after.map(|time| now + time)),
                Err(error) => {
                    on_error(&object, &error);
                    queue.failed(key, now);
                }
            }
        };
        loop {
            // Nothing is decided on half a list.
            while store.is_ready() && running.len() < self.concurrency {
                let Some(key) = queue.take(Instant::now()) else { break };
                match store.get(&key) {
                    None => queue.done(key, None),
                    Some(object) => {
                        let work = reconcile(object.clone());
                        running.push(async move { (key, object, work.await) });
                    }
                }
            }
            let has_room = running.len() < self.concurrency;
            let due = queue.next_due().filter(|_| has_room && store.is_ready());
            tokio::select! {
                () = &mut self.stop => break,
                Some((key, object, outcome)) = running.next() => outcomes(&mut queue, key, object, outcome),
                Some(told) = changes.next() => match told {
                    Ok(Event::InitApplied(object) | Event::Applied(object)) => queue.add(ObjectKey::of(&*object)),
                    Ok(Event::Deleted(object)) => queue.forget(&ObjectKey::of(&*object)),
                    Ok(Event::Init | Event::InitDone) => {}
                    Err(error) => bearable(error)?,
                },
                Some(keys) = self.sources.next() => match keys {
                    Ok(keys) => keys.into_iter().for_each(|key| queue.add(key)),
                    Err(error) => bearable(error)?,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        let finish = async {
            while let Some((key, object, outcome)) = running.next().await {
                outcomes(&mut queue, key, object, outcome);
            }
        };
        if timeout(STOP_TIME_MAX, finish).await.is_err() {
            tracing::warn!("what was being worked on did not end within {STOP_TIME_MAX:?}");
        }
        Ok(())
    }
}

impl<K> fmt::Debug for Controller<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller({:?})", self.api)
    }
}

fn is_controller(owner: &OwnerReference, resource: &ApiResource) -> bool {
    let group = ::api::meta::group_of(&owner.api_version);
    owner.controller == Some(true) && *owner.kind == *resource.kind && *group == *resource.group
}

fn bearable(error: Error) -> Result<()> {
    match error.is_forbidden() || error.is_unauthorized() || error.is_not_found() {
        true => Err(error),
        false => {
            tracing::warn!(%error, "a controller's watch was interrupted; trying again");
            Ok(())
        }
    }
}

/// The reference that makes `owner` the controller of another object: the server deletes that with it, and
/// [`Controller::owns`] finds the way back.
pub fn owned_by<K: Resource>(resource: &ApiResource, owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        name: owner.name().to_string(),
        uid: owner.uid().to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What a finalizer is to do: [`finalizer`].
#[derive(Debug)]
pub enum Finalizer<K> {
    /// The object is wanted, and has the finalizer.
    Apply(Arc<K>),
    /// It is being deleted, and goes when this has been done.
    Cleanup(Arc<K>),
}

/// Keeps an object until what belongs to it elsewhere is cleared away: puts the finalizer on it before anything is applied, and
/// takes it off when the cleaning went well. `name` is like `example.com/bucket`. Both may be done more than once.
///
/// # Errors
/// Those of `work`, and those of the two writes. A conflict is one of them: the object has changed, and is told again.
pub async fn finalizer<K, R, E>(
    api: &Api<K>,
    name: &str,
    object: Arc<K>,
    work: impl FnOnce(Finalizer<K>) -> R,
) -> Result<Action, E>
where
    K: Resource,
    R: Future<Output = Result<Action, E>>,
    E: From<Error>,
{
    let meta = object.object_meta().into_owned();
    let is_there = meta.finalizers.iter().any(|other| other == name);
    match (meta.deletion_timestamp.is_some(), is_there) {
        (false, true) => work(Finalizer::Apply(object)).await,
        (false, false) => {
            let mut finalizers = meta.finalizers;
            finalizers.push(name.to_string());
            set_finalizers(api, &*object, finalizers).await?;
            // The change is told, and the object comes again with it.
            Ok(Action::done())
        }
        (true, true) => {
            let action = work(Finalizer::Cleanup(object.clone())).await?;
            let finalizers = meta.finalizers.into_iter().filter(|other| other != name).collect();
            match set_finalizers(api, &*object, finalizers).await {
                Err(error) if !error.is_not_found() => Err(error.into()),
                _ => Ok(action),
            }
        }
        (true, false) => Ok(Action::done()),
    }
}

/// Only of this very object at this very revision: two who write finalizers do not undo each other's.
async fn set_finalizers<K: Resource>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> Result<()> {
    let patch: Value = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    }});
    api.within(object.namespace()).patch(object.name(), &Patch::Merge(&patch)).await.map(drop)
}
