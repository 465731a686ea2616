//! The Kubernetes API server. Read `serve.rs` first: it shows a request's way on one page.
//!
//! Modules stand in the order in which a request meets them. Nothing here starts a process, and nothing but `objects`
//! calls the store.

pub mod connection;
mod gather;
mod patient;
pub mod serve;
mod unread;

mod accept;
pub mod admission;
pub mod allocate;
pub mod audit;
pub mod authn;
pub mod authorize;
pub mod authz;
pub mod denials;
pub mod documents;
pub mod flow;
mod held_json;
pub mod impersonate;
mod kind_of;
pub mod objects;
mod pick;
pub mod respond;
pub mod reviews;
mod selection;
pub mod token_request;
mod transform;
pub mod usage;
mod verbs;

mod as_controller;
mod authentication_trust;
pub mod bootstrap_objects;
mod caller;
mod certificates;
mod config_file;
mod definitions;
mod issue;
pub mod lookup;
pub mod metrics;
mod node_link;
pub mod oidc;
pub mod pki;
mod quota;
pub mod state;

use std::sync::Arc;

use api::Status;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::authn::front_proxy::FrontProxy;
use crate::authn::service_account::ServiceAccounts;
use crate::authn::token_file::TokenFile;
use crate::authn::{Authenticator, User};
use crate::connection::{Front, Peer};
use crate::objects::Objects;
use crate::pki::Pki;
use crate::respond::Body;
use crate::serve::RequestBody;
pub use crate::state::{NodeApi, Options, State};

/// A running API server. Stop it with [`Server::stop`]: dropping it leaves its tasks to the runtime.
pub struct Server {
    state: Arc<State>,
    front: Front,
    tasks: TaskTracker,
}

impl Server {
    /// Opens the store, makes or reads keys, and puts in place what every cluster begins with. Listens nowhere yet.
    ///
    /// # Errors
    /// A text that says what is wrong with the options, the store or the keys.
    pub async fn start(options: Options) -> Result<Server, String> {
        let clock = std::time::Instant::now();
        // Reading the tables of kinds takes as long as making keys, and needs none.
        let registry = tokio::task::spawn_blocking(kinds::builtin);
        let audit = audit::Audit::open(&options.audit)?;
        let authorizers = authz::configuration::load(&options.authz)?;
        let objects = Objects::new(store::open(&options.store).map_err(|why| why.to_string())?, options.history);
        let pki_options =
            pki::Options { proxy_ca_file: options.authn.front_proxy.ca_file.clone(), ..options.pki.clone() };
        let pki = match &options.pki_folder {
            Some(folder) => Pki::open(folder, &pki_options)?,
            None => Pki::in_memory(&pki_options)?,
        };
        tracing::debug!(us = clock.elapsed().as_micros(), "keys");
        let registry = registry.await.map_err(|why| format!("the tables of kinds cannot be read: {why}"))?;
        tracing::debug!(us = clock.elapsed().as_micros(), "kinds");
        let mut tokens = match &options.token_auth_file {
            Some(path) => TokenFile::open(path)?,
            None => TokenFile::default(),
        };
        for (token, user) in &options.tokens {
            tokens.insert(token, user.clone());
        }
        let audiences = match options.api_audiences.is_empty() {
            true => vec![options.issuer.clone()],
            false => options.api_audiences.clone(),
        };
        let service_accounts = ServiceAccounts::new(vec![options.issuer.clone()], audiences.clone(), pki.keys.clone());
        let mut authenticator = Authenticator::new(tokens, service_accounts, audiences);
        authenticator.configure(&options.authn, std::slice::from_ref(&options.issuer))?;
        if options.authn.front_proxy.ca_file.is_some() {
            let proxies = FrontProxy::new(&options.authn.front_proxy, pki.certificates().proxy_authorities())?;
            authenticator.front_proxy = Some(proxies);
        }
        let state = State::new(options, objects, registry, authenticator, pki, audit).map_err(|why| why.message)?;
        if let Some(authorizers) = authorizers {
            state.authorizer.configure(authorizers)?;
        }
        tracing::debug!(us = clock.elapsed().as_micros(), "state");
        bootstrap_objects::ensure(&state).await.map_err(|why| why.message)?;
        tracing::debug!(us = clock.elapsed().as_micros(), "objects");
        let tasks = TaskTracker::new();
        let front = Front::new(state.clone(), tasks.clone());
        tasks.spawn(flow::bootstrap::run(state.clone()));
        tasks.spawn(authentication_trust::run(state.clone()));
        let following = state.clone();
        tasks.spawn(async move {
            let State { authenticator, options, stopping, .. } = &*following;
            let own = std::slice::from_ref(&options.issuer);
            authn::reload::run(authenticator, &options.authn, own, &authenticator.configured, stopping).await;
        });
        let following = state.clone();
        tasks.spawn(async move {
            let State { authorizer, options, stopping, .. } = &*following;
            authz::reload::run(authorizer, &options.authz, stopping).await;
        });
        let following = state.clone();
        tasks.spawn(async move { pki::reload::run(following.pki.clone(), &following.stopping).await });
        tasks.spawn(certificates::run(state.clone()));
        tasks.spawn(quota::run(state.clone()));
        let compacting = state.clone();
        tasks.spawn(async move {
            compacting.objects.compact_in_time(&compacting.stopping, || definitions::forget(&compacting)).await
        });
        Ok(Server { state, front, tasks })
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Serves a listener until the server stops.
    pub fn listen(&self, listener: TcpListener) {
        // Not before: processors that share a core would make it slow to get here.
        self.state.pki.keys.load().signing.begin();
        self.front.listen(listener);
    }

    /// What takes single connections, as those that a pod makes to its cluster's address.
    pub fn front(&self) -> Front {
        self.front.clone()
    }

    /// Answers a request from within this process, as a given identity.
    pub async fn call(state: &Arc<State>, user: Arc<User>, request: Request<RequestBody>) -> Response<Body> {
        let peer = Peer { internal: Some(user), ..Peer::default() };
        serve::serve(state, &peer, request).await
    }

    /// Begins to stop: from now on `/readyz` says so. Everything is still answered.
    pub fn drain(&self) {
        self.state.draining.cancel();
    }

    /// Ends watches and connections, then closes the audit log and the store. Everything acknowledged is kept.
    pub async fn stop(self) -> Result<(), Status> {
        self.drain();
        self.state.stopping.cancel();
        self.state.objects.end_watches();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(audit) = &self.state.audit {
            audit.close().await;
        }
        self.state.objects.close().await.map_err(Status::internal)
    }
}
