//! Horizontal pod autoscalers, in both of their versions.

use serde_json::{Value, json};

use super::check::{self, Causes};
use super::read::{Read, Write};
use super::{columns, resources, rows};
use crate::quantity::Quantity;
use crate::validate;
use crate::{Behaviour, Cause, Kept};

pub static HORIZONTAL_POD_AUTOSCALER: Behaviour = Behaviour {
    annotations_of_versions: &[METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR],
    default,
    prepare_create: |object| {
        let status = match is_first_version(object) {
            true => json!({"currentReplicas": 0, "desiredReplicas": 0}),
            false => json!({"desiredReplicas": 0, "currentMetrics": null}),
        };
        object.set("status", status);
    },
    validate_create: autoscaler,
    validate_update: |new, _| autoscaler(new),
    validate_status: |new, _| {
        let mut out = Vec::new();
        check::non_negative(&mut out, new.at("status"), "status", &["currentReplicas", "desiredReplicas"]);
        out
    },
    columns: columns::HORIZONTAL_POD_AUTOSCALER,
    row: rows::horizontal_pod_autoscaler,
    has_status: true,
    has_generation: true,
    kept: Some(Kept { group: "autoscaling", version: "v2", into: to_second, from: to_first }),
    ..Behaviour::PLAIN
};

// The first version knows one metric, the use of processors, in a field of its own. Everything else that the second
// version has is kept in annotations, in a form that is older than either.

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// What a metric is to reach, and what it is at, are written alike but for this word.
const TARGET: &str = "target";
const CURRENT: &str = "current";

fn take(object: &mut Value, part: &str, field: &str) -> Value {
    let fields = object.get_mut(part).and_then(Value::as_object_mut);
    fields.and_then(|fields| fields.shift_remove(field)).unwrap_or_default()
}

fn to_first(object: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    let metrics = take(object, "spec", "metrics");
    let (cpu, others): (Vec<&Value>, Vec<&Value>) =
        metrics.items().iter().partition(|metric| is_cpu_use(metric, TARGET));
    if let Some(metric) = cpu.first() {
        object.set("spec.targetCPUUtilizationPercentage", metric.at("resource.target.averageUtilization").clone());
    }
    notes.push((METRICS, others.into_iter().map(|metric| older(metric, TARGET)).collect()));
    let current = take(object, "status", "currentMetrics");
    if let Some(metric) = current.items().iter().find(|metric| is_cpu_use(metric, CURRENT)) {
        object.set("status.currentCPUUtilizationPercentage", metric.at("resource.current.averageUtilization").clone());
    }
    notes.push((CURRENT_METRICS, current.items().iter().map(|metric| older(metric, CURRENT)).collect()));
    notes.push((CONDITIONS, take(object, "status", "conditions")));
    notes.push((BEHAVIOR, older_behavior(&take(object, "spec", "behavior"))));
    for (key, value) in notes.into_iter().filter(|(_, value)| !value.is_nothing()) {
        object["metadata"]["annotations"][key] = value.to_string().into();
    }
}

fn to_second(object: &mut Value) {
    let mut note = |key: &str| -> Value {
        let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
        let text = annotations.and_then(|annotations| annotations.shift_remove(key));
        text.and_then(|text| serde_json::from_str(text.as_str()?).ok()).unwrap_or_default()
    };
    let (metrics, current, conditions, behavior) =
        (note(METRICS), note(CURRENT_METRICS), note(CONDITIONS), note(BEHAVIOR));
    let mut metrics: Vec<Value> = metrics.items().iter().map(|metric| newer(metric, TARGET)).collect();
    let cpu = take(object, "spec", "targetCPUUtilizationPercentage");
    if !cpu.is_null() {
        let target = json!({"type": "Utilization", "averageUtilization": cpu});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    // The first version's default is known only here, where all metrics are.
    if metrics.is_empty() {
        metrics.push(default_metric());
    }
    object.set("spec.metrics", metrics);
    let cpu = take(object, "status", "currentCPUUtilizationPercentage");
    let mut current: Vec<Value> = current.items().iter().map(|metric| newer(metric, CURRENT)).collect();
    if current.is_empty() && !cpu.is_null() {
        let now = json!({"averageUtilization": cpu});
        current.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": now}}));
    }
    if !current.is_empty() {
        object.set("status.currentMetrics", current);
    }
    if conditions.is_array() {
        object.set("status.conditions", conditions);
    }
    if behavior.is_object() {
        object.set("spec.behavior", newer_behavior(&behavior));
        default_behavior(object);
    }
}

// The first version has no type of its own for how to scale: its annotation holds the names of the server's own structs.

const DIRECTIONS: &[&str] = &["ScaleUp", "ScaleDown"];
const RULES: &[&str] = &["StabilizationWindowSeconds", "SelectPolicy", "Policies", "Tolerance"];
const POLICY: &[&str] = &["Type", "Value", "PeriodSeconds"];

/// `ScaleUp` is `scaleUp`.
fn json_name(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect()
}

/// These fields under the names that Go's structs have; what is not there is null.
fn with_go_names(value: &Value, names: &[&str], of_field: impl Fn(&str, &Value) -> Value) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    names.iter().map(|name| ((*name).to_owned(), of_field(name, value.key(&json_name(name))))).collect()
}

fn older_behavior(behavior: &Value) -> Value {
    let policy = |policy: &Value| with_go_names(policy, POLICY, |_, value| value.clone());
    let rule = |name: &str, value: &Value| match value {
        Value::Array(policies) if name == "Policies" => policies.iter().map(policy).collect(),
        value => value.clone(),
    };
    with_go_names(behavior, DIRECTIONS, |_, rules| with_go_names(rules, RULES, rule))
}

/// These fields under their JSON names: Go takes names in any case. Nulls are left out.
fn with_json_names(value: &Value, names: &[&str], of_field: impl Fn(&str, &Value) -> Value) -> Value {
    let mut out = json!({});
    for name in names {
        let given = value.as_object().into_iter().flatten().find(|(key, _)| key.eq_ignore_ascii_case(name));
        if let Some((_, value)) = given.filter(|(_, value)| !value.is_null()) {
            out.set(&json_name(name), of_field(name, value));
        }
    }
    out
}

fn newer_behavior(behavior: &Value) -> Value {
    let policy = |policy: &Value| with_json_names(policy, POLICY, |_, value| value.clone());
    let rule = |name: &str, value: &Value| match (name, value) {
        ("Policies", Value::Array(policies)) => policies.iter().map(policy).collect(),
        ("Tolerance", value) => canonical(value),
        (_, value) => value.clone(),
    };
    with_json_names(behavior, DIRECTIONS, |_, rules| with_json_names(rules, RULES, rule))
}

/// A quantity as Go writes it.
fn canonical(value: &Value) -> Value {
    let quantity = value.as_str().and_then(|text| Quantity::parse(text.trim()).ok());
    quantity.map_or_else(|| value.clone(), |quantity| quantity.to_string().into())
}

/// Of an autoscaler that names no metric, in percent.
const CPU_PERCENT: i64 = 80;

fn default_metric() -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn is_cpu_use(metric: &Value, word: &str) -> bool {
    metric.text("type") == "Resource"
        && metric.text("resource.name") == "cpu"
        && metric.has(&format!("resource.{word}.averageUtilization"))
}

/// The field of a metric that its type names: `Pods` is in `pods`.
fn source_field(metric: &Value) -> String {
    json_name(metric.text("type"))
}

/// The fields of the older form and where the newer has them; `W` stands for `target` or `current`.
const FIELDS: [(&str, &[(&str, &str)]); 5] = [
    (
        "resource",
        &[("name", "name"), ("WAverageUtilization", "W.averageUtilization"), ("WAverageValue", "W.averageValue")],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("WAverageUtilization", "W.averageUtilization"),
            ("WAverageValue", "W.averageValue"),
            ("container", "container"),
        ],
    ),
    ("pods", &[("metricName", "metric.name"), ("WAverageValue", "W.averageValue"), ("selector", "metric.selector")]),
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("WValue", "W.value"),
            ("selector", "metric.selector"),
            ("averageValue", "W.averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("WValue", "W.value"),
            ("WAverageValue", "W.averageValue"),
        ],
    ),
];

fn older(metric: &Value, word: &str) -> Value {
    let field = source_field(metric);
    let source = metric.key(&field);
    let mut out = json!({});
    for (old, new) in fields_of(&field) {
        let value = source.at(&new.replace('W', word));
        if !value.is_null() {
            out[old.replace('W', word)] = value.clone();
        }
    }
    json!({"type": metric.text("type"), field: out})
}

fn newer(metric: &Value, word: &str) -> Value {
    let field = source_field(metric);
    let source = metric.key(&field);
    let mut out = json!({});
    for (old, new) in fields_of(&field) {
        let value = source.key(&old.replace('W', word));
        if !value.is_null() {
            let quantity = new.ends_with(".value") || new.ends_with("Value");
            out.set(&new.replace('W', word), if quantity { canonical(value) } else { value.clone() });
        }
    }
    if word == TARGET {
        let kind = match out.at(TARGET) {
            target if target.has("averageUtilization") => "Utilization",
            target if target.has("averageValue") => "AverageValue",
            _ => "Value",
        };
        out.set("target.type", kind);
    }
    json!({"type": metric.text("type"), field: out})
}

fn fields_of(field: &str) -> &'static [(&'static str, &'static str)] {
    FIELDS.iter().find(|(name, _)| *name == field).map_or(&[], |(_, fields)| fields)
}

fn is_first_version(object: &Value) -> bool {
    object.text("apiVersion") == "autoscaling/v1"
}

fn default(object: &mut Value) {
    object.set_if_absent("spec.minReplicas", 1);
    if is_first_version(object) {
        drop_unread_notes(object);
        // One that is still there names metrics.
        if !object.at("metadata.annotations").key(METRICS).is_string() {
            object.set_if_absent("spec.targetCPUUtilizationPercentage", CPU_PERCENT);
        }
        return;
    }
    if object.list("spec.metrics").is_empty() {
        object.set("spec.metrics", json!([default_metric()]));
    }
    default_behavior(object);
}

/// An annotation that does not hold what its name says is lost on the way through the second version.
fn drop_unread_notes(object: &mut Value) {
    let Some(annotations) = object.at_mut("metadata.annotations").and_then(Value::as_object_mut) else { return };
    for (key, is_list) in [(METRICS, true), (CURRENT_METRICS, true), (CONDITIONS, true), (BEHAVIOR, false)] {
        let Some(text) = annotations.get(key).and_then(Value::as_str) else { continue };
        let right = match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(items)) => is_list && !items.is_empty() && items.iter().all(is_read),
            Ok(Value::Object(rules)) => !is_list && rules.values().all(|rules| rules.is_object() || rules.is_null()),
            _ => false,
        };
        if !right {
            annotations.shift_remove(key);
        }
    }
    if annotations.is_empty() {
        object.remove("metadata.annotations");
    }
}

/// A metric, old or current, whose quantities are ones, or a condition.
fn is_read(item: &Value) -> bool {
    let source = item.key(&source_field(item));
    let mut quantities = source.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("Value"));
    item.is_object() && quantities.all(|(_, value)| value.as_str().is_some_and(|text| Quantity::parse(text).is_ok()))
}

fn default_behavior(object: &mut Value) {
    const PERIOD_SECONDS: i64 = 15;
    if object.has("spec.behavior") {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": PERIOD_SECONDS});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": PERIOD_SECONDS});
        object.set_if_absent("spec.behavior.scaleUp.stabilizationWindowSeconds", 0);
        for (rules, policies) in [("scaleUp", json!([pods, percent.clone()])), ("scaleDown", json!([percent]))] {
            object.set_if_absent(&format!("spec.behavior.{rules}.selectPolicy"), "Max");
            object.set_if_absent(&format!("spec.behavior.{rules}.policies"), policies);
        }
    }
}

fn autoscaler(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    let (least, most) = (spec.opt_int("minReplicas"), spec.int("maxReplicas"));
    if least.is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        out.push(Cause::invalid("spec.maxReplicas", &most.into(), detail));
    }
    target(&mut out, spec.at("scaleTargetRef"), "spec.scaleTargetRef", false);
    // The one target of the first version is the first metric of the second.
    if let Some(percent) = spec.opt_int("targetCPUUtilizationPercentage").filter(|percent| *percent < 1) {
        let path = "spec.metrics[0].resource.target.averageUtilization";
        out.push(Cause::invalid(path, &percent.into(), "must be greater than 0"));
    }
    let metrics = spec.list("metrics");
    for (at, metric) in metrics.iter().enumerate() {
        self::metric(&mut out, metric, &format!("spec.metrics[{at}]"));
    }
    let outside = |metric: &Value| matches!(metric.text("type"), "Object" | "External");
    if least == Some(0) && !metrics.iter().any(outside) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        out.push(Cause::forbidden("spec.metrics", detail));
    }
    for rules in ["scaleUp", "scaleDown"] {
        scaling_rules(&mut out, spec.at("behavior").at(rules), &format!("spec.behavior.{rules}"));
    }
    if most == 0 {
        out.push(Cause::required("spec.maxReplicas", ""));
    } else if most < 0 {
        out.push(Cause::invalid("spec.maxReplicas", &most.into(), "must be greater than or equal to 1"));
    }
    if let Some(least) = least.filter(|least| *least < 0) {
        out.push(Cause::invalid("spec.minReplicas", &least.into(), "must be greater than or equal to 0"));
    }
    out
}

fn target(out: &mut Causes, target: &Value, path: &str, any_group: bool) {
    for field in ["kind", "name"] {
        let value = target.text(field);
        let path = format!("{path}.{field}");
        if value.is_empty() {
            out.push(Cause::required(path, ""));
        } else {
            validate::push_all(out, &path, value, validate::path_segment(value, false));
        }
    }
    let version = target.text("apiVersion");
    let path = format!("{path}.apiVersion");
    if version.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {version}");
        out.push(Cause::invalid(path, &version.into(), &detail));
    } else if !any_group && !version.contains('/') {
        out.push(Cause::invalid(path, &version.into(), "apiVersion must specify API group"));
    }
}

fn metric(out: &mut Causes, metric: &Value, path: &str) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    let type_ = metric.text("type");
    if type_.is_empty() {
        out.push(Cause::required(format!("{path}.type"), "must specify a metric source type"));
    }
    if !TYPES.contains(&type_) {
        out.push(Cause::not_supported(format!("{path}.type"), &type_.into(), TYPES));
    }
    let present: Vec<&str> = ["object", "external", "pods", "resource", "containerResource"]
        .into_iter()
        .filter(|field| metric.has(field))
        .collect();
    if let Some(first) = present.first() {
        source(out, metric.at(first), first, &format!("{path}.{first}"));
    }
    let expected = match type_ {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        _ => "",
    };
    if !expected.is_empty() && !metric.has(expected) {
        let detail = "must populate information for the given metric source";
        out.push(Cause::required(format!("{path}.{expected}"), detail));
    }
    if present.len() != 1 {
        for other in present.iter().filter(|field| **field != expected) {
            out.push(Cause::forbidden(format!("{path}.{other}"), "must populate the given metric source only"));
        }
    }
}

fn source(out: &mut Causes, source: &Value, field: &str, path: &str) {
    if field == "object" {
        target(out, source.at("describedObject"), &format!("{path}.describedObject"), true);
    }
    let named = matches!(field, "resource" | "containerResource");
    if named {
        match source.text("name") {
            "" => out.push(Cause::required(format!("{path}.name"), "must specify a resource name")),
            name if field == "containerResource" => resources::container_name(out, name, &format!("{path}.name")),
            _ => {}
        }
        match source.text("container") {
            _ if field == "resource" => {}
            "" => out.push(Cause::required(format!("{path}.container"), "must specify a container")),
            name => check::text(out, name, format_args!("{path}.container"), validate::dns1123_label),
        }
    } else {
        let name = source.text("metric.name");
        let path = format!("{path}.metric.name");
        if name.is_empty() {
            out.push(Cause::required(path, "must specify a metric name"));
        } else {
            validate::push_all(out, &path, name, validate::path_segment(name, false));
        }
    }
    let target = source.at("target");
    let path = format!("{path}.target");
    if target.text("type").is_empty() {
        out.push(Cause::required(format!("{path}.type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&target.text("type")) {
        let detail = "must be either Utilization, Value, or AverageValue";
        out.push(Cause::invalid(format!("{path}.type"), &target.text("type").into(), detail));
    }
    for field in ["value", "averageValue"] {
        let value = target.at(field);
        let amount = check::quantity(value);
        if !value.is_null() && (amount.is_zero() || amount.is_negative()) {
            out.push(Cause::invalid(format!("{path}.{field}"), value, "must be positive"));
        }
    }
    if let Some(percent) = target.opt_int("averageUtilization").filter(|percent| *percent < 1) {
        out.push(Cause::invalid(format!("{path}.averageUtilization"), &percent.into(), "must be greater than 0"));
    }
    let has = |field: &str| target.has(field);
    match field {
        "resource" | "containerResource" => {
            if !has("averageUtilization") && !has("averageValue") {
                let detail = "must set either a target raw value or a target utilization";
                out.push(Cause::required(format!("{path}.averageUtilization"), detail));
            }
            if has("averageUtilization") && has("averageValue") {
                let detail = "may not set both a target raw value and a target utilization";
                out.push(Cause::forbidden(format!("{path}.averageValue"), detail));
            }
        }
        "pods" if !has("averageValue") => {
            out.push(Cause::required(format!("{path}.averageValue"), "must specify a positive target averageValue"));
        }
        "object" if !has("value") && !has("averageValue") => {
            let detail = "must set either a target value or averageValue";
            out.push(Cause::required(format!("{path}.averageValue"), detail));
        }
        "external" if !has("value") && !has("averageValue") => {
            let detail = "must set either a target value for metric or a per-pod target";
            out.push(Cause::required(format!("{path}.averageValue"), detail));
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            out.push(Cause::forbidden(format!("{path}.value"), detail));
        }
        _ => {}
    }
}

fn scaling_rules(out: &mut Causes, rules: &Value, path: &str) {
    const WINDOW_SECONDS_MAX: i64 = 3600;
    const PERIOD_SECONDS_MAX: i64 = 1800;
    if rules.is_null() {
        return;
    }
    let field = format!("{path}.stabilizationWindowSeconds");
    match rules.opt_int("stabilizationWindowSeconds") {
        Some(seconds) if seconds < 0 => {
            out.push(Cause::invalid(field, &seconds.into(), "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let detail = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            out.push(Cause::invalid(field, &seconds.into(), &detail));
        }
        _ => {}
    }
    let policies = &["Disabled", "Max", "Min"];
    check::optional_one_of(out, rules.at("selectPolicy"), format_args!("{path}.selectPolicy"), policies);
    if rules.list("policies").is_empty() {
        out.push(Cause::required(format!("{path}.policies"), "must specify at least one Policy"));
    }
    for (at, policy) in rules.list("policies").iter().enumerate() {
        let path = format!("{path}.policies[{at}]");
        let type_ = policy.text("type");
        if !["Percent", "Pods"].contains(&type_) {
            out.push(Cause::not_supported(format!("{path}.type"), &type_.into(), &["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"] {
            if policy.int(field) <= 0 {
                let value = Value::from(policy.int(field));
                out.push(Cause::invalid(format!("{path}.{field}"), &value, "must be greater than zero"));
            }
        }
        if policy.int("periodSeconds") > PERIOD_SECONDS_MAX {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            out.push(Cause::invalid(format!("{path}.periodSeconds"), policy.at("periodSeconds"), &detail));
        }
    }
    if rules.has("tolerance") {
        check::non_negative_quantity(out, rules.at("tolerance"), format_args!("{path}.tolerance"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_hold_the_same() {
        let second = json!({
            "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "selectPolicy": "Max",
                    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
                    "tolerance": "100m",
                }},
            },
        });
        let mut object = second.clone();
        to_first(&mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(
            object["metadata"]["annotations"][METRICS],
            r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"3"}}]"#
        );
        assert_eq!(
            object["metadata"]["annotations"][BEHAVIOR],
            r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":"100m"},"ScaleDown":null}"#
        );
        to_second(&mut object);
        let down = object["spec"]["behavior"].as_object_mut().unwrap().shift_remove("scaleDown");
        let policies = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
        assert_eq!(down, Some(json!({"selectPolicy": "Max", "policies": policies})));
        assert_eq!(object["spec"], second["spec"]);
    }

    #[test]
    fn annotations_that_say_nothing_are_lost() {
        let check = |key: &str, text: &str, stays: bool| {
            let mut object = json!({"apiVersion": "autoscaling/v1", "metadata": {"annotations": {key: text}}, "spec": {"maxReplicas": 3}});
            default(&mut object);
            assert_eq!(object.at("metadata.annotations").key(key).is_string(), stays, "{text}");
        };
        check(BEHAVIOR, "{", false);
        check(BEHAVIOR, r#"{"scaleUp":1}"#, false);
        check(BEHAVIOR, r#"{"scaleUp":null}"#, true);
        check(METRICS, "{}", false);
        check(METRICS, "[1]", false);
        check(METRICS, r#"[{"type":"Pods","pods":{"targetAverageValue":"x"}}]"#, false);
        check(METRICS, r#"[{"type":"Pods"}]"#, true);
    }

    #[test]
    fn annotations_of_the_first_version_are_read_in_any_case() {
        let noted = r#"{"scaleup":{"StabilizationWindowSeconds":7,"tolerance":"0.1","policies":null}}"#;
        let mut object = json!({"metadata": {"annotations": {BEHAVIOR: noted}}, "spec": {"maxReplicas": 3}});
        to_second(&mut object);
        let up = object.at("spec.behavior.scaleUp");
        assert_eq!((up.int("stabilizationWindowSeconds"), up.text("tolerance")), (7, "100m"));
        assert_eq!(up.list("policies").len(), 2);
    }
}
