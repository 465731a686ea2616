//! `kemudi logs`: what a container wrote.

use clap::Args;
use futures_util::StreamExt;
use kemudi_client::discovery::Discovery;
use kemudi_client::{Api, ApiResource, Dynamic, LabelSelector, ListOptions, LogOptions, Resource};
use serde_json::Value;

use super::resolve::resolve;
use super::{Failure, Global, Outcome, print};

#[derive(Args, Debug)]
pub struct Logs {
    /// POD, pod/POD, or TYPE/NAME of what selects pods
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,
    /// CONTAINER
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    container_word: Option<String>,
    /// Container, where the pod has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on as the log grows
    #[arg(short, long)]
    follow: bool,
    /// The container before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES", allow_negative_numbers = true, default_value_t = -1)]
    tail: i64,
    /// Only what is newer: 5s, 10m
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Only so many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<i64>,
    /// The pods with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "pod")]
    selector: Option<String>,
}

impl Logs {
    pub async fn run(self, global: &Global) -> Outcome {
        let client = global.client()?;
        let namespace = client.default_namespace().to_string();
        let pods = ApiResource::new("", "v1", "Pod", "pods", true);
        let api = Api::namespaced_of(client, &namespace, &pods);
        let found = match (&self.pod, &self.selector) {
            (Some(name), _) => vec![self.pod(&api, name, &namespace).await?],
            (None, selector) => {
                let labels = LabelSelector::parse(selector.as_deref().unwrap_or_default()).map_err(Failure::new)?;
                api.list_with(&ListOptions { labels, ..ListOptions::default() }).await?.items
            }
        };
        if found.is_empty() {
            eprintln!("No resources found in {namespace} namespace.");
        }
        for pod in found {
            let options = LogOptions { container: Some(self.container(&pod)?), ..self.options()? };
            let mut chunks = api.log_stream(pod.name(), &options).await?;
            while let Some(chunk) = chunks.next().await {
                print(chunk?)?;
            }
        }
        Ok(())
    }

    /// The named pod, or one of those that the named object (a Deployment, a Job) selects.
    async fn pod(&self, api: &Api<Dynamic>, word: &str, namespace: &str) -> Outcome<Dynamic> {
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
            return Err(Failure::new(format!("{word} selects no pods"))
                .hint(format!("name a pod: kemudi get pods -n {namespace}")));
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
    fn container(&self, pod: &Value) -> Outcome<String> {
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
        if let Some(name) = self.container.as_ref().or(self.container_word.as_ref()) {
            let known = [&main, &init, &ephemeral].iter().any(|names| names.contains(name));
            let pod = api::meta::name(pod);
            return match known {
                true => Ok(name.clone()),
                false => Err(Failure::new(format!(
                    "container {name} is not valid for pod {pod} out of: {}",
                    shown.join(", ")
                ))),
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

    fn options(&self) -> Outcome<LogOptions> {
        let since_seconds = match &self.since {
            None => None,
            Some(text) => {
                let seconds = api::go::parse_duration(text)
                    .map_err(|why| Failure::new(format!("invalid argument {text:?} for --since: {why}")))?;
                Some(seconds.ceil() as i64)
            }
        };
        // kubectl shows ten lines of each of several pods.
        let tail = if self.selector.is_some() && self.tail < 0 { 10 } else { self.tail };
        Ok(LogOptions {
            container: None,
            follow: self.follow,
            previous: self.previous,
            timestamps: self.timestamps,
            tail_lines: Some(tail).filter(|lines| *lines >= 0),
            since_seconds,
            limit_bytes: self.limit_bytes,
        })
    }
}
