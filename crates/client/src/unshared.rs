//! What stands for HTTP/2 connections in a client without the feature `http2`: no server is offered any, and there never is one.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::uri::Authority;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;

use crate::config::Config;

/// What a server is offered.
pub const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// A connection that there never is.
pub struct Shared(Infallible);

impl Shared {
    pub fn is_meant(_: &TlsStream<TcpStream>) -> bool {
        false
    }

    /// Never called: nothing is meant for it.
    pub async fn begin(
        _: TlsStream<TcpStream>,
        _: Duration,
        _: &Config,
        _: &Authority,
    ) -> hyper::Result<(Shared, BoxFuture<'static, ()>)> {
        unreachable!("no server chooses what it is not offered")
    }

    pub fn is_over(&self) -> bool {
        match self.0 {}
    }

    pub fn has_room(&self) -> bool {
        match self.0 {}
    }

    pub fn unsaid(&self) -> Option<watch::Receiver<Option<usize>>> {
        match self.0 {}
    }

    pub fn lease(&self) -> Stream {
        match self.0 {}
    }
}

/// The use of a connection that there never is.
pub struct Stream(Infallible);

impl Stream {
    pub async fn ready(&mut self) -> hyper::Result<()> {
        match self.0 {}
    }

    pub async fn send(
        &mut self,
        _: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match self.0 {}
    }

    pub fn gone(&self) -> BoxFuture<'static, ()> {
        match self.0 {}
    }

    pub fn asker(&self) -> Asker {
        match self.0 {}
    }
}

/// Asks on a connection that there never is.
pub struct Asker(Infallible);

impl Asker {
    pub async fn unless_gone<T>(self, _: impl Future<Output = T>) -> Option<T> {
        match self.0 {}
    }
}
