//! Whether the identity may do what it asks: the request's attributes, put to the authorizers. Looks at no object and no body.

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
        // No rule about the path gives this right: in a Role it would be of no use.
        true => documents::authorize_explaining(state, &attributes),
        false => {
            let decision = state.authorizer.authorize(&attributes);
            state.usage.note(&attributes, decision.is_allowed());
            decision
        }
    };
    state.metrics.authorized(decision.is_allowed());
    trail.authorized(&decision);
    match decision {
        Decision::Allow { .. } => Ok(()),
        Decision::NoOpinion { reason } | Decision::Deny { reason } => Err(attributes.forbidden(&reason)),
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
