//! The recordings, as a ratchet, on every kind of store: what is listed in `golden/expected-failures.txt` may fail and
//! nothing else; what passes leaves the list. `UPDATE_EXPECT=1` writes the list anew, from the disk store.

use std::collections::BTreeSet;
use std::path::Path;

use testkit::Server;
use testkit::golden::{Outcome, corpus, count, report, run_folder};
use testkit::server::{ADMIN_TOKEN, GOLDEN_ARGS};

/// The folders that are held step by step, one after another: what one defines would show in the discovery of the next.
/// The others are counted by `cargo run -p kemudi-testkit --bin golden`.
const HELD: [&str; 5] = ["identity", "protocol", "kinds", "apply", "lists"];

#[test]
fn every_recorded_answer_is_given_but_the_listed_ones() {
    check(&[]);
}

#[test]
fn every_recorded_answer_is_given_from_memory_but_the_listed_ones() {
    check(&["--store", "memory://"]);
}

#[track_caller]
fn check(store: &[&str]) {
    let server = Server::start(&[GOLDEN_ARGS, store].concat());
    let mut outcomes = Vec::new();
    for folder in HELD {
        let folder_outcomes = run_folder(&server.endpoint, ADMIN_TOKEN, &corpus(), folder, "");
        let (passed, failed) = count(&folder_outcomes);
        eprintln!("{folder}: {passed} passed, {failed} failed");
        outcomes.extend(folder_outcomes);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/expected-failures.txt");
    let failed: BTreeSet<String> = outcomes.iter().flat_map(Outcome::failures).map(|(name, _)| name).collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        if store.is_empty() {
            let list: String = failed.iter().map(|name| format!("{name}\n")).collect();
            std::fs::write(&path, list).expect("a file of the source tree");
        }
        return;
    }
    let listed: BTreeSet<String> =
        std::fs::read_to_string(&path).expect("a committed file").lines().map(str::to_owned).collect();
    let unlisted = |outcome: &&Outcome| outcome.failures().any(|(name, _)| !listed.contains(&name));
    let new = report(outcomes.iter().filter(unlisted));
    let gone: String =
        listed.difference(&failed).map(|name| format!("{name} passes: remove it from the list\n")).collect();
    assert!(new.is_empty() && gone.is_empty(), "{new}{gone}in {}\n{}", path.display(), server.trouble());
}
