//! API priority and fairness.

use serde_json::{Value, json};

use super::check::{Causes, required, text};
use super::read::{Read, Write};
use super::{columns, internal, rows};
use crate::validate;
use crate::{Behaviour, Cause};

pub static FLOW_SCHEMA: Behaviour = Behaviour {
    default: |schema| {
        if schema.int("spec.matchingPrecedence") == 0 {
            schema.set("spec.matchingPrecedence", 1000);
        }
    },
    prepare_create: |schema| schema.set("status", json!({})),
    validate_create: flow_schema,
    validate_update: |new, old| {
        let mut out = flow_schema(new);
        fixed(&mut out, new, old.at("spec"), "api.flowcontrol.v1.FlowSchemaSpec");
        out
    },
    validate_status: |new, _| conditions(new),
    columns: columns::FLOW_SCHEMA,
    row: rows::flow_schema,
    has_status: true,
    has_generation: true,
    status_keeps_metadata: true,
    ..Behaviour::PLAIN
};

pub static PRIORITY_LEVEL: Behaviour = Behaviour {
    checks_name_again: true,
    default: |level| {
        for (path, shares) in [("spec.exempt", 0), ("spec.limited", 30)] {
            if let Some(of) = level.at_mut(path).filter(|of| of.is_object()) {
                of.set_if_absent("nominalConcurrencyShares", shares);
                of.set_if_absent("lendablePercent", 0);
            }
        }
        if let Some(queuing) = level.at_mut("spec.limited.limitResponse.queuing").filter(|of| of.is_object()) {
            for (field, count) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                if queuing.int(field) == 0 {
                    queuing.set(field, count);
                }
            }
        }
    },
    prepare_create: |level| level.set("status", json!({})),
    validate_create: priority_level,
    validate_update: |new, old| {
        let mut out = priority_level(new);
        let mut spec = old.at("spec").clone();
        // How much the exempt level lends is its administrator's choice.
        match new.at("spec.exempt") {
            Value::Null => spec.remove("exempt"),
            exempt => spec.set("exempt", exempt.clone()),
        }
        fixed(&mut out, new, &spec, "api.flowcontrol.v1.PriorityLevelConfigurationSpec");
        out
    },
    validate_status: |new, _| conditions(new),
    columns: columns::PRIORITY_LEVEL,
    row: rows::priority_level,
    has_status: true,
    has_generation: true,
    status_keeps_metadata: true,
    ..Behaviour::PLAIN
};

/// What every cluster has is the same in every cluster.
fn fixed(out: &mut Causes, new: &Value, spec: &Value, type_: &str) {
    let name = new.text("metadata.name");
    if ["catch-all", "exempt"].contains(&name) && new.at("spec") != spec {
        let detail = format!("spec of '{name}' must equal the fixed value");
        let at = out.iter().position(|cause| cause.field.starts_with("status.")).unwrap_or(out.len());
        out.insert(at, Cause::invalid("spec", &internal::shown(type_, new.at("spec")), &detail));
    }
}

fn conditions(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let conditions = object.list("status.conditions");
    for (at, condition) in conditions.iter().enumerate() {
        let path = format!("status.conditions[{at}]");
        if conditions[..at].iter().any(|other| other.at("type") == condition.at("type")) {
            out.push(Cause::duplicate(format!("{path}.type"), condition.at("type")));
        }
        required(&mut out, condition, &path, "type");
    }
    out
}

fn flow_schema(schema: &Value) -> Vec<Cause> {
    const PRECEDENCE_MAX: i64 = 10_000;
    let mut out = Vec::new();
    let spec = schema.at("spec");
    let detail = match spec.int("matchingPrecedence") {
        ..=0 => "must be a positive value",
        1 if schema.text("metadata.name") != "exempt" => "only the schema named 'exempt' may have matchingPrecedence 1",
        number if number > PRECEDENCE_MAX => "must not be greater than 10000",
        _ => "",
    };
    if !detail.is_empty() {
        out.push(Cause::invalid("spec.matchingPrecedence", spec.at("matchingPrecedence"), detail));
    }
    let method = spec.text("distinguisherMethod.type");
    if spec.has("distinguisherMethod") && !["ByNamespace", "ByUser"].contains(&method) {
        let shown = internal::shown("api.flowcontrol.v1.FlowDistinguisherMethod", spec.at("distinguisherMethod"));
        out.push(Cause::not_supported("spec.distinguisherMethod.type", &shown, &["ByNamespace", "ByUser"]));
    }
    let level = spec.text("priorityLevelConfiguration.name");
    if level.is_empty() {
        out.push(Cause::required("spec.priorityLevelConfiguration.name", "must reference a priority level"));
    } else {
        text(&mut out, level, "spec.priorityLevelConfiguration.name", validate::dns1123_subdomain);
    }
    for (at, rule) in spec.list("rules").iter().enumerate() {
        self::rule(&mut out, rule, &format!("spec.rules[{at}]"));
    }
    out.extend(conditions(schema));
    out
}

fn rule(out: &mut Causes, rule: &Value, path: &str) {
    if rule.list("subjects").is_empty() {
        out.push(Cause::required(format!("{path}.subjects"), "subjects must contain at least one value"));
    }
    for (at, subject) in rule.list("subjects").iter().enumerate() {
        self::subject(out, subject, &format!("{path}.subjects[{at}]"));
    }
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        out.push(Cause::required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    for (at, rule) in rule.list("resourceRules").iter().enumerate() {
        resource_rule(out, rule, &format!("{path}.resourceRules[{at}]"));
    }
    for (at, rule) in rule.list("nonResourceRules").iter().enumerate() {
        let path = format!("{path}.nonResourceRules[{at}]");
        verbs(out, rule, &path);
        let missing = "nonResourceURLs must contain at least one value";
        if alone(out, rule, &path, "nonResourceURLs", "non-resource URLs", missing) {
            for (at, url) in rule.list("nonResourceURLs").iter().enumerate() {
                non_resource_url(out, url, &format!("{path}.nonResourceURLs[{at}]"));
            }
        }
    }
}

fn subject(out: &mut Causes, subject: &Value, path: &str) {
    // In the order in which each kind tells of the others.
    const KINDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.text("kind");
    let Some((_, own)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        let supported = &["Group", "ServiceAccount", "User"];
        return out.push(Cause::not_supported(format!("{path}.kind"), &kind.into(), supported));
    };
    let (of, own_path) = (subject.at(own), format!("{path}.{own}"));
    if of.is_null() {
        out.push(Cause::required(&own_path, &format!("{own} is required when subject kind is '{kind}'")));
    } else {
        let name = of.text("name");
        if required(out, of, &own_path, "name") && *own == "serviceAccount" && name != "*" {
            text(out, name, format_args!("{own_path}.name"), validate::dns1123_subdomain);
        }
        if *own == "serviceAccount" {
            let (path, namespace) = (format!("{own_path}.namespace"), of.text("namespace"));
            match namespace {
                "" => out.push(Cause::required(path, "must specify namespace for service account")),
                _ => text(out, namespace, &path, validate::dns1123_label),
            }
        }
    }
    for (other, field) in KINDS.iter().filter(|(other, field)| *other != kind && subject.has(field)) {
        let detail = format!("{field} is forbidden when subject kind is not '{other}'");
        out.push(Cause::forbidden(format!("{path}.{field}"), &detail));
    }
}

/// The list is not empty, and `*` stands alone in it. True where single items are left to look at.
fn alone(out: &mut Causes, rule: &Value, path: &str, field: &str, noun: &str, missing: &str) -> bool {
    let (path, list) = (format!("{path}.{field}"), rule.list(field));
    let any = list.iter().any(|item| item == "*");
    if list.is_empty() {
        out.push(Cause::required(&path, missing));
    } else if any && list.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {noun}");
        out.push(Cause::invalid(&path, rule.at(field), &detail));
    }
    !any && !list.is_empty()
}

fn verbs(out: &mut Causes, rule: &Value, path: &str) {
    const VERBS: &[&str] =
        &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    let known = |verb: &Value| VERBS.contains(&verb.as_str().unwrap_or_default());
    if alone(out, rule, path, "verbs", "verbs", "verbs must contain at least one value")
        && !rule.list("verbs").iter().all(known)
    {
        out.push(Cause::not_supported(format!("{path}.verbs"), rule.at("verbs"), VERBS));
    }
}

fn resource_rule(out: &mut Causes, rule: &Value, path: &str) {
    verbs(out, rule, path);
    let missing = "resource rules must supply at least one api group";
    alone(out, rule, path, "apiGroups", "api groups", missing);
    let missing = "resource rules must supply at least one resource";
    alone(out, rule, path, "resources", "resources", missing);
    if rule.flag("clusterScope") && rule.list("namespaces").is_empty() {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if alone(out, rule, path, "namespaces", "namespaces", missing) {
        for (at, namespace) in rule.list("namespaces").iter().enumerate() {
            for text in validate::dns1123_label(namespace.as_str().unwrap_or_default()) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {text}");
                out.push(Cause::invalid(format!("{path}.namespaces[{at}]"), namespace, &detail));
            }
        }
    }
}

fn non_resource_url(out: &mut Causes, url: &Value, path: &str) {
    let text = url.as_str().unwrap_or_default();
    let stars = text.matches('*').count();
    let detail = match text {
        "" => "must not be empty",
        "/" => return,
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        _ if stars > 1 || (stars == 1 && !text.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return,
    };
    out.push(Cause::invalid(path, url, detail));
}

fn priority_level(level: &Value) -> Vec<Cause> {
    // What is declared comes after what is coded.
    let (mut out, mut declared) = (Vec::new(), Vec::new());
    let (spec, name) = (level.at("spec"), level.text("metadata.name"));
    let type_ = spec.text("type");
    if (name == "exempt") != (type_ == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        out.push(Cause::invalid("spec.type", spec.at("type"), detail));
    }
    match type_ {
        "Exempt" => {
            if spec.has("limited") {
                declared.push(Cause::forbidden("spec.limited", ""));
            }
            shares(&mut out, spec.at("exempt"), "spec.exempt", |_| {});
        }
        "Limited" => {
            if spec.has("exempt") {
                declared.push(Cause::forbidden("spec.exempt", ""));
            }
            let limited = spec.at("limited");
            if limited.is_null() {
                declared.push(Cause::required("spec.limited", ""));
            } else {
                shares(&mut out, limited, "spec.limited", |out| response(out, &mut declared, limited));
                if limited.int("borrowingLimitPercent") < 0 {
                    let path = "spec.limited.borrowingLimitPercent";
                    let detail = "if specified, must be a non-negative integer";
                    out.push(Cause::invalid(path, limited.at("borrowingLimitPercent"), detail));
                }
            }
        }
        _ => {
            // Each part belongs to a type.
            declared.extend(
                ["limited", "exempt"]
                    .iter()
                    .filter(|part| spec.has(part))
                    .map(|part| Cause::forbidden(format!("spec.{part}"), "")),
            );
            match type_ {
                "" => declared.push(Cause::required("spec.type", "")),
                _ => out.push(Cause::not_supported("spec.type", spec.at("type"), &["Exempt", "Limited"])),
            }
        }
    }
    out.extend(conditions(level));
    out.extend(declared);
    out
}

fn shares(out: &mut Causes, of: &Value, path: &str, between: impl FnOnce(&mut Causes)) {
    if of.int("nominalConcurrencyShares") < 0 {
        let path = format!("{path}.nominalConcurrencyShares");
        out.push(Cause::invalid(path, of.at("nominalConcurrencyShares"), "must be a non-negative integer"));
    }
    between(out);
    if !(0..=100).contains(&of.int("lendablePercent")) {
        let path = format!("{path}.lendablePercent");
        out.push(Cause::invalid(path, of.at("lendablePercent"), "must be between 0 and 100, inclusive"));
    }
}

fn response(out: &mut Causes, declared: &mut Causes, limited: &Value) {
    const PATH: &str = "spec.limited.limitResponse";
    const QUEUES_MAX: i64 = 10_000_000;
    let response = limited.at("limitResponse");
    let queuing = response.at("queuing");
    if response.text("type") != "Queue" && !queuing.is_null() {
        declared.push(Cause::forbidden(format!("{PATH}.queuing"), ""));
    }
    match response.text("type") {
        "Reject" => {}
        "Queue" if queuing.is_null() => declared.push(Cause::required(format!("{PATH}.queuing"), "")),
        "Queue" => {
            let [length, queues, hand] =
                ["queueLengthLimit", "queues", "handSize"].map(|field| (field, queuing.int(field)));
            let mut invalid = |(field, number): (&str, i64), detail: &str| {
                out.push(Cause::invalid(format!("{PATH}.queuing.{field}"), &number.into(), detail));
            };
            if length.1 <= 0 {
                invalid(length, "must be positive");
            }
            if queues.1 <= 0 {
                invalid(queues, "must be positive");
            } else if queues.1 > QUEUES_MAX {
                invalid(queues, &format!("must not be greater than {QUEUES_MAX}"));
            }
            if hand.1 <= 0 {
                invalid(hand, "must be positive");
            } else if hand.1 > queues.1 {
                invalid(hand, &format!("should not be greater than queues ({})", queues.1));
            } else if entropy_bits(queues.1, hand.1) > 60 {
                let deck = format!("deckSize {} and handSize {}", queues.1, hand.1);
                invalid(hand, &format!("required entropy bits of {deck} should not be greater than 60"));
            }
        }
        "" => declared.push(Cause::required(format!("{PATH}.type"), "")),
        _ => out.push(Cause::not_supported(format!("{PATH}.type"), response.at("type"), &["Queue", "Reject"])),
    }
}

/// How much of a hash dealing a hand of queues takes.
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    ((deck as f64).log2() * hand as f64).ceil() as i64
}
