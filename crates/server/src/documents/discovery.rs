//! Discovery: which groups, versions and resources are served. A view of the registry, in the plain documents of each
//! path and in the aggregated ones. Knows no kind by name.

use std::net::SocketAddr;
use std::sync::Arc;

use api::Status;
use kinds::{Group, GroupVersion, Kind, Subresource};
use serde_json::{Map, Value, json};

use super::{Ask, Document, Made, negotiate, not_found_text};
use crate::accept;
use crate::respond::Answer;

/// `/api`: the versions of the core group.
pub(super) fn core(ask: &Ask, made: &Arc<Made>, advertise: SocketAddr) -> Result<Answer, Status> {
    negotiate::restful(ask, accept::SUPPORTED)?;
    if let Some(form) = negotiate::aggregated(ask) {
        let document = made.document("aggregated api".into(), || aggregated(made.registry.group("").into_iter()));
        return Ok(negotiate::respond_aggregated(ask, &document, form));
    }
    let form = negotiate::plain(ask)?;
    let document = made.document("api".into(), || {
        let versions: Vec<&str> =
            made.registry.group("").map(|core| core.versions.iter().map(|v| &*v.version).collect()).unwrap_or_default();
        Document::plain(&json!({
            "kind": "APIVersions",
            "versions": versions,
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": advertise.to_string()}],
        }))
    });
    Ok(negotiate::respond(&document, form))
}

/// `/apis`: all groups but core.
pub(super) fn groups(ask: &Ask, made: &Arc<Made>, may_aggregate: bool) -> Result<Answer, Status> {
    let groups = || made.registry.groups().iter().filter(|group| !group.name.is_empty());
    if let Some(form) = negotiate::aggregated(ask).filter(|_| may_aggregate) {
        let document = made.document("aggregated apis".into(), || aggregated(groups()));
        return Ok(negotiate::respond_aggregated(ask, &document, form));
    }
    let form = negotiate::plain(ask)?;
    let document = made.document("apis".into(), || {
        let groups: Vec<Value> = groups().map(|group| Value::Object(api_group(group))).collect();
        Document::plain(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
    });
    Ok(negotiate::respond(&document, form))
}

/// `/apis/GROUP`: its versions. Any method answers, as in Kubernetes.
pub(super) fn group(ask: &Ask, made: &Arc<Made>, name: &str) -> Result<Answer, Status> {
    let Some(group) = made.registry.group(name) else { return Ok(not_found_text()) };
    let form = negotiate::plain(ask)?;
    let document = made.document(format!("apis/{name}"), || {
        let mut document = Map::from_iter([("kind".into(), "APIGroup".into()), ("apiVersion".into(), "v1".into())]);
        document.extend(api_group(group));
        Document::plain(&Value::Object(document))
    });
    Ok(negotiate::respond(&document, form))
}

/// `/api/VERSION` and `/apis/GROUP/VERSION`: the resources of a version.
pub(super) fn resources(ask: &Ask, made: &Arc<Made>, group: &str, version: &str) -> Result<Answer, Status> {
    let Some(found) = made.registry.group(group) else { return Ok(not_found_text()) };
    let Some(served) = found.version(version) else {
        return if found.custom { Ok(not_found_text()) } else { Err(Status::no_such_path()) };
    };
    if !found.custom {
        negotiate::restful(ask, accept::SUPPORTED)?;
    }
    let form = negotiate::plain(ask)?;
    let document = made.document(format!("{group}/{version}"), || api_resource_list(found, served));
    Ok(negotiate::respond(&document, form))
}

fn api_group(group: &Group) -> Map<String, Value> {
    let version = |v: &Arc<GroupVersion>| json!({"groupVersion": format!("{}/{}", group.name, v.version), "version": &*v.version});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let preferred = group.preferred().map(version).unwrap_or_default();
    Map::from_iter([
        ("name".into(), (&*group.name).into()),
        ("versions".into(), versions.into()),
        ("preferredVersion".into(), preferred),
    ])
}

fn api_resource_list(group: &Group, served: &GroupVersion) -> Document {
    let mut resources = Vec::new();
    for kind in &served.kinds {
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|sub| subresource(kind, sub)));
    }
    Document::plain(&match &*group.name {
        // The core group's list says no apiVersion.
        "" => json!({"kind": "APIResourceList", "groupVersion": &*served.version, "resources": resources}),
        name => json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": format!("{name}/{}", served.version),
            "resources": resources,
        }),
    })
}

fn resource(kind: &Kind) -> Value {
    let mut out = Map::from_iter([
        ("name".into(), (&*kind.plural).into()),
        ("singularName".into(), (&*kind.singular).into()),
        ("namespaced".into(), kind.namespaced.into()),
        ("kind".into(), (&*kind.kind).into()),
        ("verbs".into(), texts(&kind.verbs)),
    ]);
    put_names(&mut out, kind);
    if !kind.storage_version_hash.is_empty() {
        out.insert("storageVersionHash".into(), (&*kind.storage_version_hash).into());
    }
    Value::Object(out)
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut out = Map::from_iter([
        ("name".into(), format!("{}/{}", kind.plural, sub.name).into()),
        ("singularName".into(), "".into()),
        ("namespaced".into(), sub.namespaced.into()),
    ]);
    if !sub.version.is_empty() {
        out.insert("group".into(), (&*sub.group).into());
        out.insert("version".into(), (&*sub.version).into());
    }
    out.insert("kind".into(), (&*sub.kind).into());
    out.insert("verbs".into(), texts(&sub.verbs));
    Value::Object(out)
}

/// The aggregated document of groups.
fn aggregated<'a>(groups: impl Iterator<Item = &'a Arc<Group>>) -> Document {
    let items: Vec<Value> = groups.map(|group| group_discovery(group)).collect();
    Document::tagged(json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }))
}

fn group_discovery(group: &Group) -> Value {
    let metadata = match &*group.name {
        "" => json!({}),
        name => json!({"name": name}),
    };
    let version = |served: &Arc<GroupVersion>| {
        let resources: Vec<Value> = served.kinds.iter().map(|kind| resource_discovery(group, kind)).collect();
        json!({"version": &*served.version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"metadata": metadata, "versions": versions})
}

fn resource_discovery(group: &Group, kind: &Kind) -> Value {
    let mut out = Map::from_iter([
        ("resource".into(), (&*kind.plural).into()),
        ("responseKind".into(), response_kind(group, kind, "", "", &kind.kind)),
        ("scope".into(), if kind.namespaced { "Namespaced" } else { "Cluster" }.into()),
        ("singularResource".into(), (&*kind.singular).into()),
        ("verbs".into(), texts(&kind.verbs)),
    ]);
    put_names(&mut out, kind);
    let subresource = |sub: &Subresource| {
        json!({
            "subresource": &*sub.name,
            "responseKind": response_kind(group, kind, &sub.group, &sub.version, &sub.kind),
            "verbs": texts(&sub.verbs),
        })
    };
    if !kind.subresources.is_empty() {
        out.insert("subresources".into(), kind.subresources.iter().map(subresource).collect());
    }
    Value::Object(out)
}

/// Built-in resources leave their own group and version out, custom ones say them.
fn response_kind(group: &Group, of: &Kind, its_group: &str, its_version: &str, kind: &str) -> Value {
    match its_version {
        "" if group.custom => json!({"group": &*of.group, "version": &*of.version, "kind": kind}),
        _ => json!({"group": its_group, "version": its_version, "kind": kind}),
    }
}

fn put_names(out: &mut Map<String, Value>, kind: &Kind) {
    for (key, names) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !names.is_empty() {
            out.insert(key.into(), texts(names));
        }
    }
}

fn texts(names: &[Arc<str>]) -> Value {
    names.iter().map(|name| Value::from(&**name)).collect()
}
