//! Claims stay as long as a pod uses them, and volumes as long as a claim has them: the finalizer that admission gave them
//! goes when nobody does any more. Claims also tell since when no pod uses them.

use api::meta;
use jiff::Timestamp;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::event;
use crate::kinds::{ATTRIBUTES_CLASSES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS};
use crate::lean::Lent;
use crate::mirror::{Key, Mirror};

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";
const OF_ATTRIBUTES: &str = "kubernetes.io/vac-protection";

pub struct ClaimProtection;

pub struct VolumeProtection;

pub struct AttributesProtection;

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

    fn decide_at(&self, (namespace, name): &Key, seen: &[Mirror], now: Timestamp) -> Vec<Action> {
        let Some(claim) = seen[0].get(namespace, name) else { return Vec::new() };
        let uses = |pod: &&Value| {
            let over = matches!(meta::text_at(pod, &["status", "phase"]), "Succeeded" | "Failed");
            !over && claims_of(pod).any(|claim| claim == *name)
        };
        let mut users = seen[1].of_namespace(namespace).filter(uses);
        if !meta::is_deleting(claim) {
            let unused = users.next().is_none();
            let marked = (claim["status"]["phase"] == "Bound").then(|| marked(claim, unused, now)).flatten();
            let write = |object| Action::ReplaceStatus { resource: PERSISTENT_VOLUME_CLAIMS, object };
            return marked.map(write).into_iter().collect();
        }
        let placed = |pod: &Value| !meta::text_at(pod, &["spec", "nodeName"]).is_empty();
        match users.any(placed) {
            true => Vec::new(),
            false => without(claim, OF_CLAIMS)
                .map(|object| Action::Replace { resource: PERSISTENT_VOLUME_CLAIMS, object })
                .into_iter()
                .collect(),
        }
    }
}

/// The claim with the condition that tells since when nobody uses it; none where it tells that already.
fn marked(claim: &Value, unused: bool, now: Timestamp) -> Option<Value> {
    const TYPE: &str = "Unused";
    let (status, reason, message) = match unused {
        true => ("True", "NoPodsUsingPVC", "No pods are currently referencing this PVC"),
        false => ("False", "PodUsingPVC", "A pod is currently referencing this PVC"),
    };
    let mut conditions = meta::items_at(claim, &["status", "conditions"]).to_vec();
    let old = conditions.iter_mut().find(|condition| condition["type"] == TYPE);
    if old.as_ref().is_some_and(|old| old["status"] == status) {
        return None;
    }
    let condition = json!({
        "type": TYPE, "status": status, "lastProbeTime": null, "lastTransitionTime": event::time(now),
        "reason": reason, "message": message,
    });
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    let mut marked = claim.clone();
    marked["status"]["conditions"] = json!(conditions);
    Some(marked)
}

/// Classes of attributes stay as long as a claim or a volume has them.
impl Controller for AttributesProtection {
    fn name(&self) -> &'static str {
        "attributes class protection"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::all(ATTRIBUTES_CLASSES),
            Source::all(PERSISTENT_VOLUME_CLAIMS).lean(lean_attributes),
            Source::all(PERSISTENT_VOLUMES).lean(lean_attributes),
        ]
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let key = |class: &Value| (String::new(), meta::name(class).to_string());
        match source {
            0 => vec![key(object)],
            _ => seen[0].iter().filter(|class| meta::is_deleting(class)).map(key).collect(),
        }
    }

    fn decide(&self, (_, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let has = |object: &Value| meta::items_at(object, &["spec"]).iter().any(|class| *class == **name);
        let used = || seen[1].iter().chain(seen[2].iter()).any(has);
        let class = seen[0].get("", name).filter(|class| meta::is_deleting(class) && !used());
        let freed = class.and_then(|class| without(class, OF_ATTRIBUTES));
        freed.map(|object| Action::Replace { resource: ATTRIBUTES_CLASSES, object }).into_iter().collect()
    }
}

/// Of claims and volumes only the classes that they have, had or are to have.
fn lean_attributes(object: &Value) -> Option<Lent<'_>> {
    let paths = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ];
    let classes = paths.iter().filter_map(|path| object.pointer(path)).map(Lent::Part);
    Some(Lent::object([
        ("metadata", Lent::metadata(object, &["name", "namespace"])),
        ("spec", Lent::List(classes.collect())),
    ]))
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
pub fn claims_of(pod: &Value) -> impl Iterator<Item = String> {
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

fn lean(pod: &Value) -> Option<Lent<'_>> {
    claims_of(pod).next()?;
    Some(Lent::object([
        ("metadata", Lent::metadata(pod, &["name", "namespace"])),
        ("spec", Lent::fields(&pod["spec"], &["volumes", "nodeName"])),
        ("status", Lent::fields(&pod["status"], &["phase"])),
    ]))
}
