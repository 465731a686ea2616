//! Claims stay as long as a pod uses them, and volumes as long as a claim has them: the finalizer that admission gave them
//! goes when nobody does any more.

use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS};
use crate::mirror::{Key, Mirror};

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";

pub struct ClaimProtection;

pub struct VolumeProtection;

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "claim protection"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(PERSISTENT_VOLUME_CLAIMS), Source::all(PODS).lean(lean)]
    }

    fn keys(&self, source: usize, object: &Dynamic, _: &[Mirror]) -> Vec<Key> {
        let key = |name: &str| (meta::namespace(object).to_string(), name.to_string());
        match source {
            0 => vec![key(meta::name(object))],
            _ => claims_of(object).map(|claim| key(&claim)).collect(),
        }
    }

    fn decide(&self, (namespace, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some(claim) = seen[0].get(namespace, name) else { return Vec::new() };
        let uses = |pod: &Value| {
            let over = matches!(meta::text_at(pod, &["status", "phase"]), "Succeeded" | "Failed");
            let placed = !meta::text_at(pod, &["spec", "nodeName"]).is_empty();
            placed && !over && claims_of(pod).any(|claim| claim == *name)
        };
        match meta::is_deleting(claim) && !seen[1].of_namespace(namespace).any(uses) {
            true => without(claim, OF_CLAIMS)
                .map(|object| Action::Replace { resource: PERSISTENT_VOLUME_CLAIMS, object })
                .into_iter()
                .collect(),
            false => Vec::new(),
        }
    }
}

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "volume protection"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(PERSISTENT_VOLUMES)]
    }

    fn keys(&self, _: usize, object: &Dynamic, _: &[Mirror]) -> Vec<Key> {
        vec![(String::new(), meta::name(object).to_string())]
    }

    fn decide(&self, (_, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let free = |volume: &&Value| meta::is_deleting(volume) && volume["status"]["phase"] != "Bound";
        let volume = seen[0].get("", name).filter(free);
        let freed = volume.and_then(|volume| without(volume, OF_VOLUMES));
        freed.map(|object| Action::Replace { resource: PERSISTENT_VOLUMES, object }).into_iter().collect()
    }
}

/// The claims that a pod's volumes name: those of its own too, which are made for it.
fn claims_of(pod: &Value) -> impl Iterator<Item = String> {
    meta::items_at(pod, &["spec", "volumes"]).iter().filter_map(move |volume| {
        match meta::text_at(volume, &["persistentVolumeClaim", "claimName"]) {
            "" => volume["ephemeral"]
                .is_object()
                .then(|| format!("{}-{}", meta::name(pod), meta::text_at(volume, &["name"]))),
            claim => Some(claim.to_string()),
        }
    })
}

/// The object without a finalizer; nothing where it has it not.
fn without(object: &Value, finalizer: &str) -> Option<Value> {
    let kept: Vec<&str> = meta::finalizers(object).filter(|present| *present != finalizer).collect();
    if kept.len() == meta::finalizers(object).count() {
        return None;
    }
    let mut freed = object.clone();
    freed["metadata"]["finalizers"] = json!(kept);
    Some(freed)
}

fn lean(pod: &mut Value) {
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.retain(|field, _| matches!(field.as_str(), "volumes" | "nodeName"));
    }
    if let Some(status) = pod["status"].as_object_mut() {
        status.retain(|field, _| field == "phase");
    }
}
