//! Volumes of a node's own disk, from a claim that waits for its pod to the files that the pod finds.

use serde_json::{Value, json};
use testkit::Server;
use testkit::command::RUN_LIMIT;

const CORE: &str = "/api/v1/namespaces/default";

fn create(server: &Server, path: &str, object: &Value) {
    server.json("admin", &format!("POST {path} {object}"));
}

/// A volume of mode `mode`, on the nodes with this host name.
fn volume(server: &Server, name: &str, path: &str, host: &str, mode: &str) {
    let term = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "volumeMode": mode, "local": {"path": path},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}});
    create(server, "/api/v1/persistentvolumes", &json!({"metadata": {"name": name}, "spec": spec}));
}

fn claim(server: &Server, name: &str, mode: &str) {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "volumeMode": mode,
        "resources": {"requests": {"storage": "1Gi"}}});
    create(server, &format!("{CORE}/persistentvolumeclaims"), &json!({"metadata": {"name": name}, "spec": spec}));
}

fn pod(server: &Server, name: &str, claim: &str, how: (&str, Value), script: &str) {
    let mut container = json!({"name": "main", "image": "host", "command": ["sh", "-c", script]});
    container[how.0] = json!([how.1]);
    let spec = json!({"restartPolicy": "Never", "containers": [container],
        "volumes": [{"name": "it", "persistentVolumeClaim": {"claimName": claim}}]});
    create(server, &format!("{CORE}/pods"), &json!({"metadata": {"name": name}, "spec": spec}));
}

#[test]
fn a_claim_gets_a_volume_where_its_pod_goes() {
    let server = Server::start(&["--store", "memory://"]);
    let nodes = server.until("GET /api/v1/nodes", RUN_LIMIT, |_, nodes| nodes["items"][0].is_object());
    let host = nodes["items"][0]["metadata"]["labels"]["kubernetes.io/hostname"].as_str().expect("a name").to_owned();
    let class = json!({"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer"});
    create(&server, "/apis/storage.k8s.io/v1/storageclasses", &class);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mounted = || ("volumeMounts", json!({"name": "it", "mountPath": "/it"}));
    let told = |name: &str, why: &str| {
        server.until(&format!("GET {CORE}/pods/{name}"), RUN_LIMIT, |_, pod| {
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|it| it["reason"] == "Unschedulable" && it["message"] == why)
        });
    };

    // The only volume is another node's.
    volume(&server, "far", path, "elsewhere", "Filesystem");
    claim(&server, "data", "Filesystem");
    pod(&server, "writes", "data", mounted(), "echo kept > /it/file && cat /it/file");
    told("writes", "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind.");
    volume(&server, "near", path, &host, "Filesystem");
    server.until(&format!("GET {CORE}/pods/writes"), RUN_LIMIT, |_, pod| pod["status"]["phase"] == "Succeeded");
    let bound = server.json("admin", &format!("GET {CORE}/persistentvolumeclaims/data"));
    assert_eq!((&bound["spec"]["volumeName"], &bound["status"]["phase"]), (&json!("near"), &json!("Bound")));
    assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "kept\n");

    // A claim that somebody else has bound to a volume of elsewhere.
    claim(&server, "else", "Filesystem");
    let named = json!({"spec": {"volumeName": "far"}});
    server.json("admin", &format!("PATCH {CORE}/persistentvolumeclaims/else {named}"));
    server
        .until(&format!("GET {CORE}/persistentvolumeclaims/else"), RUN_LIMIT, |_, it| it["status"]["phase"] == "Bound");
    pod(&server, "waits", "else", mounted(), "true");
    told("waits", "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity.");

    // A device that is none is told of the pod.
    volume(&server, "block", path, &host, "Block");
    claim(&server, "device", "Block");
    pod(&server, "maps", "device", ("volumeDevices", json!({"name": "it", "devicePath": "/dev/it"})), "true");
    let events = format!("GET {CORE}/events?fieldSelector=involvedObject.name%3Dmaps");
    let why = format!("MapVolume.MapPodDevice failed for volume \"block\" : path {path:?} is not a block device");
    server.until(&events, RUN_LIMIT, |_, events| {
        let mut all = events["items"].as_array().into_iter().flatten();
        all.any(|it| it["reason"] == "FailedMapVolume" && it["message"] == why.as_str())
    });
}
