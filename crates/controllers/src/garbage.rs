//! Dependents go with their owners. An object whose owners are all gone is deleted; an owner deleted in the foreground stays
//! until its blocking dependents are gone; one deleted as orphan goes after its dependents have lost it.
//! Acts only on what the server says when asked once more: watches may be behind.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::options::Propagation;
use api::{DeleteOptions, Preconditions};
use futures_util::stream::{self, StreamExt};
use kemudi_client::discovery::Discovery;
use kemudi_client::{Api, ApiResource, Client, Error, Event, ListOptions, ObjectMeta, OwnerReference, Patch, Result};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::event;
use crate::feed::News;
use crate::graph::{Deletion, FOREGROUND, Graph, Node, ORPHAN, Uid, deletion};
use crate::kinds::{Metadata, PODS};
use crate::queue::Queue;
use crate::resources::{Resources, deletable};

/// Resources that are asked at once for the dependents of an object.
const RESOURCES_MAX: usize = 8;

const COMPONENT: &str = "garbage-collector-controller";

/// Collects for ever. `pods` tells of all pods, which are too many to be watched once more.
pub async fn run(client: Client, resources: Resources, pods: mpsc::Receiver<News>) {
    let collector = Arc::new(Collector {
        client,
        resources: resources.clone(),
        graph: Mutex::default(),
        queue: Queue::new(),
        complete: watch::Sender::new(false),
    });
    let work = async {
        // An owner not yet seen is no reason to ask for it.
        let _ = collector.complete.subscribe().wait_for(|complete| *complete).await;
        collector.queue.work(|uid| collector.look(uid)).await;
    };
    tokio::join!(follow_all(&collector, resources, pods), work);
}

struct Collector {
    client: Client,
    resources: Resources,
    graph: Mutex<Graph>,
    queue: Arc<Queue<Uid>>,
    /// All resources that were there at the start have told their objects.
    complete: watch::Sender<bool>,
}

/// Follows the metadata of all resources that the server has, as they come and go.
async fn follow_all(collector: &Arc<Collector>, mut resources: Resources, pods: mpsc::Receiver<News>) {
    let mut tasks = JoinSet::new();
    let mut followed: HashMap<ApiResource, AbortHandle> = HashMap::new();
    let (listed, mut left) = watch::channel(1);
    // Before anything is waited for: others wait until this has heard of them.
    tasks.spawn(Following::new(collector.clone(), Arc::new(PODS), listed.clone()).hear_of(pods));
    let mut known = resources.get().await;
    loop {
        let wanted: HashSet<&ApiResource> = deletable(&known)
            .filter(|found| found.can("watch") && found.resource.plural != "events" && found.resource != PODS)
            .map(|found| &found.resource)
            .collect();
        followed.retain(|resource, task| {
            let stays = wanted.contains(resource);
            if !stays {
                task.abort();
                collector.hear(|graph| graph.listed(resource, &HashSet::new()));
            }
            stays
        });
        for resource in wanted {
            if !followed.contains_key(resource) {
                listed.send_modify(|left| *left += 1);
                let following = Following::new(collector.clone(), Arc::new(resource.clone()), listed.clone());
                followed.insert(resource.clone(), tasks.spawn(following.watch()));
            }
        }
        loop {
            tokio::select! {
                found = resources.changed() => {
                    known = found;
                    break;
                }
                Ok(()) = async { left.wait_for(|left| *left == 0).await.map(drop) }, if !*collector.complete.borrow() => {
                    collector.complete.send_replace(true);
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

/// Of one resource, what the graph is told.
struct Following {
    collector: Arc<Collector>,
    resource: Arc<ApiResource>,
    /// Counted down once its first list is there; none after that.
    listed: Option<watch::Sender<usize>>,
    /// What a list has told so far.
    told: HashSet<String>,
}

impl Following {
    fn new(collector: Arc<Collector>, resource: Arc<ApiResource>, listed: watch::Sender<usize>) -> Following {
        Following { collector, resource, listed: Some(listed), told: HashSet::new() }
    }

    /// By a watch of its own.
    async fn watch(mut self) {
        let api: Api<Metadata> = Api::of(self.collector.client.clone(), &self.resource, "");
        let mut watcher = api.watcher(&ListOptions::default());
        loop {
            match watcher.next().await {
                Ok(event) => self.hear(event),
                Err(error) => tracing::debug!(resource = self.resource.group_resource(), %error, "watching again"),
            }
        }
    }

    /// By what others watch.
    async fn hear_of(mut self, mut news: mpsc::Receiver<News>) {
        while let Some((_, event)) = news.recv().await {
            self.hear(match event {
                Event::Init => Event::Init,
                Event::InitApplied(object) => Event::InitApplied(Metadata::of(&*object)),
                Event::InitDone => Event::InitDone,
                Event::Applied(object) => Event::Applied(Metadata::of(&*object)),
                Event::Deleted(object) => Event::Deleted(Metadata::of(&*object)),
            });
        }
    }

    fn hear(&mut self, event: Event<Metadata>) {
        let Following { collector, resource, listed, told } = self;
        match event {
            Event::Init => told.clear(),
            Event::InitApplied(object) => {
                collector.hear(|graph| graph.put(resource, &object.metadata));
                told.insert(object.metadata.uid);
            }
            Event::InitDone => {
                collector.hear(|graph| graph.listed(resource, told));
                *told = HashSet::new();
                if let Some(listed) = listed.take() {
                    listed.send_modify(|left| *left -= 1);
                }
            }
            Event::Applied(object) => collector.hear(|graph| graph.put(resource, &object.metadata)),
            Event::Deleted(object) => collector.hear(|graph| graph.remove(&object.metadata.uid)),
        }
    }
}

impl Collector {
    fn hear(&self, change: impl FnOnce(&mut Graph) -> Vec<Uid>) {
        let look = change(&mut self.graph());
        for uid in look {
            self.queue.add(uid);
        }
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, uid: Uid) -> Result<()> {
        let Some(node) = self.graph().get(&uid).cloned() else { return Ok(()) };
        match node.deletion {
            Deletion::Plain => Ok(()),
            Deletion::Orphan => self.orphan(&uid, &node).await,
            Deletion::Foreground => self.finish_foreground(&uid, &node).await,
            Deletion::None if self.graph().is_owned(&node) => Ok(()),
            Deletion::None => self.collect(&uid, &node).await,
        }
    }

    /// Deletes an object without owners, or takes the references out that lead nowhere.
    async fn collect(&self, uid: &str, node: &Node) -> Result<()> {
        self.tell_of_foreign_owners(uid, node).await;
        let Some(latest) = self.latest(uid, node).await? else { return Ok(()) };
        if deletion(&latest) != Deletion::None {
            return Ok(());
        }
        let known = self.resources.get().await;
        let mut standings = Vec::new();
        for owner in &latest.owner_references {
            let Some(standing) = self.standing(&known, &latest.namespace, owner).await? else {
                // A reference from outside of all namespaces into one: nothing can be said about it.
                return Ok(());
            };
            standings.push(standing);
        }
        let (has_dependents, in_circle) = {
            let graph = self.graph();
            let mut dependents = graph.dependents(uid).peekable();
            (dependents.peek().is_some(), dependents.any(|(_, node)| node.deletion == Deletion::Foreground))
        };
        let api = self.api(node);
        match decide(&latest, &standings, has_dependents) {
            Action::Nothing => Ok(()),
            Action::Keep(owners) => write(&api, &latest, json!({"ownerReferences": owners})).await,
            Action::Delete(propagation) => {
                if in_circle && propagation == Propagation::Foreground {
                    // Its dependents wait for it, it for its owner, and that for its dependents.
                    write(&api, &latest, json!({"ownerReferences": unblocked(&latest)})).await?;
                }
                let options = DeleteOptions {
                    propagation: Some(propagation),
                    preconditions: Preconditions { uid: Some(uid.to_string()), resource_version: None },
                    ..DeleteOptions::default()
                };
                gone_is_fine(api.delete_with(&latest.name, &options).await.map(drop))
            }
        }
    }

    /// What the server says of an owner; `None` where the reference makes no sense.
    async fn standing(&self, known: &Discovery, namespace: &str, owner: &OwnerReference) -> Result<Option<Standing>> {
        let kind = known.of_kind(&owner.api_version, &owner.kind).ok_or_else(|| {
            Error::Request(format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version))
        })?;
        if kind.resource.namespaced && namespace.is_empty() {
            return Ok(None);
        }
        let api: Api<Metadata> = Api::of(self.client.clone(), &kind.resource, namespace);
        Ok(Some(match api.get_opt(&owner.name).await? {
            Some(there) if there.metadata.uid == owner.uid => match deletion(&there.metadata) {
                Deletion::Foreground => Standing::Waiting,
                _ => Standing::Solid,
            },
            _ => Standing::Gone,
        }))
    }

    /// An owner in the foreground goes once nothing blocks it. Its dependents are looked at by themselves.
    async fn finish_foreground(&self, uid: &str, node: &Node) -> Result<()> {
        let blocking = self.graph().blocking(uid);
        if blocking.is_empty() {
            return self.drop_finalizer(uid, node, FOREGROUND).await;
        }
        for dependent in blocking {
            self.queue.add(dependent);
        }
        Ok(())
    }

    /// Takes the owner out of its dependents' references, and lets it go. The dependents are asked for once more: one that
    /// no watch has told yet would be deleted for want of its owner.
    async fn orphan(&self, uid: &str, node: &Node) -> Result<()> {
        let known = self.resources.get().await;
        let reachable = |resource: &ApiResource| node.namespace.is_empty() || resource.namespaced;
        let asked: Vec<ApiResource> = deletable(&known).map(|found| found.resource.clone()).filter(reachable).collect();
        let free = |resource: ApiResource| async move {
            let api: Api<Metadata> = Api::of(self.client.clone(), &resource, &node.namespace);
            let objects = match api.list().await {
                // The resource went meanwhile, and its objects with it.
                Err(error) if error.is_not_found() => return Ok(()),
                other => other?,
            };
            for object in objects {
                let (owned, others): (Vec<_>, Vec<_>) =
                    object.metadata.owner_references.iter().partition(|owner| owner.uid == uid);
                if !owned.is_empty() {
                    let api: Api<Metadata> = Api::of(self.client.clone(), &resource, &object.metadata.namespace);
                    write(&api, &object.metadata, json!({"ownerReferences": others})).await?;
                }
            }
            Ok(())
        };
        let outcomes: Vec<Result<()>> = stream::iter(asked).map(free).buffer_unordered(RESOURCES_MAX).collect().await;
        outcomes.into_iter().collect::<Result<()>>()?;
        self.drop_finalizer(uid, node, ORPHAN).await
    }

    async fn drop_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<()> {
        let Some(latest) = self.latest(uid, node).await? else { return Ok(()) };
        let rest: Vec<&String> = latest.finalizers.iter().filter(|other| *other != finalizer).collect();
        match rest.len() == latest.finalizers.len() {
            true => Ok(()),
            false => write(&self.api(node), &latest, json!({"finalizers": rest})).await,
        }
    }

    /// The object as the server has it now. Where it is gone, the graph learns that too.
    async fn latest(&self, uid: &str, node: &Node) -> Result<Option<ObjectMeta>> {
        let found = self.api(node).get_opt(&node.name).await?.map(|found| found.metadata);
        Ok(found.filter(|found| found.uid == uid))
    }

    /// Says why an owner in another namespace is none.
    async fn tell_of_foreign_owners(&self, uid: &str, node: &Node) {
        let is_foreign = |owner: &&OwnerReference| {
            let graph = self.graph();
            let there = graph.get(&owner.uid);
            there.is_some_and(|there| !there.namespace.is_empty() && there.namespace != node.namespace)
        };
        let foreign: Vec<&OwnerReference> = node.owners.iter().filter(is_foreign).collect();
        for owner in foreign {
            let OwnerReference { api_version, kind, name, uid: owner_uid, .. } = owner;
            let namespace = &node.namespace;
            let message = format!(
                "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {owner_uid}] \
                 does not exist in namespace {namespace:?}"
            );
            let resource = &node.resource;
            let about = event::reference(&resource.api_version(), &resource.kind, namespace, &node.name, uid);
            let happened = event::Happened { kind: "Warning", reason: "OwnerRefInvalidNamespace", message: &message };
            event::tell(&self.client, COMPONENT, about, happened).await;
        }
    }

    fn api(&self, node: &Node) -> Api<Metadata> {
        Api::of(self.client.clone(), &node.resource, &node.namespace)
    }
}

/// What became of an owner.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Solid,
    /// There, and waits for its dependents to go.
    Waiting,
    Gone,
}

#[derive(Debug, PartialEq)]
enum Action {
    Nothing,
    /// Only these owners are left.
    Keep(Vec<OwnerReference>),
    Delete(Propagation),
}

/// What is to be done about an object, by what its owners are; they come in the order of its references.
fn decide(object: &ObjectMeta, owners: &[Standing], has_dependents: bool) -> Action {
    let has = |finalizer: &str| object.finalizers.iter().any(|other| other == finalizer);
    if owners.is_empty() || owners.iter().all(|owner| *owner == Standing::Solid) {
        return Action::Nothing;
    }
    if owners.contains(&Standing::Solid) {
        let all = object.owner_references.iter().zip(owners);
        let solid = all.filter(|(_, standing)| **standing == Standing::Solid);
        return Action::Keep(solid.map(|(owner, _)| owner.clone()).collect());
    }
    if owners.contains(&Standing::Waiting) && has_dependents || has(FOREGROUND) {
        return Action::Delete(Propagation::Foreground);
    }
    Action::Delete(if has(ORPHAN) { Propagation::Orphan } else { Propagation::Background })
}

fn unblocked(object: &ObjectMeta) -> Vec<OwnerReference> {
    let unblock = |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
    object.owner_references.iter().map(unblock).collect()
}

/// Changes an object's metadata, if it is still as we know it; else it is looked at again.
async fn write(api: &Api<Metadata>, object: &ObjectMeta, mut metadata: Value) -> Result<()> {
    metadata["uid"] = object.uid.as_str().into();
    metadata["resourceVersion"] = object.resource_version.as_str().into();
    let merge = json!({"metadata": metadata});
    gone_is_fine(api.patch(&object.name, &Patch::Merge(&merge)).await.map(drop))
}

fn gone_is_fine(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(finalizers: &[&str], owners: &[Standing], has_dependents: bool, want: &str) {
        let references = (0..owners.len()).map(|nth| OwnerReference { name: nth.to_string(), ..Default::default() });
        let object = ObjectMeta {
            finalizers: finalizers.iter().map(|finalizer| finalizer.to_string()).collect(),
            owner_references: references.collect(),
            ..ObjectMeta::default()
        };
        let got = match decide(&object, owners, has_dependents) {
            Action::Keep(owners) => {
                owners.iter().fold("keep".to_string(), |text, owner| format!("{text} {}", owner.name))
            }
            other => format!("{other:?}"),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn what_becomes_of_an_object() {
        use Standing::{Gone, Solid, Waiting};
        check(&[], &[], true, "Nothing");
        check(&[], &[Solid, Solid], true, "Nothing");
        check(&[], &[Gone, Solid, Waiting], true, "keep 1");
        check(&[], &[Gone, Gone], true, "Delete(Background)");
        check(&[], &[Gone, Waiting], true, "Delete(Foreground)");
        check(&[], &[Waiting], false, "Delete(Background)");
        check(&[ORPHAN], &[Gone], false, "Delete(Orphan)");
        check(&[FOREGROUND], &[Gone], false, "Delete(Foreground)");
    }
}
