//! Carries a planned reset out, whatever becomes of single steps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::containers::{remove_pods, remove_sandboxes};
use super::plan::{Step, stays};
use super::{Machine, Part, Reset, ResetError, StepError, leftovers, remove};
use crate::agent;
use crate::config::spec::UnmountFlag;
use crate::error::chain;
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::host::paths::{ADOPTED_MANIFESTS, KUBELET_DIR, MANIFESTS_DIR};
use crate::runtime::RuntimeError;
use crate::workflow::phase::Selected;
use crate::workflow::runner::{Before, Command, PhaseEnd, run_phases};
use crate::workflow::session::PhaseLog;
use crate::workflow::stage::{remove_temporaries, transfer};
use crate::workflow::state::inventory::{Item, Kind};

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
    let entries = || reset.session.state().into_iter().flat_map(|state| state.inventory.entries());
    let goes = |item: &&Item| item.kind == Kind::Tree && !stays(entries(), item);
    let trees = reset.session.items().into_iter().filter(goes);
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
