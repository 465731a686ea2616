//! API priority and fairness.

use crate::Behaviour;

use super::{columns, rows};

pub static FLOW_SCHEMA: Behaviour = Behaviour {
    columns: columns::FLOW_SCHEMA,
    row: rows::flow_schema,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static PRIORITY_LEVEL: Behaviour = Behaviour {
    columns: columns::PRIORITY_LEVEL,
    row: rows::priority_level,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};
