//! Numbers about this server in Prometheus' text form, by the names that users of Kubernetes know. Only true ones: what is
//! not counted is not shown.
//!
//! Counting a request costs a few atomic operations and a look into an immutable map: no lock and no allocation but for the
//! first of its kind. Label sets are bounded: what is asked for resources that are not served has no labels of its own.

mod authorization;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Ask, Verb};
use arc_swap::ArcSwap;

use crate::authn::{AUTHENTICATED, MASTERS, User, service_account};
use crate::authz::Decision;
use crate::documents;
use crate::flow::Refused;
use crate::state::State;

/// Of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Most kinds of requests that are counted on their own: about as many as there are built-in resources, verbs and scopes
/// that anybody combines. More are counted together.
pub const SERIES_MAX: usize = 2048;
/// The codes that this server answers with. Others are counted together, without one.
const CODES: [u16; 26] = [
    101, 200, 201, 202, 204, 301, 302, 304, 307, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 501,
    502, 503, 504,
];
/// Upper bounds in seconds, as the API server has them.
static DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Upper bounds in bytes.
static SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Upper bounds of waits for a seat, in seconds.
pub static WAITS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// The counters.
#[derive(Default)]
pub struct Metrics {
    /// By a hash of their labels.
    series: ArcSwap<HashMap<u64, Arc<Series>>>,
    /// One at a time adds to them.
    adding: Mutex<()>,
    hasher: RandomState,
    /// What there is no room for.
    others: Arc<Series>,
    /// Requests that run, by whether they change anything.
    reading: AtomicI64,
    writing: AtomicI64,
    /// Watches' events by resource.
    watched: Mutex<BTreeMap<[Arc<str>; 4], Arc<AtomicU64>>>,
    authenticated: [AtomicU64; USERS.len()],
    unauthenticated: AtomicU64,
    authorized: [AtomicU64; DECISIONS.len()],
    pub tls_failures: AtomicU64,
}

/// Who asks, in few words: names would be without bound.
const USERS: [&str; 6] = ["admin", "anonymous", "apiserver", "kube-system", "service-account", "other"];

/// What the authorizers say of a request, in the end.
const DECISIONS: [&str; 4] = ["allowed", "denied", "error", "no-opinion"];

/// What is counted of requests with the same labels.
#[derive(Default)]
pub struct Series {
    /// As Prometheus writes them, without a code and without parentheses.
    labels: String,
    verb: &'static str,
    codes: [AtomicU64; CODES.len()],
    other_codes: AtomicU64,
    durations: Histogram<{ DURATIONS.len() }>,
    sizes: Histogram<{ SIZES.len() }>,
    /// Requests that live long and do so now.
    living: AtomicI64,
}

/// Counts by upper bounds.
pub struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    above: AtomicU64,
    /// In millionths of the unit.
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Histogram<N> {
        Histogram { counts: [const { AtomicU64::new(0) }; N], above: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

/// A request that is being answered.
pub struct Running<'a>(&'a AtomicI64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that lives long.
pub struct Living(Arc<Series>);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.living.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of an answer when its head is sent.
pub struct Answered {
    pub code: u16,
    /// Since its request came.
    pub took: Duration,
    /// Of the body, where that is known.
    pub bytes: Option<u64>,
    /// The request is about a kind that is served, or about none.
    pub known: bool,
    pub lives_long: bool,
}

impl Metrics {
    /// A request begins.
    pub fn begin(&self, ask: &Ask) -> Running<'_> {
        let reads = matches!(ask.method.as_ref(), "GET" | "HEAD" | "OPTIONS");
        let running = if reads { &self.reading } else { &self.writing };
        running.fetch_add(1, Ordering::Relaxed);
        Running(running)
    }

    /// Counts an answer. What is answered is kept among those that live while it does.
    pub fn count(&self, ask: &Ask, answered: &Answered) -> Option<Living> {
        let series = self.series(&Labels::of(ask, answered.known));
        match CODES.binary_search(&answered.code) {
            Ok(at) => series.codes[at].fetch_add(1, Ordering::Relaxed),
            Err(_) => series.other_codes.fetch_add(1, Ordering::Relaxed),
        };
        if answered.lives_long {
            series.living.fetch_add(1, Ordering::Relaxed);
            return Some(Living(series));
        }
        series.durations.add(&DURATIONS, answered.took.as_secs_f64());
        if let Some(bytes) = answered.bytes {
            series.sizes.add(&SIZES, bytes as f64);
        }
        None
    }

    /// Who a request was found to come from.
    pub fn authenticated(&self, user: Option<&User>) {
        let count = match user {
            None => &self.unauthenticated,
            Some(user) => &self.authenticated[word(user)],
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub fn authorized(&self, decision: &Decision) {
        let word = match (decision, decision.refusal()) {
            (Decision::Allow { .. }, _) => "allowed",
            (_, (_, error)) if !error.is_empty() => "error",
            (Decision::Deny { .. }, _) => "denied",
            (Decision::NoOpinion { .. }, _) => "no-opinion",
        };
        let at = DECISIONS.iter().position(|known| *known == word).unwrap_or(DECISIONS.len() - 1);
        self.authorized[at].fetch_add(1, Ordering::Relaxed);
    }

    /// Where the events of watches of a kind are counted.
    pub fn watched(&self, kind: &kinds::Kind) -> Arc<AtomicU64> {
        let mut watched = lock(&self.watched);
        let key = [&kind.group, &kind.version, &kind.plural, &kind.kind].map(Clone::clone);
        if watched.len() >= SERIES_MAX && !watched.contains_key(&key) {
            return Arc::default();
        }
        watched.entry(key).or_default().clone()
    }

    fn series(&self, labels: &Labels<'_>) -> Arc<Series> {
        let hash = self.hasher.hash_one(labels);
        if let Some(found) = self.series.load().get(&hash) {
            return found.clone();
        }
        let _one_at_a_time = lock(&self.adding);
        let all = self.series.load_full();
        if let Some(found) = all.get(&hash) {
            return found.clone();
        }
        if all.len() >= SERIES_MAX {
            return self.others.clone();
        }
        let series = Arc::new(Series { labels: labels.print(), verb: labels.verb, ..Series::default() });
        let mut all = HashMap::clone(&all);
        all.insert(hash, series.clone());
        self.series.store(Arc::new(all));
        series
    }

    /// All numbers.
    pub fn text(&self, state: &State) -> String {
        let mut out = String::with_capacity(64 * 1024);
        let out = &mut out;
        self.identities(out);
        self.requests(out);
        objects(out, state);
        flow(out, state);
        audit(out, state);
        authorization::print(out, state);
        family(out, "kemudi_store_revision", "gauge", "The revision of the last write.");
        line(out, "kemudi_store_revision", "", state.objects.revision());
        let version = documents::version_info();
        let label = |key: &str| version.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let labels = format!(
            "build_date=\"{}\",compiler=\"{}\",git_commit=\"{}\",git_tree_state=\"{}\",git_version=\"{}\",go_version=\"{}\",major=\"{}\",minor=\"{}\",platform=\"{}\"",
            label("buildDate"),
            label("compiler"),
            label("gitCommit"),
            label("gitTreeState"),
            label("gitVersion"),
            label("goVersion"),
            label("major"),
            label("minor"),
            label("platform")
        );
        family(out, "kubernetes_build_info", "gauge", "The version that is served, in labels.");
        line(out, "kubernetes_build_info", &labels, 1);
        process(out);
        family(out, "process_start_time_seconds", "gauge", "When the server started, in seconds since 1970.");
        line(out, "process_start_time_seconds", "", state.started.as_millisecond() as f64 / 1000.0);
        std::mem::take(out)
    }

    fn identities(&self, out: &mut String) {
        family(out, "authenticated_user_requests", "counter", "Requests that were authenticated, by who asked.");
        for (name, count) in USERS.iter().zip(&self.authenticated) {
            counted(out, "authenticated_user_requests", &format!("username=\"{name}\""), count);
        }
        family(out, "authentication_attempts", "counter", "Attempts to authenticate, by their outcome.");
        let known: u64 = self.authenticated.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        line(out, "authentication_attempts", "result=\"success\"", known);
        counted(out, "authentication_attempts", "result=\"failure\"", &self.unauthenticated);
        family(out, "authorization_attempts_total", "counter", "Decisions about requests, by their outcome.");
        for (word, count) in DECISIONS.iter().zip(&self.authorized) {
            some(out, "authorization_attempts_total", &format!("result=\"{word}\""), count);
        }
        family(out, "apiserver_tls_handshake_errors_total", "counter", "TLS handshakes that failed.");
        counted(out, "apiserver_tls_handshake_errors_total", "", &self.tls_failures);
    }

    fn requests(&self, out: &mut String) {
        family(out, "apiserver_current_inflight_requests", "gauge", "Requests that are being answered.");
        for (kind, count) in [("mutating", &self.writing), ("readOnly", &self.reading)] {
            let labels = format!("request_kind=\"{kind}\"");
            line(out, "apiserver_current_inflight_requests", &labels, count.load(Ordering::Relaxed));
        }
        let mut all: Vec<Arc<Series>> = self.series.load().values().cloned().collect();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        all.push(self.others.clone());
        family(out, "apiserver_request_total", "counter", "Answers by verb, resource and HTTP code.");
        for series in &all {
            for (code, count) in CODES.iter().zip(&series.codes) {
                some(out, "apiserver_request_total", &format!("code=\"{code}\",{}", series.labels), count);
            }
            some(out, "apiserver_request_total", &format!("code=\"\",{}", series.labels), &series.other_codes);
        }
        family(
            out,
            "apiserver_request_duration_seconds",
            "histogram",
            "Time until the head of the answer, in seconds.",
        );
        for series in &all {
            series.durations.print(out, "apiserver_request_duration_seconds", &series.labels, &DURATIONS);
        }
        family(out, "apiserver_response_sizes", "histogram", "Sizes of answers that are sent whole, in bytes.");
        for series in &all {
            series.sizes.print(out, "apiserver_response_sizes", &series.labels, &SIZES);
        }
        family(out, "apiserver_longrunning_requests", "gauge", "Watches and other streams that are open.");
        for series in all.iter().filter(|series| series.verb == "WATCH" || series.verb == "CONNECT") {
            line(out, "apiserver_longrunning_requests", &series.labels, series.living.load(Ordering::Relaxed));
        }
        family(out, "apiserver_watch_events_total", "counter", "Events sent to watches.");
        for ([group, version, resource, kind], count) in &*lock(&self.watched) {
            let labels = format!("group=\"{group}\",kind=\"{kind}\",resource=\"{resource}\",version=\"{version}\"");
            counted(out, "apiserver_watch_events_total", &labels, count);
        }
    }
}

/// What tells requests apart.
#[derive(Hash)]
struct Labels<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
    dry_run: bool,
}

impl<'a> Labels<'a> {
    fn of(ask: &'a Ask, known: bool) -> Labels<'a> {
        let plain = match ask.method.as_ref() {
            "GET" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            "HEAD" => "HEAD",
            "OPTIONS" => "OPTIONS",
            _ => "other",
        };
        let none =
            Labels { verb: plain, group: "", version: "", resource: "", subresource: "", scope: "", dry_run: false };
        let Some(target) = ask.target.as_ref().filter(|_| known) else { return none };
        let verb = match (&ask.verb, target.subresource.as_str()) {
            (_, "exec" | "attach" | "portforward" | "proxy" | "log") => "CONNECT",
            (Verb::Get, _) => "GET",
            (Verb::List, _) => "LIST",
            (Verb::Watch, _) => "WATCH",
            (Verb::Create, _) => "POST",
            (Verb::Update, _) => "PUT",
            (Verb::Patch, _) => "PATCH",
            (Verb::Delete, _) => "DELETE",
            (Verb::DeleteCollection, _) => "DELETECOLLECTION",
            (Verb::Other(_), _) => plain,
        };
        let scope = match (target.name.as_str(), target.namespace.as_str()) {
            // What is created has no name in its path, and is one.
            ("", _) if ask.verb == Verb::Create => "resource",
            ("", "") => "cluster",
            ("", _) => "namespace",
            _ => "resource",
        };
        Labels {
            verb,
            group: &target.group,
            version: &target.version,
            resource: &target.resource,
            subresource: &target.subresource,
            scope,
            dry_run: ask.query.get("dryRun").is_some_and(|given| !given.is_empty()),
        }
    }

    fn print(&self) -> String {
        let Labels { verb, group, version, resource, subresource, scope, dry_run } = self;
        let dry_run = if *dry_run { "All" } else { "" };
        format!(
            "component=\"apiserver\",dry_run=\"{dry_run}\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

impl<const N: usize> Histogram<N> {
    /// `bounds` are the same at every call.
    pub fn add(&self, bounds: &[f64; N], value: f64) {
        let at = bounds.iter().position(|bound| value <= *bound);
        at.map_or(&self.above, |at| &self.counts[at]).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// Nothing where nothing was counted.
    fn print(&self, out: &mut String, name: &str, labels: &str, bounds: &[f64; N]) {
        let mut total = 0;
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let above = self.above.load(Ordering::Relaxed);
        if counts.iter().sum::<u64>() + above == 0 {
            return;
        }
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in bounds.iter().zip(counts) {
            total += count;
            line(out, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), total);
        }
        line(out, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"+Inf\""), total + above);
        line(out, &format!("{name}_sum"), labels, self.sum.load(Ordering::Relaxed) as f64 / 1e6);
        line(out, &format!("{name}_count"), labels, total + above);
    }
}

/// Where a user is in [`USERS`].
fn word(user: &User) -> usize {
    let name = match service_account::split_user_name(&user.name) {
        Some(("kube-system", _)) => "kube-system",
        Some(_) => "service-account",
        None if user.name == "system:apiserver" => "apiserver",
        None if user.is_in(MASTERS) => "admin",
        None if !user.is_in(AUTHENTICATED) => "anonymous",
        None => "other",
    };
    USERS.iter().position(|known| *known == name).unwrap_or(USERS.len() - 1)
}

fn objects(out: &mut String, state: &State) {
    let counts = state.objects.counts();
    family(out, "apiserver_resource_objects", "gauge", "Stored objects by resource.");
    for (table, count) in &counts {
        let (group, resource) = table.split_once('/').unwrap_or(("", table));
        let labels = format!("group=\"{group}\",resource=\"{resource}\"");
        line(out, "apiserver_resource_objects", &labels, count);
    }
    family(out, "apiserver_storage_objects", "gauge", "Stored objects by resource, as PLURAL.GROUP.");
    for (table, count) in &counts {
        let name = table.split_once('/').map_or(table.to_string(), |(group, resource)| format!("{resource}.{group}"));
        line(out, "apiserver_storage_objects", &format!("resource=\"{name}\""), count);
    }
}

fn audit(out: &mut String, state: &State) {
    let off = crate::audit::Counts::default();
    let counts = state.audit.as_ref().map_or(&off, |audit| &audit.counts);
    family(out, "apiserver_audit_event_total", "counter", "Audit events that were made and sent to the log.");
    counted(out, "apiserver_audit_event_total", "", &counts.events);
    family(out, "apiserver_audit_error_total", "counter", "Audit events that could not be written.");
    some(out, "apiserver_audit_error_total", "plugin=\"log\"", &counts.errors);
    family(out, "apiserver_audit_level_total", "counter", "Requests by the level that the audit policy gives them.");
    for (level, count) in crate::audit::Level::ALL.iter().zip(&counts.levels) {
        some(out, "apiserver_audit_level_total", &format!("level=\"{}\"", level.as_str()), count);
    }
    let help = "Requests that were refused because their audit event could not be written.";
    family(out, "apiserver_audit_requests_rejected_total", "counter", help);
    counted(out, "apiserver_audit_requests_rejected_total", "", &counts.rejected);
}

fn flow(out: &mut String, state: &State) {
    let schemas = state.flow.schemas();
    let labels = |schema: &crate::flow::Schema| {
        format!("flow_schema=\"{}\",priority_level=\"{}\"", schema.name, schema.level.name)
    };
    let number = |count: &std::sync::atomic::AtomicU32| u64::from(count.load(Ordering::Relaxed));
    type Read = fn(&crate::flow::Schema) -> &std::sync::atomic::AtomicU32;
    let gauges: [(&str, &str, Read); 3] = [
        ("current_executing_requests", "Requests that have their seats.", |schema| &schema.statistics.executing),
        ("current_executing_seats", "Seats that are taken.", |schema| &schema.statistics.seats),
        ("current_inqueue_requests", "Requests that wait in queues.", |schema| &schema.statistics.waiting),
    ];
    for (name, help, read) in gauges {
        let name = format!("apiserver_flowcontrol_{name}");
        family(out, &name, "gauge", help);
        schemas.iter().for_each(|schema| line(out, &name, &labels(schema), number(read(schema))));
    }
    family(out, "apiserver_flowcontrol_dispatched_requests_total", "counter", "Requests that got their seats.");
    for schema in &schemas {
        counted(out, "apiserver_flowcontrol_dispatched_requests_total", &labels(schema), &schema.statistics.dispatched);
    }
    family(out, "apiserver_flowcontrol_rejected_requests_total", "counter", "Requests that got none, and why.");
    for schema in &schemas {
        for (why, count) in Refused::ALL.iter().zip(&schema.statistics.refused) {
            let labels = format!("{},reason=\"{}\"", labels(schema), why.as_str());
            some(out, "apiserver_flowcontrol_rejected_requests_total", &labels, count);
        }
    }
    family(out, "apiserver_flowcontrol_request_wait_duration_seconds", "histogram", "Time in queues, in seconds.");
    for schema in &schemas {
        let name = "apiserver_flowcontrol_request_wait_duration_seconds";
        schema.statistics.waits.print(out, name, &labels(schema), &WAITS);
    }
    type Seats = fn(&crate::flow::Level) -> u32;
    let levels: [(&str, &str, Seats); 3] = [
        ("nominal_limit_seats", "Seats by the level's shares.", |level| level.nominal()),
        ("lower_limit_seats", "Seats that the level lends to nobody.", |level| level.least()),
        ("upper_limit_seats", "Most seats the level may hold.", |level| level.max()),
    ];
    for (name, help, read) in levels {
        let name = format!("apiserver_flowcontrol_{name}");
        family(out, &name, "gauge", help);
        for level in state.flow.levels() {
            line(out, &name, &format!("priority_level=\"{}\"", level.name), read(&level));
        }
    }
}

/// What the kernel says of this process; nothing where there is no `/proc`.
fn process(out: &mut String) {
    // The unit of times in /proc is part of Linux' interface.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name is in parentheses and may hold anything; numbers follow, the 14th and 15th field are times.
    let times: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse().ok()).collect())
        .unwrap_or_default();
    if times.len() == 2 {
        family(out, "process_cpu_seconds_total", "counter", "User and system time, in seconds.");
        line(out, "process_cpu_seconds_total", "", times.iter().sum::<f64>() / TICKS_PER_SECOND);
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files_max = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    if let Some(files_max) = files_max.and_then(|text| text.parse::<u64>().ok()) {
        family(out, "process_max_fds", "gauge", "Most files that may be open.");
        line(out, "process_max_fds", "", files_max);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        family(out, "process_open_fds", "gauge", "Open files.");
        line(out, "process_open_fds", "", files.count());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = [
        ("VmRSS:", "process_resident_memory_bytes", "Resident memory, in bytes."),
        ("VmSize:", "process_virtual_memory_bytes", "Virtual memory, in bytes."),
    ];
    for (field, name, help) in memory {
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        if let Some(kilobytes) = kilobytes {
            family(out, name, "gauge", help);
            line(out, name, "", kilobytes * 1024);
        }
    }
}

// Writing to a string cannot fail.

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// `labels` is `""` where there are none.
fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

fn counted(out: &mut String, name: &str, labels: &str, count: &AtomicU64) {
    line(out, name, labels, count.load(Ordering::Relaxed));
}

/// A count that is not shown while it is nothing.
fn some(out: &mut String, name: &str, labels: &str, count: &AtomicU64) {
    if count.load(Ordering::Relaxed) > 0 {
        counted(out, name, labels, count);
    }
}

/// A panic while a lock was held left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16) -> Answered {
        Answered { code, took: Duration::from_millis(7), bytes: Some(12), known: true, lives_long: false }
    }

    fn ask(ask: &str) -> Ask {
        let (method, path) = ask.split_once(' ').unwrap();
        Ask::parse(method, path).unwrap()
    }

    /// The lines of a family after requests were answered with a code each.
    #[track_caller]
    fn check(asked: &[(&str, u16)], name: &str, want: &[&str]) {
        let metrics = Metrics::default();
        for (what, code) in asked {
            let known = *code != 404;
            metrics.count(&ask(what), &Answered { known, ..answered(*code) });
        }
        let mut out = String::new();
        metrics.requests(&mut out);
        let lines: Vec<&str> = out.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(lines, want);
    }

    #[test]
    fn answers_are_counted_by_what_was_asked_and_by_code() {
        let pods = "GET /api/v1/namespaces/a/pods";
        check(
            &[
                (pods, 200),
                (pods, 200),
                ("GET /apis/no/v1/such", 404),
                ("POST /api/v1/namespaces/a/pods?dryRun=All", 799),
            ],
            "apiserver_request_total",
            &[
                r#"apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version=""} 1"#,
                r#"apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 2"#,
                r#"apiserver_request_total{code="",component="apiserver",dry_run="All",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
            ],
        );
    }

    #[test]
    fn durations_are_counted_in_buckets() {
        check(
            &[("GET /version", 200), ("GET /version", 200)],
            r#"apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version="",le="0.0"#,
            &[
                r#"apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version="",le="0.005"} 0"#,
                r#"apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version="",le="0.025"} 2"#,
                r#"apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version="",le="0.05"} 2"#,
            ],
        );
    }

    #[test]
    fn what_lives_is_counted_until_it_ends() {
        let metrics = Metrics::default();
        let watch = ask("GET /api/v1/pods?watch=1");
        let living = metrics.count(&watch, &Answered { lives_long: true, ..answered(200) });
        let count = |metrics: &Metrics| {
            metrics.series.load().values().map(|series| series.living.load(Ordering::Relaxed)).sum::<i64>()
        };
        assert_eq!(count(&metrics), 1);
        drop(living);
        assert_eq!(count(&metrics), 0);
    }

    #[test]
    fn there_is_a_limit_to_what_is_told_apart() {
        let metrics = Metrics::default();
        for i in 0..SERIES_MAX + 10 {
            metrics.count(&ask(&format!("GET /apis/g{i}/v1/things")), &answered(200));
        }
        assert_eq!(metrics.series.load().len(), SERIES_MAX);
        assert_eq!(metrics.others.codes[1].load(Ordering::Relaxed), 10);
    }
}
