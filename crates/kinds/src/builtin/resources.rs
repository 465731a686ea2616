//! Names and amounts of resources: what a container may ask for, what a quota may count, how much a pod asks for in all.
//! Pure arithmetic over quantities.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::{self, Causes, quantity};
use super::pod_row::is_sidecar;
use super::read::Read;
use crate::Cause;
use crate::quantity::Quantity;
use crate::validate::{push_all, qualified_name};

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Counted, not measured.
const INTEGER: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Everything without a slash that means something somewhere.
pub fn is_standard(name: &str) -> bool {
    let measured = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    CONTAINER.contains(&measured)
        || INTEGER.contains(&name)
        || matches!(name, "storage" | "requests.storage")
        || is_huge_page(name)
        || name.strip_prefix("requests.").is_some_and(is_huge_page)
}

pub fn is_standard_for_containers(name: &str) -> bool {
    CONTAINER.contains(&name) || is_huge_page(name)
}

pub fn is_standard_for_quotas(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Kubernetes' own, with or without its domain.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A device or another thing some plugin counts: `example.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_integer(name: &str) -> bool {
    INTEGER.contains(&name) || is_extended(name)
}

/// A container may use more than it asked for.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// A resource name anywhere.
pub fn name(out: &mut Causes, name: &str, path: &str) -> bool {
    let before = out.len();
    push_all(out, path, name, qualified_name(name));
    if out.len() == before && !name.contains('/') && !is_standard(name) {
        out.push(Cause::invalid(path, &name.into(), "must be a standard resource type or fully qualified"));
    }
    out.len() == before
}

/// A resource a container may ask for.
pub fn container_name(out: &mut Causes, name: &str, path: &str) {
    self::name(out, name, path);
    if !name.contains('/') {
        if !is_standard_for_containers(name) {
            out.push(Cause::invalid(path, &name.into(), "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        out.push(Cause::invalid(path, &name.into(), "doesn't follow extended resource name standard"));
    }
}

fn pod_name(out: &mut Causes, name: &str, path: &str) {
    if self::name(out, name, path) && !pod_level(name) {
        out.push(Cause::not_supported(path, &name.into(), &["cpu", "hugepages-", "memory"]));
    }
}

/// Not negative, and whole where it is counted.
pub fn amount(out: &mut Causes, name: &str, value: &Value, path: &str) {
    check::non_negative_quantity(out, value, path);
    if is_integer(name) && !quantity(value).is_multiple_of(0) {
        out.push(Cause::invalid(path, value, "must be an integer"));
    }
}

/// `resources` of a container, or of the pod itself.
pub fn requirements(out: &mut Causes, resources: &Value, path: &str, of_pod: bool) {
    let check_name = if of_pod { pod_name } else { container_name };
    let (mut compute, mut huge) = (false, false);
    let limits = resources.at("limits");
    let mut huge_value = |out: &mut Causes, name: &str, value: &Value, path: &str| {
        compute |= matches!(name, "cpu" | "memory");
        if let Some(size) = name.strip_prefix("hugepages-") {
            huge = true;
            let size = Quantity::parse(size).map_or(0, |size| size.value());
            let amount = quantity(value).value();
            if size <= 0 || amount % size != 0 {
                let detail = format!("{} is not positive integer multiple of {name}", value.as_str().unwrap_or("0"));
                out.push(Cause::invalid(path, value, &detail));
            }
        }
    };
    for (name, value) in limits.entries() {
        let path = format!("{path}.limits[{name}]");
        check_name(out, name, &path);
        amount(out, name, value, &path);
        huge_value(out, name, value, &path);
    }
    for (name, value) in resources.at("requests").entries() {
        let at = format!("{path}.requests[{name}]");
        check_name(out, name, &at);
        amount(out, name, value, &at);
        match limits.key(name) {
            Value::Null => {
                if !may_overcommit(name) {
                    let detail = "Limit must be set for non overcommitable resources";
                    out.push(Cause::required(format!("{path}.limits"), detail));
                }
            }
            limit => {
                let (asked, most) = (quantity(value), quantity(limit));
                let text = limit.as_str().unwrap_or("0");
                if !may_overcommit(name) && asked != most {
                    let detail = format!("must be equal to {name} limit of {text}");
                    out.push(Cause::invalid(format!("{path}.requests"), value, &detail));
                } else if asked > most {
                    let detail = format!("must be less than or equal to {name} limit of {text}");
                    out.push(Cause::invalid(format!("{path}.requests"), value, &detail));
                }
            }
        }
        huge_value(out, name, value, &at);
    }
    if huge && !compute {
        out.push(Cause::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// What the pod itself asks for must hold what its containers ask for.
pub fn pod_holds_containers(out: &mut Causes, spec: &Value, path: &str) {
    let (requests, limits) = (spec.at("resources.requests"), spec.at("resources.limits"));
    for (name, sum) in total(spec, "requests") {
        let own = requests.key(&name);
        if !own.is_null() && sum > quantity(own) {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            out.push(Cause::invalid(format!("{path}.requests[{name}]"), own, &detail));
        }
    }
    for (name, sum) in total(spec, "limits") {
        let own = limits.key(&name);
        if is_huge_page(&name) && !own.is_null() && sum > quantity(own) {
            let detail = format!("must be greater than or equal to aggregate container limits of {sum}");
            out.push(Cause::invalid(format!("{path}.limits[{name}]"), own, &detail));
        }
    }
    for (at, container) in spec.list("containers").iter().enumerate() {
        for (name, limit) in container.at("resources.limits").entries() {
            let own = limits.key(name);
            if !own.is_null() && quantity(limit) > quantity(own) {
                let detail = format!("must be less than or equal to pod limits of {}", own.as_str().unwrap_or("0"));
                out.push(Cause::invalid(format!("{path}.containers[{at}][{name}].limits"), limit, &detail));
            }
        }
    }
}

/// What all containers need at once: the sum of those that run together, or the greatest moment of the start.
pub fn total(spec: &Value, list: &str) -> BTreeMap<String, Quantity> {
    let of = |container: &Value| -> BTreeMap<String, Quantity> {
        let entries = container.at("resources").at(list).entries();
        entries.into_iter().map(|(name, value)| (name.clone(), quantity(value))).collect()
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, more: BTreeMap<String, Quantity>| {
        for (name, amount) in more {
            let total = sum.get(&name).map_or(amount, |have| have.add(&amount));
            sum.insert(name, total);
        }
    };
    let mut running = BTreeMap::new();
    for container in spec.list("containers") {
        add(&mut running, of(container));
    }
    let (mut sidecars, mut start) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    for container in spec.list("initContainers") {
        let mut moment = of(container);
        if is_sidecar(container) {
            add(&mut running, moment.clone());
            add(&mut sidecars, moment);
            moment = sidecars.clone();
        } else {
            add(&mut moment, sidecars.clone());
        }
        for (name, amount) in moment {
            let most = start.remove(&name).filter(|have| *have > amount).unwrap_or(amount);
            start.insert(name, most);
        }
    }
    for (name, amount) in start {
        let most = running.remove(&name).filter(|have| *have > amount).unwrap_or(amount);
        running.insert(name, most);
    }
    running
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &Value) -> &'static str {
    const COMPUTE: [&str; 2] = ["cpu", "memory"];
    type Sums = BTreeMap<&'static str, Quantity>;
    let add = |sums: &mut Sums, list: &Value| -> usize {
        let mut found = 0;
        for name in COMPUTE {
            let amount = quantity(list.key(name));
            if !amount.is_zero() && !amount.is_negative() {
                found += 1;
                let total = sums.get(name).map_or(amount, |have| have.add(&amount));
                sums.insert(name, total);
            }
        }
        found
    };
    let (mut requests, mut limits) = (Sums::new(), Sums::new());
    let mut guaranteed = true;
    let own = spec.at("resources");
    if own.is_null() {
        for container in spec.list("containers").iter().chain(spec.list("initContainers")) {
            add(&mut requests, container.at("resources.requests"));
            guaranteed &= add(&mut limits, container.at("resources.limits")) == COMPUTE.len();
        }
    } else {
        add(&mut requests, own.at("requests"));
        guaranteed &= add(&mut limits, own.at("limits")) == COMPUTE.len() || own.at("limits").is_nothing();
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    if guaranteed && requests == limits { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_of_service() {
        let check = |resources: Value, want: &str| {
            let spec = json!({"containers": [{"name": "c", "resources": resources}]});
            assert_eq!(qos_class(&spec), want, "{spec}");
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        check(json!({"requests": both, "limits": both}), "Guaranteed");
        check(json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": both}), "Burstable");
        check(json!({"requests": {"ephemeral-storage": "1Gi"}}), "BestEffort");
    }

    #[test]
    fn sidecars_run_with_the_rest_and_init_containers_before() {
        let cpu = |n: &str| json!({"requests": {"cpu": n}});
        let spec = json!({
            "containers": [{"resources": cpu("1")}],
            "initContainers": [{"resources": cpu("1"), "restartPolicy": "Always"}, {"resources": cpu("5")}],
        });
        assert_eq!(total(&spec, "requests")["cpu"].to_string(), "6");
    }
}
