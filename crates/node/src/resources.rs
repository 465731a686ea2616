//! What pods and containers may use, as control groups take it: from requests and limits to numbers, classes of quality, and
//! what a change of them comes to. Pure.

use crate::cgroups::{CPU_PERIOD_MICROS, Limits};
use crate::pod::{Container, Pod, Resources};
use kinds::quantity::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Processes and threads of one pod, whatever it asks for: a pod that multiplies without end stops itself, not the machine.
pub const POD_PIDS_MAX: u64 = 4096;

/// Shares of the processors that stand for one of them, and the least.
const SHARES_PER_CPU: u64 = 1024;
const SHARES_MIN: u64 = 2;
/// The least time of each period that the kernel takes for a quota, in microseconds.
const QUOTA_MICROS_MIN: u64 = 1000;

/// What the kernel is told of whom to end first where the whole machine is short of memory.
const SCORE_GUARANTEED: i32 = -997;
const SCORE_BEST_EFFORT: i32 = 1000;

/// A pod's class: what it may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    Guaranteed,
    Burstable,
    BestEffort,
}

/// The quality of service of a pod, of its requests and limits of processors and memory.
pub fn quality(pod: &Pod) -> Quality {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers).map(|it| &it.resources);
    let all: Vec<&Resources> = match is_set(&pod.spec.resources) {
        true => vec![&pod.spec.resources],
        false => containers.collect(),
    };
    if !all.iter().any(|it| is_set(it)) {
        return Quality::BestEffort;
    }
    let guaranteed = |it: &&Resources| {
        ["cpu", "memory"].into_iter().all(|name| match (milli(&it.limits, name), milli(&it.requests, name)) {
            (Some(limit), Some(request)) => limit == request,
            (Some(_), None) => true,
            (None, _) => false,
        })
    };
    if all.iter().all(guaranteed) { Quality::Guaranteed } else { Quality::Burstable }
}

fn is_set(resources: &Resources) -> bool {
    let some = |map: &BTreeMap<String, Value>| ["cpu", "memory"].iter().any(|name| milli(map, name).unwrap_or(0) > 0);
    some(&resources.requests) || some(&resources.limits)
}

/// What one container is held to.
pub fn of_container(resources: &Resources) -> Limits {
    let cpu = milli(&resources.limits, "cpu").filter(|cpu| *cpu > 0);
    Limits {
        memory_bytes: bytes(&resources.limits, "memory"),
        cpu_shares: shares(milli(&resources.requests, "cpu").or(cpu).unwrap_or(0)),
        cpu_quota_micros: cpu.map(quota),
        pids: None,
    }
}

/// What a pod is promised of a node: thousandths of processors, and bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
}

impl Promise {
    /// Both together.
    pub fn and(self, other: Promise) -> Promise {
        Promise {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
}

/// What a pod is promised while it may have these resources by the container's name.
pub fn promise(pod: &Pod, allocated: &BTreeMap<String, Resources>) -> Promise {
    let own = &pod.spec.resources.requests;
    let sum = |get: &dyn Fn(&Resources) -> Option<u64>| -> u64 {
        let of = |container: &Arc<Container>| {
            get(allocated.get(&container.name).unwrap_or(&container.resources)).unwrap_or(0)
        };
        let (beside, before): (Vec<_>, Vec<_>) = pod.spec.init_containers.iter().partition(|it| it.is_sidecar());
        let beside: u64 = beside.into_iter().map(of).sum();
        let main: u64 = pod.spec.containers.iter().map(of).sum();
        before.into_iter().map(|it| of(it) + beside).max().unwrap_or(0).max(main + beside)
    };
    Promise {
        cpu_milli: milli(own, "cpu").unwrap_or_else(|| sum(&|it| milli(&it.requests, "cpu"))),
        memory_bytes: bytes(own, "memory").unwrap_or_else(|| sum(&|it| bytes(&it.requests, "memory"))),
    }
}

/// Why a node with so much cannot give a pod more than it has while others have what they have, in the kubelet's words.
pub fn deferred(
    asked: Promise,
    has: Promise,
    others: Promise,
    allocatable: &BTreeMap<String, String>,
) -> Option<String> {
    let there = |name: &str| allocatable.get(name).and_then(|text| Quantity::parse(text).ok());
    let number = |it: Option<i64>| it.map_or(u64::MAX, |it| u64::try_from(it).unwrap_or(0));
    let cpu = number(there("cpu").map(|it| it.milli_value()));
    let memory = number(there("memory").map(|it| it.value()));
    let all = [
        ("cpu", asked.cpu_milli, has.cpu_milli, others.cpu_milli, cpu),
        ("memory", asked.memory_bytes, has.memory_bytes, others.memory_bytes, memory),
    ];
    // Who gives something back is never kept from it.
    let short =
        all.into_iter().find(|(_, asked, has, used, there)| asked > has && *asked > there.saturating_sub(*used));
    short.map(|(what, asked, _, used, there)| {
        format!("Node didn't have enough resource: {what}, requested: {asked}, used: {used}, capacity: {there}")
    })
}

/// What all of a pod is held to together, while it may have these resources by the container's name.
pub fn of_pod(pod: &Pod, allocated: &BTreeMap<String, Resources>) -> Limits {
    let of =
        |container: &Arc<Container>| allocated.get(&container.name).cloned().unwrap_or(container.resources.clone());
    let main: Vec<Resources> = pod.spec.containers.iter().map(of).collect();
    let (beside, before): (Vec<_>, Vec<_>) = pod.spec.init_containers.iter().partition(|it| it.is_sidecar());
    let beside: Vec<Resources> = beside.into_iter().map(of).collect();
    let before: Vec<Resources> = before.into_iter().map(of).collect();
    let together = || main.iter().chain(&beside);
    // Init containers run one after the other, each beside the sidecars; the largest of them counts.
    let most = |get: &dyn Fn(&Resources) -> u64| {
        let running: u64 = together().map(get).sum();
        let sidecars: u64 = beside.iter().map(get).sum();
        before.iter().map(|it| get(it) + sidecars).max().unwrap_or(0).max(running)
    };
    let own = &pod.spec.resources;
    let requested = |it: &Resources| milli(&it.requests, "cpu").or(milli(&it.limits, "cpu")).unwrap_or(0);
    let all = |name: &str| together().chain(&before).all(|it| milli(&it.limits, name).unwrap_or(0) > 0);
    let cpu =
        milli(&own.limits, "cpu").or_else(|| all("cpu").then(|| most(&|it| milli(&it.limits, "cpu").unwrap_or(0))));
    let memory = bytes(&own.limits, "memory")
        .or_else(|| all("memory").then(|| most(&|it| bytes(&it.limits, "memory").unwrap_or(0))));
    Limits {
        memory_bytes: memory,
        cpu_shares: shares(milli(&own.requests, "cpu").unwrap_or_else(|| most(&requested))),
        cpu_quota_micros: cpu.filter(|cpu| *cpu > 0).map(quota),
        pids: Some(POD_PIDS_MAX),
    }
}

/// How willing the kernel shall be to end a container where the machine is short of memory, which has so many bytes of it.
pub fn oom_score(pod: &Pod, container: &Container, machine_bytes: u64) -> i32 {
    match quality(pod) {
        Quality::Guaranteed => SCORE_GUARANTEED,
        Quality::BestEffort => SCORE_BEST_EFFORT,
        Quality::Burstable => {
            let asked = bytes(&container.resources.requests, "memory").unwrap_or(0);
            let part = asked.saturating_mul(1000).checked_div(machine_bytes).unwrap_or(0);
            // Never below what is guaranteed, never as high as what asked for nothing.
            (1000 - i32::try_from(part).unwrap_or(1000)).clamp(1000 + SCORE_GUARANTEED, SCORE_BEST_EFFORT - 1)
        }
    }
}

/// What the agent has to allow a pod's containers of that, where it is below zero.
pub fn least_oom_score(pod: &Pod) -> i32 {
    if quality(pod) == Quality::Guaranteed { SCORE_GUARANTEED } else { 0 }
}

/// Why a node with so much can never give a pod what it asks for now, in the kubelet's words.
pub fn infeasible(pod: &Pod, allocatable: &BTreeMap<String, String>) -> Option<String> {
    let asked = |get: &dyn Fn(&Resources) -> u64| -> u64 {
        let beside = pod.spec.init_containers.iter().filter(|it| it.is_sidecar());
        pod.spec.containers.iter().chain(beside).map(|it| get(&it.resources)).sum()
    };
    let has = |name: &str| allocatable.get(name).and_then(|text| Quantity::parse(text).ok());
    let memory = asked(&|it| bytes(&it.requests, "memory").unwrap_or(0));
    let cpu = asked(&|it| milli(&it.requests, "cpu").unwrap_or(0));
    let memory_there = has("memory").map_or(u64::MAX, |it| u64::try_from(it.value()).unwrap_or(0));
    let cpu_there = has("cpu").map_or(u64::MAX, |it| u64::try_from(it.milli_value()).unwrap_or(0));
    let words = |what, asked, there| {
        Some(format!("Node didn't have enough capacity: {what}, requested: {asked}, capacity: {there}"))
    };
    if memory > memory_there {
        return words("memory", memory, memory_there);
    }
    if cpu > cpu_there { words("cpu", cpu, cpu_there) } else { None }
}

/// Whether a container is started anew for a change from one to the other.
pub fn restarts_for(container: &Container, from: &Resources, to: &Resources) -> bool {
    let changed = |name: &str| {
        let get = |it: &Resources| (milli(&it.limits, name), milli(&it.requests, name));
        get(from) != get(to)
    };
    let anew = |policy: &crate::pod::ResizePolicy| policy.restart_policy == "RestartContainer";
    container.resize_policy.iter().any(|policy| anew(policy) && changed(&policy.resource_name))
}

/// Whether both say the same of processors and memory.
pub fn same(a: &Resources, b: &Resources) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        milli(&a.limits, name) == milli(&b.limits, name) && milli(&a.requests, name) == milli(&b.requests, name)
    })
}

/// What events tell of a change of a pod's resources.
pub fn summary(pod: &Pod, error: Option<&str>) -> String {
    let list = |containers: &[Arc<Container>]| -> Vec<Value> {
        containers.iter().map(|it| json!({"name": it.name, "resources": it.resources})).collect()
    };
    let mut summary = json!({});
    let sidecars: Vec<Arc<Container>> = pod.spec.init_containers.iter().filter(|it| it.is_sidecar()).cloned().collect();
    if !sidecars.is_empty() {
        summary["initContainers"] = list(&sidecars).into();
    }
    summary["containers"] = list(&pod.spec.containers).into();
    summary["generation"] = pod.metadata.generation.into();
    if let Some(error) = error {
        summary["error"] = error.into();
    }
    summary.to_string()
}

fn shares(milli: u64) -> u64 {
    (milli * SHARES_PER_CPU / 1000).max(SHARES_MIN)
}

fn quota(milli: u64) -> u64 {
    (milli * CPU_PERIOD_MICROS / 1000).max(QUOTA_MICROS_MIN)
}

fn quantity(map: &BTreeMap<String, Value>, name: &str) -> Option<Quantity> {
    let value = map.get(name)?;
    Quantity::parse(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)).ok()
}

fn milli(map: &BTreeMap<String, Value>, name: &str) -> Option<u64> {
    quantity(map, name).map(|it| u64::try_from(it.milli_value()).unwrap_or(0))
}

fn bytes(map: &BTreeMap<String, Value>, name: &str) -> Option<u64> {
    quantity(map, name).map(|it| u64::try_from(it.value()).unwrap_or(0)).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"generation": 2}, "spec": spec})).unwrap()
    }

    fn asking(requests: Value, limits: Value) -> Value {
        json!({"name": "a", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn numbers_of_containers_and_pods() {
        let check = |spec: Value, container: &str, whole: &str| {
            let pod = pod(spec);
            let text = |it: Limits| {
                let or = |limit: Option<u64>| limit.map_or("-".into(), |limit| limit.to_string());
                format!("memory {} shares {} quota {}", or(it.memory_bytes), it.cpu_shares, or(it.cpu_quota_micros))
            };
            let first = pod.spec.containers[0].resources.clone();
            assert_eq!(
                (text(of_container(&first)).as_str(), text(of_pod(&pod, &BTreeMap::new())).as_str()),
                (container, whole)
            );
            assert_eq!(of_pod(&pod, &BTreeMap::new()).pids, Some(POD_PIDS_MAX));
        };
        let nothing = || asking(json!({}), json!({}));
        let some = || asking(json!({"cpu": "100m"}), json!({"cpu": "500m", "memory": "1Mi"}));
        check(json!({"containers": [nothing()]}), "memory - shares 2 quota -", "memory - shares 2 quota -");
        check(
            json!({"containers": [some()]}),
            "memory 1048576 shares 102 quota 50000",
            "memory 1048576 shares 102 quota 50000",
        );
        // One without limits leaves the pod without.
        check(
            json!({"containers": [some(), nothing()]}),
            "memory 1048576 shares 102 quota 50000",
            "memory - shares 102 quota -",
        );
        let large = asking(json!({"cpu": 1}), json!({"cpu": 1, "memory": "4Mi"}));
        check(
            json!({"containers": [some(), some()], "initContainers": [large]}),
            "memory 1048576 shares 102 quota 50000",
            "memory 4194304 shares 1024 quota 100000",
        );
        check(
            json!({"containers": [nothing()], "resources": {"limits": {"cpu": "10m", "memory": "3Mi"}, "requests": {"cpu": "10m"}}}),
            "memory - shares 2 quota -",
            "memory 3145728 shares 10 quota 1000",
        );
    }

    #[test]
    fn classes_and_scores() {
        let check = |container: Value, class: Quality, score: i32| {
            let pod = pod(json!({"containers": [container]}));
            assert_eq!((quality(&pod), oom_score(&pod, &pod.spec.containers[0], 1 << 30)), (class, score));
        };
        check(asking(json!({}), json!({})), Quality::BestEffort, 1000);
        check(asking(json!({"memory": "512Mi"}), json!({})), Quality::Burstable, 500);
        check(asking(json!({"cpu": 1}), json!({})), Quality::Burstable, 999);
        let both = || json!({"cpu": 1, "memory": "1Gi"});
        check(asking(both(), both()), Quality::Guaranteed, -997);
        check(asking(json!({}), json!({"cpu": 1})), Quality::Burstable, 999);
    }

    #[test]
    fn what_a_change_comes_to() {
        let allocatable =
            [("cpu", "2"), ("memory", "1Gi")].map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let check = |container: Value, expected: Option<&str>| {
            assert_eq!(infeasible(&pod(json!({"containers": [container]})), &allocatable).as_deref(), expected);
        };
        check(asking(json!({"cpu": 2}), json!({})), None);
        check(
            asking(json!({"cpu": 2.5}), json!({})),
            Some("Node didn't have enough capacity: cpu, requested: 2500, capacity: 2000"),
        );
        check(
            asking(json!({"memory": "2Gi"}), json!({})),
            Some("Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824"),
        );
        let whole = |containers: Value| promise(&pod(json!({"containers": containers})), &BTreeMap::new());
        let promise = |cpu_milli, mebibytes: u64| Promise { cpu_milli, memory_bytes: mebibytes << 20 };
        let both = json!([asking(json!({"cpu": "1500m"}), json!({})), asking(json!({"memory": "1Mi"}), json!({}))]);
        assert_eq!(whole(both), promise(1500, 1));
        let check = |asked, has, others, expected: Option<&str>| {
            assert_eq!(deferred(asked, has, others, &allocatable).as_deref(), expected);
        };
        check(promise(1500, 512), promise(100, 256), promise(500, 512), None);
        check(
            promise(1500, 512),
            promise(100, 256),
            promise(501, 512),
            Some("Node didn't have enough resource: cpu, requested: 1500, used: 501, capacity: 2000"),
        );
        check(
            promise(100, 512),
            promise(100, 256),
            promise(5000, 513),
            Some(
                "Node didn't have enough resource: memory, requested: 536870912, used: 537919488, capacity: 1073741824",
            ),
        );
        check(promise(100, 256), promise(200, 256), promise(5000, 5000), None);
        let container: Container = serde_json::from_value(json!({"name": "a", "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}))
        .unwrap();
        let of = |limits: Value| -> Resources { serde_json::from_value(json!({"limits": limits})).unwrap() };
        let from = of(json!({"cpu": 1, "memory": "1Mi"}));
        assert!(!restarts_for(&container, &from, &of(json!({"cpu": 2, "memory": "1024Ki"}))));
        assert!(restarts_for(&container, &from, &of(json!({"cpu": 1, "memory": "2Mi"}))));
        assert!(same(&from, &of(json!({"cpu": "1000m", "memory": 1048576}))));
        let told = summary(&pod(json!({"containers": [asking(json!({}), json!({"cpu": 1}))]})), None);
        assert_eq!(told, r#"{"containers":[{"name":"a","resources":{"limits":{"cpu":1}}}],"generation":2}"#);
    }
}
