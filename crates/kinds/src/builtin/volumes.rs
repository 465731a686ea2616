//! Persistent volumes and the claims for them.

use crate::Behaviour;

use super::{columns, rows};

pub static PERSISTENT_VOLUME: Behaviour = Behaviour {
    columns: columns::PERSISTENT_VOLUME,
    row: rows::persistent_volume,
    returns_deleted: true,
    has_status: true,
    ..Behaviour::PLAIN
};

pub static PERSISTENT_VOLUME_CLAIM: Behaviour = Behaviour {
    columns: columns::PERSISTENT_VOLUME_CLAIM,
    row: rows::persistent_volume_claim,
    returns_deleted: true,
    has_status: true,
    ..Behaviour::PLAIN
};
