//! The agent with real pods in the sandbox, against an API server in memory: what becomes of pods, and what they find.

mod ephemeral;
mod limits;
mod streams;

use crate::fake_api::FakeApi;
use http_body_util::BodyExt;
use kemudi_client::Client;
use node::sandbox::Exit;
use node::{Attachment, ClusterNetwork, Node, NodeConfig};
use serde_json::{Value, json};
use sha2::Digest;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// The ordinary user that these tests run as once more when they are root.
const ORDINARY: u32 = 12345;

struct Bed {
    api: FakeApi,
    node: Node,
    images: images::Store,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        Bed::over(None)
    }

    /// Over another runtime than the sandbox.
    fn over(runtime: Option<Arc<dyn node::runtime::Runtime>>) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let api = FakeApi::default();
        let in_namespace =
            |name: &str, data: Value| json!({"metadata": {"namespace": "shop", "name": name}, "data": data});
        api.put("configmaps", in_namespace("kube-root-ca.crt", json!({"ca.crt": "PEM\n"})));
        api.put("configmaps", in_namespace("settings", json!({"color": "blue"})));
        api.put("secrets", in_namespace("keys", json!({"password": "MTIzNA=="})));
        api.put(
            "services",
            json!({"metadata": {"namespace": "shop", "name": "db"},
                "spec": {"clusterIP": "10.96.3.4", "ports": [{"port": 5432, "protocol": "TCP"}]}}),
        );
        let greet: node::ApiAccess = Arc::new(|mut stream| {
            Box::pin(async move {
                let _ = stream.write_all(b"from the API\n").await;
            })
        });
        let images = images::Store::open(dir.path().join("images"));
        let config = NodeConfig {
            name: "n1".into(),
            client: Client::with_transport(Arc::new(api.clone())),
            observer: Client::with_transport(Arc::new(api.clone())),
            node_ports: false,
            outside: node::WayOut::default(),
            state_dir: dir.path().join("node"),
            images: images.clone(),
            api: greet,
            api_host_address: "127.0.0.1:6443".parse().unwrap(),
            hidden: vec![],
            cluster: ClusterNetwork::default(),
            version: "v1.37.2".into(),
            serving: None,
            keep: false,
        };
        let node = match runtime {
            Some(runtime) => Node::start_with(config, runtime),
            None => Node::start(config),
        };
        Bed { api, node: node.unwrap(), images, _dir: dir }
    }

    /// Makes a pod from its spec, bound to the node.
    fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = "n1".into();
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                let defaults = container.as_object_mut().unwrap();
                defaults.entry("image").or_insert("host".into());
            }
        }
        let metadata = json!({"namespace": "shop", "name": name, "generation": 1, "labels": {"app": "web"}});
        self.api.put("pods", json!({"metadata": metadata, "spec": spec}));
    }

    /// A pod with one container that runs a script and is not started again.
    fn script(&self, name: &str, script: &str) {
        self.pod(name, json!({"restartPolicy": "Never", "containers": [shell("main", script)]}));
    }

    async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let look = |api: &FakeApi| api.get("pods", "shop", name).filter(|pod| holds(pod));
        self.api.until(&format!("{name}: {what}"), look).await
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    async fn gone(&self, name: &str) {
        self.api.until("gone", |api| api.get("pods", "shop", name).is_none().then_some(())).await;
    }

    /// The log, or the answer's code and message.
    async fn log(&self, path: &str) -> String {
        let request = http::Request::get(format!("/containerLogs/shop/{path}")).body(()).unwrap();
        let answer = self.node.handle(request).await;
        let code = answer.status().as_u16();
        let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        if code == 200 { text } else { format!("{code} {text}") }
    }

    /// Waits until a pod's log is this.
    async fn logged(&self, name: &str, text: &str) {
        self.phase(name, "Running").await;
        let began = Instant::now();
        while self.log(&format!("{name}/main")).await != text {
            assert!(began.elapsed() < Duration::from_secs(20), "{name} never printed {text:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Runs a script in a pod to its end; its output.
    async fn run(&self, name: &str, spec: Value) -> String {
        self.pod(name, spec);
        self.until(name, "ended", |pod| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed")
            .await;
        self.log(&format!("{name}/main")).await
    }

    fn events(&self, name: &str) -> Vec<String> {
        let about = |event: &Value| event["involvedObject"]["name"] == name;
        let reason = |event: &Value| event["reason"].as_str().unwrap_or_default().to_owned();
        self.api.list("events").iter().filter(|event| about(event)).map(reason).collect()
    }
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["/bin/sh", "-c", script]})
}

fn with(mut value: Value, more: Value) -> Value {
    for (name, field) in more.as_object().unwrap() {
        value[name] = field.clone();
    }
    value
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let all = pod["status"]["conditions"].as_array().unwrap();
    all.iter().find(|condition| condition["type"] == kind).unwrap()
}

#[tokio::test]
async fn in_pod_environment() {
    let bed = Bed::new();
    let script = "echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT $KUBERNETES_PORT $DB_SERVICE_HOST $HOSTNAME $COLOR $PASSWORD $NAME $IP
        cd /var/run/secrets/kubernetes.io/serviceaccount; cat ca.crt; cat token; echo; cat namespace; echo; ls -A | grep -v '^\\.\\.2'
        readlink token; stat -L -c %a token ca.crt; touch x 2>/dev/null || echo read-only
        cat /etc/resolv.conf; cat /etc/hostname; grep -c web /etc/hosts
        exec 3<>/dev/tcp/10.96.0.1/443; cat <&3
        getent hosts kubernetes.default.svc kubernetes.default kubernetes.default.svc.cluster.local | awk '{print $1}' | sort | uniq -c
        getent hosts db | awk '{print $1}'; getent hosts nothing.shop.svc || echo unknown";
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let container = json!({
        "name": "main", "command": ["/bin/bash", "-c", script],
        "env": [
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
            {"name": "NAME", "valueFrom": field("metadata.name")},
            {"name": "IP", "valueFrom": field("status.podIP")},
        ],
        "volumeMounts": [{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
    });
    let volume = json!({"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
    let spec =
        json!({"restartPolicy": "Never", "serviceAccountName": "sa", "containers": [container], "volumes": [volume]});
    let search = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let search = search.lines().find_map(|line| line.strip_prefix("search")).unwrap_or_default().trim_end();
    assert_eq!(
        bed.run("web", spec).await,
        format!(
            "10.96.0.1:443 tcp://10.96.0.1:443 10.96.3.4 web blue 1234 web 10.244.0.2\nPEM\ntoken-1-of-sa-for-web\nshop\n\
             ..data\nca.crt\nnamespace\ntoken\n..data/token\n644\n644\nread-only\n\
             search shop.svc.cluster.local svc.cluster.local cluster.local{search}\nnameserver 10.96.0.10\noptions ndots:5\n\
             web\n1\nfrom the API\n      3 10.96.0.1\n10.96.3.4\nunknown\n"
        )
    );
}

#[tokio::test]
async fn status_from_start_to_end() {
    let bed = Bed::new();
    bed.script("job", "echo out; echo err >&2; test -f /tmp/go; until test -f /dev/termination-log; do :; done; printf because > /dev/termination-log; exit 3");
    let pod = bed.phase("job", "Failed").await;
    let status = &pod["status"];
    let container = &status["containerStatuses"][0];
    let terminated = &container["state"]["terminated"];
    assert_eq!(
        (&terminated["exitCode"], &terminated["reason"], &terminated["message"]),
        (&json!(3), &json!("Error"), &json!("because"))
    );
    assert!(container["containerID"].as_str().unwrap().starts_with("kemudi://"));
    assert_eq!(
        (&container["restartCount"], &container["ready"], &status["observedGeneration"]),
        (&json!(0), &json!(false), &json!(1))
    );
    assert_eq!(
        (&condition(&pod, "Ready")["status"], &condition(&pod, "Ready")["reason"]),
        (&json!("False"), &json!("PodFailed"))
    );
    assert_eq!(condition(&pod, "Initialized")["status"], "True");
    assert_eq!(condition(&pod, "PodScheduled")["status"], "True");
    assert!(status["startTime"].is_string() && status["hostIP"].is_string());
    let mut lines: Vec<String> = bed.log("job/main").await.lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    assert_eq!(bed.log("job/main?tailLines=1").await.lines().count(), 1);
    assert_eq!(bed.log("job/none").await, "404 container none not found in pod job_shop");
    assert_eq!(bed.log("none/main").await, "404 pod \"none\" does not exist");
    bed.api.until("events", |_| (bed.events("job").len() >= 3).then_some(())).await;
    assert_eq!(bed.events("job"), ["Pulled", "Created", "Started"]);
    bed.api.delete_pod("shop", "job", 30);
    bed.gone("job").await;
    assert_eq!(bed.log("job/main").await, "404 pod \"job\" does not exist");
}

#[tokio::test]
async fn a_server_is_stopped_gently() {
    let bed = Bed::new();
    bed.script("web", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    let pod = bed.phase("web", "Running").await;
    assert_eq!(condition(&pod, "Ready")["status"], "True");
    assert_eq!(pod["status"]["podIP"], "10.244.0.2");
    bed.logged("web", "up\n").await;
    let following = bed.log("web/main?follow=true");
    let deleting = async { bed.api.delete_pod("shop", "web", 30) };
    let began = Instant::now();
    let (text, ()) = tokio::join!(following, deleting);
    assert_eq!(text, "up\nbye\n");
    bed.gone("web").await;
    assert!(began.elapsed() < Duration::from_secs(10), "the end is not waited for longer than it takes");
}

#[tokio::test]
async fn a_deaf_server_is_killed() {
    let bed = Bed::new();
    bed.script("deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done");
    bed.logged("deaf", "up\n").await;
    let began = Instant::now();
    bed.api.delete_pod("shop", "deaf", 1);
    bed.gone("deaf").await;
    assert!(began.elapsed() >= Duration::from_millis(900));
    // Deleted by force: the object goes first.
    bed.script("forced", "trap '' TERM; while :; do sleep 0.01; done");
    bed.phase("forced", "Running").await;
    bed.api.delete_pod("shop", "forced", 0);
    bed.gone("forced").await;
}

#[tokio::test]
async fn init_containers_come_first() {
    let bed = Bed::new();
    let mount = json!([{"name": "work", "mountPath": "/work"}]);
    let container = |name: &str, script: &str| with(shell(name, script), json!({"volumeMounts": mount}));
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [container("one", "echo one >> /work/list"), container("two", "echo two >> /work/list")],
        "containers": [container("main", "cat /work/list; until test -f /work/done; do sleep 0.01; done"), container("side", "touch /work/done")],
        "volumes": [{"name": "work", "emptyDir": {}}],
    });
    assert_eq!(bed.run("many", spec.clone()).await, "one\ntwo\n");
    let pod = bed.phase("many", "Succeeded").await;
    assert_eq!(pod["status"]["initContainerStatuses"][1]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Initialized")["reason"], "PodCompleted");
    let memory = with(spec, json!({"volumes": [{"name": "work", "emptyDir": {"medium": "Memory"}}]}));
    assert_eq!(bed.run("memory", memory).await, "one\ntwo\n");
    let failing = json!({"restartPolicy": "Never", "initContainers": [shell("one", "exit 4")], "containers": [shell("main", "true")]});
    bed.pod("failing", failing);
    let pod = bed.phase("failing", "Failed").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        bed.log("failing/main").await,
        "400 container \"main\" in pod \"failing\" is waiting to start: ContainerCreating"
    );
}

#[tokio::test]
async fn a_crash_is_followed_by_a_pause() {
    let bed = Bed::new();
    bed.pod("crash", json!({"restartPolicy": "Always", "containers": [shell("main", "echo once; exit 2")]}));
    let waiting =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = bed.until("crash", "backs off", waiting).await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 2);
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(container["state"]["waiting"]["message"], "back-off 10s restarting failed container=main");
    assert_eq!(bed.log("crash/main?previous=true").await, "once\n");
}

#[tokio::test]
async fn rules_about_exit_codes_come_before_the_policy() {
    let bed = Bed::new();
    let rules = json!({"restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
    let mounts = json!({"volumeMounts": [{"name": "work", "mountPath": "/work"}]});
    let script = "test -e /work/again && exit 3; touch /work/again; exit 42";
    bed.pod(
        "ruled",
        json!({"restartPolicy": "Never", "containers": [with(with(shell("main", script), mounts), rules)],
            "volumes": [{"name": "work", "emptyDir": {}}]}),
    );
    let pod = bed.phase("ruled", "Failed").await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!((&container["restartCount"], &container["state"]["terminated"]["exitCode"]), (&json!(1), &json!(3)));
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 42);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let bed = Bed::new();
    let waiting = |reason: &'static str| {
        move |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    let message =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    bed.pod("image", json!({"containers": [with(shell("main", "true"), json!({"image": "127.0.0.1:1/nginx"}))]}));
    let pod = bed.until("image", "no image", waiting("ErrImagePull")).await;
    assert!(message(&pod).starts_with("failed to pull and unpack image \"127.0.0.1:1/nginx:latest\": "), "{pod:#}");
    assert_eq!(pod["status"]["phase"], "Pending");
    let pod = bed.until("image", "pauses", waiting("ImagePullBackOff")).await;
    assert!(message(&pod).starts_with("Back-off pulling image \"127.0.0.1:1/nginx\": ErrImagePull: "), "{pod:#}");
    let paused =
        |_: &FakeApi| bed.events("image").ends_with(&["BackOff".to_owned(), "Failed".to_owned()]).then_some(());
    bed.api.until("events of the pause", paused).await;
    bed.api.delete_pod("shop", "image", 30);
    bed.gone("image").await;
    let env = json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "x"}}}]});
    bed.pod("config", json!({"containers": [with(shell("main", "true"), env)]}));
    let pod = bed.until("config", "no secret", waiting("CreateContainerConfigError")).await;
    assert_eq!(message(&pod), "secret \"no\" not found");
    let part = |expression: &str| {
        let env = json!([{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
        let mounts = json!([{"name": "v", "mountPath": "/v", "subPathExpr": expression},
            {"name": "v", "mountPath": "/all"}]);
        let container =
            with(shell("main", "touch /v/x; find /all | sort"), json!({"env": env, "volumeMounts": mounts}));
        json!({"restartPolicy": "Never", "containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]})
    };
    assert_eq!(bed.run("part", part("of/$(NAME)")).await, "/all\n/all/of\n/all/of/part\n/all/of/part/x\n");
    bed.pod("no-part", part("of/$(NO)"));
    let pod = bed.until("no-part", "no variable", waiting("CreateContainerConfigError")).await;
    assert_eq!(message(&pod), "missing value for \"NO\"");
    bed.pod("program", json!({"restartPolicy": "Never", "containers": [{"name": "main", "command": ["nope"]}]}));
    let pod = bed.phase("program", "Failed").await;
    let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&terminated["reason"], &terminated["exitCode"]), (&json!("StartError"), &json!(128)));
    assert_eq!(terminated["message"], "failed to start container: exec: \"nope\": executable file not found in $PATH");
    let volumes = json!({"volumes": [{"name": "v", "configMap": {"name": "later"}}], "restartPolicy": "Never",
        "containers": [with(shell("main", "cat /v/x"), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]});
    bed.pod("volume", volumes);
    bed.until("volume", "waits", waiting("ContainerCreating")).await;
    bed.api.until("FailedMount", |_| bed.events("volume").contains(&"FailedMount".to_owned()).then_some(())).await;
    bed.api.put("configmaps", json!({"metadata": {"namespace": "shop", "name": "later"}, "data": {"x": "here"}}));
    bed.phase("volume", "Succeeded").await;
    assert_eq!(bed.log("volume/main").await, "here");
}

#[tokio::test]
async fn volumes_follow_their_objects_and_tokens_are_replaced() {
    let bed = Bed::new();
    // Replaced after 40 to 80 % of this.
    bed.api.set_token_seconds(8);
    let script = "cat /settings/color; echo; cat /token/token; echo; cat /about/labels; echo; touch /tmp/read
        until grep -q red /settings/color; do sleep 0.01; done; cat /settings/color; echo
        until test \"$(cat /token/token)\" != token-1-of-default-for-live; do sleep 0.01; done; cat /token/token | cut -d- -f1; cat /sub/color";
    let ready = json!({"exec": {"command": ["test", "-f", "/tmp/read"]}, "periodSeconds": 1});
    let mounts = json!({"readinessProbe": ready, "volumeMounts": [
        {"name": "settings", "mountPath": "/settings"}, {"name": "token", "mountPath": "/token"},
        {"name": "about", "mountPath": "/about"}, {"name": "settings", "mountPath": "/sub/color", "subPath": "color"}]});
    let volumes = json!([
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "about", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]);
    bed.pod(
        "live",
        json!({"restartPolicy": "Never", "containers": [with(shell("main", script), mounts)], "volumes": volumes}),
    );
    bed.until("live", "has read", |pod| pod["status"]["containerStatuses"][0]["ready"] == true).await;
    bed.api.put("configmaps", json!({"metadata": {"namespace": "shop", "name": "settings"}, "data": {"color": "red"}}));
    bed.phase("live", "Succeeded").await;
    assert_eq!(bed.log("live/main").await, "blue\ntoken-1-of-default-for-live\napp=\"web\"\nred\ntoken\nblue");
}

#[tokio::test]
async fn probes() {
    let bed = Bed::new();
    let exec =
        |script: &str| json!({"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = with(
        shell("main", "sleep 0.3; touch /tmp/up; sleep 1000"),
        json!({"startupProbe": with(exec("test -f /tmp/up"), json!({"failureThreshold": 10})), "readinessProbe": exec("test -f /tmp/ready")}),
    );
    bed.pod("probed", json!({"containers": [container]}));
    let started = |pod: &Value| pod["status"]["containerStatuses"][0]["started"] == true;
    let pod = bed.until("probed", "started", started).await;
    assert_eq!(condition(&pod, "Ready")["status"], "False");
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [main]");
    bed.api.until("unhealthy", |_| bed.events("probed").contains(&"Unhealthy".to_owned()).then_some(())).await;
    let server = "import http.server,os\nclass H(http.server.BaseHTTPRequestHandler):\n def do_GET(s): s.send_response(200 if s.path=='/ok' else 500); s.end_headers()\nhttp.server.HTTPServer(('',8080),H).serve_forever()";
    let get = |path: &str| json!({"httpGet": {"path": path, "port": "web"}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5});
    let web = json!({"name": "main", "command": ["/usr/bin/env", "python3", "-c", server], "ports": [{"name": "web", "containerPort": 8080}],
        "startupProbe": with(json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1}), json!({"failureThreshold": 30}))});
    bed.pod("ok", json!({"containers": [with(web.clone(), json!({"readinessProbe": get("/ok")}))]}));
    bed.until("ok", "ready", |pod| pod["status"]["containerStatuses"][0]["ready"] == true).await;
    bed.pod(
        "ill",
        json!({"terminationGracePeriodSeconds": 1, "containers": [with(web, json!({"livenessProbe": get("/bad")}))]}),
    );
    let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1);
    bed.until("ill", "restarted", restarted).await;
    assert!(bed.events("ill").contains(&"Killing".to_owned()));
}

#[tokio::test]
async fn probes_over_tls_and_grpc() {
    let bed = Bed::new();
    let key = rcgen::generate_simple_self_signed(vec!["somebody.example.com".into()]).unwrap();
    let data = json!({"pem": key.cert.pem() + &key.signing_key.serialize_pem()});
    bed.api.put("configmaps", json!({"metadata": {"namespace": "shop", "name": "tls"}, "data": data}));
    let secure = "
import http.server, ssl
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s):
        s.send_response(200 if s.path == '/ok' and s.headers['X-Who'] == 'probe' else 500)
        s.end_headers()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('/tls/pem')
server = http.server.ThreadingHTTPServer(('', 8443), H)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()";
    // As much of a server as the probe needs: it serves one service and does not know the others.
    let grpc = "
import socket, struct
def frame(kind, flags, stream, data=b''):
    return struct.pack('>I', len(data))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + data
def header(name, value):
    return b'\\0' + bytes([len(name)]) + name + bytes([len(value)]) + value
listener = socket.create_server(('', 9000))
while True:
    peer, _ = listener.accept()
    file = peer.makefile('rb')
    file.read(24)
    peer.sendall(frame(4, 0, 0))
    while True:
        head = file.read(9)
        if len(head) < 9: break
        data = file.read(int.from_bytes(head[:3], 'big'))
        if head[3] == 4 and not head[4] & 1: peer.sendall(frame(4, 1, 0))
        if head[3] == 0 and head[4] & 1:
            stream = int.from_bytes(head[5:9], 'big')
            known, ok = b'good' in data or b'bad' in data, b'good' in data
            answer = frame(1, 4, stream, b'\\x88' + header(b'content-type', b'application/grpc'))
            if known: answer += frame(0, 0, stream, b'\\0\\0\\0\\0\\2\\x08' + (b'\\1' if ok else b'\\2'))
            peer.sendall(answer + frame(1, 5, stream, header(b'grpc-status', b'0' if known else b'12')))";
    let python = |server: &str, more: Value| {
        with(json!({"name": "main", "command": ["/usr/bin/env", "python3", "-c", server]}), more)
    };
    let probe = |action: Value| with(action, json!({"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1}));
    let said = |pod: &str, message: &str| {
        bed.api.list("events").iter().any(|it| it["involvedObject"]["name"] == pod && it["message"] == message)
    };
    let mounts = json!([{"name": "tls", "mountPath": "/tls"}]);
    let get = |path: &str| {
        let header = json!([{"name": "X-Who", "value": "probe"}]);
        probe(json!({"httpGet": {"path": path, "port": 8443, "scheme": "HTTPS", "httpHeaders": header}}))
    };
    let ask = |service: &str| probe(json!({"grpc": {"port": 9000, "service": service}}));
    let pod = |name: &str, server: &str, ready: Value| {
        let container = python(server, json!({"readinessProbe": ready, "volumeMounts": mounts}));
        bed.pod(name, json!({"containers": [container], "volumes": [{"name": "tls", "configMap": {"name": "tls"}}]}));
    };
    pod("tls-ok", secure, get("/ok"));
    pod("tls-ill", secure, get("/ill"));
    pod("grpc-ok", grpc, ask("good"));
    pod("grpc-ill", grpc, ask("bad"));
    pod("grpc-none", grpc, ask(""));
    for name in ["tls-ok", "grpc-ok"] {
        bed.until(name, "ready", |pod| pod["status"]["containerStatuses"][0]["ready"] == true).await;
    }
    let none = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ";
    for (name, error) in [
        ("tls-ill", "HTTP probe failed with statuscode: 500"),
        ("grpc-ill", "service unhealthy (responded with \"NOT_SERVING\")"),
        ("grpc-none", none),
    ] {
        let message = format!("Readiness probe failed: {error}");
        bed.api.until(&message, |_| said(name, &message).then_some(())).await;
    }
}

#[tokio::test]
async fn runs_for_somebody_here() {
    let bed = Bed::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let stderr = writer.try_clone().unwrap();
    let work = tempfile::tempdir().unwrap();
    let mount = node::sandbox::Mount {
        source: node::sandbox::Source::Host(work.path().into()),
        sub_path: None,
        target: work.path().into(),
        read_only: false,
    };
    let stdio = node::sandbox::Stdio {
        stdin: std::fs::File::open("/dev/null").unwrap().into(),
        stdout: writer.into(),
        stderr: stderr.into(),
    };
    let env = vec![("MINE".into(), "yes".into()), ("KUBERNETES_SERVICE_HOST".into(), "elsewhere".into())];
    let ended = bed.node.attach("shop", "mine", Attachment { stdio, terminal: false, env, mounts: vec![mount] });
    let script = "echo $MINE $KUBERNETES_SERVICE_HOST; touch made; exit 6";
    let container = with(shell("main", script), json!({"workingDir": work.path()}));
    bed.pod("mine", json!({"restartPolicy": "Never", "containers": [container]}));
    assert_eq!(ended.await.unwrap(), Ok(Exit::Code(6)));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "yes 10.96.0.1\n");
    assert!(work.path().join("made").exists());
}

#[tokio::test]
async fn registers() {
    let bed = Bed::new();
    let ready = |api: &FakeApi| api.get("nodes", "", "n1").filter(|node| node["status"]["conditions"].is_array());
    let node = bed.api.until("the node", ready).await;
    let conditions = node["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"));
    assert!(node["status"]["capacity"]["memory"].as_str().unwrap().ends_with("Ki"));
    let lease = bed.api.until("the lease", |api| api.get("leases", "kube-node-lease", "n1")).await;
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
}

/// From the pod's object to its program running, printed for the record.
#[tokio::test]
async fn pod_start_time() {
    let bed = Bed::new();
    let mut times = Vec::new();
    for number in 0..30 {
        let (reader, writer) = std::io::pipe().unwrap();
        let stderr = writer.try_clone().unwrap();
        let stdin = std::fs::File::open("/dev/null").unwrap().into();
        let stdio = node::sandbox::Stdio { stdin, stdout: writer.into(), stderr: stderr.into() };
        let name = format!("pod-{number}");
        let began = Instant::now();
        let ended = bed.node.attach("shop", &name, Attachment { stdio, terminal: false, env: vec![], mounts: vec![] });
        bed.pod(
            &name,
            json!({"restartPolicy": "Never", "containers": [{"name": "main", "command": ["/bin/echo", "up"]}]}),
        );
        let up = tokio::task::spawn_blocking(move || std::io::read_to_string(reader)).await.unwrap().unwrap();
        times.push(began.elapsed());
        assert_eq!((up.as_str(), ended.await.unwrap()), ("up\n", Ok(Exit::Code(0))));
    }
    times.sort();
    println!("pod object to program's output: p50 {:?}, p90 {:?}", times[15], times[27]);
}

/// Many pods at once over a runtime without processes: what is left is the agent's own work.
#[tokio::test]
async fn many_pods_over_another_runtime() {
    const PODS: usize = 300;
    let bed = Bed::over(Some(Arc::new(node::runtime::FakeRuntime)));
    for number in 0..PODS {
        let code = (number % 2).to_string();
        let container = json!({"name": "main", "command": ["exit", code]});
        bed.pod(&format!("pod-{number}"), json!({"restartPolicy": "Never", "containers": [container]}));
    }
    let ended =
        |api: &FakeApi, phase: &str| api.list("pods").iter().filter(|pod| pod["status"]["phase"] == phase).count();
    let all = |api: &FakeApi| (ended(api, "Succeeded") == PODS / 2 && ended(api, "Failed") == PODS / 2).then_some(());
    bed.api.until("all ended", all).await;
}

/// Everything here once more without root.
#[test]
fn as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(crate::program_for_all(dir.path()))
        .args(["agent::", "--skip", "as_an_ordinary_user"])
        .current_dir("/")
        .env("HOME", "/")
        .env_remove("RUST_BACKTRACE")
        .uid(ORDINARY)
        .gid(ORDINARY)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn isolation_as_asked() {
    let bed = Bed::new();
    let script = "grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t'; touch /tmp/x 2>/dev/null && echo wrote";
    let security = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
    let spec = json!({"restartPolicy": "Never", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [with(shell("main", script), json!({"securityContext": security}))]});
    assert_eq!(bed.run("strict", spec).await, "CapEff:0000000000000400\nNoNewPrivs:1\nSeccomp:2\n");
    let spec = json!({"restartPolicy": "Never", "containers": [shell("main", script)]});
    assert_eq!(bed.run("usual", spec).await, "CapEff:00000000a80425fb\nNoNewPrivs:0\nSeccomp:0\nwrote\n");
}

#[tokio::test]
async fn what_cannot_be_had_is_said() {
    let bed = Bed::new();
    let refused = |name: &'static str, security: Value, expected: &'static str| {
        bed.pod(name, json!({"containers": [with(shell("main", "true"), json!({"securityContext": security}))]}));
        let waits = move |pod: &Value| {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError"
                && waiting["message"].as_str().is_some_and(|message| message.contains(expected))
        };
        bed.until(name, expected, waits)
    };
    refused("power", json!({"privileged": true}), "privileged containers cannot be had here").await;
    refused("admin", json!({"capabilities": {"add": ["SYS_ADMIN"]}}), "SYS_ADMIN cannot be given here").await;
    let profile = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}});
    refused("profile", profile, "cannot load seccomp profile \"a.json\"").await;
    if rustix::process::geteuid().is_root() {
        refused("proc", json!({"procMount": "Unmasked"}), "procMount Unmasked cannot be had").await;
    }
    let sysctls = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
    bed.pod("set", json!({"securityContext": sysctls, "containers": [shell("main", "true")]}));
    let pod = bed.phase("set", "Failed").await;
    assert_eq!(pod["status"]["reason"], "SysctlForbidden");
    assert_eq!(pod["status"]["message"], "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
    assert_eq!(bed.events("set"), ["SysctlForbidden"]);
    bed.pod("host", json!({"hostPID": true, "containers": [shell("main", "true")]}));
    let said = |_: &FakeApi| bed.events("host").contains(&"FailedCreatePodSandBox".to_owned()).then_some(());
    bed.api.until("no namespace of the host's", said).await;
    let limited = with(shell("main", "true"), json!({"resources": {"limits": {"memory": "64Mi"}}}));
    bed.run("limited", json!({"restartPolicy": "Never", "containers": [limited]})).await;
    let said: &[&str] = if limits::enforced() { &[] } else { &["LimitsNotEnforced"] };
    bed.api.until("events", |_| (bed.events("limited").len() >= said.len() + 3).then_some(())).await;
    assert_eq!(bed.events("limited"), [said, &["Pulled", "Created", "Started"]].concat());
}

#[tokio::test]
async fn volumes_that_were_there_before() {
    let bed = Bed::new();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("file"), "kept\n").unwrap();
    std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let claim = |name: &str, volume: &str, phase: &str| {
        let metadata = json!({"namespace": "shop", "name": name, "uid": format!("uid-of-{name}")});
        bed.api.put(
            "persistentvolumeclaims",
            json!({"metadata": metadata, "spec": {"volumeName": volume}, "status": {"phase": phase}}),
        );
    };
    let reference = json!({"namespace": "shop", "name": "data", "uid": "uid-of-data"});
    bed.api.put(
        "persistentvolumes",
        json!({"metadata": {"name": "pv-1"}, "spec": {"local": {"path": files.path()}, "claimRef": reference}}),
    );
    claim("data", "", "Pending");
    let mounts = json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let pod = |script: &str| {
        json!({"restartPolicy": "Never", "containers": [with(shell("main", script), mounts.clone())],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]})
    };
    bed.pod("first", pod("cat /data/file; echo more > /data/second && echo wrote"));
    let message = "MountVolume.SetUp failed for volume \"data\" : error processing PVC shop/data: PVC is not bound";
    let said = |api: &FakeApi| api.list("events").iter().any(|event| event["message"] == message).then_some(());
    bed.api.until("the claim is not bound", said).await;
    claim("data", "pv-1", "Bound");
    bed.until("first", "ended", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(bed.log("first/main").await, "kept\nwrote\n");
    assert_eq!(bed.run("second", pod("cat /data/second")).await, "more\n");
    // What a type does not fit is said, and tried again.
    let path = files.path().join("later");
    let spec = json!({"restartPolicy": "Never", "containers": [with(shell("main", "ls -d /data"), mounts.clone())],
        "volumes": [{"name": "data", "hostPath": {"path": path, "type": "Directory"}}]});
    bed.pod("typed", spec);
    let message = format!("MountVolume.SetUp failed for volume \"data\" : hostPath {} doesn't exist", path.display());
    let said = |api: &FakeApi| api.list("events").iter().any(|event| event["message"] == message).then_some(());
    bed.api.until("the folder does not exist", said).await;
    std::fs::create_dir(&path).unwrap();
    bed.phase("typed", "Succeeded").await;
}

#[tokio::test]
async fn volumes_of_elsewhere_and_devices() {
    let bed = Bed::new();
    let files = tempfile::tempdir().unwrap();
    let volume = |name: &str, spec: Value| {
        let reference = json!({"namespace": "shop", "name": name, "uid": format!("uid-of-{name}")});
        let mut volume = json!({"metadata": {"name": format!("pv-{name}")}, "spec": {"claimRef": reference}});
        for (field, value) in spec.as_object().unwrap() {
            volume["spec"][field] = value.clone();
        }
        bed.api.put("persistentvolumes", volume);
        let metadata = json!({"namespace": "shop", "name": name, "uid": format!("uid-of-{name}")});
        let spec = json!({"volumeName": format!("pv-{name}")});
        bed.api
            .put("persistentvolumeclaims", json!({"metadata": metadata, "spec": spec, "status": {"phase": "Bound"}}));
    };
    let pod = |claim: &str, script: &str, more: Value| {
        json!({"restartPolicy": "Never", "containers": [with(shell("main", script), more)],
            "volumes": [{"name": "it", "persistentVolumeClaim": {"claimName": claim}}]})
    };
    let told = async |reason: &str, message: &str| {
        let is = |event: &Value| event["message"] == message && event["reason"] == reason;
        let said = |api: &FakeApi| api.list("events").iter().any(is).then_some(());
        bed.api.until(message, said).await;
    };
    let mounted = json!({"volumeMounts": [{"name": "it", "mountPath": "/it"}]});
    let as_device = json!({"volumeDevices": [{"name": "it", "devicePath": "/dev/it"}]});
    // A volume that another node has.
    let at = |value: &str| {
        let term = json!({"key": "disk", "operator": "In", "values": [value]});
        json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}})
    };
    let mut node = bed.api.until("the node", |api| api.list("nodes").first().cloned()).await;
    node["metadata"]["labels"]["disk"] = json!("here");
    bed.api.put("nodes", node);
    volume("far", json!({"local": {"path": files.path()}, "nodeAffinity": at("elsewhere")}));
    bed.pod("far", pod("far", "true", mounted.clone()));
    let words = "no matching NodeSelectorTerms";
    told("FailedMount", &format!("MountVolume.NodeAffinity check failed for volume \"pv-far\" : {words}")).await;
    volume("near", json!({"local": {"path": files.path()}, "nodeAffinity": at("here")}));
    assert_eq!(bed.run("near", pod("near", "echo here", mounted.clone())).await, "here\n");
    // Devices.
    let block = |path: &str| json!({"volumeMode": "Block", "local": {"path": path}});
    volume("folder", block(files.path().to_str().unwrap()));
    bed.pod("folder", pod("folder", "true", as_device.clone()));
    let why = format!("path {:?} is not a block device", files.path());
    told("FailedMapVolume", &format!("MapVolume.MapPodDevice failed for volume \"pv-folder\" : {why}")).await;
    bed.pod("mounts", pod("folder", "true", mounted));
    let why = "volume it has volumeMode Block, but is specified in volumeMounts";
    told("FailedMount", &format!("MountVolume.SetUp failed for volume \"it\" : {why}")).await;
    bed.pod("maps", pod("near", "true", as_device.clone()));
    let why = "volume it has volumeMode Filesystem, but is specified in volumeDevices";
    told("FailedMount", &format!("MountVolume.SetUp failed for volume \"it\" : {why}")).await;
    let Some(device) = a_block_device() else {
        eprintln!("this machine has no block device that can be read");
        return;
    };
    volume("device", block(&device));
    let spec = pod("device", "test -b /dev/it && head -c 512 /dev/it | wc -c", as_device);
    if std::fs::File::open(&device).is_ok() {
        assert_eq!(bed.run("device", spec).await, "512\n");
        return;
    }
    bed.pod("device", spec);
    let user = rustix::process::geteuid().as_raw();
    let why = format!("device {device:?} may not be opened by this node, which runs as user {user}");
    let begins = format!("MapVolume.MapPodDevice failed for volume \"pv-device\" : {why}");
    let is = |event: &Value| event["message"].as_str().is_some_and(|told| told.starts_with(&begins));
    bed.api.until(&begins, |api| api.list("events").iter().any(is).then_some(())).await;
}

/// A block device of this machine with something to read, whether or not this user may.
fn a_block_device() -> Option<String> {
    let names = std::fs::read_dir("/sys/class/block").ok()?.map_while(Result::ok);
    let mut paths = names.filter_map(|entry| {
        let size = std::fs::read_to_string(entry.path().join("size")).ok()?;
        let path = format!("/dev/{}", entry.file_name().to_str()?);
        (size.trim() != "0" && std::path::Path::new(&path).exists()).then_some(path)
    });
    paths.next()
}

#[tokio::test]
async fn gates_are_opened_by_others() {
    let bed = Bed::new();
    let spec =
        json!({"readinessGates": [{"conditionType": "example.com/gate"}], "containers": [shell("main", "sleep 1000")]});
    bed.pod("gated", spec);
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default()
    };
    let closed = |pod: &Value| ready(pod)["reason"] == "ReadinessGatesNotReady";
    let mut pod = bed.until("gated", "closed", closed).await;
    let gate = json!({"type": "example.com/gate", "status": "True"});
    pod["status"]["conditions"].as_array_mut().unwrap().push(gate);
    bed.api.put("pods", pod);
    bed.until("gated", "open", |pod| ready(pod)["status"] == "True").await;
}

#[tokio::test]
async fn an_image_as_a_volume() {
    let bed = Bed::new();
    let archive = image_archive(&[("deep/file", "from the image\n"), ("other", "more\n")]);
    let name = images::reference("registry.example.com/models:1").unwrap();
    bed.images.load_archive(archive.as_slice(), Some(&name)).unwrap();
    let mounts = json!({"volumeMounts": [{"name": "it", "mountPath": "/it"},
        {"name": "it", "mountPath": "/part", "subPath": "deep"}]});
    let volume = |pull: &str| json!([{"name": "it", "image": {"reference": "registry.example.com/models:1", "pullPolicy": pull}}]);
    let script = "cat /it/deep/file /part/file; ls /it; touch /it/x /part/x 2>/dev/null && echo wrote; exit 0";
    let spec = json!({"restartPolicy": "Never", "containers": [with(shell("main", script), mounts.clone())],
        "volumes": volume("Never")});
    assert_eq!(bed.run("reads", spec).await, "from the image\nfrom the image\ndeep\nother\n");
    let spec = json!({"containers": [with(shell("main", script), mounts)],
        "volumes": [{"name": "it", "image": {"reference": "registry.example.com/other", "pullPolicy": "Never"}}]});
    bed.pod("none", spec);
    let message = "Container image \"registry.example.com/other\" is not present with pull policy of Never";
    let said = |api: &FakeApi| {
        let reason = |event: &Value| event["message"] == message && event["reason"] == "ErrImageNeverPull";
        api.list("events").iter().any(reason).then_some(())
    };
    bed.api.until("the image is not there", said).await;
    let waits = |api: &FakeApi| {
        let pods = api.list("pods");
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == "none")?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        (waiting["reason"] == "ErrImageNeverPull" && waiting["message"] == message).then_some(())
    };
    bed.api.until("the container waits for it", waits).await;
}

/// An archive as `docker save` writes it, of an image with one layer.
fn image_archive(files: &[(&str, &str)]) -> Vec<u8> {
    let tar = |files: &[(&str, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            tar.append_data(&mut header, path, *content).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (*path, content.as_bytes())).collect();
    let layer = tar(&files);
    let digest: String = sha2::Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [], "Layers": ["layer.tar"]}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    tar(&[("config.json", config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())])
}

#[tokio::test]
async fn a_volume_over_its_limit_ends_the_pod() {
    let bed = Bed::new();
    let mounts = json!({"volumeMounts": [{"name": "work", "mountPath": "/work"}]});
    let script = "trap '' TERM; head -c 3000000 /dev/zero > /work/file; echo wrote; while :; do sleep 0.1; done";
    bed.pod(
        "big",
        json!({"restartPolicy": "Always", "containers": [with(shell("main", script), mounts)],
            "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}]}),
    );
    let pod = bed.phase("big", "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    let message = "Usage of EmptyDir volume \"work\" exceeds the limit \"1Mi\". ";
    assert_eq!(pod["status"]["message"], message);
    assert!(bed.events("big").contains(&"Evicted".to_owned()));
}
