//! The binary: becomes the pods' spawner or a container runtime's network plugin when it is started as one, else reads the command line, runs one command, and
//! turns its outcome into an exit code. Holds no logic of its own.

mod allocator;
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::tune();
    node::spawner_main();
    if let Some(code) = node::plugin_main() {
        return code;
    }
    cli::main()
}
