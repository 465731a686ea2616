//! What is served at paths that are no resource's: discovery, OpenAPI, health, version, metrics. Reads no object (but the
//! roles and bindings that `explain` explains) and changes nothing. Documents are made when somebody first asks and kept as long as the kinds stay as they are.

mod content;
mod discovery;
mod explain;
mod health;
mod negotiate;
mod openapi;
mod root;
mod version;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use api::{Query, Status, codec};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use jiff::Timestamp;
use kinds::Registry;
use serde_json::Value;

use crate::oidc;
use crate::respond::{self, Answer, Body};
use crate::serve::Cx;
use crate::state::State;

/// Answers a request whose path names no resource.
pub fn answer(cx: &Cx<'_>) -> Result<Answer, Status> {
    let ask = Ask { method: &cx.ask.method, path: &cx.ask.path, headers: cx.headers, query: &cx.ask.query };
    if explain::is_at(ask.path) {
        return explain::answer(cx);
    }
    if ask.path == "/metrics" {
        return Ok(compressed(&ask, cx.state.metrics.text(cx.state), crate::metrics::CONTENT_TYPE));
    }
    if let Some(document) = oidc::Document::at(ask.path).filter(|_| oidc::is_served(&cx.state.options.issuer)) {
        return token_issuer(&ask, cx.state, document);
    }
    let signs = health::Signs { store: cx.state.objects.failure(), stopping: cx.state.draining.is_cancelled() };
    let registry = cx.state.registry.load_full();
    route(&ask, &cx.state.documents.of(&registry), cx.state.options.advertise, &signs)
}

pub(crate) use explain::{authorize as authorize_explaining, is_at as explains};
pub(crate) use version::info as version_info;

/// What nothing is served at, outside of the API groups.
pub fn not_found_text() -> Answer {
    let mut response = respond::raw(404, "text/plain; charset=utf-8", "404 page not found\n");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Answer::Raw(response)
}

/// The part of a request that chooses a document.
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a HeaderMap,
    query: &'a Query,
}

/// The documents that need no more than the kinds, and health.
fn route(ask: &Ask, made: &Arc<Made>, advertise: SocketAddr, signs: &health::Signs) -> Result<Answer, Status> {
    match ask.path {
        "/" | "/index.html" => return Ok(root::paths(&made.registry)),
        "/openapi/v2" => return Ok(openapi::v2(ask, made)),
        "/openapi/v3" => return Ok(openapi::index(ask, made)),
        _ => {}
    }
    if let Some(document) = ask.path.strip_prefix("/openapi/v3/") {
        return Ok(openapi::v3(ask, made, document));
    }
    if let Some(endpoint) = health::Endpoint::at(ask.path) {
        return Ok(endpoint.answer(ask, signs).unwrap_or_else(not_found_text));
    }
    let steps: Vec<&str> = ask.path.trim_end_matches('/').split('/').skip(1).collect();
    match steps.as_slice() {
        ["version"] => version::answer(ask),
        ["version", ..] => Err(Status::no_such_path()),
        ["api"] => discovery::core(ask, made, advertise),
        ["api", version] => discovery::resources(ask, made, "", version),
        // With a slash at the end it is another handler, which never aggregates.
        ["apis"] => discovery::groups(ask, made, ask.path == "/apis"),
        ["apis", group] if !group.is_empty() => discovery::group(ask, made, group),
        ["apis", group, version] if !group.is_empty() => discovery::resources(ask, made, group, version),
        _ => Ok(not_found_text()),
    }
}

/// What lets others verify this cluster's tokens.
fn token_issuer(ask: &Ask, state: &State, document: oidc::Document) -> Result<Answer, Status> {
    negotiate::restful(ask, document.media_type())?;
    let keys_uri = format!("https://{}/openid/v1/jwks", state.options.advertise);
    let body = document.body(&state.options.issuer, &keys_uri, &state.pki.keys.load());
    let mut response = respond::raw(200, document.media_type(), codec::to_json(&body));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(oidc::CACHE_CONTROL));
    Ok(Answer::Raw(response))
}

/// A text that is compressed for clients that take it, whatever its size.
fn compressed(ask: &Ask, text: impl Into<Bytes>, media: &'static str) -> Answer {
    let text = text.into();
    if !respond::takes_gzip(ask.headers) {
        return Answer::Raw(respond::raw(200, media, text));
    }
    let mut response = respond::raw(200, media, gzip(&text));
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Answer::Raw(response)
}

fn gzip(bytes: &Bytes) -> Bytes {
    let pieces: Vec<u8> = respond::Gzip::new(std::iter::once(bytes.clone())).flatten().collect();
    pieces.into()
}

/// The documents of the kinds as they are now.
#[derive(Default)]
pub struct Documents {
    current: ArcSwapOption<Made>,
    hashes: Arc<openapi::Hashes>,
}

/// The documents of one registry value.
struct Made {
    registry: Arc<Registry>,
    /// By path and form. There are as many as the registry has groups and versions.
    documents: Mutex<HashMap<String, Arc<OnceLock<Arc<Document>>>>>,
    openapi: openapi::Kept,
    /// When these documents came to be.
    since: Timestamp,
    hashes: Arc<openapi::Hashes>,
}

/// One document, encoded once.
struct Document {
    /// Compact JSON with the newline that ends it.
    json: Bytes,
    /// SHA-512 of the content without `kind` and `apiVersion`, in capital hexadecimal digits; `""` for a document that
    /// has no entity tag.
    hash: String,
}

impl Documents {
    fn of(&self, registry: &Arc<Registry>) -> Arc<Made> {
        if let Some(made) = self.current.load_full().filter(|made| Arc::ptr_eq(&made.registry, registry)) {
            return made;
        }
        let made = Arc::new(Made {
            registry: registry.clone(),
            documents: Mutex::default(),
            openapi: openapi::Kept::default(),
            since: Timestamp::now(),
            hashes: self.hashes.clone(),
        });
        self.current.store(Some(made.clone()));
        made
    }
}

impl Made {
    /// A document by a key of its own, made by the first who asks; others who ask meanwhile wait for it.
    fn document(&self, key: String, make: impl FnOnce() -> Document) -> Arc<Document> {
        let cell = lock(&self.documents).entry(key).or_default().clone();
        cell.get_or_init(|| Arc::new(make())).clone()
    }
}

impl Document {
    fn plain(value: &Value) -> Document {
        let mut json = codec::to_json(value);
        json.push(b'\n');
        Document { json: json.into(), hash: String::new() }
    }

    fn tagged(mut value: Value) -> Document {
        let document = Document::plain(&value);
        if let Some(root) = value.as_object_mut() {
            root.shift_remove("kind");
            root.shift_remove("apiVersion");
        }
        Document { hash: sha512(&codec::to_json(&value)), ..document }
    }
}

fn sha512(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn quoted(hash: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn empty(code: u16) -> Response<Body> {
    respond::raw(code, "", Bytes::new())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
