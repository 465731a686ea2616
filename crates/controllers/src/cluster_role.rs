//! A ClusterRole with an aggregation rule has the rules of all roles that the rule selects, in the order of their names, each
//! rule once. What else somebody writes into its rules is put right.

use std::sync::Arc;

use kemudi_client::{Api, Dynamic, LabelSelector, Patch, Resource};
use serde_json::{Value, json};

use crate::run::{Informers, Key, Next, Queue, Runner};

/// Who owns the rules of an aggregated role.
const MANAGER: &str = "clusterrole-aggregation-controller";

pub(crate) fn start(runner: &mut Runner, informers: &mut Informers) {
    let queue = Queue::<String>::new();
    let roles = informers.cluster_roles.cache.clone();
    let (feed, all) = (queue.clone(), roles.clone());
    // Any role may match, or have matched, any other's selectors.
    informers.cluster_roles.hear(move |_| {
        for role in all.all().iter().filter(|role| role["aggregationRule"].is_object()) {
            feed.add(role.name().to_string());
        }
    });
    let api = Api::<Dynamic>::all_of(runner.client.clone(), &crate::run::CLUSTER_ROLES);
    runner.work(&queue, vec![roles.synced()], move |name| {
        let patch = roles.get(&Key::new("", &*name)).and_then(|role| decide(&role, &roles.all()));
        let api = api.clone();
        async move {
            let Some(object) = patch else { return Ok(Next::Done) };
            let patch = Patch::Apply { manager: MANAGER, force: true, object: &object };
            api.patch(&name, &patch).await.map(|_| Next::Done)
        }
    });
}

/// What is to be applied to the role; nothing where its rules are right.
fn decide(role: &Dynamic, all: &[Arc<Dynamic>]) -> Option<Value> {
    let selectors = api::meta::items_at(role, &["aggregationRule", "clusterRoleSelectors"]);
    if !role["aggregationRule"].is_object() {
        return None;
    }
    let mut rules: Vec<&Value> = Vec::new();
    for selector in selectors {
        let selected = all.iter().filter(|other| other.name() != role.name() && selects(selector, other));
        for rule in selected.flat_map(|other| api::meta::items_at(other, &["rules"])) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if api::meta::items_at(role, &["rules"]).iter().eq(rules.iter().copied()) {
        return None;
    }
    let mut patch = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role.name()},
    });
    if !rules.is_empty() {
        patch["rules"] = json!(rules);
    }
    Some(patch)
}

/// Whether a `metav1.LabelSelector` matches; one that cannot be read matches nothing.
fn selects(selector: &Value, object: &Dynamic) -> bool {
    let selector = crate::selector::of(selector);
    selector.is_some_and(|selector: LabelSelector| selector.matches(|key| api::meta::entry(object, "labels", key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, label: &str, rules: &[&str]) -> Dynamic {
        let rules: Vec<Value> = rules.iter().map(|rule| json!({"verbs": [rule]})).collect();
        Dynamic(json!({"metadata": {"name": name, "labels": {"add": label}}, "rules": rules}))
    }

    #[track_caller]
    fn check(rules: &[&str], others: &[Dynamic], want: &str) {
        let mut sum = role("sum", "no", rules);
        sum["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"add": "yes"}}]});
        let mut all: Vec<_> = others.iter().cloned().chain([sum.clone()]).map(Arc::new).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        let got = match decide(&sum, &all) {
            None => "right".to_string(),
            Some(patch) => patch["rules"].to_string().replace("{\"verbs\":[\"", "").replace("\"]}", ""),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn rules_are_the_sum_in_the_order_of_names() {
        let others = [role("b", "yes", &["get", "list"]), role("a", "yes", &["list"]), role("c", "no", &["watch"])];
        check(&[], &others, "[list,get]");
        check(&["list", "get"], &others, "right");
        check(&["list", "get", "*"], &others, "[list,get]");
        check(&["get"], &others[2..], "null");
        check(&[], &[], "right");
    }
}
