//! Nodes and what describes the cluster around them: component states, runtime and priority classes, leases.

use serde_json::{Value, json};

use super::check::{self, Causes, text};
use super::read::{Read, Write};
use super::{columns, internal, pod_check, pod_defaults, resources, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

pub static COMPONENT_STATUS: Behaviour = Behaviour {
    deprecated: "v1 ComponentStatus is deprecated in v1.19+",
    columns: columns::COMPONENT_STATUS,
    row: rows::component_status,
    ..Behaviour::PLAIN
};

pub static NODE: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::node,
    default: default_node,
    validate_create: validate_node,
    validate_update: validate_node_update,
    validate_status: node_changes,
    // What once configured kubelets is kept where it is, and nowhere else.
    prepare_update: |new, old| keep_only_used(new, old, "spec.configSource"),
    prepare_status: |new, old| keep_only_used(new, old, "status.config"),
    columns: columns::NODE,
    row: rows::node,
    selectable: &[("spec.unschedulable", "/spec/unschedulable")],
    // A node may bring its status along.
    prepare_create: |node| node.remove("spec.configSource"),
    has_status: true,
    ..Behaviour::PLAIN
};

pub static RUNTIME_CLASS: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::runtime_class,
    default: |class| {
        pod_defaults::round_up(class, "overhead.podFixed");
    },
    validate_create: runtime_class,
    validate_update: |new, old| {
        let mut out = runtime_class(new);
        let required = out.pop_if(|cause| cause.field == "handler" && new.text("handler").is_empty());
        if new.text("handler") != old.text("handler") {
            out.push(validate::fixed("handler"));
        }
        out.extend(required);
        out
    },
    columns: columns::RUNTIME_CLASS,
    row: rows::runtime_class,
    create_on_update: true,
    unconditional_update: false,
    any_finalizer: true,
    ..Behaviour::PLAIN
};

pub static PRIORITY_CLASS: Behaviour = Behaviour {
    default: |class| class.set_if_absent("preemptionPolicy", "PreemptLowerPriority"),
    validate_create: priority_class,
    validate_update: |new, old| {
        let mut out = Vec::new();
        if new.int("value") != old.int("value") {
            out.push(Cause::forbidden("value", "may not be changed in an update."));
        }
        out.extend(validate::immutable(new.at("preemptionPolicy"), old.at("preemptionPolicy"), "preemptionPolicy"));
        out
    },
    // Counted once, at the creation.
    prepare_create: |class| class["metadata"]["generation"] = 1.into(),
    columns: columns::PRIORITY_CLASS,
    row: rows::priority_class,
    ..Behaviour::PLAIN
};

pub static LEASE: Behaviour = Behaviour {
    validate_create: lease,
    validate_update: |lease, _| self::lease(lease),
    columns: columns::LEASE,
    row: rows::lease,
    create_on_update: true,
    unconditional_update: false,
    any_finalizer: true,
    ..Behaviour::PLAIN
};

fn default_node(node: &mut Value) {
    if !node.has("status.allocatable") && node.has("status.capacity") {
        let capacity = node.at("status.capacity").clone();
        node.set("status.allocatable", capacity);
    }
    // The one range and the list of ranges say the same; the one wins.
    let first = node.list("spec.podCIDRs").first().and_then(Value::as_str).map(str::to_owned);
    let one = node.text("spec.podCIDR").to_owned();
    match first {
        Some(first) if one.is_empty() => node.set("spec.podCIDR", first),
        Some(first) if first == one => {}
        _ if !one.is_empty() => node.set("spec.podCIDRs", json!([one])),
        _ => {}
    }
}

fn validate_node(node: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    node_annotations(&mut out, node);
    taints(&mut out, node.at("spec.taints"), "metadata.taints");
    node_resources(&mut out, node);
    if let Some(swap) = node.opt_int("status.nodeInfo.swap.capacity").filter(|swap| *swap < 0) {
        let path = "metadata.nodeSwapStatus.capacity";
        out.push(Cause::invalid(path, &swap.into(), "cannot be a negative value"));
    }
    declared_features(&mut out, node.list("status.declaredFeatures"));
    let ranges: Vec<&str> = node.list("spec.podCIDRs").iter().filter_map(Value::as_str).collect();
    for (at, range) in ranges.iter().enumerate() {
        check::cidr(&mut out, range, &format!("spec.podCIDRs[{at}]"));
    }
    if ranges.len() > 1 {
        let parsed: Vec<_> = ranges.iter().map(|range| check::parse_cidr(range)).collect();
        if let Some(at) = parsed.iter().position(Option::is_none) {
            let detail = format!(
                "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{at}]: <nil> (invalid CIDR \
                 address: {})",
                ranges[at]
            );
            out.push(check::internal("spec.podCIDRs", &detail));
        }
        let families: Vec<bool> = parsed.iter().flatten().map(|(ip, _)| ip.is_ipv4()).collect();
        let dual = families.len() == ranges.len() && families.contains(&true) && families.contains(&false);
        if ranges.len() > 2 || !dual {
            let detail = "may specify no more than one CIDR for each IP family";
            out.push(Cause::invalid("spec.podCIDRs", node.at("spec.podCIDRs"), detail));
        }
    }
    out
}

fn keep_only_used(new: &mut Value, old: &Value, path: &str) {
    if !old.has(path) {
        new.remove(path);
    }
}

fn node_annotations(out: &mut Causes, node: &Value) {
    const TAINTS: &str = "scheduler.alpha.kubernetes.io/taints";
    let given = node.at("metadata.annotations").key(TAINTS).as_str().unwrap_or_default();
    if !given.is_empty() {
        match crate::decode::syntax_error(given.as_bytes()) {
            Some(wrong) => out.push(Cause::invalid("metadata.annotations", &TAINTS.into(), &wrong)),
            None => {
                let list = serde_json::from_str(given).unwrap_or_default();
                taints(out, &list, &format!("metadata.annotations.{TAINTS}"));
            }
        }
    }
    preferred_avoidance(out, node);
}

/// In order, each once, and named as features of Kubernetes are.
fn declared_features(out: &mut Causes, features: &[Value]) {
    const NAME_MAX: usize = 253;
    let path = |at: usize| format!("status.declaredFeatures[{at}]");
    let segment = |part: &str, first: bool| {
        part.bytes().all(|b| b.is_ascii_alphanumeric())
            && part.starts_with(|c: char| if first { c.is_ascii_uppercase() } else { c.is_ascii_alphabetic() })
    };
    for (at, feature) in features.iter().enumerate() {
        let name = feature.as_str().unwrap_or_default();
        let quoted = crate::kind::go_quote(name);
        if name.len() > NAME_MAX {
            let detail = format!("invalid feature name {quoted}: must be no more than {NAME_MAX} characters");
            out.push(Cause::invalid(path(at), feature, &detail));
        } else if !name.split('/').enumerate().all(|(nth, part)| segment(part, nth == 0)) {
            let detail = format!(
                "invalid feature name {quoted}: must start with an UpperCamelCase segment, with subsequent segments \
                 separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters \
                 and slashes"
            );
            out.push(Cause::invalid(path(at), feature, &detail));
        }
        let Some(next) = features.get(at + 1) else { continue };
        match name.cmp(next.as_str().unwrap_or_default()) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => out.push(Cause::duplicate(path(at + 1), next)),
            std::cmp::Ordering::Greater => {
                out.push(Cause::invalid(path(at + 1), next, "list must be sorted alphabetically"));
            }
        }
    }
}

fn preferred_avoidance(out: &mut Causes, node: &Value) {
    const KEY: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";
    let Some(given) = node.at("metadata.annotations").key(KEY).as_str().filter(|text| !text.is_empty()) else { return };
    if let Some(wrong) = crate::decode::syntax_error(given.as_bytes()) {
        out.push(Cause::invalid("metadata.annotations.AvoidPods", &KEY.into(), &wrong));
    }
}

/// Taints of nodes, under the path upstream names.
pub fn taints(out: &mut Causes, taints: &Value, path: &str) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let list = taints.items();
    for (at, taint) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        text(out, taint.text("key"), format_args!("{path}.key"), validate::qualified_name);
        let wrong = validate::label_value(taint.text("value"));
        if !wrong.is_empty() {
            out.push(Cause::invalid(format!("{path}.value"), taint.at("value"), &wrong.join(";")));
        }
        check::one_of(out, taint.at("effect"), format_args!("{path}.effect"), EFFECTS);
        let same =
            |other: &Value| (other.text("key"), other.text("effect")) == (taint.text("key"), taint.text("effect"));
        if list[..at].iter().any(same) {
            let mut cause = Cause::duplicate(&path, &internal::shown("api.core.v1.Taint", taint));
            cause.message.push_str(": taints must be unique by key and effect pair");
            out.push(cause);
        }
    }
}

fn node_resources(out: &mut Causes, node: &Value) {
    for list in ["status.capacity", "status.allocatable"] {
        for (name, value) in node.at(list).entries() {
            resources::amount(out, name, value, &format!("{list}.{name}"));
        }
    }
}

fn validate_node_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = validate_node(new);
    out.extend(node_changes(new, old));
    out
}

/// What changes of nodes and of their statuses are held to.
fn node_changes(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    node_annotations(&mut out, new);
    node_resources(&mut out, new);
    declared_features(&mut out, new.list("status.declaredFeatures"));
    let addresses = new.list("status.addresses");
    for (at, address) in addresses.iter().enumerate() {
        if addresses[..at].contains(address) {
            let shown = internal::shown("api.core.v1.NodeAddress", address);
            out.push(Cause::duplicate(format!("status.addresses[{at}]"), &shown));
        }
    }
    let before = old.list("spec.podCIDRs");
    if !before.is_empty() && before != new.list("spec.podCIDRs") {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        out.push(Cause::forbidden("spec.podCIDRs", detail));
    }
    let (after, before) = (new.text("spec.providerID"), old.text("spec.providerID"));
    if !before.is_empty() && after != before {
        let what = if after.is_empty() { "cleared" } else { "modified" };
        let detail = format!("field cannot be {what} once set");
        out.push(Cause::invalid("spec.providerID", &Value::Null, &detail));
    }
    taints(&mut out, new.at("spec.taints"), "metadata.taints");
    if new.text("spec.externalID") != old.text("spec.externalID") {
        out.push(Cause::forbidden("spec.externalID", "may not be updated"));
    }
    out
}

fn runtime_class(class: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if class.has("overhead") {
        let limits = json!({"limits": class.at("overhead.podFixed")});
        resources::requirements(&mut out, &limits, "overhead", false);
    }
    let scheduling = class.at("scheduling");
    out.extend(validate::labels(scheduling.at("nodeSelector"), "scheduling.nodeSelector"));
    let list = scheduling.list("tolerations");
    pod_check::tolerations(&mut out, scheduling.at("tolerations"), "scheduling.tolerations");
    for (at, toleration) in list.iter().enumerate() {
        if list[..at].contains(toleration) {
            let shown = internal::shown("api.core.v1.Toleration", toleration);
            out.push(Cause::duplicate(format!("scheduling.tolerations[{at}]"), &shown));
        }
    }
    match class.text("handler") {
        "" => out.push(Cause::required("handler", "")),
        handler => text(&mut out, handler, "handler", validate::dns1123_label),
    }
    out
}

fn priority_class(class: &Value) -> Vec<Cause> {
    const USER_MAX: i64 = 1_000_000_000;
    const SYSTEM: [(&str, i64); 2] =
        [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    let mut out = Vec::new();
    let name = class.text("metadata.name");
    if name.starts_with("system-") {
        if !SYSTEM.iter().any(|(known, value)| *known == name && *value == class.int("value")) {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known \
                 system priority class"
            );
            out.push(Cause::forbidden("metadata.name", &detail));
        }
    } else if class.int("value") > USER_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        out.push(Cause::forbidden("value", &detail));
    }
    check::one_of(&mut out, class.at("preemptionPolicy"), "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    out
}

fn lease(lease: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if let Some(seconds) = lease.opt_int("spec.leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        out.push(Cause::invalid("spec.leaseDurationSeconds", &seconds.into(), "must be greater than 0"));
    }
    check::non_negative(&mut out, lease.at("spec"), "spec", &["leaseTransitions"]);
    out
}
