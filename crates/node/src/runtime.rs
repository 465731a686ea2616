//! What the agent needs of whatever runs pods: the sandbox today, other runtimes behind the same trait. Carries requests;
//! takes no decision.

use crate::sandbox::{self, ContainerSpec, Error, Exit, MemoryVolume, Network, PodSpec, ProcessSpec, Stdio, Switch};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Makes pods.
pub trait Runtime: Send + Sync + 'static {
    fn create_pod(&self, plan: PodPlan) -> BoxFuture<'_, Result<Arc<dyn RunningPod>, Error>>;

    /// The network that its pods are in, where the agent is to see to it. An error is why there is none.
    fn network(&self) -> BoxFuture<'_, Result<Arc<Switch>, String>> {
        async { Err("this runtime has no network that the agent knows of".to_owned()) }.boxed()
    }
}

/// What a pod's containers share.
#[derive(Clone, Debug)]
pub struct PodPlan {
    pub hostname: String,
    /// The pod's one user and group where the agent is not root.
    pub user: (u32, u32),
    pub network: Network,
    pub memory_volumes: Vec<MemoryVolume>,
    /// As in [`PodSpec`].
    pub sysctls: Vec<(String, String)>,
}

/// A pod with its network up. Everything in it ends when this is dropped.
pub trait RunningPod: Send + Sync + 'static {
    /// The listening sockets in the order of the plan; once.
    fn take_listeners(&self) -> Vec<OwnedFd>;
    /// Starts a container; resolves when its program runs.
    fn start(&self, spec: ContainerSpec, stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>>;
    /// Connects to an address of the pod.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<TcpStream, Error>>;
    /// Kills everything in it.
    fn kill(&self);
    /// Resolves when nothing of it is left.
    fn ended(&self) -> BoxFuture<'_, ()>;
}

/// A container's process, or one beside it.
pub trait RunningProcess: Send + Sync + 'static {
    fn signal(&self, signal: i32) -> BoxFuture<'_, ()>;
    fn wait(&self) -> BoxFuture<'_, Exit>;
    /// Starts another program in the same container.
    fn exec(&self, spec: ProcessSpec, stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>>;
}

/// Pods in namespaces of this machine.
pub struct SandboxRuntime {
    sandbox: sandbox::Sandbox,
    staging: PathBuf,
    gateway: Ipv4Addr,
}

impl SandboxRuntime {
    /// Starts the spawner. `staging` is as in [`PodSpec`]; `gateway` is the node's address as its pods see it.
    pub fn start(staging: PathBuf, gateway: Ipv4Addr) -> Result<SandboxRuntime, Error> {
        Ok(SandboxRuntime { sandbox: sandbox::Sandbox::start()?, staging, gateway })
    }

    /// With a spawner that runs already, as another user for one.
    #[doc(hidden)]
    pub fn with(sandbox: sandbox::Sandbox, staging: PathBuf, gateway: Ipv4Addr) -> SandboxRuntime {
        SandboxRuntime { sandbox, staging, gateway }
    }
}

impl Runtime for SandboxRuntime {
    fn create_pod(&self, plan: PodPlan) -> BoxFuture<'_, Result<Arc<dyn RunningPod>, Error>> {
        let spec = PodSpec {
            hostname: plan.hostname,
            staging: self.staging.clone(),
            uid: plan.user.0,
            gid: plan.user.1,
            network: plan.network,
            memory_volumes: plan.memory_volumes,
            sysctls: plan.sysctls,
        };
        async move {
            // Without it the pod is alone with its address, which whoever asks for the network is told.
            let switch = self.sandbox.open_network(self.gateway).await.ok();
            let wire = match &spec.network {
                Network::Own { address: Some(address), .. } => switch.map(|switch| (switch, *address)),
                _ => None,
            };
            let pod = Arc::new(self.sandbox.create_pod(spec).await?);
            Ok(Arc::new(SandboxPod { pod, wire }) as Arc<dyn RunningPod>)
        }
        .boxed()
    }

    fn network(&self) -> BoxFuture<'_, Result<Arc<Switch>, String>> {
        self.sandbox.open_network(self.gateway).boxed()
    }
}

struct SandboxPod {
    pod: Arc<sandbox::Pod>,
    /// The node's network, and the pod's address in it.
    wire: Option<(Arc<Switch>, Ipv4Addr)>,
}

impl RunningPod for SandboxPod {
    fn take_listeners(&self) -> Vec<OwnedFd> {
        self.pod.take_listeners()
    }

    fn start(&self, spec: ContainerSpec, stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        async move {
            let process = self.pod.start(spec, stdio).await?;
            Ok(Arc::new(SandboxProcess { pod: self.pod.clone(), process }) as Arc<dyn RunningProcess>)
        }
        .boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<TcpStream, Error>> {
        match (&self.wire, address) {
            // From outside of the pod, as whoever else reaches it.
            (Some((switch, own)), SocketAddr::V4(to)) if to.ip() == own => {
                async move { Ok(switch.connect(to).await?) }.boxed()
            }
            _ => self.pod.connect(address).boxed(),
        }
    }

    fn kill(&self) {
        self.pod.kill();
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        self.pod.ended().boxed()
    }
}

struct SandboxProcess {
    pod: Arc<sandbox::Pod>,
    process: sandbox::Process,
}

impl RunningProcess for SandboxProcess {
    fn signal(&self, signal: i32) -> BoxFuture<'_, ()> {
        // A pod that has ended needs no signal.
        self.process.signal(signal).map(drop).boxed()
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        self.process.wait().boxed()
    }

    fn exec(&self, spec: ProcessSpec, stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        async move {
            let process = self.pod.exec(&self.process, spec, stdio).await?;
            Ok(Arc::new(SandboxProcess { pod: self.pod.clone(), process }) as Arc<dyn RunningProcess>)
        }
        .boxed()
    }
}

/// Pods without processes, for tests of what is above: a container runs until it is signalled, unless its command is
/// `exit N`, which ends at once. `exec` of `exit N` does the same; nothing listens and nothing is printed.
#[derive(Default)]
pub struct FakeRuntime;

impl Runtime for FakeRuntime {
    fn create_pod(&self, _plan: PodPlan) -> BoxFuture<'_, Result<Arc<dyn RunningPod>, Error>> {
        let pod = FakePod { killed: watch::channel(false).0 };
        async { Ok(Arc::new(pod) as Arc<dyn RunningPod>) }.boxed()
    }
}

struct FakePod {
    killed: watch::Sender<bool>,
}

impl RunningPod for FakePod {
    fn take_listeners(&self) -> Vec<OwnedFd> {
        Vec::new()
    }

    fn start(&self, spec: ContainerSpec, _stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        let process = FakeProcess::new(&spec.process, self.killed.subscribe());
        async { Ok(Arc::new(process) as Arc<dyn RunningProcess>) }.boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<TcpStream, Error>> {
        async move { Ok(TcpStream::connect(address).await?) }.boxed()
    }

    fn kill(&self) {
        self.killed.send_replace(true);
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

struct FakeProcess {
    exit: watch::Sender<Option<Exit>>,
    pod_killed: watch::Receiver<bool>,
}

impl FakeProcess {
    fn new(spec: &ProcessSpec, pod_killed: watch::Receiver<bool>) -> FakeProcess {
        let exit = match spec.argv.as_slice() {
            [word, code] if word == "exit" => code.parse().ok().map(Exit::Code),
            _ => None,
        };
        FakeProcess { exit: watch::channel(exit).0, pod_killed }
    }
}

impl RunningProcess for FakeProcess {
    fn signal(&self, signal: i32) -> BoxFuture<'_, ()> {
        self.exit.send_if_modified(|exit| exit.is_none() && exit.insert(Exit::Signal(signal)).code() > 0);
        async {}.boxed()
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        let (mut exit, mut killed) = (self.exit.subscribe(), self.pod_killed.clone());
        async move {
            tokio::select! {
                Ok(exit) = async { exit.wait_for(Option::is_some).await.map(|exit| *exit) } => exit,
                _ = async { killed.wait_for(|killed| *killed).await.is_ok() } => None,
                else => None,
            }
            .unwrap_or(KILLED)
        }
        .boxed()
    }

    fn exec(&self, spec: ProcessSpec, _stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        let process = FakeProcess::new(&spec, self.pod_killed.clone());
        async { Ok(Arc::new(process) as Arc<dyn RunningProcess>) }.boxed()
    }
}

const KILLED: Exit = Exit::Signal(9);
