//! What devices are like and who has them: slices of resources, and the statuses of claims.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check::{self, Causes, quantity, text};
use super::read::Read;
use super::volumes::csi_driver_name;
use super::{internal, pod_check, resource, volumes};
use crate::Cause;
use crate::validate;

const CONDITIONS_MAX: usize = 8;

/// What is coded of a slice; what is declared of it comes after.
pub fn slice(slice: &Value) -> Causes {
    const DEVICES_MAX: usize = 128;
    /// Where devices have taints or share counters.
    const COMPLEX_DEVICES_MAX: usize = 64;
    const COUNTER_SETS_MAX: usize = 8;
    let (mut out, mut declared) = (Vec::new(), Vec::new());
    let spec = slice.at("spec");
    csi_driver_name(&mut out, spec.text("driver"), "spec.driver");
    pool_name(&mut out, spec.text("pool.name"), "spec.pool.name");
    if spec.int("pool.resourceSliceCount") <= 0 {
        let count = Value::from(spec.int("pool.resourceSliceCount"));
        out.push(Cause::invalid("spec.pool.resourceSliceCount", &count, "must be greater than zero"));
    }
    if spec.int("pool.generation") < 0 {
        let detail = "must be greater than or equal to zero";
        out.push(Cause::invalid("spec.pool.generation", spec.at("pool.generation"), detail));
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let empty = "must be either unset or set to a non-empty string";
    let places = places(&mut out, spec, "spec", empty, &["allNodes", "perDeviceNodeSelection"]);
    if spec.has("nodeSelector") && spec.list("nodeSelector.nodeSelectorTerms").len() != 1 {
        let shown = internal::shown("api.core.v1.NodeSelector", spec.at("nodeSelector"));
        let path = "spec.nodeSelector.nodeSelectorTerms";
        out.push(Cause::invalid(path, shown.at("NodeSelectorTerms"), "must have exactly one node selector term"));
    }
    match places.len() {
        0 => out.push(Cause::required("spec", one)),
        1 => {}
        _ => out.push(several("spec", &places, &format!("{one}, but multiple fields are set"))),
    }
    if spec.has("sharedCounters") && spec.has("devices") {
        out.push(Cause::invalid("spec", &"".into(), "only one of `sharedCounters` or `devices` is allowed"));
    }
    let devices = spec.list("devices");
    let complex = |device: &Value| !device.list("taints").is_empty() || !device.list("consumesCounters").is_empty();
    let most = if devices.iter().any(complex) { COMPLEX_DEVICES_MAX } else { DEVICES_MAX };
    if devices.len() > most {
        out.push(Cause::too_many("spec.devices", devices.len(), most));
    } else {
        for (at, each) in devices.iter().enumerate() {
            device(&mut out, &mut declared, each, &format!("spec.devices[{at}]"), spec.flag("perDeviceNodeSelection"));
        }
        for (at, each) in devices.iter().enumerate() {
            if devices[..at].iter().any(|other| other.at("name") == each.at("name")) {
                out.push(Cause::duplicate(format!("spec.devices[{at}]"), &each.text("name").into()));
            }
        }
    }
    let sets = spec.list("sharedCounters");
    if sets.len() > COUNTER_SETS_MAX {
        declared.push(Cause::too_many("spec.sharedCounters", sets.len(), COUNTER_SETS_MAX));
    } else {
        for (at, set) in sets.iter().enumerate() {
            let path = format!("spec.sharedCounters[{at}]");
            label(&mut declared, set.text("name"), &format!("{path}.name"));
            counters(&mut out, set, &path);
            resource::unique(&mut declared, sets, at, "name", &path);
        }
    }
    out.extend(declared);
    out
}

/// Which of the fields that say on what nodes something is are set.
fn places(out: &mut Causes, of: &Value, path: &str, empty: &str, flags: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    if let Some(name) = of.at("nodeName").as_str() {
        let path = format!("{path}.nodeName");
        if name.is_empty() {
            out.push(Cause::invalid(path, &"".into(), empty));
        } else {
            places.push("`nodeName`".to_owned());
            text(out, name, &path, validate::dns1123_subdomain);
        }
    }
    if of.has("nodeSelector") {
        places.push("`nodeSelector`".to_owned());
        pod_check::node_selector(out, of.at("nodeSelector"), &format!("{path}.nodeSelector"));
    }
    for field in flags {
        match of.at(field).as_bool() {
            Some(true) => places.push(format!("`{field}`")),
            Some(false) => {
                let detail = "must be either unset or set to true";
                out.push(Cause::invalid(format!("{path}.{field}"), &false.into(), detail));
            }
            None => {}
        }
    }
    places
}

fn several(path: &str, places: &[String], detail: &str) -> Cause {
    Cause::invalid(path, &format!("{{{}}}", places.join(", ")).into(), detail)
}

fn device(out: &mut Causes, declared: &mut Causes, device: &Value, path: &str, places_of_own: bool) {
    const FACTS_MAX: usize = 32;
    const TAINTS_MAX: usize = 16;
    const CONSUMPTIONS_MAX: usize = 2;
    text(out, device.text("name"), format_args!("{path}.name"), validate::dns1123_label);
    let (attributes, capacity) = (device.at("attributes").entries(), device.at("capacity").entries());
    let facts = attributes.len() + capacity.len();
    if facts > FACTS_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {FACTS_MAX}");
        out.push(Cause::invalid(path, &facts.into(), &detail));
    }
    for (name, value) in attributes {
        // Keys are looked at by what is declared, which tells of the map.
        qualified(out, name, &format!("{path}.attributes"));
        attribute(out, declared, value, &format!("{path}.attributes[{name}]"));
    }
    for (name, value) in capacity {
        qualified(out, name, &format!("{path}.capacity"));
        let policy = format!("{path}.capacity[{name}].requestPolicy");
        match (value.at("requestPolicy"), device.flag("allowMultipleAllocations")) {
            (Value::Null, _) => {}
            (_, false) => out.push(Cause::forbidden(policy, "allowMultipleAllocations must be true")),
            (given, true) => request_policy(out, given, value.at("value"), &policy),
        }
    }
    let taints = device.list("taints");
    if taints.len() > TAINTS_MAX {
        out.push(Cause::too_many(format!("{path}.taints"), taints.len(), TAINTS_MAX));
    } else {
        for (at, each) in taints.iter().enumerate() {
            taint(out, declared, each, &format!("{path}.taints[{at}]"));
        }
    }
    let consumed = device.list("consumesCounters");
    if consumed.len() > CONSUMPTIONS_MAX {
        declared.push(Cause::too_many(format!("{path}.consumesCounters"), consumed.len(), CONSUMPTIONS_MAX));
    } else {
        for (at, each) in consumed.iter().enumerate() {
            let path = format!("{path}.consumesCounters[{at}]");
            label(declared, each.text("counterSet"), &format!("{path}.counterSet"));
            counters(out, each, &path);
            resource::unique(declared, consumed, at, "counterSet", &path);
        }
    }
    let where_ = "can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if places_of_own {
        let places = places(out, device, path, "must not be empty", &["allNodes"]);
        let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                      `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        match places.len() {
            0 => out.push(Cause::required(path, detail)),
            1 => {}
            _ => out.push(several(path, &places, detail)),
        }
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| device.has(field)) {
        let detail = format!("`nodeName`, `nodeSelector` and `allNodes` {where_}");
        out.push(Cause::invalid(path, &Value::Null, &detail));
    }
    binding(out, declared, device, path);
}

/// Counters by name, at least one.
fn counters(out: &mut Causes, of: &Value, path: &str) {
    const COUNTERS_MAX: usize = 32;
    let (counters, path) = (of.at("counters").entries(), format!("{path}.counters"));
    if counters.is_empty() {
        out.push(Cause::required(path, ""));
    } else if counters.len() > COUNTERS_MAX {
        out.push(Cause::too_many(path, counters.len(), COUNTERS_MAX));
    } else {
        for (name, _) in counters {
            text(out, name, format_args!("{path}[{name}]"), validate::dns1123_label);
        }
    }
}

fn label(out: &mut Causes, name: &str, path: &str) {
    match name {
        "" => out.push(Cause::required(path, "")),
        _ => text(out, name, path, validate::dns1123_label),
    }
}

/// An identifier, of a domain or not.
pub fn qualified(out: &mut Causes, name: &str, path: &str) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [id] => identifier(out, id, path),
        [domain, id] => {
            match domain {
                "" => out.push(Cause::invalid(path, &"".into(), "the domain must not be empty")),
                _ => csi_driver_name(out, domain, path),
            }
            match id {
                "" => out.push(Cause::invalid(path, &"".into(), "the name must not be empty")),
                _ => identifier(out, id, path),
            }
        }
        _ => {}
    }
}

fn identifier(out: &mut Causes, id: &str, path: &str) {
    const ID_MAX: usize = 32;
    if id.len() > ID_MAX {
        out.push(Cause::too_long(path, ID_MAX));
    }
    text(out, id, path, resource::identifier);
}

fn attribute(out: &mut Causes, declared: &mut Causes, attribute: &Value, path: &str) {
    const VALUE_MAX: usize = 64;
    const VALUES: [&str; 8] = ["int", "bool", "string", "version", "ints", "bools", "strings", "versions"];
    for field in ["string", "version"] {
        let Some(value) = attribute.at(field).as_str() else { continue };
        let path = format!("{path}.{field}");
        if field == "version" && !is_semantic_version(value) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            out.push(Cause::invalid(&path, &value.into(), detail));
        }
        if value.len() > VALUE_MAX {
            out.push(Cause::too_long(path, VALUE_MAX));
        }
    }
    let given: Vec<&str> = VALUES.into_iter().filter(|field| attribute.has(field)).collect();
    let all = VALUES.map(|field| format!("`{field}`")).join(", ");
    match given[..] {
        [] => declared.push(Cause::invalid(path, &"".into(), &format!("must specify one of: {all}"))),
        [_] => {}
        _ => {
            let shown = format!("{{{}}}", given.join(", "));
            declared.push(Cause::invalid(path, &shown.into(), &format!("must specify exactly one of: {all}")));
        }
    }
}

fn is_semantic_version(version: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric());
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, early) = rest.split_once('-').map_or((rest, None), |(core, early)| (core, Some(early)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && early.is_none_or(|early| early.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// How much of a capacity may be asked for at once.
fn request_policy(out: &mut Causes, policy: &Value, capacity: &Value, path: &str) {
    const OPTIONS_MAX: usize = 10;
    let most = quantity(capacity);
    let (values, range) = (policy.list("validValues"), policy.at("validRange"));
    if !values.is_empty() && !range.is_null() {
        let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
                      same time";
        return out.push(Cause::forbidden(path, detail));
    }
    let default = policy.at("default");
    let kind = match (values.is_empty(), range.is_null()) {
        (true, true) => return,
        (false, _) => "validValues",
        (true, false) => "validRange",
    };
    if default.is_null() {
        return out.push(Cause::required(format!("{path}.default"), &format!("required when {kind} is defined")));
    }
    let wanted = quantity(default);
    let path = format!("{path}.{kind}");
    let shown = |value: &Value| value.as_str().unwrap_or("0").to_owned();
    let larger = |what: &str| format!("{what} is larger than capacity value: {}", shown(capacity));
    if kind == "validValues" {
        for (at, pair) in values.windows(2).enumerate() {
            if quantity(&pair[0]) > quantity(&pair[1]) {
                let path = format!("{path}[{}]", at + 1);
                out.push(Cause::invalid(path, &pair[1], "values must be sorted in ascending order"));
            }
        }
        if values.len() > OPTIONS_MAX {
            out.push(Cause::too_many(&path, values.len(), OPTIONS_MAX));
        }
        for (at, value) in values.iter().enumerate().take_while(|_| values.len() <= OPTIONS_MAX) {
            if quantity(value) > most {
                out.push(Cause::invalid(format!("{path}[{at}]"), value, &larger("option")));
            }
        }
        for (at, value) in values.iter().enumerate().take_while(|_| values.len() <= OPTIONS_MAX) {
            if values[..at].iter().any(|other| quantity(other).value() == quantity(value).value()) {
                let key = quantity(value).value().to_string();
                out.push(Cause::duplicate(format!("{path}[{at}]"), &key.into()));
            }
        }
        if !values.iter().any(|value| quantity(value) == wanted) {
            let detail = "default value is not valid according to the requestPolicy";
            out.push(Cause::invalid(path, default, detail));
        }
        return;
    }
    let (min, max, step) = (range.at("min"), range.at("max"), range.at("step"));
    if min.is_null() {
        return out.push(Cause::required(format!("{path}.min"), "required when validRange is defined"));
    }
    let mut invalid = |field: &str, value: &Value, detail: String| {
        out.push(Cause::invalid(format!("{path}.{field}"), value, &detail));
    };
    let least = quantity(min);
    if least > most {
        invalid("min", min, larger("min"));
    }
    if wanted < least {
        invalid("min", default, format!("default is less than min: {}", shown(min)));
    }
    if !max.is_null() {
        if least > quantity(max) {
            invalid("max", min, format!("min is larger than max: {}", shown(max)));
        }
        if quantity(max) > most {
            invalid("max", max, larger("max"));
        }
        if wanted > quantity(max) {
            invalid("max", default, format!("default is more than max: {}", shown(max)));
        }
    }
    if step.is_null() {
        return;
    }
    let next = least.add(&quantity(step));
    if next > most {
        invalid("step", step, larger(&format!("one step {next}")));
    }
    for value in [default, max].into_iter().filter(|value| !value.is_null()) {
        let (above, by) = (quantity(value).value() - least.value(), quantity(step).value());
        if by != 0 && above % by != 0 {
            let detail = format!("value is not a multiple of a given step ({}) from ({})", shown(step), shown(min));
            invalid("step", value, detail);
        }
    }
}

pub fn taint(out: &mut Causes, declared: &mut Causes, taint: &Value, path: &str) {
    text(out, taint.text("key"), format_args!("{path}.key"), validate::qualified_name);
    text(out, taint.text("value"), format_args!("{path}.value"), validate::label_value);
    check::one_of(declared, taint.at("effect"), format_args!("{path}.effect"), EFFECTS);
}

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

pub fn tolerations(out: &mut Causes, declared: &mut Causes, tolerations: &[Value], path: &str) {
    const OPERATORS: &[&str] = &["Equal", "Exists"];
    for (at, toleration) in tolerations.iter().enumerate() {
        let path = format!("{path}.tolerations[{at}]");
        let (key, value) = (toleration.text("key"), toleration.text("value"));
        if !key.is_empty() {
            text(declared, key, format_args!("{path}.key"), validate::qualified_name);
        }
        match toleration.text("operator") {
            "Exists" if !value.is_empty() => {
                let detail = "must be empty for operator `Exists`";
                out.push(Cause::invalid(format!("{path}.value"), &value.into(), detail));
            }
            "Exists" => {}
            "Equal" => text(out, value, format_args!("{path}.value"), validate::label_value),
            "" => out.push(Cause::required(format!("{path}.operator"), "")),
            _ => {
                let operator = toleration.at("operator");
                declared.push(Cause::not_supported(format!("{path}.operator"), operator, OPERATORS));
            }
        }
        if !toleration.text("effect").is_empty() {
            check::one_of(declared, toleration.at("effect"), format_args!("{path}.effect"), EFFECTS);
        }
    }
}

/// Conditions that are waited for before a pod is bound, and those that end the waiting.
fn binding(out: &mut Causes, declared: &mut Causes, of: &Value, path: &str) {
    const MOST: usize = 4;
    const FIELDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    let [wanted, failures] = FIELDS.map(|field| of.list(field));
    for (field, list) in FIELDS.into_iter().zip([wanted, failures]) {
        let path = format!("{path}.{field}");
        if list.len() > MOST {
            declared.push(Cause::too_many(path, list.len(), MOST));
            continue;
        }
        for (at, name) in list.iter().enumerate() {
            text(out, name.as_str().unwrap_or_default(), format_args!("{path}[{at}]"), validate::qualified_name);
        }
    }
    for (field, list) in FIELDS.into_iter().zip([wanted, failures]) {
        for (at, name) in list.iter().enumerate() {
            let path = format!("{path}.{field}[{at}]");
            if list[..at].contains(name) {
                out.push(Cause::duplicate(&path, name));
            }
            if field == FIELDS[1] && wanted.contains(name) {
                let detail = "bindingFailureConditions must not overlap with bindingConditions";
                out.push(Cause::invalid(path, name, detail));
            }
        }
    }
    for (field, other, missing) in [(FIELDS[0], FIELDS[1], wanted), (FIELDS[1], FIELDS[0], failures)] {
        if missing.is_empty() && !of.list(other).is_empty() {
            let detail = format!("{field} are required to use {other}");
            out.push(Cause::invalid(format!("{path}.{field}"), of.at(field), &detail));
        }
    }
}

pub fn pool_name(out: &mut Causes, name: &str, path: &str) {
    const NAME_MAX: usize = 253;
    if name.is_empty() {
        return out.push(Cause::required(path, ""));
    }
    if name.len() > NAME_MAX {
        out.push(Cause::too_long(path, NAME_MAX));
    }
    for part in name.split('/') {
        validate::push_all(out, path, part, validate::dns1123_subdomain(part));
    }
}

/// JSON that only a driver understands.
pub fn raw(out: &mut Causes, value: &Value, path: &str) {
    const BYTES_MAX: usize = 10 * 1024;
    if value.is_null() {
        out.push(Cause::required(path, ""));
    } else if value.to_string().len() > BYTES_MAX {
        out.push(Cause::too_long(path, BYTES_MAX));
    } else if !value.is_object() {
        out.push(Cause::invalid(path, &"<value omitted>".into(), "must be a valid JSON object"));
    }
}

/// What a claim got, who uses it, and how its devices are.
pub fn claim_status(new: &Value, old: &Value) -> Causes {
    const CONSUMERS_MAX: usize = 256;
    // What is declared is told last, in the order of the fields.
    let (mut out, mut of_allocation, mut of_consumers, mut of_devices) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (status, before) = (new.at("status"), old.at("status"));
    let consumers = status.list("reservedFor");
    if consumers.len() > CONSUMERS_MAX {
        of_consumers.push(Cause::too_many("status.reservedFor", consumers.len(), CONSUMERS_MAX));
    } else {
        for (at, consumer) in consumers.iter().enumerate() {
            let path = format!("status.reservedFor[{at}]");
            for field in ["resource", "name", "uid"] {
                check::required(&mut out, consumer, &path, field);
            }
            if consumers[..at].iter().any(|other| other.at("uid") == consumer.at("uid")) {
                of_consumers.push(Cause::duplicate(&path, consumer));
            }
        }
    }
    let key = |device: &Value| {
        let [driver, pool, name, share] = ["driver", "pool", "device", "shareID"].map(|field| device.text(field));
        let share = if share.is_empty() { String::new() } else { format!("/{share}") };
        format!("{driver}/{pool}/{name}{share}")
    };
    let allocated: BTreeSet<String> = status.list("allocation.devices.results").iter().map(key).collect();
    let (mut seen, mut duplicates) = (BTreeSet::new(), Vec::new());
    for (at, device) in status.list("devices").iter().enumerate() {
        let path = format!("status.devices[{at}]");
        csi_driver_name(&mut out, device.text("driver"), &format!("{path}.driver"));
        pool_name(&mut out, device.text("pool"), &format!("{path}.pool"));
        text(&mut out, device.text("device"), format_args!("{path}.device"), validate::dns1123_label);
        share_id(&mut of_devices, device, &path);
        let key = key(device);
        if !allocated.contains(&key) {
            let [driver, pool, name, share] = ["driver", "pool", "device", "shareID"].map(|field| device.text(field));
            let shown = json!({"Driver": driver, "Pool": pool, "Device": name, "ShareID": share});
            out.push(Cause::invalid(&path, &shown, "must be an allocated device in the claim"));
        }
        if !seen.insert(key) {
            duplicates.push(Cause::duplicate(&path, device));
        }
        conditions(&mut out, device, &path);
        if device.has("data") {
            raw(&mut out, device.at("data"), &format!("{path}.data"));
        }
        network(&mut out, &mut of_devices, device.at("networkData"), &format!("{path}.networkData"));
    }
    if !consumers.is_empty() {
        let added = consumers.iter().any(|consumer| !before.list("reservedFor").contains(consumer));
        if !status.has("allocation") {
            let detail = "may not be specified when `allocated` is not set";
            out.push(Cause::forbidden("status.reservedFor", detail));
        } else if new.has("metadata.deletionTimestamp") && added {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            out.push(Cause::forbidden("status.reservedFor", detail));
        }
    }
    let (after, was) = (status.at("allocation"), before.at("allocation"));
    match (after.is_null(), was.is_null()) {
        (false, false) if after != was => {
            of_allocation.push(Cause::invalid("status.allocation", &Value::Null, "field cannot be modified once set"));
        }
        (false, true) => {
            allocation(&mut out, &mut of_allocation, after, &resource::request_names(new.at("spec.devices")))
        }
        _ => {}
    }
    out.extend([of_allocation, of_consumers, duplicates, of_devices].into_iter().flatten());
    out
}

/// One device is shared under several of these.
fn share_id(declared: &mut Causes, device: &Value, path: &str) {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let id = device.text("shareID");
    let hex = |group: &str| group.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_uuid = id.split('-').map(str::len).eq(GROUPS) && id.split('-').all(hex);
    if !id.is_empty() && !is_uuid {
        let detail = "must be a lowercase UUID in 8-4-4-4-12 format";
        declared.push(Cause::invalid(format!("{path}.shareID"), &id.into(), detail));
    }
}

/// A pool of a device that was allocated: its rule is declared, in other words than [`pool_name`]'s.
fn declared_pool_name(out: &mut Causes, name: &str, path: &str) {
    const NAME_MAX: usize = 253;
    if name.is_empty() {
        return out.push(Cause::required(path, ""));
    }
    if name.len() > NAME_MAX {
        out.push(Cause::too_long(path, NAME_MAX));
    }
    for (at, part) in name.split('/').enumerate() {
        let mut wrong = |value: &str, why: &str| {
            out.push(Cause::invalid(path, &value.into(), &format!("segment {at}: {why}")));
        };
        if part.is_empty() {
            wrong(name, "must not be empty");
        } else if part.len() > NAME_MAX {
            wrong(part, &format!("must be no more than {NAME_MAX} bytes"));
        } else {
            validate::dns1123_subdomain(part).iter().for_each(|why| wrong(part, why));
        }
    }
}

pub fn conditions(out: &mut Causes, of: &Value, path: &str) {
    let (list, path) = (of.list("conditions"), format!("{path}.conditions"));
    if list.len() > CONDITIONS_MAX {
        out.push(Cause::too_many(&path, list.len(), CONDITIONS_MAX));
    }
    check::conditions(out, list, &path);
}

fn network(out: &mut Causes, declared: &mut Causes, network: &Value, path: &str) {
    const IPS_MAX: usize = 16;
    for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if network.text(field).len() > most {
            declared.push(Cause::too_long(format!("{path}.{field}"), most));
        }
    }
    let (ips, path) = (network.list("ips"), format!("{path}.ips"));
    if ips.len() > IPS_MAX {
        return declared.push(Cause::too_many(path, ips.len(), IPS_MAX));
    }
    for (at, ip) in ips.iter().enumerate() {
        let given = ip.as_str().unwrap_or_default();
        if check::parse_cidr(given).is_none() {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            out.push(Cause::invalid(format!("{path}[{at}]"), ip, detail));
        }
        if ips[..at].contains(ip) {
            declared.push(Cause::duplicate(format!("{path}[{at}]"), ip));
        }
    }
}

fn allocation(out: &mut Causes, declared: &mut Causes, allocation: &Value, names: &[String]) {
    const RESULTS_MAX: usize = 32;
    const CONFIGS_MAX: usize = 64;
    const SOURCES: &[&str] = &["FromClaim", "FromClass"];
    let (path, devices) = ("status.allocation.devices", allocation.at("devices"));
    let results = devices.list("results");
    if results.len() > RESULTS_MAX {
        declared.push(Cause::too_many(format!("{path}.results"), results.len(), RESULTS_MAX));
    } else {
        for (at, result) in results.iter().enumerate() {
            let path = format!("{path}.results[{at}]");
            resource::request_name(out, result.text("request"), names, &format!("{path}.request"));
            text(out, result.text("device"), format_args!("{path}.device"), validate::dns1123_label);
            volumes::declared_driver_name(declared, result.text("driver"), &format!("{path}.driver"));
            declared_pool_name(declared, result.text("pool"), &format!("{path}.pool"));
            tolerations(out, declared, result.list("tolerations"), &path);
            binding(out, declared, result, &path);
            share_id(declared, result, &path);
        }
    }
    let configs = devices.list("config");
    if configs.len() > CONFIGS_MAX {
        declared.push(Cause::too_many(format!("{path}.config"), configs.len(), CONFIGS_MAX));
    } else {
        for (at, config) in configs.iter().enumerate() {
            let path = format!("{path}.config[{at}]");
            check::one_of(declared, config.at("source"), format_args!("{path}.source"), SOURCES);
            resource::requests_named(out, declared, config, names, &path);
            resource::opaque(out, Some(declared), config, &path);
        }
    }
    if allocation.has("nodeSelector") {
        pod_check::node_selector(out, allocation.at("nodeSelector"), "status.allocation.nodeSelector");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: Causes) -> Vec<String> {
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn check_device(device: Value, expected: &[&str]) {
        let pool = json!({"name": "p", "resourceSliceCount": 1});
        let spec = json!({"driver": "d.example.com", "pool": pool, "allNodes": true, "devices": [device]});
        assert_eq!(told(slice(&json!({"spec": spec}))), expected);
    }

    #[test]
    fn attributes_have_one_value() {
        check_device(
            json!({"name": "a", "attributes": {"v": {"version": "1.02.3"}, "none": {}}}),
            &[
                "spec.devices[0].attributes[v].version: Invalid value: \"1.02.3\": must be a string compatible with \
                 semver.org spec 2.0.0",
                "spec.devices[0].attributes[none]: Invalid value: \"\": must specify one of: `int`, `bool`, `string`, \
                 `version`, `ints`, `bools`, `strings`, `versions`",
            ],
        );
        for right in ["1.2.3", "0.0.0-alpha.1+b-7", "1.0.0+001"] {
            assert!(is_semantic_version(right), "{right}");
        }
        for wrong in ["1.2", "1.2.3-01", "1.2.3-", "v1.2.3"] {
            assert!(!is_semantic_version(wrong), "{wrong}");
        }
    }

    #[test]
    fn policies_fit_their_capacity() {
        let capacity = |policy: Value| json!({"memory": {"value": "10", "requestPolicy": policy}});
        check_device(
            json!({"name": "a", "capacity": capacity(json!({"default": "1"}))}),
            &["spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true"],
        );
        let range = json!({"default": "3", "validRange": {"min": "2", "max": "12", "step": "2"}});
        check_device(
            json!({"name": "a", "allowMultipleAllocations": true, "capacity": capacity(range)}),
            &[
                "spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: \"12\": max is larger \
                 than capacity value: 10",
                "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"3\": value is not a \
                 multiple of a given step (2) from (2)",
            ],
        );
    }

    #[test]
    fn conditions_of_binding_come_in_pairs() {
        check_device(
            json!({"name": "a", "bindingConditions": ["x"], "nodeName": "n"}),
            &[
                "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if \
                 `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to \
                 use bindingConditions",
            ],
        );
    }

    #[test]
    fn only_allocated_devices_have_a_state() {
        let claim = |status: Value| json!({"spec": {"devices": {"requests": [{"name": "r"}]}}, "status": status});
        let device = json!({"driver": "d.example.com", "pool": "p", "device": "a", "shareID": "x"});
        let status = json!({"devices": [device], "reservedFor": [{"resource": "pods", "name": "x"}]});
        assert_eq!(
            told(claim_status(&claim(status), &claim(json!({})))),
            [
                "status.reservedFor[0].uid: Required value",
                r#"status.devices[0]: Invalid value: {"Driver":"d.example.com","Pool":"p","Device":"a","ShareID":"x"}: must be an allocated device in the claim"#,
                "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
                "status.devices[0].shareID: Invalid value: \"x\": must be a lowercase UUID in 8-4-4-4-12 format",
            ]
        );
    }

    #[test]
    fn what_was_allocated_has_declared_rules() {
        let claim = |status: Value| json!({"spec": {"devices": {"requests": [{"name": "r"}]}}, "status": status});
        let result = json!({"request": "r", "driver": "", "pool": "a//B", "device": "d", "shareID": "x"});
        let status = json!({"allocation": {"devices": {"results": [result]}}});
        let told = told(claim_status(&claim(status), &claim(json!({}))));
        let path = "status.allocation.devices.results[0]";
        assert_eq!(told[0], format!("{path}.driver: Required value"));
        assert_eq!(told[1], format!("{path}.pool: Invalid value: \"a//B\": segment 1: must not be empty"));
        assert!(
            told[2].starts_with(&format!("{path}.pool: Invalid value: \"B\": segment 2: a lowercase")),
            "{}",
            told[2]
        );
        assert_eq!(
            told[3],
            format!("{path}.shareID: Invalid value: \"x\": must be a lowercase UUID in 8-4-4-4-12 format")
        );
    }
}
