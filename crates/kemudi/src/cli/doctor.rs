//! `kemudi doctor`: the steps that `kemudi-pod` has, and whether pods can be started on this machine.

use clap::Args;
use pod::doctor::Found::{self, Bad, Good, Odd};
use pod::{Global, Outcome};

#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    steps: pod::doctor::Doctor,
}

impl Doctor {
    pub async fn run(self, global: &Global) -> Outcome {
        self.steps.run(global, Some(sandbox())).await
    }
}

/// Whether this host lets us make pods: makes an empty one and takes it away.
async fn sandbox() -> Found {
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            return Bad(format!("no temporary folder: {error}"), "set TMPDIR to a folder that you may write to".into());
        }
    };
    match node::sandbox::check(dir.path()).await {
        Ok(()) => match node::limits_here() {
            Ok(()) => Good("this host lets this user start pods, and holds them to their limits".to_string()),
            Err(why) => Odd(
                "this host lets this user start pods, but does not hold them to limits of cpu and memory".to_string(),
                why,
            ),
        },
        Err(node::sandbox::Error::Forbidden(no)) => Odd(
            format!("this host does not let this user start pods: {}", no.why),
            match no.command {
                Some(command) => format!("an administrator types: {command}"),
                None => "only `kemudi run` and `kemudi up` need it; use another machine or user for them".to_string(),
            },
        ),
        Err(error) => {
            Odd(format!("a pod could not be started: {error}"), "only `kemudi run` and `kemudi up` need it".into())
        }
    }
}
