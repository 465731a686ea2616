//! From a fresh clone to the container's program: its view of files, its user, its powers, its standard streams. Runs in
//! the child between clone and exec; on any refusal it returns the reason and the child ends.

use super::spawner::IGNORED_SIGNALS;
use super::sys::{self, Disposition};
use super::wire::Failure;
use super::{Capabilities, ContainerSpec, PodSpec, ProcessSpec, Terminal, User, console, rootfs, seccomp};
use rustix::fs::{FileType, Mode};
use rustix::thread::CapabilitySet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Where programs are looked for when a container's environment has no PATH.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kernel has at most 64 capabilities.
const CAPABILITY_BITS: u32 = 64;

/// Enters the container's files and becomes its program.
pub fn run(spec: &ContainerSpec, pod: &PodSpec, stdio: [OwnedFd; 3]) -> Result<(), Failure> {
    if !spec.groups.is_empty() {
        sys::own_groups().map_err(|error| Failure::new("make a cgroup namespace", &error))?;
    }
    rootfs::enter(spec, pod)?;
    become_program(&spec.process, stdio)
}

/// Becomes the program; returns only if it cannot.
pub fn become_program(spec: &ProcessSpec, stdio: [OwnedFd; 3]) -> Result<(), Failure> {
    let owner = spec.user.as_ref().map(|user| rustix::process::Uid::from_raw(user.uid));
    let stdio = match spec.terminal {
        Terminal::Own => own_terminal(&stdio[0], spec.user.as_ref())?,
        Terminal::None | Terminal::Agents => stdio,
    };
    for (number, fd) in stdio.iter().enumerate() {
        // So that the program's user can open /dev/stdout, which is a link to it, too.
        if owner.is_some()
            && rustix::fs::fstat(fd).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
        {
            let _ = rustix::fs::fchown(fd, owner, None);
        }
        sys::duplicate_to(fd.as_fd(), number as i32)
            .map_err(|error| Failure::new("set up standard streams", &error))?;
    }
    match spec.terminal {
        Terminal::Agents => {
            // A process group of its own in the foreground: the terminal's signals reach the program and nobody else.
            let _ = rustix::process::setpgid(None, None);
            let _ = sys::take_terminal();
        }
        Terminal::None => drop(rustix::process::setsid()),
        Terminal::Own => {}
    }
    if let Some(score) = spec.oom_score {
        // To lower it is not everybody's; then it stays as it is.
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    drop_capabilities(spec.isolation.capabilities);
    if spec.isolation.filtered {
        // While there still is the right to; what follows, the filter lets through.
        for program in seccomp::runtime_default(spec.isolation.capabilities)? {
            sys::filter_calls(&program).map_err(|error| Failure::new("install the seccomp filter", &error))?;
        }
    }
    if let Some(user) = &spec.user {
        become_user(user)?;
    } else {
        // Nothing of the agent's groups; refused where the pod has one user only, and then they mean nothing inside.
        let _ = rustix::thread::set_thread_groups(&[]);
    }
    if spec.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|error| Failure::new("set no_new_privs", &error.into()))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for signal in IGNORED_SIGNALS {
        sys::on_signal(signal, Disposition::Default);
    }
    sys::unblock_signals().map_err(|error| Failure::new("unblock signals", &error))?;
    sys::close_on_exec_from(3).map_err(|error| Failure::new("close descriptors", &error))?;
    std::env::set_current_dir(&spec.cwd)
        .map_err(|error| Failure::new(format!("chdir to cwd ({:?})", spec.cwd), &error))?;
    execute(spec)
}

/// A session of its own with a terminal of its own, as standard streams.
fn own_terminal(socket: &OwnedFd, user: Option<&User>) -> Result<[OwnedFd; 3], Failure> {
    let failed = |error: io::Error| Failure::new("make a terminal", &error);
    let _ = rustix::process::setsid();
    let terminal = console::open(socket, user).map_err(failed)?;
    Ok([terminal.try_clone().map_err(failed)?, terminal.try_clone().map_err(failed)?, terminal])
}

fn drop_capabilities(kept: Capabilities) {
    for bit in 0..CAPABILITY_BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // Fails for numbers the kernel does not know.
        if !kept.has_number(bit) && rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
}

fn become_user(user: &User) -> Result<(), Failure> {
    use rustix::process::{Gid, Uid};
    let groups: Vec<Gid> = user.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    let groups_set = rustix::thread::set_thread_groups(&groups);
    let same = rustix::process::getuid().as_raw() == user.uid && rustix::process::getgid().as_raw() == user.gid;
    if same {
        return Ok(());
    }
    let refused = |error: rustix::io::Errno| {
        let why = "without root, all containers of a pod have one and the same user";
        Failure::new(format!("run as user {}, group {} ({why})", user.uid, user.gid), &io::Error::from(error))
    };
    groups_set.map_err(refused)?;
    rustix::thread::set_thread_gid(Gid::from_raw(user.gid)).map_err(refused)?;
    rustix::thread::set_thread_uid(Uid::from_raw(user.uid)).map_err(refused)
}

fn execute(spec: &ProcessSpec) -> Result<(), Failure> {
    let c_strings = |strings: &mut dyn Iterator<Item = String>| -> Result<Vec<CString>, Failure> {
        let strings: Result<_, _> = strings.map(CString::new).collect();
        strings.map_err(|_| Failure::words("arguments and environment cannot contain a zero byte"))
    };
    let argv = c_strings(&mut spec.argv.iter().cloned())?;
    let env = c_strings(&mut spec.env.iter().map(|(name, value)| format!("{name}={value}")))?;
    let Some(program) = spec.argv.first() else { return Err(Failure::words("no command specified")) };
    if program.contains('/') {
        let error = sys::execve(&argv[0], &argv, &env);
        return Err(Failure::new(format!("exec: {program:?}"), &error));
    }
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    let mut denied = None;
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let Ok(candidate) = CString::new(format!("{folder}/{program}")) else { continue };
        let error = sys::execve(&candidate, &argv, &env);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            io::ErrorKind::PermissionDenied => denied = Some(error),
            _ => return Err(Failure::new(format!("exec: {program:?}"), &error)),
        }
    }
    match denied {
        Some(error) => Err(Failure::new(format!("exec: {program:?}"), &error)),
        None => Err(Failure::words(format!("exec: {program:?}: executable file not found in $PATH"))),
    }
}
