//! Events, as the core group and as `events.k8s.io` have them.

use serde_json::Value;

use super::check::{Causes, text};
use super::read::Read;
use super::{columns, internal, rows};
use crate::validate;
use crate::{Behaviour, Cause, Kept, NameRule};

pub static EVENT: Behaviour = Behaviour {
    validate_create: |event| common(event, "involvedObject", "reportingComponent", "message"),
    validate_update: |new, _| common(new, "involvedObject", "reportingComponent", "message"),
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
        ("source", "/source/component|/reportingComponent"),
        ("type", "/type"),
    ],
    name: NameRule::PathSegment,
    create_on_update: true,
    any_finalizer: true,
    without_dependents: true,
    ..Behaviour::PLAIN
};

pub static NEW_EVENT: Behaviour = Behaviour {
    validate_create,
    validate_update,
    columns: columns::EVENT,
    row: rows::new_event,
    selectable: &[
        ("reason", "/reason"),
        ("regarding.kind", "/involvedObject/kind"),
        ("regarding.namespace", "/involvedObject/namespace"),
        ("regarding.name", "/involvedObject/name"),
        ("regarding.uid", "/involvedObject/uid"),
        ("regarding.apiVersion", "/involvedObject/apiVersion"),
        ("regarding.resourceVersion", "/involvedObject/resourceVersion"),
        ("regarding.fieldPath", "/involvedObject/fieldPath"),
        ("reportingController", "/reportingComponent"),
        ("type", "/type"),
    ],
    kept: Some(Kept {
        group: "",
        version: "v1",
        into: |event| rename(event, false),
        from: |event| rename(event, true),
    }),
    create_on_update: true,
    without_dependents: true,
    ..Behaviour::PLAIN
};

/// The same fields, as the core group calls them and as `events.k8s.io` does.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(event: &mut Value, to_new: bool) {
    let Some(fields) = event.as_object_mut() else { return };
    for (old, new) in NAMES {
        let (from, to) = if to_new { (old, new) } else { (new, old) };
        if let Some(value) = fields.shift_remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

/// What both groups ask of an event; error paths have the old names, as upstream has them.
fn common(event: &Value, about: &str, controller: &str, note: &str) -> Causes {
    const TEXT_MAX: usize = 128;
    const NOTE_MAX: usize = 1024;
    let mut out = Vec::new();
    let (own, other) = (event.text("metadata.namespace"), event.at(about).text("namespace"));
    let timed = event.has("eventTime");
    let wrong = match (timed, other) {
        (false, "") => own != "default" && !own.is_empty(),
        (false, other) => own != other,
        (true, "") => own != "default" && own != "kube-system",
        (true, _) => false,
    };
    if wrong {
        let detail = "does not match event.namespace";
        out.push(Cause::invalid("involvedObject.namespace", &other.into(), detail));
    }
    if !timed {
        return out;
    }
    let by = event.text(controller);
    if by.is_empty() {
        out.push(Cause::required(controller, ""));
    }
    text(&mut out, by, controller, validate::qualified_name);
    for (field, required, max, shown) in [
        ("reportingInstance", true, TEXT_MAX, "reportingInstance"),
        ("action", true, TEXT_MAX, "action"),
        ("reason", true, TEXT_MAX, "reason"),
        (note, false, NOTE_MAX, "message"),
    ] {
        let value = event.text(field);
        if required && value.is_empty() {
            out.push(Cause::required(shown, ""));
        }
        if value.len() > max {
            out.push(Cause::invalid(shown, &"".into(), &format!("can have at most {max} characters")));
        }
    }
    out
}

fn validate_create(event: &Value) -> Vec<Cause> {
    let mut out = common(event, "regarding", "reportingController", "note");
    series(&mut out, event);
    if !event.has("eventTime") {
        out.push(Cause::required("eventTime", ""));
    }
    if !["Normal", "Warning"].contains(&event.text("type")) {
        out.push(Cause::invalid("type", &"".into(), &format!("has invalid value: {}", event.text("type"))));
    }
    for (field, shown) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("deprecatedSource", "source"),
    ] {
        let value = event.at(field);
        if !value.is_nothing() && value != &Value::from(0) {
            out.push(Cause::invalid(shown, &"".into(), "needs to be unset"));
        }
    }
    out
}

fn series(out: &mut Causes, event: &Value) {
    let series = event.at("series");
    if series.is_null() {
        return;
    }
    if series.int("count") < 2 {
        out.push(Cause::invalid("series.count", &"".into(), "should be at least 2"));
    }
    if !series.has("lastObservedTime") {
        out.push(Cause::required("series.lastObservedTime", ""));
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = common(new, "regarding", "reportingController", "note");
    if new.at("series") != old.at("series") {
        series(&mut out, new);
    }
    for (field, shown) in [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        if new.at(field) == old.at(field) {
            continue;
        }
        let value = match (field, new.at(field)) {
            ("regarding", value) => internal::shown("api.core.v1.ObjectReference", value),
            ("deprecatedSource", value) => internal::shown("api.core.v1.EventSource", value),
            ("related", value) if value.is_object() => internal::shown("api.core.v1.ObjectReference", value),
            ("deprecatedCount", Value::Null) => 0.into(),
            ("reason" | "note" | "type" | "action" | "reportingController" | "reportingInstance", Value::Null) => {
                "".into()
            }
            (_, value) => value.clone(),
        };
        out.push(Cause::invalid(shown, &value, "field is immutable"));
    }
    out
}
