//! A container image of this machine's own programs, as `docker save` writes one: small, made in a moment, and nothing has to be
//! fetched for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Writes an archive of an image with these programs (by name or path, and what they are linked with) in `/bin`, some files, and a configuration
/// (`Env`, `Cmd`, `User`..). The programs are the lower of its two layers.
///
/// Panics where a program is not there.
#[track_caller]
pub fn save(to: &Path, name: &str, programs: &[&str], files: &[(&str, &str)], config: &Value) {
    let mut below: Vec<(String, Vec<u8>)> = Vec::new();
    for program in programs {
        let path = found(program);
        let name = path.file_name().expect("a program").to_string_lossy();
        below.push((format!("bin/{name}"), read(&path)));
        let linked = Command::new("ldd").arg(&path).output().expect("ldd is there");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        for path in linked.split_whitespace().filter(|word| word.starts_with('/')) {
            below.push((path.trim_start_matches('/').to_owned(), read(Path::new(path))));
        }
    }
    below.sort();
    below.dedup_by(|a, b| a.0 == b.0);
    let above = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let layers = [archive(below), archive(above)];
    let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let rootfs = json!({"type": "layers", "diff_ids": ids});
    let description = json!({"architecture": architecture, "os": "linux", "config": config, "rootfs": rootfs});
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["0.tar", "1.tar"]}]);
    let [below, above] = layers;
    let whole = archive(vec![
        ("config.json".into(), description.to_string().into_bytes()),
        ("0.tar".into(), below),
        ("1.tar".into(), above),
        ("manifest.json".into(), manifest.to_string().into_bytes()),
    ]);
    std::fs::write(to, whole).expect("a folder of our own");
}

#[track_caller]
fn found(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|place| place.is_file()).unwrap_or_else(|| panic!("{program} is not on this machine"))
}

#[track_caller]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn archive(files: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, path, bytes.as_slice()).expect("memory");
    }
    archive.into_inner().expect("memory")
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
