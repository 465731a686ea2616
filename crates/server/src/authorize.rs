//! Whether the identity may do what it asks: the request's attributes, put to the authorizers. Looks at no object and no body.

use api::status::GroupResource;
use api::{Ask, Status};

use crate::audit::Trail;
use crate::authn::User;
use crate::authz::{Attributes, Decision, Hearing, Selecting};
use crate::documents;
use crate::state::State;

/// Why a request may not go on.
#[derive(Debug)]
pub enum Refused {
    Forbidden(Box<Status>),
    /// It could not be found out whether it may.
    Failed(String),
}

/// What the authorizers say; void where the hearing is open afterwards.
pub fn decide(state: &State, attributes: &Attributes<'_>, ask: &Ask, hearing: &Hearing) -> Decision {
    match ask.target.is_none() && documents::explains(&ask.path) {
        true => documents::authorize_explaining(state, attributes, hearing),
        false => state.authorizer.authorize(attributes, hearing),
    }
}

/// `Ok` when the request may go on.
///
/// # Errors
/// Why it may not.
pub fn conclude(state: &State, attributes: &Attributes<'_>, decision: &Decision, trail: &Trail) -> Result<(), Refused> {
    state.metrics.authorized(decision);
    // No rule about these paths gives the right to them: in a Role it would be of no use.
    if attributes.is_resource || !documents::explains(attributes.path) {
        state.usage.note(attributes, decision.is_allowed());
    }
    trail.authorized(decision);
    match decision.refusal() {
        _ if decision.is_allowed() => Ok(()),
        (reason, "") => Err(Refused::Forbidden(Box::new(attributes.forbidden(reason)))),
        (_, error) => Err(Refused::Failed(error.to_string())),
    }
}

/// What a WebSocket begins with a GET of is no less than what begins with a POST: who connects to a pod must be allowed to
/// create what it connects to. That right, where it is another one than the request's own.
pub fn creating<'a>(attributes: &Attributes<'a>) -> Option<Attributes<'a>> {
    const CREATE: &str = "create";
    let connects = attributes.resource == "pods" && matches!(attributes.subresource, "exec" | "attach" | "portforward");
    (connects && attributes.verb != CREATE).then_some(Attributes { verb: CREATE, ..*attributes })
}

/// `Ok` when a request that [`creating`] is about may go on.
///
/// # Errors
/// Why it may not.
pub fn conclude_creating(state: &State, attributes: &Attributes<'_>, decision: &Decision) -> Result<(), Status> {
    state.usage.note(attributes, decision.is_allowed());
    match decision.refusal() {
        _ if decision.is_allowed() => Ok(()),
        (reason, "") => {
            let of = GroupResource { group: attributes.group, resource: attributes.resource };
            Err(Status::forbidden(of, attributes.name, reason))
        }
        (_, error) => Err(Status::internal(error)),
    }
}

/// What authorizers look at.
pub fn attributes<'a>(user: &'a User, ask: &'a Ask) -> Attributes<'a> {
    let Some(target) = &ask.target else {
        return Attributes::path(user, ask.verb.as_str(), &ask.path);
    };
    let selects = matches!(ask.verb, api::Verb::List | api::Verb::Watch | api::Verb::DeleteCollection);
    Attributes {
        version: &target.version,
        subresource: &target.subresource,
        name: &target.name,
        namespace: &target.namespace,
        path: &ask.path,
        field_selector: Selecting::sent(ask.query.get("fieldSelector").filter(|_| selects)),
        label_selector: Selecting::sent(ask.query.get("labelSelector").filter(|_| selects)),
        ..Attributes::resource(user, ask.verb.as_str(), &target.group, &target.resource)
    }
}
