//! Programs that give credentials: when they are run, what they are told, what becomes of what they print.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use kemudi_client::{Client, Config};

use crate::https::{Endpoint, Issuer, listed};

const FINE: &str = "HTTP/2.0";
const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

/// A kubeconfig whose plugin writes down what it is told and prints `DIR/answer`.
fn kubeconfig(server: &Endpoint, version: &str) -> Config {
    let dir = server.dir.path();
    let script = dir.join("plugin");
    fs::write(
        &script,
        "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho \"$1 $GIVEN $KUBERNETES_EXEC_INFO\" >>told\ncat answer\n",
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "current-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://{}', certificate-authority: ca.crt}}}}]\n\
         users: [{{name: u, user: {{exec: {{apiVersion: {version}, command: ./plugin, args: [arg], interactiveMode: Never, \
         env: [{{name: GIVEN, value: given}}], provideClusterInfo: true, installHint: ask around}}}}}}]\n",
        server.address
    );
    fs::write(dir.join("kubeconfig"), text).unwrap();
    Config::from_kubeconfig_of(Some(&dir.join("kubeconfig")), None, &|_| None).unwrap()
}

fn answer(dir: &Path, version: &str, status: &str) {
    let text = format!(r#"{{"apiVersion":"{version}","kind":"ExecCredential","status":{status}}}"#);
    fs::write(dir.join("answer"), text).unwrap();
}

fn runs(server: &Endpoint) -> usize {
    fs::read_to_string(server.file("told")).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn a_token_is_kept_until_it_ends_or_is_refused() {
    for version in [V1, V1BETA1] {
        let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
        let client = Client::new(kubeconfig(&server, version)).unwrap();
        answer(server.dir.path(), version, r#"{"token":"one"}"#);
        for _ in 0..3 {
            assert_eq!(listed(&client).await, FINE);
        }
        assert_eq!(runs(&server), 1);
        let told = fs::read_to_string(server.file("told")).unwrap();
        let told = told.replace(&server.address.to_string(), "SERVER");
        let want = format!(
            r#"arg given {{"kind":"ExecCredential","apiVersion":"{version}","spec":{{"interactive":false,"cluster":{{"server":"https://SERVER","certificate-authority-data":"#
        );
        assert!(told.starts_with(&want), "{told}");

        // Refused: the plugin is asked again, and the request repeated.
        *server.token.lock().unwrap() = "two".to_string();
        answer(server.dir.path(), version, r#"{"token":"two","expirationTimestamp":"2001-01-01T00:00:00Z"}"#);
        assert_eq!(listed(&client).await, FINE);
        assert_eq!((runs(&server), server.refused.load(Ordering::SeqCst)), (2, 1));

        // At its end: asked before it is refused.
        *server.token.lock().unwrap() = "three".to_string();
        answer(server.dir.path(), version, r#"{"token":"three","expirationTimestamp":"2999-01-01T00:00:00Z"}"#);
        for _ in 0..3 {
            assert_eq!(listed(&client).await, FINE);
        }
        assert_eq!((runs(&server), server.refused.load(Ordering::SeqCst)), (3, 1));
    }
}

#[tokio::test]
async fn a_certificate_is_shown() {
    let known = Issuer::new();
    let server = Endpoint::guarded(&Issuer::new(), &known).await;
    let client = Client::new(kubeconfig(&server, V1)).unwrap();
    let (certificate, key) = known.client();
    let status = serde_json::json!({"token": "one", "clientCertificateData": certificate, "clientKeyData": key});
    answer(server.dir.path(), V1, &status.to_string());
    assert_eq!(listed(&client).await, FINE);
}

#[tokio::test]
async fn plugins_that_do_not_work_are_explained() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
    let config = kubeconfig(&server, V1);
    let check = async |text: &str, want: &str| {
        fs::write(server.file("answer"), text).unwrap();
        let said = listed(&Client::new(config.clone()).unwrap()).await;
        let here = server.dir.path().display().to_string();
        assert_eq!(said.lines().next().unwrap().replace(&format!("{here}/./"), ""), want);
    };
    check("hello", r#"what the plugin "plugin" printed is no ExecCredential: expected value at line 1 column 1"#).await;
    check(
        &format!(r#"{{"apiVersion":"{V1BETA1}","kind":"ExecCredential"}}"#),
        &format!(r#"what the plugin "plugin" printed has the kind "ExecCredential" and apiVersion "{V1BETA1}", and the kubeconfig wants {V1}"#),
    )
    .await;
    let of = |status: &str| format!(r#"{{"apiVersion":"{V1}","kind":"ExecCredential","status":{status}}}"#);
    check(&of("null"), r#"what the plugin "plugin" printed has no status"#).await;
    check(&of("{}"), r#"what the plugin "plugin" printed has neither token nor certificate"#).await;
    check(
        &of(r#"{"clientKeyData":"x"}"#),
        r#"what the plugin "plugin" printed has one of certificate and key without the other"#,
    )
    .await;
    fs::remove_file(server.file("answer")).unwrap();
    let said = listed(&Client::new(config.clone()).unwrap()).await;
    assert!(said.contains("ended with exit status: 1"), "{said}");
    fs::remove_file(server.file("plugin")).unwrap();
    let said = listed(&Client::new(config).unwrap()).await;
    assert!(said.ends_with("is not there\n  ask around"), "{said}");
}
