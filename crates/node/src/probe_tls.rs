//! TLS for probes: a container is asked how it is, not who it is, so that any certificate will do, as with a kubelet.

use kemudi_client::TrustAnything;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    Ok(Arc::new(builder.with_custom_certificate_verifier(Arc::new(TrustAnything(provider))).with_no_client_auth()))
});

/// Speaks TLS over a connection to a container. `name` is what the request's Host says, if that is a name.
pub async fn connect(stream: TcpStream, name: &str, ip: IpAddr) -> Result<TlsStream<TcpStream>, String> {
    let config = CONFIG.clone()?;
    let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
    let name = ServerName::try_from(name.to_owned()).unwrap_or_else(|_| ServerName::from(ip));
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
}
