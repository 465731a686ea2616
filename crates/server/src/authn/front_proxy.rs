//! Identity from the headers that a front proxy sets. They count only on a connection whose client certificate leads to
//! the proxies' own authority and has a name that is allowed; on any other they are as good as absent.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use rustls_pki_types::CertificateDer;

use super::User;
use super::x509::ClientCertificates;

/// How proxies are set up: `--requestheader-*`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The authority of the proxies' certificates. Without it there are no proxies.
    pub ca_file: Option<std::path::PathBuf>,
    /// Common names of proxies; any where there are none.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_header_prefixes: Vec<String>,
}

/// What counts as a proxy, and which headers say whom it speaks for.
pub struct FrontProxy {
    authorities: ClientCertificates,
    allowed_names: Vec<String>,
    username: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// In lower case, as the names of headers are here.
    extra_prefixes: Vec<String>,
}

/// Whether a proxy is at the other end, decided once per connection.
#[derive(Clone, Debug, Default)]
pub enum Peer {
    #[default]
    NoCertificate,
    /// The certificate counts from here to there, seconds since 1970.
    Proxy {
        valid: (i64, i64),
    },
    Bad(String),
}

impl Options {
    /// # Errors
    /// What is wrong with the flags, in kube-apiserver's words.
    pub fn validate(&self) -> Result<(), String> {
        let lists = [
            ("requestheader-username-headers", &self.username_headers),
            ("requestheader-group-headers", &self.group_headers),
            ("requestheader-extra-headers-prefix", &self.extra_header_prefixes),
            ("requestheader-allowed-names", &self.allowed_names),
            ("requestheader-uid-headers", &self.uid_headers),
        ];
        for (flag, values) in lists {
            if values.iter().any(|value| value.trim().is_empty()) {
                return Err(format!("empty value in \"{flag}\""));
            }
        }
        let names_uid = self.uid_headers.iter().any(|header| header.eq_ignore_ascii_case("x-remote-uid"));
        if !self.uid_headers.is_empty() && !names_uid {
            return Err(
                "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - API \
                 aggregation will not work"
                    .into(),
            );
        }
        Ok(())
    }
}

impl FrontProxy {
    /// # Errors
    /// What is wrong with the flags.
    pub fn new<'a>(
        options: &Options,
        authorities: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<FrontProxy, String> {
        options.validate()?;
        let names = |headers: &[String]| {
            let parse = |header: &String| {
                header.trim().parse().map_err(|_| format!("{header:?} is no name that a header can have"))
            };
            headers.iter().map(parse).collect::<Result<Vec<HeaderName>, String>>()
        };
        Ok(FrontProxy {
            authorities: ClientCertificates::new(authorities),
            allowed_names: options.allowed_names.clone(),
            username: names(&options.username_headers)?,
            uid: names(&options.uid_headers)?,
            groups: names(&options.group_headers)?,
            extra_prefixes: options.extra_header_prefixes.iter().map(|p| p.trim().to_ascii_lowercase()).collect(),
        })
    }

    /// Judges the chain a peer has shown, its own certificate first. `now` is in seconds since 1970.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: i64) -> Peer {
        let Some((leaf, intermediates)) = chain.split_first() else { return Peer::NoCertificate };
        match self.authorities.verify(leaf, intermediates, now) {
            Ok((name, valid)) if self.allowed_names.is_empty() || self.allowed_names.contains(&name) => {
                Peer::Proxy { valid }
            }
            Ok((name, _)) => Peer::Bad(format!("x509: subject with cn={name} is not in the allowed list")),
            Err(why) => Peer::Bad(why),
        }
    }

    /// Whom the headers name; nothing where no proxy is at the other end, or where it names nobody.
    ///
    /// # Errors
    /// Why the certificate is not a proxy's.
    pub fn user(&self, peer: &Peer, headers: &HeaderMap, now: i64) -> Result<Option<Arc<User>>, String> {
        match peer {
            Peer::NoCertificate => Ok(None),
            Peer::Bad(why) => Err(why.clone()),
            Peer::Proxy { valid } if now < valid.0 || now > valid.1 => {
                Err("x509: certificate has expired or is not yet valid".into())
            }
            Peer::Proxy { .. } => Ok(self.named(headers).map(Arc::new)),
        }
    }

    fn named(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[HeaderName]| {
            names.iter().find_map(|name| headers.get(name).map(text).filter(|value| !value.is_empty()))
        };
        let name = first(&self.username)?;
        let groups = self.groups.iter().flat_map(|name| headers.get_all(name)).map(text);
        let mut user = User::new(name, groups.filter(|group| !group.is_empty()));
        user.uid = first(&self.uid).unwrap_or_default();
        for prefix in &self.extra_prefixes {
            for (name, value) in headers {
                if let Some(key) = name.as_str().strip_prefix(prefix.as_str()) {
                    user.extra.entry(unescaped(key)).or_default().push(text(value));
                }
            }
        }
        Some(user)
    }
}

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// A key whose bytes may be written as `%2f`; one that is not written so throughout is taken as it stands.
fn unescaped(key: &str) -> String {
    let mut escapes = key.split('%').skip(1);
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    match escapes.all(is_escape) {
        true => percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned(),
        false => key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn options() -> Options {
        let list = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<String>>();
        Options {
            ca_file: None,
            allowed_names: list(&["front-proxy-client"]),
            username_headers: list(&["X-Remote-User", "X-Other-User"]),
            uid_headers: list(&["X-Remote-Uid"]),
            group_headers: list(&["X-Remote-Group"]),
            extra_header_prefixes: list(&["X-Remote-Extra-"]),
        }
    }

    struct Ca(Issuer<'static, KeyPair>, CertificateDer<'static>);

    impl Ca {
        fn new() -> Ca {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap().der().clone();
            Ca(Issuer::from_ca_cert_der(&certificate, key).unwrap(), certificate)
        }

        fn client(&self, name: &str) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
        }
    }

    #[track_caller]
    fn check(proxy: &FrontProxy, peer: &Peer, headers: &[(&str, &str)], want: &str) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let got = match proxy.user(peer, &map, NOW) {
            Ok(Some(user)) => serde_json::to_string(&*user).unwrap(),
            Ok(None) => "nobody".to_string(),
            Err(why) => why,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn whom_the_headers_of_a_proxy_name() {
        let ca = Ca::new();
        let proxy = FrontProxy::new(&options(), [&ca.1]).unwrap();
        let peer = proxy.identify(&[ca.client("front-proxy-client")], NOW);
        check(&proxy, &peer, &[("X-Remote-User", "ann")], r#"{"username":"ann"}"#);
        check(&proxy, &peer, &[("X-Remote-User", ""), ("x-other-user", "bob")], r#"{"username":"bob"}"#);
        check(&proxy, &peer, &[("X-Remote-Group", "system:masters")], "nobody");
        check(
            &proxy,
            &peer,
            &[
                ("X-Remote-User", "ann"),
                ("X-Remote-User", "root"),
                ("X-Remote-Uid", "7"),
                ("X-Remote-Group", "a"),
                ("X-Remote-Group", ""),
                ("X-Remote-Group", "b"),
                ("X-Remote-Extra-Scopes", "x"),
                ("X-Remote-Extra-Scopes", "y"),
                ("X-Remote-Extra-Acme.com%2fproject", "p"),
                ("X-Remote-Extra-100%", "z"),
            ],
            r#"{"username":"ann","uid":"7","groups":["a","b"],"extra":{"100%":["z"],"acme.com/project":["p"],"scopes":["x","y"]}}"#,
        );
    }

    #[test]
    fn only_a_proxy_names_anybody() {
        let (ca, other) = (Ca::new(), Ca::new());
        let proxy = FrontProxy::new(&options(), [&ca.1]).unwrap();
        let asks = [("X-Remote-User", "root"), ("X-Remote-Group", "system:masters")];
        check(&proxy, &proxy.identify(&[], NOW), &asks, "nobody");
        let named = proxy.identify(&[ca.client("someone")], NOW);
        check(&proxy, &named, &asks, "x509: subject with cn=someone is not in the allowed list");
        let Peer::Bad(why) = proxy.identify(&[other.client("front-proxy-client")], NOW) else { panic!() };
        assert!(why.contains("CN=front-proxy-client failed: x509: "), "{why}");
        let any = FrontProxy::new(&Options { allowed_names: Vec::new(), ..options() }, [&ca.1]).unwrap();
        let named = any.identify(&[ca.client("someone")], NOW);
        check(&any, &named, &asks, r#"{"username":"root","groups":["system:masters"]}"#);
        let late = Peer::Proxy { valid: (0, NOW - 1) };
        check(&proxy, &late, &asks, "x509: certificate has expired or is not yet valid");
    }

    #[test]
    fn flags_that_are_no_headers() {
        let refused = |options: Options| FrontProxy::new(&options, []).err().unwrap_or("taken".into());
        assert_eq!(refused(options()), "taken");
        let empty = Options { group_headers: vec![" ".into()], ..options() };
        assert_eq!(refused(empty), "empty value in \"requestheader-group-headers\"");
        let uid = Options { uid_headers: vec!["X-Uid".into()], ..options() };
        assert!(refused(uid).starts_with("--requestheader-uid-headers is set without"));
        let odd = Options { username_headers: vec!["a b".into()], ..options() };
        assert_eq!(refused(odd), "\"a b\" is no name that a header can have");
    }
}
