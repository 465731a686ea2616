//! What a namespace may use: limit ranges and resource quotas. Counting is the server's and a controller's matter.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{Causes, quantity};
use super::read::{Read, Write};
use super::{columns, internal, resources, rows};
use crate::quantity::Quantity;
use crate::validate;
use crate::{Behaviour, Cause};

/// Shown with `Created At`, as kinds without columns of their own.
pub static LIMIT_RANGE: Behaviour = Behaviour {
    checks_name_again: true,
    default: |range| range.list_mut("spec.limits").iter_mut().for_each(default_limits),
    validate_create: limit_range,
    validate_update: |range, _| limit_range(range),
    create_on_update: true,
    named_by_chance: true,
    ..Behaviour::PLAIN
};

pub static RESOURCE_QUOTA: Behaviour = Behaviour {
    validate_create: |quota| {
        let mut out = Vec::new();
        quota_spec(&mut out, quota);
        out
    },
    validate_update: |new, old| {
        let mut out = Vec::new();
        quota_spec(&mut out, new);
        let scopes = |quota: &Value| -> BTreeSet<String> {
            quota.list("spec.scopes").iter().filter_map(|scope| Some(scope.as_str()?.to_owned())).collect()
        };
        if scopes(new) != scopes(old) {
            out.push(Cause::invalid("spec.scopes", new.at("spec.scopes"), "field is immutable"));
        }
        out
    },
    validate_status: |new, _| {
        let mut out = Vec::new();
        for list in ["status.hard", "status.used"] {
            amounts(&mut out, new.at(list), list);
        }
        out
    },
    columns: columns::RESOURCE_QUOTA,
    row: rows::resource_quota,
    returns_deleted: true,
    has_status: true,
    ..Behaviour::PLAIN
};

/// The limit of a container is its maximum, its request the limit, or the minimum.
fn default_limits(limit: &mut Value) {
    if limit.text("type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(source) = limit.at(from).as_object().cloned() else { continue };
        limit.set_if_absent(to, Value::Object(Default::default()));
        if let Some(target) = limit.at_mut(to).and_then(Value::as_object_mut) {
            for (name, amount) in source {
                target.entry(name).or_insert(amount);
            }
        }
    }
}

fn limit_range(range: &Value) -> Vec<Cause> {
    const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (at, limit) in range.list("spec.limits").iter().enumerate() {
        let path = format!("spec.limits[{at}]");
        let type_ = limit.text("type");
        let wrong = validate::qualified_name(type_);
        if wrong.is_empty() && !type_.contains('/') && !TYPES.contains(&type_) {
            let detail = "must be a standard limit type or fully qualified";
            out.push(Cause::invalid(format!("{path}.type"), &type_.into(), detail));
        }
        validate::push_all(&mut out, format_args!("{path}.type"), type_, wrong);
        if seen.contains(&type_) {
            out.push(Cause::duplicate(format!("{path}.type"), &type_.into()));
        }
        seen.push(type_);
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut collect = |out: &mut Causes, list: &str| {
            for (name, _) in limit.at(list).entries() {
                let path = format!("{path}.{list}[{name}]");
                if matches!(type_, "Pod" | "Container") {
                    resources::container_name(out, name, &path);
                } else {
                    resources::name(out, name, &path);
                }
                names.insert(name);
            }
        };
        collect(&mut out, "max");
        collect(&mut out, "min");
        for list in ["default", "defaultRequest"] {
            if type_ != "Pod" {
                collect(&mut out, list);
            } else if !limit.at(list).is_nothing() {
                out.push(Cause::forbidden(format!("{path}.{list}"), "may not be specified when `type` is 'Pod'"));
            }
        }
        let storage = |list: &str| !limit.at(list).key("storage").is_null();
        if type_ == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            out.push(Cause::required(format!("{path}.limits"), detail));
        }
        collect(&mut out, "maxLimitRequestRatio");
        for name in names {
            in_order(&mut out, limit, type_, name, &path);
        }
    }
    out
}

/// Minimum, default request, default limit, maximum.
fn in_order(out: &mut Causes, limit: &Value, type_: &str, name: &str, path: &str) {
    let get = |list: &str| -> Option<(Quantity, &Value)> {
        let value = limit.at(list).key(name);
        (!value.is_null()).then(|| (quantity(value), value))
    };
    let of_pod = type_ == "Pod";
    let (min, max) = (get("min"), get("max"));
    let default = get("default").filter(|_| !of_pod);
    let request = get("defaultRequest").filter(|_| !of_pod);
    type Found<'a> = Option<(Quantity, &'a Value)>;
    let mut below = |a: &Found, b: &Found, list: &str, shown: &Found, a_name: &str, b_name: &str| {
        if let (Some((less, less_text)), Some((more, more_text)), Some((_, shown))) = (a, b, shown)
            && less > more
        {
            let (less, more) = (less_text.as_str().unwrap_or("0"), more_text.as_str().unwrap_or("0"));
            let detail = format!("{a_name} value {less} is greater than {b_name} value {more}");
            out.push(Cause::invalid(format!("{path}.{list}[{name}]"), shown, &detail));
        }
    };
    below(&min, &max, "min", &min, "min", "max");
    below(&min, &request, "defaultRequest", &request, "min", "default request");
    below(&request, &max, "defaultRequest", &request, "default request", "max");
    below(&request, &default, "defaultRequest", &request, "default request", "default limit");
    below(&min, &default, "default", &min, "min", "default");
    below(&default, &max, "default", &max, "default", "max");
    if let Some((ratio, text)) = get("maxLimitRequestRatio") {
        let field = format!("{path}.maxLimitRequestRatio[{name}]");
        let shown = text.as_str().unwrap_or("0");
        if ratio.milli_value() < 1000 {
            out.push(Cause::invalid(&field, text, &format!("ratio {shown} is less than 1")));
        }
        if let (Some((min, _)), Some((max, _))) = (&min, &max) {
            let most = max.milli_value() as f64 / min.milli_value() as f64;
            if ratio.milli_value() as f64 / 1000.0 > most {
                let detail = format!("ratio {shown} is greater than max/min = {most:.6}");
                out.push(Cause::invalid(&field, text, &detail));
            }
        }
    }
    if let (Some((most, most_text)), Some((asked, asked_text))) = (&default, &request)
        && !resources::may_overcommit(name)
        && most != asked
    {
        let [most, asked] = [most_text, asked_text].map(|text| text.as_str().unwrap_or("0"));
        let detail = format!("default value {most} must equal to defaultRequest value {asked} in {name}");
        out.push(Cause::invalid(format!("{path}.defaultRequest[{name}]"), asked_text, &detail));
    }
}

fn amounts(out: &mut Causes, list: &Value, path: &str) {
    for (name, value) in list.entries() {
        let path = format!("{path}[{name}]");
        resources::name(out, name, &path);
        if !name.contains('/') && !resources::is_standard_for_quotas(name) {
            out.push(Cause::invalid(&path, &name.as_str().into(), "must be a standard resource for quota"));
        }
        resources::amount(out, name, value, &path);
    }
}

fn quota_spec(out: &mut Causes, quota: &Value) {
    let spec = quota.at("spec");
    amounts(out, spec.at("hard"), "spec.hard");
    let names: Vec<&String> = spec.at("hard").entries().into_iter().map(|(name, _)| name).collect();
    let misfits =
        |scope: &str| names.iter().filter(|name| resources::is_standard_for_quotas(name) && !fits(scope, name)).count();
    let scopes = spec.list("scopes");
    for scope in scopes.iter().filter_map(Value::as_str) {
        if !is_scope(scope) {
            out.push(Cause::invalid("spec.scopes", spec.at("scopes"), "unsupported scope"));
        }
        for _ in 0..misfits(scope) {
            out.push(Cause::invalid("spec.scopes", spec.at("scopes"), "unsupported scope applied to resource"));
        }
    }
    conflicts(out, spec, "spec.scopes", |scope| scopes.iter().any(|s| s == scope));
    scope_selector(out, spec, &misfits);
}

fn conflicts(out: &mut Causes, spec: &Value, path: &str, has: impl Fn(&str) -> bool) {
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(a) && has(b) {
            out.push(Cause::invalid(path, spec.at("scopes"), "conflicting scopes"));
        }
    }
}

fn scope_selector(out: &mut Causes, spec: &Value, misfits: &dyn Fn(&str) -> usize) {
    const EXISTS_ONLY: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                               ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                               ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
    let path = "spec.scopeSelector.matchExpressions";
    for requirement in spec.list("scopeSelector.matchExpressions") {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        if !is_scope(scope) {
            out.push(Cause::invalid(format!("{path}.scopeName"), &scope.into(), "unsupported scope"));
        }
        for _ in 0..misfits(scope) {
            let shown = internal::shown("api.core.v1.ScopeSelector", spec.at("scopeSelector"));
            out.push(Cause::invalid(path, &shown, "unsupported scope applied to resource"));
        }
        if is_scope(scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
            out.push(Cause::invalid(format!("{path}.operator"), &operator.into(), EXISTS_ONLY));
        }
        let values = requirement.list("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                out.push(Cause::required(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                out.push(Cause::invalid(format!("{path}.values"), requirement.at("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let detail = "not a valid selector operator";
                out.push(Cause::invalid(format!("{path}.operator"), &operator.into(), detail));
            }
        }
    }
    let requirements = spec.list("scopeSelector.matchExpressions");
    conflicts(out, spec, path, |scope| requirements.iter().any(|r| r.text("scopeName") == scope));
}

fn is_scope(scope: &str) -> bool {
    const SCOPES: [&str; 7] = [
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        "PriorityClass",
        "CrossNamespacePodAffinity",
        "VolumeAttributesClass",
    ];
    SCOPES.contains(&scope)
}

/// A scope selects pods (or claims), so that only what these use can be counted under it.
fn fits(scope: &str, resource: &str) -> bool {
    let compute = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || compute.contains(&resource)
        }
        "VolumeAttributesClass" => {
            resource == "persistentvolumeclaims"
                || resource == "requests.storage"
                || resource.contains(".storageclass.")
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(behaviour: &Behaviour, spec: Value, expected: &[&str]) {
        let causes = (behaviour.validate_create)(&json!({"spec": spec}));
        let told: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn devices_are_not_shared() {
        check(
            &LIMIT_RANGE,
            json!({"limits": [{
                "type": "Container", "default": {"example.com/gpu": "2"}, "defaultRequest": {"example.com/gpu": "1"},
            }]}),
            &["spec.limits[0].defaultRequest[example.com/gpu]: Invalid value: \"1\": default value 2 must equal to \
               defaultRequest value 1 in example.com/gpu"],
        );
    }

    #[test]
    fn selected_scopes_agree() {
        let expression = |scope: &str| json!({"scopeName": scope, "operator": "Exists"});
        check(
            &RESOURCE_QUOTA,
            json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                expression("BestEffort"), expression("NotBestEffort"),
            ]}}),
            &["spec.scopeSelector.matchExpressions: Invalid value: null: conflicting scopes"],
        );
        check(
            &RESOURCE_QUOTA,
            json!({"hard": {"cpu": "1"}, "scopeSelector": {"matchExpressions": [expression("BestEffort")]}}),
            &["spec.scopeSelector.matchExpressions: Invalid value: \
               {\"MatchExpressions\":[{\"ScopeName\":\"BestEffort\",\"Operator\":\"Exists\",\"Values\":null}]}: \
               unsupported scope applied to resource"],
        );
    }
}
