//! Whether the identity may do what it asks: the request's attributes, put to the authorizers. Looks at no object and no body.

use api::status::GroupResource;
use api::{Ask, Status};

use crate::audit::Trail;
use crate::authn::User;
use crate::authz::{Attributes, Decision};
use crate::documents;
use crate::state::State;

/// `Ok` when the request may go on.
pub fn authorize(state: &State, user: &User, ask: &Ask, trail: &Trail) -> Result<(), Status> {
    let attributes = attributes(user, ask);
    let decision = match ask.target.is_none() && documents::explains(&ask.path) {
        true => documents::authorize_explaining(state, &attributes),
        false => state.authorizer.authorize(&attributes),
    };
    state.metrics.authorized(decision.is_allowed());
    state.usage.note(&attributes, decision.is_allowed());
    trail.authorized(&decision);
    match decision {
        Decision::Allow { .. } => Ok(()),
        Decision::NoOpinion { reason } | Decision::Deny { reason } => Err(attributes.forbidden(&reason)),
    }
}

/// What a WebSocket begins with a GET of is no less than what begins with a POST: who connects to a pod must be allowed to
/// create what it connects to.
pub fn authorize_connection(state: &State, user: &User, ask: &Ask) -> Result<(), Status> {
    const CREATE: &str = "create";
    let attributes = attributes(user, ask);
    let connects = attributes.resource == "pods" && matches!(attributes.subresource, "exec" | "attach" | "portforward");
    if !connects || attributes.verb == CREATE {
        return Ok(());
    }
    match state.authorizer.authorize(&Attributes { verb: CREATE, ..attributes }) {
        Decision::Allow { .. } => Ok(()),
        Decision::NoOpinion { reason } | Decision::Deny { reason } => {
            let of = GroupResource { group: attributes.group, resource: attributes.resource };
            Err(Status::forbidden(of, attributes.name, reason))
        }
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
        field_selector: ask.query.get("fieldSelector").filter(|_| selects),
        label_selector: ask.query.get("labelSelector").filter(|_| selects),
        ..Attributes::resource(user, ask.verb.as_str(), &target.group, &target.resource)
    }
}
