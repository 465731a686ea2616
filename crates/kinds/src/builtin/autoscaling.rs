//! Horizontal pod autoscalers, in both of their versions.

use serde_json::{Value, json};

use super::check::{self, Causes};
use super::read::{Read, Write};
use super::{columns, rows};
use crate::validate;
use crate::{Behaviour, Cause};

pub static HORIZONTAL_POD_AUTOSCALER: Behaviour = Behaviour {
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
    ..Behaviour::PLAIN
};

fn is_first_version(object: &Value) -> bool {
    object.text("apiVersion") == "autoscaling/v1"
}

fn default(object: &mut Value) {
    const PERIOD_SECONDS: i64 = 15;
    const CPU_PERCENT: i64 = 80;
    object.set_if_absent("spec.minReplicas", 1);
    if is_first_version(object) {
        return;
    }
    if object.list("spec.metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
        object.set("spec.metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
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
        if source.text("name").is_empty() {
            out.push(Cause::required(format!("{path}.name"), "must specify a resource name"));
        }
        if field == "containerResource" && source.text("container").is_empty() {
            out.push(Cause::required(format!("{path}.container"), "must specify a container"));
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
    } else if !["Utilization", "Value", "AverageValue"].contains(&target.text("type")) {
        let detail = "must be either Utilization, Value, or AverageValue";
        out.push(Cause::invalid(format!("{path}.type"), target.at("type"), detail));
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
    check::optional_one_of(out, rules.at("selectPolicy"), &format!("{path}.selectPolicy"), policies);
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
        check::non_negative_quantity(out, rules.at("tolerance"), &format!("{path}.tolerance"));
    }
}
