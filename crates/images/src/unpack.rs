//! Unpacks a layer into a folder, as the lower layer of an overlay: what it removes becomes the overlay's own marks. Whatever an
//! archive says, nothing outside of the folder is read, written or linked to. Devices are left out.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use sha2::{Digest, Sha256};
use tar::EntryType;

/// What one layer may hold, in bytes and in entries.
const LAYER_BYTES_MAX: u64 = 64 << 30;
const LAYER_ENTRIES_MAX: u64 = 4_000_000;
/// Links followed on the way to a folder, as the kernel limits it.
const LINKS_MAX: usize = 40;
/// Marks of removal in a layer, and what stands behind them in a name.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// The mark of an overlay, for mounts with `userxattr`.
const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// A layer that was unpacked.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// `sha256:` and the digest of the archive itself, uncompressed.
    pub diff_id: String,
    /// What its files hold.
    pub bytes: u64,
}

/// Unpacks an archive, compressed by gzip, zstd or not at all, into an empty folder.
///
/// # Errors
/// It cannot be read, is no archive, or wants what it may not.
pub fn unpack(layer: impl Read, into: &Path) -> io::Result<Unpacked> {
    let mut hashed = Hashed { inner: plain(layer)?, hash: Sha256::new() };
    let mut layer = Layer::new(into)?;
    let mut archive = tar::Archive::new(&mut hashed);
    for entry in archive.entries()? {
        layer.add(entry?)?;
    }
    // The digest is of all of it, also of what follows the last entry.
    io::copy(&mut hashed, &mut io::sink())?;
    layer.finish()?;
    Ok(Unpacked { diff_id: digest(hashed.hash), bytes: layer.bytes })
}

/// What is behind a compression by gzip, zstd or none.
pub fn plain<'a>(compressed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut compressed = BufReader::new(compressed);
    Ok(match compressed.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(compressed).map_err(io::Error::other)?)
        }
        _ => Box::new(compressed),
    })
}

/// `sha256:` and the hexadecimal digits.
pub fn digest(hash: Sha256) -> String {
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

struct Layer {
    root: OwnedFd,
    /// Owners are kept only by who may give files away.
    keeps_owners: bool,
    /// Modes and times of folders, set when all is in them: one that may not be written to could not be filled.
    folders: BTreeMap<PathBuf, (Mode, Timespec)>,
    bytes: u64,
    entries: u64,
}

impl Layer {
    fn new(into: &Path) -> io::Result<Layer> {
        let root = rustix::fs::open(into, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let keeps_owners = rustix::process::geteuid().is_root();
        Ok(Layer { root, keeps_owners, folders: BTreeMap::new(), bytes: 0, entries: 0 })
    }

    fn add(&mut self, mut entry: tar::Entry<'_, impl Read>) -> io::Result<()> {
        self.entries += 1;
        if self.entries > LAYER_ENTRIES_MAX {
            return Err(invalid(format!("a layer has more than {LAYER_ENTRIES_MAX} entries")));
        }
        let path = within(&entry.path()?)?;
        let Some((parent, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else {
            // The folder itself.
            return self.note_folder(path, &entry);
        };
        let parent = self.folder(parent)?;
        if name == OPAQUE {
            let here = open_folder(&parent, Path::new("."))?;
            let real = format!("/proc/self/fd/{}", here.as_raw_fd());
            return Ok(rustix::fs::setxattr(real, OPAQUE_XATTR, b"y", XattrFlags::empty())?);
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            return match rustix::fs::mknodat(&parent, gone, FileType::CharacterDevice, Mode::empty(), 0) {
                // The layer itself has something of this name: it takes away only what is below it.
                Err(rustix::io::Errno::EXIST) => Ok(()),
                made => Ok(made?),
            };
        }
        let header = entry.header();
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let times = time(header.mtime()?);
        let kind = header.entry_type();
        if kind != EntryType::Directory {
            remove(&parent, name)?;
        }
        match kind {
            EntryType::Directory => {
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::EXIST) if is_folder(&parent, name) => {}
                    Err(rustix::io::Errno::EXIST) => {
                        remove(&parent, name)?;
                        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    }
                    Err(error) => return Err(error.into()),
                }
                self.own(&parent, name, &entry)?;
                return self.note_folder(path, &entry);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
                let mut file = std::fs::File::from(file);
                let left = LAYER_BYTES_MAX - self.bytes.min(LAYER_BYTES_MAX);
                let written = io::copy(&mut (&mut entry).take(left + 1), &mut file)?;
                self.bytes += written;
                if written > left {
                    return Err(invalid(format!("a layer has more than {LAYER_BYTES_MAX} bytes")));
                }
                self.own(&parent, name, &entry)?;
                // After the owner, whose change takes set-user-id bits away.
                rustix::fs::fchmod(&file, mode)?;
                rustix::fs::futimens(&file, &Timestamps { last_access: times, last_modification: times })?;
                return Ok(());
            }
            EntryType::Symlink => {
                let target =
                    entry.link_name()?.ok_or_else(|| invalid(format!("{} links to nothing", path.display())))?;
                rustix::fs::symlinkat(target.as_ref(), &parent, name)?;
            }
            EntryType::Link => {
                let target =
                    entry.link_name()?.ok_or_else(|| invalid(format!("{} links to nothing", path.display())))?;
                let target = within(&target)?;
                let Some((folder, file)) = target.parent().zip(target.file_name()) else {
                    return Err(invalid(format!("{} links to a folder", path.display())));
                };
                let folder = open_folder(&self.root, folder)?;
                return Ok(rustix::fs::linkat(&folder, file, &parent, name, AtFlags::empty())?);
            }
            EntryType::Fifo => rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0)?,
            EntryType::Block | EntryType::Char => {
                tracing::debug!(path = %path.display(), "a device of an image is left out");
                return Ok(());
            }
            // Headers that the reader of the archive has understood already, or that speak to other programs.
            _ => return Ok(()),
        }
        self.own(&parent, name, &entry)
    }

    /// A folder of the layer, made with all above it where it is missing. Links on the way stay within the layer.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        self.folder_by(path, LINKS_MAX)
    }

    fn folder_by(&self, path: &Path, links_left: usize) -> io::Result<OwnedFd> {
        match open_folder(&self.root, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut here = open_folder(&self.root, Path::new("."))?;
        let mut so_far = PathBuf::new();
        let mut rest = path.iter();
        while let Some(part) = rest.next() {
            let above = so_far.clone();
            so_far.push(part);
            here = match open_folder(&self.root, &so_far) {
                Ok(folder) => folder,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) => match rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) => open_folder(&self.root, &so_far)?,
                    // A link to what is in a layer below, or nowhere.
                    Err(rustix::io::Errno::EXIST) if links_left > 0 => {
                        let link = rustix::fs::readlinkat(&here, part, Vec::new())?;
                        let link = Path::new(std::ffi::OsStr::from_bytes(link.as_bytes()));
                        return self.folder_by(&in_root(&above, link).join(rest.as_path()), links_left - 1);
                    }
                    Err(error) => return Err(error.into()),
                },
            };
        }
        Ok(here)
    }

    fn own(&self, parent: &OwnedFd, name: &str, entry: &tar::Entry<'_, impl Read>) -> io::Result<()> {
        if !self.keeps_owners {
            return Ok(());
        }
        let id = |id: u64| u32::try_from(id).map_err(|_| invalid(format!("{name} has an owner that cannot be")));
        let (uid, gid) = (id(entry.header().uid()?)?, id(entry.header().gid()?)?);
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn note_folder(&mut self, path: PathBuf, entry: &tar::Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        self.folders.insert(path, (Mode::from_raw_mode(header.mode()? & 0o7777), time(header.mtime()?)));
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        // From the inside out: who may not enter a folder could not set what is in it.
        for (path, (mode, time)) in std::mem::take(&mut self.folders).into_iter().rev() {
            // It may have become something else since.
            let Ok(folder) = open_folder(&self.root, &path) else { continue };
            let folder = rustix::fs::openat(&folder, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::futimens(&folder, &Timestamps { last_access: time, last_modification: time })?;
            rustix::fs::fchmod(&folder, mode)?;
        }
        Ok(())
    }
}

/// Where a link in a folder leads, with the layer as the root.
fn in_root(folder: &Path, link: &Path) -> PathBuf {
    let mut out = if link.is_absolute() { PathBuf::new() } else { folder.to_path_buf() };
    for part in link.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

/// A path of an archive as one below the layer's folder.
fn within(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(format!("a layer has the path {}", path.display())));
            }
        }
    }
    Ok(out)
}

fn open_folder(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?)
}

fn is_folder(parent: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Takes what has this name out of the way: a later entry of an archive stands for an earlier one.
fn remove(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => {
            // Below a descriptor of our own, so that no link leads elsewhere.
            let here = format!("/proc/self/fd/{}/{name}", parent.as_raw_fd());
            std::fs::remove_dir_all(here)
        }
        Err(error) => Err(error.into()),
    }
}

fn time(seconds: u64) -> Timespec {
    Timespec { tv_sec: i64::try_from(seconds).unwrap_or_default(), tv_nsec: 0 }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Takes a folder of layers away, also where its folders may not be written to.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    if let Err(error) = std::fs::remove_dir_all(path) {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Err(error);
        }
        open_up(path)?;
        return std::fs::remove_dir_all(path);
    }
    Ok(())
}

fn open_up(folder: &Path) -> io::Result<()> {
    rustix::fs::chmodat(CWD, folder, Mode::from_raw_mode(0o700), AtFlags::empty())?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// An archive of entries, one a line: `dir PATH MODE`, `file PATH MODE TEXT`, `link PATH TARGET`, `hard PATH TARGET`.
    fn archive(lines: &str) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            let mut header = tar::Header::new_ustar();
            // As it stands there: the setter refuses what is being tested.
            header.as_mut_bytes()[..words[1].len()].copy_from_slice(words[1].as_bytes());
            header.set_mtime(1_700_000_000);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mode(u32::from_str_radix(words[2], 8).unwrap_or(0o777));
            let (kind, text) = match words[0] {
                "dir" => (EntryType::Directory, ""),
                "file" => (EntryType::Regular, words.get(3).copied().unwrap_or_default()),
                "link" => (EntryType::Symlink, ""),
                _ => (EntryType::Link, ""),
            };
            header.set_entry_type(kind);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_link_name_literal(words[2]).unwrap();
            }
            header.set_size(text.len() as u64);
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    /// What is in a folder, in the same words.
    fn listing(folder: &Path, prefix: &str, out: &mut Vec<String>) {
        let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let about = entry.path().symlink_metadata().unwrap();
            let mode = about.mode() & 0o7777;
            if about.is_dir() {
                let opaque = rustix::fs::getxattr(entry.path(), OPAQUE_XATTR, &mut [0u8; 8]).is_ok();
                out.push(format!("dir {name} {mode:o}{}", if opaque { " opaque" } else { "" }));
                listing(&entry.path(), &format!("{name}/"), out);
            } else if about.is_symlink() {
                out.push(format!("link {name} {}", std::fs::read_link(entry.path()).unwrap().display()));
            } else if about.is_file() {
                assert_eq!(about.mtime(), 1_700_000_000);
                let links = if about.nlink() > 1 { " (hard)" } else { "" };
                out.push(format!("file {name} {mode:o} {}{links}", std::fs::read_to_string(entry.path()).unwrap()));
            } else {
                assert_eq!(about.rdev(), 0);
                out.push(format!("gone {name}"));
            }
        }
    }

    #[track_caller]
    fn check(lines: &str, want: &str) {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(lines);
        let got = match unpack(archive.as_slice(), folder.path()) {
            Ok(unpacked) => {
                let mut hash = Sha256::new();
                hash.update(&archive);
                assert_eq!(unpacked.diff_id, digest(hash));
                let mut out = Vec::new();
                listing(folder.path(), "", &mut out);
                out.join("\n")
            }
            Err(why) => format!("error: {why}"),
        };
        let want: Vec<&str> = want.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(got, want.join("\n"));
        remove_tree(folder.path()).unwrap();
        std::fs::create_dir(folder.path()).unwrap();
    }

    #[test]
    fn files_are_as_the_archive_has_them() {
        check(
            "dir ./bin 755\nfile ./bin/sh 4755 x\nlink ./sh bin/sh\nhard ./bash bin/sh\nfile deep/er/f 640 y",
            "file bash 4755 x (hard)\ndir bin 755\nfile bin/sh 4755 x (hard)\ndir deep 755\ndir deep/er 755\n\
             file deep/er/f 640 y\nlink sh bin/sh",
        );
    }

    #[test]
    fn folders_that_may_not_be_written_to_are_filled() {
        check(
            "dir a 555\ndir a/b 0\nfile a/b/c 400 x\nfile a/d 444 y",
            "dir a 555\ndir a/b 0\nfile a/b/c 400 x\nfile a/d 444 y",
        );
    }

    #[test]
    fn what_a_layer_removes_is_marked() {
        check(
            "dir etc 755\nfile etc/.wh.passwd 0\ndir var 755\nfile var/.wh..wh..opq 0\nfile var/new 644 x\n\
             file both 644 x\nfile .wh.both 0",
            "file both 644 x\ndir etc 755\ngone etc/passwd\ndir var 755 opaque\nfile var/new 644 x",
        );
    }

    #[test]
    fn later_entries_stand_for_earlier_ones() {
        check("file a 644 x\nfile a 600 y", "file a 600 y");
        check("dir a 755\nfile a/b 644 x\nfile a 644 y", "file a 644 y");
        check("file a 644 x\ndir a 755", "dir a 755");
        check("hard b a", "error: No such file or directory (os error 2)");
        check("file a 644 x\nhard a a", "error: No such file or directory (os error 2)");
    }

    #[test]
    fn nothing_outside_is_touched() {
        check("file ../out 644 x", "error: a layer has the path ../out");
        check("file a/../../out 644 x", "error: a layer has the path a/../../out");
        check("file /etc/passwd 644 x", "dir etc 755\nfile etc/passwd 644 x");
        // Links on the way lead to places within the layer, wherever they point.
        check("link out /etc\nfile out/passwd 644 x", "dir etc 755\nfile etc/passwd 644 x\nlink out /etc");
        check("dir tmp 755\nlink out ../../tmp\nfile out/f 644 x", "link out ../../tmp\ndir tmp 755\nfile tmp/f 644 x");
        check("hard f ../../../etc/passwd", "error: a layer has the path ../../../etc/passwd");
        check("link l /etc/passwd\nfile l 644 x", "file l 644 x");
        check("link l /etc/passwd\nhard h l\nfile h 644 x", "file h 644 x\nlink l /etc/passwd");
    }

    #[test]
    fn compressed_layers_have_the_digest_of_what_they_hold() {
        let plain = archive("file a 644 x");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &plain).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        let mut hash = Sha256::new();
        hash.update(&plain);
        let want = Unpacked { diff_id: digest(hash), bytes: 1 };
        for layer in [plain, gzip.finish().unwrap(), zstd] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(unpack(layer.as_slice(), folder.path()).unwrap(), want);
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack(b"no archive at all".as_slice(), folder.path()).is_err());
    }
}
