//! Recorded transcripts of kubectl, held against another server. A port of `golden/corpus/kubectl.py`, whose docstring is
//! the format; where the two disagree, that file is right. Never asks the server but through kubectl.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use regex::{Captures, Regex};
use serde_json::{Value, json};

use crate::command::{RUN_LIMIT, run_within};
use crate::golden::{self, Outcome, StepOutcome};

/// The folder of the corpus that holds transcripts.
pub const FOLDER: &str = "kubectl";

/// Transcripts that run at the same time. They share nothing but the server, and much of their time they wait.
const JOBS: usize = 6;

/// How long a command is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it is repeated where it has an `until`.
    pub until: Duration,
    /// How long one run of it may take.
    pub run: Duration,
}

/// What the recordings were made with.
pub const LIMITS: Limits = Limits { until: Duration::from_secs(10), run: RUN_LIMIT };

/// How often a new namespace is asked for its service account.
const ACCOUNT_TRIES: usize = 50;

/// Differing lines of one command that are kept for the report.
const DIFFERENCES_MAX: usize = 14;

/// Who runs which kubectl against which server.
pub struct Setting<'a> {
    pub kubectl: &'a Path,
    /// `https://HOST:PORT`.
    pub url: &'a str,
    /// The certificate authority's file.
    pub ca: &'a Path,
    /// User `admin`'s, of group `system:masters`.
    pub token: &'a str,
    /// The limits of the command of this name: `FOLDER/FILE.json step N`.
    pub limits: &'a (dyn Fn(&str) -> Limits + Sync),
}

/// Runs every transcript whose `kubectl/FILE.json` contains `only`. Outcomes come in the order of the files' names.
pub fn run_folder(setting: &Setting, corpus: &Path, only: &str) -> Vec<Outcome> {
    let files = golden::scenarios(&corpus.join(FOLDER), FOLDER, only);
    let mut transcripts: Vec<_> = files.into_iter().map(|(name, path)| (name, golden::read(&path))).collect();
    // The longest first, so that none is waited for alone at the end.
    transcripts.sort_by_key(|(_, transcript)| std::cmp::Reverse(commands(transcript).len()));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(transcripts.len()) {
            scope.spawn(|| {
                while let Some((name, transcript)) = transcripts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_transcript(setting, name, transcript);
                    done.lock().expect("no thread panics with it").insert(name.clone(), outcome);
                }
            });
        }
    });
    done.into_inner().expect("no thread panics with it").into_values().collect()
}

fn commands(transcript: &Value) -> &[Value] {
    transcript["commands"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn run_transcript(setting: &Setting, name: &str, transcript: &Value) -> Outcome {
    let run = Run::new(setting, transcript);
    let mut run = run.unwrap_or_else(|e| panic!("{name}: a folder of our own: {e}"));
    let steps = commands(transcript).iter().enumerate().map(|(i, command)| {
        let got = run.command(command, (setting.limits)(&golden::step_name(name, i)));
        StepOutcome { ask: text(&command["run"]).to_owned(), differences: judge(command, &got) }
    });
    let steps = steps.collect();
    run.kubectl(&["delete", "namespace", &run.namespace, "--wait=false"]);
    Outcome { file: name.to_owned(), steps }
}

/// One transcript under way: its folders, its own names, what it saved.
struct Run<'a> {
    setting: &'a Setting<'a>,
    home: tempfile::TempDir,
    namespace: String,
    id: String,
    saved: BTreeMap<String, String>,
}

impl<'a> Run<'a> {
    fn new(setting: &'a Setting<'a>, transcript: &Value) -> std::io::Result<Run<'a>> {
        let (namespace, id) = golden::own_names();
        let saved = [("ns", &namespace), ("id", &id)].map(|(name, value)| (name.to_owned(), value.clone()));
        let home = tempfile::Builder::new().prefix("kemudi-kubectl-").tempdir()?;
        let run = Run { setting, home, namespace, id, saved: saved.into() };
        std::fs::create_dir(run.work())?;
        std::fs::write(run.config(), run.kubeconfig().to_string())?;
        for (name, content) in transcript["files"].as_object().into_iter().flatten() {
            std::fs::write(run.work().join(name), run.fill(text(content)))?;
        }
        run.kubectl(&["create", "namespace", &run.namespace]);
        for _ in 0..ACCOUNT_TRIES {
            if run.kubectl(&["get", "serviceaccount", "default"]) == 0 {
                break;
            }
            golden::pause();
        }
        Ok(run)
    }

    fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    fn kubeconfig(&self) -> Value {
        let Setting { url, ca, token, .. } = self.setting;
        let context = json!({"cluster": "golden", "user": "admin", "namespace": self.namespace});
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "golden",
            "clusters": [{"name": "golden", "cluster": {"server": url, "certificate-authority": ca}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "golden", "context": context}],
        })
    }

    /// kubectl with nothing of this process's environment, its discovery cache under a home of its own.
    fn program(&self) -> Command {
        let mut command = Command::new(self.setting.kubectl);
        command.env_clear().envs([("TZ", "UTC"), ("LANG", "C")]).current_dir(self.work());
        // It ends before it has allocated so much that collecting would pay: a quarter of its time.
        command.env("GOGC", "off");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.env("HOME", self.home.path()).env("TMPDIR", self.home.path()).env("KUBECONFIG", self.config());
        command
    }

    /// Runs kubectl for the transcript's own surroundings; gives its exit code.
    fn kubectl(&self, words: &[&str]) -> i32 {
        run_within(self.program().args(words), "", RUN_LIMIT).0.code
    }

    /// Runs a command until it is content, saves what it wants saved, and gives exit code and normalised output.
    fn command(&mut self, command: &Value, limits: Limits) -> Value {
        let line = self.fill(text(&command["run"]));
        let words = shlex::split(&line).unwrap_or_else(|| panic!("an open quote in {line}"));
        assert!(words.first().is_some_and(|word| word == "kubectl"), "not a kubectl command: {line}");
        let mut program = self.program();
        program.args(&words[1..]);
        for (name, value) in command["env"].as_object().into_iter().flatten() {
            program.env(name, self.fill(text(value)));
        }
        let stdin = self.fill(text(&command["stdin"]));
        let end = Instant::now() + limits.until;
        let got = loop {
            let (got, in_time) = run_within(&mut program, &stdin, limits.run);
            let Some(until) = command.get("until") else { break got };
            let exit = until["exit"].as_i64().unwrap_or(0);
            let content =
                i64::from(got.code) == exit && got.stdout.contains(&self.fill(text(&until["stdout_contains"])));
            if content || !in_time || Instant::now() > end {
                break got;
            }
            golden::pause();
        };
        if let Some(name) = command["save"].as_str() {
            self.saved.insert(name.to_owned(), got.stdout.trim().to_owned());
        }
        json!({"exit": got.code, "stdout": self.plain(&got.stdout), "stderr": self.plain(&got.stderr)})
    }

    /// Puts saved words into `${name}`.
    fn fill(&self, text: &str) -> String {
        let value = |c: &Captures| self.saved.get(&c[1]).cloned().unwrap_or_else(|| c[0].to_owned());
        golden::VARIABLE.replace_all(text, value).into_owned()
    }

    /// A text without what no two servers share.
    fn plain(&self, text: &str) -> String {
        let server = self.setting.url.trim_start_matches("https://").trim_end_matches('/');
        let text =
            tables(text).replace(&self.namespace, "${ns}").replace(&self.id, "${id}").replace(server, "<server>");
        RULES.iter().fold(text, |text, rule| rule.apply(&text))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn judge(want: &Value, got: &Value) -> Vec<String> {
    let skipped = |part: &str| want["skip"].as_array().is_some_and(|skip| skip.iter().any(|one| one == part));
    let parts = ["exit", "stdout", "stderr"].into_iter();
    let parts = parts.filter(|part| want.get(*part).is_some_and(|want| *want != got[*part]) && !skipped(part));
    parts.flat_map(|part| difference(part, &want[part], &got[part])).collect()
}

/// The lines in which two texts differ, without those that they begin and end with alike.
fn difference(part: &str, want: &Value, got: &Value) -> Vec<String> {
    let (Some(want), Some(got)) = (want.as_str(), got.as_str()) else {
        return vec![format!("{part}: wanted {want}, got {got}")];
    };
    let (want, got): (Vec<&str>, Vec<&str>) = (want.split('\n').collect(), got.split('\n').collect());
    let begin = want.iter().zip(&got).take_while(|(want, got)| want == got).count();
    let (want, got) = (&want[begin..], &got[begin..]);
    let end = want.iter().rev().zip(got.iter().rev()).take_while(|(want, got)| want == got).count();
    let lines = |mark: &str, lines: &[&str]| {
        let shown = lines[..lines.len() - end].iter().take(DIFFERENCES_MAX);
        shown.map(|line| format!("{part} {} {mark} {line}", begin + 1)).collect::<Vec<_>>()
    };
    [lines("-", want), lines("+", got)].concat()
}

/// A pattern, what takes its place, and where it does.
struct Rule {
    pattern: Regex,
    with: &'static str,
    /// Whether a match counts, by itself and by what follows it: a look ahead.
    counts: fn(&str, &str) -> bool,
}

impl Rule {
    fn apply(&self, text: &str) -> String {
        let (mut out, mut copied, mut from) = (String::with_capacity(text.len()), 0, 0);
        while let Some(found) = self.pattern.captures_at(text, from) {
            let whole = found.get(0).expect("a match is there");
            let counts = (self.counts)(whole.as_str(), &text[whole.end()..]);
            if counts {
                out.push_str(&text[copied..whole.start()]);
                found.expand(self.with, &mut out);
                copied = whole.end();
            }
            // No pattern is empty; one that does not count may overlap the next.
            from = if counts { whole.end() } else { after_first(text, whole.start()) };
        }
        out + &text[copied..]
    }
}

fn after_first(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}

/// The letters of generated suffixes.
const R: &str = "[bcdfghjklmnpqrstvwxz2456789]";
const SPAN: &str = r"(?:\d+[ydhms])+";
const AGES: [&str; 6] = ["AGE", "LAST SEEN", "FIRST SEEN", "LAST SCHEDULE", "DURATION", "CREATED AT"];

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let always: fn(&str, &str) -> bool = |_, _| true;
    // A hash has a digit where a word of the same letters may have none.
    let hash: fn(&str, &str) -> bool = |found, rest| {
        !rest.starts_with('-') && found[1..].split('-').next().is_some_and(|w| w.contains(char::is_numeric))
    };
    let suffix: fn(&str, &str) -> bool = |found, rest| found != "-https" && !rest.starts_with(['-', '.', '=']);
    let rules = [
        (r"eyJ[\w-]+\.[\w-]+\.[\w-]+".to_owned(), "<token>", always),
        ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".to_owned(), "<uid>", always),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)".to_owned(), "<time>", always),
        (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}".to_owned(), "<time>", always),
        (r#"(resourceVersion"?: ?"?|Resource Version: +)\d+"#.to_owned(), "${1}<rv>", always),
        (r"\S*/(LIVE|MERGED)-\d+/".to_owned(), "${1}/", always),
        (r"^[IWEF]\d{4} [\d:.]+ +\d+ ".to_owned(), "<log> ", always),
        (format!(r#"(pod-template-hash"?[=:] ?"?){R}{{6,10}}\b"#), "${1}<rand>", always),
        (format!(r"-{R}{{8,10}}-{R}{{5}}\b"), "-<rand>-<rand>", hash),
        (format!(r"-{R}{{8,10}}\b"), "-<rand>", hash),
        (format!(r"-{R}{{5}}\b"), "-<rand>", suffix),
        (r"\b10\.96\.\d+\.\d+\b".to_owned(), "<ip>", always),
        (r#"(nodePort"?: |NodePort: .* |\d:)3[0-2]\d{3}\b"#.to_owned(), "${1}<port>", always),
        (format!("^(Age: +){SPAN}$"), "${1}<age>", always),
    ];
    let rules = rules.into_iter().map(|(text, with, counts)| Rule { pattern: pattern(&text), with, counts });
    rules.collect()
});

static HEAD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\A[A-Z][A-Z /()-]*\z"));
static COLUMN: LazyLock<Regex> = LazyLock::new(|| pattern(r"\S+(?: \S+)*"));
static SPACES: LazyLock<Regex> = LazyLock::new(|| pattern(" +"));
static DASHES: LazyLock<Regex> = LazyLock::new(|| pattern("-{2,}"));
static AGE_CELL: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"\A{SPAN}( \(x\d+ over .*\))?\z")));
/// With the two spaces before it; two more must follow.
static EVENT_AGE: LazyLock<Rule> = LazyLock::new(|| Rule {
    pattern: pattern(&format!(r"(  ){SPAN}(?: \(x\d+ over \w+\))?")),
    with: "${1}<age>",
    counts: |_, rest| rest.starts_with("  "),
});

fn pattern(text: &str) -> Regex {
    Regex::new(&format!("(?m){text}")).expect("a constant")
}

/// Ages to `<age>`; in the tables that have them, columns one space apart.
fn tables(text: &str) -> String {
    // Where each column begins, in characters, and its heading.
    let mut columns: Option<Vec<(usize, String)>> = None;
    let mut events = false;
    let mut out = Vec::new();
    for line in text.split('\n') {
        out.push(if HEAD.is_match(line) {
            columns = headings(line);
            if columns.is_some() { single_spaced(line) } else { line.to_owned() }
        } else if line.trim().is_empty() {
            (columns, events) = (None, false);
            line.to_owned()
        } else if let Some(columns) = &columns {
            row(line, columns)
        } else if line.starts_with("Events:") && !line.contains("<none>") {
            events = true;
            line.to_owned()
        } else if events {
            single_spaced(&EVENT_AGE.apply(&DASHES.replace_all(line, "--")))
        } else {
            line.to_owned()
        });
    }
    out.join("\n")
}

/// The columns of a table that has ages or addresses. A heading is of one byte a character.
fn headings(line: &str) -> Option<Vec<(usize, String)>> {
    let columns: Vec<_> = COLUMN.find_iter(line).map(|m| (m.start(), m.as_str().to_owned())).collect();
    let varies = |(_, head): &(usize, String)| AGES.contains(&head.as_str()) || head == "CLUSTER-IP";
    columns.iter().any(varies).then_some(columns)
}

fn row(line: &str, columns: &[(usize, String)]) -> String {
    let characters: Vec<char> = line.chars().collect();
    let ends = columns.iter().skip(1).map(|(start, _)| *start).chain([characters.len()]);
    let cells = columns.iter().zip(ends).map(|((start, head), end)| {
        let cell: String = characters.get(*start..end.min(characters.len())).unwrap_or_default().iter().collect();
        let cell = cell.trim();
        let is_age = AGES.contains(&head.as_str()) && AGE_CELL.is_match(cell);
        if is_age { "<age>".to_owned() } else { single_spaced(cell) }
    });
    cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" ")
}

fn single_spaced(text: &str) -> String {
    SPACES.replace_all(text, " ").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lose_what_no_two_servers_share() {
        let check = |given: &str, want: &str| {
            assert_eq!(RULES.iter().fold(tables(given), |text, rule| rule.apply(&text)), want);
        };
        check("pod/web-5d8f7c9b6d-4xk2z deleted", "pod/web-<rand>-<rand> deleted");
        check("rs/web-5d8f7c9b6d, web-bcdfghjk, a-https, a-4xk2z=1", "rs/web-<rand>, web-bcdfghjk, a-https, a-4xk2z=1");
        check("kube-api-access-4xk2z (rw) my-words-gone", "kube-api-access-<rand> (rw) my-words-gone");
        check(r#"resourceVersion: "12" at 10.96.7.8:80:30123/TCP"#, r#"resourceVersion: "<rv>" at <ip>:80:<port>/TCP"#);
        check("diff -u /tmp/LIVE-123/v1.x /tmp/MERGED-4/v1.x", "diff -u LIVE/v1.x MERGED/v1.x");
        check("E1129 09:00:00.000000   12345 memcache.go", "<log> memcache.go");
        check("NAME   DATA   AGE\na      1      5m3s\n\nb      2", "NAME DATA AGE\na 1 <age>\n\nb      2");
        check("NAME   DATA\na      5s", "NAME   DATA\na      5s");
        check(
            "Events:\n  Type    Age                From\n  ----    ---\n  Normal  5s (x2 over 10s)  kubelet",
            "Events:\n Type Age From\n -- --\n Normal <age> kubelet",
        );
    }

    #[test]
    fn differences_leave_out_what_is_alike() {
        let check =
            |want: Value, got: Value, text: &str| assert_eq!(difference("stdout", &want, &got).join("; "), text);
        check(json!("a\nb\nc\n"), json!("a\nx\nc\n"), "stdout 2 - b; stdout 2 + x");
        check(json!("a\n"), json!("a\na\n"), "stdout 2 + a");
        check(json!(0), json!(1), "stdout: wanted 0, got 1");
    }
}
