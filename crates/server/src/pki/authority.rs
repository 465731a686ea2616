//! Certificate authorities and what they issue. After a rotation there are several: the newest signs, the ones before it are
//! trusted besides, and have vouched for it (a cross certificate), so that who knows only them trusts what it signs.

use api::pem;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::net::IpAddr;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::files::{self, read, write};

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// The life of an authority.
const CA_SECONDS: u64 = 10 * 365 * DAY_SECONDS;
/// The life of the certificates it issues.
pub(super) const LEAF_SECONDS: u64 = 365 * DAY_SECONDS;
/// A serving certificate with less than this left is replaced at start.
const RENEW_SECONDS: i64 = 30 * DAY_SECONDS as i64;
/// Certificates count from this long ago, for clients whose clock is behind.
pub(super) const BACKDATE_SECONDS: u64 = 60 * 60;
/// The name of a cluster's first authority.
const FIRST_NAME: &str = "kubernetes";

pub(super) struct Authority {
    /// All that clients should trust, the signing one first where it was made last. Ends in a newline.
    pub(super) bundle: String,
    pub(super) der: CertificateDer<'static>,
    /// The authorities of before, which are trusted still.
    pub(super) older: Vec<CertificateDer<'static>>,
    /// What leads from the signing one to older ones, in the order that a chain has.
    pub(super) cross: Vec<CertificateDer<'static>>,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// A new authority, with its key not yet put away.
pub(super) struct Made {
    pub(super) authority: Authority,
    pub(super) pem: String,
    pub(super) key_pem: String,
    params: CertificateParams,
}

impl Authority {
    /// The folder's. A new one where there is none, which the folder keeps.
    pub(super) fn load_or_make(folder: Option<&Path>, now: i64) -> Result<Authority, String> {
        let Some(folder) = folder else { return Ok(Made::new(FIRST_NAME)?.authority) };
        let (certificate, key) = (folder.join(files::AUTHORITIES), folder.join(files::AUTHORITY_KEY));
        match (certificate.exists(), key.exists()) {
            (true, true) => Authority::load(folder, now),
            (false, false) => {
                let made = Made::new(FIRST_NAME)?;
                // The key goes first: a certificate alone would look like an authority that lost its key.
                write(&key, &made.key_pem, 0o600)?;
                write(&certificate, &made.pem, 0o644)?;
                Ok(made.authority)
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

    /// The one that is in the folder.
    ///
    /// # Errors
    /// Its files are not there, cannot be read, or are of no use.
    pub(super) fn load(folder: &Path, now: i64) -> Result<Authority, String> {
        let certificates = folder.join(files::AUTHORITIES);
        let key = read(&folder.join(files::AUTHORITY_KEY))?;
        let cross = files::read_if_there(&folder.join(files::CROSS))?.unwrap_or_default();
        Authority::of(&read(&certificates)?, &key, &cross, now).map_err(|e| {
            format!(
                "{}: {e}; restore the file, or remove the folder to start a cluster with a new authority",
                certificates.display()
            )
        })
    }

    fn of(bundle: &str, key: &str, cross: &str, now: i64) -> Result<Authority, String> {
        let mut all = certificates(bundle)?;
        let key = KeyPair::from_pem(key).map_err(|e| format!("its key cannot be read: {e}"))?;
        let has_key = |der: &CertificateDer<'_>| public_key(der).is_some_and(|it| it == key.subject_public_key_info());
        let Some(own) = all.iter().position(has_key) else {
            return Err("certificate and key do not belong together".into());
        };
        let mut cross = certificates(cross)?;
        // In the middle of a rotation the next one is there already, before it.
        cross.drain(..cross.iter().position(has_key).unwrap_or(cross.len()));
        let der = all.remove(own);
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| e.to_string())?;
        if parsed.validity().not_after.timestamp() <= now {
            return Err(format!("the certificate expired at {}", parsed.validity().not_after));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| e.to_string())?;
        Ok(Authority { bundle: bundle.to_string(), der: der.clone(), older: all, cross, issuer })
    }

    /// Every certificate that is trusted, the signing one first.
    pub(super) fn trusted(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.der).chain(&self.older)
    }

    /// A certificate and its key, both PEM.
    pub(super) fn issue(&self, params: &CertificateParams) -> Result<(String, String), String> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| e.to_string())?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Vouches for a new authority: its key and name, in a certificate of this one. PEM, with those of before behind it.
    pub(super) fn vouch_for(&self, made: &Made) -> Result<String, String> {
        let (_, own) = X509Certificate::from_der(&self.der).map_err(|e| e.to_string())?;
        let mut params = made.params.clone();
        let end = u64::try_from(own.validity().not_after.timestamp()).unwrap_or_default();
        params.not_after = params.not_after.min(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end));
        params.use_authority_key_identifier_extension = true;
        let key = made.authority.issuer.key();
        let certificate = params.signed_by(key, &self.issuer).map_err(|e| e.to_string())?;
        Ok(std::iter::once(certificate.der()).chain(&self.cross).map(|der| pem::write("CERTIFICATE", der)).collect())
    }

    /// The serving certificate of the folder where it will do, else a new one.
    pub(super) fn serving(&self, folder: Option<&Path>, names: &[String], now: i64) -> Result<CertifiedKey, String> {
        let paths = folder.map(|folder| (folder.join(files::SERVING), folder.join(files::SERVING_KEY)));
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
        let (mut chain, key_pem) = self.issue(&params)?;
        chain.extend(self.cross.iter().map(|der| pem::write("CERTIFICATE", der)));
        if let Some((certificate, key)) = &paths {
            write(key, &key_pem, 0o600)?;
            write(certificate, &chain, 0o644)?;
        }
        serving_key(&chain, &key_pem)
    }

    pub(super) fn will_do(&self, pem: &str, names: &[String], now: i64) -> Result<String, String> {
        let chain = certificates(pem)?;
        let der = chain.first().ok_or("the old one cannot be read")?;
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
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
        if chain[1..] != self.cross[..] {
            return Err("the old one leads to other authorities".into());
        }
        Ok(pem.to_string())
    }
}

impl Made {
    pub(super) fn new(name: &str) -> Result<Made, String> {
        let mut params = params(name, CA_SECONDS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
        let (key_pem, pem, der) = (key.serialize_pem(), certificate.pem(), certificate.der().clone());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| e.to_string())?;
        let authority = Authority { bundle: pem.clone(), der, older: Vec::new(), cross: Vec::new(), issuer };
        Ok(Made { authority, pem, key_pem, params })
    }

    /// One that takes over. Its name tells it from those before it, also for those who compare names only.
    pub(super) fn successor(now: i64) -> Result<Made, String> {
        // The time is for people; two of one second must differ as well.
        let unique = uuid::Uuid::new_v4().simple().to_string();
        Made::new(&format!("{FIRST_NAME}@{now}-{}", &unique[..8]))
    }
}

/// The certificates of a PEM text.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(text.as_bytes()).map(|der| der.map_err(|e| e.to_string())).collect()
}

fn public_key(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.public_key().raw.to_vec())
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

pub(super) fn leaf(name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, String> {
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

pub(super) fn serving_key(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate).map_err(|e| format!("the certificate cannot be read: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| format!("the key cannot be read: {e}"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|e| format!("certificate and key cannot be used together: {e}"))
}
