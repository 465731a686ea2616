//! Keys of objects to be looked at: each waits once, none is worked on twice at a time, some come back later. Decides only:
//! it is told the time and what became of a key. No longer than the number of keys there are.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::back_off;
use crate::store::ObjectKey;

/// Pauses before something that failed is tried again; they double from the first to the last.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Queue {
    ready: VecDeque<ObjectKey>,
    /// The keys of `ready`.
    queued: HashSet<ObjectKey>,
    busy: HashSet<ObjectKey>,
    /// Busy, and something happened since.
    again: HashSet<ObjectKey>,
    later: BTreeMap<(Instant, u64), ObjectKey>,
    /// Where in `later` a key is.
    due: HashMap<ObjectKey, (Instant, u64)>,
    count: u64,
    failures: HashMap<ObjectKey, u32>,
}

impl Queue {
    /// Something happened about this object.
    pub fn add(&mut self, key: ObjectKey) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The next key, which is busy until it is [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            let key = first.remove();
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        // It is looked at now: what it waited for is included.
        self.unschedule(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    /// When the next key is due, where none is ready.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }

    /// It went well, and is to be looked at again at this time.
    pub fn done(&mut self, key: ObjectKey, again_at: Option<Instant>) {
        self.failures.remove(&key);
        self.settle(key, again_at);
    }

    /// It failed: again after a pause that grows each time.
    pub fn failed(&mut self, key: ObjectKey, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = back_off(RETRY_MIN, RETRY_MAX, *failures);
        *failures += 1;
        self.settle(key, Some(now + pause));
    }

    /// The object is gone.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.failures.remove(key);
        self.unschedule(key);
    }

    fn settle(&mut self, key: ObjectKey, again_at: Option<Instant>) {
        self.busy.remove(&key);
        if self.again.remove(&key) {
            self.add(key.clone());
        }
        if let Some(at) = again_at {
            // The earlier of two times is enough: whoever looks then sees what the later one is about.
            if self.due.get(&key).is_some_and(|(due, _)| *due <= at) {
                return;
            }
            self.unschedule(&key);
            self.count += 1;
            self.later.insert((at, self.count), key.clone());
            self.due.insert(key, (at, self.count));
        }
    }

    fn unschedule(&mut self, key: &ObjectKey) {
        if let Some(at) = self.due.remove(key) {
            self.later.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_wait_once_and_are_never_busy_twice() {
        let now = Instant::now();
        let key = |name: &str| ObjectKey::new("", name);
        let mut queue = Queue::default();
        let take = |queue: &mut Queue, at: Instant| queue.take(at).map(|key| key.to_string()).unwrap_or_default();
        queue.add(key("a"));
        queue.add(key("b"));
        queue.add(key("a"));
        assert_eq!([take(&mut queue, now), take(&mut queue, now), take(&mut queue, now)], ["a", "b", ""]);

        // What happens while it is busy is looked at afterwards, once.
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(take(&mut queue, now), "");
        queue.done(key("a"), None);
        assert_eq!([take(&mut queue, now), take(&mut queue, now)], ["a", ""]);

        // Later, unless something happens before.
        let minute = Duration::from_secs(60);
        queue.done(key("a"), Some(now + minute));
        assert_eq!((take(&mut queue, now).as_str(), queue.next_due()), ("", Some(now + minute)));
        assert_eq!(take(&mut queue, now + minute), "a");
        queue.done(key("a"), Some(now + minute));
        queue.add(key("a"));
        assert_eq!(take(&mut queue, now), "a");
        assert_eq!(queue.next_due(), None);

        // After failures, at growing times; gone is gone.
        let mut pauses = Vec::new();
        for _ in 0..3 {
            queue.failed(key("a"), now);
            let due = queue.next_due().unwrap();
            pauses.push(due - now);
            assert_eq!(take(&mut queue, due), "a");
        }
        assert!(pauses[0] < pauses[1] && pauses[1] < pauses[2], "{pauses:?}");
        queue.failed(key("a"), now);
        queue.forget(&key("a"));
        assert_eq!((take(&mut queue, now + 100 * minute).as_str(), queue.next_due()), ("", None));
    }
}
