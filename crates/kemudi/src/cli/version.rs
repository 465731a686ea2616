//! `kemudi version`: which client, which server.

use clap::Args;
use serde_json::{Value, json};

use super::output::{self, Format};
use super::{Global, Outcome, print};

#[derive(Args, Debug)]
pub struct Version {
    /// Do not ask the server
    #[arg(long)]
    client: bool,
    /// json or yaml
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

impl Version {
    pub async fn run(self, global: &Global) -> Outcome {
        let own = json!({"name": "kemudi", "version": env!("CARGO_PKG_VERSION")});
        let mut both = json!({"clientVersion": own});
        if !self.client {
            both["serverVersion"] = global.client()?.get::<Value>("/version").await?;
        }
        match Format::parse(self.output.as_deref())? {
            Format::Table { .. } => {
                let mut text = format!("Client Version: v{}\n", env!("CARGO_PKG_VERSION"));
                if let Some(version) = both["serverVersion"]["gitVersion"].as_str() {
                    text += &format!("Server Version: {version}\n");
                }
                print(text)
            }
            format => print(output::object(&format, &both)?),
        }
    }
}
