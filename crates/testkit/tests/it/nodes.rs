//! Nodes of other processes than the server: what is asked of their pods goes there, and to nobody else. And what looks into pods:
//! proxies, ephemeral containers.

use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::clients::{kubectl, skipped};
use testkit::command::{RUN_LIMIT, run, spawn};
use testkit::server::lines_of;
use testkit::{Node, Server};

/// A pod on a node, with a script.
fn pod(server: &Server, name: &str, node: &str, containers: Value) {
    let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": containers});
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
    server.json("admin", &format!("POST /api/v1/namespaces/default/pods {pod}"));
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "host", "command": ["sh", "-c", script]})
}

/// Asks until the answer is so.
#[track_caller]
fn until(server: &Server, ask: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let answer = server.ask("admin", ask);
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.head.status == 200 && holds(&value) {
            return value;
        }
        assert!(began.elapsed() < RUN_LIMIT, "{ask} never was as wanted: {value:#}\n{}", server.trouble());
    }
}

fn running(server: &Server, name: &str) -> Value {
    until(server, &format!("GET /api/v1/namespaces/default/pods/{name}"), |pod| pod["status"]["phase"] == "Running")
}

const SERVE: &str = "import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s):
        s.send_response(302 if s.path == '/away' else 200)
        if s.path == '/away': s.send_header('Location', '/there')
        s.end_headers()
        s.wfile.write((s.path + ' ' + str(s.headers['X-Mine']) + ' ' + str(s.headers['Authorization'])).encode())
    do_POST = do_OPTIONS = do_GET
    def do_HEAD(s):
        s.send_response(200)
        s.send_header('Content-Length', '12345')
        s.end_headers()
http.server.ThreadingHTTPServer(('', 8080), H).serve_forever()";

fn web() -> Value {
    json!([{"name": "main", "image": "host", "command": ["python3", "-c", SERVE],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}])
}

#[test]
fn a_node_elsewhere_serves_its_pods() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&server, "edge", folder.path());
    let object = until(&server, "GET /api/v1/nodes/edge", |node| {
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().is_some_and(|port| port > 0)
    });
    pod(&server, "talk", "edge", json!([shell("main", "echo hello; exec sleep 1000")]));
    pod(&server, "web", "edge", web());
    running(&server, "talk");
    let logs = "GET /api/v1/namespaces/default/pods/talk/log";
    let began = Instant::now();
    loop {
        let answer = server.ask("admin", logs);
        if answer.body == b"hello\n" {
            break;
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            began.elapsed() < RUN_LIMIT,
            "{text}\n{}",
            std::fs::read_to_string(folder.path().join("node.stderr")).unwrap()
        );
    }
    // The node's own paths, for who may.
    server.check("admin", "GET /api/v1/nodes/edge/proxy/healthz", "200 ok");
    let refused = r#"403 nodes "edge" is forbidden: User "ann" cannot get resource "nodes/proxy" in API group "" at the cluster scope"#;
    server.check("ann", "GET /api/v1/nodes/edge/proxy/healthz", refused);
    let summary = server.json("admin", "GET /api/v1/nodes/edge/proxy/stats/summary");
    assert_eq!(summary["node"]["nodeName"], "edge");
    if let Some(first) = summary["pods"].as_array().unwrap().first() {
        assert!(first["podRef"]["name"].is_string());
    }
    // The server is somebody to its nodes who may do what they are asked for, and nothing else.
    let may = |resource: &str, subresource: &str| {
        let attributes = json!({"verb": "get", "resource": resource, "subresource": subresource});
        let spec = json!({"user": "kube-apiserver-kubelet-client", "groups": ["system:authenticated"], "resourceAttributes": attributes});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        server.json("admin", &format!("POST {path} {review}"))["status"]["allowed"] == true
    };
    assert!(may("nodes", "proxy") && !may("secrets", "") && !may("pods", ""));
    // Nobody else is answered at the node's address.
    let port = &object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
    let addresses = object["status"]["addresses"].as_array().unwrap();
    let address = addresses.iter().find(|it| it["type"] == "InternalIP").unwrap()["address"].as_str().unwrap();
    let url = format!("https://{address}:{port}");
    let curl = |path: &str, token: Option<&str>| {
        let mut curl = testkit::clients::curl();
        curl.arg("--cacert").arg(server.ca()).args(["--write-out", " %{http_code}"]);
        if let Some(token) = token {
            curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        run(curl.arg(format!("{url}{path}")), "", RUN_LIMIT).ok()
    };
    assert_eq!(curl("/healthz", None), "Unauthorized 401");
    assert_eq!(curl("/containerLogs/default/talk/main", Some("nonsense")), "Unauthorized 401");
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = server.json("admin", &format!("POST /api/v1/namespaces/default/serviceaccounts/default/token {asked}"));
    let token = token["status"]["token"].as_str().unwrap();
    let answer = curl("/containerLogs/default/talk/main", Some(token));
    assert!(
        answer.ends_with(" 403")
            && answer.starts_with("Forbidden (user=system:serviceaccount:default:default, verb=get"),
        "{answer}"
    );
    // A pod behind the proxy, by itself and by a service.
    until(&server, "GET /api/v1/namespaces/default/pods/web", |pod| {
        pod["status"]["containerStatuses"][0]["ready"] == true
    });
    proxied(&server);
    node.stop();
}

/// What the proxies of pods and services say.
fn proxied(server: &Server) {
    let path = "/api/v1/namespaces/default/pods/web:8080/proxy";
    server.check("admin", &format!("GET {path}/a/b?c=d"), "200 /a/b?c=d None None");
    server.check("admin", "GET /api/v1/namespaces/default/pods/web/proxy/", "200 / None None");
    server.check("admin", &format!("OPTIONS {path}/a"), "200 /a None None");
    let answer = server.ask("admin", &format!("HEAD {path}/a"));
    assert_eq!((answer.head.status, answer.head.header("content-length"), answer.body.len()), (200, Some("12345"), 0));
    let answer = server.ask("admin", &format!("GET {path}"));
    let place = |answer: &testkit::wire::Answer| answer.head.header("location").unwrap_or_default().to_owned();
    assert_eq!((answer.head.status, place(&answer)), (301, format!("{path}/")));
    let answer = server.ask("admin", &format!("GET {path}/away"));
    assert_eq!((answer.head.status, place(&answer)), (302, format!("{path}/there")));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    let service = server.json("admin", &format!("POST /api/v1/namespaces/default/services {service}"));
    let began = Instant::now();
    for name in ["web:80", "web:http", "http:web:http"] {
        loop {
            let answer = server.ask("admin", &format!("GET /api/v1/namespaces/default/services/{name}/proxy/x"));
            if answer.head.status == 200 {
                assert_eq!(answer.body, b"/x None None");
                break;
            }
            assert_eq!(answer.head.status, 503, "{}", String::from_utf8_lossy(&answer.body));
            assert!(began.elapsed() < RUN_LIMIT, "{}", String::from_utf8_lossy(&answer.body));
        }
    }
    // The service has its port on the machine of the node.
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a port");
    loop {
        let mut curl = testkit::clients::curl();
        let answer = run(curl.args(["--noproxy", "*", &format!("http://127.0.0.1:{port}/y")]), "", RUN_LIMIT);
        if answer.stdout == "/y None None" {
            break;
        }
        assert!(began.elapsed() < RUN_LIMIT, "{answer:?}\n{}", server.trouble());
    }
    server.check(
        "ann",
        &format!("GET {path}/"),
        r#"403 pods "web:8080" is forbidden: User "ann" cannot get resource "pods/proxy" in API group "" in the namespace "default""#,
    );
}

#[test]
fn proxies_lead_to_pods_of_the_own_node() {
    let server = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    let nodes = until(&server, "GET /api/v1/nodes", |nodes| !nodes["items"].as_array().unwrap().is_empty());
    let name = nodes["items"][0]["metadata"]["name"].as_str().unwrap();
    pod(&server, "web", name, web());
    until(&server, "GET /api/v1/namespaces/default/pods/web", |pod| {
        pod["status"]["containerStatuses"][0]["ready"] == true
    });
    proxied(&server);
    server.check("admin", &format!("GET /api/v1/nodes/{name}/proxy/healthz"), "200 ok");
}

#[test]
fn kubectl_reaches_pods_of_a_node_elsewhere() {
    if skipped() {
        return;
    }
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let folder = tempfile::tempdir().unwrap();
    let _node = Node::start(&server, "edge", folder.path());
    pod(&server, "web", "edge", web());
    pod(&server, "talk", "edge", json!([{"name": "main", "image": "host", "stdin": true, "command": ["cat"]}]));
    running(&server, "talk");
    until(&server, "GET /api/v1/namespaces/default/pods/web", |pod| {
        pod["status"]["containerStatuses"][0]["ready"] == true
    });
    let kubectl = |words: &[&str], stdin: &str| run(server.client(kubectl()).args(words), stdin, RUN_LIMIT);
    for framing in ["true", "false"] {
        let mut exec = server.client(testkit::clients::kubectl());
        exec.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", framing);
        let ran = run(exec.args(["exec", "-i", "talk", "--", "sh", "-c", "cat; exit 7"]), "typed\n", RUN_LIMIT);
        assert_eq!((ran.code, ran.stdout.as_str()), (7, "typed\n"), "{}\n{}", ran.stderr, server.trouble());
    }
    let raw = kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/web:http/proxy/raw"], "");
    assert!(raw.code != 0 || raw.stdout.starts_with("/raw"), "{}", raw.stderr);
    let mut forward = server.client(testkit::clients::kubectl());
    let mut forward =
        spawn(forward.args(["port-forward", "pod/web", ":8080"]).stdout(Stdio::piped()).stderr(Stdio::null()));
    let (lines, _drain) = lines_of(forward.stdout.take().unwrap());
    let line = lines.recv_timeout(RUN_LIMIT).unwrap();
    let address = line.split_whitespace().nth(2).unwrap();
    let answer = run(testkit::clients::curl().arg(format!("http://{address}/forwarded")), "", RUN_LIMIT).ok();
    assert!(answer.starts_with("/forwarded"), "{line}: {answer}");
    let _ = forward.kill();
    let _ = forward.wait();
}

#[test]
fn kubectl_debugs_a_pod() {
    if skipped() {
        return;
    }
    let server = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    let nodes = until(&server, "GET /api/v1/nodes", |nodes| !nodes["items"].as_array().unwrap().is_empty());
    pod(
        &server,
        "web",
        nodes["items"][0]["metadata"]["name"].as_str().unwrap(),
        json!([{"name": "main", "image": "host", "command": ["sleep", "12345"]}]),
    );
    running(&server, "web");
    // `script` makes the terminal that -t asks for.
    let inside = "tr '\\\\0' ' ' < /proc/1/cmdline; tty; exit";
    let line = format!(
        "printf '%s\\n' \"{inside}\" | {} debug -i web --image=host --target=main --container=look -- sh",
        testkit::clients::kubectl().display()
    );
    let ran = run(server.client("sh").arg("-c").arg(&line), "", RUN_LIMIT);
    let logs = server.kubectl("logs web -c look").ok();
    assert!(logs.contains("sleep 12345"), "{logs}\n{}\n{}\n{}", ran.stdout, ran.stderr, server.trouble());
    let pod = server.json("admin", "GET /api/v1/namespaces/default/pods/web");
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["targetContainerName"], "main");
    assert_eq!(pod["status"]["phase"], "Running");
    // With a terminal, typed at and looked at.
    let line = format!(
        "{} debug -it web --image=host --target=main --container=term -- sh",
        testkit::clients::kubectl().display()
    );
    let mut script = server.client("script");
    script.env("SHELL", "/bin/sh").args(["-qec", &line, "/dev/null"]);
    let ran = run(&mut script, "tty; exit\n", RUN_LIMIT);
    assert!(ran.stdout.contains("/dev/pts/0"), "{:?} {}", ran.stdout, ran.stderr);
}
