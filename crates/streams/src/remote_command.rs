//! The streams of a command: stdin, stdout, stderr, one for its end and one for the size of its terminal, from whatever
//! framing a client speaks. Knows nothing of processes.

use std::io;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::stream::{Incoming, Out, Outgoing, QUEUE_MAX, incoming};
use crate::upgrade::{Agreed, Offers};
use crate::websocket::{self, Protocol, Role};
use crate::{CREATION_TIME_MAX, FINISH_TIME_MAX, Io, spdy};

/// The WebSocket subprotocol of today.
pub const V5: &Protocol = &Protocol { name: "v5.channel.k8s.io", base64: false, ends_channels: true, status: true };

/// What a server of commands offers.
pub const OFFERS: Offers = Offers {
    websocket: &[
        *V5,
        Protocol { name: "v4.channel.k8s.io", base64: false, ends_channels: false, status: true },
        Protocol { name: "v4.base64.channel.k8s.io", base64: true, ends_channels: false, status: true },
        Protocol { name: "channel.k8s.io", base64: false, ends_channels: false, status: false },
        Protocol { name: "base64.channel.k8s.io", base64: true, ends_channels: false, status: false },
        Protocol { name: "", base64: false, ends_channels: false, status: false },
    ],
    tunnel: None,
    spdy: &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"],
};

/// The channels of WebSocket messages.
pub const STDIN: u8 = 0;
/// What a program prints.
pub const STDOUT: u8 = 1;
/// What it complains of.
pub const STDERR: u8 = 2;
/// How it ended.
pub const ERROR: u8 = 3;
/// How large its terminal is.
pub const RESIZE: u8 = 4;

/// The most bytes of a terminal's size, or of how a command ended.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What the client types.
    pub stdin: bool,
    /// What the program prints.
    pub stdout: bool,
    /// What it complains of. A terminal has none of its own.
    pub stderr: bool,
    /// The program has a terminal.
    pub tty: bool,
}

/// The streams, as far as they were asked for.
#[derive(Debug)]
pub struct Streams {
    /// What the client types; it ends when the client has nothing more to say.
    pub stdin: Option<Incoming>,
    /// What the program prints.
    pub stdout: Option<Outgoing>,
    /// What it complains of.
    pub stderr: Option<Outgoing>,
    /// Sizes of the client's terminal.
    pub resize: Option<Sizes>,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
}

/// The sizes of a terminal, as its user changes them.
#[derive(Debug)]
pub struct Sizes {
    incoming: Incoming,
    rest: Vec<u8>,
}

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

impl Size {
    /// As it travels.
    pub fn print(self) -> Bytes {
        json!({"Width": self.width, "Height": self.height}).to_string().into()
    }
}

impl Sizes {
    fn new(incoming: Incoming) -> Sizes {
        Sizes { incoming, rest: Vec::new() }
    }

    /// The next size; `None` when no more will come.
    pub async fn next(&mut self) -> Option<Size> {
        loop {
            // Objects follow each other without anything between, and may come in parts.
            let mut values = serde_json::Deserializer::from_slice(&self.rest).into_iter::<Value>();
            if let Some(Ok(value)) = values.next() {
                let used = values.byte_offset();
                self.rest.drain(..used);
                let number = |name: &str| value[name].as_u64().and_then(|number| u16::try_from(number).ok());
                match (number("Width"), number("Height")) {
                    (Some(width), Some(height)) => return Some(Size { width, height }),
                    _ => continue,
                }
            }
            let piece = self.incoming.next().await?;
            if self.rest.len() + piece.len() > MESSAGE_BYTES_MAX {
                return None;
            }
            self.rest.extend_from_slice(&piece);
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// With a code that is not 0, and what is to be said of it.
    Code(i32, String),
    /// It was not run, or not to its end: why.
    Failed(String),
}

impl Outcome {
    /// The last word on the error stream: a `Status`, or text for those who do not know it.
    pub fn print(&self, status: bool) -> String {
        let message = match self {
            Outcome::Success if status => return json!({"metadata": {}, "status": "Success"}).to_string(),
            Outcome::Success => return String::new(),
            Outcome::Code(_, text) => format!("{NON_ZERO}{text}"),
            Outcome::Failed(why) => format!("{INTERNAL}{why}"),
        };
        if !status {
            return message;
        }
        let metadata = json!({});
        match self {
            Outcome::Code(code, _) => json!({
                "metadata": metadata, "status": "Failure", "message": message, "reason": NON_ZERO_REASON,
                "details": {"causes": [{"reason": EXIT_CODE, "message": code.to_string()}]},
            }),
            _ => json!({
                "metadata": metadata, "status": "Failure", "message": message, "reason": "InternalError", "code": 500,
            }),
        }
        .to_string()
    }

    /// What a `Status` on the error stream says.
    pub fn parse(last: &[u8]) -> Outcome {
        let Ok(status) = serde_json::from_slice::<Value>(last) else {
            let text = String::from_utf8_lossy(last);
            return match text.trim() {
                "" => Outcome::Failed("the server closed the connection before the command ended".into()),
                text => Outcome::Failed(text.to_string()),
            };
        };
        if status["status"] == "Success" {
            return Outcome::Success;
        }
        let message = status["message"].as_str().unwrap_or_default();
        let causes = status["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let code = causes.iter().find(|cause| cause["reason"] == EXIT_CODE);
        let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
        match code.filter(|_| status["reason"] == NON_ZERO_REASON) {
            Some(code) => Outcome::Code(code, message.strip_prefix(NON_ZERO).unwrap_or(message).to_string()),
            None => Outcome::Failed(message.strip_prefix(INTERNAL).unwrap_or(message).to_string()),
        }
    }
}

const NON_ZERO: &str = "command terminated with non-zero exit code: ";
const INTERNAL: &str = "Internal error occurred: ";
const NON_ZERO_REASON: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";

/// The client's side of the streams.
#[derive(Debug)]
pub struct Client {
    /// What the program reads; shutting it down is the end of it.
    pub stdin: Option<Outgoing>,
    /// What the program prints.
    pub stdout: Option<Incoming>,
    /// What it complains of.
    pub stderr: Option<Incoming>,
    /// Sizes of the terminal, as [`Size::print`] has them.
    pub resize: Option<Outgoing>,
    /// How it ended: [`Outcome::parse`].
    pub error: Incoming,
}

/// A client's streams on a connection that was upgraded to a WebSocket with [`V5`], and the loop that its owner runs; it ends
/// when the server has said all.
pub fn connect(io: Io, options: Options) -> (Client, impl Future<Output = ()> + Send) {
    let (queue, out) = mpsc::channel(QUEUE_MAX);
    let mut channels = vec![None; usize::from(RESIZE) + 1];
    let mut listen = |channel: u8, wanted: bool| {
        wanted.then(|| {
            let (pieces, incoming) = incoming();
            channels[usize::from(channel)] = Some(pieces);
            incoming
        })
    };
    let (stdout, stderr) = (listen(STDOUT, options.stdout), listen(STDERR, options.stderr && !options.tty));
    let (pieces, error) = incoming();
    channels[usize::from(ERROR)] = Some(pieces);
    let speak = |channel: u8, wanted: bool| wanted.then(|| Outgoing::new(channel.into(), queue.clone()));
    let client =
        Client { stdin: speak(STDIN, options.stdin), stdout, stderr, resize: speak(RESIZE, options.tty), error };
    let moving = async move {
        websocket::run(io, Role::Client, V5, channels, out, &CancellationToken::new()).await;
    };
    (client, moving)
}

/// Serves a connection: makes the streams that the client asked for, lets `run` use them, tells the client how it ended and
/// waits until the client has read all.
pub async fn serve<R: Future<Output = Outcome>>(
    io: Io,
    agreed: Agreed,
    options: Options,
    run: impl FnOnce(Streams) -> R,
) {
    match agreed {
        Agreed::WebSocket(protocol) => serve_websocket(io, protocol, options, run).await,
        Agreed::Spdy(version) => serve_spdy(io, version, options, run).await,
        Agreed::Tunnel => serve_spdy(websocket::tunnel(io, Role::Server).await, OFFERS.spdy[0], options, run).await,
    }
}

async fn serve_websocket<R: Future<Output = Outcome>>(
    io: Io,
    protocol: &'static Protocol,
    options: Options,
    run: impl FnOnce(Streams) -> R,
) {
    let (queue, out) = mpsc::channel(QUEUE_MAX);
    let gone = CancellationToken::new();
    let mut channels = vec![None; usize::from(RESIZE) + 1];
    let mut listen = |channel: u8, wanted: bool| {
        wanted.then(|| {
            let (pieces, incoming) = incoming();
            channels[usize::from(channel)] = Some(pieces);
            incoming
        })
    };
    let (stdin, resize) = (listen(STDIN, options.stdin), listen(RESIZE, options.tty));
    let speak = |channel: u8| Outgoing::new(channel.into(), queue.clone());
    let streams = Streams {
        stdin,
        stdout: options.stdout.then(|| speak(STDOUT)),
        stderr: options.stderr.then(|| speak(STDERR)),
        resize: resize.map(Sizes::new),
        gone: gone.clone(),
    };
    let lowest = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        ERROR
    };
    let work = async {
        // An empty message tells the client that the streams are there.
        let _ = queue.send(Out::Data { id: lowest.into(), bytes: Bytes::new() }).await;
        let outcome = run(streams).await;
        let last = outcome.print(protocol.status);
        if !last.is_empty() {
            let _ = queue.send(Out::Data { id: ERROR.into(), bytes: last.into() }).await;
        }
        let _ = queue.send(Out::Close).await;
    };
    tokio::join!(websocket::run(io, Role::Server, protocol, channels, out, &gone), work);
}

async fn serve_spdy<R: Future<Output = Outcome>>(
    io: Io,
    version: &'static str,
    options: Options,
    run: impl FnOnce(Streams) -> R,
) {
    let (mut connection, moving) = spdy::connect(io, spdy::Side::Server);
    let status = version == OFFERS.spdy[0];
    let resizes = options.tty && OFFERS.spdy[..2].contains(&version);
    let work = async {
        let control = connection.control().clone();
        let made = timeout(CREATION_TIME_MAX, take_streams(&mut connection, options, resizes)).await;
        let Ok(Ok((streams, mut error, inputs))) = made else {
            control.close().await;
            return;
        };
        // Two halves: what runs may end them, and what is left of them is ended here.
        let outputs: Vec<u32> = streams.outputs;
        let outcome = run(streams.streams).await;
        for id in inputs {
            let _ = control.reset(id, spdy::frame::RST_CANCEL).await;
        }
        let _ = error.write_all(outcome.print(status).as_bytes()).await;
        for id in outputs {
            let _ = control.end(id).await;
        }
        let _ = error.shutdown().await;
        let _ = timeout(FINISH_TIME_MAX, control.gone().cancelled()).await;
        control.close().await;
    };
    tokio::join!(moving, work);
}

struct Taken {
    streams: Streams,
    outputs: Vec<u32>,
}

/// Waits for the streams that were announced. Gives them, the one for the end, and which of them bring something.
async fn take_streams(
    connection: &mut spdy::Connection,
    options: Options,
    resizes: bool,
) -> io::Result<(Taken, Outgoing, Vec<u32>)> {
    let control = connection.control().clone();
    let mut streams = Streams { stdin: None, stdout: None, stderr: None, resize: None, gone: control.gone().clone() };
    let (mut error, mut inputs, mut outputs) = (None, Vec::new(), Vec::new());
    let wanted = 1 + [options.stdin, options.stdout, options.stderr, resizes].iter().filter(|wanted| **wanted).count();
    let mut taken = 0;
    while taken < wanted {
        let stream = connection.next().await.ok_or(io::ErrorKind::ConnectionReset)?;
        let kind = stream.header("streamtype").to_string();
        match kind.as_str() {
            "error" => error = Some(stream.outgoing),
            "stdin" if options.stdin => {
                inputs.push(stream.id);
                streams.stdin = Some(stream.incoming);
            }
            "stdout" if options.stdout => {
                outputs.push(stream.id);
                streams.stdout = Some(stream.outgoing);
            }
            "stderr" if options.stderr => {
                outputs.push(stream.id);
                streams.stderr = Some(stream.outgoing);
            }
            "resize" if resizes => {
                inputs.push(stream.id);
                streams.resize = Some(Sizes::new(stream.incoming));
            }
            _ => {
                control.reset(stream.id, spdy::frame::RST_REFUSED).await?;
                continue;
            }
        }
        control.accept(stream.id).await?;
        taken += 1;
    }
    let error = error.ok_or(io::ErrorKind::InvalidData)?;
    Ok((Taken { streams, outputs }, error, inputs))
}
