//! `kemudi run`: a command in a pod, with exactly the rights it is given. Without a server it starts its own, in memory,
//! and takes it away with the command. The command's exit code is this one's.

use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::rights::Recorded;
use clap::Args;
use kemudi::local_node::{self, LocalNode, NodeOptions, WayOut};
use kemudi::{Cluster, Options};
use kemudi_client::config::Ca;
use kemudi_client::{Api, ApiResource, Client, Config, DeleteOptions, Dynamic, Error};
use node::sandbox::{Exit, Mount, Source, Stdio};
use node::serving::ServingConfig;
use node::{Attachment, Node};
use pod::record::signals;
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;
use tokio::sync::oneshot;

use super::recording::{Recording, Roles};
use super::rights::{self, Rights};
use super::{Failure, Global, Outcome};

const RBAC: &str = "rbac.authorization.k8s.io";
/// What this program is called in objects that it makes.
const MANAGER: &str = "kemudi-run";
/// How long the clean-up may take when a server elsewhere holds the objects.
const CLEAN_UP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the command may take to start before a word about it is due.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// Variables that lead to other clusters: what runs in a pod has its own.
const NOT_PASSED_ON: [&str; 4] = ["KUBECONFIG", "POD_NAMESPACE", "KUBERNETES_MASTER", "NOTIFY_SOCKET"];

#[derive(Args, Debug, Default)]
#[command(after_help = "\
Examples:
  kemudi run --allow 'get,list pods' -- python3 app.py
  kemudi run --allow 'get,list pods' --allow 'create,delete configmaps' -- ./app
  kemudi run -A --allow 'list pods' -- curl ...        rights in every namespace
  kemudi run --role role.yaml -n team -- ./app         rights of a Role or ClusterRole in a file
  kemudi run --image alpine -- sh                      from an image instead of this machine's own files
  kemudi run -s admin.kubeconfig -- ./app              a pod of a server that runs already
  kemudi run --allow '* *' --record role.yaml -- ./app  the least Role of what it used, into a file")]
pub struct Run {
    /// What it may do: verbs, then resources, then names if only some: 'get,list pods', 'get secrets one,two'
    #[arg(long, value_name = "VERBS RESOURCES")]
    pub allow: Vec<String>,
    /// The rights hold in every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// File of a Role or ClusterRole to give it, may be repeated
    #[arg(long, value_name = "FILE")]
    pub role: Vec<PathBuf>,
    /// Service account to use instead of one made for this run
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<String>,
    /// Image to run it from instead of this machine's own files; pulled where it is not there
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// File for the least Role and RoleBinding of what the command used and was allowed
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Take into that Role what was refused, too
    #[arg(long, requires = "record")]
    pub with_refused: bool,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "image", value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Run {
    pub async fn run(self, global: &Global) -> Outcome {
        let namespace = global.namespace.clone().unwrap_or_else(|| "default".into());
        let rights = Rights::read(&self.allow, &self.role, self.all_namespaces).map_err(Failure::new)?;
        if let Some(image) = &self.image {
            let store = super::image::own_store()?;
            if store.find(image).map_err(Failure::new)?.is_none() {
                super::image::pull(&store, image).await?;
            }
        }
        let program = Program {
            namespace,
            rights,
            service_account: self.service_account.clone(),
            image: self.image.clone(),
            command: self.command.clone(),
            record: self.record.is_some(),
        };
        let place = Place::find(global).await?;
        let outcome = program.run(&place).await;
        place.leave().await;
        let (exit, recorded) = outcome?;
        if let Some(file) = &self.record {
            let account = self.service_account.as_deref().unwrap_or(super::record::ACCOUNT);
            let roles =
                Roles { name: "recorded", account: (&program.namespace, account), with_refused: self.with_refused };
            roles.tell(&recorded);
            roles.write(&recorded, Some(file))?;
        }
        finish(exit)
    }
}

/// The exit code of a command, as this program's.
pub fn finish(exit: Exit) -> Outcome {
    match exit.code() {
        0 => Ok(()),
        code => Err(Failure::silent(u8::try_from(code & 0xff).unwrap_or(1))),
    }
}

/// Where pods run and who keeps their objects.
pub struct Place {
    cluster: Option<Cluster>,
    remote: Option<(Client, Node)>,
    node_name: String,
    /// Goes with this value: volumes, logs, the staging place of mounts.
    _state: tempfile::TempDir,
}

impl Place {
    /// The server that the flags name, else one of its own in memory.
    pub async fn find(global: &Global) -> Result<Place, Failure> {
        match global.server.is_some() || global.kubeconfig.is_some() {
            true => Place::at(global.config_or_file()?, kubeconfigs(global)).await,
            false => Place::own().await,
        }
    }

    /// A cluster in memory, in this process.
    pub async fn own() -> Result<Place, Failure> {
        let state = state_folder()?;
        let mut options = Options::default();
        // Tokens are wanted at once: elliptic keys are made in a moment, RSA keys are not.
        options.pki.token_algorithm = server::authn::jwt::Algorithm::Es256;
        let node_name = host_name();
        let node = node_options(&node_name, state.path(), vec![])?;
        let ground = local_node::prepare(&node.state_dir).map_err(Failure::new)?;
        let mut cluster = Cluster::beside(&ground, options).await.map_err(Failure::new)?;
        cluster.start_node_on(Some(ground), node).await.map_err(Failure::new)?;
        Ok(Place { cluster: Some(cluster), remote: None, node_name, _state: state })
    }

    /// A node of a server that is there. No pod finds these files.
    async fn at(config: Config, files: Vec<PathBuf>) -> Result<Place, Failure> {
        let state = state_folder()?;
        let address = address_of(&config)?;
        let client = Client::new(config.clone()).map_err(|why| Failure::while_doing("", why))?;
        let node_name = format!("{}-{}", host_name(), rights::random_letters());
        let serving = ServingConfig { port: 0, client_ca: client_ca(&client, &config).await };
        // The node of one command in a cluster that has its own nodes is nobody's way to services.
        let options =
            NodeOptions { serving: Some(serving), node_ports: false, ..node_options(&node_name, state.path(), files)? };
        let node = local_node::remote(client.clone(), address, options).await.map_err(Failure::new)?;
        Ok(Place { cluster: None, remote: Some((client, node)), node_name, _state: state })
    }

    /// A client that may do everything that is needed here.
    pub fn client(&self) -> Client {
        match (&self.cluster, &self.remote) {
            (Some(cluster), _) => cluster.admin(),
            (None, Some((client, _))) => client.clone(),
            (None, None) => unreachable!("a place has one of the two"),
        }
    }

    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    pub fn agent(&self) -> &Node {
        let own = self.cluster.as_ref().and_then(Cluster::node).map(LocalNode::agent);
        match (own, &self.remote) {
            (Some(agent), _) => agent,
            (None, Some((_, agent))) => agent,
            (None, None) => unreachable!("a place has a node"),
        }
    }

    /// Ends everything that was started here.
    pub async fn leave(self) {
        if let Some((client, node)) = self.remote {
            node.shutdown().await;
            let nodes = Api::<Dynamic>::all_of(client, &resource("", "v1", "Node", "nodes", false));
            let _ = nodes.delete(&self.node_name).await;
        }
        if let Some(cluster) = self.cluster
            && let Err(why) = cluster.stop().await
        {
            tracing::debug!(%why, "the cluster did not stop cleanly");
        }
        // What containers of images have written may be more than a temporary folder can take away.
        let _ = images::remove_tree(self._state.path());
    }
}

fn node_options(name: &str, state: &Path, files: Vec<PathBuf>) -> Result<NodeOptions, Failure> {
    // Who has no home folder has no store of their own, and what is pulled goes with the command.
    let images = super::image::own_store().unwrap_or_else(|_| super::image::store_in(state));
    Ok(NodeOptions {
        name: name.into(),
        state_dir: state.join("node"),
        images,
        hidden: hidden(files),
        node_ports: true,
        outside: WayOut::default(),
        cri: None,
        keep: false,
        serving: None,
    })
}

/// Where a configuration's server is.
pub fn address_of(config: &Config) -> Result<SocketAddr, Failure> {
    let authority = config.server.authority();
    let address = authority.to_socket_addrs().ok().and_then(|mut found| found.next());
    address.ok_or_else(|| Failure::new(format!("cannot resolve the server {authority}")))
}

/// Who vouches for the server when it calls a node: what the cluster says, or else who vouches for the server itself.
pub async fn client_ca(client: &Client, config: &Config) -> Option<String> {
    let maps = resource("", "v1", "ConfigMap", "configmaps", true);
    let maps = Api::<Dynamic>::namespaced_of(client.clone(), "kube-system", &maps);
    if let Ok(map) = maps.get("extension-apiserver-authentication").await
        && let Some(pem) = map["data"]["client-ca-file"].as_str()
    {
        return Some(pem.to_owned());
    }
    match &config.ca {
        Ca::Of(pem) => pem.load("the CA certificate").ok().and_then(|pem| String::from_utf8(pem).ok()),
        Ca::System => None,
    }
}

/// The configuration that the flags give, where `--server` may be a kubeconfig too.
pub fn config_of(global: &Global) -> Result<Config, Error> {
    match global.server.as_ref().map(PathBuf::from).filter(|given| given.is_file()) {
        Some(file) => Global { kubeconfig: Some(file), server: None, ..global.clone() }.config(),
        None => global.config(),
    }
}

/// The files that the flags name and that may be kubeconfigs.
pub fn kubeconfigs(global: &Global) -> Vec<PathBuf> {
    [global.server.as_ref().map(PathBuf::from), global.kubeconfig.clone()].into_iter().flatten().collect()
}

/// A command to run in a pod, and as whom.
pub struct Program {
    pub namespace: String,
    pub rights: Rights,
    pub service_account: Option<String>,
    /// Instead of this machine's own files.
    pub image: Option<String>,
    /// Empty for the image's own.
    pub command: Vec<String>,
    /// Whether to record what it uses.
    pub record: bool,
}

impl Program {
    /// Makes what the command needs, runs it with this process's terminal, and cleans up. Tells also what it used, where
    /// that is recorded.
    pub async fn run(&self, place: &Place) -> Result<(Exit, Recorded), Failure> {
        let word = self.command.first().or(self.image.as_ref()).map_or("", String::as_str);
        let name = format!("{}-{}", word_of(word), rights::random_letters());
        let client = place.client();
        let account = self.service_account.as_ref().unwrap_or(&name);
        let user = ::rights::user_of(&self.namespace, account);
        let mut recording = match self.record {
            true => Some(Recording::begin(&client, &user).await?),
            false => None,
        };
        let running = self.run_as(place, &client, &name);
        let outcome = match &mut recording {
            Some(recording) => recording.during(running).await,
            None => running.await,
        };
        let recorded = match recording {
            Some(recording) => recording.end().await,
            None => Recorded::default(),
        };
        Ok((outcome?, recorded))
    }

    async fn run_as(&self, place: &Place, client: &Client, name: &str) -> Result<Exit, Failure> {
        let roles = self.rights.roles(client, name, &self.namespace).await.map_err(Failure::new)?;
        let made = self.prepare(client, name, &roles).await;
        let outcome = match &made {
            Ok(account) => self.attach(place, client, name, account).await,
            Err(_) => Err(Failure::silent(1)),
        };
        // A server of our own goes away with everything in it.
        if place.cluster.is_none() {
            let _ = tokio::time::timeout(CLEAN_UP_TIME_MAX, self.clean_up(client, name, &roles)).await;
        }
        made?;
        outcome
    }

    /// Namespace, account, rights. Answers the account's name.
    async fn prepare(&self, client: &Client, name: &str, roles: &[rights::Role]) -> Result<String, Failure> {
        let told = |what: &str| {
            let what = format!("cannot make the {what}");
            move |why: Error| Failure::while_doing(&what, why)
        };
        if self.namespace != "default" {
            let namespaces =
                Api::<Dynamic>::all_of(client.clone(), &resource("", "v1", "Namespace", "namespaces", false));
            ignore_existing(namespaces.create(&Dynamic(json!({"metadata": {"name": self.namespace}}))).await)
                .map_err(told("namespace"))?;
        }
        let account = match &self.service_account {
            Some(given) => given.clone(),
            None => {
                let object = json!({"metadata": {"name": name, "labels": labels()}});
                self.api(client, "", "v1", "ServiceAccount", "serviceaccounts")
                    .create(&Dynamic(object))
                    .await
                    .map_err(told("service account"))?;
                name.to_string()
            }
        };
        for role in roles {
            for object in role.objects(&account, &self.namespace) {
                self.create(client, object).await.map_err(told("role"))?;
            }
        }
        Ok(account)
    }

    async fn create(&self, client: &Client, mut object: Value) -> Result<(), Error> {
        let kind = object["kind"].as_str().unwrap_or_default().to_string();
        object["metadata"]["labels"] = labels();
        ignore_existing(self.rbac(client, &kind).create(&Dynamic(object)).await)
    }

    /// Where a Role, ClusterRole or binding of one is.
    fn rbac(&self, client: &Client, kind: &str) -> Api<Dynamic> {
        let plural = format!("{}s", kind.to_ascii_lowercase());
        let namespaced = !kind.starts_with("Cluster");
        let of = resource(RBAC, "v1", kind, &plural, namespaced);
        match namespaced {
            true => Api::<Dynamic>::namespaced_of(client.clone(), &self.namespace, &of),
            false => Api::<Dynamic>::all_of(client.clone(), &of),
        }
    }

    async fn attach(&self, place: &Place, client: &Client, name: &str, account: &str) -> Result<Exit, Failure> {
        let mut attachment = attachment()?;
        if self.image.is_some() {
            // What is in the image has nothing to do with this machine's files.
            attachment.env.retain(|(name, _)| name == "TERM");
            attachment.mounts.clear();
        }
        let terminal = attachment.terminal;
        let mut ended = place.agent().attach(&self.namespace, name, attachment);
        let (command, args) = self.command.split_at(self.command.len().min(1));
        let cwd = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let cwd = if self.image.is_some() { String::new() } else { cwd.to_string_lossy().into_owned() };
        let pod = json!({
            "metadata": {"name": name, "labels": labels()},
            "spec": {
                "nodeName": place.node_name(),
                "serviceAccountName": account,
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main",
                    "image": self.image.as_deref().unwrap_or("host"),
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "args": args,
                    "workingDir": cwd,
                }],
            },
        });
        let pods = self.api(client, "", "v1", "Pod", "pods");
        pods.create(&Dynamic(pod)).await.map_err(|why| Failure::while_doing("cannot make the pod", why))?;
        let mut terminate = signals(SignalKind::terminate())?;
        let mut interrupt = signals(SignalKind::interrupt())?;
        let mut quiet = std::pin::pin!(tokio::time::sleep(QUIET_TIME));
        let mut told = false;
        let signalled = loop {
            tokio::select! {
                ended = &mut ended => return outcome(ended),
                _ = terminate.recv() => break Exit::Signal(15),
                // A terminal tells the program itself.
                _ = interrupt.recv(), if !terminal => break Exit::Signal(2),
                () = &mut quiet, if !told => {
                    told = true;
                    self.tell_why_waiting(&pods, name).await;
                }
            }
        };
        let grace = DeleteOptions { grace_period_seconds: Some(2), ..DeleteOptions::default() };
        let _ = pods.delete_with(name, &grace).await;
        // The program has its grace period; its own exit code counts when it uses it.
        match tokio::time::timeout(CLEAN_UP_TIME_MAX, &mut ended).await {
            Ok(ended) => outcome(ended),
            Err(_) => Ok(signalled),
        }
    }

    /// A pod that does not start says why in its status.
    async fn tell_why_waiting(&self, pods: &Api<Dynamic>, name: &str) {
        let Ok(Dynamic(pod)) = pods.get(name).await else { return };
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        if let (Some(reason), message) = (waiting["reason"].as_str(), waiting["message"].as_str().unwrap_or_default()) {
            eprintln!("waiting for the pod {name}: {reason}: {message}");
        }
    }

    async fn clean_up(&self, client: &Client, name: &str, roles: &[rights::Role]) {
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        let _ = self.api(client, "", "v1", "Pod", "pods").delete_with(name, &now).await;
        for object in roles.iter().flat_map(|role| role.objects(name, &self.namespace)) {
            let (kind, name) = (object["kind"].as_str().unwrap_or_default(), api::meta::name(&object));
            let _ = self.rbac(client, kind).delete(name).await;
        }
        if self.service_account.is_none() {
            let _ = self.api(client, "", "v1", "ServiceAccount", "serviceaccounts").delete(name).await;
        }
    }

    fn api(
        &self,
        client: &Client,
        group: &'static str,
        version: &'static str,
        kind: &str,
        plural: &str,
    ) -> Api<Dynamic> {
        Api::namespaced_of(client.clone(), &self.namespace, &resource(group, version, kind, plural, true))
    }
}

fn outcome(ended: Result<Result<Exit, String>, oneshot::error::RecvError>) -> Result<Exit, Failure> {
    match ended {
        Ok(Ok(exit)) => Ok(exit),
        Ok(Err(why)) => Err(Failure::new(why).with_code(127)),
        Err(_) => Err(Failure::new("the pod ended before its command began")),
    }
}

/// This process's own terminal, environment and working directory, for the pod's program.
fn attachment() -> Result<Attachment, Failure> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| -> Result<OwnedFd, Failure> {
        fd.try_clone_to_owned().map_err(|why| Failure::new(format!("cannot pass on stdin and stdout: {why}")))
    };
    let cwd = std::env::current_dir().map_err(|why| Failure::new(format!("no working directory: {why}")))?;
    let mut mounts = Vec::new();
    if cwd != Path::new("/") {
        mounts.push(Mount { source: Source::Host(cwd.clone()), sub_path: None, target: cwd, read_only: false });
    }
    let env = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| !NOT_PASSED_ON.contains(&key.as_str()))
        .collect();
    Ok(Attachment {
        stdio: Stdio {
            stdin: own(std::io::stdin().as_fd())?,
            stdout: own(std::io::stdout().as_fd())?,
            stderr: own(std::io::stderr().as_fd())?,
        },
        terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
        env,
        mounts,
    })
}

/// What of this machine a program in a pod must not find: keys and passwords, where they are usually kept, and `more` of
/// them. What is not there does not count.
pub fn hidden(more: Vec<PathBuf>) -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = set("HOME").map(PathBuf::from).filter(|home| home != Path::new("/"));
    let state = set("XDG_STATE_HOME").map(PathBuf::from).or_else(|| home.clone().map(|home| home.join(".local/state")));
    let usual = node::private_paths(home.as_deref()).into_iter().chain(state.map(|state| state.join("kemudi")));
    let named = set("KUBECONFIG").map(|files| std::env::split_paths(&files).collect::<Vec<_>>()).unwrap_or_default();
    let all = usual.chain(named).chain([state_folders()]).chain(more);
    all.filter_map(|path| path.canonicalize().ok()).collect()
}

fn labels() -> Value {
    json!({"app.kubernetes.io/managed-by": MANAGER})
}

fn resource(group: &'static str, version: &'static str, kind: &str, plural: &str, namespaced: bool) -> ApiResource {
    ApiResource {
        group: group.into(),
        version: version.into(),
        kind: kind.to_string().into(),
        plural: plural.to_string().into(),
        namespaced,
    }
}

fn ignore_existing<T>(made: Result<T, Error>) -> Result<(), Error> {
    match made {
        Err(why) if !why.is_already_exists() => Err(why),
        _ => Ok(()),
    }
}

/// A folder for what pods need, in one that all such folders of this user are in, so that pods find none of them.
fn state_folder() -> Result<tempfile::TempDir, Failure> {
    let parent = state_folders();
    let made = std::fs::DirBuilder::new().mode(0o700).create(&parent);
    let is_ours = |found: &std::fs::Metadata| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
    };
    // Where somebody else has taken the name, it is not hidden, and still private.
    let sound = made.is_ok() || std::fs::symlink_metadata(&parent).is_ok_and(|found| is_ours(&found));
    let parent = if sound { parent } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix("kemudi-")
        .tempdir_in(parent)
        .map_err(|why| Failure::new(format!("no temporary folder: {why}; set TMPDIR to one that can be written")))
}

fn state_folders() -> PathBuf {
    std::env::temp_dir().join(format!("kemudi-of-{}", rustix::process::geteuid().as_raw()))
}

pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = dns_word(name.trim());
    if name.is_empty() { "localhost".into() } else { name }
}

/// A word that can begin an object's name, of a program's path.
fn word_of(program: &str) -> String {
    let base = Path::new(program).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let word = dns_word(&base);
    if word.is_empty() { "run".into() } else { word }
}

fn dns_word(text: &str) -> String {
    const BYTES_MAX: usize = 40;
    let word: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(BYTES_MAX)
        .collect();
    word.trim_matches('-').to_string()
}
