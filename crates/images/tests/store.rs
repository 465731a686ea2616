//! What the store keeps, shares and lets go, from archives as docker and containerd write them.

use std::path::Path;

use images::{Error, Store, reference};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A layer: an archive of files, each `PATH TEXT`.
fn layer(files: &[&str]) -> Vec<u8> {
    archive(files.iter().map(|file| file.split_once(' ').unwrap()).map(|(path, text)| (path, text.as_bytes().to_vec())))
}

fn archive<'a>(files: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn description(layers: &[Vec<u8>], more: Value) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let mut description = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": {"Env": ["A=b"], "Cmd": ["run"], "User": "7"},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        description[key] = value.clone();
    }
    description.to_string().into_bytes()
}

/// As `docker save` writes it.
fn saved(names: &[&str], layers: &[Vec<u8>], more: Value) -> Vec<u8> {
    let files: Vec<String> = (0..layers.len()).map(|nth| format!("{nth}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": files}]).to_string().into_bytes();
    let layers = files.iter().map(String::as_str).zip(layers.iter().cloned());
    archive(
        [("config.json", description(layers_of(layers.clone()).as_slice(), more)), ("manifest.json", manifest)]
            .into_iter()
            .chain(layers),
    )
}

fn layers_of<'a>(layers: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Vec<Vec<u8>> {
    layers.map(|(_, bytes)| bytes).collect()
}

/// As a layout of OCI images has it, in a folder.
fn layout(folder: &Path, name: Option<&str>, layers: &[Vec<u8>]) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        std::fs::write(blobs.join(&digest(bytes)["sha256:".len()..]), bytes).unwrap();
        json!({"mediaType": "application/octet-stream", "digest": digest(bytes), "size": bytes.len()})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(&description(layers, json!({}))),
        "layers": layers.iter().map(|layer| put(layer)).collect::<Vec<_>>(),
    });
    let mut entry = put(manifest.to_string().as_bytes());
    entry["mediaType"] = manifest["mediaType"].clone();
    if let Some(name) = name {
        entry["annotations"] = json!({"io.containerd.image.name": name});
    }
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

struct Bed {
    store: Store,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        Bed { store: Store::open(folder.path()), folder }
    }

    fn load(&self, archive: &[u8]) -> Result<String, Error> {
        let loaded = self.store.load_archive(archive, None)?;
        Ok(loaded.iter().flat_map(|image| image.names.clone()).collect::<Vec<_>>().join(" "))
    }

    /// Names with the files of their layers, and how many layers there are on disk.
    #[track_caller]
    fn check(&self, want: &str) {
        let mut lines = Vec::new();
        for image in self.store.list().unwrap() {
            let mut files = Vec::new();
            for layer in self.store.layers(&image) {
                let names = std::fs::read_dir(layer).unwrap().map(|entry| entry.unwrap().file_name());
                files.extend(names.map(|name| name.into_string().unwrap()));
            }
            lines.push(format!("{}: {} ({} bytes)", image.names.join(" "), files.join(" "), image.bytes));
        }
        let folders = std::fs::read_dir(self.folder.path().join("layers")).unwrap();
        lines.push(folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count().to_string());
        assert_eq!(lines.join("\n"), want);
        assert_eq!(std::fs::read_dir(self.folder.path().join("partial")).unwrap().count(), 0);
    }
}

#[test]
fn layers_are_there_once() {
    let bed = Bed::new();
    let (base, web, job) = (layer(&["base x"]), layer(&["web yy"]), layer(&["job zzz"]));
    let loaded = bed.load(&saved(&["web:1"], &[base.clone(), web], json!({}))).unwrap();
    assert_eq!(loaded, "docker.io/library/web:1");
    bed.load(&saved(&["example.com/team/job"], &[base, job], json!({}))).unwrap();
    bed.check("docker.io/library/web:1: base web (3 bytes)\nexample.com/team/job:latest: base job (4 bytes)\n3");
    let image = bed.store.find("web:1").unwrap().unwrap();
    assert_eq!((image.config.env.as_slice(), image.config.user.as_str()), (["A=b".to_string()].as_slice(), "7"));
    assert_eq!(bed.store.find(&image.id).unwrap(), Some(image.clone()));
    assert_eq!(bed.store.find(&image.id["sha256:".len()..][..12]).unwrap(), Some(image));
    assert_eq!(bed.store.find("web").unwrap(), None);
    assert!(bed.store.find("Web").is_err_and(|why| why.to_string().starts_with("couldn't parse image name \"Web\"")));

    assert_eq!(bed.store.remove("web:1").unwrap().len(), 2);
    bed.check("example.com/team/job:latest: base job (4 bytes)\n2");
    assert!(bed.store.remove("web:1").is_err_and(|why| why.to_string() == "no such image: web:1"));
}

#[test]
fn a_name_is_of_the_image_that_got_it_last() {
    let bed = Bed::new();
    bed.load(&saved(&["web:1", "web:2"], &[layer(&["old x"])], json!({}))).unwrap();
    bed.load(&saved(&["web:2"], &[layer(&["new x"])], json!({}))).unwrap();
    bed.check("docker.io/library/web:1: old (1 bytes)\ndocker.io/library/web:2: new (1 bytes)\n2");
    bed.load(&saved(&["web:3"], &[layer(&["new x"])], json!({}))).unwrap();
    bed.check(
        "docker.io/library/web:1: old (1 bytes)\ndocker.io/library/web:2 docker.io/library/web:3: new (1 bytes)\n2",
    );
    assert_eq!(bed.store.remove("web:2").unwrap(), ["Untagged: docker.io/library/web:2"]);
    bed.check("docker.io/library/web:1: old (1 bytes)\ndocker.io/library/web:3: new (1 bytes)\n2");
}

#[test]
fn what_is_in_use_stays() {
    let bed = Bed::new();
    bed.load(&saved(&["web:1"], &[layer(&["f x"])], json!({}))).unwrap();
    let held = bed.store.hold("web:1").unwrap().unwrap();
    // Another process is another opening of the same files.
    let other = Store::open(bed.folder.path());
    assert!(other.remove("web:1").is_err_and(|why| why.to_string() == "image web:1 is in use by a container"));
    other.load_archive(saved(&["web:2"], &[layer(&["f x"])], json!({})).as_slice(), None).unwrap();
    assert!(other.remove(&held.image.id).is_err());
    drop(held);
    other.remove("web:1").unwrap();
    other.remove("web:2").unwrap();
    bed.check("0");
}

#[test]
fn layouts_are_loaded() {
    let bed = Bed::new();
    let folder = tempfile::tempdir().unwrap();
    layout(folder.path(), Some("example.com/team/web:1"), &[layer(&["f x"])]);
    bed.store.load(folder.path(), None).unwrap();
    bed.check("example.com/team/web:1: f (1 bytes)\n1");
    let folder = tempfile::tempdir().unwrap();
    layout(folder.path(), None, &[layer(&["g x"])]);
    bed.store.load(folder.path(), Some(&reference("mine:1").unwrap())).unwrap();
    bed.check("docker.io/library/mine:1: g (1 bytes)\nexample.com/team/web:1: f (1 bytes)\n2");
}

#[test]
fn what_is_not_what_it_says_is_refused() {
    let bed = Bed::new();
    let check = |archive: &[u8], want: &str| {
        let why = bed.load(archive).unwrap_err().to_string();
        assert!(why.contains(want), "{why}");
        bed.check("0");
    };
    let one = [layer(&["f x"])];
    check(&saved(&["web:1"], &one, json!({"rootfs": {"diff_ids": [digest(b"other")]}})), " is another one: sha256:");
    check(&saved(&["web:1"], &one, json!({"rootfs": {"diff_ids": []}})), "another number of layers");
    check(&saved(&["web:1"], &one, json!({"rootfs": {"diff_ids": ["sha256:../../x"]}})), "which is no sha256 digest");
    check(
        &saved(&["web:1"], &one, json!({"architecture": "s390x"})),
        "the image is for linux/s390x, and this machine is linux/",
    );
    check(&saved(&["Bad Name"], &[], json!({})), "couldn't parse image name");
    check(&archive([("x", Vec::new())].into_iter()), "it holds neither manifest.json");
    check(b"nothing", "the archive cannot be read");
    let outside = json!([{"Config": "../config.json", "Layers": []}]).to_string().into_bytes();
    check(&archive([("manifest.json", outside)].into_iter()), "it names the file \"../config.json\"");

    let folder = tempfile::tempdir().unwrap();
    layout(folder.path(), Some("web:1"), &one);
    let manifest = std::fs::read_dir(folder.path().join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    manifest.for_each(|path| std::fs::write(path, "{}").unwrap());
    let why = bed.store.load(folder.path(), None).unwrap_err().to_string();
    assert!(why.contains(" is another one: sha256:"), "{why}");
}

#[test]
fn what_is_unused_the_longest_goes_first() {
    let bed = Bed::new();
    let store = &bed.store;
    for (name, text) in [("first", "aaaa"), ("second", "bbbb"), ("third", "cccc"), ("fourth", "dddd")] {
        let file = format!("file {text}");
        bed.load(&saved(&[&format!("{name}:1")], &[layer(&[&file])], json!({"created": name}))).unwrap();
    }
    let names = || -> Vec<String> {
        let images = store.list().unwrap();
        images.iter().map(|image| image.names[0].replace("docker.io/library/", "")).collect()
    };
    // Used after all others were made, and one of them all the time.
    let held = store.hold("second:1").unwrap().unwrap();
    drop(store.hold("first:1").unwrap().unwrap());
    assert_eq!(store.free(1, std::time::Duration::from_secs(60)).unwrap(), 0);
    assert_eq!(names(), ["first:1", "fourth:1", "second:1", "third:1"]);
    assert_eq!(store.free(1, std::time::Duration::ZERO).unwrap(), 4);
    assert_eq!(names(), ["first:1", "fourth:1", "second:1"]);
    assert_eq!(store.free(100, std::time::Duration::ZERO).unwrap(), 8);
    assert_eq!(names(), ["second:1"]);
    drop(held);
    assert_eq!(store.free(100, std::time::Duration::ZERO).unwrap(), 4);
    let (bytes, free) = store.room().unwrap();
    assert!(free < bytes && bytes > 1 << 20, "{free} of {bytes}");
}
