//! Keeps the ConfigMap `extension-apiserver-authentication` of kube-system: what API servers behind this one need to know to
//! trust clients and front proxies as it does. Driven by the watch of ConfigMaps and by changes of the certificates. Adds to what others wrote there, as
//! replicas do, and takes away only certificates that have expired.

use std::sync::Arc;
use std::time::Duration;

use api::{meta, pem};
use http::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::as_controller::{self, Sender};
use crate::authn::front_proxy;
use crate::bootstrap_objects::{USER_AGENT, api_server};
use crate::lookup::Lookup;
use crate::state::State;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// An authority is named a little longer than it counts.
const EXPIRED_SECONDS: i64 = 5 * 60;
/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Keeps it until the server stops.
pub async fn run(state: Arc<State>) {
    let Some(kind) = state.registry.load().preferred("", "configmaps").cloned() else { return };
    let Ok(collection) = state.collection(&kind) else { return };
    let mut changes = collection.subscribe();
    let mut certificates = state.pki.subscribe();
    loop {
        // What changes from here on wakes the loop, what changed before is looked at now.
        changes.mark_unchanged();
        let pause = match put(&state).await {
            true => Duration::MAX,
            false => RETRY_PAUSE,
        };
        tokio::select! {
            () = state.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = changes.changed() => if changed.is_err() { return },
            changed = certificates.changed() => if changed.is_err() { return },
        }
    }
}

/// Makes it what it should be. Answers whether that went well.
async fn put(state: &Arc<State>) -> bool {
    let ours = state.pki.certificates().clone();
    let own = Trust {
        clients: ours.client_authorities(),
        proxies: ours.proxy_authorities(),
        options: &state.options.authn.front_proxy,
    };
    let now = jiff::Timestamp::now().as_second();
    let present = state.get("", "configmaps", NAMESPACE, NAME);
    let held = present.as_ref().and_then(|present| present["data"].as_object()).cloned().unwrap_or_default();
    let data = own.with(&held, now);
    if present.is_some() && data == held {
        return true;
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let (method, path, object) = match present {
        None => {
            let metadata = json!({"name": NAME, "namespace": NAMESPACE});
            (Method::POST, path, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}))
        }
        Some(present) => {
            let mut object = (*present).clone();
            object["apiVersion"] = json!("v1");
            object["kind"] = json!("ConfigMap");
            object["data"] = Value::Object(data);
            (Method::PUT, format!("{path}/{}", meta::name(&present)), object)
        }
    };
    let sender = Sender { user: api_server(), agent: USER_AGENT };
    let answered = as_controller::send(state, sender, method, &path, "application/json", &object).await;
    if answered.is_server_error() {
        tracing::warn!(code = answered.as_u16(), "{NAME} could not be written");
    }
    // Whoever was faster is heard of anyway.
    !answered.is_server_error()
}

/// What this server trusts.
struct Trust<'a> {
    clients: &'a [CertificateDer<'static>],
    proxies: &'a [CertificateDer<'static>],
    options: &'a front_proxy::Options,
}

impl Trust<'_> {
    /// The data of the ConfigMap: this server's beside what it holds.
    fn with(&self, held: &Map<String, Value>, now: i64) -> Map<String, Value> {
        let mut data = Map::new();
        let text = |key: &str| held.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut put = |key: &str, value: String| drop(data.insert(key.into(), json!(value)));
        let clients = certificates(text("client-ca-file"), self.clients, now);
        if !clients.is_empty() {
            put("client-ca-file", clients);
        }
        let proxies = certificates(text("requestheader-client-ca-file"), self.proxies, now);
        if !proxies.is_empty() {
            let options = self.options;
            for (key, own) in [
                ("requestheader-username-headers", &options.username_headers),
                ("requestheader-uid-headers", &options.uid_headers),
                ("requestheader-group-headers", &options.group_headers),
                ("requestheader-extra-headers-prefix", &options.extra_header_prefixes),
                ("requestheader-allowed-names", &options.allowed_names),
            ] {
                put(key, names(text(key), own));
            }
            put("requestheader-client-ca-file", proxies);
        }
        // In the order of their keys, as they are read.
        data.sort_keys();
        data
    }
}

/// PEM of the certificates held and one's own, each once, without those that have expired.
fn certificates(held: &str, own: &[CertificateDer<'static>], now: i64) -> String {
    let mut once: Vec<CertificateDer<'_>> = Vec::new();
    let held = CertificateDer::pem_slice_iter(held.as_bytes()).filter_map(Result::ok);
    for der in held.chain(own.iter().cloned()) {
        let counts = X509Certificate::from_der(&der)
            .is_ok_and(|(_, parsed)| parsed.validity().not_after.timestamp() > now - EXPIRED_SECONDS);
        if counts && !once.contains(&der) {
            once.push(der);
        }
    }
    once.iter().map(|der| pem::write("CERTIFICATE", der)).collect()
}

/// A JSON list of the names held and one's own, each once.
fn names(held: &str, own: &[String]) -> String {
    let mut once: Vec<String> = Vec::new();
    for name in serde_json::from_str::<Vec<String>>(held).unwrap_or_default().into_iter().chain(own.iter().cloned()) {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    json!(once).to_string()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn certificate(last_year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// The keys of the data, with the lists, and how many certificates each of the files has.
    #[track_caller]
    fn check(trust: &Trust<'_>, held: &Map<String, Value>, want: &str) -> Map<String, Value> {
        let data = trust.with(held, NOW);
        let short = |(key, value): (&String, &Value)| {
            let value = value.as_str().unwrap();
            let certificates = value.matches("BEGIN CERTIFICATE").count();
            if certificates > 0 { format!("{key}={certificates}") } else { format!("{key}={value}") }
        };
        assert_eq!(data.iter().map(short).collect::<Vec<_>>().join(" "), want);
        data
    }

    #[test]
    fn what_is_there_stays_and_ones_own_is_added() {
        let (own, other, late) = ([certificate(2030)], [certificate(2030)], [certificate(2020)]);
        let plain = front_proxy::Options::default();
        let options = front_proxy::Options {
            username_headers: vec!["X-Remote-User".into()],
            allowed_names: vec!["front-proxy-client".into()],
            ..plain.clone()
        };
        let trust = Trust { clients: &own, proxies: &[], options: &plain };
        let data = check(&trust, &Map::new(), "client-ca-file=1");
        check(&trust, &data, "client-ca-file=1");
        let with_proxies = Trust { clients: &other, proxies: &own, options: &options };
        let data = check(
            &with_proxies,
            &data,
            "client-ca-file=2 requestheader-allowed-names=[\"front-proxy-client\"] requestheader-client-ca-file=1 \
             requestheader-extra-headers-prefix=[] requestheader-group-headers=[] requestheader-uid-headers=[] \
             requestheader-username-headers=[\"X-Remote-User\"]",
        );
        assert_eq!(with_proxies.with(&data, NOW), data, "it stays as it is");
        check(&Trust { clients: &late, proxies: &late, options: &options }, &Map::new(), "");
    }
}
