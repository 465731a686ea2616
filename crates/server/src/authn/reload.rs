//! Follows the file of `--authentication-config`: issuers that are new, changed or gone in it count so at once. A file that is
//! wrong changes nothing. Who may go without a credential is decided at the start alone, as in kube-apiserver.

use std::path::Path;
use std::sync::Arc;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::configuration::{self, read};
use super::issuer::Issuer;
use super::{Authenticator, Options};

/// Follows the file until it is told to stop. `configured` is its text as the server was configured by it.
pub async fn run(
    authenticator: &Authenticator,
    options: &Options,
    own_issuers: &[String],
    configured: &str,
    stopping: &CancellationToken,
) {
    let Some(path) = &options.config_file else { return };
    let changed = Arc::new(Notify::new());
    let _watcher = match watcher(path, changed.clone()) {
        Ok(watcher) => watcher,
        Err(why) => {
            return tracing::warn!(%why, "changes of {} are not seen: it cannot be watched", path.display());
        }
    };
    let mut seen = configured.to_string();
    loop {
        // The first time too: it may have changed since the server was configured.
        match read(path) {
            Ok(text) if text == seen => {}
            Ok(text) => {
                take(authenticator, path, own_issuers, &text);
                seen = text;
            }
            // Whoever writes it anew may have removed it first.
            Err(why) => tracing::debug!(why, "the authentication configuration cannot be read"),
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = changed.notified() => {}
        }
    }
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

/// Tells of everything that happens in the file's folder: a file that is replaced, as in a mounted volume, is another one.
fn watcher(path: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // To read the file is an event too: it must not be a reason to read it.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
