//! Containers' logs: written line by line in the CRI format (`<time> stdout F <line>`), by the agent or by a container engine, and
//! read back as the API server asks for them. A log is a few files of limited size, of which the oldest goes when there would be one more.

use crate::console::Console;
use crate::sandbox::sys;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use rustix::fs::inotify;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::sync::watch;

/// When a log's file is this large, in bytes, the next one begins.
pub const LOG_BYTES_MAX: u64 = 10 << 20;
/// Files of one log, the newest with them; the oldest goes when there would be more.
pub const LOG_FILES_MAX: u64 = 5;
/// How often the file of a log that an engine writes is looked at, as the kubelet does: its writer knows of no limit.
pub const LOG_LOOK_EVERY: Duration = Duration::from_secs(10);
/// A longer line, in bytes, is written in parts.
pub const LINE_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 64 << 10;
/// What is read of the kernel's notices at a time; what they say is not looked at.
const NOTICES_BYTES: usize = 4096;

/// One attempt's log.
pub struct Log {
    path: PathBuf,
    bytes_max: u64,
    writer: Mutex<Writer>,
    progress: watch::Sender<Progress>,
    /// Somebody else writes it: that there is more is told by the file alone.
    of_engine: bool,
}

struct Writer {
    file: File,
    bytes: u64,
    /// Which file of the log it is, from 0.
    turn: u64,
}

/// Changes whenever there is more to read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Progress {
    lines: u64,
    /// The turn of the newest file.
    turn: u64,
    /// No more lines will come.
    closed: bool,
}

/// Which of the standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Stdout,
    Stderr,
}

impl StreamKind {
    fn word(self) -> &'static str {
        match self {
            StreamKind::Stdout => "stdout",
            StreamKind::Stderr => "stderr",
        }
    }
}

/// What part of a log is wanted, and how.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    pub stream: Option<StreamKind>,
}

impl Log {
    /// Starts an empty log.
    pub fn create(path: PathBuf) -> io::Result<Arc<Log>> {
        Log::create_limited(path, LOG_BYTES_MAX)
    }

    /// Goes on with a log that is there, or starts one.
    pub fn reopen(path: PathBuf) -> io::Result<Arc<Log>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let older = path.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
        let turns =
            older.filter_map(|it| it.file_name().to_str()?.strip_prefix(&name)?.strip_prefix('.')?.parse().ok());
        let turn = turns.max().map_or(0, |last: u64| last + 1);
        let file = File::options().append(true).create(true).mode(0o600).open(&path)?;
        let writer = Mutex::new(Writer { bytes: file.metadata()?.len(), file, turn });
        let progress = watch::channel(Progress { turn, ..Progress::default() }).0;
        Ok(Arc::new(Log { path, bytes_max: LOG_BYTES_MAX, writer, progress, of_engine: false }))
    }

    /// A log that a container engine writes.
    pub fn of_engine(path: PathBuf) -> io::Result<Arc<Log>> {
        let mut log = Log::reopen(path)?;
        if let Some(log) = Arc::get_mut(&mut log) {
            log.of_engine = true;
        }
        Ok(log)
    }

    /// Puts the file of an engine's log aside if it is full. True if the engine is to begin another; [`Log::turned`] says that it has.
    pub fn put_aside(&self) -> io::Result<bool> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if std::fs::metadata(&self.path)?.len() < self.bytes_max {
            return Ok(false);
        }
        std::fs::rename(&self.path, self.older(writer.turn))?;
        if let Some(oldest) = (writer.turn + 1).checked_sub(LOG_FILES_MAX) {
            let _ = std::fs::remove_file(self.older(oldest));
        }
        Ok(true)
    }

    /// Nothing more comes into the file that was put aside.
    pub fn turned(&self) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = writer.turn + 1;
        let file = File::options().append(true).create(true).mode(0o600).open(&self.path)?;
        *writer = Writer { file, bytes: 0, turn };
        self.progress.send_modify(|progress| progress.turn = turn);
        Ok(())
    }

    fn create_limited(path: PathBuf, bytes_max: u64) -> io::Result<Arc<Log>> {
        let writer = Mutex::new(Writer { file: create(&path)?, bytes: 0, turn: 0 });
        let progress = watch::channel(Progress::default()).0;
        Ok(Arc::new(Log { path, bytes_max, writer, progress, of_engine: false }))
    }

    /// Copies one of a container's streams into the log until it ends.
    pub async fn capture(
        &self,
        kind: StreamKind,
        mut pipe: impl AsyncRead + Unpin,
        console: &Console,
    ) -> io::Result<()> {
        let mut pending = Vec::new();
        loop {
            let piece = read_piece(&mut pipe).await?;
            if piece.is_empty() {
                break;
            }
            self.take(kind, &mut pending, &piece)?;
            console.tell(kind, &piece).await;
        }
        if !pending.is_empty() {
            self.append(&[(pending.as_slice(), false)], kind)?;
        }
        Ok(())
    }

    fn take(&self, kind: StreamKind, pending: &mut Vec<u8>, chunk: &[u8]) -> io::Result<()> {
        pending.extend_from_slice(chunk);
        let mut lines = Vec::new();
        let mut rest = pending.as_slice();
        loop {
            let window = &rest[..rest.len().min(LINE_BYTES_MAX)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                lines.push((&rest[..end], true));
                rest = &rest[end + 1..];
            } else if rest.len() >= LINE_BYTES_MAX {
                lines.push((window, false));
                rest = &rest[window.len()..];
            } else {
                break;
            }
        }
        if !lines.is_empty() {
            self.append(&lines, kind)?;
        }
        // Most containers are silent most of the time: none of them has room for what it may print.
        *pending = rest.to_vec();
        Ok(())
    }

    /// Writes lines, whole (`true`) or parts.
    fn append(&self, lines: &[(&[u8], bool)], kind: StreamKind) -> io::Result<()> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string();
        let mut text = Vec::new();
        for (line, whole) in lines {
            write!(text, "{now} {} {} ", kind.word(), if *whole { "F" } else { "P" })?;
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.bytes > 0 && writer.bytes + text.len() as u64 > self.bytes_max {
            let turn = writer.turn;
            std::fs::rename(&self.path, self.older(turn))?;
            if let Some(oldest) = (turn + 1).checked_sub(LOG_FILES_MAX) {
                let _ = std::fs::remove_file(self.older(oldest));
            }
            *writer = Writer { file: create(&self.path)?, bytes: 0, turn: turn + 1 };
        }
        writer.file.write_all(&text)?;
        writer.bytes += text.len() as u64;
        self.progress.send_modify(|progress| {
            progress.lines += lines.len() as u64;
            progress.turn = writer.turn;
        });
        Ok(())
    }

    /// The file of a turn, or the next that is still there; and which that is.
    fn open(&self, turn: u64) -> io::Result<(u64, File)> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for turn in turn..writer.turn {
            if let Ok(file) = File::open(self.older(turn)) {
                return Ok((turn, file));
            }
        }
        Ok((writer.turn, File::open(&self.path)?))
    }

    /// The file in which the last so many lines begin, at that place.
    fn open_tail(&self, lines: u64) -> io::Result<(u64, File)> {
        let (mut turn, mut file) = self.open(u64::MAX)?;
        let mut wanted = lines;
        loop {
            let (start, missing) = tail_start(&mut file, wanted)?;
            file.seek(SeekFrom::Start(start))?;
            // The one before, if it is there and anything of it is wanted.
            match turn.checked_sub(1).filter(|_| missing > 0).map(|before| (before, File::open(self.older(before)))) {
                Some((before, Ok(older))) => (turn, file, wanted) = (before, older, missing),
                _ => return Ok((turn, file)),
            }
        }
    }

    /// Where a file that was full lies.
    fn older(&self, turn: u64) -> PathBuf {
        self.path.with_extension(format!("log.{turn}"))
    }

    /// No more lines will come: readers that follow end.
    pub fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// The last of the log, without times, for a termination message.
    pub fn tail(&self, lines: u64, bytes_max: usize) -> String {
        let mut text = Vec::new();
        let _ = File::open(&self.path).and_then(|mut file| {
            let (start, _) = tail_start(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
            file.take(self.bytes_max).read_to_end(&mut text)
        });
        let mut out = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if let Some(line) = Line::parse(line) {
                out.extend_from_slice(line.text);
                out.extend_from_slice(if line.whole { b"\n" } else { b"" });
            }
        }
        String::from_utf8_lossy(&out[out.len().saturating_sub(bytes_max)..]).into_owned()
    }

    /// The log as the options want it.
    pub fn read(self: Arc<Log>, options: LogOptions) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send> {
        let progress = self.progress.subscribe();
        let changes = (self.of_engine && options.follow).then(|| Changes::of(&self.path)).transpose()?;
        let (turn, file) = match options.tail_lines {
            Some(lines) => self.open_tail(lines)?,
            None => self.open(0)?,
        };
        let left = options.limit_bytes.unwrap_or(u64::MAX);
        let reader = Reader { log: self, options, file, progress, changes, turn, pending: Vec::new(), left };
        Ok(stream::try_unfold(
            reader,
            |mut reader| async move { Ok(reader.next().await?.map(|bytes| (bytes, reader))) },
        ))
    }
}

struct Reader {
    log: Arc<Log>,
    options: LogOptions,
    file: File,
    progress: watch::Receiver<Progress>,
    /// Of the folder of a log that somebody else writes.
    changes: Option<Changes>,
    /// The turn of the file that is read.
    turn: u64,
    /// The start of a line that has not ended.
    pending: Vec<u8>,
    left: u64,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            let now = *self.progress.borrow_and_update();
            let mut chunk = vec![0; READ_BYTES];
            // Files of a local disk that were just written: reading them does not wait.
            let count = self.file.read(&mut chunk)?;
            if count > 0 {
                let out = self.take(&chunk[..count]);
                if !out.is_empty() {
                    return Ok(Some(out));
                }
            } else if now.turn > self.turn {
                (self.turn, self.file) = self.log.open(self.turn + 1)?;
            } else if now.closed || !self.options.follow {
                return Ok(None);
            } else {
                let changed = match &mut self.changes {
                    None => self.progress.changed().await.is_ok(),
                    Some(changes) => tokio::select! {
                        changed = self.progress.changed() => changed.is_ok(),
                        changed = changes.next() => changed.is_ok(),
                    },
                };
                if !changed {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    fn take(&mut self, chunk: &[u8]) -> Bytes {
        self.pending.extend_from_slice(chunk);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Bytes::new() };
        let rest = self.pending.split_off(end + 1);
        let lines = std::mem::replace(&mut self.pending, rest);
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = Line::parse(line) else { continue };
            let old =
                self.options.since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|time| time < since));
            if old || self.options.stream.is_some_and(|kind| kind.word() != line.stream) {
                continue;
            }
            if self.options.timestamps {
                out.extend_from_slice(line.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.text);
            if line.whole {
                out.push(b'\n');
            }
        }
        out.truncate(self.left.min(out.len() as u64) as usize);
        self.left -= out.len() as u64;
        out.into()
    }
}

/// The kernel's word that a file was written to, from when this is made.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(path: &Path) -> io::Result<Changes> {
        let notify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        // The folder's, so that a file that takes this one's place counts too.
        let folder = path.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(&notify, folder, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE)?;
        Ok(Changes(sys::watch(notify)?))
    }

    async fn next(&mut self) -> io::Result<()> {
        let mut notices = [0; NOTICES_BYTES];
        let read = |fd: &OwnedFd| rustix::io::read(fd, &mut notices).map_err(io::Error::from);
        self.0.async_io(Interest::READABLE, read).await.map(drop)
    }
}

struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    whole: bool,
    text: &'a [u8],
}

impl Line<'_> {
    fn parse(line: &[u8]) -> Option<Line<'_>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut word = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
        let (time, stream, flag) = (word()?, word()?, word()?);
        Some(Line { time, stream, whole: flag == "F", text: parts.next()? })
    }
}

/// What can be read now, once there is something; nothing at the end. A stream that is waited for holds no buffer.
async fn read_piece(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        let mut chunk = [MaybeUninit::uninit(); READ_BYTES];
        let mut piece = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut piece))?;
        Poll::Ready(Ok(piece.filled().to_vec()))
    })
    .await
}

/// Where the last so many lines start, and how many more there would have to be in the file before.
fn tail_start(file: &mut File, lines: u64) -> io::Result<(u64, u64)> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = end;
    let mut seen = 0;
    let mut last = true;
    while at > 0 {
        let start = at.saturating_sub(READ_BYTES as u64);
        let mut block = vec![0; (at - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            // The end of the last line starts no line.
            if *byte == b'\n' && !std::mem::take(&mut last) {
                seen += 1;
            } else {
                last = false;
            }
            if seen == lines && *byte == b'\n' {
                return Ok((start + index as u64 + 1, 0));
            }
        }
        at = start;
    }
    Ok((0, lines.saturating_sub(seen + u64::from(end > 0))))
}

fn create(path: &std::path::Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn text(log: &Arc<Log>, options: LogOptions) -> String {
        let chunks: Vec<Bytes> = log.clone().read(options).unwrap().try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    fn write(log: &Log, text: &str) {
        let mut pending = Vec::new();
        log.take(StreamKind::Stdout, &mut pending, text.as_bytes()).unwrap();
        assert!(pending.is_empty());
    }

    #[tokio::test]
    async fn reads_what_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path().join("0.log")).unwrap();
        write(&log, "one\ntwo\n");
        log.append(&[(b"three", true)], StreamKind::Stderr).unwrap();
        let tail = |lines| LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
        assert_eq!(text(&log, LogOptions::default()).await, "one\ntwo\nthree\n");
        assert_eq!(text(&log, tail(0)).await, "");
        assert_eq!(text(&log, tail(2)).await, "two\nthree\n");
        assert_eq!(text(&log, tail(9)).await, "one\ntwo\nthree\n");
        assert_eq!(text(&log, LogOptions { limit_bytes: Some(5), ..LogOptions::default() }).await, "one\nt");
        assert_eq!(
            text(&log, LogOptions { stream: Some(StreamKind::Stderr), ..LogOptions::default() }).await,
            "three\n"
        );
        let future = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        assert_eq!(text(&log, LogOptions { since: Some(future), ..LogOptions::default() }).await, "");
        let timed = text(&log, LogOptions { timestamps: true, tail_lines: Some(1), ..LogOptions::default() }).await;
        let (time, rest) = timed.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == 30, "{time}");
        assert_eq!(rest, "three\n");
        assert_eq!(log.tail(2, 100), "two\nthree\n");
        assert_eq!(log.tail(2, 6), "three\n");
    }

    #[tokio::test]
    async fn long_lines_come_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path().join("0.log")).unwrap();
        let long = "x".repeat(3 * LINE_BYTES_MAX + 5) + "\nshort\n";
        write(&log, &long);
        assert_eq!(text(&log, LogOptions::default()).await, long);
    }

    #[tokio::test]
    async fn follows_through_a_turn_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create_limited(dir.path().join("0.log"), 300).unwrap();
        write(&log, "first\n");
        let reading = tokio::spawn({
            let log = log.clone();
            async move { text(&log, LogOptions { follow: true, ..LogOptions::default() }).await }
        });
        let mut expected = "first\n".to_owned();
        for number in 0..20 {
            tokio::task::yield_now().await;
            write(&log, &format!("line {number}\n"));
            expected += &format!("line {number}\n");
            tokio::task::yield_now().await;
        }
        log.close();
        assert_eq!(reading.await.unwrap(), expected);
        // What is kept is read as one.
        let kept: String = (0..20).map(|number| format!("line {number}\n")).collect();
        assert!(("first\n".to_owned() + &kept).ends_with(&text(&log, LogOptions::default()).await));
        let tail = LogOptions { tail_lines: Some(9), ..LogOptions::default() };
        assert_eq!(text(&log, tail).await, kept.split_at(kept.find("line 11").unwrap()).1);
    }

    #[tokio::test]
    async fn who_is_behind_reads_on_in_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        // Two lines fit into a file.
        let log = Log::create_limited(dir.path().join("0.log"), 100).unwrap();
        write(&log, "line 0\n");
        let follow = LogOptions { follow: true, ..LogOptions::default() };
        let reading = log.clone().read(follow).unwrap();
        (1..20).for_each(|number| write(&log, &format!("line {number}\n")));
        log.close();
        let chunks: Vec<Bytes> = reading.try_collect().await.unwrap();
        let seen = String::from_utf8(chunks.concat()).unwrap();
        // The file that it had open, then the five that are left.
        let want: String = (0..2).chain(10..20).map(|number| format!("line {number}\n")).collect();
        assert_eq!(seen, want);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count() as u64, LOG_FILES_MAX);
        assert_eq!(text(&log, LogOptions::default()).await, want.split_at(14).1);
        for (lines, first) in [(0, 20), (1, 19), (2, 18), (3, 17), (9, 11), (10, 10), (11, 10), (99, 10)] {
            let want: String = (first..20).map(|number| format!("line {number}\n")).collect();
            let tail = LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
            assert_eq!(text(&log, tail).await, want, "{lines}");
        }
    }
}
