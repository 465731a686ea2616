//! Jobs and cron jobs.

use crate::Behaviour;

use super::{columns, rows};

pub static JOB: Behaviour = Behaviour {
    columns: columns::JOB,
    row: rows::job,
    selectable: &[("status.successful", "/status/succeeded")],
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static CRON_JOB: Behaviour = Behaviour {
    columns: columns::CRON_JOB,
    row: rows::cron_job,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};
