//! The server in one process, asked without sockets: what needs its options or its clock.

mod consistency;
mod custom;
mod deletion;
mod history;
mod nodes;
mod paths;
mod rights;
mod selectors;
mod updates;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use server::authn::{AUTHENTICATED, MASTERS, User};
use server::connection::Peer;
use server::respond::Body;
use server::serve::serve;
use server::{Options, Server};

/// A server in memory, and what it is asked.
pub struct Asked {
    pub server: Server,
}

impl Asked {
    pub async fn start(options: Options) -> Asked {
        Asked { server: Server::start(options).await.expect("a server in memory starts") }
    }

    /// Sends `METHOD PATH`, with a JSON body where there is one, as a user of these groups.
    pub async fn send(&self, user: &str, groups: &[&str], ask: &str, body: Option<&Value>) -> http::Response<Body> {
        self.send_with(user, groups, (header::CONTENT_TYPE, "application/json"), ask, body).await
    }

    async fn send_with(
        &self,
        user: &str,
        groups: &[&str],
        (name, value): (header::HeaderName, &str),
        ask: &str,
        body: Option<&Value>,
    ) -> http::Response<Body> {
        let (method, path) = ask.split_once(' ').expect("METHOD PATH");
        let bytes = body.map_or(Bytes::new(), |body| body.to_string().into());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(name, value)
            .body(Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
            .expect("a request");
        let user = User::new(user, groups.iter().copied());
        Server::call(self.server.state(), Arc::new(user), request).await
    }

    /// As the administrator, who wants this form of the answer.
    pub async fn accepting(&self, accept: &str, ask: &str) -> (u16, Value) {
        json(self.send_with("admin", &[MASTERS], (header::ACCEPT, accept), ask, None).await).await
    }

    /// As the administrator, with a patch of this type.
    pub async fn patching(&self, content_type: &str, ask: &str, patch: &Value) -> (u16, Value) {
        json(self.send_with("admin", &[MASTERS], (header::CONTENT_TYPE, content_type), ask, Some(patch)).await).await
    }

    /// As whoever a token stands for, from outside: the code and the JSON.
    pub async fn as_bearer(&self, token: &str, ask: &str) -> (u16, Value) {
        let (method, path) = ask.split_once(' ').expect("METHOD PATH");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed_unsync())
            .expect("a request");
        json(serve(self.server.state(), &Peer::default(), request).await).await
    }

    /// As the administrator: the code and the JSON.
    pub async fn ask(&self, ask: &str, body: Option<&Value>) -> (u16, Value) {
        json(self.send("admin", &[MASTERS, AUTHENTICATED], ask, body).await).await
    }
}

async fn json(answer: http::Response<Body>) -> (u16, Value) {
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
    // What is no JSON is a text, or nothing.
    let text = || (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned().into());
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| text().unwrap_or_default()))
}
