//! What the node and its pods use, as those who ask a kubelet read it: the summary, and the metrics of resources. Reads counters, and
//! keeps what they were when somebody asked last.

use crate::agent::{Shared, lock};
use crate::decide::time;
use crate::remote::Reachable;
use crate::runtime::Usage;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;

/// Ticks of the kernel's clock in a second, as all of its architectures that run this have it.
const TICKS_PER_SECOND: u64 = 100;

/// Over less time than this no rate is told: the kernel counts in steps.
const RATE_OVER_MIN: SignedDuration = SignedDuration::from_secs(1);

/// What was counted when somebody asked last: what is used a second is told of the time since, or since the start of what is asked
/// about. Nothing is counted while nobody asks.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, Sample>>);

#[derive(Clone, Copy)]
struct Sample {
    at: Timestamp,
    cpu_nanos: u64,
    rate: Option<u64>,
}

/// The rates of one answer. What is not in it is forgotten with it.
struct Asked {
    now: Timestamp,
    before: HashMap<String, Sample>,
    after: HashMap<String, Sample>,
}

impl Asked {
    /// The nanoseconds of processors used in a second.
    fn rate(&mut self, key: String, since: Timestamp, cpu_nanos: u64) -> Option<u64> {
        let last = self.before.get(&key).copied().unwrap_or(Sample { at: since, cpu_nanos: 0, rate: None });
        let passed = self.now.duration_since(last.at);
        let sample = match passed >= RATE_OVER_MIN {
            true => {
                let used = u128::from(cpu_nanos.saturating_sub(last.cpu_nanos)) * 1_000_000_000;
                let rate = u64::try_from(used / passed.as_nanos().unsigned_abs().max(1)).ok();
                Sample { at: self.now, cpu_nanos, rate }
            }
            false => last,
        };
        self.after.insert(key, sample);
        sample.rate
    }
}

/// A pod or container, and what it uses.
struct Used {
    name: String,
    since: Timestamp,
    usage: Usage,
}

/// `/stats/summary`.
pub fn summary(shared: &Shared) -> String {
    let mut rates = lock(&shared.rates.0);
    let mut asked = Asked { now: Timestamp::now(), before: std::mem::take(&mut *rates), after: HashMap::new() };
    let pods: Vec<Value> = pods(shared)
        .into_iter()
        .map(|((namespace, name), uid, since, whole, containers)| {
            let mut pod = json!({
                "podRef": {"name": name, "namespace": namespace, "uid": uid},
                "startTime": time(since),
                "containers": containers.iter().map(|it| {
                    let mut container = json!({"name": it.name, "startTime": time(it.since)});
                    let key = format!("{uid}/{}/{}", it.name, it.since);
                    fill(&mut container, &it.usage, &mut asked, key, it.since);
                    container
                }).collect::<Vec<_>>(),
            });
            if let Some(whole) = whole {
                fill(&mut pod, &whole, &mut asked, uid, since);
                pod["process_stats"] = json!({"process_count": whole.processes});
            }
            pod
        })
        .collect();
    let mut node = json!({"nodeName": shared.config.name});
    let up = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up: f64 = up.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
    let began = asked.now - SignedDuration::from_millis((up * 1e3) as i64);
    fill(&mut node, &machine(), &mut asked, String::new(), began);
    *rates = asked.after;
    drop(rates);
    let available = meminfo("MemAvailable");
    node["memory"]["availableBytes"] = available.into();
    json!({"node": node, "pods": pods}).to_string()
}

fn fill(into: &mut Value, usage: &Usage, asked: &mut Asked, key: String, since: Timestamp) {
    let now = time(asked.now);
    into["cpu"] = json!({"time": now});
    if let Some(rate) = asked.rate(key, since, usage.cpu_nanos) {
        into["cpu"]["usageNanoCores"] = rate.into();
    }
    into["cpu"]["usageCoreNanoSeconds"] = usage.cpu_nanos.into();
    into["memory"] = json!({
        "time": now, "usageBytes": usage.memory_bytes, "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes, "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
    });
}

/// `/metrics/resource`, in the text form of Prometheus.
pub fn metrics(shared: &Shared) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, f64)>| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let seconds = |usage: &Usage| usage.cpu_nanos as f64 / 1e9;
    let machine = machine();
    let (mut cpu, mut memory, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pod_cpu, mut pod_memory) = (Vec::new(), Vec::new());
    for ((namespace, pod), _, _, whole, containers) in pods(shared) {
        for it in containers {
            let labels = format!("{{container={:?},namespace={namespace:?},pod={pod:?}}}", it.name);
            cpu.push((labels.clone(), seconds(&it.usage)));
            memory.push((labels.clone(), it.usage.working_set_bytes as f64));
            starts.push((labels, it.since.as_millisecond() as f64 / 1e3));
        }
        if let Some(whole) = whole {
            let labels = format!("{{namespace={namespace:?},pod={pod:?}}}");
            pod_cpu.push((labels.clone(), seconds(&whole)));
            pod_memory.push((labels, whole.working_set_bytes as f64));
        }
    }
    let no_labels = |value: f64| vec![(String::new(), value)];
    family("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time of the container in core-seconds", cpu);
    family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", memory);
    family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", starts);
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time of the node in core-seconds",
        no_labels(seconds(&machine)),
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        no_labels(machine.working_set_bytes as f64),
    );
    family("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time of the pod in core-seconds", pod_cpu);
    family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", pod_memory);
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting metrics, 0 otherwise",
        no_labels(0.0),
    );
    text
}

type PodUsage = ((String, String), String, Timestamp, Option<Usage>, Vec<Used>);

/// The pods that run, in their order, with what they and their containers use.
fn pods(shared: &Shared) -> Vec<PodUsage> {
    let running: Vec<((String, String), Reachable)> =
        lock(&shared.reachable).iter().map(|(key, pod)| (key.clone(), pod.clone())).collect();
    let mut pods: Vec<PodUsage> = running
        .into_iter()
        .map(|(key, pod)| {
            let mut containers: Vec<Used> = pod
                .containers
                .iter()
                .filter_map(|(name, running)| {
                    let usage = running.target.process.usage()?;
                    Some(Used { name: name.clone(), since: running.since, usage })
                })
                .collect();
            containers.sort_by(|a, b| a.name.cmp(&b.name));
            (key, pod.uid, pod.since, pod.pod.usage(), containers)
        })
        .collect();
    pods.sort_by(|a, b| a.0.cmp(&b.0));
    pods
}

/// What the whole machine uses.
fn machine() -> Usage {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // User, nice, system, then idle and waiting, then interrupts and stolen time.
    let busy: u64 =
        ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4 | 8 | 9)).map(|(_, ticks)| ticks).sum();
    let used = meminfo("MemTotal").saturating_sub(meminfo("MemFree"));
    Usage {
        cpu_nanos: busy * (1_000_000_000 / TICKS_PER_SECOND),
        memory_bytes: used,
        working_set_bytes: used.saturating_sub(meminfo("Inactive(file)")),
        rss_bytes: meminfo("AnonPages"),
        ..Usage::default()
    }
}

/// A line of the kernel's account of memory, in bytes.
fn meminfo(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_since_somebody_asked() {
        let began = Timestamp::UNIX_EPOCH;
        let mut kept = HashMap::new();
        let mut check = |second: f64, cpu_nanos: u64, expected: Option<u64>| {
            let now = began + SignedDuration::from_millis((second * 1e3) as i64);
            let mut asked = Asked { now, before: std::mem::take(&mut kept), after: HashMap::new() };
            assert_eq!(asked.rate("a".into(), began, cpu_nanos), expected, "{second}");
            kept = asked.after;
        };
        check(0.5, 7, None);
        check(2.0, 1_000_000_000, Some(500_000_000));
        // Too soon for another.
        check(2.5, 1_400_000_000, Some(500_000_000));
        check(4.0, 1_400_000_000, Some(200_000_000));
        check(14.0, 1_400_000_000, Some(0));
    }
}
