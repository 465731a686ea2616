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
    let more = meta::items_at(scheduling, &["tolerations"]);
    if !more.is_empty() {
        let all = [meta::items_at(pod, &["spec", "tolerations"]), more].concat();
        pod["spec"]["tolerations"] = json!(without_covered(&all));
    }
    Ok(())
}

/// Without the tolerations that another one covers; of equal ones the first stays.
fn without_covered(all: &[Value]) -> Vec<&Value> {
    let mut kept: Vec<&Value> = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let later = all[at + 1..].iter().any(|other| one != other && covers(other, one));
        if !later && !kept.iter().any(|other| covers(other, one)) {
            kept.push(one);
        }
    }
    kept
}

/// Whatever `one` tolerates, `other` does.
fn covers(other: &Value, one: &Value) -> bool {
    fn said<'a>(toleration: &'a Value, field: &str) -> &'a str {
        meta::text_at(toleration, &[field])
    }
    if other == one {
        return true;
    }
    let exists = said(other, "operator") == "Exists";
    let keys = said(other, "key") == said(one, "key") || (said(other, "key").is_empty() && exists);
    let effects = said(other, "effect") == said(one, "effect") || said(other, "effect").is_empty();
    let shorter = said(other, "effect") == "NoExecute"
        && other["tolerationSeconds"]
            .as_i64()
            .is_some_and(|most| one["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > most));
    let values = match said(other, "operator") {
        "Exists" => true,
        "Equal" | "" => said(one, "operator") == "Equal" && said(one, "value") == said(other, "value"),
        _ => false,
    };
    keys && effects && !shorter && values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(all: Value, kept: &[usize]) {
        let all = all.as_array().expect("a list");
        let want: Vec<&Value> = kept.iter().map(|at| &all[*at]).collect();
        assert_eq!(without_covered(all), want);
    }

    #[test]
    fn a_toleration_that_another_covers_goes() {
        let (any, key) = (json!({"operator": "Exists"}), json!({"key": "a", "operator": "Exists"}));
        let equal = json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"});
        let bare = json!({"key": "a", "value": "b"});
        check(json!([equal, key]), &[1]);
        check(json!([any, equal, key]), &[0]);
        check(json!([equal, equal]), &[0]);
        // The operator left out is another one to Kubernetes than the one it stands for.
        check(json!([bare, {"key": "a", "operator": "Equal", "value": "c"}]), &[0, 1]);
        let (short, long) = (30, 300);
        let seconds = |seconds: i64| json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        check(json!([seconds(short), seconds(long)]), &[1]);
        check(json!([seconds(long), {"key": "a", "operator": "Exists", "effect": "NoExecute"}]), &[1]);
    }
}
