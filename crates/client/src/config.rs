//! Where the server is and who we are: from the pod's environment, from a kubeconfig, or whichever is there.
//! Strict: what is missing or broken is an error with a code, the exact variable or path, and what to do. Never guesses a server.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;

pub use crate::exec::{Interactive, Plugin};
use crate::kubeconfig;
pub use crate::proxy::Proxy;
use crate::token::Claims;

/// Where every container finds its service account, unless [`SERVICE_ACCOUNT_DIR_VARIABLE`] says otherwise.
pub const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Moves [`SERVICE_ACCOUNT_DIR`]: for programs that run outside of a pod with a pod's files.
pub const SERVICE_ACCOUNT_DIR_VARIABLE: &str = "KEMUDI_SERVICEACCOUNT_DIR";

/// How to reach a server, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server is.
    pub server: Server,
    /// Whom we believe that it is the server.
    pub ca: Ca,
    /// Do not check who the server is. For experiments only.
    pub insecure_skip_tls_verify: bool,
    /// The name the server's certificate must have, where it is not the host's.
    pub tls_server_name: Option<String>,
    /// PEM certificate chain and key that we show.
    pub client_certificate: Option<(Pem, Pem)>,
    /// How we prove who we are, beside a client certificate.
    pub credentials: Credentials,
    /// Where namespaced requests go that name no namespace.
    pub namespace: String,
    /// Whom to act as.
    pub impersonate: Impersonate,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What the way to the server leads through. A pod's own configuration has none: the server is next door, and the
    /// `HTTPS_PROXY` that a pod may have is for what is outside.
    pub proxy: Option<Proxy>,
    /// Who knows the addresses of names; `None` for the system's resolver (feature `system-names`, a default one).
    pub names: Option<Names>,
    /// Where all this came from, for messages.
    pub source: String,
}

/// Finds the addresses of a name, where a program has a resolver of its own.
#[derive(Clone)]
pub struct Names(Arc<dyn Fn(&str) -> Found + Send + Sync>);

/// What a name comes to.
type Found = BoxFuture<'static, io::Result<Vec<IpAddr>>>;

impl Names {
    /// Names are asked of this function, addresses are not.
    pub fn by(find: impl Fn(&str) -> Found + Send + Sync + 'static) -> Names {
        Names(Arc::new(find))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// How long the transport waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For name, address and TCP.
    pub connect: Duration,
    /// For the TLS and the HTTP/2 handshake, each.
    pub handshake: Duration,
    /// For the head of an answer. API servers give up on plain requests after 60 s and say so.
    pub answer: Duration,
    /// An HTTP/2 connection is asked for a sign of life this often,
    pub ping_every: Duration,
    /// and given up when none comes in this time.
    pub ping: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            answer: Duration::from_secs(75),
            ping_every: Duration::from_secs(30),
            ping: Duration::from_secs(15),
        }
    }
}

/// The address of a server, always HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What stands before `/api` in every path: empty, or `/k8s/clusters/one`.
    pub base_path: String,
}

/// Whose signature makes a server's certificate good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ca {
    /// The machine's own certificate store.
    System,
    /// A PEM file, read again when a certificate does not verify.
    Of(Pem),
}

/// PEM text, here or in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// A file, which is read again when it changes.
    File(PathBuf),
    /// The text itself.
    Inline(Vec<u8>),
}

/// How we prove who we are, beside a client certificate.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    None,
    /// A bearer token.
    Token(String),
    /// Read again whenever the file changes.
    TokenFile(PathBuf),
    /// A program gives them.
    Exec(Box<Plugin>),
}

/// Whom to act as; needs the right `impersonate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impersonate {
    /// The user's name.
    pub user: Option<String>,
    /// The groups, which need a user.
    pub groups: Vec<String>,
    /// The user's uid.
    pub uid: Option<String>,
    /// What else is known of the user, by key; needs a user too.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Config {
    /// A server that the system's certificates vouch for, reached as nobody: what the other fields begin with.
    pub fn new(server: Server) -> Config {
        Config {
            source: server.to_string(),
            server,
            ca: Ca::System,
            insecure_skip_tls_verify: false,
            tls_server_name: None,
            client_certificate: None,
            credentials: Credentials::None,
            namespace: "default".to_string(),
            impersonate: Impersonate::default(),
            timeouts: Timeouts::default(),
            proxy: None,
            names: None,
        }
    }

    /// Where a host and port can be connected to: asks [`Config::names`] or the system, unless the host is an address.
    ///
    /// # Errors
    /// That nobody knows the name.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        Ok(match &self.names {
            #[cfg(feature = "system-names")]
            None => tokio::net::lookup_host((host, port)).await?.collect(),
            #[cfg(not(feature = "system-names"))]
            None => {
                let why = "this program was built without the system's resolver, and has no other: write an address";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            Some(Names(find)) => find(host).await?.into_iter().map(|address| (address, port).into()).collect(),
        })
    }

    /// The configuration that Kubernetes gives to every container: two environment variables and three files.
    pub fn in_cluster() -> Result<Config, ConfigError> {
        Config::in_cluster_of(&|name| std::env::var(name).ok())
    }

    /// A context of a kubeconfig: of `path` or of `KUBECONFIG` or `~/.kube/config`, the named context or the current one.
    pub fn from_kubeconfig(path: Option<&Path>, context: Option<&str>) -> Result<Config, ConfigError> {
        Config::from_kubeconfig_of(path, context, &|name| std::env::var(name).ok())
    }

    /// A kubeconfig where there is one, the pod's own configuration otherwise: what kubectl does.
    pub fn infer() -> Result<Config, ConfigError> {
        Config::infer_of(&|name| std::env::var(name).ok())
    }

    /// As [`Config::in_cluster`], with other environment variables than the process's.
    pub fn in_cluster_of(env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let server = in_cluster_server(env)?;
        let dir = PathBuf::from(set(env, SERVICE_ACCOUNT_DIR_VARIABLE).unwrap_or(SERVICE_ACCOUNT_DIR.into()));
        let token_path = dir.join("token");
        let token = read_token(&token_path)?;
        let namespace = in_cluster_namespace(env, &dir, &token)?;
        let ca_path = dir.join("ca.crt");
        let ca = read(&ca_path, "the CA certificate", ConfigCode::CaMissing, ConfigCode::CaUnreadable)?;
        crate::tls::roots(&ca).map_err(|why| {
            ConfigError::new(ConfigCode::CaInvalid, format!("{} holds no certificate: {why}", ca_path.display())).fix(
                "the ConfigMap kube-root-ca.crt of the namespace should have PEM certificates; see what changed it",
            )
        })?;
        Ok(Config {
            ca: Ca::Of(Pem::File(ca_path)),
            namespace,
            credentials: Credentials::TokenFile(token_path),
            source: format!("the pod's service account ({})", dir.display()),
            ..Config::new(server)
        })
    }

    /// As [`Config::from_kubeconfig`], with other environment variables than the process's.
    pub fn from_kubeconfig_of(
        path: Option<&Path>,
        context: Option<&str>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let paths = match path {
            Some(path) => vec![path.to_path_buf()],
            None => kubeconfig::default_paths(env),
        };
        kubeconfig::load(&paths, path.is_some())?.config(context, env)
    }

    /// As [`Config::infer`], with other environment variables than the process's.
    pub fn infer_of(env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let outside = match Config::from_kubeconfig_of(None, None, env) {
            Err(error) if error.code.means_no_kubeconfig() => error,
            answer => return answer,
        };
        Config::in_cluster_of(env).map_err(|inside| match inside.code {
            // Half an environment means a pod: then the half that is missing is the news.
            ConfigCode::NotInCluster => ConfigError::new(
                ConfigCode::Nowhere,
                format!("no Kubernetes configuration found: {}; {}", outside.message, inside.message),
            )
            .fix(
                "outside a pod set KUBECONFIG or write ~/.kube/config (`kemudi up` prints one); \
                 for a pod's environment on this machine run your program with `kemudi run -- PROGRAM`",
            ),
            _ => inside,
        })
    }
}

fn in_cluster_server(env: &dyn Fn(&str) -> Option<String>) -> Result<Server, ConfigError> {
    const HOST: &str = "KUBERNETES_SERVICE_HOST";
    const PORT: &str = "KUBERNETES_SERVICE_PORT";
    let (host, port) = (set(env, HOST), set(env, PORT));
    let (host, port) = match (host, port) {
        (Some(host), Some(port)) => (host, port),
        (None, None) => {
            let text = format!("not in a pod: {HOST} and {PORT} are not set");
            return Err(ConfigError::new(ConfigCode::NotInCluster, text).fix(
                "run inside a pod (`kemudi run -- PROGRAM` makes one), or give a kubeconfig; \
                 in a pod, see whether a shell, sudo or a supervisor cleared the environment",
            ));
        }
        (host, _) => {
            let (missing, there) = if host.is_none() { (HOST, PORT) } else { (PORT, HOST) };
            let text = format!("{missing} is not set, though {there} is");
            let code = if host.is_none() { ConfigCode::HostMissing } else { ConfigCode::PortMissing };
            return Err(ConfigError::new(code, text)
                .fix("something on the way to this process removes variables (sudo, env -i, a service manager); pass both on"));
        }
    };
    let host = host.trim().trim_start_matches('[').trim_end_matches(']').to_string();
    if host.contains("://") || host.contains('/') || host.contains(char::is_whitespace) {
        let text = format!("{HOST} is {host:?}, which is no host name and no address");
        return Err(
            ConfigError::new(ConfigCode::HostInvalid, text).fix("it must be like 10.96.0.1, without https:// and port")
        );
    }
    let port = port.trim().parse().map_err(|_| {
        // A Service named "kubernetes" in the pod's namespace gives links like tcp://10.0.0.1:80.
        let text = format!("{PORT} is {port:?}, which is no port number");
        ConfigError::new(ConfigCode::PortInvalid, text).fix(
            "it must be a number from 1 to 65535; look for what sets it: the pod's env, a wrapper, another Service",
        )
    })?;
    Ok(Server { host, port, base_path: String::new() })
}

/// `POD_NAMESPACE`, the file, the token's own claim, `default`: the first that says something.
fn in_cluster_namespace(env: &dyn Fn(&str) -> Option<String>, dir: &Path, token: &str) -> Result<String, ConfigError> {
    const VARIABLE: &str = "POD_NAMESPACE";
    let path = dir.join("namespace");
    let file = || std::fs::read_to_string(&path).ok().filter(|text| !text.trim().is_empty());
    let claim = || Claims::decode(token).map(|claims| claims.kubernetes.namespace).filter(|name| !name.is_empty());
    let (name, source) = match (set(env, VARIABLE), file()) {
        (Some(name), _) => (name, VARIABLE.to_string()),
        (None, Some(name)) => (name, path.display().to_string()),
        (None, None) => return Ok(claim().unwrap_or_else(|| "default".to_string())),
    };
    let name = name.trim();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match name.bytes().all(fits) {
        true => Ok(name.to_string()),
        false => Err(ConfigError::new(
            ConfigCode::NamespaceInvalid,
            format!("{source} says {name:?}, which is no namespace"),
        )
        .fix(
            "it must be lower-case letters, digits and '-'; `$(POD_NAMESPACE)` left as it is means a missing fieldRef",
        )),
    }
}

/// The token of a file, trimmed.
pub(crate) fn read_token(path: &Path) -> Result<String, ConfigError> {
    let bytes = read(path, "the service account token", ConfigCode::TokenMissing, ConfigCode::TokenUnreadable)?;
    let text = String::from_utf8_lossy(&bytes);
    let token = text.trim();
    if token.is_empty() {
        return Err(ConfigError::new(ConfigCode::TokenEmpty, format!("{} is empty", path.display())).fix(
            "an empty token would make every request anonymous; see whether the volume was mounted, \
             and describe the pod for events of it",
        ));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let text = format!("{} holds characters that no token has", path.display());
        return Err(ConfigError::new(ConfigCode::TokenInvalid, text)
            .fix("write the bare token to it, without quotes, `Bearer` or line breaks inside"));
    }
    Ok(token.to_string())
}

/// A file with the reasons people meet most when it cannot be read.
pub(crate) fn read(
    path: &Path,
    what: &str,
    missing: ConfigCode,
    unreadable: ConfigCode,
) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let text = format!("{what} is not at {}: no such file", path.display());
            ConfigError::new(missing, text).fix(
                "in a pod: set automountServiceAccountToken to true (on the pod, or on its ServiceAccount), or mount a \
                 projected token volume there; with files elsewhere set KEMUDI_SERVICEACCOUNT_DIR",
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            let text = format!("{what} at {} may not be read by this user{}", path.display(), owner_of(path));
            ConfigError::new(unreadable, text).fix(
                "set spec.securityContext.fsGroup to a group of this process, or run as the user the files belong to",
            )
        }
        _ => ConfigError::new(unreadable, format!("{what} at {} cannot be read: {error}", path.display()))
            .fix("it must be a file; look at what is mounted there"),
    })
}

fn owner_of(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(meta) => format!(" (owner {}:{}, mode {:04o})", meta.uid(), meta.gid(), meta.mode() & 0o7777),
        Err(_) => String::new(),
    }
}

fn set(env: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.trim().is_empty())
}

impl Server {
    /// `https://HOST[:PORT][/BASE]`; plain HTTP is refused, since a token sent over it is lost.
    pub fn parse(url: &str) -> Result<Server, ConfigError> {
        let invalid = |why: &str| {
            ConfigError::new(ConfigCode::ServerInvalid, format!("the server {url:?} {why}"))
                .fix("write it like https://10.96.0.1:443")
        };
        let rest = match url.split_once("://") {
            Some(("https", rest)) => rest,
            Some(("http", _)) => return Err(invalid("is plain HTTP; the API is HTTPS only")),
            Some(_) => return Err(invalid("has a scheme that is not https")),
            None => url,
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            // More than one colon without brackets is a bare IPv6 address.
            None if authority.matches(':').count() > 1 => (authority, None),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() || host.contains(char::is_whitespace) || host.contains('@') {
            return Err(invalid("has no host"));
        }
        let port = port.map_or(Ok(443), str::parse).map_err(|_| invalid("has no valid port"))?;
        let base_path = match path.trim_end_matches('/') {
            "" => String::new(),
            path => format!("/{path}"),
        };
        Ok(Server { host: host.to_string(), port, base_path })
    }

    /// `HOST:PORT` as requests write it; IPv6 in brackets.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.base_path)
    }
}

impl Pem {
    /// The text; a file is read now.
    pub fn load(&self, what: &str) -> Result<Vec<u8>, ConfigError> {
        match self {
            Pem::Inline(bytes) => Ok(bytes.clone()),
            Pem::File(path) => read(path, what, ConfigCode::FileMissing, ConfigCode::FileUnreadable),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::None => f.write_str("None"),
            Credentials::Token(_) => f.write_str("Token(..)"),
            Credentials::TokenFile(path) => write!(f, "TokenFile({})", path.display()),
            Credentials::Exec(plugin) => plugin.fmt(f),
        }
    }
}

/// Why there is no usable configuration. The message names the variable or path, `fix` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What a program may branch on.
    pub code: ConfigCode,
    /// What is wrong, with the variable or path.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// What a program may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigCode {
    /// Neither a kubeconfig nor a pod's environment.
    Nowhere,
    /// Neither variable of a pod is set.
    NotInCluster,
    /// `KUBERNETES_SERVICE_HOST` is missing alone.
    HostMissing,
    /// It is no host.
    HostInvalid,
    /// `KUBERNETES_SERVICE_PORT` is missing alone.
    PortMissing,
    /// It is no port.
    PortInvalid,
    /// There is no token file.
    TokenMissing,
    /// It may not be read, or is no file.
    TokenUnreadable,
    /// It is empty.
    TokenEmpty,
    /// It holds what is no token.
    TokenInvalid,
    /// There is no CA file.
    CaMissing,
    /// It may not be read, or is no file.
    CaUnreadable,
    /// It holds no certificate.
    CaInvalid,
    /// There is no kubeconfig.
    KubeconfigMissing,
    /// It may not be read, or is no file.
    KubeconfigUnreadable,
    /// It is none.
    KubeconfigInvalid,
    /// The kubeconfig has no current context and none was named.
    ContextUnset,
    /// The kubeconfig has no context of that name.
    ContextUnknown,
    /// It has no cluster of the name that its context gives.
    ClusterUnknown,
    /// It has no user of the name that its context gives.
    UserUnknown,
    /// The kubeconfig's user needs a plugin that this client cannot run.
    CredentialsUnsupported,
    /// The server's address is none, or not HTTPS.
    ServerInvalid,
    /// A file that the kubeconfig names is not there.
    FileMissing,
    /// It may not be read, or is no file.
    FileUnreadable,
    /// Certificate and key are not PEM, or do not belong together.
    ClientCertificateInvalid,
    /// One of certificate and key is named without the other.
    ClientKeyMissing,
    /// No user, though a group or uid is to be impersonated, or a name that no header can hold.
    ImpersonationInvalid,
    /// What names the pod's namespace holds what is no name.
    NamespaceInvalid,
    /// The proxy's address is none, or of a kind that is not supported.
    ProxyInvalid,
    /// The program that gives credentials is not there.
    PluginMissing,
    /// It ended badly, or not at all.
    PluginFailed,
    /// What it printed are no credentials, or the kubeconfig says too little about it.
    PluginInvalid,
    /// No CA is named, and the machine has none.
    NoSystemRoots,
}

impl ConfigCode {
    fn means_no_kubeconfig(self) -> bool {
        matches!(self, ConfigCode::KubeconfigMissing | ConfigCode::ContextUnset)
    }
}

impl ConfigError {
    pub(crate) fn new(code: ConfigCode, message: impl Into<String>) -> ConfigError {
        ConfigError { code, message: message.into(), fix: String::new() }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> ConfigError {
        self.fix = fix.into();
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.message, self.fix)
    }
}

impl std::error::Error for ConfigError {}
