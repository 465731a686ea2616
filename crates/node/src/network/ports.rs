//! Ports of the host that lead to services (node ports) and to pods (host ports). Listens on the host and connects within the
//! node's network, from the address of whoever came; where a connection then goes, and whether it may, the packet filter says.

use super::filter::Net;
use super::relay::{self, Connections};
use super::rules::{Door, Place, Targets};
use crate::agent::{ClusterNetwork, Shared};
use crate::sandbox::{self, Switch};
use crate::services::Services;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Connections of one port at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// How long a pod may take to accept one.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A port of the host and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP` or `UDP`.
    pub protocol: String,
    pub ip: IpAddr,
    pub port: u16,
    pub target: SocketAddrV4,
}

/// The way from the host into the node's network.
#[derive(Clone)]
pub struct Entrance {
    switch: Arc<Switch>,
    /// Addresses that are others' within.
    inside: [Net; 2],
}

impl Entrance {
    pub fn new(switch: Arc<Switch>, cluster: &ClusterNetwork) -> Entrance {
        Entrance { switch, inside: [super::pod_range(cluster), super::service_range(cluster)] }
    }

    /// The address that somebody keeps within. The host itself is the node there, and so is who could not be answered.
    fn address_of(&self, peer: SocketAddr) -> Ipv4Addr {
        match peer.ip().to_canonical() {
            IpAddr::V4(address)
                if !address.is_loopback()
                    && !self.inside.iter().any(|net| net.contains(address))
                    && !is_of_this_host(address) =>
            {
                address
            }
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }

    async fn carry_in(self, stream: TcpStream, target: SocketAddrV4) {
        let Ok(peer) = stream.peer_addr() else { return };
        let connecting = self.switch.connect_as(self.address_of(peer), target);
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(inner)) => relay::connection(stream, inner).await,
            _ => relay::reset(&stream),
        }
    }

    async fn datagrams(self, peer: SocketAddr, target: SocketAddrV4) -> io::Result<UdpSocket> {
        let address = self.address_of(peer);
        self.switch.datagrams(SocketAddrV4::new(address, 0), Some(target), !address.is_unspecified()).await
    }
}

/// The kernel knows: only an address of the host's own can be had.
fn is_of_this_host(address: Ipv4Addr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Keeps the node ports of services open, until it is dropped.
pub async fn serve(shared: &Shared, place: &Place, switch: Arc<Switch>) {
    let entrance = Entrance::new(switch, &shared.config.cluster);
    let mut changes = shared.network.changed.subscribe();
    let mut open: BTreeMap<HostPort, (watch::Sender<Door>, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let wanted = node_ports(place, &shared.services.read());
        let gone: Vec<HostPort> = open.keys().filter(|port| !wanted.contains_key(port)).cloned().collect();
        for (_, task) in gone.iter().filter_map(|port| open.remove(port)) {
            // Another service may want the same port at once.
            task.abort();
            let _ = task.await;
        }
        for (port, door) in wanted {
            match open.get(&port) {
                Some((known, _)) => drop(known.send_if_modified(|known| std::mem::replace(known, door) != door)),
                None => {
                    let (sender, door) = watch::channel(door);
                    let task = tokio::spawn(keep(entrance.clone(), port.clone(), door));
                    open.insert(port, (sender, AbortOnDropHandle::new(task)));
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn node_ports(place: &Place, services: &Services) -> BTreeMap<HostPort, Door> {
    let mut ports = BTreeMap::new();
    for service in services.iter() {
        for port in service.ports.iter().filter(|port| port.node_port != 0) {
            let host_port = HostPort {
                protocol: port.protocol.clone(),
                ip: Ipv4Addr::UNSPECIFIED.into(),
                port: port.node_port,
                target: SocketAddrV4::new(place.gateway, port.node_port),
            };
            ports.insert(host_port, Targets::of(place, services, service, port).door(service));
        }
    }
    ports
}

/// Keeps one port as it shall be. Connections go on when no more are taken.
async fn keep(entrance: Entrance, port: HostPort, mut door: watch::Receiver<Door>) {
    let mut connections = Connections::new(CONNECTIONS_MAX);
    loop {
        let now = *door.borrow_and_update();
        let serving = async {
            if now == Door::Closed {
                return std::future::pending().await;
            }
            let opened = Opened::new(&port).await?;
            if now == Door::Deaf && opened.deafen().is_err() {
                // The kernel filters nothing for this user: to be refused is the next best.
                drop(opened);
                return std::future::pending().await;
            }
            opened.serve(&entrance, port.target, &mut connections).await;
            io::Result::Ok(())
        };
        let changed = tokio::select! {
            ended = serving => {
                if let Err(error) = ended {
                    tracing::warn!(%error, "node port {} cannot be opened", port.port);
                }
                door.changed().await
            }
            changed = door.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Opens a port of the host; what it gives serves it, as long as it is kept.
///
/// # Errors
/// If the port is somebody else's, or not for this user.
pub async fn publish(entrance: Entrance, port: &HostPort) -> io::Result<futures_util::future::BoxFuture<'static, ()>> {
    let (opened, target) = (Opened::new(port).await?, port.target);
    Ok(Box::pin(async move { opened.serve(&entrance, target, &mut Connections::new(CONNECTIONS_MAX)).await }))
}

/// A socket of the host.
enum Opened {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Opened {
    async fn new(port: &HostPort) -> io::Result<Opened> {
        let address = SocketAddr::new(port.ip, port.port);
        match port.protocol.as_str() {
            "UDP" => Ok(Opened::Udp(UdpSocket::bind(address).await?)),
            "TCP" | "" => Ok(Opened::Tcp(TcpListener::bind(address).await?)),
            other => Err(io::Error::other(format!("ports of {other} cannot be had on this node; TCP and UDP can"))),
        }
    }

    fn deafen(&self) -> io::Result<()> {
        sandbox::deafen(match self {
            Opened::Tcp(listener) => listener.as_fd(),
            Opened::Udp(socket) => socket.as_fd(),
        })
    }

    async fn serve(self, entrance: &Entrance, target: SocketAddrV4, connections: &mut Connections) {
        match self {
            Opened::Tcp(listener) => {
                connections.take(&listener, |stream| entrance.clone().carry_in(stream, target)).await;
            }
            Opened::Udp(socket) => relay::datagrams(socket, |peer| entrance.clone().datagrams(peer, target)).await,
        }
    }
}
