//! The same operator as the client library's example, written with kube-rs as its own examples are: for every ConfigMap with the label
//! `example.com/greet` it keeps another one, NAME-greeting. It is run to see what it takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), kube::Error> {
    let client = Client::try_default().await?;
    let maps = Api::<ConfigMap>::default_namespaced(client);
    let greeted = watcher::Config::default().labels("example.com/greet");
    Controller::new(maps.clone(), greeted)
        .owns(maps.clone(), watcher::Config::default())
        .shutdown_on_signal()
        .run(greet, again, Arc::new(maps))
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                eprintln!("{error}");
            }
        })
        .await;
    Ok(())
}

async fn greet(map: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>) -> Result<Action, kube::Error> {
    let whom = map.data.as_ref().and_then(|data| data.get("name")).map_or("world", String::as_str);
    let name = format!("{}-greeting", map.name_any());
    let wish = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: map.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("text".to_string(), format!("Hello, {whom}!"))])),
        ..ConfigMap::default()
    };
    maps.patch(&name, &PatchParams::apply("greeter").force(), &Patch::Apply(&wish)).await?;
    println!("{name} greets {whom}");
    Ok(Action::await_change())
}

fn again(_: Arc<ConfigMap>, error: &kube::Error, _: Arc<Api<ConfigMap>>) -> Action {
    eprintln!("{error}");
    Action::requeue(Duration::from_secs(5))
}
