//! Measures the built binary and prints a table; `--write` puts it into `docs/benchmarks.md`. Loads loopback addresses
//! only, with a fixed number of requests. Run by `cargo xtask bench`.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use testkit::Server;
use testkit::command::{RUN_LIMIT, kemudi, run, workspace};
use testkit::load::{Report, load};
use testkit::server::request;

const STARTS: usize = 21;
const PODS_STARTED: usize = 51;
const CREATES_ONE_CLIENT: usize = 2_000;
const CREATES_MANY_CLIENTS: usize = 20_000;
const MANY_CLIENTS: usize = 64;
const PODS_LISTED: usize = 10_000;
const LISTS: usize = 5;

/// How long a server is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(2);

/// The argument with which this program is the process of a pod: it prints the time it began.
const STAMP: &str = "--stamp";

fn main() -> ExitCode {
    let begin = now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [STAMP] => println!("{begin}"),
        [] => drop(measure()),
        ["--write"] => write(&measure()),
        _ => {
            eprintln!("usage: bench [--write]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// One line of the table.
struct Row {
    what: &'static str,
    goal: &'static str,
    here: String,
    /// What kube-apiserver with etcd did on a machine of the same kind, for scale.
    there: &'static str,
}

fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what, goal, here: String, there| {
        println!("{what:<52} {here:<34} goal {goal:<10} kube-apiserver {there}");
        rows.push(Row { what, goal, here, there });
    };
    add(
        "start to first authenticated 200, memory store",
        "40 ms",
        times(start_times(&["--store", "memory://"])),
        "900 to 1,600 ms",
    );
    add("start to first authenticated 200, new disk store", "", times(start_times(&[])), "");
    add("`kemudi run -- true`, cold", "60 ms", times(run_times()), "");
    add("pod create to its process running", "10 ms", times(pod_times()), "");
    add("resident memory, idle", "25 MB", idle_memory(), "320 MB");
    for (store, one, many) in [
        ("memory", "ConfigMap creates, 1 client, memory store", "ConfigMap creates, 64 clients, memory store"),
        ("disk", "ConfigMap creates, 1 client, disk store", "ConfigMap creates, 64 clients, disk store"),
    ] {
        let (first, second) = creates(store);
        let disk = store == "disk";
        add(one, "", rate(&first), if disk { "600 to 950/s" } else { "" });
        add(many, "", rate(&second), if disk { "2,300 to 3,400/s" } else { "" });
    }
    let (list, memory) = big_list();
    add("list of 10,000 pods", "", list, "0.6 s (59 MB)");
    add("resident memory with 10,000 pods, after lists", "", memory, "860 MB and 107 MB");
    rows
}

fn start_times(args: &[&str]) -> Vec<Duration> {
    let one = |_| {
        let begin = Instant::now();
        let server = Server::start(args);
        server.check("admin", "GET /api/v1/namespaces/default", "200 Namespace default");
        begin.elapsed()
    };
    (0..STARTS).map(one).collect()
}

fn run_times() -> Vec<Duration> {
    let one = |_| {
        let begin = Instant::now();
        run(Command::new(kemudi()).args(["run", "--", "true"]), "", RUN_LIMIT).ok();
        begin.elapsed()
    };
    (0..STARTS).map(one).collect()
}

/// From just before the create is sent to the first instruction of the pod's own program.
fn pod_times() -> Vec<Duration> {
    let server = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    let own = std::env::current_exe().expect("a program knows itself");
    let one = |i| {
        let name = format!("stamp-{i}");
        let containers = json!([{"name": "c", "image": "host", "command": [own, STAMP]}]);
        let pod = json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": containers}});
        let begin = now();
        server.json("admin", &format!("POST /api/v1/namespaces/default/pods {pod}"));
        let log = server.logs_when(&name, "Succeeded");
        let end: u128 = log.trim().parse().unwrap_or_else(|e| panic!("{log:?}: {e}"));
        Duration::from_nanos(u64::try_from(end.saturating_sub(begin)).expect("less than centuries"))
    };
    (0..PODS_STARTED).map(one).collect()
}

fn idle_memory() -> String {
    let server = Server::start(&["--store", "memory://"]);
    server.check("admin", "GET /readyz", "200 ok");
    std::thread::park_timeout(IDLE);
    megabytes(resident(server.pid()))
}

fn creates(store: &str) -> (Report, Report) {
    let server = match store {
        "memory" => Server::start(&["--node", "none", "--store", "memory://"]),
        _ => Server::start(&["--node", "none"]),
    };
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}, "data": {"key": "v".repeat(1000)}});
    let create = request("admin", &format!("POST /api/v1/namespaces/default/configmaps {body}"));
    let go = |clients, count| load(&server.endpoint, clients, count, |_| create.clone(), |_, _| {});
    (go(1, CREATES_ONE_CLIENT), go(MANY_CLIENTS, CREATES_MANY_CLIENTS))
}

fn big_list() -> (String, String) {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let made = load(
        &server.endpoint,
        16,
        PODS_LISTED,
        |i| request("admin", &format!("POST /api/v1/namespaces/default/pods {}", pod(i))),
        |_, _| {},
    );
    assert_eq!(made.good, PODS_LISTED, "not all pods were made: {} refused", made.refused);
    let mut connection = server.endpoint.connect(RUN_LIMIT).expect("it listens");
    let mut bytes = 0;
    let one = |_| {
        let begin = Instant::now();
        connection.write(&request("admin", "GET /api/v1/namespaces/default/pods").encode()).expect("it reads");
        let head = connection.head().expect("an answer");
        assert_eq!(head.status, 200);
        bytes = read_away(connection.body(&head, false));
        begin.elapsed()
    };
    let list = times((0..LISTS).map(one).collect());
    (format!("{list}, {} MB", bytes / 1_000_000), megabytes(resident(server.pid())))
}

/// A pod as big as those of real clusters.
fn pod(i: usize) -> serde_json::Value {
    let env: Vec<_> =
        (0..8).map(|k| json!({"name": format!("VAR_{k}"), "value": format!("value-{k}-of-the-environment")})).collect();
    let container = |name| {
        json!({
            "name": name, "image": "registry.example/team/app:1.2.3", "env": env,
            "ports": [{"containerPort": 8080, "name": "http"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "load-",
            "labels": {"app": format!("app-{}", i % 50), "tier": "backend", "pod-template-hash": "5d8f7c9b6d"},
            "annotations": {"example.com/checksum": "a".repeat(64)},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [container("app"), container("sidecar")],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

/// Reads a body to its end without keeping it; gives its size in bytes.
fn read_away(mut body: impl Read) -> usize {
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match body.read(&mut buffer).expect("a whole answer") {
            0 => return bytes,
            n => bytes += n,
        }
    }
}

/// The resident memory of a process and its descendants in bytes.
fn resident(pid: u32) -> u64 {
    let kilobytes = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let children = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let children = children.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: Vec<u32> =
        children.flat_map(|c| c.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect();
    kilobytes(pid) * 1024 + children.into_iter().map(resident).sum::<u64>()
}

fn times(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    format!("{:.1} ms (p95 {:.1} ms)", ms(0.5), ms(0.95))
}

fn rate(report: &Report) -> String {
    assert_eq!((report.refused, report.broken), (0, 0), "a load that fails measures nothing");
    format!("{:.0}/s (p99 {:.1} ms)", report.per_second(), report.quantile(0.99).as_secs_f64() * 1000.0)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Nanoseconds since 1970: the one clock that a pod shares with its host.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}

fn write(rows: &[Row]) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "# Benchmarks

`cargo xtask bench --write` measured this, on {cores} cores of {model}, the load generator on the same cores.
The last column is kube-apiserver 1.37.2 with etcd on a machine of the same kind, for scale: machines differ, so read it as
a ratio. Times are medians; a create is a durable one on the disk store.

| what | goal | here | kube-apiserver |
| --- | --- | --- | --- |
"
    );
    for Row { what, goal, here, there } in rows {
        let _ = writeln!(text, "| {what} | {goal} | {here} | {there} |");
    }
    let path: &Path = &workspace().join("docs/benchmarks.md");
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    println!("written to docs/benchmarks.md");
}
