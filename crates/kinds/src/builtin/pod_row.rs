//! The row `kubectl get pods` shows: how many containers are ready and the one word that says how the pod is doing.
//! Decides from the object alone.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::read::Read;
use super::table;

/// Restarts that were counted and when the last of them ended.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container.int("restartCount");
        let ended = container.text("lastState.terminated.finishedAt").parse().ok();
        self.last = self.last.max(ended);
    }

    fn print(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, table::human_duration(table::seconds_between(last, now)))
            }
            _ => self.count.to_string(),
        }
    }
}

pub fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let mut total = pod.list("spec.containers").len();
    let sidecars: Vec<&str> =
        pod.list("spec.initContainers").iter().filter(|c| is_sidecar(c)).map(|c| c.text("name")).collect();
    total += sidecars.len();

    let phase = pod.text("status.phase");
    let mut reason = table::or(pod.text("status.reason"), phase).to_owned();
    let conditions = pod.list("status.conditions");
    if conditions.iter().any(|c| c.text("type") == "PodScheduled" && c.text("reason") == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }

    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (at, container) in pod.list("status.initContainerStatuses").iter().enumerate() {
        let sidecar = sidecars.contains(&container.text("name"));
        restarts.add(container);
        if sidecar {
            sidecar_restarts.add(container);
        }
        let terminated = container.at("state.terminated");
        if !terminated.is_null() && terminated.int("exitCode") == 0 {
            continue;
        }
        if sidecar && container.flag("started") {
            ready += usize::from(container.flag("ready"));
            continue;
        }
        let waiting = container.text("state.waiting.reason");
        reason = if !terminated.is_null() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{at}/{}", pod.list("spec.initContainers").len())
        };
        initializing = true;
        break;
    }

    if !initializing || is_true(conditions, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        let mut failure = String::new();
        for container in pod.list("status.containerStatuses").iter().rev() {
            restarts.add(container);
            let terminated = container.at("state.terminated");
            let waiting = container.text("state.waiting.reason");
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if !terminated.is_null() {
                reason = ended(terminated);
                if terminated.int("exitCode") != 0 {
                    failure = reason.clone();
                }
            } else if container.flag("ready") && container.has("state.running") {
                running = true;
                ready += 1;
            }
        }
        // One container has completed; what the others do says more.
        if reason == "Completed" {
            if running && is_true(conditions, "Ready") {
                reason = "Running".to_owned();
            } else if !failure.is_empty() {
                reason = failure;
            } else if running {
                reason = "NotReady".to_owned();
            }
        }
    }

    if pod.has("metadata.deletionTimestamp") {
        if pod.text("status.reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
    }

    vec![
        table::name(pod),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.print(now).into(),
        table::age(pod, now),
        table::or(pod.list("status.podIPs").first().map_or("", |ip| ip.text("ip")), "<none>").into(),
        table::or(pod.text("spec.nodeName"), "<none>").into(),
        table::or(pod.text("status.nominatedNodeName"), "<none>").into(),
        readiness_gates(pod).into(),
    ]
}

/// What the row says of a pod that is through.
pub fn row_conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match pod.text("status.phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

fn ended(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.int("signal")) {
        ("", 0) => format!("ExitCode:{}", terminated.int("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list("spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates.iter().filter(|gate| is_true(pod.list("status.conditions"), gate.text("conditionType"))).count();
    format!("{met}/{}", gates.len())
}

/// An init container that goes on running beside the others.
pub fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn is_true(conditions: &[Value], type_: &str) -> bool {
    conditions.iter().find(|c| c.text("type") == type_).is_some_and(|c| c.text("status") == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pod: Value, want: &str) {
        let cells = row(&pod, "2030-01-01T00:10:00Z".parse().unwrap());
        let texts: Vec<&str> = cells[1..4].iter().map(|c| c.as_str().unwrap()).collect();
        assert_eq!(texts.join(" | "), want);
    }

    #[test]
    fn one_word_for_every_state() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let with = |status: Value| json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        check(with(json!({"phase": "Pending"})), "0/1 | Pending | 0");
        check(
            with(
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
            ),
            "0/1 | Init:0/2 | 0",
        );
        check(
            with(
                json!({"phase": "Failed", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
            ),
            "0/1 | Init:ExitCode:3 | 0",
        );
        check(
            with(json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3,
                "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2030-01-01T00:05:00Z"}}}]})),
            "1/1 | Running | 3 (5m ago)",
        );
        check(
            with(
                json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            ),
            "0/1 | CrashLoopBackOff | 1",
        );
        let mut going = with(json!({"phase": "Running"}));
        going["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        check(going, "0/1 | Terminating | 0");
    }
}
