//! Deletion: at once, after a grace period, or when the last finalizer is gone. One object or a collection.

use std::sync::{Mutex, OnceLock};

use api::options::Propagation;
use api::{DeleteOptions, ListOptions, Status, meta};
use jiff::{SignedDuration, Timestamp};
use kinds::schema::TypeId;
use serde_json::{Value, json};
use store::Revision;

use super::body::{self, Wanted};
use super::write::{Stored, TRIES_MAX, check_preconditions, invalid_stored, modified, store_failure, timestamp};
use super::{At, list};
use crate::admission::{self, Operation};
use crate::objects::{self, Entry, WriteError};
use crate::respond::Answer;
use crate::serve::{Cx, RequestBody};
use crate::transform;

/// DELETE of one object.
pub async fn delete(cx: &Cx<'_>, at: &At<'_>, body: RequestBody, warnings: &mut Vec<String>) -> Result<Answer, Status> {
    at.check_name()?;
    let options = options(cx, body).await?;
    warnings.extend(warning_of_orphans(at, &options));
    let gone = delete_object(cx, at, &options).await?;
    match gone {
        Gone::Now(object) if !at.kind.behaviour.returns_deleted && !is_graceful(at, &object) => {
            let status = Status::deleted(at.group_resource(), meta::name(&object), meta::uid(&object));
            Ok(Answer::status(&status))
        }
        // Who asked the old way for what depends on it to go is told that it goes on.
        Gone::Later(object) if options.orphan_dependents == Some(false) => {
            Ok(Answer::accepted(transform::object(cx, at.kind, object, cx.accept)?))
        }
        Gone::Now(object) | Gone::Later(object) => Ok(Answer::ok(transform::object(cx, at.kind, object, cx.accept)?)),
    }
}

/// DELETE of what a selector selects. Answers what was there.
pub async fn delete_collection(
    cx: &Cx<'_>,
    at: &At<'_>,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    let options = options(cx, body).await?;
    warnings.extend(warning_of_orphans(at, &options));
    let selected = list::page(cx, at, &ListOptions::parse(&cx.ask.query)?).await?;
    let metadata = selected.metadata();
    let mut items = Vec::new();
    for entry in selected.entries {
        let target = api::Target {
            name: entry.name().to_string(),
            namespace: entry.namespace().to_string(),
            ..at.target.clone()
        };
        match delete_object(cx, &At { target: &target, ..*at }, &options).await {
            Ok(Gone::Now(_)) | Ok(Gone::Later(_)) => items.push(at.value(&entry)),
            Err(status) if status.reason == api::Reason::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    Ok(Answer::ok(transform::list(cx, at.kind, items, metadata, cx.accept)?))
}

/// What became of an object.
pub enum Gone {
    /// It is not there any more; this is what it was.
    Now(Value),
    /// It waits for its grace period or its finalizers.
    Later(Value),
}

/// Deletes one object as the options say.
pub async fn delete_object(cx: &Cx<'_>, at: &At<'_>, options: &DeleteOptions) -> Result<Gone, Status> {
    let collection = cx.state.collection(at.kind)?;
    let shape = cx.state.shape(at.kind);
    for _ in 0..TRIES_MAX {
        let entry = collection.get(&at.key()).ok_or_else(|| at.not_found())?;
        let old = at.value(&entry);
        if options.only_unreadable {
            if at.kind.behaviour.never_unreadable {
                let why = "no unsafe deleter provided, can not honor ignoreStoreReadErrorWithClusterBreakingPotential";
                return Err(Status::internal(why));
            }
            let why = "unsafe deletion is not allowed because the object is decodable from storage";
            return Err(invalid_stored(at, why));
        }
        check_preconditions(at, &old, &options.preconditions)?;
        let told = Mutex::default();
        let request =
            admission::Request { old: Some(&old), ..admission::Request::new(cx, at, Operation::Delete, &told) };
        cx.hearing.settle(|| admission::validate(&request, None)).await?;
        let outcome = decide(at, &old, options, cx.now)?;
        if options.dry_run {
            return Ok(outcome);
        }
        let written = match outcome {
            Gone::Now(object) if object == old => {
                remove(cx, &shape, &entry.key, entry.revision).await.map(|()| Gone::Now(object))
            }
            Gone::Now(object) => mark_and_remove(cx, at, &entry, object, options).await.map(Gone::Now),
            Gone::Later(object) if object == old => return Ok(Gone::Later(object)),
            Gone::Later(object) => write(cx, at, &entry, object).await.map(|s| Gone::Later(s.into_object())),
        };
        match written {
            Ok(gone) => return Ok(gone),
            Err(WriteError::Store(why)) => return Err(store_failure(WriteError::Store(why))),
            // Somebody changed it meanwhile: look again.
            Err(_) => {}
        }
    }
    Err(modified(at))
}

/// Shows that an object is being deleted, and takes it away: a graceful kind is seen to be deleted before it is gone, however short
/// its grace is. Who sees that may be faster with the latter, as a node is, or change the object once more: it is deleted
/// all the same, but where the request is about one version alone.
async fn mark_and_remove(
    cx: &Cx<'_>,
    at: &At<'_>,
    entry: &Entry,
    object: Value,
    options: &DeleteOptions,
) -> Result<Value, WriteError> {
    let shape = cx.state.shape(at.kind);
    let collection = cx.state.objects.collection(&shape).map_err(WriteError::Store)?;
    let mut kept = at.kind.to_kept(object);
    let mut revision = cx.state.objects.update(&shape, &entry.key, entry.revision, &mut kept).await?.revision;
    for _ in 0..TRIES_MAX {
        match remove(cx, &shape, &entry.key, revision).await {
            Err(WriteError::Changed) => {}
            done => return done.map(|()| at.kind.from_kept(kept)),
        }
        match collection.get(&entry.key).filter(|there| there.uid == entry.uid) {
            Some(_) if options.preconditions.resource_version.is_some() => break,
            Some(there) => revision = there.revision,
            None => return Ok(at.kind.from_kept(kept)),
        }
    }
    Err(WriteError::Changed)
}

async fn remove(cx: &Cx<'_>, shape: &objects::Shape, key: &str, revision: Revision) -> Result<(), WriteError> {
    cx.state.objects.delete(shape, key, revision).await.map(|_| ())
}

async fn write(cx: &Cx<'_>, at: &At<'_>, entry: &Entry, object: Value) -> Result<Stored, WriteError> {
    let mut kept = at.kind.to_kept(object);
    let shape = cx.state.shape(at.kind);
    let written = cx.state.objects.update(&shape, &entry.key, entry.revision, &mut kept).await?;
    Ok(Stored::of(at.kind, kept, written))
}

/// What a deletion makes of an object. Pure.
fn decide(at: &At<'_>, old: &Value, options: &DeleteOptions, now: Timestamp) -> Result<Gone, Status> {
    let behaviour = at.kind.behaviour;
    let already = meta::is_deleting(old);
    let graceful = (behaviour.grace_seconds)(old, options.grace_period_seconds);
    let seconds = graceful.unwrap_or(0);
    let running = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let shortened = options.grace_period_seconds.is_some() && running.is_some_and(|running| seconds < running);
    // What waits already can only be made to wait less long.
    let pending = graceful.is_some() && running.is_some() && !shortened;
    let held = |object: &Value| meta::finalizers(object).next().is_some() || (behaviour.holds_back)(object);
    if already && (pending || (behaviour.begins_deletion_once && held(old))) {
        return Ok(Gone::Later(old.clone()));
    }
    let mut object = old.clone();
    let wanted = finalizer_of_dependents(at, old, options);
    let (present, mut all): (Vec<&str>, Vec<&str>) =
        meta::finalizers(old).partition(|finalizer| OF_DEPENDENTS.contains(finalizer));
    if present != Vec::from_iter(wanted) {
        all.extend(wanted);
        match all.is_empty() {
            true => drop(meta::metadata_mut(&mut object).shift_remove("finalizers")),
            false => drop(meta::metadata_mut(&mut object).insert("finalizers".into(), json!(all))),
        }
    }
    if already {
        if graceful.is_some() && shortened {
            let began = meta::text(old, "deletionTimestamp").parse::<Timestamp>().unwrap_or(now);
            set_deletion(&mut object, began + SignedDuration::from_secs(seconds - running.unwrap_or(0)), seconds);
        }
    } else {
        set_deletion(&mut object, now + SignedDuration::from_secs(seconds), seconds);
        if !behaviour.begins_deletion_once {
            count_generation(&mut object);
        }
        (behaviour.begin_delete)(&mut object);
    }
    let object = at.kind.tidy(object).map_err(Status::internal)?;
    let waits = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    Ok(match (waits || held(&object), graceful.is_some()) {
        (true, _) => Gone::Later(object),
        (false, true) => Gone::Now(object),
        // What goes at once is shown as it was.
        (false, false) => Gone::Now(old.clone()),
    })
}

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizers with which the garbage collector sees to the dependents of an object.
const OF_DEPENDENTS: [&str; 2] = [ORPHAN, FOREGROUND];

/// What becomes of the dependents: as the request says, else as the object does already, else as its kind does.
fn finalizer_of_dependents(at: &At<'_>, old: &Value, options: &DeleteOptions) -> Option<&'static str> {
    if at.kind.behaviour.without_dependents {
        return None;
    }
    match (options.orphan_dependents, options.propagation) {
        (Some(true), _) | (None, Some(Propagation::Orphan)) => Some(ORPHAN),
        (None, Some(Propagation::Foreground)) => Some(FOREGROUND),
        (Some(false), _) if at.kind.behaviour.begins_deletion_once => Some(FOREGROUND),
        (Some(false), _) | (None, Some(Propagation::Background)) => None,
        (None, None) => {
            let said = meta::finalizers(old).find_map(|f| OF_DEPENDENTS.into_iter().find(|known| *known == f));
            said.or_else(|| orphans_by_default(at, options).then_some(ORPHAN))
        }
    }
}

/// The request does not say what becomes of the dependents, and the kind leaves them.
fn orphans_by_default(at: &At<'_>, options: &DeleteOptions) -> bool {
    at.kind.behaviour.orphan_by_default && options.propagation.is_none() && options.orphan_dependents.is_none()
}

fn warning_of_orphans(at: &At<'_>, options: &DeleteOptions) -> Option<String> {
    let text = at.kind.behaviour.warning_of_orphans;
    (!text.is_empty() && orphans_by_default(at, options)).then(|| text.to_string())
}

fn set_deletion(object: &mut Value, when: Timestamp, seconds: i64) {
    let metadata = meta::metadata_mut(object);
    metadata.insert("deletionTimestamp".into(), json!(timestamp(when)));
    metadata.insert("deletionGracePeriodSeconds".into(), json!(seconds));
}

/// A deletion that waits is a change of what is wanted.
fn count_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|g| *g > 0) {
        object["metadata"]["generation"] = json!(generation + 1);
    }
}

fn is_graceful(at: &At<'_>, object: &Value) -> bool {
    (at.kind.behaviour.grace_seconds)(object, None).is_some()
}

/// The options of a deletion: its body where it has one, else its query.
async fn options(cx: &Cx<'_>, body: RequestBody) -> Result<DeleteOptions, Status> {
    let encoding = match cx.headers.contains_key(http::header::CONTENT_TYPE) {
        true => body::encoding(cx.headers),
        false => Ok(body::Encoding::Json),
    };
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(&cx.ask.query);
    }
    let registry = cx.state.registry.load();
    let Some((schema_of, root)) = options_type(&registry) else { return DeleteOptions::parse(&cx.ask.query) };
    let wanted =
        Wanted { registry: &registry, kind: schema_of, group: "", version: "v1", kind_name: "DeleteOptions", root };
    let value = body::options(wanted, &bytes, encoding?)?;
    cx.audit.body(|| Some(said(&value)));
    DeleteOptions::from_body(&value)
}

/// The options as they are written down: as of the version that the client said, which is that of metadata if none.
fn said(options: &Value) -> Value {
    const META_VERSION: &str = "meta.k8s.io/v1";
    let version = Some(meta::text_at(options, &["apiVersion"])).filter(|version| !version.is_empty());
    let mut said = json!({"kind": "DeleteOptions", "apiVersion": version.unwrap_or(META_VERSION)});
    for (key, value) in options.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "kind" | "apiVersion") {
            said[key] = value.clone();
        }
    }
    said
}

/// The type of `DeleteOptions`, and a kind whose schema holds it.
fn options_type(registry: &kinds::Registry) -> Option<(&kinds::Kind, TypeId)> {
    static ROOT: OnceLock<Option<TypeId>> = OnceLock::new();
    let kind = registry.kind("", "v1", "configmaps")?;
    let root = *ROOT.get_or_init(|| {
        let types = &kind.schema.types;
        let at = types.iter().position(|t| t.name.ends_with("meta.v1.DeleteOptions"))?;
        Some(TypeId(u32::try_from(at).ok()?))
    });
    Some((kind, root?))
}
