//! What the agent, the spawner and a pod's init say to each other, and how it travels: length-prefixed JSON over a
//! Unix stream socket, file descriptors beside it. Both directions are in this file. It never interprets a message.

use super::{ContainerSpec, PodSpec, ProcessSpec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The largest message either side takes, in bytes. The kernel itself limits arguments and environment to 2 MiB.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The most file descriptors that travel with one message.
pub const FRAME_FDS_MAX: usize = 16;

const HEADER_BYTES: usize = 8;
const READ_BYTES: usize = 8 << 10;

/// Agent to spawner. File descriptors come with each: the other end of a socket pair of the agent's, and, for a pod that is kept,
/// the socket on which its init is to listen.
#[derive(Serialize, Deserialize)]
pub enum ToSpawner {
    /// Clone a pod's init, and give it the socket.
    CreatePod { spec: PodSpec },
    /// Clone the process that holds the node's own network, and give it the socket.
    CreateSwitch { gateway: Ipv4Addr },
}

/// Spawner to agent, in the order of the requests. `Created` brings a pidfd of the new process.
#[derive(Serialize, Deserialize)]
pub enum FromSpawner {
    Created { pid: i32 },
    Failed(Failure),
}

/// Agent to a pod's init.
#[derive(Serialize, Deserialize)]
pub enum ToInit {
    /// Starts a container; brings stdin, stdout and stderr, then the doors of its control groups, so many, then what is to be
    /// kept for the next agent.
    Start { id: u32, name: String, doors: usize, spec: Box<ContainerSpec> },
    /// Starts a process in the container `container`; brings stdin, stdout, stderr and the doors.
    Exec { id: u32, container: u32, spec: Box<ProcessSpec> },
    /// Keeps what comes with it for the next agent, as the process started as `id` is.
    Keep { id: u32 },
    /// Has a pod that was made ahead be this one; brings the socket on which its init is to listen, if it is kept. Answered by
    /// `Ready` or `Failed`.
    Become { spec: Box<PodSpec> },
    /// Begins to connect to an address of the pod.
    Connect { id: u32, address: SocketAddr },
    /// Sends a signal to the process started as `id`. A process that is gone is no error.
    Signal { id: u32, signal: i32 },
}

/// A pod's init to the agent.
#[derive(Serialize, Deserialize)]
pub enum FromInit {
    /// The pod has a network, which it brings; the rest is still being set up. Only where the pod has an address of its own.
    Network,
    /// The pod is set up; brings the listening sockets in the order of the spec.
    Ready,
    /// The pod could not be set up; the init exits after this.
    Failed(Failure),
    Started {
        id: u32,
        pid: i32,
    },
    StartFailed {
        id: u32,
        failure: Failure,
    },
    Exited {
        id: u32,
        exit: Exit,
    },
    /// To the next agent: the highest number of a process that there was.
    Last {
        id: u32,
    },
    /// To the next agent, for each container: its name, what is known of its process, and what was kept. Then comes `Ready`.
    Left {
        id: u32,
        name: String,
        pid: i32,
        /// How it ended and when, in milliseconds of the common era of Unix.
        ended: Option<(Exit, i64)>,
    },
    /// Brings a non-blocking socket whose connection is under way, or one that could not be begun: then none comes.
    Connecting {
        id: u32,
        failure: Option<Failure>,
    },
}

/// Agent to the process of the node's network, each with a number.
#[derive(Serialize, Deserialize)]
pub enum ToSwitch {
    /// Lay a wire to a pod, whose network comes with it.
    Attach { address: Ipv4Addr },
    /// Open a socket.
    Socket(SocketSpec),
}

/// What socket is wanted in the node's network.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SocketSpec {
    pub transport: Transport,
    /// Its own; unspecified where any will do.
    pub address: SocketAddrV4,
    /// Where it connects to. Datagrams go there and come from there alone.
    pub to: Option<SocketAddrV4>,
    /// It takes what is sent to any address, and may have any itself.
    pub transparent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// TCP, listening.
    Listen,
    /// TCP, a connection under way.
    Connect,
    /// UDP.
    Datagrams,
}

/// The process of the node's network to the agent, with the request's number.
#[derive(Serialize, Deserialize)]
pub enum FromSwitch {
    /// Brings the socket that was asked for; the first one, which says that all is set up, a socket to the packet filter,
    /// if there is one.
    Done,
    /// This kernel has no wires; the pod has its address, and nobody else reaches it.
    Alone(Failure),
    Failed(Failure),
}

/// A step that the kernel refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried, in words: `mount proc`.
    pub step: String,
    /// The error number, 0 when the step failed for another reason.
    pub errno: i32,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// The exit code as Kubernetes shows it: 128 + N for a process that signal N ended.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

impl Failure {
    pub fn new(step: impl Into<String>, error: &io::Error) -> Failure {
        Failure { step: step.into(), errno: error.raw_os_error().unwrap_or(0) }
    }

    pub fn words(step: impl Into<String>) -> Failure {
        Failure { step: step.into(), errno: 0 }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errno {
            0 => f.write_str(&self.step),
            errno => write!(f, "{}: {}", self.step, strerror(errno)),
        }
    }
}

/// The error's words without Rust's "(os error N)".
fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    let mut text = text[..end].to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

/// The bytes of one message, ready to be sent with [`send_some`].
pub fn encode<T: Serialize>(message: &T, fds: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - HEADER_BYTES;
    if length > FRAME_BYTES_MAX || fds > FRAME_FDS_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes is larger than {FRAME_BYTES_MAX}")));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&(fds as u32).to_le_bytes());
    Ok(bytes)
}

/// Sends as much as the socket takes, with the descriptors on the first byte; returns how many bytes went.
pub fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Sends one descriptor and nothing else.
pub fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    send_some(socket, &[0], &[fd]).map(drop)
}

/// Receives what [`send_fd`] sent.
pub fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut inbox = Inbox::default();
    inbox.fill(socket)?;
    inbox.fds.pop_front().ok_or_else(|| io::Error::other("no descriptor came"))
}

/// Sends a whole message on a blocking socket.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = encode(message, fds.len())?;
    let mut sent = 0;
    while sent < bytes.len() {
        match send_some(socket, &bytes[sent..], if sent == 0 { fds } else { &[] }) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The receiving half: bytes and descriptors that have come, not yet taken as messages.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Reads once from the socket. `Ok(false)` at its end; `WouldBlock` as the socket is.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let mut chunk = [0; READ_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let count = loop {
            let mut into = [IoSliceMut::new(&mut chunk)];
            match rustix::net::recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?.bytes,
            }
        };
        self.bytes.extend_from_slice(&chunk[..count]);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        Ok(count > 0)
    }

    /// Takes the next whole message with its descriptors, if one has come.
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let fds = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > FRAME_BYTES_MAX || fds > FRAME_FDS_MAX {
            return Err(io::Error::other("not a message of the sandbox"));
        }
        if self.bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        if self.fds.len() < fds {
            return Err(io::Error::other("a message came without its descriptors (open files limit reached?)"));
        }
        let message = serde_json::from_slice(&self.bytes[HEADER_BYTES..HEADER_BYTES + length])?;
        self.bytes.drain(..HEADER_BYTES + length);
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }

    /// Waits on a blocking socket for the next message; `None` at its end.
    pub fn receive<T: DeserializeOwned>(&mut self, socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(Some(message));
            }
            if !self.fill(&socket)? {
                return Ok(None);
            }
        }
    }
}
