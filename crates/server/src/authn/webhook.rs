//! Tokens that somebody else judges: each that nobody here knows is put to a webhook as a TokenReview, and what it says is
//! remembered for a while. Bounded in calls at a time, in time and in what is remembered. Never logs a token.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{go, meta};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::remembered::{Hash, Remembered};
use super::{User, intersect};
use crate::caller::{Caller, Failure};

/// Answers that are remembered, in two generations of this size.
const ANSWERS_MAX: usize = 16 << 10;
/// One token's way to an answer, with all attempts.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);

/// How the webhook is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--authentication-token-webhook-config-file`: a kubeconfig whose current context is the webhook.
    pub config_file: PathBuf,
    /// `--authentication-token-webhook-cache-ttl`
    pub remembered_for: Duration,
    /// `--authentication-token-webhook-version`: `v1` or `v1beta1`.
    pub version: String,
}

/// The webhook.
pub struct Webhook {
    caller: Caller,
    version: String,
    remembered_for: Duration,
    /// The audiences of this server, which are meant where the webhook names none.
    audiences: Vec<String>,
    answers: Remembered<Answer>,
    /// Calls under way, as long as somebody waits for them.
    running: Mutex<HashMap<Hash, WeakShared<Calling>>>,
}

/// A user, and for which of the wanted audiences they are vouched for.
type Vouched = (Arc<User>, Vec<String>);

type Calling = BoxFuture<'static, Result<Arc<Answer>, String>>;

/// What the webhook said of a token.
struct Answer {
    /// The user and the audiences in common, or that it knows nobody.
    known: Option<Vouched>,
    at: Instant,
}

impl Webhook {
    /// Reads the kubeconfig; contacts nobody yet.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn new(options: &Options, audiences: Vec<String>) -> Result<Webhook, String> {
        if !["v1", "v1beta1"].contains(&options.version.as_str()) {
            let version = go::quote(&options.version);
            return Err(format!(
                "unsupported authentication webhook version {version}, supported versions are \"v1\", \"v1beta1\""
            ));
        }
        Ok(Webhook::of(Caller::new(&options.config_file)?, options, audiences))
    }

    fn of(caller: Caller, options: &Options, audiences: Vec<String>) -> Webhook {
        Webhook {
            caller,
            version: options.version.clone(),
            remembered_for: options.remembered_for,
            audiences,
            answers: Remembered::new(ANSWERS_MAX),
            running: Mutex::default(),
        }
    }

    /// Whom a token stands for, and for which of the audiences; nothing where the webhook knows nobody.
    ///
    /// # Errors
    /// What the webhook says is wrong with the token, or why it cannot be asked.
    pub async fn authenticate(
        self: &Arc<Webhook>,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Vouched>, String> {
        let key = key(token, audiences);
        if let Some(answer) = self.answers.get(&key).filter(|answer| answer.at.elapsed() < self.remembered_for) {
            return Ok(answer.known.clone());
        }
        Ok(self.call(key, token, audiences).await?.known.clone())
    }

    /// Asks, or waits for who asks the same already.
    async fn call(self: &Arc<Webhook>, key: Hash, token: &str, audiences: &[String]) -> Result<Arc<Answer>, String> {
        let calling = {
            let mut running = self.lock();
            running.retain(|_, calling| calling.upgrade().is_some());
            match running.get(&key).and_then(WeakShared::upgrade) {
                Some(calling) => calling,
                None => {
                    let (webhook, token, audiences) = (self.clone(), token.to_string(), audiences.to_vec());
                    let calling: Shared<Calling> = async move {
                        let asked = tokio::time::timeout(LOOKUP_TIME_MAX, webhook.ask(&token, &audiences)).await;
                        let known = asked.unwrap_or_else(|_| Err("the webhook gave no answer in time".into()))?;
                        let answer = Arc::new(Answer { known, at: Instant::now() });
                        webhook.answers.put(key, answer.clone());
                        Ok(answer)
                    }
                    .boxed()
                    .shared();
                    running.extend(calling.downgrade().map(|weak| (key, weak)));
                    calling
                }
            }
        };
        calling.await
    }

    /// Asks, several times where that may help.
    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Option<Vouched>, String> {
        let once = || self.ask_once(token, audiences).boxed();
        let review = self.caller.attempt(once).await.map_err(|failure| failure.why)?;
        self.read(&review, audiences)
    }

    async fn ask_once(&self, token: &str, audiences: &[String]) -> Result<Value, Failure> {
        let review = json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {},
            "spec": {"token": token, "audiences": audiences},
            "status": {"user": {}},
        });
        let answer = self.caller.post("", Bytes::from(review.to_string())).await?;
        let status = answer.status;
        let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if !status.is_success() {
            let told = value.as_ref().map_or("", |value| meta::text_at(value, &["message"]));
            let why = if told.is_empty() { format!("the webhook answered {status}") } else { told.to_string() };
            let passing =
                [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::GATEWAY_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
            return Err(Failure { why, is_passing: answer.asks_for_more || passing.contains(&status) });
        }
        let is_review = |value: &Value| value["kind"] == "TokenReview" && value["apiVersion"] == review["apiVersion"];
        value.filter(is_review).ok_or_else(|| {
            Failure::lasting(format!(
                "the webhook's answer is no TokenReview of {}",
                meta::text_at(&review, &["apiVersion"])
            ))
        })
    }

    /// What an answer says.
    fn read(&self, review: &Value, wanted: &[String]) -> Result<Option<Vouched>, String> {
        let status = &review["status"];
        let given: Vec<String> =
            meta::items_at(status, &["audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
        let common = intersect(if given.is_empty() { &self.audiences } else { &given }, wanted);
        if common.is_empty() {
            return Ok(None);
        }
        if status["authenticated"] != true {
            return match meta::text_at(status, &["error"]) {
                "" => Ok(None),
                why => Err(why.to_string()),
            };
        }
        let user = status.get("user").cloned().unwrap_or_else(|| json!({}));
        let user: User =
            serde_json::from_value(user).map_err(|why| format!("the webhook's user cannot be read: {why}"))?;
        match user.name.is_empty() {
            true => Err("the webhook's user has no name".into()),
            false => Ok(Some((Arc::new(user), common))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, WeakShared<Calling>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer is remembered by: no token may be mistaken for another with other audiences.
fn key(token: &str, audiences: &[String]) -> Hash {
    let mut hash = Sha256::new();
    for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Request;
    use kemudi_client::Transport;
    use kemudi_client::transport::{Body, full};

    use super::*;

    /// Answers each call with the next of its texts, the last one from there on.
    struct Told {
        answers: Vec<(u16, String)>,
        calls: Arc<AtomicUsize>,
    }

    impl Transport for Told {
        fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, kemudi_client::Result<http::Response<Body>>> {
            assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/authenticate"));
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            let (code, text) = self.answers.get(call).or(self.answers.last()).unwrap();
            let response = http::Response::builder().status(*code).body(full(text.clone())).unwrap();
            // Let others come in between.
            async move {
                tokio::task::yield_now().await;
                Ok(response)
            }
            .boxed()
        }
    }

    fn webhook(answers: &[(u16, &str)]) -> (Arc<Webhook>, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let answers = answers.iter().map(|(code, text)| (*code, text.to_string())).collect();
        let told = Told { answers, calls: calls.clone() };
        let options =
            Options { config_file: PathBuf::new(), remembered_for: Duration::from_secs(120), version: "v1".into() };
        let caller = Caller::over(Box::new(told), "/authenticate".into());
        (Arc::new(Webhook::of(caller, &options, vec!["api".into()])), calls)
    }

    async fn ask(webhook: &Arc<Webhook>, token: &str, audiences: &[&str]) -> String {
        let audiences: Vec<String> = audiences.iter().map(ToString::to_string).collect();
        match webhook.authenticate(token, &audiences).await {
            Ok(Some((user, audiences))) => format!("{} {}", user.name, audiences.join(",")),
            Ok(None) => "nobody".into(),
            Err(why) => why,
        }
    }

    fn review(status: &str) -> String {
        format!(r#"{{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{status}}}"#)
    }

    #[track_caller]
    fn check(code: u16, answer: &str, want: &str, want_calls: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (webhook, calls) = webhook(&[(code, answer)]);
        assert_eq!(runtime.block_on(ask(&webhook, "t", &["api"])), want, "{answer}");
        assert_eq!(calls.load(Ordering::SeqCst), want_calls, "{answer}");
    }

    #[test]
    fn what_a_webhook_says() {
        check(200, &review(r#"{"authenticated":true,"user":{"username":"ann"}}"#), "ann api", 1);
        check(
            201,
            &review(r#"{"authenticated":true,"user":{"username":"ann"},"audiences":["api","db"]}"#),
            "ann api",
            1,
        );
        check(200, &review(r#"{"authenticated":true,"user":{"username":"ann"},"audiences":["db"]}"#), "nobody", 1);
        check(200, &review(r#"{"authenticated":false}"#), "nobody", 1);
        check(200, &review(r#"{"error":"too old"}"#), "too old", 1);
        check(200, &review(r#"{"authenticated":true,"user":{}}"#), "the webhook's user has no name", 1);
        check(200, "{}", "the webhook's answer is no TokenReview of authentication.k8s.io/v1", 1);
        check(200, "", "the webhook's answer is no TokenReview of authentication.k8s.io/v1", 1);
        check(403, r#"{"message":"not you"}"#, "not you", 1);
        check(503, "", "the webhook answered 503 Service Unavailable", 1);
        check(500, "", "the webhook answered 500 Internal Server Error", 5);
        check(429, "", "the webhook answered 429 Too Many Requests", 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again() {
        let good = review(r#"{"authenticated":true,"user":{"username":"ann"}}"#);
        let (webhook, calls) = webhook(&[(500, ""), (429, ""), (200, &good)]);
        let began = Instant::now();
        assert_eq!(ask(&webhook, "t", &["api"]).await, "ann api");
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        let waited = began.elapsed().as_millis();
        assert!((1250..=1600).contains(&waited), "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_remembered_for_a_while_and_failures_are_not() {
        let good = review(r#"{"authenticated":true,"user":{"username":"ann"}}"#);
        let (webhook, calls) = webhook(&[(200, &good), (200, &good), (403, ""), (200, &good)]);
        let count = || calls.load(Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(ask(&webhook, "t", &["api"]).await, "ann api");
        }
        assert_eq!(count(), 1);
        assert_eq!(ask(&webhook, "t", &["api", "db"]).await, "ann api");
        assert_eq!(count(), 2, "other audiences are another question");
        tokio::time::advance(Duration::from_secs(121)).await;
        assert_eq!(ask(&webhook, "t", &["api"]).await, "the webhook answered 403 Forbidden");
        assert_eq!(ask(&webhook, "t", &["api"]).await, "ann api");
        assert_eq!(count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_the_same_at_the_same_time_asks_once() {
        let (webhook, calls) = webhook(&[(200, &review(r#"{"authenticated":true,"user":{"username":"ann"}}"#))]);
        let all = futures_util::future::join_all((0..20).map(|_| ask(&webhook, "t", &["api"]))).await;
        assert!(all.iter().all(|one| one == "ann api"), "{all:?}");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        // Who gives up takes nothing from those who ask after them.
        let mut given_up = Box::pin(ask(&webhook, "u", &["api"]));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        assert_eq!(ask(&webhook, "u", &["api"]).await, "ann api");
        assert!(webhook.lock().len() <= 1);
    }

    #[test]
    fn versions_that_there_are_not() {
        let options = Options { config_file: "x".into(), remembered_for: Duration::ZERO, version: "v2".into() };
        assert_eq!(
            Webhook::new(&options, Vec::new()).err().unwrap(),
            "unsupported authentication webhook version \"v2\", supported versions are \"v1\", \"v1beta1\""
        );
    }
}
