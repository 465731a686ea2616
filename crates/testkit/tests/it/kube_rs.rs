//! kube-rs' own tests that want a cluster, unchanged, against ours. `cargo xtask kube-rs` builds them; what each comes to is
//! `docs/kube-rs.md`, which this holds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use testkit::Server;
use testkit::command::{run, target, workspace};

/// How long the tests of one crate may take.
const LIMIT: Duration = Duration::from_secs(240);
const CRATES: [&str; 3] = ["kube", "kube-client", "kube-runtime"];

/// Those that do not pass, and why.
const REASONS: [(&str, &str); 4] = [
    ("kube::test::pod_can_await_conditions", NO_IMAGE),
    ("kube-client::test::can_get_pod_logs_and_evict", NO_IMAGE),
    ("kube-client::test::pod_can_exec_and_write_to_stdin", NO_IMAGE),
    (
        "kube-client::test::pod_can_exec_and_write_to_stdin_from_node_proxy",
        "asks a kubelet at its own port, 127.0.0.1:10250; nodes here have none",
    ),
];
const NO_IMAGE: &str = "waits for a pod of the image `busybox`, which has to be pulled: it is run without a node";

#[test]
fn its_tests_pass_but_those_that_want_what_is_not_here() {
    let programs: Vec<PathBuf> = CRATES.iter().map(|name| target().join("tools/kube-rs").join(name)).collect();
    if let Some(missing) = programs.iter().find(|program| !program.exists()) {
        eprintln!(
            "{} is not there: `cargo xtask kube-rs` builds it; kube-rs' own tests are not run",
            missing.display()
        );
        return;
    }
    // A node would pull images, where the machine can.
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let mut outcomes = BTreeMap::new();
    let mut told = String::new();
    for (name, program) in CRATES.iter().zip(&programs) {
        let mut command = server.client(program);
        // One after the other: some of them write the same objects.
        let ran = run(command.args(["--ignored", "--test-threads=1"]), "", LIMIT);
        for line in ran.stdout.lines() {
            if let Some((test, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
                outcomes.insert(format!("{name}::{test}"), outcome.ends_with("ok"));
            }
        }
        told += &format!("{}{}", ran.stdout, ran.stderr);
    }
    let page = page(&outcomes);
    let path = workspace().join("docs/kube-rs.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, page).expect("the source tree");
        return;
    }
    let known = std::fs::read_to_string(&path).expect("the source tree");
    assert!(
        known == page,
        "docs/kube-rs.md says otherwise; UPDATE_EXPECT=1 writes it:\n{page}\n{told}\n{}",
        server.trouble()
    );
}

fn page(outcomes: &BTreeMap<String, bool>) -> String {
    let passed = outcomes.values().filter(|passed| **passed).count();
    let mut out = format!(
        "\
# kube-rs' own tests

The published crates of kube-rs 5.0 bring tests with them that want a cluster. `cargo xtask kube-rs` builds them from the registry's
sources, unchanged but for what publishing takes out of their manifests, and `cargo test -p kemudi-testkit --test it kube_rs` runs
them against a `kemudi up --node none`, and holds this page: {passed} of {} pass.

| test | outcome |
| --- | --- |
",
        outcomes.len()
    );
    for (test, passed) in outcomes {
        let reason = REASONS.iter().find(|(name, _)| name == test).map(|(_, reason)| *reason);
        let outcome = match (passed, reason) {
            (true, None) => "passes".to_owned(),
            (true, Some(_)) => "passes, and is listed as one that does not".to_owned(),
            (false, reason) => format!("does not: {}", reason.unwrap_or("nobody knows why")),
        };
        out += &format!("| `{test}` | {outcome} |\n");
    }
    out
}
