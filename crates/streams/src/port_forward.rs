//! Connections to ports of a pod, side by side on one connection: a stream for the data of each and one for what goes wrong,
//! from whatever framing a client speaks. Opens no socket.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::stream::{Incoming, Out, Outgoing, QUEUE_MAX, incoming};
use crate::upgrade::{Agreed, Offers};
use crate::websocket::{self, Protocol, Role};
use crate::{CREATION_TIME_MAX, Io, spdy};

/// The protocol over SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// The WebSocket subprotocol that carries SPDY.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What a server of ports offers.
pub const OFFERS: Offers = Offers {
    websocket: &[
        Protocol { name: "v4.channel.k8s.io", base64: false, ends_channels: false, status: false },
        Protocol { name: "v4.base64.channel.k8s.io", base64: true, ends_channels: false, status: false },
        Protocol { name: "", base64: false, ends_channels: false, status: false },
    ],
    tunnel: Some(TUNNEL),
    spdy: &[PROTOCOL],
};

/// Ports that one WebSocket can have: each takes two channels of 254.
pub const PORTS_MAX: usize = 127;
/// Pairs of streams of which one has not come yet.
const HALVES_MAX: usize = 256;

/// One connection to a port.
#[derive(Debug)]
pub struct Forward {
    /// The port.
    pub port: u16,
    /// What the client sends; it ends when the client has no more.
    pub incoming: Incoming,
    /// What the port answers.
    pub outgoing: Outgoing,
    /// Cancelled when the client gives this connection up, or is gone.
    pub reset: CancellationToken,
}

/// Serves a connection: lets `forward` serve each connection to a port and shut down what goes out; an error is told to the
/// client. `ports` are those of the request, which a WebSocket with channels needs.
pub async fn serve<R: Future<Output = Result<(), String>> + Send>(
    io: Io,
    agreed: Agreed,
    ports: &[u16],
    forward: impl Fn(Forward) -> R + Send + Sync,
) {
    match agreed {
        Agreed::Spdy(_) => serve_spdy(io, forward).await,
        Agreed::Tunnel => serve_spdy(websocket::tunnel(io, Role::Server).await, forward).await,
        Agreed::WebSocket(protocol) => serve_channels(io, protocol, ports, forward).await,
    }
}

/// A pair of which one has come.
struct Half {
    stream: spdy::Stream,
    until: Instant,
}

async fn serve_spdy<R: Future<Output = Result<(), String>> + Send>(
    io: Io,
    forward: impl Fn(Forward) -> R + Send + Sync,
) {
    let (mut connection, moving) = spdy::connect(io, spdy::Side::Server);
    let control = connection.control().clone();
    let work = async {
        let mut halves: HashMap<String, Half> = HashMap::new();
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            let oldest = halves.values().map(|half| half.until).min();
            let overdue = async {
                match oldest {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let stream = tokio::select! {
                stream = connection.next() => match stream {
                    Some(stream) => stream,
                    None => break,
                },
                Some(()) = running.next() => continue,
                () = overdue => {
                    let now = Instant::now();
                    let late: Vec<String> =
                        halves.iter().filter(|(_, half)| half.until <= now).map(|(id, _)| id.clone()).collect();
                    for id in late {
                        if let Some(half) = halves.remove(&id) {
                            late_half(&control, &id, half.stream).await;
                        }
                    }
                    continue;
                }
            };
            if !is_sound(&stream) || halves.len() >= HALVES_MAX {
                let _ = control.reset(stream.id, spdy::frame::RST_REFUSED).await;
                continue;
            }
            let _ = control.accept(stream.id).await;
            let id = request_id(&stream);
            match halves.remove(&id) {
                None => {
                    let until = Instant::now() + CREATION_TIME_MAX;
                    halves.insert(id, Half { stream, until });
                }
                Some(other) if other.stream.header("streamtype") == stream.header("streamtype") => {
                    let _ = control.reset(stream.id, spdy::frame::RST_PROTOCOL_ERROR).await;
                    halves.insert(id, other);
                }
                Some(other) => {
                    let other = other.stream;
                    let (data, error) =
                        if stream.header("streamtype") == "data" { (stream, other) } else { (other, stream) };
                    running.push(Box::pin(serve_pair(&control, data, error, &forward)));
                }
            }
        }
        // The client is gone: what is still running sees that.
        while running.next().await.is_some() {}
    };
    tokio::join!(moving, work);
}

fn is_sound(stream: &spdy::Stream) -> bool {
    stream.header("port").parse::<u16>().is_ok_and(|port| port > 0)
        && matches!(stream.header("streamtype"), "data" | "error")
}

/// What the two streams of a pair have in common. Older clients do not say; theirs have consecutive numbers.
fn request_id(stream: &spdy::Stream) -> String {
    match (stream.header("requestid"), stream.header("streamtype")) {
        ("", "data") => (i64::from(stream.id) - 2).to_string(),
        ("", _) => stream.id.to_string(),
        (id, _) => id.to_string(),
    }
}

async fn late_half(control: &spdy::Control, id: &str, mut stream: spdy::Stream) {
    if stream.header("streamtype") == "error" {
        let text = format!("(request={id}) timed out waiting for streams");
        let _ = stream.outgoing.write_all(text.as_bytes()).await;
    }
    let _ = control.reset(stream.id, spdy::frame::RST_CANCEL).await;
}

async fn serve_pair<R: Future<Output = Result<(), String>>>(
    control: &spdy::Control,
    data: spdy::Stream,
    mut error: spdy::Stream,
    forward: &impl Fn(Forward) -> R,
) {
    let port = data.header("port").parse().unwrap_or_default();
    let id = data.id;
    let asked = Forward { port, incoming: data.incoming, outgoing: data.outgoing, reset: data.reset };
    match forward(asked).await {
        Ok(()) => drop(error.outgoing.shutdown().await),
        Err(why) => {
            let _ = error.outgoing.write_all(why.as_bytes()).await;
            let _ = error.outgoing.shutdown().await;
            // The data may be incomplete; the client is to make new streams.
            let _ = control.reset(id, spdy::frame::RST_CANCEL).await;
        }
    }
    control.forget(error.id);
    control.forget(id);
}

async fn serve_channels<R: Future<Output = Result<(), String>> + Send>(
    io: Io,
    protocol: &'static Protocol,
    ports: &[u16],
    forward: impl Fn(Forward) -> R + Send + Sync,
) {
    let (queue, out) = mpsc::channel(QUEUE_MAX);
    let gone = CancellationToken::new();
    let mut channels = vec![None; ports.len() * 2];
    let mut forwards = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (pieces, incoming) = incoming();
        channels[index * 2] = Some(pieces);
        let outgoing = Outgoing::new(index as u32 * 2, queue.clone());
        forwards.push(Forward { port: *port, incoming, outgoing, reset: gone.clone() });
    }
    let work = async {
        for (index, port) in ports.iter().enumerate() {
            for id in [index as u32 * 2, index as u32 * 2 + 1] {
                let bytes = Bytes::copy_from_slice(&port.to_le_bytes());
                let _ = queue.send(Out::Data { id, bytes }).await;
            }
        }
        let each = forwards.into_iter().enumerate().map(|(index, asked)| {
            let (queue, forward) = (&queue, &forward);
            async move {
                if let Err(why) = forward(asked).await {
                    let _ = queue.send(Out::Data { id: index as u32 * 2 + 1, bytes: why.into() }).await;
                }
            }
        });
        futures_util::future::join_all(each).await;
        let _ = queue.send(Out::Close).await;
    };
    tokio::join!(websocket::run(io, Role::Server, protocol, channels, out, &gone), work);
}

/// The client's side: opens connections to ports on a connection that was upgraded.
pub struct Client {
    connection: spdy::Connection,
    next: u64,
}

impl Client {
    /// A client on `io`, which carries SPDY itself, and the loop that its owner runs.
    pub fn new(io: Io) -> (Client, impl Future<Output = ()> + Send) {
        let (connection, moving) = spdy::connect(io, spdy::Side::Client);
        (Client { connection, next: 0 }, moving)
    }

    /// Opens a connection to a port of the pod. Gives its stream, and the one that tells what goes wrong.
    ///
    /// # Errors
    /// If the other side refuses it or is gone.
    pub async fn open(&mut self, port: u16) -> io::Result<(spdy::Stream, Incoming)> {
        let id = self.next;
        self.next += 1;
        let headers = |kind: &str| {
            let pairs = [("streamtype", kind.to_string()), ("port", port.to_string()), ("requestid", id.to_string())];
            pairs.map(|(name, value)| (name.to_string(), value)).to_vec()
        };
        let until = Instant::now() + CREATION_TIME_MAX;
        let opening = async {
            let mut error = self.connection.open(headers("error")).await?;
            // Nothing is ever said on it from here.
            error.outgoing.shutdown().await?;
            let data = self.connection.open(headers("data")).await?;
            Ok((data, error.incoming))
        };
        timeout_at(until, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What can be done to the connection as a whole.
    pub fn control(&self) -> &spdy::Control {
        self.connection.control()
    }
}
