//! Connections: TLS, HTTP/1.1 and HTTP/2, and the plain-HTTP client that is told what it did. Knows nothing of requests'
//! meaning.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use streams::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::authn::{User, front_proxy, x509};
use crate::gather::{Holds, gather};
use crate::patient::{Limits, Patient};
use crate::respond::BodyError;
use crate::serve::serve;
use crate::state::State;
use crate::unread;

/// Connections that are served at the same time; more wait.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Requests at a time on one HTTP/2 connection: enough for a client with hundreds of watches.
pub const HTTP2_STREAMS_MAX: u32 = 1000;
/// From the first byte to the end of the TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// From the first byte of a request's head to its last, in HTTP/1.1.
const HEAD_TIME_MAX: Duration = Duration::from_secs(32);
/// How long requests may take to end when the server stops.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);
/// The windows and frames of HTTP/2, in bytes, as the API server sets them.
const HTTP2_WINDOW_BYTES: u32 = 256 * 1024;
/// All headers of a request together, in bytes.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// After a failure to accept (out of files, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end.
#[derive(Clone, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    pub certificate: x509::Peer,
    pub proxy: front_proxy::Peer,
    /// The identity of a caller in this very process, which needs no proof.
    pub internal: Option<Arc<User>>,
}

/// Takes connections as they come and serves them.
#[derive(Clone)]
pub struct Front {
    state: Arc<State>,
    seats: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Front {
    pub fn new(state: Arc<State>, tasks: TaskTracker) -> Front {
        Front { seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)), state, tasks }
    }

    /// Serves a listener until the server stops.
    pub fn listen(&self, listener: TcpListener) {
        let front = self.clone();
        self.tasks.spawn(async move {
            // What tells requests apart is made while other things start: the first request from outside finds it there.
            tokio::select! {
                () = front.state.stopping.cancelled() => return,
                () = front.state.flow.made.cancelled() => {}
            }
            loop {
                let accepted = tokio::select! {
                    () = front.state.stopping.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, address)) => front.take(stream, address).await,
                    Err(why) => {
                        tracing::warn!(%why, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }

    /// Serves one connection that somebody else accepted, in a task of this server.
    pub async fn take(&self, stream: TcpStream, address: SocketAddr) {
        let Ok(seat) = self.seats.clone().acquire_owned().await else { return };
        // Small answers must not wait for an acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let front = self.clone();
        self.tasks.spawn(async move {
            let _seat = seat;
            if let Err(why) = front.serve(stream, address).await {
                tracing::debug!(%why, %address, "a connection ended");
            }
        });
    }

    /// Serves one connection to its end, in the task of the caller.
    pub async fn serve_connection(&self, stream: TcpStream, address: SocketAddr) {
        let Ok(_seat) = self.seats.acquire().await else { return };
        let _ = stream.set_nodelay(true);
        if let Err(why) = self.serve(stream, address).await {
            tracing::debug!(%why, %address, "a connection ended");
        }
    }

    async fn serve(&self, stream: TcpStream, address: SocketAddr) -> Result<(), BodyError> {
        /// The first byte of a TLS handshake.
        const HANDSHAKE: u8 = 22;
        let mut first = [0; 1];
        let peeked = tokio::time::timeout(HANDSHAKE_TIME_MAX, stream.peek(&mut first)).await??;
        if peeked == 0 {
            return Ok(());
        }
        if first[0] != HANDSHAKE {
            return refuse_plain(stream).await;
        }
        let ours = self.state.pki.certificates().clone();
        let acceptor = TlsAcceptor::from(ours.server_config().clone());
        let accepted = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await;
        if !matches!(accepted, Ok(Ok(_))) {
            self.state.metrics.tls_failures.fetch_add(1, Ordering::Relaxed);
        }
        let stream = accepted??;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let now = jiff::Timestamp::now().as_second();
        let certificate = ours.clients().identify(certificates, now);
        let proxy = self.state.authenticator.front_proxy.as_ref();
        let proxy = proxy.map_or_else(Default::default, |proxy| proxy.identify(certificates, now));
        let peer = Peer { address: Some(address), certificate, proxy, internal: None };
        self.serve_http(stream, peer).await
    }

    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) -> Result<(), BodyError> {
        let peer = Arc::new(peer);
        let state = self.state.clone();
        let limits = Limits::default();
        let upgraded = limits.clone();
        // The connection ends with an answer to a request whose body was not read.
        let lingers = Arc::new(AtomicBool::new(false));
        let linger = lingers.clone();
        let holds = Holds::default();
        let held = holds.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (state, peer, linger, limits) = (state.clone(), peer.clone(), linger.clone(), upgraded.clone());
            let holds = held.clone();
            async move {
                let (version, expects) = (request.version(), unread::expects(request.headers()));
                let (head, body) = upgradable(request, limits).into_parts();
                let (body, left) = unread::watched(body.map_err(BodyError::from).boxed_unsync());
                let response = serve(&state, &peer, http::Request::from_parts(head, body)).await;
                let Some(left) = left else { return Ok::<_, std::convert::Infallible>(response) };
                let (response, ends) = left.settle(version, expects, &holds, response).await;
                linger.fetch_or(ends, Ordering::Relaxed);
                Ok(response)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEADER_BYTES_MAX as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES * 16)
            .max_frame_size(HTTP2_WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX);
        let (stream, mut turns) = gather(Patient::new(stream, limits), holds);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            ended = turns.run(|cx| connection.as_mut().poll(cx)) => {
                if ended.is_ok() && lingers.load(Ordering::Relaxed) {
                    tokio::select! {
                        () = unread::forget(&mut turns) => {}
                        () = self.state.stopping.cancelled() => {}
                    }
                }
                return ended;
            }
            () = self.state.stopping.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        match tokio::time::timeout(STOP_TIME_MAX, turns.run(|cx| connection.as_mut().poll(cx))).await {
            Ok(ended) => ended,
            Err(_) => Ok(()),
        }
    }
}

/// Puts the connection into the request in the form that those know it in who may take it over.
fn upgradable<B>(mut request: http::Request<B>, limits: Limits) -> http::Request<B> {
    if let Some(connection) = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>() {
        let connection = async move {
            limits.end();
            let upgraded = connection.await.map_err(std::io::Error::other)?;
            Ok(Box::new(TokioIo::new(upgraded)) as streams::Io)
        };
        request.extensions_mut().insert(OnUpgrade::new(connection));
    }
    request
}

/// A client that speaks plain HTTP learns so, in Go's words, and is let go.
async fn refuse_plain(mut stream: TcpStream) -> Result<(), BodyError> {
    const TEXT: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    const REQUEST_BYTES_MAX: usize = 4096;
    // Reading what was sent keeps the answer from being lost to a reset.
    let mut request = [0; REQUEST_BYTES_MAX];
    let _ = tokio::time::timeout(HANDSHAKE_TIME_MAX, stream.read(&mut request)).await?;
    stream.write_all(TEXT).await?;
    stream.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::{Options, Server};

    /// What becomes of a connection on which a client sends this and then nothing: what it was answered, the first line of
    /// each answer, and after how many seconds it was let go. The clock is the test's: it moves on when everybody waits for it.
    async fn check(sent: &[u8], read_all: bool, want: &str, want_seconds: std::ops::RangeInclusive<u64>) {
        let server = Server::start(Options::default()).await.unwrap();
        let body = "x".repeat(1 << 20);
        let map = serde_json::json!({"metadata": {"name": "large"}, "data": {"x": body}});
        let request = http::Request::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .body(http_body_util::Full::from(map.to_string()).map_err(|never| match never {}).boxed_unsync());
        let admin = Arc::new(User::new("admin", [crate::authn::MASTERS]));
        assert_eq!(Server::call(server.state(), admin.clone(), request.unwrap()).await.status(), 201);
        let (mut client, stream): (DuplexStream, DuplexStream) = tokio::io::duplex(4096);
        client.write_all(sent).await.unwrap();
        let began = tokio::time::Instant::now();
        let peer = Peer { internal: Some(admin), ..Peer::default() };
        let front = server.front();
        let serving = tokio::spawn(async move { front.serve_http(stream, peer).await });
        let mut answer = Vec::new();
        if read_all {
            let _ = client.read_to_end(&mut answer).await;
            // Who has its answers goes.
            let _ = client.shutdown().await;
        }
        let _ = serving.await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with("HTTP/")).collect();
        assert_eq!(lines.join(", "), want);
        let seconds = began.elapsed().as_secs();
        assert!(want_seconds.contains(&seconds), "after {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_is_let_go() {
        check(b"", true, "", 31..=33).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_a_head_is_let_go() {
        check(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ", true, "", 31..=33).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_a_body_is_told_that_it_is_late() {
        let sent = b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{";
        check(sent, true, "HTTP/1.1 504 Gateway Timeout", 59..=61).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_how_long_it_waits_is_answered_by_then() {
        let sent = b"POST /api/v1/namespaces/default/configmaps?timeout=5s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{";
        check(sent, true, "HTTP/1.1 504 Gateway Timeout", 4..=6).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_is_passed_over() {
        let sent = b"POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        check(sent, true, "HTTP/1.1 404 Not Found, HTTP/1.1 200 OK", 0..=0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_and_nobody_sends_ends_the_connection() {
        let sent = b"POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
        check(sent, true, "HTTP/1.1 404 Not Found", 0..=1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_to_send_is_not_told_to() {
        let sent = b"POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
        check(sent, true, "HTTP/1.1 404 Not Found", 0..=0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_let_go() {
        check(b"GET /api/v1/configmaps HTTP/1.1\r\nHost: a\r\n\r\n", false, "", 59..=61).await;
    }
}
