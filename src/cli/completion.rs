//! `kubeboot completion`.

use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, Globals};
use crate::ui;

/// Print a shell completion script
///
/// Prints a script that lets the shell complete kubeboot's commands and flags.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    source <(kubeboot completion bash)                                        # this shell\n  \
    kubeboot completion bash > /etc/bash_completion.d/kubeboot                # every bash\n  \
    kubeboot completion zsh > \"${fpath[1]}/_kubeboot\"                         # every zsh\n  \
    kubeboot completion fish > ~/.config/fish/completions/kubeboot.fish       # every fish\n\n\
    Exit codes: 0 done, 1 any error.")]
pub struct Args {
    /// The shell to complete for
    #[arg(value_enum)]
    shell: Kind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn run(args: Args, _: &Globals) -> anyhow::Result<ExitCode> {
    let shell = match args.shell {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubeboot", &mut script);
    ui::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
