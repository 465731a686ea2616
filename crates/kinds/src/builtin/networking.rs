//! Ingresses, network policies and the addresses of services.

use serde_json::{Value, json};

use super::check::{self, Causes, required, text};
use super::read::{Read, Write};
use super::{columns, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause, NameRule};

pub static INGRESS: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::ingress,
    prepare_create: |ingress| ingress.set("status", json!({"loadBalancer": {}})),
    validate_create: |ingress| {
        const CLASS: &str = "kubernetes.io/ingress.class";
        let mut out = self::ingress(ingress);
        let (old, class) = (ingress.at("metadata.annotations").key(CLASS), ingress.at("spec.ingressClassName"));
        if !old.is_null() && !class.is_null() && old != class {
            let detail = "must match `ingressClassName` when both are specified";
            out.push(Cause::invalid(format!("annotations.{CLASS}"), old, detail));
        }
        out
    },
    validate_update: |new, _| ingress(new),
    validate_status: |new, _| {
        let mut out = Vec::new();
        for (at, point) in new.list("status.loadBalancer.ingress").iter().enumerate() {
            let path = format!("status.loadBalancer.ingress[{at}]");
            if !point.text("ip").is_empty() {
                check::ip(&mut out, point.text("ip"), format_args!("{path}.ip"));
            }
            if !point.text("hostname").is_empty() {
                text(&mut out, point.text("hostname"), format_args!("{path}.hostname"), validate::dns1123_subdomain);
                not_an_ip(&mut out, point.text("hostname"), &format!("{path}.hostname"));
            }
        }
        out
    },
    columns: columns::INGRESS,
    row: rows::ingress,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static INGRESS_CLASS: Behaviour = Behaviour {
    checks_name_again: true,
    default: |class| {
        if class.has("spec.parameters") {
            class.set_if_absent("spec.parameters.scope", "Cluster");
        }
    },
    validate_create: ingress_class,
    validate_update: |new, old| {
        let mut out: Vec<Cause> =
            validate::immutable_text(new.at("spec.controller"), old.at("spec.controller"), "spec.controller")
                .into_iter()
                .collect();
        out.extend(ingress_class(new));
        out
    },
    columns: columns::INGRESS_CLASS,
    row: rows::ingress_class,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static NETWORK_POLICY: Behaviour = Behaviour {
    counts_empty: true,
    warnings: warnings::network_policy,
    default: default_policy,
    validate_create: network_policy,
    validate_update: |new, _| network_policy(new),
    columns: columns::NETWORK_POLICY,
    row: rows::network_policy,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static IP_ADDRESS: Behaviour = Behaviour {
    checks_name_again: true,
    validate_create: ip_address,
    validate_update: |new, old| {
        let mut out = ip_address(new);
        if new.at("spec.parentRef") != old.at("spec.parentRef") {
            out.push(validate::fixed("spec.parentRef"));
        }
        out
    },
    columns: columns::IP_ADDRESS,
    row: rows::ip_address,
    name: NameRule::Own(ip_name),
    ..Behaviour::PLAIN
};

pub static SERVICE_CIDR: Behaviour = Behaviour {
    prepare_create: |range| range.set("status", json!({})),
    validate_create: service_cidr,
    validate_update: ranges_stay,
    columns: columns::SERVICE_CIDR,
    row: rows::service_cidr,
    has_status: true,
    status_keeps_metadata: true,
    ..Behaviour::PLAIN
};

fn not_an_ip(out: &mut Causes, host: &str, path: &str) {
    if host.parse::<std::net::IpAddr>().is_ok() {
        out.push(Cause::invalid(path, &host.into(), "must be a DNS name, not an IP address"));
    }
}

fn host(out: &mut Causes, host: &str, path: &str) {
    let check = if host.contains('*') { validate::wildcard_subdomain } else { validate::dns1123_subdomain };
    text(out, host, path, check);
}

fn ingress(ingress: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = ingress.at("spec");
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        out.push(Cause::invalid("spec", &Value::Null, "either `defaultBackend` or `rules` must be specified"));
    }
    if spec.has("defaultBackend") {
        backend(&mut out, spec.at("defaultBackend"), "spec.defaultBackend");
    }
    for (at, rule) in spec.list("rules").iter().enumerate() {
        let path = format!("spec.rules[{at}]");
        if !rule.text("host").is_empty() {
            not_an_ip(&mut out, rule.text("host"), &format!("{path}.host"));
            host(&mut out, rule.text("host"), &format!("{path}.host"));
        }
        if rule.has("http") {
            let path = format!("{path}.http.paths");
            if rule.list("http.paths").is_empty() {
                out.push(Cause::required(&path, ""));
            }
            for (at, each) in rule.list("http.paths").iter().enumerate() {
                http_path(&mut out, each, &format!("{path}[{at}]"));
            }
        }
    }
    for (at, tls) in spec.list("tls").iter().enumerate() {
        let path = format!("spec.tls[{at}]");
        for (at, name) in tls.list("hosts").iter().filter_map(Value::as_str).enumerate() {
            host(&mut out, name, &format!("{path}.hosts[{at}]"));
        }
        if !tls.text("secretName").is_empty() {
            text(&mut out, tls.text("secretName"), format_args!("{path}.secretName"), validate::dns1123_subdomain);
        }
    }
    if let Some(class) = spec.at("ingressClassName").as_str() {
        text(&mut out, class, "spec.ingressClassName", validate::dns1123_subdomain);
    }
    out
}

fn http_path(out: &mut Causes, each: &Value, path: &str) {
    const TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
    const SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const ENDS: [&str; 2] = ["/..", "/."];
    let field = format!("{path}.path");
    let given = each.text("path");
    let mut wrong = |detail: &str| out.push(Cause::invalid(&field, &given.into(), detail));
    let Some(type_) = each.at("pathType").as_str() else {
        return out.push(Cause::required(format!("{path}.pathType"), "pathType must be specified"));
    };
    match type_ {
        "Exact" | "Prefix" => {
            if !given.starts_with('/') {
                wrong("must be an absolute path");
            }
            for sequence in SEQUENCES.iter().filter(|sequence| given.contains(**sequence)) {
                wrong(&format!("must not contain '{sequence}'"));
            }
            for end in ENDS.iter().filter(|end| given.ends_with(**end)) {
                wrong(&format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !given.is_empty() && !given.starts_with('/') {
                wrong("must be an absolute path");
            }
        }
        _ => out.push(Cause::not_supported(format!("{path}.pathType"), each.at("pathType"), TYPES)),
    }
    backend(out, each.at("backend"), &format!("{path}.backend"));
}

fn backend(out: &mut Causes, backend: &Value, path: &str) {
    let (resource, service) = (backend.at("resource"), backend.at("service"));
    match (resource.is_null(), service.is_null()) {
        (false, false) => {
            out.push(Cause::invalid(path, &"".into(), "cannot set both resource and service backends"));
        }
        (true, true) => out.push(Cause::invalid(path, &"".into(), "resource or service backend is required")),
        (false, true) => {
            let path = format!("{path}.resource");
            if let Some(group) = resource.at("apiGroup").as_str() {
                text(out, group, format_args!("{path}.apiGroup"), validate::dns1123_subdomain);
            }
            for field in ["kind", "name"] {
                if required(out, resource, &path, field) {
                    let value = resource.text(field);
                    validate::push_all(
                        out,
                        format_args!("{path}.{field}"),
                        value,
                        validate::path_segment(value, false),
                    );
                }
            }
        }
        (true, false) => {
            let name = service.text("name");
            if required(out, service, format_args!("{path}.service"), "name") {
                text(out, name, format_args!("{path}.service.name"), validate::dns1123_label);
            }
            let (port, number) = (service.text("port.name"), service.int("port.number"));
            match (port, number) {
                ("", 0) => out.push(Cause::required(path, "port name or number is required")),
                ("", number) => check::in_range(out, number, format_args!("{path}.service.port.number"), 1, 65535),
                (port, 0) => text(out, port, format_args!("{path}.service.port.name"), validate::port_name),
                _ => out.push(Cause::invalid(path, &"".into(), "cannot set both port name & port number")),
            }
        }
    }
}

const CONTROLLER_BYTES_MAX: usize = 250;

fn ingress_class(class: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = class.at("spec");
    // What is missing or too long is told after everything else.
    let mut missing = Vec::new();
    let controller = spec.text("controller");
    if controller.len() > CONTROLLER_BYTES_MAX {
        missing.push(Cause::too_long("spec.controller", CONTROLLER_BYTES_MAX));
    }
    let told = if controller.is_empty() { &mut missing } else { &mut out };
    check::domain_prefixed_path(told, controller, "spec.controller");
    let parameters = spec.at("parameters");
    if parameters.is_null() {
        out.extend(missing);
        return out;
    }
    let path = "spec.parameters";
    if let Some(group) = parameters.at("apiGroup").as_str() {
        text(&mut out, group, format_args!("{path}.apiGroup"), validate::dns1123_subdomain);
    }
    for field in ["kind", "name"] {
        if required(&mut missing, parameters, path, field) {
            let value = parameters.text(field);
            validate::push_all(&mut out, format_args!("{path}.{field}"), value, validate::path_segment(value, false));
        }
    }
    let namespace = parameters.at("namespace");
    let field = format!("{path}.namespace");
    match parameters.text("scope") {
        "Namespace" if namespace.is_null() => {
            out.push(Cause::required(field, "`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => text(&mut out, parameters.text("namespace"), &field, validate::dns1123_label),
        "Cluster" if !namespace.is_null() => {
            out.push(Cause::forbidden(field, "`parameters.scope` is set to 'Cluster'"));
        }
        "Cluster" => {}
        _ => check::optional_one_of(
            &mut out,
            parameters.at("scope"),
            format_args!("{path}.scope"),
            &["Cluster", "Namespace"],
        ),
    }
    out.extend(missing);
    out
}

fn default_policy(policy: &mut Value) {
    for list in ["spec.ingress", "spec.egress"] {
        for rule in policy.list_mut(list) {
            for port in rule.list_mut("ports") {
                port.set_if_absent("protocol", "TCP");
            }
        }
    }
    if policy.list("spec.policyTypes").is_empty() && policy.at("spec").is_object() {
        let mut types = vec!["Ingress"];
        if !policy.list("spec.egress").is_empty() {
            types.push("Egress");
        }
        policy.set("spec.policyTypes", types);
    }
}

fn network_policy(policy: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = policy.at("spec");
    check::label_selector(&mut out, spec.at("podSelector"), "spec.podSelector");
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (at, rule) in spec.list(list).iter().enumerate() {
            let path = format!("spec.{list}[{at}]");
            for (at, port) in rule.list("ports").iter().enumerate() {
                policy_port(&mut out, port, &format!("{path}.ports[{at}]"));
            }
            for (at, peer) in rule.list(peers).iter().enumerate() {
                policy_peer(&mut out, peer, &format!("{path}.{peers}[{at}]"));
            }
        }
    }
    let types = spec.list("policyTypes");
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        out.push(Cause::invalid("spec.policyTypes", spec.at("policyTypes"), detail));
        return out;
    }
    for (at, type_) in types.iter().enumerate() {
        check::optional_one_of(&mut out, type_, format_args!("spec.policyTypes[{at}]"), &["Ingress", "Egress"]);
    }
    out
}

fn policy_port(out: &mut Causes, port: &Value, path: &str) {
    check::optional_one_of(out, port.at("protocol"), format_args!("{path}.protocol"), &["TCP", "UDP", "SCTP"]);
    let (number, end) = (port.at("port"), port.opt_int("endPort"));
    let field = format!("{path}.endPort");
    match (number, end) {
        (Value::Null, Some(end)) => {
            out.push(Cause::invalid(&field, &end.into(), "may not be specified when `port` is not specified"));
        }
        (Value::String(_), Some(end)) => {
            out.push(Cause::invalid(&field, &end.into(), "may not be specified when `port` is non-numeric"));
        }
        _ => {}
    }
    if number.is_null() {
        return;
    }
    check::port(out, number, format_args!("{path}.port"));
    if let (Some(number), Some(end)) = (number.as_i64(), end) {
        if end < number {
            out.push(Cause::invalid(&field, &end.into(), "must be greater than or equal to `port`"));
        }
        check::in_range(out, end, &field, 1, 65535);
    }
}

fn policy_peer(out: &mut Causes, peer: &Value, path: &str) {
    let selects = ["podSelector", "namespaceSelector"].map(|field| peer.has(field));
    for field in ["podSelector", "namespaceSelector"] {
        check::label_selector(out, peer.at(field), format_args!("{path}.{field}"));
    }
    let block = peer.at("ipBlock");
    if !block.is_null() {
        let path = format!("{path}.ipBlock");
        let whole = block.text("cidr");
        if whole.is_empty() {
            out.push(Cause::required(format!("{path}.cidr"), ""));
        } else {
            check::cidr(out, whole, &format!("{path}.cidr"));
        }
        if let Some(whole) = check::parse_cidr(whole) {
            for (at, except) in block.list("except").iter().filter_map(Value::as_str).enumerate() {
                let path = format!("{path}.except[{at}]");
                check::cidr(out, except, &path);
                if check::parse_cidr(except).is_some_and(|part| !is_within(part, whole)) {
                    out.push(Cause::invalid(path, &except.into(), "must be a strict subset of `cidr`"));
                }
            }
        }
    }
    match (block.is_null(), selects.contains(&true)) {
        (true, false) => out.push(Cause::required(path, "must specify a peer")),
        (false, true) => out.push(Cause::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

/// A part of the range, and not all of it.
fn is_within((part, part_bits): (std::net::IpAddr, u32), (whole, bits): (std::net::IpAddr, u32)) -> bool {
    use std::net::IpAddr;
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
        IpAddr::V6(v6) => (v6.to_bits(), false),
    };
    let ((part, part_v4), (whole, whole_v4)) = (number(part), number(whole));
    let head = |address: u128| if bits == 0 { 0 } else { address >> (128 - bits) };
    part_v4 == whole_v4 && part_bits > bits && head(part) == head(whole)
}

fn ip_name(name: &str, _: bool) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form ({})", crate::kind::go_quote(&ip.to_string()))],
        Err(_) => {
            let numbers: Vec<&str> = name.split('.').collect();
            let padded = |n: &&str| n.len() > 1 && n.starts_with('0');
            let is_v4 = numbers.len() == 4 && numbers.iter().all(|n| n.parse::<u16>().is_ok_and(|n| n < 256));
            if is_v4 && numbers.iter().any(padded) {
                return vec!["must not have leading 0s".to_owned()];
            }
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
        }
    }
}

fn ip_address(address: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let parent = address.at("spec.parentRef");
    let path = "spec.parentRef";
    if parent.is_null() {
        return vec![Cause::required(path, "")];
    }
    if !parent.text("group").is_empty() {
        text(&mut out, parent.text("group"), format_args!("{path}.group"), validate::dns1123_subdomain);
    }
    let mut missing = Vec::new();
    for (field, needed) in [("resource", true), ("name", true), ("namespace", false)] {
        let value = parent.text(field);
        if value.is_empty() {
            if needed {
                missing.push(Cause::required(format!("{path}.{field}"), ""));
            }
            continue;
        }
        validate::push_all(&mut out, format_args!("{path}.{field}"), value, validate::path_segment(value, false));
    }
    out.extend(missing);
    out
}

/// A second range may come, for the other family; nothing else changes.
fn ranges_stay(new: &Value, old: &Value) -> Vec<Cause> {
    const PATH: &str = "spec.cidrs";
    let (after, before) = (new.list(PATH), old.list(PATH));
    let moved = |at: usize| validate::immutable(&after[at], &before[at], &format!("{PATH}[{at}]"));
    match (before.len(), after.len()) {
        (then, now) if then == now => (0..now).filter_map(moved).collect(),
        (1, 2) => moved(0).into_iter().chain(service_cidr(new)).collect(),
        _ => vec![Cause::invalid(PATH, new.at(PATH), "field is immutable")],
    }
}

fn service_cidr(range: &Value) -> Vec<Cause> {
    let path = "spec.cidrs";
    let list: Vec<&str> = range.list(path).iter().filter_map(Value::as_str).collect();
    if list.is_empty() {
        return vec![Cause::required(path, "at least one CIDR required")];
    }
    if list.len() > 2 {
        let shown = json!({"CIDRs": range.at(path)});
        return vec![Cause::invalid(path, &shown, "may only hold up to 2 values")];
    }
    let mut out = Vec::new();
    for (at, each) in list.iter().enumerate() {
        check::cidr(&mut out, each, &format!("{path}[{at}]"));
    }
    if list.len() == 2 && list[0].contains(':') == list[1].contains(':') && out.is_empty() {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        out.push(Cause::invalid(path, range.at(path), detail));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_path(each: Value, expected: &[&str]) {
        let mut each = each;
        each["backend"] = json!({"service": {"name": "a", "port": {"number": 80}}});
        let mut out = Vec::new();
        http_path(&mut out, &each, "p");
        let told: Vec<String> = out.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn paths_fit_their_types() {
        check_path(json!({"path": "/a/b", "pathType": "Prefix"}), &[]);
        check_path(json!({"path": "/a"}), &["p.pathType: Required value: pathType must be specified"]);
        check_path(
            json!({"path": "/a", "pathType": ""}),
            &[
                "p.pathType: Unsupported value: \"\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ],
        );
        check_path(
            json!({"path": "a//b%2F/..", "pathType": "Exact"}),
            &[
                "p.path: Invalid value: \"a//b%2F/..\": must be an absolute path",
                "p.path: Invalid value: \"a//b%2F/..\": must not contain '//'",
                "p.path: Invalid value: \"a//b%2F/..\": must not contain '%2F'",
                "p.path: Invalid value: \"a//b%2F/..\": cannot end with '/..'",
            ],
        );
    }
}
