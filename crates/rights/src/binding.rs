//! Roles and bindings as objects say them, and whom a binding reaches. Looks nothing up: that a role is there is not known here.

use std::fmt;

use api::{go, meta};
use serde_json::{Value, json};

use crate::rule::Rule;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// A Role, or a ClusterRole where the namespace is `""`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub namespace: String,
    pub rules: Vec<Rule>,
    /// It takes its rules from other ClusterRoles, by their labels.
    pub aggregates: bool,
    /// Every cluster starts with it.
    pub is_default: bool,
}

/// A RoleBinding, or a ClusterRoleBinding where the namespace is `""`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    pub name: String,
    pub namespace: String,
    pub role: RoleRef,
    pub subjects: Vec<Subject>,
    /// Every cluster starts with it.
    pub is_default: bool,
}

/// What a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    pub name: String,
}

/// Whom a binding reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

impl Role {
    /// Reads a Role or ClusterRole; what is absent or of another shape is empty.
    pub fn of(object: &Value) -> Role {
        Role {
            name: meta::name(object).to_string(),
            namespace: meta::namespace(object).to_string(),
            rules: Rule::all_of(object),
            aggregates: !meta::items_at(object, &["aggregationRule", "clusterRoleSelectors"]).is_empty(),
            is_default: is_default(object),
        }
    }

    pub fn kind(&self) -> &'static str {
        if self.namespace.is_empty() { "ClusterRole" } else { "Role" }
    }
}

impl Binding {
    /// Reads a RoleBinding or ClusterRoleBinding; what is absent or of another shape is empty.
    pub fn of(object: &Value) -> Binding {
        let subjects = meta::items_at(object, &["subjects"]).iter().map(|subject| {
            let text = |field: &str| meta::text_at(subject, &[field]).to_string();
            Subject { kind: text("kind"), name: text("name"), namespace: text("namespace") }
        });
        Binding {
            name: meta::name(object).to_string(),
            namespace: meta::namespace(object).to_string(),
            role: RoleRef::of(object),
            subjects: subjects.collect(),
            is_default: is_default(object),
        }
    }

    pub fn kind(&self) -> &'static str {
        if self.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" }
    }

    /// By which of its subjects the binding reaches somebody.
    pub fn reaches(&self, user: &str, groups: &[String]) -> Option<usize> {
        self.subjects.iter().position(|subject| subject.is(user, groups, &self.namespace))
    }

    /// `RoleBinding "b/ns" of Role "r" to User "u"`, as the API server gives for a reason.
    pub fn describe(&self, subject: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{}/{namespace}", self.name),
        };
        write!(f, "{} {} of {} {}", self.kind(), go::quote(&name), self.role.kind, go::quote(&self.role.name))?;
        let Some(subject) = self.subjects.get(subject) else { return Ok(()) };
        let name = match (subject.kind.as_str(), subject.namespace.as_str()) {
            ("ServiceAccount", "") => format!("{}/{}", subject.name, self.namespace),
            ("ServiceAccount", namespace) => format!("{}/{namespace}", subject.name),
            _ => subject.name.clone(),
        };
        write!(f, " to {} {}", subject.kind, go::quote(&name))
    }
}

impl RoleRef {
    /// The `roleRef` of a binding.
    pub fn of(binding: &Value) -> RoleRef {
        let text = |field: &str| meta::text_at(binding, &["roleRef", field]).to_string();
        RoleRef { kind: text("kind"), name: text("name") }
    }
}

impl Subject {
    /// Whether this means somebody, in a binding of a namespace (`""` for a ClusterRoleBinding).
    pub fn is(&self, user: &str, groups: &[String], binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user,
            "Group" => groups.contains(&self.name),
            "ServiceAccount" => {
                let namespace = self.account_namespace(binding_namespace);
                let rest = user.strip_prefix(ACCOUNT_PREFIX);
                let rest = rest.and_then(|rest| rest.strip_prefix(namespace)).and_then(|rest| rest.strip_prefix(':'));
                !namespace.is_empty() && rest == Some(&self.name)
            }
            _ => false,
        }
    }

    /// The namespace of a service account: that of the binding where the subject has none.
    pub fn account_namespace<'a>(&'a self, binding_namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() { binding_namespace } else { &self.namespace }
    }

    /// The subject of a binding for a user of this name.
    pub fn of_user(user: &str) -> Subject {
        let (kind, name, namespace) = match account_of(user) {
            Some((namespace, name)) => ("ServiceAccount", name, namespace),
            None => ("User", user, ""),
        };
        Subject { kind: kind.into(), name: name.into(), namespace: namespace.into() }
    }

    /// As it stands in a binding.
    pub fn to_value(&self) -> Value {
        match self.kind.as_str() {
            "ServiceAccount" => json!({"kind": self.kind, "name": self.name, "namespace": self.namespace}),
            _ => json!({"kind": self.kind, "apiGroup": GROUP, "name": self.name}),
        }
    }
}

/// Namespace and name of the service account that a user name stands for.
pub fn account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The user name of a service account.
pub fn user_of(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

fn is_default(object: &Value) -> bool {
    meta::entry(object, "labels", "kubernetes.io/bootstrapping") == Some("rbac-defaults")
}
