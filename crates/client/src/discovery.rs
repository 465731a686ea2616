//! Which resources a server has, and which of them a word means: `po`, `pods`, `deploy`, `deployments.v1.apps`.
//! Asks for the aggregated documents, and walks the old ones where a server has no other.

use std::borrow::Cow;

use http::Method;
use http::header::{ACCEPT, HeaderValue};
use serde_json::Value;

use crate::client::{Client, request};
use crate::error::{Error, Result};
use crate::resource::ApiResource;
use crate::retry::Retries;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// All resources of a server, in the order in which a word is looked up.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Each version of each.
    pub resources: Vec<Discovered>,
}

/// A resource with what discovery tells beside its path.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovered {
    /// What makes its paths.
    pub resource: ApiResource,
    /// `pod`.
    pub singular: String,
    /// `po`.
    pub short_names: Vec<String>,
    /// `all`.
    pub categories: Vec<String>,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// `log`, `exec`, `status`.
    pub subresources: Vec<String>,
    /// This version is the one its group prefers.
    pub preferred: bool,
}

impl Discovery {
    /// Asks the server; two requests where it has aggregated discovery.
    pub async fn fetch(client: &Client) -> Result<Discovery> {
        let mut resources = Vec::new();
        let core = document(client, "/api").await?;
        match is_aggregated(&core) {
            true => resources.extend(aggregated(&core)),
            false => {
                for version in texts(&core["versions"]) {
                    resources.extend(legacy(&client.get(&format!("/api/{version}")).await?, "", &version, true));
                }
            }
        }
        let groups = document(client, "/apis").await?;
        match is_aggregated(&groups) {
            true => resources.extend(aggregated(&groups)),
            false => {
                for group in items(&groups["groups"]) {
                    resources.extend(legacy_group(client, group).await?);
                }
            }
        }
        Ok(Discovery { resources })
    }

    /// The resource that a word means: a plural, singular, short name or kind, perhaps with `.group` or `.version.group`.
    pub fn find(&self, word: &str) -> Option<&Discovered> {
        let lower = word.to_lowercase();
        let (name, rest) = lower.split_once('.').unwrap_or((lower.as_str(), ""));
        let in_group = |found: &&Discovered| {
            let resource = &found.resource;
            let version_first = rest.split_once('.').unwrap_or((rest, ""));
            rest.is_empty() || *resource.group == *rest || (&*resource.version, &*resource.group) == version_first
        };
        let named: Vec<&Discovered> = self.resources.iter().filter(in_group).filter(|found| found.is(name)).collect();
        // A plural beats a short name: another group's resource may be short for it.
        let best = |found: &&&Discovered| {
            let exact = found.resource.plural == name || found.singular == name;
            (!found.preferred, !exact)
        };
        named.iter().min_by_key(best).copied()
    }

    /// As [`Discovery::find`], with the message that kubectl gives.
    pub fn resolve(&self, word: &str) -> Result<&Discovered> {
        self.find(word).ok_or_else(|| {
            Error::Request(format!("the server doesn't have a resource type {}", ::api::go::quote(word)))
        })
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Discovered> {
        self.resources.iter().find(|found| found.resource.kind == kind && found.resource.api_version() == api_version)
    }

    /// The resources of a category, such as `all`.
    pub fn category<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Discovered> {
        self.resources.iter().filter(move |found| found.preferred && found.categories.iter().any(|word| word == name))
    }
}

impl Discovered {
    /// Whether this can be done with it.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|other| other == verb)
    }

    fn is(&self, name: &str) -> bool {
        *self.resource.plural == *name
            || self.singular == name
            || self.resource.kind.to_lowercase() == name
            || self.short_names.iter().any(|short| short == name)
    }
}

async fn document(client: &Client, path: &str) -> Result<Value> {
    let mut request = request(Method::GET, path, None)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(AGGREGATED));
    client.json(request).await
}

fn is_aggregated(document: &Value) -> bool {
    document["kind"] == "APIGroupDiscoveryList"
}

fn aggregated(document: &Value) -> Vec<Discovered> {
    let mut out = Vec::new();
    for group in items(&document["items"]) {
        for (at, version) in items(&group["versions"]).iter().enumerate() {
            for resource in items(&version["resources"]) {
                let kind = &resource["responseKind"];
                out.push(Discovered {
                    resource: ApiResource {
                        group: owned(&group["metadata"]["name"]),
                        version: owned(&version["version"]),
                        kind: owned(&kind["kind"]),
                        plural: owned(&resource["resource"]),
                        namespaced: resource["scope"] == "Namespaced",
                    },
                    singular: text(&resource["singularResource"]),
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    verbs: texts(&resource["verbs"]),
                    subresources: items(&resource["subresources"])
                        .iter()
                        .map(|sub| text(&sub["subresource"]))
                        .collect(),
                    preferred: at == 0,
                });
            }
        }
    }
    mark_preferred(out)
}

async fn legacy_group(client: &Client, group: &Value) -> Result<Vec<Discovered>> {
    let name = text(&group["name"]);
    let mut out = Vec::new();
    // One group whose own server is away neither hides the others nor holds them up.
    let client = client.clone().with_retries(Retries::NONE);
    for (at, version) in items(&group["versions"]).iter().enumerate() {
        let version = text(&version["version"]);
        match client.get(&format!("/apis/{name}/{version}")).await {
            Ok(list) => out.extend(legacy(&list, &name, &version, at == 0)),
            Err(error) => tracing::warn!(group = name, version, %error, "resources could not be discovered"),
        }
    }
    Ok(mark_preferred(out))
}

fn legacy(list: &Value, group: &str, version: &str, preferred: bool) -> Vec<Discovered> {
    let mut out: Vec<Discovered> = Vec::new();
    for resource in items(&list["resources"]) {
        let name = text(&resource["name"]);
        if let Some((parent, subresource)) = name.split_once('/') {
            if let Some(parent) = out.iter_mut().find(|found| found.resource.plural == parent) {
                parent.subresources.push(subresource.to_string());
            }
            continue;
        }
        out.push(Discovered {
            resource: ApiResource {
                group: Cow::Owned(group.to_string()),
                version: Cow::Owned(version.to_string()),
                kind: owned(&resource["kind"]),
                plural: Cow::Owned(name),
                namespaced: resource["namespaced"] == true,
            },
            singular: text(&resource["singularName"]),
            short_names: texts(&resource["shortNames"]),
            categories: texts(&resource["categories"]),
            verbs: texts(&resource["verbs"]),
            subresources: Vec::new(),
            preferred,
        });
    }
    out
}

/// A resource that only a lesser version has is the preferred one of its name.
fn mark_preferred(mut all: Vec<Discovered>) -> Vec<Discovered> {
    for at in 0..all.len() {
        let resource = &all[at].resource;
        let same =
            |other: &Discovered| (&other.resource.group, &other.resource.plural) == (&resource.group, &resource.plural);
        let first = !all[..at].iter().any(same);
        all[at].preferred = first;
    }
    all
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn owned(value: &Value) -> Cow<'static, str> {
    Cow::Owned(text(value))
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().map(text).collect()
}
