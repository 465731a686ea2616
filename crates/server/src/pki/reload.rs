//! Follows the files of keys and certificates: the cluster's own folder and the files that the user brought along. What is
//! new in them counts from then on, for the next connection and the next token. Files that are wrong change nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::{Certificates, Options, Pki, files, in_folder, token_key, verifying_keys};
use crate::authn::jwt::Keys;
use crate::config_file;

/// Follows the files until it is told to stop. A cluster in memory has none.
pub async fn run(pki: Arc<Pki>, stopping: &CancellationToken) {
    let folders = pki.folders();
    if folders.is_empty() {
        return;
    }
    // The first time too: they may have changed since they were read.
    let look = || {
        let reading = pki.clone();
        async {
            match tokio::task::spawn_blocking(move || reading.reload()).await {
                Ok(Ok(true)) => tracing::info!("keys or certificates have changed"),
                Ok(Ok(false)) => {}
                Ok(Err(why)) => tracing::warn!(why, "keys and certificates stay as they were"),
                Err(why) => tracing::warn!(%why, "keys and certificates stay as they were"),
            }
        }
    };
    let folders = folders.iter().map(PathBuf::as_path);
    config_file::at_each_change("keys and certificates", folders, stopping, look).await;
}

/// What files hold, in short: two that are equal are of the same files.
pub(super) type Stamp = [u8; 32];

/// The files that a cluster in a folder goes by: its own, and those that the user brought along.
fn sources(folder: &Path, options: &Options) -> Vec<PathBuf> {
    let serving = options.serving_files.iter().flat_map(|(certificate, key)| [certificate, key]);
    let given =
        serving.chain(&options.client_ca_file).chain(&options.signing_key_file).chain(&options.verifying_key_files);
    given.cloned().chain(files::ALL.map(|name| folder.join(name))).collect()
}

/// The stamp of the files as they are now. A cluster in memory has none.
pub(super) fn stamp(folder: Option<&Path>, options: &Options) -> Stamp {
    let mut hash = Sha256::new();
    for path in folder.map(|folder| sources(folder, options)).unwrap_or_default() {
        // One that is not there is another one than an empty one.
        let bytes = std::fs::read(path).ok();
        hash.update(bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    }
    hash.finalize().into()
}

impl Pki {
    /// The folders that its files are in.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let Some(own) = &self.folder else { return BTreeSet::new() };
        sources(own, &self.options).iter().map(|file| config_file::folder_of(file).to_path_buf()).collect()
    }

    /// Takes what the files say now. Answers whether anything is new. Reads files and waits for keys: not for an
    /// asynchronous task.
    ///
    /// # Errors
    /// What is wrong with them; everything stays as it was.
    pub fn reload(&self) -> Result<bool, String> {
        let Some(folder) = &self.folder else { return Ok(false) };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamp(Some(folder), &self.options);
        // Nothing is parsed, and no key is checked, at a start that found everything as it is.
        if found == *taken {
            return Ok(false);
        }
        let new_keys = self.reload_keys(folder)?;
        let now = jiff::Timestamp::now().as_second();
        let ca = Authority::load(folder, now)?;
        let certificates = Certificates::of(ca, Some(folder), &self.options, now)?;
        let new_certificates = !certificates.is_like(&self.now.load());
        if new_certificates {
            self.now.store(Arc::new(certificates));
        }
        *taken = found;
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
