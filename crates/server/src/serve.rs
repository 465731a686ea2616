//! A request's way, on one page: read this first. Straight calls, no layers; each step is a module of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api::ask::Meaningless;
use api::{Ask, Status, Verb};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body::Body as _;
use jiff::Timestamp;
use streams::upgrade::OnUpgrade;
use tokio::time::{Duration, Instant};

use crate::accept::{self, Accept};
use crate::audit::Trail;
use crate::authn::User;
use crate::authorize::Refused;
use crate::authz::Hearing;
use crate::metrics::Answered;
use crate::respond::{self, Answer, Body, BodyError};
use crate::state::State;
use crate::{authorize, connection, documents, flow, impersonate, kind_of, verbs};

/// The longest that a request may take that is to end, whatever it asks for: `--request-timeout` of the API server.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The body of a request, read only after it is known who asks and that they may.
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BodyError>;

/// Everything a verb needs to know of the request it answers.
pub struct Cx<'a> {
    pub state: &'a Arc<State>,
    pub user: &'a User,
    pub ask: &'a Ask,
    pub headers: &'a http::HeaderMap,
    /// The connection, for who wants it to become another.
    pub upgrade: Option<&'a OnUpgrade>,
    pub accept: Accept,
    pub now: Timestamp,
    /// What is to be written down of the request.
    pub audit: &'a Trail,
    /// What webhooks have said to it.
    pub hearing: &'a Hearing,
}

/// Answers one request. Never fails: what goes wrong is an answer too.
pub async fn serve(state: &Arc<State>, peer: &connection::Peer, request: Request<RequestBody>) -> Response<Body> {
    let audit_id = audit_id(&request);
    let trail = Trail::begin(state.audit.as_ref(), &audit_id, &request);
    let guarded = AssertUnwindSafe(answer(state, peer, request, &trail)).catch_unwind();
    let mut response = match guarded.await {
        Ok(response) => response,
        Err(panic) => {
            let text = panic_text(&panic);
            tracing::error!(panic = text, "a request made the server panic");
            trail.panicked(text).await;
            let status =
                Status::internal("this request caused apiserver to panic. Look in the logs for more information");
            respond::failure(&status, Accept::default())
        }
    };
    let headers = response.headers_mut();
    headers.insert("audit-id", audit_id);
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    trail.finish(response).await
}

async fn answer(
    state: &Arc<State>,
    peer: &connection::Peer,
    request: Request<RequestBody>,
    trail: &Trail,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let ask = match Ask::parse(head.method.as_str(), target) {
        Ok(ask) => ask,
        Err(why @ Meaningless::Escape) => return respond::raw(400, "text/plain; charset=utf-8", why.to_string()),
        Err(why @ Meaningless::NoResource) => return respond::internal_text(target, &format!("{why}, {target}")),
    };
    let lenient = accept::lenient(&head.headers, &ask.query);
    let began = Instant::now();
    let running = state.metrics.begin(&ask);
    let mut passed =
        Passed { trail, warnings: Vec::new(), schema: None, seat: None, known: false, user: None, denied: None };
    let deadline = deadline(&ask, began);
    let result = match deadline.clone() {
        Err(status) => {
            trail.refused(&ask, &head.headers, peer);
            Err(status)
        }
        Ok(until) => {
            let steps = steps(state, peer, &ask, &head, body, until, &mut passed);
            match until {
                Some(until) => tokio::time::timeout_at(until, steps).await.unwrap_or_else(|_| Err(too_late(&ask))),
                None => steps.await,
            }
        }
    };
    drop(running);
    let mut response = match result {
        Ok((answer, accept)) => {
            trail.answered(&answer);
            respond::respond(answer, accept)
        }
        Err(status) => {
            trail.failed(&status);
            let mut response = respond::failure(&status, lenient);
            if status.reason == api::Reason::Forbidden {
                if let Some(user) = &passed.user {
                    let whom = impersonate::wanted(&head.headers).ok().flatten().unwrap_or_default();
                    let verb = passed.denied.take().unwrap_or_else(|| ask.verb.clone());
                    state.denials.forbidden(user, &whom.name, &Ask { verb, ..ask.clone() }, &status);
                }
                response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            }
            response
        }
    };
    let Passed { warnings, schema, seat, known, .. } = passed;
    let headers = response.headers_mut();
    respond::add_warnings(headers, &warnings);
    if let Some(schema) = schema.filter(|schema| !schema.uid.is_empty()) {
        headers.insert(SCHEMA_UID, schema.uid.clone());
        headers.insert(LEVEL_UID, schema.level_uid.clone());
    }
    let answered = Answered {
        code: response.status().as_u16(),
        took: began.elapsed(),
        bytes: response.body().size_hint().exact(),
        known,
        lives_long: deadline.as_ref().is_ok_and(Option::is_none)
            && (response.status().is_success() || response.status() == http::StatusCode::SWITCHING_PROTOCOLS),
    };
    let living = state.metrics.count(&ask, &answered);
    // What is still being sent holds its seat, unless it lives long, and has its time.
    let until = deadline.ok().flatten();
    respond::held(response, until, (seat.filter(|_| until.is_some()), living))
}

/// What is learned of a request on its way.
struct Passed<'a> {
    trail: &'a Trail,
    warnings: Vec<String>,
    schema: Option<Arc<flow::Schema>>,
    seat: Option<flow::Seat>,
    /// The kind that is asked for is served, or none is asked for.
    known: bool,
    /// Who asks, as far as that is known.
    user: Option<Arc<User>>,
    /// The verb that is refused, where it is not the request's own.
    denied: Option<Verb>,
}

/// The steps themselves, in order.
async fn steps(
    state: &Arc<State>,
    peer: &connection::Peer,
    ask: &Ask,
    head: &http::request::Parts,
    body: RequestBody,
    deadline: Option<Instant>,
    passed: &mut Passed<'_>,
) -> Result<(Answer, Accept), Status> {
    let trail = passed.trail;
    let (headers, upgrade) = (&head.headers, head.extensions.get::<OnUpgrade>());
    let now = Timestamp::now();
    let lenient = accept::lenient(headers, &ask.query);
    let user = state
        .authenticate(peer, headers, &ask.path, now, &mut passed.warnings, trail)
        .await
        .inspect_err(|_| trail.refused(ask, headers, peer))?;
    if !trail.received(&user, ask, headers, peer, lives_long(ask)).await {
        return Ok((Answer::Raw(respond::internal_text(&ask.path, "failed to store audit event")), lenient));
    }
    passed.user = Some(user.clone());
    let hearing = &Hearing::default();
    let named = || impersonate::impersonate(&state.authorizer, &state.usage, &user, ask, headers, hearing);
    let user = impersonate::conclude(hearing.settle(named).await?, user.clone(), trail);
    passed.user = Some(user.clone());
    if let Err(why) = seat(state, &user, ask, deadline, passed).await {
        tracing::debug!(why = why.as_str(), user = user.name, path = ask.path, "too many requests");
        return Ok((Answer::Raw(respond::too_many_requests(flow::RETRY_AFTER_SECONDS)), lenient));
    }
    let attributes = authorize::attributes(&user, ask);
    let decision = hearing.settle(|| authorize::decide(state, &attributes, ask, hearing)).await;
    match authorize::conclude(state, &attributes, &decision, trail) {
        Ok(()) => {}
        Err(Refused::Forbidden(status)) => return Err(*status),
        Err(Refused::Failed(why)) => return Ok((Answer::Raw(respond::internal_text(&ask.print().1, &why)), lenient)),
    }
    passed.known = ask.target.is_none();
    let Some(target) = &ask.target else {
        let cx = Cx { state, user: &user, ask, headers, upgrade, accept: lenient, now, audit: trail, hearing };
        return Ok((hearing.settle(|| documents::answer(&cx)).await?, lenient));
    };
    let found = match kind_of::find(&state.registry.load(), ask, target) {
        kind_of::Found::Kind(kind) => kind,
        kind_of::Found::NoSuchGroup => return Ok((documents::not_found_text(), lenient)),
        kind_of::Found::NoSuchPath => return Err(Status::no_such_path()),
        kind_of::Found::NoSuchMethod => return Err(Status::method_not_allowed()),
        kind_of::Found::Refused(status) => return Err(*status),
    };
    passed.known = true;
    trail.deprecated(found.deprecated());
    let warnings = &mut passed.warnings;
    let told = warnings.len();
    warnings.extend((!found.deprecated().is_empty()).then(|| found.deprecated().to_string()));
    let accept = match verbs::forms(&found, ask, target) {
        Some(offer) => {
            accept::negotiate(headers, &ask.query, offer).inspect_err(|status| unheard(status, told, warnings))?
        }
        None => lenient,
    };
    let cx = Cx { state, user: &user, ask, headers, upgrade, accept, now, audit: trail, hearing };
    if let Some(creating) = authorize::creating(&attributes) {
        let decision = hearing.settle(|| state.authorizer.authorize(&creating, hearing)).await;
        if let Err(status) = authorize::conclude_creating(state, &creating, &decision) {
            passed.denied = Some(Verb::Create);
            return Err(status);
        }
    }
    let answer = verbs::answer(&cx, target, &found, body, warnings).await;
    Ok((answer.inspect_err(|status| unheard(status, told, warnings))?, accept))
}

/// What the router refuses reaches no handler, which would have warned.
fn unheard(status: &Status, told: usize, warnings: &mut Vec<String>) {
    if accept::is_the_routers(status) {
        warnings.truncate(told);
    }
}

/// Waits for a seat where all are taken.
async fn seat(
    state: &State,
    user: &User,
    ask: &Ask,
    deadline: Option<Instant>,
    passed: &mut Passed<'_>,
) -> Result<(), flow::Refused> {
    if flow::is_exempt_by_nature(ask) {
        return Ok(());
    }
    let Some(schema) = state.flow.classify(user, ask) else { return Ok(()) };
    passed.schema = Some(schema.clone());
    let seats = flow::seats(ask, &schema.level, || {
        let target = ask.target.as_ref()?;
        let kind = state.registry.load().kind(&target.group, &target.version, &target.resource).cloned()?;
        state.collection(&kind).ok().map(|collection| collection.snapshot())
    });
    let deadline = deadline.unwrap_or_else(|| Instant::now() + REQUEST_TIME_MAX);
    passed.seat = Some(flow::sit(&schema, user, ask, seats, deadline).await?);
    Ok(())
}

/// Whether a request has no end of its own.
fn lives_long(ask: &Ask) -> bool {
    ask.verb == Verb::Watch || flow::is_exempt_by_nature(ask)
}

/// When a request must have its answer: in [`REQUEST_TIME_MAX`], or as soon as its `timeout=` says. None for requests that
/// live long.
fn deadline(ask: &Ask, began: Instant) -> Result<Option<Instant>, Status> {
    if lives_long(ask) {
        return Ok(None);
    }
    let given = ask.query.get("timeout").filter(|text| !text.is_empty());
    let given = given
        .map_or(Ok(0.0), api::go::parse_duration)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    let time = Duration::try_from_secs_f64(given).ok().filter(|time| !time.is_zero());
    Ok(Some(began + time.map_or(REQUEST_TIME_MAX, |time| time.min(REQUEST_TIME_MAX))))
}

/// The answer to a request that took too long. What it was to write may have been written.
fn too_late(ask: &Ask) -> Status {
    match ask.verb {
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => {
            Status::timeout("Timeout: request did not complete within requested timeout - context deadline exceeded", 0)
        }
        _ => Status::timeout("Timeout: request did not complete within the allotted timeout", 0),
    }
}

/// The request's own id where it is sound, else a new one.
fn audit_id(request: &Request<RequestBody>) -> HeaderValue {
    const AUDIT_ID_BYTES_MAX: usize = 64;
    let given = request.headers().get("audit-id").filter(|id| id.len() <= AUDIT_ID_BYTES_MAX && !id.is_empty());
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().hyphenated().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static(""))
    })
}

fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
