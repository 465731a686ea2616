//! The ways to prove an identity that are off unless they are asked for, each from its flags to who the server says one is.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use testkit::Server;
use testkit::server::{ADMIN_TOKEN, describe};
use testkit::wire::{Endpoint, Request};

use crate::https::Https;

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

/// An issuer that the test itself is.
struct TestIssuer {
    https: Https,
    key: EcdsaKeyPair,
}

impl TestIssuer {
    fn start() -> TestIssuer {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let keys =
            json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "alg": "ES256", "x": x, "y": y}]});
        // It knows its own address only when it is there, and is asked only then.
        let (known, own) = std::sync::mpsc::channel::<String>();
        let own = std::sync::Mutex::new((own, String::new()));
        let https = Https::start(move |path, _| {
            let mut own = own.lock().unwrap();
            if own.1.is_empty() {
                own.1 = own.0.recv().unwrap();
            }
            let url = &own.1;
            match path {
                "/.well-known/openid-configuration" => {
                    (200, json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string())
                }
                "/keys" => (200, keys.to_string()),
                _ => (404, String::new()),
            }
        });
        known.send(https.url.clone()).unwrap();
        TestIssuer { https, key }
    }

    /// A token with these claims besides issuer, audience and end.
    fn token(&self, claims: Value) -> String {
        let mut all = json!({"iss": self.https.url, "aud": "kubernetes", "exp": 4_000_000_000_u64});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "k"})), encode(&all));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn ca(&self) -> &str {
        self.https.ca.to_str().unwrap()
    }
}

const REFUSED: &str = "401 Unauthorized";

#[test]
fn the_tokens_of_an_issuer_by_flags() {
    let issuer = TestIssuer::start();
    let url = &issuer.https.url;
    let server = server(&[
        &format!("--oidc-issuer-url={url}"),
        "--oidc-client-id=kubernetes",
        &format!("--oidc-ca-file={}", issuer.ca()),
        "--oidc-signing-algs=ES256,RS256",
        "--oidc-groups-claim=groups",
        "--oidc-groups-prefix=oidc:",
        "--oidc-required-claim=hd=example.com",
    ]);
    assert_eq!(issuer.https.asked(), 0, "nobody is asked before a token comes");
    let token = issuer.token(json!({"sub": "ann", "groups": ["dev"], "hd": "example.com"}));
    let ann = format!("{url}#ann oidc:dev,system:authenticated");
    for _ in 0..3 {
        check_token(&server, &token, &ann, &ann);
    }
    assert_eq!(issuer.https.asked(), 2, "the discovery document and the keys, once");
    let refusals = [
        (json!({"sub": "ann"}), "oidc: required claim hd not present in ID token"),
        (json!({"sub": "ann", "hd": "b"}), "oidc: required claim hd value does not match. Got = b, want = example.com"),
        (
            json!({"sub": "ann", "hd": "example.com", "aud": "other"}),
            "oidc: verify token: oidc: expected audience \"kubernetes\" got [\"other\"]",
        ),
        (
            json!({"sub": "ann", "exp": 1}),
            "oidc: verify token: oidc: token is expired (Token Expiry: 1970-01-01 00:00:01 +0000 UTC)",
        ),
    ];
    for (claims, why) in refusals {
        check_token(&server, &issuer.token(claims), REFUSED, &format!("[invalid bearer token, {why}]"));
    }
    // What was verified stays so when the issuer is gone, and nobody else notices.
    drop(issuer);
    check_token(&server, &token, &ann, &ann);
    assert_eq!(
        who(&server.endpoint, &[("authorization", &format!("Bearer {ADMIN_TOKEN}"))]),
        "admin system:masters,system:authenticated"
    );
}

#[test]
fn the_tokens_of_issuers_by_a_configuration() {
    let issuer = TestIssuer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authentication.yaml");
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
        "jwt": [
            {
                "issuer": {"url": "https://127.0.0.1:1", "audiences": ["kubernetes"], "certificateAuthority": std::fs::read_to_string(issuer.ca()).unwrap()},
                "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
            },
            {
                "issuer": {
                    "url": issuer.https.url,
                    "audiences": ["kubernetes", "other"],
                    "audienceMatchPolicy": "MatchAny",
                    "certificateAuthority": std::fs::read_to_string(issuer.ca()).unwrap(),
                },
                "claimValidationRules": [{"expression": "claims.?tenant.orValue('') != ''", "message": "who has no tenant has no business here"}],
                "claimMappings": {
                    "username": {"expression": "claims.tenant + ':' + claims.sub"},
                    "groups": {"expression": "claims.roles.split(',')"},
                    "uid": {"claim": "sub"},
                    "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
                },
                "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
            },
        ],
    });
    std::fs::write(&file, configuration.to_string()).unwrap();
    let server = server(&[&format!("--authentication-config={}", file.display())]);
    let token = issuer.token(json!({"sub": "ann", "tenant": "a", "roles": "dev,ops", "aud": ["x", "other"]}));
    let ann = r#"a:ann dev,ops,system:authenticated {"example.com/tenant":["a"]}"#;
    check_token(&server, &token, ann, ann);
    let rule = "claims.?tenant.orValue('') != ''";
    for (claims, why) in [
        (
            json!({"sub": "ann", "roles": ""}),
            "oidc: error evaluating username claim expression: expression 'claims.tenant + ':' + claims.sub' resulted in error: no such key: tenant".to_string(),
        ),
        (
            json!({"sub": "ann", "roles": "", "tenant": ""}),
            format!("oidc: error evaluating claim validation expression: validation expression '{rule}' failed: who has no tenant has no business here"),
        ),
        (
            json!({"sub": "admin", "roles": "system:masters", "tenant": "system"}),
            "oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith('system:')' failed: reserved".to_string(),
        ),
    ] {
        check_token(&server, &issuer.token(claims), REFUSED, &format!("[invalid bearer token, {why}]"));
    }
    let gone = issuer.token(json!({"sub": "ann", "iss": "https://127.0.0.1:1"}));
    let why = "[invalid bearer token, oidc: verify token: oidc: authenticator not initialized]";
    check_token(&server, &gone, REFUSED, why);
    server.check("anonymous", "GET /livez", "200 ok");
    for path in ["/readyz", "/livez/ping", "//livez", "/livez/", "/version", "/api"] {
        assert_eq!(describe(&server.ask("anonymous", &format!("GET {path}"))), REFUSED, "{path}");
    }
}

#[test]
fn a_configuration_that_changes_counts_without_a_restart() {
    let issuer = TestIssuer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authentication.yaml");
    let write = |text: &str| {
        // In one step, as a mounted volume changes.
        let beside = folder.path().join("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    let with = |prefix: &str| {
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": issuer.https.url, "audiences": ["kubernetes"], "certificateAuthority": std::fs::read_to_string(issuer.ca()).unwrap()},
                "claimMappings": {"username": {"claim": "sub", "prefix": prefix}},
            }],
        })
        .to_string()
    };
    write(&with("a:"));
    let server = server(&[&format!("--authentication-config={}", file.display())]);
    let bearer = format!("Bearer {}", issuer.token(json!({"sub": "ann"})));
    let is = |want: &str| {
        let began = std::time::Instant::now();
        while who(&server.endpoint, &[("authorization", &bearer)]) != want {
            assert!(began.elapsed() < ANSWER_LIMIT, "not {want}\n{}", server.trouble());
        }
    };
    is("a:ann system:authenticated");
    write(&with("b:"));
    is("b:ann system:authenticated");
    // One that is wrong changes nothing, and the next right one counts.
    write("kind: nothing");
    is("b:ann system:authenticated");
    write(&with("c:"));
    is("c:ann system:authenticated");
    let none = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"});
    write(&none.to_string());
    is(REFUSED);
}

#[test]
fn without_a_credential_one_may_be_nobody_at_all() {
    let server = server(&["--anonymous-auth=false"]);
    assert_eq!(describe(&server.ask("anonymous", "GET /livez")), REFUSED);
    server.check("admin", "GET /livez", "200 ok");
}

/// What `kemudi up` says of flags it does not start with.
#[track_caller]
fn check_refused(flags: &[&str], want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut up = std::process::Command::new(testkit::command::kemudi());
    up.arg("up").args(PLAIN).args(["--listen", "127.0.0.1:0", "--data"]).arg(folder.path()).args(flags);
    let finished = testkit::command::run(&mut up, "", testkit::command::RUN_LIMIT);
    assert_ne!(finished.code, 0);
    assert!(finished.stderr.contains(want), "{}", finished.stderr);
}

#[test]
fn flags_that_contradict_each_other_or_name_what_is_not_there_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authentication.yaml");
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    std::fs::write(&file, format!("{head}anonymous: {{enabled: false}}\n")).unwrap();
    let config = format!("--authentication-config={}", file.display());
    check_refused(
        &[&config, "--anonymous-auth"],
        "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file",
    );
    check_refused(
        &[&config, "--oidc-client-id=x"],
        "authentication-config file and oidc-* flags are mutually exclusive",
    );
    check_refused(
        &["--oidc-issuer-url=https://a.example"],
        "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set",
    );
    check_refused(
        &["--oidc-issuer-url=http://a.example", "--oidc-client-id=x"],
        "invalid authentication configuration: jwt[0].issuer.url: Invalid value: \"http://a.example\": URL scheme must be https",
    );
    std::fs::write(&file, format!("{head}jwt: [{{isuer: {{}}}}]\n")).unwrap();
    check_refused(&[&config], "strict decoding error: unknown field \"jwt[0].isuer\"");
    check_refused(&["--authentication-config=/nowhere"], "open /nowhere: No such file or directory");
    check_refused(&["--requestheader-client-ca-file=/nowhere"], "/nowhere");
    check_refused(
        &["--authentication-token-webhook-config-file=/nowhere", "--authentication-token-webhook-version=v2"],
        "unsupported authentication webhook version \"v2\", supported versions are \"v1\", \"v1beta1\"",
    );
}

#[test]
fn a_webhook_is_asked_about_what_nobody_else_knows() {
    let webhook = Https::start(|path, body| {
        assert_eq!(path, "/authenticate");
        let review: Value = serde_json::from_str(body).unwrap();
        let status = match review["spec"]["token"].as_str().unwrap() {
            "good" => json!({
                "authenticated": true,
                "user": {"username": "ann", "uid": "7", "groups": ["dev"], "extra": {"a": ["b"]}},
            }),
            "other" => json!({"authenticated": true, "user": {"username": "ann"}, "audiences": ["other"]}),
            "late" => json!({"authenticated": false, "error": "too late"}),
            _ => json!({"authenticated": false}),
        };
        (200, json!({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}).to_string())
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("webhook.kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "w", "cluster": {"server": format!("{}/authenticate", webhook.url), "certificate-authority": webhook.ca}}],
        "users": [{"name": "w", "user": {}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
        "current-context": "w",
    });
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    for version in ["v1", "v1beta1"] {
        let before = webhook.asked();
        let server = server(&[
            &format!("--authentication-token-webhook-config-file={}", file.display()),
            &format!("--authentication-token-webhook-version={version}"),
            "--authentication-token-webhook-cache-ttl=10m",
        ]);
        let ann = r#"ann dev,system:authenticated {"a":["b"]}"#;
        for _ in 0..3 {
            check_token(&server, "good", ann, ann);
        }
        assert_eq!(webhook.asked(), before + 1, "the answer is remembered");
        check_token(&server, "late", REFUSED, "[invalid bearer token, too late]");
        check_token(&server, "bad", REFUSED, "invalid bearer token");
        check_token(&server, "other", REFUSED, "invalid bearer token");
        let asked = webhook.asked();
        assert_eq!(
            who(&server.endpoint, &[("authorization", &format!("Bearer {ADMIN_TOKEN}"))]),
            "admin system:masters,system:authenticated"
        );
        assert_eq!(webhook.asked(), asked, "what is known here is not asked about");
    }
}
