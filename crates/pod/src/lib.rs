//! The commands that are of use in a pod, which `kemudi` has too, and what commands share: flags, output, how an error is told.
//! Results go to stdout, everything else to stderr. Words, output and exit codes are kubectl's where kubectl has the command.
//! Knows no server and starts no pod.

pub mod auth;
pub mod doctor;
pub mod get;
pub mod raw;
pub mod record;
pub mod whoami;
pub mod why;

pub mod files;
pub mod names;
pub mod output;
pub mod recording;
pub mod resolve;
pub mod table;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser};
use kemudi_client::config::{Ca, ConfigCode, Credentials, Impersonate, Names, Pem, Server};
use kemudi_client::{Client, Config, Error};

static PROGRAM: OnceLock<&str> = OnceLock::new();

/// How this program is called where it tells what to type: `kemudi`, unless it says otherwise at its start.
pub fn program() -> &'static str {
    PROGRAM.get().copied().unwrap_or("kemudi")
}

/// Says how this program is called, once, before anything is told.
pub fn called(name: &'static str) {
    // Whoever was first is right.
    let _ = PROGRAM.set(name);
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Shared options")]
pub struct Global {
    /// Path of the kubeconfig [default: $KUBECONFIG, ~/.kube/config, then the pod's own account]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of the request
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Group to act as, may be repeated
    #[arg(long, global = true, value_name = "GROUP")]
    pub as_group: Vec<String>,
    /// UID to act as
    #[arg(long, global = true, value_name = "UID")]
    pub as_uid: Option<String>,
    /// Address of the server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token to use
    #[arg(long = "token", id = "bearer", global = true, value_name = "TOKEN")]
    pub bearer: Option<String>,
    /// File of the CA that signed the server's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Who knows the addresses of names; nobody for the system.
    #[arg(skip)]
    pub names: Option<Names>,
}

impl Global {
    /// The configuration that the flags, the kubeconfig and the environment make together.
    pub fn config(&self) -> Result<Config, Error> {
        let mut config = match (&self.kubeconfig, &self.context) {
            (None, None) => match Config::infer() {
                Err(error) if error.code == ConfigCode::Nowhere && self.server.is_some() => self.bare_config()?,
                answer => answer?,
            },
            (path, context) => Config::from_kubeconfig(path.as_deref(), context.as_deref())?,
        };
        if let Some(server) = &self.server {
            config.server = Server::parse(server)?;
        }
        if let Some(token) = &self.bearer {
            config.credentials = Credentials::Token(token.clone());
            // Else the server would take us for the certificate's user, whatever the token says.
            config.client_certificate = None;
        }
        if let Some(path) = &self.certificate_authority {
            config.ca = Ca::Of(Pem::File(path.clone()));
        }
        if let Some(namespace) = &self.namespace {
            config.namespace = namespace.clone();
        }
        if self.as_user.is_some() || !self.as_group.is_empty() || self.as_uid.is_some() {
            config.impersonate = Impersonate {
                user: self.as_user.clone(),
                groups: self.as_group.clone(),
                uid: self.as_uid.clone(),
                ..Impersonate::default()
            };
        }
        config.names.clone_from(&self.names);
        Ok(config)
    }

    /// The same where `--server` may be the path of a kubeconfig.
    pub fn config_or_file(&self) -> Result<Config, Error> {
        match self.server.as_ref().map(PathBuf::from).filter(|given| given.is_file()) {
            Some(file) => Global { kubeconfig: Some(file), server: None, ..self.clone() }.config(),
            None => self.config(),
        }
    }

    /// A client for [`Global::config`] that tells the server's warnings on stderr, each once.
    pub fn client(&self) -> Result<Client, Error> {
        let told = std::sync::Mutex::new(std::collections::HashSet::new());
        let client = Client::new(self.config()?)?.with_user_agent(concat!("kemudi/", env!("CARGO_PKG_VERSION")))?;
        Ok(client.on_warning(move |text| {
            if told.lock().is_ok_and(|mut told| told.insert(text.to_string())) {
                eprintln!("Warning: {text}");
            }
        }))
    }

    fn bare_config(&self) -> Result<Config, Error> {
        Ok(Config {
            source: "the command line".to_string(),
            ..Config::new(Server::parse(self.server.as_deref().unwrap_or_default())?)
        })
    }
}

/// How a command ends.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command did not do what was asked: what is told on stderr, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// Whole lines as they are printed, without the last line's end; empty where all was told already.
    pub message: String,
    /// What to type next.
    pub hint: Option<String>,
    pub code: u8,
}

impl Failure {
    /// `error: ..`, exit code 1.
    pub fn new(message: impl fmt::Display) -> Failure {
        Failure { message: format!("error: {message}"), hint: None, code: 1 }
    }

    /// The same with another exit code.
    pub fn with_code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }

    /// Everything was told already; only the code is left.
    pub fn silent(code: u8) -> Failure {
        Failure { message: String::new(), hint: None, code }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// An error of the client as kubectl tells it, `doing` being what was under way: `error when creating "x.yaml"`.
    pub fn while_doing(doing: &str, error: Error) -> Failure {
        let hint = hint(&error);
        let prefix = if doing.is_empty() { String::new() } else { format!("{doing}: ") };
        let message = match error.status() {
            None => format!("error: {prefix}{error}"),
            Some(status) if status.code == 401 => {
                format!("error: {prefix}You must be logged in to the server ({})", status.message)
            }
            Some(status) if status.code == 422 => {
                // kubectl shows validation without saying what it was about to do.
                let what = status.message.split_once(" is invalid: ").map_or(status.message.as_str(), |(_, what)| what);
                match &status.details {
                    Some(details) if !details.kind.is_empty() => {
                        format!("The {} {} is invalid: {what}", details.kind, api::go::quote(&details.name))
                    }
                    _ => format!("The request is invalid: {what}"),
                }
            }
            Some(status) if status.reason.is_unknown() => format!("Error from server: {prefix}{}", status.message),
            Some(status) => format!("Error from server ({}): {prefix}{}", status.reason.as_str(), status.message),
        };
        Failure { message, hint, code: 1 }
    }
}

/// What the command line says; the exit code where it says nothing to be run, which was told then.
pub fn parsed<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        let _ = error.print();
        // kubectl's code for a wrong command line is 1, clap's is 2.
        ExitCode::from(u8::from(error.use_stderr()))
    })
}

/// Says on stderr what went wrong, if anything did.
pub fn ending(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.code)
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::while_doing("", error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            // The reader of our output has seen enough.
            io::ErrorKind::BrokenPipe => Failure::silent(0),
            _ => Failure::new(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.message.is_empty() {
            writeln!(f, "{}", self.message)?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What to type next about an error of the client.
fn hint(error: &Error) -> Option<String> {
    if let Some(refusal) = error.forbidden() {
        if !refusal.path.is_empty() {
            return Some(format!("see what you may do: {} auth can-i --list", program()));
        }
        let (kind, scope) = match refusal.namespace.as_str() {
            "" => ("clusterrole", String::new()),
            namespace => ("role", format!(" -n {namespace}")),
        };
        let resource = match refusal.group.as_str() {
            "" => refusal.resource.clone(),
            // kubectl's order: resource.group/subresource.
            group => match refusal.resource.split_once('/') {
                Some((resource, sub)) => format!("{resource}.{group}/{sub}"),
                None => format!("{}.{group}", refusal.resource),
            },
        };
        let Some(subject) = subject_flag(&refusal.user) else {
            return Some(format!("see what you may do: {} auth can-i --list", program()));
        };
        let role = format!("kemudi create {kind} NAME --verb={} --resource={resource}{scope}", refusal.verb);
        let binding = format!("kemudi create {kind}binding NAME --{kind}=NAME {subject}{scope}");
        return Some(format!("whoever may grant it types: {role} && {binding}"));
    }
    match error {
        Error::Api(status) if status.code == 401 => Some(format!(
            "the token or certificate is not (or no longer) valid here; see what is wrong with it: {} doctor",
            program()
        )),
        Error::Connect { .. } | Error::Tls { .. } => Some(format!("check each step of the way: {} doctor", program())),
        Error::Request(text) if text.contains("doesn't have a resource type") => {
            Some(format!("see all of them: {0} raw /apis (groups) and {0} raw /api/v1 (core)", program()))
        }
        _ => None,
    }
}

/// The flag of `create rolebinding` that names a user; `None` for those who should be given nothing.
fn subject_flag(user: &str) -> Option<String> {
    match user.strip_prefix("system:serviceaccount:") {
        Some(account) => Some(format!("--serviceaccount={account}")),
        None if user == "system:anonymous" => None,
        None => Some(format!("--user={user}")),
    }
}

/// The token that a configuration sends, where it has one.
pub fn token_of(config: &Config) -> Outcome<Option<String>> {
    match &config.credentials {
        // A plugin's is asked for with each command; it is nobody's to show.
        Credentials::None | Credentials::Exec(_) => Ok(None),
        Credentials::Token(token) => Ok(Some(token.clone())),
        Credentials::TokenFile(path) => std::fs::read_to_string(path)
            .map(|text| Some(text.trim().to_string()))
            .map_err(|error| Failure::new(format!("cannot read the token at {}: {error}", path.display()))),
    }
}

/// A flag's time as Go writes it: `90s`, `1h30m`.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let seconds = api::go::parse_duration(text)?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text} is no time to wait for"))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Writes to stdout.
pub fn print(text: impl AsRef<[u8]>) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    Ok(out.flush()?)
}
