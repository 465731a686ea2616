//! Ports of the host that lead to services (node ports) and to pods (host ports). Listens on the host and connects within the
//! node's network; where a connection then goes, the packet filter says.

use super::relay;
use crate::agent::Shared;
use crate::sandbox::Switch;
use crate::services::Services;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
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

/// Keeps the node ports of services open, until it is dropped.
pub async fn serve(shared: &Shared, switch: Arc<Switch>) {
    let mut changes = shared.network.changed.subscribe();
    let mut open: BTreeMap<HostPort, Option<AbortOnDropHandle<()>>> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let wanted = node_ports(&shared.services.read());
        open.retain(|port, _| wanted.contains(port));
        for port in wanted {
            if open.contains_key(&port) {
                continue;
            }
            let task = match publish(switch.clone(), &port).await {
                Ok(serving) => Some(AbortOnDropHandle::new(tokio::spawn(serving))),
                Err(error) => {
                    tracing::warn!(%error, "node port {} of {} cannot be opened", port.port, port.target);
                    None
                }
            };
            open.insert(port, task);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn node_ports(services: &Services) -> Vec<HostPort> {
    let mut ports = Vec::new();
    for service in services.iter() {
        let Some(address) = service.reached_at().next() else { continue };
        for port in service.ports.iter().filter(|port| port.node_port != 0) {
            ports.push(HostPort {
                protocol: port.protocol.clone(),
                ip: Ipv4Addr::UNSPECIFIED.into(),
                port: port.node_port,
                target: SocketAddrV4::new(address, port.port),
            });
        }
    }
    ports
}

/// Opens a port of the host; what it gives serves it, as long as it is kept.
///
/// # Errors
/// If the port is somebody else's, or not for this user.
pub async fn publish(switch: Arc<Switch>, port: &HostPort) -> io::Result<futures_util::future::BoxFuture<'static, ()>> {
    let (address, target) = (SocketAddr::new(port.ip, port.port), port.target);
    match port.protocol.as_str() {
        "UDP" => {
            let socket = UdpSocket::bind(address).await?;
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            Ok(Box::pin(relay::datagrams(socket, move |_| {
                let switch = switch.clone();
                async move { switch.datagrams(any, Some(target), false).await }
            })))
        }
        "TCP" | "" => {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::pin(accept(switch, listener, target)))
        }
        other => Err(io::Error::other(format!("ports of {other} cannot be had on this node; TCP and UDP can"))),
    }
}

async fn accept(switch: Arc<Switch>, listener: TcpListener, target: SocketAddrV4) {
    let carry_in = |stream| {
        let switch = switch.clone();
        async move {
            match tokio::time::timeout(CONNECT_MAX, switch.connect(target)).await {
                Ok(Ok(inner)) => relay::connection(stream, inner).await,
                _ => relay::reset(&stream),
            }
        }
    };
    relay::each_connection(listener, CONNECTIONS_MAX, carry_in).await;
}
