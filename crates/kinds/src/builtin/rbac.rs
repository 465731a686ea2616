//! Roles and their bindings. Who may give away what is the authorizer's matter.

use serde_json::Value;

use super::check::{self, Causes};
use super::read::{Read, Write};
use super::{columns, internal, rows};
use crate::validate;
use crate::{Behaviour, Cause, NameRule};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles are shown with `Created At`, as kinds without columns of their own.
const ROLE_LIKE: Behaviour =
    Behaviour { name: NameRule::PathSegment, create_on_update: true, never_unreadable: true, ..Behaviour::PLAIN };

pub static ROLE: Behaviour =
    Behaviour { validate_create: |role| rules(role, true), validate_update: |role, _| rules(role, true), ..ROLE_LIKE };

pub static CLUSTER_ROLE: Behaviour =
    Behaviour { validate_create: cluster_role, validate_update: |role, _| cluster_role(role), ..ROLE_LIKE };

pub static ROLE_BINDING: Behaviour = Behaviour {
    default: default_binding,
    validate_create: |binding| self::binding(binding, true),
    validate_update: |new, old| binding_update(new, old, true),
    columns: columns::ROLE_BINDINGS,
    row: rows::role_binding,
    ..ROLE_LIKE
};

pub static CLUSTER_ROLE_BINDING: Behaviour = Behaviour {
    default: default_binding,
    validate_create: |binding| self::binding(binding, false),
    validate_update: |new, old| binding_update(new, old, false),
    columns: columns::CLUSTER_ROLE_BINDINGS,
    row: rows::role_binding,
    ..ROLE_LIKE
};

fn default_binding(binding: &mut Value) {
    binding.set_default("roleRef.apiGroup", GROUP);
    for subject in binding.list_mut("subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            subject.set_default("apiGroup", GROUP);
        }
    }
}

fn cluster_role(role: &Value) -> Vec<Cause> {
    let mut out = rules(role, false);
    let verbs = take_verbs(&mut out);
    if role.has("aggregationRule") {
        let path = "aggregationRule.clusterRoleSelectors";
        let selectors = role.list(path);
        if selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            out.push(Cause::required(path, detail));
        }
        for (at, selector) in selectors.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let before = out.len();
            check::label_selector(&mut out, selector, &path);
            if out.len() > before {
                out.push(Cause::invalid(&path, &Value::Null, "invalid label selector."));
            }
        }
    }
    out.extend(verbs);
    out
}

/// Rules without verbs are told of last.
fn take_verbs(out: &mut Causes) -> Causes {
    let (verbs, rest) = out.drain(..).partition(|cause: &Cause| cause.field.ends_with(".verbs"));
    *out = rest;
    verbs
}

fn rules(role: &Value, namespaced: bool) -> Vec<Cause> {
    let mut out = Vec::new();
    for (at, rule) in role.list("rules").iter().enumerate() {
        let path = format!("rules[{at}]");
        if rule.list("verbs").is_empty() {
            out.push(Cause::required(format!("{path}.verbs"), ""));
        }
        let urls = rule.at("nonResourceURLs");
        if !urls.is_nothing() {
            let field = format!("{path}.nonResourceURLs");
            if namespaced {
                out.push(Cause::invalid(&field, urls, "namespaced rules cannot apply to non-resource URLs"));
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.list(field).is_empty()) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                out.push(Cause::invalid(&field, urls, detail));
            }
            continue;
        }
        if rule.list("apiGroups").is_empty() {
            let detail = "resource rules must supply at least one api group";
            out.push(Cause::required(format!("{path}.apiGroups"), detail));
        }
        if rule.list("resources").is_empty() {
            let detail = "resource rules must supply at least one resource";
            out.push(Cause::required(format!("{path}.resources"), detail));
        }
    }
    let verbs = take_verbs(&mut out);
    out.extend(verbs);
    out
}

fn binding(binding: &Value, namespaced: bool) -> Vec<Cause> {
    let mut out = Vec::new();
    // Names that are missing are told of last: of subjects, then of the role.
    let mut missing = Vec::new();
    let role = binding.at("roleRef");
    if role.text("apiGroup") != GROUP {
        out.push(Cause::not_supported("roleRef.apiGroup", &role.text("apiGroup").into(), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        out.push(Cause::not_supported("roleRef.kind", &role.text("kind").into(), kinds));
    }
    let name = role.text("name");
    validate::push_all(&mut out, "roleRef.name", name, validate::path_segment(name, false));
    for (at, subject) in binding.list("subjects").iter().enumerate() {
        subject_causes(&mut out, &mut missing, subject, namespaced, &format!("subjects[{at}]"));
    }
    if name.is_empty() {
        missing.push(Cause::required("roleRef.name", ""));
    }
    out.extend(missing);
    out
}

fn subject_causes(out: &mut Causes, missing: &mut Causes, subject: &Value, namespaced: bool, path: &str) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    if name.is_empty() {
        missing.push(Cause::required(format!("{path}.name"), ""));
    }
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                check::text(out, name, format_args!("{path}.name"), validate::dns1123_subdomain);
            }
            if !group.is_empty() {
                out.push(Cause::not_supported(format!("{path}.apiGroup"), &group.into(), &[""]));
            }
            if !namespaced && subject.text("namespace").is_empty() {
                out.push(Cause::required(format!("{path}.namespace"), ""));
            }
        }
        "User" | "Group" if group != GROUP => {
            out.push(Cause::not_supported(format!("{path}.apiGroup"), &group.into(), &[GROUP]));
        }
        "User" | "Group" => {}
        kind => {
            let supported = &["ServiceAccount", "User", "Group"];
            out.push(Cause::not_supported(format!("{path}.kind"), &kind.into(), supported));
        }
    }
}

fn binding_update(new: &Value, old: &Value, namespaced: bool) -> Vec<Cause> {
    let mut out = binding(new, namespaced);
    if new.at("roleRef") != old.at("roleRef") {
        let shown = internal::shown("api.rbac.v1.RoleRef", new.at("roleRef"));
        out.push(Cause::invalid("roleRef", &shown, "field is immutable"));
    }
    out
}
