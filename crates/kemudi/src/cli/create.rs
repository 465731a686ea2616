//! `kemudi create`: a new object, from a file or from flags.

use std::io::IsTerminal;

use clap::{Args, Subcommand};
use kemudi_client::discovery::Discovery;
use kemudi_client::{Api, ApiResource, Client, Dynamic, WriteOptions};
use serde_json::{Map, Value, json};

use super::apply::{dry_run, dry_run_note, field_validation};
use super::files;
use super::output::{self, Format};
use super::resolve::{Failures, of_file, resolve, singular_name};
use super::{Failure, Global, Outcome, print};

const RBAC: &str = "rbac.authorization.k8s.io";
const MANAGER: &str = "kubectl-create";

#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true)]
pub struct Create {
    /// File, folder or - for stdin; may be repeated
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<String>,
    #[command(flatten)]
    making: Making,
    /// strict (or true), warn or ignore (or false): unknown and duplicate fields
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "strict", default_value = "strict")]
    validate: String,
    #[command(subcommand)]
    what: Option<What>,
}

/// What every way of creating takes.
#[derive(Args, Clone, Debug)]
pub struct Making {
    /// json, yaml or name
    #[arg(short, long, value_name = "FORMAT", global = true)]
    output: Option<String>,
    /// server: let the server check it without keeping it; client: only say what would be sent
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "client", default_value = "none", global = true)]
    dry_run: String,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Create a namespace
    #[command(alias = "ns")]
    Namespace { name: String },
    /// Create a service account
    #[command(alias = "sa")]
    Serviceaccount { name: String },
    /// Create a role: verbs on resources of one namespace
    Role {
        name: String,
        #[command(flatten)]
        rules: Rules,
    },
    /// Create a cluster role: verbs on resources of the cluster and all namespaces, and on paths
    Clusterrole {
        name: String,
        #[command(flatten)]
        rules: Rules,
        /// Paths: /healthz/*, may be repeated
        #[arg(long = "non-resource-url", value_name = "PATH", value_delimiter = ',')]
        paths: Vec<String>,
        /// Take the rules of all cluster roles with these labels
        #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
        aggregation_rule: Vec<String>,
    },
    /// Give a role to users, groups and service accounts, in one namespace
    Rolebinding {
        name: String,
        /// Role of the same namespace
        #[arg(long, value_name = "NAME", conflicts_with = "clusterrole")]
        role: Option<String>,
        /// Cluster role
        #[arg(long, value_name = "NAME")]
        clusterrole: Option<String>,
        #[command(flatten)]
        subjects: Subjects,
    },
    /// Give a cluster role to users, groups and service accounts, everywhere
    Clusterrolebinding {
        name: String,
        /// Cluster role
        #[arg(long, value_name = "NAME", required = true)]
        clusterrole: String,
        #[command(flatten)]
        subjects: Subjects,
    },
    /// Ask for a token of a service account, and print it
    Token {
        /// Name of the service account
        name: String,
        #[command(flatten)]
        request: TokenArgs,
    },
    /// Create a config map
    #[command(alias = "cm")]
    Configmap {
        name: String,
        #[command(flatten)]
        literals: Literals,
    },
    /// Create a secret
    Secret {
        #[command(subcommand)]
        kind: SecretKind,
    },
}

#[derive(Subcommand, Debug)]
enum SecretKind {
    /// Create a secret of any content
    Generic {
        name: String,
        #[command(flatten)]
        literals: Literals,
        /// Type of the secret
        #[arg(long = "type", value_name = "TYPE")]
        secret_type: Option<String>,
    },
}

#[derive(Args, Debug)]
struct Rules {
    /// Verbs: get,list,watch,create,update,patch,delete, or *
    #[arg(long, value_name = "VERBS", value_delimiter = ',')]
    verb: Vec<String>,
    /// Resources: pods,deployments.apps,pods/log
    #[arg(long, value_name = "RESOURCES", value_delimiter = ',')]
    resource: Vec<String>,
    /// Only objects of this name, may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    resource_name: Vec<String>,
}

#[derive(Args, Debug)]
struct Subjects {
    /// User, may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    user: Vec<String>,
    /// Group, may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    group: Vec<String>,
    /// Service account, may be repeated
    #[arg(long, value_name = "NAMESPACE:NAME", value_delimiter = ',')]
    serviceaccount: Vec<String>,
}

#[derive(Args, Debug)]
struct Literals {
    /// One entry, may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// One entry of a file, may be repeated
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
}

/// What a token is asked for.
#[derive(Args, Clone, Debug, Default)]
pub struct TokenArgs {
    /// How long it shall live: 10m, 1h, 24h
    #[arg(long, value_name = "DURATION")]
    duration: Option<String>,
    /// Whom it is shown to [default: the API server], may be repeated
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// Kind of the object it is bound to: Pod, Secret or Node
    #[arg(long, value_name = "KIND")]
    bound_object_kind: Option<String>,
    #[arg(long, value_name = "NAME")]
    bound_object_name: Option<String>,
    #[arg(long, value_name = "UID")]
    bound_object_uid: Option<String>,
}

impl Create {
    pub async fn run(self, global: &Global) -> Outcome {
        let client = global.client()?;
        let Some(what) = self.what else { return self.files(&client, global).await };
        let maker = Maker { client: &client, making: &self.making };
        match what {
            What::Namespace { name } => {
                let resource = ApiResource::new("", "v1", "Namespace", "namespaces", false);
                maker.make(resource, "namespace", &name, json!({}), "").await
            }
            What::Serviceaccount { name } => {
                let resource = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
                maker.make(resource, "serviceaccount", &name, json!({}), "failed to create serviceaccount").await
            }
            What::Role { name, rules } => {
                let rules = rules.rules(&client).await?;
                let resource = ApiResource::new(RBAC, "v1", "Role", "roles", true);
                maker.make(resource, "role", &name, json!({"rules": rules}), "").await
            }
            What::Clusterrole { name, rules, paths, aggregation_rule } => {
                let body = cluster_role(&client, &rules, &paths, &aggregation_rule).await?;
                let resource = ApiResource::new(RBAC, "v1", "ClusterRole", "clusterroles", false);
                maker.make(resource, "clusterrole", &name, body, "").await
            }
            What::Rolebinding { name, role, clusterrole, subjects } => {
                let (kind, of) = match (role, clusterrole) {
                    (Some(role), _) => ("Role", role),
                    (None, Some(role)) => ("ClusterRole", role),
                    (None, None) => return Err(Failure::new("exactly one of clusterrole or role must be specified")),
                };
                let body = subjects.binding(kind, &of)?;
                let resource = ApiResource::new(RBAC, "v1", "RoleBinding", "rolebindings", true);
                maker.make(resource, "rolebinding", &name, body, "failed to create rolebinding").await
            }
            What::Clusterrolebinding { name, clusterrole, subjects } => {
                let body = subjects.binding("ClusterRole", &clusterrole)?;
                let resource = ApiResource::new(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", false);
                maker.make(resource, "clusterrolebinding", &name, body, "failed to create clusterrolebinding").await
            }
            What::Token { name, request } => {
                let answer = request_token(&client, &name, &request).await?;
                match Format::parse(self.making.output.as_deref())? {
                    Format::Table { .. } => print_token(answer["status"]["token"].as_str().unwrap_or_default()),
                    format => print(output::answer(&format, &answer)?),
                }
            }
            What::Configmap { name, literals } => {
                let resource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
                let body = literals.config_map()?;
                maker.make(resource, "configmap", &name, body, "failed to create configmap").await
            }
            What::Secret { kind: SecretKind::Generic { name, literals, secret_type } } => {
                let resource = ApiResource::new("", "v1", "Secret", "secrets", true);
                let mut body = literals.secret()?;
                body["type"] = secret_type.unwrap_or("Opaque".to_string()).into();
                maker.make(resource, "secret", &name, body, "failed to create secret").await
            }
        }
    }

    async fn files(&self, client: &Client, global: &Global) -> Outcome {
        let making = &self.making;
        let sources = files::read(&self.filename)?;
        if sources.is_empty() {
            return Err(Failure::new("no objects passed to create"));
        }
        let discovery = Discovery::fetch(client).await?;
        let server = dry_run(&making.dry_run)?;
        let options = WriteOptions {
            dry_run: server,
            field_manager: MANAGER.to_string(),
            field_validation: field_validation(&self.validate)?,
            force: false,
        };
        let mut failures = Failures::default();
        for source in sources {
            let (found, api) = match of_file(&discovery, client, &source, global.namespace.as_deref()) {
                Ok(place) => place,
                Err(failure) => {
                    failures.add(failure);
                    continue;
                }
            };
            if making.dry_run == "client" {
                making.tell(&singular_name(&found), source.object)?;
                continue;
            }
            match api.create_with(&Dynamic(source.object), &options).await {
                Ok(made) => making.tell(&singular_name(&found), made.0)?,
                Err(error) => failures.add_error(&format!("error when creating {:?}", source.file), error),
            }
        }
        failures.finish()
    }
}

struct Maker<'a> {
    client: &'a Client,
    making: &'a Making,
}

impl Maker<'_> {
    /// `failing` is how kubectl begins the error of this kind; empty where it shows the server's.
    async fn make(&self, resource: ApiResource, singular: &str, name: &str, body: Value, failing: &str) -> Outcome {
        let mut metadata = json!({"name": name});
        if resource.namespaced {
            metadata["namespace"] = self.client.default_namespace().into();
        }
        let mut object = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": metadata});
        if let (Some(object), Value::Object(body)) = (object.as_object_mut(), body) {
            object.extend(body);
        }
        let singular = match &*resource.group {
            "" => singular.to_string(),
            group => format!("{singular}.{group}"),
        };
        let server = dry_run(&self.making.dry_run)?;
        if self.making.dry_run == "client" {
            return self.making.tell(&singular, object);
        }
        let api = Api::namespaced_of(self.client.clone(), self.client.default_namespace(), &resource);
        let options = WriteOptions { dry_run: server, field_manager: MANAGER.to_string(), ..Default::default() };
        match api.create_with(&Dynamic(object), &options).await {
            Ok(made) => self.making.tell(&singular, made.0),
            Err(error) => Err(failed_to(failing, error)),
        }
    }
}

impl Making {
    fn tell(&self, singular: &str, mut object: Value) -> Outcome {
        let name = format!("{singular}/{}", api::meta::name(&object));
        match Format::parse(self.output.as_deref())? {
            Format::Table { .. } => print(format!("{name} created{}\n", dry_run_note(&self.dry_run))),
            Format::Name => print(format!("{name}\n")),
            format => {
                output::without_managed_fields(&mut object);
                print(output::object(&format, &object)?)
            }
        }
    }
}

/// A token goes into files and headers as it is: only people get a line's end with it.
pub fn print_token(token: &str) -> Outcome {
    let end = if std::io::stdout().is_terminal() { "\n" } else { "" };
    print(format!("{token}{end}"))
}

/// A fresh token of a service account of the client's namespace: the server's whole answer.
pub async fn request_token(client: &Client, name: &str, args: &TokenArgs) -> Outcome<Value> {
    let mut spec = Map::new();
    if !args.audience.is_empty() {
        spec.insert("audiences".to_string(), json!(args.audience));
    }
    if let Some(text) = &args.duration {
        let seconds = api::go::parse_duration(text)
            .map_err(|why| Failure::new(format!("invalid argument {text:?} for --duration: {why}")))?;
        spec.insert("expirationSeconds".to_string(), json!(seconds as i64));
    }
    match (&args.bound_object_kind, &args.bound_object_name) {
        (None, None) => {}
        (Some(kind), Some(bound)) => {
            let version = if kind == "Node" || kind == "Pod" || kind == "Secret" { "v1" } else { "" };
            let mut reference = json!({"kind": kind, "apiVersion": version, "name": bound});
            if let Some(uid) = &args.bound_object_uid {
                reference["uid"] = uid.as_str().into();
            }
            spec.insert("boundObjectRef".to_string(), reference);
        }
        _ => return Err(Failure::new("--bound-object-kind and --bound-object-name must be given together")),
    }
    let accounts = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);
    let api = Api::namespaced_of(client.clone(), client.default_namespace(), &accounts);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    api.create_subresource(name, "token", &request).await.map_err(|error| {
        let missing = error.is_not_found();
        let failure = failed_to("failed to create token", error);
        match missing {
            true => failure
                .hint(format!("see which there are: kemudi get serviceaccounts -n {}", client.default_namespace())),
            false => failure,
        }
    })
}

impl Rules {
    /// One rule for each API group, as kubectl makes them.
    async fn rules(&self, client: &Client) -> Outcome<Vec<Value>> {
        if self.verb.is_empty() {
            return Err(Failure::new("at least one verb must be specified").hint("--verb=get,list"));
        }
        if self.resource.is_empty() {
            return Err(Failure::new("at least one resource must be specified").hint("--resource=pods"));
        }
        let mut verbs = self.verb.clone();
        for verb in verbs.iter().filter(|verb| *verb != "*" && !rights::VERBS.contains(&verb.as_str())) {
            eprintln!("Warning: '{verb}' is not a standard resource verb");
        }
        if verbs.iter().any(|verb| verb == "*") {
            verbs = vec!["*".to_string()];
        }
        let discovery = Discovery::fetch(client).await?;
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for word in &self.resource {
            let (word, sub) = word.split_once('/').unwrap_or((word, ""));
            let (group, mut name) = match word {
                "*" => ("*".to_string(), "*".to_string()),
                word => {
                    // kubectl says this one without `error: `.
                    let found = resolve(&discovery, word).map_err(|failure| Failure {
                        message: failure.message.trim_start_matches("error: ").to_string(),
                        ..failure
                    })?;
                    (found.resource.group.to_string(), found.resource.plural.to_string())
                }
            };
            if !sub.is_empty() {
                name = format!("{name}/{sub}");
            }
            match groups.iter_mut().find(|(other, _)| *other == group) {
                Some((_, names)) => names.push(name),
                None => groups.push((group, vec![name])),
            }
        }
        let rule = |(group, resources): (String, Vec<String>)| {
            let mut rule = json!({"apiGroups": [group]});
            if !self.resource_name.is_empty() {
                rule["resourceNames"] = json!(self.resource_name);
            }
            rule["resources"] = json!(resources);
            rule["verbs"] = json!(verbs);
            rule
        };
        Ok(groups.into_iter().map(rule).collect())
    }
}

async fn cluster_role(client: &Client, rules: &Rules, paths: &[String], aggregation: &[String]) -> Outcome<Value> {
    if !aggregation.is_empty() {
        let mut labels = Map::new();
        for pair in aggregation {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::new(format!("{pair:?} is no label; write it like --aggregation-rule=app=web"))
            })?;
            labels.insert(key.to_string(), value.into());
        }
        return Ok(json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": labels}]}, "rules": []}));
    }
    let mut all = Vec::new();
    if !rules.resource.is_empty() || paths.is_empty() {
        all = rules.rules(client).await?;
    }
    if !paths.is_empty() {
        if rules.verb.is_empty() {
            return Err(Failure::new("at least one verb must be specified").hint("--verb=get"));
        }
        all.push(json!({"nonResourceURLs": paths, "verbs": rules.verb}));
    }
    Ok(json!({"rules": all}))
}

impl Subjects {
    fn binding(&self, kind: &str, role: &str) -> Outcome<Value> {
        let mut subjects = Vec::new();
        for (kind, names) in [("User", &self.user), ("Group", &self.group)] {
            subjects.extend(names.iter().map(|name| json!({"apiGroup": RBAC, "kind": kind, "name": name})));
        }
        for account in &self.serviceaccount {
            let Some((namespace, name)) = account.split_once(':').filter(|(a, b)| !a.is_empty() && !b.is_empty())
            else {
                return Err(Failure::new("serviceaccount must be <namespace>:<name>")
                    .hint(format!("--serviceaccount=default:{}", account.trim_matches(':'))));
            };
            subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        }
        let mut body = json!({"roleRef": {"apiGroup": RBAC, "kind": kind, "name": role}});
        if !subjects.is_empty() {
            body["subjects"] = json!(subjects);
        }
        Ok(body)
    }
}

impl Literals {
    /// All entries, keys unique.
    fn entries(&self) -> Outcome<Vec<(String, Vec<u8>)>> {
        let mut out: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |key: &str, value: Vec<u8>| match out.iter().any(|(other, _)| other == key) {
            true => Err(Failure::new(format!("cannot add key {key}, another key by that name already exists in Data"))),
            false => {
                out.push((key.to_string(), value));
                Ok(())
            }
        };
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| Failure::new(format!("invalid literal source {literal}, expected key=value")))?;
            add(key, value.as_bytes().to_vec())?;
        }
        for file in &self.from_file {
            let (key, path) = match file.split_once('=') {
                Some((key, path)) => (key.to_string(), path),
                None => (file.rsplit('/').next().unwrap_or(file).to_string(), file.as_str()),
            };
            let bytes = std::fs::read(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    Failure::new(format!("error reading {path}: no such file or directory"))
                }
                _ => Failure::new(format!("error reading {path}: {error}")),
            })?;
            add(&key, bytes)?;
        }
        Ok(out)
    }

    fn config_map(&self) -> Outcome<Value> {
        let (mut data, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in self.entries()? {
            match String::from_utf8(bytes) {
                Ok(text) => data.insert(key, text.into()),
                Err(error) => binary.insert(key, base64(error.as_bytes()).into()),
            };
        }
        let mut body = json!({});
        if !data.is_empty() {
            body["data"] = Value::Object(data);
        }
        if !binary.is_empty() {
            body["binaryData"] = Value::Object(binary);
        }
        Ok(body)
    }

    fn secret(&self) -> Outcome<Value> {
        let data: Map<String, Value> =
            self.entries()?.into_iter().map(|(key, bytes)| (key, base64(&bytes).into())).collect();
        Ok(if data.is_empty() { json!({}) } else { json!({"data": data}) })
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// `error: failed to create X: ..`, or the server's own words.
fn failed_to(doing: &str, error: kemudi_client::Error) -> Failure {
    match (doing, error.status().map(|status| (status.code, status.message.clone()))) {
        ("", _) | (_, None) | (_, Some((401, _))) => Failure::while_doing(doing, error),
        (doing, Some((_, message))) => {
            let failure = Failure::from(error);
            Failure { message: format!("error: {doing}: {message}"), ..failure }
        }
    }
}
