//! The life of one pod: its worker prepares it, does what `decide` says, tells the status, and ends it. One task per pod
//! owns all of it; what runs beside (readers of pipes, probes, servers of its sockets) reports to it by messages.

use crate::agent::{API_PORT, ContainerLogs, Shared, lock};
use crate::atomic::{self, Owner};
use crate::console::{self, Console, Outputs, Wanted};
use crate::decide::{self, Action, Facts, HOST_IMAGE_ID, Record, State, time};
use crate::env::{self, Data, ObjectKind, Objects};
use crate::images::{self as image_choice, Choice, Files};
use crate::isolation;
use crate::logs::Log;
use crate::network::{self, HostPort, Served};
use crate::pod::{Container, Handler, Pod, PodStatus, Probe, Terminated, Volume, VolumeMount};
use crate::probe::{self, Counter, ProbeKind, Target};
use crate::provided::{self, Provided};
use crate::remote::{self, Reachable, Running};
use crate::runtime::{PodPlan, RunningPod, RunningProcess};
use crate::sandbox::{
    ContainerSpec, DEFAULT_PATH, Error as SandboxError, Exit, Listen, MemoryVolume, Mount, Network, ProcessNamespace,
    ProcessSpec, Protocol, Root, Source, Terminal, User,
};
use crate::{dns, files, usage, volumes};
use base64::Engine;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kemudi_client::{Api, ApiResource, DeleteOptions, Dynamic, Event as WatchEvent, FieldSelector, ListOptions, Patch};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Messages of a pod's tasks that wait for its worker; a task with more waits itself.
const MESSAGES_MAX: usize = 128;
/// Connections of one pod to the API server at a time; more wait to be accepted.
const API_CONNECTIONS_MAX: usize = 1024;
/// How long a pod without an own wish may take to end.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// How long a pod may take whose object is already gone.
const GRACE_GONE: Duration = Duration::from_secs(1);
/// What is left to a container after a hook has used up its time.
const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);
/// How long the output of a container that ended is waited for: a process it left may hold it open.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// Pauses between attempts to prepare a pod.
const PREPARE_AGAIN_MIN: Duration = Duration::from_millis(500);
const PREPARE_AGAIN_MAX: Duration = Duration::from_secs(60);
/// The pause before a status or a token is tried again.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(1);
const TOKEN_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// How often the use of volumes with a limit is looked at, as the kubelet does: no file system tells of it.
const USAGE_PERIOD: SignedDuration = SignedDuration::from_secs(10);
/// How long the containers of an evicted pod may take to end.
const GRACE_EVICTED: Duration = Duration::from_secs(1);
/// How long a pod waits for the first word about the cluster's services.
const SERVICES_PATIENCE: Duration = Duration::from_secs(2);
/// What is read of a termination message, in bytes, and of the log that stands in for it.
const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_MESSAGE_BYTES_MAX: usize = 2048;
const LOG_MESSAGE_LINES_MAX: u64 = 80;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// The exit code of a container whose program could not be started.
const START_ERROR: i32 = 128;

const CONFIG_MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
const SECRETS: ApiResource = ApiResource::new("", "v1", "Secret", "secrets", true);
const SERVICE_ACCOUNTS: ApiResource = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);

/// The newest of a pod that the watch told.
#[derive(Clone)]
pub struct Update {
    pub pod: Arc<Pod>,
    /// The object is no more.
    pub gone: bool,
}

/// Leads a pod through its life; returns when nothing of it is left on the node.
pub async fn run(shared: Arc<Shared>, updates: watch::Receiver<Update>) {
    let first = updates.borrow().clone();
    let (sender, messages) = mpsc::channel(MESSAGES_MAX);
    let pod = first.pod;
    let records: Vec<Record> = pod.spec.init_containers.iter().chain(&pod.spec.containers).map(Record::new).collect();
    let mut worker = Worker {
        api: Api::namespaced(shared.config.client.clone(), &pod.metadata.namespace),
        dir: shared.config.state_dir.join("pods").join(&pod.metadata.uid),
        facts: Facts { host_ip: shared.facts.host_ip.clone(), ..Facts::default() },
        published: pod.status.clone(),
        gone: first.gone,
        shared,
        pod,
        updates,
        records,
        sender,
        messages,
        sandbox: None,
        address: None,
        tasks: JoinSet::new(),
        running: HashMap::new(),
        pulled: HashMap::new(),
        objects: Objects::new(),
        provided: HashMap::new(),
        usage_at: Timestamp::UNIX_EPOCH,
        tokens: BTreeMap::new(),
        unpublished: false,
        told: watch::Sender::new(true),
    };
    worker.life().await;
}

struct Worker {
    shared: Arc<Shared>,
    api: Api<Pod>,
    pod: Arc<Pod>,
    gone: bool,
    updates: watch::Receiver<Update>,
    /// Init containers, then containers.
    records: Vec<Record>,
    facts: Facts,
    published: PodStatus,
    /// The newest status has not been taken by the server yet.
    unpublished: bool,
    /// False while containers are being started and the status does not say so yet.
    told: watch::Sender<bool>,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    sandbox: Option<Arc<dyn RunningPod>>,
    address: Option<Ipv4Addr>,
    /// Everything that runs for the pod beside the worker; ends with it.
    tasks: JoinSet<()>,
    running: HashMap<String, RunningContainer>,
    /// Images that were pulled for containers that have not been started since.
    pulled: HashMap<String, Arc<images::Hold>>,
    /// What volumes are made of.
    objects: Objects,
    /// Claims and images that are volumes, by the volume's name.
    provided: HashMap<String, Provided>,
    /// When the use of volumes is looked at next.
    usage_at: Timestamp,
    /// By volume and path.
    tokens: BTreeMap<(String, String), Token>,
    dir: PathBuf,
}

struct RunningContainer {
    attempt: u32,
    process: Arc<dyn RunningProcess>,
    target: Target,
    log: Option<Arc<Log>>,
    message: PathBuf,
    /// Its probes; they end with it.
    probes: Vec<AbortHandle>,
    stopping: bool,
    /// Its image is not removed while it runs.
    _files: Files,
}

struct Token {
    value: String,
    /// When it is to be replaced.
    replace_at: Timestamp,
}

/// What the pod's tasks tell its worker.
enum Message {
    Exited { container: String, attempt: u32, exit: Exit },
    Probed { container: String, attempt: u32, kind: ProbeKind, healthy: bool },
    Object { kind: ObjectKind, name: String, data: Option<Data> },
    Pulled { container: String, outcome: Result<Arc<images::Hold>, String>, took: Duration, waited: Duration },
}

/// Why a container is not running.
enum Problem {
    /// It cannot be put together as it is; that may change.
    Config(String),
    /// Its program cannot be started.
    Start(String),
}

impl Worker {
    async fn life(&mut self) {
        let over = matches!(self.pod.status.phase.as_str(), "Succeeded" | "Failed");
        self.remember();
        let rejection = isolation::rejection(&self.pod).filter(|_| !over);
        if let Some((reason, message)) = &rejection {
            self.shared.events.warning(&self.pod, None, reason, message);
            self.facts.ended = Some(((*reason).into(), format!("Pod was rejected: {message}")));
        }
        if rejection.is_none() && !over && !self.leaving() && self.prepare().await {
            self.live().await;
        }
        if self.leaving() && !over {
            self.terminate().await;
        }
        self.tear_down().await;
        if !over {
            self.publish().await;
        }
        while !self.leaving() {
            let again = if self.unpublished { TRY_AGAIN } else { SignedDuration::from_hours(24) };
            tokio::select! {
                changed = self.updates.changed() => match changed {
                    Ok(()) => self.take_update(),
                    Err(_) => return,
                },
                () = sleep_until(Timestamp::now() + again) => self.publish().await,
            }
        }
        self.delete().await;
        lock(&self.shared.logs).remove(&self.key());
        let _ = images::remove_tree(&self.dir);
    }

    /// After a restart of the agent: what ran then is gone, and counts as ended.
    fn remember(&mut self) {
        let status = &self.pod.status;
        self.facts.start_time = status.start_time.clone();
        let known: Vec<_> = status.init_container_statuses.iter().chain(&status.container_statuses).cloned().collect();
        for known in known {
            let Some(record) = self.records.iter_mut().find(|record| record.name == known.name) else { continue };
            record.restarts = known.restart_count;
            record.crashes = known.restart_count;
            record.last = known.last_state.terminated;
            record.id = known.container_id.clone();
            let ended = match (known.state.running, known.state.terminated) {
                (_, Some(terminated)) => terminated,
                (Some(running), None) => Terminated {
                    exit_code: 137,
                    reason: "ContainerStatusUnknown".into(),
                    message: "The container could not be located when the pod was terminated".into(),
                    started_at: running.started_at,
                    finished_at: Some(time(Timestamp::now())),
                    container_id: known.container_id,
                    signal: None,
                },
                (None, None) => continue,
            };
            record.state = State::Ended(ended);
        }
    }

    fn leaving(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn key(&self) -> (String, String) {
        (self.pod.metadata.namespace.clone(), self.pod.metadata.name.clone())
    }

    fn take_update(&mut self) {
        let update = self.updates.borrow_and_update().clone();
        self.gone = update.gone;
        self.pod = update.pod;
    }

    // ---- before containers run

    /// Makes volumes and the sandbox, trying until it works. Returns false if the pod is to go before that.
    async fn prepare(&mut self) -> bool {
        self.facts.start_time.get_or_insert_with(|| time(Timestamp::now()));
        self.note_waiting("ContainerCreating");
        if let Some(message) = isolation::unenforced_limits(&self.pod) {
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
                Some(message) = self.messages.recv() => self.take_message(message),
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
    async fn try_prepare(&mut self) -> Result<(), (&'static str, String)> {
        make_private(&self.dir.join("volumes")).map_err(|error| ("FailedMount", error.to_string()))?;
        make_private(&self.dir.join("logs")).map_err(|error| ("FailedMount", error.to_string()))?;
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
        let sandbox = async {
            match this.sandbox {
                Some(_) => Ok(None),
                None => this.create_sandbox().await.map(Some),
            }
        };
        let mut known = this.shared.services_known.clone();
        let services = async {
            let heard = async { known.wait_for(|known| *known).await.is_ok() };
            tokio::time::timeout(SERVICES_PATIENCE, heard).await.unwrap_or(false)
        };
        let (objects, tokens, sandbox, _) = tokio::join!(objects, tokens, sandbox, services);
        if let Some((sandbox, address)) = sandbox.map_err(|message| (NO_SANDBOX, message))? {
            self.facts.pod_ip = address.map_or_else(|| self.facts.host_ip.clone(), |address| address.to_string());
            self.address = address;
            if let Err(message) = self.publish_ports().await {
                self.address.take().into_iter().for_each(|address| self.shared.give_address_back(address));
                return Err((NO_SANDBOX, message));
            }
            self.serve_sockets(&*sandbox).map_err(|error| (NO_SANDBOX, error.to_string()))?;
            let reachable = Reachable {
                uid: self.pod.metadata.uid.clone(),
                pod: sandbox.clone(),
                host_network: self.pod.spec.host_network,
                containers: HashMap::new(),
                ended: CancellationToken::new(),
            };
            lock(&self.shared.reachable).insert(self.key(), reachable);
            self.sandbox = Some(sandbox);
        }
        for ((kind, name), data) in wanted.into_iter().zip(objects) {
            match data.map_err(|message| ("FailedMount", message))? {
                Some(data) => drop(self.objects.insert((kind, name), data)),
                None => drop(self.objects.remove(&(kind, name))),
            }
        }
        for ((volume, token), made) in wanted_tokens.into_iter().zip(tokens) {
            let made = made.map_err(|message| ("FailedMount", mount_failed(&volume, &message)))?;
            self.tokens.insert((volume, token.path), made);
        }
        self.provide(&pod).await?;
        for volume in &pod.spec.volumes {
            self.write_volume(volume).map_err(|message| ("FailedMount", mount_failed(&volume.name, &message)))?;
        }
        self.write_etc().map_err(|error| ("FailedMount", error.to_string()))
    }

    /// Finds what is there before the pod: claims and images.
    async fn provide(&mut self, pod: &Pod) -> Result<(), (&'static str, String)> {
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
            let found = found.map_err(|message| ("FailedMount", mount_failed(&volume.name, &message)))?;
            self.provided.extend(found.map(|found| (volume.name.clone(), found)));
        }
        Ok(())
    }

    async fn create_sandbox(&self) -> Result<(Arc<dyn RunningPod>, Option<Ipv4Addr>), String> {
        if let Some(why) = isolation::not_shared(&self.pod) {
            return Err(why);
        }
        let spec = &self.pod.spec;
        let cluster = &self.shared.config.cluster;
        let (network, address) = if spec.host_network {
            (Network::Host, None)
        } else {
            let address = self.shared.take_address().ok_or("every address of the pod range is in use")?;
            self.shared.network.admit(&self.pod, address).await;
            let listen = |protocol, ip, port| Listen { protocol, address: SocketAddr::new(ip, port) };
            let network = Network::Own {
                addresses: vec![cluster.api_ip, cluster.dns_ip],
                address: Some(address),
                listen: vec![
                    listen(Protocol::Tcp, cluster.api_ip, API_PORT),
                    listen(Protocol::Udp, cluster.dns_ip, DNS_PORT),
                    listen(Protocol::Tcp, cluster.dns_ip, DNS_PORT),
                ],
            };
            (network, Some(address))
        };
        let memory = |volume: &Volume| {
            let source = volume.empty_dir.as_ref().filter(|source| source.medium == "Memory")?;
            let bytes = kinds::quantity::Quantity::parse(&source.size_limit).ok().map(|size| size.value());
            let bytes_max = bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
            Some(MemoryVolume { name: volume.name.clone(), bytes_max })
        };
        let plan = PodPlan {
            hostname: files::host_name(spec, &self.pod.metadata.name),
            user: (volumes::one_user(&self.pod).unwrap_or(0), spec.security_context.run_as_group.unwrap_or(0)),
            network,
            memory_volumes: spec.volumes.iter().filter_map(memory).collect(),
            sysctls: isolation::sysctls(&self.pod),
        };
        match self.shared.runtime.create_pod(plan).await {
            Ok(sandbox) => Ok((sandbox, address)),
            Err(error) => {
                if let Some(address) = address {
                    self.shared.give_address_back(address);
                }
                Err(error.to_string())
            }
        }
    }

    /// Serves the API server's and the DNS' addresses in the pod.
    fn serve_sockets(&mut self, sandbox: &dyn RunningPod) -> std::io::Result<()> {
        let mut sockets = sandbox.take_listeners().into_iter();
        let (Some(api), Some(udp), Some(tcp)) = (sockets.next(), sockets.next(), sockets.next()) else { return Ok(()) };
        let api = tokio::net::TcpListener::from_std(api.into())?;
        let udp = tokio::net::UdpSocket::from_std(udp.into())?;
        let tcp = tokio::net::TcpListener::from_std(tcp.into())?;
        let access = self.shared.config.api.clone();
        let (shared, address) = (self.shared.clone(), self.address);
        let mut told = self.told.subscribe();
        self.tasks.spawn(async move {
            let seats = Arc::new(Semaphore::new(API_CONNECTIONS_MAX));
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok(seat) = seats.clone().acquire_owned().await else { return };
                let Ok((stream, _)) = api.accept().await else { continue };
                if address.is_some_and(|address| !shared.network.lets(address, Served::Api)) {
                    continue;
                }
                // Who asks for its own pod, however soon, is to find it running.
                if told.wait_for(|told| *told).await.is_err() {
                    return;
                }
                let _ = stream.set_nodelay(true);
                let serving = access(stream);
                connections.spawn(async move {
                    serving.await;
                    drop(seat);
                });
            }
        });
        let lets = {
            let (shared, address) = (self.shared.clone(), self.address);
            move || address.is_none_or(|address| shared.network.lets(address, Served::Dns))
        };
        self.tasks.spawn(dns::serve_udp(self.shared.dns.clone(), udp, lets.clone()));
        self.tasks.spawn(dns::serve_tcp(self.shared.dns.clone(), tcp, lets));
        Ok(())
    }

    /// Opens the ports of the host that the pod's containers ask for; they close with the pod.
    async fn publish_ports(&mut self) -> Result<(), String> {
        let Some(address) = self.address else { return Ok(()) };
        let pod = self.pod.clone();
        let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let mut opened = Vec::new();
        for port in all.flat_map(|container| &container.ports).filter(|port| port.host_port != 0) {
            let switch = self.shared.runtime.network().await?;
            let ip = port.host_ip.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let target = SocketAddrV4::new(address, port.container_port);
            let wanted = HostPort { protocol: port.protocol().to_owned(), ip, port: port.host_port, target };
            let serving = network::publish(switch, &wanted).await;
            let serving = serving.map_err(|error| format!("host port {} cannot be opened: {error}", port.host_port))?;
            opened.push(serving);
        }
        opened.into_iter().for_each(|serving| drop(self.tasks.spawn(serving)));
        Ok(())
    }

    fn write_etc(&self) -> std::io::Result<()> {
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

    // ---- objects, tokens and volumes

    async fn fetch(&self, kind: ObjectKind, name: &str) -> Result<Option<Data>, String> {
        let api = self.objects_api(kind);
        match api.get_opt(name).await {
            Ok(object) => Ok(object.map(|object| data_of(kind, &object))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn objects_api(&self, kind: ObjectKind) -> Api<Dynamic> {
        let resource = match kind {
            ObjectKind::ConfigMap => &CONFIG_MAPS,
            ObjectKind::Secret => &SECRETS,
        };
        Api::namespaced_of(self.shared.config.client.clone(), &self.pod.metadata.namespace, resource)
    }

    async fn request_token(&self, token: &crate::pod::TokenProjection) -> Result<Token, String> {
        let account = match self.pod.spec.service_account_name.as_str() {
            "" => "default",
            name => name,
        };
        let namespace = &self.pod.metadata.namespace;
        let accounts = Api::<Dynamic>::namespaced_of(self.shared.config.client.clone(), namespace, &SERVICE_ACCOUNTS);
        let audiences: Vec<&str> = Some(token.audience.as_str()).into_iter().filter(|text| !text.is_empty()).collect();
        let meta = &self.pod.metadata;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": token.expiration_seconds.unwrap_or(volumes::TOKEN_SECONDS),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
            },
        });
        let issued = Timestamp::now();
        let answer: Value = accounts
            .create_subresource(account, "token", &request)
            .await
            .map_err(|error| format!("failed to fetch token: {error}"))?;
        let value = answer["status"]["token"].as_str().ok_or("failed to fetch token: the answer has none")?.to_owned();
        let expires = answer["status"]["expirationTimestamp"].as_str().and_then(|text| text.parse().ok());
        let expires = expires.unwrap_or(issued + SignedDuration::from_secs(volumes::TOKEN_SECONDS));
        Ok(Token { value, replace_at: volumes::rotate_at(issued, expires, jitter()) })
    }

    /// Replaces the tokens whose time has come; those that cannot be had yet are tried again soon.
    async fn replace_tokens(&mut self, now: Timestamp) {
        let pod = self.pod.clone();
        for volume in &pod.spec.volumes {
            for token in volumes::tokens(volume) {
                let key = (volume.name.clone(), token.path.clone());
                if self.tokens.get(&key).is_none_or(|known| known.replace_at > now) {
                    continue;
                }
                match self.request_token(token).await {
                    Ok(made) => drop(self.tokens.insert(key, made)),
                    Err(error) => {
                        tracing::warn!(%error, pod = pod.metadata.name, "a token could not be replaced");
                        self.tokens.entry(key).and_modify(|known| known.replace_at = now + TOKEN_AGAIN);
                        continue;
                    }
                }
                if let Err(error) = self.write_volume(volume) {
                    self.shared.events.warning(&pod, None, "FailedMount", &mount_failed(&volume.name, &error));
                }
            }
        }
    }

    /// Brings a volume's directory up to date.
    fn write_volume(&self, volume: &Volume) -> Result<(), String> {
        let dir = self.volume_dir(&volume.name);
        let io = |error: std::io::Error| error.to_string();
        let security = &self.pod.spec.security_context;
        let root = rustix::process::geteuid().is_root();
        if let Some(host) = &volume.host_path {
            return provided::host_path(host);
        }
        if self.provided.contains_key(&volume.name) {
            return Ok(());
        }
        let first = !dir.exists();
        make_private(&dir).map_err(io)?;
        if volume.empty_dir.is_some() {
            if first {
                let mode = if security.fs_group.is_some() { 0o2777 } else { 0o777 };
                let group = security.fs_group.filter(|_| root);
                std::os::unix::fs::chown(&dir, None, group).map_err(io)?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).map_err(io)?;
            }
            return Ok(());
        }
        let tokens: BTreeMap<String, String> = self
            .tokens
            .iter()
            .filter(|((name, _), _)| *name == volume.name)
            .map(|((_, path), token)| (path.clone(), token.value.clone()))
            .collect();
        let around = self.shared.surroundings(&self.pod, &self.facts.pod_ip);
        let Some(payload) = volumes::payload(&self.pod, volume, &self.objects, &tokens, &around)? else {
            return Err(format!("volume {:?} is of a kind that this node does not support", volume.name));
        };
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(io)?;
        let owner = Owner {
            uid: volumes::one_user(&self.pod).filter(|_| root && !tokens.is_empty()),
            gid: security.fs_group.filter(|_| root),
        };
        atomic::write(&dir, &payload, owner, Timestamp::now()).map(drop).map_err(io)
    }

    fn volume_dir(&self, name: &str) -> PathBuf {
        self.dir.join("volumes").join(name)
    }

    /// Follows the objects that volumes are made of.
    fn watch_objects(&mut self) {
        let mut wanted: Vec<_> = self.pod.spec.volumes.iter().flat_map(volumes::references).collect();
        wanted.sort();
        wanted.dedup();
        for (kind, name) in wanted {
            let Ok(fields) = FieldSelector::parse(&format!("metadata.name={name}")) else { continue };
            let mut watcher = self.objects_api(kind).watcher(&ListOptions { fields, ..ListOptions::default() });
            let sender = self.sender.clone();
            self.tasks.spawn(async move {
                let mut found = false;
                loop {
                    let data = match watcher.next().await {
                        Ok(WatchEvent::Init) => {
                            found = false;
                            continue;
                        }
                        Ok(WatchEvent::InitApplied(object) | WatchEvent::Applied(object)) => {
                            found = true;
                            Some(data_of(kind, &object))
                        }
                        Ok(WatchEvent::InitDone) if found => continue,
                        Ok(WatchEvent::InitDone | WatchEvent::Deleted(_)) => None,
                        Err(_) => continue,
                    };
                    if sender.send(Message::Object { kind, name: name.clone(), data }).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    // ---- while containers run

    /// Does what is to be done until the pod is over or to go.
    async fn live(&mut self) {
        loop {
            if self.leaving() {
                return;
            }
            let now = Timestamp::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                let message = "Pod was active on the node longer than the specified deadline";
                self.facts.ended = Some(("DeadlineExceeded".into(), message.into()));
                self.shared.events.normal(&self.pod, None, "DeadlineExceeded", message);
                self.terminate().await;
                return;
            }
            if self.evict_for_usage(now).await {
                return;
            }
            let plan = decide::decide(&self.pod, &self.records, now);
            let mut over = false;
            let mut again = false;
            if plan.actions.iter().any(|action| matches!(action, Action::Start { .. })) {
                self.told.send_replace(false);
            }
            for action in plan.actions {
                match action {
                    Action::Start { container } => again |= !self.start(&container).await,
                    Action::StopSidecars => self.stop_all(self.grace()),
                    Action::Finish => over = true,
                }
            }
            self.publish().await;
            self.told.send_replace(true);
            if over {
                return;
            }
            if again {
                continue;
            }
            let tokens = self.tokens.values().map(|token| token.replace_at).min();
            let retry = self.unpublished.then(|| now + TRY_AGAIN);
            let usage = usage::is_limited(&self.pod).then_some(self.usage_at);
            let wake = [plan.wake, deadline, tokens, retry, usage].into_iter().flatten().min();
            if !self.wait(wake).await {
                return;
            }
            self.replace_tokens(Timestamp::now()).await;
        }
    }

    /// Ends the pod if one of its volumes holds more than it may.
    async fn evict_for_usage(&mut self, now: Timestamp) -> bool {
        if now < self.usage_at || !usage::is_limited(&self.pod) {
            return false;
        }
        self.usage_at = now + USAGE_PERIOD;
        let (pod, folder) = (self.pod.clone(), self.dir.join("volumes"));
        let look = tokio::task::spawn_blocking(move || usage::exceeded(&pod, &folder));
        let Ok(Some(message)) = look.await else { return false };
        self.shared.events.warning(&self.pod, None, EVICTED, &message);
        self.facts.ended = Some((EVICTED.into(), message));
        self.terminate().await;
        true
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.active_deadline_seconds?;
        let start: Timestamp = self.facts.start_time.as_ref()?.parse().ok()?;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Waits for a message, an update or the time. False if the agent ends.
    async fn wait(&mut self, wake: Option<Timestamp>) -> bool {
        let wake = wake.unwrap_or(Timestamp::MAX);
        tokio::select! {
            Some(message) = self.messages.recv() => self.take_message(message),
            changed = self.updates.changed() => {
                if changed.is_err() {
                    return false;
                }
                let before = self.pod.clone();
                self.take_update();
                self.refresh_pod_files(&before);
            }
            () = sleep_until(wake) => {}
        }
        while let Ok(message) = self.messages.try_recv() {
            self.take_message(message);
        }
        true
    }

    /// Labels and annotations show in files.
    fn refresh_pod_files(&mut self, before: &Pod) {
        let (old, new) = (&before.metadata, &self.pod.metadata);
        if old.labels == new.labels && old.annotations == new.annotations {
            return;
        }
        for volume in self.pod.clone().spec.volumes.iter().filter(|volume| volumes::shows_pod(volume)) {
            let _ = self.write_volume(volume);
        }
    }

    fn take_message(&mut self, message: Message) {
        match message {
            Message::Exited { container, attempt, exit } => self.note_exit(&container, attempt, exit),
            Message::Probed { container, attempt, kind, healthy } => {
                self.note_probe(&container, attempt, kind, healthy)
            }
            Message::Pulled { container, outcome, took, waited } => self.note_pulled(&container, outcome, took, waited),
            Message::Object { kind, name, data } => {
                let key = (kind, name);
                if self.objects.get(&key) == data.as_ref() {
                    return;
                }
                match data {
                    Some(data) => drop(self.objects.insert(key.clone(), data)),
                    None => drop(self.objects.remove(&key)),
                }
                for volume in
                    self.pod.clone().spec.volumes.iter().filter(|volume| volumes::references(volume).contains(&key))
                {
                    // What is gone or broken keeps the files as they were.
                    if let Err(error) = self.write_volume(volume) {
                        self.shared.events.warning(&self.pod, None, "FailedMount", &mount_failed(&volume.name, &error));
                    }
                }
            }
        }
    }

    fn note_exit(&mut self, container: &str, attempt: u32, exit: Exit) {
        if self.running.get(container).is_none_or(|known| known.attempt != attempt) {
            return;
        }
        let Some(ended) = self.running.remove(container) else { return };
        self.note_reachable(|pod| drop(pod.containers.remove(container)));
        ended.probes.iter().for_each(AbortHandle::abort);
        let now = Timestamp::now();
        let Some(record) = self.records.iter_mut().find(|record| record.name == container) else { return };
        let started_at = match record.state {
            State::Running { since } => Some(time(since)),
            _ => None,
        };
        let mut message = read_message(&ended.message);
        let from_log = ended.target.container.termination_message_policy == "FallbackToLogsOnError";
        if let (true, true, Some(log)) = (message.is_empty() && from_log, exit.code() != 0, &ended.log) {
            message = log.tail(LOG_MESSAGE_LINES_MAX, LOG_MESSAGE_BYTES_MAX);
        }
        let terminated = Terminated {
            exit_code: exit.code(),
            signal: None,
            reason: if exit.code() == 0 { "Completed" } else { "Error" }.into(),
            message,
            started_at,
            finished_at: Some(time(now)),
            container_id: record.id.clone(),
        };
        record.end(terminated, now);
        let crashes = record.crashes;
        if crashes > 0 && self.pod.spec.restart_policy != crate::pod::RestartPolicy::Never && !self.facts.terminating {
            let message = format!("Back-off restarting failed container {container} in pod {}", self.full_name());
            self.shared.events.warning(&self.pod, Some(container), "BackOff", &message);
        }
    }

    fn note_probe(&mut self, container: &str, attempt: u32, kind: ProbeKind, healthy: bool) {
        let Some(running) = self.running.get_mut(container).filter(|known| known.attempt == attempt) else { return };
        let Some(record) = self.records.iter_mut().find(|record| record.name == container) else { return };
        match (kind, healthy) {
            (ProbeKind::Readiness, healthy) => record.ready = healthy && record.started,
            (ProbeKind::Startup, true) => {
                record.started = true;
                record.ready = running.target.container.readiness_probe.is_none();
                self.start_probes(container, &[ProbeKind::Liveness, ProbeKind::Readiness]);
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let grace = match kind {
                    ProbeKind::Startup => &running.target.container.startup_probe,
                    _ => &running.target.container.liveness_probe,
                };
                let own = grace.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
                let grace = own.map_or_else(|| self.grace(), seconds);
                let word = kind.word().to_lowercase();
                let message = format!("Container {container} failed {word} probe, will be restarted");
                self.shared.events.normal(&self.pod, Some(container), "Killing", &message);
                self.stop(container, grace);
            }
        }
    }

    /// Starts a container. False if it does not run, and what follows is to be decided anew.
    async fn start(&mut self, name: &str) -> bool {
        let pod = self.pod.clone();
        let mut all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let Some(container) = all.find(|container| container.name == name) else { return true };
        let Some(index) = self.records.iter().position(|record| record.name == name) else { return true };
        let before = self.records[index].clone();
        let again = matches!(before.state, State::Ended(_)) || before.last.is_some();
        let attempt = if again { before.restarts + 1 } else { 0 };
        let Some(files) = self.files_of(container, index) else { return true };
        self.records[index].image_id = match &files {
            Files::Host => HOST_IMAGE_ID.into(),
            Files::Image(held) => {
                let named = images::reference(&container.image).ok();
                let pulled = named.as_ref().and_then(|name| held.image.digest_in(name));
                pulled.unwrap_or(&held.image.id).to_owned()
            }
        };
        let result = self.launch(container, attempt, files).await;
        let now = Timestamp::now();
        let record = &mut self.records[index];
        if let State::Ended(terminated) = &before.state {
            record.last = Some(terminated.clone());
        }
        match result {
            Err(Problem::Config(message)) => {
                self.shared.events.warning(&pod, Some(name), "Failed", &format!("Error: {message}"));
                self.refuse(index, "CreateContainerConfigError", message);
                true
            }
            Err(Problem::Start(message)) => {
                let message = format!("failed to start container: {message}");
                record.restarts = attempt;
                record.crashes = before.crashes + u32::from(again);
                record.id = new_id();
                let terminated = Terminated {
                    exit_code: START_ERROR,
                    reason: "StartError".into(),
                    message: message.clone(),
                    started_at: Some(time(Timestamp::UNIX_EPOCH)),
                    finished_at: Some(time(now)),
                    container_id: record.id.clone(),
                    signal: None,
                };
                record.state = State::New;
                record.end(terminated, now);
                self.shared.events.warning(&pod, Some(name), "Failed", &format!("Error: {message}"));
                false
            }
            Ok(running) => {
                record.restarts = attempt;
                record.crashes = before.crashes + u32::from(again);
                record.id = new_id();
                record.state = State::Running { since: now };
                record.started = container.startup_probe.is_none();
                record.ready = record.started && container.readiness_probe.is_none();
                let (target, process) = (running.target.clone(), running.process.clone());
                self.running.insert(name.to_owned(), running);
                self.shared.events.normal(&pod, Some(name), "Created", &format!("Created container: {name}"));
                self.shared.events.normal(&pod, Some(name), "Started", &format!("Started container {name}"));
                self.after_start(container, target, process);
                let kinds: &[ProbeKind] = match container.startup_probe {
                    Some(_) => &[ProbeKind::Startup],
                    None => &[ProbeKind::Liveness, ProbeKind::Readiness],
                };
                self.start_probes(name, kinds);
                true
            }
        }
    }

    /// The files for a container that is about to be started; nothing where it has to wait for its image, or cannot have it.
    fn files_of(&mut self, container: &Container, index: usize) -> Option<Files> {
        let (pod, name) = (self.pod.clone(), container.name.as_str());
        if let Some(held) = self.pulled.remove(name) {
            return Some(Files::Image(held));
        }
        match image_choice::choose(container, &self.shared.config.images) {
            Choice::Use(files) => {
                let message = format!("Container image {:?} already present on machine", container.image);
                self.shared.events.normal(&pod, Some(name), "Pulled", &message);
                Some(files)
            }
            Choice::Refuse(reason, message) => {
                let event = if reason == "InvalidImageName" { "InspectFailed" } else { reason };
                self.shared.events.warning(&pod, Some(name), event, &message);
                self.shared.events.warning(&pod, Some(name), "Failed", &format!("Error: {reason}"));
                self.refuse(index, reason, message);
                None
            }
            Choice::Pull(reference) => {
                self.shared.events.normal(&pod, Some(name), "Pulling", &format!("Pulling image {:?}", container.image));
                self.records[index].pulling = true;
                self.pull(name, reference);
                None
            }
        }
    }

    /// What the pod's pull secrets hold. One that is not there is no credential; the registry says whether one is needed.
    fn pull_secrets(&self) -> impl Future<Output = Vec<Data>> + use<> {
        let names: Vec<String> = self.pod.spec.image_pull_secrets.iter().map(|it| it.name.clone()).collect();
        let api = self.objects_api(ObjectKind::Secret);
        async move {
            let found = join_all(names.iter().map(|name| api.get_opt(name))).await;
            found.into_iter().filter_map(|found| Some(data_of(ObjectKind::Secret, &*found.ok()??))).collect()
        }
    }

    /// Pulls beside the worker, and tells it.
    fn pull(&mut self, container: &str, reference: images::Reference) {
        let (shared, sender, container) = (self.shared.clone(), self.sender.clone(), container.to_owned());
        let secrets = self.pull_secrets();
        self.tasks.spawn(async move {
            let began = std::time::Instant::now();
            let secrets = secrets.await;
            let Ok(_turn) = shared.pulls.acquire().await else { return };
            let pulling = std::time::Instant::now();
            let outcome = image_choice::pull(&shared.config.images, &reference, &secrets).await;
            let (took, waited) = (pulling.elapsed(), began.elapsed());
            let _ = sender.send(Message::Pulled { container, outcome, took, waited }).await;
        });
    }

    fn note_pulled(
        &mut self,
        container: &str,
        outcome: Result<Arc<images::Hold>, String>,
        took: Duration,
        waited: Duration,
    ) {
        let Some(index) = self.records.iter().position(|record| record.name == container) else { return };
        let pod = self.pod.clone();
        let image = pod.spec.init_containers.iter().chain(&pod.spec.containers).find(|it| it.name == container);
        let image = image.map(|container| container.image.as_str()).unwrap_or_default();
        self.records[index].pulling = false;
        match outcome {
            Ok(held) => {
                self.records[index].pulls_failed = 0;
                let message = format!(
                    "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                    image_choice::milliseconds(took),
                    image_choice::milliseconds(waited),
                    held.image.bytes
                );
                self.shared.events.normal(&pod, Some(container), "Pulled", &message);
                self.pulled.insert(container.to_owned(), held);
            }
            Err(why) => {
                self.records[index].pulls_failed += 1;
                let message = format!("Failed to pull image {image:?}: {why}");
                self.shared.events.warning(&pod, Some(container), "Failed", &message);
                self.shared.events.warning(&pod, Some(container), "Failed", "Error: ErrImagePull");
                self.refuse(index, "ErrImagePull", why);
            }
        }
    }

    fn refuse(&mut self, index: usize, reason: &str, message: String) {
        let at = Timestamp::now();
        self.records[index].state = State::Refused { reason: reason.into(), message, at };
        let name = self.records[index].name.clone();
        self.note_log(&name, |logs| logs.waiting = reason.to_owned());
    }

    async fn launch(&mut self, container: &Container, attempt: u32, files: Files) -> Result<RunningContainer, Problem> {
        let Some(sandbox) = self.sandbox.clone() else { return Err(Problem::Start("the pod has no sandbox".into())) };
        let io = |error: std::io::Error| Problem::Start(error.to_string());
        let namespace = self.pod.metadata.namespace.clone();
        let attached = self.shared.take_attachment(&namespace, &self.pod.metadata.name);
        let (attachment, tell) = attached.map_or((None, None), |(attachment, tell)| (Some(attachment), Some(tell)));
        let mut mounts = attachment.as_ref().map(|attachment| attachment.mounts.clone()).unwrap_or_default();
        let base = attachment.as_ref().map(|attachment| attachment.env.clone()).unwrap_or_default();
        let mut process = match self.process_spec(container, base, &files).await {
            Ok(process) => process,
            Err(message) => {
                if let Some(tell) = tell {
                    let _ = tell.send(Err(message.clone()));
                }
                return Err(Problem::Config(message));
            }
        };
        let wanted = Wanted { stdin: container.stdin, stdin_once: container.stdin_once, tty: container.tty };
        match &attachment {
            Some(attachment) if attachment.terminal => process.terminal = Terminal::Agents,
            None if wanted.tty => {
                process.terminal = Terminal::Own;
                remote::set_term(&mut process.env);
            }
            _ => {}
        }
        let message = self.dir.join(format!("{}.message", container.name));
        fs::File::options().write(true).create(true).truncate(true).mode(0o666).open(&message).map_err(io)?;
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).map_err(io)?;
        mounts.extend(self.mounts(container, &message, &process.env).map_err(Problem::Config)?);
        let mut hidden = self.shared.config.hidden.clone();
        hidden.push(self.shared.config.state_dir.clone());
        let local = attachment.is_some();
        let root = self.root(container, attempt, &files).map_err(io)?;
        let proc_unmasked = isolation::proc_unmasked(container, rustix::process::geteuid().is_root());
        let spec = ContainerSpec {
            process: process.clone(),
            root,
            mounts,
            hidden,
            process_namespace: match self.pod.spec.share_process_namespace || local {
                true => ProcessNamespace::Pod,
                false => ProcessNamespace::Own,
            },
            proc_unmasked: proc_unmasked.map_err(Problem::Config)?,
        };
        let (stdio, capture) = match attachment {
            Some(attachment) => (attachment.stdio, None),
            None => {
                let path = self.dir.join("logs").join(format!("{}_{attempt}.log", container.name));
                let log = Log::create(path).map_err(io)?;
                let (stdio, ends) = console::prepare(wanted).map_err(io)?;
                (stdio, Some((log, ends)))
            }
        };
        let started = sandbox.start(spec, stdio).await;
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                let text = match &error {
                    SandboxError::Refused(failure) => failure.to_string(),
                    other => other.to_string(),
                };
                if let Some(tell) = tell {
                    let _ = tell.send(Err(text.clone()));
                }
                return Err(Problem::Start(text));
            }
        };
        let capture = capture.map(|(log, ends)| ends.open(wanted).map(|(console, outputs)| (log, console, outputs)));
        let capture = capture.transpose().map_err(io)?;
        let log = capture.as_ref().map(|(log, ..)| log.clone());
        let console = capture.as_ref().map(|(_, console, _)| console.clone());
        let current = log.clone();
        self.note_log(&container.name, |logs| {
            logs.previous = logs.current.take().or(logs.previous.take());
            logs.current = current;
        });
        self.watch_exit(container.name.clone(), attempt, started.clone(), capture, tell);
        let target = Target {
            pod: sandbox,
            process: started.clone(),
            container: container.clone(),
            spec: process,
            pod_ip: self.facts.pod_ip.parse().ok(),
            host_network: self.pod.spec.host_network,
        };
        let running = Running { target: target.clone(), console };
        self.note_reachable(|pod| drop(pod.containers.insert(container.name.clone(), running)));
        Ok(RunningContainer {
            attempt,
            process: started,
            target,
            log,
            message,
            probes: Vec::new(),
            stopping: false,
            _files: files,
        })
    }

    /// Waits beside the worker for a container's end and the last of its output.
    fn watch_exit(
        &mut self,
        container: String,
        attempt: u32,
        process: Arc<dyn RunningProcess>,
        capture: Option<(Arc<Log>, Arc<Console>, Outputs)>,
        tell: Option<tokio::sync::oneshot::Sender<Result<Exit, String>>>,
    ) {
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let exit = match capture {
                None => process.wait().await,
                Some((log, console, outputs)) => {
                    let mut output = std::pin::pin!(outputs.capture(&log, &console));
                    let exit = tokio::select! {
                        exit = process.wait() => {
                            let _ = tokio::time::timeout(DRAIN_MAX, output).await;
                            exit
                        }
                        () = &mut output => process.wait().await,
                    };
                    log.close();
                    console.end();
                    exit
                }
            };
            if let Some(tell) = tell {
                let _ = tell.send(Ok(exit));
            }
            let _ = sender.send(Message::Exited { container, attempt, exit }).await;
        });
    }

    /// What the container's program is and what it finds.
    async fn process_spec(
        &self,
        container: &Container,
        base: Vec<(String, String)>,
        files: &Files,
    ) -> Result<ProcessSpec, String> {
        let security = &container.security_context;
        let of_pod = &self.pod.spec.security_context;
        let uid = security.run_as_user.or(of_pod.run_as_user);
        let gid = security.run_as_group.or(of_pod.run_as_group);
        let config = match files {
            Files::Host => images::Config::default(),
            Files::Image(held) => held.image.config.clone(),
        };
        let names_user =
            config.user.split(':').next().is_some_and(|user| !user.is_empty() && user.parse::<u32>().is_err());
        if security.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
            let of_image: u32 = config.user.split(':').next().and_then(|user| user.parse().ok()).unwrap_or(0);
            let what = match uid {
                Some(0) => Some("container's runAsUser breaks non-root policy".to_owned()),
                None if names_user => Some(format!(
                    "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
                    config.user
                )),
                None if of_image == 0 => Some("container has runAsNonRoot and image will run as root".to_owned()),
                _ => None,
            };
            if let Some(what) = what {
                let (name, uid) = (self.full_name(), &self.pod.metadata.uid);
                return Err(format!("{what} (pod: \"{name}({uid})\", container: {})", container.name));
            }
        }
        let account = match files {
            Files::Host => None,
            Files::Image(held) => {
                let wanted = uid.map_or_else(|| config.user.clone(), |uid| uid.to_string());
                Some(self.shared.config.images.account(&held.image, &wanted).map_err(|why| why.to_string())?)
            }
        };
        let mut objects = Objects::new();
        let mut wanted = env::references(container);
        wanted.sort();
        wanted.dedup();
        let found = join_all(wanted.iter().map(|(kind, name)| self.fetch(*kind, name))).await;
        for (key, data) in wanted.into_iter().zip(found) {
            if let Some(data) = data? {
                objects.insert(key, data);
            }
        }
        let namespace = &self.pod.metadata.namespace;
        let services = self.shared.services.read().of_namespace(namespace);
        let around = self.shared.surroundings(&self.pod, &self.facts.pod_ip);
        let own = env::environment(&self.pod, container, &objects, &services, &around)?;
        let of_image = account.clone().unwrap_or_default();
        let strict = of_pod.supplemental_groups_policy == "Strict";
        let user = (uid.is_some()
            || gid.is_some()
            || of_pod.fs_group.is_some()
            || !of_pod.supplemental_groups.is_empty()
            || of_image.uid != 0)
            .then(|| User {
                uid: uid.unwrap_or(of_image.uid),
                gid: gid.unwrap_or(of_image.gid),
                groups: of_pod
                    .supplemental_groups
                    .iter()
                    .chain(&of_pod.fs_group)
                    .chain(of_image.groups.iter().filter(|_| !strict))
                    .copied()
                    .collect(),
            });
        let mut all = base;
        let mut set =
            |name: &str, value: String, only_if_missing: bool| match all.iter_mut().find(|(known, _)| known == name) {
                Some(_) if only_if_missing => {}
                Some((_, known)) => *known = value,
                None => all.push((name.to_owned(), value)),
            };
        for pair in &config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            set(name, value.to_owned(), false);
        }
        set("PATH", DEFAULT_PATH.into(), true);
        set("HOSTNAME", files::host_name(&self.pod.spec, &self.pod.metadata.name), false);
        let home = match account {
            Some(account) if account.home.is_empty() => "/".into(),
            Some(account) => account.home,
            None => home_of(uid.unwrap_or(0)),
        };
        set("HOME", home, true);
        for (name, value) in own {
            set(&name, value, false);
        }
        let expand = |word: &String| {
            env::expand(word, |name| all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()))
        };
        let own: Vec<String> = container.command.iter().chain(&container.args).map(expand).collect();
        let argv = match (container.command.is_empty(), container.args.is_empty()) {
            (true, true) => [config.entrypoint, config.cmd].concat(),
            (true, false) => [config.entrypoint, own].concat(),
            (false, _) => own,
        };
        if argv.is_empty() {
            return Err(format!(
                "no command specified: the image {:?} has none of its own; set command",
                container.image
            ));
        }
        let cwd = [&container.working_dir, &config.working_dir].into_iter().find(|folder| !folder.is_empty());
        let cwd = cwd.map_or_else(|| "/".into(), PathBuf::from);
        Ok(ProcessSpec {
            argv,
            cwd,
            user,
            terminal: Terminal::None,
            no_new_privileges: security.allow_privilege_escalation == Some(false),
            isolation: isolation::isolation(&self.pod, container)?,
            env: all,
        })
    }

    /// Where the files of a container come from, and what it writes goes to.
    fn root(&self, container: &Container, attempt: u32, files: &Files) -> std::io::Result<Root> {
        let read_only = container.security_context.read_only_root_filesystem == Some(true);
        let Files::Image(held) = files else { return Ok(Root::Host { read_only }) };
        // What the container wrote before its restart is not seen again.
        let scratch = self.dir.join("scratch");
        make_private(&scratch)?;
        let before = scratch.join(format!("{}_{}", container.name, attempt.wrapping_sub(1)));
        if before.exists() {
            images::remove_tree(&before)?;
        }
        let scratch = scratch.join(format!("{}_{attempt}", container.name));
        make_private(&scratch)?;
        Ok(Root::Image { layers: self.shared.config.images.layers(&held.image), scratch, read_only })
    }

    fn mounts(&self, container: &Container, message: &Path, env: &[(String, String)]) -> Result<Vec<Mount>, String> {
        let mut mounts = Vec::new();
        for mount in &container.volume_mounts {
            mounts.push(self.mount(mount, env)?);
        }
        let taken = |path: &str, mounts: &[Mount]| mounts.iter().any(|mount| mount.target == Path::new(path));
        for name in ["hosts", "hostname", "resolv.conf"] {
            let path = format!("/etc/{name}");
            if !taken(&path, &mounts) {
                let source = Source::Host(self.dir.join(name));
                mounts.push(Mount { source, sub_path: None, target: path.into(), read_only: name != "hosts" });
            }
        }
        let path = match container.termination_message_path.as_str() {
            "" => "/dev/termination-log",
            path => path,
        };
        if !taken(path, &mounts) {
            let source = Source::Host(message.to_owned());
            mounts.push(Mount { source, sub_path: None, target: path.into(), read_only: false });
        }
        Ok(mounts)
    }

    fn mount(&self, mount: &VolumeMount, env: &[(String, String)]) -> Result<Mount, String> {
        let volume = self.pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume {:?} not found", mount.name))?;
        let provided = self.provided.get(&volume.name);
        let source = match (&volume.host_path, &volume.empty_dir) {
            _ if provided.is_some() => match provided {
                Some(Provided::Image(held)) => Source::Image(self.shared.config.images.layers(&held.image)),
                Some(Provided::Claimed { path, .. }) => Source::Host(path.clone()),
                None => return Err(format!("volume {:?} not found", mount.name)),
            },
            (Some(host), _) => Source::Host(host.path.clone().into()),
            (_, Some(empty)) if empty.medium == "Memory" => Source::Memory(volume.name.clone()),
            _ => Source::Host(self.volume_dir(&volume.name)),
        };
        let made = match provided {
            Some(Provided::Claimed { read_only, .. }) => *read_only,
            Some(Provided::Image(_)) => true,
            None => volume.host_path.is_none() && volume.empty_dir.is_none(),
        };
        let get = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let missing = std::cell::Cell::new(None);
        let sub_path = match mount.sub_path_expr.as_str() {
            "" => mount.sub_path.clone(),
            expression => env::expand(expression, |name| {
                let value = get(name);
                if value.is_none() {
                    missing.set(Some(name.to_owned()));
                }
                value
            }),
        };
        if let Some(name) = missing.take() {
            return Err(format!("missing value for {name:?}"));
        }
        if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
            return Err(format!("subPath {sub_path:?} must be a relative path without '..'"));
        }
        Ok(Mount {
            source,
            sub_path: Some(sub_path).filter(|path| !path.is_empty()),
            target: mount.mount_path.clone().into(),
            read_only: mount.read_only || made,
        })
    }

    /// The hook after the start runs beside; if it fails the container is ended.
    fn after_start(&mut self, container: &Container, target: Target, process: Arc<dyn RunningProcess>) {
        let Some(hook) = container.lifecycle.post_start.clone() else { return };
        let (events, pod, grace) = (self.shared.events.clone(), self.pod.clone(), self.grace());
        let name = container.name.clone();
        self.tasks.spawn(async move {
            if let Err(error) = run_hook(&target, &hook, Duration::MAX).await {
                events.warning(&pod, Some(&name), "FailedPostStartHook", &format!("PostStartHook failed: {error}"));
                end(process, None, grace).await;
            }
        });
    }

    fn start_probes(&mut self, name: &str, kinds: &[ProbeKind]) {
        let Some(running) = self.running.get_mut(name) else { return };
        for kind in kinds {
            let container = &running.target.container;
            let probe = match kind {
                ProbeKind::Startup => &container.startup_probe,
                ProbeKind::Liveness => &container.liveness_probe,
                ProbeKind::Readiness => &container.readiness_probe,
            };
            let Some(probe) = probe.clone() else { continue };
            let probing = Probing {
                container: name.to_owned(),
                attempt: running.attempt,
                kind: *kind,
                probe,
                target: running.target.clone(),
                sender: self.sender.clone(),
                events: self.shared.events.clone(),
                pod: self.pod.clone(),
            };
            running.probes.push(self.tasks.spawn(probing.run()));
        }
    }

    // ---- the end

    fn grace(&self) -> Duration {
        if self.facts.ended.as_ref().is_some_and(|(reason, _)| reason == EVICTED) {
            return GRACE_EVICTED;
        }
        let meta =
            self.pod.metadata.deletion_grace_period_seconds.filter(|_| self.pod.metadata.deletion_timestamp.is_some());
        if self.gone && meta.is_none() {
            return GRACE_GONE;
        }
        meta.or(self.pod.spec.termination_grace_period_seconds).map_or(GRACE_DEFAULT, seconds)
    }

    /// Asks a container to end, and makes it end when the time is over.
    fn stop(&mut self, name: &str, grace: Duration) {
        let Some(running) = self.running.get_mut(name).filter(|running| !running.stopping) else { return };
        running.stopping = true;
        running.probes.drain(..).for_each(|probe| probe.abort());
        let hook = running.target.container.lifecycle.pre_stop.clone().map(|hook| (running.target.clone(), hook));
        self.tasks.spawn(end(running.process.clone(), hook, grace));
    }

    fn stop_all(&mut self, grace: Duration) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            if !self.running[&name].stopping {
                let message = format!("Stopping container {name}");
                self.shared.events.normal(&self.pod, Some(&name), "Killing", &message);
            }
            self.stop(&name, grace);
        }
    }

    /// Ends all containers: those beside the others last.
    async fn terminate(&mut self) {
        self.facts.terminating = true;
        let mut deadline = tokio::time::Instant::now() + self.grace();
        let sidecars: Vec<String> =
            self.pod.spec.init_containers.iter().filter(|c| c.is_sidecar()).map(|c| c.name.clone()).collect();
        while !self.running.is_empty() {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let main: Vec<String> = self.running.keys().filter(|name| !sidecars.contains(*name)).cloned().collect();
            if main.is_empty() {
                self.stop_all(left);
            } else {
                main.iter().filter(|name| !self.running[*name].stopping).for_each(|name| {
                    let message = format!("Stopping container {name}");
                    self.shared.events.normal(&self.pod, Some(name), "Killing", &message);
                });
                main.iter().for_each(|name| self.stop(name, left));
            }
            tokio::select! {
                Some(message) = self.messages.recv() => self.take_message(message),
                changed = self.updates.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_update();
                    deadline = deadline.min(tokio::time::Instant::now() + self.grace());
                }
                () = tokio::time::sleep_until(deadline + GRACE_AFTER_HOOK) => {
                    for running in self.running.values() {
                        running.process.signal(SIGKILL).await;
                    }
                    // The kernel has their ends; the rest is only to hear of them.
                    deadline += GRACE_AFTER_HOOK;
                }
            }
        }
    }

    /// Ends the sandbox and takes its files away, but for the logs.
    async fn tear_down(&mut self) {
        if self.sandbox.is_some()
            && let Some(pod) = lock(&self.shared.reachable).remove(&self.key())
        {
            pod.ended.cancel();
        }
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.kill();
            sandbox.ended().await;
        }
        self.tasks.shutdown().await;
        self.running.clear();
        if let Some(address) = self.address.take() {
            self.shared.give_address_back(address);
        }
        let _ = fs::remove_dir_all(self.dir.join("volumes"));
    }

    async fn delete(&mut self) {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: api::Preconditions { uid: Some(self.pod.metadata.uid.clone()), resource_version: None },
            ..DeleteOptions::default()
        };
        while !self.gone {
            match self.api.delete_with(&self.pod.metadata.name, &options).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => tracing::debug!(%error, pod = self.pod.metadata.name, "a pod could not be deleted yet"),
            }
            tokio::select! {
                () = sleep_until(Timestamp::now() + TRY_AGAIN) => {}
                changed = self.updates.changed() => match changed {
                    Ok(()) => self.take_update(),
                    Err(_) => return,
                },
            }
        }
    }

    // ---- what others see

    /// Tells the server the status, if it has changed.
    async fn publish(&mut self) {
        let now = Timestamp::now();
        let status = decide::status(&self.pod, &self.records, &self.facts, &self.published, now);
        if self.gone || status == self.published {
            self.unpublished = false;
            return;
        }
        self.tell_pull_back_off(&status);
        let patch = json!({"metadata": {"uid": self.pod.metadata.uid}, "status": status});
        match self.api.patch_status(&self.pod.metadata.name, &Patch::Strategic(&patch)).await {
            Ok(_) => {
                self.published = status;
                self.unpublished = false;
            }
            Err(error) if error.is_not_found() || error.is_conflict() => self.unpublished = false,
            Err(error) => {
                tracing::debug!(%error, pod = self.pod.metadata.name, "a status could not be told yet");
                self.unpublished = true;
            }
        }
    }

    /// An event when the words of a container's status change from an image that could not be pulled to a pause.
    fn tell_pull_back_off(&self, status: &PodStatus) {
        let pauses = |status: &PodStatus, name: &str| {
            let mut all = status.init_container_statuses.iter().chain(&status.container_statuses);
            all.any(|it| it.name == name && it.state.waiting.as_ref().is_some_and(|it| it.reason == PULL_BACK_OFF))
        };
        for container in self.pod.spec.init_containers.iter().chain(&self.pod.spec.containers) {
            let name = container.name.as_str();
            if pauses(status, name) && !pauses(&self.published, name) {
                let message = format!("Back-off pulling image {:?}", container.image);
                self.shared.events.normal(&self.pod, Some(name), "BackOff", &message);
                self.shared.events.warning(&self.pod, Some(name), "Failed", &format!("Error: {PULL_BACK_OFF}"));
            }
        }
    }

    fn note_waiting(&self, reason: &str) {
        for record in &self.records {
            self.note_log(&record.name, |logs| logs.waiting = reason.to_owned());
        }
    }

    fn note_log(&self, container: &str, note: impl FnOnce(&mut ContainerLogs)) {
        note(lock(&self.shared.logs).entry(self.key()).or_default().entry(container.to_owned()).or_default());
    }

    fn note_reachable(&self, note: impl FnOnce(&mut Reachable)) {
        if let Some(pod) = lock(&self.shared.reachable).get_mut(&self.key()) {
            note(pod);
        }
    }

    /// `name_namespace`, as messages name a pod.
    fn full_name(&self) -> String {
        format!("{}_{}", self.pod.metadata.name, self.pod.metadata.namespace)
    }
}

const DNS_PORT: u16 = 53;
/// The reason of a pod that took more than it may.
const EVICTED: &str = "Evicted";
/// The reason of a container that waits until its image is pulled again.
const PULL_BACK_OFF: &str = "ImagePullBackOff";
/// The event of a pod that cannot have its namespaces.
const NO_SANDBOX: &str = "FailedCreatePodSandBox";

/// A probe that runs as long as its container.
struct Probing {
    container: String,
    attempt: u32,
    kind: ProbeKind,
    probe: Probe,
    target: Target,
    sender: mpsc::Sender<Message>,
    events: crate::events::Recorder,
    pod: Arc<Pod>,
}

impl Probing {
    async fn run(self) {
        let period = Duration::from_secs(self.probe.period_seconds.max(1));
        tokio::time::sleep(Duration::from_secs(self.probe.initial_delay_seconds)).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut counter = Counter::default();
        loop {
            ticks.tick().await;
            let result = probe::run(&self.target, &self.probe).await;
            if let Err(error) = &result {
                let message = format!("{} probe failed: {error}", self.kind.word());
                self.events.warning(&self.pod, Some(&self.container), "Unhealthy", &message);
            }
            let Some(healthy) = counter.observe(result.is_ok(), &self.probe) else { continue };
            let (container, attempt, kind) = (self.container.clone(), self.attempt, self.kind);
            if self.sender.send(Message::Probed { container, attempt, kind, healthy }).await.is_err() {
                return;
            }
            if kind == ProbeKind::Startup && healthy {
                return;
            }
        }
    }
}

/// Ends a container: its hook, SIGTERM, and when the time is over SIGKILL.
async fn end(process: Arc<dyn RunningProcess>, hook: Option<(Target, Handler)>, grace: Duration) {
    let began = tokio::time::Instant::now();
    if let Some((target, hook)) = hook
        && let Err(error) = run_hook(&target, &hook, grace).await
    {
        tracing::debug!(%error, container = target.container.name, "the hook before the stop failed");
    }
    let used = began.elapsed();
    let left = if used < GRACE_AFTER_HOOK {
        grace.saturating_sub(used)
    } else {
        grace.saturating_sub(used).max(GRACE_AFTER_HOOK)
    };
    if !left.is_zero() {
        process.signal(SIGTERM).await;
        if tokio::time::timeout(left, process.wait()).await.is_ok() {
            return;
        }
    }
    process.signal(SIGKILL).await;
}

async fn run_hook(target: &Target, hook: &Handler, limit: Duration) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return match probe::command(target, &exec.command, limit).await? {
            (Exit::Code(0), _) => Ok(()),
            (exit, output) => Err(format!("command {:?} ended with {}: {output}", exec.command, exit.code())),
        };
    }
    if let Some(http) = &hook.http_get {
        let attempt = tokio::time::timeout(limit, probe::http_get(target, http)).await;
        return attempt.unwrap_or_else(|_| Err("no answer in time".into()));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds).min(limit)).await;
    }
    Ok(())
}

/// What a ConfigMap or Secret holds. What is no base64 is left out: the server does not take it.
fn data_of(kind: ObjectKind, object: &Value) -> Data {
    let mut data = Data::new();
    let entries = |field: &str| object[field].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let decode = |value: &Value| base64::engine::general_purpose::STANDARD.decode(text(value)).ok();
    match kind {
        ObjectKind::ConfigMap => {
            data.extend(entries("data").map(|(key, value)| (key.clone(), text(value).into_bytes())));
            data.extend(entries("binaryData").filter_map(|(key, value)| Some((key.clone(), decode(value)?))));
        }
        ObjectKind::Secret => {
            data.extend(entries("data").filter_map(|(key, value)| Some((key.clone(), decode(value)?))));
        }
    }
    data
}

fn mount_failed(volume: &str, message: &str) -> String {
    format!("MountVolume.SetUp failed for volume {volume:?} : {message}")
}

fn read_message(path: &Path) -> String {
    let mut text = Vec::new();
    let _ = fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, MESSAGE_BYTES_MAX), &mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// The home directory of a user, as the machine's list of users has it.
fn home_of(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut homes = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)?.parse() == Ok(uid)).then(|| fields.nth(2).map(str::to_owned)).flatten()
    });
    homes.next().unwrap_or_else(|| "/".to_owned())
}

fn new_id() -> String {
    format!("kemudi://{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn jitter() -> SignedDuration {
    let mut random = [0; 4];
    let _ = getrandom::fill(&mut random);
    let part = i64::from(u32::from_ne_bytes(random)) % volumes::ROTATE_JITTER_MAX.as_millis().max(1) as i64;
    SignedDuration::from_millis(part)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

async fn sleep_until(at: Timestamp) {
    let left = at.duration_since(Timestamp::now());
    tokio::time::sleep(left.try_into().unwrap_or(Duration::ZERO)).await;
}

fn make_private(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
