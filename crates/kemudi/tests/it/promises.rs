//! What the controllers promise, seen through the client a user has.

use std::time::Duration;

use api::options::Propagation;
use kemudi::Cluster;
use kemudi::client::{Api, ApiResource, Client, DeleteOptions, Dynamic, Event, FieldSelector, ListOptions, Patch};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Longest wait for a promise to be kept.
const PATIENCE: Duration = Duration::from_secs(20);

const NAMESPACES: ApiResource = ApiResource::new("", "v1", "Namespace", "namespaces", false);
const ACCOUNTS: ApiResource = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
const CONFIG_MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
const SECRETS: ApiResource = ApiResource::new("", "v1", "Secret", "secrets", true);
const PODS: ApiResource = ApiResource::new("", "v1", "Pod", "pods", true);
const NODES: ApiResource = ApiResource::new("", "v1", "Node", "nodes", false);
const LEASES: ApiResource = ApiResource::new("coordination.k8s.io", "v1", "Lease", "leases", true);
const ROLES: ApiResource = ApiResource::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);

struct World {
    cluster: Cluster,
    client: Client,
}

impl World {
    async fn start() -> World {
        let cluster = Cluster::start().await.unwrap();
        let client = cluster.admin();
        World { cluster, client }
    }

    fn api(&self, namespace: &str, resource: &ApiResource) -> Api<Dynamic> {
        Api::namespaced_of(self.client.clone(), namespace, resource)
    }

    async fn create(&self, namespace: &str, resource: &ApiResource, object: Value) -> Dynamic {
        self.api(namespace, resource).create(&Dynamic(object)).await.unwrap()
    }

    /// The object once the condition holds of it (`None`: it is not there).
    #[track_caller]
    fn until(
        &self,
        namespace: &str,
        resource: &ApiResource,
        name: &str,
        holds: impl Fn(Option<&Value>) -> bool,
    ) -> impl Future<Output = Option<Value>> {
        let fields = FieldSelector::parse(&format!("metadata.name={name}")).unwrap();
        let options = ListOptions { fields, ..ListOptions::default() };
        let mut watcher = self.api(namespace, resource).watcher(&options);
        let what = format!("{} {namespace}/{name}", resource.plural);
        async move {
            let wait = async {
                let mut there: Option<Value> = None;
                let mut listed = false;
                loop {
                    match watcher.next().await.unwrap() {
                        Event::Init => (there, listed) = (None, false),
                        Event::InitDone => listed = true,
                        Event::InitApplied(object) | Event::Applied(object) => there = Some(object.0),
                        Event::Deleted(_) => there = None,
                    }
                    if listed && holds(there.as_ref()) {
                        return there;
                    }
                }
            };
            timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no promise was kept about {what}"))
        }
    }
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_furnished_and_kept_so() {
    let world = World::start().await;
    world.create("", &NAMESPACES, named("a")).await;
    world.until("a", &ACCOUNTS, "default", |object| object.is_some()).await;
    let there = |object: Option<&Value>| object.is_some();
    let map = world.until("a", &CONFIG_MAPS, "kube-root-ca.crt", there).await.unwrap();
    let ca = map["data"]["ca.crt"].clone();
    assert_eq!(ca, world.cluster.ca_pem());
    world.api("a", &ACCOUNTS).delete("default").await.unwrap();
    world.until("a", &ACCOUNTS, "default", there).await;
    let broken = json!({"data": {"ca.crt": "broken", "more": "x"}, "metadata": {"annotations": null}});
    world.api("a", &CONFIG_MAPS).patch("kube-root-ca.crt", &Patch::Merge(&broken)).await.unwrap();
    let repaired = |object: Option<&Value>| object.is_some_and(|map| map["data"] == json!({"ca.crt": ca}));
    let map = world.until("a", &CONFIG_MAPS, "kube-root-ca.crt", repaired).await.unwrap();
    assert!(map["metadata"]["annotations"]["kubernetes.io/description"].is_string(), "{map}");
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_all_it_holds() {
    let world = World::start().await;
    world.create("", &NAMESPACES, named("a")).await;
    world.create("a", &SECRETS, named("s")).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    world.create("a", &CONFIG_MAPS, held).await;
    world.api("", &NAMESPACES).delete("a").await.unwrap();
    let told = |object: Option<&Value>| object.is_some_and(|ns| ns["status"]["conditions"][4]["status"] == "True");
    let namespace = world.until("", &NAMESPACES, "a", told).await.unwrap();
    assert_eq!(namespace["status"]["phase"], "Terminating");
    assert_eq!(
        namespace["status"]["conditions"][4]["message"],
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    assert!(world.api("a", &SECRETS).get_opt("s").await.unwrap().is_none());
    let free = json!({"metadata": {"finalizers": null}});
    world.api("a", &CONFIG_MAPS).patch("held", &Patch::Merge(&free)).await.unwrap();
    world.until("", &NAMESPACES, "a", |object| object.is_none()).await;
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_secret_is_filled_and_goes_with_its_account() {
    let world = World::start().await;
    world.create("default", &ACCOUNTS, named("bot")).await;
    let secret = |name: &str, account: &str| json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}}, "type": "kubernetes.io/service-account-token"});
    world.create("default", &SECRETS, secret("t", "bot")).await;
    world.create("default", &SECRETS, secret("orphan", "nobody")).await;
    let full = |object: Option<&Value>| object.is_some_and(|secret| secret["data"]["token"].is_string());
    let filled = world.until("default", &SECRETS, "t", full).await.unwrap();
    assert_eq!(filled["data"]["namespace"], "ZGVmYXVsdA==");
    world.until("default", &SECRETS, "orphan", |object| object.is_none()).await;
    world.api("default", &ACCOUNTS).delete("bot").await.unwrap();
    world.until("default", &SECRETS, "t", |object| object.is_none()).await;
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_node_once_there_is_a_ready_one() {
    let world = World::start().await;
    world.until("default", &ACCOUNTS, "default", |object| object.is_some()).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.create("default", &PODS, pod).await;
    world.create("", &NODES, named("n")).await;
    // What a kubelet keeps while it lives.
    world.create("kube-node-lease", &LEASES, named("n")).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    world.api("", &NODES).patch_status("n", &Patch::Merge(&ready)).await.unwrap();
    // A node is created with a taint until somebody says that it is ready.
    let free = json!({"spec": {"taints": null}});
    world.api("", &NODES).patch("n", &Patch::Merge(&free)).await.unwrap();
    let bound = |object: Option<&Value>| object.is_some_and(|pod| pod["spec"]["nodeName"] == "n");
    world.until("default", &PODS, "p", bound).await;
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_go_with_their_owners() {
    let world = World::start().await;
    let gone = |object: Option<&Value>| object.is_none();
    for (policy, child) in
        [(Propagation::Background, false), (Propagation::Foreground, false), (Propagation::Orphan, true)]
    {
        let owner = world.create("default", &CONFIG_MAPS, named("owner")).await;
        let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true});
        let owned = json!({"metadata": {"name": "child", "ownerReferences": [reference]}});
        world.create("default", &SECRETS, owned).await;
        let options = DeleteOptions { propagation: Some(policy), ..DeleteOptions::default() };
        world.api("default", &CONFIG_MAPS).delete_with("owner", &options).await.unwrap();
        world.until("default", &CONFIG_MAPS, "owner", gone).await;
        match child {
            false => drop(world.until("default", &SECRETS, "child", gone).await),
            true => {
                let left = world.api("default", &SECRETS).get("child").await.unwrap();
                assert!(left["metadata"]["ownerReferences"].is_null(), "{left:?}");
            }
        }
    }
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregated_role_follows_its_parts() {
    let world = World::start().await;
    let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
    let part = json!({"metadata": {"name": "part", "labels": {"x": "y"}}, "rules": [rule("pods")]});
    world.create("", &ROLES, part).await;
    let whole = json!({"metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}});
    world.create("", &ROLES, whole).await;
    let has = |resource: &'static str| {
        move |object: Option<&Value>| object.is_some_and(|role| role["rules"][0]["resources"][0] == resource)
    };
    world.until("", &ROLES, "whole", has("pods")).await;
    let other = json!({"rules": [rule("nodes")]});
    world.api("", &ROLES).patch("part", &Patch::Merge(&other)).await.unwrap();
    world.until("", &ROLES, "whole", has("nodes")).await;
    world.api("", &ROLES).delete("part").await.unwrap();
    world.until("", &ROLES, "whole", |object| object.is_some_and(|role| role["rules"].is_null())).await;
    world.cluster.stop().await.unwrap();
}
