//! Many pods on one server, and what they cost and leave: at once, one after another, and while server and agent are killed. Counts;
//! the figures of `docs/benchmarks.md` under "Pods" are its.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::follow::{Follow, PODS, Pods, phase};
use crate::leftovers::{Leftovers, marked};
use crate::server::{describe, request};
use crate::wire::Connection;
use crate::{Node, Server};

/// How long any one step may take for each pod of it, and at least.
const STEP_LIMIT: Duration = Duration::from_secs(1);
const LEAST_LIMIT: Duration = Duration::from_secs(60);
/// How long the last of it may take to go.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// For how long nothing may change until it is taken for at rest.
const REST: Duration = Duration::from_millis(500);
/// Between two looks at processes, which tell nobody that they end.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// A kill comes within this time after what went before it.
const KILL_WITHIN_MILLIS: u64 = 60;
/// What the processes of a pod have in their environment: the run that they are of, and the pod's name.
const RUN: &str = "MANY_PODS";
const NAME: &str = "MANY_PODS_NAME";

/// How many, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Many {
    /// Pods that run at the same time.
    pub at_once: usize,
    /// Pods that are made and deleted one after another.
    pub lives: usize,
    /// Times that server and agent are killed while pods run, three pods each.
    pub kills: usize,
    /// Who runs server and agent; who runs this program, if nobody is named. Only root can be another.
    pub user: Option<u32>,
    /// Server and agent are two processes, and the agent is killed alone each other time.
    pub apart: bool,
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
    /// What was not as it should be after a kill.
    pub untrue: Vec<String>,
    pub before: Leftovers,
    /// After the lives, and after the kills.
    pub after_lives: Leftovers,
    pub after: Leftovers,
}

impl Found {
    /// Whether nothing is left and every status was true.
    pub fn is_clean(&self) -> bool {
        self.before == self.after_lives && self.before == self.after && self.untrue.is_empty()
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
        writeln!(f, "there before: {}", self.before)?;
        writeln!(f, "after the lives: {}", self.after_lives)?;
        writeln!(f, "after the kills: {}", self.after)?;
        self.untrue.iter().try_for_each(|what| writeln!(f, "not true after a kill: {what}"))
    }
}

/// Makes the pods and counts. Panics where a step takes too long.
#[track_caller]
pub fn run(many: &Many) -> Found {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut site = Site::start(folder.path(), many);
    begin(&mut site, "first");
    let mut found = Found { before: site.at_rest(), ..Found::default() };
    at_once(&mut site, many.at_once, &mut found);
    for number in 0..many.lives {
        let (ended, gone) = life(&mut site, &format!("life-{number}"));
        found.ended.push(ended);
        found.gone.push(gone);
    }
    found.ended.sort();
    found.gone.sort();
    found.after_lives = site.settled(&found.before);
    for number in 0..many.kills {
        site = kill(site, number, &mut found);
    }
    begin(&mut site, "last");
    found.after = site.settled(&found.before);
    found
}

/// The first pod of an agent makes what all of them share; from the second on there are some that are made ahead.
fn begin(site: &mut Site, name: &str) {
    for number in 0..2 {
        life(site, &format!("{name}-{number}"));
    }
}

fn at_once(site: &mut Site, count: usize, found: &mut Found) {
    let limit = LEAST_LIMIT.max(STEP_LIMIT * u32::try_from(count).unwrap_or(u32::MAX));
    let memory = site.memory();
    let began = Instant::now();
    (0..count).for_each(|number| site.create(&format!("many-{number}"), "exec sleep 100000"));
    site.until(limit, |pods| pods.values().filter(|pod| phase(pod) == "Running").count() == count);
    found.all_running = began.elapsed();
    found.kib_per_pod = site.memory().saturating_sub(memory) / (count.max(1) as u64);
    let began = Instant::now();
    site.delete_all();
    site.until(limit, BTreeMap::is_empty);
    found.all_gone = began.elapsed();
}

/// A pod that ends at once: how long until that was seen, and until it was gone.
fn life(site: &mut Site, name: &str) -> (Duration, Duration) {
    let began = Instant::now();
    site.create(name, "exit 0");
    site.until(LEAST_LIMIT, |pods| pods.get(name).is_some_and(|pod| phase(pod) == "Succeeded"));
    let ended = began.elapsed();
    site.delete(name);
    site.until(LEAST_LIMIT, |pods| !pods.contains_key(name));
    (ended, began.elapsed())
}

/// Three pods, at some point of whose lives server or agent is killed; then what is said of them is held against what there is.
fn kill<'a>(mut site: Site<'a>, number: usize, found: &mut Found) -> Site<'a> {
    let [runs, ends, starts] = ["runs", "ends", "starts"].map(|what| format!("{what}-{number}"));
    site.create(&runs, "exec sleep 100000");
    site.create(&ends, "exit 5");
    let deleted = number % 3 == 2;
    if !number.is_multiple_of(3) {
        site.until(LEAST_LIMIT, |pods| pods.get(&runs).is_some_and(|pod| phase(pod) == "Running"));
    }
    pause(number);
    site.create(&starts, "exec sleep 100000");
    if deleted {
        site.delete(&runs);
    }
    pause(number + 1);
    let before = site.follow.news().clone();
    // Who is not root cannot take over a pod that has a wire: it ends with its agent, and is said to have.
    let outlive = site.keeps_pods();
    site = site.kill(number);

    let began = Instant::now();
    loop {
        let alive = site.alive();
        let wrong = wrong(site.follow.news(), &before, &alive, [&runs, &ends, &starts], deleted, outlive);
        let Some(why) = wrong else { break };
        if began.elapsed() > LEAST_LIMIT {
            let agent = std::fs::read_to_string(site.folder.join("node.stderr")).unwrap_or_default();
            found.untrue.push(format!("{why}\n{}\nthe agent wrote:\n{agent}", site.server.trouble()));
            break;
        }
        site.follow.wait(LOOK_PAUSE);
    }
    site.delete_all();
    site.until(LEAST_LIMIT, BTreeMap::is_empty);
    site
}

/// What is not true, or not as it is to become.
fn wrong(
    pods: &Pods,
    before: &Pods,
    alive: &BTreeSet<String>,
    [runs, ends, starts]: [&String; 3],
    deleted: bool,
    outlive: bool,
) -> Option<String> {
    let ended = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].as_i64();
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    for (name, wants, code) in [(runs, "Running", 137), (ends, "Failed", 5), (starts, "Running", 137)] {
        let Some(pod) = pods.get(name) else {
            if name == runs && deleted && !alive.contains(name) {
                continue;
            }
            return Some(format!("{name} is gone"));
        };
        let said = phase(pod);
        if deleted && name == runs {
            return Some(format!("{name} is still there"));
        }
        if (said == "Running") != alive.contains(name) {
            return Some(format!("{name} is said to be {said:?}, and its process is there: {}", alive.contains(name)));
        }
        let lost = !outlive && said == "Failed" && ended(pod) == Some(137);
        if said != wants && !lost {
            return Some(format!("{name} is {said:?}, not {wants}: {}", pod["status"]));
        }
        if said == "Failed" && ended(pod) != Some(code) && !lost {
            return Some(format!("{name} has not ended with {code}: {}", pod["status"]));
        }
        // What was seen to run is the same that runs now.
        let ran = before.get(name).filter(|pod| phase(pod) == "Running");
        if let (true, Some(ran)) = (outlive && said == "Running", ran)
            && id(ran) != id(pod)
        {
            return Some(format!("{name}: another container than before"));
        }
    }
    None
}

/// Waits for a while that is another one for each number, and the same in each run.
fn pause(number: usize) {
    let mixed =
        (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    std::thread::park_timeout(Duration::from_millis((mixed >> 32) % KILL_WITHIN_MILLIS));
}

/// A server with a node, and what is known of its pods.
struct Site<'a> {
    server: Server,
    agent: Option<Node>,
    folder: &'a Path,
    user: u32,
    node: String,
    follow: Follow,
    connection: Option<Connection>,
}

impl<'a> Site<'a> {
    #[track_caller]
    fn start(folder: &'a Path, many: &Many) -> Site<'a> {
        let user = many.user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        assert!(user == 0 || !many.apart, "an agent of its own is started as root only");
        let server = Site::server(folder, user, many.apart);
        let agent = many.apart.then(|| Node::start_of(&server, "apart", folder, &folder.join("kemudi")));
        let nodes = server
            .until("GET /api/v1/nodes", LEAST_LIMIT, |_, nodes| nodes["items"][0]["metadata"]["name"].is_string());
        let node = nodes["items"][0]["metadata"]["name"].as_str().expect("a name").to_string();
        let follow = Follow::pods(&server);
        Site { server, agent, folder, user, node, follow, connection: None }
    }

    /// From a copy of the binary, by which all processes of it are told from others'.
    fn server(folder: &Path, user: u32, apart: bool) -> Server {
        let node = if apart { "none" } else { "sandbox" };
        Server::start_as(folder, &["--node", node], Some(user))
    }

    fn keeps_pods(&self) -> bool {
        self.user == 0
    }

    /// Kills server and agent, or the agent alone where it is another process, and starts again what was killed.
    fn kill(self, number: usize) -> Site<'a> {
        let Site { mut server, agent, folder, user, node, .. } = self;
        let apart = agent.is_some();
        let both = !apart || number.is_multiple_of(2);
        if both {
            server.kill();
            if apart {
                // What an agent does meanwhile, it cannot tell anybody.
                pause(number + 2);
            }
            drop(agent);
            server = Site::server(folder, user, apart);
        } else {
            drop(agent);
        }
        let agent = apart.then(|| Node::start_of(&server, "apart", folder, &folder.join("kemudi")));
        let follow = Follow::pods(&server);
        Site { server, agent, folder, user, node, follow, connection: None }
    }

    #[track_caller]
    fn until(&mut self, limit: Duration, holds: impl Fn(&Pods) -> bool) {
        if !self.follow.until(limit, holds) {
            panic!("never as wanted: {:#?}\n{}", self.follow.news(), self.server.trouble());
        }
    }

    /// Asks on a connection that is kept. A request that must succeed.
    #[track_caller]
    fn ask(&mut self, ask: &str) {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.endpoint.connect(LEAST_LIMIT).expect("it listens"),
        };
        let answer = connection.exchange(&request("admin", ask));
        let answer = answer.unwrap_or_else(|why| panic!("{ask}: {why}\n{}", self.server.trouble()));
        assert!((200..300).contains(&answer.head.status), "{ask}: {}\n{}", describe(&answer), self.server.trouble());
        self.connection = connection.is_open().then_some(connection);
    }

    #[track_caller]
    fn create(&mut self, name: &str, script: &str) {
        let env = json!([{"name": RUN, "value": self.folder}, {"name": NAME, "value": name}]);
        let container = json!({"name": "main", "image": "host", "command": ["sh", "-c", script], "env": env});
        let spec = json!({"nodeName": self.node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [container]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.ask(&format!("POST {PODS} {pod}"));
    }

    #[track_caller]
    fn delete(&mut self, name: &str) {
        self.ask(&format!(r#"DELETE {PODS}/{name} {{"gracePeriodSeconds":0}}"#));
    }

    #[track_caller]
    fn delete_all(&mut self) {
        self.ask(&format!(r#"DELETE {PODS} {{"gracePeriodSeconds":0}}"#));
    }

    /// The names of the pods of which a process is there.
    fn alive(&self) -> BTreeSet<String> {
        marked(RUN, self.folder).filter_map(|(_, environment)| environment.get(NAME).cloned()).collect()
    }

    /// The memory of server and agent, in KiB.
    fn memory(&self) -> u64 {
        resident(self.server.pid()) + self.agent.as_ref().map_or(0, |agent| resident(agent.pid()))
    }

    /// The agent's folder of pods.
    fn agent_folder(&self) -> std::path::PathBuf {
        let apart = self.agent.is_some();
        self.folder.join(if apart { "node/node/pods" } else { "data/node/pods" })
    }

    fn leftovers(&self) -> Leftovers {
        Leftovers::of(RUN, self.folder, &self.agent_folder())
    }

    /// What there is once nothing goes any more: the kernel takes a pod's devices away some time after its last process.
    fn at_rest(&self) -> Leftovers {
        let began = Instant::now();
        let mut last = self.leftovers();
        loop {
            std::thread::park_timeout(REST);
            let now = self.leftovers();
            if now == last || began.elapsed() > SETTLE_LIMIT {
                return now;
            }
            last = now;
        }
    }

    /// Counts until it is as it was, or for a while.
    fn settled(&self, wanted: &Leftovers) -> Leftovers {
        let began = Instant::now();
        loop {
            let found = self.leftovers();
            if found == *wanted || began.elapsed() > SETTLE_LIMIT {
                return found;
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
    }
}

/// The memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
