use std::process::ExitCode;

fn main() -> ExitCode {
    kubeboot::cli::main(std::env::args_os())
}
