//! A cluster's authority and the key of its tokens are replaced under a server that runs: no client that behaves well sees
//! anything of it, and what was retired counts no more.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::Server;
use testkit::clients;
use testkit::command::{Finished, RUN_LIMIT, kemudi, run};
use testkit::pod::Pod;
use testkit::server::{ADMIN_TOKEN, describe, request};

const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that a client may be ahead of who listens to it, and requests that it makes after each step.
const ROUNDS: usize = 3;
/// A client that never reads its configuration again, and makes a new connection for each request.
const PYTHON: &str = "
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
context.verify_flags |= ssl.VERIFY_X509_STRICT
request = urllib.request.Request(sys.argv[2] + '/api', headers={'Authorization': 'Bearer ' + sys.argv[3]})
print(urllib.request.urlopen(request, context=context).status)
";
/// What a program in a pod does that reads its files for each request.
const IN_POD: &str = "A=/var/run/secrets/kubernetes.io/serviceaccount; curl -sS -o /dev/null -w '%{http_code}' \
     --cacert $A/ca.crt -H \"Authorization: Bearer $(cat $A/token)\" https://kubernetes.default.svc/api";

/// Asks again and again until it is told to end.
struct Asking {
    name: &'static str,
    stop: Arc<AtomicBool>,
    told: Receiver<Result<(), String>>,
    thread: JoinHandle<()>,
}

impl Asking {
    fn start(name: &'static str, mut ask: impl FnMut() -> Result<(), String> + Send + 'static) -> Asking {
        // It tells of each answer, and waits until that is heard: how fast it asks does not matter.
        let (tell, told) = sync_channel(ROUNDS);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || while !stopped.load(Ordering::Relaxed) && tell.send(ask()).is_ok() {});
        Asking { name, stop, told, thread }
    }

    /// Some more requests are answered, all of them well: also those of before that nobody has asked about.
    fn some_more(&self) {
        for _ in 0..2 * ROUNDS + 1 {
            match self.told.recv_timeout(PATIENCE) {
                Ok(Ok(())) => {}
                other => panic!("{}: {other:?}", self.name),
            }
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for told in &self.told {
            assert_eq!(told, Ok(()), "{}", self.name);
        }
        self.thread.join().expect("no panic");
    }
}

fn succeeds(finished: &Finished) -> Result<(), String> {
    match finished.code {
        0 => Ok(()),
        _ => Err(format!("{}{}", finished.stdout, finished.stderr)),
    }
}

/// `kemudi` with the folder and the kubeconfig of a server.
fn command(folder: &Path, words: &str) -> Finished {
    let mut command = Command::new(kemudi());
    command.args(words.split(' ')).arg("--data").arg(folder.join("data"));
    run(command.arg("--kubeconfig").arg(folder.join("kubeconfig")), "", RUN_LIMIT)
}

#[test]
fn nobody_notices_that_authority_and_key_are_replaced() {
    if clients::skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_in(folder.path(), &["--store", "memory://"]);
    let kept = |name: &str, from: &Path| {
        let to = folder.path().join(name);
        std::fs::copy(from, &to).expect("a folder of our own");
        to
    };
    let (ca, kubeconfig) = (kept("old.crt", &server.ca()), kept("old.kubeconfig", &server.kubeconfig));
    let url = server.url.clone();
    let (endpoint, token) = (server.endpoint.clone(), server.kubectl("create token default").ok().trim().to_owned());
    let who = format!("token:{token}");
    let with_token = Asking::start("a client with the old authority and an old token", move || {
        let mut connection = endpoint.connect(PATIENCE).map_err(|e| e.to_string())?;
        let answer = connection.exchange(&request(&who, "GET /api")).map_err(|e| e.to_string())?;
        if answer.head.status == 200 { Ok(()) } else { Err(describe(&answer)) }
    });
    let mut kubectl = server.client(clients::kubectl());
    kubectl.env("KUBECONFIG", &kubeconfig).args(["get", "--raw", "/api/v1/namespaces/default"]);
    let kubectl = Asking::start("kubectl with the old kubeconfig", move || succeeds(&run(&mut kubectl, "", RUN_LIMIT)));
    let mut curl = clients::curl();
    curl.arg("--cacert").arg(&ca).args(["--fail", "--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")]);
    curl.arg(format!("{url}/api"));
    let curl = Asking::start("curl with the old authority", move || succeeds(&run(&mut curl, "", RUN_LIMIT)));
    let mut python = Command::new(clients::python());
    python.args(["-c", PYTHON]).arg(&ca).args([&url, ADMIN_TOKEN]);
    let python =
        Asking::start("Python with the old authority, strict", move || succeeds(&run(&mut python, "", RUN_LIMIT)));
    let mut pod = Pod::on(&server).session();
    let in_pod = Asking::start("a pod", move || match pod.say(IN_POD) {
        code if code == "200" => Ok(()),
        other => Err(other),
    });
    let all = [&with_token, &kubectl, &curl, &python, &in_pod];
    all.iter().for_each(|asking| asking.some_more());

    for (words, listed) in [("keys rotate", "keys list"), ("ca rotate", "ca list"), ("ca rotate", "ca list")] {
        let rotated = command(folder.path(), words).exits(0);
        assert!(rotated.stderr.starts_with("the server that runs has taken it\n"), "{}", rotated.stderr);
        all.iter().for_each(|asking| asking.some_more());
        let listed = command(folder.path(), listed).ok();
        assert_eq!(listed.lines().filter(|line| line.contains(" yes ")).count(), 1, "{listed}");
    }
    // What it signs is signed by the new ones: tokens, and the kubeconfig that it wrote anew.
    let newer = server.kubectl("create token default").ok().trim().to_owned();
    assert_ne!(key_id(&newer), key_id(&token));
    assert_ne!(std::fs::read(&kubeconfig).ok(), std::fs::read(&server.kubeconfig).ok());
    for (words, want) in [("ca retire", "kemudi ca retire --now"), ("keys retire", "kemudi keys retire --now")] {
        let refused = command(folder.path(), words).exits(1);
        assert!(refused.stderr.contains(want), "{}", refused.stderr);
    }

    // Who knows only what is old has been warned.
    for asking in [with_token, kubectl, curl, python] {
        asking.end();
    }
    let retired = command(folder.path(), "ca retire --now").exits(0);
    assert_eq!(retired.stdout.lines().count(), 2, "{}", retired.stdout);
    in_pod.some_more();
    in_pod.end();
    let foreign = server.endpoint.connect(PATIENCE).and_then(|mut it| it.exchange(&request("admin", "GET /api")));
    assert!(foreign.is_err_and(|why| why.to_string().contains("UnknownIssuer")), "the old authority is trusted still");
    let refused = server.client(clients::kubectl()).env("KUBECONFIG", &kubeconfig).args(["get", "ns"]).output();
    assert!(!refused.expect("kubectl runs").status.success(), "the old certificate counts still");
    server.kubectl("get --raw /api").ok();

    let check = |token: &str, want: &str| {
        let mut curl = clients::curl();
        curl.arg("--cacert").arg(server.ca()).args(["-o", "/dev/null", "-w", "%{http_code}"]);
        curl.args(["--header", &format!("Authorization: Bearer {token}"), &format!("{url}/api")]);
        assert_eq!(run(&mut curl, "", RUN_LIMIT).stdout, want);
    };
    check(&token, "200");
    command(folder.path(), "keys retire --now").exits(0);
    check(&token, "401");
    check(&newer, "200");
}

fn key_id(token: &str) -> String {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).expect("a token");
    let header: serde_json::Value = serde_json::from_slice(&header).expect("a token");
    header["kid"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_cluster_that_does_not_run_is_rotated_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let none = command(folder.path(), "ca list").exits(1);
    assert!(none.stderr.contains("there is no cluster in ") && none.stderr.contains("--data DIR"), "{}", none.stderr);
    let server = Server::start_in(folder.path(), &["--node", "none"]);
    let token = server.json("admin", r#"POST /api/v1/namespaces/default/serviceaccounts/default/token {"spec":{}}"#);
    let who = format!("token:{}", token["status"]["token"].as_str().expect("a token"));
    server.stop();
    for words in ["keys rotate --algorithm ES384", "ca rotate"] {
        let rotated = command(folder.path(), words).exits(0);
        assert!(rotated.stderr.starts_with("no server runs here; the next start takes it\n"), "{}", rotated.stderr);
    }
    let server = Server::start_in(folder.path(), &["--node", "none"]);
    server.check(&who, "GET /api", "200 APIVersions");
    let keys = server.json("admin", "GET /openid/v1/jwks");
    let algorithms: Vec<_> = keys["keys"].as_array().expect("keys").iter().map(|key| key["alg"].as_str()).collect();
    assert_eq!(algorithms, [Some("ES384"), Some("RS256")]);
}
