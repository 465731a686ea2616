//! HTTP/2 connections: many requests at a time on one, as many as its server allows. Knows neither tokens nor certificates, and
//! opens nothing: it begins with a stream that is there.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::uri::Authority;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;

use crate::config::Config;
use crate::line::{self, Heard, Line};

/// What a server is offered, the first first.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Most streams on one connection, whatever the server allows; a further one opens the next connection.
const STREAMS_PER_CONNECTION_MAX: usize = 1000;
/// Streams on a connection before its server has said how many it allows.
const STREAMS_FIRST: usize = 100;
/// Flow control: enough for a large list at full speed over a long way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A connection. Each request and its answer hold a clone of `streams`.
pub struct Shared {
    sender: SendRequest<Full<Bytes>>,
    streams: Arc<()>,
    /// How many streams the server allows, as it last said; `None` before it has said anything.
    allowed: watch::Receiver<Option<usize>>,
    line: Arc<Line>,
}

impl Shared {
    /// Whether the server chose this for a stream.
    pub fn is_meant(stream: &TlsStream<TcpStream>) -> bool {
        stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0])
    }

    /// Begins a connection, which took so long to be opened. Lives as long as what is given beside it is driven.
    pub async fn begin(
        stream: TlsStream<TcpStream>,
        took: Duration,
        config: &Config,
        authority: &Authority,
    ) -> hyper::Result<(Shared, BoxFuture<'static, ()>)> {
        let line = Arc::new(Line::new(took, line::question(authority.as_str(), &config.server.base_path)));
        let (sender, mut connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(config.timeouts.ping_every)
            .keep_alive_timeout(config.timeouts.ping)
            // One that died while nobody used it is gone before somebody does.
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(Heard { stream, line: line.clone() }))
            .await?;
        let (said, allowed) = watch::channel(None);
        let shared = Shared { sender, streams: Arc::new(()), allowed, line: line.clone() };
        let driver = poll_fn(move |cx| {
            let done = std::pin::Pin::new(&mut connection).poll(cx).map(drop);
            let now = line.has_heard().then(|| connection.current_max_send_streams());
            said.send_if_modified(|last| std::mem::replace(last, now) != now);
            done
        });
        Ok((shared, Box::pin(driver)))
    }

    /// Whether nothing new is to be sent on it.
    pub fn is_over(&self) -> bool {
        self.sender.is_closed() || self.line.is_gone()
    }

    /// Whether it takes a further request.
    pub fn has_room(&self) -> bool {
        // Whoever waits for the server's leave to open a stream waits for the watches before it, which never end.
        let most = self.allowed.borrow().unwrap_or(STREAMS_FIRST).min(STREAMS_PER_CONNECTION_MAX);
        Arc::strong_count(&self.streams) - 1 < most
    }

    /// Where it is heard how many streams the server allows, if it has not said so yet.
    pub fn unsaid(&self) -> Option<watch::Receiver<Option<usize>>> {
        self.allowed.borrow().is_none().then(|| self.allowed.clone())
    }

    /// Its use for one request.
    pub fn lease(&self) -> Stream {
        Stream { sender: self.sender.clone(), _stream: self.streams.clone(), line: self.line.clone() }
    }
}

/// The use of a connection for one request and its answer.
pub struct Stream {
    sender: SendRequest<Full<Bytes>>,
    _stream: Arc<()>,
    line: Arc<Line>,
}

impl Stream {
    /// Waits until the connection takes a request.
    pub async fn ready(&mut self) -> hyper::Result<()> {
        self.sender.ready().await
    }

    /// Sends it; what could not be sent comes back with the error.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        self.sender.try_send_request(request).await
    }

    /// Resolves when the connection is taken for gone.
    pub fn gone(&self) -> BoxFuture<'static, ()> {
        self.line.gone()
    }

    /// What asks for a sign of life beside the request.
    pub fn asker(&self) -> Asker {
        Asker { sender: self.sender.clone(), line: self.line.clone() }
    }
}

/// Asks on a connection for a sign of life.
pub struct Asker {
    sender: SendRequest<Full<Bytes>>,
    line: Arc<Line>,
}

impl Asker {
    /// What `sending` gives; `None` where nothing was heard at all, not even an answer to a question that costs nothing.
    pub async fn unless_gone<T>(self, sending: impl Future<Output = T>) -> Option<T> {
        self.line.unless_gone(sending, self.sender).await
    }
}
