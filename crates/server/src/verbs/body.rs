//! From a request's body to an object of its kind: size, encoding, kind, fields. Checks nothing that needs the cluster.

use std::borrow::Cow;

use api::options::FieldValidation;
use api::protobuf::Envelope;
use api::{Status, codec, go, meta, yaml};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use kinds::decode::{self, Decoded};
use kinds::{Kind, Registry, managed, protobuf};
use serde_json::Value;

use crate::serve::RequestBody;

/// Most bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// Reads a body to its end, or refuses it when it is too large. How long that may take is the request's deadline.
pub async fn read(mut body: RequestBody) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| Status::bad_request(format!("the body could not be read: {why}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(Status::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}")));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// The media type of a body, lower case and without parameters; `""` where there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The encoding of a body that holds an object.
pub fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    const UNKNOWN: &str = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    match media_type(headers).as_str() {
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        _ => Err(Status::unsupported_media_type(UNKNOWN)),
    }
}

/// What a body should be: the kind of the path, or of its subresource.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub registry: &'a Registry,
    pub kind: &'a Kind,
    pub group: &'a str,
    pub version: &'a str,
    pub kind_name: &'a str,
    pub root: kinds::schema::TypeId,
}

impl<'a> Wanted<'a> {
    pub fn object_of(registry: &'a Registry, kind: &'a Kind) -> Wanted<'a> {
        Wanted { registry, kind, group: &kind.group, version: &kind.version, kind_name: &kind.kind, root: kind.root }
    }

    pub fn api_version(&self) -> String {
        meta::api_version(self.group, self.version)
    }

    /// A custom resource itself, not the scale of one.
    pub fn is_custom(&self) -> bool {
        self.kind.is_custom() && self.root == self.kind.root
    }
}

/// The object that a body holds, its `kind` and `apiVersion` filled in, and what strict clients want to know.
pub fn object(
    wanted: Wanted,
    bytes: &[u8],
    encoding: Encoding,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let mut object = object_as_sent(wanted, bytes, encoding, validation, warnings)?;
    if wanted.root == wanted.kind.root {
        wanted.kind.drop_empty(&mut object);
    }
    Ok(object)
}

/// The same with the empty lists and maps that the client wrote, for who compares them or shows them in a refusal.
pub fn object_as_sent(
    wanted: Wanted,
    bytes: &[u8],
    encoding: Encoding,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    if let (Encoding::Json, Some(decoded)) = (encoding, at_once(wanted, bytes)) {
        note_strictness(wanted, validation, Vec::new(), decoded.strict, warnings)?;
        return Ok(with_type(wanted, decoded.object));
    }
    let unrecognized = |why: String| unrecognized(wanted, &why, bytes);
    let Read { api_version, kind, content, duplicates } = parse(bytes, encoding).map_err(unrecognized)?;
    let checked = match wanted.is_custom() {
        true => check_custom_kind(wanted, &api_version, &kind, &content),
        false => check_kind(wanted, &api_version, &kind),
    };
    checked.map_err(|why| why.unwrap_or_else(unrecognized))?;
    let (decoded, resets) = match &content {
        Content::Json(json) => {
            let decoded = wanted.kind.decode_as_sent(wanted.root, json).map_err(|why| why.to_string());
            (decoded, managed::body_asks_reset(json))
        }
        Content::Message(raw) => (message(wanted, raw), false),
    };
    let Decoded { object, strict } = decoded.map_err(|why| cannot_be(wanted, why))?;
    note_strictness(wanted, validation, duplicates, strict, warnings)?;
    let mut object = with_type(wanted, object);
    if resets {
        managed::mark_reset(&mut object);
    }
    Ok(object)
}

/// A body that is what was wanted, read once. Nothing where it is anything else, or where there is more to say of it: that
/// is told in the order in which Go finds out, its kind before all others.
fn at_once(wanted: Wanted, bytes: &[u8]) -> Option<Decoded> {
    if wanted.is_custom() || wanted.root != wanted.kind.root || managed::body_asks_reset(bytes) {
        return None;
    }
    let decoded = wanted.kind.decode_as_sent(wanted.root, bytes).ok()?;
    let text = |field| decoded.object.get(field).and_then(Value::as_str).unwrap_or_default();
    check_kind(wanted, text("apiVersion"), text("kind")).ok().map(|()| decoded)
}

/// Duplicate keys of YAML and what the decoder found, as field validation asks.
fn note_strictness(
    wanted: Wanted,
    validation: FieldValidation,
    duplicates: Vec<String>,
    strict: Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            warnings.extend(duplicates);
            warnings.extend(strict);
        }
        FieldValidation::Strict => {
            let of_yaml = (!duplicates.is_empty()).then(|| yaml_errors(&duplicates));
            let all: Vec<String> = of_yaml.into_iter().chain(strict).collect();
            if !all.is_empty() {
                return Err(cannot_be(wanted, format!("strict decoding error: {}", all.join(", "))));
            }
        }
    }
    Ok(())
}

/// Duplicate keys as one error of go-yaml.
pub fn yaml_errors(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

/// The options that the body of a deletion holds. Any group may claim them, and unknown fields mean nothing.
pub fn options(wanted: Wanted, bytes: &[u8], encoding: Encoding) -> Result<Value, Status> {
    let Read { api_version, kind, content, .. } = parse(bytes, encoding).map_err(Status::bad_request)?;
    if !kind.is_empty() && kind != wanted.kind_name {
        let version = if api_version.is_empty() { wanted.version } else { &api_version };
        // The one other kind that any group may claim.
        if kind == "Status" && matches!(version, "v1" | "meta.k8s.io/v1") {
            let wanted = wanted.kind_name;
            return Err(Status::bad_request(format!("converting (v1.Status) to (v1.{wanted}): unknown conversion")));
        }
        return Err(Status::bad_request(format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            go::quote(&kind),
            go::quote(version)
        )));
    }
    let decoded = match &content {
        Content::Json(json) => wanted.kind.decode_as(wanted.root, json).map_err(|why| why.to_string()),
        Content::Message(raw) => message(wanted, raw),
    };
    decoded.map(|decoded| decoded.object).map_err(Status::bad_request)
}

/// A body that says what it is.
struct Read<'a> {
    api_version: String,
    kind: String,
    content: Content<'a>,
    /// Keys that YAML sets twice.
    duplicates: Vec<String>,
}

enum Content<'a> {
    Json(Cow<'a, [u8]>),
    /// A protobuf message out of its envelope.
    Message(&'a [u8]),
}

/// Reads as much of a body as says its kind. The error is Go's.
fn parse(bytes: &[u8], encoding: Encoding) -> Result<Read<'_>, String> {
    let (json, duplicates) = match encoding {
        Encoding::Json => (Cow::Borrowed(bytes), Vec::new()),
        Encoding::Yaml => {
            let document = yaml::read(bytes)?;
            (Cow::Owned(codec::to_json(&document.value)), document.duplicates)
        }
        Encoding::Protobuf => {
            let Envelope { api_version, kind, raw } = api::protobuf::open(bytes)?;
            return Ok(Read { api_version, kind, content: Content::Message(raw), duplicates: Vec::new() });
        }
    };
    let (api_version, kind) =
        decode::type_meta(&json).map_err(|why| format!("couldn't get version/kind; json parse error: {why}"))?;
    Ok(Read { api_version, kind, content: Content::Json(json), duplicates })
}

fn message(wanted: Wanted, raw: &[u8]) -> Result<Decoded, String> {
    let schema = &wanted.kind.schema;
    let value = protobuf::decode(schema, wanted.root, raw)?;
    decode::normalize(schema, wanted.root, value).map_err(|why| why.to_string())
}

/// An object that came out of a patch, decoded again. Answers it and what strict clients want to know.
pub fn patched(wanted: Wanted, value: Value) -> Result<(Value, Vec<String>), String> {
    let (mut object, strict) = patched_as_sent(wanted, value)?;
    if wanted.root == wanted.kind.root {
        wanted.kind.drop_empty(&mut object);
    }
    Ok((object, strict))
}

/// The same with the empty lists and maps that are in it.
pub fn patched_as_sent(wanted: Wanted, value: Value) -> Result<(Value, Vec<String>), String> {
    let resets = managed::asks_reset(&value);
    let decoded = wanted.kind.normalize_as_sent(wanted.root, value).map_err(|why| why.to_string())?;
    let mut object = with_type(wanted, decoded.object);
    if resets {
        managed::mark_reset(&mut object);
    }
    Ok((object, decoded.strict))
}

fn with_type(wanted: Wanted, mut object: Value) -> Value {
    if wanted.is_custom() {
        // What a custom object says it is, right or wrong, it keeps saying until it is validated.
        meta::metadata_mut(&mut object);
        return object;
    }
    // Most clients say what they send, and what was decoded says it first.
    let says = |at: usize, key: &str, value: &str| {
        object.as_object().and_then(|map| map.iter().nth(at)).is_some_and(|(k, v)| k == key && v == value)
    };
    let said = says(0, "kind", wanted.kind_name) && says(1, "apiVersion", &wanted.api_version());
    if said && meta::get(&object, "metadata").is_some() {
        return object;
    }
    let old = object.as_object_mut().map(std::mem::take).unwrap_or_default();
    let mut root = api::Object::new();
    root.insert("kind".into(), wanted.kind_name.into());
    root.insert("apiVersion".into(), wanted.api_version().into());
    if !old.contains_key("metadata") {
        root.insert("metadata".into(), Value::Object(api::Object::new()));
    }
    root.extend(old.into_iter().filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion")));
    Value::Object(root)
}

fn cannot_be(wanted: Wanted, why: String) -> Status {
    Status::bad_request(format!(
        "{} in version {} cannot be handled as a {}: {why}",
        wanted.kind_name,
        go::quote(wanted.version),
        wanted.kind_name
    ))
}

/// `kind` and `apiVersion` of a body may be left out; where given, they must be those of the path.
fn check_kind(wanted: Wanted, api_version: &str, kind: &str) -> Result<(), Refusal> {
    let (group, version) = match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [version] => ("", *version),
        [group, version] => (*group, *version),
        _ => return Err(Refusal::Unrecognized(format!("unexpected GroupVersion string: {api_version}"))),
    };
    let given_version = if version.is_empty() { wanted.version } else { version };
    let given_group = if api_version.is_empty() { wanted.group } else { group };
    let given_kind = if kind.is_empty() { wanted.kind_name } else { kind };
    if (given_group, given_version, given_kind) == (wanted.group, wanted.version, wanted.kind_name) {
        return Ok(());
    }
    let registered = wanted.registry.by_kind(given_group, given_version, given_kind).is_some()
        || is_common(wanted.registry, given_group, given_version, given_kind);
    let why = match registered {
        true => format!(
            "converting ({}.{given_kind}) to ({}.{}): unknown conversion",
            given_version,
            go_package(wanted.group),
            wanted.kind_name
        ),
        false => format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            go::quote(given_kind),
            go::quote(&meta::api_version(given_group, given_version))
        ),
    };
    Err(Refusal::Status(Box::new(Status::bad_request(format!(
        "{given_kind} in version {} cannot be handled as a {}: {why}",
        go::quote(given_version),
        wanted.kind_name
    )))))
}

/// A custom object says its kind, which is looked at with the rest of it, and the version of the path.
fn check_custom_kind(wanted: Wanted, api_version: &str, kind: &str, content: &Content) -> Result<(), Refusal> {
    if let (true, Content::Json(json)) = (kind.is_empty(), content) {
        return Err(Refusal::Unrecognized(kind_is_missing(&String::from_utf8_lossy(json))));
    }
    if api_version != wanted.api_version() {
        return Err(Refusal::Status(Box::new(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            wanted.api_version()
        )))));
    }
    Ok(())
}

pub fn kind_is_missing(body: &str) -> String {
    format!("Object 'Kind' is missing in '{body}'")
}

/// Why a body is not of the kind that was wanted.
enum Refusal {
    Status(Box<Status>),
    /// Not even its kind could be read.
    Unrecognized(String),
}

impl Refusal {
    fn unwrap_or_else(self, unrecognized: impl FnOnce(String) -> Status) -> Status {
        match self {
            Refusal::Status(status) => *status,
            Refusal::Unrecognized(why) => unrecognized(why),
        }
    }
}

/// Kinds that every group version has.
fn is_common(registry: &Registry, group: &str, version: &str, kind: &str) -> bool {
    let served = registry.group(group).is_some_and(|group| group.version(version).is_some());
    let list = kind.strip_suffix("List").is_some_and(|item| registry.by_kind(group, version, item).is_some());
    let everywhere = matches!(
        kind,
        "DeleteOptions"
            | "ListOptions"
            | "CreateOptions"
            | "GetOptions"
            | "UpdateOptions"
            | "PatchOptions"
            | "WatchEvent"
    );
    let core = group.is_empty()
        && version == "v1"
        && matches!(kind, "List" | "Status" | "APIVersions" | "APIGroup" | "APIResourceList");
    served && (list || everywhere || core)
}

/// The Go package of a group's internal types, as error texts name it.
fn go_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    }
}

/// A body of which not even the kind could be read, quoted as far as it is short.
fn unrecognized(wanted: Wanted, why: &str, body: &[u8]) -> Status {
    const SHOWN_BYTES: usize = 30;
    let looks_like_json = body.first() == Some(&b'{') || body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let cut = &body[..body.len().min(SHOWN_BYTES)];
    let dots = if body.len() > SHOWN_BYTES { " ..." } else { "" };
    let shown = match (body.is_empty(), looks_like_json) {
        (true, _) => "<empty>".to_string(),
        (_, true) => format!("{}{dots}", String::from_utf8_lossy(cut)),
        (_, false) => format!("{}{dots}", cut.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({shown})",
        wanted.kind_name
    ))
}
