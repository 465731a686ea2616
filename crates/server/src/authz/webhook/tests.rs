//! What answers come to, beside what kube-apiserver 1.37 makes of the same, and when a webhook is asked again.

use futures_util::future::BoxFuture;
use http::Request;
use kemudi_client::Transport;
use kemudi_client::transport::{Body, full};

use super::*;
use crate::authn::User;
use crate::authz::Hearing;

/// Answers each call with the next of its texts, the last one from there on; none is an answer that never comes.
struct Told {
    answers: Vec<Option<(u16, String)>>,
    retry_after: bool,
    calls: Arc<AtomicUsize>,
}

impl Transport for Told {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, kemudi_client::Result<http::Response<Body>>> {
        assert_eq!(request.uri().to_string(), "/authorize?timeout=3s");
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(call).or(self.answers.last()).unwrap().clone();
        async move {
            let Some((code, text)) = answer else { return std::future::pending().await };
            let mut response = http::Response::builder().status(code);
            if self.retry_after {
                response = response.header("retry-after", "0");
            }
            Ok(response.body(full(text)).unwrap())
        }
        .boxed()
    }
}

struct Asking {
    webhook: Arc<Webhook>,
    calls: Arc<AtomicUsize>,
}

impl Asking {
    fn new(answers: &[Option<(u16, &str)>], retry_after: bool, failure_policy: FailurePolicy) -> Asking {
        let calls = Arc::new(AtomicUsize::new(0));
        let answers = answers.iter().map(|answer| answer.map(|(code, text)| (code, text.to_string()))).collect();
        let told = Told { answers, retry_after, calls: calls.clone() };
        let options = Options {
            kubeconfig: PathBuf::new(),
            timeout: Duration::from_secs(3),
            version: "v1".into(),
            authorized_for: Duration::from_secs(300),
            unauthorized_for: Duration::from_secs(30),
            failure_policy,
            conditions: Arc::default(),
        };
        let caller = Caller::over(Box::new(told), "/authorize".into());
        Asking { webhook: Arc::new(Webhook::of("hook", &options, Arc::default(), caller)), calls }
    }

    /// What a request hears.
    async fn ask(&self, attributes: &Attributes<'_>) -> String {
        let hearing = Hearing::default();
        let heard = hearing.settle(|| hearing.hear(&self.webhook, attributes)).await;
        match heard.unwrap() {
            Decision::Allow { reason } => format!("allow {reason}"),
            Decision::NoOpinion { reason, error } => format!("nothing {reason}{error}"),
            Decision::Deny { reason, error } if reason.is_empty() || error.is_empty() => {
                format!("deny {reason}{error}")
            }
            Decision::Deny { reason, error } => format!("deny {reason}: {error}"),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// What one answer comes to where failures deny, and how often it is asked for.
#[track_caller]
fn check(code: u16, answer: &str, want: &str, want_calls: usize) {
    check_with(code, answer, false, want, want_calls);
}

#[track_caller]
fn check_with(code: u16, answer: &str, retry_after: bool, want: &str, want_calls: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let asking = Asking::new(&[Some((code, answer))], retry_after, FailurePolicy::Deny);
    let user = User::new("jane", ["devs"]);
    let got = runtime.block_on(asking.ask(&Attributes::path(&user, "get", "/healthz")));
    assert_eq!(got.trim_end(), want, "{code} {answer}");
    assert_eq!(asking.calls(), want_calls, "{code} {answer}");
}

fn review(status: &str) -> String {
    format!(r#"{{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{status}}}"#)
}

#[test]
fn what_a_webhook_says() {
    for code in [200, 201] {
        check(code, &review(r#"{"allowed":true,"reason":"because"}"#), "allow because", 1);
    }
    check(200, &review(r#"{"allowed":true,"more":1}"#), "allow", 1);
    check(200, r#"{"status":{"allowed":true}}"#, "allow", 1);
    check(200, &review(r#"{"denied":true,"reason":"r"}"#), "deny r", 1);
    check(
        200,
        &review(r#"{"allowed":true,"denied":true,"reason":"r"}"#),
        "deny r: webhook subject access review returned both allow and deny response",
        1,
    );
    check(200, &review(r#"{"reason":"r","evaluationError":"x"}"#), "nothing r", 1);
    check(200, &review("{}"), "nothing", 1);
    check(200, &review("null"), "nothing", 1);
}

#[test]
fn answers_that_are_none() {
    check(
        200,
        &review("{}").replace("/v1\"", "/v1beta1\""),
        "deny converting (v1beta1.SubjectAccessReview) to (v1.SubjectAccessReview): unknown conversion",
        1,
    );
    check(
        200,
        &review("{}").replace("/v1\"", "/v9\""),
        "deny no kind \"SubjectAccessReview\" is registered for version \"authorization.k8s.io/v9\" in scheme \
         \"pkg/runtime/scheme.go:111\"",
        1,
    );
    check(
        200,
        &review(r#"{"allowed":"yes"}"#),
        "deny json: cannot unmarshal string into Go struct field SubjectAccessReviewStatus.status.allowed of type bool",
        1,
    );
    check(
        200,
        r#""nonsense""#,
        r#"deny couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#,
        1,
    );
    check(200, "", "deny 0-length response with status code: 200 and content type: application/json", 1);
}

#[test]
fn what_passes_is_tried_again_and_what_lasts_is_not() {
    let status = |reason: &str| {
        format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"told","reason":"{reason}"}}"#)
    };
    check(403, &status("Forbidden"), "deny told", 1);
    check(500, &status("InternalError"), "deny told", 5);
    check(403, "go away", "deny go away", 1);
    check(404, "go away", "deny the server could not find the requested resource", 1);
    check(400, "go away", "deny the server rejected our request for an unknown reason", 1);
    check(401, "go away", "deny the server has asked for the client to provide credentials", 1);
    for code in [500, 502] {
        check(code, "oh", "deny an error on the server (\"oh\") has prevented the request from succeeding", 5);
    }
    let unable = "deny the server is currently unable to handle the request";
    check(503, "oh", unable, 1);
    check_with(503, "oh", true, unable, 5);
    check(
        504,
        "oh",
        "deny the server was unable to return a response in the time allotted, but may still be processing the request",
        5,
    );
    check(429, "oh", "deny the server has received too many requests and has asked us to try again later", 5);
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_an_answer_ends_them() {
    let good = review(r#"{"allowed":true}"#);
    let asking = Asking::new(&[Some((500, "")), Some((429, "")), Some((200, &good))], false, FailurePolicy::Deny);
    let user = User::new("jane", ["devs"]);
    let began = Instant::now();
    assert_eq!(asking.ask(&Attributes::path(&user, "get", "/x")).await, "allow ");
    assert_eq!(asking.calls(), 3);
    let waited = began.elapsed().as_millis();
    assert!((1250..=1600).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn who_never_answers_is_not_asked_again() {
    let user = User::new("jane", ["devs"]);
    let why =
        "Post \"/authorize?timeout=3s\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    for (policy, word) in [(FailurePolicy::Deny, "deny"), (FailurePolicy::NoOpinion, "nothing")] {
        let asking = Asking::new(&[None], false, policy);
        let began = Instant::now();
        assert_eq!(asking.ask(&Attributes::path(&user, "get", "/x")).await, format!("{word} {why}"));
        assert_eq!((asking.calls(), began.elapsed().as_secs()), (1, 3));
        let open = asking.webhook.counts.fail_open[TIMEOUT].load(Ordering::Relaxed);
        assert_eq!(open, u64::from(policy == FailurePolicy::NoOpinion));
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_for_their_time_and_long_questions_and_failures_are_not() {
    let (yes, no) = (review(r#"{"allowed":true}"#), review(r#"{"allowed":false}"#));
    let asking = Asking::new(
        &[Some((200, &yes)), Some((200, &no)), Some((403, "")), Some((200, &yes))],
        false,
        FailurePolicy::NoOpinion,
    );
    let user = User::new("jane", ["devs"]);
    let ask = async |path: &str, want: &str, calls: usize| {
        assert_eq!(asking.ask(&Attributes::path(&user, "get", path)).await.trim_end(), want);
        assert_eq!(asking.calls(), calls, "{path}");
    };
    ask("/yes", "allow", 1).await;
    ask("/yes", "allow", 1).await;
    ask("/no", "nothing", 2).await;
    ask("/no", "nothing", 2).await;
    tokio::time::advance(Duration::from_secs(31)).await;
    ask("/yes", "allow", 2).await;
    ask("/no", "nothing", 3).await;
    ask("/no", "allow", 4).await;
    tokio::time::advance(Duration::from_secs(270)).await;
    ask("/yes", "allow", 5).await;
    let long = format!("/{}", "x".repeat(CONTROLLED_BYTES_MAX));
    ask(&long, "allow", 6).await;
    ask(&long, "allow", 7).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_may_not_ask_without_end() {
    let asking = Asking::new(&[Some((200, &review(r#"{"allowed":true}"#)))], false, FailurePolicy::Deny);
    let user = User::new("jane", ["devs"]);
    let hearing = Hearing::default();
    let paths: Vec<String> = (0..300).map(|at| format!("/{at}")).collect();
    let all = hearing
        .settle(|| {
            let heard = |path: &String| hearing.hear(&asking.webhook, &Attributes::path(&user, "get", path));
            paths.iter().map_while(heard).filter(Decision::is_allowed).count()
        })
        .await;
    assert_eq!((all, asking.calls()), (256, 256));
}
