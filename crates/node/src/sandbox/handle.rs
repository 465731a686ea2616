//! The agent's side of the sandbox: handles for the spawner, pods and processes. Dropping a handle of a pod ends the pod.

use super::check::{self, Forbidden};
use super::handle_switch::Switch;
use super::wire::{self, Exit, Failure, FromInit, FromSpawner, Inbox, ToInit, ToSpawner};
use super::{ContainerSpec, Network, PodSpec, ProcessSpec};
use super::{spawner, sys};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{Pid, Signal};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, oneshot, watch};
use tokio::task::JoinHandle;

/// The sockets' buffers: a whole spec goes in one write, so that the agent hardly ever waits.
const SOCKET_BUFFER_BYTES: usize = 256 << 10;

/// How long a pod's init may take to tell the next agent what there is.
const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(5);
/// The machine's mounts, as the kernel tells of them.
const MOUNTS: &str = "/proc/self/mountinfo";
/// How long the end of a pod that was killed is waited for by who cannot do anything else meanwhile.
const KILL_SECONDS_MAX: i64 = 2;

/// Why a pod or process could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host does not let this user have namespaces; says which setting to change.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The kernel refused a step: a program that is not there, a mount without source and the like.
    #[error("{0}")]
    Refused(Failure),
    /// The pod or the spawner has ended.
    #[error("the pod's sandbox has ended")]
    Ended,
    #[error("sandbox: {0}")]
    Io(#[from] io::Error),
}

/// The spawner process. When this is dropped it exits, and all pods with it.
pub struct Sandbox {
    connection: tokio::sync::Mutex<(Connection, Inbox)>,
    child: Mutex<std::process::Child>,
    /// The node's network, or why there is none.
    switch: OnceCell<Result<Arc<Switch>, String>>,
}

impl Sandbox {
    /// Starts the spawner: this program again, which becomes the spawner before its `main`.
    pub fn start() -> Result<Sandbox, Error> {
        Self::start_as(std::path::Path::new("/proc/self/exe"), None)
    }

    /// The same, of another program that uses this library, as another user. For tests that are root.
    #[doc(hidden)]
    pub fn start_as(program: &std::path::Path, user: Option<(u32, u32)>) -> Result<Sandbox, Error> {
        let (ours, theirs) = socket_pair()?;
        let mut command = std::process::Command::new(program);
        command.arg0(spawner::PROCESS_NAME).env_clear();
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command.env(spawner::VARIABLE.to_string_lossy().as_ref(), "1");
        command.stdin(theirs).stdout(std::process::Stdio::null());
        let child = command.spawn()?;
        // The command still holds its copy of the spawner's end.
        drop(command);
        let connection = Connection::new(ours)?;
        Ok(Sandbox {
            connection: tokio::sync::Mutex::new((connection, Inbox::default())),
            child: Mutex::new(child),
            switch: OnceCell::new(),
        })
    }

    /// Opens the node's network, once; pods that are made from then on are in it. An error is why there is none: pods are then
    /// each alone.
    pub async fn open_network(&self, gateway: Ipv4Addr) -> Result<Arc<Switch>, String> {
        let open = async {
            let (ours, theirs) = socket_pair().map_err(|error| error.to_string())?;
            let message = ToSpawner::CreateSwitch { gateway };
            let (_, pidfd) = self.spawn(&message, theirs, None).await.map_err(|error| error.to_string())?;
            let connection = Connection::new(ours).map_err(|error| error.to_string())?;
            let switch = Switch::receive(connection, pidfd).await.map_err(|error| error.to_string())?;
            Ok(Arc::new(switch))
        };
        self.switch.get_or_init(|| open).await.clone()
    }

    /// Has the spawner clone a process.
    async fn spawn(
        &self,
        message: &ToSpawner,
        theirs: OwnedFd,
        door: Option<OwnedFd>,
    ) -> Result<(i32, OwnedFd), Error> {
        let mut guard = self.connection.lock().await;
        let (connection, inbox) = &mut *guard;
        let fds: Vec<_> = [Some(&theirs), door.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect();
        connection.send(message, &fds).await?;
        drop((theirs, door));
        match connection.receive(inbox).await?.ok_or(Error::Ended)? {
            (FromSpawner::Created { pid }, mut fds) => Ok((pid, fds.pop().ok_or(Error::Ended)?)),
            (FromSpawner::Failed(failure), _) => Err(explain(failure)),
        }
    }

    /// Makes a pod without containers and waits until its network is up.
    ///
    /// # Errors
    /// `Forbidden` if the host does not let this user have namespaces, `Refused` for any other step.
    pub async fn create_pod(&self, mut spec: PodSpec) -> Result<Pod, Error> {
        let (ours, theirs) = socket_pair()?;
        let wire = self.wire(&spec);
        if let (Network::Own { addresses, address, .. }, None) = (&mut spec.network, wire) {
            addresses.extend(address.take().map(std::net::IpAddr::V4));
        }
        let door = spec.keep.as_deref().map(door).transpose()?;
        let (pid, pidfd) = self.spawn(&ToSpawner::CreatePod { spec }, theirs, door).await?;
        Ok(Pod::begin(Beginning::new(pid, pidfd, ours)?, wire).await?.0)
    }

    /// The network that a pod is to be in, and its address there.
    fn wire(&self, spec: &PodSpec) -> Option<(&Switch, Ipv4Addr)> {
        match (&spec.network, self.switch.get()) {
            (Network::Own { address: Some(address), .. }, Some(Ok(switch))) => Some((&**switch, *address)),
            _ => None,
        }
    }

    /// Makes a pod that nobody has asked for yet, like one of this spec. Nothing where such a pod cannot be made ahead: it has to
    /// have a wire, which is laid when it is asked for.
    ///
    /// # Errors
    /// As [`Sandbox::create_pod`].
    pub async fn make_spare(&self, like: &PodSpec) -> Result<Option<Spare>, Error> {
        if self.wire(like).is_none() {
            return Ok(None);
        }
        let spec = PodSpec {
            hostname: String::new(),
            memory_volumes: Vec::new(),
            sysctls: Vec::new(),
            processes_max: None,
            keep: None,
            ..like.clone()
        };
        // Before the pod has its copy of the machine's mounts, so that no change is missed.
        let mounts = File::open(MOUNTS)?;
        let (ours, theirs) = socket_pair()?;
        let (pid, pidfd) = self.spawn(&ToSpawner::CreatePod { spec: spec.clone() }, theirs, None).await?;
        let mut begun = Beginning::new(pid, pidfd, ours)?;
        let mut network = None;
        loop {
            match begun.connection.receive(&mut begun.inbox).await?.ok_or(Error::Ended)? {
                (FromInit::Network, mut fds) => network = fds.pop(),
                (FromInit::Ready, fds) => {
                    begun.listeners = fds;
                    begun.heard = Some((FromInit::Network, vec![network.ok_or(Error::Ended)?]));
                    return Ok(Some(Spare { spec, begun, mounts }));
                }
                (FromInit::Failed(failure), _) => return Err(explain(failure)),
                _ => return Err(out_of_turn()),
            }
        }
    }

    /// Has a pod that was made ahead be this one; it must serve for it.
    ///
    /// # Errors
    /// As [`Sandbox::create_pod`], or if it has ended meanwhile.
    pub async fn use_spare(&self, spare: Spare, spec: PodSpec) -> Result<Pod, Error> {
        let wire = self.wire(&spec);
        let door = spec.keep.as_deref().map(door).transpose()?;
        let doors: Vec<_> = door.iter().map(AsFd::as_fd).collect();
        spare.begun.connection.send(&ToInit::Become { spec: Box::new(spec) }, &doors).await?;
        Ok(Pod::begin(spare.begun, wire).await?.0)
    }
}

/// A pod that was made before anybody asked for it: it has no name and no address, and nothing runs in it. When this is dropped it
/// is ended.
pub struct Spare {
    spec: PodSpec,
    begun: Beginning,
    /// The machine's mounts, of which it has a copy as they were; readable in a way of its own once they are others.
    mounts: File,
}

impl Spare {
    /// The init's process number, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.begun.pid
    }

    /// Whether a pod of this spec can be made of it.
    pub fn serves(&self, spec: &PodSpec) -> bool {
        let PodSpec { staging, uid, gid, network, .. } = &self.spec;
        let same_network = match (network, &spec.network) {
            (
                Network::Own { addresses, listen, .. },
                Network::Own { addresses: wanted, address: Some(_), listen: wanted_listen },
            ) => addresses == wanted && listen == wanted_listen,
            _ => false,
        };
        same_network && (staging, uid, gid) == (&spec.staging, &spec.uid, &spec.gid)
    }

    /// Whether it is still there, and the machine's mounts are those that it has: one that came since is not seen in it.
    pub fn is_good(&self) -> bool {
        let Some(pidfd) = &self.begun.pidfd.pidfd else { return false };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.mounts, PollFlags::PRI), PollFd::new(pidfd, PollFlags::IN)];
        // What cannot be known is taken for a change.
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
    }
}

/// A pod whose init has begun, and what was heard of it.
struct Beginning {
    pid: i32,
    pidfd: KillOnDrop,
    connection: Arc<Connection>,
    inbox: Inbox,
    /// What it has said already and is to be answered again.
    heard: Option<(FromInit, Vec<OwnedFd>)>,
    listeners: Vec<OwnedFd>,
}

impl Beginning {
    fn new(pid: i32, pidfd: OwnedFd, socket: OwnedFd) -> io::Result<Beginning> {
        let pidfd = KillOnDrop { pidfd: Some(pidfd) };
        let connection = Arc::new(Connection::new(socket)?);
        Ok(Beginning { pid, pidfd, connection, inbox: Inbox::default(), heard: None, listeners: Vec::new() })
    }
}

fn out_of_turn() -> Error {
    Error::Io(io::Error::other("the pod's init spoke out of turn"))
}

/// Binds the socket on which a pod's init is to listen.
fn door(path: &Path) -> io::Result<OwnedFd> {
    let _ = std::fs::remove_file(path);
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let (_folder, address) = address_of(path)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// The address of a socket in the file system, however long its path is, as long as the folder is open.
fn address_of(path: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, SocketAddrUnix::new(short)?))
}

/// Connects to a pod's init at the path that it was told. Gives its number and a descriptor of it, too.
fn knock(path: &Path) -> io::Result<(Pid, OwnedFd, OwnedFd)> {
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let (_folder, address) = address_of(path)?;
    rustix::net::connect(&socket, &address)?;
    sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    // The kernel says who listens there.
    let pid = sockopt::socket_peercred(&socket)?.pid;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    Ok((pid, pidfd, socket))
}

/// A container that an agent before this one has left.
pub struct Left {
    pub name: String,
    pub process: Process,
    /// When it ended, in milliseconds of the common era of Unix, if it has.
    pub ended_ms: Option<i64>,
    /// What was kept of its streams.
    pub kept: Vec<OwnedFd>,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Its work is done; killing it at once spares waiting for it to see its socket close. The inits die with it.
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn explain(failure: Failure) -> Error {
    match check::explain(&failure) {
        Some(forbidden) => Error::Forbidden(forbidden),
        None => Error::Refused(failure),
    }
}

/// A pod: its namespaces and what runs in them. When this is dropped everything in the pod is killed.
pub struct Pod {
    pid: i32,
    /// Readable when the pod has ended to the last process.
    pidfd: AsyncFd<OwnedFd>,
    connection: Arc<Connection>,
    processes: Arc<Processes>,
    listeners: Mutex<Vec<OwnedFd>>,
    reader: JoinHandle<()>,
    next_id: AtomicU32,
}

impl Pod {
    /// Takes over a pod that another agent has left, at the path that it was to be kept at. Gives its containers too. `wire` is
    /// the network that it is to be in, and its address there.
    ///
    /// # Errors
    /// If nobody is there any more, or the pod cannot be had in that network: then it is ended.
    pub async fn adopt(path: &Path, wire: Option<(&Switch, Ipv4Addr)>) -> Result<(Pod, Vec<Left>), Error> {
        let (pid, pidfd, socket) = knock(path)?;
        let taking = Pod::begin(Beginning::new(pid.as_raw_nonzero().get(), pidfd, socket)?, wire);
        tokio::time::timeout(HAND_OVER_TIME_MAX, taking).await.map_err(|_| Error::Ended)?
    }

    /// Hears what the init says first, and goes on listening.
    async fn begin(begun: Beginning, wire: Option<(&Switch, Ipv4Addr)>) -> Result<(Pod, Vec<Left>), Error> {
        let Beginning { pid, pidfd: mut guard, connection, mut inbox, heard: mut next, mut listeners } = begun;
        let processes = Arc::new(Processes::default());
        let (mut left, mut last) = (Vec::new(), 0);
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => connection.receive(&mut inbox).await?.ok_or(Error::Ended)?,
            };
            match message {
                (FromInit::Ready, fds) => {
                    listeners.extend(fds);
                    break;
                }
                (FromInit::Network, mut fds) => {
                    let network = fds.pop().ok_or(Error::Ended)?;
                    let Some((switch, address)) = wire else { continue };
                    // The wire is laid while the init does the rest.
                    let (attached, heard) =
                        tokio::join!(switch.attach(address, network), connection.receive(&mut inbox));
                    attached?;
                    next = Some(heard?.ok_or(Error::Ended)?);
                }
                (FromInit::Failed(failure), _) => return Err(explain(failure)),
                (FromInit::Last { id }, _) => last = id,
                (FromInit::Left { id, name, pid, ended }, kept) => {
                    let state = processes.add(id);
                    processes.set(id, ended.map_or(State::Running { pid }, |(exit, _)| State::Exited(exit)));
                    let process = Process { id, state, connection: connection.clone() };
                    left.push(Left { name, process, ended_ms: ended.map(|(_, at)| at), kept });
                }
                _ => return Err(out_of_turn()),
            }
        }
        let pidfd = guard.pidfd.take().ok_or(Error::Ended)?;
        let reader = tokio::spawn(read(connection.clone(), inbox, processes.clone()));
        let pidfd = sys::watch(pidfd)?;
        let listeners = Mutex::new(listeners);
        let next_id = AtomicU32::new(last + 1);
        Ok((Pod { pid, pidfd, connection, processes, listeners, reader, next_id }, left))
    }

    /// The init's process number, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The sockets that listen in the pod, in the order of the spec, non-blocking. They can be taken once.
    pub fn take_listeners(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.listeners.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a container and waits until its program runs.
    pub async fn start(&self, spec: ContainerSpec, stdio: Stdio) -> Result<Process, Error> {
        self.start_in("container", spec, stdio, Vec::new(), Vec::new()).await
    }

    /// The same under a name, in control groups, into which `doors` let it: each takes the number of a process. In a pod that is
    /// kept, the next agent gets `kept`.
    pub async fn start_in(
        &self,
        name: &str,
        spec: ContainerSpec,
        stdio: Stdio,
        mut doors: Vec<OwnedFd>,
        kept: Vec<OwnedFd>,
    ) -> Result<Process, Error> {
        let (name, count, spec) = (name.to_owned(), doors.len(), Box::new(spec));
        doors.extend(kept);
        self.start_process(|id| ToInit::Start { id, name, doors: count, spec }, stdio, doors).await
    }

    /// Starts another program in a running container and waits until it runs.
    pub async fn exec(&self, container: &Process, spec: ProcessSpec, stdio: Stdio) -> Result<Process, Error> {
        self.exec_in(container, spec, stdio, Vec::new()).await
    }

    /// The same in control groups, as with [`Pod::start_in`].
    pub async fn exec_in(
        &self,
        container: &Process,
        spec: ProcessSpec,
        stdio: Stdio,
        doors: Vec<OwnedFd>,
    ) -> Result<Process, Error> {
        let container = container.id;
        self.start_process(|id| ToInit::Exec { id, container, spec: Box::new(spec) }, stdio, doors).await
    }

    /// Connects to an address inside the pod's network.
    pub async fn connect(&self, address: SocketAddr) -> Result<TcpStream, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let coming = self.processes.expect_socket(id);
        self.connection.send(&ToInit::Connect { id, address }, &[]).await?;
        let socket = coming.await.map_err(|_| Error::Ended)?.map_err(Error::Refused)?;
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(Error::Io(error)),
            None => Ok(stream),
        }
    }

    /// Kills everything in the pod at once.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits until nothing of the pod is left.
    pub async fn ended(&self) {
        let _ = self.pidfd.readable().await;
    }

    /// The same for who cannot wait otherwise, as long as a killed pod may take.
    pub fn wait_ended(&self) {
        let limit = Timespec { tv_sec: KILL_SECONDS_MAX, tv_nsec: 0 };
        let mut fds = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, Some(&limit));
    }

    async fn start_process(
        &self,
        message: impl FnOnce(u32) -> ToInit,
        stdio: Stdio,
        doors: Vec<OwnedFd>,
    ) -> Result<Process, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut state = self.processes.add(id);
        let mut fds = vec![stdio.stdin.as_fd(), stdio.stdout.as_fd(), stdio.stderr.as_fd()];
        fds.extend(doors.iter().map(AsFd::as_fd));
        self.connection.send(&message(id), &fds).await?;
        drop((stdio, doors));
        let begun = state.wait_for(|state| !matches!(state, State::Starting)).await.map_err(|_| Error::Ended)?.clone();
        match begun {
            State::Refused(failure) => Err(Error::Refused(failure)),
            State::Starting | State::Lost => Err(Error::Ended),
            State::Running { .. } | State::Exited(_) => Ok(Process { id, state, connection: self.connection.clone() }),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
        self.reader.abort();
    }
}

/// The standard streams of a process; our copies are closed once it has them.
pub struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A container's process, or one started beside it.
pub struct Process {
    id: u32,
    state: watch::Receiver<State>,
    connection: Arc<Connection>,
}

impl Process {
    /// What the pod's init knows it by.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its number in the pod's process namespace; `None` once it has ended.
    pub fn pid(&self) -> Option<i32> {
        match *self.state.borrow() {
            State::Running { pid } => Some(pid),
            _ => None,
        }
    }

    /// Has the init keep something of the container's for the next agent, once it has begun.
    pub async fn keep(&self, fd: OwnedFd) -> Result<(), Error> {
        Ok(self.connection.send(&ToInit::Keep { id: self.id }, &[fd.as_fd()]).await?)
    }

    /// Sends a signal to the process. One that has ended is no error.
    pub async fn signal(&self, signal: i32) -> Result<(), Error> {
        Ok(self.connection.send(&ToInit::Signal { id: self.id, signal }, &[]).await?)
    }

    /// Waits for its end. If the whole pod was ended, that is signal 9.
    pub async fn wait(&self) -> Exit {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Exited(_) | State::Lost)).await.as_deref() {
            Ok(State::Exited(exit)) => *exit,
            _ => Exit::Signal(libc::SIGKILL),
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    Starting,
    Running { pid: i32 },
    Refused(Failure),
    Exited(Exit),
    Lost,
}

/// The processes of one pod that have not ended.
#[derive(Default)]
struct Processes(Mutex<Table>);

#[derive(Default)]
struct Table {
    states: HashMap<u32, watch::Sender<State>>,
    /// Connections that the init was asked for.
    sockets: HashMap<u32, oneshot::Sender<Result<OwnedFd, Failure>>>,
    /// The init's socket has closed: no word about any process will come.
    closed: bool,
}

impl Processes {
    fn add(&self, id: u32) -> watch::Receiver<State> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.closed {
            return watch::channel(State::Lost).1;
        }
        let (sender, receiver) = watch::channel(State::Starting);
        table.states.insert(id, sender);
        receiver
    }

    fn expect_socket(&self, id: u32) -> oneshot::Receiver<Result<OwnedFd, Failure>> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.closed {
            table.sockets.insert(id, sender);
        }
        receiver
    }

    fn bring_socket(&self, id: u32, socket: Result<OwnedFd, Failure>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).sockets.remove(&id);
        if let Some(sender) = sender {
            let _ = sender.send(socket);
        }
    }

    fn set(&self, id: u32, state: State) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running { .. } = state {
            if let Some(sender) = table.states.get(&id) {
                sender.send_replace(state);
            }
        } else if let Some(sender) = table.states.remove(&id) {
            sender.send_replace(state);
        }
    }

    fn close(&self) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.closed = true;
        table.sockets.clear();
        for (_, sender) in table.states.drain() {
            sender.send_replace(State::Lost);
        }
    }
}

async fn read(connection: Arc<Connection>, mut inbox: Inbox, processes: Arc<Processes>) {
    while let Ok(Some((message, mut fds))) = connection.receive(&mut inbox).await {
        match message {
            FromInit::Started { id, pid } => processes.set(id, State::Running { pid }),
            FromInit::StartFailed { id, failure } => processes.set(id, State::Refused(failure)),
            FromInit::Exited { id, exit } => processes.set(id, State::Exited(exit)),
            FromInit::Connecting { id, failure: Some(failure) } => processes.bring_socket(id, Err(failure)),
            FromInit::Connecting { id, failure: None } => match fds.pop() {
                Some(socket) => processes.bring_socket(id, Ok(socket)),
                None => break,
            },
            FromInit::Network
            | FromInit::Ready
            | FromInit::Failed(_)
            | FromInit::Left { .. }
            | FromInit::Last { .. } => break,
        }
    }
    processes.close();
}

/// Kills a pod that could not be finished.
struct KillOnDrop {
    pidfd: Option<OwnedFd>,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

/// One of the sandbox's sockets on the agent's side.
pub(super) struct Connection {
    socket: AsyncFd<OwnedFd>,
    /// Held while a message is written: messages are never interleaved.
    writing: tokio::sync::Mutex<()>,
}

impl Connection {
    fn new(socket: OwnedFd) -> io::Result<Connection> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Connection { socket: sys::watch(socket)?, writing: tokio::sync::Mutex::new(()) })
    }

    pub(super) async fn send<T: serde::Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = wire::encode(message, fds.len())?;
        let _writing = self.writing.lock().await;
        let mut sent = 0;
        while sent < bytes.len() {
            let mut ready = self.socket.writable().await?;
            let fds = if sent == 0 { fds } else { &[] };
            match ready.try_io(|socket| wire::send_some(socket.as_fd(), &bytes[sent..], fds)) {
                Ok(count) => sent += count?,
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn receive<T: serde::de::DeserializeOwned>(
        &self,
        inbox: &mut Inbox,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = inbox.next()? {
                return Ok(Some(message));
            }
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| inbox.fill(socket)) {
                Ok(more) => {
                    if !more? {
                        return Ok(None);
                    }
                }
                Err(_would_block) => {}
            }
        }
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_send_buffer_size(&ours, SOCKET_BUFFER_BYTES)?;
    Ok((ours, theirs))
}
