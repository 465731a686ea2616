//! Devices and claims for them. Their expressions are compiled where they run, not here.

use serde_json::{Value, json};

use super::check::{self, Causes, optional_one_of, required, text};
use super::read::{Read, Write};
use super::{columns, internal, rows};
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
    default: |claim| default_requests(claim, "spec.devices.requests"),
    prepare_create: |claim| claim.set("status", json!({})),
    validate_create: |claim| claim_spec(claim.at("spec"), "spec"),
    validate_update: |new, old| {
        let changed = new.at("spec") != old.at("spec");
        changed.then(|| Cause::invalid("spec", &Value::Null, "field is immutable")).into_iter().collect()
    },
    columns: columns::RESOURCE_CLAIM,
    row: rows::resource_claim,
    has_status: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_CLAIM_TEMPLATE: Behaviour = Behaviour {
    default: |template| default_requests(template, "spec.spec.devices.requests"),
    validate_create: |template| {
        let mut out = validate::labels(template.at("spec.metadata.labels"), "spec.metadata.labels");
        let path = "spec.metadata.annotations";
        out.extend(validate::annotations(template.at("spec.metadata.annotations"), path));
        out.extend(claim_spec(template.at("spec.spec"), "spec.spec"));
        out
    },
    validate_update: |new, old| {
        let changed = new.at("spec") != old.at("spec");
        let shown = internal_template(new.at("spec"));
        changed.then(|| Cause::invalid("spec", &shown, "field is immutable")).into_iter().collect()
    },
    columns: columns::RESOURCE_CLAIM_TEMPLATE,
    row: rows::name_age,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_SLICE: Behaviour = Behaviour {
    not_selectable: |field| format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}"),
    validate_create: slice,
    validate_update: |new, old| {
        let mut out = slice(new);
        for path in ["spec.driver", "spec.pool.name", "spec.nodeName"] {
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
    columns: columns::DEVICE_TAINT,
    row: rows::device_taint_rule,
    has_status: true,
    has_generation: true,
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

fn device_class(class: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    selectors(&mut out, class.list("spec.selectors"), "spec.selectors");
    for (at, config) in class.list("spec.config").iter().enumerate() {
        opaque(&mut out, config, &format!("spec.config[{at}]"));
    }
    out
}

fn selectors(out: &mut Causes, selectors: &[Value], path: &str) {
    for (at, selector) in selectors.iter().enumerate() {
        let path = format!("{path}[{at}].cel");
        if selector.at("cel").is_null() {
            out.push(Cause::required(path, ""));
        } else {
            required(out, selector.at("cel"), &path, "expression");
        }
    }
}

fn opaque(out: &mut Causes, config: &Value, path: &str) {
    let (path, opaque) = (format!("{path}.opaque"), config.at("opaque"));
    if opaque.is_null() {
        return out.push(Cause::required(path, ""));
    }
    driver(out, opaque.text("driver"), &format!("{path}.driver"));
    if opaque.at("parameters").is_null() {
        out.push(Cause::required(format!("{path}.parameters"), ""));
    }
}

fn driver(out: &mut Causes, name: &str, path: &str) {
    match name {
        "" => out.push(Cause::required(path, "")),
        _ => text(out, name, path, validate::dns1123_subdomain),
    }
}

/// What is declared comes after what is coded.
fn claim_spec(spec: &Value, path: &str) -> Vec<Cause> {
    let (mut out, mut declared) = (Vec::new(), Vec::new());
    let requests = spec.list("devices.requests");
    for (at, request) in requests.iter().enumerate() {
        let path = format!("{path}.devices.requests[{at}]");
        self::request(&mut out, &mut declared, request, &path);
    }
    let names: Vec<String> = requests
        .iter()
        .flat_map(|request| {
            let name = request.text("name");
            let parts = request.list("firstAvailable").iter().map(move |part| format!("{name}/{}", part.text("name")));
            std::iter::once(name.to_owned()).chain(parts)
        })
        .collect();
    for list in ["constraints", "config"] {
        for (at, item) in spec.at("devices").list(list).iter().enumerate() {
            let path = format!("{path}.devices.{list}[{at}]");
            request_names(&mut out, item, &names, &path);
            if list == "config" {
                opaque(&mut out, item, &path);
            } else if item.has("matchAttribute") {
                match_attribute(&mut declared, item.text("matchAttribute"), &format!("{path}.matchAttribute"));
            }
        }
    }
    for (at, request) in requests.iter().enumerate() {
        if requests[..at].iter().any(|other| other.at("name") == request.at("name")) {
            let path = format!("{path}.devices.requests[{at}]");
            out.push(Cause::duplicate(path, &json!({"name": request.at("name")})));
        }
    }
    out.extend(declared);
    out
}

fn request(out: &mut Causes, declared: &mut Causes, request: &Value, path: &str) {
    text_name(out, request.text("name"), &format!("{path}.name"));
    let (one, several) = (request.has("exactly"), request.has("firstAvailable"));
    if one == several {
        let detail = if one {
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"
        } else {
            "exactly one of `exactly` or `firstAvailable` is required"
        };
        match one {
            true => out.push(Cause::invalid(path, &Value::Null, detail)),
            false => out.push(Cause::required(path, detail)),
        }
    }
    if one {
        device_request(out, declared, request.at("exactly"), &format!("{path}.exactly"));
    }
    for (at, part) in request.list("firstAvailable").iter().enumerate() {
        let path = format!("{path}.firstAvailable[{at}]");
        text_name(out, part.text("name"), &format!("{path}.name"));
        device_request(out, declared, part, &path);
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
        text(out, class, &format!("{path}.deviceClassName"), validate::dns1123_subdomain);
    }
    selectors(out, request.list("selectors"), &format!("{path}.selectors"));
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
    optional_one_of(declared, request.at("allocationMode"), &path_of("allocationMode"), modes);
}

fn request_names(out: &mut Causes, item: &Value, names: &[String], path: &str) {
    let requests = item.list("requests");
    for (at, name) in requests.iter().enumerate() {
        let path = format!("{path}.requests[{at}]");
        if !names.iter().any(|known| name == known) {
            let detail = "must be the name of a request in the claim or the name of a request and a subrequest \
                          separated by '/'";
            out.push(Cause::invalid(&path, name, detail));
        }
        if requests[..at].contains(name) {
            out.push(Cause::duplicate(path, name));
        }
    }
}

/// A domain and an identifier.
fn match_attribute(out: &mut Causes, name: &str, path: &str) {
    let Some((domain, id)) = name.split_once('/') else {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        return out.push(Cause::invalid(path, &name.into(), detail));
    };
    text(out, domain, path, validate::dns1123_subdomain);
    text(out, id, path, identifier);
}

fn identifier(name: &str) -> Vec<String> {
    let word = name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    if word && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return Vec::new();
    }
    let what = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
                characters or '_'";
    vec![validate::regex_text(what, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// A template's spec as refusals show it.
fn internal_template(spec: &Value) -> Value {
    let mut shown = internal::shown("api.resource.v1.ResourceClaimTemplateSpec", spec);
    if shown.at("Spec.Devices.Requests").is_null() {
        shown.set("Spec.Devices.Requests", Value::Array(Vec::new()));
    }
    shown
}

fn slice(slice: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = slice.at("spec");
    driver(&mut out, spec.text("driver"), "spec.driver");
    match spec.text("pool.name") {
        "" => out.push(Cause::required("spec.pool.name", "")),
        name => {
            for part in name.split('/') {
                validate::push_all(&mut out, "spec.pool.name", part, validate::dns1123_subdomain(part));
            }
        }
    }
    if spec.int("pool.resourceSliceCount") <= 0 {
        let count = Value::from(spec.int("pool.resourceSliceCount"));
        out.push(Cause::invalid("spec.pool.resourceSliceCount", &count, "must be greater than zero"));
    }
    out.extend(validate::non_negative(spec.int("pool.generation"), "spec.pool.generation"));
    let places = ["nodeName", "nodeSelector"].iter().filter(|field| spec.has(field)).count()
        + ["allNodes", "perDeviceNodeSelection"].iter().filter(|field| spec.flag(field)).count();
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match places {
        0 => out.push(Cause::required("spec", one)),
        1 => {}
        _ => out.push(check::invalid_unshown("spec", &format!("{one}, but multiple fields are set"))),
    }
    let devices = spec.list("devices");
    for (at, device) in devices.iter().enumerate() {
        let path = format!("spec.devices[{at}]");
        text_name(&mut out, device.text("name"), &format!("{path}.name"));
        for map in ["attributes", "capacity"] {
            for (key, _) in device.at(map).entries() {
                let path = format!("{path}.{map}");
                match key.split_once('/') {
                    Some(_) => match_attribute(&mut out, key, &path),
                    None => text(&mut out, key, &path, identifier),
                }
            }
        }
        if devices[..at].iter().any(|other| other.at("name") == device.at("name")) {
            out.push(Cause::duplicate(format!("{path}.name"), device.at("name")));
        }
    }
    out
}

fn taint_rule(rule: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let (selector, taint) = (rule.at("spec.deviceSelector"), rule.at("spec.taint"));
    if selector.has("driver") {
        text(&mut out, selector.text("driver"), "spec.deviceSelector.driver", validate::dns1123_subdomain);
    }
    if selector.has("device") {
        text(&mut out, selector.text("device"), "spec.deviceSelector.device", validate::dns1123_label);
    }
    text(&mut out, taint.text("key"), "spec.taint.key", validate::qualified_name);
    text(&mut out, taint.text("value"), "spec.taint.value", validate::label_value);
    let effects = &["NoExecute", "NoSchedule", "None"];
    check::one_of(&mut out, taint.at("effect"), "spec.taint.effect", effects);
    out
}
