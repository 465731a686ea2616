//! A revisioned map of bytes that can be followed. Knows nothing of API objects: a value is bytes, a table is a name.
//!
//! One counter, the [`Revision`], numbers every change of the whole store, and it survives restarts. A value that must
//! carry its own revision (an API object has it as `resourceVersion`) is given as two halves, and the store writes the
//! number between them ([`Value::Stamped`]); it never parses a value.
//!
//! The store keeps the present only. [`Store::follow`] gives a table as it is and every change after that, so what
//! remembers the recent past (the server's ring of events per kind, out of which watches resume) lives above it.
//!
//! | backend    | url           | an acknowledged write survives |
//! | ---------- | ------------- | ------------------------------ |
//! | `memory`   | `memory://`   | nothing: it ends with the process |
//! | `disk`     | `disk://DIR`  | a killed process and a power cut: one fsync per group of writes |
//!
//! To add a backend: one file here, one arm in [`open`], one line in `tests/it/suite.rs`, whose tests all backends pass.

mod disk;
mod followers;
mod memory;

use bytes::Bytes;
use std::{future::Future, path::Path, pin::Pin, sync::Arc};

/// The largest value, in bytes, its own revision included: what etcd takes by default.
pub const VALUE_BYTES_MAX: usize = 1536 * 1024;

/// The largest table name and key together, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;

/// The revision of a store that was never written to; the first commit gives one more. Not 0, because a resource
/// version of "0" has a meaning of its own in the Kubernetes API.
pub const REVISION_START: Revision = 1;

/// The number of a change: one counter for the whole store, rising by one with every change of any table, never reused.
pub type Revision = u64;

/// The future of one call, boxed so that [`Store`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens the store that `url` names, creating it where there is none: `memory://` or `disk://DIR`.
///
/// Blocks while it reads the disk: a few milliseconds, more after a crash with much to replay.
/// A directory is opened by one process at a time.
///
/// # Errors
/// [`Error::Unusable`] says what is wrong with the url or the directory, and what to do about it.
pub fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| Error::Unusable(format!("store {url:?} has no scheme: use memory:// or disk://DIR")))?;
    match (scheme, rest) {
        ("memory", "") => Ok(Arc::new(memory::Memory::new())),
        ("memory", _) => Err(Error::Unusable(format!("store {url:?}: memory:// takes nothing after it"))),
        ("disk", "") => Err(Error::Unusable("store \"disk://\" names no directory: use disk://DIR".to_owned())),
        ("disk", dir) => Ok(Arc::new(disk::Disk::open(Path::new(dir))?)),
        ("etcd", _) => Err(Error::Unusable(format!(
            "store {url:?}: this version cannot store in etcd yet: use disk://DIR, or memory://"
        ))),
        _ => Err(Error::Unusable(format!("store {url:?}: unknown scheme {scheme:?}: use memory:// or disk://DIR"))),
    }
}

/// A revisioned map of bytes, in tables.
pub trait Store: Send + Sync + 'static {
    /// Atomically: everything of `table`, at one revision, and from then on every later change of it to `follower`,
    /// each once, in order. A table nobody wrote to is empty.
    ///
    /// Changes may reach `follower` while this call is still running: a follower that needs the snapshot first holds
    /// the lock that its `apply` takes across this call, and follows this one table only. Blocks while it reads.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::TooLarge`] for the table's name, [`Error::Io`].
    fn follow(&self, table: &str, follower: Arc<dyn Follower>) -> Result<Snapshot, Error>;

    /// Ends what [`Store::follow`] began, for this table and this very follower. Changes already being handed over may
    /// still arrive. Does nothing where there is nothing to end.
    fn unfollow(&self, table: &str, follower: &Arc<dyn Follower>);

    /// Makes one change, if what it expects holds, and answers its revision. When it returns, the change is as durable as
    /// the backend makes it and every follower of the table has applied it.
    ///
    /// Deleting an absent key without an expectation of a revision changes nothing, takes no revision and answers the
    /// store's present one. Where too many writes wait, this waits too. A future that is dropped before it is ready may
    /// or may not have made its change.
    ///
    /// # Errors
    /// [`Error::Conflict`] and [`Error::TooLarge`]: nothing was changed. [`Error::Io`]: the change was not applied, and no
    /// follower saw it; where the disk failed midway it may still be found after a restart. [`Error::Closed`].
    fn commit(&self, write: Write) -> BoxFuture<'_, Result<Revision, Error>>;

    /// The last revision that every follower has applied.
    fn revision(&self) -> Revision;

    /// Finishes the writes that wait, gives up followers and files, and refuses everything after. Closing twice is fine.
    fn close(&self) -> BoxFuture<'_, Result<(), Error>>;
}

/// Sees the changes of the tables it follows.
///
/// `apply` is called on the thread that commits, before the writer is answered: it is quick, it never waits for another
/// task, and it never calls the store. `events` are of one table, in order of revision, one or more of them.
pub trait Follower: Send + Sync {
    /// Takes in the next events of one table.
    fn apply(&self, events: &[Event]);
}

/// A wanted change of one key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The table's name; tables need not be created.
    pub table: Arc<str>,
    /// The key within the table.
    pub key: String,
    /// What must hold of the key for the change to be made.
    pub expect: Expect,
    /// What to make of the key.
    pub change: Change,
}

/// What must hold of a key before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key is absent: this is a creation.
    Absent,
    /// The key was last changed at exactly this revision.
    At(Revision),
    /// Whatever there is, or nothing.
    Any,
}

impl Expect {
    /// Judges the key's last revision, or its absence.
    fn check(self, found: Option<Revision>) -> Result<(), Error> {
        match (self, found) {
            (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
            (Expect::At(wanted), Some(found)) if wanted == found => Ok(()),
            _ => Err(Error::Conflict { found }),
        }
    }
}

/// What to make of a key.
#[derive(Clone, Debug)]
pub enum Change {
    /// Gives the key this value.
    Put(Value),
    /// Takes the key away.
    Delete,
}

/// A value to store.
#[derive(Clone, Debug)]
pub enum Value {
    /// Stored as it is.
    Plain(Bytes),
    /// Stored as `head`, then the change's own revision in decimal digits, then `tail`: a value that carries its revision
    /// though nobody knew the number when it was encoded.
    Stamped {
        /// What comes before the revision.
        head: Bytes,
        /// What comes after the revision.
        tail: Bytes,
    },
}

impl Value {
    /// The bytes to store for a change of this revision.
    pub fn at(self, revision: Revision) -> Bytes {
        match self {
            Value::Plain(bytes) => bytes,
            Value::Stamped { head, tail } => {
                [head.as_ref(), revision.to_string().as_bytes(), tail.as_ref()].concat().into()
            }
        }
    }

    /// The most bytes that `at` can give for any revision.
    fn bytes_max(&self) -> usize {
        const REVISION_DIGITS_MAX: usize = 20;
        match self {
            Value::Plain(bytes) => bytes.len(),
            Value::Stamped { head, tail } => head.len() + REVISION_DIGITS_MAX + tail.len(),
        }
    }
}

/// A table as it was at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision at that moment: the follower sees the changes after it.
    pub revision: Revision,
    /// Everything in the table, ordered by key, byte by byte.
    pub items: Vec<Item>,
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key within its table.
    pub key: String,
    /// The revision of its last change.
    pub revision: Revision,
    /// Its value.
    pub value: Bytes,
}

/// One change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The table it was made in.
    pub table: Arc<str>,
    /// The key within the table.
    pub key: String,
    /// The revision the change got.
    pub revision: Revision,
    /// The new value; none where the key was deleted.
    pub value: Option<Bytes>,
    /// The key's revision before; none where the key was created.
    pub previous: Option<Revision>,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What the write expected of the key does not hold.
    #[error("{}", match found {
        Some(revision) => format!("the key was changed at revision {revision}"),
        None => "the key is absent".to_owned(),
    })]
    Conflict {
        /// The revision at which the key was last changed; none where it is absent.
        found: Option<Revision>,
    },
    /// The value, or the table name and key together, is larger than the store takes.
    #[error("the {what} has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// Which of the two: "value" or "key".
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// [`VALUE_BYTES_MAX`] or [`KEY_BYTES_MAX`].
        limit: usize,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The disk failed, or is full. The text names the directory and says what to do.
    #[error("{0}")]
    Io(String),
    /// The store cannot be opened. The text says why and what to do.
    #[error("{0}")]
    Unusable(String),
}

/// Refuses what is larger than any backend takes, before it costs anything.
fn check_size(write: &Write) -> Result<(), Error> {
    check_key_size(&write.table, &write.key)?;
    match &write.change {
        Change::Put(value) if value.bytes_max() > VALUE_BYTES_MAX => {
            Err(Error::TooLarge { what: "value", bytes: value.bytes_max(), limit: VALUE_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

fn check_key_size(table: &str, key: &str) -> Result<(), Error> {
    match table.len() + key.len() {
        bytes if bytes > KEY_BYTES_MAX => Err(Error::TooLarge { what: "key", bytes, limit: KEY_BYTES_MAX }),
        _ => Ok(()),
    }
}
