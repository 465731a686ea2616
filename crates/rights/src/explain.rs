//! Why a request is refused: the cause, what nearly allowed it, what could not be seen, and the least that would allow it.
//! A function of what is known; who asks a server for that is elsewhere.

use api::go;
use serde::Serialize;
use serde_json::{Value, json};

use crate::asked::{Asked, joined};
use crate::binding::{Binding, Role, RoleRef, Subject, account_of};
use crate::impersonation;
use crate::least::{binding_of, exact_roles};
use crate::rule::Rule;
use crate::ways::{self, Way};
use crate::words::is_near;

/// Near misses that are told; the nearest come first.
pub const NEAR_MISSES_MAX: usize = 5;

/// What is known of a cluster. What is not known is said in `unseen`, and nothing is concluded from its absence.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Roles, and ClusterRoles with the namespace `""`.
    pub roles: Vec<Role>,
    /// RoleBindings, and ClusterRoleBindings with the namespace `""`.
    pub bindings: Vec<Binding>,
    /// Service accounts: namespace and name.
    pub accounts: Vec<(String, String)>,
    pub namespaces: Vec<String>,
    pub resources: Vec<Served>,
    /// Rules that the user holds where the request is made, from who knows not which roles.
    pub held: Vec<Rule>,
    pub unseen: Vec<Unseen>,
    /// What the server itself says about the request now.
    pub verdict: Option<Verdict>,
    /// What it said when it refused, behind the refusal's own words; mostly `""`.
    pub said: String,
}

/// A resource that the server has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub group: String,
    pub plural: String,
    /// The singular, the kind in lower case, the short names.
    pub words: Vec<String>,
    pub subresources: Vec<String>,
    pub namespaced: bool,
}

/// What the server says about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// Its reason and its errors, mostly `""`.
    pub reason: String,
}

/// A part of a cluster that can be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Roles,
    ClusterRoles,
    RoleBindings,
    ClusterRoleBindings,
    ServiceAccounts,
    Namespaces,
    Resources,
    Groups,
}

/// A part that is not known, or in one namespace only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    pub part: Part,
    /// The namespace in which it is known after all; `""` for none.
    pub except: String,
    /// What, and why: for people.
    pub why: String,
}

/// Why a request is refused, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Cause {
    /// It is allowed now.
    Allowed,
    /// No credentials reached the server.
    Anonymous,
    /// The namespace of the request does not exist.
    NamespaceMissing,
    /// The request is for a resource that the server does not have, in that group or by that name.
    ResourceUnknown,
    /// No binding reaches the user here.
    NoBinding,
    /// A role would allow it, and nothing binds it.
    RoleNotBound,
    /// Of the binding's account and the request's, one is the namespace's default one, which runs pods that name none.
    BoundToAnotherAccount,
    /// The binding names nobody.
    BindingWithoutSubjects,
    /// There is no such service account.
    AccountMissing,
    /// The subject has no namespace, so that it means an account of the binding's.
    SubjectNamespaceMissing,
    SubjectNamespaceWrong,
    /// A user written as an account or a group, or the other way round.
    SubjectKindWrong,
    SubjectMisspelt,
    /// The roleRef names a role that does not exist, and one that does is spelt nearly so.
    RoleRefMisspelt,
    /// The roleRef says Role and means a ClusterRole, or the other way round.
    RoleRefKindWrong,
    /// The Role is in another namespace than its binding.
    RoleInAnotherNamespace,
    RoleMissing,
    ClusterRoleMissing,
    /// The RoleBinding is in another namespace than the request.
    BindingInAnotherNamespace,
    /// A RoleBinding allows in its namespace; the request is for the whole cluster.
    BindingNotClusterWide,
    VerbMissing,
    VerbMisspelt,
    /// `pods` is allowed and `pods/log` asked for.
    SubresourceMissing,
    /// `pods/log` is allowed and `pods` asked for.
    OnlySubresource,
    /// A singular, a kind, a short name or a typing error in the rule.
    ResourceMisspelt,
    ApiGroupWrong,
    /// The rule is for other names.
    NameNotListed,
    /// The rule is for names, and the request gives none.
    NamesCannotCover,
    PathNotCovered,
    /// The role is bound and empty.
    RoleWithoutRules,
    /// The bound roles say nothing of the resource.
    RuleMissing,
    /// The author of a role may not hand out what it holds not itself.
    Escalation,
    /// The refused right is one of the two that acting as somebody takes.
    ImpersonationTakesTwo,
    /// Admission refused, not the authorizer.
    NotRights,
    /// RBAC allows it; something else refuses.
    RefusedElsewhere,
    /// What could be seen does not hold the reason.
    NotSeen,
    TokenExpired,
    TokenNotYetValid,
    /// What the token is bound to (account, pod, secret) is gone.
    TokenRevoked,
    TokenWrongAudience,
    /// Another cluster's, or signed with a key that is no longer used.
    TokenForeign,
    /// The server knows no such token.
    TokenUnknown,
    /// The server takes the credentials now.
    CredentialsAccepted,
    /// Credentials that are no token, or none.
    CredentialsRefused,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub cause: Cause,
    pub message: String,
    /// What to change; `""` where nothing is to be changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repair: String,
}

impl Finding {
    pub fn new(cause: Cause, message: impl Into<String>, repair: impl Into<String>) -> Finding {
        Finding { cause, message: message.into(), repair: repair.into() }
    }
}

/// What nearly allowed a request: a binding or a role, and all that is between it and the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    pub what: String,
    pub findings: Vec<Finding>,
}

/// Why a request is refused, and what would allow it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub request: Asked,
    pub allowed: bool,
    /// All that stands between the request and its success; the first is the cause.
    pub causes: Vec<Finding>,
    pub near_misses: Vec<NearMiss>,
    /// What could not be seen, and why: a reason can be hidden there.
    pub unseen: Vec<String>,
    /// The request that was most likely meant, where this one cannot succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<Asked>,
    /// The least that allows the request, ready to apply; empty where nothing is to be applied.
    pub fix: Vec<Value>,
}

impl Explanation {
    /// About something that no role changes.
    pub fn of(request: Asked, causes: Vec<Finding>) -> Explanation {
        let (near_misses, unseen) = (Vec::new(), Vec::new());
        Explanation { request, allowed: false, causes, near_misses, unseen, instead: None, fix: Vec::new() }
    }

    pub fn cause(&self) -> Option<Cause> {
        self.causes.first().map(|finding| finding.cause)
    }
}

/// Explains what becomes of a request.
pub fn explain(asked: &Asked, known: &Known) -> Explanation {
    let mut explanation = Explanation::of(asked.clone(), Vec::new());
    explanation.unseen = known.unseen.iter().map(|unseen| unseen.why.clone()).collect();
    if let Some(by) = allowed_by(asked, known) {
        if let Some(verdict) = known.verdict.as_ref().filter(|verdict| !verdict.allowed) {
            let message = format!("RBAC says {by}, yet the server refuses{}", colon(&verdict.reason));
            let repair = "look at its other authorizers (--authorization-mode, webhooks) and at the user's groups";
            explanation.causes.push(Finding::new(Cause::RefusedElsewhere, message, repair));
            return explanation;
        }
        explanation.allowed = true;
        explanation.causes.push(Finding::new(Cause::Allowed, by, ""));
        return explanation;
    }
    if asked.is_anonymous() {
        explanation.causes.push(anonymous());
        return explanation;
    }
    let (meant, faults) = meant(asked, known);
    let is_other = meant != *asked;
    if is_other && let Some(by) = ways::allowed_by(&meant, known) {
        explanation.causes = faults;
        explanation.causes.push(Finding::new(Cause::Allowed, format!("what was most likely meant is {by}"), ""));
        explanation.instead = Some(meant);
        return explanation;
    }
    let unmade = faults.iter().any(|fault| fault.cause == Cause::NamespaceMissing) && !is_other;
    let (causes, near_misses) = why(&meant, known);
    // Where the namespace is missing, that its bindings are missing too is no news.
    explanation.causes = faults;
    if !unmade {
        explanation.causes.extend(causes);
        explanation.causes.extend(impersonation::other_half(asked, known));
    }
    explanation.near_misses = near_misses;
    explanation.fix = fix(&meant);
    if unmade {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": asked.namespace}});
        explanation.fix.insert(0, namespace);
    }
    explanation.instead = is_other.then_some(meant);
    explanation
}

/// The least Role or ClusterRole for a request, and its binding. Their name is made of the request, so that applying them
/// twice changes nothing and applying them for another request changes no other's.
pub fn fix(asked: &Asked) -> Vec<Value> {
    let roles = exact_roles(&[asked.usage()], &fix_name(asked), &[]);
    let subject = Subject::of_user(&asked.user);
    roles.into_iter().flat_map(|role| [binding_of(&role, &subject), role].into_iter().rev()).collect()
}

/// The least that lets somebody hand out rights: to hold them. Where all of the rules can be held in one namespace, there.
pub fn fix_for_rules(user: &str, namespace: &str, rules: &[Rule]) -> Vec<Value> {
    let cluster = namespace.is_empty() || rules.iter().any(|rule| !rule.non_resource_urls.is_empty());
    let of_rules = Asked { user: user.into(), verb: "grant".into(), ..Asked::default() };
    let text = rules.iter().map(ToString::to_string).collect::<String>();
    let name = fix_name(&Asked { namespace: namespace.into(), name: text, ..of_rules });
    let mut metadata = json!({"name": name});
    if !cluster {
        metadata["namespace"] = json!(namespace);
    }
    let role = json!({
        "apiVersion": format!("{}/v1", crate::GROUP),
        "kind": if cluster { "ClusterRole" } else { "Role" },
        "metadata": metadata,
        "rules": rules.iter().map(Rule::to_value).collect::<Vec<_>>(),
    });
    let binding = binding_of(&role, &Subject::of_user(user));
    vec![role, binding]
}

/// `robot-list-pods-7k2xp`.
fn fix_name(asked: &Asked) -> String {
    /// Names of roles may be longer, but nobody reads them.
    const WORDS_BYTES_MAX: usize = 48;
    let user = account_of(&asked.user).map_or(asked.user.as_str(), |(_, name)| name);
    let what = if asked.is_path() { asked.path.clone() } else { asked.resource_and_subresource() };
    let words = [user, &asked.verb, &what].join("-").to_ascii_lowercase();
    let mut name = String::new();
    for c in words.chars() {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
        if name.len() >= WORDS_BYTES_MAX {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    let all = [
        &asked.user,
        &asked.verb,
        &asked.group,
        &asked.resource,
        &asked.subresource,
        &asked.namespace,
        &asked.name,
        &asked.path,
    ];
    format!("{name}-{}", letters(&all.map(String::as_str).join("\0")))
}

/// Five letters that stand for a text.
fn letters(text: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a: it must be the same everywhere, for ever; nothing depends on nobody finding another text for it.
    let mut hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut out = String::new();
    for _ in 0..5 {
        out.push(LETTERS[(hash % LETTERS.len() as u64) as usize] as char);
        hash /= LETTERS.len() as u64;
    }
    out
}

/// By what the very request is allowed that the server was asked about.
fn allowed_by(asked: &Asked, known: &Known) -> Option<String> {
    let by = ways::allowed_by(asked, known);
    // It sees more than we do: other authorizers, and what may not be read.
    let verdict = known.verdict.as_ref().filter(|verdict| verdict.allowed);
    by.or_else(|| verdict.map(|verdict| format!("allowed, says the server{}", colon(&verdict.reason))))
}

/// What stands between a request and its success, and what else came near.
fn why(asked: &Asked, known: &Known) -> (Vec<Finding>, Vec<NearMiss>) {
    let mut ways = ways::ways(asked, known);
    let first = ways.iter().position(Way::is_cause).map(|at| ways.remove(at));
    let misses = ways.into_iter().take(NEAR_MISSES_MAX);
    let near_misses = misses.map(|way| NearMiss { what: way.what, findings: way.findings }).collect();
    let causes = match first {
        Some(way) => way.findings,
        None => vec![ways::no_way(asked, known)],
    };
    (causes, near_misses)
}

fn anonymous() -> Finding {
    Finding::new(
        Cause::Anonymous,
        "the server takes the caller for system:anonymous: no token and no certificate reached it",
        "send a token (in a pod: that of /var/run/secrets/kubernetes.io/serviceaccount/token, as `Authorization: Bearer ..`); \
         rights for system:anonymous are rights for everybody",
    )
}

/// The request as it was most likely meant, and what is wrong with it as it stands.
fn meant(asked: &Asked, known: &Known) -> (Asked, Vec<Finding>) {
    let (mut meant, mut faults) = (asked.clone(), Vec::new());
    if asked.is_path() {
        return (meant, faults);
    }
    if let Some((served, subresource, fault)) = resource_meant(asked, known) {
        if let Some(served) = served {
            meant.group.clone_from(&served.group);
            meant.resource.clone_from(&served.plural);
            meant.subresource = subresource;
        }
        faults.push(fault);
    }
    let is_seen = known.sees(Part::Namespaces, "") && !known.namespaces.is_empty();
    if is_seen
        && !asked.namespace.is_empty()
        && asked.resource != "namespaces"
        && !known.namespaces.contains(&asked.namespace)
    {
        let near = known.namespaces.iter().find(|name| is_near(name, &asked.namespace));
        let message = format!("there is no namespace {}", go::quote(&asked.namespace));
        faults.push(match near {
            Some(near) => {
                meant.namespace.clone_from(near);
                let message = format!("{message}; there is one called {}", go::quote(near));
                Finding::new(Cause::NamespaceMissing, message, format!("ask in namespace {}", go::quote(near)))
            }
            None => Finding::new(
                Cause::NamespaceMissing,
                message,
                format!("make it (kubectl create namespace {}), or ask in another", asked.namespace),
            ),
        });
    }
    (meant, faults)
}

/// The resource that a request meant where the server has none as it was asked for; `None` where all is well or unknown.
fn resource_meant<'a>(asked: &Asked, known: &'a Known) -> Option<(Option<&'a Served>, String, Finding)> {
    let quiet = known.resources.is_empty() || !known.sees(Part::Resources, "");
    // These are checked for themselves, and are no objects that one could list.
    let special =
        matches!(asked.verb.as_str(), "impersonate" | "bind" | "escalate" | "use" | "approve" | "sign" | "attest")
            || asked.verb.starts_with("impersonate");
    if quiet || special || asked.resource == "*" || asked.group == "*" {
        return None;
    }
    let fault = |message: String, repair: String| Finding::new(Cause::ResourceUnknown, message, repair);
    let group = |group: &str| if group.is_empty() { "the core API group".into() } else { format!("API group {group}") };
    if let Some(served) = known.served(&asked.group, &asked.resource) {
        let has = asked.subresource.is_empty() || served.subresources.contains(&asked.subresource);
        if has || served.subresources.is_empty() {
            return None;
        }
        let near = served.subresources.iter().find(|sub| is_near(sub, &asked.subresource))?;
        let (wrong, right) = (asked.resource_and_subresource(), joined(&asked.resource, near));
        let message = format!("the server has no {wrong}; it is called {right}");
        return Some((Some(served), near.clone(), fault(message, format!("ask for {right}"))));
    }
    let elsewhere = known.resources.iter().find(|served| served.plural == asked.resource);
    let named = || known.resources.iter().find(|served| served.is_called(&asked.resource));
    let near = || known.resources.iter().find(|served| is_near(&served.plural, &asked.resource));
    let found = elsewhere.or_else(named).or_else(near);
    let message = format!("the server has no {} in {}", asked.resource, group(&asked.group));
    Some(match found {
        Some(served) => {
            let right = format!("{} of {}", served.plural, group(&served.group));
            let fault = fault(format!("{message}; it has {right}"), format!("ask for {right}"));
            (Some(served), asked.subresource.clone(), fault)
        }
        None => {
            let repair = "look at what there is: kubectl api-resources; a custom resource needs its definition first";
            (None, String::new(), fault(message, repair.into()))
        }
    })
}

impl Known {
    /// All that can allow a request in this namespace (`""`: in the whole cluster) is known.
    pub fn sees_rights(&self, namespace: &str) -> bool {
        let in_namespace = [Part::Roles, Part::RoleBindings];
        (namespace.is_empty() || in_namespace.iter().all(|part| self.sees(*part, namespace)))
            && self.sees(Part::ClusterRoles, "")
            && self.sees(Part::ClusterRoleBindings, "")
    }

    /// A part is known, in this namespace at least (`""`: in all of them).
    pub fn sees(&self, part: Part, namespace: &str) -> bool {
        !self.unseen.iter().any(|unseen| unseen.part == part && (namespace.is_empty() || unseen.except != namespace))
    }

    /// The role that a binding of a namespace refers to.
    pub fn role(&self, role: &RoleRef, namespace: &str) -> Option<&Role> {
        let namespace = if role.kind == "ClusterRole" { "" } else { namespace };
        let is_cluster = role.kind == "ClusterRole";
        self.roles.iter().find(|known| {
            known.name == role.name && known.namespace == namespace && (is_cluster || !namespace.is_empty())
        })
    }

    pub fn has_account(&self, namespace: &str, name: &str) -> bool {
        self.accounts.iter().any(|(of, account)| of == namespace && account == name)
    }

    /// A resource of a group.
    pub fn served(&self, group: &str, plural: &str) -> Option<&Served> {
        self.resources.iter().find(|served| served.group == group && served.plural == plural)
    }

    /// Some group has a resource of this name.
    pub(crate) fn is_resource(&self, plural: &str) -> bool {
        self.resources.iter().any(|served| served.plural == plural)
    }
}

impl Served {
    /// The word is another one for this resource.
    pub(crate) fn is_called(&self, word: &str) -> bool {
        let lower = word.to_lowercase();
        self.plural == lower || self.words.contains(&lower)
    }
}

/// `: text`, or nothing.
pub(crate) fn colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

#[cfg(test)]
mod tests;
