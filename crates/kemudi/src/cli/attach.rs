//! `kemudi attach`: the streams of a container's own program, until it ends.

use clap::Args;

use super::remote::{self, Streams};
use super::{Global, Outcome, pods};

#[derive(Args, Debug)]
pub struct Attach {
    /// POD, pod/POD, or TYPE/NAME of what selects pods
    #[arg(value_name = "POD")]
    pod: String,
    /// Container, where the pod has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    #[command(flatten)]
    streams: Streams,
}

impl Attach {
    pub async fn run(mut self, global: &Global) -> Outcome {
        let client = global.client()?;
        let namespace = client.default_namespace().to_string();
        let api = pods::api(client, &namespace);
        let pod = pods::find(&api, &self.pod, &namespace).await?;
        let name = api::meta::name(&pod).to_string();
        let container = pods::container(&pod, self.container.as_ref())?;
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        let mut all = lists.iter().flat_map(|list| api::meta::items_at(&pod, &["spec", list]));
        let spec = all.find(|known| known["name"] == container.as_str());
        let has = |what: &str| spec.is_some_and(|spec| spec[what] == true);
        if self.streams.tty && !has("tty") {
            eprintln!("error: Unable to use a TTY - container {container} did not allocate one");
            self.streams.tty = false;
        }
        // A terminal has one stream, whether or not anybody types there.
        let tty = has("tty");
        let terminal = self.streams.terminal()?;
        let options = self.streams.options(container, tty);
        let session = api.attach(&name, &options).await?;
        if terminal.is_some() {
            eprintln!("If you don't see a command prompt, try pressing enter.");
        }
        remote::finish(remote::run(session, self.streams.stdin, terminal).await?)
    }
}
