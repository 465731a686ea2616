//! The flags of `kemudi up` that say who decides what is allowed. Their names and meanings are kube-apiserver's; none of them
//! turns authorization off.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use server::authz;

#[derive(Args, Debug)]
#[command(next_help_heading = "Authorization")]
pub struct AuthzFlags {
    /// File with an AuthorizationConfiguration: the authorizers that are asked, in order; instead of the other flags
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// Authorizers that are asked, in order, comma separated: Node, RBAC, Webhook, AlwaysDeny [default: Node,RBAC]
    #[arg(long, value_name = "MODES", value_delimiter = ',')]
    pub authorization_mode: Option<Vec<String>>,
    /// Kubeconfig of the webhook that is asked with --authorization-mode Webhook
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReviews that the webhook is sent: v1 or v1beta1 [default: v1beta1]
    #[arg(long, value_name = "VERSION")]
    pub authorization_webhook_version: Option<String>,
    /// How long the webhook's permissions are remembered, as 5m0s, 0s for not at all [default: 5m0s]
    #[arg(long, value_name = "DURATION", value_parser = super::up::duration)]
    pub authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long its other answers are remembered [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = super::up::duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

impl AuthzFlags {
    pub fn options(&self) -> authz::Options {
        authz::Options {
            config_file: self.authorization_config.clone(),
            modes: self.authorization_mode.clone(),
            webhook_config_file: self.authorization_webhook_config_file.clone(),
            webhook_version: self.authorization_webhook_version.clone(),
            authorized_ttl: self.authorization_webhook_cache_authorized_ttl,
            unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl,
        }
    }
}
