//! `kemudi delete`: objects by name, selector or file; waits until they are gone.

use std::time::Duration;

use clap::Args;
use kemudi_client::discovery::{Discovered, Discovery};
use kemudi_client::{
    Api, Client, DeleteOptions, Dynamic, Error, FieldSelector, LabelSelector, ListOptions, Resource, WatchEvent,
};
use tokio::time::{Instant, timeout_at};

use super::apply::{dry_run, dry_run_note};
use super::files;
use super::resolve::{Failures, asked, of_file, singular_name};
use super::{Failure, Global, Outcome, print};

/// How long is waited where no timeout is given: kubectl's week.
const WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Args, Debug)]
pub struct Delete {
    /// TYPE[,TYPE..] NAME.. or TYPE/NAME ..
    #[arg(value_name = "TYPE")]
    words: Vec<String>,
    /// File, folder or - for stdin; may be repeated
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Labels to select by
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Fields to select by
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Seconds that pods are given to end
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// As --grace-period=1
    #[arg(long)]
    now: bool,
    /// With --grace-period=0: do not wait for pods to end
    #[arg(long)]
    force: bool,
    /// background, foreground or orphan: what happens to dependents
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "background", default_value = "background")]
    cascade: String,
    /// Return when the objects are gone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait: 30s, 5m; 0 for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    timeout: String,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// name: print only TYPE/NAME
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// server: let the server check it without doing it; client: only say what would be sent
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "client", default_value = "none")]
    dry_run: String,
}

/// One object to delete.
struct Doomed {
    found: Discovered,
    api: Api<Dynamic>,
    namespace: String,
    name: String,
    /// How its errors begin.
    doing: String,
}

impl Delete {
    pub async fn run(self, global: &Global) -> Outcome {
        let options = self.options()?;
        let deadline = Instant::now() + self.patience()?;
        let client = global.client()?;
        let discovery = Discovery::fetch(&client).await?;
        let mut failures = Failures::default();
        let doomed = match self.filename.is_empty() {
            true => self.of_words(&client, &discovery).await?,
            false => self.of_files(&client, &discovery, global, &mut failures)?,
        };
        if self.force && options.grace_period_seconds == Some(0) && !doomed.is_empty() {
            eprintln!(
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. \
                 The resource may continue to run on the cluster indefinitely."
            );
        }
        let mut leaving = Vec::new();
        for one in doomed {
            match self.one(&one, &options).await {
                Ok(uid) => {
                    self.tell(&one)?;
                    leaving.push((one, uid));
                }
                Err(error)
                    if error.is_not_found() && (self.ignore_not_found || self.all || self.selector.is_some()) => {}
                Err(error) => failures.add_error(&one.doing, error),
            }
        }
        if self.wait && self.dry_run == "none" {
            for (one, uid) in leaving {
                if timeout_at(deadline, gone(&one, &uid)).await.is_err() {
                    let of = one.found.resource.group_resource();
                    let text = format!("timed out waiting for the condition on {of}/{}", one.name);
                    failures.add(
                        Failure::new(text).hint("see what keeps it: its metadata.finalizers, and for pods their node"),
                    );
                }
            }
        }
        failures.finish()
    }

    async fn of_words(&self, client: &Client, discovery: &Discovery) -> Outcome<Vec<Doomed>> {
        if self.words.is_empty() {
            return Err(Failure::new("You must provide one or more resources by argument or filename.")
                .hint("kemudi delete TYPE NAME, or kemudi delete -f FILE"));
        }
        let selects = self.selector.is_some() || self.field_selector.is_some();
        let mut out = Vec::new();
        for asked in asked(discovery, &self.words)? {
            let namespace = if self.all_namespaces { "" } else { client.default_namespace() };
            let mut names: Vec<(String, String)> =
                asked.names.iter().map(|name| (client.default_namespace().to_string(), name.clone())).collect();
            match (names.is_empty(), selects || self.all) {
                (false, true) => return Err(Failure::new("name cannot be provided when a selector is specified")),
                (true, false) => return Err(Failure::new("resource(s) were provided, but no name was specified")),
                (true, true) => {
                    let api = Api::namespaced_of(client.clone(), namespace, &asked.found.resource);
                    let list = api.list_with(&self.selectors()?).await?;
                    names = list
                        .into_iter()
                        .map(|object| (object.namespace().to_string(), object.name().to_string()))
                        .collect();
                }
                (false, false) => {}
            }
            out.extend(names.into_iter().map(|(namespace, name)| Doomed {
                api: Api::namespaced_of(client.clone(), &namespace, &asked.found.resource),
                found: asked.found.clone(),
                namespace,
                name,
                doing: String::new(),
            }));
        }
        if out.is_empty() {
            print("No resources found\n")?;
        }
        Ok(out)
    }

    fn of_files(
        &self,
        client: &Client,
        discovery: &Discovery,
        global: &Global,
        failures: &mut Failures,
    ) -> Outcome<Vec<Doomed>> {
        let mut out = Vec::new();
        for source in files::read(&self.filename)? {
            match of_file(discovery, client, &source, global.namespace.as_deref()) {
                Ok((found, api)) => {
                    let namespace = match api::meta::namespace(&source.object) {
                        "" => client.default_namespace().to_string(),
                        namespace => namespace.to_string(),
                    };
                    let name = api::meta::name(&source.object).to_string();
                    out.push(Doomed {
                        found,
                        api,
                        namespace,
                        name,
                        doing: format!("error when deleting {:?}", source.file),
                    });
                }
                Err(failure) => failures.add(failure),
            }
        }
        Ok(out)
    }

    async fn one(&self, one: &Doomed, options: &DeleteOptions) -> Result<String, Error> {
        if self.dry_run == "client" {
            return one.api.get(&one.name).await.map(|object| object.uid().to_string());
        }
        let uid = match one.api.delete_with(&one.name, options).await? {
            kemudi_client::Deleted::Object(object) => object.uid().to_string(),
            kemudi_client::Deleted::Done(status) => status.details.map(|details| details.uid).unwrap_or_default(),
        };
        Ok(uid)
    }

    fn tell(&self, one: &Doomed) -> Outcome {
        let kind = singular_name(&one.found);
        if self.output.as_deref() == Some("name") {
            return print(format!("{kind}/{}\n", one.name));
        }
        let forced = if self.force { "force deleted" } else { "deleted" };
        let from = match one.found.resource.namespaced {
            true => format!(" from {} namespace", one.namespace),
            false => String::new(),
        };
        print(format!("{kind} {:?} {forced}{from}{}\n", one.name, dry_run_note(&self.dry_run)))
    }

    fn options(&self) -> Outcome<DeleteOptions> {
        use api::options::Propagation;
        let propagation = match self.cascade.as_str() {
            "background" | "true" => Propagation::Background,
            "foreground" => Propagation::Foreground,
            "orphan" | "false" => Propagation::Orphan,
            other => {
                let text =
                    format!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\"");
                return Err(Failure::new(text));
            }
        };
        if self.force && (self.now || self.grace_period > 0) {
            return Err(Failure::new("--force and --grace-period greater than 0 cannot be specified together"));
        }
        let grace_period_seconds = match (self.now, self.force, self.grace_period) {
            (true, _, _) => Some(1),
            (_, true, _) => Some(0),
            // Zero without --force waits for the pod's end, in kubectl as here.
            (_, _, 0) => Some(1),
            (_, _, seconds) if seconds > 0 => Some(seconds),
            _ => None,
        };
        let dry_run = dry_run(&self.dry_run)?;
        Ok(DeleteOptions { dry_run, grace_period_seconds, propagation: Some(propagation), ..DeleteOptions::default() })
    }

    fn selectors(&self) -> Outcome<ListOptions> {
        let labels = LabelSelector::parse(self.selector.as_deref().unwrap_or_default()).map_err(Failure::new)?;
        let fields = FieldSelector::parse(self.field_selector.as_deref().unwrap_or_default()).map_err(Failure::new)?;
        Ok(ListOptions { labels, fields, ..ListOptions::default() })
    }

    fn patience(&self) -> Outcome<Duration> {
        let seconds = api::go::parse_duration(&self.timeout)
            .map_err(|why| Failure::new(format!("invalid argument {:?} for --timeout: {why}", self.timeout)))?;
        Ok(if seconds > 0.0 { Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())) } else { WAIT_MAX })
    }
}

/// Returns when the object is gone, or another has its name; also where it may not be watched.
async fn gone(one: &Doomed, uid: &str) {
    let Ok(fields) = FieldSelector::parse(&format!("metadata.name={}", one.name)) else { return };
    let options = ListOptions { fields, ..ListOptions::default() };
    loop {
        let Ok(list) = one.api.list_with(&options).await else { return };
        if !list.iter().any(|object| uid.is_empty() || object.uid() == uid) {
            return;
        }
        let from = ListOptions { resource_version: list.metadata.resource_version.parse().ok(), ..options.clone() };
        let Ok(mut watch) = one.api.watch(&from).await else { return };
        while let Some(Ok(event)) = watch.next().await {
            if matches!(event, WatchEvent::Deleted(object) if uid.is_empty() || object.uid() == uid) {
                return;
            }
        }
    }
}
