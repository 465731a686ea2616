//! exec, attach, port-forward, cp and logs, as kubectl does them, over WebSockets and over SPDY, and what is refused of them.
//! Other languages' clients do the same in `clients`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::Server;
use testkit::clients::{go_streams, java_class_path, javascript_streams, kubectl, python, python_streams, skipped};
use testkit::command::{Finished, RUN_LIMIT, run, spawn};
use testkit::server::{ADMIN_TOKEN, request};

/// The two framings that kubectl has, and what chooses them.
const FRAMINGS: [(&str, &str); 2] = [("WebSocket", "true"), ("SPDY", "false")];
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

fn base64url(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

/// A container, from its name, its script and whatever else it has.
fn container(name: &str, script: &str, more: Value) -> Value {
    let mut container = json!({"name": name, "image": "host", "command": ["sh", "-c", script]});
    container.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    container
}

/// A server with a pod `web` of these containers, which runs.
fn with_pod(containers: Value) -> Server {
    let server = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    let spec = json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": containers});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
    server.apply(&pod.to_string());
    server.wait_for_phase("web", "Running");
    server
}

/// kubectl in one of the framings.
fn kubectl_in(server: &Server, framing: &str, words: &[&str]) -> Command {
    let mut command = server.client(kubectl());
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", framing).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", framing);
    command.args(words);
    command
}

fn exec(server: &Server, framing: &str, words: &[&str], stdin: &str) -> Finished {
    run(&mut kubectl_in(server, framing, &[&["exec", "-i", "web"], words].concat()), stdin, RUN_LIMIT)
}

#[test]
fn exec_has_streams_and_exit_codes() {
    if skipped() {
        return;
    }
    let server = with_pod(json!([
        container("main", "sleep 1000", json!({"env": [{"name": "WORD", "value": "set"}]})),
        container("side", "sleep 1000", json!({})),
    ]));
    for (name, framing) in FRAMINGS {
        let check = |words: &[&str], stdin: &str, code: i32, stdout: &str, stderr: &str| {
            let ran = exec(&server, framing, words, stdin);
            let trouble = server.trouble();
            assert_eq!((ran.code, ran.stdout.as_str()), (code, stdout), "{name} {words:?}: {}\n{trouble}", ran.stderr);
            assert!(ran.stderr.contains(stderr), "{name} {words:?}: {}", ran.stderr);
        };
        check(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"], "", 7, "out\n", "err\n");
        check(&["-c", "side", "--", "cat"], "typed\n", 0, "typed\n", "");
        check(&["--", "sh", "-c", "echo $WORD $TERM"], "", 0, "set\n", "");
        // More than any queue on the way holds, in both directions.
        let much = "0123456789abcde\n".repeat(200_000);
        check(&["--", "cat"], &much, 0, &much, "");
        // A program that reads nothing of what it is given.
        check(&["--", "true"], &much, 0, "", "");
        check(&["--", "sh", "-c", "kill -9 $$"], "", 137, "", "command terminated with exit code 137");
        let missing = r#"error executing command in container: failed to exec in container: exec: "nope": executable file not found in $PATH"#;
        check(&["--", "nope"], "", 1, "", missing);
        check(&["-c", "none", "--", "true"], "", 1, "", "container none is not valid for pod web");
        // What it leaves behind goes on.
        check(&["--", "sh", "-c", "(sleep 0.2; echo done > /tmp/left) >/dev/null 2>&1 &"], "", 0, "", "");
        check(
            &["--", "sh", "-c", "until [ -s /tmp/left ]; do sleep 0.01; done; cat /tmp/left; rm /tmp/left"],
            "",
            0,
            "done\n",
            "",
        );
    }
}

#[test]
fn exec_and_attach_have_a_terminal() {
    if skipped() {
        return;
    }
    let server = with_pod(json!([
        container("main", "sleep 1000", json!({})),
        container("shell", "tty; cat", json!({"tty": true, "stdin": true})),
    ]));
    for (name, framing) in FRAMINGS {
        // `script` makes a terminal, whose size is set before kubectl begins.
        let inside = "tty; until [ \"$(stty size)\" = '31 99' ]; do sleep 0.01; done; echo $TERM; echo through > /dev/tty; exit 5";
        let line = format!(
            "stty rows 31 cols 99; exec {} exec -it web -c main -- sh -c '{}'",
            kubectl().display(),
            inside.replace('\'', "'\\''")
        );
        let mut script = server.client("script");
        script.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", framing).env("SHELL", "/bin/sh");
        script.args(["-qec", &line, "/dev/null"]);
        let ran = run(&mut script, "", RUN_LIMIT);
        let shown: Vec<&str> =
            ran.stdout.lines().map(|line| line.trim_matches(['\r', '\u{4}', '^', 'D', '@', '\u{8}', '\0'])).collect();
        assert!(
            shown.windows(3).any(|three| three == ["/dev/pts/0", "xterm", "through"]),
            "{name}: {:?}\n{}",
            ran.stdout,
            ran.stderr
        );
        assert_eq!(ran.code, 5, "{name}: {}", ran.stdout);
    }
    // The container's own terminal: what is typed is shown, and logged.
    let line = format!("exec {} attach -it web -c shell", kubectl().display());
    let mut script = server.client("script");
    script.env("SHELL", "/bin/sh").args(["-qec", &line, "/dev/null"]);
    let mut child = spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut typing = child.stdin.take().unwrap();
    typing.write_all(b"hello there\n").unwrap();
    let want = "/dev/pts/0\r\nhello there\r\nhello there\r\n";
    let began = std::time::Instant::now();
    loop {
        // What was typed, and what the program makes of it.
        let log = server.kubectl("logs web -c shell").ok();
        if log == want {
            break;
        }
        assert!(began.elapsed() < RUN_LIMIT, "{log:?}\n{}", server.trouble());
    }
    let mut shown = vec![0; 4096];
    let count = child.stdout.take().unwrap().read(&mut shown).unwrap();
    assert!(String::from_utf8_lossy(&shown[..count]).contains("hello there"));
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn attach_shares_a_containers_streams() {
    if skipped() {
        return;
    }
    let script = "echo before; while read word; do echo got $word; echo heard $word >&2; done; echo end";
    for (name, framing) in FRAMINGS {
        let server = with_pod(json!([container("main", script, json!({"stdin": true, "stdinOnce": true}))]));
        let watching =
            kubectl_in(&server, framing, &["attach", "web"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut watching = watching.unwrap();
        // It prints this when it is attached.
        let mut told = BufReader::new(watching.stderr.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        let ran = run(&mut kubectl_in(&server, framing, &["attach", "-i", "web"]), "one\ntwo\n", RUN_LIMIT);
        // Stdin ended with the first who was attached, so the program ended, and with it everything.
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (0, "got one\ngot two\nend\n"),
            "{name}: {}\n{}",
            ran.stderr,
            server.trouble()
        );
        assert!(ran.stderr.ends_with("heard one\nheard two\n"), "{name}: {}", ran.stderr);
        let mut seen = String::new();
        watching.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
        assert!("before\ngot one\ngot two\nend\n".ends_with(&seen) && seen.ends_with("end\n"), "{name}: {seen}");
        assert!(watching.wait().unwrap().success());
        // Two streams are read each for itself.
        let log = server.kubectl("logs web").ok();
        let of = |word: &str| log.lines().filter(|line| line.starts_with(word)).collect::<Vec<_>>().join(",");
        assert_eq!((of("got"), of("heard")), ("got one,got two".into(), "heard one,heard two".into()), "{log}");
    }
}

/// An HTTP server that closes each connection, one that repeats what it hears until the client ends, on IPv6 alone.
const PORTS: &str = r#"
import http.server, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"x" * 1000000 if self.path == "/large" else b"small"
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
def echo():
    listener = socket.create_server(("::1", 7000), family=socket.AF_INET6)
    while True:
        peer, _ = listener.accept()
        data = b""
        while piece := peer.recv(4096): data += piece
        peer.sendall(data + b" to the end"); peer.close()
threading.Thread(target=echo, daemon=True).start()
server = http.server.ThreadingHTTPServer(("", 8000), Handler)
print("ready", flush=True)
server.serve_forever()
"#;

#[test]
fn port_forward_carries_connections() {
    if skipped() {
        return;
    }
    let server = with_pod(json!([{"name": "main", "image": "host", "command": [python(), "-c", PORTS]}]));
    let began = std::time::Instant::now();
    while server.kubectl("logs web").stdout != "ready\n" {
        assert!(began.elapsed() < RUN_LIMIT, "{}", server.kubectl("logs web").stdout);
    }
    for (name, framing) in FRAMINGS {
        let mut forwarding = kubectl_in(&server, framing, &["port-forward", "pod/web", ":8000", ":7000", ":9"]);
        let mut child = spawn(forwarding.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut port = |to: &str| loop {
            // Forwarding from 127.0.0.1:40001 -> 8000
            let line = lines.next().expect("kubectl tells its ports").unwrap();
            if let Some((from, _)) =
                line.rsplit_once(" -> ").filter(|(from, end)| *end == to && from.contains("127.0.0.1"))
            {
                return from.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
            }
        };
        let (http, echo, nobody) = (port("8000"), port("7000"), port("9"));
        let get = |path: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
            stream.set_read_timeout(Some(RUN_LIMIT)).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.rsplit_once("\r\n\r\n").unwrap().1.to_owned()
        };
        assert_eq!(get("/"), "small", "{name}");
        // Side by side.
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|at| scope.spawn(move || (at, get(if at % 2 == 0 { "/large" } else { "/" }).len())))
                .collect();
            for one in all {
                let (at, length) = one.join().unwrap();
                assert_eq!(length, if at % 2 == 0 { 1_000_000 } else { 5 }, "{name}");
            }
        });
        // The client has no more to say, and still hears.
        let mut stream = TcpStream::connect(("127.0.0.1", echo)).unwrap();
        stream.set_read_timeout(Some(RUN_LIMIT)).unwrap();
        stream.write_all(b"half").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "half to the end", "{name}");
        let mut stream = TcpStream::connect(("127.0.0.1", nobody)).unwrap();
        let _ = stream.read_to_string(&mut answer);
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        let want = r#"inside namespace \"UID\", IPv4: dial tcp4 127.0.0.1:9: connect: connection refused IPv6 dial tcp6: [::1]:9: connect: connection refused"#;
        let uid = server.json("admin", "GET /api/v1/namespaces/default/pods/web")["metadata"]["uid"].clone();
        assert!(told.contains(&want.replace("UID", uid.as_str().unwrap())), "{name}: {told}");
        let _ = child.wait();
    }
}

/// Programs on other languages' clients, whose steps each print `ok NAME` or `FAIL NAME: why`.
#[test]
fn other_clients_do_so_too() {
    if skipped() {
        return;
    }
    let heard = "while read word; do echo heard $word; done";
    let backwards = "import socket\ns = socket.create_server(('127.0.0.1', 7000))\nprint('ready', flush=True)\nwhile True:\n c, _ = s.accept()\n c.sendall(c.makefile('rb').readline().strip()[::-1]); c.close()";
    let server = with_pod(json!([
        container("main", "sleep 1000", json!({})),
        container("echo", heard, json!({"stdin": true})),
        {"name": "port", "image": "host", "command": [python(), "-c", backwards]},
    ]));
    let began = std::time::Instant::now();
    while server.kubectl("logs web -c port").stdout != "ready\n" {
        assert!(began.elapsed() < RUN_LIMIT, "{}", server.trouble());
    }
    let both = |steps: &str| -> Vec<String> {
        steps
            .split_whitespace()
            .flat_map(|step| ["WebSocket", "SPDY"].map(|framing| format!("{step}{framing}")))
            .collect()
    };
    let each = |steps: &str| steps.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let programs = [
        (vec![go_streams()], both("Output ExitCode Input Terminal Missing Attach Ports")),
        (
            vec![python(), python_streams()],
            each(
                "exec_gives_output exec_gives_the_exit_code exec_takes_input exec_has_a_terminal exec_carries_bytes \
                 exec_is_refused attach_gives_output port_forward_carries_bytes port_forward_tells_what_is_wrong",
            ),
        ),
        (
            vec!["node".into(), javascript_streams()],
            each(
                "execGivesOutputAndStatus execGivesTheExitCode execTakesInput attachGivesOutput \
                 portForwardCarriesConnections logsAreFollowed",
            ),
        ),
        (
            vec!["java".into(), "-cp".into(), java_class_path(), "Streams".into()],
            each(
                "execGivesOutput execGivesTheExitCode execTakesInput execHasATerminal attachGivesOutput \
                 portForwardCarriesBytes",
            ),
        ),
    ];
    for (program, steps) in programs {
        let ran = run(server.client(&program[0]).args(&program[1..]), "", RUN_LIMIT);
        let want: String = steps.iter().map(|step| format!("ok {step}\n")).collect();
        assert_eq!(ran.stdout, want, "{}\n{}\n{}", ran.line, ran.stderr, server.trouble());
    }
}

#[test]
fn files_are_copied_both_ways() {
    if skipped() {
        return;
    }
    let server = with_pod(json!([container("main", "sleep 1000", json!({}))]));
    for (name, framing) in FRAMINGS {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        std::fs::create_dir_all(path("there/deep")).unwrap();
        let large: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(path("there/large"), &large).unwrap();
        std::fs::write(path("there/deep/small"), "small").unwrap();
        let copy = |from: &str, to: &str| {
            run(kubectl_in(&server, framing, &["cp", from, to]).current_dir(folder.path()), "", RUN_LIMIT).ok()
        };
        copy("there", &format!("web:/tmp/{name}"));
        copy(&format!("web:/tmp/{name}"), "back");
        assert_eq!(std::fs::read_to_string(path("back/deep/small")).unwrap(), "small", "{name}");
        assert!(std::fs::read(path("back/large")).unwrap() == large, "{name}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_before_the_upgrade() {
    let server = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    let main = json!({"name": "main", "image": "host", "command": ["sleep", "1000"]});
    let waiting = json!({"name": "waiting", "image": "example.com/none:1"});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [main, waiting]});
    let pod = json!({"metadata": {"name": "web"}, "spec": spec});
    server.json("admin", &format!("POST /api/v1/namespaces/default/pods {pod}"));
    let path = "/api/v1/namespaces/default/pods/web";
    let began = std::time::Instant::now();
    while server.json("admin", &format!("GET {path}"))["status"]["containerStatuses"][0]["ready"] != true {
        assert!(began.elapsed() < RUN_LIMIT, "{}", server.trouble());
    }
    let check = |who: &str, ask: &str, headers: &[(&str, &str)], want: &str| {
        let mut asked = request(who, ask);
        asked.headers.extend(headers.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let answer = server.endpoint.connect(ANSWER_LIMIT).unwrap().exchange(&asked).unwrap();
        assert_eq!(testkit::server::describe(&answer), want, "{ask}\n{}", server.trouble());
    };
    let websocket: &[(&str, &str)] = &[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let spdy: &[(&str, &str)] = &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let post = |what: &str| format!("POST {path}/{what}");
    let get = |what: &str| format!("GET {path}/{what}");
    let admin = |ask: String, headers: &[(&str, &str)], want: &str| check("admin", &ask, headers, want);
    admin(post("exec?container=main&command=ls&stdout=true"), &[], "400 Upgrade request required");
    admin(get("attach?container=main&stdout=true"), &[], "400 Upgrade request required");
    admin(post("portforward"), &[], "400 Upgrade request required");
    admin(
        post("exec?command=ls&stdout=true"),
        spdy,
        "400 a container name must be specified for pod web, choose one of: [main waiting]",
    );
    admin(post("exec?container=x&command=ls"), spdy, "400 container x is not valid for pod web");
    admin(post("portforward?ports=x"), spdy, r#"400 strconv.ParseInt: parsing "x": invalid syntax"#);
    // From here on the node answers, in text.
    let streams = "400 you must specify at least 1 of stdin, stdout, stderr";
    admin(post("exec?container=main&command=ls"), spdy, streams);
    admin(get("attach?container=main&stdin=false"), websocket, streams);
    admin(post("exec?container=waiting&command=ls&stdout=1"), spdy, r#"500 container not found ("waiting")"#);
    admin(post("attach?container=waiting&stdout=1"), spdy, "500 container waiting not found in pod web_default");
    let missing = "400 unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 2 headers";
    admin(post("exec?container=main&command=ls&stdout=1"), spdy, missing);
    let other = [spdy, &[("x-stream-protocol-version", "v9.channel.k8s.io")]].concat();
    let accepts = "v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io";
    admin(
        post("exec?container=main&command=ls&stdout=1"),
        &other,
        &format!(
            "403 unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts [{accepts}]"
        ),
    );
    let other = [websocket, &[("sec-websocket-protocol", "v9.channel.k8s.io")]].concat();
    admin(get("exec?container=main&command=ls&stdout=1"), &other, "403 ");
    admin(get("portforward"), websocket, r#"400 query parameter "port" is required"#);
    admin(get("portforward?ports=0"), websocket, r#"400 port "0" must be > 0"#);
    // A browser has no other place for its token than among the subprotocols; it goes no further than the server.
    let browser = format!("v9.channel.k8s.io, base64url.bearer.authorization.k8s.io.{}", base64url(ADMIN_TOKEN));
    let browser = [websocket, &[("sec-websocket-protocol", browser.as_str())]].concat();
    check("anonymous", &get("exec?container=main&command=ls&stdout=1"), &browser, "403 ");
    // Reading is not enough: what a WebSocket begins with a GET is a creation.
    for (role, verb) in [("looks", "get"), ("does", "create")] {
        let rules = json!([{"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": [verb]}]);
        let role_object = json!({"metadata": {"name": role}, "rules": rules});
        let binding = json!({
            "metadata": {"name": role}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": role}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        });
        let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
        server.json("admin", &format!("POST {rbac}/roles {role_object}"));
        server.json("admin", &format!("POST {rbac}/rolebindings {binding}"));
    }
    for what in ["exec?container=main&command=ls&stdout=1", "attach?container=main&stdout=1", "portforward?ports=80"] {
        check("looks", &get(what), websocket, r#"403 pods "web" is forbidden: "#);
        let sub = what.split('?').next().unwrap();
        let text = format!(
            r#"403 pods "web" is forbidden: User "does" cannot get resource "pods/{sub}" in API group "" in the namespace "default""#
        );
        check("does", &get(what), websocket, &text);
    }
}

/// A request that became a connection ends with it: in the audit log and among what is open.
#[test]
fn a_connection_is_seen_until_it_ends() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Metadata, resources: [{group: '', resources: [pods/exec]}]}\n- {level: None}\n";
    std::fs::write(path("policy"), policy).unwrap();
    let flags = ["--audit-policy-file", &path("policy"), "--audit-log-path", &path("log")];
    let server = Server::start(&[&["--node", "sandbox", "--store", "memory://"][..], &flags].concat());
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container("main", "sleep 1000", json!({}))]});
    server.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}).to_string());
    server.wait_for_phase("web", "Running");
    let open = || {
        let metrics = server.curl("/metrics").ok();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("apiserver_longrunning_requests") && line.contains(r#"subresource="exec""#));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
    };
    let stages = || {
        let log = std::fs::read_to_string(path("log")).unwrap_or_default();
        let stage = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", event["stage"].as_str().unwrap(), event["responseStatus"]["code"])
        };
        log.lines().map(stage).collect::<Vec<_>>()
    };
    let mut command = kubectl_in(&server, "true", &["exec", "-i", "web", "--", "sh", "-c", "echo ready; cat"]);
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let mut want = vec!["RequestReceived null".to_owned(), "ResponseStarted 101".to_owned()];
    assert_eq!((open().as_str(), stages()), ("1", want.clone()));
    drop(child.stdin.take());
    child.wait().unwrap();
    want.push("ResponseComplete 101".into());
    let began = std::time::Instant::now();
    while open() != "0" || stages() != want {
        assert!(began.elapsed() < RUN_LIMIT, "{} {:?}", open(), stages());
    }
}

#[test]
fn logs_are_as_they_are_asked_for() {
    if skipped() {
        return;
    }
    let script = "n=$(cat /keep/n 2>/dev/null || echo 0); echo $((n + 1)) > /keep/n; echo run $n; for i in 1 2 3 4 5; do echo line $i; done; \
                  sleep 0.2; echo oops >&2; sleep 0.2; [ $n = 0 ] && exit 3; read word; echo last $word";
    let server = Server::start(&["--node", "sandbox", "--store", "memory://"]);
    let mount = json!({"stdin": true, "stdinOnce": true, "volumeMounts": [{"name": "keep", "mountPath": "/keep"}]});
    let spec = json!({
        "terminationGracePeriodSeconds": 0, "restartPolicy": "OnFailure",
        "containers": [container("main", script, mount)], "volumes": [{"name": "keep", "emptyDir": {}}],
    });
    server.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}).to_string());
    let began = std::time::Instant::now();
    let whole = |logs: String| logs.starts_with("run 1\n") && logs.ends_with("oops\n");
    while !whole(server.kubectl("logs web").stdout) {
        assert!(began.elapsed() < RUN_LIMIT, "{}", server.trouble());
    }
    let check = |flags: &str, want: &str| {
        let ran = server.kubectl(&format!("logs web {flags}"));
        assert_eq!(ran.stdout, want, "{flags}: {}", ran.stderr);
    };
    let lines = "line 1\nline 2\nline 3\nline 4\nline 5\n";
    check("", &format!("run 1\n{lines}oops\n"));
    check("--tail=2", "line 5\noops\n");
    check("--tail=0", "");
    check("--limit-bytes=9", "run 1\nlin");
    check("-p", &format!("run 0\n{lines}oops\n"));
    check("-p --tail=1", "oops\n");
    check("--since=1h --tail=1", "oops\n");
    check("--since-time=2100-01-01T00:00:00Z", "");
    check("--since-time=2000-01-01T00:00:00Z --tail=1", "oops\n");
    let timed = server.kubectl("logs web --timestamps --tail=1").ok();
    let (time, rest) = timed.split_once(' ').unwrap();
    assert!(time.len() == 30 && time.ends_with('Z') && rest == "oops\n", "{timed}");
    // Following ends with the container.
    let mut command = server.client(kubectl());
    let mut follow = spawn(command.args(["logs", "-f", "--tail=1", "web"]).stdout(Stdio::piped()));
    let mut out = BufReader::new(follow.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    run(server.client(kubectl()).args(["attach", "-i", "web"]), "word\n", RUN_LIMIT).ok();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(follow.wait().unwrap().success());
    assert_eq!((first.as_str(), rest.as_str()), ("oops\n", "last word\n"));
}
