//! `kubeboot upgrade diff`.

use std::process::ExitCode;

use serde::Serialize;

use super::apply::explain;
use super::flags::{Also, CommandFlags, Section, To};
use crate::cli::Globals;
use crate::error::chain;
use crate::ui::{self, Output};
use crate::workflow::upgrade::diff::Change;
use crate::workflow::upgrade::run::{Parts as Machine, changes};
use crate::workflow::upgrade::table::{PHASES, SelectedPhases as Parts};

/// Show what an upgrade would change, as unified diffs
///
/// Of each component's manifest, of the kubelet's settings, and of the config maps kubeadm-config and kubelet-config where the
/// cluster answers. Coloured on a terminal, unless NO_COLOR is set.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 printed, whether anything would change or not, 1 any error.")]
pub struct Args {
    #[command(flatten)]
    to: To,
    /// Lines of context around each change [default: 3]
    #[arg(short, long, value_name = "N")]
    context_lines: Option<usize>,
    /// How to print: text, json or yaml.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UpgradeDiff<'a> {
    kind: &'static str,
    api_version: &'static str,
    changes: &'a [Change],
}

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let Args { to, context_lines, output } = args;
    let mut lines = 0;
    let command = "kubeboot upgrade diff".to_owned();
    let given = CommandFlags { command, to, also: Also::default(), dry_run: None, context_lines };
    let wanted = given.wanted(globals, |spec| {
        lines = spec.diff.context_lines;
        Section::looking(spec.diff.kubernetes_version, &spec.apply)
    })?;
    let paths = globals.paths();
    let machine = Machine::of_machine(&paths, Some(wanted.kubeconfig.clone()), ui::reporter(Output::Text));
    let goal = wanted.goal(Parts::of(&PHASES, &[])?)?;
    let (all, unknown) = changes(&paths, &machine, &goal, lines).await.map_err(explain)?;
    if let Some(error) = unknown {
        tracing::warn!("the config maps of the cluster are left out: {}", chain(&*error));
    }
    match output {
        Output::Text => {
            let text: String = all.iter().map(|change| change.diff.as_str()).collect();
            ui::print(&ui::colored_diff(&text))?;
        }
        output => {
            let value = UpgradeDiff { kind: "UpgradeDiff", api_version: super::OUTPUT_API, changes: &all };
            ui::print_value(output, &value)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
