//! exec, attach and port-forward with the library, in one process and over the network, and with the commands.

use std::time::Duration;

use kemudi::Cluster;
use kemudi::client::{Api, ApiResource, Client, Config, Dynamic, Outcome, RemoteOptions};
use kemudi::local_node::NodeOptions;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(30);

/// A cluster with a pod `web`: a shell that repeats what it reads, and an HTTP server.
struct Bed {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Bed {
    async fn start() -> Bed {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut cluster = Cluster::start().await.unwrap();
        cluster.listen(listener);
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("node");
        let images = images::Store::open(folder.path().join("images"));
        let options = NodeOptions {
            name: "here".into(),
            state_dir,
            images,
            hidden: vec![],
            node_ports: false,
            outside: Default::default(),
            cri: None,
            keep: false,
            serving: None,
        };
        cluster.start_node(options).await.unwrap();
        let kubeconfig = folder.path().join("config");
        std::fs::write(&kubeconfig, cluster.admin_kubeconfig().unwrap()).unwrap();
        let bed = Bed { cluster, folder };
        let script = "while read word; do echo got $word; done; echo end";
        let serve = "import socket\ns = socket.create_server(('127.0.0.1', 7000))\nwhile True:\n c, _ = s.accept()\n d = b''\n while p := c.recv(99): d += p\n c.sendall(d[::-1]); c.close()";
        let listens = "import socket; socket.create_connection(('127.0.0.1', 7000)).close()";
        let containers = json!([
            {"name": "main", "image": "host", "stdin": true, "stdinOnce": true, "command": ["sh", "-c", script]},
            {"name": "port", "image": "host", "command": ["python3", "-c", serve],
             "readinessProbe": {"exec": {"command": ["python3", "-c", listens]}, "periodSeconds": 1}},
        ]);
        let spec = json!({
            "nodeName": "here", "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": containers,
        });
        let pods = pods(bed.cluster.admin());
        pods.create(&Dynamic(json!({"metadata": {"name": "web"}, "spec": spec}))).await.unwrap();
        let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
        let ready = async {
            let mut events = pods.watcher(&kemudi::client::ListOptions::default());
            loop {
                if let Ok(kemudi::client::Event::InitApplied(pod) | kemudi::client::Event::Applied(pod)) =
                    events.next().await
                    && pod["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(is_ready))
                {
                    return;
                }
            }
        };
        tokio::time::timeout(LIMIT, ready).await.unwrap();
        bed
    }

    /// A client in this process, and one over the network.
    fn clients(&self) -> [Client; 2] {
        let config = Config::from_kubeconfig(Some(&self.folder.path().join("config")), None).unwrap();
        [self.cluster.admin(), Client::new(config).unwrap()]
    }

    /// A command of the binary.
    fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kemudi"));
        command.env("KUBECONFIG", self.folder.path().join("config")).args(words).kill_on_drop(true);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        command
    }

    /// Runs a command with an input; its output, its complaints and its exit code.
    async fn run(&self, words: &[&str], input: &str) -> (String, String, i32) {
        let mut child = self.command(words).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
    }
}

fn pods(client: Client) -> Api<Dynamic> {
    Api::namespaced_of(client, "default", &ApiResource::new("", "v1", "Pod", "pods", true))
}

async fn read(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    tokio::time::timeout(LIMIT, from.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_runs_commands_and_reaches_ports() {
    let bed = Bed::start().await;
    for client in bed.clients() {
        let pods = pods(client);
        let port = RemoteOptions { container: Some("port".into()), ..RemoteOptions::output() };
        let session = pods.exec("web", &["sh", "-c", "echo out; echo err >&2; exit 7"], &port).await.unwrap();
        let (outcome, out, err) = session.output().await.unwrap();
        assert_eq!((out, err), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert!(matches!(&outcome, Outcome::Code(7, why) if why.contains("exit code 7")), "{outcome:?}");
        // A terminal: what is typed, and how large it is.
        let options = RemoteOptions { container: port.container.clone(), ..RemoteOptions::terminal() };
        let script = "until [ \"$(stty size)\" = '10 50' ]; do sleep 0.01; done; read word; echo got $word";
        let mut session = pods.exec("web", &["sh", "-c", script], &options).await.unwrap();
        session.take_resizer().unwrap().resize(50, 10).await.unwrap();
        let mut typing = session.take_stdin().unwrap();
        typing.write_all(b"hello\n").await.unwrap();
        assert_eq!(read(session.take_stdout().unwrap()).await, "hello\r\ngot hello\r\n");
        assert_eq!(session.wait().await.unwrap(), Outcome::Success);
        let refused = pods.exec("web", &["ls"], &RemoteOptions::output()).await.unwrap_err();
        assert_eq!(
            refused.status().unwrap().message,
            "a container name must be specified for pod web, choose one of: [main port]"
        );
        let mut way = pods.port_forward("web").await.unwrap();
        let mut stream = way.connect(7000).await.unwrap();
        stream.write_all(b"stressed").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read(&mut stream).await, "desserts");
        assert_eq!(stream.error().await, None);
        let why = way.connect(9).await.unwrap().error().await.unwrap();
        assert!(why.contains("dial tcp4 127.0.0.1:9: connect: connection refused"), "{why}");
    }
    // A client that goes is not waited for, nor does it hold up the end.
    let [_, client] = bed.clients();
    let port = RemoteOptions { container: Some("port".into()), ..RemoteOptions::output() };
    let session = pods(client).exec("web", &["sleep", "1000"], &port).await.unwrap();
    drop(session);
    bed.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_so_too() {
    let bed = Bed::start().await;
    let ran = bed.run(&["exec", "web", "-c", "port", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], "").await;
    assert_eq!(ran, ("out\n".into(), "err\ncommand terminated with exit code 7\n".into(), 7));
    let much = "0123456789\n".repeat(100_000);
    let ran = bed.run(&["exec", "-i", "pod/web", "-c", "port", "--", "cat"], &much).await;
    assert_eq!((ran.0.len(), ran.1.as_str(), ran.2), (much.len(), "", 0));
    let ran = bed.run(&["exec", "web", "-c", "port", "--", "nope"], "").await;
    assert_eq!(ran.2, 1);
    assert!(ran.1.ends_with("exec: \"nope\": executable file not found in $PATH\n"), "{}", ran.1);
    // Files, both ways, and names that the other side has already.
    let path = |name: &str| bed.folder.path().join(name).to_string_lossy().into_owned();
    std::fs::create_dir_all(path("there/deep")).unwrap();
    std::fs::write(path("there/large"), &much).unwrap();
    std::fs::write(path("there/deep/small"), "small").unwrap();
    let copied = |ran: (String, String, i32)| assert_eq!(ran, (String::new(), String::new(), 0));
    copied(bed.run(&["cp", &path("there"), "web:/tmp", "-c", "port"], "").await);
    copied(bed.run(&["cp", &path("there/large"), "default/web:/tmp/there/renamed", "-c", "port"], "").await);
    let (out, err, code) = bed.run(&["cp", "web:/tmp/there", &path("back"), "-c", "port"], "").await;
    assert_eq!((out.as_str(), code), ("", 0), "{err}");
    for (name, want) in [("large", much.as_str()), ("renamed", &much), ("deep/small", "small")] {
        assert!(std::fs::read_to_string(path(&format!("back/{name}"))).unwrap() == want, "{name}");
    }
    let (_, err, code) = bed.run(&["cp", "web:/tmp/none", &path("none"), "-c", "port"], "").await;
    assert!(code == 1 && err.contains("tar in the container ended with 2: "), "{err}");
    let mut child = bed.command(&["port-forward", "web", ":7000"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    let local = line.strip_prefix("Forwarding from 127.0.0.1:").unwrap().strip_suffix(" -> 7000").unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{local}")).await.unwrap();
    stream.write_all(b"live").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read(stream).await, "evil");
    // The last, as it ends the container.
    let ran = bed.run(&["attach", "-i", "web"], "one\ntwo\n").await;
    assert_eq!(ran.0, "got one\ngot two\nend\n", "{}", ran.1);
    assert_eq!((ran.1.as_str(), ran.2), ("Defaulted container \"main\" out of: main, port\n", 0));
    let log = bed.run(&["logs", "web", "main", "--since-time=2000-01-01T00:00:00Z", "--tail=1"], "").await;
    assert_eq!(log.0, "end\n");
    // The way ends with the pod.
    pods(bed.cluster.admin()).delete("web").await.unwrap();
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b"error: lost connection to pod\n"[..]));
    bed.cluster.stop().await.unwrap();
}
