//! Control groups: what holds pods and containers to their limits and counts what they use, over version 1 and version 2 of the
//! kernel's interface, each controller where it is. One table says which file is which. Knows no API object and starts nothing.
//!
//! The groups of one agent are below the group that the agent itself is in, so that what holds the agent holds its pods:
//! `OWN/kemudi-ID/pod-UID/` with a group `init` for the pod's init and one for each start of a container.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the kernel says which groups a process is in, and where they are mounted.
const OWN_GROUPS: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";
/// A group can be removed a moment after its last process has ended, of which version 1 does not tell.
const REMOVE_TRIES_MAX: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);
/// How often another thread is let go first where nobody can wait.
const YIELDS_MAX: u32 = 2000;
/// Groups within each other that are looked at when a tree is removed.
const DEPTH_MAX: u32 = 8;

/// The controllers that are used, where the kernel has them. Version 2 counts the time of processors without one.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];
/// Without these there are no limits.
const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];

/// The period of processor quotas, in microseconds.
pub const CPU_PERIOD_MICROS: u64 = 100_000;

/// What a group is held to. What is not set is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    /// Its part of the processors where they are short, 1024 for each one that was asked for.
    pub cpu_shares: u64,
    /// The time it may use of each period, in microseconds.
    pub cpu_quota_micros: Option<u64>,
    pub pids: Option<u64>,
}

/// What a group has used and uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
    /// What of it the kernel could not take back at once.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What can be set of a group, and how.
struct Setting {
    controller: &'static str,
    one: File,
    two: File,
}

/// A file, and what is written to it.
type File = (&'static str, fn(&Limits) -> String);

/// In the order in which they are written: the limit of memory with swap can never be below the one without.
const SETTINGS: [Setting; 5] = [
    Setting {
        controller: "memory",
        one: ("memory.limit_in_bytes", |it| it.memory_bytes.map_or("-1".into(), |bytes| bytes.to_string())),
        two: ("memory.max", |it| or_max(it.memory_bytes)),
    },
    Setting {
        controller: "memory",
        one: ("memory.memsw.limit_in_bytes", |it| it.memory_bytes.map_or("-1".into(), |bytes| bytes.to_string())),
        two: ("memory.swap.max", |it| if it.memory_bytes.is_some() { "0".into() } else { "max".into() }),
    },
    Setting {
        controller: "cpu",
        one: ("cpu.shares", |it| it.cpu_shares.max(SHARES_MIN).to_string()),
        two: ("cpu.weight", |it| weight(it.cpu_shares).to_string()),
    },
    Setting {
        controller: "cpu",
        one: ("cpu.cfs_quota_us", |it| it.cpu_quota_micros.map_or("-1".into(), |micros| micros.to_string())),
        two: ("cpu.max", |it| format!("{} {CPU_PERIOD_MICROS}", or_max(it.cpu_quota_micros))),
    },
    Setting { controller: "pids", one: ("pids.max", |it| or_max(it.pids)), two: ("pids.max", |it| or_max(it.pids)) },
];

/// Files that an older kernel, or one without swap, does not have.
const OPTIONAL: [&str; 2] = ["memory.memsw.limit_in_bytes", "memory.swap.max"];

/// What any of these files has in a new group, where it says that there is no limit.
const NEW: [&str; 3] = ["-1", "max", "max 100000"];

/// The least shares that the kernel takes, and its least and most weight.
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;

fn or_max(limit: Option<u64>) -> String {
    limit.map_or("max".into(), |limit| limit.to_string())
}

/// Shares of version 1 as a weight of version 2, so that both ends and the usual 1024 fall on 1, 10,000 and 100.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(SHARES_MIN, SHARES_MAX);
    if shares == SHARES_MIN {
        return 1;
    }
    let power = (shares as f64).log2();
    let exponent = (power * power + 125.0 * power) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// A tree of groups of the kernel: all controllers in version 2, one or two of them in version 1.
#[derive(Debug)]
struct Hierarchy {
    version: Version,
    controllers: Vec<String>,
    /// What its folder is called in a container; empty for version 2, which is all there is then.
    visible: String,
    /// The group that the agent's groups are in.
    own: PathBuf,
}

/// Where the agent makes groups. Goes with the last who has it.
#[derive(Debug)]
pub struct Cgroups(Group);

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.0.remove_now();
    }
}

/// One group, in each hierarchy.
#[derive(Clone, Debug)]
pub struct Group {
    places: Vec<(Arc<Hierarchy>, PathBuf)>,
}

impl Cgroups {
    /// Finds what there is and makes a group for an agent, by an id that is the same whenever that agent starts.
    ///
    /// # Errors
    /// Why no limits can be had here, and what would give them.
    pub fn open(id: &str) -> Result<Cgroups, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let hierarchies = find(&read(OWN_GROUPS)?, &read(MOUNTS)?)?;
        Cgroups::among(hierarchies, id)
    }

    fn among(hierarchies: Vec<Hierarchy>, id: &str) -> Result<Cgroups, String> {
        let mut places = Vec::new();
        for hierarchy in hierarchies {
            if hierarchy.version == Version::Two {
                share_out(&hierarchy)?;
            }
            let folder = hierarchy.own.join(format!("kemudi-{id}"));
            places.push((Arc::new(hierarchy), folder));
        }
        let root = Group { places };
        root.make().map_err(|error| {
            let folder = root.places.first().map(|(_, folder)| folder.display().to_string()).unwrap_or_default();
            format!(
                "cannot make the cgroup {folder}: {error}; run as root, or in a cgroup that is delegated to this user"
            )
        })?;
        root.pass_on();
        Ok(Cgroups(root))
    }

    /// The group that a pod has already, or a new one.
    pub fn pod(&self, uid: &str) -> io::Result<Group> {
        self.0.child(&format!("pod-{uid}"))
    }

    /// The same, held to limits.
    pub fn limited_pod(&self, uid: &str, limits: &Limits) -> io::Result<Group> {
        let group = self.0.at(&format!("pod-{uid}"));
        group.make_limited(limits)?;
        group.pass_on();
        Ok(group)
    }

    /// Removes what no pod of these has, left by an agent before this one.
    pub async fn remove_others(&self, uids: &[String]) {
        let mut names: Vec<String> = Vec::new();
        for (_, folder) in &self.0.places {
            names.extend(subfolders(folder));
        }
        names.sort();
        names.dedup();
        for name in names.iter().filter(|name| !uids.iter().any(|uid| **name == format!("pod-{uid}"))) {
            self.0.at(name).remove().await;
        }
    }

    /// Removes all of it; what is in a group must have ended.
    pub async fn remove(&self) {
        self.0.remove().await;
    }
}

impl Group {
    /// What a process of somebody else's is in.
    pub fn of_process(pid: u32) -> Option<Group> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let hierarchies = find(&groups, &fs::read_to_string(MOUNTS).ok()?).ok()?;
        let place = |it: Hierarchy| {
            let folder = it.own.clone();
            (Arc::new(it), folder)
        };
        Some(Group { places: hierarchies.into_iter().map(place).collect() })
    }

    /// Makes a group within this one.
    pub fn child(&self, name: &str) -> io::Result<Group> {
        let child = self.at(name);
        child.make()?;
        child.pass_on();
        Ok(child)
    }

    /// A group within this one, which is there already or never will be.
    pub fn at(&self, name: &str) -> Group {
        Group { places: self.places.iter().map(|(it, folder)| (it.clone(), folder.join(name))).collect() }
    }

    /// A group that processes are in, held to limits: in version 2 there can be none in it.
    pub fn leaf(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        let leaf = self.at(name);
        leaf.make_limited(limits)?;
        Ok(leaf)
    }

    /// Makes it, where it is not there. True if all of it is new.
    fn make(&self) -> io::Result<bool> {
        let mut is_new = true;
        for (_, folder) in &self.places {
            match fs::create_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_new = false,
                made => made?,
            }
        }
        Ok(is_new)
    }

    /// The same, and holds it to limits. What every new group has is not written: each of these files takes its time.
    fn make_limited(&self, limits: &Limits) -> io::Result<()> {
        match self.make()? {
            true => self.write(SETTINGS.iter(), limits, |value| NEW.contains(&value)),
            false => self.set(limits),
        }
    }

    /// Lets groups within this one have limits of their own; version 1 needs no telling.
    fn pass_on(&self) {
        for (hierarchy, folder) in self.places.iter().filter(|(it, _)| it.version == Version::Two) {
            for controller in &hierarchy.controllers {
                let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }

    /// Holds it to limits.
    ///
    /// # Errors
    /// What the kernel refuses: in version 1, less memory than is in use.
    pub fn set(&self, limits: &Limits) -> io::Result<()> {
        // A limit that is raised has to be written after the one that it must not exceed.
        match self.write(SETTINGS.iter(), limits, |_| false) {
            Ok(()) => Ok(()),
            Err(_) => self.write(SETTINGS.iter().rev(), limits, |_| false),
        }
    }

    fn write<'a>(
        &self,
        settings: impl Iterator<Item = &'a Setting>,
        limits: &Limits,
        is_so: impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        for setting in settings {
            let Some((hierarchy, folder)) = self.place(setting.controller) else { continue };
            let (file, value) = if hierarchy.version == Version::One { &setting.one } else { &setting.two };
            let value = value(limits);
            if is_so(&value) {
                continue;
            }
            if let Err(error) = fs::write(folder.join(file), value) {
                if OPTIONAL.contains(file) && !folder.join(file).exists() {
                    continue;
                }
                return Err(io::Error::new(error.kind(), format!("{file}: {error}")));
            }
        }
        Ok(())
    }

    /// Makes the kernel end all of a group where it ends one process of it for want of memory; version 1 cannot.
    pub fn end_together(&self) {
        if let Some((Hierarchy { version: Version::Two, .. }, folder)) = self.place("memory") {
            let _ = fs::write(folder.join("memory.oom.group"), "1");
        }
    }

    /// Files to which a process of one thread writes `0` to enter: whoever has them may, wherever it is.
    pub fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |(hierarchy, folder): &(Arc<Hierarchy>, PathBuf)| {
            // The kernel lets a thread move itself at once; for a whole process it waits some 15 ms for all processors.
            let name = if hierarchy.version == Version::One { "tasks" } else { "cgroup.procs" };
            fs::File::options().write(true).open(folder.join(name))
        };
        self.places.iter().map(|place| open(place).map(OwnedFd::from)).collect()
    }

    /// Whether it has not been removed.
    pub fn is_there(&self) -> bool {
        self.places.iter().any(|(_, folder)| folder.exists())
    }

    /// Its folders, by the names that a container finds them under.
    pub fn folders(&self) -> Vec<(String, PathBuf)> {
        self.places.iter().map(|(hierarchy, folder)| (hierarchy.visible.clone(), folder.clone())).collect()
    }

    /// How many of its processes the kernel has ended for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some((hierarchy, folder)) = self.place("memory") else { return 0 };
        let file = if hierarchy.version == Version::One { "memory.oom_control" } else { "memory.events" };
        value_of(&fs::read_to_string(folder.join(file)).unwrap_or_default(), "oom_kill")
    }

    pub fn usage(&self) -> Usage {
        let read = |controller: &str, one: &str, two: &str| {
            let Some((hierarchy, folder)) = self.place(controller) else { return String::new() };
            let file = if hierarchy.version == Version::One { one } else { two };
            fs::read_to_string(folder.join(file)).unwrap_or_default()
        };
        let number = |text: String| text.trim().parse::<u64>().unwrap_or(0);
        let one = |controller: &str| self.place(controller).is_some_and(|(it, _)| it.version == Version::One);
        let memory_bytes = number(read("memory", "memory.usage_in_bytes", "memory.current"));
        let stat = read("memory", "memory.stat", "memory.stat");
        let of = |one_word: &str, two_word: &str| value_of(&stat, if one("memory") { one_word } else { two_word });
        let cpu_nanos = match one("cpuacct") {
            true => number(read("cpuacct", "cpuacct.usage", "")),
            false => value_of(&read("cpu", "cpu.stat", "cpu.stat"), "usage_usec").saturating_mul(1000),
        };
        Usage {
            cpu_nanos,
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(of("total_inactive_file", "inactive_file")),
            rss_bytes: of("total_rss", "anon"),
            page_faults: of("total_pgfault", "pgfault"),
            major_page_faults: of("total_pgmajfault", "pgmajfault"),
            processes: number(read("pids", "pids.current", "pids.current")),
        }
    }

    /// Takes the group and all within it away, as soon as nothing runs in them any more.
    pub async fn remove(&self) {
        for _ in 0..REMOVE_TRIES_MAX {
            let mut left = false;
            for (_, folder) in &self.places {
                left |= !remove_tree(folder, DEPTH_MAX);
            }
            if !left {
                return;
            }
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
        tracing::warn!(group = ?self.places.first().map(|(_, folder)| folder), "a cgroup could not be removed");
    }

    /// The same for who cannot wait: what has just ended is gone in a moment.
    pub fn remove_now(&self) {
        for _ in 0..YIELDS_MAX {
            let left = self.places.iter().filter(|(_, folder)| !remove_tree(folder, DEPTH_MAX)).count();
            if left == 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn place(&self, controller: &str) -> Option<(&Hierarchy, &Path)> {
        let found = self.places.iter().find(|(it, _)| it.controllers.iter().any(|known| known == controller))?;
        Some((&*found.0, found.1.as_path()))
    }
}

/// Whether nothing of a tree is left.
fn remove_tree(folder: &Path, depth: u32) -> bool {
    if depth > 0 {
        for name in subfolders(folder) {
            remove_tree(&folder.join(name), depth - 1);
        }
    }
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn subfolders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The number behind a word: `oom_kill 3`.
fn value_of(text: &str, word: &str) -> u64 {
    let find = |line: &str| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(find).unwrap_or(0)
}

/// Lets the groups below the agent's own have limits. Where processes are in a group, version 2 refuses that: the agent then
/// moves to a group within, if it is alone there.
fn share_out(hierarchy: &Hierarchy) -> Result<(), String> {
    let control = hierarchy.own.join("cgroup.subtree_control");
    let enable = || {
        let words: Vec<String> = hierarchy.controllers.iter().map(|controller| format!("+{controller}")).collect();
        fs::write(&control, words.join(" "))
    };
    let Err(first) = enable() else { return Ok(()) };
    let inside = fs::read_to_string(hierarchy.own.join("cgroup.procs")).unwrap_or_default();
    let alone = inside.lines().all(|pid| pid.trim() == std::process::id().to_string());
    let delegate = "start it in a cgroup of its own: systemd-run --user --scope --property=Delegate=yes kemudi up";
    if !alone {
        return Err(format!("{}: {first}, as other processes are in this cgroup; {delegate}", control.display()));
    }
    let moved = fs::create_dir(hierarchy.own.join("kemudi-agent"))
        .or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        .and_then(|()| fs::write(hierarchy.own.join("kemudi-agent/cgroup.procs"), "0"))
        .and_then(|()| enable());
    moved.map_err(|error| format!("{}: {error}; {delegate}", control.display()))
}

/// The hierarchies that have the controllers, from what the kernel says of this process.
fn find(groups: &str, mounts: &str) -> Result<Vec<Hierarchy>, String> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let (version, controllers, path): (_, Vec<String>, _) = match mount.kind {
            "cgroup2" => {
                let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::")) else { continue };
                let own = mount.inside(path);
                let listed = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
                (Version::Two, listed.split_whitespace().map(str::to_owned).collect(), own)
            }
            "cgroup" => {
                let named = |line: &&str| {
                    let names = line.split(':').nth(1).unwrap_or_default();
                    names.split(',').any(|name| mount.options.split(',').any(|option| option == name))
                };
                let Some(line) = groups.lines().find(named) else { continue };
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                (Version::One, names.split(',').map(str::to_owned).collect(), mount.inside(path))
            }
            _ => continue,
        };
        let taken = |name: &String| found.iter().any(|it| it.controllers.contains(name));
        let controllers: Vec<String> =
            controllers.into_iter().filter(|name| CONTROLLERS.contains(&name.as_str()) && !taken(name)).collect();
        if controllers.is_empty() {
            continue;
        }
        let visible = match version {
            Version::One => mount.point.rsplit('/').next().unwrap_or_default().to_owned(),
            Version::Two => String::new(),
        };
        found.push(Hierarchy { version, controllers, visible, own: path });
    }
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|name| !found.iter().any(|it| it.controllers.iter().any(|it| it == name))).collect();
    if missing.len() == NEEDED.len() {
        return Err("this machine shows no cgroup with the controllers memory, cpu and pids; mount cgroup2 at \
            /sys/fs/cgroup, or start kemudi where these are delegated"
            .into());
    }
    if !missing.is_empty() {
        return Err(format!(
            "the cgroup of this process lacks the controllers {}; have them enabled in the cgroup.subtree_control of the \
             one above",
            missing.join(", ")
        ));
    }
    Ok(found)
}

/// A line of the table of mounts.
struct Mount<'a> {
    /// Which folder of the file system is mounted.
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl Mount<'_> {
    fn parse(line: &str) -> Option<Mount<'_>> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (root, point) = (left.next()?, left.next()?);
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        Some(Mount { root, point, kind, options })
    }

    /// Where a group of the hierarchy is found.
    fn inside(&self, path: &str) -> PathBuf {
        let path = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(path);
        Path::new(self.point).join(path.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { memory_bytes: Some(1 << 20), cpu_shares: 512, cpu_quota_micros: Some(50_000), pids: Some(7) };

    /// A tree of plain files that stands for the kernel's.
    fn group(version: Version, folder: &Path, files: &[(&str, &str)]) -> Group {
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let controllers = CONTROLLERS.iter().map(|name| (*name).to_owned()).collect();
        let hierarchy = Hierarchy { version, controllers, visible: String::new(), own: folder.into() };
        Group { places: vec![(Arc::new(hierarchy), folder.into())] }
    }

    #[test]
    fn both_versions_by_one_table() {
        let check = |version, limits: &Limits, expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            // The files of a group are there before anything is written.
            group(version, dir.path(), &[]).set(limits).unwrap();
            let mut written: Vec<String> = fs::read_dir(dir.path())
                .unwrap()
                .flatten()
                .map(|it| format!("{}={}", it.file_name().display(), fs::read_to_string(it.path()).unwrap()))
                .collect();
            written.sort();
            assert_eq!(written.join(" "), expected);
        };
        check(
            Version::One,
            &LIMITS,
            "cpu.cfs_quota_us=50000 cpu.shares=512 memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=1048576 pids.max=7",
        );
        check(
            Version::Two,
            &LIMITS,
            "cpu.max=50000 100000 cpu.weight=59 memory.max=1048576 memory.swap.max=0 pids.max=7",
        );
        check(
            Version::One,
            &Limits::default(),
            "cpu.cfs_quota_us=-1 cpu.shares=2 memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1 pids.max=max",
        );
        check(
            Version::Two,
            &Limits::default(),
            "cpu.max=max 100000 cpu.weight=1 memory.max=max memory.swap.max=max pids.max=max",
        );
    }

    #[test]
    fn what_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 600\nfile 400\ninactive_file 300\npgfault 5\npgmajfault 1\n"),
            ("memory.events", "low 0\noom 1\noom_kill 2\noom_group_kill 0\n"),
            ("cpuacct.usage", "70\n"),
            ("cpu.stat", "usage_usec 7\nuser_usec 5\n"),
            ("pids.current", "3\n"),
            ("memory.usage_in_bytes", "2000\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
        ];
        let usage = |cpu_nanos, memory_bytes, working_set_bytes, rss_bytes, faults| Usage {
            cpu_nanos,
            memory_bytes,
            working_set_bytes,
            rss_bytes,
            page_faults: faults,
            major_page_faults: faults / 5,
            processes: 3,
        };
        let mut two = group(Version::Two, dir.path(), &files);
        if let Some((hierarchy, _)) = two.places.first_mut().map(|(it, at)| (Arc::get_mut(it).unwrap(), at)) {
            hierarchy.controllers.retain(|name| name != "cpuacct");
        }
        assert_eq!((two.usage(), two.oom_kills()), (usage(7000, 1000, 700, 600, 5), 2));
        let one = group(Version::One, dir.path(), &files);
        assert_eq!((one.usage(), one.oom_kills()), (usage(70, 2000, 2000, 0, 0), 4));
    }

    #[test]
    fn weights_keep_their_ends() {
        assert_eq!([0, 2, 1024, 262_144, 1 << 40].map(weight), [1, 1, 100, 10_000, 10_000]);
    }

    #[test]
    fn finds_what_there_is() {
        let own = "9:name=systemd:/\n8:pids:/a\n4:memory:/a/b\n2:cpu,cpuacct:/a\n0::/\n";
        let mounts = "1 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            2 0 0:2 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            3 0 0:3 /a /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            4 0 0:4 / /nowhere rw - cgroup2 cgroup2 rw\n";
        let text = |found: Result<Vec<Hierarchy>, String>| match found {
            Ok(all) => all
                .iter()
                .map(|it| format!("{} {} {}", it.visible, it.controllers.join("+"), it.own.display()))
                .collect::<Vec<_>>()
                .join("; "),
            Err(why) => why,
        };
        assert_eq!(
            text(find(own, mounts)),
            "memory memory /sys/fs/cgroup/memory/a/b; cpu,cpuacct cpu+cpuacct /sys/fs/cgroup/cpu,cpuacct/a; \
             pids pids /sys/fs/cgroup/pids/"
        );
        assert!(text(find(own, "")).starts_with("this machine shows no cgroup"));
        let some: String =
            mounts.lines().filter(|line| !line.contains("pids")).map(|line| format!("{line}\n")).collect();
        assert!(text(find(own, &some)).starts_with("the cgroup of this process lacks the controllers pids"));
        // A cgroup2 of a folder that stands for one.
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let mounts = format!("1 0 0:1 / {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
        assert_eq!(text(find("0::/\n", &mounts)), format!(" cpu+memory+pids {}/", dir.path().display()));
    }

    #[tokio::test]
    async fn trees_go() {
        let dir = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy {
            version: Version::One,
            controllers: CONTROLLERS.iter().map(|name| (*name).to_owned()).collect(),
            visible: String::new(),
            own: dir.path().into(),
        };
        let groups = Cgroups::among(vec![hierarchy], "1").unwrap();
        groups.pod("a").unwrap().child("init").unwrap();
        groups.pod("b").unwrap().child("init").unwrap();
        groups.remove_others(&["b".into()]).await;
        assert_eq!(subfolders(&dir.path().join("kemudi-1")), ["pod-b"]);
        groups.remove().await;
        assert_eq!(subfolders(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_new_group_is_told_what_limits_it() {
        let check = |version, limits: Limits, new: &[&str], again: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let controllers = CONTROLLERS.iter().map(|name| (*name).to_owned()).collect();
            let hierarchy = Hierarchy { version, controllers, visible: String::new(), own: dir.path().into() };
            let group = Group { places: vec![(Arc::new(hierarchy), dir.path().join("group"))] };
            for want in [new, again] {
                group.make_limited(&limits).unwrap();
                let files = fs::read_dir(dir.path().join("group")).unwrap();
                let mut files: Vec<String> =
                    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
                files.sort();
                assert_eq!(files, want, "{version:?} {limits:?}");
            }
        };
        let all = |version| SETTINGS.iter().map(move |it| if version == Version::One { it.one.0 } else { it.two.0 });
        for version in [Version::One, Version::Two] {
            let mut all: Vec<&str> = all(version).collect();
            all.sort();
            let shares = if version == Version::One { "cpu.shares" } else { "cpu.weight" };
            // One that was there may have had limits.
            check(version, Limits::default(), &[shares], &all);
            let limits = Limits { memory_bytes: Some(5), cpu_shares: 2, cpu_quota_micros: Some(7), pids: Some(9) };
            check(version, limits, &all, &all);
        }
    }
}
