//! A pod's init: process 1 of the pod's process namespace. It holds the pod's namespaces, starts containers and
//! processes in them when the agent says so, reaps, and tells how they ended. When the agent's socket closes it exits,
//! and the kernel ends everything in the pod with it; in a pod that is kept it waits for the next agent instead, as long as the
//! place where that finds it is there. It keeps no policy: restarts and the like are the agent's.

use super::sys::{self, Disposition, Forked};
use super::wire::{self, Exit, Failure, FromInit, Inbox, ToInit};
use super::{ContainerSpec, Network, PodSpec, ProcessNamespace, ProcessSpec, container, net, rootfs};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SocketFlags;
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The most processes the agent may have running in one pod (containers and exec).
pub const PROCESSES_MAX: usize = 1024;
/// Ends of containers that are remembered for the next agent, the latest.
const ENDS_MAX: usize = 256;
/// Of those under an agent, the ones whose streams are kept too, the latest: it may be killed before it has read all of them.
const STREAMS_MAX: usize = 8;
/// How often an init without an agent looks whether one may still come. The kernel would tell of it, but only 128 processes of a
/// user, which is less than the pods that a node has.
const LOOK_SECONDS: i64 = 5;

/// Sets the pod up and serves the agent until its socket closes, or for ever, on `door`.
pub fn run(spec: PodSpec, socket: OwnedFd, door: Option<OwnedFd>) -> ! {
    if door.is_none() {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    }
    let _ = rustix::thread::set_name(c"kemudi-init");
    // It and what it clones have power over the pod's namespaces until a program is executed: no container may trace them,
    // whatever its capabilities.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    sys::on_signal(libc::SIGCHLD, Disposition::Default);
    let made = set_up(&spec, socket.as_fd()).and_then(|made| {
        suit(&spec)?;
        Ok((made, door.map(|door| Door::open(&spec, door)).transpose()?))
    });
    match made {
        Ok(((listeners, signals), door)) => {
            let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
            if wire::send(socket.as_fd(), &FromInit::Ready, &fds).is_err() {
                sys::exit(1);
            }
            drop(listeners);
            let socket = Some(socket);
            let mut init =
                Init { spec, socket, door, signals, processes: HashMap::new(), ends: VecDeque::new(), last: 0 };
            let _ = init.serve();
        }
        Err(failure) => {
            let _ = wire::send(socket.as_fd(), &FromInit::Failed(failure), &[]);
        }
    }
    sys::exit(0)
}

/// Makes what every pod has.
fn set_up(spec: &PodSpec, agent: BorrowedFd<'_>) -> Result<(Vec<OwnedFd>, OwnedFd), Failure> {
    if let Network::Own { address: Some(_), .. } = &spec.network {
        // The one device that will come has the one address it is given.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    }
    // First of all, so that the wire is laid while the rest is done here.
    show_network(spec, agent).map_err(|error| Failure::new("show the pod's network", &error))?;
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
    let signals = sys::child_signals().map_err(|error| Failure::new("watch for ended processes", &error))?;
    Ok((listeners, signals))
}

/// Makes what this pod alone has.
fn suit(spec: &PodSpec) -> Result<(), Failure> {
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(|error| Failure::new("set the host name", &error.into()))?;
    rootfs::make_memory_volumes(spec)?;
    for (name, value) in &spec.sysctls {
        std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
            .map_err(|error| Failure::new(format!("set sysctl {name}={value}"), &error))?;
    }
    if let Some(most) = spec.processes_max.filter(|_| limits_are_of_namespaces()) {
        limit_processes(most).map_err(|error| Failure::new("limit the pod's processes", &error.into()))?;
    }
    Ok(())
}

/// Holds the user, in this namespace of users, to so many processes for good.
fn limit_processes(most: u64) -> rustix::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nproc).maximum.map_or(most, |now| now.min(most));
    setrlimit(Resource::Nproc, Rlimit { current: Some(most), maximum: Some(most) })
}

/// Whether the kernel counts a user's processes by the namespace that they are in. Before, it counted all that the user has.
fn limits_are_of_namespaces() -> bool {
    const SINCE: (u32, u32) = (5, 14);
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).filter_map(|word| word.parse().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version| version >= SINCE)
}

/// Gives the agent the network of a pod that is to have a wire.
fn show_network(spec: &PodSpec, agent: BorrowedFd<'_>) -> io::Result<()> {
    match &spec.network {
        Network::Own { address: Some(_), .. } => wire::send(agent, &FromInit::Network, &[net::namespace()?.as_fd()]),
        _ => Ok(()),
    }
}

/// Where the next agent comes in.
struct Door {
    socket: OwnedFd,
    path: PathBuf,
    /// What is at the path. An agent that does not go on with this pod may make another there, with a door of its own.
    place: Option<Place>,
}

/// What tells one file from another that comes to be at its path: inode and time.
type Place = (u64, i64, i64);

impl Door {
    fn open(spec: &PodSpec, socket: OwnedFd) -> Result<Door, Failure> {
        let failed = |error: rustix::io::Errno| Failure::new("listen for the next agent", &error.into());
        // Who connects is told who listens, so that the next agent knows this process by the kernel's word.
        rustix::net::listen(&socket, 1).map_err(failed)?;
        let path = spec.keep.clone().unwrap_or_default();
        let place = Door::find(&path);
        Ok(Door { socket, path, place })
    }

    fn find(path: &Path) -> Option<Place> {
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.ino(), found.ctime(), found.ctime_nsec()))
    }

    /// Whether nobody will come any more.
    fn is_closed(&self) -> bool {
        self.place.is_none() || Door::find(&self.path) != self.place
    }
}

/// A container that has ended, for the next agent.
struct End {
    id: u32,
    name: String,
    exit: Exit,
    at_ms: i64,
    kept: Vec<OwnedFd>,
}

/// What there is to do.
#[derive(Default)]
struct Ready {
    agent: bool,
    ended: bool,
    knocked: bool,
    begun: Vec<u32>,
}

struct Init {
    spec: PodSpec,
    /// None between two agents.
    socket: Option<OwnedFd>,
    door: Option<Door>,
    /// Readable when a child has ended.
    signals: OwnedFd,
    processes: HashMap<u32, Process>,
    ends: VecDeque<End>,
    /// The highest number of a process that there was.
    last: u32,
}

/// A process that the agent asked for.
struct Process {
    /// Of a container; empty for what is executed beside.
    name: String,
    /// The other ends of its streams, for the next agent.
    kept: Vec<OwnedFd>,
    pid: Pid,
    pidfd: OwnedFd,
    /// Open until the program runs (then it ends empty) or could not be started (then it brings a [`Failure`]).
    status: Option<File>,
    /// Whether the process leads its process group: what kills it kills that.
    leads_group: bool,
    /// The group is all that there is of a container, and ends with its process.
    ends_group: bool,
}

impl Process {
    fn new(pid: Pid, pidfd: OwnedFd, status: File, leads_group: bool, ends_group: bool) -> Process {
        Process { name: String::new(), kept: Vec::new(), pid, pidfd, status: Some(status), leads_group, ends_group }
    }
}

impl Init {
    fn serve(&mut self) -> io::Result<()> {
        let mut inbox = Inbox::default();
        loop {
            let starting: Vec<u32> =
                self.processes.iter().filter(|(_, process)| process.status.is_some()).map(|(&id, _)| id).collect();
            let ready = self.wait(&starting)?;
            for id in ready.begun {
                self.report_start(id)?;
            }
            if ready.ended {
                self.reap()?;
            }
            if self.socket.is_none() && self.door.as_ref().is_some_and(Door::is_closed) {
                return Ok(());
            }
            if let (true, Some(socket)) = (ready.agent, &self.socket) {
                let more = match (inbox.fill(socket), &self.door) {
                    (Err(_), Some(_)) => false,
                    (more, _) => more?,
                };
                while let Some((message, fds)) = inbox.next()? {
                    self.obey(message, fds)?;
                }
                if !more {
                    if self.door.is_none() {
                        return Ok(());
                    }
                    self.socket = None;
                }
            }
            if let (true, Some(door)) = (ready.knocked, &self.door) {
                let next = rustix::net::accept_with(&door.socket, SocketFlags::CLOEXEC)?;
                // The last who comes is the agent.
                inbox = Inbox::default();
                self.socket = Some(next);
                self.hand_over()?;
            }
        }
    }

    /// Tells the next agent what it needs to go on.
    fn hand_over(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let running = self.processes.iter().filter(|(_, process)| !process.name.is_empty()).map(|(&id, process)| {
            let pid = process.pid.as_raw_nonzero().get();
            (FromInit::Left { id, name: process.name.clone(), pid, ended: None }, &process.kept)
        });
        let ended = self.ends.iter().map(|end| {
            let ended = Some((end.exit, end.at_ms));
            (FromInit::Left { id: end.id, name: end.name.clone(), pid: 0, ended }, &end.kept)
        });
        let all: Vec<_> = running.chain(ended).collect();
        let mut listeners = Vec::new();
        if let Network::Own { listen, .. } = &self.spec.network {
            // Those of the agent before have gone with it.
            listeners = listen.iter().filter_map(|wanted| net::listen(wanted).ok()).collect();
        }
        let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        // The wire's other end has gone with the agent before.
        let said = show_network(&self.spec, socket.as_fd())
            .and_then(|()| {
                all.iter().try_for_each(|(message, kept)| {
                    let fds: Vec<_> = kept.iter().map(AsFd::as_fd).collect();
                    wire::send(socket.as_fd(), message, &fds)
                })
            })
            .and_then(|()| wire::send(socket.as_fd(), &FromInit::Last { id: self.last }, &[]))
            .and_then(|()| wire::send(socket.as_fd(), &FromInit::Ready, &fds));
        if said.is_err() {
            self.socket = None;
        }
        Ok(())
    }

    /// Waits until the agent speaks or another comes, a child ends, or a starting process has begun.
    fn wait(&self, starting: &[u32]) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let door = self.door.as_ref();
        let others = [self.socket.as_ref(), door.map(|door| &door.socket)];
        let mut places = Vec::new();
        for fd in others {
            places.push(fd.map(|_| fds.len()));
            fds.extend(fd.map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        let first = fds.len();
        fds.extend(
            starting.iter().filter_map(|id| Some(PollFd::new(self.processes.get(id)?.status.as_ref()?, PollFlags::IN))),
        );
        // Without an agent, whether there may be one still.
        let limit = Timespec { tv_sec: LOOK_SECONDS, tv_nsec: 0 };
        let limit = self.socket.is_none().then_some(&limit);
        while let Err(error) = rustix::event::poll(&mut fds, limit) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        let hot = |index: usize| !fds[index].revents().is_empty();
        let is = |place: usize| places[place].is_some_and(hot);
        let begun = starting.iter().enumerate().filter(|(index, _)| hot(index + first)).map(|(_, &id)| id).collect();
        Ok(Ready { ended: hot(0), agent: is(0), knocked: is(1), begun })
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
                        self.last = self.last.max(id);
                        self.say_with(&FromInit::Connecting { id, failure: None }, &[socket.as_fd()])
                    }
                    Err(error) => {
                        let failure = Some(Failure::new(format!("connect to {address}"), &error));
                        self.say(&FromInit::Connecting { id, failure })
                    }
                };
            }
            ToInit::Keep { id } => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.kept.extend(fds);
                }
                return Ok(());
            }
            ToInit::Become { spec } => {
                return match self.turn_into(*spec, fds) {
                    Ok(()) => self.say(&FromInit::Ready),
                    Err(failure) => self.say(&FromInit::Failed(failure)),
                };
            }
            ToInit::Start { id, name, doors, spec } => {
                let mut fds = fds;
                let kept = fds.split_off((3 + doors).min(fds.len()));
                let started = self.start(*spec, fds);
                (id, started.map(|process| Process { name, kept, ..process }))
            }
            ToInit::Exec { id, container, spec } => (id, self.exec(container, &spec, fds)),
        };
        self.last = self.last.max(id);
        match started {
            Ok(process) => {
                self.processes.insert(id, process);
                Ok(())
            }
            Err(failure) => self.say(&FromInit::StartFailed { id, failure }),
        }
    }

    /// Has this pod, which was made ahead, be the one that is asked for.
    fn turn_into(&mut self, spec: PodSpec, mut fds: Vec<OwnedFd>) -> Result<(), Failure> {
        suit(&spec)?;
        if let Some(door) = fds.pop() {
            self.door = Some(Door::open(&spec, door)?);
            // Until now it was to end with the spawner, whatever happened.
            rustix::process::set_parent_process_death_signal(None)
                .map_err(|error| Failure::new("outlive the agent", &error.into()))?;
        }
        self.spec = spec;
        Ok(())
    }

    fn signal(&self, id: u32, signal: i32) {
        let (Some(process), Some(signal)) = (self.processes.get(&id), Signal::from_named_raw(signal)) else { return };
        let _ = rustix::process::pidfd_send_signal(&process.pidfd, signal);
        if signal == Signal::KILL && process.leads_group {
            let _ = rustix::process::kill_process_group(process.pid, signal);
        }
    }

    fn start(&self, spec: ContainerSpec, fds: Vec<OwnedFd>) -> Result<Process, Failure> {
        let (stdio, doors) = self.admit(fds)?;
        if let ProcessNamespace::Of(other) = spec.process_namespace {
            let run = || container::run(&spec, &self.spec, stdio);
            return self.beside(other, sys::PID, sys::MOUNT, &doors, true, run);
        }
        let (status, status_write) = pipe()?;
        let own = spec.process_namespace == ProcessNamespace::Own;
        let namespaces = sys::MOUNT | if own { sys::PID } else { 0 };
        match sys::clone(namespaces).map_err(|error| Failure::new("clone the container", &error))? {
            Forked::Child => {
                let entered = enter_groups(&doors);
                report(status_write, entered.and_then(|()| container::run(&spec, &self.spec, stdio)))
            }
            Forked::Parent { pid, pidfd } => Ok(Process::new(pid, pidfd, status, !own, !own)),
        }
    }

    fn exec(&self, container: u32, spec: &ProcessSpec, fds: Vec<OwnedFd>) -> Result<Process, Failure> {
        let (stdio, doors) = self.admit(fds)?;
        // A container without groups has the machine's view of them, which nobody here may join.
        let joined = sys::MOUNT | sys::PID | if doors.is_empty() { 0 } else { sys::CGROUP };
        self.beside(container, joined, 0, &doors, false, || container::become_program(spec, stdio))
    }

    /// Starts a process in namespaces of one that runs, and in new ones. Joining a process namespace only counts for children,
    /// so a go-between joins and makes a sibling of itself.
    fn beside(
        &self,
        other: u32,
        joined: i32,
        new: i32,
        doors: &[OwnedFd],
        ends_group: bool,
        program: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Process, Failure> {
        let Some(target) = self.processes.get(&other) else {
            return Err(Failure::words("the container is not running"));
        };
        let (status, status_write) = pipe()?;
        let (mut answer, answer_write) = pipe()?;
        match sys::clone(0).map_err(|error| Failure::new("fork", &error))? {
            Forked::Child => {
                let target = target.pidfd.as_fd();
                report(status_write, go_between(target, joined, new, doors, program, answer_write))
            }
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
                Ok(Process::new(pid, pidfd, status, true, ends_group))
            }
        }
    }

    /// The standard streams of a process that is asked for, and the doors of its control groups.
    fn admit(&self, mut fds: Vec<OwnedFd>) -> Result<([OwnedFd; 3], Vec<OwnedFd>), Failure> {
        if self.processes.len() >= PROCESSES_MAX {
            return Err(Failure::words(format!("the pod already has {PROCESSES_MAX} processes that were asked for")));
        }
        let doors = fds.split_off(fds.len().min(3));
        let stdio = fds.try_into().map_err(|_| Failure::words("a process needs stdin, stdout and stderr"))?;
        Ok((stdio, doors))
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
            let Some(mut process) = self.processes.remove(&id) else { continue };
            if process.ends_group {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (_, Some(signal)) => Exit::Signal(signal),
                _ => continue,
            };
            if self.door.is_some() && !process.name.is_empty() {
                self.remember(id, &mut process, exit);
            }
            self.say(&FromInit::Exited { id, exit })?;
        }
        Ok(())
    }

    fn remember(&mut self, id: u32, process: &mut Process, exit: Exit) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        if self.ends.len() >= ENDS_MAX {
            self.ends.pop_front();
        }
        let (name, kept) = (std::mem::take(&mut process.name), std::mem::take(&mut process.kept));
        self.ends.push_back(End { id, name, exit, at_ms: since.as_millis() as i64, kept });
        // Between two agents nobody reads, and all is kept.
        if self.socket.is_some() {
            let read = self.ends.len().saturating_sub(STREAMS_MAX);
            self.ends.iter_mut().take(read).for_each(|end| end.kept.clear());
        }
    }

    fn say(&mut self, message: &FromInit) -> io::Result<()> {
        self.say_with(message, &[])
    }

    /// Tells the agent, if there is one: the next is told everything anew.
    fn say_with(&mut self, message: &FromInit, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        match (wire::send(socket.as_fd(), message, fds), &self.door) {
            (Err(_), Some(_)) => {
                self.socket = None;
                Ok(())
            }
            (said, _) => said,
        }
    }
}

/// Runs in the go-between: joins the container, leaves a sibling there to become the program, and goes.
fn go_between(
    target: BorrowedFd<'_>,
    joined: i32,
    new: i32,
    doors: &[OwnedFd],
    program: impl FnOnce() -> Result<(), Failure>,
    answer: File,
) -> Result<(), Failure> {
    enter_groups(doors)?;
    sys::setns(target, joined).map_err(|error| Failure::new("join the container", &error))?;
    match sys::clone(sys::SIBLING | new).map_err(|error| Failure::new("fork", &error))? {
        Forked::Child => {
            drop(answer);
            program()
        }
        Forked::Parent { pid, .. } => {
            let _ = io::Write::write_all(&mut &answer, &pid.as_raw_nonzero().get().to_ne_bytes());
            Ok(())
        }
    }
}

/// Goes into control groups; what is started from here on is in them.
fn enter_groups(doors: &[OwnedFd]) -> Result<(), Failure> {
    for door in doors {
        rustix::io::write(door, b"0").map_err(|error| Failure::new("enter the cgroup", &error.into()))?;
    }
    Ok(())
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
