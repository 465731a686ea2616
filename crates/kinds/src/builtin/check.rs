//! The small checks that validation is made of, each with Kubernetes' words. Knows no kind.

use std::fmt::Display;

use serde_json::Value;

use super::read::Read;
use crate::quantity::Quantity;
use crate::validate::{self, push_all};
use crate::{Cause, CauseReason};

pub type Causes = Vec<Cause>;

/// `Required value` when the text is empty.
pub fn required(out: &mut Causes, object: &Value, path: impl Display, field: &str) -> bool {
    let missing = object.text(field).is_empty();
    if missing {
        out.push(Cause::required(format!("{path}.{field}"), ""));
    }
    !missing
}

/// The text is one of these; `Required value` when it is empty.
pub fn one_of(out: &mut Causes, value: &Value, path: impl Display, supported: &[&str]) {
    match value.as_str().unwrap_or_default() {
        "" => out.push(Cause::required(path, "")),
        text if supported.contains(&text) => {}
        _ => out.push(Cause::not_supported(path, value, supported)),
    }
}

/// The text is there and one of these, for Go's pointers: an empty one is there.
pub fn set_one_of(out: &mut Causes, value: &Value, path: impl Display, supported: &[&str]) {
    match value {
        Value::Null => out.push(Cause::required(path, "")),
        _ => optional_one_of(out, value, path, supported),
    }
}

/// The text is absent or one of these.
pub fn optional_one_of(out: &mut Causes, value: &Value, path: impl Display, supported: &[&str]) {
    if value.as_str().is_some_and(|text| !supported.contains(&text)) {
        out.push(Cause::not_supported(path, value, supported));
    }
}

/// What `check` says of the text.
pub fn text(out: &mut Causes, value: &str, path: impl Display, check: fn(&str) -> Vec<String>) {
    push_all(out, path, value, check(value));
}

/// `Invalid value: N: must be between ..`.
pub fn in_range(out: &mut Causes, number: i64, path: impl Display, low: i64, high: i64) {
    out.extend(validate::in_range(number, low, high).map(|text| Cause::invalid(path, &Value::from(number), &text)));
}

/// As [`in_range`] for a field that may be absent.
pub fn opt_in_range(out: &mut Causes, object: &Value, path: impl Display, field: &str, low: i64, high: i64) {
    if let Some(number) = object.opt_int(field) {
        in_range(out, number, format_args!("{path}.{field}"), low, high);
    }
}

/// Users and groups.
pub const ID_MAX: i64 = i32::MAX as i64;

/// `must be greater than or equal to 0`, for the fields of an object.
pub fn non_negative(out: &mut Causes, object: &Value, path: impl Display, fields: &[&str]) {
    for field in fields {
        out.extend(validate::non_negative(object.int(field), format_args!("{path}.{field}")));
    }
}

/// A port by number or name.
pub fn port(out: &mut Causes, port: &Value, path: impl Display) {
    match port {
        Value::String(name) => text(out, name, path, validate::port_name),
        _ => in_range(out, port.as_i64().unwrap_or_default(), path, 1, 65535),
    }
}

/// A path below where it is used.
pub fn local_path(out: &mut Causes, value: &str, path: impl Display) {
    if value.starts_with('/') {
        out.push(Cause::invalid(&path, &value.into(), "must be a relative path"));
    }
    no_backsteps(out, value, path);
}

/// As [`local_path`], and not one of the names that volumes keep for themselves.
pub fn local_free_path(out: &mut Causes, value: &str, path: impl Display) {
    local_path(out, value, &path);
    if value.starts_with("..") && !value.starts_with("../") {
        out.push(Cause::invalid(&path, &value.into(), "must not start with '..'"));
    }
}

pub fn no_backsteps(out: &mut Causes, value: &str, path: impl Display) {
    if value.split('/').any(|part| part == "..") {
        out.push(Cause::invalid(path, &value.into(), "must not contain '..'"));
    }
}

/// A file mode that may be absent.
pub fn mode(out: &mut Causes, object: &Value, path: impl Display, field: &str) {
    if object.opt_int(field).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        out.push(Cause::invalid(format!("{path}.{field}"), object.at(field), detail));
    }
}

/// A label selector that may be absent.
pub fn label_selector(out: &mut Causes, selector: &Value, path: impl Display) {
    if selector.is_null() {
        return;
    }
    out.extend(validate::labels(selector.at("matchLabels"), format_args!("{path}.matchLabels")));
    for (at, expression) in selector.list("matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{at}]");
        let values = expression.list("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.is_empty() => out.push(Cause::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => out.push(Cause::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => {
                out.push(Cause::invalid(format!("{path}.operator"), &operator.into(), "not a valid selector operator"))
            }
        }
        text(out, expression.text("key"), format_args!("{path}.key"), validate::qualified_name);
        for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
            text(out, value, format_args!("{path}.values[{at}]"), validate::label_value);
        }
    }
}

/// A quantity field, zero where it is absent. What decoded is a quantity.
pub fn quantity(value: &Value) -> Quantity {
    Quantity::parse(value.as_str().unwrap_or("0")).unwrap_or_else(|_| zero())
}

pub fn zero() -> Quantity {
    Quantity::parse("0").expect("zero is a quantity")
}

/// `must be greater than or equal to 0`, for a quantity.
pub fn non_negative_quantity(out: &mut Causes, value: &Value, path: impl Display) {
    if quantity(value).is_negative() {
        out.push(Cause::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// An `IntOrString` that is a count or a percentage.
pub fn count_or_percent(out: &mut Causes, value: &Value, path: impl Display) {
    match value {
        Value::String(percent) => {
            text(out, percent, path, validate::percent);
        }
        _ => out.extend(validate::non_negative(value.as_i64().unwrap_or_default(), path)),
    }
}

/// An address that is given must be one.
pub fn ip(out: &mut Causes, value: &str, path: impl Display) {
    out.extend(validate::ip(value, path));
}

/// A selector as Go's label selectors match: an absent one selects nothing, an empty one everything.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector.at("matchLabels").entries().iter().all(|(key, value)| labels.key(key) == *value);
    !selector.is_null()
        && equal
        && selector.list("matchExpressions").iter().all(|expression| {
            let value = labels.key(expression.text("key"));
            let listed = expression.list("values").contains(value);
            match expression.text("operator") {
                "In" => !value.is_null() && listed,
                "NotIn" => value.is_null() || !listed,
                "Exists" => !value.is_null(),
                _ => value.is_null(),
            }
        })
}

/// `Not found: VALUE: detail`.
pub fn not_found(path: impl Display, value: &str, detail: &str) -> Cause {
    let mut cause = Cause::not_found(path, &value.into());
    cause.message.push_str(": ");
    cause.message.push_str(detail);
    cause
}

/// `Internal error: detail`.
pub fn internal(path: impl Display, detail: &str) -> Cause {
    Cause { reason: CauseReason::Internal, field: path.to_string(), message: format!("Internal error: {detail}") }
}

/// `Invalid value: detail`, for a value that is too much to show.
pub fn invalid_unshown(path: impl Display, detail: &str) -> Cause {
    Cause { reason: CauseReason::Invalid, field: path.to_string(), message: format!("Invalid value: {detail}") }
}

/// What `ValidateLabelSelector` says, and that it must select by something.
pub fn workload_selector(out: &mut Causes, selector: &Value, path: &str, kind: &str) -> bool {
    let before = out.len();
    label_selector(out, selector, path);
    let right = out.len() == before;
    if !selector.is_null() && selector.list("matchExpressions").is_empty() && selector.at("matchLabels").is_nothing() {
        out.push(Cause::invalid(path, selector, &format!("empty selector is invalid for {kind}")));
    }
    right
}

/// A map as it is shown: by its keys.
pub fn by_key(map: &Value) -> Value {
    let mut map = map.clone();
    map.sort_all_objects();
    map
}

/// A percentage as its number; a count as itself.
pub fn count_of(value: &Value) -> i64 {
    match value {
        Value::String(percent) => percent.trim_end_matches('%').parse().unwrap_or(0),
        _ => value.as_i64().unwrap_or_default(),
    }
}

pub fn at_most_100_percent(out: &mut Causes, value: &Value, path: &str) {
    if value.is_string() && count_of(value) > 100 {
        out.push(Cause::invalid(path, value, "must not be greater than 100%"));
    }
}

/// `cannot be greater than ..`, for two counts of a status.
pub fn not_above(out: &mut Causes, status: &Value, field: &str, other: &str, detail: &str) {
    if status.int(field) > status.int(other) {
        out.push(Cause::invalid(format!("status.{field}"), &status.int(field).into(), detail));
    }
}

/// `example.com/path`.
pub fn domain_prefixed_path(out: &mut Causes, value: &str, path: &str) {
    if value.is_empty() {
        return out.push(Cause::required(path, ""));
    }
    match value.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            text(out, host, path, validate::dns1123_subdomain);
            const PATTERN: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
            let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
            if !rest.chars().all(allowed) {
                let detail = validate::regex_text("Invalid path", PATTERN, &[]);
                out.push(Cause::invalid(path, &rest.into(), &detail));
            }
        }
        _ => out.push(Cause::invalid(path, &value.into(), "must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
}

/// An address range: `10.0.0.0/8`.
pub fn cidr(out: &mut Causes, value: &str, path: &str) {
    out.extend(validate::cidr(value, path));
}

/// The address and the length of the prefix.
pub fn parse_cidr(value: &str) -> Option<(std::net::IpAddr, u32)> {
    let (address, bits) = value.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u32 = Some(bits).filter(|bits| bits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    (bits <= most).then_some((address, bits))
}

/// `ValidateConditions`: the conditions that all newer kinds have in their status.
pub fn conditions(out: &mut Causes, conditions: &[Value], path: &str) {
    const REASON_BYTES_MAX: usize = 1024;
    const MESSAGE_BYTES_MAX: usize = 32 * 1024;
    for (at, condition) in conditions.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let type_ = condition.text("type");
        if conditions[..at].iter().any(|other| other.text("type") == type_) {
            out.push(Cause::duplicate(&path, &type_.into()));
        }
        match type_ {
            "" => out.push(Cause::required(format!("{path}.type"), "is required")),
            type_ => text(out, type_, format_args!("{path}.type"), validate::qualified_name),
        }
        one_of(out, &condition.text("status").into(), format_args!("{path}.status"), &["False", "True", "Unknown"]);
        if condition.int("observedGeneration") < 0 {
            let value = condition.at("observedGeneration");
            let detail = "must be greater than or equal to zero";
            out.push(Cause::invalid(format!("{path}.observedGeneration"), value, detail));
        }
        if !condition.has("lastTransitionTime") {
            out.push(Cause::required(format!("{path}.lastTransitionTime"), ""));
        }
        let (reason, field) = (condition.text("reason"), format!("{path}.reason"));
        if reason.is_empty() {
            out.push(Cause::required(&field, ""));
        } else {
            text(out, reason, &field, condition_reason);
            if reason.len() > REASON_BYTES_MAX {
                out.push(Cause::too_long(field, REASON_BYTES_MAX));
            }
        }
        if condition.text("message").len() > MESSAGE_BYTES_MAX {
            out.push(Cause::too_long(format!("{path}.message"), MESSAGE_BYTES_MAX));
        }
    }
}

fn condition_reason(reason: &str) -> Vec<String> {
    const PATTERN: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
    const EXAMPLES: &[&str] = &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    let last = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let right = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.ends_with(last)
        && reason.chars().all(|c| last(c) || matches!(c, ',' | ':'));
    let message = "a condition reason must start with alphabetic character, optionally followed by a string of \
                   alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    if right { Vec::new() } else { vec![validate::regex_text(message, PATTERN, EXAMPLES)] }
}
