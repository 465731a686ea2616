//! Nodes and what describes the cluster around them: component states, runtime and priority classes, leases.

use crate::Behaviour;

use super::{columns, rows};

pub static COMPONENT_STATUS: Behaviour =
    Behaviour { columns: columns::COMPONENT_STATUS, row: rows::component_status, ..Behaviour::PLAIN };

pub static NODE: Behaviour = Behaviour {
    columns: columns::NODE,
    row: rows::node,
    selectable: &[("spec.unschedulable", "/spec/unschedulable")],
    has_status: true,
    ..Behaviour::PLAIN
};

pub static RUNTIME_CLASS: Behaviour = Behaviour {
    columns: columns::RUNTIME_CLASS,
    row: rows::runtime_class,
    create_on_update: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};

pub static PRIORITY_CLASS: Behaviour =
    Behaviour { columns: columns::PRIORITY_CLASS, row: rows::priority_class, has_generation: true, ..Behaviour::PLAIN };

pub static LEASE: Behaviour = Behaviour {
    columns: columns::LEASE,
    row: rows::lease,
    create_on_update: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};
