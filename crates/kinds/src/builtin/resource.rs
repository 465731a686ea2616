//! Devices and claims for them.

use crate::Behaviour;

use super::{columns, rows};

pub static DEVICE_CLASS: Behaviour = Behaviour {
    columns: columns::DEVICE_CLASS,
    row: rows::name_age,
    has_generation: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_CLAIM: Behaviour = Behaviour {
    columns: columns::RESOURCE_CLAIM,
    row: rows::resource_claim,
    has_status: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_CLAIM_TEMPLATE: Behaviour = Behaviour {
    columns: columns::RESOURCE_CLAIM_TEMPLATE,
    row: rows::name_age,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_SLICE: Behaviour = Behaviour {
    columns: columns::NODE_RESOURCE_SLICE,
    row: rows::resource_slice,
    selectable: &[
        ("spec.nodeName", "/spec/nodeName"),
        ("spec.driver", "/spec/driver"),
        ("spec.pool.name", "/spec/pool/name"),
    ],
    has_generation: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static DEVICE_TAINT_RULE: Behaviour = Behaviour {
    columns: columns::DEVICE_TAINT,
    row: rows::device_taint_rule,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};
