//! (being written)

pub mod authn;
pub mod authz;
pub mod lookup;
