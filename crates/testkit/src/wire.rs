//! HTTP/1.1 over TLS, blocking and byte for byte: tests must be able to send what a proper client library refuses to
//! send, and to see exactly what came back. Never retries, follows no redirect, keeps no pool.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// The longest status or header line that is read.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The largest body that is kept in memory.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// A server and the certificate authority it must prove itself with.
#[derive(Clone)]
pub struct Endpoint {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Endpoint {
    /// `url` is `https://HOST:PORT`, `ca` a PEM file. Fails where either cannot be read.
    pub fn new(url: &str, ca: &Path) -> io::Result<Endpoint> {
        Endpoint::of(url, ca, None)
    }

    /// The same for a client that shows a certificate. It and its key are PEM.
    pub fn with_certificate(url: &str, ca: &Path, certificate: &str, key: &str) -> io::Result<Endpoint> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().map_err(bad)?;
        Endpoint::of(url, ca, Some((chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(bad)?)))
    }

    fn of(
        url: &str,
        ca: &Path,
        shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> io::Result<Endpoint> {
        let authority = url.strip_prefix("https://").ok_or_else(|| bad(format!("{url}: wanted https://HOST:PORT")))?;
        let authority = authority.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
        let host = host.trim_matches(['[', ']']);
        let port = port.parse().map_err(|_| bad(format!("{url}: bad port")))?;
        let address = (host, port).to_socket_addrs()?.next().ok_or_else(|| bad(format!("{host}: no address")))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(bad)? {
            roots.add(certificate.map_err(bad)?).map_err(bad)?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots);
        let tls = match shown {
            Some((chain, key)) => tls.with_client_auth_cert(chain, key).map_err(bad)?,
            None => tls.with_no_client_auth(),
        };
        let name = ServerName::try_from(host.to_owned()).map_err(bad)?;
        Ok(Endpoint { address, name, tls: Arc::new(tls) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection on which every single read and write fails after `timeout`.
    pub fn connect(&self, timeout: Duration) -> io::Result<Connection> {
        let (tcp, session) = self.session(&[], timeout)?;
        Ok(Connection { stream: BufReader::new(StreamOwned::new(session, tcp)), open: true })
    }

    /// A connection before its handshake, for these protocols.
    pub(crate) fn session(&self, protocols: &[&str], timeout: Duration) -> io::Result<(TcpStream, ClientConnection)> {
        let tcp = TcpStream::connect_timeout(&self.address, timeout)?;
        tcp.set_read_timeout(Some(timeout))?;
        tcp.set_write_timeout(Some(timeout))?;
        tcp.set_nodelay(true)?;
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let session = ClientConnection::new_with_alpn(self.tls.clone(), self.name.clone(), protocols).map_err(bad)?;
        Ok((tcp, session))
    }
}

/// A request as it goes on the wire: headers in this order, nothing added but `content-length` where there is a body
/// and the headers do not say otherwise.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// The request target, already escaped.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// The bytes that are sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            // One byte a character, as headers are read: a value may hold any byte.
            out.extend(format!("{name}: {value}\r\n").chars().map(|c| u8::try_from(c).unwrap_or(b'?')));
        }
        let framed = |n: &str| n.eq_ignore_ascii_case("content-length") || n.eq_ignore_ascii_case("transfer-encoding");
        if let Some(body) = &self.body
            && !self.headers.iter().any(|(name, _)| framed(name))
        {
            out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.body.as_deref().unwrap_or_default());
        out
    }
}

/// The status line and the headers of an answer, names in lower case.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// HTTP/1.0 closes after the answer.
    http10: bool,
}

impl Head {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

/// One connection. After an error, or an answer that closes, it is of no further use: see [`Connection::is_open`].
pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    open: bool,
}

impl Connection {
    /// Sends a request and reads its whole answer.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Answer> {
        self.write(&request.encode())?;
        let head = self.head()?;
        let mut body = Vec::new();
        self.body(&head, request.method == "HEAD").take(BODY_BYTES_MAX).read_to_end(&mut body)?;
        Ok(Answer { head, body })
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, raw: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(raw)?;
        stream.flush()
    }

    /// Reads the head of the next answer; `100 Continue` is passed over.
    pub fn head(&mut self) -> io::Result<Head> {
        loop {
            let head = self.one_head()?;
            if head.status != 100 {
                if head.http10 || head.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
                    self.open = false;
                }
                return Ok(head);
            }
        }
    }

    /// The body that belongs to a head just read, as a stream.
    pub fn body(&mut self, head: &Head, to_head: bool) -> Body<'_> {
        let chunked = head.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let length = head.header("content-length").and_then(|v| v.parse().ok());
        let framing = match (head.status, chunked, length) {
            _ if to_head => Framing::Length(0),
            (100..200 | 204 | 304, ..) => Framing::Length(0),
            (_, true, _) => Framing::Chunk { left: 0, first: true },
            (_, false, Some(length)) => Framing::Length(length),
            (_, false, None) => Framing::UntilClose,
        };
        if matches!(framing, Framing::UntilClose) {
            self.open = false;
        }
        Body { stream: &mut self.stream, framing }
    }

    /// What comes after the head of an answer that made the connection another protocol's.
    pub fn upgraded(&mut self) -> &mut impl Read {
        self.open = false;
        &mut self.stream
    }

    /// Whether another request may follow.
    pub fn is_open(&self) -> bool {
        self.open
    }

    fn one_head(&mut self) -> io::Result<Head> {
        let first = line(&mut self.stream)?;
        let mut words = first.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|s| s.parse().ok());
        let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
            return Err(bad(format!("not a status line: {first:?}")));
        };
        let mut headers = Vec::new();
        loop {
            let next = line(&mut self.stream)?;
            if next.is_empty() {
                return Ok(Head { status, headers, http10: version == "HTTP/1.0" });
            }
            let (name, value) = next.split_once(':').ok_or_else(|| bad(format!("not a header: {next:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

/// A body that is being read.
pub struct Body<'a> {
    stream: &'a mut BufReader<StreamOwned<ClientConnection, TcpStream>>,
    framing: Framing,
}

enum Framing {
    Length(u64),
    Chunk { left: u64, first: bool },
    UntilClose,
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Framing::Chunk { left: 0, first } = self.framing {
            if !first && !line(self.stream)?.is_empty() {
                return Err(bad("a chunk that is longer than it says"));
            }
            let size = line(self.stream)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let left = u64::from_str_radix(size, 16).map_err(|_| bad(format!("not a chunk size: {size:?}")))?;
            self.framing = Framing::Chunk { left, first: false };
            if left == 0 {
                while !line(self.stream)?.is_empty() {}
                self.framing = Framing::Length(0);
            }
        }
        match &mut self.framing {
            Framing::Length(0) => Ok(0),
            Framing::Length(left) | Framing::Chunk { left, .. } => {
                let room = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let n = self.stream.read(&mut out[..room])?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= n as u64;
                Ok(n)
            }
            Framing::UntilClose => match self.stream.read(out) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
        }
    }
}

/// One line without its end.
fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut raw = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut raw)?;
    if raw.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if raw.last() == Some(&b'\r') {
        raw.pop();
    }
    Ok(raw.iter().map(|&byte| byte as char).collect())
}

fn bad(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
