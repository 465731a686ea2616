//! A follower that does what the store's users do: it keeps a copy of one table by snapshot and events.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use store::{Error, Event, Follower, Revision, Store};

#[derive(Default)]
pub struct Replica(Mutex<Copy>);

#[derive(Default, Clone)]
pub struct Copy {
    pub items: BTreeMap<String, (Revision, Bytes)>,
    /// Of the last event, or of the snapshot before there was one.
    pub revision: Revision,
    /// Every event, as text.
    pub seen: Vec<String>,
}

impl Replica {
    pub fn follow(store: &Arc<dyn Store>, table: &str) -> Result<Arc<Replica>, Error> {
        let replica = Arc::new(Replica::default());
        // Held across the call, so that events wait until the snapshot is in.
        let mut copy = replica.0.lock().unwrap();
        let snapshot = store.follow(table, replica.clone())?;
        copy.revision = snapshot.revision;
        for item in snapshot.items {
            assert!(item.revision <= snapshot.revision, "{item:?} is newer than its snapshot");
            copy.items.insert(item.key, (item.revision, item.value));
        }
        drop(copy);
        Ok(replica)
    }

    pub fn copy(&self) -> Copy {
        self.0.lock().unwrap().clone()
    }

    pub fn revision(&self) -> Revision {
        self.0.lock().unwrap().revision
    }
}

impl Follower for Replica {
    fn apply(&self, events: &[Event]) {
        let mut copy = self.0.lock().unwrap();
        assert!(!events.is_empty());
        for Event { table, key, revision, value, previous } in events {
            assert!(*revision > copy.revision, "{table}/{key}: {revision} after {}", copy.revision);
            copy.revision = *revision;
            let before = match value {
                Some(value) => copy.items.insert(key.clone(), (*revision, value.clone())),
                None => copy.items.remove(key),
            };
            assert_eq!(before.map(|(revision, _)| revision), *previous, "{table}/{key} before {revision}");
            let value = value.as_ref().map(|value| String::from_utf8_lossy(value));
            copy.seen.push(match (previous, value) {
                (None, value) => format!("{revision} {key} created {}", value.unwrap_or_default()),
                (Some(_), Some(value)) => format!("{revision} {key} changed {value}"),
                (Some(_), None) => format!("{revision} {key} deleted"),
            });
        }
    }
}

/// A table as text: `revision: key@revision=value ..`.
pub fn list(store: &Arc<dyn Store>, table: &str) -> String {
    struct Deaf;
    impl Follower for Deaf {
        fn apply(&self, _: &[Event]) {}
    }
    let follower: Arc<dyn Follower> = Arc::new(Deaf);
    let snapshot = match store.follow(table, follower.clone()) {
        Ok(snapshot) => snapshot,
        Err(error) => return error.to_string(),
    };
    store.unfollow(table, &follower);
    assert!(snapshot.items.is_sorted_by(|a, b| a.key < b.key));
    let items = snapshot.items.iter();
    let items = items.map(|item| format!(" {}@{}={}", item.key, item.revision, String::from_utf8_lossy(&item.value)));
    format!("{}:{}", snapshot.revision, items.collect::<String>())
}
