//! Environments, sound and broken, and what is said about each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kemudi_client::config::{Config, SERVICE_ACCOUNT_DIR_VARIABLE, Server};

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";

/// A pod's environment, as `change` leaves it; the outcome is the configuration or the error's code and first line.
#[track_caller]
fn check(change: impl FnOnce(&Path, &mut BTreeMap<String, String>), want: &str) {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(["kubernetes".to_string()]).unwrap();
    fs::write(dir.path().join("token"), "abc\n").unwrap();
    fs::write(dir.path().join("ca.crt"), key.cert.pem()).unwrap();
    fs::write(dir.path().join("namespace"), "team-a\n").unwrap();
    let here = dir.path().display().to_string();
    let vars = [(HOST, "10.96.0.1"), (PORT, "443"), (SERVICE_ACCOUNT_DIR_VARIABLE, &here), ("HOME", &here)];
    let mut env: BTreeMap<String, String> = vars.map(|(name, value)| (name.to_string(), value.to_string())).into();
    change(dir.path(), &mut env);
    let got = match Config::infer_of(&|name| env.get(name).cloned()) {
        Ok(config) => format!("{} {} {:?}", config.server, config.namespace, config.credentials),
        Err(error) => {
            assert!(!error.fix.is_empty(), "{error} says no fix");
            format!("{:?}: {}", error.code, error.message)
        }
    };
    assert_eq!(got.replace(&here, "DIR"), want);
}

fn set(env: &mut BTreeMap<String, String>, name: &str, value: &str) {
    env.insert(name.to_string(), value.to_string());
}

#[test]
fn sound_environments() {
    check(|_, _| {}, "https://10.96.0.1:443 team-a TokenFile(DIR/token)");
    check(|_, env| set(env, HOST, "fd00::1"), "https://[fd00::1]:443 team-a TokenFile(DIR/token)");
    check(|_, env| set(env, "POD_NAMESPACE", "b"), "https://10.96.0.1:443 b TokenFile(DIR/token)");
    check(
        |dir, _| fs::remove_file(dir.join("namespace")).unwrap(),
        "https://10.96.0.1:443 default TokenFile(DIR/token)",
    );
}

#[test]
fn broken_environments() {
    check(
        |_, env| {
            env.remove(HOST);
            env.remove(PORT);
        },
        "Nowhere: no Kubernetes configuration found: no kubeconfig at DIR/.kube/config; not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set",
    );
    check(
        |_, env| drop(env.remove(HOST)),
        "HostMissing: KUBERNETES_SERVICE_HOST is not set, though KUBERNETES_SERVICE_PORT is",
    );
    check(
        |_, env| set(env, PORT, ""),
        "PortMissing: KUBERNETES_SERVICE_PORT is not set, though KUBERNETES_SERVICE_HOST is",
    );
    check(
        |_, env| set(env, PORT, "tcp://10.0.0.9:80"),
        r#"PortInvalid: KUBERNETES_SERVICE_PORT is "tcp://10.0.0.9:80", which is no port number"#,
    );
    check(
        |_, env| set(env, HOST, "https://10.96.0.1"),
        r#"HostInvalid: KUBERNETES_SERVICE_HOST is "https://10.96.0.1", which is no host name and no address"#,
    );
    check(
        |dir, _| fs::remove_file(dir.join("token")).unwrap(),
        "TokenMissing: the service account token is not at DIR/token: no such file",
    );
    check(|dir, _| fs::write(dir.join("token"), " \n").unwrap(), "TokenEmpty: DIR/token is empty");
    check(
        |dir, _| fs::write(dir.join("token"), "a b").unwrap(),
        "TokenInvalid: DIR/token holds characters that no token has",
    );
    check(
        |dir, _| {
            fs::remove_file(dir.join("token")).unwrap();
            fs::create_dir(dir.join("token")).unwrap();
        },
        "TokenUnreadable: the service account token at DIR/token cannot be read: Is a directory (os error 21)",
    );
    check(
        |dir, _| fs::remove_file(dir.join("ca.crt")).unwrap(),
        "CaMissing: the CA certificate is not at DIR/ca.crt: no such file",
    );
    check(
        |dir, _| fs::write(dir.join("ca.crt"), "hello").unwrap(),
        "CaInvalid: DIR/ca.crt holds no certificate: no PEM certificate in it",
    );
    check(
        |dir, env| {
            set(env, "KUBECONFIG", &dir.join("kc").display().to_string());
            fs::write(dir.join("kc"), "clusters: 5").unwrap();
        },
        "KubeconfigInvalid: the kubeconfig DIR/kc: invalid type: integer `5`, expected a sequence",
    );
}

const KUBECONFIG: &str = r#"
current-context: one
contexts:
- {name: one, context: {cluster: c, user: u, namespace: team}}
- {name: two, context: {cluster: c, user: cert}}
- {name: three, context: {cluster: nowhere, user: u}}
- {name: four, context: {cluster: c, user: plugin}}
clusters:
- {name: c, cluster: {server: "https://h.example:6443/base/", certificate-authority: ca.crt}}
users:
- {name: u, user: {tokenFile: token}}
- {name: cert, user: {client-certificate-data: eA==, client-key-data: eA==, as: bob}}
- {name: plugin, user: {exec: {command: aws}}}
"#;

#[test]
fn kubeconfigs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    fs::write(&path, KUBECONFIG).unwrap();
    let here = dir.path().display().to_string();
    let check = |context: Option<&str>, want: &str| {
        let got = match Config::from_kubeconfig_of(Some(&path), context, &|_| None) {
            Ok(config) => format!(
                "{} {} {:?} {:?} {} {:?}",
                config.server,
                config.namespace,
                config.credentials,
                config.ca,
                config.client_certificate.is_some(),
                config.impersonate.user
            ),
            Err(error) => format!("{:?}: {error}", error.code),
        };
        assert_eq!(got.replace(&here, "DIR"), want);
    };
    let ca = r#"Of(File("DIR/ca.crt"))"#;
    check(None, &format!("https://h.example:6443/base team TokenFile(DIR/token) {ca} false None"));
    check(Some("two"), &format!(r#"https://h.example:6443/base default None {ca} true Some("bob")"#));
    check(Some("three"), "ClusterUnknown: the cluster \"nowhere\" is not in the kubeconfig DIR/config\n  it has: c");
    check(
        Some("five"),
        "ContextUnknown: the context \"five\" is not in the kubeconfig DIR/config\n  it has: one, two, three, four",
    );
    check(
        Some("four"),
        "CredentialsUnsupported: the user \"plugin\" of DIR/config logs in with an exec plugin\n  plugins are not supported: use a token (`kubectl create token NAME`), a tokenFile or a client certificate",
    );
}

#[test]
fn servers() {
    let check = |url: &str, want: &str| {
        let got = Server::parse(url).map_or_else(|error| error.message, |server| server.to_string());
        assert_eq!(got, want);
    };
    check("https://127.0.0.1:6443", "https://127.0.0.1:6443");
    check("https://[::1]:6443/", "https://[::1]:6443");
    check("h.example", "https://h.example:443");
    check("http://h.example", r#"the server "http://h.example" is plain HTTP; the API is HTTPS only"#);
    check("https://h.example:x", r#"the server "https://h.example:x" has no valid port"#);
}
