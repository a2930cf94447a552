//! The `orchestrator` program: parses, runs, exits. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator::cli::main(std::env::args_os())
}
