//! `kemudi-pod`: kemudi's commands for a shell in a pod, in a small program that needs nothing of its image. Reads the command line,
//! runs one command, and turns its outcome into an exit code.

use std::future::Ready;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pod::doctor::Found;
use pod::{Failure, Global, Outcome, auth, doctor, ending, get, names, parsed, raw, record, whoami, why};

/// The Kubernetes API from inside a pod: who you are, what you may do, what there is, and what is wrong.
#[derive(Parser)]
#[command(name = "kemudi-pod", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show who the server takes you for
    Whoami(whoami::Whoami),
    /// Ask what you may do
    Auth(auth::Auth),
    /// Ask whether you may do something: VERB TYPE[/NAME] or VERB /PATH; exit code 1 where not
    #[command(name = "can-i")]
    CanI(auth::CanI),
    /// Show objects
    Get(get::Get),
    /// Send a request to any path
    Raw(raw::Raw),
    /// Explain a refusal: its cause, and the least Role that allows it
    Why(why::Why),
    /// Check each step from here to the server, and say what is wrong
    Doctor(doctor::Doctor),
    /// Write the least Role that an account needs
    Record(record::Record),
}

fn main() -> ExitCode {
    pod::called("kemudi-pod");
    let mut cli = match parsed::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli.global.names = Some(names::of_files());
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli.command.run(&cli.global)),
        Err(error) => Err(Failure::new(format!("no asynchronous runtime: {error}"))),
    };
    ending(outcome)
}

impl Command {
    async fn run(self, global: &Global) -> Outcome {
        match self {
            Command::Whoami(whoami) => whoami.run(global).await,
            Command::Auth(auth) => auth.run(global).await,
            Command::CanI(can_i) => can_i.run(global).await,
            Command::Get(get) => get.run(global).await,
            Command::Raw(raw) => raw.run(global).await,
            // What every cluster has, the server tells; who it tells nothing may write plurals and groups in full.
            Command::Why(why) => why.run(global, |_| None).await,
            Command::Doctor(doctor) => doctor.run(global, None::<Ready<Found>>).await,
            Command::Record(record) => record.run(global).await,
        }
    }
}
