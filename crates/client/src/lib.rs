//! The Kubernetes API for code that runs in a pod (and outside of one): find the server, prove who you are, read, write, watch.
//! Never starts a task that outlives the [`Client`], never guesses: what is missing is an error that says how to get it.
//!
//! ```no_run
//! # async fn run() -> kemudi_client::Result<()> {
//! use kemudi_client::{Api, Client, kinds::Pod};
//!
//! let client = Client::try_default().await?;
//! for pod in Api::<Pod>::all(client).list().await? {
//!     println!("{}\t{}", pod.metadata.namespace, pod.metadata.name);
//! }
//! # Ok(()) }
//! ```

mod api;
pub mod client;
pub mod config;
mod credentials;
pub mod discovery;
mod error;
mod https;
pub mod kinds;
mod kubeconfig;
pub mod remote;
mod resource;
mod tls;
pub mod token;
pub mod transport;
pub mod watch;

pub use ::api::{DeleteOptions, FieldSelector, GetOptions, LabelSelector, ListOptions, Status, WriteOptions};

pub use crate::api::{Api, Deleted, LogOptions, Patch};
pub use crate::client::Client;
pub use crate::config::{Config, ConfigError};
pub use crate::error::{Error, Forbidden, Result};
pub use crate::https::Https;
pub use crate::remote::{Outcome, PortForwarder, Remote, RemoteOptions};
pub use crate::resource::{ApiResource, Dynamic, ObjectList, ObjectMeta, OwnerReference, Resource, Typed};
pub use crate::transport::{Body, Transport};
pub use crate::watch::{Event, WatchEvent};
