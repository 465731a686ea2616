//! `kemudi run`: a command in a pod, with exactly the rights it is given.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Global, Outcome};

#[derive(Args, Debug)]
pub struct Run {
    /// What it may do: 'get,list pods', may be repeated
    #[arg(long, value_name = "VERBS RESOURCES")]
    pub allow: Vec<String>,
    /// File of a Role to give it, may be repeated
    #[arg(long, value_name = "FILE")]
    pub role: Vec<PathBuf>,
    /// Service account to use instead of one made for this run
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Run {
    pub async fn run(self, _global: &Global) -> Outcome {
        Err(Failure::new("run is not part of this build yet"))
    }
}
