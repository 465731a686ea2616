//! `cargo xtask faults`: installs the real clients and lets each meet every fault; `--write` updates `docs/faults.md`.

use std::process::ExitCode;

use crate::{all_of, cargo, clients};

/// Installs, builds and measures; arguments go to the measuring program.
pub fn run(args: &[String]) -> ExitCode {
    if !clients::install() {
        return ExitCode::FAILURE;
    }
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "kemudi-testkit", "--example", "steady", "--bin", "faults"]);
    let mut measure = cargo();
    measure.args(["run", "--quiet", "--package", "kemudi-testkit", "--bin", "faults", "--"]).args(args);
    all_of([&mut build, &mut measure])
}
