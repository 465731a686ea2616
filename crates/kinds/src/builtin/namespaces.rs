//! Namespaces.

use serde_json::{Value, json};

use super::read::{Read, Write};
use super::{columns, rows};
use crate::validate;
use crate::{Behaviour, Cause, NameRule};

pub static NAMESPACE: Behaviour = Behaviour {
    never_unreadable: true,
    begins_deletion_once: true,
    checks_name_again: true,
    default: |namespace| {
        label(namespace);
        namespace.set_default("status.phase", "Active");
    },
    prepare_create,
    prepare_update: |new, old| {
        // Only the finalize subresource takes finalizers away.
        match old.at("spec.finalizers") {
            Value::Null => new.remove("spec.finalizers"),
            finalizers => new.set("spec.finalizers", finalizers.clone()),
        }
    },
    validate_create,
    validate_update: |_, _| Vec::new(),
    validate_status,
    validate_part: |part, new, _| match part {
        "finalize" => finalizers(new),
        _ => Vec::new(),
    },
    columns: columns::NAMESPACE,
    row: rows::namespace,
    selectable: &[("status.phase", "/status/phase")],
    name: NameRule::Label,
    has_status: true,
    begin_delete: |namespace| {
        namespace.set("status.phase", "Terminating");
        // Its content decides how long it takes, no grace period does.
        namespace.remove("metadata.deletionGracePeriodSeconds");
    },
    holds_back: |namespace| !namespace.list("spec.finalizers").is_empty(),
    returns_deleted: true,
    stored_preconditions: true,
    ..Behaviour::PLAIN
};

/// Every namespace can be selected by its name.
fn label(namespace: &mut Value) {
    let name = namespace.text("metadata.name").to_owned();
    if name.is_empty() {
        return;
    }
    namespace.set_if_absent("metadata.labels", json!({}));
    if let Some(labels) = namespace.at_mut("metadata.labels").and_then(Value::as_object_mut) {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

fn prepare_create(namespace: &mut Value) {
    namespace.set("status", json!({"phase": "Active"}));
    // A generated name is known only now.
    label(namespace);
    let mut finalizers = namespace.list("spec.finalizers").to_vec();
    if !finalizers.contains(&json!("kubernetes")) {
        finalizers.push("kubernetes".into());
        namespace.set("spec.finalizers", finalizers);
    }
}

fn validate_create(namespace: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    for finalizer in namespace.list("spec.finalizers").iter().filter_map(Value::as_str) {
        finalizer_name(&mut out, finalizer, "spec.finalizers");
    }
    out
}

fn finalizers(namespace: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    for (nth, finalizer) in namespace.list("spec.finalizers").iter().enumerate() {
        finalizer_name(&mut out, finalizer.as_str().unwrap_or_default(), &format!("spec.finalizers[{nth}]"));
    }
    out
}

/// Also what the finalize subresource is held to.
pub fn finalizer_name(out: &mut Vec<Cause>, name: &str, path: &str) {
    validate::push_all(out, path, name, validate::qualified_name(name));
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        out.push(Cause::invalid(path, &name.into(), detail));
    }
}

fn validate_status(new: &Value, _: &Value) -> Vec<Cause> {
    let phase = new.text("status.phase");
    let (wanted, not) = match new.has("metadata.deletionTimestamp") {
        true => ("Terminating", "not "),
        false => ("Active", ""),
    };
    if phase == wanted {
        return Vec::new();
    }
    let detail = format!("may only be '{wanted}' if `deletionTimestamp` is {not}empty");
    vec![Cause::invalid("status.Phase", &phase.into(), &detail)]
}
