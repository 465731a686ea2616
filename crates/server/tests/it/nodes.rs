//! What a node may write: requests as a node, against the pods that are bound to it, and what they are answered.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::Options;
use server::authn::AUTHENTICATED;
use server::authz::node::NODES;

use crate::Asked;

const PODS: &str = "/api/v1/namespaces/default/pods";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

/// A cluster with the nodes n1 and n2, the pod `mine` on the first and `other` on the second.
struct Cluster {
    asked: Asked,
    uids: [String; 2],
}

fn pod(name: &str, node: &str) -> Value {
    let volume =
        json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}});
    json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}], "volumes": [volume]},
    })
}

impl Cluster {
    async fn start() -> Cluster {
        let asked = Asked::start(Options::default()).await;
        let make = async |path: &str, object: Value| {
            let (code, made) = asked.ask(&format!("POST {path}"), Some(&object)).await;
            assert_eq!(code, 201, "{path}: {made}");
            made["metadata"]["uid"].as_str().unwrap_or_default().to_string()
        };
        make(ACCOUNTS, json!({"metadata": {"name": "default"}})).await;
        let node = make("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
        make("/api/v1/nodes", json!({"metadata": {"name": "n2"}})).await;
        let mine = make(PODS, pod("mine", "n1")).await;
        make(PODS, pod("other", "n2")).await;
        Cluster { asked, uids: [node, mine] }
    }

    /// What n1 is answered: the code, and the message where it is refused.
    async fn check(&self, ask: &str, body: Value, want: &str) {
        let sent = (!body.is_null()).then_some(&body);
        let answer = self.asked.send("system:node:n1", &[NODES, AUTHENTICATED], ask, sent).await;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = answer["message"].as_str().filter(|_| code >= 400).unwrap_or_default();
        assert_eq!(format!("{code} {message}").trim_end(), want, "{ask} {body}");
    }

    /// The same for what admission refuses.
    async fn refused(&self, ask: &str, body: Value, of: &str, why: &str) {
        self.check(ask, body, &format!("403 {of} is forbidden: {why}")).await;
    }
}

#[tokio::test]
async fn pods() {
    let cluster = Cluster::start().await;
    let [node, _] = &cluster.uids;
    let mirror = |change: &dyn Fn(&mut Value)| {
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node, "controller": true}]);
        let mut pod = json!({
            "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": owner},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        });
        change(&mut pod);
        pod
    };
    let post = format!("POST {PODS}");
    let refused = async |change: &dyn Fn(&mut Value), why: &str| {
        cluster.refused(&post, mirror(change), "pods \"m\"", why).await;
    };
    refused(
        &|pod| pod["metadata"]["annotations"] = json!({}),
        "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
    )
    .await;
    refused(
        &|pod| pod["spec"]["nodeName"] = json!("n2"),
        "node \"n1\" can only create pods with spec.nodeName set to itself",
    )
    .await;
    refused(
        &|pod| pod["metadata"]["ownerReferences"] = json!([]),
        "node \"n1\" can only create pods with an owner reference set to itself",
    )
    .await;
    refused(
        &|pod| pod["metadata"]["ownerReferences"][0]["controller"] = json!(false),
        "node \"n1\" can only create pods with a controller owner reference set to itself",
    )
    .await;
    refused(
        &|pod| pod["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = json!(true),
        "node \"n1\" must not set blockOwnerDeletion on an owner reference",
    )
    .await;
    refused(
        &|pod| pod["metadata"]["ownerReferences"][0]["uid"] = json!("u"),
        &format!("node n1 UID mismatch: expected u got {node}"),
    )
    .await;
    for (volume, what) in [
        (json!({"configMap": {"name": "a"}}), "configmaps"),
        (json!({"persistentVolumeClaim": {"claimName": "a"}}), "persistentvolumeclaims"),
        (json!({"csi": {"driver": "a"}}), "csidrivers (via CSI volumes)"),
        (
            json!({"projected": {"sources": [{"clusterTrustBundle": {"name": "a", "path": "a"}}]}}),
            "clustertrustbundles",
        ),
    ] {
        let mut volume = volume.clone();
        volume["name"] = json!("v");
        let why = format!("node \"n1\" can not create pods that reference {what}");
        refused(&|pod| pod["spec"]["volumes"] = json!([volume]), &why).await;
    }
    // ServiceAccount comes first, and has its own word.
    let secret = json!([{"name": "v", "secret": {"secretName": "a"}}]);
    refused(&|pod| pod["spec"]["volumes"] = secret.clone(), "a mirror pod may not reference secrets").await;
    cluster.check(&post, mirror(&|_| {}), "201").await;
    cluster
        .refused(
            &format!("DELETE {PODS}/other"),
            Value::Null,
            "pods \"other\"",
            "node \"n1\" can only delete pods with spec.nodeName set to itself",
        )
        .await;
    let status = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": "Running"}});
    cluster
        .refused(
            &format!("PUT {PODS}/other/status"),
            status("other", json!({})),
            "pods \"other\"",
            "node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
        )
        .await;
    cluster
        .refused(
            &format!("PUT {PODS}/mine/status"),
            status("mine", json!({"a": "b"})),
            "pods \"mine\"",
            "node \"n1\" cannot update labels through pod status",
        )
        .await;
    cluster.check(&format!("PUT {PODS}/mine/status"), status("mine", json!({})), "200").await;
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    cluster
        .refused(
            &format!("POST {PODS}/other/eviction"),
            eviction("other"),
            "pods \"other\"",
            "node n1 can only evict pods with spec.nodeName set to itself",
        )
        .await;
    cluster.check(&format!("POST {PODS}/gone/eviction"), eviction("gone"), "404 pods \"gone\" not found").await;
    cluster.check(&format!("POST {PODS}/mine/eviction"), eviction("mine"), "201").await;
    cluster.check(&format!("DELETE {PODS}/m"), Value::Null, "200").await;
}

#[tokio::test]
async fn tokens() {
    let cluster = Cluster::start().await;
    let [_, mine] = &cluster.uids;
    let request = |bound: Value, audiences: Value| {
        json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"boundObjectRef": bound, "audiences": audiences},
        })
    };
    let bound = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    let ask = format!("POST {ACCOUNTS}/default/token");
    for (bound, audiences, why) in [
        (Value::Null, json!([]), "node requested token not bound to a pod"),
        (
            json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}),
            json!([]),
            "node requested token not bound to a pod",
        ),
        (bound("mine", ""), json!([]), "node requested token with a pod binding without a uid"),
        (
            bound("mine", "u"),
            json!([]),
            "the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated",
        ),
        (bound("mine", mine), json!(["a", "b"]), "node may only request 0 or 1 audiences"),
        (
            bound("mine", mine),
            json!(["else"]),
            "system:node:n1 is not authorized to request tokens for audience \"else\"",
        ),
    ] {
        cluster.refused(&ask, request(bound, audiences), "serviceaccounts \"default\"", why).await;
    }
    cluster.check(&ask, request(bound("gone", "u"), json!([])), "404 pods \"gone\" not found").await;
    let (_, other) = cluster.asked.ask(&format!("GET {PODS}/other"), None).await;
    let other = other["metadata"]["uid"].as_str().unwrap_or_default();
    let why = "node requested token bound to a pod scheduled on a different node";
    cluster.refused(&ask, request(bound("other", other), json!([])), "serviceaccounts \"default\"", why).await;
    // What its volumes ask for, the account's own token among it.
    cluster.check(&ask, request(bound("mine", mine), json!([])), "201").await;
    cluster.check(&ask, request(bound("mine", mine), json!(["vault"])), "201").await;
}

#[tokio::test]
async fn what_is_about_the_node_itself() {
    let cluster = Cluster::start().await;
    let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let of = "nodes \"n3\"";
    let why = "node \"n1\" is not allowed to modify node \"n3\"";
    cluster.refused("POST /api/v1/nodes", node("n3", json!({})), of, why).await;
    let (_, known) = cluster.asked.ask("GET /api/v1/nodes/n1", None).await;
    let changed = |part: &str, field: &str, value: Value| {
        let mut node = known.clone();
        node[part][field] = value;
        node
    };
    let put = "PUT /api/v1/nodes/n1";
    let of = "nodes \"n1\"";
    let why = "node \"n1\" is not allowed to modify taints";
    cluster.refused(put, changed("spec", "taints", json!([])), of, why).await;
    let labels = json!({
        "free": "1", "example.com/a": "1", "kubernetes.io/os": "linux", "x.node.kubernetes.io/a": "1",
        "kubernetes.io/role": "1", "node-restriction.kubernetes.io/a": "1", "a.k8s.io/b": "1",
    });
    let why = "is not allowed to modify labels: a.k8s.io/b, kubernetes.io/role, node-restriction.kubernetes.io/a";
    cluster.refused(put, changed("metadata", "labels", labels), of, why).await;
    let allowed = json!({"free": "1", "kubernetes.io/os": "linux", "x.node.kubernetes.io/a": "1"});
    cluster.check(put, changed("metadata", "labels", allowed), "200").await;
    cluster.check("GET /api/v1/nodes/n2", Value::Null, "403 nodes \"n2\" is forbidden: User \"system:node:n1\" cannot get resource \"nodes\" in API group \"\" at the cluster scope: node: node 'n1' cannot read 'n2', only its own Node object").await;

    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    let why = "can only access node lease with the same name as the requesting node";
    cluster.refused(&format!("POST {LEASES}"), lease("n2"), "leases.coordination.k8s.io \"n2\"", why).await;
    cluster.check(&format!("POST {LEASES}"), lease("n1"), "201").await;

    let csi = |name: &str| json!({"metadata": {"name": name}, "spec": {"drivers": []}});
    let why = "can only access CSINode with the same name as the requesting node";
    let nodes = "POST /apis/storage.k8s.io/v1/csinodes";
    cluster.refused(nodes, csi("n2"), "csinodes.storage.k8s.io \"n2\"", why).await;
    cluster.check(nodes, csi("n1"), "201").await;

    let slice = |node: &str| {
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
        json!({"metadata": {"name": format!("s-{node}")}, "spec": {"driver": "d.example.com", "nodeName": node, "pool": pool}})
    };
    let why = "can only create ResourceSlice with the same NodeName as the requesting node";
    cluster.refused(&format!("POST {SLICES}"), slice("n2"), "resourceslices.resource.k8s.io \"s-n2\"", why).await;
    cluster.check(&format!("POST {SLICES}"), slice("n1"), "201").await;
    cluster.check(&format!("DELETE {SLICES}/s-n1"), Value::Null, "200").await;
}

#[tokio::test]
async fn claims_of_the_nodes_pods() {
    let cluster = Cluster::start().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let (code, made) = cluster.asked.ask(&format!("POST {claims}"), Some(&claim)).await;
    assert_eq!(code, 201, "{made}");
    let get = format!("GET {claims}/data");
    let unrelated = "403 persistentvolumeclaims \"data\" is forbidden: User \"system:node:n1\" cannot get resource \"persistentvolumeclaims\" in API group \"\" in the namespace \"default\": node: no relationship found between node 'n1' and this object";
    cluster.check(&get, Value::Null, unrelated).await;
    let mut user = pod("user", "n1");
    user["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]);
    let (code, _) = cluster.asked.ask(&format!("POST {PODS}"), Some(&user)).await;
    assert_eq!(code, 201);
    // At once: the graph is in step before anybody sees the pod.
    cluster.check(&get, Value::Null, "200").await;
    let mut status = made.clone();
    status["status"]["capacity"] = json!({"storage": "2Gi"});
    cluster.check(&format!("PUT {claims}/data/status"), status.clone(), "200").await;
    status["status"]["phase"] = json!("Lost");
    status["metadata"]["resourceVersion"] = json!("");
    let why = "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions";
    cluster.refused(&format!("PUT {claims}/data/status"), status, "persistentvolumeclaims \"data\"", why).await;
}
