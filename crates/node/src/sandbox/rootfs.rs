//! What a container sees as its files: the host's root read-only, private writable places, devices, `/proc`, and the
//! mounts it asked for. Runs in the pod's init and in the container's child; everything it mounts lives in their mount
//! namespaces, never in the host's.

use super::sys;
use super::wire::Failure;
use super::{ContainerSpec, Mount, Network, PodSpec, Root, Source};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Symbolic links followed on the way to a mount point, as the kernel limits it.
const LINKS_MAX: usize = 40;
/// Entries of a read-only directory that are bound one by one where an overlay cannot be had.
const MIRROR_ENTRIES_MAX: usize = 4096;
/// Part of the machine's memory that each private writable place (`/tmp`, `/run`, `/var/tmp`) may use.
const SCRATCH_SIZE: &str = "50%";
const SHM_SIZE: &str = "64m";

/// Top-level directories of the host that a container gets its own of.
const OWN: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Parts of `/proc` that speak of the host, as container runtimes hide them.
const PROC_HIDDEN: [&str; 8] =
    ["acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi"];
/// Parts of `/proc` through which the host could be changed.
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

type Result<T> = std::result::Result<T, Failure>;

/// The step whose refusal means that the host keeps even a user namespace from mounting.
pub const STAGE_STEP: &str = "mount in the pod's namespace";
/// The step that fails where parts of the host's `/proc` are covered.
pub const PROC_STEP: &str = "mount proc";

/// Prepares, in the pod's init, what its containers share: `/dev/shm`, an empty directory to hide others with, and the place
/// where a container's root is put together.
pub fn stage(pod: &PodSpec) -> Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| failed(STAGE_STEP, error))?;
    rustix::process::umask(Mode::empty());
    let staging = pod.staging.as_path();
    let tmpfs = new_fs("tmpfs", &[("mode", "0755")]).map_err(|error| failed(STAGE_STEP, error))?;
    attach(&tmpfs, staging).map_err(|error| failed(format!("{STAGE_STEP} ({})", staging.display()), error))?;
    make_dir(&staging.join("root"), 0o755)?;
    make_dir(&staging.join("empty"), 0o555)?;
    make_dir(&staging.join("shm"), 0o1777)?;
    let shm =
        new_fs("tmpfs", &[("mode", "1777"), ("size", SHM_SIZE)]).map_err(|error| failed("mount /dev/shm", error))?;
    attach(&shm, &staging.join("shm")).map_err(|error| failed("mount /dev/shm", error))
}

/// Makes the pod's volumes in memory, beside what is staged.
pub fn make_memory_volumes(pod: &PodSpec) -> Result<()> {
    for volume in &pod.memory_volumes {
        let place = pod.staging.join(memory_place(&volume.name));
        make_dir(&place, 0o777)?;
        let size = volume.bytes_max.map_or(SCRATCH_SIZE.to_owned(), |bytes| bytes.to_string());
        let step = || format!("mount the memory volume {:?}", volume.name);
        let tmpfs = new_fs("tmpfs", &[("mode", "0777"), ("size", &size)]).map_err(|error| failed(step(), error))?;
        attach(&tmpfs, &place).map_err(|error| failed(step(), error))?;
    }
    Ok(())
}

/// Puts the container's root together and makes it the caller's. The caller has its own mount namespace, a copy of the
/// init's.
pub fn enter(spec: &ContainerSpec, pod: &PodSpec) -> Result<()> {
    let staging = pod.staging.as_path();
    let root = staging.join("root");
    // Every source is opened first: what is put over the host's paths later cannot stand in its way.
    let mut mounts = spec.mounts.iter().map(|mount| open_mount(mount, staging)).collect::<Result<Vec<_>>>()?;
    let hidden: Vec<&Path> = spec.hidden.iter().map(|path| path.as_path()).chain([staging]).collect();
    // What is not there cannot come to light. For files alone it need not be known: nothing is below them.
    let without_links: Vec<PathBuf> = match mounts.iter().any(|mount| mount.is_dir) {
        true => hidden.iter().filter_map(|path| path.canonicalize().ok()).collect(),
        false => Vec::new(),
    };
    for (open, mount) in mounts.iter_mut().zip(&spec.mounts).filter(|(open, _)| open.is_dir) {
        open.exposed = exposed(mount, &without_links);
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    let empty = rustix::fs::open(staging.join("empty"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("open the empty directory", error))?;
    let mut read_only = match &spec.root {
        Root::Host { .. } => vec![build_root(&root)?],
        Root::Image { layers, scratch, read_only } => {
            let tree = mount_image(layers, scratch, &root, staging)?;
            if *read_only { vec![tree] } else { Vec::new() }
        }
    };
    mount_proc(&root.join("proc"), empty.as_fd(), spec.proc_unmasked)?;
    mount_sys(&root.join("sys"), pod)?;
    mount_groups(&root.join("sys/fs/cgroup"), &spec.groups)?;
    mount_dev(&root.join("dev"), staging)?;

    // The old root stays below the new one until the end: what was opened in it can be cloned that long.
    rustix::process::chdir(&root).map_err(|error| failed("enter the new root", error))?;
    rustix::process::pivot_root(".", ".").map_err(|error| failed("pivot_root", error))?;
    let hidden = match &spec.root {
        Root::Host { read_only: whole } => {
            place_own(*whole, &mut read_only)?;
            hidden
        }
        // There is nothing of the host in it, but for what is mounted.
        Root::Image { .. } => Vec::new(),
    };
    let targets: Vec<&Path> = hidden.iter().copied().chain(mounts.iter().map(|mount| mount.target)).collect();
    for mount in &mounts {
        // Mount points are made before anything is mounted: a directory is cheap to cover while nothing is below it.
        if !targets.iter().any(|&other| other != mount.target && mount.target.starts_with(other)) {
            let _ = ensure(mount.target, mount.is_dir, &mut read_only);
        }
    }
    for path in hidden {
        hide(path, empty.as_fd(), &mut read_only)?;
    }
    for mount in &mounts {
        place(&mount.tree, mount.target, mount.is_dir, &mut read_only)?;
        for path in &mount.exposed {
            hide(path, empty.as_fd(), &mut read_only)?;
        }
    }
    for tree in read_only {
        sys::set_read_only(tree.as_fd(), false).map_err(|error| Failure::new("make the root read-only", &error))?;
    }
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(|error| failed("leave the old root", error))?;
    rustix::process::chdir("/").map_err(|error| failed("enter the new root", error))
}

/// Covers what is at a path, if there is something.
fn hide(path: &Path, empty: BorrowedFd<'_>, read_only: &mut Vec<OwnedFd>) -> Result<()> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let cover = if found.is_dir() { clone_of(empty) } else { clone_tree(CWD, Path::new("/dev/null")) };
    place(&cover.map_err(|error| failed("hide a path", error))?, path, found.is_dir(), read_only)
}

/// Where a mount would bring hidden paths of the host back to light: those below its source. Links on the way to either do
/// not count, so both are the paths without any.
fn exposed(mount: &Mount, hidden: &[PathBuf]) -> Vec<PathBuf> {
    let Source::Host(source) = &mount.source else { return Vec::new() };
    let source = mount.sub_path.as_ref().map_or(source.clone(), |part| source.join(part));
    let Ok(source) = source.canonicalize() else { return Vec::new() };
    let below = |path: &PathBuf| {
        let rest = path.strip_prefix(&source).ok()?;
        // What is mounted itself was named, and is what is wanted.
        (!rest.as_os_str().is_empty()).then(|| mount.target.join(rest))
    };
    hidden.iter().filter_map(below).collect()
}

/// The container's own writable places; nothing but empty and read-only in the end if all of it is to be.
fn place_own(whole: bool, read_only: &mut Vec<OwnedFd>) -> Result<()> {
    for (path, mode) in [("/tmp", "1777"), ("/run", "0755"), ("/var/tmp", "1777")] {
        let scratch = new_fs("tmpfs", &[("mode", mode), ("size", SCRATCH_SIZE)]);
        let scratch = scratch.map_err(|error| failed(format!("mount {path}"), error))?;
        place(&scratch, Path::new(path), true, read_only)?;
        if whole {
            read_only.push(scratch);
        }
    }
    make_dir(Path::new("/run/lock"), 0o1777)?;
    // Usually a link to /run; where it is a directory of its own, it shall be the same.
    if fs::symlink_metadata("/var/run").is_ok_and(|found| found.is_dir()) {
        let run = clone_tree(CWD, Path::new("/run")).map_err(|error| failed("mount /var/run", error))?;
        place(&run, Path::new("/var/run"), true, read_only)?;
        if whole {
            read_only.push(run);
        }
    }
    Ok(())
}

/// A tmpfs with the host's top-level entries bound in it, read-only: mount points can be made in it until it is closed.
fn build_root(root: &Path) -> Result<OwnedFd> {
    let step = "build the root";
    let entries = list(CWD, Path::new("/")).map_err(|error| failed(step, error))?;
    let mut trees = Vec::new();
    for (name, kind) in &entries {
        if kind.is_dir() && !OWN.contains(&name.as_str()) {
            let tree =
                clone_tree(CWD, &Path::new("/").join(name)).map_err(|error| failed(format!("bind /{name}"), error))?;
            sys::set_read_only(tree.as_fd(), true).map_err(|error| Failure::new(format!("bind /{name}"), &error))?;
            trees.push((name, tree));
        }
    }
    let tmpfs = new_fs("tmpfs", &[("mode", "0755")]).map_err(|error| failed(step, error))?;
    attach(&tmpfs, root).map_err(|error| failed(step, error))?;
    for (name, kind) in &entries {
        if kind.is_symlink() {
            let target =
                rustix::fs::readlink(Path::new("/").join(name), Vec::new()).map_err(|error| failed(step, error))?;
            rustix::fs::symlink(target, root.join(name)).map_err(|error| failed(step, error))?;
        }
    }
    for name in OWN {
        make_dir(&root.join(name), 0o755)?;
    }
    for (name, tree) in trees {
        let target = root.join(name);
        make_dir(&target, 0o755)?;
        attach(&tree, &target).map_err(|error| failed(format!("bind /{name}"), error))?;
    }
    Ok(tmpfs)
}

/// The layers of an image with a writable one above them, and the folders in it that every container has.
fn mount_image(layers: &[PathBuf], scratch: &Path, root: &Path, staging: &Path) -> Result<OwnedFd> {
    let step = "mount the image";
    let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let lower = layers.iter().rev().map(|layer| open(layer)).collect::<rustix::io::Result<Vec<_>>>();
    let mut lower = lower.map_err(|error| failed(format!("{step}: open a layer"), error))?;
    if lower.is_empty() {
        // An image of nothing at all. An overlay needs something to be laid over.
        lower.push(open(&staging.join("empty")).map_err(|error| failed(step, error))?);
    }
    let tree = overlay(&lower, scratch).or_else(|_| {
        // Not every file system can be the upper one: an overlay cannot, where this machine is a container itself.
        let memory = new_fs("tmpfs", &[("mode", "0755"), ("size", SCRATCH_SIZE)])?;
        let place = staging.join("scratch");
        rustix::fs::mkdir(&place, Mode::from_raw_mode(0o755))?;
        attach(&memory, &place)?;
        overlay(&lower, &place)
    });
    let tree = tree.map_err(|error| failed(step, error))?;
    attach(&tree, root).map_err(|error| failed(step, error))?;
    for name in ["dev", "proc", "sys"] {
        let path = root.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Failure::words(format!("{step}: /{name} is no folder in it"))),
            Err(_) => make_dir(&path, 0o755)?,
        }
    }
    Ok(tree)
}

/// An overlay of folders, the uppermost first, and of one that takes what is written.
fn overlay(lower: &[OwnedFd], scratch: &Path) -> rustix::io::Result<OwnedFd> {
    for place in ["upper", "work"] {
        match rustix::fs::mkdir(scratch.join(place), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    let scratch = rustix::fs::open(scratch, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    overlay_with(
        lower,
        &[("upperdir", by_descriptor(&scratch, "/upper")), ("workdir", by_descriptor(&scratch, "/work"))],
    )
}

/// An overlay of two folders or more that nothing is written to.
fn read_only_overlay(lower: &[OwnedFd]) -> rustix::io::Result<OwnedFd> {
    overlay_with(lower, &[])
}

/// A path that means an open file: the kernel takes words of 255 bytes only.
fn by_descriptor(fd: &OwnedFd, rest: &str) -> String {
    format!("/proc/self/fd/{}{rest}", fd.as_raw_fd())
}

fn overlay_with(lower: &[OwnedFd], upper: &[(&str, String)]) -> rustix::io::Result<OwnedFd> {
    let make = |lower: &[(&str, String)]| {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in lower.iter().chain(upper) {
            rustix::mount::fsconfig_set_string(&context, *key, value.as_str())?;
        }
        rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let one_by_one: Vec<(&str, String)> = lower.iter().map(|fd| ("lowerdir+", by_descriptor(fd, ""))).collect();
    make(&one_by_one).or_else(|_| {
        // Kernels before 6.8 take them in one word.
        let all: Vec<String> = lower.iter().map(|fd| by_descriptor(fd, "")).collect();
        make(&[("lowerdir", all.join(":"))])
    })
}

fn mount_proc(target: &Path, empty: BorrowedFd<'_>, unmasked: bool) -> Result<()> {
    let proc = new_fs("proc", &[]).map_err(|error| failed(PROC_STEP, error))?;
    attach(&proc, target).map_err(|error| failed(PROC_STEP, error))?;
    if unmasked {
        return Ok(());
    }
    for name in PROC_HIDDEN {
        let path = target.join(name);
        let Ok(found) = fs::metadata(&path) else { continue };
        let cover = if found.is_dir() { clone_of(empty) } else { clone_tree(CWD, Path::new("/dev/null")) };
        cover.and_then(|cover| attach(&cover, &path)).map_err(|error| failed(format!("hide /proc/{name}"), error))?;
    }
    for name in PROC_READ_ONLY {
        let path = target.join(name);
        let step = || format!("protect /proc/{name}");
        let Ok(tree) = clone_tree(CWD, &path) else { continue };
        sys::set_read_only(tree.as_fd(), true).map_err(|error| Failure::new(step(), &error))?;
        attach(&tree, &path).map_err(|error| failed(step(), error))?;
    }
    Ok(())
}

/// A `/sys` of the pod's own network, or the host's where there is none to be had; read-only either way.
fn mount_sys(target: &Path, pod: &PodSpec) -> Result<()> {
    let own = match pod.network {
        Network::Own { .. } => new_fs("sysfs", &[]).ok(),
        Network::Host => None,
    };
    let tree =
        own.map_or_else(|| clone_tree(CWD, Path::new("/sys")), Ok).map_err(|error| failed("mount sys", error))?;
    sys::set_read_only(tree.as_fd(), true).map_err(|error| Failure::new("mount sys", &error))?;
    attach(&tree, target).map_err(|error| failed("mount sys", error))
}

/// The container's own control groups, read-only, where programs look for their limits.
fn mount_groups(target: &Path, groups: &[(String, PathBuf)]) -> Result<()> {
    let step = "show the cgroup";
    let open = |folder: &Path| -> Result<OwnedFd> {
        let tree = clone_tree(CWD, folder).map_err(|error| failed(step, error))?;
        sys::set_read_only(tree.as_fd(), true).map_err(|error| Failure::new(step, &error))?;
        Ok(tree)
    };
    match groups {
        [] => Ok(()),
        [(name, folder)] if name.is_empty() => attach(&open(folder)?, target).map_err(|error| failed(step, error)),
        several => {
            let trees = several.iter().map(|(_, folder)| open(folder)).collect::<Result<Vec<_>>>()?;
            let above = new_fs("tmpfs", &[("mode", "0755"), ("size", "64k")]).map_err(|error| failed(step, error))?;
            attach(&above, target).map_err(|error| failed(step, error))?;
            for ((name, _), tree) in several.iter().zip(trees) {
                let place = target.join(name);
                make_dir(&place, 0o755)?;
                attach(&tree, &place).map_err(|error| failed(step, error))?;
                // Where several controllers are one hierarchy, each is found by its own name too.
                for alone in name.split(',').filter(|alone| *alone != name) {
                    rustix::fs::symlink(name.as_str(), target.join(alone)).map_err(|error| failed(step, error))?;
                }
            }
            sys::set_read_only(above.as_fd(), false).map_err(|error| Failure::new(step, &error))
        }
    }
}

fn mount_dev(target: &Path, staging: &Path) -> Result<()> {
    let step = "mount /dev";
    let dev = new_fs("tmpfs", &[("mode", "0755"), ("size", "64k")]).map_err(|error| failed(step, error))?;
    attach(&dev, target).map_err(|error| failed(step, error))?;
    for name in DEVICES {
        let path = target.join(name);
        let step = || format!("bind /dev/{name}");
        fs::File::create(&path).map_err(|error| Failure::new(step(), &error))?;
        let device = clone_tree(CWD, &Path::new("/dev").join(name)).map_err(|error| failed(step(), error))?;
        attach(&device, &path).map_err(|error| failed(step(), error))?;
    }
    let links =
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")];
    for (name, link) in links {
        rustix::fs::symlink(link, target.join(name)).map_err(|error| failed(step, error))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        make_dir(&target.join(name), 0o755)?;
    }
    let pts =
        new_fs("devpts", &[("ptmxmode", "0666"), ("mode", "0620")]).map_err(|error| failed("mount /dev/pts", error))?;
    attach(&pts, &target.join("pts")).map_err(|error| failed("mount /dev/pts", error))?;
    let shm = clone_tree(CWD, &staging.join("shm")).map_err(|error| failed("mount /dev/shm", error))?;
    attach(&shm, &target.join("shm")).map_err(|error| failed("mount /dev/shm", error))?;
    // Not every kernel has message queues.
    if let Ok(queues) = new_fs("mqueue", &[]) {
        attach(&queues, &target.join("mqueue")).map_err(|error| failed("mount /dev/mqueue", error))?;
    }
    Ok(())
}

/// A mount whose source is open: a detached copy of its tree.
struct OpenMount<'a> {
    tree: OwnedFd,
    is_dir: bool,
    target: &'a Path,
    /// What is to be hidden again once it is mounted.
    exposed: Vec<PathBuf>,
}

fn open_mount<'a>(mount: &'a Mount, staging: &Path) -> Result<OpenMount<'a>> {
    let source = match &mount.source {
        Source::Host(path) | Source::Device(path) => path.clone(),
        Source::Memory(name) => staging.join(memory_place(name)),
        Source::Image(layers) => stage_image(layers, mount, staging)?,
    };
    let step = || format!("mount {} at {}", source.display(), mount.target.display());
    let tree = match &mount.sub_path {
        None => clone_tree(CWD, &source),
        Some(sub_path) => open_beneath(&source, sub_path).and_then(|found| clone_of(found.as_fd())),
    }
    .map_err(|error| failed(step(), error))?;
    if mount.read_only || matches!(mount.source, Source::Image(_)) {
        sys::set_read_only(tree.as_fd(), true).map_err(|error| Failure::new(step(), &error))?;
    }
    let found = rustix::fs::fstat(&tree).map_err(|error| failed(step(), error))?;
    let is_dir = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    Ok(OpenMount { tree, is_dir, target: &mount.target, exposed: Vec::new() })
}

/// Puts the layers of an image together, for the caller's mount namespace only. Returns where.
fn stage_image(layers: &[PathBuf], mount: &Mount, staging: &Path) -> Result<PathBuf> {
    let step = |error| failed(format!("mount an image at {}", mount.target.display()), error);
    let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    // An overlay that nothing is written to needs two folders.
    let folders = layers.iter().rev().map(|layer| open(layer)).chain([open(&staging.join("empty"))]);
    let mut lower = folders.collect::<rustix::io::Result<Vec<_>>>().map_err(step)?;
    if layers.is_empty() {
        lower.push(open(&staging.join("root")).map_err(step)?);
    }
    let tree = read_only_overlay(&lower).map_err(step)?;
    let place = staging.join("image");
    match rustix::fs::mkdir(&place, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(step(error)),
    }
    // A later one covers it, and that is all: what is mounted from it is a copy.
    attach(&tree, &place).map_err(step)?;
    Ok(place)
}

/// Finds a volume's part without ever leaving the volume, whatever links a container has put there; makes directories
/// that are missing.
pub(crate) fn open_beneath(volume: &Path, sub_path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(volume, flags | OFlags::DIRECTORY, Mode::empty())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&here, sub_path, flags, Mode::empty(), beneath) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return other,
    }
    for part in sub_path.split('/').filter(|part| !part.is_empty()) {
        match rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        here = rustix::fs::openat2(&here, part, flags | OFlags::DIRECTORY, Mode::empty(), beneath)?;
    }
    Ok(here)
}

/// Mounts a tree at a path of the new root, making the mount point if it is missing.
fn place(tree: &OwnedFd, target: &Path, is_dir: bool, read_only: &mut Vec<OwnedFd>) -> Result<()> {
    let step = || format!("mount at {}", target.display());
    let target = ensure(target, is_dir, read_only).map_err(|error| Failure::new(step(), &error))?;
    attach(tree, Path::new(&target)).map_err(|error| failed(step(), error))
}

/// Walks to a mount point, through links, and makes what is missing on the way. Returns the path without links.
fn ensure(target: &Path, is_dir: bool, read_only: &mut Vec<OwnedFd>) -> io::Result<String> {
    let text = target.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let mut rest: VecDeque<String> = text.split('/').map(str::to_owned).collect();
    let mut here = String::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                here.truncate(here.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = format!("{here}/{part}");
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let link =
                    fs::read_link(&next)?.into_os_string().into_string().map_err(|_| io::ErrorKind::InvalidInput)?;
                if link.starts_with('/') {
                    here.clear();
                }
                for part in link.split('/').rev() {
                    rest.push_front(part.to_owned());
                }
                continue;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let last = rest.iter().all(|part| part.is_empty());
                let make = || if is_dir || !last { make_mount_point(&next) } else { fs::File::create(&next).map(drop) };
                if let Err(error) = make() {
                    if !matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
                        return Err(error);
                    }
                    read_only.push(make_writable(if here.is_empty() { "/" } else { &here })?);
                    make()?;
                }
            }
            Err(error) => return Err(error),
        }
        here = next;
    }
    if here.is_empty() { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(here) }
}

fn make_mount_point(path: &str) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?)
}

/// Covers a read-only directory with one of the same content in which mount points can be made. Returns the cover,
/// to be made read-only in the end.
fn make_writable(dir: &str) -> io::Result<OwnedFd> {
    let old = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mode = fs::metadata(dir)?.mode() & 0o7777;
    let mounts_below = mounts_below(dir, &fs::read_to_string("/proc/self/mountinfo")?);
    let tmpfs = new_fs("tmpfs", &[("mode", &format!("{mode:o}"))])?;
    attach(&tmpfs, Path::new(dir))?;
    let (upper, work) = (format!("{dir}/upper"), format!("{dir}/work"));
    for place in [&upper, &work] {
        rustix::fs::mkdir(place, Mode::from_raw_mode(mode))?;
    }
    let lower = format!("/proc/self/fd/{}", old.as_raw_fd());
    let options = [("lowerdir", lower.as_str()), ("upperdir", &upper), ("workdir", &work)];
    // An overlay shows no mounts below its directory, and the kernel refuses it over those that came from the host.
    let overlay = if mounts_below { None } else { new_fs_flag("overlay", &options, Some("userxattr")).ok() };
    match overlay {
        Some(overlay) => {
            attach(&overlay, Path::new(dir))?;
            Ok(overlay)
        }
        None => {
            fs::remove_dir(&upper)?;
            fs::remove_dir_all(&work)?;
            mirror(&old, Path::new(dir))?;
            Ok(tmpfs)
        }
    }
}

/// Whether a mount table has a mount strictly below a directory. The fifth word of a line is the mount point.
fn mounts_below(dir: &str, mountinfo: &str) -> bool {
    let dir = dir.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
    let mut points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| point.strip_prefix(dir.as_str()).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')))
}

/// Binds every entry of the directory `old` into the empty directory `to`.
fn mirror(old: &OwnedFd, to: &Path) -> io::Result<()> {
    let entries = list(old, Path::new("."))?;
    if entries.len() > MIRROR_ENTRIES_MAX {
        return Err(io::Error::other(format!("more than {MIRROR_ENTRIES_MAX} entries beside a mount point")));
    }
    for (name, kind) in entries {
        let target = to.join(&name);
        match kind {
            FileType::Symlink => rustix::fs::symlink(rustix::fs::readlinkat(old, &name, Vec::new())?, target)?,
            FileType::Directory | FileType::RegularFile => {
                let tree = clone_tree(old, Path::new(&name))?;
                if kind == FileType::Directory {
                    rustix::fs::mkdir(&target, Mode::from_raw_mode(0o755))?
                } else {
                    drop(fs::File::create(&target)?)
                }
                attach(&tree, &target)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn list(at: impl AsFd, path: &Path) -> rustix::io::Result<Vec<(String, FileType)>> {
    let dir = rustix::fs::openat(&at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            kind = FileType::from_raw_mode(rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        }
        entries.push((name.to_owned(), kind));
    }
    Ok(entries)
}

fn new_fs(kind: &str, options: &[(&str, &str)]) -> rustix::io::Result<OwnedFd> {
    new_fs_flag(kind, options, None)
}

/// Makes a file system that is not mounted anywhere yet.
fn new_fs_flag(kind: &str, options: &[(&str, &str)], flag: Option<&str>) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    if let Some(flag) = flag {
        rustix::mount::fsconfig_set_flag(&context, flag)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
    if kind != "devpts" && kind != "overlay" {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if kind == "proc" || kind == "sysfs" {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A detached copy of the mounts at a path and below it.
fn clone_tree(at: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(at, path, flags)
}

fn clone_of(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(fd, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
}

fn attach(tree: &OwnedFd, target: &Path) -> rustix::io::Result<()> {
    rustix::mount::move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn memory_place(name: &str) -> String {
    format!("memory-{name}")
}

/// Makes a directory of exactly this mode: callers have taken the file mode mask away.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(mode))
        .map_err(|error| failed(format!("make {}", path.display()), error))
}

fn failed(step: impl Into<String>, errno: rustix::io::Errno) -> Failure {
    Failure::new(step, &errno.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn mounts_below() {
        let table = "22 27 0:21 / /proc rw - proc proc rw\n23 27 0:22 / /a\\040b/c rw - x x rw\n24 27 0:22 / /etcetera rw - x x rw\n";
        let check = |dir: &str, expected: bool| assert_eq!(super::mounts_below(dir, table), expected, "{dir}");
        check("/proc", false);
        check("/a b", true);
        check("/a b/c", false);
        check("/etc", false);
    }
}
