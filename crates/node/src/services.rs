//! The cluster's services as pods see them: in DNS and in environments. Holds what a watch tells; asks nobody.

use kemudi_client::{ObjectMeta, typed};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

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
    pub external_name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub ports: Option<Vec<ServicePort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    pub name: String,
    pub protocol: String,
    pub port: u16,
}

typed!(ServiceObject, group "", version "v1", plural "services", namespaced);

/// A service: what its name stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Its addresses in the cluster; none for a headless one.
    pub addresses: Vec<IpAddr>,
    /// The name that it stands for, if it is only another name.
    pub external_name: Option<String>,
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub port: u16,
}

impl From<ServiceObject> for Service {
    fn from(object: ServiceObject) -> Service {
        let spec = object.spec;
        let addresses = spec.cluster_ips.filter(|ips| !ips.is_empty()).unwrap_or_else(|| vec![spec.cluster_ip]);
        let ports = spec.ports.unwrap_or_default().into_iter();
        Service {
            namespace: object.metadata.namespace,
            name: object.metadata.name,
            addresses: addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            external_name: (spec.kind == "ExternalName").then_some(spec.external_name),
            ports: ports.map(|port| Port { name: port.name, protocol: port.protocol, port: port.port }).collect(),
        }
    }
}

/// All services by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Services(BTreeMap<(String, String), Service>);

impl Services {
    pub fn insert(&mut self, service: Service) {
        self.0.insert((service.namespace.clone(), service.name.clone()), service);
    }

    pub fn remove(&mut self, namespace: &str, name: &str) {
        self.0.remove(&(namespace.to_owned(), name.to_owned()));
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.0.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.0.keys().any(|(known, _)| known == namespace)
    }

    /// The service with this address.
    pub fn at(&self, address: IpAddr) -> Option<&Service> {
        self.0.values().find(|service| service.addresses.contains(&address))
    }

    pub fn of_namespace(&self, namespace: &str) -> Vec<Service> {
        self.0.values().filter(|service| service.namespace == namespace).cloned().collect()
    }
}
