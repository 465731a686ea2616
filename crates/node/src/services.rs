//! The cluster's services and where the pods behind them are, as DNS, environments and the node's network need them. Holds what
//! watches tell; asks nobody.

use kemudi_client::{ObjectMeta, Resource, typed};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The Service object as the watch decodes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceObject {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    pub external_name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub ports: Option<Vec<ServicePort>>,
    pub session_affinity: String,
    pub session_affinity_config: Option<SessionAffinityConfig>,
    pub internal_traffic_policy: String,
    pub external_traffic_policy: String,
    pub health_check_node_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    pub timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: String,
    pub protocol: String,
    pub port: u16,
    pub node_port: u16,
}

/// How long clients are led to the same pod where a service that wants it does not say.
const STICKY_SECONDS: u32 = 10_800;

typed!(ServiceObject, group "", version "v1", plural "services", namespaced);

/// A service: what its name stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Its addresses in the cluster; none for a headless one.
    pub addresses: Vec<IpAddr>,
    /// Addresses of elsewhere that it has too.
    pub external_addresses: Vec<IpAddr>,
    /// The name that it stands for, if it is only another name.
    pub external_name: Option<String>,
    pub ports: Vec<Port>,
    /// How long after its last connection a client is still led to the same pod; not at all if nothing.
    pub sticky_seconds: Option<u32>,
    /// From within the cluster, only pods of the same node are reached.
    pub local_only: bool,
    /// From outside of the cluster, only pods of the node are reached that the connection comes to; they see where it comes from.
    pub local_from_outside: bool,
    /// The port of every node that says whether there are such pods; 0 if there is none.
    pub health_port: u16,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub port: u16,
    /// Its port on every node; 0 if it has none.
    pub node_port: u16,
}

impl From<ServiceObject> for Service {
    fn from(object: ServiceObject) -> Service {
        let spec = object.spec;
        let addresses = spec.cluster_ips.filter(|ips| !ips.is_empty()).unwrap_or_else(|| vec![spec.cluster_ip]);
        let parse = |addresses: &[String]| addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let port = |port: ServicePort| {
            let ServicePort { name, protocol, port, node_port } = port;
            Port { name, protocol: if protocol.is_empty() { "TCP".into() } else { protocol }, port, node_port }
        };
        Service {
            namespace: object.metadata.namespace,
            name: object.metadata.name,
            addresses: parse(&addresses),
            external_addresses: parse(&spec.external_ips.unwrap_or_default()),
            external_name: (spec.kind == "ExternalName").then_some(spec.external_name),
            ports: spec.ports.unwrap_or_default().into_iter().map(port).collect(),
            sticky_seconds: (spec.session_affinity == "ClientIP").then(|| {
                let config = spec.session_affinity_config.and_then(|config| config.client_ip);
                config.and_then(|config| config.timeout_seconds).unwrap_or(STICKY_SECONDS)
            }),
            local_only: spec.internal_traffic_policy == "Local",
            local_from_outside: spec.external_traffic_policy == "Local",
            health_port: spec.health_check_node_port,
        }
    }
}

/// The EndpointSlice object as the watch decodes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceObject {
    pub metadata: ObjectMeta,
    pub address_type: String,
    pub endpoints: Option<Vec<EndpointObject>>,
    pub ports: Option<Vec<SlicePort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointObject {
    pub addresses: Vec<String>,
    pub conditions: Option<EndpointConditions>,
    pub hostname: Option<String>,
    pub node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    pub name: Option<String>,
    pub protocol: Option<String>,
    /// None: every port.
    pub port: Option<u16>,
}

typed!(SliceObject, group "discovery.k8s.io", version "v1", plural "endpointslices", namespaced);

/// A part of what is behind a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    pub namespace: String,
    pub name: String,
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

/// Something behind a service: a pod as a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    /// It is about to end, and serves until then.
    pub serves_to_its_end: bool,
    /// Its name in the service's domain.
    pub hostname: Option<String>,
    pub node: Option<String>,
}

impl From<SliceObject> for Slice {
    fn from(object: SliceObject) -> Slice {
        let endpoint = |endpoint: EndpointObject| {
            let conditions = endpoint.conditions.unwrap_or_default();
            // An endpoint of a slice has one address; more were never given a meaning.
            Some(Endpoint {
                address: endpoint.addresses.first()?.parse().ok()?,
                ready: conditions.ready.unwrap_or(true),
                serves_to_its_end: conditions.terminating == Some(true)
                    && conditions.serving.or(conditions.ready).unwrap_or(true),
                hostname: endpoint.hostname.filter(|name| !name.is_empty()),
                node: endpoint.node_name,
            })
        };
        let named = object.address_type == "FQDN";
        let endpoints = object.endpoints.unwrap_or_default();
        Slice {
            service: object.metadata.labels.get(SERVICE_NAME).unwrap_or_default().to_string(),
            namespace: object.metadata.namespace,
            name: object.metadata.name,
            ports: object.ports.unwrap_or_default(),
            endpoints: endpoints.into_iter().filter(|_| !named).filter_map(endpoint).collect(),
        }
    }
}

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The services, for who reads and who changes them. The lock is never held while somebody waits for anything else.
#[derive(Debug, Default)]
pub struct SharedServices(RwLock<Services>);

impl SharedServices {
    pub fn new(services: Services) -> SharedServices {
        SharedServices(RwLock::new(services))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Services> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Services> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All services by namespace and name, and the slices of each.
#[derive(Clone, Debug, Default)]
pub struct Services {
    all: BTreeMap<(String, String), Service>,
    /// By the service's namespace and name, then by their own.
    slices: BTreeMap<(String, String), BTreeMap<String, Slice>>,
}

impl Services {
    pub fn insert(&mut self, service: Service) {
        self.all.insert((service.namespace.clone(), service.name.clone()), service);
    }

    pub fn remove(&mut self, namespace: &str, name: &str) {
        self.all.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Forgets all services, and knows these instead.
    pub fn replace(&mut self, services: Services) {
        self.all = services.all;
    }

    pub fn insert_slice(&mut self, slice: Slice) {
        let of_service = self.slices.entry((slice.namespace.clone(), slice.service.clone())).or_default();
        of_service.insert(slice.name.clone(), slice);
    }

    pub fn remove_slice(&mut self, slice: &SliceObject) {
        let service = slice.metadata.labels.get(SERVICE_NAME).unwrap_or_default().to_string();
        let key = (slice.namespace().to_owned(), service);
        if let Some(of_service) = self.slices.get_mut(&key) {
            of_service.remove(slice.name());
            if of_service.is_empty() {
                self.slices.remove(&key);
            }
        }
    }

    /// Forgets all slices, and knows these instead.
    pub fn replace_slices(&mut self, services: Services) {
        self.slices = services.slices;
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.all.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.all.keys().any(|(known, _)| known == namespace)
    }

    /// The service with this address.
    pub fn at(&self, address: IpAddr) -> Option<&Service> {
        self.all.values().find(|service| service.addresses.contains(&address))
    }

    pub fn of_namespace(&self, namespace: &str) -> Vec<Service> {
        self.all.values().filter(|service| service.namespace == namespace).cloned().collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.all.values()
    }

    /// The slices of a service.
    pub fn slices_of(&self, service: &Service) -> impl Iterator<Item = &Slice> {
        let of_service = self.slices.get(&(service.namespace.clone(), service.name.clone()));
        of_service.into_iter().flat_map(BTreeMap::values)
    }

    /// Everything that is behind a service, with the service.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Service, &Endpoint)> {
        self.all.values().flat_map(|service| {
            self.slices_of(service)
                .flat_map(move |slice| slice.endpoints.iter().map(move |endpoint| (service, endpoint)))
        })
    }

    /// Where a connection to a port of a service may go, of these endpoints alone, in a fixed order. Where nothing is ready, what
    /// is about to end still serves.
    pub fn targets(&self, service: &Service, port: &Port, of: impl Fn(&Endpoint) -> bool) -> Vec<SocketAddrV4> {
        let mut ready = Vec::new();
        let mut ending = Vec::new();
        for slice in self.slices_of(service) {
            let is = |own: &&SlicePort| {
                own.name.as_deref().unwrap_or_default() == port.name
                    && own.protocol.as_deref().unwrap_or("TCP") == port.protocol
            };
            let Some(number) = slice.ports.iter().find(is).and_then(|own| own.port) else { continue };
            for endpoint in slice.endpoints.iter().filter(|endpoint| of(endpoint)) {
                let IpAddr::V4(address) = endpoint.address else { continue };
                let target = SocketAddrV4::new(address, number);
                if endpoint.ready {
                    ready.push(target);
                } else if endpoint.serves_to_its_end {
                    ending.push(target);
                }
            }
        }
        let mut targets = if ready.is_empty() { ending } else { ready };
        targets.sort();
        targets.dedup();
        targets
    }
}

impl Service {
    /// It has no address of its own: its name stands for the pods behind it.
    pub fn is_headless(&self) -> bool {
        self.external_name.is_none() && self.addresses.is_empty()
    }

    /// The addresses that a packet can be sent to, of the one family that pods have.
    pub fn reached_at(&self) -> impl Iterator<Item = Ipv4Addr> {
        of_pods_family(&self.addresses)
    }

    /// The same of elsewhere.
    pub fn reached_from_outside_at(&self) -> impl Iterator<Item = Ipv4Addr> {
        of_pods_family(&self.external_addresses)
    }
}

fn of_pods_family(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}
