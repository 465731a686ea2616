//! The pods' network under a container runtime: the runtime asks for it through a network plugin (CNI), which is this program again
//! and hands the pod's network namespace to the agent. So pods of a runtime are in the same network as those of the sandbox, with
//! the same addresses served in it. Makes no network itself: `sandbox` does.

use crate::agent::lock;
use crate::sandbox::{Listen, Switch, net, wire};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The name of the plugin's program, and of the network.
pub const PLUGIN: &str = "kemudi-cni";
const NETWORK: &str = "kemudi";
/// The name of the configuration: the runtime takes the first in its folder.
const CONFIGURATION: &str = "10-kemudi.conflist";
const CNI_VERSION: &str = "1.0.0";
const CNI_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The largest configuration that the plugin reads, in bytes.
const CONFIGURATION_BYTES_MAX: u64 = 1 << 20;
/// How long the plugin waits for the agent.
const AGENT_TIME_MAX: Duration = Duration::from_secs(30);
/// Plugins that are served at a time; more wait.
const PLUGINS_MAX: usize = 64;
/// The pause after a plugin could not be heard.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The codes of CNI for what is wrong.
const ERROR_ENVIRONMENT: u32 = 4;
const ERROR_AGAIN: u32 = 11;
const ERROR_OTHER: u32 = 100;

/// What a pod's network is to be.
pub struct Wanted {
    pub address: Ipv4Addr,
    /// More addresses, on its loopback device.
    pub addresses: Vec<IpAddr>,
    pub listen: Vec<Listen>,
}

/// A pod's network.
#[derive(Debug)]
pub struct Made {
    pub namespace: OwnedFd,
    /// In the order that they were wanted in.
    pub listeners: Vec<OwnedFd>,
}

type Outcome = Result<Made, String>;
type Waiting = HashMap<(String, String), (Ipv4Addr, oneshot::Sender<OwnedFd>)>;

/// Where the plugin finds the agent, and who waits for it.
pub struct Plugins {
    socket: PathBuf,
    switch: Arc<Switch>,
    waiting: Mutex<Waiting>,
}

impl Plugins {
    /// Listens at `socket`, in a private folder.
    pub fn new(socket: PathBuf, switch: Arc<Switch>) -> io::Result<(Arc<Plugins>, UnixListener)> {
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        Ok((Arc::new(Plugins { socket, switch, waiting: Mutex::default() }), listener))
    }

    /// Announces a pod and its address, by namespace and name; its network namespace comes when the runtime has asked for its network.
    pub fn expect(&self, namespace: &str, name: &str, address: Ipv4Addr) -> oneshot::Receiver<OwnedFd> {
        let (sender, made) = oneshot::channel();
        lock(&self.waiting).insert((namespace.to_owned(), name.to_owned()), (address, sender));
        made
    }

    /// Announces it no longer.
    pub fn forget(&self, namespace: &str, name: &str) {
        lock(&self.waiting).remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Makes a pod's network what it is to be. Not while the runtime's plugins are at it: `loopback` takes no device with more addresses.
    pub async fn make(&self, namespace: OwnedFd, wanted: &Wanted) -> Outcome {
        let text = |error: io::Error| error.to_string();
        let (addresses, listen) = (wanted.addresses.clone(), wanted.listen.clone());
        let inside = namespace.try_clone().map_err(text)?;
        let other = namespace.try_clone().map_err(text)?;
        self.switch.attach(wanted.address, other).await.map_err(|error| error.to_string())?;
        let listeners = within(inside, move || {
            net::set_up(&addresses)?;
            listen.iter().map(net::listen).collect::<io::Result<Vec<_>>>()
        });
        let listeners = listeners.await.map_err(|error| format!("set up the pod's network: {error}"))?;
        Ok(Made { namespace, listeners })
    }

    /// Serves plugins as long as it is run.
    pub async fn run(self: Arc<Plugins>, listener: UnixListener) {
        let mut served = JoinSet::new();
        loop {
            while served.len() >= PLUGINS_MAX {
                served.join_next().await;
            }
            while served.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    let this = self.clone();
                    drop(served.spawn(async move {
                        let _ = tokio::time::timeout(AGENT_TIME_MAX, this.serve(stream)).await;
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "a network plugin was not heard");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let mut inbox = wire::Inbox::default();
        let (asked, mut fds) = loop {
            if let Some(message) = inbox.next::<Ask>()? {
                break message;
            }
            if !stream.async_io(Interest::READABLE, || inbox.fill(&stream)).await? {
                return Ok(());
            }
        };
        let answer = self.add(&asked, fds.pop());
        let bytes = wire::encode(&answer, 0)?;
        let mut sent = 0;
        while sent < bytes.len() {
            let send = || wire::send_some(stream.as_fd(), &bytes[sent..], &[]);
            sent += stream.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    fn add(&self, asked: &Ask, namespace: Option<OwnedFd>) -> Result<Added, String> {
        let who = (asked.namespace.clone(), asked.name.clone());
        let Some((address, tell)) = lock(&self.waiting).remove(&who) else {
            return Err(format!(
                "the pod {}/{} is not one of this kemudi: other pods need a network configuration of their own",
                asked.namespace, asked.name
            ));
        };
        // Who has given up meanwhile takes the pod away, and its network with it.
        let _ = tell.send(namespace.ok_or("no network came with the pod")?);
        Ok(Added { address })
    }
}

/// What the plugin says: a pod, whose network comes with it.
#[derive(Serialize, Deserialize)]
struct Ask {
    namespace: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Added {
    address: Ipv4Addr,
}

/// Does something in a network namespace, on a thread of its own that ends there.
pub async fn within<T: Send + 'static>(
    namespace: OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, done) = oneshot::channel();
    let enter = move || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    std::thread::Builder::new().name("kemudi-netns".into()).spawn(move || drop(sender.send(enter())))?;
    done.await.map_err(|_| io::Error::other("the thread has ended"))?
}

/// Connects from inside of a network namespace.
pub async fn connect(namespace: OwnedFd, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = within(namespace, move || net::connect(&address)).await?;
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Where a runtime looks for network plugins and for their configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    pub programs: PathBuf,
    pub configurations: PathBuf,
}

impl Folders {
    /// As a runtime tells them in its status: containerd's `config`.
    pub fn of(config: &str) -> Option<Folders> {
        let config: serde_json::Value = serde_json::from_str(config).ok()?;
        let cni = config.get("cni")?;
        let path = |name: &str| cni.get(name).and_then(|it| it.as_str()).filter(|it| !it.is_empty());
        let programs = path("binDir").or_else(|| cni.get("binDirs")?.get(0)?.as_str())?;
        Some(Folders { programs: programs.into(), configurations: path("confDir")?.into() })
    }
}

impl Plugins {
    /// Puts the plugin and its configuration where the runtime looks. What another program has put first there comes first.
    ///
    /// # Errors
    /// In words.
    pub fn install(&self, folders: &Folders) -> Result<(), String> {
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let program = folders.programs.join(PLUGIN);
        let own = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
        fs::create_dir_all(&folders.programs).map_err(|error| failed(&folders.programs, error))?;
        fs::create_dir_all(&folders.configurations).map_err(|error| failed(&folders.configurations, error))?;
        if fs::read_link(&program).ok().as_deref() != Some(&own) {
            let _ = fs::remove_file(&program);
            std::os::unix::fs::symlink(&own, &program).map_err(|error| failed(&program, error))?;
        }
        let path = folders.configurations.join(CONFIGURATION);
        let text = self.configuration();
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        let new = path.with_extension("new");
        let write = || {
            let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| failed(&path, error))
    }

    /// Takes away what [`Plugins::install`] has put there, if it is still this agent's.
    pub fn uninstall(&self, folders: &Folders) {
        let path = folders.configurations.join(CONFIGURATION);
        if fs::read_to_string(&path).is_ok_and(|known| known == self.configuration()) {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(folders.programs.join(PLUGIN));
        }
        let _ = fs::remove_file(&self.socket);
    }

    fn configuration(&self) -> String {
        let plugin = json!({"type": PLUGIN, "socket": self.socket});
        let whole = json!({"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": [plugin]});
        format!("{whole:#}\n")
    }
}

/// Becomes the network plugin, and gives its exit code, if a container runtime has started this program as one.
pub fn plugin_main() -> Option<ExitCode> {
    let own = std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new(PLUGIN)));
    let command = std::env::var("CNI_COMMAND").ok().filter(|_| own)?;
    let mut text = String::new();
    let read = io::stdin().take(CONFIGURATION_BYTES_MAX).read_to_string(&mut text);
    let answer = match (command.as_str(), read) {
        ("VERSION", _) => Ok(json!({"cniVersion": CNI_VERSION, "supportedVersions": CNI_VERSIONS}).to_string()),
        (_, Err(error)) => Err((ERROR_OTHER, format!("read the configuration: {error}"))),
        ("ADD", Ok(_)) => add(&text),
        // A pod's network goes with its namespace, whether or not there is an agent.
        ("DEL" | "CHECK" | "STATUS" | "GC", Ok(_)) => Ok(String::new()),
        (other, Ok(_)) => Err((ERROR_ENVIRONMENT, format!("unknown CNI_COMMAND {other:?}"))),
    };
    // Nobody who does not read it would be told otherwise.
    Some(match answer {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err((code, message)) => {
            let text = json!({"cniVersion": CNI_VERSION, "code": code, "msg": message}).to_string();
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    })
}

fn add(configuration: &str) -> Result<String, (u32, String)> {
    let other = |error: &dyn std::fmt::Display| (ERROR_OTHER, error.to_string());
    let configuration: serde_json::Value = serde_json::from_str(configuration).map_err(|error| other(&error))?;
    let socket = configuration["socket"].as_str().unwrap_or_default();
    let version = configuration["cniVersion"].as_str().unwrap_or(CNI_VERSION);
    let set = |name: &str| std::env::var(name).map_err(|_| (ERROR_ENVIRONMENT, format!("{name} is not set")));
    let (network, device, arguments) = (set("CNI_NETNS")?, set("CNI_IFNAME")?, set("CNI_ARGS")?);
    let argument = |name: &str| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let ask = Ask { namespace: argument("K8S_POD_NAMESPACE"), name: argument("K8S_POD_NAME") };
    let namespace = fs::File::open(&network).map_err(|error| other(&format!("{network}: {error}")))?;
    let agent = std::os::unix::net::UnixStream::connect(socket)
        .map_err(|error| (ERROR_AGAIN, format!("kemudi's node is not there ({socket}: {error})")))?;
    agent.set_read_timeout(Some(AGENT_TIME_MAX)).map_err(|error| other(&error))?;
    wire::send(agent.as_fd(), &ask, &[namespace.as_fd()]).map_err(|error| other(&error))?;
    let answer = wire::Inbox::default().receive::<Result<Added, String>>(&agent).map_err(|error| other(&error))?;
    let (answer, _) = answer.ok_or_else(|| (ERROR_AGAIN, "kemudi's node has ended".to_owned()))?;
    let added = answer.map_err(|message| other(&message))?;
    let result = json!({
        "cniVersion": version,
        "interfaces": [{"name": device, "sandbox": network}],
        "ips": [{"address": format!("{}/32", added.address), "interface": 0}],
        "dns": {},
    });
    Ok(result.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_runtimes() {
        let check = |config: &str, want: Option<(&str, &str)>| {
            let want = want.map(|(programs, configurations)| Folders {
                programs: programs.into(),
                configurations: configurations.into(),
            });
            assert_eq!(Folders::of(config), want, "{config}");
        };
        let both = Some(("/opt/cni/bin", "/etc/cni/net.d"));
        check(r#"{"cni":{"binDir":"/opt/cni/bin","confDir":"/etc/cni/net.d"}}"#, both);
        check(r#"{"cni":{"binDir":"","binDirs":["/opt/cni/bin"],"confDir":"/etc/cni/net.d"}}"#, both);
        check(r#"{"cni":{}}"#, None);
        check("", None);
    }
}
