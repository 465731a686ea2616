//! Pods: defaults, what a new one starts with, what of a running one may change, how long its deletion waits.

use serde_json::{Value, json};

use super::check::{self, Causes};
use super::read::{Read, Write};
use super::{annotations, columns, internal, pod_check, pod_defaults, pod_parts, pod_row, resources, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

pub static POD: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::pod,
    default,
    prepare_create,
    prepare_update: |_, _| {},
    prepare_status,
    prepare_part: pod_parts::prepare,
    validate_create,
    validate_update,
    validate_status,
    validate_part: pod_parts::validate,
    grace_seconds,
    columns: columns::POD,
    row: pod_row::row,
    row_conditions: pod_row::row_conditions,
    selectable: &[
        ("spec.nodeName", "/spec/nodeName"),
        // Its name in the first versions of the API.
        ("spec.host", "/spec/nodeName"),
        ("spec.restartPolicy", "/spec/restartPolicy"),
        ("spec.schedulerName", "/spec/schedulerName"),
        ("spec.serviceAccountName", "/spec/serviceAccountName"),
        ("spec.hostNetwork", "/spec/hostNetwork"),
        ("status.phase", "/status/phase"),
        ("status.podIP", "/status/podIPs/0/ip"),
        // Taken, but upstream gives it no value.
        ("status.podIPs", ""),
        ("status.nominatedNodeName", "/status/nominatedNodeName"),
    ],
    has_status: true,
    has_generation: true,
    returns_deleted: true,
    without_tables: &["ephemeralcontainers", "resize"],
    ..Behaviour::PLAIN
};

fn default(pod: &mut Value) {
    if let Some(spec) = pod.at_mut("spec") {
        pod_defaults::pod_spec(spec);
        if spec.int("terminationGracePeriodSeconds") < 0 {
            spec.set("terminationGracePeriodSeconds", 1);
        }
        let host_network = spec.flag("hostNetwork");
        for list in ["containers", "initContainers"] {
            for container in spec.list_mut(list) {
                default_requests(container);
                if host_network {
                    for port in container.list_mut("ports") {
                        let inside = port.int("containerPort");
                        port.set_default("hostPort", inside);
                    }
                }
            }
        }
        spec.set_if_absent("enableServiceLinks", true);
    }
    default_status(pod);
}

/// What is limited and not asked for is asked for.
fn default_requests(container: &mut Value) {
    let Some(limits) = container.at("resources.limits").as_object().cloned() else { return };
    container.set_if_absent("resources.requests", json!({}));
    if let Some(requests) = container.at_mut("resources.requests").and_then(Value::as_object_mut) {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// The one address and the list of addresses say the same; the one wins.
fn default_status(pod: &mut Value) {
    let (one, list) = ("status.podIP", "status.podIPs");
    let first = pod.list(list).first().map_or("", |entry| entry.text("ip")).to_owned();
    let single = pod.text(one).to_owned();
    if single.is_empty() && !first.is_empty() {
        pod.set(one, first);
    } else if !single.is_empty() && single != first {
        pod.set(list, json!([{"ip": single}]));
    }
}

fn prepare_create(pod: &mut Value) {
    let mut status = json!({"phase": "Pending"});
    if !pod.list("spec.schedulingGates").is_empty() {
        // The time of the change is the time of the creation.
        status.set(
            "conditions",
            json!([{
                "type": "PodScheduled",
                "status": "False",
                "lastTransitionTime": pod.at("metadata.creationTimestamp"),
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]),
        );
    }
    merge_label_keys(pod);
    annotations::to_fields(pod);
    default_pod_resources(pod);
    status.set("qosClass", resources::qos_class(pod.at("spec")));
    pod.set("status", status);
}

/// `matchLabelKeys` become expressions over the pod's own labels.
fn merge_label_keys(pod: &mut Value) {
    let labels = pod.at("metadata.labels").clone();
    let merge = |term: &mut Value| {
        if !term.has("labelSelector") {
            return;
        }
        for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            for key in term.list(field).to_vec().iter().filter_map(Value::as_str) {
                let value = labels.key(key);
                if value.is_null() {
                    continue;
                }
                let mut expressions = term.list("labelSelector.matchExpressions").to_vec();
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
                term.set("labelSelector.matchExpressions", expressions);
            }
        }
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = format!("spec.affinity.{kind}");
        pod.list_mut(&format!("{path}.requiredDuringSchedulingIgnoredDuringExecution")).iter_mut().for_each(merge);
        for term in pod.list_mut(&format!("{path}.preferredDuringSchedulingIgnoredDuringExecution")) {
            if let Some(term) = term.at_mut("podAffinityTerm") {
                merge(term);
            }
        }
    }
    pod.list_mut("spec.topologySpreadConstraints").iter_mut().for_each(merge);
}

/// What the pod itself is limited to and does not ask for, it asks for: as much as its containers do, or all of it.
fn default_pod_resources(pod: &mut Value) {
    if !pod.has("spec.resources") {
        return;
    }
    let spec = pod.at("spec");
    let mut limits = spec.at("resources.limits").as_object().cloned().unwrap_or_default();
    let mut requests = spec.at("resources.requests").as_object().cloned().unwrap_or_default();
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    for (name, amount) in resources::total(spec, "limits") {
        if resources::is_huge_page(&name) && !requests.contains_key(&name) {
            limits.entry(name).or_insert_with(|| amount.to_string().into());
        }
    }
    if !limits.is_empty() {
        for (name, amount) in resources::total(spec, "requests") {
            if matches!(name.as_str(), "cpu" | "memory") {
                requests.entry(name).or_insert_with(|| amount.to_string().into());
            }
        }
        for (name, limit) in &limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
        pod.set("spec.resources.limits", limits);
    }
    if !requests.is_empty() {
        pod.set("spec.resources.requests", requests);
    }
}

fn prepare_status(new: &mut Value, old: &Value) {
    match old.at("metadata.ownerReferences") {
        Value::Null => new.remove("metadata.ownerReferences"),
        owners => new.set("metadata.ownerReferences", owners.clone()),
    }
    for kept in ["qosClass", "resourceClaimStatuses", "extendedResourceClaimStatus", "observedGeneration"] {
        let path = format!("status.{kept}");
        if old.has(&path) {
            new.set_default(&path, old.at(&path).clone());
        }
    }
    // A type may be there more than once; the first takes from the first.
    let mut before: Vec<&Value> = old.list("status.conditions").iter().collect();
    for condition in new.list_mut("status.conditions") {
        let Some(at) = before.iter().position(|c| c.text("type") == condition.text("type")) else { continue };
        if let Some(generation) = before.remove(at).opt_int("observedGeneration").filter(|g| *g != 0) {
            condition.set_default("observedGeneration", generation);
        }
    }
}

fn validate_create(pod: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    pod_check::pod(&mut out, pod);
    if !pod.list("spec.ephemeralContainers").is_empty() {
        out.push(Cause::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    if !pod.text("spec.nodeName").is_empty() && !pod.list("spec.schedulingGates").is_empty() {
        out.push(Cause::forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"));
    }
    annotations::agree_with_fields(&mut out, pod, "spec");
    out
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    pod_check::pod(&mut out, new);
    annotations::stay(&mut out, new, old);
    for list in ["containers", "initContainers"] {
        let path = format!("spec.{list}");
        if new.list(&path).len() != old.list(&path).len() {
            out.push(Cause::forbidden(path, "pod updates may not add or remove containers"));
            return out;
        }
    }
    let deadline = "spec.activeDeadlineSeconds";
    match (new.opt_int(deadline), old.opt_int(deadline)) {
        (Some(after), Some(before)) if after > before => {
            let detail = "must be less than or equal to previous value";
            out.push(Cause::invalid(deadline, &after.into(), detail));
            return out;
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            out.push(Cause::invalid(deadline, &Value::Null, detail));
        }
        _ => {}
    }
    only_more_tolerations(&mut out, new, old);
    only_fewer_gates(&mut out, new, old);
    only_what_may_change(&mut out, new, old);
    out
}

fn only_more_tolerations(out: &mut Causes, new: &Value, old: &Value) {
    let same = |a: &Value, b: &Value| {
        let (mut a, mut b) = (a.clone(), b.clone());
        a.remove("tolerationSeconds");
        b.remove("tolerationSeconds");
        a == b
    };
    let kept = |before: &Value| new.list("spec.tolerations").iter().any(|after| same(before, after));
    if !old.list("spec.tolerations").iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        out.push(Cause::forbidden("spec.tolerations", detail));
    }
}

fn only_fewer_gates(out: &mut Causes, new: &Value, old: &Value) {
    let before = old.list("spec.schedulingGates");
    for (at, gate) in new.list("spec.schedulingGates").iter().enumerate() {
        if !before.iter().any(|other| other.text("name") == gate.text("name")) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("name"));
            out.push(Cause::forbidden(format!("spec.schedulingGates[{at}].name"), &detail));
        }
    }
}

/// Images, the deadline, tolerations and gates; while the pod is gated also where it may run.
fn only_what_may_change(out: &mut Causes, new: &Value, old: &Value) {
    const ALLOWED: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                           `spec.tolerations` (only additions to existing tolerations),\
                           `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let before = old.at("spec");
    let mut after = new.at("spec").clone();
    for list in ["containers", "initContainers"] {
        for (container, other) in after.list_mut(list).iter_mut().zip(before.list(list)) {
            container.set("image", other.at("image").clone());
        }
    }
    let mut same = vec!["activeDeadlineSeconds", "schedulingGates", "tolerations"];
    if before.int("terminationGracePeriodSeconds") < 0 && after.int("terminationGracePeriodSeconds") == 1 {
        same.push("terminationGracePeriodSeconds");
    }
    if !before.list("schedulingGates").is_empty() {
        let kept = before.at("nodeSelector").entries();
        if kept.iter().any(|(key, value)| after.at("nodeSelector").key(key) != *value) {
            out.push(Cause::invalid(
                "spec.nodeSelector",
                &check::by_key(after.at("nodeSelector")),
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            ));
        }
        same.push("nodeSelector");
        node_affinity_only_narrows(out, &after, before);
        same.push("affinity.nodeAffinity");
    }
    for path in same {
        match before.at(path) {
            Value::Null => after.remove(path),
            value => after.set(path, value.clone()),
        }
    }
    if after.at("affinity").is_nothing() && before.at("affinity").is_nothing() {
        match before.at("affinity") {
            Value::Null => after.remove("affinity"),
            value => after.set("affinity", value.clone()),
        }
    }
    if after != *before {
        let detail = format!(
            "pod updates may not change fields other than {ALLOWED}\n{}",
            internal::diff("api.core.v1.PodSpec", before, &after)
        );
        out.push(Cause::forbidden("spec", &detail));
    }
}

fn node_affinity_only_narrows(out: &mut Causes, after: &Value, before: &Value) {
    const TERMS: &str = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (old, new) = (before.list(TERMS), after.list(TERMS));
    if old.is_empty() {
        return;
    }
    let path = format!("spec.{TERMS}");
    if old.len() != new.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return out.push(Cause::invalid(path, after.at(TERMS), detail));
    }
    let only_adds = |new: &Value, old: &Value| {
        let parts = ["matchExpressions", "matchFields"];
        let empty = parts.iter().all(|part| old.list(part).is_empty());
        if empty {
            return parts.iter().all(|part| new.list(part).is_empty());
        }
        parts.iter().all(|part| new.list(part).starts_with(old.list(part)))
    };
    for (at, (new, old)) in new.iter().zip(old).enumerate() {
        if !only_adds(new, old) {
            let detail = "only additions are allowed (no mutations or deletions)";
            out.push(Cause::invalid(format!("{path}[{at}]"), new, detail));
        }
    }
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    annotations::stay(&mut out, new, old);
    for (at, condition) in new.list("status.conditions").iter().enumerate() {
        let (type_, path) = (condition.text("type"), format!("status.conditions[{at}]"));
        if condition.int("observedGeneration") < 0 {
            let value = condition.at("observedGeneration");
            out.push(Cause::invalid(format!("{path}.observedGeneration"), value, "must be a non-negative integer"));
        }
        check::text(&mut out, type_, format_args!("{path}.Type"), validate::qualified_name);
    }
    let nominated = new.text("status.nominatedNodeName");
    if !nominated.is_empty() && nominated != old.text("status.nominatedNodeName") {
        check::text(&mut out, nominated, "status.nominatedNodeName", validate::dns1123_subdomain);
        if !old.text("spec.nodeName").is_empty() {
            let detail = "may not be set on pods that are already bound to a node";
            out.push(Cause::forbidden("status.nominatedNodeName", detail));
        }
    }
    if new.int("status.observedGeneration") < 0 {
        let value = new.at("status.observedGeneration");
        out.push(Cause::invalid("status.observedGeneration", value, "must be a non-negative integer"));
    }
    out.extend(validate::immutable(new.at("status.qosClass"), old.at("status.qosClass"), "status.qosClass"));
    for (list, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", "ephemeralContainers"),
    ] {
        ended_stay_ended(&mut out, new, old, list, containers);
    }
    claim_statuses(&mut out, new);
    extended_claim(&mut out, new);
    addresses(&mut out, new, "podIP", "podIPs");
    addresses(&mut out, new, "hostIP", "hostIPs");
    for list in STATUS_LISTS {
        users(&mut out, new, list);
    }
    allocated_resources(&mut out, new, "containerStatuses", "containers");
    allocated_resources(&mut out, new, "initContainerStatuses", "initContainers");
    for (at, status) in new.list("status.ephemeralContainerStatuses").iter().enumerate() {
        if !status.list("allocatedResourcesStatus").is_empty() {
            let path = format!("status.ephemeralContainerStatuses[{at}].allocatedResourcesStatus");
            out.push(Cause::forbidden(path, "must not be specified in container status"));
        }
    }
    out
}

const STATUS_LISTS: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

/// Which claims were made for the pod: each is one that the pod names.
fn claim_statuses(out: &mut Causes, pod: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for (at, status) in pod.list("status.resourceClaimStatuses").iter().enumerate() {
        let path = format!("status.resourceClaimStatuses[{at}].name");
        let name = status.text("name");
        if !pod.list("spec.resourceClaims").iter().any(|claim| claim.text("name") == name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            out.push(Cause::invalid(&path, &name.into(), detail));
        }
        if seen.contains(&name) {
            out.push(Cause::duplicate(&path, &name.into()));
        }
        seen.push(name);
        if let Some(claim) = status.at("resourceClaimName").as_str() {
            let path = format!("status.resourceClaimStatuses[{at}].resourceClaimName");
            check::text(out, claim, &path, validate::dns1123_subdomain);
        }
    }
}

/// Which devices stand for the resources by name that containers ask for.
fn extended_claim(out: &mut Causes, pod: &Value) {
    const PATH: &str = "status.extendedResourceClaimStatus";
    let status = pod.at(PATH);
    if status.is_null() {
        return;
    }
    let mappings = status.list("requestMappings");
    if mappings.is_empty() {
        out.push(Cause::required(format!("{PATH}.requestMappings"), "at least one request mapping is required"));
    }
    for (at, mapping) in mappings.iter().enumerate() {
        let path = format!("{PATH}.requestMappings[{at}]");
        let [container, resource, request] =
            ["containerName", "resourceName", "requestName"].map(|field| mapping.text(field));
        let mut all = pod.list("spec.containers").iter().chain(pod.list("spec.initContainers"));
        match all.find(|each| each.text("name") == container) {
            None => {
                let detail = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                out.push(Cause::invalid(format!("{path}.containerName"), &container.into(), detail));
            }
            Some(each) if each.at("resources.requests").key(resource).is_null() => {
                let detail = "must match the extended resource name of an entry in \
                              spec.initContainers.resources.requests or spec.containers.resources.requests";
                out.push(Cause::invalid(format!("{path}.resourceName"), &resource.into(), detail));
            }
            Some(_) => {}
        }
        check::text(out, request, format_args!("{PATH}.requestName"), validate::dns1123_label);
        if mappings[..at].contains(mapping) {
            for field in ["containerName", "resourceName", "requestName"] {
                out.push(Cause::duplicate(format!("{path}.{field}"), mapping.at(field)));
            }
        }
    }
    if check::required(out, status, PATH, "resourceClaimName") {
        let path = format!("{PATH}.resourceClaimName");
        check::text(out, status.text("resourceClaimName"), &path, validate::dns1123_subdomain);
    }
}

/// Who a container runs as is a matter of Linux.
fn users(out: &mut Causes, pod: &Value, list: &str) {
    for (at, status) in pod.at("status").list(list).iter().enumerate() {
        let user = status.at("user.linux");
        if user.is_null() {
            continue;
        }
        let path = format!("status.{list}[{at}].user.linux");
        match pod.text("spec.os.name") {
            "windows" => out.push(Cause::forbidden(path, "cannot be set for a windows pod")),
            _ => {
                for field in ["uid", "gid"] {
                    check::in_range(out, user.int(field), format_args!("{path}.{field}"), 0, check::ID_MAX);
                }
                for (at, group) in user.list("supplementalGroups").iter().enumerate() {
                    let path = format!("{path}.supplementalGroups[{at}]");
                    check::in_range(out, group.as_i64().unwrap_or_default(), &path, 0, check::ID_MAX);
                }
            }
        }
    }
}

/// How the devices fare that a container was given: they are among what it asked for.
fn allocated_resources(out: &mut Causes, pod: &Value, list: &str, containers: &str) {
    const HEALTH: &[&str] = &["Healthy", "Unhealthy", "Unknown"];
    for (at, status) in pod.at("status").list(list).iter().enumerate() {
        let container = pod.at("spec").list(containers).iter().find(|c| c.text("name") == status.text("name"));
        for (nth, resource) in status.list("allocatedResourcesStatus").iter().enumerate() {
            let path = format!("status.{list}[{at}].allocatedResourcesStatus[{nth}]");
            let name = resource.text("name");
            if let Some(container) = container {
                let (found, detail) = match name.strip_prefix("claim:") {
                    Some(claim) => (
                        container.list("resources.claims").iter().any(|each| match each.text("request") {
                            "" => each.text("name") == claim,
                            request => format!("{}/{request}", each.text("name")) == claim,
                        }),
                        "must match one of the container's resource claims in a format \
                         'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
                    ),
                    None => (
                        !container.at("resources.requests").key(name).is_null(),
                        "must match one of the container's resource requests",
                    ),
                };
                if !found {
                    out.push(Cause::invalid(format!("{path}.name"), &name.into(), detail));
                }
            }
            let mut seen: Vec<&str> = Vec::new();
            for (nth, each) in resource.list("resources").iter().enumerate() {
                let path = format!("{path}.resources[{nth}]");
                if !HEALTH.contains(&each.text("health")) {
                    out.push(Cause::not_supported(format!("{path}.health"), &each.text("health").into(), HEALTH));
                }
                let id = each.text("resourceID");
                if seen.contains(&id) {
                    out.push(Cause::duplicate(format!("{path}.resourceID"), &id.into()));
                }
                seen.push(id);
            }
        }
    }
}

/// A container that has ended stays so, unless its pod or itself restarts it.
fn ended_stay_ended(out: &mut Causes, new: &Value, old: &Value, list: &str, containers: &str) {
    let spec = old.at("spec");
    let rules = |container: &Value| container.list("restartPolicyRules").to_vec();
    let all = spec.list("containers").iter().chain(spec.list("initContainers"));
    let ephemeral = containers == "ephemeralContainers";
    // Where one can make all start again, each may.
    if !ephemeral && all.flat_map(rules).any(|rule| rule.text("action") == "RestartAllContainers") {
        return;
    }
    let restarts = |name: &str, code: i64| {
        let container = spec.list(containers).iter().find(|c| c.text("name") == name);
        let Some(container) = container.filter(|_| !ephemeral) else { return false };
        let own = container.text("restartPolicy");
        let policy = if own.is_empty() { spec.text("restartPolicy") } else { own };
        let by_rule = rules(container).iter().any(|rule| {
            let listed = rule.list("exitCodes.values").iter().any(|value| value.as_i64() == Some(code));
            listed == (rule.text("exitCodes.operator") == "In")
        });
        by_rule || policy == "Always" || (policy == "OnFailure" && code != 0)
    };
    for (at, before) in old.list(&format!("status.{list}")).iter().enumerate() {
        let ended = before.at("state.terminated");
        let name = before.text("name");
        let after = new.list(&format!("status.{list}")).iter().find(|status| status.text("name") == name);
        let runs_again = after.is_some_and(|after| !after.has("state.terminated"));
        if !ended.is_null() && runs_again && !restarts(name, ended.int("exitCode")) {
            let detail = "may not be transitioned to non-terminated state";
            out.push(Cause::forbidden(format!("status.{list}[{at}].state"), detail));
        }
    }
}

fn addresses(out: &mut Causes, pod: &Value, one: &str, list: &str) {
    let path = format!("status.{list}");
    let all: Vec<&str> = pod.list(&path).iter().map(|entry| entry.text("ip")).collect();
    let single = pod.text(&format!("status.{one}"));
    let pod_ips = list == "podIPs";
    if !pod_ips && all.first().is_some_and(|first| *first != single) {
        out.push(Cause::invalid(format!("{path}[0].ip"), &all[0].into(), &format!("must be equal to `{one}`")));
    }
    for (at, ip) in all.iter().enumerate() {
        check::ip(out, ip, format_args!("{path}[{at}]"));
    }
    if all.len() > 1 {
        let families: Vec<Option<bool>> =
            all.iter().map(|ip| ip.parse::<std::net::IpAddr>().ok().map(|ip| ip.is_ipv4())).collect();
        if let Some(at) = families.iter().position(Option::is_none) {
            let detail = format!("failed to check for dual stack with error:invalid IP[{at}]: {}", all[at]);
            out.push(check::internal(&path, &detail));
        }
        let dual = families.contains(&Some(true)) && families.contains(&Some(false));
        if !dual || all.len() > 2 {
            let shown: Vec<Value> = all.iter().map(|ip| json!({"IP": ip})).collect();
            let detail = "may specify no more than one IP for each IP family";
            out.push(Cause::invalid(&path, &shown.into(), detail));
        }
    }
    if pod_ips && single.is_empty() != all.is_empty() {
        let shown: Vec<Value> = all.iter().map(|ip| json!({"IP": ip})).collect();
        let detail = "podIP and podIPs must either both be set or both be unset";
        out.push(Cause::invalid(&path, &shown.into(), detail));
    }
}

/// A pod that no node has, or that is through, goes at once.
fn grace_seconds(pod: &Value, asked: Option<i64>) -> Option<i64> {
    let seconds = asked.or(pod.opt_int("spec.terminationGracePeriodSeconds")).unwrap_or(0);
    let through = matches!(pod.text("status.phase"), "Succeeded" | "Failed");
    if pod.text("spec.nodeName").is_empty() || through {
        return Some(0);
    }
    Some(if seconds < 0 { 1 } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
        default(&mut pod);
        prepare_create(&mut pod);
        pod
    }

    #[test]
    fn defaults_make_a_pod_whole() {
        let made = pod(json!({"containers": [{"name": "c", "image": "img", "resources": {"limits": {"cpu": "1"}}}]}));
        assert_eq!(made.text("spec.restartPolicy"), "Always");
        assert_eq!(made.at("spec.containers").items()[0].text("imagePullPolicy"), "Always");
        assert_eq!(made.at("spec.containers").items()[0].text("resources.requests.cpu"), "1");
        assert_eq!(made.at("status").to_string(), r#"{"phase":"Pending","qosClass":"Burstable"}"#);
    }

    #[test]
    fn little_of_a_pod_may_change() {
        let check = |path: &str, value: Value, want: &str| {
            let old = pod(json!({"containers": [{"name": "c", "image": "img"}]}));
            let mut new = old.clone();
            *new.pointer_mut(path).unwrap() = value;
            let causes: Vec<String> = validate_update(&new, &old).iter().map(Cause::to_string).collect();
            let texts: Vec<&str> = causes.iter().map(|text| text.lines().next().unwrap()).collect();
            assert_eq!(texts.join(" & "), want);
        };
        check("/spec/containers/0/image", json!("other"), "");
        check(
            "/spec/containers",
            json!([]),
            "spec.containers: Required value & spec.containers: Forbidden: pod updates may not add or remove containers",
        );
        check(
            "/spec/restartPolicy",
            json!("Never"),
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }

    #[test]
    fn deletion_waits_only_for_pods_that_run() {
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        assert_eq!(grace_seconds(&running, None), Some(30));
        assert_eq!(grace_seconds(&running, Some(-1)), Some(1));
        assert_eq!(grace_seconds(&json!({"spec": {"terminationGracePeriodSeconds": 30}}), None), Some(0));
    }
}
