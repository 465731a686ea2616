//! An app that looks at itself: where the server is, who it is there, and the pod it runs in. Never writes anything.
//!
//! ```text
//! kemudi run --allow 'get pods' -- target/debug/examples/inspect
//! ```

use kemudi_client::config::Credentials;
use kemudi_client::kinds::Pod;
use kemudi_client::token::Claims;
use kemudi_client::{Api, Client, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::in_cluster()?;
    println!("server     {}", config.server);
    println!("namespace  {}", config.namespace);

    // The token names the pod it is bound to, which is surer than the host name: a pod may set that to anything.
    let Credentials::TokenFile(path) = &config.credentials else { return Err("a pod's token is a file".into()) };
    let claims = Claims::decode(&std::fs::read_to_string(path)?).ok_or("the token is no JWT")?;
    println!("account    {}", claims.subject);
    let name = claims.kubernetes.pod.ok_or("the token is bound to no pod")?.name;

    let pods = Api::<Pod>::default_namespaced(Client::new(config)?);
    let pod = pods.get(&name).await?;
    println!("pod        {} ({})", pod.metadata.name, pod.status.phase);
    println!("address    {}", pod.status.pod_ip);
    println!("node       {}", pod.spec.node_name);
    for container in &pod.spec.containers {
        println!("container  {} of image {}", container.name, container.image);
    }
    Ok(())
}
