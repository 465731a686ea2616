//! Every active namespace has the service account `default`. It is made when missing and otherwise left alone.

use kemudi_client::kinds::{Namespace, ServiceAccount};
use kemudi_client::{Api, ApiResource, Client, Dynamic, Result, Typed};
use serde_json::json;

use crate::run::{Change, Informers, Key, Next, Queue, Runner};

const DEFAULT: &str = "default";

pub(crate) fn start(runner: &mut Runner, informers: &mut Informers) {
    let queue = Queue::<String>::new();
    let (namespaces, accounts) = (informers.namespaces.cache.clone(), informers.service_accounts.cache.clone());
    let feed = queue.clone();
    informers.namespaces.hear(move |change| {
        if let Some(namespace) = change.new {
            feed.add(namespace.metadata.name.clone());
        }
    });
    let feed = queue.clone();
    informers.service_accounts.hear(move |change: &Change<'_, ServiceAccount>| match change {
        Change { old: Some(gone), new: None } if gone.metadata.name == DEFAULT => {
            feed.add(gone.metadata.namespace.clone());
        }
        _ => {}
    });
    let client = runner.client.clone();
    let caches = vec![namespaces.synced(), accounts.synced()];
    runner.work(&queue, caches, move |name| {
        let namespace = namespaces.get(&Key::new("", &*name));
        let account = accounts.get(&Key::new(&*name, DEFAULT));
        let missing = is_missing(namespace.as_deref(), account.as_deref());
        let client = client.clone();
        async move {
            if missing {
                create(&client, &name).await?;
            }
            Ok(Next::Done)
        }
    });
}

fn is_missing(namespace: Option<&Namespace>, account: Option<&ServiceAccount>) -> bool {
    namespace.is_some_and(is_active) && account.is_none()
}

/// Nothing can be made in a namespace on its way out.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

async fn create(client: &Client, namespace: &str) -> Result<()> {
    let account = json!({"metadata": {"name": DEFAULT, "namespace": namespace}});
    make(client, namespace, &ServiceAccount::api_resource(), account).await
}

/// Creates an object that a namespace should have. That it is there already, or that the namespace ends meanwhile, is as well.
pub(crate) async fn make(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    object: serde_json::Value,
) -> Result<()> {
    match Api::<Dynamic>::namespaced_of(client.clone(), namespace, resource).create(&Dynamic(object)).await {
        Err(error) if error.is_already_exists() || error.is_not_found() || is_terminating(&error) => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn is_terminating(error: &kemudi_client::Error) -> bool {
    let details = error.status().and_then(|status| status.details.as_ref());
    details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(namespace: &str, account: &str, missing: bool) {
        let namespace: Option<Namespace> = serde_json::from_str(namespace).unwrap();
        let account: Option<ServiceAccount> = serde_json::from_str(account).unwrap();
        assert_eq!(is_missing(namespace.as_ref(), account.as_ref()), missing);
    }

    #[test]
    fn the_account_is_made_in_active_namespaces_only() {
        let account = r#"{"metadata":{"name":"default","namespace":"a"}}"#;
        check(r#"{"metadata":{"name":"a"}}"#, "null", true);
        check(r#"{"metadata":{"name":"a"}}"#, account, false);
        check(r#"{"metadata":{"name":"a","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#, "null", false);
        check("null", "null", false);
    }
}
