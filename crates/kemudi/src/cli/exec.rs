//! `kemudi exec`: a command in a container that runs. Its exit code is this one's.

use clap::Args;

use super::remote::{self, Streams};
use super::{Failure, Global, Outcome, pods};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kemudi exec web -- date
  kemudi exec -it web -c main -- sh         a shell on a terminal
  kemudi exec -i web -- tar xf - < files.tar")]
pub struct Exec {
    /// POD, pod/POD, or TYPE/NAME of what selects pods
    #[arg(value_name = "POD")]
    pod: String,
    /// Container, where the pod has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    #[command(flatten)]
    streams: Streams,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub async fn run(self, global: &Global) -> Outcome {
        let client = global.client()?;
        let namespace = client.default_namespace().to_string();
        let api = pods::api(client, &namespace);
        let pod = pods::find(&api, &self.pod, &namespace).await?;
        let name = api::meta::name(&pod).to_string();
        let phase = api::meta::text_at(&pod, &["status", "phase"]);
        if matches!(phase, "Succeeded" | "Failed") {
            let text = format!("cannot exec into a container in a completed pod; current phase is {phase}");
            return Err(Failure::new(text).hint(format!("see what it wrote: kemudi logs {name} -n {namespace}")));
        }
        let container = pods::container(&pod, self.container.as_ref())?;
        let terminal = self.streams.terminal()?;
        let options = self.streams.options(container, terminal.is_some());
        let words: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let session = api.exec(&name, &words, &options).await?;
        remote::finish(remote::run(session, self.streams.stdin, terminal).await?)
    }
}
