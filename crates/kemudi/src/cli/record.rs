//! `kemudi record`: the least Role and RoleBinding of a command, which runs in a pod that may do everything in a cluster of its
//! own; or of an account on a running server, which `kemudi-pod` does too.

use clap::Args;
use serde_json::Value;

use super::rights::Rights;
use super::run::{Place, Program, finish};
use super::{Global, Outcome};

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
    #[command(flatten)]
    made: pod::record::Record,
    /// The command and its arguments, instead of an account
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "account", required_unless_present = "account")]
    command: Vec<String>,
}

impl Record {
    pub async fn run(self, global: &Global) -> Outcome {
        match self.made.account {
            Some(_) => self.made.run(global).await,
            None => self.of_command(&self.made.granted()?, global).await,
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
        self.made.made_of(&recorded, granted, (&namespace, ACCOUNT), finish(exit))
    }
}
