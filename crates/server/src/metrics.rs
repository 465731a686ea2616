//! Numbers about this server in Prometheus' text form. Only true ones: what is not counted is not shown.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::documents;
use crate::state::State;

/// Of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

const VERBS: [&str; 12] =
    ["GET", "LIST", "WATCH", "POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION", "HEAD", "OPTIONS", "other"];
/// The first and the last HTTP code that is counted on its own.
const CODES: std::ops::RangeInclusive<u16> = 100..=599;
const CODES_COUNT: usize = 500;

/// The counters.
pub struct Metrics {
    /// Answers by verb and code: a table that never grows.
    requests: Box<[[AtomicU64; CODES_COUNT]; VERBS.len()]>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { requests: Box::new([const { [const { AtomicU64::new(0) }; CODES_COUNT] }; VERBS.len()]) }
    }
}

impl Metrics {
    /// Counts an answer. `verb` is authorization's word; codes outside of HTTP's range are not counted.
    pub fn count(&self, verb: &api::Verb, method: &str, code: u16) {
        let name = match verb {
            api::Verb::Get => "GET",
            api::Verb::List => "LIST",
            api::Verb::Watch => "WATCH",
            api::Verb::Create => "POST",
            api::Verb::Update => "PUT",
            api::Verb::Patch => "PATCH",
            api::Verb::Delete => "DELETE",
            api::Verb::DeleteCollection => "DELETECOLLECTION",
            api::Verb::Other(_) => method,
        };
        let verb = VERBS.iter().position(|known| *known == name).unwrap_or(VERBS.len() - 1);
        if CODES.contains(&code) {
            self.requests[verb][usize::from(code - CODES.start())].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All numbers.
    pub fn text(&self, state: &State) -> String {
        let mut out = String::with_capacity(2048);
        let version = documents::version_info();
        let label = |key: &str| version.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let labels = format!(
            "{{git_commit=\"{}\",git_version=\"{}\",major=\"{}\",minor=\"{}\",platform=\"{}\"}}",
            label("gitCommit"),
            label("gitVersion"),
            label("major"),
            label("minor"),
            label("platform")
        );
        family(&mut out, "apiserver_request_total", "counter", "Answers by verb and HTTP code.");
        self.requests(&mut out);
        let revision = state.objects.revision();
        family(&mut out, "kemudi_store_revision", "gauge", "The revision of the last write.");
        line(&mut out, "kemudi_store_revision", "", revision);
        family(&mut out, "kubernetes_build_info", "gauge", "The version that is served, in labels.");
        line(&mut out, "kubernetes_build_info", &labels, 1);
        process(&mut out);
        family(&mut out, "process_start_time_seconds", "gauge", "When the server started, in seconds since 1970.");
        line(&mut out, "process_start_time_seconds", "", state.started.as_millisecond() as f64 / 1000.0);
        out
    }

    fn requests(&self, out: &mut String) {
        for (verb, codes) in VERBS.iter().zip(self.requests.iter()) {
            for (code, count) in CODES.zip(codes) {
                match count.load(Ordering::Relaxed) {
                    0 => {}
                    count => {
                        let labels = format!("{{code=\"{code}\",component=\"apiserver\",verb=\"{verb}\"}}");
                        line(out, "apiserver_request_total", &labels, count);
                    }
                }
            }
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
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        family(out, "process_open_fds", "gauge", "Open files.");
        line(out, "process_open_fds", "", files.count());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    if let Some(kilobytes) = resident {
        family(out, "process_resident_memory_bytes", "gauge", "Resident memory, in bytes.");
        line(out, "process_resident_memory_bytes", "", kilobytes * 1024);
    }
}

// Writing to a string cannot fail.

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_verb_and_code() {
        let metrics = Metrics::default();
        metrics.count(&api::Verb::List, "GET", 200);
        metrics.count(&api::Verb::List, "GET", 200);
        metrics.count(&api::Verb::Other("get".into()), "GET", 404);
        metrics.count(&api::Verb::Other("foo".into()), "FOO", 599);
        metrics.count(&api::Verb::Get, "GET", 600);
        let mut out = String::new();
        metrics.requests(&mut out);
        let want = r#"apiserver_request_total{code="404",component="apiserver",verb="GET"} 1
apiserver_request_total{code="200",component="apiserver",verb="LIST"} 2
apiserver_request_total{code="599",component="apiserver",verb="other"} 1
"#;
        assert_eq!(out, want);
    }
}
