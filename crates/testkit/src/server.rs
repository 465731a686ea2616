//! A server of the built binary, for one test: its own folder, its own port, gone when it is dropped. Every way to ask it
//! goes over the network, as it does for a user.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::clients;
use crate::command::{self, Finished, RUN_LIMIT, kemudi, run, spawn};
use crate::wire::{Answer, Endpoint, Request};

/// How long a server may take to say that it is ready. Debug builds on a busy machine are slow.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long a server may take to end on SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Lines of a program that wait to be read; then it waits too.
const LINES_MAX: usize = 1024;

/// The token of the administrator (user `admin`, group `system:masters`).
pub const ADMIN_TOKEN: &str = "admin-token-of-the-testkit";

/// The arguments that make a server like the recorded one: no nodes, and its issuer.
pub const GOLDEN_ARGS: &[&str] =
    &["--node", "none", "--service-account-issuer", "https://kubernetes.default.svc.cluster.local"];

/// A running `kemudi up`.
pub struct Server {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The administrator's, as `up` wrote it.
    pub kubeconfig: PathBuf,
    /// From the start of the process to its line.
    pub ready_after: Duration,
    /// The line itself.
    pub ready_line: String,
    pub endpoint: Endpoint,
    child: Child,
    drain: Option<JoinHandle<()>>,
    folder: PathBuf,
    _own: Option<TempDir>,
}

impl Server {
    /// Starts `kemudi up` with these arguments, and with a folder, a port, a kubeconfig and an administrator of its own.
    ///
    /// Panics with what the server wrote to stderr where it does not get ready.
    #[track_caller]
    pub fn start(args: &[&str]) -> Server {
        let own = tempfile::Builder::new().prefix("kemudi-test-").tempdir().expect("a temporary folder");
        let mut server = Server::start_in(own.path(), args);
        server._own = Some(own);
        server
    }

    /// The same in a folder that outlives the server.
    #[track_caller]
    pub fn start_in(folder: &Path, args: &[&str]) -> Server {
        Server::start_as(folder, args, None)
    }

    /// The same as another user, with a copy of the binary in the folder, which all of them may enter. Only root can.
    #[track_caller]
    pub fn start_as(folder: &Path, args: &[&str], user: Option<u32>) -> Server {
        let tokens = folder.join("tokens.csv");
        std::fs::write(&tokens, format!("{ADMIN_TOKEN},admin,admin,system:masters\n")).expect("a folder of our own");
        let kubeconfig = folder.join("kubeconfig");
        let data = folder.join("data");
        let errors = std::fs::File::create(folder.join("stderr")).expect("a folder of our own");
        let mut up = match user {
            None => Command::new(kemudi()),
            Some(user) => {
                let copy = folder.join("kemudi");
                // By another process: while we had it open for writing, a test beside this one could fork, and nobody execute it.
                // A server before this one may have left pods, which go on with its copy.
                let copied = Command::new("cp").arg("-n").arg(kemudi()).arg(&copy).status().expect("cp is everywhere");
                assert!(copied.success(), "no copy of kemudi in {}", folder.display());
                for path in [folder, &copy] {
                    std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a folder of our own");
                }
                for path in [folder, &tokens] {
                    chown(path, Some(user), Some(user)).expect("root may");
                }
                let mut up = Command::new(copy);
                up.uid(user).gid(user).env("HOME", folder).current_dir("/");
                up
            }
        };
        up.arg("up").args(args).args(["--listen", "127.0.0.1:0"]);
        up.arg("--kubeconfig").arg(&kubeconfig).arg("--token-auth-file").arg(&tokens).arg("--data").arg(&data);
        up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let begin = Instant::now();
        let mut child = spawn(&mut up);
        let (lines, drain) = lines_of(child.stdout.take().expect("piped"));
        let Ok(ready_line) = lines.recv_timeout(START_LIMIT) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("`kemudi up` did not get ready; it wrote:\n{}", stderr(folder));
        };
        let ready_after = begin.elapsed();
        let url = ready_line.split_whitespace().find(|word| word.starts_with("https://")).unwrap_or_else(|| {
            panic!("no https:// address in the line of `kemudi up`: {ready_line:?}");
        });
        let url = url.trim_end_matches([',', '.', ';', '/']).to_owned();
        let endpoint = Endpoint::new(&url, &data.join("pki/ca.crt")).unwrap_or_else(|e| panic!("{url}: {e}"));
        let folder = folder.to_owned();
        Server { url, kubeconfig, ready_after, ready_line, endpoint, child, drain: Some(drain), folder, _own: None }
    }

    /// Asks `VERB PATH [BODY]` as somebody and compares the answer in one line: see [`describe`].
    ///
    /// `who` is `admin`, `anonymous`, `token:TOKEN` or the name of a user (service accounts by their full name).
    #[track_caller]
    pub fn check(&self, who: &str, ask: &str, want: &str) {
        let got = describe(&self.ask(who, ask));
        assert_eq!(got, want, "\n{who}: {ask}\n{}", self.trouble());
    }

    /// Asks `VERB PATH [BODY]` as somebody.
    #[track_caller]
    pub fn ask(&self, who: &str, ask: &str) -> Answer {
        let request = request(who, ask);
        let mut connection = self.endpoint.connect(ANSWER_LIMIT).unwrap_or_else(|e| panic!("{}: {e}", self.trouble()));
        connection.exchange(&request).unwrap_or_else(|e| panic!("{who}: {ask}: {e}\n{}", self.trouble()))
    }

    /// The JSON of an answer that must have succeeded.
    #[track_caller]
    pub fn json(&self, who: &str, ask: &str) -> Value {
        let answer = self.ask(who, ask);
        assert!((200..300).contains(&answer.head.status), "{who}: {ask}: {}\n{}", describe(&answer), self.trouble());
        serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{who}: {ask}: not JSON: {e}"))
    }

    /// Asks again and again until the answer's code and JSON are as wanted, and gives the JSON.
    #[track_caller]
    pub fn until(&self, ask: &str, limit: Duration, holds: impl Fn(u16, &Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.ask("admin", ask);
            let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if holds(answer.head.status, &value) {
                return value;
            }
            assert!(began.elapsed() < limit, "{ask} never was as wanted: {value:#}\n{}", self.trouble());
        }
    }

    /// kubectl as the administrator. Its words are split at spaces.
    #[track_caller]
    pub fn kubectl(&self, words: &str) -> Finished {
        self.kubectl_with(words, "")
    }

    /// kubectl with something to read on its standard input.
    #[track_caller]
    pub fn kubectl_with(&self, words: &str, stdin: &str) -> Finished {
        let mut kubectl = self.client(clients::kubectl());
        run(kubectl.args(words.split_whitespace()), stdin, RUN_LIMIT)
    }

    /// `kubectl apply` of a manifest that must be accepted.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.kubectl_with("apply -f -", manifest).ok()
    }

    /// A client outside of any pod, with the administrator's kubeconfig in its environment and a home of its own.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut client = Command::new(program);
        client.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.folder).current_dir(command::workspace());
        client
    }

    /// curl as the administrator; `path` begins with a slash.
    #[track_caller]
    pub fn curl(&self, path: &str) -> Finished {
        let mut curl = clients::curl();
        curl.arg("--cacert").arg(self.ca()).args(["--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")]);
        run(curl.arg(format!("{}{path}", self.url)), "", RUN_LIMIT)
    }

    /// Waits until a pod of namespace `default` has this phase, and gives its logs.
    #[track_caller]
    pub fn logs_when(&self, pod: &str, phase: &str) -> String {
        self.wait_for_phase(pod, phase);
        self.kubectl(&format!("logs {pod}")).ok()
    }

    /// Waits until a pod of namespace `default` has this phase.
    #[track_caller]
    pub fn wait_for_phase(&self, pod: &str, phase: &str) {
        let wait = self.kubectl(&format!("wait pod/{pod} --for=jsonpath={{.status.phase}}={phase} --timeout=30s"));
        if wait.code != 0 {
            let state = self.kubectl(&format!("get pod {pod} -o yaml"));
            panic!("{pod} did not become {phase}: {}\n{}\n{}", wait.stderr, state.stdout, self.trouble());
        }
    }

    /// The certificate authority's file.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("data/pki/ca.crt")
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.address()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Ends it with SIGTERM and tells how long that took. Panics where it does not end.
    pub fn stop(mut self) -> Duration {
        let begin = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = command::wait(&mut self.child, STOP_LIMIT);
        assert!(status.is_some(), "still there {STOP_LIMIT:?} after SIGTERM\n{}", self.trouble());
        begin.elapsed()
    }

    /// What the server wrote to stderr, for messages.
    pub fn trouble(&self) -> String {
        format!("the server wrote:\n{}", stderr(&self.folder))
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// A request from `VERB PATH [BODY]`: JSON, as somebody.
#[track_caller]
pub fn request(who: &str, ask: &str) -> Request {
    let mut words = ask.splitn(3, ' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().expect("VERB PATH [BODY]"));
    let body = words.next().map(|body| body.as_bytes().to_vec());
    let mut headers = vec![("host".to_owned(), "localhost".to_owned())];
    let bearer = |token: &str| ("authorization".to_owned(), format!("Bearer {token}"));
    match (who, who.strip_prefix("token:")) {
        ("anonymous", _) => {}
        ("admin", _) => headers.push(bearer(ADMIN_TOKEN)),
        (_, Some(token)) => headers.push(bearer(token)),
        (user, None) => headers.extend([bearer(ADMIN_TOKEN), ("impersonate-user".to_owned(), user.to_owned())]),
    }
    if body.is_some() {
        let patch = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        headers.push(("content-type".to_owned(), patch.to_owned()));
    }
    Request { method: method.to_owned(), target: target.to_owned(), headers, body }
}

/// An answer in one line: `403 MESSAGE` of a Status, `200 PodList: a b` of a list, `201 Pod web` of an object, or the
/// code and the text.
pub fn describe(answer: &Answer) -> String {
    let status = answer.head.status;
    let Ok(value) = serde_json::from_slice::<Value>(&answer.body) else {
        return format!("{status} {}", String::from_utf8_lossy(&answer.body).trim_end());
    };
    let kind = value["kind"].as_str().unwrap_or("?");
    if let (Some(message), "Status") = (value["message"].as_str(), kind) {
        return format!("{status} {message}");
    }
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match value["items"].as_array() {
        Some(items) => {
            let names = items.iter().map(|item| format!(" {}", name(item))).collect::<String>();
            format!("{status} {kind}:{names}")
        }
        None => format!("{status} {kind} {}", name(&value)).trim_end().to_owned(),
    }
}

/// The lines of a stream as they come; the thread ends with the stream.
pub fn lines_of(stream: impl std::io::Read + Send + 'static) -> (Receiver<String>, JoinHandle<()>) {
    let (send, receive) = sync_channel(LINES_MAX);
    let drain = std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Nobody listens any more: go on reading, so that the program does not block on a full pipe.
            let _ = send.send(line);
        }
    });
    (receive, drain)
}

fn stderr(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("stderr")).unwrap_or_default()
}
