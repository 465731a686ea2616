//! Carries connections and datagrams between the node's network and the host's. Knows neither services nor pods.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// What waits in each direction of a connection, in bytes.
const COPY_BYTES: usize = 32 << 10;
/// The largest datagram.
pub const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// How long datagrams of one client keep their way without any.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Clients of one socket at a time; the datagrams of others are dropped.
const CLIENTS_MAX: usize = 1024;
/// Datagrams of one client that wait to be sent on; more are dropped.
const WAITING_MAX: usize = 64;

/// The pause after a connection could not be taken, for want of descriptors for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves each connection by itself, so many at a time; more wait to be taken. Runs until it is dropped.
pub async fn each_connection<F>(listener: TcpListener, most: usize, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    Connections::new(most).take(&listener, serve).await;
}

/// Connections that go on for as long as this is kept.
pub struct Connections {
    seats: Arc<Semaphore>,
    running: JoinSet<()>,
}

impl Connections {
    /// So many at a time.
    pub fn new(most: usize) -> Connections {
        Connections { seats: Arc::new(Semaphore::new(most)), running: JoinSet::new() }
    }

    /// Serves each new one by itself. When this is dropped no more are taken, and those that there are go on.
    pub async fn take<F>(&mut self, listener: &TcpListener, serve: impl Fn(TcpStream) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            while self.running.try_join_next().is_some() {}
            let Ok(seat) = self.seats.clone().acquire_owned().await else { return };
            let serving = serve(accept(listener).await);
            self.running.spawn(async move {
                serving.await;
                drop(seat);
            });
        }
    }
}

/// The next connection.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Carries a connection on until both sides have ended it.
pub async fn connection(mut one: TcpStream, mut other: TcpStream) {
    let _ = one.set_nodelay(true);
    let _ = other.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut one, &mut other, COPY_BYTES, COPY_BYTES).await;
}

/// Ends a connection as one that nobody took.
pub fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Carries the datagrams of each client to a socket of its own, and the answers back. Runs until it is dropped.
pub async fn datagrams<F>(socket: UdpSocket, open: impl Fn(SocketAddr) -> F)
where
    F: Future<Output = io::Result<UdpSocket>> + Send + 'static,
{
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks: JoinSet<SocketAddr> = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            Some(ended) = tasks.join_next() => {
                if let Ok(client) = ended && clients.get(&client).is_some_and(mpsc::Sender::is_closed) {
                    clients.remove(&client);
                }
            }
            came = socket.recv_from(&mut datagram) => {
                let Ok((count, from)) = came else { continue };
                let open_way = clients.get(&from).is_some_and(|way| !way.is_closed());
                if !open_way {
                    if tasks.len() >= CLIENTS_MAX {
                        continue;
                    }
                    let (way, waiting) = mpsc::channel(WAITING_MAX);
                    clients.insert(from, way);
                    tasks.spawn(client(socket.clone(), from, open(from), waiting));
                }
                if let Some(way) = clients.get(&from) {
                    let _ = way.try_send(datagram[..count].to_vec());
                }
            }
        }
    }
}

/// Carries datagrams between two sockets that are connected, after those that were there before. Ends when nothing comes for
/// a while.
pub async fn way(inner: &UdpSocket, outer: &UdpSocket, mut before: mpsc::Receiver<Vec<u8>>) {
    let (mut going, mut coming) = (vec![0; DATAGRAM_BYTES_MAX], vec![0; DATAGRAM_BYTES_MAX]);
    loop {
        // What is not taken now is lost, as datagrams may be.
        tokio::select! {
            Some(datagram) = before.recv() => drop(outer.send(&datagram).await),
            came = inner.recv(&mut going) => match came {
                Ok(count) => drop(outer.send(&going[..count]).await),
                Err(_) => return,
            },
            came = outer.recv(&mut coming) => match came {
                Ok(count) => drop(inner.send(&coming[..count]).await),
                // Nobody is there any more, or not yet.
                Err(_) => return,
            },
            () = tokio::time::sleep(SILENCE_MAX) => return,
        }
    }
}

async fn client(
    socket: Arc<UdpSocket>,
    from: SocketAddr,
    open: impl Future<Output = io::Result<UdpSocket>>,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> SocketAddr {
    let Ok(other) = open.await else { return from };
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            datagram = waiting.recv() => match datagram {
                // What is not taken now is lost, as datagrams may be.
                Some(datagram) => drop(other.send(&datagram).await),
                None => return from,
            },
            came = other.recv(&mut answer) => match came {
                Ok(count) => drop(socket.send_to(&answer[..count], from).await),
                Err(_) => return from,
            },
            () = tokio::time::sleep(SILENCE_MAX) => return from,
        }
    }
}
