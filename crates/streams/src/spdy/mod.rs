//! A SPDY connection: its streams, and the loops that move their frames. Has no flow control, as the peers it speaks with have
//! none: a stream that nobody reads makes the whole connection wait.

pub mod frame;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::stream::{Incoming, Out, Outgoing, QUEUE_MAX, incoming};
use crate::upgrade::Idle;
use crate::{CREATION_TIME_MAX, FINISH_TIME_MAX, Io};
use frame::{Decoder, Encoder, Frame, Headers};

/// Streams of one connection that are open at a time; more are refused.
pub const STREAMS_MAX: usize = 1000;
/// Streams that the other side opened and that wait to be taken.
const OPENED_MAX: usize = 16;

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It asked for the connection; its streams are odd.
    Client,
    /// It was asked; its streams are even.
    Server,
}

/// One stream of a connection.
#[derive(Debug)]
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What it is for.
    pub headers: Headers,
    /// What the other side says.
    pub incoming: Incoming,
    /// What this side says.
    pub outgoing: Outgoing,
    /// Cancelled when the other side does away with the stream.
    pub reset: CancellationToken,
}

impl Stream {
    /// A header's value, empty where it has none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// A handle on a connection. Its streams work as long as the connection's loop is run.
pub struct Connection {
    control: Control,
    opened: mpsc::Receiver<Stream>,
}

/// What is done to a connection and to its streams as a whole; cheap to clone.
#[derive(Clone)]
pub struct Control {
    queue: mpsc::Sender<Out>,
    table: Arc<Mutex<Table>>,
    gone: CancellationToken,
}

struct Table {
    /// The next stream of this side.
    next: u32,
    /// The last stream that the other side opened.
    last: u32,
    /// Streams on which the other side has not ended.
    streams: HashMap<u32, Entry>,
}

struct Entry {
    pieces: mpsc::Sender<Bytes>,
    reset: CancellationToken,
    replied: Option<oneshot::Sender<()>>,
}

/// A connection on `io`, and the loop that its owner runs; it ends with the connection.
pub fn connect(io: Io, side: Side) -> (Connection, impl Future<Output = ()> + Send) {
    let (queue, out) = mpsc::channel(QUEUE_MAX);
    let (offer, opened) = mpsc::channel(OPENED_MAX);
    let next = if side == Side::Client { 1 } else { 2 };
    let table = Arc::new(Mutex::new(Table { next, last: 0, streams: HashMap::new() }));
    let control = Control { queue, table, gone: CancellationToken::new() };
    let run = run(io, side, control.clone(), offer, out);
    (Connection { control, opened }, run)
}

impl Connection {
    /// The next stream that the other side opens; it is to be accepted or refused. `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// Opens a stream and waits until the other side accepts it.
    ///
    /// # Errors
    /// If it is refused, not answered in [`CREATION_TIME_MAX`], or the connection has ended.
    pub async fn open(&mut self, headers: Headers) -> io::Result<Stream> {
        let (pieces, incoming) = incoming();
        let (replied, reply) = oneshot::channel();
        let reset = CancellationToken::new();
        let id = {
            let mut table = self.control.table();
            let id = table.next;
            table.next += 2;
            table.streams.insert(id, Entry { pieces, reset: reset.clone(), replied: Some(replied) });
            id
        };
        let outgoing = Outgoing::new(id, self.control.queue.clone());
        self.control.say(Out::Open { id, headers: headers.clone() }).await?;
        tokio::select! {
            reply = timeout(CREATION_TIME_MAX, reply) => match reply {
                Ok(Ok(())) => Ok(Stream { id, headers, incoming, outgoing, reset }),
                Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the stream was refused")),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
            () = self.control.gone.cancelled() => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// What can be done from elsewhere.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Control {
    /// Accepts a stream that the other side opened.
    pub async fn accept(&self, id: u32) -> io::Result<()> {
        self.say(Out::Reply { id }).await
    }

    /// Does away with a stream, for this reason.
    pub async fn reset(&self, id: u32, status: u32) -> io::Result<()> {
        self.table().streams.remove(&id);
        self.say(Out::Reset { id, status }).await
    }

    /// Says that nothing more will come on a stream.
    pub async fn end(&self, id: u32) -> io::Result<()> {
        self.say(Out::End { id }).await
    }

    /// Does away with a stream that is no longer needed, as far as there is room to say so now.
    pub fn abandon(&self, id: u32) {
        self.forget(id);
        let _ = self.queue.try_send(Out::Reset { id, status: frame::RST_CANCEL });
    }

    /// Takes nothing more from a stream, without a word.
    pub fn forget(&self, id: u32) {
        self.table().streams.remove(&id);
    }

    /// Says that nothing more will come, and closes.
    pub async fn close(&self) {
        let _ = self.say(Out::Close).await;
    }

    /// Cancelled when the connection has ended.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    async fn say(&self, out: Out) -> io::Result<()> {
        self.queue.send(out).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(io: Io, side: Side, control: Control, offer: mpsc::Sender<Stream>, out: mpsc::Receiver<Out>) {
    let (read, write) = tokio::io::split(io);
    let idle = Idle::default();
    {
        let mut reading = std::pin::pin!(read_frames(read, side, &control, &offer, &idle));
        tokio::select! {
            _ = &mut reading => {}
            sent = write_frames(write, side, out, &control, &idle) => if sent.is_ok() {
                let _ = timeout(FINISH_TIME_MAX, reading).await;
            },
            () = idle.over() => {}
        }
    }
    // Whoever reads or writes a stream learns that it has ended.
    control.gone.cancel();
    let streams = std::mem::take(&mut control.table().streams);
    streams.values().for_each(|entry| entry.reset.cancel());
}

async fn read_frames(
    mut io: impl AsyncRead + Unpin,
    side: Side,
    control: &Control,
    offer: &mpsc::Sender<Stream>,
    idle: &Idle,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    loop {
        let frame = decoder.frame().map_err(io::Error::other)?;
        let Some(frame) = frame else {
            if io.read_buf(decoder.room()).await? == 0 {
                return Ok(());
            }
            idle.touch();
            continue;
        };
        match frame {
            Frame::SynStream { id, fin, headers, .. } => opened(id, fin, headers, side, control, offer).await?,
            Frame::SynReply { id, fin, .. } => {
                let reply = control.table().streams.get_mut(&id).and_then(|entry| entry.replied.take());
                if let Some(reply) = reply {
                    let _ = reply.send(());
                }
                if fin {
                    control.table().streams.remove(&id);
                }
            }
            Frame::Data { id, fin, bytes } => {
                let pieces = control.table().streams.get(&id).map(|entry| entry.pieces.clone());
                // Who no longer listens, or never did, is no reason to end the others.
                if let Some(pieces) = pieces.filter(|_| !bytes.is_empty()) {
                    let _ = pieces.send(bytes).await;
                }
                if fin {
                    control.table().streams.remove(&id);
                }
            }
            Frame::RstStream { id, .. } => {
                if let Some(entry) = control.table().streams.remove(&id) {
                    entry.reset.cancel();
                }
            }
            Frame::Headers { id, fin: true, .. } => drop(control.table().streams.remove(&id)),
            // Those of this side come back as they were sent, and nobody waits for them.
            Frame::Ping { id } if (id % 2 == 1) == (side == Side::Server) => control.say(Out::Pong { id }).await?,
            Frame::Ping { .. }
            | Frame::Headers { .. }
            | Frame::Settings { .. }
            | Frame::WindowUpdate { .. }
            | Frame::GoAway { .. } => {}
        }
    }
}

async fn opened(
    id: u32,
    fin: bool,
    headers: Headers,
    side: Side,
    control: &Control,
    offer: &mpsc::Sender<Stream>,
) -> io::Result<()> {
    let theirs = (id % 2 == 1) == (side == Side::Server);
    let (pieces, incoming) = incoming();
    let reset = CancellationToken::new();
    let refused = {
        let mut table = control.table();
        if !theirs || id <= table.last {
            Some(frame::RST_PROTOCOL_ERROR)
        } else if table.streams.len() >= STREAMS_MAX {
            table.last = id;
            Some(frame::RST_REFUSED)
        } else {
            table.last = id;
            if !fin {
                table.streams.insert(id, Entry { pieces, reset: reset.clone(), replied: None });
            }
            None
        }
    };
    if let Some(status) = refused {
        return control.say(Out::Reset { id, status }).await;
    }
    let outgoing = Outgoing::new(id, control.queue.clone());
    let stream = Stream { id, headers, incoming, outgoing, reset };
    if offer.send(stream).await.is_err() {
        control.reset(id, frame::RST_REFUSED).await?;
    }
    Ok(())
}

async fn write_frames(
    mut io: impl AsyncWrite + Unpin,
    side: Side,
    mut queue: mpsc::Receiver<Out>,
    control: &Control,
    idle: &Idle,
) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut bytes = BytesMut::new();
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        let mut closing = false;
        while let Some(out) = next {
            let frame = match out {
                Out::Open { id, headers } => Frame::SynStream { id, associated: 0, priority: 0, fin: false, headers },
                Out::Reply { id } => Frame::SynReply { id, fin: false, headers: Headers::new() },
                Out::Data { id, bytes } => Frame::Data { id, fin: false, bytes },
                Out::End { id } => Frame::Data { id, fin: true, bytes: Bytes::new() },
                Out::Reset { id, status } => Frame::RstStream { id, status },
                Out::Pong { id } => Frame::Ping { id },
                Out::Close => {
                    closing = true;
                    let last = if side == Side::Server { control.table().last } else { 0 };
                    Frame::GoAway { last, status: 0 }
                }
            };
            encoder.encode(&frame, &mut bytes).map_err(io::Error::other)?;
            // What waits already goes along.
            next = if closing || bytes.len() >= QUEUE_BYTES { None } else { queue.try_recv().ok() };
        }
        io.write_all(&bytes).await?;
        io.flush().await?;
        bytes.clear();
        idle.touch();
        if closing {
            return io.shutdown().await;
        }
    }
    Ok(())
}

/// What is gathered before it is written, in bytes.
const QUEUE_BYTES: usize = 64 * 1024;
