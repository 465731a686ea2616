//! Which form of a document a client takes. Documents have one form more than objects: the aggregated one.

use api::Status;
use http::{HeaderValue, Response, header};

use super::{Ask, Document};
use crate::accept::{self, Accept, Media};
use crate::respond::{self, Answer, Body};

/// Checks what the router of these paths checks before anything is made: only GET, and a media type that is made here.
pub(super) fn restful(ask: &Ask, makes: &str) -> Result<(), Status> {
    if ask.method != "GET" {
        return Err(Status::method_not_allowed());
    }
    let takes = |media: &str| media == "*/*" || makes.split(", ").any(|made| made == media);
    if accept::clauses(ask.headers).iter().any(|clause| takes(clause.media)) {
        return Ok(());
    }
    Err(Status {
        details: Some(api::Details::default()),
        ..Status::failure(
            406,
            api::Reason::NotAcceptable,
            format!("406: Not Acceptable\n\nAvailable representations: {makes}"),
        )
    })
}

/// The form of a plain document: a clause that asks for any other form is passed over.
pub(super) fn plain(ask: &Ask) -> Result<Accept, Status> {
    for clause in accept::clauses(ask.headers) {
        let transformed = ["as", "g", "v"].iter().any(|name| !clause.parameter(name).is_empty());
        if let Some(form) = form(ask, &clause).filter(|_| !transformed) {
            return Ok(form);
        }
    }
    Err(Status::not_acceptable(accept::SUPPORTED))
}

/// The form of an aggregated document, where any clause asks for one.
pub(super) fn aggregated(ask: &Ask) -> Option<Accept> {
    let aggregated = |clause: &accept::Clause| {
        [("as", "APIGroupDiscoveryList"), ("g", "apidiscovery.k8s.io"), ("v", "v2")]
            .iter()
            .all(|(name, value)| clause.parameter(name) == *value)
    };
    let clauses = accept::clauses(ask.headers);
    clauses.iter().filter(|clause| aggregated(clause)).find_map(|clause| form(ask, clause))
}

fn form(ask: &Ask, clause: &accept::Clause) -> Option<Accept> {
    let media = match clause.media {
        "application/json" | "*/*" => Media::Json,
        "application/yaml" => Media::Yaml,
        "application/vnd.kubernetes.protobuf" => Media::Protobuf,
        _ => return None,
    };
    let pretty = accept::pretty(ask.headers, ask.query, clause.parameter("pretty") == "1");
    Some(Accept { media, pretty, ..Accept::default() })
}

/// A plain document in its form.
pub(super) fn respond(document: &Document, form: Accept) -> Answer {
    Answer::Raw(encoded(document, form))
}

/// An aggregated document in its form, or word that the client has it already.
pub(super) fn respond_aggregated(ask: &Ask, document: &Document, form: Accept) -> Answer {
    let tag = super::quoted(&document.hash);
    // Weak tags and `*` do not match.
    let mut response = match ask.headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        true => super::empty(304),
        false => {
            let mut response = encoded(document, form);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(aggregated_type(form)));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Answer::Raw(response)
}

fn aggregated_type(form: Accept) -> &'static str {
    match form.media {
        Media::Json => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Media::Yaml => "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Media::Protobuf => "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    }
}

fn encoded(document: &Document, form: Accept) -> Response<Body> {
    match form {
        Accept { media: Media::Json, pretty: false, .. } => {
            respond::raw(200, "application/json", document.json.clone())
        }
        // The rarer forms are made from the one that is kept.
        accept => {
            let json = document.json.slice(..document.json.len() - 1);
            respond::respond(Answer::Encoded { code: 200, json }, accept)
        }
    }
}
