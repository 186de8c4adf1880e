//! `kubeboot adopt`.

use std::process::ExitCode;

use anyhow::bail;

use super::signals::stop_on_signals;
use super::spec::program;
use super::{Globals, Hint};
use crate::config::spec::NodeAgent;
use crate::error::is_denied;
use crate::event::Reporter;
use crate::kubelet::service::Program;
use crate::runtime::endpoint::Endpoint;
use crate::ui::{self, Output};
use crate::workflow::adopt::processes::Running;
use crate::workflow::adopt::{self, AdoptError, AdoptRequest, Outcome};
use crate::workflow::machine::Machine;

/// Take over a control-plane node that kubeadm made, or give it back
///
/// The node's static pods are run by kubeboot's agent, with Docker, in place of the kubelet: the same manifests,
/// certificates and data. The control plane is stopped and started once. A drop-in in the kubelet's own unit is all that
/// is added; nothing of kubeadm's is changed. Pods of the cluster that the kubelet has started run on without it: take
/// them off the node first (kubectl drain).
///
/// The node is upgraded by `kubeboot upgrade` and by kubeadm alike. `kubeboot upgrade` goes by the configuration that the
/// cluster had when the node was taken over; run `kubeboot adopt` again after a change of it.
///
/// What fails or is interrupted takes itself back. What was killed is finished by the same command, or taken back with
/// --back; `kubeboot reset` gives the node back too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot adopt --dry-run       # what would be done\n  \
    kubeboot adopt --force         # without asking\n  \
    kubeboot adopt --back          # the kubelet runs the static pods again\n\n\
    Exit codes: 0 done, or done before; 1 any error.")]
pub struct Args {
    /// Give the node back to the kubelet
    #[arg(long)]
    back: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Format of the events
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Plans, asks, and carries the plan out.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let order = order();
    let mut machine = machine(&order, globals, ui::reporter(args.output))?;
    let steps = match args.back {
        true => adopt::prepare_back(&machine).map(|steps| steps.iter().map(ToString::to_string).collect()),
        false => adopt::prepare(&machine).map(|steps| steps.iter().map(ToString::to_string).collect()),
    };
    let steps: Vec<String> = steps.map_err(explain)?;
    if args.dry_run {
        ui::print(&steps.iter().map(|step| format!("Would {step}\n")).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force {
        let list: String = steps.iter().map(|step| format!("  {step}\n")).collect();
        ui::print(&format!("The control plane of this node will be stopped and started. This will:\n{list}"))?;
        if !ui::confirm("Are you sure you want to proceed?", "pass --force to go on without asking")? {
            bail!("aborted; nothing was changed");
        }
    }
    stop_on_signals(&machine.stop);
    if args.back {
        adopt::give_back(&mut machine, &Running::default()).await.map_err(explain)?;
        machine.reporter.note("adopt", "the kubelet runs the static pods of this node again".into());
        return Ok(ExitCode::SUCCESS);
    }
    take_over(&mut machine, &order).await?;
    Ok(ExitCode::SUCCESS)
}

/// What `adopt` does once everybody agrees; `init phase kubelet-start` does the same on a node that kubeadm made.
pub(super) async fn take_over(machine: &mut Machine, order: &AdoptRequest) -> anyhow::Result<()> {
    let text = match adopt::run(machine, order, &Running::default()).await.map_err(explain)? {
        Outcome::Adopted => "kubeboot's agent runs the static pods of this node; `kubeboot adopt --back` gives it back",
        Outcome::AlreadyAdopted => "this node was taken over before, and is healthy",
    };
    machine.reporter.note("adopt", text.into());
    Ok(())
}

/// The agent has to speak with the Docker this command speaks with.
fn order() -> AdoptRequest {
    AdoptRequest { docker_host: crate::host::environment::docker_host() }
}

fn machine(order: &AdoptRequest, globals: &Globals, reporter: std::sync::Arc<dyn Reporter>) -> anyhow::Result<Machine> {
    let service = Program {
        path: program()?,
        agent: NodeAgent::Embedded,
        docker_host: Endpoint::Docker(order.docker_host.clone()).docker_host(),
    };
    Ok(Machine::this(&globals.paths(), service, reporter))
}

/// What to do next, attached to what went wrong.
fn explain(error: AdoptError) -> anyhow::Error {
    let hint = match &error {
        _ if is_denied(&error) => Some("run this as root"),
        AdoptError::Stuck { .. } | AdoptError::Back(_) => {
            Some("mend the cause and run `kubeboot adopt --back`: it goes on with what is left")
        }
        AdoptError::MadeByKubeboot => Some("see `kubeboot status`"),
        AdoptError::Images(_) => Some(
            "load the images into Docker first, for example out of containerd: \
             ctr -n k8s.io images export - IMAGE | docker load",
        ),
        _ => None,
    };
    let error = anyhow::Error::new(error);
    match hint {
        Some(hint) => error.context(Hint::new(hint)),
        None => error,
    }
}
