//! The cluster's DNS, served inside each pod on the sockets its init has opened: services by name and by address from the
//! agent's own index, everything else from the host's resolvers. `answer` is pure; the loops around it only carry.

use crate::network;
use crate::services::{Endpoint, Service, Services, SharedServices};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Where it is asked, over UDP and TCP.
pub const PORT: u16 = 53;
/// How long an answer may be kept, in seconds.
const TTL_SECONDS: u32 = 30;
/// The largest message taken over UDP, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// What an answer over UDP may have where the client does not say that it takes more, in bytes.
const UDP_BYTES: usize = 512;
/// The version of the specification of DNS in a cluster.
const DNS_VERSION: &str = "1.1.0";
/// Questions of one pod that wait for the host's resolvers at a time; more of them wait in the socket.
const FORWARDS_MAX: usize = 64;
/// TCP connections of one pod at a time.
const CONNECTIONS_MAX: usize = 16;
/// How long one of the host's resolvers may take.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a TCP connection may say nothing.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Resolvers asked, as the C library does.
const RESOLVERS_MAX: usize = 3;

/// What is needed to answer.
pub struct Dns {
    pub services: Arc<SharedServices>,
    /// `cluster.local`
    pub domain: String,
    /// The host's resolvers.
    pub resolvers: Vec<SocketAddr>,
}

/// What to do with a question.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Reply(Vec<u8>),
    /// The name is another one's: what that stands for belongs into the answer.
    Alias(Name),
    /// It is not about the cluster: ask the host's resolvers.
    Forward,
    /// It is no question.
    Nothing,
}

/// Answers one question from the index, in at most so many bytes: what is more must be asked for over TCP.
pub fn answer(question: &[u8], services: &Services, domain: &str, bytes_max: usize) -> Answer {
    let Ok(message) = Message::from_vec(question) else { return Answer::Nothing };
    if message.metadata.message_type != MessageType::Query {
        return Answer::Nothing;
    }
    let reply = |code, answers, more| reply(&message, code, answers, more, domain, bytes_max);
    let [query] = message.queries.as_slice() else { return reply(ResponseCode::FormErr, Vec::new(), Vec::new()) };
    if message.metadata.op_code != OpCode::Query {
        return reply(ResponseCode::NotImp, Vec::new(), Vec::new());
    }
    match find(query, services, domain) {
        Found::Elsewhere => Answer::Forward,
        Found::No => reply(ResponseCode::NXDomain, Vec::new(), Vec::new()),
        Found::Alias(name) => Answer::Alias(name),
        Found::Records(data, more) => {
            let record = |data: RData| Record::from_rdata(query.name().clone(), TTL_SECONDS, data);
            reply(ResponseCode::NoError, data.into_iter().map(record).collect(), more)
        }
    }
}

enum Found {
    /// The name exists; perhaps not with records of the asked type. The second ones were not asked for, but will be.
    Records(Vec<RData>, Vec<Record>),
    Alias(Name),
    No,
    Elsewhere,
}

impl Found {
    fn records(data: impl IntoIterator<Item = RData>) -> Found {
        Found::Records(data.into_iter().collect(), Vec::new())
    }
}

/// As CoreDNS answers with its usual configuration.
fn find(query: &Query, services: &Services, domain: &str) -> Found {
    let kind = query.query_type();
    let name = query.name().to_ascii().to_lowercase();
    let name = name.trim_end_matches('.');
    if name.ends_with(".arpa") {
        let address = query.name().parse_arpa_name().ok().map(|net| net.addr());
        let names = address.map(|address| names_of(address, services, domain)).unwrap_or_default();
        return match names.is_empty() {
            true => Found::Elsewhere,
            false => Found::records(
                names.into_iter().filter(|_| is(kind, RecordType::PTR)).map(|name| RData::PTR(PTR(name))),
            ),
        };
    }
    let inner = match name.strip_suffix(domain) {
        Some("") => return Found::records(None),
        Some(inner) if inner.ends_with('.') => inner.trim_end_matches('.'),
        _ => return Found::Elsewhere,
    };
    let labels: Vec<&str> = inner.split('.').collect();
    match labels.as_slice() {
        ["dns-version"] => {
            let text = RData::TXT(TXT::new(vec![DNS_VERSION.into()]));
            Found::records(Some(text).filter(|_| is(kind, RecordType::TXT)))
        }
        ["svc" | "pod"] => Found::records(None),
        [namespace, "svc" | "pod"] if services.has_namespace(namespace) => Found::records(None),
        [address, _, "pod"] => match dashed(address) {
            Some(address) => Found::records(only(kind, address)),
            None => Found::No,
        },
        [service, namespace, "svc"] => match services.get(namespace, service) {
            Some(service) => of_service(services, service, None, None, kind, domain),
            None => Found::No,
        },
        [endpoint, service, namespace, "svc"] => match services.get(namespace, service) {
            Some(service) => of_service(services, service, Some(endpoint), None, kind, domain),
            None => Found::No,
        },
        [port, protocol, service, namespace, "svc"] => match services.get(namespace, service) {
            Some(service) => {
                let bare = |label: &str| label.strip_prefix('_').unwrap_or(label).to_owned();
                of_service(services, service, None, Some((&bare(port), &bare(protocol))), kind, domain)
            }
            None => Found::No,
        },
        _ => Found::No,
    }
}

/// What a record says of an address, a port and a name.
struct Place {
    address: IpAddr,
    port: u16,
    name: Name,
}

/// The records of a service, of one of its endpoints, or of one of its ports.
fn of_service(
    services: &Services,
    service: &Service,
    endpoint: Option<&str>,
    port: Option<(&str, &str)>,
    kind: RecordType,
    domain: &str,
) -> Found {
    if let Some(other) = &service.external_name {
        let name = Name::from_ascii(format!("{}.", other.trim_end_matches('.'))).ok();
        return name.filter(|_| endpoint.is_none()).map_or(Found::No, Found::Alias);
    }
    let wanted = |name: &str, protocol: &str| {
        port.is_none_or(|(own, of)| own.eq_ignore_ascii_case(name) && of.eq_ignore_ascii_case(protocol))
    };
    let own_name = format!("{}.{}.svc.{domain}.", service.name, service.namespace);
    let mut places = Vec::new();
    if service.is_headless() || endpoint.is_some() {
        for slice in services.slices_of(service) {
            let ports = slice.ports.iter().filter(|own| {
                wanted(own.name.as_deref().unwrap_or_default(), own.protocol.as_deref().unwrap_or("TCP"))
            });
            let mut numbers: Vec<u16> = ports.map(|own| own.port.unwrap_or(0)).collect();
            if slice.ports.is_empty() && port.is_none() {
                numbers.push(0);
            }
            for found in slice.endpoints.iter().filter(|found| found.ready) {
                let label = label_of(found);
                if endpoint.is_some_and(|wanted| wanted != label) {
                    continue;
                }
                let Ok(name) = Name::from_ascii(format!("{label}.{own_name}")) else { continue };
                places.extend(numbers.iter().map(|port| Place {
                    address: found.address,
                    port: *port,
                    name: name.clone(),
                }));
            }
        }
    } else if let Ok(name) = Name::from_ascii(&own_name) {
        for own in service.ports.iter().filter(|own| wanted(&own.name, &own.protocol)) {
            let all = service.addresses.iter();
            places.extend(all.map(|address| Place { address: *address, port: own.port, name: name.clone() }));
        }
    }
    if places.is_empty() {
        return Found::No;
    }
    if kind == RecordType::SRV {
        return ports_of(places);
    }
    let mut addresses: Vec<IpAddr> = places.into_iter().map(|place| place.address).collect();
    addresses.sort();
    addresses.dedup();
    Found::records(addresses.into_iter().flat_map(|address| only(kind, address)))
}

fn ports_of(places: Vec<Place>) -> Found {
    let mut targets: Vec<(u16, Name)> = places.iter().map(|place| (place.port, place.name.clone())).collect();
    targets.sort();
    targets.dedup();
    // All of them together weigh a hundred.
    let weight = (100 / targets.len().clamp(1, 100)) as u16;
    let data = targets.into_iter().map(|(port, name)| RData::SRV(SRV::new(0, weight, port, name))).collect();
    let mut hosts: Vec<(Name, IpAddr)> = places.into_iter().map(|place| (place.name, place.address)).collect();
    hosts.sort();
    hosts.dedup();
    let host = |(name, address)| Record::from_rdata(name, TTL_SECONDS, data_of(address));
    Found::Records(data, hosts.into_iter().map(host).collect())
}

/// What an endpoint is called in its service's domain.
fn label_of(endpoint: &Endpoint) -> String {
    let address = || endpoint.address.to_string().replace(['.', ':'], "-");
    endpoint.hostname.clone().unwrap_or_else(address)
}

/// The names of an address: a service's, or else those of an endpoint.
fn names_of(address: IpAddr, services: &Services, domain: &str) -> Vec<Name> {
    let of = |service: &Service| format!("{}.{}.svc.{domain}.", service.name, service.namespace);
    if let Some(service) = services.at(address) {
        return Name::from_ascii(of(service)).into_iter().collect();
    }
    let found = services.endpoints().filter(|(_, endpoint)| endpoint.address == address && endpoint.ready);
    let mut names: Vec<Name> = found
        .filter_map(|(service, endpoint)| Name::from_ascii(format!("{}.{}", label_of(endpoint), of(service))).ok())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The address in the name of a pod: `10-244-0-3`.
fn dashed(label: &str) -> Option<IpAddr> {
    let four = label.matches('-').count() == 3 && !label.contains("--");
    label.replace('-', if four { "." } else { ":" }).parse().ok()
}

fn is(asked: RecordType, kind: RecordType) -> bool {
    asked == kind || asked == RecordType::ANY
}

fn data_of(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

fn only(asked: RecordType, address: IpAddr) -> Option<RData> {
    let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    Some(data_of(address)).filter(|_| is(asked, kind))
}

fn reply(
    question: &Message,
    code: ResponseCode,
    answers: Vec<Record>,
    more: Vec<Record>,
    domain: &str,
    bytes_max: usize,
) -> Answer {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.authoritative = true;
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries = question.queries.clone();
    if answers.is_empty() {
        // What does not exist may be remembered too; the zone's record says how long.
        message.authorities.extend(zone(domain));
    }
    message.answers = answers;
    message.additionals = more;
    if question.edns.is_some() {
        message.set_edns(Edns::new());
    }
    match message.to_vec() {
        Ok(bytes) if bytes.len() <= bytes_max => Answer::Reply(bytes),
        Ok(_) => truncated(message, bytes_max).map_or(Answer::Nothing, Answer::Reply),
        Err(_) => Answer::Nothing,
    }
}

/// As much of a message as has room, and the word that there is more.
fn truncated(mut message: Message, bytes_max: usize) -> Option<Vec<u8>> {
    message.additionals.clear();
    let mut bytes = message.to_vec().ok()?;
    while bytes.len() > bytes_max && !message.answers.is_empty() {
        message.metadata.truncation = true;
        message.answers.truncate(message.answers.len() / 2);
        bytes = message.to_vec().ok()?;
    }
    Some(bytes)
}

fn zone(domain: &str) -> Option<Record> {
    let name = |prefix: &str| Name::from_ascii(format!("{prefix}{domain}.")).ok();
    let soa = SOA::new(name("ns.dns.")?, name("hostmaster.")?, 1, 7200, 1800, 86400, TTL_SECONDS);
    Some(Record::from_rdata(name("")?, TTL_SECONDS, RData::SOA(soa)))
}

impl Dns {
    /// The answer, wherever it comes from; `None` for what is no question.
    async fn resolve(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let bytes_max = room(question, tcp);
        let found = answer(question, &self.services.read(), &self.domain, bytes_max);
        match found {
            Answer::Reply(reply) => Some(reply),
            Answer::Nothing => None,
            Answer::Alias(name) => self.follow(question, name, bytes_max).await,
            Answer::Forward => self.forward(question, tcp).await,
        }
    }

    async fn forward(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for resolver in self.resolvers.iter().take(RESOLVERS_MAX) {
            let asked =
                async { if tcp { ask_tcp(*resolver, question).await } else { ask_udp(*resolver, question).await } };
            if let Ok(Ok(reply)) = tokio::time::timeout(RESOLVER_PATIENCE, asked).await {
                return Some(reply);
            }
        }
        let message = Message::from_vec(question).ok()?;
        let mut failure = Message::error_msg(message.metadata.id, message.metadata.op_code, ResponseCode::ServFail);
        failure.queries = message.queries;
        failure.to_vec().ok()
    }

    /// The answer for a name that is another one's, with what is known of that.
    async fn follow(&self, question: &[u8], name: Name, bytes_max: usize) -> Option<Vec<u8>> {
        let message = Message::from_vec(question).ok()?;
        let query = message.queries.first()?;
        let mut answers =
            vec![Record::from_rdata(query.name().clone(), TTL_SECONDS, RData::CNAME(CNAME(name.clone())))];
        if query.query_type() != RecordType::CNAME {
            let other = Query::query(name.clone(), query.query_type());
            let found = find(&other, &self.services.read(), &self.domain);
            match found {
                Found::Records(data, _) => {
                    answers.extend(data.into_iter().map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data)));
                }
                Found::Elsewhere => {
                    let mut further = Message::query();
                    further.metadata.id = message.metadata.id;
                    further.metadata.recursion_desired = true;
                    further.add_query(other);
                    let reply = self.forward(&further.to_vec().ok()?, false).await;
                    let reply = reply.and_then(|reply| Message::from_vec(&reply).ok());
                    answers.extend(reply.into_iter().flat_map(|reply| reply.answers));
                }
                // A chain within the cluster is not followed further: the client may.
                Found::Alias(_) | Found::No => {}
            }
        }
        match reply(&message, ResponseCode::NoError, answers, Vec::new(), &self.domain, bytes_max) {
            Answer::Reply(reply) => Some(reply),
            _ => None,
        }
    }
}

/// How many bytes an answer may have.
fn room(question: &[u8], tcp: bool) -> usize {
    match Message::from_vec(question).ok().and_then(|message| message.edns) {
        _ if tcp => usize::from(u16::MAX),
        Some(edns) => usize::from(edns.max_payload()).clamp(UDP_BYTES, MESSAGE_BYTES_MAX),
        None => UDP_BYTES,
    }
}

async fn ask_udp(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut reply = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let count = socket.recv(&mut reply).await?;
        if reply.get(..2) == question.get(..2) {
            reply.truncate(count);
            return Ok(reply);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    write_framed(&mut stream, question).await?;
    read_framed(&mut stream).await
}

async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed).await
}

/// Serves a pod's UDP socket until it is dropped. Nothing is answered while `lets` says so.
pub async fn serve_udp(dns: Arc<Dns>, socket: UdpSocket, lets: impl Fn() -> bool) {
    let socket = Arc::new(socket);
    let mut forwards = JoinSet::new();
    loop {
        while forwards.try_join_next().is_some() {}
        let Ok((question, from)) = receive(&socket).await else { continue };
        if !lets() {
            continue;
        }
        let found = answer(&question, &dns.services.read(), &dns.domain, room(&question, false));
        match found {
            Answer::Nothing => {}
            Answer::Reply(reply) => drop(socket.send_to(&reply, from).await),
            Answer::Forward | Answer::Alias(_) => {
                if forwards.len() >= FORWARDS_MAX {
                    forwards.join_next().await;
                }
                let (dns, socket) = (dns.clone(), socket.clone());
                forwards.spawn(async move {
                    if let Some(reply) = dns.resolve(&question, false).await {
                        let _ = socket.send_to(&reply, from).await;
                    }
                });
            }
        }
    }
}

/// The next message of a socket, and whose it is. While none comes there is no room for one: each pod has such a socket.
async fn receive(socket: &UdpSocket) -> std::io::Result<(Vec<u8>, SocketAddr)> {
    poll_fn(|cx| {
        let mut room = [MaybeUninit::uninit(); MESSAGE_BYTES_MAX];
        let mut message = ReadBuf::uninit(&mut room);
        let from = ready!(socket.poll_recv_from(cx, &mut message))?;
        Poll::Ready(Ok((message.filled().to_vec(), from)))
    })
    .await
}

/// Serves a pod's TCP socket until it is dropped. Nobody is served while `lets` says so.
pub async fn serve_tcp(dns: Arc<Dns>, listener: TcpListener, lets: impl Fn() -> bool) {
    let serve = |mut stream| {
        let (dns, lets) = (dns.clone(), lets());
        async move {
            while lets && let Ok(Ok(question)) = tokio::time::timeout(IDLE_MAX, read_framed(&mut stream)).await {
                let Some(reply) = dns.resolve(&question, true).await else { return };
                if write_framed(&mut stream, &reply).await.is_err() {
                    return;
                }
            }
        }
    };
    network::each_connection(listener, CONNECTIONS_MAX, serve).await;
}

/// The resolvers that a `resolv.conf` names.
pub fn resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    let words = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    words.filter_map(|address| Some(SocketAddr::new(address.trim().parse().ok()?, 53))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{Port, Slice, SlicePort};

    fn services() -> Services {
        let mut services = Services::default();
        let port = |name: &str, port| Port { name: name.into(), protocol: "TCP".into(), port, node_port: 0 };
        let service = |namespace: &str, name: &str, addresses: &[&str]| Service {
            namespace: namespace.into(),
            name: name.into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ports: vec![port("https", 443)],
            ..Service::default()
        };
        services.insert(service("default", "kubernetes", &["10.96.0.1"]));
        services.insert(service("shop", "dual", &["10.96.0.7", "fd00::7"]));
        services.insert(service("shop", "headless", &[]));
        services.insert(service("shop", "empty", &[]));
        let endpoint = |address: &str, hostname: Option<&str>, ready| Endpoint {
            address: address.parse().unwrap(),
            ready,
            serves_to_its_end: false,
            hostname: hostname.map(str::to_owned),
            node: None,
        };
        services.insert_slice(Slice {
            namespace: "shop".into(),
            name: "headless-1".into(),
            service: "headless".into(),
            ports: vec![SlicePort { name: Some("https".into()), protocol: Some("TCP".into()), port: Some(8443) }],
            endpoints: vec![
                endpoint("10.244.0.5", Some("db-0"), true),
                endpoint("10.244.0.6", None, true),
                endpoint("10.244.0.7", Some("db-2"), false),
            ],
        });
        services.insert(Service { external_name: Some("example.com".into()), ..service("shop", "other", &[]) });
        services
    }

    fn check(name: &str, kind: RecordType, expected: &str) {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let text = match answer(&question.to_vec().unwrap(), &services(), "cluster.local", 512) {
            Answer::Forward => "forward".into(),
            Answer::Alias(name) => format!("as {name}"),
            Answer::Nothing => "nothing".into(),
            Answer::Reply(reply) => {
                let reply = Message::from_vec(&reply).unwrap();
                assert_eq!(reply.metadata.id, question.metadata.id);
                assert_eq!(reply.queries, question.queries);
                let data = reply.answers.iter().map(|record| record.data.to_string());
                let data: Vec<String> =
                    std::iter::once(format!("{:?}", reply.metadata.response_code)).chain(data).collect();
                data.join(" ")
            }
        };
        assert_eq!(text, expected, "{name} {kind}");
    }

    #[test]
    fn names() {
        use RecordType as T;
        check("kubernetes.default.svc.cluster.local.", T::A, "NoError 10.96.0.1");
        check("KUBERNETES.default.SVC.cluster.local.", T::A, "NoError 10.96.0.1");
        check("kubernetes.default.svc.cluster.local.", T::AAAA, "NoError");
        check("dual.shop.svc.cluster.local.", T::AAAA, "NoError fd00::7");
        check("headless.shop.svc.cluster.local.", T::A, "NoError 10.244.0.5 10.244.0.6");
        check("headless.shop.svc.cluster.local.", T::AAAA, "NoError");
        check("db-0.headless.shop.svc.cluster.local.", T::A, "NoError 10.244.0.5");
        check("10-244-0-6.headless.shop.svc.cluster.local.", T::A, "NoError 10.244.0.6");
        check("db-2.headless.shop.svc.cluster.local.", T::A, "NXDomain");
        check("empty.shop.svc.cluster.local.", T::A, "NXDomain");
        check("other.shop.svc.cluster.local.", T::A, "as example.com.");
        check(
            "_https._tcp.headless.shop.svc.cluster.local.",
            T::SRV,
            "NoError 0 50 8443 10-244-0-6.headless.shop.svc.cluster.local. 0 50 8443 db-0.headless.shop.svc.cluster.local.",
        );
        check("5.0.244.10.in-addr.arpa.", T::PTR, "NoError db-0.headless.shop.svc.cluster.local.");
        check("dns-version.cluster.local.", T::TXT, "NoError 1.1.0");
        check("kubernetes.default.svc.default.svc.cluster.local.", T::A, "NXDomain");
        check("nothing.default.svc.cluster.local.", T::A, "NXDomain");
        check("default.svc.cluster.local.", T::A, "NoError");
        check("nowhere.svc.cluster.local.", T::A, "NXDomain");
        check("10-244-0-3.default.pod.cluster.local.", T::A, "NoError 10.244.0.3");
        check(
            "_https._tcp.kubernetes.default.svc.cluster.local.",
            T::SRV,
            "NoError 0 100 443 kubernetes.default.svc.cluster.local.",
        );
        check("_http._tcp.kubernetes.default.svc.cluster.local.", T::SRV, "NXDomain");
        check("1.0.96.10.in-addr.arpa.", T::PTR, "NoError kubernetes.default.svc.cluster.local.");
        check("1.2.0.192.in-addr.arpa.", T::PTR, "forward");
        check("example.com.", T::A, "forward");
        check("notcluster.local.", T::A, "forward");
        check("cluster.local.", T::SOA, "NoError");
    }

    #[test]
    fn what_has_no_room_is_said_to_be_more() {
        let mut services = Services::default();
        services.insert(Service { namespace: "shop".into(), name: "many".into(), ..Service::default() });
        let endpoint = |number: u8| Endpoint {
            address: std::net::Ipv4Addr::new(10, 244, 1, number).into(),
            ready: true,
            serves_to_its_end: false,
            hostname: None,
            node: None,
        };
        let (namespace, name, service) = ("shop".into(), "many-1".into(), "many".into());
        let endpoints = (1..=100).map(endpoint).collect();
        services.insert_slice(Slice { namespace, name, service, ports: vec![], endpoints });
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii("many.shop.svc.cluster.local.").unwrap(), RecordType::A));
        let question = question.to_vec().unwrap();
        let ask = |bytes_max| match answer(&question, &services, "cluster.local", bytes_max) {
            Answer::Reply(reply) => {
                assert!(reply.len() <= bytes_max);
                let reply = Message::from_vec(&reply).unwrap();
                (reply.metadata.truncation, reply.answers.len())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(ask(512), (true, 25));
        assert_eq!(ask(65535), (false, 100));
    }

    #[test]
    fn not_a_question() {
        assert_eq!(answer(b"nonsense", &services(), "cluster.local", 512), Answer::Nothing);
        assert_eq!(answer(b"", &services(), "cluster.local", 512), Answer::Nothing);
    }

    #[test]
    fn reads_resolv_conf() {
        let text = "# x\nsearch a b\nnameserver 192.0.2.1\n nameserver ::1\nnameserver x\n";
        assert_eq!(resolvers(text), ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
