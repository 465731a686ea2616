//! The border between a client and whatever carries its requests: HTTPS, a server in the same process, a table of answers in a test.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::error::{Error, Result};

/// The body of an answer. Its errors are those of [`Error`]; a stream's body ends when the server ends it.
pub type Body = UnsyncBoxBody<Bytes, Error>;

/// Carries one request and gives its answer. A request is a value, so that it can be sent again where that is safe.
///
/// The URI has a path and perhaps a query, no authority: where the server is, is the transport's knowledge, as is the
/// caller's identity (certificates, tokens). A status of 400 and above is an answer, not an error.
pub trait Transport: Send + Sync + 'static {
    /// Resolves when the answer's head is there; dropping the future or the body gives the request up.
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>>>;

    /// Carries a request that asks for another protocol (feature `remote`). With an answer of 101 comes the connection, which is the caller's.
    #[cfg(feature = "remote")]
    fn upgrade(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<Upgraded>> {
        let path = request.uri().path().to_string();
        Box::pin(async move { Err(Error::Request(format!("{path}: there is no connection here to be upgraded"))) })
    }

    /// Makes the connection that the next request would make, where there is none yet.
    ///
    /// # Errors
    /// Those that a request would have had before it was sent.
    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Where requests go, for messages.
    fn server(&self) -> String {
        "the API server".to_string()
    }
}

/// The answer to a request for another protocol, and the connection if it was granted.
#[cfg(feature = "remote")]
pub type Upgraded = (http::Response<Body>, Option<streams::Io>);

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>>> {
        (**self).send(request)
    }

    #[cfg(feature = "remote")]
    fn upgrade(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<Upgraded>> {
        (**self).upgrade(request)
    }

    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        (**self).connect()
    }

    fn server(&self) -> String {
        (**self).server()
    }
}

/// Put into a request's extensions where the head of the answer may take as long as it likes: servers send that of a log
/// which is followed with its first line.
#[derive(Clone, Copy, Debug)]
pub struct Unhurried;

/// A body of bytes that are all here.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
