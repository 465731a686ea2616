//! The pods that caches and lists are measured with, as a server writes them: also for the program that measures beside kube-rs.

use serde_json::{Value, json};

/// All of them, in one answer.
pub fn list(count: usize) -> Vec<u8> {
    listed("PodList", "v1", (0..count).map(pod))
}

/// Their metadata alone, in one answer.
#[allow(dead_code)]
pub fn metadata_list(count: usize) -> Vec<u8> {
    listed("PartialObjectMetadataList", "meta.k8s.io/v1", (0..count).map(metadata))
}

/// Their metadata alone, told by a watch.
#[allow(dead_code)]
pub fn metadata_watch(count: usize) -> Vec<u8> {
    watched((0..count).map(metadata)).concat()
}

/// All of these told by a watch, a line each, and that these are all.
pub fn watched(objects: impl Iterator<Item = Value>) -> Vec<Vec<u8>> {
    let end = json!({"resourceVersion": "20000", "annotations": {"k8s.io/initial-events-end": "true"}});
    // The type comes first, as servers write it.
    let line = |event: &str, object: Value| format!("{{\"type\":\"{event}\",\"object\":{object}}}\n").into_bytes();
    let lines = objects.map(|object| line("ADDED", object));
    lines.chain([line("BOOKMARK", json!({"metadata": end}))]).collect()
}

fn listed(kind: &str, version: &str, items: impl Iterator<Item = Value>) -> Vec<u8> {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    let head =
        format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"20000"}},"items":["#);
    format!("{head}{}]}}\n", items.join(",")).into_bytes()
}

fn metadata(number: usize) -> Value {
    let mut object = pod(number);
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"].take()})
}

/// A pod as a Deployment's look, with two entries of managed fields: 4.3 KB.
pub fn pod(number: usize) -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": format!("registry.example/{name}:1.2.3"), "imagePullPolicy": "IfNotPresent",
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10},
            "volumeMounts": [{"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    };
    let fields = json!({"f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}},
        "f:ownerReferences": {".": {}, "k:{\"uid\":\"f0a5cc3a-64a6-4a4c-9f6a-5f3f0c3a0b11\"}": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
        "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}, "f:memory": {}}}, "f:terminationMessagePath": {}}},
        "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:terminationGracePeriodSeconds": {}}});
    let status = json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:status": {}}},
        "f:containerStatuses": {}, "f:hostIP": {}, "f:phase": {}, "f:podIP": {}, "f:podIPs": {".": {}, "k:{\"ip\":\"10.0.0.1\"}": {}}}});
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": format!("web-7d4b9c6f5d-{number:05}"), "generateName": "web-7d4b9c6f5d-", "namespace": format!("team-{}", number % 50),
        "uid": format!("5c2cbb3e-0000-4000-8000-{number:012}"), "resourceVersion": format!("{}", 1000 + number),
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web", "pod-template-hash": "7d4b9c6f5d", "tier": "front"},
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4b9c6f5d",
            "uid": "f0a5cc3a-64a6-4a4c-9f6a-5f3f0c3a0b11", "controller": true, "blockOwnerDeletion": true}],
        "managedFields": [
            {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
            {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": status, "subresource": "status"}]},
        "spec": {"nodeName": format!("node-{}", number % 100), "serviceAccountName": "web", "serviceAccount": "web", "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "enableServiceLinks": true, "priority": 0,
            "terminationGracePeriodSeconds": 30, "containers": [container("app"), container("sidecar")],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}]},
        "status": {"phase": "Running", "qosClass": "Burstable", "hostIP": "10.1.0.1", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "startTime": "2026-01-01T00:00:00Z", "conditions": [condition("Initialized"), condition("Ready"), condition("PodScheduled")],
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "registry.example/app:1.2.3",
                "imageID": "registry.example/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "containerID": "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {}, "started": true}]}})
}
