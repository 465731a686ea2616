//! `kemudi get`: objects as the server's tables, or whole.

use clap::Args;
use futures_util::StreamExt;
use http::Method;
use http::header::{ACCEPT, HeaderValue};
use kemudi_client::client::request;
use kemudi_client::discovery::{Discovered, Discovery};
use kemudi_client::watch::{EVENT_BYTES_MAX, text_lines};
use kemudi_client::{Client, Error};
use serde_json::{Value, json};

use api::{Ask, Query, WatchEvent, ask::Target, ask::Verb};

use crate::output::{self, Format};
use crate::resolve::{Failures, asked, singular_name};
use crate::table::{Table, cell};
use crate::{Failure, Global, Outcome, print};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Objects of one answer; a long list comes in several.
const PAGE_ITEMS: i64 = 500;

#[derive(Args, Debug)]
pub struct Get {
    /// TYPE[,TYPE..] [NAME..] or TYPE/NAME ..
    #[arg(value_name = "TYPE")]
    words: Vec<String>,
    /// json, yaml, name, wide or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Labels to select by: app=web,tier!=db
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Fields to select by: status.phase=Running
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// After showing what is, show what changes
    #[arg(short, long)]
    watch: bool,
    /// Show only what changes
    #[arg(long)]
    watch_only: bool,
    /// Print no column names
    #[arg(long)]
    no_headers: bool,
    /// Show labels as the last column
    #[arg(long)]
    show_labels: bool,
    /// Name objects as TYPE/NAME
    #[arg(long)]
    show_kind: bool,
    /// Keep metadata.managedFields
    #[arg(long)]
    show_managed_fields: bool,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Objects of one answer; a long list comes in several, 0 for all in one
    #[arg(long, value_name = "ITEMS", default_value_t = PAGE_ITEMS)]
    chunk_size: i64,
    /// Show this part of the object: status, scale
    #[arg(long, value_name = "NAME", default_value = "")]
    subresource: String,
}

/// What is asked of the server for one resource.
struct Wanted<'a> {
    found: &'a Discovered,
    /// `""`: all, or a resource that has none.
    namespace: String,
    name: &'a str,
}

impl Get {
    pub async fn run(self, global: &Global) -> Outcome {
        let format = Format::parse(self.output.as_deref())?;
        if self.words.is_empty() {
            return Err(Failure::new("Required resource not specified.")
                .hint(format!("{} get pods, or another type of resource", crate::program())));
        }
        let client = global.client()?;
        let discovery = Discovery::fetch(&client).await?;
        let asked = asked(&discovery, &self.words)?;
        let selects = self.selector.is_some() || self.field_selector.is_some();
        if selects && asked.iter().any(|asked| !asked.names.is_empty()) {
            return Err(Failure::new("name cannot be provided when a selector is specified"));
        }
        if self.all_namespaces && asked.iter().any(|asked| !asked.names.is_empty()) {
            let text = "a resource cannot be retrieved by name across all namespaces";
            return Err(Failure::new(text).hint("leave -A out and name the namespace with -n"));
        }
        let wanted: Vec<Wanted> = asked
            .iter()
            .flat_map(|asked| {
                let names =
                    if asked.names.is_empty() { vec![""] } else { asked.names.iter().map(String::as_str).collect() };
                names.into_iter().map(|name| Wanted {
                    found: &asked.found,
                    namespace: self.namespace(&client, &asked.found),
                    name,
                })
            })
            .collect();
        if self.watch || self.watch_only {
            return match wanted.as_slice() {
                [one] => self.watch(&client, one, &format).await,
                _ => Err(Failure::new("you may only specify a single resource type and at most one name to watch")),
            };
        }
        match &format {
            Format::Table { wide } => self.tables(&client, &wanted, *wide).await,
            format => self.objects(&client, &wanted, format).await,
        }
    }

    fn namespace(&self, client: &Client, found: &Discovered) -> String {
        match found.resource.namespaced && !self.all_namespaces {
            true => client.default_namespace().to_string(),
            false => String::new(),
        }
    }

    async fn tables(&self, client: &Client, wanted: &[Wanted<'_>], wide: bool) -> Outcome {
        let mut failures = Failures::default();
        let many = wanted.iter().any(|other| other.found.resource != wanted[0].found.resource);
        let mut shown = 0;
        let mut empty = true;
        let mut at = 0;
        while at < wanted.len() {
            // Objects of one resource share a table.
            let found = wanted[at].found;
            let same = wanted[at..].iter().take_while(|other| other.found.resource == found.resource).count();
            let mut view = View::new(self, found, wide, many);
            for one in &wanted[at..at + same] {
                for page in self.pages(client, one, TABLE).await {
                    match page {
                        Ok(page) => view.add(&page),
                        Err(error) if self.ignore_not_found && error.is_not_found() && !one.name.is_empty() => {
                            empty = false
                        }
                        Err(error) => {
                            empty = false;
                            failures.add_error("", error);
                        }
                    }
                }
            }
            if view.rows > 0 {
                let gap = if shown > 0 { "\n" } else { "" };
                print(format!("{gap}{}", view.table.take()))?;
                shown += 1;
                empty = false;
            }
            at += same;
        }
        if empty {
            let namespaced = wanted.iter().any(|one| one.found.resource.namespaced) && !self.all_namespaces;
            match namespaced {
                true => eprintln!("No resources found in {} namespace.", client.default_namespace()),
                false => eprintln!("No resources found"),
            }
        }
        failures.finish()
    }

    async fn objects(&self, client: &Client, wanted: &[Wanted<'_>], format: &Format) -> Outcome {
        let mut failures = Failures::default();
        let mut objects = Vec::new();
        for one in wanted {
            for page in self.pages(client, one, "application/json").await {
                match page {
                    Ok(mut page) if one.name.is_empty() => {
                        let Value::Array(items) = page["items"].take() else { continue };
                        objects.extend(items.into_iter().map(|item| with_kind(item, one.found)));
                    }
                    Ok(page) => objects.push(page),
                    Err(error) if self.ignore_not_found && error.is_not_found() && !one.name.is_empty() => {}
                    Err(error) => failures.add_error("", error),
                }
            }
        }
        if !self.show_managed_fields {
            objects.iter_mut().for_each(output::without_managed_fields);
        }
        if let Format::Name = format {
            let found = |object: &Value| wanted.iter().find(|one| object["kind"] == *one.found.resource.kind);
            for object in &objects {
                let kind = found(object).map(|one| singular_name(one.found)).unwrap_or_default();
                print(format!("{kind}/{}\n", api::meta::name(object)))?;
            }
            return failures.finish();
        }
        let single = wanted.len() == 1 && !wanted[0].name.is_empty();
        match (single, objects.len()) {
            (true, 0) => {}
            (true, _) => print(output::object(format, &objects[0])?)?,
            (false, _) => print(output::object(format, &output::list_of(objects))?)?,
        }
        failures.finish()
    }

    /// One object, or all pages of a list.
    async fn pages(&self, client: &Client, wanted: &Wanted<'_>, accept: &'static str) -> Vec<Result<Value, Error>> {
        let mut out = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.page(client, wanted, accept, &token).await;
            token = match &page {
                Ok(page) => page["metadata"]["continue"].as_str().unwrap_or_default().to_string(),
                Err(_) => String::new(),
            };
            out.push(page);
            if token.is_empty() || !wanted.name.is_empty() {
                return out;
            }
        }
    }

    async fn page(
        &self,
        client: &Client,
        wanted: &Wanted<'_>,
        accept: &'static str,
        token: &str,
    ) -> Result<Value, Error> {
        let mut query = Query::default();
        if wanted.name.is_empty() {
            query = self.selectors();
            if self.chunk_size > 0 {
                query.push("limit", self.chunk_size.to_string());
            }
            if !token.is_empty() {
                query.push("continue", token);
            }
        }
        let verb = if wanted.name.is_empty() { Verb::List } else { Verb::Get };
        let mut target = wanted.target()?;
        if !wanted.name.is_empty() {
            target.subresource = self.subresource.clone();
        }
        match client.json(ask(verb, target, query, accept)?).await {
            Err(error) if error.is_not_found() => Err(no_namespace(client, wanted).await.unwrap_or(error)),
            answer => answer.map_err(|error| self.explained(wanted, error)),
        }
    }

    /// A refused selector, in the words of kubectl.
    fn explained(&self, wanted: &Wanted<'_>, error: Error) -> Error {
        let selects = self.selector.is_some() || self.field_selector.is_some();
        match error {
            Error::Api(mut status) if selects && status.code == 400 => {
                let resource = &wanted.found.resource;
                let group = if resource.group.is_empty() { String::new() } else { resource.group.to_string() };
                status.message = format!(
                    "Unable to find \"{group}/{}, Resource={}\" that match label selector {:?}, field selector {:?}: {}",
                    resource.version,
                    resource.plural,
                    self.selector.as_deref().unwrap_or_default(),
                    self.field_selector.as_deref().unwrap_or_default(),
                    status.message
                );
                Error::Api(status)
            }
            error => error,
        }
    }

    fn selectors(&self) -> Query {
        let mut query = Query::default();
        if let Some(selector) = &self.selector {
            query.push("labelSelector", selector);
        }
        if let Some(selector) = &self.field_selector {
            query.push("fieldSelector", selector);
        }
        query
    }

    async fn watch(&self, client: &Client, wanted: &Wanted<'_>, format: &Format) -> Outcome {
        let table = matches!(format, Format::Table { .. });
        let accept = if table { TABLE } else { "application/json" };
        let mut target = wanted.target()?;
        let mut query = self.selectors();
        if !wanted.name.is_empty() {
            // A watch of one object is a watch of all with its name.
            target.name.clear();
            query.push("fieldSelector", format!("metadata.name={}", wanted.name));
        }
        let start: Value = client.json(ask(Verb::List, target.clone(), query.clone(), accept)?).await?;
        if !wanted.name.is_empty()
            && [&start["rows"], &start["items"]].iter().all(|all| all.as_array().is_none_or(Vec::is_empty))
        {
            let of = wanted.found.resource.group_resource();
            return Err(Failure {
                message: format!("Error from server (NotFound): {of} {:?} not found", wanted.name),
                hint: None,
                code: 1,
            });
        }
        let mut view = View::new(self, wanted.found, matches!(format, Format::Table { wide: true }), false);
        if !self.watch_only {
            self.show(&mut view, &start, wanted, format)?;
        }
        query.push("resourceVersion", start["metadata"]["resourceVersion"].as_str().unwrap_or_default());
        let answer = client.call(ask(Verb::Watch, target, query, accept)?).await?;
        let mut lines = text_lines(answer.into_body(), EVENT_BYTES_MAX);
        while let Some(line) = lines.next().await {
            let event: WatchEvent<Value> = serde_json::from_str(&line?)
                .map_err(|error| Failure::new(format!("the watch sent no event: {error}")))?;
            if event.event_type == api::EventType::Error {
                let status: api::Status = serde_json::from_value(event.object).map_err(Failure::new)?;
                return Err(Error::from(status).into());
            }
            self.show(&mut view, &event.object, wanted, format)?;
        }
        Ok(())
    }

    fn show(&self, view: &mut View, answer: &Value, wanted: &Wanted<'_>, format: &Format) -> Outcome {
        if let Format::Table { .. } = format {
            view.add(answer);
            return print(view.table.take());
        }
        let items = match answer["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![answer.clone()],
        };
        for mut object in items.into_iter().map(|item| with_kind(item, wanted.found)) {
            if !self.show_managed_fields {
                output::without_managed_fields(&mut object);
            }
            match format {
                Format::Name => print(format!("{}/{}\n", singular_name(wanted.found), api::meta::name(&object)))?,
                Format::Yaml => print(format!("---\n{}", output::object(format, &object)?))?,
                format => print(output::object(format, &object)?)?,
            }
        }
        Ok(())
    }
}

impl Wanted<'_> {
    fn target(&self) -> Result<Target, Error> {
        if self.name.contains('/') || self.name == "." || self.name == ".." {
            return Err(Error::Request(format!("invalid resource name {:?}: [may not contain '/']", self.name)));
        }
        let resource = &self.found.resource;
        Ok(Target {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
            namespace: self.namespace.clone(),
            name: self.name.to_string(),
            ..Target::default()
        })
    }
}

/// That nothing was found may be the namespace's fault, which is the better news.
async fn no_namespace(client: &Client, wanted: &Wanted<'_>) -> Option<Error> {
    if wanted.namespace.is_empty() {
        return None;
    }
    let namespace = client.get::<Value>(&format!("/api/v1/namespaces/{}", wanted.namespace)).await;
    namespace.err().filter(Error::is_not_found)
}

/// One table as it grows, page by page and event by event.
struct View<'a> {
    get: &'a Get,
    table: Table,
    /// Which of the server's columns are shown.
    columns: Vec<usize>,
    /// Put before each name: `pod/`.
    prefix: String,
    with_namespace: bool,
    wide: bool,
    rows: usize,
}

impl<'a> View<'a> {
    fn new(get: &'a Get, found: &Discovered, wide: bool, many: bool) -> View<'a> {
        let prefix = match many || get.show_kind {
            true => format!("{}/", singular_name(found)),
            false => String::new(),
        };
        let with_namespace = get.all_namespaces && found.resource.namespaced;
        View { get, table: Table::default(), columns: Vec::new(), prefix, with_namespace, wide, rows: 0 }
    }

    /// Adds the rows of a server's Table; of objects where the server made none.
    fn add(&mut self, answer: &Value) {
        let own;
        let answer = match answer["kind"] == "Table" {
            true => answer,
            false => {
                own = table_of(answer);
                &own
            }
        };
        if let Some(columns) = answer["columnDefinitions"].as_array().filter(|columns| !columns.is_empty()) {
            let shown = |column: &Value| self.wide || column["priority"].as_i64().unwrap_or(0) == 0;
            self.columns = (0..columns.len()).filter(|at| shown(&columns[*at])).collect();
            if self.rows == 0 && !self.get.no_headers {
                let names = self.columns.iter().map(|at| cell(&columns[*at]["name"]).to_uppercase());
                let first = self.with_namespace.then(|| "NAMESPACE".to_string());
                let last = self.get.show_labels.then(|| "LABELS".to_string());
                let row: Vec<String> = first.into_iter().chain(names).chain(last).collect();
                // A list without rows shows no header either.
                if answer["rows"].as_array().is_some_and(|rows| !rows.is_empty()) {
                    self.table.row(row);
                }
            }
        }
        for row in answer["rows"].as_array().into_iter().flatten() {
            self.rows += 1;
            let object = &row["object"];
            let mut cells = Vec::new();
            if self.with_namespace {
                cells.push(api::meta::namespace(object).to_string());
            }
            for (nth, at) in self.columns.iter().enumerate() {
                let text = cell(&row["cells"][*at]);
                cells.push(if nth == 0 { format!("{}{text}", self.prefix) } else { text });
            }
            if self.get.show_labels {
                let mut labels: Vec<String> =
                    api::meta::labels(object).map(|(key, value)| format!("{key}={value}")).collect();
                labels.sort();
                cells.push(if labels.is_empty() { "<none>".to_string() } else { labels.join(",") });
            }
            self.table.row(cells);
        }
    }
}

/// A Table of names and ages, for a server that makes none.
fn table_of(answer: &Value) -> Value {
    let now = crate::now();
    let one = std::slice::from_ref(answer);
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or(one);
    let row = |object: &Value| {
        let age = output::age(api::meta::text(object, "creationTimestamp"), now);
        json!({"cells": [api::meta::name(object), age], "object": {"metadata": object["metadata"]}})
    };
    json!({
        "columnDefinitions": [{"name": "Name"}, {"name": "Age"}],
        "rows": items.iter().map(row).collect::<Vec<_>>(),
    })
}

/// Items of a list leave out what the list says for all of them.
fn with_kind(mut item: Value, found: &Discovered) -> Value {
    if item.get("kind").is_none() {
        item["apiVersion"] = found.resource.api_version().into();
        item["kind"] = found.resource.kind.to_string().into();
    }
    item
}

fn ask(verb: Verb, target: Target, query: Query, accept: &'static str) -> Result<http::Request<bytes::Bytes>, Error> {
    let (_, path) = Ask::of(verb, target, query).print();
    let mut request = request(Method::GET, &path, None)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
    Ok(request)
}
