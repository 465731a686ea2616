//! The kernel's packet filter (nf_tables) in the node's network: rules, what is to be there, and the messages that make it so out
//! of what is there. Pure but for [`Table::apply`], which sends them. What the rules are for is others' to know. The numbers of
//! attributes are those of the kernel's `linux/netfilter/nf_tables.h`.

use super::flows;
use crate::sandbox::netlink::{Attributes, Batch};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

/// The one table.
const TABLE: &str = "kemudi";
/// What is sent to the kernel as one change, in bytes; more goes in several. A socket of an ordinary user takes twice as much.
const BATCH_BYTES_MAX: usize = 96 << 10;

const FAMILY: u8 = libc::NFPROTO_IPV4 as u8;
/// The registers of four bytes; three of them are enough.
const FIRST: u32 = 8;
const SECOND: u32 = 9;
const THIRD: u32 = 10;

/// The kernel's word for a packet's mark.
const MARK_KEY: u32 = 3;

/// Verdicts that lead to a chain.
const JUMP: i32 = -3;
const GOTO: i32 = -4;

/// Addresses that one set remembers; there are no more pods.
const REMEMBERED_MAX: u32 = 1 << 16;
/// What stands for a set in a change; each is called by its name.
const MEMORY_ID: u32 = 1000;

pub const TCP: u8 = libc::IPPROTO_TCP as u8;
pub const UDP: u8 = libc::IPPROTO_UDP as u8;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    pub address: Ipv4Addr,
    pub bits: u8,
}

impl Net {
    pub fn one(address: Ipv4Addr) -> Net {
        Net { address, bits: 32 }
    }

    /// `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Net> {
        let (address, bits) = text.split_once('/')?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some(Net { address: address.parse().ok()?, bits })
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }
}

/// What a packet is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// Target address, protocol and port, to the chain of a service.
    Services,
    /// The addresses of services.
    ServiceAddresses,
    /// Source and target, where they are the same pod.
    Loops,
    /// Source address, to the chain that says where it may go.
    Egress,
    /// Target address, to the chain that says who may come.
    Ingress,
}

impl Set {
    const ALL: [Set; 5] = [Set::Services, Set::ServiceAddresses, Set::Loops, Set::Egress, Set::Ingress];

    fn name(self) -> &'static str {
        match self {
            Set::Services => "services",
            Set::ServiceAddresses => "service-addresses",
            Set::Loops => "loops",
            Set::Egress => "egress",
            Set::Ingress => "ingress",
        }
    }

    fn key_bytes(self) -> u32 {
        match self {
            Set::Services => 12,
            Set::Loops => 8,
            Set::ServiceAddresses | Set::Egress | Set::Ingress => 4,
        }
    }

    /// Names of types for who looks at it with `nft`.
    fn key_type(self) -> u32 {
        const PROTOCOL: u32 = 12;
        const PORT: u32 = 13;
        match self {
            Set::Services => (ADDRESS << 6 | PROTOCOL) << 6 | PORT,
            Set::Loops => ADDRESS << 6 | ADDRESS,
            Set::ServiceAddresses | Set::Egress | Set::Ingress => ADDRESS,
        }
    }

    fn leads_on(self) -> bool {
        !matches!(self, Set::ServiceAddresses | Set::Loops)
    }
}

/// The type of addresses, for who looks at a set with `nft`.
const ADDRESS: u32 = 7;

/// The key of an element of [`Set::Services`].
pub fn service_key(address: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
    let mut key = address.octets().to_vec();
    key.extend([protocol, 0, 0, 0]);
    key.extend(port.to_be_bytes());
    key.extend([0, 0]);
    key
}

/// What shall be in the table beside what is always there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// Where an element leads: the chain, and whether what it does not decide comes back.
    pub elements: BTreeMap<(Set, Vec<u8>), Option<Lead>>,
    /// Sets that remember where packets came from, by name, and for how many seconds.
    pub memories: BTreeMap<String, u32>,
    /// Where datagrams to services go.
    pub datagram_targets: BTreeSet<SocketAddrV4>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    Goto(String),
    Jump(String),
}

/// What happens to a packet that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// Goes on where the chain was entered from.
    Return,
}

/// Which address of a packet is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// One rule: what it is about, and at its end what happens then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule(Vec<u8>);

impl Rule {
    pub fn new() -> Rule {
        Rule::default()
    }

    fn add(mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) -> Rule {
        const ELEMENT: u16 = 1;
        self.0.extend(Attributes::collect(|it| {
            it.nest(ELEMENT, |it| {
                it.text(1, name);
                it.nest(2, data);
            });
        }));
        self
    }

    fn load_packet(self, base: u32, offset: u32, length: u32, register: u32) -> Rule {
        self.add("payload", |it| {
            it.big(1, register);
            it.big(2, base);
            it.big(3, offset);
            it.big(4, length);
        })
    }

    fn load_address(self, side: Side, register: u32) -> Rule {
        const NETWORK_HEADER: u32 = 1;
        let offset = if side == Side::Source { 12 } else { 16 };
        self.load_packet(NETWORK_HEADER, offset, 4, register)
    }

    fn load_target_port(self, register: u32) -> Rule {
        const TRANSPORT_HEADER: u32 = 2;
        self.load_packet(TRANSPORT_HEADER, 2, 2, register)
    }

    fn load_protocol(self, register: u32) -> Rule {
        const TRANSPORT_PROTOCOL: u32 = 16;
        self.add("meta", |it| {
            it.big(2, TRANSPORT_PROTOCOL);
            it.big(1, register);
        })
    }

    fn compare(self, operator: Compare, value: &[u8]) -> Rule {
        self.add("cmp", |it| {
            it.big(1, FIRST);
            it.big(2, operator as u32);
            it.nest(3, |it| it.put(1, value));
        })
    }

    fn mask(self, mask: [u8; 4]) -> Rule {
        self.add("bitwise", |it| {
            it.big(1, FIRST);
            it.big(2, FIRST);
            it.big(3, 4);
            it.nest(4, |it| it.put(1, &mask));
            it.nest(5, |it| it.put(1, &[0; 4]));
        })
    }

    fn set_register(self, register: u32, value: &[u8]) -> Rule {
        self.add("immediate", |it| {
            it.big(1, register);
            it.nest(2, |it| it.put(1, value));
        })
    }

    /// Only packets of this protocol.
    pub fn protocol(self, protocol: u8) -> Rule {
        self.load_protocol(FIRST).compare(Compare::Equal, &[protocol])
    }

    /// Only packets from, or to, a range.
    pub fn only_in(self, side: Side, net: Net) -> Rule {
        self.in_net(side, net, Compare::Equal)
    }

    /// Only packets that are not.
    pub fn only_not_in(self, side: Side, net: Net) -> Rule {
        self.in_net(side, net, Compare::NotEqual)
    }

    fn in_net(self, side: Side, net: Net, operator: Compare) -> Rule {
        let first = net.address.to_bits() & net.mask();
        self.load_address(side, FIRST).mask(net.mask().to_be_bytes()).compare(operator, &first.to_be_bytes())
    }

    /// Only packets to a port of a range.
    pub fn ports(self, first: u16, last: u16) -> Rule {
        let rule = self.load_target_port(FIRST);
        if first == last {
            return rule.compare(Compare::Equal, &first.to_be_bytes());
        }
        rule.compare(Compare::NotLess, &first.to_be_bytes()).compare(Compare::NotGreater, &last.to_be_bytes())
    }

    /// Only packets of connections that are known, and what is said about them.
    pub fn known(self) -> Rule {
        const STATE: u32 = 0;
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        self.add("ct", |it| {
            it.big(2, STATE);
            it.big(1, FIRST);
        })
        .mask(ESTABLISHED_OR_RELATED.to_ne_bytes())
        .compare(Compare::NotEqual, &[0; 4])
    }

    /// Only answers: packets that go to where their connection was begun.
    pub fn answer(self) -> Rule {
        const DIRECTION: u32 = 1;
        const BACK: u8 = 1;
        self.add("ct", |it| {
            it.big(2, DIRECTION);
            it.big(1, FIRST);
        })
        .compare(Compare::Equal, &[BACK])
    }

    /// Only packets that were marked so.
    pub fn marked(self, mark: u32) -> Rule {
        self.add("meta", |it| {
            it.big(2, MARK_KEY);
            it.big(1, FIRST);
        })
        .compare(Compare::Equal, &mark.to_ne_bytes())
    }

    /// Marks a packet.
    pub fn mark(self, mark: u32) -> Rule {
        self.set_register(FIRST, &mark.to_ne_bytes()).add("meta", |it| {
            it.big(2, MARK_KEY);
            it.big(3, FIRST);
        })
    }

    /// One of so many packets, at random.
    pub fn one_of(self, count: u32) -> Rule {
        const RANDOM: u32 = 1;
        self.add("numgen", |it| {
            it.big(1, FIRST);
            it.big(2, count);
            it.big(3, RANDOM);
            it.big(4, 0);
        })
        .compare(Compare::Equal, &0u32.to_ne_bytes())
    }

    /// Only packets from where one came that is still remembered in a set of [`State::memories`].
    pub fn remembered(self, memory: &str) -> Rule {
        self.load_address(Side::Source, FIRST).add("lookup", |it| {
            it.text(1, memory);
            it.big(2, FIRST);
        })
    }

    /// Remembers, from now on, where a packet came from. What follows happens only if there was room for it.
    pub fn remember(self, memory: &str) -> Rule {
        const UPDATE: u32 = 1;
        self.load_address(Side::Source, FIRST).add("dynset", |it| {
            it.text(1, memory);
            it.big(3, UPDATE);
            it.big(4, FIRST);
        })
    }

    /// Only packets whose addresses are in a set without chains.
    pub fn within(self, set: Set) -> Rule {
        match set {
            Set::Loops => self.load_address(Side::Source, FIRST).load_address(Side::Target, SECOND),
            _ => self.load_address(Side::Target, FIRST),
        }
        .add("lookup", |it| {
            it.text(1, set.name());
            it.big(2, FIRST);
        })
    }

    /// Leads a packet to where the set says.
    pub fn lead(self, set: Set) -> Rule {
        const VERDICT: u32 = 0;
        match set {
            Set::Services => self.load_address(Side::Target, FIRST).load_protocol(SECOND).load_target_port(THIRD),
            Set::Egress => self.load_address(Side::Source, FIRST),
            _ => self.load_address(Side::Target, FIRST),
        }
        .add("lookup", |it| {
            it.text(1, set.name());
            it.big(2, FIRST);
            it.big(3, VERDICT);
        })
    }

    /// Sends a packet, and all of its connection, elsewhere.
    pub fn to(self, target: SocketAddrV4) -> Rule {
        const TARGET: u32 = 1;
        self.set_register(FIRST, &target.ip().octets()).set_register(SECOND, &target.port().to_be_bytes()).add(
            "nat",
            |it| {
                it.big(1, TARGET);
                it.big(2, FAMILY.into());
                it.big(3, FIRST);
                it.big(5, SECOND);
            },
        )
    }

    /// Has a packet, and all of its connection, come from elsewhere.
    pub fn from(self, source: Ipv4Addr) -> Rule {
        const SOURCE: u32 = 0;
        self.set_register(FIRST, &source.octets()).add("nat", |it| {
            it.big(1, SOURCE);
            it.big(2, FAMILY.into());
            it.big(3, FIRST);
        })
    }

    /// Gives a packet to a socket of the node's, whatever address it is sent to.
    pub fn give_to(self, socket: SocketAddrV4) -> Rule {
        self.set_register(FIRST, &socket.ip().octets())
            .set_register(SECOND, &socket.port().to_be_bytes())
            .add("tproxy", |it| {
                it.big(1, FAMILY.into());
                it.big(2, FIRST);
                it.big(3, SECOND);
            })
            .keep()
    }

    /// Keeps a packet for the sockets of the node, whatever address it is sent to.
    pub fn keep(self) -> Rule {
        self.mark(crate::sandbox::MARK).verdict(Verdict::Accept)
    }

    /// Answers that nothing listens there.
    pub fn refuse(self) -> Rule {
        const UNREACHABLE: u32 = 0;
        const PORT: u8 = 3;
        self.add("reject", |it| {
            it.big(1, UNREACHABLE);
            it.put(2, &[PORT]);
        })
    }

    /// Answers that there is no way there.
    pub fn unreachable(self) -> Rule {
        const UNREACHABLE: u32 = 0;
        const NETWORK: u8 = 0;
        self.add("reject", |it| {
            it.big(1, UNREACHABLE);
            it.put(2, &[NETWORK]);
        })
    }

    /// Goes on in another chain, and does not come back.
    pub fn go_to(self, chain: &str) -> Rule {
        self.add("immediate", |it| {
            it.big(1, 0);
            it.nest(2, |it| {
                it.nest(2, |it| {
                    it.big(1, GOTO as u32);
                    it.text(2, chain);
                });
            });
        })
    }

    pub fn verdict(self, verdict: Verdict) -> Rule {
        self.add("immediate", |it| {
            it.big(1, 0);
            it.nest(2, |it| it.nest(2, |it| it.big(1, verdict.code())));
        })
    }
}

impl Verdict {
    fn code(self) -> u32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Return => -5i32 as u32,
        }
    }
}

#[derive(Clone, Copy)]
enum Compare {
    Equal = 0,
    NotEqual = 1,
    NotGreater = 3,
    NotLess = 5,
}

/// A chain that the kernel itself enters.
pub struct Base {
    pub name: &'static str,
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub hook: Hook,
    /// Lower ones come first.
    pub priority: i32,
    pub rules: Vec<Rule>,
}

/// Where in a packet's way.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    Coming = 0,
    Own = 3,
    Going = 4,
}

/// The table in the kernel, and what is known to be in it.
pub struct Table {
    socket: OwnedFd,
    base: Vec<Base>,
    applied: State,
    next_number: u32,
}

impl Table {
    /// Makes the table with what is always in it.
    pub fn create(socket: OwnedFd, base: Vec<Base>) -> io::Result<Table> {
        let mut table = Table { socket, base, applied: State::default(), next_number: 1 };
        table.reset()?;
        Ok(table)
    }

    /// Makes the table's content what it shall be. Connections that go on are not touched.
    pub fn apply(&mut self, wanted: State) -> io::Result<()> {
        let before = std::mem::take(&mut self.applied);
        if self.send(&difference(&before, &wanted)).is_err() {
            // What is there is not what we believed: once more from the beginning.
            self.reset()?;
            self.send(&difference(&State::default(), &wanted))?;
        }
        let gone: BTreeSet<_> = before.datagram_targets.difference(&wanted.datagram_targets).copied().collect();
        self.applied = wanted;
        if !gone.is_empty() {
            self.next_number = flows::forget(&self.socket, &gone, self.next_number)?;
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        // Only what is there can be dropped.
        let mut steps = vec![Step::Table, Step::DropTable, Step::Table];
        steps.extend(Set::ALL.map(Step::Set));
        for base in &self.base {
            steps.push(Step::Base(base));
            steps.extend(base.rules.iter().map(|rule| Step::Rule(base.name, rule)));
        }
        let batches = transactions(&steps, self.next_number);
        self.next_number = batches.last().map_or(self.next_number, Batch::next_number);
        batches.iter().try_for_each(|batch| batch.send(&self.socket))
    }

    fn send(&mut self, steps: &[Step<'_>]) -> io::Result<()> {
        let batches = transactions(steps, self.next_number);
        self.next_number = batches.last().map_or(self.next_number, Batch::next_number);
        batches.iter().try_for_each(|batch| batch.send(&self.socket))
    }
}

/// One message to the filter.
enum Step<'a> {
    DropTable,
    Table,
    Set(Set),
    Memory(&'a str, u32),
    DropMemory(&'a str),
    Base(&'a Base),
    Chain(&'a str),
    Empty(&'a str),
    DropChain(&'a str),
    Rule(&'a str, &'a Rule),
    Element(Set, &'a [u8], Option<&'a Lead>),
    DropElement(Set, &'a [u8]),
}

/// The steps from one state to another, in an order that the kernel takes.
fn difference<'a>(before: &'a State, after: &'a State) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    for ((set, key), lead) in &before.elements {
        if after.elements.get(&(*set, key.clone())) != Some(lead) {
            steps.push(Step::DropElement(*set, key));
        }
    }
    for (name, seconds) in after.memories.iter().filter(|(name, _)| !before.memories.contains_key(*name)) {
        steps.push(Step::Memory(name, *seconds));
    }
    // A rule may lead to any of them.
    let new = after.chains.keys().filter(|name| !before.chains.contains_key(*name));
    steps.extend(new.map(|name| Step::Chain(name)));
    for (name, rules) in &after.chains {
        match before.chains.get(name) {
            Some(known) if known == rules => continue,
            Some(_) => steps.push(Step::Empty(name)),
            None => {}
        }
        steps.extend(rules.iter().map(|rule| Step::Rule(name, rule)));
    }
    for ((set, key), lead) in &after.elements {
        if before.elements.get(&(*set, key.clone())) != Some(lead) {
            steps.push(Step::Element(*set, key, lead.as_ref()));
        }
    }
    let gone: Vec<&String> = before.chains.keys().filter(|name| !after.chains.contains_key(*name)).collect();
    steps.extend(gone.iter().map(|name| Step::Empty(name)));
    steps.extend(gone.iter().map(|name| Step::DropChain(name)));
    let gone = before.memories.keys().filter(|name| !after.memories.contains_key(*name));
    steps.extend(gone.map(|name| Step::DropMemory(name)));
    steps
}

/// Puts the steps into as few changes as the socket takes.
fn transactions(steps: &[Step<'_>], first: u32) -> Vec<Batch> {
    const BEGIN: u16 = 16;
    const END: u16 = 17;
    let bound = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
    let mut done: Vec<Batch> = Vec::new();
    let mut steps = steps.iter().peekable();
    while steps.peek().is_some() {
        let mut batch = Batch::new(done.last().map_or(first, Batch::next_number));
        batch.tell(BEGIN, 0, &bound, |_| {});
        while let Some(step) = steps.next() {
            let last = steps.peek().is_none() || batch.byte_count() >= BATCH_BYTES_MAX;
            step.write(&mut batch, last);
            if last {
                break;
            }
        }
        batch.tell(END, 0, &bound, |_| {});
        done.push(batch);
    }
    done
}

impl Step<'_> {
    /// The last one of a change is answered, and stands for all.
    fn write(&self, batch: &mut Batch, last: bool) {
        let create = libc::NLM_F_CREATE;
        let (kind, flags) = match self {
            Step::Table => (libc::NFT_MSG_NEWTABLE, create),
            Step::DropTable => (libc::NFT_MSG_DELTABLE, 0),
            Step::Set(_) | Step::Memory(..) => (libc::NFT_MSG_NEWSET, create),
            Step::DropMemory(_) => (libc::NFT_MSG_DELSET, 0),
            Step::Base(_) | Step::Chain(_) => (libc::NFT_MSG_NEWCHAIN, create),
            Step::Empty(_) => (libc::NFT_MSG_DELRULE, 0),
            Step::DropChain(_) => (libc::NFT_MSG_DELCHAIN, 0),
            Step::Rule(..) => (libc::NFT_MSG_NEWRULE, create | libc::NLM_F_APPEND),
            Step::Element(..) => (libc::NFT_MSG_NEWSETELEM, create),
            Step::DropElement(..) => (libc::NFT_MSG_DELSETELEM, 0),
        };
        let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind as u16;
        let head = [FAMILY, 0, 0, 0];
        let body = |it: &mut Attributes<'_>| self.attributes(it);
        match last {
            true => batch.ask(kind, flags, &head, body),
            false => batch.tell(kind, flags, &head, body),
        }
    }

    fn attributes(&self, it: &mut Attributes<'_>) {
        it.text(1, TABLE);
        match self {
            Step::Table | Step::DropTable => {}
            Step::Set(set) => {
                const MAP: u32 = 8;
                const TO_CHAINS: u32 = 0xffff_ff00;
                it.text(2, set.name());
                it.big(3, if set.leads_on() { MAP } else { 0 });
                it.big(4, set.key_type());
                it.big(5, set.key_bytes());
                if set.leads_on() {
                    it.big(6, TO_CHAINS);
                    it.big(7, 0);
                }
                it.big(10, *set as u32 + 1);
            }
            Step::Memory(name, seconds) => {
                const TIMEOUT: u32 = 0x10;
                const FILLED_BY_PACKETS: u32 = 0x20;
                it.text(2, name);
                it.big(3, TIMEOUT | FILLED_BY_PACKETS);
                it.big(4, ADDRESS);
                it.big(5, 4);
                it.nest(9, |it| it.big(1, REMEMBERED_MAX));
                it.big(10, MEMORY_ID);
                it.put(11, &(u64::from(*seconds) * 1000).to_be_bytes());
            }
            Step::DropMemory(name) => it.text(2, name),
            Step::Base(base) => {
                it.text(3, base.name);
                it.nest(4, |it| {
                    it.big(1, base.hook as u32);
                    it.big(2, base.priority as u32);
                });
                it.text(7, base.kind);
            }
            Step::Chain(name) | Step::DropChain(name) => it.text(3, name),
            Step::Empty(name) => it.text(2, name),
            Step::Rule(chain, rule) => {
                it.text(2, chain);
                it.nest(4, |it| it.raw(&rule.0));
            }
            Step::Element(set, key, lead) => {
                it.text(2, set.name());
                it.nest(3, |it| {
                    it.nest(1, |it| {
                        it.nest(1, |it| it.put(1, key));
                        if let Some(lead) = lead {
                            let (code, chain) = match lead {
                                Lead::Jump(chain) => (JUMP, chain),
                                Lead::Goto(chain) => (GOTO, chain),
                            };
                            it.nest(2, |it| {
                                it.nest(2, |it| {
                                    it.big(1, code as u32);
                                    it.text(2, chain);
                                });
                            });
                        }
                    });
                });
            }
            Step::DropElement(set, key) => {
                it.text(2, set.name());
                it.nest(3, |it| it.nest(1, |it| it.nest(1, |it| it.put(1, key))));
            }
        }
    }
}
