//! SPDY/3.1 frames and their bytes, in both directions. Pure: reads no connection and keeps no streams. Data comes out in
//! pieces as it arrives, so that a frame of 16 MiB needs no memory; all other frames are limited.

use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// The most bytes of data in one frame: its length has 24 bits.
pub const DATA_BYTES_MAX: usize = (1 << 24) - 1;
/// The most bytes in one frame that is not data.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of one frame's headers, unpacked.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
/// No stream has the highest bit.
const ID_MASK: u32 = 0x7fff_ffff;

/// Names and values, names in lower case.
pub type Headers = Vec<(String, String)>;

/// What one side says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    SynStream {
        /// The stream: odd from the client, even from the server.
        id: u32,
        /// The one it belongs to, 0 for none.
        associated: u32,
        /// From 0, the highest, to 7.
        priority: u8,
        /// Its sender will say nothing on it.
        fin: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// The stream is accepted.
    SynReply {
        /// The stream.
        id: u32,
        /// Its sender will say nothing on it.
        fin: bool,
        /// Whatever its sender wants to say.
        headers: Headers,
    },
    /// The stream is no more.
    RstStream {
        /// The stream.
        id: u32,
        /// Why: see [`RST_CANCEL`] and its kin.
        status: u32,
    },
    /// Wishes about the connection, which are read and not followed.
    Settings {
        /// Flags, number (24 bits), value.
        entries: Vec<(u8, u32, u32)>,
    },
    /// Asks for a sign of life, or is one.
    Ping {
        /// Odd from the client, even from the server.
        id: u32,
    },
    /// No stream later than this will be taken.
    GoAway {
        /// The last one that was.
        last: u32,
        /// Why, 0 for no error.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        id: u32,
        /// Its sender will say nothing more on it.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Room for more data, which nobody here counts.
    WindowUpdate {
        /// The stream, 0 for the connection.
        id: u32,
        /// How many bytes more, 31 bits.
        delta: u32,
    },
    /// What a stream carries, or a piece of it.
    Data {
        /// The stream.
        id: u32,
        /// Nothing more will come on it.
        fin: bool,
        /// At most [`DATA_BYTES_MAX`].
        bytes: Bytes,
    },
}

/// A stream cannot be: wrong number, bad frame.
pub const RST_PROTOCOL_ERROR: u32 = 1;
/// A stream is not wanted.
pub const RST_REFUSED: u32 = 3;
/// A stream is no longer needed.
pub const RST_CANCEL: u32 = 5;

/// Why bytes are no frames. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bad SPDY frame: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Makes bytes of frames. Headers are packed with what was packed before them, so one encoder serves one connection.
pub struct Encoder {
    packer: Compress,
}

impl Default for Encoder {
    fn default() -> Encoder {
        let mut packer = Compress::new(Compression::best(), true);
        // Refused only once something was packed.
        let _ = packer.set_dictionary(&DICTIONARY);
        Encoder { packer }
    }
}

impl Encoder {
    /// Appends a frame.
    ///
    /// # Errors
    /// If the frame is larger than its limit, or a stream's number is none.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), Malformed> {
        match frame {
            Frame::Data { id, fin, bytes } => {
                if bytes.len() > DATA_BYTES_MAX || !is_stream(*id) {
                    return Err(Malformed("data"));
                }
                out.put_u32(*id);
                out.put_u32(flags_and_length(*fin, bytes.len()));
                out.put_slice(bytes);
            }
            Frame::SynStream { id, associated, priority, fin, headers } => {
                let mut body = BytesMut::new();
                body.put_u32(*id);
                body.put_u32(*associated & ID_MASK);
                body.put_u8(priority << 5);
                body.put_u8(0);
                self.with_headers(*id, 1, *fin, body, headers, out)?;
            }
            Frame::SynReply { id, fin, headers } | Frame::Headers { id, fin, headers } => {
                let kind = if matches!(frame, Frame::SynReply { .. }) { 2 } else { 8 };
                let mut body = BytesMut::new();
                body.put_u32(*id);
                self.with_headers(*id, kind, *fin, body, headers, out)?;
            }
            Frame::RstStream { id, status } => control(3, false, &two(*id, *status), out)?,
            Frame::Settings { entries } => {
                let mut body = BytesMut::new();
                body.put_u32(entries.len() as u32);
                for (flags, number, value) in entries {
                    body.put_u32(u32::from(*flags) << 24 | number & 0xff_ffff);
                    body.put_u32(*value);
                }
                control(4, false, &body, out)?;
            }
            Frame::Ping { id } => control(6, false, &id.to_be_bytes(), out)?,
            Frame::GoAway { last, status } => control(7, false, &two(*last & ID_MASK, *status), out)?,
            Frame::WindowUpdate { id, delta } => control(9, false, &two(*id & ID_MASK, *delta & ID_MASK), out)?,
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        id: u32,
        kind: u16,
        fin: bool,
        mut body: BytesMut,
        headers: &Headers,
        out: &mut BytesMut,
    ) -> Result<(), Malformed> {
        if !is_stream(id) {
            return Err(Malformed("stream number"));
        }
        let mut block = BytesMut::new();
        block.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        if block.len() > HEADER_BYTES_MAX {
            return Err(Malformed("too many headers"));
        }
        body.extend_from_slice(&self.pack(&block)?);
        control(kind, fin, &body, out)
    }

    fn pack(&mut self, block: &[u8]) -> Result<Vec<u8>, Malformed> {
        const ROOM: usize = 1024;
        let before = self.packer.total_in();
        let mut packed = Vec::with_capacity(ROOM + block.len());
        loop {
            let done = (self.packer.total_in() - before) as usize;
            let step = self.packer.compress_vec(&block[done..], &mut packed, FlushCompress::Sync);
            step.map_err(|_| Malformed("headers cannot be packed"))?;
            // A flush that ends with room to spare is complete.
            if (self.packer.total_in() - before) as usize == block.len() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(ROOM);
        }
    }
}

/// Makes frames of bytes, in whatever portions they come.
pub struct Decoder {
    unpacker: Decompress,
    waiting: BytesMut,
    /// The data frame whose data is coming: its stream, whether it is the last, how many bytes are still to come.
    data: Option<(u32, bool, usize)>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { unpacker: Decompress::new(true), waiting: BytesMut::new(), data: None }
    }
}

impl Decoder {
    /// Takes bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The buffer that bytes are read into.
    pub fn room(&mut self) -> &mut BytesMut {
        &mut self.waiting
    }

    /// The next frame, or piece of data, if it is there.
    ///
    /// # Errors
    /// If the bytes are no frames; the connection cannot go on.
    pub fn frame(&mut self) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some((id, fin, left)) = self.data {
                if self.waiting.is_empty() && left > 0 {
                    return Ok(None);
                }
                let bytes = self.waiting.split_to(left.min(self.waiting.len())).freeze();
                let left = left - bytes.len();
                self.data = (left > 0).then_some((id, fin, left));
                return Ok(Some(Frame::Data { id, fin: fin && left == 0, bytes }));
            }
            let Some(head) = self.waiting.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
            let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let flags = head[4];
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if word & !ID_MASK == 0 {
                if !is_stream(word) {
                    return Err(Malformed("data of no stream"));
                }
                self.waiting.advance(HEAD_BYTES);
                self.data = Some((word, flags & FIN != 0, length));
                continue;
            }
            if length > CONTROL_BYTES_MAX {
                return Err(Malformed("too large"));
            }
            if self.waiting.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            self.waiting.advance(HEAD_BYTES);
            let body = self.waiting.split_to(length).freeze();
            let version = (word >> 16 & 0x7fff) as u16;
            if version != VERSION {
                return Err(Malformed("version"));
            }
            return self.control(word as u16, flags & FIN != 0, body).map(Some);
        }
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, Malformed> {
        let short = |_| Malformed("too short");
        let word = |body: &mut Bytes| body.try_get_u32().map_err(short);
        match kind {
            1 => {
                let (id, associated) = (stream(word(&mut body)?)?, word(&mut body)? & ID_MASK);
                let priority = body.try_get_u16().map_err(short)?;
                let headers = self.headers(&body)?;
                Ok(Frame::SynStream { id, associated, priority: (priority >> 13) as u8, fin, headers })
            }
            2 => Ok(Frame::SynReply { id: stream(word(&mut body)?)?, fin, headers: self.headers(&body)? }),
            3 => Ok(Frame::RstStream { id: stream(word(&mut body)?)?, status: word(&mut body)? }),
            4 => {
                let count = word(&mut body)? as usize;
                if body.len() != count.saturating_mul(8) {
                    return Err(Malformed("settings"));
                }
                let entry = |_| (body.get_u32(), body.get_u32());
                let entries = (0..count).map(entry).map(|(key, value)| ((key >> 24) as u8, key & 0xff_ffff, value));
                Ok(Frame::Settings { entries: entries.collect() })
            }
            6 => Ok(Frame::Ping { id: word(&mut body)? }),
            7 => Ok(Frame::GoAway { last: word(&mut body)? & ID_MASK, status: word(&mut body)? }),
            8 => Ok(Frame::Headers { id: stream(word(&mut body)?)?, fin, headers: self.headers(&body)? }),
            9 => Ok(Frame::WindowUpdate { id: word(&mut body)? & ID_MASK, delta: word(&mut body)? & ID_MASK }),
            _ => Err(Malformed("unknown kind")),
        }
    }

    fn headers(&mut self, packed: &[u8]) -> Result<Headers, Malformed> {
        let bad = Malformed("headers");
        let mut block = Bytes::from(self.unpack(packed)?);
        let count = block.try_get_u32().map_err(|_| bad)?;
        let mut text = || {
            let length = block.try_get_u32().map_err(|_| bad)? as usize;
            if length > block.len() {
                return Err(bad);
            }
            String::from_utf8(block.split_to(length).to_vec()).map_err(|_| bad)
        };
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((text()?, text()?));
        }
        match block.is_empty() {
            true => Ok(headers),
            false => Err(bad),
        }
    }

    fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, Malformed> {
        const ROOM: usize = 4096;
        let bad = Malformed("packed headers");
        let before = self.unpacker.total_in();
        let mut block = Vec::with_capacity(ROOM);
        loop {
            let done = (self.unpacker.total_in() - before) as usize;
            match self.unpacker.decompress_vec(&packed[done..], &mut block, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.unpacker.set_dictionary(&DICTIONARY).map_err(|_| bad)?;
                    continue;
                }
                Err(_) => return Err(bad),
            }
            let all = (self.unpacker.total_in() - before) as usize == packed.len();
            if block.len() < block.capacity() {
                // There was room for more, so there is no more.
                return if all { Ok(block) } else { Err(bad) };
            }
            if block.len() > HEADER_BYTES_MAX {
                return Err(Malformed("too many headers"));
            }
            block.reserve(ROOM);
        }
    }
}

fn is_stream(id: u32) -> bool {
    id != 0 && id & !ID_MASK == 0
}

fn stream(id: u32) -> Result<u32, Malformed> {
    if is_stream(id) { Ok(id) } else { Err(Malformed("stream number")) }
}

fn two(first: u32, second: u32) -> [u8; 8] {
    (u64::from(first) << 32 | u64::from(second)).to_be_bytes()
}

fn flags_and_length(fin: bool, length: usize) -> u32 {
    u32::from(fin) << 24 | length as u32
}

fn control(kind: u16, fin: bool, body: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
    if body.len() > CONTROL_BYTES_MAX {
        return Err(Malformed("too large"));
    }
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(flags_and_length(fin, body.len()));
    out.put_slice(body);
    Ok(())
}

/// What both sides take as packed already: words with their length before them, then a run of text.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for word in DICTIONARY_WORDS {
        all.extend_from_slice(&(word.len() as u32).to_be_bytes());
        all.extend_from_slice(word.as_bytes());
    }
    all.extend_from_slice(DICTIONARY_TEXT.as_bytes());
    all
});

#[rustfmt::skip]
const DICTIONARY_WORDS: [&str; 65] = [
    "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding",
    "accept-language", "accept-ranges", "age", "allow", "authorization", "cache-control", "connection",
    "content-base", "content-encoding", "content-language", "content-length", "content-location", "content-md5",
    "content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location",
    "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after",
    "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
    "www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie",
    "keep-alive", "origin",
];

const DICTIONARY_TEXT: &str = concat!(
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authori",
    "tative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not ",
    "Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug S",
    "ept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,imag",
    "e/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,",
    "sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        "[a-z0-9\u{0}\u{e4}-]{0,40}"
    }

    fn headers() -> impl Strategy<Value = Headers> {
        proptest::collection::vec((text(), text()), 0..6)
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let id = 1..=ID_MASK;
        prop_oneof![
            (id.clone(), 0..=ID_MASK, 0..8u8, any::<bool>(), headers()).prop_map(
                |(id, associated, priority, fin, headers)| Frame::SynStream { id, associated, priority, fin, headers }
            ),
            (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply { id, fin, headers }),
            (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers { id, fin, headers }),
            (id.clone(), any::<u32>()).prop_map(|(id, status)| Frame::RstStream { id, status }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            (0..=ID_MASK, any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (0..=ID_MASK, 0..=ID_MASK).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
            proptest::collection::vec((any::<u8>(), 0..1u32 << 24, any::<u32>()), 0..4)
                .prop_map(|entries| Frame::Settings { entries }),
            (id, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(id, fin, bytes)| Frame::Data { id, fin, bytes: bytes.into() }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(frames in proptest::collection::vec(frame(), 0..8), portion in 1..99usize) {
            let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame, &mut bytes).unwrap();
            }
            let (mut decoder, mut decoded) = (Decoder::default(), Vec::<Frame>::new());
            for part in bytes.chunks(portion) {
                decoder.push(part);
                while let Some(frame) = decoder.frame().unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(joined(decoded), joined(frames));
        }
    }

    /// Data of one frame may come in several.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut all: Vec<Frame> = Vec::new();
        for frame in frames {
            match (all.last_mut(), frame) {
                (
                    Some(Frame::Data { id, fin: fin @ false, bytes }),
                    Frame::Data { id: next, fin: last, bytes: more },
                ) if *id == next => {
                    *bytes = [&bytes[..], &more[..]].concat().into();
                    *fin = last;
                }
                (_, frame) => all.push(frame),
            }
        }
        all
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let check = |bytes: &[u8], want: &str| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.frame().unwrap_err().0, want);
        };
        check(b"\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01", "version");
        check(b"\x80\x03\x00\x05\x00\x00\x00\x00", "unknown kind");
        check(b"\x80\x03\x00\x06\x00\xff\xff\xff", "too large");
        check(b"\x80\x03\x00\x06\x00\x00\x00\x01\x00", "too short");
        check(b"\x80\x03\x00\x01\x00\x00\x00\x0e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00xxxx", "packed headers");
        check(b"\x00\x00\x00\x00\x00\x00\x00\x01x", "data of no stream");
    }

    #[test]
    fn headers_that_unpack_to_too_much_are_refused() {
        let mut packer = Compress::new(Compression::best(), true);
        packer.set_dictionary(&DICTIONARY).unwrap();
        let mut packed = Vec::with_capacity(CONTROL_BYTES_MAX);
        packer.compress_vec(&vec![0; 1 << 24], &mut packed, FlushCompress::Sync).unwrap();
        let mut body = BytesMut::new();
        body.put_u32(1);
        body.extend_from_slice(&packed);
        let mut frame = BytesMut::new();
        control(2, false, &body, &mut frame).unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        assert_eq!(decoder.frame(), Err(Malformed("too many headers")));
    }
}
