//! One pod of a container runtime: made, taken over from an agent before this one, and ended.

use super::network::{Made, Wanted, connect};
use super::process::CriProcess;
use super::{Inner, client, config, messages as m, mounts, refused};
use crate::agent::lock;
use crate::runtime::{Adopted, ContainerPlan, LeftContainer, Limits, PodPlan, RunningPod, RunningProcess, Usage};
use crate::sandbox::{Error, Network, Stdio};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;

/// What a pod of the host's network does not have.
struct Wire {
    address: Ipv4Addr,
    namespace: OwnedFd,
}

/// A pod of a runtime. It outlives this: it is ended by [`RunningPod::ended`] or with all of the agent's.
pub struct CriPod {
    runtime: Arc<Inner>,
    id: String,
    config: m::PodSandboxConfig,
    folder: PathBuf,
    wire: Option<Wire>,
    listeners: Mutex<Vec<OwnedFd>>,
}

impl CriPod {
    /// Makes a pod without containers, with its network up.
    pub async fn create(runtime: Arc<Inner>, plan: PodPlan) -> Result<Arc<CriPod>, Error> {
        let meta = &plan.pod.metadata;
        // What an attempt before this one has left has the same name.
        let left = runtime.client.pod_sandboxes(&[(config::POD_UID, &meta.uid)]).await.map_err(refused)?;
        runtime.remove_all(left.into_iter().map(|it| it.id)).await;
        let group = plan.pod.spec.security_context.fs_group;
        for volume in &plan.memory_volumes {
            mounts::memory(&plan.folder, volume, group)?;
        }
        let config = config::pod(&plan, &runtime.agent);
        let request = m::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: plan.handler.clone() };
        let wanted = wanted(&plan.network);
        let namespace = wanted.as_ref().map(|it| runtime.plugins.expect(&meta.namespace, &meta.name, it.address));
        let run = runtime.client.run_pod_sandbox(&request).await;
        runtime.plugins.forget(&meta.namespace, &meta.name);
        let id = match run {
            Ok(id) => id,
            Err(error) => {
                mounts::clear(&plan.folder);
                return Err(not_made(error));
            }
        };
        // The runtime has asked for the network before it answers, or never will.
        let namespace = namespace.and_then(|coming| coming.now_or_never()).and_then(Result::ok);
        let made = match (wanted, namespace) {
            (None, _) => Ok((None, Vec::new())),
            (Some(wanted), Some(namespace)) => {
                let address = wanted.address;
                let made = runtime.plugins.make(namespace, &wanted).await;
                made.map(|Made { namespace, listeners }| (Some(Wire { address, namespace }), listeners))
            }
            (Some(_), None) => Err(format!(
                "the pod's network was made by another plugin than kemudi's: {} has a configuration that comes before it; \
                 take that away, or name another folder with --cni-conf-dir",
                runtime.folders.configurations.display()
            )),
        };
        let (wire, listeners) = match made {
            Ok(made) => made,
            Err(why) => {
                runtime.remove(&id).await;
                mounts::clear(&plan.folder);
                return Err(not_made(why));
            }
        };
        let (folder, listeners) = (plan.folder, Mutex::new(listeners));
        Ok(Arc::new(CriPod { runtime, id, config, folder, wire, listeners }))
    }
}

/// As the kubelet tells it.
fn not_made(error: impl std::fmt::Display) -> Error {
    refused(format_args!("Failed to create pod sandbox: {error}"))
}

/// What the plugin is to do for a pod with a network of its own.
fn wanted(network: &Network) -> Option<Wanted> {
    match network {
        Network::Own { addresses, address: Some(address), listen } => {
            Some(Wanted { address: *address, addresses: addresses.clone(), listen: listen.clone() })
        }
        _ => None,
    }
}

/// Takes over a pod that an agent before this one has made, by its uid. Its wire went with that agent, and is laid anew.
pub async fn adopt(runtime: Arc<Inner>, uid: &str, folder: &Path, address: Option<Ipv4Addr>) -> Result<Adopted, Error> {
    let labels = [(config::POD_UID, uid), (config::AGENT, &*runtime.agent)];
    let found = runtime.client.pod_sandboxes(&labels).await.map_err(refused)?;
    let ready = found.into_iter().find(|it| it.state == m::PodSandboxState::Ready as i32).ok_or(Error::Ended)?;
    let wanted = address.and_then(|address| wanted(&runtime.cluster.of_pod(address)));
    let (wire, listeners) = match wanted {
        None => (None, Vec::new()),
        Some(wanted) => {
            let status = runtime.client.pod_sandbox_status(&ready.id).await.map_err(refused)?;
            let pid =
                client::pid_in(&status.info).ok_or_else(|| refused("the runtime does not tell a pod's process"))?;
            let namespace = File::open(format!("/proc/{pid}/ns/net"))?.into();
            let Made { namespace, listeners } = runtime.plugins.make(namespace, &wanted).await.map_err(refused)?;
            (Some(Wire { address: wanted.address, namespace }), listeners)
        }
    };
    let mut left = Vec::new();
    for found in runtime.client.containers(&ready.id).await.map_err(refused)? {
        let Some(meta) = found.metadata else { continue };
        if found.state == m::ContainerState::Created as i32 {
            // It was never started, and whoever wanted that is no more.
            let _ = runtime.client.remove_container(&found.id).await;
            continue;
        }
        let name = format!("{}_{}", meta.name, meta.attempt);
        let process = CriProcess::follow(runtime.clone(), &found.id, folder, &name).await.map_err(refused)?;
        left.push(LeftContainer { ended: process.ended_at(), name, process, kept: Vec::new() });
    }
    let config = m::PodSandboxConfig {
        metadata: ready.metadata,
        log_directory: folder.join("logs").display().to_string(),
        labels: ready.labels,
        ..m::PodSandboxConfig::default()
    };
    let engine = runtime.images();
    let (folder, listeners) = (folder.to_owned(), Mutex::new(listeners));
    let pod = Arc::new(CriPod { runtime, id: ready.id, config, folder, wire, listeners });
    Ok(Adopted { pod, engine: Some(engine), left })
}

impl RunningPod for CriPod {
    fn take_listeners(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut lock(&self.listeners))
    }

    fn start(&self, plan: ContainerPlan, _: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        async move {
            let failed = |error: io::Error| refused(format_args!("prepare the volumes of the container: {error}"));
            let beside = plan.beside.as_ref().and_then(|other| Some(other.engine()?.name()));
            let target = beside.as_deref().and_then(|name| name.split("://").nth(1));
            let places = plan.spec.mounts.iter().enumerate();
            let places = places.map(|(at, mount)| mounts::place(&self.folder, &plan.name, at, mount));
            let places = places.collect::<io::Result<Vec<_>>>().map_err(failed)?;
            let config = config::container(&plan, places, target, &self.runtime.agent).map_err(refused)?;
            let request = m::CreateContainerRequest {
                pod_sandbox_id: self.id.clone(),
                config: Some(config),
                sandbox_config: Some(self.config.clone()),
            };
            let client = &self.runtime.client;
            let id = match client.create_container(&request).await {
                Ok(id) => id,
                Err(error) => {
                    mounts::clear_of(&self.folder, &plan.name);
                    return Err(refused(error));
                }
            };
            // Before it is started: one that ends at once is told of before that is known here.
            let _ended = self.runtime.exits.follow(&id);
            let started = async {
                client.start_container(&id).await?;
                CriProcess::follow(self.runtime.clone(), &id, &self.folder, &plan.name).await
            };
            match started.await {
                Ok(process) => Ok(process as Arc<dyn RunningProcess>),
                Err(error) => {
                    let _ = client.remove_container(&id).await;
                    mounts::clear_of(&self.folder, &plan.name);
                    Err(refused(error.message))
                }
            }
        }
        .boxed()
    }

    fn set_limits(&self, _: &Limits) -> BoxFuture<'_, io::Result<()>> {
        // A runtime holds containers to limits, not pods.
        async { Ok(()) }.boxed()
    }

    fn usage(&self) -> Option<Usage> {
        None
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<TcpStream, Error>> {
        async move {
            match (&self.wire, address) {
                // From outside of the pod, as whoever else reaches it.
                (Some(wire), SocketAddr::V4(to)) if *to.ip() == wire.address => {
                    Ok(self.runtime.switch.connect(to).await?)
                }
                (Some(wire), _) => Ok(connect(wire.namespace.try_clone()?, address).await?),
                (None, _) => Ok(TcpStream::connect(address).await?),
            }
        }
        .boxed()
    }

    fn kill(&self) {
        // A runtime is asked for that and for the end of it in one.
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        async move {
            self.runtime.remove(&self.id).await;
            mounts::clear(&self.folder);
        }
        .boxed()
    }
}
