//! Storage classes, drivers and attachments, and the migration of what is stored.

use api::meta;
use serde_json::{Value, json};

use super::check::{self, Causes, optional_one_of, required, text};
use super::read::{Read, Write};
use super::volumes::{csi_driver_name, inline_volume};
use super::{columns, internal, rows, volumes, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

pub static STORAGE_CLASS: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::storage_class,
    default: |class| {
        class.set_default("reclaimPolicy", "Delete");
        class.set_if_absent("volumeBindingMode", "Immediate");
    },
    validate_create: storage_class,
    validate_update: |new, old| {
        const FIXED: [&str; 4] = ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"];
        let mut out = storage_class(new);
        let changed = FIXED.iter().filter(|field| !same(new.at(field), old.at(field)));
        out.extend(changed.map(|field| validate::fixed(field)));
        out
    },
    columns: columns::STORAGE_CLASS,
    row: rows::storage_class,
    default_of: Some(default_storage_class),
    returns_deleted: true,
    ..Behaviour::PLAIN
};

/// Says that a storage class is the default; the second is its old name.
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The storage class that claims without one get: the newest of those that say that they are the default, and of those the
/// first by name.
pub fn default_storage_class(classes: &[Value]) -> Option<&str> {
    let says = |class: &&Value| DEFAULT.iter().any(|key| meta::entry(class, "annotations", key) == Some("true"));
    let order = |a: &&Value, b: &&Value| {
        let newer = meta::text(a, "creationTimestamp").cmp(meta::text(b, "creationTimestamp"));
        newer.then(meta::name(b).cmp(meta::name(a)))
    };
    classes.iter().filter(says).max_by(order).map(meta::name)
}

pub static VOLUME_ATTRIBUTES_CLASS: Behaviour = Behaviour {
    checks_name_again: true,
    validate_create: attributes_class,
    validate_update: |new, old| {
        let mut out = Vec::new();
        for field in ["driverName", "parameters"] {
            if !same(new.at(field), old.at(field)) {
                out.push(Cause::forbidden(field, &format!("updates to {field} are forbidden.")));
            }
        }
        out.extend(attributes_class(new));
        out
    },
    columns: columns::VOLUME_ATTRIBUTES_CLASS,
    row: rows::volume_attributes_class,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static VOLUME_ATTACHMENT: Behaviour = Behaviour {
    checks_name_again: true,
    prepare_create: |attachment| attachment.set("status", json!({"attached": false})),
    validate_create: attachment,
    validate_status: |new, _| attachment(new),
    validate_update: |new, old| {
        let mut out = attachment(new);
        if !same(new.at("spec"), old.at("spec")) {
            out.push(validate::fixed("spec"));
        }
        out
    },
    columns: columns::VOLUME_ATTACHMENT,
    row: rows::volume_attachment,
    has_status: true,
    unconditional_update: false,
    returns_deleted: true,
    status_keeps_metadata: true,
    ..Behaviour::PLAIN
};

pub static CSI_DRIVER: Behaviour = Behaviour {
    warnings: warnings::csi_driver,
    default: |driver| {
        let spec = "spec";
        driver.set_if_absent(spec, json!({}));
        let Some(spec) = driver.at_mut(spec) else { return };
        spec.set_if_absent("attachRequired", true);
        for field in
            ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount", "preventPodSchedulingIfMissing"]
        {
            spec.set_if_absent(field, false);
        }
        spec.set_if_absent("fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.at("volumeLifecycleModes").is_nothing() {
            spec.set("volumeLifecycleModes", json!(["Persistent"]));
        }
    },
    // Only changes are counted.
    prepare_create: |driver| driver.remove("metadata.generation"),
    validate_create: csi_driver,
    validate_update: |new, old| {
        let mut out = csi_driver(new);
        for (field, named) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            let (new, old) = (new.at("spec").at(field), old.at("spec").at(field));
            out.extend(validate::immutable(new, old, &format!("spec.{named}")));
        }
        out
    },
    columns: columns::CSI_DRIVER,
    row: rows::csi_driver,
    has_generation: true,
    unconditional_update: false,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static CSI_NODE: Behaviour = Behaviour {
    checks_name_again: true,
    prepare_create: |node| node.set("status", json!({})),
    validate_create: csi_node,
    validate_update: |new, old| {
        let mut out = csi_node(new);
        for before in old.list("spec.drivers") {
            for after in new.list("spec.drivers").iter().filter(|after| after.at("name") == before.at("name")) {
                let [before, after] = [before, after].map(fixed_part);
                out.extend(validate::immutable(&after, &before, "spec.drivers"));
            }
        }
        out
    },
    columns: columns::CSI_NODE,
    row: rows::csi_node,
    has_status: true,
    unconditional_update: false,
    returns_deleted: true,
    status_keeps_metadata: true,
    ..Behaviour::PLAIN
};

pub static CSI_STORAGE_CAPACITY: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::storage_capacity,
    validate_create: storage_capacity,
    validate_update: |new, old| {
        let mut out = storage_capacity(new);
        let fields = ["nodeTopology", "storageClassName"];
        out.extend(fields.iter().filter_map(|field| validate::immutable(new.at(field), old.at(field), field)));
        out
    },
    // Kubernetes has columns for it, and shows none of them.
    unconditional_update: false,
    ..Behaviour::PLAIN
};

const MIGRATION_SPEC: &str = "api.storagemigration.v1.StorageVersionMigrationSpec";

pub static STORAGE_VERSION_MIGRATION: Behaviour = Behaviour {
    checks_name_again: true,
    prepare_create: |migration| migration.set("status", json!({})),
    validate_create: migration,
    validate_update: |new, old| {
        let mut out = migration(new);
        out.extend(internal::immutable(MIGRATION_SPEC, new.at("spec"), old.at("spec"), "spec"));
        out
    },
    validate_status: migration_status,
    columns: columns::STORAGE_VERSION_MIGRATION,
    row: rows::storage_version_migration,
    has_status: true,
    unconditional_update: false,
    status_keeps_metadata: true,
    ..Behaviour::PLAIN
};

/// It ends once, well or badly.
fn migration_status(new: &Value, old: &Value) -> Vec<Cause> {
    const VERSION: &str = "status.resourceVersion";
    let mut out = Vec::new();
    let (after, before) = (new.at("status"), old.at("status"));
    let version = after.text("resourceVersion");
    if version.starts_with('0') || version.contains(|c: char| !c.is_ascii_digit()) {
        let detail = format!("resource version is not well formed: {version}");
        out.push(Cause::invalid(VERSION, &version.into(), &detail));
    }
    check::conditions(&mut out, after.list("conditions"), "status.conditions");
    if !before.text("resourceVersion").is_empty() && before.text("resourceVersion") != version {
        out.push(Cause::invalid(VERSION, &version.into(), "field is immutable"));
    }
    let ended = |status: &Value, type_: &str| {
        let condition = status.list("conditions").iter().find(|condition| condition.text("type") == type_);
        condition.is_some_and(|condition| condition.text("status") == "True")
    };
    let mut wrong = |why: &str| out.push(Cause::invalid("status.conditions", after.at("conditions"), why));
    if ended(after, "Succeeded") && ended(after, "Failed") {
        wrong("Both success and failed conditions cannot be true at the same time");
    }
    for (type_, name) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if ended(before, type_) && !ended(after, type_) {
            wrong(&format!("{name} condition cannot be set to false once it is true"));
        }
    }
    out
}

/// Nothing and an empty list or map are the same.
fn same(new: &Value, old: &Value) -> bool {
    new == old || (new.is_nothing() && old.is_nothing())
}

/// Whoever provisions: a qualified name in any case.
fn provisioner(out: &mut Causes, object: &Value, field: &str) {
    let name = object.text(field).to_lowercase();
    if !name.is_empty() {
        text(out, &name, field, validate::qualified_name);
    }
}

fn parameters(out: &mut Causes, object: &Value) {
    const COUNT_MAX: usize = 512;
    const SIZE_MAX: usize = 256 * 1024;
    let entries = object.at("parameters").entries();
    if entries.len() > COUNT_MAX {
        return out.push(Cause::too_long("parameters", COUNT_MAX));
    }
    for _ in entries.iter().filter(|(key, _)| key.is_empty()) {
        out.push(Cause::invalid("parameters", &"".into(), "field can not be empty."));
    }
    if entries.iter().map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum::<usize>() > SIZE_MAX
    {
        out.push(Cause::too_long("parameters", SIZE_MAX));
    }
}

fn storage_capacity(capacity: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    check::label_selector(&mut out, capacity.at("nodeTopology"), "nodeTopology");
    let class = capacity.text("storageClassName");
    text(&mut out, class, "storageClassName", validate::dns1123_subdomain);
    if capacity.has("capacity") {
        check::non_negative_quantity(&mut out, capacity.at("capacity"), "capacity");
    }
    out
}

fn storage_class(class: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    provisioner(&mut out, class, "provisioner");
    parameters(&mut out, class);
    optional_one_of(&mut out, class.at("reclaimPolicy"), "reclaimPolicy", &["Delete", "Retain"]);
    let modes = &["Immediate", "WaitForFirstConsumer"];
    optional_one_of(&mut out, class.at("volumeBindingMode"), "volumeBindingMode", modes);
    topologies(&mut out, class.list("allowedTopologies"));
    if class.text("provisioner").is_empty() {
        out.push(Cause::required("provisioner", ""));
    }
    out
}

fn topologies(out: &mut Causes, terms: &[Value]) {
    for (at, term) in terms.iter().enumerate() {
        let term_path = format!("allowedTopologies[{at}].matchLabelExpressions");
        let mut keys: Vec<&str> = Vec::new();
        for (at, expression) in term.list("matchLabelExpressions").iter().enumerate() {
            let (path, key) = (format!("{term_path}[{at}]"), expression.text("key"));
            let values = expression.list("values");
            if values.is_empty() {
                out.push(Cause::required(format!("{path}.values"), ""));
            }
            for (at, value) in values.iter().enumerate() {
                if values[..at].contains(value) {
                    out.push(Cause::duplicate(format!("{path}.values[{at}]"), value));
                }
            }
            text(out, key, format_args!("{path}.key"), validate::qualified_name);
            if keys.contains(&key) {
                out.push(Cause::duplicate(format!("{path}.key"), &key.into()));
            }
            keys.push(key);
        }
        // Upstream compares with terms that are empty still.
        if terms[..at].contains(term) || term.list("matchLabelExpressions").is_empty() {
            out.push(Cause::duplicate(term_path, &"".into()));
        }
    }
}

fn attributes_class(class: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if class.text("driverName").is_empty() {
        out.push(Cause::required("driverName", ""));
    }
    provisioner(&mut out, class, "driverName");
    parameters(&mut out, class);
    if class.at("parameters").is_nothing() {
        out.push(Cause::required("parameters", "must contain at least one key/value pair"));
    }
    out
}

fn attachment(attachment: &Value) -> Vec<Cause> {
    const METADATA_MAX: usize = 256 * 1024;
    const MESSAGE_MAX: usize = 1024;
    let mut out = Vec::new();
    let source = attachment.at("spec.source");
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("inlineVolumeSpec"), source.has("persistentVolumeName")) {
        (false, false) => out.push(Cause::required("spec.source", one)),
        (true, true) => out.push(Cause::forbidden("spec.source", one)),
        (false, true) if source.text("persistentVolumeName").is_empty() => {
            let detail = "must specify non empty persistentVolumeName";
            out.push(Cause::required("spec.source.persistentVolumeName", detail));
        }
        (true, false) => inline_volume(&mut out, source.at("inlineVolumeSpec"), "spec.source.inlineVolumeSpec"),
        (false, true) => {}
    }
    text(&mut out, attachment.text("spec.nodeName"), "spec.nodeName", validate::dns1123_subdomain);
    let metadata = attachment.at("status.attachmentMetadata").entries();
    if metadata.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum::<usize>() > METADATA_MAX
    {
        out.push(Cause::too_long("status.attachmentMetadata", METADATA_MAX));
    }
    for field in ["attachError", "detachError"] {
        let error = attachment.at("status").at(field);
        if error.text("message").len() > MESSAGE_MAX {
            out.push(Cause::too_long(format!("status.{field}.message"), MESSAGE_MAX));
        }
        let code = error.at("errorCode");
        if let Some(detail) = code.as_i64().and_then(|code| validate::in_range(code, 0, i32::MAX.into())) {
            out.push(Cause::invalid(format!("status.{field}.errorCode"), code, &detail));
        }
    }
    if source.has("persistentVolumeName") {
        let path = "spec.source.persistentVolumeName";
        text(&mut out, source.text("persistentVolumeName"), path, validate::dns1123_subdomain);
    }
    volumes::declared_driver_name(&mut out, attachment.text("spec.attacher"), "spec.attacher");
    out
}

fn csi_driver(driver: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = driver.at("spec");
    let policies = &["File", "None", "ReadWriteOnceWithFSType"];
    optional_one_of(&mut out, spec.at("fsGroupPolicy"), "spec.fsGroupPolicy", policies);
    let mut audiences: Vec<&str> = Vec::new();
    for (at, token) in spec.list("tokenRequests").iter().enumerate() {
        let (path, audience) = (format!("spec.tokenRequests[{at}]"), token.text("audience"));
        if audiences.contains(&audience) {
            out.push(Cause::duplicate(format!("{path}.audience"), &audience.into()));
            continue;
        }
        audiences.push(audience);
        let seconds = token.opt_int("expirationSeconds").unwrap_or(600);
        let detail = match seconds {
            ..600 => "may not specify a duration less than 10 minutes",
            0x1_0000_0001.. => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        out.push(Cause::invalid(format!("{path}.expirationSeconds"), &seconds.into(), detail));
    }
    for mode in spec.list("volumeLifecycleModes") {
        optional_one_of(&mut out, mode, "spec.volumeLifecycleModes", &["Persistent", "Ephemeral"]);
    }
    if let Some(period) = spec.opt_int("nodeAllocatableUpdatePeriodSeconds").filter(|period| *period < 10) {
        let path = "spec.nodeAllocatableUpdatePeriodSeconds";
        out.push(Cause::invalid(path, &period.into(), "must be greater than or equal to 10 seconds"));
    }
    if spec.has("serviceAccountTokenInSecrets") && spec.list("tokenRequests").is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        let path = "spec.serviceAccountTokenInSecrets";
        out.push(Cause::invalid(path, spec.at("serviceAccountTokenInSecrets"), detail));
    }
    out
}

fn csi_node(node: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let drivers = node.list("spec.drivers");
    for (at, driver) in drivers.iter().enumerate() {
        let path = format!("spec.drivers[{at}]");
        csi_driver_name(&mut out, driver.text("name"), &format!("{path}.name"));
        if required(&mut out, driver, &path, "nodeID") && driver.text("nodeID").len() > 256 {
            let detail = "must be 256 characters or less";
            out.push(Cause::invalid(format!("{path}.nodeID"), driver.at("nodeID"), detail));
        }
        if driver.has("allocatable.count") {
            check::non_negative(&mut out, driver.at("allocatable"), format_args!("{path}.allocatable"), &["count"]);
        }
        if drivers[..at].iter().any(|other| other.at("name") == driver.at("name")) {
            out.push(Cause::duplicate(format!("{path}.name"), driver.at("name")));
        }
        let keys = driver.list("topologyKeys");
        for (at, key) in keys.iter().enumerate() {
            if key == "" {
                out.push(Cause::required(&path, ""));
            }
            if keys[..at].contains(key) {
                out.push(Cause::duplicate(&path, key));
            }
            text(&mut out, key.as_str().unwrap_or_default(), &path, validate::qualified_name);
        }
    }
    out
}

/// A driver of a node as refusals show it, without what may change.
fn fixed_part(driver: &Value) -> Value {
    let mut driver = driver.clone();
    driver.remove("allocatable");
    internal::shown("api.storage.v1.CSINodeDriver", &driver)
}

fn migration(migration: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let (resource, group) = (migration.text("spec.resource.resource"), migration.text("spec.resource.group"));
    let mut joined = |path: &str, value: &str, texts: Vec<String>| {
        if !texts.is_empty() {
            out.push(Cause::invalid(path, &value.into(), &texts.join(",")));
        }
    };
    if !resource.is_empty() {
        joined("spec.resource.resource", resource, validate::dns1035_label(resource));
    }
    if !group.is_empty() {
        joined("spec.resource.group", group, validate::dns1123_subdomain(group));
    }
    if resource.is_empty() {
        out.push(Cause::required("spec.resource.resource", "resource is required to be set"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, created: &str, default: Option<usize>) -> Value {
        let mut class = json!({"metadata": {"name": name, "creationTimestamp": created}});
        if let Some(key) = default {
            class["metadata"]["annotations"] = json!({DEFAULT[key]: "true"});
        }
        class
    }

    #[test]
    fn the_newest_default_counts() {
        let (old, new) = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z");
        assert_eq!(default_storage_class(&[class("a", new, None)]), None);
        assert_eq!(
            default_storage_class(&[class("a", old, Some(0)), class("b", new, Some(1)), class("c", new, None)]),
            Some("b")
        );
        assert_eq!(default_storage_class(&[class("b", new, Some(0)), class("a", new, Some(0))]), Some("a"));
    }

    #[track_caller]
    fn check(causes: Vec<Cause>, expected: &[&str]) {
        let told: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn an_attachment_may_describe_its_volume() {
        let of = |volume: Value| {
            let source = json!({"inlineVolumeSpec": volume});
            attachment(&json!({"spec": {"attacher": "a.b", "nodeName": "n", "source": source}}))
        };
        let csi = json!({"driver": "a.b", "volumeHandle": "h"});
        check(of(json!({"accessModes": ["ReadWriteOnce"], "csi": csi})), &[]);
        let volume = json!({
            "capacity": {"storage": "1Gi"}, "claimRef": {"name": "c"}, "nfs": {"server": "s", "path": "/p"},
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "s", "volumeMode": "Block",
        });
        check(
            of(volume),
            &[
                "spec.source.inlineVolumeSpec.claimRef: Forbidden: may not be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.accessModes: Required value",
                "spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the \
                 context of inline volumes",
                "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of \
                 inline volumes",
                "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem \
                 in the context of inline volumes",
            ],
        );
    }

    #[test]
    fn a_migration_ends_once() {
        let ended = |type_: &str| {
            let time = "2024-01-01T00:00:00Z";
            json!({"type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": time})
        };
        let status = |version: &str, conditions: &[Value]| json!({"status": {"resourceVersion": version, "conditions": conditions}});
        check(migration_status(&status("5", &[ended("Succeeded")]), &status("", &[])), &[]);
        check(
            migration_status(&status("05", &[]), &status("5", &[])),
            &[
                "status.resourceVersion: Invalid value: \"05\": resource version is not well formed: 05",
                "status.resourceVersion: Invalid value: \"05\": field is immutable",
            ],
        );
        check(
            migration_status(&status("", &[]), &status("", &[ended("Failed")])),
            &["status.conditions: Invalid value: []: Failed condition cannot be set to false once it is true"],
        );
    }
}
