//! The pods' way out of their network, to the host and beyond: what they send elsewhere comes to a socket of the node's network
//! and is carried on from the host's, as this user. No device and no rule of the host's network is needed.

use super::filter::TCP;
use super::relay;
use crate::sandbox::Switch;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections that go out at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// Whether pods reach anything outside of the cluster's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WayOut {
    /// TCP to wherever the host gets.
    #[default]
    Relay,
    None,
}

/// The sockets that take what goes out.
#[derive(Default)]
pub struct Outside {
    tcp: Option<(TcpListener, SocketAddrV4)>,
}

impl Outside {
    pub async fn open(switch: &Switch, way: WayOut) -> io::Result<Outside> {
        if way == WayOut::None {
            return Ok(Outside::default());
        }
        let listener = switch.listen(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), true).await?;
        let SocketAddr::V4(address) = listener.local_addr()? else { return Ok(Outside::default()) };
        Ok(Outside { tcp: Some((listener, address)) })
    }

    /// Where the packet filter is to lead what goes out, by protocol.
    pub fn sockets(&self) -> Vec<(u8, SocketAddrV4)> {
        self.tcp.iter().map(|(_, address)| (TCP, *address)).collect()
    }

    /// Carries on what goes out, until it is dropped.
    pub async fn serve(self, _switch: Arc<Switch>) {
        let Some((listener, _)) = self.tcp else { return };
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(seat) = seats.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else { continue };
            connections.spawn(async move {
                let _seat = seat;
                carry_out(stream).await;
            });
        }
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
