//! The agent: watches the pods of its node and gives each a worker, keeps the node registered, and answers for logs.
//! What becomes of a pod is the worker's and `decide`'s.

use crate::cri::{CriOptions, CriRuntime};
use crate::dns::{self, Dns};
use crate::env::Surroundings;
use crate::events::{self, Recorder};
use crate::followed::Followed;
use crate::logs::Log;
use crate::network::{self, NodeNetwork, WayOut};
use crate::pod::Pod;
use crate::promised::Promises;
use crate::registration::{self, NodeFacts};
use crate::remote::{ReachableIndex, Sessions};
use crate::runtime::{Runtime, SandboxRuntime};
use crate::sandbox::{self, Exit, Listen, Mount, Protocol, Stdio};
use crate::services::{Port, Service, Services, SharedServices};
use crate::serving::{self, ServingConfig};
use crate::worker::{self, LeftPods, Update};
use futures_util::future::BoxFuture;
use kemudi_client::{Api, Client, Event, FieldSelector, ListOptions};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Serves one connection that a pod made to the API server's address; the pod owns it and may drop it.
pub type ApiAccess = Arc<dyn Fn(TcpStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a node needs to know.
#[derive(Clone)]
pub struct NodeConfig {
    pub name: String,
    /// Reaches the server with the rights of a node.
    pub client: Client,
    /// Reaches the server with the rights to see what the network is made of: endpoints of services, policies, and the pods and
    /// namespaces that these choose.
    pub observer: Client,
    /// Whether services have their ports on this host.
    pub node_ports: bool,
    /// Whether pods reach anything outside of the cluster's network.
    pub outside: WayOut,
    /// A directory for volumes and logs, made if missing and readable by nobody else. One agent at a time.
    pub state_dir: PathBuf,
    /// The images that containers may have besides the machine's own files.
    pub images: images::Store,
    /// Serves what pods connect to the API server's address in the cluster.
    pub api: ApiAccess,
    /// Where the API server is for pods that have the host's network.
    pub api_host_address: SocketAddr,
    /// Further paths of the host that no pod shall see. The state directory never is seen.
    pub hidden: Vec<PathBuf>,
    pub cluster: ClusterNetwork,
    /// The Kubernetes version that the node says it has: `v1.37.2`.
    pub version: String,
    /// Pods outlive an agent that ends without being told to; the next one in this folder goes on with them.
    pub keep: bool,
    /// How an API server in another process reaches the agent; not at all without.
    pub serving: Option<ServingConfig>,
}

/// The addresses and names of the cluster, as pods see them.
#[derive(Clone, Debug)]
pub struct ClusterNetwork {
    /// The address of the service `kubernetes`, port 443.
    pub api_ip: IpAddr,
    /// The address of the cluster's DNS.
    pub dns_ip: IpAddr,
    pub domain: String,
    /// The first address of the /16 that pods have theirs from.
    pub pod_range: Ipv4Addr,
}

impl ClusterNetwork {
    /// The network of a pod with an address of its own.
    pub fn of_pod(&self, address: Ipv4Addr) -> sandbox::Network {
        let listen = |protocol, ip, port| Listen { protocol, address: SocketAddr::new(ip, port) };
        sandbox::Network::Own {
            addresses: vec![self.api_ip, self.dns_ip],
            address: Some(address),
            listen: vec![
                listen(Protocol::Tcp, self.api_ip, API_PORT),
                listen(Protocol::Udp, self.dns_ip, dns::PORT),
                listen(Protocol::Tcp, self.dns_ip, dns::PORT),
            ],
        }
    }

    /// The node's own address among those of its pods.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pod_range.to_bits() | 1)
    }
}

impl Default for ClusterNetwork {
    fn default() -> ClusterNetwork {
        ClusterNetwork {
            api_ip: Ipv4Addr::new(10, 96, 0, 1).into(),
            dns_ip: Ipv4Addr::new(10, 96, 0, 10).into(),
            domain: "cluster.local".into(),
            pod_range: Ipv4Addr::new(10, 244, 0, 0),
        }
    }
}

/// The port of the service `kubernetes`.
pub const API_PORT: u16 = 443;

/// Makes a pod's first container the program of somebody on this machine: with their terminal, environment and files.
/// Stays on this machine, so that none of it goes through the API.
pub struct Attachment {
    pub stdio: Stdio,
    /// Stdin is the terminal, and the program gets its foreground. The caller takes it back afterwards.
    pub terminal: bool,
    /// What the environment starts from; the pod's own variables, and those that Kubernetes sets, win.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
}

/// A running agent. When it is dropped or shut down, every pod of it ends.
pub struct Node {
    shared: Arc<Shared>,
    main: JoinHandle<()>,
}

/// What an agent makes pods with: the spawner, and the process that holds the node's network. Neither needs a server, so that
/// both start while it does.
pub struct Ground(Arc<SandboxRuntime>);

impl Ground {
    /// Starts the spawner for an agent in this folder, which must be nobody else's. See [`NodeConfig::state_dir`].
    ///
    /// # Errors
    /// If the spawner cannot be started or the folder not be made. Whether the host lets this user have pods is found out with
    /// the first: see [`sandbox::check`].
    pub fn prepare(state_dir: &Path, cluster: &ClusterNetwork) -> Result<Ground, sandbox::Error> {
        let staging = state_dir.join("staging");
        make_private(state_dir)?;
        make_private(&staging)?;
        Ok(Ground(Arc::new(SandboxRuntime::start(staging, &id_of(state_dir), cluster.gateway())?)))
    }

    /// Opens the node's network. Where there is none, the agent says why when it comes to use it.
    pub async fn open_network(&self) {
        let _ = self.0.network().await;
    }
}

impl Node {
    /// Starts an agent that runs pods in the sandbox.
    ///
    /// # Errors
    /// As [`Ground::prepare`].
    pub fn start(config: NodeConfig) -> Result<Node, sandbox::Error> {
        let ground = Ground::prepare(&config.state_dir, &config.cluster)?;
        Node::start_on(ground, config)
    }

    /// The same on what was prepared for the same folder and network.
    ///
    /// # Errors
    /// If the folder cannot be used, or nothing listened on.
    pub fn start_on(ground: Ground, config: NodeConfig) -> Result<Node, sandbox::Error> {
        Node::start_with(config, ground.0)
    }

    /// Starts an agent that runs pods by a container runtime, and in the sandbox those whose RuntimeClass says so.
    ///
    /// # Errors
    /// As [`Node::start`], and what the runtime is missing, in words.
    pub async fn start_with_engine(config: NodeConfig, options: &CriOptions) -> Result<Node, String> {
        let staging = config.state_dir.join("staging");
        make_private(&config.state_dir).and_then(|()| make_private(&staging)).map_err(|error| error.to_string())?;
        let id = id_of(&config.state_dir);
        let sandbox = SandboxRuntime::start(staging, &id, config.cluster.gateway()).map_err(|why| why.to_string())?;
        let (cluster, folder) = (config.cluster.clone(), config.state_dir.clone());
        let runtime = CriRuntime::start(options, sandbox, &folder, &id, cluster, config.keep).await?;
        Node::start_with(config, Arc::new(runtime)).map_err(|why| why.to_string())
    }

    /// Starts an agent over another runtime. Must be called on a tokio runtime, which then owns the agent's tasks.
    pub fn start_with(config: NodeConfig, runtime: Arc<dyn Runtime>) -> Result<Node, sandbox::Error> {
        make_private(&config.state_dir)?;
        if !config.keep {
            // What an earlier agent left: its pods ended with it.
            let _ = images::remove_tree(&config.state_dir.join("pods"));
        }
        let host_resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let services = Arc::new(SharedServices::new(first_services(&config.cluster)));
        let dns = Arc::new(Dns {
            services: services.clone(),
            domain: config.cluster.domain.clone(),
            resolvers: dns::resolvers(&host_resolv),
        });
        let host_ip = registration::host_ip();
        let listener = config.serving.as_ref().map(|serving| listen(&host_ip, serving.port)).transpose()?;
        let port = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
        let facts = NodeFacts {
            name: config.name.clone(),
            host_ip,
            pod_range: format!("{}/16", config.cluster.pod_range),
            port,
            version: config.version.clone(),
            allocatable: registration::allocatable(),
            memory_bytes: registration::memory_bytes(),
            runtime: runtime.version(),
        };
        let (events, tell_events) = events::recorder(config.client.clone(), &config.name);
        if let Some(why) = runtime.unlimited() {
            events.node_warning("LimitsNotEnforced", &format!("Pods are not held to limits of cpu and memory: {why}"));
        }
        let (services_known, known) = watch::channel(false);
        let shared = Arc::new(Shared {
            addresses: Mutex::new(Addresses { first: config.cluster.pod_range, ..Addresses::default() }),
            attachments: Mutex::default(),
            logs: Mutex::default(),
            reachable: Mutex::default(),
            sessions: Sessions::default(),
            network: NodeNetwork::default(),
            services_known: known,
            host_resolv,
            config,
            runtime,
            services,
            dns,
            facts,
            events,
            pulls: Semaphore::new(1),
            promises: Promises::default(),
            followed: Followed::default(),
            rates: crate::summary::Rates::default(),
        });
        let main = tokio::spawn({
            let shared = shared.clone();
            async move {
                let left = shared.take_over().await;
                shared.runtime.sweep(left.keys().cloned().collect()).await;
                let serve_others = async {
                    if let (Some(listener), Some(serving)) = (listener, shared.config.serving.clone()) {
                        serving::run(shared.clone(), listener, serving).await;
                    }
                };
                // All of these run until the agent is dropped.
                tokio::join!(
                    serve_others,
                    watch_pods(shared.clone(), left),
                    network::run(shared.clone(), services_known),
                    registration::run(shared.config.client.clone(), shared.facts.clone()),
                    tell_events,
                );
            }
        });
        Ok(Node { shared, main })
    }

    /// Has the first container of a pod that is yet to come run with this; gives how it ended, or why it did not start.
    pub fn attach(
        &self,
        namespace: &str,
        pod: &str,
        attachment: Attachment,
    ) -> oneshot::Receiver<Result<Exit, String>> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.attachments).insert((namespace.to_owned(), pod.to_owned()), (attachment, sender));
        receiver
    }

    /// Answers a request in the form that API servers send to nodes: `GET /containerLogs/NAMESPACE/POD/CONTAINER`.
    pub async fn handle<B>(&self, request: http::Request<B>) -> http::Response<crate::Body> {
        crate::serve::handle(&self.shared, &request.into_parts().0).await
    }

    /// The same, apart from this handle.
    pub fn handler(&self) -> crate::serve::Handler {
        crate::serve::Handler::new(self.shared.clone())
    }

    /// Ends every pod and the agent. The pods' objects stay as they are.
    pub async fn shutdown(mut self) {
        self.main.abort();
        let _ = (&mut self.main).await;
        self.shared.sessions.end().await;
        self.shared.runtime.clear().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.main.abort();
        self.shared.sessions.abort();
    }
}

/// What all workers use.
pub struct Shared {
    pub config: NodeConfig,
    pub runtime: Arc<dyn Runtime>,
    pub services: Arc<SharedServices>,
    /// The services have been told once.
    pub services_known: watch::Receiver<bool>,
    pub dns: Arc<Dns>,
    pub facts: NodeFacts,
    pub events: Recorder,
    /// One image is pulled at a time: whoever waits for the same one finds it there.
    pub pulls: Semaphore,
    /// What pods have been promised of the machine.
    pub promises: Promises,
    /// What the volumes of pods are made of.
    pub followed: Followed,
    /// What was used when somebody asked last.
    pub rates: crate::summary::Rates,
    /// The host's `/etc/resolv.conf`.
    pub host_resolv: String,
    pub logs: Mutex<LogIndex>,
    /// What can be connected to.
    pub reachable: Mutex<ReachableIndex>,
    pub sessions: Sessions,
    pub network: NodeNetwork,
    attachments: Mutex<HashMap<(String, String), Attached>>,
    addresses: Mutex<Addresses>,
}

/// What is attached, and whom to tell the end.
pub type Attached = (Attachment, oneshot::Sender<Result<Exit, String>>);

/// The logs of the pods that are here, by namespace and name, and by container.
pub type LogIndex = HashMap<(String, String), HashMap<String, ContainerLogs>>;

#[derive(Clone, Default)]
pub struct ContainerLogs {
    pub current: Option<Arc<Log>>,
    pub previous: Option<Arc<Log>>,
    /// Why there is none: `ContainerCreating`.
    pub waiting: String,
}

impl Shared {
    pub fn take_attachment(&self, namespace: &str, pod: &str) -> Option<Attached> {
        lock(&self.attachments).remove(&(namespace.to_owned(), pod.to_owned()))
    }

    /// Takes over what an agent before this one has left running.
    async fn take_over(&self) -> LeftPods {
        if !self.config.keep {
            return LeftPods::new();
        }
        let left = worker::take_over(&self.runtime, &self.config.state_dir.join("pods")).await;
        let mut addresses = lock(&self.addresses);
        addresses.used.extend(left.values().filter_map(|pod| pod.kept.address));
        drop(addresses);
        left
    }

    /// An address that no other pod has.
    pub fn take_address(&self) -> Option<Ipv4Addr> {
        lock(&self.addresses).take()
    }

    pub fn give_address_back(&self, address: Ipv4Addr) {
        lock(&self.addresses).used.remove(&address);
    }

    /// What a pod's fields and environment may show.
    pub fn surroundings(&self, pod: &Pod, pod_ip: &str) -> Surroundings {
        let host = self.config.api_host_address;
        let api = match pod.spec.host_network {
            true => (host.ip(), host.port()),
            false => (self.config.cluster.api_ip, API_PORT),
        };
        Surroundings {
            pod_ip: pod_ip.to_owned(),
            host_ip: self.facts.host_ip.clone(),
            allocatable: self.facts.allocatable.clone(),
            api: Some(api),
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(ip: &str, port: u16) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((ip, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What tells an agent's groups from another's: the same whenever it starts in its folder.
fn id_of(state_dir: &Path) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    state_dir.canonicalize().unwrap_or_else(|_| state_dir.to_owned()).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

struct Addresses {
    first: Ipv4Addr,
    last_taken: u16,
    used: HashSet<Ipv4Addr>,
}

impl Default for Addresses {
    fn default() -> Addresses {
        // The first address names the range and the second is a router's by custom.
        Addresses { first: Ipv4Addr::UNSPECIFIED, last_taken: 1, used: HashSet::new() }
    }
}

impl Addresses {
    fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..u16::MAX {
            self.last_taken = self.last_taken.checked_add(1).unwrap_or(2);
            let address = Ipv4Addr::from_bits(self.first.to_bits() | u32::from(self.last_taken));
            if self.used.insert(address) {
                return Some(address);
            }
        }
        None
    }
}

/// Until the watch tells, the one service that every pod needs.
pub fn first_services(cluster: &ClusterNetwork) -> Services {
    let mut services = Services::default();
    services.insert(Service {
        namespace: "default".into(),
        name: "kubernetes".into(),
        addresses: vec![cluster.api_ip],
        ports: vec![Port { name: "https".into(), protocol: "TCP".into(), port: API_PORT, node_port: 0 }],
        ..Service::default()
    });
    services
}

async fn watch_pods(shared: Arc<Shared>, left: LeftPods) {
    let fields = FieldSelector::parse(&format!("spec.nodeName={}", shared.config.name)).unwrap_or_default();
    let options = ListOptions { fields, ..ListOptions::default() };
    let mut watcher = Api::<Pod>::all(shared.config.client.clone()).watcher(&options);
    let mut workers = Workers { shared, tasks: JoinSet::new(), pods: HashMap::new(), left };
    let mut told: HashSet<String> = HashSet::new();
    loop {
        workers.reap();
        match watcher.next().await {
            Ok(Event::Init) => told.clear(),
            Ok(Event::InitApplied(pod)) => {
                told.insert(pod.metadata.uid.clone());
                workers.update(pod);
            }
            Ok(Event::InitDone) => {
                let gone: Vec<String> = workers.pods.keys().filter(|uid| !told.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| workers.gone(uid));
                workers.clear_left(&told).await;
            }
            Ok(Event::Applied(pod)) => workers.update(pod),
            Ok(Event::Deleted(pod)) => workers.gone(&pod.metadata.uid),
            Err(error) => tracing::debug!(%error, "pods cannot be watched at the moment"),
        }
    }
}

struct Workers {
    shared: Arc<Shared>,
    tasks: JoinSet<String>,
    /// By uid.
    pods: HashMap<String, watch::Sender<Update>>,
    /// Of an agent before this one, as long as nobody has asked for them.
    left: LeftPods,
}

impl Workers {
    fn update(&mut self, mut pod: Pod) {
        let uid = pod.metadata.uid.clone();
        if let Some(before) = self.pods.get(&uid).map(|sender| sender.borrow().pod.spec.clone())
            && before == pod.spec
        {
            // Most of what happens to a pod is its status, and who runs of it goes on with the spec of its beginning.
            pod.spec = before;
        }
        if let Some(sender) = self.pods.get(&uid).filter(|sender| !sender.is_closed()) {
            // Its worker knows what it has told.
            pod.forget_own_status();
            sender.send_replace(Update { pod: Arc::new(pod), gone: false });
            return;
        }
        let first = Update { pod: Arc::new(pod), gone: false };
        let (sender, receiver) = watch::channel(first.clone());
        self.pods.insert(uid.clone(), sender);
        let (shared, left) = (self.shared.clone(), self.left.remove(&uid));
        self.tasks.spawn(async move {
            worker::run(shared, first, receiver, left).await;
            uid
        });
    }

    /// Ends what an agent before this one has left and nobody knows any more, and takes its files away.
    async fn clear_left(&mut self, told: &HashSet<String>) {
        for (_, pod) in std::mem::take(&mut self.left) {
            pod.adopted.pod.kill();
            pod.adopted.pod.ended().await;
            if let Some(address) = pod.kept.address {
                self.shared.give_address_back(address);
            }
        }
        let pods = self.shared.config.state_dir.join("pods");
        for entry in std::fs::read_dir(&pods).into_iter().flatten().flatten() {
            let known = |uid: &str| told.contains(uid) || self.pods.contains_key(uid);
            if !entry.file_name().to_str().is_some_and(known) {
                let _ = images::remove_tree(&entry.path());
            }
        }
    }

    fn gone(&mut self, uid: &str) {
        if let Some(sender) = self.pods.get(uid) {
            sender.send_modify(|update| update.gone = true);
        }
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(uid) = ended
                && self.pods.get(&uid).is_some_and(|sender| sender.is_closed())
            {
                self.pods.remove(&uid);
            }
        }
    }
}

fn make_private(path: &std::path::Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Where credentials lie in a user's home directory and on the machine: what pods should not see of it, beside what the
/// caller knows of.
pub fn private_paths(home: Option<&Path>) -> Vec<PathBuf> {
    const IN_HOME: [&str; 11] = [
        ".kube",
        ".ssh",
        ".gnupg",
        ".aws",
        ".azure",
        ".docker",
        ".config/gcloud",
        ".config/gh",
        ".netrc",
        ".git-credentials",
        ".npmrc",
    ];
    const OF_MACHINE: [&str; 8] = [
        "/etc/kubernetes",
        "/var/lib/kubelet",
        "/etc/rancher",
        "/etc/shadow",
        "/etc/shadow-",
        "/etc/gshadow",
        "/etc/gshadow-",
        "/etc/security/opasswd",
    ];
    let keys = std::fs::read_dir("/etc/ssh").into_iter().flatten().flatten().map(|entry| entry.path());
    let keys = keys.filter(|path| path.to_string_lossy().ends_with("_key"));
    let of_machine = OF_MACHINE.iter().map(PathBuf::from).chain(keys);
    let of_user = home.into_iter().flat_map(|home| IN_HOME.iter().map(|name| home.join(name)));
    of_user.chain(of_machine).collect()
}

/// Carries each connection on to a server at another address.
pub fn relay_to(server: SocketAddr) -> ApiAccess {
    Arc::new(move |mut stream| {
        Box::pin(async move {
            match TcpStream::connect(server).await {
                Ok(mut upstream) => drop(tokio::io::copy_bidirectional(&mut stream, &mut upstream).await),
                Err(error) => tracing::debug!(%error, %server, "the API server cannot be reached for a pod"),
            }
        })
    })
}
