//! Says to load balancers whether a service has pods on this node, at the service's `healthCheckNodePort`, in kube-proxy's words.
//! Decides nothing about where connections go.

use super::relay;
use super::rules::Place;
use crate::agent::Shared;
use crate::services::{Service, Services, SharedServices};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Connections of one port at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// How long a question may take to come.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// A service and the port at which it is asked for.
type Asked = (u16, String, String);

/// Keeps the ports open, until it is dropped.
pub async fn serve(shared: &Shared, place: &Place) {
    let mut changes = shared.network.changed.subscribe();
    let mut open: BTreeMap<Asked, AbortOnDropHandle<()>> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let wanted = asked(&shared.services.read());
        let gone: Vec<Asked> = open.keys().filter(|port| !wanted.contains(*port)).cloned().collect();
        for task in gone.iter().filter_map(|port| open.remove(port)) {
            // Another service may want the same port at once.
            task.abort();
            let _ = task.await;
        }
        for port in wanted {
            let answering = || answer_at(port.clone(), shared.services.clone(), place.node.clone());
            open.entry(port.clone()).or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(answering())));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn asked(services: &Services) -> BTreeSet<Asked> {
    let with_port = services.iter().filter(|service| service.local_from_outside && service.health_port != 0);
    with_port.map(|service| (service.health_port, service.namespace.clone(), service.name.clone())).collect()
}

async fn answer_at((port, namespace, name): Asked, services: Arc<SharedServices>, node: String) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "the health check port {port} of service {namespace}/{name} cannot be opened");
            return;
        }
    };
    let answer = move || {
        let services = services.read();
        let count = services.get(&namespace, &name).map_or(0, |service| ready_here(&services, service, &node));
        health(&namespace, &name, count)
    };
    let answer = Arc::new(answer);
    relay::each_connection(listener, CONNECTIONS_MAX, move |stream| connection(stream, answer.clone())).await;
}

async fn connection(stream: TcpStream, answer: Arc<impl Fn() -> Response<Full<Bytes>>>) {
    let service = service_fn(|_: Request<Incoming>| std::future::ready(Ok::<_, Infallible>(answer())));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// How many pods of this node are ready to serve.
fn ready_here(services: &Services, service: &Service, node: &str) -> usize {
    let all = services.slices_of(service).flat_map(|slice| &slice.endpoints);
    let here = all.filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
    here.map(|endpoint| endpoint.address).collect::<BTreeSet<_>>().len()
}

fn health(namespace: &str, name: &str, count: usize) -> Response<Full<Bytes>> {
    let [namespace, name] = [namespace, name].map(|text| Value::from(text).to_string());
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace},\n\t\t\"name\": {name}\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    let status = if count > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert("X-Load-Balancing-Endpoint-Weight", header::HeaderValue::from(count));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{Endpoint, Slice};

    #[test]
    fn pods_of_this_node_that_are_ready_count_once() {
        let mut services = Services::default();
        let service = Service { namespace: "shop".into(), name: "web".into(), ..Service::default() };
        let endpoint = |address: &str, ready, node: &str| Endpoint {
            address: address.parse().unwrap(),
            ready,
            serves_to_its_end: !ready,
            hostname: None,
            node: Some(node.into()),
        };
        let all = [("10.244.0.2", true, "n1"), ("10.244.0.3", false, "n1"), ("10.244.0.4", true, "n2")];
        for name in ["web-1", "web-2"] {
            services.insert_slice(Slice {
                namespace: "shop".into(),
                name: name.into(),
                service: "web".into(),
                ports: Vec::new(),
                endpoints: all.map(|(address, ready, node)| endpoint(address, ready, node)).into(),
            });
        }
        assert_eq!(["n1", "n2", "n3"].map(|node| ready_here(&services, &service, node)), [1, 1, 0]);
        assert_eq!([0, 2].map(|count| health("shop", "web", count).status().as_u16()), [503, 200]);
    }
}
