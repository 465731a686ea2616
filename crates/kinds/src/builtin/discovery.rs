//! The addresses behind services: endpoints and endpoint slices.

use serde_json::Value;

use super::check::{self, Causes, one_of, required, text};
use super::read::{Read, Write};
use super::{columns, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub static ENDPOINTS: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::endpoints,
    deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    default: |endpoints| {
        for subset in endpoints.list_mut("subsets") {
            for port in subset.list_mut("ports") {
                port.set_default("protocol", "TCP");
            }
        }
    },
    validate_create: endpoints,
    validate_update: |new, old| if new.at("subsets") == old.at("subsets") { Vec::new() } else { endpoints(new) },
    columns: columns::ENDPOINT,
    row: rows::endpoints,
    create_on_update: true,
    ..Behaviour::PLAIN
};

pub static ENDPOINT_SLICE: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::endpoint_slice,
    default: |slice| {
        for port in slice.list_mut("ports") {
            port.set_if_absent("name", "");
            port.set_if_absent("protocol", "TCP");
        }
    },
    prepare_create: drop_topology,
    prepare_update: |new, old| {
        if new.at("endpoints") != old.at("endpoints") {
            drop_topology(new);
        }
        // Labels count too: they say whose slice it is.
        if new.at("metadata.labels") != old.at("metadata.labels") {
            new.set("metadata.generation", old.int("metadata.generation") + 1);
        }
    },
    validate_create: endpoint_slice,
    validate_update: |new, old| {
        let mut out = endpoint_slice(new);
        if new.at("addressType") != old.at("addressType") {
            out.push(Cause::invalid("addressType", &Value::Null, "field is immutable"));
        }
        out
    },
    columns: columns::ENDPOINT_SLICE,
    row: rows::endpoint_slice,
    has_generation: true,
    ..Behaviour::PLAIN
};

/// What an older version of the kind said of places is not taken any more.
fn drop_topology(slice: &mut Value) {
    slice.list_mut("endpoints").iter_mut().for_each(|endpoint| endpoint.remove("deprecatedTopology"));
}

fn endpoints(endpoints: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    for (at, subset) in endpoints.list("subsets").iter().enumerate() {
        let path = format!("subsets[{at}]");
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            out.push(Cause::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (at, address) in subset.list(list).iter().enumerate() {
                let path = format!("{path}.{list}[{at}]");
                check::ip(&mut out, address.text("ip"), format_args!("{path}.ip"));
                if !address.text("hostname").is_empty() {
                    text(&mut out, address.text("hostname"), format_args!("{path}.hostname"), validate::dns1123_label);
                }
                if let Some(node) = address.at("nodeName").as_str() {
                    text(&mut out, node, format_args!("{path}.nodeName"), validate::dns1123_subdomain);
                }
                reachable(&mut out, address.text("ip"), &format!("{path}.ip"));
            }
        }
        let ports = subset.list("ports");
        for (at, port) in ports.iter().enumerate() {
            let path = format!("{path}.ports[{at}]");
            if !port.text("name").is_empty() {
                text(&mut out, port.text("name"), format_args!("{path}.name"), validate::dns1123_label);
            } else if ports.len() > 1 {
                required(&mut out, port, &path, "name");
            }
            check::in_range(&mut out, port.int("port"), format_args!("{path}.port"), 1, 65535);
            one_of(&mut out, port.at("protocol"), format_args!("{path}.protocol"), PROTOCOLS);
            if let Some(protocol) = port.at("appProtocol").as_str() {
                text(&mut out, protocol, format_args!("{path}.appProtocol"), validate::qualified_name);
            }
        }
    }
    out
}

/// An address that means the same from everywhere.
pub fn reachable(out: &mut Causes, ip: &str, path: &str) {
    use std::net::IpAddr;
    let mut wrong = |detail: &str| out.push(Cause::invalid(path, &ip.into(), detail));
    let Ok(address) = ip.parse::<IpAddr>() else { return wrong("must be a valid IP address") };
    if address.is_unspecified() {
        wrong(&format!("may not be unspecified ({ip})"));
    }
    if address.is_loopback() {
        wrong("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        wrong("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        wrong("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn endpoint_slice(slice: &Value) -> Vec<Cause> {
    const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
    const ADDRESSES_MAX: usize = 100;
    const ENDPOINTS_MAX: usize = 1000;
    let mut out = Vec::new();
    let type_ = slice.text("addressType");
    let mut missing = Vec::new();
    let endpoints = slice.list("endpoints");
    let too_many = endpoints.len() > ENDPOINTS_MAX;
    if too_many {
        out.push(Cause::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
    }
    for (at, endpoint) in endpoints.iter().enumerate().filter(|_| !too_many) {
        let path = format!("endpoints[{at}]");
        let addresses = endpoint.list("addresses");
        if addresses.is_empty() {
            missing.push(Cause::required(format!("{path}.addresses"), ""));
        } else if addresses.len() > ADDRESSES_MAX {
            out.push(Cause::too_many(format!("{path}.addresses"), addresses.len(), ADDRESSES_MAX));
        }
        for (at, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            slice_address(&mut out, type_, address, &format!("{path}.addresses"), at);
        }
        endpoint_rest(&mut out, endpoint, &path);
    }
    slice_ports(&mut out, slice);
    match type_ {
        "" => missing.insert(0, Cause::required("addressType", "")),
        _ if !TYPES.contains(&type_) => {
            missing.insert(0, Cause::not_supported("addressType", &type_.into(), TYPES));
        }
        _ => {}
    }
    out.extend(missing);
    out
}

fn slice_address(out: &mut Causes, type_: &str, address: &str, list: &str, at: usize) {
    let path = format!("{list}[{at}]");
    match type_ {
        "IPv4" | "IPv6" => {
            let wrong = validate::ip(address, &path);
            if !wrong.is_empty() {
                return out.extend(wrong);
            }
            let is_v4 = address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv4());
            if is_v4 != (type_ == "IPv4") {
                let detail = if type_ == "IPv4" { "must be an IPv4 address" } else { "must be an IPv6 address" };
                return out.push(Cause::invalid(list, &address.into(), detail));
            }
            reachable(out, address, &path);
        }
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            let wrong = validate::dns1123_subdomain(name);
            if wrong.is_empty() && !name.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                out.push(Cause::invalid(&path, &name.into(), detail));
            }
            if !wrong.is_empty() {
                out.push(Cause::invalid(&path, &name.into(), &wrong.join(",")));
            }
        }
        _ => {}
    }
}

fn endpoint_rest(out: &mut Causes, endpoint: &Value, path: &str) {
    if let Some(node) = endpoint.at("nodeName").as_str() {
        text(out, node, format_args!("{path}.nodeName"), validate::dns1123_subdomain);
    }
    const HINTS_MAX: usize = 8;
    if let Some(host) = endpoint.at("hostname").as_str() {
        text(out, host, format_args!("{path}.hostname"), validate::dns1123_label);
    }
    for (list, check) in
        [("forZones", validate::label_value as fn(&str) -> Vec<String>), ("forNodes", validate::dns1123_subdomain)]
    {
        let mut seen: Vec<&str> = Vec::new();
        let hints = endpoint.at("hints").list(list);
        if hints.len() > HINTS_MAX {
            out.push(Cause::too_many(format!("{path}.hints.{list}"), hints.len(), HINTS_MAX));
            return;
        }
        for (at, hint) in hints.iter().enumerate() {
            let path = format!("{path}.hints.{list}[{at}].name");
            let name = hint.text("name");
            if seen.contains(&name) {
                out.push(Cause::duplicate(&path, &name.into()));
            } else {
                seen.push(name);
                text(out, name, &path, check);
            }
        }
    }
}

fn slice_ports(out: &mut Causes, slice: &Value) {
    const PORTS_MAX: usize = 20_000;
    let mut seen: Vec<&str> = Vec::new();
    let ports = slice.list("ports");
    if ports.len() > PORTS_MAX {
        return out.push(Cause::too_many("ports", ports.len(), PORTS_MAX));
    }
    for (at, port) in ports.iter().enumerate() {
        let path = format!("ports[{at}]");
        let name = port.text("name");
        if !name.is_empty() {
            text(out, name, format_args!("{path}.name"), validate::dns1123_label);
        }
        if seen.contains(&name) {
            out.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        } else {
            seen.push(name);
        }
        if let Some(number) = port.opt_int("port") {
            check::in_range(out, number, format_args!("{path}.port"), 1, 65535);
        }
        check::set_one_of(out, port.at("protocol"), format_args!("{path}.protocol"), PROTOCOLS);
        if let Some(protocol) = port.at("appProtocol").as_str() {
            text(out, protocol, format_args!("{path}.appProtocol"), validate::qualified_name);
        }
    }
}
