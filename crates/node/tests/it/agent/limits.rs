//! Limits of what pods use, where this machine has control groups for them: containers and pods that want more, changes while
//! they run, and what is left.

use super::{Bed, condition, shell, with};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whether pods of these tests are held to limits: as root on a machine that has the controllers.
pub fn enforced() -> bool {
    rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| {
            let one = ["memory", "cpu", "pids"].iter().all(|it| text.contains(&format!(":{it}:")));
            let two = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
            one || ["memory", "cpu", "pids"].iter().all(|it| two.split_whitespace().any(|word| word == *it))
        })
}

fn skipped() -> bool {
    let skipped = !enforced();
    if skipped {
        eprintln!("skipped: this user has no cgroups with memory, cpu and pids here");
    }
    skipped
}

fn limited(script: &str, resources: Value) -> Value {
    with(shell("main", script), json!({"resources": resources}))
}

/// All groups of agents that there are, wherever they are.
fn groups() -> Vec<PathBuf> {
    fn look(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with("pod-") {
                    found.push(entry.path());
                }
                look(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    look(Path::new("/sys/fs/cgroup"), &mut found);
    found
}

fn groups_of(pod: &Value) -> Vec<PathBuf> {
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    groups().into_iter().filter(|path| path.ends_with(format!("pod-{uid}"))).collect()
}

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a log has a text, and gives it.
pub async fn logged(bed: &Bed, path: &str, text: &str) -> String {
    let began = Instant::now();
    loop {
        let log = bed.log(path).await;
        if log.contains(text) {
            return log;
        }
        assert!(began.elapsed() < PATIENCE, "{path} never had {text:?}: {log}");
        tokio::task::yield_now().await;
    }
}

/// Waits until a pod has no groups any more.
async fn cleared(pod: &Value) {
    let began = Instant::now();
    while !groups_of(pod).is_empty() {
        assert!(began.elapsed() < PATIENCE, "left over: {:?}", groups_of(pod));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_memory_eater_is_ended_and_nobody_else() {
    if skipped() {
        return;
    }
    let bed = Bed::new();
    let eat = "python3 -c 'x = bytes(1) * (200 << 20); print(len(x))'";
    bed.pod(
        "eater",
        json!({"restartPolicy": "Never", "containers": [
            limited(&format!("exec {eat}"), json!({"limits": {"memory": "32Mi"}})),
            shell("beside", "sleep 1000"),
        ]}),
    );
    let ended = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object();
    let pod = bed.until("eater", "ended", ended).await;
    let statuses = &pod["status"]["containerStatuses"];
    let terminated = &statuses[0]["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(137), &json!("OOMKilled")));
    assert!(statuses[1]["state"]["running"].is_object());
    // A signal alone is not taken for it.
    bed.pod(
        "killed",
        json!({"restartPolicy": "Never", "containers": [limited("kill -9 $$", json!({"limits": {"memory": "32Mi"}}))]}),
    );
    let pod = bed.phase("killed", "Failed").await;
    let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    // The first process of a namespace cannot end itself so: the shell goes on and ends well, or is ended from outside.
    assert_ne!(terminated["reason"], "OOMKilled");
}

#[tokio::test]
async fn a_fork_bomb_stops_itself() {
    if skipped() {
        return;
    }
    let bed = Bed::new();
    // Counts how many it can have; each of them sleeps. Four thousand interpreters take about a gigabyte: memory is not to end them first.
    let bomb = "import os, time\nn = 0\nwhile True:\n  try:\n    pid = os.fork()\n  except OSError:\n    break\n  if pid == 0:\n    time.sleep(1000)\n  n += 1\nprint('contained', n, flush=True)\ntime.sleep(1000)";
    bed.pod("bomb", json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [
        {"name": "main", "command": ["/usr/bin/env", "python3", "-c", bomb], "resources": {"limits": {"memory": "4Gi"}}}]}));
    let pod = bed.phase("bomb", "Running").await;
    let log = logged(&bed, "bomb/main", "contained").await;
    let count: u64 = log.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((1000..4096).contains(&count), "{log}");
    // The machine goes on, and so do other pods.
    assert_eq!(
        bed.run("other", json!({"restartPolicy": "Never", "containers": [shell("main", "echo fine")]})).await,
        "fine\n"
    );
    bed.api.delete_pod("shop", "bomb", 0);
    bed.gone("bomb").await;
    cleared(&pod).await;
}

#[tokio::test]
async fn limits_show_inside_and_go_with_the_pod() {
    if skipped() {
        return;
    }
    let bed = Bed::new();
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null
        cat cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 cpu.max; ls -d pids/cgroup.procs cgroup.procs 2>/dev/null
        sort -u -t: -k3 /proc/self/cgroup | grep -c 'kemudi'; cat /proc/self/oom_score_adj
        (echo 1 > memory/memory.limit_in_bytes || echo 1 > memory.max) 2>/dev/null || echo read-only; sleep 1000";
    let resources = json!({"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"memory": "32Mi", "cpu": "250m"}});
    bed.pod("held", json!({"terminationGracePeriodSeconds": 0, "containers": [limited(script, resources.clone())]}));
    let pod = bed.phase("held", "Running").await;
    let log = logged(&bed, "held/main", "read-only\n").await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3]), ("67108864", "50000", "0"), "{log}");
    let score: i32 = lines[4].parse().unwrap();
    assert!((900..1000).contains(&score), "{log}");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!((&status["resources"], &status["allocatedResources"]), (&resources, &resources["requests"]));
    assert!(!groups_of(&pod).is_empty());
    bed.api.delete_pod("shop", "held", 0);
    bed.gone("held").await;
    cleared(&pod).await;
}

#[tokio::test]
async fn what_others_have_is_waited_for() {
    if skipped() {
        return;
    }
    let bed = Bed::new();
    let thousandths = std::thread::available_parallelism().unwrap().get() * 1000;
    let cpu = |milli: usize| json!({"limits": {"cpu": format!("{milli}m")}, "requests": {"cpu": format!("{milli}m")}});
    let others = thousandths - 300;
    for (name, milli) in [("other", others), ("waits", 100)] {
        let container = limited("exec sleep 1000", cpu(milli));
        bed.pod(name, json!({"terminationGracePeriodSeconds": 0, "containers": [container]}));
        bed.phase(name, "Running").await;
    }
    let mut pod = bed.api.get("pods", "shop", "waits").unwrap();
    pod["spec"]["containers"][0]["resources"] = cpu(500);
    pod["metadata"]["generation"] = 2.into();
    bed.api.put("pods", pod);
    let pending = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().unwrap();
        all.iter().any(|it| it["type"] == "PodResizePending")
    };
    let pod = bed.until("waits", "pending", pending).await;
    let told = condition(&pod, "PodResizePending");
    let message =
        format!("Node didn't have enough resource: cpu, requested: 500, used: {others}, capacity: {thousandths}");
    assert_eq!(
        (&told["status"], &told["reason"], &told["message"]),
        (&json!("True"), &json!("Deferred"), &json!(message))
    );
    assert_eq!(pod["status"]["containerStatuses"][0]["resources"], cpu(100));
    // It goes on by itself when there is room.
    bed.api.delete_pod("shop", "other", 0);
    let grown = |pod: &Value| !pending(pod) && pod["status"]["containerStatuses"][0]["resources"] == cpu(500);
    bed.until("waits", "grown", grown).await;
    bed.api
        .until("events", |_| {
            let events = bed.events("waits");
            ["ResizeDeferred", "ResizeStarted", "ResizeCompleted"]
                .iter()
                .all(|reason| events.iter().filter(|it| it == reason).count() == 1)
                .then_some(())
        })
        .await;
}

#[tokio::test]
async fn resources_change_in_place() {
    if skipped() {
        return;
    }
    let bed = Bed::new();
    let script = "while :; do cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; sleep 0.02; done";
    let resources = |memory: &str, cpu: &str| json!({"limits": {"memory": memory, "cpu": cpu}, "requests": {"memory": memory, "cpu": cpu}});
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let container = with(limited(script, resources("64Mi", "100m")), json!({"resizePolicy": policy}));
    bed.pod("grown", json!({"terminationGracePeriodSeconds": 0, "containers": [container]}));
    bed.phase("grown", "Running").await;
    let change = |resources: Value| {
        let mut pod = bed.api.get("pods", "shop", "grown").unwrap();
        pod["spec"]["containers"][0]["resources"] = resources;
        pod["metadata"]["generation"] = (pod["metadata"]["generation"].as_u64().unwrap() + 1).into();
        bed.api.put("pods", pod);
    };
    let has = |resources: Value| move |pod: &Value| pod["status"]["containerStatuses"][0]["resources"] == resources;
    change(resources("128Mi", "100m"));
    let pod = bed.until("grown", "more memory", has(resources("128Mi", "100m"))).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    logged(&bed, "grown/main?tailLines=1", "134217728").await;
    // More than the machine has: what it has already stays.
    change(resources("128Mi", "1000"));
    let pending = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().unwrap();
        all.iter().any(|it| it["type"] == "PodResizePending")
    };
    let pod = bed.until("grown", "pending", pending).await;
    let told = condition(&pod, "PodResizePending");
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("Infeasible")));
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("Node didn't have enough capacity: cpu, requested: 1000000, capacity: "), "{message}");
    assert!(has(resources("128Mi", "100m"))(&pod));
    // Its policy wants a new start for another part of the processors.
    change(resources("128Mi", "200m"));
    let pod = bed.until("grown", "more time", has(resources("128Mi", "200m"))).await;
    let restarted = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["state"]["running"].is_object() && !pending(pod)
    };
    drop(pod);
    bed.until("grown", "started anew", restarted).await;
    bed.api
        .until("events", |_| {
            let events = bed.events("grown");
            let count = |reason: &str| events.iter().filter(|it| *it == reason).count();
            (count("ResizeStarted") == 2 && count("ResizeCompleted") == 2 && count("ResizeInfeasible") == 1)
                .then_some(())
        })
        .await;
}
