//! Kubeconfig files: read, merged as kubectl merges them, one context picked. Never written here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::api::fields;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::{
    Ca, Config, ConfigCode, ConfigError, Credentials, Impersonate, Interactive, Pem, Plugin, Proxy, Server,
};

/// Largest kubeconfig that is read, in bytes.
const KUBECONFIG_BYTES_MAX: u64 = 16 << 20;

/// Several files as one.
#[derive(Debug, Default)]
pub struct Kubeconfig {
    current_context: String,
    contexts: Vec<(String, Context)>,
    clusters: Vec<(String, Cluster)>,
    users: Vec<(String, User)>,
    source: String,
}

#[derive(Debug, Default)]
struct File {
    current_context: Option<String>,
    contexts: Option<Vec<Entry>>,
    clusters: Option<Vec<Entry>>,
    users: Option<Vec<Entry>>,
}

fields!(File, read { current_context: "current-context", contexts: "contexts", clusters: "clusters", users: "users" });

#[derive(Debug, Default)]
struct Entry {
    name: String,
    context: Option<Context>,
    cluster: Option<Cluster>,
    user: Option<User>,
}

fields!(Entry, read { name: "name", context: "context", cluster: "cluster", user: "user" });

#[derive(Clone, Debug, Default)]
struct Context {
    cluster: String,
    user: String,
    namespace: String,
}

fields!(Context, read { cluster: "cluster", user: "user", namespace: "namespace" });

#[derive(Clone, Debug, Default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
    proxy_url: String,
}

fields!(
    Cluster,
    read {
        server: "server",
        certificate_authority: "certificate-authority",
        certificate_authority_data: "certificate-authority-data",
        insecure_skip_tls_verify: "insecure-skip-tls-verify",
        tls_server_name: "tls-server-name",
        proxy_url: "proxy-url",
    }
);

#[derive(Clone, Debug, Default)]
struct User {
    token: String,
    token_file: String,
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    exec: Option<Exec>,
    auth_provider: Option<Value>,
    impersonate: String,
    as_uid: String,
    as_groups: Vec<String>,
    as_user_extra: BTreeMap<String, Vec<String>>,
}

fields!(
    User,
    read {
        token: "token",
        token_file: "tokenFile",
        client_certificate: "client-certificate",
        client_certificate_data: "client-certificate-data",
        client_key: "client-key",
        client_key_data: "client-key-data",
        exec: "exec",
        auth_provider: "auth-provider",
        impersonate: "as",
        as_uid: "as-uid",
        as_groups: "as-groups",
    }
);

#[derive(Clone, Debug, Default)]
struct Exec {
    api_version: String,
    command: String,
    args: Vec<String>,
    env: Vec<Variable>,
    install_hint: String,
    interactive_mode: Option<Interactive>,
    provide_cluster_info: bool,
}

fields!(
    Exec,
    read {
        api_version: "apiVersion",
        command: "command",
        args: "args",
        env: "env",
        install_hint: "installHint",
        interactive_mode: "interactiveMode",
        provide_cluster_info: "provideClusterInfo",
    }
);

#[derive(Clone, Debug, Default)]
struct Variable {
    name: String,
    value: String,
}

fields!(Variable, read { name: "name", value: "value" });

/// `KUBECONFIG` (several paths with colons between), else `~/.kube/config`.
pub fn default_paths(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    match env("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(list) => list.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
        None => env("HOME").into_iter().map(|home| Path::new(&home).join(".kube/config")).collect(),
    }
}

/// All files as one; the first to name something wins. Missing files are skipped unless `required`.
pub fn load(paths: &[PathBuf], required: bool) -> Result<Kubeconfig, ConfigError> {
    let mut out = Kubeconfig::default();
    let mut found = Vec::new();
    for path in paths {
        match std::fs::metadata(path) {
            // A home that belongs to somebody else (root's, in a pod of an ordinary user) holds nothing for us.
            Err(error)
                if !required
                    && matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) =>
            {
                continue;
            }
            Ok(meta) if meta.len() > KUBECONFIG_BYTES_MAX => {
                let text = format!("the kubeconfig {} is larger than {KUBECONFIG_BYTES_MAX} bytes", path.display());
                return Err(ConfigError::new(ConfigCode::KubeconfigInvalid, text).fix("see whether the path is right"));
            }
            _ => {}
        }
        let bytes = std::fs::read(path).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => ConfigCode::KubeconfigMissing,
                _ => ConfigCode::KubeconfigUnreadable,
            };
            ConfigError::new(code, format!("the kubeconfig {} cannot be read: {error}", path.display()))
                .fix("give another with --kubeconfig or KUBECONFIG; `kemudi up` prints the path of the one it writes")
        })?;
        out.merge(path, &String::from_utf8_lossy(&bytes))?;
        found.push(path.display().to_string());
    }
    if found.is_empty() {
        let tried: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let tried = if tried.is_empty() { "~/.kube/config (HOME is not set)".into() } else { tried.join(", ") };
        return Err(ConfigError::new(ConfigCode::KubeconfigMissing, format!("no kubeconfig at {tried}"))
            .fix("set KUBECONFIG to one; `kemudi up` prints the path of the one it writes"));
    }
    out.source = found.join(":");
    Ok(out)
}

impl Kubeconfig {
    /// The configuration of a context, of the current one where none is named.
    pub fn config(&self, context: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let name = context.unwrap_or(&self.current_context);
        if name.is_empty() {
            let text = format!("the kubeconfig {} has no current context", self.source);
            let fix = match self.contexts.is_empty() {
                true => "it has no contexts at all; give another file with --kubeconfig or KUBECONFIG".to_string(),
                false => format!("name one with --context: {}", names(&self.contexts)),
            };
            return Err(ConfigError::new(ConfigCode::ContextUnset, text).fix(fix));
        }
        let context = self.find(&self.contexts, name, "context", ConfigCode::ContextUnknown)?;
        let cluster = self.find(&self.clusters, &context.cluster, "cluster", ConfigCode::ClusterUnknown)?;
        let user = match context.user.as_str() {
            "" => &User::default(),
            name => self.find(&self.users, name, "user", ConfigCode::UserUnknown)?,
        };
        if user.auth_provider.is_some() {
            let text = format!("the user {:?} of {} logs in with an auth-provider", context.user, self.source);
            return Err(ConfigError::new(ConfigCode::CredentialsUnsupported, text).fix(
                "Kubernetes has removed them: use an exec plugin, a token (`kubectl create token NAME`), a tokenFile or a \
                 client certificate",
            ));
        }
        let credentials = match (user.token_file.as_str(), user.token.as_str(), &user.exec) {
            ("", "", None) => Credentials::None,
            ("", "", Some(exec)) => Credentials::Exec(Box::new(self.plugin(exec, cluster, &context.user)?)),
            ("", token, _) => Credentials::Token(token.trim().to_string()),
            (file, ..) => Credentials::TokenFile(file.into()),
        };
        let server = Server::parse(&cluster.server)?;
        let proxy = match cluster.proxy_url.as_str() {
            "" => Proxy::of_environment(env, &server)?,
            url => Some(Proxy::parse(url)?),
        };
        let certificate = pem(&user.client_certificate, &user.client_certificate_data, "client-certificate-data")?;
        let key = pem(&user.client_key, &user.client_key_data, "client-key-data")?;
        if certificate.is_some() != key.is_some() {
            let (there, missing) = match certificate {
                Some(_) => ("client-certificate", "client-key"),
                None => ("client-key", "client-certificate"),
            };
            let text = format!("the user {:?} of {} has a {there} and no {missing}", context.user, self.source);
            return Err(ConfigError::new(ConfigCode::ClientKeyMissing, text)
                .fix(format!("set {missing} or {missing}-data too: neither is of use alone")));
        }
        Ok(Config {
            ca: pem(&cluster.certificate_authority, &cluster.certificate_authority_data, "certificate-authority-data")?
                .map_or(Ca::System, Ca::Of),
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
            tls_server_name: Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty()),
            client_certificate: certificate.zip(key),
            proxy,
            credentials,
            namespace: match context.namespace.as_str() {
                "" => "default".to_string(),
                namespace => namespace.to_string(),
            },
            impersonate: Impersonate {
                user: Some(user.impersonate.clone()).filter(|name| !name.is_empty()),
                groups: user.as_groups.clone(),
                uid: Some(user.as_uid.clone()).filter(|uid| !uid.is_empty()),
                extra: user.as_user_extra.clone(),
            },
            source: format!("context {name:?} of {}", self.source),
            ..Config::new(server)
        })
    }

    fn plugin(&self, exec: &Exec, cluster: &Cluster, user: &str) -> Result<Plugin, ConfigError> {
        if !cfg!(feature = "exec") {
            return Err(crate::exec::unsupported(&exec.command));
        }
        let invalid = |why: String| {
            ConfigError::new(
                ConfigCode::PluginInvalid,
                format!("the exec plugin of the user {user:?} of {} {why}", self.source),
            )
            .fix("it needs apiVersion, command and interactiveMode; whoever made the kubeconfig can make it anew")
        };
        if !crate::exec::VERSIONS.contains(&exec.api_version.as_str()) {
            return Err(invalid(format!(
                "has the apiVersion {:?}; known are {}",
                exec.api_version,
                crate::exec::VERSIONS.join(", ")
            )));
        }
        if exec.command.is_empty() {
            return Err(invalid("has no command".to_string()));
        }
        // The older version may leave it out.
        if exec.interactive_mode.is_none() && exec.api_version.ends_with("/v1") {
            return Err(invalid("has no interactiveMode".to_string()));
        }
        let told = match exec.provide_cluster_info {
            true => Some(cluster.told()?),
            false => None,
        };
        Ok(Plugin {
            api_version: exec.api_version.clone(),
            command: exec.command.clone(),
            args: exec.args.clone(),
            env: exec.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect(),
            install_hint: exec.install_hint.clone(),
            interactive: exec.interactive_mode.unwrap_or_default(),
            cluster: told,
        })
    }

    fn find<'a, T>(
        &self,
        all: &'a [(String, T)],
        name: &str,
        what: &str,
        code: ConfigCode,
    ) -> Result<&'a T, ConfigError> {
        all.iter().find(|(other, _)| other == name).map(|(_, value)| value).ok_or_else(|| {
            ConfigError::new(code, format!("the {what} {name:?} is not in the kubeconfig {}", self.source))
                .fix(format!("it has: {}", names(all)))
        })
    }

    fn merge(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let invalid = |why: String| {
            ConfigError::new(ConfigCode::KubeconfigInvalid, format!("the kubeconfig {}: {why}", path.display()))
                .fix("it must be YAML or JSON with clusters, users and contexts")
        };
        let value = match text.trim().is_empty() {
            true => return Ok(()),
            false => document(text).map_err(&invalid)?,
        };
        let file: File =
            serde_json::from_value(::api::codec::without_nulls(value)).map_err(|error| invalid(error.to_string()))?;
        if self.current_context.is_empty() {
            self.current_context = file.current_context.unwrap_or_default();
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        for entry in file.contexts.into_iter().flatten() {
            add(&mut self.contexts, entry.name, entry.context.unwrap_or_default());
        }
        for entry in file.clusters.into_iter().flatten() {
            let mut cluster = entry.cluster.unwrap_or_default();
            absolute(dir, &mut cluster.certificate_authority);
            add(&mut self.clusters, entry.name, cluster);
        }
        for entry in file.users.into_iter().flatten() {
            let mut user = entry.user.unwrap_or_default();
            for path in [&mut user.token_file, &mut user.client_certificate, &mut user.client_key] {
                absolute(dir, path);
            }
            // A name alone is looked for in PATH.
            if let Some(exec) = user.exec.as_mut().filter(|exec| exec.command.contains('/')) {
                absolute(dir, &mut exec.command);
            }
            add(&mut self.users, entry.name, user);
        }
        Ok(())
    }
}

impl Cluster {
    /// What a plugin is told of it.
    fn told(&self) -> Result<Value, ConfigError> {
        let mut told = json!({"server": self.server});
        if let Some(pem) =
            pem(&self.certificate_authority, &self.certificate_authority_data, "certificate-authority-data")?
        {
            told["certificate-authority-data"] = STANDARD.encode(pem.load("the CA certificate")?).into();
        }
        for (name, text) in [("tls-server-name", &self.tls_server_name), ("proxy-url", &self.proxy_url)] {
            if !text.is_empty() {
                told[name] = text.as_str().into();
            }
        }
        if self.insecure_skip_tls_verify {
            told["insecure-skip-tls-verify"] = true.into();
        }
        Ok(told)
    }
}

#[cfg(feature = "kubeconfig")]
fn document(text: &str) -> Result<Value, String> {
    ::api::codec::from_yaml(text)
}

#[cfg(not(feature = "kubeconfig"))]
fn document(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| {
        format!(
            "this program was built without YAML, and as JSON it is wrong: {error}; build kemudi-client with the feature \
             `kubeconfig`, or write it in JSON (kubectl config view --raw -o json)"
        )
    })
}

fn add<T>(all: &mut Vec<(String, T)>, name: String, value: T) {
    if !all.iter().any(|(other, _)| *other == name) {
        all.push((name, value));
    }
}

/// Paths of a kubeconfig are relative to it.
fn absolute(dir: &Path, path: &mut String) {
    if !path.is_empty() && Path::new(path.as_str()).is_relative() {
        *path = dir.join(&path).to_string_lossy().into_owned();
    }
}

fn names<T>(all: &[(String, T)]) -> String {
    match all.is_empty() {
        true => "none".to_string(),
        false => all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

fn pem(file: &str, data: &str, field: &str) -> Result<Option<Pem>, ConfigError> {
    if !data.is_empty() {
        let bytes = STANDARD.decode(data.trim()).map_err(|error| {
            ConfigError::new(ConfigCode::KubeconfigInvalid, format!("{field} of the kubeconfig is not base64: {error}"))
                .fix("write it with `base64 -w0 FILE`, or name the file in the field without -data")
        })?;
        return Ok(Some(Pem::Inline(bytes)));
    }
    Ok(Some(file).filter(|file| !file.is_empty()).map(|file| Pem::File(file.into())))
}
