//! `record`: the least Role and RoleBinding of an account on a running server, as long as it is watched. What is made of a recording is
//! the same where a command was recorded.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kemudi_client::Client;
use rights::Recorded;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::recording::{Recording, Roles, read_roles};
use crate::{Failure, Global, Outcome, duration};

// A command of kemudi's takes these flags too and has the same name, which a group of flags may have once.
#[derive(Args, Debug)]
#[group(skip)]
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
    /// Service account to record on a running server
    #[arg(long, value_name = "NAMESPACE:NAME")]
    pub account: Option<String>,
    /// How long to record the account, such as 30s or 5m [default: until Ctrl-C or SIGTERM]
    #[arg(long = "for", value_name = "TIME", requires = "account", value_parser = duration)]
    pub time: Option<Duration>,
}

impl Record {
    /// Records an account.
    pub async fn run(self, global: &Global) -> Outcome {
        let granted = self.granted()?;
        match &self.account {
            Some(account) => self.of_account(account, &granted, global).await,
            None => Err(Failure::new("whose rights are to be recorded was not said").hint("--account NAMESPACE:NAME")),
        }
    }

    /// The Roles of `--check`.
    pub fn granted(&self) -> Outcome<Vec<Value>> {
        let mut granted = Vec::new();
        for path in &self.check {
            granted.extend(read_roles(path).map_err(|why| Failure::new(format!("--check {why}")))?);
        }
        Ok(granted)
    }

    pub async fn of_account(&self, account: &str, granted: &[Value], global: &Global) -> Outcome {
        let client = Client::new(global.config_or_file()?)?;
        let account = account.strip_prefix("system:serviceaccount:").unwrap_or(account);
        let own = client.default_namespace().to_string();
        let (namespace, name) = account.split_once(':').unwrap_or((&own, account));
        let user = rights::user_of(namespace, name);
        // Both are heard from the beginning: nothing that was recorded is lost to an early Ctrl-C.
        let (mut interrupt, mut terminate) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
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
        self.made_of(&recorded, granted, (namespace, name), Ok(()))
    }

    /// Tells, and writes or compares. `ended` is how that ended what was recorded.
    pub fn made_of(&self, recorded: &Recorded, granted: &[Value], account: (&str, &str), ended: Outcome) -> Outcome {
        let roles = Roles { name: &self.name, account, with_refused: self.with_refused };
        roles.tell(recorded);
        if !self.check.is_empty() {
            return ended.and_then(|()| roles.compare(recorded, granted));
        }
        roles.write(recorded, self.output.as_deref())?;
        ended
    }
}

/// Hears a signal from now on.
pub fn signals(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(|why| Failure::new(format!("signals: {why}")))
}
