//! The checks of the pod security standards, one function each, in the order in which their findings are told. Pure.

use std::collections::BTreeSet;

use api::{go, meta};
use serde_json::Value;

use super::Level;

/// What is wrong with a pod.
pub struct Violation {
    /// `host namespaces`
    pub reason: String,
    /// `hostPID=true`
    pub detail: String,
}

type Check = fn(&Value, minor: u32) -> Option<Violation>;

/// What a check of the baseline gives way to a stricter one of the restricted level since.
const NEVER: u32 = u32::MAX;
const BASELINE: &[(Check, u32)] = &[
    (app_armor, NEVER),
    (capabilities_baseline, CAPABILITIES_SINCE),
    (host_namespaces, NEVER),
    (host_path_volumes, 0),
    (host_ports, NEVER),
    (host_probes, NEVER),
    (privileged, NEVER),
    (proc_mount_baseline, USER_NAMESPACES_SINCE),
    (selinux_options, NEVER),
    (seccomp_baseline, SECCOMP_SINCE),
    (sysctls, NEVER),
    (windows_host_process, NEVER),
];

/// Each with the minor version that it is there since.
const RESTRICTED: &[(Check, u32)] = &[
    (allow_privilege_escalation, 8),
    (capabilities_restricted, CAPABILITIES_SINCE),
    (proc_mount, USER_NAMESPACES_SINCE),
    (restricted_volumes, 0),
    (run_as_non_root, 0),
    (run_as_user, 23),
    (seccomp_restricted, SECCOMP_SINCE),
];

const CAPABILITIES_SINCE: u32 = 22;
/// Profiles are fields since; before they were annotations.
const SECCOMP_SINCE: u32 = 19;
/// What has no meaning on Windows is not asked of pods for it since.
const WINDOWS_SINCE: u32 = 25;
/// Pods with users of their own may do more since.
const USER_NAMESPACES_SINCE: u32 = 35;

/// Everything wrong with a pod or a template at a level.
pub fn run(level: Level, minor: u32, pod: &Value) -> Vec<Violation> {
    let applies = |since: u32| since != NEVER && minor >= since;
    let baseline = BASELINE.iter().filter(|(_, replaced)| level == Level::Baseline || !applies(*replaced));
    let restricted = RESTRICTED.iter().filter(|(_, since)| level == Level::Restricted && applies(*since));
    match level {
        Level::Privileged => Vec::new(),
        _ => baseline.chain(restricted).filter_map(|(check, _)| check(pod, minor)).collect(),
    }
}

fn found(reason: impl Into<String>, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail })
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| meta::items_at(pod, &["spec", list]))
}

/// Names of the containers for which something holds.
fn named(pod: &Value, holds: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|container| holds(container)).map(|container| meta::text_at(container, &["name"])).collect()
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn list(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// The pod, its containers, or both: `pod and container "a"`.
fn setters(of_pod: bool, names: &[&str]) -> Option<String> {
    match (of_pod, names) {
        (false, []) => None,
        (true, []) => Some("pod".into()),
        (false, names) => Some(list(names)),
        (true, names) => Some(format!("pod and {}", list(names))),
    }
}

fn app_armor(pod: &Value, _: u32) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let of = |context: &Value| meta::text_at(context, &["appArmorProfile", "type"]).to_string();
    let is_wrong = |context: &Value| !matches!(of(context).as_str(), "" | "RuntimeDefault" | "Localhost");
    let names = named(pod, |container| is_wrong(&container["securityContext"]));
    let mut who: Vec<String> = setters(is_wrong(&pod["spec"]["securityContext"]), &names).into_iter().collect();
    let contexts = contexts(pod).filter(|context| is_wrong(context)).map(of);
    let mut values: Vec<String> = contexts.collect::<BTreeSet<_>>().into_iter().collect();
    let annotations = meta::at(pod, &["metadata", "annotations"]).and_then(Value::as_object);
    let mut wrong: Vec<String> = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| {
            let allowed = matches!(*value, "" | "runtime/default") || value.starts_with("localhost/");
            key.starts_with(ANNOTATION) && !allowed
        })
        .map(|(key, value)| format!("{key}={}", go::quote(value)))
        .collect();
    if !wrong.is_empty() {
        who.push(plural("annotation", "annotations", wrong.len()).to_string());
        wrong.sort();
        values.append(&mut wrong);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    found(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

/// The security contexts of the pod and its containers.
fn contexts(pod: &Value) -> impl Iterator<Item = &Value> {
    std::iter::once(&pod["spec"]["securityContext"])
        .chain(containers(pod).map(|container| &container["securityContext"]))
}

fn has_own_users(pod: &Value, minor: u32) -> bool {
    minor >= USER_NAMESPACES_SINCE && pod["spec"]["hostUsers"] == false
}

fn added_capabilities<'a>(container: &'a Value, allowed: &[&str]) -> Vec<&'a str> {
    let added = meta::items_at(container, &["securityContext", "capabilities", "add"]).iter().filter_map(Value::as_str);
    added.filter(|capability| !allowed.contains(capability)).collect()
}

fn capabilities_baseline(pod: &Value, _: u32) -> Option<Violation> {
    const ALLOWED: &[&str] = &[
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    forbidden_capabilities(pod, ALLOWED).and_then(|detail| found("non-default capabilities", detail))
}

fn forbidden_capabilities(pod: &Value, allowed: &[&str]) -> Option<String> {
    let names = named(pod, |container| !added_capabilities(container, allowed).is_empty());
    let added: BTreeSet<&str> = containers(pod).flat_map(|container| added_capabilities(container, allowed)).collect();
    if names.is_empty() {
        return None;
    }
    Some(format!("{} must not include {} in securityContext.capabilities.add", list(&names), quoted(added)))
}

fn host_namespaces(pod: &Value, _: u32) -> Option<Violation> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod["spec"][field] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { found("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Value, _: u32) -> Option<Violation> {
    let volumes = meta::items_at(pod, &["spec", "volumes"]).iter().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.map(|volume| meta::text_at(volume, &["name"])).collect();
    if names.is_empty() {
        return None;
    }
    found("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Value, _: u32) -> Option<Violation> {
    let of = |container: &Value| -> Vec<i64> {
        let ports = meta::items_at(container, &["ports"]).iter().filter_map(|port| port["hostPort"].as_i64());
        ports.filter(|port| *port != 0).collect()
    };
    let names = named(pod, |container| !of(container).is_empty());
    let ports: BTreeSet<String> = containers(pod).flat_map(of).map(|port| port.to_string()).collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("hostPort", "hostPorts", ports.len());
    let uses = plural("uses", "use", names.len());
    let shown: Vec<String> = ports.into_iter().collect();
    found(word, format!("{} {uses} {word} {}", list(&names), shown.join(", ")))
}

/// Since 1.34: probes and hooks ask the pod itself, nobody else.
fn host_probes(pod: &Value, minor: u32) -> Option<Violation> {
    const SINCE: u32 = 34;
    if minor < SINCE {
        return None;
    }
    let of = |container: &Value| -> Vec<String> {
        let places: [&[&str]; 5] = [
            &["livenessProbe"],
            &["readinessProbe"],
            &["startupProbe"],
            &["lifecycle", "postStart"],
            &["lifecycle", "preStop"],
        ];
        let handlers = places.iter().filter_map(|path| meta::at(container, path));
        let hosts =
            handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| meta::text_at(handler, &[kind, "host"])));
        hosts.filter(|host| !matches!(*host, "" | "127.0.0.1" | "::1")).map(str::to_string).collect()
    };
    let names = named(pod, |container| !of(container).is_empty());
    let hosts: BTreeSet<String> = containers(pod).flat_map(of).collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    found(word, format!("{} {} {word} {}", list(&names), plural("uses", "use", names.len()), quoted(hosts)))
}

fn privileged(pod: &Value, _: u32) -> Option<Violation> {
    let names = named(pod, |container| container["securityContext"]["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    found("privileged", format!("{} must not set securityContext.privileged=true", list(&names)))
}

fn proc_mount_baseline(pod: &Value, minor: u32) -> Option<Violation> {
    if has_own_users(pod, minor) { None } else { proc_mount(pod, minor) }
}

fn proc_mount(pod: &Value, _: u32) -> Option<Violation> {
    let of = |container: &Value| meta::text_at(container, &["securityContext", "procMount"]).to_string();
    let is_wrong = |value: &String| !matches!(value.as_str(), "" | "Default");
    let names = named(pod, |container| is_wrong(&of(container)));
    let values: BTreeSet<String> = containers(pod).map(of).filter(is_wrong).collect();
    if names.is_empty() {
        return None;
    }
    found("procMount", format!("{} must not set securityContext.procMount to {}", list(&names), quoted(values)))
}

fn selinux_options(pod: &Value, minor: u32) -> Option<Violation> {
    const ENGINE_SINCE: u32 = 31;
    let allowed = |type_: &str| {
        matches!(type_, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (type_ == "container_engine_t" && minor >= ENGINE_SINCE)
    };
    let text = |context: &Value, field: &str| meta::text_at(context, &["seLinuxOptions", field]).to_string();
    let is_wrong = |context: &Value| {
        !allowed(&text(context, "type")) || !text(context, "user").is_empty() || !text(context, "role").is_empty()
    };
    let of_pod = is_wrong(&pod["spec"]["securityContext"]);
    let names = named(pod, |container| is_wrong(&container["securityContext"]));
    let setters = setters(of_pod, &names)?;
    let types: BTreeSet<String> =
        contexts(pod).map(|context| text(context, "type")).filter(|type_| !allowed(type_)).collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    for field in ["user", "role"] {
        if contexts(pod).any(|context| !text(context, field).is_empty()) {
            what.push(format!("{field} may not be set"));
        }
    }
    found("seLinuxOptions", format!("{setters} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

fn seccomp_of(context: &Value) -> &str {
    meta::text_at(context, &["seccompProfile", "type"])
}

/// Whoever sets a profile that is not allowed.
fn wrong_seccomp(pod: &Value, allowed: &[&str]) -> Option<Violation> {
    let is_wrong = |context: &Value| !matches!(seccomp_of(context), "") && !allowed.contains(&seccomp_of(context));
    let of_pod = is_wrong(&pod["spec"]["securityContext"]);
    let names = named(pod, |container| is_wrong(&container["securityContext"]));
    let setters = setters(of_pod, &names)?;
    let values: BTreeSet<&str> = contexts(pod).filter(|context| is_wrong(context)).map(seccomp_of).collect();
    found("seccompProfile", format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(values)))
}

fn seccomp_baseline(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < SECCOMP_SINCE {
        return seccomp_annotations(pod);
    }
    wrong_seccomp(pod, &["RuntimeDefault", "Localhost"])
}

fn seccomp_annotations(pod: &Value) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let keys = containers(pod).map(|container| format!("{CONTAINER}{}", meta::text_at(container, &["name"])));
    let keys = std::iter::once(POD.to_string()).chain(keys);
    let wrong: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = meta::entry(pod, "annotations", &key)?;
            let allowed = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!allowed).then(|| format!("{key}={}", go::quote(value)))
        })
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", wrong.len());
    let listed: Vec<String> = wrong.into_iter().collect();
    found("seccompProfile", format!("forbidden {word} {}", listed.join(", ")))
}

fn seccomp_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    if let Some(wrong) = wrong_seccomp(pod, &["RuntimeDefault", "Localhost"]) {
        return Some(wrong);
    }
    let of_pod = !seccomp_of(&pod["spec"]["securityContext"]).is_empty();
    let names = named(pod, |container| !of_pod && seccomp_of(&container["securityContext"]).is_empty());
    if names.is_empty() {
        return None;
    }
    let what = r#"must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#;
    found("seccompProfile", format!("pod or {} {what}", list(&names)))
}

fn sysctls(pod: &Value, minor: u32) -> Option<Violation> {
    /// The name and the version since when it is allowed.
    const ALLOWED: &[(&str, u32)] = &[
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
    ];
    let given = meta::items_at(pod, &["spec", "securityContext", "sysctls"]).iter();
    let names: BTreeSet<&str> = given
        .map(|sysctl| meta::text_at(sysctl, &["name"]))
        .filter(|name| !ALLOWED.iter().any(|(allowed, since)| allowed == name && minor >= *since))
        .collect();
    if names.is_empty() {
        return None;
    }
    found("forbidden sysctls", names.into_iter().collect::<Vec<_>>().join(", "))
}

fn windows_host_process(pod: &Value, _: u32) -> Option<Violation> {
    let is_set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let names = named(pod, |container| is_set(&container["securityContext"]));
    let setters = setters(is_set(&pod["spec"]["securityContext"]), &names)?;
    found("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn allow_privilege_escalation(pod: &Value, minor: u32) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    let names = named(pod, |container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if names.is_empty() {
        return None;
    }
    let what = "must set securityContext.allowPrivilegeEscalation=false";
    found("allowPrivilegeEscalation != false", format!("{} {what}", list(&names)))
}

fn is_windows(pod: &Value, minor: u32) -> bool {
    minor >= WINDOWS_SINCE && pod["spec"]["os"]["name"] == "windows"
}

fn capabilities_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    let keeps = |container: &Value| {
        let dropped = meta::items_at(container, &["securityContext", "capabilities", "drop"]);
        !dropped.iter().any(|capability| capability == "ALL")
    };
    let names = named(pod, keeps);
    let mut what = Vec::new();
    if !names.is_empty() {
        what.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", list(&names)));
    }
    what.extend(forbidden_capabilities(pod, &["NET_BIND_SERVICE"]));
    if what.is_empty() { None } else { found("unrestricted capabilities", what.join("; ")) }
}

fn restricted_volumes(pod: &Value, _: u32) -> Option<Violation> {
    const ALLOWED: &[&str] = &[
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let kind = |volume: &Value| -> String {
        let fields = volume.as_object().into_iter().flatten();
        fields.map(|(field, _)| field.clone()).find(|field| field != "name").unwrap_or_else(|| "emptyDir".into())
    };
    let volumes = || meta::items_at(pod, &["spec", "volumes"]).iter();
    let wrong = || volumes().filter(|volume| !ALLOWED.contains(&kind(volume).as_str()));
    let names: Vec<&str> = wrong().map(|volume| meta::text_at(volume, &["name"])).collect();
    let kinds: BTreeSet<String> = wrong().map(kind).collect();
    if names.is_empty() {
        return None;
    }
    let count = names.len();
    let of = plural("restricted volume type", "restricted volume types", kinds.len());
    let (volumes, uses) = (plural("volume", "volumes", count), plural("uses", "use", count));
    found("restricted volume types", format!("{volumes} {} {uses} {of} {}", quoted(&names), quoted(kinds)))
}

fn run_as_non_root(pod: &Value, minor: u32) -> Option<Violation> {
    if has_own_users(pod, minor) {
        return None;
    }
    const REASON: &str = "runAsNonRoot != true";
    let of = |context: &Value| context["runAsNonRoot"].as_bool();
    let of_pod = of(&pod["spec"]["securityContext"]);
    let explicit = named(pod, |container| of(&container["securityContext"]) == Some(false));
    if let Some(setters) = setters(of_pod == Some(false), &explicit) {
        return found(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = named(pod, |container| of_pod != Some(true) && of(&container["securityContext"]).is_none());
    if implicit.is_empty() {
        return None;
    }
    found(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", list(&implicit)))
}

fn run_as_user(pod: &Value, minor: u32) -> Option<Violation> {
    if has_own_users(pod, minor) {
        return None;
    }
    let is_root = |context: &Value| context["runAsUser"].as_i64() == Some(0);
    let names = named(pod, |container| is_root(&container["securityContext"]));
    let setters = setters(is_root(&pod["spec"]["securityContext"]), &names)?;
    found("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(level: Level, minor: u32, pod: Value, expected: &[&str]) {
        let told: Vec<String> =
            run(level, minor, &pod).iter().map(|wrong| format!("{} ({})", wrong.reason, wrong.detail)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn levels_were_laxer_once() {
        let pod = json!({"spec": {"containers": [{"name": "a", "securityContext": {
            "capabilities": {"add": ["SYS_TIME"]}, "runAsUser": 0,
        }}]}});
        let capabilities = "non-default capabilities (container \"a\" must not include \"SYS_TIME\" in \
                            securityContext.capabilities.add)";
        let root = "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)";
        check(Level::Restricted, 7, pod.clone(), &[capabilities, root]);
        let escalation = "allowPrivilegeEscalation != false (container \"a\" must set \
                          securityContext.allowPrivilegeEscalation=false)";
        let seccomp = "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \
                       \"RuntimeDefault\" or \"Localhost\")";
        check(Level::Restricted, 21, pod, &[capabilities, escalation, root, seccomp]);
    }

    #[test]
    fn pods_with_their_own_users_may_be_root() {
        let pod = json!({"spec": {"hostUsers": false, "containers": [{"name": "a", "securityContext": {
            "procMount": "Unmasked", "runAsUser": 0, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "Localhost"},
        }}]}});
        let unmasked = "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")";
        check(Level::Restricted, 35, pod.clone(), &[unmasked]);
        check(Level::Baseline, 35, pod.clone(), &[]);
        check(Level::Baseline, 34, pod, &[unmasked]);
    }

    #[test]
    fn annotations_set_profiles_too() {
        let key = "container.apparmor.security.beta.kubernetes.io/a";
        let pod = json!({
            "metadata": {"annotations": {key: "odd", "seccomp.security.alpha.kubernetes.io/pod": "unconfined"}},
            "spec": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}, "containers": [{"name": "a"}]},
        });
        let profiles = "forbidden AppArmor profiles (pod and annotation must not set AppArmor profile type to \
                        \"Unconfined\", \"container.apparmor.security.beta.kubernetes.io/a=\"odd\"\")";
        check(Level::Baseline, 37, pod.clone(), &[profiles]);
        let seccomp = "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")";
        check(Level::Baseline, 18, pod, &[profiles, seccomp]);
    }

    #[test]
    fn windows_knows_no_profiles() {
        let pod = json!({"spec": {"os": {"name": "windows"}, "containers": [{"name": "a"}],
            "securityContext": {"runAsNonRoot": true}}});
        check(Level::Restricted, 25, pod, &[]);
    }
}
