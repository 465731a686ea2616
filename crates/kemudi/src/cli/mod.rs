//! The command line. One file a command; this one has the list, the flags they share, and how an error is told.
//! Results go to stdout, everything else to stderr. Words, output and exit codes are kubectl's where kubectl has the command.

mod apply;
mod attach;
mod auth;
mod cp;
mod create;
mod delete;
mod doctor;
mod exec;
mod get;
mod image;
mod keys;
mod logs;
mod port_forward;
mod raw;
mod record;
mod run;
mod token;
mod tour;
mod up;
mod version;
mod whoami;
mod why;

mod authn_flags;
mod authz_flags;
mod files;
mod output;
mod pods;
mod recording;
mod remote;
mod resolve;
mod rights;
mod table;
mod three_way;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use kemudi_client::config::{Ca, ConfigCode, Credentials, Impersonate, Pem, Server};
use kemudi_client::{Client, Config, Error};

/// The Kubernetes API as a pod sees it, both sides of it.
#[derive(Parser)]
#[command(name = "kemudi", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server with its controllers and a node on this machine
    Up(up::Up),
    /// Run a command in a pod with exactly the rights you give it
    Run(run::Run),
    /// Write the least Role that a command, or an account of a running server, needs
    Record(record::Record),
    /// The authorities of a cluster: show them, let a new one take over
    Ca(keys::Ca),
    /// The keys that sign a cluster's tokens: show them, let a new one take over
    Keys(keys::Keys),
    /// The tutorial, live: from an empty machine to a program that lists its own pod
    Tour(tour::Tour),
    /// Show objects
    Get(get::Get),
    /// Make objects be as files say
    Apply(apply::Apply),
    /// Make a new object, from a file or from flags
    Create(create::Create),
    /// Delete objects
    Delete(delete::Delete),
    /// The images that pods of this machine can have
    Image(image::Image),
    /// Show what a container wrote
    Logs(logs::Logs),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Attach to the program of a container
    Attach(attach::Attach),
    /// Copy files to and from a container
    Cp(cp::Cp),
    /// Reach ports of a pod on this machine
    PortForward(port_forward::PortForward),
    /// Send a request to any path
    Raw(raw::Raw),
    /// Ask what you may do
    Auth(auth::Auth),
    /// Show who the server takes you for
    Whoami(whoami::Whoami),
    /// Explain a refusal: its cause, and the least Role that allows it
    Why(why::Why),
    /// Check each step from here to the server, and say what is wrong
    Doctor(doctor::Doctor),
    /// Print the token in use, or ask for one of a service account
    Token(token::Token),
    /// Show the versions of client and server
    Version(version::Version),
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
}

/// Parses the command line and runs it to its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // kubectl's code for a wrong command line is 1, clap's is 2.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("KEMUDI_LOG"))
        .with_writer(io::stderr)
        .init();
    let serves = matches!(cli.command, Command::Up(_) | Command::Run(_) | Command::Record(_) | Command::Tour(_));
    let runtime = match serves {
        true => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        false => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(cli.command.run(&cli.global));
            if !serves {
                // A resolver that still waits for a name's address is not waited for, nor is a read of the terminal.
                runtime.shutdown_background();
            }
            outcome
        }
        Err(error) => Err(Failure::new(format!("no asynchronous runtime: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.code)
        }
    }
}

impl Command {
    async fn run(self, global: &Global) -> Outcome {
        match self {
            Command::Up(up) => up.run(global).await,
            Command::Run(run) => run.run(global).await,
            Command::Record(record) => record.run(global).await,
            Command::Ca(ca) => ca.run(global).await,
            Command::Keys(keys) => keys.run(global).await,
            Command::Tour(tour) => tour.run(global).await,
            Command::Get(get) => get.run(global).await,
            Command::Apply(apply) => apply.run(global).await,
            Command::Create(create) => create.run(global).await,
            Command::Delete(delete) => delete.run(global).await,
            Command::Image(image) => image.run(global).await,
            Command::Logs(logs) => logs.run(global).await,
            Command::Exec(exec) => exec.run(global).await,
            Command::Attach(attach) => attach.run(global).await,
            Command::Cp(cp) => cp.run(global).await,
            Command::PortForward(forward) => forward.run(global).await,
            Command::Raw(raw) => raw.run(global).await,
            Command::Auth(auth) => auth.run(global).await,
            Command::Whoami(whoami) => whoami.run(global).await,
            Command::Why(why) => why.run(global).await,
            Command::Doctor(doctor) => doctor.run(global).await,
            Command::Token(token) => token.run(global).await,
            Command::Version(version) => version.run(global).await,
        }
    }
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
        Ok(config)
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
            return Some("see what you may do: kemudi auth can-i --list".to_string());
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
            return Some("see what you may do: kemudi auth can-i --list".to_string());
        };
        let role = format!("kemudi create {kind} NAME --verb={} --resource={resource}{scope}", refusal.verb);
        let binding = format!("kemudi create {kind}binding NAME --{kind}=NAME {subject}{scope}");
        return Some(format!("whoever may grant it types: {role} && {binding}"));
    }
    match error {
        Error::Api(status) if status.code == 401 => Some(
            "the token or certificate is not (or no longer) valid here; see what it says: kemudi token --claims".into(),
        ),
        Error::Connect { .. } | Error::Tls { .. } => Some("check each step of the way: kemudi doctor".into()),
        Error::Request(text) if text.contains("doesn't have a resource type") => {
            Some("see all of them: kemudi raw /apis (groups) and kemudi raw /api/v1 (core)".into())
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

/// A flag's time as Go writes it: `90s`, `1h30m`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let seconds = api::go::parse_duration(text)?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text} is no time to wait for"))
}

/// Writes to stdout.
pub fn print(text: impl AsRef<[u8]>) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    Ok(out.flush()?)
}
