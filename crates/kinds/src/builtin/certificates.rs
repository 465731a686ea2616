//! Certificate signing requests, trust bundles and pod certificates.

use crate::Behaviour;

use super::{columns, rows};

pub static CERTIFICATE_SIGNING_REQUEST: Behaviour = Behaviour {
    columns: columns::CERTIFICATE_SIGNING_REQUEST,
    row: rows::certificate_signing_request,
    selectable: &[("spec.signerName", "/spec/signerName")],
    has_status: true,
    ..Behaviour::PLAIN
};

pub static CLUSTER_TRUST_BUNDLE: Behaviour = Behaviour {
    columns: columns::CLUSTER_TRUST_BUNDLE,
    row: rows::cluster_trust_bundle,
    selectable: &[("spec.signerName", "/spec/signerName")],
    unconditional_update: false,
    ..Behaviour::PLAIN
};

pub static POD_CERTIFICATE_REQUEST: Behaviour = Behaviour {
    columns: columns::POD_CERTIFICATE_REQUEST,
    row: rows::pod_certificate_request,
    selectable: &[
        ("spec.signerName", "/spec/signerName"),
        ("spec.podName", "/spec/podName"),
        ("spec.nodeName", "/spec/nodeName"),
    ],
    has_status: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};
