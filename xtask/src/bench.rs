//! `cargo xtask bench`: builds for release and runs the measuring program of the testkit, which prints a table.

use std::process::ExitCode;

use crate::cargo;

/// Builds and measures; arguments go to the measuring program.
pub fn run(args: &[String]) -> ExitCode {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "kemudi"]);
    let mut measure = cargo();
    measure.args(["run", "--release", "--quiet", "--package", "kemudi-testkit", "--bin", "bench", "--"]).args(args);
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
