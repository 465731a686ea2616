//! How many pods of a PodDisruptionBudget may go now: counts the healthy ones against what the budget and the scale of
//! their controllers ask for. Evicts nobody; that is the server's `eviction`, which takes from what is counted here.

use api::LabelSelector;
use std::collections::BTreeMap;
use std::time::Duration;

use api::meta;
use jiff::{SignedDuration, Timestamp};
use kemudi_client::{Api, Client, Dynamic, Error};
use serde_json::{Map, Value, json};

use crate::act::{self, Action};
use crate::control::{Controller, Source};
use crate::event;
use crate::kinds::{BUDGETS, DEPLOYMENTS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS};
use crate::lean::Lent;
use crate::mirror::{Key, Mirror};
use crate::resources::Resources;

const COMPONENT: &str = "controllermanager";
/// An evicted pod that is still there after this will stay.
const DELETION_SECONDS: i64 = 2 * 60;
/// A count that failed is tried again after this, if nothing happens before.
const FAILED_AGAIN: Duration = Duration::from_secs(30);

pub struct Disruption {
    resources: Resources,
}

impl Disruption {
    pub fn new(resources: Resources) -> Disruption {
        Disruption { resources }
    }
}

/// The sources.
const ALL_BUDGETS: usize = 0;
const ALL_PODS: usize = 1;
/// Kinds whose scale is known without asking: group, kind, source.
const SCALED: [(&str, &str, usize); 5] = [
    ("apps", "ReplicaSet", 2),
    ("extensions", "ReplicaSet", 2),
    ("apps", "Deployment", 3),
    ("", "ReplicationController", 4),
    ("apps", "StatefulSet", 5),
];
const ALL_REPLICA_SETS: usize = 2;
const ALL_DEPLOYMENTS: usize = 3;

impl Controller for Disruption {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn sources(&self) -> Vec<Source> {
        let workloads = [REPLICA_SETS, DEPLOYMENTS, REPLICATION_CONTROLLERS, STATEFUL_SETS];
        let lean = [Source::all(BUDGETS), Source::all(PODS).lean(lean_pod)];
        lean.into_iter().chain(workloads.map(|kind| Source::all(kind).lean(lean_workload))).collect()
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let namespace = meta::namespace(object);
        let key = |budget: &Value| (namespace.to_string(), meta::name(budget).to_string());
        match source {
            ALL_BUDGETS => vec![key(object)],
            // Which budgets were about it before its labels changed is not known any more.
            _ => seen[ALL_BUDGETS].of_namespace(namespace).map(key).collect(),
        }
    }

    fn decide_at(&self, (namespace, name): &Key, seen: &[Mirror], now: Timestamp) -> Vec<Action> {
        let Some(budget) = seen[ALL_BUDGETS].get(namespace, name).filter(|budget| !meta::is_deleting(budget)) else {
            return Vec::new();
        };
        let selector =
            budget["spec"]["selector"].as_object().and_then(|_| LabelSelector::of_object(&budget["spec"]["selector"]));
        let selected = |pod: &&Value| {
            selector.as_ref().is_some_and(|selector| selector.matches(|key| meta::entry(pod, "labels", key)))
        };
        let pods: Vec<&Value> = seen[ALL_PODS].of_namespace(namespace).filter(selected).collect();
        let mut actions = Vec::new();
        let mut tell = |kind, reason, message: String| {
            let about = event::reference("policy/v1", "PodDisruptionBudget", namespace, name, meta::uid(budget));
            actions.push(Action::Tell { component: COMPONENT, about, kind, reason, message });
        };
        if pods.is_empty() {
            tell("Normal", "NoPods", "No matching pods found".into());
        }
        let mut counted = Counted {
            budget: budget.clone(),
            pods: pods.len(),
            healthy: 0,
            disrupted: Map::new(),
            scale: Scale::default(),
            resources: self.resources.clone(),
        };
        if goes_by_scale(budget) {
            counted.scale = scale_of(&pods, namespace, seen);
            if counted.scale.unmanaged {
                tell("Warning", "UnmanagedPods", unmanaged(budget));
            }
            if let Some(why) = &counted.scale.failure {
                tell("Warning", "CalculateExpectedPodCountFailed", failed(why));
            }
        }
        let again = disrupted(&mut counted, &pods, now);
        let stays = |pod: &&&Value| {
            !meta::is_deleting(pod) && !counted.disrupted.contains_key(meta::name(pod)) && is_ready(pod)
        };
        counted.healthy = pods.iter().filter(stays).count();
        actions.extend(again.map(|after| Action::Again { after }));
        if counted.scale.failure.is_some() {
            actions.push(Action::Again { after: FAILED_AGAIN });
        }
        match counted.scale.ask.is_empty() {
            false => actions.push(Action::Budget(Box::new(counted))),
            true => {
                let expected = counted.expected();
                actions.extend(
                    settled(&counted, expected, now).map(|object| Action::ReplaceStatus { resource: BUDGETS, object }),
                );
            }
        }
        actions
    }
}

/// What was counted of a budget's pods.
pub struct Counted {
    budget: Value,
    pods: usize,
    healthy: usize,
    /// Evicted pods that are not gone yet, and since when.
    disrupted: Map<String, Value>,
    scale: Scale,
    resources: Resources,
}

/// How many pods their controllers want.
#[derive(Debug, Default)]
struct Scale {
    /// By the controllers' uids.
    known: BTreeMap<String, i64>,
    /// Controllers that have to be asked, with one of their pods.
    ask: Vec<(Value, String)>,
    unmanaged: bool,
    failure: Option<String>,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "count {}: {} healthy of {}, {:?}", meta::name(&self.budget), self.healthy, self.pods, self.scale)
    }
}

impl Counted {
    fn expected(&self) -> Result<i64, String> {
        match (&self.scale.failure, goes_by_scale(&self.budget)) {
            (Some(why), _) => Err(why.clone()),
            (None, true) => Ok(self.scale.known.values().sum()),
            (None, false) if self.budget["spec"]["minAvailable"].is_null() => Ok(0),
            (None, false) => Ok(self.pods.try_into().unwrap_or(i64::MAX)),
        }
    }
}

/// Asks the controllers whose scale was not known, and writes the status.
pub async fn count(client: &Client, mut counted: Counted) -> Result<(), Error> {
    let namespace = meta::namespace(&counted.budget).to_string();
    for (owner, pod) in std::mem::take(&mut counted.scale.ask) {
        match asked(client, &counted.resources, &namespace, &owner, &pod).await? {
            Ok(replicas) => drop(counted.scale.known.insert(meta::text_at(&owner, &["uid"]).to_string(), replicas)),
            Err(why) => counted.scale.failure = Some(why),
        }
    }
    let Some(object) = settled(&counted, counted.expected(), Timestamp::now()) else { return Ok(()) };
    if let Some(why) = &counted.scale.failure {
        let (name, uid) = (meta::name(&counted.budget), meta::uid(&counted.budget));
        let about = event::reference("policy/v1", "PodDisruptionBudget", &namespace, name, uid);
        let (reason, message) = ("CalculateExpectedPodCountFailed", failed(why));
        let happened = event::Happened { kind: "Warning", reason, message: &message };
        event::tell(client, COMPONENT, about, happened).await;
    }
    act::replace_status(client, &BUDGETS, object).await
}

/// The replicas that a controller of any kind is scaled to, or why that is not known.
async fn asked(
    client: &Client,
    resources: &Resources,
    namespace: &str,
    owner: &Value,
    pod: &str,
) -> Result<Result<i64, String>, Error> {
    let (version, kind, name) =
        (meta::text_at(owner, &["apiVersion"]), meta::text_at(owner, &["kind"]), meta::text_at(owner, &["name"]));
    let all = resources.get().await;
    let Some(found) = all.of_kind(version, kind) else {
        return Ok(Err(format!("no matches for kind {kind:?} in version {version:?}")));
    };
    if !found.subresources.iter().any(|sub| sub == "scale") {
        let of = match &*found.resource.group {
            "" => found.resource.plural.to_string(),
            group => format!("{}.{group}", found.resource.plural),
        };
        return Ok(Err(format!("{of} does not implement the scale subresource")));
    }
    let api = Api::<Dynamic>::namespaced_of(client.clone(), namespace, &found.resource);
    let scale: Value = match api.get_subresource(name, "scale").await {
        Err(error) if error.is_not_found() => return Ok(Err(no_controller(pod))),
        answer => answer?,
    };
    match meta::uid(&scale) == meta::text_at(owner, &["uid"]) {
        true => Ok(Ok(scale["spec"]["replicas"].as_i64().unwrap_or(0))),
        false => Ok(Err(no_controller(pod))),
    }
}

/// A percentage, and what may be missing, are of what the controllers want; a number of pods is of those that are there.
fn goes_by_scale(budget: &Value) -> bool {
    let spec = &budget["spec"];
    !spec["maxUnavailable"].is_null() || spec["minAvailable"].is_string()
}

fn scale_of(pods: &[&Value], namespace: &str, seen: &[Mirror]) -> Scale {
    let mut scale = Scale::default();
    for pod in pods {
        let Some(owner) = controller_of(pod) else {
            scale.unmanaged = true;
            continue;
        };
        let uid = meta::text_at(owner, &["uid"]);
        let asks = |ask: &(Value, String)| meta::text_at(&ask.0, &["uid"]) == uid;
        if scale.known.contains_key(uid) || scale.ask.iter().any(asks) {
            continue;
        }
        let group = meta::group_of(meta::text_at(owner, &["apiVersion"]));
        let source = SCALED.iter().find(|(g, kind, _)| *g == group && *kind == meta::text_at(owner, &["kind"]));
        let Some((_, _, source)) = source else {
            scale.ask.push((owner.clone(), meta::name(pod).to_string()));
            continue;
        };
        let there = |source: usize, owner: &Value| {
            let found = seen[source].get(namespace, meta::text_at(owner, &["name"]));
            found.filter(|found| meta::uid(found) == meta::text_at(owner, &["uid"]))
        };
        let mut found = there(*source, owner);
        // The replicas of a set that a Deployment has are the Deployment's.
        if let (ALL_REPLICA_SETS, Some(set)) = (*source, found)
            && let Some(above) = controller_of(set).filter(|above| meta::text_at(above, &["kind"]) == "Deployment")
        {
            found = there(ALL_DEPLOYMENTS, above);
        }
        match found {
            Some(found) => {
                let replicas = found["spec"]["replicas"].as_i64().unwrap_or(0);
                scale.known.insert(meta::uid(found).to_string(), replicas);
            }
            None => scale.failure = Some(no_controller(meta::name(pod))),
        }
    }
    scale
}

/// Keeps of the evicted pods those that may still go; says when the first of them has had its time.
fn disrupted(counted: &mut Counted, pods: &[&Value], now: Timestamp) -> Option<Duration> {
    let since = counted.budget["status"]["disruptedPods"].as_object().cloned().unwrap_or_default();
    let mut first: Option<Duration> = None;
    for pod in pods.iter().filter(|pod| !meta::is_deleting(pod)) {
        let name = meta::name(pod);
        let Some(at) = since.get(name).and_then(Value::as_str).and_then(|at| at.parse::<Timestamp>().ok()) else {
            continue;
        };
        let left = (at + SignedDuration::from_secs(DELETION_SECONDS)).duration_since(now);
        if left.is_positive() {
            let left = Duration::try_from(left).unwrap_or_default();
            first = Some(first.map_or(left, |first| first.min(left)));
            counted.disrupted.insert(name.to_string(), since[name].clone());
        }
    }
    first
}

/// The budget with its new status; none where it has that already.
fn settled(counted: &Counted, expected: Result<i64, String>, now: Timestamp) -> Option<Value> {
    let budget = &counted.budget;
    let generation = &budget["metadata"]["generation"];
    let healthy = i64::try_from(counted.healthy).unwrap_or(i64::MAX);
    let mut new = budget.clone();
    let condition = match expected {
        Ok(expected) => {
            let desired = desired(budget, expected);
            let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
            let conditions = budget["status"]["conditions"].clone();
            new["status"] = json!({
                "observedGeneration": generation, "disruptionsAllowed": allowed, "currentHealthy": healthy,
                "desiredHealthy": desired, "expectedPods": expected,
            });
            if !counted.disrupted.is_empty() {
                new["status"]["disruptedPods"] = json!(counted.disrupted);
            }
            if conditions.is_array() {
                new["status"]["conditions"] = conditions;
            }
            match allowed > 0 {
                true => ("True", "SufficientPods", String::new()),
                false => ("False", "InsufficientPods", String::new()),
            }
        }
        // What cannot be counted is not to be disrupted.
        Err(why) => {
            new["status"]["disruptionsAllowed"] = json!(0);
            ("False", "SyncFailed", why)
        }
    };
    set_condition(&mut new["status"], condition, generation, now);
    (new["status"] != budget["status"]).then_some(new)
}

fn set_condition(
    status: &mut Value,
    (holds, reason, message): (&str, &str, String),
    generation: &Value,
    now: Timestamp,
) {
    const TYPE: &str = "DisruptionAllowed";
    let mut conditions = meta::items_at(status, &["conditions"]).to_vec();
    let old = conditions.iter_mut().find(|condition| condition["type"] == TYPE);
    let since = match &old {
        Some(old) if old["status"] == holds => old["lastTransitionTime"].clone(),
        _ => json!(event::time(now)),
    };
    let condition = json!({
        "type": TYPE, "status": holds, "observedGeneration": generation, "lastTransitionTime": since,
        "reason": reason, "message": message,
    });
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = json!(conditions);
}

/// How many healthy pods there are to be, of those expected.
fn desired(budget: &Value, expected: i64) -> i64 {
    let spec = &budget["spec"];
    match (scaled(&spec["maxUnavailable"], expected), scaled(&spec["minAvailable"], expected)) {
        (Some(unavailable), _) => (expected - unavailable).max(0),
        (None, Some(available)) => available,
        (None, None) => 0,
    }
}

/// A number, or a percentage of a number, rounded up.
fn scaled(value: &Value, of: i64) -> Option<i64> {
    let percent = |text: &str| text.strip_suffix('%')?.parse::<i64>().ok();
    match value {
        Value::String(text) => percent(text).map(|percent| (percent * of + 99).div_euclid(100)),
        other => other.as_i64(),
    }
}

fn controller_of(object: &Value) -> Option<&Value> {
    meta::items_at(object, &["metadata", "ownerReferences"]).iter().find(|owner| owner["controller"] == true)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = meta::items_at(pod, &["status", "conditions"]);
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn no_controller(pod: &str) -> String {
    format!("found no controllers for pod {pod:?}")
}

fn failed(why: &str) -> String {
    format!("Failed to calculate the number of expected pods: {why}")
}

fn unmanaged(budget: &Value) -> String {
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
        go_selector(&budget["spec"]["selector"])
    )
}

/// A selector as Go prints it.
fn go_selector(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut labels: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {},", text(value)))
        .collect();
    labels.sort();
    let terms: String = meta::items_at(selector, &["matchExpressions"])
        .iter()
        .map(|term| {
            let values: Vec<String> = meta::items_at(term, &["values"]).iter().map(text).collect();
            let (key, operator) = (text(&term["key"]), text(&term["operator"]));
            format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}",
        labels.join("")
    )
}

pub fn lean_pod(pod: &Value) -> Option<Lent<'_>> {
    const METADATA: [&str; 6] = ["name", "namespace", "uid", "labels", "ownerReferences", "deletionTimestamp"];
    let status = Lent::Text(if is_ready(pod) { "True" } else { "False" });
    let ready = Lent::object([("type", Lent::Text("Ready")), ("status", status)]);
    Some(Lent::object([
        ("metadata", Lent::metadata(pod, &METADATA)),
        ("status", Lent::object([("conditions", Lent::List(vec![ready]))])),
    ]))
}

fn lean_workload(workload: &Value) -> Option<Lent<'_>> {
    let replicas = Lent::Part(&workload["spec"]["replicas"]);
    Some(Lent::object([
        ("metadata", Lent::metadata(workload, &["name", "namespace", "uid", "ownerReferences"])),
        ("spec", Lent::object([("replicas", replicas)])),
    ]))
}
