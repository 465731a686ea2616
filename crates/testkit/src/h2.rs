//! HTTP/2 over TLS for loads: many connections on one thread, at a cost that hides nothing of the server's. A client
//! library costs ten times as much a request, on the very cores that are measured. Knows as much of the protocol as a
//! well-behaved server makes it see, and gives up on the rest.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustls::ClientConnection;

use crate::wire::{Endpoint, Request};

/// Windows as large as there are: no load sends more than this on one connection, so that they are never made wider.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
const WINDOW_BYTES_AT_FIRST: u32 = (1 << 16) - 1;
/// Frames that this client takes, in bytes.
const FRAME_BYTES_MAX: u32 = 1 << 18;
/// The largest body of a request: it must fit into the windows that a server has at first.
const BODY_BYTES_MAX: usize = WINDOW_BYTES_AT_FIRST as usize;
/// Frames that every server takes, in bytes.
const SENT_FRAME_BYTES_MAX: usize = 1 << 14;
/// Bytes that are read from a socket at a time.
const READ_BYTES: usize = 1 << 18;
/// Connections that are looked after in one turn.
const TURN_MAX: usize = 256;
/// The longest that a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// Flags: an answer to SETTINGS and PING, the last frame of a stream, the last of its headers.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What came in on a stream.
pub enum Event<'a> {
    /// The head of an answer.
    Head { status: u16 },
    /// Some of its body.
    Data { stream: u32, bytes: &'a [u8] },
    /// The whole answer is there.
    End,
}

/// A request that is sent again and again: its head is sent once whole, then as one byte a header.
#[derive(Clone)]
pub struct Prepared {
    first: Vec<u8>,
    again: Vec<u8>,
    body: Vec<u8>,
}

impl Prepared {
    /// Header names must be in lower case.
    pub fn new(request: &Request) -> Prepared {
        let body = request.body.clone().unwrap_or_default();
        assert!(body.len() <= BODY_BYTES_MAX, "a body of a load has at most {BODY_BYTES_MAX} bytes");
        let host = request.headers.iter().find(|(name, _)| name == "host").map_or("localhost", |(_, value)| value);
        let mut headers = vec![
            (":method", request.method.as_str()),
            (":scheme", "https"),
            (":authority", host),
            (":path", &request.target),
        ];
        headers.extend(request.headers.iter().filter(|(n, _)| n != "host").map(|(n, v)| (n.as_str(), v.as_str())));
        let length = body.len().to_string();
        headers.extend(request.body.is_some().then_some(("content-length", length.as_str())));
        let mut first = Vec::new();
        for (name, value) in &headers {
            // A literal that is remembered, under a name that is not.
            first.push(0x40);
            write_text(&mut first, name);
            write_text(&mut first, value);
        }
        // The static table has 61 entries; the newest of the dynamic one follows.
        let again = (0..headers.len()).rev().map(|back| 0x80 | (62 + back as u8)).collect();
        Prepared { first, again, body }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    const SHORT: usize = 127;
    if text.len() < SHORT {
        out.push(text.len() as u8);
    } else {
        out.push(SHORT as u8);
        let mut rest = text.len() - SHORT;
        while rest >= 128 {
            out.push(128 | (rest % 128) as u8);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

/// One connection.
pub struct Connection {
    tcp: TcpStream,
    tls: ClientConnection,
    next_stream: u32,
    /// The head that the server's table holds.
    known: Vec<u8>,
    frames: Frames,
}

impl Connection {
    /// Connects and says which protocol is spoken. Blocks.
    fn open(endpoint: &Endpoint) -> io::Result<Connection> {
        let (mut tcp, mut tls) = endpoint.session(&["h2"], HANDSHAKE_LIMIT)?;
        tls.complete_io(&mut tcp)?;
        let mut first = PREFACE.to_vec();
        // No table of headers for answers, no pushes, and windows that never close.
        let settings: [(u16, u32); 4] = [(1, 0), (2, 0), (4, WINDOW_BYTES), (5, FRAME_BYTES_MAX)];
        let pairs = settings.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frame(&mut first, SETTINGS, 0, 0, &pairs.collect::<Vec<_>>().concat());
        frame(&mut first, WINDOW_UPDATE, 0, 0, &(WINDOW_BYTES - WINDOW_BYTES_AT_FIRST).to_be_bytes());
        tls.writer().write_all(&first)?;
        tls.complete_io(&mut tcp)?;
        tcp.set_nonblocking(true)?;
        Ok(Connection { tcp, tls, next_stream: 1, known: Vec::new(), frames: Frames::default() })
    }

    /// Sends a request and gives the stream of its answer.
    pub fn send(&mut self, request: &Prepared) -> io::Result<u32> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut out = Vec::with_capacity(request.first.len() + request.body.len() + 64);
        let head = if self.known == request.first { &request.again } else { &request.first };
        let end = if request.body.is_empty() { END_STREAM } else { 0 };
        frame(&mut out, HEADERS, END_HEADERS | end, stream, head);
        if self.known != request.first {
            self.known.clone_from(&request.first);
        }
        let mut pieces = request.body.chunks(SENT_FRAME_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { END_STREAM } else { 0 };
            frame(&mut out, DATA, end, stream, piece);
        }
        self.tls.writer().write_all(&out)?;
        self.flush()?;
        Ok(stream)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    let mut writable = [PollFd::new(&self.tcp, PollFlags::OUT)];
                    poll(&mut writable, None)?;
                }
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Reads what is there, shows it, and sends what is to follow. `buffer` is room to read into.
    fn take<'r>(
        &mut self,
        buffer: &mut [u8],
        on: &mut impl FnMut(Event<'_>) -> io::Result<Option<&'r Prepared>>,
    ) -> io::Result<()> {
        let n = match self.tcp.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(why) => return Err(why),
        };
        let (mut replies, mut follow) = (Vec::new(), Vec::new());
        let mut on = |event: Event<'_>| {
            follow.extend(on(event)?);
            Ok(())
        };
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest)?;
            self.tls.process_new_packets().map_err(bad)?;
            loop {
                let mut reader = self.tls.reader();
                let length = match reader.fill_buf() {
                    Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(chunk) => {
                        self.frames.read(chunk, &mut replies, &mut on)?;
                        chunk.len()
                    }
                    Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                    Err(why) => return Err(why),
                };
                reader.consume(length);
            }
        }
        self.tls.writer().write_all(&replies)?;
        self.flush()?;
        follow.into_iter().try_for_each(|request| self.send(request).map(drop))
    }
}

/// Frames out of bytes that come in any pieces.
#[derive(Default)]
struct Frames {
    /// A frame that is not all there.
    partial: Vec<u8>,
    /// The DATA frame that is being read: its stream, how much is to come, and whether it is the last.
    data: Option<(u32, usize, bool)>,
}

impl Frames {
    fn read(
        &mut self,
        mut bytes: &[u8],
        replies: &mut Vec<u8>,
        on: &mut impl FnMut(Event<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        const HEADER_BYTES: usize = 9;
        while !bytes.is_empty() {
            if let Some((stream, left, end)) = self.data {
                let (now, later) = bytes.split_at(left.min(bytes.len()));
                bytes = later;
                self.data = (now.len() < left).then_some((stream, left - now.len(), end));
                on(Event::Data { stream, bytes: now })?;
                if end && self.data.is_none() {
                    on(Event::End)?;
                }
                continue;
            }
            let wanted = match self.partial.first_chunk::<HEADER_BYTES>() {
                Some([a, b, c, ..]) => HEADER_BYTES + u32::from_be_bytes([0, *a, *b, *c]) as usize,
                None => HEADER_BYTES,
            };
            let (now, later) = bytes.split_at((wanted - self.partial.len()).min(bytes.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            let Some([a, b, c, kind, flags, stream @ ..]) = self.partial.first_chunk::<HEADER_BYTES>().copied() else {
                continue;
            };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes(stream);
            if kind == DATA {
                self.partial.clear();
                let end = flags & END_STREAM != 0;
                self.data = (length > 0).then_some((stream, length, end));
                if length == 0 && end {
                    on(Event::End)?;
                }
            } else if self.partial.len() == HEADER_BYTES + length {
                control(kind, flags, stream, &self.partial[HEADER_BYTES..], replies, on)?;
                self.partial.clear();
            }
        }
        Ok(())
    }
}

/// A frame that is no DATA.
fn control(
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
    replies: &mut Vec<u8>,
    on: &mut impl FnMut(Event<'_>) -> io::Result<()>,
) -> io::Result<()> {
    match kind {
        HEADERS => {
            on(Event::Head { status: status(payload)? })?;
            if flags & END_STREAM != 0 {
                on(Event::End)?;
            }
        }
        SETTINGS | PING if flags & ACK == 0 => {
            frame(replies, kind, ACK, 0, if kind == PING { payload } else { &[] });
        }
        SETTINGS | PING | WINDOW_UPDATE => {}
        RESET | GO_AWAY => return Err(bad(format!("the server broke off stream {stream}"))),
        _ => return Err(bad(format!("a frame of kind {kind}, which a load does not read"))),
    }
    Ok(())
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The status of a head, which is its first field. Where the server keeps no table, it is one of the common ones or a
/// literal of three digits, with the name of any of those.
fn status(block: &[u8]) -> io::Result<u16> {
    const COMMON: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let unknown = || bad(format!("a head without a status in front: {:x?}", block.get(..8).unwrap_or(block)));
    // First it says that it keeps no table.
    let after = block.iter().position(|byte| byte & 0xe0 != 0x20).ok_or_else(unknown)?;
    match &block[after..] {
        [index @ 0x88..=0x8e, ..] => Ok(COMMON[usize::from(index - 0x88)]),
        [0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e, 3, digits, ..] if digits.is_ascii_digit() => {
            let digits = block.get(after + 2..after + 5).ok_or_else(unknown)?;
            std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or_else(unknown)
        }
        [0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e, length, packed @ ..] if length & 0x80 != 0 => {
            let packed = packed.get(..usize::from(length & 0x7f)).ok_or_else(unknown)?;
            unpack_digits(packed).ok_or_else(unknown)
        }
        _ => Err(unknown()),
    }
}

/// Three digits in HPACK's Huffman code: 0 to 2 have five bits, the others six.
fn unpack_digits(packed: &[u8]) -> Option<u16> {
    let bits = packed.iter().take(4).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = packed.len().min(4) as u32 * 8;
    let mut number = 0;
    for _ in 0..3 {
        let peek = |n: u32| left.checked_sub(n).map(|rest| (bits >> rest) & ((1 << n) - 1));
        let (digit, used) = match peek(5)? {
            short @ 0..=2 => (short, 5),
            _ => (peek(6)?.checked_sub(0b011001)? + 3, 6),
        };
        number = number * 10 + u16::try_from(digit).ok().filter(|digit| *digit < 10)?;
        left -= used;
    }
    Some(number)
}

/// Connections that are looked after by one thread.
pub struct Fleet {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

impl Fleet {
    /// Opens so many connections. A load is for loopback only.
    pub fn open(endpoint: &Endpoint, connections: usize) -> io::Result<Fleet> {
        assert!(endpoint.address().ip().is_loopback(), "a load is for loopback only, not {}", endpoint.address());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut fleet = Fleet { epoll, connections: Vec::new(), buffer: vec![0; READ_BYTES] };
        for at in 0..connections {
            let connection = Connection::open(endpoint)?;
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&fleet.epoll, connection.tcp.as_fd(), data, epoll::EventFlags::IN)?;
            fleet.connections.push(connection);
        }
        Ok(fleet)
    }

    pub fn connection(&mut self, at: usize) -> &mut Connection {
        &mut self.connections[at]
    }

    /// Waits until `until` for something to come in, shows it, and sends on its connection what is to follow. Answers
    /// whether anything came.
    pub fn turn<'r>(
        &mut self,
        until: Instant,
        mut on: impl FnMut(usize, Event<'_>) -> io::Result<Option<&'r Prepared>>,
    ) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(bad)?;
        let mut events = Vec::with_capacity(TURN_MAX);
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&left))?;
        for event in &events {
            let at = event.data.u64() as usize;
            self.connections[at].take(&mut self.buffer, &mut |event| on(at, event))?;
        }
        Ok(!events.is_empty())
    }
}

fn bad(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_all_its_forms() {
        let check = |block: &[u8], want: Option<u16>| assert_eq!(status(block).ok(), want, "{block:x?}");
        check(&[0x88, 0x5f], Some(200));
        check(&[0x20, 0x8d], Some(404));
        check(b"\x48\x03201", Some(201));
        check(&[0x20, 0x08, 0x82, 0x10, 0x03], Some(201));
        check(&[0x48, 0x83, 0x68, 0x0f, 0xff], Some(409));
        check(&[0x5f], None);
        check(b"\x48\x032", None);
    }

    #[test]
    fn long_texts_have_long_lengths() {
        let mut out = Vec::new();
        write_text(&mut out, &"x".repeat(1337));
        assert_eq!(out[..3], [127, 186, 9]);
        assert_eq!(out.len(), 1340);
    }
}
