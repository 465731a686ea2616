//! The recorded transcripts of kubectl, as a ratchet: what is listed in `golden/expected-kubectl-failures.txt` may fail and
//! nothing else; what passes leaves the list. `UPDATE_EXPECT=1` writes the list anew.

use std::time::Duration;

use testkit::Server;
use testkit::clients::{kubectl, skipped};
use testkit::golden::{corpus, count};
use testkit::server::{ADMIN_TOKEN, GOLDEN_ARGS};
use testkit::transcripts::{LIMITS, Limits, Setting, run_folder};

use crate::ratchet::List;

/// For listed commands: long enough for what has come to pass, and short, as most are listed because they wait in vain.
const LISTED: Limits = Limits { until: Duration::from_secs(1), run: Duration::from_secs(2) };

#[test]
fn kubectl_prints_what_was_recorded_but_where_it_is_listed() {
    if skipped() {
        return;
    }
    let list = List::read("expected-kubectl-failures.txt");
    let server = Server::start(GOLDEN_ARGS);
    let limits = |name: &str| if list.has(name) { LISTED } else { LIMITS };
    let (kubectl, ca) = (kubectl(), server.ca());
    let setting = Setting { kubectl: &kubectl, url: &server.url, ca: &ca, token: ADMIN_TOKEN, limits: &limits };
    let outcomes = run_folder(&setting, &corpus(), "");
    let (passed, failed) = count(&outcomes);
    eprintln!("kubectl: {passed} passed, {failed} failed");
    if List::is_to_be_written() {
        list.write(&outcomes);
    } else {
        list.hold(&outcomes, &server.trouble());
    }
}

#[test]
fn kubectl_explains() {
    if skipped() {
        return;
    }
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let explained = server.kubectl("explain pods.spec.serviceAccountName").ok();
    let words: Vec<&str> = explained.split_whitespace().collect();
    let words = words.join(" ");
    let want = "KIND: Pod VERSION: v1 FIELD: serviceAccountName <string> DESCRIPTION: \
                ServiceAccountName is the name of the ServiceAccount to use to run this pod.";
    assert!(words.starts_with(want), "{explained}");
    assert!(!server.kubectl("explain deployments --recursive=false").ok().contains("<no description>"));
}
