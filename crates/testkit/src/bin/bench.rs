//! Measures the built binary and prints a table; `--write` puts it into `docs/benchmarks.md`. Loads loopback addresses
//! only, with a fixed number of requests. Run by `cargo xtask bench`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::Server;
use testkit::command::{RUN_LIMIT, kemudi, run, workspace};
use testkit::load::{self, FanOut, Report};
use testkit::many::{self, Many};
use testkit::server::{ADMIN_TOKEN, request};
use testkit::speed::{self, STAMP};
use testkit::wire::{Endpoint, Request};

const STARTS: usize = 21;
const PODS_STARTED: usize = 51;
const CREATES_ONE_CLIENT: usize = 2_000;
const CREATES_MANY_CLIENTS: usize = 20_000;
const MANY_CLIENTS: usize = 64;
const CLIENTS: usize = 16;
const PODS: usize = 10_000;
const GETS: usize = 20_000;
const LISTS: usize = 10;
const FEW_WATCHERS: usize = 1_000;
const MANY_WATCHERS: usize = 10_000;

/// Of pods: how many are measured of each sort, and how large a server's heap is made.
const PODS_MEASURED: usize = 200;
const COMMANDS: usize = 200;
const BURSTS: usize = 5;
const BURST_PODS: usize = 100;
const IMAGE_PODS: usize = 21;
const HEAP_BYTES: usize = 1 << 30;
const AT_ONCE: usize = 500;
const LIVES: usize = 200;

/// Between two looks at what is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// How long a server is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(2);

/// What `/proc` counts CPU time in, whatever the kernel ticks in.
const TICKS_A_SECOND: f64 = 100.0;

fn main() -> ExitCode {
    let begin = speed::now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [STAMP] => println!("{begin}"),
        [] => drop(measure(true)),
        ["--load"] => drop(measure(false)),
        ["--watch"] => {
            let server = loaded_server();
            for count in [FEW_WATCHERS, MANY_WATCHERS] {
                println!("{count} watchers: {}", watchers(&server, count));
            }
        }
        ["--creates"] => {
            let server = loaded_server();
            measure_creates(&Target::of(&server));
        }
        ["--creates", "--at", url, ca, token, ref pids @ ..] if !pids.is_empty() => {
            let target =
                Target::elsewhere(url, Path::new(ca), token, pids).expect("a server, its authority, its processes");
            target.make_namespace();
            measure_creates(&target);
        }
        ["--write"] => write(&measure(true)),
        ["--pods"] => drop(measure_pods()),
        ["--pods", "--write"] => write_pods(&measure_pods()),
        _ => {
            eprintln!(
                "usage: bench [--write | --load | --creates | --watch | --pods [--write]]\n       \
                 bench --creates --at URL CA-FILE TOKEN PID..    the same load on another server, which these processes are"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// One line of the table.
struct Row {
    what: String,
    goal: &'static str,
    here: String,
    /// What kube-apiserver with etcd did on a machine of the same kind, for scale.
    there: &'static str,
}

/// What was measured, printed as it comes.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, what: impl Into<String>, goal: &'static str, here: String, there: &'static str) {
        let what = what.into();
        println!("{what:<52} {here:<48} goal {goal:<10} kube-apiserver {there}");
        self.0.push(Row { what, goal, here, there });
    }
}

/// All there is to measure, or only the load on a disk store.
fn measure(all: bool) -> Vec<Row> {
    let mut rows = Rows::default();
    if all {
        measure_starts(&mut rows);
    }
    measure_load(&mut rows);
    rows.0
}

fn measure_starts(rows: &mut Rows) {
    let memory = start_times(&["--store", "memory://"]);
    rows.add("start to first authenticated 200, memory store", "40 ms", times(memory), "900 to 1,600 ms");
    rows.add("start to first authenticated 200, new disk store", "", times(start_times(&[])), "");
    rows.add("`kemudi run -- true`, cold", "60 ms", times(run_times()), "");
    rows.add("pod create to its process running", "10 ms", times(pod_times()), "");
    rows.add("resident memory, idle", "25 MB", idle_memory(), "320 MB");
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let target = Target::of(&server);
    rows.add("ConfigMap creates, 1 client, memory store", "", creates(&target, 1).to_string(), "");
    rows.add("ConfigMap creates, 64 clients, memory store", "", creates(&target, MANY_CLIENTS).to_string(), "");
}

/// The load that the comparison with kube-apiserver uses: one server's life on a disk, in this order.
fn measure_load(rows: &mut Rows) {
    let server = loaded_server();
    let target = Target::of(&server);
    let pods = "/api/v1/namespaces/bench/pods";
    let made = pod_creates(&target);
    rows.add("create 10,000 pods, 16 clients", "10 x", made.to_string(), "800 to 1,000/s, 1.9 to 2.3 ms of CPU");
    rows.add("resident memory with 10,000 pods", "1/8", megabytes(resident(server.pid())), "966 MB");
    let all = reads(&server, &as_admin(&format!("GET {pods}")));
    rows.add("list of 10,000 pods, 1 client", "1/20", all.to_string(), "600 ms, 690 ms of CPU, 59 MB");
    rows.add("resident memory after ten lists", "1/8, flat", megabytes(resident(server.pid())), "1,079 MB");
    let none = reads(&server, &as_admin(&format!("GET {pods}?labelSelector=app%3Dnothing")));
    rows.add("list with a label selector that selects none", "1/10", none.to_string(), "15 ms");
    let gets = |request: Request| work(&target, CLIENTS, GETS, &request).to_string();
    let reader = reader_of(&server);
    let get = "GET /api/v1/namespaces/bench/configmaps/small";
    rows.add("GET as an administrator, 16 clients", "", gets(as_admin(get)), "4,070/s");
    rows.add(
        "GET as a service account with a role, 16 clients",
        "8 x",
        gets(from_outside(&reader, get)),
        "3,700 to 5,500/s",
    );
    rows.add("ConfigMap creates, 1 client", "3 x", creates(&target, 1).to_string(), "620 to 960/s");
    rows.add("ConfigMap creates, 64 clients", "10 x", creates(&target, MANY_CLIENTS).to_string(), "2,300 to 3,400/s");
    rows.add("lag of a change, 1,000 watchers", "1/4, p99", watchers(&server, FEW_WATCHERS), "p99 19 ms");
    rows.add("lag of a change, 10,000 watchers", "1/4, p99", watchers(&server, MANY_WATCHERS), "p99 424 to 466 ms");
}

/// A server on a disk, with the namespace that is loaded, in which pods can be made.
fn loaded_server() -> Server {
    let server = Server::start(&["--node", "none"]);
    server.json("admin", &format!("POST /api/v1/namespaces {}", json!({"metadata": {"name": "bench"}})));
    let account = "GET /api/v1/namespaces/bench/serviceaccounts/default";
    wait_until("the namespace does not get its account", || server.ask("admin", account).head.status == 200);
    server
}

/// What is loaded: a server, whom its requests are from, and the processes whose time counts.
struct Target {
    endpoint: Endpoint,
    token: String,
    pids: Vec<u32>,
}

impl Target {
    fn of(server: &Server) -> Target {
        Target { endpoint: server.endpoint.clone(), token: ADMIN_TOKEN.to_owned(), pids: vec![server.pid()] }
    }

    fn elsewhere(url: &str, ca: &Path, token: &str, pids: &[&str]) -> std::io::Result<Target> {
        let pids = pids.iter().map(|pid| pid.parse().map_err(std::io::Error::other)).collect::<Result<_, _>>()?;
        Ok(Target { endpoint: Endpoint::new(url, ca)?, token: token.to_owned(), pids })
    }

    /// The namespace that is loaded, with its account: the server may have no controllers.
    fn make_namespace(&self) {
        for (path, name) in [("namespaces", "bench"), ("namespaces/bench/serviceaccounts", "default")] {
            let body = json!({"metadata": {"name": name}});
            let one = self.admin(&format!("POST /api/v1/{path} {body}"));
            // What is there already is as good.
            load::repeat(&self.endpoint, 1, 1, &one).expect("a server that answers");
        }
    }

    fn admin(&self, ask: &str) -> Request {
        from_outside(&self.token, ask)
    }

    fn cpu_time(&self) -> Duration {
        self.pids.iter().map(|pid| cpu_time(*pid)).sum()
    }
}

fn measure_creates(target: &Target) {
    println!("pods, {CLIENTS} clients: {}", pod_creates(target));
    println!("ConfigMaps, 1 client: {}", creates(target, 1));
    println!("ConfigMaps, {MANY_CLIENTS} clients: {}", creates(target, MANY_CLIENTS));
}

/// Looks again and again, for a while.
fn wait_until(otherwise: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < RUN_LIMIT, "{otherwise}");
        std::thread::park_timeout(LOOK_PAUSE);
    }
}

/// What a load did, and what it cost the server.
struct Work {
    report: Report,
    cpu: Duration,
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Work { report, cpu } = self;
        let cpu_us = cpu.as_secs_f64() * 1e6 / report.good as f64;
        let p99_ms = report.quantile(0.99).as_secs_f64() * 1000.0;
        write!(f, "{:.0}/s, {cpu_us:.0} us of CPU each (p99 {p99_ms:.1} ms)", report.per_second())
    }
}

/// A request again and again, each of which must succeed.
fn work(target: &Target, clients: usize, count: usize, request: &Request) -> Work {
    let before = target.cpu_time();
    let report = load::repeat(&target.endpoint, clients, count, request).expect("a server that stays");
    assert_eq!(report.refused, 0, "a load that fails measures nothing");
    Work { report, cpu: target.cpu_time() - before }
}

/// Reads of one client, each on a new connection, without the time to connect.
struct Reads {
    times: Vec<Duration>,
    cpu: Duration,
}

impl std::fmt::Display for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu_ms = self.cpu.as_secs_f64() * 1000.0 / self.times.len() as f64;
        write!(f, "{}, {cpu_ms:.1} ms of CPU", times(self.times.clone()))
    }
}

fn reads(server: &Server, request: &Request) -> Reads {
    let before = cpu_time(server.pid());
    let one = |_| load::repeat(&server.endpoint, 1, 1, request).expect("a server that stays").took;
    let times = (0..LISTS).map(one).collect();
    Reads { times, cpu: cpu_time(server.pid()) - before }
}

fn pod_creates(target: &Target) -> Work {
    work(target, CLIENTS, PODS, &target.admin(&format!("POST /api/v1/namespaces/bench/pods {}", pod())))
}

fn creates(target: &Target, clients: usize) -> Work {
    let count = if clients == 1 { CREATES_ONE_CLIENT } else { CREATES_MANY_CLIENTS };
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}, "data": {"key": "v".repeat(1000)}});
    work(target, clients, count, &target.admin(&format!("POST /api/v1/namespaces/default/configmaps {body}")))
}

/// A service account's token that reads ConfigMaps by a role, and a small one to read.
fn reader_of(server: &Server) -> String {
    let make = |path: &str, body: serde_json::Value| server.json("admin", &format!("POST {path} {body}"));
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/bench";
    make("/api/v1/namespaces/bench/configmaps", json!({"metadata": {"name": "small"}, "data": {"a": "b"}}));
    make("/api/v1/namespaces/bench/serviceaccounts", json!({"metadata": {"name": "reader"}}));
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]});
    make(&format!("{rbac}/roles"), json!({"metadata": {"name": "reader"}, "rules": [rule]}));
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"});
    let account = json!({"kind": "ServiceAccount", "name": "reader", "namespace": "bench"});
    let binding = json!({"metadata": {"name": "reader"}, "roleRef": role, "subjects": [account]});
    make(&format!("{rbac}/rolebindings"), binding);
    let token = make("/api/v1/namespaces/bench/serviceaccounts/reader/token", json!({}));
    token["status"]["token"].as_str().expect("a token").to_owned()
}

fn watchers(server: &Server, count: usize) -> String {
    let maps = "/api/v1/namespaces/bench/configmaps";
    let now = server.json("admin", &format!("GET {maps}?limit=1"));
    let now = now["metadata"]["resourceVersion"].as_str().expect("a list has one");
    let watch = as_admin(&format!("GET {maps}?watch=1&timeoutSeconds=250&resourceVersion={now}"));
    let change = |name: &str| {
        let body = json!({"metadata": {"name": name}, "data": {"k": "v"}});
        as_admin(&format!("POST {maps} {body}"))
    };
    let before = cpu_time(server.pid());
    let fan = load::fan_out(&server.endpoint, &watch, count, change).expect("a server that stays");
    let cpu = cpu_time(server.pid()) - before;
    let FanOut { closed, lags, .. } = &fan;
    let cpu_us = cpu.as_secs_f64() * 1e6 / lags.len() as f64;
    format!("{}, {cpu_us:.1} us of CPU an event, {closed} closed", quantiles(lags))
}

/// A request as a client outside of the cluster sends it.
fn as_admin(ask: &str) -> Request {
    from_outside(ADMIN_TOKEN, ask)
}

fn from_outside(token: &str, ask: &str) -> Request {
    let mut request = request(&format!("token:{token}"), ask);
    request.headers.push(("user-agent".to_owned(), "bench/1".to_owned()));
    request
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

/// See [`speed::created`].
fn pod_times() -> Vec<Duration> {
    let server = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    speed::created(&server, PODS_STARTED)
}

/// How fast pods are, and what they cost.
fn measure_pods() -> Vec<Row> {
    let mut rows = Rows::default();
    // First of all: where many files were removed a moment ago, as those of the other pods, some file systems take milliseconds to make
    // new ones.
    let large = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    speed::ballast(&large, HEAP_BYTES);
    let what = format!("created to its program running, server of {}", megabytes(resident(large.pid())));
    rows.add(what, "p50 10 ms, p99 30 ms", tails(speed::created(&large, PODS_MEASURED)), "");
    drop(large);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_in(folder.path(), &["--node", "sandbox"]);
    let created = tails(speed::created(&server, PODS_MEASURED));
    rows.add("created to its program running", "p50 10 ms, p99 30 ms", created, "");
    rows.add("first byte of a command in a pod", "5 ms", tails(speed::executed(&server, COMMANDS)), "");
    let bursts = (0..BURSTS).map(|_| speed::burst(&server, BURST_PODS)).collect();
    rows.add("100 pods made at once, until all run", "1 s", times(bursts), "");
    let images = speed::from_image(&server, &folder.path().join("data"), folder.path(), IMAGE_PODS);
    rows.add("a pod of an image of 50 MB that is there, until it runs", "150 ms", tails(images), "");
    drop(server);
    let found = many::run(&Many { at_once: AT_ONCE, lives: LIVES, ..Many::default() });
    rows.add(
        "500 pods made one after another, until all run",
        "",
        format!("{:.1} s", found.all_running.as_secs_f64()),
        "",
    );
    rows.add("memory of server and agent for each of them", "60 KB", format!("{} KiB", found.kib_per_pod), "");
    rows.add("all 500 gone after a deletion of all", "", format!("{:.1} s", found.all_gone.as_secs_f64()), "");
    rows.add("a pod of a program that ends at once, until that is seen", "", tails(found.ended), "");
    rows.add("the same until it is deleted and gone", "", tails(found.gone), "");
    rows.0
}

fn idle_memory() -> String {
    let server = Server::start(&["--store", "memory://"]);
    server.check("admin", "GET /readyz", "200 ok");
    std::thread::park_timeout(IDLE);
    megabytes(resident(server.pid()))
}

/// A pod as big as those of real clusters.
fn pod() -> serde_json::Value {
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
            "labels": {"app": "app-0", "tier": "backend", "pod-template-hash": "5d8f7c9b6d"},
            "annotations": {"example.com/checksum": "a".repeat(64)},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [container("app"), container("sidecar")],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
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

/// The CPU time of a process so far.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name comes second, in parentheses, and may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().filter_map(|text| text.parse::<u64>().ok()).sum();
    Duration::from_secs_f64(ticks as f64 / TICKS_A_SECOND)
}

fn times(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    format!("{:.1} ms (p95 {:.1} ms)", ms(0.5), ms(0.95))
}

/// With the slowest of a hundred, for what has a goal of its own for that.
fn tails(mut times: Vec<Duration>) -> String {
    times.sort();
    quantiles(&times)
}

/// Of times in order.
fn quantiles(times: &[Duration]) -> String {
    let ms = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms", ms(0.5), ms(0.99))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn write(rows: &[Row]) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "# Benchmarks

`cargo xtask bench --write` measured this, on {cores} cores of {model}, the load generator on the same cores.
The last column is kube-apiserver 1.37.2 with etcd 3.7 on a machine of the same kind, for scale: machines differ, so read it as
a ratio, and a goal of 10 x as ten times that. Times are medians, CPU is the server's; a create is a durable one on the disk
store unless it says otherwise.

The load needs nothing but this repository. It goes over HTTP/2 and TLS with one request at a time on each connection, from one
thread, as `h2load -t 1 -m 1` does, which gave the same server 3 to 17 % more CPU a request to spend. Pods are of 3 KB with two
containers, as a client sends them. A list is read on a new connection, whose handshake is not counted. The watches
are 100 on a connection, and see 50 changes, one 50 ms after another.

`cargo xtask bench --load` measures the load alone, `--creates` what is created of it, `--watch` the watches.

| what | goal | here | kube-apiserver |
| --- | --- | --- | --- |
"
    );
    for Row { what, goal, here, there } in rows {
        let _ = writeln!(text, "| {what} | {goal} | {here} | {there} |");
    }
    let path: &Path = &workspace().join("docs/benchmarks.md");
    // What other programs measured follows under headings of its own, and stays.
    let before = std::fs::read_to_string(path).unwrap_or_default();
    if let Some(at) = before.find("\n## ") {
        text.push_str(&before[at..]);
    }
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    println!("written to docs/benchmarks.md");
}

/// A section of its own, which this alone writes; the rest stays.
fn write_pods(rows: &[Row]) {
    const BEGIN: &str = "\n## How fast pods are\n";
    let path: &Path = &workspace().join("docs/benchmarks.md");
    let before = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let at = before.find(BEGIN).unwrap_or(before.len());
    let rest =
        before[at..].get(1..).and_then(|section| section.find("\n## ")).map_or("", |end| &before[at + 1 + end..]);
    let mut text = format!(
        "{BEGIN}
`cargo xtask bench --pods --write` measured this, the measuring program on the same cores: pods of the machine's own files with one
container, on a disk store unless it says otherwise; a command is executed over a WebSocket on a connection that is there already.

| what | goal | here |
| --- | --- | --- |
"
    );
    for Row { what, goal, here, .. } in rows {
        let _ = writeln!(text, "| {what} | {goal} | {here} |");
    }
    std::fs::write(path, [&before[..at], &text, rest].concat()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    println!("written to docs/benchmarks.md");
}
