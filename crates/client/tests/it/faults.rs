//! What a client makes of a server and a network that misbehave: answers after the deed, refusals, silence.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use kemudi_client::config::Timeouts;
use kemudi_client::kinds::Pod;
use kemudi_client::transport::full;
use kemudi_client::{Api, Body, Client, Dynamic, Error, ListOptions, Result, Retries, Transport, WatchEvent};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::https::{Endpoint, Issuer, listed};
use crate::table::refused;

/// Makes objects, and answers every second time with something else than the truth.
#[derive(Default)]
struct Faulty {
    asked: AtomicUsize,
    made: Mutex<HashMap<String, usize>>,
}

impl Faulty {
    fn answer(&self, request: &Request<Bytes>) -> Result<Response<Body>> {
        let refusal = |code: u16| {
            let response = Response::builder().status(code).header("retry-after", "0");
            Ok(response.body(full("{}".to_string())).unwrap())
        };
        let fault = self.asked.fetch_add(1, Ordering::Relaxed) % 10;
        match fault {
            0 => return refusal(429),
            1 => return Err(refused()),
            _ => {}
        }
        let name = serde_json::from_slice::<Dynamic>(request.body()).unwrap()["metadata"]["name"].to_string();
        *self.made.lock().unwrap().entry(name).or_default() += 1;
        match fault {
            2 => refusal(503),
            3 => refusal(504),
            4 => refusal(500),
            5 => Err(Error::Lost("cut".to_string())),
            _ => Ok(Response::builder().status(201).body(full(request.body().clone())).unwrap()),
        }
    }
}

impl Transport for Faulty {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        Box::pin(async move { self.answer(&request) })
    }
}

#[tokio::test]
async fn ten_thousand_creates_make_nothing_twice() {
    const CREATES: usize = 10_000;
    let server = Arc::new(Faulty::default());
    let retries = Retries { pause_min: Duration::ZERO, ..Retries::default() };
    let maps: Api<Dynamic> = {
        let client = Client::with_transport(server.clone()).with_retries(retries);
        Api::namespaced_of(client, "a", &kemudi_client::ApiResource::new("", "v1", "ConfigMap", "configmaps", true))
    };
    let (mut made, mut unsure) = (0, 0);
    for number in 0..CREATES {
        match maps.create(&Dynamic(json!({"metadata": {"name": number.to_string()}}))).await {
            Ok(_) => made += 1,
            // Turned away or never sent is repeated, so that what fails is only what may have been done.
            Err(error) => {
                assert!(!error.is_too_many_requests() && !error.is_unsent(), "{error}");
                unsure += 1;
            }
        }
    }
    let all = server.made.lock().unwrap();
    assert!(all.values().all(|times| *times == 1), "made twice: {:?}", all.iter().find(|(_, times)| **times > 1));
    assert_eq!((all.len(), made + unsure), (CREATES, CREATES));
    assert!(made > CREATES / 3 && unsure > CREATES / 3, "{made} made, {unsure} unsure");
}

/// Stands between client and server, and can fall silent: what is connected then stays so, and nothing comes any more.
struct Relay {
    address: SocketAddr,
    silent: watch::Sender<u64>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn before(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (silent, _) = watch::channel(0);
        let connections = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let (fallen, count) = (silent.clone(), connections.clone());
        tasks.spawn(async move {
            let mut relaying = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut fallen = fallen.subscribe();
                relaying.spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = fallen.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Relay { address, silent, connections, _tasks: tasks }
    }

    /// All connections of now are dead, without a word.
    fn fall_silent(&self) {
        self.silent.send_modify(|times| *times += 1);
    }
}

async fn through_a_relay(timeouts: Timeouts) -> (Endpoint, Relay, Client) {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
    let relay = Relay::before(server.address).await;
    let mut config = server.config();
    config.server.port = relay.address.port();
    config.timeouts = timeouts;
    let client = Client::new(config).unwrap();
    assert_eq!(listed(&client).await, "HTTP/2.0");
    (server, relay, client)
}

fn found_out_soon() -> Timeouts {
    let soon = Duration::from_millis(100);
    Timeouts { ping_every: soon, ping: soon, ..Timeouts::default() }
}

#[tokio::test]
async fn reads_leave_a_silent_connection_long_before_it_is_found_dead() {
    let (_server, relay, client) = through_a_relay(Timeouts::default()).await;
    let mut watch = Api::<Pod>::all(client.clone()).watch(&ListOptions::default()).await.unwrap().into_stream().boxed();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Bookmark { .. }))));
    relay.fall_silent();
    let started = Instant::now();
    assert_eq!(listed(&client).await, "HTTP/2.0");
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Bookmark { .. }))), "the watch goes on by itself");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(relay.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_where_the_server_gives_a_sign_of_life() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 100).await;
    let client = Client::new(server.config()).unwrap();
    // It answers when it has been asked for a sign of life, twice.
    let slow = client.get::<serde_json::Value>("/slow").await.unwrap();
    assert_eq!((slow, server.connections()), (json!({"asked": 2}), 1));
}

#[tokio::test]
async fn a_server_that_stops_answering_is_found_out() {
    let (_server, relay, client) = through_a_relay(found_out_soon()).await;
    let mut watch = Api::<Pod>::all(client.clone()).watch(&ListOptions::default()).await.unwrap().into_stream().boxed();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Bookmark { .. }))));
    relay.fall_silent();
    let started = Instant::now();
    assert_eq!(listed(&client).await, "HTTP/2.0");
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Bookmark { .. }))), "the watch goes on by itself");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(relay.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_write_that_met_silence_is_not_repeated() {
    let (_server, relay, client) = through_a_relay(found_out_soon()).await;
    relay.fall_silent();
    let maps = kemudi_client::ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
    let maps = Api::namespaced_of(client.clone(), "a", &maps);
    let error = maps.create(&Dynamic(json!({"metadata": {"name": "x"}}))).await.unwrap_err();
    assert!(error.is_lost() && !error.is_unsent(), "{error}");
    assert_eq!(listed(&client).await, "HTTP/2.0", "the next request finds a new connection");
}
