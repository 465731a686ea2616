//! `cargo xtask small`: builds `kemudi-pod` as it is carried into pods, static and small, into `target/tools/bin`.

use std::process::{Command, ExitCode};

use crate::{cargo, target, workspace};

/// Builds it and says how large it is.
pub fn run() -> ExitCode {
    match build() {
        Ok(bytes) => {
            println!("target/tools/bin/kemudi-pod: {bytes} bytes");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("kemudi-pod: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Builds it; its size in bytes.
pub fn build() -> Result<u64, String> {
    let triple = triple()?;
    let mut command = cargo();
    // With a target named, what runs while building is not static, which procedural macros cannot be.
    command.args([
        "rustc",
        "--package",
        "kemudi-pod",
        "--bin",
        "kemudi-pod",
        "--profile",
        "small",
        "--target",
        &triple,
    ]);
    // The addresses that are fixed at the start take a tenth of the room this way.
    command.args(["--", "-C", "link-arg=-Wl,-z,pack-relative-relocs"]);
    let script = workspace().join("crates/pod/small.ld");
    command.args(["-C", &format!("link-arg=-Wl,-T,{}", script.display()), "-C", "link-arg=-Wl,--no-eh-frame-hdr"]);
    let status = command.env("RUSTFLAGS", "-C target-feature=+crt-static").status().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("cargo ended with {status}"));
    }
    let (made, folder) = (target().join(&triple).join("small/kemudi-pod"), target().join("tools/bin"));
    let moved = std::fs::create_dir_all(&folder).and_then(|()| std::fs::copy(&made, folder.join("kemudi-pod")));
    moved.map_err(|e| format!("{}: {e}", made.display()))
}

/// What this machine's compiler builds for.
fn triple() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("-vV").output().map_err(|e| format!("rustc: {e}"))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_string).ok_or_else(|| "rustc does not say its host".into())
}
