//! The flags of `kemudi up` for the ways to prove an identity that are off unless they are asked for. Their names and
//! meanings are kube-apiserver's.

use std::path::PathBuf;

use clap::Args;
use server::authn::{self, front_proxy};

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
}

impl AuthnFlags {
    pub fn options(&self) -> authn::Options {
        authn::Options {
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            front_proxy: front_proxy::Options {
                ca_file: self.requestheader_client_ca_file.clone(),
                allowed_names: self.requestheader_allowed_names.clone(),
                username_headers: self.requestheader_username_headers.clone(),
                uid_headers: self.requestheader_uid_headers.clone(),
                group_headers: self.requestheader_group_headers.clone(),
                extra_header_prefixes: self.requestheader_extra_headers_prefix.clone(),
            },
        }
    }
}
