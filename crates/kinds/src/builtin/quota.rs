//! What a namespace may use: limit ranges and resource quotas.

use crate::Behaviour;

use super::{columns, rows};

/// Shown with `Created At`, as kinds without columns of their own.
pub static LIMIT_RANGE: Behaviour = Behaviour { create_on_update: true, ..Behaviour::PLAIN };

pub static RESOURCE_QUOTA: Behaviour = Behaviour {
    columns: columns::RESOURCE_QUOTA,
    row: rows::resource_quota,
    returns_deleted: true,
    has_status: true,
    ..Behaviour::PLAIN
};
