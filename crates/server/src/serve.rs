//! A request's way, on one page: read this first. Straight calls, no layers; each step is a module of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api::{Ask, Status, Verb};
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header};
use jiff::Timestamp;

use crate::accept::{self, Accept};
use crate::authn::User;
use crate::respond::{self, Answer, Body, BodyError};
use crate::state::State;
use crate::{authorize, connection, documents, impersonate, kind_of, verbs};

/// The body of a request, read only after it is known who asks and that they may.
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BodyError>;

/// Everything a verb needs to know of the request it answers.
pub struct Cx<'a> {
    pub state: &'a Arc<State>,
    pub user: &'a User,
    pub ask: &'a Ask,
    pub headers: &'a http::HeaderMap,
    pub accept: Accept,
    pub now: Timestamp,
}

/// Answers one request. Never fails: what goes wrong is an answer too.
pub async fn serve(state: &Arc<State>, peer: &connection::Peer, request: Request<RequestBody>) -> Response<Body> {
    let audit_id = audit_id(&request);
    let guarded = AssertUnwindSafe(answer(state, peer, request)).catch_unwind();
    let mut response = guarded.await.unwrap_or_else(|panic| {
        tracing::error!(panic = panic_text(&panic), "a request made the server panic");
        let status = Status::internal("this request caused apiserver to panic. Look in the logs for more information");
        respond::failure(&status, Accept::default())
    });
    let headers = response.headers_mut();
    headers.insert("audit-id", audit_id);
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    response
}

async fn answer(state: &Arc<State>, peer: &connection::Peer, request: Request<RequestBody>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let Ok(ask) = Ask::parse(head.method.as_str(), target) else {
        return respond::raw(400, "text/plain; charset=utf-8", "400 Bad Request");
    };
    let lenient = accept::lenient(&head.headers, &ask.query);
    let mut warnings = Vec::new();
    let result = steps(state, peer, &ask, &head.headers, body, &mut warnings).await;
    let mut response = match result {
        Ok((answer, accept)) => respond::respond(answer, accept),
        Err(status) => {
            let mut response = respond::failure(&status, lenient);
            if status.reason == api::Reason::Forbidden {
                response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            }
            response
        }
    };
    respond::add_warnings(response.headers_mut(), &warnings);
    state.metrics.count(&ask.verb, &ask.method, response.status().as_u16());
    response
}

/// The steps themselves, in order.
async fn steps(
    state: &Arc<State>,
    peer: &connection::Peer,
    ask: &Ask,
    headers: &http::HeaderMap,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<(Answer, Accept), Status> {
    check_timeout(ask)?;
    let now = Timestamp::now();
    let user = state.authenticate(peer, headers, now, warnings)?;
    let user = impersonate::impersonate(&state.authorizer, user, ask, headers)?;
    authorize::authorize(state, &user, ask)?;
    let lenient = accept::lenient(headers, &ask.query);
    let Some(target) = &ask.target else {
        let cx = Cx { state, user: &user, ask, headers, accept: lenient, now };
        return Ok((documents::answer(&cx)?, lenient));
    };
    let found = match kind_of::find(&state.registry.load(), ask, target) {
        kind_of::Found::Kind(kind) => kind,
        kind_of::Found::NoSuchGroup => return Ok((documents::not_found_text(), lenient)),
        kind_of::Found::NoSuchPath => return Err(Status::no_such_path()),
        kind_of::Found::NoSuchMethod => return Err(Status::method_not_allowed()),
    };
    let accept = match verbs::forms(&found, ask, target) {
        Some(offer) => accept::negotiate(headers, &ask.query, offer)?,
        None => lenient,
    };
    warnings.extend((!found.behaviour.deprecated.is_empty()).then(|| found.behaviour.deprecated.to_string()));
    let cx = Cx { state, user: &user, ask, headers, accept, now };
    Ok((verbs::answer(&cx, target, &found, body, warnings).await?, accept))
}

/// `timeout=` must be a duration, but for requests that live long; how long it may take is the server's own limit.
fn check_timeout(ask: &Ask) -> Result<(), Status> {
    let long = ask.target.as_ref().is_some_and(|target| {
        matches!(target.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    });
    let given = ask.query.get("timeout").filter(|text| !text.is_empty() && !long && ask.verb != Verb::Watch);
    given.map_or(Ok(()), |text| {
        api::go::parse_duration(text)
            .map(drop)
            .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))
    })
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
