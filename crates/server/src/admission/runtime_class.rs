//! RuntimeClass: a pod takes over the overhead, node selector and tolerations of its runtime class.

use api::{Status, go, meta};
use serde_json::{Map, Value, json};

use super::{Operation, Plugin, Request};
use crate::lookup::Lookup;

pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        let Some(class) = class_of(request, object)? else { return Ok(()) };
        set_overhead(request, class.as_deref(), object)?;
        match class {
            Some(class) => set_scheduling(request, &class["scheduling"], object),
            None => Ok(()),
        }
    }

    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let Some(class) = class_of(request, object)? else { return Ok(()) };
        let fixed = class.as_ref().map(|class| &class["overhead"]["podFixed"]).filter(|fixed| fixed.is_object());
        let given = meta::at(object, &["spec", "overhead"]).filter(|given| given.is_object());
        match (fixed, given) {
            (None, Some(_)) => {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(request.forbidden(why))
            }
            _ => Ok(()),
        }
    }
}

/// The class of a new pod, or that it names none; nothing where the write is about something else.
fn class_of(request: &Request, pod: &Value) -> Result<Option<Option<std::sync::Arc<Value>>>, Status> {
    if request.operation != Operation::Create || !request.is("", "pods") || !request.subresource.is_empty() {
        return Ok(None);
    }
    let Some(name) = meta::at(pod, &["spec", "runtimeClassName"]).and_then(Value::as_str) else {
        return Ok(Some(None));
    };
    match request.state.get("node.k8s.io", "runtimeclasses", "", name) {
        Some(class) => Ok(Some(Some(class))),
        None => Err(request.forbidden(format!("pod rejected: RuntimeClass {} not found", go::quote(name)))),
    }
}

fn set_overhead(request: &Request, class: Option<&Value>, pod: &mut Value) -> Result<(), Status> {
    let Some(fixed) = class.map(|class| &class["overhead"]["podFixed"]).filter(|fixed| fixed.is_object()) else {
        return Ok(());
    };
    match meta::at(pod, &["spec", "overhead"]).filter(|given| given.is_object()) {
        Some(given) if given != fixed => {
            Err(request.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
        }
        _ => {
            pod["spec"]["overhead"] = fixed.clone();
            Ok(())
        }
    }
}

fn set_scheduling(request: &Request, scheduling: &Value, pod: &mut Value) -> Result<(), Status> {
    let empty = Map::new();
    let wanted = scheduling["nodeSelector"].as_object().unwrap_or(&empty);
    if !wanted.is_empty() {
        let mut selector =
            meta::at(pod, &["spec", "nodeSelector"]).and_then(Value::as_object).cloned().unwrap_or_default();
        for (key, value) in wanted {
            let value = value.as_str().unwrap_or_default();
            match selector.get(key).and_then(Value::as_str) {
                Some(given) if given != value => {
                    return Err(request.forbidden(format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
                    )));
                }
                _ => drop(selector.insert(key.clone(), json!(value))),
            }
        }
        pod["spec"]["nodeSelector"] = Value::Object(selector);
    }
    let mut tolerations = meta::items_at(pod, &["spec", "tolerations"]).to_vec();
    let more = meta::items_at(scheduling, &["tolerations"]).iter().filter(|one| !tolerations.contains(one));
    let more: Vec<Value> = more.cloned().collect();
    if !more.is_empty() {
        tolerations.extend(more);
        pod["spec"]["tolerations"] = json!(tolerations);
    }
    Ok(())
}
