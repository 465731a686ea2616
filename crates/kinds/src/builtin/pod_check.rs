//! Validation of a pod's spec: the same for pods and for every template of pods. In upstream's order, so that the causes
//! come out in the same one.

use std::fmt::{Arguments, Display};

use serde_json::Value;

use super::check::{self, Causes, ID_MAX, in_range, one_of, opt_in_range, optional_one_of, required, text};
use super::pod_row::is_sidecar;
use super::read::Read;
use super::{annotations, internal, resources, volumes, windows};
use crate::Cause;
use crate::validate::{self, push_all};

/// Whose spec it is. Some rules are about pods only.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// A pod with this name and these labels.
    Pod(&'a Value),
    Template,
}

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// `ValidatePodTemplateSpec`.
pub fn template(out: &mut Causes, template: &Value, path: &str) {
    let metadata = template.at("metadata");
    out.extend(validate::labels(metadata.at("labels"), format_args!("{path}.labels")));
    out.extend(validate::annotations(metadata.at("annotations"), &format!("{path}.annotations")));
    annotations::pod(out, template, &format!("{path}.annotations"));
    spec(out, template.at("spec"), &format!("{path}.spec"), Of::Template);
    annotations::agree_with_fields(out, template, &format!("{path}.spec"));
    if !template.list("spec.ephemeralContainers").is_empty() {
        let path = format!("{path}.spec.ephemeralContainers");
        out.push(Cause::forbidden(path, "ephemeral containers not allowed in pod template"));
    }
}

/// `ValidatePodSpec`.
pub fn spec(out: &mut Causes, spec: &Value, path: &str, of: Of) {
    if !spec.has("terminationGracePeriodSeconds") {
        out.push(Cause::required(format!("{path}.terminationGracePeriodSeconds"), ""));
    }
    let known = pod_volumes(out, spec, path, of);
    resource_claims(out, spec, format_args!("{path}.resourceClaims"));
    let cx = Cx { spec, volumes: &known };
    containers(out, &cx, &format!("{path}.containers"));
    init_containers(out, &cx, &format!("{path}.initContainers"));
    ephemeral_containers(out, &cx, &format!("{path}.ephemeralContainers"));
    if spec.has("resources") {
        let path = format!("{path}.resources");
        if spec.text("os.name") == "windows" {
            out.push(Cause::forbidden(&path, "may not be set for a windows pod"));
        } else {
            if spec.has("resources.claims") {
                let detail = "claims may not be set for Resources at pod-level";
                out.push(Cause::forbidden(format!("{path}.claims"), detail));
            }
            resources::requirements(out, spec.at("resources"), &path, true);
            resources::pod_holds_containers(out, spec, &path);
        }
    }
    host_network_ports(out, spec, path, of);
    one_of(out, spec.at("restartPolicy"), format_args!("{path}.restartPolicy"), &["Always", "OnFailure", "Never"]);
    const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(out, spec.at("dnsPolicy"), format_args!("{path}.dnsPolicy"), DNS_POLICIES);
    out.extend(validate::labels(spec.at("nodeSelector"), format_args!("{path}.nodeSelector")));
    security_context(out, spec, format_args!("{path}.securityContext"));
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(Cause::invalid(format!("{path}.shareProcessNamespace"), &true.into(), detail));
    }
    affinity(out, spec.at("affinity"), format_args!("{path}.affinity"));
    dns_config(out, spec, format_args!("{path}.dnsConfig"));
    for (at, gate) in spec.list("readinessGates").iter().enumerate() {
        let path = format!("{path}.readinessGates[{at}].conditionType");
        text(out, gate.text("conditionType"), &path, validate::qualified_name);
    }
    scheduling_gates(out, spec, format_args!("{path}.schedulingGates"));
    topology_spread(out, spec, format_args!("{path}.topologySpreadConstraints"));
    windows::host_processes(out, spec, path);
    host_users(out, spec, path);
    hostname_override(out, spec, path);
    let account = spec.text("serviceAccountName");
    if !account.is_empty() {
        text(out, account, format_args!("{path}.serviceAccountName"), validate::dns1123_subdomain);
    }
    if spec.text("serviceAccount") != account {
        let detail = format!("must be the same as serviceAccountName: {}", crate::kind::go_quote(account));
        out.push(Cause::invalid(
            format!("{path}.deprecatedServiceAccount"),
            &spec.text("serviceAccount").into(),
            &detail,
        ));
    }
    if !spec.text("nodeName").is_empty() {
        text(out, spec.text("nodeName"), format_args!("{path}.nodeName"), validate::dns1123_subdomain);
    }
    opt_in_range(out, spec, path, "activeDeadlineSeconds", 1, i32::MAX.into());
    for field in ["hostname", "subdomain"] {
        if !spec.text(field).is_empty() {
            text(out, spec.text(field), format_args!("{path}.{field}"), validate::dns1123_label);
        }
    }
    tolerations(out, spec.at("tolerations"), &format!("{path}.tolerations"));
    for (at, alias) in spec.list("hostAliases").iter().enumerate() {
        let path = format!("{path}.hostAliases[{at}]");
        check::ip(out, alias.text("ip"), format_args!("{path}.ip"));
        for (at, name) in alias.list("hostnames").iter().filter_map(Value::as_str).enumerate() {
            text(out, name, format_args!("{path}.hostnames[{at}]"), validate::dns1123_subdomain);
        }
    }
    if !spec.text("priorityClassName").is_empty() {
        let path = format!("{path}.priorityClassName");
        text(out, spec.text("priorityClassName"), &path, validate::dns1123_subdomain);
    }
    if let Some(class) = spec.at("runtimeClassName").as_str() {
        text(out, class, format_args!("{path}.runtimeClassName"), validate::dns1123_subdomain);
    }
    if spec.has("preemptionPolicy") {
        let path = format!("{path}.preemptionPolicy");
        one_of(out, spec.at("preemptionPolicy"), &path, &["PreemptLowerPriority", "Never"]);
    }
    if spec.has("overhead") {
        let overhead = serde_json::json!({"limits": spec.at("overhead")});
        let mut wrong = Vec::new();
        resources::requirements(&mut wrong, &overhead, &format!("{path}.overhead"), false);
        out.extend(wrong);
    }
    operating_system(out, spec, path);
    file_key_volumes(out, spec, path);
}

/// What containers need to know of their pod.
struct Cx<'a> {
    spec: &'a Value,
    /// The volumes that are right in themselves, by name.
    volumes: &'a [&'a Value],
}

impl Cx<'_> {
    fn volume(&self, name: &str) -> Option<&Value> {
        self.volumes.iter().find(|volume| volume.text("name") == name).copied()
    }
}

fn pod_volumes<'a>(out: &mut Causes, spec: &'a Value, path: &str, of: Of) -> Vec<&'a Value> {
    let mut known: Vec<&Value> = Vec::new();
    let pod = match of {
        Of::Pod(pod) => pod.text("metadata.name"),
        Of::Template => "",
    };
    let made = |claim: &str| {
        !pod.is_empty()
            && spec.list("volumes").iter().any(|v| v.has("ephemeral") && claim == format!("{pod}-{}", v.text("name")))
    };
    for (at, volume) in spec.list("volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{at}]");
        let mut wrong = Vec::new();
        volumes::source(&mut wrong, volume, &path, pod);
        if required(&mut wrong, volume, &path, "name") {
            text(&mut wrong, volume.text("name"), format_args!("{path}.name"), validate::dns1123_label);
        }
        if known.iter().any(|other| other.text("name") == volume.text("name")) {
            wrong.push(Cause::duplicate(format!("{path}.name"), volume.at("name")));
        }
        if wrong.is_empty() {
            known.push(volume);
        }
        out.extend(wrong);
        let claim = volume.text("persistentVolumeClaim.claimName");
        if !claim.is_empty() && made(claim) {
            out.push(Cause::invalid(
                format!("{path}.persistentVolumeClaim.claimName"),
                &claim.into(),
                "must not reference a PVC that gets created for an ephemeral volume",
            ));
        }
    }
    known
}

fn resource_claims(out: &mut Causes, spec: &Value, path: Arguments<'_>) {
    let mut names: Vec<&str> = Vec::new();
    for (at, claim) in spec.list("resourceClaims").iter().enumerate() {
        let path = format!("{path}[{at}]");
        let name = claim.text("name");
        if name.is_empty() {
            out.push(Cause::required(format!("{path}.name"), ""));
        } else if names.contains(&name) {
            out.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        } else {
            text(out, name, format_args!("{path}.name"), validate::dns1123_label);
            names.push(name);
        }
        let (direct, template) = (claim.at("resourceClaimName"), claim.at("resourceClaimTemplateName"));
        let shown = serde_json::json!({
            "Name": name, "ResourceClaimName": direct, "ResourceClaimTemplateName": template
        });
        match (direct.is_null(), template.is_null()) {
            (false, false) => out.push(Cause::invalid(
                &path,
                &shown,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            )),
            (true, true) => out.push(Cause::invalid(
                &path,
                &shown,
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            )),
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = claim.at(field).as_str() {
                text(out, name, format_args!("{path}.{field}"), validate::dns1123_subdomain);
            }
        }
    }
}

fn claim_names(out: &mut Causes, container: &Value, spec: &Value, path: Arguments<'_>) {
    let mut known: Vec<&str> =
        spec.list("resourceClaims").iter().map(|claim| claim.text("name")).filter(|name| !name.is_empty()).collect();
    known.sort_unstable();
    known.dedup();
    let mut seen: Vec<String> = Vec::new();
    for (at, claim) in container.list("resources.claims").iter().enumerate() {
        let path = format!("{path}.resources.claims[{at}]");
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            out.push(Cause::required(&path, ""));
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if seen.iter().any(|other| other == name) {
            out.push(Cause::duplicate(&path, &name.into()));
        } else {
            if !request.is_empty() {
                text(out, request, format_args!("{path}.request"), validate::dns1123_label);
            }
            let whole = request.is_empty() && seen.iter().any(|o| o.split_once('/').is_some_and(|(n, _)| n == name));
            if seen.contains(&key) || whole {
                out.push(Cause::duplicate(&path, &key.as_str().into()));
            }
            seen.push(key);
        }
        if !known.contains(&name) {
            let listed =
                if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{listed}");
            out.push(check::not_found(&path, name, &detail));
        }
    }
}

fn containers(out: &mut Causes, cx: &Cx, path: &str) {
    let list = cx.spec.list("containers");
    if list.is_empty() {
        return out.push(Cause::required(path, ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for (at, container) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        container_common(out, cx, container, &path);
        if names.contains(&container.text("name")) {
            out.push(Cause::duplicate(format!("{path}.name"), container.at("name")));
        }
        names.push(container.text("name"));
        life(out, cx, container, &path);
        restart_rules(out, container, &path);
    }
    host_ports(out, list, path);
}

fn init_containers(out: &mut Causes, cx: &Cx, path: &str) {
    let mut names: Vec<&str> = cx.spec.list("containers").iter().map(|c| c.text("name")).collect();
    for (at, container) in cx.spec.list("initContainers").iter().enumerate() {
        let list = path;
        let path = format!("{path}[{at}]");
        container_common(out, cx, container, &path);
        match container.at("restartPolicy") {
            Value::Null => restart_policy_for_rules(out, container, &path),
            _ => restart_rules(out, container, &path),
        }
        if names.contains(&container.text("name")) {
            out.push(Cause::duplicate(format!("{path}.name"), container.at("name")));
        } else if !container.text("name").is_empty() {
            names.push(container.text("name"));
        }
        host_ports(out, std::slice::from_ref(container), list);
        if is_sidecar(container) {
            life(out, cx, container, &path);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.has(field) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                out.push(Cause::forbidden(format!("{path}.{field}"), detail));
            }
        }
        for (at, policy) in container.list("resizePolicy").iter().enumerate() {
            if policy.text("restartPolicy") == "RestartContainer" {
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                let path = format!("{path}.resizePolicy[{at}].restartPolicy");
                out.push(Cause::invalid(path, policy.at("restartPolicy"), detail));
            }
        }
    }
}

/// Also asked on its own when the subresource adds some.
fn ephemeral_containers(out: &mut Causes, cx: &Cx, path: &str) {
    const NOT_ALLOWED: [&str; 9] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let others = || cx.spec.list("containers").iter().chain(cx.spec.list("initContainers")).map(|c| c.text("name"));
    let mut names: Vec<&str> = others().collect();
    for (at, container) in cx.spec.list("ephemeralContainers").iter().enumerate() {
        let path = format!("{path}[{at}]");
        container_common(out, cx, container, &path);
        image_is_trimmed(out, container, &path);
        if names.contains(&container.text("name")) {
            out.push(Cause::duplicate(format!("{path}.name"), container.at("name")));
        } else {
            names.push(container.text("name"));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others().any(|name| name == target) {
            out.push(Cause::not_found(format!("{path}.targetContainerName"), &target.into()));
        }
        // Only resources are there without being set.
        let given = |field: &&str| match container.at(field) {
            Value::Object(_) if *field != "resources" => true,
            value => !value.is_nothing(),
        };
        for field in NOT_ALLOWED.into_iter().filter(given) {
            let detail = "cannot be set for an Ephemeral Container";
            out.push(Cause::forbidden(format!("{path}.{field}"), detail));
        }
        for (at, mount) in container.list("volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.text(field).is_empty() {
                    let path = format!("{path}.volumeMounts[{at}].{field}");
                    out.push(Cause::forbidden(path, "cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
}

/// Images of pods, not of templates.
pub fn image_is_trimmed(out: &mut Causes, container: &Value, path: &str) {
    let image = container.text("image");
    if image.trim().len() != image.len() {
        let detail = "must not have leading or trailing whitespace";
        out.push(Cause::invalid(format!("{path}.image"), container.at("image"), detail));
    }
}

fn container_common(out: &mut Causes, cx: &Cx, container: &Value, path: &str) {
    if required(out, container, path, "name") {
        text(out, container.text("name"), format_args!("{path}.name"), validate::dns1123_label);
    }
    required(out, container, path, "image");
    one_of(
        out,
        container.at("terminationMessagePolicy"),
        format_args!("{path}.terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(out, container, format_args!("{path}.ports"));
    environment(out, container, format_args!("{path}"));
    mounts(out, cx, container, format_args!("{path}.volumeMounts"));
    devices(out, cx, container, format_args!("{path}.volumeDevices"));
    one_of(out, container.at("imagePullPolicy"), format_args!("{path}.imagePullPolicy"), PULL_POLICIES);
    resources::requirements(out, container.at("resources"), &format!("{path}.resources"), false);
    claim_names(out, container, cx.spec, format_args!("{path}"));
    resize_policy(out, cx, container, format_args!("{path}.resizePolicy"));
    container_security(out, cx, container, format_args!("{path}.securityContext"));
}

fn ports(out: &mut Causes, container: &Value, path: impl Display) {
    let mut names: Vec<&str> = Vec::new();
    for (at, port) in container.list("ports").iter().enumerate() {
        let path = format_args!("{path}[{at}]");
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = validate::port_name(name);
            if !wrong.is_empty() {
                push_all(out, format_args!("{path}.name"), name, wrong);
            } else if names.contains(&name) {
                out.push(Cause::duplicate(format!("{path}.name"), &name.into()));
            } else {
                names.push(name);
            }
        }
        match port.int("containerPort") {
            0 => out.push(Cause::required(format!("{path}.containerPort"), "")),
            number => in_range(out, number, format_args!("{path}.containerPort"), 1, 65535),
        }
        if port.int("hostPort") != 0 {
            in_range(out, port.int("hostPort"), format_args!("{path}.hostPort"), 1, 65535);
        }
        one_of(out, port.at("protocol"), format_args!("{path}.protocol"), PROTOCOLS);
    }
}

fn host_ports(out: &mut Causes, containers: &[Value], path: &str) {
    let mut taken: Vec<String> = Vec::new();
    for (at, container) in containers.iter().enumerate() {
        for (port_at, port) in container.list("ports").iter().enumerate() {
            if port.int("hostPort") == 0 {
                continue;
            }
            let key = format!("{}/{}/{}", port.text("protocol"), port.text("hostIP"), port.int("hostPort"));
            if taken.contains(&key) {
                let path = format!("{path}[{at}].ports[{port_at}].hostPort");
                out.push(Cause::duplicate(path, &key.as_str().into()));
            } else {
                taken.push(key);
            }
        }
    }
}

fn host_network_ports(out: &mut Causes, spec: &Value, path: &str, of: Of) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for (at, container) in spec.list("containers").iter().enumerate() {
        for (port_at, port) in container.list("ports").iter().enumerate() {
            let host = port.int("hostPort");
            if (matches!(of, Of::Pod(_)) || host != 0) && host != port.int("containerPort") {
                let path = format!("{path}.containers[{at}].ports[{port_at}].hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                out.push(Cause::invalid(path, &host.into(), detail));
            }
        }
    }
}

fn environment(out: &mut Causes, container: &Value, path: Arguments<'_>) {
    for (at, variable) in container.list("env").iter().enumerate() {
        let path = format_args!("{path}.env[{at}]");
        if required(out, variable, path, "name") {
            text(out, variable.text("name"), format_args!("{path}.name"), validate::env_name);
        }
        if variable.has("valueFrom") {
            value_from(out, variable, &format!("{path}.valueFrom"));
        }
    }
    for (at, source) in container.list("envFrom").iter().enumerate() {
        let list = format!("{path}.envFrom");
        let path = format!("{list}[{at}]");
        if !source.text("prefix").is_empty() {
            text(out, source.text("prefix"), format_args!("{path}.prefix"), validate::env_name);
        }
        let mut sources = 0;
        for field in ["configMapRef", "secretRef"] {
            if source.has(field) {
                sources += 1;
                let path = format!("{path}.{field}");
                let name = source.at(field).text("name");
                if required(out, source.at(field), &path, "name") {
                    let wrong = validate::name(crate::NameRule::Subdomain, name, true);
                    push_all(out, format_args!("{path}.name"), name, wrong);
                }
            }
        }
        let detail = match sources {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        out.push(Cause::invalid(&list, &"".into(), detail));
    }
}

fn value_from(out: &mut Causes, variable: &Value, path: &str) {
    const FIELDS: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let from = variable.at("valueFrom");
    let mut sources = 0;
    if from.has("fieldRef") {
        sources += 1;
        field_ref(out, from.at("fieldRef"), &format!("{path}.fieldRef"), FIELDS);
    }
    if from.has("resourceFieldRef") {
        sources += 1;
        resource_field_ref(out, from.at("resourceFieldRef"), &format!("{path}.resourceFieldRef"), false);
    }
    for field in ["configMapKeyRef", "secretKeyRef"] {
        if from.has(field) {
            sources += 1;
            let (reference, path) = (from.at(field), format!("{path}.{field}"));
            text(out, reference.text("name"), format_args!("{path}.name"), validate::dns1123_subdomain);
            if required(out, reference, &path, "key") {
                text(out, reference.text("key"), format_args!("{path}.key"), validate::config_key);
            }
        }
    }
    if from.has("fileKeyRef") {
        sources += 1;
        let (reference, path) = (from.at("fileKeyRef"), format!("{path}.fileKeyRef"));
        if required(out, reference, &path, "key") {
            text(out, reference.text("key"), format_args!("{path}.key"), validate::env_name);
        }
        if required(out, reference, &path, "volumeName") {
            text(out, reference.text("volumeName"), format_args!("{path}.volumeName"), validate::dns1123_label);
        }
        if required(out, reference, &path, "path") {
            check::no_backsteps(out, reference.text("path"), format_args!("{path}.path"));
        }
    }
    let detail = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !variable.text("value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    out.push(Cause::invalid(path, &"".into(), detail));
}

/// A field of the pod by name; `supported` are those that stand for one text.
pub fn field_ref(out: &mut Causes, reference: &Value, path: &str, supported: &[&str]) {
    const KNOWN: [&str; 13] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.podIP",
        "status.podIPs",
    ];
    if !required(out, reference, path, "apiVersion") || !required(out, reference, path, "fieldPath") {
        return;
    }
    let (version, given) = (reference.text("apiVersion"), reference.text("fieldPath"));
    let field = format!("{path}.fieldPath");
    if version != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {version}");
        return out.push(Cause::invalid(field, &given.into(), &detail));
    }
    let subscript = given.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let subscript = subscript.filter(|(map, _)| !map.is_empty());
    let plain = match subscript {
        Some((map @ ("metadata.annotations" | "metadata.labels"), _)) => map,
        Some(_) => {
            let detail = format!("error converting fieldPath: field label does not support subscript: {given}");
            return out.push(Cause::invalid(field, &given.into(), &detail));
        }
        None if given == "spec.host" => "spec.nodeName",
        None => given,
    };
    if !KNOWN.contains(&plain) && !matches!(plain, "status.hostIPs") {
        let detail = format!("error converting fieldPath: field label not supported: {given}");
        return out.push(Cause::invalid(field, &given.into(), &detail));
    }
    match subscript {
        Some(("metadata.annotations", key)) => push_all(out, path, key, validate::qualified_name(&key.to_lowercase())),
        Some((_, key)) => text(out, key, path, validate::qualified_name),
        None if !supported.contains(&plain) => out.push(Cause::not_supported(field, &plain.into(), supported)),
        None => {}
    }
}

/// An amount a container asks for or is limited to.
pub fn resource_field_ref(out: &mut Causes, reference: &Value, path: &str, of_volume: bool) {
    const SUPPORTED: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    const SIZES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let resource = reference.text("resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if of_volume && reference.text("containerName").is_empty() {
        out.push(Cause::required(format!("{path}.containerName"), ""));
    } else if resource.is_empty() {
        out.push(Cause::required(format!("{path}.resource"), ""));
    } else if !SUPPORTED.contains(&resource) && !huge {
        out.push(Cause::not_supported(format!("{path}.resource"), &resource.into(), SUPPORTED));
    }
    let divisor = reference.at("divisor");
    if check::quantity(divisor).is_zero() {
        return;
    }
    let (allowed, what): (&[&str], &str) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (&["1m", "1"], "cpu resource"),
        "memory" => (&SIZES, "memory resource"),
        "ephemeral-storage" => (&SIZES, "local ephemeral storage resource"),
        _ if huge => (&SIZES, "hugepages resource"),
        _ => return,
    };
    if !allowed.contains(&divisor.as_str().unwrap_or_default()) {
        let listed = if allowed.len() == 2 { "1m and 1".to_owned() } else { allowed.join(", ") };
        let detail = format!("only divisor's values {listed} are supported with the {what}");
        out.push(Cause::invalid(format!("{path}.divisor"), &resource.into(), &detail));
    }
}

fn mounts(out: &mut Causes, cx: &Cx, container: &Value, path: Arguments<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    let devices = container.list("volumeDevices");
    for (at, mount) in container.list("volumeMounts").iter().enumerate() {
        let list = path;
        let path = format!("{path}[{at}]");
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        required(out, mount, &path, "name");
        if cx.volume(name).is_none() {
            out.push(Cause::not_found(format!("{path}.name"), &name.into()));
        }
        required(out, mount, &path, "mountPath");
        if seen.contains(&target) {
            out.push(Cause::invalid(format!("{path}.mountPath"), &target.into(), "must be unique"));
        }
        seen.push(target);
        if devices.iter().any(|device| device.text("name") == name) {
            let detail = "must not already exist in volumeDevices";
            out.push(Cause::invalid(format!("{path}.name"), &name.into(), detail));
        }
        if last_of_each(devices, "devicePath").contains(&target) {
            let detail = "must not already exist as a path in volumeDevices";
            out.push(Cause::invalid(format!("{path}.mountPath"), &target.into(), detail));
        }
        if !mount.text("subPath").is_empty() {
            check::local_path(out, mount.text("subPath"), format_args!("{list}.subPath"));
        }
        if !mount.text("subPathExpr").is_empty() {
            if !mount.text("subPath").is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                out.push(Cause::invalid(format!("{path}.subPathExpr"), mount.at("subPathExpr"), detail));
            }
            check::local_path(out, mount.text("subPathExpr"), format_args!("{list}.subPathExpr"));
        }
        let propagation = mount.at("mountPropagation");
        let field = format!("{list}.mountPropagation");
        optional_one_of(out, propagation, &field, &["Bidirectional", "HostToContainer", "None"]);
        if propagation == "Bidirectional" && !container.flag("securityContext.privileged") {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            out.push(Cause::forbidden(field, detail));
        }
        let field = format!("{list}.recursiveReadOnly");
        let recursive = mount.at("recursiveReadOnly");
        optional_one_of(out, recursive, &field, &["Disabled", "Enabled", "IfPossible"]);
        if recursive == "Enabled" || recursive == "IfPossible" {
            if !mount.flag("readOnly") {
                out.push(Cause::forbidden(&field, "may only be specified when readOnly is true"));
            }
            if !matches!(mount.text("mountPropagation"), "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                out.push(Cause::forbidden(&field, detail));
            }
        }
    }
}

/// One path per name, the last that is given: upstream keeps them by name.
fn last_of_each<'a>(list: &'a [Value], field: &str) -> Vec<&'a str> {
    let later = |at: usize| list[at + 1..].iter().any(|other| other.text("name") == list[at].text("name"));
    (0..list.len()).filter(|at| !later(*at)).map(|at| list[at].text(field)).collect()
}

fn devices(out: &mut Causes, cx: &Cx, container: &Value, path: Arguments<'_>) {
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mounts = container.list("volumeMounts");
    for (at, device) in container.list("volumeDevices").iter().enumerate() {
        let path = format!("{path}[{at}]");
        let (name, target) = (device.text("name"), device.text("devicePath"));
        let (name_field, path_field) = (format!("{path}.name"), format!("{path}.devicePath"));
        required(out, device, &path, "name");
        if names.contains(&name) {
            out.push(Cause::invalid(&name_field, &name.into(), "must be unique"));
        }
        match cx.volume(name) {
            None => out.push(Cause::not_found(&name_field, &name.into())),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                out.push(Cause::invalid(&name_field, &name.into(), detail));
            }
            Some(_) => {}
        }
        required(out, device, &path, "devicePath");
        if paths.contains(&target) {
            out.push(Cause::invalid(&path_field, &target.into(), "must be unique"));
        }
        if target.split('/').any(|part| part == "..") {
            out.push(Cause::invalid(&path_field, &target.into(), "can not contain backsteps ('..')"));
        } else {
            paths.push(target);
        }
        if mounts.iter().any(|mount| mount.text("name") == name) {
            out.push(Cause::invalid(&name_field, &name.into(), "must not already exist in volumeMounts"));
        }
        if last_of_each(mounts, "mountPath").contains(&target) {
            let detail = "must not already exist as a path in volumeMounts";
            out.push(Cause::invalid(&path_field, &target.into(), detail));
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
}

fn resize_policy(out: &mut Causes, cx: &Cx, container: &Value, path: Arguments<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (at, policy) in container.list("resizePolicy").iter().enumerate() {
        let resource = policy.text("resourceName");
        if seen.contains(&resource) {
            out.push(Cause::duplicate(format!("{path}[{at}]"), &resource.into()));
        }
        seen.push(resource);
        one_of(out, policy.at("resourceName"), path, &["cpu", "memory"]);
        one_of(out, policy.at("restartPolicy"), path, &["NotRequired", "RestartContainer"]);
        if cx.spec.text("restartPolicy") == "Never" && policy.text("restartPolicy") != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            out.push(Cause::invalid(path, policy.at("restartPolicy"), detail));
        }
    }
}

fn restart_policy_for_rules(out: &mut Causes, container: &Value, path: &str) {
    if !container.list("restartPolicyRules").is_empty() {
        let field = format!("{path}.restartPolicy");
        out.push(Cause::required(field, "must specify restartPolicy when restart rules are used"));
    }
}

fn restart_rules(out: &mut Causes, container: &Value, path: &str) {
    const RULES_MAX: usize = 20;
    const CODES_MAX: usize = 255;
    let rules = container.list("restartPolicyRules");
    match container.at("restartPolicy") {
        Value::Null => restart_policy_for_rules(out, container, path),
        policy => optional_one_of(out, policy, format!("{path}.restartPolicy"), &["Always", "Never", "OnFailure"]),
    }
    if rules.len() > RULES_MAX {
        out.push(Cause::too_many(format!("{path}.restartPolicyRules"), rules.len(), RULES_MAX));
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{path}.restartPolicyRules[{at}]");
        let action = rule.text("action");
        if !["Restart", "RestartAllContainers"].contains(&action) {
            let supported = &["Restart", "RestartAllContainers"];
            out.push(Cause::not_supported(format!("{path}.action"), &action.into(), supported));
        }
        let codes = rule.at("exitCodes");
        if codes.is_null() {
            out.push(Cause::required(format!("{path}.exitCodes"), "must be specified"));
            continue;
        }
        if !["In", "NotIn"].contains(&codes.text("operator")) {
            let path = format!("{path}.exitCodes.operator");
            out.push(Cause::not_supported(path, &codes.text("operator").into(), &["In", "NotIn"]));
        }
        let values = codes.list("values").len();
        if values > CODES_MAX {
            out.push(Cause::too_many(format!("{path}.exitCodes.values"), values, CODES_MAX));
        }
    }
}

/// Hooks and probes.
fn life(out: &mut Causes, cx: &Cx, container: &Value, path: &str) {
    let grace = cx.spec.opt_int("terminationGracePeriodSeconds");
    for hook in ["postStart", "preStop"] {
        let handler = container.at("lifecycle").at(hook);
        if !handler.is_null() {
            let kinds = &["exec", "httpGet", "tcpSocket", "sleep"];
            self::handler(out, handler, grace, &format!("{path}.lifecycle.{hook}"), kinds);
        }
    }
    if container.has("lifecycle.stopSignal") {
        stop_signal(out, cx, container.at("lifecycle.stopSignal"), &format!("{path}.lifecycle.stopSignal"));
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(name);
        if probe.is_null() {
            continue;
        }
        let path = format!("{path}.{name}");
        handler(out, probe, grace, &path, &["exec", "httpGet", "tcpSocket", "grpc"]);
        const COUNTS: &[&str] =
            &["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
        check::non_negative(out, probe, &path, COUNTS);
        let seconds = probe.opt_int("terminationGracePeriodSeconds");
        if seconds.is_some_and(|seconds| seconds <= 0) {
            let field = format!("{path}.terminationGracePeriodSeconds");
            out.push(Cause::invalid(field, probe.at("terminationGracePeriodSeconds"), "must be greater than 0"));
        }
        if name == "readinessProbe" {
            if seconds.is_some() {
                let field = format!("{path}.terminationGracePeriodSeconds");
                let detail = "must not be set for readinessProbes";
                out.push(Cause::invalid(field, probe.at("terminationGracePeriodSeconds"), detail));
            }
        } else if probe.int("successThreshold") != 1 {
            out.push(Cause::invalid(format!("{path}.successThreshold"), probe.at("successThreshold"), "must be 1"));
        }
    }
}

fn handler(out: &mut Causes, handler: &Value, grace: Option<i64>, path: &str, kinds: &[&str]) {
    let mut given = kinds.iter().filter(|kind| handler.has(kind));
    let Some(first) = given.next() else {
        return out.push(Cause::required(path, "must specify a handler type"));
    };
    let (action, field) = (handler.at(first), format!("{path}.{first}"));
    match *first {
        "exec" if action.list("command").is_empty() => out.push(Cause::required(format!("{field}.command"), "")),
        "httpGet" => {
            required(out, action, &field, "path");
            check::port(out, action.at("port"), format_args!("{field}.port"));
            let scheme = action.text("scheme");
            if !["HTTP", "HTTPS"].contains(&scheme) {
                out.push(Cause::not_supported(format!("{field}.scheme"), &scheme.into(), &["HTTP", "HTTPS"]));
            }
            for header in action.list("httpHeaders") {
                text(out, header.text("name"), format_args!("{field}.httpHeaders"), validate::http_header);
            }
        }
        "tcpSocket" | "grpc" => check::port(out, action.at("port"), format_args!("{field}.port")),
        "sleep" => {
            let seconds = action.int("seconds");
            if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                out.push(Cause::invalid(&field, &seconds.into(), &detail));
            }
        }
        _ => {}
    }
    for other in given {
        out.push(Cause::forbidden(format!("{path}.{other}"), "may not specify more than 1 handler type"));
    }
}

fn stop_signal(out: &mut Causes, cx: &Cx, signal: &Value, path: &str) {
    match cx.spec.text("os.name") {
        "" => out.push(Cause::forbidden(path, "may not be set for containers with empty `spec.os.name`")),
        "windows" => optional_one_of(out, signal, path, &["SIGKILL", "SIGTERM"]),
        "linux" => optional_one_of(out, signal, path, SIGNALS),
        _ => {}
    }
}

/// Those of Linux, in the order in which they are told.
const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn container_security(out: &mut Causes, cx: &Cx, container: &Value, path: Arguments<'_>) {
    let context = container.at("securityContext");
    if context.is_null() {
        return;
    }
    opt_in_range(out, context, path, "runAsUser", 0, ID_MAX);
    opt_in_range(out, context, path, "runAsGroup", 0, ID_MAX);
    let mount = context.at("procMount");
    optional_one_of(out, mount, format_args!("{path}.procMount"), &["Default", "Unmasked"]);
    if mount == "Unmasked" && cx.spec.at("hostUsers") != &Value::Bool(false) {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        out.push(Cause::invalid(format!("{path}.procMount"), mount, detail));
    }
    seccomp(out, context.at("seccompProfile"), &format!("{path}.seccompProfile"));
    if context.at("allowPrivilegeEscalation") == &Value::Bool(false) {
        let shown = internal::shown("api.core.v1.SecurityContext", context);
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            out.push(Cause::invalid(path, &shown, detail));
        }
        if context.list("capabilities.add").iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            out.push(Cause::invalid(path, &shown, detail));
        }
    }
    windows::options(out, context.at("windowsOptions"), &format!("{path}.windowsOptions"));
    app_armor(out, context.at("appArmorProfile"), &format!("{path}.appArmorProfile"));
}

fn seccomp(out: &mut Causes, profile: &Value, path: &str) {
    if profile.is_null() {
        return;
    }
    let type_ = profile.text("type");
    match type_ {
        "" => out.push(Cause::required(format!("{path}.type"), "type is required when seccompProfile is set")),
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        _ => out.push(Cause::not_supported(
            format!("{path}.type"),
            &type_.into(),
            &["Localhost", "RuntimeDefault", "Unconfined"],
        )),
    }
    let field = format!("{path}.localhostProfile");
    match (type_, profile.at("localhostProfile").as_str()) {
        ("Localhost", None) => out.push(Cause::required(field, "must be set when seccomp type is Localhost")),
        ("Localhost", Some(local)) => check::local_path(out, local, &field),
        (_, Some(local)) => {
            let shown = serde_json::json!({"Type": type_, "LocalhostProfile": local});
            out.push(Cause::invalid(field, &shown, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => {}
    }
}

fn app_armor(out: &mut Causes, profile: &Value, path: &str) {
    /// The longest path there is, without the byte that ends it.
    const LOCAL_BYTES_MAX: usize = 4095;
    if profile.is_null() {
        return;
    }
    let field = format!("{path}.localhostProfile");
    let local = profile.at("localhostProfile");
    match profile.text("type") {
        "Localhost" => {
            let name = local.as_str().unwrap_or_default();
            if name.trim() != name {
                out.push(Cause::invalid(&field, local, "must not be padded with whitespace"));
            } else if name.is_empty() {
                out.push(Cause::required(&field, "must be set when AppArmor type is Localhost"));
            }
            if name.len() > LOCAL_BYTES_MAX {
                out.push(Cause::too_long(field, LOCAL_BYTES_MAX));
            }
        }
        "RuntimeDefault" | "Unconfined" if !local.is_null() => {
            out.push(Cause::invalid(field, local, "can only be set when AppArmor type is Localhost"));
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => out.push(Cause::required(format!("{path}.type"), "type is required when appArmorProfile is set")),
        type_ => out.push(Cause::not_supported(
            format!("{path}.type"),
            &type_.into(),
            &["Localhost", "RuntimeDefault", "Unconfined"],
        )),
    }
}

fn security_context(out: &mut Causes, spec: &Value, path: Arguments<'_>) {
    let context = spec.at("securityContext");
    if context.is_null() {
        return;
    }
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        opt_in_range(out, context, path, field, 0, ID_MAX);
    }
    for (at, group) in context.list("supplementalGroups").iter().enumerate() {
        in_range(out, group.as_i64().unwrap_or_default(), format_args!("{path}.supplementalGroups[{at}]"), 0, ID_MAX);
    }
    sysctls(out, spec, &format!("{path}.sysctls"));
    let field = format!("{path}.fsGroupChangePolicy");
    optional_one_of(out, context.at("fsGroupChangePolicy"), &field, &["Always", "OnRootMismatch"]);
    seccomp(out, context.at("seccompProfile"), &format!("{path}.seccompProfile"));
    windows::options(out, context.at("windowsOptions"), &format!("{path}.windowsOptions"));
    app_armor(out, context.at("appArmorProfile"), &format!("{path}.appArmorProfile"));
    let field = format!("{path}.supplementalGroupsPolicy");
    optional_one_of(out, context.at("supplementalGroupsPolicy"), &field, &["Merge", "Strict"]);
    let field = format!("{path}.seLinuxChangePolicy");
    optional_one_of(out, context.at("seLinuxChangePolicy"), &field, &["MountOption", "Recursive"]);
}

fn sysctls(out: &mut Causes, spec: &Value, path: &str) {
    const IPC: [&str; 4] = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];
    let mut seen: Vec<&str> = Vec::new();
    for (at, sysctl) in spec.list("securityContext.sysctls").iter().enumerate() {
        let path = format!("{path}[{at}].name");
        let name = sysctl.text("name");
        if name.is_empty() {
            out.push(Cause::required(&path, ""));
        } else if !is_sysctl(name) {
            let detail = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            out.push(Cause::invalid(&path, &name.into(), detail));
        } else if seen.contains(&name) {
            out.push(Cause::duplicate(&path, &name.into()));
        }
        let dotted = name.replace('/', ".");
        if spec.flag("hostNetwork") && dotted.starts_with("net.") {
            out.push(Cause::invalid(&path, &name.into(), "may not be specified when 'hostNetwork' is true"));
        } else if spec.flag("hostIPC") && IPC.iter().any(|prefix| dotted.starts_with(prefix)) {
            out.push(Cause::invalid(&path, &name.into(), "may not be specified when 'hostIPC' is true"));
        }
        seen.push(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            part.starts_with(alnum) && part.ends_with(alnum) && part.chars().all(|c| alnum(c) || matches!(c, '-' | '_'))
        })
}

fn affinity(out: &mut Causes, affinity: &Value, path: Arguments<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = affinity.at("nodeAffinity");
    if node.has(REQUIRED) {
        node_selector(out, node.at(REQUIRED), &format!("{path}.nodeAffinity.{REQUIRED}"));
    }
    for (at, term) in node.list(PREFERRED).iter().enumerate() {
        let path = format!("{path}.nodeAffinity.{PREFERRED}[{at}]");
        weight(out, term, &path);
        node_selector_term(out, term.at("preference"), &format!("{path}.preference"), false);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let of = affinity.at(kind);
        for (at, term) in of.list(REQUIRED).iter().enumerate() {
            pod_affinity_term(out, term, &format!("{path}.{kind}.{REQUIRED}[{at}]"));
        }
        for (at, term) in of.list(PREFERRED).iter().enumerate() {
            let path = format!("{path}.{kind}.{PREFERRED}[{at}]");
            weight(out, term, &path);
            pod_affinity_term(out, term.at("podAffinityTerm"), &format!("{path}.podAffinityTerm"));
        }
    }
}

fn weight(out: &mut Causes, term: &Value, path: &str) {
    let weight = term.int("weight");
    if !(1..=100).contains(&weight) {
        out.push(Cause::invalid(format!("{path}.weight"), &weight.into(), "must be in the range 1-100"));
    }
}

/// Which nodes: of a pod, a volume, a slice of devices.
pub fn node_selector(out: &mut Causes, selector: &Value, path: &str) {
    let path = format!("{path}.nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        out.push(Cause::required(&path, "must have at least one node selector term"));
    }
    for (at, term) in terms.iter().enumerate() {
        node_selector_term(out, term, &format!("{path}[{at}]"), true);
    }
}

fn node_selector_term(out: &mut Causes, term: &Value, path: &str, check_values: bool) {
    for (at, expression) in term.list("matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{at}]");
        let values = expression.list("values");
        let field = format!("{path}.values");
        match expression.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                out.push(Cause::required(field, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                out.push(Cause::forbidden(field, detail));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                out.push(Cause::required(field, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            operator => {
                let detail = "not a valid selector operator";
                out.push(Cause::invalid(format!("{path}.operator"), &operator.into(), detail));
            }
        }
        text(out, expression.text("key"), format_args!("{path}.key"), validate::qualified_name);
        if check_values {
            for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
                text(out, value, format_args!("{path}.values[{at}]"), validate::label_value);
            }
        }
    }
    for (at, requirement) in term.list("matchFields").iter().enumerate() {
        let path = format!("{path}.matchFields[{at}]");
        let values = requirement.list("values");
        match requirement.text("operator") {
            "In" | "NotIn" if values.len() != 1 => out.push(Cause::required(
                format!("{path}.values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            )),
            "In" | "NotIn" => {}
            operator => {
                let detail = "not a valid selector operator";
                out.push(Cause::invalid(format!("{path}.operator"), &operator.into(), detail));
            }
        }
        if requirement.text("key") != "metadata.name" {
            let detail = "not a valid field selector key";
            out.push(Cause::invalid(format!("{path}.key"), &requirement.text("key").into(), detail));
            continue;
        }
        for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
            text(out, value, format_args!("{path}.values[{at}]"), validate::dns1123_subdomain);
        }
    }
}

fn pod_affinity_term(out: &mut Causes, term: &Value, path: &str) {
    check::label_selector(out, term.at("labelSelector"), format_args!("{path}.labelSelector"));
    check::label_selector(out, term.at("namespaceSelector"), format_args!("{path}.namespaceSelector"));
    for name in term.list("namespaces").iter().filter_map(Value::as_str) {
        text(out, name, format_args!("{path}.namespace"), validate::dns1123_label);
    }
    match_label_keys(out, term, path);
    let key = term.text("topologyKey");
    if key.is_empty() {
        out.push(Cause::required(format!("{path}.topologyKey"), "can not be empty"));
    }
    text(out, key, format_args!("{path}.topologyKey"), validate::qualified_name);
}

fn match_label_keys(out: &mut Causes, term: &Value, path: &str) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.list(field);
        if !keys.is_empty() && !term.has("labelSelector") {
            let detail = "must not be specified when labelSelector is not set";
            out.push(Cause::forbidden(format!("{path}.{field}"), detail));
            continue;
        }
        for (at, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            text(out, key, format_args!("{path}.{field}[{at}]"), validate::qualified_name);
        }
    }
    // The keys that are merged into the selector may be there once, as the server itself put them.
    let keys = term.list("matchLabelKeys");
    let mut seen: Vec<&str> = term.at("labelSelector.matchLabels").entries().iter().map(|(k, _)| k.as_str()).collect();
    for expression in term.list("labelSelector.matchExpressions") {
        let key = expression.text("key");
        if let Some(at) = keys.iter().rposition(|k| k == key).filter(|_| seen.contains(&key)) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            out.push(Cause::invalid(format!("{path}[{at}]"), &key.into(), detail));
        }
        seen.push(key);
    }
    for (at, key) in keys.iter().enumerate() {
        if term.list("mismatchLabelKeys").contains(key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            out.push(Cause::invalid(format!("{path}.matchLabelKeys[{at}]"), key, detail));
        }
    }
}

fn dns_config(out: &mut Causes, spec: &Value, path: Arguments<'_>) {
    const NAMESERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    const SEARCH_CHARACTERS_MAX: usize = 2048;
    let config = spec.at("dnsConfig");
    let servers = config.list("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            return out.push(Cause::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return out.push(Cause::required(format!("{path}.nameservers"), detail));
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        out.push(Cause::invalid(format!("{path}.nameservers"), config.at("nameservers"), &detail));
    }
    for (at, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        check::ip(out, server, format_args!("{path}.nameservers[{at}]"));
    }
    let searches: Vec<&str> = config.list("searches").iter().filter_map(Value::as_str).collect();
    let field = format!("{path}.searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        out.push(Cause::invalid(&field, config.at("searches"), &detail));
    }
    if searches.join(" ").len() > SEARCH_CHARACTERS_MAX {
        let detail =
            format!("must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list");
        out.push(Cause::invalid(&field, config.at("searches"), &detail));
    }
    for (at, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        text(out, search, format_args!("{field}[{at}]"), validate::dns1123_subdomain_with_underscore);
    }
    for (at, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            out.push(Cause::required(format!("{path}.options[{at}]"), "must not be empty"));
        }
    }
}

fn scheduling_gates(out: &mut Causes, spec: &Value, path: Arguments<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (at, gate) in spec.list("schedulingGates").iter().enumerate() {
        let path = format!("{path}[{at}]");
        let name = gate.text("name");
        text(out, name, &path, validate::qualified_name);
        if seen.contains(&name) {
            out.push(Cause::duplicate(&path, &name.into()));
        }
        seen.push(name);
    }
}

fn topology_spread(out: &mut Causes, spec: &Value, path: Arguments<'_>) {
    let list = spec.list("topologySpreadConstraints");
    for (at, constraint) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let positive = |out: &mut Causes, field: &str| {
            if constraint.int(field) <= 0 {
                let value = Value::from(constraint.int(field));
                out.push(Cause::invalid(format!("{path}.{field}"), &value, "must be greater than zero"));
            }
        };
        positive(out, "maxSkew");
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if key.is_empty() {
            out.push(Cause::required(format!("{path}.topologyKey"), "can not be empty"));
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            let supported = &["DoNotSchedule", "ScheduleAnyway"];
            out.push(Cause::not_supported(format!("{path}.whenUnsatisfiable"), &action.into(), supported));
        }
        let again = |other: &&Value| (other.text("topologyKey"), other.text("whenUnsatisfiable")) == (key, action);
        if list[at + 1..].iter().any(|other| again(&other)) {
            let field = format!("{path}.{{topologyKey, whenUnsatisfiable}}");
            out.push(Cause::duplicate(field, &format!("{{{key}, {action}}}").into()));
        }
        if constraint.has("minDomains") {
            positive(out, "minDomains");
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                out.push(Cause::invalid(format!("{path}.minDomains"), constraint.at("minDomains"), &detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            optional_one_of(out, constraint.at(field), format_args!("{path}.{field}"), &["Honor", "Ignore"]);
        }
        match_label_keys(out, constraint, &path);
        check::label_selector(out, constraint.at("labelSelector"), format_args!("{path}.labelSelector"));
    }
}

fn host_users(out: &mut Causes, spec: &Value, path: &str) {
    if spec.at("hostUsers") != &Value::Bool(false) {
        return;
    }
    for (field, name) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(field) {
            out.push(Cause::forbidden(format!("{path}.{name}"), "when `hostUsers` is false"));
        }
    }
    for list in CONTAINER_LISTS {
        for (at, container) in spec.list(list).iter().enumerate() {
            if !container.list("volumeDevices").is_empty() {
                let path = format!("{path}.{list}[{at}].volumeDevices");
                out.push(Cause::forbidden(path, "when `hostUsers` is false"));
            }
        }
    }
}

fn hostname_override(out: &mut Causes, spec: &Value, path: &str) {
    let Some(name) = spec.at("hostnameOverride").as_str() else { return };
    let path = format!("{path}.hostnameOverride");
    if spec.flag("setHostnameAsFQDN") {
        out.push(Cause::forbidden(&path, "may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.flag("hostNetwork") {
        out.push(Cause::forbidden(&path, "may not be specified when hostNetwork is true"));
    }
    if name.len() > 64 {
        out.push(Cause::too_long(&path, 64));
    }
    text(out, name, &path, validate::dns1123_subdomain);
}

/// What a pod puts up with.
pub fn tolerations(out: &mut Causes, tolerations: &Value, path: &str) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    for (at, toleration) in tolerations.items().iter().enumerate() {
        let path = format!("{path}[{at}]");
        let (key, operator, effect) = (toleration.text("key"), toleration.text("operator"), toleration.text("effect"));
        if !key.is_empty() {
            text(out, key, format_args!("{path}.key"), validate::qualified_name);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            out.push(Cause::invalid(format!("{path}.operator"), &operator.into(), detail));
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.push(Cause::invalid(format!("{path}.effect"), &effect.into(), detail));
        }
        let value = toleration.text("value");
        let field = format!("{path}.operator");
        match operator {
            "Equal" | "" => {
                let wrong = validate::label_value(value);
                if !wrong.is_empty() {
                    out.push(Cause::invalid(field, &value.into(), &wrong.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                out.push(Cause::invalid(field, &value.into(), "value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            // What a gate of Kubernetes holds back is named by the refusal all the same.
            "Lt" | "Gt" => {
                out.push(Cause::not_supported(field, &operator.into(), &["Equal", "Exists", "Lt", "Gt"]));
            }
            _ => out.push(Cause::not_supported(field, &operator.into(), &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            optional_one_of(out, toleration.at("effect"), format_args!("{path}.effect"), EFFECTS);
        }
    }
}

fn operating_system(out: &mut Causes, spec: &Value, path: &str) {
    const NOT_ON_WINDOWS: [&str; 11] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const NOT_IN_WINDOWS_CONTAINERS: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    if !spec.has("os") {
        return;
    }
    let contexts = || {
        CONTAINER_LISTS.into_iter().flat_map(move |list| {
            let each = spec.list(list).iter().enumerate();
            each.map(move |(at, container)| {
                (format!("{path}.{list}[{at}].securityContext"), container.at("securityContext"))
            })
        })
    };
    let own = (format!("{path}.securityContext"), spec.at("securityContext"));
    match spec.text("os.name") {
        "" => out.push(Cause::required(format!("{path}.os.name"), "")),
        "linux" => {
            for (path, context) in std::iter::once(own).chain(contexts()) {
                if context.has("windowsOptions") {
                    let detail = "windows options cannot be set for a linux pod";
                    out.push(Cause::forbidden(format!("{path}.windowsOptions"), detail));
                }
            }
        }
        "windows" => {
            let mut forbid = |path: &str, object: &Value, fields: &[&str]| {
                for field in fields.iter().filter(|field| !object.at(field).is_nothing()) {
                    out.push(Cause::forbidden(format!("{path}.{field}"), "cannot be set for a windows pod"));
                }
            };
            forbid(&own.0, own.1, &NOT_ON_WINDOWS);
            forbid(path, spec, &["hostUsers"]);
            for field in ["hostPID", "hostIPC"].into_iter().filter(|field| spec.flag(field)) {
                forbid(path, spec, &[field]);
            }
            forbid(path, spec, &["shareProcessNamespace"]);
            for (path, context) in contexts() {
                forbid(&path, context, &NOT_IN_WINDOWS_CONTAINERS);
            }
        }
        _ => out.push(Cause::not_supported(format!("{path}.os"), spec.at("os.name"), &["linux", "windows"])),
    }
}

fn file_key_volumes(out: &mut Causes, spec: &Value, path: &str) {
    for list in CONTAINER_LISTS {
        for (at, container) in spec.list(list).iter().enumerate() {
            for (env_at, variable) in container.list("env").iter().enumerate() {
                let reference = variable.at("valueFrom.fileKeyRef");
                if reference.is_null() {
                    continue;
                }
                let name = reference.text("volumeName");
                let path = format!("{path}.{list}[{at}].env[{env_at}].valueFrom.fileKeyRef.volumeName");
                match spec.list("volumes").iter().find(|volume| volume.text("name") == name) {
                    None => out.push(Cause::not_found(path, &name.into())),
                    Some(volume) if !volume.has("emptyDir") => {
                        let detail = "referenced volume must be of type emptyDir";
                        out.push(Cause::invalid(path, &name.into(), detail));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// Also what a pod's own write is held to that a template's is not.
pub fn pod(out: &mut Causes, pod: &Value) {
    let specification = pod.at("spec");
    annotations::pod(out, pod, "metadata.annotations");
    spec(out, specification, "spec", Of::Pod(pod));
    if specification.text("serviceAccountName").is_empty() {
        for (at, volume) in specification.list("volumes").iter().enumerate() {
            for (source_at, source) in volume.list("projected.sources").iter().enumerate() {
                if source.has("serviceAccountToken") {
                    let path = format!("spec.volumes[{at}].projected.sources[{source_at}].serviceAccountToken");
                    out.push(Cause::forbidden(path, "must not be specified when serviceAccountName is not set"));
                }
            }
        }
    }
    check::non_negative(out, specification, "spec", &["terminationGracePeriodSeconds"]);
    for list in ["containers", "initContainers"] {
        for (at, container) in specification.list(list).iter().enumerate() {
            image_is_trimmed(out, container, &format!("spec.{list}[{at}]"));
        }
    }
}
