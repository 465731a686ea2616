//! The binary: reads the command line, runs one command, turns its outcome into an exit code. Holds no logic of its own.

mod cli;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
