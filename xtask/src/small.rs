//! `cargo xtask small`: builds `kemudi-pod` as it is carried into pods, static and small, into `target/tools/bin`.

use std::path::{Path, PathBuf};
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
    let made = match has_source()? {
        true => build_for(&triple, Std::OfSource).or_else(|why| {
            eprintln!("kemudi-pod: {why}; without Rust's library of its source it will be larger");
            build_for(&triple, Std::AsItIs)
        }),
        false => build_for(&triple, Std::AsItIs),
    }?;
    let folder = target().join("tools/bin");
    let moved = std::fs::create_dir_all(&folder).and_then(|()| std::fs::copy(&made, folder.join("kemudi-pod")));
    moved.map_err(|e| format!("{}: {e}", made.display()))
}

/// Rust's own library: as it comes with the compiler, or built of its source with the program, which leaves out what nobody calls
/// and all words of panics: a quarter less.
#[derive(Clone, Copy, PartialEq)]
enum Std {
    AsItIs,
    OfSource,
}

fn build_for(triple: &str, library: Std) -> Result<PathBuf, String> {
    let mut command = cargo();
    command.args([
        "rustc",
        "--package",
        "kemudi-pod",
        "--bin",
        "kemudi-pod",
        "--features",
        "mute",
        "--profile",
        "small",
    ]);
    // With a target named, what runs while building is not static, which procedural macros cannot be.
    command.args(["--target", triple]);
    let mut flags = "-C target-feature=+crt-static".to_string();
    if library == Std::OfSource {
        // Cargo's and the compiler's options for that are not stable yet; the compiler that is here takes them with this.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.args(["-Z", "build-std=std,panic_abort", "-Z", "build-std-features=optimize_for_size"]);
        flags.push_str(" -Z unstable-options -C panic=immediate-abort -Z location-detail=none");
    }
    // The addresses that are fixed at the start take a tenth of the room this way.
    command.args(["--", "-C", "link-arg=-Wl,-z,pack-relative-relocs"]);
    let script = workspace().join("crates/pod/small.ld");
    command.args(["-C", &format!("link-arg=-Wl,-T,{}", script.display()), "-C", "link-arg=-Wl,--no-eh-frame-hdr"]);
    // Cryptography is C for a part; it calls nothing that a C library would have to be compiled for.
    let compiler = format!("CC_{}", triple.replace('-', "_"));
    if std::env::var_os(&compiler).is_none() {
        command.env(compiler, "cc");
    }
    let status = command.env("RUSTFLAGS", flags).status().map_err(|e| e.to_string())?;
    match status.success() {
        true => Ok(target().join(triple).join("small/kemudi-pod")),
        false => Err(format!("cargo ended with {status}")),
    }
}

/// Whether the source of Rust's own library is there, or can be had.
fn has_source() -> Result<bool, String> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock");
    if !source.is_file() {
        rustup(&["component", "add", "rust-src"]);
    }
    let there = source.is_file();
    if !there {
        eprintln!("kemudi-pod: larger than it could be, as the source of Rust's library is not there");
    }
    Ok(there)
}

/// Where there is no rustup, it does nothing.
fn rustup(words: &[&str]) {
    eprintln!("kemudi-pod: rustup {}", words.join(" "));
    let _ = Command::new("rustup").args(words).stdout(Stdio::null()).status();
}

/// What it is built for: this machine with musl, whose C library takes a tenth of the room of the usual one, where Rust's library for
/// that is there or can be had; else with the usual one.
fn triple() -> Result<String, String> {
    let said = rustc(&["-vV"])?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc does not say its host")?;
    let musl = host.replace("-linux-gnu", "-linux-musl");
    if !is_there(&musl) {
        rustup(&["target", "add", &musl]);
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
