//! What pods leave on a machine: their processes, namespaces, mounts, groups and files, counted. Takes nothing away.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What there is of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Pods' inits, and what runs beside them in namespaces of processes that are not this program's.
    pub processes: usize,
    /// Namespaces of processes and networks other than this program's.
    pub namespaces: usize,
    /// Mounts that this program sees.
    pub mounts: usize,
    /// Control groups of pods.
    pub groups: usize,
    /// Files and folders below the folder of pods.
    pub files: usize,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leftovers { processes, namespaces, mounts, groups, files } = self;
        write!(f, "{processes} processes, {namespaces} namespaces, {mounts} mounts, {groups} cgroups, {files} files")
    }
}

impl Leftovers {
    /// Counts what is there now of the pods of the agent whose process this is, or was: what began under it is in namespaces that
    /// only that agent's pods are in, told by a mark in their environment. `pods` is where their files are.
    pub fn of(mark: &str, pods: &Path) -> Leftovers {
        let mut namespaces = BTreeSet::new();
        let mut processes = 0;
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let path = entry.path();
            if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let Ok(environment) = std::fs::read(path.join("environ")) else { continue };
            if !environment.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()) {
                continue;
            }
            processes += 1;
            for kind in ["pid", "net", "mnt"] {
                namespaces.extend(std::fs::read_link(path.join("ns").join(kind)));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count();
        Leftovers {
            processes,
            namespaces: namespaces.len(),
            mounts,
            groups: groups(Path::new("/sys/fs/cgroup")),
            files: files(pods),
        }
    }

    /// Counts until it is as it should be, or for so long.
    pub fn settled(wanted: &Leftovers, mark: &str, pods: &Path, limit: Duration) -> Leftovers {
        let began = Instant::now();
        loop {
            let found = Leftovers::of(mark, pods);
            if found == *wanted || began.elapsed() > limit {
                return found;
            }
            std::thread::yield_now();
        }
    }
}

fn groups(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|it| usize::from(it.file_name().to_string_lossy().starts_with("pod-")) + groups(&it.path())).sum()
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|it| 1 + if it.file_type().is_ok_and(|kind| kind.is_dir()) { files(&it.path()) } else { 0 }).sum()
}
