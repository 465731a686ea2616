//! Where audit events are written: a file that is turned over when it is full, or standard output. One thread writes, behind
//! a bounded queue; who sends an event waits until it is written, so that no answer is seen before its event is in
//! the file. Knows nothing of what is in a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};

/// Events that may wait for the thread; one more waits outside, in its own request.
const QUEUE_EVENTS_MAX: usize = 1024;
/// Bytes that are put together into one write. One event more may go over it.
const WRITE_BYTES: usize = 64 * 1024;
/// A file is private: what is asked of an API server is nobody else's.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// The time in the name of a file that is full.
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const BACKUP_TIME_BYTES: usize = "2006-01-02T15-04-05.000".len();
/// Names that are tried for a full file, a millisecond apart.
const BACKUP_NAMES_MAX: i64 = 10_000;
const MEGABYTE: u64 = 1024 * 1024;

/// When a file is turned over, and what is kept of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file; 0 where it is never turned over.
    pub bytes: u64,
    /// Full files that are kept; 0 for all.
    pub backups: usize,
    /// Days that they are kept; 0 for ever.
    pub days: u32,
}

impl Limits {
    pub fn of_megabytes(megabytes: u32, backups: usize, days: u32) -> Limits {
        Limits { bytes: u64::from(megabytes) * MEGABYTE, backups, days }
    }
}

/// The open end of a log.
pub struct Log {
    /// None when it was closed.
    queue: Mutex<Option<mpsc::Sender<Line>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One event on its way.
struct Line {
    bytes: Vec<u8>,
    written: oneshot::Sender<Result<(), String>>,
}

impl Log {
    /// Opens a file, or standard output where the path is `-`.
    ///
    /// # Errors
    /// Why the file cannot be written.
    pub fn open(path: &Path, limits: Limits) -> Result<Log, String> {
        let target = match path.as_os_str() == "-" {
            true => Target::Stdout,
            false => Target::File(Rotating::open(path, limits).map_err(|why| format!("ensureLogFile: {why}"))?),
        };
        let (queue, lines) = mpsc::channel(QUEUE_EVENTS_MAX);
        let thread = std::thread::Builder::new()
            .name("audit-log".into())
            .spawn(move || run(lines, target))
            .map_err(|why| format!("cannot start the audit log's thread: {why}"))?;
        Ok(Log { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// Writes one line, newline included. Resolves when the operating system has it.
    ///
    /// # Errors
    /// Why it is not written.
    pub async fn write(&self, bytes: Vec<u8>) -> Result<(), String> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (written, is_written) = oneshot::channel();
        let sent = match queue {
            Some(queue) => queue.send(Line { bytes, written }).await.is_ok(),
            None => false,
        };
        match sent {
            true => is_written.await.unwrap_or_else(|_| Err("the audit log is closed".into())),
            false => Err("the audit log is closed".into()),
        }
    }

    /// Writes what waits, makes it durable and closes the file. Nothing can be written any more.
    pub async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // The thread ends when the last sender is gone, which is now or as soon as a write in flight is done.
        if tokio::task::spawn_blocking(move || thread.join().is_err()).await.unwrap_or(true) {
            tracing::error!("the audit log's thread panicked");
        }
    }
}

/// The thread: takes all lines that wait, writes them together, and tells each sender.
fn run(mut lines: mpsc::Receiver<Line>, mut target: Target) {
    while let Some(first) = lines.blocking_recv() {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(line) = next.take() {
            batch.take(line, &mut target);
            if batch.bytes.len() < WRITE_BYTES {
                next = lines.try_recv().ok();
            }
        }
        batch.write(&mut target);
    }
    target.sync();
}

/// Lines that go into the same file with one write.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
}

impl Batch {
    /// Makes room for a line, and takes it.
    fn take(&mut self, line: Line, target: &mut Target) {
        let bytes = line.bytes.len() as u64;
        if target.is_full(self.bytes.len() as u64, bytes) {
            self.write(target);
            if let Err(why) = target.make_room(bytes, Timestamp::now()) {
                // Nobody listens where the request is gone.
                let _ = line.written.send(Err(why));
                return;
            }
        }
        self.bytes.extend_from_slice(&line.bytes);
        self.waiting.push(line.written);
    }

    fn write(&mut self, target: &mut Target) {
        if self.waiting.is_empty() {
            return;
        }
        let outcome = target.write(&self.bytes).map_err(|why| why.to_string());
        self.bytes.clear();
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(outcome.clone());
        }
    }
}

enum Target {
    Stdout,
    File(Rotating),
}

impl Target {
    /// Whether a line of this size would go over the limit, behind what is about to be written.
    fn is_full(&self, pending: u64, bytes: u64) -> bool {
        match self {
            Target::Stdout => false,
            Target::File(file) => file.limits.bytes > 0 && file.bytes + pending + bytes > file.limits.bytes,
        }
    }

    fn make_room(&mut self, bytes: u64, now: Timestamp) -> Result<(), String> {
        match self {
            Target::Stdout => Ok(()),
            Target::File(file) if bytes > file.limits.bytes => {
                Err(format!("write length {bytes} exceeds maximum file size {}", file.limits.bytes))
            }
            Target::File(file) => file.rotate(now).map_err(|why| why.to_string()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Target::File(file) => {
                file.file.write_all(bytes)?;
                file.bytes += bytes.len() as u64;
                Ok(())
            }
        }
    }

    fn sync(&self) {
        if let Target::File(file) = self
            && let Err(why) = file.file.sync_all()
        {
            tracing::error!(%why, "the audit log could not be made durable");
        }
    }
}

/// A file that is renamed when it is full, to `NAME-TIME.EXTENSION`.
struct Rotating {
    path: PathBuf,
    limits: Limits,
    file: File,
    /// Of the file.
    bytes: u64,
    /// The time in the name of the last full file: the next one's is later, so that names tell their order.
    last: Timestamp,
}

impl Rotating {
    fn open(path: &Path, limits: Limits) -> io::Result<Rotating> {
        let told = |why: io::Error| io::Error::new(why.kind(), format!("{}: {why}", path.display()));
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder(path)).map_err(told)?;
        let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path).map_err(told)?;
        let bytes = file.metadata().map_err(told)?.len();
        let opened = Rotating { path: path.to_path_buf(), limits, file, bytes, last: Timestamp::UNIX_EPOCH };
        if limits.bytes > 0 {
            opened.forget_old(Timestamp::now());
        }
        Ok(opened)
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let mode = fs::metadata(&self.path).map_or(FILE_MODE, |there| there.mode() & 0o7777);
        let (time, backup) = self.backup_name(now)?;
        self.last = time;
        match fs::rename(&self.path, backup) {
            // Somebody else took the file away, which is as good.
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        self.file = OpenOptions::new().append(true).create(true).mode(mode).open(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        self.forget_old(now);
        Ok(())
    }

    /// A name that no file has: events are not written over others.
    fn backup_name(&self, now: Timestamp) -> io::Result<(Timestamp, PathBuf)> {
        let (stem, extension) = self.stem_and_extension();
        let first = now.max(self.last + SignedDuration::from_millis(1));
        let names = (0..BACKUP_NAMES_MAX).map(|later| {
            let time = first + SignedDuration::from_millis(later);
            let name = format!("{stem}{}{extension}", time.strftime(BACKUP_TIME));
            (time, folder(&self.path).join(name))
        });
        let mut free = names.filter(|(_, name)| !name.exists());
        free.next().ok_or_else(|| io::Error::other("there is no name left for a full audit log"))
    }

    /// Removes the full files that are too many or too old.
    fn forget_old(&self, now: Timestamp) {
        let mut backups = self.backups();
        // The newest first.
        backups.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        let kept = if self.limits.backups == 0 { usize::MAX } else { self.limits.backups };
        let oldest = (self.limits.days > 0).then(|| now - SignedDuration::from_hours(24 * i64::from(self.limits.days)));
        for (at, (time, path)) in backups.iter().enumerate() {
            if (at >= kept || oldest.is_some_and(|oldest| *time < oldest))
                && let Err(why) = fs::remove_file(path)
            {
                tracing::warn!(%why, path = %path.display(), "an old audit log could not be removed");
            }
        }
    }

    fn backups(&self) -> Vec<(Timestamp, PathBuf)> {
        let (stem, extension) = self.stem_and_extension();
        let Ok(entries) = fs::read_dir(folder(&self.path)) else { return Vec::new() };
        let time_of = |name: &str| {
            let time = name.strip_prefix(&*stem)?.strip_suffix(&*extension)?;
            let time = (time.len() == BACKUP_TIME_BYTES).then(|| DateTime::strptime(BACKUP_TIME, time).ok())??;
            TimeZone::UTC.to_timestamp(time).ok()
        };
        let entries = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        entries.filter_map(|entry| Some((time_of(entry.file_name().to_str()?)?, entry.path()))).collect()
    }

    /// `audit-` and `.log` of `audit.log`.
    fn stem_and_extension(&self) -> (String, String) {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.rfind('.') {
            Some(at) => (format!("{}-", &name[..at]), name[at..].to_string()),
            None => (format!("{name}-"), String::new()),
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes lines of nine bytes each, and tells what is in the folder then: the lines of each file, the oldest first.
    async fn check(limits: Limits, lines: usize, want: &[&[&str]]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/audit.log");
        let log = Log::open(&path, limits).unwrap();
        for line in 0..lines {
            log.write(format!("line {line:03}\n").into_bytes()).await.unwrap();
        }
        log.close().await;
        assert_eq!(log.write(b"late\n".to_vec()).await, Err("the audit log is closed".into()));
        let mut files: Vec<PathBuf> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
        // The file that is written to sorts behind those that are full.
        files.sort();
        let mut got = Vec::new();
        for file in &files {
            let text = fs::read_to_string(file).unwrap();
            got.push(text.lines().map(|line| line.trim_start_matches("line ").to_string()).collect::<Vec<_>>());
            assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, FILE_MODE);
            let name = file.file_name().unwrap().to_str().unwrap();
            let whole = name.len() == "audit-.log".len() + BACKUP_TIME_BYTES && name.starts_with("audit-2");
            assert!(name == "audit.log" || whole, "{name}");
        }
        assert_eq!(got, want);
    }

    #[tokio::test]
    async fn a_full_file_makes_room_for_the_next() {
        let limits = Limits { bytes: 27, backups: 0, days: 0 };
        check(limits, 2, &[&["000", "001"]]).await;
        check(limits, 3, &[&["000", "001", "002"]]).await;
        check(limits, 7, &[&["000", "001", "002"], &["003", "004", "005"], &["006"]]).await;
        check(Limits { backups: 1, ..limits }, 10, &[&["006", "007", "008"], &["009"]]).await;
        let never = Limits { bytes: 0, ..limits };
        check(never, 7, &[&["000", "001", "002", "003", "004", "005", "006"]]).await;
    }

    #[tokio::test]
    async fn a_line_that_no_file_can_hold_is_refused_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let log = Log::open(&path, Limits { bytes: 9, backups: 0, days: 0 }).unwrap();
        let refused = log.write(b"too long a line\n".to_vec()).await;
        assert_eq!(refused, Err("write length 16 exceeds maximum file size 9".into()));
        log.write(b"line 000\n".to_vec()).await.unwrap();
        log.close().await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 000\n");
    }

    #[test]
    fn old_files_are_forgotten_by_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let others = ["audit-2020-01-01.log", "audit-2020-01-01T00-00-00.000.txt", "other-2020-01-01T00-00-00.000.log"];
        for name in ["audit-2020-01-01T00-00-00.000.log", "audit-2999-01-01T00-00-00.000.log"].iter().chain(&others) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        drop(Rotating::open(&path, Limits { bytes: 100, backups: 0, days: 7 }).unwrap());
        let mut left: Vec<String> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut want = vec!["audit-2999-01-01T00-00-00.000.log", "audit.log"];
        want.extend(others);
        want.sort_unstable();
        assert_eq!(left, want);
    }

    #[tokio::test]
    async fn what_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, "line 000\n").unwrap();
        let log = Log::open(&path, Limits { bytes: 27, backups: 0, days: 0 }).unwrap();
        log.write(b"line 001\n".to_vec()).await.unwrap();
        log.close().await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 000\nline 001\n");
    }
}
