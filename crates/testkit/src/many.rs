//! Many pods on one server, and what they cost and leave: at once, one after another, and while the server is killed. Counts; the
//! figures of `docs/benchmarks.md` under "Pods" are its.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Server;
use crate::leftovers::Leftovers;

/// How long any one step may take for each pod of it, and at least.
const STEP_LIMIT: Duration = Duration::from_secs(1);
const LEAST_LIMIT: Duration = Duration::from_secs(60);
/// How long the last of it may take to go.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const PODS: &str = "/api/v1/namespaces/default/pods";

/// How many.
#[derive(Clone, Copy, Debug)]
pub struct Many {
    /// Pods that run at the same time.
    pub at_once: usize,
    /// Pods that are made and deleted one after another.
    pub lives: usize,
    /// Times that the server is killed while pods run.
    pub kills: usize,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// From the first pod's creation until the last ran.
    pub all_running: Duration,
    /// The server's memory for each of them, the agent's with it, in KiB.
    pub kib_per_pod: u64,
    /// Until the last of them was gone.
    pub all_gone: Duration,
    /// From the creation of a pod until it was seen to have ended, and until it was gone: in order of length.
    pub ended: Vec<Duration>,
    pub gone: Vec<Duration>,
    /// What was not as it should be after the server was killed.
    pub untrue: Vec<String>,
    pub before: Leftovers,
    pub after: Leftovers,
}

impl Found {
    /// Whether nothing is left and every status was true.
    pub fn is_clean(&self) -> bool {
        self.before == self.after && self.untrue.is_empty()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |times: &[Duration], share: f64| {
            times.get((times.len().saturating_sub(1) as f64 * share).round() as usize).copied().unwrap_or_default()
        };
        writeln!(
            f,
            "all running after {:?}, {} KiB each, all gone after {:?}",
            self.all_running, self.kib_per_pod, self.all_gone
        )?;
        for (what, times) in [("ended", &self.ended), ("gone", &self.gone)] {
            writeln!(
                f,
                "created to {what}: p50 {:?}, p99 {:?}, most {:?}",
                at(times, 0.5),
                at(times, 0.99),
                at(times, 1.0)
            )?;
        }
        writeln!(f, "left over: {} (before: {})", self.after, self.before)?;
        self.untrue.iter().try_for_each(|what| writeln!(f, "not true after a kill: {what}"))
    }
}

/// Makes the pods and counts. Panics where a step takes too long.
#[track_caller]
pub fn run(many: &Many) -> Found {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pods = folder.path().join("data/node/pods");
    let mark = format!("MANY_PODS={}", folder.path().display());
    let mut server = Server::start_in(folder.path(), &["--node", "sandbox"]);
    let node =
        server.until("GET /api/v1/nodes", LEAST_LIMIT, |_, nodes| nodes["items"][0]["metadata"]["name"].is_string());
    let node = node["items"][0]["metadata"]["name"].as_str().expect("a name").to_string();
    // The first pod makes what all of them share.
    life(&server, &node, &mark, "first");
    let mut found = Found { before: Leftovers::of(&mark, &pods), ..Found::default() };

    let limit = LEAST_LIMIT.max(STEP_LIMIT * u32::try_from(many.at_once).unwrap_or(u32::MAX));
    let memory = resident(&server);
    let began = Instant::now();
    (0..many.at_once).for_each(|number| create(&server, &node, &mark, &format!("many-{number}"), "exec sleep 100000"));
    count(&server, limit, |pods| all(pods, "Running") == many.at_once);
    found.all_running = began.elapsed();
    found.kib_per_pod = resident(&server).saturating_sub(memory) / (many.at_once.max(1) as u64);
    let began = Instant::now();
    server.json("admin", &format!(r#"DELETE {PODS} {{"gracePeriodSeconds":0}}"#));
    count(&server, limit, |pods| pods.is_empty());
    found.all_gone = began.elapsed();

    for number in 0..many.lives {
        let (ended, gone) = life(&server, &node, &mark, &format!("life-{number}"));
        found.ended.push(ended);
        found.gone.push(gone);
    }
    found.ended.sort();
    found.gone.sort();

    // A kill comes at another point of the lives each time.
    for number in 0..many.kills {
        let names = ["runs", "ends", "starts"].map(|what| format!("{what}-{number}"));
        create(&server, &node, &mark, &names[0], "exec sleep 100000");
        create(&server, &node, &mark, &names[1], "exit 5");
        if number % 3 > 0 {
            server
                .until(&format!("GET {PODS}/{}", names[0]), LEAST_LIMIT, |_, pod| pod["status"]["phase"] == "Running");
        }
        let before = server.json("admin", &format!("GET {PODS}/{}", names[0]));
        create(&server, &node, &mark, &names[2], "exec sleep 100000");
        if number % 3 == 2 {
            delete(&server, &format!("{PODS}/{}", names[0]));
        }
        server.kill();
        server = Server::start_in(folder.path(), &["--node", "sandbox"]);
        let read = |name: &str, want: &str| {
            server.until(&format!("GET {PODS}/{name}"), LEAST_LIMIT, |status, pod| {
                status == 404 || pod["status"]["phase"] == want
            })
        };
        let ended = read(&names[1], "Failed");
        let code = &ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
        // Killed before a word of its start was written down, it was started again, and says so.
        if *code != 5 {
            found.untrue.push(format!("{}: exit code {code}", names[1]));
        }
        read(&names[2], "Running");
        if number % 3 == 2 {
            server.until(&format!("GET {PODS}/{}", names[0]), LEAST_LIMIT, |status, _| status == 404);
        } else {
            let after = read(&names[0], "Running");
            let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
            if number % 3 == 1 && id(&before) != id(&after) {
                found.untrue.push(format!("{}: another container than before", names[0]));
            }
        }
        server.json("admin", &format!(r#"DELETE {PODS} {{"gracePeriodSeconds":0}}"#));
        count(&server, LEAST_LIMIT, |pods| pods.is_empty());
    }
    found.after = Leftovers::settled(&found.before, &mark, &pods, SETTLE_LIMIT);
    found
}

/// A pod that ends at once: how long until that was seen, and until it was gone.
fn life(server: &Server, node: &str, mark: &str, name: &str) -> (Duration, Duration) {
    let began = Instant::now();
    create(server, node, mark, name, "exit 0");
    let path = format!("{PODS}/{name}");
    server.until(&format!("GET {path}"), LEAST_LIMIT, |_, pod| pod["status"]["phase"] == "Succeeded");
    let ended = began.elapsed();
    delete(server, &path);
    server.until(&format!("GET {path}"), LEAST_LIMIT, |status, _| status == 404);
    (ended, began.elapsed())
}

/// Deletes a pod. Its node may be as fast as the server, which then finds it gone.
#[track_caller]
fn delete(server: &Server, path: &str) {
    let answer = server.ask("admin", &format!(r#"DELETE {path} {{"gracePeriodSeconds":0}}"#));
    assert!(matches!(answer.head.status, 200 | 404), "{path}: {}", String::from_utf8_lossy(&answer.body));
}

fn create(server: &Server, node: &str, mark: &str, name: &str, script: &str) {
    let (key, value) = mark.split_once('=').expect("KEY=VALUE");
    let container = json!({"name": "main", "image": "host", "command": ["sh", "-c", script], "env": [{"name": key, "value": value}]});
    let spec = json!({"nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    server.json("admin", &format!("POST {PODS} {pod}"));
}

#[track_caller]
fn count(server: &Server, limit: Duration, holds: impl Fn(&[Value]) -> bool) {
    let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
    server.until(&format!("GET {PODS}"), limit, |status, list| status == 200 && holds(&items(list)));
}

fn all(pods: &[Value], phase: &str) -> usize {
    pods.iter().filter(|pod| pod["status"]["phase"] == phase).count()
}

/// The memory of the server's process, in KiB.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
