//! Pods of a container runtime: what is true in a pod of the sandbox is true in them, and nothing of them is left.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::clients;
use testkit::command::RUN_LIMIT;
use testkit::containerd::Containerd;
use testkit::{Node, Server};

const PODS: &str = "/api/v1/namespaces/default/pods";
const IMAGE: &str = "docker.io/library/tools:1";
const PROGRAMS: [&str; 10] = ["sh", "cat", "sleep", "id", "curl", "touch", "ls", "env", "tr", "head"];

/// A containerd with an image of this machine's programs, and a server whose pods are its; nothing where there can be none.
fn bed(folder: &Path, store: &str) -> Option<(Containerd, Server)> {
    let containerd = containerd(folder)?;
    let server = start(folder, &containerd, store);
    Some((containerd, server))
}

fn containerd(folder: &Path) -> Option<Containerd> {
    if clients::skipped() {
        return None;
    }
    let containerd = Containerd::start()?;
    let archive = folder.join("tools.tar");
    let files = [("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:101:82::/srv:/bin/sh\n")];
    let config = json!({"Env": ["PATH=/bin", "OF_IMAGE=yes"], "Cmd": ["sleep", "infinity"], "WorkingDir": "/etc"});
    testkit::image::save(&archive, "tools:1", &PROGRAMS, &files, &config);
    containerd.import(&archive, IMAGE);
    Some(containerd)
}

fn start(folder: &Path, containerd: &Containerd, store: &str) -> Server {
    let store = if store.is_empty() { Vec::new() } else { vec!["--store", store] };
    let endpoint = containerd.endpoint();
    let args = [vec!["--node", "cri", "--container-runtime-endpoint", &endpoint], store].concat();
    Server::start_in(folder, &args)
}

/// Makes a pod that ends at once when it is to go.
fn pod(server: &Server, name: &str, spec: Value) {
    let mut spec = spec;
    spec["terminationGracePeriodSeconds"] = 0.into();
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
    server.json("admin", &format!("POST {PODS} {pod}"));
}

/// A class of pods whose handler has the same name.
fn runtime_class(server: &Server, name: &str) {
    let class =
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name});
    server.apply(&class.to_string());
}

fn shell(script: &str) -> Value {
    json!({"name": "main", "image": "tools:1", "command": ["sh", "-c", script]})
}

/// Runs a script in a pod to its end, and compares what it printed.
#[track_caller]
fn check(server: &Server, name: &str, more: Value, script: &str, want: &str) {
    let mut container = shell(script);
    let mut spec = json!({"restartPolicy": "Never"});
    for (key, value) in more.as_object().into_iter().flatten() {
        match key.strip_prefix("pod.") {
            Some(key) => spec[key] = value.clone(),
            None => container[key] = value.clone(),
        }
    }
    spec["containers"] = json!([container]);
    pod(server, name, spec);
    assert_eq!(server.logs_when(name, "Succeeded"), want, "{name}");
}

#[track_caller]
fn until(server: &Server, pod: &str, holds: impl Fn(&Value) -> bool) -> Value {
    server.until(&format!("GET {PODS}/{pod}"), RUN_LIMIT, |_, pod| holds(pod))
}

fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// Deletes every pod; then nothing is left with the runtime.
#[track_caller]
fn nothing_left(server: &Server, containerd: &Containerd) {
    server.kubectl("delete pods --all --grace-period=0 --wait=true").ok();
    let began = Instant::now();
    while !containerd.left().is_empty() {
        assert!(began.elapsed() < RUN_LIMIT, "{:#?}\n{}\n{}", containerd.left(), server.trouble(), containerd.log());
        std::thread::yield_now();
    }
}

#[test]
fn what_a_pod_finds() {
    let folder = tempfile::tempdir().unwrap();
    let Some((containerd, server)) = bed(folder.path(), "memory://") else { return };
    server.until("GET /api/v1/nodes", RUN_LIMIT, |_, nodes| {
        let told = &nodes["items"][0]["status"]["nodeInfo"]["containerRuntimeVersion"];
        told.as_str().is_some_and(|it| it.starts_with("containerd://1."))
    });

    // The tutorial's way: refused, then allowed, with nothing but what lies in the pod.
    let ask = "D=/var/run/secrets/kubernetes.io/serviceaccount; curl --silent --cacert $D/ca.crt --header \
        \"Authorization: Bearer $(cat $D/token)\" --output /dev/null --write-out '%{http_code}\\n' \
        https://kubernetes.default.svc/api/v1/namespaces/$(cat $D/namespace)/pods";
    check(&server, "refused", json!({}), ask, "403\n");
    server.kubectl("create role reads --verb=get,list --resource=pods").ok();
    server.kubectl("create rolebinding reads --role=reads --serviceaccount=default:default").ok();
    check(&server, "allowed", json!({}), ask, "200\n");

    let env = json!({"env": [{"name": "A", "value": "1"}, {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
    let say = "echo $A $NAME $OF_IMAGE $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT $HOSTNAME; pwd";
    check(&server, "env", env, say, "1 env yes 10.96.0.1:443 env\n/etc\n");
    server.kubectl("create configmap settings --from-literal=colour=red --from-literal=size=1").ok();
    let volumes = json!({
        "pod.volumes": [
            {"name": "settings", "configMap": {"name": "settings"}}, {"name": "work", "emptyDir": {}},
            {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
        "volumeMounts": [
            {"name": "settings", "mountPath": "/settings"}, {"name": "settings", "mountPath": "/one", "subPath": "size"},
            {"name": "work", "mountPath": "/work"}, {"name": "work", "mountPath": "/part", "subPath": "a/b"},
            {"name": "fast", "mountPath": "/fast"},
        ],
    });
    let use_them = "cat /settings/colour; echo; cat /one; echo; echo x > /part/file; cat /work/a/b/file; \
        head -c 2000000 /dev/zero > /fast/file 2>/dev/null || echo full; touch /settings/new 2>/dev/null || echo read-only";
    check(&server, "volumes", volumes, use_them, "red\n1\nx\nfull\nread-only\n");
    let user = json!({"securityContext": {"runAsUser": 101, "readOnlyRootFilesystem": true}});
    check(&server, "user", user, "id -u; touch /x 2>/dev/null || echo read-only", "101\nread-only\n");
    let names = "cat /etc/hostname; head -c 32 /etc/resolv.conf";
    check(&server, "names", json!({"pod.hostname": "other"}), names, "other\nsearch default.svc.cluster.local");
    nothing_left(&server, &containerd);
    server.stop();
    assert_eq!(containerd.left(), Vec::<String>::new());
}

const SERVE: &str = "import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s):
        s.send_response(200)
        s.end_headers()
        s.wfile.write((s.path + ' is here\\n').encode())
http.server.ThreadingHTTPServer(('', 8080), H).serve_forever()";

#[test]
fn services_and_policies_are_the_sandboxs() {
    let folder = tempfile::tempdir().unwrap();
    let Some((containerd, server)) = bed(folder.path(), "memory://") else { return };
    runtime_class(&server, "sandbox");
    let web = json!({"name": "main", "image": "host", "command": ["python3", "-c", SERVE],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    pod(&server, "web", json!({"runtimeClassName": "sandbox", "containers": [web]}));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    let service = server.json("admin", &format!("POST /api/v1/namespaces/default/services {service}"));
    let web = until(&server, "web", |pod| state(pod)["ready"] == true);
    // Pods of both are in one network: by name, by the service's address, by the pod's own.
    let again = "curl --silent --max-time 5 --retry 30 --retry-all-errors --retry-delay 1";
    check(&server, "by-name", json!({}), &format!("{again} http://web/name"), "/name is here\n");
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    check(&server, "by-service", json!({}), &format!("{again} http://{address}/service"), "/service is here\n");
    let address = web["status"]["podIP"].as_str().expect("an address");
    check(&server, "by-pod", json!({}), &format!("{again} http://{address}:8080/pod"), "/pod is here\n");
    // Policies say who gets in, and who gets out.
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = |name: &str, spec: Value| {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec});
        server.json("admin", &format!("POST {policies} {policy}"));
    };
    let of = |name: &str| json!({"matchLabels": {"app": name}});
    policy(
        "in",
        json!({"podSelector": of("web"), "ingress": [{"from": [{"podSelector": of("friend")}, {"podSelector": of("stuck")}]}]}),
    );
    policy("out", json!({"podSelector": of("stuck"), "policyTypes": ["Egress"]}));
    let once = "curl --silent --max-time 2";
    let refused = format!("while {once} http://{address}:8080/x; do :; done; echo no way");
    check(&server, "stranger", json!({}), &format!("{refused} in"), "no way in\n");
    check(&server, "friend", json!({}), &format!("{again} http://web/friend"), "/friend is here\n");
    check(&server, "stuck", json!({}), &format!("{once} http://{address}:8080/x || echo no way out"), "no way out\n");
    nothing_left(&server, &containerd);
}

#[test]
fn a_node_elsewhere_has_a_runtime_too() {
    let folder = tempfile::tempdir().unwrap();
    let Some(containerd) = containerd(folder.path()) else { return };
    let server = Server::start_in(folder.path(), &["--node", "none", "--store", "memory://"]);
    let endpoint = containerd.endpoint();
    let args = ["--node", "cri", "--container-runtime-endpoint", &endpoint];
    let node = Node::start_with(&server, "edge", folder.path(), &args);
    server.until("GET /api/v1/nodes/edge", RUN_LIMIT, |_, edge| {
        let told = &edge["status"]["nodeInfo"]["containerRuntimeVersion"];
        told.as_str().is_some_and(|it| it.starts_with("containerd://1."))
    });

    // The pod's own files, its identity and its network.
    let ask = "D=/var/run/secrets/kubernetes.io/serviceaccount; curl --silent --cacert $D/ca.crt --header \
        \"Authorization: Bearer $(cat $D/token)\" --output /dev/null --write-out '%{http_code}\\n' \
        https://kubernetes.default.svc/api/v1/namespaces/$(cat $D/namespace)/pods";
    let script = format!("echo $OF_IMAGE; {ask}");
    check(&server, "asks", json!({}), &script, "yes\n403\n");
    let asks = server.json("admin", &format!("GET {PODS}/asks"));
    assert_eq!(asks["spec"]["nodeName"], "edge");
    assert!(state(&asks)["containerID"].as_str().unwrap_or_default().starts_with("containerd://"), "{asks}");
    nothing_left(&server, &containerd);
    node.stop();
    assert_eq!(containerd.left(), Vec::<String>::new());
}

#[test]
fn how_a_pod_lives() {
    let folder = tempfile::tempdir().unwrap();
    let Some((containerd, server)) = bed(folder.path(), "memory://") else { return };
    // Its end, in its own words.
    let mut container = shell("echo out; echo err >&2; echo because > /dev/termination-log; exit 7");
    pod(&server, "ends", json!({"restartPolicy": "Never", "containers": [container.clone()]}));
    let ended = until(&server, "ends", |it| state(it)["state"]["terminated"].is_object());
    let terminated = &state(&ended)["state"]["terminated"];
    assert_eq!((terminated["exitCode"].as_i64(), terminated["reason"].as_str()), (Some(7), Some("Error")));
    assert_eq!(terminated["message"], "because\n");
    assert!(terminated["containerID"].as_str().unwrap().starts_with("containerd://"), "{terminated}");
    let log = server.kubectl("logs ends").ok();
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");

    // Again and again.
    container["command"][2] = "test -e /work/seen && exec sleep 1000; touch /work/seen; exit 1".into();
    container["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    let volumes = json!([{"name": "work", "emptyDir": {}}]);
    pod(&server, "again", json!({"restartPolicy": "OnFailure", "containers": [container], "volumes": volumes}));
    let again =
        until(&server, "again", |it| state(it)["restartCount"] == 1 && state(it)["state"]["running"].is_object());
    assert_eq!(state(&again)["lastState"]["terminated"]["exitCode"], 1);

    // Commands, with what they print, read and come to.
    let said = server.kubectl("exec again -- sh -c pwd").ok();
    assert_eq!(said, "/etc\n");
    server.kubectl("exec again -- cat /nowhere").exits(1);
    server.kubectl("exec again -- ls /nowhere").exits(2);
    let read = server.kubectl_with("exec -i again -- cat", "some words\n").ok();
    assert_eq!(read, "some words\n");

    // Probes: by a command of the runtime's, and over its network.
    let mut probed = shell("sleep 1000");
    probed["readinessProbe"] = json!({"exec": {"command": ["sh", "-c", "test -e /ready"]}, "periodSeconds": 1});
    probed["livenessProbe"] = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 100});
    pod(&server, "probed", json!({"containers": [probed]}));
    let waits = until(&server, "probed", |it| state(it)["state"]["running"].is_object());
    assert_eq!(state(&waits)["ready"], false);
    server.kubectl("exec probed -- touch /ready").ok();
    until(&server, "probed", |it| state(it)["ready"] == true);

    // Which runtime: the class says.
    ["sandbox", "runc", "gvisor"].into_iter().for_each(|name| runtime_class(&server, name));
    check(&server, "by-runc", json!({"pod.runtimeClassName": "runc"}), "echo $OF_IMAGE", "yes\n");
    let host = json!({"name": "main", "image": "host", "command": ["sh", "-c", "echo $OF_IMAGE here"]});
    let spec = json!({"restartPolicy": "Never", "runtimeClassName": "sandbox", "containers": [host]});
    pod(&server, "by-sandbox", spec);
    assert_eq!(server.logs_when("by-sandbox", "Succeeded"), "here\n");
    pod(&server, "by-none", json!({"runtimeClassName": "gvisor", "containers": [shell("true")]}));
    let events = "GET /api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dby-none";
    let why = "failed to get sandbox runtime: no runtime for \"gvisor\" is configured";
    server.until(events, RUN_LIMIT, |_, events| {
        let mut all = events["items"].as_array().into_iter().flatten();
        all.any(|it| {
            it["reason"] == "FailedCreatePodSandBox" && it["message"].as_str().unwrap_or_default().contains(why)
        })
    });
    nothing_left(&server, &containerd);
}

#[test]
fn pods_outlive_a_killed_agent() {
    let folder = tempfile::tempdir().unwrap();
    let Some((containerd, server)) = bed(folder.path(), "") else { return };
    let mut container = shell("i=0; while :; do echo $i; i=$((i + 1)); sleep 0.05; done");
    container["name"] = "main".into();
    let mut ends = shell("until test -e /work/go; do sleep 0.05; done; echo last words; exit 7");
    ends["name"] = "side".into();
    ends["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    let volumes = json!([{"name": "work", "emptyDir": {}}]);
    pod(&server, "web", json!({"restartPolicy": "Never", "containers": [container, ends], "volumes": volumes}));
    let before = until(&server, "web", |it| it["status"]["phase"] == "Running");
    let uid = before["metadata"]["uid"].as_str().unwrap();
    server.kill();
    std::fs::write(folder.path().join("data/node/pods").join(uid).join("volumes/work/go"), "").unwrap();
    let server = start(folder.path(), &containerd, "");
    let named = |pod: &Value, name: &str| {
        let all = pod["status"]["containerStatuses"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap().clone()
    };
    let after = until(&server, "web", |it| named(it, "side")["state"]["terminated"].is_object());
    assert_eq!(named(&after, "side")["state"]["terminated"]["exitCode"], 7);
    assert_eq!(named(&after, "main")["containerID"], named(&before, "main")["containerID"]);
    assert_eq!(named(&after, "main")["restartCount"], 0);
    assert_eq!(server.kubectl("logs web -c side").ok(), "last words\n");
    // The network is there again: what asks by name is answered.
    let ask = "exec web -c main -- curl --silent --insecure --output /dev/null --write-out %{http_code} https://kubernetes.default.svc/version";
    assert_eq!(server.kubectl(ask).ok(), "200");
    nothing_left(&server, &containerd);
    server.stop();
}
