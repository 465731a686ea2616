//! The disk store and kill -9: what was acknowledged is there, what is there is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use testkit::Server;
use testkit::load::load;
use testkit::server::request;

const ROUNDS: usize = 10;
const CREATES: usize = 1000;
const CLIENTS: usize = 100;
const LIST: &str = "GET /api/v1/namespaces/default/configmaps";

#[test]
fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = format!("disk://{}", folder.path().join("store").display());
    let mut random = StdRng::seed_from_u64(1);
    let mut acknowledged = BTreeMap::new();
    let mut highest = 0;
    for round in 0..ROUNDS {
        let server = Server::start_in(folder.path(), &["--node", "none", "--store", &store]);
        highest = verify(&server, &acknowledged, highest);
        let enough = random.random_range(1..CREATES);
        let made = create_until_killed(server, CREATES, enough, |i| create(&name(round, i), i));
        acknowledged.extend(made.into_iter().map(|i| (name(round, i), i)));
    }
    let server = Server::start_in(folder.path(), &["--node", "none", "--store", &store]);
    verify(&server, &acknowledged, highest);
    server.check("admin", &create("after", 1), "201 ConfigMap after");
    assert!(acknowledged.len() >= ROUNDS, "only {} creates were acknowledged", acknowledged.len());
}

/// Of a range of 254 addresses and 2768 ports, many writers at once and a server killed among them give none away twice,
/// whether they are picked or asked for.
#[test]
fn addresses_and_ports_are_given_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = format!("disk://{}", folder.path().join("store").display());
    let args = ["--node", "none", "--store", &store, "--service-cluster-ip-range", "10.20.0.0/24"];
    let service = |round: usize, i: usize| {
        // Every other one asks for a port that its neighbours ask for too.
        let port = if i.is_multiple_of(2) { format!(r#","nodePort":{}"#, 31000 + i / 4) } else { String::new() };
        let spec = format!(r#"{{"type":"NodePort","ports":[{{"port":80{port}}}]}}"#);
        format!(r#"POST /api/v1/namespaces/default/services {{"metadata":{{"name":"s-{round}-{i}"}},"spec":{spec}}}"#)
    };
    let mut acknowledged = 0;
    for (round, enough) in [20, 45, 80, usize::MAX].into_iter().enumerate() {
        let server = Server::start_in(folder.path(), &args);
        let endpoint = server.endpoint.clone();
        if enough == usize::MAX {
            let report = load(&endpoint, 16, 300, |i| request("admin", &service(round, i)), |_, _| ());
            let services = server.json("admin", "GET /api/v1/services");
            let services = services["items"].as_array().expect("a list");
            let given = |pointer: &str| services.iter().filter_map(|s| s.pointer(pointer)).collect::<Vec<_>>();
            for pointer in ["/spec/clusterIP", "/spec/ports/0/nodePort"] {
                let all = given(pointer);
                let once: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
                assert_eq!(once.len(), all.len(), "{pointer} is given twice: {all:?}");
            }
            // The `kubernetes` Service has an address too.
            let named = services.iter().filter(|s| s["metadata"]["name"] != "kubernetes").count();
            assert!(named >= acknowledged + report.good, "{named} of {acknowledged} and {} are left", report.good);
            assert_eq!(services.len(), 254, "the range is used up");
        } else {
            acknowledged += create_until_killed(server, 300, enough, |i| service(round, i)).len();
        }
    }
}

/// Creates by many clients at once, until `enough` are answered and the server is killed in the middle of the others.
/// Gives the numbers of those that were acknowledged.
fn create_until_killed(
    server: Server,
    creates: usize,
    enough: usize,
    create: impl Fn(usize) -> String + Sync,
) -> BTreeSet<usize> {
    let acknowledged = Mutex::new(BTreeSet::new());
    let count = AtomicUsize::new(0);
    let endpoint = server.endpoint.clone();
    let pid = rustix::process::Pid::from_raw(server.pid() as i32).expect("not zero");
    load(
        &endpoint,
        CLIENTS,
        creates,
        |i| request("admin", &create(i)),
        |i, answer| {
            if answer.head.status == 201 {
                acknowledged.lock().expect("no thread panics with it").insert(i);
            }
            if count.fetch_add(1, Ordering::SeqCst) + 1 == enough {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
            }
        },
    );
    server.kill();
    acknowledged.into_inner().expect("no thread panics with it")
}

/// Everything acknowledged is listed, everything listed is whole, and revisions never go back.
/// Gives the highest revision.
fn verify(server: &Server, acknowledged: &BTreeMap<String, usize>, highest: u64) -> u64 {
    let list = server.json("admin", LIST);
    let mut listed = BTreeSet::new();
    for item in list["items"].as_array().expect("a list") {
        let name = item["metadata"]["name"].as_str().expect("a name");
        assert!(listed.insert(name.to_owned()), "{name} is listed twice");
        if name.starts_with("crash-") {
            let i: usize = name.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number");
            assert_eq!(item["data"]["value"], value(i), "{name} is not whole: {item}");
            assert!(item["metadata"]["uid"].is_string(), "{name} is not whole: {item}");
        }
    }
    let lost: Vec<_> = acknowledged.keys().filter(|name| !listed.contains(*name)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged creates are lost: {lost:?}", lost.len(), acknowledged.len());
    let revision = list["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).expect("a revision");
    assert!(revision >= highest, "the list is at revision {revision}, {highest} was seen before");
    revision
}

fn create(name: &str, i: usize) -> String {
    let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"value":{}}}}}"#, Value::from(value(i)));
    format!("POST /api/v1/namespaces/default/configmaps {body}")
}

fn name(round: usize, i: usize) -> String {
    format!("crash-{round}-{i}")
}

/// A kilobyte that tells whether it is the right one.
fn value(i: usize) -> String {
    format!("{i:08}").repeat(128)
}
