//! A container runtime for one test: containerd and runc out of Debian's packages, which `cargo xtask clients` unpacks under
//! `target/tools/containerd` and installs nowhere. Each has its own folder for state, images, sockets and network configuration;
//! snapshots are overlays. No registry is asked: images are imported from archives of this machine's own programs, the one for pods
//! too (`sleep` for ever). What it runs is ended with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::command::{RUN_LIMIT, run, spawn, target};
use crate::image;

const PAUSE: &str = "kemudi.test/pause:1";
/// How long it may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running containerd. Killed when it is dropped, with all that it runs.
pub struct Containerd {
    child: Child,
    folder: TempDir,
}

impl Containerd {
    /// Starts one; `None` where it cannot be, which says why.
    #[track_caller]
    pub fn start() -> Option<Containerd> {
        if let Some(why) = missing() {
            eprintln!("skipped: {why}");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kemudi-cri-").tempdir().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("cni/conf")).expect("a folder of our own");
        // The runtime's own programs and what kemudi puts beside them.
        let programs = folder.path().join("cni/bin");
        fs::create_dir_all(&programs).expect("a folder of our own");
        std::os::unix::fs::symlink(tools().join("usr/lib/cni/loopback"), programs.join("loopback")).expect("our own");
        let config = folder.path().join("config.toml");
        fs::write(&config, configuration(folder.path())).expect("a folder of our own");
        let log = fs::File::create(folder.path().join("log")).expect("a folder of our own");
        let mut command = Command::new(tools().join("usr/bin/containerd"));
        command.arg("--config").arg(config).env("PATH", path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = spawn(&mut command);
        let containerd = Containerd { child, folder };
        let began = Instant::now();
        while containerd.ctr("version").is_err() {
            assert!(began.elapsed() < START_LIMIT, "containerd does not answer:\n{}", containerd.log());
            std::thread::yield_now();
        }
        let archive = containerd.folder.path().join("pause.tar");
        let config = json!({"Env": ["PATH=/bin"], "Cmd": ["sleep", "infinity"]});
        image::save(&archive, PAUSE, &["sleep"], &[], &config);
        containerd.import(&archive, PAUSE);
        Some(containerd)
    }

    /// For `--container-runtime-endpoint`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Imports an archive, and waits until pods can have the image with this whole name.
    #[track_caller]
    pub fn import(&self, archive: &Path, name: &str) {
        self.ctr(&format!("images import {}", archive.display())).expect("an image");
        let began = Instant::now();
        let known = |images: &str| images.lines().any(|line| line.starts_with(name) && line.contains("managed"));
        while !known(&self.ctr("images ls").expect("it answers")) {
            assert!(began.elapsed() < START_LIMIT, "{name} never came:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// What containerd's own client says about pods.
    ///
    /// # Errors
    /// What it complains of.
    pub fn ctr(&self, words: &str) -> Result<String, String> {
        let mut ctr = Command::new(tools().join("usr/bin/ctr"));
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(words.split(' '));
        let finished = run(&mut ctr, "", RUN_LIMIT);
        if finished.code == 0 { Ok(finished.stdout) } else { Err(finished.stderr) }
    }

    /// What there is of containers, tasks, shims, network namespaces and mounts; empty where nothing is left of any pod.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for what in ["containers ls -q", "tasks ls -q", "snapshots ls"] {
            // Images are snapshots too, committed ones.
            let told = self.ctr(what).expect("it answers");
            let lines = told.lines().filter(|line| !what.starts_with("snapshots") || line.contains("Active"));
            left.extend(lines.map(|line| format!("{what}: {line}")));
        }
        let mounts = mounts_in(self.folder.path());
        left.extend(mounts.into_iter().map(|point| format!("mount: {}", point.display())));
        left
    }

    /// What it wrote, for messages.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Its shims outlive it, and whoever is in them.
        for id in self.ctr("tasks ls -q").unwrap_or_default().lines() {
            let _ = self.ctr(&format!("tasks rm --force {id}"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for point in mounts_in(self.folder.path()) {
            let _ = Command::new("umount").arg("--lazy").arg(point).status();
        }
    }
}

/// Why there can be none here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("containerd wants root".into());
    }
    let containerd = tools().join("usr/bin/containerd");
    let overlays = fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay");
    if !containerd.exists() {
        return Some(format!(
            "{} is not there: `cargo xtask clients` takes it from Debian's packages",
            containerd.display()
        ));
    }
    (!overlays).then(|| "this kernel has no overlays".into())
}

fn tools() -> PathBuf {
    target().join("tools/containerd")
}

/// Where containerd finds its shim and runc.
fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{0}/usr/bin:{0}/usr/sbin:{own}", tools().display())
}

/// Mount points below a folder, the last mounted first.
fn mounts_in(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

fn configuration(folder: &Path) -> String {
    let (folder, runc) = (folder.display(), tools().join("usr/sbin/runc"));
    let (runc, path) = (runc.display(), "plugins.\"io.containerd.grpc.v1.cri\"");
    // Without root's every power scores for the want of memory cannot be made less.
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd.ttrpc"
[{path}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[{path}.cni]
  bin_dir = "{folder}/cni/bin"
  conf_dir = "{folder}/cni/conf"
[{path}.containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[{path}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{path}.containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  Root = "{folder}/runc"
"#
    )
}
