//! Watches: a cursor into a resource's history. A slow watcher costs the others nothing: it reads on from where it was,
//! or learns that history has moved past it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{Details, EventType, ListOptions, Reason, Status, go};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinds::Kind;
use serde_json::{Value, json};
use store::Revision;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{At, list};
use crate::accept::{Accept, Include, Media, Transform};
use crate::objects::{Changed, Collection, Compacted, Entry, Told};
use crate::respond::{self, Answer};
use crate::selection::Selection;
use crate::serve::Cx;
use crate::state::State;
use crate::transform;

/// A watch without `timeoutSeconds` lives between this and twice this.
pub const WATCH_SECONDS_MIN: u64 = 1800;
/// Most changes a watcher takes out of history at a time.
const CHANGES_AT_ONCE: usize = 256;
/// Around an object, no more than this.
const EVENT_BYTES_AROUND: usize = 40;
/// How often a watcher that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a shorter watch gets its bookmark.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// Answers a stream of events.
pub fn watch(cx: &Cx<'_>, at: &At<'_>) -> Result<Answer, Status> {
    let options = ListOptions::parse(&cx.ask.query)?;
    if !at.kind.has_verb("watch") {
        let details = Details { kind: at.kind.plural.to_string(), ..Details::default() };
        let text = format!("watch is not supported on resources of kind {}", go::quote(&at.kind.plural));
        return Err(Status { details: Some(details), ..Status::failure(405, Reason::MethodNotAllowed, text) });
    }
    let collection = cx.state.collection(at.kind)?;
    let selection = Selection::new(at.kind, &collection, &options, &at.target.name)?;
    let (_, now) = list::now(cx.state, &collection);
    let given = options.resource_version.filter(|revision| *revision > 0);
    let wants_state = match options.send_initial_events {
        Some(wanted) => wanted || (given.is_none() && options.resource_version.is_none()),
        None => given.is_none(),
    } && options.send_initial_events != Some(false);
    // With the state sent, history goes on from it; without, from where the client says.
    let cursor = given.unwrap_or(now);
    if !wants_state {
        collection.changes_after(cursor, 0).map_err(|gone| too_old(&gone))?;
    }
    let seconds = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => seconds.unsigned_abs(),
        _ => WATCH_SECONDS_MIN + u64::from(rand::random::<u16>()) % WATCH_SECONDS_MIN,
    };
    let ends = Instant::now() + Duration::from_secs(seconds);
    // A watch that is shorter than that gets one just before its end.
    let first = match Duration::from_secs(seconds).checked_sub(BOOKMARK_BEFORE_END) {
        Some(wait) if !wait.is_zero() => wait.min(BOOKMARK_EVERY),
        _ => BOOKMARK_EVERY,
    };
    let alarm = match options.allow_watch_bookmarks {
        true => ends.min(Instant::now() + first),
        false => ends,
    };
    let shares = matches!(cx.accept, Accept { media: Media::Json, transform: None, .. })
        && !at.kind.is_custom()
        && at.kind.kept().is_none()
        && selection.is_everything();
    let watcher = Watcher {
        state: cx.state.clone(),
        kind: at.kind.clone(),
        namespace: at.namespace().to_string(),
        changed: collection.subscribe(),
        collection,
        selection,
        accept: cx.accept,
        shares,
        initial: Some(wants_state),
        ends_initial: wants_state && options.allow_watch_bookmarks,
        cursor,
        ends,
        alarm: Box::pin(sleep_until(alarm)),
        columns_sent: false,
        over: false,
        sent: cx.state.metrics.watched(at.kind),
    };
    let frames = stream::unfold(Box::new(watcher), |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok(Frame::data(piece)), watcher))
    });
    let mut response = respond::raw(200, content_type(cx.accept), Bytes::new());
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(Answer::Raw(response))
}

fn content_type(accept: Accept) -> &'static str {
    match accept.media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        media => media.content_type(),
    }
}

struct Watcher {
    state: Arc<State>,
    kind: Arc<Kind>,
    namespace: String,
    collection: Arc<Collection>,
    /// Told of all that a watch waits for but the time: changes, another definition of what is watched, the end.
    changed: tokio::sync::watch::Receiver<Revision>,
    selection: Selection,
    accept: Accept,
    /// It is told the very bytes that others of its collection and namespace are told.
    shares: bool,
    /// Whether the state is sent first; none when the beginning is over.
    initial: Option<bool>,
    /// The bookmark behind the initial events says that they end there.
    ends_initial: bool,
    /// Everything up to here was sent.
    cursor: Revision,
    ends: Instant,
    /// Rings for the next bookmark, where the client wants any, and at the end. Made once: to begin to wait costs more than
    /// to tell of a change.
    alarm: Pin<Box<Sleep>>,
    /// A watch of Tables sends the columns with the first one only.
    columns_sent: bool,
    over: bool,
    /// Counts events for those who look at metrics.
    sent: Arc<AtomicU64>,
}

impl Watcher {
    /// The next bytes to send; none when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(wants_state) = self.initial.take() {
            // An empty first piece still sends the headers, which clients wait for.
            return Some(if wants_state { self.present().await.into() } else { Bytes::new() });
        }
        loop {
            // A watch that never waits has an end too.
            if self.over || self.ends <= Instant::now() {
                return None;
            }
            // History is looked at only where it has more: whoever was told something comes back at once, to wait.
            let has_more = *self.changed.borrow_and_update() > self.cursor;
            if has_more
                && self.shares
                && let Some(told) = self.collection.told(self.cursor, &self.namespace)
            {
                self.cursor = told.until;
                self.sent.fetch_add(told.events, Ordering::Relaxed);
                return Some(told.bytes.clone());
            }
            let changes = match has_more {
                true => self.collection.changes_after(self.cursor, CHANGES_AT_ONCE),
                false => Ok(Vec::new()),
            };
            match changes {
                Err(gone) => {
                    self.over = true;
                    let mut out = Vec::new();
                    self.event(&mut out, EventType::Error, &api::codec::value_to_json(&too_old(&gone).to_value()));
                    return Some(out.into());
                }
                Ok(changes) if !changes.is_empty() => {
                    if let Some(bytes) = self.changes(&changes) {
                        return Some(bytes);
                    }
                    continue;
                }
                Ok(_) if self.collection.is_ending() || !self.is_served() => return None,
                Ok(_) => {}
            }
            tokio::select! {
                biased;
                changed = self.changed.changed() => changed.ok()?,
                () = &mut self.alarm => {
                    if let Some(mark) = self.due_bookmark() {
                        return Some(mark);
                    }
                }
            }
        }
    }

    /// What some changes are to this watcher; nothing where none concerns it.
    fn changes(&mut self, changes: &[Arc<Changed>]) -> Option<Bytes> {
        let (after, mut out, mut events) = (self.cursor, Vec::new(), 0);
        for change in changes {
            let before = out.len();
            self.change(&mut out, change);
            events += u64::from(out.len() > before);
            self.cursor = change.revision;
        }
        if out.is_empty() {
            return None;
        }
        let bytes = Bytes::from(out);
        if self.shares {
            let namespace = self.namespace.as_str().into();
            self.collection.tell(Told { after, until: self.cursor, namespace, events, bytes: bytes.clone() });
        }
        Some(bytes)
    }

    /// The bookmark for which the alarm rang; none where it rang for the end, or something happened that is not sent yet.
    fn due_bookmark(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        if self.ends <= now {
            return None;
        }
        self.alarm.as_mut().reset(self.ends.min(now + BOOKMARK_EVERY));
        // Nothing of this collection happened up to the store's revision that was not sent.
        let revision = self.state.objects.revision();
        if !self.collection.changes_after(self.cursor, 1).is_ok_and(|changes| changes.is_empty()) {
            return None;
        }
        self.cursor = self.cursor.max(revision);
        let mut out = Vec::new();
        self.bookmark(&mut out, None);
        Some(out.into())
    }

    /// The state as it is, once it is as new as the client asked.
    async fn present(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(status) = list::wait_for(&self.state, self.cursor).await {
            self.over = true;
            self.event(&mut out, EventType::Error, &api::codec::value_to_json(&status.to_value()));
            return out;
        }
        let (snapshot, now) = list::now(&self.state, &self.collection);
        self.cursor = now;
        for entry in snapshot.range(&self.namespace, None) {
            if self.selection.takes(entry) {
                self.object(&mut out, EventType::Added, entry.revision, &entry.json.bytes());
            }
        }
        if self.ends_initial {
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            self.bookmark(&mut out, Some(annotations));
        }
        out
    }

    /// What a change is to this watcher: an object may come into or leave its selection by being modified.
    fn change(&mut self, out: &mut Vec<u8>, change: &Changed) {
        let taken = |entry: &Option<Arc<Entry>>| {
            entry.as_ref().filter(|entry| self.is_here(entry) && self.selection.takes(entry)).cloned()
        };
        match (taken(&change.old), taken(&change.new)) {
            (None, Some(new)) => self.object(out, EventType::Added, new.revision, &new.json.bytes()),
            (Some(_), Some(new)) => self.object(out, EventType::Modified, new.revision, &new.json.bytes()),
            (Some(old), None) => self.object(out, EventType::Deleted, old.revision, &old.json_at(change.revision)),
            (None, None) => {}
        }
    }

    /// A custom resource may go, or become something else.
    fn is_served(&self) -> bool {
        let Some(custom) = &self.kind.custom else { return true };
        let registry = self.state.registry.load();
        let now = registry.kind(&self.kind.group, &self.kind.version, &self.kind.plural);
        now.and_then(|kind| kind.custom.as_ref()).is_some_and(|now| now.since() == custom.since())
    }

    fn is_here(&self, entry: &Entry) -> bool {
        self.namespace.is_empty() || entry.namespace() == self.namespace
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, annotations: Option<Value>) {
        let mut object = transform::empty(&self.kind);
        object["metadata"] = json!({"resourceVersion": self.cursor.to_string()});
        if let Some(annotations) = annotations {
            object["metadata"]["annotations"] = annotations;
        }
        self.event(out, EventType::Bookmark, &api::codec::value_to_json(&object));
    }

    /// The event of an object that was stored at a revision.
    fn object(&mut self, out: &mut Vec<u8>, event: EventType, revision: Revision, json: &[u8]) {
        // Rows of built-in kinds are made of what is kept.
        let of_kept = matches!(self.accept.transform, Some(Transform::Table(_))) && !self.kind.is_custom();
        if of_kept || self.kind.shows_stored(revision) {
            return self.event(out, event, json);
        }
        let object = serde_json::from_slice(json).unwrap_or_default();
        let shown = api::codec::value_to_json(&self.kind.from_kept(object));
        self.event(out, event, &shown);
    }

    fn event(&mut self, out: &mut Vec<u8>, event: EventType, json: &[u8]) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let transformed;
        let json = match self.accept {
            Accept { transform: Some(form), .. } if event != EventType::Error => {
                let value = serde_json::from_slice(json).unwrap_or_default();
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                let value = match form {
                    Transform::Table(_) => {
                        // A bookmark is its metadata, whatever is asked to be shown of objects.
                        let include =
                            if event == EventType::Bookmark { Include::Metadata } else { self.accept.include };
                        transform::watched_table(
                            &self.state,
                            &self.kind,
                            value,
                            Accept { include, ..self.accept },
                            columns,
                        )
                    }
                    Transform::PartialObjectMetadata(version) | Transform::PartialObjectMetadataList(version) => {
                        transform::partial(&self.kind, value, version)
                    }
                };
                transformed = api::codec::value_to_json(&value);
                &transformed
            }
            _ => json,
        };
        match self.accept.media {
            Media::Json => {
                out.reserve(json.len() + EVENT_BYTES_AROUND);
                out.extend_from_slice(br#"{"type":""#);
                out.extend_from_slice(event.as_str().as_bytes());
                out.extend_from_slice(br#"","object":"#);
                out.extend_from_slice(json);
                out.extend_from_slice(b"}\n");
            }
            Media::Protobuf => {
                let object: Value = serde_json::from_slice(json).unwrap_or_default();
                let object = kinds::protobuf::encode(&object).unwrap_or_default();
                out.extend_from_slice(&api::protobuf::watch_frame(event.as_str(), &object));
            }
            Media::Yaml => {
                let object: Value = serde_json::from_slice(json).unwrap_or_default();
                out.extend_from_slice(b"---\n");
                out.extend_from_slice(
                    api::codec::to_yaml(&json!({"type": event.as_str(), "object": object})).as_bytes(),
                );
            }
        }
    }
}

fn too_old(gone: &Compacted) -> Status {
    Status::expired(format!("too old resource version: {} ({})", gone.asked, gone.oldest))
}
