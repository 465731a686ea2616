//! What the node and its pods use, as those who ask a kubelet read it: the summary, and the metrics of resources. Reads counters;
//! keeps none.

use crate::agent::{Shared, lock};
use crate::decide::time;
use crate::remote::Reachable;
use crate::runtime::Usage;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write;

/// Ticks of the kernel's clock in a second, as all of its architectures that run this have it.
const TICKS_PER_SECOND: u64 = 100;

/// A pod or container, and what it uses.
struct Used {
    name: String,
    since: Timestamp,
    usage: Usage,
}

/// `/stats/summary`.
pub fn summary(shared: &Shared) -> String {
    let now = time(Timestamp::now());
    let pods: Vec<Value> = pods(shared)
        .into_iter()
        .map(|((namespace, name), uid, since, whole, containers)| {
            let mut pod = json!({
                "podRef": {"name": name, "namespace": namespace, "uid": uid},
                "startTime": time(since),
                "containers": containers.iter().map(|it| {
                    let mut container = json!({"name": it.name, "startTime": time(it.since)});
                    fill(&mut container, &it.usage, &now);
                    container
                }).collect::<Vec<_>>(),
            });
            if let Some(whole) = whole {
                fill(&mut pod, &whole, &now);
                pod["process_stats"] = json!({"process_count": whole.processes});
            }
            pod
        })
        .collect();
    let mut node = json!({"nodeName": shared.config.name});
    fill(&mut node, &machine(), &now);
    let available = meminfo("MemAvailable");
    node["memory"]["availableBytes"] = available.into();
    json!({"node": node, "pods": pods}).to_string()
}

fn fill(into: &mut Value, usage: &Usage, now: &str) {
    into["cpu"] = json!({"time": now, "usageCoreNanoSeconds": usage.cpu_nanos});
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
