//! The webhook authorizer: puts what somebody wants to do to somebody else, as a SubjectAccessReview, unless its match
//! conditions say that it need not be asked. Bounded in time, in answers that are remembered, and in calls at a time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::go;
use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use kinds::schema::Schema;
use kinds::{decode, scalar, tables};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Attributes, Decision, Reason, aggregate, review};
use crate::authn::expression::{Expression, Subject};
use crate::authn::remembered::{Hash, Remembered};
use crate::caller::{Answer, Caller, Failure};
use crate::metrics::Histogram;

/// Answers that are remembered: 8192 in all, in two generations of this size.
const ANSWERS_MAX: usize = 4096;
/// What its asker chooses of a question; the answer to a longer one is not remembered.
const CONTROLLED_BYTES_MAX: usize = 10_000;
/// Upper bounds of calls and of match conditions, in seconds, as the API server has them.
pub static DURATIONS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
pub static CONDITION_DURATIONS: [f64; 7] = [0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];
/// What becomes of a call.
pub const RESULTS: [&str; 3] = ["success", "timeout", "error"];
const SUCCESS: usize = 0;
const TIMEOUT: usize = 1;
const ERROR: usize = 2;

/// The types of an answer, in the form of the tables of built-in kinds.
const TYPES: &str = "\
authorization.v1.SubjectAccessReview
  kind string 0 omitempty
  apiVersion string 0 omitempty
  metadata any 1 omitempty
  spec any 2
  status authorization.v1.SubjectAccessReviewStatus 3 omitempty
authorization.v1.SubjectAccessReviewStatus
  allowed bool 1
  denied bool 4 omitempty
  reason string 2 omitempty
  evaluationError string 3 omitempty
";

/// What is said where the webhook cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The next one is asked.
    NoOpinion,
    Deny,
}

/// How a webhook is set up.
#[derive(Clone)]
pub struct Options {
    /// A kubeconfig whose current context is the webhook.
    pub kubeconfig: PathBuf,
    /// Of one call.
    pub timeout: Duration,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// How long a permission is remembered; zero for not at all.
    pub authorized_for: Duration,
    /// The same for all other answers.
    pub unauthorized_for: Duration,
    pub failure_policy: FailurePolicy,
    /// All must be true of a request that the webhook is asked about.
    pub conditions: Arc<[Expression]>,
}

/// A webhook.
pub struct Webhook {
    name: String,
    options: Options,
    caller: Caller,
    answers: Remembered<Remembrance>,
    counts: Arc<Counts>,
}

/// What metrics tell of a webhook.
#[derive(Default)]
pub struct Counts {
    /// Calls by what became of them.
    pub calls: [AtomicU64; RESULTS.len()],
    pub durations: [Histogram<{ DURATIONS.len() }>; RESULTS.len()],
    /// Calls that failed, and the next authorizer was asked.
    pub fail_open: [AtomicU64; RESULTS.len()],
    pub condition_errors: AtomicU64,
    pub condition_exclusions: AtomicU64,
    pub condition_durations: Histogram<{ CONDITION_DURATIONS.len() }>,
}

struct Remembrance {
    status: Status,
    until: Instant,
}

/// What a webhook says of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
    denied: bool,
    reason: String,
}

/// What a webhook is to be asked.
pub struct Question {
    webhook: Arc<Webhook>,
    spec: Value,
    /// Of the spec.
    hash: Hash,
    is_remembered: bool,
}

/// What can be said without waiting.
pub enum Heard {
    Answer(Decision),
    Nothing,
}

impl Webhook {
    /// Reads the kubeconfig; contacts nobody yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(name: &str, options: &Options, counts: Arc<Counts>) -> Result<Webhook, String> {
        Ok(Webhook::of(name, options, counts, Caller::new(&options.kubeconfig)?))
    }

    fn of(name: &str, options: &Options, counts: Arc<Counts>, caller: Caller) -> Webhook {
        let answers = Remembered::new(ANSWERS_MAX);
        Webhook { name: name.to_string(), options: options.clone(), caller, answers, counts }
    }

    /// What is said in place of the webhook.
    fn failed(&self, error: String) -> Decision {
        let reason = String::new();
        match self.options.failure_policy {
            FailurePolicy::NoOpinion => Decision::NoOpinion { reason, error },
            FailurePolicy::Deny => Decision::Deny { reason, error },
        }
    }

    /// Why the webhook need not be asked, if so.
    fn excluded(&self, attributes: &Attributes<'_>, spec: &Value) -> Option<Decision> {
        if self.options.conditions.is_empty() {
            return None;
        }
        let began = Instant::now();
        let subject = Subject::of(&review::subject(attributes, spec));
        let mut errors = Vec::new();
        let mut is_excluded = false;
        for condition in self.options.conditions.iter() {
            match condition.is_true(&subject) {
                Ok(true) => {}
                Ok(false) => {
                    is_excluded = true;
                    break;
                }
                Err(why) => errors.push(format!("cel evaluation error: {why}")),
            }
        }
        let counts = &self.counts;
        counts.condition_durations.add(&CONDITION_DURATIONS, began.elapsed().as_secs_f64());
        if !errors.is_empty() {
            counts.condition_errors.fetch_add(1, Ordering::Relaxed);
        }
        if is_excluded {
            counts.condition_exclusions.fetch_add(1, Ordering::Relaxed);
            return Some(Decision::NONE);
        }
        (!errors.is_empty()).then(|| self.failed(aggregate(&errors)))
    }

    fn remembered(&self, hash: &Hash) -> Option<Status> {
        let found = self.answers.get(hash)?;
        (Instant::now() < found.until).then(|| found.status.clone())
    }

    /// One call, in its time. `became` is told which of the [`RESULTS`] it had.
    async fn call(&self, body: Bytes, became: &AtomicUsize) -> Result<Status, Failure> {
        let timeout = scalar::print_duration(i64::try_from(self.options.timeout.as_nanos()).unwrap_or(i64::MAX));
        let query = format!("?timeout={timeout}");
        let began = Instant::now();
        let called = tokio::time::timeout(self.options.timeout, self.caller.post(&query, body)).await;
        let posted = |why: &str| format!("Post {}: {why}", go::quote(&format!("{}{query}", self.caller.url)));
        let (result, status) = match called {
            Err(_) => {
                let why = posted("context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
                (TIMEOUT, Err(Failure::lasting(why)))
            }
            Ok(Err(failure)) => (ERROR, Err(Failure { why: posted(&failure.why), ..failure })),
            Ok(Ok(answer)) => {
                let late = answer.status == StatusCode::GATEWAY_TIMEOUT;
                match read(&answer, &self.options.version) {
                    Ok(status) => (SUCCESS, Ok(status)),
                    Err(failure) => (if late { TIMEOUT } else { ERROR }, Err(failure)),
                }
            }
        };
        self.counts.calls[result].fetch_add(1, Ordering::Relaxed);
        self.counts.durations[result].add(&DURATIONS, began.elapsed().as_secs_f64());
        became.store(result, Ordering::Relaxed);
        status
    }
}

impl Question {
    pub fn new(webhook: &Arc<Webhook>, attributes: &Attributes<'_>) -> Question {
        let spec = review::spec(attributes);
        let hash = Sha256::digest(spec.to_string().as_bytes()).into();
        let Attributes { namespace, verb, group, version, resource, subresource, name, path, .. } = *attributes;
        let controlled = [namespace, verb, group, version, resource, subresource, name, path];
        let is_remembered = controlled.iter().map(|text| text.len()).sum::<usize>() < CONTROLLED_BYTES_MAX;
        Question { webhook: webhook.clone(), spec, hash, is_remembered }
    }

    /// The same question to the same webhook.
    pub fn is(&self, other: &Question) -> bool {
        self.hash == other.hash && Arc::ptr_eq(&self.webhook, &other.webhook)
    }

    /// What is known of the answer: that none is needed, or an earlier one.
    pub fn begin(&self, attributes: &Attributes<'_>) -> Heard {
        if let Some(decision) = self.webhook.excluded(attributes, &self.spec) {
            return Heard::Answer(decision);
        }
        self.webhook.remembered(&self.hash).map_or(Heard::Nothing, |status| Heard::Answer(status.decision()))
    }

    /// Asks, several times where that may help.
    pub async fn ask(&self) -> Decision {
        let webhook = &self.webhook;
        let body = Bytes::from(review::whole(&self.spec, &webhook.options.version));
        let became = AtomicUsize::new(ERROR);
        let status = match webhook.caller.attempt(|| webhook.call(body.clone(), &became).boxed()).await {
            Ok(status) => status,
            Err(failure) => {
                if webhook.options.failure_policy == FailurePolicy::NoOpinion {
                    webhook.counts.fail_open[became.into_inner()].fetch_add(1, Ordering::Relaxed);
                }
                tracing::error!(why = failure.why, name = webhook.name, "Failed to make webhook authorizer request");
                return webhook.failed(failure.why);
            }
        };
        let time = if status.allowed { webhook.options.authorized_for } else { webhook.options.unauthorized_for };
        if self.is_remembered && !time.is_zero() {
            let until = Instant::now().checked_add(time).unwrap_or_else(|| Instant::now() + FOR_EVER);
            webhook.answers.put(self.hash, Arc::new(Remembrance { status: status.clone(), until }));
        }
        status.decision()
    }
}

/// Longer than any answer is remembered.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Status {
    fn decision(self) -> Decision {
        let Status { allowed, denied, reason } = self;
        match (denied, allowed) {
            (true, true) => {
                let error = "webhook subject access review returned both allow and deny response".to_string();
                Decision::Deny { reason, error }
            }
            (true, false) => Decision::Deny { reason, error: String::new() },
            (false, true) => Decision::Allow { reason: Reason::Told(reason.into()) },
            (false, false) => Decision::no_opinion(reason),
        }
    }
}

/// What an answer says.
fn read(answer: &Answer, version: &str) -> Result<Status, Failure> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| tables::types_of(TYPES));
    let code = answer.status.as_u16();
    if !(200..=206).contains(&code) {
        return Err(refused(answer));
    }
    if answer.body.is_empty() {
        let why = format!("0-length response with status code: {code} and content type: application/json");
        return Err(Failure::lasting(why));
    }
    let (api_version, kind) = decode::type_meta(&answer.body)
        .map_err(|why| Failure::lasting(format!("couldn't get version/kind; json parse error: {why}")))?;
    check_type(&api_version, &kind, version).map_err(Failure::lasting)?;
    let root = SCHEMA.find("authorization.v1.SubjectAccessReview").ok_or(Failure::lasting("the answer has no type"))?;
    let decoded = decode::decode(&SCHEMA, root, &answer.body).map_err(|why| Failure::lasting(why.to_string()))?;
    let status = api::codec::without_nulls(decoded.object["status"].clone());
    match status {
        Value::Null => Ok(Status::default()),
        status => serde_json::from_value(status).map_err(|why| Failure::lasting(why.to_string())),
    }
}

/// What an answer leaves out of its type is taken to be right.
fn check_type(api_version: &str, kind: &str, version: &str) -> Result<(), String> {
    const KIND: &str = "SubjectAccessReview";
    let own = review::api_version(version);
    let given = (if api_version.is_empty() { &own } else { api_version }, if kind.is_empty() { KIND } else { kind });
    match given {
        (group_version, KIND) if group_version == own => Ok(()),
        ("authorization.k8s.io/v1" | "authorization.k8s.io/v1beta1", kind @ (KIND | "SelfSubjectAccessReview")) => {
            let from = given.0.rsplit('/').next().unwrap_or_default();
            Err(format!("converting ({from}.{kind}) to ({version}.{KIND}): unknown conversion"))
        }
        (group_version, kind) => Err(format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            go::quote(kind),
            go::quote(group_version)
        )),
    }
}

/// What an answer without success says, as client-go tells it.
fn refused(answer: &Answer) -> Failure {
    let code = answer.status.as_u16();
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let is_status = text("kind") == "Status" && text("apiVersion") == "v1" && text("status") != "Success";
    let body = String::from_utf8_lossy(&answer.body);
    let (reason, why) = match code {
        400 => ("BadRequest", "the server rejected our request for an unknown reason".to_string()),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_string()),
        403 => ("Forbidden", body.trim().to_string()),
        404 => ("NotFound", "the server could not find the requested resource".to_string()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".to_string()),
        409 => ("AlreadyExists", "the server reported a conflict".to_string()),
        422 => ("Invalid", "the server rejected our request due to an error in our request".to_string()),
        429 => {
            let why = "the server has received too many requests and has asked us to try again later";
            ("TooManyRequests", why.to_string())
        }
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_string()),
        504 => {
            let why = "the server was unable to return a response in the time allotted, but may still be processing the \
                       request";
            ("Timeout", why.to_string())
        }
        500.. => {
            let shown = go::quote(body.trim());
            ("InternalError", format!("an error on the server ({shown}) has prevented the request from succeeding"))
        }
        _ => ("", format!("the server responded with the status code {code} but did not return more information")),
    };
    let (reason, why) = match is_status {
        true => (text("reason"), text("message").to_string()),
        false => (reason, why),
    };
    let is_passing = answer.asks_for_more || ["InternalError", "Timeout", "TooManyRequests"].contains(&reason);
    Failure { why, is_passing }
}

#[cfg(test)]
mod tests;
