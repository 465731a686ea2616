//! Webhooks and policies of admission. Their expressions are compiled where they run, not here.

use api::jsonpath::JsonPath;
use serde_json::{Value, json};

use super::check::{self, Causes, one_of, optional_one_of, required, text};
use super::read::{Read, Write};
use super::{columns, internal, rows};
use crate::validate;
use crate::{Behaviour, Cause};

const REGISTRATION: Behaviour =
    Behaviour { has_generation: true, unconditional_update: false, any_finalizer: true, ..Behaviour::PLAIN };

pub static MUTATING_WEBHOOKS: Behaviour = Behaviour {
    counts_empty: true,
    checks_name_again: true,
    default: |configuration| {
        for hook in configuration.list_mut("webhooks") {
            default_webhook(hook);
            hook.set_if_absent("reinvocationPolicy", "Never");
        }
    },
    validate_create: |configuration| webhooks(configuration, None),
    validate_update: |new, old| webhooks(new, Some(old)),
    columns: columns::MUTATING_WEBHOOK,
    row: rows::webhooks,
    ..REGISTRATION
};

pub static VALIDATING_WEBHOOKS: Behaviour = Behaviour {
    counts_empty: true,
    checks_name_again: true,
    default: |configuration| configuration.list_mut("webhooks").iter_mut().for_each(default_webhook),
    validate_create: |configuration| webhooks(configuration, None),
    validate_update: |new, old| webhooks(new, Some(old)),
    columns: columns::VALIDATING_WEBHOOK,
    row: rows::webhooks,
    ..REGISTRATION
};

pub static VALIDATING_POLICY: Behaviour = Behaviour {
    checks_name_again: true,
    default: default_policy,
    prepare_create: |policy| policy.set("status", json!({})),
    validate_create: validating_policy,
    validate_update: |new, _| validating_policy(new),
    validate_status: |new, _| validating_status(new.at("status")),
    columns: columns::VALIDATING_ADMISSION_POLICY,
    row: rows::validating_admission_policy,
    has_status: true,
    status_keeps_metadata: true,
    ..REGISTRATION
};

pub static VALIDATING_BINDING: Behaviour = Behaviour {
    checks_name_again: true,
    default: default_binding,
    validate_create: validating_binding,
    validate_update: |new, _| validating_binding(new),
    columns: columns::VALIDATING_ADMISSION_POLICY_BINDING,
    row: rows::admission_policy_binding,
    ..REGISTRATION
};

pub static MUTATING_POLICY: Behaviour = Behaviour {
    checks_name_again: true,
    default: default_policy,
    validate_create: mutating_policy,
    validate_update: |new, _| mutating_policy(new),
    columns: columns::MUTATING_ADMISSION_POLICY,
    row: rows::mutating_admission_policy,
    ..REGISTRATION
};

pub static MUTATING_BINDING: Behaviour = Behaviour {
    checks_name_again: true,
    default: default_binding,
    validate_create: mutating_binding,
    validate_update: |new, _| mutating_binding(new),
    columns: columns::MUTATING_ADMISSION_POLICY_BINDING,
    row: rows::admission_policy_binding,
    ..REGISTRATION
};

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// There is nothing to mutate in a deletion.
const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

fn default_webhook(hook: &mut Value) {
    hook.set_if_absent("failurePolicy", "Fail");
    default_match(hook);
    hook.set_if_absent("timeoutSeconds", 10);
    for rule in hook.list_mut("rules") {
        rule.set_if_absent("scope", "*");
    }
    default_service(hook, "clientConfig.service");
}

/// The port of a service that is called.
pub fn default_service(owner: &mut Value, path: &str) {
    if let Some(service) = owner.at_mut(path).filter(|service| service.is_object()) {
        service.set_if_absent("port", 443);
    }
}

fn default_match(matching: &mut Value) {
    matching.set_if_absent("matchPolicy", "Equivalent");
    matching.set_if_absent("namespaceSelector", json!({}));
    matching.set_if_absent("objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in matching.list_mut(list) {
            rule.set_if_absent("scope", "*");
        }
    }
}

fn default_policy(policy: &mut Value) {
    policy.set_if_absent("spec.failurePolicy", "Fail");
    if let Some(matching) = policy.at_mut("spec.matchConstraints").filter(|matching| matching.is_object()) {
        default_match(matching);
    }
}

fn default_binding(binding: &mut Value) {
    if let Some(matching) = binding.at_mut("spec.matchResources").filter(|matching| matching.is_object()) {
        default_match(matching);
    }
}

/// An update may keep what an older rule let through.
fn webhooks(configuration: &Value, old: Option<&Value>) -> Vec<Cause> {
    let hooks = configuration.list("webhooks");
    let before = old.map(|old| old.list("webhooks"));
    let kept = |right: fn(&[Value]) -> bool| before.is_none_or(right);
    let unique = kept(|hooks| {
        let named = |at: usize| hooks[..at].iter().any(|other| other.at("name") == hooks[at].at("name"));
        !(0..hooks.len()).any(named)
    });
    let harmless = kept(|hooks| hooks.iter().all(|hook| SIDE_EFFECTS.contains(&hook.text("sideEffects"))));
    let recognized =
        kept(|hooks| hooks.iter().all(|hook| hook.list("admissionReviewVersions").iter().any(is_review_version)));
    let mut out = Vec::new();
    for (at, hook) in hooks.iter().enumerate() {
        let path = format!("webhooks[{at}]");
        webhook(&mut out, hook, harmless, &path);
        review_versions(&mut out, hook, recognized, &format!("{path}.admissionReviewVersions"));
        let name = hook.at("name");
        if unique && name != "" && hooks[..at].iter().any(|other| other.at("name") == name) {
            out.push(Cause::duplicate(format!("{path}.name"), name));
        }
    }
    out
}

const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

fn webhook(out: &mut Causes, hook: &Value, harmless: bool, path: &str) {
    fully_qualified_name(out, hook.text("name"), &format!("{path}.name"));
    for (at, rule) in hook.list("rules").iter().enumerate() {
        self::rule(out, rule, &format!("{path}.rules[{at}]"));
    }
    optional_one_of(out, hook.at("failurePolicy"), format_args!("{path}.failurePolicy"), FAILURE_POLICIES);
    optional_one_of(out, hook.at("matchPolicy"), format_args!("{path}.matchPolicy"), MATCH_POLICIES);
    let effects = if harmless { SIDE_EFFECTS } else { &["None", "NoneOnDryRun", "Some", "Unknown"] };
    if !hook.has("sideEffects") {
        let detail = format!("must specify one of {}", effects.join(", "));
        out.push(Cause::required(format!("{path}.sideEffects"), &detail));
    }
    optional_one_of(out, hook.at("sideEffects"), format_args!("{path}.sideEffects"), effects);
    if let Some(seconds) = hook.opt_int("timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        out.push(Cause::invalid(format!("{path}.timeoutSeconds"), &seconds.into(), detail));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        check::label_selector(out, hook.at(selector), format_args!("{path}.{selector}"));
    }
    let policy = hook.at("reinvocationPolicy");
    optional_one_of(out, policy, format_args!("{path}.reinvocationPolicy"), REINVOCATION_POLICIES);
    client(out, hook.at("clientConfig"), &format!("{path}.clientConfig"));
    conditions(out, hook, &format!("{path}.matchConditions"));
}

fn fully_qualified_name(out: &mut Causes, name: &str, path: &str) {
    if name.is_empty() {
        return out.push(Cause::required(path, ""));
    }
    let texts = validate::dns1123_subdomain(name);
    if !texts.is_empty() {
        return out.push(Cause::invalid(path, &name.into(), &texts.join(",")));
    }
    if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        out.push(Cause::invalid(path, &name.into(), detail));
    }
}

/// Who is called: one of an address and a service.
pub fn client(out: &mut Causes, client: &Value, path: &str) {
    match (client.at("url").as_str(), client.has("service")) {
        (Some(url), false) => webhook_url(out, url, &format!("{path}.url")),
        (None, true) => webhook_service(out, client.at("service"), &format!("{path}.service")),
        _ => out.push(Cause::required(path, "exactly one of url or service is required")),
    }
}

/// What `ValidateWebhookURL` says.
pub fn webhook_url(out: &mut Causes, url: &str, path: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let mut invalid = |value: &str, detail: &str| out.push(Cause::invalid(path, &value.into(), detail));
    if scheme != "https" {
        invalid(scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        invalid(host, &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        invalid(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        invalid(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        invalid(query, "query parameters are not permitted in the URL");
    }
}

/// What `ValidateWebhookService` says.
pub fn webhook_service(out: &mut Causes, service: &Value, path: &str) {
    // Kubernetes calls its check with the two the wrong way round, so that each is told of as the other.
    for (told, read) in [("name", "namespace"), ("namespace", "name")] {
        if service.text(read).is_empty() {
            out.push(Cause::required(format!("{path}.{told}"), ""));
        }
    }
    if let Some(text) = validate::port_number(service.int("port")) {
        let detail = format!("port is not valid: {text}");
        out.push(Cause::invalid(format!("{path}.port"), service.at("port"), &detail));
    }
    let (path, value) = (format!("{path}.path"), service.text("path"));
    let mut invalid = |detail: &str| out.push(Cause::invalid(&path, &value.into(), detail));
    match value {
        "" | "/" => return,
        "//" => return invalid("segment[0] may not be empty"),
        _ => {}
    }
    if !value.starts_with('/') {
        invalid("must start with a '/'");
    }
    let steps = &value[value.chars().next().map_or(0, char::len_utf8)..];
    for (at, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            invalid(&format!("segment[{at}] may not be empty"));
            continue;
        }
        for text in validate::dns1123_subdomain(step) {
            invalid(&format!("segment[{at}]: {text}"));
        }
    }
}

fn is_review_version(version: &Value) -> bool {
    version == "v1" || version == "v1beta1"
}

fn review_versions(out: &mut Causes, hook: &Value, recognized: bool, path: &str) {
    let versions = hook.list("admissionReviewVersions");
    if versions.is_empty() {
        return out.push(Cause::required(path, "must specify one of v1, v1beta1"));
    }
    for (at, version) in versions.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if versions[..at].contains(version) {
            out.push(Cause::invalid(path, version, "duplicate version"));
            continue;
        }
        text(out, version.as_str().unwrap_or_default(), &path, validate::dns1035_label);
    }
    if recognized && !versions.iter().any(is_review_version) {
        let detail = "must include at least one of v1, v1beta1";
        out.push(Cause::invalid(path, hook.at("admissionReviewVersions"), detail));
    }
}

fn named_rule(out: &mut Causes, rule: &Value, path: &str) {
    let names = rule.list("resourceNames");
    for (at, name) in names.iter().enumerate() {
        let path = format!("{path}.resourceNames[{at}]");
        let texts = validate::path_segment(name.as_str().unwrap_or_default(), false);
        validate::push_all(out, &path, name.as_str().unwrap_or_default(), texts);
        if names[..at].contains(name) {
            out.push(Cause::duplicate(path, name));
        }
    }
    self::rule(out, rule, path);
}

fn rule(out: &mut Causes, rule: &Value, path: &str) {
    let lists = [
        ("operations", Some("operations")),
        ("apiGroups", Some("API groups")),
        ("apiVersions", Some("API versions")),
        ("resources", None),
    ];
    for (field, others) in lists {
        let (path, list) = (format!("{path}.{field}"), rule.list(field));
        if list.is_empty() {
            out.push(Cause::required(&path, ""));
        }
        let Some(others) = others else {
            resources(out, rule, &path);
            continue;
        };
        if list.len() > 1 && list.iter().any(|item| item == "*") {
            let detail = format!("if '*' is present, must not specify other {others}");
            out.push(Cause::invalid(&path, rule.at(field), &detail));
        }
        for (at, item) in list.iter().enumerate() {
            match field {
                "operations" if !OPERATIONS.contains(&item.as_str().unwrap_or_default()) => {
                    out.push(Cause::not_supported(format!("{path}[{at}]"), item, OPERATIONS));
                }
                "apiVersions" if item == "" => out.push(Cause::required(format!("{path}[{at}]"), "")),
                _ => {}
            }
        }
    }
    optional_one_of(out, rule.at("scope"), format_args!("{path}.scope"), &["*", "Cluster", "Namespaced"]);
}

fn resources(out: &mut Causes, rule: &Value, path: &str) {
    let list: Vec<&str> = rule.list("resources").iter().filter_map(Value::as_str).collect();
    // With every subresource, and of every resource.
    let (mut whole, mut everywhere): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut plain_last = false;
    for (at, item) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if item.is_empty() {
            out.push(Cause::required(path, ""));
            continue;
        }
        let Some((resource, subresource)) = item.split_once('/') else {
            plain_last = *item != "*";
            continue;
        };
        if whole.contains(&resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {item}");
            out.push(Cause::invalid(&path, &(*item).into(), &detail));
        }
        if everywhere.contains(&subresource) {
            let detail = format!("if '*/{subresource}' is present, must not specify {item}");
            out.push(Cause::invalid(&path, &(*item).into(), &detail));
        }
        if subresource == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            everywhere.push(subresource);
        }
    }
    if list.len() > 1 && list.contains(&"*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        out.push(Cause::invalid(path, rule.at("resources"), detail));
    }
    if list.contains(&"*") && plain_last {
        let detail = "if '*' is present, must not specify other resources without subresources";
        out.push(Cause::invalid(path, rule.at("resources"), detail));
    }
}

fn conditions(out: &mut Causes, owner: &Value, path: &str) {
    const MAX: usize = 64;
    let conditions = owner.list("matchConditions");
    if conditions.len() > MAX {
        out.push(Cause::too_many(path, conditions.len(), MAX));
    }
    for (at, condition) in conditions.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if condition.text("expression").trim().is_empty() {
            out.push(Cause::required(format!("{path}.expression"), ""));
        }
        if required(out, condition, &path, "name") {
            text(out, condition.text("name"), format_args!("{path}.name"), validate::qualified_name);
            if conditions[..at].iter().any(|other| other.at("name") == condition.at("name")) {
                out.push(Cause::duplicate(format!("{path}.name"), condition.at("name")));
            }
        }
    }
}

fn match_resources(out: &mut Causes, matching: &Value, path: &str) {
    check::set_one_of(out, matching.at("matchPolicy"), format_args!("{path}.matchPolicy"), MATCH_POLICIES);
    for selector in ["namespaceSelector", "objectSelector"] {
        check::label_selector(out, matching.at(selector), format_args!("{path}.{selector}"));
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (at, rule) in matching.list(list).iter().enumerate() {
            named_rule(out, rule, &format!("{path}.{list}[{at}]"));
        }
    }
}

/// What both kinds of policies start with.
fn policy(out: &mut Causes, spec: &Value, mutating: bool) {
    check::set_one_of(out, spec.at("failurePolicy"), "spec.failurePolicy", FAILURE_POLICIES);
    if spec.has("paramKind") {
        param_kind(out, spec.at("paramKind"));
    }
    let matching = spec.at("matchConstraints");
    if matching.is_null() {
        out.push(Cause::required("spec.matchConstraints", ""));
    } else {
        match_resources(out, matching, "spec.matchConstraints");
        if matching.list("resourceRules").is_empty() {
            out.push(Cause::required("spec.matchConstraints.resourceRules", ""));
        }
        if mutating {
            mutating_operations(out, matching, "spec.matchConstraints");
        }
    }
    conditions(out, spec, "spec.matchConditions");
    for (at, variable) in spec.list("variables").iter().enumerate() {
        let path = format!("spec.variables[{at}]");
        let name = variable.text("name");
        if name.trim().is_empty() {
            out.push(Cause::required(format!("{path}.name"), "name is not specified"));
        } else if !is_identifier(name) {
            out.push(Cause::invalid(format!("{path}.name"), &name.into(), "must be a valid CEL identifier"));
        }
        if variable.text("expression").trim().is_empty() {
            out.push(Cause::required(format!("{path}.expression"), "expression is not specified"));
        }
    }
}

fn mutating_operations(out: &mut Causes, matching: &Value, path: &str) {
    for operation in matching.list("resourceRules").iter().flat_map(|rule| rule.list("operations")) {
        if !MUTATING_OPERATIONS.contains(&operation.as_str().unwrap_or_default()) {
            let path = format!("{path}.resourceRules.operations");
            out.push(Cause::not_supported(path, operation, MUTATING_OPERATIONS));
        }
    }
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let word = name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    word && !name.starts_with(|c: char| c.is_ascii_digit()) && !RESERVED.contains(&name)
}

fn param_kind(out: &mut Causes, of: &Value) {
    const PATH: &str = "spec.paramKind.apiVersion";
    let version = of.text("apiVersion");
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    let mut invalid = |value: &str, texts: Vec<String>| {
        if !texts.is_empty() {
            out.push(Cause::invalid(PATH, &value.into(), &texts.join(",")));
        }
    };
    match version.matches('/').count() {
        _ if version.is_empty() => out.push(Cause::required(PATH, "")),
        0 | 1 => {
            if !group.is_empty() {
                invalid(group, validate::dns1123_subdomain(group));
            }
            match short {
                "" => invalid(version, vec!["version must be specified".to_owned()]),
                _ => invalid(short, validate::dns1035_label(short)),
            }
        }
        _ => invalid(version, vec![format!("unexpected GroupVersion string: {version}")]),
    }
    let kind = of.text("kind");
    if required(out, of, "spec.paramKind", "kind") {
        let texts = validate::dns1035_label(&kind.to_lowercase());
        if !texts.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", texts.join(","));
            out.push(Cause::invalid("spec.paramKind.kind", &kind.into(), &detail));
        }
    }
}

/// What the type checker found, and conditions.
fn validating_status(status: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    for (at, warning) in status.list("typeChecking.expressionWarnings").iter().enumerate() {
        let path = format!("status.typeChecking.expressionWarnings[{at}]");
        if warning.text("warning").is_empty() {
            out.push(Cause::required(format!("{path}.warning"), ""));
        }
        let (field, path) = (warning.text("fieldRef").trim(), format!("{path}.fieldRef"));
        // A word in front is an identifier, which is refused only where it is evaluated.
        let below = field.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        if field.is_empty() {
            out.push(Cause::required(path, ""));
        } else if let Err(error) = JsonPath::parse(&format!("{{{below}}}")) {
            out.push(Cause::invalid(path, &field.into(), &format!("invalid JSONPath: {error}")));
        }
    }
    check::conditions(&mut out, status.list("conditions"), "status.conditions");
    out
}

fn validating_policy(object: &Value) -> Vec<Cause> {
    const ANNOTATIONS_MAX: usize = 20;
    const EXPRESSION_MAX: usize = 5 * 1024;
    let mut out = Vec::new();
    let spec = object.at("spec");
    policy(&mut out, spec, false);
    let (validations, annotations) = (spec.list("validations"), spec.list("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            out.push(Cause::required(format!("spec.{field}"), detail));
        }
    }
    for (at, validation) in validations.iter().enumerate() {
        self::validation(&mut out, validation, &format!("spec.validations[{at}]"));
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        let shown: Vec<Value> = annotations
            .iter()
            .map(|each| internal::shown("api.admissionregistration.v1.AuditAnnotation", each))
            .collect();
        out.push(Cause::invalid("spec.auditAnnotations", &shown.into(), &detail));
    }
    for (at, annotation) in annotations.iter().enumerate() {
        let path = format!("spec.auditAnnotations[{at}]");
        let key = format!("{}/{}", object.text("metadata.name"), annotation.text("key"));
        text(&mut out, &key, format_args!("{path}.key"), validate::qualified_name);
        let value = annotation.text("valueExpression").trim();
        if value.is_empty() {
            out.push(Cause::required(format!("{path}.valueExpression"), "valueExpression is not specified"));
        } else if value.len() > EXPRESSION_MAX {
            let detail = format!("must not exceed {EXPRESSION_MAX} bytes in length");
            out.push(Cause::required(format!("{path}.valueExpression"), &detail));
        }
        if annotations[..at].iter().any(|other| other.at("key") == annotation.at("key")) {
            out.push(Cause::duplicate(format!("{path}.key"), annotation.at("key")));
        }
    }
    out
}

fn validation(out: &mut Causes, validation: &Value, path: &str) {
    const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
    if validation.text("expression").trim().is_empty() {
        out.push(Cause::required(format!("{path}.expression"), "expression is not specified"));
    }
    for field in ["messageExpression", "message"] {
        let given = validation.text(field);
        let detail = match given.trim() {
            "" if !given.is_empty() => "must be non-empty if specified",
            trimmed if field == "message" && trimmed.contains(['\n', '\r']) => "must not contain line breaks",
            _ => continue,
        };
        out.push(Cause::invalid(format!("{path}.{field}"), &given.into(), detail));
    }
    optional_one_of(out, validation.at("reason"), format_args!("{path}.reason"), REASONS);
}

fn mutating_policy(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    policy(&mut out, spec, true);
    if spec.list("mutations").is_empty() {
        out.push(Cause::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (at, mutation) in spec.list("mutations").iter().enumerate() {
        self::mutation(&mut out, mutation, &format!("spec.mutations[{at}]"));
    }
    one_of(&mut out, spec.at("reinvocationPolicy"), "spec.reinvocationPolicy", REINVOCATION_POLICIES);
    out
}

fn mutation(out: &mut Causes, mutation: &Value, path: &str) {
    const TYPES: [(&str, &str, &str); 2] =
        [("ApplyConfiguration", "applyConfiguration", "jsonPatch"), ("JSONPatch", "jsonPatch", "applyConfiguration")];
    let type_ = mutation.text("patchType");
    let Some((_, own, other)) = TYPES.iter().find(|(name, ..)| *name == type_) else {
        return one_of(out, mutation.at("patchType"), format_args!("{path}.patchType"), &TYPES.map(|(name, ..)| name));
    };
    if !mutation.has(own) {
        let detail = format!("must be specified when patchType is {type_}");
        out.push(Cause::required(format!("{path}.{own}"), &detail));
    } else if mutation.at(own).text("expression").trim().is_empty() {
        out.push(Cause::required(format!("{path}.{own}.expression"), ""));
    }
    if mutation.has(other) {
        let detail = format!("must not be specified when patchType is {type_}");
        out.push(Cause::invalid(format!("{path}.{other}"), &format!("{{{other}}}").into(), &detail));
    }
}

/// What both kinds of bindings hold, but for a missing policy.
fn binding(out: &mut Causes, spec: &Value) {
    if spec.has("paramRef") {
        param_ref(out, spec.at("paramRef"), "spec.paramRef");
    }
    if spec.has("matchResources") {
        match_resources(out, spec.at("matchResources"), "spec.matchResources");
    }
}

fn policy_name(out: &mut Causes, spec: &Value) {
    if !spec.text("policyName").is_empty() {
        text(out, spec.text("policyName"), "spec.policyName", validate::dns1123_subdomain);
    }
}

fn validating_binding(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    policy_name(&mut out, spec);
    binding(&mut out, spec);
    let actions = spec.list("validationActions");
    for (at, action) in actions.iter().enumerate() {
        let path = format!("spec.validationActions[{at}]");
        if !["Audit", "Deny", "Warn"].contains(&action.as_str().unwrap_or_default()) {
            out.push(Cause::not_supported(&path, action, &["Audit", "Deny", "Warn"]));
        }
        if actions[..at].contains(action) {
            out.push(Cause::duplicate(path, action));
        }
    }
    if ["Deny", "Warn"].iter().all(|action| actions.iter().any(|given| given == action)) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        out.push(Cause::invalid("spec.validationActions", spec.at("validationActions"), detail));
    }
    required(&mut out, spec, "spec", "policyName");
    if actions.is_empty() {
        out.push(Cause::required("spec.validationActions", ""));
    }
    out
}

fn mutating_binding(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    required(&mut out, spec, "spec", "policyName");
    policy_name(&mut out, spec);
    binding(&mut out, spec);
    mutating_operations(&mut out, spec.at("matchResources"), "spec.matchResources");
    out
}

fn param_ref(out: &mut Causes, of: &Value, path: &str) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (of.text("name"), of.at("selector"));
    if !name.is_empty() {
        validate::push_all(out, format_args!("{path}.name"), name, validate::path_segment(name, false));
        if !selector.is_null() {
            out.push(Cause::forbidden(format!("{path}.name"), EXCLUSIVE));
        }
    }
    check::label_selector(out, selector, format_args!("{path}.selector"));
    match (name.is_empty(), selector.is_null()) {
        (false, false) => out.push(Cause::forbidden(format!("{path}.selector"), EXCLUSIVE)),
        (true, true) => out.push(Cause::required(path, "one of name or selector must be specified")),
        _ => {}
    }
    let path = format!("{path}.parameterNotFoundAction");
    check::set_one_of(out, of.at("parameterNotFoundAction"), &path, &["Deny", "Allow"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_policies_are_looked_at() {
        let check = |status: Value, expected: &[&str]| {
            let causes = validating_status(&status);
            let told: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
            assert_eq!(told, expected);
        };
        let warnings =
            |field: &str| json!({"typeChecking": {"expressionWarnings": [{"fieldRef": field, "warning": "w"}]}});
        check(warnings(" spec.validations[0].expression "), &[]);
        check(warnings(" "), &["status.typeChecking.expressionWarnings[0].fieldRef: Required value"]);
        check(
            warnings("a["),
            &[
                "status.typeChecking.expressionWarnings[0].fieldRef: Invalid value: \"a[\": invalid JSONPath: unterminated array",
            ],
        );
        check(
            json!({"conditions": [{"type": "a"}]}),
            &[
                "status.conditions[0].status: Required value",
                "status.conditions[0].lastTransitionTime: Required value",
                "status.conditions[0].reason: Required value",
            ],
        );
    }
}
