//! The agent's side of the sandbox: handles for the spawner, pods and processes. Dropping a handle of a pod ends the pod.

use super::check::{self, Forbidden};
use super::handle_switch::Switch;
use super::wire::{self, Exit, Failure, FromInit, FromSpawner, Inbox, ToInit, ToSpawner};
use super::{ContainerSpec, Network, PodSpec, ProcessSpec};
use super::{spawner, sys};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::Signal;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, oneshot, watch};
use tokio::task::JoinHandle;

/// The sockets' buffers: a whole spec goes in one write, so that the agent hardly ever waits.
const SOCKET_BUFFER_BYTES: usize = 256 << 10;

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
            let (_, pidfd) = self.spawn(&message, theirs).await.map_err(|error| error.to_string())?;
            let connection = Connection::new(ours).map_err(|error| error.to_string())?;
            let switch = Switch::receive(connection, pidfd).await.map_err(|error| error.to_string())?;
            Ok(Arc::new(switch))
        };
        self.switch.get_or_init(|| open).await.clone()
    }

    /// Has the spawner clone a process.
    async fn spawn(&self, message: &ToSpawner, theirs: OwnedFd) -> Result<(i32, OwnedFd), Error> {
        let mut guard = self.connection.lock().await;
        let (connection, inbox) = &mut *guard;
        connection.send(message, &[theirs.as_fd()]).await?;
        drop(theirs);
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
        let switch = self.switch.get().and_then(|switch| switch.as_ref().ok());
        let mut wire = None;
        if let Network::Own { addresses, address, .. } = &mut spec.network {
            match (switch, *address) {
                (Some(switch), Some(address)) => wire = Some((switch, address)),
                _ => addresses.extend(address.take().map(std::net::IpAddr::V4)),
            }
        }
        let (pid, pidfd) = self.spawn(&ToSpawner::CreatePod { spec }, theirs).await?;
        let connection = Arc::new(Connection::new(ours)?);
        let mut guard = KillOnDrop { pidfd: Some(pidfd) };
        let mut inbox = Inbox::default();
        let mut first = connection.receive(&mut inbox).await?.ok_or(Error::Ended)?;
        if let ((FromInit::Network, fds), Some((switch, address))) = (&mut first, wire) {
            let network = fds.pop().ok_or(Error::Ended)?;
            let (attached, next) = tokio::join!(switch.attach(address, network), connection.receive(&mut inbox));
            attached?;
            first = next?.ok_or(Error::Ended)?;
        }
        let listeners = match first {
            (FromInit::Ready, fds) => fds,
            (FromInit::Failed(failure), _) => return Err(explain(failure)),
            _ => return Err(Error::Io(io::Error::other("the pod's init spoke out of turn"))),
        };
        let pidfd = guard.pidfd.take().ok_or(Error::Ended)?;
        let processes = Arc::new(Processes::default());
        let reader = tokio::spawn(read(connection.clone(), inbox, processes.clone()));
        let pidfd = sys::watch(pidfd)?;
        Ok(Pod {
            pid,
            pidfd,
            connection,
            processes,
            listeners: Mutex::new(listeners),
            reader,
            next_id: AtomicU32::new(1),
        })
    }
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
        self.begin(|id| ToInit::Start { id, spec: Box::new(spec) }, stdio).await
    }

    /// Starts another program in a running container and waits until it runs.
    pub async fn exec(&self, container: &Process, spec: ProcessSpec, stdio: Stdio) -> Result<Process, Error> {
        let container = container.id;
        self.begin(|id| ToInit::Exec { id, container, spec: Box::new(spec) }, stdio).await
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

    async fn begin(&self, message: impl FnOnce(u32) -> ToInit, stdio: Stdio) -> Result<Process, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut state = self.processes.add(id);
        self.connection.send(&message(id), &[stdio.stdin.as_fd(), stdio.stdout.as_fd(), stdio.stderr.as_fd()]).await?;
        drop(stdio);
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
    /// Its number in the pod's process namespace; `None` once it has ended.
    pub fn pid(&self) -> Option<i32> {
        match *self.state.borrow() {
            State::Running { pid } => Some(pid),
            _ => None,
        }
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
            FromInit::Network | FromInit::Ready | FromInit::Failed(_) => break,
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
