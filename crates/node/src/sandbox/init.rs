//! A pod's init: process 1 of the pod's process namespace. It holds the pod's namespaces, starts containers and
//! processes in them when the agent says so, reaps, and tells how they ended. When the agent's socket closes it exits,
//! and the kernel ends everything in the pod with it. It keeps no policy: restarts and the like are the agent's.

use super::sys::{self, Disposition, Forked};
use super::wire::{self, Exit, Failure, FromInit, Inbox, ToInit};
use super::{ContainerSpec, Network, PodSpec, ProcessNamespace, ProcessSpec, container, net, rootfs};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most processes the agent may have running in one pod (containers and exec).
pub const PROCESSES_MAX: usize = 1024;

/// Sets the pod up and serves the agent until its socket closes.
pub fn run(spec: PodSpec, socket: OwnedFd) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::thread::set_name(c"kemudi-init");
    // It and what it clones have power over the pod's namespaces until a program is executed: no container may trace them,
    // whatever its capabilities.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    sys::on_signal(libc::SIGCHLD, Disposition::Default);
    match set_up(&spec, socket.as_fd()) {
        Ok((listeners, signals)) => {
            let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
            if wire::send(socket.as_fd(), &FromInit::Ready, &fds).is_err() {
                sys::exit(1);
            }
            drop(listeners);
            let mut init = Init { spec, socket, signals, processes: HashMap::new() };
            let _ = init.serve();
        }
        Err(failure) => {
            let _ = wire::send(socket.as_fd(), &FromInit::Failed(failure), &[]);
        }
    }
    sys::exit(0)
}

fn set_up(spec: &PodSpec, agent: BorrowedFd<'_>) -> Result<(Vec<OwnedFd>, OwnedFd), Failure> {
    if let Network::Own { address: Some(_), .. } = &spec.network {
        // First of all, so that the wire is laid while the rest is done here.
        let failed = |error: io::Error| Failure::new("show the pod's network", &error);
        // The one device that will come has the one address it is given.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let network = net::namespace().map_err(failed)?;
        wire::send(agent, &FromInit::Network, &[network.as_fd()]).map_err(failed)?;
    }
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(|error| Failure::new("set the host name", &error.into()))?;
    rootfs::stage(spec)?;
    let mut listeners = Vec::new();
    if let Network::Own { addresses, listen, .. } = &spec.network {
        net::set_up(addresses).map_err(|error| Failure::new("set up the loopback device", &error))?;
        // As container runtimes have it: every user may serve port 80. Where it cannot be set, users with the power may.
        let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        for wanted in listen {
            let socket =
                net::listen(wanted).map_err(|error| Failure::new(format!("listen on {}", wanted.address), &error))?;
            listeners.push(socket);
        }
    }
    for (name, value) in &spec.sysctls {
        std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
            .map_err(|error| Failure::new(format!("set sysctl {name}={value}"), &error))?;
    }
    let signals = sys::child_signals().map_err(|error| Failure::new("watch for ended processes", &error))?;
    Ok((listeners, signals))
}

struct Init {
    spec: PodSpec,
    socket: OwnedFd,
    /// Readable when a child has ended.
    signals: OwnedFd,
    processes: HashMap<u32, Process>,
}

/// A process that the agent asked for.
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    /// Open until the program runs (then it ends empty) or could not be started (then it brings a [`Failure`]).
    status: Option<File>,
    /// Whether the process leads its process group: what kills it kills that.
    leads_group: bool,
    /// The group is all that there is of a container, and ends with its process.
    ends_group: bool,
}

impl Init {
    fn serve(&mut self) -> io::Result<()> {
        let mut inbox = Inbox::default();
        loop {
            let starting: Vec<u32> =
                self.processes.iter().filter(|(_, process)| process.status.is_some()).map(|(&id, _)| id).collect();
            let (agent, ended, begun) = self.wait(&starting)?;
            for id in begun {
                self.report_start(id)?;
            }
            if ended {
                self.reap()?;
            }
            if agent {
                if !inbox.fill(&self.socket)? {
                    return Ok(());
                }
                while let Some((message, fds)) = inbox.next()? {
                    self.obey(message, fds)?;
                }
            }
        }
    }

    /// Waits until the agent speaks, a child ends, or a starting process has begun.
    fn wait(&self, starting: &[u32]) -> io::Result<(bool, bool, Vec<u32>)> {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(
            starting.iter().filter_map(|id| Some(PollFd::new(self.processes.get(id)?.status.as_ref()?, PollFlags::IN))),
        );
        while let Err(error) = rustix::event::poll(&mut fds, None) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        let hot = |index: usize| !fds[index].revents().is_empty();
        let begun = starting.iter().enumerate().filter(|(index, _)| hot(index + 2)).map(|(_, &id)| id).collect();
        Ok((hot(0), hot(1), begun))
    }

    fn obey(&mut self, message: ToInit, fds: Vec<OwnedFd>) -> io::Result<()> {
        let (id, started) = match message {
            ToInit::Signal { id, signal } => {
                self.signal(id, signal);
                return Ok(());
            }
            ToInit::Connect { id, address } => {
                return match net::connect(&address) {
                    Ok(socket) => {
                        let message = FromInit::Connecting { id, failure: None };
                        wire::send(self.socket.as_fd(), &message, &[socket.as_fd()])
                    }
                    Err(error) => {
                        let failure = Some(Failure::new(format!("connect to {address}"), &error));
                        self.say(&FromInit::Connecting { id, failure })
                    }
                };
            }
            ToInit::Start { id, spec } => (id, self.start(*spec, fds)),
            ToInit::Exec { id, container, spec } => (id, self.exec(container, &spec, fds)),
        };
        match started {
            Ok(process) => {
                self.processes.insert(id, process);
                Ok(())
            }
            Err(failure) => self.say(&FromInit::StartFailed { id, failure }),
        }
    }

    fn signal(&self, id: u32, signal: i32) {
        let (Some(process), Some(signal)) = (self.processes.get(&id), Signal::from_named_raw(signal)) else { return };
        let _ = rustix::process::pidfd_send_signal(&process.pidfd, signal);
        if signal == Signal::KILL && process.leads_group {
            let _ = rustix::process::kill_process_group(process.pid, signal);
        }
    }

    fn start(&self, spec: ContainerSpec, stdio: Vec<OwnedFd>) -> Result<Process, Failure> {
        let stdio = self.admit(stdio)?;
        let (status, status_write) = pipe()?;
        let own = spec.process_namespace == ProcessNamespace::Own;
        let namespaces = sys::MOUNT | if own { sys::PID } else { 0 };
        match sys::clone(namespaces).map_err(|error| Failure::new("clone the container", &error))? {
            Forked::Child => report(status_write, container::run(&spec, &self.spec, stdio)),
            Forked::Parent { pid, pidfd } => {
                Ok(Process { pid, pidfd, status: Some(status), leads_group: !own, ends_group: !own })
            }
        }
    }

    /// Joining a process namespace only counts for children, so a go-between joins and makes a sibling of itself.
    fn exec(&self, container: u32, spec: &ProcessSpec, stdio: Vec<OwnedFd>) -> Result<Process, Failure> {
        let stdio = self.admit(stdio)?;
        let Some(target) = self.processes.get(&container) else {
            return Err(Failure::words("the container is not running"));
        };
        let (status, status_write) = pipe()?;
        let (mut answer, answer_write) = pipe()?;
        match sys::clone(0).map_err(|error| Failure::new("fork", &error))? {
            Forked::Child => report(status_write, go_between(target.pidfd.as_fd(), spec, stdio, answer_write)),
            Forked::Parent { .. } => {
                drop((status_write, answer_write));
                let mut pid = [0; 4];
                if answer.read_exact(&mut pid).is_err() {
                    return Err(read_failure(status).unwrap_or_else(|| Failure::words("the container has just ended")));
                }
                let pid = Pid::from_raw(i32::from_ne_bytes(pid)).ok_or_else(|| Failure::words("no process"))?;
                // It is our child and not yet reaped, so the number still means it.
                let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                    .map_err(|error| Failure::new("pidfd_open", &error.into()))?;
                Ok(Process { pid, pidfd, status: Some(status), leads_group: true, ends_group: false })
            }
        }
    }

    fn admit(&self, stdio: Vec<OwnedFd>) -> Result<[OwnedFd; 3], Failure> {
        if self.processes.len() >= PROCESSES_MAX {
            return Err(Failure::words(format!("the pod already has {PROCESSES_MAX} processes that were asked for")));
        }
        stdio.try_into().map_err(|_| Failure::words("a process needs stdin, stdout and stderr"))
    }

    /// Tells whether a process could be started, now that its status pipe has something.
    fn report_start(&mut self, id: u32) -> io::Result<()> {
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        let Some(status) = process.status.take() else { return Ok(()) };
        let pid = process.pid.as_raw_nonzero().get();
        match read_failure(status) {
            None => self.say(&FromInit::Started { id, pid }),
            Some(failure) => {
                self.processes.remove(&id);
                self.say(&FromInit::StartFailed { id, failure })
            }
        }
    }

    /// Collects every ended child, the orphans of containers too, and reports those the agent knows.
    fn reap(&mut self) -> io::Result<()> {
        let mut drain = [0; 1024];
        while rustix::io::read(&self.signals, &mut drain).is_ok_and(|count| count > 0) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(id) = self.processes.iter().find(|(_, process)| process.pid == pid).map(|(&id, _)| id) else {
                continue;
            };
            self.report_start(id)?;
            let Some(process) = self.processes.remove(&id) else { continue };
            if process.ends_group {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (_, Some(signal)) => Exit::Signal(signal),
                _ => continue,
            };
            self.say(&FromInit::Exited { id, exit })?;
        }
        Ok(())
    }

    fn say(&self, message: &FromInit) -> io::Result<()> {
        wire::send(self.socket.as_fd(), message, &[])
    }
}

/// Runs in the go-between: joins the container, leaves a sibling there to become the program, and goes.
fn go_between(target: BorrowedFd<'_>, spec: &ProcessSpec, stdio: [OwnedFd; 3], answer: File) -> Result<(), Failure> {
    sys::setns(target, sys::MOUNT | sys::PID).map_err(|error| Failure::new("join the container", &error))?;
    match sys::clone(sys::SIBLING).map_err(|error| Failure::new("fork", &error))? {
        Forked::Child => {
            drop(answer);
            container::become_program(spec, stdio)
        }
        Forked::Parent { pid, .. } => {
            let _ = io::Write::write_all(&mut &answer, &pid.as_raw_nonzero().get().to_ne_bytes());
            Ok(())
        }
    }
}

/// The end of a child that did not become a program: says why and exits.
fn report(mut status: File, result: Result<(), Failure>) -> ! {
    if let Err(failure) = result {
        let _ = serde_json::to_writer(&mut status, &failure);
    }
    sys::exit(127)
}

fn read_failure(mut status: File) -> Option<Failure> {
    let mut text = Vec::new();
    status.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn pipe() -> Result<(File, File), Failure> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::new("pipe", &error.into()))?;
    Ok((read.into(), write.into()))
}
