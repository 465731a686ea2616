//! Container images on this machine: a store that keeps each layer once, unpacked; archives and layouts that are loaded into
//! it; registries that it is filled from. Runs nothing and mounts nothing.

mod archive;
mod pull;
mod store;
mod unpack;
mod users;

pub use oci_client::Reference;
pub use pull::{Auth, Progress};
pub use store::{Config, Hold, Image, Store};
pub use unpack::remove_tree;
pub use users::Account;

/// Why an image is not to be had. Messages are what follows `failed to pull image "x":` and the like.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such image, or nobody may see it.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants to know who asks, or does not let them.
    #[error("{0}")]
    Denied(String),
    /// The registry cannot be reached, or failed.
    #[error("{0}")]
    Registry(String),
    /// What was given is no image, or not one for this machine.
    #[error("{0}")]
    Invalid(String),
    /// Somebody uses what was to be removed.
    #[error("{0}")]
    InUse(String),
    /// The store's files.
    #[error("{what}: {why}")]
    Io { what: String, why: std::io::Error },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |why| Error::Io { what, why }
    }
}

/// A name as it is written in a pod, with what it leaves out: `alpine` is `docker.io/library/alpine:latest`.
///
/// # Errors
/// It is no name of an image.
pub fn reference(name: &str) -> Result<Reference, Error> {
    let parsed = name.parse().map_err(|why| Error::Invalid(format!("couldn't parse image name {name:?}: {why}")))?;
    Ok(parsed)
}
