//! A webhook that a kubeconfig names: puts a document to it over HTTPS, and again where that may help. Bounded in calls at a
//! time, in attempts and in bytes. Knows nothing of what is asked, and never logs it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kemudi_client::{Config, Error, Https, Transport};
use rand::RngExt;
use tokio::sync::Semaphore;

/// Calls under way at the same time; more wait.
const CALLS_MAX: usize = 64;
/// The largest answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Attempts, the pause after the first, and by how much each is longer than the one before; each up to a fifth longer yet.
const ATTEMPTS_MAX: u32 = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_FACTOR: f64 = 1.5;
const RETRY_JITTER: f64 = 0.2;

/// The way to a webhook.
pub struct Caller {
    transport: Box<dyn Transport>,
    /// The webhook's own, with nothing behind it.
    path: String,
    /// For messages.
    pub url: String,
    calls: Semaphore,
}

/// An answer, whatever it says.
pub struct Answer {
    pub status: StatusCode,
    /// It says when to ask again.
    pub asks_for_more: bool,
    pub body: Bytes,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub why: String,
    /// To ask again may help.
    pub is_passing: bool,
}

impl Failure {
    pub fn lasting(why: impl Into<String>) -> Failure {
        Failure { why: why.into(), is_passing: false }
    }

    /// What kept an answer away. A connection that was lost may be there again.
    fn of(error: &Error) -> Failure {
        let why = match error {
            Error::Connect { why, .. } | Error::Tls { why, .. } | Error::Lost(why) => why.clone(),
            // The client's texts end with hints about API servers, on lines of their own.
            other => other.to_string().lines().next().unwrap_or_default().to_string(),
        };
        Failure { why, is_passing: matches!(error, Error::Lost(_)) }
    }
}

impl Caller {
    /// Reads the kubeconfig; contacts nobody yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(kubeconfig: &Path) -> Result<Caller, String> {
        let mut config = Config::from_kubeconfig(Some(kubeconfig), None).map_err(|why| why.to_string())?;
        let path = std::mem::take(&mut config.server.base_path);
        let path = if path.is_empty() { "/".to_string() } else { path };
        let server = config.server.to_string();
        let https = Https::new(config).map_err(|why| why.to_string())?;
        Ok(Caller { url: format!("{server}{path}"), ..Caller::over(Box::new(https), path) })
    }

    pub fn over(transport: Box<dyn Transport>, path: String) -> Caller {
        Caller { transport, url: path.clone(), path, calls: Semaphore::new(CALLS_MAX) }
    }

    /// Puts JSON once. `query` is `""`, or begins with `?`.
    ///
    /// # Errors
    /// What kept an answer away.
    pub async fn post(&self, query: &str, json: Bytes) -> Result<Answer, Failure> {
        let request = Request::post(format!("{}{query}", self.path))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(json)
            .map_err(|why| Failure::lasting(why.to_string()))?;
        let answer = self.transport.send(request).await.map_err(|error| Failure::of(&error))?;
        let status = answer.status();
        let asks_for_more = answer.headers().contains_key(header::RETRY_AFTER);
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|why| Failure::lasting(format!("the answer cannot be read: {why}")))?.to_bytes();
        Ok(Answer { status, asks_for_more, body })
    }

    /// Asks, several times where that may help.
    ///
    /// # Errors
    /// The last failure.
    pub async fn attempt<'a, T>(
        &self,
        mut once: impl FnMut() -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let _seat = self.calls.acquire().await.map_err(|why| Failure::lasting(why.to_string()))?;
        let mut pause = RETRY_PAUSE;
        for attempt in 1.. {
            let failure = match once().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            tracing::warn!(why = failure.why, attempt, url = self.url, "a webhook cannot be asked");
            if !failure.is_passing || attempt == ATTEMPTS_MAX {
                return Err(failure);
            }
            let longer = rand::rng().random_range(0.0..RETRY_JITTER);
            tokio::time::sleep(pause.mul_f64(1.0 + longer)).await;
            pause = pause.mul_f64(RETRY_FACTOR);
        }
        Err(Failure::lasting("the webhook was not asked"))
    }
}
