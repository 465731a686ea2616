//! The command line. One file a command; this one has the list. What works in a pod too, the flags that all share and how an error is
//! told are `kemudi-pod`'s.

mod apply;
mod attach;
mod cp;
mod create;
mod delete;
mod doctor;
mod exec;
mod image;
mod keys;
mod logs;
mod node;
mod port_forward;
mod record;
mod run;
mod token;
mod tour;
mod up;
mod version;

mod authn_flags;
mod authz_flags;
mod pods;
mod remote;
mod rights;
mod three_way;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pod::{Failure, Global, Outcome, ending, parsed, print, token_of};
use pod::{auth, files, get, output, raw, recording, resolve, table, whoami, why};

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
    Up(Box<up::Up>),
    /// Run pods on this machine for a server elsewhere
    Node(node::Node),
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

/// Parses the command line and runs it to its exit code.
pub fn main() -> ExitCode {
    let cli = match parsed::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("KEMUDI_LOG"))
        .with_writer(std::io::stderr)
        .init();
    let serves = matches!(
        cli.command,
        Command::Up(_) | Command::Node(_) | Command::Run(_) | Command::Record(_) | Command::Tour(_)
    );
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
    ending(outcome)
}

impl Command {
    async fn run(self, global: &Global) -> Outcome {
        match self {
            Command::Up(up) => up.run(global).await,
            Command::Node(node) => node.run(global).await,
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
            Command::Why(why) => why.run(global, builtin).await,
            Command::Doctor(doctor) => doctor.run(global).await,
            Command::Token(token) => token.run(global).await,
            Command::Version(version) => version.run(global).await,
        }
    }
}

/// A resource that every cluster has, by any of its names.
fn builtin(word: &str) -> Option<why::Builtin> {
    kinds::builtin().find(word).map(|kind| why::Builtin {
        group: kind.group.to_string(),
        resource: kind.plural.to_string(),
        subresources: kind.subresources.iter().map(|sub| sub.name.to_string()).collect(),
        namespaced: kind.namespaced,
    })
}
