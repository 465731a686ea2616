//! Each controller's decisions: what was seen as data, what is to be done as text.

use std::sync::Arc;

use kemudi_client::{Dynamic, Event};
use serde_json::{Value, json};

use crate::control::Controller;
use crate::mirror::Mirror;
use crate::{
    aggregation, default_account, endpoint_mirror, endpoint_slices, endpoints, namespace, node_taints, registrations,
    root_ca, scheduler, storage_protection, token_secret,
};

/// Shows a controller one list of objects for each of its sources; gives what it would do about each key, a line each.
#[track_caller]
fn check(controller: &dyn Controller, seen: &[&[Value]], want: &[&str]) {
    assert_eq!(controller.sources().len(), seen.len(), "{} watches other sources", controller.name());
    let sources = controller.sources();
    let mirrors: Vec<Mirror> =
        seen.iter().zip(&sources).map(|(objects, of)| fill(Mirror::new(of.lean), objects)).collect();
    let mut keys: Vec<_> = seen
        .iter()
        .enumerate()
        .flat_map(|(source, objects)| objects.iter().map(move |object| (source, object)))
        .flat_map(|(source, object)| controller.keys(source, &Dynamic(object.clone()), &mirrors))
        .collect();
    keys.sort();
    keys.dedup();
    let actions: Vec<String> = keys
        .iter()
        .flat_map(|key| controller.decide_at(key, &mirrors, jiff::Timestamp::UNIX_EPOCH))
        .map(|action| format!("{action:?}"))
        .collect();
    assert_eq!(actions, want);
}

fn mirror(objects: &[Value]) -> Mirror {
    fill(Mirror::default(), objects)
}

fn fill(mut mirror: Mirror, objects: &[Value]) -> Mirror {
    mirror.follow(Event::Init);
    for object in objects {
        mirror.follow(Event::InitApplied(Arc::new(Dynamic(object.clone()))));
    }
    mirror.follow(Event::InitDone);
    mirror
}

fn named(namespace: &str, name: &str, more: Value) -> Value {
    let mut object = json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("{name}-uid")}});
    merge(&mut object, more);
    object
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn active(name: &str) -> Value {
    named("", name, json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}))
}

fn terminating(name: &str, finalizers: &[&str]) -> Value {
    let deleting = json!({"metadata": {"deletionTimestamp": "T"}, "spec": {"finalizers": finalizers}, "status": {"phase": "Terminating"}});
    named("", name, deleting)
}

#[test]
fn default_accounts_are_made_where_they_are_missing() {
    let has = named("has", "default", json!({}));
    check(
        &default_account::DefaultAccount,
        &[&[active("has"), active("new"), terminating("old", &["kubernetes"])], &[has]],
        &[
            r#"create serviceaccounts {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default","namespace":"new"}}"#,
        ],
    );
}

/// What clients trust, for the controllers that tell it.
fn trusted() -> tokio::sync::watch::Receiver<String> {
    tokio::sync::watch::Sender::new("PEM".to_string()).subscribe()
}

#[test]
fn root_cas_are_made_and_put_right() {
    let map = |namespace: &str, data: Value| {
        let notes = json!({"metadata": {"annotations": {"kubernetes.io/description": "x"}}, "data": data});
        named(namespace, "kube-root-ca.crt", notes)
    };
    let good = map("good", json!({"ca.crt": "PEM"}));
    let extra = map("extra", json!({"ca.crt": "PEM", "more": "x"}));
    let bare = named("bare", "kube-root-ca.crt", json!({}));
    let controller = root_ca::RootCa::new(trusted());
    let namespaces = ["good", "extra", "bare", "new"].map(active);
    let mirrors = [mirror(&namespaces), mirror(&[good, extra, bare])];
    let done: Vec<String> = ["good", "extra", "bare", "new"]
        .map(|name| {
            let actions = controller.decide(&(String::new(), name.to_string()), &mirrors);
            actions.iter().map(|action| format!("{action:?}")).collect()
        })
        .to_vec();
    assert_eq!(done[0], "");
    assert!(
        done[1].starts_with("replace configmaps") && done[1].ends_with(r#""data":{"ca.crt":"PEM"}}"#),
        "{}",
        done[1]
    );
    assert!(done[2].contains("No other usage is guaranteed") && done[2].contains(r#""ca.crt":"PEM""#), "{}", done[2]);
    assert!(done[3].starts_with("create configmaps"), "{}", done[3]);
}

#[test]
fn terminating_namespaces_are_emptied_while_the_finalizer_is_there() {
    check(
        &namespace::NamespaceDeletion::new(crate::resources::Resources::none()),
        &[&[active("a"), terminating("b", &["kubernetes"]), terminating("c", &["example.com/mine"])]],
        &["empty namespace b"],
    );
}

#[test]
fn aggregated_roles_follow_their_selectors() {
    let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
    let role = |name: &str, label: &str, rules: &[&str]| {
        let rules: Vec<Value> = rules.iter().map(|resource| rule(resource)).collect();
        named("", name, json!({"metadata": {"labels": {"agg": label}}, "rules": rules}))
    };
    let all = |rules: Value| {
        named(
            "",
            "all",
            json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "yes"}}]}, "rules": rules}),
        )
    };
    let parts = [role("b", "yes", &["pods", "nodes"]), role("a", "yes", &["secrets", "pods"]), role("c", "no", &["x"])];
    let with = |rules: Value| parts.iter().cloned().chain([all(rules)]).collect::<Vec<_>>();
    let want = json!([rule("secrets"), rule("pods"), rule("nodes")]);
    let text = format!(
        r#"apply clusterroles {{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{{"name":"all"}},"rules":{want}}}"#
    );
    check(&aggregation::Aggregation, &[&with(json!(null))], &[&text]);
    check(&aggregation::Aggregation, &[&with(want)], &[]);
    check(
        &aggregation::Aggregation,
        &[&[all(json!([rule("pods")]))]],
        &[
            r#"apply clusterroles {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"all"}}"#,
        ],
    );
    let gathered = |name: &str, label: &str, of: &str| {
        let rule = json!({"clusterRoleSelectors": [{"matchLabels": {"agg": of}}]});
        named("", name, json!({"metadata": {"labels": {"agg": label}}, "aggregationRule": rule}))
    };
    let text = |name: &str| {
        let rules = json!([rule("pods")]);
        format!(
            r#"apply clusterroles {{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{{"name":"{name}"}},"rules":{rules}}}"#
        )
    };
    // All of a chain at once, and no end of a circle.
    for last in ["none", "low"] {
        let chain = [role("leaf", "low", &["pods"]), gathered("middle", "mid", "low"), gathered("top", last, "mid")];
        check(&aggregation::Aggregation, &[&chain], &[&text("middle"), &text("top")]);
    }
}

#[test]
fn pods_go_to_the_emptiest_node_that_takes_them() {
    let node = |name: &str, more: Value| {
        let mut node = named("", name, json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        merge(&mut node, more);
        node
    };
    let pod = |name: &str, more: Value| {
        let mut pod = named("ns", name, json!({"spec": {"schedulerName": "default-scheduler"}}));
        merge(&mut pod, more);
        pod
    };
    let pods = [
        pod("any", json!({})),
        pod("gated", json!({"spec": {"schedulingGates": [{"name": "g"}]}})),
        pod("going", json!({"metadata": {"deletionTimestamp": "T"}})),
        pod("picky", json!({"spec": {"nodeSelector": {"disk": "ssd"}}})),
        pod("tough", json!({"spec": {"nodeSelector": {"gpu": "yes"}, "tolerations": [{"operator": "Exists"}]}})),
    ];
    let nodes = [
        node("a-cordoned", json!({"spec": {"unschedulable": true}})),
        node("b-away", json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})),
        node(
            "c-tainted",
            json!({"metadata": {"labels": {"gpu": "yes"}}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
        ),
        node("d", json!({})),
        node("e", json!({"metadata": {"labels": {"disk": "ssd"}}})),
    ];
    let affine = |terms: Value| {
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        pod("affine", json!({"spec": {"affinity": {"nodeAffinity": required}}}))
    };
    let placed = |name: &str, node: &str| named("ns", name, json!({"spec": {"nodeName": node}}));
    let full = [placed("x", "d"), placed("y", "d"), placed("z", "e")];
    let leases: Vec<Value> =
        nodes.iter().map(|node| named("kube-node-lease", api::meta::name(node), json!({}))).collect();
    check(
        &scheduler::Scheduler::default(),
        &[&pods, &nodes, &[], &leases, &[], &[], &[]],
        &["bind any to d", "bind picky to e", "bind tough to c-tainted"],
    );
    check(&scheduler::Scheduler::default(), &[&pods[..1], &nodes, &full, &leases, &[], &[], &[]], &["bind any to e"]);
    check(&scheduler::Scheduler::default(), &[&pods, &[], &[], &[], &[], &[], &[]], &[]);
    check(&scheduler::Scheduler::default(), &[&pods, &nodes, &[], &[], &[], &[], &[]], &[]);
    let by_name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["e"]}]}]);
    check(
        &scheduler::Scheduler::default(),
        &[&[affine(by_name)], &nodes, &[], &leases, &[], &[], &[]],
        &["bind affine to e"],
    );
    let by_label = json!([{}, {"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}]);
    check(
        &scheduler::Scheduler::default(),
        &[&[affine(by_label)], &nodes, &[], &leases, &[], &[], &[]],
        &["bind affine to d"],
    );
    let nowhere = json!([{"matchExpressions": [{"key": "disk", "operator": "Exists"}], "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["d"]}]}]);
    let why = "0/5 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were not ready, 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector.";
    let leave = format!("leave affine: {why}");
    check(
        &scheduler::Scheduler::default(),
        &[&[affine(nowhere.clone())], &nodes, &[], &leases, &[], &[], &[]],
        &[&leave],
    );
    let mut told = affine(nowhere);
    told["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "message": why}]);
    check(&scheduler::Scheduler::default(), &[&[told], &nodes, &[], &leases, &[], &[], &[]], &[]);
}

#[test]
fn a_node_takes_no_more_pods_than_it_says() {
    let node = |name: &str| {
        let status = json!({"allocatable": {"pods": "2"}, "conditions": [{"type": "Ready", "status": "True"}]});
        named("", name, json!({"metadata": {"labels": {"host": name}}, "status": status}))
    };
    let nodes = [node("a"), node("b")];
    let leases = [named("kube-node-lease", "a", json!({})), named("kube-node-lease", "b", json!({}))];
    let pod = |name: &str, host: &str, why: &str| {
        let conditions = json!([{"type": "PodScheduled", "status": "False", "message": why}]);
        let spec = json!({"schedulerName": "default-scheduler", "nodeSelector": {"host": host}});
        named("ns", name, json!({"spec": spec, "status": {"conditions": conditions}}))
    };
    let placed = |name: &str, node: &str| named("ns", name, json!({"spec": {"nodeName": node}}));
    let full = [placed("x", "a"), placed("y", "a"), placed("z", "b")];
    let others = "node(s) didn't match Pod's node affinity/selector";
    let why = format!("0/2 nodes are available: 1 Too many pods, 1 {others}.");
    check(
        &scheduler::Scheduler::default(),
        &[&[pod("late", "a", ""), pod("p", "b", "")], &nodes, &full, &leases, &[], &[], &[]],
        &[&format!("leave late: {why}"), "bind p to b"],
    );
    // Who waited for a place is looked at again when one is free, and nobody else.
    let waiting = [pod("late", "a", &why), pod("later", "a", "of no node"), pod("other", "b", &why)];
    let sources = scheduler::Scheduler::default().sources();
    let objects: [&[Value]; 7] = [&waiting, &nodes, &full[1..], &[], &[], &[], &[]];
    let seen: Vec<Mirror> =
        objects.iter().zip(&sources).map(|(objects, of)| fill(Mirror::new(of.lean), objects)).collect();
    let looked_at = |pod: &Value| scheduler::Scheduler::default().keys(2, &Dynamic(pod.clone()), &seen);
    assert_eq!(looked_at(&full[0]), [("ns".to_string(), "late".to_string())]);
    assert_eq!(looked_at(&full[1]), []);
}

#[test]
fn a_port_of_a_host_is_one_pods() {
    let node = |name: &str| named("", name, json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    let nodes = [node("a")];
    let leases = [named("kube-node-lease", "a", json!({}))];
    let spec = |port: Value| {
        let containers = json!([{"name": "c", "ports": [{"containerPort": 80}]}, {"name": "d", "ports": [port]}]);
        json!({"spec": {"schedulerName": "default-scheduler", "containers": containers}})
    };
    let port =
        |protocol: &str, ip: &str| json!({"containerPort": 1, "hostPort": 8000, "protocol": protocol, "hostIP": ip});
    let mut has = named("ns", "has", spec(port("TCP", "127.0.0.1")));
    has["spec"]["nodeName"] = json!("a");
    let check = |wanted: Value, want: &str| {
        let pods = [named("ns", "p", spec(wanted))];
        check(
            &scheduler::Scheduler::default(),
            &[&pods, &nodes, std::slice::from_ref(&has), &leases, &[], &[], &[]],
            &[want],
        );
    };
    let taken = "leave p: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    check(port("TCP", "127.0.0.1"), taken);
    check(port("TCP", ""), taken);
    check(port("TCP", "0.0.0.0"), taken);
    check(port("TCP", "127.0.0.2"), "bind p to a");
    check(port("UDP", "127.0.0.1"), "bind p to a");
    check(json!({"containerPort": 8000, "protocol": "TCP"}), "bind p to a");
    // Of two that come at once one has it, though neither is seen on the node yet.
    let both = ["p", "q"].map(|name| named("ns", name, spec(port("TCP", ""))));
    let left = taken.replace("leave p", "leave q");
    let seen: [&[Value]; 7] = [&both, &nodes, &[], &leases, &[], &[], &[]];
    self::check(&scheduler::Scheduler::default(), &seen, &["bind p to a", &left]);
}

#[test]
fn pods_go_to_where_their_volumes_are() {
    let node = |name: &str| {
        let conditions = json!([{"type": "Ready", "status": "True"}]);
        named("", name, json!({"metadata": {"labels": {"host": name}}, "status": {"conditions": conditions}}))
    };
    let nodes = [node("a"), node("b")];
    let leases = [named("kube-node-lease", "a", json!({})), named("kube-node-lease", "b", json!({}))];
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    let pod = named("a", "p", json!({"spec": {"schedulerName": "default-scheduler", "volumes": volumes}}));
    let at = |name: &str, host: &str, more: Value| {
        let term = json!({"matchExpressions": [{"key": "host", "operator": "In", "values": [host]}]});
        let mut at =
            volume(name, "1Gi", json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}));
        merge(&mut at, more);
        at
    };
    let late = |provisioner: &str| {
        named("", "k", json!({"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}))
    };
    let static_only = late("kubernetes.io/no-provisioner");
    let claim = |more: Value| {
        let mut claim = wants("c", "1Gi", json!({"spec": {"storageClassName": "k"}}));
        merge(&mut claim, more);
        claim
    };
    let check = |claims: &[Value], volumes: &[Value], classes: &[Value], want: &[&str]| {
        let pods = std::slice::from_ref(&pod);
        check(&scheduler::Scheduler::default(), &[pods, &nodes, &[], &leases, claims, volumes, classes], want);
    };
    let leave = |why: &str| format!("leave p: 0/2 nodes are available: {why}.");
    check(&[], &[], &[], &[&leave("persistentvolumeclaim \"c\" not found")]);
    check(&[claim(json!({}))], &[], &[], &[&leave("pod has unbound immediate PersistentVolumeClaims")]);
    let bound = claim(json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "v"}}));
    let bound = std::slice::from_ref(&bound);
    let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    check(bound, &[], &[], &[&leave(gone)]);
    check(bound, &[volume("v", "1Gi", json!({}))], &[], &["bind p to a"]);
    check(bound, &[at("v", "b", json!({}))], &[], &["bind p to b"]);
    check(bound, &[at("v", "x", json!({}))], &[], &[&leave("2 node(s) didn't match PersistentVolume's node affinity")]);
    // A claim that waits for its pod gets a volume of the node that the pod goes to.
    let waits = [claim(json!({}))];
    let classes = std::slice::from_ref(&static_only);
    let none = leave("2 node(s) didn't find available persistent volumes to bind");
    let of_class = json!({"spec": {"storageClassName": "k"}});
    check(&waits, &[], classes, &[&none]);
    check(&waits, &[at("v", "x", of_class.clone())], classes, &[&none]);
    let free = at("v", "b", of_class.clone());
    let mut given = free.clone();
    given["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"] = json!("yes");
    given["spec"]["claimRef"] = json!({"kind": "PersistentVolumeClaim", "namespace": "a", "name": "c", "uid": "c-uid",
        "apiVersion": "v1", "resourceVersion": api::meta::resource_version(&waits[0])});
    check(&waits, &[at("w", "x", of_class), free], classes, &[&format!("replace persistentvolumes {given}")]);
    // The rest of the binding is the volume binder's.
    check(&waits, &[given], classes, &[]);
    // Where somebody makes volumes, the claim says for which node.
    let mut asks = waits[0].clone();
    asks["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!("a");
    let classes = [late("example.com/p")];
    check(&waits, &[], &classes, &[&format!("replace persistentvolumeclaims {asks}")]);
    check(&[asks], &[], &classes, &[]);
}

#[test]
fn conditions_of_nodes_become_taints() {
    let node = |name: &str, more: Value| named("", name, more);
    let ours = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let other = json!({"key": "example.com/x", "effect": "NoSchedule"});
    let ready = |status: &str| json!([{"type": "Ready", "status": status}, {"type": "DiskPressure", "status": "True"}]);
    check(
        &node_taints::NodeTaints,
        &[&[
            node("better", json!({"spec": {"taints": [ours, other]}, "status": {"conditions": []}})),
            node("cordoned", json!({"spec": {"unschedulable": true}})),
            node("good", json!({"spec": {"taints": [other]}})),
            node("told", json!({"spec": {"taints": [ours]}, "status": {"conditions": [ready("False")[0]]}})),
            node("worse", json!({"spec": {"taints": [other, ours]}, "status": {"conditions": ready("Unknown")}})),
        ]],
        &[
            r#"taint better: keep "example.com/x" add"#,
            r#"taint cordoned: keep add "node.kubernetes.io/unschedulable""#,
            r#"taint worse: keep "example.com/x" add "node.kubernetes.io/unreachable" "node.kubernetes.io/disk-pressure""#,
        ],
    );
}

#[test]
fn token_secrets_are_looked_at_until_they_are_full() {
    struct Signs;
    impl crate::TokenSigner for Signs {
        fn sign(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Result<String, String> {
            Ok(format!("{namespace}/{account}/{uid}/{secret}"))
        }
    }
    let controller = token_secret::TokenSecrets::new(trusted(), Arc::new(Signs));
    let account = named("ns", "bot", json!({}));
    let empty =
        named("ns", "empty", json!({"metadata": {"annotations": {"kubernetes.io/service-account.name": "bot"}}}));
    let full = token_secret::filled(&empty, &account, "PEM", &Signs).unwrap().unwrap();
    let mut full = full;
    full["metadata"]["name"] = "full".into();
    assert_eq!(
        full["data"].to_string(),
        r#"{"token":"bnMvYm90L2JvdC11aWQvZW1wdHk=","ca.crt":"UEVN","namespace":"bnM="}"#
    );
    assert_eq!(token_secret::filled(&full, &account, "PEM", &Signs), Ok(None));
    let orphan =
        named("ns", "orphan", json!({"metadata": {"annotations": {"kubernetes.io/service-account.name": "no"}}}));
    let other = json!({"metadata": {"annotations": {"kubernetes.io/service-account.name": "bot", "kubernetes.io/service-account.uid": "other"}}});
    let other = named("ns", "other", other);
    assert!(!token_secret::belongs(&other, &account));
    check(
        &controller,
        &[&[empty, full, orphan, other], &[account]],
        &["token secret empty", "token secret orphan", "token secret other"],
    );
}

#[test]
fn claims_go_when_no_pod_uses_them() {
    let claim = |name: &str, more: Value| {
        let mut claim = named("a", name, json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "x/y"]}}));
        merge(&mut claim, more);
        claim
    };
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let pod = |name: &str, claim: &str, more: Value| {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
        let mut pod = named("a", name, json!({"spec": {"nodeName": "n", "volumes": volumes}}));
        merge(&mut pod, more);
        pod
    };
    let claims = ["free", "used", "done", "stays"].map(|name| match name {
        "stays" => claim(name, json!({})),
        _ => claim(name, going.clone()),
    });
    let pods = [pod("p", "used", json!({})), pod("q", "done", json!({"status": {"phase": "Succeeded"}}))];
    let freed = |name: &str| {
        let mut claim = claim(name, going.clone());
        claim["metadata"]["finalizers"] = json!(["x/y"]);
        format!("replace persistentvolumeclaims {claim}")
    };
    check(&storage_protection::ClaimProtection, &[&claims, &pods], &[&freed("done"), &freed("free")]);
}

fn service(name: &str, spec: Value) -> Value {
    let base = json!({"spec": {"clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]}});
    let mut service = named("a", name, base);
    merge(&mut service, json!({"spec": spec}));
    service
}

fn pod_at(name: &str, ip: &str, ready: &str, more: Value) -> Value {
    let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    let mut pod = named(
        "a",
        name,
        json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        }),
    );
    merge(&mut pod, more);
    pod
}

#[test]
fn endpoints_tell_where_the_pods_of_a_service_are() {
    let node = named("", "n", json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z"}}}));
    let web = service("web", json!({"selector": {"app": "web"}}));
    let pods = [
        pod_at("up", "10.0.0.1", "True", json!({})),
        pod_at("starting", "10.0.0.2", "False", json!({})),
        pod_at("leaving", "10.0.0.3", "True", json!({"metadata": {"deletionTimestamp": "T"}})),
        pod_at("done", "10.0.0.4", "True", json!({"status": {"phase": "Succeeded"}})),
        pod_at("unnamed", "10.0.0.5", "True", json!({"spec": {"containers": [{"name": "c"}]}})),
        pod_at("another", "10.0.0.6", "True", json!({"metadata": {"labels": {"app": "db"}}})),
        pod_at("waiting", "", "False", json!({})),
    ];
    check(
        &endpoints::Endpoints,
        &[&[web], &pods, &[], &[], &[node]],
        &[
            r#"create endpoints {"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"web","namespace":"a","labels":{"endpoints.kubernetes.io/managed-by":"endpoint-controller"}},"subsets":[{"addresses":[{"ip":"10.0.0.1","targetRef":{"kind":"Pod","namespace":"a","name":"up","uid":"up-uid"},"nodeName":"n"}],"notReadyAddresses":[{"ip":"10.0.0.2","targetRef":{"kind":"Pod","namespace":"a","name":"starting","uid":"starting-uid"},"nodeName":"n"}],"ports":[{"port":8080,"protocol":"TCP"}]}]}"#,
            r#"endpoints of web: IPv4 [8080] {"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true},"targetRef":{"kind":"Pod","namespace":"a","name":"leaving","uid":"leaving-uid"},"nodeName":"n","zone":"z"} {"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":false,"terminating":false},"targetRef":{"kind":"Pod","namespace":"a","name":"starting","uid":"starting-uid"},"nodeName":"n","zone":"z"} {"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"targetRef":{"kind":"Pod","namespace":"a","name":"up","uid":"up-uid"},"nodeName":"n","zone":"z"} IPv4 [] {"addresses":["10.0.0.5"],"conditions":{"ready":true,"serving":true,"terminating":false},"targetRef":{"kind":"Pod","namespace":"a","name":"unnamed","uid":"unnamed-uid"},"nodeName":"n","zone":"z"}"#,
        ],
    );
    // Endpoints of a Service that went go too; those that never had one, and of Services without selector, stay.
    let (plain, own) = (service("plain", json!({})), named("a", "own", json!({})));
    let ready = named("a", "plain", json!({}));
    check(&endpoints::Endpoints, &[&[plain], &[], &[own, ready], &[], &[]], &[]);
}

#[test]
fn endpoints_by_hand_are_mirrored() {
    let by_hand = |name: &str, more: Value| {
        let mut endpoints =
            named("a", name, json!({"subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 1}]}]}));
        merge(&mut endpoints, more);
        endpoints
    };
    let skipped = json!({"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}});
    let services =
        [service("one", json!({})), service("two", json!({})), service("web", json!({"selector": {"app": "web"}}))];
    let labels = json!({"kubernetes.io/service-name": "gone"});
    let old = named("a", "gone-x", json!({"metadata": {"labels": labels}, "addressType": "IPv4"}));
    check(
        &endpoint_mirror::EndpointMirror,
        &[
            &[
                by_hand("one", json!({})),
                by_hand("two", skipped),
                by_hand("web", json!({})),
                by_hand("none", json!({})),
            ],
            &services,
            &[old],
        ],
        &[
            "endpoints of gone:",
            r#"endpoints of one: IPv4 [1] {"addresses":["192.0.2.7"],"conditions":{"ready":true}}"#,
        ],
    );
}

#[test]
fn slices_are_changed_as_little_as_possible() {
    let endpoint = |n: usize, ready: bool| json!({"addresses": [format!("10.0.{}.{}", n / 250, n % 250)], "conditions": {"ready": ready}});
    let slice = |name: &str, range: std::ops::Range<usize>| {
        let endpoints: Vec<Value> = range.map(|n| endpoint(n, true)).collect();
        named(
            "a",
            name,
            json!({"addressType": "IPv4", "ports": [{"port": 1}], "endpoints": endpoints, "metadata": {"labels": {"l": "v"}}}),
        )
    };
    let check = |present: &[Value], numbers: [std::ops::Range<usize>; 2], unready: usize, want: &[&str]| {
        let mut groups = Vec::new();
        for n in numbers.into_iter().flatten() {
            endpoint_slices::add(&mut groups, "IPv4", vec![json!({"port": 1})], endpoint(n, n != unready));
        }
        if groups.is_empty() {
            groups.push(endpoint_slices::Group {
                address_type: "IPv4".into(),
                ports: Vec::new(),
                endpoints: Vec::new(),
            });
        }
        let wanted = endpoint_slices::Wanted {
            namespace: "a".into(),
            name: "web".into(),
            manager: "m",
            labels: json!({"l": "v"}).as_object().cloned().unwrap(),
            annotations: Default::default(),
            owner: json!({}),
            groups,
        };
        let actions = endpoint_slices::reconcile(&wanted, &present.iter().collect::<Vec<_>>());
        let actions: Vec<String> = actions
            .iter()
            .map(|action| {
                let text = format!("{action:?}");
                let ends = text.matches("addresses").count();
                let name = present.iter().find(|slice| text.contains(slice["metadata"]["uid"].as_str().unwrap()));
                let name = name.map_or("", |slice| slice["metadata"]["name"].as_str().unwrap());
                match text.starts_with("delete") {
                    true => text,
                    false => format!("{} {name} {ends}", text.split(' ').next().unwrap()),
                }
            })
            .collect();
        assert_eq!(actions, want);
    };
    check(&[], [0..0, 0..0], 999, &["create  0"]);
    check(&[], [0..250, 0..0], 999, &["create  100", "create  100", "create  50"]);
    let three = [slice("x", 0..100), slice("y", 100..150), slice("z", 200..250)];
    check(&three, [0..150, 200..250], 999, &[]);
    check(&three, [0..150, 200..250], 120, &["replace y 50"]);
    check(&three, [0..150, 200..260], 999, &["replace y 60"]);
    check(&three, [0..150, 210..270], 999, &["replace z 60"]);
    check(&three, [0..150, 0..0], 999, &["delete endpointslices z"]);
    check(
        &three,
        [0..0, 0..0],
        999,
        &["create  0", "delete endpointslices x", "delete endpointslices y", "delete endpointslices z"],
    );
}

fn volume(name: &str, size: &str, more: Value) -> Value {
    let spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "k",
        "persistentVolumeReclaimPolicy": "Retain"});
    let mut volume = named("", name, json!({"spec": spec, "status": {"phase": "Available"}}));
    merge(&mut volume, more);
    volume
}

fn wants(name: &str, size: &str, more: Value) -> Value {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "k", "resources": {"requests": {"storage": size}}});
    let mut claim = named("a", name, json!({"spec": spec, "status": {"phase": "Pending"}}));
    merge(&mut claim, more);
    claim
}

/// What becomes of claims and volumes: each action's first words.
#[track_caller]
fn check_binding(claims: &[Value], volumes: &[Value], classes: &[Value], pods: &[Value], want: &[&str]) {
    let mirrors = [claims, volumes, classes, pods].map(mirror);
    let keys = claims.iter().chain(volumes).map(|one| (meta_of(one, "namespace"), meta_of(one, "name")));
    let told: Vec<String> = keys
        .flat_map(|key| crate::volume_binder::VolumeBinder.decide(&key, &mirrors))
        .map(|action| match action {
            crate::act::Action::Replace { object, .. } => {
                let (spec, notes) = (&object["spec"], &object["metadata"]["annotations"]);
                let bound = [&spec["claimRef"]["name"], &spec["claimRef"]["uid"], &spec["volumeName"]];
                let bound: Vec<&str> = bound.iter().filter_map(|name| name.as_str()).collect();
                let notes: Vec<&str> = notes.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                format!("{} has {} {}", api::meta::name(&object), bound.join(" "), notes.join(" "))
            }
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(told, want);
}

fn meta_of(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_string()
}

#[test]
fn a_claim_and_a_volume_find_each_other_step_by_step() {
    let by = "pv.kubernetes.io/bound-by-controller";
    let claim_ref = json!({"spec": {"claimRef": {"name": "c", "namespace": "a", "uid": "c-uid"}}});
    let (small, big) = (volume("small", "2Gi", json!({})), volume("big", "9Gi", json!({})));
    let claim = wants("c", "1Gi", json!({}));
    check_binding(
        std::slice::from_ref(&claim),
        &[big.clone(), small.clone()],
        &[],
        &[],
        &[&format!("small has c c-uid {by}")],
    );
    let taken = volume("small", "2Gi", claim_ref.clone());
    check_binding(
        std::slice::from_ref(&claim),
        &[big.clone(), taken],
        &[],
        &[],
        &[r#"replace persistentvolumes small status {"phase":"Bound"}"#],
    );
    let mut taken = volume("small", "2Gi", claim_ref);
    taken["status"]["phase"] = "Bound".into();
    check_binding(
        &[claim],
        &[big.clone(), taken.clone()],
        &[],
        &[],
        &[&format!("c has small {by} pv.kubernetes.io/bind-completed")],
    );
    let notes = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": "small"}});
    let mut claim = wants("c", "1Gi", notes);
    check_binding(
        std::slice::from_ref(&claim),
        &[big.clone(), taken.clone()],
        &[],
        &[],
        &[
            r#"replace persistentvolumeclaims c status {"phase":"Bound","accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"}}"#,
        ],
    );
    claim["status"] = json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}});
    check_binding(std::slice::from_ref(&claim), &[big.clone(), taken.clone()], &[], &[], &[]);
    check_binding(&[], &[taken], &[], &[], &[r#"replace persistentvolumes small status {"phase":"Released"}"#]);
    check_binding(
        &[claim],
        &[big],
        &[],
        &[],
        &[
            r#"replace persistentvolumeclaims c status {"phase":"Lost"}"#,
            "tell c Warning ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        ],
    );
}

#[test]
fn claims_without_a_volume_say_why() {
    let class = |name: &str, more: Value| {
        let mut class = named("", name, json!({"provisioner": "example.com/p"}));
        merge(&mut class, more);
        class
    };
    let claim = |class: &str| wants("c", "1Gi", json!({"spec": {"storageClassName": class}}));
    let none: &[Value] = &[];
    check_binding(
        &[claim("")],
        none,
        none,
        none,
        &["tell c Normal FailedBinding: no persistent volumes available for this claim and no storage class is set"],
    );
    check_binding(
        &[claim("k")],
        none,
        none,
        none,
        &[r#"tell c Warning ProvisioningFailed: storageclass.storage.k8s.io "k" not found"#],
    );
    let provisioner = "volume.kubernetes.io/storage-provisioner volume.beta.kubernetes.io/storage-provisioner";
    check_binding(&[claim("k")], none, &[class("k", json!({}))], none, &[&format!("c has  {provisioner}")]);
    let static_only = class("k", json!({"provisioner": "kubernetes.io/no-provisioner"}));
    check_binding(
        &[claim("k")],
        none,
        &[static_only],
        none,
        &["tell c Warning ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"],
    );
    // A class that waits for a pod is bound by whoever places the pod.
    let late = class("k", json!({"volumeBindingMode": "WaitForFirstConsumer"}));
    let free = volume("v", "1Gi", json!({}));
    check_binding(
        &[claim("k")],
        std::slice::from_ref(&free),
        std::slice::from_ref(&late),
        none,
        &["tell c Normal WaitForFirstConsumer: waiting for first consumer to be created before binding"],
    );
    let pod =
        named("a", "p", json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}));
    check_binding(
        &[claim("k")],
        &[free],
        &[late],
        &[pod],
        &["tell c Normal WaitForPodScheduled: waiting for pod p to be scheduled"],
    );
    let asks = wants("c", "5Gi", json!({"spec": {"volumeName": "v"}}));
    check_binding(
        &[asks],
        &[volume("v", "1Gi", json!({}))],
        none,
        none,
        &[r#"tell c Warning VolumeMismatch: Cannot bind to requested volume "v": requested PV is too small"#],
    );
    let asks = wants("c", "1Gi", json!({"spec": {"volumeName": "v"}}));
    let others = json!({"spec": {"claimRef": {"name": "d", "namespace": "a"}}});
    check_binding(
        &[asks],
        &[volume("v", "1Gi", others)],
        none,
        none,
        &[r#"tell c Warning FailedBinding: volume "v" already bound to a different claim."#],
    );
    let mut unset = claim("");
    unset["spec"].as_object_mut().unwrap().remove("storageClassName");
    let default =
        class("k", json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}));
    check_binding(&[unset], none, &[default], none, &["c has  "]);
}

#[test]
fn released_volumes_are_dealt_with_as_their_policy_says() {
    let released = |policy: &str, more: Value| {
        let claim_ref = json!({"name": "gone", "namespace": "a", "uid": "gone-uid"});
        let mut volume = volume(
            "v",
            "1Gi",
            json!({"spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": claim_ref}, "status": {"phase": "Released"}}),
        );
        merge(&mut volume, more);
        volume
    };
    let check = |volume: Value, want: &[&str]| check_binding(&[], &[volume], &[], &[], want);
    check(released("Retain", json!({})), &[]);
    let path = |path: &str| json!({"spec": {"hostPath": {"path": path}}});
    check(released("Delete", path("/tmp/x")), &["delete persistentvolumes v"]);
    let why = "host_path deleter only supports /tmp/.+ but received provided /x";
    check(
        released("Delete", path("/x")),
        &[
            &format!(r#"replace persistentvolumes v status {{"phase":"Failed","message":"{why}"}}"#),
            &format!("tell v Warning VolumeFailedDelete: {why}"),
        ],
    );
    let by = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "example.com/p"}}});
    check(released("Delete", by), &[]);
    check(
        released("Recycle", json!({})),
        &[
            r#"replace persistentvolumes v status {"phase":"Failed","message":"No recycler plugin found for the volume!"}"#,
            "tell v Warning VolumeFailedRecycle: No recycler plugin found for the volume!",
        ],
    );
}

#[test]
fn budgets_count_healthy_pods_against_what_is_wanted() {
    let owner = |kind: &str, name: &str| {
        let version = if kind == "Widget" { "example.com/v1" } else { "apps/v1" };
        json!([{"apiVersion": version, "kind": kind, "name": name, "uid": format!("{name}-uid"), "controller": true}])
    };
    let pod = |name: &str, ready: bool, owners: Value| {
        let status = if ready { "True" } else { "False" };
        let more = json!({"metadata": {"labels": {"app": "x"}, "ownerReferences": owners}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
        named("a", name, more)
    };
    let budget = |spec: Value| {
        let mut budget = named("a", "b", json!({"metadata": {"generation": 2}, "spec": spec}));
        budget["spec"]["selector"] = json!({"matchLabels": {"app": "x"}});
        budget
    };
    let set = named("a", "web", json!({"spec": {"replicas": 4}}));
    let check = |spec: Value, pods: &[Value], want: &[&str]| {
        let controller = crate::disruption::Disruption::new(crate::resources::Resources::none());
        let budgets = [budget(spec)];
        let sets: &[Value] = std::slice::from_ref(&set);
        let mirrors = [&budgets, pods, &[], &[], &[], sets].map(mirror);
        let key = ("a".to_string(), "b".to_string());
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let actions: Vec<String> = controller
            .decide_at(&key, &mirrors, now)
            .iter()
            .map(|action| format!("{action:?}").replace(r#""observedGeneration":2,"#, ""))
            .collect();
        assert_eq!(actions, want);
    };
    let status = |allowed: i64, healthy: i64, desired: i64, expected: i64| {
        let (holds, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        format!(
            r#"replace poddisruptionbudgets b status {{"disruptionsAllowed":{allowed},"currentHealthy":{healthy},"desiredHealthy":{desired},"expectedPods":{expected},"conditions":[{{"type":"DisruptionAllowed","status":"{holds}","lastTransitionTime":"2026-01-01T00:01:00Z","reason":"{reason}","message":""}}]}}"#
        )
    };
    let of_set = || owner("StatefulSet", "web");
    let pods = [pod("p", true, of_set()), pod("q", true, of_set()), pod("r", false, of_set())];
    check(json!({"minAvailable": 1}), &pods, &[&status(1, 2, 1, 3)]);
    check(json!({"minAvailable": "30%"}), &pods, &[&status(0, 2, 2, 4)]);
    check(json!({"maxUnavailable": 3}), &pods, &[&status(1, 2, 1, 4)]);
    check(json!({"maxUnavailable": "26%"}), &pods, &[&status(0, 2, 2, 4)]);
    check(json!({"minAvailable": 1}), &[], &["tell b Normal NoPods: No matching pods found", &status(0, 0, 1, 0)]);
    let bare = [pod("p", true, json!([]))];
    check(
        json!({"maxUnavailable": 1}),
        &bare,
        &[
            r#"tell b Warning UnmanagedPods: Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{app: x,},MatchExpressions:[]LabelSelectorRequirement{},}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value."#,
            &status(0, 1, 0, 0),
        ],
    );
    let lost = [pod("p", true, owner("StatefulSet", "gone"))];
    check(
        json!({"maxUnavailable": 1}),
        &lost,
        &[
            r#"tell b Warning CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods: found no controllers for pod "p""#,
            "again after 30 s",
            r#"replace poddisruptionbudgets b status {"disruptionsAllowed":0,"conditions":[{"type":"DisruptionAllowed","status":"False","lastTransitionTime":"2026-01-01T00:01:00Z","reason":"SyncFailed","message":"found no controllers for pod \"p\""}]}"#,
        ],
    );
    let custom = [pod("p", true, owner("Widget", "w"))];
    let asked = check_ask(&custom[0]);
    check(json!({"maxUnavailable": 1}), &custom, &[&asked]);
}

fn check_ask(pod: &Value) -> String {
    let owner = &pod["metadata"]["ownerReferences"][0];
    let owner = format!("{owner:?}");
    format!(
        "count b: 1 healthy of 1, Scale {{ known: {{}}, ask: [({owner}, \"p\")], unmanaged: false, failure: None }}"
    )
}

#[test]
fn ranges_stay_as_long_as_their_addresses() {
    let finalizer = json!(["networking.k8s.io/service-cidr-finalizer"]);
    let range = |name: &str, cidr: &str, more: Value| {
        let mut range = named("", name, json!({"metadata": {"finalizers": finalizer}, "spec": {"cidrs": [cidr]}}));
        merge(&mut range, more);
        range
    };
    let going = || json!({"metadata": {"deletionTimestamp": "T"}});
    let address = named("", "10.1.0.7", json!({}));
    let ready = |name: &str| {
        format!(
            r#"replace servicecidrs {name} status {{"conditions":[{{"type":"Ready","status":"True","lastTransitionTime":"1970-01-01T00:00:00Z","reason":"","message":"Kubernetes Service CIDR is ready"}}]}}"#
        )
    };
    let ranges = crate::service_cidrs::ServiceCidrs;
    check(&ranges, &[&[range("a", "10.1.0.0/24", json!({}))], &[]], &[&ready("a")]);
    let stays =
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
    let still = format!(
        r#"replace servicecidrs a status {{"conditions":[{{"type":"Ready","status":"False","lastTransitionTime":"1970-01-01T00:00:00Z","reason":"Terminating","message":"{stays}"}}]}}"#
    );
    check(&ranges, &[&[range("a", "10.1.0.0/24", going())], std::slice::from_ref(&address)], &[&still]);
    let mut free = range("a", "10.1.0.0/24", going());
    free["metadata"]["finalizers"] = json!([]);
    let freed = format!("replace servicecidrs {free}");
    check(&ranges, &[&[range("a", "10.1.0.0/24", going())], &[]], &[&freed]);
    let both = [range("a", "10.1.0.0/24", going()), range("b", "10.0.0.0/8", json!({}))];
    check(&ranges, &[&both, &[address]], &[&freed, &ready("b")]);
}

#[test]
fn served_versions_of_definitions_have_api_services() {
    let definition = |group: &str, versions: &[(&str, bool)]| {
        let versions: Vec<Value> =
            versions.iter().map(|(name, served)| json!({"name": name, "served": served})).collect();
        named("", &format!("things.{group}"), json!({"spec": {"group": group, "versions": versions}}))
    };
    let service = |name: &str, label: &str, priority: u32| {
        let (version, group) = name.split_once('.').unwrap();
        let spec =
            json!({"group": group, "version": version, "groupPriorityMinimum": priority, "versionPriority": 100});
        let labels = json!({"kube-aggregator.kubernetes.io/automanaged": label});
        named("", name, json!({"metadata": {"labels": labels}, "spec": spec}))
    };
    check(
        &registrations::Registrations,
        &[
            &[definition("a.io", &[("v1", true), ("v2", false), ("v3", true)]), definition("b.io", &[("v1", true)])],
            &[
                service("v1.a.io", "true", 7),
                service("v2.a.io", "true", 1000),
                service("v0.a.io", "", 1000),
                service("v1.b.io", "true", 1000),
                service("v1.apps", "onstart", 17800),
                service("v1.gone.io", "true", 1000),
            ],
        ],
        &[
            r#"replace apiservices {"metadata":{"name":"v1.a.io","namespace":"","uid":"v1.a.io-uid","labels":{"kube-aggregator.kubernetes.io/automanaged":"true"}},"spec":{"group":"a.io","version":"v1","groupPriorityMinimum":1000,"versionPriority":100}}"#,
            "delete apiservices v1.gone.io",
            "delete apiservices v2.a.io",
            r#"create apiservices {"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v3.a.io","labels":{"kube-aggregator.kubernetes.io/automanaged":"true"}},"spec":{"group":"a.io","version":"v3","groupPriorityMinimum":1000,"versionPriority":100}}"#,
        ],
    );
}
