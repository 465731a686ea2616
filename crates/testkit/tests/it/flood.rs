//! Priority and fairness over the network: a flood of one user's slow requests, and another user among it.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use testkit::Server;
use testkit::server::{describe, request};

const PATIENCE: Duration = Duration::from_secs(20);
const FLOOD: usize = 150;
/// The seats of the level in this test: of 600, by one share among those of all levels.
const SHARES: usize = 1;

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";

#[test]
fn a_flood_of_slow_requests_starves_nobody_else() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let grant = r#"{"metadata":{"name":"all"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"User","name":"flood"},{"kind":"User","name":"alice"}]}"#;
    server.json("admin", &format!("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings {grant}"));
    let level = format!(
        r#"{{"metadata":{{"name":"few"}},"spec":{{"type":"Limited","limited":{{"nominalConcurrencyShares":{SHARES},"borrowingLimitPercent":0,"limitResponse":{{"type":"Queue","queuing":{{"queues":64,"handSize":6,"queueLengthLimit":50}}}}}}}}}}"#
    );
    server.json("admin", &format!("POST {LEVELS} {level}"));
    let schema = r#"{"metadata":{"name":"few"},"spec":{"priorityLevelConfiguration":{"name":"few"},"matchingPrecedence":50,"distinguisherMethod":{"type":"ByUser"},"rules":[{"subjects":[{"kind":"User","user":{"name":"flood"}},{"kind":"User","user":{"name":"alice"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"namespaces":["*"],"clusterScope":true}]}]}}"#;
    server.json("admin", &format!("POST {SCHEMAS} {schema}"));
    // Each of them holds its seat until the last byte of its body comes.
    let mut flood: Vec<_> = (0..FLOOD)
        .map(|i| {
            let ask = format!(r#"POST /api/v1/namespaces/default/configmaps {{"metadata":{{"name":"m-{i}"}}}}"#);
            let whole = request("flood", &ask).encode();
            let mut connection = server.endpoint.connect(PATIENCE).expect("it listens");
            connection.write(&whole[..whole.len() - 1]).expect("it reads");
            (connection, whole[whole.len() - 1])
        })
        .collect();
    let seats = number(&server, "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"few\"}");
    let executing = "apiserver_flowcontrol_current_executing_requests{flow_schema=\"few\",priority_level=\"few\"}";
    let waiting = "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"few\",priority_level=\"few\"}";
    wait_until(|| number(&server, executing) + number(&server, waiting) == FLOOD);
    assert_eq!(number(&server, executing), seats, "no more than there are seats");
    // Who is exempt, and who is at another level, does not notice.
    let begin = Instant::now();
    server.check("admin", "GET /api/v1/namespaces/default", "200 Namespace default");
    let other = server.ask("bob", "GET /api/v1/namespaces/default");
    assert_eq!(other.head.status, 403, "{}", describe(&other));
    assert!(begin.elapsed() < Duration::from_secs(2));
    let (tell, told) = mpsc::channel();
    let endpoint = server.endpoint.clone();
    let alice = std::thread::spawn(move || {
        let mut connection = endpoint.connect(PATIENCE).expect("it listens");
        let answer = connection.exchange(&request("alice", "GET /api/v1/namespaces/default"));
        let _ = tell.send(answer.map(|answer| describe(&answer)).unwrap_or_else(|why| why.to_string()));
    });
    wait_until(|| number(&server, waiting) == FLOOD - seats + 1);
    // The flood goes on, one request after the other, in the order in which they came. She comes in among the first of those who wait.
    let mut ended = 0;
    let answer = loop {
        if let Ok(answer) = told.try_recv() {
            break answer;
        }
        assert!(ended < FLOOD, "she was the last");
        let (connection, last) = &mut flood[ended];
        connection.write(&[*last]).expect("it reads");
        ended += 1;
        // What is answered to this was asked after it: time enough for a seat to change hands.
        number(&server, waiting);
    };
    alice.join().expect("she ends");
    assert_eq!(answer, "200 Namespace default");
    assert!(ended <= FLOOD / 4, "{ended} of {FLOOD} went before her");
    // Without the level nobody waits for it any more.
    server.json("admin", &format!("DELETE {LEVELS}/few"));
    for (i, (connection, last)) in flood.iter_mut().enumerate() {
        if i >= ended {
            connection.write(&[*last]).expect("it reads");
        }
        assert_eq!(connection.head().expect("an answer").status, 201);
    }
    let dangling = "\"reason\":\"NotFound\"";
    wait_until(|| {
        let schema = server.ask("admin", &format!("GET {SCHEMAS}/few"));
        String::from_utf8_lossy(&schema.body).contains(dangling)
    });
}

#[test]
fn a_level_without_queues_refuses_in_upstreams_words() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    // A share of nothing, and nothing to borrow.
    let level = r#"{"metadata":{"name":"none"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":0,"borrowingLimitPercent":0,"limitResponse":{"type":"Reject"}}}}"#;
    let made = server.json("admin", &format!("POST {LEVELS} {level}"));
    let schema = r#"{"metadata":{"name":"none"},"spec":{"priorityLevelConfiguration":{"name":"none"},"matchingPrecedence":50,"rules":[{"subjects":[{"kind":"User","user":{"name":"eve"}}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["/version"]}]}]}}"#;
    server.json("admin", &format!("POST {SCHEMAS} {schema}"));
    let refused = server.ask("eve", "GET /version");
    assert_eq!(describe(&refused), "429 Too many requests, please try again later.");
    assert_eq!(refused.head.header("retry-after"), Some("1"));
    assert_eq!(refused.head.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(refused.head.header("x-kubernetes-pf-prioritylevel-uid"), made["metadata"]["uid"].as_str());
    server.check("eve", "GET /api/v1", "200 APIResourceList");
}

#[test]
fn what_a_cluster_begins_with_is_put_back() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let has = |path: &str, text: &str| {
        let answer = server.ask("admin", &format!("GET {path}"));
        answer.head.status == 200 && String::from_utf8_lossy(&answer.body).contains(text)
    };
    server.json("admin", &format!("DELETE {SCHEMAS}/probes"));
    wait_until(|| has(&format!("{SCHEMAS}/probes"), "\"matchingPrecedence\":2"));
    // What is mandatory is as it was, whatever anybody says.
    let mine = r#"{"metadata":{"annotations":{"apf.kubernetes.io/autoupdate-spec":"false"}},"spec":{"limited":{"nominalConcurrencyShares":7}}}"#;
    assert_eq!(server.ask("admin", &format!("PATCH {LEVELS}/catch-all {mine}")).head.status, 422);
    let marked = r#"{"metadata":{"annotations":{"apf.kubernetes.io/autoupdate-spec":"false"}}}"#;
    server.json("admin", &format!("PATCH {LEVELS}/catch-all {marked}"));
    server.json("admin", &format!("DELETE {LEVELS}/catch-all"));
    wait_until(|| has(&format!("{LEVELS}/catch-all"), "\"nominalConcurrencyShares\":5"));
    wait_until(|| has(&format!("{LEVELS}/catch-all"), "autoupdate-spec\":\"true\""));
    // What is suggested is left to who says so, and only to them.
    server.json("admin", &format!("PATCH {LEVELS}/system {mine}"));
    let theirs = r#"{"spec":{"limited":{"nominalConcurrencyShares":7}}}"#;
    server.json("admin", &format!("PATCH {LEVELS}/node-high {theirs}"));
    wait_until(|| has(&format!("{LEVELS}/node-high"), "\"nominalConcurrencyShares\":40"));
    assert!(has(&format!("{LEVELS}/system"), "\"nominalConcurrencyShares\":7"));
}

fn number(server: &Server, line: &str) -> usize {
    let metrics = server.ask("admin", "GET /metrics");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let found = metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in\n{metrics}"))
}

/// Asks until something holds.
#[track_caller]
fn wait_until(holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it did not come to hold");
        std::thread::yield_now();
    }
}
