//! Follows the file of `--authentication-config`: issuers that are new, changed or gone in it count so at once. A file that is
//! wrong changes nothing. Who may go without a credential is decided at the start alone, as in kube-apiserver.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::issuer::Issuer;
use super::{Authenticator, Options, configuration};
use crate::config_file;

/// Follows the file until it is told to stop. `configured` is its text as the server was configured by it.
pub async fn run(
    authenticator: &Authenticator,
    options: &Options,
    own_issuers: &[String],
    configured: &str,
    stopping: &CancellationToken,
) {
    let Some(path) = &options.config_file else { return };
    config_file::follow(path, configured, stopping, |text| match text {
        Ok(text) => take(authenticator, path, own_issuers, text),
        // Whoever writes it anew may have removed it first.
        Err(why) => tracing::debug!(why, "the authentication configuration cannot be read"),
    })
    .await;
}

fn take(authenticator: &Authenticator, path: &Path, own_issuers: &[String], text: &str) {
    match configuration::issuers(text, own_issuers) {
        Ok(trusted) => {
            let issuers: Vec<Issuer> = trusted.into_iter().map(Issuer::new).collect();
            tracing::info!(issuers = issuers.len(), "the authentication configuration has changed");
            authenticator.issuers.store(Arc::new(issuers));
        }
        Err(why) => {
            tracing::warn!(why, "{} is wrong: the authentication configuration stays as it was", path.display());
        }
    }
}
