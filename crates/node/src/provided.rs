//! Volumes whose files are there before the pod is: folders and files of the machine, persistent volumes through a claim,
//! images. Finds and checks them; mounts nothing and writes nothing, but for what a hostPath is to create.

use crate::agent::Shared;
use crate::env::Data;
use crate::images::{self as image_choice, Choice, Files};
use crate::pod::{ClaimVolume, Container, HostPath, ImageVolume, Pod, Volume};
use api::selector::selects_node;
use images::Hold;
use kemudi_client::{Api, ApiResource, Client, Dynamic};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CLAIMS: ApiResource = ApiResource::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true);
const NODES: ApiResource = ApiResource::new("", "v1", "Node", "nodes", false);
const VOLUMES: ApiResource = ApiResource::new("", "v1", "PersistentVolume", "persistentvolumes", false);

/// Where the files of a volume are.
#[derive(Clone)]
pub enum Provided {
    /// A persistent volume's place on this machine.
    Claimed { path: PathBuf, read_only: bool },
    /// A block device of this machine.
    Device { path: PathBuf, read_only: bool },
    /// An image's, which stays in the store as long as this.
    Image(Arc<Hold>),
}

/// Why there is no such volume yet.
#[derive(Debug)]
pub enum Missing {
    /// The words of an event about the pod, without those that say which volume it is.
    Claim(String),
    /// The reason and the words of an event about the pod.
    Volume(&'static str, String),
    /// The reason for which the containers wait that have the image, and the words of why.
    Image(&'static str, String),
}

/// Finds what a claim or an image stands for; nothing for other volumes. Pulls the image if need be, with these Secrets.
///
/// # Errors
/// What is missing.
pub async fn find(shared: &Shared, pod: &Pod, volume: &Volume, secrets: &[Data]) -> Result<Option<Provided>, Missing> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return claimed(shared, pod, &volume.name, claim).await.map(Some);
    }
    match &volume.image {
        Some(image) => self::image(shared, image, secrets).await.map(|hold| Some(Provided::Image(hold))),
        None => Ok(None),
    }
}

async fn claimed(shared: &Shared, pod: &Pod, name: &str, claim: &ClaimVolume) -> Result<Provided, Missing> {
    let client = &shared.config.client;
    let volume = bound_to(client, pod, claim).await.map_err(Missing::Claim)?;
    let is_block = volume["spec"]["volumeMode"] == "Block";
    check_use(pod, name, is_block).map_err(Missing::Claim)?;
    let (step, reason, done) = if is_block {
        ("MapVolume", "FailedMapVolume", "MapPodDevice")
    } else {
        ("MountVolume", "FailedMount", "SetUp")
    };
    let failed = |what: &str, why: String| {
        let name = volume.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        Missing::Volume(reason, format!("{step}.{what} failed for volume {name:?} : {why}"))
    };
    let required = &volume["spec"]["nodeAffinity"]["required"];
    if required.is_object() {
        let nodes = Api::<Dynamic>::all_of(client.clone(), &NODES);
        let node = nodes.get(&shared.config.name).await;
        let node = node.map_err(|error| failed("NodeAffinity check", format!("failed to get the node: {error}")))?;
        if !selects_node(required, &node) {
            return Err(failed("NodeAffinity check", "no matching NodeSelectorTerms".into()));
        }
    }
    let read_only = claim.read_only;
    match is_block {
        true => device(&volume).map(|path| Provided::Device { path, read_only }),
        false => place(&volume).map(|path| Provided::Claimed { path, read_only }),
    }
    .map_err(|why| failed(done, why))
}

/// Files are mounted, devices are not, as the kubelet has it.
fn check_use(pod: &Pod, name: &str, is_block: bool) -> Result<(), String> {
    let mounted = |container: &Container| container.volume_mounts.iter().any(|mount| mount.name == name);
    let devices = |container: &Container| container.volume_devices.iter().any(|device| device.name == name);
    match is_block {
        true if pod.spec.all_containers().any(|container| mounted(container)) => {
            Err(format!("volume {name} has volumeMode Block, but is specified in volumeMounts"))
        }
        false if pod.spec.all_containers().any(|container| devices(container)) => {
            Err(format!("volume {name} has volumeMode Filesystem, but is specified in volumeDevices"))
        }
        _ => Ok(()),
    }
}

/// The persistent volume that a claim has.
async fn bound_to(client: &Client, pod: &Pod, claim: &ClaimVolume) -> Result<Dynamic, String> {
    let (namespace, name) = (&pod.metadata.namespace, &claim.claim_name);
    let failed = |why: String| format!("error processing PVC {namespace}/{name}: {why}");
    let claims = Api::<Dynamic>::namespaced_of(client.clone(), namespace, &CLAIMS);
    let found = claims.get(name).await;
    let found = found.map_err(|error| failed(format!("failed to fetch PVC from API server: {error}")))?;
    let uid = found.pointer("/metadata/uid").cloned();
    if found.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
        return Err(failed("PVC is being deleted".into()));
    }
    let volume = found.pointer("/spec/volumeName").and_then(Value::as_str).unwrap_or_default();
    if volume.is_empty() || found.pointer("/status/phase").and_then(Value::as_str) != Some("Bound") {
        return Err(failed("PVC is not bound".into()));
    }
    let volumes = Api::<Dynamic>::all_of(client.clone(), &VOLUMES);
    let found = volumes.get(volume).await;
    let found = found.map_err(|error| failed(format!("failed to fetch PV {volume} from API server: {error}")))?;
    if found.pointer("/spec/claimRef/uid").is_some_and(|of_volume| Some(of_volume) != uid.as_ref()) {
        return Err(failed(format!("PV {volume} is bound to another claim")));
    }
    Ok(found)
}

/// The place of a persistent volume on this machine, checked as the kubelet does.
fn place(volume: &Value) -> Result<PathBuf, String> {
    let spec = &volume["spec"];
    if let Some(path) = spec.pointer("/hostPath/path").and_then(Value::as_str) {
        let kind = spec.pointer("/hostPath/type").and_then(Value::as_str).unwrap_or_default();
        host_path(&HostPath { path: path.into(), kind: kind.into() })?;
        return Ok(path.into());
    }
    match spec.pointer("/local/path").and_then(Value::as_str) {
        Some(path) if Path::new(path).is_dir() => Ok(path.into()),
        Some(path) if Path::new(path).exists() => Err(format!("path {path:?} is not a directory")),
        Some(path) => Err(format!("path {path:?} does not exist")),
        None => Err("this node mounts persistent volumes of the kinds hostPath and local only".into()),
    }
}

/// The block device that a persistent volume is on this machine.
fn device(volume: &Value) -> Result<PathBuf, String> {
    let Some(path) = volume.pointer("/spec/local/path").and_then(Value::as_str) else {
        return Err("this node has persistent volumes of mode Block of the kind local only".into());
    };
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("path {path:?} does not exist"),
        _ => format!("path {path:?}: {error}"),
    })?;
    if !found.file_type().is_block_device() {
        return Err(format!("path {path:?} is not a block device"));
    }
    // Containers have no rights at the device that who runs the node has not.
    match fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            Err(format!("device {path:?} may not be opened by this node, which runs as user {user}: {error}"))
        }
        Err(error) => Err(format!("device {path:?} cannot be opened: {error}")),
        Ok(_) => Ok(path.into()),
    }
}

async fn image(shared: &Shared, image: &ImageVolume, secrets: &[Data]) -> Result<Arc<Hold>, Missing> {
    let stand_in = Container {
        image: image.reference.clone(),
        image_pull_policy: image.pull_policy.clone(),
        ..Container::default()
    };
    let store = &shared.config.images;
    match image_choice::choose(&stand_in, store) {
        Choice::Use(Files::Image(hold)) => Ok(hold),
        Choice::Use(Files::Host | Files::Engine(_)) => {
            Err(Missing::Image("ErrImagePull", "the image \"host\" cannot be a volume; use hostPath".into()))
        }
        Choice::Pull(reference) => {
            let failed = |why: String| Missing::Image("ErrImagePull", why);
            let _turn = shared.pulls.acquire().await.map_err(|why| failed(why.to_string()))?;
            image_choice::pull(shared, &reference, secrets).await.map_err(failed)
        }
        Choice::Refuse(reason, message) => Err(Missing::Image(reason, message)),
    }
}

/// Checks that a path of the machine is what its type says, and makes what is to be made.
///
/// # Errors
/// In the kubelet's words.
pub fn host_path(host: &HostPath) -> Result<(), String> {
    let path = Path::new(&host.path);
    let text = |error: std::io::Error| format!("hostPath {}: {error}", host.path);
    let expected = match host.kind.as_str() {
        // As container runtimes do with a source that is not there.
        "" if !path.exists() => return make_dir(path).map_err(text),
        "" => return Ok(()),
        "DirectoryOrCreate" if !path.exists() => return make_dir(path).map_err(text),
        "FileOrCreate" if !path.exists() => {
            return fs::File::options().create(true).append(true).mode(0o644).open(path).map(drop).map_err(text);
        }
        "Directory" | "DirectoryOrCreate" => ("Directory", "directory"),
        "File" | "FileOrCreate" => ("File", "file"),
        "Socket" => ("Socket", "socket file"),
        "CharDevice" => ("CharDevice", "character device"),
        "BlockDevice" => ("BlockDevice", "block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    let Ok(found) = fs::metadata(path) else { return Err(format!("hostPath {} doesn't exist", host.path)) };
    let (kind, words) = expected;
    match type_of(found.file_type()) {
        found if found == kind => Ok(()),
        found => Err(format!("hostPath type check failed: {} is not a {words}, it's a {found}", host.path)),
    }
}

fn make_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn type_of(found: fs::FileType) -> &'static str {
    match found {
        found if found.is_dir() => "Directory",
        found if found.is_socket() => "Socket",
        found if found.is_char_device() => "CharDevice",
        found if found.is_block_device() => "BlockDevice",
        _ => "File",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_of_host_paths() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let check = |name: &str, kind: &str, expected: &str| {
            let path = if name.starts_with('/') { name.to_owned() } else { at(name) };
            let result = host_path(&HostPath { path: path.clone(), kind: kind.into() });
            assert_eq!(result.err().unwrap_or_default().replace(&path, "PATH"), expected, "{name} {kind}");
        };
        for (name, kind) in [("dir", "Directory"), ("file", "File"), ("socket", "Socket"), ("/dev/null", "CharDevice")]
        {
            check(name, kind, "");
            check(name, "", "");
            check("no", kind, "hostPath PATH doesn't exist");
        }
        check("file", "Directory", "hostPath type check failed: PATH is not a directory, it's a File");
        check("file", "DirectoryOrCreate", "hostPath type check failed: PATH is not a directory, it's a File");
        check("dir", "FileOrCreate", "hostPath type check failed: PATH is not a file, it's a Directory");
        check("dir", "Socket", "hostPath type check failed: PATH is not a socket file, it's a Directory");
        check("socket", "CharDevice", "hostPath type check failed: PATH is not a character device, it's a Socket");
        check("/dev/null", "BlockDevice", "hostPath type check failed: PATH is not a block device, it's a CharDevice");
        check("dir", "Disk", "Disk is an invalid volume type");
        check("new/er", "DirectoryOrCreate", "");
        check("made", "FileOrCreate", "");
        check("implied", "", "");
        assert!(Path::new(&at("new/er")).is_dir() && Path::new(&at("made")).is_file());
        assert!(Path::new(&at("implied")).is_dir());
    }

    #[test]
    fn places_of_volumes() {
        let check = |spec: Value, expected: &str| {
            let text = place(&json!({"spec": spec})).map_or_else(|error| error, |path| path.display().to_string());
            assert_eq!(text, expected);
        };
        check(json!({"hostPath": {"path": "/tmp"}}), "/tmp");
        check(json!({"local": {"path": "/tmp"}}), "/tmp");
        check(json!({"local": {"path": "/no/such"}}), "path \"/no/such\" does not exist");
        check(json!({"local": {"path": "/etc/passwd"}}), "path \"/etc/passwd\" is not a directory");
        let block = |local: &str| device(&json!({"spec": {"local": {"path": local}}})).unwrap_err();
        assert_eq!(block("/no/such"), "path \"/no/such\" does not exist");
        assert_eq!(block("/dev/null"), "path \"/dev/null\" is not a block device");
        check(json!({"nfs": {}}), "this node mounts persistent volumes of the kinds hostPath and local only");
    }
}
