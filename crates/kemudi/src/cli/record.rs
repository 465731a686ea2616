//! `kemudi record`: the least Role and RoleBinding of a command, which runs in a pod that may do everything in a cluster of its
//! own; or of an account on a running server, as long as it is watched.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kemudi_client::Client;
use node::sandbox::Exit;
use serde_json::Value;
use tokio::signal::unix::SignalKind;

use super::recording::{Recording, Roles};
use super::rights::{Rights, read_roles};
use super::run::{self, Place, Program, finish};
use super::{Failure, Global, Outcome, duration};

/// The account that the written binding names where a command was recorded.
pub const ACCOUNT: &str = "default";

#[derive(Args, Debug)]
#[command(after_help = "\
A command runs in a fresh cluster in memory, where it may do everything. What it asked for is written down; nothing
is taken from any other cluster. An account is recorded on the server that is there, which must be kemudi's, until
Ctrl-C, SIGTERM or --for; the Role has what it used and was allowed.

Examples:
  kemudi record -- python3 app.py                  the Role on stdout once the command has ended
  kemudi record -o role.yaml -- ./app              into a file, to apply: kubectl apply -f role.yaml
  kemudi run --role role.yaml -- ./app             the command again, with just these rights
  kemudi record --check role.yaml -- ./app         exit code 1 where the Role and what was used differ, in either direction
  kemudi record --account shop:web --for 10m       what an account uses of a running server in the next ten minutes")]
pub struct Record {
    /// File to write to instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// File of Roles that should allow just what is used, instead of writing one; may be repeated. A difference is exit code 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "name"])]
    pub check: Vec<PathBuf>,
    /// Name of the roles
    #[arg(long, value_name = "NAME", default_value = "recorded")]
    pub name: String,
    /// Take into the Role what was refused, too
    #[arg(long)]
    pub with_refused: bool,
    /// Service account to record on a running server, instead of a command
    #[arg(long, value_name = "NAMESPACE:NAME", conflicts_with = "command", required_unless_present = "command")]
    pub account: Option<String>,
    /// How long to record the account, such as 30s or 5m [default: until Ctrl-C or SIGTERM]
    #[arg(long = "for", value_name = "TIME", requires = "account", value_parser = duration)]
    pub time: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Record {
    pub async fn run(self, global: &Global) -> Outcome {
        let mut granted = Vec::new();
        for path in &self.check {
            granted.extend(read_roles(path).map_err(|why| Failure::new(format!("--check {why}")))?);
        }
        match &self.account {
            Some(account) => self.of_account(account, &granted, global).await,
            None => self.of_command(&granted, global).await,
        }
    }

    async fn of_command(&self, granted: &[Value], global: &Global) -> Outcome {
        let namespace = global.namespace.clone().unwrap_or_else(|| "default".into());
        let place = Place::own().await?;
        let program = Program {
            namespace: namespace.clone(),
            rights: Rights::all(),
            service_account: None,
            image: None,
            command: self.command.clone(),
            record: true,
        };
        let outcome = program.run(&place).await;
        place.leave().await;
        let (exit, recorded) = outcome?;
        self.made_of(&recorded, granted, (&namespace, ACCOUNT), exit)
    }

    async fn of_account(&self, account: &str, granted: &[Value], global: &Global) -> Outcome {
        let client = Client::new(run::config_of(global)?)?;
        let account = account.strip_prefix("system:serviceaccount:").unwrap_or(account);
        let own = client.default_namespace().to_string();
        let (namespace, name) = account.split_once(':').unwrap_or((&own, account));
        let user = rights::user_of(namespace, name);
        // Both are heard from the beginning: nothing that was recorded is lost to an early Ctrl-C.
        let (mut interrupt, mut terminate) =
            (run::signals(SignalKind::interrupt())?, run::signals(SignalKind::terminate())?);
        let mut recording = Recording::begin(&client, &user).await?;
        let until = match self.time {
            Some(time) => format!("for {}s, or until Ctrl-C", time.as_secs_f64()),
            None => "until Ctrl-C".to_string(),
        };
        eprintln!("recording what {user} uses of {}, {until}", client.server());
        let over = async {
            match self.time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let waiting = async {
            tokio::select! {
                () = over => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        recording.during(waiting).await;
        let recorded = recording.end().await;
        self.made_of(&recorded, granted, (namespace, name), Exit::Code(0))
    }

    /// Tells, and writes or compares.
    fn made_of(&self, recorded: &rights::Recorded, granted: &[Value], account: (&str, &str), exit: Exit) -> Outcome {
        let roles = Roles { name: &self.name, account, with_refused: self.with_refused };
        roles.tell(recorded);
        if !self.check.is_empty() {
            return finish(exit).and_then(|()| roles.compare(recorded, granted));
        }
        roles.write(recorded, self.output.as_deref())?;
        finish(exit)
    }
}
