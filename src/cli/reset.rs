//! `kubeboot reset`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::phases::{Sub, table};
use super::signals::stop_on_signals;
use super::spec::{program, read_file};
use super::{Globals, Hint};
use crate::config::spec::{NodeAgent, ResetSpec};
use crate::config::{self, HostDefaults, Input, Loaded, ResetFlags};
use crate::error::is_denied;
use crate::kubelet::service::Program;
use crate::ui::{self, Output};
use crate::workflow::machine::Machine;
use crate::workflow::preflight::{Finding, Severity, conclude, is_ignored};
use crate::workflow::reset::plan::Step;
use crate::workflow::reset::{self, OPTIONS, PHASES, Part, Reset, ResetError, ResetOptions};

/// Take everything away that init or join made on this machine
///
/// Stops the node agent and the control plane, or the kubelet and its pods, and removes what init or join wrote down
/// that it made: containers, pulled images, the unit, manifests, certificates, kubeconfigs, the kubelet's and etcd's
/// data, logs. What was there before stays, and so does what somebody else has put there since.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    kubeboot reset --dry-run       # what would be removed\n  \
    kubeboot reset --force         # without asking\n\n\
    CNI configuration, packet filter rules and copies of admin.conf in home directories are not kubeboot's and stay; the \
    Node object of a worker stays too (kubectl delete node).\n\n\
    Exit codes: 0 done, or nothing to do; 1 any error."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Sub<ResetPhases>>,
    #[command(flatten)]
    flags: Flags,
}

table!(
    /// The phases of `reset`.
    ResetPhases,
    Flags,
    PHASES,
    OPTIONS,
    phase_help()
);

fn phase_help() -> String {
    format!("Phases:\n{}\nExit codes: 0 done, 1 any error.", PHASES.help())
}

#[derive(Debug, clap::Args)]
struct Flags {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Format of the events
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Configuration file with a ResetConfiguration (kubeadm.k8s.io/v1beta4)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Empty /etc/kubernetes/tmp even where it was there before
    #[arg(long)]
    cleanup_tmp_dir: bool,
    /// Socket of the kubelet's container runtime [default: the one that join has written down]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Checks whose errors are only warnings, separated by commas; `all` are all of them
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Phases to leave out, separated by commas
    #[arg(long, value_name = "PHASE", value_delimiter = ',')]
    skip_phases: Vec<String>,
    #[command(flatten)]
    kubeadm: KubeadmFlags,
}

/// Flags of `kubeadm reset` that scripts pass. The inventory knows what they would say, so they change nothing.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Taken for kubeadm's sake, without effect: the inventory knows better")]
struct KubeadmFlags {
    /// Directory of the certificates
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<String>,
    /// Kubeconfig for the cluster
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Flags {
    fn spec(&self) -> anyhow::Result<Loaded<ResetSpec>> {
        let input = Input {
            file: self.config.as_ref().map(|path| read_file(path)).transpose()?,
            flags: ResetFlags {
                cert_dir: self.kubeadm.cert_dir.clone(),
                cleanup_tmp_dir: self.cleanup_tmp_dir,
                cri_socket: self.cri_socket.clone(),
                force: self.force,
                ignore_preflight_errors: self.ignore_preflight_errors.clone(),
                skip_phases: self.skip_phases.clone(),
            },
            host: HostDefaults::default(),
        };
        config::load_reset(&input)
            .map_err(|error| anyhow::Error::new(error).context(Hint::new("see `kubeboot reset --help`")))
    }
}

/// Plans, asks, and carries the plan out.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let (phase, flags) = match args.command {
        Some(Sub::Phase(phase)) => (Some(phase.name), phase.flags),
        None => (None, args.flags),
    };
    let loaded = flags.spec()?;
    let spec = loaded.spec;
    let wanted = ResetOptions::of(&spec, phase.as_deref())?;
    let service = Program { path: program()?, agent: NodeAgent::Embedded, docker_host: None };
    let mut machine = Machine::this(&globals.paths(), service, ui::reporter(flags.output));
    loaded.warnings.into_iter().for_each(|warning| machine.reporter.warn("config", warning));
    let dry_run = flags.dry_run || loaded.dry_run;
    if wanted.has(Part::Preflight) && !dry_run {
        preflight(&machine, &spec)?;
    }
    let Some(planned) = reset::prepare(&machine, &wanted).map_err(explain)? else {
        if !dry_run && reset::sweep(&machine).map_err(explain)? {
            machine.reporter.note("reset", "removed what a node agent had left behind".into());
        }
        let root = globals.paths().root().display().to_string();
        let what = if root == "/" { "this machine".to_owned() } else { root };
        let text =
            format!("{what} was never initialised by kubeboot, nor has it joined a cluster by it: nothing to do");
        machine.reporter.note("reset", text);
        return Ok(ExitCode::SUCCESS);
    };
    if dry_run {
        let line = |step: &Step| format!("Would {step}\n");
        ui::print(&planned.steps().map(line).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if wanted.has(Part::Preflight) && !spec.force {
        ask(&planned)?;
    }
    stop_on_signals(&machine.stop);
    let whole = planned.is_whole();
    reset::run(&mut machine, planned).await.map_err(explain)?;
    if whole {
        machine.reporter.note("reset", "everything that kubeboot made is gone".into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Only root can take a running machine's node away.
fn preflight(machine: &Machine, spec: &ResetSpec) -> anyhow::Result<()> {
    const CHECK: &str = "IsPrivilegedUser";
    if !machine.live || rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let severity = match is_ignored(&spec.ignore_preflight_errors, CHECK) {
        true => Severity::Warning,
        false => Severity::Error,
    };
    let message = "not run as root: run it with sudo, or look at what it would do with --dry-run".to_owned();
    let finding = Finding { check: CHECK.to_owned(), severity, message };
    Ok(conclude(vec![finding], &*machine.reporter)?)
}

fn ask(planned: &Reset) -> anyhow::Result<()> {
    let list: String = planned.steps().map(|step| format!("  {step}\n")).collect();
    ui::print(&format!(
        "[reset] WARNING: Changes made to this host by 'kubeboot init' or 'kubeboot join' will be reverted:\n{list}"
    ))?;
    if !ui::confirm("[reset] Are you sure you want to proceed?", "pass --force to go on without asking")? {
        bail!("aborted reset operation; nothing was removed");
    }
    Ok(())
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
