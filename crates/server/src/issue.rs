//! Certificates on request, as X.509 in DER: subject, key and names are the request's own bytes, the rest is the terms'.
//! Pure; decides nothing about who gets one.

use api::pem;
use rcgen::{KeyPair, SigningKey};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag};

/// What a certificate says, beside who issued it.
pub struct Terms<'a> {
    /// The subject, DER.
    pub subject: &'a [u8],
    /// The `SubjectPublicKeyInfo`, DER.
    pub public_key: &'a [u8],
    /// The value of the subject alternative names extension, DER.
    pub alternative_names: Option<&'a [u8]>,
    /// The usages of a CertificateSigningRequest, as [`is_usage`] knows them.
    pub usages: &'a [&'a str],
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

/// Bits of the key usage extension, the first is the highest.
const KEY_USAGES: &[(&str, usize)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

const EXTENDED_USAGES: &[(&str, &[u64])] = &[
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// Issues a certificate, PEM.
///
/// # Errors
/// What of the authority cannot be used.
pub fn issue(authority: &[u8], key: &KeyPair, terms: &Terms<'_>) -> Result<String, String> {
    let (_, parsed) = X509Certificate::from_der(authority).map_err(|why| why.to_string())?;
    let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    let algorithm = algorithm(key)?;
    let not_after = terms.not_after.min(parsed.validity().not_after.timestamp());
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|why| why.to_string())?;
    // Positive, and never zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let body = yasna::construct_der(|writer| {
        writer.write_sequence(|body| {
            body.next().write_tagged(Tag::context(0), |version| version.write_u8(2));
            body.next().write_bigint_bytes(&serial, true);
            algorithm(body.next());
            body.next().write_der(parsed.subject().as_raw());
            body.next().write_sequence(|validity| {
                write_time(validity.next(), terms.not_before);
                write_time(validity.next(), not_after);
            });
            body.next().write_der(terms.subject);
            body.next().write_der(terms.public_key);
            body.next().write_tagged(Tag::context(3), |extensions| write_extensions(extensions, terms, key_id));
        });
    });
    let signature = key.sign(&body).map_err(|why| why.to_string())?;
    let certificate = yasna::construct_der(|writer| {
        writer.write_sequence(|whole| {
            whole.next().write_der(&body);
            algorithm(whole.next());
            whole.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    });
    Ok(pem::write("CERTIFICATE", &certificate))
}

/// Writes the algorithm with which a key signs.
fn algorithm(key: &KeyPair) -> Result<impl Fn(DERWriter<'_>) + use<>, String> {
    const KNOWN: [(&rcgen::SignatureAlgorithm, &[u64], bool); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
        (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113549, 1, 1, 11], true),
    ];
    let known = KNOWN.iter().find(|(algorithm, ..)| *algorithm == key.algorithm());
    let (_, oid, with_null) = known.ok_or("the authority's key is of a kind that signs no requests")?;
    Ok(move |writer: DERWriter<'_>| {
        writer.write_sequence(|algorithm| {
            algorithm.next().write_oid(&ObjectIdentifier::from_slice(oid));
            if *with_null {
                algorithm.next().write_null();
            }
        });
    })
}

fn write_extensions(writer: DERWriter<'_>, terms: &Terms<'_>, authority_key_id: Option<&[u8]>) {
    writer.write_sequence(|list| {
        let mut add = |oid: &[u64], critical: bool, value: &[u8]| {
            list.next().write_sequence(|extension| {
                extension.next().write_oid(&ObjectIdentifier::from_slice(oid));
                if critical {
                    extension.next().write_bool(true);
                }
                extension.next().write_bytes(value);
            });
        };
        let bits: Vec<usize> =
            KEY_USAGES.iter().filter(|(usage, _)| terms.usages.contains(usage)).map(|(_, bit)| *bit).collect();
        if let Some(last) = bits.iter().max() {
            let mut bytes = vec![0_u8; last / 8 + 1];
            bits.iter().for_each(|bit| bytes[bit / 8] |= 0x80 >> (bit % 8));
            add(KEY_USAGE, true, &yasna::construct_der(|value| value.write_bitvec_bytes(&bytes, last + 1)));
        }
        let extended: Vec<&[u64]> =
            EXTENDED_USAGES.iter().filter(|(usage, _)| terms.usages.contains(usage)).map(|(_, oid)| *oid).collect();
        if !extended.is_empty() {
            let value = yasna::construct_der(|value| {
                value.write_sequence(|all| {
                    extended.iter().for_each(|oid| all.next().write_oid(&ObjectIdentifier::from_slice(oid)));
                });
            });
            add(EXTENDED_KEY_USAGE, false, &value);
        }
        add(BASIC_CONSTRAINTS, true, &yasna::construct_der(|value| value.write_sequence(|_| {})));
        if let Some(id) = authority_key_id {
            let value = yasna::construct_der(|value| {
                value.write_sequence(|key| {
                    key.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
                });
            });
            add(AUTHORITY_KEY, false, &value);
        }
        if let Some(names) = terms.alternative_names {
            add(ALTERNATIVE_NAMES, false, names);
        }
    });
}

/// UTCTime up to 2049, GeneralizedTime after it.
fn write_time(writer: DERWriter<'_>, seconds: i64) {
    const UTC_TIME: u64 = 23;
    const GENERALIZED_TIME: u64 = 24;
    /// 2050-01-01T00:00:00Z
    const GENERALIZED_FROM: i64 = 2_524_608_000;
    let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    let (tag, text) = match seconds {
        ..GENERALIZED_FROM => (UTC_TIME, at.strftime("%y%m%d%H%M%SZ").to_string()),
        _ => (GENERALIZED_TIME, at.strftime("%Y%m%d%H%M%SZ").to_string()),
    };
    writer.write_tagged_implicit(Tag { tag_class: yasna::TagClass::Universal, tag_number: tag }, |writer| {
        writer.write_bytes(text.as_bytes());
    });
}
