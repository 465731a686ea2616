//! What only the disk backend does: it outlives its process, guards its directory, and bears a failing disk.

use crate::{crash::child, replica::list};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use store::*;

fn open_dir(dir: &Path) -> Result<Arc<dyn Store>, Error> {
    open(&format!("disk://{}", dir.display()))
}

fn refusal(dir: &Path) -> String {
    let text = open_dir(dir).err().map_or_else(|| "opened".to_owned(), |error| error.to_string());
    text.replace(&dir.canonicalize().unwrap().display().to_string(), "DIR")
}

fn write(key: &str, value: Option<Vec<u8>>) -> Write {
    let change = value.map_or(Change::Delete, |value| Change::Put(Value::Plain(value.into())));
    Write { table: "t".into(), key: key.to_owned(), expect: Expect::Any, change }
}

#[tokio::test]
async fn opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_dir(dir.path()).unwrap();
    store.commit(write("a", Some(b"one".into()))).await.unwrap();
    store.commit(write("b", Some(b"two".into()))).await.unwrap();
    store.commit(write("b", None)).await.unwrap();
    // Without a close: to drop it is enough.
    drop(store);
    let store = open_dir(dir.path()).unwrap();
    assert_eq!(store.revision(), 4, "the deletion's revision is not used again");
    assert_eq!(list(&store, "t"), "4: a@2=one");
    assert_eq!(store.commit(write("c", Some(b"three".into()))).await, Ok(5));
}

/// More than the engine keeps in memory, so that sorted files and rotated journals are read again, too.
#[tokio::test]
async fn opens_again_with_much() {
    const VALUE_BYTES: usize = 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let store = open_dir(dir.path()).unwrap();
    for n in 0..40_u8 {
        store.commit(write(&format!("{}", n % 30), Some(vec![n; VALUE_BYTES]))).await.unwrap();
    }
    store.close().await.unwrap();
    let store = open_dir(dir.path()).unwrap();
    let copy = crate::replica::Replica::follow(&store, "t").unwrap().copy();
    for n in 10..40_u8 {
        let (revision, value) = &copy.items[&format!("{}", n % 30)];
        assert_eq!((*revision, value), (n as Revision + 2, &vec![n; VALUE_BYTES].into()));
    }
    assert_eq!(copy.items.len(), 30);
}

#[tokio::test]
async fn is_private() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b");
    let _store = open_dir(&dir).unwrap();
    for path in [dir.clone(), dir.join("db")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
}

#[tokio::test]
async fn is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_dir(dir.path()).unwrap();
    let wanted = format!(
        "store DIR: it is open in another process (pid {}): stop that one, or choose another directory",
        std::process::id()
    );
    assert_eq!(refusal(dir.path()), wanted);
    store.close().await.unwrap();
    assert_eq!(refusal(dir.path()), "opened");
}

/// A process being started has this one's files for a moment, the lock among them.
#[test]
fn is_free_when_closed_while_processes_start() {
    let dir = tempfile::tempdir().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let starting = {
        let done = done.clone();
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let mut command = Command::new("true");
                // SAFETY: it does nothing; that it is there makes the standard library fork instead of spawn.
                unsafe { command.pre_exec(|| Ok(())) };
                command.status().unwrap();
            }
        })
    };
    let opened: Vec<_> = (0..20).map(|_| refusal(dir.path())).collect();
    done.store(true, Ordering::Relaxed);
    starting.join().unwrap();
    assert_eq!(opened, ["opened"; 20]);
}

#[tokio::test]
async fn knows_its_format() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_dir(dir.path()).unwrap();
    store.commit(write("a", Some(b"one".into()))).await.unwrap();
    drop(store);
    fs::write(dir.path().join("format"), "kemudi store 2\n").unwrap();
    assert_eq!(
        refusal(dir.path()),
        "store DIR: it was written in the format \"kemudi store 2\", and this version of kemudi reads \
         \"kemudi store 1\": use the version that wrote it, or choose another directory"
    );
    fs::remove_file(dir.path().join("format")).unwrap();
    assert_eq!(
        refusal(dir.path()),
        "store DIR: it has data but no file named format: restore that file, or choose another directory"
    );
}

#[tokio::test]
async fn survives_a_first_start_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/0.jnl"), "").unwrap();
    assert_eq!(refusal(dir.path()), "opened");
    assert_eq!(refusal(dir.path()), "opened");
}

#[test]
fn a_directory_that_cannot_be() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(refusal(file.path()).starts_with("store DIR: "), "{}", refusal(file.path()));
}

/// In a process of its own, as it lowers the size that this process may give to files.
#[test]
fn a_failing_disk() {
    let dir = tempfile::tempdir().unwrap();
    let output = child("disk::a_failing_disk_child", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "run by a_failing_disk in a process of its own"]
async fn a_failing_disk_child() {
    const VALUE_BYTES: usize = 64 * 1024;
    let dir = crate::crash::child_dir();
    let store = open_dir(&dir).unwrap();
    set_file_size_limit(1024 * 1024);
    // Random, so that compression does not make them fit.
    let mut random = crate::suite::Random(1);
    let mut written = Vec::new();
    let error = loop {
        assert!(written.len() < 100, "the limit was never met");
        let value = (0..VALUE_BYTES).map(|_| random.below(256) as u8).collect();
        match store.commit(write(&format!("{:03}", written.len()), Some(value))).await {
            Ok(revision) => written.push(revision),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("nothing more is written until kemudi is started again"), "{error}");
    assert!(written.len() > 2);
    let again = store.commit(write("small", Some(b"x".into()))).await;
    assert_eq!(again, Err(Error::Io(error)));
    assert_eq!(store.revision(), written[written.len() - 1]);
    let listed = |store| crate::replica::Replica::follow(store, "t").unwrap().copy().items;
    assert_eq!(listed(&store).values().map(|(revision, _)| *revision).collect::<Vec<_>>(), written);
    store.close().await.unwrap();

    set_file_size_limit(u64::MAX);
    let store = open_dir(&dir).unwrap();
    let found: Vec<_> = listed(&store).values().map(|(revision, _)| *revision).collect();
    assert!(found.starts_with(&written), "{found:?} lacks some of {written:?}");
    assert_eq!(store.commit(write("small", Some(b"x".into()))).await, Ok(store.revision()));
}

/// What lies beyond cannot be written, and says so with an error instead of a signal.
fn set_file_size_limit(bytes: u64) {
    // SAFETY: plain calls, with a pointer that lives through them.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(bytes);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}
