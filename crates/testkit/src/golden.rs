//! Recorded conversations with a real API server, held against another one. A port of `golden/corpus/golden.py`, whose
//! docstring is the format; where the two disagree, that file is right. Knows nothing of any server's inside.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt;
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::wire::{Endpoint, Request};

/// Scenarios that run at the same time. Most of their time they wait for watches to end and controllers to act.
const JOBS: usize = 16;

/// How long one request may stay silent.
const SILENCE: Duration = Duration::from_secs(60);

/// The pause between two tries of a step that waits for a controller.
const RETRY: Duration = Duration::from_millis(100);

/// Differences of one step that are kept for the report.
const DIFFERENCES_MAX: usize = 12;

/// The recordings in this crate.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/corpus")
}

/// What carries a request to the server that is judged and brings its answer back.
pub trait Transport: Sync {
    /// Sends one request; with `watch`, the body of a 200 is read as a stream of events.
    fn send(&self, request: Request, watch: Option<Watch>) -> io::Result<Answer>;
}

/// How much of a watch stream is read: until `events` came or `period` passed.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    pub events: usize,
    pub period: Duration,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

pub enum Body {
    Bytes(Vec<u8>),
    Events(Vec<Value>),
}

/// Over the network, a connection for every request.
impl Transport for Endpoint {
    fn send(&self, request: Request, watch: Option<Watch>) -> io::Result<Answer> {
        let mut connection = self.connect(watch.map_or(SILENCE, |w| w.period))?;
        let Some(watch) = watch else {
            let answer = connection.exchange(&request)?;
            return Ok(Answer {
                status: answer.head.status,
                headers: answer.head.headers,
                body: Body::Bytes(answer.body),
            });
        };
        connection.write(&request.encode())?;
        let head = connection.head()?;
        let mut stream = connection.body(&head, false);
        let body = if head.status == 200 {
            Body::Events(events(BufReader::new(stream), watch)?)
        } else {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            Body::Bytes(bytes)
        };
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

fn events(mut stream: impl BufRead, watch: Watch) -> io::Result<Vec<Value>> {
    let mut out = Vec::new();
    let end = Instant::now() + watch.period;
    while out.len() < watch.events && Instant::now() < end {
        let mut line = Vec::new();
        match stream.read_until(b'\n', &mut line) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
            Ok(0) => break,
            Ok(_) => out.push(serde_json::from_slice(&line)?),
        }
    }
    Ok(out)
}

/// How one scenario went.
#[derive(Debug)]
pub struct Outcome {
    /// `FOLDER/FILE.json`.
    pub file: String,
    pub steps: Vec<StepOutcome>,
}

/// How one step went; no differences is a pass.
#[derive(Debug)]
pub struct StepOutcome {
    /// `METHOD PATH` as written in the scenario.
    pub ask: String,
    pub differences: Vec<String>,
}

impl Outcome {
    /// The names of the steps that differ: `FOLDER/FILE.json step N`.
    pub fn failures(&self) -> impl Iterator<Item = (String, &StepOutcome)> {
        let failed = self.steps.iter().enumerate().filter(|(_, s)| !s.differences.is_empty());
        failed.map(|(i, s)| (step_name(&self.file, i), s))
    }
}

/// How lists of failures name a step.
pub(crate) fn step_name(file: &str, step: usize) -> String {
    format!("{file} step {step}")
}

/// Runs every scenario of a folder whose `FOLDER/FILE.json` contains `only`. `token` is an administrator's.
/// Outcomes come in the order of the files' names, whatever order they ended in.
pub fn run_folder(transport: &dyn Transport, token: &str, corpus: &Path, folder: &str, only: &str) -> Vec<Outcome> {
    let files = scenarios(&corpus.join(folder), folder, only);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(files.len()) {
            scope.spawn(|| {
                while let Some((name, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_file(transport, token, name, path);
                    done.lock().expect("no thread panics with it").insert(name.clone(), outcome);
                }
            });
        }
    });
    done.into_inner().expect("no thread panics with it").into_values().collect()
}

/// How many steps passed and how many did not.
pub fn count(outcomes: &[Outcome]) -> (usize, usize) {
    let all: usize = outcomes.iter().map(|o| o.steps.len()).sum();
    let failed = outcomes.iter().map(|o| o.failures().count()).sum();
    (all - failed, failed)
}

/// What differs, for people.
pub fn report<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let mut out = String::new();
    for (name, step) in outcomes.into_iter().flat_map(Outcome::failures) {
        let _ = writeln!(out, "{name}: {}", step.ask);
        for line in &step.differences {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

/// The recordings of a folder whose `FOLDER/FILE.json` contains `only`, by their names.
pub(crate) fn scenarios(path: &Path, folder: &str, only: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names = entries.map(|e| e.expect("a folder that can be read").file_name().to_string_lossy().into_owned());
    let mut files: Vec<_> = names
        .filter(|name| name.ends_with(".json"))
        .map(|name| (format!("{folder}/{name}"), path.join(name)))
        .filter(|(name, _)| name.contains(only))
        .collect();
    files.sort();
    files
}

fn run_file(transport: &dyn Transport, token: &str, name: &str, path: &Path) -> Outcome {
    let scenario = read(path);
    let wanted = scenario["steps"].as_array().cloned().unwrap_or_default();
    let mut steps = Vec::new();
    let broke = Run::new(transport, token).scenario(&scenario, &wanted, &mut steps).err();
    // A scenario that breaks off fails all its steps that did not run.
    for step in wanted.get(steps.len()..).unwrap_or_default() {
        let why = broke.as_ref().map_or_else(|| "did not run".to_owned(), |error| format!("broke off: {error}"));
        steps.push(StepOutcome { ask: ask_line(step), differences: vec![why] });
    }
    Outcome { file: name.to_owned(), steps }
}

pub(crate) fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A namespace and a word for the names of cluster-scoped objects that no other recording has.
pub(crate) fn own_names() -> (String, String) {
    let mut random = rand::rng();
    let word: String = (0..6).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    (format!("golden-ns-{word}"), format!("gid{}x", word.chars().rev().collect::<String>()))
}

fn ask_line(step: &Value) -> String {
    format!("{} {}", step["method"].as_str().unwrap_or("?"), step["path"].as_str().unwrap_or("?"))
}

/// One scenario under way: its own names, the variables it saved, the names the server made up.
struct Run<'a> {
    transport: &'a dyn Transport,
    token: &'a str,
    namespace: String,
    id: String,
    saved: Map<String, Value>,
    generated: Vec<(String, String)>,
}

impl<'a> Run<'a> {
    fn new(transport: &'a dyn Transport, token: &'a str) -> Self {
        let (namespace, id) = own_names();
        let mut saved = Map::new();
        saved.insert("ns".into(), namespace.clone().into());
        saved.insert("id".into(), id.clone().into());
        Run { transport, token, namespace, id, saved, generated: Vec::new() }
    }

    fn scenario(&mut self, scenario: &Value, steps: &[Value], out: &mut Vec<StepOutcome>) -> io::Result<()> {
        let own = scenario.get("namespace").is_none_or(truthy);
        if own {
            self.make_namespace()?;
        }
        let mut result = Ok(());
        for step in steps {
            match self.ask(step) {
                Ok(got) => out.push(StepOutcome { ask: ask_line(step), differences: judge(&step["expect"], &got) }),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if own {
            self.admin("DELETE", &format!("/api/v1/namespaces/{}", self.namespace), None)?;
        }
        result
    }

    fn make_namespace(&self) -> io::Result<()> {
        let body = json!({"metadata": {"name": self.namespace}});
        self.admin("POST", "/api/v1/namespaces", Some(python_json(&body, false, true).into_bytes()))?;
        let account = format!("/api/v1/namespaces/{}/serviceaccounts/default", self.namespace);
        for _ in 0..100 {
            if self.admin("GET", &account, None)? == 200 {
                break;
            }
            pause();
        }
        Ok(())
    }

    fn admin(&self, method: &str, target: &str, body: Option<Vec<u8>>) -> io::Result<u16> {
        let authorization = format!("Bearer {}", self.token);
        let headers = [
            ("host", "localhost"),
            ("authorization", &authorization),
            ("user-agent", "golden/1"),
            ("content-type", "application/json"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let request = Request { method: method.into(), target: target.into(), headers, body };
        Ok(self.transport.send(request, None)?.status)
    }

    /// Asks until the step is content, saves what it wants saved, and gives the normalised answer.
    fn ask(&mut self, step: &Value) -> io::Result<Map<String, Value>> {
        let mut filled = step.clone();
        if let Some(filled) = filled.as_object_mut() {
            filled.retain(|key, _| key != "expect" && key != "save");
        }
        let filled = self.fill(&filled);
        let request = self.request(&filled);
        let until = filled.get("until");
        let watch = filled
            .get("watch")
            .filter(|w| truthy(w))
            .map(|w| Watch { events: w["events"].as_u64().map_or(1000, |n| n as usize), period: seconds(w, 5.0) });
        let end = Instant::now() + until.map_or(Duration::ZERO, |u| seconds(u, 10.0));
        let (answer, value) = loop {
            let answer = self.transport.send(request.clone(), watch)?;
            let value = match &answer.body {
                Body::Events(events) => Value::Array(events.clone()),
                Body::Bytes(bytes) => serde_json::from_slice(bytes).unwrap_or(Value::Null),
            };
            if until.is_none_or(|until| holds(until, answer.status, &value)) || Instant::now() > end {
                break (answer, value);
            }
            pause();
        };
        for (name, pointer) in step["save"].as_object().into_iter().flatten() {
            let pointer = pointer.as_str().unwrap_or_default();
            let found = at(&value, pointer).cloned();
            let nothing = || Value::String(format!("(nothing at {pointer})"));
            self.saved.insert(name.clone(), found.unwrap_or_else(nothing));
        }
        Ok(self.normalise(answer, value, step.get("skip_body").is_some_and(truthy)))
    }

    fn request(&self, step: &Value) -> Request {
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: Option<&str>| {
            let place = headers.iter().position(|(n, _)| n == name);
            match (value, place) {
                (Some(value), Some(i)) => headers[i].1 = value.to_owned(),
                (Some(value), None) => headers.push((name.to_owned(), value.to_owned())),
                (None, Some(i)) => drop(headers.remove(i)),
                (None, None) => {}
            }
        };
        set("host", Some("localhost"));
        set("user-agent", Some("golden/1"));
        set("accept", Some("application/json"));
        for (name, value) in identity(&step["as"], self.token) {
            set(&name, Some(&value));
        }
        let body = match &step["body"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            value => {
                set("content-type", Some("application/json"));
                Some(python_json(value, false, true).into_bytes())
            }
        };
        for (name, value) in step["headers"].as_object().into_iter().flatten() {
            set(&name.to_lowercase(), value.as_str());
        }
        let target = quote(step["path"].as_str().unwrap_or_default(), b"/?&=%:,;!()~*'@$+");
        Request { method: step["method"].as_str().unwrap_or("GET").to_owned(), target, headers, body }
    }

    fn normalise(&mut self, answer: Answer, value: Value, skip_body: bool) -> Map<String, Value> {
        let mut headers = Map::new();
        for (name, text) in answer.headers.iter().filter(|(name, _)| HEADERS.contains(&name.as_str())) {
            let texts = headers.entry(name.clone()).or_insert_with(|| json!([]));
            texts.as_array_mut().expect("just made").push(self.words(text).into());
        }
        let mut got = Map::new();
        got.insert("status".into(), answer.status.into());
        got.insert("headers".into(), headers.into());
        match answer.body {
            _ if skip_body => {}
            Body::Events(_) => drop(got.insert("events".into(), self.plain(&due(value), ""))),
            Body::Bytes(bytes) if value.is_null() => {
                got.insert("text".into(), self.words(&String::from_utf8_lossy(&bytes)).into());
            }
            Body::Bytes(_) => drop(got.insert("body".into(), self.plain(&value, ""))),
        }
        got
    }

    /// Puts saved values into `${name}`; a string that is nothing else becomes the value itself.
    fn fill(&self, x: &Value) -> Value {
        match x {
            Value::String(text) => {
                let whole = VARIABLE.captures(text).filter(|c| c[0].len() == text.len());
                match whole.and_then(|c| self.saved.get(&c[1])) {
                    Some(value) if !value.is_string() => value.clone(),
                    _ => self.fill_text(text).into(),
                }
            }
            Value::Array(items) => items.iter().map(|i| self.fill(i)).collect(),
            Value::Object(fields) => fields.iter().map(|(k, v)| (self.fill_text(k), self.fill(v))).collect(),
            other => other.clone(),
        }
    }

    fn fill_text(&self, text: &str) -> String {
        let value = |c: &regex::Captures| match self.saved.get(&c[1]) {
            None => c[0].to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(true)) => "True".into(),
            Some(Value::Bool(false)) => "False".into(),
            Some(Value::Null) => "None".into(),
            Some(other) => other.to_string(),
        };
        VARIABLE.replace_all(text, value).into_owned()
    }

    /// A text without what no two servers share.
    fn words(&self, text: &str) -> String {
        let text = settle(&JWT.replace_all(text, "<token>"));
        let text = text.replace(&self.namespace, "${ns}").replace(&self.id, "${id}");
        let text = UUID.replace_all(&text, "<uid>");
        let text = TIME.replace_all(&text, "<time>");
        let mut text = RAND.replace_all(&text, "${1}<rand>").into_owned();
        for (name, plain) in &self.generated {
            text = text.replace(name, plain);
        }
        text
    }

    /// A value without what no two servers share; `key` is the nearest field's name.
    fn plain(&mut self, x: &Value, key: &str) -> Value {
        match x {
            Value::Object(fields) => {
                self.note_generated(fields);
                let table = (fields.get("kind") == Some(&json!("Table"))).then(|| table(fields));
                let fields = table.as_ref().unwrap_or(fields);
                fields.iter().map(|(k, v)| (self.words(k), self.plain(v, k))).collect()
            }
            Value::Array(items) => items.iter().map(|i| self.plain(i, key)).collect(),
            _ if key == "nodePort" || key == "healthCheckNodePort" => {
                if truthy(x) {
                    "<port>".into()
                } else {
                    x.clone()
                }
            }
            Value::String(text) => self.plain_text(text, key).into(),
            other => other.clone(),
        }
    }

    fn plain_text(&self, text: &str, key: &str) -> String {
        match key {
            "resourceVersion" | "apiServerResourceVersion" if is_digits(text) && text != "0" => "<rv>".into(),
            "continue" if !text.is_empty() => "<continue>".into(),
            "clusterIP" | "clusterIPs" | "podIP" | "hostIP" | "serverAddress" if is_address(text) => "<ip>".into(),
            "message" | "reason" | "error" | "evaluationError" => {
                self.words(&RV_MESSAGE.replace_all(text, "${1} <rv>"))
            }
            _ => self.words(text),
        }
    }

    fn note_generated(&mut self, fields: &Map<String, Value>) {
        let metadata = fields.get("metadata");
        let text = |key| metadata.and_then(|m| m.get(key)).and_then(Value::as_str);
        let (Some(prefix), Some(name)) = (text("generateName"), text("name")) else { return };
        if !prefix.is_empty() && name.starts_with(prefix) && !self.generated.iter().any(|(n, _)| n == name) {
            self.generated.push((name.to_owned(), format!("{prefix}<rand>")));
        }
    }
}

const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz";
const HEADERS: [&str; 5] = ["content-type", "warning", "allow", "retry-after", "location"];
const AGE_COLUMNS: [&str; 7] = ["Age", "First Seen", "Last Seen", "Last Schedule", "Duration", "Start", "Created At"];

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant")
}

pub(crate) static VARIABLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\$\{(\w+)\}"));
static UUID: LazyLock<Regex> =
    LazyLock::new(|| pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static TIME: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"));
static JWT: LazyLock<Regex> = LazyLock::new(|| pattern(r"eyJ[\w-]+\.[\w-]+\.[\w-]+"));
static RAND: LazyLock<Regex> = LazyLock::new(|| pattern(r"(kube-api-access-)[bcdfghjklmnpqrstvwxz2456789]{5}\b"));
static RV_TEXT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(in object meta: |in record \(|\\?"resourceVersion\\?":\\?")\d+"#));
static RV_MESSAGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(resource version|resourceVersion)[: ]+\d+"));

/// Resource versions inside sentences and quoted objects.
fn settle(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for found in RV_TEXT.captures_iter(text) {
        let (whole, prefix) = (found.get(0).expect("matched"), found.get(1).expect("matched"));
        let next = text[whole.end()..].chars().next();
        if next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            continue;
        }
        out.push_str(&text[from..prefix.end()]);
        out.push_str("<rv>");
        from = whole.end();
    }
    out.push_str(&text[from..]);
    out
}

/// Without the bookmarks that come when the server likes; the one that ends the initial events stays.
fn due(events: Value) -> Value {
    let Value::Array(events) = events else { return events };
    let stays = |e: &Value| e["type"] != "BOOKMARK" || e.to_string().contains("k8s.io/initial-events-end");
    events.into_iter().filter(stays).collect()
}

/// A Table without descriptions, ages and addresses.
fn table(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = fields.clone();
    let (mut ages, mut addresses) = (Vec::new(), Vec::new());
    let columns = fields.get_mut("columnDefinitions").and_then(Value::as_array_mut);
    for (i, column) in columns.into_iter().flatten().enumerate() {
        match column["name"].as_str() {
            Some(name) if AGE_COLUMNS.contains(&name) => ages.push(i),
            Some("Cluster-IP") => addresses.push(i),
            _ => {}
        }
        if let Some(column) = column.as_object_mut() {
            column.shift_remove("description");
        }
    }
    for row in fields.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(cells) = row.get_mut("cells").and_then(Value::as_array_mut) else { continue };
        for (i, cell) in cells.iter_mut().enumerate() {
            let unaged = cell.is_null() || *cell == "<unknown>" || *cell == "<none>";
            if ages.contains(&i) && !unaged {
                *cell = "<age>".into();
            } else if addresses.contains(&i) && cell.as_str().is_some_and(is_address) {
                *cell = "<ip>".into();
            }
        }
    }
    fields
}

/// The headers that say who asks.
fn identity(who: &Value, token: &str) -> Vec<(String, String)> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let bearer = |token: &str| header("authorization", &format!("Bearer {token}"));
    if who.is_null() {
        return vec![bearer(token)];
    }
    if who == "anonymous" {
        return Vec::new();
    }
    if let Some(token) = who["token"].as_str() {
        return vec![bearer(token)];
    }
    if let Some(value) = who["authorization"].as_str() {
        return vec![header("authorization", value)];
    }
    let mut out = vec![bearer(token), header("impersonate-user", who["user"].as_str().unwrap_or_default())];
    if let Some(uid) = who["uid"].as_str().filter(|uid| !uid.is_empty()) {
        out.push(header("impersonate-uid", uid));
    }
    for (key, values) in who["extra"].as_object().into_iter().flatten() {
        let value = values[0].as_str().unwrap_or_default();
        out.push(header(&format!("impersonate-extra-{}", quote(key, b"")), value));
    }
    // One group a step is enough.
    if let Some(group) = who["groups"][0].as_str() {
        out.push(header("impersonate-group", group));
    }
    out
}

fn holds(until: &Value, status: u16, value: &Value) -> bool {
    if until.get("status").map_or(200, |s| s.as_u64().unwrap_or(0)) != u64::from(status) {
        return false;
    }
    let Some(pointer) = until["pointer"].as_str() else { return true };
    let found = at(value, pointer);
    match until.get("equals") {
        Some(equals) => found.is_some_and(|found| difference(equals, found, "").is_empty()),
        None => found.is_some_and(|found| !found.is_null()),
    }
}

/// The value at a JSON pointer.
fn at<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    pointer.split('/').skip(1).map(|p| p.replace("~1", "/").replace("~0", "~")).try_fold(value, |x, p| match x {
        Value::Array(items) => items.get(p.parse::<usize>().ok()?),
        Value::Object(fields) => fields.get(&p),
        _ => None,
    })
}

fn judge(want: &Value, got: &Map<String, Value>) -> Vec<String> {
    let mut want = want.clone();
    if let Some(events) = want.get_mut("events") {
        *events = due(events.take());
    }
    let mut out = difference(&want, &Value::Object(got.clone()), "");
    let more = out.len().saturating_sub(DIFFERENCES_MAX);
    out.truncate(DIFFERENCES_MAX);
    if more > 0 {
        out.push(format!("and {more} more"));
    }
    out
}

/// Every place where two values differ. The order of object keys is free, of arrays is not.
fn difference(want: &Value, got: &Value, place: &str) -> Vec<String> {
    let differs = || vec![format!("{place}: wanted {}, got {}", short(want), short(got))];
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            let mut out = Vec::new();
            for (key, want) in want {
                let place = format!("{place}/{key}");
                match got.get(key) {
                    None => out.push(format!("{place}: missing, wanted {}", short(want))),
                    Some(got) if key == "managedFields" => {
                        out.extend(difference(&ordered(want), &ordered(got), &place));
                    }
                    Some(got) => out.extend(difference(want, got, &place)),
                }
            }
            let unwanted = got.iter().filter(|(key, _)| !want.contains_key(*key));
            out.extend(unwanted.map(|(key, got)| format!("{place}/{key}: not wanted, got {}", short(got))));
            out
        }
        (Value::Array(wanted), Value::Array(gotten)) => {
            let mut out = Vec::new();
            if wanted.len() != gotten.len() {
                let (w, g) = (wanted.len(), gotten.len());
                out.push(format!("{place}: wanted {w} items, got {g}: {} / {}", short(want), short(got)));
            }
            let pairs = wanted.iter().zip(gotten).enumerate();
            out.extend(pairs.flat_map(|(i, (want, got))| difference(want, got, &format!("{place}/{i}"))));
            out
        }
        (Value::String(want), Value::String(got)) if settle(want) == *got => Vec::new(),
        (Value::Number(want), Value::Number(got)) if same_number(want, got) => Vec::new(),
        (want, got) if !want.is_string() && want == got => Vec::new(),
        _ => differs(),
    }
}

fn same_number(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a == b,
        _ => a.as_f64() == b.as_f64(),
    }
}

/// Managed fields in an order that does not depend on who wrote first.
fn ordered(x: &Value) -> Value {
    let Value::Array(items) = x else { return x.clone() };
    let mut items = items.clone();
    items.sort_by_cached_key(|item| python_json(item, true, true));
    Value::Array(items)
}

fn short(x: &Value) -> String {
    let text = python_json(x, false, false);
    match text.char_indices().nth(239) {
        None => text,
        Some(_) => text.chars().take(237).chain("...".chars()).collect(),
    }
}

/// JSON as Python writes it: a space after commas and colons. It is what the recorded server was sent, and error
/// messages quote it.
fn python_json(x: &Value, sort: bool, ascii: bool) -> String {
    let mut out = String::new();
    write_python_json(&mut out, x, sort, ascii);
    out
}

fn write_python_json(out: &mut String, x: &Value, sort: bool, ascii: bool) {
    match x {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                write_python_json(out, item, sort, ascii);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            if sort {
                fields.sort_by_key(|(key, _)| *key);
            }
            out.push('{');
            for (i, (key, item)) in fields.into_iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                write_python_text(out, key, ascii);
                out.push_str(": ");
                write_python_json(out, item, sort, ascii);
            }
            out.push('}');
        }
        Value::String(text) => write_python_text(out, text, ascii),
        other => drop(write!(out, "{other}")),
    }
}

fn write_python_text(out: &mut String, text: &str, ascii: bool) {
    for c in Value::from(text).to_string().chars() {
        if ascii && !c.is_ascii() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
}

/// Percent-escapes all but letters, digits, `_.-~` and `safe`.
fn quote(text: &str, safe: &[u8]) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_address(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b':')
}

/// Whether Python would take it for true.
fn truthy(x: &Value) -> bool {
    match x {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

fn seconds(x: &Value, default: f64) -> Duration {
    Duration::from_secs_f64(x["seconds"].as_f64().unwrap_or(default))
}

/// The server gives no sign when a controller has done its work, so a step that waits asks again.
pub(crate) fn pause() {
    std::thread::park_timeout(RETRY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lose_what_no_two_servers_share() {
        struct Nobody;
        impl Transport for Nobody {
            fn send(&self, _: Request, _: Option<Watch>) -> io::Result<Answer> {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
        let mut run = Run::new(&Nobody, "t");
        (run.namespace, run.id) = ("golden-ns-bcdfgh".into(), "gidhgfdcbx".into());
        let mut check = |value: Value, want: Value| assert_eq!(run.plain(&value, ""), want);
        check(json!("golden-ns-bcdfgh/gidhgfdcbx"), json!("${ns}/${id}"));
        check(json!("at 2026-01-02T03:04:05.6Z, 2026-01-02T03:04:05+02:00"), json!("at <time>, <time>"));
        check(json!("eyJhb-G.eyJ_x.a-b"), json!("<token>"));
        check(
            json!("kube-api-access-4xk2z kube-api-access-4xk2zz"),
            json!("kube-api-access-<rand> kube-api-access-4xk2zz"),
        );
        check(
            json!(r#"{"resourceVersion":"12"} {"resourceVersion":"12a"}"#),
            json!(r#"{"resourceVersion":"<rv>"} {"resourceVersion":"12a"}"#),
        );
        check(
            json!({"resourceVersion": "0", "uid": "01234567-89ab-cdef-0123-456789abcdef"}),
            json!({"resourceVersion": "0", "uid": "<uid>"}),
        );
        check(json!({"message": "too old resource version: 5"}), json!({"message": "too old resource version <rv>"}));
        check(
            json!({"metadata": {"generateName": "a-", "name": "a-xyz"}}),
            json!({"metadata": {"generateName": "a-", "name": "a-<rand>"}}),
        );
        check(
            json!({"clusterIPs": ["10.96.0.9", "None"], "nodePort": 30000}),
            json!({"clusterIPs": ["<ip>", "None"], "nodePort": "<port>"}),
        );
        check(
            json!({"kind": "Table", "columnDefinitions": [{"name": "Age", "description": "d"}], "rows": [{"cells": ["3s"]}, {"cells": ["<none>"]}]}),
            json!({"kind": "Table", "columnDefinitions": [{"name": "Age"}], "rows": [{"cells": ["<age>"]}, {"cells": ["<none>"]}]}),
        );
    }

    #[test]
    fn differences_say_where() {
        let check = |want: Value, got: Value, text: &str| assert_eq!(difference(&want, &got, "").join("; "), text);
        check(json!({"a": 1.0}), json!({"a": 1}), "");
        check(
            json!({"a": 1, "b": [1]}),
            json!({"b": [1, 2], "c": "x"}),
            "/a: missing, wanted 1; /b: wanted 1 items, got 2: [1] / [1, 2]; /c: not wanted, got \"x\"",
        );
        check(
            json!({"managedFields": [{"manager": "a"}, {"manager": "b"}]}),
            json!({"managedFields": [{"manager": "b"}, {"manager": "a"}]}),
            "",
        );
        check(json!(null), json!(false), ": wanted null, got false");
    }

    #[test]
    fn bodies_are_written_as_python_writes_them() {
        assert_eq!(
            python_json(&json!({"b": [1, "é😀"], "a": {}}), true, true),
            r#"{"a": {}, "b": [1, "\u00e9\ud83d\ude00"]}"#
        );
    }
}
