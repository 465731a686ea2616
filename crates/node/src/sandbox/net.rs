//! A pod's network: the loopback device with the addresses of the cluster, and the sockets that listen on them. Runs in
//! the pod's init; never touches the host's network.

use super::{Listen, Protocol};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted, per listening socket.
const LISTEN_BACKLOG: i32 = 1024;
/// The loopback device is always the first of a network namespace.
const LOOPBACK: u32 = 1;
const ANSWER_BYTES: usize = 4096;

/// Brings `lo` up and puts the addresses on it.
pub fn set_up(addresses: &[IpAddr]) -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // struct ifinfomsg: family, padding, type, index, flags, mask of changed flags.
    let up = libc::IFF_UP as u32;
    let mut link = vec![0u8; 4];
    for word in [LOOPBACK, up, up] {
        link.extend(word.to_ne_bytes());
    }
    request(&socket, libc::RTM_NEWLINK, 0, &link)?;
    for address in addresses {
        let (family, bits, bytes) = match address {
            IpAddr::V4(v4) => (libc::AF_INET, 32u8, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, 128, v6.octets().to_vec()),
        };
        // struct ifaddrmsg: family, prefix length, flags, scope, index; then the address twice.
        let mut message = vec![family as u8, bits, libc::IFA_F_NODAD as u8, 0];
        message.extend(LOOPBACK.to_ne_bytes());
        for attribute in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
            message.extend((4 + bytes.len() as u16).to_ne_bytes());
            message.extend(attribute.to_ne_bytes());
            message.extend(&bytes);
        }
        request(&socket, libc::RTM_NEWADDR, (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16, &message)?;
    }
    // As container runtimes do: in a pod's own network any user may listen on any port. An older kernel may not have it.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(())
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

fn request(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    rustix::net::sendto(socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0u8; ANSWER_BYTES];
    let (_, count) = rustix::net::recv(socket, &mut answer, RecvFlags::empty())?;
    // struct nlmsghdr (16 bytes), then the negative error number, 0 for success.
    match answer.get(16..20).filter(|_| count >= 20) {
        Some(error) => match i32::from_ne_bytes([error[0], error[1], error[2], error[3]]) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        },
        None => Err(io::Error::other("netlink gave a short answer")),
    }
}
