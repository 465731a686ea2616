//! Which requests are sent again, and when. Decides only: the client sleeps and sends.
//!
//! A request is repeated where it was surely not executed (nobody listened, or the server turned it away with 429), or where
//! executing it twice is the same as once. A create is never repeated after it may have been executed: a second object, or
//! an `AlreadyExists` about the caller's own one, would be the answer.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response};

use crate::error::{Error, Result};
use crate::transport::Body;

/// How often and how long a request is repeated, where that is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Most repeats after the first time.
    pub repeats_max: u32,
    /// No repeat begins later than this after the first time. A server's `Retry-After` that leads beyond it is not waited for.
    pub elapsed_max: Duration,
    /// The pause before the first repeat, where the server names none; it doubles with each, and is varied by a quarter.
    pub pause_min: Duration,
    /// The longest such pause.
    pub pause_max: Duration,
}

impl Retries {
    /// Every request is sent once.
    pub const NONE: Retries =
        Retries { repeats_max: 0, elapsed_max: Duration::ZERO, pause_min: Duration::ZERO, pause_max: Duration::ZERO };

    /// The pause before the next repeat; `None` where `outcome` is what the caller gets.
    pub(crate) fn pause(
        &self,
        request: &Request<Bytes>,
        outcome: Result<&Response<Body>, &Error>,
        repeats: u32,
        elapsed: Duration,
    ) -> Option<Duration> {
        if repeats >= self.repeats_max {
            return None;
        }
        let asked = outcome.ok().and_then(retry_after);
        let again = match outcome {
            Ok(response) => match response.status().as_u16() {
                // Turned away before anything was done. Without a time, as an eviction is, it is an answer to be told.
                429 => asked.is_some() || is_idempotent(request),
                503 | 504 => is_idempotent(request),
                500 => asked.is_some() && is_idempotent(request),
                _ => false,
            },
            Err(Error::Connect { transient, .. } | Error::Tls { transient, .. }) => *transient,
            Err(Error::Lost(_) | Error::Timeout { .. }) => is_idempotent(request),
            Err(_) => false,
        };
        let pause = back_off(self.pause_min, self.pause_max, repeats) + asked.unwrap_or_default();
        Some(pause).filter(|pause| again && elapsed + *pause <= self.elapsed_max)
    }
}

impl Default for Retries {
    /// Five times within half a minute, after 50 ms and then twice as long each time.
    fn default() -> Retries {
        Retries {
            repeats_max: 5,
            elapsed_max: Duration::from_secs(30),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
        }
    }
}

/// `Retry-After` in seconds. Kubernetes never sends a date.
pub(crate) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The pause before attempt `times + 1`: doubled each time up to `max`, then varied by a quarter, so that many who were cut
/// off together do not come back together.
pub(crate) fn back_off(min: Duration, max: Duration, times: u32) -> Duration {
    let pause = min.saturating_mul(1 << times.min(20)).min(max);
    pause.mul_f64(0.75 + 0.5 * random())
}

/// From 0 to 1. Each `RandomState` has other keys, which the system's randomness gave.
pub(crate) fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

/// Executing it twice leaves the server as executing it once.
pub(crate) fn is_idempotent(request: &Request<Bytes>) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let tries = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "dryRun=All"));
    let applies = request.headers().get(CONTENT_TYPE).is_some_and(|media| media == "application/apply-patch+yaml");
    reads || tries || applies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_vary() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let first: Vec<Duration> = (0..50).map(|_| back_off(min, max, 0)).collect();
        assert!(first.iter().all(|pause| (75..=125).contains(&pause.as_millis())), "{first:?}");
        assert!(first.iter().any(|pause| *pause != first[0]));
        assert!((750..=1250).contains(&back_off(min, max, 9).as_millis()));
        assert!((750..=1250).contains(&back_off(min, max, u32::MAX).as_millis()));
    }
}
