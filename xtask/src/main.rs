//! Project tasks: `cargo xtask test`, `clients`, `small`, `bench`, `faults`, `kube-rs`, `fuzz`, `schema`. Never part of the product.

mod bench;
mod beside;
mod clients;
mod faults;
mod fuzz;
mod kube_rs;
mod operators;
mod schema;
mod small;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND
  test [CARGO TEST ARGS]  install what the tests need under target/tools, run them all
  clients [NAME..]        only install what the tests need, or some of it: python, javascript, java, rust, go, containerd
  small                   build kemudi-pod, static and small, into target/tools/bin
  bench [--write | --load | --creates | --watch | --pods [--write] | --client [--write]]
                          build for release, measure, print a table; --write updates docs/benchmarks.md;
                          --client measures the client library beside kube-rs instead
  faults [--write] [FAULT..]
                          let every client meet every fault, print tables; --write updates docs/faults.md
  kube-rs                 build the tests of kube-rs' own crates that want a cluster, which the testkit then runs
  fuzz [TARGET..] [--seconds N]
                          let libFuzzer look for inputs that break a target, 180 seconds each
  schema [--check]        write the tables of the built-in kinds (crates/kinds/schema) from facts of a Kubernetes version";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    match command.as_str() {
        "test" => test::run(&args),
        "clients" => clients::run(&args),
        "small" => small::run(),
        "bench" if args.first().is_some_and(|arg| arg == "--client") => beside::run(&args[1..]),
        "bench" => bench::run(&args),
        "faults" => faults::run(&args),
        "kube-rs" => kube_rs::run(),
        "fuzz" => fuzz::run(&args),
        "schema" => schema::run(&args),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Runs these in turn, until one fails; its exit code is passed on.
fn all_of<const N: usize>(steps: [&mut Command; N]) -> ExitCode {
    for step in steps {
        match step.status() {
            Ok(status) if status.success() => {}
            Ok(status) => return ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
            Err(error) => {
                eprintln!("cargo: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The folder of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace")
}

/// The folder that cargo builds into: this program lies in `target/<profile>`.
fn target() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows itself");
    own.ancestors().nth(2).expect("target/<profile>/xtask").to_owned()
}

/// Cargo, the one that runs this.
fn cargo() -> std::process::Command {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).arg("--color").arg("auto");
    cargo
}
