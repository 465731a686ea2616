//! `cargo xtask kube-rs`: builds the tests that kube-rs' published crates bring with them, and puts them under `target/tools/kube-rs/`,
//! where the testkit's tests find them. Their sources are copied from Cargo's registry into `target`, never into the tree.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use crate::{cargo, target, workspace};

/// The crates whose tests want a cluster.
const CRATES: [&str; 3] = ["kube", "kube-client", "kube-runtime"];
/// What of them is tested: all that their cluster tests need, on the TLS library that is built for the client's program anyway.
const FEATURES: [&str; 15] = [
    "kube/client",
    "kube/rustls-tls",
    "kube/aws-lc-rs",
    "kube/derive",
    "kube/runtime",
    "kube/ws",
    "kube/jsonpatch",
    "kube/unstable-client",
    "kube-client/client",
    "kube-client/rustls-tls",
    "kube-client/aws-lc-rs",
    "kube-client/jsonpatch",
    "kube-client/ws",
    "kube-client/unstable-client",
    "kube-client/kubelet-debug",
];
/// Publishing takes out what they use of each other in tests only.
const TESTS_USE: &str = "
[dev-dependencies.kube]
path = \"../kube\"
default-features = false
features = [\"client\", \"rustls-tls\", \"aws-lc-rs\", \"derive\", \"runtime\", \"ws\"]
";

/// Copies, builds and puts the programs in their place.
pub fn run() -> ExitCode {
    match install() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("kube-rs: {why}");
            ExitCode::FAILURE
        }
    }
}

fn install() -> Result<(), String> {
    let ours = workspace().join("crates/testkit/clients/rust/Cargo.toml");
    let folder = target().join("kube-rs");
    let mut manifest = "[workspace]\nresolver = \"3\"\nmembers = [".to_owned();
    let mut patches = "\n[patch.crates-io]\n".to_owned();
    for package in CRATES {
        let from = source(&ours, package)?;
        let to = folder.join(package);
        copy(&from, &to)?;
        // The published one is for all; the tests' own manifest is made from it.
        let path = to.join("Cargo.toml");
        let mut text = std::fs::read_to_string(from.join("Cargo.toml")).map_err(told(&path))?;
        if package != "kube" {
            text.push_str(TESTS_USE);
        }
        std::fs::write(&path, text).map_err(told(&path))?;
        let _ = write!(manifest, "\"{package}\", ");
        let _ = writeln!(patches, "{package} = {{ path = \"{package}\" }}");
    }
    manifest.push_str("]\n\n[profile.dev]\ndebug = false\nincremental = false\n");
    let path = folder.join("Cargo.toml");
    std::fs::write(&path, manifest + &patches).map_err(told(&path))?;
    let mut build = cargo();
    build
        .args(["test", "--no-run", "--lib", "--message-format", "json-render-diagnostics", "--manifest-path"])
        .arg(path);
    // Where the client's program is built too: most of what both need is the same.
    build.arg("--target-dir").arg(target().join("tools/rust"));
    build.arg("--no-default-features").arg("--features").arg(FEATURES.join(","));
    for package in CRATES {
        build.args(["--package", package]);
    }
    let built = build.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    if !built.status.success() {
        return Err(format!("cargo ended with {}", built.status));
    }
    let programs = target().join("tools/kube-rs");
    std::fs::create_dir_all(&programs).map_err(told(&programs))?;
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        if let Some(program) = message["executable"].as_str() {
            let name = message["target"]["name"].as_str().unwrap_or_default().replace('_', "-");
            let to = programs.join(&name);
            std::fs::copy(program, &to).map_err(told(&to))?;
            eprintln!("kube-rs: {name} is in {}", to.display());
        }
    }
    Ok(())
}

/// Where Cargo keeps the sources of a package that the client's program uses.
fn source(manifest: &Path, package: &str) -> Result<PathBuf, String> {
    let mut metadata = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    metadata.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]).arg(manifest);
    let told = metadata.stderr(Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    let all: Value = serde_json::from_slice(&told.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let mut packages = all["packages"].as_array().into_iter().flatten();
    let found = packages.find(|found| found["name"] == package).and_then(|found| found["manifest_path"].as_str());
    let found = found.ok_or_else(|| format!("{} does not use {package}", manifest.display()))?;
    Ok(Path::new(found).parent().unwrap_or(Path::new("/")).to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    for entry in walkdir::WalkDir::new(from).into_iter().filter_map(Result::ok) {
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        let done = match entry.file_type().is_dir() {
            true => std::fs::create_dir_all(&target),
            // A file that is as it was keeps its time, so that nothing is built twice.
            false if std::fs::read(&target).ok() == std::fs::read(entry.path()).ok() => Ok(()),
            false => std::fs::copy(entry.path(), &target).map(drop),
        };
        done.map_err(told(&target))?;
    }
    Ok(())
}

fn told(path: &Path) -> impl Fn(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}
