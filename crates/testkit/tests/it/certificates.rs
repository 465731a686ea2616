//! Certificates in pods: bundles of others that are followed, and the pod's own, which a signer gives.

use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData,
};
use serde_json::{Value, json};
use testkit::command::RUN_LIMIT;
use testkit::server::lines_of;
use testkit::{Server, clients};

const SIGNER: &str = "example.com/pods";

/// Signs for pods, as a cluster's own controller would.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    ca: String,
}

impl Signer {
    fn new(name: &str) -> Signer {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let ca = params.self_signed(&key).expect("a certificate").pem();
        Signer { issuer: Issuer::new(params, key), ca }
    }

    /// A bundle with the certificate of this signer.
    fn bundle(&self, name: &str, stage: &str) -> String {
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
            "metadata": {"name": name, "labels": {"stage": stage}},
            "spec": {"signerName": SIGNER, "trustBundle": self.ca},
        })
        .to_string()
    }

    /// The status of an answered request.
    fn issue(&self, spec: &Value) -> Value {
        let request = spec["stubPKCS10Request"].as_str().expect("a request");
        let request = STANDARD.decode(request).expect("base64");
        let mut asked = CertificateSigningRequestParams::from_der(&request.into()).expect("a good request");
        let common = spec["podName"].as_str().expect("a pod").to_owned();
        asked.params.distinguished_name.push(DnType::CommonName, common);
        let chain = asked.signed_by(&self.issuer).expect("a certificate").pem();
        json!({
            "conditions": [condition("Issued")],
            "certificateChain": chain,
            "notBefore": "2026-01-01T00:00:00Z", "beginRefreshAt": "2030-01-01T00:00:00Z", "notAfter": "2031-01-01T00:00:00Z",
        })
    }
}

fn condition(kind: &str) -> Value {
    let when = "2026-01-01T00:00:00Z";
    json!({"type": kind, "status": "True", "reason": "Test", "message": "as told", "lastTransitionTime": when})
}

fn pod(name: &str, sources: Value, script: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": "host", "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
            }],
            "volumes": [{"name": "tls", "projected": {"sources": sources}}],
        },
    })
    .to_string()
}

/// What the API tells of some objects as it happens; ends with this.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn of(server: &Server, path: &str) -> Watch {
        let mut kubectl = server.client(clients::kubectl());
        let mut child = kubectl.args(["get", "--raw", path]).stdout(Stdio::piped()).spawn().expect("kubectl");
        // Its thread ends with the child.
        let (lines, _) = lines_of(child.stdout.take().expect("piped"));
        Watch { child, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(RUN_LIMIT).expect("something happens");
        serde_json::from_str(&line).expect("an event of a watch")
    }

    fn events_of(server: &Server, pod: &str) -> Watch {
        let selector = format!("fieldSelector=involvedObject.name%3D{pod}");
        Watch::of(server, &format!("/api/v1/namespaces/default/events?watch=1&{selector}"))
    }

    /// Until an event says this.
    fn until_told(&self, message: &str) {
        while !self.next()["object"]["message"].as_str().is_some_and(|told| told.contains(message)) {}
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

#[test]
fn pods_know_whom_to_trust() {
    if clients::skipped() {
        return;
    }
    let server = Server::start(&["--store", "memory://"]);
    let [first, second, third] = ["first", "second", "third"].map(Signer::new);
    let bundle = |name: &str| format!("{}:{name}", SIGNER.replace('/', ":"));
    server.apply(&first.bundle(&bundle("first"), "live"));

    // One by its name; all of a signer's; none, which is allowed.
    let sources = json!([
        {"clusterTrustBundle": {"name": bundle("first"), "path": "one"}},
        {"clusterTrustBundle": {"signerName": SIGNER, "labelSelector": {}, "path": "all"}},
        {"clusterTrustBundle": {"signerName": SIGNER, "optional": true, "path": "none"}},
    ]);
    let script = "cd /tls; n() { grep -c BEGIN $1; }; n one; n all; n none; until [ `n all` = 2 ]; do sleep 0.05; done; echo new";
    server.apply(&pod("trusting", sources, script));
    server.wait_for_phase("trusting", "Running");
    server.apply(&second.bundle(&bundle("second"), "test"));
    assert_eq!(server.logs_when("trusting", "Succeeded"), "1\n1\n0\nnew\n");

    // Bundles that are not there hold the pod up until they are.
    let late = json!({"signerName": SIGNER, "labelSelector": {"matchLabels": {"stage": "late"}}, "path": "ca"});
    server.apply(&pod("waiting", json!([{"clusterTrustBundle": late}]), "cat /tls/ca"));
    Watch::events_of(&server, "waiting")
        .until_told("combination of signerName and labelSelector matched zero ClusterTrustBundles");
    server.apply(&third.bundle(&bundle("third"), "late"));
    assert_eq!(server.logs_when("waiting", "Succeeded"), third.ca.replace('\r', ""));
}

#[test]
fn pods_are_given_certificates_of_their_own() {
    if clients::skipped() {
        return;
    }
    let server = Server::start(&["--store", "memory://"]);
    let signer = Signer::new("pods");
    let requests = Watch::of(&server, "/apis/certificates.k8s.io/v1/podcertificaterequests?watch=1");
    let next = || loop {
        let event = requests.next();
        if event["type"] == "ADDED" {
            let object = &event["object"];
            return (object["metadata"]["name"].as_str().expect("a name").to_owned(), object["spec"].clone());
        }
    };
    let answer = |name: &str, status: Value| {
        let words = "--subresource=status --type=merge --patch-file=/dev/stdin";
        server
            .kubectl_with(
                &format!("patch podcertificaterequest {name} {words}"),
                &json!({"status": status}).to_string(),
            )
            .ok();
    };
    let source = json!({"podCertificate": {
        "signerName": SIGNER, "keyType": "ED25519", "userAnnotations": {"example.com/team": "ann"},
        "credentialBundlePath": "all", "keyPath": "key", "certificateChainPath": "chain",
    }});

    server.apply(&pod("served", json!([source]), "cd /tls; cat key chain | cmp - all; cat key; echo ==; cat chain"));
    let (name, spec) = next();
    assert_eq!((&spec["podName"], &spec["serviceAccountName"]), (&json!("served"), &json!("default")));
    assert_eq!(spec["unverifiedUserAnnotations"], json!({"example.com/team": "ann"}));
    answer(&name, signer.issue(&spec));
    let out = server.logs_when("served", "Succeeded");
    let (key, chain) = out.split_once("==\n").expect("two files");
    let key = KeyPair::from_pem(key).expect("a key").subject_public_key_info();
    let chain: String = chain.lines().filter(|line| !line.starts_with('-')).collect();
    let chain = STANDARD.decode(chain).expect("base64");
    assert!(chain.windows(key.len()).any(|window| window == key), "the certificate is for another key");

    server.apply(&pod("refused", json!([source]), "true"));
    let (name, _) = next();
    answer(&name, json!({"conditions": [condition("Denied")]}));
    Watch::events_of(&server, "refused")
        .until_told("PodCertificateRequest was permanently denied: reason=\"Test\" message=\"as told\"");
}
