//! Which pod and which container a word on the command line means, as kubectl takes it.

use kemudi_client::discovery::Discovery;
use kemudi_client::{Api, ApiResource, Client, Dynamic, LabelSelector, ListOptions, Resource};
use serde_json::Value;

use super::resolve::resolve;
use super::{Failure, Outcome};

/// The pods of a namespace.
pub fn api(client: Client, namespace: &str) -> Api<Dynamic> {
    Api::namespaced_of(client, namespace, &ApiResource::new("", "v1", "Pod", "pods", true))
}

/// The named pod, or one of those that the named object (a Deployment, a Job) selects.
pub async fn find(api: &Api<Dynamic>, word: &str, namespace: &str) -> Outcome<Dynamic> {
    let missing = |of: &str, name: &str| {
        Failure::new(format!("error from server (NotFound): {of} {name:?} not found in namespace {namespace:?}"))
            .hint(format!("see which there are: kemudi get {of} -n {namespace}"))
    };
    let (kind, name) = match word.split_once('/') {
        None | Some(("pod" | "pods" | "po", _)) => {
            let name = word.split_once('/').map_or(word, |(_, name)| name);
            return api.get_opt(name).await?.ok_or_else(|| missing("pods", name));
        }
        Some(pair) => pair,
    };
    let discovery = Discovery::fetch(api.client()).await?;
    let resource = &resolve(&discovery, kind)?.resource;
    let owner = Api::namespaced_of(api.client().clone(), namespace, resource).get_opt(name).await?;
    let owner = owner.ok_or_else(|| missing(&resource.group_resource(), name))?;
    let labels = api::meta::at(&owner, &["spec", "selector", "matchLabels"]).and_then(Value::as_object);
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if selector.is_empty() {
        return Err(
            Failure::new(format!("{word} selects no pods")).hint(format!("name a pod: kemudi get pods -n {namespace}"))
        );
    }
    let labels = LabelSelector::parse(&selector.join(",")).map_err(Failure::new)?;
    let mut pods = api.list_with(&ListOptions { labels, ..ListOptions::default() }).await?.items;
    pods.sort_by_key(|pod| api::meta::text_at(pod, &["status", "phase"]) != "Running");
    let found = pods.len();
    let pod = pods.into_iter().next().ok_or_else(|| Failure::new(format!("{word} has no pods now")))?;
    if found > 1 {
        eprintln!("Found {found} pods, using pod/{}", pod.name());
    }
    Ok(pod)
}

/// The container that is meant: the named one, the annotated one, the first.
pub fn container(pod: &Value, named: Option<&String>) -> Outcome<String> {
    let names = |field: &str| -> Vec<String> {
        let list = api::meta::items_at(pod, &["spec", field]);
        list.iter().map(|container| container["name"].as_str().unwrap_or_default().to_string()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let shown: Vec<String> = main
        .iter()
        .cloned()
        .chain(init.iter().map(|name| format!("{name} (init)")))
        .chain(ephemeral.iter().map(|name| format!("{name} (ephem)")))
        .collect();
    if let Some(name) = named {
        let known = [&main, &init, &ephemeral].iter().any(|names| names.contains(name));
        let pod = api::meta::name(pod);
        return match known {
            true => Ok(name.clone()),
            false => {
                Err(Failure::new(format!("container {name} is not valid for pod {pod} out of: {}", shown.join(", "))))
            }
        };
    }
    let annotated = api::meta::entry(pod, "annotations", "kubectl.kubernetes.io/default-container");
    if let Some(name) = annotated.filter(|name| main.iter().any(|other| other == name)) {
        return Ok(name.to_string());
    }
    let first = main.first().cloned().unwrap_or_default();
    if shown.len() > 1 {
        eprintln!("Defaulted container {first:?} out of: {}", shown.join(", "));
    }
    Ok(first)
}
