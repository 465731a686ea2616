//! What the packet filter of the node's network shall hold: the way to services, the way out, and what policies allow. Pure.

use super::filter::{Base, Hook, Lead, Net, Rule, Set, Side, State, TCP, UDP, Verdict, service_key};
use super::policy::{self, Policies};
use super::ports::HostPort;
use crate::services::{Endpoint, Port, Service, Services};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// Marks what shall come from the node, to whom it is led.
const FROM_NODE: u32 = 2;

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
    /// The host's address, where it has one.
    pub host: Option<Ipv4Addr>,
    /// Whether services have their ports on the host.
    pub has_node_ports: bool,
    /// The sockets of the node that take what goes elsewhere, by protocol.
    pub outside: Vec<(u8, SocketAddrV4)>,
}

/// What is always there.
pub fn base(place: &Place) -> Vec<Base> {
    let to = |net| Rule::new().only_in(Side::Target, net);
    let outside = place.outside.iter().map(|(protocol, socket)| Rule::new().protocol(*protocol).give_to(*socket));
    let elsewhere = [to(place.pods).verdict(Verdict::Return), to(place.services).verdict(Verdict::Return)];
    // The node has the sockets of those whose connections it carries on.
    let begun_outside = [Rule::new().answer().keep()];
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
            rules: vec![
                Rule::new().marked(FROM_NODE).from(place.gateway),
                // A pod that reached itself through a service would not take its own address for another's.
                Rule::new().within(Set::Loops).from(place.gateway),
            ],
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
            name: "own-policies",
            kind: "filter",
            hook: Hook::Own,
            priority: -80,
            // What the node carries on for others comes from their addresses, and is judged as theirs.
            rules: vec![
                Rule::new().known().verdict(Verdict::Accept),
                Rule::new().only_in(Side::Source, Net::one(place.gateway)).verdict(Verdict::Accept),
                Rule::new().lead(Set::Ingress),
            ],
        },
        Base {
            name: "outside",
            kind: "filter",
            hook: Hook::Coming,
            priority: -70,
            rules: elsewhere
                .into_iter()
                .chain(begun_outside)
                .chain(outside)
                .chain([Rule::new().unreachable()])
                .collect(),
        },
    ]
}

/// What is to be there for these services and policies.
pub fn state(place: &Place, services: &Services, policies: &Policies, host_ports: &BTreeSet<HostPort>) -> State {
    let mut state = State::default();
    for service in services.iter() {
        for address in service.reached_at().chain(service.reached_from_outside_at()) {
            state.elements.insert((Set::ServiceAddresses, address.octets().to_vec()), None);
        }
        for port in &service.ports {
            add_port(&mut state, place, services, service, port);
        }
    }
    for port in host_ports {
        add_host_port(&mut state, place, port);
    }
    policy::add(&mut state, place, policies);
    state
}

/// Leads pods that ask the host for a pod's port.
fn add_host_port(state: &mut State, place: &Place, port: &HostPort) {
    let (Some(protocol), IpAddr::V4(address)) = (protocol_number(&port.protocol), port.ip) else { return };
    let addresses: Vec<Ipv4Addr> = match address.is_unspecified() {
        true => [place.gateway].into_iter().chain(place.host).collect(),
        false if address.is_loopback() => return,
        false => vec![address],
    };
    let chain = format!("host/{address}/{}/{}", port.protocol, port.port);
    for address in addresses {
        let key = (Set::Services, service_key(address, protocol, port.port));
        state.elements.insert(key, Some(Lead::Goto(chain.clone())));
    }
    state.chains.insert(chain, vec![Rule::new().to(port.target)]);
    add_targets(state, place, protocol, &[port.target]);
}

/// Where connections to a port of a service may go.
pub struct Targets {
    /// Whether there is anything behind it, if it be out of reach.
    any: bool,
    all: Vec<SocketAddrV4>,
    /// Those of this node.
    here: Vec<SocketAddrV4>,
}

/// What becomes of connections from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    /// They are refused: there is nothing behind it.
    Closed,
    /// They are not answered: it is for another node to take them.
    Deaf,
}

impl Targets {
    pub fn of(place: &Place, services: &Services, service: &Service, port: &Port) -> Targets {
        let any = !services.targets(service, port, |_| true).is_empty();
        let all = services.targets(service, port, |endpoint| is_reached(place, endpoint));
        let own = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(place.node.as_str());
        let here = services.targets(service, port, |endpoint| own(endpoint) && is_reached(place, endpoint));
        Targets { any, all, here }
    }

    /// What becomes of who comes from outside.
    pub fn door(&self, service: &Service) -> Door {
        let (reached, none) =
            if service.local_from_outside { (&self.here, Door::Deaf) } else { (&self.all, Door::Closed) };
        match (self.any, reached.is_empty()) {
            (false, _) => Door::Closed,
            (true, true) => none,
            (true, false) => Door::Open,
        }
    }
}

fn add_port(state: &mut State, place: &Place, services: &Services, service: &Service, port: &Port) {
    let Some(protocol) = protocol_number(&port.protocol) else { return };
    let targets = Targets::of(place, services, service, port);
    let chain = format!("{}/{}/{}/{}", service.namespace, service.name, port.protocol, port.port);
    let mut led: Vec<SocketAddrV4> = Vec::new();
    let lead = |state: &mut State, addresses: &mut dyn Iterator<Item = Ipv4Addr>, port, chain: &str| {
        for address in addresses {
            let key = (Set::Services, service_key(address, protocol, port));
            state.elements.insert(key, Some(Lead::Goto(chain.to_owned())));
        }
    };
    let at_host = place.host.filter(|_| place.has_node_ports);
    let at_node = [place.gateway].into_iter().chain(at_host).filter(|_| port.node_port != 0);
    let at_node: Vec<Ipv4Addr> = at_node.collect();
    let from_outside = service.reached_from_outside_at().next().is_some() || !at_node.is_empty();
    let local = service.local_only || (service.local_from_outside && from_outside);
    let here = format!("{chain}/here");
    if !targets.all.is_empty() {
        led.extend(&targets.all);
        let rules = rules_to(state, &chain, service, &targets.all);
        state.chains.insert(chain.clone(), rules);
    }
    if local && targets.any {
        led.extend(&targets.here);
        let rules = rules_to(state, &chain, service, &targets.here);
        state.chains.insert(here.clone(), rules);
    }
    if service.local_only && targets.any {
        lead(state, &mut service.reached_at(), port.port, &here);
    } else if !targets.all.is_empty() {
        lead(state, &mut service.reached_at(), port.port, &chain);
    }
    let outside = match (service.local_from_outside, targets.all.is_empty()) {
        (false, true) => Vec::new(),
        (false, false) => vec![Rule::new().mark(FROM_NODE).go_to(&chain)],
        (true, _) if !targets.any => Vec::new(),
        (true, true) => vec![Rule::new().go_to(&here)],
        // Pods and the node itself are inside, whatever address of the service they use.
        (true, false) => vec![Rule::new().only_in(Side::Source, place.pods).go_to(&chain), Rule::new().go_to(&here)],
    };
    if from_outside && !outside.is_empty() {
        let name = format!("{chain}/outside");
        lead(state, &mut service.reached_from_outside_at(), port.port, &name);
        lead(state, &mut at_node.iter().copied(), port.node_port, &name);
        state.chains.insert(name, outside);
    }
    add_targets(state, place, protocol, &led);
}

/// Notes where connections are led to.
fn add_targets(state: &mut State, place: &Place, protocol: u8, targets: &[SocketAddrV4]) {
    for target in targets.iter().filter(|target| place.pods.contains(*target.ip())) {
        let twice = [target.ip().octets(), target.ip().octets()].concat();
        state.elements.insert((Set::Loops, twice), None);
    }
    if protocol == UDP {
        state.datagram_targets.extend(targets);
    }
}

/// Leads to one of several, as the service wants it; nowhere if there is none.
fn rules_to(state: &mut State, chain: &str, service: &Service, targets: &[SocketAddrV4]) -> Vec<Rule> {
    match service.sticky_seconds {
        _ if targets.is_empty() => vec![Rule::new().verdict(Verdict::Drop)],
        None => one_of(targets, |rule, target| rule.to(*target)),
        Some(seconds) => remembering(state, chain, targets, seconds),
    }
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
fn is_reached(place: &Place, endpoint: &Endpoint) -> bool {
    let IpAddr::V4(address) = endpoint.address else { return false };
    let here = || endpoint.node.as_deref().is_none_or(|node| node == place.node);
    !address.is_loopback() && (!place.pods.contains(address) || here())
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
    use crate::services::{Slice, SlicePort};

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
            host: Some(Ipv4Addr::new(192, 0, 2, 100)),
            has_node_ports: true,
            outside: Vec::new(),
        }
    }

    /// Where the chain of the service's port leads; `refused` if there is none.
    fn check(endpoints: &[(&str, bool, bool, Option<&str>)], local_only: bool, expected: &[&str]) {
        let state = state(&place(), &services(endpoints, local_only), &Policies::default(), &BTreeSet::new());
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
        let chain = if local_only { "shop/web/TCP/80/here" } else { "shop/web/TCP/80" };
        let found = state.chains.get(chain).cloned().unwrap_or_default();
        assert_eq!(found, wanted, "{expected:?}");
        let lead = state.elements.get(&(Set::Services, service_key(Ipv4Addr::new(10, 96, 0, 7), TCP, 80)));
        assert_eq!(lead, (!expected.is_empty()).then(|| Some(Lead::Goto(chain.to_owned()))).as_ref());
    }

    #[test]
    fn who_came_before_is_led_to_where_it_was() {
        let check = |endpoints: &[&str], seconds, expected: &[(&str, bool)]| {
            let endpoints: Vec<_> = endpoints.iter().map(|address| (*address, true, false, None)).collect();
            let mut services = services(&endpoints, false);
            let web = services.get("shop", "web").cloned().unwrap();
            services.insert(Service { sticky_seconds: Some(seconds), ..web });
            let state = state(&place(), &services, &Policies::default(), &BTreeSet::new());
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

    /// Where who comes from outside is led, and what becomes of connections to the node port.
    #[test]
    fn who_comes_from_outside_is_led_as_the_service_says() {
        let (pods, all, here) = (place().pods, "shop/web/TCP/80", "shop/web/TCP/80/here");
        let check = |endpoints: &[(&str, bool, bool, Option<&str>)],
                     local: bool,
                     rules: &[Rule],
                     at_home: &[&str],
                     wanted: Door| {
            let mut services = services(endpoints, false);
            let web = services.get("shop", "web").cloned().unwrap();
            let port = Port { node_port: 30080, ..web.ports[0].clone() };
            services.insert(Service {
                local_from_outside: local,
                external_addresses: vec!["192.0.2.80".parse().unwrap()],
                ports: vec![port],
                ..web
            });
            let state = state(&place(), &services, &Policies::default(), &BTreeSet::new());
            assert_eq!(state.chains.get("shop/web/TCP/80/outside").map_or(&[][..], Vec::as_slice), rules);
            let lead = (!rules.is_empty()).then(|| Some(Lead::Goto("shop/web/TCP/80/outside".to_owned())));
            for (address, port) in
                [(place().gateway, 30080), (Ipv4Addr::new(192, 0, 2, 100), 30080), (Ipv4Addr::new(192, 0, 2, 80), 80)]
            {
                assert_eq!(state.elements.get(&(Set::Services, service_key(address, TCP, port))), lead.as_ref());
            }
            let targets = at_home.iter().map(|target| Rule::new().to(target.parse().unwrap()));
            let targets: Vec<_> = targets.collect();
            let dropped = [Rule::new().verdict(Verdict::Drop)];
            let found = state.chains.get(here);
            assert_eq!(found.is_some(), local && !endpoints.is_empty());
            if let Some(found) = found {
                assert_eq!(found, if at_home.is_empty() { &dropped[..] } else { &targets[..] });
            }
            let web = services.get("shop", "web").unwrap();
            assert_eq!(Targets::of(&place(), &services, web, &web.ports[0]).door(web), wanted);
        };
        let (at_home, elsewhere) = (("10.244.0.2", true, false, Some("n1")), ("192.0.2.1", true, false, Some("n2")));
        let masked = [Rule::new().mark(FROM_NODE).go_to(all)];
        let local = [Rule::new().only_in(Side::Source, pods).go_to(all), Rule::new().go_to(here)];
        check(&[], false, &[], &[], Door::Closed);
        check(&[], true, &[], &[], Door::Closed);
        check(&[at_home, elsewhere], false, &masked, &[], Door::Open);
        check(&[at_home, elsewhere], true, &local, &["10.244.0.2:8080"], Door::Open);
        check(&[elsewhere], true, &local, &[], Door::Deaf);
        check(&[elsewhere], false, &masked, &[], Door::Open);
        // The pods of other nodes are out of reach.
        let unreached = ("10.244.0.9", true, false, Some("n2"));
        check(&[unreached], true, &[Rule::new().go_to(here)], &[], Door::Deaf);
        check(&[unreached], false, &[], &[], Door::Closed);
        // One that is ending serves if there is no better one here.
        check(&[("10.244.0.2", false, true, Some("n1")), elsewhere], true, &local, &["10.244.0.2:8080"], Door::Open);
    }

    #[test]
    fn ports_of_the_host_lead_pods_to_pods() {
        let port = |ip: &str, protocol: &str| HostPort {
            protocol: protocol.into(),
            ip: ip.parse().unwrap(),
            port: 8000,
            target: "10.244.0.2:80".parse().unwrap(),
        };
        let check = |port: HostPort, protocol, expected: &[&str]| {
            let state = state(&place(), &Services::default(), &Policies::default(), &[port].into());
            let keys =
                expected.iter().map(|address| (Set::Services, service_key(address.parse().unwrap(), protocol, 8000)));
            let found = state.elements.keys().filter(|(set, _)| *set == Set::Services).cloned();
            assert_eq!(found.collect::<BTreeSet<_>>(), keys.collect());
            assert_eq!(state.chains.len(), usize::from(!expected.is_empty()));
            assert_eq!(!state.datagram_targets.is_empty(), protocol == UDP);
        };
        check(port("0.0.0.0", "TCP"), TCP, &["10.244.0.1", "192.0.2.100"]);
        check(port("0.0.0.0", "UDP"), UDP, &["10.244.0.1", "192.0.2.100"]);
        check(port("192.0.2.200", "TCP"), TCP, &["192.0.2.200"]);
        check(port("127.0.0.1", "TCP"), TCP, &[]);
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
        // From within, only what is here, where the service says so.
        check(&[("192.0.2.1", true, false, there), ("10.244.0.2", true, false, here)], true, &["10.244.0.2:8080"]);
        check(&[("192.0.2.1", true, false, there)], true, &["dropped"]);
        check(&[("10.244.0.3", true, false, there)], true, &["dropped"]);
        check(&[], true, &[]);
    }
}
