//! Who follows which table, and the handing over of events to them. Keeps no events.

use crate::{Event, Follower, Revision};
use std::{collections::HashMap, sync::Arc};

/// The followers of every table.
#[derive(Default)]
pub(crate) struct Followers(HashMap<Arc<str>, Vec<Following>>);

struct Following {
    /// The revision of its snapshot: it sees the events after it.
    after: Revision,
    follower: Arc<dyn Follower>,
}

impl Followers {
    pub(crate) fn add(&mut self, table: &str, after: Revision, follower: Arc<dyn Follower>) {
        self.0.entry(table.into()).or_default().push(Following { after, follower });
    }

    pub(crate) fn remove(&mut self, table: &str, follower: &Arc<dyn Follower>) {
        if let Some(followings) = self.0.get_mut(table) {
            followings.retain(|following| !Arc::ptr_eq(&following.follower, follower));
            if followings.is_empty() {
                self.0.remove(table);
            }
        }
    }

    /// Hands over `events`, which are in order of revision and of any tables: each follower gets those of its table at
    /// once, since a follower's work per call is often larger than its work per event.
    pub(crate) fn apply(&self, mut events: Vec<Event>) {
        // The sort is stable, so within a table the order of revisions stays.
        events.sort_by(|a, b| a.table.cmp(&b.table));
        for events in events.chunk_by(|a, b| a.table == b.table) {
            for following in self.0.get(&events[0].table).into_iter().flatten() {
                // A snapshot taken between a batch's being stored and its being applied has part or all of these.
                let seen = events.partition_point(|event| event.revision <= following.after);
                if seen < events.len() {
                    following.follower.apply(&events[seen..]);
                }
            }
        }
    }
}
