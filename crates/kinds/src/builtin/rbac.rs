//! Roles and their bindings.

use crate::{Behaviour, NameRule};

use super::{columns, rows};

/// Roles are shown with `Created At`, as kinds without columns of their own.
const ROLE_LIKE: Behaviour = Behaviour { name: NameRule::PathSegment, create_on_update: true, ..Behaviour::PLAIN };

pub static ROLE: Behaviour = ROLE_LIKE;

pub static CLUSTER_ROLE: Behaviour = ROLE_LIKE;

pub static ROLE_BINDING: Behaviour =
    Behaviour { columns: columns::ROLE_BINDINGS, row: rows::role_binding, ..ROLE_LIKE };

pub static CLUSTER_ROLE_BINDING: Behaviour =
    Behaviour { columns: columns::CLUSTER_ROLE_BINDINGS, row: rows::role_binding, ..ROLE_LIKE };
