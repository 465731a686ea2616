//! Audit: who asked for what, when, and what became of it, one line of JSON for each stage of a request, as the policy says.
//!
//! A [`Trail`] goes with a request and gathers what is learned of it; without a policy it is empty and costs nothing. A stage is
//! written before the request goes on: an answer that somebody has seen is in the log. Headers that prove an identity are never
//! written; bodies are, where the policy asks for them, whatever they hold.

mod event;
mod log;
mod policy;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use api::{Ask, Status, meta};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::Value;
use streams::upgrade::Lasting;
use tokio_util::task::TaskTracker;

use self::event::{AuthenticationMetadata, Event, ObjectReference};
pub use self::log::Limits;
use self::log::Log;
pub use self::policy::Level;
use self::policy::{Decision, Policy, Stage};
use crate::authn::User;
use crate::authz;
use crate::connection::Peer;
use crate::respond::{Answer, Body, BodyError};

const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";
const DEPRECATED: &str = "k8s.io/deprecated";
const REMOVED_RELEASE: &str = "k8s.io/removed-release";

/// What is audited, and where to. Nothing is unless there are both a policy and a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--audit-policy-file`
    pub policy_file: Option<PathBuf>,
    /// `--audit-log-path`; `-` is standard output.
    pub log_path: Option<PathBuf>,
    pub limits: Limits,
    /// `--audit-log-mode=blocking-strict`: what cannot be written down when it comes is not done.
    pub strict: bool,
}

impl Default for Options {
    /// No policy and no log, with the limits of kube-apiserver.
    fn default() -> Options {
        Options { policy_file: None, log_path: None, limits: Limits::of_megabytes(100, 100, 366), strict: false }
    }
}

/// The policy and the log. Lives as long as the server; [`Audit::close`] ends it.
pub struct Audit {
    policy: Policy,
    log: Log,
    strict: bool,
    /// What is written for requests whose client went away.
    tasks: TaskTracker,
    pub counts: Counts,
}

/// What metrics tell.
#[derive(Default)]
pub struct Counts {
    pub events: AtomicU64,
    /// Requests by their level.
    pub levels: [AtomicU64; Level::ALL.len()],
    /// Events that could not be written.
    pub errors: AtomicU64,
    /// Requests that were refused for that.
    pub rejected: AtomicU64,
}

impl Audit {
    /// Reads the policy and opens the log, as far as there are such.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn open(options: &Options) -> Result<Option<Arc<Audit>>, String> {
        let policy = options.policy_file.as_deref().map(Policy::open).transpose()?;
        let log = options.log_path.as_deref().map(|path| Log::open(path, options.limits)).transpose()?;
        let (policy, log) = match (policy, log) {
            (Some(policy), Some(log)) => (policy, log),
            (None, Some(_)) => {
                tracing::warn!(
                    "no audit policy file provided, no events will be recorded: add --audit-policy-file FILE"
                );
                return Ok(None);
            }
            (Some(_), None) => {
                tracing::warn!("there is an audit policy and nowhere to write to: add --audit-log-path FILE");
                return Ok(None);
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(Arc::new(Audit {
            policy,
            log,
            strict: options.strict,
            tasks: TaskTracker::new(),
            counts: Counts::default(),
        })))
    }

    /// Writes what is on its way and closes the log.
    pub async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.log.close().await;
    }

    /// Answers whether it is written.
    async fn write(&self, line: Vec<u8>) -> bool {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        let Err(why) = self.log.write(line).await else { return true };
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%why, "an audit event could not be written");
        false
    }
}

/// What goes with a request; empty where nothing is audited.
pub struct Trail(Option<Arc<Record>>);

/// The trail of requests that nobody made.
pub static OFF: Trail = Trail(None);

struct Record {
    audit: Arc<Audit>,
    open: Mutex<Open>,
}

/// What is known of a request so far.
struct Open {
    event: Event,
    /// Found once it is known who asks.
    decision: Decision,
    lives_long: bool,
    end: End,
}

/// What is still to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing: not decided yet, or not audited, or all was written.
    Nothing,
    /// The head of an answer that was made before the request was let in.
    Started,
    Complete,
}

impl Trail {
    /// The trail of a request that came in just now.
    pub fn begin<B>(audit: Option<&Arc<Audit>>, audit_id: &HeaderValue, request: &Request<B>) -> Trail {
        let Some(audit) = audit else { return Trail(None) };
        let id = String::from_utf8_lossy(audit_id.as_bytes()).into_owned();
        let uri = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let event = Event::new(id, uri.to_string(), Timestamp::now());
        let open = Open { event, decision: Decision::default(), lives_long: false, end: End::Nothing };
        Trail(Some(Arc::new(Record { audit: audit.clone(), open: Mutex::new(open) })))
    }

    /// Puts a request to the policy: its sender is known, and nothing was done for it yet. False where it must not go on.
    pub async fn received(&self, user: &User, ask: &Ask, headers: &HeaderMap, peer: &Peer, lives_long: bool) -> bool {
        let Some(record) = &self.0 else { return true };
        if record.decide(Some(user), ask, headers, peer, lives_long) == Level::None {
            return true;
        }
        if record.stage(Stage::RequestReceived).await || !record.audit.strict {
            record.open().end = End::Complete;
            return true;
        }
        record.audit.counts.rejected.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Puts a request to the policy that is refused before it was let in, or before it is known who asks.
    pub fn refused(&self, ask: &Ask, headers: &HeaderMap, peer: &Peer) {
        if let Some(record) = &self.0
            && record.decide(None, ask, headers, peer, false) != Level::None
        {
            record.open().end = End::Started;
        }
    }

    /// How much is to be written; `None` where nothing is.
    fn level(&self) -> Level {
        self.0.as_ref().map_or(Level::None, |record| record.open().decision.level)
    }

    /// Whether the object of the answer is to be written.
    pub fn wants_answer(&self) -> bool {
        self.level() == Level::RequestResponse
    }

    /// Notes something that a step of the server has to say. What was said first stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        if let Some(record) = &self.0 {
            record.open().event.annotations.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    /// Whether anything is audited at all, for annotations that cost something to make.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what the authorizers said.
    pub fn authorized(&self, decision: &authz::Decision) {
        if self.level() == Level::None {
            return;
        }
        let (word, reason) = match (decision, decision.refusal()) {
            (authz::Decision::Allow { reason }, _) => ("allow", reason.to_string()),
            (_, (reason, "")) => ("forbid", reason.to_string()),
            // It could not be decided.
            _ => return self.annotate(REASON, "internal error"),
        };
        self.annotate(DECISION, word);
        self.annotate(REASON, reason);
    }

    /// Notes as whom the request goes on. `constraint`: the verb that allowed it, where that is a constrained one.
    pub fn impersonated(&self, user: &User, constraint: &str) {
        let Some(record) = &self.0 else { return };
        let mut open = record.open();
        if open.decision.level == Level::None {
            return;
        }
        open.event.impersonated_user = Some(user.clone());
        if !constraint.is_empty() {
            let metadata = AuthenticationMetadata { impersonation_constraint: constraint.to_string() };
            open.event.authentication_metadata = Some(metadata);
        }
    }

    /// Notes that what is asked for is on its way out; `text` is the warning about it.
    pub fn deprecated(&self, text: &str) {
        if text.is_empty() || self.level() == Level::None {
            return;
        }
        self.annotate(DEPRECATED, "true");
        let release = text.split_once("unavailable in v").map(|(_, rest)| rest.trim_end_matches('+'));
        if let Some(release) = release {
            self.annotate(REMOVED_RELEASE, release);
        }
    }

    /// Notes the object of a request, decoded and otherwise as it was sent. `whole` makes what is written of it.
    pub fn object(&self, object: &Value, whole: impl FnOnce(Value) -> Value) {
        let Some(record) = &self.0 else { return };
        let level = record.open().decision.level;
        if level == Level::None {
            return;
        }
        record.refer_to(object);
        if level >= Level::Request {
            let object = whole(object.clone());
            let mut open = record.open();
            open.event.request_object = Some(open.shown(object));
        }
    }

    /// Notes the body of a request that is no object: a patch, the options of a deletion.
    pub fn body(&self, value: impl FnOnce() -> Option<Value>) {
        if let Some(record) = &self.0
            && self.level() >= Level::Request
        {
            let value = value();
            record.open().event.request_object = value;
        }
    }

    /// Notes the object of an answer.
    pub fn answer_object(&self, value: impl FnOnce() -> Option<Value>) {
        if let Some(record) = &self.0
            && self.wants_answer()
        {
            let value = value();
            let mut open = record.open();
            if let Some(value) = value {
                open.event.response_object = Some(open.shown(value));
            }
        }
    }

    /// Notes an answer, in the form in which it is about to be sent.
    pub fn answered(&self, answer: &Answer) {
        let Some(record) = &self.0 else { return };
        // Documents are no objects.
        let is_object = record.open().event.object_ref.is_some();
        match answer {
            Answer::Encoded { json, .. } => self.answer_object(|| serde_json::from_slice(json).ok()),
            Answer::Value { value, .. } if is_object => {
                if value["kind"] == "Status" && value["apiVersion"] == "v1" {
                    record.open().event.set_status(value);
                }
                self.answer_object(|| Some(value.clone()));
            }
            Answer::Value { .. } | Answer::Raw(_) => {}
        }
    }

    /// Notes a refusal.
    pub fn failed(&self, status: &Status) {
        let Some(record) = &self.0 else { return };
        if self.level() == Level::None {
            return;
        }
        let value = status.to_value();
        record.open().event.set_status(&value);
        self.answer_object(|| Some(value));
    }

    /// Writes down that answering made the server panic.
    pub async fn panicked(&self, text: &str) {
        let Some(record) = &self.0 else { return };
        if std::mem::replace(&mut record.open().end, End::Nothing) == End::Nothing {
            return;
        }
        let status = Status::internal("");
        let status = Status { message: format!("APIServer panic'd: {text}"), ..status };
        record.open().event.set_status(&Status { details: None, ..status }.to_value());
        record.stage(Stage::Panic).await;
    }

    /// Writes down what became of a request, and what of its answer as it ends.
    pub async fn finish(self, response: Response<Body>) -> Response<Body> {
        let Some(record) = self.0 else { return response };
        let (end, lives_long) = {
            let mut open = record.open();
            if open.end != End::Nothing {
                open.event.set_code(response.status().as_u16());
            }
            (open.end, open.lives_long)
        };
        if end == End::Started || (end == End::Complete && lives_long) {
            record.stage(Stage::ResponseStarted).await;
        }
        match end {
            End::Nothing => response,
            End::Started => {
                record.open().end = End::Nothing;
                response
            }
            End::Complete => match response.extensions().get::<Lasting>() {
                Some(lasting) => {
                    lasting.keep(record);
                    response
                }
                None if response.body().size_hint().exact().is_some() => {
                    record.complete().await;
                    response
                }
                None => response.map(|body| Audited { body, record: Some(record), last: None }.boxed_unsync()),
            },
        }
    }
}

impl Record {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, user: Option<&User>, ask: &Ask, headers: &HeaderMap, peer: &Peer, lives_long: bool) -> Level {
        let nobody = User::default();
        let attributes = crate::authorize::attributes(user.unwrap_or(&nobody), ask);
        let decision = self.audit.policy.decide(&attributes, user.is_some());
        self.audit.counts.levels[decision.level as usize].fetch_add(1, Ordering::Relaxed);
        let mut open = self.open();
        open.decision = decision;
        open.lives_long = lives_long;
        if decision.level == Level::None {
            return Level::None;
        }
        let event = &mut open.event;
        event.level = decision.level;
        event.verb = ask.verb.as_str().to_string();
        event.user_agent = event::user_agent(headers);
        event.source_ips = event::source_ips(headers, peer.address.map(|address| address.ip()));
        event.user = user.cloned().unwrap_or_default();
        event.object_ref = ask.target.as_ref().map(|target| ObjectReference {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            api_group: target.group.clone(),
            api_version: target.version.clone(),
            subresource: target.subresource.clone(),
            ..ObjectReference::default()
        });
        decision.level
    }

    /// What the path does not say of an object, its metadata does.
    fn refer_to(&self, object: &Value) {
        let mut open = self.open();
        let of = open.event.object_ref.get_or_insert_default();
        let fields = [
            (&mut of.namespace, meta::namespace(object)),
            (&mut of.name, meta::name(object)),
            (&mut of.uid, meta::uid(object)),
            (&mut of.resource_version, meta::resource_version(object)),
        ];
        for (known, said) in fields {
            if known.is_empty() {
                *known = said.to_string();
            }
        }
    }

    /// Writes a stage down. False where that failed.
    async fn stage(&self, stage: Stage) -> bool {
        let line = {
            let mut open = self.open();
            if open.decision.omit_stages.has(stage) {
                return true;
            }
            let event = &mut open.event;
            event.stage = stage;
            event.stage_timestamp = match stage {
                Stage::RequestReceived => event.request_received_timestamp,
                _ => Timestamp::now(),
            };
            event.line()
        };
        self.audit.write(line).await
    }

    /// Writes the last stage down.
    async fn complete(&self) {
        self.open().end = End::Nothing;
        self.stage(Stage::ResponseComplete).await;
    }
}

impl Open {
    /// An object as the policy wants it.
    fn shown(&self, object: Value) -> Value {
        if self.decision.omit_managed_fields { event::without_managed_fields(object) } else { object }
    }
}

/// A client that goes away ends its request here, wherever that is.
impl Drop for Record {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if open.end != End::Complete || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        open.end = End::Nothing;
        let mut open = Open { event: open.event.clone(), ..*open };
        if open.event.response_status.is_none() {
            open.event.set_status(&serde_json::json!({"status": "Success", "message": "Connection closed early"}));
            open.event.set_code(crate::respond::OK);
        }
        let record = Record { audit: self.audit.clone(), open: Mutex::new(open) };
        self.audit.tasks.spawn(async move { record.complete().await });
    }
}

/// A body that is made while it is sent. Its end is seen only when it is written down.
struct Audited {
    body: Body,
    record: Option<Arc<Record>>,
    last: Option<(BoxFuture<'static, ()>, Option<BodyError>)>,
}

impl http_body::Body for Audited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.last.is_none() {
            let why = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(why)) => Some(why),
                None => None,
            };
            let Some(record) = self.record.take() else { return Poll::Ready(why.map(Err)) };
            let last: BoxFuture<'static, ()> = Box::pin(async move { record.complete().await });
            self.last = Some((last, why));
        }
        if let Some((last, _)) = &mut self.last {
            ready!(last.as_mut().poll(cx));
        }
        Poll::Ready(self.last.take().and_then(|(_, why)| why).map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.record.is_none() && self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond;

    /// The stages that are written of a request with a trail, each with the status of its answer.
    async fn check(ask: &str, lives_long: bool, live: impl AsyncFnOnce(Trail), want: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let policy = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: RequestResponse\n";
        let audit = Arc::new(Audit {
            policy: Policy::parse(policy).unwrap().0,
            log: Log::open(&path, Limits::of_megabytes(1, 0, 0)).unwrap(),
            strict: false,
            tasks: TaskTracker::new(),
            counts: Counts::default(),
        });
        let request = Request::get(ask).body(()).unwrap();
        let trail = Trail::begin(Some(&audit), &HeaderValue::from_static("id"), &request);
        let ask = Ask::parse("GET", ask).unwrap();
        assert!(trail.received(&User::anonymous(), &ask, request.headers(), &Peer::default(), lives_long).await);
        live(trail).await;
        audit.close().await;
        let log = std::fs::read_to_string(&path).unwrap();
        let shown = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            let status = event.get("responseStatus").map(|status| format!(" {status}")).unwrap_or_default();
            format!("{}{status}", event["stage"].as_str().unwrap())
        };
        assert_eq!(log.lines().map(shown).collect::<Vec<_>>(), want);
        assert_eq!(audit.counts.events.load(Ordering::Relaxed), want.len() as u64);
    }

    const OK: &str = r#"{"metadata":{},"code":200}"#;

    fn made_while_sent() -> Response<Body> {
        let pieces = ["a", "b"].map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        Response::new(http_body_util::StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync())
    }

    #[tokio::test]
    async fn an_answer_is_complete_when_its_body_is() {
        let whole = async |trail: Trail| drop(trail.finish(respond::raw(200, "", "whole")).await);
        check("/api/v1/pods", false, whole, &["RequestReceived", &format!("ResponseComplete {OK}")]).await;
        let sent = async |trail: Trail| {
            let response = trail.finish(made_while_sent()).await;
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ab");
        };
        check("/api/v1/pods", false, sent, &["RequestReceived", &format!("ResponseComplete {OK}")]).await;
        let stages = ["RequestReceived", &format!("ResponseStarted {OK}"), &format!("ResponseComplete {OK}")];
        check("/api/v1/pods?watch=1", true, sent, &stages).await;
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_its_request() {
        let early = r#"{"metadata":{},"status":"Success","message":"Connection closed early","code":200}"#;
        let unanswered = ["RequestReceived", &format!("ResponseComplete {early}")];
        check("/api/v1/pods", false, async |trail| drop(trail), &unanswered).await;
        let half = async |trail: Trail| {
            let mut body = trail.finish(made_while_sent()).await.into_body();
            body.frame().await.unwrap().unwrap();
        };
        let stages = ["RequestReceived", &format!("ResponseStarted {OK}"), &format!("ResponseComplete {OK}")];
        check("/api/v1/pods?watch=1", true, half, &stages).await;
    }

    #[tokio::test]
    async fn a_panic_is_the_last_stage() {
        let panicked = async |trail: Trail| {
            trail.panicked("oh <no>").await;
            drop(trail.finish(respond::raw(500, "", "")).await);
        };
        let status = r#"{"metadata":{},"status":"Failure","message":"APIServer panic'd: oh <no>","reason":"InternalError","code":500}"#;
        check("/api/v1/pods", false, panicked, &["RequestReceived", &format!("Panic {status}")]).await;
    }
}
