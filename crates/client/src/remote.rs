//! exec, attach and port-forward: commands and connections in a pod, over a WebSocket on a connection of its own. Starts no
//! process here and opens no port.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::api::Query;
use ::api::ask::{Ask, Verb};
use bytes::Bytes;
use http::Request;
use streams::port_forward::{Client as Ports, TUNNEL};
use streams::remote_command::{Client as Session, MESSAGE_BYTES_MAX, Options, Size, V5};
use streams::spdy::{Control, Stream};
use streams::websocket::Role;
use streams::{upgrade, websocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use streams::remote_command::Outcome;
pub use streams::stream::{Incoming, Outgoing};

use crate::api::Api;
use crate::client::request_of;
use crate::error::{Error, Result};
use crate::resource::Resource;

/// Which container, and which of its streams. The default has none: choose at least one.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Needed where the pod has several.
    pub container: Option<String>,
    /// What is written there, the command reads.
    pub stdin: bool,
    /// What the command prints.
    pub stdout: bool,
    /// What it complains of. On a terminal that is in `stdout`.
    pub stderr: bool,
    /// The command has a terminal of its own.
    pub tty: bool,
}

impl RemoteOptions {
    /// What the command prints and complains of, and nothing to read for it.
    pub fn output() -> RemoteOptions {
        RemoteOptions { stdout: true, stderr: true, ..RemoteOptions::default() }
    }

    /// A terminal and what is typed there.
    pub fn terminal() -> RemoteOptions {
        RemoteOptions { stdin: true, stdout: true, tty: true, ..RemoteOptions::default() }
    }

    /// The parameters that say the same.
    pub fn print(&self, command: &[&str]) -> Query {
        let mut query = Query::default();
        if let Some(container) = &self.container {
            query.push("container", container);
        }
        let stderr = self.stderr && !self.tty;
        for (name, flag) in [("stdin", self.stdin), ("stdout", self.stdout), ("stderr", stderr), ("tty", self.tty)] {
            if flag {
                query.push(name, "true");
            }
        }
        command.iter().for_each(|word| query.push("command", *word));
        query
    }
}

/// A command in a container, or a container's own program: its streams and its end. When this is dropped the connection closes;
/// a command goes on until it reads or writes.
pub struct Remote {
    session: Session,
    moving: Moving,
}

/// The loop of a connection; ends with its owner.
struct Moving(JoinHandle<()>);

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<K: Resource> Api<K> {
    /// Runs a command in a container of a pod. It needs the rights to `get` and to `create` `pods/exec`.
    ///
    /// # Errors
    /// The server's refusal: no such pod or container, no right. Whether the command can be run is told by [`Remote::wait`].
    pub async fn exec(&self, name: &str, command: &[&str], options: &RemoteOptions) -> Result<Remote> {
        self.remote(name, "exec", options, options.print(command)).await
    }

    /// Attaches to the program of a running container. Its stdin is there if the container says `stdin: true`.
    ///
    /// # Errors
    /// As [`Api::exec`].
    pub async fn attach(&self, name: &str, options: &RemoteOptions) -> Result<Remote> {
        self.remote(name, "attach", options, options.print(&[])).await
    }

    async fn remote(&self, name: &str, what: &str, options: &RemoteOptions, query: Query) -> Result<Remote> {
        let io = self.upgrade(name, what, query, V5.name).await?;
        let RemoteOptions { stdin, stdout, stderr, tty, .. } = *options;
        let (session, moving) = streams::remote_command::connect(io, Options { stdin, stdout, stderr, tty });
        Ok(Remote { session, moving: Moving(tokio::spawn(moving)) })
    }

    /// Opens a way to the ports of a pod; each [`PortForwarder::connect`] is one connection. It needs the rights to `get` and to
    /// `create` `pods/portforward`.
    ///
    /// # Errors
    /// The server's refusal. Whether something listens is told by each connection.
    pub async fn port_forward(&self, name: &str) -> Result<PortForwarder> {
        let io = self.upgrade(name, "portforward", Query::default(), TUNNEL).await?;
        let (ports, moving) = Ports::new(websocket::tunnel(io, Role::Client).await);
        Ok(PortForwarder { ports, _moving: Moving(tokio::spawn(moving)) })
    }

    async fn upgrade(&self, name: &str, what: &str, query: Query, subprotocol: &'static str) -> Result<streams::Io> {
        let ask = Ask::of(Verb::Get, self.sub(name, what)?, query);
        let mut request: Request<Bytes> = request_of(&ask, None)?;
        let key = upgrade::ask(request.headers_mut(), subprotocol);
        let (response, io) = self.client().upgrade(request).await?;
        upgrade::check(response.headers(), &key, subprotocol).map_err(Error::Lost)?;
        Ok(io)
    }
}

impl Remote {
    /// What the command reads; once. Shutting it down is the end of it.
    pub fn take_stdin(&mut self) -> Option<Outgoing> {
        self.session.stdin.take()
    }

    /// What the command prints; once. It waits as long as this is not read.
    pub fn take_stdout(&mut self) -> Option<Incoming> {
        self.session.stdout.take()
    }

    /// What the command complains of; once.
    pub fn take_stderr(&mut self) -> Option<Incoming> {
        self.session.stderr.take()
    }

    /// What tells the size of the terminal; once.
    pub fn take_resizer(&mut self) -> Option<Resizer> {
        self.session.resize.take().map(Resizer)
    }

    /// Waits for the end. What was not taken of its output is thrown away.
    ///
    /// # Errors
    /// If the connection ends before the command does.
    pub async fn wait(self) -> Result<Outcome> {
        let Remote { session, moving } = self;
        let Session { stdin, stdout, stderr, resize, error } = session;
        drop((stdout, stderr));
        let mut last = Vec::new();
        let read = error.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut last).await;
        read.map_err(|why| Error::Lost(why.to_string()))?;
        drop((stdin, resize, moving));
        match last.is_empty() {
            true => Err(Error::Lost("the connection ended before the command".into())),
            false => Ok(Outcome::parse(&last)),
        }
    }

    /// Reads all that the command prints to its end, and how that was: for commands that print little.
    ///
    /// # Errors
    /// As [`Remote::wait`].
    pub async fn output(mut self) -> Result<(Outcome, Vec<u8>, Vec<u8>)> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read = async |from: Option<Incoming>, into: &mut Vec<u8>| match from {
            Some(mut from) => from.read_to_end(into).await.map(drop),
            None => Ok(()),
        };
        let (stdout, stderr) = (self.take_stdout(), self.take_stderr());
        drop(self.take_stdin());
        let (first, second) = tokio::join!(read(stdout, &mut out), read(stderr, &mut err));
        first.and(second).map_err(|why| Error::Lost(why.to_string()))?;
        Ok((self.wait().await?, out, err))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

/// Tells the size of the user's terminal.
#[derive(Debug)]
pub struct Resizer(Outgoing);

impl Resizer {
    /// The terminal has so many characters and lines now.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn resize(&mut self, width: u16, height: u16) -> io::Result<()> {
        self.0.write_all(&Size { width, height }.print()).await
    }
}

/// A way to the ports of a pod.
pub struct PortForwarder {
    ports: Ports,
    _moving: Moving,
}

impl PortForwarder {
    /// Connects to a port of the pod's loopback address.
    ///
    /// # Errors
    /// If the way has ended. That nothing listens is told by [`Forwarded::error`].
    pub async fn connect(&mut self, port: u16) -> Result<Forwarded> {
        let opened = self.ports.open(port).await;
        let (stream, error) = opened.map_err(|why| Error::Lost(format!("port {port}: {why}")))?;
        Ok(Forwarded { stream, error, control: self.ports.control().clone() })
    }

    /// Cancelled when the way has ended.
    pub fn ended(&self) -> CancellationToken {
        self.ports.control().gone().clone()
    }
}

impl fmt::Debug for PortForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortForwarder")
    }
}

/// One connection to a port of a pod. Shutting it down ends one direction alone, dropping it both.
pub struct Forwarded {
    stream: Stream,
    error: Incoming,
    control: Control,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.control.abandon(self.stream.id);
    }
}

impl fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarded({})", self.stream.header("port"))
    }
}

impl Forwarded {
    /// Why the connection could not be made or went wrong, once that is known; `None` if all is well at its end.
    pub async fn error(mut self) -> Option<String> {
        let mut text = Vec::new();
        let _ = (&mut self.error).take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut text).await;
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.incoming).poll_read(cx, buf)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream.outgoing).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.outgoing).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.outgoing).poll_shutdown(cx)
    }
}
