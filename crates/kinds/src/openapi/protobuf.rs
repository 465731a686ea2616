//! OpenAPI documents in gnostic's protobuf, as kubectl and client-go ask for them: what each message holds, and one writer
//! that reads it. Knows the parts of OpenAPI that documents of a Kubernetes server are made of, and leaves out the others.

use api::protobuf::{message_of, put_bytes, put_number, put_varint};
use serde_json::Value;

/// The document of OpenAPI v2 as `openapi.v2.Document`.
pub fn v2(document: &Value) -> Vec<u8> {
    message_of(|out| write(out, v2::DOCUMENT, document))
}

/// A document of OpenAPI v3 as `openapi.v3.Document`.
pub fn v3(document: &Value) -> Vec<u8> {
    message_of(|out| write(out, v3::DOCUMENT, document))
}

/// The fields of a message by their numbers, each with the key that holds its value in JSON.
type Message = &'static [(u32, &'static str, How)];

/// How a value is written.
enum How {
    Text,
    Bool,
    Integer,
    Number,
    /// Free-form: a message with its YAML.
    Any,
    Message(Message),
    /// A list, one field an item.
    Each(&'static How),
    /// A message that holds a list, or the one thing that stands for a list of it.
    Boxed(&'static How),
    /// A message that holds one of several: what the value is says which.
    Either(fn(&Value) -> Option<(u32, How)>),
    /// The keys that are no fields: an entry with name and value for each that is of this sort.
    Entries(fn(&str) -> bool, &'static How),
}

const TEXTS: How = How::Each(&How::Text);
const ANY_EACH: How = How::Each(&How::Any);
const EXTENSIONS: How = How::Entries(|key| key.starts_with("x-"), &How::Any);
const PATHS: fn(&str) -> bool = |key| key.starts_with('/');
const CODES: fn(&str) -> bool = |key| !key.starts_with("x-");
const ALL: fn(&str) -> bool = |_| true;

// What both versions have, field for field.
const TAG: Message = &[
    (1, "name", How::Text),
    (2, "description", How::Text),
    (3, "externalDocs", How::Message(EXTERNAL_DOCS)),
    (4, "", EXTENSIONS),
];
const EXTERNAL_DOCS: Message = &[(1, "description", How::Text), (2, "url", How::Text), (3, "", EXTENSIONS)];
/// Names and lists of scopes.
const SECURITY_REQUIREMENT: How = How::Message(&[(1, "", How::Entries(ALL, &How::Boxed(&How::Text)))]);

fn write(out: &mut Vec<u8>, message: Message, value: &Value) {
    for (number, key, how) in message {
        match how {
            How::Entries(takes, how) => {
                let entries = value.as_object().into_iter().flatten();
                // A key that is a field of its own is no entry.
                let is_field = |name: &str| message.iter().any(|(_, key, _)| *key == name);
                for (name, value) in entries.filter(|(name, _)| takes(name) && !is_field(name)) {
                    let entry = message_of(|entry| {
                        put_bytes(entry, 1, name.as_bytes());
                        element(entry, 2, how, value);
                    });
                    put_bytes(out, *number, &entry);
                }
            }
            how => {
                if let Some(value) = value.get(key).filter(|value| !is_zero(how, value)) {
                    element(out, *number, how, value);
                }
            }
        }
    }
}

/// What proto3 leaves out.
fn is_zero(how: &How, value: &Value) -> bool {
    match how {
        How::Text => value.as_str().is_none_or(str::is_empty),
        How::Bool => value != &Value::Bool(true),
        How::Integer | How::Number => value.as_f64().is_none_or(|number| number == 0.0),
        _ => false,
    }
}

/// A value where one stands for sure.
fn element(out: &mut Vec<u8>, number: u32, how: &How, value: &Value) {
    match how {
        How::Text => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        How::Bool => put_number(out, number, u64::from(value.as_bool().unwrap_or_default())),
        How::Integer => put_number(out, number, value.as_i64().unwrap_or_default() as u64),
        How::Number => {
            put_varint(out, u64::from(number) << 3 | 1);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        How::Any => put_bytes(out, number, &message_of(|any| put_bytes(any, 2, api::yaml::write(value).as_bytes()))),
        How::Message(message) => put_bytes(out, number, &message_of(|inner| write(inner, message, value))),
        How::Each(how) => value.as_array().into_iter().flatten().for_each(|item| element(out, number, how, item)),
        How::Boxed(how) => {
            let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            put_bytes(out, number, &message_of(|inner| items.iter().for_each(|item| element(inner, 1, how, item))));
        }
        How::Either(which) => put_bytes(
            out,
            number,
            &message_of(|inner| {
                if let Some((number, how)) = which(value) {
                    element(inner, number, &how, value);
                }
            }),
        ),
        How::Entries(..) => {}
    }
}

fn is_reference(value: &Value) -> bool {
    value.get("$ref").is_some()
}

mod v2 {
    use super::How::{Any, Bool, Boxed, Each, Either, Entries, Integer, Message as Of, Number, Text};
    use super::{
        ALL, ANY_EACH, CODES, EXTENSIONS, EXTERNAL_DOCS, How, Message, PATHS, SECURITY_REQUIREMENT, TAG, TEXTS,
        is_reference,
    };

    pub(super) const DOCUMENT: Message = &[
        (1, "swagger", Text),
        (2, "info", Of(INFO)),
        (3, "host", Text),
        (4, "basePath", Text),
        (5, "schemes", TEXTS),
        (6, "consumes", TEXTS),
        (7, "produces", TEXTS),
        (8, "paths", Of(&[(1, "", EXTENSIONS), (2, "", Entries(PATHS, &Of(PATH_ITEM)))])),
        (9, "definitions", Of(&[(1, "", Entries(ALL, &Of(&SCHEMA)))])),
        (10, "parameters", Of(&[(1, "", Entries(ALL, &PARAMETER))])),
        (11, "responses", Of(&[(1, "", Entries(ALL, &Of(RESPONSE)))])),
        (12, "security", Each(&SECURITY_REQUIREMENT)),
        (13, "securityDefinitions", Of(&[(1, "", Entries(ALL, &SECURITY_DEFINITION))])),
        (14, "tags", Each(&Of(TAG))),
        (15, "externalDocs", Of(EXTERNAL_DOCS)),
        (16, "", EXTENSIONS),
    ];

    const INFO: Message = &[
        (1, "title", Text),
        (2, "version", Text),
        (3, "description", Text),
        (4, "termsOfService", Text),
        (5, "contact", Of(&[(1, "name", Text), (2, "url", Text), (3, "email", Text), (4, "", EXTENSIONS)])),
        (6, "license", Of(&[(1, "name", Text), (2, "url", Text), (3, "", EXTENSIONS)])),
        (7, "", EXTENSIONS),
    ];

    const SECURITY_DEFINITION: How = Either(|definition| match definition["type"].as_str()? {
        "basic" => Some((1, Of(&[(1, "type", Text), (2, "description", Text), (3, "", EXTENSIONS)]))),
        "apiKey" => Some((
            2,
            Of(&[(1, "type", Text), (2, "name", Text), (3, "in", Text), (4, "description", Text), (5, "", EXTENSIONS)]),
        )),
        // No server of Kubernetes has any other.
        _ => None,
    });

    const PATH_ITEM: Message = &[
        (1, "$ref", Text),
        (2, "get", Of(OPERATION)),
        (3, "put", Of(OPERATION)),
        (4, "post", Of(OPERATION)),
        (5, "delete", Of(OPERATION)),
        (6, "options", Of(OPERATION)),
        (7, "head", Of(OPERATION)),
        (8, "patch", Of(OPERATION)),
        (9, "parameters", Each(&PARAMETER_ITEM)),
        (10, "", EXTENSIONS),
    ];

    const OPERATION: Message = &[
        (1, "tags", TEXTS),
        (2, "summary", Text),
        (3, "description", Text),
        (4, "externalDocs", Of(EXTERNAL_DOCS)),
        (5, "operationId", Text),
        (6, "produces", TEXTS),
        (7, "consumes", TEXTS),
        (8, "parameters", Each(&PARAMETER_ITEM)),
        (9, "responses", Of(&[(1, "", Entries(CODES, &RESPONSE_VALUE)), (2, "", EXTENSIONS)])),
        (10, "schemes", TEXTS),
        (11, "deprecated", Bool),
        (12, "security", Each(&SECURITY_REQUIREMENT)),
        (13, "", EXTENSIONS),
    ];

    const REFERENCE: Message = &[(1, "$ref", Text), (2, "description", Text)];

    const PARAMETER_ITEM: How = Either(|parameter| match is_reference(parameter) {
        true => Some((2, Of(REFERENCE))),
        false => Some((1, PARAMETER)),
    });

    const PARAMETER: How = Either(|parameter| match parameter["in"] == "body" {
        true => Some((1, Of(BODY_PARAMETER))),
        false => Some((2, PLAIN_PARAMETER)),
    });

    const BODY_PARAMETER: Message = &[
        (1, "description", Text),
        (2, "name", Text),
        (3, "in", Text),
        (4, "required", Bool),
        (5, "schema", Of(&SCHEMA)),
        (6, "", EXTENSIONS),
    ];

    const PLAIN_PARAMETER: How = Either(|parameter| match parameter["in"].as_str()? {
        "header" => Some((1, Of(HEADER_OR_PATH_PARAMETER))),
        "formData" => Some((2, Of(QUERY_PARAMETER))),
        "query" => Some((3, Of(QUERY_PARAMETER))),
        "path" => Some((4, Of(HEADER_OR_PATH_PARAMETER))),
        _ => None,
    });

    const QUERY_PARAMETER: Message = &[
        (1, "required", Bool),
        (2, "in", Text),
        (3, "description", Text),
        (4, "name", Text),
        (5, "allowEmptyValue", Bool),
        (6, "type", Text),
        (7, "format", Text),
        (8, "items", Of(&ITEMS)),
        (9, "collectionFormat", Text),
        (10, "default", Any),
        (11, "maximum", Number),
        (12, "exclusiveMaximum", Bool),
        (13, "minimum", Number),
        (14, "exclusiveMinimum", Bool),
        (15, "maxLength", Integer),
        (16, "minLength", Integer),
        (17, "pattern", Text),
        (18, "maxItems", Integer),
        (19, "minItems", Integer),
        (20, "uniqueItems", Bool),
        (21, "enum", ANY_EACH),
        (22, "multipleOf", Number),
        (23, "", EXTENSIONS),
    ];

    const HEADER_OR_PATH_PARAMETER: Message = &[
        (1, "required", Bool),
        (2, "in", Text),
        (3, "description", Text),
        (4, "name", Text),
        (5, "type", Text),
        (6, "format", Text),
        (7, "items", Of(&ITEMS)),
        (8, "collectionFormat", Text),
        (9, "default", Any),
        (10, "maximum", Number),
        (11, "exclusiveMaximum", Bool),
        (12, "minimum", Number),
        (13, "exclusiveMinimum", Bool),
        (14, "maxLength", Integer),
        (15, "minLength", Integer),
        (16, "pattern", Text),
        (17, "maxItems", Integer),
        (18, "minItems", Integer),
        (19, "uniqueItems", Bool),
        (20, "enum", ANY_EACH),
        (21, "multipleOf", Number),
        (22, "", EXTENSIONS),
    ];

    static ITEMS: [(u32, &str, How); 18] = [
        (1, "type", Text),
        (2, "format", Text),
        (3, "items", Of(&ITEMS)),
        (4, "collectionFormat", Text),
        (5, "default", Any),
        (6, "maximum", Number),
        (7, "exclusiveMaximum", Bool),
        (8, "minimum", Number),
        (9, "exclusiveMinimum", Bool),
        (10, "maxLength", Integer),
        (11, "minLength", Integer),
        (12, "pattern", Text),
        (13, "maxItems", Integer),
        (14, "minItems", Integer),
        (15, "uniqueItems", Bool),
        (16, "enum", ANY_EACH),
        (17, "multipleOf", Number),
        (18, "", EXTENSIONS),
    ];

    const RESPONSE_VALUE: How = Either(|response| match is_reference(response) {
        true => Some((2, Of(REFERENCE))),
        false => Some((1, Of(RESPONSE))),
    });

    /// Headers and examples are in no document of a server.
    const RESPONSE: Message =
        &[(1, "description", Text), (2, "schema", Either(|_| Some((1, Of(&SCHEMA))))), (5, "", EXTENSIONS)];

    static SCHEMA: [(u32, &str, How); 30] = [
        (1, "$ref", Text),
        (2, "format", Text),
        (3, "title", Text),
        (4, "description", Text),
        (5, "default", Any),
        (6, "multipleOf", Number),
        (7, "maximum", Number),
        (8, "exclusiveMaximum", Bool),
        (9, "minimum", Number),
        (10, "exclusiveMinimum", Bool),
        (11, "maxLength", Integer),
        (12, "minLength", Integer),
        (13, "pattern", Text),
        (14, "maxItems", Integer),
        (15, "minItems", Integer),
        (16, "uniqueItems", Bool),
        (17, "maxProperties", Integer),
        (18, "minProperties", Integer),
        (19, "required", TEXTS),
        (20, "enum", ANY_EACH),
        (
            21,
            "additionalProperties",
            Either(|allowed| if allowed.is_boolean() { Some((2, Bool)) } else { Some((1, Of(&SCHEMA))) }),
        ),
        (22, "type", Boxed(&Text)),
        (23, "items", Boxed(&Of(&SCHEMA))),
        (24, "allOf", Each(&Of(&SCHEMA))),
        (25, "properties", Of(&[(1, "", Entries(ALL, &Of(&SCHEMA)))])),
        (26, "discriminator", Text),
        (27, "readOnly", Bool),
        (29, "externalDocs", Of(EXTERNAL_DOCS)),
        (30, "example", Any),
        (31, "", EXTENSIONS),
    ];
}

mod v3 {
    use serde_json::Value;

    use super::How::{Any, Bool, Boxed, Each, Either, Entries, Integer, Message as Of, Number, Text};
    use super::{
        ALL, ANY_EACH, CODES, EXTENSIONS, EXTERNAL_DOCS, How, Message, PATHS, SECURITY_REQUIREMENT, TAG, TEXTS,
        is_reference,
    };

    pub(super) const DOCUMENT: Message = &[
        (1, "openapi", Text),
        (2, "info", Of(INFO)),
        (3, "servers", Each(&Of(SERVER))),
        (4, "paths", Of(&[(1, "", Entries(PATHS, &Of(PATH_ITEM))), (2, "", EXTENSIONS)])),
        (5, "components", Of(COMPONENTS)),
        (6, "security", Each(&SECURITY_REQUIREMENT)),
        (7, "tags", Each(&Of(TAG))),
        (8, "externalDocs", Of(EXTERNAL_DOCS)),
        (9, "", EXTENSIONS),
    ];

    const INFO: Message = &[
        (1, "title", Text),
        (2, "description", Text),
        (3, "termsOfService", Text),
        (4, "contact", Of(&[(1, "name", Text), (2, "url", Text), (3, "email", Text), (4, "", EXTENSIONS)])),
        (5, "license", Of(&[(1, "name", Text), (2, "url", Text), (3, "", EXTENSIONS)])),
        (6, "version", Text),
        (7, "", EXTENSIONS),
        (8, "summary", Text),
    ];

    const SERVER: Message = &[(1, "url", Text), (2, "description", Text), (4, "", EXTENSIONS)];

    /// Examples, headers, links and callbacks are in no document of a server.
    const COMPONENTS: Message = &[
        (1, "schemas", Of(&[(1, "", Entries(ALL, &SCHEMA_OR_REFERENCE))])),
        (2, "responses", Of(&[(1, "", Entries(ALL, &RESPONSE_OR_REFERENCE))])),
        (3, "parameters", Of(&[(1, "", Entries(ALL, &PARAMETER_OR_REFERENCE))])),
        (5, "requestBodies", Of(&[(1, "", Entries(ALL, &BODY_OR_REFERENCE))])),
        (7, "securitySchemes", Of(&[(1, "", Entries(ALL, &SECURITY_SCHEME_OR_REFERENCE))])),
        (10, "", EXTENSIONS),
    ];

    const SECURITY_SCHEME_OR_REFERENCE: How = Either(|scheme| or_reference(scheme, Of(SECURITY_SCHEME)));

    const SECURITY_SCHEME: Message = &[
        (1, "type", Text),
        (2, "description", Text),
        (3, "name", Text),
        (4, "in", Text),
        (5, "scheme", Text),
        (6, "bearerFormat", Text),
        (8, "openIdConnectUrl", Text),
        (9, "", EXTENSIONS),
    ];

    const PATH_ITEM: Message = &[
        (1, "$ref", Text),
        (2, "summary", Text),
        (3, "description", Text),
        (4, "get", Of(OPERATION)),
        (5, "put", Of(OPERATION)),
        (6, "post", Of(OPERATION)),
        (7, "delete", Of(OPERATION)),
        (8, "options", Of(OPERATION)),
        (9, "head", Of(OPERATION)),
        (10, "patch", Of(OPERATION)),
        (11, "trace", Of(OPERATION)),
        (12, "servers", Each(&Of(SERVER))),
        (13, "parameters", Each(&PARAMETER_OR_REFERENCE)),
        (14, "", EXTENSIONS),
    ];

    const OPERATION: Message = &[
        (1, "tags", TEXTS),
        (2, "summary", Text),
        (3, "description", Text),
        (4, "externalDocs", Of(EXTERNAL_DOCS)),
        (5, "operationId", Text),
        (6, "parameters", Each(&PARAMETER_OR_REFERENCE)),
        (7, "requestBody", BODY_OR_REFERENCE),
        (8, "responses", Of(RESPONSES)),
        (10, "deprecated", Bool),
        (11, "security", Each(&SECURITY_REQUIREMENT)),
        (12, "servers", Each(&Of(SERVER))),
        (13, "", EXTENSIONS),
    ];

    const REFERENCE: Message = &[(1, "$ref", Text), (2, "summary", Text), (3, "description", Text)];

    fn or_reference(value: &Value, how: How) -> Option<(u32, How)> {
        Some(if is_reference(value) { (2, Of(REFERENCE)) } else { (1, how) })
    }

    const PARAMETER_OR_REFERENCE: How = Either(|parameter| or_reference(parameter, Of(PARAMETER)));

    const PARAMETER: Message = &[
        (1, "name", Text),
        (2, "in", Text),
        (3, "description", Text),
        (4, "required", Bool),
        (5, "deprecated", Bool),
        (6, "allowEmptyValue", Bool),
        (7, "style", Text),
        (8, "explode", Bool),
        (9, "allowReserved", Bool),
        (10, "schema", SCHEMA_OR_REFERENCE),
        (11, "example", Any),
        (13, "content", MEDIA_TYPES),
        (14, "", EXTENSIONS),
    ];

    const BODY_OR_REFERENCE: How = Either(|body| or_reference(body, Of(BODY)));

    const BODY: Message =
        &[(1, "description", Text), (2, "content", MEDIA_TYPES), (3, "required", Bool), (4, "", EXTENSIONS)];

    const RESPONSES: Message =
        &[(1, "default", RESPONSE_OR_REFERENCE), (2, "", Entries(CODES, &RESPONSE_OR_REFERENCE)), (3, "", EXTENSIONS)];

    const RESPONSE_OR_REFERENCE: How = Either(|response| or_reference(response, Of(RESPONSE)));

    const RESPONSE: Message = &[(1, "description", Text), (3, "content", MEDIA_TYPES), (5, "", EXTENSIONS)];

    const MEDIA_TYPES: How = Of(&[(1, "", Entries(ALL, &Of(MEDIA_TYPE)))]);

    const MEDIA_TYPE: Message = &[(1, "schema", SCHEMA_OR_REFERENCE), (2, "example", Any), (5, "", EXTENSIONS)];

    const SCHEMA_OR_REFERENCE: How = Either(|schema| or_reference(schema, Of(&SCHEMA)));

    static SCHEMA: [(u32, &str, How); 35] = [
        (1, "nullable", Bool),
        (2, "discriminator", Of(&[(1, "propertyName", Text), (3, "", EXTENSIONS)])),
        (3, "readOnly", Bool),
        (4, "writeOnly", Bool),
        (6, "externalDocs", Of(EXTERNAL_DOCS)),
        (7, "example", Any),
        (8, "deprecated", Bool),
        (9, "title", Text),
        (10, "multipleOf", Number),
        (11, "maximum", Number),
        (12, "exclusiveMaximum", Bool),
        (13, "minimum", Number),
        (14, "exclusiveMinimum", Bool),
        (15, "maxLength", Integer),
        (16, "minLength", Integer),
        (17, "pattern", Text),
        (18, "maxItems", Integer),
        (19, "minItems", Integer),
        (20, "uniqueItems", Bool),
        (21, "maxProperties", Integer),
        (22, "minProperties", Integer),
        (23, "required", TEXTS),
        (24, "enum", ANY_EACH),
        (25, "type", Text),
        (26, "allOf", Each(&SCHEMA_OR_REFERENCE)),
        (27, "oneOf", Each(&SCHEMA_OR_REFERENCE)),
        (28, "anyOf", Each(&SCHEMA_OR_REFERENCE)),
        (29, "not", Of(&SCHEMA)),
        (30, "items", Boxed(&SCHEMA_OR_REFERENCE)),
        (31, "properties", Of(&[(1, "", Entries(ALL, &SCHEMA_OR_REFERENCE))])),
        (
            32,
            "additionalProperties",
            Either(|allowed| if allowed.is_boolean() { Some((2, Bool)) } else { Some((1, SCHEMA_OR_REFERENCE)) }),
        ),
        (33, "default", Either(default)),
        (34, "description", Text),
        (35, "format", Text),
        (36, "", EXTENSIONS),
    ];

    /// A default that is no scalar has no place in the message, and is an empty one.
    fn default(value: &Value) -> Option<(u32, How)> {
        match value {
            Value::Number(_) => Some((1, Number)),
            Value::Bool(_) => Some((2, Bool)),
            Value::String(_) => Some((3, Text)),
            _ => None,
        }
    }
}
