//! `kemudi raw`: a request as it is, to any path; the answer's body as it is.

use std::io::Read;

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use kemudi_client::client::request;

use crate::{Failure, Global, Outcome, print};

/// Largest body that is read from stdin or a file, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 20;

#[derive(Args, Debug)]
pub struct Raw {
    /// Path with its query: /api/v1/namespaces/default/pods
    path: String,
    /// HTTP method [default: GET, POST where there is a body]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// Body; @FILE reads it from a file, @- from stdin
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
    /// Header, may be repeated: 'Accept: application/yaml'
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Show the answer's status and headers on stderr
    #[arg(short, long)]
    include: bool,
}

impl Raw {
    pub async fn run(self, global: &Global) -> Outcome {
        let body = self.data.as_deref().map(read_body).transpose()?;
        let method = match (&self.method, &body) {
            (Some(method), _) => Method::from_bytes(method.to_uppercase().as_bytes())
                .map_err(|_| Failure::new(format!("{method:?} is no HTTP method")))?,
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        };
        if !self.path.starts_with('/') {
            return Err(Failure::new(format!("{:?} is no path: it must start with /", self.path)).hint(format!(
                "{} raw /{}",
                crate::program(),
                self.path
            )));
        }
        let mut request = request(method, &self.path, body)?;
        for header in &self.header {
            let (name, value) = header_of(header)?;
            request.headers_mut().insert(name, value);
        }
        let client = global.client()?;
        // The answer is told as it is; only its status decides about the exit code.
        let response = client.send(request).await?;
        if self.include {
            eprintln!("{:?} {}", response.version(), response.status());
            for (name, value) in response.headers() {
                eprintln!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
            }
        }
        let failed = response.status().as_u16() >= 400;
        let mut body = response.into_body();
        let mut last = None;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                last = data.last().copied().or(last);
                print(data)?;
            }
        }
        if last.is_some_and(|byte| byte != b'\n') {
            print("\n")?;
        }
        if failed { Err(Failure::silent(1)) } else { Ok(()) }
    }
}

fn read_body(data: &str) -> Outcome<Bytes> {
    let Some(path) = data.strip_prefix('@') else { return Ok(data.to_string().into()) };
    let mut bytes = Vec::new();
    let read = match path {
        "-" => std::io::stdin().take(BODY_BYTES_MAX).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(BODY_BYTES_MAX).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::new(format!("cannot read {path}: {error}")))?;
    Ok(bytes.into())
}

fn header_of(text: &str) -> Outcome<(HeaderName, HeaderValue)> {
    let parse = || {
        let (name, value) = text.split_once(':')?;
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    };
    parse().ok_or_else(|| Failure::new(format!("{text:?} is no header; write it like 'Accept: application/yaml'")))
}
