//! Channels in WebSocket messages: the subprotocols, the loop that moves their messages, and SPDY inside of them. The frames
//! themselves are the library's.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt, future};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::CancellationToken;

pub use tokio_tungstenite::tungstenite::protocol::Role;

use crate::stream::Out;
use crate::upgrade::Idle;
use crate::{FINISH_TIME_MAX, Io};

/// The largest message, in bytes, as the server of Kubernetes takes it.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// The first byte of a message that ends a channel, which is the second.
const END: u8 = 255;

/// A subprotocol: how a channel's number and its bytes become a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// As the handshake names it; empty where no subprotocol was asked for.
    pub name: &'static str,
    /// Messages are text: the channel's digit, then base64.
    pub base64: bool,
    /// A client can end a channel.
    pub ends_channels: bool,
    /// The last word on the error channel is a JSON `Status`, else it is text, and nothing where all went well.
    pub status: bool,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Bytes of a channel.
    Bytes(u8, Bytes),
    /// Nothing more will come on a channel.
    End(u8),
}

impl Protocol {
    /// The message that says this.
    ///
    /// `None` where the subprotocol cannot say it.
    pub fn encode(&self, said: &Said) -> Option<Message> {
        match said {
            Said::Bytes(channel, bytes) if self.base64 => {
                let mut text = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
                text.push(char::from(channel.checked_add(b'0').filter(u8::is_ascii)?));
                STANDARD.encode_string(bytes, &mut text);
                Some(Message::text(text))
            }
            Said::Bytes(END, _) if self.ends_channels => None,
            Said::Bytes(channel, bytes) => {
                let mut message = BytesMut::with_capacity(1 + bytes.len());
                message.put_u8(*channel);
                message.put_slice(bytes);
                Some(Message::Binary(message.freeze()))
            }
            Said::End(channel) => self.ends_channels.then(|| Message::Binary(Bytes::copy_from_slice(&[END, *channel]))),
        }
    }

    /// What a message says; `None` for one that says nothing.
    pub fn decode(&self, message: Message) -> Option<Said> {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return None,
        };
        if bytes.is_empty() {
            return None;
        }
        let channel = bytes.split_to(1)[0];
        if self.ends_channels && channel == END {
            return bytes.first().copied().map(Said::End);
        }
        match self.base64 {
            true => Some(Said::Bytes(channel.wrapping_sub(b'0'), STANDARD.decode(&bytes).ok()?.into())),
            false => Some(Said::Bytes(channel, bytes)),
        }
    }
}

/// Moves messages between a connection and its channels until it ends. `channels` has whom to give what comes on each.
pub(crate) async fn run(
    io: Io,
    role: Role,
    protocol: &Protocol,
    mut channels: Vec<Option<mpsc::Sender<Bytes>>>,
    mut queue: mpsc::Receiver<Out>,
    gone: &CancellationToken,
) {
    let (mut sink, mut messages) = open(io, role).await.split();
    let idle = Idle::default();
    let reading = async {
        while let Some(Ok(message)) = messages.next().await {
            idle.touch();
            match protocol.decode(message) {
                Some(Said::Bytes(channel, bytes)) => {
                    // An empty message is a sign that the other side is there.
                    if let Some(Some(pieces)) = channels.get(usize::from(channel)).filter(|_| !bytes.is_empty()) {
                        let _ = pieces.send(bytes).await;
                    }
                }
                Some(Said::End(channel)) => {
                    if let Some(pieces) = channels.get_mut(usize::from(channel)) {
                        *pieces = None;
                    }
                }
                None => {}
            }
        }
    };
    let writing = async {
        while let Some(out) = queue.recv().await {
            idle.touch();
            let message = match out {
                Out::Data { id, bytes } => protocol.encode(&Said::Bytes(id as u8, bytes)),
                Out::End { id } => protocol.encode(&Said::End(id as u8)),
                Out::Close => {
                    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    return sink.send(Message::Close(Some(frame))).await;
                }
                Out::Open { .. } | Out::Reply { .. } | Out::Reset { .. } | Out::Pong { .. } => None,
            };
            if let Some(message) = message {
                sink.feed(message).await?;
            }
            if queue.is_empty() {
                sink.flush().await?;
            }
        }
        Ok(())
    };
    {
        let mut reading = std::pin::pin!(reading);
        tokio::select! {
            () = &mut reading => {}
            sent = writing => if sent.is_ok() {
                let _ = timeout(FINISH_TIME_MAX, reading).await;
            },
            () = idle.over() => {}
        }
    }
    gone.cancel();
}

/// A connection whose bytes travel in WebSocket messages.
pub async fn tunnel(io: Io, role: Role) -> Io {
    let (sink, messages) = open(io, role).await.split();
    let bytes = messages.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(Error::ConnectionClosed) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    Box::new(tokio::io::join(reader(bytes), writer(sink)))
}

fn reader(bytes: impl Stream<Item = io::Result<Bytes>> + Send + Unpin) -> impl tokio::io::AsyncRead + Send + Unpin {
    StreamReader::new(bytes)
}

fn writer(sink: impl Sink<Message, Error = Error> + Send + Unpin) -> impl tokio::io::AsyncWrite + Send + Unpin {
    let sink = sink.with(|bytes: Bytes| future::ready(Ok::<_, Error>(Message::Binary(bytes))));
    SinkWriter::new(CopyToBytes::new(sink.sink_map_err(io::Error::other)))
}

async fn open(io: Io, role: Role) -> WebSocketStream<Io> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}
