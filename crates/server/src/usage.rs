//! What identities asked for: the rights a program really used. Off until somebody wants to know; keeps no bodies and no
//! secrets, only what authorization looked at.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rights::Usage;

use crate::authz::Attributes;

/// Different requests that are remembered; more are not.
pub const USAGES_MAX: usize = 10_000;

/// Remembers requests, each once.
#[derive(Default)]
pub struct Recorder {
    on: AtomicBool,
    seen: Mutex<BTreeSet<Usage>>,
}

impl Recorder {
    /// From now on requests are remembered.
    pub fn start(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// Called for every request that was decided.
    pub fn note(&self, attributes: &Attributes, allowed: bool) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let resource = match attributes.subresource {
            "" => attributes.resource.to_string(),
            sub => format!("{}/{sub}", attributes.resource),
        };
        let of_path = if attributes.is_resource { "" } else { attributes.path };
        let usage = Usage {
            user: attributes.user.name.clone(),
            namespace: attributes.namespace.into(),
            group: attributes.group.into(),
            resource,
            verb: attributes.verb.into(),
            name: attributes.name.into(),
            path: of_path.into(),
            allowed,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < USAGES_MAX {
            seen.insert(usage);
        }
    }

    /// What a user asked for.
    pub fn of(&self, user: &str) -> Vec<Usage> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|usage| usage.user == user).cloned().collect()
    }
}
