//! How a server ends: watches end cleanly, what was acknowledged is there, and load balancers are told before.

use std::io::Read;
use std::time::{Duration, Instant};

use testkit::Server;
use testkit::clients;
use testkit::server::request;

const PATIENCE: Duration = Duration::from_secs(20);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> String {
    format!(r#"POST {MAPS} {{"metadata":{{"name":"{name}"}}}}"#)
}

#[test]
fn watches_end_cleanly_and_nobody_is_let_in_any_more() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let endpoint = server.endpoint.clone();
    let mut watch = endpoint.connect(PATIENCE).expect("it listens");
    watch.write(&request("admin", &format!("GET {MAPS}?watch=1")).encode()).expect("it reads");
    let head = watch.head().expect("an answer");
    assert_eq!(head.status, 200);
    // An idle connection is nothing to wait for.
    let mut idle = endpoint.connect(PATIENCE).expect("it listens");
    idle.exchange(&request("admin", "GET /livez")).expect("an answer");
    // The same over HTTP/2: curl tells a stream that ends from one that is reset by its exit code.
    let mut curl = clients::curl();
    curl.arg("--no-buffer").arg("--http2").arg("--cacert").arg(server.ca());
    curl.args(["--header", &format!("Authorization: Bearer {}", testkit::server::ADMIN_TOKEN)]);
    curl.arg(format!("{}{MAPS}?watch=1&allowWatchBookmarks=true", server.url));
    curl.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut curl = curl.spawn().expect("curl runs");
    // Its first event: it is being served.
    let mut first = [0; 1];
    server.check("admin", &map("seen"), "201 ConfigMap seen");
    curl.stdout.as_mut().expect("piped").read_exact(&mut first).expect("an event");
    let took = server.stop();
    let mut events = String::new();
    watch.body(&head, false).read_to_string(&mut events).expect("an end, and no reset");
    assert!(events.contains("\"seen\""), "{events}");
    let curl = curl.wait_with_output().expect("curl ends");
    assert!(curl.status.success(), "curl: {}", String::from_utf8_lossy(&curl.stderr));
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert!(endpoint.connect(PATIENCE).is_err(), "somebody listens still");
}

#[test]
fn writes_among_which_it_ends_are_acknowledged_or_refused() {
    const WRITERS: usize = 16;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_in(folder.path(), &["--node", "none"]);
    let begun: Vec<_> = (0..WRITERS)
        .map(|i| {
            let whole = request("admin", &map(&format!("m-{i}"))).encode();
            let mut connection = server.endpoint.connect(PATIENCE).expect("it listens");
            connection.write(&whole[..whole.len() - 1]).expect("it reads");
            (connection, whole[whole.len() - 1])
        })
        .collect();
    // All of them wait for the last byte of their bodies when the server is told to end.
    let inflight = || {
        let metrics = server.ask("admin", "GET /metrics");
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let line =
            metrics.lines().find(|line| line.starts_with("apiserver_current_inflight_requests{request_kind=\"mut"));
        line.and_then(|line| line.split_whitespace().last()?.parse::<usize>().ok()).unwrap_or_default()
    };
    wait_until(|| inflight() >= WRITERS);
    let ends = std::thread::spawn(move || server.stop());
    let acknowledged: Vec<usize> = begun
        .into_iter()
        .enumerate()
        .filter_map(|(i, (mut connection, last))| {
            connection.write(&[last]).ok()?;
            (connection.head().ok()?.status == 201).then_some(i)
        })
        .collect();
    let took = ends.join().expect("it ends");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    let server = Server::start_in(folder.path(), &["--node", "none"]);
    for i in acknowledged {
        server.check("admin", &format!("GET {MAPS}/m-{i}"), &format!("200 ConfigMap m-{i}"));
    }
}

#[test]
fn readiness_ends_before_service_does() {
    let server = Server::start(&["--node", "none", "--store", "memory://", "--shutdown-delay-duration", "1m"]);
    let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).expect("a process");
    server.check("anonymous", "GET /readyz", "200 ok");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    wait_until(|| server.ask("anonymous", "GET /readyz").head.status == 500);
    let report = server.ask("admin", "GET /readyz?verbose");
    let report = String::from_utf8_lossy(&report.body).into_owned();
    assert!(report.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{report}");
    server.check("anonymous", "GET /livez", "200 ok");
    server.check("anonymous", "GET /readyz?exclude=shutdown", "200 ok");
    server.check("admin", &map("late"), "201 ConfigMap late");
    // Who asks again means it.
    assert!(server.stop() < Duration::from_secs(1));
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
