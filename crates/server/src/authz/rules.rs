//! Policy rules: what one allows, which ones cover which, and the refusal to hand out more than one holds.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use api::status::GroupResource;
use api::{Status, go, meta};
use serde_json::{Map, Value, json};

use super::rbac::{GROUP, Rbac, RoleRef};
use super::{Attributes, Authorizer};
use crate::authn::{MASTERS, User};

/// `rbac.authorization.k8s.io/v1` `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    /// Plural names, `resource/subresource`, `*` or `*/subresource`.
    pub resources: Vec<String>,
    /// Empty for all names.
    pub resource_names: Vec<String>,
    /// Paths, or beginnings of paths that end in `*`.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// The rules of a Role or ClusterRole.
    pub fn all_of(role: &Value) -> Vec<Rule> {
        meta::items_at(role, &["rules"]).iter().map(Rule::of).collect()
    }

    fn of(rule: &Value) -> Rule {
        let list = |field: &str| {
            meta::items_at(rule, &[field]).iter().filter_map(Value::as_str).map(str::to_string).collect::<Vec<_>>()
        };
        Rule {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// With the fields in Go's order, empty ones left out.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        out.insert("verbs".into(), json!(self.verbs));
        for (field, list) in [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !list.is_empty() {
                out.insert(field.into(), json!(list));
            }
        }
        Value::Object(out)
    }

    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has_or_star(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.non_resource_urls.iter().any(|url| url_matches(url, attributes.path));
        }
        has_or_star(&self.api_groups, attributes.group)
            && self.resources.iter().any(|rule| resource_matches(rule, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, attributes.name))
    }

    /// Every right of `other` is in this one rule.
    fn covers(&self, other: &Rule) -> bool {
        let names = match other.resource_names.is_empty() {
            true => self.resource_names.is_empty(),
            false => self.resource_names.is_empty() || has_all(&self.resource_names, &other.resource_names),
        };
        let resource = |wanted: &String| {
            has_or_star(&self.resources, wanted)
                || wanted
                    .split_once('/')
                    .is_some_and(|(_, sub)| self.resources.iter().any(|r| r.strip_prefix("*/") == Some(sub)))
        };
        let url = |wanted: &String| {
            self.non_resource_urls
                .iter()
                .any(|own| own == wanted || (own.ends_with('*') && wanted.starts_with(own.trim_end_matches('*'))))
        };
        (has(&self.verbs, "*") || has_all(&self.verbs, &other.verbs))
            && (has(&self.api_groups, "*") || has_all(&self.api_groups, &other.api_groups))
            && other.resources.iter().all(resource)
            && other.non_resource_urls.iter().all(url)
            && names
    }

    /// The rule as rules of one verb on one thing each.
    fn break_down(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let single =
                        Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                    if self.resource_names.is_empty() {
                        out.push(single.clone());
                    }
                    for name in &self.resource_names {
                        out.push(Rule { resource_names: one(name), ..single.clone() });
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                out.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
            }
        }
        out
    }
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts =
            parts.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{}", quoted(list)));
        write!(f, "{{{}}}", parts.collect::<Vec<_>>().join(", "))
    }
}

/// The single rights among `wanted` that no rule of `owned` covers.
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let single = wanted.iter().flat_map(Rule::break_down);
    single.filter(|right| !owned.iter().any(|own| own.covers(right))).collect()
}

/// Puts the verbs on the same thing together, in the order they came.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut at: HashMap<Rule, usize> = HashMap::new();
    let mut out: Vec<Rule> = Vec::new();
    for mut rule in rules {
        if !rule.non_resource_urls.is_empty() {
            out.push(rule);
            continue;
        }
        let verbs = std::mem::take(&mut rule.verbs);
        let place = *at.entry(rule.clone()).or_insert_with(|| {
            out.push(rule);
            out.len() - 1
        });
        for verb in verbs {
            if !out[place].verbs.contains(&verb) {
                out[place].verbs.push(verb);
            }
        }
    }
    out
}

impl std::hash::Hash for Rule {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.verbs, &self.api_groups, &self.resources, &self.resource_names, &self.non_resource_urls).hash(state);
    }
}

/// A write to roles or bindings, as far as the check for escalation needs it.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub user: &'a User,
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`.
    pub resource: &'a str,
    /// The namespace and the name of the request; the name is `""` for create.
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Refuses a write that hands out more rights than its author holds. `old` is the object an update replaces.
/// Other resources than the four of RBAC are none of its business.
pub fn check_escalation(
    authorizer: &Authorizer,
    write: Write<'_>,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if write.user.is_in(MASTERS) {
        return Ok(());
    }
    match write.resource {
        "roles" | "clusterroles" => check_role(authorizer, write, new, old),
        "rolebindings" | "clusterrolebindings" => check_binding(authorizer, write, new, old),
        _ => Ok(()),
    }
}

fn check_role(authorizer: &Authorizer, write: Write<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    let escalate = Attributes {
        version: "*",
        namespace: write.namespace,
        name: write.name,
        ..Attributes::resource(write.user, "escalate", GROUP, write.resource)
    };
    if authorizer.authorize(&escalate).is_allowed() || old.is_some_and(|old| differs_only_for_collection(new, old)) {
        return Ok(());
    }
    let forbidden = |why: String| Status::forbidden(write.of(), meta::name(new), why);
    confirm(&authorizer.rbac, write, &Rule::all_of(new)).map_err(forbidden)?;
    let aggregates = |role: &Value| !meta::items_at(role, &["aggregationRule", "clusterRoleSelectors"]).is_empty();
    if write.resource == "clusterroles" && (aggregates(new) || old.is_some_and(aggregates)) {
        // What it gathers tomorrow is anyone's guess: only who holds everything may aggregate.
        let star = || vec!["*".to_string()];
        let everything = [
            Rule { verbs: star(), api_groups: star(), resources: star(), ..Rule::default() },
            Rule { verbs: star(), non_resource_urls: star(), ..Rule::default() },
        ];
        confirm(&authorizer.rbac, write, &everything)
            .map_err(|_| forbidden("must have cluster-admin privileges to use the aggregationRule".into()))?;
    }
    Ok(())
}

fn check_binding(authorizer: &Authorizer, write: Write<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    if old.is_some_and(|old| differs_only_for_collection(new, old)) {
        return Ok(());
    }
    let role = RoleRef::of(new);
    let roles = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    let bind = Attributes {
        version: "*",
        namespace: write.namespace,
        name: &role.name,
        ..Attributes::resource(write.user, "bind", GROUP, roles)
    };
    if authorizer.authorize(&bind).is_allowed() {
        return Ok(());
    }
    let Some(rules) = authorizer.rbac.role_rules(&role, write.namespace) else {
        return Err(Status::not_found(write.of(), &role.name));
    };
    confirm(&authorizer.rbac, write, &rules).map_err(|why| Status::forbidden(write.of(), meta::name(new), why))
}

impl<'a> Write<'a> {
    fn of(&self) -> GroupResource<'a> {
        GroupResource { group: GROUP, resource: self.resource }
    }
}

/// The author holds all of `rules` where the write takes place.
fn confirm(rbac: &Rbac, write: Write<'_>, rules: &[Rule]) -> Result<(), String> {
    let (owned, errors) = rbac.rules_for(write.user, write.namespace);
    let missing = uncovered(&owned, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(ToString::to_string).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut text = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go::quote(&write.user.name),
        quoted(&write.user.groups),
        lines.join("\n")
    );
    if !errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", super::aggregate(&errors)));
    }
    Err(text)
}

/// The garbage collector must be able to let go of what nobody may grant: it changes owners and finalizers only.
fn differs_only_for_collection(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        let metadata = meta::metadata_mut(&mut object);
        for field in ["ownerReferences", "finalizers", "managedFields"] {
            metadata.shift_remove(field);
        }
        object
    };
    bare(new) == bare(old)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == "*" || of == resource),
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn has_or_star(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn has_all(list: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|item| has(list, item))
}

fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|item| go::quote(item)).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Value {
        let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    }

    fn object(name: &str, rules: Value) -> Value {
        json!({"metadata": {"name": name}, "rules": rules})
    }

    /// `u` is bound to a role with these rules in `ns`, and in the whole cluster.
    fn holder(rules: Value) -> Authorizer {
        let namespaced = |mut object: Value| {
            object["metadata"]["namespace"] = json!("ns");
            object
        };
        let role = object("own", rules);
        let bind = |kind: &str| {
            json!({
                "metadata": {"name": "own"},
                "roleRef": {"kind": kind, "name": "own"},
                "subjects": [{"kind": "User", "name": "u"}],
            })
        };
        let strong = object("strong", json!([rule(&["get"], &[""], &["secrets"], &[])]));
        Authorizer::of(Rbac::build([
            ("roles", &namespaced(role.clone())),
            ("clusterroles", &role),
            ("clusterroles", &strong),
            ("rolebindings", &namespaced(bind("Role"))),
            ("clusterrolebindings", &bind("ClusterRole")),
        ]))
    }

    #[track_caller]
    fn check(owned: Value, write: (&str, &str), new: Value, old: Option<Value>, want: &str) {
        let user = User::new("u", ["system:authenticated"]);
        let (resource, name) = write;
        let namespace = if resource.starts_with("cluster") { "" } else { "ns" };
        let write = Write { user: &user, resource, namespace, name };
        let got = match check_escalation(&holder(owned), write, &new, old.as_ref()) {
            Ok(()) => "ok".to_string(),
            Err(status) => status.message.clone(),
        };
        assert_eq!(got, want);
    }

    fn refusal(what: &str, lines: &str) -> String {
        format!(
            "{what} is forbidden: user \"u\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{lines}"
        )
    }

    #[test]
    fn nobody_grants_what_he_does_not_hold() {
        let own =
            || json!([rule(&["get", "list"], &[""], &["pods"], &[]), rule(&["get"], &[""], &["configmaps"], &["a"])]);
        let roles = |rules: Value, lines: &str| {
            let want =
                if lines == "ok" { "ok".into() } else { refusal("roles.rbac.authorization.k8s.io \"x\"", lines) };
            check(own(), ("roles", ""), object("x", rules), None, &want);
        };
        roles(json!([rule(&["get"], &[""], &["pods"], &[])]), "ok");
        roles(json!([]), "ok");
        roles(json!([rule(&["get"], &[""], &["configmaps"], &["a"])]), "ok");
        roles(
            json!([
                rule(&["get", "delete", "watch"], &[""], &["pods"], &[]),
                rule(&["list"], &["apps"], &["deployments"], &[])
            ]),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}\n{APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"list\"]}",
        );
        roles(
            json!([rule(&["get"], &[""], &["configmaps"], &[])]),
            "{APIGroups:[\"\"], Resources:[\"configmaps\"], Verbs:[\"get\"]}",
        );
        roles(
            json!([rule(&["get"], &[""], &["configmaps"], &["a", "b"])]),
            "{APIGroups:[\"\"], Resources:[\"configmaps\"], ResourceNames:[\"b\"], Verbs:[\"get\"]}",
        );
        roles(json!([rule(&["*"], &["*"], &["*"], &[])]), "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}");
        roles(
            json!([rule(&["get"], &[""], &["pods/log"], &[])]),
            "{APIGroups:[\"\"], Resources:[\"pods/log\"], Verbs:[\"get\"]}",
        );
        check(
            own(),
            ("clusterroles", ""),
            object("x", json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics", "/logs*"]}])),
            None,
            &refusal(
                "clusterroles.rbac.authorization.k8s.io \"x\"",
                "{NonResourceURLs:[\"/logs*\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}",
            ),
        );
    }

    #[test]
    fn wildcards_cover() {
        let own = json!([rule(&["*"], &["*"], &["*/scale"], &[]), {"verbs": ["get"], "nonResourceURLs": ["/debug/*"]}]);
        let scale = object("x", json!([rule(&["get"], &["apps"], &["deployments/scale"], &[])]));
        check(own.clone(), ("roles", ""), scale, None, "ok");
        let debug = object("x", json!([{"verbs": ["get"], "nonResourceURLs": ["/debug/pprof/*"]}]));
        check(own, ("clusterroles", ""), debug, None, "ok");
        let all = json!([rule(&["*"], &["*"], &["*"], &[])]);
        check(all.clone(), ("roles", ""), object("x", all), None, "ok");
    }

    #[test]
    fn the_verb_escalate_is_for_the_named_role() {
        let own = || json!([rule(&["escalate"], &[GROUP], &["roles"], &["big"])]);
        let secrets = json!([rule(&["get"], &[""], &["secrets"], &[])]);
        let lines = "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";
        check(own(), ("roles", "big"), object("big", secrets.clone()), Some(object("big", json!([]))), "ok");
        let want = refusal("roles.rbac.authorization.k8s.io \"big\"", lines);
        check(own(), ("roles", ""), object("big", secrets.clone()), None, &want);
        let mut owned = object("big", secrets.clone());
        let old = owned.clone();
        owned["metadata"]["ownerReferences"] = json!([{"uid": "1"}]);
        check(json!([]), ("roles", "big"), owned.clone(), Some(old.clone()), "ok");
        owned["metadata"]["labels"] = json!({"a": "b"});
        check(json!([]), ("roles", "big"), owned, Some(old), &want);
    }

    #[test]
    fn binding_needs_the_verb_or_the_rights() {
        let binding =
            |kind: &str, role: &str| json!({"metadata": {"name": "b"}, "roleRef": {"kind": kind, "name": role}});
        let lines = "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";
        let strong = || binding("ClusterRole", "strong");
        let refused = refusal("rolebindings.rbac.authorization.k8s.io \"b\"", lines);
        check(json!([]), ("rolebindings", ""), strong(), None, &refused);
        check(json!([]), ("rolebindings", "b"), strong(), Some(binding("Role", "x")), &refused);
        check(
            json!([rule(&["bind"], &[GROUP], &["clusterroles"], &["strong"])]),
            ("rolebindings", ""),
            strong(),
            None,
            "ok",
        );
        check(json!([rule(&["get"], &[""], &["secrets"], &[])]), ("clusterrolebindings", ""), strong(), None, "ok");
        check(
            json!([]),
            ("rolebindings", ""),
            binding("Role", "nosuch"),
            None,
            "rolebindings.rbac.authorization.k8s.io \"nosuch\" not found",
        );
    }

    #[test]
    fn aggregation_is_for_who_holds_everything() {
        let mut role = object("x", json!([]));
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]});
        let want = "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: must have cluster-admin privileges to use the aggregationRule";
        check(json!([]), ("clusterroles", ""), role.clone(), None, want);
        check(json!([]), ("clusterroles", "x"), object("x", json!([])), Some(role.clone()), want);
        let all = json!([rule(&["*"], &["*"], &["*"], &[]), {"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        check(all, ("clusterroles", ""), role, None, "ok");
    }
}
