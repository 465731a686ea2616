//! The file of `--authorization-config`: an AuthorizationConfiguration of `apiserver.config.k8s.io`, and the older flags, which
//! are the same. Checks everything that can be checked without asking anybody, in Kubernetes' words; contacts no webhook.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::go;
use kinds::schema::Schema;
use kinds::{Cause, scalar, tables, validate};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::aggregate;
use super::webhook::{self, FailurePolicy};
use crate::authn::expression::{About, Expression};
use crate::config_file::{self, Format, Shown};

/// The authorizers of one configuration.
const AUTHORIZERS_MAX: usize = 64;
/// The match conditions of one webhook.
const CONDITIONS_MAX: usize = 64;
/// The longest time that a webhook is given.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// What the older flags mean.
const WEBHOOK_NAME: &str = "default";
const WEBHOOK_VERSION: &str = "v1beta1";
const AUTHORIZED_TTL: Duration = Duration::from_secs(5 * 60);
const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);

/// The types of the file, in the form of the tables of built-in kinds.
const TYPES: &str = "\
apiserver.v1.AuthorizationConfiguration
  kind string 0 omitempty
  apiVersion string 0 omitempty
  authorizers []apiserver.v1.AuthorizerConfiguration 1
apiserver.v1.AuthorizerConfiguration
  type string 1
  name string 2
  webhook *apiserver.v1.WebhookConfiguration 3 omitempty
apiserver.v1.WebhookConfiguration
  authorizedTTL string 1
  cacheAuthorizedRequests *bool 2 omitempty
  unauthorizedTTL string 3
  cacheUnauthorizedRequests *bool 4 omitempty
  timeout string 5
  subjectAccessReviewVersion string 6
  matchConditionSubjectAccessReviewVersion string 7
  failurePolicy string 8
  connectionInfo apiserver.v1.WebhookConnectionInfo 9
  matchConditions []apiserver.v1.WebhookMatchCondition 10
apiserver.v1.WebhookConnectionInfo
  type string 1
  kubeConfigFile *string 2
apiserver.v1.WebhookMatchCondition
  expression string 1
";

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| tables::types_of(TYPES));

const FORMAT: Format = Format {
    kind: "AuthorizationConfiguration",
    schema: &SCHEMA,
    root: "apiserver.v1.AuthorizationConfiguration",
    shown: Shown::AsWritten,
};

/// The types of authorizers that are taken. Kubernetes has two more: see [`Type::why_not`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    AlwaysDeny,
    Node,
    Rbac,
    Webhook,
}

/// All that kube-apiserver knows, in the order in which it names them.
const KNOWN: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

impl Type {
    const ALL: [Type; 4] = [Type::AlwaysDeny, Type::Node, Type::Rbac, Type::Webhook];

    pub fn as_str(self) -> &'static str {
        match self {
            Type::AlwaysDeny => "AlwaysDeny",
            Type::Node => "Node",
            Type::Rbac => "RBAC",
            Type::Webhook => "Webhook",
        }
    }

    fn parse(text: &str) -> Option<Type> {
        Type::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Why a type that kube-apiserver knows is not taken here.
    fn why_not(text: &str) -> Option<&'static str> {
        match text {
            "AlwaysAllow" => Some(
                "it would turn authorization off, which nothing here does; leave it out, and bind who may do everything to \
                 the ClusterRole cluster-admin",
            ),
            "ABAC" => Some("it is not supported here; write its policies as roles and bindings, and name RBAC instead"),
            _ => None,
        }
    }
}

/// What is given on the command line; nothing means Node and RBAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--authorization-config`
    pub config_file: Option<PathBuf>,
    /// `--authorization-mode`, where it is given.
    pub modes: Option<Vec<String>>,
    /// `--authorization-webhook-config-file`: a kubeconfig whose current context is the webhook.
    pub webhook_config_file: Option<PathBuf>,
    /// `--authorization-webhook-version`, where it is given.
    pub webhook_version: Option<String>,
    /// `--authorization-webhook-cache-authorized-ttl`, where it is given; zero for not at all.
    pub authorized_ttl: Option<Duration>,
    /// `--authorization-webhook-cache-unauthorized-ttl`, where it is given; zero for not at all.
    pub unauthorized_ttl: Option<Duration>,
}

/// Which authorizers are asked, in order.
#[derive(Clone)]
pub struct Configuration {
    pub authorizers: Vec<Authorizer>,
    /// As it was written.
    file: File,
}

#[derive(Clone)]
pub struct Authorizer {
    pub name: String,
    pub kind: Type,
    /// Of webhooks alone.
    pub webhook: Option<webhook::Options>,
}

impl PartialEq for Configuration {
    fn eq(&self, other: &Configuration) -> bool {
        self.file == other.file
    }
}

/// What the options come to.
pub struct Loaded {
    pub configuration: Configuration,
    /// The text of the file; empty where there is none.
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct File {
    authorizers: Vec<AuthorizerFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct AuthorizerFile {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    webhook: Option<WebhookFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WebhookFile {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Nanos,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Nanos,
    cache_unauthorized_requests: Option<bool>,
    timeout: Nanos,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: ConnectionInfo,
    match_conditions: Vec<MatchCondition>,
}

/// As Go prints its own struct.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct ConnectionInfo {
    #[serde(rename(deserialize = "type", serialize = "Type"))]
    kind: String,
    #[serde(rename(deserialize = "kubeConfigFile", serialize = "KubeConfigFile"))]
    kubeconfig: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct MatchCondition {
    expression: String,
}

/// A duration as Go reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Nanos(i64);

impl TryFrom<String> for Nanos {
    type Error = String;

    fn try_from(text: String) -> Result<Nanos, String> {
        match text.as_str() {
            "" => Ok(Nanos(0)),
            text => scalar::parse_duration(text).map(Nanos),
        }
    }
}

impl Nanos {
    fn duration(self) -> Duration {
        Duration::from_nanos(self.0.unsigned_abs())
    }

    fn or(self, default: Duration) -> Nanos {
        if self.0 == 0 { Nanos(default.as_nanos() as i64) } else { self }
    }

    fn shown(self) -> Value {
        json!(scalar::print_duration(self.0))
    }
}

/// What the options come to; nothing where they say nothing.
///
/// # Errors
/// What is wrong with them or the file, in Kubernetes' words.
pub fn load(options: &Options) -> Result<Option<Loaded>, String> {
    if *options == Options::default() {
        return Ok(None);
    }
    let Some(path) = &options.config_file else {
        return Ok(Some(Loaded { configuration: of_flags(options)?, text: String::new() }));
    };
    if *options != (Options { config_file: Some(path.clone()), ..Options::default() }) {
        let why = "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags \
                   are defined";
        return Err(why.into());
    }
    let text = config_file::read(path)?;
    Ok(Some(Loaded { configuration: Configuration::parse(&text, &BTreeSet::new())?, text }))
}

/// The same of the older flags.
fn of_flags(options: &Options) -> Result<Configuration, String> {
    let default = || vec![Type::Node.as_str().to_string(), Type::Rbac.as_str().to_string()];
    let modes = options.modes.clone().unwrap_or_else(default);
    let mut errors = Vec::new();
    if modes.is_empty() {
        errors.push("at least one authorization-mode must be passed".to_string());
    }
    for mode in &modes {
        if !KNOWN.contains(&mode.as_str()) {
            errors.push(format!("authorization-mode {} is not a valid mode", go::quote(mode)));
        }
        if let Some(why) = Type::why_not(mode) {
            errors.push(format!("authorization-mode {}: {why}", go::quote(mode)));
        }
    }
    let asks = modes.iter().any(|mode| mode == Type::Webhook.as_str());
    let given = options.webhook_config_file.as_deref().filter(|path| !path.as_os_str().is_empty());
    match (asks, given) {
        (true, None) => errors.push("authorization-mode Webhook's authorization config file not passed".into()),
        (false, Some(_)) => {
            errors.push("cannot specify --authorization-webhook-config-file without mode Webhook".into());
        }
        _ => {}
    }
    if modes.iter().collect::<BTreeSet<_>>().len() != modes.len() {
        let shown: Vec<String> = modes.iter().map(|mode| go::quote(mode)).collect();
        errors.push(format!("authorization-mode [{}] has mode specified more than once", shown.join(" ")));
    }
    let version = options.webhook_version.clone().unwrap_or_else(|| WEBHOOK_VERSION.into());
    if asks && !["v1", "v1beta1"].contains(&version.as_str()) {
        let version = go::quote(&version);
        errors.push(format!(
            "unsupported webhook authorizer version {version}, supported versions are \"v1\", \"v1beta1\""
        ));
    }
    if !errors.is_empty() {
        return Err(aggregate(&errors));
    }
    let webhook = |path: &Path| webhook::Options {
        kubeconfig: path.to_path_buf(),
        timeout: TIMEOUT_MAX,
        version: version.clone(),
        authorized_for: options.authorized_ttl.unwrap_or(AUTHORIZED_TTL),
        unauthorized_for: options.unauthorized_ttl.unwrap_or(UNAUTHORIZED_TTL),
        failure_policy: FailurePolicy::NoOpinion,
        conditions: Arc::default(),
    };
    let authorizers = modes.iter().filter_map(|mode| Type::parse(mode)).map(|kind| match kind {
        Type::Webhook => Authorizer { name: WEBHOOK_NAME.into(), kind, webhook: given.map(webhook) },
        kind => Authorizer { name: kind.as_str().to_lowercase(), kind, webhook: None },
    });
    Ok(Configuration { authorizers: authorizers.collect(), file: File::default() })
}

impl Configuration {
    /// Reads and checks the text of a file, YAML or JSON. `required` are the types that it must name.
    ///
    /// # Errors
    /// All that is wrong, in Kubernetes' words.
    pub fn parse(text: &str, required: &BTreeSet<Type>) -> Result<Configuration, String> {
        let failed = |why: String| format!("failed to load AuthorizationConfiguration from file: {why}");
        let file: File = match text.is_empty() {
            true => File::default(),
            false => {
                let object = config_file::object(text, &FORMAT).map_err(failed)?;
                serde_json::from_value(object).map_err(|why| failed(why.to_string()))?
            }
        };
        let mut causes = Vec::new();
        let authorizers = file.compile(&mut causes);
        if !causes.is_empty() {
            return Err(aggregate(&causes.iter().map(Cause::to_string).collect::<Vec<_>>()));
        }
        let found = Configuration { authorizers, file };
        let errors = found.check_names(required);
        if errors.is_empty() { Ok(found) } else { Err(aggregate(&errors)) }
    }

    /// The types that are not webhooks.
    pub fn types(&self) -> BTreeSet<Type> {
        self.authorizers.iter().map(|authorizer| authorizer.kind).filter(|kind| *kind != Type::Webhook).collect()
    }

    fn check_names(&self, required: &BTreeSet<Type>) -> Vec<String> {
        let mut errors = Vec::new();
        for Authorizer { name, kind, .. } in self.authorizers.iter().filter(|one| one.kind != Type::Webhook) {
            let (kind, expected) = (kind.as_str(), kind.as_str().to_lowercase());
            if *name != expected {
                errors.push(format!("expected name {expected} for authorizer {kind} instead of {name}"));
            }
        }
        let missing: Vec<&str> = required.difference(&self.types()).map(|kind| kind.as_str()).collect();
        if !missing.is_empty() {
            errors.push(format!("missing required types: [{}]", missing.join(" ")));
        }
        errors
    }
}

impl File {
    fn compile(&self, causes: &mut Vec<Cause>) -> Vec<Authorizer> {
        if self.authorizers.is_empty() {
            causes.push(Cause::required("authorizers", "at least one authorization mode must be defined"));
        }
        if self.authorizers.len() > AUTHORIZERS_MAX {
            causes.push(Cause::too_many("authorizers", self.authorizers.len(), AUTHORIZERS_MAX));
            return Vec::new();
        }
        let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut compiled = Vec::new();
        for (at, authorizer) in self.authorizers.iter().enumerate() {
            let path = format!("authorizers[{at}]");
            let AuthorizerFile { kind, name, webhook } = authorizer;
            let of = format!("{path}.type");
            if kind.is_empty() {
                causes.push(Cause::required(of, ""));
                continue;
            }
            if !KNOWN.contains(&kind.as_str()) {
                causes.push(Cause::not_supported(of, &json!(kind), &KNOWN));
                continue;
            }
            if !types.insert(kind) && kind != Type::Webhook.as_str() {
                causes.push(Cause::duplicate(of, &json!(kind)));
                continue;
            }
            check_name(name, &names, &format!("{path}.name"), causes);
            names.insert(name);
            if let Some(why) = Type::why_not(kind) {
                causes.push(Cause::invalid(of, &json!(kind), why));
            }
            let Some(kind) = Type::parse(kind) else { continue };
            let webhook = match (kind, webhook) {
                (Type::Webhook, None) => {
                    causes.push(Cause::required(format!("{path}.webhook"), "required when type=Webhook"));
                    continue;
                }
                (Type::Webhook, Some(webhook)) => webhook.compile(&path, causes),
                (_, Some(_)) => {
                    let why = "may only be specified when type=Webhook";
                    causes.push(Cause::invalid(format!("{path}.webhook"), &json!("non-null"), why));
                    continue;
                }
                (_, None) => None,
            };
            compiled.push(Authorizer { name: name.clone(), kind, webhook });
        }
        compiled
    }
}

fn check_name(name: &String, others: &BTreeSet<&String>, path: &str, causes: &mut Vec<Cause>) {
    let wrong = || validate::dns1123_subdomain(name);
    match name.as_str() {
        "" => causes.push(Cause::required(path, "")),
        _ if others.contains(name) => causes.push(Cause::duplicate(path, &json!(name))),
        _ if !wrong().is_empty() => {
            let why = format!("authorizer name is invalid: {}", wrong().join(", "));
            causes.push(Cause::invalid(path, &json!(name), &why));
        }
        _ => {}
    }
}

impl WebhookFile {
    /// What the file says, where all of it is right.
    fn compile(&self, path: &str, causes: &mut Vec<Cause>) -> Option<webhook::Options> {
        let before = causes.len();
        self.check_times(path, causes);
        self.check_versions(path, causes);
        let failure_policy = match self.failure_policy.as_str() {
            "NoOpinion" => Some(FailurePolicy::NoOpinion),
            "Deny" => Some(FailurePolicy::Deny),
            other => {
                let path = format!("{path}.failurePolicy");
                causes.push(match other {
                    "" => Cause::required(path, ""),
                    other => Cause::not_supported(path, &json!(other), &["NoOpinion", "Deny"]),
                });
                None
            }
        };
        self.connection_info.check(&format!("{path}.connectionInfo"), causes);
        let conditions = compile_conditions(&self.match_conditions, &format!("{path}.matchConditions"), causes);
        if causes.len() > before {
            return None;
        }
        let remembered = |ttl: Nanos, default: Duration, on: Option<bool>| match on.unwrap_or(true) {
            true => ttl.or(default).duration(),
            false => Duration::ZERO,
        };
        Some(webhook::Options {
            kubeconfig: self.connection_info.kubeconfig.clone().unwrap_or_default().into(),
            timeout: self.timeout.duration(),
            version: self.subject_access_review_version.clone(),
            authorized_for: remembered(self.authorized_ttl, AUTHORIZED_TTL, self.cache_authorized_requests),
            unauthorized_for: remembered(self.unauthorized_ttl, UNAUTHORIZED_TTL, self.cache_unauthorized_requests),
            failure_policy: failure_policy?,
            conditions: conditions.into(),
        })
    }

    fn check_times(&self, path: &str, causes: &mut Vec<Cause>) {
        let field = format!("{path}.timeout");
        match self.timeout {
            Nanos(0) => causes.push(Cause::required(field, "")),
            Nanos(nanos) if nanos < 0 || self.timeout.duration() > TIMEOUT_MAX => {
                causes.push(Cause::invalid(field, &self.timeout.shown(), "must be > 0s and <= 30s"));
            }
            _ => {}
        }
        for (field, ttl) in [("authorizedTTL", self.authorized_ttl), ("unauthorizedTTL", self.unauthorized_ttl)] {
            if ttl.0 < 0 {
                causes.push(Cause::invalid(format!("{path}.{field}"), &ttl.shown(), "must be > 0s"));
            }
        }
    }

    fn check_versions(&self, path: &str, causes: &mut Vec<Cause>) {
        let field = format!("{path}.subjectAccessReviewVersion");
        match self.subject_access_review_version.as_str() {
            "" => causes.push(Cause::required(field, "")),
            "v1" | "v1beta1" => {}
            other => causes.push(Cause::not_supported(field, &json!(other), &["v1", "v1beta1"])),
        }
        let field = format!("{path}.matchConditionSubjectAccessReviewVersion");
        match self.match_condition_subject_access_review_version.as_str() {
            "" if self.match_conditions.is_empty() => {}
            "" => causes.push(Cause::required(field, "required if match conditions are specified")),
            "v1" => {}
            other => causes.push(Cause::not_supported(field, &json!(other), &["v1"])),
        }
    }
}

impl ConnectionInfo {
    fn check(&self, path: &str, causes: &mut Vec<Cause>) {
        let (of, field) = (format!("{path}.type"), format!("{path}.kubeConfigFile"));
        match (self.kind.as_str(), self.kubeconfig.as_deref()) {
            ("", _) => causes.push(Cause::required(of, "")),
            ("InClusterConfig", Some(file)) => {
                causes.push(Cause::invalid(field, &json!(file), "can only be set when type=KubeConfigFile"));
            }
            // That is for who asks an API server; one that asks itself would wait for its own answer.
            ("InClusterConfig", None) => {
                let why = "an API server has no cluster around it whose API server it could ask; write type: KubeConfigFile \
                           and kubeConfigFile: FILE";
                causes.push(Cause::invalid(of, &json!(self.kind), why));
            }
            ("KubeConfigFile", None | Some("")) => causes.push(Cause::required(field, "")),
            ("KubeConfigFile", Some(file)) => {
                if let Some(why) = wrong_file(Path::new(file)) {
                    causes.push(Cause::invalid(field, &json!(file), &why));
                }
            }
            _ => causes.push(Cause::not_supported(of, &json!(self), &["InClusterConfig", "KubeConfigFile"])),
        }
    }
}

/// Why a file cannot be a kubeconfig.
fn wrong_file(path: &Path) -> Option<String> {
    if !path.is_absolute() {
        return Some("must be an absolute path".into());
    }
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => None,
        Ok(_) => Some("must be a regular file".into()),
        Err(why) => {
            let why = match why.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_string(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_string(),
                _ => why.to_string(),
            };
            Some(format!("error loading file: stat {}: {why}", path.display()))
        }
    }
}

fn compile_conditions(conditions: &[MatchCondition], path: &str, causes: &mut Vec<Cause>) -> Vec<Expression> {
    let mut compiled = Vec::new();
    if conditions.len() > CONDITIONS_MAX {
        causes.push(Cause::too_many(path, conditions.len(), CONDITIONS_MAX));
        return compiled;
    }
    let mut seen = BTreeSet::new();
    for (at, MatchCondition { expression }) in conditions.iter().enumerate() {
        let path = format!("{path}[{at}].expression");
        if expression.trim().is_empty() {
            causes.push(Cause::required(path, ""));
        } else if !seen.insert(expression) {
            causes.push(Cause::duplicate(path, &json!(expression)));
        } else {
            match Expression::compile_condition(expression, About::Request) {
                Ok(expression) => compiled.push(expression),
                Err(why) => causes.push(Cause::invalid(path, &json!(expression), &why)),
            }
        }
    }
    compiled
}

#[cfg(test)]
mod tests;
