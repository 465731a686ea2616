//! What the packet filter of the node's network shall hold: the way to services, the way out, and what policies allow. Pure.

use super::filter::{Base, Hook, Lead, Net, Rule, Set, Side, State, TCP, UDP, Verdict, service_key};
use super::policy::{self, Policies};
use crate::services::{Port, Service, Services};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The protocol of control messages across the Stream Control Transmission Protocol.
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
    let to = |net| Rule::new().is_in(Side::Target, net);
    let outside = place.outside.iter().map(|(protocol, socket)| Rule::new().protocol(*protocol).to_socket(*socket));
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
    // What listens on a loopback device alone is not reached from another network.
    let all = all.into_iter().filter(|(target, _)| !target.ip().is_loopback());
    let all: Vec<_> = all.collect();
    if all.is_empty() {
        return;
    }
    let here = |node: &Option<&str>| !service.local_only || *node == Some(place.node.as_str());
    let targets: Vec<SocketAddrV4> = all.iter().filter(|(_, node)| here(node)).map(|(target, _)| *target).collect();
    for target in targets.iter().filter(|target| place.pods.contains(*target.ip())) {
        let twice = [target.ip().octets(), target.ip().octets()].concat();
        state.elements.insert((Set::Loops, twice), None);
    }
    let count = targets.len() as u32;
    let mut rules: Vec<Rule> = Vec::with_capacity(targets.len().max(1));
    for (index, target) in (0u32..).zip(&targets) {
        let rule = match (service.sticky, count - index) {
            (_, 1) => Rule::new(),
            (true, _) => Rule::new().source_number(count, index),
            (false, left) => Rule::new().one_of(left),
        };
        rules.push(rule.to(*target));
    }
    if rules.is_empty() {
        rules.push(Rule::new().verdict(Verdict::Drop));
    }
    let chain = format!("{}/{}/{}/{}", service.namespace, service.name, port.protocol, port.port);
    for address in service.reached_at() {
        let key = (Set::Services, service_key(address, protocol, port.port));
        state.elements.insert(key, Some(Lead::Goto(chain.clone())));
    }
    state.chains.insert(chain, rules);
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
