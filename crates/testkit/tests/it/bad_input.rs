//! Input that no client should send: the answer is always an answer, and the server is well after it.

use std::fmt::Write as _;
use std::io::Read;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use testkit::Server;
use testkit::server::{ADMIN_TOKEN, describe, request};
use testkit::wire::{Answer, Connection, Request};

/// An answer that takes longer is a hang.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

const REQUESTS: usize = 10_000;
const CONNECTIONS: usize = 8;

fn server() -> Server {
    Server::start(&["--node", "none", "--store", "memory://"])
}

#[test]
fn bodies_that_are_not_json_are_told_so() {
    let server = server();
    for body in ["{", "{\"metadata\":", "[]", "null", "\"x\"", "1", "\u{1}", "{\"a\":1}}", "{\"a\"}", "{'a':1}", "<a/>"]
    {
        let ask = format!("POST /api/v1/namespaces/default/configmaps {body}");
        let answer = server.ask("admin", &ask);
        let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert!((400..500).contains(&answer.head.status), "{body}: {}", describe(&answer));
        assert_eq!(status["kind"], "Status", "{body}: {}", describe(&answer));
    }
    let deep = "[".repeat(100_000);
    let answer = server.ask("admin", &format!("POST /api/v1/namespaces/default/configmaps {{\"data\":{deep}"));
    assert!((400..500).contains(&answer.head.status), "{}", describe(&answer));
    let big = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(4 << 20));
    let answer = server.ask("admin", &format!("POST /api/v1/namespaces/default/configmaps {big}"));
    assert_eq!(answer.head.status, 413, "{}", describe(&answer));
    server.check("admin", "GET /readyz", "200 ok");
}

#[test]
fn paths_that_lead_nowhere_are_not_found() {
    let server = server();
    server.check("admin", "GET /nothing", "404 404 page not found");
    server.check("admin", "GET /apis/nothing.example.com/v1/things", "404 404 page not found");
    server.check("admin", "GET /api/v1/nothings", "404 the server could not find the requested resource");
    server.check("admin", "GET /api/v1/namespaces/default/pods/none", "404 pods \"none\" not found");
    server.check(
        "admin",
        "POST /api/v1/namespaces/default/pods/none {}",
        "405 the server does not allow this method on the requested resource",
    );
}

#[test]
fn bytes_that_are_not_http_close_the_connection() {
    let server = server();
    let lines = [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET nothing HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        "\0\u{1}\u{2}\r\n\r\n",
        "GET / HTTP/1.1\r\nhost a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        "POST /api/v1/namespaces HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ];
    for line in lines {
        let mut connection = server.endpoint.connect(ANSWER_LIMIT).expect("it listens");
        connection.write(line.as_bytes()).expect("it reads");
        // An answer below 500 or none: what counts is that it does not hang, and goes on with the others.
        if let Ok(head) = connection.head() {
            assert!(head.status < 500, "{line:?}: {}", head.status);
        }
    }
    let mut tcp = std::net::TcpStream::connect(server.address()).expect("it listens");
    std::io::Write::write_all(&mut tcp, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    tcp.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket");
    let mut text = String::new();
    tcp.read_to_string(&mut text).expect("an answer in time");
    assert!(text.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{text:?}");
    server.check("admin", "GET /readyz", "200 ok");
}

#[test]
fn ten_thousand_random_requests_are_answered() {
    let server = server();
    std::thread::scope(|scope| {
        for seed in 0..CONNECTIONS {
            let server = &server;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed as u64);
                let mut connection = None;
                for _ in 0..REQUESTS / CONNECTIONS {
                    one_random_request(server, &mut random, &mut connection);
                }
            });
        }
    });
    server.check("admin", "GET /readyz", "200 ok");
    server.check("admin", "GET /api/v1/namespaces/default", "200 Namespace default");
}

fn one_random_request(server: &Server, random: &mut StdRng, connection: &mut Option<Connection>) {
    let request = random_request(random);
    let mut open = connection.take().unwrap_or_else(|| server.endpoint.connect(ANSWER_LIMIT).expect("it listens"));
    let answer = open.exchange(&request).unwrap_or_else(|error| {
        panic!("{error}\n{}\n{}", String::from_utf8_lossy(&request.encode()), server.trouble());
    });
    if let Some(why) = objection(&request, &answer) {
        let sent = String::from_utf8_lossy(&request.encode()).into_owned();
        panic!("{why}\n{sent}\n{}\n{}", describe(&answer), server.trouble());
    }
    if open.is_open() {
        *connection = Some(open);
    }
}

const NO_RESOURCE: &str = "failed to create RequestInfo: unable to determine kind and namespace from url";

/// What is wrong with an answer, if anything.
fn objection(request: &Request, answer: &Answer) -> Option<String> {
    let status = answer.head.status;
    // Kubernetes answers some faults of the client (a resource version that is no number) with 500 and without a reason,
    // as recorded. What went wrong in the server itself has a reason.
    let faults_of_the_client = status == 500 && {
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        // So it does where something is to be watched or proxied, and nothing is named. To HEAD nobody says why.
        let path = request.target.split('?').next().unwrap_or_default();
        let names_nothing = match path.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
            ["api", _, last] | ["apis", _, _, last] => matches!(last, "watch" | "proxy"),
            _ => false,
        };
        let said = request.method == "HEAD" || String::from_utf8_lossy(&answer.body).contains(NO_RESOURCE);
        names_nothing && said || value["kind"] == "Status" && value["reason"].is_null()
    };
    if status >= 500 && status != 501 && status != 504 && !faults_of_the_client {
        return Some(format!("{status}: the server is at fault"));
    }
    if status < 400 || request.method == "HEAD" {
        return None;
    }
    let json = answer.head.header("content-type").is_some_and(|t| t.starts_with("application/json"));
    // As recorded of the real server: OpenAPI documents that are not there, and forms of them that nobody makes, are
    // refused without a body.
    let of_openapi = request.target.starts_with("/openapi/") && matches!(status, 404 | 406);
    if !json && of_openapi {
        return None;
    }
    if !json {
        return answer.body.is_empty().then(|| format!("{status} without a word"));
    }
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let whole = value["kind"] == "Status" && value["code"] == status && value["message"].is_string();
    (!whole).then(|| format!("{status} without a whole Status: {value}"))
}

const METHODS: &[&str] =
    &["GET", "GET", "GET", "POST", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"];
const ROOTS: &[&str] = &[
    "/api/v1",
    "/api/v1/namespaces/default",
    "/apis/apps/v1/namespaces/default",
    "/apis/apps/v1",
    "/apis/rbac.authorization.k8s.io/v1",
    "/apis/batch/v1/namespaces/kube-system",
    "/apis/coordination.k8s.io/v1/namespaces/default",
    "/api",
    "/apis",
    "/apis/apps",
    "",
    "/",
    "//",
    "/openapi/v3",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/api/v2",
    "/apis/authentication.k8s.io/v1",
    "/apis/authorization.k8s.io/v1",
    "/apis/discovery.k8s.io/v1/namespaces/default",
    "/apis/events.k8s.io/v1",
];
const SEGMENTS: &[&str] = &[
    "pods",
    "configmaps",
    "secrets",
    "deployments",
    "roles",
    "clusterroles",
    "leases",
    "namespaces",
    "nodes",
    "serviceaccounts",
    "default",
    "a",
    "kubernetes",
    "status",
    "scale",
    "log",
    "exec",
    "token",
    "binding",
    "eviction",
    "proxy",
    "tokenreviews",
    "selfsubjectreviews",
    "selfsubjectaccessreviews",
    "kube-root-ca.crt",
    "..",
    ".",
    "%2e%2e",
    "%00",
    "%ff",
    "A_B",
    "events",
    "jobs",
    "services",
    "endpoints",
    "endpointslices",
    "finalize",
    "x.y",
    "-",
    "%F0%9F%98%80",
    "a%2Fb",
];
const QUERIES: &[&str] = &[
    "limit=1",
    "limit=-1",
    "limit=x",
    "continue=abc",
    "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0",
    "resourceVersion=0",
    "resourceVersion=x",
    "resourceVersion=99999999999999999999",
    "resourceVersion=-1",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=NotOlderThan",
    "labelSelector=a%3Db",
    "labelSelector=a+in+(",
    "labelSelector=%21%21",
    "fieldSelector=metadata.name%3Da",
    "fieldSelector=nothing%3Da",
    "dryRun=All",
    "dryRun=x",
    "fieldManager=%01",
    "fieldValidation=Strict",
    "fieldValidation=x",
    "pretty=true",
    "force=true",
    "force=x",
    "watch=1&timeoutSeconds=1&resourceVersion=1",
    "timeoutSeconds=x",
    "propagationPolicy=Foreground",
    "propagationPolicy=x",
    "gracePeriodSeconds=-5",
    "orphanDependents=x",
    "includeObject=Metadata",
    "sendInitialEvents=true",
    "%zz",
    "&&=&",
    "a=%00",
];
const TYPES: &[&str] = &[
    "application/json",
    "application/json",
    "application/json",
    "application/yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
    "",
    "a/b/c",
    "application/json; charset=x",
];
const ACCEPTS: &[&str] = &[
    "application/json",
    "*/*",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "text/html",
    "",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "application/json;as=X;v=v1;g=x",
    ";;;",
];
const BODIES: &[&str] = &[
    "",
    "{",
    "{}",
    "[]",
    "null",
    "{\"metadata\":{\"name\":\"a\"}}",
    "{\"metadata\":{\"name\":\"A!\"}}",
    "{\"metadata\":{\"generateName\":\"a-\"}}",
    "{\"metadata\":[]}",
    "{\"metadata\":{\"name\":1}}",
    "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}",
    "{\"kind\":\"Nothing\",\"apiVersion\":\"x/y/z\"}",
    "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}",
    "{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"v\"}}",
    "{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":1e999}}",
    "{\"metadata\":{\"name\":\"a\",\"labels\":{\"a\":\"!\"},\"ownerReferences\":[{}],\"finalizers\":[\"x\"]}}",
    "[{\"op\":\"add\",\"path\":\"/metadata/labels/a\",\"value\":\"b\"}]",
    "[{\"op\":\"test\",\"path\":\"/nothing\"}]",
    "[{\"op\":\"x\"}]",
    "{\"$patch\":\"delete\"}",
    "{\"spec\":{\"containers\":[{\"$patch\":\"replace\"}]}}",
    "{\"metadata\":null}",
    "metadata: {name: a}",
    "a: &a [*a]",
    "{\"spec\":{\"replicas\":99999999999}}",
    "{\"metadata\":{\"name\":\"a\",\"name\":\"b\"}}",
    "{\"preconditions\":{\"uid\":\"x\"}}",
];

fn random_request(random: &mut StdRng) -> Request {
    let pick = |random: &mut StdRng, from: &[&str]| (*from.choose(random).expect("not empty")).to_owned();
    let mut target = pick(random, ROOTS);
    for _ in 0..random.random_range(0..4) {
        let _ = write!(target, "/{}", pick(random, SEGMENTS));
    }
    if target.is_empty() {
        target.push('/');
    }
    for i in 0..random.random_range(0..3) {
        let _ = write!(target, "{}{}", if i == 0 { '?' } else { '&' }, pick(random, QUERIES));
    }
    let who = *["admin", "admin", "admin", "anonymous", "token:nothing", "jane"].choose(random).expect("not empty");
    let mut request = request(who, "GET /");
    (request.method, request.target) = (pick(random, METHODS), target);
    request.headers.push(("accept".into(), pick(random, ACCEPTS)));
    if random.random_bool(0.7) {
        request.headers.push(("content-type".into(), pick(random, TYPES)));
        let text = pick(random, BODIES);
        request.body = Some(random_body(random, text));
    }
    debug_assert!(request.headers.iter().any(|(_, value)| value.contains(ADMIN_TOKEN)) || who != "admin");
    request
}

/// A body, whole or with some bytes changed.
fn random_body(random: &mut StdRng, text: String) -> Vec<u8> {
    let mut body = text.into_bytes();
    if random.random_bool(0.3) && !body.is_empty() {
        for _ in 0..random.random_range(1..4) {
            let i = random.random_range(0..body.len());
            body[i] = random.random();
        }
    }
    body
}
