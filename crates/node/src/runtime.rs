//! What the agent needs of whatever runs pods: the sandbox today, other runtimes behind the same trait. Carries requests;
//! takes no decision.

use crate::sandbox::{self, ContainerSpec, Error, Exit, MemoryVolume, Network, PodSpec, ProcessSpec, Stdio};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Makes pods.
pub trait Runtime: Send + Sync + 'static {
    fn create_pod(&self, plan: PodPlan) -> BoxFuture<'_, Result<Arc<dyn RunningPod>, Error>>;
}

/// What a pod's containers share.
#[derive(Clone, Debug)]
pub struct PodPlan {
    pub hostname: String,
    /// The pod's one user and group where the agent is not root.
    pub user: (u32, u32),
    pub network: Network,
    pub memory_volumes: Vec<MemoryVolume>,
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
}

impl SandboxRuntime {
    /// Starts the spawner. `staging` is as in [`PodSpec`].
    pub fn start(staging: PathBuf) -> Result<SandboxRuntime, Error> {
        Ok(SandboxRuntime { sandbox: sandbox::Sandbox::start()?, staging })
    }

    /// With a spawner that runs already, as another user for one.
    #[doc(hidden)]
    pub fn with(sandbox: sandbox::Sandbox, staging: PathBuf) -> SandboxRuntime {
        SandboxRuntime { sandbox, staging }
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
        };
        async move {
            let pod = self.sandbox.create_pod(spec).await?;
            Ok(Arc::new(SandboxPod(Arc::new(pod))) as Arc<dyn RunningPod>)
        }
        .boxed()
    }
}

struct SandboxPod(Arc<sandbox::Pod>);

impl RunningPod for SandboxPod {
    fn take_listeners(&self) -> Vec<OwnedFd> {
        self.0.take_listeners()
    }

    fn start(&self, spec: ContainerSpec, stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        async move {
            let process = self.0.start(spec, stdio).await?;
            Ok(Arc::new(SandboxProcess { pod: self.0.clone(), process }) as Arc<dyn RunningProcess>)
        }
        .boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<TcpStream, Error>> {
        self.0.connect(address).boxed()
    }

    fn kill(&self) {
        self.0.kill();
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        self.0.ended().boxed()
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
