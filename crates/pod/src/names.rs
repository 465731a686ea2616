//! Addresses of names without the C library's plugins, which a static program has not: `/etc/hosts`, then the servers of
//! `/etc/resolv.conf`, as a container's files say. Keeps nothing: a command asks once.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use kemudi_client::config::Names;
use resolv_conf::{Config, ScopedIp};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const PORT: u16 = 53;
/// Servers that are asked, as the C library does.
const SERVERS_MAX: usize = 3;
/// Names that are tried for one that was typed.
const SEARCHED_MAX: usize = 8;
/// Times that all servers are asked.
const ATTEMPTS_MAX: u32 = 5;
/// Longest wait for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest answer over UDP, in bytes; a longer one is cut, and asked for over TCP.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// Finds names as this container's files say.
pub fn of_files() -> Names {
    Names::by(|name| {
        let name = name.to_string();
        Box::pin(async move {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let own = listed(&read("/etc/hosts"), &name);
            match own.is_empty() {
                true => asked(&name, &resolvers(&read("/etc/resolv.conf"))).await,
                false => Ok(own),
            }
        })
    })
}

/// Who is asked, and how.
struct Resolvers {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is looked for in `search` first.
    dots: usize,
    patience: Duration,
    attempts: u32,
}

fn resolvers(text: &str) -> Resolvers {
    let config = Config::parse(text).unwrap_or_default();
    let mut servers: Vec<_> = config.nameservers.iter().map(|ip| (address(ip), PORT).into()).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers.truncate(SERVERS_MAX);
    Resolvers {
        servers,
        search: config.get_last_search_or_domain().cloned().collect(),
        dots: config.ndots as usize,
        patience: Duration::from_secs(u64::from(config.timeout)).clamp(Duration::from_secs(1), ANSWER_TIME_MAX),
        attempts: config.attempts.clamp(1, ATTEMPTS_MAX),
    }
}

fn address(ip: &ScopedIp) -> IpAddr {
    match ip {
        ScopedIp::V4(ip) => IpAddr::V4(*ip),
        ScopedIp::V6(ip, _) => IpAddr::V6(*ip),
    }
}

/// What a file of hosts says about a name.
fn listed(hosts: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.'))) {
            found.push(address);
        }
    }
    found
}

/// The names to ask for, in the C library's order.
fn candidates(name: &str, resolvers: &Resolvers) -> Vec<String> {
    if let Some(whole) = name.strip_suffix('.') {
        return vec![whole.to_string()];
    }
    let searched =
        resolvers.search.iter().take(SEARCHED_MAX).map(|domain| format!("{name}.{}", domain.trim_matches('.')));
    let mut all: Vec<String> = searched.filter(|name| !name.ends_with('.')).collect();
    let at = if name.matches('.').count() >= resolvers.dots { 0 } else { all.len() };
    all.insert(at, name.to_string());
    all
}

async fn asked(name: &str, resolvers: &Resolvers) -> io::Result<Vec<IpAddr>> {
    let mut why = None;
    for candidate in candidates(name, resolvers) {
        match tokio::join!(of_type(&candidate, TYPE::A, resolvers), of_type(&candidate, TYPE::AAAA, resolvers)) {
            (Ok(mut found), more) if !found.is_empty() || more.as_ref().is_ok_and(|more| !more.is_empty()) => {
                found.extend(more.unwrap_or_default());
                return Ok(found);
            }
            (Err(_), Ok(found)) if !found.is_empty() => return Ok(found),
            // That a name is not known says no server; that none answered is the news where nothing else was found.
            (Err(error), _) | (_, Err(error)) => why = Some(error),
            _ => {}
        }
    }
    Err(why.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("failed to lookup address information: no server knows {name}"))
    }))
}

/// The addresses of a name that the first server to answer knows; none where there is no such name.
async fn of_type(name: &str, kind: TYPE, resolvers: &Resolvers) -> io::Result<Vec<IpAddr>> {
    let id = RandomState::new().hash_one(name) as u16;
    let question = question(id, name, kind)?;
    let mut why = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..resolvers.attempts {
        for server in &resolvers.servers {
            match timeout(resolvers.patience, exchange(*server, id, &question)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => why = error,
                Err(_) => {}
            }
        }
    }
    Err(io::Error::new(why.kind(), format!("failed to lookup address information of {name}: {why}")))
}

fn question(id: u16, name: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let wrong = |error: simple_dns::SimpleDnsError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).map_err(wrong)?, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(wrong)
}

async fn exchange(server: SocketAddr, id: u16, question: &[u8]) -> io::Result<Vec<IpAddr>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match answer(id, &buffer[..len])? {
            Answer::OfAnother => {}
            Answer::Cut => return over_tcp(server, id, question).await,
            Answer::Found(found) => return Ok(found),
        }
    }
}

async fn over_tcp(server: SocketAddr, id: u16, question: &[u8]) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), question].concat()).await?;
    let mut text = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut text).await?;
    match answer(id, &text)? {
        Answer::Found(found) => Ok(found),
        Answer::OfAnother | Answer::Cut => Err(io::Error::other("its answer is none to the question")),
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    /// It is not to this question.
    OfAnother,
    /// There is more than a datagram holds.
    Cut,
    Found(Vec<IpAddr>),
}

fn answer(id: u16, message: &[u8]) -> io::Result<Answer> {
    // Whoever guesses ports may send anything.
    let Ok(packet) = Packet::parse(message) else { return Ok(Answer::OfAnother) };
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return Ok(Answer::OfAnother);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(Answer::Cut);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Answer::Found(Vec::new())),
        other => return Err(io::Error::other(format!("the server answers {other:?}"))),
    }
    let found = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
        RData::AAAA(aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
        _ => None,
    });
    Ok(Answer::Found(found.collect()))
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;

    use super::*;

    const CONFIG: &str = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local .\noptions ndots:5\n";

    #[test]
    fn names_are_searched_for_as_the_c_library_does() {
        let check = |text: &str, name: &str, want: &[&str]| assert_eq!(candidates(name, &resolvers(text)), want);
        let of = |name: &str| {
            vec![format!("{name}.shop.svc.cluster.local"), format!("{name}.svc.cluster.local"), name.into()]
        };
        assert_eq!(candidates("kubernetes.default", &resolvers(CONFIG)), of("kubernetes.default"));
        check(
            CONFIG,
            "a.b.c.d.e.f",
            &["a.b.c.d.e.f", "a.b.c.d.e.f.shop.svc.cluster.local", "a.b.c.d.e.f.svc.cluster.local"],
        );
        check(CONFIG, "example.com.", &["example.com"]);
        check("", "example.com", &["example.com"]);
        assert_eq!(resolvers("").servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(resolvers(CONFIG).servers, ["10.96.0.10:53".parse().unwrap()]);
    }

    #[test]
    fn hosts_are_read() {
        let hosts = "# x\n127.0.0.1 localhost\n::1 localhost ip6\n10.0.0.1\tdb db.shop # web\n";
        let check = |name: &str, want: &[&str]| {
            let want: Vec<IpAddr> = want.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(listed(hosts, name), want, "{name}");
        };
        check("localhost", &["127.0.0.1", "::1"]);
        check("DB.shop.", &["10.0.0.1"]);
        check("web", &[]);
    }

    #[test]
    fn answers_are_read_and_others_passed_over() {
        let mut packet = Packet::new_reply(7);
        let rdata = RData::A(A { address: u32::from(Ipv4Addr::new(10, 96, 0, 1)) });
        packet.answers.push(ResourceRecord::new(Name::new_unchecked("a"), CLASS::IN, 30, rdata));
        let text = packet.build_bytes_vec().unwrap();
        assert_eq!(answer(7, &text).unwrap(), Answer::Found(vec!["10.96.0.1".parse().unwrap()]));
        assert_eq!(answer(8, &text).unwrap(), Answer::OfAnother);
        assert_eq!(answer(7, b"x").unwrap(), Answer::OfAnother);
        packet.set_flags(PacketFlag::TRUNCATION);
        assert_eq!(answer(7, &packet.build_bytes_vec().unwrap()).unwrap(), Answer::Cut);
        let mut refused = Packet::new_reply(7);
        *refused.rcode_mut() = RCODE::ServerFailure;
        assert!(answer(7, &refused.build_bytes_vec().unwrap()).is_err());
    }
}
