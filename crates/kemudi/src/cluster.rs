//! A cluster in this process: server, controllers and, if wanted, a node, wired together without sockets.
//! What `up`, `run`, `tour` and tests start. Prints nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use kemudi_client::kinds::ServiceAccount;
use kemudi_client::transport::{Body, Transport, Upgraded};
use kemudi_client::{Api, Client, Error, Event, ListOptions};
use node::Ground;
use server::authn::{AUTHENTICATED, MASTERS, User};
use server::{Options, Server, State};
use streams::upgrade::OnUpgrade;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::local_node::{LocalNode, NodeOptions};

/// How long the controllers may take for their first promises.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);
/// What waits on an upgraded connection within this process, in bytes and in each direction.
const UPGRADED_BYTES: usize = 64 * 1024;
/// Who the controllers are. One identity with all rights, as they are part of this process.
const CONTROLLERS: &str = "system:kube-controller-manager";
/// Who the holder of a [`Cluster`] is.
const ADMIN: &str = "kubernetes-admin";

/// A running cluster. [`Cluster::stop`] ends it; a cluster in memory is gone then.
pub struct Cluster {
    server: Server,
    controllers: Option<controllers::Controllers>,
    /// Tells the controllers of new authorities.
    _follower: AbortOnDropHandle<()>,
    node: Option<LocalNode>,
    address: Option<SocketAddr>,
}

impl Cluster {
    /// A cluster of its own in memory, without network: reached through [`Cluster::admin`] and [`Cluster::client_as`].
    pub async fn start() -> Result<Cluster, String> {
        Cluster::with(Options::default()).await
    }

    /// A server as the options say, with its controllers, while the network of its node to come is opened.
    ///
    /// # Errors
    /// As [`Cluster::with`].
    pub async fn beside(ground: &Ground, options: Options) -> Result<Cluster, String> {
        // What other processes do is asked for first.
        let ((), cluster) = tokio::join!(ground.open_network(), Cluster::with(options));
        cluster
    }

    /// A server as the options say, with its controllers.
    ///
    /// # Errors
    /// A text that says what is wrong and what to do.
    pub async fn with(options: Options) -> Result<Cluster, String> {
        let server = Server::start(options).await?;
        let client = client_of(server.state(), User::new(CONTROLLERS, [MASTERS, AUTHENTICATED]));
        let signer = Arc::new(Signer(server.state().clone()));
        let pki = server.state().pki.clone();
        let mut changes = pki.subscribe();
        let (trusted, root_ca) = watch::channel(pki.ca_pem());
        let follower = AbortOnDropHandle::new(tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                trusted.send_replace(pki.ca_pem());
            }
        }));
        let options = controllers::Options { root_ca, signer: Some(signer) };
        let controllers = controllers::Controllers::start(client.clone(), options);
        tracing::debug!("controllers started");
        settled(client).await?;
        tracing::debug!("settled");
        Ok(Cluster { server, controllers: Some(controllers), _follower: follower, node: None, address: None })
    }

    /// Serves clients outside of this process too. The listener's address should be the one the options advertise.
    pub fn listen(&mut self, listener: TcpListener) {
        self.address = listener.local_addr().ok();
        self.server.listen(listener);
    }

    /// Runs pods on this machine.
    ///
    /// # Errors
    /// Why this machine cannot: which setting forbids it, and how to change it.
    pub async fn start_node(&mut self, options: NodeOptions) -> Result<(), String> {
        self.start_node_on(None, options).await
    }

    /// The same on what [`crate::local_node::prepare`] gave for its folder, if anything.
    ///
    /// # Errors
    /// As [`Cluster::start_node`].
    pub async fn start_node_on(&mut self, ground: Option<Ground>, options: NodeOptions) -> Result<(), String> {
        self.node = Some(LocalNode::start(&self.server, ground, options).await?);
        Ok(())
    }

    /// The node of this cluster, where one was started.
    pub fn node(&self) -> Option<&LocalNode> {
        self.node.as_ref()
    }

    /// `https://ADDRESS` of the listener; empty where nothing listens.
    pub fn url(&self) -> String {
        self.address.map(|address| format!("https://{address}")).unwrap_or_default()
    }

    /// The certificate authorities that clients should trust, PEM. After a rotation there are several, see
    /// [`server::pki::life`].
    pub fn ca_pem(&self) -> String {
        self.server.state().pki.ca_pem()
    }

    /// A client that may do everything.
    pub fn admin(&self) -> Client {
        client_of(self.server.state(), User::new(ADMIN, [MASTERS, AUTHENTICATED]))
    }

    /// A client of any identity: `system:serviceaccount:NAMESPACE:NAME` or a user's name. Service accounts are in their
    /// groups, as with a token.
    pub fn client_as(&self, name: &str) -> Client {
        let mut groups = Vec::new();
        if let Some((namespace, _)) = server::authn::service_account::split_user_name(name) {
            groups = server::authn::service_account::groups(namespace);
        }
        groups.push(AUTHENTICATED.to_string());
        client_of(self.server.state(), User::new(name, groups))
    }

    /// A kubeconfig of an administrator, with a client certificate made for it.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn admin_kubeconfig(&self) -> Result<String, String> {
        let (certificate, key) = self.server.state().pki.issue_client(ADMIN, Some(MASTERS))?;
        Ok(crate::kubeconfig::with_certificate(&self.url(), &self.ca_pem(), ADMIN, &certificate, &key))
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Says at `/readyz` that it is about to stop; everything goes on.
    pub fn drain(&self) {
        self.server.drain();
    }

    /// Ends pods, controllers, watches and connections, in this order, and closes the store.
    pub async fn stop(mut self) -> Result<(), String> {
        self.drain();
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
        if let Some(controllers) = self.controllers.take() {
            controllers.shutdown().await;
        }
        self.server.stop().await.map_err(|why| why.message)
    }
}

/// Waits until the namespace `default` has its account: from then on pods can be made in it.
async fn settled(client: Client) -> Result<(), String> {
    let accounts = Api::<ServiceAccount>::namespaced(client, "default");
    let mut events = std::pin::pin!(accounts.watcher(&ListOptions::default()).into_stream());
    let found = async {
        while let Some(event) = events.next().await {
            if let Ok(Event::InitApplied(account) | Event::Applied(account)) = event
                && account.metadata.name == "default"
            {
                return;
            }
        }
    };
    tokio::time::timeout(SETTLE_TIME_MAX, found).await.map_err(|_| {
        "the namespace default did not get its service account: see the log (KEMUDI_LOG=debug)".to_string()
    })
}

/// A client of the server in this process, as a fixed identity.
pub(crate) fn client_of(state: &Arc<State>, user: User) -> Client {
    Client::with_transport(Arc::new(InProcess { state: state.clone(), user: Arc::new(user) }))
}

/// Hands requests straight to the server.
struct InProcess {
    state: Arc<State>,
    user: Arc<User>,
}

impl Transport for InProcess {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        Box::pin(async move {
            let request =
                request.map(|bytes| http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
            let response = Server::call(&self.state, self.user.clone(), request).await;
            Ok(response.map(|body| body.map_err(|why| Error::Lost(why.to_string())).boxed_unsync()))
        })
    }

    fn upgrade(&self, mut request: http::Request<Bytes>) -> BoxFuture<'_, Result<Upgraded, Error>> {
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(UPGRADED_BYTES);
            let connection = async { Ok(Box::new(theirs) as streams::Io) };
            request.extensions_mut().insert(OnUpgrade::new(connection));
            let response = self.send(request).await?;
            let granted = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
            Ok((response, granted.then(|| Box::new(ours) as streams::Io)))
        })
    }

    fn server(&self) -> String {
        "the API server in this process".to_string()
    }
}

/// Signs the tokens that never expire, of the kind of Secret that asks for one.
struct Signer(Arc<State>);

impl controllers::TokenSigner for Signer {
    fn sign(&self, namespace: &str, account: &str, account_uid: &str, secret: &str) -> Result<String, String> {
        server::token_request::legacy_token(&self.0, namespace, account, account_uid, secret)
    }
}
