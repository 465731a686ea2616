//! Follows the file of `--authorization-config`: other webhooks, and another order, count as they are written. A file that is
//! wrong changes nothing. What was asked besides webhooks at the start goes on to be asked.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::chain::Chain;
use super::configuration::{Configuration, Options};
use super::{Authorizer, Type};
use crate::config_file;

/// What metrics tell of changes of the file.
#[derive(Default)]
pub struct Counts {
    pub succeeded: Told,
    pub failed: Told,
    /// `sha256:` and the hash of the text that counts; empty where there is no file.
    hash: Mutex<String>,
}

/// How often, and when the last time, in seconds since 1970.
#[derive(Default)]
pub struct Told {
    pub total: AtomicU64,
    pub last: AtomicI64,
}

impl Told {
    fn tell(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.last.store(jiff::Timestamp::now().as_second(), Ordering::Relaxed);
    }
}

impl Counts {
    pub fn hash(&self) -> String {
        self.hash.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_hash(&self, text: &str) {
        let hex: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        *self.hash.lock().unwrap_or_else(PoisonError::into_inner) = format!("sha256:{hex}");
    }
}

/// Follows the file until it is told to stop.
pub async fn run(authorizer: &Authorizer, options: &Options, stopping: &CancellationToken) {
    let (Some(path), Some(loaded)) = (&options.config_file, authorizer.configured.get()) else { return };
    let counts = &authorizer.counts.reloads;
    counts.set_hash(&loaded.text);
    let mut current = loaded.configuration.clone();
    config_file::follow(path, &loaded.text, stopping, |text| {
        let taken = text.and_then(|text| {
            let found = Configuration::parse(text, &authorizer.required())?;
            if found == current {
                return Ok(None);
            }
            let chain = Chain::of(&check_started(found.clone(), &authorizer.required())?, &authorizer.counts)?;
            Ok(Some((text.to_string(), found, chain)))
        });
        match taken {
            Ok(None) => {}
            Ok(Some((text, found, chain))) => {
                tracing::info!(authorizers = chain.links.len(), "reloaded authz config");
                authorizer.chain.store(Arc::new(chain));
                current = found;
                counts.set_hash(&text);
                counts.succeeded.tell();
            }
            Err(why) => {
                tracing::error!(
                    why,
                    "reloading authorization config: {} is wrong, all stays as it was",
                    path.display()
                );
                counts.failed.tell();
            }
        }
    })
    .await;
}

/// What was not there at the start cannot be there later.
fn check_started(found: Configuration, started: &std::collections::BTreeSet<Type>) -> Result<Configuration, String> {
    let other =
        found.types().into_iter().find(|kind| matches!(kind, Type::Node | Type::Rbac) && !started.contains(kind));
    match other {
        None => Ok(found),
        Some(kind) => Err(format!(
            "authorizer type {} is not allowed if it was not enabled at initial server startup",
            kind.as_str()
        )),
    }
}
