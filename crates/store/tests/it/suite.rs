//! What every backend does alike. A test is a function of a store; `suite!` runs it on each backend.

use crate::replica::{Copy, Replica, list};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use store::*;

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod memory { $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(super::Backend::memory()).await } )* }
        mod disk { $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(super::Backend::disk()).await } )* }
    };
}

suite!(
    expectations,
    values,
    tables_are_apart,
    events,
    unfollow,
    sizes,
    closed,
    a_batch_judges_by_its_own_writes,
    followers_are_exact_among_writers,
    agrees_with_a_map,
);

/// A way to open the same store again, where it outlives its closing.
struct Backend {
    url: String,
    dir: Option<tempfile::TempDir>,
}

impl Backend {
    fn memory() -> Backend {
        Backend { url: "memory://".to_owned(), dir: None }
    }

    fn disk() -> Backend {
        let dir = tempfile::tempdir().unwrap();
        Backend { url: format!("disk://{}", dir.path().join("new/store").display()), dir: Some(dir) }
    }

    fn open(&self) -> Arc<dyn Store> {
        open(&self.url).unwrap_or_else(|error| panic!("{error}"))
    }

    fn outlives_closing(&self) -> bool {
        self.dir.is_some()
    }
}

/// Runs lines such as `create pods/a one` and compares what each answers.
async fn check(store: &Arc<dyn Store>, lines: &[(&str, &str)]) {
    for (line, wanted) in lines {
        let got = match line.split_once(' ') {
            Some(("list", table)) => list(store, table),
            _ => match store.commit(parse(line)).await {
                Ok(revision) => revision.to_string(),
                Err(error) => error.to_string(),
            },
        };
        assert_eq!(got, *wanted, "{line}");
    }
}

/// `create|put|put@REVISION|delete|delete@REVISION TABLE/KEY [VALUE]`; a `#` in the value is where its revision goes.
fn parse(line: &str) -> Write {
    let mut words = line.splitn(3, ' ');
    let (verb, path) = (words.next().unwrap(), words.next().unwrap());
    let (verb, at) = verb.split_once('@').map_or((verb, None), |(verb, at)| (verb, Some(at)));
    let (table, key) = path.split_once('/').unwrap();
    let expect = match (verb, at) {
        ("create", _) => Expect::Absent,
        (_, Some(at)) => Expect::At(at.parse().unwrap()),
        _ => Expect::Any,
    };
    let change = match (verb, words.next().unwrap_or_default()) {
        ("delete", _) => Change::Delete,
        (_, value) => Change::Put(match value.split_once('#') {
            Some((head, tail)) => {
                Value::Stamped { head: Bytes::from(head.to_owned()), tail: Bytes::from(tail.to_owned()) }
            }
            None => Value::Plain(Bytes::from(value.to_owned())),
        }),
    };
    Write { table: table.into(), key: key.to_owned(), expect, change }
}

async fn expectations(backend: Backend) {
    let store = backend.open();
    assert_eq!(store.revision(), REVISION_START);
    check(
        &store,
        &[
            ("list pods", "1:"),
            ("put@1 pods/a one", "the key is absent"),
            ("delete@1 pods/a", "the key is absent"),
            ("delete pods/a", "1"),
            ("create pods/a one", "2"),
            ("create pods/a two", "the key was changed at revision 2"),
            ("put@1 pods/a two", "the key was changed at revision 2"),
            ("put@2 pods/a two", "3"),
            ("put@2 pods/a three", "the key was changed at revision 3"),
            ("put pods/a three", "4"),
            ("put pods/b new", "5"),
            ("delete@3 pods/a", "the key was changed at revision 4"),
            ("list pods", "5: a@4=three b@5=new"),
            ("delete@4 pods/a", "6"),
            ("delete@4 pods/a", "the key is absent"),
            ("delete pods/a", "6"),
            ("create pods/a again", "7"),
            ("list pods", "7: a@7=again b@5=new"),
        ],
    )
    .await;
    assert_eq!(store.revision(), 7);
}

async fn values(backend: Backend) {
    let store = backend.open();
    check(
        &store,
        &[
            ("create pods/a {\"resourceVersion\":\"#\"}", "2"),
            ("put pods/a {\"resourceVersion\":\"#\",\"kind\":\"Pod\"}", "3"),
            ("create pods/empty ", "4"),
            ("create pods/# #", "5"),
            ("list pods", "5: #@5=5 a@3={\"resourceVersion\":\"3\",\"kind\":\"Pod\"} empty@4="),
        ],
    )
    .await;
}

async fn tables_are_apart(backend: Backend) {
    let store = backend.open();
    check(
        &store,
        &[
            ("create a/bc 1", "2"),
            ("create ab/c 2", "3"),
            ("create abc/ 3", "4"),
            ("create /abc 4", "5"),
            ("create a/é 5", "6"),
            ("create a/b/c 6", "7"),
            ("list a", "7: b/c@7=6 bc@2=1 é@6=5"),
            ("list ab", "7: c@3=2"),
            ("list abc", "7: @4=3"),
            ("list ", "7: abc@5=4"),
            ("list b", "7:"),
        ],
    )
    .await;
}

async fn events(backend: Backend) {
    let store = backend.open();
    let early = Replica::follow(&store, "pods").unwrap();
    check(&store, &[("create pods/a one", "2"), ("create nodes/n x", "3"), ("put pods/a rev=#", "4")]).await;
    let late = Replica::follow(&store, "pods").unwrap();
    check(
        &store,
        &[("delete pods/none", "4"), ("create pods/a no", "the key was changed at revision 4"), ("delete pods/a", "5")],
    )
    .await;
    assert_eq!(early.copy().seen, ["2 a created one", "4 a changed rev=4", "5 a deleted"]);
    assert_eq!(late.copy().seen, ["5 a deleted"]);
}

async fn unfollow(backend: Backend) {
    let store = backend.open();
    let (gone, stays) = (Replica::follow(&store, "pods").unwrap(), Replica::follow(&store, "pods").unwrap());
    check(&store, &[("create pods/a one", "2")]).await;
    let follower: Arc<dyn Follower> = gone.clone();
    store.unfollow("nodes", &follower);
    store.unfollow("pods", &follower);
    store.unfollow("pods", &follower);
    check(&store, &[("create pods/b two", "3")]).await;
    assert_eq!(gone.copy().seen, ["2 a created one"]);
    assert_eq!(stays.copy().seen, ["2 a created one", "3 b created two"]);
}

async fn sizes(backend: Backend) {
    let store = backend.open();
    let put = |table: &str, key: usize, value| Write {
        table: table.into(),
        key: "k".repeat(key),
        expect: Expect::Any,
        change: Change::Put(value),
    };
    let plain = |bytes| Value::Plain(vec![b'v'; bytes].into());
    let stamped = |bytes| Value::Stamped { head: vec![b'v'; bytes].into(), tail: Bytes::new() };
    let too_large = |what, bytes, limit| Err(Error::TooLarge { what, bytes, limit });
    let more = VALUE_BYTES_MAX + 1;
    assert_eq!(store.commit(put("t", 1, plain(more))).await, too_large("value", more, VALUE_BYTES_MAX));
    assert_eq!(store.commit(put("t", 1, stamped(more - 20))).await, too_large("value", more, VALUE_BYTES_MAX));
    assert_eq!(store.commit(put("t", KEY_BYTES_MAX, plain(1))).await, too_large("key", 4097, KEY_BYTES_MAX));
    let long = "t".repeat(KEY_BYTES_MAX + 1);
    assert_eq!(list(&store, &long), "the key has 4097 bytes, and the limit is 4096");
    assert_eq!(store.commit(put("t", KEY_BYTES_MAX - 1, plain(VALUE_BYTES_MAX))).await, Ok(2));
    assert_eq!(store.commit(put("t", 1, stamped(VALUE_BYTES_MAX - 20))).await, Ok(3));
    let copy = Replica::follow(&store, "t").unwrap().copy();
    let sizes: Vec<_> = copy.items.iter().map(|(key, (_, value))| (key.len(), value.len())).collect();
    assert_eq!(sizes, [(1, VALUE_BYTES_MAX - 19), (KEY_BYTES_MAX - 1, VALUE_BYTES_MAX)]);
}

async fn closed(backend: Backend) {
    let store = backend.open();
    check(&store, &[("create pods/a one", "2")]).await;
    let replica = Replica::follow(&store, "pods").unwrap();
    let (first, second) = tokio::join!(store.close(), store.close());
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(store.close().await, Ok(()));
    check(&store, &[("put pods/a two", "the store is closed"), ("list pods", "the store is closed")]).await;
    assert_eq!(Arc::strong_count(&replica), 1, "a closed store keeps its followers");
    assert_eq!(store.revision(), 2);
}

/// Many writers race for each key: exactly one creates it, and its updates form a chain.
async fn a_batch_judges_by_its_own_writes(backend: Backend) {
    const WRITERS: usize = 64;
    let store = backend.open();
    let replica = Replica::follow(&store, "t").unwrap();
    for round in 0..8 {
        let writers = (0..WRITERS).map(|writer| {
            let (store, replica) = (store.clone(), replica.clone());
            let line = match writer % 4 {
                0 => format!("create t/{round} {writer}"),
                1 => format!("put t/{round} {writer}"),
                2 => format!("delete t/{round}"),
                _ => format!("create t/{round}-{writer} #"),
            };
            tokio::spawn(async move {
                let result = store.commit(parse(&line)).await;
                if let Ok(revision) = result {
                    assert!(line.starts_with("delete") || replica.revision() >= revision, "answered before applied");
                }
                matches!(result, Err(Error::Conflict { found: None })).then(|| panic!("{line}: {result:?}"));
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    }
    same(&store, "t", &replica.copy());
}

async fn followers_are_exact_among_writers(backend: Backend) {
    const WRITERS: usize = 16;
    const COMMITS: usize = 60;
    let store = backend.open();
    let tables = ["pods", "nodes", "leases"];
    let first = tables.map(|table| Replica::follow(&store, table).unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let joining = {
        let (store, done) = (store.clone(), done.clone());
        // As a thread of its own: what it does blocks.
        std::thread::spawn(move || {
            let mut replicas = Vec::new();
            while !done.load(Ordering::Relaxed) || replicas.len() < tables.len() {
                let table = tables[replicas.len() % tables.len()];
                replicas.push((table, Replica::follow(&store, table).unwrap()));
                // Enough to meet every phase of a commit, few enough to hold.
                let revision = store.revision();
                while !done.load(Ordering::Relaxed) && store.revision() < revision + 5 {
                    std::thread::yield_now();
                }
            }
            replicas
        })
    };
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut last = 0;
            for commit in 0..COMMITS {
                let (table, key) = (tables[commit % tables.len()], (writer + commit) % 7);
                let line = match commit % 5 {
                    4 => format!("delete {table}/{key}"),
                    _ => format!("put {table}/{key} {writer} {commit} #"),
                };
                let revision = store.commit(parse(&line)).await.unwrap();
                assert!(revision > last || (commit % 5 == 4 && revision == last), "{line}: {revision} after {last}");
                last = revision;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let joined = joining.join().unwrap();
    for (table, replica) in tables.into_iter().zip(first).chain(joined) {
        same(&store, table, &replica.copy());
    }
}

/// Long random runs, with followers that come at any moment, against a plain map, and across closings.
async fn agrees_with_a_map(backend: Backend) {
    for seed in 1..=4 {
        let store = backend.open();
        agrees_with_a_map_from(&backend, store, seed).await;
    }
}

async fn agrees_with_a_map_from(backend: &Backend, mut store: Arc<dyn Store>, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // On a disk the seeds go on where the last one stopped, each in tables of its own.
    let mut revision = store.revision();
    let tables = [format!("pods-{seed}"), format!("nodes-{seed}")];
    let mut model: BTreeMap<(String, String), (Revision, String)> = BTreeMap::new();
    let mut replicas: Vec<(String, Arc<Replica>)> = Vec::new();
    for step in 0..300 {
        let (table, key) = (tables[random.below(2)].clone(), random.below(9).to_string());
        let path = (table.clone(), key.clone());
        let found = model.get(&path).map(|(revision, _)| *revision);
        let at = match random.below(4) {
            0 => random.below(revision as usize + 2) as Revision,
            _ => found.unwrap_or(revision),
        };
        let (line, holds, deletes) = match random.below(6) {
            0 => (format!("create {table}/{key} {step}:#"), found.is_none(), false),
            1 => (format!("put {table}/{key} {step}:#"), true, false),
            2 | 3 => (format!("put@{at} {table}/{key} {step}:#"), found == Some(at), false),
            4 => (format!("delete@{at} {table}/{key}"), found == Some(at), true),
            _ => (format!("delete {table}/{key}"), true, true),
        };
        let wanted = match (holds, deletes) {
            (false, _) => Err(Error::Conflict { found }),
            (true, true) if found.is_none() => Ok(revision),
            (true, deletes) => {
                revision += 1;
                match deletes {
                    true => model.remove(&path),
                    false => model.insert(path, (revision, format!("{step}:{revision}"))),
                };
                Ok(revision)
            }
        };
        assert_eq!(store.commit(parse(&line)).await, wanted, "seed {seed}, step {step}: {line}");
        assert_eq!(store.revision(), revision);
        if random.below(20) == 0 {
            replicas.push((table.clone(), Replica::follow(&store, &table).unwrap()));
        }
        if random.below(60) == 0 && backend.outlives_closing() {
            replicas.iter().for_each(|(table, replica)| same(&store, table, &replica.copy()));
            replicas.clear();
            store.close().await.unwrap();
            store = backend.open();
            assert_eq!(store.revision(), revision, "seed {seed}, step {step}: opened again");
        }
    }
    for table in &tables {
        let items = model.iter().filter(|((of, _), _)| of == table);
        let items = items.map(|((_, key), (revision, value))| format!(" {key}@{revision}={value}"));
        assert_eq!(list(&store, table), format!("{revision}:{}", items.collect::<String>()), "seed {seed}");
    }
    replicas.iter().for_each(|(table, replica)| same(&store, table, &replica.copy()));
}

/// A follower's copy is what the store has.
fn same(store: &Arc<dyn Store>, table: &str, copy: &Copy) {
    let fresh = Replica::follow(store, table).unwrap().copy();
    assert_eq!(copy.items, fresh.items, "a copy of {table} differs");
}

/// A small generator of repeatable numbers (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn urls() {
    let check = |url: &str, wanted: &str| {
        assert_eq!(open(url).map(|_| "opened".to_owned()).unwrap_or_else(|error| error.to_string()), wanted)
    };
    check("memory://", "opened");
    check("memory", "store \"memory\" has no scheme: use memory:// or disk://DIR");
    check("memory://x", "store \"memory://x\": memory:// takes nothing after it");
    check("disk://", "store \"disk://\" names no directory: use disk://DIR");
    check("redis://x", "store \"redis://x\": unknown scheme \"redis\": use memory:// or disk://DIR");
    check(
        "etcd://127.0.0.1:2379",
        "store \"etcd://127.0.0.1:2379\": this version cannot store in etcd yet: use disk://DIR, or memory://",
    );
}
