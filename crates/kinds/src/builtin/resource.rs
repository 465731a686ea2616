//! Devices and claims for them. Their expressions are compiled where they run, not here.

use serde_json::{Value, json};

use super::check::{Causes, optional_one_of, required, text};
use super::read::{Read, Write};
use super::volumes::{csi_driver_name, declared_driver_name};
use super::{columns, devices, internal, resources, rows, volumes};
use crate::validate;
use crate::{Behaviour, Cause};

pub static DEVICE_CLASS: Behaviour = Behaviour {
    validate_create: device_class,
    validate_update: |new, _| device_class(new),
    columns: columns::DEVICE_CLASS,
    row: rows::name_age,
    name_last: true,
    has_generation: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_CLAIM: Behaviour = Behaviour {
    checks_name_again: true,
    default: |claim| default_requests(claim, "spec.devices.requests"),
    prepare_create: |claim| claim.set("status", json!({})),
    validate_create: |claim| claim_spec(claim.at("spec"), "spec"),
    validate_update: |new, old| {
        let changed = new.at("spec") != old.at("spec");
        changed.then(|| Cause::invalid("spec", &Value::Null, "field is immutable")).into_iter().collect()
    },
    validate_status: devices::claim_status,
    columns: columns::RESOURCE_CLAIM,
    row: rows::resource_claim,
    has_status: true,
    returns_deleted: true,
    status_keeps_metadata: true,
    without_tables: &["status"],
    ..Behaviour::PLAIN
};

pub static RESOURCE_CLAIM_TEMPLATE: Behaviour = Behaviour {
    checks_name_again: true,
    default: |template| default_requests(template, "spec.spec.devices.requests"),
    validate_create: claim_template,
    validate_update: |new, old| {
        let mut out = claim_template(new);
        let changed = new.at("spec") != old.at("spec");
        let shown = internal_template(new.at("spec"));
        out.extend(changed.then(|| Cause::invalid("spec", &shown, "field is immutable")));
        out
    },
    columns: columns::RESOURCE_CLAIM_TEMPLATE,
    row: rows::name_age,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_SLICE: Behaviour = Behaviour {
    not_selectable: |field| format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}"),
    stamped: &["spec.devices[].taints[].timeAdded"],
    validate_create: devices::slice,
    validate_update: |new, old| {
        let mut out = devices::slice(new);
        for path in ["spec.pool.name", "spec.driver", "spec.nodeName"] {
            out.extend(validate::immutable(new.at(path), old.at(path), path));
        }
        out
    },
    columns: columns::NODE_RESOURCE_SLICE,
    row: rows::resource_slice,
    selectable: &[
        ("spec.nodeName", "/spec/nodeName"),
        ("spec.driver", "/spec/driver"),
        ("spec.pool.name", "/spec/pool/name"),
    ],
    has_generation: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static DEVICE_TAINT_RULE: Behaviour = Behaviour {
    prepare_create: |rule| {
        rule.set("status", json!({}));
    },
    prepare_update: |new, old| {
        // A taint of another effect is one of now, unless it says of when.
        let (taint, before) = (new.at("spec.taint"), old.at("spec.taint"));
        if taint.at("timeAdded") == before.at("timeAdded") && taint.at("effect") != before.at("effect") {
            new.remove("spec.taint.timeAdded");
        }
    },
    stamped: &["spec.taint.timeAdded"],
    validate_create: taint_rule,
    validate_update: |new, _| taint_rule(new),
    validate_status: |new, _| {
        let mut out = Vec::new();
        devices::conditions(&mut out, new.at("status"), "status");
        out
    },
    columns: columns::DEVICE_TAINT,
    row: rows::device_taint_rule,
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    status_keeps_metadata: true,
    without_tables: &["status"],
    ..Behaviour::PLAIN
};

fn default_requests(object: &mut Value, path: &str) {
    for request in object.list_mut(path) {
        if let Some(exactly) = request.at_mut("exactly").filter(|exactly| exactly.is_object()) {
            default_request(exactly);
        }
        request.list_mut("firstAvailable").iter_mut().for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    request.set_default("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" && request.int("count") == 0 {
        request.set("count", 1);
    }
}

/// Of most lists.
const LIST_MAX: usize = 32;

fn device_class(class: &Value) -> Vec<Cause> {
    let (mut out, mut declared) = (Vec::new(), Vec::new());
    selectors(&mut out, &mut declared, class.list("spec.selectors"), "spec.selectors");
    let configs = class.list("spec.config");
    if fits(&mut declared, configs, LIST_MAX, "spec.config") {
        for (at, config) in configs.iter().enumerate() {
            opaque(&mut out, None, config, &format!("spec.config[{at}]"));
        }
    }
    if let Some(name) = class.at("spec.extendedResourceName").as_str().filter(|name| !resources::is_extended(name)) {
        let detail = "must be a valid extended resource name";
        declared.push(Cause::invalid("spec.extendedResourceName", &name.into(), detail));
    }
    out.extend(declared);
    out
}

/// Lists that are too long are not looked at any closer.
fn fits(declared: &mut Causes, list: &[Value], most: usize, path: &str) -> bool {
    if list.len() > most {
        declared.push(Cause::too_many(path, list.len(), most));
    }
    list.len() <= most
}

/// Items of declared lists are told apart by a field.
pub fn unique(declared: &mut Causes, items: &[Value], at: usize, field: &str, path: &str) {
    if items[..at].iter().any(|other| other.at(field) == items[at].at(field)) {
        declared.push(Cause::duplicate(path, &json!({field: items[at].at(field)})));
    }
}

fn selectors(out: &mut Causes, declared: &mut Causes, selectors: &[Value], path: &str) {
    const EXPRESSION_MAX: usize = 10 * 1024;
    if !fits(declared, selectors, LIST_MAX, path) {
        return;
    }
    for (at, selector) in selectors.iter().enumerate() {
        let path = format!("{path}[{at}].cel");
        if selector.at("cel").is_null() {
            out.push(Cause::required(path, ""));
        } else if selector.text("cel.expression").len() > EXPRESSION_MAX {
            out.push(Cause::too_long(format!("{path}.expression"), EXPRESSION_MAX));
        } else {
            required(out, selector.at("cel"), &path, "expression");
        }
    }
}

/// Of what was allocated the driver's rule is `declared`.
pub fn opaque(out: &mut Causes, declared: Option<&mut Causes>, config: &Value, path: &str) {
    let (path, opaque) = (format!("{path}.opaque"), config.at("opaque"));
    if opaque.is_null() {
        return out.push(Cause::required(path, ""));
    }
    let (driver, field) = (opaque.text("driver"), format!("{path}.driver"));
    match declared {
        Some(declared) => declared_driver_name(declared, driver, &field),
        None => csi_driver_name(out, driver, &field),
    }
    devices::raw(out, opaque.at("parameters"), &format!("{path}.parameters"));
}

/// What is declared comes after what is coded.
fn claim_spec(spec: &Value, path: &str) -> Vec<Cause> {
    let (mut out, mut declared) = (Vec::new(), Vec::new());
    let requests = spec.list("devices.requests");
    let names = request_names(spec.at("devices"));
    if fits(&mut declared, requests, LIST_MAX, &format!("{path}.devices.requests")) {
        for (at, request) in requests.iter().enumerate() {
            let path = format!("{path}.devices.requests[{at}]");
            self::request(&mut out, &mut declared, request, &path);
        }
    }
    for list in ["constraints", "config"] {
        let items = spec.at("devices").list(list);
        if !fits(&mut declared, items, LIST_MAX, &format!("{path}.devices.{list}")) {
            continue;
        }
        for (at, item) in items.iter().enumerate() {
            let path = format!("{path}.devices.{list}[{at}]");
            requests_named(&mut out, &mut declared, item, &names, &path);
            if list == "config" {
                opaque(&mut out, None, item, &path);
            } else if item.has("matchAttribute") {
                match_attribute(&mut declared, item.text("matchAttribute"), &format!("{path}.matchAttribute"));
            } else if item.has("distinctAttribute") {
                match_attribute(&mut out, item.text("distinctAttribute"), &format!("{path}.distinctAttribute"));
            } else {
                let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                              are set";
                out.push(Cause::required(&path, detail));
            }
        }
    }
    let mut duplicates = Vec::new();
    for at in 0..requests.len() {
        unique(&mut duplicates, requests, at, "name", &format!("{path}.devices.requests[{at}]"));
    }
    out.extend(duplicates);
    out.extend(declared);
    out
}

/// Requests, and the parts of requests after the name of the whole.
pub fn request_names(devices: &Value) -> Vec<String> {
    let requests = devices.list("requests").iter();
    requests
        .flat_map(|request| {
            let name = request.text("name");
            let parts = request.list("firstAvailable").iter().map(move |part| format!("{name}/{}", part.text("name")));
            std::iter::once(name.to_owned()).chain(parts)
        })
        .collect()
}

fn request(out: &mut Causes, declared: &mut Causes, request: &Value, path: &str) {
    const PARTS_MAX: usize = 8;
    text_name(out, request.text("name"), &format!("{path}.name"));
    let parts = request.list("firstAvailable");
    match (request.has("exactly"), !parts.is_empty()) {
        (true, true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            out.push(Cause::invalid(path, &Value::Null, detail));
        }
        (false, false) => {
            out.push(Cause::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (true, false) => device_request(out, declared, request.at("exactly"), &format!("{path}.exactly")),
        (false, true) if fits(declared, parts, PARTS_MAX, &format!("{path}.firstAvailable")) => {
            for (at, part) in parts.iter().enumerate() {
                let path = format!("{path}.firstAvailable[{at}]");
                text_name(out, part.text("name"), &format!("{path}.name"));
                device_request(out, declared, part, &path);
                unique(declared, parts, at, "name", &path);
            }
        }
        (false, true) => {}
    }
}

fn text_name(out: &mut Causes, name: &str, path: &str) {
    match name {
        "" => out.push(Cause::required(path, "")),
        _ => text(out, name, path, validate::dns1123_label),
    }
}

fn device_request(out: &mut Causes, declared: &mut Causes, request: &Value, path: &str) {
    if required(out, request, path, "deviceClassName") {
        let class = request.text("deviceClassName");
        text(out, class, format_args!("{path}.deviceClassName"), validate::dns1123_subdomain);
    }
    selectors(out, declared, request.list("selectors"), &format!("{path}.selectors"));
    let path_of = |field: &str| format!("{path}.{field}");
    match request.text("allocationMode") {
        "ExactCount" if request.int("count") <= 0 => {
            out.push(Cause::invalid(path_of("count"), request.at("count"), "must be greater than zero"));
        }
        "All" if request.int("count") != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            out.push(Cause::invalid(path_of("count"), request.at("count"), detail));
        }
        _ => {}
    }
    let modes = &["All", "ExactCount"];
    optional_one_of(declared, request.at("allocationMode"), path_of("allocationMode"), modes);
    devices::tolerations(out, declared, request.list("tolerations"), path);
}

pub fn requests_named(out: &mut Causes, declared: &mut Causes, item: &Value, names: &[String], path: &str) {
    let (requests, path) = (item.list("requests"), format!("{path}.requests"));
    if !fits(declared, requests, LIST_MAX, &path) {
        return;
    }
    for (at, name) in requests.iter().enumerate() {
        request_name(out, name.as_str().unwrap_or_default(), names, &format!("{path}[{at}]"));
        if requests[..at].contains(name) {
            declared.push(Cause::duplicate(format!("{path}[{at}]"), name));
        }
    }
}

pub fn request_name(out: &mut Causes, name: &str, names: &[String], path: &str) {
    let detail =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    if name.matches('/').count() <= 1 {
        name.split('/').for_each(|part| text(out, part, path, validate::dns1123_label));
    }
    if !names.iter().any(|known| name == known) {
        out.push(Cause::invalid(path, &name.into(), detail));
    }
}

/// A domain and an identifier.
fn match_attribute(out: &mut Causes, name: &str, path: &str) {
    devices::qualified(out, name, path);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        out.push(Cause::invalid(path, &name.into(), detail));
    }
}

pub fn identifier(name: &str) -> Vec<String> {
    let word = name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    if word && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return Vec::new();
    }
    let what = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
                characters or '_'";
    vec![validate::regex_text(what, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// A template's spec as refusals show it.
fn claim_template(template: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    volumes::template_metadata(&mut out, template.at("spec.metadata"), "spec.metadata");
    out.extend(claim_spec(template.at("spec.spec"), "spec.spec"));
    out
}

fn internal_template(spec: &Value) -> Value {
    let mut shown = internal::shown("api.resource.v1.ResourceClaimTemplateSpec", spec);
    if shown.at("Spec.Devices.Requests").is_null() {
        shown.set("Spec.Devices.Requests", Value::Array(Vec::new()));
    }
    shown
}

fn taint_rule(rule: &Value) -> Vec<Cause> {
    let (mut out, mut declared) = (Vec::new(), Vec::new());
    let selector = rule.at("spec.deviceSelector");
    if selector.has("driver") {
        csi_driver_name(&mut out, selector.text("driver"), "spec.deviceSelector.driver");
    }
    if selector.has("pool") {
        devices::pool_name(&mut out, selector.text("pool"), "spec.deviceSelector.pool");
    }
    if selector.has("device") {
        text(&mut out, selector.text("device"), "spec.deviceSelector.device", validate::dns1123_label);
    }
    devices::taint(&mut out, &mut declared, rule.at("spec.taint"), "spec.taint");
    out.extend(declared);
    out
}
