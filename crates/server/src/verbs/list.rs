//! GET of a collection: a chain of stored bytes at one revision, sent in pieces. Holds no lock while it sends.

use std::sync::Arc;
use std::time::Duration;

use api::options::VersionMatch;
use api::{ListOptions, Reason, Status, meta};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinds::Kind;
use serde_json::{Value, json};
use store::Revision;

use super::{At, read};
use crate::accept::{Accept, Media};
use crate::objects::{Collection, Entry, Snapshot};
use crate::respond::{self, Answer, Body};
use crate::selection::{self, Selection};
use crate::serve::Cx;
use crate::state::State;
use crate::transform;

/// Bytes of a list that are put together before they are sent.
const PIECE_BYTES: usize = 64 * 1024;
/// How long a read waits for a revision that was not made yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// Answers what a selector selects, at one revision, whole or in chunks.
pub async fn list(cx: &Cx<'_>, at: &At<'_>) -> Result<Answer, Status> {
    let options = ListOptions::parse(&cx.ask.query)?;
    if read::is_computed(at.kind) {
        selection::check(at.kind, &options.fields)?;
        let mut objects = read::computed(cx);
        objects.retain(|object| {
            options.labels.matches(|key| meta::entry(object, "labels", key))
                && options.fields.matches(|field| if field == "metadata.name" { meta::name(object) } else { "" })
        });
        return Ok(Answer::ok(transform::list(cx, at.kind, objects, json!({}), cx.accept)?));
    }
    let page = page(cx, at, &options).await?;
    match cx.accept {
        Accept { media: Media::Json, transform: None, pretty: false, .. } if page.shows_stored(at.kind) => {
            cx.audit.answer_object(|| {
                let items = page.entries.iter().map(|entry| at.shown(entry, cx.accept)).collect();
                transform::list(cx, at.kind, items, page.metadata(), cx.accept).ok()
            });
            Ok(Answer::Raw(stream_list(cx, at.kind, page)))
        }
        accept => {
            let items = page.entries.iter().map(|entry| at.shown(entry, accept)).collect();
            Ok(Answer::ok(transform::list(cx, at.kind, items, page.metadata(), accept)?))
        }
    }
}

/// What a list answers.
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    pub revision: Revision,
    /// Where the next page goes on, and how many items come after this one (unknown under a selector).
    next: Option<(String, Option<usize>)>,
}

impl Page {
    /// Whether the stored bytes are what is shown.
    fn shows_stored(&self, kind: &Kind) -> bool {
        match kind.is_custom() {
            false => kind.kept().is_none(),
            true => self.entries.iter().all(|entry| kind.shows_stored(entry.revision)),
        }
    }

    /// `ListMeta`.
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some((token, remaining)) = &self.next {
            metadata["continue"] = json!(token);
            if let Some(remaining) = remaining {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        metadata
    }
}

/// The entries of one page.
pub async fn page(cx: &Cx<'_>, at: &At<'_>, options: &ListOptions) -> Result<Page, Status> {
    let collection = cx.state.collection(at.kind)?;
    let selection = Selection::new(at.kind, &collection, options, &at.target.name)?;
    let start = Start::of(options)?;
    let (snapshot, revision) = match start {
        Start { revision: Some(revision), .. } => {
            wait_for(cx.state, revision).await?;
            let past = collection.at(revision);
            (past.map_err(|_| too_old(&start))?, revision)
        }
        Start { revision: None, at_least, .. } => {
            if let Some(at_least) = at_least {
                wait_for(cx.state, at_least).await?;
            }
            now(cx.state, &collection)
        }
    };
    // Any state will do: what is in memory is answered whole.
    let whole = options.limit <= 0 || (options.resource_version == Some(0) && options.continue_token.is_empty());
    let limit = if whole { usize::MAX } else { usize::try_from(options.limit).unwrap_or(usize::MAX) };
    let mut entries = Vec::new();
    let mut rest = snapshot.range(at.namespace(), start.from.as_deref());
    entries.extend(rest.by_ref().filter(|entry| selection.takes(entry)).take(limit).cloned());
    // Whether something follows is asked of what is there, not of what is selected, but for the one object of a name.
    let one_name = options.fields.exact("metadata.name").is_some();
    let next = match entries.len() == limit && !one_name && rest.next().is_some() {
        false => None,
        true => {
            // The first key that there can be behind the last one shown.
            let behind = format!("{}\0", entries.last().map_or("", |entry| &*entry.key));
            let remaining = options.labels.is_everything() && options.fields.is_everything();
            Some((encode_token(i64::try_from(revision).unwrap_or(-1), &behind), remaining.then(|| 1 + rest.count())))
        }
    };
    Ok(Page { entries, revision, next })
}

/// The present, and the revision it stands for: everything up to it is in the snapshot.
pub fn now(state: &State, collection: &Collection) -> (Arc<Snapshot>, Revision) {
    let revision = state.objects.revision();
    let snapshot = collection.snapshot();
    let revision = revision.max(snapshot.revision);
    (snapshot, revision)
}

/// Waits until a revision was made, a while.
pub async fn wait_for(state: &State, revision: Revision) -> Result<(), Status> {
    if state.objects.revision() >= revision {
        return Ok(());
    }
    // Revisions are handed out by this store only: one from the future was never seen here.
    let reached = state.revision_reached(revision);
    if tokio::time::timeout(FUTURE_WAIT, reached).await.is_ok() {
        return Ok(());
    }
    let current = state.objects.revision();
    let cause = api::Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        ..Default::default()
    };
    let details = api::Details { causes: vec![cause], retry_after_seconds: 1, ..Default::default() };
    let text = format!("Timeout: Too large resource version: {revision}, current: {current}");
    Err(Status { details: Some(details), ..Status::failure(504, Reason::Timeout, text) })
}

/// Where a list begins.
struct Start {
    /// At exactly this revision.
    revision: Option<Revision>,
    at_least: Option<Revision>,
    /// At this key, which need not be there.
    from: Option<String>,
}

impl Start {
    fn of(options: &ListOptions) -> Result<Start, Status> {
        if !options.continue_token.is_empty() {
            let (revision, from) = read_token(&options.continue_token)
                .map_err(|why| Status::bad_request(format!("invalid continue token: {why}")))?;
            if options.resource_version.is_some_and(|given| given != 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let revision = (revision > 0).then_some(revision as Revision);
            return Ok(Start { revision, at_least: None, from: Some(from) });
        }
        let given = options.resource_version.filter(|revision| *revision > 0);
        let exact = match options.version_match {
            Some(VersionMatch::Exact) => true,
            Some(VersionMatch::NotOlderThan) => false,
            None => options.limit > 0,
        };
        Ok(match (given, exact) {
            (Some(revision), true) => Start { revision: Some(revision), at_least: None, from: None },
            (at_least, _) => Start { revision: None, at_least, from: None },
        })
    }
}

fn too_old(start: &Start) -> Status {
    match &start.from {
        None => Status::expired("The resourceVersion for the provided list is too old."),
        Some(from) => {
            // The client may go on with what is there now: a token without a revision.
            let token = encode_token(-1, from);
            let text = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
            Status { metadata: Some(json!({"continue": token})), ..Status::expired(text) }
        }
    }
}

/// The token of the page that begins at `start`.
fn encode_token(revision: i64, start: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn read_token(token: &str) -> Result<(i64, String), String> {
    let invalid = |why: String| format!("continue key is not valid: {why}");
    // Go does not look at bits that are left over.
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));
    let bytes = LENIENT.decode(token).map_err(|why| match why {
        base64::DecodeError::InvalidByte(at, _) => invalid(format!("illegal base64 data at input byte {at}")),
        // Go names the group of four that is not whole.
        _ => invalid(format!("illegal base64 data at input byte {}", token.len() / 4 * 4)),
    })?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| {
        let first = bytes.first().copied().unwrap_or_default() as char;
        let shown = if first.is_ascii_graphic() { first.to_string() } else { format!("\\u{:04x}", first as u32) };
        invalid(format!("invalid character '{shown}' looking for beginning of value"))
    })?;
    if value["v"] != json!("meta.k8s.io/v1") {
        let given = value["v"].as_str().unwrap_or_default();
        return Err(invalid(format!("server does not recognize this encoded version {given}")));
    }
    let revision = value["rv"].as_i64().unwrap_or(0);
    if revision == 0 {
        return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
    }
    let start = value["start"].as_str().unwrap_or_default();
    if start.is_empty() {
        return Err(invalid("encoded start key empty (version meta.k8s.io/v1)".into()));
    }
    // No key leads out of its collection.
    let mut parts = start.strip_prefix('/').unwrap_or(start).split('/');
    if parts.any(|part| matches!(part, "" | "." | "..")) {
        return Err(invalid(start.to_owned()));
    }
    Ok((revision, start.to_owned()))
}

/// The list as it goes over the wire: stored bytes, spliced.
fn stream_list(cx: &Cx<'_>, kind: &Kind, page: Page) -> http::Response<Body> {
    let (head, tail) = match kind.is_custom() {
        false => {
            let (kind, api_version) = (&kind.list_kind, kind.api_version());
            let head =
                format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{},"items":["#, page.metadata());
            (head, "]}\n".to_owned())
        }
        true => {
            let metadata = transform::custom_metadata(page.metadata());
            let tail = format!("],\"kind\":\"{}\",\"metadata\":{metadata}}}\n", kind.list_kind);
            (format!(r#"{{"apiVersion":"{}","items":["#, kind.api_version()), tail)
        }
    };
    let skip = if kind.is_custom() { 0 } else { type_prefix_bytes(kind) };
    let total: usize =
        head.len() + tail.len() + page.entries.iter().map(|e| e.json.len() + 2 - skip.min(e.json.len())).sum::<usize>();
    let zip = total >= respond::GZIP_BYTES_MIN && respond::takes_gzip(cx.headers);
    if total <= PIECE_BYTES {
        let mut pieces = Pieces { head, tail, entries: page.entries.into_iter(), skip, first: true, done: false };
        let bytes = pieces.next().unwrap_or_default();
        return respond::raw(200, Media::Json.content_type(), bytes);
    }
    let pieces = Pieces { head, tail, entries: page.entries.into_iter(), skip, first: true, done: false };
    let mut response = respond::raw(200, Media::Json.content_type(), Bytes::new());
    *response.body_mut() = match zip {
        false => StreamBody::new(stream::iter(pieces.map(|piece| Ok(Frame::data(piece))))).boxed_unsync(),
        true => {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            StreamBody::new(stream::iter(respond::Gzip::new(pieces).map(|piece| Ok(Frame::data(piece))))).boxed_unsync()
        }
    };
    response
}

/// Built-in lists leave `kind` and `apiVersion` out of their items; they are the first bytes of what is stored.
fn type_prefix_bytes(kind: &Kind) -> usize {
    format!(r#"{{"kind":"{}","apiVersion":"{}","#, kind.kind, kind.api_version()).len()
}

/// The pieces of a list's body, about [`PIECE_BYTES`] each.
struct Pieces {
    /// What is before the items and behind them; empty once it is sent.
    head: String,
    tail: String,
    entries: std::vec::IntoIter<Arc<Entry>>,
    skip: usize,
    first: bool,
    done: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        piece.extend_from_slice(std::mem::take(&mut self.head).as_bytes());
        while piece.len() < PIECE_BYTES {
            let Some(entry) = self.entries.next() else {
                piece.extend_from_slice(std::mem::take(&mut self.tail).as_bytes());
                self.done = true;
                break;
            };
            if !std::mem::take(&mut self.first) {
                piece.push(b',');
            }
            let [first, rest @ ..] = entry.json.parts();
            match self.skip {
                0 => piece.extend_from_slice(first),
                skip => {
                    piece.push(b'{');
                    piece.extend_from_slice(first.get(skip..).unwrap_or(b"}"));
                }
            }
            rest.iter().for_each(|part| piece.extend_from_slice(part));
        }
        Some(piece.into())
    }
}
