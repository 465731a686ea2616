//! What is left of a request's body when the request has been answered: it is read and forgotten, within limits, so that a
//! client which writes all of its request before it reads learns the answer and not that its connection was closed. A body
//! that was read to its end costs nothing here. Knows nothing of requests' meaning.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Sleep;

use crate::gather::{Hold, Holds};
use crate::respond::{Body, BodyError};
use crate::serve::RequestBody;

/// Most bytes that are read of what is left so that an HTTP/1.1 connection serves the next request too, as Go's server
/// does, and the longest that takes. Beyond, the connection ends with the answer.
pub const KEPT_BYTES_MAX: usize = 256 << 10;
pub const KEPT_TIME_MAX: Duration = Duration::from_millis(500);
/// Most bytes that are read after an answer, and the longest that takes, before a stream or a connection is closed on a
/// client that is still sending.
pub const FORGOTTEN_BYTES_MAX: usize = 16 << 20;
pub const FORGOTTEN_TIME_MAX: Duration = Duration::from_secs(2);

/// Answers up to this size, in bytes, go out in one piece with their heads. It fits into every client's first window.
const WHOLE_BYTES_MAX: u64 = 16 << 10;

/// Where a body leaves what is left of it.
type Slot = Arc<Mutex<Option<Rest>>>;

/// A body as the server gets it, and the handle with which to settle what it leaves. None for a body that is empty.
pub fn watched(body: RequestBody) -> (RequestBody, Option<Left>) {
    if body.is_end_stream() {
        return (body, None);
    }
    let slot = Slot::default();
    let watched = Watched { body: Some(body), begun: false, slot: slot.clone() };
    (watched.boxed_unsync(), Some(Left(slot)))
}

/// Which body it is.
pub struct Left(Slot);

impl Left {
    /// The answer, sent so that the client sees it whatever it is still sending. `true` where the connection is to end with
    /// it and [`forget`] comes after.
    pub async fn settle(
        self,
        version: Version,
        expects: bool,
        holds: &Holds,
        response: Response<Body>,
    ) -> (Response<Body>, bool) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Rest { mut body, begun }) = rest else { return (response, false) };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return (response, false);
        }
        if version == Version::HTTP_2 {
            // The answer goes out at once; only its end waits. Its head does not go alone: curl gives up its body when it sees one that
            // refuses it, and ends the stream short of the length that it told. Such a request is malformed, so that the stream is
            // reset, and what of the answer is not on its way by then is lost.
            let hold =
                response.body().size_hint().exact().filter(|bytes| *bytes <= WHOLE_BYTES_MAX).map(|_| holds.hold());
            let closing = |answer| Closing { answer: Some(answer), hold, body, read: 0, over: None };
            return (response.map(|answer| closing(answer).boxed_unsync()), false);
        }
        // Reading would tell a client that waits for permission to send.
        let waits = expects && !begun;
        if !waits && tokio::time::timeout(KEPT_TIME_MAX, drain(&mut body)).await == Ok(true) {
            return (response, false);
        }
        let mut response = response;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        (response, true)
    }
}

/// Whether a client waits to be told before it sends its body.
pub fn expects(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Reads what comes after the last answer on a connection, until the client closes it or a limit is reached.
pub async fn forget(mut stream: impl AsyncRead + Unpin) {
    const PIECE_BYTES: usize = 16 << 10;
    let mut piece = vec![0; PIECE_BYTES];
    let mut read = 0;
    let all = async {
        while read < FORGOTTEN_BYTES_MAX {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => read += n,
            }
        }
    };
    let _ = tokio::time::timeout(FORGOTTEN_TIME_MAX, all).await;
}

/// Reads a body to its end; `false` where it is too long, or broke off.
async fn drain(body: &mut RequestBody) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > KEPT_BYTES_MAX {
            return false;
        }
    }
    true
}

/// What is left of a body, and whether any of it was asked for.
struct Rest {
    body: RequestBody,
    begun: bool,
}

/// A body that does not vanish when it is dropped before its end.
struct Watched {
    body: Option<RequestBody>,
    begun: bool,
    slot: Slot,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rest { body, begun: self.begun });
    }
}

/// The answer's body on a stream whose other half is still open: it ends when that does, or at a limit. The end of a
/// stream takes with it what was not read.
struct Closing {
    answer: Option<Body>,
    /// Until all of the answer has been handed on.
    hold: Option<Hold>,
    body: RequestBody,
    read: usize,
    over: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Closing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(answer) = &mut this.answer {
            match ready!(Pin::new(answer).poll_frame(cx)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(why)) => return Poll::Ready(Some(Err(why))),
                None => {
                    this.answer = None;
                    this.hold = None;
                }
            }
        }
        let over = this.over.get_or_insert_with(|| Box::pin(tokio::time::sleep(FORGOTTEN_TIME_MAX)));
        if over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        while this.read < FORGOTTEN_BYTES_MAX {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => this.read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.as_ref().map_or_else(|| SizeHint::with_exact(0), |answer| answer.size_hint())
    }
}
