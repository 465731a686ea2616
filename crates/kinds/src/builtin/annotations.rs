//! Annotations of pods that Kubernetes itself reads: what was said there before there was a field for it. Knows no clock
//! and no other kind.

use std::fmt::{self, Arguments, Display};

use serde_json::{Value, json};

use super::check::{self, Causes};
use super::read::{Read, Write};
use crate::Cause;

pub const MIRROR: &str = "kubernetes.io/config.mirror";
pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const LOCAL: &str = "localhost/";

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A container's path below the spec.
#[derive(Clone, Copy)]
pub struct At {
    list: &'static str,
    nth: usize,
}

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let At { list, nth } = self;
        write!(f, "{list}[{nth}]")
    }
}

/// The containers of a spec of every sort, in upstream's order, each with its path below the spec.
pub fn containers(spec: &Value) -> impl Iterator<Item = (At, &Value)> {
    LISTS.into_iter().flat_map(move |list| {
        spec.list(list).iter().enumerate().map(move |(nth, container)| (At { list, nth }, container))
    })
}

/// What an annotation says whose key is this and the name of a container.
pub fn of_container<'a>(all: &'a Value, prefix: &str, name: &str) -> &'a Value {
    let mut entries = all.as_object().into_iter().flatten();
    let found = entries.find(|(key, _)| key.strip_prefix(prefix).is_some_and(|rest| rest == name));
    found.map_or(&Value::Null, |(_, value)| value)
}

/// `ValidatePodSpecificAnnotations`; `of` is a pod or a template.
pub fn pod(out: &mut Causes, of: &Value, path: &str) {
    let (all, spec) = (of.at("metadata.annotations"), of.at("spec"));
    if let Some(mirror) = all.key(MIRROR).as_str().filter(|_| spec.text("nodeName").is_empty()) {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        out.push(Cause::invalid(format!("{path}[{MIRROR}]"), &mirror.into(), detail));
    }
    if let Some(cost) = all.key(DELETION_COST).as_str().filter(|cost| !is_cost(cost)) {
        out.push(Cause::invalid(format!("{path}[{DELETION_COST}]"), &cost.into(), "must be a 32bit integer"));
    }
    if let Some(profile) = all.key(SECCOMP_POD).as_str() {
        seccomp(out, profile, &format!("{path}.{SECCOMP_POD}"));
    }
    for (key, profile) in all.entries().into_iter().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        seccomp(out, profile.as_str().unwrap_or_default(), &format!("{path}.{key}"));
    }
    for (key, profile) in all.entries() {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        if !containers(spec).any(|(_, container)| container.text("name") == name) {
            out.push(Cause::invalid(format!("{path}[{key}]"), &name.into(), "container not found"));
        }
        let text = profile.as_str().unwrap_or_default();
        if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with(LOCAL) {
            let detail = format!("invalid AppArmor profile name: {}", crate::kind::go_quote(text));
            out.push(Cause::invalid(format!("{path}[{key}]"), profile, &detail));
        }
    }
}

/// No sign before and no zero in front, as the controllers read it.
fn is_cost(text: &str) -> bool {
    let starts = |c: char| c == '-' || ('1'..='9').contains(&c);
    (text == "0" || text.starts_with(starts)) && text.parse::<i32>().is_ok()
}

fn seccomp(out: &mut Causes, profile: &str, path: &str) {
    match profile.strip_prefix(LOCAL) {
        _ if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        Some(local) => check::local_path(out, local, path),
        None => out.push(Cause::invalid(path, &profile.into(), "must be a valid seccomp profile")),
    }
}

/// What is said in an annotation and in a field is the same.
pub fn agree_with_fields(out: &mut Causes, of: &Value, path: &str) {
    let (all, spec) = (of.at("metadata.annotations"), of.at("spec"));
    let own = spec.at("securityContext.seccompProfile");
    agrees(out, all.key(SECCOMP_POD), own, format_args!("{path}.securityContext.seccompProfile"), "seccomp");
    for (at, container) in containers(spec) {
        let annotation = of_container(all, SECCOMP_CONTAINER, container.text("name"));
        let field = container.at("securityContext.seccompProfile");
        agrees(out, annotation, field, format_args!("{path}.{at}.securityContext.seccompProfile"), "seccomp");
    }
    if spec.text("os.name") == "windows" {
        return;
    }
    for (at, container) in containers(spec) {
        let annotation = of_container(all, APP_ARMOR, container.text("name"));
        let field = match container.at("securityContext.appArmorProfile") {
            Value::Null => spec.at("securityContext.appArmorProfile"),
            own => own,
        };
        agrees(out, annotation, field, format_args!("{path}.{at}.securityContext.appArmorProfile"), "apparmor");
    }
}

fn agrees(out: &mut Causes, annotation: &Value, field: &Value, path: Arguments<'_>, what: &str) {
    let (Some(said), false) = (annotation.as_str(), field.is_null()) else { return };
    let right = match field.text("type") {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => said == "runtime/default" || (what == "seccomp" && said == "docker/default"),
        "Localhost" => said.starts_with(LOCAL),
        _ => return,
    };
    if !right {
        let detail = format!("{what} type in annotation and field must match");
        out.push(Cause::forbidden(format!("{path}.type"), &detail));
    } else if field.text("type") == "Localhost" {
        let local = said.strip_prefix(LOCAL).unwrap_or_default();
        if field.at("localhostProfile").as_str() != Some(local) {
            let detail = format!("{what} profile in annotation and field must match");
            out.push(Cause::forbidden(format!("{path}.localhostProfile"), &detail));
        }
    }
}

/// Those that a running pod keeps as they are.
pub fn stay(out: &mut Causes, new: &Value, old: &Value) {
    let (after, before) = (new.at("metadata.annotations"), old.at("metadata.annotations"));
    let mut tell = |key: &str, app_armor: &str, mirror: &str| {
        let path = format!("metadata.annotations[{key}]");
        if key.starts_with(APP_ARMOR) {
            out.push(Cause::forbidden(&path, app_armor));
        }
        if key == MIRROR {
            out.push(Cause::forbidden(path, mirror));
        }
    };
    for (key, _) in before.entries().into_iter().filter(|(key, value)| after.key(key) != *value) {
        let mirror = "may not remove or update mirror pod annotation";
        tell(key, "may not remove or update AppArmor annotations", mirror);
    }
    for (key, _) in after.entries().into_iter().filter(|(key, _)| before.key(key).is_null()) {
        tell(key, "may not add AppArmor annotations", "may not add mirror pod annotation");
    }
}

/// AppArmor profiles that a new pod names in annotations only become fields.
pub fn to_fields(pod: &mut Value) {
    if pod.text("spec.os.name") == "windows" {
        return;
    }
    let all = pod.at("metadata.annotations");
    if !all.as_object().is_some_and(|all| all.keys().any(|key| key.starts_with(APP_ARMOR))) {
        return;
    }
    let all = all.clone();
    let own = pod.at("spec.securityContext.appArmorProfile").clone();
    for list in LISTS {
        for container in pod.list_mut(&format!("spec.{list}")) {
            let said = of_container(&all, APP_ARMOR, container.text("name"));
            let profile = said.as_str().and_then(app_armor_field).filter(|profile| *profile != own);
            if let Some(profile) = profile.filter(|_| !container.has("securityContext.appArmorProfile")) {
                container.set("securityContext.appArmorProfile", profile);
            }
        }
    }
}

fn app_armor_field(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let local = annotation.strip_prefix(LOCAL).filter(|local| !local.is_empty() && local.trim() == *local)?;
            Some(json!({"type": "Localhost", "localhostProfile": local}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(causes: &Causes, want: &str) {
        let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
        assert_eq!(texts.join(" & "), want);
    }

    fn pod_with(annotations: Value) -> Value {
        json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "c"}]}})
    }

    #[test]
    fn annotations_are_held_to_what_reads_them() {
        let told = |annotations: Value, want: &str| {
            let mut out = Causes::new();
            pod(&mut out, &pod_with(annotations), "metadata.annotations");
            check(&out, want);
        };
        told(json!({DELETION_COST: "-5"}), "");
        told(
            json!({DELETION_COST: "+5"}),
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+5\": must be a 32bit integer",
        );
        told(
            json!({MIRROR: "x"}),
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
        );
        told(
            json!({SECCOMP_POD: "odd"}),
            "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"odd\": must be a valid seccomp profile",
        );
        told(
            json!({"container.apparmor.security.beta.kubernetes.io/d": "odd"}),
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"d\": container not found & \
             metadata.annotations[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"odd\": invalid AppArmor profile name: \"odd\"",
        );
    }

    #[test]
    fn an_annotation_becomes_the_field_it_stands_for_and_stays() {
        let key = format!("{APP_ARMOR}c");
        let mut made = pod_with(json!({key.as_str(): "localhost/p"}));
        to_fields(&mut made);
        let container = &made.list("spec.containers")[0];
        assert_eq!(container.at("securityContext.appArmorProfile.localhostProfile"), "p");
        let mut out = Causes::new();
        stay(&mut out, &pod_with(json!({MIRROR: "x"})), &made);
        check(
            &out,
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not remove or update AppArmor annotations & \
             metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation",
        );
        let mut out = Causes::new();
        made["metadata"]["annotations"] = json!({key.as_str(): "localhost/q"});
        agree_with_fields(&mut out, &made, "spec");
        check(
            &out,
            "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match",
        );
    }
}
