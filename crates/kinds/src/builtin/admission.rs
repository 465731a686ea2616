//! Webhooks and policies of admission.

use crate::Behaviour;

use super::{columns, rows};

const REGISTRATION: Behaviour = Behaviour { has_generation: true, unconditional_update: false, ..Behaviour::PLAIN };

pub static MUTATING_WEBHOOKS: Behaviour =
    Behaviour { columns: columns::MUTATING_WEBHOOK, row: rows::webhooks, ..REGISTRATION };

pub static VALIDATING_WEBHOOKS: Behaviour =
    Behaviour { columns: columns::VALIDATING_WEBHOOK, row: rows::webhooks, ..REGISTRATION };

pub static VALIDATING_POLICY: Behaviour = Behaviour {
    columns: columns::VALIDATING_ADMISSION_POLICY,
    row: rows::validating_admission_policy,
    has_status: true,
    ..REGISTRATION
};

pub static VALIDATING_BINDING: Behaviour = Behaviour {
    columns: columns::VALIDATING_ADMISSION_POLICY_BINDING,
    row: rows::admission_policy_binding,
    ..REGISTRATION
};

pub static MUTATING_POLICY: Behaviour =
    Behaviour { columns: columns::MUTATING_ADMISSION_POLICY, row: rows::mutating_admission_policy, ..REGISTRATION };

pub static MUTATING_BINDING: Behaviour = Behaviour {
    columns: columns::MUTATING_ADMISSION_POLICY_BINDING,
    row: rows::admission_policy_binding,
    ..REGISTRATION
};
