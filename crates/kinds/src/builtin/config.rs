//! What is handed to pods: config maps, secrets, service accounts.

use crate::Behaviour;

use super::{columns, rows};

pub static CONFIG_MAP: Behaviour =
    Behaviour { columns: columns::CONFIG_MAP, row: rows::config_map, ..Behaviour::PLAIN };

pub static SECRET: Behaviour =
    Behaviour { columns: columns::SECRET, row: rows::secret, selectable: &[("type", "/type")], ..Behaviour::PLAIN };

pub static SERVICE_ACCOUNT: Behaviour =
    Behaviour { columns: columns::SERVICE_ACCOUNT, row: rows::name_age, returns_deleted: true, ..Behaviour::PLAIN };
