//! The ways to prove an identity that are off unless they are asked for, each from its flags to who the server says one is.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use testkit::Server;
use testkit::server::{ADMIN_TOKEN, describe};
use testkit::wire::{Endpoint, Request};

const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const PLAIN: &[&str] = &["--node", "none", "--store", "memory://"];
const WHO_AM_I: &str = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews {}";

fn server(flags: &[&str]) -> Server {
    Server::start(&[PLAIN, flags].concat())
}

/// A certificate authority of the test.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Ca { issuer: Issuer::from_ca_cert_der(certificate.der(), key).unwrap(), pem: certificate.pem() }
    }

    fn write(&self, folder: &Path) -> String {
        let path = folder.join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path.to_str().unwrap().to_string()
    }

    /// A connection to the server that shows a certificate of this authority.
    fn client(&self, server: &Server, name: &str) -> Endpoint {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Endpoint::with_certificate(&server.url, &server.ca(), &certificate.pem(), &key.serialize_pem()).unwrap()
    }
}

/// Who the server says that somebody is, in one line: `NAME [GROUPS] {EXTRA}`, or the refusal.
#[track_caller]
fn who(endpoint: &Endpoint, headers: &[(&str, &str)]) -> String {
    let mut words = WHO_AM_I.splitn(3, ' ');
    let (method, target, body) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let mut all = vec![("host", "localhost"), ("content-type", "application/json")];
    all.extend(headers);
    let request = Request {
        method: method.into(),
        target: target.into(),
        headers: all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        body: Some(body.into()),
    };
    let answer = endpoint.connect(ANSWER_LIMIT).unwrap().exchange(&request).unwrap();
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(review) if answer.head.status == 201 => user(&review["status"]["userInfo"]),
        _ => describe(&answer),
    }
}

fn user(info: &Value) -> String {
    let groups = info["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let mut extra = info["extra"].clone();
    // It names the very certificate or token.
    extra.as_object_mut().map(|extra| extra.remove("authentication.kubernetes.io/credential-id"));
    let extra = extra.as_object().filter(|extra| !extra.is_empty()).map(|extra| format!(" {}", json!(extra)));
    format!("{} {}{}", info["username"].as_str().unwrap_or_default(), groups.join(","), extra.unwrap_or_default())
}

/// The request itself and a TokenReview say the same of a token.
#[track_caller]
fn check_token(server: &Server, token: &str, want: &str, want_review: &str) {
    let authorization = format!("Bearer {token}");
    assert_eq!(who(&server.endpoint, &[("authorization", &authorization)]), want, "{}", server.trouble());
    let ask = format!("POST /apis/authentication.k8s.io/v1/tokenreviews {}", json!({"spec": {"token": token}}));
    let review = server.json("admin", &ask);
    let status = &review["status"];
    let got = match status["authenticated"].as_bool() {
        Some(true) => user(&status["user"]),
        _ => status["error"].as_str().unwrap_or_default().to_string(),
    };
    assert_eq!(got, want_review, "{}", server.trouble());
}

fn bootstrap_secret(id: &str, others: &[(&str, &str)]) -> String {
    let mut data = json!({});
    let own = [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
    for (key, value) in own.iter().chain(others) {
        data[*key] = json!(STANDARD.encode(value));
    }
    let name = format!("bootstrap-token-{id}");
    let secret = json!({"metadata": {"name": name}, "type": "bootstrap.kubernetes.io/token", "data": data});
    format!("POST /api/v1/namespaces/kube-system/secrets {secret}")
}

#[test]
fn bootstrap_tokens_count_as_long_as_their_secret_does() {
    const SECRET: &str = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
    let server = server(&["--enable-bootstrap-token-auth"]);
    let token = "abcdef.0123456789abcdef";
    check_token(&server, token, "401 Unauthorized", "invalid bearer token");
    let groups = [("auth-extra-groups", "system:bootstrappers:worker")];
    server.check("admin", &bootstrap_secret("abcdef", &groups), "201 Secret bootstrap-token-abcdef");
    let known = "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:worker,system:authenticated";
    check_token(&server, token, known, known);
    check_token(&server, "abcdef.0123456789abcdeg", "401 Unauthorized", "invalid bearer token");
    let late = [("expiration", "2020-01-01T00:00:00Z")];
    server.check("admin", &bootstrap_secret("bbbbbb", &late), "201 Secret bootstrap-token-bbbbbb");
    check_token(&server, "bbbbbb.0123456789abcdef", "401 Unauthorized", "invalid bearer token");
    let patch = json!({"data": {"usage-bootstrap-authentication": STANDARD.encode("false")}});
    server.check("admin", &format!("PATCH {SECRET} {patch}"), "200 Secret bootstrap-token-abcdef");
    check_token(&server, token, "401 Unauthorized", "invalid bearer token");
    let patch = json!({"data": {"usage-bootstrap-authentication": STANDARD.encode("true")}});
    server.check("admin", &format!("PATCH {SECRET} {patch}"), "200 Secret bootstrap-token-abcdef");
    check_token(&server, token, known, known);
    assert_eq!(server.ask("admin", &format!("DELETE {SECRET}")).head.status, 200);
    check_token(&server, token, "401 Unauthorized", "invalid bearer token");
}

#[test]
fn bootstrap_tokens_are_off_unless_asked_for() {
    let server = server(&[]);
    server.check("admin", &bootstrap_secret("abcdef", &[]), "201 Secret bootstrap-token-abcdef");
    check_token(&server, "abcdef.0123456789abcdef", "401 Unauthorized", "invalid bearer token");
}

const ROOT: [(&str, &str); 4] = [
    ("x-remote-user", "root"),
    ("x-remote-group", "system:masters"),
    ("x-remote-uid", "0"),
    ("x-remote-extra-scopes", "all"),
];

#[test]
fn a_front_proxy_speaks_for_others_and_nobody_else_does() {
    let (proxies, others) = (Ca::new("proxies"), Ca::new("others"));
    let folder = tempfile::tempdir().unwrap();
    let ca = proxies.write(folder.path());
    let server = server(&[
        &format!("--requestheader-client-ca-file={ca}"),
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-uid-headers=X-Remote-Uid",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]);
    let proxy = proxies.client(&server, "front-proxy-client");
    assert_eq!(who(&proxy, &ROOT), r#"root system:masters,system:authenticated {"scopes":["all"]}"#);
    let ann = [("X-REMOTE-USER", "ann"), ("X-Remote-Group", "a"), ("X-Remote-Group", "b")];
    assert_eq!(who(&proxy, &ann), "ann a,b,system:authenticated");
    // A proxy that names nobody is nobody: its own certificate is not one of a user.
    assert_eq!(who(&proxy, &ROOT[1..]), "401 Unauthorized");
    // The name in the header wins over a token, as the proxy is asked first.
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    assert_eq!(who(&proxy, &[("authorization", &bearer), ("x-remote-user", "ann")]), "ann system:authenticated");
    // Whoever else sends these headers is who they are without them.
    let refused = "403 selfsubjectreviews.authentication.k8s.io is forbidden: User \"system:anonymous\" cannot create \
                   resource \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at the cluster scope";
    assert_eq!(who(&server.endpoint, &ROOT), refused);
    let as_admin = [&ROOT[..], &[("authorization", &bearer)]].concat();
    assert_eq!(who(&server.endpoint, &as_admin), "admin system:masters,system:authenticated");
    assert_eq!(who(&proxies.client(&server, "front-proxy"), &ROOT), "401 Unauthorized");
    assert_eq!(who(&others.client(&server, "front-proxy-client"), &ROOT), "401 Unauthorized");
    assert_eq!(who(&others.client(&server, "x"), &as_admin), "admin system:masters,system:authenticated");
    // A header of nearly that name is another.
    for name in ["x_remote_user", "x-remote-user-", "remote-user", "x-remote-use"] {
        assert_eq!(who(&proxy, &[(name, "root")]), "401 Unauthorized", "{name}");
    }
}

#[test]
fn what_others_need_to_trust_as_this_server_does_is_published() {
    const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let proxies = Ca::new("proxies");
    let folder = tempfile::tempdir().unwrap();
    let ca = proxies.write(folder.path());
    let server = server(&[
        &format!("--requestheader-client-ca-file={ca}"),
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
    ]);
    let published = || {
        let began = std::time::Instant::now();
        loop {
            let answer = server.ask("admin", &format!("GET {PATH}"));
            let map: Value = serde_json::from_slice(&answer.body).unwrap();
            if !map["data"]["client-ca-file"].is_null() {
                return map;
            }
            assert!(began.elapsed() < ANSWER_LIMIT, "{}\n{}", describe(&answer), server.trouble());
            std::thread::yield_now();
        }
    };
    let map = published();
    assert_eq!(map["data"]["requestheader-client-ca-file"], json!(proxies.pem.replace("\r\n", "\n")));
    assert_eq!(map["data"]["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    assert_eq!(map["data"]["requestheader-username-headers"], r#"["X-Remote-User"]"#);
    assert_eq!(map["data"]["requestheader-uid-headers"], "[]");
    let own = std::fs::read_to_string(server.ca()).unwrap();
    assert_eq!(map["data"]["client-ca-file"], json!(own.replace("\r\n", "\n")));
    assert_eq!(server.ask("admin", &format!("DELETE {PATH}")).head.status, 200);
    assert_eq!(published()["data"], map["data"], "it comes back");
    let patch = json!({"data": {"client-ca-file": null}});
    assert_eq!(server.ask("admin", &format!("PATCH {PATH} {patch}")).head.status, 200);
    assert_eq!(published()["data"], map["data"], "it is completed");
}
