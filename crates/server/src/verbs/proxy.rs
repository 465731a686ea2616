//! Requests that are passed on: to a pod, to a pod behind a service, to a node. Here it is found out where they go; the way into a
//! pod is its node's.

use std::io;
use std::sync::Arc;

use api::{Status, go, meta};
use bytes::Bytes;
use http::{HeaderName, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use streams::Io;
use streams::port_forward::{Client as Ports, TUNNEL};
use streams::upgrade::{self, OnUpgrade};
use streams::websocket::{self, Role};
use tokio_util::task::AbortOnDropHandle;

use super::connect::node_api;
use super::{At, body};
use crate::lookup::Lookup;
use crate::node_link::exchange;
use crate::respond::{self, Answer, Body};
use crate::serve::{Cx, RequestBody};

/// What waits on the way to a pod, in bytes and in each direction.
const WAY_BYTES: usize = 64 * 1024;
/// What is the client's with this server alone, and not passed on.
const OWN_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    HeaderName::from_static("keep-alive"),
];

/// Passes a request on to what is named.
pub async fn answer(cx: &Cx<'_>, at: &At<'_>, body: RequestBody) -> Result<Answer, Status> {
    let parts: Vec<&str> = at.target.name.split(':').collect();
    let one = at.kind.singular.as_ref();
    let bad = || Status::bad_request(format!("invalid {one} request {}", go::quote(&at.target.name)));
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme @ ("http" | "https" | ""), name, port] => (*scheme, *name, *port),
        _ => return Err(bad()),
    };
    let key = crate::objects::key(at.namespace(), name);
    let found = cx.state.collection(at.kind)?.get(&key).map(|entry| entry.value());
    let (pod, port) = match (&*at.kind.plural, found) {
        ("services", service) => endpoint(cx, at, service.as_ref(), name, port)?,
        (_, None) => return Err(Status::not_found(at.group_resource(), name)),
        ("nodes", Some(node)) => return to_node(cx, &node, port, body).await,
        (_, Some(pod)) => {
            if meta::text_at(&pod, &["status", "podIP"]).is_empty() {
                return Err(Status::bad_request("address not allowed"));
            }
            let port = match port {
                "" => first_port(&pod),
                number => number.parse().ok(),
            };
            (pod, port.ok_or_else(|| Status::internal(format!("no port of the pod {name} to connect to")))?)
        }
    };
    if scheme == "https" {
        return Err(Status::not_implemented(format!("proxying to a {one} over https")));
    }
    let Some(request) = passed_on(cx, body).await? else { return Ok(slash(cx)) };
    let io = way(cx, &pod, port).await?;
    let response = exchange(io, request, cx.state).await;
    let mut response = response.map_err(|why| {
        let (address, name) = (meta::text_at(&pod, &["status", "podIP"]), meta::name(&pod));
        Status::unavailable(format!("error trying to reach service: dial tcp {address}:{port} (pod {name}): {why}"))
    })?;
    stay_within(cx, response.headers_mut());
    Ok(Answer::Raw(response))
}

/// A node answers for itself.
async fn to_node(cx: &Cx<'_>, node: &Value, port: &str, body: RequestBody) -> Result<Answer, Status> {
    let own = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    if !port.is_empty() && port.parse().ok() != own {
        return Err(Status::not_implemented("proxying to a port of a node that is not its kubelet's"));
    }
    let api = node_api(cx, meta::name(node))?;
    let Some(mut request) = passed_on(cx, body).await? else { return Ok(slash(cx)) };
    request.headers_mut().remove(header::AUTHORIZATION);
    let mut response = api.call(request).await;
    if response.status() == StatusCode::BAD_GATEWAY {
        let text = response.into_body().collect().await.map_err(Status::internal)?.to_bytes();
        return Err(Status::unavailable(String::from_utf8_lossy(&text).into_owned()));
    }
    stay_within(cx, response.headers_mut());
    Ok(Answer::Raw(response))
}

/// A ready pod behind a service, and its port.
fn endpoint(cx: &Cx<'_>, at: &At<'_>, service: Option<&Value>, name: &str, port: &str) -> Result<(Value, u16), Status> {
    let mut wanted = port;
    if let Ok(number) = port.parse::<i64>() {
        let Some(service) = service else { return Err(Status::not_found(at.group_resource(), name)) };
        let ports = meta::items_at(service, &["spec", "ports"]);
        let Some(found) = ports.iter().find(|port| port["port"].as_i64() == Some(number)) else {
            let text = format!("no service port {number} found for service {}", go::quote(name));
            return Err(Status::unavailable(text));
        };
        wanted = found["name"].as_str().unwrap_or_default();
    }
    let slices = cx.state.list("discovery.k8s.io", "endpointslices");
    let of_service = slices.iter().filter(|slice| {
        meta::namespace(slice) == at.namespace()
            && meta::entry(slice, "labels", "kubernetes.io/service-name") == Some(name)
    });
    for slice in of_service {
        let named = |port: &&Value| port["name"].as_str().unwrap_or_default() == wanted;
        let Some(port) = meta::items_at(slice, &["ports"]).iter().find(named) else { continue };
        let Some(port) = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else { continue };
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
        for endpoint in meta::items_at(slice, &["endpoints"]).iter().filter(ready) {
            let target = &endpoint["targetRef"];
            if target["kind"] != "Pod" {
                continue;
            }
            let pod = target["name"].as_str().unwrap_or_default();
            if let Some(pod) = cx.state.get("", "pods", at.namespace(), pod) {
                return Ok((Value::clone(&pod), port));
            }
        }
    }
    Err(Status::unavailable(format!("no endpoints available for service {}", go::quote(name))))
}

fn first_port(pod: &Value) -> Option<u16> {
    let containers = meta::items_at(pod, &["spec", "containers"]).iter();
    let port = containers.flat_map(|container| meta::items_at(container, &["ports"])).next()?;
    u16::try_from(port["containerPort"].as_u64()?).ok()
}

/// The request as whom it is passed on to sees it; none where its path is to end with a slash first.
async fn passed_on(cx: &Cx<'_>, body: RequestBody) -> Result<Option<Request<Bytes>>, Status> {
    let path = rest(&cx.ask.path);
    let method = cx.ask.method.as_ref();
    if path.is_empty() && matches!(method, "GET" | "HEAD") && !upgrade::is_upgrade(cx.headers) {
        return Ok(None);
    }
    let query = cx.ask.query.print();
    let path = if path.is_empty() { "/" } else { path };
    let uri = if query.is_empty() { path.to_string() } else { format!("{path}?{query}") };
    let body = body::read(body).await?;
    let mut request = Request::builder().method(method).uri(uri).body(body).map_err(Status::internal)?;
    for (name, value) in cx.headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(name)) {
        request.headers_mut().append(name, value.clone());
    }
    if let Some(connection) = cx.upgrade.filter(|_| upgrade::is_upgrade(cx.headers)) {
        for name in [header::CONNECTION, header::UPGRADE] {
            for value in cx.headers.get_all(&name) {
                request.headers_mut().append(&name, value.clone());
            }
        }
        request.extensions_mut().insert(connection.clone());
    }
    let forwarded = http::HeaderValue::from_str(&cx.ask.path).map_err(Status::internal)?;
    request.headers_mut().insert("x-forwarded-uri", forwarded);
    Ok(Some(request))
}

/// What of a path is the other side's: what follows `/api/v1/nodes/NAME/proxy` or `/api/v1/namespaces/NS/pods/NAME/proxy`.
fn rest(path: &str) -> &str {
    let own = if path.split('/').nth(3) == Some("namespaces") { 7 } else { 5 };
    path.match_indices('/').nth(own).map_or("", |(at, _)| &path[at..])
}

/// Relative links lead to the right place only below a path with a slash at its end.
fn slash(cx: &Cx<'_>) -> Answer {
    let query = cx.ask.query.print();
    let query = if query.is_empty() { query } else { format!("?{query}") };
    let mut response = respond::raw(StatusCode::MOVED_PERMANENTLY.as_u16(), "", Bytes::new());
    if let Ok(place) = http::HeaderValue::from_str(&format!("{}/{query}", cx.ask.path)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Answer::Raw(response)
}

/// Where the other side sends the client elsewhere on itself, that is below the path of the request.
fn stay_within(cx: &Cx<'_>, headers: &mut http::HeaderMap) {
    let Some(place) = headers.get(header::LOCATION).and_then(|it| it.to_str().ok()) else { return };
    if !place.starts_with('/') || place.starts_with("//") {
        return;
    }
    let own = cx.ask.path.len() - rest(&cx.ask.path).len();
    if let Ok(place) = http::HeaderValue::from_str(&format!("{}{place}", &cx.ask.path[..own])) {
        headers.insert(header::LOCATION, place);
    }
}

/// A connection to a port of a pod, through its node.
async fn way(cx: &Cx<'_>, pod: &Value, port: u16) -> Result<Io, Status> {
    let node = meta::text_at(pod, &["spec", "nodeName"]);
    let api = node_api(cx, node)?;
    let uri = format!("/portForward/{}/{}", meta::namespace(pod), meta::name(pod));
    let mut request = Request::get(uri).body(Bytes::new()).map_err(Status::internal)?;
    let key = upgrade::ask(request.headers_mut(), TUNNEL);
    let (ours, theirs) = tokio::io::duplex(WAY_BYTES);
    request.extensions_mut().insert(OnUpgrade::new(async move { Ok(Box::new(theirs) as Io) }));
    let response = api.call(request).await;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Status::unavailable(refusal(response).await));
    }
    upgrade::check(response.headers(), &key, TUNNEL).map_err(Status::unavailable)?;
    let (mut ports, moving) = Ports::new(websocket::tunnel(Box::new(ours), Role::Client).await);
    let moving = AbortOnDropHandle::new(tokio::spawn(moving));
    let (stream, _error) = ports.open(port).await.map_err(|why: io::Error| Status::unavailable(why.to_string()))?;
    let io = tokio::io::join(stream.incoming, stream.outgoing);
    Ok(Box::new(Way { io, _kept: Arc::new((moving, ports)) }))
}

async fn refusal(response: http::Response<Body>) -> String {
    let bytes = response.into_body().collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_string()
}

/// A connection, and what carries it.
struct Way<T, K> {
    io: T,
    _kept: Arc<K>,
}

impl<T: tokio::io::AsyncRead + Unpin, K> tokio::io::AsyncRead for Way<T, K> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: tokio::io::AsyncWrite + Unpin, K> tokio::io::AsyncWrite for Way<T, K> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_the_other_sides() {
        let check = |path: &str, expected: &str| assert_eq!(super::rest(path), expected, "{path}");
        check("/api/v1/namespaces/a/pods/p/proxy", "");
        check("/api/v1/namespaces/a/pods/p/proxy/", "/");
        check("/api/v1/namespaces/a/services/proxy/proxy/x/proxy/y", "/x/proxy/y");
        check("/api/v1/nodes/n/proxy/stats/summary", "/stats/summary");
    }
}
