//! `kubeboot upgrade node`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::apply::apply_it;
use super::flags::{Also, CommandFlags, Common, How, Section, To};
use crate::cli::phases::{Sub, table};
use crate::cli::{Globals, Hint, NO_KUBECONFIG};
use crate::cluster::joining::{ClusterFacts, Reader};
use crate::config::spec::{Timeouts, UpgradeCommon};
use crate::host::Paths;
use crate::host::paths::KUBELET_CONFIG;
use crate::release::UpgradePolicy;
use crate::ui;
use crate::workflow::preflight::{conclude, with_ignored};
use crate::workflow::upgrade::table::{NODE_PHASES, OPTIONS, Part, SelectedPhases as Parts};
use crate::workflow::upgrade::worker::{Settings, WorkerError, findings, is_worker, renew_settings};

/// Bring this node to the version that the cluster has
///
/// The version is the one of the config map kubeadm-config. On a control-plane node the components are replaced as
/// `upgrade apply` does it; on a worker the kubelet's settings are written anew from the cluster's.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 upgraded (or nothing to do), 2 something failed and everything is as it was before (or \
                  old, with a new etcd: it says so), 3 something failed and going back failed too, 1 any other error."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Sub<NodePhases>>,
    #[command(flatten)]
    flags: Flags,
}

table!(
    /// The phases of `upgrade node`.
    NodePhases,
    Flags,
    NODE_PHASES,
    OPTIONS,
    phase_help()
);

fn phase_help() -> String {
    format!("Phases:\n{}\nExit codes: 0 done, 1 any error.", NODE_PHASES.help())
}

#[derive(Debug, Clone, clap::Args)]
struct Flags {
    /// Directory with patches for the manifests and the kubelet's settings
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,
    /// Upgrade etcd too [default: true]
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL")]
    etcd_upgrade: Option<bool>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    also: Also,
    #[command(flatten)]
    how: How,
}

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let (parts, command, flags) = match args.command {
        None => (None, "kubeboot upgrade node".to_owned(), args.flags),
        Some(Sub::Phase(phase)) => {
            let parts = Parts::one(&NODE_PHASES, &phase.name, phase.sub.as_deref())?;
            let words = phase.sub.map_or_else(|| phase.name.clone(), |sub| format!("{} {sub}", phase.name));
            (Some(parts), format!("kubeboot upgrade node phase {words}"), phase.flags)
        }
    };
    let paths = globals.paths();
    let is_worker = is_worker(&paths);
    let usual = if is_worker { "kubelet.conf" } else { "admin.conf" };
    let kubeconfig = flags.common.kubeconfig.clone().unwrap_or_else(|| paths.kubeconfig(usual));
    if is_worker && !kubeconfig.exists() {
        bail!("this machine is no node of a cluster: {} is not there", kubeconfig.display());
    }
    let mut how = flags.how;
    let to = To::node(flags.patches, flags.etcd_upgrade, flags.common);
    let given =
        CommandFlags { command, to, also: flags.also, dry_run: how.dry_run.then_some(true), context_lines: None };
    let mut limit = Timeouts::default().kubernetes_api_call;
    let mut wanted = given.wanted(globals, |spec| {
        how.dry_run = spec.node.dry_run;
        how.pull_policy = spec.node.common.image_pull_policy;
        if let Some(timeouts) = &spec.timeouts {
            limit = timeouts.kubernetes_api_call;
            how.configured = Some(timeouts.upgrade_manifests);
        }
        Section { version: None, policy: UpgradePolicy::default(), print_config: false, common: spec.node.common }
    })?;
    let parts = match parts {
        Some(parts) => parts,
        None => Parts::of(&NODE_PHASES, &wanted.section.common.skip_phases)?,
    };
    let text = std::fs::read_to_string(&kubeconfig)
        .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))
        .context(Hint::new(NO_KUBECONFIG))?;
    let facts = Reader::new(&text, limit).await?.facts().await?;
    if !is_worker {
        how.yes = true;
        wanted.section.version = Some(facts.version);
        return apply_it(globals, &wanted, parts, &how).await;
    }
    worker(&paths, &facts, &parts, &wanted.section.common, &how)
}

/// The same on a worker.
fn worker(
    paths: &Paths,
    facts: &ClusterFacts,
    parts: &Parts,
    common: &UpgradeCommon,
    how: &How,
) -> anyhow::Result<ExitCode> {
    let patches = common.patches_dir.as_deref();
    if parts.has(Part::Preflight) {
        let found = findings(paths, facts, patches).map_err(explain)?;
        conclude(with_ignored(found, &common.ignore_preflight_errors), &*ui::reporter(how.output))?;
    }
    if !parts.has(Part::KubeletConfig) {
        ui::print("[upgrade] Skipping: a worker has kubelet settings alone\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = renew_settings(paths, facts, patches, how.dry_run);
    show(settings.map_err(explain)?, facts)
}

/// What to do next, attached to what went wrong.
fn explain(error: WorkerError) -> anyhow::Error {
    match error {
        WorkerError::NotJoined => {
            anyhow::Error::new(error).context(Hint::new("join the machine to the cluster first: `kubeboot join`"))
        }
        error => error.into(),
    }
}

fn show(settings: Settings, facts: &ClusterFacts) -> anyhow::Result<ExitCode> {
    let version = &facts.version;
    let text = match settings {
        Settings::Same => format!("[upgrade] The kubelet's settings are those of the cluster ({version})\n"),
        Settings::WouldChange(diff) => diff,
        Settings::Written(backup) => format!(
            "[upgrade] Backed up the kubelet's settings to {}\n[upgrade] Wrote {KUBELET_CONFIG} for Kubernetes {version}; \
             it counts from the kubelet's next start: install its new version, and systemctl restart kubelet\n",
            backup.display()
        ),
    };
    ui::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
