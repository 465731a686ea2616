//! Namespaces.

use crate::{Behaviour, NameRule};

use super::{columns, rows};

pub static NAMESPACE: Behaviour = Behaviour {
    columns: columns::NAMESPACE,
    row: rows::namespace,
    selectable: &[("status.phase", "/status/phase")],
    name: NameRule::Label,
    has_status: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};
