//! Runs a folder of the recordings against a server and prints what differs: against a new one of the built binary, or,
//! with `--url`, `--ca` and `--token`, against any other.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use testkit::clients::kubectl;
use testkit::golden::{corpus, count, report, run_folder};
use testkit::server::{ADMIN_TOKEN, GOLDEN_ARGS, Server};
use testkit::transcripts::{self, Setting};
use testkit::wire::Endpoint;

const USAGE: &str = "\
usage: golden [--folder NAME]... [--only TEXT] [--diff] [--corpus DIR] [--url U --ca FILE --token TOKEN]
  --folder  which folder of recordings; all but kubectl by default
  --only    only files whose FOLDER/FILE.json contains this
  --diff    print every difference, not only the counts";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut folders, mut only, mut diff, mut root) = (Vec::new(), String::new(), false, corpus());
    let (mut url, mut ca, mut token) = (None, PathBuf::new(), ADMIN_TOKEN.to_owned());
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--folder" => folders.push(value()),
            "--only" => only = value(),
            "--diff" => diff = true,
            "--corpus" => root = value().into(),
            "--url" => url = Some(value()),
            "--ca" => ca = value().into(),
            "--token" => token = value(),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    if folders.is_empty() {
        folders = folders_of(&root);
    }
    let server = url.is_none().then(|| Server::start(GOLDEN_ARGS));
    if let Some(server) = &server {
        (url, ca) = (Some(server.url.clone()), server.ca());
    }
    let url = url.unwrap_or_default();
    let endpoint = match Endpoint::new(&url, &ca) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let (mut good, mut bad) = (0, 0);
    for folder in &folders {
        let outcomes = if folder == transcripts::FOLDER {
            let (kubectl, limits) = (kubectl(), |_: &str| transcripts::LIMITS);
            let setting = Setting { kubectl: &kubectl, url: &url, ca: &ca, token: &token, limits: &limits };
            transcripts::run_folder(&setting, &root, &only)
        } else {
            run_folder(&endpoint, &token, &root, folder, &only)
        };
        let (passed, failed) = count(&outcomes);
        if diff {
            print!("{}", report(&outcomes));
        }
        println!("{folder}: {passed} passed, {failed} failed");
        (good, bad) = (good + passed, bad + failed);
    }
    println!("{good} passed, {bad} failed");
    ExitCode::from(u8::from(bad > 0))
}

/// The folders with recordings of requests; `kubectl` holds transcripts, which have a program of their own.
fn folders_of(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok).filter(|e| e.path().is_dir());
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != transcripts::FOLDER);
    names.sort();
    names
}
