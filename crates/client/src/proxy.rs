//! The way through a proxy: which one a configuration asks for, and the words that make it lead on to the server. TLS is
//! spoken with the server behind it, so that a proxy sees who is called and nothing else.

use std::fmt;
use std::io;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::{Config, ConfigCode, ConfigError, Server};

/// Largest head of a proxy's answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// A proxy: `http://[USER:PASSWORD@]HOST[:PORT]` or `socks5://..`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Asked with `CONNECT`.
    Http,
    /// Resolves names itself.
    Socks5,
}

impl Proxy {
    /// The proxy of a URL.
    ///
    /// # Errors
    /// [`ConfigCode::ProxyInvalid`] for other schemes (a proxy that itself speaks TLS, for one) and for what is no URL.
    pub fn parse(url: &str) -> Result<Proxy, ConfigError> {
        let invalid = |why: &str| {
            // A password may be in it.
            let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
            ConfigError::new(ConfigCode::ProxyInvalid, format!("the proxy {shown:?} {why}"))
                .fix("write it like http://proxy.example:3128 or socks5://proxy.example:1080")
        };
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let (kind, port) = match scheme {
            "http" => (Kind::Http, 80),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            "https" => return Err(invalid("wants TLS for itself, which is not supported")),
            _ => return Err(invalid("has a scheme that is neither http nor socks5")),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (login, authority) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((login, authority)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((decoded(user), decoded(password))), authority)
            }
        };
        let explicit = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let server = Server::parse(&format!("https://{authority}")).map_err(|_| invalid("has no host and port"))?;
        let port = if explicit { server.port } else { port };
        Ok(Proxy { kind, host: server.host, port, login })
    }

    /// The proxy that `HTTPS_PROXY` and `NO_PROXY` (or the same in lower case) ask for on the way to this server. As in Go,
    /// the machine itself is never reached through one.
    ///
    /// # Errors
    /// As [`Proxy::parse`].
    pub fn of_environment(env: &dyn Fn(&str) -> Option<String>, server: &Server) -> Result<Option<Proxy>, ConfigError> {
        let either = |upper: &str, lower: &str| env(upper).or_else(|| env(lower)).filter(|value| !value.is_empty());
        let Some(url) = either("HTTPS_PROXY", "https_proxy") else { return Ok(None) };
        let without = either("NO_PROXY", "no_proxy").unwrap_or_default();
        match is_local(&server.host) || without.split(',').any(|entry| covers(entry.trim(), server)) {
            true => Ok(None),
            false => Proxy::parse(&url).map(Some),
        }
    }

    /// A connection that leads to the server.
    pub(crate) async fn connect(&self, config: &Config) -> io::Result<TcpStream> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("through the proxy {self}: {error}"));
        let addresses = config.addresses(&self.host, self.port).await.map_err(named)?;
        let mut stream = TcpStream::connect(addresses.as_slice()).await.map_err(named)?;
        let outcome = match self.kind {
            Kind::Http => self.http(&mut stream, &config.server).await,
            Kind::Socks5 => self.socks5(&mut stream, &config.server).await,
        };
        outcome.map_err(named)?;
        Ok(stream)
    }

    async fn http(&self, stream: &mut TcpStream, server: &Server) -> io::Result<()> {
        let authority = server.authority();
        let mut ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some((user, password)) = &self.login {
            let login = STANDARD.encode(format!("{user}:{password}"));
            ask.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
        }
        stream.write_all(format!("{ask}\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        // A byte at a time: what follows the head is the server's.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= ANSWER_BYTES_MAX {
                return Err(io::Error::other("its answer has no end"));
            }
            head.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_string();
        match line.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => Ok(()),
            _ => Err(io::Error::other(format!("it answers {line:?}"))),
        }
    }

    /// RFC 1928 and 1929.
    async fn socks5(&self, stream: &mut TcpStream, server: &Server) -> io::Result<()> {
        const NO_LOGIN: u8 = 0;
        const LOGIN: u8 = 2;
        let methods: &[u8] = if self.login.is_some() { &[NO_LOGIN, LOGIN] } else { &[NO_LOGIN] };
        stream.write_all(&[&[5, methods.len() as u8], methods].concat()).await?;
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).await?;
        match (chosen, &self.login) {
            ([5, NO_LOGIN], _) => {}
            ([5, LOGIN], Some((user, password))) => {
                let sized = |text: &str| {
                    let len = u8::try_from(text.len()).map_err(|_| io::Error::other("its login is too long"))?;
                    Ok::<_, io::Error>([&[len], text.as_bytes()].concat())
                };
                stream.write_all(&[vec![1], sized(user)?, sized(password)?].concat()).await?;
                let mut answer = [0; 2];
                stream.read_exact(&mut answer).await?;
                if answer[1] != 0 {
                    return Err(io::Error::other("it refuses the login"));
                }
            }
            ([5, _], _) => return Err(io::Error::other("it wants a login of another kind")),
            _ => return Err(io::Error::other("it does not speak SOCKS 5")),
        }
        let address = match server.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => [&[1], ip.octets().as_slice()].concat(),
            Ok(IpAddr::V6(ip)) => [&[4], ip.octets().as_slice()].concat(),
            Err(_) => {
                let len =
                    u8::try_from(server.host.len()).map_err(|_| io::Error::other("the host's name is too long"))?;
                [&[3, len], server.host.as_bytes()].concat()
            }
        };
        stream.write_all(&[&[5, 1, 0], address.as_slice(), &server.port.to_be_bytes()].concat()).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        if answer[1] != 0 {
            return Err(io::Error::other(format!(
                "it cannot reach {} (SOCKS reply {})",
                server.authority(),
                answer[1]
            )));
        }
        // The address that the proxy uses, which nobody needs.
        let len = match answer[3] {
            1 => 4,
            4 => 16,
            _ => usize::from(stream.read_u8().await?),
        };
        stream.read_exact(&mut vec![0; len + 2]).await.map(drop)
    }
}

/// The machine itself.
fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether an entry of `NO_PROXY` is about this server: `*`, an address, a range, a name and what is below it, `.NAME` for
/// what is below it alone; each perhaps with a port.
fn covers(entry: &str, server: &Server) -> bool {
    if entry == "*" {
        return true;
    }
    let ip = server.host.parse::<IpAddr>().ok();
    if let (Some(ip), Some((network, bits))) = (ip, entry.split_once('/')) {
        return network.parse().ok().zip(bits.parse().ok()).is_some_and(|(network, bits)| in_range(ip, network, bits));
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse::<u16>().ok()),
        _ => (entry, None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').to_lowercase();
    if name.is_empty() || port.is_some_and(|port| port != server.port) {
        return false;
    }
    if let Some(ip) = ip {
        return name.parse() == Ok(ip);
    }
    let host = server.host.to_lowercase();
    let name = name.strip_prefix('*').unwrap_or(&name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.strip_suffix(name).is_some_and(|before| before.ends_with('.')),
    }
}

fn in_range(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (ip, network, width) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u128::from(ip.to_bits()), u128::from(network.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    bits <= width && (bits == 0 || (ip ^ network) >> (width - bits) == 0)
}

/// `%41` is `A`.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = || u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok();
        match (first, code()) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
        };
        let server = Server { host: self.host.clone(), port: self.port, base_path: String::new() };
        write!(f, "{scheme}://{}", server.authority())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let check = |url: &str, want: &str| {
            let got = match Proxy::parse(url) {
                Ok(proxy) => format!("{proxy} {:?}", proxy.login),
                Err(error) => error.message,
            };
            assert_eq!(got, want);
        };
        check("http://p.example:3128", "http://p.example:3128 None");
        check("p.example", "http://p.example:80 None");
        check("http://[fd00::1]:3128/", "http://[fd00::1]:3128 None");
        check("socks5://me:a%40b@10.0.0.1", r#"socks5://10.0.0.1:1080 Some(("me", "a@b"))"#);
        check("https://u:secret@p", r#"the proxy "p" wants TLS for itself, which is not supported"#);
        check("ftp://p", r#"the proxy "ftp://p" has a scheme that is neither http nor socks5"#);
        check("http://:1", r#"the proxy "http://:1" has no host and port"#);
    }

    #[test]
    fn some_servers_are_reached_without() {
        let check = |no_proxy: &str, server: &str, through: bool| {
            let env = |name: &str| match name {
                "HTTPS_PROXY" => Some("http://p:1".to_string()),
                "no_proxy" => Some(no_proxy.to_string()),
                _ => None,
            };
            let proxy = Proxy::of_environment(&env, &Server::parse(server).unwrap()).unwrap();
            assert_eq!(proxy.is_some(), through, "{no_proxy} {server}");
        };
        check("", "https://h.example", true);
        check("*", "https://h.example", false);
        check("example", "https://h.example", false);
        check("ample", "https://h.example", true);
        check("a.b, h.example:443", "https://h.example", false);
        check("h.example:444", "https://h.example", true);
        check(".example", "https://example", true);
        check("10.0.0.0/8", "https://10.96.0.1", false);
        check("10.0.0.0/8", "https://11.0.0.1", true);
        check("fd00::/8", "https://[fd00::1]", false);
        check("10.96.0.1", "https://10.96.0.1:6443", false);
        check("", "https://127.0.0.1:6443", false);
        check("", "https://[::1]:6443", false);
    }
}
