//! What adds kinds to the server: custom resource definitions and API services.

use crate::Behaviour;

use super::{columns, rows};

pub static CUSTOM_RESOURCE_DEFINITION: Behaviour = Behaviour {
    columns: columns::CUSTOM_RESOURCE_DEFINITION,
    row: rows::custom_resource_definition,
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};

pub static API_SERVICE: Behaviour = Behaviour {
    columns: columns::API_SERVICE,
    row: rows::api_service,
    has_status: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};
