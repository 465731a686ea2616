//! The resources that the controllers watch and write, and what all objects have.

use api::skim::Fields;
use kemudi_client::{ApiResource, ObjectMeta, Resource};
use serde::Deserialize;
use serde::de::Error;

pub const NAMESPACES: ApiResource = ApiResource::new("", "v1", "Namespace", "namespaces", false);
pub const SERVICE_ACCOUNTS: ApiResource = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
pub const CONFIG_MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
pub const SECRETS: ApiResource = ApiResource::new("", "v1", "Secret", "secrets", true);
pub const PODS: ApiResource = ApiResource::new("", "v1", "Pod", "pods", true);
pub const SERVICES: ApiResource = ApiResource::new("", "v1", "Service", "services", true);
pub const ENDPOINTS: ApiResource = ApiResource::new("", "v1", "Endpoints", "endpoints", true);
pub const ENDPOINT_SLICES: ApiResource =
    ApiResource::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true);
pub const NODES: ApiResource = ApiResource::new("", "v1", "Node", "nodes", false);
pub const PERSISTENT_VOLUMES: ApiResource = ApiResource::new("", "v1", "PersistentVolume", "persistentvolumes", false);
pub const PERSISTENT_VOLUME_CLAIMS: ApiResource =
    ApiResource::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true);
pub const STORAGE_CLASSES: ApiResource =
    ApiResource::new("storage.k8s.io", "v1", "StorageClass", "storageclasses", false);
pub const ATTRIBUTES_CLASSES: ApiResource =
    ApiResource::new("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", false);
pub const BUDGETS: ApiResource = ApiResource::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true);
pub const REPLICATION_CONTROLLERS: ApiResource =
    ApiResource::new("", "v1", "ReplicationController", "replicationcontrollers", true);
pub const REPLICA_SETS: ApiResource = ApiResource::new("apps", "v1", "ReplicaSet", "replicasets", true);
pub const DEPLOYMENTS: ApiResource = ApiResource::new("apps", "v1", "Deployment", "deployments", true);
pub const STATEFUL_SETS: ApiResource = ApiResource::new("apps", "v1", "StatefulSet", "statefulsets", true);
pub const SERVICE_CIDRS: ApiResource =
    ApiResource::new("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", false);
pub const IP_ADDRESSES: ApiResource = ApiResource::new("networking.k8s.io", "v1", "IPAddress", "ipaddresses", false);
pub const EVENTS: ApiResource = ApiResource::new("", "v1", "Event", "events", true);
pub const LEASES: ApiResource = ApiResource::new("coordination.k8s.io", "v1", "Lease", "leases", true);
pub const CLUSTER_ROLES: ApiResource =
    ApiResource::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
pub const DEFINITIONS: ApiResource =
    ApiResource::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false);
pub const API_SERVICES: ApiResource =
    ApiResource::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", false);

/// An object of any kind, only its metadata: the decoder skips the rest.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl Metadata {
    /// Of an object that was read for others, as far as it was.
    pub fn of(object: &impl Resource) -> Metadata {
        Metadata { metadata: object.object_meta().into_owned() }
    }
}

impl Resource for Metadata {
    fn name(&self) -> &str {
        &self.metadata.name
    }
    fn namespace(&self) -> &str {
        &self.metadata.namespace
    }
    fn uid(&self) -> &str {
        &self.metadata.uid
    }
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
    fn from_json(text: &[u8]) -> serde_json::Result<Metadata> {
        const READ: Fields = Fields::Only(&[("metadata", Some(&Fields::Without(&[("managedFields", None)])))]);
        serde_json::from_value(READ.read(text).ok_or_else(|| serde_json::Error::custom("an object was expected"))?)
    }
}
