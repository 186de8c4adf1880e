//! Taking everything away again that the inventory says was made, and nothing else.
//!
//! Every step is attempted whatever becomes of the others, and may be repeated; the inventory goes last, and only when
//! all else has gone, so that a reset that was cut off or failed is finished by the next one.

mod leftovers;
pub mod plan;
mod remove;
mod table;
#[cfg(test)]
mod tests;
mod unrecorded;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;

use super::machine::Machine;
use super::phase::Selected;
use super::runner::{Before, Command, PhaseEnd, run_phases};
use super::session::{PhaseLog, Session};
use super::stage::{remove_temporaries, transfer};
use super::state::inventory::{Inventory, Item, Kind};
use super::state::saved::Saved;
use super::state::{State, StateError};
use crate::agent;
use crate::config::spec::UnmountFlag;
use crate::error::chain;
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::host::fs::FsError;
use crate::host::paths::{
    ADOPTED_MANIFESTS, CONTAINER_LOGS_DIR, KUBELET_DIR, MANIFESTS_DIR, POD_LOGS_DIR, STATE_DIR, TMP_DIR,
};
use crate::kubelet::service::ServiceError;
use crate::manifests::ETCD;
use crate::runtime::cri::Sandboxes;
use crate::runtime::{ContainerRecord, ContainerRuntime, RuntimeError};
pub use leftovers::sweep;
use plan::{Observed, Step, plan};
pub use table::{OPTIONS, PHASES, Part, ResetOptions};

/// How long a container may take to stop. Its data go too, so it has nothing to save.
const GRACE: Duration = Duration::from_secs(5);
/// The same where their data stay: the default of a pod.
const GENTLE_GRACE: Duration = Duration::from_secs(30);
/// Where kubeadm puts etcd's data, for machines whose configuration was not kept.
const USUAL_ETCD_DIR: &str = "/var/lib/etcd";
/// How often what is to go is listed again: an agent that is dying may just have made one more, and a runtime refuses calls
/// while it undoes one that was cut off.
const ROUNDS: u32 = 6;
/// The pause after a round in which a call was refused: no event tells when a runtime has tidied up. It doubles.
const PAUSE: Duration = Duration::from_millis(250);

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
    unrecorded::half_restored(machine, inventory);
    let entries: Vec<_> = inventory.entries().cloned().collect();
    let observed = observe(paths, machine.live, inventory)?;
    let etcd = etcd_dir(machine);
    if wanted.has(Part::Etcd) && !wanted.has(Part::Node) && machine.live && machine.service.is_running()? {
        return Err(ResetError::EtcdRuns);
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

/// Carries the steps out, all of them.
///
/// # Errors
/// [`ResetError::Steps`] with every step that failed.
pub async fn run(machine: &mut Machine, reset: Reset) -> Result<(), ResetError> {
    let total = reset.steps().count();
    let touched: BTreeSet<PathBuf> =
        reset.session.items().iter().filter_map(|item| item.path.parent().map(PathBuf::from)).collect();
    let late = trees_without_a_step(&reset);
    let Reset { session, unmount_flags, mut phases, steps, forget } = reset;
    phases.retain(|one| steps.iter().any(|(part, _)| *part == one.phase.work));
    let mut run = Run { machine, steps, unmount_flags, touched, failed: Vec::new() };
    run_phases(&mut run, &phases).await?;
    if let Some(step) = forget {
        let gone = match run.failed.is_empty() {
            true => remove_late(&run.machine.paths, &late),
            false => Err(StepError::Kept),
        };
        if gone.is_ok() {
            session.discard()?;
        }
        run.note(step, gone.map(|()| true));
    }
    match run.failed {
        failed if failed.is_empty() => Ok(()),
        failed => Err(ResetError::Steps { failed, total }),
    }
}

/// One run.
struct Run<'a> {
    machine: &'a mut Machine,
    steps: Vec<(Part, Step)>,
    unmount_flags: Vec<UnmountFlag>,
    /// Directories in which something that was recorded is, or was.
    touched: BTreeSet<PathBuf>,
    failed: Vec<(Step, StepError)>,
}

impl Command for Run<'_> {
    type Work = Part;
    type Error = ResetError;

    /// Nothing is recorded: a reset has to work where nothing can be written, and the inventory tells the next one what is
    /// left.
    fn log(&mut self) -> (Option<PhaseLog<'_>>, &dyn Reporter) {
        (None, &*self.machine.reporter)
    }

    async fn before(&mut self, _: &[Selected<'static, Part>]) -> Result<Before, ResetError> {
        Ok(Before::Run)
    }

    async fn act(&mut self, selected: &Selected<'static, Part>) -> Result<PhaseEnd, ResetError> {
        let before = self.failed.len();
        let steps = self.steps.extract_if(.., |(part, _)| *part == selected.phase.work).collect::<Vec<_>>();
        for (_, step) in steps {
            if self.machine.stop.is_cancelled() {
                return Err(ResetError::Interrupted);
            }
            let done = match &step {
                // A kubelet would run its pods beside what is left of ours.
                Step::StartKubelet { .. } if !self.failed.is_empty() => Err(StepError::Kept),
                Step::Unmount(path) => remove::unmount(&self.machine.paths.on_host(path), &self.unmount_flags),
                step => act(self.machine, step, &self.touched).await,
            };
            self.note(step, done);
        }
        Ok(if self.failed.len() == before { PhaseEnd::Whole { changed: true } } else { PhaseEnd::Partly })
    }
}

impl Run<'_> {
    /// Reports what became of a step.
    fn note(&mut self, step: Step, done: Result<bool, StepError>) {
        match done {
            Ok(true) => self.machine.reporter.note("reset", step.to_string()),
            Ok(false) => {}
            Err(error) => {
                let text = format!("{step}: {}", chain(&error));
                self.machine.reporter.event(Event::Warning { phase: Some("reset".into()), text });
                self.failed.push((step, error));
            }
        }
    }
}

/// The trees that were recorded and not there when the steps were planned.
fn trees_without_a_step(reset: &Reset) -> Vec<PathBuf> {
    let planned: BTreeSet<&Path> = reset.steps().filter_map(Step::path).collect();
    let trees = reset.session.items().into_iter().filter(|item| item.kind == Kind::Tree);
    trees.map(|item| item.path.clone()).filter(|path| !planned.contains(path.as_path())).collect()
}

/// Removes what has come to be since the steps were planned: an agent that was being stopped may have made its own
/// directories (`trees`), and those of pods.
fn remove_late(paths: &Paths, trees: &[PathBuf]) -> Result<(), StepError> {
    trees.iter().try_for_each(|tree| remove::tree(&paths.on_host(tree)).map(drop))?;
    let root = paths.on_host(KUBELET_DIR);
    let pods = agent::claimed_pods(&root);
    pods.iter().try_for_each(|uid| agent::remove_pod_dir(&root, uid))?;
    remove::pod_logs(paths, &pods)
}

/// One step; returns whether there was anything to do.
async fn act(machine: &mut Machine, step: &Step, touched: &BTreeSet<PathBuf>) -> Result<bool, StepError> {
    let paths = &machine.paths;
    match step {
        Step::StopAgent { disable } => {
            let stopped = machine.service.stop();
            if *disable {
                machine.service.disable()?;
            }
            Ok(stopped? || *disable)
        }
        Step::RemoveContainers { runtime, owner, gently } => {
            let runtime = machine.runtimes.connect(runtime.as_deref())?;
            remove_pods(&*runtime, owner, *gently, paths).await
        }
        Step::RemoveSandboxes { socket, before } => {
            let runtime = machine.runtimes.sandboxes(socket).await?;
            let removed = remove_sandboxes(&*runtime, before).await;
            remove::empty_cgroups();
            removed
        }
        Step::RemoveImage { runtime, reference } => {
            let runtime = machine.runtimes.connect(runtime.as_deref())?;
            match runtime.remove_image(reference).await {
                Err(RuntimeError::NotFound { .. }) => Ok(false),
                done => Ok(done.map(|()| true)?),
            }
        }
        Step::RemoveFile(path) => Ok(machine.tree.remove(path)?),
        Step::RemoveTree(path) => remove::tree(&paths.on_host(path)),
        Step::RemoveDir(path) => {
            if touched.contains(path) {
                remove_temporaries(&paths.on_host(path))?;
            }
            let left = remove::directory(&paths.on_host(path))?;
            if !left.is_empty() {
                let text =
                    format!("kept {}: it holds what kubeboot did not make ({})", path.display(), left.join(", "));
                machine.reporter.warn("reset", text);
            }
            Ok(left.is_empty())
        }
        Step::PutManifestsBack(names) => {
            transfer(paths, &mut *machine.tree, names, ADOPTED_MANIFESTS, MANIFESTS_DIR)?;
            Ok(true)
        }
        Step::StartKubelet { enabled } => {
            machine.service.start()?;
            if !enabled {
                machine.service.disable()?;
            }
            Ok(true)
        }
        Step::RemoveLeftovers => leftovers::remove(paths, machine.service.is_running()?),
        Step::ReloadServices => {
            machine.service.reload()?;
            Ok(true)
        }
        // Done where they belong: by the run, and at its end.
        Step::Unmount(_) | Step::RemoveState(_) => Ok(false),
    }
}

/// The pods that have containers, and those that had some when a reset before this one was cut off.
async fn pod_uids(
    runtime: &dyn ContainerRuntime,
    owner: &str,
    paths: &Paths,
) -> Result<BTreeSet<String>, RuntimeError> {
    let containers = runtime.list(owner).await?.into_iter().map(|container| container.name.uid);
    Ok(containers.chain(agent::claimed_pods(&paths.on_host(KUBELET_DIR))).collect())
}

/// Stops and removes the owner's containers, and the cgroups of their pods.
async fn remove_pods(
    runtime: &dyn ContainerRuntime,
    owner: &str,
    gently: bool,
    paths: &Paths,
) -> Result<bool, StepError> {
    let pods = pod_uids(runtime, owner, paths).await?;
    let grace = if gently { GENTLE_GRACE } else { GRACE };
    // etcd last: an API server that ends without it takes all the time it is given.
    let removed = match remove_containers(runtime, owner, grace, |name| name != ETCD).await {
        Ok(any) => remove_containers(runtime, owner, grace, |_| true).await.map(|more| any || more),
        error => error,
    };
    agent::remove_cgroups(runtime.cgroup_driver().await?, &pods);
    if removed.is_ok() {
        remove::pod_logs(paths, &pods)?;
    }
    removed
}

/// Stops and removes those containers of the owner whose names are wanted, until none is left.
async fn remove_containers(
    runtime: &dyn ContainerRuntime,
    owner: &str,
    grace: Duration,
    which: fn(&str) -> bool,
) -> Result<bool, StepError> {
    let mut any = false;
    let mut left = 0;
    let mut last = None;
    for round in 0..ROUNDS {
        let mut containers = runtime.list(owner).await?;
        if runtime.needs_sandbox() {
            // What is in a sandbox is killed with it: each goes when it is empty.
            let inside = |one: &&ContainerRecord| !one.is_sandbox;
            let full: BTreeSet<String> = containers.iter().filter(inside).map(|one| one.name.uid.clone()).collect();
            containers.retain(|one| !one.is_sandbox || !full.contains(&one.name.uid));
        }
        containers.retain(|container| which(&container.name.container));
        left = containers.len();
        if left == 0 {
            return Ok(any);
        }
        any = true;
        let gone = containers.iter().map(|container| async {
            if container.state.is_running() {
                runtime.stop(&container.id, grace).await?;
            }
            runtime.remove(&container.id).await
        });
        last = refused(round, join_all(gone).await).await;
    }
    Err(last.map_or(StepError::StillThere { count: left }, StepError::Runtime))
}

/// The first call of a round that was refused, after a pause in which the runtime may come to itself.
async fn refused(round: u32, results: Vec<Result<(), RuntimeError>>) -> Option<RuntimeError> {
    let is_failure = |error: &RuntimeError| !matches!(error, RuntimeError::NotFound { .. });
    let error = results.into_iter().filter_map(Result::err).find(is_failure)?;
    if round + 1 < ROUNDS {
        tokio::time::sleep(PAUSE * 2_u32.pow(round)).await;
    }
    Some(error)
}

/// Stops and removes all sandboxes but those in `before`, until none is left; one that fails is tried again, as kubeadm
/// does.
async fn remove_sandboxes(runtime: &dyn Sandboxes, before: &[String]) -> Result<bool, StepError> {
    let mut any = false;
    let mut last = None;
    for round in 0..ROUNDS {
        let sandboxes = runtime.list().await?.into_iter().filter(|sandbox| !before.contains(&sandbox.id));
        let gone = join_all(sandboxes.map(|sandbox| async move { runtime.remove(&sandbox.id).await })).await;
        if gone.is_empty() {
            return Ok(any);
        }
        any = true;
        last = refused(round, gone).await;
    }
    let count = runtime.list().await?.iter().filter(|sandbox| !before.contains(&sandbox.id)).count();
    match last {
        _ if count == 0 => Ok(any),
        Some(error) => Err(error.into()),
        None => Err(StepError::StillThere { count }),
    }
}
