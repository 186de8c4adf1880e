//! `kubeboot init`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::phases::{Chosen, Sub, table};
use super::signals::stop_on_signals;
use super::spec::{ClusterFlags, SpecFlags, absolute, load, program};
use super::{Globals, Hint, block_on};
use crate::cluster::addons::manifests;
use crate::config::spec::{NodeAgent, Overrides};
use crate::config::{ClusterSpec, Input, Loaded};
use crate::error::is_denied;
use crate::host::environment;
use crate::host::tree::{HostTree, NoRecord};
use crate::kubelet::service::Program;
use crate::runtime::endpoint::Endpoint;
use crate::ui::{self, Output};
use crate::workflow::adopt;
use crate::workflow::dry_run::DryRun;
use crate::workflow::init::dry_run::rehearse;
use crate::workflow::init::objects::addon_objects;
use crate::workflow::init::options::OPTIONS;
use crate::workflow::init::{self, Ended, InitError, InitRequest, Outcome, PHASES, PhaseSelection, StepError};
use crate::workflow::machine::Machine;
use crate::workflow::machine::cluster::AdminApi;
use crate::workflow::state::saved::{SAVED, Saved};

/// Make this machine a Kubernetes control-plane node
///
/// Checks the machine, makes certificates and kubeconfigs, writes the static pods of etcd and the control plane, starts
/// the node agent and waits until everything is healthy. A run that was cut off or failed is finished by the same
/// command.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    kubeboot init\n  \
    kubeboot init --config cluster.yaml\n  \
    kubeboot init --dry-run        # every file, without root and without touching anything\n  \
    kubeboot init phase certs all  # one phase alone; `kubeboot init phase --help` lists them\n\n\
    Exit codes: 0 the control plane is healthy (or was, and nothing had to be done), 1 any error."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Sub<InitPhases>>,
    #[command(flatten)]
    flags: InitFlags,
}

table!(
    /// The phases of `init`.
    InitPhases,
    PhaseFlags,
    PHASES,
    OPTIONS,
    phase_help()
);

/// Flags of one phase.
#[derive(Debug, clap::Args)]
struct PhaseFlags {
    /// With `addon`: print the objects in place of installing them
    #[arg(long, help_heading = "Options")]
    print_manifest: bool,
    /// Directory of the kubeconfigs [default: /etc/kubernetes]
    #[arg(long, value_name = "DIR", help_heading = "Configuration")]
    kubeconfig_dir: Option<PathBuf>,
    #[command(flatten)]
    flags: InitFlags,
}

fn phase_help() -> String {
    format!(
        "Phases:\n{}\nExamples:\n  kubeboot init phase preflight\n  kubeboot init phase certs apiserver --config \
         cluster.yaml\n  kubeboot init phase control-plane all --dry-run\n\nExit codes: 0 done, 1 any error.",
        PHASES.help()
    )
}

#[derive(Debug, clap::Args)]
struct InitFlags {
    #[command(flatten)]
    spec: SpecFlags,
    #[command(flatten)]
    cluster: ClusterFlags,
    /// Show what would be done, with every file but private keys; touches nothing and needs no root
    #[arg(long, help_heading = "Options")]
    dry_run: bool,
    /// Kubeconfig of an administrator, for what is written to the API server [default: /etc/kubernetes/admin.conf]
    #[arg(long, value_name = "FILE", help_heading = "Options")]
    kubeconfig: Option<PathBuf>,
    /// With --dry-run: write the files, private keys too, below this directory
    #[arg(long, value_name = "DIR", requires = "dry_run", help_heading = "Options")]
    output_dir: Option<PathBuf>,
    /// Format of the events: text, or one JSON object or YAML document each
    #[arg(short, long, value_enum, default_value_t, help_heading = "Options")]
    output: Output,
}

/// Runs init, one phase of it, or the dry run of either.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let (what, flags, kubeconfig_dir) = match args.command {
        Some(Sub::Phase(phase)) if phase.flags.print_manifest => return print_manifest(&phase),
        Some(Sub::Phase(phase)) => {
            (PhaseSelection::Phase(phase.name, phase.sub), phase.flags.flags, phase.flags.kubeconfig_dir)
        }
        None => (PhaseSelection::Everything, args.flags, None),
    };
    let mut input = flags.spec.input()?;
    flags.cluster.add_to(&mut input.flags);
    let earlier = earlier(&input, &what, globals);
    let (loaded, earlier) = match earlier {
        Some((loaded, saved)) => (loaded, Some(saved)),
        None => (load(&input)?, None),
    };
    let kubeconfig_dir = kubeconfig_dir.as_deref().map(absolute).transpose()?;
    let spec = Endpoint::choose(loaded.spec, &globals.paths())?;
    let spec = spec.with(Overrides { kubeconfig_dir, ..Overrides::default() });
    if flags.dry_run || loaded.dry_run {
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        return show(&spec, &what, &flags, globals);
    }
    let goes_on = earlier.is_some();
    let saved = Some(earlier.unwrap_or_else(|| Saved::new(&input, &spec)));
    let order = InitRequest { spec, saved, what };
    let spec = &order.spec;
    block_on(async {
        let service = Program {
            path: program()?,
            agent: spec.kubeboot.node_agent,
            docker_host: Endpoint::of(spec).docker_host(),
        };
        let mut machine = Machine::this(&globals.paths(), service, ui::reporter(flags.output));
        if goes_on {
            let text = format!("goes on with the configuration that this machine was initialised with ({SAVED})");
            machine.reporter.note("config", text);
        }
        for warning in loaded.warnings {
            machine.reporter.warn("config", warning);
        }
        stop_on_signals(&machine.stop);
        // A node that kubeadm made has its own kubelet, files and pods: these are kept.
        if is_start_of_agent(&order) && adopt::is_foreign_node(&machine) {
            super::adopt::take_over(
                &mut machine,
                &adopt::AdoptRequest { docker_host: spec.kubeboot.docker_host.clone() },
            )
            .await?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(path) = flags.kubeconfig {
            machine.cluster = Arc::new(AdminApi { kubeconfig: Some(path) });
        }
        let ended = init::run(&mut machine, &order).await.map_err(explain)?;
        if flags.output == Output::Text {
            ui::print(&join_instructions(globals, ended, &order.what))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What this machine was initialised with, where neither a file nor a flag says what to make: that run is gone on with.
fn earlier(input: &Input, what: &PhaseSelection, globals: &Globals) -> Option<(Loaded, Saved)> {
    if *what != PhaseSelection::Everything || input.file.is_some() || input.flags.configure() {
        return None;
    }
    let saved = Saved::read(&HostTree::new(globals.paths(), NoRecord)).ok().flatten()?;
    let (spec, warnings) = saved.spec_for(&input.flags).ok()?;
    Some((Loaded { spec, dry_run: false, warnings }, saved))
}

/// `init phase kubelet-start` with our own agent.
fn is_start_of_agent(order: &InitRequest) -> bool {
    matches!(&order.what, PhaseSelection::Phase(name, None) if name == "kubelet-start")
        && order.spec.kubeboot.node_agent == NodeAgent::Embedded
}

/// The objects of the addons, on stdout.
fn print_manifest(phase: &Chosen<InitPhases>) -> anyhow::Result<ExitCode> {
    let selected = PHASES.one(&phase.name, phase.sub.as_deref())?;
    if selected.phase.name != "addon" {
        anyhow::bail!("--print-manifest goes with the phase addon alone");
    }
    let spec = load(&phase.flags.flags.spec.input()?)?.spec;
    let objects = addon_objects(&spec, &environment::proxies(), &selected.children)?;
    ui::print(&manifests(&objects.objects)?)?;
    Ok(ExitCode::SUCCESS)
}

fn show(spec: &ClusterSpec, what: &PhaseSelection, flags: &InitFlags, globals: &Globals) -> anyhow::Result<ExitCode> {
    let run = rehearse(spec, what, &globals.paths(), &program()?).map_err(explain)?;
    print_dry_run(&run, flags.output_dir.as_deref(), flags.output)
}

/// Shows a dry run, or writes its files below `dir`.
pub fn print_dry_run(run: &DryRun, dir: Option<&Path>, output: Output) -> anyhow::Result<ExitCode> {
    match (dir, output) {
        (Some(dir), _) => {
            let count = run.write_below(dir)?;
            ui::print(&format!("[dryrun] Wrote {count} files below {}\n", dir.display()))?;
        }
        (None, Output::Text) => ui::print(&run.text())?,
        (None, output) => ui::print_value(output, &run.shown())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do next, attached to what went wrong.
fn explain(error: InitError) -> anyhow::Error {
    const AGAIN: &str = "mend the cause and run the same command again: it goes on from here; or take everything away with \
                         `kubeboot reset`";
    let hint = match &error {
        InitError::Differs { .. } | InitError::Unlike { .. } => Some(
            "go to another version with `kubeboot upgrade`; for any other change take the node away with `kubeboot reset` \
             and run init again",
        ),
        InitError::Interrupted { .. } => {
            Some("run the same command again to go on, or `kubeboot reset` to take everything away")
        }
        _ if is_denied(&error) => Some("run this as root"),
        InitError::Failed { source, .. } => match &**source {
            StepError::Preflight(_) | StepError::Pki(_) | StepError::Images(_) => None,
            _ => Some(AGAIN),
        },
        _ => None,
    };
    let error = anyhow::Error::new(error);
    match hint {
        Some(hint) => error.context(Hint::new(hint)),
        None => error,
    }
}

/// What is printed at the end.
fn join_instructions(globals: &Globals, ended: Ended, what: &PhaseSelection) -> String {
    let paths = globals.paths();
    if !paths.is_live() {
        return match what {
            PhaseSelection::Everything => {
                format!("\nThe files of a Kubernetes control-plane node are below {}.\n", paths.root().display())
            }
            PhaseSelection::Phase(..) => String::new(),
        };
    }
    match ended.outcome {
        Outcome::Done => ended.text,
        Outcome::AlreadyInitialised => "\nThis control-plane was initialized before, with this configuration, and is \
            healthy.\n\nNodes join it with what `kubeboot token create --print-join-command` prints.\n"
            .to_owned(),
    }
}
