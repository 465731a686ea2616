//! `cargo xtask bench`: builds for release and runs the measuring program of the testkit, which prints a table.

use std::process::{Command, ExitCode};

use crate::{all_of, cargo, target};

/// Builds and measures; arguments go to the measuring program.
pub fn run(args: &[String]) -> ExitCode {
    let mut build = cargo();
    // Both at once: one after another they would be built with other features of what they share, all of it twice.
    build.args(["build", "--release", "--package", "kemudi", "--package", "kemudi-testkit"]);
    build.args(["--bin", "kemudi", "--bin", "bench"]);
    let built = target().join("release");
    let mut measure = Command::new(built.join("bench"));
    measure.env("KEMUDI_BIN", built.join("kemudi")).args(args);
    all_of([&mut build, &mut measure])
}
