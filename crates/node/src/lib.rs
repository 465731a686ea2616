//! The agent that runs pods: it watches the pods of its node and makes them real. It knows the server only through the
//! client. `decide`, `env`, `volumes`, `files`, `isolation` and `dns::answer` are pure; `worker` acts; `sandbox` makes processes.
#![deny(unsafe_code)]

mod agent;
mod worker;

mod atomic;
mod cgroups;
mod console;
mod cri;
mod decide;
mod dns;
mod env;
mod events;
mod files;
mod followed;
mod grpc;
mod grpc_probe;
mod images;
mod isolation;
mod logs;
mod network;
mod pod;
mod probe;
mod probe_tls;
mod promised;
mod provided;
mod registration;
mod remote;
mod resources;
pub mod runtime;
pub mod sandbox;
mod serve;
mod services;
pub mod serving;
mod spares;
mod summary;
mod usage;
mod volumes;

pub use agent::{API_PORT, ApiAccess, Attachment, ClusterNetwork, Ground, Node, NodeConfig, private_paths, relay_to};
pub use cri::{CriOptions, plugin_main};
pub use network::WayOut;
pub use runtime::limits_here;
pub use sandbox::spawner_main;
pub use serve::{Body, Handler};
