//! NetworkPolicies: which pods are cut off, and who may reach them or be reached by them all the same. Pure. What goes on within
//! a pod is never cut off, nor what the node itself begins, as its probes.

use super::filter::{Lead, Net, Rule, Set, Side, State, Verdict};
use super::rules::{Place, protocol_number};
use kemudi_client::{LabelSelector, ObjectMeta, StringMap, typed};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The most rules that one pod gets in one direction; what more policies allow is not.
const RULES_MAX: usize = 20_000;

/// The NetworkPolicy object as the watch decodes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PolicyObject {
    pub metadata: ObjectMeta,
    pub spec: PolicySpec,
}

typed!(PolicyObject, group "networking.k8s.io", version "v1", plural "networkpolicies", namespaced);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySpec {
    pub pod_selector: Selector,
    pub ingress: Option<Vec<PolicyRule>>,
    pub egress: Option<Vec<PolicyRule>>,
    pub policy_types: Option<Vec<String>>,
}

/// Who (`from` or `to`; nobody named is everybody) and on which ports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PolicyRule {
    #[serde(alias = "to")]
    pub from: Option<Vec<Peer>>,
    pub ports: Option<Vec<PolicyPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    pub pod_selector: Option<Selector>,
    pub namespace_selector: Option<Selector>,
    pub ip_block: Option<IpBlock>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    pub cidr: String,
    pub except: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPort {
    pub protocol: Option<String>,
    /// A number or a name.
    pub port: Option<Value>,
    pub end_port: Option<u16>,
}

/// Which labels are meant. One that cannot be read means none.
#[derive(Clone, Debug)]
pub struct Selector(Option<LabelSelector>);

impl Default for Selector {
    fn default() -> Selector {
        Selector(Some(LabelSelector::default()))
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Selector, D::Error> {
        Ok(Selector(LabelSelector::of_object(&Value::deserialize(from)?)))
    }
}

impl Selector {
    pub fn matches(&self, labels: &StringMap) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(|key| labels.get(key)))
    }
}

/// A pod as policies see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    pub namespace: String,
    pub labels: StringMap,
    /// None while it has no address of its own.
    pub address: Option<Ipv4Addr>,
    pub node: String,
    /// Its named ports: name, protocol, number.
    pub ports: Vec<(String, String, u16)>,
}

/// The policies, and what they choose from.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// By namespace and name.
    pub all: BTreeMap<(String, String), PolicySpec>,
    /// By namespace and name.
    pub pods: BTreeMap<(String, String), Member>,
    /// The labels of namespaces.
    pub namespaces: BTreeMap<String, StringMap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl PolicySpec {
    fn is_about(&self, direction: Direction) -> bool {
        let kinds = self.policy_types.as_deref().unwrap_or_default();
        match direction {
            Direction::Ingress => kinds.is_empty() || kinds.iter().any(|kind| kind == "Ingress"),
            Direction::Egress if kinds.is_empty() => self.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
            Direction::Egress => kinds.iter().any(|kind| kind == "Egress"),
        }
    }

    fn rules(&self, direction: Direction) -> &[PolicyRule] {
        let rules = if direction == Direction::Ingress { &self.ingress } else { &self.egress };
        rules.as_deref().unwrap_or_default()
    }
}

/// Somebody who may come, or be gone to.
#[derive(Clone)]
enum Allowed<'a> {
    Everybody,
    Pod(&'a Member, Ipv4Addr),
    Block(Net, Vec<Net>),
}

impl Policies {
    /// The policies that cut a pod off in a direction; none where it is open.
    fn of(&self, pod: &Member, direction: Direction) -> Vec<(&str, &PolicySpec)> {
        let own = self.all.iter().filter(|((namespace, _), policy)| {
            *namespace == pod.namespace && policy.is_about(direction) && policy.pod_selector.matches(&pod.labels)
        });
        own.map(|((namespace, _), policy)| (namespace.as_str(), policy)).collect()
    }

    fn allowed<'a>(&'a self, namespace: &str, peers: Option<&'a [Peer]>) -> Vec<Allowed<'a>> {
        let Some(peers) = peers.filter(|peers| !peers.is_empty()) else { return vec![Allowed::Everybody] };
        let mut allowed = Vec::new();
        for peer in peers {
            if let Some(block) = &peer.ip_block {
                let except = block.except.iter().flatten().filter_map(|net| Net::parse(net));
                allowed.extend(Net::parse(&block.cidr).map(|net| Allowed::Block(net, except.collect())));
                continue;
            }
            let chosen = self.pods.values().filter(|pod| self.chooses(peer, namespace, pod));
            allowed.extend(chosen.filter_map(|pod| Some(Allowed::Pod(pod, pod.address?))));
        }
        allowed
    }

    /// Whether a peer of a policy means a pod.
    fn chooses(&self, peer: &Peer, namespace: &str, pod: &Member) -> bool {
        let there = match &peer.namespace_selector {
            None => pod.namespace == namespace,
            Some(selector) => self.namespaces.get(&pod.namespace).is_some_and(|labels| selector.matches(labels)),
        };
        there && peer.pod_selector.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
    }

    /// Whether a pod's policies let it reach something that no packet filter sees.
    pub fn lets_out(&self, pod: &Member, to: &[Destination]) -> bool {
        let policies = self.of(pod, Direction::Egress);
        policies.is_empty()
            || policies.iter().any(|(namespace, policy)| {
                policy.rules(Direction::Egress).iter().any(|rule| to.iter().any(|to| self.reaches(namespace, rule, to)))
            })
    }

    fn reaches(&self, namespace: &str, rule: &PolicyRule, to: &Destination) -> bool {
        let peers = rule.from.as_deref().unwrap_or_default();
        let who = peers.is_empty()
            || peers.iter().any(|peer| match &peer.ip_block {
                Some(block) => {
                    let within = |net: &str| Net::parse(net).is_some_and(|net| net.contains(to.address));
                    within(&block.cidr) && !block.except.iter().flatten().any(|net| within(net))
                }
                None => to.pod.as_ref().is_some_and(|pod| self.chooses(peer, namespace, pod)),
            });
        let ports = rule.ports.as_deref().unwrap_or_default();
        let pod = to.pod.clone().unwrap_or_default();
        who && (ports.is_empty()
            || ports.iter().any(|port| {
                let spans = spans(port, &pod);
                spans.into_iter().any(|(protocol, span)| {
                    protocol_number(protocol) == Some(to.protocol)
                        && span.is_none_or(|(first, last)| (first..=last).contains(&to.port))
                })
            }))
    }
}

/// Something that a pod reaches past the packet filter: the API server and the DNS, which the node serves within each pod.
#[derive(Clone, Debug)]
pub struct Destination {
    pub address: Ipv4Addr,
    pub protocol: u8,
    pub port: u16,
    /// The pod that it would be in another cluster.
    pub pod: Option<Member>,
}

/// The ports of a pod that a policy's port means: none of a name that the pod does not have; all of them are no range.
fn spans<'a>(port: &'a PolicyPort, pod: &Member) -> Vec<(&'a str, Option<(u16, u16)>)> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.port {
        None => vec![(protocol, None)],
        Some(Value::Number(number)) => {
            let first = number.as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or(0);
            vec![(protocol, Some((first, port.end_port.unwrap_or(first))))]
        }
        Some(name) => {
            let name = name.as_str().unwrap_or_default();
            let named = pod.ports.iter().filter(|(own, of, _)| own == name && of == protocol);
            named.map(|(.., number)| (protocol, Some((*number, *number)))).collect()
        }
    }
}

/// Adds the chains of the pods of this node that are cut off.
pub fn add(state: &mut State, place: &Place, policies: &Policies) {
    if policies.all.is_empty() {
        return;
    }
    for pod in policies.pods.values().filter(|pod| pod.node == place.node) {
        let Some(address) = pod.address else { continue };
        for (direction, set, word) in
            [(Direction::Ingress, Set::Ingress, "to"), (Direction::Egress, Set::Egress, "from")]
        {
            let own = policies.of(pod, direction);
            if own.is_empty() {
                continue;
            }
            let mut rules = Vec::new();
            for (namespace, policy) in own {
                for rule in policy.rules(direction) {
                    for allowed in policies.allowed(namespace, rule.from.as_deref()) {
                        // The pods of other nodes are not in this network, and their addresses may be those of others here.
                        if matches!(allowed, Allowed::Pod(other, _) if other.node != place.node) {
                            continue;
                        }
                        add_rules(&mut rules, direction, pod, &allowed, rule.ports.as_deref().unwrap_or_default());
                    }
                }
            }
            rules.truncate(RULES_MAX);
            rules.push(Rule::new().verdict(Verdict::Drop));
            let chain = format!("{word}-{address}");
            state.elements.insert((set, address.octets().to_vec()), Some(Lead::Jump(chain.clone())));
            state.chains.insert(chain, rules);
        }
    }
}

fn add_rules(rules: &mut Vec<Rule>, direction: Direction, pod: &Member, allowed: &Allowed<'_>, ports: &[PolicyPort]) {
    let side = if direction == Direction::Ingress { Side::Source } else { Side::Target };
    let who = || match allowed {
        Allowed::Everybody => Rule::new(),
        Allowed::Pod(_, address) => Rule::new().only_in(side, Net::one(*address)),
        Allowed::Block(net, except) => {
            except.iter().fold(Rule::new().only_in(side, *net), |rule, net| rule.only_not_in(side, *net))
        }
    };
    if ports.is_empty() {
        rules.push(who().verdict(Verdict::Return));
    }
    let nobody = Member::default();
    // A name is a port of whoever is reached.
    let named = match (direction, allowed) {
        (Direction::Ingress, _) => pod,
        (Direction::Egress, Allowed::Pod(other, _)) => other,
        (Direction::Egress, _) => &nobody,
    };
    for (protocol, span) in ports.iter().flat_map(|port| spans(port, named)) {
        let Some(protocol) = protocol_number(protocol) else { continue };
        let rule = who().protocol(protocol);
        let rule = match span {
            Some((first, last)) => rule.ports(first, last),
            None => rule,
        };
        rules.push(rule.verdict(Verdict::Return));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

    fn member(namespace: &str, app: &str, last: u8) -> Member {
        let mut labels = StringMap::default();
        labels.insert("app", app);
        Member {
            namespace: namespace.into(),
            labels,
            address: Some(Ipv4Addr::new(10, 244, 0, last)),
            node: "n1".into(),
            ports: vec![("http".into(), "TCP".into(), 8080)],
        }
    }

    fn policies(specs: &[Value]) -> Policies {
        let mut policies = Policies::default();
        for (number, spec) in specs.iter().enumerate() {
            let spec = serde_json::from_value(spec.clone()).unwrap();
            policies.all.insert(("shop".into(), format!("policy-{number}")), spec);
        }
        for (namespace, app, last) in [("shop", "web", 2), ("shop", "db", 3), ("other", "web", 4)] {
            policies.pods.insert((namespace.into(), format!("{app}-{last}")), member(namespace, app, last));
        }
        for namespace in ["shop", "other"] {
            let mut labels = StringMap::default();
            labels.insert("kubernetes.io/metadata.name", namespace);
            policies.namespaces.insert(namespace.into(), labels);
        }
        policies
    }

    /// Each chain and how many rules it has, the last of which drops the rest.
    fn check(specs: &[Value], expected: &str) {
        let mut state = State::default();
        add(&mut state, &place(), &policies(specs));
        let chains = state.chains.iter().map(|(name, rules)| {
            assert_eq!(rules.last(), Some(&Rule::new().verdict(Verdict::Drop)));
            format!("{name}:{}", rules.len() - 1)
        });
        assert_eq!(chains.collect::<Vec<_>>().join(" "), expected);
        assert_eq!(state.elements.len(), state.chains.len());
    }

    #[test]
    fn pods_are_cut_off_by_the_policies_that_choose_them() {
        check(&[], "");
        check(&[json!({"podSelector": {}})], "to-10.244.0.2:0 to-10.244.0.3:0");
        check(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})], "from-10.244.0.2:0 from-10.244.0.3:0");
        let web = json!({"matchLabels": {"app": "web"}});
        let from = |peers: Value| json!({"podSelector": web, "ingress": [{"from": peers}]});
        check(&[from(json!([]))], "to-10.244.0.2:1");
        check(&[from(json!([{"podSelector": {}}]))], "to-10.244.0.2:2");
        check(&[from(json!([{"namespaceSelector": {}}]))], "to-10.244.0.2:3");
        let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "other"}});
        check(&[from(json!([{"namespaceSelector": named, "podSelector": web}]))], "to-10.244.0.2:1");
        check(&[from(json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]))], "to-10.244.0.2:1");
        let some = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]});
        check(&[json!({"podSelector": some})], "to-10.244.0.3:0");
        let ports =
            json!([{"port": "http"}, {"port": 53, "protocol": "UDP"}, {"port": 1, "endPort": 9}, {"port": "none"}]);
        check(&[json!({"podSelector": web, "ingress": [{"ports": ports}]})], "to-10.244.0.2:3");
        // Both add up.
        check(&[from(json!([{"podSelector": web}])), from(json!([{"podSelector": {}}]))], "to-10.244.0.2:3");
    }

    #[test]
    fn what_is_served_within_pods_is_judged_too() {
        let dns = Destination {
            address: Ipv4Addr::new(10, 96, 0, 10),
            protocol: super::super::filter::UDP,
            port: 53,
            pod: Some(Member { namespace: "other".into(), ..member("other", "dns", 0) }),
        };
        let lets = |specs: &[Value]| policies(specs).lets_out(&member("shop", "web", 2), std::slice::from_ref(&dns));
        let to = |peer: Value, port: u16| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [peer], "ports": [{"port": port, "protocol": "UDP"}]}]});
        assert!(lets(&[]));
        assert!(lets(&[json!({"podSelector": {}})]), "ingress alone");
        assert!(!lets(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})]));
        assert!(lets(&[to(json!({"namespaceSelector": {}}), 53)]));
        assert!(!lets(&[to(json!({"namespaceSelector": {}}), 54)]));
        assert!(!lets(&[to(json!({"podSelector": {}}), 53)]));
        assert!(lets(&[to(json!({"ipBlock": {"cidr": "10.96.0.0/16"}}), 53)]));
        assert!(!lets(&[to(json!({"ipBlock": {"cidr": "10.96.0.0/16", "except": ["10.96.0.10/32"]}}), 53)]));
    }
}
