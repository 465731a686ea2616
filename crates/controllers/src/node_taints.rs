//! What a node says of itself, and that it is cordoned, become taints that keep new pods away, and go with their cause. Taints
//! that others set stay.

use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::NODES;
use crate::lean::Lent;
use crate::mirror::{Key, Mirror};

/// Condition, the status of it that matters, the taint's key.
const CAUSES: [(&str, &str, &str); 6] = [
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
pub const CORDONED: &str = "node.kubernetes.io/unschedulable";

pub struct NodeTaints;

impl Controller for NodeTaints {
    fn name(&self) -> &'static str {
        "node taints"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(NODES).lean(lean)]
    }

    fn keys(&self, _: usize, object: &Dynamic, _: &[Mirror]) -> Vec<Key> {
        vec![(String::new(), meta::name(object).to_string())]
    }

    fn decide(&self, (_, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some(node) = seen[0].get("", name) else { return Vec::new() };
        let wanted = wanted(node);
        let there = meta::items_at(node, &["spec", "taints"]);
        let is_ours = |taint: &Value| {
            let key = meta::text_at(taint, &["key"]);
            taint["effect"] == "NoSchedule" && (key == CORDONED || CAUSES.iter().any(|(_, _, ours)| *ours == key))
        };
        let stays = |taint: &&Value| !is_ours(taint) || wanted.iter().any(|key| taint["key"] == *key);
        let keep: Vec<Value> = there.iter().filter(stays).cloned().collect();
        let has = |key: &str| keep.iter().any(|taint| is_ours(taint) && taint["key"] == key);
        let add: Vec<Value> = wanted.into_iter().filter(|key| !has(key)).map(taint).collect();
        if add.is_empty() && keep.len() == there.len() {
            return Vec::new();
        }
        let resource_version = meta::resource_version(node).to_string();
        vec![Action::Taint { node: name.clone(), resource_version, keep, add }]
    }
}

fn wanted(node: &Value) -> Vec<&'static str> {
    let conditions = meta::items_at(node, &["status", "conditions"]);
    let causes = conditions.iter().filter_map(|condition| {
        let cause =
            CAUSES.iter().find(|(kind, status, _)| condition["type"] == *kind && condition["status"] == *status);
        cause.map(|(_, _, key)| *key)
    });
    causes.chain((node["spec"]["unschedulable"] == true).then_some(CORDONED)).collect()
}

fn taint(key: &str) -> Value {
    json!({"key": key, "effect": "NoSchedule"})
}

/// Nodes tell long lists of images and numbers, which nobody here reads.
pub fn lean(node: &Value) -> Option<Lent<'_>> {
    Some(Lent::object([
        ("metadata", Lent::Part(&node["metadata"])),
        ("spec", Lent::Part(&node["spec"])),
        ("status", Lent::fields(&node["status"], &["allocatable", "conditions"])),
    ]))
}
