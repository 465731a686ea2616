//! The flags of `kemudi up` for the ways to prove an identity that are off unless they are asked for. Their names and
//! meanings are kube-apiserver's.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use server::authn::configuration::OidcFlags;
use server::authn::{self, front_proxy, webhook};

#[derive(Args, Debug)]
#[command(next_help_heading = "Authentication")]
pub struct AuthnFlags {
    /// Take the tokens of Secrets of type bootstrap.kubernetes.io/token in kube-system
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub enable_bootstrap_token_auth: bool,
    /// File of the CA whose client certificates are front proxies, which say in headers whom they speak for
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies, comma separated [default: any]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers in which front proxies name a user, comma separated, such as X-Remote-User
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// Headers in which front proxies give the user's UID, comma separated, such as X-Remote-Uid
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers in which front proxies name the user's groups, comma separated, such as X-Remote-Group
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// What headers begin with in which front proxies say more of a user, comma separated, such as X-Remote-Extra-
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// File with an AuthenticationConfiguration: issuers whose tokens are taken, what may be asked for without a credential
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Whether requests without a credential are those of system:anonymous, or refused [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub anonymous_auth: Option<bool>,
    /// Issuer whose tokens are taken, https://; with --oidc-client-id
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// Audience that the issuer's tokens must name
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// File of the CA of the issuer's certificate [default: the machine's own]
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user name [default: sub]
    #[arg(long, value_name = "CLAIM")]
    pub oidc_username_claim: Option<String>,
    /// What user names are prefixed with, - for nothing [default: the issuer and #, but for email]
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// Claim that is the groups
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What groups are prefixed with
    #[arg(long, value_name = "PREFIX")]
    pub oidc_groups_prefix: Option<String>,
    /// Claim that must have a value, may be repeated
    #[arg(long, value_name = "CLAIM=VALUE")]
    pub oidc_required_claim: Vec<String>,
    /// Signature algorithms that are taken, comma separated [default: RS256]
    #[arg(long, value_name = "ALGORITHMS", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,
    /// Kubeconfig of a webhook that judges tokens nobody here knows
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long the webhook's answers are remembered, as 2m0s
    #[arg(long, value_name = "DURATION", default_value = "2m0s", value_parser = super::up::duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Version of the TokenReviews that the webhook is sent: v1 or v1beta1
    #[arg(long, value_name = "VERSION", default_value = "v1beta1")]
    pub authentication_token_webhook_version: String,
}

impl AuthnFlags {
    pub fn options(&self) -> authn::Options {
        authn::Options {
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            front_proxy: front_proxy::Options {
                ca_file: self.requestheader_client_ca_file.clone(),
                allowed_names: list(&self.requestheader_allowed_names),
                username_headers: list(&self.requestheader_username_headers),
                uid_headers: list(&self.requestheader_uid_headers),
                group_headers: list(&self.requestheader_group_headers),
                extra_header_prefixes: list(&self.requestheader_extra_headers_prefix),
            },
            config_file: self.authentication_config.clone(),
            anonymous: self.anonymous_auth,
            oidc: self.oidc(),
            webhook: self.authentication_token_webhook_config_file.clone().map(|config_file| webhook::Options {
                config_file,
                remembered_for: self.authentication_token_webhook_cache_ttl,
                version: self.authentication_token_webhook_version.clone(),
            }),
        }
    }

    /// The flags of the one issuer, where any of them is given.
    fn oidc(&self) -> Option<OidcFlags> {
        let given = OidcFlags {
            issuer_url: self.oidc_issuer_url.clone(),
            client_id: self.oidc_client_id.clone(),
            ca_file: self.oidc_ca_file.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.clone(),
            signing_algorithms: self.oidc_signing_algs.clone(),
        };
        (given != OidcFlags::default()).then_some(given)
    }
}

/// `--flag=` is a list of nothing, as kube-apiserver reads it.
fn list(values: &[String]) -> Vec<String> {
    if values == [""] { Vec::new() } else { values.to_vec() }
}
