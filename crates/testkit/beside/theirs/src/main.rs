//! The least program with kube-rs: lists pods. It is built to see how long that takes, and need not run.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), kube::Error> {
    for pod in Api::<Pod>::all(Client::try_default().await?).list(&ListParams::default()).await? {
        println!("{}\t{}", pod.namespace().unwrap_or_default(), pod.name_any());
    }
    Ok(())
}
