//! FlowSchemas: what requests they take, and into which flows they part them. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use api::{Ask, meta};
use http::HeaderValue;
use serde_json::Value;

use super::level::{Level, REFUSED_COUNT};
use crate::authn::{User, service_account};
use crate::metrics::{Histogram, WAITS};

/// A schema in use, with the level it leads to.
pub struct Schema {
    pub name: Arc<str>,
    /// Of the object; empty while it is not there.
    pub uid: HeaderValue,
    pub level_uid: HeaderValue,
    pub rules: Arc<Rules>,
    pub level: Arc<Level>,
    pub statistics: Arc<Statistics>,
}

/// What is counted of a schema's requests.
#[derive(Default)]
pub struct Statistics {
    /// Requests that hold seats, and their seats.
    pub executing: AtomicU32,
    pub seats: AtomicU32,
    pub waiting: AtomicU32,
    pub dispatched: AtomicU64,
    /// In the order of [`super::Refused::ALL`].
    pub refused: [AtomicU64; REFUSED_COUNT],
    /// How long those who got seats had waited.
    pub waits: Histogram<{ WAITS.len() }>,
}

/// What a FlowSchema says, read.
#[derive(Debug)]
pub struct Rules {
    /// The name of the level it leads to.
    pub level: String,
    pub precedence: i64,
    by: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(Names),
    Group(Names),
    /// A namespace, and a name in it or all.
    ServiceAccount(String, Names),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster_scope: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Names,
    paths: Vec<String>,
}

/// Some names, or any.
#[derive(Debug)]
enum Names {
    Any,
    Of(Vec<String>),
}

impl Schema {
    /// A number for the flow of a request: equal flows have equal ones.
    pub fn flow(&self, user: &User, ask: &Ask) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.rules.by {
            Distinguisher::None => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => ask.target.as_ref().map_or("", |target| &target.namespace).hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl Rules {
    pub fn of(schema: &Value) -> Rules {
        let spec = &schema["spec"];
        Rules {
            level: meta::text_at(spec, &["priorityLevelConfiguration", "name"]).to_string(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or_default(),
            by: match meta::text_at(spec, &["distinguisherMethod", "type"]) {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: meta::items_at(spec, &["rules"]).iter().map(Rule::of).collect(),
        }
    }

    /// Whether a request falls under this schema.
    pub fn take(&self, user: &User, ask: &Ask) -> bool {
        // What is asked is looked at first: most rules are ruled out by it without comparing identities.
        self.rules.iter().any(|rule| rule.is_about(ask) && rule.subjects.iter().any(|subject| subject.is(user)))
    }
}

impl Rule {
    fn of(rule: &Value) -> Rule {
        let each = |field| meta::items_at(rule, &[field]).iter();
        Rule {
            subjects: each("subjects").filter_map(Subject::of).collect(),
            resources: each("resourceRules").map(ResourceRule::of).collect(),
            paths: each("nonResourceRules").map(PathRule::of).collect(),
        }
    }

    fn is_about(&self, ask: &Ask) -> bool {
        match &ask.target {
            Some(target) => self.resources.iter().any(|rule| rule.takes(ask.verb.as_str(), target)),
            None => self.paths.iter().any(|rule| rule.takes(ask.verb.as_str(), &ask.path)),
        }
    }
}

impl Subject {
    fn of(subject: &Value) -> Option<Subject> {
        let name = |of: &str| Names::one(meta::text_at(subject, &[of, "name"]));
        match meta::text_at(subject, &["kind"]) {
            "User" => Some(Subject::User(name("user"))),
            "Group" => Some(Subject::Group(name("group"))),
            "ServiceAccount" => {
                let namespace = meta::text_at(subject, &["serviceAccount", "namespace"]).to_string();
                Some(Subject::ServiceAccount(namespace, name("serviceAccount")))
            }
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(names) => names.has(&user.name),
            Subject::Group(Names::Any) => true,
            Subject::Group(names) => user.groups.iter().any(|group| names.has(group)),
            Subject::ServiceAccount(namespace, names) => {
                let rest = user.name.strip_prefix(service_account::USER_PREFIX);
                let name = rest.and_then(|rest| rest.strip_prefix(namespace.as_str())?.strip_prefix(':'));
                name.is_some_and(|name| names.has(name))
            }
        }
    }
}

impl ResourceRule {
    fn of(rule: &Value) -> ResourceRule {
        ResourceRule {
            verbs: Names::of(rule, "verbs"),
            groups: Names::of(rule, "apiGroups"),
            resources: Names::of(rule, "resources"),
            namespaces: Names::of(rule, "namespaces"),
            cluster_scope: rule["clusterScope"].as_bool().unwrap_or(false),
        }
    }

    fn takes(&self, verb: &str, target: &api::Target) -> bool {
        let resource = || match target.subresource.as_str() {
            "" => self.resources.has(&target.resource),
            subresource => self.resources.has_joined(&target.resource, subresource),
        };
        let place = || match target.namespace.as_str() {
            "" => self.cluster_scope,
            namespace => self.namespaces.has(namespace),
        };
        self.verbs.has(verb) && self.groups.has(&target.group) && resource() && place()
    }
}

impl PathRule {
    fn of(rule: &Value) -> PathRule {
        let paths = meta::items_at(rule, &["nonResourceURLs"]).iter();
        PathRule {
            verbs: Names::of(rule, "verbs"),
            paths: paths.filter_map(Value::as_str).map(str::to_string).collect(),
        }
    }

    /// A path stands for all below it too.
    fn takes(&self, verb: &str, path: &str) -> bool {
        let below = |rule: &str| {
            let prefix = rule.trim_end_matches('*').trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        self.verbs.has(verb) && self.paths.iter().any(|rule| rule == "*" || rule == path || below(rule))
    }
}

impl Names {
    fn one(name: &str) -> Names {
        if name == "*" { Names::Any } else { Names::Of(vec![name.to_string()]) }
    }

    fn of(rule: &Value, field: &str) -> Names {
        let names: Vec<String> =
            meta::items_at(rule, &[field]).iter().filter_map(Value::as_str).map(str::to_string).collect();
        if names == ["*"] { Names::Any } else { Names::Of(names) }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Names::Any => true,
            Names::Of(names) => names.iter().any(|known| known == name),
        }
    }

    /// Whether `a/b` is among them.
    fn has_joined(&self, a: &str, b: &str) -> bool {
        match self {
            Names::Any => true,
            Names::Of(names) => names.iter().any(|known| known.split_once('/') == Some((a, b))),
        }
    }
}
