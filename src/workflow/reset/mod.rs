//! Taking everything away again that the inventory says was made, and nothing else.
//!
//! Every step is attempted whatever becomes of the others, and may be repeated; the inventory goes last, and only when
//! all else has gone, so that a reset that was cut off or failed is finished by the next one.

mod containers;
mod leftovers;
pub mod plan;
mod remove;
mod run;
mod table;
#[cfg(test)]
mod tests;
mod unrecorded;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::machine::Machine;
use super::phase::Selected;
use super::session::Session;
use super::state::inventory::{Inventory, Item};
use super::state::saved::Saved;
use super::state::{State, StateError};
use crate::agent;
use crate::config::spec::UnmountFlag;
use crate::error::chain;
use crate::host::Paths;
use crate::host::fs::FsError;
use crate::host::paths::{ADOPTED_MANIFESTS, CONTAINER_LOGS_DIR, KUBELET_DIR, POD_LOGS_DIR, STATE_DIR, TMP_DIR};
use crate::kubelet::service::ServiceError;
use crate::runtime::RuntimeError;
pub use leftovers::sweep;
use plan::{Observed, Step, plan};
pub use run::run;
pub use table::{OPTIONS, PHASES, Part, ResetOptions};

/// Where kubeadm puts etcd's data, for machines whose configuration was not kept.
const USUAL_ETCD_DIR: &str = "/var/lib/etcd";
/// Why a reset is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Steps that failed; all others were done.
    #[error("{} of {total} steps failed:{}", failed.len(), list(failed))]
    Steps {
        /// Each step and what became of it.
        failed: Vec<(Step, StepError)>,
        /// How many there were.
        total: usize,
    },
    /// The agent's service cannot be asked.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// It is not known what is mounted.
    #[error(transparent)]
    File(#[from] FsError),
    /// Data of an etcd that runs.
    #[error("the node agent runs, and etcd with it: take the node away first (reset phase cleanup-node)")]
    EtcdRuns,
    /// An agent that the service manager has not started: it would start again what is removed.
    #[error(
        "a node agent runs that its service has not started ({}): end it first, {}",
        pid.map_or("process unknown".to_owned(), |pid| format!("process {pid}")),
        pid.map_or("then run the same command again".to_owned(), |pid| format!("kill {pid}, then run the same command again"))
    )]
    OtherAgent {
        /// Its process id, if it has written it.
        pid: Option<u32>,
    },
    /// Stopped by a signal.
    #[error("interrupted; run the same command again to remove the rest")]
    Interrupted,
}

fn list(failed: &[(Step, StepError)]) -> String {
    failed.iter().map(|(step, error)| format!("\n\t{step}: {}", chain(error))).collect()
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A path.
    #[error(transparent)]
    File(#[from] FsError),
    /// The container runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The agent's service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Something is mounted in what is to be removed, and what is behind it is not ours.
    #[error("{} is a mount point: unmount it, or remove its directory yourself", path.display())]
    Mounted {
        /// The mount point.
        path: PathBuf,
    },
    /// Containers kept coming.
    #[error("{count} containers are still there: something starts them again")]
    StillThere {
        /// How many.
        count: usize,
    },
    /// The step before this one has to succeed first.
    #[error("kept, because the steps above failed and need it to be repeated")]
    Kept,
}

/// What there is to reset: the locked state of the machine and the steps.
pub struct Reset {
    session: Session,
    unmount_flags: Vec<UnmountFlag>,
    phases: Vec<Selected<'static, Part>>,
    /// The steps of each phase, in order.
    steps: Vec<(Part, Step)>,
    /// The last one of a whole reset, which is no phase's: kubeboot's own records go when nothing is left that they know.
    forget: Option<Step>,
}

impl Reset {
    /// Whether this gives a node back that was taken over.
    pub fn gives_back(&self) -> bool {
        self.session.state().is_some_and(|state| plan::is_adopted(state.inventory.entries()))
    }

    /// Whether everything goes, the records too.
    pub fn is_whole(&self) -> bool {
        self.forget.is_some()
    }

    /// The steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().map(|(_, step)| step).chain(&self.forget)
    }
}

/// Plans what is `wanted` of the reset of a machine, or None when it was neither initialised nor has joined.
///
/// # Errors
/// See [`StateError`]; another command that runs is one. An etcd that runs keeps its data.
pub fn prepare(machine: &Machine, wanted: &ResetOptions) -> Result<Option<Reset>, ResetError> {
    let paths = &machine.paths;
    State::sweep(paths)?;
    let Some((mut session, wrong)) = Session::attach_leniently(paths)? else { return Ok(None) };
    let Some(inventory) = session.inventory_mut() else { return Ok(None) };
    unrecorded::make_do(machine, inventory, &wrong);
    unrecorded::left_by_upgrades(machine, inventory);
    let entries: Vec<_> = inventory.entries().cloned().collect();
    let observed = observe(paths, machine.live, inventory)?;
    let etcd = etcd_dir(machine);
    if wanted.has(Part::Etcd) && !wanted.has(Part::Node) && machine.live && machine.service.is_running()? {
        return Err(ResetError::EtcdRuns);
    }
    // A service manager that does not answer is no reason to end here: its own step says so.
    if machine.live
        && wanted.has(Part::Node)
        && let Some(pid) = agent::running(&paths.on_host(KUBELET_DIR))?
        && machine.service.is_running().is_ok_and(|running| !running)
    {
        return Err(ResetError::OtherAgent { pid });
    }
    let mut steps = plan(entries.iter(), Path::new(STATE_DIR), &observed);
    if wanted.cleanup_tmp_dir {
        plan::add_tmp_dir(&mut steps, &observed);
    }
    if let Some(wanted) = &wanted.cri_socket {
        steps.iter_mut().for_each(|step| step.ask_socket(wanted));
    }
    let whole = wanted.has(Part::Etcd) && wanted.has(Part::Node);
    let (forget, steps): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| matches!(step, Step::RemoveState(_)));
    let steps = steps.into_iter().map(|step| (part(&step, &etcd, whole), step));
    let steps = steps.filter(|(part, _)| wanted.has(*part)).collect();
    Ok(Some(Reset {
        session,
        unmount_flags: wanted.unmount_flags.clone(),
        phases: wanted.phases(),
        steps,
        forget: forget.into_iter().next().filter(|_| whole),
    }))
}

/// The phase that a step is of: etcd's data go with etcd, which has to have stopped by then.
fn part(step: &Step, etcd: &Path, whole: bool) -> Part {
    match step {
        Step::StopAgent { .. } | Step::RemoveContainers { .. } | Step::RemoveSandboxes { .. } if whole => Part::Etcd,
        step if step.path().is_some_and(|path| path.starts_with(etcd)) => Part::Etcd,
        _ => Part::Node,
    }
}

/// Where init put etcd's data; the usual place where that cannot be read. It only says which phase takes what away.
fn etcd_dir(machine: &Machine) -> PathBuf {
    let spec = match Saved::read(&*machine.tree).and_then(|saved| saved.map(|saved| saved.spec()).transpose()) {
        Ok(saved) => saved.map(|(spec, _)| spec),
        Err(error) => {
            let text = format!("{}: going by what was written down of each file", chain(&error));
            machine.reporter.warn("reset", text);
            None
        }
    };
    let local = spec.as_ref().and_then(|spec| spec.etcd.local());
    local.map_or_else(|| PathBuf::from(USUAL_ETCD_DIR), |local| local.data_dir.clone())
}

fn observe(paths: &Paths, live: bool, inventory: &Inventory) -> Result<Observed, ResetError> {
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(paths.on_host(dir)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let is_there = |path: &PathBuf| paths.on_host(path).symlink_metadata().is_ok();
    let pod_logs = names(POD_LOGS_DIR);
    // Their directories may be among those that were there before, or a kubelet's.
    let of_agent = traces(&agent::claimed_pods(&paths.on_host(KUBELET_DIR)), &pod_logs);
    let items = inventory.items();
    let mounts = remove::mounts(items.iter().copied().chain(&of_agent), paths)?;
    let recorded = items.into_iter().map(|item| item.path.clone());
    Ok(Observed {
        live,
        present: recorded.chain(of_agent.iter().map(|item| item.path.clone())).filter(is_there).collect(),
        of_agent,
        mounts,
        pod_logs,
        container_logs: names(CONTAINER_LOGS_DIR),
        // A copy that a killed run has not finished is none: as a kubelet does, those with a dot are let be.
        aside: names(ADOPTED_MANIFESTS).into_iter().filter(|name| !name.starts_with('.')).collect(),
        tmp: names(TMP_DIR),
        leftovers: leftovers::are_there(paths),
    })
}

/// The directories of the agent's pods and of their logs, among a kubelet's.
fn traces(uids: &BTreeSet<String>, pod_logs: &[String]) -> Vec<Item> {
    let dirs = uids.iter().map(|uid| Item::tree(Path::new(KUBELET_DIR).join("pods").join(uid)));
    let is_of_agent = |name: &&String| uids.iter().any(|uid| name.ends_with(&format!("_{uid}")));
    dirs.chain(pod_logs.iter().filter(is_of_agent).map(|name| Item::tree(Path::new(POD_LOGS_DIR).join(name)))).collect()
}
