//! Pods behind the Container Runtime Interface: containerd, or whatever else listens on its socket. What a pod is to be, and what is
//! in its volumes and files, is the agent's as in the sandbox, and so is its network; images, processes and logs are the runtime's.
//! A node that has it has the sandbox too, for pods whose RuntimeClass has the handler `sandbox`.

mod client;
mod config;
mod exits;
mod images;
mod messages;
mod mounts;
mod network;
mod pod;
mod process;
mod streaming;

pub use network::plugin_main;

use self::client::{Client, UNIMPLEMENTED};
use self::exits::Exits;
use self::network::{Folders, Plugins};
use self::pod::CriPod;
use crate::agent::ClusterNetwork;
use crate::runtime::{Adopted, Engine, PodPlan, RunningPod, Runtime, SANDBOX_HANDLER, SandboxRuntime, no_handler};
use crate::sandbox::{Error, Failure, Switch};
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Where containerd listens unless it is told otherwise.
pub const DEFAULT_ENDPOINT: &str = "unix:///run/containerd/containerd.sock";
/// How long the runtime may take to see the network's configuration, and how often it is asked meanwhile: it tells nobody.
const NETWORK_READY_TIME_MAX: Duration = Duration::from_secs(10);
const NETWORK_READY_EVERY: Duration = Duration::from_millis(50);
/// Pods that are ended at a time where all of them are.
const ENDING_MAX: usize = 8;

/// How a runtime is found.
#[derive(Clone, Debug)]
pub struct CriOptions {
    /// `unix:///run/containerd/containerd.sock`
    pub endpoint: String,
    /// Where the runtime looks for network plugins and their configuration; asked of the runtime where these are left out.
    pub cni_bin_dir: Option<PathBuf>,
    pub cni_conf_dir: Option<PathBuf>,
}

impl Default for CriOptions {
    fn default() -> CriOptions {
        CriOptions { endpoint: DEFAULT_ENDPOINT.into(), cni_bin_dir: None, cni_conf_dir: None }
    }
}

/// Pods of a container runtime, and of the sandbox beside them.
pub struct CriRuntime {
    inner: Arc<Inner>,
    /// What listens to the runtime and to its plugins; ends with this.
    _tasks: JoinSet<()>,
}

/// What its pods use.
struct Inner {
    client: Arc<Client>,
    exits: Arc<Exits>,
    plugins: Arc<Plugins>,
    folders: Folders,
    sandbox: SandboxRuntime,
    switch: Arc<Switch>,
    cluster: ClusterNetwork,
    /// The agent's folders of pods.
    pods: PathBuf,
    /// What its pods are known by.
    agent: String,
    /// `containerd`, and its version.
    name: String,
    version: String,
    /// Those that the runtime tells; empty where it does not.
    handlers: HashSet<String>,
}

impl CriRuntime {
    /// Connects to a runtime and makes the network of its pods known to it. `id` is the same for the same agent, and no other's; with
    /// `keep`, pods of an agent before this one may be taken over.
    ///
    /// # Errors
    /// What is missing, and how it is had.
    pub async fn start(
        options: &CriOptions,
        sandbox: SandboxRuntime,
        state_dir: &Path,
        id: &str,
        cluster: ClusterNetwork,
        keep: bool,
    ) -> Result<CriRuntime, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("pods of a container runtime need root: run kemudi as root, or leave out --node cri".into());
        }
        let pods = state_dir.join("pods");
        mounts::clear_others(&pods, |folder| keep && folder.join("state.json").exists());
        let path = options.endpoint.strip_prefix("unix://").unwrap_or(&options.endpoint);
        let client = Arc::new(Client::new(Path::new(path)));
        let version = client.version().await.map_err(|error| {
            let hint = match error.code {
                UNIMPLEMENTED => {
                    "it does not speak version 1 of the CRI: use containerd 1.6 or later, or CRI-O 1.20 or later"
                }
                _ => "start it (containerd), or say where it listens with --container-runtime-endpoint unix:///PATH",
            };
            format!("no container runtime answers at {}: {error}; {hint}", options.endpoint)
        })?;
        let status = client.status().await.map_err(|error| error.to_string())?;
        let told = status.info.get("config").and_then(|config| Folders::of(config));
        let folders = Folders {
            programs: options.cni_bin_dir.clone().or_else(|| Some(told.as_ref()?.programs.clone())).ok_or(
                "the container runtime does not tell where its network plugins are: say so with --cni-bin-dir",
            )?,
            configurations: options
                .cni_conf_dir
                .clone()
                .or_else(|| Some(told.as_ref()?.configurations.clone()))
                .ok_or(
                    "the container runtime does not tell where its network is configured: say so with --cni-conf-dir",
                )?,
        };
        let switch = sandbox.network().await.map_err(|why| format!("the pods' network: {why}"))?;
        let socket = state_dir.join("cni.sock");
        let (plugins, listener) =
            Plugins::new(socket, switch.clone()).map_err(|error| format!("the pods' network: {error}"))?;
        plugins.install(&folders).map_err(|why| format!("the pods' network plugin cannot be installed: {why}"))?;
        let exits = Arc::new(Exits::new(client.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(plugins.clone().run(listener));
        let listening = exits.clone();
        tasks.spawn(async move { listening.run().await });
        let inner = Arc::new(Inner {
            client,
            exits,
            plugins,
            folders,
            sandbox,
            switch,
            cluster,
            pods,
            agent: id.to_owned(),
            name: version.runtime_name,
            version: version.runtime_version,
            handlers: status.runtime_handlers.into_iter().map(|handler| handler.name).collect(),
        });
        inner.wait_for_network().await?;
        Ok(CriRuntime { inner, _tasks: tasks })
    }
}

impl Inner {
    async fn wait_for_network(&self) -> Result<(), String> {
        let ready = async {
            loop {
                let status = self.client.status().await.map_err(|error| error.to_string())?.status.unwrap_or_default();
                match status.conditions.into_iter().find(|it| it.kind == "NetworkReady" && !it.status) {
                    None => return Ok(()),
                    Some(_) => tokio::time::sleep(NETWORK_READY_EVERY).await,
                }
            }
        };
        tokio::time::timeout(NETWORK_READY_TIME_MAX, ready).await.unwrap_or_else(|_| {
            Err(format!(
                "the container runtime does not take the network's configuration in {}; its log tells why",
                self.folders.configurations.display()
            ))
        })
    }

    fn images(&self) -> Arc<dyn Engine> {
        Arc::new(images::Images(self.client.clone()))
    }

    /// Ends a pod and takes it away, with what was mounted for it.
    async fn remove(&self, id: &str) {
        // One that cannot be ended now is tried again by the next sweep.
        for result in [self.client.stop_pod_sandbox(id).await, self.client.remove_pod_sandbox(id).await] {
            if let Err(error) = result {
                tracing::warn!(%error, id, "a pod stays with the container runtime");
            }
        }
    }

    /// The pods of this agent: their ids and uids.
    async fn pods(&self) -> Vec<(String, String)> {
        match self.client.pod_sandboxes(&[(config::AGENT, &self.agent)]).await {
            Ok(found) => {
                found.into_iter().map(|it| (it.id, it.metadata.map(|it| it.uid).unwrap_or_default())).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the container runtime does not tell which pods it has");
                Vec::new()
            }
        }
    }

    async fn remove_all(&self, pods: impl Iterator<Item = String>) {
        stream::iter(pods).for_each_concurrent(ENDING_MAX, |id| async move { self.remove(&id).await }).await;
    }
}

/// What the agent tells of what a runtime has refused.
fn refused(error: impl std::fmt::Display) -> Error {
    Error::Refused(Failure::words(error.to_string()))
}

impl Runtime for CriRuntime {
    fn create_pod(&self, plan: PodPlan) -> BoxFuture<'_, Result<Arc<dyn RunningPod>, Error>> {
        if plan.handler == SANDBOX_HANDLER {
            return self.inner.sandbox.create_pod(plan);
        }
        async move { Ok(CriPod::create(self.inner.clone(), plan).await? as Arc<dyn RunningPod>) }.boxed()
    }

    fn network(&self) -> BoxFuture<'_, Result<Arc<Switch>, String>> {
        let switch = self.inner.switch.clone();
        async { Ok(switch) }.boxed()
    }

    fn adopt(&self, uid: &str, keep: PathBuf, address: Option<Ipv4Addr>) -> BoxFuture<'_, Result<Adopted, Error>> {
        // A pod of the sandbox has a door there.
        if keep.exists() {
            return self.inner.sandbox.adopt(uid, keep, address);
        }
        let uid = uid.to_owned();
        async move {
            let folder = keep.parent().unwrap_or(Path::new("/")).to_owned();
            let adopted = pod::adopt(self.inner.clone(), &uid, &folder, address).await;
            if adopted.is_err() {
                mounts::clear(&folder);
            }
            adopted
        }
        .boxed()
    }

    fn unlimited(&self) -> Option<String> {
        None
    }

    fn sweep(&self, uids: Vec<String>) -> BoxFuture<'_, ()> {
        async move {
            let pods = self.inner.pods().await;
            let others = pods.into_iter().filter(|(_, uid)| !uids.contains(uid)).map(|(id, _)| id);
            let others: Vec<String> = others.collect();
            join_all([self.inner.remove_all(others.into_iter()).boxed(), self.inner.sandbox.sweep(uids.clone())]).await;
        }
        .boxed()
    }

    fn clear(&self) -> BoxFuture<'_, ()> {
        async move {
            let pods = self.inner.pods().await;
            self.inner.remove_all(pods.into_iter().map(|(id, _)| id)).await;
            mounts::clear(&self.inner.pods);
            self.inner.plugins.uninstall(&self.inner.folders);
            self.inner.sandbox.clear().await;
        }
        .boxed()
    }

    fn engine(&self, handler: &str) -> Result<Option<Arc<dyn Engine>>, String> {
        match handler {
            SANDBOX_HANDLER => Ok(None),
            other if !self.inner.handlers.is_empty() && !self.inner.handlers.contains(other) => Err(no_handler(other)),
            // A runtime that does not tell which it has says so when a pod is made.
            _ => Ok(Some(self.inner.images())),
        }
    }

    fn version(&self) -> Option<String> {
        Some(format!("{}://{}", self.inner.name, self.inner.version))
    }
}
