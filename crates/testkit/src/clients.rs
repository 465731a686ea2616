//! The real clients that tests run, as `cargo xtask test` installs them under `target/tools/`. They are never changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{target, workspace};

/// Set by who cannot install the clients: the tests that need them then say so and pass.
pub const SKIP: &str = "KEMUDI_SKIP_CLIENTS";

/// Whether tests with real clients are switched off by hand.
pub fn skipped() -> bool {
    let skipped = std::env::var(SKIP).is_ok_and(|value| value == "1");
    if skipped {
        eprintln!("{SKIP}=1: no real client is run");
    }
    skipped
}

/// kubectl, built from its Go module.
pub fn kubectl() -> PathBuf {
    tool("bin/kubectl")
}

/// `kemudi-pod`, as `cargo xtask small` builds it.
pub fn kemudi_pod() -> PathBuf {
    tool("bin/kemudi-pod")
}

/// A Go program that lists the pods of its namespace with client-go (`clients/go/pods`).
pub fn go_pods() -> PathBuf {
    tool("bin/pods")
}

/// A Python with the official client.
pub fn python() -> PathBuf {
    tool("python/bin/python")
}

/// The tutorial's lines (`clients/python/tutorial.py`).
pub fn python_tutorial() -> PathBuf {
    workspace().join("crates/testkit/clients/python/tutorial.py")
}

/// A JavaScript program that lists the pods of its namespace with the official client (`clients/javascript/pods.js`).
pub fn javascript_pods() -> PathBuf {
    tool("javascript/pods.js")
}

/// A Go program that makes client-go's calls (`clients/go/calls`).
pub fn go_calls() -> PathBuf {
    tool("bin/calls")
}

/// A registry of container images with one image in it (`clients/go/registry`).
pub fn registry() -> PathBuf {
    tool("bin/registry")
}

/// A Python program that makes the official client's calls (`clients/python/calls.py`).
pub fn python_calls() -> PathBuf {
    workspace().join("crates/testkit/clients/python/calls.py")
}

/// A Python program that uses the official client's streams (`clients/python/streams.py`).
pub fn python_streams() -> PathBuf {
    workspace().join("crates/testkit/clients/python/streams.py")
}

/// A Go program that uses client-go's streams (`clients/go/streams`).
pub fn go_streams() -> PathBuf {
    tool("bin/streams")
}

/// A JavaScript program that uses the official client's streams (`clients/javascript/streams.js`).
pub fn javascript_streams() -> PathBuf {
    tool("javascript/streams.js")
}

/// A Python program that verifies a token of the cluster with PyJWT (`clients/python/verify.py`).
pub fn python_verify() -> PathBuf {
    workspace().join("crates/testkit/clients/python/verify.py")
}

/// A JavaScript program that makes the official client's calls (`clients/javascript/calls.js`).
pub fn javascript_calls() -> PathBuf {
    tool("javascript/calls.js")
}

/// Where `java` finds the programs that make the official client's calls (`clients/java`: `Calls`, `Streams`), and the client.
pub fn java_class_path() -> PathBuf {
    let (classes, jars) = (tool("java/classes"), tool("java/lib"));
    format!("{}:{}/*", classes.display(), jars.display()).into()
}

/// A Rust program that makes kube-rs' calls (`clients/rust`).
pub fn rust_calls() -> PathBuf {
    tool("rust/debug/calls")
}

/// client-go at steady work (`clients/go/steady`).
pub fn go_steady() -> PathBuf {
    tool("bin/steady")
}

/// The official Python client at steady work (`clients/python/steady.py`).
pub fn python_steady() -> PathBuf {
    workspace().join("crates/testkit/clients/python/steady.py")
}

/// kube-rs at steady work (`clients/rust/src/bin/steady.rs`).
pub fn rust_steady() -> PathBuf {
    tool("rust/debug/steady")
}

/// `curl` of the machine, quiet but for errors.
pub fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20"]);
    curl
}

fn tool(path: &str) -> PathBuf {
    let path = target().join("tools").join(path);
    assert!(
        Path::new(&path).exists(),
        "{} is not there: run `cargo xtask test`, which installs it, or set {SKIP}=1 to go without",
        path.display()
    );
    path
}
