//! A client: one transport, and what every request needs beside it: headers, safe repeats, limits, errors worth reading.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::api::{Ask, Status};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT, WARNING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_core::de::DeserializeOwned;
use tracing::Instrument;
use tracing::field::Empty;

use crate::config::{Config, ConfigCode, ConfigError, Impersonate};
use crate::error::{Error, Result};
#[cfg(feature = "gzip")]
use crate::gzip;
use crate::https::Https;
use crate::list;
use crate::observe::{Bucket, RateLimit, Sent};
#[cfg(feature = "protobuf")]
use crate::protobuf;
use crate::resource::{ObjectList, Resource};
use crate::retry::{Retries, retry_after};
use crate::transport::{Body, Transport};

/// Largest answer that is read into memory, in bytes. A list of 10,000 pods is some 60 MB.
pub const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Largest error answer that is read, in bytes.
const ERROR_BYTES_MAX: usize = 4 << 20;
const AGENT: &str = concat!("kemudi-client/", env!("CARGO_PKG_VERSION"));

/// Talks to one API server as one identity. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    transport: Arc<dyn Transport>,
    namespace: String,
    /// Go with every request: the agent's name, whom to act as.
    headers: Vec<(HeaderName, HeaderValue)>,
    warned: Arc<dyn Fn(&str) + Send + Sync>,
    retries: Retries,
    limit: Option<Arc<Bucket>>,
    observer: Option<Observer>,
    #[cfg(feature = "protobuf")]
    protobuf: bool,
}

/// Who hears of requests.
type Observer = Arc<dyn Fn(&Sent<'_>) + Send + Sync>;

impl Client {
    /// A client for a configuration. Reads its files; contacts the server with the first request.
    pub fn new(config: Config) -> Result<Client> {
        let namespace = config.namespace.clone();
        let headers = impersonation(&config.impersonate)?;
        let transport = Arc::new(Https::new(config)?);
        let client = Client::with_transport(transport).with_namespace(namespace);
        Ok(client.edit(|inner| inner.headers.extend(headers)))
    }

    /// A client for the configuration that is there: see [`Config::infer`].
    pub async fn try_default() -> Result<Client> {
        Client::new(Config::infer()?)
    }

    /// A client whose requests something else carries: a server in this process, a test's answers.
    pub fn with_transport(transport: Arc<dyn Transport>) -> Client {
        let headers = vec![(USER_AGENT, HeaderValue::from_static(AGENT))];
        let warned = Arc::new(|text: &str| tracing::warn!("{text}"));
        Client(Arc::new(Inner {
            transport,
            namespace: "default".to_string(),
            headers,
            warned,
            retries: Retries::default(),
            limit: None,
            observer: None,
            #[cfg(feature = "protobuf")]
            protobuf: false,
        }))
    }

    /// The same client with somebody who hears the server's warnings (of deprecated or unknown fields, for one) instead of
    /// the log.
    pub fn on_warning(self, hear: impl Fn(&str) + Send + Sync + 'static) -> Client {
        self.edit(|inner| inner.warned = Arc::new(hear))
    }

    /// The same client with another default namespace.
    pub fn with_namespace(self, namespace: impl Into<String>) -> Client {
        self.edit(|inner| inner.namespace = namespace.into())
    }

    /// The same client under another name in the server's logs.
    pub fn with_user_agent(self, agent: &str) -> Result<Client> {
        let agent = HeaderValue::from_str(agent).map_err(|_| Error::Request(format!("{agent:?} is no user agent")))?;
        Ok(self.edit(|inner| {
            inner.headers.retain(|(name, _)| name != USER_AGENT);
            inner.headers.push((USER_AGENT, agent));
        }))
    }

    /// The same client acting as somebody else, which needs the right `impersonate`.
    pub fn impersonating(self, whom: &Impersonate) -> Result<Client> {
        let headers = impersonation(whom)?;
        Ok(self.edit(|inner| {
            inner.headers.retain(|(name, _)| !name.as_str().starts_with("impersonate-"));
            inner.headers.extend(headers);
        }))
    }

    /// The same client that repeats requests more or less often, or ([`Retries::NONE`]) never.
    pub fn with_retries(self, retries: Retries) -> Client {
        self.edit(|inner| inner.retries = retries)
    }

    /// The same client that sends no more requests than this; its clones share the limit.
    pub fn with_rate_limit(self, limit: RateLimit) -> Client {
        self.edit(|inner| inner.limit = Some(Arc::new(Bucket::new(limit))))
    }

    /// The same client with somebody who hears of every request that was sent, repeats included: for metrics. It is called
    /// before the answer is given on, so it should not take long.
    ///
    /// ```
    /// # fn count(_: &str, _: u16) {}
    /// # fn measured(client: kemudi_client::Client) -> kemudi_client::Client {
    /// client.on_request(|sent| {
    ///     if let Some(ask) = sent.ask() {
    ///         count(ask.verb.as_str(), sent.code.map_or(0, |code| code.as_u16()));
    ///     }
    /// })
    /// # }
    /// ```
    pub fn on_request(self, hear: impl Fn(&Sent<'_>) + Send + Sync + 'static) -> Client {
        self.edit(|inner| inner.observer = Some(Arc::new(hear)))
    }

    /// The same client that asks for [protobuf](crate::protobuf) where a type can be read from it, when it gets, lists and watches. Where the server
    /// has none of it, all goes on in JSON.
    #[cfg(feature = "protobuf")]
    pub fn with_protobuf(self) -> Client {
        self.edit(|inner| inner.protobuf = true)
    }

    /// The same client that lets the server compress its answers (feature `gzip`): a long list is a tenth of its bytes then, for some time on
    /// both sides.
    #[cfg(feature = "gzip")]
    pub fn with_gzip(self) -> Client {
        self.edit(|inner| {
            let accepted = gzip::accepted();
            if !inner.headers.contains(&accepted) {
                inner.headers.push(accepted);
            }
        })
    }

    /// Where namespaced requests go that name no namespace.
    pub fn default_namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Where requests go, for messages.
    pub fn server(&self) -> String {
        self.0.transport.server()
    }

    /// Makes the connection that the first request would make: to have it ready, or to see what hinders it. Sends nothing.
    ///
    /// # Errors
    /// Those that a request would have had before it was sent.
    pub async fn connect(&self) -> Result<()> {
        self.0.transport.connect().await
    }

    /// Sends a request and gives whatever comes back, be it an error status. Repeats it where that is safe.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>> {
        self.send_within(request, &mut Tries::new()).await
    }

    async fn send_within(&self, mut request: Request<Bytes>, tries: &mut Tries) -> Result<Response<Body>> {
        for (name, value) in &self.0.headers {
            request.headers_mut().append(name.clone(), value.clone());
        }
        let span =
            tracing::debug_span!("request", method = %request.method(), path = %request.uri().path(), code = Empty);
        self.send_until_answered(request, tries).instrument(span).await
    }

    async fn send_until_answered(&self, request: Request<Bytes>, tries: &mut Tries) -> Result<Response<Body>> {
        loop {
            let outcome = self.send_once(&request, tries.repeats).await;
            if let Some(pause) = tries.pause(&self.0.retries, &request, outcome.as_ref()) {
                tokio::time::sleep(pause).await;
                continue;
            }
            if let Ok(response) = &outcome {
                tracing::Span::current().record("code", response.status().as_u16());
            }
            return outcome;
        }
    }

    async fn send_once(&self, request: &Request<Bytes>, repeat: u32) -> Result<Response<Body>> {
        let held_back = match &self.0.limit {
            None => Duration::ZERO,
            Some(limit) => limit.take().await,
        };
        let started = Instant::now();
        let outcome = self.0.transport.send(request.clone()).await;
        #[cfg(feature = "gzip")]
        let outcome = outcome.map(gzip::decoded);
        if let Some(observer) = &self.0.observer {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
            let code = outcome.as_ref().ok().map(Response::status);
            let elapsed = started.elapsed();
            observer(&Sent { method: request.method(), target, code, repeat, elapsed, held_back });
        }
        outcome
    }

    /// As [`Client::send`], with an answer of 400 and above turned into [`Error::Api`].
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>> {
        self.call_within(request, &mut Tries::new()).await
    }

    async fn call_within(&self, request: Request<Bytes>, tries: &mut Tries) -> Result<Response<Body>> {
        let response = self.send_within(request, tries).await?;
        for header in response.headers().get_all(WARNING) {
            if let Some(text) = header.to_str().ok().and_then(warning) {
                (self.0.warned)(&text);
            }
        }
        match response.status() {
            code if code.as_u16() < 400 => Ok(response),
            code => Err(refusal(code, response).await),
        }
    }

    /// Sends a request that asks for another protocol, and gives the answer and the connection (feature `remote`).
    ///
    /// # Errors
    /// If the server refuses, or answers as if nothing had been asked of it.
    #[cfg(feature = "remote")]
    pub async fn upgrade(&self, mut request: Request<Bytes>) -> Result<(Response<Body>, streams::Io)> {
        for (name, value) in &self.0.headers {
            request.headers_mut().append(name.clone(), value.clone());
        }
        let path = request.uri().path().to_string();
        match self.0.transport.upgrade(request).await? {
            (response, Some(io)) => Ok((response, io)),
            (response, None) if response.status().as_u16() >= 400 => Err(refusal(response.status(), response).await),
            (response, None) => {
                let code = response.status();
                Err(Error::Lost(format!("{path}: the server answered {code} and kept the connection as it was")))
            }
        }
    }

    /// The whole answer as bytes. Where it breaks off, the request is repeated as if there had been none.
    pub async fn bytes(&self, request: Request<Bytes>) -> Result<Bytes> {
        self.whole(request, |response| collect(response.into_body(), "the answer", ANSWER_BYTES_MAX)).await
    }

    /// What `read` makes of the whole answer.
    async fn whole<T, Reading: Future<Output = Result<T>>>(
        &self,
        request: Request<Bytes>,
        read: impl Fn(Response<Body>) -> Reading,
    ) -> Result<T> {
        let mut tries = Tries::new();
        loop {
            let error = match self.call_within(request.clone(), &mut tries).await {
                Err(error) => error,
                Ok(response) => match read(response).await {
                    Ok(whole) => return Ok(whole),
                    Err(error) => error,
                },
            };
            match tries.pause(&self.0.retries, &request, Err(&error)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// The whole answer, decoded from JSON.
    pub async fn json<T: DeserializeOwned>(&self, request: Request<Bytes>) -> Result<T> {
        let what = format!("{} {}", request.method(), request.uri().path());
        from_json(&self.bytes(request).await?, what)
    }

    /// An object in the form that its type is asked for.
    pub(crate) async fn object<K: Resource>(&self, request: Request<Bytes>) -> Result<K> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let request = self.accepting::<K>(request, false);
        let read = async |response: Response<Body>| {
            let (head, body) = response.into_parts();
            Ok((head.headers, collect(body, "the answer", ANSWER_BYTES_MAX).await?))
        };
        let (headers, bytes) = self.whole(request, read).await?;
        #[cfg(feature = "protobuf")]
        if let Some(read) = K::from_message()
            && protobuf::is_protobuf(&headers)
        {
            let wrong = |why| Error::Decode { request: what, wanted: std::any::type_name::<K>(), why };
            return protobuf::unwrapped(&bytes, read).map_err(wrong);
        }
        let _: HeaderMap = headers;
        from_json(&bytes, what)
    }

    /// A list in the form that its type is asked for, each of its objects decoded as soon as it has come.
    pub(crate) async fn list<K: Resource>(&self, request: Request<Bytes>) -> Result<ObjectList<K>> {
        let what = format!("{} {}", request.method(), request.uri().path());
        self.whole(self.accepting::<K>(request, true), |response| list::read(response, &what)).await
    }

    /// The same request for an answer in the form that a type is asked for.
    pub(crate) fn accepting<K: Resource>(&self, mut request: Request<Bytes>, list: bool) -> Request<Bytes> {
        let json = K::accept(list);
        let form = HeaderValue::from_static(json);
        #[cfg(feature = "protobuf")]
        let form = match K::from_message() {
            Some(_) if self.0.protobuf => protobuf::accept(json),
            _ => form,
        };
        request.headers_mut().insert(ACCEPT, form);
        request
    }

    /// `GET` of a path (with its query), decoded from JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(request(Method::GET, path, None)?).await
    }

    fn edit(mut self, edit: impl FnOnce(&mut Inner)) -> Client {
        edit(Arc::make_mut(&mut self.0));
        self
    }
}

/// How often and since when a request has been sent.
struct Tries {
    started: Instant,
    repeats: u32,
}

impl Tries {
    fn new() -> Tries {
        Tries { started: Instant::now(), repeats: 0 }
    }

    /// How long to wait before the request is sent again; `None` where `outcome` is what the caller gets.
    fn pause(
        &mut self,
        retries: &Retries,
        request: &Request<Bytes>,
        outcome: Result<&Response<Body>, &Error>,
    ) -> Option<Duration> {
        let pause = retries.pause(request, outcome, self.repeats, self.started.elapsed())?;
        tracing::debug!(?pause, self.repeats, "repeating the request");
        self.repeats += 1;
        Some(pause)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.server())
    }
}

/// A request for a path (with its query). A body is JSON unless the caller sets another content type.
pub fn request(method: Method, path: &str, body: Option<Bytes>) -> Result<Request<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
    if body.is_some() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    let request = builder.body(body.unwrap_or_default());
    request.map_err(|error| Error::Request(format!("{path:?} is no path of the API: {error}")))
}

/// The request that an [`Ask`] means.
pub fn request_of(ask: &Ask, body: Option<Bytes>) -> Result<Request<Bytes>> {
    let (method, path) = ask.print();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Error::Request(format!("no method {method:?}")))?;
    request(method, &path, body)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8], request: String) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::Decode {
        request,
        wanted: std::any::type_name::<T>(),
        why: error.to_string(),
    })
}

/// Reads a body to its end.
pub(crate) async fn collect(mut body: Body, what: &'static str, limit: usize) -> Result<Bytes> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if all.len() + data.len() > limit {
                return Err(Error::TooLarge { what, limit });
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

/// The server's no, as its `Status` or as near to one as what it sent.
pub(crate) async fn refusal(code: StatusCode, response: Response<Body>) -> Error {
    let retry_after = retry_after(&response);
    let (head, body) = response.into_parts();
    let text = match collect(body, "the error", ERROR_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    if let Some(mut status) = status_of(&head.headers, &text)
        && !status.status.is_empty()
    {
        // The line is the truth where the body does not say.
        if status.code == 0 {
            status.code = code.as_u16();
        }
        if let Some(wait) = retry_after {
            status.details.get_or_insert_default().retry_after_seconds = wait.as_secs() as u32;
        }
        return status.into();
    }
    let said = String::from_utf8_lossy(&text);
    let said = match said.trim() {
        "" => code.canonical_reason().unwrap_or("no explanation").to_string(),
        said => said.to_string(),
    };
    let mut status = Status::failure(code.as_u16(), ::api::Reason::Unknown, said);
    if let Some(wait) = retry_after {
        status.details = Some(::api::Details { retry_after_seconds: wait.as_secs() as u32, ..Default::default() });
    }
    status.into()
}

/// The `Status` that an answer is, if it is one.
fn status_of(headers: &HeaderMap, body: &[u8]) -> Option<Status> {
    #[cfg(feature = "protobuf")]
    if protobuf::is_protobuf(headers) {
        return protobuf::status(body).ok();
    }
    let _ = headers;
    serde_json::from_slice(body).ok()
}

/// The text of `299 - "text"`, its quotes taken off.
fn warning(header: &str) -> Option<String> {
    let text = header.strip_prefix("299 ")?.split_once(' ')?.1.trim();
    let text = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
}

fn impersonation(whom: &Impersonate) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| {
            ConfigError::new(ConfigCode::ImpersonationInvalid, format!("{text:?} cannot be impersonated"))
                .fix("a user, group or uid is one line of text")
        })
    };
    if whom.user.is_none() && (!whom.groups.is_empty() || whom.uid.is_some() || !whom.extra.is_empty()) {
        return Err(ConfigError::new(
            ConfigCode::ImpersonationInvalid,
            "groups, a uid or extra values are to be impersonated, but no user",
        )
        .fix("name the user too (--as)"));
    }
    let mut headers = Vec::new();
    for (name, values) in [
        ("impersonate-user", whom.user.iter().collect::<Vec<_>>()),
        ("impersonate-group", whom.groups.iter().collect()),
        ("impersonate-uid", whom.uid.iter().collect()),
    ] {
        for text in values {
            headers.push((HeaderName::from_static(name), value(text)?));
        }
    }
    for (key, values) in &whom.extra {
        let name = HeaderName::try_from(format!("impersonate-extra-{}", escaped(key))).map_err(|_| {
            ConfigError::new(ConfigCode::ImpersonationInvalid, format!("{key:?} is no key of what is known of a user"))
                .fix("a key is some letters and digits, such as example.com/project")
        })?;
        for text in values {
            headers.push((name.clone(), value(text)?));
        }
    }
    Ok(headers)
}

/// What may not stand in a header's name is escaped there, as in a path.
fn escaped(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    key.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
