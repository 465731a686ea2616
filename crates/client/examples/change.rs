//! An app that changes the cluster: it counts its runs in a ConfigMap, together with any number of others that do the
//! same. Nobody's count is lost: a write names the revision it was made from, and who was too late reads again.
//!
//! ```text
//! kemudi run --allow 'get,create,update configmaps' -- target/debug/examples/change
//! ```

use kemudi_client::{Api, ApiResource, Client, Dynamic, Result};
use serde_json::json;

const CONFIG_MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
const NAME: &str = "runs";
/// Times that others may be faster before we give up.
const TRIES_MAX: usize = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let client = Client::try_default().await?;
    let namespace = client.default_namespace().to_string();
    let maps = Api::namespaced_of(client, &namespace, &CONFIG_MAPS);
    for _ in 0..TRIES_MAX {
        match count(&maps).await {
            Ok(runs) => {
                println!("run {runs} of all that were counted in ConfigMap {namespace}/{NAME}");
                return Ok(());
            }
            Err(error) if error.is_conflict() || error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
    }
    Err(kemudi_client::Error::Request(format!("others were faster {TRIES_MAX} times; try again")))
}

/// Adds one, and gives the new count.
async fn count(maps: &Api<Dynamic>) -> Result<u64> {
    let Some(mut map) = maps.get_opt(NAME).await? else {
        let first = json!({"metadata": {"name": NAME}, "data": {"runs": "1"}});
        maps.create(&first.into()).await?;
        return Ok(1);
    };
    let runs = map["data"]["runs"].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
    map["data"]["runs"] = runs.to_string().into();
    maps.replace(&map).await?;
    Ok(runs)
}
