//! Rows of Tables of the kinds whose file has nothing else to say about rows: a function per kind, a cell per column of
//! `columns`. Decides from the object alone.

use jiff::Timestamp;
use serde_json::Value;

use super::read::Read;
use super::table::{self, age, name, or};

/// Cells of any types in one row.
macro_rules! cells {
    ($($cell:expr),* $(,)?) => { vec![$(Value::from($cell)),*] };
}

/// `Name`, `Age`.
pub fn name_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

pub fn pod_template(object: &Value, _: Timestamp) -> Vec<Value> {
    let [names, images] = table::containers(object.at("template.spec"));
    cells![name(object), names, images, table::labels(object.at("template.metadata.labels"))]
}

pub fn pod_disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![
        name(object),
        table::int_or_string(object.at("spec.minAvailable"), "N/A"),
        table::int_or_string(object.at("spec.maxUnavailable"), "N/A"),
        object.int("status.disruptionsAllowed"),
        age(object, now),
    ]
}

pub fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = table::containers(object.at("spec.template.spec"));
    cells![
        name(object),
        object.int("spec.replicas"),
        object.int("status.replicas"),
        object.int("status.readyReplicas"),
        age(object, now),
        names,
        images,
        table::labels(object.at("spec.selector")),
    ]
}

pub fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = table::containers(object.at("spec.template.spec"));
    cells![
        name(object),
        object.int("spec.replicas"),
        object.int("status.replicas"),
        object.int("status.readyReplicas"),
        age(object, now),
        names,
        images,
        table::selector_or_none(object.at("spec.selector")),
    ]
}

pub fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = table::containers(object.at("spec.template.spec"));
    cells![
        name(object),
        format!("{}/{}", object.int("status.readyReplicas"), object.int("spec.replicas")),
        object.int("status.updatedReplicas"),
        object.int("status.availableReplicas"),
        age(object, now),
        names,
        images,
        table::selector(object.at("spec.selector")),
    ]
}

pub fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = table::containers(object.at("spec.template.spec"));
    let ready = format!("{}/{}", object.int("status.readyReplicas"), object.int("spec.replicas"));
    cells![name(object), ready, age(object, now), names, images]
}

pub fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = table::containers(object.at("spec.template.spec"));
    let status = object.at("status");
    cells![
        name(object),
        status.int("desiredNumberScheduled"),
        status.int("currentNumberScheduled"),
        status.int("numberReady"),
        status.int("updatedNumberScheduled"),
        status.int("numberAvailable"),
        table::labels(object.at("spec.template.spec.nodeSelector")),
        age(object, now),
        names,
        images,
        table::selector_or_none(object.at("spec.selector")),
    ]
}

pub fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = object.list("metadata.ownerReferences").iter().find(|owner| owner.flag("controller"));
    let controller = owner.map_or("<none>".to_owned(), |owner| {
        let kind = match owner.text("apiVersion").split_once('/') {
            Some((group, _)) => format!("{}.{group}", owner.text("kind")),
            None => owner.text("kind").to_owned(),
        };
        format!("{}/{}", kind.to_lowercase(), owner.text("name"))
    });
    cells![name(object), controller, object.int("revision"), age(object, now)]
}

pub fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let succeeded = status.int("succeeded");
    let completions = match (spec.opt_int("completions"), spec.int("parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let started = status.text("startTime").parse::<Timestamp>().ok();
    let ended = status.text("completionTime").parse::<Timestamp>().unwrap_or(now);
    let took = started.map_or(String::new(), |started| table::human_duration(table::seconds_between(started, ended)));
    let is = |type_: &str| {
        status.list("conditions").iter().find(|c| c.text("type") == type_).is_some_and(|c| c.text("status") == "True")
    };
    let state = match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if object.has("metadata.deletionTimestamp") => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let [names, images] = table::containers(spec.at("template.spec"));
    cells![
        name(object),
        state,
        completions,
        took,
        age(object, now),
        names,
        images,
        table::selector_or_none(spec.at("selector"))
    ]
}

pub fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = table::containers(object.at("spec.jobTemplate.spec.template.spec"));
    let last = object.text("status.lastScheduleTime");
    cells![
        name(object),
        object.text("spec.schedule"),
        object.at("spec.timeZone").as_str().unwrap_or("<none>"),
        table::flag(object.at("spec.suspend")),
        object.list("status.active").len(),
        if last.is_empty() { "<none>".to_owned() } else { table::since(last, now) },
        age(object, now),
        names,
        images,
        table::selector_or_none(object.at("spec.jobTemplate.spec.selector")),
    ]
}

/// The addresses or host names of a load balancer, sorted.
fn balancers(status: &Value) -> Vec<&str> {
    let of = |ingress: &'_ Value| -> bool { !ingress.text("ip").is_empty() };
    let mut texts: Vec<&str> = status
        .list("loadBalancer.ingress")
        .iter()
        .map(|ingress| if of(ingress) { ingress.text("ip") } else { ingress.text("hostname") })
        .filter(|text| !text.is_empty())
        .collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

pub fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let external: Vec<&str> = spec.list("externalIPs").iter().filter_map(Value::as_str).collect();
    let external = match spec.text("type") {
        "ClusterIP" | "NodePort" => or(&external.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let all: Vec<&str> = balancers(object.at("status")).into_iter().chain(external).collect();
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    };
    let ports: Vec<String> = spec
        .list("ports")
        .iter()
        .map(|port| match port.int("nodePort") {
            0 => format!("{}/{}", port.int("port"), port.text("protocol")),
            node => format!("{}:{node}/{}", port.int("port"), port.text("protocol")),
        })
        .collect();
    cells![
        name(object),
        spec.text("type"),
        spec.list("clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>"),
        external,
        or(&ports.join(","), "<none>"),
        age(object, now),
        table::labels(spec.at("selector")),
    ]
}

pub fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let subsets = object.list("subsets");
    let mut texts = Vec::new();
    for subset in subsets {
        let addresses = subset.list("addresses").iter().map(|address| address.text("ip"));
        match subset.list("ports") {
            [] => texts.extend(addresses.map(str::to_owned)),
            ports => {
                for port in ports {
                    texts.extend(addresses.clone().map(|ip| host_port(ip, port.int("port"))));
                }
            }
        }
    }
    let text = if subsets.is_empty() { "<none>".to_owned() } else { table::some_of(&texts, 3, ",") };
    cells![name(object), text, age(object, now)]
}

fn host_port(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("ports")
        .iter()
        .map(|port| match (port.opt_int("port"), port.at("name").as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = object
        .list("endpoints")
        .iter()
        .flat_map(|endpoint| endpoint.list("addresses"))
        .filter_map(|address| Some(address.as_str()?.to_owned()))
        .collect();
    cells![
        name(object),
        object.text("addressType"),
        or(&table::some_of(&ports, 3, ","), "<unset>"),
        or(&table::some_of(&addresses, 3, ","), "<unset>"),
        age(object, now),
    ]
}

pub fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let rules = object.list("spec.rules");
    // A rule without a host counts where rules are cut short, and is not shown.
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == 3;
        if !more && !rule.text("host").is_empty() {
            hosts.push(rule.text("host"));
        }
    }
    let mut shown = or(&hosts.join(","), "*").to_owned();
    if more {
        shown.push_str(&format!(" + {} more...", rules.len() - 3));
    }
    cells![
        name(object),
        object.at("spec.ingressClassName").as_str().unwrap_or("<none>"),
        shown,
        balancers(object.at("status")).join(","),
        if object.list("spec.tls").is_empty() { "80" } else { "80, 443" },
        age(object, now),
    ]
}

pub fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let default = object.at("metadata.annotations").key("ingressclass.kubernetes.io/is-default-class") == "true";
    let parameters = object.at("spec.parameters");
    let shown = match (parameters.is_null(), parameters.at("apiGroup").as_str()) {
        (true, _) => "<none>".to_owned(),
        (false, Some(group)) => format!("{}.{group}/{}", parameters.text("kind"), parameters.text("name")),
        (false, None) => format!("{}/{}", parameters.text("kind"), parameters.text("name")),
    };
    let name = format!("{}{}", object.text("metadata.name"), if default { " (default)" } else { "" });
    cells![name, object.text("spec.controller"), shown, age(object, now)]
}

pub fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), table::selector_or_none(object.at("spec.podSelector")), age(object, now)]
}

pub fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = object.at("spec.parentRef");
    let mut shown = "<none>".to_owned();
    if !parent.is_null() {
        shown = parent.text("resource").to_lowercase();
        for (text, separator) in [("group", '.'), ("namespace", '/'), ("name", '/')] {
            if !parent.text(text).is_empty() {
                shown.push(separator);
                shown.push_str(&if text == "group" {
                    parent.text(text).to_lowercase()
                } else {
                    parent.text(text).to_owned()
                });
            }
        }
    }
    // One cell more than there are columns, as upstream has it.
    cells![name(object), shown, age(object, now)]
}

pub fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let ranges: Vec<&str> = object.list("spec.cidrs").iter().filter_map(Value::as_str).collect();
    cells![name(object), ranges.join(","), age(object, now)]
}

pub fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = object.list("status.conditions").iter().rfind(|c| c.text("type") == "Ready");
    let mut status = match ready.map(|c| c.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.flag("spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in object.at("metadata.labels").entries() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => roles.push(role),
            None if key == "kubernetes.io/role" => roles.push(value.as_str().unwrap_or_default()),
            None => {}
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    let address = |type_: &str| {
        let found = object.list("status.addresses").iter().find(|a| a.text("type") == type_);
        found.map_or("<none>", |a| a.text("address")).to_owned()
    };
    let info = object.at("status.nodeInfo");
    let mut kernel = or(info.text("kernelVersion"), "<unknown>").to_owned();
    if !info.text("architecture").is_empty() {
        kernel.push_str(&format!(" ({})", info.text("architecture")));
    }
    cells![
        name(object),
        status,
        or(&roles.join(","), "<none>"),
        age(object, now),
        info.text("kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        or(info.text("osImage"), "<unknown>"),
        kernel,
        or(info.text("containerRuntimeVersion"), "<unknown>"),
    ]
}

pub fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.text("status.phase"), age(object, now)]
}

pub fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.text("type"), object.at("data").entries().len(), age(object, now)]
}

pub fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = object.at("data").entries().len() + object.at("binaryData").entries().len();
    cells![name(object), keys, age(object, now)]
}

/// An event as the core group has it.
pub fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let times = [object.text("firstTimestamp"), object.text("lastTimestamp")];
    let source = [object.text("source.component"), object.text("source.host")];
    let text = [object.text("message"), object.text("reportingComponent")];
    event_row(object, now, object.at("involvedObject"), times, object.int("count"), source, text)
}

/// An event as `events.k8s.io` has it.
pub fn new_event(object: &Value, now: Timestamp) -> Vec<Value> {
    let times = [object.text("deprecatedFirstTimestamp"), object.text("deprecatedLastTimestamp")];
    let source = [object.text("deprecatedSource.component"), object.text("deprecatedSource.host")];
    let text = [object.text("note"), object.text("reportingController")];
    event_row(object, now, object.at("regarding"), times, object.int("deprecatedCount"), source, text)
}

fn event_row(
    object: &Value,
    now: Timestamp,
    about: &Value,
    [first, last]: [&str; 2],
    count: i64,
    [component, host]: [&str; 2],
    [message, controller]: [&str; 2],
) -> Vec<Value> {
    let first = table::since(or(first, object.text("eventTime")), now);
    let mut seen = if last.is_empty() { first.clone() } else { table::since(last, now) };
    let mut count = if count == 0 { 1 } else { count };
    if object.has("series") {
        seen = table::since(object.text("series.lastObservedTime"), now);
        count = object.int("series.count");
    }
    let kind = about.text("kind").to_lowercase();
    let target = match about.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = match (or(component, controller), or(host, object.text("reportingInstance"))) {
        (component, "") => component.to_owned(),
        (component, instance) => format!("{component}, {instance}"),
    };
    cells![
        seen,
        object.text("type"),
        object.text("reason"),
        target,
        about.text("fieldPath"),
        source,
        message.trim(),
        first,
        count,
        name(object),
    ]
}

/// `RWO,ROX,RWX,RWOP`, in this order, each once.
fn access_modes(modes: &Value) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.items().iter().any(|m| m == mode);
    SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The class by its old annotation or its field.
fn storage_class_of(object: &Value) -> String {
    let old = object.at("metadata.annotations").key("volume.beta.kubernetes.io/storage-class");
    old.as_str().unwrap_or(object.text("spec.storageClassName")).to_owned()
}

fn phase(object: &Value) -> &str {
    if object.has("metadata.deletionTimestamp") { "Terminating" } else { object.text("status.phase") }
}

fn text_or<'a>(object: &'a Value, path: &str, instead: &'a str) -> &'a str {
    object.at(path).as_str().unwrap_or(instead)
}

pub fn persistent_volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = object.at("spec.claimRef");
    cells![
        name(object),
        text_or(object, "spec.capacity.storage", "0"),
        access_modes(object.at("spec.accessModes")),
        object.text("spec.persistentVolumeReclaimPolicy"),
        phase(object),
        if claim.is_null() { String::new() } else { format!("{}/{}", claim.text("namespace"), claim.text("name")) },
        storage_class_of(object),
        text_or(object, "spec.volumeAttributesClassName", "<unset>"),
        object.text("status.reason"),
        age(object, now),
        text_or(object, "spec.volumeMode", "<unset>"),
    ]
}

pub fn persistent_volume_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let volume = object.text("spec.volumeName");
    let bound = !volume.is_empty();
    cells![
        name(object),
        phase(object),
        volume,
        if bound { text_or(object, "status.capacity.storage", "0") } else { "" },
        if bound { access_modes(object.at("status.accessModes")) } else { String::new() },
        storage_class_of(object),
        text_or(object, "spec.volumeAttributesClassName", "<unset>"),
        age(object, now),
        text_or(object, "spec.volumeMode", "<unset>"),
    ]
}

pub fn component_status(object: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = object.list("conditions").iter().find(|c| c.text("type") == "Healthy").unwrap_or(&Value::Null);
    let status = match healthy.text("status") {
        "" => "Unknown",
        "True" => "Healthy",
        _ => "Unhealthy",
    };
    cells![name(object), status, healthy.text("message"), healthy.text("error")]
}

pub fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| -> Vec<&Value> {
        object.list("subjects").iter().filter(|subject| subject.text("kind") == kind).collect()
    };
    let names = |kind: &str| of(kind).iter().map(|subject| subject.text("name")).collect::<Vec<_>>().join(", ");
    let accounts: Vec<String> = of("ServiceAccount")
        .iter()
        .map(|subject| format!("{}/{}", subject.text("namespace"), subject.text("name")))
        .collect();
    cells![
        name(object),
        format!("{}/{}", object.text("roleRef.kind"), object.text("roleRef.name")),
        age(object, now),
        names("User"),
        names("Group"),
        accounts.join(", "),
    ]
}

pub fn certificate_signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let has = |type_: &str| object.list("status.conditions").iter().any(|c| c.text("type") == type_);
    let mut state = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !object.text("status.certificate").is_empty() {
        state.push_str(",Issued");
    }
    cells![
        name(object),
        age(object, now),
        or(object.text("spec.signerName"), "<none>"),
        object.text("spec.username"),
        object.opt_int("spec.expirationSeconds").map_or("<none>".to_owned(), table::human_duration),
        state,
    ]
}

pub fn cluster_trust_bundle(object: &Value, _: Timestamp) -> Vec<Value> {
    cells![name(object), or(object.text("spec.signerName"), "<none>")]
}

pub fn pod_certificate_request(object: &Value, _: Timestamp) -> Vec<Value> {
    let states = object.list("status.conditions").iter().rev().map(|c| c.text("type"));
    let state = states.into_iter().find(|type_| ["Issued", "Denied", "Failed"].contains(type_)).unwrap_or("Pending");
    cells![
        name(object),
        object.text("spec.podName"),
        object.text("spec.serviceAccountName"),
        object.text("spec.nodeName"),
        object.text("spec.signerName"),
        state,
        table::labels(object.at("spec.unverifiedUserAnnotations")),
    ]
}

pub fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.text("spec.holderIdentity"), age(object, now)]
}

pub fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let used = object.at("status.used");
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in object.at("status.hard").entries() {
        let used = used.key(resource).as_str().unwrap_or("0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"));
        if resource.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
    }
    cells![name(object), requests.join(", "), limits.join(", "), age(object, now)]
}

pub fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![
        name(object),
        object.int("value"),
        object.flag("globalDefault"),
        age(object, now),
        object.text("preemptionPolicy")
    ]
}

pub fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.text("handler"), age(object, now)]
}

pub fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![
        name(object),
        object.text("provisioner"),
        or(object.text("reclaimPolicy"), "Delete"),
        or(object.text("volumeBindingMode"), "Immediate"),
        object.flag("allowVolumeExpansion"),
        age(object, now),
    ]
}

pub fn volume_attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.text("driverName"), age(object, now)]
}

pub fn volume_attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![
        name(object),
        object.text("spec.attacher"),
        object.text("spec.source.persistentVolumeName"),
        object.text("spec.nodeName"),
        object.flag("status.attached"),
        age(object, now),
    ]
}

pub fn csi_node(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.list("spec.drivers").len(), age(object, now)]
}

pub fn csi_driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let modes: Vec<&str> = spec.list("volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let audiences: Vec<&str> = spec.list("tokenRequests").iter().map(|request| request.text("audience")).collect();
    cells![
        name(object),
        spec.at("attachRequired").as_bool().unwrap_or(true),
        spec.flag("podInfoOnMount"),
        spec.flag("storageCapacity"),
        if spec.has("tokenRequests") { audiences.join(",") } else { "<unset>".to_owned() },
        spec.flag("requiresRepublish"),
        or(&modes.join(","), "<none>"),
        age(object, now),
    ]
}

pub fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.list("webhooks").len(), age(object, now)]
}

pub fn validating_admission_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.list("spec.validations").len(), param_kind(object), age(object, now)]
}

pub fn mutating_admission_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.list("spec.mutations").len(), param_kind(object), age(object, now)]
}

fn param_kind(object: &Value) -> String {
    let kind = object.at("spec.paramKind");
    if kind.is_null() {
        return "<unset>".to_owned();
    }
    format!("{}/{}", kind.text("apiVersion"), kind.text("kind"))
}

pub fn admission_policy_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let param = object.at("spec.paramRef");
    let shown = match (param.text("name"), param.text("namespace")) {
        ("", _) if param.has("selector") => selector_as_go_prints_it(param.at("selector")),
        ("", _) => "<unset>".to_owned(),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    };
    cells![name(object), object.text("spec.policyName"), shown, age(object, now)]
}

/// The struct's own `String`, which upstream shows for want of anything better.
fn selector_as_go_prints_it(selector: &Value) -> String {
    let labels = selector.at("matchLabels").entries().into_iter();
    let labels: String = labels.map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default())).collect();
    let expressions = selector.list("matchExpressions").iter().map(|of| {
        let values: Vec<&str> = of.list("values").iter().filter_map(Value::as_str).collect();
        let (key, operator) = (of.text("key"), of.text("operator"));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels,
        expressions.collect::<String>()
    )
}

pub fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = object.list("status.conditions").iter().find(|c| c.text("type") == "Dangling");
    cells![
        name(object),
        object.text("spec.priorityLevelConfiguration.name"),
        object.int("spec.matchingPrecedence"),
        text_or(object, "spec.distinguisherMethod.type", "<none>"),
        age(object, now),
        dangling.map_or("?", |c| c.text("status")),
    ]
}

pub fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let queuing = object.at("spec.limited.limitResponse.queuing");
    let number = |of: &Value, field: &str| if of.is_null() { Value::from("<none>") } else { of.int(field).into() };
    cells![
        name(object),
        object.text("spec.type"),
        number(object.at("spec.limited"), "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        age(object, now),
    ]
}

pub fn resource_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let deleted = object.has("metadata.deletionTimestamp");
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if object.has("status.allocation") {
        states.push("allocated");
        if !object.list("status.reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    cells![name(object), states.join(","), age(object, now)]
}

pub fn resource_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    cells![name(object), spec.text("nodeName"), spec.text("driver"), spec.text("pool.name"), age(object, now)]
}

pub fn device_taint_rule(object: &Value, now: Timestamp) -> Vec<Value> {
    let taint = object.at("spec.taint");
    let added = taint.text("timeAdded");
    cells![
        name(object),
        taint.text("key"),
        taint.text("value"),
        taint.text("effect"),
        if added.is_empty() { String::new() } else { table::since(added, now) },
        age(object, now),
    ]
}

pub fn storage_version_migration(object: &Value, _: Timestamp) -> Vec<Value> {
    let resource = match object.text("spec.resource.group") {
        "" => object.text("spec.resource.resource").to_owned(),
        group => format!("{}.{group}", object.text("spec.resource.resource")),
    };
    let met = object.list("status.conditions").iter().rev().filter(|c| c.text("status") == "True");
    let state = met.map(|c| c.text("type")).find(|type_| ["Running", "Failed", "Succeeded"].contains(type_));
    cells![name(object), resource, state.unwrap_or("Unknown")]
}

pub fn scale(object: &Value, now: Timestamp) -> Vec<Value> {
    cells![name(object), object.int("spec.replicas"), object.int("status.replicas"), age(object, now)]
}

/// A horizontal pod autoscaler, as either of its versions has it.
pub fn horizontal_pod_autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let targets: Vec<String> = match (spec.list("metrics"), spec.opt_int("targetCPUUtilizationPercentage")) {
        ([], Some(target)) => {
            let current = object.opt_int("status.currentCPUUtilizationPercentage");
            vec![format!("cpu: {}/{target}%", current.map_or("<unknown>".to_owned(), |c| format!("{c}%")))]
        }
        (metrics, _) => {
            let statuses = object.list("status.currentMetrics");
            metrics.iter().enumerate().map(|(at, m)| metric(m, statuses.get(at).unwrap_or(&Value::Null))).collect()
        }
    };
    cells![
        name(object),
        format!("{}/{}", spec.text("scaleTargetRef.kind"), spec.text("scaleTargetRef.name")),
        or(&table::some_of(&targets, 2, ", "), "<none>"),
        spec.opt_int("minReplicas").map_or("<unset>".to_owned(), |n| n.to_string()),
        spec.int("maxReplicas"),
        object.int("status.currentReplicas"),
        age(object, now),
    ]
}

fn metric(metric: &Value, status: &Value) -> String {
    let (field, named) = match metric.text("type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (of, target, current) = (metric.at(field), metric.at(field).at("target"), status.at(field).at("current"));
    let unknown = "<unknown>";
    // What a status says nothing of is Go's nil.
    let told = |field_of: &str| match status.has(field) {
        true => current.at(field_of).as_str().unwrap_or("<nil>"),
        false => unknown,
    };
    let text = match (named, target.at("averageValue").as_str(), target.opt_int("averageUtilization")) {
        (true, Some(average), _) => format!("{}/{average}", told("averageValue")),
        (true, None, target) => {
            let percent = |n: Option<i64>, none: &str| n.map_or(none.to_owned(), |n| format!("{n}%"));
            let now = percent(current.opt_int("averageUtilization"), unknown);
            format!("{now}/{}", percent(target, "<auto>"))
        }
        (false, Some(average), _) if field == "pods" => format!("{}/{average}", told("averageValue")),
        (false, Some(average), _) => {
            format!("{}/{average} (avg)", current.at("averageValue").as_str().unwrap_or(unknown))
        }
        (false, None, _) => format!("{}/{}", told("value"), target.at("value").as_str().unwrap_or("<nil>")),
    };
    if named { format!("{}: {text}", of.text("name")) } else { text }
}

pub fn custom_resource_definition(object: &Value, _: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let served = spec.list("versions").iter().filter(|version| version.flag("served"));
    let mut versions: Vec<String> = served
        .map(|version| format!("{}{}", version.text("name"), if version.flag("storage") { "(storage)" } else { "" }))
        .collect();
    versions.sort();
    let short: Vec<&str> = spec.list("names.shortNames").iter().filter_map(Value::as_str).collect();
    let established = object.list("status.conditions").iter().find(|c| c.text("type") == "Established");
    cells![
        name(object),
        spec.text("scope"),
        versions.join(","),
        object.text("metadata.creationTimestamp"),
        spec.text("group"),
        spec.text("names.kind"),
        short.join(","),
        established.is_some_and(|c| c.text("status") == "True"),
    ]
}

pub fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = object.at("spec.service");
    let shown = match service.is_null() {
        true => "Local".to_owned(),
        false => format!("{}/{}", service.text("namespace"), service.text("name")),
    };
    let available = object.list("status.conditions").iter().find(|c| c.text("type") == "Available");
    let available = available.map_or("Unknown".to_owned(), |condition| match condition.text("status") {
        "True" => "True".to_owned(),
        status => format!("{status} ({})", condition.text("reason")),
    });
    cells![name(object), shown, available, age(object, now)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_that_are_selected_are_shown_as_go_prints_them() {
        let selector = json!({
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]}],
        });
        let row =
            admission_policy_binding(&json!({"spec": {"paramRef": {"selector": selector}}}), Timestamp::UNIX_EPOCH);
        let shown = "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:\
                     []LabelSelectorRequirement{LabelSelectorRequirement{Key:c,Operator:In,Values:[x y],},},}";
        assert_eq!(row[2], shown);
    }

    #[test]
    fn what_a_metric_does_not_tell_is_nil() {
        let target = json!({"type": "External", "external": {"target": {"type": "Value", "value": "5"}}});
        assert_eq!(metric(&target, &Value::Null), "<unknown>/5");
        assert_eq!(metric(&target, &json!({"external": {"current": {"averageValue": "3"}}})), "<nil>/5");
        let target = json!({"type": "Pods", "pods": {"target": {"type": "AverageValue", "averageValue": "5"}}});
        assert_eq!(metric(&target, &json!({"pods": {"current": {"averageValue": "3"}}})), "3/5");
    }
}
