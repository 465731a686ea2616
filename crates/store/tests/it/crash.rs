//! A process that is killed while many writers commit: every acknowledged write is there afterwards.

use crate::replica::Replica;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};
use store::*;

const ROUNDS: usize = 10;
const WRITERS: usize = 1000;
const DIR_VARIABLE: &str = "KEMUDI_STORE_CHILD_DIR";

/// This test binary again, to run one ignored test in a process of its own.
pub fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIR_VARIABLE, dir);
    command
}

pub fn child_dir() -> PathBuf {
    env::var_os(DIR_VARIABLE).expect("run by its parent only").into()
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("disk://{}", dir.path().display());
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        // Ever later, from amid the first batch to well into the engine's flushing.
        let acks = run_and_kill(dir.path(), 1 + round * 700);
        assert!(acks.len() > round * 700);
        acknowledged.extend(acks);
        let store = open(&url).unwrap();
        let copy = Replica::follow(&store, "t").unwrap().copy();
        for (key, revision) in &acknowledged {
            let found = copy.items.get(key).unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            assert_eq!(*found, (*revision, value(key).at(*revision)), "round {round}: {key} has changed");
        }
        // What was not acknowledged may be there, but whole.
        for (key, (revision, found)) in &copy.items {
            assert_eq!(*found, value(key).at(*revision), "round {round}: {key} is damaged");
        }
        let last = copy.items.values().map(|(revision, _)| *revision).max();
        assert_eq!(last, Some(store.revision()), "round {round}: nothing was deleted, so the last one is there");
        store.close().await.unwrap();
    }
    println!("{} acknowledged writes in {ROUNDS} rounds, none lost", acknowledged.len());
}

#[tokio::test]
async fn a_kill_at_any_moment_of_the_first_start() {
    for round in 0..ROUNDS as u32 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child("crash::writers_child", dir.path()).stdout(Stdio::null()).spawn().unwrap();
        // The first start takes some milliseconds, and so does the process before it.
        let (_never, wait) = mpsc::channel::<()>();
        _ = wait.recv_timeout(Duration::from_millis(2) * round);
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(&format!("disk://{}", dir.path().display())).unwrap();
        store.commit(create("after".to_owned())).await.unwrap();
        drop(store);
        let store = open(&format!("disk://{}", dir.path().display())).unwrap();
        assert!(Replica::follow(&store, "t").unwrap().copy().items.contains_key("after"));
    }
}

/// The keys and revisions that a child acknowledged until it was killed, some time after `enough` of them.
fn run_and_kill(dir: &Path, enough: usize) -> BTreeMap<String, Revision> {
    let mut child = child("crash::writers_child", dir).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut acks = BTreeMap::new();
    // The pipe still gives what was printed before the end; a line cut off was not printed.
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some((key, revision)) =
            line.strip_suffix('\n').and_then(|line| line.strip_prefix("ack ")?.split_once(' '))
        {
            assert_eq!(acks.insert(key.to_owned(), revision.parse().unwrap()), None);
        }
        line.clear();
        if acks.len() == enough {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "run by the tests of this file as a process to kill"]
async fn writers_child() {
    let store = open(&format!("disk://{}", child_dir().display())).unwrap();
    println!();
    let writers = (0..WRITERS).map(|writer| {
        let store: Arc<dyn Store> = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let key = format!("{}-{writer}-{n}", std::process::id());
                let revision = store.commit(create(key.clone())).await.unwrap();
                let line = format!("ack {key} {revision}\n");
                if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

fn create(key: String) -> Write {
    let change = Change::Put(value(&key));
    Write { table: "t".into(), key, expect: Expect::Absent, change }
}

/// Some 3 KB that tell whose they are.
fn value(key: &str) -> Value {
    Value::Stamped { head: Bytes::from(format!("{key} at ")), tail: Bytes::from(format!(" {key}").repeat(200)) }
}
