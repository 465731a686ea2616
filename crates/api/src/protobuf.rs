//! Kubernetes' protobuf as far as it is the same for all types: the envelope around an object, the frames of a watch, numbered values.
//! Knows no message by its name; what is wrong with one is told in Go's words.

/// What every message of Kubernetes begins with.
pub const MAGIC: &[u8] = b"k8s\0";
/// How answers and bodies in it are called.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// Bytes of the length that is before each frame of a watch.
pub const FRAME_HEAD_BYTES: usize = 4;

/// What a message says of itself, and the message.
#[derive(Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

/// Takes a message out of its envelope. The error is Go's.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, String> {
    if bytes.is_empty() {
        return Err("empty data".into());
    }
    let Some(unknown) = bytes.strip_prefix(MAGIC) else {
        return Err("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".into());
    };
    if unknown.is_empty() {
        return Err("empty body".into());
    }
    let mut envelope = Envelope::default();
    for part in Parts(unknown) {
        match part? {
            (1, Wire::Bytes(type_meta)) => {
                for part in Parts(type_meta) {
                    match part? {
                        (1, Wire::Bytes(text)) => envelope.api_version = lossy(text),
                        (2, Wire::Bytes(text)) => envelope.kind = lossy(text),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// A message in its envelope.
pub fn enclose(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(64);
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + type_meta.len() + 24);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &type_meta);
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// One frame of a watch: its length, then the event around an encoded object.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut extension, 1, object);
    let mut message = Vec::with_capacity(extension.len() + 32);
    put_bytes(&mut message, 1, event.as_bytes());
    put_bytes(&mut message, 2, &extension);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), message.as_slice()].concat()
}

/// What a frame without its length says: the type of an event, and an encoded object.
pub fn watch_event(frame: &[u8]) -> Result<(&str, &[u8]), String> {
    let (mut event, mut object): (&[u8], &[u8]) = (b"", b"");
    for part in Parts(frame) {
        match part? {
            (1, Wire::Bytes(text)) => event = text,
            (2, Wire::Bytes(extension)) => {
                for part in Parts(extension) {
                    if let (1, Wire::Bytes(raw)) = part? {
                        object = raw;
                    }
                }
            }
            _ => {}
        }
    }
    Ok((std::str::from_utf8(event).map_err(|error| error.to_string())?, object))
}

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Text, bytes, or a message.
    Bytes(&'a [u8]),
}

impl Wire<'_> {
    /// The number by which a key tells which of them follows.
    pub fn kind(self) -> u8 {
        match self {
            Wire::Varint(_) => 0,
            Wire::Fixed64(_) => 1,
            Wire::Bytes(_) => 2,
            Wire::Fixed32(_) => 5,
        }
    }
}

/// The numbered values of a message, in the order of the bytes.
pub struct Parts<'a>(pub &'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

impl<'a> Parts<'a> {
    fn part(&mut self) -> Result<(u32, Wire<'a>), String> {
        let (number, wire, end) = part(self.0)?.ok_or("unexpected EOF")?;
        self.0 = &self.0[end..];
        Ok((number, wire))
    }
}

/// The value with which these bytes begin: its number, itself, where it ends; none where the bytes end within it.
pub fn part(bytes: &[u8]) -> Result<Option<(u32, Wire<'_>, usize)>, String> {
    let Some(Head { number, kind, start }) = head(bytes)? else { return Ok(None) };
    let length = match kind {
        Kind::Varint => {
            let Some((value, rest)) = varint(&bytes[start..])? else { return Ok(None) };
            return Ok(Some((number, Wire::Varint(value), bytes.len() - rest.len())));
        }
        Kind::Fixed32 => 4,
        Kind::Fixed64 => 8,
        Kind::Bytes(length) => {
            usize::try_from(length).map_err(|_| "proto: negative length found during unmarshaling")?
        }
    };
    let Some(end) = start.checked_add(length).filter(|end| *end <= bytes.len()) else { return Ok(None) };
    let value = &bytes[start..end];
    let number_of = |value: &[u8]| value.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let wire = match kind {
        Kind::Fixed32 => Wire::Fixed32(number_of(value) as u32),
        Kind::Fixed64 => Wire::Fixed64(number_of(value)),
        _ => Wire::Bytes(value),
    };
    Ok(Some((number, wire, end)))
}

/// What is before a value.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub number: u32,
    pub kind: Kind,
    /// Where the value starts.
    pub start: usize,
}

/// How a value stands on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    /// So many bytes of text, bytes, or a message.
    Bytes(u64),
}

/// The head of the value with which these bytes begin; none where they end within it.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some((key, rest)) = varint(bytes)? else { return Ok(None) };
    let (number, kind) = ((key >> 3) as u32, key & 7);
    if kind == 4 {
        return Err("proto: wiretype end group for non-group".into());
    }
    if number == 0 {
        return Err(format!("proto: illegal tag {number} (wire type {key})"));
    }
    let (kind, rest) = match kind {
        0 => (Kind::Varint, rest),
        1 => (Kind::Fixed64, rest),
        2 => match varint(rest)? {
            Some((length, rest)) => (Kind::Bytes(length), rest),
            None => return Ok(None),
        },
        5 => (Kind::Fixed32, rest),
        other => return Err(format!("proto: illegal wireType {other}")),
    };
    Ok(Some(Head { number, kind, start: bytes.len() - rest.len() }))
}

/// The number with which these bytes begin, and what is after it; none where they end within it.
fn varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, String> {
    let mut value = 0u64;
    for (at, shift) in (0..64).step_by(7).enumerate() {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(Some((value, &bytes[at + 1..])));
        }
    }
    Err("proto: integer overflow".into())
}

/// What `fill` writes.
pub fn message_of(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Text, whose broken parts are replaced.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_told_as_go_tells_it() {
        let check = |bytes: &[u8], want: &str| assert_eq!(open(bytes).map(|_| ()), Err(want.to_string()));
        check(b"", "empty data");
        check(b"k8s", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]");
        check(b"k8s\0nonsense", "proto: illegal wireType 6");
        check(b"k8s\0\n\x05", "unexpected EOF");
        check(b"k8s\0\n", "unexpected EOF");
        check(b"k8s\0\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "proto: integer overflow");
    }

    #[test]
    fn envelopes_and_frames_are_read_as_they_are_written() {
        let bytes = enclose("apps/v1", "Deployment", b"\n\0");
        let envelope = Envelope { api_version: "apps/v1".into(), kind: "Deployment".into(), raw: b"\n\0" };
        assert_eq!(open(&bytes), Ok(envelope));
        let frame = watch_frame("ADDED", &bytes);
        let (head, message) = frame.split_at(FRAME_HEAD_BYTES);
        assert_eq!(head, (message.len() as u32).to_be_bytes());
        assert_eq!(watch_event(message), Ok(("ADDED", &*bytes)));
        let numbers = message_of(|out| {
            put_number(out, 1, 300);
            put_bytes(out, 200, b"x");
            out.extend_from_slice(b"\x19\x01\0\0\0\0\0\0\0\x25\x02\0\0\0");
        });
        let read: Result<Vec<_>, _> = Parts(&numbers).collect();
        let want = [(1, Wire::Varint(300)), (200, Wire::Bytes(b"x")), (3, Wire::Fixed64(1)), (4, Wire::Fixed32(2))];
        assert_eq!(read, Ok(want.to_vec()));
        assert_eq!(want.map(|(_, wire)| wire.kind()), [0, 2, 1, 5]);
    }
}
