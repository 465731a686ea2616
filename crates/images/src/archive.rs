//! Images from files: what `docker save` writes, and layouts of OCI images, as archives or as folders. Reads no network.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use oci_client::manifest::{ImageIndexEntry, OciImageIndex, OciImageManifest};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::store::{CONFIG_BYTES_MAX, Wanted, is_digest, read_bounded};
use crate::unpack::{digest, plain};
use crate::{Error, Image, Reference, Store, reference};

/// What an archive of images may hold, in bytes and in files.
const ARCHIVE_BYTES_MAX: u64 = 256 << 30;
const ARCHIVE_FILES_MAX: usize = 100_000;
/// Indexes in indexes.
const INDEX_DEPTH_MAX: usize = 4;
/// Where containerd and others write an image's name in a layout.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// One image of `manifest.json`, as `docker save` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Store {
    /// Adds the images of an archive (also compressed) or a folder. `name` is for an image that has none of its own.
    ///
    /// # Errors
    /// It holds no image, none for this machine, or one that is not what it says.
    pub fn load(&self, path: &Path, name: Option<&Reference>) -> Result<Vec<Image>, Error> {
        if path.is_dir() {
            return self.load_folder(path, name);
        }
        let file = File::open(path).map_err(Error::io(format!("cannot open {}", path.display())))?;
        self.load_archive(file, name)
    }

    /// The same of an archive that is read from somewhere.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_archive(&self, archive: impl Read, name: Option<&Reference>) -> Result<Vec<Image>, Error> {
        let folder = self.partial()?;
        let unreadable = || Error::io("the archive cannot be read");
        let mut archive = tar::Archive::new(plain(archive).map_err(unreadable())?.take(ARCHIVE_BYTES_MAX));
        archive.set_preserve_permissions(false);
        for (nth, entry) in archive.entries().map_err(unreadable())?.enumerate() {
            if nth == ARCHIVE_FILES_MAX {
                return Err(Error::Invalid(format!("the archive has more than {ARCHIVE_FILES_MAX} files")));
            }
            // It writes nothing outside of the folder.
            entry.and_then(|mut entry| entry.unpack_in(folder.path())).map_err(unreadable())?;
        }
        self.load_folder(folder.path(), name)
    }

    fn load_folder(&self, folder: &Path, name: Option<&Reference>) -> Result<Vec<Image>, Error> {
        let source = Source(folder);
        if folder.join("manifest.json").is_file() {
            return self.load_saved(&source, name);
        }
        if !folder.join("index.json").is_file() {
            let why = "it holds neither manifest.json (docker save) nor index.json (a layout of OCI images)";
            return Err(Error::Invalid(why.into()));
        }
        let index: OciImageIndex = parse("index.json", &source.small("index.json")?)?;
        let mut images = Vec::new();
        for entry in &index.manifests {
            let named = |key: &&str| entry.annotations.as_ref()?.get(*key).and_then(|name| reference(name).ok());
            // A bare tag is a name only together with the one that is given.
            let own = NAMES.iter().find_map(named).filter(|own| own.repository().contains('/') || name.is_none());
            if let Some(manifest) = self.manifest(&source, entry, 0)? {
                images.push(self.load_manifest(&source, &manifest, own.as_ref().or(name))?);
            }
        }
        match images.is_empty() {
            true => Err(Error::Invalid("it holds no image for this machine".into())),
            false => Ok(images),
        }
    }

    fn load_saved(&self, source: &Source<'_>, name: Option<&Reference>) -> Result<Vec<Image>, Error> {
        let saved: Vec<Saved> = parse("manifest.json", &source.small("manifest.json")?)?;
        let mut images = Vec::new();
        for one in saved {
            let wanted = Wanted::parse(&source.small(&one.config)?)?;
            if wanted.layers.len() != one.layers.len() {
                return Err(Error::Invalid("the image has another number of layers than its description".into()));
            }
            let adding = self.adding()?;
            for (diff_id, file) in wanted.layers.iter().zip(&one.layers) {
                if !adding.has(diff_id) {
                    adding.add_layer(diff_id, source.open(file)?)?;
                }
            }
            let mut names = Vec::new();
            for tag in one.repo_tags.into_iter().flatten() {
                names.push(reference(&tag)?);
            }
            if names.is_empty() {
                names.extend(name.cloned());
            }
            let mut image = adding.finish(wanted.clone(), names.first(), None)?;
            for name in names.iter().skip(1) {
                image = adding.finish(wanted.clone(), Some(name), None)?;
            }
            images.push(image);
        }
        Ok(images)
    }

    /// The manifest behind an entry of an index: the one for this machine where it is an index itself.
    fn manifest(
        &self,
        source: &Source<'_>,
        entry: &ImageIndexEntry,
        depth: usize,
    ) -> Result<Option<OciImageManifest>, Error> {
        if depth > INDEX_DEPTH_MAX {
            return Err(Error::Invalid(format!("it has indexes in indexes, more than {INDEX_DEPTH_MAX} deep")));
        }
        let bytes = source.blob(&entry.digest)?;
        if !entry.media_type.contains("index") && !entry.media_type.contains("manifest.list") {
            return Ok(Some(parse(&entry.digest, &bytes)?));
        }
        let index: OciImageIndex = parse(&entry.digest, &bytes)?;
        let Some(digest) = oci_client::client::current_platform_resolver(&index.manifests) else { return Ok(None) };
        match index.manifests.iter().find(|entry| entry.digest == digest) {
            Some(entry) => self.manifest(source, entry, depth + 1),
            None => Ok(None),
        }
    }

    fn load_manifest(
        &self,
        source: &Source<'_>,
        manifest: &OciImageManifest,
        name: Option<&Reference>,
    ) -> Result<Image, Error> {
        let wanted = Wanted::parse(&source.blob(&manifest.config.digest)?)?;
        if wanted.layers.len() != manifest.layers.len() {
            return Err(Error::Invalid("the image has another number of layers than its description".into()));
        }
        let adding = self.adding()?;
        for (diff_id, layer) in wanted.layers.iter().zip(&manifest.layers) {
            if !adding.has(diff_id) {
                adding.add_layer(diff_id, source.open(&blob_path(&layer.digest)?)?)?;
            }
        }
        adding.finish(wanted, name, None)
    }
}

/// A folder with an image's files.
struct Source<'a>(&'a Path);

impl Source<'_> {
    /// A file, by a name that the archive itself has.
    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        let path = Path::new(name);
        match path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            true => Ok(self.0.join(path)),
            false => Err(Error::Invalid(format!("it names the file {name:?}"))),
        }
    }

    fn open(&self, name: &str) -> Result<File, Error> {
        File::open(self.path(name)?).map_err(Error::io(format!("it lacks {name}")))
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, Error> {
        read_bounded(&self.path(name)?, CONFIG_BYTES_MAX)
    }

    fn blob(&self, wanted: &str) -> Result<Vec<u8>, Error> {
        let bytes = self.small(&blob_path(wanted)?)?;
        let mut hash = Sha256::new();
        hash.update(&bytes);
        match digest(hash) {
            found if found == wanted => Ok(bytes),
            found => Err(Error::Invalid(format!("the blob {wanted} is another one: {found}"))),
        }
    }
}

fn blob_path(digest: &str) -> Result<String, Error> {
    match digest.strip_prefix("sha256:").filter(|_| is_digest(digest)) {
        Some(hex) => Ok(format!("blobs/sha256/{hex}")),
        None => Err(Error::Invalid(format!("{digest:?} is no sha256 digest"))),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|why| Error::Invalid(format!("{what} cannot be read: {why}")))
}
