//! CustomResourceDefinitions: names are given to who asks first in a group, and the status says so, which is what makes
//! the server serve them. A definition that is deleted goes when all that it defined is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use api::meta;
use kemudi_client::{Api, ApiResource, Client, Dynamic, Error, ListOptions, ObjectList, Resource};
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::empty_namespace::{delete_all, wait_for_deletions};
use crate::kinds::{DEFINITIONS, Metadata};
use crate::lean::Lent;
use crate::mirror::{Key, Mirror};

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVAL: &str = "api-approved.kubernetes.io";
/// Definitions that are being cleaned up at once, and whose names are looked at.
const TASKS_MAX: usize = 64;
/// Longest wait for a sign that something remaining went, before all is looked at again.
const WAIT_MAX: Duration = Duration::from_secs(30);

pub struct Definitions;

impl Controller for Definitions {
    fn name(&self) -> &'static str {
        "custom resource definitions"
    }

    fn tasks_max(&self) -> usize {
        TASKS_MAX
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(DEFINITIONS).lean(without_schemas)]
    }

    /// Names that one gives up are there for the others of its group.
    fn keys(&self, _: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let group = &object["spec"]["group"];
        let others = seen[0].iter().filter(|other| other["spec"]["group"] == *group);
        let mut keys: BTreeSet<&str> = others.map(meta::name).collect();
        keys.insert(object.name());
        keys.into_iter().map(|name| (String::new(), name.to_string())).collect()
    }

    fn decide(&self, (_, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some(definition) = seen[0].get("", name) else { return Vec::new() };
        if meta::is_deleting(definition) {
            let mine = meta::finalizers(definition).any(|finalizer| finalizer == FINALIZER);
            let (name, uid) = (name.clone(), meta::uid(definition).to_string());
            return if mine { vec![Action::CleanUp { name, uid }] } else { Vec::new() };
        }
        let taken = taken(definition, &seen[0]);
        let mut status = definition["status"].clone();
        accept_names(&mut status, &definition["spec"]["names"], &taken);
        approve(&mut status, definition);
        if status == definition["status"] {
            return Vec::new();
        }
        let mut object = definition.clone();
        object["status"] = status;
        vec![Action::ReplaceStatus { resource: DEFINITIONS, object }]
    }
}

/// What a controller reads of a definition, which is little of it.
pub fn without_schemas(definition: &Value) -> Option<Lent<'_>> {
    let mut definition = definition.clone();
    let versions = definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten().filter_map(Value::as_object_mut) {
        version.shift_remove("schema");
    }
    Some(Lent::Made(definition))
}

/// The names that definitions of the group have been given.
#[derive(Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

fn taken(definition: &Value, all: &Mirror) -> Taken {
    let mut taken = Taken::default();
    for other in all.iter().filter(|other| other["spec"]["group"] == definition["spec"]["group"]) {
        let names = &other["status"]["acceptedNames"];
        let texts = |fields: &[&str]| {
            fields.iter().filter_map(|field| names[*field].as_str()).map(str::to_owned).collect::<Vec<_>>()
        };
        taken.resources.extend(texts(&["plural", "singular"]));
        taken.resources.extend(items(&names["shortNames"]).map(str::to_owned));
        taken.kinds.extend(texts(&["kind", "listKind"]));
    }
    taken
}

fn items(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Takes over every wanted name that is free, and tells whether all are.
fn accept_names(status: &mut Value, wanted: &Value, taken: &Taken) {
    let mut accepted = status["acceptedNames"].clone();
    let mut conflict = None;
    let in_use = |name: &str| format!("{} is already in use", api::go::quote(name));
    for (field, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        let name = wanted[field].as_str().unwrap_or_default();
        match accepted[field] == wanted[field] || !taken.resources.contains(name) {
            true => set(&mut accepted, field, &wanted[field]),
            false => conflict = Some((reason, in_use(name))),
        }
    }
    let own: Vec<String> = items(&accepted["shortNames"]).map(str::to_owned).collect();
    let busy = |name: &&str| !own.iter().any(|own| own == name) && taken.resources.contains(*name);
    let busy: Vec<String> = items(&wanted["shortNames"]).filter(busy).map(in_use).collect();
    match busy.as_slice() {
        [] => set(&mut accepted, "shortNames", &wanted["shortNames"]),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = wanted[field].as_str().unwrap_or_default();
        match accepted[field] == wanted[field] || !taken.kinds.contains(name) {
            true => set(&mut accepted, field, &wanted[field]),
            false => conflict = Some((reason, in_use(name))),
        }
    }
    set(&mut accepted, "categories", &wanted["categories"]);
    status["acceptedNames"] = accepted;
    let all = conflict.is_none();
    let (reason, message) = conflict.unwrap_or(("NoConflicts", "no conflicts found".to_owned()));
    set_condition(status, "NamesAccepted", all, reason, &message);
    if !is_true(status, "Established") {
        match all {
            true => set_condition(
                status,
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
            false => set_condition(status, "Established", false, "NotAccepted", "not all names are accepted"),
        }
    }
}

fn set(names: &mut Value, field: &str, value: &Value) {
    match (value, names.as_object_mut()) {
        (Value::Null, Some(names)) => drop(names.shift_remove(field)),
        _ => names[field] = value.clone(),
    }
}

/// Groups of the community need its approval, or say that they have none.
fn approve(status: &mut Value, definition: &Value) {
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    if !protected {
        return;
    }
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let needs = format!("protected groups must have approval annotation {}", api::go::quote(APPROVAL));
    let text = meta::entry(definition, "annotations", APPROVAL).unwrap_or_default();
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/') && !text.contains(char::is_whitespace)
    });
    let (approved, reason, message) = match text {
        "" => (false, "MissingAnnotation", format!("{needs}, {see}")),
        _ if text.starts_with("unapproved") => {
            (false, "UnapprovedAnnotation", format!("not approved: {}", api::go::quote(text)))
        }
        _ if is_url => (true, "ApprovedAnnotation", format!("approved in {text}")),
        _ => {
            let message = format!("{needs} with either a URL or a reason starting with \"unapproved\", {see}");
            (false, "InvalidAnnotation", message)
        }
    };
    set_condition(status, "KubernetesAPIApprovalPolicyConformant", approved, reason, &message);
}

fn is_true(status: &Value, type_: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

/// A condition keeps its time as long as its status.
fn set_condition(status: &mut Value, type_: &str, is: bool, reason: &str, message: &str) {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let text = if is { "True" } else { "False" };
    let there = conditions.iter().position(|condition| condition["type"] == type_);
    let since =
        there.filter(|at| conditions[*at]["status"] == text).map(|at| conditions[at]["lastTransitionTime"].clone());
    let condition = json!({
        "type": type_,
        "status": text,
        "lastTransitionTime": since.unwrap_or_else(|| crate::event::time(jiff::Timestamp::now()).into()),
        "reason": reason,
        "message": message,
    });
    match there {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = Value::Array(conditions);
}

/// Deletes all that a definition defined, waits until it is gone, and lets the definition go.
pub async fn clean_up(client: &Client, name: &str, uid: &str) -> Result<(), Error> {
    let definitions = Api::<Dynamic>::all_of(client.clone(), &DEFINITIONS);
    let Some(mut definition) = definitions.get_opt(name).await? else { return Ok(()) };
    let mine = meta::finalizers(&definition.0).any(|finalizer| finalizer == FINALIZER);
    if definition.uid() != uid || !meta::is_deleting(&definition.0) || !mine {
        return Ok(());
    }
    match (is_true(&definition["status"], "Established"), resource_of(&definition)) {
        (true, Some(resource)) => {
            let message = "CustomResource deletion is in progress";
            definition = tell(&definitions, definition, true, "InstanceDeletionInProgress", message).await?;
            delete_instances(client, &resource).await?;
            let message = "removed all instances";
            definition = tell(&definitions, definition, false, "InstanceDeletionCompleted", message).await?;
        }
        (true, None) => {}
        (false, _) => {
            let message = "resource was never established";
            definition = tell(&definitions, definition, false, "NeverEstablished", message).await?;
        }
    }
    if let Some(finalizers) = definition.0.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    definitions.replace(&definition).await.map(drop)
}

/// A version in which the objects can be reached: one that is served, or, where none is, the one they are kept in.
fn resource_of(definition: &Value) -> Option<ApiResource> {
    let spec = &definition["spec"];
    let with = |flag: &str| spec["versions"].as_array()?.iter().find(|version| version[flag] == true);
    let served = with("served").or_else(|| with("storage"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = &definition["status"]["acceptedNames"];
    Some(ApiResource {
        group: text(&spec["group"]).into(),
        version: text(&served["name"]).into(),
        kind: text(&names["kind"]).into(),
        plural: text(&names["plural"]).into(),
        namespaced: spec["scope"] == "Namespaced",
    })
}

async fn tell(
    definitions: &Api<Dynamic>,
    mut definition: Dynamic,
    terminating: bool,
    reason: &str,
    message: &str,
) -> Result<Dynamic, Error> {
    let mut status = definition["status"].clone();
    set_condition(&mut status, "Terminating", terminating, reason, message);
    if status == definition["status"] {
        return Ok(definition);
    }
    definition["status"] = status;
    let name = definition.name().to_owned();
    definitions.replace_subresource::<Dynamic>(&name, "status", &definition).await
}

async fn delete_instances(client: &Client, resource: &ApiResource) -> Result<(), Error> {
    let all: Api<Metadata> = Api::of(client.clone(), resource, "");
    loop {
        let Some(list) = still_there(&all).await? else { return Ok(()) };
        let namespaces: BTreeSet<&str> = list.items.iter().map(|object| object.metadata.namespace.as_str()).collect();
        for namespace in namespaces {
            delete_all(client, namespace, resource).await?;
        }
        let Some(left) = still_there(&all).await? else { return Ok(()) };
        let revision = left.metadata.resource_version.parse().ok();
        wait_for_deletions(client, "", resource, left.items.len(), revision, WAIT_MAX).await?;
    }
}

/// What is left; nothing where there is no such resource any more either.
async fn still_there(all: &Api<Metadata>) -> Result<Option<ObjectList<Metadata>>, Error> {
    match all.list_with(&ListOptions::default()).await {
        Ok(list) if list.items.is_empty() => Ok(None),
        Ok(list) => Ok(Some(list)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_to_who_asks_first() {
        let wanted = json!({"plural": "wodgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd", "x"]});
        let mut taken = Taken::default();
        let mut fresh = json!({"acceptedNames": {"plural": "", "kind": ""}});
        accept_names(&mut fresh, &wanted, &taken);
        assert_eq!(fresh["acceptedNames"]["shortNames"], json!(["wd", "x"]));
        assert!(is_true(&fresh, "NamesAccepted") && is_true(&fresh, "Established"));

        taken.resources.extend(["widgets", "widget", "wd"].map(str::to_owned));
        taken.kinds.extend(["Widget", "WidgetList"].map(str::to_owned));
        let mut second = json!({"acceptedNames": {"plural": "", "kind": ""}});
        accept_names(&mut second, &wanted, &taken);
        assert_eq!(second["acceptedNames"], json!({"plural": "wodgets", "kind": ""}));
        let condition = &second["conditions"][0];
        assert_eq!(
            (condition["reason"].as_str(), condition["message"].as_str()),
            (Some("ListKindConflict"), Some("\"WidgetList\" is already in use"))
        );
        assert_eq!(second["conditions"][1]["reason"], "NotAccepted");
        // What is its own already is no conflict.
        let before = fresh.clone();
        accept_names(&mut fresh, &wanted, &taken);
        assert_eq!(fresh, before);
    }
}
