//! The built-in kinds that programs in pods read most, only the fields that they read. They decode faster and smaller than complete types.
//! They cannot be written back, since that would lose the other fields: write with patches, [`Dynamic`](crate::Dynamic) or complete types.
//! With the feature `protobuf` they can be read so too.
//!
//! Other kinds and fields are a struct of your own away: see [`typed!`](crate::typed).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use ::api::fields;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_core::de::{Deserialize, Deserializer, Error, Visitor};

use crate::resource::ObjectMeta;
use crate::typed;

/// One table: structs, their fields' names in JSON and numbers in protobuf, and which of them are resources.
macro_rules! kinds {
    ($(
        $(#[$about:meta])*
        $type:ident $(($group:literal, $version:literal, $plural:literal, $scope:ident))? {
            $($(#[$what:meta])* $field:ident: $of:ty = $name:literal, $number:literal $(as $form:ident)?;)*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default)]
        pub struct $type {
            $($(#[$what])* pub $field: $of,)*
        }
        fields!($type, read { $($field: $name),* });
        #[cfg(feature = "protobuf")]
        crate::message!($type { $($field = $number $(as $form)?),* });
        $(typed!($type, group $group, version $version, plural $plural, $scope, protobuf);)?
    )*};
}

kinds! {
    /// A pod: where it runs and how it does.
    Pod("", "v1", "pods", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is wanted.
        spec: PodSpec = "spec", 2;
        /// What is.
        status: PodStatus = "status", 3;
    }

    /// What a pod is to be.
    PodSpec {
        /// Where it runs; empty until that is decided.
        node_name: String = "nodeName", 10;
        /// Who it is to the API.
        service_account_name: String = "serviceAccountName", 8;
        /// What runs in it.
        containers: Vec<Container> = "containers", 2;
    }

    /// One program of a pod.
    Container {
        /// Unique in its pod.
        name: String = "name", 1;
        /// What it is made of.
        image: String = "image", 2;
    }

    /// How a pod does.
    PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        phase: String = "phase", 1;
        /// Why it is so, in one word.
        reason: String = "reason", 4;
        /// Why it is so, for people.
        message: String = "message", 3;
        /// Its address; empty until it has one.
        pod_ip: String = "podIP", 6;
        /// Its node's address.
        host_ip: String = "hostIP", 5;
    }

    /// A machine that runs pods.
    Node("", "v1", "nodes", cluster) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is wanted.
        spec: NodeSpec = "spec", 2;
        /// What is.
        status: NodeStatus = "status", 3;
    }

    /// What a node is to be.
    NodeSpec {
        /// It gets no new pods.
        unschedulable: bool = "unschedulable", 4;
        /// What it is to the provider of machines.
        provider_id: String = "providerID", 3;
        /// What keeps pods away that do not tolerate it.
        taints: Vec<Taint> = "taints", 5;
    }

    /// What keeps pods away from a node.
    Taint {
        /// What it is about.
        key: String = "key", 1;
        /// May be empty.
        value: String = "value", 2;
        /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
        effect: String = "effect", 3;
    }

    /// How a node does.
    NodeStatus {
        /// All that it has: `cpu`, `memory`, `pods` and others, as quantities.
        capacity: BTreeMap<String, String> = "capacity", 1 as Quantity;
        /// What of that pods can have.
        allocatable: BTreeMap<String, String> = "allocatable", 2 as Quantity;
        /// `Ready`, and what is wrong with it.
        conditions: Vec<Condition> = "conditions", 4;
        /// How it is reached.
        addresses: Vec<NodeAddress> = "addresses", 5;
        /// What runs on it.
        node_info: NodeInfo = "nodeInfo", 7;
    }

    /// One address of a node.
    NodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname` and others.
        type_: String = "type", 1;
        /// An address or a name.
        address: String = "address", 2;
    }

    /// What runs on a node.
    NodeInfo {
        /// Such as `6.12.8`.
        kernel_version: String = "kernelVersion", 4;
        /// Such as `containerd://2.1.0`.
        container_runtime_version: String = "containerRuntimeVersion", 6;
        /// Such as `v1.37.2`.
        kubelet_version: String = "kubeletVersion", 7;
        /// Such as `linux`.
        operating_system: String = "operatingSystem", 9;
        /// Such as `amd64`.
        architecture: String = "architecture", 10;
    }

    /// One thing that is so or not, of nodes and jobs.
    Condition {
        /// What: `Ready`, `Complete` and others.
        type_: String = "type", 1;
        /// `True`, `False` or `Unknown`.
        status: String = "status", 2;
        /// Since when, in RFC 3339.
        last_transition_time: Option<String> = "lastTransitionTime", 4 as Time;
        /// Why it is so, in one word.
        reason: String = "reason", 5;
        /// Why it is so, for people.
        message: String = "message", 6;
    }

    /// A namespace.
    Namespace("", "v1", "namespaces", cluster) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is.
        status: NamespaceStatus = "status", 3;
    }

    /// How a namespace does.
    NamespaceStatus {
        /// `Active` or `Terminating`.
        phase: String = "phase", 1;
    }

    /// Settings.
    ConfigMap("", "v1", "configmaps", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// Values that are text.
        data: BTreeMap<String, String> = "data", 2;
        /// Base64.
        binary_data: BTreeMap<String, String> = "binaryData", 3 as Base64;
    }

    /// Passwords, keys and certificates.
    Secret("", "v1", "secrets", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// `Opaque`, `kubernetes.io/tls` and others.
        type_: String = "type", 3;
        /// What is to be kept secret, decoded.
        data: BTreeMap<String, SecretBytes> = "data", 2;
    }

    /// A service account.
    ServiceAccount("", "v1", "serviceaccounts", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// Whether pods get its token; unset means yes.
        automount_service_account_token: Option<bool> = "automountServiceAccountToken", 4;
    }

    /// One name and address for what several pods do.
    Service("", "v1", "services", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is wanted.
        spec: ServiceSpec = "spec", 2;
    }

    /// What a service is to be.
    ServiceSpec {
        /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
        type_: String = "type", 4;
        /// Its address in the cluster, or `None`.
        cluster_ip: String = "clusterIP", 3;
        /// What it stands for outside of the cluster.
        external_name: String = "externalName", 10;
        /// Labels of the pods that it leads to.
        selector: BTreeMap<String, String> = "selector", 2;
        /// Where it listens.
        ports: Vec<ServicePort> = "ports", 1;
    }

    /// One port of a service.
    ServicePort {
        /// Unique in its service; may be empty where it is the only one.
        name: String = "name", 1;
        /// `TCP`, `UDP` or `SCTP`.
        protocol: String = "protocol", 2;
        /// At the service's address.
        port: u16 = "port", 3;
        /// At each node's address; zero where there is none.
        node_port: u16 = "nodePort", 5;
    }

    /// Some of the addresses that a service leads to. Which service, its label `kubernetes.io/service-name` says.
    EndpointSlice("discovery.k8s.io", "v1", "endpointslices", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type: String = "addressType", 4;
        /// What it leads to.
        endpoints: Vec<Endpoint> = "endpoints", 2;
        /// The same for all of them.
        ports: Vec<EndpointPort> = "ports", 3;
    }

    /// One thing that a service leads to.
    Endpoint {
        /// The first is the one to use.
        addresses: Vec<String> = "addresses", 1;
        /// Whether to use it.
        conditions: EndpointConditions = "conditions", 2;
        /// What it is, in most cases a pod.
        target_ref: Option<ObjectReference> = "targetRef", 4;
        /// The node it is on.
        node_name: Option<String> = "nodeName", 6;
        /// The zone it is in.
        zone: Option<String> = "zone", 7;
    }

    /// Whether to use an endpoint.
    EndpointConditions {
        /// It takes traffic; unset means yes.
        ready: Option<bool> = "ready", 1;
        /// It takes traffic, or would if it were not about to end; unset means yes.
        serving: Option<bool> = "serving", 2;
        /// It is about to end; unset means no.
        terminating: Option<bool> = "terminating", 3;
    }

    /// One port of endpoints.
    EndpointPort {
        /// That of the service's port.
        name: String = "name", 1;
        /// `TCP`, `UDP` or `SCTP`.
        protocol: String = "protocol", 2;
        /// Unset means every port.
        port: Option<u16> = "port", 3;
    }

    /// Which object.
    ObjectReference {
        /// Such as `Pod`.
        kind: String = "kind", 1;
        /// Empty for kinds without namespaces.
        namespace: String = "namespace", 2;
        /// Its name.
        name: String = "name", 3;
        /// Its uid.
        uid: String = "uid", 4;
        /// Such as `v1`.
        api_version: String = "apiVersion", 5;
    }

    /// Something that happened to an object. `Recorder` (feature `runtime`) tells of them.
    Event("", "v1", "events", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// To what it happened.
        involved_object: ObjectReference = "involvedObject", 2;
        /// `Normal` or `Warning`.
        type_: String = "type", 9;
        /// What happened, in one word.
        reason: String = "reason", 3;
        /// What happened, for people.
        message: String = "message", 4;
        /// Who told it.
        reporting_component: String = "reportingComponent", 14;
        /// How often it happened.
        count: u32 = "count", 8;
        /// When it was told last, in RFC 3339. Newer writers have `event_time` instead.
        last_timestamp: Option<String> = "lastTimestamp", 7 as Time;
        /// When it happened first, with microseconds.
        event_time: Option<String> = "eventTime", 10 as MicroTime;
    }

    /// Pods of one making, as many as are wanted, replaced little by little.
    Deployment("apps", "v1", "deployments", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is wanted.
        spec: DeploymentSpec = "spec", 2;
        /// What is.
        status: DeploymentStatus = "status", 3;
    }

    /// What a deployment is to be.
    DeploymentSpec {
        /// How many pods; unset means one.
        replicas: Option<u32> = "replicas", 1;
        /// Nothing is replaced for now.
        paused: bool = "paused", 7;
    }

    /// How a deployment does.
    DeploymentStatus {
        /// The generation of what is wanted that this is about.
        observed_generation: i64 = "observedGeneration", 1;
        /// Pods that there are.
        replicas: u32 = "replicas", 2;
        /// Of these, the ones that are as wanted now.
        updated_replicas: u32 = "updatedReplicas", 3;
        /// Those that are ready.
        ready_replicas: u32 = "readyReplicas", 7;
        /// Those that have been ready for long enough.
        available_replicas: u32 = "availableReplicas", 4;
    }

    /// Pods with names and volumes that stay theirs.
    StatefulSet("apps", "v1", "statefulsets", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is wanted.
        spec: StatefulSetSpec = "spec", 2;
        /// What is.
        status: StatefulSetStatus = "status", 3;
    }

    /// What a stateful set is to be.
    StatefulSetSpec {
        /// How many pods; unset means one.
        replicas: Option<u32> = "replicas", 1;
        /// The service that gives its pods their names.
        service_name: String = "serviceName", 5;
    }

    /// How a stateful set does.
    StatefulSetStatus {
        /// The generation of what is wanted that this is about.
        observed_generation: i64 = "observedGeneration", 1;
        /// Pods that there are.
        replicas: u32 = "replicas", 2;
        /// Those that are ready.
        ready_replicas: u32 = "readyReplicas", 3;
        /// The ones that are as wanted now.
        updated_replicas: u32 = "updatedReplicas", 5;
        /// Those that have been ready for long enough.
        available_replicas: u32 = "availableReplicas", 11;
    }

    /// A pod on every node that it is meant for.
    DaemonSet("apps", "v1", "daemonsets", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is.
        status: DaemonSetStatus = "status", 3;
    }

    /// How a daemon set does.
    DaemonSetStatus {
        /// The generation of what is wanted that this is about.
        observed_generation: i64 = "observedGeneration", 5;
        /// Nodes that it is meant for.
        desired_number_scheduled: u32 = "desiredNumberScheduled", 3;
        /// Of these, the ones whose pod is as wanted now.
        updated_number_scheduled: u32 = "updatedNumberScheduled", 6;
        /// Those whose pod is ready.
        number_ready: u32 = "numberReady", 4;
        /// Those whose pod has been ready for long enough.
        number_available: u32 = "numberAvailable", 7;
    }

    /// Pods that run until enough of them have succeeded.
    Job("batch", "v1", "jobs", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is wanted.
        spec: JobSpec = "spec", 2;
        /// What is.
        status: JobStatus = "status", 3;
    }

    /// What a job is to be.
    JobSpec {
        /// How many pods run at once.
        parallelism: Option<u32> = "parallelism", 1;
        /// How many are to succeed.
        completions: Option<u32> = "completions", 2;
        /// Nothing runs for now.
        suspend: Option<bool> = "suspend", 10;
    }

    /// How a job does.
    JobStatus {
        /// `Complete` or `Failed` once it is over, and others.
        conditions: Vec<Condition> = "conditions", 1;
        /// When it began, in RFC 3339.
        start_time: Option<String> = "startTime", 2 as Time;
        /// When it was complete.
        completion_time: Option<String> = "completionTime", 3 as Time;
        /// Pods that run.
        active: u32 = "active", 4;
        /// Pods that have succeeded.
        succeeded: u32 = "succeeded", 5;
        /// Pods that have failed.
        failed: u32 = "failed", 6;
    }

    /// Room that a pod's volume stands for.
    PersistentVolumeClaim("", "v1", "persistentvolumeclaims", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// What is wanted.
        spec: PersistentVolumeClaimSpec = "spec", 2;
        /// What is.
        status: PersistentVolumeClaimStatus = "status", 3;
    }

    /// What a claim is to be.
    PersistentVolumeClaimSpec {
        /// The volume it has; empty until there is one.
        volume_name: String = "volumeName", 3;
        /// Where its volume comes from; unset means the default one.
        storage_class_name: Option<String> = "storageClassName", 5;
    }

    /// How a claim does.
    PersistentVolumeClaimStatus {
        /// `Pending`, `Bound` or `Lost`.
        phase: String = "phase", 1;
        /// What it has: `storage`, as a quantity.
        capacity: BTreeMap<String, String> = "capacity", 3 as Quantity;
    }

    /// Who of several holds something, and until when.
    Lease("coordination.k8s.io", "v1", "leases", namespaced) {
        /// Name, labels and the like.
        metadata: ObjectMeta = "metadata", 1;
        /// All there is to it.
        spec: LeaseSpec = "spec", 2;
    }

    /// Who holds a lease.
    LeaseSpec {
        /// Unset or empty where nobody does.
        holder_identity: Option<String> = "holderIdentity", 1;
        /// How long after `renew_time` others may take it.
        lease_duration_seconds: Option<u32> = "leaseDurationSeconds", 2;
        /// Since when, in RFC 3339 with microseconds.
        acquire_time: Option<String> = "acquireTime", 3 as MicroTime;
        /// When the holder last said that it is there.
        renew_time: Option<String> = "renewTime", 4 as MicroTime;
        /// How often it went from one to another.
        lease_transitions: Option<u32> = "leaseTransitions", 5;
    }
}

/// One value of a [`Secret`]. It is not shown for debugging, so that no log has it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(pub Vec<u8>);

impl Deref for SecretBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<SecretBytes, D::Error> {
        struct Base64;

        impl Visitor<'_> for Base64 {
            type Value = SecretBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SecretBytes, E> {
                STANDARD.decode(text).map(SecretBytes).map_err(|why| E::custom(format_args!("no base64: {why}")))
            }
        }

        input.deserialize_str(Base64)
    }
}

#[cfg(feature = "protobuf")]
impl crate::protobuf::Read for SecretBytes {
    fn read(&mut self, wire: crate::protobuf::Wire<'_>, _: u32) -> Result<(), String> {
        self.0 = crate::protobuf::bytes(wire)?.to_vec();
        Ok(())
    }
}
