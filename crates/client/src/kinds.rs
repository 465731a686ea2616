//! A few built-in kinds, only the fields that programs in a pod read most. They decode faster and smaller than complete types.
//! They cannot be written back, since that would lose the other fields: write with patches, [`Dynamic`](crate::Dynamic) or complete types.
//! With the feature `protobuf` they can be read so too.

use std::collections::BTreeMap;

use ::api::fields;

use crate::resource::ObjectMeta;
use crate::typed;

/// A pod: where it runs and how it does.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Name, labels and the like.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: PodSpec,
    /// What is.
    pub status: PodStatus,
}

/// What a pod is to be.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    /// Where it runs; empty until that is decided.
    pub node_name: String,
    /// Who it is to the API.
    pub service_account_name: String,
    /// What runs in it.
    pub containers: Vec<Container>,
}

/// One program of a pod.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// Unique in its pod.
    pub name: String,
    /// What it is made of.
    pub image: String,
}

/// How a pod does.
#[derive(Clone, Debug, Default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// Why it is so, in one word.
    pub reason: String,
    /// Why it is so, for people.
    pub message: String,
    /// Its address; empty until it has one.
    pub pod_ip: String,
    /// Its node's address.
    pub host_ip: String,
}

/// A namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Name, labels and the like.
    pub metadata: ObjectMeta,
}

/// Settings.
#[derive(Clone, Debug, Default)]
pub struct ConfigMap {
    /// Name, labels and the like.
    pub metadata: ObjectMeta,
    /// Values that are text.
    pub data: BTreeMap<String, String>,
    /// Base64.
    pub binary_data: BTreeMap<String, String>,
}

/// A service account.
#[derive(Clone, Debug, Default)]
pub struct ServiceAccount {
    /// Name, labels and the like.
    pub metadata: ObjectMeta,
    /// Whether pods get its token; unset means yes.
    pub automount_service_account_token: Option<bool>,
}

fields!(Pod, read { metadata: "metadata", spec: "spec", status: "status" });
fields!(PodSpec, read { node_name: "nodeName", service_account_name: "serviceAccountName", containers: "containers" });
fields!(Container, read { name: "name", image: "image" });
fields!(PodStatus, read { phase: "phase", reason: "reason", message: "message", pod_ip: "podIP", host_ip: "hostIP" });
fields!(Namespace, read { metadata: "metadata" });
fields!(ConfigMap, read { metadata: "metadata", data: "data", binary_data: "binaryData" });
fields!(ServiceAccount, read { metadata: "metadata", automount_service_account_token: "automountServiceAccountToken" });

typed!(Pod, group "", version "v1", plural "pods", namespaced, protobuf);
typed!(Namespace, group "", version "v1", plural "namespaces", cluster, protobuf);
typed!(ConfigMap, group "", version "v1", plural "configmaps", namespaced, protobuf);
typed!(ServiceAccount, group "", version "v1", plural "serviceaccounts", namespaced, protobuf);

#[cfg(feature = "protobuf")]
mod messages {
    use super::*;
    use crate::message;

    message!(Pod { metadata = 1, spec = 2, status = 3 });
    message!(PodSpec { containers = 2, service_account_name = 8, node_name = 10 });
    message!(Container { name = 1, image = 2 });
    message!(PodStatus { phase = 1, message = 3, reason = 4, host_ip = 5, pod_ip = 6 });
    message!(Namespace { metadata = 1 });
    message!(ConfigMap { metadata = 1, data = 2, binary_data = 3 as Base64 });
    message!(ServiceAccount { metadata = 1, automount_service_account_token = 4 });
}
