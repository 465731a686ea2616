//! The agent's side of the node's network: wires to pods and sockets inside of it, asked of the process that holds it.

use super::handle::{Connection, Error};
use super::sys;
use super::wire::{Failure, FromSwitch, Inbox, SocketSpec, ToSwitch, Transport};
use rustix::process::Signal;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Mutex;

/// The node's network. When this is dropped it is gone, with every wire.
pub struct Switch {
    /// Requests are answered in their order, one at a time.
    connection: Mutex<(Connection, Inbox)>,
    next_number: AtomicU32,
    told: std::sync::Once,
    pidfd: OwnedFd,
    filter: Option<OwnedFd>,
}

impl Switch {
    /// Waits until the process has set it up.
    pub(super) async fn receive(connection: Connection, pidfd: OwnedFd) -> Result<Switch, Error> {
        let mut inbox = Inbox::default();
        match connection.receive::<(u32, FromSwitch)>(&mut inbox).await?.ok_or(Error::Ended)? {
            ((_, FromSwitch::Failed(failure)), _) => Err(Error::Refused(failure)),
            (_, mut fds) => Ok(Switch {
                connection: Mutex::new((connection, inbox)),
                next_number: AtomicU32::new(1),
                told: std::sync::Once::new(),
                pidfd,
                filter: fds.pop(),
            }),
        }
    }

    /// The socket to its packet filter; none where the kernel has no filter for us.
    pub fn filter(&self) -> Option<BorrowedFd<'_>> {
        self.filter.as_ref().map(AsFd::as_fd)
    }

    /// Lays a wire to a pod's network.
    pub(crate) async fn attach(&self, address: Ipv4Addr, network: OwnedFd) -> Result<(), Error> {
        self.ask(&ToSwitch::Attach { address }, &[network.as_fd()]).await.map(drop)
    }

    /// Connects to an address of the node's network, as the node itself.
    pub async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        self.connect_as(Ipv4Addr::UNSPECIFIED, to).await
    }

    /// The same as somebody whose address it is.
    pub async fn connect_as(&self, address: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
        let spec = SocketSpec {
            transport: Transport::Connect,
            address: SocketAddrV4::new(address, 0),
            to: Some(to),
            transparent: !address.is_unspecified(),
        };
        let stream = TcpStream::from_std(self.socket(spec).await?.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// Listens on an address of the node's network.
    pub async fn listen(&self, address: SocketAddrV4, transparent: bool) -> io::Result<TcpListener> {
        let spec = SocketSpec { transport: Transport::Listen, address, to: None, transparent };
        TcpListener::from_std(self.socket(spec).await?.into())
    }

    /// A socket for datagrams to and from one place, or all if there is none.
    pub async fn datagrams(
        &self,
        address: SocketAddrV4,
        to: Option<SocketAddrV4>,
        transparent: bool,
    ) -> io::Result<UdpSocket> {
        let spec = SocketSpec { transport: Transport::Datagrams, address, to, transparent };
        UdpSocket::from_std(self.socket(spec).await?.into())
    }

    /// A socket that takes datagrams to any address, and tells which.
    pub async fn all_datagrams(&self, address: SocketAddrV4) -> io::Result<AllDatagrams> {
        let socket = self.datagrams(address, None, true).await?;
        sys::tell_targets(socket.as_fd())?;
        Ok(AllDatagrams(socket))
    }

    async fn socket(&self, spec: SocketSpec) -> io::Result<OwnedFd> {
        let made = self.ask(&ToSwitch::Socket(spec), &[]).await;
        made.map_err(|error| match error {
            Error::Refused(Failure { errno, .. }) if errno != 0 => io::Error::from_raw_os_error(errno),
            Error::Io(error) => error,
            other => io::Error::other(other.to_string()),
        })?
        .ok_or_else(|| io::Error::other("no socket came"))
    }

    async fn ask(&self, message: &ToSwitch, fds: &[BorrowedFd<'_>]) -> Result<Option<OwnedFd>, Error> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let mut guard = self.connection.lock().await;
        let (connection, inbox) = &mut *guard;
        connection.send(&(number, message), fds).await?;
        loop {
            let ((about, answer), mut fds) =
                connection.receive::<(u32, FromSwitch)>(inbox).await?.ok_or(Error::Ended)?;
            // Somebody asked and did not wait.
            if about != number {
                continue;
            }
            return match answer {
                FromSwitch::Done => Ok(fds.pop()),
                FromSwitch::Alone(why) => {
                    self.told.call_once(|| {
                        tracing::warn!(%why, "pods have addresses, but no way to each other: this kernel has no veth devices");
                    });
                    Ok(None)
                }
                FromSwitch::Failed(failure) => Err(Error::Refused(failure)),
            };
        }
    }
}

/// A socket of the node's network for datagrams that are sent elsewhere.
pub struct AllDatagrams(UdpSocket);

impl AllDatagrams {
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next datagram: its length, where it comes from, and where it was sent.
    pub async fn receive(&self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddrV4, SocketAddrV4)> {
        let receive = || sys::receive_with_target(self.0.as_fd(), datagram);
        self.0.async_io(tokio::io::Interest::READABLE, receive).await
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}
