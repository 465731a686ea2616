//! Policy rules: what one allows, and which ones cover which. Knows of no roles, bindings or users.

use std::collections::HashMap;
use std::fmt;

use api::{go, meta};
use serde_json::{Map, Value, json};

/// The verbs that Kubernetes' own resources know, in the order kubectl has them.
pub const VERBS: [&str; 12] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "escalate",
    "impersonate",
];

/// One request, as far as a rule looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub verb: &'a str,
    /// `""` for the core group.
    pub group: &'a str,
    /// The plural name, without subresource.
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    /// The path of a request that is about no resource; all but the verb is empty then.
    pub path: Option<&'a str>,
}

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

    pub fn allows(&self, wanted: &Wanted<'_>) -> bool {
        if !has_or_star(&self.verbs, wanted.verb) {
            return false;
        }
        if let Some(path) = wanted.path {
            return self.non_resource_urls.iter().any(|url| url_matches(url, path));
        }
        has_or_star(&self.api_groups, wanted.group)
            && self.resources.iter().any(|rule| resource_matches(rule, wanted.resource, wanted.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, wanted.name))
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

    /// Reads what [`Rule`]'s `Display` writes, as refusals to hand out rights have it.
    pub fn parse(text: &str) -> Option<Rule> {
        let text = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let mut rule = Rule::default();
        let mut rest = text;
        while !rest.is_empty() {
            let (field, list) = rest.split_once(":[")?;
            let mut items = Vec::new();
            let mut tail = list;
            while !tail.starts_with(']') {
                let (item, after) = api::refusal::unquote(tail)?;
                items.push(item);
                tail = after.strip_prefix(' ').unwrap_or(after);
            }
            *rule.list_mut(field)? = items;
            rest = tail[1..].strip_prefix(", ").unwrap_or(&tail[1..]);
        }
        Some(rule)
    }

    fn list_mut(&mut self, field: &str) -> Option<&mut Vec<String>> {
        Some(match field {
            "APIGroups" => &mut self.api_groups,
            "Resources" => &mut self.resources,
            "NonResourceURLs" => &mut self.non_resource_urls,
            "ResourceNames" => &mut self.resource_names,
            "Verbs" => &mut self.verbs,
            _ => return None,
        })
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
        let parts = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", go::quote_list(list)));
        write!(f, "{{{}}}", parts.collect::<Vec<_>>().join(", "))
    }
}

/// The single rights among `wanted` that no rule of `owned` covers.
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let single = wanted.iter().flat_map(Rule::break_down);
    single.filter(|right| !owned.iter().any(|own| own.covers(right))).collect()
}

/// Puts the verbs on the same thing together, in the order they came.
pub fn compact(rules: Vec<Rule>) -> Vec<Rule> {
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

pub(crate) fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == "*" || of == resource),
    }
}

pub(crate) fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

pub(crate) fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

pub(crate) fn has_or_star(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn has_all(list: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|item| has(list, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_parsed_back() {
        for text in [
            r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["a" "b"], Verbs:["get" "list"]}"#,
            r#"{NonResourceURLs:["/logs*"], Verbs:["get"]}"#,
            r#"{APIGroups:["" "x"], Resources:["*"], Verbs:["*"]}"#,
        ] {
            assert_eq!(Rule::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Rule::parse("{Verbs:[get]}"), None);
        assert_eq!(Rule::parse("{Other:[]}"), None);
    }
}
