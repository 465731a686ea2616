//! Storage classes, drivers and attachments, and the migration of what is stored.

use crate::Behaviour;

use super::{columns, rows};

pub static STORAGE_CLASS: Behaviour =
    Behaviour { columns: columns::STORAGE_CLASS, row: rows::storage_class, returns_deleted: true, ..Behaviour::PLAIN };

pub static VOLUME_ATTRIBUTES_CLASS: Behaviour = Behaviour {
    columns: columns::VOLUME_ATTRIBUTES_CLASS,
    row: rows::volume_attributes_class,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static VOLUME_ATTACHMENT: Behaviour = Behaviour {
    columns: columns::VOLUME_ATTACHMENT,
    row: rows::volume_attachment,
    has_status: true,
    unconditional_update: false,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static CSI_DRIVER: Behaviour = Behaviour {
    columns: columns::CSI_DRIVER,
    row: rows::csi_driver,
    unconditional_update: false,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static CSI_NODE: Behaviour = Behaviour {
    columns: columns::CSI_NODE,
    row: rows::csi_node,
    unconditional_update: false,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static CSI_STORAGE_CAPACITY: Behaviour = Behaviour {
    columns: columns::CSI_STORAGE_CAPACITY,
    row: rows::csi_storage_capacity,
    unconditional_update: false,
    ..Behaviour::PLAIN
};

pub static STORAGE_VERSION_MIGRATION: Behaviour = Behaviour {
    columns: columns::STORAGE_VERSION_MIGRATION,
    row: rows::storage_version_migration,
    has_status: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};
