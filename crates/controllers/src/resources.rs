//! Which resources the server has, kept up to date: asked for once, and again when a definition or an API service changes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select;
use kemudi_client::discovery::{Discovered, Discovery};
use kemudi_client::{Api, ApiResource, Client, ListOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::kinds::{API_SERVICES, DEFINITIONS, Metadata};

/// Changes that come as quickly as this after each other are asked about once.
const SETTLE: Duration = Duration::from_millis(5);
/// Pause before a server that could not be asked is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// What the server has, for whoever reads it.
#[derive(Clone)]
pub struct Resources(watch::Receiver<Option<Arc<Discovery>>>);

/// The resources, and the task that keeps them.
pub fn follow(client: Client) -> (Resources, impl Future<Output = ()> + Send + 'static) {
    let (sender, receiver) = watch::channel(None);
    (Resources(receiver), keep(client, sender))
}

impl Resources {
    /// What is known; waits for the first answer.
    pub async fn get(&self) -> Arc<Discovery> {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(found)) => found,
            // The keeper is gone, and so is whoever asks, at its next wait.
            _ => std::future::pending().await,
        }
    }

    #[cfg(test)]
    pub fn none() -> Resources {
        Resources(watch::channel(Some(Arc::default())).1)
    }

    /// Waits for the next change after the last time this was asked.
    pub async fn changed(&mut self) -> Arc<Discovery> {
        match self.0.changed().await {
            Ok(()) => self.get().await,
            Err(_) => std::future::pending().await,
        }
    }
}

/// One version of each resource whose objects come and go by themselves.
pub fn deletable(all: &Discovery) -> impl Iterator<Item = &Discovered> {
    all.resources.iter().filter(|found| found.preferred && found.can("list") && found.can("delete"))
}

async fn keep(client: Client, sender: watch::Sender<Option<Arc<Discovery>>>) {
    let changes = |resource: &ApiResource| {
        let api: Api<Metadata> = Api::of(client.clone(), resource, "");
        api.watcher(&ListOptions::default()).into_stream()
    };
    let mut changes = Box::pin(select(changes(&DEFINITIONS), changes(&API_SERVICES)));
    loop {
        match Discovery::fetch(&client).await {
            Ok(found) => {
                sender.send_if_modified(|known| {
                    let same = known.as_ref().is_some_and(|known| known.resources == found.resources);
                    if !same {
                        *known = Some(Arc::new(found));
                    }
                    !same
                });
            }
            Err(error) => {
                tracing::warn!(%error, "resources could not be discovered");
                sleep(RETRY).await;
                continue;
            }
        }
        changes.next().await;
        while timeout(SETTLE, changes.next()).await.is_ok() {}
    }
}
