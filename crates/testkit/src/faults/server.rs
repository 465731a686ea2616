//! A small API server that fails on demand: it has some ConfigMaps, one of which changes all the time, and tells of them as Kubernetes
//! does; tokens, authority, answers and connections break when somebody says so. Keeps no writes, since it takes none.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The namespace of all that it has.
pub const NAMESPACE: &str = "default";
/// The object that changes.
pub const BEAT: &str = "beat";
/// How often it does.
pub const BEAT_PERIOD: Duration = Duration::from_millis(100);
/// Those that stay as they are: so many that a list is not one small piece.
const STILL: usize = 20;
const STREAMS_MAX: u32 = 250;
/// A trickling answer comes in so many pieces, with this pause before each.
const TRICKLE_PIECES: usize = 20;
const TRICKLE_PAUSE: Duration = Duration::from_millis(50);
/// Between the first half of an answer and the cut: the half is to be sent by then.
const HALF_PAUSE: Duration = Duration::from_millis(20);

/// What is wrong with every answer, until something else is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// 429 with `Retry-After: 1`.
    TooMany,
    /// 503, and no word about when to come back.
    Unavailable,
    /// The connection ends when a request has come.
    CutBefore,
    /// The connection ends in the middle of the answer.
    CutWithin,
    /// The answer comes in small pieces.
    Trickle,
}

/// The server, and the folder with the three files that it gives to its clients. All ends when it is dropped.
pub struct FaultServer {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    folder: TempDir,
    address: SocketAddr,
    accepting: Mutex<CancellationToken>,
    authority: Mutex<Authority>,
    token: Mutex<String>,
    versions: AtomicU64,
}

struct Shared {
    state: Mutex<State>,
    /// The revision; the changing object has it too.
    revision: watch::Sender<u64>,
    /// Watches that began before history was last forgotten.
    forgotten: AtomicU64,
    connections: Mutex<Vec<Connection>>,
    requests: AtomicU64,
}

struct State {
    token: String,
    tls: TlsAcceptor,
    trouble: Trouble,
}

#[derive(Clone, Default)]
struct Connection {
    cut: CancellationToken,
    silent: Arc<AtomicBool>,
}

/// Signs the certificate that the server shows.
struct Authority(CertifiedIssuer<'static, KeyPair>);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl FaultServer {
    /// A server without trouble, on a port of its own.
    pub fn start() -> FaultServer {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let authority = Authority::new();
        let (revision, _) = watch::channel(1000);
        let state = State { token: "token-0".to_owned(), tls: authority.acceptor(), trouble: Trouble::None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            revision,
            forgotten: AtomicU64::new(0),
            connections: Mutex::default(),
            requests: AtomicU64::new(0),
        });
        let beating = shared.clone();
        runtime.spawn(async move {
            let mut pace = interval(BEAT_PERIOD);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                beating.revision.send_modify(|revision| *revision += 1);
            }
        });
        let mut server = FaultServer {
            shared,
            runtime: Some(runtime),
            folder: tempfile::Builder::new().prefix("kemudi-faults-").tempdir().expect("a temporary folder"),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            accepting: Mutex::default(),
            authority: Mutex::new(authority),
            token: Mutex::new("token-0".to_owned()),
            versions: AtomicU64::new(0),
        };
        server.project();
        server.address = server.listen();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder with `token`, `ca.crt` and `namespace`, replaced as a kubelet does it.
    pub fn volume(&self) -> &Path {
        self.folder.path()
    }

    /// The number that the changing object has now.
    pub fn beat(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Requests that came so far, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// From now on each answer is like this.
    pub fn set(&self, trouble: Trouble) {
        self.shared.state().trouble = trouble;
    }

    /// Puts another token into the file and takes no other from then on.
    pub fn rotate_token(&self) {
        let next = format!("token-{}", self.versions.load(Ordering::Relaxed) + 1);
        self.token.lock().expect("no panic").clone_from(&next);
        self.project();
        self.shared.state().token = next;
    }

    /// Puts another authority into the file, cuts all connections, and shows from then on what only the new one vouches for.
    pub fn replace_authority(&self) {
        let authority = Authority::new();
        self.shared.state().tls = authority.acceptor();
        *self.authority.lock().expect("no panic") = authority;
        self.project();
        self.cut();
    }

    /// Ends all connections that there are.
    pub fn cut(&self) {
        for connection in self.shared.connections().drain(..) {
            connection.cut.cancel();
        }
    }

    /// Nothing comes and nothing goes on the connections that there are. They stay open.
    pub fn fall_silent(&self) {
        for connection in self.shared.connections().drain(..) {
            connection.silent.store(true, Ordering::Relaxed);
        }
    }

    /// Ends all connections and takes no more.
    pub fn close(&self) {
        self.accepting.lock().expect("no panic").cancel();
        self.cut();
    }

    /// Takes connections again, at the same address.
    pub fn open(&self) {
        self.listen();
    }

    /// Forgets what happened before now: watches from before are told 410.
    pub fn forget(&self) {
        self.shared.revision.send_modify(|revision| {
            self.shared.forgotten.store(*revision, Ordering::Relaxed);
            *revision += 1;
        });
    }

    fn listen(&self) -> SocketAddr {
        let runtime = self.runtime.as_ref().expect("it is taken at the end");
        let accepting = CancellationToken::new();
        *self.accepting.lock().expect("no panic") = accepting.clone();
        let (shared, address) = (self.shared.clone(), self.address);
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a port of our own");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (tcp, _) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("enough descriptors"),
                    () = accepting.cancelled() => break,
                };
                while serving.try_join_next().is_some() {}
                serving.spawn(serve(shared.clone(), tcp));
            }
            drop(listener);
            while serving.join_next().await.is_some() {}
        });
        address
    }

    /// Replaces the files as a kubelet does: a new folder, and a link that is renamed over the old one.
    fn project(&self) {
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let volume = self.folder.path();
        let folder = |version: u64| PathBuf::from(format!("..{version}"));
        std::fs::create_dir(volume.join(folder(version))).expect("a folder of our own");
        let token = self.token.lock().expect("no panic").clone();
        let ca = self.authority.lock().expect("no panic").0.pem();
        for (name, text) in [("token", token), ("ca.crt", ca), ("namespace", NAMESPACE.to_owned())] {
            std::fs::write(volume.join(folder(version)).join(name), text).expect("a folder of our own");
            if !volume.join(name).is_symlink() {
                symlink(Path::new("..data").join(name), volume.join(name)).expect("a folder of our own");
            }
        }
        symlink(folder(version), volume.join("..data_tmp")).expect("a folder of our own");
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("a folder of our own");
        let _ = std::fs::remove_dir_all(volume.join(folder(version - 1)));
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate().expect("random numbers");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a sound certificate"))
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().expect("random numbers");
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.0).expect("a sound certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("its own versions").with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut tls = builder.with_single_cert(vec![certificate.into()], key).expect("its own key");
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(tls))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().expect("no panic")
    }

    /// An object of the list, as it is at a revision.
    fn object(&self, name: &str, revision: u64) -> Value {
        let changes = name == BEAT;
        let version = if changes { revision } else { 1 };
        let data = if changes { json!({"n": revision.to_string()}) } else { json!({"text": "x".repeat(400)}) };
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
            "data": data,
        })
    }

    fn all(&self, revision: u64) -> Vec<Value> {
        let names = (0..STILL).map(|number| format!("still-{number:02}")).chain([BEAT.to_owned()]);
        names.map(|name| self.object(&name, revision)).collect()
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let connection = Connection::default();
    shared.connections().push(connection.clone());
    let acceptor = shared.state().tls.clone();
    let io = Hushed { tcp, silent: connection.silent.clone() };
    let serving = async {
        let Ok(stream) = acceptor.accept(io).await else { return };
        let service = service_fn(|request: Request<Incoming>| answer(shared.clone(), connection.clone(), request));
        let mut http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        http.http2().max_concurrent_streams(STREAMS_MAX);
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    };
    tokio::select! {
        () = serving => {}
        () = connection.cut.cancelled() => {}
    }
}

async fn answer(shared: Arc<Shared>, connection: Connection, request: Request<Incoming>) -> Result<Answer, Infallible> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let trouble = shared.state().trouble;
    let expected = shared.state().token.clone();
    match trouble {
        Trouble::TooMany => return Ok(too_many()),
        Trouble::Unavailable => {
            return Ok(failure(503, "ServiceUnavailable", "the server is currently unable to handle the request"));
        }
        Trouble::CutBefore => {
            connection.cut.cancel();
            return std::future::pending().await;
        }
        Trouble::None | Trouble::CutWithin | Trouble::Trickle => {}
    }
    let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    // The scheme is written in either case.
    let shown =
        shown.and_then(|shown| shown.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if shown.is_none_or(|(_, token)| token != expected) {
        return Ok(failure(401, "Unauthorized", "Unauthorized"));
    }
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let query = Query(request.uri().query().unwrap_or_default());
    let revision = *shared.revision.borrow();
    let body = match request.uri().path().strip_prefix(&maps) {
        Some("") if query.is_true("watch") => {
            let lines = watch_lines(shared.clone(), &query);
            return Ok(with_body(lines.map(|line| Ok(Frame::data(line))).boxed()));
        }
        Some("") => json!({
            "apiVersion": "v1",
            "kind": "ConfigMapList",
            "metadata": {"resourceVersion": revision.to_string()},
            "items": shared.all(revision),
        }),
        Some(name) if name.strip_prefix('/').is_some_and(|name| name == BEAT || name.starts_with("still-")) => {
            shared.object(&name[1..], revision)
        }
        _ => return Ok(failure(404, "NotFound", "the server could not find the requested resource")),
    };
    let bytes = Bytes::from(body.to_string());
    Ok(match trouble {
        Trouble::CutWithin => {
            let half = bytes.slice(..bytes.len() / 2);
            let first = stream::once(async move { Ok(Frame::data(half)) });
            let rest = stream::once(async move {
                sleep(HALF_PAUSE).await;
                connection.cut.cancel();
                std::future::pending().await
            });
            with_body(first.chain(rest).boxed())
        }
        Trouble::Trickle => {
            let size = bytes.len().div_ceil(TRICKLE_PIECES);
            let pieces: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            let slowly = stream::iter(pieces).then(|piece| async {
                sleep(TRICKLE_PAUSE).await;
                Ok(Frame::data(piece))
            });
            with_body(slowly.boxed())
        }
        _ => json_response(200, bytes),
    })
}

fn with_body(frames: BoxStream<'static, Result<Frame<Bytes>, Infallible>>) -> Answer {
    let response = Response::builder().header("content-type", "application/json");
    response.body(StreamBody::new(frames).boxed_unsync()).expect("a sound head")
}

fn json_response(code: u16, bytes: Bytes) -> Answer {
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(Full::new(bytes).boxed_unsync()).expect("a sound head")
}

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    json_response(code, Bytes::from(status(code, reason, message).to_string()))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}

/// What kube-apiserver says to who has no seat.
fn too_many() -> Answer {
    let text = "Too many requests, please try again later.";
    let response = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", "1");
    response.header("content-type", "text/plain").body(Full::new(Bytes::from(text)).boxed_unsync()).expect("a head")
}

/// The parameters of a request, none of which has anything escaped that matters here.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value, "true" | "True" | "1"))
    }
}

/// A watch, from where it asks to begin: all objects first, or the changes behind a revision.
struct Watching {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    /// Told up to here.
    told: u64,
    first: Option<Vec<Value>>,
    ended: bool,
}

fn watch_lines(shared: Arc<Shared>, query: &Query<'_>) -> BoxStream<'static, Bytes> {
    let changes = shared.revision.subscribe();
    let now = *changes.borrow();
    let from = query.get("resourceVersion").and_then(|version| version.parse().ok()).filter(|version| *version > 0);
    let begins = query.is_true("sendInitialEvents") || from.is_none();
    let first = begins.then(|| {
        let added = shared.all(now).into_iter().map(|object| json!({"type": "ADDED", "object": object}));
        let mut lines: Vec<Value> = added.collect();
        if query.is_true("allowWatchBookmarks") {
            let metadata =
                json!({"resourceVersion": now.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
            let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata});
            lines.push(json!({"type": "BOOKMARK", "object": object}));
        }
        lines
    });
    let told = if begins { now } else { from.unwrap_or(now) };
    let limit = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(1800);
    let state = Watching { shared, changes, told, first, ended: false };
    let lines = stream::unfold(state, |mut state| async move { Some((state.next().await?, state)) });
    lines.take_until(sleep(Duration::from_secs(limit))).boxed()
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(written(&first));
        }
        let now = *self.changes.wait_for(|now| *now > self.told).await.ok()?;
        if self.told <= self.shared.forgotten.load(Ordering::Relaxed) {
            self.ended = true;
            let message = format!("too old resource version: {} ({now})", self.told);
            return Some(written(&[json!({"type": "ERROR", "object": status(410, "Expired", &message)})]));
        }
        let changed = self.told + 1..=now;
        self.told = now;
        let lines: Vec<Value> =
            changed.map(|revision| json!({"type": "MODIFIED", "object": self.shared.object(BEAT, revision)})).collect();
        Some(written(&lines))
    }
}

fn written(lines: &[Value]) -> Bytes {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into()
}

/// A connection that can fall silent: then nothing is read and nothing is written, and nobody is told.
struct Hushed {
    tcp: TcpStream,
    silent: Arc<AtomicBool>,
}

impl Hushed {
    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Hushed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() { Poll::Pending } else { Pin::new(&mut self.tcp).poll_read(cx, buffer) }
    }
}

impl AsyncWrite for Hushed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_silent() { Poll::Pending } else { Pin::new(&mut self.tcp).poll_write(cx, bytes) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() { Poll::Pending } else { Pin::new(&mut self.tcp).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() { Poll::Pending } else { Pin::new(&mut self.tcp).poll_shutdown(cx) }
    }
}
