//! What images there are on this machine. A folder: a file for each image, and each layer unpacked once, however many
//! images have it. Several processes may use it at once. Fetches nothing and knows no archives.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::unpack::{self, digest};
use crate::{Error, Reference, reference};

/// The description of an image, in bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Beside a layer's folder: how much its files hold.
const BYTES: &str = "bytes";
/// Layers of one image: as many as an overlay takes in one mount.
const LAYERS_MAX: usize = 500;

/// The images of one folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:` and the digest of its description.
    pub id: String,
    /// Full names: `docker.io/library/alpine:latest`.
    pub names: Vec<String>,
    /// The names by content under which registries have it: `docker.io/library/alpine@sha256:..`.
    pub digests: Vec<String>,
    /// The digests of its layers, uncompressed, the lowest first.
    layers: Vec<String>,
    /// What its files hold.
    pub bytes: u64,
    pub config: Config,
}

/// How an image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `NAME=VALUE`
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    pub working_dir: String,
    /// `user`, `uid`, and with `:group` or `:gid`.
    pub user: String,
    pub stop_signal: String,
}

/// The description of an image, as far as it matters here.
#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Config,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// An image that somebody uses: it stays until this is dropped.
#[derive(Debug)]
pub struct Hold {
    pub image: Image,
    lock: File,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.lock.set_modified(SystemTime::now());
    }
}

/// A description that is to become an image.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub id: String,
    pub layers: Vec<String>,
    config: Config,
}

/// An image is being added. What it has so far stays.
pub(crate) struct Adding<'a> {
    store: &'a Store,
    _lock: File,
}

impl Store {
    /// The store of a folder, which is made with mode 0700 when the first image comes.
    pub fn open(folder: impl Into<PathBuf>) -> Store {
        Store { folder: folder.into() }
    }

    fn make(&self) -> Result<(), Error> {
        for name in ["images", "layers", "partial"] {
            let place = self.folder.join(name);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&place);
            made.map_err(Error::io(format!("cannot make {}", place.display())))?;
        }
        Ok(())
    }

    /// Every image, by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let folder = self.folder.join("images");
        let failed = || Error::io(format!("cannot read {}", folder.display()));
        let mut images = Vec::new();
        let entries = match fs::read_dir(&folder) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(images),
            entries => entries.map_err(failed())?,
        };
        for entry in entries {
            let path = entry.map_err(failed())?.path();
            // What cannot be read was removed just now, or is no image.
            let text = fs::read(&path).unwrap_or_default();
            images.extend(serde_json::from_slice::<Image>(&text).ok());
        }
        images.sort_by(|a: &Image, b: &Image| (&a.names, &a.id).cmp(&(&b.names, &b.id)));
        Ok(images)
    }

    /// The image of this name, of this name by content, or of this id.
    ///
    /// # Errors
    /// The folder cannot be read, or this is no name.
    pub fn find(&self, name: &str) -> Result<Option<Image>, Error> {
        let images = self.list()?;
        let id = name.strip_prefix("sha256:").unwrap_or(name);
        let is_id = id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(image) = images.iter().find(|image| is_id && image.id["sha256:".len()..].starts_with(id)) {
            return Ok(Some(image.clone()));
        }
        let wanted = reference(name)?;
        let is_it = |image: &Image| match wanted.digest() {
            Some(_) => image.digests.contains(&by_content(&wanted, wanted.digest().unwrap_or_default())),
            None => image.names.contains(&wanted.whole()),
        };
        Ok(images.into_iter().find(is_it))
    }

    /// The same, kept from being removed.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn hold(&self, name: &str) -> Result<Option<Hold>, Error> {
        let Some(image) = self.find(name)? else { return Ok(None) };
        let path = self.file(&image.id);
        let Ok(lock) = File::open(&path) else { return Ok(None) };
        // When it was used last is when its file was touched last.
        let _ = lock.set_modified(SystemTime::now());
        lock.lock_shared().map_err(Error::io(format!("cannot lock {}", path.display())))?;
        // Removed between the two looks, or written anew: then under the same id, with what matters unchanged.
        Ok(path.exists().then_some(Hold { image, lock }))
    }

    /// Takes a name from an image, and the image away when it has no other and nobody uses it. An id takes all names. Answers
    /// what is gone, a line each, as docker tells it.
    ///
    /// # Errors
    /// There is no such image, it is in use, or an image is being added.
    pub fn remove(&self, name: &str) -> Result<Vec<String>, Error> {
        let lock = self.lock()?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse("an image is being added".into())),
            Err(TryLockError::Error(why)) => return Err(Error::io("cannot lock the image store")(why)),
        }
        let found = self.find(name)?.ok_or_else(|| Error::NotFound(format!("no such image: {name}")))?;
        let path = self.file(&found.id);
        let full = reference(name).map(|name| name.whole()).unwrap_or_default();
        if found.names.contains(&full) && found.names.len() > 1 {
            let names = found.names.iter().filter(|name| **name != full).cloned().collect();
            self.write(&Image { names, ..found })?;
            return Ok(vec![format!("Untagged: {full}")]);
        }
        let in_use = || Error::InUse(format!("image {name} is in use by a container"));
        let held = File::open(&path).map_err(|_| in_use())?;
        held.try_lock().map_err(|_| in_use())?;
        fs::remove_file(&path).map_err(Error::io(format!("cannot remove {}", path.display())))?;
        let mut gone: Vec<String> = found.names.iter().map(|name| format!("Untagged: {name}")).collect();
        gone.push(format!("Deleted: {}", found.id));
        let others = self.list()?;
        for layer in &found.layers {
            if !others.iter().any(|image| image.layers.contains(layer)) {
                let folder = self.layer_folder(layer);
                unpack::remove_tree(&folder).map_err(Error::io(format!("cannot remove {}", folder.display())))?;
                let _ = fs::remove_file(folder.with_extension(BYTES));
            }
        }
        Ok(gone)
    }

    /// Takes images away that nobody uses, those that were not used for the longest time first, until so many bytes of their files
    /// are gone. What was used within `idle` stays. Answers how many bytes are gone; layers that others have too count with them.
    ///
    /// # Errors
    /// An image is being added, or the folder cannot be changed.
    pub fn free(&self, bytes: u64, idle: Duration) -> Result<u64, Error> {
        let used = |image: &Image| fs::metadata(self.file(&image.id)).and_then(|found| found.modified()).ok();
        let mut images: Vec<(SystemTime, Image)> =
            self.list()?.into_iter().filter_map(|image| Some((used(&image)?, image))).collect();
        images.sort_by_key(|(used, _)| *used);
        let mut freed = 0;
        for (used, image) in images {
            if freed >= bytes || used.elapsed().unwrap_or_default() < idle {
                break;
            }
            match self.remove(&image.id) {
                Ok(_) => freed += image.bytes,
                // By a container, or somebody was faster.
                Err(Error::InUse(_) | Error::NotFound(_)) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(freed)
    }

    /// The bytes of the file system that images are on, and those of them that are free.
    ///
    /// # Errors
    /// The folder is not there, or cannot be asked about.
    pub fn room(&self) -> Result<(u64, u64), Error> {
        let found = rustix::fs::statvfs(&self.folder);
        let found =
            found.map_err(|why| Error::io(format!("cannot ask about {}", self.folder.display()))(why.into()))?;
        Ok((found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
    }

    /// The folders of an image's layers, the lowest first.
    pub fn layers(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().map(|layer| self.layer_folder(layer)).collect()
    }

    /// Nothing is removed while this is held.
    pub(crate) fn adding(&self) -> Result<Adding<'_>, Error> {
        let lock = self.lock()?;
        lock.lock_shared().map_err(Error::io("cannot lock the image store"))?;
        Ok(Adding { store: self, _lock: lock })
    }

    fn lock(&self) -> Result<File, Error> {
        self.make()?;
        let path = self.folder.join("lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        file.map_err(Error::io(format!("cannot open {}", path.display())))
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join("images").join(format!("{}.json", hex(id)))
    }

    fn layer_folder(&self, diff_id: &str) -> PathBuf {
        self.folder.join("layers").join(hex(diff_id))
    }

    /// A folder of its own for what is not whole yet, on the same file system as what it will become.
    pub(crate) fn partial(&self) -> Result<tempfile::TempDir, Error> {
        self.make()?;
        let folder = self.folder.join("partial");
        tempfile::tempdir_in(&folder).map_err(Error::io(format!("cannot write to {}", folder.display())))
    }

    fn write(&self, image: &Image) -> Result<(), Error> {
        let path = self.file(&image.id);
        let failed = || Error::io(format!("cannot write {}", path.display()));
        let text = serde_json::to_vec_pretty(image).map_err(|why| failed()(why.into()))?;
        // In place where it is there: who uses the image has locked this very file.
        if path.exists() {
            return fs::write(&path, text).map_err(failed());
        }
        let partial = self.partial()?;
        let beside = partial.path().join("image.json");
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)).map_err(failed())
    }
}

impl Image {
    /// The name by content in the registry and repository of a name, where it was pulled from there.
    pub fn digest_in(&self, name: &Reference) -> Option<&str> {
        let place = by_content(name, "");
        self.digests.iter().find(|digest| digest.starts_with(&place)).map(String::as_str)
    }
}

impl Adding<'_> {
    /// Whether a layer is there already.
    pub fn has(&self, diff_id: &str) -> bool {
        self.store.layer_folder(diff_id).is_dir()
    }

    /// Unpacks a layer. It must be the one that it is said to be.
    pub fn add_layer(&self, diff_id: &str, layer: impl Read) -> Result<(), Error> {
        let partial = self.store.partial()?;
        let folder = partial.path().join("layer");
        fs::create_dir(&folder).map_err(Error::io("cannot make a folder for a layer"))?;
        let unpacked = unpack::unpack(layer, &folder);
        let unpacked = match unpacked {
            Ok(unpacked) => unpacked,
            Err(why) => {
                let _ = unpack::remove_tree(&folder);
                return Err(Error::io(format!("cannot unpack the layer {diff_id}"))(why));
            }
        };
        if unpacked.diff_id != diff_id {
            let _ = unpack::remove_tree(&folder);
            return Err(Error::Invalid(format!("the layer {diff_id} is another one: {}", unpacked.diff_id)));
        }
        let place = self.store.layer_folder(diff_id);
        let kept = Error::io(format!("cannot keep the layer {diff_id}"));
        fs::write(place.with_extension(BYTES), unpacked.bytes.to_string()).map_err(kept)?;
        match fs::rename(&folder, place) {
            Ok(()) => {}
            // Somebody else was faster, with the same.
            Err(_) if self.has(diff_id) => drop(unpack::remove_tree(&folder)),
            Err(why) => return Err(Error::io(format!("cannot keep the layer {diff_id}"))(why)),
        }
        Ok(())
    }

    /// The image, now that all its layers are there. A name that another image had is this one's from now on.
    pub fn finish(&self, wanted: Wanted, name: Option<&Reference>, digest: Option<&str>) -> Result<Image, Error> {
        let name = name.filter(|name| name.digest().is_none()).map(Reference::whole);
        let images = self.store.list()?;
        for other in &images {
            if name.as_ref().is_some_and(|name| other.id != wanted.id && other.names.contains(name)) {
                let names = other.names.iter().filter(|other| Some(*other) != name.as_ref()).cloned().collect();
                self.store.write(&Image { names, ..other.clone() })?;
            }
        }
        let bytes_of = |layer: &String| fs::read_to_string(self.store.layer_folder(layer).with_extension(BYTES));
        let bytes = wanted.layers.iter().filter_map(|layer| bytes_of(layer).ok()?.parse::<u64>().ok()).sum();
        let before = images.into_iter().find(|image| image.id == wanted.id);
        let mut image = before.unwrap_or_else(|| Image {
            id: wanted.id,
            names: Vec::new(),
            digests: Vec::new(),
            layers: wanted.layers,
            bytes,
            config: wanted.config,
        });
        let add = |list: &mut Vec<String>, text: Option<String>| {
            list.extend(text);
            list.sort();
            list.dedup();
        };
        add(&mut image.names, name);
        add(&mut image.digests, digest.map(str::to_owned));
        self.store.write(&image)?;
        Ok(image)
    }
}

impl Wanted {
    /// Reads the description of an image.
    ///
    /// # Errors
    /// It is none, or of an image for other machines.
    pub fn parse(description: &[u8]) -> Result<Wanted, Error> {
        let invalid =
            |why: serde_json::Error| Error::Invalid(format!("the description of the image cannot be read: {why}"));
        let read: Description = serde_json::from_slice(description).map_err(invalid)?;
        let here = machine();
        let (os, architecture) = (read.os.as_str(), read.architecture.as_str());
        if !matches!(os, "" | "linux") || !(architecture.is_empty() || architecture == here) {
            return Err(Error::Invalid(format!(
                "the image is for {os}/{architecture}, and this machine is linux/{here}"
            )));
        }
        let layers = read.rootfs.diff_ids;
        if layers.len() > LAYERS_MAX {
            return Err(Error::Invalid(format!("the image has {} layers, more than {LAYERS_MAX}", layers.len())));
        }
        if let Some(other) = layers.iter().find(|layer| !is_digest(layer)) {
            return Err(Error::Invalid(format!("the image has a layer {other:?}, which is no sha256 digest")));
        }
        let mut hash = Sha256::new();
        hash.update(description);
        Ok(Wanted { id: digest(hash), layers, config: read.config })
    }
}

/// A name by content: `docker.io/library/alpine@sha256:..`.
pub(crate) fn by_content(reference: &Reference, digest: &str) -> String {
    format!("{}/{}@{digest}", reference.registry(), reference.repository())
}

/// This machine in the words of images.
fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// `null` is the same as nothing.
fn or_default<'de, D: serde::Deserializer<'de>>(decoder: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(decoder)?.unwrap_or_default())
}

/// Reads a file of a bounded size.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let failed = || Error::io(format!("cannot read {}", path.display()));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed())?;
    match bytes.len() as u64 > limit {
        true => Err(Error::Invalid(format!("{} is larger than {limit} bytes", path.display()))),
        false => Ok(bytes),
    }
}
