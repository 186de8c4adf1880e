//! `kubeboot upgrade plan|diff|apply|node|rollback|status`.

mod apply;
mod flags;
mod node;
mod status;

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use self::apply::{apply_it, roll_back};
use self::flags::{Also, CommandFlags, How, Section, To};
use super::Globals;
use super::phases::{self, table};
use crate::release::UpgradePolicy;
use crate::ui::{self, Output};
use crate::workflow::upgrade::diff::unified;
use crate::workflow::upgrade::plan::Step;
use crate::workflow::upgrade::prepare::{Prepared, prepare};
use crate::workflow::upgrade::table::{OPTIONS, PHASES, SelectedPhases as Parts};

/// Move the running control plane to another version or image, one component after the other.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubeboot upgrade plan v1.36.3
  kubeboot upgrade apply v1.36.3
  kubeboot upgrade apply --image kube-scheduler=registry.example.com/kube-scheduler:v1.36.3-fix
  kubeboot upgrade node          # on a node that the cluster's control plane has gone ahead of
  kubeboot upgrade status --watch
  kubeboot upgrade rollback

The node agent carries an upgrade out, so it goes on when this command ends. Every image is fetched before anything is touched. Then etcd, kube-apiserver, kube-controller-manager and kube-scheduler
are replaced in this order, each with new certificates, each as soon as the agent reports the one before healthy. The
node's kubelet settings and the cluster's objects follow. If anything fails, everything old is put back; an etcd that has
served stays where its data would not go back without loss. Backups stay below /etc/kubernetes/tmp.")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Show which component would get which image.
    #[command(after_help = "Exit codes: 0 printed, 1 any error.")]
    Plan {
        #[command(flatten)]
        to: Box<To>,
        /// How to print: text, json or yaml.
        #[arg(short, long, default_value = "text", value_name = "FORMAT")]
        output: Output,
    },
    /// Show how the manifests would change, as a unified diff.
    #[command(after_help = "Exit codes: 0 printed, whether anything would change or not, 1 any error.")]
    Diff {
        #[command(flatten)]
        to: Box<To>,
        /// Lines of context around each change [default: 3]
        #[arg(short, long, value_name = "N")]
        context_lines: Option<usize>,
    },
    /// Replace the components, and bring the node's settings and the cluster's objects to the version.
    Apply(Box<ApplyArgs>),
    /// Bring this node to the version that the cluster has: a control-plane node's components, or a worker's kubelet
    /// settings.
    Node(Box<node::Args>),
    /// Take the last upgrade back: the one that was cut off, or the one that succeeded.
    ///
    /// etcd goes back too where that loses nothing: by its own downgrade, where its minor version has changed and both know
    /// how (3.6 and newer). Else the new etcd stays, with everything else old, and that is said.
    #[command(after_help = "Exit codes: 0 everything old is back and healthy, 1 any error.")]
    Rollback {
        /// Put the copy of etcd's data back that the upgrade has made: every write since then is lost
        #[arg(long)]
        etcd_copy: bool,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        common: flags::Common,
    },
    Status(status::Args),
    /// Carry out what was ordered: the node agent runs this.
    #[command(hide = true)]
    CarryOut,
}

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 upgraded (or nothing to do), 2 something failed and everything is as it was before (or \
                  old, with a new etcd: it says so), 3 something failed and going back failed too, 1 any other error."
)]
struct ApplyArgs {
    #[command(subcommand)]
    command: Option<phases::Sub<ApplyPhases>>,
    #[command(flatten)]
    flags: ApplyFlags,
}

table!(
    /// The phases of `upgrade apply`.
    ApplyPhases,
    ApplyFlags,
    PHASES,
    OPTIONS,
    phase_help()
);

fn phase_help() -> String {
    format!(
        "Phases:\n{}\nExit codes: 0 done, 2 everything is as it was before, 3 going back failed too, 1 any error.",
        PHASES.help()
    )
}

#[derive(Debug, Clone, clap::Args)]
struct ApplyFlags {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    also: Also,
    #[command(flatten)]
    how: How,
}

/// One row of `upgrade plan`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    component: &'static str,
    current: String,
    target: String,
    changed: bool,
}

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.command {
        Sub::Plan { to, output } => plan(*to, output, globals),
        Sub::Diff { to, context_lines } => diff(*to, context_lines, globals),
        Sub::Apply(args) => {
            let (parts, command, flags) = match args.command {
                None => (None, "kubeboot upgrade apply".to_owned(), args.flags),
                Some(phases::Sub::Phase(phase)) => {
                    let parts = Parts::one(&PHASES, &phase.name, phase.sub.as_deref())?;
                    let words = phase.sub.map_or_else(|| phase.name.clone(), |sub| format!("{} {sub}", phase.name));
                    (Some(parts), format!("kubeboot upgrade apply phase {words}"), phase.flags)
                }
            };
            apply_command(parts, command, flags, globals).await
        }
        Sub::Node(args) => node::run(*args, globals).await,
        Sub::Status(args) => status::run(args, globals).await,
        Sub::CarryOut => status::carry(globals).await,
        Sub::Rollback { etcd_copy, how, common } => roll_back(globals, &how, common.kubeconfig, etcd_copy).await,
    }
}

fn plan(to: To, output: Output, globals: &Globals) -> anyhow::Result<ExitCode> {
    let command = "kubeboot upgrade apply".to_owned();
    let given = CommandFlags { command, to, also: Also::default(), dry_run: None, context_lines: None };
    let wanted = given.wanted(globals, |spec| {
        let mut section = Section::looking(spec.plan.kubernetes_version, &spec.apply);
        section.policy.experimental = spec.plan.allow_experimental_upgrades;
        section.policy.release_candidate = spec.plan.allow_rc_upgrades;
        section.common.etcd_upgrade = spec.plan.etcd_upgrade;
        section.print_config = spec.plan.print_config;
        section
    })?;
    let mut prepared = prepare(&globals.paths(), &wanted.goal(Parts::of(&PHASES, &[])?)?)?;
    prepared.warnings.extend(wanted.warnings.iter().cloned());
    if wanted.section.print_config && output == Output::Text {
        ui::print(&apply::configuration(&prepared.spec)?)?;
    }
    show_plan(&prepared, &wanted, output)
}

fn diff(to: To, context_lines: Option<usize>, globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut lines = 0;
    let command = "kubeboot upgrade diff".to_owned();
    let given = CommandFlags { command, to, also: Also::default(), dry_run: None, context_lines };
    let wanted = given.wanted(globals, |spec| {
        lines = spec.diff.context_lines;
        Section::looking(spec.diff.kubernetes_version, &spec.apply)
    })?;
    let prepared = prepare(&globals.paths(), &wanted.goal(Parts::of(&PHASES, &[])?)?)?;
    ui::print(&unified(&prepared.steps, lines))?;
    Ok(ExitCode::SUCCESS)
}

async fn apply_command(
    parts: Option<Parts>,
    command: String,
    flags: ApplyFlags,
    globals: &Globals,
) -> anyhow::Result<ExitCode> {
    let ApplyFlags { to, also, mut how } = flags;
    let given = CommandFlags { command, to, also, dry_run: how.dry_run.then_some(true), context_lines: None };
    let wanted = given.wanted(globals, |spec| {
        how.dry_run = spec.apply.dry_run;
        how.pull_policy = spec.apply.common.image_pull_policy;
        how.configured = spec.timeouts.map(|timeouts| timeouts.upgrade_manifests);
        let policy = UpgradePolicy {
            experimental: spec.apply.allow_experimental_upgrades,
            release_candidate: spec.apply.allow_rc_upgrades,
            force: spec.apply.force,
        };
        Section {
            version: spec.apply.kubernetes_version,
            policy,
            print_config: spec.apply.print_config,
            common: spec.apply.common,
        }
    })?;
    let parts = match parts {
        Some(parts) => parts,
        None => Parts::of(&PHASES, &wanted.section.common.skip_phases)?,
    };
    apply_it(globals, &wanted, parts, &how).await
}

fn show_plan(prepared: &Prepared, wanted: &flags::UpgradeTarget, output: Output) -> anyhow::Result<ExitCode> {
    let rows: Vec<Row> = prepared.steps.iter().map(row).collect();
    if output != Output::Text {
        ui::print_value(output, &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let running = prepared.from.as_ref().map_or_else(|| "an unknown version".into(), ToString::to_string);
    if wanted.section.version.is_none() && rows.is_empty() {
        ui::print(&format!(
            "Kubernetes {running} is running. kubeboot asks no server for newer versions: name one, as in\n\n  kubeboot upgrade \
             plan v1.36.3\n"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    for warning in &prepared.warnings {
        ui::print(&format!("warning: {warning}\n"))?;
    }
    if rows.is_empty() {
        ui::print(&format!("Nothing to do: Kubernetes {running} is running with these very manifests.\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells = rows.into_iter().map(|r| [r.component.to_owned(), r.current, r.target]);
    ui::print(&ui::table(["COMPONENT", "CURRENT", "TARGET"], cells))?;
    ui::print(&format!("\nTo do it:  {}\n", wanted.command))?;
    Ok(ExitCode::SUCCESS)
}

fn row(step: &Step) -> Row {
    Row {
        component: step.component,
        current: step.old_image.clone(),
        target: step.new_image.clone(),
        changed: step.old_image != step.new_image,
    }
}
