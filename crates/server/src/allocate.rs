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
    ports: HashMap<u16, usize>,
    /// Of writes under way.
    held_addresses: HashSet<IpAddr>,
    held_ports: HashSet<u16>,
}

/// Numbers that a write under way has taken. When it ends, the stored Service speaks for itself.
#[must_use]
pub struct Held {
    taken: Arc<Mutex<Taken>>,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
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
                ports(&service).into_iter().for_each(|port| *taken.ports.entry(port).or_default() += 1);
            }
            if let Some(old) = &change.old {
                let service = old.value();
                addresses(&service).for_each(|address| release(&mut taken.addresses, &address));
                ports(&service).iter().for_each(|port| release(&mut taken.ports, port));
            }
        }));
    }

    /// Gives a Service what it needs and lacks. Other kinds need nothing. `old` is what an update replaces.
    pub fn fill(&self, kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<Held, Status> {
        let mut held = Held { taken: self.taken.clone(), addresses: Vec::new(), ports: Vec::new() };
        if !kind.group.is_empty() || &*kind.plural != "services" {
            return Ok(held);
        }
        // Addresses that are no addresses are told of before any is given.
        let mut causes = kinds::builtin::service_addresses(object);
        if causes.is_empty() {
            self.fill_address(object, old, &mut held, &mut causes);
        }
        if causes.is_empty() {
            causes.extend(self.fill_ports(object, old, &mut held).err());
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

    /// Node ports, and the port at which a balancer asks after the health of a node. The first that cannot be had ends it.
    fn fill_ports(&self, object: &mut Value, old: Option<&Value>, held: &mut Held) -> Result<(), Cause> {
        let spec = &mut object["spec"];
        let serves = has_node_ports(spec);
        let picks = match spec["type"].as_str() {
            Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != json!(false),
            _ => serves,
        };
        let mut taken = Taking { taken: lock(&self.taken), held };
        if let (true, Some(old)) = (serves, old) {
            if has_node_ports(&old["spec"]) {
                keep_ports(spec, &old["spec"]);
            }
            taken.update(spec, &old["spec"], picks)?;
        } else if serves {
            taken.create(spec, picks)?;
        }
        taken.health_check(spec, old.map(|old| &old["spec"]))
    }
}

/// Node ports being taken for one Service. Clients cannot tell one protocol's port from another's: a number is taken in all.
struct Taking<'a> {
    taken: MutexGuard<'a, Taken>,
    held: &'a mut Held,
}

impl Taking<'_> {
    /// Ports of a new Service. Ports of the same number (a protocol each) share a node port.
    fn create(&mut self, spec: &mut Value, picks: bool) -> Result<(), Cause> {
        let asked: Vec<(u64, u16)> =
            meta::items_at(spec, &["ports"]).iter().map(|port| (number_of(port), node_port(port))).collect();
        let mut given: HashMap<u64, u16> = HashMap::new();
        for (at, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let (number, wanted) = asked[at];
            if wanted == 0 && !picks {
                continue;
            }
            let node_port = match given.get(&number).copied() {
                None => {
                    let first = asked.iter().find(|(other, wanted)| *other == number && *wanted != 0);
                    let node_port = match first {
                        Some((_, wanted)) => self.take(*wanted).map_err(|why| bad_port(at, *wanted, why))?,
                        None => self.pick()?,
                    };
                    given.insert(number, node_port);
                    // What another of that number asked for, this one gets as well.
                    node_port
                }
                Some(shared) if wanted == 0 || wanted == shared => shared,
                Some(_) => self.take(wanted).map_err(|why| bad_port(at, wanted, why))?,
            };
            port["nodePort"] = json!(node_port);
        }
        Ok(())
    }

    fn update(&mut self, spec: &mut Value, old: &Value, picks: bool) -> Result<(), Cause> {
        let own: HashSet<u16> = meta::items_at(old, &["ports"]).iter().map(node_port).collect();
        let mut taken: HashSet<u16> = HashSet::new();
        for (at, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            match node_port(port) {
                0 if picks => port["nodePort"] = json!(self.pick()?),
                0 => {}
                wanted if own.contains(&wanted) || !taken.insert(wanted) => {}
                wanted => {
                    self.take(wanted).map_err(|why| bad_port(at, wanted, why))?;
                }
            }
        }
        Ok(())
    }

    fn health_check(&mut self, spec: &mut Value, old: Option<&Value>) -> Result<(), Cause> {
        let needs =
            |spec: &Value| spec["type"] == json!("LoadBalancer") && spec["externalTrafficPolicy"] == json!("Local");
        let port = |spec: &Value| spec["healthCheckNodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        if !needs(spec) {
            return Ok(());
        }
        match (old.filter(|old| needs(old)).map(port), port(spec)) {
            (Some(before), 0) => spec["healthCheckNodePort"] = json!(before),
            (Some(before), now) if now == before => {}
            (Some(_), now) => {
                let why = "cannot change healthCheckNodePort on loadBalancer service with externalTraffic=Local during update";
                return Err(Cause::invalid("spec.healthCheckNodePort", &json!(now), why));
            }
            (None, 0) => spec["healthCheckNodePort"] = json!(self.pick()?),
            (None, wanted) => {
                self.take(wanted).map_err(|why| Cause::invalid("spec.healthCheckNodePort", &json!(wanted), why))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, wanted: u16) -> Result<u16, &'static str> {
        if !NODE_PORTS.contains(&wanted) {
            return Err("provided port is not in the valid range. The range of valid ports is 30000-32767");
        }
        if self.taken.has_port(wanted) {
            return Err("provided port is already allocated");
        }
        self.hold(wanted);
        Ok(wanted)
    }

    fn pick(&mut self) -> Result<u16, Cause> {
        let Some(port) = self.taken.pick_port() else {
            let message = "failed to allocate a nodePort: range is full".into();
            return Err(Cause { reason: CauseReason::Internal, field: "spec.ports".into(), message });
        };
        self.hold(port);
        Ok(port)
    }

    fn hold(&mut self, port: u16) {
        self.taken.held_ports.insert(port);
        self.held.ports.push(port);
    }
}

/// A port that keeps its name keeps its node port, unless another asks for that.
fn keep_ports(spec: &mut Value, old: &Value) {
    let before: HashMap<String, u16> = meta::items_at(old, &["ports"])
        .iter()
        .map(|port| (meta::text_at(port, &["name"]).to_string(), node_port(port)))
        .collect();
    let own: HashSet<u16> = before.values().copied().collect();
    let mut used: HashSet<u16> =
        meta::items_at(spec, &["ports"]).iter().map(node_port).filter(|port| own.contains(port)).collect();
    for port in spec["ports"].as_array_mut().into_iter().flatten().filter(|port| node_port(port) == 0) {
        let kept = before.get(port["name"].as_str().unwrap_or_default()).copied().unwrap_or(0);
        if kept != 0 && used.insert(kept) {
            port["nodePort"] = json!(kept);
        }
    }
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

fn number_of(port: &Value) -> u64 {
    port["port"].as_u64().unwrap_or(0)
}

/// 0 where none is asked for. One that is out of all range is out of ours.
fn node_port(port: &Value) -> u16 {
    match port["nodePort"].as_i64().unwrap_or(0) {
        0 => 0,
        number => u16::try_from(number).unwrap_or(1),
    }
}

fn bad_port(at: usize, wanted: u16, why: &str) -> Cause {
    Cause::invalid(format!("spec.ports[{at}].nodePort"), &json!(wanted), why)
}

impl Taken {
    fn has_address(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address) || self.held_addresses.contains(address)
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.contains_key(&port) || self.held_ports.contains(&port)
    }

    fn pick_address(&self, range: &Range) -> Option<IpAddr> {
        let band = (range.size / 16).clamp(STATIC_BAND_MIN, STATIC_BAND_MAX).min(range.size / 2);
        let free = |index: &u128| !self.has_address(&range.at(*index));
        let random = (0..RANDOM_TRIES).map(|_| rand::random_range(band..range.size));
        let index = random.into_iter().find(free).or_else(|| (band..range.size).chain(1..band).find(free))?;
        Some(range.at(index))
    }

    fn pick_port(&self) -> Option<u16> {
        let free = |number: &u16| !self.has_port(*number);
        let random = (0..RANDOM_TRIES).map(|_| rand::random_range(NODE_PORTS));
        random.into_iter().find(free).or_else(|| NODE_PORTS.into_iter().find(free))
    }
}

fn addresses(service: &Value) -> impl Iterator<Item = IpAddr> {
    meta::items_at(service, &["spec", "clusterIPs"]).iter().filter_map(|ip| ip.as_str()?.parse().ok())
}

/// Each number once, whatever protocols share it.
fn ports(service: &Value) -> HashSet<u16> {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    let own = meta::items_at(service, &["spec", "ports"]).iter().filter_map(|port| number(&port["nodePort"]));
    own.chain(number(&service["spec"]["healthCheckNodePort"])).collect()
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

    /// What ports become, with the numbers that others have taken: `name port/protocol node-port`, or why not.
    #[track_caller]
    fn check(taken: &[u16], old: Value, new: Value, want: &str) {
        let allocator = Allocator::new(Range::parse("10.96.0.0/16").unwrap());
        lock(&allocator.taken).ports.extend(taken.iter().map(|port| (*port, 1)));
        let mut held = Held { taken: allocator.taken.clone(), addresses: Vec::new(), ports: Vec::new() };
        let service = |spec: Value| json!({"spec": spec});
        let (mut new, old) = (service(new), Some(old).filter(Value::is_object).map(service));
        let got = match allocator.fill_ports(&mut new, old.as_ref(), &mut held) {
            Err(cause) => cause.to_string(),
            Ok(()) => {
                let all = meta::items_at(&new, &["spec", "ports"]).iter();
                let shown = |port: &Value| match node_port(port) {
                    0 => "-".to_string(),
                    number if held.ports.contains(&number) && number != 30001 && number != 30002 => "new".to_string(),
                    number => number.to_string(),
                };
                all.map(shown).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(got, want);
    }

    #[test]
    fn node_ports_are_given_once_and_kept_by_name() {
        let port = |name: &str, number: u16, protocol: &str, node: u16| json!({"name": name, "port": number, "protocol": protocol, "nodePort": node});
        let nodes = |ports: Value| json!({"type": "NodePort", "ports": ports});
        let none = || Value::Null;
        let taken = "Invalid value: 30001: provided port is already allocated";
        check(&[], none(), nodes(json!([port("a", 80, "TCP", 0)])), "new");
        check(&[], none(), nodes(json!([port("a", 80, "TCP", 30001)])), "30001");
        check(
            &[30001],
            none(),
            nodes(json!([port("a", 80, "UDP", 30001)])),
            &format!("spec.ports[0].nodePort: {taken}"),
        );
        let twice = json!([port("a", 80, "TCP", 30001), port("b", 81, "TCP", 30001)]);
        check(&[], none(), nodes(twice), &format!("spec.ports[1].nodePort: {taken}"));
        // A number in two protocols has one node port, whichever of them asks for it.
        check(&[], none(), nodes(json!([port("t", 53, "TCP", 0), port("u", 53, "UDP", 30002)])), "30002 30002");
        check(&[], none(), json!({"type": "ClusterIP", "ports": [port("a", 80, "TCP", 0)]}), "-");
        let small = "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767";
        check(&[], none(), nodes(json!([port("a", 80, "TCP", 80)])), small);
        let old = nodes(json!([port("a", 80, "TCP", 30001), port("b", 81, "TCP", 30002)]));
        let new = nodes(json!([port("b", 90, "TCP", 0), port("c", 91, "TCP", 0), port("a", 80, "TCP", 0)]));
        check(&[30001, 30002], old.clone(), new, "30002 new 30001");
        // One whose number goes to another gets a new one.
        let new = nodes(json!([port("a", 80, "TCP", 0), port("c", 82, "TCP", 30001)]));
        check(&[30001, 30002], old, new, "new 30001");
    }
}
