//! Brings claims and volumes together: a claim gets the smallest volume that is what it asks for, and both say so; a volume
//! whose claim is gone is released, and dealt with as its policy says. Makes no storage and deletes none: that is for
//! whoever provisions a class. One write at a time; each is seen before the next is decided.

use api::LabelSelector;
use std::cmp::Ordering;

use api::meta;
use kemudi_client::Dynamic;
use kinds::quantity::Quantity;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::event;
use crate::kinds::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES};
use crate::lean::Lent;
use crate::mirror::{self, Key, Mirror};
use crate::storage_protection::claims_of;

const COMPONENT: &str = "persistentvolume-controller";

/// On a volume or a claim: this controller, not its maker, has set what it is bound to.
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: it was bound once.
const COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a volume: who made it for its claim.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is to make a volume for it; the second is the older name.
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// On a claim: the node for which a volume is to be made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The older way to name a class.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Provisioners of this prefix were part of Kubernetes itself.
const IN_TREE: &str = "kubernetes.io/";
/// Those of them that drivers have taken over, and the drivers.
const MIGRATED: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
];
/// Where a volume on a node's own disk may be deleted.
const DELETABLE_PATHS: &str = "/tmp/";

pub struct VolumeBinder;

/// The sources.
const ALL_CLAIMS: usize = 0;
const ALL_VOLUMES: usize = 1;
const ALL_CLASSES: usize = 2;
const WAITING_PODS: usize = 3;

impl Controller for VolumeBinder {
    fn name(&self) -> &'static str {
        "volume binder"
    }

    // Two claims that choose at once would choose the same volume.
    fn tasks_max(&self) -> usize {
        1
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::all(PERSISTENT_VOLUME_CLAIMS),
            Source::all(PERSISTENT_VOLUMES),
            Source::all(STORAGE_CLASSES),
            Source::all(PODS).lean(|pod| {
                let waits = meta::text_at(pod, &["spec", "nodeName"]).is_empty() && claims_of(pod).next().is_some();
                waits.then(|| {
                    Lent::object([
                        ("metadata", Lent::metadata(pod, &["name", "namespace"])),
                        ("spec", Lent::fields(&pod["spec"], &["volumes"])),
                    ])
                })
            }),
        ]
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let key = mirror::key_of;
        let unbound = || seen[ALL_CLAIMS].iter().filter(|claim| !has(claim, COMPLETED)).map(key);
        match source {
            ALL_CLAIMS => {
                let named = meta::text_at(object, &["spec", "volumeName"]);
                let of_claim = |volume: &&Value| meta::name(volume) == named || names(volume, object);
                let volumes = seen[ALL_VOLUMES].iter().filter(of_claim).map(key);
                volumes.chain([key(object)]).collect()
            }
            ALL_VOLUMES => {
                let claim = &object["spec"]["claimRef"];
                let claim = claim.is_object().then(|| {
                    (meta::text_at(claim, &["namespace"]).to_string(), meta::text_at(claim, &["name"]).to_string())
                });
                // A volume that nobody has may be what any claim waits for, and one that goes what a claim had.
                let others: Vec<Key> = match claim.is_some() {
                    true => Vec::new(),
                    false => unbound().collect(),
                };
                others.into_iter().chain(claim).chain([key(object)]).collect()
            }
            ALL_CLASSES => unbound().collect(),
            _ => {
                let namespace = meta::namespace(object);
                claims_of(object).map(|claim| (namespace.to_string(), claim)).collect()
            }
        }
    }

    fn decide(&self, (namespace, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let seen = Seen(seen);
        match namespace.is_empty() {
            true => seen.volume(name).map(|volume| of_volume(volume, &seen)),
            false => seen.claim(namespace, name).map(|claim| match has(claim, COMPLETED) {
                true => bound(claim, &seen),
                false => unbound(claim, &seen),
            }),
        }
        .unwrap_or_default()
    }
}

struct Seen<'a>(&'a [Mirror]);

impl<'a> Seen<'a> {
    fn claim(&self, namespace: &str, name: &str) -> Option<&'a Value> {
        self.0[ALL_CLAIMS].get(namespace, name)
    }

    fn volume(&self, name: &str) -> Option<&'a Value> {
        self.0[ALL_VOLUMES].get("", name)
    }

    fn class(&self, name: &str) -> Option<&'a Value> {
        self.0[ALL_CLASSES].get("", name)
    }
}

/// A claim that has no volume yet.
fn unbound<'a>(claim: &'a Value, seen: &Seen<'a>) -> Vec<Action> {
    let wanted = meta::text_at(claim, &["spec", "volumeName"]);
    if wanted.is_empty() {
        let waits = waits_for_pod(claim, seen);
        return match best_match(claim, seen.0[ALL_VOLUMES].iter(), waits) {
            Some(volume) => bind(volume, claim),
            None => unmatched(claim, seen, waits),
        };
    }
    let Some(volume) = seen.volume(wanted) else { return pending(claim, None) };
    let tell = |reason: &'static str, message: String| pending(claim, Some(warning(claim, reason, message)));
    if !volume["spec"]["claimRef"].is_object() {
        return match mismatch(volume, claim) {
            None => bind(volume, claim),
            Some(why) => tell("VolumeMismatch", format!("Cannot bind to requested volume {wanted:?}: {why}")),
        };
    }
    match is_of(volume, claim) {
        true => bind(volume, claim),
        false => tell("FailedBinding", format!("volume {wanted:?} already bound to a different claim.")),
    }
}

/// A claim for which there is no volume.
fn unmatched<'a>(claim: &'a Value, seen: &Seen<'a>, waits: bool) -> Vec<Action> {
    if !names_class(claim)
        && let Some(class) = default_class(seen)
    {
        let mut claimed = claim.clone();
        claimed["spec"]["storageClassName"] = json!(class);
        return vec![Action::Replace { resource: PERSISTENT_VOLUME_CLAIMS, object: claimed }];
    }
    let class = class_of(claim);
    if waits && meta::entry(claim, "annotations", SELECTED_NODE).is_none() {
        let pods = waiting_pods(claim, seen);
        let (reason, message) = match pods.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_string()),
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
        };
        return pending(claim, Some(tell(claim, "Normal", reason, message)));
    }
    if class.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set".to_string();
        return pending(claim, Some(tell(claim, "Normal", "FailedBinding", message)));
    }
    let Some(found) = seen.class(class) else {
        let message = format!("storageclass.storage.k8s.io {class:?} not found");
        return pending(claim, Some(warning(claim, "ProvisioningFailed", message)));
    };
    let provisioner = meta::text_at(found, &["provisioner"]);
    let driver = MIGRATED.iter().find(|(old, _)| *old == provisioner).map(|(_, driver)| *driver);
    if driver.is_none() && provisioner.starts_with(IN_TREE) {
        let message = format!("no volume plugin matched name: {provisioner}");
        return pending(claim, Some(warning(claim, "ProvisioningFailed", message)));
    }
    let provisioner = driver.unwrap_or(provisioner);
    let told = PROVISIONER.iter().all(|key| meta::entry(claim, "annotations", key) == Some(provisioner));
    if !told {
        let mut claimed = claim.clone();
        for key in PROVISIONER {
            claimed["metadata"]["annotations"][key] = json!(provisioner);
        }
        return vec![Action::Replace { resource: PERSISTENT_VOLUME_CLAIMS, object: claimed }];
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    pending(claim, Some(tell(claim, "Normal", "ExternalProvisioning", message)))
}

/// A claim that was bound: it stays so, or has lost its volume.
fn bound(claim: &Value, seen: &Seen) -> Vec<Action> {
    let lost = |reason: &'static str, message: &str| {
        let mut actions = status_of_claim(claim, "Lost", None);
        if !actions.is_empty() {
            actions.push(warning(claim, reason, message.to_string()));
        }
        actions
    };
    let name = meta::text_at(claim, &["spec", "volumeName"]);
    if name.is_empty() {
        return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
    }
    let Some(volume) = seen.volume(name) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match volume["spec"]["claimRef"].is_object() && volume["spec"]["claimRef"]["uid"] != meta::uid(claim) {
        true => lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"),
        false => bind(volume, claim),
    }
}

/// Whether a claim has a volume that has it too.
pub(crate) fn is_bound(claim: &Value) -> bool {
    !meta::text_at(claim, &["spec", "volumeName"]).is_empty() && has(claim, COMPLETED)
}

/// Has a volume say that it is a claim's; nothing where it does.
pub(crate) fn set_aside(volume: &Value, claim: &Value) -> Option<Action> {
    if names(volume, claim) && volume["spec"]["claimRef"]["uid"] == meta::uid(claim) {
        return None;
    }
    let mut given = volume.clone();
    if !is_of(volume, claim) {
        given["metadata"]["annotations"][BY_CONTROLLER] = json!("yes");
    }
    given["spec"]["claimRef"] = json!({
        "kind": "PersistentVolumeClaim", "namespace": meta::namespace(claim), "name": meta::name(claim),
        "uid": meta::uid(claim), "apiVersion": "v1", "resourceVersion": meta::resource_version(claim),
    });
    Some(Action::Replace { resource: PERSISTENT_VOLUMES, object: given })
}

/// Has a claim say for which node a volume is to be made; nothing where it says one.
pub(crate) fn ask_for_volume(claim: &Value, node: &str) -> Option<Action> {
    if has(claim, SELECTED_NODE) {
        return None;
    }
    let mut asking = claim.clone();
    asking["metadata"]["annotations"][SELECTED_NODE] = json!(node);
    Some(Action::Replace { resource: PERSISTENT_VOLUME_CLAIMS, object: asking })
}

/// The next step in which a volume and a claim come to say that they have each other.
fn bind(volume: &Value, claim: &Value) -> Vec<Action> {
    if let Some(step) = set_aside(volume, claim) {
        return vec![step];
    }
    let actions = phase(volume, "Bound");
    if !actions.is_empty() {
        return actions;
    }
    let mut taken = claim.clone();
    if claim["spec"]["volumeName"] != meta::name(volume) {
        taken["spec"]["volumeName"] = json!(meta::name(volume));
        taken["metadata"]["annotations"][BY_CONTROLLER] = json!("yes");
    }
    if !has(claim, COMPLETED) {
        taken["metadata"]["annotations"][COMPLETED] = json!("yes");
    }
    match taken == *claim {
        true => status_of_claim(claim, "Bound", Some(volume)),
        false => vec![Action::Replace { resource: PERSISTENT_VOLUME_CLAIMS, object: taken }],
    }
}

/// A volume: whose it is, and what becomes of it when that one is gone.
fn of_volume(volume: &Value, seen: &Seen) -> Vec<Action> {
    let claim_ref = &volume["spec"]["claimRef"];
    if !claim_ref.is_object() || meta::text_at(claim_ref, &["uid"]).is_empty() {
        return phase(volume, "Available");
    }
    let claim = seen.claim(meta::text_at(claim_ref, &["namespace"]), meta::text_at(claim_ref, &["name"]));
    let Some(claim) = claim.filter(|claim| claim_ref["uid"] == meta::uid(claim)) else {
        return released(volume);
    };
    let name = meta::text_at(claim, &["spec", "volumeName"]);
    if name == meta::name(volume) {
        return phase(volume, "Bound");
    }
    if name.is_empty() {
        return match mode(&claim["spec"]) == mode(&volume["spec"]) {
            // The claim's own turn will finish the binding.
            true => Vec::new(),
            false => {
                let of_volume = format!(
                    "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
                    meta::name(claim)
                );
                let of_claim = format!(
                    "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
                    meta::name(volume)
                );
                vec![tell_of_volume(volume, "VolumeMismatch", of_volume), warning(claim, "VolumeMismatch", of_claim)]
            }
        };
    }
    // The claim has another volume by now.
    if has(volume, PROVISIONED_BY) && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" {
        return released(volume);
    }
    let mut free = volume.clone();
    match has(volume, BY_CONTROLLER) {
        true => {
            remove(&mut free, "/spec", "claimRef");
            remove(&mut free, "/metadata/annotations", BY_CONTROLLER);
        }
        false => remove(&mut free, "/spec/claimRef", "uid"),
    }
    vec![Action::Replace { resource: PERSISTENT_VOLUMES, object: free }]
}

/// A volume whose claim is gone.
fn released(volume: &Value) -> Vec<Action> {
    if !matches!(meta::text_at(volume, &["status", "phase"]), "Released" | "Failed") {
        return phase(volume, "Released");
    }
    let failed = |reason: &'static str, message: String| {
        let mut actions = phase_with(volume, "Failed", &message);
        if !actions.is_empty() {
            actions.push(tell_of_volume(volume, reason, message));
        }
        actions
    };
    match meta::text_at(volume, &["spec", "persistentVolumeReclaimPolicy"]) {
        "Retain" => Vec::new(),
        "Recycle" => failed("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_string()),
        "Delete" => match deleter(volume) {
            Deleter::Other => Vec::new(),
            Deleter::None(why) => failed("VolumeFailedDelete", why),
            Deleter::Here if meta::is_deleting(volume) => Vec::new(),
            Deleter::Here => vec![Action::Delete {
                resource: PERSISTENT_VOLUMES,
                namespace: String::new(),
                name: meta::name(volume).to_string(),
                uid: meta::uid(volume).to_string(),
            }],
        },
        _ => failed("VolumeUnknownReclaimPolicy", "Volume has unrecognized reclaim policy".to_string()),
    }
}

/// Who deletes a volume's storage.
enum Deleter {
    /// Whoever provisioned it, somewhere else.
    Other,
    /// Nobody needs to: it was a folder for trials, which the node it was on forgets.
    Here,
    None(String),
}

fn deleter(volume: &Value) -> Deleter {
    let by = meta::entry(volume, "annotations", PROVISIONED_BY).unwrap_or_default();
    if !by.is_empty() && (!by.starts_with(IN_TREE) || MIGRATED.iter().any(|(old, _)| *old == by)) {
        return Deleter::Other;
    }
    let none = |why: &str| {
        let name = meta::name(volume);
        Deleter::None(format!("error getting deleter volume plugin for volume {name:?}: {why}"))
    };
    let spec = &volume["spec"];
    match meta::text_at(spec, &["hostPath", "path"]) {
        "" if ["csi", "nfs", "local"].iter().any(|source| spec[source].is_object()) => {
            none("no deletable volume plugin matched")
        }
        "" => none("no volume plugin matched"),
        path if path.strip_prefix(DELETABLE_PATHS).is_some_and(|rest| !rest.is_empty()) => Deleter::Here,
        path => Deleter::None(format!("host_path deleter only supports /tmp/.+ but received provided {path}")),
    }
}

/// The volume that a claim gets: one that was set aside for it, else the smallest that is enough, with as few access modes
/// beyond what it asks for as can be had.
pub(crate) fn best_match<'a>(
    claim: &Value,
    volumes: impl Iterator<Item = &'a Value>,
    waits: bool,
) -> Option<&'a Value> {
    let modes = meta::items_at(claim, &["spec", "accessModes"]);
    let offered = |volume: &Value| meta::items_at(volume, &["spec", "accessModes"]).to_vec();
    let enough = |volume: &&Value| {
        let offered = offered(volume);
        modes.iter().all(|mode| offered.contains(mode))
            && size(volume) >= request(claim)
            && mode(&volume["spec"]) == mode(&claim["spec"])
            && attributes(volume) == attributes(claim)
            && !meta::is_deleting(volume)
    };
    let all: Vec<&Value> = volumes.filter(enough).collect();
    let count = |volume: &Value| {
        let mut modes: Vec<String> = offered(volume).iter().map(Value::to_string).collect();
        modes.sort();
        modes.dedup();
        (modes.len(), modes)
    };
    let selector = match &claim["spec"]["selector"] {
        Value::Null => None,
        terms => Some(LabelSelector::of_object(terms)?),
    };
    let fits = |volume: &&&Value| {
        !waits
            && !volume["spec"]["claimRef"].is_object()
            && volume["status"]["phase"] == "Available"
            && selector.as_ref().is_none_or(|selector| selector.matches(|key| meta::entry(volume, "labels", key)))
            && class_of(volume) == class_of(claim)
    };
    let set_aside = |volume: &&&Value| is_of(volume, claim);
    let mut groups: Vec<_> = all.iter().map(|volume| count(volume)).collect();
    groups.sort();
    groups.dedup();
    groups.into_iter().find_map(|group| {
        let mut of_group = all.iter().filter(|volume| count(volume) == group);
        let smallest = of_group.clone().filter(fits).min_by(|a, b| compare(&size(a), &size(b)));
        of_group.find(set_aside).or(smallest).copied()
    })
}

fn compare(a: &Quantity, b: &Quantity) -> Ordering {
    a.partial_cmp(b).unwrap_or(Ordering::Equal)
}

/// Why a volume that a claim names is not what it asks for.
fn mismatch(volume: &Value, claim: &Value) -> Option<String> {
    let offered = meta::items_at(volume, &["spec", "accessModes"]);
    let modes = meta::items_at(claim, &["spec", "accessModes"]);
    match () {
        () if meta::is_deleting(volume) => Some(format!("the volume is marked for deletion {:?}", meta::name(volume))),
        () if size(volume) < request(claim) => Some("requested PV is too small".into()),
        () if class_of(volume) != class_of(claim) => Some("storageClassName does not match".into()),
        () if attributes(volume) != attributes(claim) => Some("volumeAttributesClassName does not match".into()),
        () if mode(&volume["spec"]) != mode(&claim["spec"]) => Some("incompatible volumeMode".into()),
        () if !modes.iter().all(|mode| offered.contains(mode)) => Some("incompatible accessMode".into()),
        () => None,
    }
}

/// The volume's reference names the claim, of whatever time.
fn names(volume: &Value, claim: &Value) -> bool {
    let own = &volume["spec"]["claimRef"];
    own["name"] == meta::name(claim) && own["namespace"] == meta::namespace(claim)
}

/// The volume is the claim's, or was set aside for one of its name.
fn is_of(volume: &Value, claim: &Value) -> bool {
    let uid = meta::text_at(volume, &["spec", "claimRef", "uid"]);
    names(volume, claim) && (uid.is_empty() || uid == meta::uid(claim))
}

fn waits_for_pod(claim: &Value, seen: &Seen) -> bool {
    seen.class(class_of(claim)).is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer")
}

fn waiting_pods<'a>(claim: &'a Value, seen: &Seen<'a>) -> Vec<&'a str> {
    let uses = |pod: &&Value| claims_of(pod).any(|name| name == meta::name(claim));
    seen.0[WAITING_PODS].of_namespace(meta::namespace(claim)).filter(uses).map(meta::name).collect()
}

fn names_class(claim: &Value) -> bool {
    claim["spec"]["storageClassName"].is_string() || has(claim, OLD_CLASS)
}

pub(crate) fn class_of(object: &Value) -> &str {
    match meta::entry(object, "annotations", OLD_CLASS) {
        Some(class) => class,
        None => meta::text_at(object, &["spec", "storageClassName"]),
    }
}

/// The newest of the default classes.
fn default_class<'a>(seen: &Seen<'a>) -> Option<&'a str> {
    let is_default =
        |class: &&Value| DEFAULT_CLASS.iter().any(|key| meta::entry(class, "annotations", key) == Some("true"));
    let made = |class: &Value| meta::text(class, "creationTimestamp").to_string();
    let all = seen.0[ALL_CLASSES].iter().filter(is_default);
    all.max_by(|a, b| made(a).cmp(&made(b)).then(meta::name(b).cmp(meta::name(a)))).map(meta::name)
}

fn attributes(object: &Value) -> &str {
    meta::text_at(object, &["spec", "volumeAttributesClassName"])
}

fn mode(spec: &Value) -> &str {
    spec["volumeMode"].as_str().unwrap_or("Filesystem")
}

fn size(volume: &Value) -> Quantity {
    amount(&volume["spec"]["capacity"]["storage"])
}

fn request(claim: &Value) -> Quantity {
    amount(&claim["spec"]["resources"]["requests"]["storage"])
}

fn amount(value: &Value) -> Quantity {
    Quantity::parse(value.as_str().unwrap_or_default()).unwrap_or(Quantity::ZERO)
}

fn has(object: &Value, annotation: &str) -> bool {
    meta::entry(object, "annotations", annotation).is_some()
}

fn remove(object: &mut Value, at: &str, field: &str) {
    if let Some(fields) = object.pointer_mut(at).and_then(Value::as_object_mut) {
        fields.shift_remove(field);
    }
}

fn pending(claim: &Value, told: Option<Action>) -> Vec<Action> {
    status_of_claim(claim, "Pending", None).into_iter().chain(told).collect()
}

/// The status of a claim with its volume; nothing where it has that already.
fn status_of_claim(claim: &Value, phase: &str, volume: Option<&Value>) -> Vec<Action> {
    let mut new = claim.clone();
    let moved = claim["status"]["phase"] != phase;
    new["status"]["phase"] = json!(phase);
    match volume {
        None => {
            remove(&mut new, "/status", "accessModes");
            remove(&mut new, "/status", "capacity");
        }
        Some(volume) => {
            new["status"]["accessModes"] = volume["spec"]["accessModes"].clone();
            // Later they may differ: a file system need not fill its device.
            if moved {
                new["status"]["capacity"] = volume["spec"]["capacity"].clone();
                if let Value::String(class) = &volume["spec"]["volumeAttributesClassName"] {
                    new["status"]["currentVolumeAttributesClassName"] = json!(class);
                }
            }
        }
    }
    match new == *claim {
        true => Vec::new(),
        false => vec![Action::ReplaceStatus { resource: PERSISTENT_VOLUME_CLAIMS, object: new }],
    }
}

fn phase(volume: &Value, phase: &str) -> Vec<Action> {
    phase_with(volume, phase, "")
}

fn phase_with(volume: &Value, phase: &str, message: &str) -> Vec<Action> {
    if volume["status"]["phase"] == phase {
        return Vec::new();
    }
    let mut new = volume.clone();
    new["status"]["phase"] = json!(phase);
    match message {
        "" => remove(&mut new, "/status", "message"),
        message => new["status"]["message"] = json!(message),
    }
    vec![Action::ReplaceStatus { resource: PERSISTENT_VOLUMES, object: new }]
}

fn warning(claim: &Value, reason: &'static str, message: String) -> Action {
    tell(claim, "Warning", reason, message)
}

fn tell(claim: &Value, kind: &'static str, reason: &'static str, message: String) -> Action {
    let (namespace, name, uid) = (meta::namespace(claim), meta::name(claim), meta::uid(claim));
    let about = event::reference("v1", "PersistentVolumeClaim", namespace, name, uid);
    Action::Tell { component: COMPONENT, about, kind, reason, message }
}

fn tell_of_volume(volume: &Value, reason: &'static str, message: String) -> Action {
    let about = event::reference("v1", "PersistentVolume", "", meta::name(volume), meta::uid(volume));
    Action::Tell { component: COMPONENT, about, kind: "Warning", reason, message }
}
