//! CustomResourceDefinitions: the registry is kept in step with them, on the thread that commits, so that what a
//! definition makes is served before anybody can see that it is established. Makes no decision about definitions: who
//! accepts their names and cleans up after them is a controller.

use std::sync::{Arc, Weak};

use api::Status;
use kinds::{Kind, custom};
use serde_json::Value;

use crate::objects::Changed;
use crate::state::State;

const GROUP: &str = "apiextensions.k8s.io";
const RESOURCE: &str = "customresourcedefinitions";

/// Serves what the definitions make that are there, and from now on what they become.
pub fn follow(state: &Arc<State>) -> Result<(), Status> {
    let Some(kind) = state.registry.load().preferred(GROUP, RESOURCE).cloned() else { return Ok(()) };
    // The collection lives in the state, which must not keep itself alive.
    let weak: Weak<State> = Arc::downgrade(state);
    state.collection(&kind)?.observe(Box::new(move |change: &Changed| {
        if let Some(state) = weak.upgrade() {
            on_change(&state, change);
        }
    }));
    Ok(())
}

fn on_change(state: &State, change: &Changed) {
    let (old, new) = (change.old.as_ref().map(|entry| entry.value()), change.new.as_ref().map(|entry| entry.value()));
    let Some(definition) = new.as_ref().or(old.as_ref()) else { return };
    let text = |field: &str| definition.pointer(field).and_then(Value::as_str).unwrap_or_default();
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let registry = state.registry.load_full();
    // The groups of built-in kinds are not served from definitions.
    if registry.group(group).is_some_and(|group| !group.custom) {
        return;
    }
    let before = registry.kinds().find(|kind| &*kind.group == group && &*kind.plural == plural).cloned();
    let since = match (&old, &new, &before) {
        (Some(old), Some(new), Some(before)) if serves_the_same(old, new) => since(before).unwrap_or(change.revision),
        _ => change.revision,
    };
    let kinds = new.as_ref().map(|new| custom::kinds(new, since)).unwrap_or_default();
    if kinds.is_empty() && before.is_none() {
        return;
    }
    let next = kinds.into_iter().fold(registry.without(group, plural), |registry, kind| registry.with_kind(kind));
    state.registry.store(Arc::new(next));
    // Watches of custom resources end with what they watch.
    if let Some(collection) = state.objects.found(&format!("{group}/{plural}")) {
        collection.wake();
    }
}

fn since(kind: &Kind) -> Option<u64> {
    kind.custom.as_ref().map(|custom| custom.since())
}

/// Whether two states of a definition serve the same: conditions come and go.
fn serves_the_same(old: &Value, new: &Value) -> bool {
    old["spec"] == new["spec"] && old["status"]["acceptedNames"] == new["status"]["acceptedNames"]
}

/// Forgets the caches of custom resources that are served no more.
pub fn forget(state: &State) {
    let registry = state.registry.load();
    for table in state.objects.tables() {
        let Some((group, plural)) = table.split_once('/') else { continue };
        if registry.group(group).is_none_or(|group| group.custom) && registry.preferred(group, plural).is_none() {
            state.objects.forget(&table);
        }
    }
}
