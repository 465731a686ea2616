//! Messages to the kernel's network, how they are put together, sent and answered. Knows their form, not what they mean.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The header of a message: length, kind, flags, number, port.
const HEADER_BYTES: usize = 16;
const ANSWER_BYTES: usize = 8 << 10;
/// What the kernel puts into one part of a long answer at most.
const DUMP_BYTES: usize = 64 << 10;
/// Errors name the whole message they are about unless told not to.
const ALIGNMENT: usize = 4;

/// A socket that speaks with the routing part of the kernel.
pub fn routing() -> io::Result<OwnedFd> {
    open(None)
}

/// A socket that speaks with the packet filter.
pub fn filter() -> io::Result<OwnedFd> {
    open(Some(rustix::net::netlink::NETFILTER))
}

fn open(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

/// Messages that travel together. Each is answered.
pub struct Batch {
    bytes: Vec<u8>,
    first: u32,
    next: u32,
    /// The numbers of the messages that the kernel answers.
    expected: u32,
}

impl Batch {
    /// Messages are numbered from `first` on.
    pub fn new(first: u32) -> Batch {
        Batch { bytes: Vec::new(), first, next: first, expected: 0 }
    }

    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// The number that comes after those of its messages.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// Adds a message that is answered; `fixed` is what comes before its attributes.
    pub fn ask(&mut self, kind: u16, flags: i32, fixed: &[u8], attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.expected += 1;
        self.add(kind, flags | libc::NLM_F_ACK, fixed, attributes);
    }

    /// Adds a message that is answered only if it fails.
    pub fn tell(&mut self, kind: u16, flags: i32, fixed: &[u8], attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.add(kind, flags, fixed, attributes);
    }

    fn add(&mut self, kind: u16, flags: i32, fixed: &[u8], attributes: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        self.bytes.extend(self.next.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.next = self.next.wrapping_add(1);
        self.bytes.extend(fixed);
        align(&mut self.bytes);
        attributes(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sends all of it and waits for the answers, which the kernel gives at once.
    ///
    /// # Errors
    /// What the first message that failed was answered.
    pub fn send(&self, socket: impl AsFd) -> io::Result<()> {
        rustix::net::sendto(&socket, &self.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut left = self.expected;
        let mut answer = vec![0u8; ANSWER_BYTES];
        while left > 0 {
            let (_, count) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
            let mut rest = &answer[..count.min(ANSWER_BYTES)];
            while let Some((number, error, after)) = read_answer(rest)? {
                rest = after;
                // An earlier batch that was given up may have left some.
                if number.wrapping_sub(self.first) >= self.next.wrapping_sub(self.first) {
                    continue;
                }
                if error != 0 {
                    // The kernel has answered the rest by now, which the next batch must not take for its own.
                    while rustix::net::recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).is_ok() {}
                    return Err(io::Error::from_raw_os_error(-error));
                }
                left -= 1;
            }
        }
        Ok(())
    }
}

impl Batch {
    /// Sends a question that is answered with many messages, and takes each, without its header.
    pub fn dump(&self, socket: impl AsFd, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        const DONE: u16 = 3;
        const ERROR: u16 = 2;
        rustix::net::sendto(&socket, &self.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = vec![0u8; DUMP_BYTES];
        loop {
            let (_, count) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
            let mut rest = &answer[..count.min(DUMP_BYTES)];
            while rest.len() >= HEADER_BYTES {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let number = u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]);
                let body = rest.get(HEADER_BYTES..length.max(HEADER_BYTES)).unwrap_or_default();
                rest = &rest[length.next_multiple_of(ALIGNMENT).clamp(HEADER_BYTES, rest.len())..];
                if number != self.first {
                    continue;
                }
                match (kind, body.first_chunk()) {
                    (DONE, _) => return Ok(()),
                    (ERROR, Some(error)) => return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(*error))),
                    _ => take(body),
                }
            }
        }
    }
}

/// The attributes of a message: kind and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let head: &[u8; 4] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & KIND;
        let value = bytes.get(4..length)?;
        bytes = &bytes[length.next_multiple_of(ALIGNMENT).min(bytes.len())..];
        Some((kind, value))
    })
}

/// One answer: the number of the message, the negative error, and what comes after it.
fn read_answer(bytes: &[u8]) -> io::Result<Option<(u32, i32, &[u8])>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let word = |at: usize| -> io::Result<[u8; 4]> {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        word.ok_or_else(|| io::Error::other("netlink gave a short answer"))
    };
    let length = u32::from_ne_bytes(word(0)?) as usize;
    let number = u32::from_ne_bytes(word(8)?);
    let error = i32::from_ne_bytes(word(HEADER_BYTES)?);
    let end = length.next_multiple_of(ALIGNMENT).clamp(HEADER_BYTES, bytes.len());
    Ok(Some((number, error, &bytes[end..])))
}

/// The attributes of a message.
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Collects attributes on their own, to be put into a message later.
    pub fn collect(write: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut Attributes(&mut bytes));
        bytes
    }

    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        align(self.0);
    }

    /// A number in the machine's order, as routing has it.
    pub fn word(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A number in the network's order, as the packet filter has it.
    pub fn big(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A text, with the zero that ends it.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) {
        const NESTED: u16 = 0x8000;
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        inner(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes as they are: the head of a message within a message, or attributes that were collected.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        align(self.0);
    }
}

fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_is_aligned() {
        let mut batch = Batch::new(7);
        batch.ask(16, 0, &[1, 2], |it| {
            it.put(1, b"abc");
            it.nest(2, |it| it.word(3, 9));
        });
        assert_eq!(batch.byte_count(), 16 + 4 + 8 + 4 + 8);
        assert_eq!(batch.bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(batch.bytes[20..28], [7, 0, 1, 0, b'a', b'b', b'c', 0]);
        assert_eq!(batch.next_number(), 8);
    }

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let bytes = Attributes::collect(|it| {
            it.put(1, b"abc");
            it.nest(2, |it| it.big(3, 9));
        });
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read[0], (1, &b"abc"[..]));
        assert_eq!(attributes(read[1].1).collect::<Vec<_>>(), [(3, &[0, 0, 0, 9][..])]);
        assert_eq!(attributes(&bytes[..6]).count(), 0);
    }

    #[test]
    fn answers_are_read_one_after_the_other() {
        let answer = |number: u32, error: i32| {
            let words = [36u32, 0, number, 0, error as u32, 0, 0, 0, 0];
            words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>()
        };
        let bytes = [answer(3, 0), answer(4, -17)].concat();
        let (number, error, rest) = read_answer(&bytes).unwrap().unwrap();
        assert_eq!((number, error), (3, 0));
        let (number, error, rest) = read_answer(rest).unwrap().unwrap();
        assert_eq!((number, error, rest.len()), (4, -17, 0));
        assert!(read_answer(&bytes[..10]).is_err());
    }
}
