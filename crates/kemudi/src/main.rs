//! The binary: becomes the pods' spawner when it is started as one, else reads the command line, runs one command, and
//! turns its outcome into an exit code. Holds no logic of its own.

mod cli;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    node::spawner_main();
    cli::main()
}
