//! Puts pods that have no node on the first node that takes them: ready, not cordoned, with the labels the pod selects and
//! no taint it does not tolerate. Weighs nothing; a pod that no node takes stays Pending.

use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::{NODES, PODS};
use crate::mirror::{Key, Mirror};

pub const NAME: &str = "default-scheduler";

pub struct Scheduler;

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::fields(PODS, "spec.nodeName=,spec.schedulerName=default-scheduler"), Source::all(NODES)]
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let key = |pod: &Value| (meta::namespace(pod).to_string(), meta::name(pod).to_string());
        match source {
            0 => vec![key(object)],
            _ => seen[0].iter().map(key).collect(),
        }
    }

    fn decide(&self, (namespace, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some(pod) = seen[0].get(namespace, name).filter(|pod| wants_node(pod)) else { return Vec::new() };
        match seen[1].iter().find(|node| takes(node, pod)) {
            Some(node) => vec![Action::Bind { pod: about(pod), node: meta::name(node).to_string() }],
            None => Vec::new(),
        }
    }
}

fn wants_node(pod: &Value) -> bool {
    let finished = matches!(meta::text_at(pod, &["status", "phase"]), "Succeeded" | "Failed");
    meta::text_at(pod, &["spec", "nodeName"]).is_empty()
        && meta::text_at(pod, &["spec", "schedulerName"]) == NAME
        && meta::items_at(pod, &["spec", "schedulingGates"]).is_empty()
        && !meta::is_deleting(pod)
        && !finished
}

fn takes(node: &Value, pod: &Value) -> bool {
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let selected = |(key, value): (&String, &Value)| meta::entry(node, "labels", key) == value.as_str();
    let tolerations = meta::items_at(pod, &["spec", "tolerations"]);
    let kept_away = |taint: &Value| {
        matches!(taint["effect"].as_str(), Some("NoSchedule" | "NoExecute"))
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    meta::items_at(node, &["status", "conditions"]).iter().any(ready)
        && node["spec"]["unschedulable"] != true
        && pod["spec"]["nodeSelector"].as_object().into_iter().flatten().all(selected)
        && !meta::items_at(node, &["spec", "taints"]).iter().any(kept_away)
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_string();
    let (effect, key) = (text(toleration, "effect"), text(toleration, "key"));
    let exists = text(toleration, "operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "effect"))
        && (key.is_empty() && exists || key == text(taint, "key"))
        && (exists || text(toleration, "value") == text(taint, "value"))
}

/// What a binding and its Event need to know of a pod.
fn about(pod: &Value) -> Value {
    json!({"metadata": {
        "name": meta::name(pod), "namespace": meta::namespace(pod), "uid": meta::uid(pod),
        "resourceVersion": meta::resource_version(pod),
    }})
}
