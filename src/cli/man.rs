//! `kubeboot man`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, Globals};
use crate::host::fs::{make_dirs, write_file};
use crate::ui;

/// Write the manual pages
///
/// One page for each command, kubeboot.1, kubeboot-init.1, kubeboot-certs-renew.1 and so on, in sections of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot man /usr/local/share/man/man1 && man kubeboot-init\n\n\
    Exit codes: 0 done, 1 any error.")]
pub struct Args {
    /// Directory to write them into; made where it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the pages.
pub fn run(args: Args, _: &Globals) -> anyhow::Result<ExitCode> {
    make_dirs(&args.dir, 0o755)?;
    let mut command = Cli::command();
    command.build();
    let count = write_pages(&command, &args.dir)?;
    ui::print(&format!("Wrote {count} manual pages into {}\n", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of `command` and those of the commands below it; returns how many.
fn write_pages(command: &clap::Command, dir: &Path) -> anyhow::Result<usize> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).with_context(|| format!("cannot write the page of {name}"))?;
    write_file(&dir.join(format!("{name}.1")), &page, 0o644)?;
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    let counts = below.map(|command| write_pages(command, dir));
    Ok(1 + counts.sum::<anyhow::Result<usize>>()?)
}
