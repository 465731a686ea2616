//! Custom resources in OpenAPI documents: the schema as its definition has it, with what every object has. Version 2 says
//! less: its clients take much of version 3 for an error.

use serde_json::{Map, Value, json};

use crate::builtin::read::Read;

/// The schema of an object. `metadata` refers to the schema of its metadata.
pub fn object(schema: &Value, metadata: Value, v3: bool) -> Value {
    let mut out = schema.clone();
    published(&mut out, &metadata, v3);
    with_meta(&mut out, metadata);
    out
}

/// The schema of a list of such objects.
pub fn list(item: Value, metadata: Value) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string" },
            "items": { "type": "array", "items": item },
            "kind": { "type": "string" },
            "metadata": metadata,
        },
    })
}

fn with_meta(schema: &mut Value, metadata: Value) {
    if !schema.at("properties").is_object() {
        schema["properties"] = json!({});
    }
    let properties = &mut schema["properties"];
    for field in ["apiVersion", "kind"] {
        properties[field] = json!({ "type": "string" });
    }
    properties["metadata"] = metadata;
    if let Some(properties) = properties.as_object_mut() {
        properties.sort_keys();
    }
}

fn published(schema: &mut Value, metadata: &Value, v3: bool) {
    let Some(fields) = schema.as_object_mut() else { return };
    if !v3 {
        simplify(fields);
    }
    for field in ["items", "additionalProperties", "not"] {
        if let Some(below) = fields.get_mut(field) {
            published(below, metadata, v3);
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        let below = fields.get_mut(field).and_then(Value::as_array_mut);
        below.into_iter().flatten().for_each(|below| published(below, metadata, v3));
    }
    let below = fields.get_mut("properties").and_then(Value::as_object_mut);
    below.into_iter().flatten().for_each(|(_, below)| published(below, metadata, v3));
    if fields.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        with_meta(schema, metadata.clone());
    }
}

fn simplify(fields: &mut Map<String, Value>) {
    for field in ["allOf", "anyOf", "oneOf", "not", "default"] {
        fields.shift_remove(field);
    }
    let is_set = |fields: &Map<String, Value>, field: &str| fields.get(field) == Some(&Value::Bool(true));
    let gone: &[&str] = if is_set(fields, "nullable") {
        &["nullable", "type", "items", "properties"]
    } else if is_set(fields, "x-kubernetes-preserve-unknown-fields") {
        &["items", "properties", "additionalProperties"]
    } else {
        &[]
    };
    gone.iter().for_each(|field| drop(fields.shift_remove(*field)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_says_less() {
        #[track_caller]
        fn check(v3: bool, want: Value) {
            let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
                "n": { "type": "integer", "nullable": true, "default": 1 },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": { "x": {} } },
            } } } });
            let out = object(&schema, json!("meta"), v3);
            assert_eq!(out["properties"]["metadata"], json!("meta"));
            assert_eq!(out["properties"]["spec"]["properties"], want);
        }
        check(
            true,
            json!({
                "n": { "type": "integer", "nullable": true, "default": 1 },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": { "x": {} } },
            }),
        );
        check(false, json!({ "n": {}, "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }));
    }
}
