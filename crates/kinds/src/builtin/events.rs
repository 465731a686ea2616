//! Events, as the core group and as `events.k8s.io` have them.

use crate::Behaviour;

use super::{columns, rows};

pub static EVENT: Behaviour = Behaviour {
    columns: columns::EVENT,
    row: rows::event,
    selectable: &[
        ("involvedObject.kind", "/involvedObject/kind"),
        ("involvedObject.namespace", "/involvedObject/namespace"),
        ("involvedObject.name", "/involvedObject/name"),
        ("involvedObject.uid", "/involvedObject/uid"),
        ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
        ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
        ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
        ("reason", "/reason"),
        ("reportingComponent", "/reportingComponent"),
        ("source", "/source/component"),
        ("type", "/type"),
    ],
    create_on_update: true,
    ..Behaviour::PLAIN
};

pub static NEW_EVENT: Behaviour = Behaviour {
    columns: columns::EVENT,
    row: rows::new_event,
    selectable: &[
        ("reason", "/reason"),
        ("regarding.kind", "/regarding/kind"),
        ("regarding.namespace", "/regarding/namespace"),
        ("regarding.name", "/regarding/name"),
        ("regarding.uid", "/regarding/uid"),
        ("regarding.apiVersion", "/regarding/apiVersion"),
        ("regarding.resourceVersion", "/regarding/resourceVersion"),
        ("regarding.fieldPath", "/regarding/fieldPath"),
        ("reportingController", "/reportingController"),
        ("type", "/type"),
    ],
    create_on_update: true,
    ..Behaviour::PLAIN
};
