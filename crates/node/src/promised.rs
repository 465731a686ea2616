//! What this node has promised to its pods of processors and memory, so that what one of them wants more is weighed against what the
//! others have. Holds it; what is too much is for `resources` to say.

use crate::agent::lock;
use crate::resources::Promise;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::sync::watch;

/// By the uid of the pod.
pub struct Promises {
    given: Mutex<HashMap<String, Promise>>,
    /// Counts the times that something was given back.
    given_back: watch::Sender<u64>,
}

impl Default for Promises {
    fn default() -> Promises {
        Promises { given: Mutex::default(), given_back: watch::Sender::new(0) }
    }
}

impl Promises {
    /// Promises it to a pod, instead of what it had, unless somebody objects who is told what all others have.
    ///
    /// # Errors
    /// The objection.
    pub fn give(
        &self,
        uid: &str,
        promise: Promise,
        objects: impl FnOnce(Promise) -> Option<String>,
    ) -> Result<(), String> {
        let mut given = lock(&self.given);
        let others =
            given.iter().filter(|(other, _)| *other != uid).fold(Promise::default(), |all, (_, it)| all.and(*it));
        if let Some(why) = objects(others) {
            return Err(why);
        }
        let before = given.insert(uid.to_owned(), promise);
        drop(given);
        if before.is_some_and(|before| before != promise) {
            self.note();
        }
        Ok(())
    }

    /// Takes back what a pod has that is over.
    pub fn take_back(&self, uid: &str) {
        if lock(&self.given).remove(uid).is_some() {
            self.note();
        }
    }

    /// Changes when there may be room for what there was none before.
    pub fn room(&self) -> watch::Receiver<u64> {
        self.given_back.subscribe()
    }

    fn note(&self) {
        self.given_back.send_modify(|count| *count += 1);
    }
}
