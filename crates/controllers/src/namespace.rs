//! A namespace that is deleted goes when all it holds is gone; see [`crate::empty_namespace`] for how.

use std::sync::Arc;

use api::meta;
use kemudi_client::Dynamic;
use tokio::sync::Semaphore;

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::empty_namespace::{NAMESPACES_MAX, WAITING_MAX};
use crate::kinds::NAMESPACES;
use crate::lean::Lent;
use crate::mirror::{Key, Mirror};
use crate::resources::Resources;

/// The finalizer that stands for the content.
pub const FINALIZER: &str = "kubernetes";

pub struct NamespaceDeletion {
    resources: Resources,
    working: Arc<Semaphore>,
}

impl NamespaceDeletion {
    pub fn new(resources: Resources) -> NamespaceDeletion {
        NamespaceDeletion { resources, working: Arc::new(Semaphore::new(NAMESPACES_MAX)) }
    }
}

impl Controller for NamespaceDeletion {
    fn name(&self) -> &'static str {
        "namespace deletion"
    }

    fn tasks_max(&self) -> usize {
        WAITING_MAX
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(NAMESPACES).lean(|namespace| {
            Some(Lent::object([
                ("metadata", Lent::metadata(namespace, &["name", "uid", "resourceVersion", "deletionTimestamp"])),
                ("spec", Lent::Part(&namespace["spec"])),
                ("status", Lent::Part(&namespace["status"])),
            ]))
        })]
    }

    fn keys(&self, _: usize, object: &Dynamic, _: &[Mirror]) -> Vec<Key> {
        vec![(String::new(), meta::name(object).to_string())]
    }

    fn decide(&self, (_, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some(namespace) = seen[0].get("", name) else { return Vec::new() };
        let finalizers = meta::items_at(namespace, &["spec", "finalizers"]);
        if !meta::is_deleting(namespace) || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Vec::new();
        }
        let (uid, working) = (meta::uid(namespace).to_string(), self.working.clone());
        vec![Action::EmptyNamespace { name: name.clone(), uid, resources: self.resources.clone(), working }]
    }
}
