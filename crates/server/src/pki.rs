//! The cluster's keys and certificates: its authority, the serving certificate, client certificates, the key that signs
//! tokens. Made at the first start and kept in a folder, or in memory only. Knows nothing of users and rights.
//! The certificates pass the strictest checks clients make (RFC 5280 as Python 3.13 and OpenSSL 3 enforce it).

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::authn::jwt::{self, Algorithm, Keys, LazyKey, SigningKey};
use crate::authn::x509::ClientCertificates;
use crate::issue::Terms;

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// The life of the authority.
const CA_SECONDS: u64 = 10 * 365 * DAY_SECONDS;
/// The life of the certificates it issues.
const LEAF_SECONDS: u64 = 365 * DAY_SECONDS;
/// A serving certificate with less than this left is replaced at start.
const RENEW_SECONDS: i64 = 30 * DAY_SECONDS as i64;
/// Certificates count from this long ago, for clients whose clock is behind.
const BACKDATE_SECONDS: u64 = 60 * 60;

/// What the certificates are for, and which of them the user brings along.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names and addresses under which the server is reached, besides those that every cluster has.
    pub names: Vec<String>,
    pub cluster_domain: String,
    /// The first address of the service range: what `kubernetes.default.svc` resolves to.
    pub service_address: IpAddr,
    /// Of the token signing key, where one is made. RSA takes about 100 ms on a thread of its own.
    pub token_algorithm: Algorithm,
    /// `--tls-cert-file` and `--tls-private-key-file`.
    pub serving_files: Option<(PathBuf, PathBuf)>,
    /// `--client-ca-file`: its certificates count besides the cluster's own authority.
    pub client_ca_file: Option<PathBuf>,
    /// `--service-account-signing-key-file`
    pub signing_key_file: Option<PathBuf>,
    /// `--service-account-key-file`, any number of times.
    pub verifying_key_files: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            names: Vec::new(),
            cluster_domain: "cluster.local".into(),
            service_address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
            token_algorithm: Algorithm::Rs256,
            serving_files: None,
            client_ca_file: None,
            signing_key_file: None,
            verifying_key_files: Vec::new(),
        }
    }
}

/// The keys and certificates of one cluster.
pub struct Pki {
    ca: Authority,
    serving: Arc<CertifiedKey>,
    client_authorities: Vec<CertificateDer<'static>>,
    proxy_authorities: Vec<CertificateDer<'static>>,
    /// What signs and verifies service account tokens.
    pub keys: Arc<Keys>,
}

struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Everything new, nothing written.
    pub fn in_memory(options: &Options) -> Result<Pki, String> {
        Pki::make(None, options)
    }

    /// Keeps everything in a folder, which is made with mode 0700 when it is missing; private keys have mode 0600.
    /// The serving certificate is made anew when it is about to expire or does not name all that it should.
    pub fn open(folder: &Path, options: &Options) -> Result<Pki, String> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        Pki::make(Some(folder), options)
    }

    fn make(folder: Option<&Path>, options: &Options) -> Result<Pki, String> {
        let now = jiff::Timestamp::now().as_second();
        let ca = Authority::load_or_make(folder, now)?;
        let serving = match &options.serving_files {
            Some((certificate, key)) => serving_key(&read(certificate)?, &read(key)?)
                .map_err(|e| format!("{} and {}: {e}", certificate.display(), key.display()))?,
            None => ca.serving(folder, &options.alternative_names(), now)?,
        };
        let mut client_authorities = vec![ca.der.clone()];
        if let Some(path) = &options.client_ca_file {
            client_authorities.extend(authorities(path)?);
        }
        let mut others = Vec::new();
        for path in &options.verifying_key_files {
            others.extend(jwt::read_public_keys(path)?);
        }
        let keys = Arc::new(Keys { signing: token_key(folder, options)?, others });
        Ok(Pki { ca, serving: Arc::new(serving), client_authorities, proxy_authorities: Vec::new(), keys })
    }

    /// The certificate that clients trust, ending in a newline.
    pub fn ca_pem(&self) -> &str {
        &self.ca.pem
    }

    /// The authorities whose client certificates count.
    pub fn client_certificates(&self) -> ClientCertificates {
        ClientCertificates::new(&self.client_authorities)
    }

    /// The authorities themselves.
    pub fn client_authorities(&self) -> &[CertificateDer<'static>] {
        &self.client_authorities
    }

    /// The authorities of front proxies.
    pub fn proxy_authorities(&self) -> &[CertificateDer<'static>] {
        &self.proxy_authorities
    }

    /// Takes the certificates of a file for the authorities of front proxies.
    ///
    /// # Errors
    /// Why the file is of no use.
    pub fn trust_proxies(&mut self, path: &Path) -> Result<(), String> {
        self.proxy_authorities = authorities(path)?;
        match self.proxy_authorities.is_empty() {
            true => Err(format!("unable to load client CA file {}: it holds no certificate", path.display())),
            false => Ok(()),
        }
    }

    /// A new client certificate and its key, both PEM, good for a year: the common name is the user, the organisation the
    /// group.
    pub fn issue_client(&self, user: &str, group: Option<&str>) -> Result<(String, String), String> {
        let mut params = leaf(user, ExtendedKeyUsagePurpose::ClientAuth)?;
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.ca.issue(&params)
    }

    /// A certificate on request, PEM.
    ///
    /// # Errors
    /// Why the authority cannot issue it.
    pub fn issue(&self, terms: &Terms<'_>) -> Result<String, String> {
        crate::issue::issue(&self.ca.der, self.ca.issuer.key(), terms)
    }

    /// TLS 1.2 and 1.3. A client may show any certificate and must hold its key; whether it counts is decided for the
    /// request (see [`ClientCertificates`]), so that a wrong one is answered 401 and not with a broken connection.
    pub fn server_config(&self, alpn: &[&str]) -> Result<Arc<ServerConfig>, String> {
        let mut provider = aws_lc_rs::default_provider();
        // As Go's servers choose: the cheaper one of those that are strong enough, whatever the client would like best.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let provider = Arc::new(provider);
        let hints = self.client_authorities.iter().chain(&self.proxy_authorities).filter_map(|der| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            Some(DistinguishedName::from(certificate.subject().as_raw().to_vec()))
        });
        let verifier = AnyCertificate { hints: hints.collect(), provider: provider.clone() };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(self.serving.clone())));
        config.ignore_client_order = true;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// The certificates of a file of authorities.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |e| format!("unable to load client CA file {}: {e}", path.display());
    CertificateDer::pem_slice_iter(read(path)?.as_bytes()).map(|der| der.map_err(failed)).collect()
}

impl Options {
    /// All that a client may dial, each once.
    fn alternative_names(&self) -> Vec<String> {
        let domain = &self.cluster_domain;
        let mut names: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_string).into();
        names.push(format!("kubernetes.default.svc.{domain}"));
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_string));
        names.push(self.service_address.to_string());
        names.extend(host_name());
        names.extend(self.names.iter().cloned());
        let mut once: Vec<String> = Vec::new();
        for name in names {
            if !once.contains(&name) {
                once.push(name);
            }
        }
        once
    }
}

/// The first address of a service range like `10.96.0.0/16`, which the `kubernetes` Service takes.
pub fn first_address(range: &str) -> Result<IpAddr, String> {
    let bad = || format!("{range} is no range of addresses, such as 10.96.0.0/16");
    let (address, bits) = range.split_once('/').ok_or_else(bad)?;
    let bits: u32 = bits.parse().map_err(|_| bad())?;
    match address.parse::<IpAddr>().map_err(|_| bad())? {
        IpAddr::V4(address) if bits <= 30 => {
            let network = u32::from(address) & !(u32::MAX.checked_shr(bits).unwrap_or(0));
            Ok(IpAddr::V4((network + 1).into()))
        }
        IpAddr::V6(address) if bits <= 126 => {
            let network = u128::from(address) & !(u128::MAX.checked_shr(bits).unwrap_or(0));
            Ok(IpAddr::V6((network + 1).into()))
        }
        _ => Err(bad()),
    }
}

impl Authority {
    fn load_or_make(folder: Option<&Path>, now: i64) -> Result<Authority, String> {
        let Some(folder) = folder else { return Ok(Authority::make()?.0) };
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        match (certificate.exists(), key.exists()) {
            (true, true) => Authority::load(&read(&certificate)?, &read(&key)?, now).map_err(|e| {
                format!(
                    "{}: {e}; restore the file, or remove the folder to start a cluster with a new authority",
                    certificate.display()
                )
            }),
            (false, false) => {
                let (authority, key_pem) = Authority::make()?;
                // The key goes first: a certificate alone would look like an authority that lost its key.
                write(&key, &key_pem, 0o600)?;
                write(&certificate, &authority.pem, 0o644)?;
                Ok(authority)
            }
            (true, false) => {
                Err(format!("{} is there, but its key {} is missing", certificate.display(), key.display()))
            }
            (false, true) => {
                // A first start that was cut short. Nobody can have trusted it yet.
                fs::remove_file(&key).map_err(|e| format!("cannot remove {}: {e}", key.display()))?;
                Authority::load_or_make(Some(folder), now)
            }
        }
    }

    fn make() -> Result<(Authority, String), String> {
        let mut params = params("kubernetes", CA_SECONDS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
        let key_pem = key.serialize_pem();
        Ok((Authority::of(certificate.pem(), certificate.der().clone(), key)?, key_pem))
    }

    fn load(certificate: &str, key: &str, now: i64) -> Result<Authority, String> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| e.to_string())?;
        let key = KeyPair::from_pem(key).map_err(|e| format!("its key cannot be read: {e}"))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| e.to_string())?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("certificate and key do not belong together".into());
        }
        if parsed.validity().not_after.timestamp() <= now {
            return Err(format!("the certificate expired at {}", parsed.validity().not_after));
        }
        Authority::of(certificate.to_string(), der.clone(), key)
    }

    fn of(pem: String, der: CertificateDer<'static>, key: KeyPair) -> Result<Authority, String> {
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| e.to_string())?;
        Ok(Authority { pem, der, issuer })
    }

    fn issue(&self, params: &CertificateParams) -> Result<(String, String), String> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| e.to_string())?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// The serving certificate of the folder where it will do, else a new one.
    fn serving(&self, folder: Option<&Path>, names: &[String], now: i64) -> Result<CertifiedKey, String> {
        let paths = folder.map(|folder| (folder.join("apiserver.crt"), folder.join("apiserver.key")));
        if let Some((certificate, key)) = paths.as_ref().filter(|(c, k)| c.exists() && k.exists()) {
            let kept = self.will_do(&read(certificate)?, names, now);
            match kept.and_then(|pem| serving_key(&pem, &read(key)?)) {
                Ok(serving) => return Ok(serving),
                Err(why) => tracing::info!("making a new serving certificate: {why}"),
            }
        }
        let mut params = leaf("kube-apiserver", ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = CertificateParams::new(names.to_vec())
            .map_err(|e| format!("a name of the server is not valid: {e}"))?
            .subject_alt_names;
        let (certificate_pem, key_pem) = self.issue(&params)?;
        if let Some((certificate, key)) = &paths {
            write(key, &key_pem, 0o600)?;
            write(certificate, &certificate_pem, 0o644)?;
        }
        serving_key(&certificate_pem, &key_pem)
    }

    fn will_do(&self, pem: &str, names: &[String], now: i64) -> Result<String, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|e| e.to_string())?;
        let left = certificate.validity().not_after.timestamp() - now;
        if left < RENEW_SECONDS {
            return Err(format!("the old one has {} days left", left / DAY_SECONDS as i64));
        }
        let given = alternative_names(&certificate);
        if let Some(missing) = names.iter().find(|name| !given.contains(name)) {
            return Err(format!("the old one does not name {missing}"));
        }
        let (_, authority) = X509Certificate::from_der(&self.der).map_err(|e| e.to_string())?;
        certificate
            .verify_signature(Some(authority.public_key()))
            .map_err(|_| "the old one is of another authority".to_string())?;
        Ok(pem.to_string())
    }
}

/// The names in the subject alternative names of a certificate.
fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_string()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// A certificate of the given name that counts from a little while ago.
fn params(name: &str, seconds: u64) -> CertificateParams {
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let since = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = since + Duration::from_secs(now - BACKDATE_SECONDS.min(now));
    params.not_after = since + Duration::from_secs(now + seconds);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn leaf(name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, String> {
    if name.is_empty() {
        return Err("a certificate needs a name".into());
    }
    let mut params = params(name, LEAF_SECONDS);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn serving_key(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|e| format!("the certificate cannot be read: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| format!("the key cannot be read: {e}"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|e| format!("certificate and key cannot be used together: {e}"))
}

/// The token signing key: the user's, the folder's, or one in the making.
fn token_key(folder: Option<&Path>, options: &Options) -> Result<LazyKey, String> {
    if let Some(path) = &options.signing_key_file {
        return Ok(LazyKey::ready(jwt::read_signing_key(path)?));
    }
    let path = folder.map(|folder| folder.join("sa.key"));
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        // Checking an RSA key takes milliseconds: not while clients wait for the first answer.
        let path = path.clone();
        return Ok(LazyKey::spawn(move || jwt::read_signing_key(&path)));
    }
    let algorithm = options.token_algorithm;
    let make = move || {
        let key = SigningKey::generate(algorithm)?;
        if let Some(path) = &path {
            // On disk before the first token is signed with it.
            write(path, &key.to_pem()?, 0o600)?;
            write(&path.with_extension("pub"), &key.public.to_pem(), 0o644)?;
        }
        Ok(key)
    };
    match algorithm {
        Algorithm::Rs256 => Ok(LazyKey::spawn(make)),
        _ => Ok(LazyKey::ready(make()?)),
    }
}

/// Takes every client certificate whose key the client holds.
#[derive(Debug)]
struct AnyCertificate {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_ascii_lowercase();
    api::selector::is_dns_subdomain(&name).then_some(name)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Whole or not at all: a reader never sees half a key, nor does the next start after a power cut.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&partial, path)
    })();
    written.map_err(|e| format!("cannot write {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
    use serde_json::json;

    use super::*;
    use crate::authn::MASTERS;

    fn quick() -> Options {
        Options {
            token_algorithm: Algorithm::Es256,
            names: vec!["api.example.com".into(), "192.0.2.7".into()],
            ..Options::default()
        }
    }

    /// A whole handshake in memory; the peer's certificates as the server saw them.
    fn shake(pki: &Pki, name: &str, client: Option<(&str, &str)>) -> Result<Vec<CertificateDer<'static>>, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        let mut client =
            ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_string()).unwrap()).unwrap();
        let mut server = ServerConnection::new(pki.server_config(&["h2", "http/1.1"]).unwrap()).unwrap();
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().map_err(|e| e.to_string())?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().map_err(|e| e.to_string())?;
        }
        assert!(!server.is_handshaking());
        Ok(server.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect())
    }

    #[test]
    fn clients_trust_every_name_of_the_server() {
        let pki = Pki::in_memory(&quick()).unwrap();
        for name in [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            "::1",
            "10.96.0.1",
            "api.example.com",
            "192.0.2.7",
        ] {
            assert_eq!(shake(&pki, name, None), Ok(Vec::new()), "{name}");
        }
        assert!(shake(&pki, "example.com", None).is_err());
    }

    #[test]
    fn a_client_certificate_is_a_user_and_a_foreign_one_is_no_broken_connection() {
        let pki = Pki::in_memory(&quick()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let (certificate, key) = pki.issue_client("kubernetes-admin", Some(MASTERS)).unwrap();
        let chain = shake(&pki, "localhost", Some((&certificate, &key))).unwrap();
        let peer = pki.client_certificates().identify(&chain, now);
        let user = peer.user(now).unwrap().unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("kubernetes-admin", [MASTERS.to_string()].as_slice())
        );
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        assert!(peer.user(now + 2 * LEAF_SECONDS as i64).is_err());

        let other = Pki::in_memory(&quick()).unwrap();
        let (certificate, key) = other.issue_client("kubernetes-admin", Some(MASTERS)).unwrap();
        let chain = shake(&pki, "localhost", Some((&certificate, &key))).unwrap();
        let why = pki.client_certificates().identify(&chain, now).user(now).unwrap_err();
        assert!(
            why.starts_with("verifying certificate SN=") && why.contains("CN=kubernetes-admin failed: x509: "),
            "{why}"
        );
        let chain = shake(&pki, "localhost", None).unwrap();
        assert_eq!(pki.client_certificates().identify(&chain, now).user(now), Ok(None));
    }

    /// What `VERIFY_X509_STRICT` of OpenSSL 3 asks of a chain.
    #[test]
    fn certificates_pass_strict_checks() {
        let pki = Pki::in_memory(&quick()).unwrap();
        let der = pki.ca.der.clone();
        let (_, ca) = X509Certificate::from_der(&der).unwrap();
        let basic = ca.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint.is_none());
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        let identifiers = |certificate: &X509Certificate<'_>| {
            use x509_parser::extensions::ParsedExtension::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
            let mut found = (None, None);
            for extension in certificate.extensions() {
                match extension.parsed_extension() {
                    SubjectKeyIdentifier(id) => found.0 = Some(id.0.to_vec()),
                    AuthorityKeyIdentifier(id) => found.1 = id.key_identifier.as_ref().map(|id| id.0.to_vec()),
                    _ => {}
                }
            }
            found
        };
        let (ca_id, _) = identifiers(&ca);
        assert!(ca_id.is_some());
        let (client, _) = pki.issue_client("u", None).unwrap();
        let client = CertificateDer::from_pem_slice(client.as_bytes()).unwrap();
        for (der, server) in [(&pki.serving.cert[0], true), (&client, false)] {
            let (_, leaf) = X509Certificate::from_der(der).unwrap();
            let (own, issuer) = identifiers(&leaf);
            assert!(own.is_some() && issuer == ca_id);
            let extended = leaf.extended_key_usage().unwrap().unwrap();
            assert_eq!((extended.value.server_auth, extended.value.client_auth), (server, !server));
            assert!(!leaf.basic_constraints().unwrap().is_some_and(|basic| basic.value.ca));
            assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
            assert!(leaf.validity().is_valid());
        }
    }

    #[test]
    fn a_folder_keeps_what_was_made() {
        let folder = std::env::temp_dir().join(format!("kemudi-pki-{}", uuid::Uuid::new_v4()));
        let first = Pki::open(&folder, &quick()).unwrap();
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for (name, wanted) in [("ca.crt", 0o644), ("ca.key", 0o600), ("apiserver.key", 0o600), ("sa.key", 0o600)] {
            assert_eq!(mode(name), wanted, "{name}");
        }
        let again = Pki::open(&folder, &quick()).unwrap();
        assert_eq!(again.ca_pem(), first.ca_pem());
        assert_eq!(again.serving.cert, first.serving.cert);
        assert_eq!(again.keys.signing.get().unwrap().public.id, first.keys.signing.get().unwrap().public.id);

        let more = Options { names: vec!["new.example.com".into()], ..quick() };
        let renamed = Pki::open(&folder, &more).unwrap();
        assert_ne!(renamed.serving.cert, first.serving.cert);
        assert_eq!(shake(&renamed, "new.example.com", None), Ok(Vec::new()));

        let soon = first.ca.will_do(&read(&folder.join("apiserver.crt")).unwrap(), &[], i64::MAX / 2);
        assert!(soon.unwrap_err().starts_with("the old one has -"));
        fs::remove_file(folder.join("ca.key")).unwrap();
        let error = Pki::open(&folder, &quick()).err().unwrap();
        assert!(error.contains("is there, but its key") && error.ends_with("is missing"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn tokens_are_signed_with_the_keys_that_were_asked_for() {
        let folder = std::env::temp_dir().join(format!("kemudi-keys-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let (own, old) =
            (SigningKey::generate(Algorithm::Es384).unwrap(), SigningKey::generate(Algorithm::Es256).unwrap());
        let (signing, verifying) = (folder.join("own.key"), folder.join("old.pub"));
        fs::write(&signing, own.to_pem().unwrap()).unwrap();
        fs::write(&verifying, old.public.to_pem()).unwrap();
        let options = Options {
            signing_key_file: Some(signing.clone()),
            verifying_key_files: vec![verifying, signing],
            ..quick()
        };
        let pki = Pki::in_memory(&options).unwrap();
        let ids: Vec<&str> = pki.keys.all().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, [own.public.id.as_str(), old.public.id.as_str()]);
        assert!(pki.keys.signing.get().unwrap().sign(&json!({})).is_ok());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn ranges() {
        let check = |range: &str, want: &str| {
            assert_eq!(first_address(range).map_or_else(|e| e, |address| address.to_string()), want);
        };
        check("10.96.0.0/16", "10.96.0.1");
        check("10.96.5.7/24", "10.96.5.1");
        check("fd00::/108", "fd00::1");
        check("0.0.0.0/0", "0.0.0.1");
        check("10.96.0.0", "10.96.0.0 is no range of addresses, such as 10.96.0.0/16");
        check("10.96.0.0/33", "10.96.0.0/33 is no range of addresses, such as 10.96.0.0/16");
    }
}
