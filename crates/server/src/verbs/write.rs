//! Create and update: the way of an object from a body into the store. Patches end here too.

use std::sync::Mutex;

use api::options::Preconditions;
use api::{Reason, Status, WriteOptions, meta};
use http::header;
use kinds::managed::{self, Write};
use kinds::schema::{Schema, TypeId};
use kinds::{Cause, CauseReason, Kind};
use serde_json::{Value, json};
use store::Revision;

use super::body::{self, Wanted};
use super::{At, admin_access};
use crate::accept::Accept;
use crate::admission::{self, Operation};
use crate::allocate::Held;
use crate::authz::{rbac, rules};
use crate::objects::{self, WriteError, Written};
use crate::respond::{self, Answer};
use crate::serve::{Cx, RequestBody};
use crate::{quota, reviews, transform};

/// Tries of a write that nobody fixed to a revision, when others write the same object. Of many who write at once one
/// succeeds in each round, so that this is also how many may.
pub const TRIES_MAX: usize = 1000;
/// Characters behind a `generateName`, and the longest stem.
const GENERATED_CHARACTERS: usize = 5;
/// Names that are tried where others have them already: upstream's own limit.
const GENERATE_TRIES_MAX: usize = 8;
const NOT_UNIQUE: &str = "the server was not able to generate a unique name for the object";
const GENERATED_STEM_BYTES_MAX: usize = 63 - GENERATED_CHARACTERS;

/// POST of an object.
pub async fn create(cx: &Cx<'_>, at: &At<'_>, body: RequestBody, warnings: &mut Vec<String>) -> Result<Answer, Status> {
    let options = WriteOptions::create(&cx.ask.query)?;
    // What is in no form that is known is not read.
    let encoding = body::encoding(cx.headers)?;
    let bytes = body::read(body).await?;
    let registry = cx.state.registry.load();
    let wanted = Wanted::object_of(&registry, at.kind);
    let warned = warnings.len();
    let object = body::object_as_sent(wanted, &bytes, encoding, options.field_validation, warnings)?;
    at.note(cx, &object);
    // Kinds that are only ever created are questions, not objects: they are answered and not kept.
    if !at.kind.has_verb("get") {
        return match &*at.kind.plural {
            "bindings" => super::subresource::bind_by_name(cx, at, &object, &options).await,
            _ => review(cx, at, object, &options).await,
        };
    }
    let is_named = !meta::name(&object).is_empty();
    let mut created = create_object(cx, at, place(at, object, None)?, &options, warnings).await;
    for _ in 1..GENERATE_TRIES_MAX {
        // Another write took the name that was generated. What follows from a name is many things: all is made anew.
        if is_named || !created.as_ref().is_err_and(is_not_unique) {
            break;
        }
        warnings.truncate(warned);
        let object = body::object_as_sent(wanted, &bytes, encoding, options.field_validation, warnings)?;
        created = create_object(cx, at, place(at, object, None)?, &options, warnings).await;
    }
    written(cx, at.kind, respond::CREATED, created?)
}

/// Whether a create failed for nothing but the name that was generated for it.
fn is_not_unique(status: &Status) -> bool {
    status.reason == Reason::AlreadyExists && status.message.ends_with(NOT_UNIQUE)
}

/// Answers a question about identities or rights.
async fn review(cx: &Cx<'_>, at: &At<'_>, mut object: Value, options: &WriteOptions) -> Result<Answer, Status> {
    at.kind.drop_empty(&mut object);
    own_fields(cx, Typed::of(at.kind), "", None, &mut object, options);
    let answered = reviews::answer(cx, at.kind, object).await?;
    Ok(Answer::created(transform::object(cx, at.kind, answered, cx.accept)?))
}

/// An object on its way out: as bytes where it is shown as it was stored, or as a value, or both.
pub enum Stored {
    Json(bytes::Bytes),
    Object(Value),
    Both(Value, bytes::Bytes),
}

impl Stored {
    /// What was stored, as the kind has it.
    pub fn of(kind: &Kind, kept: Value, written: Written) -> Stored {
        match kind.shows_stored(written.revision) {
            true => Stored::Both(kept, written.json),
            false => Stored::Object(kind.from_kept(kept)),
        }
    }

    pub fn into_object(self) -> Value {
        match self {
            Stored::Object(object) | Stored::Both(object, _) => object,
            // It was encoded here, so it always decodes.
            Stored::Json(json) => serde_json::from_slice(&json).unwrap_or_default(),
        }
    }
}

/// Makes a new object that was decoded and placed.
pub async fn create_object(
    cx: &Cx<'_>,
    at: &At<'_>,
    object: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Stored, Status> {
    // What a webhook must be asked about makes all that came before void.
    let again = cx.state.authorizer.asks_webhooks().then(|| object.clone());
    let warned = warnings.len();
    let mut made = make(cx, at, object, options, warnings);
    while let (true, Some(object)) = (cx.hearing.is_open(), &again) {
        drop(made);
        Box::pin(cx.hearing.ask()).await;
        warnings.truncate(warned);
        made = make(cx, at, object.clone(), options, warnings);
    }
    cx.hearing.check_closed()?;
    let Made { mut object, owners, generated, held: _held } = made?;
    let collection = cx.state.collection(at.kind)?;
    let name = meta::name(&object).to_string();
    let _charged = quota::charge(cx, at, &object, None, options.dry_run).await?;
    let key = objects::key(at.namespace(), &name);
    let exists = || {
        let of = at.group_resource();
        match generated {
            false if collection.get(&key).is_some_and(|there| meta::is_deleting(&there.value())) => {
                let plain = Status::already_exists(of, &name);
                Status { message: format!("object is being deleted: {}", plain.message), ..plain }
            }
            false => Status::already_exists(of, &name),
            true => {
                let plain = Status::already_exists(of, &name);
                let text = format!("{}, {NOT_UNIQUE}", plain.message);
                let details = api::Details { retry_after_seconds: 1, ..plain.details.clone().unwrap_or_default() };
                Status { message: text, details: Some(details), ..plain }
            }
        }
    };
    if options.dry_run {
        if collection.get(&key).is_some() {
            return Err(exists());
        }
        tidy(at.kind, &mut object)?;
        strip_version(&mut object);
        owners.put_into(&mut object);
        return Ok(Stored::Object(object));
    }
    let shape = collection.shape();
    let at_once = match &owners {
        Owners::Aside(owners) if at.kind.kept().is_none() => at.kind.new_to_json(&object, owners),
        _ => None,
    };
    let created = match at_once {
        Some(json) => {
            drop(object);
            let created = cx.state.objects.create_json(shape, &key, json).await;
            created.map(|written| Stored::Json(written.json))
        }
        None => {
            tidy(at.kind, &mut object)?;
            owners.put_into(&mut object);
            let mut kept = at.kind.to_kept(object);
            let created = cx.state.objects.create(shape, &key, &mut kept).await;
            created.map(|written| Stored::of(at.kind, kept, written))
        }
    };
    match created {
        Ok(created) => Ok(created),
        Err(WriteError::Exists) => Err(exists()),
        Err(other) => Err(store_failure(other)),
    }
}

/// A new object before it is counted and stored.
struct Made {
    object: Value,
    owners: Owners,
    /// Its name is the server's.
    generated: bool,
    held: Held,
}

/// Who owns which fields of a new object.
enum Owners {
    /// The object says so.
    Said,
    /// Its managed fields as JSON, which nothing on the way to the store looks at.
    Aside(String),
}

impl Owners {
    fn put_into(&self, object: &mut Value) {
        if let Owners::Aside(json) = self {
            managed::put_into(object, json);
        }
    }
}

/// Defaults, owners of fields, admission, what the kind keeps, validation.
fn make(
    cx: &Cx<'_>,
    at: &At<'_>,
    mut object: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Made, Status> {
    if !meta::resource_version(&object).is_empty() && at.target.name.is_empty() {
        return Err(Status::unexplained("resourceVersion should not be set on objects to be created"));
    }
    drop_owners_said_twice(&mut object, true, warnings);
    let sent = at.kind.drop_empty(&mut object);
    at.kind.default(&mut object);
    at.kind.stamp(&mut object, &timestamp(cx.now));
    clear_metadata(&mut object);
    let owners = own_new_fields(cx, Typed::of(at.kind), &mut object, options);
    fill_metadata(cx, &mut object);
    let name = meta::name(&object).to_string();
    let told = Mutex::default();
    let request = admission::Request { name: &name, ..admission::Request::new(cx, at, Operation::Create, &told) };
    admission::mutate(&request, &mut object)?;
    let generated = generate_name(&mut object);
    if at.kind.behaviour.named_by_chance && meta::name(&object).is_empty() {
        meta::metadata_mut(&mut object).insert("name".into(), json!(new_uid()));
    }
    at.kind.prepare_create(&mut object);
    let held = cx.state.allocator.fill(at.kind, &mut object, None)?;
    let mut causes = as_sent(at.kind, Part::Object, sent, None, kinds::validate::create(at.kind, &object));
    causes.splice(0..0, admin_access::refused(cx.state, at, Part::Object, &object, None));
    refuse(at.kind, &object, meta::name(&object), causes)?;
    warnings.extend((at.kind.behaviour.warnings)(&object, None));
    let name = meta::name(&object).to_string();
    let request = admission::Request { name: &name, ..request };
    escalation(&request, &object)?;
    admission::validate(&request, Some(&object))?;
    warnings.append(&mut told.into_inner().unwrap_or_default());
    Ok(Made { object, owners, generated, held })
}

/// PUT of an object.
pub async fn update(cx: &Cx<'_>, at: &At<'_>, body: RequestBody, warnings: &mut Vec<String>) -> Result<Answer, Status> {
    at.check_name()?;
    let options = WriteOptions::update(&cx.ask.query)?;
    let bytes = body::read(body).await?;
    let registry = cx.state.registry.load();
    let wanted = Wanted::object_of(&registry, at.kind);
    let object = body::object_as_sent(wanted, &bytes, body::encoding(cx.headers)?, options.field_validation, warnings)?;
    at.note(cx, &object);
    let object = place(at, object, Some(&at.target.name))?;
    let exists = cx.state.collection(at.kind)?.get(&at.key()).is_some();
    if !exists && at.kind.behaviour.create_on_update {
        check_uid(at, meta::uid(&object), "")?;
        let object = created_by_put(object);
        let created = create_object(cx, at, object, &options, warnings).await?;
        return written(cx, at.kind, respond::CREATED, created);
    }
    let change = |_: &Value| Ok(object.clone());
    let stored = change_object(cx, at, Part::Object, &options, warnings, true, change).await?;
    written(cx, at.kind, respond::OK, stored)
}

/// An owner that is said twice, word for word, is one owner. `whole`: the client sent the whole object.
fn drop_owners_said_twice(object: &mut Value, whole: bool, warnings: &mut Vec<String>) {
    let Some(owners) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) else { return };
    let mut twice: Vec<String> = Vec::new();
    let mut once: Vec<Value> = Vec::with_capacity(owners.len());
    for owner in owners.drain(..) {
        match once.contains(&owner) {
            true => twice.push(meta::text_at(&owner, &["uid"]).to_string()),
            false => once.push(owner),
        }
    }
    *owners = once;
    if !twice.is_empty() {
        let when = if whole { "" } else { " after mutating admission happens" };
        warnings.push(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and \
             may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

/// A PUT that creates knows nothing of an earlier object.
fn created_by_put(mut object: Value) -> Value {
    let metadata = meta::metadata_mut(&mut object);
    metadata.shift_remove("resourceVersion");
    object
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Object,
    Status,
    /// A subresource that writes what its own code says.
    Other(&'a str),
}

impl Part<'_> {
    pub fn subresource(&self) -> &str {
        match self {
            Part::Object => "",
            Part::Status => "status",
            Part::Other(name) => name,
        }
    }
}

/// Reads, changes, checks and stores an object, again where somebody else was faster and the client fixed no revision.
/// `whole`: the change is the client's whole object (PUT), which must name a revision where the kind demands it.
pub async fn change_object(
    cx: &Cx<'_>,
    at: &At<'_>,
    part: Part<'_>,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
    whole: bool,
    mut change: impl FnMut(&Value) -> Result<Value, Status>,
) -> Result<Stored, Status> {
    let collection = cx.state.collection(at.kind)?;
    let key = at.key();
    let warned = warnings.len();
    for _ in 0..TRIES_MAX {
        let entry = collection.get(&key).ok_or_else(|| at.not_found())?;
        let old = at.value(&entry);
        warnings.truncate(warned);
        let mut new = change(&old)?;
        drop_owners_said_twice(&mut new, whole, warnings);
        let fixed = check_versions(at, &new, &old, entry.revision, whole, part)?;
        let prepared = prepare(cx, at, part, options, &mut new, &old, warnings);
        if cx.hearing.is_open() {
            drop(prepared);
            Box::pin(cx.hearing.ask()).await;
            continue;
        }
        let _held = prepared?;
        tidy(at.kind, &mut new)?;
        managed::keep_times_of_no_op(&old, &mut new);
        if new == old {
            return Ok(match at.kind.shows_stored(entry.revision) {
                true => Stored::Both(old, entry.json.bytes()),
                false => Stored::Object(old),
            });
        }
        let _charged = match part {
            Part::Object | Part::Other("resize") => quota::charge(cx, at, &new, Some(&old), options.dry_run).await?,
            _ => None,
        };
        if options.dry_run {
            return Ok(Stored::Object(new));
        }
        // The last finalizer of an object on its way out is gone: so is the object.
        if meta::is_deleting(&new) && may_go(at.kind, &new) {
            match cx.state.objects.delete(collection.shape(), &key, entry.revision).await {
                Ok(_) => return Ok(Stored::Object(new)),
                Err(WriteError::Store(why)) => return Err(store_failure(WriteError::Store(why))),
                Err(_) => continue,
            }
        }
        let mut kept = at.kind.to_kept(new);
        match cx.state.objects.update(collection.shape(), &key, entry.revision, &mut kept).await {
            Ok(written) => return Ok(Stored::of(at.kind, kept, written)),
            Err(WriteError::Store(why)) => return Err(store_failure(WriteError::Store(why))),
            Err(_) if fixed => return Err(modified(at)),
            Err(_) => {}
        }
    }
    Err(modified(at))
}

/// No finalizers, no grace period that still runs.
fn may_go(kind: &Kind, object: &Value) -> bool {
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    meta::finalizers(object).next().is_none() && grace == 0 && !(kind.behaviour.holds_back)(object)
}

/// Defaults, owners of fields, admission, what the kind keeps, validation.
fn prepare(
    cx: &Cx<'_>,
    at: &At<'_>,
    part: Part<'_>,
    options: &WriteOptions,
    new: &mut Value,
    old: &Value,
    warnings: &mut Vec<String>,
) -> Result<Option<Held>, Status> {
    let sent = at.kind.drop_empty(new);
    at.kind.default(new);
    at.kind.stamp(new, &timestamp(cx.now));
    keep_metadata(new, old);
    // What a client asked for is its own, even where the kind does not give it.
    if !matches!(part, Part::Other("binding" | "eviction")) {
        own_fields(cx, Typed::of(at.kind), part.subresource(), Some(old), new, options);
    }
    let with_old_status = at.kind.has_status() && part == Part::Object;
    if with_old_status {
        // A client's status is never its own, whatever it sends along.
        at.kind.prepare_update(new, old);
    }
    if part == Part::Status {
        at.kind.prepare_status(new, old);
    }
    if let Part::Other(name) = part {
        (at.kind.behaviour.prepare_part)(name, new, old);
        if name == "scale" {
            // What a scale changes is counted as any other change.
            at.kind.prepare_update(new, old);
        }
    }
    let told = Mutex::default();
    let request = admission::Request {
        subresource: part.subresource(),
        old: Some(old),
        ..admission::Request::new(cx, at, Operation::Update, &told)
    };
    admission::mutate(&request, new)?;
    let mut held = None;
    let causes = match part {
        Part::Status => kinds::validate::status(at.kind, new, old),
        Part::Object => {
            if !with_old_status {
                at.kind.prepare_update(new, old);
                if sent.is_some() && at.kind.behaviour.counts_empty {
                    at.kind.count_change(new, old);
                }
            }
            at.kind.stamp(new, &timestamp(cx.now));
            held = Some(cx.state.allocator.fill(at.kind, new, Some(old))?);
            kinds::validate::update(at.kind, new, old)
        }
        Part::Other(name) => kinds::validate::part(at.kind, name, new, old),
    };
    let mut causes = as_sent(at.kind, part, sent, Some(old), causes);
    causes.splice(0..0, admin_access::refused(cx.state, at, part, new, Some(old)));
    refuse(at.kind, new, &at.target.name, causes)?;
    if part == Part::Object {
        warnings.extend((at.kind.behaviour.warnings)(new, Some(old)));
    }
    escalation(&request, new)?;
    admission::validate(&request, Some(new))?;
    warnings.append(&mut told.into_inner().unwrap_or_default());
    Ok(held)
}

/// What is wrong with an object, with the empty lists and maps that the client sent in the texts: `Invalid value: {}`, where
/// what is stored would say `null`. `causes` is what is wrong without them, and stays where the two do not tell of the same.
fn as_sent(kind: &Kind, part: Part<'_>, sent: Option<Value>, old: Option<&Value>, causes: Vec<Cause>) -> Vec<Cause> {
    let Some(mut sent) = sent.filter(|_| !causes.is_empty()) else { return causes };
    kind.default(&mut sent);
    if let Some(old) = old {
        keep_metadata(&mut sent, old);
    }
    let told = match (part, old) {
        (Part::Object, None) => {
            kind.prepare_create(&mut sent);
            kinds::validate::create(kind, &sent)
        }
        (Part::Object, Some(old)) => {
            kind.prepare_update(&mut sent, old);
            kinds::validate::update(kind, &sent, old)
        }
        (Part::Status, Some(old)) => {
            kind.prepare_status(&mut sent, old);
            kinds::validate::status(kind, &sent, old)
        }
        _ => return causes,
    };
    let places = |causes: &[Cause]| causes.iter().map(|cause| (cause.reason, cause.field.clone())).collect::<Vec<_>>();
    if places(&told) == places(&causes) { told } else { causes }
}

/// An update that says of which object it is, is of no other. `present`: the uid of what is there, if anything is.
fn check_uid(at: &At<'_>, uid: &str, present: &str) -> Result<(), Status> {
    if uid.is_empty() || uid == present {
        return Ok(());
    }
    Err(invalid_stored(at, &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {present}")))
}

/// The conflict of a write that what is stored does not allow.
pub fn invalid_stored(at: &At<'_>, why: &str) -> Status {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: {why}",
        registry_place(at.kind),
        at.key(),
    );
    Status::conflict(at.group_resource(), &at.target.name, why)
}

/// Whether the client fixed the revision it changes; a conflict where that revision is not the present one.
fn check_versions(
    at: &At<'_>,
    new: &Value,
    old: &Value,
    revision: Revision,
    whole: bool,
    part: Part<'_>,
) -> Result<bool, Status> {
    if whole {
        check_uid(at, meta::uid(new), meta::uid(old))?;
    }
    match meta::resource_version(new) {
        "" | "0" => {
            let must = matches!(part, Part::Object | Part::Status);
            let said = whole || meta::resource_version(old) != meta::resource_version(new);
            if said && must && !at.kind.behaviour.unconditional_update {
                let cause = Cause {
                    reason: CauseReason::Invalid,
                    field: "metadata.resourceVersion".into(),
                    message: "Invalid value: 0: must be specified for an update".into(),
                };
                let status = invalid(&at.kind.group, &at.kind.plural, &at.target.name, vec![cause]);
                return Err(status);
            }
            Ok(false)
        }
        given => match api::go::parse_u64(given) {
            Err(why) => Err(Status::unexplained(why)),
            // What a patch makes carries the revision it was made of, and is made anew of the next.
            Ok(given) if given == revision => Ok(whole),
            Ok(_) => Err(modified(at)),
        },
    }
}

/// Where the API server keeps a kind in etcd, as its error texts tell.
fn registry_place(kind: &Kind) -> String {
    /// Kinds whose place has another name than their plural.
    const OTHERS: [(&str, &str, &str); 5] = [
        ("", "endpoints", "services/endpoints"),
        ("", "nodes", "minions"),
        ("", "replicationcontrollers", "controllers"),
        ("", "services", "services/specs"),
        ("networking.k8s.io", "ingresses", "ingress"),
    ];
    let (group, plural) = (&*kind.group, &*kind.plural);
    let with_group = kind.is_custom() || matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io");
    match OTHERS.iter().find(|(g, p, _)| (*g, *p) == (group, plural)) {
        Some((.., place)) => place.to_string(),
        None if with_group => format!("{group}/{plural}"),
        None => plural.to_string(),
    }
}

pub fn modified(at: &At<'_>) -> Status {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    Status::conflict(at.group_resource(), &at.target.name, why)
}

/// Name and namespace of a body against those of the path.
pub fn place(at: &At<'_>, mut object: Value, name: Option<&str>) -> Result<Value, Status> {
    if let Some(name) = name {
        match meta::name(&object) {
            "" => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({name} based on URL) was undeterminable: name must be provided"
                )));
            }
            given if given != name => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({given}) does not match the name on the URL ({name})"
                )));
            }
            _ => {}
        }
    }
    let namespace = meta::namespace(&object).to_string();
    if at.kind.namespaced && !namespace.is_empty() && namespace != at.namespace() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let metadata = meta::metadata_mut(&mut object);
    match at.namespace() {
        "" => {
            metadata.shift_remove("namespace");
        }
        namespace => {
            metadata.insert("namespace".into(), json!(namespace));
        }
    }
    Ok(object)
}

/// Fields in order, and nothing that Go would leave out: what admission and defaults added is like the rest.
fn tidy(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    *object = kind.tidy(std::mem::take(object)).map_err(Status::internal)?;
    Ok(())
}

/// What a body is of: a kind, or the kind of a subresource's own.
#[derive(Clone, Copy)]
pub struct Typed<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub schema: &'a Schema,
    pub root: TypeId,
    pub has_status: bool,
    pub is_custom: bool,
}

impl<'a> Typed<'a> {
    pub fn of(kind: &'a Kind) -> Typed<'a> {
        Typed {
            group: &kind.group,
            version: &kind.version,
            kind: &kind.kind,
            schema: &kind.schema,
            root: kind.root,
            has_status: kind.has_status(),
            is_custom: kind.is_custom(),
        }
    }
}

/// Writes down who owns which fields of `new` from now on.
pub fn own_fields(
    cx: &Cx<'_>,
    typed: Typed<'_>,
    subresource: &str,
    old: Option<&Value>,
    new: &mut Value,
    options: &WriteOptions,
) {
    with_write(cx, typed, subresource, options, |write| managed::update(typed.schema, typed.root, old, new, write));
}

/// The same of a new object, whose owners are said aside where they can be.
fn own_new_fields(cx: &Cx<'_>, typed: Typed<'_>, new: &mut Value, options: &WriteOptions) -> Owners {
    let mut owners = Owners::Said;
    with_write(cx, typed, "", options, |write| match managed::of_new(typed.schema, typed.root, new, write) {
        Some(json) => owners = Owners::Aside(json),
        None => managed::update(typed.schema, typed.root, None, new, write),
    });
    owners
}

/// What the request says of itself to whoever writes down its fields.
fn with_write(cx: &Cx<'_>, typed: Typed<'_>, subresource: &str, options: &WriteOptions, own: impl FnOnce(&Write<'_>)) {
    // Apply has already said who owns what.
    if options.field_manager.starts_with(APPLIED) {
        return;
    }
    let agent = cx.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let api_version = meta::api_version(typed.group, typed.version);
    let registry = cx.state.registry.load();
    let kind = registry.by_kind(typed.group, typed.version, typed.kind);
    let write = Write {
        manager: &managed::manager_name(&options.field_manager, agent),
        api_version: &api_version,
        kind: typed.kind,
        subresource,
        now: &timestamp(cx.now),
        owned: &managed::resets(&api_version, typed.kind, subresource, typed.has_status, typed.is_custom),
        convert: &|object, version| kind?.in_version(&registry, object, version),
    };
    own(&write);
}

/// In front of the manager of a write whose managed fields are already right.
pub const APPLIED: &str = "\u{0}";

/// RFC 3339 with seconds, as `metav1.Time`.
pub fn timestamp(now: jiff::Timestamp) -> String {
    let time = jiff::tz::Offset::UTC.to_datetime(now);
    // Every write asks for it, and a format that is read anew each time takes six times as long.
    let digits = |number: i8| [b'0' + number.unsigned_abs() / 10, b'0' + number.unsigned_abs() % 10].map(char::from);
    let mut out = String::with_capacity("2026-01-01T00:00:00Z".len());
    let year = time.year().unsigned_abs();
    out.extend([1000, 100, 10, 1].map(|place| char::from(b'0' + (year / place % 10) as u8)));
    for (before, number) in
        [('-', time.month()), ('-', time.day()), ('T', time.hour()), (':', time.minute()), (':', time.second())]
    {
        out.push(before);
        out.extend(digits(number));
    }
    out.push('Z');
    out
}

/// What a client may not say of a new object.
fn clear_metadata(object: &mut Value) {
    let metadata = meta::metadata_mut(object);
    for field in
        ["uid", "resourceVersion", "selfLink", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        metadata.shift_remove(field);
    }
}

fn new_uid() -> String {
    uuid::Uuid::new_v4().hyphenated().to_string()
}

/// What only the server says of a new object.
fn fill_metadata(cx: &Cx<'_>, object: &mut Value) {
    let metadata = meta::metadata_mut(object);
    metadata.insert("uid".into(), json!(new_uid()));
    metadata.insert("creationTimestamp".into(), json!(timestamp(cx.now)));
}

/// What a client may leave out, or may not say, of an object that exists.
fn keep_metadata(new: &mut Value, old: &Value) {
    let old_metadata = old["metadata"].clone();
    let metadata = meta::metadata_mut(new);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "selfLink",
    ] {
        // Some are the server's alone; the others may be left out, and are refused where they are changed.
        let must = matches!(field, "resourceVersion" | "selfLink" | "generation" | "creationTimestamp");
        let kept = field == "deletionTimestamp";
        match old_metadata.get(field) {
            Some(value) if kept => {
                metadata.insert(field.into(), value.clone());
            }
            Some(value) if must || !metadata.contains_key(field) => {
                metadata.insert(field.into(), value.clone());
            }
            None if must => {
                metadata.shift_remove(field);
            }
            _ => {}
        }
    }
}

fn strip_version(object: &mut Value) {
    meta::metadata_mut(object).shift_remove("resourceVersion");
}

/// A name of `generateName` and five letters. Answers whether one was made.
fn generate_name(object: &mut Value) -> bool {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let stem = meta::text(object, "generateName").to_string();
    if stem.is_empty() {
        return false;
    }
    if meta::name(object).is_empty() {
        let mut cut = stem.len().min(GENERATED_STEM_BYTES_MAX);
        while !stem.is_char_boundary(cut) {
            cut -= 1;
        }
        let letter = |_| LETTERS[rand::random_range(0..LETTERS.len())] as char;
        let name: String = stem[..cut].chars().chain((0..GENERATED_CHARACTERS).map(letter)).collect();
        meta::metadata_mut(object).insert("name".into(), json!(name));
    }
    true
}

/// 422 where there are causes. An object is of the group in which it is kept, whatever the client calls it; a custom one
/// is of the kind it says.
pub fn refuse(kind: &Kind, object: &Value, name: &str, causes: Vec<Cause>) -> Result<(), Status> {
    if causes.is_empty() {
        return Ok(());
    }
    let group = kind.kept().map_or(&*kind.group, |kept| kept.group);
    let own = object["kind"].as_str().filter(|_| kind.is_custom());
    Err(invalid(group, own.unwrap_or(&kind.kind), name, causes))
}

pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
    let causes = causes.into_iter().map(|cause| api::Cause {
        reason: cause.reason.as_str().into(),
        message: cause.message,
        field: cause.field,
    });
    Status::invalid(group, kind, name, causes.collect())
}

pub fn store_failure(error: WriteError) -> Status {
    match error {
        WriteError::Store(store::Error::TooLarge { bytes, limit, .. }) => {
            Status::too_large(format!("etcdserver: request is too large: {bytes} bytes, limit {limit}"))
        }
        WriteError::Store(store::Error::Closed) => Status::unavailable("the server is shutting down"),
        other => Status::internal(other),
    }
}

/// Preconditions of a deletion.
pub fn check_preconditions(at: &At<'_>, object: &Value, conditions: &Preconditions) -> Result<(), Status> {
    let stored = at.kind.behaviour.stored_preconditions;
    let of = match stored {
        true => at.group_resource(),
        false => api::status::GroupResource { group: &at.kind.group, resource: &at.kind.kind },
    };
    let failed = |what: &str, wanted: &str, found: &str, might: &str| {
        let why = match stored {
            true => format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"),
            false => format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {might}"
            ),
        };
        Err(Status::conflict(of, &at.target.name, why))
    };
    if let Some(uid) = conditions.uid.as_deref().filter(|uid| *uid != meta::uid(object)) {
        return failed("UID", uid, meta::uid(object), "deleted and then recreated");
    }
    if let Some(version) = conditions.resource_version.as_deref().filter(|v| *v != meta::resource_version(object)) {
        return failed("ResourceVersion", version, meta::resource_version(object), "modified");
    }
    Ok(())
}

/// The answer of a write.
pub fn written(cx: &Cx<'_>, kind: &Kind, code: u16, stored: Stored) -> Result<Answer, Status> {
    match (cx.accept, stored) {
        (Accept { transform: None, .. }, Stored::Json(json) | Stored::Both(_, json)) => {
            Ok(Answer::Encoded { code, json })
        }
        (accept, stored) => {
            Ok(Answer::Value { code, value: transform::object(cx, kind, stored.into_object(), accept)? })
        }
    }
}

/// Nobody hands out rights that he does not hold.
fn escalation(request: &admission::Request, object: &Value) -> Result<(), Status> {
    if &*request.kind.group != rbac::GROUP {
        return Ok(());
    }
    let name = if request.operation == Operation::Create { "" } else { request.name };
    let write = rules::Write { user: request.user, resource: &request.kind.plural, namespace: request.namespace, name };
    let (authorizer, usage) = (&request.state.authorizer, &request.state.usage);
    rules::check_escalation(authorizer, write, object, request.old, request.hearing)?;
    if usage.records(&request.user.name) && !request.hearing.is_open() {
        usage.add(&request.user.name, rules::used(authorizer, write, object, request.old));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_name_that_was_generated_is_tried_again() {
        let of = api::status::GroupResource { group: "", resource: "pods" };
        let plain = Status::already_exists(of, "a-x7x7x");
        let generated = Status { message: format!("{}, {NOT_UNIQUE}", plain.message), ..plain.clone() };
        assert!(is_not_unique(&generated));
        assert!(!is_not_unique(&plain));
        assert!(!is_not_unique(&Status::bad_request(NOT_UNIQUE)));
    }

    #[test]
    fn times_are_told_in_seconds() {
        for second in [0, 951_782_399, 951_782_400, 1_798_761_599, 4_102_444_799] {
            let now = jiff::Timestamp::from_second(second).unwrap();
            assert_eq!(timestamp(now), now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
    }

    #[test]
    fn an_owner_is_said_once() {
        let owner = |uid: &str, controller: bool| json!({"name": "a", "uid": uid, "controller": controller});
        let check = |whole: bool, expected: &str| {
            let owners = [owner("1", true), owner("2", false), owner("1", true), owner("2", true)];
            let mut object = json!({"metadata": {"ownerReferences": owners}});
            let mut warnings = Vec::new();
            drop_owners_said_twice(&mut object, whole, &mut warnings);
            assert_eq!(meta::items_at(&object, &["metadata", "ownerReferences"]).len(), 3);
            let told: Vec<&str> = warnings.iter().filter_map(|text| text.split("; ").next()).collect();
            assert_eq!(told, [expected]);
            assert!(warnings[0].ends_with("duplicate UID(s) observed: 1"), "{warnings:?}");
        };
        check(true, ".metadata.ownerReferences contains duplicate entries");
        check(false, ".metadata.ownerReferences contains duplicate entries after mutating admission happens");
    }
}
