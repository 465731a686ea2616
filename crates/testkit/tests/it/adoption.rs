//! Pods outlive an agent that is killed: the next one goes on with them, knows what ended meanwhile, and leaves nothing of what was
//! deleted. And what pods leave at all: nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::command::RUN_LIMIT;
use testkit::leftovers::Leftovers;
use testkit::many::{self, Many};
use testkit::{Node, Server};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(server: &Server, name: &str, node: &str, spec: Value) {
    let mut spec = spec;
    spec["nodeName"] = node.into();
    spec["terminationGracePeriodSeconds"] = 0.into();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    server.json("admin", &format!("POST {PODS} {pod}"));
}

fn shell(name: &str, script: &str, mark: &str) -> Value {
    json!({"name": name, "image": "host", "command": ["sh", "-c", script], "env": [{"name": "ADOPTED_BY", "value": mark}],
        "volumeMounts": [{"name": "work", "mountPath": "/work"}]})
}

fn spec(containers: Value) -> Value {
    json!({"restartPolicy": "Never", "containers": containers, "volumes": [{"name": "work", "emptyDir": {}}]})
}

fn left(mark: &str, pods: &Path) -> Leftovers {
    Leftovers::of("ADOPTED_BY", Path::new(mark), pods)
}

#[track_caller]
fn phase(server: &Server, name: &str, phase: &str) -> Value {
    server.until(&format!("GET {PODS}/{name}"), RUN_LIMIT, |_, pod| pod["status"]["phase"] == phase)
}

/// Between two looks at processes and files, which tell nobody that they end or come.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Looks until it is so, and fails with these words where it takes too long.
#[track_caller]
fn until(holds: impl Fn() -> bool, else_words: impl Fn() -> String) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < RUN_LIMIT, "{}", else_words());
        std::thread::park_timeout(LOOK_PAUSE);
    }
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["status"]["containerStatuses"].as_array().unwrap();
    all.iter().find(|it| it["name"] == name).unwrap()
}

#[test]
fn pods_outlive_a_server_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let args = &["--node", "sandbox"];
    let mut server = Server::start_in(folder.path(), args);
    let nodes =
        server.until("GET /api/v1/nodes", RUN_LIMIT, |_, nodes| nodes["items"][0]["metadata"]["name"].is_string());
    let node = nodes["items"][0]["metadata"]["name"].as_str().unwrap();
    let count = "i=0; while :; do echo $i; i=$((i + 1)); sleep 0.02; done";
    let end = "until test -e /work/go; do sleep 0.01; done; echo last words; touch /work/done; exit 7";
    pod(&server, "web", node, spec(json!([shell("main", count, "killed"), shell("side", end, "killed")])));
    let before = phase(&server, "web", "Running");
    let uid = before["metadata"]["uid"].as_str().unwrap();
    let work = folder.path().join("data/node/pods").join(uid).join("volumes/work");
    for round in 0..3 {
        let seen = server.ask("admin", &format!("GET {PODS}/web/log?container=main")).body.len();
        server.kill();
        if round == 1 {
            std::fs::write(work.join("go"), "").unwrap();
            until(|| work.join("done").exists(), || "it does not end".to_string());
        }
        server = Server::start_in(folder.path(), args);
        let pod = server.until(&format!("GET {PODS}/web"), RUN_LIMIT, |_, pod| {
            round < 1 || container(pod, "side")["state"]["terminated"].is_object()
        });
        assert_eq!(container(&pod, "main")["containerID"], container(&before, "main")["containerID"]);
        assert_eq!(container(&pod, "main")["restartCount"], 0);
        assert!(container(&pod, "main")["state"]["running"].is_object(), "{pod:#}");
        let log = format!("GET {PODS}/web/log?container=main");
        let began = Instant::now();
        let text = loop {
            let answer = server.ask("admin", &log);
            let text = String::from_utf8(answer.body).unwrap();
            // Until the agent has the pod again, it says so.
            if answer.head.status == 200 && text.len() > seen + 100 {
                break text;
            }
            assert!(began.elapsed() < RUN_LIMIT, "nothing new is printed: {text}\n{}", server.trouble());
        };
        // Nothing comes twice, and nothing is lost but what an agent had read and not yet written when it was killed.
        let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|two| two[1] > two[0]) && numbers[0] == 0, "{text}");
        let lost = numbers[numbers.len() - 1] + 1 - numbers.len() as u64;
        assert!(lost <= round + 1, "{text}");
        if round >= 1 {
            let ended = &container(&pod, "side")["state"]["terminated"];
            assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(7), &json!("Error")));
            server.check("admin", &format!("GET {PODS}/web/log?container=side"), "200 last words");
        }
    }
    server.json("admin", &format!("DELETE {PODS}/web"));
    server.until(&format!("GET {PODS}/web"), RUN_LIMIT, |status, _| status == 404);
    let pods = folder.path().join("data/node/pods");
    let found = || left("killed", &pods);
    until(|| (found().processes, found().files) == (0, 0), || found().to_string());
}

/// What a node in this folder wrote to stderr.
fn agent_wrote(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("node.stderr")).unwrap_or_default()
}

/// A pod whose agent is killed while it can tell nothing of it, and the next agent.
struct Untold {
    folder: tempfile::TempDir,
    server: Option<Server>,
    agent: Node,
    /// Its volume, on the machine.
    work: PathBuf,
}

const UNTOLD_ARGS: &[&str] = &["--node", "none"];

impl Untold {
    /// Runs this script, which has the volume at `/work`.
    #[track_caller]
    fn start(script: &str, restart_policy: &str) -> Untold {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_in(folder.path(), UNTOLD_ARGS);
        let agent = Node::start(&server, "edge", folder.path());
        let mut spec = spec(json!([shell("main", script, "told")]));
        spec["restartPolicy"] = restart_policy.into();
        pod(&server, "ends", "edge", spec);
        let uid = phase(&server, "ends", "Running")["metadata"]["uid"].as_str().unwrap().to_string();
        let work = folder.path().join("node/node/pods").join(uid).join("volumes/work");
        Untold { folder, server: Some(server), agent, work }
    }

    fn agent_wrote(&self) -> String {
        agent_wrote(self.folder.path())
    }

    /// Lets the script go on.
    fn go(&self) {
        std::fs::write(self.work.join("go"), "").unwrap();
    }

    #[track_caller]
    fn until_ended(&self) {
        let pods = self.folder.path().join("node/node/pods");
        until(|| left("told", &pods).processes == 0, || format!("it does not end\n{}", self.agent_wrote()));
    }

    /// Kills the agent, and asks the next one: once the container's status is as it is to become, all that is told, and the first
    /// lines of its logs.
    #[track_caller]
    fn check(self, holds: impl Fn(&Value) -> bool, want: &str) {
        self.agent.kill();
        let server = self.server.unwrap_or_else(|| Server::start_in(self.folder.path(), UNTOLD_ARGS));
        let _agent = Node::start(&server, "edge", self.folder.path());
        let pod = server.until(&format!("GET {PODS}/ends"), RUN_LIMIT, |_, pod| holds(container(pod, "main")));
        let (of, ended) = (container(&pod, "main"), |state: &Value| state["terminated"]["exitCode"].as_i64());
        let printed = |query: &str| {
            let log = server.ask("admin", &format!("GET {PODS}/ends/log{query}"));
            let text = String::from_utf8(log.body).unwrap();
            if log.head.status == 200 { text.lines().next().unwrap_or_default().to_string() } else { "none".into() }
        };
        let found = format!(
            "{} now {:?} before {:?} restarts {} log {}, before {}",
            pod["status"]["phase"].as_str().unwrap(),
            ended(&of["state"]),
            ended(&of["lastState"]),
            of["restartCount"],
            printed(""),
            printed("?previous=true"),
        );
        assert_eq!(found, want, "{pod:#}");
    }
}

const LAST_WORDS: &str = "until test -e /work/go; do sleep 0.01; done; echo last words; exit 7";
const ENDED: &str = "Failed now Some(7) before None restarts 0 log last words, before none";

fn has_ended(container: &Value) -> bool {
    container["state"]["terminated"].is_object()
}

#[test]
fn an_end_without_a_server_is_told_by_the_next_agent() {
    let mut pod = Untold::start(LAST_WORDS, "Never");
    pod.server.take().unwrap().kill();
    pod.go();
    // Once is when it ended; then it has done all that it does about that, and tries again.
    let untold = || pod.agent_wrote().matches("a status could not be told yet").count();
    until(|| untold() >= 2, || format!("the agent tells nothing\n{}", pod.agent_wrote()));
    pod.check(has_ended, ENDED);
}

#[test]
fn what_an_agent_has_not_read_is_read_by_the_next() {
    let pod = Untold::start(LAST_WORDS, "Never");
    let agent = rustix::process::Pid::from_raw(pod.agent.pid().cast_signed()).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::STOP).unwrap();
    pod.go();
    pod.until_ended();
    pod.check(has_ended, ENDED);
}

#[test]
fn a_restart_without_a_server_is_told_by_the_next_agent() {
    let again = "if test -e /work/again; then echo again; touch /work/second; exec sleep 10000; fi";
    let mut pod = Untold::start(&format!("{again}; touch /work/again; {LAST_WORDS}"), "Always");
    pod.server.take().unwrap().kill();
    pod.go();
    until(|| pod.work.join("second").exists(), || format!("it is not started again\n{}", pod.agent_wrote()));
    pod.check(
        |container| container["restartCount"] == 1,
        "Running now None before Some(7) restarts 1 log again, before last words",
    );
}

#[test]
fn what_was_deleted_without_an_agent_is_gone_with_the_next() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let folder = tempfile::tempdir().unwrap();
    let agent = Node::start(&server, "edge", folder.path());
    pod(&server, "gone", "edge", spec(json!([shell("main", "exec sleep 10000", "deleted")])));
    pod(&server, "stays", "edge", spec(json!([shell("main", "exec sleep 10000", "deleted")])));
    let stays = phase(&server, "stays", "Running");
    phase(&server, "gone", "Running");
    agent.kill();
    server.json("admin", &format!(r#"DELETE {PODS}/gone {{"gracePeriodSeconds":0}}"#));
    server.until(&format!("GET {PODS}/gone"), RUN_LIMIT, |status, _| status == 404);
    let agent = Node::start(&server, "edge", folder.path());
    let pods = folder.path().join("node/node/pods");
    let found = || left("deleted", &pods);
    // What is left is the other's: its init is no program, so that one process has the mark.
    until(
        || found().processes == 1 && std::fs::read_dir(&pods).unwrap().count() == 1,
        || format!("{}\n{}", found(), agent_wrote(folder.path())),
    );
    let now = phase(&server, "stays", "Running");
    assert_eq!(container(&now, "main")["containerID"], container(&stays, "main")["containerID"]);
    // A folder that is taken away ends what waits for an agent there.
    agent.kill();
    std::fs::remove_dir_all(folder.path().join("node")).unwrap();
    until(|| found().processes == 0, || found().to_string());
}

/// The counted runs of `pods` (see docs/benchmarks.md), small.
#[test]
fn many_pods_leave_nothing() {
    leave_nothing(&Many { at_once: 20, lives: 20, kills: 3, ..Many::default() });
}

#[test]
fn nor_with_an_agent_of_its_own() {
    if rustix::process::geteuid().is_root() {
        leave_nothing(&Many { at_once: 5, lives: 5, kills: 4, apart: true, ..Many::default() });
    }
}

#[test]
fn nor_of_an_ordinary_user() {
    if let Some(user) = testkit::command::ordinary_user() {
        leave_nothing(&Many { at_once: 10, lives: 10, kills: 3, user: Some(user), ..Many::default() });
    }
}

#[track_caller]
fn leave_nothing(many: &Many) {
    let found = many::run(many);
    println!("{found}");
    assert_eq!((found.after_lives, found.after), (found.before, found.before), "{found}");
    assert!(found.untrue.is_empty(), "{found}");
}
