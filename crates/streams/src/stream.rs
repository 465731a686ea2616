//! The two halves of a stream, the same whatever framing carries it: what comes in is a bounded queue of pieces, what goes
//! out is one queue for all streams of a connection. Never looks at what is in them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Pieces that wait to be read on one stream; then the whole connection waits, as it has no flow control of its own.
pub const PIECES_MAX: usize = 32;
/// Pieces of all streams that wait to be sent.
pub const QUEUE_MAX: usize = 32;
/// The most bytes in one piece that is sent.
pub const PIECE_BYTES_MAX: usize = 32 * 1024;

/// What is to be sent on a connection.
#[derive(Debug)]
pub(crate) enum Out {
    /// Opens a stream (SPDY).
    Open {
        id: u32,
        headers: Vec<(String, String)>,
    },
    /// Accepts a stream of the other side (SPDY).
    Reply {
        id: u32,
    },
    Data {
        id: u32,
        bytes: Bytes,
    },
    /// Nothing more will come on this stream.
    End {
        id: u32,
    },
    /// The stream is no more, in both directions (SPDY).
    Reset {
        id: u32,
        status: u32,
    },
    /// Answers a sign of life (SPDY).
    Pong {
        id: u32,
    },
    /// Nothing more will come at all.
    Close,
}

/// What the other side says on one stream.
#[derive(Debug)]
pub struct Incoming {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

/// A sender whose receiver is an [`Incoming`].
pub(crate) fn incoming() -> (mpsc::Sender<Bytes>, Incoming) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (sender, Incoming { pieces, rest: Bytes::new() })
}

impl Incoming {
    /// The next piece, as it came; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self.rest.is_empty() {
            true => self.pieces.recv().await,
            false => Some(std::mem::take(&mut self.rest)),
        }
    }
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(piece) => self.rest = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = buf.remaining().min(self.rest.len());
        buf.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// What this side says on one stream. Shutting it down tells the other side that nothing more will come.
#[derive(Debug)]
pub struct Outgoing {
    id: u32,
    queue: PollSender<Out>,
    ended: bool,
}

impl Outgoing {
    pub(crate) fn new(id: u32, queue: mpsc::Sender<Out>) -> Outgoing {
        Outgoing { id, queue: PollSender::new(queue), ended: false }
    }
}

fn gone<T>(_: T) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncWrite for Outgoing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.queue.poll_reserve(cx)).map_err(gone)?;
        let piece = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        let id = self.id;
        self.queue.send_item(Out::Data { id, bytes: Bytes::copy_from_slice(piece) }).map_err(gone)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.queue.poll_reserve(cx)).map_err(gone)?;
            let id = self.id;
            self.queue.send_item(Out::End { id }).map_err(gone)?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
