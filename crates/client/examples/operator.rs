//! An operator: for every ConfigMap with the label `example.com/greet` it keeps another one, NAME-greeting, that greets
//! who is named there, and that goes with it. It watches, never polls, and holds no state that it could not find again.
//!
//! ```text
//! kemudi run --allow 'get,list,watch,create,patch,delete configmaps' -- target/debug/examples/operator
//! ```
//!
//! and, against the same server (`kemudi up`, then `kemudi run --server KUBECONFIG ...`):
//!
//! ```text
//! kubectl create configmap ada --from-literal=name=Ada
//! kubectl label configmap ada example.com/greet=yes
//! kubectl get configmap ada-greeting -o jsonpath={.data.text}
//! ```

use std::sync::Arc;

use kemudi_client::kinds::ConfigMap;
use kemudi_client::{Action, Api, Client, Controller, LabelSelector, ListOptions, Metadata, Patch, Result, owned_by};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::try_default().await?;
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    // Number 1 of a container's processes is ended by no signal that it does not ask for.
    let mut stop = signal(SignalKind::terminate())?;
    let greeted = ListOptions { labels: LabelSelector::parse("example.com/greet")?, ..ListOptions::default() };
    Controller::of(maps.clone(), &greeted)
        .owns(Api::<Metadata<ConfigMap>>::default_namespaced(client))
        .until(async move { _ = stop.recv().await })
        .run(|map| greet(&maps, map), |map, error| eprintln!("{}: {error}", map.metadata.name))
        .await?;
    Ok(())
}

/// States the whole wish; the server works out what that changes, and nothing where nothing does.
async fn greet(maps: &Api<ConfigMap>, map: Arc<ConfigMap>) -> Result<Action> {
    let whom = map.data.get("name").map_or("world", String::as_str);
    let name = format!("{}-greeting", map.metadata.name);
    let wish = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [owned_by(maps.resource(), &*map)]},
        "data": {"text": format!("Hello, {whom}!")},
    });
    maps.patch(&name, &Patch::Apply { manager: "greeter", force: true, object: &wish }).await?;
    println!("{name} greets {whom}");
    Ok(Action::done())
}
