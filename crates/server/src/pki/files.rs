//! The files of keys and certificates: their names in a cluster's folder, and how they are read and written. Knows nothing
//! of what is in them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The authority's key. It belongs to one of the certificates of [`AUTHORITIES`].
pub const AUTHORITY_KEY: &str = "ca.key";
/// Every authority that clients should trust.
pub const AUTHORITIES: &str = "ca.crt";
/// The signing authority as the ones before it vouch for it.
pub const CROSS: &str = "ca-cross.crt";
pub const SERVING: &str = "apiserver.crt";
pub const SERVING_KEY: &str = "apiserver.key";
/// Signs service account tokens.
pub const TOKEN_KEY: &str = "sa.key";
/// Every key that verifies service account tokens.
pub const TOKEN_KEYS: &str = "sa.pub";

/// All of them.
pub const ALL: [&str; 7] = [AUTHORITY_KEY, AUTHORITIES, CROSS, SERVING, SERVING_KEY, TOKEN_KEY, TOKEN_KEYS];

pub fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// The text of a file, nothing where there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    }
}

/// Whole or not at all: a reader never sees half a key, nor does the next start after a power cut.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&partial, path)
    })();
    written.map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// When a file was last written, in seconds since 1970.
pub fn written_at(path: &Path) -> Option<i64> {
    let modified = fs::metadata(path).and_then(|about| about.modified()).ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// The folder to oneself: two who change it at once would undo each other's work. Given back when it is dropped.
///
/// # Errors
/// There is no such folder, or somebody else has it.
pub fn lock(folder: &Path) -> Result<fs::File, String> {
    let file = fs::File::open(folder).map_err(|e| format!("cannot open {}: {e}", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(format!("{} is being changed by another command", folder.display())),
        Err(fs::TryLockError::Error(e)) => Err(format!("cannot lock {}: {e}", folder.display())),
    }
}

/// `folder/name`, where there is a folder.
pub fn in_folder(folder: Option<&Path>, name: &str) -> Option<PathBuf> {
    folder.map(|folder| folder.join(name))
}
