//! The ways in which a request could be allowed: a binding, the role it grants, a rule of that; and what is between each
//! of them and the request. The shortest is the cause.

use std::collections::{HashMap, HashSet};

use api::go;

use crate::asked::{Asked, joined};
use crate::binding::{Binding, Role, Subject, account_of, user_of};
use crate::explain::{Cause, Finding, Known, Part, colon};
use crate::rule::{Rule, VERBS, has_or_star, resource_matches, url_matches};
use crate::words::{is_near, is_part};

/// Members may do everything.
const MASTERS: &str = "system:masters";

/// A way costing more than this is nothing but a near miss.
const CAUSE_COST_MAX: u32 = 59;
/// From here on a subject is somebody else, and no slip.
const OTHERS_COST: u32 = 46;
/// A rule of another resource, or of several differences at once, is no way at all.
const RULE_COST_MAX: u32 = 45;

/// A way to the request that ends short of it.
#[derive(Debug)]
pub(crate) struct Way {
    /// The binding or role that it begins with.
    pub what: String,
    /// What is wrong, weighed: slips of writing weigh little, what one may have meant more.
    pub cost: u32,
    pub findings: Vec<Finding>,
}

impl Way {
    pub fn is_cause(&self) -> bool {
        self.cost <= CAUSE_COST_MAX
    }
}

/// What is wrong at one place of a way, with its weight.
type Gap = (u32, Finding);

/// By what a request is allowed.
pub(crate) fn allowed_by(asked: &Asked, known: &Known) -> Option<String> {
    if asked.groups.iter().any(|group| group == MASTERS) {
        return Some(format!("allowed: {} is in group {MASTERS}, which may do everything", asked.user));
    }
    let wanted = asked.wanted();
    let by_binding = known.bindings.iter().find_map(|binding| {
        let subject = binding.reaches(&asked.user, &asked.groups)?;
        let role = known.role(&binding.role, &binding.namespace)?;
        let allows = covers_scope(binding, asked) && role.rules.iter().any(|rule| rule.allows(&wanted));
        allows.then(|| format!("allowed by {}", Described(binding, subject)))
    });
    let held =
        || known.held.iter().any(|rule| rule.allows(&wanted)).then(|| "allowed by a rule that is held".to_string());
    by_binding.or_else(held)
}

/// Roles by namespace (`""` for ClusterRoles) and name.
struct Index<'a> {
    known: &'a Known,
    roles: HashMap<(&'a str, &'a str), &'a Role>,
}

impl<'a> Index<'a> {
    fn of(known: &'a Known) -> Index<'a> {
        let roles = known.roles.iter().map(|role| ((role.namespace.as_str(), role.name.as_str()), role));
        Index { known, roles: roles.collect() }
    }

    fn role(&self, binding: &'a Binding) -> Option<&'a Role> {
        self.roles.get(&Index::place(binding)?).copied()
    }

    /// Where the role is that a binding refers to; `None` for a Role in no namespace.
    fn place(binding: &Binding) -> Option<(&str, &str)> {
        let is_cluster = binding.role.kind == "ClusterRole";
        let namespace = if is_cluster { "" } else { binding.namespace.as_str() };
        (is_cluster || !namespace.is_empty()).then_some((namespace, binding.role.name.as_str()))
    }
}

/// All ways that end short of a request, the shortest first.
pub(crate) fn ways(asked: &Asked, known: &Known) -> Vec<Way> {
    let index = Index::of(known);
    let bound: HashSet<_> = known.bindings.iter().filter_map(Index::place).collect();
    let mut ways: Vec<Way> = known
        .bindings
        .iter()
        .filter(|binding| !binding.is_default)
        .filter_map(|binding| by_binding(binding, asked, &index))
        .collect();
    let free = known.roles.iter().filter(|role| !bound.contains(&(role.namespace.as_str(), role.name.as_str())));
    ways.extend(free.filter_map(|role| unbound(role, asked, known)));
    if !known.sees_rights(&asked.namespace) {
        ways.extend(by_held_rules(asked, known));
    }
    ways.sort_by_key(|way| way.cost);
    ways
}

/// The cause where there is no way at all.
pub(crate) fn no_way(asked: &Asked, known: &Known) -> Finding {
    let user = &asked.user;
    let said = known.verdict.as_ref().map(|verdict| verdict.reason.as_str()).filter(|said| !said.is_empty());
    let said = said.unwrap_or(&known.said);
    // `RBAC: clusterrole.rbac.authorization.k8s.io "x" not found`, alone or in a list of such.
    for (kind, cause) in [("clusterrole", Cause::ClusterRoleMissing), ("role", Cause::RoleMissing)] {
        let Some((_, after)) = said.split_once(&format!("{kind}.{} ", crate::GROUP)) else { continue };
        let Some((name, _)) = api::refusal::unquote(after) else { continue };
        let message =
            format!("a binding grants {user} the {kind} {}, and the server says that there is none", go::quote(&name));
        return Finding::new(cause, message, format!("make that {kind}, or bind another"));
    }
    if !known.sees_rights(&asked.namespace) {
        let message = format!("nothing that could be seen lets {user} {}{}", asked.describe(), colon(said));
        let repair = "ask who may list roles and bindings to type the same, or apply what is below";
        return Finding::new(Cause::NotSeen, message, repair);
    }
    if let Some(finding) = account_missing(asked, known) {
        return finding;
    }
    let place =
        if asked.namespace.is_empty() { "the whole cluster".into() } else { quoted_namespace(&asked.namespace) };
    let message = format!("no binding gives {user} any rights of its own in {place}");
    Finding::new(Cause::NoBinding, message, "bind a role that allows it to that user, or apply what is below")
}

/// The way through a binding.
fn by_binding<'a>(binding: &'a Binding, asked: &Asked, index: &Index<'a>) -> Option<Way> {
    let known = index.known;
    let subject = match binding.reaches(&asked.user, &asked.groups) {
        Some(_) => None,
        None => Some(nearest_subject(binding, asked, known)),
    };
    let scope = scope_gap(binding, asked);
    // A binding for others is of interest only where nothing else is wrong with it.
    let is_for_others = subject.as_ref().is_some_and(|(cost, _)| *cost >= OTHERS_COST);
    if is_for_others && (scope.is_some() || index.role(binding).is_none()) {
        return None;
    }
    let (role_cost, role_findings) = granted(binding, asked, index);
    if is_for_others && role_cost > 0 {
        return None;
    }
    // Nor is one elsewhere that has nothing to do with the request.
    let unrelated = role_findings.iter().any(|f| matches!(f.cause, Cause::RuleMissing | Cause::RoleWithoutRules));
    if (scope.is_some() || subject.is_some()) && unrelated {
        return None;
    }
    let mut cost = role_cost;
    let mut findings = Vec::new();
    for (weight, finding) in [subject, scope].into_iter().flatten() {
        cost += weight;
        findings.push(finding);
    }
    findings.extend(role_findings);
    if findings.is_empty() {
        // It is allowed by RBAC, as far as can be seen.
        return None;
    }
    let role = format!("{} {}", binding.role.kind, go::quote(&binding.role.name));
    Some(Way { what: format!("{} of {role}", label(binding)), cost, findings })
}

/// A role that nobody is bound to.
fn unbound(role: &Role, asked: &Asked, known: &Known) -> Option<Way> {
    let here = role.namespace == asked.namespace || role.namespace.is_empty();
    let sees_bindings = known.sees(Part::ClusterRoleBindings, "")
        && known.sees(Part::RoleBindings, if role.namespace.is_empty() { "" } else { &role.namespace });
    if role.is_default || !here || !sees_bindings {
        return None;
    }
    if !role.rules.iter().any(|rule| rule.allows(&asked.wanted())) {
        return None;
    }
    // ClusterRoles are often made to be gathered into others, and not to be bound.
    let cost = if role.namespace.is_empty() && !asked.namespace.is_empty() { 55 } else { 40 };
    let label = role_label(role);
    let message = format!("{label} allows it, and no binding gives it to anybody");
    let binding = if asked.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let repair = format!("bind it to {}: a {binding} of {} {}", asked.user, role.kind(), go::quote(&role.name));
    Some(Way { what: label, cost, findings: vec![Finding::new(Cause::RoleNotBound, message, repair)] })
}

/// The nearest of the rules that the user is known to hold, wherever from.
fn by_held_rules(asked: &Asked, known: &Known) -> Option<Way> {
    let what = format!("a rule that {} holds (its role could not be seen)", asked.user);
    let (cost, findings) = rule_gaps(&known.held, asked, known, &what)?;
    (cost > 0).then_some(Way { what, cost, findings })
}

/// The account in whose name the request is made does not exist.
fn account_missing(asked: &Asked, known: &Known) -> Option<Finding> {
    let (namespace, name) = account_of(&asked.user)?;
    if !known.sees(Part::ServiceAccounts, namespace) || known.has_account(namespace, name) {
        return None;
    }
    let near = known.accounts.iter().find(|(of, other)| of == namespace && is_near(other, name));
    let elsewhere = || known.accounts.iter().find(|(_, other)| other == name);
    let message = format!("there is no service account {} in {}", go::quote(name), quoted_namespace(namespace));
    Some(match near.or_else(elsewhere) {
        Some((of, other)) => {
            let there = format!("{} in {}", go::quote(other), quoted_namespace(of));
            let repair = format!("did you mean {}?", user_of(of, other));
            Finding::new(Cause::AccountMissing, format!("{message}; there is {there}"), repair)
        }
        None => {
            let repair = format!("make it: kubectl create serviceaccount {name} -n {namespace}");
            Finding::new(Cause::AccountMissing, message, repair)
        }
    })
}

/// What is between a binding's subjects and the user: the subject that is nearest, or that all are others.
fn nearest_subject(binding: &Binding, asked: &Asked, known: &Known) -> Gap {
    let gaps = binding.subjects.iter().enumerate().filter_map(|(at, subject)| {
        let (cost, cause, what, repair) = subject_gap(subject, binding, asked, known)?;
        let place = format!("subjects[{at}] of {}", label(binding));
        Some((cost, Finding::new(cause, format!("{place} {what}"), format!("{repair} in {place}"))))
    });
    let nearest = gaps.min_by_key(|(cost, _)| *cost);
    nearest.unwrap_or_else(|| {
        let label = label(binding);
        let repair = format!("add {} to the subjects of {label}", asked.user);
        match binding.subjects.as_slice() {
            [] => {
                let message = format!("{label} would allow it, and has no subjects");
                (OTHERS_COST, Finding::new(Cause::BindingWithoutSubjects, message, repair))
            }
            [first, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                let message = format!("{label} allows it to {} {}{more}", first.kind, go::quote(&first.name));
                (OTHERS_COST + 20, Finding::new(Cause::NoBinding, message, repair))
            }
        }
    })
}

fn subject_gap(
    subject: &Subject,
    binding: &Binding,
    asked: &Asked,
    known: &Known,
) -> Option<(u32, Cause, String, String)> {
    let (kind, name) = (subject.kind.as_str(), subject.name.as_str());
    let Some((namespace, account)) = account_of(&asked.user) else {
        return user_gap(subject, asked);
    };
    let full = asked.user.as_str();
    let right = format!("kind: ServiceAccount, name: {account}, namespace: {namespace}");
    let nobody = account_missing(asked, known);
    match kind {
        "ServiceAccount" if name == account => {
            let meant = subject.account_namespace(&binding.namespace);
            if subject.namespace.is_empty() {
                let means = match meant {
                    "" => "means no account at all".to_string(),
                    meant => format!("means one in the binding's own, {}", go::quote(meant)),
                };
                let what = format!(
                    "has no namespace, so that {} {means}; the request is by one in {}",
                    go::quote(name),
                    go::quote(namespace)
                );
                return Some((10, Cause::SubjectNamespaceMissing, what, format!("set namespace: {namespace}")));
            }
            if let Some(nobody) = nobody.filter(|_| known.has_account(meant, name)) {
                let message = format!("is the account of {}: {}", quoted_namespace(meant), nobody.message);
                return Some((
                    10,
                    Cause::AccountMissing,
                    message,
                    "name the account that is meant, as it stands".into(),
                ));
            }
            // Where there is such an account too, it may be meant.
            let exists = known.has_account(meant, name) || !known.sees(Part::ServiceAccounts, meant);
            let what = format!(
                "is the account {} of {}; the request is by that of {}",
                go::quote(name),
                quoted_namespace(meant),
                quoted_namespace(namespace)
            );
            let cost = if exists { 18 } else { 10 };
            Some((cost, Cause::SubjectNamespaceWrong, what, format!("set namespace: {namespace}")))
        }
        "ServiceAccount"
            if [full, &format!("{namespace}:{account}"), &format!("{namespace}/{account}")].contains(&name) =>
        {
            let what = format!("names the account by {}; an account's name is {}", go::quote(name), go::quote(account));
            Some((10, Cause::SubjectMisspelt, what, format!("write {right}")))
        }
        "ServiceAccount" if subject.account_namespace(&binding.namespace) == namespace => {
            let exists = known.has_account(namespace, name);
            if let Some(nobody) = nobody.filter(|_| exists && is_near(name, account)) {
                let message = format!("is the account {}: {}", go::quote(name), nobody.message);
                return Some((
                    10,
                    Cause::AccountMissing,
                    message,
                    format!("ask as {}, the account", user_of(namespace, name)),
                ));
            }
            if !exists {
                // What is surely nobody can be nobody else; how alike the names are says how likely a slip is.
                let is_seen = known.sees(Part::ServiceAccounts, namespace);
                let cost = match (is_near(name, account), is_part(name, account)) {
                    (true, _) => Some(12),
                    (_, true) => Some(14).filter(|_| is_seen),
                    _ => Some(OTHERS_COST - 2).filter(|_| is_seen),
                };
                let nobody = if is_seen { ", which does not exist" } else { "" };
                let (name, own) = (go::quote(name), go::quote(account));
                let what = format!("is the account {name}{nobody}; the request is by {own}");
                return cost.map(|cost| (cost, Cause::SubjectMisspelt, what, format!("write name: {account}")));
            }
            // A pod that names no account runs as the default one.
            let what = format!("is the account {}; the request is by {}", go::quote(name), go::quote(account));
            let add = format!("add the account {account}");
            match (account, name) {
                ("default", _) => {
                    let what = format!("{what}, which a pod runs as where its spec names no account");
                    let repair = format!("set serviceAccountName: {name} in the pod's spec, or {add}");
                    Some((OTHERS_COST, Cause::BoundToAnotherAccount, what, repair))
                }
                (_, "default") => Some((OTHERS_COST + 1, Cause::BoundToAnotherAccount, what, add)),
                _ => None,
            }
        }
        "User" | "Group" => {
            let spellings = [
                full.to_string(),
                account.to_string(),
                format!("{namespace}:{account}"),
                format!("{namespace}/{account}"),
            ];
            if spellings.iter().any(|spelling| spelling == name) {
                let what = format!("is a {kind} called {}; the request is by a service account", go::quote(name));
                return Some((10, Cause::SubjectKindWrong, what, format!("write {right}")));
            }
            if let Some((other, _)) = account_of(name).filter(|(_, name)| kind == "User" && *name == account) {
                let what = format!(
                    "is the account {} of {}; the request is by that of {}",
                    go::quote(account),
                    quoted_namespace(other),
                    quoted_namespace(namespace)
                );
                return Some((18, Cause::SubjectNamespaceWrong, what, format!("write {right}")));
            }
            let is_slip = name.starts_with("system:serviceaccount") && name.ends_with(&format!(":{account}"));
            if kind == "User" && (is_slip || is_near(name, full)) {
                let what = format!("is the user {}; the request is by {}", go::quote(name), go::quote(full));
                return Some((12, Cause::SubjectMisspelt, what, format!("write {right}")));
            }
            match name.strip_prefix("system:serviceaccounts:").filter(|_| kind == "Group") {
                Some(other) if known.namespaces.iter().any(|known| known == other) => {
                    let (other, own) = (quoted_namespace(other), quoted_namespace(namespace));
                    let what = format!("is all accounts of {other}; the request is by one of {own}");
                    let repair = format!("write name: system:serviceaccounts:{namespace}");
                    Some((OTHERS_COST + 1, Cause::SubjectNamespaceWrong, what, repair))
                }
                _ => (kind == "Group").then(|| group_gap(name, asked, known)).flatten(),
            }
        }
        _ => None,
    }
}

fn user_gap(subject: &Subject, asked: &Asked) -> Option<(u32, Cause, String, String)> {
    let (kind, name, user) = (subject.kind.as_str(), subject.name.as_str(), asked.user.as_str());
    let named = || {
        format!("is the {} {}; the request is by the user {}", kind.to_lowercase(), go::quote(name), go::quote(user))
    };
    match kind {
        "User" if is_near(name, user) => Some((15, Cause::SubjectMisspelt, named(), format!("write name: {user}"))),
        "Group" | "ServiceAccount" if name == user => {
            let what = format!("is a {kind} called {}; the request is by a user of that name", go::quote(name));
            Some((10, Cause::SubjectKindWrong, what, format!("write kind: User, name: {user}")))
        }
        "Group" => group_gap(name, asked, &Known::default()),
        _ => None,
    }
}

/// A group that is spelt nearly like one of the user's.
fn group_gap(name: &str, asked: &Asked, known: &Known) -> Option<(u32, Cause, String, String)> {
    const WELL_KNOWN: [&str; 5] =
        [MASTERS, "system:authenticated", "system:unauthenticated", "system:serviceaccounts", "system:nodes"];
    let of_namespace = name.strip_prefix("system:serviceaccounts:");
    let is_other = WELL_KNOWN.contains(&name)
        || of_namespace.is_some_and(|namespace| known.namespaces.iter().any(|known| known == namespace));
    if is_other {
        return None;
    }
    let group = asked.groups.iter().find(|group| is_near(group, name))?;
    let what = format!("is the group {}; the user is in {}", go::quote(name), go::quote(group));
    Some((12, Cause::SubjectMisspelt, what, format!("write name: {group}")))
}

/// Whether a binding counts where the request is made.
fn covers_scope(binding: &Binding, asked: &Asked) -> bool {
    binding.namespace.is_empty() || (!asked.is_path() && binding.namespace == asked.namespace)
}

fn scope_gap(binding: &Binding, asked: &Asked) -> Option<Gap> {
    if covers_scope(binding, asked) {
        return None;
    }
    let (label, own) = (label(binding), quoted_namespace(&binding.namespace));
    if asked.is_path() || asked.namespace.is_empty() {
        let what = if asked.is_path() { "paths are" } else { "the request is" };
        let message = format!("{label} allows in {own} only; {what} for the whole cluster");
        let name = go::quote(&binding.role.name);
        let repair = match (asked.is_path(), binding.role.kind.as_str()) {
            (false, _) => format!("use a ClusterRoleBinding of a ClusterRole, or ask in {own}"),
            (true, "ClusterRole") => format!("bind ClusterRole {name} with a ClusterRoleBinding"),
            (true, _) => "use a ClusterRole and a ClusterRoleBinding".to_string(),
        };
        return Some((20, Finding::new(Cause::BindingNotClusterWide, message, repair)));
    }
    let there = quoted_namespace(&asked.namespace);
    let message = format!("{label} allows in {own}; the request is in {there}");
    let repair = format!("make the binding (and its Role, where it is one) in {there}, or ask in {own}");
    // What is wrong where the request is made comes before what is right elsewhere.
    Some((24, Finding::new(Cause::BindingInAnotherNamespace, message, repair)))
}

/// What is between a binding's roleRef and the request: that the role is not there, or what its rules lack.
fn granted<'a>(binding: &'a Binding, asked: &Asked, index: &Index<'a>) -> (u32, Vec<Finding>) {
    let known = index.known;
    let rules_of = |role: &Role| role_gaps(role, asked, known);
    if let Some(role) = index.role(binding) {
        return rules_of(role);
    }
    let (kind, name, own) = (binding.role.kind.as_str(), &binding.role.name, binding.namespace.as_str());
    let label = label(binding);
    let (part, cause, place) = match kind {
        "ClusterRole" => (Part::ClusterRoles, Cause::ClusterRoleMissing, String::new()),
        _ => (Part::Roles, Cause::RoleMissing, format!(" in {}", quoted_namespace(own))),
    };
    if !known.sees(part, own) {
        let message = format!("{label} grants the {kind} {}, which could not be read", go::quote(name));
        return (45, vec![Finding::new(Cause::NotSeen, message, "ask who may read it")]);
    }
    let missing = format!("{label} grants the {kind} {}{place}, which does not exist", go::quote(name));
    let replace = |right: &str| format!("a roleRef cannot be changed: delete {label} and make it again with {right}");
    let mut all: Vec<(u32, Vec<Finding>)> = Vec::new();
    let mut consider = |weight: u32, cause: Cause, role: &Role, what: String| {
        let (cost, findings) = rules_of(role);
        let right = format!("roleRef {} {}", role.kind(), go::quote(&role.name));
        let finding = Finding::new(cause, format!("{missing}; {what}"), replace(&right));
        all.push((weight + cost, [vec![finding], findings].concat()));
    };
    for role in &known.roles {
        let is_cluster = role.namespace.is_empty();
        let is_reachable = is_cluster || role.namespace == own;
        let there = role_label(role);
        let same_kind = is_cluster == (kind == "ClusterRole");
        match (role.name == *name, same_kind, is_reachable) {
            (true, false, true) => consider(10, Cause::RoleRefKindWrong, role, format!("{there} does")),
            (true, false, false) | (true, true, false) => {
                consider(
                    12,
                    Cause::RoleInAnotherNamespace,
                    role,
                    format!("{there} does, and a Role is bound in its own namespace only"),
                );
            }
            (false, _, true) if is_near(&role.name, name) => {
                consider(10, Cause::RoleRefMisspelt, role, format!("{there} does"));
            }
            // A name that is merely alike must be of a role that fits.
            (false, _, true) if is_part(&role.name, name) && rules_of(role).0 == 0 => {
                consider(14, Cause::RoleRefMisspelt, role, format!("{there} does"));
            }
            _ => {}
        }
    }
    let repair = format!("make the {kind} {}{place}, or bind another", go::quote(name));
    // A role that is meant instead must have something to do with the request; else the missing one is all that is known.
    let meant = all.into_iter().min_by_key(|(cost, _)| *cost).filter(|(cost, _)| *cost <= RULE_COST_MAX);
    meant.unwrap_or_else(|| (25, vec![Finding::new(cause, missing, repair)]))
}

/// What a role's rules lack; nothing, at no cost, where they allow the request.
fn role_gaps(role: &Role, asked: &Asked, known: &Known) -> (u32, Vec<Finding>) {
    let label = role_label(role);
    if role.rules.is_empty() {
        let (message, repair) = match role.aggregates {
            true => (
                format!("{label} has no rules: no ClusterRole has the labels that its aggregationRule asks for"),
                "label the ClusterRoles it is to be made of".to_string(),
            ),
            false => (format!("{label} has no rules"), "give it some".to_string()),
        };
        return (30, vec![Finding::new(Cause::RoleWithoutRules, message, repair)]);
    }
    if role.rules.iter().any(|rule| rule.allows(&asked.wanted())) {
        return (0, Vec::new());
    }
    rule_gaps(&role.rules, asked, known, &label).unwrap_or_else(|| {
        let what = if asked.is_path() { format!("path {}", asked.path) } else { asked.resource_and_subresource() };
        let what = if asked.group.is_empty() { what } else { format!("{what} of API group {}", asked.group) };
        let message = format!("{label} says nothing of {what}");
        (50, vec![Finding::new(Cause::RuleMissing, message, format!("add a rule for {} {what}", asked.verb))])
    })
}

/// The rule that is nearest to the request, and what it lacks; `None` where none has anything to do with it.
fn rule_gaps(rules: &[Rule], asked: &Asked, known: &Known, label: &str) -> Option<(u32, Vec<Finding>)> {
    let mut best: Option<(u32, Vec<Finding>)> = None;
    for rule in rules {
        let Some(gaps) = one_rule(rule, asked, known, label, rules) else { continue };
        let cost = gaps.iter().map(|(cost, _)| cost).sum();
        if cost <= RULE_COST_MAX && best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, gaps.into_iter().map(|(_, finding)| finding).collect()));
        }
    }
    best
}

fn one_rule(rule: &Rule, asked: &Asked, known: &Known, label: &str, all: &[Rule]) -> Option<Vec<Gap>> {
    let mut gaps = Vec::new();
    if asked.is_path() {
        gaps.extend(path_gap(rule, asked, label)?);
    } else {
        gaps.extend(resource_gap(rule, asked, known, label)?);
        gaps.extend(group_of_rule_gap(rule, asked, label));
    }
    gaps.extend(verb_gap(rule, asked, label, all));
    gaps.extend(names_gap(rule, asked, label));
    Some(gaps)
}

/// `None` where the rule is of something else, an empty list where its resource is the request's.
fn resource_gap(rule: &Rule, asked: &Asked, known: &Known, label: &str) -> Option<Vec<Gap>> {
    let (resource, sub) = (asked.resource.as_str(), asked.subresource.as_str());
    let full = asked.resource_and_subresource();
    if rule.resources.iter().any(|own| resource_matches(own, resource, sub)) {
        return Some(Vec::new());
    }
    let gap = |cost, cause, message: String, repair: String| Some(vec![(cost, Finding::new(cause, message, repair))]);
    let add = || format!("add {} to the resources of that rule", go::quote(&full));
    for own in &rule.resources {
        let (base, own_sub) = own.split_once('/').unwrap_or((own, ""));
        if base == resource && own_sub == "*" {
            let message =
                format!("{label} has {}, which stands for nothing: RBAC knows `*/sub`, not `of/*`", go::quote(own));
            return gap(10, Cause::SubresourceMissing, message, add());
        }
        if base == resource && own_sub.is_empty() && !sub.is_empty() {
            let message =
                format!("{label} allows {base}, which does not include {full}: a subresource needs a rule of its own");
            return gap(10, Cause::SubresourceMissing, message, add());
        }
        if base == resource && !own_sub.is_empty() && sub.is_empty() {
            let message = format!("{label} allows {own}, which does not include {resource} itself");
            return gap(12, Cause::OnlySubresource, message, add());
        }
    }
    for own in &rule.resources {
        if is_misspelt(own, asked, known) {
            let message = format!("{label} has {} where the resource is called {}", go::quote(own), go::quote(&full));
            let repair = format!("write {} instead of {}", go::quote(&full), go::quote(own));
            return gap(8, Cause::ResourceMisspelt, message, repair);
        }
    }
    None
}

/// A rule's resource is another word for the request's, or a slip.
fn is_misspelt(own: &str, asked: &Asked, known: &Known) -> bool {
    let sub = asked.subresource.as_str();
    // `deployments.apps` and `pods.log` are what other tools take.
    let (head, own_sub) = own.split_once('/').unwrap_or((own, ""));
    let base = head.split('.').next().unwrap_or_default();
    let called = |word: &str| match known.served(&asked.group, &asked.resource) {
        Some(served) => served.is_called(word),
        None => word.eq_ignore_ascii_case(&asked.resource) || format!("{}s", word.to_lowercase()) == asked.resource,
    };
    if !sub.is_empty() && own_sub.is_empty() && (own == sub || own == format!("{}.{sub}", asked.resource)) {
        return true;
    }
    let is_base = base == asked.resource
        || called(base)
        || (is_near(base, &asked.resource) && !known.is_resource(base) && !is_well_known(base));
    let is_sub = own_sub == sub || (!own_sub.is_empty() && is_near(own_sub, sub));
    is_base && is_sub && own != joined(&asked.resource, sub)
}

/// Resources so common that their names are no slips for another's, where it is not known what the server has.
fn is_well_known(word: &str) -> bool {
    ["pods", "nodes", "jobs", "roles", "secrets", "services", "events", "leases"].contains(&word)
}

fn group_of_rule_gap(rule: &Rule, asked: &Asked, label: &str) -> Option<Gap> {
    if has_or_star(&rule.api_groups, &asked.group) {
        return None;
    }
    let called = |group: &str| if group.is_empty() { "\"\" (the core group)".into() } else { go::quote(group) };
    let own = rule.api_groups.iter().map(|group| called(group)).collect::<Vec<_>>().join(", ");
    let what = asked.resource_and_subresource();
    let versioned = rule.api_groups.iter().any(|group| group.contains('/') || is_version(group));
    let hint = if versioned { "; versions are no part of a group" } else { "" };
    let message =
        format!("{label} is for {what} of API group {own}; the request is for that of {}{hint}", called(&asked.group));
    let repair = format!("put {} into the apiGroups of that rule", called(&asked.group));
    // Whoever writes `*` need not have meant this resource.
    let cost = if rule.resources.iter().any(|own| own == "*") { 25 } else { 10 };
    Some((cost, Finding::new(Cause::ApiGroupWrong, message, repair)))
}

fn is_version(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn verb_gap(rule: &Rule, asked: &Asked, label: &str, all: &[Rule]) -> Option<Gap> {
    /// What people write for a verb.
    const OTHER: [(&str, &str); 8] = [
        ("post", "create"),
        ("put", "update"),
        ("read", "get"),
        ("edit", "update"),
        ("write", "update"),
        ("remove", "delete"),
        ("view", "get"),
        ("deletecollections", "deletecollection"),
    ];
    if has_or_star(&rule.verbs, &asked.verb) {
        return None;
    }
    let what = if asked.is_path() { asked.path.clone() } else { asked.resource_and_subresource() };
    let is_slip = |own: &&String| {
        let lower = own.to_lowercase();
        own.as_str() != asked.verb
            && !VERBS.contains(&own.as_str())
            && (lower == asked.verb
                || OTHER.contains(&(lower.as_str(), asked.verb.as_str()))
                || is_near(&lower, &asked.verb)
                || lower.split([',', ' ']).any(|part| part == asked.verb))
    };
    if let Some(slip) = rule.verbs.iter().find(is_slip) {
        let message =
            format!("{label} has the verb {}, which is none; it is called {}", go::quote(slip), go::quote(&asked.verb));
        let repair = format!("write {} instead of {}", go::quote(&asked.verb), go::quote(slip));
        return Some((8, Finding::new(Cause::VerbMisspelt, message, repair)));
    }
    // What other rules of the role allow of the same belongs to what is told.
    let mut verbs: Vec<&str> = Vec::new();
    let same = |other: &&Rule| other.resources == rule.resources && other.non_resource_urls == rule.non_resource_urls;
    for verb in all.iter().filter(same).flat_map(|other| &other.verbs) {
        if !verbs.contains(&verb.as_str()) {
            verbs.push(verb);
        }
    }
    let message = format!("{label} allows {} of {what}, not {}", verbs.join(", "), asked.verb);
    let repair = format!("add {} to the verbs of that rule", go::quote(&asked.verb));
    Some((20, Finding::new(Cause::VerbMissing, message, repair)))
}

fn names_gap(rule: &Rule, asked: &Asked, label: &str) -> Option<Gap> {
    if asked.is_path() || rule.resource_names.is_empty() || rule.resource_names.contains(&asked.name) {
        return None;
    }
    let own = rule.resource_names.iter().map(|name| go::quote(name)).collect::<Vec<_>>().join(", ");
    if !asked.name.is_empty() {
        let message = format!("{label} is for the names {own}; the request is for {}", go::quote(&asked.name));
        let repair = format!("add {} to the resourceNames of that rule", go::quote(&asked.name));
        return Some((10, Finding::new(Cause::NameNotListed, message, repair)));
    }
    let message =
        format!("{label} is for the names {own}, and a {} names none: resourceNames cannot allow it", asked.verb);
    let repair = match asked.verb.as_str() {
        "list" | "watch" => {
            "take the resourceNames away for that verb, or ask for one object: --field-selector metadata.name=NAME"
                .to_string()
        }
        verb => format!("give {verb} a rule without resourceNames"),
    };
    Some((10, Finding::new(Cause::NamesCannotCover, message, repair)))
}

/// `None` where the rule is of something else, an empty list where it covers the path.
fn path_gap(rule: &Rule, asked: &Asked, label: &str) -> Option<Vec<Gap>> {
    if rule.non_resource_urls.iter().any(|own| url_matches(own, &asked.path)) {
        return Some(Vec::new());
    }
    let first = |path: &str| path.trim_matches(['/', '*']).split('/').next().unwrap_or_default().to_string();
    let near =
        rule.non_resource_urls.iter().find(|own| first(own) == first(&asked.path) || is_near(own, &asked.path))?;
    let message = format!(
        "{label} is for the path {}, which does not cover {}: only a `*` at the end stands for more",
        go::quote(near),
        go::quote(&asked.path)
    );
    let repair = format!("add {} to the nonResourceURLs of that rule", go::quote(&asked.path));
    Some(vec![(10, Finding::new(Cause::PathNotCovered, message, repair))])
}

/// `RoleBinding "x" in namespace "a"`.
fn label(binding: &Binding) -> String {
    in_namespace(binding.kind(), &binding.name, &binding.namespace)
}

fn role_label(role: &Role) -> String {
    in_namespace(role.kind(), &role.name, &role.namespace)
}

fn in_namespace(kind: &str, name: &str, namespace: &str) -> String {
    match namespace {
        "" => format!("{kind} {}", go::quote(name)),
        namespace => format!("{kind} {} in {}", go::quote(name), quoted_namespace(namespace)),
    }
}

fn quoted_namespace(namespace: &str) -> String {
    format!("namespace {}", go::quote(namespace))
}

/// A binding by one of its subjects, in the API server's words.
struct Described<'a>(&'a Binding, usize);

impl std::fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.describe(self.1, f)
    }
}
