//! Gets a small JSON document over HTTPS: an issuer's discovery document, its keys. Bounded in bytes and time; follows no
//! redirect, sends no credential, keeps no connection.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use kemudi_client::config::{Ca, Pem, Server};
use kemudi_client::{Config, Https, Transport};
use serde_json::Value;

/// From the first packet to the last byte.
const FETCH_TIME_MAX: Duration = Duration::from_secs(30);
/// The largest document that is read.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The JSON at a URL. `ca` is PEM; the machine's own certificates count where there is none.
///
/// # Errors
/// What went wrong on the way.
pub async fn json(url: &str, ca: Option<&str>) -> Result<Value, String> {
    let fetched = tokio::time::timeout(FETCH_TIME_MAX, get(url, ca)).await;
    fetched
        .unwrap_or_else(|_| Err(format!("no answer in {} s", FETCH_TIME_MAX.as_secs())))
        .map_err(|why| format!("Get {}: {why}", api::go::quote(url)))
}

async fn get(url: &str, ca: Option<&str>) -> Result<Value, String> {
    // The client's texts end with hints about API servers, on lines of their own.
    let plain = |why: &dyn std::fmt::Display| why.to_string().lines().next().unwrap_or_default().to_string();
    let (https, path) = transport(url, ca, |why| plain(why))?;
    let request = Request::get(path).header(header::ACCEPT, "application/json").body(Bytes::new());
    let answer = https.send(request.map_err(|why| why.to_string())?).await.map_err(|why| plain(&why))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), DOCUMENT_BYTES_MAX).collect().await.map_err(|why| plain(&why))?;
    if status != http::StatusCode::OK {
        return Err(format!("the answer is {status}"));
    }
    serde_json::from_slice(&body.to_bytes()).map_err(|why| format!("the answer is not JSON: {why}"))
}

/// What reaches the host of a URL, and the path to ask for there.
fn transport(
    url: &str,
    ca: Option<&str>,
    plain: impl Fn(&dyn std::fmt::Display) -> String,
) -> Result<(Https, String), String> {
    let rest = url.strip_prefix("https://").ok_or("only https:// is fetched")?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let config = Config {
        ca: ca.map_or(Ca::System, |pem| Ca::Of(Pem::Inline(pem.as_bytes().to_vec()))),
        source: "the issuer's configuration".into(),
        ..Config::new(Server::parse(&format!("https://{host}")).map_err(|why| plain(&why))?)
    };
    let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
    Ok((Https::new(config).map_err(|why| plain(&why))?, path))
}
