//! Who may do what: system:masters may do all, then the authorizers in order. Reads no request and writes no object;
//! it keeps an index of roles and bindings that its owner feeds. What a webhook says is waited for in a [`Hearing`] alone.

pub mod bootstrap;
pub mod chain;
pub mod configuration;
pub mod hearing;
pub mod node;
pub mod rbac;
pub mod reload;
mod review;
pub mod rules;
pub mod webhook;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use api::status::GroupResource;
use api::{FieldSelector, LabelSelector, Status, go};
use arc_swap::ArcSwap;
use rights::Rule;

use self::chain::{Authority, Chain};
pub use self::configuration::Options;
use self::configuration::Type;
pub use self::hearing::Hearing;
use crate::authn::{MASTERS, User};
use crate::impersonate::Impersonator;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    /// The plural name, without subresource.
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    /// `""` for the whole cluster.
    pub namespace: &'a str,
    /// The path of a request that is about no resource.
    pub path: &'a str,
    pub is_resource: bool,
    pub field_selector: Selecting<'a, FieldSelector>,
    pub label_selector: Selecting<'a, LabelSelector>,
}

/// A selector of a request: its text is read only where somebody wants to know.
#[derive(Debug)]
pub enum Selecting<'a, S> {
    None,
    Sent(&'a str),
    Read(&'a S),
}

impl<S> Clone for Selecting<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Selecting<'_, S> {}

impl<'a, S: Clone> Selecting<'a, S> {
    pub fn sent(text: Option<&'a str>) -> Selecting<'a, S> {
        text.map_or(Selecting::None, Selecting::Sent)
    }

    /// Nothing where there is none, or none that can be read.
    fn read(self, parse: impl Fn(&str) -> Result<S, String>) -> Option<Cow<'a, S>> {
        match self {
            Selecting::None => None,
            Selecting::Sent(text) => parse(text).ok().map(Cow::Owned),
            Selecting::Read(selector) => Some(Cow::Borrowed(selector)),
        }
    }
}

impl<'a> Attributes<'a> {
    /// The terms of the field selector, where there is a good one.
    pub fn fields(&self) -> Option<Cow<'a, FieldSelector>> {
        self.field_selector.read(FieldSelector::parse)
    }

    /// The terms of the label selector, where there is a good one.
    pub fn labels(&self) -> Option<Cow<'a, LabelSelector>> {
        self.label_selector.read(LabelSelector::parse)
    }
}

impl<'a> Attributes<'a> {
    /// A request about a resource; set the other fields on top of it.
    pub fn resource(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str) -> Attributes<'a> {
        Attributes {
            user,
            verb,
            group,
            version: "",
            resource,
            subresource: "",
            name: "",
            namespace: "",
            path: "",
            is_resource: true,
            field_selector: Selecting::None,
            label_selector: Selecting::None,
        }
    }

    /// A request about a path that is no resource; the verb is the HTTP method in lower case.
    pub fn path(user: &'a User, verb: &'a str, path: &'a str) -> Attributes<'a> {
        Attributes { path, is_resource: false, ..Attributes::resource(user, verb, "", "") }
    }

    /// What a rule looks at.
    pub fn wanted(&self) -> rights::Wanted<'a> {
        rights::Wanted {
            verb: self.verb,
            group: self.group,
            resource: self.resource,
            subresource: self.subresource,
            name: self.name,
            path: (!self.is_resource).then_some(self.path),
        }
    }

    /// The refusal as a client reads it; `reason` is that of [`Decision::NoOpinion`].
    pub fn forbidden(&self, reason: &str) -> Status {
        Status::forbidden(
            GroupResource { group: self.group, resource: self.resource },
            self.name,
            forbidden(self, reason),
        )
    }
}

/// What an authorizer says. The error is what went wrong while looking: who is not allowed for that reason learns that the
/// server failed, not that they are refused. `""` most of the time, as the reason is.
#[derive(Clone, Debug)]
pub enum Decision {
    Allow {
        reason: Reason,
    },
    /// Nobody allows it.
    NoOpinion {
        reason: String,
        error: String,
    },
    /// Somebody forbids it, whatever others would say.
    Deny {
        reason: String,
        error: String,
    },
}

impl Decision {
    /// Nothing to say.
    pub const NONE: Decision = Decision::NoOpinion { reason: String::new(), error: String::new() };

    pub fn no_opinion(reason: impl Into<String>) -> Decision {
        Decision::NoOpinion { reason: reason.into(), error: String::new() }
    }

    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }

    /// Why it is not allowed, and what went wrong; both `""` where it is allowed.
    pub fn refusal(&self) -> (&str, &str) {
        match self {
            Decision::Allow { .. } => ("", ""),
            Decision::NoOpinion { reason, error } | Decision::Deny { reason, error } => (reason, error),
        }
    }
}

/// Why something is allowed; the text is made only when somebody reads it.
#[derive(Clone, Debug)]
pub enum Reason {
    /// Member of system:masters.
    Privileged,
    /// A node, about itself or its pods.
    Node,
    /// A binding, by one of its subjects.
    Binding { binding: Arc<rights::Binding>, subject: usize },
    /// What a webhook says.
    Told(Arc<str>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Privileged | Reason::Node => Ok(()),
            Reason::Binding { binding, subject } => {
                f.write_str("RBAC: allowed by ")?;
                binding.describe(*subject, f)
            }
            Reason::Told(reason) => f.write_str(reason),
        }
    }
}

/// All authorizers, in order.
pub struct Authorizer {
    pub node: node::NodeAuthorizer,
    pub rbac: rbac::Rbac,
    /// Who may act as somebody else, and how they did it last.
    pub impersonator: Impersonator,
    /// The authorizers that are asked, in order.
    chain: ArcSwap<Chain>,
    configured: OnceLock<configuration::Loaded>,
    pub counts: chain::Counts,
}

impl Default for Authorizer {
    /// Node and RBAC, and nothing that they would allow.
    fn default() -> Authorizer {
        let counts = chain::Counts::default();
        let chain = ArcSwap::from_pointee(Chain::standard(&counts));
        Authorizer {
            node: node::NodeAuthorizer::default(),
            rbac: rbac::Rbac::default(),
            impersonator: Impersonator::default(),
            chain,
            configured: OnceLock::new(),
            counts,
        }
    }
}

impl Authorizer {
    pub fn of(rbac: rbac::Rbac) -> Authorizer {
        Authorizer { rbac, ..Authorizer::default() }
    }

    /// Asks others than Node and RBAC from now on. Once, at the start; what the file says later is [`reload`]'s.
    ///
    /// # Errors
    /// What is wrong with the connection to a webhook.
    pub fn configure(&self, loaded: configuration::Loaded) -> Result<(), String> {
        self.chain.store(Arc::new(Chain::of(&loaded.configuration, &self.counts)?));
        // The second time changes nothing.
        let _ = self.configured.set(loaded);
        Ok(())
    }

    /// Whether what a webhook says may have to be waited for.
    pub fn asks_webhooks(&self) -> bool {
        self.chain.load().asks_webhooks
    }

    /// Void where the hearing is open afterwards: then it is to be asked again, see [`Hearing::settle`].
    pub fn authorize(&self, attributes: &Attributes<'_>, hearing: &Hearing) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow { reason: Reason::Privileged };
        }
        let chain = self.chain.load();
        // What is void asks nobody anything.
        if chain.asks_webhooks && hearing.is_open() {
            return Decision::NONE;
        }
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for link in &chain.links {
            let decision = match &link.authority {
                Authority::Node => self.node.authorize(attributes),
                Authority::Rbac => self.rbac.authorize(attributes),
                Authority::AlwaysDeny => Decision::no_opinion("Everything is forbidden."),
                Authority::Webhook(webhook) => match hearing.hear(webhook, attributes) {
                    Some(decision) => decision,
                    None => return Decision::NONE,
                },
            };
            match decision {
                Decision::NoOpinion { reason, error } => {
                    if !reason.is_empty() {
                        reasons.push(format!("{}: {reason}", link.name));
                    }
                    if !error.is_empty() {
                        errors.push(error);
                    }
                }
                decision => {
                    link.decided.count(&decision);
                    return decision;
                }
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n"), error: aggregate(&errors) }
    }

    /// Refuses what is not allowed, in the words of the API server.
    pub fn require(&self, attributes: &Attributes<'_>, hearing: &Hearing) -> Result<(), Status> {
        let decision = self.authorize(attributes, hearing);
        match decision.refusal() {
            _ if decision.is_allowed() => Ok(()),
            (reason, "") => Err(attributes.forbidden(reason)),
            ("", error) => Err(attributes.forbidden(error)),
            (reason, error) => Err(attributes.forbidden(&format!("{error}: {reason}"))),
        }
    }

    /// All rules that a user is known to hold in a namespace, whether there may be more, and what could not be found out.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, bool, Vec<String>) {
        let (mut rules, mut incomplete, mut errors) = (Vec::new(), false, Vec::new());
        for link in &self.chain.load().links {
            match &link.authority {
                // What a node may do hangs on its pods.
                Authority::Node if node::node_name(user).is_some() => {
                    incomplete = true;
                    errors.push("node authorizer does not support user rule resolution".to_string());
                }
                Authority::Node | Authority::AlwaysDeny => {}
                Authority::Rbac => {
                    let (held, unresolved) = self.rbac.rules_for(user, namespace);
                    rules.extend(held);
                    errors.extend(unresolved);
                }
                Authority::Webhook(_) => {
                    incomplete = true;
                    errors.push("webhook authorizer does not support user rule resolution".to_string());
                }
            }
        }
        (rules, incomplete, errors)
    }

    /// The types of authorizers that a file must go on to name.
    fn required(&self) -> BTreeSet<Type> {
        self.configured.get().map(|loaded| loaded.configuration.types()).unwrap_or_default()
    }
}

/// The text behind `is forbidden: `.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> String {
    let Attributes { verb, group, namespace, path, .. } = attributes;
    let user = go::quote(&attributes.user.name);
    let text = if !attributes.is_resource {
        format!("User {user} cannot {verb} path {}", go::quote(path))
    } else {
        let resource = match attributes.subresource {
            "" => attributes.resource.to_string(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let place = match *namespace {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace {}", go::quote(namespace)),
        };
        format!("User {user} cannot {verb} resource {} in API group {} {place}", go::quote(&resource), go::quote(group))
    };
    // Names come from outside and may end up in a browser.
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if reason.is_empty() { text } else { format!("{text}: {reason}") }
}

/// Several errors as one text, each of them once.
pub(crate) fn aggregate(errors: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for error in errors {
        if !once.contains(&error.as_str()) {
            once.push(error);
        }
    }
    match once.as_slice() {
        [] => String::new(),
        [one] => one.to_string(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(attributes: Attributes<'_>, want: &str) {
        assert_eq!(attributes.forbidden("").message, want);
    }

    #[test]
    fn refusals() {
        let user = User::new("nobody", ["system:authenticated"]);
        let pods = Attributes::resource(&user, "list", "", "pods");
        check(
            Attributes { namespace: "ns", ..pods },
            r#"pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "ns""#,
        );
        check(
            Attributes { namespace: "ns", verb: "get", name: "p", subresource: "log", ..pods },
            r#"pods "p" is forbidden: User "nobody" cannot get resource "pods/log" in API group "" in the namespace "ns""#,
        );
        check(
            Attributes::resource(&user, "list", "batch", "jobs"),
            r#"jobs.batch is forbidden: User "nobody" cannot list resource "jobs" in API group "batch" at the cluster scope"#,
        );
        check(
            Attributes::path(&user, "get", "/a&b<c>"),
            r#"forbidden: User "nobody" cannot get path "/a&amp;b&lt;c&gt;""#,
        );
        let odd = User::new("has \"quotes\" & <tags>", Vec::<String>::new());
        check(
            Attributes { user: &odd, namespace: "ns", ..pods },
            r#"pods is forbidden: User "has \"quotes\" &amp; &lt;tags&gt;" cannot list resource "pods" in API group "" in the namespace "ns""#,
        );
    }
}
