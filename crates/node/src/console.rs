//! A container's standard streams, seen from the agent: what it prints goes to its log and to everybody attached, what those
//! type goes to its stdin. Knows no API.

use crate::agent::lock;
use crate::logs::{Log, StreamKind};
use crate::sandbox::{self, ConsoleTerminal, Stdio};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// Pieces of output that wait for one who is attached; then the container waits, as with every container runtime.
const OUTPUT_PIECES_MAX: usize = 32;
/// Who may be attached to one container at a time.
const ATTACHED_MAX: usize = 64;

/// What a container wants of its standard streams.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Wanted {
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
}

/// The agent's ends of the streams of a container that is being started.
pub enum Ends {
    /// An engine has them.
    Elsewhere,
    Terminal(sandbox::Console),
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
}

/// The streams to start a container with, and the other ends of them.
pub fn prepare(wanted: Wanted) -> io::Result<(Stdio, Ends)> {
    if wanted.tty {
        let (stdio, console) = sandbox::Console::new()?;
        return Ok((stdio, Ends::Terminal(console)));
    }
    let (stdout, stdout_write) = io::pipe()?;
    let (stderr, stderr_write) = io::pipe()?;
    let (stdin_read, stdin): (OwnedFd, Option<OwnedFd>) = match wanted.stdin {
        true => {
            let (read, write) = io::pipe()?;
            (read.into(), Some(write.into()))
        }
        false => (fs::File::open("/dev/null")?.into(), None),
    };
    let stdio = Stdio { stdin: stdin_read, stdout: stdout_write.into(), stderr: stderr_write.into() };
    Ok((stdio, Ends::Pipes { stdin, stdout: stdout.into(), stderr: stderr.into() }))
}

/// For a container whose streams an engine has.
pub fn elsewhere() -> io::Result<(Stdio, Ends)> {
    let null = || fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    Ok((Stdio { stdin: null()?, stdout: null()?, stderr: null()? }, Ends::Elsewhere))
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The streams of a running container.
pub struct Console {
    once: bool,
    terminal: Option<ConsoleTerminal>,
    /// Shared by who is attached; closed for good once it is `None`.
    stdin: AsyncMutex<Option<Writer>>,
    attached: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    listeners: Vec<(StreamKind, mpsc::Sender<Bytes>)>,
    /// The container will print nothing more.
    ended: bool,
}

/// What a container prints, to be captured.
pub struct Outputs(Vec<(StreamKind, Reader)>);

/// The streams of a container that another agent has started, from what was kept of them: see [`Ends::kept`].
pub fn reopen(kept: Vec<OwnedFd>, wanted: Wanted) -> io::Result<(Arc<Console>, Outputs)> {
    let mut kept = kept.into_iter();
    let lost = || io::Error::other("nothing was kept of its streams");
    if wanted.tty {
        let terminal = ConsoleTerminal::of(kept.next().ok_or_else(lost)?)?;
        return Ok(Ends::with_terminal(terminal, wanted));
    }
    let (stdout, stderr) = (kept.next().ok_or_else(lost)?, kept.next().ok_or_else(lost)?);
    Ends::Pipes { stdin: kept.next(), stdout, stderr }.open(wanted)
}

impl Ends {
    /// What another agent would need of them. A stdin that ends with who types there is not kept: it would not end. A terminal is
    /// there only once the container has been started.
    pub fn kept(&self, wanted: Wanted) -> io::Result<Vec<OwnedFd>> {
        match self {
            Ends::Terminal(_) | Ends::Elsewhere => Ok(Vec::new()),
            Ends::Pipes { stdin, stdout, stderr } => {
                let stdin = stdin.as_ref().filter(|_| !wanted.stdin_once);
                [Some(stdout), Some(stderr), stdin].into_iter().flatten().map(OwnedFd::try_clone).collect()
            }
        }
    }

    fn with_terminal(terminal: ConsoleTerminal, wanted: Wanted) -> (Arc<Console>, Outputs) {
        let stdin = wanted.stdin.then(|| Box::new(terminal.clone()) as Writer);
        let outputs = Outputs(vec![(StreamKind::Stdout, Box::new(terminal.clone()) as Reader)]);
        let stdin = AsyncMutex::new(stdin);
        let console = Console { once: wanted.stdin_once, terminal: Some(terminal), stdin, attached: Mutex::default() };
        (Arc::new(console), outputs)
    }

    /// The streams of the container, which has been started.
    pub fn open(self, wanted: Wanted) -> io::Result<(Arc<Console>, Outputs)> {
        let (stdin, outputs): (Option<Writer>, Vec<(StreamKind, Reader)>) = match self {
            Ends::Elsewhere => (None, Vec::new()),
            Ends::Terminal(console) => return Ok(Ends::with_terminal(console.terminal()?, wanted)),
            Ends::Pipes { stdin, stdout, stderr } => {
                let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose()?;
                let read = |fd| Ok::<_, io::Error>(Box::new(pipe::Receiver::from_owned_fd(fd)?) as Reader);
                let outputs = vec![(StreamKind::Stdout, read(stdout)?), (StreamKind::Stderr, read(stderr)?)];
                (stdin.map(|stdin| Box::new(stdin) as Writer), outputs)
            }
        };
        let stdin = AsyncMutex::new(stdin);
        let console = Console { once: wanted.stdin_once, terminal: None, stdin, attached: Mutex::default() };
        Ok((Arc::new(console), Outputs(outputs)))
    }
}

impl Outputs {
    /// Copies all that is printed into the log and to who is attached, until it ends.
    pub async fn capture(self, log: &Log, console: &Console) {
        let each = self.0.into_iter().map(|(kind, from)| log.capture(kind, from, console));
        for result in futures_util::future::join_all(each).await {
            if let Err(error) = result {
                tracing::warn!(%error, "a container's output is no longer read");
            }
        }
    }
}

impl Console {
    /// Tells who is attached what was printed; waits for the slowest of them.
    pub async fn tell(&self, kind: StreamKind, bytes: &[u8]) {
        let listeners: Vec<_> = {
            let mut attached = lock(&self.attached);
            attached.listeners.retain(|(_, listener)| !listener.is_closed());
            attached.listeners.iter().filter(|(wanted, _)| *wanted == kind).map(|(_, to)| to.clone()).collect()
        };
        for listener in listeners {
            // Who has gone meanwhile needs nothing.
            let _ = listener.send(Bytes::copy_from_slice(bytes)).await;
        }
    }

    /// Nothing more will be printed: who is attached sees the end.
    pub fn end(&self) {
        let mut attached = lock(&self.attached);
        attached.ended = true;
        attached.listeners.clear();
    }

    /// What is printed from now on; `None` if too many are attached.
    pub fn listen(&self, kind: StreamKind) -> Option<mpsc::Receiver<Bytes>> {
        let (listener, pieces) = mpsc::channel(OUTPUT_PIECES_MAX);
        let mut attached = lock(&self.attached);
        if attached.listeners.len() >= ATTACHED_MAX * 2 {
            return None;
        }
        if !attached.ended {
            attached.listeners.push((kind, listener));
        }
        Some(pieces)
    }

    /// Types something.
    ///
    /// # Errors
    /// If the container has no stdin any more.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match &mut *self.stdin.lock().await {
            Some(stdin) => stdin.write_all(bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// One who was attached with stdin has gone.
    pub async fn typed(&self) {
        if self.once {
            *self.stdin.lock().await = None;
        }
    }

    /// The container's terminal, where it has one.
    pub fn terminal(&self) -> Option<&ConsoleTerminal> {
        self.terminal.as_ref()
    }
}
