//! Sessions over a connection in memory: what one side says, the other hears, in every framing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use streams::port_forward::{self, Forward};
use streams::remote_command::{self, OFFERS, Options, Outcome, Size, Streams, V5};
use streams::spdy;
use streams::upgrade::Agreed;
use streams::websocket::{Protocol, Role, Said};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: true };
const LIMIT: Duration = Duration::from_secs(10);

/// A program that says its terminal's size and what it reads, complains, and ends as its input says.
async fn program(mut streams: Streams) -> Outcome {
    let mut stdout = streams.stdout.take().unwrap();
    if let Some(size) = streams.resize.as_mut() {
        let size = size.next().await.unwrap();
        stdout.write_all(format!("{}x{} ", size.width, size.height).as_bytes()).await.unwrap();
    }
    let mut stdin = streams.stdin.take().unwrap();
    let mut read = vec![0; 5];
    stdin.read_exact(&mut read).await.unwrap();
    stdout.write_all(&read).await.unwrap();
    streams.stderr.take().unwrap().write_all(b"alas").await.unwrap();
    match read.as_slice() {
        b"hello" => Outcome::Success,
        b"code7" => Outcome::Code(7, "so it is".into()),
        _ => Outcome::Failed("no".into()),
    }
}

/// Runs the program for a client that speaks a subprotocol; all that the client hears, a word a channel.
async fn over_websocket(protocol: &'static Protocol, input: &str) -> String {
    let (server, client) = duplex(1024);
    let serving = remote_command::serve(Box::new(server), Agreed::WebSocket(protocol), ALL, program);
    let asking = async {
        let socket: WebSocketStream<DuplexStream> = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let (mut sink, mut messages) = socket.split();
        let size = Size { width: 80, height: 25 }.print();
        for said in [Said::Bytes(4, size), Said::Bytes(0, Bytes::copy_from_slice(input.as_bytes()))] {
            sink.send(protocol.encode(&said).unwrap()).await.unwrap();
        }
        let mut heard = vec![String::new(); 5];
        while let Some(Ok(message)) = messages.next().await {
            if let Message::Close(_) = &message {
                break;
            }
            if let Some(Said::Bytes(channel, bytes)) = protocol.decode(message) {
                heard[usize::from(channel)] += std::str::from_utf8(&bytes).unwrap();
            }
        }
        let _ = sink.close().await;
        heard.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" | ")
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(serving, asking).1 }).await.unwrap()
}

const CODE_7: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: so it is","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;

#[tokio::test]
async fn every_subprotocol_carries_a_command() {
    for protocol in OFFERS.websocket {
        let last = |status: &str, text: &str| match (protocol.status, text) {
            (true, _) => format!(" | {status}"),
            (false, "") => String::new(),
            (false, text) => format!(" | {text}"),
        };
        let success = r#"{"metadata":{},"status":"Success"}"#;
        let heard = over_websocket(protocol, "hello").await;
        assert_eq!(heard, format!("80x25 hello | alas{}", last(success, "")), "{protocol:?}");
        let heard = over_websocket(protocol, "code7").await;
        let text = "command terminated with non-zero exit code: so it is";
        assert_eq!(heard, format!("80x25 code7 | alas{}", last(CODE_7, text)), "{protocol:?}");
    }
}

#[tokio::test]
async fn every_version_of_spdy_carries_a_command() {
    for version in OFFERS.spdy {
        let resizes = OFFERS.spdy[..2].contains(version);
        let (server, client) = duplex(1024);
        let serving = remote_command::serve(Box::new(server), Agreed::Spdy(version), ALL, program);
        let (mut connection, moving) = spdy::connect(Box::new(client), spdy::Side::Client);
        let asking = async {
            let mut open =
                async |kind: &str| connection.open(vec![("streamtype".to_string(), kind.to_string())]).await.unwrap();
            let mut error = open("error").await;
            let (mut stdin, mut stdout, mut stderr) = (open("stdin").await, open("stdout").await, open("stderr").await);
            if resizes {
                let mut resize = open("resize").await;
                resize.outgoing.write_all(&Size { width: 80, height: 25 }.print()).await.unwrap();
            }
            stdin.outgoing.write_all(b"code7").await.unwrap();
            let mut heard = vec![];
            for stream in [&mut stdout, &mut stderr, &mut error] {
                let mut text = String::new();
                stream.incoming.read_to_string(&mut text).await.unwrap();
                heard.push(text);
            }
            connection.control().close().await;
            heard.join(" | ")
        };
        let all = async { tokio::join!(serving, moving, asking).2 };
        let heard = tokio::time::timeout(LIMIT, all).await.unwrap();
        let size = if resizes { "80x25 " } else { "" };
        let last =
            if *version == OFFERS.spdy[0] { CODE_7 } else { "command terminated with non-zero exit code: so it is" };
        assert_eq!(heard, format!("{size}code7 | alas | {last}"), "{version}");
    }
}

#[tokio::test]
async fn the_client_here_and_the_server_here_agree() {
    let (server, client) = duplex(1024);
    let options = Options { tty: false, ..ALL };
    let serving = remote_command::serve(Box::new(server), Agreed::WebSocket(V5), options, |mut streams| async move {
        // Ends only when the client ends what it types.
        let (mut stdin, mut stdout) = (streams.stdin.take().unwrap(), streams.stdout.take().unwrap());
        let count = tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
        Outcome::Code(3, format!("{count} bytes"))
    });
    let (mut session, moving) = remote_command::connect(Box::new(client), options);
    let asking = async {
        let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
        let sent = vec![7; 300_000];
        let mut back = Vec::new();
        let (_, _) = tokio::join!(
            async {
                stdin.write_all(&sent).await.unwrap();
                stdin.shutdown().await.unwrap();
            },
            stdout.read_to_end(&mut back)
        );
        assert!(back == sent);
        let mut last = Vec::new();
        session.error.read_to_end(&mut last).await.unwrap();
        Outcome::parse(&last)
    };
    let all = async { tokio::join!(serving, moving, asking).2 };
    let outcome = tokio::time::timeout(LIMIT, all).await.unwrap();
    assert_eq!(outcome, Outcome::Code(3, "300000 bytes".into()));
}

/// What a port says to a client: it repeats what it hears, port 9 refuses.
async fn echo(mut asked: Forward) -> Result<(), String> {
    if asked.port == 9 {
        return Err("refused".into());
    }
    let _ = tokio::io::copy(&mut asked.incoming, &mut asked.outgoing).await;
    let _ = asked.outgoing.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn connections_to_ports_are_apart() {
    for agreed in [Agreed::Spdy("portforward.k8s.io"), Agreed::Tunnel] {
        let (server, client) = duplex(1024);
        let serving = port_forward::serve(Box::new(server), agreed, &[], echo);
        let asking = async {
            let io: streams::Io = match agreed {
                Agreed::Tunnel => streams::websocket::tunnel(Box::new(client), Role::Client).await,
                _ => Box::new(client),
            };
            let (mut ports, moving) = port_forward::Client::new(io);
            let use_them = async {
                let (mut first, _) = ports.open(80).await.unwrap();
                let (mut second, _) = ports.open(81).await.unwrap();
                let (_, mut refused) = ports.open(9).await.unwrap();
                second.outgoing.write_all(b"two").await.unwrap();
                first.outgoing.write_all(b"one").await.unwrap();
                let mut heard = Vec::new();
                // The end in one direction is not the end in the other.
                for stream in [&mut first, &mut second] {
                    stream.outgoing.shutdown().await.unwrap();
                    let mut text = String::new();
                    stream.incoming.read_to_string(&mut text).await.unwrap();
                    heard.push(text);
                }
                let mut why = String::new();
                refused.read_to_string(&mut why).await.unwrap();
                heard.push(why);
                ports.control().close().await;
                heard.join(" ")
            };
            tokio::join!(moving, use_them).1
        };
        let all = async { tokio::join!(serving, asking).1 };
        assert_eq!(tokio::time::timeout(LIMIT, all).await.unwrap(), "one two refused", "{agreed:?}");
    }
}

#[tokio::test]
async fn ports_in_channels_say_which_they_are() {
    let (server, client) = duplex(1024);
    let protocol = &port_forward::OFFERS.websocket[0];
    let serving = port_forward::serve(Box::new(server), Agreed::WebSocket(protocol), &[80, 9], echo);
    let asking = async {
        let socket: WebSocketStream<DuplexStream> = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let (mut sink, mut messages) = socket.split();
        sink.send(protocol.encode(&Said::Bytes(0, Bytes::from_static(b"hi"))).unwrap()).await.unwrap();
        let mut heard = vec![Vec::new(); 4];
        while heard[0].len() < 4 || heard[3].len() < 9 {
            if let Some(Said::Bytes(channel, bytes)) = protocol.decode(messages.next().await.unwrap().unwrap()) {
                heard[usize::from(channel)].extend_from_slice(&bytes);
            }
        }
        let _ = sink.close().await;
        heard
    };
    let all = async { tokio::join!(serving, asking).1 };
    let heard = tokio::time::timeout(LIMIT, all).await.unwrap();
    assert_eq!(heard, [b"P\0hi".to_vec(), b"P\0".to_vec(), b"\x09\0".to_vec(), b"\x09\0refused".to_vec()]);
}

#[tokio::test]
async fn who_goes_ends_the_command() {
    for agreed in [Agreed::WebSocket(V5), Agreed::Spdy(OFFERS.spdy[0])] {
        let (server, client) = duplex(1024);
        let options = Options { stdout: true, ..Options::default() };
        drop(client);
        let serving = remote_command::serve(Box::new(server), agreed, options, |streams| async move {
            streams.gone.cancelled().await;
            Outcome::Success
        });
        tokio::time::timeout(LIMIT, serving).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_makes_no_streams_is_let_go() {
    let (server, mut client) = duplex(1024);
    let serving = remote_command::serve(Box::new(server), Agreed::Spdy(OFFERS.spdy[0]), ALL, program);
    let waiting = async move {
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
    };
    let began = tokio::time::Instant::now();
    tokio::join!(serving, waiting);
    assert_eq!(began.elapsed().as_secs(), streams::CREATION_TIME_MAX.as_secs());
}
