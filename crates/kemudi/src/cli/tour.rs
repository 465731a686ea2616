//! `kemudi tour`: the tutorial, live, step by step.

use clap::Args;

use super::{Failure, Global, Outcome};

#[derive(Args, Debug)]
pub struct Tour {}

impl Tour {
    pub async fn run(self, _global: &Global) -> Outcome {
        Err(Failure::new("tour is not part of this build yet"))
    }
}
