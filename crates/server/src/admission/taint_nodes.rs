//! TaintNodesByCondition: nothing is put on a new node before it says that it is ready.

use api::{Status, meta};
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is("", "nodes") || !request.subresource.is_empty() {
            return Ok(());
        }
        let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
        let mut taints = meta::items_at(object, &["spec", "taints"]).to_vec();
        if !taints.iter().any(|given| given["key"] == taint["key"] && given["effect"] == taint["effect"]) {
            taints.push(taint);
            object["spec"]["taints"] = json!(taints);
        }
        Ok(())
    }
}
