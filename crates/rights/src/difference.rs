//! Roles that were granted against roles that are enough: what is missing, and what nobody needed. Compares rules; knows
//! nothing of bindings, so that a ClusterRole counts wherever it may be bound.

use std::fmt::{self, Write};

use api::meta;
use serde_json::Value;

use crate::rule::{Rule, compact, uncovered};

/// A right in a namespace, `""` for a ClusterRole's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub namespace: String,
    pub rule: Rule,
}

/// How grants and needs differ; nothing where they are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Needed, and not granted.
    pub missing: Vec<Right>,
    /// Granted, and not needed, or wider than needed.
    pub unused: Vec<Right>,
}

impl Difference {
    /// Of Roles and ClusterRoles; a Role that names no namespace is of this one.
    pub fn of(granted: &[Value], needed: &[Value], namespace: &str) -> Difference {
        let rights = |roles: &[Value]| -> Vec<Right> {
            let of = |role: &Value| match (role["kind"] == "ClusterRole", meta::namespace(role)) {
                (true, _) => String::new(),
                (false, "") => namespace.to_string(),
                (false, own) => own.to_string(),
            };
            let rules = |role: &Value| {
                Rule::all_of(role).into_iter().map(|rule| Right { namespace: of(role), rule }).collect::<Vec<_>>()
            };
            roles.iter().flat_map(rules).collect()
        };
        let (granted, needed) = (rights(granted), rights(needed));
        Difference {
            missing: outside(&granted, &needed, |grant, need| grant.namespace.is_empty() || grant.namespace == need),
            unused: outside(&needed, &granted, |need, grant| grant.is_empty() || need.namespace == grant),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty()
    }
}

/// What of `wanted` none of those in `owned` covers that count for its namespace.
fn outside(owned: &[Right], wanted: &[Right], counts: impl Fn(&Right, &str) -> bool) -> Vec<Right> {
    let mut namespaces: Vec<&str> = wanted.iter().map(|right| right.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let of = |namespace: &str| {
        let rules = |rights: &[Right], takes: &dyn Fn(&Right) -> bool| -> Vec<Rule> {
            rights.iter().filter(|right| takes(right)).map(|right| right.rule.clone()).collect()
        };
        let owned = rules(owned, &|right| counts(right, namespace));
        let wanted = rules(wanted, &|right| right.namespace == namespace);
        let left = compact(uncovered(&owned, &wanted));
        left.into_iter().map(|rule| Right { namespace: namespace.to_string(), rule }).collect::<Vec<_>>()
    };
    namespaces.into_iter().flat_map(of).collect()
}

/// As `--allow` takes it, and where: `get,list pods in namespace shop`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { verbs, api_groups, resources, resource_names, non_resource_urls } = &self.rule;
        write!(f, "{} ", verbs.join(","))?;
        let grouped = |resource: &String| match api_groups.first().map_or("", String::as_str) {
            "" => resource.clone(),
            group => match resource.split_once('/') {
                None => format!("{resource}.{group}"),
                Some((of, sub)) => format!("{of}.{group}/{sub}"),
            },
        };
        let what: Vec<String> = resources.iter().map(grouped).chain(non_resource_urls.iter().cloned()).collect();
        f.write_str(&what.join(","))?;
        if !resource_names.is_empty() {
            f.write_char(' ')?;
            f.write_str(&resource_names.join(","))?;
        }
        match self.namespace.as_str() {
            "" => Ok(()),
            namespace => write!(f, " in namespace {namespace}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Roles as `NAMESPACE: VERBS RESOURCES [NAMES]`, `*:` for a ClusterRole; what differs, needed with a `+` and granted
    /// with a `-` in front.
    #[track_caller]
    fn check(granted: &[&str], needed: &[&str], want: &[&str]) {
        let roles = |texts: &[&str]| -> Vec<Value> {
            let role = |text: &&str| {
                let (namespace, rest) = text.split_once(": ").expect("NAMESPACE: RIGHTS");
                let words: Vec<Vec<&str>> = rest.split(' ').map(|word| word.split(',').collect()).collect();
                let rule = match words[1][0].starts_with('/') {
                    true => json!({"verbs": words[0], "nonResourceURLs": words[1]}),
                    false => {
                        json!({"verbs": words[0], "apiGroups": [""], "resources": words[1], "resourceNames": words.get(2)})
                    }
                };
                match namespace {
                    "*" => json!({"kind": "ClusterRole", "rules": [rule]}),
                    "" => json!({"kind": "Role", "rules": [rule]}),
                    _ => json!({"kind": "Role", "metadata": {"namespace": namespace}, "rules": [rule]}),
                }
            };
            texts.iter().map(role).collect()
        };
        let Difference { missing, unused } = Difference::of(&roles(granted), &roles(needed), "shop");
        let got = missing.iter().map(|right| format!("+{right}")).chain(unused.iter().map(|right| format!("-{right}")));
        assert_eq!(got.collect::<Vec<_>>(), want);
    }

    #[test]
    fn grants_and_needs_are_compared() {
        check(&["shop: get,list pods"], &["shop: list,get pods"], &[]);
        check(&[": get pods"], &["shop: get pods"], &[]);
        check(&["shop: get pods"], &["shop: get,list pods"], &["+list pods in namespace shop"]);
        check(&["shop: get,list,delete pods"], &["shop: get,list pods"], &["-delete pods in namespace shop"]);
        check(&["shop: * pods"], &["shop: get pods"], &["-* pods in namespace shop"]);
        check(&["shop: get secrets"], &["shop: get secrets db"], &["-get secrets in namespace shop"]);
        check(
            &["shop: get pods"],
            &["mall: get pods"],
            &["+get pods in namespace mall", "-get pods in namespace shop"],
        );
        check(&["*: get pods"], &["mall: get pods"], &[]);
        check(&["*: get,watch pods"], &["mall: get pods"], &["-watch pods"]);
        check(&["shop: get nodes"], &["*: get nodes"], &["+get nodes", "-get nodes in namespace shop"]);
        check(&["*: get /metrics"], &["*: get /metrics,/logs"], &["+get /logs"]);
        check(&[], &[], &[]);
    }
}
