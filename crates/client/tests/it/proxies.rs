//! Ways to the server that lead through a proxy, with and without a login.

use std::sync::{Arc, Mutex};

use kemudi_client::config::Proxy;
use kemudi_client::{Client, Retries};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::https::{Endpoint, Issuer, listed};

/// What each connection to a proxy said first.
type Said = Arc<Mutex<Vec<String>>>;

/// A proxy that wants the login `me`, `secret`, and writes down what it is asked.
async fn proxy(socks: bool) -> (String, Said, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let said = Said::default();
    let mut tasks = JoinSet::new();
    let told = said.clone();
    tasks.spawn(async move {
        let mut relaying = JoinSet::new();
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let told = told.clone();
            // Whoever hangs up is refused in the same way.
            relaying.spawn(async move {
                let _ = if socks { socks5(near, &told).await } else { connect(near, &told).await };
            });
        }
    });
    (address, said, tasks)
}

async fn connect(mut near: TcpStream, said: &Said) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    said.lock().unwrap().push(head.trim_end().replace("\r\n", " | "));
    // me:secret
    if !head.contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n") {
        return near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    }
    let mut far = TcpStream::connect(head.split(' ').nth(1).unwrap()).await?;
    near.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await?;
    copy_bidirectional(&mut near, &mut far).await.map(drop)
}

async fn socks5(mut near: TcpStream, said: &Said) -> std::io::Result<()> {
    let mut hello = [0; 2];
    near.read_exact(&mut hello).await?;
    let mut methods = vec![0; hello[1].into()];
    near.read_exact(&mut methods).await?;
    if !methods.contains(&2) {
        return near.write_all(&[5, 0xff]).await;
    }
    near.write_all(&[5, 2]).await?;
    let mut login = vec![0; 1 + 1 + 2 + 1 + 6];
    near.read_exact(&mut login).await?;
    assert_eq!(login, b"\x01\x02me\x06secret");
    near.write_all(&[1, 0]).await?;
    let mut ask = [0; 10];
    near.read_exact(&mut ask).await?;
    let (ip, port) = (&ask[4..8], u16::from_be_bytes([ask[8], ask[9]]));
    said.lock().unwrap().push(format!("{:?} {ip:?}", &ask[..4]));
    let mut far = TcpStream::connect((std::net::Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]), port)).await?;
    near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut near, &mut far).await.map(drop)
}

async fn through(server: &Endpoint, url: String) -> String {
    let mut config = server.config();
    config.proxy = Some(Proxy::parse(&url).unwrap());
    let client = Client::new(config).unwrap().with_retries(Retries::NONE);
    listed(&client).await.replace(&server.address.to_string(), "SERVER")
}

#[tokio::test]
async fn http_proxies() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
    let (address, said, _tasks) = proxy(false).await;
    assert_eq!(through(&server, format!("http://me:secret@{address}")).await, "HTTP/2.0");
    let said = said.lock().unwrap().join("\n").replace(&server.address.to_string(), "SERVER");
    assert_eq!(said, "CONNECT SERVER HTTP/1.1 | Host: SERVER | Proxy-Authorization: Basic bWU6c2VjcmV0");
    assert_eq!(
        through(&server, format!("http://{address}")).await,
        format!(
            "cannot reach the API server at https://SERVER: through the proxy http://{address}: it answers \"HTTP/1.1 407 \
             Proxy Authentication Required\"\n  the way leads through a proxy: see proxy-url in the kubeconfig, HTTPS_PROXY \
             and NO_PROXY"
        )
    );
}

#[tokio::test]
async fn socks_proxies() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
    let (address, said, _tasks) = proxy(true).await;
    assert_eq!(through(&server, format!("socks5://me:secret@{address}")).await, "HTTP/2.0");
    assert_eq!(said.lock().unwrap().join("\n"), "[5, 1, 0, 1] [127, 0, 0, 1]");
    let refused = through(&server, format!("socks5://{address}")).await;
    assert!(refused.contains("it wants a login of another kind"), "{refused}");
}
