//! `cargo xtask bench`: builds for release and runs the measuring program of the testkit, which prints a table.

use std::process::ExitCode;

use crate::{all_of, cargo};

/// Builds and measures; arguments go to the measuring program.
pub fn run(args: &[String]) -> ExitCode {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "kemudi"]);
    let mut measure = cargo();
    measure.args(["run", "--release", "--quiet", "--package", "kemudi-testkit", "--bin", "bench", "--"]).args(args);
    all_of([&mut build, &mut measure])
}
