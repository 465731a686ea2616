//! What a client is warned of though it is accepted: what is deprecated, does nothing, or is said twice.

use std::fmt::Arguments;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::prelude::Pem;

use super::annotations::{self, APP_ARMOR, At, SECCOMP_CONTAINER, SECCOMP_POD};
use super::read::Read;
use super::{check, services};
use crate::kind::go_quote;
use crate::validate;

/// Labels of nodes that have another name now.
const OLD_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// Kinds of volumes that are going or gone.
const OLD_VOLUMES: &[(&str, &str)] = &[
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

/// Annotations that are no longer read, and the fields that are.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const OLD_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const OLD_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
const ENFORCE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Pods are changed by programs, who are not warned.
pub fn pod(new: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let name = validate::dns1123_label(new.text("metadata.name"));
    let mut out = Vec::new();
    if !name.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            name.join(" ")
        ));
    }
    out.extend(pod_spec(new, ""));
    out
}

pub fn pod_template(new: &Value, old: Option<&Value>) -> Vec<String> {
    template(new, old, "template")
}

/// Workloads with a template at `spec.template`.
pub fn workload(new: &Value, old: Option<&Value>) -> Vec<String> {
    template(new, old, "spec.template")
}

/// It counts the changes of its template for themselves.
pub fn daemon_set(new: &Value, old: Option<&Value>) -> Vec<String> {
    match old {
        Some(old) if old.at("spec.template") == new.at("spec.template") => Vec::new(),
        _ => pod_spec(new.at("spec.template"), "spec.template."),
    }
}

/// Those whose name goes on into the names of pods, however long it is.
pub fn named_workload(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = pod_names(new, old);
    out.extend(workload(new, old));
    out
}

fn pod_names(new: &Value, old: Option<&Value>) -> Vec<String> {
    let wrong = validate::dns1123_label(new.text("metadata.name"));
    if old.is_some() || wrong.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
         recommended: [{}]",
        wrong.join(" ")
    )]
}

pub fn stateful_set(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = workload(new, old);
    // Upstream names the claim's spec on updates only, and with a capital.
    let below = if old.is_some() { ".Spec" } else { "" };
    for (nth, claim) in new.list("spec.volumeClaimTemplates").iter().enumerate() {
        let path = format_args!("spec.volumeClaimTemplates[{nth}]{below}.resources.requests[storage]");
        fractional(&mut out, claim.at("spec.resources.requests").key("storage"), path);
    }
    if new.int("spec.revisionHistoryLimit") < 0 {
        out.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .into(),
        );
    }
    out
}

pub fn job(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = pod_names(new, old);
    out.extend(job_spec(new, old, "spec"));
    out
}

pub fn cron_job(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = pod_names(new, old);
    out.extend(job_spec(new, old, "spec.jobTemplate.spec"));
    out
}

fn job_spec(new: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    const COMPLETIONS: i64 = 100_000;
    const PARALLELISM: i64 = 10_000;
    let spec = new.at(path);
    let mut out = Vec::new();
    let many = spec.int("completions") > COMPLETIONS && spec.int("parallelism") > PARALLELISM;
    let changed = old.is_none_or(|old| old.at("spec") != new.at("spec"));
    if many && spec.text("completionMode") == "Indexed" && changed {
        out.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    out.extend(template(new, old, &format!("{path}.template")));
    out
}

pub fn node(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    if !new.text("spec.externalID").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    for (at, range) in new.list("spec.podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        out.extend(validate::cidr_warning(range, &format!("spec.podCIDRs[{at}]")));
    }
    out
}

pub fn runtime_class(new: &Value, _: Option<&Value>) -> Vec<String> {
    let labels = new.at("scheduling.nodeSelector").entries().into_iter();
    labels.filter_map(|(label, _)| Some(format!("scheduling.nodeSelector: {}", old_label(label)?))).collect()
}

pub fn storage_class(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    for (nth, term) in new.list("allowedTopologies").iter().enumerate() {
        for (at, expression) in term.list("matchLabelExpressions").iter().enumerate() {
            if let Some(why) = old_label(expression.text("key")) {
                out.push(format!("allowedTopologies[{nth}].matchLabelExpressions[{at}].key: {why}"));
            }
        }
    }
    out
}

pub fn storage_capacity(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    old_keys(&mut out, new.at("nodeTopology"), format_args!("nodeTopology"));
    for (label, _) in new.at("nodeTopology.matchLabels").entries() {
        out.extend(old_label(label).map(|why| format!("nodeTopology.matchLabels.{label}: {why}")));
    }
    out
}

/// Expressions over labels of nodes.
fn old_keys(out: &mut Vec<String>, term: &Value, path: Arguments<'_>) {
    for (nth, expression) in term.list("matchExpressions").iter().enumerate() {
        let key = expression.text("key");
        if let Some(why) = old_label(key) {
            out.push(format!("{path}.matchExpressions[{nth}].key: {key} is {why}"));
        }
    }
}

/// A template that did not change warns of nothing.
/// A template is told of again whenever the generation counts a change, be it one of the template or not.
fn template(new: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    match old {
        Some(old) if old.at("metadata.generation") == new.at("metadata.generation") => Vec::new(),
        _ => pod_spec(new.at(path), &format!("{path}.")),
    }
}

pub fn service(new: &Value, _: Option<&Value>) -> Vec<String> {
    let spec = new.at("spec");
    let mut out = Vec::new();
    let [hints, mode] = services::TOPOLOGY;
    if new.at("metadata.annotations").key(hints).is_string() {
        out.push(format!("annotation {hints} is deprecated, please use {mode} instead"));
    }
    let ips = |list: &str| -> Vec<String> {
        let each = spec.list(list).iter().filter_map(Value::as_str).enumerate();
        each.filter_map(|(at, ip)| validate::ip_warning(ip, &format!("spec.{list}[{at}]"))).collect()
    };
    if !matches!(spec.text("clusterIP"), "" | "None") {
        out.extend(ips("clusterIPs"));
    }
    let external_name = spec.text("type") == "ExternalName";
    let headless = spec.text("clusterIP") == "None" && spec.text("type") == "ClusterIP";
    let has_external = !spec.list("externalIPs").is_empty();
    let warn = |out: &mut Vec<String>, wrong: bool, text: &str| {
        if wrong {
            out.push(text.to_owned());
        }
    };
    let balancer = spec.text("loadBalancerIP");
    if headless {
        warn(&mut out, !balancer.is_empty(), "spec.loadBalancerIP is ignored for headless services");
        warn(&mut out, has_external, "spec.externalIPs is ignored for headless services");
        let sticky = spec.text("sessionAffinity") != "None";
        warn(&mut out, sticky, "spec.SessionAffinity is ignored for headless services");
    }
    out.extend(ips("externalIPs"));
    warn(
        &mut out,
        has_external && !headless && !external_name,
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    if !balancer.is_empty() {
        out.extend(validate::ip_warning(balancer, "spec.loadBalancerIP"));
    }
    for (at, range) in spec.list("loadBalancerSourceRanges").iter().filter_map(Value::as_str).enumerate() {
        out.extend(validate::cidr_warning(range, &format!("spec.loadBalancerSourceRanges[{at}]")));
    }
    warn(&mut out, external_name && has_external, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    let spare_name = !external_name && !spec.text("externalName").is_empty();
    warn(&mut out, spare_name, "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    warn(
        &mut out,
        spec.text("trafficDistribution") == "PreferClose",
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
    );
    out
}

pub fn endpoints(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    for (nth, subset) in new.list("subsets").iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (at, address) in subset.list(list).iter().enumerate() {
                let path = format!("subsets[{nth}].{list}[{at}].ip");
                out.extend(validate::ip_warning(address.text("ip"), &path));
            }
        }
    }
    out
}

pub fn endpoint_slice(new: &Value, _: Option<&Value>) -> Vec<String> {
    if new.text("addressType") == "FQDN" {
        return vec!["spec.addressType: FQDN endpoints are deprecated".into()];
    }
    let mut out = Vec::new();
    for (nth, endpoint) in new.list("endpoints").iter().enumerate() {
        for (at, address) in endpoint.list("addresses").iter().filter_map(Value::as_str).enumerate() {
            out.extend(validate::ip_warning(address, &format!("endpoints[{nth}].addresses[{at}]")));
        }
    }
    out
}

pub fn network_policy(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (nth, rule) in new.at("spec").list(list).iter().enumerate() {
            for (at, peer) in rule.list(peers).iter().enumerate() {
                let path = format!("spec.{list}[{nth}].{peers}[{at}].ipBlock");
                out.extend(validate::cidr_warning(peer.text("ipBlock.cidr"), &format!("{path}.cidr")));
                for (at, range) in peer.list("ipBlock.except").iter().filter_map(Value::as_str).enumerate() {
                    out.extend(validate::cidr_warning(range, &format!("{path}.except[{at}]")));
                }
            }
        }
    }
    out
}

pub fn ingress(new: &Value, old: Option<&Value>) -> Vec<String> {
    let given = |object: &Value| object.at("metadata.annotations").key(INGRESS_CLASS).is_string();
    match given(new) && !old.is_some_and(given) {
        true => vec![format!("annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")],
        false => Vec::new(),
    }
}

pub fn service_account(new: &Value, old: Option<&Value>) -> Vec<String> {
    let given = |object: &Value| object.at("metadata.annotations").key(ENFORCE_SECRETS).is_string();
    match given(new) && !old.is_some_and(given) {
        true => vec![format!(
            "metadata.annotations[{ENFORCE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )],
        false => Vec::new(),
    }
}

pub fn secret(new: &Value, _: Option<&Value>) -> Vec<String> {
    if new.text("type") != "kubernetes.io/tls" {
        return Vec::new();
    }
    let holds_pem = |key: &str| {
        let data = STANDARD.decode(new.at("data").key(key).as_str().unwrap_or_default()).unwrap_or_default();
        Pem::iter_from_buffer(&data).any(|block| block.is_ok())
    };
    for (key, what) in [("tls.crt", "certificate"), ("tls.key", "key")] {
        if !holds_pem(key) {
            return vec![format!("tls: failed to find any PEM data in {what} input")];
        }
    }
    Vec::new()
}

pub fn claim(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut out = old_storage_class(new);
    fractional_bytes(&mut out, new.at("spec.resources"), format_args!("spec.resources"), &["storage"]);
    out
}

pub fn persistent_volume(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut out = old_storage_class(new);
    if new.text("spec.persistentVolumeReclaimPolicy") == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
    }
    for (nth, term) in new.list("spec.nodeAffinity.required.nodeSelectorTerms").iter().enumerate() {
        old_keys(&mut out, term, format_args!("spec.nodeAffinity.required.nodeSelectorTerms[{nth}]"));
    }
    // These never were volumes of clusters that knew such warnings.
    if !new.has("spec.flocker") && !new.has("spec.quobyte") {
        out.extend(old_volume(new.at("spec"), format_args!("spec")));
    }
    out
}

fn old_storage_class(object: &Value) -> Vec<String> {
    match object.at("metadata.annotations").key(OLD_STORAGE_CLASS).is_string() {
        true => vec![format!(
            "metadata.annotations[{OLD_STORAGE_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        )],
        false => Vec::new(),
    }
}

pub fn csi_driver(new: &Value, old: Option<&Value>) -> Vec<String> {
    let spec = new.at("spec");
    let requests = spec.list("tokenRequests");
    let changed = old.is_none_or(|old| old.list("spec.tokenRequests") != requests);
    match changed && !requests.is_empty() && !spec.has("serviceAccountTokenInSecrets") {
        true => vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".into()],
        false => Vec::new(),
    }
}

/// What is odd about a pod (`path` is `""`) or a template (`spec.template.`).
fn pod_spec(pod: &Value, path: &str) -> Vec<String> {
    let mut out = Vec::new();
    let spec = pod.at("spec");
    for (label, _) in spec.at("nodeSelector").entries() {
        if let Some(why) = old_label(label) {
            out.push(format!("{path}spec.nodeSelector[{label}]: {why}"));
        }
    }
    node_affinity(&mut out, spec.at("affinity.nodeAffinity"), format_args!("{path}spec.affinity.nodeAffinity"));
    for (nth, spread) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let at = format_args!("{path}spec.topologySpreadConstraints[{nth}]");
        let key = spread.text("topologyKey");
        if let Some(why) = old_label(key) {
            out.push(format!("{at}.topologyKey: {key} is {why}"));
        }
        if !spread.has("labelSelector") {
            out.push(format!("{at}.labelSelector: {NULL_SELECTOR}"));
        }
    }
    let annotations = pod.at("metadata.annotations");
    for (key, why) in OLD_ANNOTATIONS.iter().filter(|(key, _)| annotations.key(key).is_string()) {
        out.push(format!("{path}metadata.annotations[{key}]: {why}"));
    }
    for (nth, volume) in spec.list("volumes").iter().enumerate() {
        let at = format_args!("{path}spec.volumes[{nth}]");
        out.extend(old_volume(volume, at));
        let claim = volume.at("ephemeral.volumeClaimTemplate.spec.resources");
        let at = format_args!("{at}.ephemeral.volumeClaimTemplate.spec.resources");
        fractional_bytes(&mut out, claim, at, &["storage"]);
    }
    for volume in spec.list("volumes") {
        overlaps(&mut out, volume);
    }
    for (nth, alias) in spec.list("hostAliases").iter().enumerate() {
        let ip = alias.text("ip");
        if spec.list("hostAliases")[..nth].iter().any(|earlier| earlier.text("ip") == ip) {
            out.push(format!("{path}spec.hostAliases[{nth}].ip: duplicate ip {}", go_quote(ip)));
        }
    }
    let secrets = spec.list("imagePullSecrets");
    for (nth, secret) in secrets.iter().enumerate() {
        let name = secret.text("name");
        if secrets[..nth].iter().any(|earlier| earlier.text("name") == name) {
            out.push(format!("{path}spec.imagePullSecrets[{nth}].name: duplicate name {}", go_quote(name)));
        }
    }
    for (nth, _) in secrets.iter().enumerate().filter(|(_, secret)| secret.text("name").is_empty()) {
        out.push(format!("{path}spec.imagePullSecrets[{nth}].name: invalid empty name \"\""));
    }
    for name in ["memory", "ephemeral-storage"] {
        fractional(&mut out, spec.at("overhead").key(name), format_args!("{path}spec.overhead[{name}]"));
    }
    if annotations.key(SECCOMP_POD).is_string() && !spec.has("securityContext.seccompProfile") {
        out.push(format!("{path}metadata.annotations[{SECCOMP_POD}]: {OLD_SECCOMP}"));
    }
    for (at, container) in annotations::containers(spec) {
        of_annotations(&mut out, pod, container, path);
        container_of(&mut out, container, format_args!("{path}spec.{at}"));
    }
    ports(&mut out, spec, format_args!("{path}spec."));
    port_names(&mut out, spec, format_args!("{path}spec."));
    if spec.opt_int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{path}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for affinity in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&mut out, spec.at("affinity").key(affinity), format_args!("{path}spec.affinity.{affinity}"));
    }
    for (nth, server) in spec.list("dnsConfig.nameservers").iter().filter_map(Value::as_str).enumerate() {
        out.extend(validate::ip_warning(server, &format!("{path}spec.dnsConfig.nameservers[{nth}]")));
    }
    for (nth, alias) in spec.list("hostAliases").iter().enumerate() {
        out.extend(validate::ip_warning(alias.text("ip"), &format!("{path}spec.hostAliases[{nth}].ip")));
    }
    out
}

fn old_label(label: &str) -> Option<String> {
    let (_, since, now) = OLD_LABELS.iter().find(|(old, ..)| *old == label)?;
    Some(format!("deprecated since {since}; use {now:?} instead"))
}

fn old_volume(volume: &Value, path: Arguments<'_>) -> Option<String> {
    let (kind, why) = OLD_VOLUMES.iter().find(|(kind, _)| volume.has(kind))?;
    let shown = if *kind == "storageos" { "storageOS" } else { kind };
    Some(format!("{path}.{shown}: {why}"))
}

fn node_affinity(out: &mut Vec<String>, affinity: &Value, path: Arguments<'_>) {
    let mut term = |term: &Value, path: Arguments<'_>| old_keys(out, term, path);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (nth, one) in affinity.key(required).list("nodeSelectorTerms").iter().enumerate() {
        term(one, format_args!("{path}.{required}.nodeSelectorTerms[{nth}]"));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (nth, one) in affinity.list(preferred).iter().enumerate() {
        term(one.at("preference"), format_args!("{path}.{preferred}[{nth}].preference"));
    }
}

fn pod_affinity(out: &mut Vec<String>, affinity: &Value, path: Arguments<'_>) {
    for (nth, term) in affinity.list("requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        if !term.has("labelSelector") {
            let list = "requiredDuringSchedulingIgnoredDuringExecution";
            out.push(format!("{path}.{list}[{nth}].labelSelector: {NULL_SELECTOR}"));
        }
    }
    for (nth, term) in affinity.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        if !term.has("podAffinityTerm.labelSelector") {
            let list = "preferredDuringSchedulingIgnoredDuringExecution";
            out.push(format!("{path}.{list}[{nth}].podAffinityTerm.labelSelector: {NULL_SELECTOR}"));
        }
    }
}

/// Profiles of a container that are named in annotations and not in fields.
fn of_annotations(out: &mut Vec<String>, pod: &Value, container: &Value, path: &str) {
    let (all, name) = (pod.at("metadata.annotations"), container.text("name"));
    let is_there = |prefix| annotations::of_container(all, prefix, name).is_string();
    if is_there(SECCOMP_CONTAINER) && !container.has("securityContext.seccompProfile") {
        out.push(format!("{path}metadata.annotations[{SECCOMP_CONTAINER}{name}]: {OLD_SECCOMP}"));
    }
    // A pod's annotation has become a field by now; a template's has not.
    let has_field = !path.is_empty()
        && (pod.has("spec.securityContext.appArmorProfile") || container.has("securityContext.appArmorProfile"));
    if is_there(APP_ARMOR) && !has_field {
        out.push(format!(
            "{path}metadata.annotations[{APP_ARMOR}{name}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
        ));
    }
}

fn container_of(out: &mut Vec<String>, container: &Value, path: Arguments<'_>) {
    let resources = format_args!("{path}.resources");
    fractional_bytes(out, container.at("resources"), resources, &["memory", "ephemeral-storage"]);
    let env = container.list("env");
    for (nth, one) in env.iter().enumerate() {
        let name = one.text("name");
        if !env[..nth].iter().any(|earlier| earlier.text("name") == name) {
            continue;
        }
        // A value that is made of the earlier one needs it.
        let (reference, value) = (format!("$({name})"), one.text("value"));
        if one.has("valueFrom") || value == reference || !value.contains(&reference) {
            let name = go_quote(name);
            out.push(format!(
                "{path}.env[{nth}]: hides previous definition of {name}, which may be dropped when using apply"
            ));
        }
    }
}

/// Ports of all containers that are the same or may be.
fn ports(out: &mut Vec<String>, spec: &Value, path: Arguments<'_>) {
    let mut before: Vec<(At, usize, &Value)> = Vec::new();
    for (at, container) in annotations::containers(spec) {
        for (nth, port) in container.list("ports").iter().enumerate() {
            let field = format_args!("{path}{at}.ports[{nth}]");
            let (host, ip) = (port.int("hostPort"), port.text("hostIP"));
            if !ip.is_empty() && host == 0 {
                let (name, number, protocol) = (port.text("name"), port.int("containerPort"), port.text("protocol"));
                out.push(format!(
                    "{field}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} \
                     Protocol:{protocol} HostIP:{ip}}}"
                ));
            }
            let same = |other: &Value| {
                other.int("containerPort") == port.int("containerPort")
                    && other.text("protocol") == port.text("protocol")
            };
            for (earlier, earlier_nth, other) in before.iter().filter(|(.., other)| same(other)) {
                let (other_host, other_ip) = (other.int("hostPort"), other.text("hostIP"));
                let what = if (ip, host) == (other_ip, other_host) {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                out.push(format!("{field}: {what} port definition with {path}{earlier}.ports[{earlier_nth}]"));
            }
            before.push((at, nth, port));
        }
    }
}

/// A name of several ports leads to the first.
fn port_names(out: &mut Vec<String>, spec: &Value, path: Arguments<'_>) {
    let mut before: Vec<(&str, At, usize)> = Vec::new();
    for (at, container) in annotations::containers(spec) {
        for (nth, port) in container.list("ports").iter().enumerate() {
            let name = port.text("name");
            match before.iter().find(|(earlier, ..)| *earlier == name) {
                _ if name.is_empty() => {}
                Some((_, before, before_nth)) => {
                    let earlier = format!("{path}{before}.ports[{before_nth}]");
                    out.push(format!(
                        "{path}{at}.ports[{nth}]: duplicate port name {} with {earlier}, services and probes that select \
                         ports by name will use {earlier}",
                        go_quote(name)
                    ));
                }
                None => before.push((name, at, nth)),
            }
        }
    }
}

/// Bytes come whole.
fn fractional_bytes(out: &mut Vec<String>, resources: &Value, path: Arguments<'_>, names: &[&str]) {
    for name in names {
        for list in ["limits", "requests"] {
            fractional(out, resources.at(list).key(name), format_args!("{path}.{list}[{name}]"));
        }
    }
}

fn fractional(out: &mut Vec<String>, value: &Value, path: Arguments<'_>) {
    if !value.is_null() && !check::quantity(value).is_multiple_of(0) {
        let text = go_quote(value.as_str().unwrap_or_default());
        out.push(format!("{path}: fractional byte value {text} is invalid, must be an integer"));
    }
}

/// Files of one volume that lie on or in each other.
fn overlaps(out: &mut Vec<String>, volume: &Value) {
    let items = |source: &Value, of: String| -> Vec<(String, String)> {
        source.list("items").iter().map(|item| (item.text("path").to_owned(), of.clone())).collect()
    };
    let (kind, files): (String, Vec<(String, String)>) = if volume.has("projected") {
        let sources = volume.list("projected.sources").iter().flat_map(|source| {
            let named = |kind: &str, name: &str| format!("{kind} {}", go_quote(name));
            match () {
                () if source.has("configMap") => {
                    items(source.at("configMap"), named("ConfigMap", source.text("configMap.name")))
                }
                () if source.has("secret") => items(source.at("secret"), named("Secret", source.text("secret.name"))),
                () if source.has("downwardAPI") => items(source.at("downwardAPI"), "DownwardAPI".into()),
                () if source.has("serviceAccountToken") => {
                    vec![(source.text("serviceAccountToken.path").to_owned(), "ServiceAccountToken".into())]
                }
                () if source.has("clusterTrustBundle") => {
                    let bundle = source.at("clusterTrustBundle");
                    let name = if bundle.has("name") { bundle.text("name") } else { bundle.text("signerName") };
                    vec![(bundle.text("path").to_owned(), named("ClusterTrustBundle", name))]
                }
                () if source.has("podCertificate") => {
                    const FILES: [(&str, &str); 3] = [
                        ("certificateChainPath", "PodCertificate chain"),
                        ("keyPath", "PodCertificate key"),
                        ("credentialBundlePath", "PodCertificate credential bundle"),
                    ];
                    let of = source.at("podCertificate");
                    FILES.iter().map(|(field, what)| (of.text(field).to_owned(), (*what).to_owned())).collect()
                }
                () => Vec::new(),
            }
        });
        ("Projected".into(), sources.collect())
    } else if volume.has("configMap") {
        let name = go_quote(volume.text("configMap.name"));
        (format!("ConfigMap {name}"), items(volume.at("configMap"), String::new()))
    } else if volume.has("secret") {
        let name = go_quote(volume.text("secret.secretName"));
        (format!("Secret {name}"), items(volume.at("secret"), String::new()))
    } else {
        ("DownwardAPI".into(), items(volume.at("downwardAPI"), String::new()))
    };
    let name = go_quote(volume.text("name"));
    for _ in
        volume.list("projected.sources").iter().filter(|source| source.entries().iter().all(|(_, of)| of.is_null()))
    {
        out.push(format!("volume {name} (Projected) has no sources provided"));
    }
    let shown = |path: &str, of: &str| match of {
        "" => go_quote(path),
        of => format!("{} ({of})", go_quote(path)),
    };
    let inside = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    let mut before: Vec<(&str, &str)> = Vec::new();
    for (path, of) in
        files.iter().map(|(path, of)| (path.trim_end_matches('/'), &**of)).filter(|(path, _)| !path.is_empty())
    {
        for (other, of_other) in before.iter().filter(|(other, _)| inside(path, other) || inside(other, path)) {
            let (one, two) = (shown(path, of), shown(other, of_other));
            out.push(format!("volume {name} ({kind}): overlapping paths: {one} with {two}"));
        }
        before.push((path, of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_workloads_go_into_names_of_pods() {
        let named = json!({"metadata": {"name": "web.v1"}});
        let warning = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; \
                       a DNS label is recommended: [must not contain dots]";
        assert_eq!(named_workload(&named, None), [warning]);
        assert_eq!(cron_job(&named, None), [warning]);
        assert!(named_workload(&named, Some(&named)).is_empty() && stateful_set(&named, None).is_empty());
    }

    #[test]
    fn old_labels_of_nodes() {
        let topology = json!({"key": "failure-domain.beta.kubernetes.io/zone", "values": ["a"]});
        assert_eq!(
            storage_class(&json!({"allowedTopologies": [{"matchLabelExpressions": [topology]}]}), None),
            ["allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \
              \"topology.kubernetes.io/zone\" instead"],
        );
        assert_eq!(
            runtime_class(&json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}), None),
            ["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead"],
        );
    }

    #[test]
    fn claims_of_stateful_sets_ask_for_whole_bytes() {
        let claim = json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}});
        let set = json!({"spec": {"volumeClaimTemplates": [claim], "revisionHistoryLimit": -1}});
        let limit = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                     recommended";
        let bytes = |path: &str| {
            format!(
                "spec.volumeClaimTemplates[0]{path}.resources.requests[storage]: fractional byte value \"1500m\" is \
                 invalid, must be an integer"
            )
        };
        assert_eq!(stateful_set(&set, None), [bytes(""), limit.to_owned()]);
        assert_eq!(stateful_set(&set, Some(&set)), [bytes(".Spec"), limit.to_owned()]);
    }

    #[test]
    fn what_is_named_or_placed_twice_in_a_pod() {
        let port = |name: &str, number: u16| json!({"name": name, "containerPort": number, "protocol": "TCP"});
        let item = |path: &str| json!({"key": "k", "path": path});
        let chain = json!({"certificateChainPath": "a/b", "keyPath": "c"});
        let volumes = json!([
            {"name": "m", "configMap": {"name": "x", "items": [item("a"), item("a/b/"), item("a")]}},
            {"name": "p", "projected": {"sources": [{"secret": {"name": "s", "items": [item("a")]}}, {}, {"podCertificate": chain}]}},
        ]);
        let containers = json!([{"name": "a", "ports": [port("web", 1)]}, {"name": "b", "ports": [port("web", 2)]}]);
        let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}});
        let aliases = json!([{"ip": "010.0.0.1"}]);
        let spec = json!({"volumes": volumes, "containers": containers, "affinity": affinity, "hostAliases": aliases});
        let told = pod_spec(&json!({"spec": spec}), "");
        assert_eq!(
            told[..7],
            [
                "volume \"m\" (ConfigMap \"x\"): overlapping paths: \"a/b\" with \"a\"",
                "volume \"m\" (ConfigMap \"x\"): overlapping paths: \"a\" with \"a\"",
                "volume \"m\" (ConfigMap \"x\"): overlapping paths: \"a\" with \"a/b\"",
                "volume \"p\" (Projected) has no sources provided",
                "volume \"p\" (Projected): overlapping paths: \"a/b\" (PodCertificate chain) with \"a\" (Secret \"s\")",
                "spec.containers[1].ports[0]: duplicate port name \"web\" with spec.containers[0].ports[0], services and \
                 probes that select ports by name will use spec.containers[0].ports[0]",
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null \
                 labelSelector results in matching no pod",
            ]
        );
        assert!(told[7].starts_with("spec.hostAliases[0].ip: "), "{}", told[7]);
    }
}
