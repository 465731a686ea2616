//! Services. Addresses and node ports are given by the server.

use crate::{Behaviour, NameRule};

use super::{columns, rows};

pub static SERVICE: Behaviour = Behaviour {
    columns: columns::SERVICE,
    row: rows::service,
    selectable: &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")],
    name: NameRule::Label1035,
    has_status: true,
    create_on_update: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};
