//! What the kernel remembers of datagrams on their way to services: forgotten when the pod is gone that they went to, so that
//! a sender who never pauses is led to another one.

use super::filter::UDP;
use crate::sandbox::netlink::{self, Batch};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;

const CONNECTIONS: u16 = 1 << 8;
const GET: u16 = CONNECTIONS | 1;
const DELETE: u16 = CONNECTIONS | 2;
/// nfgenmsg: family, version, resource.
const HEAD: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;

/// Forgets all that went to one of these places by way of another address. Gives the number after those of its messages.
pub fn forget(socket: impl AsFd, gone: &BTreeSet<SocketAddrV4>, first_number: u32) -> io::Result<u32> {
    let mut question = Batch::new(first_number);
    question.tell(GET, libc::NLM_F_DUMP, &HEAD, |_| {});
    let mut found = Vec::new();
    question.dump(&socket, |message| {
        let Some(attributes) = message.get(HEAD.len()..) else { return };
        let tuple = |kind| netlink::attributes(attributes).find(|(known, _)| *known == kind).map(|(_, value)| value);
        let (Some(original), Some(reply)) = (tuple(ORIGINAL), tuple(REPLY)) else { return };
        let (Some((protocol, _, asked)), Some((_, answers, _))) = (read(original), read(reply)) else { return };
        if protocol == UDP && asked != answers && gone.contains(&answers) {
            found.push(original.to_vec());
        }
    })?;
    let mut next = question.next_number();
    for original in found {
        let mut batch = Batch::new(next);
        batch.ask(DELETE, 0, &HEAD, |it| it.nest(ORIGINAL, |it| it.raw(&original)));
        next = batch.next_number();
        match batch.send(&socket) {
            // It was forgotten meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(next)
}

/// Protocol, source and target of a tuple.
fn read(tuple: &[u8]) -> Option<(u8, SocketAddrV4, SocketAddrV4)> {
    let part = |bytes, kind| netlink::attributes(bytes).find(|(known, _)| *known == kind).map(|(_, value)| value);
    let (addresses, protocol) = (part(tuple, 1)?, part(tuple, 2)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(part(addresses, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(part(protocol, kind)?.try_into().ok()?));
    let number = *part(protocol, 1)?.first()?;
    Some((number, SocketAddrV4::new(address(1)?, port(2)?), SocketAddrV4::new(address(2)?, port(3)?)))
}
