//! An operator: for every ConfigMap with the label `example.com/greet` it keeps another one, NAME-greeting, that greets
//! who is named there. It watches, never polls, and holds no state that it could not find again.
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

use std::collections::HashSet;

use kemudi_client::kinds::ConfigMap;
use kemudi_client::{Api, Client, Event, LabelSelector, ListOptions, Patch, Result};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

const MANAGER: &str = "greeter";
const WANTED: &str = "example.com/greet";
/// On what we made. For which ConfigMap, its name says: a name may be longer than a label's value.
const MADE: &str = "example.com/greeting";
const SUFFIX: &str = "-greeting";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let maps = Api::<ConfigMap>::default_namespaced(Client::try_default().await?);
    // Number 1 of a container's processes is ended by no signal that it does not ask for.
    let mut stop = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = stop.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        outcome = run(&maps) => Ok(outcome?),
    }
}

/// Keeps every promise. Gives up on what waiting does not mend, and on writes that fail: whoever restarts us restarts
/// from the whole list, which is the simplest way to try again.
async fn run(maps: &Api<ConfigMap>) -> Result<()> {
    let mut watcher = maps.watcher(&ListOptions { labels: labels(WANTED), ..ListOptions::default() });
    let mut seen = HashSet::new();
    loop {
        match watcher.next().await {
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitApplied(map)) => {
                greet(maps, &map).await?;
                seen.insert(map.metadata.name);
            }
            // What went while we were not looking left no event, only its greeting.
            Ok(Event::InitDone) => forget_all_but(maps, &seen).await?,
            Ok(Event::Applied(map)) => greet(maps, &map).await?,
            Ok(Event::Deleted(map)) => forget(maps, &greeting_of(&map.metadata.name)).await?,
            Err(error) if error.is_forbidden() => return Err(error),
            // The watcher tries again by itself, after a growing pause.
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// States the whole wish; the server works out what that changes, and nothing where nothing does.
async fn greet(maps: &Api<ConfigMap>, map: &ConfigMap) -> Result<()> {
    let whom = map.data.get("name").map_or("world", String::as_str);
    let name = greeting_of(&map.metadata.name);
    let wish = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {MADE: "yes"}},
        "data": {"text": format!("Hello, {whom}!")},
    });
    match maps.patch(&name, &Patch::Apply { manager: MANAGER, force: true, object: &wish }).await {
        Ok(_) => println!("{name} greets {whom}"),
        // A name too long to be made longer: that one is not greeted, the others are.
        Err(error) if error.is_invalid() => eprintln!("{error}"),
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn forget_all_but(maps: &Api<ConfigMap>, seen: &HashSet<String>) -> Result<()> {
    for made in maps.list_with(&ListOptions { labels: labels(MADE), ..ListOptions::default() }).await? {
        if made.metadata.name.strip_suffix(SUFFIX).is_none_or(|name| !seen.contains(name)) {
            forget(maps, &made.metadata.name).await?;
        }
    }
    Ok(())
}

async fn forget(maps: &Api<ConfigMap>, name: &str) -> Result<()> {
    match maps.delete(name).await {
        Ok(_) => println!("{name} is gone"),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn greeting_of(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// The objects that have this label, whatever its value.
fn labels(key: &str) -> LabelSelector {
    LabelSelector::parse(key).expect("a constant of this file")
}
