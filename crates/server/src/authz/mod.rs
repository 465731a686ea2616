//! Who may do what: system:masters may do all, then the authorizers in order. Reads no request and writes no object;
//! it keeps an index of roles and bindings that its owner feeds.

pub mod bootstrap;
pub mod node;
pub mod rbac;
pub mod rules;

use std::fmt;
use std::sync::Arc;

use api::status::GroupResource;
use api::{Status, go};

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
    /// The selectors as they were sent.
    pub field_selector: Option<&'a str>,
    pub label_selector: Option<&'a str>,
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
            field_selector: None,
            label_selector: None,
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

/// What an authorizer says.
#[derive(Clone, Debug)]
pub enum Decision {
    Allow {
        reason: Reason,
    },
    /// Nobody allows it. The reason holds what went wrong while looking, and is `""` most of the time.
    NoOpinion {
        reason: String,
    },
    Deny {
        reason: String,
    },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
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
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Privileged | Reason::Node => Ok(()),
            Reason::Binding { binding, subject } => {
                f.write_str("RBAC: allowed by ")?;
                binding.describe(*subject, f)
            }
        }
    }
}

type Authorize = fn(&Authorizer, &Attributes<'_>) -> Decision;

/// The authorizers by name: the first that has an opinion is heard.
const IN_ORDER: [(&str, Authorize); 2] = [
    ("node", |all, attributes| all.node.authorize(attributes)),
    ("rbac", |all, attributes| all.rbac.authorize(attributes)),
];

/// All authorizers, in order.
#[derive(Default)]
pub struct Authorizer {
    pub node: node::NodeAuthorizer,
    pub rbac: rbac::Rbac,
    /// Who may act as somebody else, and how they did it last.
    pub impersonator: Impersonator,
}

impl Authorizer {
    pub fn of(rbac: rbac::Rbac) -> Authorizer {
        Authorizer { rbac, ..Authorizer::default() }
    }

    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow { reason: Reason::Privileged };
        }
        let mut reasons = Vec::new();
        for (name, authorize) in IN_ORDER {
            match authorize(self, attributes) {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(format!("{name}: {reason}")),
                decision => return decision,
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    /// Refuses what is not allowed, in the words of the API server.
    pub fn require(&self, attributes: &Attributes<'_>) -> Result<Reason, Status> {
        match self.authorize(attributes) {
            Decision::Allow { reason } => Ok(reason),
            Decision::NoOpinion { reason } | Decision::Deny { reason } => Err(attributes.forbidden(&reason)),
        }
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
