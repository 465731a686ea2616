//! Which form of an answer a client takes: the Accept header against what the server can make. Makes no answers itself.

use api::{Query, Status, go};
use http::{HeaderMap, header};

/// The media types in the order in which a 406 lists them.
pub const SUPPORTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What logs are.
const TEXT: &str = "text/plain";

/// The media types of watches.
const STREAMS: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// The form that was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accept {
    pub media: Media,
    pub pretty: bool,
    pub transform: Option<Transform>,
    pub include: Include,
}

/// An encoding of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What the server can make of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub tables: bool,
    pub protobuf: bool,
    /// The path is a collection's, which can be watched.
    pub streams: bool,
    /// It is watched: events are not made in YAML.
    pub watch: bool,
    /// The answer is a text, a log. Who takes nothing else is refused all the same: errors have no such form.
    pub text: bool,
}

/// `as=` of an Accept clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    Table(MetaVersion),
    PartialObjectMetadata(MetaVersion),
    PartialObjectMetadataList(MetaVersion),
}

/// The version of `meta.k8s.io` that the answer says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// `includeObject` of a Table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    #[default]
    Metadata,
    None,
    Object,
}

/// One clause of an Accept header, as ordered by preference.
#[derive(Debug)]
pub struct Clause<'a> {
    pub media: &'a str,
    pub parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// The clauses of the Accept header, the most wanted first; one for anything where there is no header.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let header = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut clauses: Vec<Clause> = header
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> =
                parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect();
            let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
            Clause { media, parameters, quality }
        })
        .filter(|clause| !clause.media.is_empty())
        .collect();
    if clauses.is_empty() {
        clauses.push(Clause { media: "*/*", parameters: Vec::new(), quality: 1.0 });
    }
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// The form of an object's or list's answer.
pub fn negotiate(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Accept, Status> {
    let mut known_media = false;
    for clause in clauses(headers) {
        let Some(media) = media(clause.media) else { continue };
        known_media = true;
        if media == Media::Yaml && offer.watch {
            return Err(Status::not_acceptable(STREAMS));
        }
        let transform = match transform(&clause) {
            // Cells of a table can be anything, for which there is no message.
            Ok(Some(Transform::Table(_))) if !offer.tables || media == Media::Protobuf => continue,
            Ok(transform) => transform,
            Err(()) => continue,
        };
        // Of what has no messages, the metadata has.
        let is_metadata =
            matches!(transform, Some(Transform::PartialObjectMetadata(_) | Transform::PartialObjectMetadataList(_)));
        if media == Media::Protobuf && !offer.protobuf && !is_metadata {
            continue;
        }
        let include = match (transform, query.get("includeObject")) {
            (_, Some("None")) => Include::None,
            (_, Some("Object")) => Include::Object,
            (Some(Transform::Table(_)), Some(other)) if !matches!(other, "" | "Metadata") => {
                return Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
                    go::quote(other)
                )));
            }
            _ => Include::Metadata,
        };
        let pretty = pretty(headers, query, clause.parameter("pretty") == "1");
        return Ok(Accept { media, pretty, transform, include });
    }
    let is_text = |clause: &Clause| offer.text && clause.media == TEXT;
    Err(match known_media || clauses(headers).iter().any(is_text) {
        // Protobuf is named even where there is none of it.
        true => Status::not_acceptable(SUPPORTED),
        false if offer.text => none_of(&format!("{TEXT}, {SUPPORTED}")),
        false if offer.streams => none_of(&format!("{SUPPORTED}, {STREAMS}")),
        false => none_of(SUPPORTED),
    })
}

/// The form of an answer that is no object of a kind, errors above all: what can be had, JSON where nothing can.
pub fn lenient(headers: &HeaderMap, query: &Query) -> Accept {
    let plain = |clause: &Clause| matches!(transform(clause), Ok(None));
    let taken = |clause: Clause| {
        // A form that protobuf does not have makes an error of it, told in JSON.
        let media = media(clause.media).filter(|media| *media != Media::Protobuf || plain(&clause))?;
        Some((media, clause.parameter("pretty") == "1"))
    };
    let found = clauses(headers).into_iter().find_map(taken);
    let (media, asked) = found.unwrap_or((Media::Json, true));
    Accept { media, pretty: pretty(headers, query, asked), ..Accept::default() }
}

/// A refusal of the router, which knows media types and nothing of what is asked for.
pub fn is_the_routers(status: &Status) -> bool {
    matches!(status.code, 406 | 415) && status.message.starts_with(&format!("{}: ", status.code))
}

/// The 406 for media types that nobody here knows.
fn none_of(supported: &str) -> Status {
    Status {
        details: Some(api::Details::default()),
        ..Status::failure(
            406,
            api::Reason::NotAcceptable,
            format!("406: Not Acceptable\n\nAvailable representations: {supported}"),
        )
    }
}

fn media(name: &str) -> Option<Media> {
    match name {
        "application/json" | "*/*" => Some(Media::Json),
        "application/yaml" => Some(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Some(Media::Protobuf),
        _ => None,
    }
}

fn transform(clause: &Clause) -> Result<Option<Transform>, ()> {
    let (form, group, version) = (clause.parameter("as"), clause.parameter("g"), clause.parameter("v"));
    if form.is_empty() {
        return if group.is_empty() && version.is_empty() { Ok(None) } else { Err(()) };
    }
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => MetaVersion::V1,
        ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
        _ => return Err(()),
    };
    match form {
        "Table" => Ok(Some(Transform::Table(version))),
        "PartialObjectMetadata" => Ok(Some(Transform::PartialObjectMetadata(version))),
        "PartialObjectMetadataList" => Ok(Some(Transform::PartialObjectMetadataList(version))),
        _ => Err(()),
    }
}

/// Whether JSON is indented: asked for, or asked from a person's tool without a word about it.
pub fn pretty(headers: &HeaderMap, query: &Query, clause_asks: bool) -> bool {
    match query.get("pretty") {
        Some(text) => go::parse_bool(text).unwrap_or(false),
        None if clause_asks => true,
        None => {
            let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            ["curl", "Wget", "Mozilla/"].iter().any(|start| agent.starts_with(start))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, want: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let offer = Offer { tables: true, protobuf: true, streams: false, watch: false, text: false };
        let got = match negotiate(&headers, &Query::default(), offer) {
            Ok(accept) => format!("{:?} {:?}", accept.media, accept.transform),
            Err(status) => status.message,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn the_first_clause_that_can_be_served_wins() {
        check("application/xml, application/json", "Json None");
        check("application/json;q=0.1, application/yaml;q=0.9", "Yaml None");
        check("application/json;as=Table;v=v2;g=meta.k8s.io,application/yaml", "Yaml None");
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Json Some(Table(V1))");
        check("application/vnd.kubernetes.protobuf, application/json", "Protobuf None");
        let text = format!("only the following media types are accepted: {SUPPORTED}");
        check("application/json;v=v1", &text);
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", &text);
        let text = format!("406: Not Acceptable\n\nAvailable representations: {SUPPORTED}");
        check("APPLICATION/JSON", &text);
    }
}
