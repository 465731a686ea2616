//! The kemudi façade: everything of one cluster behind one type, and the client library it is used with.
//!
//! ```no_run
//! # async fn example() -> Result<(), String> {
//! let cluster = kemudi::Cluster::start().await?;
//! let pods = kemudi::client::Api::<kemudi::client::kinds::Pod>::namespaced(cluster.client_as("jane"), "default");
//! # let _ = pods; cluster.stop().await
//! # }
//! ```

pub mod cluster;
pub mod kubeconfig;
pub mod local_node;

pub use cluster::Cluster;
pub use kemudi_client as client;
pub use server::Options;
