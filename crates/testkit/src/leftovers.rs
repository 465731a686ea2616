//! What pods leave on a machine: their processes, namespaces, mounts, groups and files, counted. Takes nothing away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// What there is of one server and agent and of their pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// What runs in pods.
    pub processes: usize,
    /// Processes of the binary: the server, the agent and what holds the pods.
    pub own: usize,
    /// What these have open beside files.
    pub descriptors: usize,
    /// Namespaces of all of these.
    pub namespaces: usize,
    /// Network devices in them.
    pub devices: usize,
    /// Mounts in the folder, or of it, that this program sees.
    pub mounts: usize,
    /// Control groups of the agent.
    pub groups: usize,
    /// Files and folders below the folder of pods.
    pub files: usize,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leftovers { processes, own, descriptors, namespaces, devices, mounts, groups, files } = self;
        write!(
            f,
            "{processes} processes in pods, {own} of the binary with {descriptors} open sockets and pipes, {namespaces} namespaces, \
             {devices} network devices, {mounts} mounts, {groups} cgroups, {files} files"
        )
    }
}

impl Leftovers {
    /// Counts what is there now. Processes in pods are told by a variable of their environment with a folder in it; those of the
    /// binary by being run from `kemudi` in that folder. `pods` is where the pods' files are.
    pub fn of(variable: &str, folder: &Path, pods: &Path) -> Leftovers {
        let binary = folder.join("kemudi");
        let (mut namespaces, mut devices) = (BTreeSet::new(), BTreeMap::new());
        let mut found = Leftovers::default();
        let of_pods: BTreeSet<u32> = marked(variable, folder).map(|(pid, _)| pid).collect();
        for pid in processes() {
            let path = Path::new("/proc").join(pid.to_string());
            // A container's process is the binary until it has become its program.
            let own = std::fs::read_link(path.join("exe")).is_ok_and(|exe| exe == binary);
            if !own && !of_pods.contains(&pid) {
                continue;
            }
            match own {
                true => found.own += 1,
                false => found.processes += 1,
            }
            found.descriptors += if own { descriptors(&path) } else { 0 };
            for kind in ["pid", "net", "mnt", "user", "ipc", "uts"] {
                namespaces.extend(std::fs::read_link(path.join("ns").join(kind)));
            }
            if let Ok(network) = std::fs::read_link(path.join("ns/net")) {
                let lines = std::fs::read_to_string(path.join("net/dev")).unwrap_or_default().lines().count();
                devices.insert(network, lines);
            }
        }
        found.namespaces = namespaces.len();
        found.devices = devices.values().sum();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        found.mounts = mounts.lines().filter(|line| line.contains(&*folder.to_string_lossy())).count();
        found.groups = groups(Path::new("/sys/fs/cgroup"), pods);
        found.files = files(pods);
        found
    }
}

/// The processes that have a variable with this folder in their environment, and all of that.
pub fn marked(variable: &str, folder: &Path) -> impl Iterator<Item = (u32, BTreeMap<String, String>)> {
    let mark = format!("{variable}={}", folder.display());
    processes().filter_map(move |pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let words = || environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words().any(|word| word == mark).then(|| {
            let pairs = words().filter_map(|word| word.split_once('=').map(|(key, value)| (key.into(), value.into())));
            (pid, pairs.collect())
        })
    })
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Sockets, pipes and what stands for a process: what a pod has its own of.
fn descriptors(process: &Path) -> usize {
    let entries = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let kinds = ["socket:", "pipe:", "anon_inode:[pidfd]", "pidfd:"];
    links.filter(|link| kinds.iter().any(|kind| link.to_string_lossy().starts_with(kind))).count()
}

/// The groups of the agent with this folder of pods: it has named one of them by itself, and the pods' are in that.
fn groups(folder: &Path, pods: &Path) -> usize {
    let agent = agent_id(pods).map(|id| format!("kemudi-{id}"));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let count = |entry: std::fs::DirEntry| match agent.as_deref() {
        Some(agent) if entry.file_name() == agent => all_groups(&entry.path()),
        _ => groups(&entry.path(), pods),
    };
    folders.map(count).sum()
}

/// What an agent calls itself: made of where it keeps what it has.
fn agent_id(pods: &Path) -> Option<String> {
    let mut hasher = DefaultHasher::new();
    pods.parent()?.canonicalize().ok()?.hash(&mut hasher);
    Some(format!("{:016x}", hasher.finish()))
}

fn all_groups(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + folders.map(|entry| all_groups(&entry.path())).sum::<usize>()
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|it| 1 + if it.file_type().is_ok_and(|kind| kind.is_dir()) { files(&it.path()) } else { 0 }).sum()
}
