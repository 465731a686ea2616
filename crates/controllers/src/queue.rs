//! A queue of keys of things to look at: each waits once, none is worked on twice at a time, failures come back after a growing
//! pause. Knows nothing of what keys mean.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kemudi_client::Result;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Pauses before something that failed is tried again; they double from the first to the last.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keys that are worked on at once.
const WORKERS: usize = 16;

/// Keys of things to look at. A key waits once however often it is added, and is never worked on twice at a time, so a
/// queue is no longer than the number of things there are.
pub struct Queue<T> {
    state: Mutex<Waiting<T>>,
    wake: Notify,
}

struct Waiting<T> {
    ready: VecDeque<T>,
    /// The keys of `ready`.
    queued: HashSet<T>,
    busy: HashSet<T>,
    /// Busy, and something happened since.
    again: HashSet<T>,
    later: BTreeMap<(Instant, u64), T>,
    /// Makes the keys of `later` unique.
    count: u64,
    failures: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash + fmt::Debug> Queue<T> {
    pub fn new() -> Arc<Queue<T>> {
        let state = Waiting {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            later: BTreeMap::new(),
            count: 0,
            failures: HashMap::new(),
        };
        Arc::new(Queue { state: Mutex::new(state), wake: Notify::new() })
    }

    pub fn add(&self, key: T) {
        self.lock().add(key);
        self.wake.notify_one();
    }

    /// Works off keys for ever, some at once. What fails is tried again.
    pub async fn work<W: Future<Output = Result<()>>>(&self, work: impl Fn(T) -> W) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                key = self.next(), if running.len() < WORKERS => {
                    let outcome = work(key.clone());
                    running.push(async move { (key, outcome.await) });
                }
                Some((key, outcome)) = running.next() => self.done(key, outcome),
            }
        }
    }

    /// The next key; whoever takes it says when it is [`Queue::done`].
    async fn next(&self) -> T {
        loop {
            let due = match self.lock().take(Instant::now()) {
                Ok(key) => return key,
                Err(due) => due,
            };
            match due {
                None => self.wake.notified().await,
                Some(due) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    fn done(&self, key: T, outcome: Result<()>) {
        let mut state = self.lock();
        state.busy.remove(&key);
        if state.again.remove(&key) {
            state.add(key.clone());
        }
        match outcome {
            Ok(()) => drop(state.failures.remove(&key)),
            Err(error) => {
                let failures = state.failures.entry(key.clone()).or_default();
                let pause = back_off(*failures);
                *failures += 1;
                tracing::debug!(?key, %error, ?pause, "to be tried again");
                state.add_at(key, Instant::now() + pause);
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash> Waiting<T> {
    fn add(&mut self, key: T) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: T, due: Instant) {
        self.count += 1;
        self.later.insert((due, self.count), key);
    }

    /// A key, or when the next is due.
    fn take(&mut self, now: Instant) -> Result<T, Option<Instant>> {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            self.add(key);
        }
        match self.ready.pop_front() {
            None => Err(self.later.keys().next().map(|(due, _)| *due)),
            Some(key) => {
                self.queued.remove(&key);
                self.busy.insert(key.clone());
                Ok(key)
            }
        }
    }
}

fn back_off(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.min(20)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_is_not_lost_while_it_is_worked_on() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        let (log, finished) = (Mutex::new(Vec::new()), Notify::new());
        let work = queue.work(|key| {
            let times = log.lock().unwrap().iter().filter(|other| **other == key).count();
            log.lock().unwrap().push(key);
            let (queue, finished) = (&queue, &finished);
            async move {
                match (key, times) {
                    // Something happens while it is worked on.
                    ("a", 0) => queue.add("a"),
                    ("b", 0..3) => return Err(kemudi_client::Error::Lost("no".into())),
                    ("b", _) => finished.notify_one(),
                    _ => {}
                }
                Ok(())
            }
        });
        tokio::select! {
            () = work => {}
            () = finished.notified() => {}
        }
        let mut log = log.into_inner().unwrap();
        log.sort();
        assert_eq!(log, ["a", "a", "b", "b", "b", "b"]);
    }
}
