//! `kubeboot upgrade plan|diff|apply|node|rollback|status|backups`.

mod apply;
mod backups;
mod diff;
mod flags;
mod node;
mod plan;
mod status;

use std::process::ExitCode;

use clap::Subcommand;

use self::apply::{apply_it, roll_back};
use self::flags::{Also, CommandFlags, How, Section, To};
use super::Globals;
use super::phases::{self, table};
use crate::release::UpgradePolicy;
use crate::workflow::upgrade::rollback::RollbackOptions;
use crate::workflow::upgrade::table::{OPTIONS, PHASES, SelectedPhases as Parts};

/// What documents are of that only this program prints.
const OUTPUT_API: &str = "output.kubeboot.dev/v1alpha1";

/// Move the running control plane to another version or image, one component after the other.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubeboot upgrade plan v1.36.3
  kubeboot upgrade apply v1.36.3
  kubeboot upgrade apply --image kube-scheduler=registry.example.com/kube-scheduler:v1.36.3-fix
  kubeboot upgrade node          # on a node that the cluster's control plane has gone ahead of
  kubeboot upgrade status --watch
  kubeboot upgrade rollback
  kubeboot upgrade backups prune --keep 1

The node agent carries an upgrade out, so it goes on when this command ends. Every image is fetched before anything is touched. \
Then etcd, kube-apiserver, kube-controller-manager and kube-scheduler are replaced in this order, each with new certificates, \
each as soon as the agent reports the one before healthy. The node's kubelet settings and the cluster's objects follow. If \
anything fails, everything old is put back; an etcd that has served stays where its data would not go back without loss. \
Backups stay below /etc/kubernetes/tmp until `upgrade backups prune` removes them.")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Plan(Box<plan::Args>),
    Diff(Box<diff::Args>),
    /// Replace the components, and bring the node's settings and the cluster's objects to the version.
    Apply(Box<ApplyArgs>),
    /// Bring this node to the version that the cluster has: a control-plane node's components, or a worker's kubelet
    /// settings.
    Node(Box<node::Args>),
    /// Take the last upgrade back: the one that was cut off, or the one that succeeded.
    ///
    /// etcd goes back too where that loses nothing: by its own downgrade, where its minor version has changed and both know
    /// how (3.6 and newer). Else the new etcd stays, with everything else old, and that is said.
    #[command(
        after_help = "Exit codes: 0 everything old is back and healthy, 2 everything but etcd, which stays and serves (what is left \
                          to do is said), 1 any error."
    )]
    Rollback {
        /// Put the copy of etcd's data back that the upgrade has made: every write since then is lost
        #[arg(long)]
        etcd_copy: bool,
        /// Put the old manifests back although another upgrade, of kubeadm's for example, has followed the one that is taken back
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        common: flags::Common,
    },
    Status(status::Args),
    Backups(backups::Args),
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

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.command {
        Sub::Plan(args) => plan::run(*args, globals).await,
        Sub::Diff(args) => diff::run(*args, globals).await,
        Sub::Backups(args) => backups::run(args, globals),
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
        Sub::Rollback { etcd_copy, force, how, common } => {
            roll_back(globals, &how, common.kubeconfig, RollbackOptions { etcd_copy, force }).await
        }
    }
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
