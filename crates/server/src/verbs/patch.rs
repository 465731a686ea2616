//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply, each as a change of the present object.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::options::FieldValidation;
use api::{Reason, Status, WriteOptions, codec, go, meta, yaml};
use http::header;
use kinds::apply::{self, ApplyError};
use kinds::decode;
use kinds::managed::{self, Write};
use kinds::schema::{Schema, TypeId};
use kinds::strategic::{self, PatchError};
use serde_json::Value;

use super::At;
use super::body::{self, Wanted};
use super::json_patch::{COPIED_BYTES_MAX, Failure};
use super::write::{APPLIED, Part, Stored, change_object, create_object, place, timestamp, written};
use crate::respond::{self, Answer};
use crate::serve::{Cx, RequestBody};

/// The kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// Most operations of one JSON patch.
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// PATCH of an object.
pub async fn patch(cx: &Cx<'_>, at: &At<'_>, body: RequestBody, warnings: &mut Vec<String>) -> Result<Answer, Status> {
    patch_part(cx, at, Part::Object, body, warnings).await
}

/// PATCH of an object or of a part of it.
pub async fn patch_part(
    cx: &Cx<'_>,
    at: &At<'_>,
    part: Part<'_>,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    let registry = cx.state.registry.load();
    let subject = Subject { part, wanted: Wanted::object_of(&registry, at.kind), view: &Whole };
    let (code, stored) = patch_subject(cx, at, subject, body, warnings).await?;
    written(cx, at.kind, code, stored)
}

/// What is patched: an object of the kind, or a smaller one that stands for a part of it, as `Scale` does.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub part: Part<'a>,
    pub wanted: Wanted<'a>,
    pub view: &'a (dyn View + Sync),
}

/// How an object is seen by a patch of a part of it.
pub trait View {
    /// The subject in the object, `metadata.managedFields` as its own managers see it.
    fn of<'o>(&self, object: &'o Value) -> Result<Cow<'o, Value>, Status>;

    /// The object with the changed subject in it. The managers are right already where `applied`, else the view sees to
    /// them, or leaves it to `change_object` as [`View::owns`] says.
    fn put(&self, object: &Value, subject: Value, applied: bool) -> Result<Value, Status>;

    /// Whether the view keeps the managers of fields itself.
    fn owns(&self) -> bool;
}

/// The object as it is.
struct Whole;

impl View for Whole {
    fn of<'o>(&self, object: &'o Value) -> Result<Cow<'o, Value>, Status> {
        Ok(Cow::Borrowed(object))
    }

    fn put(&self, _: &Value, subject: Value, _: bool) -> Result<Value, Status> {
        Ok(subject)
    }

    fn owns(&self) -> bool {
        false
    }
}

/// PATCH of a subject. Answers the code and the object in which the subject is.
pub async fn patch_subject(
    cx: &Cx<'_>,
    at: &At<'_>,
    subject: Subject<'_>,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<(u16, Stored), Status> {
    let form = form(cx, at)?;
    at.check_name()?;
    let options = WriteOptions::patch(&cx.ask.query, form == Form::Apply)?;
    let bytes = body::read(body).await?;
    cx.audit.body(|| match form {
        Form::Apply => yaml::read(&bytes).ok().map(|read| read.value),
        _ => serde_json::from_slice(&bytes).ok(),
    });
    if form == Form::Apply {
        return apply(cx, at, subject, &bytes, options, warnings).await;
    }
    check_syntax(&bytes)?;
    let parsed = parse(form, &bytes);
    let of_patch = match options.field_validation {
        FieldValidation::Ignore => Vec::new(),
        _ => decode::duplicate_fields(&bytes),
    };
    let mut noticed = Vec::new();
    let Subject { part, wanted, view } = subject;
    let (schema, root) = (&*at.kind.schema, wanted.root);
    // The patch is read only once there is something to patch, so that a missing object is said first.
    let change = |old: &Value| {
        let patch = parsed.clone()?;
        let patched = patched(form, schema, root, &*view.of(old)?, &patch)?;
        // The text of an error shows a strategic patch as Go prints it, else the object that came of the patch.
        let shown = match form {
            Form::Strategic => strategic::go_print(&patch),
            _ => String::from_utf8_lossy(&codec::to_json(&patched)).into_owned(),
        };
        let converted = match form {
            Form::Strategic => strategic::conversion_error(schema, root, &patched),
            _ => other_kind(wanted, &patched),
        };
        if let Some(why) = converted {
            return Err(unusable(&shown, &why));
        }
        let (object, mut of_object) = body::patched_as_sent(wanted, patched).map_err(|why| unusable(&shown, &why))?;
        if form == Form::Strategic {
            // Decoded from a map, where the order of the fields is lost.
            of_object.sort();
        }
        let strict: Vec<String> =
            of_patch.iter().cloned().chain(unknown_in_operations(form, &patch)).chain(of_object).collect();
        match options.field_validation {
            FieldValidation::Strict if !strict.is_empty() => {
                let why = format!("strict decoding error: {}", strict.join(", "));
                return Err(unusable(&shown, &why));
            }
            FieldValidation::Warn => noticed = strict,
            _ => {}
        }
        view.put(old, place(at, object, Some(&at.target.name))?, false)
    };
    let done = if view.owns() { owned(&options) } else { options.clone() };
    let before = warnings.len();
    let stored = change_object(cx, at, part, &done, warnings, false, change).await;
    // What was noticed at decoding is told first, and also where the object was refused.
    warnings.splice(before..before, noticed);
    Ok((respond::OK, stored?))
}

/// The options of a write of which it is already settled who owns what: nothing that follows may count the fields again.
pub fn owned(options: &WriteOptions) -> WriteOptions {
    WriteOptions { field_manager: format!("{APPLIED}{}", options.field_manager), ..options.clone() }
}

fn check_syntax(bytes: &[u8]) -> Result<(), Status> {
    match bytes.iter().all(u8::is_ascii_whitespace) || decode::syntax_error(bytes).is_some() {
        true => Err(Status::bad_request("invalid JSON patch")),
        false => Ok(()),
    }
}

fn patched(form: Form, schema: &Schema, root: TypeId, old: &Value, patch: &Value) -> Result<Value, Status> {
    match form {
        Form::Json => json_patch(old, patch),
        Form::Merge => Ok(merge(old.clone(), patch.clone())),
        _ => strategic::merge(schema, root, old, patch).map_err(patch_error),
    }
}

/// A patch that makes an object of another kind.
fn other_kind(wanted: Wanted, patched: &Value) -> Option<String> {
    let text = |field: &str| patched.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if wanted.is_custom() {
        // What kind it is is looked at with the rest of it.
        return kind.is_empty().then(|| body::kind_is_missing(&patched.to_string()));
    }
    let same = (api_version.is_empty() || api_version == wanted.api_version())
        && (kind.is_empty() || kind == wanted.kind_name);
    (!same).then(|| {
        format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            go::quote(kind),
            go::quote(api_version)
        )
    })
}

fn form(cx: &Cx<'_>, at: &At<'_>) -> Result<Form, Status> {
    let text = cx.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form_of = |media: &str| match media.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Some(Form::Json),
        "application/merge-patch+json" => Some(Form::Merge),
        "application/strategic-merge-patch+json" if !at.kind.is_custom() => Some(Form::Strategic),
        "application/apply-patch+yaml" => Some(Form::Apply),
        _ => None,
    };
    if let Some(form) = form_of(text) {
        return Ok(form);
    }
    // The router takes a list of types, the handler behind it does not; before custom resources there is no router.
    if at.kind.is_custom() || text.split(',').any(|media| form_of(media).is_some()) {
        let known = match at.kind.is_custom() {
            true => "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            false => {
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
            }
        };
        return Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {known}"
        )));
    }
    Err(Status {
        details: Some(api::Details::default()),
        ..Status::failure(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type")
    })
}

fn parse(form: Form, bytes: &[u8]) -> Result<Value, Status> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| Status::bad_request("invalid JSON patch"))?;
    let json_type = json_type(&value);
    match (form, &value) {
        (Form::Json, Value::Array(operations)) if operations.len() > JSON_PATCH_OPERATIONS_MAX => {
            Err(Status::too_large(format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
                operations.len()
            )))
        }
        (Form::Json, Value::Array(_)) | (Form::Json | Form::Strategic, Value::Null) => Ok(value),
        (Form::Json, _) => Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {json_type} into Go value of type []handlers.jsonPatchOp"
        ))),
        (_, Value::Object(_)) => Ok(value),
        (Form::Merge, Value::Null) => Err(Status::bad_request("Invalid JSON Patch")),
        (Form::Merge, _) => Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {json_type} into Go value of type map[string]interface {{}}"
        ))),
        (_, _) => Err(Status::bad_request(format!(
            "json: cannot unmarshal {json_type} into Go value of type map[string]interface {{}}"
        ))),
    }
}

/// RFC 7386. Go takes the maps that it changes apart and writes them with their keys sorted, which shows in the order of
/// warnings; and a null means nothing to it in a list's objects either.
fn merge(old: Value, patch: Value) -> Value {
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Array(items) => {
            let without = |item: Value| if item.is_null() { item } else { merge(Value::Null, item) };
            return Value::Array(items.into_iter().map(without).collect());
        }
        other => return other,
    };
    let mut sorted: BTreeMap<String, Value> = match old {
        Value::Object(old) => old.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    for (key, value) in patch {
        if value.is_null() {
            sorted.remove(&key);
        } else {
            let old = sorted.remove(&key).unwrap_or_default();
            sorted.insert(key, merge(old, value));
        }
    }
    Value::Object(sorted.into_iter().collect())
}

/// `unknown field "[0].bogus"` of a JSON patch.
fn unknown_in_operations(form: Form, patch: &Value) -> Vec<String> {
    let operations = patch.as_array().filter(|_| form == Form::Json).into_iter().flatten().enumerate();
    let unknown = |(at, operation): (usize, &Value)| -> Vec<String> {
        let known = |key: &&String| matches!(key.as_str(), "op" | "path" | "from" | "value");
        let keys = operation.as_object().into_iter().flat_map(|fields| fields.keys());
        keys.filter(|key| !known(key))
            .map(|key| format!("json patch unknown field {}", go::quote(&format!("[{at}].{key}"))))
            .collect()
    };
    operations.flat_map(unknown).collect()
}

fn json_patch(old: &Value, patch: &Value) -> Result<Value, Status> {
    let wrong = patch.as_array().into_iter().flatten().find(|operation| !operation.is_object() && !operation.is_null());
    if let Some(wrong) = wrong {
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
            json_type(wrong)
        )));
    }
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    // Go takes the object apart to patch it, and writes it with its keys sorted.
    super::json_patch::apply(old, operations).map(sorted).map_err(|failure| match failure {
        Failure::Rejected => {
            let text = "the server rejected our request due to an error in our request";
            Status { details: Some(api::Details::default()), ..Status::failure(422, Reason::Invalid, text) }
        }
        Failure::TooLarge(bytes) => Status::too_large(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {bytes}, exceeding the limit {COPIED_BYTES_MAX}"
        )),
    })
}

/// The value with the keys of its root sorted.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().collect();
            Value::Object(sorted.into_iter().collect())
        }
        other => other,
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    }
}

fn patch_error(error: PatchError) -> Status {
    match error {
        PatchError::BadRequest(text) => Status::bad_request(text),
        PatchError::Unprocessable(text) => Status { details: None, ..Status::failure(422, Reason::Invalid, text) },
        PatchError::Internal(text) => Status::unexplained(text),
    }
}

/// The 422 of a patch that leads to no object of the kind.
fn unusable(shown: &str, why: &str) -> Status {
    let cause = api::Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {}: {why}", api::go::quote(shown)),
        field: "patch".into(),
    };
    let text = format!(" \"\" is invalid: patch: {}", cause.message);
    let details = api::Details { causes: vec![cause], ..api::Details::default() };
    Status { details: Some(details), ..Status::failure(422, Reason::Invalid, text) }
}

/// Server-side apply.
async fn apply(
    cx: &Cx<'_>,
    at: &At<'_>,
    subject: Subject<'_>,
    bytes: &[u8],
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<(u16, Stored), Status> {
    let read = yaml::read(bytes).map_err(|why| Status::bad_request(format!("error encoding patch: {why}")))?;
    let config = read.value;
    if !config.is_object() && !config.is_null() {
        return Err(Status::bad_request(format!(
            "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            json_type(&config)
        )));
    }
    match options.field_validation {
        _ if read.duplicates.is_empty() => {}
        FieldValidation::Ignore => {}
        // Of what is of another kind nothing is told but that.
        FieldValidation::Warn
            if apply::is_of_kind(&config, &subject.wanted.api_version(), subject.wanted.kind_name) =>
        {
            warnings.extend(read.duplicates);
        }
        FieldValidation::Warn => {}
        FieldValidation::Strict => {
            let why = body::yaml_errors(&read.duplicates);
            let text = format!("error strict decoding patch: error converting YAML to JSON: {why}");
            return Err(Status::bad_request(text));
        }
    }
    let Subject { part, wanted, view } = subject;
    let (schema, root) = (&*at.kind.schema, wanted.root);
    let api_version = wanted.api_version();
    // What a part that is of another kind lets own is not the business of the object's own rules.
    let has_status = at.kind.has_status() && root == at.kind.root;
    let owned_fields =
        managed::resets(&api_version, wanted.kind_name, part.subresource(), has_status, wanted.is_custom());
    let now = timestamp(cx.now);
    let write = Write {
        manager: &options.field_manager,
        api_version: &api_version,
        kind: wanted.kind_name,
        subresource: part.subresource(),
        now: &now,
        owned: &owned_fields,
        convert: &|object, version| at.kind.in_version(wanted.registry, object, version),
    };
    let merged = |live: Option<&Value>| -> Result<Option<Value>, Status> {
        let merged = apply::apply(schema, root, live, &config, options.force, &write);
        let Some(merged) = merged.map_err(apply_error)? else { return Ok(None) };
        if at.kind.is_custom() && root != at.kind.root && live.is_none_or(|live| !same_content(live, &merged)) {
            // Upstream converts it as if it were the custom resource itself.
            let group = format!("request to convert CR to an invalid group/version: {api_version}");
            return Err(not_convertible(at, wanted, &config, &group));
        }
        let unable = |why: &str| {
            let kind = kind_text(wanted);
            not_convertible(at, wanted, &config, &format!("unable to convert unstructured object to {kind}: {why}"))
        };
        let converted = match wanted.is_custom() {
            true => None,
            false => strategic::conversion_error(schema, root, &merged),
        };
        let (object, strict) = match converted {
            Some(why) => Err(unable(&why)),
            None => body::patched(wanted, merged).map_err(|why| match wanted.is_custom() {
                true => unable(&format!("error decoding from json: {why}")),
                false => unable(&why),
            }),
        }?;
        if options.field_validation == FieldValidation::Strict && !strict.is_empty() {
            return Err(Status::bad_request(format!("strict decoding error: {}", strict.join(", "))));
        }
        place(at, object, Some(&at.target.name)).map(Some)
    };
    let done = owned(&options);
    let exists = cx.state.collection(at.kind)?.get(&at.key()).is_some();
    if !exists {
        if part != Part::Object {
            return Err(at.not_found());
        }
        let uid = config["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(at.group_resource(), &at.target.name, why));
        }
        // Creating by apply is a right of its own.
        let create = crate::authz::Attributes {
            version: &at.target.version,
            namespace: &at.target.namespace,
            name: &at.target.name,
            ..crate::authz::Attributes::resource(cx.user, "create", &at.target.group, &at.target.resource)
        };
        let decision = cx.hearing.settle(|| cx.state.authorizer.authorize(&create, cx.hearing)).await;
        cx.state.usage.note(&create, decision.is_allowed());
        match decision.refusal() {
            _ if decision.is_allowed() => {}
            (reason, "") => return Err(create.forbidden(reason)),
            (_, error) => return Err(Status::internal(error)),
        }
        let Some(object) = merged(None)? else { return Err(at.not_found()) };
        let created = create_object(cx, at, object, &done, warnings).await?;
        return Ok((respond::CREATED, created));
    }
    let change = |old: &Value| match merged(Some(&*view.of(old)?))? {
        Some(new) => view.put(old, new, true),
        None => Ok(old.clone()),
    };
    let stored = change_object(cx, at, part, &done, warnings, false, change).await?;
    Ok((respond::OK, stored))
}

/// Are two objects the same but for who owns what?
fn same_content(a: &Value, b: &Value) -> bool {
    let content = |object: &Value| {
        let mut object = object.clone();
        meta::metadata_mut(&mut object).shift_remove("managedFields");
        object
    };
    content(a) == content(b)
}

/// `apps/v1, Kind=Deployment`.
fn kind_text(wanted: Wanted) -> String {
    format!("{}/{}, Kind={}", wanted.group, wanted.version, wanted.kind_name)
}

/// What was applied is no object of the kind, though every field is one of its own.
fn not_convertible(at: &At<'_>, wanted: Wanted, config: &Value, why: &str) -> Status {
    let place = format!("{}/{}", meta::namespace(config), at.target.name);
    let text = format!("failed to convert new object ({place}; {}) to proper version: {why}", kind_text(wanted));
    Status { details: None, ..Status::failure(500, Reason::Unknown, text) }
}

fn apply_error(error: ApplyError) -> Status {
    match error {
        ApplyError::BadRequest(text) => Status::bad_request(text),
        ApplyError::Internal(text) => Status::unexplained(text),
        ApplyError::Conflict(conflicts) => {
            let causes = conflicts.causes.into_iter().map(|cause| api::Cause {
                reason: "FieldManagerConflict".into(),
                message: cause.message,
                field: cause.field,
            });
            let details = api::Details { causes: causes.collect(), ..api::Details::default() };
            Status { details: Some(details), ..Status::failure(409, Reason::Conflict, conflicts.message) }
        }
    }
}
