//! Whether the host lets this user have pods, and if not, which setting to change. Changes nothing itself.

use super::wire::Failure;
use super::{ContainerSpec, Error, Network, PodSpec, ProcessNamespace, ProcessSpec, Sandbox, Stdio, rootfs, spawner};
use std::path::Path;

/// The host forbids namespaces to this user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host does not let this user start pods: {why}{}", .command.as_ref().map(|command| format!("; to allow it: {command}")).unwrap_or_default())]
pub struct Forbidden {
    /// What forbids it, the setting's name included.
    pub why: String,
    /// The command that allows it, to be run by an administrator, where there is one.
    pub command: Option<String>,
}

/// Starts a pod with one container and takes it away again. `staging` is as in [`PodSpec`].
pub async fn check(staging: &Path) -> Result<(), Error> {
    let sandbox = Sandbox::start()?;
    let network = Network::Own { addresses: Vec::new(), address: None, listen: Vec::new() };
    let pod = PodSpec {
        hostname: "check".into(),
        staging: staging.into(),
        uid: 0,
        gid: 0,
        network,
        memory_volumes: Vec::new(),
        sysctls: Vec::new(),
        processes_max: None,
        keep: None,
    };
    let pod = sandbox.create_pod(pod).await?;
    let process = ProcessSpec {
        argv: vec!["/bin/sh".into(), "-c".into(), ":".into()],
        env: Vec::new(),
        cwd: "/".into(),
        user: None,
        terminal: super::Terminal::None,
        no_new_privileges: true,
        isolation: super::Isolation::default(),
        oom_score: None,
    };
    let container = ContainerSpec {
        process,
        root: super::Root::Host { read_only: false },
        mounts: Vec::new(),
        hidden: Vec::new(),
        process_namespace: ProcessNamespace::Own,
        proc_unmasked: false,
        groups: Vec::new(),
    };
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(Into::into);
    let started = pod.start(container, Stdio { stdin: null()?, stdout: null()?, stderr: null()? }).await;
    match started {
        Err(Error::Refused(failure)) => Err(explain(&failure).map_or(Error::Refused(failure), Error::Forbidden)),
        Err(error) => Err(error),
        Ok(process) => {
            process.wait().await;
            Ok(())
        }
    }
}

/// What is behind a refused step, if it is the host's policy.
pub(super) fn explain(failure: &Failure) -> Option<Forbidden> {
    let root = rustix::process::geteuid().is_root();
    explain_with(failure, root, |name| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

fn explain_with(failure: &Failure, root: bool, sysctl: impl Fn(&str) -> Option<u64>) -> Option<Forbidden> {
    let setting = |name: &str, is: u64, should: u64| Forbidden {
        why: format!("{name} is {is}"),
        command: Some(format!("sudo sysctl -w {name}={should}")),
    };
    let step = failure.step.as_str();
    let early = step == spawner::CLONE_STEP || step == spawner::MAP_STEP || step.starts_with(rootfs::STAGE_STEP);
    match failure.errno {
        libc::ENOSPC | libc::EUSERS if step == spawner::CLONE_STEP => {
            let namespaces = ["user", "mnt", "pid", "net", "ipc", "uts"];
            let mut limits = namespaces.iter().map(|kind| format!("user.max_{kind}_namespaces"));
            let zero = limits.find(|name| sysctl(name) == Some(0)).unwrap_or("user.max_user_namespaces".into());
            Some(setting(&zero, sysctl(&zero).unwrap_or(0), NAMESPACES_SUGGESTED))
        }
        libc::EPERM | libc::EACCES if early => {
            if !root && sysctl(CLONE_SWITCH) == Some(0) {
                return Some(setting(CLONE_SWITCH, 0, 1));
            }
            if !root && sysctl(APPARMOR_SWITCH).is_some_and(|value| value != 0) {
                return Some(setting(APPARMOR_SWITCH, sysctl(APPARMOR_SWITCH).unwrap_or(1), 0));
            }
            Some(Forbidden {
                why: format!(
                    "{failure}; no kernel setting says so, so it is probably the seccomp or security profile of the \
                     container this runs in (Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined)"
                ),
                command: None,
            })
        }
        libc::EPERM if step == rootfs::PROC_STEP => Some(Forbidden {
            why: format!(
                "{failure}; parts of /proc are covered, as in a container (Docker: --security-opt systempaths=unconfined)"
            ),
            command: None,
        }),
        libc::EINVAL if step == spawner::CLONE_STEP => Some(Forbidden {
            why: "this kernel was built without user namespaces (CONFIG_USER_NS)".into(),
            command: None,
        }),
        libc::ENOSYS => Some(Forbidden {
            why: format!("{failure}; pods need Linux 5.12 or newer and a seccomp profile that knows its system calls"),
            command: None,
        }),
        _ => None,
    }
}

const CLONE_SWITCH: &str = "kernel.unprivileged_userns_clone";
const APPARMOR_SWITCH: &str = "kernel.apparmor_restrict_unprivileged_userns";
const NAMESPACES_SUGGESTED: u64 = 65536;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: &str, errno: i32, root: bool, sysctls: &[(&str, u64)], expected: &str) {
        let failure = Failure { step: step.into(), errno };
        let find = |name: &str| sysctls.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let text = explain_with(&failure, root, find).map_or("not policy".into(), |forbidden| forbidden.to_string());
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn names_the_setting() {
        let (clone, stage) = (spawner::CLONE_STEP, rootfs::STAGE_STEP);
        check(clone, libc::EPERM, false, &[(CLONE_SWITCH, 0)], "sudo sysctl -w kernel.unprivileged_userns_clone=1");
        check(
            clone,
            libc::ENOSPC,
            false,
            &[("user.max_user_namespaces", 0)],
            "sysctl -w user.max_user_namespaces=65536",
        );
        check(clone, libc::ENOSPC, true, &[("user.max_net_namespaces", 0)], "user.max_net_namespaces is 0");
        check(
            stage,
            libc::EACCES,
            false,
            &[(APPARMOR_SWITCH, 1)],
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        );
        check(clone, libc::EPERM, true, &[(CLONE_SWITCH, 0)], "seccomp");
        check(rootfs::PROC_STEP, libc::EPERM, false, &[], "systempaths=unconfined");
        check("exec: \"nope\"", libc::ENOENT, false, &[], "not policy");
    }
}
