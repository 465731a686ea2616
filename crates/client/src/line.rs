//! Whether there is still somebody at the other end of an HTTP/2 connection: what is heard on it, and a small question where a read
//! waits in silence. Decides nothing about requests that change something: they wait as long as the connection does.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a read waits at least while nothing at all comes before the server is asked for a sign of life, and for that again
/// before it is taken for gone. A dead connection is found well within a second so; one whose server is slow answers the question.
const SILENCE_MIN: Duration = Duration::from_millis(350);
/// Where the way is long, or the server slow to be reached: so many times what it took to connect, ..
const SILENCE_TIMES: u32 = 3;
/// .. up to this.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Between two questions while the server answers them and not the read: as long as the waiting has been, and no longer than this.
const QUESTIONS_APART_MAX: Duration = Duration::from_secs(10);
/// What every API server answers at once, if only with a refusal.
const QUESTION: &str = "/livez/ping";

/// One connection, as those know it who wait for something on it.
pub struct Line {
    /// Bytes that came.
    heard: AtomicU64,
    gone: watch::Sender<bool>,
    silence: Duration,
    /// What is asked for a sign of life.
    question: Uri,
}

impl Line {
    /// `took`: to connect, some round trips. `question`: where a sign of life is asked for.
    pub fn new(took: Duration, question: Uri) -> Line {
        let silence = (took * SILENCE_TIMES).clamp(SILENCE_MIN, SILENCE_MAX);
        Line { heard: AtomicU64::new(0), gone: watch::Sender::new(false), silence, question }
    }

    /// Whether anything has come on it yet.
    pub fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) > 0
    }

    /// Nobody answered on it: nothing new is to be sent there.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Resolves when the connection is taken for gone.
    pub fn gone(&self) -> BoxFuture<'static, ()> {
        let mut gone = self.gone.subscribe();
        Box::pin(async move {
            if gone.wait_for(|gone| *gone).await.is_err() {
                // It ended with its line, as it should.
                pending().await
            }
        })
    }

    /// What `sending` gives; `None` where nothing was heard at all, not even an answer to a question that costs nothing.
    pub async fn unless_gone<T>(
        &self,
        sending: impl Future<Output = T>,
        mut sender: SendRequest<Full<Bytes>>,
    ) -> Option<T> {
        let mut sending = pin!(sending);
        let mut patience = self.silence;
        loop {
            let before = self.heard.load(Ordering::Relaxed);
            let silent = || self.heard.load(Ordering::Relaxed) == before;
            if let Ok(sent) = timeout(patience, &mut sending).await {
                return Some(sent);
            }
            if !silent() {
                continue;
            }
            let mut question = Request::new(Full::default());
            *question.uri_mut() = self.question.clone();
            let mut asking = pin!(sender.send_request(question));
            let either = poll_fn(|cx| match sending.as_mut().poll(cx) {
                Poll::Ready(sent) => Poll::Ready(Some(sent)),
                Poll::Pending => asking.as_mut().poll(cx).map(|_| None),
            });
            match timeout(self.silence, either).await {
                Ok(Some(sent)) => return Some(sent),
                Ok(None) => patience = (patience * 2).min(QUESTIONS_APART_MAX.max(self.silence)),
                Err(_) if silent() => {
                    tracing::debug!("nothing is heard on a connection; reads go on on another");
                    self.gone.send_replace(true);
                    return None;
                }
                Err(_) => {}
            }
        }
    }
}

/// Where the question goes, on the server with this authority.
pub fn question(authority: &str, base_path: &str) -> Uri {
    format!("https://{authority}{base_path}{QUESTION}").parse().unwrap_or_default()
}

/// A stream whose reader's line hears each byte that comes.
pub struct Heard<S> {
    pub stream: S,
    pub line: Arc<Line>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.line.heard.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
