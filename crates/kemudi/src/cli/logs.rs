//! `kemudi logs`: what a container wrote.

use clap::Args;
use futures_util::StreamExt;
use kemudi_client::{LabelSelector, ListOptions, LogOptions, Resource};

use super::{Failure, Global, Outcome, pods, print};

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
    /// Only what is not older than a time: 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<jiff::Timestamp>,
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
        let api = pods::api(client, &namespace);
        let found = match (&self.pod, &self.selector) {
            (Some(name), _) => vec![pods::find(&api, name, &namespace).await?],
            (None, selector) => {
                let labels = LabelSelector::parse(selector.as_deref().unwrap_or_default()).map_err(Failure::new)?;
                api.list_with(&ListOptions { labels, ..ListOptions::default() }).await?.items
            }
        };
        if found.is_empty() {
            eprintln!("No resources found in {namespace} namespace.");
        }
        for pod in found {
            let options = LogOptions {
                container: Some(pods::container(&pod, self.container.as_ref().or(self.container_word.as_ref()))?),
                ..self.options()?
            };
            let mut chunks = api.log_stream(pod.name(), &options).await?;
            while let Some(chunk) = chunks.next().await {
                print(chunk?)?;
            }
        }
        Ok(())
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
            since_time: self.since_time.map(|time| time.to_string()),
            limit_bytes: self.limit_bytes,
        })
    }
}
