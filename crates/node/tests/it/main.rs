//! The crate's integration tests.

mod agent;
mod fake_api;
mod sandbox;
