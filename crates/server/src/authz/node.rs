//! The Node authorizer: a node reads the objects that pods bound to it refer to, and no others. It keeps a graph of what
//! refers to what, fed change by change; a pod's own references are read only when its node asks for something.
//! What it cannot see before an object is read, NodeRestriction looks at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};

use api::{go, meta};
use serde_json::Value;

use super::{Attributes, Decision, Reason, bootstrap};
use crate::authn::User;
use rights::Rule;

/// The group of all nodes.
pub const NODES: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";

/// What a node does whatever its pods are: the rules of this role.
const ROLE: &str = "system:node";
/// Where nodes keep their leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Pods with it stand for what a node was told by others: they refer to nothing.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// The resources of which the graph is told with their objects, beside pods: group and plural.
pub const RESOURCES: [(&str, &str); 4] = [
    ("", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceslices"),
    ("certificates.k8s.io", "podcertificaterequests"),
];

/// The name of the node that a user is: `""` where it has none, nothing where the user is no node.
pub fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix(USER_PREFIX).filter(|_| user.is_in(NODES))
}

/// The authorizer. Feed it every change of pods and of the [`RESOURCES`].
#[derive(Default)]
pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
}

/// What refers to what. Keys are `namespace/name`, or `name`.
#[derive(Default)]
struct Graph {
    /// By node, then by key.
    pods: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Pod>>>,
    node_of_pod: HashMap<Arc<str>, Arc<str>>,
    volumes: HashMap<String, Volume>,
    volumes_of_secret: HashMap<String, BTreeSet<String>>,
    /// Of each of the other [`RESOURCES`]: the node that an object is about.
    about: [HashMap<String, String>; RESOURCES.len()],
}

/// A persistent volume that is bound.
struct Volume {
    claim: String,
    /// The secrets with which a node mounts it.
    secrets: BTreeSet<String>,
}

/// A pod that is bound to a node.
struct Pod {
    load: Box<dyn Fn() -> Value + Send + Sync>,
    references: OnceLock<HashSet<(Referred, String)>>,
}

/// What pods refer to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Referred {
    Account,
    Claim,
    ConfigMap,
    ResourceClaim,
    Secret,
}

impl NodeAuthorizer {
    /// A pod was made, changed or removed. `node` is the one it is bound to, `""` for none and for a pod that is gone;
    /// `load` gives the pod as it is now.
    pub fn on_pod(&self, key: &Arc<str>, node: &str, load: impl Fn() -> Value + Send + Sync + 'static) {
        let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = graph.node_of_pod.remove(key)
            && let Some(pods) = graph.pods.get_mut(&before)
        {
            pods.remove(key);
            if pods.is_empty() {
                graph.pods.remove(&before);
            }
        }
        if node.is_empty() {
            return;
        }
        let node: Arc<str> = node.into();
        let pod = Arc::new(Pod { load: Box::new(load), references: OnceLock::new() });
        graph.pods.entry(node.clone()).or_default().insert(key.clone(), pod);
        graph.node_of_pod.insert(key.clone(), node);
    }

    /// An object of one of the [`RESOURCES`], by its place there, was made, changed or removed.
    pub fn on_change(&self, resource: usize, old: Option<&Value>, new: Option<&Value>) {
        let Some(object) = new.or(old) else { return };
        let name = key(meta::namespace(object), meta::name(object));
        let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
        if RESOURCES[resource].1 == "persistentvolumes" {
            return graph.set_volume(name, new.and_then(Volume::of));
        }
        let node = new.map(|new| meta::text_at(new, &["spec", "nodeName"])).filter(|node| !node.is_empty());
        match node {
            Some(node) => drop(graph.about[resource].insert(name, node.to_string())),
            None => drop(graph.about[resource].remove(&name)),
        }
    }

    /// What a node may do. Has no opinion of anybody else.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let allow = Decision::Allow { reason: Reason::Node };
        let Some(node) = node_name(attributes.user) else { return Decision::NONE };
        if node.is_empty() {
            let reason = format!("unknown node for user {}", go::quote(&attributes.user.name));
            return Decision::no_opinion(reason);
        }
        match self.judge(node, attributes) {
            Ok(()) => allow,
            Err(reason) => Decision::no_opinion(reason),
        }
    }

    fn judge(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        let of = (attributes.group, attributes.resource);
        match of {
            _ if !attributes.is_resource => by_role(attributes),
            ("", "secrets" | "configmaps") => self.read(node, attributes),
            ("", "persistentvolumeclaims") if attributes.subresource == "status" => match attributes.verb {
                "update" | "patch" => self.relate(node, attributes),
                _ => no("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments") => self.get(node, attributes),
            ("", "serviceaccounts") => match (attributes.verb, attributes.subresource) {
                ("get", "") => self.read(node, attributes),
                _ => self.create_token(node, attributes),
            },
            ("coordination.k8s.io", "leases") => lease(node, attributes),
            ("storage.k8s.io", "csinodes") => csi_node(node, attributes),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, attributes),
            ("certificates.k8s.io", "podcertificaterequests") => self.certificate_request(node, attributes),
            ("", "nodes") => own_node(node, attributes),
            ("", "pods") => self.pod(node, attributes),
            _ => by_role(attributes),
        }
    }

    /// Reads of a namespaced object, single ones of a list or watch too.
    fn read(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        match attributes.verb {
            "get" | "list" | "watch" => {}
            _ => return no("can only read resources of this type"),
        }
        if !attributes.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.relate(node, attributes)
    }

    fn get(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.relate(node, attributes)
    }

    fn create_token(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.verb != "create" || attributes.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if attributes.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.relate(node, attributes)
    }

    fn resource_slice(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if !attributes.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb {
            // Of which node it is, admission sees.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.relate(node, attributes),
            "watch" | "list" | "deletecollection" if selects(attributes, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn certificate_request(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if !attributes.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match attributes.verb {
            "create" => Ok(()),
            "get" => self.relate(node, attributes),
            "list" | "watch" if selects(attributes, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => Err(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        match (attributes.subresource, attributes.verb) {
            ("", "get") => self.get(node, attributes),
            ("", "list" | "watch") if selects(attributes, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !attributes.name.is_empty() => self.relate(node, attributes),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            // Which pods they are, admission sees.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        }
    }

    /// Whether something leads from the object to the node.
    fn relate(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.name.is_empty() {
            return no("No Object name found");
        }
        match self.is_related(node, attributes) {
            true => Ok(()),
            false => Err(format!("no relationship found between node '{node}' and this object")),
        }
    }

    fn is_related(&self, node: &str, attributes: &Attributes<'_>) -> bool {
        let (namespace, name) = (attributes.namespace, attributes.name);
        let place = key(namespace, name);
        match attributes.resource {
            "secrets" => {
                let claims: Vec<String> = {
                    let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
                    let volumes = graph.volumes_of_secret.get(&place).into_iter().flatten();
                    volumes.filter_map(|volume| graph.volumes.get(volume)).map(|volume| volume.claim.clone()).collect()
                };
                self.is_referred_to(node, &place, Referred::Secret)
                    || claims.iter().any(|claim| self.is_referred_to(node, claim, Referred::Claim))
            }
            "configmaps" => self.is_referred_to(node, &place, Referred::ConfigMap),
            "persistentvolumeclaims" => self.is_referred_to(node, &place, Referred::Claim),
            "resourceclaims" => self.is_referred_to(node, &place, Referred::ResourceClaim),
            "serviceaccounts" => self.is_referred_to(node, &place, Referred::Account),
            "persistentvolumes" => {
                let claim = {
                    let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
                    graph.volumes.get(name).map(|volume| volume.claim.clone())
                };
                claim.is_some_and(|claim| self.is_referred_to(node, &claim, Referred::Claim))
            }
            resource => {
                let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
                let about = RESOURCES.iter().position(|(_, plural)| *plural == resource);
                match about {
                    Some(at) => graph.about[at].get(&place).is_some_and(|of| of == node),
                    None => graph.node_of_pod.get(place.as_str()).is_some_and(|of| **of == *node),
                }
            }
        }
    }

    /// Whether a pod of the node, in the object's namespace, names it.
    fn is_referred_to(&self, node: &str, place: &str, what: Referred) -> bool {
        let Some((namespace, name)) = place.split_once('/') else { return false };
        // Pods are read outside of the lock, which the thread that commits waits for.
        let pods: Vec<Arc<Pod>> = {
            let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
            let pods = graph.pods.get(node).into_iter().flatten();
            let here = pods.filter(|(key, _)| key.split_once('/').is_some_and(|(of, _)| of == namespace));
            here.map(|(_, pod)| pod.clone()).collect()
        };
        let wanted = (what, name.to_string());
        pods.iter().any(|pod| pod.references.get_or_init(|| references(&(pod.load)())).contains(&wanted))
    }
}

impl Graph {
    fn set_volume(&mut self, name: String, new: Option<Volume>) {
        if let Some(old) = self.volumes.remove(&name) {
            for secret in old.secrets {
                if let Some(volumes) = self.volumes_of_secret.get_mut(&secret) {
                    volumes.remove(&name);
                    if volumes.is_empty() {
                        self.volumes_of_secret.remove(&secret);
                    }
                }
            }
        }
        let Some(new) = new else { return };
        for secret in &new.secrets {
            self.volumes_of_secret.entry(secret.clone()).or_default().insert(name.clone());
        }
        self.volumes.insert(name, new);
    }
}

impl Volume {
    /// Nothing of a volume without a claim.
    fn of(volume: &Value) -> Option<Volume> {
        let spec = &volume["spec"];
        let claim = spec.get("claimRef").filter(|claim| claim.is_object())?;
        let claim_namespace = meta::text_at(claim, &["namespace"]);
        let mut secrets = BTreeSet::new();
        let mut add = |namespace: &str, name: &str| {
            if !name.is_empty() {
                secrets.insert(key(namespace, name));
            }
        };
        // The secret's own namespace, or the claim's where it says none.
        for (source, namespace, reference) in [
            ("azureFile", &["secretNamespace"][..], &["secretName"][..]),
            ("cephfs", &["secretRef", "namespace"], &["secretRef", "name"]),
            ("flexVolume", &["secretRef", "namespace"], &["secretRef", "name"]),
            ("rbd", &["secretRef", "namespace"], &["secretRef", "name"]),
            ("scaleIO", &["secretRef", "namespace"], &["secretRef", "name"]),
            ("iscsi", &["secretRef", "namespace"], &["secretRef", "name"]),
        ] {
            let given = meta::text_at(&spec[source], namespace);
            add(if given.is_empty() { claim_namespace } else { given }, meta::text_at(&spec[source], reference));
        }
        for (source, reference) in [
            ("cinder", "secretRef"),
            ("storageos", "secretRef"),
            ("csi", "nodePublishSecretRef"),
            ("csi", "nodeStageSecretRef"),
            ("csi", "nodeExpandSecretRef"),
        ] {
            let of = &spec[source];
            add(meta::text_at(of, &[reference, "namespace"]), meta::text_at(of, &[reference, "name"]));
        }
        Some(Volume { claim: key(claim_namespace, meta::text_at(claim, &["name"])), secrets })
    }
}

fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_string() } else { format!("{namespace}/{name}") }
}

fn no(reason: &str) -> Result<(), String> {
    Err(reason.to_string())
}

/// The rules that all nodes have.
fn by_role(attributes: &Attributes<'_>) -> Result<(), String> {
    static RULES: LazyLock<Vec<Rule>> =
        LazyLock::new(|| bootstrap::cluster_role(ROLE).map(|role| Rule::all_of(&role)).unwrap_or_default());
    if RULES.iter().any(|rule| rule.allows(&attributes.wanted())) { Ok(()) } else { no("") }
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    match attributes.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no("can only get, create, update, patch, or delete a node lease"),
    }
    if attributes.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {} system namespace", go::quote(LEASE_NAMESPACE)));
    }
    // The name of what is created, admission sees.
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    match (attributes.subresource, attributes.verb) {
        ("", "get" | "create" | "update" | "patch" | "delete") => {}
        ("", _) => return no("can only get, create, update, patch, or delete a CSINode"),
        ("status", _) => return no("CSINode status access requires CSIVolumeHealth feature"),
        _ => return no("cannot authorize CSINode subresources"),
    }
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    match (attributes.subresource, attributes.verb) {
        // Which node it is, admission sees.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match attributes.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => no(""),
    }
}

/// The field selector allows only this value of a field.
fn selects(attributes: &Attributes<'_>, field: &str, value: &str) -> bool {
    attributes.fields().is_some_and(|selector| selector.exact(field) == Some(value))
}

/// Everything that a pod names in its namespace.
fn references(pod: &Value) -> HashSet<(Referred, String)> {
    let mut found = HashSet::new();
    // A node makes such pods itself, and must not give itself rights.
    if meta::entry(pod, "annotations", MIRROR).is_some() {
        return found;
    }
    let mut add = |what: Referred, name: &str| {
        if !name.is_empty() {
            found.insert((what, name.to_string()));
        }
    };
    add(Referred::Account, meta::text_at(pod, &["spec", "serviceAccountName"]));
    visit_named(pod, |what, name| match what {
        Named::Secret => add(Referred::Secret, name),
        Named::ConfigMap => add(Referred::ConfigMap, name),
    });
    for volume in meta::items_at(pod, &["spec", "volumes"]) {
        add(Referred::Claim, meta::text_at(volume, &["persistentVolumeClaim", "claimName"]));
        if volume["ephemeral"].is_object() {
            add(Referred::Claim, &format!("{}-{}", meta::name(pod), meta::text_at(volume, &["name"])));
        }
    }
    for claim in meta::items_at(pod, &["spec", "resourceClaims"]) {
        add(Referred::ResourceClaim, meta::text_at(claim, &["resourceClaimName"]));
    }
    for claim in meta::items_at(pod, &["status", "resourceClaimStatuses"]) {
        add(Referred::ResourceClaim, meta::text_at(claim, &["resourceClaimName"]));
    }
    add(Referred::ResourceClaim, meta::text_at(pod, &["status", "extendedResourceClaimStatus", "resourceClaimName"]));
    found
}

/// What [`visit_named`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    ConfigMap,
    Secret,
}

/// Every secret and config map that a pod names, for its containers, its volumes or its images.
pub fn visit_named(pod: &Value, mut visit: impl FnMut(Named, &str)) {
    let spec = &pod["spec"];
    let mut named = |what: Named, of: &Value, path: &[&str]| {
        let name = meta::text_at(of, path);
        if !name.is_empty() {
            visit(what, name);
        }
    };
    for secret in meta::items_at(spec, &["imagePullSecrets"]) {
        named(Named::Secret, secret, &["name"]);
    }
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    for container in lists.iter().flat_map(|list| meta::items_at(spec, &[list])) {
        for from in meta::items_at(container, &["envFrom"]) {
            named(Named::Secret, from, &["secretRef", "name"]);
            named(Named::ConfigMap, from, &["configMapRef", "name"]);
        }
        for variable in meta::items_at(container, &["env"]) {
            named(Named::Secret, variable, &["valueFrom", "secretKeyRef", "name"]);
            named(Named::ConfigMap, variable, &["valueFrom", "configMapKeyRef", "name"]);
        }
    }
    for volume in meta::items_at(spec, &["volumes"]) {
        named(Named::Secret, volume, &["azureFile", "secretName"]);
        named(Named::Secret, volume, &["secret", "secretName"]);
        named(Named::Secret, volume, &["csi", "nodePublishSecretRef", "name"]);
        for source in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            named(Named::Secret, volume, &[source, "secretRef", "name"]);
        }
        named(Named::ConfigMap, volume, &["configMap", "name"]);
        for source in meta::items_at(volume, &["projected", "sources"]) {
            named(Named::Secret, source, &["secret", "name"]);
            named(Named::ConfigMap, source, &["configMap", "name"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Ask;
    use serde_json::json;

    use super::*;

    /// Pods on n1 and n2, and what they lead to.
    fn graph() -> NodeAuthorizer {
        let node = NodeAuthorizer::default();
        let pods = [
            json!({
                "metadata": {"namespace": "a", "name": "web"},
                "spec": {
                    "nodeName": "n1", "serviceAccountName": "runner",
                    "imagePullSecrets": [{"name": "pull"}],
                    "initContainers": [{"envFrom": [{"secretRef": {"name": "env"}}, {"configMapRef": {"name": "env"}}]}],
                    "containers": [{"env": [
                        {"name": "a", "valueFrom": {"secretKeyRef": {"name": "key"}}},
                        {"name": "b", "valueFrom": {"configMapKeyRef": {"name": "key"}}},
                    ]}],
                    "volumes": [
                        {"name": "s", "secret": {"secretName": "files"}},
                        {"name": "p", "projected": {"sources": [{"secret": {"name": "some"}}, {"configMap": {"name": "ca"}}]}},
                        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
                    ],
                    "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}, {"name": "t", "resourceClaimTemplateName": "t"}],
                },
                "status": {"resourceClaimStatuses": [{"name": "t", "resourceClaimName": "web-t-x"}]},
            }),
            json!({
                "metadata": {"namespace": "a", "name": "mirror", "annotations": {MIRROR: "x"}},
                "spec": {"nodeName": "n1", "volumes": [{"name": "s", "secret": {"secretName": "stolen"}}]},
            }),
            json!({"metadata": {"namespace": "b", "name": "other"}, "spec": {"nodeName": "n2", "serviceAccountName": "runner"}}),
            json!({"metadata": {"namespace": "a", "name": "unbound"}, "spec": {"serviceAccountName": "free"}}),
        ];
        for pod in pods {
            let key = key(meta::namespace(&pod), meta::name(&pod)).into();
            let of = meta::text_at(&pod, &["spec", "nodeName"]).to_string();
            node.on_pod(&key, &of, move || pod.clone());
        }
        let volume = json!({
            "metadata": {"name": "pv"},
            "spec": {
                "claimRef": {"namespace": "a", "name": "data"},
                "csi": {
                    "nodeStageSecretRef": {"namespace": "storage", "name": "stage"},
                    "controllerPublishSecretRef": {"namespace": "storage", "name": "control"},
                },
            },
        });
        let free = json!({"metadata": {"name": "free"}, "spec": {}});
        for volume in [&volume, &free] {
            node.on_change(0, None, Some(volume));
        }
        let about = |name: &str, of: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": of}});
        for (name, of) in [("mine", "n1"), ("others", "n2")] {
            node.on_change(1, None, Some(&about(name, of)));
            node.on_change(2, None, Some(&about(name, of)));
        }
        node
    }

    /// What becomes of `METHOD PATH` by n1: `yes`, or why not.
    #[track_caller]
    fn check(ask: &str, want: &str) {
        ask_as(&graph(), &User::new("system:node:n1", [NODES]), ask, want);
    }

    #[track_caller]
    fn ask_as(node: &NodeAuthorizer, user: &User, ask: &str, want: &str) {
        let (method, path) = ask.split_once(' ').unwrap();
        let parsed = Ask::parse(method, path).unwrap();
        let got = match node.authorize(&crate::authorize::attributes(user, &parsed)) {
            Decision::Allow { .. } => "yes".to_string(),
            Decision::NoOpinion { reason, .. } | Decision::Deny { reason, .. } => reason,
        };
        assert_eq!(got, want, "{ask}");
    }

    const UNRELATED: &str = "no relationship found between node 'n1' and this object";

    #[test]
    fn objects_that_a_pod_of_the_node_refers_to_are_read() {
        for name in ["pull", "env", "key", "files", "some"] {
            check(&format!("GET /api/v1/namespaces/a/secrets/{name}"), "yes");
        }
        check("GET /api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dkey&watch=1", "yes");
        check("GET /api/v1/namespaces/a/secrets", "No Object name found");
        check("GET /api/v1/secrets", "can only read namespaced object of this type");
        check("PUT /api/v1/namespaces/a/secrets/key", "can only read resources of this type");
        for name in ["nosuch", "stolen", "runner"] {
            check(&format!("GET /api/v1/namespaces/a/secrets/{name}"), UNRELATED);
        }
        check("GET /api/v1/namespaces/b/secrets/key", UNRELATED);
        for name in ["env", "key", "ca"] {
            check(&format!("GET /api/v1/namespaces/a/configmaps/{name}"), "yes");
        }
        check("GET /api/v1/namespaces/a/configmaps/pull", UNRELATED);
        for name in ["data", "web-scratch"] {
            check(&format!("GET /api/v1/namespaces/a/persistentvolumeclaims/{name}"), "yes");
            check(&format!("PATCH /api/v1/namespaces/a/persistentvolumeclaims/{name}/status"), "yes");
        }
        check("GET /api/v1/namespaces/a/persistentvolumeclaims/data/status", "can only get/update/patch this type");
        check(
            "PATCH /api/v1/namespaces/a/persistentvolumeclaims/data",
            "can only get individual resources of this type",
        );
        check("GET /apis/resource.k8s.io/v1/namespaces/a/resourceclaims/gpu", "yes");
        check("GET /apis/resource.k8s.io/v1/namespaces/a/resourceclaims/web-t-x", "yes");
        check("GET /apis/resource.k8s.io/v1/namespaces/a/resourceclaims/t", UNRELATED);
        check("GET /api/v1/namespaces/a/serviceaccounts/runner", "yes");
        check("GET /api/v1/namespaces/b/serviceaccounts/runner", UNRELATED);
        check("GET /api/v1/namespaces/a/serviceaccounts/free", UNRELATED);
    }

    #[test]
    fn volumes_lead_over_their_claims() {
        check("GET /api/v1/persistentvolumes/pv", "yes");
        check("GET /api/v1/persistentvolumes/free", UNRELATED);
        check("GET /api/v1/persistentvolumes", "can only get individual resources of this type");
        check("GET /api/v1/namespaces/storage/secrets/stage", "yes");
        check("GET /api/v1/namespaces/storage/secrets/control", UNRELATED);
        check("GET /apis/storage.k8s.io/v1/volumeattachments/mine", "yes");
        check("GET /apis/storage.k8s.io/v1/volumeattachments/others", UNRELATED);
    }

    #[test]
    fn tokens_are_for_accounts_of_the_nodes_pods() {
        check("POST /api/v1/namespaces/a/serviceaccounts/runner/token", "yes");
        check("POST /api/v1/namespaces/a/serviceaccounts/free/token", UNRELATED);
        check("POST /api/v1/namespaces/a/serviceaccounts", "can only create tokens for individual service accounts");
        check(
            "DELETE /api/v1/namespaces/a/serviceaccounts/runner",
            "can only create tokens for individual service accounts",
        );
        check(
            "POST /api/v1/namespaces/a/serviceaccounts/runner/x",
            "can only create token subresource of serviceaccount",
        );
    }

    #[test]
    fn what_is_the_nodes_own() {
        check("GET /api/v1/nodes/n1", "yes");
        check("GET /api/v1/nodes/n2", "node 'n1' cannot read 'n2', only its own Node object");
        check("GET /api/v1/nodes", "node 'n1' cannot read all nodes, only its own Node object");
        check("GET /api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1", "yes");
        check("POST /api/v1/nodes", "yes");
        check("PATCH /api/v1/nodes/n1/status", "yes");
        check("DELETE /api/v1/nodes/n1", "");
        check("GET /api/v1/namespaces/a/pods/web", "yes");
        check("GET /api/v1/namespaces/b/pods/other", UNRELATED);
        check("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "yes");
        check("GET /api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1,status.phase%3DRunning", "yes");
        for selector in ["", "?fieldSelector=spec.nodeName%3Dn2", "?fieldSelector=spec.nodeName!%3Dn1"] {
            check(&format!("GET /api/v1/pods{selector}"), "can only list/watch pods with spec.nodeName field selector");
        }
        check("POST /api/v1/namespaces/a/pods/web/eviction", "yes");
        check("PUT /api/v1/namespaces/a/pods/web/status", "yes");
        check("PUT /api/v1/namespaces/a/pods/web", "");
        check("GET /api/v1/namespaces/a/pods/web/log", "");
        check("PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "yes");
        check(
            "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
            "can only access node lease with the same name as the requesting node",
        );
        check(
            "PATCH /apis/coordination.k8s.io/v1/namespaces/a/leases/n1",
            "can only access leases in the \"kube-node-lease\" system namespace",
        );
        check(
            "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            "can only get, create, update, patch, or delete a node lease",
        );
        check("PUT /apis/storage.k8s.io/v1/csinodes/n1", "yes");
        check(
            "PUT /apis/storage.k8s.io/v1/csinodes/n2",
            "can only access CSINode with the same name as the requesting node",
        );
        check("PUT /apis/resource.k8s.io/v1/resourceslices/mine", "yes");
        check("PUT /apis/resource.k8s.io/v1/resourceslices/others", UNRELATED);
        check("DELETE /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1", "yes");
        check(
            "DELETE /apis/resource.k8s.io/v1/resourceslices",
            "can only list/watch/deletecollection resourceslices with nodeName field selector",
        );
        check("GET /api/v1/services?watch=1", "yes");
        check("POST /apis/certificates.k8s.io/v1/certificatesigningrequests", "yes");
        check("POST /api/v1/namespaces/a/events", "yes");
        check("GET /apis/apps/v1/deployments", "");
        check("GET /healthz", "");
    }

    #[test]
    fn who_is_a_node() {
        let ask = "GET /api/v1/nodes/n1";
        ask_as(&graph(), &User::new("system:node:n1", ["system:authenticated"]), ask, "");
        ask_as(&graph(), &User::new("n1", [NODES]), ask, "");
        ask_as(&graph(), &User::new("system:node:", [NODES]), ask, "unknown node for user \"system:node:\"");
    }

    #[test]
    fn changes_count_at_once() {
        let (graph, user) = (graph(), User::new("system:node:n1", [NODES]));
        let ask = |what: &str, want: &str| ask_as(&graph, &user, what, want);
        let web: Arc<str> = "a/web".into();
        graph.on_pod(&web, "n1", || json!({"metadata": {"namespace": "a"}, "spec": {"serviceAccountName": "new"}}));
        ask("POST /api/v1/namespaces/a/serviceaccounts/new/token", "yes");
        ask("GET /api/v1/persistentvolumes/pv", UNRELATED);
        ask("GET /api/v1/namespaces/storage/secrets/stage", UNRELATED);
        graph.on_pod(&web, "", || Value::Null);
        ask("POST /api/v1/namespaces/a/serviceaccounts/new/token", UNRELATED);
        ask("GET /api/v1/namespaces/a/pods/web", UNRELATED);
        graph.on_change(1, Some(&json!({"metadata": {"name": "mine"}, "spec": {"nodeName": "n1"}})), None);
        ask("GET /apis/storage.k8s.io/v1/volumeattachments/mine", UNRELATED);
    }
}
