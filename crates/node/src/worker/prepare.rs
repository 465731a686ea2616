//! Before a pod's containers run: its namespaces, the sockets that are served in it, its volumes and files. Starts no program.

use super::adopt::control_of;
use super::files::mount_failed;
use super::{Worker, group_name, make_private};
use crate::agent::lock;
use crate::decide::{State, time};
use crate::network::{self, Entrance, HostPort, OpenPort, Served};
use crate::pod::{Pod, Volume};
use crate::provided::Missing;
use crate::remote::Reachable;
use crate::runtime::{PodPlan, RunningPod};
use crate::sandbox::{Error, MemoryVolume, Network};
use crate::{dns, files, isolation, provided, resources, volumes};
use futures_util::future::join_all;
use jiff::Timestamp;
use kemudi_client::{Api, ApiResource, Dynamic};
use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Connections of one pod to the API server at a time; more wait to be accepted.
const API_CONNECTIONS_MAX: usize = 1024;
/// Pauses between attempts to prepare a pod.
const PREPARE_AGAIN_MIN: Duration = Duration::from_millis(500);
const PREPARE_AGAIN_MAX: Duration = Duration::from_secs(60);
/// How long a pod waits for the first word about the cluster's services.
const SERVICES_PATIENCE: Duration = Duration::from_secs(2);
const RUNTIME_CLASSES: ApiResource = ApiResource::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", false);
/// The event of a pod that cannot have its namespaces.
const NO_SANDBOX: &str = "FailedCreatePodSandBox";

/// A sandbox that is being made.
type Coming = AbortOnDropHandle<Result<Arc<dyn RunningPod>, Error>>;

impl Worker {
    /// Makes volumes and the sandbox, trying until it works. Returns false if the pod is to go before that.
    pub(super) async fn prepare(&mut self) -> bool {
        self.facts.start_time.get_or_insert_with(|| time(Timestamp::now()));
        self.note_waiting("ContainerCreating");
        if let (true, Some(why)) = (isolation::has_limits(&self.pod), self.shared.runtime.unlimited()) {
            let message = format!("Limits of cpu and memory are not enforced by this node: {why}");
            self.shared.events.warning(&self.pod, None, "LimitsNotEnforced", &message);
        }
        let mut pause = PREPARE_AGAIN_MIN;
        let mut watching = false;
        loop {
            let Err((reason, message)) = self.try_prepare().await else {
                if !watching {
                    self.watch_objects();
                }
                return true;
            };
            self.shared.events.warning(&self.pod, None, reason, &message);
            if reason == NO_SANDBOX {
                // Somebody on this machine waits for it, and can do something about it.
                let (namespace, name) = self.key();
                if let Some((_, tell)) = self.shared.take_attachment(&namespace, &name) {
                    let _ = tell.send(Err(message));
                }
            }
            self.publish().await;
            if !std::mem::replace(&mut watching, true) {
                self.watch_objects();
            }
            let again = tokio::time::sleep(pause);
            tokio::select! {
                () = again => {}
                Some(message) = self.messages.recv() => self.take_message(*message),
                changed = self.updates.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    self.take_update();
                    if self.leaving() {
                        return false;
                    }
                }
            }
            pause = (pause * 2).min(PREPARE_AGAIN_MAX);
        }
    }

    /// An error is the reason and the message of an event.
    pub(super) async fn try_prepare(&mut self) -> Result<(), (&'static str, String)> {
        make_private(&self.dir.join("volumes")).map_err(|error| ("FailedMount", error.to_string()))?;
        make_private(&self.dir.join("logs")).map_err(|error| ("FailedMount", error.to_string()))?;
        if self.sandbox.is_none() {
            self.choose_engine().await.map_err(|message| (NO_SANDBOX, message))?;
        }
        // Its files are written while it is made.
        let coming = match self.sandbox {
            Some(_) => None,
            None => Some(self.begin_sandbox().await.map_err(|message| (NO_SANDBOX, message))?),
        };
        let kept = self.keep().map_err(|error| error.to_string());
        let mounted = Box::pin(self.mount_all()).await;
        if let Some((coming, address)) = coming {
            let made = match (coming.await, kept) {
                (Ok(Ok(sandbox)), Ok(())) => self.enter_new(sandbox, address).await,
                (Ok(Err(error)), _) => Err(error.to_string()),
                (Err(error), _) => Err(error.to_string()),
                (_, Err(why)) => Err(why),
            };
            if let Err(message) = made {
                self.sandbox = None;
                lock(&self.shared.reachable).remove(&self.key());
                (self.address, self.kept.address) = (None, None);
                self.facts.pod_ip = String::new();
                self.forget();
                address.into_iter().for_each(|address| self.shared.give_address_back(address));
                return Err((NO_SANDBOX, message));
            }
        }
        mounted?;
        self.mounted = true;
        // What was missing is there now.
        for record in self.records.iter_mut().filter(|record| matches!(record.state, State::Refused { .. })) {
            record.state = State::New;
        }
        Ok(())
    }

    /// Gets what volumes are made of, and writes the pod's files.
    async fn mount_all(&mut self) -> Result<(), (&'static str, String)> {
        let pod = self.pod.clone();
        let mut wanted: Vec<_> = pod.spec.volumes.iter().flat_map(volumes::references).collect();
        wanted.sort();
        wanted.dedup();
        let wanted_tokens: Vec<_> = pod
            .spec
            .volumes
            .iter()
            .flat_map(|volume| volumes::tokens(volume).map(|token| (volume.name.clone(), token.clone())))
            .filter(|(volume, token)| !self.tokens.contains_key(&(volume.clone(), token.path.clone())))
            .collect();
        let this = &*self;
        let objects = join_all(wanted.iter().map(|(kind, name)| this.fetch(*kind, name)));
        let tokens = join_all(wanted_tokens.iter().map(|(_, token)| this.request_token(token)));
        let mut known = this.shared.services_known.clone();
        let services = async {
            let heard = async { known.wait_for(|known| *known).await.is_ok() };
            tokio::time::timeout(SERVICES_PATIENCE, heard).await.unwrap_or(false)
        };
        let (objects, tokens, _) = tokio::join!(objects, tokens, services);
        for (key, known) in wanted.into_iter().zip(objects) {
            match known.map_err(|message| ("FailedMount", message))? {
                Some(known) => drop(self.note_object(&key, known)),
                None => drop(self.objects.remove(&key)),
            }
        }
        for ((volume, token), made) in wanted_tokens.into_iter().zip(tokens) {
            let made = made.map_err(|message| ("FailedMount", mount_failed(&volume, &message)))?;
            self.tokens.insert((volume, token.path), made);
        }
        self.keep_certificates().await;
        self.provide(&pod).await?;
        for volume in &pod.spec.volumes {
            self.write_volume(volume).map_err(|message| ("FailedMount", mount_failed(&volume.name, &message)))?;
        }
        self.write_etc().map_err(|error| ("FailedMount", error.to_string()))
    }

    /// Finds what the pod's RuntimeClass says.
    async fn choose_engine(&mut self) -> Result<(), String> {
        let class = self.pod.spec.runtime_class_name.as_str();
        if !class.is_empty() {
            let classes = Api::<Dynamic>::all_of(self.shared.config.client.clone(), &RUNTIME_CLASSES);
            let failed = |why: String| format!("Failed to create pod sandbox: {why}");
            let found = classes.get_opt(class).await.map_err(|error| failed(error.to_string()))?;
            let found = found.ok_or_else(|| failed(format!("runtimeclass.node.k8s.io {class:?} not found")))?;
            self.handler = api::meta::text_at(&found, &["handler"]).to_owned();
        }
        self.engine = self.shared.runtime.engine(&self.handler)?;
        Ok(())
    }

    /// Goes on with a sandbox that has just been made.
    async fn enter_new(&mut self, sandbox: Arc<dyn RunningPod>, address: Option<Ipv4Addr>) -> Result<(), String> {
        self.address = address;
        self.publish_ports().await?;
        self.enter(sandbox, address).map_err(|error| error.to_string())
    }

    /// Goes on with a sandbox that is there: its address, what is served in it, who may connect.
    pub(super) fn enter(&mut self, sandbox: Arc<dyn RunningPod>, address: Option<Ipv4Addr>) -> std::io::Result<()> {
        self.note_address(address);
        self.address = address;
        let reachable = Reachable {
            uid: self.pod.metadata.uid.clone(),
            pod: sandbox.clone(),
            host_network: self.pod.spec.host_network,
            containers: HashMap::new(),
            ended: CancellationToken::new(),
            since: Timestamp::now(),
        };
        lock(&self.shared.reachable).insert(self.key(), reachable);
        self.sandbox = Some(sandbox.clone());
        self.serve_sockets(&*sandbox)
    }

    /// Without an address of its own a pod has the host's.
    fn note_address(&mut self, address: Option<Ipv4Addr>) {
        self.facts.pod_ip = address.map_or_else(|| self.facts.host_ip.clone(), |address| address.to_string());
    }

    /// Finds what is there before the pod: claims and images.
    pub(super) async fn provide(&mut self, pod: &Pod) -> Result<(), (&'static str, String)> {
        let mut secrets = None;
        for volume in &pod.spec.volumes {
            if self.provided.contains_key(&volume.name) {
                continue;
            }
            if volume.image.is_some() && secrets.is_none() {
                secrets = Some(self.pull_secrets().await);
            }
            let secrets = secrets.as_deref().unwrap_or_default();
            let found = provided::find(&self.shared, pod, volume, secrets).await;
            let found = match found {
                Ok(found) => found,
                Err(Missing::Claim(why)) => return Err(("FailedMount", mount_failed(&volume.name, &why))),
                Err(Missing::Volume(reason, why)) => return Err((reason, why)),
                Err(Missing::Image(reason, why)) => return Err(self.refuse_image(&volume.name, reason, why)),
            };
            self.provided.extend(found.map(|found| (volume.name.clone(), found)));
        }
        Ok(())
    }

    /// Containers wait for an image that is a volume of theirs as they do for their own. Gives the event.
    fn refuse_image(&mut self, volume: &str, reason: &'static str, why: String) -> (&'static str, String) {
        let pod = self.pod.clone();
        let image = pod.spec.volumes.iter().find(|it| it.name == volume).and_then(|it| it.image.as_ref());
        let image = image.map(|image| image.reference.as_str()).unwrap_or_default();
        for (index, container) in pod.spec.all_containers().enumerate() {
            if container.volume_mounts.iter().any(|mount| mount.name == volume) {
                self.refuse(index, reason, why.clone());
                self.shared.events.warning(&pod, Some(&container.name), "Failed", &format!("Error: {reason}"));
            }
        }
        match reason {
            "ErrImagePull" => ("Failed", format!("Failed to pull image {image:?}: {why}")),
            reason => (reason, why),
        }
    }

    /// Gives the pod an address, and has its sandbox made beside the worker.
    async fn begin_sandbox(&mut self) -> Result<(Coming, Option<Ipv4Addr>), String> {
        if let (None, Some(why)) = (&self.engine, isolation::not_shared(&self.pod)) {
            return Err(why);
        }
        let spec = &self.pod.spec;
        let cluster = &self.shared.config.cluster;
        let (network, address) = if spec.host_network {
            (Network::Host, None)
        } else {
            let address = self.shared.take_address().ok_or("every address of the pod range is in use")?;
            self.shared.network.admit(&self.pod, address).await;
            (cluster.of_pod(address), Some(address))
        };
        let memory = |volume: &Volume| {
            let source = volume.empty_dir.as_ref().filter(|source| source.medium == "Memory")?;
            let bytes = kinds::quantity::Quantity::parse(&source.size_limit).ok().map(|size| size.value());
            let bytes_max = bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
            Some(MemoryVolume { name: volume.name.clone(), bytes_max })
        };
        let granted = self.records.iter().map(|record| (record.name.clone(), record.allocated.clone())).collect();
        let first = self.records.first().map(|it| (group_name(&it.name, 0), resources::of_container(&it.allocated)));
        let plan = PodPlan {
            uid: self.pod.metadata.uid.clone(),
            limits: resources::of_pod(&self.pod, &granted),
            first,
            oom_score: resources::least_oom_score(&self.pod),
            hostname: files::host_name(spec, &self.pod.metadata.name),
            user: (volumes::one_user(&self.pod).unwrap_or(0), spec.security_context.run_as_group.unwrap_or(0)),
            network,
            memory_volumes: spec.volumes.iter().filter_map(memory).collect(),
            sysctls: isolation::sysctls(&self.pod),
            keep: self.shared.config.keep.then(|| control_of(&self.dir)),
            pod: self.pod.clone(),
            folder: self.dir.clone(),
            handler: self.handler.clone(),
        };
        self.note_address(address);
        self.kept.address = address;
        let runtime = self.shared.runtime.clone();
        let making = tokio::spawn(async move { runtime.create_pod(plan).await });
        Ok((AbortOnDropHandle::new(making), address))
    }

    /// Serves the API server's and the DNS' addresses in the pod.
    pub(super) fn serve_sockets(&mut self, sandbox: &dyn RunningPod) -> std::io::Result<()> {
        let mut sockets = sandbox.take_listeners().into_iter();
        let (Some(api), Some(udp), Some(tcp)) = (sockets.next(), sockets.next(), sockets.next()) else { return Ok(()) };
        let api = tokio::net::TcpListener::from_std(api.into())?;
        let udp = tokio::net::UdpSocket::from_std(udp.into())?;
        let tcp = tokio::net::TcpListener::from_std(tcp.into())?;
        let access = self.shared.config.api.clone();
        let (shared, address) = (self.shared.clone(), self.address);
        let told = self.told.subscribe();
        let serve = move |stream: tokio::net::TcpStream| {
            let lets = address.is_none_or(|address| shared.network.lets(address, Served::Api));
            let (access, mut told) = (access.clone(), told.clone());
            async move {
                // Who asks for its own pod, however soon, is to find it running.
                if lets && told.wait_for(|told| *told).await.is_ok() {
                    let _ = stream.set_nodelay(true);
                    access(stream).await;
                }
            }
        };
        self.tasks.spawn(network::each_connection(api, API_CONNECTIONS_MAX, serve));
        let lets = {
            let (shared, address) = (self.shared.clone(), self.address);
            move || address.is_none_or(|address| shared.network.lets(address, Served::Dns))
        };
        self.tasks.spawn(dns::serve_udp(self.shared.dns.clone(), udp, lets.clone()));
        self.tasks.spawn(dns::serve_tcp(self.shared.dns.clone(), tcp, lets));
        Ok(())
    }

    /// Opens the ports of the host that the pod's containers ask for; they close with the pod.
    pub(super) async fn publish_ports(&mut self) -> Result<(), String> {
        let Some(address) = self.address else { return Ok(()) };
        let pod = self.pod.clone();
        let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let mut opened = Vec::new();
        for port in all.flat_map(|container| &container.ports).filter(|port| port.host_port != 0) {
            let switch = self.shared.runtime.network().await?;
            let ip = port.host_ip.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let target = SocketAddrV4::new(address, port.container_port);
            let wanted = HostPort { protocol: port.protocol().to_owned(), ip, port: port.host_port, target };
            let entrance = Entrance::new(switch, &self.shared.config.cluster);
            let serving = network::publish(entrance, &wanted).await;
            let serving = serving.map_err(|error| format!("host port {} cannot be opened: {error}", port.host_port))?;
            opened.push((serving, OpenPort::new(self.shared.clone(), wanted)));
        }
        for (serving, open) in opened {
            self.tasks.spawn(async move {
                let _open = open;
                serving.await;
            });
        }
        Ok(())
    }

    pub(super) fn write_etc(&self) -> std::io::Result<()> {
        let cluster = &self.shared.config.cluster;
        let host_hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let host_name = files::host_name(&self.pod.spec, &self.pod.metadata.name);
        let resolv =
            files::resolv_conf(&self.pod, &cluster.dns_ip.to_string(), &cluster.domain, &self.shared.host_resolv);
        let hosts = files::hosts(&self.pod, &self.facts.pod_ip, &cluster.domain, &host_hosts);
        for (name, content) in [("resolv.conf", resolv), ("hosts", hosts), ("hostname", host_name + "\n")] {
            let path = self.dir.join(name);
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    }
}
