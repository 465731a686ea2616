//! Lists of recorded steps that the server does not answer as recorded, one a line, the reason behind a `#`: what is listed
//! may fail and nothing else, and what passes leaves the list.

use std::collections::BTreeMap;
use std::path::PathBuf;

use testkit::golden::{Outcome, report};

/// A list under `golden/`.
pub struct List {
    path: PathBuf,
    /// What stands behind each name.
    listed: BTreeMap<String, String>,
}

impl List {
    pub fn read(name: &str) -> List {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let lines = text.lines().map(|line| line.split_once(" # ").unwrap_or((line, "")));
        List { listed: lines.map(|(name, why)| (name.to_owned(), why.to_owned())).collect(), path }
    }

    pub fn has(&self, name: &str) -> bool {
        self.listed.contains_key(name)
    }

    /// Panics, with `trouble` behind it, where something else failed than what is listed.
    #[track_caller]
    pub fn hold(&self, outcomes: &[Outcome], trouble: &str) {
        let failed: Vec<String> = outcomes.iter().flat_map(Outcome::failures).map(|(name, _)| name).collect();
        let unlisted = |outcome: &&Outcome| outcome.failures().any(|(name, _)| !self.has(&name));
        let new = report(outcomes.iter().filter(unlisted));
        let gone = self.listed.keys().filter(|name| !failed.contains(name));
        let gone: String = gone.map(|name| format!("{name} passes: remove it from the list\n")).collect();
        assert!(new.is_empty() && gone.is_empty(), "{new}{gone}in {}\n{trouble}", self.path.display());
    }

    /// Whether `UPDATE_EXPECT` asks for lists to be written anew.
    pub fn is_to_be_written() -> bool {
        std::env::var_os("UPDATE_EXPECT").is_some()
    }

    /// Writes the list anew; what stays on it keeps its reason.
    pub fn write(&self, outcomes: &[Outcome]) {
        let line = |(name, _): (String, _)| match self.listed.get(&name).filter(|why| !why.is_empty()) {
            Some(why) => format!("{name} # {why}\n"),
            None => format!("{name}\n"),
        };
        let mut lines: Vec<String> = outcomes.iter().flat_map(Outcome::failures).map(line).collect();
        lines.sort();
        std::fs::write(&self.path, lines.concat()).expect("a file of the source tree");
    }
}
