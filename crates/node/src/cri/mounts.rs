//! What a container runtime cannot put together itself and is mounted on the machine for it, in the pod's folder: volumes in memory,
//! images that are volumes, and parts of volumes, which a program in the pod could make lead elsewhere while they are mounted. All
//! of it goes with the pod.

use crate::sandbox::{MemoryVolume, Mount, Source, rootfs};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// In a pod's folder; `volumes` is the worker's.
const PARTS: &str = "parts";
const VOLUMES: &str = "volumes";

/// Mounts a volume in memory where the pod's volumes are.
pub fn memory(folder: &Path, volume: &MemoryVolume, group: Option<u32>) -> io::Result<()> {
    let place = folder.join(VOLUMES).join(&volume.name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
    let size = volume.bytes_max.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = CString::new(format!("mode=0777{size}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", &place, "tmpfs", flags, options.as_c_str())?;
    rustix::mount::mount_change(&place, MountPropagationFlags::PRIVATE)?;
    if group.is_some() {
        std::os::unix::fs::chown(&place, None, group)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o2777))?;
    }
    Ok(())
}

/// The path of the machine that a mount of a container is to be made from. `name` is the container's and its attempt's, `index` tells
/// its mounts apart.
pub fn place(folder: &Path, name: &str, index: usize, mount: &Mount) -> io::Result<PathBuf> {
    let source = match &mount.source {
        Source::Host(path) | Source::Device(path) => path.clone(),
        Source::Memory(volume) => folder.join(VOLUMES).join(volume),
        Source::Image(layers) => image(&made(folder, name, &format!("{index}-image"))?, layers)?,
    };
    let Some(part) = &mount.sub_path else { return Ok(source) };
    let part = rootfs::open_beneath(&source, part)?;
    let found = rustix::fs::fstat(&part)?;
    let place = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => made(folder, name, &index.to_string())?,
        _ => {
            let file = made(folder, name, "")?.join(index.to_string());
            fs::File::options().create(true).append(true).open(&file)?;
            file
        }
    };
    // What was found, wherever a link at its path leads by now.
    rustix::mount::mount_bind_recursive(format!("/proc/self/fd/{}", part.as_raw_fd()), &place)?;
    rustix::mount::mount_change(&place, MountPropagationFlags::PRIVATE)?;
    Ok(place)
}

fn made(folder: &Path, name: &str, what: &str) -> io::Result<PathBuf> {
    let place = folder.join(PARTS).join(name).join(what);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
    Ok(place)
}

/// Mounts the layers of an image, read-only.
fn image(place: &Path, layers: &[PathBuf]) -> io::Result<PathBuf> {
    // An overlay that nothing is written to needs two folders.
    let (root, empty) = (place.join("root"), place.join("empty"));
    for folder in [&root, &empty] {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    // Paths may have what is special in the options; numbers have not.
    let open = |path: &PathBuf| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty())
    };
    let folders = layers.iter().rev().chain([&empty]).map(open).collect::<rustix::io::Result<Vec<_>>>()?;
    let mut lower: Vec<String> = folders.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let own = root.clone();
    let other = match layers.is_empty() {
        true => Some(open(&own)?),
        false => None,
    };
    lower.extend(other.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())));
    let options = CString::new(format!("lowerdir={}", lower.join(":")))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("overlay", &root, "overlay", flags, options.as_c_str())?;
    rustix::mount::mount_change(&root, MountPropagationFlags::PRIVATE)?;
    Ok(root)
}

/// Takes away what is mounted for a container of a pod.
pub fn clear_of(folder: &Path, name: &str) {
    let place = folder.join(PARTS).join(name);
    if place.exists() {
        clear(&place);
        let _ = fs::remove_dir_all(place);
    }
}

/// Takes away everything that is mounted in a folder, as far down as it goes.
pub fn clear(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // What was mounted later may lie on what was mounted before.
    for point in mounts.lines().rev().filter_map(point).filter(|point| point.starts_with(folder) && point != folder) {
        if let Err(error) = rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(%error, point = %point.display(), "what was mounted for a pod stays");
        }
    }
}

/// Takes away everything that is mounted in these folders of pods whose names are not among those that are kept.
pub fn clear_others(pods: &Path, kept: impl Fn(&Path) -> bool) {
    for entry in fs::read_dir(pods).into_iter().flatten().flatten() {
        let path = entry.path();
        if !kept(&path) {
            clear(&path);
        }
    }
}

/// Where a line of mountinfo says that something is mounted.
fn point(line: &str) -> Option<PathBuf> {
    let text = line.split(' ').nth(4)?.as_bytes();
    let mut path = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        // What is special is written as `\040`.
        let octal = (text[at] == b'\\').then(|| text.get(at + 1..at + 4)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(value.unwrap_or(text[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points() {
        let check = |line: &str, want: &str| assert_eq!(point(line), Some(want.into()));
        check("36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw", "/mnt2");
        check(r"36 35 98:0 / /a\040b\134c rw - tmpfs tmpfs rw", r"/a b\c");
        assert_eq!(point("36 35"), None);
    }
}
