//! A stream whose other end must begin to speak, and must take what it is sent: patience has an end. Knows no protocol.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// From the handshake to the first byte of a request.
pub const FIRST_BYTE_TIME_MAX: Duration = Duration::from_secs(32);
/// Without a single byte taken of what is being sent.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// Ends the limits of a [`Patient`]: whoever takes the connection over has limits of its own.
#[derive(Clone, Debug, Default)]
pub struct Limits(Arc<AtomicBool>);

impl Limits {
    pub fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A stream with limits in time. Costs nothing while bytes flow.
pub struct Patient<S> {
    stream: S,
    limits: Limits,
    /// Until the first byte came.
    silent: Option<Pin<Box<Sleep>>>,
    /// Since a write had to wait.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub fn new(stream: S, limits: Limits) -> Patient<S> {
        Patient { stream, limits, silent: Some(Box::pin(sleep(FIRST_BYTE_TIME_MAX))), stalled: None }
    }

    /// What became of a write: where it has to wait, it does so for a limited time.
    fn written<T>(&mut self, cx: &mut Context<'_>, done: Poll<Result<T>>) -> Poll<Result<T>> {
        if done.is_ready() || self.limits.0.load(Ordering::Relaxed) {
            self.stalled = None;
            return done;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_TIME_MAX)));
        stalled.as_mut().poll(cx).map(|()| Err(Error::new(ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        if done.is_ready() {
            self.silent = None;
        }
        match self.silent.as_mut().map(|silent| silent.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client asks for nothing"))),
            _ => done,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, done)
    }
}
