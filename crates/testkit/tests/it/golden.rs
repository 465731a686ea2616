//! The recordings, as a ratchet, on every kind of store: what is listed in `golden/expected-failures.txt` may fail and
//! nothing else; what passes leaves the list. `UPDATE_EXPECT=1` writes the list anew, from the disk store.

use testkit::Server;
use testkit::golden::{corpus, count, run_folder};
use testkit::server::{ADMIN_TOKEN, GOLDEN_ARGS};

use crate::ratchet::List;

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
    let list = List::read("expected-failures.txt");
    if !List::is_to_be_written() {
        list.hold(&outcomes, &server.trouble());
    } else if store.is_empty() {
        list.write(&outcomes);
    }
}
