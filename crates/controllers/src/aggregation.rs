//! A ClusterRole with an `aggregationRule` has the rules of all ClusterRoles that its selectors match.

use api::LabelSelector;
use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::CLUSTER_ROLES;
use crate::mirror::{Key, Mirror};

const MANAGER: &str = "clusterrole-aggregation-controller";

pub struct Aggregation;

impl Controller for Aggregation {
    fn name(&self) -> &'static str {
        "cluster role aggregation"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(CLUSTER_ROLES)]
    }

    /// Any change may add to or take from any aggregated role: its labels before are not known any more.
    fn keys(&self, _: usize, _: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let aggregated = seen[0].iter().filter(|role| role["aggregationRule"].is_object());
        aggregated.map(|role| (String::new(), meta::name(role).to_string())).collect()
    }

    fn decide(&self, (_, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some(role) = seen[0].get("", name).filter(|role| role["aggregationRule"].is_object()) else {
            return Vec::new();
        };
        let rules = rules(role, &seen[0], &mut Vec::new());
        let there = role["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        if rules == there {
            return Vec::new();
        }
        let mut object = json!({
            "apiVersion": CLUSTER_ROLES.api_version(), "kind": "ClusterRole", "metadata": {"name": name},
        });
        if !rules.is_empty() {
            object["rules"] = Value::Array(rules);
        }
        vec![Action::Apply { resource: CLUSTER_ROLES, manager: MANAGER, object }]
    }
}

/// The rules of all matching roles, by their names, each rule once. Those of a role that is aggregated itself are the ones it is
/// to have, so that nobody waits for its turn. `within` are the roles that ask, by their names.
fn rules<'a>(role: &'a Value, all: &'a Mirror, within: &mut Vec<&'a str>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    within.push(meta::name(role));
    for selector in meta::items_at(role, &["aggregationRule", "clusterRoleSelectors"]) {
        let Some(selector) = LabelSelector::of_object(selector) else { continue };
        for other in all.iter() {
            if within.contains(&meta::name(other)) || !selector.matches(|key| meta::entry(other, "labels", key)) {
                continue;
            }
            let its = match other["aggregationRule"].is_object() {
                true => rules(other, all, within),
                false => meta::items_at(other, &["rules"]).to_vec(),
            };
            for rule in its {
                if !out.contains(&rule) {
                    out.push(rule);
                }
            }
        }
    }
    within.pop();
    out
}
