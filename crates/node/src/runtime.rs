//! What the agent needs of whatever runs pods: the sandbox, or a runtime behind the Container Runtime Interface, behind the same
//! trait. Carries requests; takes no decision.

use crate::agent::lock;
use crate::cgroups::{Cgroups, Group};
use crate::images::Files;
use crate::logs::Log;
use crate::pod::{Container, Pod};
use crate::sandbox::{self, ContainerSpec, Error, Exit, MemoryVolume, Network, PodSpec, ProcessSpec, Stdio, Switch};
use crate::spares::Spares;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use streams::remote_command::{Options, Outcome, Streams};
use tokio::net::TcpStream;
use tokio::sync::watch;

pub use crate::cgroups::{Limits, Usage};

/// Makes pods.
pub trait Runtime: Send + Sync + 'static {
    fn create_pod(&self, plan: PodPlan) -> BoxFuture<'_, Result<Arc<dyn RunningPod>, Error>>;

    /// The network that its pods are in, where the agent is to see to it. An error is why there is none.
    fn network(&self) -> BoxFuture<'_, Result<Arc<Switch>, String>> {
        async { Err("this runtime has no network that the agent knows of".to_owned()) }.boxed()
    }
    /// Takes over a pod that an agent before this one was told to keep there. `address` is the one that it has in
    /// the network. An error if it is not there any more, or not to be had.
    fn adopt(&self, uid: &str, keep: PathBuf, address: Option<Ipv4Addr>) -> BoxFuture<'_, Result<Adopted, Error>>;
    /// Why pods are not held to their limits; nothing where they are.
    fn unlimited(&self) -> Option<String>;
    /// Takes away what other pods than these have left here, of an agent before this one.
    fn sweep(&self, uids: Vec<String>) -> BoxFuture<'_, ()>;
    /// Takes away what pods that have ended may have left; no pod comes afterwards.
    fn clear(&self) -> BoxFuture<'_, ()>;

    /// Who has the images and writes the logs of pods with this handler of a RuntimeClass, which is empty where they have none;
    /// nobody where the agent does.
    ///
    /// # Errors
    /// There is no such handler here.
    fn engine(&self, handler: &str) -> Result<Option<Arc<dyn Engine>>, String> {
        match handler {
            "" | SANDBOX_HANDLER => Ok(None),
            other => Err(no_handler(other)),
        }
    }

    /// What it calls itself: `containerd://1.7.24`; nothing where it is a part of the agent.
    fn version(&self) -> Option<String> {
        None
    }
}

/// The handler of a RuntimeClass whose pods run in the sandbox, whatever else the node has.
pub const SANDBOX_HANDLER: &str = "sandbox";

/// As the kubelet tells what a container runtime says of it.
pub fn no_handler(name: &str) -> String {
    format!(
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for {name:?} is \
         configured"
    )
}

/// A container engine: what has images and containers of its own.
pub trait Engine: Send + Sync + 'static {
    /// An image that it has, by its whole name.
    fn image(&self, name: &str) -> BoxFuture<'_, Result<Option<EngineImage>, String>>;
    /// Has it get an image. An error is a refusal of whoever asks, if it is [`images::Error::Denied`].
    fn pull(&self, name: &str, auth: &images::Auth) -> BoxFuture<'_, Result<(), images::Error>>;
}

/// An image of an engine.
#[derive(Clone, Debug)]
pub struct EngineImage {
    /// As a status shows it: by content under its registry's name, or its id.
    pub shown: String,
    /// What the engine calls it.
    pub id: String,
    pub bytes: u64,
    pub config: images::Config,
}

/// A container of an engine: what else can be had of it.
pub trait EngineProcess: Send + Sync {
    /// What users of the engine know it by: `containerd://ID`.
    fn name(&self) -> String;
    /// The log that the engine writes: from now on it is kept in files of limited size, as long as the container runs.
    fn keep_log(&self, log: Arc<Log>);
    /// Runs a command to its end: how that was, and what it printed.
    ///
    /// # Errors
    /// Why it could not be run, or did not end in time.
    fn run(&self, argv: &[String], limit: std::time::Duration) -> BoxFuture<'_, Result<(Exit, String), String>>;
    /// Runs a command with a client's streams, until it ends or the client has gone.
    fn exec(&self, argv: Vec<String>, options: Options, streams: Streams) -> BoxFuture<'_, Outcome>;
    /// Joins in on the container's own streams.
    fn attach(&self, options: Options, streams: Streams) -> BoxFuture<'_, Outcome>;
}

/// What a pod's containers share.
#[derive(Clone, Debug)]
pub struct PodPlan {
    pub uid: String,
    pub hostname: String,
    pub limits: Limits,
    /// The container that will be started first as far as is known, by the name of its plan, and its limits: so that it need not
    /// be waited for that a group is made for it.
    pub first: Option<(String, Limits)>,
    /// As [`ProcessSpec::oom_score`], for what is below zero and only the agent may set.
    pub oom_score: i32,
    /// The pod's one user and group where the agent is not root.
    pub user: (u32, u32),
    pub network: Network,
    pub memory_volumes: Vec<MemoryVolume>,
    /// As in [`PodSpec`].
    pub sysctls: Vec<(String, String)>,
    /// As in [`PodSpec`].
    pub keep: Option<PathBuf>,
    /// The whole of what was asked for, and the agent's folder for it.
    pub pod: Arc<Pod>,
    pub folder: PathBuf,
    /// The handler of its RuntimeClass; empty without one.
    pub handler: String,
}

/// A pod that an agent before this one has left, and its containers.
pub struct Adopted {
    pub pod: Arc<dyn RunningPod>,
    /// Whose it is, if not the agent's own.
    pub engine: Option<Arc<dyn Engine>>,
    pub left: Vec<LeftContainer>,
}

/// A container of such a pod, by the name of its plan. Its process may have ended meanwhile.
pub struct LeftContainer {
    pub name: String,
    pub process: Arc<dyn RunningProcess>,
    pub ended: Option<Timestamp>,
    /// What was kept of it.
    pub kept: Vec<OwnedFd>,
}

/// A container to start.
pub struct ContainerPlan {
    /// No other container of the pod has it, before or after.
    pub name: String,
    pub spec: ContainerSpec,
    pub limits: Limits,
    /// Whose processes it sees, instead of what the spec says.
    pub beside: Option<Arc<dyn RunningProcess>>,
    /// What the next agent is to have of it, where the pod is kept.
    pub kept: Vec<OwnedFd>,
    /// The whole of what was asked for, and which attempt it is.
    pub pod: Arc<Pod>,
    pub container: Arc<Container>,
    pub attempt: u32,
    pub files: Files,
    /// Where an engine writes its log.
    pub log: PathBuf,
}

/// A pod with its network up. Everything in it ends when this is dropped.
pub trait RunningPod: Send + Sync + 'static {
    /// The listening sockets in the order of the plan; once.
    fn take_listeners(&self) -> Vec<OwnedFd>;
    /// Starts a container; resolves when its program runs.
    fn start(&self, plan: ContainerPlan, stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>>;
    /// Holds all of it to other limits.
    fn set_limits(&self, limits: &Limits) -> BoxFuture<'_, io::Result<()>>;
    /// What all of it uses; nothing where nobody counts.
    fn usage(&self) -> Option<Usage>;
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
    /// Keeps something more of the container for the next agent.
    fn keep(&self, fd: OwnedFd) -> BoxFuture<'_, ()>;
    /// What the pod knows it by.
    fn id(&self) -> u32;
    /// Whether the kernel has ended a process of the container because it had no memory left.
    fn out_of_memory(&self) -> bool;
    /// Holds the container to other limits.
    fn set_limits(&self, limits: &Limits) -> BoxFuture<'_, io::Result<()>>;
    /// What the container uses; nothing where nobody counts.
    fn usage(&self) -> Option<Usage>;
    /// Takes away what counted it, once it has ended and everything was asked.
    fn clear(&self) -> BoxFuture<'_, ()>;
    /// What an engine does for it; nothing where the agent has its streams.
    fn engine(&self) -> Option<&dyn EngineProcess> {
        None
    }
}

/// Pods in namespaces of this machine.
pub struct SandboxRuntime {
    sandbox: Arc<sandbox::Sandbox>,
    spares: Arc<Spares>,
    staging: PathBuf,
    gateway: Ipv4Addr,
    /// Or why there are none.
    groups: Result<Arc<Cgroups>, String>,
}

impl SandboxRuntime {
    /// Starts the spawner. `staging` is as in [`PodSpec`]; `id` is the same for the same agent, and no other's; `gateway` is the
    /// node's address as its pods see it.
    pub fn start(staging: PathBuf, id: &str, gateway: Ipv4Addr) -> Result<SandboxRuntime, Error> {
        // Before anything is started: what is started is in the agent's own group too.
        let groups = Cgroups::open(id).map(Arc::new);
        Ok(SandboxRuntime::of(sandbox::Sandbox::start()?, staging, gateway, groups))
    }

    /// With a spawner that runs already, as another user for one. Without limits.
    #[doc(hidden)]
    pub fn with(sandbox: sandbox::Sandbox, staging: PathBuf, gateway: Ipv4Addr) -> SandboxRuntime {
        SandboxRuntime::of(sandbox, staging, gateway, Err("this node runs without cgroups".into()))
    }

    fn of(
        sandbox: sandbox::Sandbox,
        staging: PathBuf,
        gateway: Ipv4Addr,
        groups: Result<Arc<Cgroups>, String>,
    ) -> SandboxRuntime {
        let sandbox = Arc::new(sandbox);
        SandboxRuntime { spares: Spares::new(sandbox.clone()), sandbox, staging, gateway, groups }
    }
}

/// Whether pods of this user are held to limits on this machine.
///
/// # Errors
/// Why not, and what would change it.
pub fn limits_here() -> Result<(), String> {
    Cgroups::open(&format!("check-{}", std::process::id())).map(drop)
}

impl Runtime for SandboxRuntime {
    fn create_pod(&self, plan: PodPlan) -> BoxFuture<'_, Result<Arc<dyn RunningPod>, Error>> {
        // As root they have no meaning, and a pod is as good as another.
        let (uid, gid) = if rustix::process::geteuid().is_root() { (0, 0) } else { plan.user };
        let spec = PodSpec {
            hostname: plan.hostname,
            staging: self.staging.clone(),
            uid,
            gid,
            network: plan.network,
            memory_volumes: plan.memory_volumes,
            sysctls: plan.sysctls,
            processes_max: plan.limits.pids.filter(|_| self.groups.is_err()),
            keep: plan.keep,
        };
        async move {
            // Without it the pod is alone with its address, which whoever asks for the network is told.
            let switch = self.sandbox.open_network(self.gateway).await.ok();
            let wire = match &spec.network {
                Network::Own { address: Some(address), .. } => switch.map(|switch| (switch, *address)),
                _ => None,
            };
            // The init stays in the agent's group: to move it would take as long as all the rest, and it takes next to nothing.
            let group = async {
                let Ok(groups) = &self.groups else { return Ok((None, None)) };
                let group = groups.limited_pod(&plan.uid, &plan.limits)?;
                // What is wrong with it is told when it is wanted.
                let first = plan.first.and_then(|(name, limits)| {
                    let leaf = group.leaf(&name, &limits).ok()?;
                    Some(FirstGroup { name, limits, leaf })
                });
                Ok::<_, io::Error>((Some(group), first))
            };
            // First the spawner is asked: the groups are made while it is at work.
            let (made, group) = tokio::join!(self.spares.create_pod(spec), group);
            match (made, group) {
                (Ok(pod), Ok((group, first))) => {
                    if plan.oom_score < 0 {
                        // Only root may; to others it is what it would be without.
                        let _ =
                            std::fs::write(format!("/proc/{}/oom_score_adj", pod.pid()), plan.oom_score.to_string());
                    }
                    let groups = self.groups.as_ref().ok().cloned();
                    let (pod, spares, first) = (Arc::new(pod), Arc::downgrade(&self.spares), Mutex::new(first));
                    Ok(Arc::new(SandboxPod { pod, spares, wire, group, first, _groups: groups }) as Arc<dyn RunningPod>)
                }
                (Ok(_), Err(error)) => Err(error.into()),
                (Err(error), group) => {
                    if let Ok((Some(group), _)) = group {
                        group.remove().await;
                    }
                    Err(error)
                }
            }
        }
        .boxed()
    }

    fn adopt(&self, uid: &str, keep: PathBuf, address: Option<Ipv4Addr>) -> BoxFuture<'_, Result<Adopted, Error>> {
        let groups = self.groups.as_ref().ok().cloned();
        let uid = uid.to_owned();
        async move {
            let switch = self.sandbox.open_network(self.gateway).await.ok();
            let wire = switch.zip(address);
            let on = wire.as_ref().map(|(switch, address)| (&**switch, *address));
            let (pod, left) = sandbox::Pod::adopt(&keep, on).await?;
            let pod = Arc::new(pod);
            let group = groups.as_ref().map(|groups| groups.pod(&uid)).transpose()?;
            let left = left.into_iter().map(|left| LeftContainer {
                process: Arc::new(SandboxProcess {
                    pod: pod.clone(),
                    process: left.process,
                    group: group.as_ref().map(|group| group.at(&left.name)),
                }),
                name: left.name,
                ended: left.ended_ms.and_then(|at| Timestamp::from_millisecond(at).ok()),
                kept: left.kept,
            });
            let left = left.collect();
            let (spares, first) = (Arc::downgrade(&self.spares), Mutex::default());
            let pod = SandboxPod { pod, spares, wire, group, first, _groups: groups };
            Ok(Adopted { engine: None, pod: Arc::new(pod), left })
        }
        .boxed()
    }

    fn unlimited(&self) -> Option<String> {
        self.groups.as_ref().err().cloned()
    }

    fn sweep(&self, uids: Vec<String>) -> BoxFuture<'_, ()> {
        async move {
            if let Ok(groups) = &self.groups {
                groups.remove_others(&uids).await;
            }
        }
        .boxed()
    }

    fn clear(&self) -> BoxFuture<'_, ()> {
        async move {
            self.spares.close();
            if let Ok(groups) = &self.groups {
                groups.remove().await;
            }
        }
        .boxed()
    }

    fn network(&self) -> BoxFuture<'_, Result<Arc<Switch>, String>> {
        self.sandbox.open_network(self.gateway).boxed()
    }
}

struct SandboxPod {
    pod: Arc<sandbox::Pod>,
    /// To be told of what is started; the spawner does not live as long as a pod.
    spares: Weak<Spares>,
    /// The node's network, and the pod's address in it.
    wire: Option<(Arc<Switch>, Ipv4Addr)>,
    group: Option<Group>,
    /// Until its first container is started.
    first: Mutex<Option<FirstGroup>>,
    /// What its group is in goes after it.
    _groups: Option<Arc<Cgroups>>,
}

/// A group that was made for the first container.
struct FirstGroup {
    name: String,
    limits: Limits,
    leaf: Group,
}

impl Drop for SandboxPod {
    fn drop(&mut self) {
        // Nobody waits for the end of a pod that is dropped; its group would stay.
        if let Some(group) = self.group.as_ref().filter(|group| group.is_there()) {
            self.pod.kill();
            self.pod.wait_ended();
            group.remove_now();
        }
    }
}

impl RunningPod for SandboxPod {
    fn take_listeners(&self) -> Vec<OwnedFd> {
        self.pod.take_listeners()
    }

    fn start(&self, plan: ContainerPlan, stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        async move {
            let _under_way = self.spares.upgrade().map(|spares| spares.starting());
            let mut spec = plan.spec;
            if let Some(other) = plan.beside.filter(|_| spec.process_namespace == sandbox::ProcessNamespace::Own) {
                spec.process_namespace = sandbox::ProcessNamespace::Of(other.id());
            }
            let first = lock(&self.first).take().filter(|it| it.name == plan.name && it.limits == plan.limits);
            let group = match first {
                Some(first) => Some(first.leaf),
                None => self.group.as_ref().map(|group| group.leaf(&plan.name, &plan.limits)).transpose()?,
            };
            let mut doors = Vec::new();
            if let Some(group) = &group {
                group.end_together();
                spec.groups = group.folders();
                doors = group.doors()?;
            }
            match self.pod.start_in(&plan.name, spec, stdio, doors, plan.kept).await {
                Ok(process) => {
                    Ok(Arc::new(SandboxProcess { pod: self.pod.clone(), process, group }) as Arc<dyn RunningProcess>)
                }
                Err(error) => {
                    if let Some(group) = group {
                        group.remove().await;
                    }
                    Err(error)
                }
            }
        }
        .boxed()
    }

    fn set_limits(&self, limits: &Limits) -> BoxFuture<'_, io::Result<()>> {
        let set = self.group.as_ref().map_or(Ok(()), |group| group.set(limits));
        async { set }.boxed()
    }

    fn usage(&self) -> Option<Usage> {
        self.group.as_ref().map(Group::usage)
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
        async move {
            self.pod.ended().await;
            if let Some(group) = &self.group {
                group.remove().await;
            }
        }
        .boxed()
    }
}

struct SandboxProcess {
    pod: Arc<sandbox::Pod>,
    process: sandbox::Process,
    /// The container's; it is there until it is cleared, so that what it counted can be read.
    group: Option<Group>,
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
            let doors = self.group.as_ref().map(Group::doors).transpose()?.unwrap_or_default();
            let process = self.pod.exec_in(&self.process, spec, stdio, doors).await?;
            let (pod, group) = (self.pod.clone(), self.group.clone());
            Ok(Arc::new(SandboxProcess { pod, process, group }) as Arc<dyn RunningProcess>)
        }
        .boxed()
    }

    fn keep(&self, fd: OwnedFd) -> BoxFuture<'_, ()> {
        self.process.keep(fd).map(drop).boxed()
    }

    fn id(&self) -> u32 {
        self.process.id()
    }

    fn out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.oom_kills() > 0)
    }

    fn set_limits(&self, limits: &Limits) -> BoxFuture<'_, io::Result<()>> {
        let set = self.group.as_ref().map_or(Ok(()), |group| group.set(limits));
        async { set }.boxed()
    }

    fn usage(&self) -> Option<Usage> {
        self.group.as_ref().map(Group::usage)
    }

    fn clear(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(group) = &self.group {
                group.remove().await;
            }
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

    fn adopt(&self, _: &str, _: PathBuf, _: Option<Ipv4Addr>) -> BoxFuture<'_, Result<Adopted, Error>> {
        async { Err(Error::Ended) }.boxed()
    }

    fn unlimited(&self) -> Option<String> {
        Some("these pods have no processes".into())
    }

    fn sweep(&self, _uids: Vec<String>) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn clear(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

struct FakePod {
    killed: watch::Sender<bool>,
}

impl RunningPod for FakePod {
    fn take_listeners(&self) -> Vec<OwnedFd> {
        Vec::new()
    }

    fn start(&self, plan: ContainerPlan, _stdio: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        let process = FakeProcess::new(&plan.spec.process, self.killed.subscribe());
        async { Ok(Arc::new(process) as Arc<dyn RunningProcess>) }.boxed()
    }

    fn set_limits(&self, _limits: &Limits) -> BoxFuture<'_, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn usage(&self) -> Option<Usage> {
        None
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

    fn keep(&self, _fd: OwnedFd) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn id(&self) -> u32 {
        0
    }

    fn out_of_memory(&self) -> bool {
        false
    }

    fn set_limits(&self, _limits: &Limits) -> BoxFuture<'_, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn usage(&self) -> Option<Usage> {
        None
    }

    fn clear(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

const KILLED: Exit = Exit::Signal(9);
