//! Answers: what a verb made, in the form the client takes. The one place with HTTP codes and headers of answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::{Status, codec};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use streams::upgrade::Lasting;
use tokio::time::Instant;

use crate::accept::{Accept, Media};
use crate::flow::Seat;
use crate::metrics::Living;

/// Answers of this size and above are compressed for clients that take gzip, in bytes.
pub const GZIP_BYTES_MIN: usize = 128 * 1024;

/// The codes that answers have outside of `Status`.
pub const SWITCHING_PROTOCOLS: u16 = 101;
pub const OK: u16 = 200;
pub const CREATED: u16 = 201;
pub const NOT_FOUND: u16 = 404;

/// Why a body broke off while it was sent.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer: whole, or made while it is sent.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What a verb answers.
pub enum Answer {
    /// One object, encoded as it is stored.
    Encoded { code: u16, json: Bytes },
    /// One object or document.
    Value { code: u16, value: Value },
    /// Something that has its own form already.
    Raw(Response<Body>),
}

impl Answer {
    pub fn ok(value: Value) -> Answer {
        Answer::Value { code: 200, value }
    }

    pub fn created(value: Value) -> Answer {
        Answer::Value { code: 201, value }
    }

    pub fn accepted(value: Value) -> Answer {
        Answer::Value { code: 202, value }
    }

    pub fn status(status: &Status) -> Answer {
        let code = if status.code == 0 { 200 } else { status.code };
        Answer::Value { code, value: status.to_value() }
    }

    pub fn text(code: u16, text: impl Into<Bytes>) -> Answer {
        Answer::Raw(raw(code, "text/plain; charset=utf-8", text))
    }
}

/// The response of an answer.
pub fn respond(answer: Answer, accept: Accept) -> Response<Body> {
    match answer {
        Answer::Raw(response) => response,
        Answer::Encoded { code, json } => match accept {
            Accept { media: Media::Json, pretty: false, .. } => encoded(code, Media::Json, with_newline(json)),
            // Another form of it: decode what was encoded here, which always works.
            _ => value(code, &serde_json::from_slice(&json).unwrap_or_default(), accept),
        },
        Answer::Value { code, value: object } => value(code, &object, accept),
    }
}

fn value(code: u16, value: &Value, accept: Accept) -> Response<Body> {
    let bytes = match accept {
        Accept { media: Media::Yaml, .. } => codec::to_yaml(value).into_bytes(),
        Accept { media: Media::Protobuf, .. } => match kinds::protobuf::encode(value) {
            Some(bytes) => bytes,
            // Nothing negotiates protobuf for what has no message.
            None => return self::value(code, value, Accept { media: Media::Json, ..accept }),
        },
        Accept { pretty: true, .. } => codec::to_pretty_json(value),
        _ => {
            let mut json = codec::value_to_json(value);
            json.push(b'\n');
            json
        }
    };
    encoded(code, accept.media, bytes.into())
}

fn encoded(code: u16, media: Media, bytes: Bytes) -> Response<Body> {
    raw(code, media.content_type(), bytes)
}

fn with_newline(json: Bytes) -> Bytes {
    let mut out = Vec::with_capacity(json.len() + 1);
    out.extend_from_slice(&json);
    out.push(b'\n');
    out.into()
}

/// A response with a body of a content type.
pub fn raw(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !content_type.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A failure as the client takes it.
pub fn failure(status: &Status, accept: Accept) -> Response<Body> {
    let mut response = respond(Answer::status(status), accept);
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A refusal for want of a seat, as text.
pub fn too_many_requests(retry_after_seconds: u32) -> Response<Body> {
    let mut response = raw(429, "text/plain; charset=utf-8", "Too many requests, please try again later.\n");
    response.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds.into());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A failure of which no object tells: text, with the path that was asked for.
pub fn internal_text(path: &str, why: &str) -> Response<Body> {
    let text = format!("Internal Server Error: {}: {why}\n", api::go::quote(path));
    // What is said may come from outside and end up in a browser.
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut response = raw(500, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What a request holds until its answer has been sent.
pub type Held = (Option<Seat>, Option<Living>);

/// A response whose body, where it is made while it is sent, breaks off at a deadline, if there is one, and holds on to
/// something until it has ended; one that gives the connection away holds on to it as long as that lasts.
pub fn held(response: Response<Body>, deadline: Option<Instant>, held: Held) -> Response<Body> {
    if let Some(lasting) = response.extensions().get::<Lasting>() {
        lasting.keep(held);
        return response;
    }
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let over = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
    response.map(|body| Timed { body, over, _held: held }.boxed_unsync())
}

/// A body with a deadline.
struct Timed {
    body: Body,
    over: Option<Pin<Box<tokio::time::Sleep>>>,
    _held: Held,
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over.as_mut().is_some_and(|over| over.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err("the request took too long".into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// `Warning` headers of a text, as RFC 7234 has them.
pub fn add_warnings(headers: &mut HeaderMap, texts: &[String]) {
    for text in texts {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
}

/// Bytes that were made once for all who ask, e.g. a discovery document.
pub fn shared(content_type: &'static str, bytes: &Arc<[u8]>) -> Response<Body> {
    raw(200, content_type, Bytes::from_owner(bytes.clone()))
}

/// Whether a client takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT_ENCODING);
    accepts.iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|clause| clause.split(';').next().is_some_and(|coding| coding.trim() == "gzip"))
    })
}

/// Compresses pieces of a body as they are made.
pub struct Gzip<I> {
    pieces: I,
    encoder: Option<flate2::write::GzEncoder<Vec<u8>>>,
}

impl<I: Iterator<Item = Bytes>> Gzip<I> {
    pub fn new(pieces: I) -> Gzip<I> {
        // The level the API server uses: speed matters more than the last byte.
        Gzip { pieces, encoder: Some(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast())) }
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Gzip<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        use std::io::Write;
        loop {
            let encoder = self.encoder.as_mut()?;
            let Some(piece) = self.pieces.next() else {
                let rest = self.encoder.take()?.finish().unwrap_or_default();
                return Some(rest.into());
            };
            // Writing to memory cannot fail.
            let _ = encoder.write_all(&piece);
            if !encoder.get_ref().is_empty() {
                return Some(std::mem::take(encoder.get_mut()).into());
            }
        }
    }
}
