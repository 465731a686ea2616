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
    /// No connection could be made: the request was not sent.
    #[error("cannot reach the API server at {server}: {why}\n  {hint}")]
    Connect { server: String, why: String, hint: &'static str },
    /// The server (or this client) could not prove who it is: the request was not sent.
    #[error("no trusted connection to the API server at {server}: {why}\n  {hint}")]
    Tls { server: String, why: String, hint: &'static str },
    /// The connection ended while the request was under way: it may or may not have been done.
    #[error("the connection to the API server was lost: {0}")]
    Lost(String),
    /// No answer in time: the request may or may not have been done.
    #[error("the API server did not {what} within {}s", .after.as_secs())]
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

    pub fn is_too_many_requests(&self) -> bool {
        self.has(&Reason::TooManyRequests, 429)
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
