//! What all requests share: options, objects, kinds, identities, rights. Decides nothing itself.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use api::Status;
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use jiff::Timestamp;
use kinds::{Kind, Registry};
use serde_json::Value;
use store::Revision;
use tokio_util::sync::CancellationToken;

use crate::allocate::{Allocator, Range};
use crate::audit::{self, Audit, Trail};
use crate::authn::{Authenticator, Credentials, Judged, User};
use crate::authz::{Authorizer, node, rbac};
use crate::connection::Peer;
use crate::flow::{self, Flow};
use crate::lookup::{Identity, Lookup};
use crate::objects::{self, Changed, Collection, Objects, Shape};
use crate::pki::Pki;
use crate::respond::Body;
use crate::verbs::write::store_failure;

/// How a server is set up. The defaults are a cluster of its own in memory.
///
/// Holds secrets, so that it prints nothing of itself.
#[derive(Clone)]
pub struct Options {
    /// `memory://` or `disk://DIR`.
    pub store: String,
    /// Where keys and certificates are kept; nowhere where there is none.
    pub pki_folder: Option<std::path::PathBuf>,
    pub pki: crate::pki::Options,
    /// Out of which Services get their addresses.
    pub service_range: String,
    /// Where the `kubernetes` Service leads. Never a loopback address: the API allows none in Endpoints.
    pub advertise: SocketAddr,
    /// `iss` of service account tokens.
    pub issuer: String,
    /// The audiences of tokens that name none; the issuer where this is empty.
    pub api_audiences: Vec<String>,
    /// `--service-account-max-token-expiration`, in seconds.
    pub token_seconds_max: Option<i64>,
    /// `--service-account-extend-token-expiration`: pod tokens are good for a year, and meant for an hour.
    pub extend_token_expiration: bool,
    pub token_auth_file: Option<std::path::PathBuf>,
    /// Ways to prove an identity that are off unless they are asked for.
    pub authn: crate::authn::Options,
    /// Which authorizers are asked, and in which order.
    pub authz: crate::authz::Options,
    /// Tokens of this process's own making, with who they stand for.
    pub tokens: Vec<(String, User)>,
    /// How much of the past is remembered for watches that resume and lists that continue.
    pub history: objects::HistoryLimits,
    /// What is written down of requests, and where.
    pub audit: audit::Options,
}

/// The issuer of a cluster that was told none.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Default for Options {
    fn default() -> Options {
        Options {
            store: "memory://".into(),
            pki_folder: None,
            pki: crate::pki::Options::default(),
            service_range: "10.96.0.0/16".into(),
            advertise: SocketAddr::from(([10, 96, 0, 1], 6443)),
            issuer: ISSUER.into(),
            api_audiences: Vec::new(),
            token_seconds_max: None,
            extend_token_expiration: true,
            token_auth_file: None,
            authn: crate::authn::Options::default(),
            authz: crate::authz::Options::default(),
            tokens: Vec::new(),
            history: objects::HistoryLimits::default(),
            audit: audit::Options::default(),
        }
    }
}

/// What all requests share.
pub struct State {
    pub options: Options,
    pub objects: Objects,
    pub registry: ArcSwap<Registry>,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub allocator: Allocator,
    pub pki: Arc<Pki>,
    pub nodes: ArcSwap<HashMap<String, Arc<dyn NodeApi>>>,
    /// Cancelled when the server is told to stop: nobody should start to rely on it.
    pub draining: CancellationToken,
    /// Cancelled when it does: watches end, and no connection is taken any more.
    pub stopping: CancellationToken,
    pub started: Timestamp,
    pub documents: crate::documents::Documents,
    pub usage: crate::usage::Recorder,
    pub denials: crate::denials::Denials,
    pub metrics: crate::metrics::Metrics,
    pub flow: Flow,
    pub counting: crate::quota::Counting,
    /// None where nothing is audited.
    pub audit: Option<Arc<Audit>>,
}

/// A node's own API (logs, exec, attach, port-forward), in the shape of the kubelet's. A request may bring its connection
/// ([`streams::upgrade::OnUpgrade`]), which is the node's to use once it has answered 101.
pub trait NodeApi: Send + Sync {
    fn call(&self, request: Request<bytes::Bytes>) -> BoxFuture<'_, Response<Body>>;
}

impl State {
    /// Everything in place, RBAC in step with its objects.
    pub fn new(
        options: Options,
        objects: Objects,
        registry: Registry,
        authenticator: Authenticator,
        pki: Pki,
        audit: Option<Arc<Audit>>,
    ) -> Result<Arc<State>, Status> {
        let range = Range::parse(&options.service_range).map_err(Status::bad_request)?;
        let state = Arc::new(State {
            options,
            objects,
            registry: ArcSwap::from_pointee(registry),
            authenticator,
            authorizer: Authorizer::default(),
            allocator: Allocator::new(range),
            pki: Arc::new(pki),
            nodes: ArcSwap::default(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            started: Timestamp::now(),
            documents: crate::documents::Documents::default(),
            usage: crate::usage::Recorder::default(),
            denials: crate::denials::Denials::default(),
            metrics: crate::metrics::Metrics::default(),
            flow: Flow::default(),
            counting: crate::quota::Counting::default(),
            audit,
        });
        for resource in rbac::RESOURCES {
            state.observe(rbac::GROUP, resource, move |state, old, new| {
                state.authorizer.rbac.on_change(resource, old, new);
            })?;
        }
        for resource in [flow::LEVELS, flow::SCHEMAS] {
            state.observe(flow::GROUP, resource, move |state, old, new| state.flow.on_change(resource, old, new))?;
        }
        for (at, (group, resource)) in node::RESOURCES.iter().enumerate() {
            state.observe(group, resource, move |state, old, new| state.authorizer.node.on_change(at, old, new))?;
        }
        state.follow_pods()?;
        crate::definitions::follow(&state)?;
        if let Some(services) = state.registry.load().kind("", "v1", "services") {
            state.allocator.follow(&*state.collection(services)?);
        }
        Ok(state)
    }

    /// Tells the Node authorizer which pods are whose. Of a pod nothing is read but what its collection holds beside it.
    fn follow_pods(self: &Arc<State>) -> Result<(), Status> {
        let Some(kind) = self.registry.load().kind("", "v1", "pods").cloned() else { return Ok(()) };
        let pods = self.collection(&kind)?;
        let Some(node) = pods.field_index("/spec/nodeName") else { return Ok(()) };
        let weak = Arc::downgrade(self);
        pods.observe(Box::new(move |change: &Changed| {
            let Some(state) = weak.upgrade() else { return };
            match (&change.old, &change.new) {
                (_, Some(pod)) => {
                    let held = pod.clone();
                    state.authorizer.node.on_pod(&pod.key, pod.field(node), move || held.value());
                }
                (Some(pod), None) => state.authorizer.node.on_pod(&pod.key, "", || Value::Null),
                (None, None) => {}
            }
        }));
        Ok(())
    }

    /// Keeps something of the state in step with a resource.
    fn observe(
        self: &Arc<State>,
        group: &str,
        resource: &str,
        take: impl Fn(&State, Option<&Value>, Option<&Value>) + Send + Sync + 'static,
    ) -> Result<(), Status> {
        let Some(kind) = self.registry.load().preferred(group, resource).cloned() else { return Ok(()) };
        // The collection lives in the state, which must not keep itself alive.
        let weak = Arc::downgrade(self);
        self.collection(&kind)?.observe(Box::new(move |change: &Changed| {
            let Some(state) = weak.upgrade() else { return };
            let value = |entry: &Option<Arc<objects::Entry>>| entry.as_ref().map(|entry| entry.value());
            let (old, new) = (value(&change.old), value(&change.new));
            take(&state, old.as_ref(), new.as_ref());
        }));
        Ok(())
    }

    /// Who sent a request.
    pub async fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
        now: Timestamp,
        warnings: &mut Vec<String>,
        trail: &Trail,
    ) -> Result<Arc<User>, Status> {
        if let Some(user) = &peer.internal {
            self.metrics.authenticated(Some(user));
            return Ok(user.clone());
        }
        let credentials = Credentials { headers, path, certificate: &peer.certificate, proxy: &peer.proxy };
        let outcome = match self.authenticator.begin(credentials, self, now.as_second()) {
            Judged::Known(outcome) => outcome,
            // In a box, so that requests that need not wait do not carry its size.
            Judged::Open(open) => Box::pin(self.authenticator.finish(open, now.as_second())).await,
        };
        match outcome {
            Ok(found) => {
                self.metrics.authenticated(Some(&found.user));
                warnings.extend(found.warning.map(str::to_string));
                found.annotations.into_iter().for_each(|(key, value)| trail.annotate(key, value));
                Ok(found.user)
            }
            Err(why) => {
                self.metrics.authenticated(None);
                self.denials.unauthenticated(now, &why.reason);
                tracing::debug!(%why, "a request could not be authenticated");
                Err(Status::unauthorized())
            }
        }
    }

    /// How the objects of a kind are kept.
    pub fn shape(&self, kind: &Kind) -> Shape {
        if let Some(custom) = &kind.custom {
            let table = format!("{}/{}", kind.group, kind.plural).into();
            return Shape {
                table,
                selectable: custom.selectable_anywhere.clone(),
                unset: Vec::new(),
                since: custom.since(),
                sorted: true,
            };
        }
        // Kinds that are kept as another share its table, and what it selects by.
        let (group, behaviour) = match kind.kept() {
            Some(kept) => (kept.group, kinds::builtin::behaviour(kept.group, &kind.kind)),
            None => (&*kind.group, kind.behaviour),
        };
        let table = table(group, kind);
        let mut pointers: Vec<&str> = behaviour.selectable.iter().flat_map(|(_, at)| kinds::pointers(at)).collect();
        let mut seen = HashSet::new();
        pointers.retain(|pointer| seen.insert(*pointer));
        let unset = pointers.iter().map(|pointer| kind.zero_text(pointer)).collect();
        let selectable = pointers.into_iter().map(Arc::from).collect();
        Shape { table, selectable, unset, since: 0, sorted: false }
    }

    /// The objects of a kind.
    pub fn collection(&self, kind: &Kind) -> Result<Arc<Collection>, Status> {
        // How built-in kinds are kept never changes: a shape does not have to be made to find that.
        let found = || self.objects.found(&table(kind.kept().map_or(&kind.group, |kept| kept.group), kind));
        if let Some(found) = kind.custom.is_none().then(found).flatten() {
            return Ok(found);
        }
        self.objects.collection(&self.shape(kind)).map_err(|why| store_failure(objects::WriteError::Store(why)))
    }

    /// Resolves when a revision was made.
    pub async fn revision_reached(&self, revision: Revision) {
        self.objects.reach(revision).await;
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// All objects of a resource, decoded.
    pub fn list(&self, group: &str, resource: &str) -> Vec<Value> {
        let objects = self.list_all(group, resource);
        objects.iter().flat_map(|all| all.entries.values()).map(|entry| entry.value()).collect()
    }

    /// The same, kept as long as the objects are there: for a resource of few that many requests are judged by.
    pub fn list_shared(&self, group: &str, resource: &str) -> Vec<Arc<Value>> {
        let objects = self.list_all(group, resource);
        objects.iter().flat_map(|all| all.entries.values()).map(|entry| entry.shared_value()).collect()
    }

    fn list_all(&self, group: &str, resource: &str) -> Option<Arc<objects::Snapshot>> {
        let kind = self.registry.load().preferred(group, resource).cloned()?;
        Some(self.collection(&kind).ok()?.snapshot())
    }
}

/// The store's table of a kind whose objects are kept in this group.
fn table(group: &str, kind: &Kind) -> Arc<str> {
    if group.is_empty() { kind.plural.clone() } else { format!("{group}/{}", kind.plural).into() }
}

impl State {
    /// The objects of a resource in one namespace, decoded, in order of their names.
    pub fn list_in(&self, group: &str, resource: &str, namespace: &str) -> Vec<Value> {
        let Some(kind) = self.registry.load().preferred(group, resource).cloned() else { return Vec::new() };
        let Ok(collection) = self.collection(&kind) else { return Vec::new() };
        collection.snapshot().range(namespace, None).map(|entry| entry.value()).collect()
    }

    /// How many objects of a resource are in a namespace.
    pub fn count_in(&self, group: &str, resource: &str, namespace: &str) -> usize {
        let Some(kind) = self.registry.load().preferred(group, resource).cloned() else { return 0 };
        self.collection(&kind).map_or(0, |collection| collection.snapshot().range(namespace, None).count())
    }

    fn entry(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<objects::Entry>> {
        let kind = self.registry.load().preferred(group, resource).cloned()?;
        self.collection(&kind).ok()?.get(&objects::key(namespace, name))
    }
}

impl Lookup for State {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.entry(group, resource, namespace, name).map(|entry| entry.shared_value())
    }

    fn get_once(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.entry(group, resource, namespace, name).map(|entry| Arc::new(entry.value()))
    }

    fn identity(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Identity> {
        let entry = self.entry(group, resource, namespace, name)?;
        Some(Identity { uid: entry.uid.to_string(), deleted_at: entry.deleted_at })
    }
}
