//! The node's own network: a namespace in which every pod's wire ends. A small process holds it, makes the wires and the sockets
//! the agent asks for, and ends with the agent; the kernel then takes all of it away. It never touches the host's network, and
//! decides nothing.

use super::net;
use super::netlink::{self, Attributes, Batch};
use super::sys::{self, Disposition};
use super::wire::{self, Failure, FromSwitch, Inbox, SocketSpec, ToSwitch, Transport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::Signal;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The pods' end of a wire is the second device in their network, after `lo`.
const POD_DEVICE: u32 = 2;
const POD_DEVICE_NAME: &str = "eth0";
/// The first number of a device on the node's end; the rest is of the pod's address.
const DEVICES_FROM: u32 = 16;
/// The hardware addresses of all wires' ends. Neighbours are told, never asked for.
const NODE_HARDWARE: [u8; 6] = [0x02, 0x6b, 0x6d, 0x64, 0x00, 0x01];
const POD_HARDWARE: [u8; 6] = [0x02, 0x6b, 0x6d, 0x64, 0x00, 0x02];
/// What is marked so is for a socket of the node, whatever address it is sent to.
pub const MARK: u32 = 1;
/// The routes of what is marked.
const MARKED_TABLE: u32 = 100;
/// Connections that wait to be accepted, per listening socket.
const BACKLOG: i32 = 1024;

/// Settings of the node's network. Wires take the defaults when they are made.
const SETTINGS: [(&str, &str); 7] = [
    ("ipv4/ip_forward", "1"),
    // What comes from a pod bears the pod's own address, whatever the pod may change in its network.
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_local_port_range", "1024 65000"),
];

/// Serves the agent until its socket closes. Runs in the namespace that it is to make a network of.
pub fn run(gateway: Ipv4Addr, socket: OwnedFd) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::thread::set_name(c"kemudi-switch");
    sys::on_signal(libc::SIGCHLD, Disposition::Default);
    match Switch::set_up(gateway) {
        Ok(switch) => {
            let ready = switch.filter.as_ref().map(AsFd::as_fd);
            let fds: Vec<_> = ready.iter().copied().collect();
            if wire::send(socket.as_fd(), &(0, FromSwitch::Done), &fds).is_ok() {
                let _ = switch.serve(&socket);
            }
        }
        Err(failure) => drop(wire::send(socket.as_fd(), &(0, FromSwitch::Failed(failure)), &[])),
    }
    sys::exit(0)
}

struct Switch {
    gateway: Ipv4Addr,
    home: OwnedFd,
    routing: OwnedFd,
    /// None where the kernel has no packet filter for us.
    filter: Option<OwnedFd>,
}

impl Switch {
    fn set_up(gateway: Ipv4Addr) -> Result<Switch, Failure> {
        let step = |step: &'static str| move |error: io::Error| Failure::new(step, &error);
        let home = net::namespace().map_err(step("find the node's network"))?;
        for (name, value) in SETTINGS {
            // What a kernel does not have, it does not do.
            let _ = fs::write(format!("/proc/sys/net/{name}"), value);
        }
        net::set_up(&[gateway.into()]).map_err(step("set up the node's network"))?;
        let routing = netlink::routing().map_err(step("open the node's routes"))?;
        let mut batch = Batch::new(1);
        // struct fib_rule_hdr: family, lengths of source and target, type of service, table, two unused, action, flags.
        const TO_TABLE: u8 = 1;
        let rule = [libc::AF_INET as u8, 0, 0, 0, MARKED_TABLE as u8, 0, 0, TO_TABLE, 0, 0, 0, 0];
        batch.ask(libc::RTM_NEWRULE, libc::NLM_F_CREATE, &rule, |it| {
            const MARK_ATTRIBUTE: u16 = 10;
            const MASK_ATTRIBUTE: u16 = 16;
            it.word(MARK_ATTRIBUTE, MARK);
            it.word(MASK_ATTRIBUTE, u32::MAX);
        });
        let everything = route(0, MARKED_TABLE as u8, libc::RT_SCOPE_HOST, libc::RTN_LOCAL, 0);
        batch.ask(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &everything, |it| it.word(libc::RTA_OIF, net::LOOPBACK));
        // What the node itself sends to a service has its way changed by the packet filter; until then it needs one.
        let own = route(0, libc::RT_TABLE_MAIN, libc::RT_SCOPE_LINK, libc::RTN_UNICAST, 0);
        batch.ask(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &own, |it| {
            it.word(libc::RTA_OIF, net::LOOPBACK);
            it.put(libc::RTA_PREFSRC, &gateway.octets());
        });
        batch.send(&routing).map_err(step("set up the node's routes"))?;
        Ok(Switch { gateway, home, routing, filter: netlink::filter().ok() })
    }

    fn serve(&self, socket: &OwnedFd) -> io::Result<()> {
        let mut inbox = Inbox::default();
        while let Some(((number, message), mut fds)) = inbox.receive::<(u32, ToSwitch)>(socket)? {
            let made = match message {
                ToSwitch::Attach { address } => match fds.pop() {
                    Some(namespace) => self.attach(address, namespace.as_fd()).map(|alone| (alone, None)),
                    None => Err(Failure::words("a pod came without its network")),
                },
                ToSwitch::Socket(spec) => open(&spec)
                    .map(|socket| (FromSwitch::Done, Some(socket)))
                    .map_err(|error| Failure::new(format!("open a socket for {}", spec.address), &error)),
            };
            match made {
                Ok((answer, made)) => {
                    let fds: Vec<_> = made.iter().map(AsFd::as_fd).collect();
                    wire::send(socket.as_fd(), &(number, answer), &fds)?;
                }
                Err(failure) => wire::send(socket.as_fd(), &(number, FromSwitch::Failed(failure)), &[])?,
            }
        }
        Ok(())
    }

    /// Lays a wire to a pod: its end has the pod's address, and everything beyond goes over it.
    fn attach(&self, address: Ipv4Addr, namespace: BorrowedFd<'_>) -> Result<FromSwitch, Failure> {
        let laid = match self.lay_wire(address, namespace) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.take_old_wire(namespace).and_then(|()| self.lay_wire(address, namespace))
            }
            laid => laid,
        };
        let laid = laid.map_err(|error| Failure::new("lay a wire (veth) to the pod", &error));
        let alone = laid.as_ref().err().is_some_and(|failure| failure.errno == libc::EOPNOTSUPP);
        if let (Err(failure), false) = (&laid, alone) {
            return Err(failure.clone());
        }
        let failed = |error: io::Error| Failure::new("set up the pod's device", &error);
        sys::setns(namespace, sys::NET).map_err(failed)?;
        let set_up = if alone { net::set_up(&[address.into()]) } else { self.set_up_pod(address) };
        sys::setns(self.home.as_fd(), sys::NET).map_err(failed)?;
        set_up.map_err(failed)?;
        Ok(laid.map_or_else(FromSwitch::Alone, |()| FromSwitch::Done))
    }

    /// Takes away the wire of an agent before this one. The kernel does that too, with that agent's network, but not at once.
    fn take_old_wire(&self, namespace: BorrowedFd<'_>) -> io::Result<()> {
        sys::setns(namespace, sys::NET)?;
        let taken = netlink::routing().and_then(|socket| {
            let mut batch = Batch::new(1);
            batch.ask(libc::RTM_DELLINK, 0, &link(POD_DEVICE, 0), |_| {});
            batch.send(&socket)
        });
        sys::setns(self.home.as_fd(), sys::NET)?;
        match taken {
            // The kernel was faster.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            taken => taken,
        }
    }

    fn lay_wire(&self, address: Ipv4Addr, namespace: BorrowedFd<'_>) -> io::Result<()> {
        const INFO_KIND: u16 = 1;
        const INFO_DATA: u16 = 2;
        const PEER: u16 = 1;
        const NAMESPACE: u16 = 28;
        const SEND_QUEUES: u16 = 31;
        const RECEIVE_QUEUES: u16 = 32;
        let device = device_of(address);
        let queues = |it: &mut Attributes<'_>| {
            // A queue for each processor would be memory that nobody uses.
            it.word(SEND_QUEUES, 1);
            it.word(RECEIVE_QUEUES, 1);
        };
        let mut batch = Batch::new(1);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        batch.ask(libc::RTM_NEWLINK, flags, &link(device, UP), |it| {
            it.text(libc::IFLA_IFNAME, &format!("pod{device}"));
            it.put(libc::IFLA_ADDRESS, &NODE_HARDWARE);
            queues(it);
            it.nest(libc::IFLA_LINKINFO, |it| {
                it.text(INFO_KIND, "veth");
                it.nest(INFO_DATA, |it| {
                    it.nest(PEER, |it| {
                        // It cannot be up before the other end is there.
                        it.raw(&link(POD_DEVICE, 0));
                        it.text(libc::IFLA_IFNAME, POD_DEVICE_NAME);
                        it.put(libc::IFLA_ADDRESS, &POD_HARDWARE);
                        it.word(NAMESPACE, namespace.as_raw_fd() as u32);
                        queues(it);
                    });
                });
            });
        });
        neighbour(&mut batch, device, address, POD_HARDWARE);
        let to_pod = route(32, libc::RT_TABLE_MAIN, libc::RT_SCOPE_LINK, libc::RTN_UNICAST, 0);
        batch.ask(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &to_pod, |it| {
            it.put(libc::RTA_DST, &address.octets());
            it.word(libc::RTA_OIF, device);
        });
        batch.send(&self.routing)
    }

    /// Runs in the pod's network.
    fn set_up_pod(&self, address: Ipv4Addr) -> io::Result<()> {
        let socket = netlink::routing()?;
        let mut batch = Batch::new(1);
        batch.ask(libc::RTM_NEWLINK, 0, &link(POD_DEVICE, UP), |_| {});
        net::add_address(&mut batch, POD_DEVICE, address.into());
        neighbour(&mut batch, POD_DEVICE, self.gateway, NODE_HARDWARE);
        const ON_LINK: u32 = 4;
        let default = route(0, libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, ON_LINK);
        batch.ask(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &default, |it| {
            it.put(libc::RTA_GATEWAY, &self.gateway.octets());
            it.word(libc::RTA_OIF, POD_DEVICE);
        });
        batch.send(&socket)
    }
}

/// The number of the node's end of the wire to a pod.
fn device_of(address: Ipv4Addr) -> u32 {
    DEVICES_FROM + (address.to_bits() & 0xffff)
}

const UP: u32 = libc::IFF_UP as u32;

/// struct ifinfomsg of a device with these flags.
fn link(device: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (at, word) in [(4, device), (8, flags), (12, flags)] {
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// struct rtmsg: family, lengths of target and source, type of service, table, origin, scope, type, flags.
fn route(bits: u8, table: u8, scope: u8, kind: u8, flags: u32) -> [u8; 12] {
    let mut bytes = [libc::AF_INET as u8, bits, 0, 0, table, libc::RTPROT_STATIC, scope, kind, 0, 0, 0, 0];
    bytes[8..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// Says for good which hardware address is behind an address.
fn neighbour(batch: &mut Batch, device: u32, address: Ipv4Addr, hardware: [u8; 6]) {
    // struct ndmsg: family, padding, device, state, flags, type.
    let mut message = vec![libc::AF_INET as u8, 0, 0, 0];
    message.extend(device.to_ne_bytes());
    message.extend(libc::NUD_PERMANENT.to_ne_bytes());
    message.extend([0, 0]);
    batch.ask(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &message, |it| {
        it.put(libc::NDA_DST, &address.octets());
        it.put(libc::NDA_LLADDR, &hardware);
    });
}

/// Opens a socket in the node's network, non-blocking.
fn open(spec: &SocketSpec) -> io::Result<OwnedFd> {
    let kind = match spec.transport {
        Transport::Listen | Transport::Connect => SocketType::STREAM,
        Transport::Datagrams => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
    if spec.transparent {
        sys::set_transparent(socket.as_fd())?;
    }
    if spec.transport != Transport::Connect || !spec.address.ip().is_unspecified() {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddr::V4(spec.address))?;
    }
    if let Some(to) = spec.to {
        match rustix::net::connect(&socket, &SocketAddr::V4(to)) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if spec.transport == Transport::Listen {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}
