//! The agent of a running server has the rights of a node: they are enough to run a pod, and for nothing else.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;
use testkit::Server;
use testkit::server::request;

const PATIENCE: Duration = Duration::from_secs(30);
const CORE: &str = "/api/v1/namespaces/default";
const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ['system:nodes']}
";
const POD: &str = r#"{"metadata":{"name":"reader"},"spec":{"restartPolicy":"Never","containers":[{
    "name":"c","image":"host","command":["sh","-c","test $KEY = v && test -s /var/run/secrets/kubernetes.io/serviceaccount/token"],
    "env":[{"name":"KEY","valueFrom":{"secretKeyRef":{"name":"key","key":"k"}}}]}]}}"#;

/// Waits until the pod is over, and tells its phase and the node it ran on.
fn end_of_pod(server: &Server) -> (String, String) {
    let watch = format!("GET {CORE}/pods?watch=1&fieldSelector=metadata.name%3Dreader&timeoutSeconds=30");
    let mut connection = server.endpoint.connect(PATIENCE).expect("it listens");
    connection.write(&request("admin", &watch).encode()).expect("it reads");
    let head = connection.head().expect("an answer");
    for line in BufReader::new(connection.body(&head, false)).lines() {
        let event: Value = serde_json::from_str(&line.expect("an event")).expect("JSON");
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let phase = text("/object/status/phase");
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            return (phase, text("/object/spec/nodeName"));
        }
    }
    panic!("the pod did not end\n{}", server.trouble());
}

#[test]
fn the_agent_runs_pods_with_the_rights_of_a_node() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    fs::write(&policy, POLICY).expect("a folder of our own");
    let (policy, shown) = (policy.display().to_string(), log.display().to_string());
    let args = ["--store", "memory://", "--audit-policy-file", &policy, "--audit-log-path", &shown];
    let server = Server::start_in(folder.path(), &args);
    for name in ["key", "other"] {
        let made = format!(r#"POST {CORE}/secrets {{"metadata":{{"name":"{name}"}},"stringData":{{"k":"v"}}}}"#);
        server.check("admin", &made, &format!("201 Secret {name}"));
    }
    server.check("admin", &format!("POST {CORE}/pods {}", POD.replace('\n', "")), "201 Pod reader");
    let (phase, name) = end_of_pod(&server);
    assert_eq!(phase, "Succeeded", "{}", server.trouble());

    let node = format!("system:node:{name}");
    server.check(&node, &format!("GET {CORE}/secrets/key"), "200 Secret key");
    let refused = |name: &str, why: &str| {
        format!(
            "403 secrets{name} is forbidden: User \"{node}\" cannot {why} in API group \"\" in the namespace \"default\": node: "
        )
    };
    let unrelated = refused(" \"other\"", "get resource \"secrets\"");
    let why = format!("{unrelated}no relationship found between node '{name}' and this object");
    server.check(&node, &format!("GET {CORE}/secrets/other"), &why);
    let why = format!("{}No Object name found", refused("", "list resource \"secrets\""));
    server.check(&node, &format!("GET {CORE}/secrets"), &why);
    let made = r#"{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"host"}]}}"#;
    let why = format!(
        "403 pods \"x\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{name}\" can only create mirror pods"
    );
    server.check(&node, &format!("POST {CORE}/pods {made}"), &why);

    let log = fs::read_to_string(&log).expect("it is ours");
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for event in &events {
        assert_eq!(event["user"]["groups"].to_string(), r#"["system:nodes","system:authenticated"]"#, "{event}");
        assert_eq!(event["user"]["username"], *node, "{event}");
        assert_ne!(event["responseStatus"]["code"], 403, "{event}");
    }
    let done = |verb: &str, resource: &str| {
        events.iter().any(|event| event["verb"] == verb && event["objectRef"]["resource"] == resource)
    };
    assert!(done("get", "secrets") && done("create", "serviceaccounts") && done("patch", "pods"), "{log}");
}
