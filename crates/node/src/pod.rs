//! What the agent reads of a pod, and the status it writes: narrow structs, no behaviour but small readers.

use kemudi_client::{ObjectMeta, StringMap, typed};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pod as the agent reads it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: ObjectMeta,
    /// Shared with the pod's next versions as long as it stays as it is.
    pub spec: Arc<PodSpec>,
    pub status: PodStatus,
}

typed!(Pod, group "", version "v1", plural "pods", namespaced);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub service_account_name: String,
    pub runtime_class_name: String,
    #[serde(deserialize_with = "exact")]
    pub init_containers: Vec<Arc<Container>>,
    #[serde(deserialize_with = "exact")]
    pub containers: Vec<Arc<Container>>,
    #[serde(deserialize_with = "exact")]
    pub ephemeral_containers: Vec<Arc<Container>>,
    /// What all containers may use together.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
    #[serde(deserialize_with = "exact")]
    pub volumes: Vec<Volume>,
    pub restart_policy: RestartPolicy,
    pub termination_grace_period_seconds: Option<i64>,
    pub active_deadline_seconds: Option<i64>,
    pub enable_service_links: Option<bool>,
    pub host_network: bool,
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    pub dns_policy: String,
    #[serde(deserialize_with = "or_default")]
    pub dns_config: DnsConfig,
    #[serde(deserialize_with = "exact")]
    pub host_aliases: Vec<HostAlias>,
    #[serde(deserialize_with = "or_default")]
    pub security_context: SecurityContext,
    #[serde(deserialize_with = "exact")]
    pub readiness_gates: Vec<ReadinessGate>,
    /// Secrets with the credentials of registries.
    #[serde(deserialize_with = "exact")]
    pub image_pull_secrets: Vec<LocalReference>,
}

impl PodSpec {
    /// All containers, in the order in which the agent keeps them: init containers, containers, ephemeral ones.
    pub fn all_containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.init_containers.iter().chain(&self.containers).chain(&self.ephemeral_containers)
    }
}

/// An object of the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LocalReference {
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    #[serde(deserialize_with = "exact")]
    pub command: Vec<String>,
    #[serde(deserialize_with = "exact")]
    pub args: Vec<String>,
    pub working_dir: String,
    #[serde(deserialize_with = "exact")]
    pub ports: Vec<ContainerPort>,
    #[serde(deserialize_with = "exact")]
    pub env: Vec<EnvVar>,
    #[serde(deserialize_with = "exact")]
    pub env_from: Vec<EnvFrom>,
    #[serde(deserialize_with = "exact")]
    pub volume_mounts: Vec<VolumeMount>,
    #[serde(deserialize_with = "exact")]
    pub volume_devices: Vec<VolumeDevice>,
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
    #[serde(deserialize_with = "exact")]
    pub resize_policy: Vec<ResizePolicy>,
    pub liveness_probe: Option<Box<Probe>>,
    pub readiness_probe: Option<Box<Probe>>,
    pub startup_probe: Option<Box<Probe>>,
    #[serde(deserialize_with = "or_default")]
    pub lifecycle: Lifecycle,
    #[serde(deserialize_with = "or_default")]
    pub security_context: SecurityContext,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<RestartPolicy>,
    /// What is done after some exit codes, before the policy is asked.
    #[serde(deserialize_with = "exact")]
    pub restart_policy_rules: Vec<RestartRule>,
    pub termination_message_path: String,
    pub termination_message_policy: String,
    /// Its stdin is open, for who attaches; without, it is at its end.
    pub stdin: bool,
    /// Stdin ends with the first who attaches to it.
    pub stdin_once: bool,
    /// Its standard streams are a terminal of its own.
    pub tty: bool,
    /// Of an ephemeral container: whose processes it sees.
    pub target_container_name: String,
}

/// A volume that a container has as a device.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeDevice {
    pub name: String,
    /// An absolute path in the container.
    pub device_path: String,
}

/// What becomes of a container whose resources are changed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResizePolicy {
    pub resource_name: String,
    /// `NotRequired` or `RestartContainer`.
    pub restart_policy: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartRule {
    pub action: String,
    pub exit_codes: Option<ExitCodes>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExitCodes {
    /// `In` or `NotIn`.
    pub operator: String,
    #[serde(deserialize_with = "exact")]
    pub values: Vec<i32>,
}

impl Container {
    /// Whether it is started again after an exit: the first rule about the code says so, or else its own policy, or else
    /// the given one.
    pub fn restarts(&self, exit_code: i32, policy: RestartPolicy) -> bool {
        let about = |rule: &&RestartRule| {
            let codes = rule.exit_codes.as_ref();
            codes.is_some_and(|codes| codes.values.contains(&exit_code) == (codes.operator == "In"))
        };
        match (self.restart_policy_rules.iter().find(about), self.restart_policy.unwrap_or(policy)) {
            (Some(rule), _) => rule.action == "Restart",
            (None, RestartPolicy::Always) => true,
            (None, RestartPolicy::OnFailure) => exit_code != 0,
            (None, RestartPolicy::Never) => false,
        }
    }

    /// An init container that goes on beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(RestartPolicy::Always)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: u16,
    pub protocol: String,
    /// The host's port that leads to it; 0 if none does.
    pub host_port: u16,
    #[serde(rename = "hostIP")]
    pub host_ip: String,
}

impl ContainerPort {
    pub fn protocol(&self) -> &str {
        if self.protocol.is_empty() { "TCP" } else { &self.protocol }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    pub name: String,
    pub value: String,
    pub value_from: Option<Box<EnvSource>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvSource {
    pub field_ref: Option<FieldRef>,
    pub resource_field_ref: Option<ResourceFieldRef>,
    pub config_map_key_ref: Option<KeyRef>,
    pub secret_key_ref: Option<KeyRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldRef {
    pub field_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFieldRef {
    pub container_name: String,
    pub resource: String,
    #[serde(deserialize_with = "text_of")]
    pub divisor: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeyRef {
    pub name: String,
    pub key: String,
    pub optional: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvFrom {
    pub prefix: String,
    pub config_map_ref: Option<NameRef>,
    pub secret_ref: Option<NameRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NameRef {
    pub name: String,
    pub optional: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    pub sub_path: String,
    pub sub_path_expr: String,
    pub read_only: bool,
}

/// Quantities by resource name, as text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Value>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    pub exec: Option<ExecAction>,
    pub http_get: Option<HttpGet>,
    pub tcp_socket: Option<TcpSocket>,
    pub grpc: Option<GrpcAction>,
    pub initial_delay_seconds: u64,
    pub timeout_seconds: u64,
    pub period_seconds: u64,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    pub termination_grace_period_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExecAction {
    pub command: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGet {
    pub path: String,
    /// A number, or the name of one of the container's ports.
    pub port: Value,
    pub host: String,
    pub scheme: String,
    #[serde(deserialize_with = "exact")]
    pub http_headers: Vec<HttpHeader>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TcpSocket {
    pub port: Value,
    pub host: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrpcAction {
    pub port: Value,
    #[serde(deserialize_with = "or_default")]
    pub service: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    pub pre_stop: Option<Box<Handler>>,
    pub post_start: Option<Box<Handler>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Handler {
    pub exec: Option<ExecAction>,
    pub http_get: Option<HttpGet>,
    pub sleep: Option<SleepAction>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SleepAction {
    pub seconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub fs_group: Option<u32>,
    #[serde(deserialize_with = "exact")]
    pub supplemental_groups: Vec<u32>,
    pub allow_privilege_escalation: Option<bool>,
    pub privileged: Option<bool>,
    pub read_only_root_filesystem: Option<bool>,
    #[serde(deserialize_with = "or_default")]
    pub capabilities: CapabilityChanges,
    pub seccomp_profile: Option<SeccompProfile>,
    /// `Default` or `Unmasked`.
    pub proc_mount: String,
    /// Of the pod alone.
    #[serde(deserialize_with = "exact")]
    pub sysctls: Vec<Sysctl>,
    /// `Merge` or `Strict`; of the pod alone.
    pub supplemental_groups_policy: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CapabilityChanges {
    #[serde(deserialize_with = "exact")]
    pub add: Vec<String>,
    #[serde(deserialize_with = "exact")]
    pub drop: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeccompProfile {
    /// `RuntimeDefault`, `Localhost` or `Unconfined`.
    #[serde(rename = "type")]
    pub kind: String,
    pub localhost_profile: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sysctl {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    #[serde(deserialize_with = "exact")]
    pub nameservers: Vec<String>,
    #[serde(deserialize_with = "exact")]
    pub searches: Vec<String>,
    #[serde(deserialize_with = "exact")]
    pub options: Vec<DnsOption>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    pub name: String,
    pub value: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    pub ip: String,
    #[serde(deserialize_with = "exact")]
    pub hostnames: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    pub condition_type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub name: String,
    pub empty_dir: Option<Box<EmptyDir>>,
    pub host_path: Option<Box<HostPath>>,
    pub config_map: Option<Box<ConfigMapVolume>>,
    pub secret: Option<Box<SecretVolume>>,
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<Box<DownwardVolume>>,
    pub projected: Option<Box<ProjectedVolume>>,
    pub image: Option<Box<ImageVolume>>,
    pub persistent_volume_claim: Option<Box<ClaimVolume>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageVolume {
    pub reference: String,
    pub pull_policy: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimVolume {
    pub claim_name: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir {
    pub medium: String,
    #[serde(deserialize_with = "text_of")]
    pub size_limit: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostPath {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapVolume {
    pub name: String,
    #[serde(deserialize_with = "exact")]
    pub items: Vec<KeyToPath>,
    pub default_mode: Option<u32>,
    pub optional: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretVolume {
    pub secret_name: String,
    #[serde(deserialize_with = "exact")]
    pub items: Vec<KeyToPath>,
    pub default_mode: Option<u32>,
    pub optional: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeyToPath {
    pub key: String,
    pub path: String,
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardVolume {
    #[serde(deserialize_with = "exact")]
    pub items: Vec<DownwardFile>,
    pub default_mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardFile {
    pub path: String,
    pub field_ref: Option<FieldRef>,
    pub resource_field_ref: Option<ResourceFieldRef>,
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectedVolume {
    #[serde(deserialize_with = "exact")]
    pub sources: Vec<Projection>,
    pub default_mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Projection {
    pub service_account_token: Option<Box<TokenProjection>>,
    pub config_map: Option<Box<ObjectProjection>>,
    pub secret: Option<Box<ObjectProjection>>,
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<Box<DownwardVolume>>,
    pub cluster_trust_bundle: Option<Box<TrustProjection>>,
    pub pod_certificate: Option<Box<CertificateProjection>>,
}

/// The certificates of one ClusterTrustBundle, or of all of a signer that a selector takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustProjection {
    pub name: Option<String>,
    pub signer_name: Option<String>,
    /// Without one nothing is taken, by an empty one everything.
    pub label_selector: Option<Value>,
    pub optional: bool,
    pub path: String,
}

/// A key that is made on the node, and a certificate for the pod that a signer gives for it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateProjection {
    pub signer_name: String,
    pub key_type: String,
    pub max_expiration_seconds: Option<i64>,
    pub credential_bundle_path: String,
    pub key_path: String,
    pub certificate_chain_path: String,
    pub user_annotations: StringMap,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenProjection {
    pub audience: String,
    pub expiration_seconds: Option<i64>,
    pub path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ObjectProjection {
    pub name: String,
    #[serde(deserialize_with = "exact")]
    pub items: Vec<KeyToPath>,
    pub optional: bool,
}

/// The status, read (what others wrote) and written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    #[serde(deserialize_with = "exact")]
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    #[serde(rename = "hostIPs", deserialize_with = "exact")]
    pub host_ips: Vec<Ip>,
    #[serde(rename = "podIP", skip_serializing_if = "String::is_empty")]
    pub pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<Ip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    #[serde(deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "exact")]
    pub container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

impl PodStatus {
    /// Of all containers, in the order of [`PodSpec::all_containers`].
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.init_container_statuses.iter().chain(&self.container_statuses).chain(&self.ephemeral_container_statuses)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ip {
    pub ip: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub status: String,
    /// Always null here; part of the kind's form.
    pub last_probe_time: Option<String>,
    pub last_transition_time: Option<String>,
    /// Null takes away what an earlier status said.
    pub reason: Option<String>,
    pub message: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub state: ContainerState,
    pub last_state: ContainerState,
    pub ready: bool,
    pub restart_count: u32,
    pub image: String,
    #[serde(rename = "imageID")]
    pub image_id: String,
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    /// The requests that the node has taken on.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub allocated_resources: BTreeMap<String, Value>,
    /// What it is held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// At most one of the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    pub started_at: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
}

impl Pod {
    /// Forgets of its status what this node itself tells: what is left are the conditions of others that it waits for.
    pub fn forget_own_status(&mut self) {
        let mut conditions = std::mem::take(&mut self.status.conditions);
        let gates = &self.spec.readiness_gates;
        conditions.retain(|condition| gates.iter().any(|gate| gate.condition_type == condition.kind));
        conditions.shrink_to_fit();
        self.status = PodStatus { conditions, ..PodStatus::default() };
    }
}

/// Go writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// The same of a list, with room for nothing more: there are many pods, and what they ask for does not grow.
fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    let mut list: Vec<T> = or_default(input)?;
    list.shrink_to_fit();
    Ok(list)
}

/// A quantity comes as text, but a number is taken too.
fn text_of<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nulls_and_unknown_fields() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"a","creationTimestamp":null},"spec":{"containers":[{"name":"c","env":null,"x":1,
                "resources":{"limits":{"cpu":1}}}],"volumes":null,"restartPolicy":"OnFailure"},"status":{"conditions":null}}"#,
        )
        .unwrap();
        assert_eq!((pod.spec.containers[0].name.as_str(), pod.spec.restart_policy), ("c", RestartPolicy::OnFailure));
    }
}
