//! The network that this node's pods are in: services, the way out, ports of the host, policies. Follows the cluster's objects by
//! watches and keeps the packet filter in step with them; what the rules are, `rules` and `policy` say. The wires to the pods
//! are the sandbox's.

pub mod filter;
mod flows;
mod health;
mod outside;
mod policy;
mod ports;
mod relay;
mod rules;

pub use outside::WayOut;
pub use ports::{Entrance, HostPort, publish};
pub use relay::{accept, each_connection};

use crate::agent::{API_PORT, ClusterNetwork, Shared, lock};
use crate::pod::Pod;
use crate::sandbox::Switch;
use crate::services::{ServiceObject, Services, SliceObject};
use filter::{Net, TCP, Table, UDP};
use kemudi_client::{Api, Event, ListOptions, ObjectMeta, Resource, StringMap, Typed, typed};
use policy::{Destination, Member, Policies, PolicyObject};
use rules::Place;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The pause before rules are tried again that the kernel did not take.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long a pod waits until its policies are in force, before it starts without being reached by anybody.
const ADMISSION_MAX: Duration = Duration::from_secs(5);
/// The bits of a node's range of pods, and of the range of services around the API server's address.
const RANGE_BITS: u8 = 16;
const DNS_PORT: u16 = 53;

/// What the agent knows of its network.
pub struct NodeNetwork {
    policies: Mutex<Policies>,
    /// Counts what changed.
    changed: watch::Sender<u64>,
    /// The last change that is in force.
    in_force: watch::Sender<u64>,
    cut_off: Mutex<CutOff>,
    /// Ports of the host that lead to pods; no more than pods have asked for and the host has.
    host_ports: Mutex<BTreeSet<HostPort>>,
}

/// A pod's port of the host that is open; it is closed to pods when this is dropped.
pub struct OpenPort {
    shared: Arc<Shared>,
    port: HostPort,
}

impl OpenPort {
    /// Leads pods that ask the host for the port to where it leads others, as whom they are.
    pub fn new(shared: Arc<Shared>, port: HostPort) -> OpenPort {
        lock(&shared.network.host_ports).insert(port.clone());
        shared.network.note_change();
        OpenPort { shared, port }
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        lock(&self.shared.network.host_ports).remove(&self.port);
        self.shared.network.note_change();
    }
}

/// Pods whose policies keep them from what the node serves within each pod.
#[derive(Default)]
struct CutOff {
    api: HashSet<Ipv4Addr>,
    dns: HashSet<Ipv4Addr>,
}

/// What the node serves within each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    Api,
    Dns,
}

impl Default for NodeNetwork {
    fn default() -> NodeNetwork {
        NodeNetwork {
            policies: Mutex::default(),
            changed: watch::Sender::new(0),
            in_force: watch::Sender::new(0),
            cut_off: Mutex::default(),
            host_ports: Mutex::default(),
        }
    }
}

impl NodeNetwork {
    /// Whether a pod's policies let it reach what is served within it.
    pub fn lets(&self, address: Ipv4Addr, to: Served) -> bool {
        let cut_off = lock(&self.cut_off);
        let from = if to == Served::Api { &cut_off.api } else { &cut_off.dns };
        !from.contains(&address)
    }

    /// Has the policies about a pod in force, before it starts.
    pub async fn admit(&self, pod: &Pod, address: Ipv4Addr) {
        let wanted = {
            let mut policies = lock(&self.policies);
            if policies.all.is_empty() {
                return;
            }
            let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
            policies.pods.insert(key, member(pod, address));
            self.note_change()
        };
        let mut in_force = self.in_force.subscribe();
        let _ = tokio::time::timeout(ADMISSION_MAX, in_force.wait_for(|done| *done >= wanted)).await;
    }

    fn note_change(&self) -> u64 {
        let mut now = 0;
        self.changed.send_modify(|count| {
            *count += 1;
            now = *count;
        });
        now
    }
}

fn member(pod: &Pod, address: Ipv4Addr) -> Member {
    let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let ports = all.flat_map(|container| &container.ports);
    Member {
        namespace: pod.metadata.namespace.clone(),
        labels: pod.metadata.labels.clone(),
        address: Some(address),
        node: pod.spec.node_name.clone(),
        ports: ports.map(|port| (port.name.clone(), port.protocol().to_owned(), port.container_port)).collect(),
    }
}

/// A pod as the watch decodes it, of any node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OtherPod {
    metadata: ObjectMeta,
    spec: Arc<crate::pod::PodSpec>,
    status: OtherStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OtherStatus {
    #[serde(rename = "podIP")]
    pod_ip: String,
    phase: String,
}

typed!(OtherPod, group "", version "v1", plural "pods", namespaced);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    metadata: ObjectMeta,
}

typed!(Namespace, group "", version "v1", plural "namespaces", cluster);

/// Sees to the network until it is dropped; `known` becomes true with the first word about services.
pub async fn run(shared: Arc<Shared>, known: watch::Sender<bool>) {
    let services = watch_services(&shared, known);
    let watches = async { tokio::join!(services, watch_slices(&shared), watch_policies(&shared)) };
    tokio::join!(watches, serve(&shared));
}

/// Opens the network and keeps it as it shall be.
async fn serve(shared: &Arc<Shared>) {
    let switch = match shared.runtime.network().await {
        Ok(switch) => switch,
        Err(why) => {
            tracing::warn!(%why, "pods have addresses, but no network between them");
            return;
        }
    };
    let outside = match outside::Outside::open(&switch, shared.config.outside).await {
        Ok(outside) => outside,
        Err(error) => {
            tracing::warn!(%error, "pods have no way out of their network");
            outside::Outside::default()
        }
    };
    let cluster = &shared.config.cluster;
    let host = shared.facts.host_ip.parse().ok().filter(|host: &Ipv4Addr| !host.is_loopback());
    let place = Place {
        node: shared.config.name.clone(),
        gateway: cluster.gateway(),
        pods: pod_range(cluster),
        services: service_range(cluster),
        host,
        has_node_ports: shared.config.node_ports,
        outside: outside.sockets(),
    };
    let node_ports = async {
        if shared.config.node_ports {
            tokio::join!(ports::serve(shared, &place, switch.clone()), health::serve(shared, &place));
        }
    };
    tokio::join!(keep_rules(shared, &switch, &place), outside.serve(switch.clone()), node_ports);
}

fn pod_range(cluster: &ClusterNetwork) -> Net {
    Net { address: cluster.pod_range, bits: RANGE_BITS }
}

fn service_range(cluster: &ClusterNetwork) -> Net {
    let address = match cluster.api_ip {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::new(10, 96, 0, 0),
    };
    Net { address, bits: RANGE_BITS }
}

/// Brings the packet filter in step with each change.
async fn keep_rules(shared: &Shared, switch: &Switch, place: &Place) {
    let Some(socket) = switch.filter().and_then(|socket| socket.try_clone_to_owned().ok()) else {
        tracing::warn!("services are not forwarded and policies not kept: this kernel has no nf_tables for this user");
        return;
    };
    let base = rules::base(place);
    let made = tokio::task::spawn_blocking(move || Table::create(socket, base)).await;
    let mut table = match made {
        Ok(Ok(table)) => table,
        Ok(Err(error)) => {
            tracing::warn!(%error, "services are not forwarded and policies not kept: the packet filter took no rules");
            return;
        }
        Err(_) => return,
    };
    let network = &shared.network;
    let mut changes = network.changed.subscribe();
    loop {
        let count = *changes.borrow_and_update();
        let wanted = {
            let services = shared.services.read();
            let policies = lock(&network.policies);
            *lock(&network.cut_off) = cut_off(shared, place, &services, &policies);
            rules::state(place, &services, &policies, &lock(&network.host_ports))
        };
        // The kernel does the work within the call.
        let applying = tokio::task::spawn_blocking(move || {
            let applied = table.apply(wanted);
            (table, applied)
        });
        let Ok((again, applied)) = applying.await else { return };
        table = again;
        match applied {
            Ok(()) => drop(network.in_force.send_replace(count)),
            Err(error) => {
                tracing::warn!(%error, "the packet filter did not take the rules for services and policies");
                tokio::time::sleep(TRY_AGAIN).await;
                continue;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Which pods of this node may not reach what is served within them.
fn cut_off(shared: &Shared, place: &Place, services: &Services, policies: &Policies) -> CutOff {
    let mut cut_off = CutOff::default();
    if policies.all.is_empty() {
        return cut_off;
    }
    let cluster = &shared.config.cluster;
    let destination = |address: IpAddr, protocol, port, pod: Option<Member>| -> Option<Destination> {
        let IpAddr::V4(address) = address else { return None };
        Some(Destination { address, protocol, port, pod })
    };
    let mut api: Vec<Destination> = destination(cluster.api_ip, TCP, API_PORT, None).into_iter().collect();
    if let Some(kubernetes) = services.get("default", "kubernetes") {
        for port in &kubernetes.ports {
            let targets = services.targets(kubernetes, port, |_| true);
            api.extend(targets.iter().filter_map(|it| destination((*it.ip()).into(), TCP, it.port(), None)));
        }
    }
    let mut labels = StringMap::default();
    labels.insert("k8s-app", "kube-dns");
    let resolver = Member {
        namespace: "kube-system".into(),
        labels,
        ports: vec![("dns".into(), "UDP".into(), DNS_PORT), ("dns-tcp".into(), "TCP".into(), DNS_PORT)],
        ..Member::default()
    };
    let dns = [UDP, TCP].map(|protocol| destination(cluster.dns_ip, protocol, DNS_PORT, Some(resolver.clone())));
    let dns: Vec<Destination> = dns.into_iter().flatten().collect();
    for pod in policies.pods.values().filter(|pod| pod.node == place.node) {
        let Some(address) = pod.address else { continue };
        if !policies.lets_out(pod, &api) {
            cut_off.api.insert(address);
        }
        if !policies.lets_out(pod, &dns) {
            cut_off.dns.insert(address);
        }
    }
    cut_off
}

/// What a watch tells.
enum Change<K> {
    /// All there is.
    All(Vec<K>),
    Is(K),
    IsGone(K),
}

/// Follows all objects of a kind.
async fn follow<K: Resource + Typed + DeserializeOwned>(api: Api<K>, what: &str, mut take: impl FnMut(Change<K>)) {
    let mut watcher = api.watcher(&ListOptions::default());
    let mut all = Vec::new();
    loop {
        match watcher.next().await {
            Ok(Event::Init) => all.clear(),
            Ok(Event::InitApplied(object)) => all.push(object),
            Ok(Event::InitDone) => take(Change::All(std::mem::take(&mut all))),
            Ok(Event::Applied(object)) => take(Change::Is(object)),
            Ok(Event::Deleted(object)) => take(Change::IsGone(object)),
            Err(error) => tracing::debug!(%error, "{what} cannot be watched at the moment"),
        }
    }
}

async fn watch_services(shared: &Shared, known: watch::Sender<bool>) {
    let api = Api::<ServiceObject>::all(shared.config.client.clone());
    follow(api, "services", |change| {
        {
            let mut services = shared.services.write();
            match change {
                Change::All(all) => {
                    let mut fresh = crate::agent::first_services(&shared.config.cluster);
                    all.into_iter().for_each(|service| fresh.insert(service.into()));
                    services.replace(fresh);
                }
                Change::Is(service) => services.insert(service.into()),
                Change::IsGone(service) => services.remove(service.namespace(), service.name()),
            }
        }
        known.send_replace(true);
        shared.network.note_change();
    })
    .await;
}

async fn watch_slices(shared: &Shared) {
    let api = Api::<SliceObject>::all(shared.config.observer.clone());
    follow(api, "endpoints of services", |change| {
        {
            let mut services = shared.services.write();
            match change {
                Change::All(all) => {
                    let mut fresh = Services::default();
                    all.into_iter().for_each(|slice| fresh.insert_slice(slice.into()));
                    services.replace_slices(fresh);
                }
                Change::Is(slice) => services.insert_slice(slice.into()),
                Change::IsGone(slice) => services.remove_slice(&slice),
            }
        }
        shared.network.note_change();
    })
    .await;
}

/// Follows policies and, once there are some, what they choose from.
async fn watch_policies(shared: &Shared) {
    let network = &shared.network;
    let wanted = watch::Sender::new(false);
    let policies = follow(Api::<PolicyObject>::all(shared.config.observer.clone()), "policies", |change| {
        let mut policies = lock(&network.policies);
        let key = |policy: &PolicyObject| (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        match change {
            Change::All(all) => policies.all = all.into_iter().map(|policy| (key(&policy), policy.spec)).collect(),
            Change::Is(policy) => drop(policies.all.insert(key(&policy), policy.spec)),
            Change::IsGone(policy) => drop(policies.all.remove(&key(&policy))),
        }
        wanted.send_if_modified(|wanted| !policies.all.is_empty() && !std::mem::replace(wanted, true));
        network.note_change();
    });
    let mut asked = wanted.subscribe();
    let members = async {
        if asked.wait_for(|wanted| *wanted).await.is_ok() {
            tokio::join!(watch_members(shared), watch_namespaces(shared));
        }
    };
    tokio::join!(policies, members);
}

async fn watch_members(shared: &Shared) {
    let network = &shared.network;
    follow(Api::<OtherPod>::all(shared.config.observer.clone()), "pods", |change| {
        let key = |pod: &OtherPod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        let mut policies = lock(&network.policies);
        let mut put = |pod: OtherPod| {
            let over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
            let key = key(&pod);
            if over || pod.spec.host_network {
                policies.pods.remove(&key);
                return;
            }
            // One that is about to start here was admitted with its address before anybody was told.
            let admitted = policies.pods.get(&key).and_then(|pod| pod.address);
            let address = pod.status.pod_ip.parse().ok().or(admitted);
            let pod = Pod { metadata: pod.metadata, spec: pod.spec, ..Pod::default() };
            let member = Member { address, ..member(&pod, Ipv4Addr::UNSPECIFIED) };
            policies.pods.insert(key, member);
        };
        match change {
            Change::All(all) => all.into_iter().for_each(&mut put),
            Change::Is(pod) => put(pod),
            Change::IsGone(pod) => drop(policies.pods.remove(&key(&pod))),
        }
        drop(policies);
        network.note_change();
    })
    .await;
}

async fn watch_namespaces(shared: &Shared) {
    let network = &shared.network;
    follow(Api::<Namespace>::all(shared.config.observer.clone()), "namespaces", |change| {
        let mut policies = lock(&network.policies);
        let entry = |namespace: Namespace| (namespace.metadata.name, namespace.metadata.labels);
        match change {
            Change::All(all) => policies.namespaces = all.into_iter().map(entry).collect(),
            Change::Is(namespace) => policies.namespaces.extend([entry(namespace)]),
            Change::IsGone(namespace) => drop(policies.namespaces.remove(&namespace.metadata.name)),
        }
        drop(policies);
        network.note_change();
    })
    .await;
}
