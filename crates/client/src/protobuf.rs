//! Kubernetes' protobuf (feature `protobuf`): built-in kinds in fewer bytes, whose fields that nobody asked for are passed over without
//! being looked at. Reads only; what a client writes is JSON, as is what has no protobuf: custom resources, errors of proxies.
//!
//! A client says that it wants it, a type that it can be read so; any other type, and any server without, goes on in JSON.
//!
//! ```no_run
//! # async fn run() -> kemudi_client::Result<()> {
//! use kemudi_client::{Api, Client, ObjectMeta, message, typed};
//!
//! // The fields that this program reads, and their numbers in the `generated.proto` of Kubernetes' API.
//! #[derive(Default, serde::Deserialize)]
//! struct Node { metadata: ObjectMeta, #[serde(default)] spec: NodeSpec }
//! #[derive(Default, serde::Deserialize)]
//! #[serde(rename_all = "camelCase", default)]
//! struct NodeSpec { unschedulable: bool, pod_cidr: String }
//! typed!(Node, group "", version "v1", plural "nodes", cluster, protobuf);
//! message!(Node { metadata = 1, spec = 2 });
//! message!(NodeSpec { pod_cidr = 1, unschedulable = 4 });
//!
//! let client = Client::try_default().await?.with_protobuf();
//! for node in Api::<Node>::all(client).list().await? {
//!     println!("{} {}", node.metadata.name, node.spec.pod_cidr);
//! }
//! # Ok(()) }
//! ```
//!
//! The types of [`kinds`](crate::kinds) and [`Metadata`](crate::Metadata) can be read so as they are.

use std::any::type_name;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

use ::api::protobuf::{Kind, MAGIC, MEDIA, Parts, head, lossy, open, part, watch_event};
use ::api::{Cause, Details, EventType, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;

pub(crate) use ::api::protobuf::FRAME_HEAD_BYTES;
pub use ::api::protobuf::Wire;

use crate::error::{Error, Result};
use crate::resource::{ListMeta, ObjectList, ObjectMeta, OwnerReference};
use crate::string_map::StringMap;
use crate::time;

/// Messages within one another, at most: types that hold themselves could be told for ever.
const DEPTH_MAX: u32 = 100;

/// What a value is read from a message. [`message!`](crate::message) writes it for a struct.
///
/// `F` is what stands on the wire where that is something else than the value: see [`Time`], [`Quantity`] and the others.
pub trait Read<F = Plain>: Default {
    /// Takes what stands on the wire. It is called again where a field comes again: a list takes one more, anything else the last.
    ///
    /// `left` is how many messages may still be within it.
    ///
    /// # Errors
    /// Why it is no such value.
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String>;
}

/// How an object is read from its message.
pub type FromMessage<K> = fn(&[u8]) -> std::result::Result<K, String>;

/// An object from its message.
///
/// # Errors
/// Why it is no such object.
pub fn read<K: Read>(message: &[u8]) -> std::result::Result<K, String> {
    let mut object = K::default();
    object.read(Wire::Bytes(message), DEPTH_MAX)?;
    Ok(object)
}

/// Gives each field of a message to `read`, with its number.
///
/// # Errors
/// Why it is no message, or the first error of `read`.
pub fn fields(
    wire: Wire<'_>,
    left: u32,
    mut read: impl FnMut(u32, Wire<'_>, u32) -> std::result::Result<(), String>,
) -> std::result::Result<(), String> {
    let Wire::Bytes(message) = wire else { return Err(wrong(wire)) };
    let left = left.checked_sub(1).ok_or_else(|| format!("more than {DEPTH_MAX} messages within one another"))?;
    Parts(message).try_for_each(|part| {
        let (number, wire) = part?;
        read(number, wire, left)
    })
}

/// Makes a struct that has a default readable from protobuf: its fields with their numbers in Kubernetes' `generated.proto`. What stands on
/// the wire as something else than the field's type is named behind `as`: [`Time`](crate::protobuf::Time),
/// [`MicroTime`](crate::protobuf::MicroTime), [`Quantity`](crate::protobuf::Quantity), [`IntOrString`](crate::protobuf::IntOrString),
/// [`Base64`](crate::protobuf::Base64), [`Json`](crate::protobuf::Json).
///
/// ```
/// use kemudi_client::{message, protobuf};
///
/// #[derive(Debug, Default, PartialEq)]
/// struct Container { name: String, limits: Option<Limits> }
/// #[derive(Debug, Default, PartialEq)]
/// struct Limits { limits: std::collections::BTreeMap<String, String> }
/// message!(Container { name = 1, limits = 8 });
/// message!(Limits { limits = 1 as Quantity });
///
/// let container: Container = protobuf::read(b"\x0a\x03web\x12\x07ignored\x42\x0e\x0a\x0c\x0a\x03cpu\x12\x05\x0a\x03\x35\x30m").unwrap();
/// assert_eq!(container.name, "web");
/// assert_eq!(container.limits.unwrap().limits["cpu"], "50m");
/// ```
#[macro_export]
macro_rules! message {
    ($type:ident { $($field:ident = $number:literal $(as $form:ident)?),* $(,)? }) => {
        impl $crate::protobuf::Read for $type {
            fn read(&mut self, wire: $crate::protobuf::Wire<'_>, left: u32) -> ::std::result::Result<(), ::std::string::String> {
                $crate::protobuf::fields(wire, left, |number, wire, left| match number {
                    $($number => $crate::protobuf::Read::<$crate::message!(@form $($form)?)>::read(&mut self.$field, wire, left)
                        .map_err(|why| ::std::format!(concat!(stringify!($field), ": {}"), why)),)*
                    _ => Ok(()),
                })
            }
        }
    };
    (@form) => { $crate::protobuf::Plain };
    (@form $form:ident) => { $crate::protobuf::$form };
}

/// What stands on the wire for a value.
pub trait Form {
    /// Whether this stands for nothing at all, as `null` does in JSON.
    fn is_null(_: Wire<'_>) -> bool {
        false
    }
}

/// What the value's own type says.
pub enum Plain {}
/// A time: seconds and nanoseconds, as text in RFC 3339.
pub enum Time {}
/// A time of which text has microseconds.
pub enum MicroTime {}
/// An amount: a message of text.
pub enum Quantity {}
/// A number or a text, as text.
pub enum IntOrString {}
/// Bytes, as text in base64, as JSON has them.
pub enum Base64 {}
/// Anything: its JSON, within a message.
pub enum Json {}

impl Form for Plain {}
impl Form for Quantity {}
impl Form for IntOrString {}
impl Form for Base64 {}
impl Form for Json {}

impl Form for Time {
    fn is_null(wire: Wire<'_>) -> bool {
        wire == Wire::Bytes(b"")
    }
}

impl Form for MicroTime {
    fn is_null(wire: Wire<'_>) -> bool {
        wire == Wire::Bytes(b"")
    }
}

fn wrong(wire: Wire<'_>) -> String {
    format!("proto: wrong wireType = {}", wire.kind())
}

pub(crate) fn bytes(wire: Wire<'_>) -> std::result::Result<&[u8], String> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        other => Err(wrong(other)),
    }
}

fn varint(wire: Wire<'_>) -> std::result::Result<u64, String> {
    match wire {
        Wire::Varint(number) => Ok(number),
        other => Err(wrong(other)),
    }
}

/// The text in a message with this number, `""` where there is none.
fn text_within(wire: Wire<'_>, left: u32, wanted: u32) -> std::result::Result<String, String> {
    let mut text = String::new();
    fields(wire, left, |number, wire, left| match number == wanted {
        true => Read::<Plain>::read(&mut text, wire, left),
        false => Ok(()),
    })?;
    Ok(text)
}

impl Read for String {
    fn read(&mut self, wire: Wire<'_>, _: u32) -> std::result::Result<(), String> {
        *self = lossy(bytes(wire)?);
        Ok(())
    }
}

impl Read for bool {
    fn read(&mut self, wire: Wire<'_>, _: u32) -> std::result::Result<(), String> {
        *self = varint(wire)? != 0;
        Ok(())
    }
}

impl Read for f64 {
    fn read(&mut self, wire: Wire<'_>, _: u32) -> std::result::Result<(), String> {
        *self = match wire {
            Wire::Fixed64(bits) => f64::from_bits(bits),
            Wire::Fixed32(bits) => f64::from(f32::from_bits(bits)),
            other => return Err(wrong(other)),
        };
        Ok(())
    }
}

macro_rules! numbers {
    ($($type:ident)*) => {$(
        impl Read for $type {
            // Numbers are cut to their size, as Go does.
            fn read(&mut self, wire: Wire<'_>, _: u32) -> std::result::Result<(), String> {
                *self = varint(wire)? as $type;
                Ok(())
            }
        }
    )*};
}

numbers!(i32 i64 u16 u32 u64);

impl Read<Time> for String {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        let mut seconds = 0i64;
        fields(wire, left, |number, wire, left| if number == 1 { seconds.read(wire, left) } else { Ok(()) })?;
        *self = if Time::is_null(wire) { String::new() } else { time::print(seconds) };
        Ok(())
    }
}

impl Read<MicroTime> for String {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        let (mut seconds, mut nanos) = (0i64, 0i32);
        fields(wire, left, |number, wire, left| match number {
            1 => seconds.read(wire, left),
            2 => nanos.read(wire, left),
            _ => Ok(()),
        })?;
        let micros = seconds.saturating_mul(1_000_000).saturating_add(i64::from(nanos / 1000));
        *self = if MicroTime::is_null(wire) { String::new() } else { time::micros(micros) };
        Ok(())
    }
}

impl Read<Quantity> for String {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        *self = text_within(wire, left, 1)?;
        Ok(())
    }
}

impl Read<IntOrString> for String {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        let (mut is_text, mut number) = (false, 0i32);
        fields(wire, left, |at, wire, left| match at {
            1 => is_text.read(wire, left),
            2 => number.read(wire, left),
            _ => Ok(()),
        })?;
        *self = if is_text { text_within(wire, left, 3)? } else { number.to_string() };
        Ok(())
    }
}

impl Read<Base64> for String {
    fn read(&mut self, wire: Wire<'_>, _: u32) -> std::result::Result<(), String> {
        *self = STANDARD.encode(bytes(wire)?);
        Ok(())
    }
}

impl Read<Json> for Value {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        let text = text_within(wire, left, 1)?;
        *self =
            if text.is_empty() { Value::Null } else { serde_json::from_str(&text).map_err(|why| why.to_string())? };
        Ok(())
    }
}

impl<F: Form, T: Read<F>> Read<F> for Option<T> {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        if F::is_null(wire) {
            return Ok(());
        }
        self.get_or_insert_default().read(wire, left)
    }
}

impl<F, T: Read<F>> Read<F> for Box<T> {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        (**self).read(wire, left)
    }
}

impl<F, T: Read<F>> Read<F> for Vec<T> {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        let mut item = T::default();
        item.read(wire, left)?;
        if self.is_empty() {
            // Most lists of most objects have one entry.
            self.reserve_exact(1);
        }
        self.push(item);
        Ok(())
    }
}

/// The key and the value of a map's entry, either of which may be left out where it is empty.
pub(crate) fn entry<K: Read, F, V: Read<F>>(wire: Wire<'_>, left: u32) -> std::result::Result<(K, V), String> {
    let (mut key, mut value) = (K::default(), V::default());
    fields(wire, left, |number, wire, left| match number {
        1 => key.read(wire, left),
        2 => value.read(wire, left),
        _ => Ok(()),
    })?;
    Ok((key, value))
}

impl<K: Read + Ord, F, V: Read<F>> Read<F> for BTreeMap<K, V> {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        let (key, value) = entry(wire, left)?;
        self.insert(key, value);
        Ok(())
    }
}

impl<K: Read + Eq + Hash, F, V: Read<F>, S: BuildHasher + Default> Read<F> for HashMap<K, V, S> {
    fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
        let (key, value) = entry(wire, left)?;
        self.insert(key, value);
        Ok(())
    }
}

impl Read for StringMap {
    fn read(&mut self, wire: Wire<'_>, _: u32) -> std::result::Result<(), String> {
        let (mut key, mut value): (&[u8], &[u8]) = (b"", b"");
        for part in Parts(bytes(wire)?) {
            match part? {
                (1, wire) => key = bytes(wire)?,
                (2, wire) => value = bytes(wire)?,
                _ => {}
            }
        }
        self.insert(String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        Ok(())
    }
}

message!(ObjectMeta {
    name = 1,
    generate_name = 2,
    namespace = 3,
    uid = 5,
    resource_version = 6,
    generation = 7,
    creation_timestamp = 8 as Time,
    deletion_timestamp = 9 as Time,
    deletion_grace_period_seconds = 10,
    labels = 11,
    annotations = 12,
    owner_references = 13,
    finalizers = 14,
});
message!(OwnerReference {
    kind = 1,
    name = 3,
    uid = 4,
    api_version = 5,
    controller = 6,
    block_owner_deletion = 7,
});
message!(ListMeta { resource_version = 2, continue_token = 3, remaining_item_count = 4 });
message!(Cause { reason = 1, message = 2, field = 3 });
message!(Details { name = 1, group = 2, kind = 3, causes = 4, retry_after_seconds = 5, uid = 6 });

/// The answer to what went wrong, but for the continue token of an expired list: nobody reads that.
#[derive(Default)]
struct Refusal {
    status: String,
    message: String,
    reason: String,
    details: Option<Details>,
    code: u16,
}

message!(Refusal { status = 2, message = 3, reason = 4, details = 5, code = 6 });

/// The header of a request for this form, or for the same in JSON where the server has no protobuf of it.
pub(crate) fn accept(json: &'static str) -> HeaderValue {
    // The first clause is the one that is wanted: the others are for servers that do not know it.
    let first = json.split(',').next().unwrap_or_default();
    let parameters = first.split_once(';').map_or(String::new(), |(_, parameters)| format!(";{parameters}"));
    let text = format!("{MEDIA}{parameters},{json}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("application/json"))
}

/// Whether this is how an answer in protobuf, or a watch in it, is headed.
pub(crate) fn is_protobuf(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|media| media.trim() == MEDIA)
}

/// The message of an object in its envelope.
pub(crate) fn unwrapped<K>(
    bytes: &[u8],
    read: impl FnOnce(&[u8]) -> std::result::Result<K, String>,
) -> std::result::Result<K, String> {
    read(open(bytes)?.raw)
}

/// The `Status` in its envelope.
pub(crate) fn status(bytes: &[u8]) -> std::result::Result<Status, String> {
    let Refusal { status, message, reason, details, code } = unwrapped(bytes, read)?;
    Ok(Status { status, message, reason: reason.into(), details, code, metadata: None })
}

/// What a frame of a watch tells: its type, and the object in its envelope.
pub(crate) fn event(frame: &[u8]) -> std::result::Result<(EventType, &[u8]), String> {
    let (event, object) = watch_event(frame)?;
    Ok((EventType::named(event).ok_or_else(|| format!("{event:?} is no type of an event"))?, object))
}

/// How long the frame is with which these bytes begin, its length included, once that has come.
pub(crate) fn frame_bytes(begun: &[u8]) -> Option<usize> {
    let length = begun.first_chunk::<FRAME_HEAD_BYTES>()?;
    Some(FRAME_HEAD_BYTES + u32::from_be_bytes(*length) as usize)
}

/// Reads a list while it comes, each object as soon as all of it is there.
pub(crate) struct ListReader<'a, K> {
    /// For messages.
    request: &'a str,
    object: FromMessage<K>,
    /// What has come and is not read yet.
    bytes: BytesMut,
    place: Place,
    list: ObjectList<K>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Magic,
    /// A field of the envelope, or the end.
    Envelope,
    /// A field of the list, of which so many bytes are left.
    List(u64),
}

impl<'a, K> ListReader<'a, K> {
    pub fn new(request: &'a str, object: FromMessage<K>) -> ListReader<'a, K> {
        ListReader { request, object, bytes: BytesMut::new(), place: Place::Magic, list: ObjectList::default() }
    }

    pub fn take(&mut self, data: &Bytes) -> Result<()> {
        self.bytes.extend_from_slice(data);
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(why) => return Err(self.wrong(&why)),
            }
        }
    }

    pub fn finish(mut self) -> Result<ObjectList<K>> {
        if self.place != Place::Envelope || !self.bytes.is_empty() {
            return Err(self.wrong("the message ends within the list"));
        }
        self.list.items.shrink_to_fit();
        Ok(self.list)
    }

    /// Reads one thing; whether there may be another in what has come.
    fn step(&mut self) -> std::result::Result<bool, String> {
        match self.place {
            Place::Magic => {
                if !MAGIC.starts_with(&self.bytes[..self.bytes.len().min(MAGIC.len())]) {
                    return Err("it is no message".into());
                }
                if self.bytes.len() < MAGIC.len() {
                    return Ok(false);
                }
                self.pass(MAGIC.len(), Place::Envelope);
            }
            Place::Envelope => {
                let Some(head) = head(&self.bytes)? else { return Ok(false) };
                // The list is read while it comes; all else about it says nothing that we do not know.
                if let (2, Kind::Bytes(length)) = (head.number, head.kind) {
                    self.pass(head.start, Place::List(length));
                } else {
                    let Some((_, _, end)) = part(&self.bytes)? else { return Ok(false) };
                    self.pass(end, Place::Envelope);
                }
            }
            Place::List(0) => self.place = Place::Envelope,
            Place::List(bytes) => {
                let Some((number, wire, end)) = part(&self.bytes)? else { return Ok(false) };
                let left = bytes.checked_sub(end as u64).ok_or("a field is longer than its list")?;
                match (number, wire) {
                    (1, wire) => self.list.metadata.read(wire, DEPTH_MAX)?,
                    (2, Wire::Bytes(message)) => {
                        let nth = self.list.items.len();
                        let object =
                            (self.object)(message).map_err(|why| format!("object {nth} of the list: {why}"))?;
                        self.list.items.push(object);
                    }
                    _ => {}
                }
                self.pass(end, Place::List(left));
            }
        }
        Ok(true)
    }

    fn pass(&mut self, bytes: usize, next: Place) {
        self.bytes.advance(bytes);
        self.place = next;
    }

    fn wrong(&self, why: &str) -> Error {
        Error::Decode { request: self.request.to_string(), wanted: type_name::<ObjectList<K>>(), why: why.to_string() }
    }
}
