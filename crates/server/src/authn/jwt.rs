//! JSON web tokens: keys, signatures, key ids, the public key set. Knows nothing of what claims mean. A key verifies its own
//! kind of signature and no other, whatever a token's header says; there are none but with public keys.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;

use api::pem;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey as SpkiKey;

/// Base64 as Go reads it: the bits behind the last byte may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
);

/// The signature algorithms: all of them for tokens of other issuers, [`Algorithm::OF_SERVICE_ACCOUNTS`] for own ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
    Rs256,
    Rs384,
    Rs512,
}

impl Algorithm {
    /// All there are, in the order of their names.
    pub const ALL: [Algorithm; 9] = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
    ];
    pub const OF_SERVICE_ACCOUNTS: [Algorithm; 4] =
        [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512];

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
        }
    }

    pub fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn verifier(self) -> &'static dyn signature::VerificationAlgorithm {
        match (self.rsa(), self.ecdsa()) {
            (Some(rsa), _) => rsa,
            (None, ecdsa) => ecdsa.map_or(&signature::ECDSA_P256_SHA256_FIXED, |(_, ecdsa)| ecdsa),
        }
    }

    fn rsa(self) -> Option<&'static signature::RsaParameters> {
        match self {
            Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => None,
            Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        }
    }

    /// The curve besides.
    fn ecdsa(self) -> Option<(&'static str, &'static signature::EcdsaVerificationAlgorithm)> {
        match self {
            Algorithm::Es256 => Some(("P-256", &signature::ECDSA_P256_SHA256_FIXED)),
            Algorithm::Es384 => Some(("P-384", &signature::ECDSA_P384_SHA384_FIXED)),
            Algorithm::Es512 => Some(("P-521", &signature::ECDSA_P521_SHA512_FIXED)),
            _ => None,
        }
    }

    fn signer(self) -> Option<&'static signature::EcdsaSigningAlgorithm> {
        match self {
            Algorithm::Es256 => Some(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => Some(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es512 => Some(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            _ => None,
        }
    }
}

/// A token taken apart: what anybody may have written.
pub struct Compact<'a> {
    /// As the header has it.
    pub algorithm: String,
    pub key_id: String,
    /// The header marks something as critical. Nothing that may be so is known here.
    pub is_critical: bool,
    pub claims: Value,
    /// What is signed.
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Nothing where the text has not the form of a token.
    pub fn parse(token: &'a str) -> Option<Compact<'a>> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        Some(Compact {
            algorithm: header.get("alg")?.as_str()?.to_string(),
            key_id: header.get("kid").and_then(Value::as_str).unwrap_or_default().to_string(),
            is_critical: header.get("crit").is_some(),
            claims: serde_json::from_slice(&decode(payload)?).ok()?,
            message,
            signature: decode(signature)?,
        })
    }
}

/// A token of a service account taken apart, not verified.
pub struct Parsed<'a> {
    pub algorithm: Algorithm,
    pub key_id: String,
    pub claims: Value,
    /// What is signed.
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parsed<'a> {
    /// Nothing where the text is no token that could be verified here.
    pub fn parse(token: &'a str) -> Option<Parsed<'a>> {
        let Compact { algorithm, key_id, is_critical, claims, message, signature } = Compact::parse(token)?;
        let algorithm = Algorithm::named(&algorithm).filter(|a| Algorithm::OF_SERVICE_ACCOUNTS.contains(a))?;
        // An extension marked critical changes what the token means; none is known here.
        (!is_critical).then_some(Parsed { algorithm, key_id, claims, message, signature })
    }

    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.algorithm == self.algorithm && key.key.verify_sig(self.message.as_bytes(), &self.signature).is_ok()
    }
}

fn decode(part: &str) -> Option<Vec<u8>> {
    LENIENT.decode(part).ok()
}

/// A key that verifies tokens.
pub struct PublicKey {
    pub algorithm: Algorithm,
    /// The unpadded base64url form of the SHA-256 of the key's DER.
    pub id: String,
    der: Vec<u8>,
    key: ParsedPublicKey,
}

impl PublicKey {
    /// From the DER of a SubjectPublicKeyInfo: RSA of 2048 bits and more, or the curves P-256, P-384, P-521.
    pub fn from_der(der: &[u8]) -> Result<PublicKey, String> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|e| format!("unreadable public key: {e}"))?;
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
        let algorithm = match (spki.algorithm.algorithm.to_id_string().as_str(), curve.as_deref()) {
            ("1.2.840.113549.1.1.1", _) => Algorithm::Rs256,
            ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => Algorithm::Es256,
            ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => Algorithm::Es384,
            ("1.2.840.10045.2.1", Some("1.3.132.0.35")) => Algorithm::Es512,
            _ => return Err("a public key for tokens must be RSA, or ECDSA on P-256, P-384 or P-521".into()),
        };
        let key = ParsedPublicKey::new(algorithm.verifier(), der).map_err(|e| format!("unusable public key: {e}"))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(der));
        Ok(PublicKey { algorithm, id, der: der.to_vec(), key })
    }

    /// All keys of a PEM file: public keys, private keys (their public half), certificates.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<PublicKey>, String> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|e| format!("unreadable PEM: {e}"))?;
            match kind {
                SectionKind::PublicKey => keys.push(PublicKey::from_der(&der)?),
                SectionKind::Certificate => {
                    let (_, certificate) =
                        X509Certificate::from_der(&der).map_err(|e| format!("unreadable certificate: {e}"))?;
                    keys.push(PublicKey::from_der(certificate.public_key().raw)?);
                }
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    keys.push(SigningKey::from_der(&der)?.public);
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            return Err("data does not contain any valid RSA or ECDSA public keys".into());
        }
        Ok(keys)
    }

    /// The key as a member of a JSON web key set.
    pub fn to_jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let common = |kty| json!({"use": "sig", "kty": kty, "kid": self.id, "alg": self.algorithm.name()});
        let parsed = SubjectPublicKeyInfo::from_der(&self.der).ok().and_then(|(_, spki)| match spki.parsed().ok()? {
            SpkiKey::RSA(rsa) => {
                let unsigned = |bytes: &'_ [u8]| encode(&bytes[bytes.iter().take_while(|b| **b == 0).count()..]);
                let mut jwk = common("RSA");
                jwk["n"] = unsigned(rsa.modulus).into();
                jwk["e"] = unsigned(rsa.exponent).into();
                Some(jwk)
            }
            SpkiKey::EC(point) => {
                // An uncompressed point: 4, then both coordinates at full length.
                let coordinates = point.data().get(1..)?;
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let mut jwk = common("EC");
                jwk["crv"] = match self.algorithm {
                    Algorithm::Es384 => "P-384",
                    Algorithm::Es512 => "P-521",
                    _ => "P-256",
                }
                .into();
                jwk["x"] = encode(x).into();
                jwk["y"] = encode(y).into();
                Some(jwk)
            }
            _ => None,
        });
        parsed.unwrap_or_else(|| common("RSA"))
    }

    pub fn to_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.der)
    }
}

/// A public key of another issuer, from a JSON web key set.
pub struct WebKey {
    pub id: String,
    /// The only algorithm it is for, where its issuer says so.
    algorithm: Option<String>,
    public: WebPublic,
}

enum WebPublic {
    Rsa(signature::RsaPublicKeyComponents<Vec<u8>>),
    Ecdsa { curve: String, point: Vec<u8> },
}

impl WebKey {
    /// # Errors
    /// Why this is no key that verifies signatures here.
    pub fn parse(key: &Value) -> Result<WebKey, String> {
        let text = |name: &str| key[name].as_str().unwrap_or_default();
        let number = |name: &str| {
            let bytes = decode(text(name)).filter(|bytes| !bytes.is_empty());
            bytes.ok_or_else(|| format!("the key {} has no {name}", text("kid")))
        };
        if !matches!(text("use"), "" | "sig") {
            return Err(format!("the key {} is not for signatures", text("kid")));
        }
        let public = match text("kty") {
            "RSA" => {
                let unsigned = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
                WebPublic::Rsa(signature::RsaPublicKeyComponents {
                    n: unsigned(number("n")?),
                    e: unsigned(number("e")?),
                })
            }
            "EC" => {
                // An uncompressed point: 4, then both coordinates.
                let mut point = vec![4];
                point.extend(number("x")?);
                point.extend(number("y")?);
                WebPublic::Ecdsa { curve: text("crv").to_string(), point }
            }
            other => return Err(format!("the key {} is of the kind {other:?}", text("kid"))),
        };
        let algorithm = Some(text("alg").to_string()).filter(|name| !name.is_empty());
        Ok(WebKey { id: text("kid").to_string(), algorithm, public })
    }

    /// Whether this key has signed the token, with this algorithm.
    pub fn verifies(&self, token: &Compact<'_>, algorithm: Algorithm) -> bool {
        if token.algorithm != algorithm.name() || self.algorithm.as_ref().is_some_and(|only| only != algorithm.name()) {
            return false;
        }
        let message = token.message.as_bytes();
        match (&self.public, algorithm.rsa(), algorithm.ecdsa()) {
            (WebPublic::Rsa(key), Some(rsa), _) => key.verify(rsa, message, &token.signature).is_ok(),
            (WebPublic::Ecdsa { curve, point }, _, Some((wanted, ecdsa))) if curve == wanted => {
                signature::UnparsedPublicKey::new(ecdsa, point).verify(message, &token.signature).is_ok()
            }
            _ => false,
        }
    }
}

/// A key that signs tokens.
pub struct SigningKey {
    pub public: PublicKey,
    private: Private,
}

enum Private {
    Rsa(rsa::KeyPair),
    Ecdsa(EcdsaKeyPair),
}

impl SigningKey {
    /// Makes a key. RSA takes about 100 ms, see [`LazyKey`]; the others less than 1 ms.
    pub fn generate(algorithm: Algorithm) -> Result<SigningKey, String> {
        let private = match algorithm.signer() {
            None => Private::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(|e| e.to_string())?),
            Some(curve) => Private::Ecdsa(EcdsaKeyPair::generate(curve).map_err(|e| e.to_string())?),
        };
        SigningKey::of(private)
    }

    /// The first private key of a PEM text: PKCS#8, PKCS#1 or SEC1.
    pub fn from_pem(text: &[u8]) -> Result<SigningKey, String> {
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = section.map_err(|e| format!("unreadable PEM: {e}"))?;
            if matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) {
                return SigningKey::from_der(&der);
            }
        }
        Err("data does not contain a valid RSA or ECDSA private key".into())
    }

    fn from_der(der: &[u8]) -> Result<SigningKey, String> {
        if let Ok(pair) = rsa::KeyPair::from_pkcs8(der).or_else(|_| rsa::KeyPair::from_der(der)) {
            return SigningKey::of(Private::Rsa(pair));
        }
        for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512] {
            let Some(curve) = algorithm.signer() else { continue };
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der) {
                return SigningKey::of(Private::Ecdsa(pair));
            }
        }
        Err("a signing key must be RSA of 2048 bits or more, or ECDSA on P-256, P-384 or P-521".into())
    }

    fn of(private: Private) -> Result<SigningKey, String> {
        let der = match &private {
            Private::Rsa(pair) => pair.public_key().as_der(),
            Private::Ecdsa(pair) => pair.public_key().as_der(),
        };
        let der = der.map_err(|e| format!("unusable signing key: {e}"))?;
        Ok(SigningKey { public: PublicKey::from_der(der.as_ref())?, private })
    }

    /// The PKCS#8 form.
    pub fn to_pem(&self) -> Result<String, String> {
        let der = match &self.private {
            Private::Rsa(pair) => pair.as_der().map(|der| der.as_ref().to_vec()),
            Private::Ecdsa(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
        };
        der.map(|der| pem::write("PRIVATE KEY", &der)).map_err(|e| format!("the signing key cannot be written: {e}"))
    }

    /// The signed token of a set of claims.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        self.sign_as(self.public.algorithm, &self.public.id, claims)
    }

    /// The same with any algorithm of the key's kind, and any key id.
    pub fn sign_as(&self, algorithm: Algorithm, key_id: &str, claims: &Value) -> Result<String, String> {
        let header = json!({"alg": algorithm.name(), "kid": key_id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", encode(&header), encode(claims));
        let signature = match &self.private {
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let encoding: &dyn signature::RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                pair.sign(encoding, &SystemRandom::new(), token.as_bytes(), &mut signature).map(|()| signature)
            }
            Private::Ecdsa(pair) => pair.sign(&SystemRandom::new(), token.as_bytes()).map(|s| s.as_ref().to_vec()),
        };
        let signature = signature.map_err(|e| format!("failed to sign token: {e}"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// A signing key that may still have to be made: a thread makes it once it is told to, or asked for the key; who asks waits for it,
/// the owner joins it.
pub struct LazyKey {
    made: OnceLock<Result<Arc<SigningKey>, String>>,
    maker: Mutex<Maker>,
}

type Make = Box<dyn FnOnce() -> Result<SigningKey, String> + Send>;

enum Maker {
    /// To be told to begin.
    Waits(Make),
    Works(JoinHandle<Result<SigningKey, String>>),
    /// There is no thread, and why.
    Failed(String),
    /// What it made is known.
    Gone,
}

impl LazyKey {
    pub fn ready(key: SigningKey) -> LazyKey {
        LazyKey { made: Ok(Arc::new(key)).into(), maker: Mutex::new(Maker::Gone) }
    }

    /// Runs `make` on a thread of its own, later: see [`LazyKey::begin`].
    pub fn later(make: impl FnOnce() -> Result<SigningKey, String> + Send + 'static) -> LazyKey {
        LazyKey { made: OnceLock::new(), maker: Mutex::new(Maker::Waits(Box::new(make))) }
    }

    /// Has the key made, where nobody has yet. Does not wait.
    pub fn begin(&self) {
        let mut maker = self.maker();
        *maker = match std::mem::replace(&mut *maker, Maker::Gone) {
            Maker::Waits(make) => match std::thread::Builder::new().name("signing-key".into()).spawn(make) {
                Ok(works) => Maker::Works(works),
                Err(error) => Maker::Failed(format!("no thread for the signing key: {error}")),
            },
            begun => begun,
        };
    }

    fn maker(&self) -> MutexGuard<'_, Maker> {
        self.maker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The key; waits up to about 100 ms when it is asked for right after the start.
    pub fn get(&self) -> Result<&Arc<SigningKey>, String> {
        let made = self.made.get_or_init(|| {
            self.begin();
            self.join()
        });
        made.as_ref().map_err(Clone::clone)
    }

    fn join(&self) -> Result<Arc<SigningKey>, String> {
        let not_made = || Err("the signing key was not made".into());
        match std::mem::replace(&mut *self.maker(), Maker::Gone) {
            Maker::Works(works) => works.join().map_or_else(|_| not_made(), |key| key.map(Arc::new)),
            Maker::Failed(why) => Err(why),
            Maker::Waits(_) | Maker::Gone => not_made(),
        }
    }
}

impl Drop for LazyKey {
    fn drop(&mut self) {
        if self.made.get().is_none() {
            let _ = self.join();
        }
    }
}

/// The key that signs and all keys that verify.
pub struct Keys {
    pub signing: LazyKey,
    /// Keys that only verify: of servers before this one, or next to it.
    pub others: Vec<PublicKey>,
}

impl Keys {
    /// The keys a token with this key id may be signed with; all of them where it has none.
    pub fn candidates(&self, key_id: &str) -> Vec<&PublicKey> {
        self.all().filter(|key| key_id.is_empty() || key.id == key_id).collect()
    }

    /// Every verifying key once, the signing one first.
    pub fn all(&self) -> impl Iterator<Item = &PublicKey> {
        let signing = self.signing.get().ok().map(|key| &key.public);
        let id = signing.map(|key| key.id.as_str());
        signing.into_iter().chain(self.others.iter().filter(move |key| Some(key.id.as_str()) != id))
    }
}

/// Reads a signing key file; the error names the file.
pub fn read_signing_key(path: &Path) -> Result<SigningKey, String> {
    let text = std::fs::read(path).map_err(|e| format!("error reading private key file {}: {e}", path.display()))?;
    SigningKey::from_pem(&text).map_err(|e| format!("error reading private key file {}: {e}", path.display()))
}

/// Reads the public keys of a file; the error names the file.
pub fn read_public_keys(path: &Path) -> Result<Vec<PublicKey>, String> {
    let text = std::fs::read(path).map_err(|e| format!("error reading public key file {}: {e}", path.display()))?;
    PublicKey::all_from_pem(&text).map_err(|e| format!("error reading public key file {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_signs_it_verifies_and_only_so() {
        let keys: Vec<SigningKey> = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512]
            .map(|algorithm| SigningKey::generate(algorithm).unwrap())
            .into();
        for key in &keys {
            let again = SigningKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
            assert_eq!(again.public.id, key.public.id);
            let public = &PublicKey::all_from_pem(key.public.to_pem().as_bytes()).unwrap()[0];
            assert_eq!(public.id, key.public.id);
            let token = again.sign(&json!({"iss": "me"})).unwrap();
            assert_eq!(Parsed::parse(&token).unwrap().claims["iss"], "me");
            for other in &keys {
                let parsed = Parsed::parse(&token).unwrap();
                assert_eq!(parsed.is_signed_by(&other.public), other.public.id == key.public.id);
            }
            let mut longer = token.clone();
            longer.push('x');
            assert!(!Parsed::parse(&longer).is_some_and(|parsed| parsed.is_signed_by(public)));
        }
    }

    #[track_caller]
    fn check(header: &str, want: bool) {
        let token = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"), "c2ln");
        assert_eq!(Parsed::parse(&token).is_some(), want, "{header}");
    }

    #[test]
    fn algorithms_that_prove_nothing_are_not_read() {
        check(r#"{"alg":"RS256","kid":"k"}"#, true);
        check(r#"{"alg":"ES512"}"#, true);
        check(r#"{"alg":"none"}"#, false);
        check(r#"{"alg":"HS256"}"#, false);
        check(r#"{"alg":"RS256","crit":["b64"]}"#, false);
        check(r#"{}"#, false);
        check("x", false);
    }

    #[test]
    fn public_keys_as_web_keys() {
        let rsa = SigningKey::generate(Algorithm::Rs256).unwrap().public.to_jwk();
        assert_eq!(rsa["e"], "AQAB");
        assert_eq!(rsa["n"].as_str().unwrap().len(), 342);
        for (algorithm, curve, length) in
            [(Algorithm::Es256, "P-256", 43), (Algorithm::Es384, "P-384", 64), (Algorithm::Es512, "P-521", 88)]
        {
            let jwk = SigningKey::generate(algorithm).unwrap().public.to_jwk();
            assert_eq!((jwk["crv"].as_str(), jwk["x"].as_str().map(str::len)), (Some(curve), Some(length)));
            let keys: Vec<&String> = jwk.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["use", "kty", "kid", "alg", "crv", "x", "y"]);
        }
    }

    #[test]
    fn a_key_in_the_making_is_waited_for() {
        let key = LazyKey::later(|| SigningKey::generate(Algorithm::Es256));
        assert!(key.get().unwrap().sign(&json!({})).is_ok());
        assert!(LazyKey::later(|| Err("disk full".into())).get().is_err_and(|e| e == "disk full"));
    }
}
