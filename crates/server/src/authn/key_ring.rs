//! The keys of service account tokens as they are now: they change while the server runs. Signs and verifies nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::jwt::Keys;

/// Keys that can be replaced.
pub struct KeyRing {
    now: ArcSwap<Keys>,
    turn: AtomicU64,
}

impl KeyRing {
    pub fn new(keys: Keys) -> KeyRing {
        KeyRing { now: ArcSwap::from_pointee(keys), turn: AtomicU64::new(0) }
    }

    pub fn load(&self) -> Guard<Arc<Keys>> {
        self.now.load()
    }

    /// From now on only these sign and verify.
    pub fn replace(&self, keys: Keys) {
        self.now.store(Arc::new(keys));
        // After the keys: whoever has read the new turn finds the new keys, so that nothing verified by old ones outlives them.
        self.turn.fetch_add(1, Ordering::Release);
    }

    /// How many times the keys were replaced. What a signature was found to be counts in the turn in which it was found.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }
}
