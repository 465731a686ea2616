//! Puts pods that have no node on one that takes them: alive and ready, with the labels and names the pod asks for, without
//! taints that it does not tolerate; of several the one with the fewest pods. Does not count processor and memory.
//! A node is alive when somebody keeps a lease for it, as every kubelet does: one that was only written into the API would
//! never run a pod. A cluster without a living node is somebody else's to schedule.

use std::collections::BTreeMap;

use api::meta;
use api::selector::{LabelSelector, Requirement};
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::{LEASES, NODES, PODS};
use crate::lean::Lent;
use crate::mirror::{self, Key, Mirror};
use crate::node_taints;

pub const NAME: &str = "default-scheduler";

/// Pods that are put on nodes at once: few, since each should see where the others went.
const TASKS_MAX: usize = 4;

pub struct Scheduler;

/// The sources.
const WAITING: usize = 0;
const ALL_NODES: usize = 1;
const PLACED: usize = 2;
const LEASED: usize = 3;
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
                counts.then(|| Lent::object([("spec", Lent::object([("nodeName", Lent::Text(node))]))]))
            }),
            Source::fields(LEASES, &format!("metadata.namespace={LEASE_NAMESPACE}"))
                .lean(|lease| Some(Lent::object([("metadata", Lent::metadata(lease, &["name", "namespace"]))]))),
        ]
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        match source {
            WAITING => vec![mirror::key_of(object)],
            ALL_NODES | LEASED => seen[WAITING].keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn decide(&self, (namespace, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let is_alive = |node: &&Value| seen[LEASED].get(LEASE_NAMESPACE, meta::name(node)).is_some();
        let nodes: Vec<&Value> = seen[ALL_NODES].iter().filter(is_alive).collect();
        // Where there is no node, no pod has to be looked at.
        let pod = (!nodes.is_empty()).then(|| seen[WAITING].get(namespace, name)).flatten();
        let Some(pod) = pod else { return Vec::new() };
        let mut against: BTreeMap<String, usize> = BTreeMap::new();
        let mut takers = Vec::new();
        for node in nodes {
            match refusal(node, pod) {
                None => takers.push(meta::name(node)),
                Some(why) => *against.entry(why).or_default() += 1,
            }
        }
        if let Some(node) = emptiest(&takers, &seen[PLACED]) {
            return vec![Action::Bind { pod: about(pod), node: node.to_string() }];
        }
        let all: usize = against.values().sum();
        let mut reasons: Vec<String> = against.iter().map(|(why, count)| format!("{count} {why}")).collect();
        reasons.sort();
        let message = format!("0/{all} nodes are available: {}.", reasons.join(", "));
        match is_told(pod, &message) {
            true => Vec::new(),
            false => vec![Action::Unschedulable { pod: about(pod), message }],
        }
    }
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
    let spec = ["affinity", "nodeSelector", "tolerations", "topologySpreadConstraints"];
    let scheduled = meta::items_at(pod, &["status", "conditions"]).iter().filter(|c| c["type"] == "PodScheduled");
    Lent::object([
        ("metadata", Lent::metadata(pod, &["name", "namespace", "uid", "generation"])),
        ("spec", Lent::fields(&pod["spec"], &spec)),
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
    if let Some(taint) = taints.find(|taint| !tolerated(taint)) {
        let (key, value) = (meta::text_at(taint, &["key"]), meta::text_at(taint, &["value"]));
        return Some(format!("node(s) had untolerated taint {{{key}: {value}}}"));
    }
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    if !meta::items_at(node, &["status", "conditions"]).iter().any(ready) {
        return Some("node(s) were not ready".into());
    }
    let labelled = |(key, value): (&String, &Value)| meta::entry(node, "labels", key) == value.as_str();
    let selected = pod["spec"]["nodeSelector"].as_object().into_iter().flatten().all(labelled);
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = meta::items_at(required, &["nodeSelectorTerms"]);
    if !selected || required.is_object() && !terms.iter().any(|term| term_matches(term, node)) {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    None
}

/// Whether a node is what one term asks for: its labels, its name. A term that asks for nothing matches nothing.
fn term_matches(term: &Value, node: &Value) -> bool {
    let (labels, fields) = (meta::items_at(term, &["matchExpressions"]), meta::items_at(term, &["matchFields"]));
    (!labels.is_empty() || !fields.is_empty())
        && hold(labels, |key| meta::entry(node, "labels", key))
        && hold(fields, |key| (key == "metadata.name").then(|| meta::name(node)))
}

fn hold<'a>(terms: &[Value], get: impl Fn(&str) -> Option<&'a str>) -> bool {
    let wanted: Option<Vec<_>> = terms.iter().map(Requirement::of_object).collect();
    wanted.is_some_and(|wanted| LabelSelector(wanted).matches(get))
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_string();
    let (effect, key) = (text(toleration, "effect"), text(toleration, "key"));
    let exists = text(toleration, "operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "effect"))
        && (key.is_empty() && exists || key == text(taint, "key"))
        && (exists || text(toleration, "value") == text(taint, "value"))
}

/// The node with the fewest pods, the first of several. Pods are counted only where there is a choice.
fn emptiest<'a>(nodes: &[&'a str], placed: &Mirror) -> Option<&'a str> {
    if nodes.len() < 2 {
        return nodes.first().copied();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in placed.iter() {
        *counts.entry(meta::text_at(pod, &["spec", "nodeName"])).or_default() += 1;
    }
    nodes.iter().copied().min_by_key(|node| counts.get(node).copied().unwrap_or_default())
}

fn is_told(pod: &Value, message: &str) -> bool {
    meta::items_at(pod, &["status", "conditions"]).iter().any(|condition| {
        condition["type"] == "PodScheduled" && condition["status"] == "False" && condition["message"] == message
    })
}

/// What a binding and its Event need to know of a pod.
fn about(pod: &Value) -> Value {
    json!({"metadata": {
        "name": meta::name(pod), "namespace": meta::namespace(pod), "uid": meta::uid(pod),
        "generation": pod["metadata"]["generation"],
    }})
}
