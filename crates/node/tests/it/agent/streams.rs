//! exec, attach and port-forward on a node, over a connection in memory.

use super::{Bed, shell, with};
use ::streams::remote_command::{self, Options, Outcome, Size, V5};
use ::streams::upgrade::{self, OnUpgrade};
use ::streams::websocket::{self, Role};
use ::streams::{Io, port_forward};
use http_body_util::BodyExt;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const LIMIT: Duration = Duration::from_secs(20);

impl Bed {
    /// The connection, or the answer's code and message.
    async fn connect(&self, path: &str, subprotocol: &'static str) -> Result<Io, String> {
        let (ours, theirs) = duplex(4096);
        let mut request = http::Request::get(path).body(()).unwrap();
        let key = upgrade::ask(request.headers_mut(), subprotocol);
        request.extensions_mut().insert(OnUpgrade::new(async { Ok(Box::new(theirs) as Io) }));
        let response = self.node.handle(request).await;
        if response.status() == 101 {
            upgrade::check(response.headers(), &key, subprotocol).unwrap();
            return Ok(Box::new(ours));
        }
        let code = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        Err(format!("{code} {}", String::from_utf8_lossy(&text)))
    }

    /// What a command prints, where and how it ends; `input` is all that it reads.
    async fn exec(&self, path: &str, options: Options, input: &str) -> String {
        let io = match self.connect(path, V5.name).await {
            Ok(io) => io,
            Err(refusal) => return refusal,
        };
        let (mut session, moving) = remote_command::connect(io, options);
        let talk = async {
            let mut resize = session.resize.take();
            if let Some(resize) = &mut resize {
                resize.write_all(&Size { width: 70, height: 20 }.print()).await.unwrap();
            }
            if let Some(mut stdin) = session.stdin.take() {
                stdin.write_all(input.as_bytes()).await.unwrap();
                stdin.shutdown().await.unwrap();
            }
            let (mut out, mut err, mut last) = (String::new(), String::new(), Vec::new());
            if let Some(mut stdout) = session.stdout.take() {
                stdout.read_to_string(&mut out).await.unwrap();
            }
            if let Some(mut stderr) = session.stderr.take() {
                stderr.read_to_string(&mut err).await.unwrap();
            }
            session.error.read_to_end(&mut last).await.unwrap();
            format!("{out}|{err}|{}", told(&Outcome::parse(&last)))
        };
        tokio::time::timeout(LIMIT, async { tokio::join!(moving, talk).1 }).await.unwrap()
    }
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Success => "0".into(),
        Outcome::Code(code, _) => code.to_string(),
        Outcome::Failed(why) => why.clone(),
    }
}

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: Options = Options { stdin: true, stdout: true, stderr: false, tty: true };

#[tokio::test]
async fn commands_run_beside_a_container() {
    let bed = Bed::new();
    let env = json!({"env": [{"name": "WORD", "value": "set"}], "workingDir": "/usr"});
    bed.pod("web", json!({"containers": [with(shell("main", "sleep 1000"), env)]}));
    bed.phase("web", "Running").await;
    let exec = async |command: &str, options: Options, input: &str| {
        let mut words = api::Query::default();
        ["sh", "-c", command].iter().for_each(|word| words.push("command", *word));
        let query = if options.tty { "input=1&output=1&tty=1" } else { "input=1&output=1&error=1" };
        bed.exec(&format!("/exec/shop/web/main?{query}&{}", words.print()), options, input).await
    };
    assert_eq!(exec("cat; echo $WORD; pwd; echo no >&2; exit 5", ALL, "in\n").await, "in\nset\n/usr\n|no\n|5");
    assert_eq!(exec("kill -15 $$", ALL, "").await, "||143");
    // Its own terminal, which knows its name and its size; the size comes when it comes.
    let sized =
        "tty; until [ \"$(stty size)\" = '20 70' ]; do sleep 0.01; done; echo $TERM; test -t 1 && echo yes >/dev/tty";
    assert_eq!(exec(sized, TERMINAL, "").await, "/dev/pts/0\r\nxterm\r\nyes\r\n||0");
    let missing =
        bed.exec("/exec/shop/web/main?output=1&command=nope", Options { stdout: true, ..Options::default() }, "").await;
    assert_eq!(
        missing,
        "||error executing command in container: failed to exec in container: exec: \"nope\": executable file not found in $PATH"
    );
    for (path, want) in [
        ("/exec/shop/web/main?command=ls", "400 you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/shop/none/main?output=1&command=ls", "404 pod does not exist"),
        ("/exec/shop/web/side?output=1&command=ls", "500 container not found (\"side\")"),
        ("/attach/shop/web/side?output=1", "500 container side not found in pod web_shop"),
        ("/portForward/shop/web", "400 query parameter \"port\" is required"),
        ("/portForward/shop/none?port=80", "404 pod does not exist"),
    ] {
        assert_eq!(bed.connect(path, V5.name).await.err().unwrap_or_default().trim_end(), want, "{path}");
    }
}

#[tokio::test]
async fn who_attaches_shares_the_containers_streams() {
    let bed = Bed::new();
    let script = "while read word; do echo got $word; done; echo end";
    let container = with(shell("main", script), json!({"stdin": true, "stdinOnce": true}));
    bed.pod("web", json!({"restartPolicy": "Never", "containers": [container]}));
    bed.phase("web", "Running").await;
    let attached = bed.exec("/attach/shop/web/main?input=1&output=1&error=1", ALL, "one\ntwo\n").await;
    assert_eq!(attached, "got one\ngot two\nend\n||0");
    bed.phase("web", "Succeeded").await;
    assert_eq!(bed.log("web/main").await, "got one\ngot two\nend\n");
}

#[tokio::test]
async fn ports_of_a_pod_are_reached() {
    let bed = Bed::new();
    let echo = "import socket\ns = socket.create_server(('127.0.0.1', 7000))\nprint('ready', flush=True)\nwhile True:\n c, _ = s.accept()\n d = b''\n while p := c.recv(99): d += p\n c.sendall(d[::-1]); c.close()";
    bed.pod("web", json!({"containers": [{"name": "main", "command": ["python3", "-c", echo]}]}));
    bed.logged("web", "ready\n").await;
    let io = bed.connect("/portForward/shop/web", port_forward::TUNNEL).await.unwrap();
    let (mut ports, moving) = port_forward::Client::new(websocket::tunnel(io, Role::Client).await);
    let talk = async {
        let (mut stream, mut error) = ports.open(7000).await.unwrap();
        stream.outgoing.write_all(b"stressed").await.unwrap();
        stream.outgoing.shutdown().await.unwrap();
        let mut back = String::new();
        stream.incoming.read_to_string(&mut back).await.unwrap();
        error.read_to_string(&mut back).await.unwrap();
        let (_, mut error) = ports.open(9).await.unwrap();
        let mut why = String::new();
        error.read_to_string(&mut why).await.unwrap();
        let why = why.rsplit_once("namespace").unwrap().1.split_once(", ").unwrap().1.to_owned();
        // The way ends with the pod.
        bed.api.delete_pod("shop", "web", 0);
        ports.control().gone().cancelled().await;
        (back, why)
    };
    let (back, why) = tokio::time::timeout(LIMIT, async { tokio::join!(moving, talk).1 }).await.unwrap();
    assert_eq!(back, "desserts");
    assert_eq!(
        why,
        "IPv4: dial tcp4 127.0.0.1:9: connect: connection refused IPv6 dial tcp6: [::1]:9: connect: connection refused"
    );
}
