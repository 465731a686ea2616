//! The cluster's DNS, served inside each pod on the sockets its init has opened: services by name and by address from the
//! agent's own index, everything else from the host's resolvers. `answer` is pure; the loops around it only carry.

use crate::services::{Service, Services};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{RwLock, Semaphore};
use tokio::task::JoinSet;

/// How long an answer may be kept, in seconds.
const TTL_SECONDS: u32 = 30;
/// The largest message taken over UDP, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
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
    pub services: Arc<RwLock<Services>>,
    /// `cluster.local`
    pub domain: String,
    /// The host's resolvers.
    pub resolvers: Vec<SocketAddr>,
}

/// What to do with a question.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Reply(Vec<u8>),
    /// It is not about the cluster: ask the host's resolvers.
    Forward,
    /// It is no question.
    Nothing,
}

/// Answers one question from the index.
pub fn answer(question: &[u8], services: &Services, domain: &str) -> Answer {
    let Ok(message) = Message::from_vec(question) else { return Answer::Nothing };
    if message.metadata.message_type != MessageType::Query {
        return Answer::Nothing;
    }
    let [query] = message.queries.as_slice() else { return reply(&message, ResponseCode::FormErr, Vec::new(), domain) };
    if message.metadata.op_code != OpCode::Query {
        return reply(&message, ResponseCode::NotImp, Vec::new(), domain);
    }
    match find(query, services, domain) {
        Found::Elsewhere => Answer::Forward,
        Found::No => reply(&message, ResponseCode::NXDomain, Vec::new(), domain),
        Found::Records(data) => {
            let record = |data: RData| Record::from_rdata(query.name().clone(), TTL_SECONDS, data);
            reply(&message, ResponseCode::NoError, data.into_iter().map(record).collect(), domain)
        }
    }
}

enum Found {
    /// The name exists; perhaps not with records of the asked type.
    Records(Vec<RData>),
    No,
    Elsewhere,
}

fn find(query: &Query, services: &Services, domain: &str) -> Found {
    let kind = query.query_type();
    let name = query.name().to_ascii().to_lowercase();
    let name = name.trim_end_matches('.');
    if name.ends_with(".arpa") {
        let address = query.name().parse_arpa_name().ok().map(|net| net.addr());
        let Some(service) = address.and_then(|address| services.at(address)) else { return Found::Elsewhere };
        let target = format!("{}.{}.svc.{domain}.", service.name, service.namespace);
        return Found::Records(only(
            kind,
            RecordType::PTR,
            Name::from_ascii(target).ok().map(|name| RData::PTR(PTR(name))),
        ));
    }
    let inner = match name.strip_suffix(domain) {
        Some("") => return Found::Records(Vec::new()),
        Some(inner) if inner.ends_with('.') => inner.trim_end_matches('.'),
        _ => return Found::Elsewhere,
    };
    let labels: Vec<&str> = inner.split('.').collect();
    match labels.as_slice() {
        ["svc"] => Found::Records(Vec::new()),
        [namespace, "svc"] if services.has_namespace(namespace) => Found::Records(Vec::new()),
        [service, namespace, "svc"] => match services.get(namespace, service) {
            Some(service) => Found::Records(addresses(service, kind)),
            None => Found::No,
        },
        [port, protocol, service, namespace, "svc"] => match services.get(namespace, service) {
            Some(found) => ports(found, port, protocol, kind, domain),
            None => Found::No,
        },
        [address, _, "pod"] => match address.replace('-', ".").parse::<Ipv4Addr>() {
            Ok(address) => Found::Records(only(kind, RecordType::A, Some(RData::A(A(address))))),
            Err(_) => Found::No,
        },
        _ => Found::No,
    }
}

fn only(asked: RecordType, kind: RecordType, data: Option<RData>) -> Vec<RData> {
    data.into_iter().filter(|_| asked == kind || asked == RecordType::ANY).collect()
}

fn addresses(service: &Service, kind: RecordType) -> Vec<RData> {
    if let Some(other) = &service.external_name {
        let target = Name::from_ascii(format!("{}.", other.trim_end_matches('.'))).ok();
        return target.into_iter().map(|name| RData::CNAME(CNAME(name))).collect();
    }
    let data = service.addresses.iter().flat_map(|address| match address {
        IpAddr::V4(v4) => only(kind, RecordType::A, Some(RData::A(A(*v4)))),
        IpAddr::V6(v6) => only(kind, RecordType::AAAA, Some(RData::AAAA(AAAA(*v6)))),
    });
    data.collect()
}

fn ports(service: &Service, port: &str, protocol: &str, kind: RecordType, domain: &str) -> Found {
    let is = |label: &str, word: &str| label.strip_prefix('_').is_some_and(|label| label.eq_ignore_ascii_case(word));
    let found = service.ports.iter().find(|known| is(port, &known.name) && is(protocol, &known.protocol));
    let Some(found) = found else { return Found::No };
    let target = Name::from_ascii(format!("{}.{}.svc.{domain}.", service.name, service.namespace)).ok();
    Found::Records(only(kind, RecordType::SRV, target.map(|name| RData::SRV(SRV::new(0, 100, found.port, name)))))
}

fn reply(question: &Message, code: ResponseCode, answers: Vec<Record>, domain: &str) -> Answer {
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
    if question.edns.is_some() {
        message.set_edns(Edns::new());
    }
    message.to_vec().map_or(Answer::Nothing, Answer::Reply)
}

fn zone(domain: &str) -> Option<Record> {
    let name = |prefix: &str| Name::from_ascii(format!("{prefix}{domain}.")).ok();
    let soa = SOA::new(name("ns.dns.")?, name("hostmaster.")?, 1, 7200, 1800, 86400, TTL_SECONDS);
    Some(Record::from_rdata(name("")?, TTL_SECONDS, RData::SOA(soa)))
}

impl Dns {
    /// The answer, wherever it comes from; `None` for what is no question.
    async fn resolve(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        match answer(question, &*self.services.read().await, &self.domain) {
            Answer::Reply(reply) => return Some(reply),
            Answer::Nothing => return None,
            Answer::Forward => {}
        }
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

/// Serves a pod's UDP socket until it is dropped.
pub async fn serve_udp(dns: Arc<Dns>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut forwards = JoinSet::new();
    let mut question = vec![0; MESSAGE_BYTES_MAX];
    loop {
        while forwards.try_join_next().is_some() {}
        let Ok((count, from)) = socket.recv_from(&mut question).await else { continue };
        let question = &question[..count];
        match answer(question, &*dns.services.read().await, &dns.domain) {
            Answer::Nothing => {}
            Answer::Reply(reply) => drop(socket.send_to(&reply, from).await),
            Answer::Forward => {
                if forwards.len() >= FORWARDS_MAX {
                    forwards.join_next().await;
                }
                let (dns, socket, question) = (dns.clone(), socket.clone(), question.to_vec());
                forwards.spawn(async move {
                    if let Some(reply) = dns.resolve(&question, false).await {
                        let _ = socket.send_to(&reply, from).await;
                    }
                });
            }
        }
    }
}

/// Serves a pod's TCP socket until it is dropped.
pub async fn serve_tcp(dns: Arc<Dns>, listener: TcpListener) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let dns = dns.clone();
        connections.spawn(async move {
            let _seat = seat;
            while let Ok(Ok(question)) = tokio::time::timeout(IDLE_MAX, read_framed(&mut stream)).await {
                let Some(reply) = dns.resolve(&question, true).await else { return };
                if write_framed(&mut stream, &reply).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The resolvers that a `resolv.conf` names.
pub fn resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    let words = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    words.filter_map(|address| Some(SocketAddr::new(address.trim().parse().ok()?, 53))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Port;

    fn services() -> Services {
        let mut services = Services::default();
        let port = |name: &str, port| Port { name: name.into(), protocol: "TCP".into(), port };
        let service = |namespace: &str, name: &str, addresses: &[&str]| Service {
            namespace: namespace.into(),
            name: name.into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            external_name: None,
            ports: vec![port("https", 443)],
        };
        services.insert(service("default", "kubernetes", &["10.96.0.1"]));
        services.insert(service("shop", "dual", &["10.96.0.7", "fd00::7"]));
        services.insert(service("shop", "headless", &[]));
        services.insert(Service { external_name: Some("example.com".into()), ..service("shop", "other", &[]) });
        services
    }

    fn check(name: &str, kind: RecordType, expected: &str) {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let text = match answer(&question.to_vec().unwrap(), &services(), "cluster.local") {
            Answer::Forward => "forward".into(),
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
        check("headless.shop.svc.cluster.local.", T::A, "NoError");
        check("other.shop.svc.cluster.local.", T::A, "NoError example.com.");
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
    fn not_a_question() {
        assert_eq!(answer(b"nonsense", &services(), "cluster.local"), Answer::Nothing);
        assert_eq!(answer(b"", &services(), "cluster.local"), Answer::Nothing);
    }

    #[test]
    fn reads_resolv_conf() {
        let text = "# x\nsearch a b\nnameserver 192.0.2.1\n nameserver ::1\nnameserver x\n";
        assert_eq!(resolvers(text), ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
