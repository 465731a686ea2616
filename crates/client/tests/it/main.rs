//! The client against answers from a table, and against a real TLS server in the same process.

mod calls;
#[cfg(feature = "kubeconfig")]
mod config;
mod discovery;
mod faults;
mod https;
#[cfg(all(feature = "exec", feature = "kubeconfig"))]
mod plugins;
#[cfg(feature = "protobuf")]
mod protobuf;
mod proxies;
mod recordings;
mod rotation;
mod table;
mod watches;
