//! Priority and DefaultTolerationSeconds: what every pod gets from the cluster when its author said nothing.

use std::sync::Arc;

use api::{Status, meta};
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};
use crate::lookup::Lookup;

/// Gives a pod the number and preemption policy of its priority class.
pub struct Priority;

/// Lets a pod stay a while on a node that went away.
pub struct DefaultTolerationSeconds;

/// The classes that every cluster has.
const SYSTEM_CLASSES: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

/// How long, in seconds; the API server's default.
const TOLERATION_SECONDS: i64 = 300;

impl Plugin for Priority {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        if !is_pod(request) {
            return Ok(());
        }
        if let Some(old) = request.old {
            // A client need not know what was computed when the pod was made.
            for field in ["priority", "preemptionPolicy"] {
                if object["spec"][field].is_null() && !old["spec"][field].is_null() {
                    object["spec"][field] = old["spec"][field].clone();
                }
            }
            return Ok(());
        }
        let asked = meta::text_at(object, &["spec", "priorityClassName"]).to_string();
        let (value, policy, name) = match asked.as_str() {
            "" => match default_class(request) {
                Some(class) => of(&class),
                None => (0, "PreemptLowerPriority".to_string(), String::new()),
            },
            name => match request.state.get("scheduling.k8s.io", "priorityclasses", "", name) {
                Some(class) => of(&class),
                None => return Err(request.forbidden(format!("no PriorityClass with name {name} was found"))),
            },
        };
        let spec = &mut object["spec"];
        if spec["priority"].as_i64().is_some_and(|given| given != value) {
            let why = format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
                spec["priority"]
            );
            return Err(request.forbidden(why));
        }
        if !name.is_empty() {
            spec["priorityClassName"] = json!(name);
        }
        spec["priority"] = json!(value);
        match spec["preemptionPolicy"].as_str() {
            None => spec["preemptionPolicy"] = json!(policy),
            Some(given) if given != policy => {
                let why = format!(
                    "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
                );
                return Err(request.forbidden(why));
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        let goes = request.operation == Operation::Delete && request.is("scheduling.k8s.io", "priorityclasses");
        if goes && SYSTEM_CLASSES.contains(&request.name) {
            return Err(request.forbidden("this is a system priority class and cannot be deleted"));
        }
        let is_default = |class: &Value| class["globalDefault"] == json!(true);
        let Some(object) = object.filter(|o| request.is("scheduling.k8s.io", "priorityclasses") && is_default(o))
        else {
            return Ok(());
        };
        match default_class(request) {
            Some(other) if request.operation == Operation::Create || meta::name(&other) != meta::name(object) => {
                let name = meta::name(&other);
                Err(request.forbidden(format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Plugin for DefaultTolerationSeconds {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        if !is_pod(request) {
            return Ok(());
        }
        let tolerations = meta::items_at(object, &["spec", "tolerations"]).to_vec();
        let mut wanted = tolerations.clone();
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let covers = |toleration: &Value| {
                let (of, effect) =
                    (toleration["key"].as_str().unwrap_or(""), toleration["effect"].as_str().unwrap_or(""));
                (of.is_empty() || of == key) && (effect.is_empty() || effect == "NoExecute")
            };
            if !tolerations.iter().any(covers) {
                wanted.push(json!({
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": TOLERATION_SECONDS,
                }));
            }
        }
        if wanted.len() != tolerations.len() {
            object["spec"]["tolerations"] = Value::Array(wanted);
        }
        Ok(())
    }
}

/// A pod that is made or changed.
fn is_pod(request: &Request) -> bool {
    request.operation != Operation::Delete && request.is("", "pods") && request.subresource.is_empty()
}

fn default_class(request: &Request) -> Option<Arc<Value>> {
    let classes = request.state.list_shared("scheduling.k8s.io", "priorityclasses");
    let defaults = classes.into_iter().filter(|class| class["globalDefault"] == json!(true));
    defaults.min_by_key(|class| class["value"].as_i64())
}

fn of(class: &Value) -> (i64, String, String) {
    let policy = class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority");
    (class["value"].as_i64().unwrap_or(0), policy.to_string(), meta::name(class).to_string())
}
