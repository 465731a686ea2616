//! The pods' way out of their network, to the host and beyond: what they send elsewhere comes to a socket of the node's network
//! and is carried on from the host's, as this user. No device and no rule of the host's network is needed.

use super::filter::{TCP, UDP};
use super::relay;
use crate::sandbox::{AllDatagrams, Switch};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Connections that go out at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Ways of datagrams, from a pod's port to a place, at a time; what needs more is dropped.
const WAYS_MAX: usize = 4096;
/// Datagrams of one way that wait for it to be opened; more are dropped.
const WAITING_MAX: usize = 16;
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// Whether pods reach anything outside of the cluster's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WayOut {
    /// TCP and UDP to wherever the host gets.
    #[default]
    Relay,
    None,
}

/// The sockets that take what goes out.
#[derive(Default)]
pub struct Outside {
    sockets: Option<(TcpListener, AllDatagrams)>,
    addresses: Vec<(u8, SocketAddrV4)>,
}

impl Outside {
    pub async fn open(switch: &Switch, way: WayOut) -> io::Result<Outside> {
        if way == WayOut::None {
            return Ok(Outside::default());
        }
        let any_port = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let (listener, datagrams) = (switch.listen(any_port, true).await?, switch.all_datagrams(any_port).await?);
        let mut addresses = Vec::new();
        for (protocol, address) in [(TCP, listener.local_addr()?), (UDP, datagrams.local_addr()?)] {
            if let SocketAddr::V4(address) = address {
                addresses.push((protocol, address));
            }
        }
        Ok(Outside { sockets: Some((listener, datagrams)), addresses })
    }

    /// Where the packet filter is to lead what goes out, by protocol.
    pub fn sockets(&self) -> Vec<(u8, SocketAddrV4)> {
        self.addresses.clone()
    }

    /// Carries on what goes out, until it is dropped.
    pub async fn serve(self, switch: Arc<Switch>) {
        let Some((listener, datagrams)) = self.sockets else { return };
        tokio::join!(
            relay::each_connection(listener, CONNECTIONS_MAX, carry_out),
            Outside::datagrams(datagrams, switch)
        );
    }
}

impl Outside {
    /// Opens a way for each pair of a pod's port and a place. Once it is open, the kernel gives its datagrams to it alone.
    async fn datagrams(socket: AllDatagrams, switch: Arc<Switch>) {
        let mut ways: HashMap<Way, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut tasks: JoinSet<Way> = JoinSet::new();
        let mut datagram = vec![0; relay::DATAGRAM_BYTES_MAX];
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next() => {
                    if let Ok(way) = ended && ways.get(&way).is_some_and(mpsc::Sender::is_closed) {
                        ways.remove(&way);
                    }
                }
                came = socket.receive(&mut datagram) => {
                    let Ok((count, from, to)) = came else { continue };
                    let way = Way { from, to };
                    if ways.get(&way).is_none_or(mpsc::Sender::is_closed) {
                        if tasks.len() >= WAYS_MAX {
                            continue;
                        }
                        let (sender, waiting) = mpsc::channel(WAITING_MAX);
                        ways.insert(way, sender);
                        tasks.spawn(way.carry(switch.clone(), waiting));
                    }
                    if let Some(sender) = ways.get(&way) {
                        let _ = sender.try_send(datagram[..count].to_vec());
                    }
                }
            }
        }
    }
}

/// From where in a pod to where outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    from: SocketAddrV4,
    to: SocketAddrV4,
}

impl Way {
    async fn carry(self, switch: Arc<Switch>, waiting: mpsc::Receiver<Vec<u8>>) -> Way {
        let open = async {
            let outer = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            outer.connect(self.to).await?;
            // To the pod it is the place itself that answers.
            let inner = switch.datagrams(self.to, Some(self.from), true).await?;
            io::Result::Ok((inner, outer))
        };
        if let Ok((inner, outer)) = open.await {
            relay::way(&inner, &outer, waiting).await;
        }
        self
    }
}

async fn carry_out(stream: TcpStream) {
    // Where the pod wanted to go: the socket takes connections to any address, and this is it.
    let Ok(target) = stream.local_addr() else { return };
    match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(target)).await {
        Ok(Ok(out)) => relay::connection(stream, out).await,
        _ => relay::reset(&stream),
    }
}
