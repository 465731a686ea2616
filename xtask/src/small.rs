//! `cargo xtask small`: builds `kemudi-pod` as it is carried into pods, static and small, into `target/tools/bin`.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

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
    // Cryptography is C for a part; it calls nothing that a C library would have to be compiled for.
    let compiler = format!("CC_{}", triple.replace('-', "_"));
    if std::env::var_os(&compiler).is_none() {
        command.env(compiler, "cc");
    }
    let status = command.env("RUSTFLAGS", "-C target-feature=+crt-static").status().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("cargo ended with {status}"));
    }
    let (made, folder) = (target().join(&triple).join("small/kemudi-pod"), target().join("tools/bin"));
    let moved = std::fs::create_dir_all(&folder).and_then(|()| std::fs::copy(&made, folder.join("kemudi-pod")));
    moved.map_err(|e| format!("{}: {e}", made.display()))
}

/// What it is built for: this machine with musl, whose C library takes a tenth of the room of the usual one, where Rust's library for
/// that is there or can be had; else with the usual one.
fn triple() -> Result<String, String> {
    let said = rustc(&["-vV"])?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc does not say its host")?;
    let musl = host.replace("-linux-gnu", "-linux-musl");
    if !is_there(&musl) {
        eprintln!("kemudi-pod: rustup target add {musl}");
        let _ = Command::new("rustup").args(["target", "add", &musl]).stdout(Stdio::null()).status();
    }
    let there = is_there(&musl);
    if !there {
        eprintln!("kemudi-pod: built for {host}, and larger, as Rust's library for {musl} is not there");
    }
    Ok(if there { musl } else { host.to_string() })
}

/// Whether Rust's own library is there for this.
fn is_there(triple: &str) -> bool {
    rustc(&["--print", "target-libdir", "--target", triple]).is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

fn rustc(args: &[&str]) -> Result<String, String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(program).args(args).output().map_err(|e| format!("rustc: {e}"))?;
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}
