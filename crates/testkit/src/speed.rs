//! How fast pods are: made, many at once, from an image, and the first byte of what is executed in one. Measures and judges nothing.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Server;
use crate::command::{RUN_LIMIT, kemudi, run};
use crate::follow::{Follow, PODS, phase};
use crate::image;
use crate::load;
use crate::server::request;

/// The argument with which the measuring program is the process of a pod: it prints the time it began.
pub const STAMP: &str = "--stamp";
/// Connections over which a burst comes.
const BURST_CLIENTS: usize = 16;
/// Of the image that is started: its one layer's bytes that are only there to be many.
const IMAGE_BYTES: usize = 50 << 20;
const IMAGE: &str = "registry.example/bench/fifty:1";
/// What the objects hold that make a server's heap large.
const BALLAST_BYTES: usize = 900 << 10;

/// Nanoseconds since 1970: the one clock that a pod shares with its host.
pub fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}

/// From just before each create is sent to the first instruction of the pod's own program, which is this one with [`STAMP`]. The
/// pods come one after another.
#[track_caller]
pub fn created(server: &Server, count: usize) -> Vec<Duration> {
    let own = std::env::current_exe().expect("a program knows itself");
    let mut follow = Follow::pods(server);
    let mut connection = server.endpoint.connect(RUN_LIMIT).expect("it listens");
    let one = |number| {
        let name = format!("stamp-{number}");
        let containers = json!([{"name": "c", "image": "host", "command": [own, STAMP]}]);
        let pod = json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": containers}});
        let create = request("admin", &format!("POST {PODS} {pod}"));
        if !connection.is_open() {
            connection = server.endpoint.connect(RUN_LIMIT).expect("it listens");
        }
        let began = now();
        let answer = connection.exchange(&create).expect("an answer");
        assert_eq!(answer.head.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        let over = follow.until(RUN_LIMIT, |pods| pods.get(&name).is_some_and(|pod| phase(pod) == "Succeeded"));
        assert!(over, "{name} does not end\n{}", server.trouble());
        let log = server.ask("admin", &format!("GET {PODS}/{name}/log")).body;
        let log = String::from_utf8_lossy(&log);
        let end: u128 = log.trim().parse().unwrap_or_else(|why| panic!("{log:?}: {why}"));
        Duration::from_nanos(u64::try_from(end.saturating_sub(began)).expect("less than centuries"))
    };
    (0..count).map(one).collect()
}

/// Gives a server objects, of so many bytes together.
pub fn ballast(server: &Server, bytes: usize) {
    let count = bytes.div_ceil(BALLAST_BYTES);
    let text = "v".repeat(BALLAST_BYTES);
    let make = |number| {
        let object = json!({"metadata": {"name": format!("ballast-{number}")}, "data": {"k": text}});
        request("admin", &format!("POST /api/v1/namespaces/default/configmaps {object}"))
    };
    let report = load::load(&server.endpoint, 1, count, make, |_, _| ());
    assert_eq!(report.good, count, "{}", server.trouble());
}

/// Pods that are all made at once: how long until all of them run.
#[track_caller]
pub fn burst(server: &Server, count: usize) -> Duration {
    let mut follow = Follow::pods(server);
    let make = |number| {
        let containers = json!([{"name": "c", "image": "host", "command": ["sleep", "100000"]}]);
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": containers});
        let pod = json!({"metadata": {"name": format!("burst-{number}"), "labels": {"app": "burst"}}, "spec": spec});
        request("admin", &format!("POST {PODS} {pod}"))
    };
    let began = Instant::now();
    load::load(&server.endpoint, BURST_CLIENTS, count, make, |_, _| ());
    let is_burst = |name: &str, pod: &Value| name.starts_with("burst-") && phase(pod) == "Running";
    let all = follow.until(RUN_LIMIT, |pods| pods.iter().filter(|(name, pod)| is_burst(name, pod)).count() == count);
    let took = began.elapsed();
    assert!(all, "not all of them run\n{}", server.trouble());
    server.json("admin", &format!(r#"DELETE {PODS}?labelSelector=app%3Dburst {{"gracePeriodSeconds":0}}"#));
    assert!(follow.until(RUN_LIMIT, |pods| !pods.keys().any(|name| name.starts_with("burst-"))), "they do not go");
    took
}

/// From a request for a command in a pod that runs to the first byte of what it prints, on a connection that is there already.
#[track_caller]
pub fn executed(server: &Server, count: usize) -> Vec<Duration> {
    let containers = json!([{"name": "c", "image": "host", "command": ["sleep", "100000"]}]);
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": containers});
    server.json("admin", &format!("POST {PODS} {}", json!({"metadata": {"name": "exec"}, "spec": spec})));
    let mut follow = Follow::pods(server);
    assert!(follow.until(RUN_LIMIT, |pods| pods.get("exec").is_some_and(|pod| phase(pod) == "Running")));
    let mut ask = request("admin", &format!("GET {PODS}/exec/exec?command=echo&command=hello&stdout=1"));
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    ask.headers.extend(upgrade.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let one = |_| {
        let mut connection = server.endpoint.connect(RUN_LIMIT).expect("it listens");
        // The handshake is over when something was answered.
        connection.exchange(&request("admin", "GET /livez")).expect("an answer");
        let began = Instant::now();
        connection.write(&ask.encode()).expect("it reads");
        let head = connection.head().expect("an answer");
        assert_eq!(head.status, 101, "{head:?}");
        loop {
            let message = frame(connection.upgraded());
            // The channel of the standard output, which is opened with an empty message.
            if let [1, _, ..] = message[..] {
                return began.elapsed();
            }
        }
    };
    (0..count).map(one).collect()
}

/// A short message of a server.
fn frame(from: &mut impl Read) -> Vec<u8> {
    let mut head = [0; 2];
    from.read_exact(&mut head).expect("a message");
    assert!(head[1] < 126, "a short message");
    let mut message = vec![0; head[1].into()];
    from.read_exact(&mut message).expect("a whole message");
    message
}

/// From the creation of a pod of an image of 50 MB, which the node has, until it runs.
#[track_caller]
pub fn from_image(server: &Server, data: &Path, folder: &Path, count: usize) -> Vec<Duration> {
    let archive = folder.join("fifty.tar");
    let ballast = "b".repeat(IMAGE_BYTES);
    image::save(&archive, IMAGE, &["sleep"], &[("ballast", &ballast)], &json!({"Cmd": ["sleep", "100000"]}));
    run(Command::new(kemudi()).args(["image", "load", "--data"]).arg(data).arg(&archive), "", RUN_LIMIT).ok();
    let mut follow = Follow::pods(server);
    let one = |number| {
        let name = format!("image-{number}");
        let containers = json!([{"name": "c", "image": IMAGE, "imagePullPolicy": "Never"}]);
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": containers});
        let began = Instant::now();
        server.json("admin", &format!("POST {PODS} {}", json!({"metadata": {"name": name}, "spec": spec})));
        let runs = follow.until(RUN_LIMIT, |pods| pods.get(&name).is_some_and(|pod| phase(pod) == "Running"));
        let took = began.elapsed();
        assert!(runs, "{name} does not run: {:#?}\n{}", follow.news().get(&name), server.trouble());
        server.json("admin", &format!(r#"DELETE {PODS}/{name} {{"gracePeriodSeconds":0}}"#));
        took
    };
    (0..count).map(one).collect()
}
