//! What is code upstream, one file per kind or family of kinds, and the one list of them. Never does I/O; nothing outside
//! this folder branches on a kind's name.

pub mod read;
pub mod resources;
pub mod table;
pub mod usage;

mod annotations;
mod check;
mod columns;
mod diff;
mod internal;
mod pod_check;
mod pod_defaults;
mod rows;
mod windows;

mod admission;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod cluster;
mod config;
mod crd_schema;
mod cron;
mod devices;
mod discovery;
mod events;
mod extensions;
mod flow;
mod namespaces;
mod networking;
mod pod_parts;
mod pod_row;
mod pods;
mod quota;
mod rbac;
mod resource;
mod services;
mod storage;
mod volumes;
mod warnings;

use crate::Behaviour;

pub use services::addresses as service_addresses;
pub use storage::default_storage_class;

/// Group, kind and what is special about it in every version.
static ALL: &[(&str, &str, &Behaviour)] = &[
    ("", "ComponentStatus", &cluster::COMPONENT_STATUS),
    ("", "ConfigMap", &config::CONFIG_MAP),
    ("", "Endpoints", &discovery::ENDPOINTS),
    ("", "Event", &events::EVENT),
    ("", "LimitRange", &quota::LIMIT_RANGE),
    ("", "Namespace", &namespaces::NAMESPACE),
    ("", "Node", &cluster::NODE),
    ("", "PersistentVolume", &volumes::PERSISTENT_VOLUME),
    ("", "PersistentVolumeClaim", &volumes::PERSISTENT_VOLUME_CLAIM),
    ("", "Pod", &pods::POD),
    ("", "PodTemplate", &apps::POD_TEMPLATE),
    ("", "ReplicationController", &apps::REPLICATION_CONTROLLER),
    ("", "ResourceQuota", &quota::RESOURCE_QUOTA),
    ("", "Secret", &config::SECRET),
    ("", "Service", &services::SERVICE),
    ("", "ServiceAccount", &config::SERVICE_ACCOUNT),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", &admission::MUTATING_POLICY),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", &admission::MUTATING_BINDING),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", &admission::MUTATING_WEBHOOKS),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", &admission::VALIDATING_POLICY),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", &admission::VALIDATING_BINDING),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", &admission::VALIDATING_WEBHOOKS),
    ("apiextensions.k8s.io", "CustomResourceDefinition", &extensions::CUSTOM_RESOURCE_DEFINITION),
    ("apiregistration.k8s.io", "APIService", &extensions::API_SERVICE),
    ("apps", "ControllerRevision", &apps::CONTROLLER_REVISION),
    ("apps", "DaemonSet", &apps::DAEMON_SET),
    ("apps", "Deployment", &apps::DEPLOYMENT),
    ("apps", "ReplicaSet", &apps::REPLICA_SET),
    ("apps", "StatefulSet", &apps::STATEFUL_SET),
    ("autoscaling", "HorizontalPodAutoscaler", &autoscaling::HORIZONTAL_POD_AUTOSCALER),
    ("autoscaling", "Scale", &apps::SCALE),
    ("batch", "CronJob", &batch::CRON_JOB),
    ("batch", "Job", &batch::JOB),
    ("certificates.k8s.io", "CertificateSigningRequest", &certificates::CERTIFICATE_SIGNING_REQUEST),
    ("certificates.k8s.io", "ClusterTrustBundle", &certificates::CLUSTER_TRUST_BUNDLE),
    ("certificates.k8s.io", "PodCertificateRequest", &certificates::POD_CERTIFICATE_REQUEST),
    ("coordination.k8s.io", "Lease", &cluster::LEASE),
    ("discovery.k8s.io", "EndpointSlice", &discovery::ENDPOINT_SLICE),
    ("events.k8s.io", "Event", &events::NEW_EVENT),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", &flow::FLOW_SCHEMA),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", &flow::PRIORITY_LEVEL),
    ("networking.k8s.io", "IPAddress", &networking::IP_ADDRESS),
    ("networking.k8s.io", "Ingress", &networking::INGRESS),
    ("networking.k8s.io", "IngressClass", &networking::INGRESS_CLASS),
    ("networking.k8s.io", "NetworkPolicy", &networking::NETWORK_POLICY),
    ("networking.k8s.io", "ServiceCIDR", &networking::SERVICE_CIDR),
    ("node.k8s.io", "RuntimeClass", &cluster::RUNTIME_CLASS),
    ("policy", "PodDisruptionBudget", &apps::POD_DISRUPTION_BUDGET),
    ("rbac.authorization.k8s.io", "ClusterRole", &rbac::CLUSTER_ROLE),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", &rbac::CLUSTER_ROLE_BINDING),
    ("rbac.authorization.k8s.io", "Role", &rbac::ROLE),
    ("rbac.authorization.k8s.io", "RoleBinding", &rbac::ROLE_BINDING),
    ("resource.k8s.io", "DeviceClass", &resource::DEVICE_CLASS),
    ("resource.k8s.io", "DeviceTaintRule", &resource::DEVICE_TAINT_RULE),
    ("resource.k8s.io", "ResourceClaim", &resource::RESOURCE_CLAIM),
    ("resource.k8s.io", "ResourceClaimTemplate", &resource::RESOURCE_CLAIM_TEMPLATE),
    ("resource.k8s.io", "ResourceSlice", &resource::RESOURCE_SLICE),
    ("scheduling.k8s.io", "PriorityClass", &cluster::PRIORITY_CLASS),
    ("storage.k8s.io", "CSIDriver", &storage::CSI_DRIVER),
    ("storage.k8s.io", "CSINode", &storage::CSI_NODE),
    ("storage.k8s.io", "CSIStorageCapacity", &storage::CSI_STORAGE_CAPACITY),
    ("storage.k8s.io", "StorageClass", &storage::STORAGE_CLASS),
    ("storage.k8s.io", "VolumeAttachment", &storage::VOLUME_ATTACHMENT),
    ("storage.k8s.io", "VolumeAttributesClass", &storage::VOLUME_ATTRIBUTES_CLASS),
    ("storagemigration.k8s.io", "StorageVersionMigration", &storage::STORAGE_VERSION_MIGRATION),
];

/// The behaviour of a built-in kind.
pub fn behaviour(group: &str, kind: &str) -> &'static Behaviour {
    static PLAIN: Behaviour = Behaviour::PLAIN;
    ALL.iter().find(|(g, k, _)| (*g, *k) == (group, kind)).map_or(&PLAIN, |(_, _, behaviour)| behaviour)
}
