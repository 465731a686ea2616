//! exec, attach and port-forward: what of a pod can be connected to, and the sessions of those who are. The framing is the
//! crate `streams`', the processes are the runtime's; here they meet, in the words of the kubelet.

use crate::agent::{Shared, lock};
use crate::console::Console;
use crate::logs::StreamKind;
use crate::probe::Target;
use crate::runtime::RunningPod;
use crate::sandbox::{self, Exit, ProcessSpec, Stdio, Terminal};
use crate::serve::{Body, Refusal, empty, text};
use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use jiff::Timestamp;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streams::port_forward::{self, Forward};
use streams::remote_command::{self, Options, Outcome, Sizes, Streams};
use streams::stream::{Incoming, Outgoing};
use streams::upgrade::{self, Agreed, OnUpgrade};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Sessions of one node at a time; more are refused.
pub const SESSIONS_MAX: usize = 1024;
/// How long the output of a command that ended is waited for, while none comes: something it left may hold it open.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long a client may go on sending to a connection that the pod has closed.
const LINGER_MAX: Duration = Duration::from_secs(1);
const COPY_BYTES: usize = 32 * 1024;

/// What can be connected to, by the pod's namespace and name.
pub type ReachableIndex = HashMap<(String, String), Reachable>;

/// A pod that is there.
#[derive(Clone)]
pub struct Reachable {
    pub uid: String,
    pub pod: Arc<dyn RunningPod>,
    pub host_network: bool,
    /// Those that run.
    pub containers: HashMap<String, Running>,
    /// Cancelled when the pod ends.
    pub ended: CancellationToken,
    pub since: Timestamp,
}

/// A container that runs.
#[derive(Clone)]
pub struct Running {
    pub target: Arc<Target>,
    /// None where its streams are those of whoever started it.
    pub console: Option<Arc<Console>>,
    pub since: Timestamp,
}

/// The sessions that run; they end with the node.
#[derive(Default)]
pub struct Sessions(Mutex<JoinSet<()>>);

impl Sessions {
    fn start(&self, session: impl Future<Output = ()> + Send + 'static) -> Result<(), Refusal> {
        let mut sessions = lock(&self.0);
        while sessions.try_join_next().is_some() {}
        if sessions.len() >= SESSIONS_MAX {
            let message = format!("this node already has {SESSIONS_MAX} sessions; end some, or try again later");
            return Err((StatusCode::SERVICE_UNAVAILABLE, message));
        }
        sessions.spawn(session);
        Ok(())
    }

    /// Ends all of them.
    pub async fn end(&self) {
        let mut sessions = std::mem::take(&mut *lock(&self.0));
        sessions.shutdown().await;
    }

    /// The same without waiting for it.
    pub fn abort(&self) {
        lock(&self.0).abort_all();
    }
}

/// exec and attach, as API servers ask for them: `/exec/NAMESPACE/POD/CONTAINER`.
pub fn command(shared: &Shared, head: &Parts, path: [&str; 4]) -> Result<Response<Body>, Refusal> {
    let [what, namespace, pod, container] = path;
    let query = api::Query::parse(head.uri.query().unwrap_or_default());
    let asked = |name: &str| query.get(name) == Some("1");
    let tty = asked("tty");
    let options = Options { stdin: asked("input"), stdout: asked("output"), stderr: asked("error") && !tty, tty };
    if !options.stdin && !options.stdout && !options.stderr {
        return Err((StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr".into()));
    }
    let found = reachable(shared, namespace, pod)?.containers.get(container).cloned();
    let Some(running) = found else {
        let message = match what {
            "exec" => format!("container not found ({container:?})"),
            _ => format!("container {container} not found in pod {pod}_{namespace}"),
        };
        return Err((StatusCode::INTERNAL_SERVER_ERROR, message));
    };
    let (response, connection, agreed) = match agree(head, &remote_command::OFFERS) {
        Ok(agreed) => agreed,
        Err(response) => return Ok(response),
    };
    if what == "exec" {
        let argv: Vec<String> = query.all("command").map(str::to_owned).collect();
        shared.sessions.start(async move {
            let Ok(io) = connection.connection().await else { return };
            let run = |streams| exec(running, argv, options, streams);
            remote_command::serve(io, agreed, options, run).await;
        })?;
    } else {
        // Whether there is a terminal was decided when the container started.
        let tty = match running.target.process.engine() {
            Some(_) => running.target.container.tty,
            None => running.console.as_ref().is_some_and(|console| console.terminal().is_some()),
        };
        let options = Options { tty, stderr: options.stderr && !tty, ..options };
        shared.sessions.start(async move {
            let Ok(io) = connection.connection().await else { return };
            remote_command::serve(io, agreed, options, |streams| attach(running, options, streams)).await;
        })?;
    }
    Ok(response)
}

/// port-forward, as API servers ask for it: `/portForward/NAMESPACE/POD`.
pub fn port_forward(shared: &Shared, head: &Parts, namespace: &str, pod: &str) -> Result<Response<Body>, Refusal> {
    let tunnelled = upgrade::is_websocket_with(&head.headers, port_forward::TUNNEL);
    let ports = match upgrade::is_websocket(&head.headers) && !tunnelled {
        true => ports(head.uri.query().unwrap_or_default())?,
        false => Vec::new(),
    };
    let pod = reachable(shared, namespace, pod)?;
    let (response, connection, agreed) = match agree(head, &port_forward::OFFERS) {
        Ok(agreed) => agreed,
        Err(response) => return Ok(response),
    };
    shared.sessions.start(async move {
        let Ok(io) = connection.connection().await else { return };
        let ended = pod.ended.clone();
        let pod = &pod;
        tokio::select! {
            () = port_forward::serve(io, agreed, &ports, |asked| forward(pod, asked)) => {}
            () = ended.cancelled() => {}
        }
    })?;
    Ok(response)
}

fn reachable(shared: &Shared, namespace: &str, pod: &str) -> Result<Reachable, Refusal> {
    let found = lock(&shared.reachable).get(&(namespace.to_owned(), pod.to_owned())).cloned();
    found.ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".into()))
}

/// Agrees on what the connection becomes; an error is the answer to a client with which there is no agreeing.
fn agree(head: &Parts, offers: &upgrade::Offers) -> Result<(Response<Body>, OnUpgrade, Agreed), Response<Body>> {
    let Some(connection) = head.extensions.get::<OnUpgrade>().filter(|_| upgrade::is_upgrade(&head.headers)) else {
        return Err(text(StatusCode::INTERNAL_SERVER_ERROR, "Upgrade request required\n".into()));
    };
    let (response, agreed) = upgrade::agree(&head.method, &head.headers, offers).map_err(|refusal| {
        let mut response = text(refusal.code, refusal.text);
        for (name, value) in refusal.headers {
            if let Ok(value) = http::HeaderValue::from_str(&value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    })?;
    Ok((response.map(|()| empty()), connection.clone(), agreed))
}

/// The ports of a query: `port=80,443`.
fn ports(query: &str) -> Result<Vec<u16>, Refusal> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let query = api::Query::parse(query);
    let mut ports = Vec::new();
    for given in query.all("port") {
        if given.is_empty() {
            return Err(bad("query parameter \"port\" cannot be empty".into()));
        }
        for port in given.split(',') {
            match port.parse::<u16>() {
                Ok(0) => return Err(bad(format!("port {given:?} must be > 0"))),
                Ok(port) => ports.push(port),
                Err(_) => {
                    let why = format!("strconv.ParseUint: parsing {port:?}: invalid syntax");
                    return Err(bad(format!("unable to parse {given:?} as a port: {why}")));
                }
            }
        }
    }
    if ports.is_empty() {
        return Err(bad("query parameter \"port\" is required".into()));
    }
    if ports.len() > port_forward::PORTS_MAX {
        return Err(bad(format!("at most {} ports go into one connection", port_forward::PORTS_MAX)));
    }
    Ok(ports)
}

/// Runs a command in a container with the client's streams.
async fn exec(running: Running, argv: Vec<String>, options: Options, streams: Streams) -> Outcome {
    let failed = |why: String| Outcome::Failed(format!("error executing command in container: {why}"));
    if argv.is_empty() {
        return failed("no command specified; name one with command=".into());
    }
    if let Some(engine) = running.target.process.engine() {
        return engine.exec(argv, options, streams).await;
    }
    let mut spec = ProcessSpec { argv: argv.clone(), terminal: Terminal::None, ..(*running.target.spec).clone() };
    if options.tty {
        spec.terminal = Terminal::Own;
        set_term(&mut spec.env);
    }
    let gone = streams.gone.clone();
    let ended = CancellationToken::new();
    let session = async {
        let (stdio, ends) = Ends::prepare(options).map_err(|error| error.to_string())?;
        let process = running.target.process.exec(spec, stdio).await.map_err(|error| match error {
            sandbox::Error::Refused(failure) => format!("failed to exec in container: {failure}"),
            other => format!("failed to exec in container: {other}"),
        })?;
        let copying = ends.copy(streams, &ended).map_err(|error| error.to_string())?;
        let ending = async {
            let exit = process.wait().await;
            ended.cancel();
            exit
        };
        let ((), exit) = tokio::join!(copying, ending);
        Ok(exit)
    };
    let exit: Result<Exit, String> = tokio::select! {
        exit = session => exit,
        // As with every container runtime, the command goes on without its client.
        () = gone.cancelled() => return Outcome::Success,
    };
    match exit {
        Ok(exit) if exit.code() == 0 => Outcome::Success,
        Ok(exit) => {
            let code = exit.code();
            Outcome::Code(code, format!("error executing command [{}], exit code {code}", argv.join(" ")))
        }
        Err(why) => failed(why),
    }
}

/// What every container runtime sets for a program on a terminal.
pub fn set_term(env: &mut Vec<(String, String)>) {
    env.retain(|(name, _)| name != "TERM");
    env.push(("TERM".into(), "xterm".into()));
}

/// The agent's ends of a command's streams.
enum Ends {
    Terminal(sandbox::Console),
    Pipes { stdin: Option<OwnedFd>, stdout: Option<OwnedFd>, stderr: Option<OwnedFd> },
}

impl Ends {
    fn prepare(options: Options) -> io::Result<(Stdio, Ends)> {
        if options.tty {
            let (stdio, console) = sandbox::Console::new()?;
            return Ok((stdio, Ends::Terminal(console)));
        }
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let output = |wanted: bool| -> io::Result<(Option<OwnedFd>, OwnedFd)> {
            match wanted {
                true => io::pipe().map(|(read, write)| (Some(read.into()), write.into())),
                false => Ok((None, null()?)),
            }
        };
        let (stdin_read, stdin) = match options.stdin {
            true => io::pipe().map(|(read, write)| (OwnedFd::from(read), Some(OwnedFd::from(write))))?,
            false => (null()?, None),
        };
        let ((stdout, stdout_write), (stderr, stderr_write)) = (output(options.stdout)?, output(options.stderr)?);
        let stdio = Stdio { stdin: stdin_read, stdout: stdout_write, stderr: stderr_write };
        Ok((stdio, Ends::Pipes { stdin, stdout, stderr }))
    }

    /// Copies in all directions until everything that the command printed has been sent.
    fn copy<'a>(
        self,
        streams: Streams,
        ended: &'a CancellationToken,
    ) -> io::Result<impl Future<Output = ()> + Send + 'a> {
        type Reader = Box<dyn AsyncRead + Send + Unpin>;
        type Writer = Box<dyn AsyncWrite + Send + Unpin>;
        let (input, stdout, stderr, terminal): (Option<Writer>, Option<Reader>, Option<Reader>, _) = match self {
            Ends::Terminal(console) => {
                let terminal = console.terminal()?;
                (Some(Box::new(terminal.clone())), Some(Box::new(terminal.clone())), None, Some(terminal))
            }
            Ends::Pipes { stdin, stdout, stderr } => {
                let write = |fd| Ok::<_, io::Error>(Box::new(pipe::Sender::from_owned_fd(fd)?) as Writer);
                let read = |fd| Ok::<_, io::Error>(Box::new(pipe::Receiver::from_owned_fd(fd)?) as Reader);
                (stdin.map(write).transpose()?, stdout.map(read).transpose()?, stderr.map(read).transpose()?, None)
            }
        };
        let Streams { stdin, stdout: to_stdout, stderr: to_stderr, resize, .. } = streams;
        Ok(async move {
            let outputs = async {
                tokio::join!(copy_out(stdout, to_stdout, ended), copy_out(stderr, to_stderr, ended));
            };
            let inputs = async {
                tokio::join!(copy_in(stdin, input), resize_as_asked(resize, terminal));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = outputs => {}
                () = inputs => {}
            }
        })
    }
}

async fn resize_as_asked(sizes: Option<Sizes>, terminal: Option<sandbox::ConsoleTerminal>) {
    let (Some(mut sizes), Some(terminal)) = (sizes, terminal) else { return };
    while let Some(size) = sizes.next().await {
        let _ = terminal.resize(size.width, size.height);
    }
}

/// Passes on what a client types; the end of it is the end of the program's stdin.
async fn copy_in(from: Option<Incoming>, to: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(piece) = from.next().await {
        if to.write_all(&piece).await.is_err() {
            // The program does not read any more; what still comes is thrown away, so that the other streams go on.
            while from.next().await.is_some() {}
        }
    }
}

/// Passes on what a program prints, to its end; after the program's own end only as long as more comes soon.
async fn copy_out(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<Outgoing>, ended: &CancellationToken) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let over = async {
            ended.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        let count = tokio::select! {
            biased;
            count = from.read(&mut buffer) => count.unwrap_or(0),
            () = over => 0,
        };
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Joins in on a container's own streams, until it ends.
async fn attach(running: Running, options: Options, streams: Streams) -> Outcome {
    if let Some(engine) = running.target.process.engine() {
        return engine.attach(options, streams).await;
    }
    let failed = |why: &str| Outcome::Failed(format!("error attaching to container: {why}"));
    let Some(console) = running.console else {
        return failed("its streams are those of the terminal that it was started from");
    };
    let Streams { stdin, stdout, stderr, resize, gone } = streams;
    let listen = |kind, wanted: Option<Outgoing>| wanted.map(|to| (console.listen(kind), to));
    let (stdout, stderr) = (listen(StreamKind::Stdout, stdout), listen(StreamKind::Stderr, stderr));
    if [&stdout, &stderr].into_iter().flatten().any(|(pieces, _)| pieces.is_none()) {
        return failed("too many are attached already");
    }
    let outputs = async {
        match (stdout, stderr) {
            (None, None) => drop(running.target.process.wait().await),
            (stdout, stderr) => drop(tokio::join!(pass_on(stdout), pass_on(stderr))),
        }
    };
    let inputs = async {
        let typing = async {
            let Some(mut stdin) = stdin else { return };
            while let Some(piece) = stdin.next().await {
                if console.write(&piece).await.is_err() {
                    break;
                }
            }
            console.typed().await;
        };
        tokio::join!(typing, resize_as_asked(resize, console.terminal().cloned()));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = outputs => {}
        () = inputs => {}
        () = gone.cancelled() => {}
    }
    Outcome::Success
}

async fn pass_on(listening: Option<(Option<mpsc::Receiver<Bytes>>, Outgoing)>) {
    let Some((Some(mut pieces), mut to)) = listening else { return };
    while let Some(piece) = pieces.recv().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// Carries one connection to a port of a pod.
async fn forward(pod: &Reachable, asked: Forward) -> Result<(), String> {
    let port = asked.port;
    let Forward { mut incoming, mut outgoing, reset, .. } = asked;
    let stream = connect(pod, port).await.map_err(|why| {
        let uid = &pod.uid;
        format!(
            "error forwarding port {port} to pod {uid}, uid : failed to execute portforward in network namespace \
             {uid:?}: failed to connect to localhost:{port} inside namespace {uid:?}, {why}"
        )
    })?;
    let (mut from_pod, mut to_pod) = stream.into_split();
    let sending = async {
        while let Some(piece) = incoming.next().await {
            to_pod.write_all(&piece).await?;
        }
        to_pod.shutdown().await
    };
    let answering = async {
        let copied = tokio::io::copy(&mut from_pod, &mut outgoing).await;
        let _ = outgoing.shutdown().await;
        copied
    };
    let both = async {
        let mut sending = std::pin::pin!(sending);
        let mut answering = std::pin::pin!(answering);
        let mut sent = false;
        loop {
            tokio::select! {
                result = &mut sending, if !sent => {
                    sent = true;
                    // A pod that does not listen any more may still have something to say.
                    let _ = result;
                }
                result = &mut answering => {
                    if !sent {
                        let _ = tokio::time::timeout(LINGER_MAX, &mut sending).await;
                    }
                    return result.map(drop);
                }
            }
        }
    };
    tokio::select! {
        result = both => result.map_err(|error| {
            format!("error forwarding port {port} to pod {}, uid : {error}", pod.uid)
        }),
        () = reset.cancelled() => Ok(()),
    }
}

/// A connection to a port on the pod's own loopback device; an error is why there is none, for both kinds of addresses.
async fn connect(pod: &Reachable, port: u16) -> Result<TcpStream, String> {
    let attempt = async |ip: IpAddr| {
        let address = SocketAddr::new(ip, port);
        match pod.host_network {
            true => TcpStream::connect(address).await.map_err(|error| words(&error)),
            false => pod.pod.connect(address).await.map_err(|error| match error {
                sandbox::Error::Io(error) => words(&error),
                sandbox::Error::Refused(failure) if failure.errno != 0 => {
                    words(&io::Error::from_raw_os_error(failure.errno))
                }
                other => other.to_string(),
            }),
        }
    };
    match attempt(Ipv4Addr::LOCALHOST.into()).await {
        Ok(stream) => Ok(stream),
        Err(first) => attempt(Ipv6Addr::LOCALHOST.into()).await.map_err(|second| {
            format!(
                "IPv4: dial tcp4 127.0.0.1:{port}: connect: {first} IPv6 dial tcp6: [::1]:{port}: connect: {second}"
            )
        }),
    }
}

/// The error's words as Go has them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
