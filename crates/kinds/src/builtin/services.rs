//! Services. Addresses and node ports are given by the server.

use serde_json::{Value, json};

use super::check::{self, Causes, one_of, text};
use super::read::{Read, Write};
use super::{columns, discovery, internal, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause, NameRule};

pub static SERVICE: Behaviour = Behaviour {
    warnings: warnings::service,
    default,
    prepare_create: |service| {
        service.set("status", json!({"loadBalancer": {}}));
        same_address(service, None);
    },
    prepare_update,
    validate_create: |service| self::service(service),
    validate_update: |new, old| {
        let mut out = Vec::new();
        addresses_stay(&mut out, new, old);
        families_stay(&mut out, new, old);
        class_stays(&mut out, new, old);
        let [after, before] = [new, old].map(|service| service.int("spec.healthCheckNodePort"));
        if needs_health_check(new.at("spec")) && needs_health_check(old.at("spec")) && after != before {
            out.push(Cause::forbidden("spec.healthCheckNodePort", "field is immutable"));
        }
        out.extend(service(new));
        out
    },
    validate_status: |new, _| {
        let mut out = Vec::new();
        balancer_status(&mut out, new);
        out
    },
    columns: columns::SERVICE,
    row: rows::service,
    selectable: &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")],
    name: NameRule::Label,
    has_status: true,
    create_on_update: true,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

fn default(service: &mut Value) {
    const AFFINITY_SECONDS: i64 = 3 * 3600;
    let Some(spec) = service.at_mut("spec") else { return };
    spec.set_default("sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => spec.remove("sessionAffinityConfig"),
        "ClientIP" => spec.set_if_absent("sessionAffinityConfig.clientIP.timeoutSeconds", AFFINITY_SECONDS),
        _ => {}
    }
    spec.set_default("type", "ClusterIP");
    for port in spec.list_mut("ports") {
        port.set_default("protocol", "TCP");
        let target = port.at("targetPort");
        if target.is_null() || target == &json!(0) || target == "" {
            let number = port.int("port");
            port.set("targetPort", number);
        }
    }
    let type_ = spec.text("type").to_owned();
    if externally_accessible(spec) {
        spec.set_default("externalTrafficPolicy", "Cluster");
    }
    if matches!(type_.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        spec.set_if_absent("internalTrafficPolicy", "Cluster");
    }
    if type_ == "LoadBalancer" {
        spec.set_if_absent("allocateLoadBalancerNodePorts", true);
        for ingress in service.list_mut("status.loadBalancer.ingress") {
            if !ingress.text("ip").is_empty() {
                ingress.set_if_absent("ipMode", "VIP");
            }
        }
    }
}

fn externally_accessible(spec: &Value) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// The one address and the list of addresses say the same, whichever the client knows.
fn same_address(service: &mut Value, old: Option<&Value>) {
    let first = |service: &Value| service.list("spec.clusterIPs").first().cloned().unwrap_or(Value::Null);
    let one = service.text("spec.clusterIP").to_owned();
    let Some(old) = old else {
        if !one.is_empty() && service.list("spec.clusterIPs").is_empty() {
            service.set("spec.clusterIPs", json!([one]));
        }
        return;
    };
    let before = old.text("spec.clusterIP");
    let none = |service: &Value| service.list("spec.clusterIPs").is_empty();
    if one.is_empty() && !before.is_empty() && service.at("spec.clusterIPs") == old.at("spec.clusterIPs") {
        service.remove("spec.clusterIPs");
    } else if (one != before && first(service) == first(old)) || (!one.is_empty() && none(service) && none(old)) {
        service.set("spec.clusterIPs", json!([one]));
    }
}

fn prepare_update(new: &mut Value, old: &Value) {
    let both = new.text("spec.type") != "ExternalName" && old.text("spec.type") != "ExternalName";
    if both {
        // What the server gave once is not asked for again.
        if new.text("spec.clusterIP").is_empty() && new.list("spec.clusterIPs").is_empty() {
            for field in ["clusterIP", "clusterIPs"] {
                let path = format!("spec.{field}");
                if old.has(&path) {
                    new.set(&path, old.at(&path).clone());
                }
            }
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            let path = format!("spec.{field}");
            if old.has(&path) {
                new.set_if_absent(&path, old.at(&path).clone());
            }
        }
    }
    same_address(new, Some(old));
    drop_type_dependent(new, old);
}

/// Fields that the service needs no more go, where the client did not change them as well.
fn drop_type_dependent(new: &mut Value, old: &Value) {
    let goes = |new: &Value, needs: fn(&Value) -> bool| needs(old.at("spec")) && !needs(new.at("spec"));
    let drop_same = |new: &mut Value, fields: &[&str]| {
        for path in fields.iter().map(|field| format!("spec.{field}")) {
            if new.at(&path) == old.at(&path) {
                new.remove(&path);
            }
        }
    };
    if goes(new, needs_address) {
        drop_same(new, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    let node_ports = |service: &Value| -> Vec<i64> {
        service.list("spec.ports").iter().map(|port| port.int("nodePort")).filter(|port| *port != 0).collect()
    };
    let own = node_ports(old);
    if goes(new, needs_node_ports) && node_ports(new).iter().all(|port| own.contains(port)) {
        new.list_mut("spec.ports").iter_mut().for_each(|port| port.remove("nodePort"));
    }
    if goes(new, needs_health_check) {
        drop_same(new, &["healthCheckNodePort"]);
    }
    if goes(new, balances) {
        drop_same(new, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if !balances(new.at("spec")) {
        new.set("status.loadBalancer", json!({}));
    }
    if goes(new, needs_address) {
        drop_same(new, &["internalTrafficPolicy"]);
    }
    if goes(new, externally_accessible) {
        drop_same(new, &["externalTrafficPolicy"]);
    }
}

fn needs_address(spec: &Value) -> bool {
    matches!(spec.text("type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_ports(spec: &Value) -> bool {
    matches!(spec.text("type"), "NodePort" | "LoadBalancer")
}

fn balances(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer"
}

fn needs_health_check(spec: &Value) -> bool {
    balances(spec) && spec.text("externalTrafficPolicy") == "Local"
}

fn headless(spec: &Value) -> bool {
    spec.list("clusterIPs") == [json!("None")]
}

fn service(service: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (out, spec) = (&mut causes, service.at("spec"));
    let type_ = spec.text("type");
    topology_annotations(out, service.at("metadata.annotations"));
    let ports = spec.list("ports");
    if ports.is_empty() && !headless(spec) && type_ != "ExternalName" {
        out.push(Cause::required("spec.ports", ""));
    }
    match type_ {
        "LoadBalancer" | "NodePort" if headless(spec) => {
            let detail = format!("may not be set to 'None' for {type_} services");
            out.push(Cause::invalid("spec.clusterIPs[0]", &"None".into(), &detail));
        }
        "ExternalName" => external_name(out, spec),
        _ => {}
    }
    service_ports(out, ports);
    out.extend(validate::labels(spec.at("selector"), "spec.selector"));
    one_of(out, spec.at("sessionAffinity"), "spec.sessionAffinity", &["ClientIP", "None"]);
    affinity_config(out, spec);
    if type_ != "ExternalName" {
        addresses_of(out, spec);
    }
    for (at, ip) in spec.list("externalIPs").iter().filter_map(Value::as_str).enumerate() {
        let path = format!("spec.externalIPs[{at}]");
        let wrong = validate::ip(ip, &path);
        if wrong.is_empty() {
            discovery::reachable(out, ip, &path);
        }
        out.extend(wrong);
    }
    one_of(out, spec.at("type"), "spec.type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    ports_once(out, spec, ports);
    let source_ranges = spec.list("loadBalancerSourceRanges");
    if !source_ranges.is_empty() {
        if type_ != "LoadBalancer" {
            let detail = "may only be used when `type` is 'LoadBalancer'";
            out.push(Cause::forbidden("spec.LoadBalancerSourceRanges", detail));
        }
        for (at, range) in source_ranges.iter().filter_map(Value::as_str).enumerate() {
            check::cidr(out, range.trim(), &format!("spec.LoadBalancerSourceRanges[{at}]"));
        }
    } else if let Some(ranges) = service.at("metadata.annotations").key(SOURCE_RANGES).as_str() {
        let path = format!("metadata.annotations[{SOURCE_RANGES}]");
        if type_ != "LoadBalancer" {
            out.push(Cause::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
        }
        for range in ranges.trim().split(',').filter(|_| !ranges.trim().is_empty()) {
            check::cidr(out, range.trim(), &path);
        }
    }
    if spec.has("allocateLoadBalancerNodePorts") && type_ != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        out.push(Cause::forbidden("spec.allocateLoadBalancerNodePorts", detail));
    }
    if let Some(class) = spec.at("loadBalancerClass").as_str() {
        if type_ == "LoadBalancer" {
            text(out, class, "spec.loadBalancerClass", validate::qualified_name);
        } else {
            let detail = "may only be used when `type` is 'LoadBalancer'";
            out.push(Cause::forbidden("spec.loadBalancerClass", detail));
        }
    }
    traffic(out, spec);
    causes
}

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Two names for one thing, the old one first.
pub const TOPOLOGY: [&str; 2] = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"];

fn topology_annotations(out: &mut Causes, annotations: &Value) {
    let [hints, mode] = TOPOLOGY.map(|name| annotations.key(name));
    if !hints.is_null() && !mode.is_null() && hints != mode {
        let detail = format!("must match annotations[{}] when both are specified", TOPOLOGY[0]);
        out.push(Cause::invalid(format!("metadata.annotations[{}]", TOPOLOGY[1]), mode, &detail));
    }
}

/// Where the load balancer listens.
fn balancer_status(out: &mut Causes, service: &Value) {
    let points = service.list("status.loadBalancer.ingress");
    if !balances(service.at("spec")) && !points.is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        return out.push(Cause::forbidden("status.loadBalancer.ingress", detail));
    }
    for (at, point) in points.iter().enumerate() {
        let path = format!("status.loadBalancer.ingress[{at}]");
        let (ip, host, mode) = (point.text("ip"), point.text("hostname"), point.at("ipMode"));
        if !ip.is_empty() {
            check::ip(out, ip, format_args!("{path}.ip"));
        }
        let field = format!("{path}.ipMode");
        match (mode.is_null(), ip.is_empty()) {
            (true, false) => out.push(Cause::required(field, "must be specified when `ip` is set")),
            (true, true) => {}
            (false, true) => out.push(Cause::forbidden(field, "may not be specified when `ip` is not set")),
            (false, false) => check::optional_one_of(out, mode, &field, &["Proxy", "VIP"]),
        }
        if !host.is_empty() {
            let field = format!("{path}.hostname");
            text(out, host, &field, validate::dns1123_subdomain);
            if host.parse::<std::net::IpAddr>().is_ok() {
                out.push(Cause::invalid(field, &host.into(), "must be a DNS name, not an IP address"));
            }
        }
    }
}

fn external_name(out: &mut Causes, spec: &Value) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !spec.at(field).is_nothing() {
            out.push(Cause::forbidden(format!("spec.{field}"), "may not be set for ExternalName services"));
        }
    }
    let name = spec.text("externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => out.push(Cause::required("spec.externalName", "")),
        name => text(out, name, "spec.externalName", validate::dns1123_subdomain),
    }
}

fn service_ports(out: &mut Causes, ports: &[Value]) {
    let mut names: Vec<&str> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        let name = port.text("name");
        if !name.is_empty() {
            text(out, name, format_args!("{path}.name"), validate::dns1123_label);
            if names.contains(&name) {
                out.push(Cause::duplicate(format!("{path}.name"), &name.into()));
            }
            names.push(name);
        } else if ports.len() > 1 {
            out.push(Cause::required(format!("{path}.name"), ""));
        }
        check::in_range(out, port.int("port"), format_args!("{path}.port"), 1, 65535);
        one_of(out, port.at("protocol"), format_args!("{path}.protocol"), &["SCTP", "TCP", "UDP"]);
        check::port(out, port.at("targetPort"), format_args!("{path}.targetPort"));
        if let Some(protocol) = port.at("appProtocol").as_str() {
            text(out, protocol, format_args!("{path}.appProtocol"), validate::qualified_name);
        }
    }
}

fn affinity_config(out: &mut Causes, spec: &Value) {
    const SECONDS_MAX: i64 = 86400;
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let seconds = spec.int("sessionAffinityConfig.clientIP.timeoutSeconds");
            if seconds <= 0 || seconds > SECONDS_MAX {
                let detail = format!("must be greater than 0 and less than {SECONDS_MAX}");
                out.push(Cause::invalid(path, &seconds.into(), &detail));
            }
        }
        "None" if spec.has("sessionAffinityConfig") => {
            let detail = "must not be set when session affinity is None";
            out.push(Cause::forbidden("spec.sessionAffinityConfig", detail));
        }
        _ => {}
    }
}

/// What is wrong with the addresses that a Service asks for; told before any is given.
pub fn addresses(service: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if service.text("spec.type") != "ExternalName" {
        addresses_of(&mut out, service.at("spec"));
    }
    out
}

fn addresses_of(out: &mut Causes, spec: &Value) {
    const PATH: &str = "spec.clusterIPs";
    let (one, all) = (spec.text("clusterIP"), spec.at("clusterIPs"));
    let list: Vec<&str> = all.items().iter().filter_map(Value::as_str).collect();
    if !one.is_empty() && list.is_empty() {
        out.push(Cause::required(PATH, ""));
    } else if !one.is_empty() && list[0] != one {
        out.push(Cause::invalid(PATH, all, "first value must match `clusterIP`"));
    } else if one.is_empty() && !list.is_empty() {
        out.push(Cause::invalid(PATH, all, "must be empty when `clusterIP` is not specified"));
    }
    let families: Vec<&str> = spec.list("ipFamilies").iter().filter_map(Value::as_str).collect();
    for (at, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{at}]");
        if !["IPv4", "IPv6"].contains(family) {
            out.push(Cause::not_supported(&path, &(*family).into(), &["IPv4", "IPv6"]));
        }
        if families[..at].contains(family) {
            out.push(Cause::duplicate(&path, &(*family).into()));
        }
    }
    const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    check::optional_one_of(out, spec.at("ipFamilyPolicy"), "spec.ipFamilyPolicy", POLICIES);
    let mut wrong = false;
    for (at, ip) in list.iter().enumerate() {
        if at == 0 && *ip == "None" {
            if list.len() > 1 {
                wrong = true;
                out.push(Cause::invalid(PATH, all, "'None' must be the first and only value"));
            }
            continue;
        }
        let causes = validate::ip(ip, format_args!("{PATH}[{at}]"));
        wrong |= !causes.is_empty();
        out.extend(causes);
    }
    if list.len() > 2 {
        out.push(Cause::invalid(PATH, all, "may only hold up to 2 values"));
    }
    if wrong {
        return;
    }
    let v6: Vec<bool> = list.iter().map(|ip| ip.contains(':')).collect();
    if list.len() > 1 && v6.iter().all(|family| *family == v6[0]) {
        out.push(Cause::invalid(PATH, all, "may specify no more than one IP for each IP family"));
    }
    if !headless(spec) {
        for (at, (ip, family)) in list.iter().zip(&families).enumerate() {
            if v6[at] != (*family == "IPv6") {
                let detail = format!("expected an {family} value as indicated by `ipFamilies[{at}]`");
                out.push(Cause::invalid(format!("{PATH}[{at}]"), &(*ip).into(), &detail));
            }
        }
    }
}

fn ports_once(out: &mut Causes, spec: &Value, ports: &[Value]) {
    if spec.text("type") == "ClusterIP" {
        for (at, _) in ports.iter().enumerate().filter(|(_, port)| port.int("nodePort") != 0) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            out.push(Cause::forbidden(format!("spec.ports[{at}].nodePort"), detail));
        }
    }
    let before = |at: usize, field: &str| {
        let key = |port: &Value| (port.text("protocol").to_owned(), port.int(field));
        ports[..at].iter().any(|other| key(other) == key(&ports[at]))
    };
    for (at, port) in ports.iter().enumerate() {
        if port.int("nodePort") != 0 && before(at, "nodePort") {
            out.push(Cause::duplicate(format!("spec.ports[{at}].nodePort"), port.at("nodePort")));
        }
    }
    for (at, port) in ports.iter().enumerate() {
        if before(at, "port") {
            let shown = internal::shown(
                "api.core.v1.ServicePort",
                &json!({"protocol": port.at("protocol"), "port": port.at("port")}),
            );
            out.push(Cause::duplicate(format!("spec.ports[{at}]"), &shown));
        }
    }
}

fn traffic(out: &mut Causes, spec: &Value) {
    let policy = spec.at("externalTrafficPolicy");
    if externally_accessible(spec) {
        one_of(out, policy, "spec.externalTrafficPolicy", &["Cluster", "Local"]);
    } else if !policy.is_null() && policy != "" {
        let detail = "may only be set for externally-accessible services";
        out.push(Cause::invalid("spec.externalTrafficPolicy", policy, detail));
    }
    let port = spec.int("healthCheckNodePort");
    if port != 0 && !needs_health_check(spec) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        out.push(Cause::invalid("spec.healthCheckNodePort", &port.into(), detail));
    } else if port != 0 {
        check::in_range(out, port, "spec.healthCheckNodePort", 1, 65535);
    }
    let internal = spec.at("internalTrafficPolicy");
    check::optional_one_of(out, internal, "spec.internalTrafficPolicy", &["Cluster", "Local"]);
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    check::optional_one_of(out, spec.at("trafficDistribution"), "spec.trafficDistribution", DISTRIBUTIONS);
}

fn addresses_stay(out: &mut Causes, new: &Value, old: &Value) {
    let (after, before) = (new.at("spec"), old.at("spec"));
    let external = |spec: &Value| spec.text("type") == "ExternalName";
    if external(after) || external(before) || (headless(after) && headless(before)) {
        return;
    }
    let shown = after.at("clusterIPs");
    let (now, then) = (after.list("clusterIPs"), before.list("clusterIPs"));
    let mut wrong = |at: usize, detail: &str| out.push(Cause::invalid(format!("spec.clusterIPs[{at}]"), shown, detail));
    if now.is_empty() && !then.is_empty() {
        return wrong(0, "primary clusterIP can not be unset");
    }
    if now.len() == then.len() {
        for at in (0..now.len()).filter(|at| now[*at] != then[*at]) {
            wrong(at, "may not change once set");
        }
    } else if !then.is_empty() && now[0] != then[0] {
        wrong(0, "may not change once set");
    }
    if now.len() == 1 && then.len() > 1 && after.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        out.push(Cause::invalid("spec.ipFamilyPolicy", after.at("ipFamilyPolicy"), detail));
    }
}

fn families_stay(out: &mut Causes, new: &Value, old: &Value) {
    let (after, before) = (new.at("spec"), old.at("spec"));
    let external = |spec: &Value| spec.text("type") == "ExternalName";
    if external(after) || external(before) || headless(after) || headless(before) {
        return;
    }
    let [shown, addresses] = ["ipFamilies", "clusterIPs"].map(|field| after.at(field));
    let (now, then) = (after.list("ipFamilies"), before.list("ipFamilies"));
    let mut wrong = |value: &Value, detail: &str| out.push(Cause::invalid("spec.ipFamilies[0]", value, detail));
    if now.len() == then.len() {
        (0..now.len()).filter(|at| now[*at] != then[*at]).for_each(|_| wrong(shown, "may not change once set"));
        return;
    }
    if now.len() < then.len() && addresses.is_nothing() {
        wrong(shown, "primary ipFamily can not be unset");
    }
    if let (Some(now), Some(then)) = (now.first(), then.first())
        && now != then
    {
        wrong(addresses, "may not change once set");
    }
    if now.len() == 1 && then.len() > 1 && after.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        out.push(Cause::invalid("spec.ipFamilyPolicy", after.at("ipFamilyPolicy"), detail));
    }
}

fn class_stays(out: &mut Causes, new: &Value, old: &Value) {
    let (after, before) = (new.at("spec.loadBalancerClass"), old.at("spec.loadBalancerClass"));
    if balances(new.at("spec")) && balances(old.at("spec")) && after != before {
        out.push(Cause::invalid("spec.loadBalancerClass", after, "may not change once set"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(causes: &[Cause], want: &str) {
        let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
        assert_eq!(texts.join(" & "), want);
    }

    #[test]
    fn a_status_of_a_balancer_says_where_it_listens() {
        let told = |type_: &str, point: Value, want: &str| {
            let mut out = Causes::new();
            let service = json!({"spec": {"type": type_}, "status": {"loadBalancer": {"ingress": [point]}}});
            balancer_status(&mut out, &service);
            check(&out, want);
        };
        told("LoadBalancer", json!({"ip": "192.0.2.1", "ipMode": "VIP"}), "");
        told(
            "ClusterIP",
            json!({"ip": "192.0.2.1"}),
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
        );
        told(
            "LoadBalancer",
            json!({"ip": "192.0.2.1", "ipMode": "Odd"}),
            "status.loadBalancer.ingress[0].ipMode: Unsupported value: \"Odd\": supported values: \"Proxy\", \"VIP\"",
        );
        told(
            "LoadBalancer",
            json!({"hostname": "a.b", "ipMode": "VIP"}),
            "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
        );
    }

    #[test]
    fn annotations_stand_for_fields() {
        let mut service_ = json!({"spec": {"ports": [{"port": 80}]}});
        default(&mut service_);
        service_["metadata"] = json!({"annotations": {
            SOURCE_RANGES: "10.0.0.0/8, x", TOPOLOGY[0]: "Auto", TOPOLOGY[1]: "Disabled",
        }});
        check(
            &service(&service_),
            "metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"Disabled\": must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified & \
             metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Forbidden: may only be used when `type` is 'LoadBalancer' & \
             metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        );
    }

    #[test]
    fn families_change_only_at_the_end_of_the_list() {
        let with = |families: Value, policy: Value| json!({"spec": {"type": "ClusterIP", "ipFamilies": families, "ipFamilyPolicy": policy, "clusterIPs": ["10.0.0.1"]}});
        let mut out = Causes::new();
        families_stay(&mut out, &with(json!(["IPv6"]), Value::Null), &with(json!(["IPv4"]), Value::Null));
        families_stay(
            &mut out,
            &with(json!(["IPv4"]), json!("PreferDualStack")),
            &with(json!(["IPv4", "IPv6"]), Value::Null),
        );
        check(
            &out,
            "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set & \
             spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary ipFamily",
        );
    }
}
