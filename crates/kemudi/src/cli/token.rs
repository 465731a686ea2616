//! `kemudi token`: the token in use, for curl and the like; or a fresh one of a service account.

use clap::Args;
use kemudi_client::token::payload;

use super::create::{TokenArgs, print_token, request_token};
use super::{Failure, Global, Outcome, print, token_of};

#[derive(Args, Debug)]
pub struct Token {
    /// Ask for a token of this service account instead
    name: Option<String>,
    #[command(flatten)]
    request: TokenArgs,
    /// Show what the token says about itself
    #[arg(long)]
    claims: bool,
}

impl Token {
    pub async fn run(self, global: &Global) -> Outcome {
        let token = match &self.name {
            Some(name) => request_token(&global.client()?, name, &self.request).await?["status"]["token"]
                .as_str()
                .unwrap_or_default()
                .to_string(),
            None => in_use(global)?,
        };
        if !self.claims {
            return print_token(&token);
        }
        match payload(&token) {
            Some(claims) => print(api::codec::to_pretty_json(&claims)).and_then(|()| print("\n")),
            None => Err(Failure::new("the token is no JWT; it says nothing about itself")
                .hint("ask the server who it is for: kemudi whoami")),
        }
    }
}

fn in_use(global: &Global) -> Outcome<String> {
    let config = global.config()?;
    token_of(&config)?.ok_or_else(|| {
        Failure::new(format!("{} has no token", config.source))
            .hint("ask for one of a service account: kemudi token NAME")
    })
}
