//! The store in memory: sorted maps under one mutex. Never touches a disk; what is in it ends with the process.

use crate::{
    BoxFuture, Change, Error, Event, Follower, Item, REVISION_START, Revision, Snapshot, Store, Write, check_key_size,
    check_size, followers::Followers,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) struct Memory(Mutex<State>);

struct State {
    revision: Revision,
    tables: HashMap<Arc<str>, BTreeMap<String, (Revision, Bytes)>>,
    followers: Followers,
    closed: bool,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory(Mutex::new(State {
            revision: REVISION_START,
            tables: HashMap::new(),
            followers: Followers::default(),
            closed: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock can only be a follower's, and by then the maps are whole again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>, Error> {
        Some(self.state()).filter(|state| !state.closed).ok_or(Error::Closed)
    }
}

impl Store for Memory {
    fn follow(&self, table: &str, follower: Arc<dyn Follower>) -> Result<Snapshot, Error> {
        check_key_size(table, "")?;
        let mut state = self.open_state()?;
        let revision = state.revision;
        state.followers.add(table, revision, follower);
        let items = state.tables.get(table).into_iter().flatten();
        let items =
            items.map(|(key, (revision, value))| Item { key: key.clone(), revision: *revision, value: value.clone() });
        Ok(Snapshot { revision, items: items.collect() })
    }

    fn unfollow(&self, table: &str, follower: &Arc<dyn Follower>) {
        self.state().followers.remove(table, follower);
    }

    fn commit(&self, write: Write) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(async move {
            check_size(&write)?;
            self.open_state()?.commit(write)
        })
    }

    fn revision(&self) -> Revision {
        self.state().revision
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut state = self.state();
            state.closed = true;
            state.tables.clear();
            state.followers = Followers::default();
            Ok(())
        })
    }
}

impl State {
    fn commit(&mut self, write: Write) -> Result<Revision, Error> {
        let Write { table, key, expect, change } = write;
        let previous = self.tables.get(&table).and_then(|items| items.get(&key)).map(|(revision, _)| *revision);
        expect.check(previous)?;
        let revision = self.revision + 1;
        let value = match change {
            Change::Put(value) => Some(value.at(revision)),
            Change::Delete if previous.is_none() => return Ok(self.revision),
            Change::Delete => None,
        };
        let items = self.tables.entry(table.clone()).or_default();
        match &value {
            Some(value) => _ = items.insert(key.clone(), (revision, value.clone())),
            None => _ = items.remove(&key),
        }
        self.revision = revision;
        self.followers.apply(vec![Event { table, key, revision, value, previous }]);
        Ok(revision)
    }
}
