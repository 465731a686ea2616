//! The life of a cluster's keys and authorities, as changes of its folder: what there is, a new one that takes over, the old ones
//! let go. A server that runs follows the folder; one that does not finds it so at its next start. Every state in between,
//! too, is one that a server can start with. Talks to no server.

use api::pem;
use std::path::Path;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Authority, BACKDATE_SECONDS, Made};
use super::files::{self, lock, read, read_if_there, write};
use crate::authn::jwt::{Algorithm, PublicKey, SigningKey};

/// A certificate authority of a cluster. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityInfo {
    pub name: String,
    /// The SHA-256 of the certificate in hexadecimal digits, as `openssl x509 -fingerprint -sha256` has it.
    pub fingerprint: String,
    pub made_at: i64,
    pub expires_at: i64,
    /// It is the one that signs. The others are only trusted.
    pub signs: bool,
}

/// A key of service account tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// As the header of a token has it, and the key set of OpenID Connect.
    pub id: String,
    pub algorithm: Algorithm,
    /// It is the one that signs. The others only verify.
    pub signs: bool,
}

/// The authorities of a cluster, the one that signs first.
///
/// # Errors
/// The folder holds none, or what it holds cannot be read.
pub fn authorities(folder: &Path) -> Result<Vec<AuthorityInfo>, String> {
    let authority = load(folder)?;
    let infos = authority.trusted().enumerate().map(|(at, der)| info(der, at == 0));
    infos.collect()
}

/// Makes a new authority that signs from now on. The ones before it stay trusted, until [`retire_authorities`].
///
/// # Errors
/// The folder holds none, somebody else is changing it, or it cannot be written.
pub fn rotate_authority(folder: &Path) -> Result<AuthorityInfo, String> {
    let _lock = lock(folder)?;
    let old = load(folder)?;
    let new = Made::successor(now())?;
    // In this order: a certificate whose key is not there yet is only trusted; a key whose certificate is not there is an error.
    write(&folder.join(files::CROSS), &old.vouch_for(&new)?, 0o644)?;
    let older = old.trusted().map(|der| pem::write("CERTIFICATE", der));
    let bundle: String = std::iter::once(pem::write("CERTIFICATE", &new.authority.der)).chain(older).collect();
    write(&folder.join(files::AUTHORITIES), &bundle, 0o644)?;
    write(&folder.join(files::AUTHORITY_KEY), &new.key_pem, 0o600)?;
    info(&new.authority.der, true)
}

/// Trusts the authority that signs and no other. Answers which ones were let go.
///
/// # Errors
/// As [`rotate_authority`].
pub fn retire_authorities(folder: &Path) -> Result<Vec<AuthorityInfo>, String> {
    let _lock = lock(folder)?;
    let authority = load(folder)?;
    let gone: Vec<AuthorityInfo> = authority.older.iter().map(|der| info(der, false)).collect::<Result<_, _>>()?;
    if !gone.is_empty() {
        write(&folder.join(files::AUTHORITIES), &pem::write("CERTIFICATE", &authority.der), 0o644)?;
        let cross = folder.join(files::CROSS);
        std::fs::remove_file(&cross).or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(format!("cannot remove {}: {e}", cross.display())),
        })?;
    }
    Ok(gone)
}

/// The keys of service account tokens, the one that signs first.
///
/// # Errors
/// The folder holds none, or what it holds cannot be read.
pub fn keys(folder: &Path) -> Result<Vec<KeyInfo>, String> {
    let (signing, others) = load_keys(folder)?;
    let info = |key: &PublicKey, signs| KeyInfo { id: key.id.clone(), algorithm: key.algorithm, signs };
    Ok(std::iter::once(info(&signing.public, true)).chain(others.iter().map(|key| info(key, false))).collect())
}

/// When the key that signs was made, in seconds since 1970.
pub fn key_made_at(folder: &Path) -> Option<i64> {
    files::written_at(&folder.join(files::TOKEN_KEY))
}

/// Makes a new key that signs from now on, of the given algorithm or of the one before it. The ones before it go on
/// verifying, until [`retire_keys`].
///
/// # Errors
/// The folder holds none, somebody else is changing it, or it cannot be written.
pub fn rotate_key(folder: &Path, algorithm: Option<Algorithm>) -> Result<KeyInfo, String> {
    let _lock = lock(folder)?;
    let (old, others) = load_keys(folder)?;
    let new = SigningKey::generate(algorithm.unwrap_or(old.public.algorithm))?;
    // It verifies before it signs.
    let all = [&new.public, &old.public].into_iter().chain(&others);
    write(&folder.join(files::TOKEN_KEYS), &all.map(PublicKey::to_pem).collect::<String>(), 0o644)?;
    write(&folder.join(files::TOKEN_KEY), &new.to_pem()?, 0o600)?;
    Ok(KeyInfo { id: new.public.id.clone(), algorithm: new.public.algorithm, signs: true })
}

/// Verifies with the key that signs and no other. Answers which ones were let go.
///
/// # Errors
/// As [`rotate_key`].
pub fn retire_keys(folder: &Path) -> Result<Vec<KeyInfo>, String> {
    let _lock = lock(folder)?;
    let (signing, others) = load_keys(folder)?;
    if !others.is_empty() {
        write(&folder.join(files::TOKEN_KEYS), &signing.public.to_pem(), 0o644)?;
    }
    Ok(others.iter().map(|key| KeyInfo { id: key.id.clone(), algorithm: key.algorithm, signs: false }).collect())
}

/// The key that signs, and the ones that only verify.
fn load_keys(folder: &Path) -> Result<(SigningKey, Vec<PublicKey>), String> {
    let path = folder.join(files::TOKEN_KEY);
    let text = read(&path)?;
    let signing = SigningKey::from_pem(text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
    let path = folder.join(files::TOKEN_KEYS);
    let mut others = match read_if_there(&path)? {
        Some(text) => PublicKey::all_from_pem(text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?,
        None => Vec::new(),
    };
    others.retain(|key| key.id != signing.public.id);
    Ok((signing, others))
}

fn load(folder: &Path) -> Result<Authority, String> {
    Authority::load(folder, now())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn info(der: &[u8], signs: bool) -> Result<AuthorityInfo, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let bytes: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(AuthorityInfo {
        name: name.unwrap_or_default().to_string(),
        fingerprint: bytes.join(":"),
        made_at: certificate.validity().not_before.timestamp() + BACKDATE_SECONDS as i64,
        expires_at: certificate.validity().not_after.timestamp(),
        signs,
    })
}
