//! PodTopologyLabels: a pod that is on a node says in its labels in which zone and region that is.

use api::{Status, meta};
use serde_json::{Map, Value};

use super::{Operation, Plugin, Request};
use crate::lookup::Lookup;

/// The labels of a node that its pods get too.
const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// For pods that are created on a node; a binding takes [`of_node`] for the pod it puts there.
pub struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        let new = request.operation == Operation::Create && request.is("", "pods") && request.subresource.is_empty();
        let node = meta::text_at(object, &["spec", "nodeName"]);
        if !new || node.is_empty() {
            return Ok(());
        }
        for (label, value) in of_node(request.state.as_ref(), node) {
            if meta::entry(object, "labels", &label).is_none() {
                object["metadata"]["labels"][label] = value;
            }
        }
        Ok(())
    }
}

/// Where a node is; nothing for a node that nobody knows, or that does not say.
pub fn of_node(cluster: &dyn Lookup, node: &str) -> Map<String, Value> {
    let Some(node) = cluster.get("", "nodes", "", node) else { return Map::new() };
    let said = LABELS.iter().filter_map(|label| Some((label, meta::entry(&node, "labels", label)?)));
    said.map(|(label, value)| (label.to_string(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lookup::Objects;

    #[test]
    fn of_its_labels_a_node_hands_on_where_it_is() {
        let mut cluster = Objects::default();
        let labels = json!({"topology.kubernetes.io/zone": "a", "kubernetes.io/os": "linux"});
        cluster.put("", "nodes", json!({"metadata": {"name": "one", "labels": labels}}));
        cluster.put("", "nodes", json!({"metadata": {"name": "two"}}));
        let check = |node: &str, want: Value| assert_eq!(Value::from(of_node(&cluster, node)), want, "{node}");
        check("one", json!({"topology.kubernetes.io/zone": "a"}));
        check("two", json!({}));
        check("none", json!({}));
    }
}
