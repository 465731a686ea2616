//! What can go wrong, made for branching: ask [`Error::is_not_found`] and its like, or match. The texts say what to do next.

use std::fmt;
use std::time::Duration;

pub use api::refusal::Forbidden;
use api::{Reason, Status};

use crate::config::ConfigError;

/// The result of everything here that talks to a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not give what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server answered no; the message is its own.
    Api(Box<Status>),
    /// No usable configuration.
    Config(ConfigError),
    /// No connection could be made: the request was not sent.
    Connect {
        /// Where it was to go.
        server: String,
        /// What the system says.
        why: String,
        /// What to look at.
        hint: &'static str,
        /// Nothing listened, or the connection was cut, as when a server starts: it may work in a moment.
        transient: bool,
    },
    /// The server (or this client) could not prove who it is: the request was not sent.
    Tls {
        /// Where it was to go.
        server: String,
        /// What was wrong.
        why: String,
        /// What to look at.
        hint: &'static str,
        /// The connection was cut meanwhile: it may work in a moment.
        transient: bool,
    },
    /// The connection ended while the request was under way: it may or may not have been done.
    Lost(String),
    /// No answer in time: the request may or may not have been done.
    Timeout {
        /// What was not done in time, after "did not".
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// An answer that is not what was asked for.
    Decode {
        /// Which request.
        request: String,
        /// The type that was to be read.
        wanted: &'static str,
        /// What is wrong, and where.
        why: String,
    },
    /// An answer larger than a limit.
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The request cannot be made as it was asked for.
    Request(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Api(status) => f.write_str(&status.message),
            Error::Config(error) => error.fmt(f),
            Error::Connect { server, why, hint, .. } => {
                write!(f, "cannot reach the API server at {server}: {why}\n  {hint}")
            }
            Error::Tls { server, why, hint, .. } => {
                write!(f, "no trusted connection to the API server at {server}: {why}\n  {hint}")
            }
            Error::Lost(why) => write!(f, "the connection to the API server was lost: {why}"),
            Error::Timeout { what, after } => write!(f, "the API server did not {what} within {after:?}"),
            Error::Decode { request, wanted, why } => write!(f, "the answer to {request} is not {wanted}: {why}"),
            Error::TooLarge { what, limit } => {
                write!(
                    f,
                    "{what} is larger than {limit} bytes; ask for less at once (a selector, or a limit with continue)"
                )
            }
            Error::Request(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

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

    /// There is no such object, or no such resource.
    pub fn is_not_found(&self) -> bool {
        self.has(&Reason::NotFound, 404)
    }

    /// There is an object of that name already.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.reason == Reason::AlreadyExists)
    }

    /// The object was changed since it was read: read it again and repeat.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409 && status.reason != Reason::AlreadyExists)
    }

    /// We may not do that: [`Error::forbidden`] says what is missing.
    pub fn is_forbidden(&self) -> bool {
        self.has(&Reason::Forbidden, 403)
    }

    /// The server does not know who we are: token or certificate are not valid (any more).
    pub fn is_unauthorized(&self) -> bool {
        self.has(&Reason::Unauthorized, 401)
    }

    /// The object is understood, and not valid: the status has each field that is wrong.
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

    /// The code counts where the reason says nothing: an admission policy may refuse with 403 what it finds invalid.
    fn has(&self, reason: &Reason, code: u16) -> bool {
        let says_nothing = |status: &Status| matches!(status.reason, Reason::Unknown | Reason::Other(_));
        self.status().is_some_and(|status| status.reason == *reason || (status.code == code && says_nothing(status)))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Api(Box::new(status))
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        Error::Config(error)
    }
}
