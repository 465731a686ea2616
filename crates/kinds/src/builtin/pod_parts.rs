//! The parts of a pod that are written on their own: its ephemeral containers, and what its containers may use.

use serde_json::Value;

use super::check::{self, Causes};
use super::pod_row::is_sidecar;
use super::read::{Read, Write};
use super::{annotations, internal, pod_check, resources};
use crate::Cause;

const LISTS: [&str; 2] = ["spec.containers", "spec.initContainers"];

/// Everything but the part is as it was.
pub fn prepare(part: &str, new: &mut Value, old: &Value) {
    let spec = match part {
        "ephemeralcontainers" => {
            let mut spec = old.at("spec").clone();
            take(&mut spec, new.at("spec"), "ephemeralContainers");
            spec
        }
        "resize" => match resized(new, old) {
            Some(spec) => spec,
            // Containers came, went or moved, which the validation tells of.
            None => return,
        },
        _ => return,
    };
    let changed = spec != *old.at("spec");
    new.set("spec", spec);
    take(new, old, "status");
    let mut metadata = old.at("metadata").clone();
    for field in ["managedFields", "resourceVersion"] {
        take(&mut metadata, new.at("metadata"), field);
    }
    if changed {
        metadata.set("generation", old.int("metadata.generation") + 1);
    }
    new.set("metadata", metadata);
}

fn take(target: &mut Value, source: &Value, field: &str) {
    match source.at(field) {
        Value::Null => target.remove(field),
        value => target.set(field, value.clone()),
    }
}

/// The old spec with the new resources.
fn resized(new: &Value, old: &Value) -> Option<Value> {
    if !same_containers(new, old) {
        return None;
    }
    let mut spec = old.at("spec").clone();
    for list in ["containers", "initContainers"] {
        for (container, asked) in spec.list_mut(list).iter_mut().zip(new.at("spec").list(list)) {
            take(container, asked, "resources");
            take(container, asked, "resizePolicy");
        }
    }
    if new.has("spec.resources") {
        take(&mut spec, new.at("spec"), "resources");
    }
    take(&mut spec, new.at("spec"), "volumes");
    Some(spec)
}

/// By name and in order.
fn same_containers(new: &Value, old: &Value) -> bool {
    let names = |pod: &Value, list: &str| -> Vec<Value> {
        pod.list(list).iter().map(|container| container.at("name").clone()).collect()
    };
    LISTS.iter().all(|list| names(new, list) == names(old, list))
}

pub fn validate(part: &str, new: &Value, old: &Value) -> Vec<Cause> {
    let (check, refusal): (fn(&mut Causes, &Value, &Value), &str) = match part {
        "ephemeralcontainers" => (ephemeral_containers, "static pods do not support ephemeral containers"),
        "resize" => (resize, "static pods cannot be resized"),
        _ => return Vec::new(),
    };
    if !old.at("metadata.annotations").key(annotations::MIRROR).is_null() {
        return vec![Cause::forbidden("", refusal)];
    }
    let mut out = Vec::new();
    pod_check::pod(&mut out, new);
    check(&mut out, new, old);
    out
}

/// They come and never go.
fn ephemeral_containers(out: &mut Causes, new: &Value, old: &Value) {
    const LIST: &str = "spec.ephemeralContainers";
    for before in old.list(LIST) {
        let name = before.text("name");
        let quoted = crate::kind::go_quote(name);
        match new.list(LIST).iter().find(|after| after.text("name") == name) {
            None => {
                let detail = format!("existing ephemeral containers {quoted} may not be removed\n");
                out.push(Cause::forbidden(LIST, &detail));
            }
            Some(after) if after != before => {
                let diff = internal::diff("api.core.v1.EphemeralContainer", before, after);
                let detail = format!("existing ephemeral containers {quoted} may not be changed\n{diff}");
                out.push(Cause::forbidden(LIST, &detail));
            }
            Some(_) => {}
        }
    }
}

fn resize(out: &mut Causes, new: &Value, old: &Value) {
    const ONLY: &str = "only cpu and memory resources are mutable";
    let before = out.len();
    if old.text("spec.os.name") == "windows" {
        *out = vec![Cause::forbidden("", "windows pods cannot be resized")];
        return;
    }
    let class = match old.text("status.qosClass") {
        "" => resources::qos_class(old.at("spec")),
        class => class,
    };
    if class != resources::qos_class(new.at("spec")) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        out.push(Cause::invalid("spec", new.at("status.qosClass"), detail));
    }
    let running = old.list("status.containerStatuses").iter().find(|status| status.has("state.running"));
    if running.is_some_and(|status| !status.has("resources")) {
        out.push(Cause::forbidden("spec", "Pod running on node without support for resize"));
    }
    pod_level(out, new, old);
    let told = out.len();
    for list in LISTS {
        let what = if list == LISTS[0] { "containers" } else { "initContainers" };
        let (after, before) = (new.list(list), old.list(list));
        if after.len() != before.len() {
            out.push(Cause::forbidden(list, &format!("{what} may not be added or removed on resize")));
            continue;
        }
        for (at, _) in after.iter().zip(before).enumerate().filter(|(_, (a, b))| a.at("name") != b.at("name")) {
            let detail = format!("{what} may not be renamed or reordered on resize");
            out.push(Cause::forbidden(format!("{list}[{at}].name"), &detail));
        }
    }
    if out.len() > told {
        return;
    }
    for list in [LISTS[1], LISTS[0]] {
        for (at, (after, before)) in new.list(list).iter().zip(old.list(list)).enumerate() {
            for field in ["requests", "limits"] {
                let [kept, had] = [after, before].map(|container| container.at("resources").at(field));
                if had.entries().iter().any(|(name, _)| kept.key(name).is_null()) {
                    let detail = format!("resource {field} cannot be removed");
                    out.push(Cause::forbidden(format!("{list}[{at}].resources.{field}"), &detail));
                }
            }
        }
    }
    for list in LISTS {
        for (at, (after, before)) in new.list(list).iter().zip(old.list(list)).enumerate() {
            let same = without_sizes(after) == without_sizes(before);
            if list == LISTS[0] {
                out.extend((!same).then(|| Cause::forbidden("spec", ONLY)));
                continue;
            }
            let path = format!("{list}[{at}]");
            if !same {
                let detail = "only cpu and memory resources for init or sidecar containers are mutable";
                out.push(Cause::forbidden(&path, detail));
            }
            if after != before && !is_sidecar(after) {
                let restarts = |policy: &&Value| policy.text("restartPolicy") == "RestartContainer";
                for _ in after.list("resizePolicy").iter().filter(restarts) {
                    let detail =
                        "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                    out.push(Cause::forbidden(&path, detail));
                }
            }
        }
    }
    volumes(out, new.list("spec.volumes"), old.list("spec.volumes"));
    let rest = |pod: &Value| {
        let mut spec = pod.at("spec").clone();
        for field in ["containers", "initContainers", "volumes", "resources"] {
            spec.remove(field);
        }
        spec
    };
    if out.len() == before && rest(new) != rest(old) {
        out.push(Cause::forbidden("spec", ONLY));
    }
}

/// What the pod itself asks for may get more or less, never none.
fn pod_level(out: &mut Causes, new: &Value, old: &Value) {
    let [after, before] = [new, old].map(|pod| pod.at("spec.resources"));
    let given = |resources: &Value| ["requests", "limits"].iter().any(|field| !resources.at(field).is_nothing());
    if !given(after) && !given(before) {
        return;
    }
    if after.is_null() {
        return out.push(Cause::forbidden("spec.resources", "pod-level resources cannot be removed"));
    }
    for field in ["requests", "limits"] {
        if before.at(field).entries().iter().any(|(name, _)| after.at(field).key(name).is_null()) {
            let detail = format!("pod-level resource {field} cannot be removed");
            out.push(Cause::forbidden(format!("spec.resources.{field}"), &detail));
        }
    }
    let rest = |resources: &Value| without_sizes(&serde_json::json!({"resources": resources}));
    if rest(after) != rest(before) {
        out.push(Cause::forbidden("spec", "only cpu and memory resources are mutable at pod-level"));
    }
}

fn without_sizes(container: &Value) -> Value {
    let mut container = container.clone();
    for field in ["resources.requests", "resources.limits"] {
        if let Some(list) = container.at_mut(field).and_then(Value::as_object_mut) {
            list.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
        }
        if container.at(field).is_nothing() {
            container.remove(field);
        }
    }
    if container.at("resources").is_nothing() {
        container.remove("resources");
    }
    container
}

/// A volume in memory may get another size.
fn volumes(out: &mut Causes, after: &[Value], before: &[Value]) {
    const LIMIT: &str = "emptyDir.sizeLimit";
    if after.len() != before.len() {
        return out.push(Cause::forbidden("spec.volumes", "volumes may not be added or removed on resize"));
    }
    for (at, (after, before)) in after.iter().zip(before).enumerate() {
        let path = format!("spec.volumes[{at}]");
        if after.at("name") != before.at("name") {
            let detail = "volumes may not be renamed or reordered on resize";
            out.push(Cause::forbidden(format!("{path}.name"), detail));
            continue;
        }
        let rest = |volume: &Value| {
            let mut volume = volume.clone();
            volume.remove(LIMIT);
            volume
        };
        if rest(after) != rest(before) {
            let detail = "only sizeLimit of memory-backed emptyDir volumes is mutable on resize";
            out.push(Cause::forbidden(path, detail));
            continue;
        }
        let [now, was] = [after, before].map(|volume| check::quantity(volume.at(LIMIT)));
        let detail = if now.is_zero() != was.is_zero() {
            "adding or removing sizeLimit on an existing volume is not allowed"
        } else if now != was && after.text("emptyDir.medium") != "Memory" {
            "sizeLimit is only mutable for memory-backed emptyDir volumes"
        } else {
            continue;
        };
        out.push(Cause::forbidden(format!("{path}.{LIMIT}"), detail));
    }
}
