//! Lets every client meet every fault and prints two tables; `--write` puts them into `docs/faults.md`. Servers, programs and
//! connections are its own, on loopback addresses only. Run by `cargo xtask faults`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use testkit::command::workspace;
use testkit::faults::{CALLS_PER_SECOND, FAULTS, Fault, Outcome, RECOVERY_MAX, SUBJECTS, Subject, WINDOW, meet};

/// Different reasons of failed calls that are printed; some name the second.
const REASONS_SHOWN: usize = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (mut write, mut only) = (false, Vec::new());
    for arg in &args {
        match arg.as_str() {
            "--write" => write = true,
            word if !word.starts_with('-') => only.push(word.to_lowercase()),
            _ => {
                eprintln!("usage: faults [--write] [FAULT..] [CLIENT..]\n  FAULT: {FAULTS:?}\n  CLIENT: {SUBJECTS:?}");
                return ExitCode::from(2);
            }
        }
    }
    let begin = Instant::now();
    let (faults, subjects) = (chosen(&FAULTS, &only), chosen(&SUBJECTS, &only));
    if write && (faults.len(), subjects.len()) != (FAULTS.len(), SUBJECTS.len()) {
        eprintln!("the page has all of them: --write goes with no others named");
        return ExitCode::from(2);
    }
    let mut rows = Vec::new();
    for fault in faults {
        rows.push((fault, met_by_all(fault, &subjects)));
    }
    println!("in {:.0} s", begin.elapsed().as_secs_f64());
    if write {
        let path = workspace().join("docs/faults.md");
        std::fs::write(&path, page(&rows)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    ExitCode::SUCCESS
}

/// Those that are named; all where none is.
fn chosen<T: Copy + std::fmt::Debug>(of: &[T], names: &[String]) -> Vec<T> {
    let named = |one: &T| names.contains(&format!("{one:?}").to_lowercase());
    let some: Vec<T> = of.iter().copied().filter(named).collect();
    if some.is_empty() { of.to_vec() } else { some }
}

/// All clients meet a fault at the same time, each with a server of its own.
fn met_by_all(fault: Fault, subjects: &[Subject]) -> Vec<Outcome> {
    println!("{}", fault.describe());
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let all: Vec<_> = subjects.iter().map(|subject| scope.spawn(move || meet(*subject, fault, WINDOW))).collect();
        all.into_iter().map(|one| one.join().expect("it tells why")).collect()
    });
    for (subject, outcome) in subjects.iter().zip(&outcomes) {
        let Outcome { slowest, beyond, reasons, .. } = outcome;
        println!(
            "  {:<14} {}; watch: {}; slowest {slowest:.1?}, {beyond} requests beyond",
            subject.name(),
            calls(outcome),
            watch(outcome)
        );
        reasons
            .iter()
            .take(REASONS_SHOWN)
            .for_each(|why| println!("      {}", why.chars().take(240).collect::<String>()));
    }
    outcomes
}

fn calls(outcome: &Outcome) -> String {
    format!("{} of {}, {}", outcome.failed, outcome.calls, after(outcome.recovered))
}

fn watch(outcome: &Outcome) -> String {
    match outcome.watch_failed {
        0 => after(outcome.watch_recovered),
        1 => format!("{}, 1 error", after(outcome.watch_recovered)),
        many => format!("{}, {many} errors", after(outcome.watch_recovered)),
    }
}

fn after(time: Option<Duration>) -> String {
    match time {
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
        None => format!("not in {} s", RECOVERY_MAX.as_secs()),
    }
}

fn page(rows: &[(Fault, Vec<Outcome>)]) -> String {
    let heads: String = SUBJECTS.iter().map(|subject| format!(" {} |", subject.name())).collect();
    let table = |cell: fn(&Outcome) -> String| {
        let mut out = format!("| what happens |{heads}\n|{}\n", " --- |".repeat(SUBJECTS.len() + 1));
        for (fault, outcomes) in rows {
            let cells: String = outcomes.iter().map(|outcome| format!(" {} |", cell(outcome))).collect();
            let _ = writeln!(out, "| {} |{cells}", fault.describe());
        }
        out
    };
    let (calls, watches, beyond) = (table(calls), table(watch), table(|outcome| outcome.beyond.to_string()));
    let limit = RECOVERY_MAX.as_secs();
    assert_eq!(SUBJECTS[3], Subject::Ours);
    format!(
        "\
# Faults

What clients make of a server and a network that fail. `cargo xtask faults --write` measured this and wrote this page, in some minutes,
on one machine; whoever runs it sees other tenths of a second and the same picture.

A program of each client (`steady` in `crates/testkit/clients`, ours in `crates/testkit/examples`) runs in what looks to it like a pod:
its own `/var/run/secrets/kubernetes.io/serviceaccount`, replaced as a kubelet does it, and the two environment variables. It starts
{CALLS_PER_SECOND} calls a second, a get and a list in turns, whatever became of those before, and keeps a watch of an object that changes ten times
a second. The server is the testkit's own (`testkit::faults::FaultServer`): TLS, HTTP/2 and HTTP/1.1, bearer tokens, lists, watches; all
four meet a fault at the same time, each with a server to itself.

## What each was configured with

Nothing but what its documentation begins with, for a program in a pod:

| client | configuration | watch |
| --- | --- | --- |
| client-go 0.37 | `rest.InClusterConfig()`; only `QPS` is off (-1), as its limit of five requests a second would hold the calls back | a shared informer |
| kube-rs 5.0 | `Client::try_default()`, rustls with aws-lc-rs | `watcher(..).default_backoff()` |
| Python 37.0 | `config.load_incluster_config()` | `watch.Watch().stream(..)`, begun again by the program 0.1 s after it raised an error |
| kemudi-client | `Client::try_default()` | `Api::watcher` |

## Calls

How many failed (or had no end within the run) of how many, and how long after the end of what was wrong calls went well again, each
within a second. What lasts, such as a new token, is over when it has begun. A run ends when all has been well for two seconds, or
after {limit} s.

{calls}
## Watches

How long after the end of what was wrong the watch had told all that had happened by then, and how many errors its program
was told.

{watches}
## Requests

How many requests the server got beyond one for each call that was made: the watch's, repeats, questions whether anybody is there. A
call to whom nothing listens is none.

{beyond}"
    )
}
