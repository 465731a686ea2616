//! Subresources: parts of an object (`status`, ..), and the table of those that are code of their own.

use std::sync::Mutex;

use api::options::{FieldValidation, Preconditions};
use api::status::GroupResource;
use api::{DeleteOptions, Status, WriteOptions, go, meta};
use kinds::Subresource;
use serde_json::{Value, json};

use super::body::{self, Wanted};
use super::delete::{Gone, delete_object};
use super::write::{Part, Typed, change_object, own_fields, place, written};
use super::{At, connect, patch, proxy, read, scale};
use crate::admission::{self, pod_topology_labels};
use crate::respond::{self, Answer};
use crate::serve::{Cx, RequestBody};
use crate::token_request;

/// Answers a request for a subresource whose path and method exist.
pub async fn answer(cx: &Cx<'_>, at: &At<'_>, body: RequestBody, warnings: &mut Vec<String>) -> Result<Answer, Status> {
    let Some(sub) = at.kind.subresource(&at.target.subresource) else { return Err(Status::no_such_path()) };
    match (&*at.kind.plural, &*sub.name) {
        ("pods", "binding") => bind(cx, at, sub, body, warnings).await,
        ("pods", "eviction") => evict(cx, at, sub, body, warnings).await,
        ("pods", "log") => connect::log(cx, at).await,
        ("pods", "exec" | "attach" | "portforward") => connect::connect(cx, at).await,
        ("pods" | "services" | "nodes", "proxy") => proxy::answer(cx, at, body).await,
        ("serviceaccounts", "token") => token(cx, at, sub, body, warnings).await,
        ("namespaces", "finalize") => finalize(cx, at, body, warnings).await,
        ("certificatesigningrequests", "approval") => part(cx, at, Part::Other("approval"), body, warnings).await,
        ("pods", "ephemeralcontainers" | "resize") => {
            let name = if &*sub.name == "resize" { "resize" } else { "ephemeralcontainers" };
            part(cx, at, Part::Other(name), body, warnings).await
        }
        (_, "status") => part(cx, at, Part::Status, body, warnings).await,
        (_, "scale") => scale::answer(cx, at, sub, body, warnings).await,
        (plural, name) => Err(Status::not_implemented(format!("the subresource {plural}/{name}"))),
    }
}

/// GET, PUT and PATCH of a part of an object.
async fn part(
    cx: &Cx<'_>,
    at: &At<'_>,
    part: Part<'_>,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    match cx.ask.method.as_ref() {
        "GET" => read::get(cx, at).await,
        "PATCH" => patch::patch_part(cx, at, part, body, warnings).await,
        _ => {
            at.check_name()?;
            let options = WriteOptions::update(&cx.ask.query)?;
            let bytes = body::read(body).await?;
            let registry = cx.state.registry.load();
            let wanted = Wanted::object_of(&registry, at.kind);
            let encoding = body::encoding(cx.headers)?;
            let object = body::object(wanted, &bytes, encoding, options.field_validation, warnings)?;
            at.note(cx, &object);
            let object = place(at, object, Some(&at.target.name))?;
            let stored = change_object(cx, at, part, &options, warnings, true, |_| Ok(object.clone())).await?;
            written(cx, at.kind, respond::OK, stored)
        }
    }
}

/// The body of a subresource that has a kind of its own.
pub async fn own_body(
    cx: &Cx<'_>,
    at: &At<'_>,
    sub: &Subresource,
    body: RequestBody,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let bytes = body::read(body).await?;
    let registry = cx.state.registry.load();
    let (group, version) = own_version(at, sub);
    let wanted = Wanted { registry: &registry, kind: at.kind, group, version, kind_name: &sub.kind, root: sub.root };
    let mut object = body::object(wanted, &bytes, body::encoding(cx.headers)?, validation, warnings)?;
    if &*sub.name == "token" {
        token_request::default(&mut object);
    }
    cx.audit.object(&object, |object| object);
    Ok(object)
}

/// What is asked of a subresource and not kept is looked at by the one plugin that has something to say of it.
async fn restrict_node(cx: &Cx<'_>, at: &At<'_>, sub: &Subresource, asked: &Value) -> Result<(), Status> {
    let told = Mutex::default();
    let request = admission::Request::new(cx, at, admission::Operation::Create, &told);
    let request = admission::Request { subresource: &sub.name, ..request };
    cx.hearing.settle(|| admission::node_restriction::check(&request, Some(asked))).await
}

/// The group and version of a subresource's body.
fn own_version<'a>(at: &At<'a>, sub: &'a Subresource) -> (&'a str, &'a str) {
    match &*sub.version {
        "" => (&at.kind.group, &at.kind.version),
        version => (&sub.group, version),
    }
}

/// POST of a Binding to `bindings`: the same as to the pod it names.
pub async fn bind_by_name(cx: &Cx<'_>, at: &At<'_>, binding: &Value, options: &WriteOptions) -> Result<Answer, Status> {
    let name = meta::name(binding).to_string();
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    assign(cx, at, &name, binding, options).await
}

async fn bind(
    cx: &Cx<'_>,
    at: &At<'_>,
    sub: &Subresource,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    let options = WriteOptions::create(&cx.ask.query)?;
    let binding = own_body(cx, at, sub, body, options.field_validation, warnings).await?;
    if meta::name(&binding) != at.target.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let binding = super::write::place(at, binding, None)?;
    assign(cx, at, &at.target.name, &binding, &options).await
}

async fn assign(
    cx: &Cx<'_>,
    at: &At<'_>,
    name: &str,
    binding: &Value,
    options: &WriteOptions,
) -> Result<Answer, Status> {
    let Some(pods) = cx.state.registry.load().kind("", "v1", "pods").cloned() else {
        return Err(Status::no_such_path());
    };
    let target = api::Target { resource: "pods".into(), name: name.to_string(), ..at.target.clone() };
    let at = At { kind: &pods, target: &target };
    let mut wrong = Vec::new();
    let kind = meta::text_at(binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        wrong.push(format!(
            r#"target.kind: Unsupported value: {}: supported values: "Node", "<empty>""#,
            go::quote(kind)
        ));
    }
    let node = meta::text_at(binding, &["target", "name"]).to_string();
    if node.is_empty() {
        wrong.push("target.name: Required value".to_string());
    }
    if !wrong.is_empty() {
        let text = if wrong.len() == 1 { wrong.remove(0) } else { format!("[{}]", wrong.join(", ")) };
        return Err(Status::unexplained(text));
    }
    let conflict =
        |why: String| Status::conflict(GroupResource { group: "", resource: "pods/binding" }, &target.name, why);
    let change = |pod: &Value| {
        if meta::is_deleting(pod) {
            return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        match meta::text_at(pod, &["spec", "nodeName"]) {
            "" => {}
            other => return Err(conflict(format!("pod {name} is already assigned to node {}", go::quote(other)))),
        }
        if !meta::items_at(pod, &["spec", "schedulingGates"]).is_empty() {
            return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = json!(node);
        for (label, value) in pod_topology_labels::of_node(cx.state.as_ref(), &node) {
            pod["metadata"]["labels"][label] = value;
        }
        for map in ["annotations", "labels"] {
            for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
                pod["metadata"][map][key] = value.clone();
            }
        }
        set_condition(
            &mut pod,
            json!({
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": null,
                "lastTransitionTime": super::write::timestamp(cx.now),
            }),
        );
        Ok(pod)
    };
    change_object(cx, &at, Part::Other("binding"), options, &mut Vec::new(), false, change).await?;
    Ok(success())
}

fn set_condition(pod: &mut Value, condition: Value) {
    let status = &mut pod["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    if let Some(conditions) = status["conditions"].as_array_mut() {
        match conditions.iter_mut().find(|c| c["type"] == condition["type"]) {
            Some(old) => *old = condition,
            None => conditions.push(condition),
        }
    }
}

fn success() -> Answer {
    let (kind, code) = ("Status", respond::CREATED);
    Answer::created(json!({"kind": kind, "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}))
}

async fn evict(
    cx: &Cx<'_>,
    at: &At<'_>,
    sub: &Subresource,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    let options = WriteOptions::create(&cx.ask.query)?;
    let eviction = own_body(cx, at, sub, body, options.field_validation, warnings).await?;
    if meta::name(&eviction) != at.target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let eviction = super::write::place(at, eviction, None)?;
    restrict_node(cx, at, sub, &eviction).await?;
    let pod = cx.state.collection(at.kind)?.get(&at.key()).ok_or_else(|| at.not_found())?.value();
    let mut delete = DeleteOptions::from_body(&eviction["deleteOptions"])?;
    delete.dry_run |= options.dry_run;
    let over = matches!(meta::text_at(&pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending");
    if !over && !meta::is_deleting(&pod) && disrupt(cx, at, &pod, delete.dry_run).await? == Guard::Unhealthy {
        // It goes as it is now, which is unhealthy.
        let version = meta::resource_version(&pod).to_string();
        delete.preconditions.resource_version.get_or_insert(version);
    }
    if delete.preconditions == Preconditions::default() {
        delete.preconditions.uid = Some(meta::uid(&pod).to_string());
    }
    if !delete.dry_run {
        super::write::check_preconditions(at, &pod, &delete.preconditions)?;
        let marked = mark_evicted(cx, at).await?;
        if delete.preconditions.resource_version.is_some() {
            delete.preconditions.resource_version = Some(meta::resource_version(&marked).to_string());
        }
    }
    let (Gone::Now(_) | Gone::Later(_)) = delete_object(cx, at, &delete).await?;
    Ok(success())
}

/// Tells in the conditions of a pod why it is going to be deleted.
async fn mark_evicted(cx: &Cx<'_>, at: &At<'_>) -> Result<Value, Status> {
    const TYPE: &str = "DisruptionTarget";
    let change = |pod: &Value| {
        let mut pod = pod.clone();
        let mut conditions = meta::items_at(&pod, &["status", "conditions"]).to_vec();
        let old = conditions.iter().position(|condition| condition["type"] == TYPE);
        let since = match old.map(|at| conditions.remove(at)) {
            Some(old) if old["status"] == "True" => old["lastTransitionTime"].clone(),
            _ => json!(super::write::timestamp(cx.now)),
        };
        conditions.push(json!({
            "type": TYPE, "status": "True", "lastProbeTime": null, "lastTransitionTime": since,
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }));
        pod["status"]["conditions"] = json!(conditions);
        Ok(pod)
    };
    let part = Part::Other("eviction");
    let stored = change_object(cx, at, part, &WriteOptions::default(), &mut Vec::new(), false, change).await?;
    Ok(stored.into_object())
}

/// What a budget has to do with an eviction.
#[derive(Debug, PartialEq, Eq)]
enum Guard {
    /// None covers the pod, or one disruption was taken out of it.
    Passed,
    /// The pod is not among the healthy ones that the budget counts.
    Unhealthy,
}

/// Evicted pods that a budget waits for at most.
const DISRUPTED_PODS_MAX: usize = 2000;

/// Takes one disruption out of the budget that covers a pod, if there is one.
async fn disrupt(cx: &Cx<'_>, at: &At<'_>, pod: &Value, dry_run: bool) -> Result<Guard, Status> {
    let budgets = cx.state.list("policy", "poddisruptionbudgets");
    let covering: Vec<Value> = budgets
        .into_iter()
        .filter(|budget| meta::namespace(budget) == at.namespace() && selects(&budget["spec"]["selector"], pod))
        .collect();
    let budget = match covering.as_slice() {
        [] => return Ok(Guard::Passed),
        [budget] => budget,
        _ => {
            let text =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::unexplained(text));
        }
    };
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    if !meta::items_at(pod, &["status", "conditions"]).iter().any(ready) {
        let status = &budget["status"];
        let count = |field: &str| status[field].as_i64().unwrap_or(0);
        let satisfied = count("desiredHealthy") > 0 && count("currentHealthy") >= count("desiredHealthy");
        if satisfied || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
            return Ok(Guard::Unhealthy);
        }
    }
    may_disrupt(budget)?;
    if dry_run {
        return Ok(Guard::Passed);
    }
    let Some(kind) = cx.state.registry.load().preferred("policy", "poddisruptionbudgets").cloned() else {
        return Ok(Guard::Passed);
    };
    let target = api::Target {
        group: "policy".into(),
        version: kind.version.to_string(),
        resource: kind.plural.to_string(),
        namespace: at.namespace().into(),
        name: meta::name(budget).into(),
        ..api::Target::default()
    };
    let now = super::write::timestamp(cx.now);
    let change = |budget: &Value| {
        // Another may have taken the last one meanwhile.
        may_disrupt(budget)?;
        let mut budget = budget.clone();
        let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) - 1;
        budget["status"]["disruptionsAllowed"] = json!(allowed);
        if allowed == 0 {
            for condition in budget["status"]["conditions"].as_array_mut().into_iter().flatten() {
                if condition["type"] == "DisruptionAllowed" && condition["status"] == "True" {
                    condition["status"] = json!("False");
                    condition["reason"] = json!("InsufficientPods");
                    condition["lastTransitionTime"] = json!(now);
                }
            }
        }
        budget["status"]["disruptedPods"][meta::name(pod)] = json!(now);
        Ok(budget)
    };
    let at = At { kind: &kind, target: &target };
    change_object(cx, &at, Part::Status, &WriteOptions::default(), &mut Vec::new(), false, change).await?;
    Ok(Guard::Passed)
}

/// Whether a budget has a disruption left.
fn may_disrupt(budget: &Value) -> Result<(), Status> {
    let (status, name) = (&budget["status"], meta::name(budget));
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let refused = |message: String| {
        let cause = api::Cause { reason: "DisruptionBudget".into(), message, ..api::Cause::default() };
        Status::disrupted("Cannot evict pod as it would violate the pod's disruption budget.", cause)
    };
    let forbidden = |why: &str| {
        let of = api::status::GroupResource { group: "policy", resource: "poddisruptionbudget" };
        Err(Status::forbidden(of, name, why))
    };
    if count("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        const RETRY_SECONDS: u32 = 10;
        let mut status = refused(format!("The disruption budget {name} is still being processed by the server."));
        if let Some(details) = &mut status.details {
            details.retry_after_seconds = RETRY_SECONDS;
        }
        return Err(status);
    }
    match count("disruptionsAllowed") {
        ..0 => forbidden("pdb disruptions allowed is negative"),
        _ if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) => {
            forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller")
        }
        0 => Err(refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("desiredHealthy"),
            count("currentHealthy")
        ))),
        _ => Ok(()),
    }
}

/// Whether a `LabelSelector` object selects an object.
fn selects(selector: &Value, object: &Value) -> bool {
    let label = |key: &str| meta::entry(object, "labels", key);
    let mut exact = selector["matchLabels"].as_object().into_iter().flatten();
    let mut listed = selector["matchExpressions"].as_array().into_iter().flatten();
    exact.all(|(key, value)| label(key) == value.as_str())
        && listed.all(|term| {
            let key = term["key"].as_str().unwrap_or_default();
            let within = term["values"].as_array().is_some_and(|all| all.iter().any(|v| v.as_str() == label(key)));
            match term["operator"].as_str() {
                Some("In") => label(key).is_some() && within,
                Some("NotIn") => !within,
                Some("Exists") => label(key).is_some(),
                Some("DoesNotExist") => label(key).is_none(),
                _ => false,
            }
        })
}

async fn token(
    cx: &Cx<'_>,
    at: &At<'_>,
    sub: &Subresource,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    let options = WriteOptions::create(&cx.ask.query)?;
    let mut request = own_body(cx, at, sub, body, options.field_validation, warnings).await?;
    let (group, version) = own_version(at, sub);
    let typed = Typed { group, version, kind: &sub.kind, root: sub.root, has_status: true, ..Typed::of(at.kind) };
    own_fields(cx, typed, &sub.name, None, &mut request, &options);
    restrict_node(cx, at, sub, &request).await?;
    let issued = token_request::answer(cx, at.namespace(), &at.target.name, request, warnings)?;
    Ok(Answer::created(issued))
}

/// PUT of a namespace without the finalizers that are done: the last one takes the namespace along.
async fn finalize(cx: &Cx<'_>, at: &At<'_>, body: RequestBody, warnings: &mut Vec<String>) -> Result<Answer, Status> {
    let options = WriteOptions::update(&cx.ask.query)?;
    let bytes = body::read(body).await?;
    let registry = cx.state.registry.load();
    let wanted = Wanted::object_of(&registry, at.kind);
    let object = body::object(wanted, &bytes, body::encoding(cx.headers)?, options.field_validation, warnings)?;
    at.note(cx, &object);
    let object = place(at, object, Some(&at.target.name))?;
    let change = |old: &Value| {
        let mut new = old.clone();
        new["spec"]["finalizers"] = object["spec"]["finalizers"].clone();
        if new["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            new["spec"] = json!({});
        }
        // The client's revision counts, as with every PUT.
        let version = object["metadata"]["resourceVersion"].clone();
        if version.is_string() {
            new["metadata"]["resourceVersion"] = version;
        }
        Ok(new)
    };
    let stored = change_object(cx, at, Part::Other("finalize"), &options, warnings, false, change).await?;
    written(cx, at.kind, respond::OK, stored)
}
