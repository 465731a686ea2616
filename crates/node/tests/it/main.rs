//! The crate's integration tests.

mod sandbox;
