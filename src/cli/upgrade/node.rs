//! `kubeboot upgrade node`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;
use similar::TextDiff;

use super::apply::{apply_it, stamp};
use super::flags::{Also, Common, Given, How, Section, To};
use crate::cli::phases::{Sub, table};
use crate::cli::{Globals, Hint, NO_KUBECONFIG};
use crate::cluster::joining::{ClusterFacts, Reader};
use crate::config::spec::Timeouts;
use crate::host::paths::{KUBELET_CONFIG, TMP_DIR};
use crate::host::tree::{HostTree, NoRecord, Recorder, Tree};
use crate::kubelet::files::in_cluster;
use crate::release::Leave;
use crate::ui;
use crate::workflow::node_files::RESOLVED;
use crate::workflow::state::State;
use crate::workflow::upgrade::table::{NODE_PHASES, OPTIONS, Part, Wanted as Parts};
use crate::workflow::upgrade::target::file;
use crate::yaml;

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
    let tree = HostTree::new(paths.clone(), NoRecord);
    let is_worker = !tree.exists(&file("kube-apiserver"));
    let usual = if is_worker { "kubelet.conf" } else { "admin.conf" };
    let kubeconfig = flags.common.kubeconfig.clone().unwrap_or_else(|| paths.kubeconfig(usual));
    if is_worker && !kubeconfig.exists() {
        bail!("this machine is no node of a cluster: {} is not there", kubeconfig.display());
    }
    let mut how = flags.how;
    let to = To::node(flags.patches, flags.etcd_upgrade, flags.common);
    let given = Given { command, to, also: flags.also, dry_run: how.dry_run.then_some(true), context_lines: None };
    let mut limit = Timeouts::default().kubernetes_api_call;
    let mut wanted = given.wanted(globals, |spec| {
        how.dry_run = spec.node.dry_run;
        how.pull_policy = spec.node.common.image_pull_policy;
        if let Some(timeouts) = &spec.timeouts {
            limit = timeouts.kubernetes_api_call;
            how.configured = Some(timeouts.upgrade_manifests);
        }
        Section { version: None, leave: Leave::default(), print_config: false, common: spec.node.common }
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
    if !parts.has(Part::KubeletConfig) {
        ui::print("[upgrade] Skipping: a worker has kubelet settings alone\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let patches = wanted.section.common.patches_dir.as_deref();
    match State::open(&paths)? {
        Some(mut state) => worker(HostTree::new(paths, &mut state.inventory), &facts, patches, how.dry_run),
        None => worker(HostTree::new(paths, NoRecord), &facts, patches, how.dry_run),
    }
}

/// The kubelet's settings, made anew from the cluster's.
fn worker<R: Recorder>(
    mut tree: HostTree<R>,
    facts: &ClusterFacts,
    patches: Option<&Path>,
    dry_run: bool,
) -> anyhow::Result<ExitCode> {
    let path = Path::new(KUBELET_CONFIG);
    let Some(old) = tree.read(path)? else {
        return Err(anyhow::anyhow!("{KUBELET_CONFIG} is not there")
            .context(Hint::new("join the machine to the cluster first: `kubeboot join`")));
    };
    let old = String::from_utf8_lossy(&old).into_owned();
    let before: Value = yaml::to_value(&old).with_context(|| format!("{KUBELET_CONFIG} is no YAML"))?;
    let new = in_cluster(&facts.kubelet_config, &before, patches, tree.exists(Path::new(RESOLVED)))?;
    if new == old {
        ui::print(&format!("[upgrade] The kubelet's settings are those of the cluster ({})\n", facts.version))?;
        return Ok(ExitCode::SUCCESS);
    }
    if dry_run {
        let diff = TextDiff::from_lines(&old, &new);
        ui::print(&diff.unified_diff().header(KUBELET_CONFIG, &format!("{KUBELET_CONFIG} (new)")).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let backup = Path::new(TMP_DIR).join(format!("kubeadm-kubelet-config-{}", stamp()));
    tree.make_dir(&backup, 0o700)?;
    tree.write(&backup.join("config.yaml"), old.as_bytes(), 0o600)?;
    tree.write(path, new.as_bytes(), 0o644)?;
    ui::print(&format!(
        "[upgrade] Backed up the kubelet's settings to {}\n[upgrade] Wrote {KUBELET_CONFIG} for Kubernetes {}; it counts \
         from the kubelet's next start: install its new version, and systemctl restart kubelet\n",
        backup.display(),
        facts.version
    ))?;
    Ok(ExitCode::SUCCESS)
}
