//! The agent that runs pods. `sandbox` makes processes of them. It knows the server only through the client.
#![deny(unsafe_code)]

pub mod sandbox;

pub use sandbox::spawner_main;
