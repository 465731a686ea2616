//! Follows the files of keys and certificates: the cluster's own folder and the files that the user brought along. What is
//! new in them counts from then on, for the next connection and the next token. Files that are wrong change nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::{Certificates, Pki, files, in_folder, token_key, verifying_keys};
use crate::authn::jwt::Keys;
use crate::config_file;

/// Follows the files until it is told to stop. A cluster in memory has none.
pub async fn run(pki: Arc<Pki>, stopping: &CancellationToken) {
    let folders = pki.folders();
    if folders.is_empty() {
        return;
    }
    let changed = Arc::new(Notify::new());
    let _watcher = match config_file::watch(folders.iter().map(PathBuf::as_path), changed.clone()) {
        Ok(watcher) => watcher,
        Err(why) => {
            return tracing::warn!(%why, "changes of keys and certificates are not seen: they cannot be watched");
        }
    };
    loop {
        // The first time too: they may have changed since they were read.
        let reading = pki.clone();
        match tokio::task::spawn_blocking(move || reading.reload()).await {
            Ok(Ok(true)) => tracing::info!("keys or certificates have changed"),
            Ok(Ok(false)) => {}
            Ok(Err(why)) => tracing::warn!(why, "keys and certificates stay as they were"),
            Err(why) => tracing::warn!(%why, "keys and certificates stay as they were"),
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = changed.notified() => {}
        }
    }
}

impl Pki {
    /// The folders that its files are in.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let Some(own) = &self.folder else { return BTreeSet::new() };
        let options = &self.options;
        let serving = options.serving_files.iter().flat_map(|(certificate, key)| [certificate, key]);
        let files =
            serving.chain(&options.client_ca_file).chain(&options.signing_key_file).chain(&options.verifying_key_files);
        let folder = |file: &PathBuf| config_file::folder_of(file).to_path_buf();
        files.map(folder).chain([own.clone()]).collect()
    }

    /// Takes what the files say now. Answers whether anything is new. Reads files and waits for keys: not for an
    /// asynchronous task.
    ///
    /// # Errors
    /// What is wrong with them; everything stays as it was.
    pub fn reload(&self) -> Result<bool, String> {
        let Some(folder) = &self.folder else { return Ok(false) };
        let new_keys = self.reload_keys(folder)?;
        let ca = Authority::load(folder, jiff::Timestamp::now().as_second())?;
        let now = jiff::Timestamp::now().as_second();
        let certificates = Certificates::of(ca, Some(folder), &self.options, now)?;
        let new_certificates = !certificates.is_like(&self.now.load());
        if new_certificates {
            self.now.store(Arc::new(certificates));
        }
        let anything = new_keys || new_certificates;
        if anything {
            self.changes.send_replace(());
        }
        Ok(anything)
    }

    fn reload_keys(&self, folder: &Path) -> Result<bool, String> {
        let path = self.options.signing_key_file.clone().or_else(|| in_folder(Some(folder), files::TOKEN_KEY));
        if !path.is_some_and(|path| path.exists()) {
            // The first one is still in the making.
            return Ok(false);
        }
        let keys = Keys {
            signing: token_key(Some(folder), &self.options)?,
            others: verifying_keys(Some(folder), &self.options)?,
        };
        keys.signing.get()?;
        let ids = |keys: &Keys| keys.all().map(|key| key.id.clone()).collect::<Vec<_>>();
        let is_new = ids(&keys) != ids(&self.keys.load());
        if is_new {
            self.keys.replace(keys);
        }
        Ok(is_new)
    }
}

impl Certificates {
    fn is_like(&self, other: &Certificates) -> bool {
        self.ca.bundle == other.ca.bundle
            && self.ca.der == other.ca.der
            && self.serving.cert == other.serving.cert
            && self.client_authorities == other.client_authorities
            && self.proxy_authorities == other.proxy_authorities
    }
}
