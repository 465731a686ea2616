//! What can go wrong, made for branching: ask [`Error::is_not_found`] and its like, or match. The texts say what to do next.

use std::time::Duration;

pub use api::refusal::Forbidden;
use api::{Reason, Status};

use crate::config::ConfigError;

/// The result of everything here that talks to a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not give what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered no; the message is its own.
    #[error("{}", .0.message)]
    Api(Box<Status>),
    /// No usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No connection could be made: the request was not sent. `transient`: nothing listened, or the connection was cut, as
    /// when a server starts.
    #[error("cannot reach the API server at {server}: {why}\n  {hint}")]
    Connect { server: String, why: String, hint: &'static str, transient: bool },
    /// The server (or this client) could not prove who it is: the request was not sent.
    #[error("no trusted connection to the API server at {server}: {why}\n  {hint}")]
    Tls { server: String, why: String, hint: &'static str, transient: bool },
    /// The connection ended while the request was under way: it may or may not have been done.
    #[error("the connection to the API server was lost: {0}")]
    Lost(String),
    /// No answer in time: the request may or may not have been done.
    #[error("the API server did not {what} within {after:?}")]
    Timeout { what: &'static str, after: Duration },
    /// An answer that is not what was asked for.
    #[error("the answer to {request} is not {wanted}: {why}")]
    Decode { request: String, wanted: &'static str, why: String },
    /// An answer larger than the limit named in the text.
    #[error("{what} is larger than {limit} bytes; ask for less at once (a selector, or a limit with continue)")]
    TooLarge { what: &'static str, limit: usize },
    /// The request cannot be made as it was asked for.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// The server's `Status`, where it gave one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// The HTTP code of the server's answer.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    pub fn is_not_found(&self) -> bool {
        self.has(&Reason::NotFound, 404)
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.reason == Reason::AlreadyExists)
    }

    /// The object was changed since it was read: read it again and repeat.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409 && status.reason != Reason::AlreadyExists)
    }

    pub fn is_forbidden(&self) -> bool {
        self.has(&Reason::Forbidden, 403)
    }

    pub fn is_unauthorized(&self) -> bool {
        self.has(&Reason::Unauthorized, 401)
    }

    pub fn is_invalid(&self) -> bool {
        self.has(&Reason::Invalid, 422)
    }

    /// History no longer reaches back to the asked revision: list again.
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410)
    }

    /// The server has too much to do, or a budget forbids it for now: nothing was done. See [`Error::retry_after`].
    pub fn is_too_many_requests(&self) -> bool {
        self.has(&Reason::TooManyRequests, 429)
    }

    /// The request or its body cannot be understood (400). What is understood and wrong is [`Error::is_invalid`].
    pub fn is_bad_request(&self) -> bool {
        self.has(&Reason::BadRequest, 400)
    }

    /// The resource has no such verb.
    pub fn is_method_not_allowed(&self) -> bool {
        self.has(&Reason::MethodNotAllowed, 405)
    }

    /// The server, or one behind it, cannot answer for now (503).
    pub fn is_unavailable(&self) -> bool {
        self.has(&Reason::ServiceUnavailable, 503)
    }

    /// No answer in time, by this client's clock or the server's: it may or may not have been done.
    pub fn is_timeout(&self) -> bool {
        let says = |status: &Status| matches!(status.reason, Reason::Timeout | Reason::ServerTimeout);
        matches!(self, Error::Timeout { .. }) || self.status().is_some_and(|status| status.code == 504 || says(status))
    }

    /// The connection ended under the request: it may or may not have been done.
    pub fn is_lost(&self) -> bool {
        matches!(self, Error::Lost(_))
    }

    /// How long the server asks to wait before the request is sent again.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds;
        Some(Duration::from_secs(seconds.into())).filter(|wait| !wait.is_zero())
    }

    /// The request did not reach the server, so any request may be repeated.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Error::Connect { .. } | Error::Tls { .. } | Error::Config(_))
    }

    /// Who was refused what, where the answer was a refusal of the authorizer.
    pub fn forbidden(&self) -> Option<Forbidden> {
        self.status().filter(|_| self.is_forbidden()).and_then(|status| Forbidden::parse(&status.message))
    }

    fn has(&self, reason: &Reason, code: u16) -> bool {
        self.status().is_some_and(|status| status.reason == *reason || status.code == code)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Api(Box::new(status))
    }
}
