//! The verbs on resources. `answer` is the switchboard; each family of verbs is a file of its own.

mod admin_access;
pub mod body;
mod connect;
mod delete;
mod json_patch;
mod list;
mod patch;
mod proxy;
mod read;
mod scale;
mod subresource;
mod watch;
pub mod write;

use std::sync::Arc;

use api::status::GroupResource;
use api::{Ask, Status, Target, Verb};
use kinds::Kind;
use serde_json::Value;

use crate::accept::{Accept, Offer, Transform};
use crate::objects::Entry;
use crate::respond::Answer;
use crate::serve::{Cx, RequestBody};

/// The forms that the answer can be asked for in; none where somebody else answers.
pub fn forms(kind: &Kind, ask: &Ask, target: &Target) -> Option<Offer> {
    let text = target.subresource == "log";
    // Only what can be read has columns: questions are answered and gone.
    let tables = match target.subresource.as_str() {
        "exec" | "attach" | "portforward" | "proxy" => return None,
        "log" => false,
        "" => kind.has_verb("get") || kind.has_verb("list"),
        name => {
            let is_read = kind.subresource(name).is_some_and(|sub| sub.verbs.iter().any(|verb| &**verb == "get"));
            is_read && !kind.behaviour.without_tables.contains(&name)
        }
    };
    let streams = ask.method == "GET" && matches!(ask.verb, Verb::List | Verb::Watch);
    Some(Offer { tables, protobuf: !kind.is_custom(), streams, watch: ask.verb == Verb::Watch, text })
}

/// Answers a request for a kind, its method and path already checked.
pub async fn answer(
    cx: &Cx<'_>,
    target: &Target,
    kind: &Arc<Kind>,
    body: RequestBody,
    warnings: &mut Vec<String>,
) -> Result<Answer, Status> {
    let at = At { kind, target };
    if !target.subresource.is_empty() {
        return subresource::answer(cx, &at, body, warnings).await;
    }
    match &cx.ask.verb {
        Verb::Get => read::get(cx, &at).await,
        Verb::List => list::list(cx, &at).await,
        Verb::Watch => watch::watch(cx, &at),
        Verb::Create => write::create(cx, &at, body, warnings).await,
        Verb::Update => write::update(cx, &at, body, warnings).await,
        Verb::Patch => patch::patch(cx, &at, body, warnings).await,
        Verb::Delete => delete::delete(cx, &at, body, warnings).await,
        Verb::DeleteCollection => delete::delete_collection(cx, &at, body, warnings).await,
        Verb::Other(_) => Err(Status::method_not_allowed()),
    }
}

/// What a request is about.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub kind: &'a Arc<Kind>,
    pub target: &'a Target,
}

impl<'a> At<'a> {
    pub fn group_resource(&self) -> GroupResource<'a> {
        GroupResource { group: &self.kind.group, resource: &self.kind.plural }
    }

    /// `""` for cluster-scoped kinds, whatever the path says.
    pub fn namespace(&self) -> &'a str {
        if self.kind.namespaced { &self.target.namespace } else { "" }
    }

    pub fn key(&self) -> String {
        crate::objects::key(self.namespace(), &self.target.name)
    }

    /// Names that cannot be part of a path are refused before anything is looked up.
    pub fn check_name(&self) -> Result<(), Status> {
        let name = self.target.name.as_str();
        let why = match name {
            "." => "may not be '.'",
            ".." => "may not be '..'",
            _ if name.contains('%') => "may not contain '%'",
            _ if name.contains('/') => "may not contain '/'",
            _ => return Ok(()),
        };
        Err(Status::bad_request(format!("Name parameter invalid: {}: {why}", api::go::quote(name))))
    }

    /// An object out of its collection, as this kind has it.
    pub fn value(&self, entry: &Entry) -> Value {
        match self.kind.shows_stored(entry.revision) {
            true => entry.value(),
            false => self.kind.from_kept(entry.value()),
        }
    }

    /// An object as [`transform`](crate::transform) wants it: rows are made of what is kept, which another version may
    /// not tell as it is.
    pub fn shown(&self, entry: &Entry, accept: Accept) -> Value {
        match accept.transform {
            Some(Transform::Table(_)) if !self.kind.is_custom() => entry.value(),
            _ => self.value(entry),
        }
    }

    /// Notes what a client sent, with the defaults that decoding gives it upstream.
    pub fn note(&self, cx: &Cx<'_>, object: &Value) {
        cx.audit.object(object, |mut object| {
            self.kind.default(&mut object);
            // What was decoded can be written again.
            self.kind.tidy(object).unwrap_or_default()
        });
    }

    pub fn not_found(&self) -> Status {
        let status = Status::not_found(self.group_resource(), &self.target.name);
        match self.target.odd_name.as_slice() {
            [] => status,
            sent => {
                let text = format!("{} {} not found", self.group_resource(), api::go::quote_bytes(sent));
                Status { message: text, ..status }
            }
        }
    }
}
