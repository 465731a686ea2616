//! The least program with kemudi-client: lists pods. It is built to see how long that takes, and need not run.

use kemudi_client::{Api, Client, block_on, kinds::Pod};

fn main() -> kemudi_client::Result<()> {
    block_on(async {
        for pod in Api::<Pod>::all(Client::try_default().await?).list().await? {
            println!("{}\t{}", pod.metadata.namespace, pod.metadata.name);
        }
        Ok(())
    })
}
