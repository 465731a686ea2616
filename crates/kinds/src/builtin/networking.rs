//! Ingresses, network policies and the addresses of services.

use crate::Behaviour;

use super::{columns, rows};

pub static INGRESS: Behaviour = Behaviour {
    columns: columns::INGRESS,
    row: rows::ingress,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static INGRESS_CLASS: Behaviour =
    Behaviour { columns: columns::INGRESS_CLASS, row: rows::ingress_class, has_generation: true, ..Behaviour::PLAIN };

pub static NETWORK_POLICY: Behaviour =
    Behaviour { columns: columns::NETWORK_POLICY, row: rows::network_policy, has_generation: true, ..Behaviour::PLAIN };

pub static IP_ADDRESS: Behaviour =
    Behaviour { columns: columns::IP_ADDRESS, row: rows::ip_address, ..Behaviour::PLAIN };

pub static SERVICE_CIDR: Behaviour =
    Behaviour { columns: columns::SERVICE_CIDR, row: rows::service_cidr, has_status: true, ..Behaviour::PLAIN };
