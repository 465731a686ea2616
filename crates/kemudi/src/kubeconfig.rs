//! Kubeconfig files as this program writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig of one cluster and one user with a client certificate. All arguments are PEM or plain text.
pub fn with_certificate(server: &str, ca: &str, user: &str, certificate: &str, key: &str) -> String {
    let (ca, certificate, key) = (STANDARD.encode(ca), STANDARD.encode(certificate), STANDARD.encode(key));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: kemudi
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: kemudi
  context:
    cluster: kemudi
    user: {user}
current-context: kemudi
"
    )
}
