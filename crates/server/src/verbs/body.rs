//! From a request's body to an object of its kind: size, encoding, kind, fields. Checks nothing that needs the cluster.

use api::options::FieldValidation;
use api::{Status, codec, go, meta};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use kinds::decode::{self, Decoded};
use kinds::managed;
use kinds::{Kind, Registry};
use serde_json::Value;

use crate::serve::RequestBody;

/// Most bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// Reads a body to its end, or refuses it when it is too large.
pub async fn read(body: RequestBody) -> Result<Bytes, Status> {
    let mut body = body;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| Status::bad_request(format!("the body could not be read: {why}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > BODY_BYTES_MAX {
            let text = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
            return Err(Status::too_large(text));
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
        "application/vnd.kubernetes.protobuf" => Err(Status::not_implemented("reading protobuf")),
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
}

/// The object that a body holds, its `kind` and `apiVersion` filled in, and what strict clients want to know.
pub fn object(
    wanted: Wanted,
    bytes: &[u8],
    encoding: Encoding,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let json = match encoding {
        Encoding::Json => bytes.into(),
        Encoding::Yaml => yaml_to_json(wanted, bytes)?,
    };
    check_kind(wanted, &json, bytes, encoding)?;
    let decoded = decode::decode(&wanted.kind.schema, wanted.root, &json);
    let Decoded { object, strict } = decoded.map_err(|why| cannot_be(wanted, why.to_string()))?;
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(strict),
        FieldValidation::Strict if strict.is_empty() => {}
        FieldValidation::Strict => {
            return Err(cannot_be(wanted, format!("strict decoding error: {}", strict.join(", "))));
        }
    }
    let mut object = with_type(wanted, object);
    if managed::body_asks_reset(&json) {
        managed::mark_reset(&mut object);
    }
    Ok(object)
}

/// The options that the body of a deletion holds. Any group may claim them, and unknown fields mean nothing.
pub fn options(wanted: Wanted, bytes: &[u8], encoding: Encoding) -> Result<Value, Status> {
    let json = match encoding {
        Encoding::Json => bytes.into(),
        Encoding::Yaml => yaml_to_json(wanted, bytes)?,
    };
    let (api_version, kind) = decode::type_meta(&json)
        .map_err(|why| Status::bad_request(format!("couldn't get version/kind; json parse error: {why}")))?;
    if !kind.is_empty() && kind != wanted.kind_name {
        let version = if api_version.is_empty() { wanted.version } else { &api_version };
        return Err(Status::bad_request(format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            go::quote(&kind),
            go::quote(version)
        )));
    }
    let decoded = decode::decode(&wanted.kind.schema, wanted.root, &json);
    decoded.map(|decoded| decoded.object).map_err(|why| Status::bad_request(why.to_string()))
}

/// An object that came out of a patch, decoded again. Answers it and what strict clients want to know.
pub fn patched(wanted: Wanted, value: Value) -> Result<(Value, Vec<String>), String> {
    let resets = managed::asks_reset(&value);
    let decoded = decode::normalize(&wanted.kind.schema, wanted.root, value).map_err(|why| why.to_string())?;
    let mut object = with_type(wanted, decoded.object);
    if resets {
        managed::mark_reset(&mut object);
    }
    Ok((object, decoded.strict))
}

fn with_type(wanted: Wanted, mut object: Value) -> Value {
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

fn yaml_to_json(wanted: Wanted, bytes: &[u8]) -> Result<std::borrow::Cow<'static, [u8]>, Status> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    // Kubernetes reads the first document and ignores the others.
    let value = match codec::from_yaml_stream(text) {
        Ok(documents) => documents.into_iter().next().unwrap_or_default(),
        Err(why) => return Err(unrecognized(wanted, &format!("yaml: {why}"), bytes)),
    };
    Ok(codec::to_json(&value).into())
}

/// `kind` and `apiVersion` of a body may be left out; where given, they must be those of the path.
fn check_kind(wanted: Wanted, json: &[u8], raw: &[u8], encoding: Encoding) -> Result<(), Status> {
    let shown = if encoding == Encoding::Yaml { raw } else { json };
    let (api_version, kind) = decode::type_meta(json)
        .map_err(|why| unrecognized(wanted, &format!("couldn't get version/kind; json parse error: {why}"), shown))?;
    let (group, version) = match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [version] => ("", *version),
        [group, version] => (*group, *version),
        _ => return Err(unrecognized(wanted, &format!("unexpected GroupVersion string: {api_version}"), shown)),
    };
    let given_version = if version.is_empty() { wanted.version } else { version };
    let given_group = if api_version.is_empty() { wanted.group } else { group };
    let given_kind = if kind.is_empty() { wanted.kind_name } else { &kind };
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
    Err(Status::bad_request(format!(
        "{given_kind} in version {} cannot be handled as a {}: {why}",
        go::quote(given_version),
        wanted.kind_name
    )))
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
