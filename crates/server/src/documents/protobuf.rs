//! Discovery documents in protobuf, from their JSON and the field numbers of the tables. Reads none.

use kinds::schema::{Field, Schema, Shape, TypeId};
use serde_json::Value;

/// What every message of Kubernetes begins with.
const MAGIC: &[u8] = b"k8s\0";

/// A document in Kubernetes' envelope; its `kind` says which type it is.
pub(super) fn encode(json: &[u8]) -> Vec<u8> {
    let document: Value = serde_json::from_slice(json).unwrap_or_default();
    let schema = kinds::tables::schema();
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let package = match text("apiVersion") {
        "apidiscovery.k8s.io/v2" => "api.apidiscovery.v2",
        _ => "apimachinery.pkg.apis.meta.v1",
    };
    let raw = match schema.find(&format!("{package}.{}", text("kind"))) {
        Some(root) => message(schema, root, &document),
        None => Vec::new(),
    };
    let api_version = if text("apiVersion").is_empty() { "v1" } else { text("apiVersion") };
    let mut type_meta = Vec::new();
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, text("kind").as_bytes());
    let mut out = MAGIC.to_vec();
    put_bytes(&mut out, 1, &type_meta);
    put_bytes(&mut out, 2, &raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

fn message(schema: &Schema, of: TypeId, object: &Value) -> Vec<u8> {
    let fields = &schema.get(of).fields;
    // The envelope says the kind of a root object, not the object itself.
    let is_root = fields.len() > 1 && &*fields[0].name == "kind" && &*fields[1].name == "apiVersion";
    let mut fields: Vec<&Field> = fields.iter().skip(if is_root { 2 } else { 0 }).collect();
    fields.sort_by_key(|field| field.number);
    let mut out = Vec::new();
    for field in fields {
        match object.get(&*field.name) {
            Some(value) => put(&mut out, schema, field.number as u32, &field.shape, value),
            // Go writes a value that is no pointer even when it is zero.
            None if !field.pointer => put(&mut out, schema, field.number as u32, &field.shape, &Value::Null),
            None => {}
        }
    }
    out
}

fn put(out: &mut Vec<u8>, schema: &Schema, number: u32, shape: &Shape, value: &Value) {
    match shape {
        Shape::String => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Shape::Bool => put_number(out, number, u64::from(value.as_bool().unwrap_or_default())),
        Shape::Int32 | Shape::Int64 => put_number(out, number, value.as_i64().unwrap_or_default() as u64),
        Shape::Struct(of) => put_bytes(out, number, &message(schema, *of, value)),
        Shape::List(item, _) => {
            for value in value.as_array().into_iter().flatten() {
                put(out, schema, number, item, value);
            }
        }
        Shape::Time => put_bytes(out, number, b""),
        // No discovery document has a value of another shape.
        _ => {}
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_its_table_in_protobuf() {
        let json =
            br#"{"kind":"APIGroup","apiVersion":"v1","name":"a","versions":[{"groupVersion":"a/v1","version":"v1"}],
            "preferredVersion":{"groupVersion":"a/v1","version":"v1"}}"#;
        let text = String::from_utf8(encode(json)).unwrap();
        let version = "\n\x04a/v1\x12\x02v1";
        let raw = format!("\n\x01a\x12\x0a{version}\x1a\x0a{version}");
        assert_eq!(
            text,
            format!("k8s\0\n\x0e\n\x02v1\x12\x08APIGroup\x12{}{raw}\x1a\0\"\0", char::from(raw.len() as u8))
        );
    }
}
