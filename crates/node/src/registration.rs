//! The node as an object of the API: made at start, kept alive by a lease and a status.

use crate::decide::time;
use jiff::{SignedDuration, Timestamp};
use kemudi_client::{Api, ApiResource, Client, Dynamic, Error, Patch};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the lease stands without renewal, in seconds, and how often it is renewed.
const LEASE_SECONDS: i64 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How often the status tells that the node lives.
const STATUS_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// The pause after a request that failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Pods that a node says it takes: as many as were counted at once on two cores. A kubelet says 110 of itself unless it is told more.
const PODS_MAX: u32 = 500;

/// What a node with nothing but the sandbox tells as its runtime.
const OWN_RUNTIME: &str = concat!("kemudi://", env!("CARGO_PKG_VERSION"));

const NODES: ApiResource = ApiResource::new("", "v1", "Node", "nodes", false);
const LEASES: ApiResource = ApiResource::new("coordination.k8s.io", "v1", "Lease", "leases", true);
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What a node tells about itself.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub name: String,
    pub host_ip: String,
    /// Where the addresses of its pods are: `10.244.0.0/16`.
    pub pod_range: String,
    /// The port at which the agent serves an API server in another process.
    pub port: Option<u16>,
    /// The Kubernetes version it speaks: `v1.37.2`.
    pub version: String,
    pub allocatable: BTreeMap<String, String>,
    pub memory_bytes: u64,
    /// The container runtime that it has, and its version.
    pub runtime: Option<String>,
}

/// What this machine has, in Kubernetes' quantities.
pub fn allocatable() -> BTreeMap<String, String> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    let kibibytes = memory_bytes() / 1024;
    [
        ("cpu".to_owned(), cpus.to_string()),
        ("memory".to_owned(), format!("{kibibytes}Ki")),
        ("pods".to_owned(), PODS_MAX.to_string()),
    ]
    .into()
}

/// The memory of this machine.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// The address other machines reach this one at, without sending anything; the loopback address if there is none.
pub fn host_ip() -> String {
    let found = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // An address of the documentation range: only the route to it is looked up.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    found.map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}

/// Registers the node and keeps it alive, until it is dropped.
pub async fn run(client: Client, facts: NodeFacts) {
    while let Err(error) = register(&client, &facts).await {
        tracing::debug!(%error, "the node could not be registered yet");
        tokio::time::sleep(RETRY_AFTER).await;
    }
    let mut told = Timestamp::now();
    loop {
        let pause = match renew(&client, &facts).await {
            Ok(()) => RENEW_EVERY,
            Err(error) => {
                tracing::debug!(%error, "the node's lease could not be renewed");
                RETRY_AFTER
            }
        };
        if Timestamp::now().duration_since(told) >= STATUS_EVERY {
            match register(&client, &facts).await {
                Ok(()) => told = Timestamp::now(),
                Err(error) => tracing::debug!(%error, "the node's status could not be told"),
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Makes the node if it is not there, and tells its status.
async fn register(client: &Client, facts: &NodeFacts) -> Result<(), Error> {
    let nodes = Api::<Dynamic>::all_of(client.clone(), &NODES);
    let known = match nodes.get_opt(&facts.name).await? {
        Some(known) => known,
        None => match nodes.create(&Dynamic(node(facts))).await {
            Ok(made) => made,
            Err(error) if error.is_already_exists() => nodes.get(&facts.name).await?,
            Err(error) => return Err(error),
        },
    };
    let status = json!({"status": status(facts, &known, Timestamp::now())});
    nodes.patch_status(&facts.name, &Patch::Strategic(&status)).await.map(drop)
}

fn node(facts: &NodeFacts) -> Value {
    let arch = go_arch();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.name,
            "labels": {
                "beta.kubernetes.io/arch": arch,
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": arch,
                "kubernetes.io/hostname": facts.name,
                "kubernetes.io/os": "linux",
            },
        },
        "spec": {"podCIDR": facts.pod_range, "podCIDRs": [facts.pod_range]},
    })
}

fn status(facts: &NodeFacts, known: &Value, now: Timestamp) -> Value {
    let uname = rustix::system::uname();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os = read("/etc/os-release");
    let os =
        os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"').to_owned();
    let wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let conditions: Vec<Value> = wanted
        .iter()
        .map(|(kind, value, reason, message)| {
            let before = api::meta::items_at(known, &["status", "conditions"]);
            let before = before.iter().find(|known| known["type"] == *kind && known["status"] == *value);
            let since = before.and_then(|known| known["lastTransitionTime"].as_str().map(str::to_owned));
            json!({
                "type": kind, "status": value, "lastHeartbeatTime": time(now),
                "lastTransitionTime": since.unwrap_or_else(|| time(now)), "reason": reason, "message": message,
            })
        })
        .collect();
    let mut status = json!({
        "capacity": facts.allocatable,
        "allocatable": facts.allocatable,
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": facts.host_ip},
            {"type": "Hostname", "address": facts.name},
        ],
        "nodeInfo": {
            "machineID": read("/etc/machine-id"),
            "systemUUID": read("/sys/class/dmi/id/product_uuid"),
            "bootID": read("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": uname.release().to_string_lossy(),
            "osImage": os,
            "containerRuntimeVersion": facts.runtime.as_deref().unwrap_or(OWN_RUNTIME),
            "kubeletVersion": facts.version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": go_arch(),
        },
    });
    if let Some(port) = facts.port {
        status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": port}});
    }
    status
}

async fn renew(client: &Client, facts: &NodeFacts) -> Result<(), Error> {
    let leases = Api::<Dynamic>::namespaced_of(client.clone(), LEASE_NAMESPACE, &LEASES);
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let spec = json!({"holderIdentity": facts.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
    match leases.patch(&facts.name, &Patch::Merge(&json!({"spec": spec}))).await {
        Err(error) if error.is_not_found() => {
            let uid = Api::<Dynamic>::all_of(client.clone(), &NODES).get(&facts.name).await?["metadata"]["uid"].clone();
            let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": facts.name, "uid": uid}]);
            let metadata = json!({"name": facts.name, "namespace": LEASE_NAMESPACE, "ownerReferences": owner});
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec
            });
            leases.create(&Dynamic(lease)).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
