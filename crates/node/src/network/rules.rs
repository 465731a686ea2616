//! What the packet filter of the node's network shall hold: the way to services, the way out, and what policies allow. Pure.

use super::filter::{Base, Hook, Lead, Net, Rule, Set, Side, State, TCP, UDP, Verdict, service_key};
use super::policy::{self, Policies};
use crate::services::{Port, Service, Services};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The number of the Stream Control Transmission Protocol.
const SCTP: u8 = 132;

/// What the rules are made for.
#[derive(Clone, Debug)]
pub struct Place {
    pub node: String,
    /// The node's address as its pods see it.
    pub gateway: Ipv4Addr,
    /// Where all pods' addresses are.
    pub pods: Net,
    /// Where all services' addresses are.
    pub services: Net,
    /// The sockets of the node that take what goes elsewhere, by protocol.
    pub outside: Vec<(u8, SocketAddrV4)>,
}

/// What is always there.
pub fn base(place: &Place) -> Vec<Base> {
    let to = |net| Rule::new().only_in(Side::Target, net);
    let outside = place.outside.iter().map(|(protocol, socket)| Rule::new().protocol(*protocol).give_to(*socket));
    let elsewhere = [to(place.pods).verdict(Verdict::Return), to(place.services).verdict(Verdict::Return)];
    vec![
        Base {
            name: "to-services",
            kind: "nat",
            hook: Hook::Coming,
            priority: -100,
            rules: vec![Rule::new().lead(Set::Services)],
        },
        Base {
            name: "own-to-services",
            kind: "nat",
            hook: Hook::Own,
            priority: -100,
            rules: vec![Rule::new().lead(Set::Services)],
        },
        Base {
            name: "loops",
            kind: "nat",
            hook: Hook::Going,
            priority: 100,
            // A pod that reached itself through a service would not take its own address for another's.
            rules: vec![Rule::new().within(Set::Loops).from(place.gateway)],
        },
        Base {
            name: "no-service",
            kind: "filter",
            hook: Hook::Coming,
            priority: -90,
            rules: vec![Rule::new().within(Set::ServiceAddresses).refuse(), to(place.services).verdict(Verdict::Drop)],
        },
        Base {
            name: "own-no-service",
            kind: "filter",
            hook: Hook::Own,
            priority: -90,
            rules: vec![Rule::new().within(Set::ServiceAddresses).refuse(), to(place.services).refuse()],
        },
        Base {
            name: "policies",
            kind: "filter",
            hook: Hook::Coming,
            priority: -80,
            rules: vec![
                Rule::new().known().verdict(Verdict::Accept),
                Rule::new().lead(Set::Egress),
                Rule::new().lead(Set::Ingress),
            ],
        },
        Base {
            name: "outside",
            kind: "filter",
            hook: Hook::Coming,
            priority: -70,
            rules: elsewhere.into_iter().chain(outside).chain([Rule::new().unreachable()]).collect(),
        },
    ]
}

/// What is to be there for these services and policies.
pub fn state(place: &Place, services: &Services, policies: &Policies) -> State {
    let mut state = State::default();
    for service in services.iter() {
        for address in service.reached_at() {
            state.elements.insert((Set::ServiceAddresses, address.octets().to_vec()), None);
        }
        for port in &service.ports {
            add_port(&mut state, place, services, service, port);
        }
    }
    policy::add(&mut state, place, policies);
    state
}

fn add_port(state: &mut State, place: &Place, services: &Services, service: &Service, port: &Port) {
    let (Some(protocol), Some(_)) = (protocol_number(&port.protocol), service.reached_at().next()) else { return };
    let all = services.targets(service, port);
    let all: Vec<_> = all.into_iter().filter(|(target, node)| is_reached(place, *target.ip(), *node)).collect();
    if all.is_empty() {
        return;
    }
    let here = |node: &Option<&str>| !service.local_only || *node == Some(place.node.as_str());
    let targets: Vec<SocketAddrV4> = all.iter().filter(|(_, node)| here(node)).map(|(target, _)| *target).collect();
    for target in targets.iter().filter(|target| place.pods.contains(*target.ip())) {
        let twice = [target.ip().octets(), target.ip().octets()].concat();
        state.elements.insert((Set::Loops, twice), None);
    }
    if protocol == UDP {
        state.datagram_targets.extend(&targets);
    }
    let chain = format!("{}/{}/{}/{}", service.namespace, service.name, port.protocol, port.port);
    let mut rules = match service.sticky_seconds {
        None => one_of(&targets, |rule, target| rule.to(*target)),
        Some(seconds) => remembering(state, &chain, &targets, seconds),
    };
    if rules.is_empty() {
        rules.push(Rule::new().verdict(Verdict::Drop));
    }
    for address in service.reached_at() {
        let key = (Set::Services, service_key(address, protocol, port.port));
        state.elements.insert(key, Some(Lead::Goto(chain.clone())));
    }
    state.chains.insert(chain, rules);
}

/// Leads to one of several at random.
fn one_of(targets: &[SocketAddrV4], lead: impl Fn(Rule, &SocketAddrV4) -> Rule) -> Vec<Rule> {
    let left = (1..=targets.len() as u32).rev();
    let choose = |left| if left == 1 { Rule::new() } else { Rule::new().one_of(left) };
    left.zip(targets).map(|(left, target)| lead(choose(left), target)).collect()
}

/// The same, but clients that came a while ago are led to where they were. Each target remembers its clients, so that they stay
/// when others come and go.
fn remembering(state: &mut State, chain: &str, targets: &[SocketAddrV4], seconds: u32) -> Vec<Rule> {
    let name = |target: &SocketAddrV4| format!("{chain}/{seconds}/{target}");
    for target in targets {
        state.memories.insert(name(target), seconds);
        // The second rule is one of its own, so that a client is led there too when the memory is full.
        state.chains.insert(name(target), vec![Rule::new().remember(&name(target)), Rule::new().to(*target)]);
    }
    let known = targets.iter().map(|target| Rule::new().remembered(&name(target)).go_to(&name(target)));
    known.chain(one_of(targets, |rule, target| rule.go_to(&name(target)))).collect()
}

/// Whether an address is what it says. What listens on a loopback device alone is not reached from another network, and an address
/// of the pods' range that another node has given is some other pod's here.
fn is_reached(place: &Place, address: Ipv4Addr, node: Option<&str>) -> bool {
    !address.is_loopback() && (!place.pods.contains(address) || node.is_none_or(|node| node == place.node))
}

/// The number of a protocol that ports are of.
pub fn protocol_number(name: &str) -> Option<u8> {
    match name {
        "" | "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        "SCTP" => Some(SCTP),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{Endpoint, Slice, SlicePort};

    fn services(endpoints: &[(&str, bool, bool, Option<&str>)], local_only: bool) -> Services {
        let mut services = Services::default();
        services.insert(Service {
            namespace: "shop".into(),
            name: "web".into(),
            addresses: vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            ports: vec![Port { name: "http".into(), protocol: "TCP".into(), port: 80, node_port: 0 }],
            local_only,
            ..Service::default()
        });
        let endpoint = |(address, ready, ending, node): &(&str, bool, bool, Option<&str>)| Endpoint {
            address: address.parse().unwrap(),
            ready: *ready,
            serves_to_its_end: *ending,
            hostname: None,
            node: node.map(str::to_owned),
        };
        services.insert_slice(Slice {
            namespace: "shop".into(),
            name: "web-1".into(),
            service: "web".into(),
            ports: vec![SlicePort { name: Some("http".into()), protocol: None, port: Some(8080) }],
            endpoints: endpoints.iter().map(endpoint).collect(),
        });
        services
    }

    fn place() -> Place {
        Place {
            node: "n1".into(),
            gateway: Ipv4Addr::new(10, 244, 0, 1),
            pods: Net { address: Ipv4Addr::new(10, 244, 0, 0), bits: 16 },
            services: Net { address: Ipv4Addr::new(10, 96, 0, 0), bits: 16 },
            outside: Vec::new(),
        }
    }

    /// Where the chain of the service's port leads; `refused` if there is none.
    fn check(endpoints: &[(&str, bool, bool, Option<&str>)], local_only: bool, expected: &[&str]) {
        let state = state(&place(), &services(endpoints, local_only), &Policies::default());
        assert!(state.elements.contains_key(&(Set::ServiceAddresses, vec![10, 96, 0, 7])));
        let count = expected.len() as u32;
        let rule = |(index, target): (u32, &&str)| {
            let rule = if count - index == 1 { Rule::new() } else { Rule::new().one_of(count - index) };
            match *target {
                "dropped" => Rule::new().verdict(Verdict::Drop),
                target => rule.to(target.parse().unwrap()),
            }
        };
        let wanted: Vec<Rule> = (0u32..).zip(expected).map(rule).collect();
        let found = state.chains.get("shop/web/TCP/80").cloned().unwrap_or_default();
        assert_eq!(found, wanted, "{expected:?}");
        let lead = state.elements.get(&(Set::Services, service_key(Ipv4Addr::new(10, 96, 0, 7), TCP, 80)));
        assert_eq!(lead.is_some(), !expected.is_empty());
    }

    #[test]
    fn who_came_before_is_led_to_where_it_was() {
        let check = |endpoints: &[&str], seconds, expected: &[(&str, bool)]| {
            let endpoints: Vec<_> = endpoints.iter().map(|address| (*address, true, false, None)).collect();
            let mut services = services(&endpoints, false);
            let web = services.get("shop", "web").cloned().unwrap();
            services.insert(Service { sticky_seconds: Some(seconds), ..web });
            let state = state(&place(), &services, &Policies::default());
            let names: Vec<String> = state.memories.keys().cloned().collect();
            let wanted: Vec<String> =
                endpoints.iter().map(|(address, ..)| format!("shop/web/TCP/80/{seconds}/{address}:8080")).collect();
            assert_eq!(names, wanted);
            assert!(state.memories.values().all(|known| *known == seconds));
            let rule = |(target, known): &(&str, bool), left| {
                let name = format!("shop/web/TCP/80/{seconds}/{target}:8080");
                match (known, left) {
                    (true, _) => Rule::new().remembered(&name).go_to(&name),
                    (false, 1) => Rule::new().go_to(&name),
                    (false, left) => Rule::new().one_of(left).go_to(&name),
                }
            };
            let left = (1..=expected.len() as u32).rev();
            let wanted: Vec<Rule> = expected.iter().zip(left).map(|(it, left)| rule(it, left)).collect();
            assert_eq!(state.chains["shop/web/TCP/80"], wanted);
            for name in &names {
                let target = name.rsplit('/').next().unwrap().parse().unwrap();
                assert_eq!(state.chains[name], [Rule::new().remember(name), Rule::new().to(target)]);
            }
        };
        check(&["10.244.0.2"], 10_800, &[("10.244.0.2", true), ("10.244.0.2", false)]);
        let both = [("10.244.0.2", true), ("10.244.0.3", true), ("10.244.0.2", false), ("10.244.0.3", false)];
        check(&["10.244.0.2", "10.244.0.3"], 5, &both);
    }

    #[test]
    fn services_lead_to_what_is_ready() {
        let (here, there) = (Some("n1"), Some("n2"));
        check(&[], false, &[]);
        check(
            &[("10.244.0.3", true, false, here), ("10.244.0.2", true, false, here)],
            false,
            &["10.244.0.2:8080", "10.244.0.3:8080"],
        );
        check(&[("10.244.0.2", true, false, here), ("10.244.0.3", false, true, here)], false, &["10.244.0.2:8080"]);
        // Better one that is ending than none.
        check(&[("10.244.0.3", false, true, here), ("10.244.0.4", false, false, here)], false, &["10.244.0.3:8080"]);
        // An address of another node's pod is somebody else's here; one of elsewhere is what it is.
        check(&[("10.244.0.3", true, false, there), ("192.0.2.1", true, false, there)], false, &["192.0.2.1:8080"]);
        check(&[("127.0.0.1", true, false, None)], false, &[]);
        check(&[("192.0.2.1", true, false, there)], true, &["dropped"]);
    }
}
