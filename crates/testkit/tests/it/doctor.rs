//! `kemudi doctor` in environments that are broken in one way each: it names what is wrong, exits with 1 where nothing
//! would work, and takes less than a second in every one of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use testkit::Server;
use testkit::command::{Finished, RUN_LIMIT, kemudi, run};

/// An ordinary user, for files that are not to be read.
const ORDINARY: u32 = 12345;
/// What the doctor may take, but for the time in which this machine starts and ends any program.
const TIME_MAX: Duration = Duration::from_secs(1);
/// How often it may try, as a busy machine may hold it up.
const TRIES: usize = 4;

/// A pod's environment on this machine: the folder of its account, and its variables.
struct Environment {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
    as_user: Option<u32>,
    /// The name server that it has instead of this machine's; only root can give it one.
    resolver: Option<&'static str>,
}

impl Environment {
    /// One in which everything is as it should be.
    fn sound(server: &Server, token: &str) -> Environment {
        let folder = tempfile::tempdir().expect("a folder");
        // Who has no rights looks into it as well.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("our own folder");
        let data = folder.path().join("..2026_01_01_00_00_00.1");
        std::fs::create_dir(&data).expect("a folder of our own");
        symlink(data.file_name().expect("a name"), folder.path().join("..data")).expect("a link");
        let ca = std::fs::read(server.ca()).expect("the server's CA");
        for (name, content) in [("token", token.as_bytes()), ("ca.crt", &ca), ("namespace", b"default")] {
            std::fs::write(folder.path().join(name), content).expect("a folder of our own");
        }
        let address = server.address();
        let variables = [
            ("KUBERNETES_SERVICE_HOST", address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", address.port().to_string()),
            ("KEMUDI_SERVICEACCOUNT_DIR", folder.path().display().to_string()),
            ("HOME", folder.path().display().to_string()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        Environment { folder, variables, as_user: None, resolver: None }
    }

    fn set(mut self, name: &str, value: impl ToString) -> Environment {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    fn unset(mut self, name: &str) -> Environment {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Environment {
        std::fs::write(self.folder.path().join(name), content).expect("a folder of our own");
        self
    }

    fn without(self, name: &str) -> Environment {
        std::fs::remove_file(self.folder.path().join(name)).expect("it is there");
        self
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn doctor(&self, flags: &[&str]) -> Finished {
        let mut doctor = match self.resolver {
            None => Command::new(kemudi()),
            Some(address) => {
                let file = self.folder.path().join("resolv.conf");
                std::fs::write(&file, format!("nameserver {address}\n")).expect("a folder of our own");
                let mut alone = Command::new("unshare");
                alone.args(["--mount", "sh", "-c", "mount --bind $0 /etc/resolv.conf && exec \"$@\""]);
                alone.arg(file).arg(kemudi());
                alone
            }
        };
        doctor.arg("doctor").args(flags).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        doctor.current_dir(self.folder.path());
        if let Some(user) = self.as_user {
            doctor.uid(user).gid(user);
        }
        run(&mut doctor, "", RUN_LIMIT)
    }

    /// What the doctor says of it: `code` is how it exits, and `want` the beginning of the step that tells, with words
    /// that must be in what it says, behind ` .. `.
    #[track_caller]
    fn check(self, code: i32, want: &str) {
        let mut took = Duration::MAX;
        for _ in 0..TRIES {
            took = took.min(self.judge(code, want));
            if took < TIME_MAX {
                return;
            }
        }
        panic!("{want}: took {took:?}");
    }

    /// How long it took, without what starting a program takes here and now.
    #[track_caller]
    fn judge(&self, code: i32, want: &str) -> Duration {
        let began = Instant::now();
        self.doctor(&["--help"]).ok();
        let start = began.elapsed();
        let began = Instant::now();
        let seen = self.doctor(&[]).exits(code);
        let took = began.elapsed();
        let (step, words) = want.split_once(" .. ").expect("STEP .. WORDS");
        let told = seen.stdout.split_inclusive('\n').skip_while(|line| !line.starts_with(step));
        let told: String = told.take(2).collect();
        assert!(told.contains(words), "{want}\n{}", seen.stdout);
        let failures = seen.stdout.lines().filter(|line| line.starts_with("FAIL"));
        assert_eq!(failures.count() > 0, code != 0, "{}", seen.stdout);
        took.saturating_sub(start)
    }
}

/// A token like this one with other claims; its signature is no good any more.
fn with_claims(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut parts = token.split('.');
    let (head, claims) = (parts.next().expect("a head"), parts.next().expect("claims"));
    let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON");
    change(&mut claims);
    let signature = parts.next().expect("a signature");
    format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn token(server: &Server, account: &str, spec: Value) -> String {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let issued = server.json("admin", &format!("POST {path} {}", json!({ "spec": spec })));
    issued["status"]["token"].as_str().expect("a token").to_owned()
}

fn account(server: &Server, name: &str) {
    server.json(
        "admin",
        &format!("POST /api/v1/namespaces/default/serviceaccounts {}", json!({"metadata": {"name": name}})),
    );
}

#[test]
fn what_is_broken_is_named() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    account(&server, "robot");
    let good = token(&server, "robot", json!({}));
    let sound = || Environment::sound(&server, &good);
    let with_token = |token: &str| Environment::sound(&server, token);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();

    // Nothing is broken: who may do nothing is told so, and that is no failure.
    sound().check(0, "note  rights .. may not list pods in namespace default");

    // Variables.
    sound().unset("KUBERNETES_SERVICE_PORT").check(1, "FAIL  environment .. KUBERNETES_SERVICE_PORT is not set");
    sound().unset("KUBERNETES_SERVICE_HOST").check(1, "FAIL  environment .. KUBERNETES_SERVICE_HOST is not set");
    sound().set("KUBERNETES_SERVICE_PORT", "https").check(1, "FAIL  configuration .. is no port number");
    sound().set("KUBERNETES_SERVICE_PORT", "8080").check(1, "note  environment .. plain HTTP to port 8080");
    sound().set("KUBERNETES_SERVICE_HOST", "[::1]").check(1, "note  environment .. without brackets");
    sound().set("HTTPS_PROXY", "http://proxy:3128").check(0, "note  proxy .. NO_PROXY does not have 127.0.0.1");
    sound().set("KUBECONFIG", "/nowhere/config").check(0, "note  environment .. which is no file");
    let broken = sound().file("config", "{{{");
    let path = broken.path("config");
    broken.set("KUBECONFIG", path).check(1, "FAIL  configuration .. did not find expected node content");

    // Files.
    sound().without("token").check(1, "FAIL  token .. automountServiceAccountToken");
    sound().file("token", "").check(1, "FAIL  token .. is empty");
    sound().file("token", format!("{good}\n")).check(0, "note  token .. ends in a line break");
    sound().without("..data").check(0, "note  token .. nobody renews it");
    sound().without("ca.crt").check(1, "FAIL  ca.crt .. automountServiceAccountToken");
    sound().file("ca.crt", "no certificate").check(1, "FAIL  configuration .. holds no certificate");
    sound().without("namespace").check(0, "note  namespace .. taken from the token");
    if rustix::process::geteuid().is_root() {
        let mut unreadable = sound();
        let token = unreadable.folder.path().join("token");
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("our own file");
        chown(&token, Some(0), Some(0)).expect("root may");
        unreadable.as_user = Some(ORDINARY);
        unreadable.check(1, "FAIL  token .. securityContext.fsGroup");
    }

    // What a token says, and what has become of what it stands for.
    let expired = with_claims(&good, |claims| claims["exp"] = json!(now - 7200));
    with_token(&expired).check(1, "FAIL  credentials .. expired 120m ago");
    let early = with_claims(&good, |claims| claims["iat"] = json!(now + 3600));
    with_token(&early).check(1, "FAIL  credentials .. clock is behind");
    let stale = with_claims(&good, |claims| claims["kubernetes.io"]["warnafter"] = json!(now - 60));
    with_token(&stale).check(1, "note  credentials .. should have been renewed");
    with_token("s3cret").check(1, "FAIL  identity .. mistyped");
    with_token(&token(&server, "robot", json!({"audiences": ["vault"]}))).check(1, "FAIL  identity .. is for vault");
    let foreign = Server::start(&["--node", "none", "--store", "memory://"]);
    account(&foreign, "robot");
    with_token(&token(&foreign, "robot", json!({}))).check(1, "FAIL  identity .. another cluster signed it");
    account(&server, "leaver");
    let revoked = token(&server, "leaver", json!({}));
    server.json("admin", "DELETE /api/v1/namespaces/default/serviceaccounts/leaver");
    with_token(&revoked).check(1, "FAIL  identity .. account system:serviceaccount:default:leaver was deleted");
    let spec = json!({"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"metadata": {"name": "gone"}, "spec": spec});
    let pod = server.json("admin", &format!("POST /api/v1/namespaces/default/pods {pod}"));
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "gone", "uid": pod["metadata"]["uid"]});
    let bound = token(&server, "robot", json!({ "boundObjectRef": bound }));
    server.json("admin", "DELETE /api/v1/namespaces/default/pods/gone?gracePeriodSeconds=0");
    with_token(&bound).check(1, "FAIL  identity .. its pod gone or its account");

    // The way to the server.
    sound().set("KUBERNETES_SERVICE_HOST", "no-such-host.invalid").check(1, "FAIL  name .. check the spelling");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    sound().set("KUBERNETES_SERVICE_PORT", closed.port()).check(1, "FAIL  connection .. nothing listens there");
    sound().file("ca.crt", std::fs::read(foreign.ca()).expect("its CA")).check(1, "FAIL  server .. CA of this cluster");
    let plain = answering(|stream| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")));
    sound().set("KUBERNETES_SERVICE_PORT", plain).check(1, "FAIL  server .. HTTPS");
    let hanging_up = answering(|_| {});
    sound().set("KUBERNETES_SERVICE_PORT", hanging_up).check(1, "FAIL  server .. is this an HTTPS port?");
    let elsewhere = relay("127.0.0.9:0", server.address());
    let there = sound().set("KUBERNETES_SERVICE_HOST", "127.0.0.9").set("KUBERNETES_SERVICE_PORT", elsewhere);
    there.check(1, "FAIL  server .. 127.0.0.9");
}

/// Nobody is waited for longer than there is time, and the step that hit the limit is named.
#[test]
fn who_is_silent_is_named() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    account(&server, "robot");
    let good = token(&server, "robot", json!({}));
    let to = |port: u16| Environment::sound(&server, &good).set("KUBERNETES_SERVICE_PORT", port);
    let fake = |speaks: Speaks| {
        let (port, ca) = fake(speaks);
        to(port).file("ca.crt", ca)
    };

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let unheard = listener.local_addr().expect("an address").port();
    to(unheard).check(1, "FAIL  server .. the TLS handshake was not over in the 800ms");
    to(unheard).check(1, "FAIL  server .. kemudi doctor --timeout 5s");
    let (full, _waiting) = dropping();
    to(full).check(1, "FAIL  connection .. no answer in the 800ms that all steps may take");
    fake(Speaks { of: |_| None, ..Speaks::SOUND }).check(1, "FAIL  server .. no answer to /version");
    let only_version = |path: &str| (path == "/version").then_some("{\"gitVersion\":\"v1.37.2\"}");
    fake(Speaks { of: only_version, ..Speaks::SOUND }).check(1, "FAIL  identity .. no answer to who we are");
    if rustix::process::geteuid().is_root() {
        const SILENT: &str = "127.0.0.77";
        let _silent = std::net::UdpSocket::bind((SILENT, 53)).expect("an address of this test alone");
        let mut asking = to(443).set("KUBERNETES_SERVICE_HOST", "api.example.com");
        asking.resolver = Some(SILENT);
        asking.check(1, "FAIL  name .. no answer of the resolver in the 800ms");
    }
    // Who has more time is given more.
    let began = Instant::now();
    let patient = to(unheard).doctor(&["--timeout", "1500ms"]).exits(1);
    assert!(patient.stdout.contains("in the 1.5s that"), "{}", patient.stdout);
    assert!(began.elapsed() >= Duration::from_millis(1500));
}

/// A clock that is wrong is told of, by how far, also where that is why nothing is trusted.
#[test]
fn clocks_that_differ_are_named() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    account(&server, "robot");
    let good = token(&server, "robot", json!({}));
    let to = |speaks: Speaks| {
        let (port, ca) = fake(speaks);
        Environment::sound(&server, &good).set("KUBERNETES_SERVICE_PORT", port).file("ca.crt", ca)
    };
    Environment::sound(&server, &good).check(0, "ok    clock .. as the server's");
    let early = Speaks { date: "Thu, 01 Jan 2015 00:00:00 GMT", ..Speaks::SOUND };
    to(early).check(0, "note  clock .. ahead of the server's, which says 2015-01-01T00:00:00Z");
    to(early).check(0, "note  clock .. timedatectl set-ntp true");
    let late = Speaks { date: "Fri, 01 Jan 2100 00:00:00 GMT", ..Speaks::SOUND };
    to(late).check(0, "note  clock .. behind the server's, which says 2100-01-01T00:00:00Z");
    let old = Speaks { until_year: 2016, ..early };
    to(old).check(1, "FAIL  server .. compare the certificate's dates with this machine's clock");
    to(old).check(1, "note  clock .. ahead of the server's");
    // A certificate that has really expired has nothing to do with clocks.
    let expired = to(Speaks { until_year: 2016, ..Speaks::SOUND }).doctor(&[]).exits(1);
    assert!(!expired.stdout.contains("clock:"), "{}", expired.stdout);
}

/// How a server that is none speaks.
#[derive(Clone, Copy)]
struct Speaks {
    /// The answer to each path; without one it is silent.
    of: fn(&str) -> Option<&'static str>,
    /// Its `Date`; `""` for none.
    date: &'static str,
    /// The first year in which its certificate is no good any more.
    until_year: i32,
}

impl Speaks {
    const SOUND: Speaks = Speaks {
        of: |path| match path {
            "/version" => Some("{\"gitVersion\":\"v1.37.2\"}"),
            path if path.contains("access") => Some("{\"status\":{\"allowed\":true}}"),
            _ => Some("{\"status\":{\"userInfo\":{\"username\":\"somebody\"}}}"),
        },
        date: "",
        until_year: 3000,
    };
}

/// An HTTPS server that speaks so. Gives its port, and its CA as PEM.
fn fake(speaks: Speaks) -> (u16, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
    params.not_after = rcgen::date_time_ymd(speaks.until_year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let config = Arc::new(config.expect("a key of that certificate"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(config.clone()).expect("a configuration that is good");
            std::thread::spawn(move || speak(StreamOwned::new(connection, stream), speaks));
        }
    });
    (port, ca.pem())
}

/// Answers what comes until the other end goes.
fn speak(mut stream: StreamOwned<ServerConnection, TcpStream>, speaks: Speaks) {
    let (mut seen, mut bytes) = (String::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        seen += &String::from_utf8_lossy(&bytes[..count]);
        let Some((head, body)) = seen.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if let Some(answer) = (speaks.of)(path) {
            let date = if speaks.date.is_empty() { String::new() } else { format!("Date: {}\r\n", speaks.date) };
            let head = format!("HTTP/1.1 200 OK\r\n{date}Content-Length: {}\r\n\r\n", answer.len());
            if stream.write_all(format!("{head}{answer}").as_bytes()).is_err() {
                return;
            }
        }
        seen.clear();
    }
}

/// A port whose queue is full, so that whoever comes is not answered at all; and those that fill it.
fn dropping() -> (u16, (TcpListener, Vec<TcpStream>)) {
    const QUEUE_MAX: usize = 16;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    rustix::net::listen(&listener, 0).expect("it listens already");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < QUEUE_MAX, "the queue has no end");
    }
    (address.port(), (listener, waiting))
}

/// A server that is none: does this to each connection and closes it. Gives its port.
fn answering(answer: fn(&mut std::net::TcpStream)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // What was sent is read first: it would be answered by a reset else.
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            answer(&mut stream);
        }
    });
    port
}

/// Another way to a server. Gives its port.
fn relay(listen: &str, server: SocketAddr) -> u16 {
    let listener = TcpListener::bind(listen).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(server).expect("the server listens");
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    port
}
