//! An app that gathers the control plane's metrics: the requests that the API server answered, by verb and code. Reads one
//! path and no objects.
//!
//! ```text
//! kemudi run --role examples/metrics-role.yaml -- target/debug/examples/metrics
//! ```

use std::collections::BTreeMap;

use http::Method;
use kemudi_client::client::request;
use kemudi_client::{Client, Result};

const FAMILY: &str = "apiserver_request_total";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let client = Client::try_default().await?;
    // Any path can be asked for, not only resources. This one answers in Prometheus' text form.
    let text = client.bytes(request(Method::GET, "/metrics", None)?).await?;
    for ((verb, code), count) in totals(&String::from_utf8_lossy(&text)) {
        println!("{verb:<18}{code:<6}{count}");
    }
    Ok(())
}

/// The requests by verb and code, whatever other labels the server keeps apart.
fn totals(text: &str) -> BTreeMap<(&str, &str), u64> {
    let mut totals = BTreeMap::new();
    for line in text.lines() {
        let Some((labels, value)) = line.strip_prefix(FAMILY).and_then(|rest| rest.split_once("} ")) else { continue };
        // Prometheus' numbers are floating, and counts are whole.
        let Ok(value) = value.trim().parse::<f64>() else { continue };
        *totals.entry((label(labels, "verb"), label(labels, "code"))).or_default() += value as u64;
    }
    totals
}

fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let mut parts = labels.trim_start_matches('{').split("\",");
    parts.find_map(|part| part.strip_prefix(name)?.strip_prefix("=\"")).unwrap_or("").trim_end_matches('"')
}
