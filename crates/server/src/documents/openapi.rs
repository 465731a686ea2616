//! OpenAPI: the index of v3, its document of each group and version, and the one of v2. Makes none of them itself: they
//! come from the tables in `kinds`. Bodies are large and seldom asked for, so few are kept; their hashes always are.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use api::codec;
use bytes::Bytes;
use http::{HeaderValue, header};
use jiff::{SignedDuration, Timestamp};
use kinds::{GroupVersion, Registry, openapi};
use serde_json::{Value, json};

use super::{Ask, Document, Made, content, empty, gzip, lock, sha512};
use crate::accept;
use crate::respond::{self, Answer};

/// Documents that are kept of one registry value; the one that was not asked for longest goes first.
const KEPT_MAX: usize = 4;

/// `/openapi/v2`: any method.
pub(super) fn v2(ask: &Ask, made: &Arc<Made>) -> Answer {
    let mut response = match form(ask, &V2) {
        None => empty(406),
        Some(form) => {
            let document = made.openapi.get_or_make("v2", || openapi::v2(&made.registry));
            let bytes = document.bytes(form);
            let gzipped = respond::takes_gzip(ask.headers);
            let bytes = if gzipped { gzip(&bytes) } else { bytes };
            let mut response = content::serve(ask.headers, form.media, &document.hash, document.made, &bytes);
            if gzipped && response.status() != 304 {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    Answer::Raw(response)
}

/// `/openapi/v3`: where each document is, with the hash of what it says now. JSON whatever is asked, and its content
/// type says text, as with Kubernetes.
pub(super) fn index(ask: &Ask, made: &Arc<Made>) -> Answer {
    let document = made.document("openapi/v3".into(), || {
        let paths: BTreeMap<String, Value> = openapi::v3_paths(&made.registry)
            .into_iter()
            .map(|name| {
                let hash = hash(made, &name);
                let url = format!("/openapi/v3/{name}?hash={hash}");
                (name, json!({ "serverRelativeURL": url }))
            })
            .collect();
        Document { json: codec::to_json(&json!({ "paths": paths })).into(), hash: String::new() }
    });
    Answer::Raw(content::serve(ask.headers, "text/plain; charset=utf-8", "", made.since, &document.json))
}

/// `/openapi/v3/NAME`: any method.
pub(super) fn v3(ask: &Ask, made: &Arc<Made>, name: &str) -> Answer {
    if Origin::of(&made.registry, name).is_none() {
        return Answer::Raw(empty(404));
    }
    let Some(form) = form(ask, &V3) else {
        let mut response = empty(406);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        return Answer::Raw(response);
    };
    let body = body(made, name);
    let asked_hash = ask.query.get("hash").unwrap_or_default();
    let mut response = match asked_hash.is_empty() || asked_hash == body.hash {
        true => content::serve(ask.headers, form.media, &body.hash, body.made, &body.bytes(form)),
        false => {
            let mut response = respond::raw(301, form.media, Bytes::new());
            if let Ok(location) = HeaderValue::from_str(&format!("/openapi/v3/{name}?hash={}", body.hash)) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response.headers_mut().insert(header::ETAG, super::quoted(&body.hash));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if asked_hash == body.hash {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        headers.insert(header::EXPIRES, content::date(in_a_year()));
    }
    Answer::Raw(response)
}

/// A form that documents are made in.
#[derive(Clone, Copy)]
struct Form {
    media: &'static str,
    /// Encodes the document; `None` for JSON, in which it is made.
    encode: Option<fn(&Value) -> Vec<u8>>,
}

/// The forms of one version of OpenAPI: what a client may call it, and what it is. The first is what any is.
type Forms = [(&'static str, Form); 3];

const JSON: Form = Form { media: "application/json", encode: None };

const V2: Forms = {
    let protobuf = Form {
        media: "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        encode: Some(openapi::protobuf::v2),
    };
    [
        (JSON.media, JSON),
        (protobuf.media, protobuf),
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", protobuf),
    ]
};

const V3: Forms = {
    let protobuf = Form {
        media: "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        encode: Some(openapi::protobuf::v3),
    };
    [
        (JSON.media, JSON),
        (protobuf.media, protobuf),
        ("application/com.github.proto-openapi.spec.v3@v1.0+protobuf", protobuf),
    ]
};

/// The form that a client takes, the most wanted one first.
fn form(ask: &Ask, forms: &Forms) -> Option<Form> {
    let clauses = accept::clauses(ask.headers);
    clauses.iter().find_map(|clause| {
        let takes = |media: &str| matches!(clause.media, "*/*" | "application/*") || clause.media == media;
        let json = clause.media == "*/json";
        forms.iter().find(|(media, _)| takes(media) || json).map(|(_, form)| *form)
    })
}

fn in_a_year() -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(SignedDuration::from_hours(365 * 24)).unwrap_or(now)
}

/// What a document is made from: as long as it is the same value, so is the document.
#[derive(Clone)]
pub(super) enum Origin {
    /// Nothing but the path.
    Path,
    Version(Arc<GroupVersion>),
}

impl Origin {
    fn of(registry: &Registry, name: &str) -> Option<Origin> {
        let version =
            |group: &str, version: &str| registry.group(group)?.version(version).cloned().map(Origin::Version);
        match name.split('/').collect::<Vec<_>>().as_slice() {
            ["api", served] => version("", served),
            ["apis", group, served] if !group.is_empty() => version(group, served),
            _ => openapi::v3_paths(registry).iter().any(|path| path == name).then_some(Origin::Path),
        }
    }

    fn is(&self, other: &Origin) -> bool {
        match (self, other) {
            (Origin::Path, Origin::Path) => true,
            (Origin::Version(a), Origin::Version(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The hashes of v3 documents by name. They outlive a registry value, so that a new kind costs one new document and not
/// all of them; there are as many as names were ever served.
pub(super) type Hashes = Mutex<HashMap<String, (Origin, String)>>;

fn hash(made: &Made, name: &str) -> String {
    let Some(origin) = Origin::of(&made.registry, name) else { return String::new() };
    let known = lock(&made.hashes).get(name).filter(|(of, _)| of.is(&origin)).map(|(_, hash)| hash.clone());
    known.unwrap_or_else(|| body(made, name).hash.clone())
}

fn body(made: &Made, name: &str) -> Arc<OpenApi> {
    let body = made.openapi.get_or_make(name, || openapi::v3(&made.registry, name).unwrap_or_default());
    if let Some(origin) = Origin::of(&made.registry, name) {
        lock(&made.hashes).insert(name.to_owned(), (origin, body.hash.clone()));
    }
    body
}

/// The documents that were asked for last, the newest at the end.
#[derive(Default)]
pub(super) struct Kept(Mutex<VecDeque<(String, Arc<OpenApi>)>>);

/// One OpenAPI document, encoded.
struct OpenApi {
    json: Bytes,
    /// The same in its other form, made when somebody first asks for it.
    protobuf: OnceLock<Bytes>,
    /// Of the JSON, whatever the form: clients keep the forms apart.
    hash: String,
    made: Timestamp,
}

impl OpenApi {
    fn bytes(&self, form: Form) -> Bytes {
        let Some(encode) = form.encode else { return self.json.clone() };
        // What was encoded here decodes.
        let encoded = || encode(&serde_json::from_slice(&self.json).unwrap_or_default()).into();
        self.protobuf.get_or_init(encoded).clone()
    }
}

impl Kept {
    /// Documents are made one at a time: whoever asks for another meanwhile waits.
    fn get_or_make(&self, name: &str, make: impl FnOnce() -> Value) -> Arc<OpenApi> {
        let mut kept = lock(&self.0);
        let found = kept.iter().position(|(key, _)| key == name).and_then(|at| kept.remove(at));
        let entry = found.unwrap_or_else(|| {
            let mut document = make();
            openapi::describe(&mut document, |name, field| match field {
                "" => descriptions::of_type(name),
                field => descriptions::of_field(name, field),
            });
            let json = codec::to_json(&document);
            let hash = sha512(&json);
            (
                name.to_owned(),
                Arc::new(OpenApi { json: json.into(), protobuf: OnceLock::new(), hash, made: Timestamp::now() }),
            )
        });
        let document = entry.1.clone();
        kept.push_back(entry);
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
        document
    }
}
