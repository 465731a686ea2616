//! Writes a volume's files so that a reader sees all of the old ones or all of the new: a directory per version, a link
//! `..data` to it that is replaced at once, and links from the files' names through it. Knows nothing of what it writes.

use crate::volumes::Payload;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Who shall own the files; `None` leaves that as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Makes the directory hold these files and no others. Returns false if it did already.
pub fn write(dir: &Path, payload: &Payload, owner: Owner, now: Timestamp) -> io::Result<bool> {
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let version = new_version(dir, now)?;
    fs::set_permissions(dir.join(&version), Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let full = dir.join(&version).join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&full, &file.content)?;
        chown(&full, owner.uid, owner.gid)?;
        fs::set_permissions(&full, Permissions::from_mode(file.mode))?;
    }
    let names: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        match symlink(format!("{DATA}/{name}"), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let _ = fs::remove_file(dir.join(DATA_NEW));
    symlink(&version, dir.join(DATA_NEW))?;
    fs::rename(dir.join(DATA_NEW), dir.join(DATA))?;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !names.contains(name) {
            fs::remove_file(dir.join(name))?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// A directory of a name that no version before had: `..2026_01_31_12_59_59.123456789`.
fn new_version(dir: &Path, now: Timestamp) -> io::Result<String> {
    loop {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), u32::from_ne_bytes(random));
        match fs::create_dir(dir.join(&name)) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn same(version: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let mut folders = vec![version.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(version).ok().and_then(Path::to_str);
            let Some(file) = name.and_then(|name| payload.get(name)) else { return false };
            let mode = fs::metadata(&path).map(|found| found.mode() & 0o7777);
            if fs::read(&path).ok().as_ref() != Some(&file.content) || mode.ok() != Some(file.mode) {
                return false;
            }
            found += 1;
        }
    }
    found == payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::File;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |content: &str, mode| File { content: content.as_bytes().to_vec(), mode };
        files.iter().map(|&(path, content, mode)| (path.to_owned(), file(content, mode))).collect()
    }

    fn show(dir: &Path) -> String {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let line = |name: &String| match fs::read_link(dir.join(name)) {
            Ok(_) if name == DATA => Some(name.clone()),
            Ok(link) => {
                let content = fs::read_to_string(dir.join(name)).unwrap_or("directory".into());
                let mode = fs::metadata(dir.join(name)).unwrap().mode() & 0o7777;
                Some(format!("{name} -> {} {mode:o} {content}", link.display()))
            }
            Err(_) => Some(name[..4].to_owned()),
        };
        names.iter().filter_map(line).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn replaces_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let check = |files: &[(&str, &str, u32)], written: bool, expected: &str| {
            let now = Timestamp::from_second(1_700_000_000).unwrap();
            assert_eq!(write(dir, &payload(files), Owner::default(), now).unwrap(), written);
            assert_eq!(show(dir), expected);
        };
        let first = [("token", "A", 0o600), ("deep/er/file", "x", 0o644)];
        check(&first, true, "..20, ..data, deep -> ..data/deep 755 directory, token -> ..data/token 600 A");
        check(&first, false, "..20, ..data, deep -> ..data/deep 755 directory, token -> ..data/token 600 A");
        check(&[("token", "B", 0o600)], true, "..20, ..data, token -> ..data/token 600 B");
        check(&[("token", "B", 0o644)], true, "..20, ..data, token -> ..data/token 644 B");
        check(&[], true, "..20, ..data");
    }
}
