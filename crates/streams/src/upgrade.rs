//! What a request wants its connection to become, and the answer to it, in the words of the servers that Kubernetes has there.
//! Also the connection itself, which comes once the answer has been sent.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::websocket::Protocol;
use crate::{IDLE_TIME_MAX, Io};

/// The SPDY of exec, attach and port-forward.
pub const SPDY: &str = "SPDY/3.1";
/// The header with the protocols that a client speaks over SPDY, the best first, and with the one chosen.
pub const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const ACCEPTED_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";
const WEBSOCKET_VERSION: &str = "13";

/// The headers of a request that are about its connection: a proxy passes them on.
pub const HEADERS: [http::HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    http::HeaderName::from_static(STREAM_PROTOCOL),
];

/// What a server offers on one path.
pub struct Offers {
    /// WebSocket subprotocols.
    pub websocket: &'static [Protocol],
    /// The WebSocket subprotocol that carries SPDY.
    pub tunnel: Option<&'static str>,
    /// Protocols over SPDY, the best first.
    pub spdy: &'static [&'static str],
}

/// What was agreed on.
#[derive(Clone, Copy, Debug)]
pub enum Agreed {
    /// WebSocket messages, each of one channel.
    WebSocket(&'static Protocol),
    /// SPDY in WebSocket messages.
    Tunnel,
    /// SPDY, with this protocol.
    Spdy(&'static str),
}

/// Why a connection stays as it is: an answer in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of the answer.
    pub code: StatusCode,
    /// Its text.
    pub text: String,
    /// Headers of it.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    fn new(code: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into(), headers: Vec::new() }
    }
}

/// Whether a request wants its connection to become another.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| lower(value).contains("upgrade"))
}

/// Whether it wants a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && headers.get(header::UPGRADE).is_some_and(|value| lower(value) == "websocket")
}

/// Whether it wants a WebSocket with this subprotocol.
pub fn is_websocket_with(headers: &HeaderMap, subprotocol: &str) -> bool {
    is_websocket(headers) && listed(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str()).any(|name| name == subprotocol)
}

fn lower(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase()
}

/// The values of a header that are a list, whether in one line or several.
fn listed<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// Agrees with a client on what its connection becomes, and answers it so.
///
/// # Errors
/// The answer to a request that does not ask for anything that is offered.
pub fn agree(method: &Method, headers: &HeaderMap, offers: &Offers) -> Result<(Response<()>, Agreed), Refusal> {
    match is_websocket(headers) {
        true => agree_on_websocket(method, headers, offers),
        false => agree_on_spdy(headers, offers),
    }
}

fn agree_on_websocket(
    method: &Method,
    headers: &HeaderMap,
    offers: &Offers,
) -> Result<(Response<()>, Agreed), Refusal> {
    if method != Method::GET {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "bad method"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "mismatch challenge/response"));
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != WEBSOCKET_VERSION) {
        let headers = vec![("sec-websocket-version", WEBSOCKET_VERSION.to_string())];
        let text = "missing or bad WebSocket Version";
        return Err(Refusal { headers, ..Refusal::new(StatusCode::BAD_REQUEST, text) });
    }
    let mut wanted = listed(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str()).peekable();
    let named = |name: &str| offers.websocket.iter().find(|protocol| protocol.name == name).map(Agreed::WebSocket);
    let agreed = match wanted.peek() {
        None => named("").map(|agreed| ("", agreed)),
        Some(_) => wanted.find_map(|name| match offers.tunnel {
            Some(tunnel) if tunnel == name => Some((name, Agreed::Tunnel)),
            _ => named(name).map(|agreed| (name, agreed)),
        }),
    };
    let Some((name, agreed)) = agreed else { return Err(Refusal::new(StatusCode::FORBIDDEN, "")) };
    let mut response = switching("websocket");
    let accept = derive_accept_key(key.as_bytes());
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&accept).ok().map(|value| (header::SEC_WEBSOCKET_ACCEPT, value)));
    if !name.is_empty() {
        headers.extend(HeaderValue::from_str(name).ok().map(|value| (header::SEC_WEBSOCKET_PROTOCOL, value)));
    }
    Ok((response, agreed))
}

fn agree_on_spdy(headers: &HeaderMap, offers: &Offers) -> Result<(Response<()>, Agreed), Refusal> {
    const NAME: &str = "X-Stream-Protocol-Version";
    if !headers.contains_key(STREAM_PROTOCOL) {
        let count = headers.keys_len();
        let text = format!("unable to upgrade: header {NAME} does not exist in request with {count} headers\n");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let wanted: Vec<&str> = listed(headers, STREAM_PROTOCOL).collect();
    if wanted.is_empty() {
        let text = format!("unable to upgrade: header {NAME} contains [], but no valid protocols\n");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let agreed = wanted.iter().find_map(|name| offers.spdy.iter().find(|offered| *offered == name));
    let Some(agreed) = agreed else {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]\n",
            wanted.join(" "),
            offers.spdy.join(" ")
        );
        let headers = offers.spdy.iter().map(|name| (ACCEPTED_PROTOCOLS, (*name).to_string())).collect();
        return Err(Refusal { headers, ..Refusal::new(StatusCode::FORBIDDEN, text) });
    };
    if !headers.get(header::UPGRADE).is_some_and(|value| lower(value).contains("spdy/3.1")) {
        let text = "unable to upgrade: missing upgrade headers in request: ask for SPDY/3.1 or websocket\n";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let mut response = switching(SPDY);
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(agreed));
    Ok((response, Agreed::Spdy(agreed)))
}

fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(to));
    response
}

/// Asks for a WebSocket with a subprotocol, and gives the key that the answer is to be checked with.
pub fn ask(headers: &mut HeaderMap, subprotocol: &'static str) -> String {
    let key = generate_key();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(WEBSOCKET_VERSION));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    headers.extend(HeaderValue::from_str(&key).ok().map(|value| (header::SEC_WEBSOCKET_KEY, value)));
    key
}

/// Whether an answer of 101 is one to [`ask`].
///
/// # Errors
/// What is wrong with it.
pub fn check(headers: &HeaderMap, key: &str, subprotocol: &str) -> Result<(), String> {
    let is = |name: header::HeaderName, want: &str| headers.get(name).is_some_and(|value| value == want);
    if !is(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes())) {
        return Err("the server's answer to the WebSocket handshake is not one to ours".into());
    }
    match is(header::SEC_WEBSOCKET_PROTOCOL, subprotocol) {
        true => Ok(()),
        false => Err(format!("the server does not speak {subprotocol}: it is older than Kubernetes 1.30")),
    }
}

/// In a request's extensions: its connection, which comes once it was answered with 101.
#[derive(Clone)]
pub struct OnUpgrade(Arc<Mutex<Option<BoxFuture<'static, io::Result<Io>>>>>);

impl OnUpgrade {
    /// Gives what the future gives.
    pub fn new(connection: impl Future<Output = io::Result<Io>> + Send + 'static) -> OnUpgrade {
        OnUpgrade(Arc::new(Mutex::new(Some(Box::pin(connection)))))
    }

    /// The connection; once.
    pub async fn connection(&self) -> io::Result<Io> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match taken {
            Some(coming) => coming.await,
            None => Err(io::Error::other("the connection was taken before")),
        }
    }
}

/// What lasts as long as a connection that was upgraded: whatever is put in goes when the connection does. Clones are the same.
#[derive(Clone, Default)]
pub struct Lasting(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

impl Lasting {
    /// Keeps something until then.
    pub fn keep(&self, what: impl Any + Send) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(what));
    }
}

impl OnUpgrade {
    /// The same connection, and what can be kept until it ends.
    pub fn lasting(self) -> (OnUpgrade, Lasting) {
        let lasting = Lasting::default();
        let kept = lasting.clone();
        let connection = async move {
            let io = self.connection().await?;
            Ok(Box::new(Lasts { io, _kept: kept }) as Io)
        };
        (OnUpgrade::new(connection), lasting)
    }
}

struct Lasts {
    io: Io,
    _kept: Lasting,
}

impl AsyncRead for Lasts {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lasts {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for OnUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnUpgrade")
    }
}

/// When something was last read or written.
pub(crate) struct Idle(Mutex<Instant>);

impl Default for Idle {
    fn default() -> Idle {
        Idle(Mutex::new(Instant::now()))
    }
}

impl Idle {
    pub fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing happened for [`IDLE_TIME_MAX`].
    pub async fn over(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + IDLE_TIME_MAX;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote_command;

    /// Headers, one a line; what is answered, in one line.
    #[track_caller]
    fn check(headers: &str, want: &str) {
        let mut map = HeaderMap::new();
        for line in headers.lines() {
            let (name, value) = line.trim().split_once(": ").unwrap();
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let got = match agree(&Method::GET, &map, &remote_command::OFFERS) {
            Ok((response, _)) => {
                let shown = response.headers().iter().filter(|(name, _)| *name != header::CONNECTION);
                let shown: Vec<_> = shown.map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
                format!("101 {}", shown.join(" "))
            }
            Err(refusal) => format!("{} {}", refusal.code.as_u16(), refusal.text.trim_end()),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn websockets() {
        let base = "connection: keep-alive, Upgrade\nupgrade: WebSocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        let accept = "101 upgrade=websocket sec-websocket-accept=s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        check(base, accept);
        let with = |protocols: &str| format!("{base}\nsec-websocket-protocol: {protocols}");
        check(&with("v5.channel.k8s.io"), &format!("{accept} sec-websocket-protocol=v5.channel.k8s.io"));
        check(&with("other, base64.channel.k8s.io"), &format!("{accept} sec-websocket-protocol=base64.channel.k8s.io"));
        check(&with("v9.channel.k8s.io"), "403 ");
        check("connection: upgrade\nupgrade: websocket", "400 mismatch challenge/response");
        check("connection: upgrade\nupgrade: websocket\nsec-websocket-key: x", "400 missing or bad WebSocket Version");
    }

    #[test]
    fn spdy() {
        let base = "connection: Upgrade\nupgrade: SPDY/3.1";
        check(base, "400 unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 2 headers");
        check(
            &format!(
                "{base}\nx-stream-protocol-version: v9, v4.channel.k8s.io\nx-stream-protocol-version: channel.k8s.io"
            ),
            "101 upgrade=SPDY/3.1 x-stream-protocol-version=v4.channel.k8s.io",
        );
        check(
            &format!("{base}\nx-stream-protocol-version: v9\nx-stream-protocol-version: v8"),
            "403 unable to upgrade: unable to negotiate protocol: client supports [v9 v8], server accepts [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]",
        );
        check(
            "connection: Upgrade\nupgrade: h2c\nx-stream-protocol-version: channel.k8s.io",
            "400 unable to upgrade: missing upgrade headers in request: ask for SPDY/3.1 or websocket",
        );
    }
}
