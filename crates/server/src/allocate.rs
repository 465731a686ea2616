//! Cluster addresses and node ports: out of a range, each to one Service. What is taken is what the Services say, so a
//! restart needs no bookkeeping; only numbers of writes under way are remembered besides.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Status, meta};
use kinds::{Cause, CauseReason, Kind};
use serde_json::{Value, json};

use crate::objects::{Changed, Collection};
use crate::verbs::write::invalid;

/// Out of which node ports are taken, both ends included.
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// Random picks before the range is searched in order.
const RANDOM_TRIES: usize = 16;
/// The lowest addresses of a range are left to those who ask for one, as far as there are others.
const STATIC_BAND_MAX: u128 = 256;
const STATIC_BAND_MIN: u128 = 16;

/// A range of addresses such as `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u128,
    /// How many addresses can be given, without network and broadcast address.
    size: u128,
    v4: bool,
}

impl Range {
    pub fn parse(text: &str) -> Result<Range, String> {
        let IpAddr::V4(first) = crate::pki::first_address(text)? else {
            let bits: u32 = text.rsplit('/').next().and_then(|bits| bits.parse().ok()).unwrap_or(126);
            let IpAddr::V6(first) = crate::pki::first_address(text)? else { unreachable!("not IPv4") };
            return Ok(Range { first: first.into(), size: (1u128 << (128 - bits).min(64)) - 1, v4: false });
        };
        let bits: u32 = text.rsplit('/').next().and_then(|bits| bits.parse().ok()).unwrap_or(30);
        Ok(Range { first: u32::from(first).into(), size: (1u128 << (32 - bits)) - 2, v4: true })
    }

    fn at(&self, index: u128) -> IpAddr {
        let number = self.first + index;
        match self.v4 {
            true => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            false => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let number = match address {
            IpAddr::V4(address) if self.v4 => u128::from(u32::from(address)),
            IpAddr::V6(address) if !self.v4 => address.into(),
            _ => return false,
        };
        number >= self.first && number < self.first + self.size
    }

    fn family(&self) -> &'static str {
        if self.v4 { "IPv4" } else { "IPv6" }
    }
}

/// What is taken of addresses and ports.
pub struct Allocator {
    range: Range,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    /// Of stored Services. Counted, because a Service that changes is seen as its new and its old state.
    addresses: HashMap<IpAddr, usize>,
    ports: HashMap<(u16, String), usize>,
    /// Of writes under way.
    held_addresses: HashSet<IpAddr>,
    held_ports: HashSet<(u16, String)>,
}

/// Numbers that a write under way has taken. When it ends, the stored Service speaks for itself.
#[must_use]
pub struct Held {
    taken: Arc<Mutex<Taken>>,
    addresses: Vec<IpAddr>,
    ports: Vec<(u16, String)>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        for address in &self.addresses {
            taken.held_addresses.remove(address);
        }
        for port in &self.ports {
            taken.held_ports.remove(port);
        }
    }
}

impl Allocator {
    pub fn new(range: Range) -> Allocator {
        Allocator { range, taken: Arc::default() }
    }

    /// Keeps in step with the Services.
    pub fn follow(&self, services: &Collection) {
        let taken = self.taken.clone();
        services.observe(Box::new(move |change: &Changed| {
            let mut taken = lock(&taken);
            // The new state first, so that what stays is never free in between.
            if let Some(new) = &change.new {
                let service = new.value();
                addresses(&service).for_each(|address| *taken.addresses.entry(address).or_default() += 1);
                ports(&service).for_each(|port| *taken.ports.entry(port).or_default() += 1);
            }
            if let Some(old) = &change.old {
                let service = old.value();
                addresses(&service).for_each(|address| release(&mut taken.addresses, &address));
                ports(&service).for_each(|port| release(&mut taken.ports, &port));
            }
        }));
    }

    /// Gives a Service what it needs and lacks. Other kinds need nothing. `old` is what an update replaces.
    pub fn fill(&self, kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<Held, Status> {
        let mut held = Held { taken: self.taken.clone(), addresses: Vec::new(), ports: Vec::new() };
        if !kind.group.is_empty() || &*kind.plural != "services" {
            return Ok(held);
        }
        let mut causes = Vec::new();
        self.fill_address(object, old, &mut held, &mut causes);
        if causes.is_empty() {
            self.fill_ports(object, old, &mut held, &mut causes);
        }
        match causes.is_empty() {
            true => Ok(held),
            false => Err(invalid(&kind.group, &kind.kind, meta::name(object), causes)),
        }
    }

    fn fill_address(&self, object: &mut Value, old: Option<&Value>, held: &mut Held, causes: &mut Vec<Cause>) {
        let name_of_own = meta::text_at(object, &["spec", "type"]) == "ExternalName";
        let was = old.filter(|old| meta::text_at(old, &["spec", "type"]) != "ExternalName");
        let spec = &mut object["spec"];
        if name_of_own {
            if let Some(spec) = spec.as_object_mut() {
                for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                    spec.shift_remove(field);
                }
            }
            return;
        }
        if let Some(was) = was {
            // An address stays for life; a client may leave it out.
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if is_unset(&spec[field]) && !is_unset(&was["spec"][field]) {
                    spec[field] = was["spec"][field].clone();
                }
            }
            return;
        }
        let family = self.range.family();
        let given = spec["clusterIP"].as_str().or(spec["clusterIPs"][0].as_str()).unwrap_or_default().to_string();
        if given == "None" {
            let selects = spec["selector"].as_object().is_some_and(|selector| !selector.is_empty());
            if is_unset(&spec["ipFamilyPolicy"]) {
                spec["ipFamilyPolicy"] = json!(if selects { "SingleStack" } else { "RequireDualStack" });
            }
            if is_unset(&spec["ipFamilies"]) {
                spec["ipFamilies"] = if selects { json!([family]) } else { json!(["IPv4", "IPv6"]) };
            }
            spec["clusterIP"] = json!("None");
            spec["clusterIPs"] = json!(["None"]);
            return;
        }
        if spec["ipFamilyPolicy"] == json!("RequireDualStack") {
            let why = "this cluster is not configured for dual-stack services";
            causes.push(Cause::invalid("spec.ipFamilyPolicy", &json!("RequireDualStack"), why));
            return;
        }
        for (i, other) in spec["ipFamilies"].as_array().into_iter().flatten().enumerate() {
            if other != family {
                causes.push(Cause::invalid(format!("spec.ipFamilies[{i}]"), other, "not configured on this cluster"));
                return;
            }
        }
        if is_unset(&spec["ipFamilyPolicy"]) {
            spec["ipFamilyPolicy"] = json!("SingleStack");
        }
        if is_unset(&spec["ipFamilies"]) {
            spec["ipFamilies"] = json!([family]);
        }
        let mut taken = lock(&self.taken);
        let address = match given.as_str() {
            "" => taken.pick_address(&self.range),
            text => match text.parse::<IpAddr>() {
                Ok(address) if !self.range.contains(address) => {
                    let why = format!(
                        "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                        self.text()
                    );
                    causes.push(bad_address(&given, &why));
                    return;
                }
                Ok(address) if taken.has_address(&address) => {
                    causes.push(bad_address(
                        &given,
                        &format!("failed to allocate IP {text}: provided IP is already allocated"),
                    ));
                    return;
                }
                found => found.ok(),
            },
        };
        let Some(address) = address else {
            let why = "failed to allocate a serviceIP: range is full";
            causes.push(Cause { reason: CauseReason::Internal, field: "spec.clusterIPs".into(), message: why.into() });
            return;
        };
        taken.held_addresses.insert(address);
        held.addresses.push(address);
        spec["clusterIP"] = json!(address.to_string());
        spec["clusterIPs"] = json!([address.to_string()]);
    }

    fn text(&self) -> String {
        let bits = match self.range.v4 {
            true => 32 - (self.range.size + 2).ilog2(),
            false => 128 - (self.range.size + 1).ilog2(),
        };
        let network = Range { first: self.range.first - 1, ..self.range }.at(0);
        format!("{network}/{bits}")
    }

    fn fill_ports(&self, object: &mut Value, old: Option<&Value>, held: &mut Held, causes: &mut Vec<Cause>) {
        let spec = &mut object["spec"];
        let wants = match spec["type"].as_str() {
            Some("NodePort") => true,
            Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != json!(false),
            _ => false,
        };
        let serves = matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"));
        let own: HashSet<(u16, String)> = old.map(|old| ports(old).collect()).unwrap_or_default();
        let mut taken = lock(&self.taken);
        let mut now: HashSet<(u16, String)> = HashSet::new();
        for (i, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_string();
            match u16::try_from(port["nodePort"].as_u64().unwrap_or(0)).unwrap_or(0) {
                0 => {}
                _ if !serves => {
                    // What a NodePort Service was given goes when it becomes another type.
                    if let (Some(port), true) = (port.as_object_mut(), old.is_some()) {
                        port.shift_remove("nodePort");
                    }
                }
                given => {
                    let key = (given, protocol);
                    let field = format!("spec.ports[{i}].nodePort");
                    if !NODE_PORTS.contains(&given) {
                        let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                        causes.push(Cause::invalid(field, &json!(given), why));
                    } else if now.contains(&key) || (!own.contains(&key) && taken.has_port(&key)) {
                        causes.push(Cause::invalid(field, &json!(given), "provided port is already allocated"));
                    } else {
                        now.insert(key);
                    }
                }
            }
        }
        if !causes.is_empty() {
            return;
        }
        if wants {
            // A port that is the same but for its number keeps its number.
            let before: Vec<Value> =
                old.map(|old| meta::items_at(old, &["spec", "ports"]).to_vec()).unwrap_or_default();
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                if port["nodePort"].as_u64().unwrap_or(0) != 0 {
                    continue;
                }
                let protocol = port["protocol"].as_str().unwrap_or("TCP").to_string();
                let same = |b: &&Value| b["port"] == port["port"] && b["protocol"] == port["protocol"];
                let kept =
                    before.iter().find(same).and_then(|b| b["nodePort"].as_u64()).and_then(|n| u16::try_from(n).ok());
                let number = kept.filter(|n| *n > 0 && !now.contains(&(*n, protocol.clone())));
                let Some(number) = number.or_else(|| taken.pick_port(&protocol, &now)) else {
                    let why = "failed to allocate a nodePort: range is full";
                    causes.push(Cause {
                        reason: CauseReason::Internal,
                        field: "spec.ports".into(),
                        message: why.into(),
                    });
                    return;
                };
                now.insert((number, protocol));
                port["nodePort"] = json!(number);
            }
        }
        let checks = spec["type"] == json!("LoadBalancer") && spec["externalTrafficPolicy"] == json!("Local");
        match (checks, spec["healthCheckNodePort"].as_u64().unwrap_or(0)) {
            (true, 0) => {
                let kept = old.and_then(|old| old["spec"]["healthCheckNodePort"].as_u64()).filter(|port| *port > 0);
                let kept = kept.and_then(|port| u16::try_from(port).ok());
                if let Some(number) = kept.or_else(|| taken.pick_port("TCP", &now)) {
                    now.insert((number, "TCP".into()));
                    spec["healthCheckNodePort"] = json!(number);
                }
            }
            (false, given) if given > 0 && old.is_some() => {
                if let Some(spec) = spec.as_object_mut() {
                    spec.shift_remove("healthCheckNodePort");
                }
            }
            _ => {}
        }
        for port in now.difference(&own) {
            taken.held_ports.insert(port.clone());
            held.ports.push(port.clone());
        }
    }
}

impl Taken {
    fn has_address(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address) || self.held_addresses.contains(address)
    }

    fn has_port(&self, port: &(u16, String)) -> bool {
        self.ports.contains_key(port) || self.held_ports.contains(port)
    }

    fn pick_address(&self, range: &Range) -> Option<IpAddr> {
        let band = (range.size / 16).clamp(STATIC_BAND_MIN, STATIC_BAND_MAX).min(range.size / 2);
        let free = |index: &u128| !self.has_address(&range.at(*index));
        let random = (0..RANDOM_TRIES).map(|_| rand::random_range(band..range.size));
        let index = random.into_iter().find(free).or_else(|| (band..range.size).chain(1..band).find(free))?;
        Some(range.at(index))
    }

    fn pick_port(&self, protocol: &str, also_taken: &HashSet<(u16, String)>) -> Option<u16> {
        // Clients cannot tell one protocol's port from another's: a picked one is free in all.
        let used = |number: u16| {
            ["TCP", "UDP", "SCTP", protocol].iter().any(|protocol| {
                let port = (number, protocol.to_string());
                self.has_port(&port) || also_taken.contains(&port)
            })
        };
        let random = (0..RANDOM_TRIES).map(|_| rand::random_range(NODE_PORTS));
        random
            .into_iter()
            .find(|number| !used(*number))
            .or_else(|| NODE_PORTS.into_iter().find(|number| !used(*number)))
    }
}

fn addresses(service: &Value) -> impl Iterator<Item = IpAddr> {
    meta::items_at(service, &["spec", "clusterIPs"]).iter().filter_map(|ip| ip.as_str()?.parse().ok())
}

fn ports(service: &Value) -> impl Iterator<Item = (u16, String)> {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    let health = number(&service["spec"]["healthCheckNodePort"]).map(|n| (n, "TCP".to_string()));
    let own = meta::items_at(service, &["spec", "ports"]).iter().filter_map(move |port| {
        Some((number(&port["nodePort"])?, port["protocol"].as_str().unwrap_or("TCP").to_string()))
    });
    own.chain(health)
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn bad_address(given: &str, why: &str) -> Cause {
    Cause::invalid("spec.clusterIPs", &json!([given]), why)
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_give_their_own_addresses() {
        let range = Range::parse("10.96.0.0/16").unwrap();
        assert_eq!((range.at(0).to_string(), range.size), ("10.96.0.1".into(), 65534));
        assert!(range.contains("10.96.255.254".parse().unwrap()) && !range.contains("10.97.0.1".parse().unwrap()));
        assert_eq!(Allocator::new(range).text(), "10.96.0.0/16");
        let picked = Taken::default().pick_address(&range).unwrap();
        assert!(range.contains(picked));
    }

    #[test]
    fn a_small_range_is_used_up_without_doubles() {
        let range = Range::parse("10.0.0.0/28").unwrap();
        let mut taken = Taken::default();
        let mut seen = HashSet::new();
        while let Some(address) = taken.pick_address(&range) {
            assert!(seen.insert(address));
            taken.held_addresses.insert(address);
        }
        // All but the first address, which is the cluster's own Service's.
        assert_eq!(seen.len(), 13);
    }
}
