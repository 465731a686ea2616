//! What a pod's containers say and hear: the subresources log, exec, attach and portforward. The pod's node gives it; here
//! it is only found out which node and container are meant, and whether the client may.

use std::sync::Arc;

use api::status::GroupResource;
use api::{Query, Status, go, meta};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use streams::upgrade;

use super::At;
use super::write::invalid;
use crate::authn;
use crate::lookup::Lookup;
use crate::node_link::NodeLink;
use crate::respond::{self, Answer};
use crate::serve::Cx;
use crate::state::NodeApi;

/// What stands for a node's answer where it cannot be reached.
const UNREACHABLE: u16 = 502;

/// exec, attach and port-forward: the connection is handed to the pod's node, which speaks with the client from then on.
pub async fn connect(cx: &Cx<'_>, at: &At<'_>) -> Result<Answer, Status> {
    let query = node_query(cx, at)?;
    let pod = pod(cx, at)?;
    let (namespace, name) = (at.namespace(), &at.target.name);
    let path = match at.target.subresource.as_str() {
        "portforward" => format!("/portForward/{namespace}/{name}"),
        what => format!("/{what}/{namespace}/{name}/{}", container(cx, &pod)?),
    };
    let node = meta::text_at(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let api = node_api(cx, node)?;
    let Some(connection) = cx.upgrade.filter(|_| upgrade::is_upgrade(cx.headers)) else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let mut request = http::Request::builder()
        .method(cx.ask.method.as_ref())
        .uri(format!("{path}?{}", query.print()))
        .body(Bytes::new())
        .map_err(Status::internal)?;
    // Who asks is this server's business alone.
    for name in upgrade::HEADERS {
        for value in cx.headers.get_all(&name) {
            request.headers_mut().append(&name, authn::without_token(&name, value));
        }
    }
    let (connection, lasting) = connection.clone().lasting();
    request.extensions_mut().insert(connection);
    let mut response = api.call(request).await;
    if response.status().as_u16() == UNREACHABLE {
        let text = response.into_body().collect().await.map_err(Status::internal)?.to_bytes();
        return Err(Status::unexplained(String::from_utf8_lossy(&text)));
    }
    // The request ends with the connection, not with its answer.
    if response.status().as_u16() == respond::SWITCHING_PROTOCOLS {
        response.extensions_mut().insert(lasting);
    }
    Ok(Answer::Raw(response))
}

/// The client's options in the words of a node.
fn node_query(cx: &Cx<'_>, at: &At<'_>) -> Result<Query, Status> {
    let asked = &cx.ask.query;
    let mut query = Query::default();
    if at.target.subresource == "portforward" {
        let mut ports = Vec::new();
        for port in asked.all("ports").flat_map(|ports| ports.split(',')).filter(|port| !port.is_empty()) {
            ports.push(go::parse_i64(port).map_err(Status::bad_request)?.to_string());
        }
        if !ports.is_empty() {
            query.push("port", ports.join(","));
        }
        return Ok(query);
    }
    for (name, short) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if asked.flag(name) == Some(true) {
            query.push(short, "1");
        }
    }
    if at.target.subresource == "exec" {
        asked.all("command").for_each(|word| query.push("command", word));
    }
    Ok(query)
}

/// The API of a node: of this process, or where the node says that it is.
pub fn node_api(cx: &Cx<'_>, node: &str) -> Result<Arc<dyn NodeApi>, Status> {
    if let Some(api) = cx.state.nodes.load().get(node) {
        return Ok(api.clone());
    }
    let Some(object) = cx.state.get("", "nodes", "", node) else {
        return Err(Status::not_found(GroupResource { group: "", resource: "nodes" }, node));
    };
    match NodeLink::to(cx.state, &object) {
        Some(link) => Ok(Arc::new(link)),
        None => Err(Status::unavailable(format!(
            "node {} is not connected to this server, and its status names no kubelet endpoint",
            go::quote(node)
        ))),
    }
}

/// The container that a connection is about.
fn container(cx: &Cx<'_>, pod: &Value) -> Result<String, Status> {
    let all: Vec<&str> = ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| meta::items_at(pod, &["spec", list]))
        .map(|container| meta::text_at(container, &["name"]))
        .collect();
    let name = meta::name(pod);
    match cx.ask.query.get("container").filter(|container| !container.is_empty()) {
        Some(given) if all.contains(&given) => Ok(given.to_string()),
        Some(given) => Err(Status::bad_request(format!("container {given} is not valid for pod {name}"))),
        None => match (meta::items_at(pod, &["spec", "containers"]), all.len()) {
            ([only], 1) => Ok(meta::text_at(only, &["name"]).to_string()),
            _ => {
                let default = meta::entry(pod, "annotations", "kubectl.kubernetes.io/default-container");
                if let Some(default) = default.filter(|default| all.contains(default)) {
                    return Ok(default.to_string());
                }
                Err(Status::bad_request(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    all.join(" ")
                )))
            }
        },
    }
}

fn pod(cx: &Cx<'_>, at: &At<'_>) -> Result<Value, Status> {
    Ok(cx.state.collection(at.kind)?.get(&at.key()).ok_or_else(|| at.not_found())?.value())
}

/// The logs of a container, as its node gives them.
pub async fn log(cx: &Cx<'_>, at: &At<'_>) -> Result<Answer, Status> {
    check_log_options(cx, at)?;
    let pod = pod(cx, at)?;
    let container = container(cx, &pod)?;
    let node = meta::text_at(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // There is nothing to show yet, and nothing wrong either.
        return Ok(Answer::Raw(respond::raw(204, "", Bytes::new())));
    }
    let api = node_api(cx, node)?;
    let (_, line) = cx.ask.print();
    let query = line.split_once('?').map_or("", |(_, query)| query);
    let uri = format!("/containerLogs/{}/{}/{container}?{query}", at.namespace(), at.target.name);
    let request = http::Request::get(uri).body(Bytes::new()).map_err(Status::internal)?;
    let response = api.call(request).await;
    match response.status().as_u16() {
        respond::OK => {
            let mut answer = respond::raw(respond::OK, "text/plain", Bytes::new());
            *answer.body_mut() = response.into_body();
            Ok(Answer::Raw(answer))
        }
        code => {
            let bytes = response.into_body().collect().await.map_err(Status::internal)?.to_bytes();
            let text = String::from_utf8_lossy(&bytes).trim_end().to_string();
            match code {
                UNREACHABLE => Err(Status::unexplained(text)),
                respond::NOT_FOUND => Err(Status { details: None, message: text, ..Status::no_such_path() }),
                _ => Err(Status::bad_request(text)),
            }
        }
    }
}

fn check_log_options(cx: &Cx<'_>, at: &At<'_>) -> Result<(), Status> {
    let query = &cx.ask.query;
    let number = |name: &str| -> Result<Option<i64>, Status> {
        query.get(name).map(go::parse_i64).transpose().map_err(Status::bad_request)
    };
    let (tail, since, limit) = (number("tailLines")?, number("sinceSeconds")?, number("limitBytes")?);
    let since_time = query.get("sinceTime").filter(|text| !text.is_empty());
    if let Some(text) = since_time
        && let Err(why) = kinds::scalar::time(text.into())
    {
        return Err(Status::bad_request(why));
    }
    let mut causes = Vec::new();
    let below = |value: Option<i64>, least: i64| value.filter(|value| *value < least);
    if let Some(value) = below(tail, 0) {
        causes.push(kinds::Cause::invalid("tailLines", &json!(value), "must be greater than or equal to 0"));
    }
    if let Some(value) = below(limit, 1) {
        causes.push(kinds::Cause::invalid("limitBytes", &json!(value), "must be greater than 0"));
    }
    if since.is_some() && since_time.is_some() {
        let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        causes.push(kinds::Cause::forbidden("[]", text));
    } else if let Some(value) = below(since, 1) {
        causes.push(kinds::Cause::invalid("sinceSeconds", &json!(value), "must be greater than 0"));
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(invalid("", "PodLogOptions", &at.target.name, causes)),
    }
}
