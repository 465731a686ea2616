//! A small HTTPS server in the test's own process, for servers under test to call: an issuer, a webhook.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// No client here is slower.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Answers requests until it is dropped.
pub struct Https {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The file of the authority of its certificate.
    pub ca: PathBuf,
    asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Https {
    /// `answer` makes code and body out of a path and a body.
    pub fn start(answer: impl Fn(&str, &str) -> (u16, String) + Send + 'static) -> Https {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let authority = Issuer::from_ca_cert_der(ca.der(), key).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, ca.pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (asked, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end, tls) = (asked.clone(), ended.clone(), Arc::new(tls));
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                // Counted before it is answered: who has an answer finds it counted.
                let counted = |path: &str, body: &str| {
                    count.fetch_add(1, Ordering::SeqCst);
                    answer(path, body)
                };
                // Who breaks off is not this server's trouble.
                let _ = serve(stream, tls.clone(), &counted);
            }
        });
        Https { url, ca: path, asked, ended, serving: Some(serving), _folder: folder }
    }

    /// How many requests it was sent.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("https://"));
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// One request and its answer.
fn serve(tcp: TcpStream, tls: Arc<ServerConfig>, answer: &impl Fn(&str, &str) -> (u16, String)) -> Option<()> {
    tcp.set_read_timeout(Some(READ_LIMIT)).ok()?;
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(tls).ok()?, tcp));
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_ascii_lowercase()),
        }
    }
    let path = lines.first()?.split(' ').nth(1)?.to_string();
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap_or(0))];
    stream.read_exact(&mut body).ok()?;
    let (code, text) = answer(&path, &String::from_utf8_lossy(&body));
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {code} X\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let stream = stream.get_mut();
    stream.write_all(format!("{head}{text}").as_bytes()).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}
