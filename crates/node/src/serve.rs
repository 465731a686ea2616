//! What a node answers: containers' logs, who wants to connect to them, and what they use, in the form and words of the kubelet.
//! Only the API server asks: in this process, or through `serving`, which knows who it is.

use crate::agent::{Shared, lock};
use crate::logs::{LogOptions, StreamKind};
use crate::remote;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// The body of a node's answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers for a node; cheap to clone.
#[derive(Clone)]
pub struct Handler(Arc<Shared>);

impl Handler {
    pub(crate) fn new(shared: Arc<Shared>) -> Handler {
        Handler(shared)
    }

    /// As [`crate::Node::handle`].
    pub async fn handle<B>(&self, request: http::Request<B>) -> Response<Body> {
        handle(&self.0, &request.into_parts().0).await
    }
}

pub(crate) async fn handle(shared: &Arc<Shared>, head: &Parts) -> Response<Body> {
    let parts: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
    let answer = match (&head.method, parts.as_slice()) {
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            container_log(shared, namespace, pod, container, head.uri.query().unwrap_or_default())
        }
        (&Method::GET | &Method::POST, [what @ ("exec" | "attach"), namespace, pod, container]) => {
            remote::command(shared, head, [what, namespace, pod, container])
        }
        (&Method::GET | &Method::POST, ["portForward", namespace, pod]) => {
            remote::port_forward(shared, head, namespace, pod)
        }
        (&Method::GET, ["healthz"]) => Ok(text(StatusCode::OK, "ok".into())),
        (&Method::GET, ["stats", "summary"]) => Ok(typed("application/json", crate::summary::summary(shared))),
        (&Method::GET, ["metrics", "resource"]) => {
            Ok(typed("text/plain; version=0.0.4; charset=utf-8", crate::summary::metrics(shared)))
        }
        _ => Err((StatusCode::NOT_FOUND, "404 page not found".into())),
    };
    answer.unwrap_or_else(|(code, message)| text(code, message))
}

/// The code and the text of an answer that is none.
pub type Refusal = (StatusCode, String);

fn container_log(
    shared: &Shared,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let (options, previous) = options(query)?;
    let logs = {
        let index = lock(&shared.logs);
        let Some(containers) = index.get(&(namespace.to_owned(), pod.to_owned())) else {
            return Err((StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist")));
        };
        let found = containers.get(container).cloned();
        found.ok_or_else(|| {
            (StatusCode::NOT_FOUND, format!("container {container} not found in pod {pod}_{namespace}"))
        })?
    };
    let log = match (previous, logs.current, logs.previous) {
        (true, _, Some(log)) => log,
        (true, _, None) => {
            let message = format!("previous terminated container {container:?} in pod {pod:?} not found");
            return Err((StatusCode::BAD_REQUEST, message));
        }
        (false, Some(log), _) => log,
        (false, None, _) => {
            let message = format!("container {container:?} in pod {pod:?} is waiting to start: {}", logs.waiting);
            return Err((StatusCode::BAD_REQUEST, message));
        }
    };
    let stream = log.read(options).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let body = StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The options of a query, and whether the log before the last restart is meant.
fn options(query: &str) -> Result<(LogOptions, bool), Refusal> {
    let mut options = LogOptions::default();
    let mut previous = false;
    let unreadable = |name: &str, value: &str| (StatusCode::BAD_REQUEST, format!("invalid value {value:?} of {name}"));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        let flag = || matches!(value.as_str(), "" | "true" | "1" | "t" | "T" | "True" | "TRUE");
        let number = || value.parse::<u64>().map_err(|_| unreadable(name, &value));
        match name {
            "follow" => options.follow = flag(),
            "timestamps" => options.timestamps = flag(),
            "previous" => previous = flag(),
            "tailLines" => options.tail_lines = Some(number()?),
            "limitBytes" => options.limit_bytes = Some(number()?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).map_err(|_| unreadable(name, &value))?;
                options.since = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok();
            }
            "sinceTime" => options.since = Some(value.parse().map_err(|_| unreadable(name, &value))?),
            "stream" => {
                options.stream = match value.as_str() {
                    "Stdout" => Some(StreamKind::Stdout),
                    "Stderr" => Some(StreamKind::Stderr),
                    _ => None,
                }
            }
            _ => {}
        }
    }
    Ok((options, previous))
}

pub fn empty() -> Body {
    full(String::new())
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

fn typed(kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

pub fn text(code: StatusCode, message: String) -> Response<Body> {
    let mut response = Response::new(full(message));
    *response.status_mut() = code;
    response
}
