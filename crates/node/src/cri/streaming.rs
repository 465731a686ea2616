//! The streams of commands and containers of a runtime: it names a URL of its own streaming server, and the agent speaks SPDY with
//! that as a kubelet does. What a client of the agent speaks is another matter, and goes on in `remote`.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use streams::Io;
use streams::remote_command::{MESSAGE_BYTES_MAX, Options, Outcome, Streams};
use streams::spdy::{self, Connection, Side, Stream};
use streams::stream::{Incoming, Outgoing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The version of the protocol that tells how a command ended.
const PROTOCOL: &str = "v4.channel.k8s.io";
/// How long the runtime may take to agree.
const AGREE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long what came last may take to be passed on, once the server has closed.
const FINISH_TIME_MAX: Duration = Duration::from_secs(2);
/// What is read of a refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 4096;

/// Joins a client's streams and those at a URL, until what is there has ended or the client has gone. An error is why that cannot be.
pub async fn session(url: &str, options: Options, streams: Streams) -> Result<Outcome, String> {
    let io = tokio::time::timeout(AGREE_TIME_MAX, upgrade(url)).await;
    let io = io.map_err(|_| format!("the runtime's streaming server did not answer within {AGREE_TIME_MAX:?}"))??;
    let (connection, moving) = spdy::connect(io, Side::Client);
    let gone = streams.gone.clone();
    let session = async {
        let control = connection.control().clone();
        let outcome = run(connection, options, streams).await;
        control.close().await;
        outcome
    };
    let mut session = std::pin::pin!(session);
    tokio::select! {
        outcome = &mut session => outcome,
        // As with every container runtime, a command goes on without its client.
        () = gone.cancelled() => Ok(Outcome::Success),
        // What has come counts, whoever is the first to see the end.
        () = moving => tokio::time::timeout(FINISH_TIME_MAX, session)
            .await
            .unwrap_or_else(|_| Err("the runtime's streaming server has ended the connection".into())),
    }
}

async fn run(mut connection: Connection, options: Options, streams: Streams) -> Result<Outcome, String> {
    let mut open = async |kind: &str, wanted: bool| -> Result<Option<Stream>, String> {
        if !wanted {
            return Ok(None);
        }
        let opened = connection.open(vec![("streamtype".to_owned(), kind.to_owned())]).await;
        opened.map(Some).map_err(|error| format!("the runtime's streaming server refused the stream {kind}: {error}"))
    };
    // The server waits for all of them.
    let error = open("error", true).await?.ok_or("no stream for errors")?;
    let stdin = open("stdin", options.stdin).await?;
    let stdout = open("stdout", options.stdout).await?;
    let stderr = open("stderr", options.stderr && !options.tty).await?;
    let resize = open("resize", options.tty).await?;
    let Streams { stdin: from_client, stdout: to_stdout, stderr: to_stderr, resize: sizes, .. } = streams;
    let outputs = async {
        let (_, _, last) =
            tokio::join!(copy_out(stdout, to_stdout), copy_out(stderr, to_stderr), whole(error.incoming));
        last
    };
    let inputs = async {
        let sizing = async {
            let (Some(mut sizes), Some(mut resize)) = (sizes, resize) else { return };
            while let Some(size) = sizes.next().await {
                if resize.outgoing.write_all(&size.print()).await.is_err() {
                    return;
                }
            }
        };
        let typing = async {
            let (Some(mut from), Some(mut stdin)) = (from_client, stdin) else { return };
            while let Some(piece) = from.next().await {
                if stdin.outgoing.write_all(&piece).await.is_err() {
                    // The program does not read any more; what still comes is thrown away, so that the other streams go on.
                    while from.next().await.is_some() {}
                }
            }
            let _ = stdin.outgoing.shutdown().await;
        };
        tokio::join!(typing, sizing);
        std::future::pending::<()>().await;
    };
    let last = tokio::select! {
        last = outputs => last,
        () = inputs => return Err("the streams ended".into()),
    };
    match last.is_empty() {
        true => Ok(Outcome::Success),
        false => Ok(Outcome::parse(&last)),
    }
}

async fn copy_out(from: Option<Stream>, to: Option<Outgoing>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(piece) = from.incoming.next().await {
        if to.write_all(&piece).await.is_err() {
            // The client does not read any more; the others go on.
            while from.incoming.next().await.is_some() {}
        }
    }
}

async fn whole(from: Incoming) -> Vec<u8> {
    let mut last = Vec::new();
    let _ = from.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut last).await;
    last
}

/// The connection at a URL, once its server speaks SPDY.
async fn upgrade(url: &str) -> Result<Io, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the runtime's streaming server at {url}: {error}");
    let uri: Uri = url.parse().map_err(|error| failed(&error))?;
    if uri.scheme_str() != Some("http") {
        return Err(failed(&"only http is spoken with it; turn TLS for streaming off in the runtime, which is local"));
    }
    let authority = uri.authority().ok_or_else(|| failed(&"it names no address"))?.clone();
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("x-stream-protocol-version", PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let ask = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = response.into_parts();
            let text = Limited::new(body, REFUSAL_BYTES_MAX).collect().await.map(|body| body.to_bytes());
            let text = text.unwrap_or_default();
            return Err(failed(&format_args!("{}: {}", head.status, String::from_utf8_lossy(&text).trim())));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| failed(&error))?;
        // Nothing more is asked on it.
        drop(sender);
        Ok(Box::new(TokioIo::new(upgraded)) as Io)
    };
    let (_, io) = tokio::join!(connection.with_upgrades(), ask);
    io
}
