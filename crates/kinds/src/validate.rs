//! What every object must satisfy whatever its kind: names, labels, annotations, owners, finalizers, and what of the
//! metadata never changes. Also the small formats (DNS labels, label keys, ports, percentages) in Kubernetes' own words.
//! Knows no kind; what a kind demands of its own is in its `Behaviour`.

use std::fmt::Display;

use serde_json::{Value, json};

use crate::builtin::read::Read;
use crate::{Cause, Kind, NameRule};

/// Bytes of all keys and values of `metadata.annotations`.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const FIELD_IMMUTABLE: &str = "field is immutable";

/// Everything wrong with an object that is to be created. The name has been generated already.
pub fn create(kind: &Kind, object: &Value) -> Vec<Cause> {
    if let Some(custom) = &kind.custom {
        let of_type = custom.check_type(kind, object);
        if !of_type.is_empty() {
            return of_type;
        }
        let mut causes = metadata(object, kind.namespaced, kind.behaviour.name);
        causes.extend(custom.check(object, None));
        return causes;
    }
    let mut causes = metadata(object, kind.namespaced, kind.behaviour.name);
    causes.extend(standard_finalizers(kind, object));
    causes.extend((kind.behaviour.validate_create)(object));
    if kind.behaviour.name_last {
        let (names, others): (Vec<Cause>, Vec<Cause>) =
            causes.into_iter().partition(|cause| cause.field == "metadata.name");
        causes = others;
        causes.extend(names);
    }
    once(causes)
}

/// Everything wrong with what is to take the place of `old`.
pub fn update(kind: &Kind, new: &Value, old: &Value) -> Vec<Cause> {
    if let Some(custom) = &kind.custom {
        let of_type = custom.check_type(kind, new);
        if !of_type.is_empty() {
            return of_type;
        }
        // Both the general part and the custom one look at what changed.
        let mut causes = metadata_update(new, old);
        causes.extend(metadata_changes(new, old));
        causes.extend(custom.check(new, Some(old)));
        return causes;
    }
    let mut causes = metadata_update(new, old);
    causes.extend(standard_finalizers(kind, new));
    if kind.behaviour.checks_name_again {
        generate_name(&mut causes, new.at("metadata"), kind.behaviour.name);
    }
    causes.extend((kind.behaviour.validate_update)(new, old));
    once(causes)
}

/// Everything wrong with a write of the status subresource.
pub fn status(kind: &Kind, new: &Value, old: &Value) -> Vec<Cause> {
    if let Some(custom) = &kind.custom {
        let mut causes = metadata_update(new, old);
        causes.extend(custom.check_status(new, old));
        return causes;
    }
    let mut causes = metadata_update(new, old);
    causes.extend(standard_finalizers(kind, new));
    causes.extend((kind.behaviour.validate_status)(new, old));
    once(causes)
}

/// Everything wrong with a write of any other subresource.
pub fn part(kind: &Kind, part: &str, new: &Value, old: &Value) -> Vec<Cause> {
    if kind.is_custom() {
        return update(kind, new, old);
    }
    let mut causes = metadata_update(new, old);
    causes.extend((kind.behaviour.validate_part)(part, new, old));
    once(causes)
}

/// The same cause from two rules is told once.
fn once(causes: Vec<Cause>) -> Vec<Cause> {
    let mut told: Vec<Cause> = Vec::with_capacity(causes.len());
    for cause in causes {
        if !told.contains(&cause) {
            told.push(cause);
        }
    }
    told
}

/// What is wrong with the metadata of an object that is to be created: the part that custom resources share.
pub fn metadata(object: &Value, namespaced: bool, rule: NameRule) -> Vec<Cause> {
    let meta = object.at("metadata");
    let mut causes = Vec::new();
    generate_name(&mut causes, meta, rule);
    match meta.text("name") {
        "" => causes.push(Cause::required("metadata.name", "name or generateName is required")),
        given => push_all(&mut causes, "metadata.name", given, name(rule, given, false)),
    }
    let namespace = meta.text("namespace");
    match (namespaced, namespace) {
        (true, "") => causes.push(Cause::required("metadata.namespace", "")),
        (true, _) => push_all(&mut causes, "metadata.namespace", namespace, dns1123_label(namespace)),
        (false, "") => {}
        (false, _) => causes.push(Cause::forbidden("metadata.namespace", "not allowed on this type")),
    }
    causes.extend(non_negative(meta.int("generation"), "metadata.generation"));
    causes.extend(labels(meta.at("labels"), "metadata.labels"));
    causes.extend(annotations(meta.at("annotations"), "metadata.annotations"));
    causes.extend(owners(meta.at("ownerReferences")));
    causes.extend(finalizers(meta.at("finalizers")));
    causes
}

fn generate_name(causes: &mut Vec<Cause>, meta: &Value, rule: NameRule) {
    let generate = meta.text("generateName");
    if !generate.is_empty() {
        push_all(causes, "metadata.generateName", generate, name(rule, generate, true));
    }
}

/// What is wrong with the metadata that is to take the place of `old`'s: the part that custom resources share.
pub fn metadata_update(new: &Value, old: &Value) -> Vec<Cause> {
    let meta = new.at("metadata");
    let mut causes = Vec::new();
    let generate = meta.text("generateName");
    push_all(&mut causes, "metadata.generateName", generate, path_segment(generate, true));
    causes.extend(non_negative(meta.int("generation"), "metadata.generation"));
    causes.extend(labels(meta.at("labels"), "metadata.labels"));
    causes.extend(annotations(meta.at("annotations"), "metadata.annotations"));
    causes.extend(owners(meta.at("ownerReferences")));
    causes.extend(finalizers(meta.at("finalizers")));
    causes.extend(metadata_changes(new, old));
    causes
}

/// What may not change of the metadata, and what every update looks at again.
fn metadata_changes(new: &Value, old: &Value) -> Vec<Cause> {
    let (new, old) = (new.at("metadata"), old.at("metadata"));
    let mut causes = Vec::new();
    if old.has("deletionTimestamp") {
        let kept = old.list("finalizers");
        let mut added: Vec<&str> =
            new.list("finalizers").iter().filter(|f| !kept.contains(f)).filter_map(Value::as_str).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|f| crate::kind::go_quote(f)).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                listed.join(", ")
            );
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
        }
    }
    if new.text("resourceVersion").is_empty() {
        causes.push(Cause::invalid("metadata.resourceVersion", &json!(""), "must be specified for an update"));
    }
    causes.extend(non_negative(new.int("generation"), "metadata.generation"));
    if new.int("generation") < old.int("generation") {
        causes.push(Cause::invalid("metadata.generation", new.at("generation"), "must not be decremented"));
    }
    for field in ["name", "namespace", "uid"] {
        if new.text(field) != old.text(field) {
            let value = Value::from(new.text(field));
            causes.push(Cause::invalid(format!("metadata.{field}"), &value, FIELD_IMMUTABLE));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        causes.extend(immutable(new.at(field), old.at(field), &format!("metadata.{field}")));
    }
    causes.extend(labels(new.at("labels"), "metadata.labels"));
    causes.extend(annotations(new.at("annotations"), "metadata.annotations"));
    causes.extend(owners(new.at("ownerReferences")));
    causes
}

/// The texts of what is wrong with a name; `prefix` is set for `generateName`.
pub fn name(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A generated name goes on after the prefix, so a dash at its end is no harm.
    let masked = if prefix && name.ends_with('-') { format!("{}a", &name[..name.len() - 1]) } else { name.to_owned() };
    match rule {
        NameRule::Subdomain => dns1123_subdomain(&masked),
        NameRule::Label => dns1123_label(&masked),
        NameRule::Label1035 => dns1035_label(&masked),
        NameRule::PathSegment => path_segment(name, prefix),
        NameRule::Own(check) => check(name, prefix),
    }
}

/// Label keys and values.
pub fn labels(labels: &Value, field: impl Display) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in labels.entries() {
        push_all(&mut causes, &field, key, qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        push_all(&mut causes, &field, value, label_value(value));
    }
    causes
}

/// Annotation keys (whose case is free) and the size of all.
pub fn annotations(annotations: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        push_all(&mut causes, field, key, qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        causes.push(Cause::too_long(field, ANNOTATIONS_BYTES_MAX));
    }
    causes
}

fn owners(owners: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut controller: Option<String> = None;
    for (at, owner) in owners.items().iter().enumerate() {
        let field = format!("metadata.ownerReferences[{at}]");
        let api_version = owner.text("apiVersion");
        if api_version.is_empty() {
            causes.push(Cause::required(format!("{field}.apiVersion"), "must not be empty"));
        } else if api_version.matches('/').count() > 1 || api_version.ends_with('/') {
            let value = owner.at("apiVersion");
            causes.push(Cause::invalid(format!("{field}.apiVersion"), value, "must be <group>/<version> or <version>"));
        }
        for required in ["kind", "name", "uid"] {
            if owner.text(required).is_empty() {
                causes.push(Cause::required(format!("{field}.{required}"), "must not be empty"));
            }
        }
        if (api_version, owner.text("kind")) == ("v1", "Event") {
            causes.push(Cause::invalid(&field, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => causes.push(Cause::invalid(
                    "metadata.ownerReferences",
                    owners,
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {this}"
                    ),
                )),
            }
        }
    }
    causes
}

fn finalizers(finalizers: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let has = |name: &str| finalizers.items().iter().any(|f| f == name);
    for finalizer in finalizers.items().iter().filter_map(Value::as_str) {
        push_all(&mut causes, "metadata.finalizers", finalizer, qualified_name(finalizer));
    }
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.push(Cause::invalid("metadata.finalizers", finalizers, detail));
    }
    causes
}

/// A finalizer without a domain is one of Kubernetes' own.
fn standard_finalizers(kind: &Kind, object: &Value) -> Vec<Cause> {
    const STANDARD: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];
    let mut causes = Vec::new();
    if kind.behaviour.any_finalizer {
        return causes;
    }
    for (at, finalizer) in object.list("metadata.finalizers").iter().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        if !text.contains('/') && !STANDARD.contains(&text) {
            causes.push(Cause::invalid(
                format!("metadata.finalizers[{at}]"),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    causes
}

/// One cause per text, all about the same value.
pub fn push_all(causes: &mut Vec<Cause>, field: impl Display, value: &str, texts: Vec<String>) {
    // Next to always there are none, and then nothing is to be put together.
    for text in texts {
        causes.push(Cause::invalid(field.to_string(), &Value::from(value), &text));
    }
}

/// `must be greater than or equal to 0`.
pub fn non_negative(number: i64, field: impl Display) -> Option<Cause> {
    (number < 0).then(|| Cause::invalid(field.to_string(), &Value::from(number), "must be greater than or equal to 0"))
}

/// `field is immutable`, with the new value, when it is not the old one.
pub fn immutable(new: &Value, old: &Value, field: &str) -> Option<Cause> {
    (new != old).then(|| Cause::invalid(field, new, FIELD_IMMUTABLE))
}

/// The same of a text, of which Go shows that it is absent as an empty one.
pub fn immutable_text(new: &Value, old: &Value, field: &str) -> Option<Cause> {
    let shown = new.as_str().unwrap_or_default();
    (new != old).then(|| Cause::invalid(field, &shown.into(), FIELD_IMMUTABLE))
}

/// What declared immutability says, which does not show the value.
pub fn fixed(field: &str) -> Cause {
    Cause::invalid(field, &Value::Null, FIELD_IMMUTABLE)
}

/// `regex used for validation is ..`, as upstream words it.
pub fn regex_text(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    let listed: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", listed.join(" or "))
}

fn max_length(characters: usize) -> String {
    format!("must be no more than {characters} characters")
}

fn is_lower_alnum(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, of any length.
fn is_label(text: &str) -> bool {
    text.starts_with(is_lower_alnum)
        && text.ends_with(is_lower_alnum)
        && text.chars().all(|c| c == '-' || is_lower_alnum(c))
}

/// Dots between labels, of any length.
pub fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 1123 label: 63 characters.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(max_length(63));
    }
    if !is_label(text) {
        wrong.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            regex_text(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character",
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
                &["my-name", "123-abc"],
            )
        });
    }
    wrong
}

const SUBDOMAIN_PATTERN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// RFC 1123 subdomain: 253 characters.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(max_length(253));
    }
    if !is_subdomain(text) {
        wrong.push(regex_text(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
             and end with an alphanumeric character",
            SUBDOMAIN_PATTERN,
            &["example.com"],
        ));
    }
    wrong
}

/// As [`dns1123_subdomain`], with underscores allowed: DNS search paths.
pub fn dns1123_subdomain_with_underscore(text: &str) -> Vec<String> {
    const LABEL: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    let is_label = |text: &str| {
        let rest = text.strip_prefix('_').unwrap_or(text);
        rest.starts_with(is_lower_alnum)
            && rest.ends_with(is_lower_alnum)
            && rest.chars().all(|c| matches!(c, '-' | '_') || is_lower_alnum(c))
    };
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(max_length(253));
    }
    if !text.split('.').all(is_label) {
        wrong.push(regex_text(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must \
             start and end with an alphanumeric character",
            &format!(r"{LABEL}(\.{LABEL})*"),
            &["example.com"],
        ));
    }
    wrong
}

/// `*.` and a subdomain.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(max_length(253));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        wrong.push(regex_text(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
             lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_PATTERN}"),
            &["*.example.com"],
        ));
    }
    wrong
}

/// RFC 1035 label: 63 characters, starts with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(max_length(63));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        wrong.push(regex_text(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, \
             and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

/// What can stand between two slashes of a URL.
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`, of any length.
fn is_name_part(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(alnum) && text.ends_with(alnum) && text.chars().all(|c| alnum(c) || matches!(c, '-' | '_' | '.'))
}

const NAME_PART_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A label key: an optional `prefix/` and a name of 63 bytes.
pub fn qualified_name(text: &str) -> Vec<String> {
    const ALLOWED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let part = match parts[..] {
        [part] => part,
        [prefix, part] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(dns1123_subdomain(prefix).iter().map(|text| format!("prefix part {text}")));
            }
            part
        }
        _ => {
            let text = regex_text(&format!("a valid label key {ALLOWED}"), NAME_PART_PATTERN, EXAMPLES);
            return vec![format!("{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if part.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if part.len() > 63 {
        wrong.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name_part(part) {
        wrong.push(regex_text(&format!("name part {ALLOWED}"), NAME_PART_PATTERN, EXAMPLES));
    }
    wrong
}

/// A label value: empty, or a name of 63 bytes.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push("must be no more than 63 bytes".to_owned());
    }
    if !text.is_empty() && !is_name_part(text) {
        wrong.push(regex_text(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character",
            &format!("({NAME_PART_PATTERN})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// A key of a ConfigMap or Secret: a file name.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(max_length(253));
    }
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        wrong.push(regex_text(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// The name of an environment variable.
pub fn env_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.is_empty() {
        wrong.push("environment variable name must be non-empty".to_owned());
    }
    if text.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        wrong.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    wrong
}

/// A port by name: 15 characters, at least one letter.
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 15 {
        wrong.push(max_length(15));
    }
    if text.is_empty() || !text.chars().all(|c| c == '-' || is_lower_alnum(c)) {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.contains(|c: char| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// `must be between 1 and 65535, inclusive`.
pub fn port_number(number: i64) -> Option<String> {
    in_range(number, 1, 65535)
}

/// `must be between LOW and HIGH, inclusive`.
pub fn in_range(number: i64, low: i64, high: i64) -> Option<String> {
    (!(low..=high).contains(&number)).then(|| format!("must be between {low} and {high}, inclusive"))
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.chars().all(|c| c == '-' || c.is_ascii_alphanumeric()) {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_text(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// `50%`.
pub fn percent(text: &str) -> Vec<String> {
    if text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_text(message, "[0-9]+%", &["1%", "93%"])]
}

/// An IPv4 or IPv6 address, and no odd way of writing one.
pub fn ip(text: &str, field: impl Display) -> Vec<Cause> {
    let detail = match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address",
        Ok(_) => return Vec::new(),
        Err(_) if without_leading_zeros(text).parse::<std::net::IpAddr>().is_ok() => "must not have leading 0s",
        Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    };
    vec![Cause::invalid(field, &Value::from(text), detail)]
}

/// An address range: `10.0.0.0/8`.
pub fn cidr(text: &str, field: &str) -> Vec<Cause> {
    let parse = |text: &str| {
        let (address, bits) = text.split_once('/')?;
        let address: std::net::IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|b| b.is_ascii_digit()));
        let bits: u32 = Some(bits).filter(|_| plain)?.parse().ok()?;
        (bits <= most).then_some((address, bits))
    };
    let set_beyond = |address: std::net::IpAddr, bits: u32| match address {
        std::net::IpAddr::V4(ip) => ip.to_bits().checked_shl(bits).unwrap_or_default() != 0,
        std::net::IpAddr::V6(ip) => ip.to_bits().checked_shl(bits).unwrap_or_default() != 0,
    };
    let detail = match parse(text) {
        Some((std::net::IpAddr::V6(ip), _)) if ip.to_ipv4_mapped().is_some() => {
            "must not have an IPv4-mapped IPv6 address"
        }
        Some((address, bits)) if set_beyond(address, bits) => "must not have bits set beyond the prefix length",
        Some(_) => return Vec::new(),
        None if parse(&without_leading_zeros(text)).is_some() => "must not have leading 0s in IP or prefix length",
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
    };
    vec![Cause::invalid(field, &Value::from(text), detail)]
}

/// Numbers without the zeros that some put before them, which others take for octal.
fn without_leading_zeros(text: &str) -> String {
    let plain = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let (head, dotted) = address.rsplit_once(':').map_or(("", address), |(head, dotted)| (head, dotted));
    let mut out = if head.is_empty() && !address.contains(':') { String::new() } else { format!("{head}:") };
    match dotted.contains('.') {
        true => out.push_str(&dotted.split('.').map(plain).collect::<Vec<_>>().join(".")),
        false => out.push_str(dotted),
    }
    if let Some(bits) = bits {
        out.push('/');
        out.push_str(&plain(bits));
    }
    out
}

/// What a client is warned of who writes an IPv6 address in other than its shortest form.
pub fn ip_warning(text: &str, field: &str) -> Option<String> {
    let quote = crate::kind::go_quote;
    let odd = |plain: String| {
        format!(
            "{field}: non-standard IP address {} will be considered invalid in a future Kubernetes release: use {}",
            quote(text),
            quote(&plain)
        )
    };
    match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => Some(odd(ip.to_string())),
            None => (ip.to_string() != text).then(|| {
                let (text, plain) = (quote(text), quote(&ip.to_string()));
                format!("{field}: IPv6 address {text} should be in RFC 5952 canonical format ({plain})")
            }),
        },
        Ok(_) => None,
        Err(_) => without_leading_zeros(text).parse::<std::net::IpAddr>().ok().map(|ip| odd(ip.to_string())),
    }
}

/// The same for a range.
pub fn cidr_warning(text: &str, field: &str) -> Option<String> {
    let (address, bits) = text.split_once('/')?;
    let std::net::IpAddr::V6(ip) = address.parse().ok()? else { return None };
    let plain = format!("{ip}/{bits}");
    (plain != text).then(|| {
        let (text, plain) = (crate::kind::go_quote(text), crate::kind::go_quote(&plain));
        format!("{field}: IPv6 CIDR value {text} should be in RFC 5952 canonical format ({plain})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: Vec<String>, want: &str) {
        assert_eq!(texts.join(" & "), want);
    }

    #[test]
    fn names_are_told_what_is_wrong_with_them() {
        check(name(NameRule::Subdomain, "a.b-c", false), "");
        check(name(NameRule::Subdomain, "web-", true), "");
        check(name(NameRule::PathSegment, "a/b%", false), "may not contain '/' & may not contain '%'");
        check(name(NameRule::PathSegment, "..", false), "may not be '..'");
        check(dns1123_label("a.b"), "must not contain dots");
        check(
            port_name("Http--"),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-) & must not contain consecutive hyphens & must not begin or end with a hyphen",
        );
        check(qualified_name("/x"), "prefix part must be non-empty");
        check(label_value(""), "");
        check(
            percent("5"),
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        );
    }

    #[test]
    fn addresses_are_written_in_one_way() {
        let ip = |text: &str| ip(text, "ip").iter().map(Cause::to_string).collect();
        check(ip("10.0.0.1"), "");
        check(ip("2001:DB8::1"), "");
        check(ip("010.0.0.1"), "ip: Invalid value: \"010.0.0.1\": must not have leading 0s");
        check(ip("::ffff:1.2.3.4"), "ip: Invalid value: \"::ffff:1.2.3.4\": must not be an IPv4-mapped IPv6 address");
        check(ip("x"), "ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        let cidr = |text: &str| cidr(text, "c").iter().map(Cause::to_string).collect();
        check(cidr("10.0.0.0/8"), "");
        check(cidr("0.0.0.0/0"), "");
        check(cidr("10.0.0.1/8"), "c: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length");
        check(
            cidr("10.0.0.0/08"),
            "c: Invalid value: \"10.0.0.0/08\": must not have leading 0s in IP or prefix length",
        );
        check(
            cidr("10.0.0.0/33"),
            "c: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        );
        check(
            ip_warning("2001:db8:0:0::1", "f").into_iter().collect(),
            "f: IPv6 address \"2001:db8:0:0::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
        );
    }

    #[test]
    fn metadata_that_never_changes() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "1"}});
        let new =
            json!({"metadata": {"name": "a", "uid": "x", "resourceVersion": "1", "deletionGracePeriodSeconds": 9}});
        let causes: Vec<String> = metadata_update(&new, &old).iter().map(Cause::to_string).collect();
        assert_eq!(
            causes,
            [
                r#"metadata.uid: Invalid value: "x": field is immutable"#,
                "metadata.deletionGracePeriodSeconds: Invalid value: 9: field is immutable"
            ]
        );
    }
}
