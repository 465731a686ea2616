//! The last requests that were refused, for who asks why. Keeps no bodies, no tokens and no queries: who, what, and the answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use api::{Ask, Status};
use jiff::Timestamp;
use rights::Asked;
use serde::Serialize;

use crate::authn::User;

/// Refusals that are remembered; the oldest gives way to the next.
pub const DENIALS_MAX: usize = 256;
/// Longest name or path of a refused request that is kept whole; of longer ones the beginning is.
const TEXT_BYTES_MAX: usize = 1024;
/// Longest message that is kept whole. It may list the rules that were to be handed out.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Groups of a user that are kept.
const GROUPS_MAX: usize = 64;

/// A request that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct Denial {
    /// To the second, in UTC.
    pub time: String,
    /// 401 or 403.
    pub code: u16,
    /// What was asked for, and by whom; empty for a 401, whose sender is not known.
    pub request: Asked,
    /// As whom it was to be done, where the sender was not let act as anybody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub whom: String,
    /// The answer's text; for a 401, which tells its sender nothing, the reason.
    pub message: String,
}

/// The last of them.
#[derive(Default)]
pub struct Denials {
    ring: Mutex<VecDeque<Denial>>,
}

impl Denials {
    /// A request that its sender's rights, or admission, refused; `whom` is the name that its headers ask to act as.
    pub fn forbidden(&self, user: &User, whom: &str, ask: &Ask, status: &Status) {
        let asked = Asked::of_request(ask);
        let groups = user.groups.iter().take(GROUPS_MAX).map(|group| beginning(group)).collect();
        let request = Asked {
            user: beginning(&user.name),
            groups,
            verb: beginning(&asked.verb),
            group: beginning(&asked.group),
            resource: beginning(&asked.resource),
            subresource: beginning(&asked.subresource),
            namespace: beginning(&asked.namespace),
            name: beginning(&asked.name),
            path: beginning(&asked.path),
        };
        self.note(Denial {
            time: shown(Timestamp::now()),
            code: status.code,
            request,
            whom: if whom == user.name { String::new() } else { beginning(whom) },
            message: beginning_of(&status.message, MESSAGE_BYTES_MAX),
        });
    }

    /// A request with credentials that are no good.
    pub fn unauthenticated(&self, now: Timestamp, why: &str) {
        let message = beginning_of(why, MESSAGE_BYTES_MAX);
        self.note(Denial { time: shown(now), code: 401, request: Asked::default(), whom: String::new(), message });
    }

    /// The last ones, of one user where one is named, newest first.
    pub fn last(&self, user: Option<&str>, limit: usize) -> Vec<Denial> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |denial: &&Denial| user.is_none_or(|user| denial.request.user == user);
        ring.iter().rev().filter(wanted).take(limit).cloned().collect()
    }

    fn note(&self, denial: Denial) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == DENIALS_MAX {
            ring.pop_front();
        }
        ring.push_back(denial);
    }
}

fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn beginning(text: &str) -> String {
    beginning_of(text, TEXT_BYTES_MAX)
}

fn beginning_of(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_and_no_more() {
        let denials = Denials::default();
        let ask = Ask::parse("GET", "/api/v1/pods?token=secret").unwrap();
        for i in 0..DENIALS_MAX + 10 {
            denials.forbidden(&User::new(format!("u{i}"), ["g"]), "", &ask, &Status::unauthorized());
        }
        denials.unauthenticated(Timestamp::UNIX_EPOCH, &"é".repeat(MESSAGE_BYTES_MAX));
        let all = denials.last(None, usize::MAX);
        assert_eq!((all.len(), all[0].code, all[0].message.len()), (DENIALS_MAX, 401, MESSAGE_BYTES_MAX));
        assert_eq!(all.last().unwrap().request.user, "u11");
        assert_eq!(denials.last(Some("u12"), 5).len(), 1);
        assert!(!serde_json::to_string(&all).unwrap().contains("secret"));
    }
}
