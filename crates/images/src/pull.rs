//! Images from registries: what is missing of an image is fetched and unpacked. A layer that is there already, of whatever image,
//! is not fetched again. Keeps no credentials.

use std::net::IpAddr;

use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;

use crate::store::{Wanted, by_content};
use crate::{Error, Image, Reference, Store};

/// How long a registry may take to answer, and to say nothing in the middle of a layer.
const CONNECT_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(30);
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    Nobody,
    User { name: String, password: String },
}

/// How far a pull has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Layers that are there, of how many.
    pub layers: usize,
    pub of: usize,
}

impl Store {
    /// Fetches an image, or what of it is new. Ends early, without harm, where it is dropped.
    ///
    /// # Errors
    /// The registry cannot be reached, does not have the image, does not let us, or gives something else.
    pub async fn pull(&self, name: &Reference, auth: &Auth, told: impl Fn(Progress)) -> Result<Image, Error> {
        // The one provider of the process, unless there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = ClientConfig {
            protocol: match is_loopback(name.resolve_registry()) {
                true => ClientProtocol::Http,
                false => ClientProtocol::Https,
            },
            connect_timeout: Some(CONNECT_TIME_MAX),
            read_timeout: Some(SILENCE_MAX),
            user_agent: concat!("kemudi/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|why| failed(name, why))?;
        let auth = match auth {
            Auth::Nobody => RegistryAuth::Anonymous,
            Auth::User { name, password } => RegistryAuth::Basic(name.clone(), password.clone()),
        };
        let described = client.pull_manifest_and_config_and_list_digest(name, &auth).await;
        let (manifest, digest, description, index) = described.map_err(|why| failed(name, why))?;
        let wanted = Wanted::parse(description.as_bytes())?;
        let of = wanted.layers.len();
        if of != manifest.layers.len() {
            return Err(Error::Invalid("the image has another number of layers than its description".into()));
        }
        let adding = self.adding()?;
        for (nth, (diff_id, layer)) in wanted.layers.iter().zip(&manifest.layers).enumerate() {
            told(Progress { layers: nth, of });
            if adding.has(diff_id) {
                continue;
            }
            let partial = self.partial()?;
            let path = partial.path().join("layer");
            let unkept = || Error::io("cannot keep a layer");
            let mut file = tokio::fs::File::create(&path).await.map_err(unkept())?;
            client.pull_blob(name, layer, &mut file).await.map_err(|why| failed(name, why))?;
            let file = std::fs::File::open(&path).map_err(unkept())?;
            let (store, diff_id) = (self.clone(), diff_id.clone());
            let added = tokio::task::spawn_blocking(move || store.adding()?.add_layer(&diff_id, file)).await;
            added.map_err(|why| Error::Registry(why.to_string()))??;
        }
        told(Progress { layers: of, of });
        adding.finish(wanted, Some(name), Some(&by_content(name, index.as_deref().unwrap_or(&digest))))
    }
}

/// A registry on this very machine needs no TLS, as container runtimes have it.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// In containerd's words, which are known from events.
fn failed(name: &Reference, why: OciDistributionError) -> Error {
    let whole = name.whole();
    let resolve = |why: &str| format!("failed to resolve reference {whole:?}: {whole}: {why}");
    match why {
        OciDistributionError::ImageManifestNotFoundError(_) => Error::NotFound(resolve("not found")),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            Error::Denied(resolve("pull access denied, repository does not exist or may require authorization"))
        }
        OciDistributionError::ServerError { code: 404, .. } => Error::NotFound(resolve("not found")),
        OciDistributionError::RegistryError { ref envelope, .. } => {
            let is = |code: OciErrorCode| envelope.errors.iter().any(|error| error.code == code);
            match is(OciErrorCode::Denied) || is(OciErrorCode::Unauthorized) {
                true => {
                    Error::Denied(resolve("pull access denied, repository does not exist or may require authorization"))
                }
                false if is(OciErrorCode::ManifestUnknown) || is(OciErrorCode::NameUnknown) => {
                    Error::NotFound(resolve("not found"))
                }
                false => Error::Registry(resolve(&why.to_string())),
            }
        }
        OciDistributionError::RequestError(why) => {
            // What is wrong is in the innermost.
            let mut source: &dyn std::error::Error = &why;
            while let Some(deeper) = source.source() {
                source = deeper;
            }
            Error::Registry(format!("failed to do request: {source}"))
        }
        other => Error::Registry(resolve(&other.to_string())),
    }
}
