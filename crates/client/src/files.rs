//! Tells when files may have changed: tokens, certificates, keys. The kernel says so; where it cannot, the files' stamps are
//! compared now and then. Never reads a file, never starts a task: whoever asks gets the news of that moment.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often stamps are compared where the kernel tells nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often they are where it does: some file systems (of a network, for one) change without its knowledge.
const LOOK_EVERY_WATCHED: Duration = Duration::from_secs(30);
/// What a projected volume replaces when it changes: a symbolic link to the folder that holds the files.
const DATA: &str = "..data";

/// How often some files have changed.
pub struct FileChanges {
    paths: Vec<PathBuf>,
    generation: AtomicU64,
    state: Mutex<State>,
}

struct State {
    notices: Option<Notices>,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

/// Tells one content of a file from the next: projected volumes swap a symbolic link, so the inode changes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: i64,
    modified_ns: i64,
    len: u64,
}

impl FileChanges {
    /// Begins to follow these files, which need not be there.
    pub fn of(paths: Vec<PathBuf>) -> FileChanges {
        let notices = if paths.is_empty() { None } else { Notices::of(&paths) };
        let stamps = paths.iter().map(|path| Stamp::of(path)).collect();
        let state = State { notices, stamps, looked: Instant::now() };
        FileChanges { paths, generation: AtomicU64::new(0), state: Mutex::new(state) }
    }

    /// A number that is another one when a file may have changed since. One system call that touches no file.
    pub fn generation(&self) -> u64 {
        if self.paths.is_empty() {
            return 0;
        }
        // Who finds it locked is a moment late: the one who holds it is finding out.
        if let Ok(mut state) = self.state.try_lock()
            && state.changed(&self.paths)
        {
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.generation.load(Ordering::Acquire)
    }
}

impl State {
    fn changed(&mut self, paths: &[PathBuf]) -> bool {
        let told = self.notices.as_ref().is_some_and(|notices| notices.take(paths));
        let every = if self.notices.is_some() { LOOK_EVERY_WATCHED } else { LOOK_EVERY };
        if !told && self.looked.elapsed() < every {
            return false;
        }
        self.looked = Instant::now();
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
        let differs = stamps != self.stamps;
        self.stamps = stamps;
        // Rewriting a file in place within the clock's resolution may leave its stamp as it was.
        told || differs
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Stamp { inode: meta.ino(), modified: meta.mtime(), modified_ns: meta.mtime_nsec(), len: meta.len() })
    }
}

/// The folders that hold the files, as they are named and as they really are.
fn folders(paths: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let real = paths.iter().filter_map(|path| path.canonicalize().ok());
    let all = paths.iter().cloned().chain(real);
    all.filter_map(|path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_path_buf),
    })
}

fn is_of_interest(name: &OsString, paths: &[PathBuf]) -> bool {
    name == DATA || paths.iter().any(|path| path.file_name() == Some(name))
}

#[cfg(target_os = "linux")]
struct Notices(nix::sys::inotify::Inotify);

#[cfg(target_os = "linux")]
impl Notices {
    /// `None` where the kernel has no more of them to give.
    fn of(paths: &[PathBuf]) -> Option<Notices> {
        use nix::sys::inotify::{InitFlags, Inotify};
        let notices = Notices(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?);
        // A folder that is there is enough: the files may come later.
        notices.follow(paths).then_some(notices)
    }

    fn follow(&self, paths: &[PathBuf]) -> bool {
        use nix::sys::inotify::AddWatchFlags as What;
        let what = What::IN_MOVED_TO | What::IN_CLOSE_WRITE | What::IN_CREATE | What::IN_DELETE;
        let mut followed = false;
        for folder in folders(paths) {
            // Following a folder twice is following it once.
            followed |= self.0.add_watch(&folder, what).is_ok();
        }
        followed
    }

    /// Takes the notices that have come; whether one is about these files.
    fn take(&self, paths: &[PathBuf]) -> bool {
        use nix::sys::inotify::AddWatchFlags;
        let mut told = false;
        while let Ok(notices) = self.0.read_events() {
            for notice in notices {
                let lost = notice.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                told |= lost || notice.name.is_some_and(|name| is_of_interest(&name, paths));
            }
        }
        if told {
            // The files may be in another folder now.
            self.follow(paths);
        }
        told
    }
}

#[cfg(not(target_os = "linux"))]
struct Notices;

#[cfg(not(target_os = "linux"))]
impl Notices {
    fn of(_: &[PathBuf]) -> Option<Notices> {
        None
    }

    fn take(&self, _: &[PathBuf]) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_shows_at_once_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["..1", "..2"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("token"), "same").unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/token", at("token")).unwrap();
        let files = FileChanges::of(vec![at("token"), at("later/ca.crt")]);
        let mut seen = files.generation();
        let mut check = |what: &str, moves: bool| {
            let now = files.generation();
            assert_eq!(now != seen, moves, "{what}");
            assert_eq!(files.generation(), now, "{what}, asked again");
            seen = now;
        };
        check("nothing", false);
        fs::write(at("other"), "x").unwrap();
        check("another file", false);
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        check("a projected volume's swap", true);
        fs::write(at("..2/token"), "more").unwrap();
        check("written in place, where the link leads", true);
        fs::remove_file(at("token")).unwrap();
        check("removed", true);
        fs::write(at("token"), "").unwrap();
        check("made", true);
    }
}
