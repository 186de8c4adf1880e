//! The program: parses the command line, runs it, and turns an error into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubeboot::cli::main(std::env::args_os())
}
