//! Gathers what a connection writes and sends it when the tasks that are ready to run have run, so that the events of a
//! hundred watches are a few large writes and not a hundred small ones. Who is about to write several things that belong together
//! holds all of it back until they are there. Outside of turns (a connection that was upgraded) it passes everything on at once.
//! Knows no protocol.

use std::future::poll_fn;
use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bytes that wait; more are sent at once.
const GATHERED_BYTES_MAX: usize = 128 * 1024;
/// A single write of this size gains nothing by waiting.
const LARGE_WRITE_BYTES: usize = 64 * 1024;
/// Room that is kept between turns.
const ROOM_BYTES_KEPT: usize = 16 * 1024;

/// The longest that anything is held back.
const HELD_TIME_MAX: Duration = Duration::from_secs(1);

/// Who holds back what a connection writes. Its copies are one.
#[derive(Clone, Default)]
pub struct Holds(Arc<HoldsInner>);

#[derive(Default)]
struct HoldsInner {
    count: AtomicUsize,
    turns: AtomicWaker,
}

/// Nothing is sent before it is dropped, or too much waits, or for too long.
pub struct Hold(Holds);

impl Holds {
    pub fn hold(&self) -> Hold {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        Hold(self.clone())
    }

    /// Waits until nobody holds anything back, or the limit, which is set with the first look.
    fn poll_free(&self, limit: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
        let is_free = || self.0.count.load(Ordering::SeqCst) == 0;
        if !is_free() {
            self.0.turns.register(cx.waker());
            if !is_free() {
                return limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(HELD_TIME_MAX))).as_mut().poll(cx);
            }
        }
        *limit = None;
        Poll::Ready(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.0.turns.wake();
    }
}

/// A stream whose writes are gathered.
pub struct Gathered<S>(Arc<Mutex<Inner<S>>>);

/// The other handle on the same stream: it says when turns begin and end.
pub struct Turns<S>(Arc<Mutex<Inner<S>>>, Holds);

struct Inner<S> {
    stream: S,
    waiting: Vec<u8>,
    /// Of those that wait, how many were sent.
    sent: usize,
    in_turn: bool,
    /// What waits has waited for one turn.
    put_off: bool,
}

pub fn gather<S>(stream: S, holds: Holds) -> (Gathered<S>, Turns<S>) {
    let inner = Arc::new(Mutex::new(Inner { stream, waiting: Vec::new(), sent: 0, in_turn: false, put_off: false }));
    (Gathered(inner.clone()), Turns(inner, holds))
}

impl<S: AsyncWrite + Unpin> Turns<S> {
    /// Runs the task that writes to the stream to its end, turn by turn.
    pub async fn run<T, E: From<Error>>(
        &self,
        mut task: impl FnMut(&mut Context<'_>) -> Poll<std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let mut done = None;
        let mut limit = None;
        poll_fn(|cx| {
            if done.is_none() {
                lock(&self.0).in_turn = true;
                if let Poll::Ready(ended) = task(cx) {
                    done = Some(ended);
                }
            }
            let mut inner = lock(&self.0);
            inner.in_turn = false;
            // Whoever is ready to write has its turn first; the scheduler puts who wakes itself behind them.
            if done.is_none() && !inner.waiting.is_empty() && !std::mem::replace(&mut inner.put_off, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if done.is_none() && !inner.waiting.is_empty() && self.1.poll_free(&mut limit, cx).is_pending() {
                return Poll::Pending;
            }
            inner.put_off = false;
            // What the task has left is sent, whatever became of it.
            let sent = inner.flush(cx);
            match (done.take(), sent) {
                (Some(ended), Poll::Ready(_)) => Poll::Ready(ended),
                (None, Poll::Ready(Err(why))) => Poll::Ready(Err(why.into())),
                (waits, _) => {
                    done = waits;
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    /// Sends what waits.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.sent < self.waiting.len() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.sent = 0;
        self.waiting.clear();
        if self.waiting.capacity() > ROOM_BYTES_KEPT {
            self.waiting = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

/// What comes after the task has ended, and would be lost with the stream.
impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let inner = &mut *lock(&self.0);
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        if !inner.in_turn || bytes >= LARGE_WRITE_BYTES || inner.waiting.len() + bytes > GATHERED_BYTES_MAX {
            ready!(inner.drain(cx))?;
        }
        if !inner.in_turn || bytes >= LARGE_WRITE_BYTES {
            return Pin::new(&mut inner.stream).poll_write_vectored(cx, pieces);
        }
        pieces.iter().for_each(|piece| inner.waiting.extend_from_slice(piece));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let inner = &mut *lock(&self.0);
        match inner.in_turn {
            true => Poll::Ready(Ok(())),
            false => inner.flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let inner = &mut *lock(&self.0);
        ready!(inner.drain(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

/// One task has both handles: the lock is always free. A panic in a write leaves nothing that anybody goes on with.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Writes that are seen one by one.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<usize>>>);

    impl AsyncWrite for Seen {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
            lock(&self.0).push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Makes writes of these sizes, each of which is flushed, in one turn; then one more outside. What was written where.
    #[track_caller]
    fn check(sizes: &[usize], want: &[usize]) {
        let seen = Seen::default();
        let (mut gathered, turns) = gather(seen.clone(), Holds::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut task = Box::pin(async {
                for size in sizes {
                    gathered.write_all(&vec![0; *size]).await?;
                    gathered.flush().await?;
                }
                Ok::<(), Error>(())
            });
            turns.run(|cx| task.as_mut().poll(cx)).await.unwrap();
            drop(task);
            gathered.write_all(&[0; 7]).await.unwrap();
        });
        assert_eq!(*lock(&seen.0), [want, &[7]].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_goes_with_what_follows() {
        // Until it is let go, and until it has been held for too long.
        for (let_go, want) in [(true, vec![30]), (false, vec![10, 20])] {
            let (seen, holds) = (Seen::default(), Holds::default());
            let (mut gathered, turns) = gather(seen.clone(), holds.clone());
            let hold = holds.hold();
            let (tell, told) = tokio::sync::oneshot::channel::<()>();
            let mut task = Box::pin(async {
                gathered.write_all(&[0; 10]).await?;
                gathered.flush().await?;
                let _ = told.await;
                gathered.write_all(&[0; 20]).await
            });
            let mut hold = Some(hold);
            let holder = async {
                match let_go {
                    true => tokio::time::sleep(HELD_TIME_MAX / 2).await,
                    false => tokio::time::sleep(HELD_TIME_MAX * 2).await,
                }
                assert_eq!(lock(&seen.0).is_empty(), let_go);
                let _ = tell.send(());
                hold.take();
            };
            let (ended, ()) = tokio::join!(turns.run(|cx| task.as_mut().poll(cx)), holder);
            ended.unwrap();
            assert_eq!(*lock(&seen.0), want);
        }
    }

    #[test]
    fn small_writes_of_a_turn_become_one() {
        check(&[10, 20, 30], &[60]);
        check(&[], &[]);
    }

    #[test]
    fn large_writes_do_not_wait_and_keep_their_place() {
        check(&[10, LARGE_WRITE_BYTES, 20], &[10, LARGE_WRITE_BYTES, 20]);
        let most = LARGE_WRITE_BYTES - 1;
        check(&[most, most, most], &[2 * most, most]);
    }
}
