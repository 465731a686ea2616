//! What a pod and its containers are to the Container Runtime Interface: pure, from the plans that the sandbox gets as well.

use super::messages as m;
use crate::cgroups::CPU_PERIOD_MICROS;
use crate::cgroups::Limits;
use crate::images::Files;
use crate::pod::{Container, Pod, SeccompProfile};
use crate::runtime::{ContainerPlan, PodPlan};
use crate::sandbox::{Network, ProcessNamespace, Root, Source};
use std::collections::HashMap;
use std::path::PathBuf;

/// The labels under which the kubelet's pods are known to users of a runtime.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Which agent's pod it is.
pub const AGENT: &str = "io.kemudi.agent";
/// What of `/proc` hides, as the kubelet has it.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The pod.
pub fn pod(plan: &PodPlan, agent: &str) -> m::PodSandboxConfig {
    let (pod, spec) = (&*plan.pod, &plan.pod.spec);
    let meta = &pod.metadata;
    let host_network = plan.network == Network::Host;
    let mut labels: HashMap<String, String> =
        meta.labels.iter().map(|(key, it)| (key.to_owned(), it.to_owned())).collect();
    labels.extend(own_labels(pod, agent));
    m::PodSandboxConfig {
        metadata: Some(m::PodSandboxMetadata {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            namespace: meta.namespace.clone(),
            attempt: 0,
        }),
        hostname: if host_network { String::new() } else { plan.hostname.clone() },
        log_directory: plan.folder.join("logs").display().to_string(),
        // Each container gets the file that the agent writes.
        dns_config: None,
        labels,
        annotations: meta.annotations.iter().map(|(key, it)| (key.to_owned(), it.to_owned())).collect(),
        linux: Some(m::LinuxPodSandboxConfig {
            cgroup_parent: String::new(),
            security_context: Some(m::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod, None)),
                privileged: spec.all_containers().any(|it| it.security_context.privileged == Some(true)),
                // The pod's own process does nothing, whatever its containers may.
                seccomp: Some(profile(m::ProfileType::RuntimeDefault, "")),
                ..m::LinuxSandboxSecurityContext::default()
            }),
            sysctls: plan.sysctls.iter().cloned().collect(),
        }),
    }
}

fn own_labels(pod: &Pod, agent: &str) -> [(String, String); 4] {
    let meta = &pod.metadata;
    [(POD_NAME, &*meta.name), (POD_NAMESPACE, &*meta.namespace), (POD_UID, &*meta.uid), (AGENT, agent)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// A container, with mounts from these paths of the machine; `target` is the id of the one whose processes it sees.
///
/// # Errors
/// What cannot be had.
pub fn container(
    plan: &ContainerPlan,
    places: Vec<PathBuf>,
    target: Option<&str>,
    agent: &str,
) -> Result<m::ContainerConfig, String> {
    let Files::Engine(image) = &plan.files else {
        return Err("the image of this container is not one of the runtime's".into());
    };
    let (process, pod) = (&plan.spec.process, &*plan.pod);
    let (asked, of_pod) = (&plan.container.security_context, &pod.spec.security_context);
    let (mut mounts, mut devices) = (Vec::new(), Vec::new());
    for (mount, from) in plan.spec.mounts.iter().zip(places) {
        let (container_path, host_path) = (mount.target.display().to_string(), from.display().to_string());
        match mount.source {
            Source::Device(_) => {
                let permissions = if mount.read_only { "r" } else { "mrw" }.to_owned();
                devices.push(m::Device { container_path, host_path, permissions });
            }
            _ => mounts.push(m::Mount { container_path, host_path, readonly: mount.read_only }),
        }
    }
    let own = |id: Option<u32>| id.map(|id| m::Int64Value { value: id.into() });
    let uid = asked.run_as_user.or(of_pod.run_as_user);
    let of_image = image.config.user.split(':').next().unwrap_or_default();
    let (uid, user) = match (uid, of_image.parse::<u32>()) {
        (Some(uid), _) | (None, Ok(uid)) => (Some(uid), String::new()),
        (None, Err(_)) if of_image.is_empty() => (Some(0), String::new()),
        (None, Err(_)) => (None, of_image.to_owned()),
    };
    let mut labels = HashMap::from(own_labels(pod, agent));
    labels.insert(CONTAINER_NAME.into(), plan.container.name.clone());
    let unmasked = plan.spec.proc_unmasked;
    let paths = |all: &[&str]| if unmasked { Vec::new() } else { all.iter().map(|it| (*it).to_owned()).collect() };
    let security = m::LinuxContainerSecurityContext {
        capabilities: Some(m::Capability {
            add_capabilities: asked.capabilities.add.clone(),
            drop_capabilities: asked.capabilities.drop.clone(),
        }),
        privileged: asked.privileged == Some(true),
        namespace_options: Some(match (plan.spec.process_namespace, target) {
            (ProcessNamespace::Own, Some(target)) => namespaces(pod, Some(target)),
            _ => namespaces(pod, None),
        }),
        run_as_user: own(uid),
        run_as_username: user,
        run_as_group: own(asked.run_as_group.or(of_pod.run_as_group)),
        readonly_rootfs: matches!(plan.spec.root, Root::Host { read_only: true } | Root::Image { read_only: true, .. }),
        supplemental_groups: of_pod
            .supplemental_groups
            .iter()
            .chain(&of_pod.fs_group)
            .map(|group| i64::from(*group))
            .collect(),
        no_new_privs: asked.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(&plan.container, pod)?),
        supplemental_groups_policy: match of_pod.supplemental_groups_policy.as_str() {
            "Strict" => m::GroupsPolicy::Strict,
            _ => m::GroupsPolicy::Merge,
        } as i32,
    };
    let file = plan.log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(m::ContainerConfig {
        metadata: Some(m::ContainerMetadata { name: plan.container.name.clone(), attempt: plan.attempt }),
        image: Some(m::ImageSpec { image: image.id.clone(), user_specified_image: plan.container.image.clone() }),
        // The image's own words are in it already.
        command: process.argv.clone(),
        args: Vec::new(),
        working_dir: process.cwd.display().to_string(),
        envs: process
            .env
            .iter()
            .map(|(key, value)| m::KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts,
        devices,
        labels,
        annotations: HashMap::new(),
        log_path: file,
        stdin: plan.container.stdin,
        stdin_once: plan.container.stdin_once,
        tty: plan.container.tty,
        linux: Some(m::LinuxContainerConfig {
            resources: Some(resources(&plan.limits, process.oom_score)),
            security_context: Some(security),
        }),
    })
}

/// What a container may use.
pub fn resources(limits: &Limits, oom_score: Option<i32>) -> m::LinuxContainerResources {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    m::LinuxContainerResources {
        cpu_period: signed(CPU_PERIOD_MICROS),
        cpu_quota: limits.cpu_quota_micros.map_or(0, signed),
        cpu_shares: signed(limits.cpu_shares),
        memory_limit_in_bytes: limits.memory_bytes.map_or(0, signed),
        oom_score_adj: oom_score.unwrap_or(0).into(),
    }
}

/// Which namespaces are shared with whom.
fn namespaces(pod: &Pod, target: Option<&str>) -> m::NamespaceOption {
    let spec = &pod.spec;
    let host = |asked: bool, other: m::NamespaceMode| if asked { m::NamespaceMode::Node } else { other } as i32;
    let shared = match spec.share_process_namespace {
        true => m::NamespaceMode::Pod,
        false => m::NamespaceMode::Container,
    };
    m::NamespaceOption {
        network: host(spec.host_network, m::NamespaceMode::Pod),
        pid: match target {
            Some(_) => m::NamespaceMode::Target as i32,
            None => host(spec.host_pid, shared),
        },
        ipc: host(spec.host_ipc, m::NamespaceMode::Pod),
        target_id: target.unwrap_or_default().to_owned(),
    }
}

fn seccomp(container: &Container, pod: &Pod) -> Result<m::SecurityProfile, String> {
    let of_container = container.security_context.seccomp_profile.as_ref();
    let asked: Option<&SeccompProfile> = of_container.or(pod.spec.security_context.seccomp_profile.as_ref());
    match asked.map(|asked| (asked.kind.as_str(), asked.localhost_profile.as_str())) {
        None | Some(("Unconfined", _)) => Ok(profile(m::ProfileType::Unconfined, "")),
        Some(("RuntimeDefault", _)) => Ok(profile(m::ProfileType::RuntimeDefault, "")),
        Some((kind, file)) => Err(format!(
            "cannot load seccomp profile {file:?}: profiles of type {kind} are not supported here; use RuntimeDefault \
             or Unconfined"
        )),
    }
}

fn profile(kind: m::ProfileType, file: &str) -> m::SecurityProfile {
    m::SecurityProfile { profile_type: kind as i32, localhost_ref: file.to_owned() }
}
