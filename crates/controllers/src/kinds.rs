//! The resources that the controllers watch and write.

use kemudi_client::ApiResource;

pub const NAMESPACES: ApiResource = ApiResource::new("", "v1", "Namespace", "namespaces", false);
pub const SERVICE_ACCOUNTS: ApiResource = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
pub const CONFIG_MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
pub const SECRETS: ApiResource = ApiResource::new("", "v1", "Secret", "secrets", true);
pub const PODS: ApiResource = ApiResource::new("", "v1", "Pod", "pods", true);
pub const NODES: ApiResource = ApiResource::new("", "v1", "Node", "nodes", false);
pub const EVENTS: ApiResource = ApiResource::new("", "v1", "Event", "events", true);
pub const CLUSTER_ROLES: ApiResource =
    ApiResource::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
