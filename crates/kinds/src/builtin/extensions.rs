//! What adds kinds to the server: custom resource definitions and API services.

use serde_json::{Value, json};

use super::admission::{client, default_service};
use super::check::{self, Causes, required, text};
use super::read::{Read, Write};
use super::{columns, crd_schema, internal, rows};
use crate::{Behaviour, Cause, NameRule, custom, validate};

pub static CUSTOM_RESOURCE_DEFINITION: Behaviour = Behaviour {
    default: |definition| {
        let kind = definition.text("spec.names.kind").to_owned();
        if !kind.is_empty() {
            definition.set_default("spec.names.singular", kind.to_lowercase());
            definition.set_default("spec.names.listKind", format!("{kind}List"));
        }
        definition.set_if_absent("spec.conversion", json!({"strategy": "None"}));
        default_service(definition, "spec.conversion.webhook.clientConfig.service");
        store_version(definition);
    },
    prepare_create: |definition| {
        let empty = json!({"plural": "", "kind": ""});
        definition.set("status", json!({"conditions": null, "acceptedNames": empty, "storedVersions": null}));
        store_version(definition);
    },
    prepare_update: |new, _| store_version(new),
    validate_create: |definition| {
        let mut out = Vec::new();
        let (name, spec) = (definition.text("metadata.name"), definition.at("spec"));
        if !name.is_empty() && name != format!("{}.{}", spec.text("names.plural"), spec.text("group")) {
            let detail = r#"must be spec.names.plural+"."+spec.group"#;
            out.push(Cause::invalid("metadata.name", &name.into(), detail));
        }
        self::spec(&mut out, spec);
        rest(&mut out, definition, None);
        out
    },
    validate_update: |new, old| {
        let mut out = Vec::new();
        self::spec(&mut out, new.at("spec"));
        let fixed = if is_established(old) {
            &["scope", "names.kind", "group", "names.plural"][..]
        } else {
            &["group", "names.plural"]
        };
        for field in fixed {
            let path = format!("spec.{field}");
            out.extend(validate::immutable(new.at(&path), old.at(&path), &path));
        }
        rest(&mut out, new, Some(old));
        out
    },
    validate_status: |new, _| {
        let mut out = Vec::new();
        names(&mut out, new.at("status.acceptedNames"), "status.acceptedNames");
        out
    },
    warnings: |new, old| {
        let of = |definition: &Value| -> Vec<String> {
            let versions = definition.list("spec.versions").iter();
            versions.flat_map(|version| custom::schema_warnings(version.at("schema.openAPIV3Schema"))).collect()
        };
        let known = old.map(of).unwrap_or_default();
        let mut told: Vec<String> = Vec::new();
        for warning in of(new) {
            if !known.contains(&warning) && !told.contains(&warning) {
                told.push(warning);
            }
        }
        told
    },
    begin_delete,
    columns: columns::CUSTOM_RESOURCE_DEFINITION,
    row: rows::custom_resource_definition,
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    any_finalizer: true,
    no_rows_are_null: true,
    without_tables: &["status"],
    ..Behaviour::PLAIN
};

/// A definition stays until what it defined is gone, whatever the request says of dependents; its deletion is no change
/// that is counted.
fn begin_delete(definition: &mut Value) {
    const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
    let own = |finalizer: &&Value| !["orphan", "foregroundDeletion", FINALIZER].iter().any(|other| *finalizer == other);
    let mut finalizers: Vec<Value> = definition.list("metadata.finalizers").iter().filter(own).cloned().collect();
    finalizers.push(FINALIZER.into());
    let generation = definition.int("metadata.generation");
    let since = definition.at("metadata.deletionTimestamp").clone();
    definition.set("metadata.finalizers", finalizers);
    definition.set("metadata.generation", generation - 1);
    definition.remove("metadata.deletionGracePeriodSeconds");
    let mut conditions = definition.list("status.conditions").to_vec();
    conditions.retain(|condition| condition.text("type") != "Terminating");
    conditions.push(json!({
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": since,
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    }));
    definition.set("status.conditions", conditions);
}

pub static API_SERVICE: Behaviour = Behaviour {
    default: |service| default_service(service, "spec.service"),
    prepare_create: |service| {
        let status = match service.has("spec.service") {
            true => json!({}),
            false => json!({"conditions": [{
                "type": "Available",
                "status": "True",
                "lastTransitionTime": service.at("metadata.creationTimestamp"),
                "reason": "Local",
                "message": "Local APIServices are always available",
            }]}),
        };
        service.set("status", status);
    },
    validate_create: api_service,
    validate_update: |new, _| api_service(new),
    columns: columns::API_SERVICE,
    row: rows::api_service,
    name: NameRule::PathSegment,
    has_status: true,
    unconditional_update: false,
    any_finalizer: true,
    status_keeps_metadata: true,
    without_tables: &["status"],
    ..Behaviour::PLAIN
};

/// The version that is stored is one that has been.
fn store_version(definition: &mut Value) {
    let versions = definition.list("spec.versions");
    let Some(name) = versions.iter().find(|version| version.flag("storage")).map(|version| version.at("name").clone())
    else {
        return;
    };
    let mut stored = definition.list("status.storedVersions").to_vec();
    if !stored.contains(&name) {
        stored.push(name);
        definition.set("status.storedVersions", stored);
    }
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition.list("status.conditions");
    conditions.iter().any(|condition| condition.text("type") == "Established" && condition.text("status") == "True")
}

/// What versions hold is told of where they all hold the same: one level up.
struct Versions<'a> {
    versions: &'a [Value],
}

impl<'a> Versions<'a> {
    /// The field, where it is the same in all versions.
    fn common(&self, field: &str) -> Option<&'a Value> {
        let (first, rest) = self.versions.split_first()?;
        rest.iter().all(|version| version.at(field) == first.at(field)).then(|| first.at(field))
    }

    /// The versions as refusals show them.
    fn internal(&self) -> Value {
        const VERSION: &str = "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionVersion";
        let shown = |version: &Value| {
            let mut version = version.clone();
            for field in ["schema", "subresources", "additionalPrinterColumns", "selectableFields"] {
                if self.common(field).is_some() {
                    version.remove(field);
                }
            }
            internal::shown(VERSION, &version)
        };
        self.versions.iter().map(shown).collect()
    }
}

fn spec(out: &mut Causes, spec: &Value) {
    let group = spec.text("group");
    let texts = validate::dns1123_subdomain(group);
    if group.is_empty() {
        out.push(Cause::required("spec.group", ""));
    } else if !texts.is_empty() {
        out.push(Cause::invalid("spec.group", &group.into(), &texts.join(",")));
    } else if !group.contains('.') {
        out.push(Cause::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    check::one_of(out, spec.at("scope"), "spec.scope", &["Cluster", "Namespaced"]);
    let all = Versions { versions: spec.list("versions") };
    for (at, version) in all.versions.iter().enumerate() {
        if version.at("schema.openAPIV3Schema").is_null() {
            out.push(Cause::required(format!("spec.versions[{at}].schema.openAPIV3Schema"), ""));
        }
    }
    for (at, version) in all.versions.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        joined(out, version.text("name"), &format!("{path}.name"), "", validate::dns1035_label);
        deprecation(out, version, &format!("{path}.deprecationWarning"));
        parts(out, |field| if all.common(field).is_some() { &Value::Null } else { version.at(field) }, &path);
    }
    let named = |at: usize| all.versions[..at].iter().any(|other| other.at("name") == all.versions[at].at("name"));
    if (0..all.versions.len()).any(named) {
        out.push(Cause::invalid("spec.versions", &all.internal(), "must contain unique version names"));
    }
    if all.versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        let shown = if spec.at("versions").is_null() { Value::Null } else { all.internal() };
        let detail = "must have exactly one version marked as storage version";
        out.push(Cause::invalid("spec.versions", &shown, detail));
    }
    if let Some(first) = all.versions.first().filter(|version| !version.text("name").is_empty()) {
        joined(out, first.text("name"), "spec.version", "", validate::dns1035_label);
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        required(out, spec.at("names"), "spec.names", field);
    }
    names(out, spec.at("names"), "spec.names");

    common_parts(out, &all);
    conversion(out, spec.at("conversion"));
}

fn common_parts(out: &mut Causes, all: &Versions) {
    let mut below = Vec::new();
    parts(&mut below, |field| all.common(field).unwrap_or(&Value::Null), "spec");
    // Only the schema has another name there.
    for mut cause in below {
        let (from, to) = ("spec.schema.", "spec.validation.");
        if cause.field.starts_with(from) {
            cause.field = cause.field.replacen(from, to, 1);
            cause.message = cause.message.replace(from, to);
        }
        out.push(cause);
    }
}

/// Schema, subresources, columns and selectable fields, of a version or of all.
fn parts<'a>(out: &mut Causes, part: impl Fn(&str) -> &'a Value, path: &str) {
    let schema = part("schema").at("openAPIV3Schema");
    if schema.is_object() {
        let has_status = part("subresources").has("status");
        crd_schema::check(out, schema, &format!("{path}.schema.openAPIV3Schema"), has_status);
    }
    scale(out, part("subresources").at("scale"), &format!("{path}.subresources.scale"));
    for (at, column) in part("additionalPrinterColumns").items().iter().enumerate() {
        self::column(out, column, &format!("{path}.additionalPrinterColumns[{at}]"));
    }
    selectable_fields(out, part("selectableFields").items(), schema, &format!("{path}.selectableFields"));
}

fn joined(out: &mut Causes, value: &str, path: &str, before: &str, check: fn(&str) -> Vec<String>) {
    let texts = match before {
        "" => check(value),
        _ => check(&value.to_lowercase()),
    };
    if !texts.is_empty() {
        out.push(Cause::invalid(path, &value.into(), &format!("{before}{}", texts.join(","))));
    }
}

fn names(out: &mut Causes, names: &Value, path: &str) {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    for (field, before) in [("plural", ""), ("singular", ""), ("kind", MIXED), ("listKind", MIXED)] {
        if !names.text(field).is_empty() {
            joined(out, names.text(field), &format!("{path}.{field}"), before, validate::dns1035_label);
        }
    }
    let list = |out: &mut Causes, field: &str| {
        for (at, name) in names.list(field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            joined(out, name, &format!("{path}.{field}[{at}]"), "", validate::dns1035_label);
        }
    };
    list(out, "shortNames");
    if !names.text("kind").is_empty() && names.text("kind") == names.text("listKind") {
        let detail = "kind and listKind may not be the same";
        out.push(Cause::invalid(format!("{path}.listKind"), names.at("listKind"), detail));
    }
    list(out, "categories");
}

fn deprecation(out: &mut Causes, version: &Value, path: &str) {
    let Some(warning) = version.at("deprecationWarning").as_str() else { return };
    let mut invalid = |detail: &str| out.push(Cause::invalid(path, &warning.into(), detail));
    if !version.flag("deprecated") {
        return invalid("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        invalid("must be <= 256 characters long");
    }
    if warning.is_empty() {
        invalid("must not be an empty string");
    }
    let printable = |c: char| c == ' ' || !(c.is_control() || c.is_whitespace());
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| !printable(*c)) {
        let detail = "must only contain printable UTF-8 characters; non-printable character found at index";
        invalid(&format!("{detail} {at}"));
    }
}

fn scale(out: &mut Causes, scale: &Value, path: &str) {
    if scale.is_null() {
        return;
    }
    let fields = [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ];
    for (field, below, detail) in fields {
        let (path, value) = (format!("{path}.{field}"), scale.text(field));
        if value.is_empty() {
            if field != "labelSelectorPath" {
                out.push(Cause::required(path, ""));
            }
        } else if simple_path(out, value, &path) && !below.iter().any(|start| value.starts_with(start)) {
            out.push(Cause::invalid(path, &value.into(), detail));
        }
    }
}

fn simple_path(out: &mut Causes, value: &str, path: &str) -> bool {
    let right = value.starts_with('.');
    if !right {
        out.push(Cause::invalid(path, &value.into(), "must be a simple json path starting with ."));
    }
    right
}

fn column(out: &mut Causes, column: &Value, path: &str) {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    required(out, column, path, "name");
    let one_of = |known: &[&str]| format!("must be one of {}", known.join(","));
    let (type_, format) = (column.text("type"), column.text("format"));
    if type_.is_empty() {
        out.push(Cause::required(format!("{path}.type"), &one_of(TYPES)));
    } else if !TYPES.contains(&type_) {
        out.push(Cause::invalid(format!("{path}.type"), &type_.into(), &one_of(TYPES)));
    }
    if !format.is_empty() && !FORMATS.contains(&format) {
        out.push(Cause::invalid(format!("{path}.format"), &format.into(), &one_of(FORMATS)));
    }
    match column.text("jsonPath") {
        "" => out.push(Cause::required(format!("{path}.JSONPath"), "")),
        value => {
            simple_path(out, value, &format!("{path}.JSONPath"));
        }
    }
}

fn selectable_fields(out: &mut Causes, fields: &[Value], schema: &Value, path: &str) {
    const MAX: usize = 8;
    let mut seen: Vec<&str> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let (path, value) = (format!("{path}[{at}].jsonPath"), field.text("jsonPath"));
        if value.is_empty() {
            out.push(Cause::required(path, ""));
            continue;
        }
        let found = match crd_schema::field(schema, value, false) {
            Ok(found) => found,
            Err(why) => {
                out.push(Cause::invalid(path, &value.into(), &format!("is an invalid path: {why}")));
                continue;
            }
        };
        if value.split(['.', '[']).find(|step| !step.is_empty()) == Some("metadata") {
            out.push(Cause::invalid(&path, &value.into(), "must not point to fields in metadata"));
        }
        if !["string", "boolean", "integer"].contains(&found.text("type")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            out.push(Cause::invalid(&path, &value.into(), detail));
        }
        if seen.contains(&value) {
            out.push(Cause::duplicate(path, &value.into()));
        } else {
            seen.push(value);
        }
    }
    if seen.len() > MAX {
        out.push(Cause::too_many(path, seen.len(), MAX));
    }
}

fn conversion(out: &mut Causes, conversion: &Value) {
    const PATH: &str = "spec.conversion";
    if conversion.is_null() {
        return;
    }
    check::one_of(out, conversion.at("strategy"), format_args!("{PATH}.strategy"), &["None", "Webhook"]);
    let (called, versions) = (conversion.at("webhook.clientConfig"), conversion.at("webhook.conversionReviewVersions"));
    let (called_path, versions_path) =
        (format!("{PATH}.webhookClientConfig"), format!("{PATH}.conversionReviewVersions"));
    if conversion.text("strategy") != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        for (given, path) in [(called, called_path), (versions, versions_path)] {
            if !given.is_nothing() {
                out.push(Cause::forbidden(path, detail));
            }
        }
        return;
    }
    match called.is_null() {
        true => out.push(Cause::required(called_path, "required when strategy is set to Webhook")),
        false => client(out, called, &called_path),
    }
    let list = versions.items();
    if list.is_empty() {
        return out.push(Cause::required(versions_path, ""));
    }
    for (at, version) in list.iter().enumerate() {
        let path = format!("{versions_path}[{at}]");
        match list[..at].contains(version) {
            true => out.push(Cause::invalid(path, version, "duplicate version")),
            false => text(out, version.as_str().unwrap_or_default(), &path, validate::dns1035_label),
        }
    }
    if !list.iter().any(|version| version == "v1" || version == "v1beta1") {
        out.push(Cause::invalid(versions_path, versions, "must include at least one of v1, v1beta1"));
    }
}

/// Status, approval, and fields that are no more.
fn rest(out: &mut Causes, definition: &Value, old: Option<&Value>) {
    names(out, definition.at("status.acceptedNames"), "status.acceptedNames");
    stored_versions(out, definition);
    approval(out, definition, old);
    let keeps_unknown = |definition: &Value| definition.flag("spec.preserveUnknownFields");
    if keeps_unknown(definition) && !old.is_some_and(keeps_unknown) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema \
                      instead";
        out.push(Cause::invalid("spec.preserveUnknownFields", &true.into(), detail));
    }
}

fn stored_versions(out: &mut Causes, definition: &Value) {
    const PATH: &str = "status.storedVersions";
    let (stored, versions) = (definition.list(PATH), definition.list("spec.versions"));
    if stored.is_empty() {
        return out.push(Cause::invalid(PATH, &Value::Null, "must have at least one stored version"));
    }
    for version in versions.iter().filter(|version| version.flag("storage") && !stored.contains(version.at("name"))) {
        let detail = format!("must have the storage version {}", version.text("name"));
        out.push(Cause::invalid(PATH, definition.at(PATH), &detail));
    }
    for (at, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.at("name") == name) {
            let text = name.as_str().unwrap_or_default();
            let detail = format!(
                "missing from spec.versions; {text} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {text} and removes {text} from \
                 status.storedVersions"
            );
            out.push(Cause::invalid(format!("{PATH}[{at}]"), name, &detail));
        }
    }
}

const APPROVAL: &str = "api-approved.kubernetes.io";

#[derive(PartialEq)]
enum Approval {
    Missing,
    Invalid,
    Given,
}

fn approval_of(definition: &Value) -> Approval {
    match definition.at("metadata.annotations").key(APPROVAL).as_str().unwrap_or_default() {
        "" => Approval::Missing,
        text if text.starts_with("unapproved") => Approval::Given,
        text => match text.split_once("://") {
            Some((scheme, host)) if !scheme.is_empty() && !host.is_empty() => Approval::Given,
            _ => Approval::Invalid,
        },
    }
}

/// The groups of the community want to be approved by it.
fn approval(out: &mut Causes, definition: &Value, old: Option<&Value>) {
    let group = definition.text("spec.group");
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|name| group.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let state = approval_of(definition);
    if !protected || old.is_some_and(|old| approval_of(old) == state) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVAL}]");
    let wanted = format!(r#"protected groups must have approval annotation "{APPROVAL}""#);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match state {
        Approval::Given => {}
        Approval::Missing => out.push(Cause::required(path, &format!("{wanted}, {see}"))),
        Approval::Invalid => {
            let detail = format!(r#"{wanted} with either a URL or a reason starting with "unapproved", {see}"#);
            out.push(Cause::invalid(path, definition.at("metadata.annotations").key(APPROVAL), &detail));
        }
    }
}

fn api_service(service: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let (name, spec) = (service.text("metadata.name"), service.at("spec"));
    let (group, version) = (spec.text("group"), spec.text("version"));
    let wanted = format!("{version}.{group}");
    if !name.is_empty() && name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {}", crate::kind::go_quote(&wanted));
        out.push(Cause::invalid("metadata.name", &name.into(), &detail));
    }
    if !group.is_empty() {
        text(&mut out, group, "spec.group", validate::dns1123_subdomain);
    } else if version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        out.push(Cause::required("spec.group", detail));
    }
    text(&mut out, version, "spec.version", validate::dns1035_label);
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = spec.int(field);
        if !(1..=max).contains(&number) {
            let detail = format!("must be positive and less than {max}");
            out.push(Cause::invalid(format!("spec.{field}"), &number.into(), &detail));
        }
    }
    let (bundle, careless) = (!spec.text("caBundle").is_empty(), spec.flag("insecureSkipTLSVerify"));
    let skip = |detail: &str| Cause::invalid("spec.insecureSkipTLSVerify", &true.into(), detail);
    if !spec.has("service") {
        if bundle {
            let bytes = base64_len(spec.text("caBundle"));
            let shown = Value::from(format!("{bytes} bytes"));
            out.push(Cause::invalid("spec.caBundle", &shown, "local APIServices may not have a caBundle"));
        }
        if careless {
            out.push(skip("local APIServices may not have insecureSkipTLSVerify"));
        }
        return out;
    }
    let called = spec.at("service");
    required(&mut out, called, "spec.service", "namespace");
    required(&mut out, called, "spec.service", "name");
    if let Some(text) = validate::port_number(called.int("port")) {
        let detail = format!("port is not valid: {text}");
        out.push(Cause::invalid("spec.service.port", &called.int("port").into(), &detail));
    }
    if careless && bundle {
        out.push(skip("may not be true if caBundle is present"));
    }
    out
}

/// How many bytes the text stands for.
fn base64_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}
