//! The addresses behind services: endpoints and endpoint slices.

use crate::Behaviour;

use super::{columns, rows};

pub static ENDPOINTS: Behaviour =
    Behaviour { columns: columns::ENDPOINT, row: rows::endpoints, create_on_update: true, ..Behaviour::PLAIN };

pub static ENDPOINT_SLICE: Behaviour =
    Behaviour { columns: columns::ENDPOINT_SLICE, row: rows::endpoint_slice, has_generation: true, ..Behaviour::PLAIN };
