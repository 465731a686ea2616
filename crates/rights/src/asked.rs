//! A request as authorizers see it, whoever makes it. From a request line, and back to a sentence for people.

use api::refusal::Forbidden;
use api::{Ask, go};
use serde::{Deserialize, Serialize};

use crate::binding::account_of;
use crate::least::Usage;
use crate::rule::Wanted;

/// Who wants to do what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    pub user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    pub verb: String,
    /// `""` for the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural name, without subresource; `""` for a path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// `""` for the whole cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `""` where no object is named.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The path of a request that is about no resource, else `""`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl Asked {
    /// What a request asks for; nobody is named yet.
    pub fn of_request(ask: &Ask) -> Asked {
        let verb = ask.verb.as_str().to_string();
        match &ask.target {
            None => Asked { verb, path: ask.path.clone(), ..Asked::default() },
            Some(target) => Asked {
                verb,
                group: target.group.clone(),
                resource: target.resource.clone(),
                subresource: target.subresource.clone(),
                namespace: target.namespace.clone(),
                name: target.name.clone(),
                ..Asked::default()
            },
        }
    }

    /// What a refusal was about; of the user's groups only those that a service account always has are known.
    pub fn of_refusal(refusal: Forbidden) -> Asked {
        let Forbidden { user, verb, resource, group, namespace, name, path, .. } = refusal;
        let (resource, subresource) =
            resource.split_once('/').map(|(of, sub)| (of.into(), sub.into())).unwrap_or((resource, String::new()));
        let asked = Asked {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            path,
            groups: Vec::new(),
            user: String::new(),
        };
        asked.by(&user, groups_of(&user))
    }

    /// The same request by somebody.
    pub fn by(self, user: &str, groups: Vec<String>) -> Asked {
        Asked { user: user.to_string(), groups, ..self }
    }

    /// What a rule looks at.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted {
            verb: &self.verb,
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            name: &self.name,
            path: self.is_path().then_some(self.path.as_str()),
        }
    }

    pub fn is_path(&self) -> bool {
        !self.path.is_empty()
    }

    pub fn is_anonymous(&self) -> bool {
        self.user == "system:anonymous"
    }

    /// `pods` or `pods/log`.
    pub fn resource_and_subresource(&self) -> String {
        joined(&self.resource, &self.subresource)
    }

    /// `list pods in namespace "a"`, `get pods/log of "p" in namespace "a"`, `get path "/metrics"`.
    pub fn describe(&self) -> String {
        if self.is_path() {
            return format!("{} path {}", self.verb, go::quote(&self.path));
        }
        let resource = self.resource_and_subresource();
        let resource = if self.group.is_empty() { resource } else { format!("{resource} in API group {}", self.group) };
        let name = if self.name.is_empty() { String::new() } else { format!(" {}", go::quote(&self.name)) };
        let place = match self.namespace.as_str() {
            "" => "in the whole cluster".to_string(),
            namespace => format!("in namespace {}", go::quote(namespace)),
        };
        format!("{} {resource}{name} {place}", self.verb)
    }

    /// As something that was used.
    pub fn usage(&self) -> Usage {
        Usage {
            user: self.user.clone(),
            namespace: self.namespace.clone(),
            group: self.group.clone(),
            resource: self.resource_and_subresource(),
            verb: self.verb.clone(),
            name: self.name.clone(),
            path: self.path.clone(),
            allowed: false,
        }
    }
}

/// The groups that a user is in by its name alone. Others than service accounts may be in more.
pub fn groups_of(user: &str) -> Vec<String> {
    if user == "system:anonymous" {
        return vec!["system:unauthenticated".into()];
    }
    let mut groups = Vec::new();
    if let Some((namespace, _)) = account_of(user) {
        groups.extend(["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")]);
    }
    groups.push("system:authenticated".into());
    groups
}

/// `pods/log`, or `pods` without a subresource.
pub(crate) fn joined(resource: &str, subresource: &str) -> String {
    if subresource.is_empty() { resource.to_string() } else { format!("{resource}/{subresource}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_refusals_mean_the_same() {
        let ask = Ask::parse("GET", "/api/v1/namespaces/a/pods/p/log?follow=true").unwrap();
        let asked = Asked::of_request(&ask).by("system:serviceaccount:a:b", groups_of("system:serviceaccount:a:b"));
        let text = r#"pods "p" is forbidden: User "system:serviceaccount:a:b" cannot get resource "pods/log" in API group "" in the namespace "a""#;
        assert_eq!(Asked::of_refusal(Forbidden::parse(text).unwrap()), asked);
        assert_eq!(asked.describe(), r#"get pods/log "p" in namespace "a""#);
        let path = Asked::of_request(&Ask::parse("GET", "/metrics").unwrap());
        assert_eq!(path.describe(), r#"get path "/metrics""#);
    }
}
