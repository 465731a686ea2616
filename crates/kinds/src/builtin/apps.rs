//! Workloads that keep pods running, and what scales and protects them.

use crate::Behaviour;

use super::{columns, rows};

pub static POD_TEMPLATE: Behaviour = Behaviour {
    columns: columns::POD_TEMPLATE,
    row: rows::pod_template,
    returns_deleted: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static REPLICATION_CONTROLLER: Behaviour = Behaviour {
    columns: columns::REPLICATION_CONTROLLER,
    row: rows::replication_controller,
    selectable: &[("status.replicas", "/status/replicas")],
    has_status: true,
    has_generation: true,
    orphan_by_default: true,
    ..Behaviour::PLAIN
};

pub static REPLICA_SET: Behaviour = Behaviour {
    columns: columns::REPLICA_SET,
    row: rows::replica_set,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static DEPLOYMENT: Behaviour = Behaviour {
    columns: columns::DEPLOYMENT,
    row: rows::deployment,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static STATEFUL_SET: Behaviour = Behaviour {
    columns: columns::STATEFUL_SET,
    row: rows::stateful_set,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static DAEMON_SET: Behaviour = Behaviour {
    columns: columns::DAEMON_SET,
    row: rows::daemon_set,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static CONTROLLER_REVISION: Behaviour =
    Behaviour { columns: columns::CONTROLLER_REVISION, row: rows::controller_revision, ..Behaviour::PLAIN };

pub static HORIZONTAL_POD_AUTOSCALER: Behaviour = Behaviour {
    columns: columns::HORIZONTAL_POD_AUTOSCALER,
    row: rows::horizontal_pod_autoscaler,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

/// The body of every `scale` subresource.
pub static SCALE: Behaviour = Behaviour { columns: columns::SCALE, row: rows::scale, ..Behaviour::PLAIN };

pub static POD_DISRUPTION_BUDGET: Behaviour = Behaviour {
    columns: columns::POD_DISRUPTION_BUDGET,
    row: rows::pod_disruption_budget,
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};
