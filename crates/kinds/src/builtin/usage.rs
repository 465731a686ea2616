//! What an object counts for in a ResourceQuota, and which quotas are about it. Pure: summing up and refusing is the
//! server's matter.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::{quantity, zero};
use super::read::Read;
use super::resources;
use crate::quantity::Quantity;

/// Amounts by the names that quotas give them: `pods`, `requests.cpu`, `count/deployments.apps`.
pub type Usage = BTreeMap<String, Quantity>;

/// Core resources that quotas also count by their plain name.
const PLAIN: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

const CLASS: &str = ".storageclass.storage.k8s.io/";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What one object counts for.
pub fn of(group: &str, plural: &str, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let one = || Quantity::parse("1").unwrap_or_else(|_| zero());
    usage.insert(count_name(group, plural), one());
    match (group, plural) {
        ("", "pods") => pod(&mut usage, object),
        ("", "services") => service(&mut usage, object),
        ("", "persistentvolumeclaims") => claim(&mut usage, object),
        ("", plain) if PLAIN.contains(&plain) => {
            usage.insert(plain.to_owned(), one());
        }
        _ => {}
    }
    usage
}

/// `count/pods`, `count/deployments.apps`.
fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Group and plural of the objects that a name of a quota is about.
pub fn resource_of(name: &str) -> (&str, &str) {
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return (group, plural);
    }
    match name {
        "services" | "services.nodeports" | "services.loadbalancers" => ("", "services"),
        "persistentvolumeclaims" | "requests.storage" => ("", "persistentvolumeclaims"),
        plain if PLAIN.contains(&plain) => ("", plain),
        class if class.contains(CLASS) => ("", "persistentvolumeclaims"),
        _ => ("", "pods"),
    }
}

/// Every object counts for the same under this name: there is no need to look at it.
pub fn is_plain_count(name: &str) -> bool {
    name.starts_with("count/") || PLAIN.contains(&name)
}

/// Whether updates can change what objects count for.
pub fn may_change(group: &str, plural: &str) -> bool {
    group.is_empty() && matches!(plural, "pods" | "services" | "persistentvolumeclaims")
}

fn number(count: usize) -> Quantity {
    Quantity::parse(&count.to_string()).unwrap_or_else(|_| zero())
}

/// A pod that is through uses nothing.
fn pod(usage: &mut Usage, pod: &Value) {
    if matches!(pod.text("status.phase"), "Succeeded" | "Failed") {
        return;
    }
    usage.insert("pods".into(), number(1));
    let spec = pod.at("spec");
    let mut requests = resources::total(spec, "requests");
    for (name, value) in spec.at("overhead").entries() {
        let sum = requests.get(name).map_or(quantity(value), |have| have.add(&quantity(value)));
        requests.insert(name.clone(), sum);
    }
    let mut limits = resources::total(spec, "limits");
    // What the pod says for all of its containers counts instead of their sum.
    for (list, totals) in [("requests", &mut requests), ("limits", &mut limits)] {
        for (name, value) in spec.at("resources").at(list).entries() {
            totals.insert(name.clone(), quantity(value));
        }
    }
    for (name, amount) in requests {
        if resources::is_standard_for_containers(&name) {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in
        limits.into_iter().filter(|(name, _)| matches!(&**name, "cpu" | "memory" | "ephemeral-storage"))
    {
        usage.insert(format!("limits.{name}"), amount);
    }
}

fn service(usage: &mut Usage, service: &Value) {
    usage.insert("services".into(), number(1));
    let spec = service.at("spec");
    let ports = spec.list("ports");
    let with_port = ports.iter().filter(|port| port.int("nodePort") != 0).count();
    let node_ports = match spec.text("type") {
        "NodePort" => ports.len(),
        "LoadBalancer" if spec.at("allocateLoadBalancerNodePorts") != &Value::Bool(false) => ports.len(),
        "LoadBalancer" => with_port,
        _ => 0,
    };
    usage.insert("services.nodeports".into(), number(node_ports));
    usage.insert("services.loadbalancers".into(), number(usize::from(spec.text("type") == "LoadBalancer")));
}

fn claim(usage: &mut Usage, claim: &Value) {
    let storage = quantity(claim.at("spec.resources.requests.storage"));
    let class = match claim.at("metadata.annotations").key(OLD_CLASS).as_str() {
        Some(class) => class,
        None => claim.text("spec.storageClassName"),
    };
    usage.insert("persistentvolumeclaims".into(), number(1));
    usage.insert("requests.storage".into(), storage);
    if !class.is_empty() {
        usage.insert(format!("{class}{CLASS}persistentvolumeclaims"), number(1));
        usage.insert(format!("{class}{CLASS}requests.storage"), storage);
    }
}

/// Whether a quota's scopes take an object in. A quota with scopes is about pods, or about claims by their class of
/// attributes.
pub fn is_in_scope(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let scopes = quota.list("spec.scopes").iter().filter_map(Value::as_str);
    let terms = quota.list("spec.scopeSelector.matchExpressions");
    if quota.list("spec.scopes").is_empty() && terms.is_empty() {
        return true;
    }
    let takes_in = match (group, plural) {
        ("", "pods") => pod_is_in_scope,
        ("", "persistentvolumeclaims") => claim_is_in_scope,
        _ => return false,
    };
    scopes
        .map(|scope| (scope, "Exists", &[] as &[Value]))
        .chain(terms.iter().map(|term| (term.text("scopeName"), term.text("operator"), term.list("values"))))
        .all(|(scope, operator, values)| takes_in(object, scope, operator, values))
}

/// The classes of attributes that a claim has, is to have and is on the way to.
fn claim_is_in_scope(claim: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    const CLASSES: [&str; 3] = [
        "spec.volumeAttributesClassName",
        "status.currentVolumeAttributesClassName",
        "status.modifyVolumeStatus.targetVolumeAttributesClassName",
    ];
    if scope != "VolumeAttributesClass" {
        return false;
    }
    let names: Vec<&str> = CLASSES.iter().map(|path| claim.text(path)).filter(|name| !name.is_empty()).collect();
    let listed = |name: &&str| values.iter().any(|value| value == name);
    match operator {
        "In" => names.iter().any(listed),
        "NotIn" => names.is_empty() || names.iter().any(|name| !listed(name)),
        "DoesNotExist" => names.is_empty(),
        _ => !names.is_empty(),
    }
}

fn pod_is_in_scope(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let spec = pod.at("spec");
    let ends = spec.opt_int("activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0);
    let best_effort = resources::qos_class(spec) == "BestEffort";
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = spec.text("priorityClassName");
            let listed = values.iter().any(|value| value == class);
            match operator {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].iter().any(|affinity| {
            let affinity = spec.at("affinity").key(affinity);
            let required = affinity.list("requiredDuringSchedulingIgnoredDuringExecution").iter();
            let preferred = affinity.list("preferredDuringSchedulingIgnoredDuringExecution").iter();
            let preferred = preferred.map(|term| term.at("podAffinityTerm"));
            required.chain(preferred).any(|term| !term.list("namespaces").is_empty() || term.has("namespaceSelector"))
        }),
        _ => false,
    }
}

/// What a pod must say because quotas limit it, and which of its containers do not: `limits.memory for: c`. Empty where
/// nothing is missing.
pub fn missing(hard: &Value, pod: &Value) -> String {
    const COMPUTE: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let spec = pod.at("spec");
    let says = |resources: &Value, name: &str| {
        let (list, resource) = name.split_once('.').unwrap_or(("requests", name));
        !resources.at(list).key(resource).is_null()
    };
    let containers = || spec.list("containers").iter().chain(spec.list("initContainers"));
    let required = COMPUTE.into_iter().filter(|name| !hard.key(name).is_null() && !says(spec.at("resources"), name));
    let texts: Vec<String> = required
        .filter_map(|name| {
            let silent = containers().filter(|container| !says(container.at("resources"), name));
            let mut silent: Vec<&str> = silent.map(|container| container.text("name")).collect();
            silent.sort_unstable();
            (!silent.is_empty()).then(|| format!("{name} for: {}", silent.join(",")))
        })
        .collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(operator: &str, values: &[&str], claim: Value, expected: bool) {
        let term = json!({"scopeName": "VolumeAttributesClass", "operator": operator, "values": values});
        let quota = json!({"spec": {"scopeSelector": {"matchExpressions": [term]}}});
        assert_eq!(is_in_scope(&quota, "", "persistentvolumeclaims", &claim), expected, "{operator} {values:?}");
        assert!(!is_in_scope(&quota, "", "secrets", &claim));
    }

    #[test]
    fn claims_are_in_scope_by_their_class() {
        let gold = json!({"spec": {"volumeAttributesClassName": "gold"}});
        check("In", &["gold"], gold.clone(), true);
        check("In", &["silver"], gold.clone(), false);
        check("NotIn", &["silver"], gold.clone(), true);
        check("Exists", &[], gold, true);
        check("DoesNotExist", &[], json!({}), true);
        check("In", &["gold"], json!({"status": {"currentVolumeAttributesClassName": "gold"}}), true);
    }
}
