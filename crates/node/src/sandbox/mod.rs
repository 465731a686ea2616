//! The sandbox: pods as trees of processes in namespaces of their own, over the host's read-only root, as root and as an
//! ordinary user. It starts, stops and tells; it knows no API object and takes no decision.
//!
//! The agent's process starts one [`Sandbox`], which is a small process called the spawner. Each [`Pod`] has an init
//! that the spawner clones and that speaks with the agent directly. Everything ends with the agent: when its sockets
//! close, the spawner and every init exit, and the kernel ends what lives in their process namespaces. But for pods that are
//! to be kept: their inits hold the streams of what runs, remember what ended, and wait for the next agent.

mod capabilities;
mod check;
mod console;
mod container;
mod handle;
mod handle_switch;
mod init;
pub(crate) mod net;
pub mod netlink;
pub(crate) mod rootfs;
mod seccomp;
mod spawner;
mod switch;
pub(crate) mod sys;
pub(crate) mod wire;

pub use capabilities::Capabilities;
pub use check::{Forbidden, check};
pub use console::{Console, Terminal as ConsoleTerminal};
pub use container::DEFAULT_PATH;
pub use handle::{Error, Left, Pod, Process, Sandbox, Spare, Stdio};
pub use handle_switch::{AllDatagrams, Switch};
pub use init::PROCESSES_MAX;
pub use switch::MARK;
pub use sys::deafen;
pub use wire::{Exit, Failure, SocketSpec, Transport};

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Becomes the spawner, and never returns, if this process was started as one. The first line of a program's `main`;
/// programs without it are served before their `main` begins.
pub fn spawner_main() {
    spawner::run_if_asked();
}

/// What a pod's containers share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodSpec {
    /// The pod's host name, at most 64 bytes.
    pub hostname: String,
    /// An existing, empty directory of the host that the pod's mounts are put together on; the host never sees them, and
    /// it is hidden in containers. One directory can serve all pods.
    pub staging: PathBuf,
    /// The one user and group the pod has when the agent does not run as root. As root they have no meaning.
    pub uid: u32,
    pub gid: u32,
    pub network: Network,
    pub memory_volumes: Vec<MemoryVolume>,
    /// Settings of the kernel for the pod's namespaces, by their dotted names. They must be ones that a namespace has of
    /// its own: the machine's are not protected against its administrator.
    pub sysctls: Vec<(String, String)>,
    /// The most processes and threads that the pod may have, where no control group holds it to that. To root, and to kernels before
    /// 5.14, it means nothing.
    pub processes_max: Option<u64>,
    /// Where the pod's init listens for an agent that comes after this one: a path in a folder of the pod's own. With it the
    /// pod outlives an agent that ends without a word, until what is at the path is taken away. Without, it ends with the agent.
    pub keep: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's own. The pod cannot listen on the cluster's addresses.
    Host,
    /// A network of the pod's own: a loopback device with these addresses, and sockets that listen inside it for the
    /// agent to serve. With an address, also a wire to the node's network, if that is open; else the address is one of the
    /// loopback device's.
    Own { addresses: Vec<IpAddr>, address: Option<Ipv4Addr>, listen: Vec<Listen> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A volume that lives in memory as long as the pod does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryVolume {
    pub name: String,
    /// Its limit in bytes; half of the machine's memory without one.
    pub bytes_max: Option<u64>,
}

/// One container: what it sees, and the process it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub process: ProcessSpec,
    pub root: Root,
    pub mounts: Vec<Mount>,
    /// Paths of the host that are empty in a container of the host's files. Mounts may still be put on them and below them.
    pub hidden: Vec<PathBuf>,
    pub process_namespace: ProcessNamespace,
    /// `/proc` without the covers that hide what speaks of the machine. For pods without root only: to root the settings
    /// there are its own.
    pub proc_unmasked: bool,
    /// The folders of the control groups that it is in, by the names that it finds them under: none, or one without a name
    /// for all, or one for each.
    pub groups: Vec<(String, PathBuf)>,
}

/// Where a container's files come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Root {
    /// The host's, read-only, with private places that can be written unless this is read-only altogether.
    Host { read_only: bool },
    /// An image's.
    Image {
        /// The folders of its layers, the lowest first. They are not changed.
        layers: Vec<PathBuf>,
        /// An existing, empty folder for what the container writes. Where it cannot serve, that stays in memory.
        scratch: PathBuf,
        read_only: bool,
    },
}

/// Whose processes a container sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessNamespace {
    /// Its own only; its process is number 1, and all of them end with it.
    Own,
    /// Those of all containers of the pod; number 1 is the pod's init, which reaps.
    Pod,
    /// Those of another container that runs in a namespace of its own, by the number of its process. It ends with that.
    Of(u32),
}

/// A program to run in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program, looked up in the environment's PATH, and its arguments.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    /// The pod's user when there is none. Without root, it can be no other than the pod's.
    pub user: Option<User>,
    pub terminal: Terminal,
    pub no_new_privileges: bool,
    pub isolation: Isolation,
    /// How willing the kernel shall be to end it where memory is short: the more, the higher. Kept as it is where that
    /// is not allowed.
    pub oom_score: Option<i32>,
}

/// What a program may ask of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// What root has, and nobody else can get.
    pub capabilities: Capabilities,
    /// The filter of system calls that container runtimes have by default.
    pub filtered: bool,
}

impl Default for Isolation {
    fn default() -> Isolation {
        Isolation { capabilities: Capabilities::DEFAULT, filtered: false }
    }
}

/// What terminal a program has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    #[default]
    None,
    /// Stdin is the terminal of the agent's session, and the program gets its foreground.
    Agents,
    /// One of its own, made in the container; stdin is the socket of a [`Console`] over which it is passed out.
    Own,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    pub source: Source,
    /// A part of the source instead of all of it; made as a directory if missing. Links never lead out of the source.
    pub sub_path: Option<String>,
    /// An absolute path in the container; made if missing, on read-only directories too.
    pub target: PathBuf,
    pub read_only: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Source {
    /// A file or directory of the host.
    Host(PathBuf),
    /// A block device of the host.
    Device(PathBuf),
    /// A memory volume of the pod, by name.
    Memory(String),
    /// The folders of an image's layers, the lowest first, as one. Always read-only.
    Image(Vec<PathBuf>),
}
