//! Takes the descriptions out of the `k8s-openapi` crate, which has them from Kubernetes' own OpenAPI document, and packs
//! them into one small file: the library is that file, not the crate's code. The options that are parameters of
//! requests are no types of that crate: what they are for is in `options.json`.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

/// What stands between a type, a field and a text, and after a text: no description has them.
const UNIT: char = '\u{1f}';
const RECORD: char = '\u{1e}';

/// What is no schema: type, field and text.
const OPTIONS: &str = "options.json";

/// Asks for the schemas of types, and with them of all that they refer to.
macro_rules! types {
    ($generator:ident; $($group:ident $version:ident: $($kind:ident)+;)*) => {
        $($(
            $generator.subschema_for::<api::$group::$version::$kind>();
        )+)*
    };
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={OPTIONS}");
    let mut generator = SchemaSettings::openapi3().into_generator();
    name(&mut generator);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut write = |type_: &str, field: &str, schema: &Value| {
        let Some(text) = schema["description"].as_str() else { return Ok(()) };
        assert!(!text.contains([UNIT, RECORD]), "{type_} {field}");
        write!(encoder, "{type_}{UNIT}{field}{UNIT}{text}{RECORD}")
    };
    for (type_, schema) in generator.take_definitions(true) {
        write(&type_, "", &schema)?;
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            write(&type_, field, schema)?;
        }
    }
    let options: Value = serde_json::from_str(&std::fs::read_to_string(OPTIONS)?)?;
    for (type_, fields) in options.as_object().into_iter().flatten() {
        for (field, text) in fields.as_object().into_iter().flatten() {
            write(type_, field, &json!({"description": text}))?;
        }
    }
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptions.z"), encoder.finish()?)?;
    Ok(())
}

/// Every type that is served but lists, which that crate makes of one generic type without words. A test of the server's documents tells which are missing here.
fn name(generator: &mut SchemaGenerator) {
    types! { generator;
        admissionregistration v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
        admissionregistration v1alpha1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        admissionregistration v1beta1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        apiserverinternal v1alpha1: StorageVersion;
        apps v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        autoscaling v1: HorizontalPodAutoscaler Scale;
        autoscaling v2: HorizontalPodAutoscaler;
        batch v1: CronJob Job;
        certificates v1: CertificateSigningRequest ClusterTrustBundle PodCertificateRequest;
        certificates v1beta1: ClusterTrustBundle PodCertificateRequest;
        coordination v1: Lease;
        coordination v1alpha2: LeaseCandidate;
        coordination v1beta1: LeaseCandidate;
        core v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        discovery v1: EndpointSlice;
        events v1: Event;
        flowcontrol v1: FlowSchema PriorityLevelConfiguration;
        lifecycle v1alpha1: Eviction EvictionRequest;
        networking v1: Ingress IngressClass IPAddress NetworkPolicy ServiceCIDR;
        node v1: RuntimeClass;
        policy v1: Eviction PodDisruptionBudget;
        rbac v1: ClusterRole ClusterRoleBinding Role RoleBinding;
        resource v1: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
        resource v1alpha3: DeviceTaintRule ResourcePoolStatusRequest;
        resource v1beta1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
        resource v1beta2: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
        scheduling v1: PriorityClass;
        scheduling v1alpha3: CompositePodGroup PodGroup Workload;
        scheduling v1beta1: PodGroup Workload;
        storage v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
        storagemigration v1: StorageVersionMigration;
        storagemigration v1beta1: StorageVersionMigration;
        authentication v1: SelfSubjectReview TokenRequest TokenReview;
        authorization v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
    }
    macro_rules! meta {
        ($($kind:ident)+) => { $( generator.subschema_for::<apimachinery::pkg::apis::meta::v1::$kind>(); )+ };
    }
    meta! { APIGroup APIGroupList APIResourceList APIVersions DeleteOptions Patch Status }
    generator.subschema_for::<apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>();
    generator.subschema_for::<kube_aggregator::pkg::apis::apiregistration::v1::APIService>();
    generator
        .subschema_for::<apimachinery::pkg::apis::meta::v1::WatchEvent<apimachinery::pkg::runtime::RawExtension>>();
    generator.subschema_for::<apimachinery::pkg::version::Info>();
}
