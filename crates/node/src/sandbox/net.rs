//! A pod's network: the loopback device with the addresses of the cluster, and the sockets that listen on them. Runs in
//! the pod's init; never touches the host's network. The wire to the other pods is `switch`'s.

use super::netlink::{self, Batch};
use super::{Listen, Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted, per listening socket.
const LISTEN_BACKLOG: i32 = 1024;
/// The loopback device is always the first of a network namespace.
pub const LOOPBACK: u32 = 1;

/// The network namespace of the caller.
pub fn namespace() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/self/ns/net")?.into())
}

/// Brings `lo` up and puts the addresses on it.
pub fn set_up(addresses: &[IpAddr]) -> io::Result<()> {
    let socket = netlink::routing()?;
    let mut batch = Batch::new(1);
    // struct ifinfomsg: family, padding, type, index, flags, mask of changed flags.
    let up = libc::IFF_UP as u32;
    let mut link = vec![0u8; 4];
    for word in [LOOPBACK, up, up] {
        link.extend(word.to_ne_bytes());
    }
    batch.ask(libc::RTM_NEWLINK, 0, &link, |_| {});
    for address in addresses {
        add_address(&mut batch, LOOPBACK, *address);
    }
    batch.send(&socket)?;
    // As container runtimes do: in a pod's own network any user may listen on any port. An older kernel may not have it.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(())
}

/// Puts an address on a device, as the only one of its network.
pub fn add_address(batch: &mut Batch, device: u32, address: IpAddr) {
    let (family, bits, bytes) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, 32u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, 128, v6.octets().to_vec()),
    };
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut message = vec![family as u8, bits, libc::IFA_F_NODAD as u8, 0];
    message.extend(device.to_ne_bytes());
    batch.ask(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &message, |it| {
        it.put(libc::IFA_LOCAL, &bytes);
        it.put(libc::IFA_ADDRESS, &bytes);
    });
}

/// Opens one listening (TCP) or bound (UDP) socket, non-blocking.
pub fn listen(listen: &Listen) -> io::Result<OwnedFd> {
    let family = if listen.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match listen.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &listen.address)?;
    if let Protocol::Tcp = listen.protocol {
        rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    }
    Ok(socket)
}

/// Begins to connect, without waiting for the other side.
pub fn connect(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
