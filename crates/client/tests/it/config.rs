//! Environments, sound and broken, and what is said about each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kemudi_client::config::{Config, ConfigCode, SERVICE_ACCOUNT_DIR_VARIABLE, Server};
use kemudi_client::{Client, Error};

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";

/// A pod's environment, as `change` leaves it; the outcome is the configuration or the error's code and first line.
#[track_caller]
fn check(change: impl FnOnce(&Path, &mut BTreeMap<String, String>), want: &str) {
    assert_eq!(outcome(change).1, want);
}

/// The error's code, if there is one, and what [`check`] compares.
fn outcome(change: impl FnOnce(&Path, &mut BTreeMap<String, String>)) -> (Option<ConfigCode>, String) {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(["kubernetes".to_string()]).unwrap();
    fs::write(dir.path().join("token"), "abc\n").unwrap();
    fs::write(dir.path().join("ca.crt"), key.cert.pem()).unwrap();
    fs::write(dir.path().join("namespace"), "team-a\n").unwrap();
    let here = dir.path().display().to_string();
    let vars = [(HOST, "10.96.0.1"), (PORT, "443"), (SERVICE_ACCOUNT_DIR_VARIABLE, &here), ("HOME", &here)];
    let mut env: BTreeMap<String, String> = vars.map(|(name, value)| (name.to_string(), value.to_string())).into();
    change(dir.path(), &mut env);
    let of_env = |name: &str| env.get(name).cloned();
    let config = match (env.get("--context"), env.get("--kubeconfig")) {
        (None, None) => Config::infer_of(&of_env),
        (context, path) => {
            let path = path.map_or(dir.path().join("kc"), |path| dir.path().join(path));
            Config::from_kubeconfig_of(Some(&path), context.map(String::as_str), &of_env)
        }
    };
    // What the configuration names is read when the client is made.
    let made = config.and_then(|config| match Client::new(config.clone()) {
        Ok(_) => Ok(config),
        Err(Error::Config(error)) => Err(error),
        Err(error) => panic!("{error}"),
    });
    let (code, got) = match made {
        Ok(config) => (None, format!("{} {} {:?}", config.server, config.namespace, config.credentials)),
        Err(error) => {
            assert!(!error.fix.is_empty(), "{error} says no fix");
            (Some(error.code), format!("{:?}: {}", error.code, error.message))
        }
    };
    (code, got.replace(&here, "DIR"))
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

/// Writes a kubeconfig of one context, and uses it.
fn kubeconfig(dir: &Path, env: &mut BTreeMap<String, String>, cluster: &str, user: &str) {
    let text = format!(
        "contexts:\n- {{name: one, context: {{cluster: c, user: u}}}}\n\
         clusters:\n- {{name: c, cluster: {{{cluster}}}}}\nusers:\n- {{name: u, user: {{{user}}}}}\n"
    );
    fs::write(dir.join("kc"), text).unwrap();
    set(env, "--context", "one");
}

type Change = fn(&Path, &mut BTreeMap<String, String>);

/// Ways in which environments are broken, and what is said about each. No two have the same code.
const BROKEN: &[(Change, &str)] = &[
    (
        |_, env| {
            env.remove(HOST);
            env.remove(PORT);
        },
        "Nowhere: no Kubernetes configuration found: no kubeconfig at DIR/.kube/config; not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set",
    ),
    (
        |_, env| drop(env.remove(HOST)),
        "HostMissing: KUBERNETES_SERVICE_HOST is not set, though KUBERNETES_SERVICE_PORT is",
    ),
    (|_, env| set(env, PORT, ""), "PortMissing: KUBERNETES_SERVICE_PORT is not set, though KUBERNETES_SERVICE_HOST is"),
    (
        |_, env| set(env, PORT, "tcp://10.0.0.9:80"),
        r#"PortInvalid: KUBERNETES_SERVICE_PORT is "tcp://10.0.0.9:80", which is no port number"#,
    ),
    (
        |_, env| set(env, HOST, "https://10.96.0.1"),
        r#"HostInvalid: KUBERNETES_SERVICE_HOST is "https://10.96.0.1", which is no host name and no address"#,
    ),
    (
        |dir, _| fs::remove_file(dir.join("token")).unwrap(),
        "TokenMissing: the service account token is not at DIR/token: no such file",
    ),
    (|dir, _| fs::write(dir.join("token"), " \n").unwrap(), "TokenEmpty: DIR/token is empty"),
    (
        |dir, _| fs::write(dir.join("token"), "a b").unwrap(),
        "TokenInvalid: DIR/token holds characters that no token has",
    ),
    (
        |dir, _| {
            fs::remove_file(dir.join("token")).unwrap();
            fs::create_dir(dir.join("token")).unwrap();
        },
        "TokenUnreadable: the service account token at DIR/token cannot be read: Is a directory (os error 21)",
    ),
    (
        |dir, _| fs::remove_file(dir.join("ca.crt")).unwrap(),
        "CaMissing: the CA certificate is not at DIR/ca.crt: no such file",
    ),
    (
        |dir, _| {
            fs::remove_file(dir.join("ca.crt")).unwrap();
            fs::create_dir(dir.join("ca.crt")).unwrap();
        },
        "CaUnreadable: the CA certificate at DIR/ca.crt cannot be read: Is a directory (os error 21)",
    ),
    (
        |dir, _| fs::write(dir.join("ca.crt"), "hello").unwrap(),
        "CaInvalid: DIR/ca.crt holds no certificate: no PEM certificate in it",
    ),
    (
        |_, env| set(env, "POD_NAMESPACE", "$(POD_NAMESPACE)"),
        r#"NamespaceInvalid: POD_NAMESPACE says "$(POD_NAMESPACE)", which is no namespace"#,
    ),
    (
        |dir, env| {
            set(env, "KUBECONFIG", &dir.join("kc").display().to_string());
            fs::write(dir.join("kc"), "clusters: 5").unwrap();
        },
        "KubeconfigInvalid: the kubeconfig DIR/kc: invalid type: integer `5`, expected a sequence",
    ),
    (
        |_, env| set(env, "--kubeconfig", "not-there"),
        "KubeconfigMissing: the kubeconfig DIR/not-there cannot be read: No such file or directory (os error 2)",
    ),
    (
        |_, env| set(env, "--kubeconfig", "."),
        "KubeconfigUnreadable: the kubeconfig DIR/. cannot be read: Is a directory (os error 21)",
    ),
    (
        |dir, env| {
            kubeconfig(dir, env, "server: h", "");
            env.remove("--context");
            set(env, "--kubeconfig", "kc");
        },
        "ContextUnset: the kubeconfig DIR/kc has no current context",
    ),
    (
        |dir, env| {
            kubeconfig(dir, env, "server: h", "");
            set(env, "--context", "two");
        },
        r#"ContextUnknown: the context "two" is not in the kubeconfig DIR/kc"#,
    ),
    (
        |dir, env| {
            fs::write(dir.join("kc"), "contexts:\n- {name: one, context: {cluster: c}}\n").unwrap();
            set(env, "--context", "one");
        },
        r#"ClusterUnknown: the cluster "c" is not in the kubeconfig DIR/kc"#,
    ),
    (
        |dir, env| {
            kubeconfig(dir, env, "server: h", "");
            let text = fs::read_to_string(dir.join("kc")).unwrap().replace("users:\n- {name: u", "users:\n- {name: v");
            fs::write(dir.join("kc"), text).unwrap();
        },
        r#"UserUnknown: the user "u" is not in the kubeconfig DIR/kc"#,
    ),
    (
        |dir, env| kubeconfig(dir, env, "server: 'http://h'", ""),
        r#"ServerInvalid: the server "http://h" is plain HTTP; the API is HTTPS only"#,
    ),
    (
        |dir, env| kubeconfig(dir, env, "server: h, certificate-authority: gone.crt", ""),
        "FileMissing: the CA certificate is not at DIR/gone.crt: no such file",
    ),
    (
        |dir, env| kubeconfig(dir, env, "server: h, certificate-authority: .", ""),
        "FileUnreadable: the CA certificate at DIR/. cannot be read: Is a directory (os error 21)",
    ),
    (
        |dir, env| {
            let user = "client-certificate: ca.crt, client-key: ca.crt";
            kubeconfig(dir, env, "server: h, certificate-authority: ca.crt", user);
        },
        r#"ClientCertificateInvalid: the client certificate of context "one" of DIR/kc is not usable: its key: no items found"#,
    ),
    (
        |dir, env| kubeconfig(dir, env, "server: h", "client-certificate: ca.crt"),
        r#"ClientKeyMissing: the user "u" of DIR/kc has a client-certificate and no client-key"#,
    ),
    (
        |dir, env| kubeconfig(dir, env, "server: h, certificate-authority: ca.crt", "as-groups: [devs]"),
        "ImpersonationInvalid: groups, a uid or extra values are to be impersonated, but no user",
    ),
    (
        |dir, env| kubeconfig(dir, env, "server: h, proxy-url: 'ftp://p'", ""),
        r#"ProxyInvalid: the proxy "ftp://p" has a scheme that is neither http nor socks5"#,
    ),
    (
        |dir, env| kubeconfig(dir, env, "server: h", "auth-provider: {name: gcp}"),
        r#"CredentialsUnsupported: the user "u" of DIR/kc logs in with an auth-provider"#,
    ),
];

#[test]
fn each_broken_environment_has_its_own_code_and_a_fix() {
    let mut codes = Vec::new();
    for (change, want) in BROKEN {
        let (code, got) = outcome(change);
        assert_eq!(got, *want);
        let code = code.unwrap();
        assert!(!codes.contains(&code), "{code:?} twice");
        codes.push(code);
    }
    assert!(codes.len() >= 25, "{}", codes.len());
    // What `infer` says as part of `Nowhere`.
    let error = Config::in_cluster_of(&|_| None).unwrap_err();
    assert_eq!(error.code, ConfigCode::NotInCluster);
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
- {name: plugin, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, interactiveMode: Never}}}
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
    #[cfg(feature = "exec")]
    check(Some("four"), &format!("https://h.example:6443/base default Plugin(aws {V1}) {ca} false None"));
    #[cfg(not(feature = "exec"))]
    check(
        Some("four"),
        "CredentialsUnsupported: the credentials come from the plugin \"aws\", and this program was built without plugins\n  \
         build kemudi-client with the feature `exec`, or use a token (`kubectl create token NAME`), a tokenFile or a client certificate",
    );
}

#[cfg(feature = "exec")]
const V1: &str = "client.authentication.k8s.io/v1";

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
