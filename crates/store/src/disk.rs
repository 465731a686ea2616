//! The store on disk, on the log-structured engine fjall. Keeps no values in memory beyond the engine's own small buffers:
//! who follows a table is who remembers it.
//!
//! One thread commits. It takes the writes that wait, up to [`BATCH_WRITES_MAX`], judges each against the ones before it,
//! stores what is left as one atomic batch with one fsync, hands the events to the followers and then answers the
//! writers. So the cost of the fsync is shared by all who came while the last one ran, and nobody waits on a timer.
//!
//! After a failed write or fsync nobody knows what the disk holds, so nothing more is written until the store is opened
//! anew, which finds every acknowledged write. A disk that is only nearly full is noticed before that, and refuses
//! values while deletions go on.
//!
//! ```text
//! DIR/format     which layout this is; there when the rest is complete
//! DIR/lock       locked while a process has the store open; says which one
//! DIR/db/        the engine's files: <table's length, 2 bytes><table><key> -> <revision, 8 bytes><value>
//! ```

use crate::{
    BoxFuture, Change, Error, Event, Follower, Item, REVISION_START, Revision, Snapshot, Store, Value, Write,
    check_key_size, check_size, followers::Followers,
};
use bytes::Bytes;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Writes that may wait for the commit thread; one more waits outside, in its own future.
const QUEUE_WRITES_MAX: usize = 1024;

/// Writes that share one fsync.
const BATCH_WRITES_MAX: usize = 512;

/// Bytes after which a batch takes no more writes, so that large values do not pile up in it.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Free space that values leave alone: the engine needs it to flush and compact, and deletions to be written at all.
const DISK_FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Writes the engine gathers in memory before it makes a sorted file of them.
const MEMTABLE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Journal the engine may keep on disk, and so replay after a crash.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Blocks of sorted files the engine keeps in memory. Small: expectations are judged with it, values are not read again.
const BLOCK_CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Threads that flush and compact. With several, one hands compactions back to the others without a pause, for as long as
/// one runs.
const ENGINE_THREADS: usize = 1;

/// The file in the directory that says which layout this is, and what it says.
const FORMAT_FILE: &str = "format";
const FORMAT: &str = "kemudi store 1\n";

/// In front of each value.
const REVISION_BYTES: usize = size_of::<Revision>();

/// Where the revision counter is kept: no table's name is as long as these two bytes say.
const COUNTER_KEY: &[u8] = b"\xff\xffrevision";

pub(crate) struct Disk {
    shared: Arc<Shared>,
    closing: AtomicBool,
    /// Becomes true when the commit thread has given everything up.
    ended: watch::Receiver<bool>,
    // Dropped in this order: the end of the queue ends the thread, which is then waited for.
    queue: mpsc::Sender<Message>,
    _thread: CommitThread,
}

/// What the callers and the commit thread have in common.
struct Shared {
    revision: AtomicU64,
    /// None once closed. Held while followers apply events, never while the disk is waited for.
    open: Mutex<Option<Open>>,
}

struct Open {
    followers: Followers,
    files: Files,
}

/// The engine's handles. Dropped in this order: the lock goes when nothing is written any more.
#[derive(Clone)]
struct Files {
    items: Keyspace,
    db: Database,
    dir: Arc<Path>,
    _lock: Arc<Lock>,
}

enum Message {
    Commit(Job),
    Close,
}

struct Job {
    write: Write,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Revision, Error>>;

struct CommitThread(Option<JoinHandle<()>>);

impl Drop for CommitThread {
    fn drop(&mut self) {
        // The thread itself may drop the store, when a follower was its last owner.
        if let Some(thread) = self.0.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            _ = thread.join();
        }
    }
}

impl Disk {
    pub(crate) fn open(dir: &Path) -> Result<Disk, Error> {
        let files = Files::open(dir)?;
        let revision = read_counter(files.items.get(COUNTER_KEY)).map_err(|cause| files.unreadable(cause))?;
        let shared = Arc::new(Shared {
            revision: AtomicU64::new(revision),
            open: Mutex::new(Some(Open { followers: Followers::default(), files: files.clone() })),
        });
        let (queue, waiting) = mpsc::channel(QUEUE_WRITES_MAX);
        let (end, ended) = watch::channel(false);
        let committer = Committer { shared: shared.clone(), files, revision, failed: None };
        let thread = thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || {
                committer.run(waiting);
                end.send_replace(true);
            })
            .map_err(|cause| Error::Unusable(format!("the store's commit thread cannot start: {cause}")))?;
        Ok(Disk { shared, closing: AtomicBool::new(false), ended, queue, _thread: CommitThread(Some(thread)) })
    }

    /// Why the commit thread takes nothing any more.
    fn gone(&self) -> Error {
        match self.closing.load(Ordering::Acquire) {
            true => Error::Closed,
            false => Error::Io("the store's commit thread ended in a panic: see the log, and start again".to_owned()),
        }
    }
}

impl Store for Disk {
    fn follow(&self, table: &str, follower: Arc<dyn Follower>) -> Result<Snapshot, Error> {
        check_key_size(table, "")?;
        let (files, snapshot, revision) = {
            let mut open = self.shared.open();
            let Open { followers, files } = open.as_mut().ok_or(Error::Closed)?;
            let snapshot = files.db.snapshot();
            let revision =
                read_counter(snapshot.get(&files.items, COUNTER_KEY)).map_err(|cause| files.unreadable(cause))?;
            followers.add(table, revision, follower.clone());
            (files.clone(), snapshot, revision)
        };
        let prefix = stored_key(table, "");
        let items = snapshot.prefix(&files.items, &prefix).map(|item| {
            let (key, stored) = item.into_inner()?;
            let (revision, value) = split(&stored)?;
            let key = std::str::from_utf8(&key[prefix.len()..]).map_err(|_| damaged("a key is not UTF-8"))?;
            Ok(Item { key: key.to_owned(), revision, value: Bytes::copy_from_slice(value) })
        });
        match items.collect::<fjall::Result<Vec<Item>>>() {
            Ok(items) => Ok(Snapshot { revision, items }),
            Err(cause) => {
                self.unfollow(table, &follower);
                Err(files.unreadable(cause))
            }
        }
    }

    fn unfollow(&self, table: &str, follower: &Arc<dyn Follower>) {
        if let Some(open) = self.shared.open().as_mut() {
            open.followers.remove(table, follower);
        }
    }

    fn commit(&self, write: Write) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(async move {
            check_size(&write)?;
            let (answer, answered) = oneshot::channel();
            self.queue.send(Message::Commit(Job { write, answer })).await.map_err(|_| self.gone())?;
            answered.await.map_err(|_| self.gone())?
        })
    }

    fn revision(&self) -> Revision {
        self.shared.revision.load(Ordering::Acquire)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.closing.store(true, Ordering::Release);
            // It fails where the thread is ending already, and then the end is what is waited for.
            _ = self.queue.send(Message::Close).await;
            // It fails where the thread panicked, and then there is nothing left to wait for.
            _ = self.ended.clone().wait_for(|ended| *ended).await;
            Ok(())
        })
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        // A panic under the lock can only be a follower's, which leaves the list of followers whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The commit thread's own.
struct Committer {
    shared: Arc<Shared>,
    files: Files,
    /// The last revision on disk.
    revision: Revision,
    /// Why nothing can be written any more.
    failed: Option<Error>,
}

/// Writes that go to the disk together.
#[derive(Default)]
struct Batch {
    /// The last state of every key written; none where it was deleted. The engine gives a whole batch one sequence
    /// number, so a key may be in it only once.
    staged: HashMap<Vec<u8>, Option<Staged>>,
    events: Vec<Event>,
    answers: Vec<(Answer, Result<Revision, Error>)>,
}

struct Staged {
    revision: Revision,
    stored: Bytes,
}

impl Committer {
    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            let mut jobs = Vec::new();
            let mut bytes = 0;
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Commit(job) => {
                        bytes += job.write.bytes();
                        jobs.push(job);
                    }
                    // What was queued before is still received, and then the queue ends.
                    Message::Close => queue.close(),
                }
                let full = jobs.len() >= BATCH_WRITES_MAX || bytes >= BATCH_BYTES_MAX;
                next = if full { None } else { queue.try_recv().ok() };
            }
            self.commit(jobs, bytes);
        }
        // The followers are dropped outside the lock: what they own may call the store again.
        let open = self.shared.open().take();
        drop(open);
    }

    fn commit(&mut self, jobs: Vec<Job>, bytes: usize) {
        let mut batch = Batch::default();
        let mut revision = self.revision;
        let full = self.files.check_free_space(bytes).err();
        for Job { write, answer } in jobs {
            let refused = match &write.change {
                Change::Put(_) => self.failed.as_ref().or(full.as_ref()),
                Change::Delete => self.failed.as_ref(),
            };
            let result = match refused {
                Some(error) => Err(error.clone()),
                None => self.stage(write, &mut revision, &mut batch),
            };
            batch.answers.push((answer, result));
        }
        match self.files.write(batch.staged, revision) {
            Ok(()) => {
                self.revision = revision;
                if let Some(open) = self.shared.open().as_ref() {
                    open.followers.apply(batch.events);
                }
                self.shared.revision.store(revision, Ordering::Release);
            }
            Err(cause) => {
                let error = Error::Io(format!(
                    "store {}: a write failed, and nothing more is written until kemudi is started again: {cause}",
                    self.files.dir.display()
                ));
                // Also refusals were judged by writes that are now void.
                batch.answers.iter_mut().for_each(|(_, result)| *result = Err(error.clone()));
                self.failed = Some(error);
            }
        }
        for (answer, result) in batch.answers {
            // A writer that gave up waiting needs no answer.
            _ = answer.send(result);
        }
    }

    /// Judges one write by what the disk and the batch so far hold, and adds it to the batch.
    fn stage(&self, write: Write, revision: &mut Revision, batch: &mut Batch) -> Result<Revision, Error> {
        let Write { table, key, expect, change } = write;
        let stored_key = stored_key(&table, &key);
        let previous = match batch.staged.get(&stored_key) {
            Some(staged) => staged.as_ref().map(|staged| staged.revision),
            None => self.files.revision_of(&stored_key)?,
        };
        expect.check(previous)?;
        let next = *revision + 1;
        let stored = match change {
            Change::Put(value) => Some(stored_value(next, value)),
            Change::Delete if previous.is_none() => return Ok(*revision),
            Change::Delete => None,
        };
        *revision = next;
        // Followers get the very bytes that are stored, without the revision in front.
        let value = stored.as_ref().map(|stored| stored.slice(REVISION_BYTES..));
        batch.staged.insert(stored_key, stored.map(|stored| Staged { revision: next, stored }));
        batch.events.push(Event { table, key, revision: next, value, previous });
        Ok(next)
    }
}

impl Files {
    /// Opens the directory, or makes a store of it. The format file is written when the engine's files are complete, so
    /// where it is missing nothing was ever acknowledged, or somebody took it away.
    fn open(dir: &Path) -> Result<Files, Error> {
        let failed = |cause: io::Error| Error::Unusable(format!("store {}: {cause}", dir.display()));
        create_private_dir(dir).map_err(failed)?;
        let dir = &dir.canonicalize().map_err(failed)?;
        let lock = Arc::new(lock(dir)?);
        let known = check_format(dir)?;
        let files = match Files::open_engine(dir, lock.clone()) {
            Err(_) if !known && dir.join("db").exists() => {
                // A first start was cut off. Moved aside, not removed: no code path here deletes what it cannot read.
                let aside = dir.join(format!("db.unfinished.{}", std::process::id()));
                fs::rename(dir.join("db"), aside).map_err(failed)?;
                Files::open_engine(dir, lock)?
            }
            opened => opened?,
        };
        if !known {
            let counter = files.items.get(COUNTER_KEY).map_err(|cause| files.unreadable(cause))?;
            if counter.is_some() {
                return Err(Error::Unusable(format!(
                    "store {}: it has data but no file named format: restore that file, or choose another directory",
                    dir.display()
                )));
            }
            write_durably(dir, FORMAT_FILE, FORMAT).map_err(failed)?;
        }
        Ok(files)
    }

    fn open_engine(dir: &Path, lock: Arc<Lock>) -> Result<Files, Error> {
        let db_dir = dir.join("db");
        let open = || {
            create_private_dir(&db_dir)?;
            let db = Database::builder(&db_dir)
                .cache_size(BLOCK_CACHE_BYTES)
                .max_journaling_size(JOURNAL_BYTES_MAX)
                // What is in the journal is gone soon; to compress it is a tenth of what the create of a pod costs.
                .journal_compression(CompressionType::None)
                .worker_threads(ENGINE_THREADS)
                .open()?;
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
            Ok(Files { items: db.keyspace("items", options)?, db, dir: dir.into(), _lock: lock })
        };
        open().map_err(|cause: fjall::Error| {
            Error::Unusable(format!(
                "store {}: its files cannot be opened: {}: restore the directory from a backup, or choose another",
                dir.display(),
                describe(&cause)
            ))
        })
    }

    /// Stores a batch and the counter, atomically and durably. Nothing staged, nothing done.
    fn write(&self, staged: HashMap<Vec<u8>, Option<Staged>>, revision: Revision) -> Result<(), String> {
        if staged.is_empty() {
            return Ok(());
        }
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (key, staged) in staged {
            match staged {
                Some(staged) => batch.insert(&self.items, key, &*staged.stored),
                None => batch.remove(&self.items, key),
            }
        }
        batch.insert(&self.items, COUNTER_KEY, revision.to_be_bytes());
        batch.commit().map_err(|cause| describe(&cause))
    }

    /// The revision a key was last changed at. A failure concerns this key's write alone.
    fn revision_of(&self, stored_key: &[u8]) -> Result<Option<Revision>, Error> {
        let found = self.items.get(stored_key).and_then(|stored| match stored {
            Some(stored) => Ok(Some(split(&stored)?.0)),
            None => Ok(None),
        });
        found.map_err(|cause| self.unreadable(cause))
    }

    fn check_free_space(&self, bytes: usize) -> Result<(), Error> {
        // Where the system does not tell, the write itself will.
        let Ok(stat) = rustix::fs::statvfs(&*self.dir) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        match free < DISK_FREE_BYTES_MIN + bytes as u64 {
            true => Err(Error::Io(format!(
                "store {}: the disk is full: {free} bytes are free and {DISK_FREE_BYTES_MIN} are kept for deletions: \
                 free some space, or delete objects",
                self.dir.display()
            ))),
            false => Ok(()),
        }
    }

    fn unreadable(&self, cause: fjall::Error) -> Error {
        Error::Io(format!("store {}: reading failed: {}", self.dir.display(), describe(&cause)))
    }
}

impl Write {
    fn bytes(&self) -> usize {
        let value = match &self.change {
            Change::Put(value) => value.bytes_max(),
            Change::Delete => 0,
        };
        self.table.len() + self.key.len() + value
    }
}

fn stored_key(table: &str, key: &str) -> Vec<u8> {
    // The length keeps tables apart whatever their names hold; `check_key_size` has seen that it fits.
    [&(table.len() as u16).to_be_bytes(), table.as_bytes(), key.as_bytes()].concat()
}

fn stored_value(revision: Revision, value: Value) -> Bytes {
    let number = revision.to_be_bytes();
    match value {
        Value::Plain(value) => [&number[..], &value].concat(),
        Value::Stamped { head, tail } => [&number[..], &head, revision.to_string().as_bytes(), &tail].concat(),
    }
    .into()
}

fn split(stored: &[u8]) -> fjall::Result<(Revision, &[u8])> {
    let (revision, value) = stored.split_first_chunk().ok_or_else(|| damaged("a value has no revision"))?;
    Ok((Revision::from_be_bytes(*revision), value))
}

fn read_counter(stored: fjall::Result<Option<fjall::UserValue>>) -> fjall::Result<Revision> {
    stored?.map_or(Ok(REVISION_START), |stored| Ok(split(&stored)?.0))
}

fn damaged(what: &str) -> fjall::Error {
    fjall::Error::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// The engine's errors print as their source code; the common ones are said in words.
fn describe(cause: &fjall::Error) -> String {
    match cause {
        fjall::Error::Io(cause) | fjall::Error::Storage(fjall::LsmError::Io(cause)) => cause.to_string(),
        fjall::Error::Poisoned => "an earlier write to the disk failed in the background".to_owned(),
        cause => cause.to_string(),
    }
}

/// Makes the directory where it is missing, readable by its owner only: values hold secrets.
fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Holds a directory for this process until it is dropped, or the process ends in whatever way.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file is not enough: a child process has it too, between its fork and its exec.
        _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join("lock");
    let failed = |cause: io::Error| Error::Unusable(format!("store {}: {}: {cause}", dir.display(), path.display()));
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            _ = file.read_to_string(&mut owner);
            return Err(Error::Unusable(format!(
                "store {}: it is open in another process ({}): stop that one, or choose another directory",
                dir.display(),
                owner.trim()
            )));
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "pid {}", std::process::id())).map_err(failed)?;
    Ok(Lock(file))
}

/// Whether the directory says that it is a store of the layout this code knows; an error where it says another.
fn check_format(dir: &Path) -> Result<bool, Error> {
    match fs::read_to_string(dir.join(FORMAT_FILE)) {
        Ok(format) if format == FORMAT => Ok(true),
        Ok(format) => Err(Error::Unusable(format!(
            "store {}: it was written in the format {:?}, and this version of kemudi reads {:?}: \
             use the version that wrote it, or choose another directory",
            dir.display(),
            format.trim(),
            FORMAT.trim()
        ))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::Unusable(format!("store {}: its file named format: {cause}", dir.display()))),
    }
}

/// Makes a file that is there whole or not at all, whatever happens to the machine.
fn write_durably(dir: &Path, name: &str, content: &str) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(name))?;
    File::open(dir)?.sync_all()?;
    // The directory's own name may be new, too.
    dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
