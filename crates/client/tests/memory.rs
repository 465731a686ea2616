//! What a cache of ten thousand pods costs. A binary of its own, since it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kemudi_client::kinds::Pod;
use kemudi_client::{Api, Body, Client, ListOptions, Metadata, Resource, Result, Store, Transport};
use serde_json::json;

const PODS: usize = 10_000;
const MIB: usize = 1 << 20;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; the counters are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Tells ten thousand pods by a watch, one a frame. The text is made before, so that making it is not counted.
struct Pods(Vec<Bytes>);

impl Transport for Pods {
    fn send(&self, _request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        let end = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let lines = self.0.clone().into_iter().chain([Bytes::from(format!("{end}\n"))]);
        let frames = lines.map(|line| Ok(Frame::data(line)));
        let open = futures_util::StreamExt::chain(stream::iter(frames), stream::pending());
        Box::pin(async move { Ok(Response::new(StreamBody::new(open).boxed_unsync())) })
    }
}

/// A pod as a Deployment's look, with two entries of managed fields: 4.9 KB.
fn pod(number: usize) -> Bytes {
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
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
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
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {}, "started": true}]}});
    Bytes::from(format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n"))
}

/// The same pods as one answer to a list, in pieces as HTTP/2 brings them.
struct Listed(Vec<Bytes>);

impl Listed {
    fn of(lines: &[Bytes]) -> Listed {
        const PIECE_BYTES: usize = 16 << 10;
        let object = |line: &Bytes| line[r#"{"type":"ADDED","object":"#.len()..line.len() - "}\n".len()].to_vec();
        let objects = lines.iter().map(object).collect::<Vec<_>>().join(&b","[..]);
        let text = [
            &br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":["#[..],
            &objects,
            b"]}",
        ];
        Listed(text.concat().chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect())
    }
}

impl Transport for Listed {
    fn send(&self, _request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        let frames = self.0.clone().into_iter().map(|piece| Ok(Frame::data(piece)));
        Box::pin(async move { Ok(Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync())) })
    }
}

/// Lists all pods, as [`cost`].
async fn cost_of_list(api: Api<Pod>) -> (usize, usize, usize) {
    let (live, made) = (LIVE.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    let pods = api.list().await.unwrap();
    assert_eq!(pods.len(), PODS);
    (
        LIVE.load(Ordering::Relaxed) - live,
        PEAK.load(Ordering::Relaxed) - live,
        ALLOCATIONS.load(Ordering::Relaxed) - made,
    )
}

/// Fills a store; live heap and peak in bytes, and allocations, of all its objects.
async fn cost<K: Resource>(api: Api<K>) -> (usize, usize, usize) {
    let (live, made) = (LIVE.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    let mut reflector = Store::builder().reflector(&api, &ListOptions::default());
    let store = reflector.store();
    while !store.is_ready() {
        reflector.next().await.unwrap();
    }
    assert_eq!(store.len(), PODS);
    let cost = (
        LIVE.load(Ordering::Relaxed) - live,
        PEAK.load(Ordering::Relaxed) - live,
        ALLOCATIONS.load(Ordering::Relaxed) - made,
    );
    drop((reflector, store));
    cost
}

#[tokio::test]
async fn ten_thousand_pods_fit_in_little() {
    let lines: Vec<Bytes> = (0..PODS).map(pod).collect();
    let bytes = lines.iter().map(Bytes::len).sum::<usize>() / PODS;
    assert!((4_000..6_000).contains(&bytes), "{bytes} bytes a pod");
    let listed = Client::with_transport(Arc::new(Listed::of(&lines)));
    let client = Client::with_transport(Arc::new(Pods(lines)));
    let check = |what: &str, (live, peak, made): (usize, usize, usize), live_max: usize, allocations_max: usize| {
        println!(
            "{what}: {:.1} MiB, {:.1} MiB at most, {:.1} allocations a pod",
            live as f64 / MIB as f64,
            peak as f64 / MIB as f64,
            made as f64 / PODS as f64
        );
        assert!(live <= live_max * MIB && peak <= live_max * MIB * 3 / 2, "{what}: {live} bytes, {peak} at most");
        assert!(made <= allocations_max * PODS, "{what}: {made} allocations");
    };
    let pods = cost(Api::<Pod>::all(client.clone())).await;
    check("pods", pods, 60, 60);
    check("a list", cost_of_list(Api::<Pod>::all(listed)).await, 60, 60);
    let metadata = cost(Api::<Metadata<Pod>>::all(client.clone())).await;
    check("metadata", metadata, 15, 60);
}
