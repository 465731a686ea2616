//! `kemudi node`: this machine as a node of a server elsewhere, until it is told to stop. It serves that server logs, exec, attach
//! and port-forward at an address of its own.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use kemudi::local_node::{self, NodeOptions};
use kemudi_client::Client;
use node::serving::ServingConfig;
use tokio::signal::unix::SignalKind;

use super::run::{address_of, client_ca, config_of, hidden, host_name, kubeconfigs};
use super::{Failure, Global, Outcome};
use pod::record::signals;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kemudi node -s admin.kubeconfig                     this machine's name is the node's
  kemudi node -s admin.kubeconfig --name edge-1 --data /var/lib/kemudi-node

The kubeconfig's user needs the rights of a node, and those to approve the node's serving certificate; without these
somebody else approves it: kubectl certificate approve NAME")]
pub struct Node {
    /// Name of the node [default: this machine's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Folder for pods' volumes and logs, and for images [default: the user's state folder]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Port at which the server reaches this node, 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    pub port: u16,
    /// What runs pods: sandbox or cri
    #[arg(long = "node", value_name = "KIND", default_value = "sandbox", value_parser = ["sandbox", "cri"])]
    pub kind: String,
    #[command(flatten)]
    pub cri: Box<super::up::Cri>,
    #[command(flatten)]
    pub outside: super::up::Outside,
}

impl Node {
    pub async fn run(self, global: &Global) -> Outcome {
        let mut terminate = signals(SignalKind::terminate())?;
        let mut interrupt = signals(SignalKind::interrupt())?;
        let config = config_of(global)?;
        let address = address_of(&config)?;
        let client = Client::new(config.clone()).map_err(|why| Failure::while_doing("", why))?;
        let data = super::up::data_folder(self.data.as_deref())?;
        super::up::private_folder(&data)?;
        let data = data.canonicalize().map_err(|why| Failure::new(format!("{}: {why}", data.display())))?;
        let name = self.name.unwrap_or_else(host_name);
        let serving = ServingConfig { port: self.port, client_ca: client_ca(&client, &config).await };
        let mut keys = kubeconfigs(global);
        keys.push(data.clone());
        let options = NodeOptions {
            name: name.clone(),
            state_dir: data.join("node"),
            images: super::image::store_in(&data),
            hidden: hidden(keys),
            node_ports: true,
            outside: self.outside.way(),
            cri: self.cri.options(&self.kind),
            keep: true,
            serving: Some(serving),
        };
        let node = local_node::remote(client, address, options)
            .await
            .map_err(|why| Failure::new(why).hint("where the port is taken: kemudi node --port 0"))?;
        let line = format!("kemudi is the node {name} of {}\n", config.server.authority());
        let _ = std::io::stdout().write_all(line.as_bytes());
        let _ = std::io::stdout().flush();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        node.shutdown().await;
        Ok(())
    }
}
