//! The agent that runs pods. `sandbox` makes processes of them. It knows the server only through the client.
#![deny(unsafe_code)]

mod decide;
mod dns;
mod env;
mod pod;
pub mod sandbox;
mod services;

pub use sandbox::spawner_main;
