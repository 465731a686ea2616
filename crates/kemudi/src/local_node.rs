//! A node in this process: the agent, wired to a server in this process or to one somewhere else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use kemudi_client::Client;
use node::serving::ServingConfig;
use node::{ApiAccess, ClusterNetwork, Ground, Node, NodeConfig};
pub use node::{CriOptions, WayOut};
use server::authn::{AUTHENTICATED, MASTERS, User};
use server::authz::node::NODES;
use server::respond::{Body, BodyError};
use server::{NodeApi, Server};

/// The Kubernetes version that nodes report.
const VERSION: &str = "v1.37.2";

/// Who follows services and policies for the network.
const PROXY: &str = "system:kube-proxy";

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    pub name: String,
    /// For volumes and logs; made if missing, private. One node at a time.
    pub state_dir: PathBuf,
    /// The images that pods can have.
    pub images: images::Store,
    /// Paths of this machine that no pod sees.
    pub hidden: Vec<PathBuf>,
    /// Whether services have their ports on this machine, as far as pods of this node are behind them.
    pub node_ports: bool,
    /// Whether pods reach anything outside of the cluster's network.
    pub outside: WayOut,
    /// The container runtime that runs pods; without one all are in the sandbox.
    pub cri: Option<CriOptions>,
    /// Pods outlive a process that ends without being told to.
    pub keep: bool,
    /// How a server in another process reaches the node.
    pub serving: Option<ServingConfig>,
}

/// A node of a server in this process.
pub struct LocalNode {
    node: Node,
}

impl LocalNode {
    /// Starts the agent and connects it, without sockets in between, on what [`prepare`] gave for its folder, if anything.
    ///
    /// # Errors
    /// Why this machine cannot run pods, and what to change.
    pub async fn start(server: &Server, ground: Option<Ground>, options: NodeOptions) -> Result<LocalNode, String> {
        let state = server.state();
        // The agent has the rights of any node: the Node authorizer and NodeRestriction look at what it does.
        let user = User::new(format!("system:node:{}", options.name), [NODES, AUTHENTICATED]);
        let client = crate::cluster::client_of(state, user);
        let front = server.front();
        let api: ApiAccess = Arc::new(move |stream| {
            let front = front.clone();
            async move { front.serve_connection(stream, pod_peer()).await }.boxed()
        });
        let name = options.name.clone();
        let api_ip = state.options.pki.service_address;
        // What the network is made of is the cluster's, not the node's: it is seen as a part of this process.
        let observer = crate::cluster::client_of(state, User::new(PROXY, [MASTERS, AUTHENTICATED]));
        let node = start(ground, (client, observer), api, state.options.advertise, api_ip, options).await?;
        let kubelet: Arc<dyn NodeApi> = Arc::new(Kubelet(node.handler()));
        state.nodes.rcu(|nodes| {
            let mut nodes = HashMap::clone(nodes);
            nodes.insert(name.clone(), kubelet.clone());
            nodes
        });
        Ok(LocalNode { node })
    }

    /// The agent, to attach programs of this machine to pods.
    pub fn agent(&self) -> &Node {
        &self.node
    }

    /// Ends all pods and the agent.
    pub async fn stop(self) {
        self.node.shutdown().await;
    }
}

/// Starts what a node makes pods with, in the folder that is to be the node's. It needs no server, and takes a while: time in
/// which the server can start. The folder must be nobody else's.
///
/// # Errors
/// Why this machine cannot run pods, and what to change.
pub fn prepare(state_dir: &Path) -> Result<Ground, String> {
    Ground::prepare(state_dir, &ClusterNetwork::default()).map_err(|why| why.to_string())
}

/// A node that serves a server elsewhere, with the rights of the client. Pods reach the server through a relay.
///
/// # Errors
/// Why this machine cannot run pods, and what to change.
pub async fn remote(client: Client, server: SocketAddr, options: NodeOptions) -> Result<Node, String> {
    let api_ip = ClusterNetwork::default().api_ip;
    start(None, (client.clone(), client), node::relay_to(server), server, api_ip, options).await
}

async fn start(
    ground: Option<Ground>,
    (client, observer): (Client, Client),
    api: ApiAccess,
    api_host_address: SocketAddr,
    api_ip: IpAddr,
    options: NodeOptions,
) -> Result<Node, String> {
    let config = NodeConfig {
        name: options.name,
        client,
        observer,
        node_ports: options.node_ports,
        outside: options.outside,
        state_dir: options.state_dir,
        images: options.images,
        api,
        api_host_address,
        hidden: options.hidden,
        cluster: ClusterNetwork { api_ip, dns_ip: dns_address(api_ip), ..ClusterNetwork::default() },
        version: VERSION.into(),
        serving: options.serving,
        keep: options.keep,
    };
    match (&options.cri, ground) {
        (Some(cri), _) => Node::start_with_engine(config, cri).await,
        (None, Some(ground)) => Node::start_on(ground, config).map_err(|why| why.to_string()),
        (None, None) => Node::start(config).map_err(|why| why.to_string()),
    }
}

/// The tenth address of the service range, as everywhere.
fn dns_address(api_ip: IpAddr) -> IpAddr {
    match api_ip {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + 9).into(),
        IpAddr::V6(first) => std::net::Ipv6Addr::from(u128::from(first) + 9).into(),
    }
}

/// A pod's connection comes from inside its own network; this stands for it where an address is shown.
fn pod_peer() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 244, 0, 0), 0))
}

/// The agent's own API, for the server in this process.
struct Kubelet(node::Handler);

impl NodeApi for Kubelet {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, http::Response<Body>> {
        async move {
            let response = self.0.handle(request).await;
            response.map(|body| body.map_err(BodyError::from).boxed_unsync())
        }
        .boxed()
    }
}
