//! The agent that runs pods. `sandbox` makes processes of them. It knows the server only through the client.
#![deny(unsafe_code)]

mod atomic;
mod decide;
mod dns;
mod env;
mod logs;
mod pod;
pub mod sandbox;
mod services;
mod volumes;

pub use sandbox::spawner_main;
