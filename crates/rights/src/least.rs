//! The least roles that allow what was asked for, and the bindings that give them to somebody. Makes values only.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::binding::{GROUP, Subject};

/// One kind of request that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub user: String,
    /// `""` for the whole cluster.
    pub namespace: String,
    pub group: String,
    /// With its subresource: `pods/log`. `""` for a path.
    pub resource: String,
    pub verb: String,
    pub name: String,
    /// The path of a request for no resource.
    pub path: String,
    pub allowed: bool,
}

/// What somebody used while it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recorded {
    /// Each kind of request once.
    pub usages: BTreeSet<Usage>,
    /// Names of pods that asked about themselves: they are others with the next run.
    pub own: BTreeSet<String>,
    /// There was more than is kept, so that this is not all.
    pub full: bool,
}

impl Recorded {
    /// Takes in what a later part of the same recording has.
    pub fn add(&mut self, later: Recorded) {
        self.usages.extend(later.usages);
        self.own.extend(later.own);
        self.full |= later.full;
    }

    /// What was refused and never allowed.
    pub fn refused(&self) -> Vec<Usage> {
        let allowed = |usage: &Usage| self.usages.contains(&Usage { allowed: true, ..usage.clone() });
        self.usages.iter().filter(|usage| !usage.allowed && !allowed(usage)).cloned().collect()
    }

    /// The least roles that allow what was used and allowed, with what was refused too where that is asked for.
    pub fn least_roles(&self, name: &str, with_refused: bool) -> Vec<Value> {
        let own: Vec<&str> = self.own.iter().map(String::as_str).collect();
        let usages: Vec<Usage> = self.usages.iter().filter(|usage| usage.allowed || with_refused).cloned().collect();
        least_roles(&usages, name, &own)
    }
}

/// What everybody may do anyway, through the bindings that every cluster starts with.
fn is_given_to_all(usage: &Usage) -> bool {
    const REVIEWS: [&str; 3] = ["selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    const PATHS: [&str; 6] = ["/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz"];
    if usage.resource.is_empty() {
        let below = |path: &str| usage.path == path || usage.path.starts_with(&format!("{path}/"));
        return usage.verb == "get"
            && (PATHS.iter().any(|path| below(path))
                || below("/version")
                || usage.path.starts_with("/.well-known/openid-configuration")
                || usage.path.starts_with("/openid/"));
    }
    REVIEWS.contains(&usage.resource.as_str()) && usage.verb == "create"
}

/// The least roles that allow what was used: a Role per namespace, and a ClusterRole for what has none. Names are kept
/// where verbs have them, except of objects that the program made itself and of `own` ones, which differ from run to run.
pub fn least_roles(usages: &[Usage], name: &str, own: &[&str]) -> Vec<Value> {
    let usages: Vec<Usage> = usages.iter().filter(|usage| !is_given_to_all(usage)).cloned().collect();
    exact_roles(&usages, name, own)
}

/// The same with what everybody may do anyway.
pub fn exact_roles(usages: &[Usage], name: &str, own: &[&str]) -> Vec<Value> {
    let creates = |usage: &Usage| {
        usages.iter().any(|other| {
            other.verb == "create"
                && other.group == usage.group
                && other.resource == base(&usage.resource)
                && other.namespace == usage.namespace
        })
    };
    // By namespace, then group, resource and name.
    type Rights<'a> = BTreeMap<(&'a str, &'a str, Option<&'a str>), BTreeSet<&'a str>>;
    let mut scopes: BTreeMap<&str, Rights> = BTreeMap::new();
    let mut paths: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for usage in usages {
        if usage.resource.is_empty() {
            paths.entry(&usage.path).or_default().insert(&usage.verb);
            continue;
        }
        // Who creates gives no name yet, but to a subresource, which is of an object that is there.
        let collective = usage.verb == "deletecollection" || (usage.verb == "create" && !usage.resource.contains('/'));
        let named = !usage.name.is_empty() && !collective && !own.contains(&usage.name.as_str()) && !creates(usage);
        let names = named.then_some(usage.name.as_str());
        let scope = scopes.entry(&usage.namespace).or_default();
        scope.entry((&usage.group, &usage.resource, names)).or_default().insert(&usage.verb);
    }
    let mut roles = Vec::new();
    for (namespace, rights) in scopes {
        // What differs in nothing but its resource, or nothing but its name, is one rule.
        let mut by_verbs = BTreeMap::<_, Vec<&str>>::new();
        for ((group, resource, name), verbs) in rights {
            by_verbs.entry((group, in_order(verbs), name)).or_default().push(resource);
        }
        let mut by_names = BTreeMap::<_, Vec<&str>>::new();
        for ((group, verbs, name), resources) in by_verbs {
            by_names.entry((group, verbs, resources, name.is_some())).or_default().extend(name);
        }
        let mut rules: Vec<Value> = by_names
            .into_iter()
            .map(|((group, verbs, resources, _), names)| {
                let mut rule = json!({"apiGroups": [group], "resources": resources});
                if !names.is_empty() {
                    rule["resourceNames"] = json!(names);
                }
                rule["verbs"] = json!(verbs);
                rule
            })
            .collect();
        if namespace.is_empty() {
            rules.extend(path_rules(&std::mem::take(&mut paths)));
        }
        roles.push(role(name, namespace, rules));
    }
    if !paths.is_empty() {
        roles.insert(0, role(name, "", path_rules(&paths)));
    }
    roles
}

fn path_rules(paths: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<Value> {
    paths.iter().map(|(path, verbs)| json!({"nonResourceURLs": [path], "verbs": verbs})).collect()
}

fn role(name: &str, namespace: &str, rules: Vec<Value>) -> Value {
    let api_version = format!("{GROUP}/v1");
    match namespace {
        "" => json!({"apiVersion": api_version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        _ => json!({
            "apiVersion": api_version,
            "kind": "Role",
            "metadata": {"name": name, "namespace": namespace},
            "rules": rules,
        }),
    }
}

/// The binding of a role to somebody, by the role's name and in its namespace.
pub fn binding_of(role: &Value, subject: &Subject) -> Value {
    let kind = role["kind"].as_str().unwrap_or_default();
    let mut metadata = json!({"name": role["metadata"]["name"]});
    if let Some(namespace) = role["metadata"]["namespace"].as_str() {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": role["apiVersion"],
        "kind": format!("{kind}Binding"),
        "metadata": metadata,
        "subjects": [subject.to_value()],
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role["metadata"]["name"]},
    })
}

/// `pods` of `pods/log`.
fn base(resource: &str) -> &str {
    resource.split('/').next().unwrap_or_default()
}

/// Verbs as people write them.
fn in_order(verbs: BTreeSet<&str>) -> Vec<&str> {
    const ORDER: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let mut verbs: Vec<&str> = verbs.into_iter().collect();
    verbs.sort_by_key(|verb| (ORDER.iter().position(|known| known == verb).unwrap_or(ORDER.len()), *verb));
    verbs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(text: &str) -> Usage {
        let words: Vec<&str> = text.split(' ').collect();
        let [verb, namespace, resource, name] = words[..] else { panic!("four words") };
        let path = if resource.starts_with('/') { resource } else { "" };
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        Usage {
            user: "u".into(),
            namespace: namespace.trim_matches('-').into(),
            group: group.into(),
            resource: if path.is_empty() { resource.into() } else { String::new() },
            verb: verb.into(),
            name: name.trim_matches('-').into(),
            path: path.into(),
            allowed: true,
        }
    }

    #[track_caller]
    fn check(usages: &[&str], want: &str) {
        let usages: Vec<Usage> = usages.iter().map(|text| usage(text)).collect();
        let roles = least_roles(&usages, "app", &["own-pod"]);
        let shown: Vec<String> = roles
            .iter()
            .map(|role| format!("{} {} {}", role["kind"], role["metadata"]["namespace"], role["rules"]))
            .collect();
        assert_eq!(shown.join("; "), want);
    }

    #[test]
    fn roles_hold_what_was_used_and_no_more() {
        check(
            &["list a pods -", "watch a pods -", "get a configmaps one", "get a configmaps two"],
            r#""Role" "a" [{"apiGroups":[""],"resources":["configmaps"],"resourceNames":["one","two"],"verbs":["get"]},{"apiGroups":[""],"resources":["pods"],"verbs":["list","watch"]}]"#,
        );
        check(
            &["get a pods own-pod", "list a services -", "list a pods -"],
            r#""Role" "a" [{"apiGroups":[""],"resources":["pods"],"verbs":["get","list"]},{"apiGroups":[""],"resources":["services"],"verbs":["list"]}]"#,
        );
        check(
            &[
                "create a configmaps -",
                "delete a configmaps made",
                "list - nodes -",
                "get - /metrics -",
                "get - /api -",
            ],
            r#""ClusterRole" null [{"apiGroups":[""],"resources":["nodes"],"verbs":["list"]},{"nonResourceURLs":["/metrics"],"verbs":["get"]}]; "Role" "a" [{"apiGroups":[""],"resources":["configmaps"],"verbs":["create","delete"]}]"#,
        );
    }
}
