//! The Kubernetes API for code that runs in a pod (and outside of one): find the server, prove who you are, read, write, watch.
//! Never starts a task that outlives its owner, never guesses: what is missing is an error that says how to get it.
//!
//! ```no_run
//! use kemudi_client::{Api, Client, block_on, kinds::Pod};
//!
//! fn main() -> kemudi_client::Result<()> {
//!     block_on(async {
//!         let client = Client::try_default().await?;
//!         for pod in Api::<Pod>::all(client).list().await? {
//!             println!("{}\t{}", pod.metadata.namespace, pod.metadata.name);
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! The five lines within need nothing but a pod whose service account may list pods. `kemudi run --allow 'list pods' -- PROGRAM`
//! makes one on this machine. A program that has a runtime of tokio awaits them there.
//!
//! # 1. Where the server is, and who we are
//!
//! [`Client::try_default`] takes a kubeconfig where there is one (feature `kubeconfig`) and the pod's own environment otherwise, as
//! kubectl does.
//! [`Config::in_cluster`] and [`Config::from_kubeconfig`] take one of the two. Each thing that can be wrong with either is a
//! [`ConfigError`] with a [code](config::ConfigCode) of its own and a line on what to do.
//!
//! Tokens, certificate authorities and client certificates are files that others replace. The client hears of it from the kernel:
//! the next request has the new token, and steady use reads no file. A token that is refused is read again and the request
//! repeated, since what was answered with 401 was not done; an authority that does not verify is read again likewise. A
//! kubeconfig's exec plugins need the feature `exec`; `proxy-url`, `HTTPS_PROXY` and `NO_PROXY` are followed.
//!
//! # 2. Reading and writing
//!
//! An [`Api`] is the objects of one resource. What it decodes is up to you: the narrow structs of [`kinds`], a struct of your own
//! with [`typed!`], [`Dynamic`] for what is known at run time only, [`Metadata`] where the body does not matter, and the generated
//! types of `k8s-openapi` with the feature of that name. Decoding less is faster and smaller: managed fields alone are half of
//! many objects, and are skipped. Long lists of built-in kinds come in fewer bytes and are read in less time in protobuf
//! (`Client::with_protobuf`, feature `protobuf`), where the type says its fields' numbers; with `Client::with_gzip` (feature `gzip`) any list does,
//! for some time on both sides.
//!
//! ```no_run
//! # async fn run(client: kemudi_client::Client) -> kemudi_client::Result<()> {
//! use kemudi_client::{Api, ObjectMeta, Patch, typed};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct CronTab { metadata: ObjectMeta, spec: serde_json::Value }
//! typed!(CronTab, group "stable.example.com", version "v1", plural "crontabs", namespaced);
//!
//! let tabs: Api<CronTab> = Api::default_namespaced(client);
//! let wish = serde_json::json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "spec": {"image": "x"}});
//! tabs.patch("mine", &Patch::Apply { manager: "me", force: true, object: &wish }).await?;
//! # Ok(()) }
//! ```
//!
//! # 3. What goes wrong
//!
//! An [`Error`] is for branching, and its text for people:
//!
//! ```no_run
//! # async fn run(pods: kemudi_client::Api<kemudi_client::kinds::Pod>) -> kemudi_client::Result<()> {
//! match pods.get("web").await {
//!     Ok(pod) => println!("{}", pod.status.phase),
//!     Err(error) if error.is_not_found() => println!("not there"),
//!     Err(error) => match error.forbidden() {
//!         // user, verb, resource, group, namespace, name
//!         Some(refusal) => println!("{} needs: {}", refusal.user, refusal.missing_rule()),
//!         None => return Err(error),
//!     },
//! }
//! # Ok(()) }
//! ```
//!
//! Requests are repeated where that is safe, a few times and not for long ([`Retries`]): what was surely not executed (nobody
//! listened, or 429 with `Retry-After`) always, what may have been only where twice is the same as once. So a create makes
//! nothing twice. A read that waits in silence asks for a sign of life, and goes on on another connection within a second where none
//! comes; a connection that says nothing for 45 seconds is given up with all that waits on it ([`Timeouts`](config::Timeouts)).
//!
//! # 4. Watching
//!
//! [`Api::watch`] is one watch that goes on where it was cut. [`Api::watcher`] is all objects and then all changes, for ever: told
//! by one watch where the server can, by a list and a watch where not, with pauses that grow while it fails. [`Api::wait_until`]
//! waits for one object. A [`Store`] keeps what a watcher tells, each object once, with indexes of your own:
//!
//! ```no_run
//! # async fn run(client: kemudi_client::Client) -> kemudi_client::Result<()> {
//! use kemudi_client::{Api, ListOptions, Store, kinds::Pod};
//!
//! let pods = Store::<Pod>::builder()
//!     .index("node", |pod| vec![pod.spec.node_name.clone()])
//!     .follow(&Api::all(client), &ListOptions::default());
//! pods.ready().await?;
//! println!("{} pods, {} on node-1", pods.len(), pods.by_index("node", "node-1").len());
//! # Ok(()) }
//! ```
//!
//! # 5. Keeping promises (feature `runtime`)
//!
//! A `Controller` calls a function for every object that something happened to, or to what it owns: one object never twice at a
//! time, several at once, again after a pause where it failed. `finalizer` clears away before an object goes, `Election` lets one
//! of several copies work, `Recorder` tells events. The example `operator.rs` is a whole operator.
//!
//! # 6. Seeing what it does
//!
//! Each request is a span of [`tracing`](https://docs.rs/tracing) at the level debug, with method, path and code.
//! [`Client::on_request`] hears of each for metrics, [`Client::on_warning`] of the server's warnings, and
//! [`Client::with_rate_limit`] holds requests back.
//!
//! # 7. Tests
//!
//! [`Client::with_transport`] takes anything that carries a request, such as a table of answers. `kemudi::Cluster::start()` is a real
//! API server in the same process: `cluster.client_as("system:serviceaccount:NAMESPACE:NAME")` has exactly that account's rights.
//!
//! # Whole programs
//!
//! In `examples/`, each in a pod in our tests: `inspect.rs` looks at itself, `change.rs` changes the cluster together with others,
//! `metrics.rs` gathers the control plane's metrics, `operator.rs` keeps a promise.
//!
//! # Features
//!
//! What a program in a pod needs is there with the default ones: `ring` says whose cryptography TLS uses (`aws-lc-rs` is the other),
//! `http2` that many requests share a connection (a program that asks a few things can do without, and is smaller), and `system-names`
//! that the C library resolves names (a static program has [`Config::names`] instead). Off by default:
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `runtime` | controllers, elections, events |
//! | `remote` | `Api::exec`, `Api::attach`, `Api::port_forward` |
//! | `kubeconfig` | kubeconfigs in YAML, for programs outside of pods; one in JSON is read without |
//! | `exec` | plugins that give credentials, as kubeconfigs of clouds name them |
//! | `gzip` | `Client::with_gzip`: answers that the server compresses, for slow ways to it |
//! | `protobuf` | `Client::with_protobuf`: built-in kinds in fewer bytes, which are read in a fraction of the time |
//! | `k8s-openapi` | the generated types of that crate are resources |

#![warn(missing_docs)]

mod api;
mod block_on;
pub mod client;
pub mod config;
#[cfg(feature = "runtime")]
pub mod controller;
mod credentials;
pub mod discovery;
mod error;
mod exec;
mod files;
#[cfg(feature = "gzip")]
mod gzip;
mod https;
pub mod kinds;
mod kubeconfig;
#[cfg(feature = "runtime")]
pub mod lease;
#[cfg(feature = "http2")]
mod line;
mod list;
mod observe;
#[cfg(feature = "protobuf")]
pub mod protobuf;
mod proxy;
#[cfg(feature = "runtime")]
mod queue;
#[cfg(feature = "runtime")]
pub mod recorder;
#[cfg(feature = "remote")]
pub mod remote;
mod resource;
mod retry;
#[cfg(feature = "http2")]
mod shared;
pub mod store;
mod string_map;
pub mod time;
mod tls;
pub mod token;
pub mod transport;
#[cfg(not(feature = "http2"))]
mod unshared;
pub mod watch;

pub use ::api::options::{FieldValidation, Propagation, VersionMatch};
pub use ::api::{
    Ask, Cause, DeleteOptions, Details, FieldSelector, GetOptions, LabelSelector, ListOptions, Preconditions, Query,
    Reason, Status, Verb, WriteOptions,
};

pub use crate::api::{Api, Deleted, LogOptions, Patch};
pub use crate::block_on::block_on;
pub use crate::client::Client;
pub use crate::config::{Config, ConfigError};
#[cfg(feature = "runtime")]
pub use crate::controller::{Action, Controller, Finalizer, finalizer, owned_by};
pub use crate::error::{Error, Forbidden, Result};
pub use crate::https::Https;
#[cfg(feature = "runtime")]
pub use crate::lease::{Election, Led};
pub use crate::observe::{RateLimit, Sent};
#[cfg(feature = "runtime")]
pub use crate::recorder::{EventType, Recorder};
#[cfg(feature = "remote")]
pub use crate::remote::{Outcome, PortForwarder, Remote, RemoteOptions};
pub use crate::resource::{
    ApiResource, Dynamic, ListMeta, Metadata, ObjectList, ObjectMeta, OwnerReference, Resource, Typed,
};
pub use crate::retry::Retries;
pub use crate::store::{ObjectKey, Store};
pub use crate::string_map::StringMap;
#[doc(hidden)]
pub use crate::tls::TrustAnything;
pub use crate::transport::{Body, Transport};
pub use crate::watch::{Event, Watch, WatchEvent, Watcher};
