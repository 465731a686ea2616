//! `cargo xtask faults`: installs the real clients and lets each meet every fault; `--write` updates `docs/faults.md`.

use std::process::ExitCode;

use crate::{cargo, clients};

/// Installs, builds and measures; arguments go to the measuring program.
pub fn run(args: &[String]) -> ExitCode {
    if !clients::install() {
        return ExitCode::FAILURE;
    }
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "kemudi-testkit", "--example", "steady", "--bin", "faults"]);
    let mut measure = cargo();
    measure.args(["run", "--quiet", "--package", "kemudi-testkit", "--bin", "faults", "--"]).args(args);
    for step in [&mut build, &mut measure] {
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
