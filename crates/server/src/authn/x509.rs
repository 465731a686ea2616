//! Identity from a client certificate: common name is the user, organisations are the groups. The TLS handshake accepts
//! any certificate and proves only possession of its key; whether it counts is decided here.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CREDENTIAL_ID, User};

/// The subject attribute that carries a user's UID.
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// The authorities whose client certificates count.
#[derive(Clone, Default)]
pub struct ClientCertificates {
    anchors: Vec<TrustAnchor<'static>>,
}

/// Who is at the other end of a connection, decided once per connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    outcome: Outcome,
    /// The certificate counts from here to there, seconds since 1970.
    valid: (i64, i64),
}

#[derive(Clone, Debug, Default)]
enum Outcome {
    #[default]
    NoCertificate,
    Known(Arc<User>),
    Bad(String),
}

impl Peer {
    /// The user, nothing where no certificate was shown, or why the certificate does not count.
    pub fn user(&self, now: i64) -> Result<Option<Arc<User>>, String> {
        match &self.outcome {
            Outcome::NoCertificate => Ok(None),
            Outcome::Bad(why) => Err(why.clone()),
            Outcome::Known(_) if now < self.valid.0 || now > self.valid.1 => {
                Err("x509: certificate has expired or is not yet valid".into())
            }
            Outcome::Known(user) => Ok(Some(user.clone())),
        }
    }
}

impl ClientCertificates {
    /// `authorities` are DER certificates; one that cannot be read is left out with a warning.
    pub fn new<'a>(authorities: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> ClientCertificates {
        let mut anchors = Vec::new();
        for der in authorities {
            match webpki::anchor_from_trusted_cert(der) {
                Ok(anchor) => anchors.push(anchor.to_owned()),
                Err(error) => tracing::warn!("a client certificate authority cannot be used: {error}"),
            }
        }
        ClientCertificates { anchors }
    }

    /// Judges the chain a peer has shown, its own certificate first. `now` is in seconds since 1970.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: i64) -> Peer {
        let Some((leaf, intermediates)) = chain.split_first() else { return Peer::default() };
        let verified = self.verify(leaf, intermediates, now);
        match verified.and_then(|(name, valid)| Ok((user(name, leaf)?, valid))) {
            Ok((Some(user), valid)) => Peer { outcome: Outcome::Known(Arc::new(user)), valid },
            Ok((None, _)) => Peer::default(),
            Err(why) => Peer { outcome: Outcome::Bad(why), valid: (0, 0) },
        }
    }

    /// The common name of a certificate that leads to one of the authorities, and from when to when it counts, seconds since
    /// 1970.
    ///
    /// # Errors
    /// Why it does not.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: i64,
    ) -> Result<(String, (i64, i64)), String> {
        let unreadable = |e: &dyn std::fmt::Display| format!("x509: certificate cannot be read: {e}");
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| unreadable(&e))?;
        let end_entity = webpki::EndEntityCert::try_from(leaf).map_err(|e| unreadable(&e))?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let usage = webpki::KeyUsage::client_auth();
        let name = common_name(&parsed);
        let failed = |why: webpki::Error| {
            let why = match why {
                webpki::Error::UnknownIssuer => "certificate signed by unknown authority".to_string(),
                other => other.to_string(),
            };
            format!("verifying certificate SN={}, CN={name} failed: x509: {why}", parsed.serial)
        };
        end_entity
            .verify_for_usage(algorithms.all, &self.anchors, intermediates, time, usage, None, None)
            .map_err(failed)?;
        let validity = parsed.validity();
        Ok((name, (validity.not_before.timestamp(), validity.not_after.timestamp())))
    }
}

/// The user a certificate names; none without a common name.
fn user(name: String, der: &[u8]) -> Result<Option<User>, String> {
    if name.is_empty() {
        return Ok(None);
    }
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|e| format!("x509: certificate cannot be read: {e}"))?;
    let attributes = || certificate.subject().iter_attributes();
    let mut uids = attributes().filter(|a| a.attr_type().to_id_string() == UID_OID).filter_map(|a| a.as_str().ok());
    let uid = uids.next().unwrap_or_default().to_string();
    if uids.next().is_some() {
        return Err(format!("expected 1 UID, but found multiple: {name}"));
    }
    let groups =
        certificate.subject().iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_string).collect();
    let fingerprint: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    let extra = [(CREDENTIAL_ID.to_string(), vec![format!("X509SHA256={fingerprint}")])].into();
    Ok(Some(User { name, uid, groups, extra }))
}

fn common_name(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().iter_common_name().filter_map(|a| a.as_str().ok()).last().unwrap_or_default().to_string()
}
