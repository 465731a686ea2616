//! Pods.

use crate::Behaviour;

use super::{columns, pod_row};

pub static POD: Behaviour = Behaviour {
    columns: columns::POD,
    row: pod_row::row,
    row_conditions: pod_row::row_conditions,
    selectable: &[
        ("spec.nodeName", "/spec/nodeName"),
        ("spec.restartPolicy", "/spec/restartPolicy"),
        ("spec.schedulerName", "/spec/schedulerName"),
        ("spec.serviceAccountName", "/spec/serviceAccountName"),
        ("spec.hostNetwork", "/spec/hostNetwork"),
        ("status.phase", "/status/phase"),
        ("status.podIP", "/status/podIPs/0/ip"),
        ("status.podIPs", "/status/podIPs/0/ip"),
        ("status.nominatedNodeName", "/status/nominatedNodeName"),
    ],
    has_status: true,
    has_generation: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};
