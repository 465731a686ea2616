//! Whether the identity may do what it asks: the request's attributes, put to the authorizers. Looks at no object and no body.

use api::{Ask, Status};

use crate::authn::User;
use crate::authz::Attributes;
use crate::documents;
use crate::state::State;

/// `Ok` when the request may go on.
pub fn authorize(state: &State, user: &User, ask: &Ask) -> Result<(), Status> {
    let attributes = attributes(user, ask);
    let decided = match ask.target.is_none() && documents::explains(&ask.path) {
        true => documents::authorize_explaining(state, &attributes),
        false => state.authorizer.require(&attributes).map(|_| ()),
    };
    state.metrics.authorized(decided.is_ok());
    state.usage.note(&attributes, decided.is_ok());
    decided
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
