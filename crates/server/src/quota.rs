//! ResourceQuota: what a namespace may use. Writes are charged to the quotas of their namespace before they are made; a task
//! counts again what is there, because objects go without asking. What objects count for is the kinds' matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Status, WriteOptions, meta};
use kinds::builtin::usage::{self, Usage};
use kinds::quantity::Quantity;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::as_controller;
use crate::lookup::Lookup;
use crate::serve::Cx;
use crate::state::State;
use crate::verbs::At;
use crate::verbs::write::{Part, change_object};

const PLURAL: &str = "resourcequotas";
/// Changes that come this soon after each other are counted once.
const PAUSE: Duration = Duration::from_millis(20);
/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Between a charge and the write that it is for, nothing is counted: what is charged and not there yet would be taken for
/// free. One lock for each namespace that has quotas.
#[derive(Default)]
pub struct Counting(Mutex<HashMap<String, Arc<RwLock<()>>>>);

/// Held from a charge until its write is made.
pub struct Charged(#[allow(dead_code, reason = "held, never read")] OwnedRwLockReadGuard<()>);

impl Counting {
    fn lock(&self, namespace: &str) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(namespace.to_owned()).or_default().clone()
    }

    async fn charge(&self, namespace: &str) -> Charged {
        Charged(self.lock(namespace).read_owned().await)
    }

    async fn count(&self, namespace: &str) -> OwnedRwLockWriteGuard<()> {
        self.lock(namespace).write_owned().await
    }

    /// Forgets the namespaces that have no quotas any more; nobody holds a lock that only the map knows.
    fn keep(&self, namespaces: &BTreeSet<String>) {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|namespace, lock| namespaces.contains(namespace) || Arc::strong_count(lock) > 1);
    }
}

/// Charges a write to the quotas that are about it, or says which of them it would exceed. `old` is the object that is
/// replaced. What it answers is to be held until the write is made.
pub async fn charge(
    cx: &Cx<'_>,
    at: &At<'_>,
    new: &Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Option<Charged>, Status> {
    let (group, plural) = (&*at.kind.group, &*at.kind.plural);
    if at.namespace().is_empty() || (old.is_some() && !usage::may_change(group, plural)) {
        return Ok(None);
    }
    if cx.state.count_in("", PLURAL, at.namespace()) == 0 {
        return Ok(None);
    }
    let held = cx.state.counting.charge(at.namespace()).await;
    let quotas = cx.state.list_in("", PLURAL, at.namespace());
    let forbidden = |why: String| {
        let of = at.group_resource();
        Status::forbidden(of, meta::name(new), why)
    };
    let about = |quota: &&Value| usage::is_in_scope(quota, group, plural, new);
    let quotas: Vec<&Value> = quotas.iter().filter(about).collect();
    if (group, plural) == ("", "pods") && old.is_none() {
        for quota in &quotas {
            let missing = usage::missing(&quota["status"]["hard"], new);
            if !missing.is_empty() {
                return Err(forbidden(format!("failed quota: {}: must specify {missing}", meta::name(quota))));
            }
        }
    }
    let before = old.filter(|old| !meta::uid(old).is_empty()).map(|old| usage::of(group, plural, old));
    let asked = less(usage::of(group, plural, new), before.unwrap_or_default());
    for quota in &quotas {
        charged(quota, &asked).map_err(forbidden)?;
    }
    let Some(kind) = cx.state.registry.load().kind("", "v1", PLURAL).cloned() else { return Ok(None) };
    for quota in quotas {
        if dry_run || charged(quota, &asked).is_ok_and(|charged| charged.is_none()) {
            continue;
        }
        let target = api::Target {
            group: String::new(),
            version: kind.version.to_string(),
            resource: PLURAL.into(),
            namespace: at.namespace().into(),
            name: meta::name(quota).into(),
            ..api::Target::default()
        };
        let options = WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() };
        let change = |quota: &Value| {
            let used = charged(quota, &asked).map_err(forbidden)?;
            let mut quota = quota.clone();
            if let Some(used) = used {
                quota["status"]["used"] = used;
            }
            Ok(quota)
        };
        let of = At { kind: &kind, target: &target };
        let mut warnings = Vec::new();
        let written = change_object(cx, &of, Part::Status, &options, &mut warnings, false, change);
        match Box::pin(written).await {
            Ok(_) => {}
            // The quota went meanwhile, and with it the limit.
            Err(status) if status.reason == api::Reason::NotFound && meta::name(new) != target.name => {}
            Err(status) => return Err(status),
        }
    }
    Ok(Some(held))
}

/// What a quota has used after a write, nothing where it stays as it is, or why the write is too much.
fn charged(quota: &Value, asked: &Usage) -> Result<Option<Value>, String> {
    let (hard, used) = (amounts(&quota["status"]["hard"]), amounts(&quota["status"]["used"]));
    let name = meta::name(quota);
    let asked = || asked.iter().filter(|(name, amount)| hard.contains_key(*name) && !amount.is_zero());
    let unknown: Vec<&str> = asked().map(|(name, _)| &**name).filter(|name| !used.contains_key(*name)).collect();
    if !unknown.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let after = |name: &str, amount: &Quantity| used.get(name).map_or(*amount, |used| used.add(amount));
    let too_much: Vec<(&String, &Quantity)> = asked()
        .filter(|(name, amount)| {
            !amount.is_negative() && hard.get(*name).is_some_and(|hard| after(name, amount) > *hard)
        })
        .collect();
    if !too_much.is_empty() {
        let list = |of: &dyn Fn(&str) -> Option<Quantity>| {
            let each = too_much.iter().map(|(name, _)| format!("{name}={}", of(name).unwrap_or(Quantity::ZERO)));
            each.collect::<Vec<_>>().join(",")
        };
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            list(&|name| too_much.iter().find(|(of, _)| *of == name).map(|(_, amount)| **amount)),
            list(&|name| used.get(name).copied()),
            list(&|name| hard.get(name).copied()),
        ));
    }
    let mut changed = used.clone();
    changed.extend(asked().map(|(name, amount)| (name.clone(), after(name, amount))));
    Ok((changed != used).then(|| to_value(&changed)))
}

/// What more is used.
fn less(new: Usage, old: Usage) -> Usage {
    let mut delta = new;
    for (name, amount) in old {
        let rest = delta.get(&name).map_or(Quantity::ZERO, |new| *new).sub(&amount);
        delta.insert(name, rest);
    }
    delta
}

/// Keeps every quota's status true until the server stops.
pub async fn run(state: Arc<State>) {
    let mut counted = 0;
    loop {
        tokio::select! {
            () = state.stopping.cancelled() => return,
            () = state.revision_reached(counted + 1) => {}
        }
        if state.stopping.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return;
        }
        let now = state.objects.revision();
        let well = count_all(&state).await;
        counted = now;
        if !well {
            tokio::select! {
                () = state.stopping.cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => counted = 0,
            }
        }
    }
}

/// Answers whether all that had to be written was.
async fn count_all(state: &Arc<State>) -> bool {
    let mut well = true;
    let all: BTreeSet<(String, String)> = state
        .list("", PLURAL)
        .iter()
        .map(|quota| (meta::namespace(quota).to_owned(), meta::name(quota).to_owned()))
        .collect();
    for (namespace, name) in &all {
        let _nothing_is_charged = state.counting.count(namespace).await;
        let Some(quota) = state.get("", PLURAL, namespace, name) else { continue };
        let hard = quota["spec"].get("hard").cloned().unwrap_or_else(|| json!({}));
        let used = count(state, &quota, &hard);
        let status = &quota["status"];
        if amounts(&status["used"]) == used && amounts(&status["hard"]) == amounts(&hard) {
            continue;
        }
        let mut counted = Value::clone(&quota);
        counted["status"] = json!({"hard": hard, "used": to_value(&used)});
        let path = format!("/api/v1/namespaces/{namespace}/{PLURAL}/{name}/status");
        well &= as_controller::put(state, "resourcequota-controller", &path, &counted).await;
    }
    state.counting.keep(&all.into_iter().map(|(namespace, _)| namespace).collect());
    well
}

/// What is used of that which a quota limits.
fn count(state: &State, quota: &Value, hard: &Value) -> BTreeMap<String, Quantity> {
    let names: Vec<&str> = hard.as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
    let mut used: BTreeMap<String, Quantity> = names.iter().map(|name| (name.to_string(), Quantity::ZERO)).collect();
    let resources: BTreeSet<(&str, &str)> = names.iter().map(|name| usage::resource_of(name)).collect();
    let scoped = !meta::items_at(quota, &["spec", "scopes"]).is_empty() || quota["spec"]["scopeSelector"].is_object();
    for (group, plural) in resources {
        let of = |name: &&&str| usage::resource_of(name) == (group, plural);
        if !scoped && names.iter().filter(of).all(|name| usage::is_plain_count(name)) {
            let there = state.count_in(group, plural, meta::namespace(quota));
            let there = Quantity::parse(&there.to_string()).unwrap_or(Quantity::ZERO);
            used.extend(names.iter().filter(of).map(|name| (name.to_string(), there)));
            continue;
        }
        for object in state.list_in(group, plural, meta::namespace(quota)) {
            if !usage::is_in_scope(quota, group, plural, &object) {
                continue;
            }
            for (name, amount) in usage::of(group, plural, &object) {
                if let Some(sum) = used.get_mut(&name) {
                    *sum = sum.add(&amount);
                }
            }
        }
    }
    used
}

fn amounts(list: &Value) -> BTreeMap<String, Quantity> {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?))).collect()
}

fn to_value(amounts: &BTreeMap<String, Quantity>) -> Value {
    let entries = amounts.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string())));
    Value::Object(entries.collect::<Map<String, Value>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a quota of two pods and one CPU, half of it used, says to a write.
    #[track_caller]
    fn check(asked: &[(&str, &str)], want: &str) {
        let quota = json!({
            "metadata": {"name": "q"},
            "status": {"hard": {"pods": "2", "requests.cpu": "1", "secrets": "1"}, "used": {"pods": "1", "requests.cpu": "500m"}},
        });
        let asked = asked.iter().map(|(name, text)| (name.to_string(), Quantity::parse(text).unwrap())).collect();
        let got = match charged(&quota, &asked) {
            Ok(used) => used.map_or("nothing".to_string(), |used| used.to_string()),
            Err(why) => why,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn writes_are_charged_or_refused() {
        check(&[("pods", "1"), ("requests.cpu", "500m"), ("memory", "1Gi")], r#"{"pods":"2","requests.cpu":"1"}"#);
        check(
            &[("pods", "2"), ("requests.cpu", "600m")],
            "exceeded quota: q, requested: pods=2,requests.cpu=600m, used: pods=1,requests.cpu=500m, limited: pods=2,requests.cpu=1",
        );
        check(&[("pods", "-1")], r#"{"pods":"0","requests.cpu":"500m"}"#);
        check(&[("secrets", "1")], "status unknown for quota: q, resources: secrets");
        check(&[("configmaps", "1"), ("pods", "0")], "nothing");
    }
}
