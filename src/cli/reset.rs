//! `kubeboot reset`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::signals::stop_on_signals;
use super::spec::program;
use super::{Globals, Hint};
use crate::config::spec::NodeAgent;
use crate::kubelet::service::Program;
use crate::ui::{self, Output};
use crate::workflow::machine::Machine;
use crate::workflow::reset::plan::Step;
use crate::workflow::reset::{self, ResetError};

/// Take everything away that init made on this machine
///
/// Stops the node agent and the control plane, and removes what init wrote down that it made: containers, pulled
/// images, the unit, manifests, certificates, kubeconfigs, the kubelet's and etcd's data, logs. What was there before
/// init stays, and so does what somebody else has put there since.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot reset --dry-run       # what would be removed\n  \
    kubeboot reset --force         # without asking\n\n\
    CNI configuration, iptables rules and copies of admin.conf in home directories are not init's and stay.\n\n\
    Exit codes: 0 done, or nothing to do; 1 any error.")]
pub struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Format of the events
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    kubeadm: KubeadmFlags,
}

/// Flags of `kubeadm reset` that scripts pass. The inventory knows what they would say, so they change nothing.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Taken for kubeadm's sake, without effect: the inventory knows better")]
struct KubeadmFlags {
    /// Directory of the certificates
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Remove /etc/kubernetes/tmp
    #[arg(long)]
    cleanup_tmp_dir: bool,
    /// Socket of the container runtime interface
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Checks to ignore
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Kubeconfig for the cluster
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Phases to leave out
    #[arg(long, value_name = "PHASE", value_delimiter = ',')]
    skip_phases: Vec<String>,
}

/// Plans, asks, and carries the plan out.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    if !args.kubeadm.skip_phases.is_empty() {
        bail!("--skip-phases: this reset has no phases to leave out; see the steps with --dry-run");
    }
    let service = Program { path: program()?, agent: NodeAgent::Embedded, docker_host: None };
    let mut machine = Machine::this(&globals.paths(), service, ui::reporter(args.output));
    let Some(planned) = reset::prepare(&machine).map_err(explain)? else {
        let root = globals.paths().root().display().to_string();
        let what = if root == "/" { "this machine".to_owned() } else { root };
        machine.reporter.note("reset", format!("{what} was never initialised by kubeboot: nothing to do"));
        return Ok(ExitCode::SUCCESS);
    };
    if args.dry_run {
        let line = |step: &Step| format!("Would {step}\n");
        ui::print(&planned.steps.iter().map(line).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force {
        let list: String = planned.steps.iter().map(|step| format!("  {step}\n")).collect();
        ui::print(&format!("This will:\n{list}"))?;
        if !ui::confirm("Are you sure you want to proceed?", "pass --force to go on without asking")? {
            bail!("aborted; nothing was removed");
        }
    }
    stop_on_signals(&machine.stop);
    reset::run(&mut machine, planned).await.map_err(explain)?;
    machine.reporter.note("reset", "everything that kubeboot made is gone".into());
    Ok(ExitCode::SUCCESS)
}

fn explain(error: ResetError) -> anyhow::Error {
    let hint = match &error {
        ResetError::Steps { .. } => {
            Some("mend the causes and run `kubeboot reset` again: it goes on with what is left")
        }
        _ if is_denied(&error) => Some("run this as root"),
        _ => None,
    };
    let error = anyhow::Error::new(error);
    match hint {
        Some(hint) => error.context(Hint::new(hint)),
        None => error,
    }
}

/// Whether an ordinary user tried what only root may.
pub fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    })
}
