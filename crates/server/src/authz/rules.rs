//! The refusal to hand out more rights than one holds. What rules are is the crate `rights`'.

use std::collections::BTreeSet;

use api::status::GroupResource;
use api::{Status, go, meta};
use rights::rule::{compact, uncovered};
use rights::{RoleRef, Rule, Usage};
use serde_json::Value;

use super::rbac::{GROUP, Rbac};
use super::{Attributes, Authorizer, Hearing};
use crate::authn::{MASTERS, User};

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
    hearing: &Hearing,
) -> Result<(), Status> {
    if write.user.is_in(MASTERS) {
        return Ok(());
    }
    match write.resource {
        "roles" | "clusterroles" => check_role(authorizer, write, new, old, hearing),
        "rolebindings" | "clusterrolebindings" => check_binding(authorizer, write, new, old, hearing),
        _ => Ok(()),
    }
}

/// The rights by which a write was let through that hands out rights: what is handed out, where its author holds that, else the
/// verb that allows it all the same.
pub fn used(authorizer: &Authorizer, write: Write<'_>, new: &Value, old: Option<&Value>) -> Vec<Usage> {
    if old.is_some_and(|old| differs_only_for_collection(new, old)) {
        return Vec::new();
    }
    let (rules, verb, resource, name) = match write.resource {
        "roles" | "clusterroles" => (Rule::all_of(new).into(), "escalate", write.resource, write.name.to_string()),
        "rolebindings" | "clusterrolebindings" => {
            let role = RoleRef::of(new);
            let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
            let rules = authorizer.rbac.role_rules(&role, write.namespace);
            (rules.unwrap_or_default(), "bind", resource, role.name)
        }
        _ => return Vec::new(),
    };
    let of = |verb: &str, group: &str, resource: &str, name: &str, path: &str| Usage {
        user: write.user.name.clone(),
        namespace: write.namespace.into(),
        group: group.into(),
        resource: resource.into(),
        verb: verb.into(),
        name: name.into(),
        path: path.into(),
        allowed: true,
    };
    if confirm(&authorizer.rbac, write, &rules).is_err() {
        return vec![of(verb, GROUP, resource, &name, "")];
    }
    let mut used = Vec::new();
    for rule in rules.iter() {
        let any = [String::new()];
        let names = if rule.resource_names.is_empty() { &any[..] } else { &rule.resource_names };
        for verb in &rule.verbs {
            used.extend(rule.non_resource_urls.iter().map(|path| of(verb, "", "", "", path)));
            for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
                used.extend(names.iter().map(|name| of(verb, group, resource, name, "")));
            }
        }
    }
    used
}

fn check_role(
    authorizer: &Authorizer,
    write: Write<'_>,
    new: &Value,
    old: Option<&Value>,
    hearing: &Hearing,
) -> Result<(), Status> {
    let escalate = Attributes {
        version: "*",
        namespace: write.namespace,
        name: write.name,
        ..Attributes::resource(write.user, "escalate", GROUP, write.resource)
    };
    if authorizer.authorize(&escalate, hearing).is_allowed()
        || old.is_some_and(|old| differs_only_for_collection(new, old))
    {
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

fn check_binding(
    authorizer: &Authorizer,
    write: Write<'_>,
    new: &Value,
    old: Option<&Value>,
    hearing: &Hearing,
) -> Result<(), Status> {
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
    if authorizer.authorize(&bind, hearing).is_allowed() {
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
        go::quote_list(&write.user.groups),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let got = match check_escalation(&holder(owned), write, &new, old.as_ref(), &Hearing::default()) {
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
