//! Probes of containers: when they run, what their results add up to, and how one is made.

use crate::pod::{Container, GrpcAction, HttpGet, Probe};
use crate::runtime::{RunningPod, RunningProcess};
use crate::sandbox::{Exit, ProcessSpec, Stdio, Terminal};
use crate::{grpc_probe, probe_tls};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// How much of a probe's output is read, in bytes.
const OUTPUT_BYTES_MAX: u64 = 10 << 10;
const SIGKILL: i32 = 9;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As events name it.
    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// Adds results up: a change counts once it came as often in a row as the probe's threshold says.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    last: Option<bool>,
    in_a_row: u32,
}

impl Counter {
    /// Takes a result; returns it if it counts.
    pub fn observe(&mut self, healthy: bool, probe: &Probe) -> Option<bool> {
        if self.last == Some(healthy) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.last = Some(healthy);
            self.in_a_row = 1;
        }
        let threshold = if healthy { probe.success_threshold } else { probe.failure_threshold };
        (self.in_a_row >= threshold.max(1)).then_some(healthy)
    }
}

/// What a probe is made in.
#[derive(Clone)]
pub struct Target {
    pub pod: Arc<dyn RunningPod>,
    pub process: Arc<dyn RunningProcess>,
    pub container: Arc<Container>,
    /// The environment and user of the container, for commands.
    pub spec: Arc<ProcessSpec>,
    pub pod_ip: Option<IpAddr>,
    /// The pod has the host's network: it is reached as any address is.
    pub host_network: bool,
}

/// Makes a probe once. An error is what an event says about it.
pub async fn run(target: &Target, probe: &Probe) -> Result<(), String> {
    let limit = Duration::from_secs(probe.timeout_seconds.max(1));
    if let Some(exec) = &probe.exec {
        return match command(target, &exec.command, limit).await? {
            (Exit::Code(0), _) => Ok(()),
            (_, output) => Err(output),
        };
    }
    let attempt = async {
        if let Some(http) = &probe.http_get {
            http_get(target, http).await
        } else if let Some(action) = &probe.grpc {
            grpc(target, action).await
        } else if let Some(tcp) = &probe.tcp_socket {
            connect(target, &tcp.host, &tcp.port).await.map(drop)
        } else {
            Err("the probe names no way: set exec, httpGet, tcpSocket or grpc".to_owned())
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) if probe.grpc.is_some() => {
            Err(format!("timeout: health rpc did not complete within {}s", limit.as_secs()))
        }
        Err(_) => Err(format!("no answer within {}s", limit.as_secs())),
    }
}

/// Runs a command in the container; how it ended and what it printed.
pub async fn command(target: &Target, argv: &[String], limit: Duration) -> Result<(Exit, String), String> {
    if let Some(engine) = target.process.engine() {
        return engine.run(argv, limit).await;
    }
    let spec = ProcessSpec { argv: argv.to_vec(), terminal: Terminal::None, ..(*target.spec).clone() };
    let io = |error: std::io::Error| error.to_string();
    let (reader, writer) = std::io::pipe().map_err(io)?;
    let stderr: OwnedFd = writer.try_clone().map_err(io)?.into();
    let stdin = std::fs::File::open("/dev/null").map_err(io)?.into();
    let stdio = Stdio { stdin, stdout: writer.into(), stderr };
    let process = target.process.exec(spec, stdio).await.map_err(|error| error.to_string())?;
    let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).map_err(io)?;
    let read = async move {
        let mut output = Vec::new();
        // The reader goes with this: what is printed beyond the limit has none, and the program is told so.
        let _ = reader.take(OUTPUT_BYTES_MAX).read_to_end(&mut output).await;
        output
    };
    let run = async { tokio::join!(read, process.wait()) };
    match tokio::time::timeout(limit, run).await {
        Ok((output, exit)) => Ok((exit, String::from_utf8_lossy(&output).into_owned())),
        Err(_) => {
            process.signal(SIGKILL).await;
            Err(format!("command timed out: {:?} timed out after {}s", argv.join(" "), limit.as_secs()))
        }
    }
}

/// An HTTP request; an answer from 200 to 399 is good.
pub async fn http_get(target: &Target, http: &HttpGet) -> Result<(), String> {
    let tls = http.scheme.eq_ignore_ascii_case("https");
    let stream = connect(target, &http.host, &http.port).await?;
    let host = http.http_headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    let host = host.map_or_else(|| http_host(target, http), |header| header.value.clone());
    let path = if http.path.starts_with('/') { http.path.clone() } else { format!("/{}", http.path) };
    let failed = |error: String| format!("Get \"{}://{host}{path}\": {error}", if tls { "https" } else { "http" });
    if tls {
        let ip = stream.peer_addr().map_err(|error| failed(error.to_string()))?.ip();
        let stream = probe_tls::connect(stream, &host, ip).await.map_err(failed)?;
        return exchange(stream, http, &host, &path).await.map_err(failed)?;
    }
    exchange(stream, http, &host, &path).await.map_err(failed)?
}

/// One request and the beginning of its answer. The inner error is what the answer says.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    http: &HttpGet,
    host: &str,
    path: &str,
) -> Result<Result<(), String>, String> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/1.37\r\nAccept: */*\r\nConnection: close\r\n"
    );
    for header in http.http_headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("host")) {
        request += &format!("{}: {}\r\n", header.name, header.value);
    }
    request += "\r\n";
    let io = |error: std::io::Error| error.to_string();
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut head = Vec::new();
    let mut answer = stream.take(OUTPUT_BYTES_MAX);
    while !head.contains(&b'\n') && answer.read_buf(&mut head).await.map_err(io)? > 0 {}
    match status_code(&head) {
        Some(code) if (200..400).contains(&code) => Ok(Ok(())),
        Some(code) => Ok(Err(format!("HTTP probe failed with statuscode: {code}"))),
        None => Err("malformed HTTP response".to_owned()),
    }
}

async fn grpc(target: &Target, action: &GrpcAction) -> Result<(), String> {
    let stream = connect(target, "", &action.port).await?;
    let authority = stream.peer_addr().map_err(|error| error.to_string())?.to_string();
    grpc_probe::check(stream, &authority, &action.service).await
}

fn http_host(target: &Target, http: &HttpGet) -> String {
    let port = port_number(&target.container, &http.port).unwrap_or_default();
    match (http.host.as_str(), target.pod_ip) {
        ("", Some(IpAddr::V6(ip))) => format!("[{ip}]:{port}"),
        ("", Some(ip)) => format!("{ip}:{port}"),
        (host, _) => format!("{host}:{port}"),
    }
}

fn status_code(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.parse().ok()
}

async fn connect(target: &Target, host: &str, port: &Value) -> Result<TcpStream, String> {
    let port = port_number(&target.container, port)?;
    let ip = match host {
        "" => target.pod_ip.ok_or("the pod has no address yet")?,
        host => host.parse().map_err(|_| format!("the host {host:?} of a probe must be an address"))?,
    };
    let address = SocketAddr::new(ip, port);
    let stream = match target.host_network {
        true => TcpStream::connect(address).await.map_err(|error| error.to_string()),
        false => target.pod.connect(address).await.map_err(|error| error.to_string()),
    };
    stream.map_err(|error| format!("dial tcp {address}: {error}"))
}

fn port_number(container: &Container, port: &Value) -> Result<u16, String> {
    let number = match port {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(name) => {
            let named = container.ports.iter().find(|known| known.name == *name).map(|known| known.container_port);
            named.or_else(|| name.parse().ok())
        }
        _ => None,
    };
    number.filter(|port| *port > 0).ok_or_else(|| format!("couldn't find port: {port} in container {}", container.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` is a good result, `x` a bad one; what counts is written as `+` and `-`.
    fn check(success: u32, failure: u32, results: &str, expected: &str) {
        let probe = Probe { success_threshold: success, failure_threshold: failure, ..Probe::default() };
        let mut counter = Counter::default();
        let word = |result: char| match counter.observe(result == '.', &probe) {
            None => ' ',
            Some(true) => '+',
            Some(false) => '-',
        };
        assert_eq!(results.chars().map(word).collect::<String>(), expected);
    }

    #[test]
    fn thresholds() {
        check(1, 3, "..xx.xxxx.", "++  +  --+");
        check(2, 1, ".x..x", " - +-");
    }

    #[test]
    fn reads_status_lines() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status_code(b"SSH-2.0"), None);
    }
}
