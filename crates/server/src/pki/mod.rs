//! The cluster's keys and certificates: its authority, the serving certificate, client certificates, the key that signs
//! tokens. Made at the first start and kept in a folder, or in memory only. Knows nothing of users and rights.
//! The certificates pass the strictest checks clients make (RFC 5280 as Python 3.13 and OpenSSL 3 enforce it).
//!
//! They change while the server runs: [`life`] changes the folder, [`reload`] follows it.

mod authority;
mod files;
pub mod life;
pub mod reload;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use rcgen::{DnType, ExtendedKeyUsagePurpose};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::authority::{Authority, certificates, leaf, serving_key};
use self::files::{in_folder, read, write};
use crate::authn::jwt::{self, Algorithm, Keys, LazyKey, SigningKey};
use crate::authn::key_ring::KeyRing;
use crate::authn::x509::ClientCertificates;
use crate::issue::Terms;

/// The protocols that are spoken over TLS, the best first.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// What the certificates are for, and which of them the user brings along.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names and addresses under which the server is reached, besides those that every cluster has.
    pub names: Vec<String>,
    pub cluster_domain: String,
    /// The first address of the service range: what `kubernetes.default.svc` resolves to.
    pub service_address: IpAddr,
    /// Of the token signing key, where one is made. RSA takes about 100 ms on a thread of its own, once somebody can come who
    /// wants a token.
    pub token_algorithm: Algorithm,
    /// `--tls-cert-file` and `--tls-private-key-file`.
    pub serving_files: Option<(PathBuf, PathBuf)>,
    /// `--client-ca-file`: its certificates count besides the cluster's own authority.
    pub client_ca_file: Option<PathBuf>,
    /// `--requestheader-client-ca-file`: the authorities of front proxies.
    pub proxy_ca_file: Option<PathBuf>,
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
            proxy_ca_file: None,
            signing_key_file: None,
            verifying_key_files: Vec::new(),
        }
    }
}

/// The keys and certificates of one cluster.
pub struct Pki {
    folder: Option<PathBuf>,
    options: Options,
    now: ArcSwap<Certificates>,
    /// What signs and verifies service account tokens.
    pub keys: Arc<KeyRing>,
    changes: watch::Sender<()>,
    /// What the files held when they were taken last, see [`reload`].
    taken: Mutex<reload::Stamp>,
}

/// The certificates of a moment, and what follows from them for a connection.
pub struct Certificates {
    ca: Authority,
    serving: Arc<CertifiedKey>,
    client_authorities: Vec<CertificateDer<'static>>,
    proxy_authorities: Vec<CertificateDer<'static>>,
    clients: ClientCertificates,
    tls: Arc<ServerConfig>,
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
        // Before anything is read: what changes from here on is found different.
        let taken = reload::stamp(folder, options);
        let now = jiff::Timestamp::now().as_second();
        let ca = Authority::load_or_make(folder, now)?;
        let certificates = Certificates::of(ca, folder, options, now)?;
        let keys = Keys { signing: token_key(folder, options)?, others: verifying_keys(folder, options)? };
        Ok(Pki {
            folder: folder.map(Path::to_path_buf),
            options: options.clone(),
            now: ArcSwap::from_pointee(certificates),
            keys: Arc::new(KeyRing::new(keys)),
            changes: watch::Sender::new(()),
            taken: Mutex::new(taken),
        })
    }

    /// The certificates as they are now.
    pub fn certificates(&self) -> Guard<Arc<Certificates>> {
        self.now.load()
    }

    /// The certificates that clients trust, PEM, ending in a newline.
    pub fn ca_pem(&self) -> String {
        self.now.load().ca.bundle.clone()
    }

    /// Tells of each change of certificates or keys.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// A new client certificate and its key, both PEM, good for a year: the common name is the user, the organisation the
    /// group.
    pub fn issue_client(&self, user: &str, group: Option<&str>) -> Result<(String, String), String> {
        let mut params = leaf(user, ExtendedKeyUsagePurpose::ClientAuth)?;
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.now.load().ca.issue(&params)
    }

    /// A certificate on request, PEM.
    ///
    /// # Errors
    /// Why the authority cannot issue it.
    pub fn issue(&self, terms: &Terms<'_>) -> Result<String, String> {
        let now = self.now.load();
        crate::issue::issue(&now.ca.der, now.ca.issuer.key(), terms)
    }
}

impl Certificates {
    fn of(ca: Authority, folder: Option<&Path>, options: &Options, now: i64) -> Result<Certificates, String> {
        let serving = match &options.serving_files {
            Some((certificate, key)) => serving_key(&read(certificate)?, &read(key)?)
                .map_err(|e| format!("{} and {}: {e}", certificate.display(), key.display()))?,
            None => ca.serving(folder, &options.alternative_names(), now)?,
        };
        let mut client_authorities: Vec<_> = ca.trusted().cloned().collect();
        if let Some(path) = &options.client_ca_file {
            client_authorities.extend(authorities(path)?);
        }
        let proxy_authorities = match &options.proxy_ca_file {
            Some(path) => authorities(path)?,
            None => Vec::new(),
        };
        if let Some(path) = options.proxy_ca_file.as_ref().filter(|_| proxy_authorities.is_empty()) {
            return Err(format!("unable to load client CA file {}: it holds no certificate", path.display()));
        }
        let serving = Arc::new(serving);
        let tls = server_config(serving.clone(), client_authorities.iter().chain(&proxy_authorities))?;
        let clients = ClientCertificates::new(&client_authorities);
        Ok(Certificates { ca, serving, client_authorities, proxy_authorities, clients, tls })
    }

    /// Takes the certificates that clients show for users, or not.
    pub fn clients(&self) -> &ClientCertificates {
        &self.clients
    }

    /// The authorities whose client certificates count.
    pub fn client_authorities(&self) -> &[CertificateDer<'static>] {
        &self.client_authorities
    }

    /// The authorities of front proxies.
    pub fn proxy_authorities(&self) -> &[CertificateDer<'static>] {
        &self.proxy_authorities
    }

    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. A client may show any certificate and must hold its key; whether it counts is
    /// decided for the request (see [`ClientCertificates`]), so that a wrong one is answered 401 and not with a broken
    /// connection.
    pub fn server_config(&self) -> &Arc<ServerConfig> {
        &self.tls
    }
}

fn server_config<'a>(
    serving: Arc<CertifiedKey>,
    authorities: impl Iterator<Item = &'a CertificateDer<'static>>,
) -> Result<Arc<ServerConfig>, String> {
    let mut provider = aws_lc_rs::default_provider();
    // As Go's servers choose: the cheaper one of those that are strong enough, whatever the client would like best.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let hints = authorities.filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(DistinguishedName::from(certificate.subject().as_raw().to_vec()))
    });
    let verifier = AnyCertificate { hints: hints.collect(), provider: provider.clone() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(serving)));
    config.ignore_client_order = true;
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificates of a file of authorities.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates(&read(path)?).map_err(|e| format!("unable to load client CA file {}: {e}", path.display()))
}

/// The token signing key: the user's, the folder's, or one in the making.
fn token_key(folder: Option<&Path>, options: &Options) -> Result<LazyKey, String> {
    if let Some(path) = &options.signing_key_file {
        return Ok(LazyKey::ready(jwt::read_signing_key(path)?));
    }
    let path = in_folder(folder, files::TOKEN_KEY);
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        // Checking an RSA key takes milliseconds: not while clients wait for the first answer.
        let path = path.clone();
        return Ok(LazyKey::later(move || jwt::read_signing_key(&path)));
    }
    let algorithm = options.token_algorithm;
    let public = in_folder(folder, files::TOKEN_KEYS);
    let make = move || {
        let key = SigningKey::generate(algorithm)?;
        if let Some((private, public)) = path.zip(public) {
            // On disk before the first token is signed with it.
            write(&private, &key.to_pem()?, 0o600)?;
            write(&public, &key.public.to_pem(), 0o644)?;
        }
        Ok(key)
    };
    match algorithm {
        Algorithm::Rs256 => Ok(LazyKey::later(make)),
        _ => Ok(LazyKey::ready(make()?)),
    }
}

/// The keys that only verify: the user's, and the folder's from before the last rotation.
fn verifying_keys(folder: Option<&Path>, options: &Options) -> Result<Vec<jwt::PublicKey>, String> {
    let mut keys = Vec::new();
    for path in &options.verifying_key_files {
        keys.extend(jwt::read_public_keys(path)?);
    }
    let own = in_folder(folder, files::TOKEN_KEYS).filter(|path| options.signing_key_file.is_none() && path.exists());
    if let Some(path) = own {
        keys.extend(jwt::read_public_keys(&path)?);
    }
    Ok(keys)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
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
        shake_trusting(pki, &pki.ca_pem(), name, client)
    }

    /// The same with a client that trusts these authorities.
    fn shake_trusting(
        pki: &Pki,
        trusted: &str,
        name: &str,
        client: Option<(&str, &str)>,
    ) -> Result<Vec<CertificateDer<'static>>, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(trusted).unwrap());
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
        let mut server = ServerConnection::new(pki.certificates().server_config().clone()).unwrap();
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
        let peer = pki.certificates().clients().identify(&chain, now);
        let user = peer.user(now).unwrap().unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("kubernetes-admin", [MASTERS.to_string()].as_slice())
        );
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        assert!(peer.user(now + 2 * authority::LEAF_SECONDS as i64).is_err());

        let other = Pki::in_memory(&quick()).unwrap();
        let (certificate, key) = other.issue_client("kubernetes-admin", Some(MASTERS)).unwrap();
        let chain = shake(&pki, "localhost", Some((&certificate, &key))).unwrap();
        let why = pki.certificates().clients().identify(&chain, now).user(now).unwrap_err();
        assert!(
            why.starts_with("verifying certificate SN=") && why.contains("CN=kubernetes-admin failed: x509: "),
            "{why}"
        );
        let chain = shake(&pki, "localhost", None).unwrap();
        assert_eq!(pki.certificates().clients().identify(&chain, now).user(now), Ok(None));
    }

    /// What `VERIFY_X509_STRICT` of OpenSSL 3 asks of a chain.
    #[test]
    fn certificates_pass_strict_checks() {
        let pki = Pki::in_memory(&quick()).unwrap();
        let now = pki.certificates();
        let der = now.ca.der.clone();
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
        for (der, server) in [(&now.serving.cert[0], true), (&client, false)] {
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
        let id = |pki: &Pki| pki.keys.load().signing.get().unwrap().public.id.clone();
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for (name, wanted) in [("ca.crt", 0o644), ("ca.key", 0o600), ("apiserver.key", 0o600), ("sa.key", 0o600)] {
            assert_eq!(mode(name), wanted, "{name}");
        }
        let again = Pki::open(&folder, &quick()).unwrap();
        assert_eq!(again.ca_pem(), first.ca_pem());
        assert_eq!(again.certificates().serving.cert, first.certificates().serving.cert);
        assert_eq!(id(&again), id(&first));

        let more = Options { names: vec!["new.example.com".into()], ..quick() };
        let renamed = Pki::open(&folder, &more).unwrap();
        assert_ne!(renamed.certificates().serving.cert, first.certificates().serving.cert);
        assert_eq!(shake(&renamed, "new.example.com", None), Ok(Vec::new()));

        let soon = first.certificates().ca.will_do(&read(&folder.join("apiserver.crt")).unwrap(), &[], i64::MAX / 2);
        assert!(soon.unwrap_err().starts_with("the old one has -"));
        fs::remove_file(folder.join("ca.key")).unwrap();
        let error = Pki::open(&folder, &quick()).err().unwrap();
        assert!(error.contains("is there, but its key") && error.ends_with("is missing"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// A client's trust in the server, as `shake` gives it, for each state that a rotation goes through.
    #[test]
    fn an_authority_is_replaced_without_anybody_losing_trust() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let pki = Pki::open(folder, &quick()).unwrap();
        let before = pki.ca_pem();
        let (certificate, key) = pki.issue_client("old", None).unwrap();
        let who = |pki: &Pki, trusted: &str, certificate: &str, key: &str| {
            let now = jiff::Timestamp::now().as_second();
            let chain = shake_trusting(pki, trusted, "localhost", Some((certificate, key)))?;
            let user = pki.certificates().clients().identify(&chain, now).user(now)?;
            Ok::<_, String>(user.map(|user| user.name.clone()).unwrap_or_default())
        };
        assert_eq!(who(&pki, &before, &certificate, &key).as_deref(), Ok("old"));
        assert_eq!(pki.reload(), Ok(false));

        // Twice, so that the newest is two steps away from the first.
        for round in 1..=2 {
            let made = life::rotate_authority(folder).unwrap();
            assert_eq!(pki.reload(), Ok(true));
            assert_eq!(pki.reload(), Ok(false), "what a reload writes is nothing new");
            let all = life::authorities(folder).unwrap();
            assert_eq!((all.len(), &all[0]), (round + 1, &made));
            let (new_certificate, new_key) = pki.issue_client("new", None).unwrap();
            for trusted in [&before, &pki.ca_pem()] {
                assert_eq!(who(&pki, trusted, &certificate, &key).as_deref(), Ok("old"));
                assert_eq!(who(&pki, trusted, &new_certificate, &new_key).as_deref(), Ok("new"));
            }
        }
        // The next start finds it as the running server has it.
        let again = Pki::open(folder, &quick()).unwrap();
        assert!(again.certificates().serving.cert == pki.certificates().serving.cert);

        assert_eq!(life::retire_authorities(folder).unwrap().len(), 2);
        assert_eq!(pki.reload(), Ok(true));
        assert_eq!(life::authorities(folder).unwrap().len(), 1);
        let (new_certificate, new_key) = pki.issue_client("new", None).unwrap();
        assert_eq!(who(&pki, &pki.ca_pem(), &new_certificate, &new_key).as_deref(), Ok("new"));
        assert!(who(&pki, &before, &new_certificate, &new_key).unwrap_err().contains("UnknownIssuer"));
        assert!(who(&pki, &pki.ca_pem(), &certificate, &key).unwrap_err().contains("x509"));
        assert_eq!(life::retire_authorities(folder), Ok(Vec::new()));
    }

    /// A rotation that ends after any of its writes leaves a folder that a server can start with.
    #[test]
    fn a_rotation_that_is_cut_short_is_no_harm() {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(Pki::open(before.path(), &quick()).unwrap());
        let very_first = read(&before.path().join("ca.crt")).unwrap();
        // Not the first rotation: what leads to the very first authority is to be kept, too.
        life::rotate_authority(before.path()).unwrap();
        drop(Pki::open(before.path(), &quick()).unwrap());
        let names = ["ca-cross.crt", "ca.crt", "ca.key", "sa.pub", "sa.key"];
        for name in fs::read_dir(before.path()).unwrap().map(|entry| entry.unwrap().file_name()) {
            fs::copy(before.path().join(&name), after.path().join(&name)).unwrap();
        }
        life::rotate_authority(after.path()).unwrap();
        life::rotate_key(after.path(), None).unwrap();
        for name in names {
            fs::copy(after.path().join(name), before.path().join(name)).unwrap();
            let pki = Pki::open(before.path(), &quick()).unwrap();
            assert_eq!(shake(&pki, "localhost", None), Ok(Vec::new()), "after {name}");
            assert_eq!(shake_trusting(&pki, &very_first, "localhost", None), Ok(Vec::new()), "after {name}");
            let token = pki.keys.load().signing.get().unwrap().sign(&json!({})).unwrap();
            let parsed = jwt::Parsed::parse(&token).unwrap();
            assert_eq!(pki.keys.load().candidates(&parsed.key_id).len(), 1, "after {name}");
        }
    }

    #[test]
    fn a_key_is_replaced_without_a_token_that_counts_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let pki = Pki::open(folder, &quick()).unwrap();
        let sign = || pki.keys.load().signing.get().unwrap().sign(&json!({"iss": "me"})).unwrap();
        let counts = |token: &str| {
            let parsed = jwt::Parsed::parse(token).unwrap();
            pki.keys.load().candidates(&parsed.key_id).into_iter().any(|key| parsed.is_signed_by(key))
        };
        let first = sign();
        let made = life::rotate_key(folder, Some(Algorithm::Es384)).unwrap();
        assert_eq!((pki.reload(), pki.reload(), pki.keys.turn()), (Ok(true), Ok(false), 1));
        let second = sign();
        assert_eq!(jwt::Parsed::parse(&second).unwrap().key_id, made.id);
        assert!(counts(&first) && counts(&second));
        let listed: Vec<_> = life::keys(folder).unwrap().iter().map(|key| (key.algorithm, key.signs)).collect();
        assert_eq!(listed, [(Algorithm::Es384, true), (Algorithm::Es256, false)]);
        assert_eq!(fs::metadata(folder.join("sa.key")).unwrap().permissions().mode() & 0o777, 0o600);

        assert_eq!(life::retire_keys(folder).unwrap().len(), 1);
        assert_eq!((pki.reload(), pki.keys.turn()), (Ok(true), 2));
        assert!(!counts(&first) && counts(&second));
    }

    #[test]
    fn files_that_are_wrong_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let pki = Pki::open(folder, &quick()).unwrap();
        let before = pki.ca_pem();
        for (name, text, want) in [
            ("ca.key", "", "its key cannot be read"),
            ("ca.crt", "x", "certificate and key do not belong together"),
            ("sa.key", "x", "does not contain a valid RSA or ECDSA private key"),
        ] {
            let path = folder.join(name);
            let good = fs::read(&path).unwrap();
            fs::write(&path, text).unwrap();
            let why = pki.reload().unwrap_err();
            assert!(why.contains(want) && why.contains(name.split('.').next().unwrap()), "{why}");
            fs::remove_file(&path).unwrap();
            // A key that is not there (yet) is none to be taken.
            assert_eq!(pki.reload().is_ok(), name == "sa.key");
            fs::write(&path, good).unwrap();
            assert_eq!((pki.reload(), pki.ca_pem() == before), (Ok(false), true));
        }
        let held = files::lock(folder).unwrap();
        assert!(life::rotate_key(folder, None).unwrap_err().ends_with("is being changed by another command"));
        drop(held);
        assert!(life::rotate_authority(&folder.join("none")).unwrap_err().starts_with("cannot open "));
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
        let keys = pki.keys.load();
        let ids: Vec<&str> = keys.all().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, [own.public.id.as_str(), old.public.id.as_str()]);
        assert!(pki.keys.load().signing.get().unwrap().sign(&json!({})).is_ok());
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
