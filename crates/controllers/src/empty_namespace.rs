//! Deletes all that a namespace holds, tells in its conditions what still stands in the way, and lets it go at the end.
//! Pods go first, so that they do not lose their accounts and settings while they end. What remains is waited for by a watch.

use std::collections::BTreeMap;
use std::time::Duration;

use api::meta;
use futures_util::StreamExt;
use futures_util::stream;
use kemudi_client::{
    Api, ApiResource, Client, DeleteOptions, Dynamic, Error, ListOptions, ObjectList, Resource, WatchEvent,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::act::manager;
use crate::kinds::{Metadata, NAMESPACES, PODS};
use crate::namespace::FINALIZER;
use crate::resources::{Resources, deletable};

/// Namespaces that are worked on at once; those that wait for finalizers do not count.
pub const NAMESPACES_MAX: usize = 16;
/// Namespaces that are worked on or wait.
pub const WAITING_MAX: usize = 4096;
/// Resources of one namespace that are asked at once.
const RESOURCES_MAX: usize = 8;
/// Longest wait for a sign that something remaining went, before all is looked at again.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What goes within this time after each other is looked at once.
const QUIET: Duration = Duration::from_millis(20);

/// What is left after a pass.
#[derive(Debug, Default, PartialEq)]
struct Remaining {
    /// How many objects of each `resource.group`.
    resources: BTreeMap<String, usize>,
    /// On how many objects each finalizer is.
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
    /// Of what, how many and from which revision a watch tells the next step.
    watch: Option<(ApiResource, usize, Option<u64>)>,
}

/// Returns when the namespace is finalized, or is not what it was.
pub async fn run(
    client: &Client,
    name: &str,
    uid: &str,
    resources: &Resources,
    working: &Semaphore,
) -> Result<(), Error> {
    let namespaces = Api::all_of(client.clone(), &NAMESPACES);
    loop {
        let permit = working.acquire().await;
        let Some(namespace) = namespaces.get_opt(name).await? else { return Ok(()) };
        let finalizers = meta::items_at(&namespace, &["spec", "finalizers"]);
        if namespace.uid() != uid || !meta::is_deleting(&namespace) || !finalizers.iter().any(|one| one == FINALIZER) {
            return Ok(());
        }
        let known = resources.get().await;
        let kept: Vec<ApiResource> =
            deletable(&known).map(|found| found.resource.clone()).filter(|resource| resource.namespaced).collect();
        let remaining = pass(client, name, &kept).await;
        let namespace = tell(&namespaces, namespace, &remaining).await?;
        if remaining.resources.is_empty() && remaining.failures.is_empty() {
            return finalize(&namespaces, namespace).await;
        }
        drop(permit);
        wait(client, name, &remaining).await?;
    }
}

/// Deletes what is there, pods before all else, and counts what remains.
async fn pass(client: &Client, namespace: &str, resources: &[ApiResource]) -> Remaining {
    let mut remaining = Remaining::default();
    add(&mut remaining, &PODS, delete_all(client, namespace, &PODS).await);
    if !remaining.resources.is_empty() || !remaining.failures.is_empty() {
        return remaining;
    }
    let others: Vec<ApiResource> = resources.iter().filter(|resource| **resource != PODS).cloned().collect();
    let delete = |resource: ApiResource| {
        let (client, namespace) = (client.clone(), namespace.to_string());
        async move { (delete_all(&client, &namespace, &resource).await, resource) }
    };
    let outcomes: Vec<_> = stream::iter(others).map(delete).buffer_unordered(RESOURCES_MAX).collect().await;
    for (left, resource) in outcomes {
        add(&mut remaining, &resource, left);
    }
    remaining
}

/// Deletes a namespace's objects of one resource; gives those that are still there.
pub async fn delete_all(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
) -> Result<ObjectList<Metadata>, Error> {
    let api: Api<Metadata> = Api::of(client.clone(), resource, namespace);
    let list = match api.list().await {
        // The resource, or its group, went meanwhile.
        Err(error) if error.is_not_found() || error.code() == Some(405) => {
            return Ok(ObjectList { metadata: Default::default(), items: Vec::new() });
        }
        other => other?,
    };
    if list.items.is_empty() {
        return Ok(list);
    }
    let background = DeleteOptions { propagation: Some(api::options::Propagation::Background), ..Default::default() };
    match api.delete_collection(&background, &ListOptions::default()).await {
        Err(error) if error.code() == Some(405) => {
            for object in &list {
                match api.delete_with(object.name(), &background).await {
                    Err(error) if error.is_not_found() => {}
                    other => drop(other?),
                }
            }
        }
        other => other?,
    }
    api.list().await
}

fn add(remaining: &mut Remaining, resource: &ApiResource, left: Result<ObjectList<Metadata>, Error>) {
    let list = match left {
        Err(error) => return remaining.failures.push(error.to_string()),
        Ok(list) if list.items.is_empty() => return,
        Ok(list) => list,
    };
    // Kubernetes writes the dot for the core group too.
    remaining.resources.insert(format!("{}.{}", resource.plural, resource.group), list.items.len());
    for finalizer in list.items.iter().flat_map(|object| &object.metadata.finalizers) {
        *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    if remaining.watch.is_none() {
        remaining.watch = Some((resource.clone(), list.items.len(), list.metadata.resource_version.parse().ok()));
    }
}

/// Writes the conditions where they changed; gives the namespace as it is now.
async fn tell(namespaces: &Api<Dynamic>, namespace: Dynamic, remaining: &Remaining) -> Result<Dynamic, Error> {
    let there = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let wanted = conditions(&there, remaining, &now());
    let mut changed = namespace;
    if wanted == there && changed["status"]["phase"] == "Terminating" {
        return Ok(changed);
    }
    changed["status"]["phase"] = "Terminating".into();
    changed["status"]["conditions"] = Value::Array(wanted);
    let name = changed.name().to_string();
    let query = api::Query(vec![("fieldManager".to_string(), manager().field_manager)]);
    let target = api::Target {
        version: "v1".into(),
        resource: "namespaces".into(),
        name,
        subresource: "status".into(),
        ..Default::default()
    };
    let ask = api::Ask::of(api::Verb::Update, target, query);
    let request = kemudi_client::client::request_of(&ask, Some(api::codec::to_json(&changed.0).into()))?;
    namespaces.client().json(request).await
}

/// The five conditions, each keeping its time while its status stays.
fn conditions(there: &[Value], remaining: &Remaining, now: &str) -> Vec<Value> {
    let listed = |what: &BTreeMap<String, usize>, each: &str| {
        let parts: Vec<String> =
            what.iter().map(|(name, count)| format!("{name} {each} {count} resource instances")).collect();
        parts.join(", ")
    };
    let deleted = "All content successfully deleted, may be waiting on finalization";
    let wanted = [
        (
            // We begin only when all resources are known.
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".to_string()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_string()),
        ),
        (
            "NamespaceDeletionContentFailure",
            match remaining.failures.as_slice() {
                [] => ("False", "ContentDeleted", deleted.to_string()),
                all => (
                    "True",
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types, {} remaining: {}", all.len(), all.join(", ")),
                ),
            },
        ),
        (
            "NamespaceContentRemaining",
            match remaining.resources.is_empty() {
                true => ("False", "ContentRemoved", "All content successfully removed".to_string()),
                false => {
                    let what = listed(&remaining.resources, "has");
                    ("True", "SomeResourcesRemain", format!("Some resources are remaining: {what}"))
                }
            },
        ),
        (
            "NamespaceFinalizersRemaining",
            match remaining.finalizers.is_empty() {
                true => ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_string()),
                false => {
                    let what = listed(&remaining.finalizers, "in");
                    let text = format!("Some content in the namespace has finalizers remaining: {what}");
                    ("True", "SomeFinalizersRemain", text)
                }
            },
        ),
    ];
    let mut out = there.to_vec();
    for (kind, (status, reason, message)) in wanted {
        let at = out.iter().position(|condition| condition["type"] == kind);
        let since = at.filter(|at| out[*at]["status"] == status).map(|at| out[at]["lastTransitionTime"].clone());
        let condition = json!({
            "type": kind, "status": status, "lastTransitionTime": since.unwrap_or(now.into()),
            "reason": reason, "message": message,
        });
        match at {
            Some(at) => out[at] = condition,
            None => out.push(condition),
        }
    }
    out
}

/// Takes our finalizer off; the server deletes the namespace with the last one.
async fn finalize(namespaces: &Api<Dynamic>, mut namespace: Dynamic) -> Result<(), Error> {
    if let Some(finalizers) = namespace["spec"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let name = namespace.name().to_string();
    namespaces.replace_subresource::<Value>(&name, "finalize", &namespace).await.map(drop)
}

/// Returns when what remained went, or some of it and then nothing more, or after a while.
async fn wait(client: &Client, namespace: &str, remaining: &Remaining) -> Result<(), Error> {
    let Some((resource, count, resource_version)) = &remaining.watch else {
        return Err(Error::Request(remaining.failures.join(", ")));
    };
    wait_for_deletions(client, namespace, resource, *count, *resource_version, WAIT_MAX).await
}

/// Returns when so many objects were deleted after a revision, or some and then nothing more, or after a while.
pub async fn wait_for_deletions(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    count: usize,
    resource_version: Option<u64>,
    wait_max: Duration,
) -> Result<(), Error> {
    let api: Api<Metadata> = Api::of(client.clone(), resource, namespace);
    let options = ListOptions { resource_version, ..ListOptions::default() };
    let mut watch = match api.watch(&options).await {
        Err(error) if error.is_expired() => return Ok(()),
        other => other?,
    };
    let mut left = count;
    let gone = async {
        let mut pause = wait_max;
        while let Ok(Some(Ok(event))) = timeout(pause, watch.next()).await {
            if let WatchEvent::Deleted(_) = event {
                left = left.saturating_sub(1);
                pause = QUIET;
            }
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(wait_max, gone).await;
    Ok(())
}

fn now() -> String {
    crate::event::time(jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_remains_and_keep_their_times() {
        let mut remaining = Remaining::default();
        remaining.resources.insert("configmaps.".into(), 1);
        remaining.finalizers.insert("example.com/hold".into(), 1);
        let first = conditions(&[], &remaining, "T1");
        assert_eq!(first[3]["message"], "Some resources are remaining: configmaps. has 1 resource instances");
        assert_eq!(
            first[4]["message"],
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        assert_eq!(conditions(&first, &remaining, "T2"), first);
        let last = conditions(&first, &Remaining::default(), "T2");
        let times: Vec<_> = last.iter().map(|condition| condition["lastTransitionTime"].as_str().unwrap()).collect();
        assert_eq!(times, ["T1", "T1", "T1", "T2", "T2"]);
        assert_eq!(last[3]["reason"], "ContentRemoved");
    }
}
