//! Puts pods that have no node on one that takes them: alive and ready, with the labels and names the pod asks for, without
//! taints that it does not tolerate, with room for one more and the ports of the host that it asks for, within reach of the volumes
//! that the pod claims; of several the one with the fewest pods. A claim that waits for its pod gets its volume here, then the volume
//! binder goes on. Does not count processor and memory.
//! A node is alive when somebody keeps a lease for it, as every kubelet does: one that was only written into the API would
//! never run a pod. A cluster without a living node is somebody else's to schedule.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use api::meta;
use api::selector::selects_node;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::{LEASES, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES};
use crate::lean::Lent;
use crate::mirror::{self, Key, Mirror};
use crate::node_taints;
use crate::storage_protection::claims_of;
use crate::volume_binder;

pub const NAME: &str = "default-scheduler";

/// Pods that are put on nodes at once.
const TASKS_MAX: usize = 4;

/// Why a node does not do until one of its pods goes: it has as many as it takes, or one that has the same port of the host.
const FULL: &str = "Too many pods";
const TAKEN: &str = "node(s) didn't have free ports for the requested pod ports";

/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

#[derive(Default)]
pub struct Scheduler {
    /// Pods that were sent to a node and are not seen there yet, so that the next ones know of them: all that a decision leaves behind
    /// it. No more than there are pods that wait.
    sent: Mutex<BTreeMap<Key, Value>>,
}

/// The sources.
const WAITING: usize = 0;
const ALL_NODES: usize = 1;
const PLACED: usize = 2;
const LEASED: usize = 3;
const CLAIMS: usize = 4;
const VOLUMES: usize = 5;
const CLASSES: usize = 6;
const LEASE_NAMESPACE: &str = "kube-node-lease";

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn tasks_max(&self) -> usize {
        TASKS_MAX
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::all(PODS).lean(|pod| wants_node(pod).then(|| lean(pod))),
            Source::all(NODES).lean(node_taints::lean),
            Source::all(PODS).lean(|pod| {
                let node = meta::text_at(pod, &["spec", "nodeName"]);
                let counts = !node.is_empty() && !is_over(pod);
                let spec = || Lent::object([("nodeName", Lent::Text(node))]).with(lean_ports(pod));
                counts.then(|| Lent::object([("spec", spec())]))
            }),
            Source::fields(LEASES, &format!("metadata.namespace={LEASE_NAMESPACE}"))
                .lean(|lease| Some(Lent::object([("metadata", Lent::metadata(lease, &["name", "namespace"]))]))),
            Source::all(PERSISTENT_VOLUME_CLAIMS),
            Source::all(PERSISTENT_VOLUMES),
            Source::all(STORAGE_CLASSES),
        ]
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        match source {
            WAITING => vec![mirror::key_of(object)],
            ALL_NODES | LEASED => seen[WAITING].keys().cloned().collect(),
            CLAIMS | VOLUMES | CLASSES => {
                let claiming = seen[WAITING].iter().filter(|pod| claims_of(pod).next().is_some());
                claiming.map(mirror::key_of).collect()
            }
            PLACED if seen[PLACED].get(meta::namespace(object), meta::name(object)).is_none() => freed(object, seen),
            _ => Vec::new(),
        }
    }

    fn decide(&self, key: &Key, seen: &[Mirror]) -> Vec<Action> {
        let (namespace, name) = key;
        let is_alive = |node: &&Value| seen[LEASED].get(LEASE_NAMESPACE, meta::name(node)).is_some();
        let nodes: Vec<&Value> = seen[ALL_NODES].iter().filter(is_alive).collect();
        // Where there is no node, no pod has to be looked at.
        let pod = (!nodes.is_empty()).then(|| seen[WAITING].get(namespace, name)).flatten();
        let Some(pod) = pod else { return Vec::new() };
        let all = nodes.len();
        let leave = |reasons: &str| {
            let message = format!("0/{all} nodes are available: {reasons}.");
            match told(pod) == Some(&*message) {
                true => Vec::new(),
                false => vec![Action::Unschedulable { pod: about(pod), message }],
            }
        };
        let claimed = match Claimed::of(pod, seen) {
            Ok(claimed) => claimed,
            Err(why) => return leave(&why),
        };
        let mut against: BTreeMap<String, usize> = BTreeMap::new();
        let mut takers = Vec::new();
        // Whoever panicked with it left it whole.
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_on_its_way = |at: &Key| {
            at != key && seen[PLACED].get(&at.0, &at.1).is_none() && seen[WAITING].get(&at.0, &at.1).is_some()
        };
        sent.retain(|at, _| is_on_its_way(at));
        let placed: Vec<&Value> = seen[PLACED].iter().chain(sent.values()).collect();
        let counts = counts(&placed);
        for node in &nodes {
            let place = || no_place(node, pod, &counts, &placed).or_else(|| claimed.refusal(node));
            match refusal(node, pod).or_else(|| place().map(str::to_string)) {
                None => takers.push(meta::name(node)),
                Some(why) => *against.entry(why).or_default() += 1,
            }
        }
        let Some(chosen) = takers.iter().copied().min_by_key(|node| counts.get(node).copied().unwrap_or_default())
        else {
            let mut reasons: Vec<String> = against.iter().map(|(why, count)| format!("{count} {why}")).collect();
            reasons.sort();
            return leave(&reasons.join(", "));
        };
        let node = nodes.iter().find(|node| meta::name(node) == chosen);
        match node.filter(|_| !claimed.waiting.is_empty()) {
            // What is bound then brings the pod here again.
            Some(node) => claimed.bind_at(node),
            None => {
                let chosen = chosen.to_string();
                let spec = json!({"nodeName": chosen, HOST_PORTS: pod["spec"][HOST_PORTS]});
                drop((counts, placed));
                sent.insert(key.clone(), json!({"spec": spec}));
                vec![Action::Bind { pod: about(pod), node: chosen }]
            }
        }
    }
}

/// What a pod's claims ask of its node.
struct Claimed<'a> {
    /// The volumes that they have.
    volumes: Vec<&'a Value>,
    /// Those that have none until their pod has a node.
    waiting: Vec<Waiting<'a>>,
}

/// A claim without a volume, and those that it could get.
struct Waiting<'a> {
    claim: &'a Value,
    all: &'a Mirror,
    /// Somebody makes volumes for its class.
    provisioned: bool,
}

impl<'a> Claimed<'a> {
    /// Why no node can take the pod yet, in the scheduler's own words, if it is so.
    fn of(pod: &Value, seen: &'a [Mirror]) -> Result<Claimed<'a>, String> {
        let mut claimed = Claimed { volumes: Vec::new(), waiting: Vec::new() };
        for name in claims_of(pod) {
            let Some(claim) = seen[CLAIMS].get(meta::namespace(pod), &name) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if meta::is_deleting(claim) {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            let volume = meta::text_at(claim, &["spec", "volumeName"]);
            if volume_binder::is_bound(claim) {
                let volume = seen[VOLUMES].get("", volume).ok_or_else(|| {
                    "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_string()
                })?;
                claimed.volumes.push(volume);
                continue;
            }
            let class = seen[CLASSES].get("", volume_binder::class_of(claim));
            match class.filter(|class| class["volumeBindingMode"] == "WaitForFirstConsumer" && volume.is_empty()) {
                Some(class) => claimed.waiting.push(Waiting {
                    claim,
                    all: &seen[VOLUMES],
                    provisioned: class["provisioner"] != NO_PROVISIONER,
                }),
                None => return Err("pod has unbound immediate PersistentVolumeClaims".to_string()),
            }
        }
        Ok(claimed)
    }

    /// Why a node does not do, in the scheduler's own words.
    fn refusal(&self, node: &Value) -> Option<&'static str> {
        if !self.volumes.iter().all(|volume| is_within_reach(volume, node)) {
            return Some("node(s) didn't match PersistentVolume's node affinity");
        }
        let found = self.waiting.iter().all(|waiting| waiting.provisioned || waiting.volume_at(node).is_some());
        (!found).then_some("node(s) didn't find available persistent volumes to bind")
    }

    /// What is to be done before the pod can go to a node; nothing where it is others' turn.
    fn bind_at(&self, node: &Value) -> Vec<Action> {
        let steps = self.waiting.iter().filter_map(|waiting| match waiting.volume_at(node) {
            Some(volume) => volume_binder::set_aside(volume, waiting.claim),
            None => volume_binder::ask_for_volume(waiting.claim, meta::name(node)),
        });
        // Two claims of one pod would choose the same volume.
        steps.take(1).collect()
    }
}

impl<'a> Waiting<'a> {
    fn volume_at(&self, node: &Value) -> Option<&'a Value> {
        let near = self.all.iter().filter(|volume| is_within_reach(volume, node));
        volume_binder::best_match(self.claim, near, false)
    }
}

fn is_within_reach(volume: &Value, node: &Value) -> bool {
    let required = &volume["spec"]["nodeAffinity"]["required"];
    !required.is_object() || selects_node(required, node)
}

fn wants_node(pod: &Value) -> bool {
    meta::text_at(pod, &["spec", "nodeName"]).is_empty()
        && meta::text_at(pod, &["spec", "schedulerName"]) == NAME
        && meta::items_at(pod, &["spec", "schedulingGates"]).is_empty()
        && !meta::is_deleting(pod)
        && !is_over(pod)
}

fn is_over(pod: &Value) -> bool {
    matches!(meta::text_at(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// What is read of a pod that waits.
fn lean(pod: &Value) -> Lent<'_> {
    let spec: &[&str] = match claims_of(pod).next() {
        Some(_) => &["affinity", "nodeSelector", "tolerations", "topologySpreadConstraints", "volumes"],
        None => &["affinity", "nodeSelector", "tolerations", "topologySpreadConstraints"],
    };
    let scheduled = meta::items_at(pod, &["status", "conditions"]).iter().filter(|c| c["type"] == "PodScheduled");
    Lent::object([
        ("metadata", Lent::metadata(pod, &["name", "namespace", "uid", "generation"])),
        ("spec", Lent::fields(&pod["spec"], spec).with(lean_ports(pod))),
        ("status", Lent::object([("conditions", Lent::List(scheduled.map(Lent::Part).collect()))])),
    ])
}

/// Why a node does not take a pod, in the scheduler's own words.
fn refusal(node: &Value, pod: &Value) -> Option<String> {
    let affinity = &pod["spec"]["affinity"];
    for kind in ["podAffinity", "podAntiAffinity"] {
        if !meta::items_at(affinity, &[kind, "requiredDuringSchedulingIgnoredDuringExecution"]).is_empty() {
            return Some(format!("node(s) whose pods would have to be compared, and {kind} is not supported yet"));
        }
    }
    let spreads = meta::items_at(pod, &["spec", "topologySpreadConstraints"]);
    if spreads.iter().any(|spread| spread["whenUnsatisfiable"] == "DoNotSchedule") {
        return Some(
            "node(s) whose pods would have to be compared, and topologySpreadConstraints are not supported yet".into(),
        );
    }
    let tolerations = meta::items_at(pod, &["spec", "tolerations"]);
    let tolerated = |taint: &Value| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    if node["spec"]["unschedulable"] == true
        && !tolerated(&json!({"key": node_taints::CORDONED, "effect": "NoSchedule"}))
    {
        return Some("node(s) were unschedulable".into());
    }
    let keeps_away = |taint: &&Value| matches!(taint["effect"].as_str(), Some("NoSchedule" | "NoExecute"));
    let mut taints = meta::items_at(node, &["spec", "taints"]).iter().filter(keeps_away);
    if taints.any(|taint| !tolerated(taint)) {
        return Some("node(s) had untolerated taint(s)".into());
    }
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    if !meta::items_at(node, &["status", "conditions"]).iter().any(ready) {
        return Some("node(s) were not ready".into());
    }
    let labelled = |(key, value): (&String, &Value)| meta::entry(node, "labels", key) == value.as_str();
    let selected = pod["spec"]["nodeSelector"].as_object().into_iter().flatten().all(labelled);
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    if !selected || required.is_object() && !selects_node(required, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    None
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_string();
    let (effect, key) = (text(toleration, "effect"), text(toleration, "key"));
    let exists = text(toleration, "operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "effect"))
        && (key.is_empty() && exists || key == text(taint, "key"))
        && (exists || text(toleration, "value") == text(taint, "value"))
}

/// How many pods each node has.
fn counts<'a>(placed: &[&'a Value]) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    for pod in placed {
        *counts.entry(meta::text_at(pod, &["spec", "nodeName"])).or_default() += 1;
    }
    counts
}

/// Why the pods of a node leave no place for another, in the scheduler's own words.
fn no_place(node: &Value, pod: &Value, counts: &BTreeMap<&str, u64>, placed: &[&Value]) -> Option<&'static str> {
    let name = meta::name(node);
    let most = meta::text_at(node, &["status", "allocatable", "pods"]).parse().unwrap_or(u64::MAX);
    let wanted = meta::items_at(pod, &["spec", HOST_PORTS]);
    let has_one = |other: &&Value| {
        let has = meta::items_at(other, &["spec", HOST_PORTS]);
        meta::text_at(other, &["spec", "nodeName"]) == name
            && has.iter().any(|port| wanted.iter().any(|wanted| are_one(port, wanted)))
    };
    // The ports come first, as upstream.
    match !wanted.is_empty() && placed.iter().any(has_one) {
        true => Some(TAKEN),
        false => (counts.get(name).copied().unwrap_or_default() >= most).then_some(FULL),
    }
}

/// Under this name a pod's ports of the host are held.
const HOST_PORTS: &str = "hostPorts";

/// The ports of the host that a pod's containers have, sidecars among them; nothing where there are none, as in most pods.
fn lean_ports(pod: &Value) -> Option<(&'static str, Lent<'_>)> {
    let sidecars = meta::items_at(pod, &["spec", "initContainers"]).iter().filter(|it| it["restartPolicy"] == "Always");
    let containers = meta::items_at(pod, &["spec", "containers"]).iter().chain(sidecars);
    let ports = containers.flat_map(|container| meta::items_at(container, &["ports"]));
    let ports: Vec<Lent> = ports.filter(|port| port["hostPort"].as_u64().unwrap_or(0) != 0).map(Lent::Part).collect();
    (!ports.is_empty()).then_some((HOST_PORTS, Lent::List(ports)))
}

/// Whether two ports of the host are the same one; no address means all of them.
fn are_one(port: &Value, other: &Value) -> bool {
    let any = |ip: &str| matches!(ip, "" | "0.0.0.0");
    let [ip, other_ip] = [port, other].map(|port| meta::text_at(port, &["hostIP"]));
    port["hostPort"] == other["hostPort"]
        && port["protocol"] == other["protocol"]
        && (any(ip) || any(other_ip) || ip == other_ip)
}

/// The pods that waited for a place on the node of a pod that has gone: as many as are put on nodes at once, since each that goes on
/// brings the next here.
fn freed(gone: &Value, seen: &[Mirror]) -> Vec<Key> {
    let Some(node) = seen[ALL_NODES].get("", meta::text_at(gone, &["spec", "nodeName"])) else { return Vec::new() };
    let waits = |pod: &&Value| {
        told(pod).is_some_and(|why| why.contains(FULL) || why.contains(TAKEN)) && refusal(node, pod).is_none()
    };
    seen[WAITING].iter().filter(waits).take(TASKS_MAX).map(mirror::key_of).collect()
}

/// Why a pod has no node, as it was told last.
fn told(pod: &Value) -> Option<&str> {
    let conditions = meta::items_at(pod, &["status", "conditions"]).iter();
    let mut told = conditions.filter(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    told.next()?["message"].as_str()
}

/// What a binding and its Event need to know of a pod.
fn about(pod: &Value) -> Value {
    json!({"metadata": {
        "name": meta::name(pod), "namespace": meta::namespace(pod), "uid": meta::uid(pod),
        "generation": pod["metadata"]["generation"],
    }})
}
