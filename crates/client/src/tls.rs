//! TLS of the client: which certificates are trusted, which is shown. One crypto provider, chosen here.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::{Ca, Config, ConfigCode, ConfigError};

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs::default_provider as cryptography;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring::default_provider as cryptography;
#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("kemudi-client needs one of the features `ring` (which is a default one) and `aws-lc-rs`");

/// Where Linux distributions keep the certificates they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the files of a configuration hold, as PEM.
#[derive(PartialEq, Eq)]
pub struct Files {
    /// `None` where the system's certificates are trusted.
    ca: Option<Vec<u8>>,
    /// The certificate that we show, and its key.
    pub shown: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    /// Reads them.
    pub fn load(config: &Config) -> Result<Files, ConfigError> {
        let ca = match &config.ca {
            Ca::System => None,
            Ca::Of(pem) => Some(pem.load("the CA certificate")?),
        };
        let shown = match &config.client_certificate {
            None => None,
            Some((certificate, key)) => {
                Some((certificate.load("the client certificate")?, key.load("the client key")?))
            }
        };
        Ok(Files { ca, shown })
    }
}

/// The TLS configuration of a client with these files.
pub fn client_config(config: &Config, files: &Files) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(cryptography());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new(ConfigCode::CaInvalid, error.to_string()))?;
    let builder = match config.insecure_skip_tls_verify {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnything(provider))),
        false => builder.with_root_certificates(match &files.ca {
            Some(pem) => roots(pem).map_err(|why| {
                ConfigError::new(ConfigCode::CaInvalid, format!("the CA of {} is not usable: {why}", config.source))
                    .fix("it must be PEM certificates: -----BEGIN CERTIFICATE-----")
            })?,
            None => system_roots()?,
        }),
    };
    Ok(match &files.shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let invalid = |why: String| {
                let text = format!("the client certificate of {} is not usable: {why}", config.source);
                ConfigError::new(ConfigCode::ClientCertificateInvalid, text)
                    .fix("certificate and key must be PEM and belong together")
            };
            let chain = certificates(certificate).map_err(&invalid)?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| invalid(format!("its key: {error}")))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| invalid(error.to_string()))?
        }
    })
}

/// The certificates of a PEM text, as what signs a server's; at least one.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let mut last = String::new();
    for certificate in certificates(pem)? {
        // One odd certificate in a bundle does not spoil the others.
        if let Err(error) = store.add(certificate) {
            last = error.to_string();
        }
    }
    match store.is_empty() {
        true => Err(last),
        false => Ok(store),
    }
}

/// The name that the server's certificate must have.
pub fn server_name(config: &Config) -> Result<ServerName<'static>, ConfigError> {
    let name = config.tls_server_name.as_ref().unwrap_or(&config.server.host);
    ServerName::try_from(name.clone()).map_err(|_| {
        ConfigError::new(ConfigCode::ServerInvalid, format!("{name:?} is no host name and no address"))
            .fix("write the server like https://10.96.0.1:443")
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if all.is_empty() { Err("no PEM certificate in it".to_string()) } else { Ok(all) }
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let paths = named.iter().map(String::as_str).chain(SYSTEM_ROOTS);
    paths.filter_map(|path| roots(&std::fs::read(path).ok()?).ok()).next().ok_or_else(|| {
        ConfigError::new(ConfigCode::NoSystemRoots, "no CA is configured and this system has no trusted certificates")
            .fix("name the cluster's CA (certificate-authority in the kubeconfig), or install ca-certificates")
    })
}

/// Takes any certificate, but whoever shows it must have its key: what `insecure-skip-tls-verify` asks for, and a kubelet's probes.
#[derive(Debug)]
pub struct TrustAnything(pub Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
