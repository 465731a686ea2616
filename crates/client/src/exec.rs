//! Credentials that a program gives: a kubeconfig's exec plugins (`client.authentication.k8s.io/v1` and `v1beta1`). The program
//! is run when a request needs it, and its answer used until it says that it ends or the server refuses it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ::api::fields;
use http::HeaderValue;
use serde_core::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

use crate::config::{ConfigCode, ConfigError};

/// The versions of what is said to plugins and read from them.
pub(crate) const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
/// Largest answer of a plugin, in bytes.
#[cfg(feature = "exec")]
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long a plugin may take, which may have to wait for a person.
#[cfg(feature = "exec")]
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(300);

/// A program that gives credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Plugin {
    /// `client.authentication.k8s.io/v1` or `.../v1beta1`.
    pub api_version: String,
    /// A path, or a name that is looked for in `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables beside those of this process.
    pub env: Vec<(String, String)>,
    /// What the kubeconfig says of where to get it.
    pub install_hint: String,
    /// Whether it may ask the person in front of it.
    pub interactive: Interactive,
    /// What it is told of the cluster, where the kubeconfig wants that.
    pub cluster: Option<Value>,
}

/// Whether a plugin reads from the terminal: `interactiveMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interactive {
    /// It never does.
    Never,
    /// It does where there is a terminal.
    #[default]
    IfAvailable,
    /// It cannot do without one.
    Always,
}

impl<'de> Deserialize<'de> for Interactive {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Interactive, D::Error> {
        match String::deserialize(input)?.as_str() {
            "Never" => Ok(Interactive::Never),
            "IfAvailable" => Ok(Interactive::IfAvailable),
            "Always" => Ok(Interactive::Always),
            other => Err(D::Error::unknown_variant(other, &["Never", "IfAvailable", "Always"])),
        }
    }
}

/// A plugin, and what it last gave.
pub(crate) struct Credential {
    plugin: Plugin,
    held: tokio::sync::Mutex<Option<Answer>>,
    shown: std::sync::Mutex<Option<(Vec<u8>, Vec<u8>)>>,
    runs: AtomicU64,
}

#[derive(Clone, Default)]
struct Answer {
    token: Option<HeaderValue>,
    /// Seconds since 1970.
    expires: Option<i64>,
}

impl Credential {
    pub fn new(plugin: Plugin) -> Credential {
        Credential { plugin, held: Default::default(), shown: Default::default(), runs: AtomicU64::new(0) }
    }

    /// The header for the next request; none where the plugin gives a certificate alone.
    pub async fn header(&self) -> Result<Option<HeaderValue>, ConfigError> {
        let mut held = self.held.lock().await;
        match held.as_ref().filter(|held| !held.is_over()) {
            Some(held) => Ok(held.token.clone()),
            None => Ok(held.insert(self.run().await?).token.clone()),
        }
    }

    /// The server refused `used`: another, if the plugin gives one now.
    pub async fn other_than(&self, used: Option<&HeaderValue>) -> Option<HeaderValue> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.as_ref().and_then(|held| held.token.clone())
            && Some(&token) != used
        {
            return Some(token);
        }
        match self.run().await {
            Ok(answer) => held.insert(answer).token.clone().filter(|token| Some(token) != used),
            Err(error) => {
                tracing::warn!(%error, "the server refused the plugin's token, and the plugin gives no other");
                None
            }
        }
    }

    /// PEM certificate chain and key that the plugin gave.
    pub fn shown(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// How often it ran.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Acquire)
    }

    async fn run(&self) -> Result<Answer, ConfigError> {
        let text = self.plugin.ask().await?;
        let (answer, shown) = self.plugin.read(&text)?;
        *self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = shown;
        self.runs.fetch_add(1, Ordering::Release);
        Ok(answer)
    }
}

impl Answer {
    fn is_over(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// What a plugin prints.
#[derive(Default)]
struct Printed {
    api_version: String,
    kind: String,
    status: Option<PrintedStatus>,
}

fields!(Printed, read { api_version: "apiVersion", kind: "kind", status: "status" });

#[derive(Default)]
struct PrintedStatus {
    expiration_timestamp: Option<String>,
    token: String,
    client_certificate_data: String,
    client_key_data: String,
}

fields!(
    PrintedStatus,
    read {
        expiration_timestamp: "expirationTimestamp",
        token: "token",
        client_certificate_data: "clientCertificateData",
        client_key_data: "clientKeyData",
    }
);

type Shown = Option<(Vec<u8>, Vec<u8>)>;

impl Plugin {
    /// Runs the program and gives what it prints.
    #[cfg(feature = "exec")]
    async fn ask(&self) -> Result<Vec<u8>, ConfigError> {
        use std::io::{ErrorKind, IsTerminal};
        use std::process::Stdio;

        use tokio::io::AsyncReadExt;
        use tokio::process::Command;

        let terminal = std::io::stdin().is_terminal();
        if self.interactive == Interactive::Always && !terminal {
            return Err(self.failed("wants to ask a person, and standard input is no terminal"));
        }
        let interactive = terminal && self.interactive != Interactive::Never;
        let mut spec = serde_json::json!({"interactive": interactive});
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = cluster.clone();
        }
        let info = serde_json::json!({"kind": "ExecCredential", "apiVersion": self.api_version, "spec": spec});
        let child = Command::new(&self.command)
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .env("KUBERNETES_EXEC_INFO", info.to_string())
            .stdin(if interactive { Stdio::inherit() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let hint = match self.install_hint.trim() {
                    "" => "install it, or put the folder it is in into PATH".to_string(),
                    hint => hint.to_string(),
                };
                let text = format!("the plugin {:?} that gives credentials is not there", self.command);
                ConfigError::new(ConfigCode::PluginMissing, text).fix(hint)
            }
            _ => self.failed(&format!("cannot be started: {error}")),
        })?;
        let mut text = Vec::new();
        let stdout = child.stdout.take();
        let work = async {
            if let Some(stdout) = stdout {
                stdout.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut text).await?;
            }
            child.wait().await
        };
        match tokio::time::timeout(ANSWER_TIME_MAX, work).await {
            Err(_) => Err(self.failed(&format!("did not end within {ANSWER_TIME_MAX:?}"))),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Ok(Ok(code)) if !code.success() => Err(self.failed(&format!("ended with {code}"))),
            Ok(Ok(_)) if text.len() as u64 > ANSWER_BYTES_MAX => {
                Err(self.failed(&format!("printed more than {ANSWER_BYTES_MAX} bytes")))
            }
            Ok(Ok(_)) => Ok(text),
        }
    }

    #[cfg(not(feature = "exec"))]
    async fn ask(&self) -> Result<Vec<u8>, ConfigError> {
        Err(unsupported(&self.command))
    }

    fn read(&self, text: &[u8]) -> Result<(Answer, Shown), ConfigError> {
        let wrong = |why: &str| {
            ConfigError::new(ConfigCode::PluginInvalid, format!("what the plugin {:?} printed {why}", self.command))
                .fix("run it by hand and see; it must print an ExecCredential with a status, and nothing else")
        };
        let printed: Printed =
            serde_json::from_slice(text).map_err(|error| wrong(&format!("is no ExecCredential: {error}")))?;
        if printed.kind != "ExecCredential" || printed.api_version != self.api_version {
            return Err(wrong(&format!(
                "has the kind {:?} and apiVersion {:?}, and the kubeconfig wants {}",
                printed.kind, printed.api_version, self.api_version
            )));
        }
        let status = printed.status.ok_or_else(|| wrong("has no status"))?;
        let shown = match (status.client_certificate_data.as_str(), status.client_key_data.as_str()) {
            ("", "") => None,
            ("", _) | (_, "") => return Err(wrong("has one of certificate and key without the other")),
            (certificate, key) => Some((certificate.as_bytes().to_vec(), key.as_bytes().to_vec())),
        };
        let token = match status.token.trim() {
            "" if shown.is_none() => return Err(wrong("has neither token nor certificate")),
            "" => None,
            token => Some(crate::credentials::header(token)?),
        };
        let expires = match status.expiration_timestamp {
            None => None,
            Some(at) => {
                Some(crate::time::parse(&at).ok_or_else(|| wrong("has an expirationTimestamp that is no time"))?)
            }
        };
        Ok((Answer { token, expires }, shown))
    }

    #[cfg(feature = "exec")]
    fn failed(&self, why: &str) -> ConfigError {
        ConfigError::new(
            ConfigCode::PluginFailed,
            format!("the plugin {:?} that gives credentials {why}", self.command),
        )
        .fix("run it by hand and see what it says")
    }
}

/// This build has no plugins.
pub(crate) fn unsupported(command: &str) -> ConfigError {
    let text = format!("the credentials come from the plugin {command:?}, and this program was built without plugins");
    ConfigError::new(ConfigCode::CredentialsUnsupported, text).fix(
        "build kemudi-client with the feature `exec`, or use a token (`kubectl create token NAME`), a tokenFile or a \
         client certificate",
    )
}

impl fmt::Debug for Plugin {
    /// Without arguments and variables, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({} {})", self.command, self.api_version)
    }
}
