//! NodeRestriction: what a node writes is about itself and the pods bound to it. The Node authorizer lets nodes write these
//! kinds at all; here the objects are looked at. Says nothing of what anybody else does.

use std::collections::BTreeSet;

use api::status::GroupResource;
use api::{Status, go, meta};
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::authz::Attributes;
use crate::authz::node::{LEASE_NAMESPACE, MIRROR, Named, node_name, visit_named};
use crate::certificates;
use crate::lookup::Lookup;

/// Labels that a node may set on itself, of those that are Kubernetes' own.
const NODE_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// The same for whole domains, with what is below them.
const NODE_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels below it are for administrators, to keep nodes apart.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

/// The signers of certificates for nodes.
const NODE_SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// Volumes that need nothing of the API.
const PLAIN_VOLUMES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        check(request, Some(object))
    }

    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        // Of deletions there is nothing to change, so that they come here alone.
        if object.is_none() { check(request, None) } else { Ok(()) }
    }
}

/// Whether a node may write this: the object is what is asked for, none for a deletion.
pub fn check(request: &Request, object: Option<&Value>) -> Result<(), Status> {
    let Some(node) = node_name(request.user) else { return Ok(()) };
    if node.is_empty() {
        let user = go::quote(&request.user.name);
        return Err(request.forbidden(format!("could not determine node from user {user}")));
    }
    let none = Value::Null;
    let of = Of { request, node, quoted: go::quote(node), object: object.unwrap_or(&none) };
    let result = match (&*request.kind.group, &*request.kind.plural, request.subresource) {
        ("", "pods", "") => of.pod(),
        ("", "pods", "status") => of.pod_status(),
        ("", "pods", "eviction") => of.eviction(),
        ("", "pods", subresource) => Err(Why::Forbidden(format!(
            "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
            go::quote(subresource)
        ))),
        ("", "nodes", _) => of.node(),
        ("", "persistentvolumeclaims", "status") => of.claim_status(),
        ("", "persistentvolumeclaims", _) => no("may only update PVC status"),
        ("", "serviceaccounts", "token") if request.operation == Operation::Create => of.token(),
        ("coordination.k8s.io", "leases", _) => of.lease(),
        ("storage.k8s.io", "csinodes", subresource) => of.csi_node(subresource),
        ("resource.k8s.io", "resourceslices", _) => of.resource_slice(),
        ("certificates.k8s.io", "certificatesigningrequests", _) => of.signing_request(),
        ("certificates.k8s.io", "podcertificaterequests", subresource) => of.pod_certificate(subresource),
        _ => Ok(()),
    };
    result.map_err(|why| match why {
        Why::Forbidden(why) => request.forbidden(why),
        Why::Other(status) => *status,
    })
}

/// Why a write is refused.
enum Why {
    Forbidden(String),
    /// Not a refusal of the node: something is missing, or not as it was.
    Other(Box<Status>),
}

type Checked = Result<(), Why>;

fn no(why: impl Into<String>) -> Checked {
    Err(Why::Forbidden(why.into()))
}

/// A write of a node.
struct Of<'a> {
    request: &'a Request<'a>,
    node: &'a str,
    quoted: String,
    object: &'a Value,
}

impl Of<'_> {
    fn text(&self, path: &[&str]) -> &str {
        meta::text_at(self.object, path)
    }

    /// An object that exists, in the namespace of the write.
    fn existing(&self, resource: &str, namespace: &str, name: &str) -> Result<std::sync::Arc<Value>, Why> {
        let found = self.request.state.get_once("", resource, namespace, name);
        found.ok_or_else(|| Why::Other(Box::new(Status::not_found(GroupResource { group: "", resource }, name))))
    }

    fn unexpected(&self) -> Checked {
        no(format!("unexpected operation {}", go::quote(self.request.operation.word())))
    }

    fn pod(&self) -> Checked {
        let quoted = &self.quoted;
        match self.request.operation {
            Operation::Create => self.new_pod(),
            Operation::Delete => {
                let pod = self.existing("pods", self.request.namespace, self.request.name)?;
                match meta::text_at(&pod, &["spec", "nodeName"]) == self.node {
                    true => Ok(()),
                    false => no(format!("node {quoted} can only delete pods with spec.nodeName set to itself")),
                }
            }
            Operation::Update => no(format!(
                "unexpected operation {}, node {quoted} can only create and delete mirror pods",
                go::quote(self.request.operation.word())
            )),
        }
    }

    /// A node makes the API know of pods that it was told of by others, and of no more.
    fn new_pod(&self) -> Checked {
        let (node, quoted) = (self.node, &self.quoted);
        if meta::entry(self.object, "annotations", MIRROR).is_none() {
            let annotation = go::quote(MIRROR);
            return no(format!("pod does not have {annotation} annotation, node {quoted} can only create mirror pods"));
        }
        if self.text(&["spec", "nodeName"]) != node {
            return no(format!("node {quoted} can only create pods with spec.nodeName set to itself"));
        }
        let owner = match meta::items_at(self.object, &["metadata", "ownerReferences"]) {
            [owner] => owner,
            [] => return no(format!("node {quoted} can only create pods with an owner reference set to itself")),
            _ => return no(format!("node {quoted} can only create pods with a single owner reference set to itself")),
        };
        if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != *node {
            return no(format!("node {quoted} can only create pods with an owner reference set to itself"));
        }
        if owner["controller"] != true {
            return no(format!("node {quoted} can only create pods with a controller owner reference set to itself"));
        }
        if owner["blockOwnerDeletion"] == true {
            return no(format!("node {quoted} must not set blockOwnerDeletion on an owner reference"));
        }
        let (given, known) = (meta::text_at(owner, &["uid"]), self.existing("nodes", "", node)?);
        if given != meta::uid(&known) {
            return no(format!("node {node} UID mismatch: expected {given} got {}", meta::uid(&known)));
        }
        match referred(self.object) {
            None => Ok(()),
            Some(Ok(what)) => no(format!("node {quoted} can not create pods that reference {what}")),
            Some(Err(why)) => no(format!("error checking mirror pod for API references: {why}")),
        }
    }

    fn pod_status(&self) -> Checked {
        let quoted = &self.quoted;
        let (Operation::Update, Some(old)) = (self.request.operation, self.request.old) else {
            return self.unexpected();
        };
        if meta::text_at(old, &["spec", "nodeName"]) != self.node {
            return no(format!("node {quoted} can only update pod status for pods with spec.nodeName set to itself"));
        }
        if !same(self.object, old, &["metadata", "labels"]) {
            return no(format!("node {quoted} cannot update labels through pod status"));
        }
        if !same(self.object, old, &["status", "resourceClaimStatuses"]) {
            return no(format!("node {quoted} cannot update resource claim statues"));
        }
        if !same(self.object, old, &["status", "extendedResourceClaimStatus"]) {
            return no(format!("node {quoted} cannot update extended resource claim status"));
        }
        if !same(self.object, old, &["status", "nodeAllocatableResourceClaimStatuses"]) {
            return no(format!("node {quoted} cannot update node allocatable resource claim statuses"));
        }
        Ok(())
    }

    fn eviction(&self) -> Checked {
        match self.request.operation {
            Operation::Create => {
                let pod = self.existing("pods", self.request.namespace, self.request.name)?;
                match meta::text_at(&pod, &["spec", "nodeName"]) == self.node {
                    true => Ok(()),
                    false => no(format!("node {} can only evict pods with spec.nodeName set to itself", self.node)),
                }
            }
            // What becomes of the pod when its eviction was let through.
            _ => Ok(()),
        }
    }

    fn node(&self) -> Checked {
        let (node, quoted) = (self.node, &self.quoted);
        if self.request.name != node {
            let name = go::quote(self.request.name);
            return no(format!("node {quoted} is not allowed to modify node {name}"));
        }
        let config = &self.object["spec"]["configSource"];
        match (self.request.operation, self.request.old) {
            (Operation::Create, _) => {
                if !config.is_null() {
                    return no(format!("node {quoted} is not allowed to create pods with a non-nil configSource"));
                }
                match forbidden_labels(self.object, &Value::Null) {
                    labels if labels.is_empty() => Ok(()),
                    labels => no(format!("node {quoted} is not allowed to set the following labels: {labels}")),
                }
            }
            (Operation::Update, Some(old)) => {
                if !config.is_null() && *config != old["spec"]["configSource"] {
                    let why = "is not allowed to update configSource to a new non-nil configSource";
                    return no(format!("node {quoted} {why}"));
                }
                if !same(self.object, old, &["spec", "taints"]) {
                    return no(format!("node {quoted} is not allowed to modify taints"));
                }
                if !same(self.object, old, &["metadata", "ownerReferences"]) {
                    return no(format!("node {quoted} is not allowed to modify ownerReferences"));
                }
                match forbidden_labels(self.object, old) {
                    labels if labels.is_empty() => Ok(()),
                    labels => no(format!("is not allowed to modify labels: {labels}")),
                }
            }
            _ => Ok(()),
        }
    }

    /// A node tells how large a volume has become, and how far it is with that.
    fn claim_status(&self) -> Checked {
        let (Operation::Update, Some(old)) = (self.request.operation, self.request.old) else {
            return self.unexpected();
        };
        let rest = |claim: &Value| {
            let mut claim = claim.clone();
            for (part, fields) in [
                ("metadata", &["resourceVersion", "managedFields"][..]),
                ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"]),
            ] {
                if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
                    fields.iter().for_each(|field| drop(part.shift_remove(*field)));
                }
            }
            claim
        };
        match rest(self.object) == rest(old) {
            true => Ok(()),
            false => no(format!(
                "node {} is not allowed to update fields other than status.quantity and status.conditions",
                self.quoted
            )),
        }
    }

    fn token(&self) -> Checked {
        let bound = &self.object["spec"]["boundObjectRef"];
        let text = |field: &str| meta::text_at(bound, &[field]);
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return no("node requested token not bound to a pod");
        }
        let uid = text("uid");
        if uid.is_empty() {
            return no("node requested token with a pod binding without a uid");
        }
        let pod = self.existing("pods", self.request.namespace, text("name"))?;
        if uid != meta::uid(&pod) {
            return no(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ));
        }
        if meta::text_at(&pod, &["spec", "nodeName"]) != self.node {
            return no("node requested token bound to a pod scheduled on a different node");
        }
        self.audience(&pod)
    }

    /// Tokens for others than the API server must be what the pod asks for, or what the node has a right to.
    fn audience(&self, pod: &Value) -> Checked {
        let audience = match meta::items_at(self.object, &["spec", "audiences"]) {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return no("node may only request 0 or 1 audiences"),
        };
        let volumes = meta::items_at(pod, &["spec", "volumes"]);
        let projected = volumes.iter().flat_map(|volume| meta::items_at(volume, &["projected", "sources"]));
        let mut tokens = projected.filter_map(|source| source.get("serviceAccountToken"));
        if tokens.any(|token| meta::text_at(token, &["audience"]) == audience)
            || volumes.iter().any(|volume| self.driver_asks(pod, volume, audience))
        {
            return Ok(());
        }
        let attributes = Attributes {
            version: &self.request.kind.version,
            namespace: self.request.namespace,
            name: self.request.name,
            ..Attributes::resource(self.request.user, "request-serviceaccounts-token-audience", "", audience)
        };
        let decision = self.request.state.authorizer.authorize(&attributes, self.request.hearing);
        match decision.refusal() {
            _ if decision.is_allowed() => Ok(()),
            (_, error) if !error.is_empty() => no(format!(
                "error authorizing {} to request tokens for audience {}: {error}",
                self.request.user.name,
                go::quote(audience)
            )),
            _ => no(format!(
                "{} is not authorized to request tokens for audience {}",
                self.request.user.name,
                go::quote(audience)
            )),
        }
    }

    /// Whether the driver behind a volume is given tokens for an audience.
    fn driver_asks(&self, pod: &Value, volume: &Value, audience: &str) -> bool {
        let state = self.request.state;
        let claim = match volume["ephemeral"].is_object() {
            true => format!("{}-{}", meta::name(pod), meta::text_at(volume, &["name"])),
            false => meta::text_at(volume, &["persistentVolumeClaim", "claimName"]).to_string(),
        };
        let driver = match claim.is_empty() {
            true => Some(meta::text_at(volume, &["csi", "driver"]).to_string()),
            false => state.get_once("", "persistentvolumeclaims", self.request.namespace, &claim).and_then(|claim| {
                let name = meta::text_at(&claim, &["spec", "volumeName"]);
                let volume = state.get_once("", "persistentvolumes", "", name)?;
                Some(meta::text_at(&volume, &["spec", "csi", "driver"]).to_string())
            }),
        };
        let driver = driver.filter(|driver| !driver.is_empty());
        let driver = driver.and_then(|driver| state.get_once("storage.k8s.io", "csidrivers", "", &driver));
        driver.is_some_and(|driver| {
            meta::items_at(&driver, &["spec", "tokenRequests"]).iter().any(|token| token["audience"] == *audience)
        })
    }

    fn lease(&self) -> Checked {
        if self.request.namespace != LEASE_NAMESPACE {
            return no(format!("can only access leases in the {} system namespace", go::quote(LEASE_NAMESPACE)));
        }
        match self.request.name == self.node {
            true => Ok(()),
            false => no("can only access node lease with the same name as the requesting node"),
        }
    }

    fn csi_node(&self, subresource: &str) -> Checked {
        if self.request.name != self.node {
            return no("can only access CSINode with the same name as the requesting node");
        }
        if subresource == "status" { no("CSIVolumeHealth feature gate is disabled") } else { Ok(()) }
    }

    fn resource_slice(&self) -> Checked {
        let (slice, what) = match (self.request.operation, self.request.old) {
            (Operation::Create, _) => (self.object, "create"),
            (Operation::Delete, Some(old)) => (old, "delete"),
            _ => return Ok(()),
        };
        match meta::text_at(slice, &["spec", "nodeName"]) == self.node {
            true => Ok(()),
            false => no(format!("can only {what} ResourceSlice with the same NodeName as the requesting node")),
        }
    }

    fn signing_request(&self) -> Checked {
        let signer = self.text(&["spec", "signerName"]);
        if self.request.operation != Operation::Create || !NODE_SIGNERS.contains(&signer) {
            return Ok(());
        }
        let asked = certificates::Asked::parse(self.text(&["spec", "request"]));
        let asked = asked.map_err(|why| Why::Forbidden(format!("unable to parse csr: {why}")))?;
        match asked.name == self.request.user.name {
            true => Ok(()),
            false => no(format!("can only create a node CSR with CN=system:node:{}", self.node)),
        }
    }

    fn pod_certificate(&self, subresource: &str) -> Checked {
        if self.request.operation != Operation::Create {
            return no(format!("unexpected operation {}", self.request.operation.word()));
        }
        if !subresource.is_empty() {
            return no(format!("unexpected subresource {subresource}"));
        }
        let spec = |field: &str| self.text(&["spec", field]);
        let namespace = self.request.namespace;
        let inconsistent = |why: String| Err(Why::Other(Box::new(Status::unexplained(why))));
        let of_node = spec("nodeName");
        if of_node != self.node {
            let of_node = go::quote(of_node);
            return no(format!(
                "PodCertificateRequest.Spec.NodeName={of_node}, which is not the requesting node {}",
                self.quoted
            ));
        }
        let place = go::quote(&format!("{namespace}/{}", spec("podName")));
        let account_place = go::quote(&format!("{namespace}/{}", spec("serviceAccountName")));
        let retrieved = |what: &str, shown: &str, resource: &str, of: &str, name: &str| {
            self.existing(resource, of, name).map_err(|why| match why {
                Why::Other(status) => Why::Other(Box::new(Status::unexplained(format!(
                    "while retrieving {what} {shown} named in the PodCertificateRequest: {}",
                    status.message
                )))),
                why => why,
            })
        };
        let node = retrieved("node", &go::quote(of_node), "nodes", "", of_node)?;
        if meta::uid(&node) != spec("nodeUID") {
            return inconsistent(format!(
                "PodCertificateRequest for pod {place} names node UID {}, inconsistent with the running node ({})",
                go::quote(spec("nodeUID")),
                go::quote(meta::uid(&node))
            ));
        }
        let pod = retrieved("pod", &place, "pods", namespace, spec("podName"))?;
        if meta::uid(&pod) != spec("podUID") {
            return inconsistent(format!(
                "PodCertificateRequest for pod {place} contains pod UID ({}) which differs from running pod {}",
                go::quote(spec("podUID")),
                go::quote(meta::uid(&pod))
            ));
        }
        if meta::text_at(&pod, &["spec", "nodeName"]) != of_node {
            let of_node = go::quote(of_node);
            return no(format!("pod {place} is not running on node {of_node} named in the PodCertificateRequest"));
        }
        if meta::entry(&pod, "annotations", MIRROR).is_some() {
            return no(format!("pod {place} is a mirror pod"));
        }
        let runs_as = meta::text_at(&pod, &["spec", "serviceAccountName"]);
        if spec("serviceAccountName") != runs_as {
            return no(format!(
                "PodCertificateRequest for pod {place} contains serviceAccountName ({}) that differs from running pod ({})",
                go::quote(spec("serviceAccountName")),
                go::quote(runs_as)
            ));
        }
        let account =
            retrieved("service account", &account_place, "serviceaccounts", namespace, spec("serviceAccountName"))?;
        if meta::uid(&account) != spec("serviceAccountUID") {
            return inconsistent(format!(
                "PodCertificateRequest for pod {place} names service account UID {}, which differs from the running service account ({})",
                go::quote(spec("serviceAccountUID")),
                go::quote(meta::uid(&account))
            ));
        }
        self.pod_signer(&pod, &place, spec("signerName"))
    }

    /// The pod must want a certificate of this signer, or the node have a right to such.
    fn pod_signer(&self, pod: &Value, place: &str, signer: &str) -> Checked {
        let volumes = meta::items_at(pod, &["spec", "volumes"]).iter();
        let mut sources = volumes.flat_map(|volume| meta::items_at(volume, &["projected", "sources"]));
        if sources.any(|source| source["podCertificate"]["signerName"] == *signer) {
            return Ok(());
        }
        // A resource has no slashes.
        let resource = signer.replace('/', ":");
        let verb = "request-serviceaccounts-podcertificate-signer";
        let attributes = Attributes {
            version: &self.request.kind.version,
            namespace: self.request.namespace,
            name: self.text(&["spec", "serviceAccountName"]),
            ..Attributes::resource(self.request.user, verb, &self.request.kind.group, &resource)
        };
        let decision = self.request.state.authorizer.authorize(&attributes, self.request.hearing);
        match decision.refusal() {
            _ if decision.is_allowed() => Ok(()),
            (_, error) if !error.is_empty() => no(format!(
                "error authorizing {} to request podcertificaterequests for signer {}: {error}",
                self.request.user.name,
                go::quote(signer)
            )),
            _ => no(format!(
                "pod {place} does not mount a podCertificate projected volume for signer {}",
                go::quote(signer)
            )),
        }
    }
}

/// Whether two objects say the same at a path, where nothing and empty are the same.
fn same(new: &Value, old: &Value, path: &[&str]) -> bool {
    let at = |object: &Value| {
        let found = meta::at(object, path).filter(|value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
        found.cloned()
    };
    at(new) == at(old)
}

/// The labels that differ and are not a node's to set, in order.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let empty = serde_json::Map::new();
    let of = |object: &'_ Value| object["metadata"]["labels"].as_object().cloned().unwrap_or(empty.clone());
    let (new, old) = (of(new), of(old));
    let changed: BTreeSet<&String> =
        new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key)).collect();
    let below =
        |domain: &str, of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    let forbidden = changed.into_iter().filter(|label| {
        let domain = label.split_once('/').map_or("", |(domain, _)| domain);
        let known = NODE_LABELS.contains(&label.as_str()) || NODE_LABEL_DOMAINS.iter().any(|of| below(domain, of));
        let kubernetes = below(domain, "kubernetes.io") || below(domain, "k8s.io");
        below(domain, RESTRICTED_DOMAIN) || (kubernetes && !known)
    });
    forbidden.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What of the API a pod refers to, or why that cannot be told.
fn referred(pod: &Value) -> Option<Result<&'static str, String>> {
    let said = |what: &'static str| Some(Ok(what));
    if !meta::text_at(pod, &["spec", "serviceAccountName"]).is_empty() {
        return said("serviceaccounts");
    }
    let (mut secrets, mut maps) = (false, false);
    visit_named(pod, |what, _| match what {
        Named::Secret => secrets = true,
        Named::ConfigMap => maps = true,
    });
    if secrets {
        return said("secrets");
    }
    if maps {
        return said("configmaps");
    }
    if !meta::items_at(pod, &["spec", "resourceClaims"]).is_empty() {
        return said("resourceclaims");
    }
    for volume in meta::items_at(pod, &["spec", "volumes"]) {
        let has = |source: &str| volume.get(source).is_some_and(|source| !source.is_null());
        let name = go::quote(meta::text_at(volume, &["name"]));
        let found = match () {
            () if PLAIN_VOLUMES.iter().any(|source| has(source)) => continue,
            () if has("configMap") => "configmaps (via configmap volumes)",
            () if has("secret") => "secrets (via secret volumes)",
            () if has("csi") => "csidrivers (via CSI volumes)",
            () if has("glusterfs") => "endpoints (via glusterFS volumes)",
            () if has("persistentVolumeClaim") => "persistentvolumeclaims",
            () if has("ephemeral") => "persistentvolumeclaims (via ephemeral volumes)",
            () if has("azureFile") => "secrets (via azureFile volumes)",
            () if has("projected") => match projected(volume) {
                None => continue,
                Some(Some(what)) => what,
                Some(None) => return Some(Err(format!("unknown source for projected volume {name}"))),
            },
            () => return Some(Err(format!("unknown volume type for volume  {name}"))),
        };
        return said(found);
    }
    None
}

/// What of the API a projected volume holds; the inner nothing is a source that is not known.
fn projected(volume: &Value) -> Option<Option<&'static str>> {
    const SOURCES: [(&str, &str); 5] = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    meta::items_at(volume, &["projected", "sources"]).iter().find_map(|source| {
        let has = |name: &str| source.get(name).is_some_and(|source| !source.is_null());
        match SOURCES.iter().find(|(name, _)| has(name)) {
            Some((_, what)) => Some(Some(*what)),
            None if has("downwardAPI") => None,
            None => Some(None),
        }
    })
}
