//! What a pod's security contexts ask of the kernel: capabilities, the filter of system calls, `/proc`, settings. Pure; what
//! cannot be had here is answered with an error, never passed over.

use crate::pod::{Container, Pod, Resources};
use crate::sandbox::{Capabilities, Isolation};

/// Settings that a namespace has of its own and that harm nobody else, as the kubelet allows them without being told to.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The powers of a container's programs.
///
/// # Errors
/// What cannot be had, for the event and the status.
pub fn isolation(pod: &Pod, container: &Container) -> Result<Isolation, String> {
    let security = &container.security_context;
    if security.privileged == Some(true) {
        return Err("privileged containers cannot be had here: a pod has no power over the machine; remove \
            securityContext.privileged and add the capabilities that are needed"
            .into());
    }
    let profile = security.seccomp_profile.as_ref().or(pod.spec.security_context.seccomp_profile.as_ref());
    let filtered = match profile.map(|profile| (profile.kind.as_str(), profile.localhost_profile.as_str())) {
        None | Some(("Unconfined", _)) => false,
        Some(("RuntimeDefault", _)) => true,
        Some((kind, file)) => {
            return Err(format!(
                "cannot load seccomp profile {file:?}: profiles of type {kind} are not supported here; use \
                 RuntimeDefault or Unconfined"
            ));
        }
    };
    let changes = &security.capabilities;
    Ok(Isolation { capabilities: Capabilities::changed(&changes.add, &changes.drop)?, filtered })
}

/// Whether `/proc` is to be without covers.
///
/// # Errors
/// As root: to root, which the machine's root is in a pod too, the settings there are the machine's.
pub fn proc_unmasked(container: &Container, root: bool) -> Result<bool, String> {
    match (container.security_context.proc_mount.as_str(), root) {
        ("Unmasked", true) => {
            Err("procMount Unmasked cannot be had while the node runs as root: the machine's settings \
            would be open to the container; run it as an ordinary user, or leave procMount out"
                .into())
        }
        (kind, _) => Ok(kind == "Unmasked"),
    }
}

/// What is set in the pod's namespaces.
pub fn sysctls(pod: &Pod) -> Vec<(String, String)> {
    let wanted = pod.spec.security_context.sysctls.iter();
    wanted.map(|sysctl| (dotted(&sysctl.name), sysctl.value.clone())).collect()
}

/// Why the node does not take a pod at all: the reason and the message.
pub fn rejection(pod: &Pod) -> Option<(&'static str, String)> {
    pod.spec.security_context.sysctls.iter().find_map(|sysctl| {
        let name = dotted(&sysctl.name);
        let why = if !SAFE_SYSCTLS.contains(&name.as_str()) {
            "not allowlisted"
        } else if pod.spec.host_network && name.starts_with("net.") {
            "not allowed with host net enabled"
        } else {
            return None;
        };
        Some(("SysctlForbidden", format!("forbidden sysctl: {:?} {why}", sysctl.name)))
    })
}

/// What of the machine's a pod asks for and cannot have.
pub fn not_shared(pod: &Pod) -> Option<String> {
    let asked = [("hostPID", pod.spec.host_pid), ("hostIPC", pod.spec.host_ipc)];
    let (name, _) = asked.into_iter().find(|(_, asked)| *asked)?;
    Some(format!("{name} cannot be had here: every pod has namespaces of its own; leave it out"))
}

/// Whether a pod asks for limits of what it uses.
pub fn has_limits(pod: &Pod) -> bool {
    let limited = |resources: &Resources| ["cpu", "memory"].iter().any(|it| resources.limits.contains_key(*it));
    limited(&pod.spec.resources) || pod.spec.all_containers().any(|container| limited(&container.resources))
}

/// `net/ipv4/tcp_rmem` is another spelling of `net.ipv4.tcp_rmem`: the first separator says which one it is.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some("/") => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn powers() {
        let check = |of_pod: Value, of_container: Value, expected: &str| {
            let pod = pod(json!({"securityContext": of_pod, "containers": [{"securityContext": of_container}]}));
            let text = match isolation(&pod, &pod.spec.containers[0]) {
                Ok(isolation) => {
                    let has = |name: &str| isolation.capabilities.has(name);
                    format!("filtered {} kill {} net {}", isolation.filtered, has("KILL"), has("NET_ADMIN"))
                }
                Err(error) => error.split([':', ';']).next().unwrap().to_owned(),
            };
            assert_eq!(text, expected);
        };
        let profile = |kind: &str| json!({"seccompProfile": {"type": kind, "localhostProfile": "a.json"}});
        check(json!({}), json!({}), "filtered false kill true net false");
        check(profile("RuntimeDefault"), json!({}), "filtered true kill true net false");
        check(profile("RuntimeDefault"), profile("Unconfined"), "filtered false kill true net false");
        check(json!({}), profile("Localhost"), "cannot load seccomp profile \"a.json\"");
        let changes = json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["KILL"]}});
        check(json!({}), changes, "filtered false kill false net true");
        check(json!({}), json!({"privileged": true}), "privileged containers cannot be had here");
    }

    #[test]
    fn what_is_only_said() {
        let limits = json!([{"name": "b"}, {"name": "c", "resources": {"limits": {"cpu": 1}}}]);
        assert!(has_limits(&pod(json!({"containers": limits}))));
        assert!(!has_limits(&pod(json!({"containers": [{"name": "b"}]}))));
        assert_eq!(not_shared(&pod(json!({}))), None);
        assert!(not_shared(&pod(json!({"hostPID": true}))).unwrap().starts_with("hostPID cannot be had here"));
    }

    #[test]
    fn settings() {
        let check = |host_network: bool, name: &str, expected: &str| {
            let pod = pod(
                json!({"hostNetwork": host_network, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}),
            );
            let text = match rejection(&pod) {
                Some((reason, message)) => format!("{reason} {message}"),
                None => sysctls(&pod).iter().map(|(name, value)| format!("{name}={value} ")).collect(),
            };
            assert_eq!(text, expected);
        };
        let ports = "net.ipv4.ip_unprivileged_port_start";
        check(false, "net/ipv4/tcp_syncookies", "net.ipv4.tcp_syncookies=1 ");
        check(false, ports, &format!("{ports}=1 "));
        check(true, "kernel.shm_rmid_forced", "kernel.shm_rmid_forced=1 ");
        check(false, "kernel.msgmax", "SysctlForbidden forbidden sysctl: \"kernel.msgmax\" not allowlisted");
        let refused = format!("SysctlForbidden forbidden sysctl: {ports:?} not allowed with host net enabled");
        check(true, ports, &refused);
    }
}
