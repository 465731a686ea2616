//! LimitRanger: containers get the requests and limits of their namespace where they say none, and nothing goes beyond its
//! bounds.

use std::collections::BTreeMap;

use api::{Status, meta};
use kinds::builtin::resources;
use kinds::quantity::Quantity;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger;

type Amounts = BTreeMap<String, Quantity>;

impl Plugin for LimitRanger {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        if sizes_pod(request) {
            ranges(request).iter().for_each(|range| set_defaults(range, object));
        }
        Ok(())
    }

    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object.filter(|object| !meta::is_deleting(object)) else { return Ok(()) };
        let check = match () {
            () if sizes_pod(request) => check_pod,
            () if request.is("", "persistentvolumeclaims") && request.subresource.is_empty() => check_claim,
            () => return Ok(()),
        };
        for range in ranges(request) {
            let mut wrong = Vec::new();
            meta::items_at(&range, &["spec", "limits"]).iter().for_each(|limit| check(limit, object, &mut wrong));
            wrong.dedup();
            match wrong.as_slice() {
                [] => {}
                [only] => return Err(request.forbidden(only)),
                all => return Err(request.forbidden(format!("[{}]", all.join(", ")))),
            }
        }
        Ok(())
    }
}

/// A new pod, or one that is to have other resources.
fn sizes_pod(request: &Request) -> bool {
    let how = (request.operation, request.subresource);
    request.is("", "pods") && matches!(how, (Operation::Create, "") | (Operation::Update, "resize"))
}

fn ranges(request: &Request) -> Vec<Value> {
    request.state.list_in("", "limitranges", request.namespace)
}

/// Fills in what containers do not say, and writes down what that was.
fn set_defaults(range: &Value, pod: &mut Value) {
    let containers = meta::items_at(range, &["spec", "limits"]).iter().filter(|limit| limit["type"] == "Container");
    let mut defaults = [("requests", "request", Vec::new()), ("limits", "limit", Vec::new())];
    for limit in containers {
        for ((.., values), from) in defaults.iter_mut().zip(["defaultRequest", "default"]) {
            values.extend(limit[from].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        }
    }
    let mut set = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = meta::text_at(container, &["name"]).to_string();
            for (field, word, values) in &defaults {
                let missing = |name: &str| meta::at(container, &["resources", field, name]).is_none();
                let mut names: Vec<&str> =
                    values.iter().map(|(name, _)| &**name).filter(|name| missing(name)).collect();
                names.sort_unstable();
                names.dedup();
                if names.is_empty() {
                    continue;
                }
                set.push(format!("{} {word} for {what} {name}", names.join(", ")));
                let names: Vec<String> = names.into_iter().map(str::to_string).collect();
                for (name, value) in values.iter().filter(|(name, _)| names.contains(name)) {
                    container["resources"][field][name] = value.clone();
                }
            }
        }
    }
    if !set.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = json!(format!("LimitRanger plugin set: {}", set.join("; ")));
    }
}

fn check_pod(limit: &Value, pod: &Value, wrong: &mut Vec<String>) {
    match limit["type"].as_str() {
        Some("Container") => {
            for list in ["containers", "initContainers"] {
                for container in meta::items_at(pod, &["spec", list]) {
                    let resources = &container["resources"];
                    check(limit, &amounts(&resources["requests"]), &amounts(&resources["limits"]), wrong);
                }
            }
        }
        Some("Pod") => {
            // What the pod says for all of its containers counts instead of their sum.
            let total = |list: &str| {
                let mut total = resources::total(&pod["spec"], list);
                total.extend(amounts(&pod["spec"]["resources"][list]));
                total
            };
            check(limit, &total("requests"), &total("limits"), wrong);
        }
        _ => {}
    }
}

fn check_claim(limit: &Value, claim: &Value, wrong: &mut Vec<String>) {
    if limit["type"] != "PersistentVolumeClaim" {
        return;
    }
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    for (name, least) in amounts(&limit["min"]) {
        wrong.extend(below(limit, &name, least, &requests, &Amounts::new()));
    }
    for (name, most) in amounts(&limit["max"]) {
        let what = format!("maximum {name} usage per PersistentVolumeClaim is {most}");
        match requests.get(&name) {
            None => wrong.push(format!("{what}.  No request is specified")),
            Some(asked) if *asked > most => wrong.push(format!("{what}, but request is {asked}")),
            Some(_) => {}
        }
    }
}

fn check(limit: &Value, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    let of = meta::text_at(limit, &["type"]);
    for (name, least) in amounts(&limit["min"]) {
        wrong.extend(below(limit, &name, least, requests, limits));
    }
    for (name, most) in amounts(&limit["max"]) {
        let what = format!("maximum {name} usage per {of} is {most}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => wrong.push(format!("{what}.  No limit is specified")),
            (_, Some(given)) if *given > most => wrong.push(format!("{what}, but limit is {given}")),
            (Some(asked), _) if *asked > most => wrong.push(format!("{what}, but request is {asked}")),
            _ => {}
        }
    }
    for (name, most) in amounts(&limit["maxLimitRequestRatio"]) {
        let what = format!("{name} max limit to request ratio per {of} is {most}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => wrong.push(format!("{what}, but no request is specified or request is 0")),
            (Some(asked), _) if asked.is_zero() => {
                wrong.push(format!("{what}, but no request is specified or request is 0"));
            }
            (_, None) => wrong.push(format!("{what}, but no limit is specified or limit is 0")),
            (Some(asked), Some(given)) => {
                #[expect(clippy::cast_precision_loss, reason = "a ratio is shown with six digits")]
                let ratio = given.milli_value() as f64 / asked.milli_value() as f64;
                #[expect(clippy::cast_precision_loss, reason = "a ratio is shown with six digits")]
                if ratio > most.milli_value() as f64 / 1000.0 {
                    wrong.push(format!("{what}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

fn below(limit: &Value, name: &str, least: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let what = format!("minimum {name} usage per {} is {least}", meta::text_at(limit, &["type"]));
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{what}.  No request is specified")),
        (Some(asked), _) if *asked < least => Some(format!("{what}, but request is {asked}")),
        (_, Some(given)) if *given < least => Some(format!("{what}, but limit is {given}")),
        _ => None,
    }
}

fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?))).collect()
}
