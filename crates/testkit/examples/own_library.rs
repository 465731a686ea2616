//! Lists the pods of its own namespace with kemudi's client library, from inside a pod.

use kemudi_client::kinds::Pod;
use kemudi_client::{Api, Client};

#[tokio::main(flavor = "current_thread")]
async fn main() -> kemudi_client::Result<()> {
    let client = Client::try_default().await?;
    for pod in Api::<Pod>::all(client).list().await? {
        println!("{}\t{}\t{}", pod.metadata.namespace, pod.metadata.name, pod.status.phase);
    }
    Ok(())
}
