//! Requests that the server makes of itself, as itself or as one of kube-controller-manager's accounts, with no other
//! rights than those.

use std::sync::Arc;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::authn::{AUTHENTICATED, User, service_account};
use crate::connection::Peer;
use crate::serve;
use crate::state::State;

const NAMESPACE: &str = "kube-system";

/// Who sends a request, and what it calls itself.
pub struct Sender {
    pub user: Arc<User>,
    pub agent: &'static str,
}

/// Writes an object, or a part of one, as it is at `path`. Answers whether it need not be tried again: whoever changed or
/// removed it meanwhile is heard of anyway.
pub async fn put(state: &Arc<State>, account: &str, path: &str, object: &Value) -> bool {
    let mut groups = service_account::groups(NAMESPACE);
    groups.push(AUTHENTICATED.to_string());
    let user = Arc::new(User::new(service_account::user_name(NAMESPACE, account), groups));
    let sender = Sender { user, agent: "kube-controller-manager" };
    let answered = send(state, sender, Method::PUT, path, "application/json", object).await;
    if answered.is_server_error() {
        tracing::warn!(path, account, code = answered.as_u16(), "a controller's write failed");
    }
    !answered.is_server_error()
}

/// Sends a request with a body on its way. Answers the code.
pub async fn send(
    state: &Arc<State>,
    sender: Sender,
    method: Method,
    path: &str,
    content_type: &str,
    object: &Value,
) -> StatusCode {
    let body = Full::new(api::codec::value_to_json(object).into()).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::USER_AGENT, sender.agent)
        .body(body);
    let Ok(request) = request else { return StatusCode::BAD_REQUEST };
    let peer = Peer { internal: Some(sender.user), ..Peer::default() };
    serve::serve(state, &peer, request).await.status()
}
