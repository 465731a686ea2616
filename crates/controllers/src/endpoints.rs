//! Where the pods behind a Service are: its Endpoints (one object of its name) and its EndpointSlices. Services without a
//! selector are left to whoever writes their endpoints; see [`crate::endpoint_mirror`].

use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Map, Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::endpoint_slices::{self, Group, MANAGED_BY, SERVICE_NAME, Wanted};
use crate::kinds::{ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES};
use crate::lean::Lent;
use crate::mirror::{Key, Mirror};

/// Addresses in one Endpoints object; what is more is only in the slices.
const ADDRESSES_MAX: usize = 1000;
/// The label that tells headless Services' endpoints.
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED: &str = "endpoints.kubernetes.io/managed-by";
const ZONE: &str = "topology.kubernetes.io/zone";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

pub struct Endpoints;

/// The sources.
const ALL_SERVICES: usize = 0;
const ALL_PODS: usize = 1;
const ALL_ENDPOINTS: usize = 2;
const ALL_SLICES: usize = 3;
const ALL_NODES: usize = 4;

impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::all(SERVICES),
            Source::all(PODS).lean(lean_pod),
            Source::all(ENDPOINTS),
            Source::labels(ENDPOINT_SLICES, &format!("{MANAGED_BY}={CONTROLLER}")),
            Source::all(NODES).lean(|node| {
                let zone = meta::entry(node, "labels", ZONE).unwrap_or_default();
                let labels = Lent::object([(ZONE, Lent::Text(zone))]);
                Some(Lent::object([(
                    "metadata",
                    Lent::object([("name", Lent::Text(meta::name(node))), ("labels", labels)]),
                )]))
            }),
        ]
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let namespace = meta::namespace(object);
        let key = |name: &str| (namespace.to_string(), name.to_string());
        // Endpoints that no Service has are somebody's own.
        let served = |name: &str| seen[ALL_SERVICES].get(namespace, name).map(|_| key(name)).into_iter().collect();
        match source {
            ALL_SERVICES => vec![key(meta::name(object))],
            ALL_PODS => of_pod(object, seen).collect(),
            ALL_ENDPOINTS => served(meta::name(object)),
            ALL_SLICES => served(meta::entry(object, "labels", SERVICE_NAME).unwrap_or_default()),
            _ => {
                let there = |pod: &&Value| pod["spec"]["nodeName"] == meta::name(object);
                seen[ALL_PODS].iter().filter(there).flat_map(|pod| of_pod(pod, seen)).collect()
            }
        }
    }

    fn decide(&self, (namespace, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let there = seen[ALL_ENDPOINTS].get(namespace, name);
        let Some(service) = seen[ALL_SERVICES].get(namespace, name) else {
            let (namespace, name) = (namespace.clone(), name.clone());
            let uid = there.map(|endpoints| meta::uid(endpoints).to_string());
            return uid.map(|uid| Action::Delete { resource: ENDPOINTS, namespace, name, uid }).into_iter().collect();
        };
        if !has_selector(service) {
            return Vec::new();
        }
        let behind = |pod: &&Value| is_selected(service, pod) && can_be_reached(pod);
        let pods: Vec<&Value> = seen[ALL_PODS].of_namespace(namespace).filter(behind).collect();
        let mut actions = Vec::new();
        actions.extend(endpoints(service, &pods, there));
        if service["spec"]["type"] != "ExternalName" {
            let wanted = slices(service, &pods, &seen[ALL_NODES]);
            let of_service = |slice: &&Value| meta::entry(slice, "labels", SERVICE_NAME) == Some(name);
            let present: Vec<&Value> = seen[ALL_SLICES].of_namespace(namespace).filter(of_service).collect();
            if !endpoint_slices::reconcile(&wanted, &present).is_empty() {
                actions.push(Action::EndpointSlices(Box::new(wanted)));
            }
        }
        actions
    }
}

/// The Services that a pod is behind, or was.
fn of_pod<'a>(pod: &'a Value, seen: &'a [Mirror]) -> impl Iterator<Item = Key> + use<'a> {
    let namespace = meta::namespace(pod);
    let is = move |endpoint: &Value| endpoint["targetRef"]["name"] == meta::name(pod);
    let was = move |slice: &&Value| meta::items_at(slice, &["endpoints"]).iter().any(is);
    let before = seen[ALL_SLICES].of_namespace(namespace).filter(was);
    let before = before.filter_map(|slice| meta::entry(slice, "labels", SERVICE_NAME));
    let now = seen[ALL_SERVICES].of_namespace(namespace).filter(|service| is_selected(service, pod)).map(meta::name);
    now.chain(before).map(move |name| (namespace.to_string(), name.to_string()))
}

pub fn has_selector(service: &Value) -> bool {
    service["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty())
}

fn is_selected(service: &Value, pod: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object().into_iter().flatten();
    has_selector(service) && selector.into_iter().all(|(k, v)| meta::entry(pod, "labels", k) == v.as_str())
}

fn is_headless(service: &Value) -> bool {
    matches!(meta::text_at(service, &["spec", "clusterIP"]), "" | "None")
}

fn publishes_not_ready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

/// It has an address and is not through.
fn can_be_reached(pod: &Value) -> bool {
    let over = matches!(meta::text_at(pod, &["status", "phase"]), "Succeeded" | "Failed");
    !over && !addresses(pod).is_empty()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = meta::items_at(pod, &["status", "conditions"]);
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn addresses(pod: &Value) -> Vec<&str> {
    let all = meta::items_at(pod, &["status", "podIPs"]).iter().filter_map(|ip| ip["ip"].as_str());
    let mut all: Vec<&str> = all.filter(|ip| !ip.is_empty()).collect();
    let first = meta::text_at(pod, &["status", "podIP"]);
    if all.is_empty() && !first.is_empty() {
        all.push(first);
    }
    all
}

pub fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// The families in which a Service is reached, the first one first.
fn families(service: &Value) -> Vec<&str> {
    let given = meta::items_at(service, &["spec", "ipFamilies"]);
    let given: Vec<&str> = given.iter().filter_map(Value::as_str).collect();
    match meta::text_at(service, &["spec", "clusterIP"]) {
        _ if !given.is_empty() => given,
        "" | "None" => vec!["IPv4"],
        address => vec![family(address)],
    }
}

/// The number of a Service's port in a pod; none where the pod has no port of that name.
fn port_in(pod: &Value, port: &Value) -> Option<i64> {
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_string();
    match &port["targetPort"] {
        Value::String(name) => {
            let is_sidecar = |container: &&Value| container["restartPolicy"] == "Always";
            let sidecars = meta::items_at(pod, &["spec", "initContainers"]).iter().filter(is_sidecar);
            let containers = meta::items_at(pod, &["spec", "containers"]).iter().chain(sidecars);
            let mut ports = containers.flat_map(|container| meta::items_at(container, &["ports"]));
            let found = ports.find(|own| own["name"] == *name.as_str() && protocol(own) == protocol(port));
            found.and_then(|own| own["containerPort"].as_i64())
        }
        Value::Number(number) if number.as_i64() != Some(0) => number.as_i64(),
        _ => port["port"].as_i64(),
    }
}

/// A port as endpoints tell it. Slices name every port, if only with nothing.
fn endpoint_port(port: &Value, number: i64, always_named: bool) -> Value {
    let mut out = json!({"port": number, "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    let name = port["name"].as_str().unwrap_or_default();
    if always_named || !name.is_empty() {
        out["name"] = name.into();
    }
    if port["appProtocol"].is_string() {
        out["appProtocol"] = port["appProtocol"].clone();
    }
    out
}

/// Its name in a headless Service's domain, where it has one.
fn hostname<'a>(service: &Value, pod: &'a Value) -> Option<&'a str> {
    let name = meta::text_at(pod, &["spec", "hostname"]);
    (!name.is_empty() && meta::text_at(pod, &["spec", "subdomain"]) == meta::name(service)).then_some(name)
}

fn target(pod: &Value) -> Value {
    json!({"kind": "Pod", "namespace": meta::namespace(pod), "name": meta::name(pod), "uid": meta::uid(pod)})
}

/// Creates or corrects the Endpoints object of a Service.
fn endpoints(service: &Value, pods: &[&Value], there: Option<&Value>) -> Option<Action> {
    let everybody = publishes_not_ready(service);
    let family_wanted = families(service)[0];
    // For each port, who has it: (port, ready or not, address).
    let mut ports: Vec<(Value, [Vec<Value>; 2])> = Vec::new();
    let no_ports = meta::items_at(service, &["spec", "ports"]).is_empty();
    for pod in pods.iter().filter(|pod| everybody || !meta::is_deleting(pod)) {
        let Some(ip) = addresses(pod).into_iter().find(|ip| family(ip) == family_wanted) else { continue };
        let mut address = json!({"ip": ip, "targetRef": target(pod)});
        let node = meta::text_at(pod, &["spec", "nodeName"]);
        if !node.is_empty() {
            address["nodeName"] = node.into();
        }
        if let Some(hostname) = hostname(service, pod) {
            address["hostname"] = hostname.into();
        }
        let side = usize::from(!everybody && !is_ready(pod));
        let own = meta::items_at(service, &["spec", "ports"]).iter();
        let own = own.filter_map(|port| Some(endpoint_port(port, port_in(pod, port)?, false)));
        // A headless Service may do without ports.
        let portless = (no_ports && is_headless(service)).then_some(Value::Null);
        for port in own.chain(portless) {
            let at = ports.iter().position(|(known, _)| *known == port).unwrap_or_else(|| {
                ports.push((port, Default::default()));
                ports.len() - 1
            });
            ports[at].1[side].push(address.clone());
        }
    }
    // Ports that the same pods have are told together.
    let mut subsets: Vec<([Vec<Value>; 2], Vec<Value>)> = Vec::new();
    for (port, who) in ports {
        match subsets.iter_mut().find(|(known, _)| *known == who) {
            Some((_, ports)) => ports.push(port),
            None => subsets.push((who, vec![port])),
        }
    }
    let truncated = truncate(&mut subsets);
    let subsets = subsets.into_iter().map(|([ready, not_ready], ports)| {
        let mut subset = Map::new();
        let parts = [("addresses", ready), ("notReadyAddresses", not_ready)];
        subset.extend(
            parts.into_iter().filter(|(_, all)| !all.is_empty()).map(|(field, all)| (field.into(), all.into())),
        );
        if ports != [Value::Null] {
            subset.insert("ports".into(), ports.into());
        }
        Value::Object(subset)
    });
    let subsets: Vec<Value> = subsets.collect();
    let mut labels = meta_map(service, "labels");
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels.insert(MANAGED.into(), "endpoint-controller".into());
    let mut annotations = there.map(|there| meta_map(there, "annotations")).unwrap_or_default();
    annotations.shift_remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    let Some(there) = there else {
        let mut metadata =
            json!({"name": meta::name(service), "namespace": meta::namespace(service), "labels": labels});
        if !annotations.is_empty() {
            metadata["annotations"] = annotations.into();
        }
        let mut object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata});
        if !subsets.is_empty() {
            object["subsets"] = subsets.into();
        }
        return Some(Action::Create { resource: ENDPOINTS, object });
    };
    let as_wanted = meta::items_at(there, &["subsets"]) == subsets
        && meta_map(there, "labels") == labels
        && meta_map(there, "annotations") == annotations;
    if as_wanted {
        return None;
    }
    let mut object = there.clone();
    object["metadata"]["labels"] = labels.into();
    object["metadata"]["annotations"] = annotations.into();
    object["subsets"] = subsets.into();
    Some(Action::Replace { resource: ENDPOINTS, object })
}

/// Leaves no more than [`ADDRESSES_MAX`] addresses, ready ones before others; whether there were more.
fn truncate(subsets: &mut [([Vec<Value>; 2], Vec<Value>)]) -> bool {
    let total: usize = subsets.iter().map(|([ready, not_ready], _)| ready.len() + not_ready.len()).sum();
    let mut room = ADDRESSES_MAX;
    for side in 0..2 {
        for (who, _) in subsets.iter_mut() {
            who[side].truncate(room);
            room -= who[side].len();
        }
    }
    total > ADDRESSES_MAX
}

fn meta_map(object: &Value, field: &str) -> Map<String, Value> {
    object["metadata"][field].as_object().cloned().unwrap_or_default()
}

/// What the slices of a Service are to hold.
fn slices(service: &Value, pods: &[&Value], nodes: &Mirror) -> Wanted {
    let everybody = publishes_not_ready(service);
    let mut groups: Vec<Group> = Vec::new();
    for family_wanted in families(service) {
        let mut any = false;
        for pod in pods {
            let own: Vec<&str> = addresses(pod).into_iter().filter(|ip| family(ip) == family_wanted).collect();
            let node_name = meta::text_at(pod, &["spec", "nodeName"]);
            let node = nodes.get("", node_name);
            // Where a pod's node is unknown, its zone is: it is told of when the node is.
            if own.is_empty() || (node.is_none() && !everybody) {
                continue;
            }
            let ports = meta::items_at(service, &["spec", "ports"]).iter();
            let ports = ports.filter_map(|port| Some(endpoint_port(port, port_in(pod, port)?, true)));
            let endpoint = endpoint(service, pod, own, node);
            endpoint_slices::add(&mut groups, family_wanted, ports.collect(), endpoint);
            any = true;
        }
        // A slice without endpoints says that somebody looked.
        if !any {
            groups.push(Group { address_type: family_wanted.to_string(), ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    let mut labels = meta_map(service, "labels");
    for reserved in [HEADLESS, SERVICE_NAME, MANAGED_BY] {
        labels.shift_remove(reserved);
    }
    if is_headless(service) {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels.insert(SERVICE_NAME.into(), meta::name(service).into());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    Wanted {
        namespace: meta::namespace(service).to_string(),
        name: meta::name(service).to_string(),
        manager: CONTROLLER,
        labels,
        annotations: Map::new(),
        owner: json!({
            "apiVersion": "v1", "kind": "Service", "name": meta::name(service), "uid": meta::uid(service),
            "controller": true, "blockOwnerDeletion": true,
        }),
        groups,
    }
}

fn endpoint(service: &Value, pod: &Value, addresses: Vec<&str>, node: Option<&Value>) -> Value {
    let (serving, terminating) = (is_ready(pod), meta::is_deleting(pod));
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let mut out = json!({
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target(pod),
    });
    let node_name = meta::text_at(pod, &["spec", "nodeName"]);
    if !node_name.is_empty() {
        out["nodeName"] = node_name.into();
    }
    let zone = node.and_then(|node| meta::entry(node, "labels", ZONE)).unwrap_or_default();
    if !zone.is_empty() {
        out["zone"] = zone.into();
    }
    if let Some(hostname) = hostname(service, pod) {
        out["hostname"] = hostname.into();
    }
    let near = meta::text_at(service, &["spec", "trafficDistribution"]);
    let mut hints = Map::new();
    if ready && !zone.is_empty() && matches!(near, "PreferClose" | "PreferSameZone" | "PreferSameNode") {
        hints.insert("forZones".into(), json!([{"name": zone}]));
    }
    if ready && !node_name.is_empty() && near == "PreferSameNode" {
        hints.insert("forNodes".into(), json!([{"name": node_name}]));
    }
    if !hints.is_empty() {
        out["hints"] = hints.into();
    }
    out
}

/// What endpoints tell of a pod; of one without an address nothing but its name.
fn lean_pod(pod: &Value) -> Option<Lent<'_>> {
    if !can_be_reached(pod) {
        return None;
    }
    let containers = |list: &str| {
        let with_ports = meta::items_at(pod, &["spec", list]).iter().filter(|c| !c["ports"].is_null());
        Lent::List(with_ports.map(|container| Lent::fields(container, &["restartPolicy", "ports"])).collect())
    };
    let of_spec = |field: &str| Lent::Part(&pod["spec"][field]);
    let ready = meta::items_at(pod, &["status", "conditions"]).iter().filter(|c| c["type"] == "Ready");
    let ips = addresses(pod).into_iter().map(|ip| Lent::object([("ip", Lent::Text(ip))]));
    Some(Lent::object([
        ("metadata", Lent::metadata(pod, &["name", "namespace", "uid", "labels", "deletionTimestamp"])),
        (
            "spec",
            Lent::object([
                ("nodeName", of_spec("nodeName")),
                ("hostname", of_spec("hostname")),
                ("subdomain", of_spec("subdomain")),
                ("containers", containers("containers")),
                ("initContainers", containers("initContainers")),
            ]),
        ),
        (
            "status",
            Lent::object([
                ("conditions", Lent::List(ready.map(|c| Lent::fields(c, &["type", "status"])).collect())),
                ("podIPs", Lent::List(ips.collect())),
            ]),
        ),
    ]))
}
