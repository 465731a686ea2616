//! The levels and schemas that every cluster begins with, kept as the API server keeps them: the mandatory ones always as they
//! are, the suggested ones unless somebody has said that they are theirs. And every schema's condition that tells whether it
//! leads anywhere. Writes through the same code as any client, and takes no part in finding seats.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::meta;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{GROUP, LEVELS, SCHEMAS};
use crate::as_controller::{Sender, send};
use crate::bootstrap_objects;
use crate::lookup::Lookup;
use crate::state::State;

pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

const DATA: &str = include_str!("bootstrap.json");
const VERSION: &str = "v1";
/// `"false"`, set by an administrator, leaves a suggested object to them.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Changes that come this soon after each other are looked at once.
const PAUSE: Duration = Duration::from_millis(20);
/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// An object, and whether nobody may change it.
struct Made {
    resource: &'static str,
    mandatory: bool,
    object: Value,
}

static ALL: LazyLock<Vec<Made>> = LazyLock::new(objects);

/// The objects without which no request would find its place.
pub fn mandatory() -> impl Iterator<Item = (&'static str, &'static Value)> {
    ALL.iter().filter(|made| made.mandatory).map(|made| (made.resource, &made.object))
}

/// All objects, mandatory and suggested.
#[cfg(test)]
pub fn all() -> impl Iterator<Item = (&'static str, &'static Value)> {
    ALL.iter().map(|made| (made.resource, &made.object))
}

/// Keeps the objects until the server stops.
pub async fn run(state: Arc<State>) {
    let mut changes = Vec::new();
    for resource in [LEVELS, SCHEMAS] {
        let kind = state.registry.load().preferred(GROUP, resource).cloned();
        let collection = kind.and_then(|kind| state.collection(&kind).ok());
        changes.extend(collection.map(|collection| collection.subscribe()));
    }
    let [mut levels, mut schemas] = match <[_; 2]>::try_from(changes) {
        Ok(both) => both,
        Err(_) => return state.flow.made.cancel(),
    };
    loop {
        levels.borrow_and_update();
        schemas.borrow_and_update();
        let mut well = ensure(&state).await;
        // Requests may come: what they need of this is there, or cannot be made.
        state.flow.made.cancel();
        well &= tell_of_dangling(&state).await;
        let changed = async {
            tokio::select! {
                changed = levels.changed() => changed.is_ok(),
                changed = schemas.changed() => changed.is_ok(),
            }
        };
        tokio::select! {
            () = state.stopping.cancelled() => return,
            () = tokio::time::sleep(RETRY_PAUSE), if !well => {}
            more = changed => if !more { return },
        }
        if state.stopping.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

/// Puts in place what is missing or was changed. Answers whether all that had to be written was.
async fn ensure(state: &Arc<State>) -> bool {
    let writes = ALL.iter().filter_map(|made| {
        let present = state.get(GROUP, made.resource, "", meta::name(&made.object));
        reconciled(made, present.as_deref()).map(|object| write(state, made.resource, present.is_none(), object))
    });
    futures_util::future::join_all(writes).await.into_iter().all(|done| done)
}

/// What an object must become; none where it may stay as it is.
fn reconciled(made: &Made, present: Option<&Value>) -> Option<Value> {
    let Some(present) = present else { return Some(made.object.clone()) };
    let autoupdate = match meta::entry(present, "annotations", AUTOUPDATE) {
        _ if made.mandatory => true,
        Some(given) => given == "true",
        // Who made it said nothing: as long as nobody has changed it, it is kept up to date.
        None => present["metadata"]["generation"].as_i64() == Some(1),
    };
    let mut wanted = present.clone();
    let metadata = meta::metadata_mut(&mut wanted);
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if made.mandatory || meta::entry(present, "annotations", AUTOUPDATE).is_none() {
        annotations[AUTOUPDATE] = json!(autoupdate.to_string());
    }
    if autoupdate {
        wanted["spec"] = made.object["spec"].clone();
    }
    (wanted["spec"] != present["spec"] || wanted["metadata"]["annotations"] != present["metadata"]["annotations"])
        .then_some(wanted)
}

async fn write(state: &Arc<State>, resource: &str, create: bool, object: Value) -> bool {
    let collection = format!("/apis/{GROUP}/{VERSION}/{resource}");
    let (method, path) = match create {
        true => (Method::POST, collection),
        false => (Method::PUT, format!("{collection}/{}", meta::name(&object))),
    };
    send_as_server(state, method, &format!("{path}?fieldManager={PRODUCER}"), "application/json", &object).await
}

/// Says of each schema whether the level it leads to is there.
async fn tell_of_dangling(state: &Arc<State>) -> bool {
    let mut writes = Vec::new();
    for schema in state.list(GROUP, SCHEMAS) {
        let level = meta::text_at(&schema, &["spec", "priorityLevelConfiguration", "name"]);
        let mandatory = [EXEMPT, CATCH_ALL].contains(&level);
        let exists = mandatory || state.identity(GROUP, LEVELS, "", level).is_some();
        let Some(condition) = condition(&schema, level, exists) else { continue };
        let name = meta::name(&schema).to_string();
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "FlowSchema",
            "metadata": {"name": name},
            "status": {"conditions": [condition]},
        });
        writes.push(async move {
            let path = format!("/apis/{GROUP}/{VERSION}/{SCHEMAS}/{name}/status?fieldManager={CONSUMER}&force=true");
            send_as_server(state, Method::PATCH, &path, "application/apply-patch+yaml", &object).await
        });
    }
    futures_util::future::join_all(writes).await.into_iter().all(|done| done)
}

/// The condition that a schema should have; none where it has it.
fn condition(schema: &Value, level: &str, exists: bool) -> Option<Value> {
    let (status, reason, what) = match exists {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let level = api::go::quote(level);
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level} {what}");
    let is = |condition: &Value| condition["type"] == "Dangling";
    let present = meta::items_at(schema, &["status", "conditions"]).iter().find(|condition| is(condition));
    let same = |present: &&Value| {
        present["status"] == status && present["reason"] == reason && present["message"] == message.as_str()
    };
    if present.is_some_and(|present| same(&present)) {
        return None;
    }
    let since = present.filter(|present| present["status"] == status).map(|present| &present["lastTransitionTime"]);
    let now = json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    Some(json!({
        "type": "Dangling",
        "status": status,
        "lastTransitionTime": since.cloned().unwrap_or(now),
        "reason": reason,
        "message": message,
    }))
}

/// Answers whether it need not be tried again: whoever was faster is heard of anyway.
async fn send_as_server(state: &Arc<State>, method: Method, path: &str, content_type: &str, object: &Value) -> bool {
    let sender = Sender { user: bootstrap_objects::api_server(), agent: bootstrap_objects::USER_AGENT };
    let answered = send(state, sender, method, path, content_type, object).await;
    let raced = [StatusCode::CONFLICT, StatusCode::NOT_FOUND].contains(&answered);
    if !answered.is_success() && !raced {
        tracing::warn!(path, code = answered.as_u16(), "cannot write what priority and fairness begins with");
    }
    answered.is_success() || raced
}

fn objects() -> Vec<Made> {
    let data: Map<String, Value> = serde_json::from_str(DATA).unwrap_or_default();
    let section = |name: &str| data.get(name).and_then(Value::as_array).into_iter().flatten();
    let made = |resource, given: &Value, kind: &str, spec: Value| Made {
        resource,
        mandatory: given["mandatory"] == true,
        object: json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": kind,
            "metadata": {"name": given["name"], "annotations": {AUTOUPDATE: "true"}},
            "spec": spec,
        }),
    };
    let levels = section("levels").map(|given| made(LEVELS, given, "PriorityLevelConfiguration", level(given)));
    let schemas = section("schemas").map(|given| made(SCHEMAS, given, "FlowSchema", schema(given)));
    levels.chain(schemas).collect()
}

fn level(given: &Value) -> Value {
    const QUEUE_LENGTH: u32 = 50;
    if given["shares"].is_null() {
        return json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    }
    let response = match given["queues"].is_null() {
        true => json!({"type": "Reject"}),
        false => json!({
            "type": "Queue",
            "queuing": {"queues": given["queues"], "handSize": given["hand"], "queueLengthLimit": QUEUE_LENGTH},
        }),
    };
    json!({
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": given["shares"],
            "limitResponse": response,
            "lendablePercent": given["lendable"],
        },
    })
}

fn schema(given: &Value) -> Value {
    let named = |field: &str, make: &dyn Fn(&Value) -> Value| -> Vec<Value> {
        meta::items_at(given, &[field]).iter().map(make).collect()
    };
    let mut subjects = named("users", &|name| json!({"kind": "User", "user": {"name": name}}));
    subjects.extend(named("groups", &|name| json!({"kind": "Group", "group": {"name": name}})));
    let account = |name: &Value| json!({"namespace": "kube-system", "name": name});
    subjects.extend(named("accounts", &|name| json!({"kind": "ServiceAccount", "serviceAccount": account(name)})));
    let mut rule = json!({"subjects": subjects});
    let everything = given["resources"].is_null() && given["paths"].is_null();
    if everything {
        rule["resourceRules"] = json!([{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
        }]);
        rule["nonResourceRules"] = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    }
    let resources = named("resources", &|of| {
        let mut rule = json!({"verbs": of["verbs"], "apiGroups": [of["group"]], "resources": of["resources"]});
        if of["clusterScope"] == true {
            rule["clusterScope"] = json!(true);
        }
        rule["namespaces"] = json!(["*"]);
        rule
    });
    if !resources.is_empty() {
        rule["resourceRules"] = json!(resources);
    }
    if !given["paths"].is_null() {
        rule["nonResourceRules"] = json!([{"verbs": ["get"], "nonResourceURLs": given["paths"]}]);
    }
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": given["level"]},
        "matchingPrecedence": given["precedence"],
    });
    if !given["by"].is_null() {
        spec["distinguisherMethod"] = json!({"type": given["by"]});
    }
    spec["rules"] = json!([rule]);
    spec
}
