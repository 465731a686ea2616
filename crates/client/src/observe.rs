//! What is told of requests to whoever measures, and how many of them may be sent. Keeps no figures of its own.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::api::Ask;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

/// One request that was sent, as [`Client::on_request`](crate::Client::on_request) tells it: also those that are repeated.
pub struct Sent<'a> {
    /// Its HTTP method.
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a str,
    /// The answer's code; `None` where none came.
    pub code: Option<StatusCode>,
    /// 0 for the first time, then counted up with each repeat.
    pub repeat: u32,
    /// Until the head of the answer was there, without the wait for [`RateLimit`].
    pub elapsed: Duration,
    /// How long it was held back before.
    pub held_back: Duration,
}

impl Sent<'_> {
    /// What it asked: verb, group, resource, subresource, namespace, name. For labels that do not grow with the number of
    /// objects take the first four.
    pub fn ask(&self) -> Option<Ask> {
        Ask::parse(self.method.as_str(), self.target).ok()
    }
}

impl fmt::Debug for Sent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.map_or("no answer".to_string(), |code| code.as_u16().to_string());
        write!(f, "{} {}: {code} after {:?}", self.method, self.target, self.elapsed)
    }
}

/// How many requests a client sends: so many a second, and so many at once after a pause. Servers defend themselves (429), so
/// that a client needs none of this; it is for those who want to leave the server to others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// In the long run.
    pub per_second: f64,
    /// At once.
    pub burst: u32,
}

/// A bucket that fills as time passes.
pub(crate) struct Bucket {
    limit: RateLimit,
    state: Mutex<Level>,
}

struct Level {
    /// Requests that may be sent now; less than none where some wait.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub fn new(limit: RateLimit) -> Bucket {
        let level = Level { tokens: f64::from(limit.burst.max(1)), at: Instant::now() };
        Bucket { limit, state: Mutex::new(level) }
    }

    /// Waits for its turn; how long that took. In the order of arrival.
    pub async fn take(&self) -> Duration {
        let wait = self.reserve(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        wait
    }

    fn reserve(&self, now: Instant) -> Duration {
        let per_second = self.limit.per_second.max(f64::MIN_POSITIVE);
        let mut level = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.duration_since(level.at).as_secs_f64() * per_second;
        level.at = now;
        level.tokens = (level.tokens + gained).min(f64::from(self.limit.burst.max(1))) - 1.0;
        match level.tokens < 0.0 {
            true => Duration::try_from_secs_f64(-level.tokens / per_second).unwrap_or(Duration::MAX),
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_one_after_the_other() {
        let bucket = Bucket::new(RateLimit { per_second: 10.0, burst: 3 });
        let start = Instant::now();
        let at = |millis: u64| bucket.reserve(start + Duration::from_millis(millis)).as_millis();
        assert_eq!([at(0), at(0), at(0), at(0), at(0)], [0, 0, 0, 100, 200]);
        assert_eq!([at(200), at(1000), at(1000), at(1000), at(1000)], [100, 0, 0, 0, 100]);
    }
}
