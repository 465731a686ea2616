//! The spawner: a small process, started early, that clones the pods' inits, so that a fork never copies a big heap.
//! It speaks only with the agent that started it and ends, with every pod, when that socket closes.

use super::sys::{self, Disposition, Forked};
use super::wire::{self, Failure, FromSpawner, Inbox, ToSpawner};
use super::{Network, PodSpec, init, switch};
use rustix::process::{Pid, Signal};
use std::fs;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Set in the environment of a process that shall be the spawner; its stdin is the agent's socket.
pub const VARIABLE: &std::ffi::CStr = c"KEMUDI_SPAWNER";
/// What the process is called in a list of processes.
pub const PROCESS_NAME: &str = "kemudi-spawner";

/// What the spawner and the inits ignore; a container's program gets all of it back. The terminal's signals are for the
/// program in the foreground, and nobody waits for an init that has ended.
pub const IGNORED_SIGNALS: [i32; 9] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGPIPE,
    libc::SIGCHLD,
];

/// Becomes the spawner, and never returns, if the process was started as one.
pub fn run_if_asked() {
    if sys::environment_variable(VARIABLE).is_none() {
        return;
    }
    sys::exit(match sys::take_socket().and_then(serve) {
        Ok(()) => 0,
        Err(_) => 1,
    })
}

fn serve(socket: OwnedFd) -> io::Result<()> {
    for signal in 1..=sys::SIGNAL_MAX {
        sys::on_signal(signal, Disposition::Default);
    }
    for signal in IGNORED_SIGNALS {
        sys::on_signal(signal, Disposition::Ignore);
    }
    let _ = std::env::set_current_dir("/");
    // Where it cannot be had, the first pod says why.
    let _ = share_users();
    let mut inbox = Inbox::default();
    while let Some((message, mut fds)) = inbox.receive::<ToSpawner>(&socket)? {
        let door = (fds.len() > 1).then(|| fds.pop()).flatten();
        let Some(its_socket) = fds.pop() else { return Err(io::Error::other("a message came without its socket")) };
        let created = match message {
            ToSpawner::CreatePod { spec } => create(spec, its_socket, door, &socket),
            ToSpawner::CreateSwitch { gateway } => create_switch(gateway, its_socket, &socket),
        };
        match created {
            Ok((pid, pidfd)) => {
                wire::send(socket.as_fd(), &FromSpawner::Created { pid: pid.as_raw_nonzero().get() }, &[pidfd.as_fd()])?
            }
            Err(failure) => wire::send(socket.as_fd(), &FromSpawner::Failed(failure), &[])?,
        }
    }
    Ok(())
}

/// Without root, makes a user namespace that the node's network and every pod are in: only who has power over both may lay a
/// wire between them. Root has it anyway.
fn share_users() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        return Ok(());
    }
    sys::unshare(sys::USER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1", gid.as_raw()))
}

/// Clones the process that holds the node's network.
fn create_switch(gateway: Ipv4Addr, its_socket: OwnedFd, agent: &OwnedFd) -> Result<(Pid, OwnedFd), Failure> {
    match sys::clone(sys::NET).map_err(|error| Failure::new(CLONE_STEP, &error))? {
        Forked::Child => {
            sys::close_between(agent.as_raw_fd() as u32, agent.as_raw_fd() as u32);
            switch::run(gateway, its_socket)
        }
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

/// Clones the init of one pod and gives it its users.
fn create(
    spec: PodSpec,
    pod_socket: OwnedFd,
    door: Option<OwnedFd>,
    agent: &OwnedFd,
) -> Result<(Pid, OwnedFd), Failure> {
    let (go_read, go_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::new("pipe", &error.into()))?;
    let mut namespaces = sys::USER | sys::MOUNT | sys::PID | sys::IPC | sys::UTS;
    if let Network::Own { .. } = spec.network {
        namespaces |= sys::NET;
    }
    match sys::clone(namespaces).map_err(|error| Failure::new(CLONE_STEP, &error))? {
        Forked::Child => {
            drop(go_write);
            // The agent's socket belongs to the spawner alone; the init has its own.
            sys::close_between(agent.as_raw_fd() as u32, agent.as_raw_fd() as u32);
            let mut go = [0];
            if fs::File::from(go_read).read_exact(&mut go).is_err() {
                sys::exit(1);
            }
            init::run(spec, pod_socket, door)
        }
        Forked::Parent { pid, pidfd } => {
            let mapped = map_users(pid, &spec).and_then(|()| {
                fs::File::from(go_write).write_all(&[1]).map_err(|error| Failure::new("start the pod's init", &error))
            });
            if let Err(failure) = mapped {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                return Err(failure);
            }
            Ok((pid, pidfd))
        }
    }
}

/// The step whose refusal means that user namespaces are not to be had.
pub const CLONE_STEP: &str = "clone with new namespaces";
/// The step that fails where the number of users mapped is restricted.
pub const MAP_STEP: &str = "map the pod's users";

/// As root every user of the host is the same user in the pod, without power over the host's kernel. As anybody else,
/// the pod has one user, which the host sees as ours.
fn map_users(pid: Pid, spec: &PodSpec) -> Result<(), Failure> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{}/{file}", pid.as_raw_nonzero()), text)
            .map_err(|error| Failure::new(MAP_STEP, &error))
    };
    if rustix::process::geteuid().is_root() {
        for file in ["uid_map", "gid_map"] {
            let own =
                fs::read_to_string(format!("/proc/self/{file}")).map_err(|error| Failure::new(MAP_STEP, &error))?;
            write(file, &same_in_pod(&own))?;
        }
        return Ok(());
    }
    write("setgroups", "deny")?;
    write("uid_map", &format!("{} {} 1", spec.uid, rustix::process::geteuid().as_raw()))?;
    write("gid_map", &format!("{} {} 1", spec.gid, rustix::process::getegid().as_raw()))
}

/// The map that keeps each id as it is, from our own map (lines `inside outside count`).
fn same_in_pod(own: &str) -> String {
    own.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (inside, _, count) = (words.next()?, words.next()?, words.next()?);
            Some(format!("{inside} {inside} {count}\n"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn identity_map() {
        assert_eq!(super::same_in_pod("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(super::same_in_pod("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
