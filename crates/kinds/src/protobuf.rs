//! Objects in Kubernetes' protobuf, both directions, from the field numbers of the tables. Writes the bytes that a Go
//! server writes; reads what any client writes. Never defaults or validates: what is read goes through [`crate::decode`].

use std::collections::HashMap;
use std::sync::OnceLock;

use api::protobuf::{Parts, Wire, enclose, lossy, message_of, put_bytes, put_number, put_varint};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::decode::DEPTH_MAX;
use crate::scalar;
use crate::schema::{Alternative, Field, Schema, Shape, TypeId};
use crate::tables;

/// A message of a type as a value, to be normalized like any other body. Unknown fields are left out. The error is Go's.
pub fn decode(schema: &Schema, root: TypeId, raw: &[u8]) -> Result<Value, String> {
    Reader { schema }.message(root, raw, 0)
}

/// An object, list, `Status` or discovery document in its envelope; none where its type has no protobuf (custom resources).
pub fn encode(value: &Value) -> Option<Vec<u8>> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let mut raw = Vec::with_capacity(256);
    let writer = Writer { schema: tables::schema() };
    match kind {
        "PartialObjectMetadata" if is_meta(api_version) => writer.partial(&mut raw, value),
        "PartialObjectMetadataList" if is_meta(api_version) => writer.partial_list(&mut raw, value),
        _ => {
            let api_version = if api_version.is_empty() { "v1" } else { api_version };
            writer.message(&mut raw, root_of(api_version, kind)?, value);
        }
    }
    let api_version = if api_version.is_empty() { "v1" } else { api_version };
    Some(enclose(api_version, kind, &raw))
}

/// Whether objects of this kind have a message.
pub fn has_message(api_version: &str, kind: &str) -> bool {
    root_of(api_version, kind).is_some()
}

fn is_meta(api_version: &str) -> bool {
    api_version.starts_with("meta.k8s.io/")
}

/// The type of what says this `apiVersion` and `kind`; the table of all of them is made once.
fn root_of(api_version: &str, kind: &str) -> Option<TypeId> {
    static ROOTS: OnceLock<HashMap<(&str, &str), TypeId>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let schema = tables::schema();
        let ids: HashMap<&str, TypeId> =
            schema.types.iter().enumerate().map(|(at, t)| (&*t.name, TypeId(at as u32))).collect();
        let served = tables::served_types().flat_map(|(name, kind, versions)| {
            let id = ids.get(name).copied();
            versions.into_iter().filter_map(move |version| Some(((version, kind), id?)))
        });
        let documents = ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions"].map(|kind| {
            let id = ids.get(&*format!("apimachinery.pkg.apis.meta.v1.{kind}")).copied();
            id.map(|id| (("v1", kind), id))
        });
        served.chain(documents.into_iter().flatten()).collect()
    });
    roots.get(&(api_version, kind)).copied()
}

/// A field that is a named list type in Go is a message with `items` in protobuf; so is every list inside a map.
fn is_boxed_list(field: &Field) -> bool {
    matches!(field.shape, Shape::List(..)) && field.named.as_deref().is_some_and(|name| !name.starts_with("[]"))
}

struct Writer<'a> {
    schema: &'a Schema,
}

impl Writer<'_> {
    fn message(&self, out: &mut Vec<u8>, of: TypeId, object: &Value) {
        // Kind and version are the envelope's, and have no number.
        let mut fields: Vec<&Field> = self.schema.get(of).fields.iter().filter(|field| field.number > 0).collect();
        let path = |field: &Field, at: usize| field.inlined_from.get(at).copied().unwrap_or(field.number);
        fields.sort_by_key(|field| (path(field, 0), path(field, 1), field.number));
        self.fields(out, &fields, 0, object);
    }

    /// Fields sorted by their numbers, `depth` inlined structs deep.
    fn fields(&self, out: &mut Vec<u8>, fields: &[&Field], depth: usize, object: &Value) {
        let outer = |field: &Field| field.inlined_from.get(depth).copied();
        for group in fields.chunk_by(|a, b| outer(a).is_some() && outer(a) == outer(b)) {
            match outer(group[0]) {
                Some(number) => {
                    let mut inner = Vec::new();
                    self.fields(&mut inner, group, depth + 1, object);
                    put_bytes(out, number, &inner);
                }
                None => self.field(out, group[0], object),
            }
        }
    }

    fn field(&self, out: &mut Vec<u8>, field: &Field, object: &Value) {
        let value = object.get(&*field.name).unwrap_or(&Value::Null);
        // What is no pointer is written even when it is zero.
        let written = !value.is_null() || !field.pointer;
        match &field.shape {
            Shape::List(item, _) if is_boxed_list(field) => {
                if let Value::Array(items) = value {
                    put_bytes(out, field.number, &self.boxed(item, items));
                }
            }
            Shape::Bytes if value.is_null() => {}
            shape if written => self.value(out, field.number, shape, value),
            _ => {}
        }
    }

    fn value(&self, out: &mut Vec<u8>, number: u32, shape: &Shape, value: &Value) {
        match shape {
            Shape::String => put_bytes(out, number, text(value).as_bytes()),
            Shape::Bool => put_number(out, number, u64::from(value.as_bool().unwrap_or_default())),
            Shape::Int32 | Shape::Int64 => put_number(out, number, integer(value) as u64),
            Shape::Float => {
                put_varint(out, u64::from(number) << 3 | 1);
                out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
            }
            Shape::Bytes => put_bytes(out, number, &STANDARD.decode(text(value)).unwrap_or_default()),
            Shape::Time | Shape::MicroTime => put_bytes(out, number, &time(value)),
            Shape::Duration => {
                let nanos = scalar::parse_duration(text(value)).unwrap_or_default();
                put_bytes(out, number, &message_of(|inner| put_number(inner, 1, nanos as u64)));
            }
            Shape::Quantity => {
                let amount = match value {
                    Value::String(text) => text.clone(),
                    Value::Null => "0".into(),
                    other => other.to_string(),
                };
                put_bytes(out, number, &message_of(|inner| put_bytes(inner, 1, amount.as_bytes())));
            }
            Shape::IntOrString => put_bytes(
                out,
                number,
                &message_of(|inner| {
                    put_number(inner, 1, u64::from(value.is_string()));
                    put_number(inner, 2, integer(value) as u64);
                    put_bytes(inner, 3, text(value).as_bytes());
                }),
            ),
            Shape::Any | Shape::Deduced | Shape::Scalar => put_bytes(
                out,
                number,
                &message_of(|inner| {
                    if !value.is_null() {
                        put_bytes(inner, 1, value.to_string().as_bytes());
                    }
                }),
            ),
            Shape::Struct(of) => put_bytes(out, number, &message_of(|inner| self.message(inner, *of, value))),
            Shape::StructOr(of, other) => {
                put_bytes(out, number, &message_of(|inner| self.struct_or(inner, *of, *other, value)));
            }
            Shape::List(item, _) => {
                for value in value.as_array().into_iter().flatten() {
                    match &**item {
                        Shape::List(inner, _) => {
                            put_bytes(out, number, &self.boxed(inner, value.as_array().map_or(&[], Vec::as_slice)));
                        }
                        item => self.value(out, number, item, value),
                    }
                }
            }
            Shape::Map(item) => {
                let mut entries: Vec<(&String, &Value)> = value.as_object().into_iter().flatten().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    let entry = message_of(|inner| {
                        put_bytes(inner, 1, key.as_bytes());
                        match &**item {
                            Shape::List(item, _) => {
                                put_bytes(inner, 2, &self.boxed(item, value.as_array().map_or(&[], Vec::as_slice)));
                            }
                            item => self.value(inner, 2, item, value),
                        }
                    });
                    put_bytes(out, number, &entry);
                }
            }
        }
    }

    fn boxed(&self, item: &Shape, items: &[Value]) -> Vec<u8> {
        message_of(|inner| items.iter().for_each(|value| self.value(inner, 1, item, value)))
    }

    fn struct_or(&self, out: &mut Vec<u8>, of: TypeId, other: Alternative, value: &Value) {
        let schema = |out: &mut Vec<u8>, number: u32, value: &Value| {
            put_bytes(out, number, &message_of(|inner| self.message(inner, of, value)));
        };
        match other {
            Alternative::Bool => {
                // A schema allows what it describes.
                put_number(out, 1, u64::from(value.as_bool().unwrap_or(value.is_object())));
                if value.is_object() {
                    schema(out, 2, value);
                }
            }
            Alternative::List => match value {
                Value::Array(items) => items.iter().for_each(|item| schema(out, 2, item)),
                value => schema(out, 1, value),
            },
            Alternative::Strings => match value {
                Value::Array(items) => items.iter().for_each(|item| put_bytes(out, 2, text(item).as_bytes())),
                value => schema(out, 1, value),
            },
        }
    }

    fn partial(&self, out: &mut Vec<u8>, object: &Value) {
        if let Some(of) = self.schema.find("apimachinery.pkg.apis.meta.v1.ObjectMeta") {
            put_bytes(out, 1, &message_of(|inner| self.message(inner, of, &object["metadata"])));
        }
    }

    fn partial_list(&self, out: &mut Vec<u8>, list: &Value) {
        if let Some(of) = self.schema.find("apimachinery.pkg.apis.meta.v1.ListMeta") {
            put_bytes(out, 1, &message_of(|inner| self.message(inner, of, &list["metadata"])));
        }
        for item in list["items"].as_array().into_iter().flatten() {
            put_bytes(out, 2, &message_of(|inner| self.partial(inner, item)));
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// `Timestamp`; zero times are empty.
fn time(value: &Value) -> Vec<u8> {
    let Ok(when) = text(value).parse::<Timestamp>() else { return Vec::new() };
    message_of(|inner| {
        put_number(inner, 1, when.as_second() as u64);
        put_number(inner, 2, when.subsec_nanosecond() as u64);
    })
}

struct Reader<'s> {
    schema: &'s Schema,
}

impl Reader<'_> {
    fn message(&self, of: TypeId, bytes: &[u8], depth: usize) -> Result<Value, String> {
        let fields: Vec<&Field> = self.schema.get(of).fields.iter().filter(|field| field.number > 0).collect();
        let mut object = Map::new();
        self.fields(&mut object, &fields, 0, bytes, depth)?;
        Ok(Value::Object(object))
    }

    /// Fields that are `inlined` structs deep, out of the message of the innermost.
    fn fields(
        &self,
        object: &mut Map<String, Value>,
        fields: &[&Field],
        inlined: usize,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("exceeded max depth".into());
        }
        for part in Parts(bytes) {
            let (number, wire) = part?;
            let own = fields.iter().find(|field| field.inlined_from.len() == inlined && field.number == number);
            if let Some(field) = own {
                self.field(object, field, wire, depth)?;
                continue;
            }
            let inner: Vec<&Field> =
                fields.iter().filter(|field| field.inlined_from.get(inlined) == Some(&number)).copied().collect();
            if !inner.is_empty() {
                self.fields(object, &inner, inlined + 1, message(wire, number)?, depth + 1)?;
            }
        }
        Ok(())
    }

    fn field(
        &self,
        object: &mut Map<String, Value>,
        field: &Field,
        wire: Wire<'_>,
        depth: usize,
    ) -> Result<(), String> {
        let place = object.entry(&*field.name).or_insert(Value::Null);
        match &field.shape {
            Shape::List(item, _) if is_boxed_list(field) => *place = self.boxed(item, wire, depth)?,
            Shape::List(item, _) => {
                let value = match &**item {
                    Shape::List(inner, _) => self.boxed(inner, wire, depth)?,
                    item => self.value(item, wire, &field.name, depth)?,
                };
                match place {
                    Value::Array(items) => items.push(value),
                    place => *place = Value::Array(vec![value]),
                }
            }
            Shape::Map(item) => {
                let (mut key, mut value) = (String::new(), None);
                for part in Parts(message(wire, field.number)?) {
                    match part? {
                        (1, Wire::Bytes(text)) => key = lossy(text),
                        (2, wire) => {
                            value = Some(match &**item {
                                Shape::List(inner, _) => self.boxed(inner, wire, depth)?,
                                item => self.value(item, wire, &field.name, depth)?,
                            });
                        }
                        _ => {}
                    }
                }
                let value = match value {
                    Some(value) => value,
                    None => crate::decode::zero(self.schema, item),
                };
                if let Value::Null = place {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(map) = place {
                    map.insert(key, value);
                }
            }
            shape => *place = self.value(shape, wire, &field.name, depth)?,
        }
        Ok(())
    }

    fn boxed(&self, item: &Shape, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        for part in Parts(message(wire, 1)?) {
            if let (1, wire) = part? {
                items.push(self.value(item, wire, "items", depth + 1)?);
            }
        }
        Ok(Value::Array(items))
    }

    fn value(&self, shape: &Shape, wire: Wire<'_>, name: &str, depth: usize) -> Result<Value, String> {
        let wrong = || Err(wrong_type(wire, name));
        Ok(match (shape, wire) {
            (Shape::String, Wire::Bytes(bytes)) => lossy(bytes).into(),
            (Shape::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            (Shape::Bool, Wire::Varint(n)) => (n != 0).into(),
            // Small numbers are cut to their size, as Go does.
            (Shape::Int32, Wire::Varint(n)) => i64::from(n as i32).into(),
            (Shape::Int64, Wire::Varint(n)) => (n as i64).into(),
            (Shape::Float, Wire::Fixed64(n)) => f64::from_bits(n).into(),
            (Shape::Float, Wire::Fixed32(n)) => f64::from(f32::from_bits(n)).into(),
            (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => read_time(bytes, *shape == Shape::MicroTime)?,
            (Shape::Duration, Wire::Bytes(bytes)) => {
                let mut nanos = 0;
                for part in Parts(bytes) {
                    if let (1, Wire::Varint(n)) = part? {
                        nanos = n as i64;
                    }
                }
                scalar::print_duration(nanos).into()
            }
            (Shape::Quantity, Wire::Bytes(bytes)) => {
                let mut amount = "0".to_string();
                for part in Parts(bytes) {
                    if let (1, Wire::Bytes(text)) = part? {
                        amount = lossy(text);
                    }
                }
                amount.into()
            }
            (Shape::IntOrString, Wire::Bytes(bytes)) => {
                let (mut is_text, mut number, mut shown) = (false, 0i32, String::new());
                for part in Parts(bytes) {
                    match part? {
                        (1, Wire::Varint(n)) => is_text = n == 1,
                        (2, Wire::Varint(n)) => number = n as i32,
                        (3, Wire::Bytes(text)) => shown = lossy(text),
                        _ => {}
                    }
                }
                if is_text { shown.into() } else { number.into() }
            }
            (Shape::Any, Wire::Bytes(bytes)) => {
                let mut raw: &[u8] = &[];
                for part in Parts(bytes) {
                    if let (1, Wire::Bytes(json)) = part? {
                        raw = json;
                    }
                }
                match raw {
                    [] => Value::Null,
                    json => serde_json::from_slice(json).map_err(|_| {
                        crate::decode::syntax_error(json).unwrap_or_else(|| format!("{name}: the raw value is no JSON"))
                    })?,
                }
            }
            (Shape::Struct(of), Wire::Bytes(bytes)) => self.message(*of, bytes, depth + 1)?,
            (Shape::StructOr(of, other), Wire::Bytes(bytes)) => self.struct_or(*of, *other, bytes, depth + 1)?,
            _ => return wrong(),
        })
    }

    fn struct_or(&self, of: TypeId, other: Alternative, bytes: &[u8], depth: usize) -> Result<Value, String> {
        let (mut object, mut allows, mut items) = (None, false, Vec::new());
        for part in Parts(bytes) {
            match (other, part?) {
                (Alternative::Bool, (1, Wire::Varint(n))) => allows = n != 0,
                (Alternative::Bool, (2, Wire::Bytes(inner)))
                | (Alternative::List | Alternative::Strings, (1, Wire::Bytes(inner))) => {
                    object = Some(self.message(of, inner, depth)?);
                }
                (Alternative::List, (2, Wire::Bytes(inner))) => items.push(self.message(of, inner, depth)?),
                (Alternative::Strings, (2, Wire::Bytes(inner))) => items.push(lossy(inner).into()),
                _ => {}
            }
        }
        Ok(match (object, other) {
            (Some(object), _) => object,
            (None, Alternative::Bool) => allows.into(),
            (None, _) => Value::Array(items),
        })
    }
}

fn read_time(bytes: &[u8], micro: bool) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let zero = bytes.is_empty();
    for part in Parts(bytes) {
        match part? {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    // Seconds are all that JSON keeps of a time, and microseconds of a finer one.
    let nanos = if micro { nanos / 1000 * 1000 } else { 0 };
    let Ok(when) = Timestamp::new(seconds, nanos) else { return Ok(Value::Null) };
    Ok(match (zero, micro) {
        (true, _) => Value::Null,
        (_, true) => when.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into(),
        (_, false) => when.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
    })
}

fn message<'a>(wire: Wire<'a>, number: u32) -> Result<&'a [u8], String> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        other => Err(wrong_type(other, &number.to_string())),
    }
}

fn wrong_type(wire: Wire<'_>, name: &str) -> String {
    let kind = wire.kind();
    // The text names fields as Go does.
    let mut letters = name.chars();
    let name: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    format!("proto: wrong wireType = {kind} for field {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_its_table_in_protobuf() {
        let json =
            br#"{"kind":"APIGroup","apiVersion":"v1","name":"a","versions":[{"groupVersion":"a/v1","version":"v1"}],
            "preferredVersion":{"groupVersion":"a/v1","version":"v1"}}"#;
        let text = String::from_utf8(encode(&serde_json::from_slice(json).unwrap()).unwrap()).unwrap();
        let version = "\n\x04a/v1\x12\x02v1";
        let raw = format!("\n\x01a\x12\x0a{version}\x1a\x0a{version}");
        assert_eq!(
            text,
            format!("k8s\0\n\x0e\n\x02v1\x12\x08APIGroup\x12{}{raw}\x1a\0\"\0", char::from(raw.len() as u8))
        );
    }

    #[test]
    fn a_wrong_message_is_told_as_go_tells_it() {
        let schema = tables::schema();
        let pod = tables::type_of("v1", "Pod").unwrap();
        assert_eq!(decode(schema, pod, b"\x08\x01"), Err("proto: wrong wireType = 0 for field Metadata".into()));
    }
}
