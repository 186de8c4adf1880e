//! `init`: the phases of the table, run so that a run that was cut off anywhere is finished by the next one.

mod again;
mod generated_secrets;
pub mod dry_run;
mod join_instructions;
pub mod files;
mod images;
mod live;
pub mod objects;
pub mod options;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::error::failure;
use super::machine::Machine;
use super::machine::cluster::Site;
use super::phase::Selected;
use super::runner::{Before, Command, PhaseEnd, run_phases};
use super::session::{PhaseLog, Session};
use super::stage;
use super::state::inventory::Entry;
use super::state::saved::Saved;
use crate::config::ClusterSpec;
use crate::config::spec::NodeAgent;
use crate::event::{Event, Reporter};
use crate::host::tree::{MemoryTree, Tree};
use crate::pki::{PkiError, Problem, Refusal};

use crate::cluster::apply::Outcome as Applied;
use generated_secrets::GeneratedSecrets;
use table::{Directory, MakeObjects};

pub use super::error::{RunError as InitError, StepError};
pub use super::phase::PhaseSelection;
pub use table::{PHASES, Work};

/// What a run works from.
#[derive(Debug, Clone)]
pub struct InitRequest {
    /// The configuration.
    pub spec: ClusterSpec,
    /// The same as it was given, kept for upgrades; None keeps nothing.
    pub saved: Option<Saved>,
    /// What is to be run.
    pub what: PhaseSelection,
}

/// How an `init` ended, and what is to be printed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What the phase `show-join-command` has to say; it may hold a token and a key. Empty where that did not run.
    pub text: String,
}

/// How an `init` ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The phases have run.
    Done,
    /// This machine was initialised before, with this configuration, and is healthy.
    AlreadyInitialised,
}

/// One run of `init`.
pub struct Init<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) spec: &'a ClusterSpec,
    session: Session,
    pulls: Option<images::Pulls>,
    /// The phases' files, once they have been made in memory.
    staged: BTreeMap<&'static str, Staged>,
    now: Timestamp,
    command: String,
    saved: Option<&'a Saved>,
    /// Directories of other machines' or clusters', which a single phase was given: what is in them is not recorded.
    foreign: Vec<PathBuf>,
    /// What this run gives the cluster, once that has been made up.
    generated_secrets: Option<GeneratedSecrets>,
    /// The objects of the addons: they depend on nothing but the configuration, and are made before anything is written.
    addons: Option<objects::Objects>,
    /// Whether an `init` has come to its end on this machine before.
    initialised: bool,
    text: String,
}

/// The files of one phase, in memory.
struct Staged {
    files: MemoryTree,
    said: files::Files,
}

/// Runs what was ordered on `machine`.
///
/// A run that was killed, or failed, is finished by the next one: what its last phase had half written is taken back
/// first, and each phase leaves alone what is in place.
///
/// # Errors
/// See [`InitError`]. Unless it says otherwise, what was done stays, for the same command to go on from or for `reset`.
pub async fn run(machine: &mut Machine, order: &InitRequest) -> Result<Ended, InitError> {
    let InitRequest { spec, saved, what } = order;
    let command = what.command("init");
    let config = saved.as_ref().map(Saved::digest).unwrap_or_default();
    let (now, saved) = (Timestamp::now(), saved.as_ref().filter(|_| *what == PhaseSelection::Everything));
    let mut init = Init {
        machine,
        spec,
        session: Session::new(command.clone(), config),
        pulls: None,
        staged: BTreeMap::new(),
        now,
        command,
        saved,
        foreign: Vec::new(),
        generated_secrets: None,
        addons: None,
        initialised: false,
        text: String::new(),
    };
    let result = init.run(what).await;
    let text = std::mem::take(&mut init.text);
    init.forget_if_nothing_was_done().await;
    result.map(|outcome| Ended { outcome, text })
}

impl Init<'_> {
    async fn run(&mut self, what: &PhaseSelection) -> Result<Outcome, InitError> {
        let selected = resolved(what.of(&PHASES, &self.spec.skip_phases, Some(&*self.machine.reporter))?)?;
        if *what != PhaseSelection::Everything {
            self.foreign = foreign_dirs(self.spec, &*self.machine.tree);
        }
        let waits = selected.iter().any(|one| one.phase.name == "wait-control-plane");
        if waits && self.machine.live && self.spec.kubeboot.node_agent == NodeAgent::Kubelet {
            return Err(InitError::Kubelet);
        }
        // What is wrong with the settings of the addons is said now, not when the control plane is up.
        if let Some(addon) = selected.iter().find(|one| one.phase.name == "addon") {
            let made = objects::addon_objects(self.spec, &self.machine.proxy_env, &addon.children);
            self.addons = Some(made.map_err(|source| failure("addon", source))?);
        }
        // A killed run's directory is there already; on a fresh machine preflight comes before anything is written.
        if self.session.open(&self.machine.paths)? {
            if self.session.recover(&self.machine.paths).map_err(InitError::Recover)? {
                self.machine.reporter.note("init", "took back what an interrupted run had half written".into());
            }
            self.refuse_half_an_upgrade()?;
            let is_damaged = self.look_at_record();
            if *what == PhaseSelection::Everything && self.is_initialised(&selected).await? {
                if let Some(saved) = self.saved.filter(|_| is_damaged) {
                    saved.write(&mut *self.machine.tree).map_err(|error| failure("preflight", error.into()))?;
                }
                self.forget_drawn();
                return Ok(Outcome::AlreadyInitialised);
            }
        }
        run_phases(self, &selected).await?;
        self.await_images().await?;
        self.session.finish()?;
        self.forget_drawn();
        Ok(Outcome::Done)
    }

    /// Makes the files of all phases in memory: whatever is wrong with any of them shows before the first is written.
    fn stage(&mut self, selected: &[Selected<'static, Work>]) -> Result<(), InitError> {
        let mut tree = MemoryTree::staging(self.machine.paths.clone());
        let mut refused: Option<(&'static str, Vec<Refusal>)> = None;
        for one in selected {
            let phase = one.phase.name;
            let Some(write) = one.phase.work.files else { continue };
            let before = tree.clone();
            let said = match write(&self.input(), &one.children, &mut tree) {
                Ok(said) => said,
                // With certificates made elsewhere, all that are missing are reported at once.
                Err(StepError::Pki(PkiError::Refused { refusals })) => {
                    let first = refused.is_none();
                    // That refused certificates are missing says nothing new.
                    let news = refusals.into_iter().filter(|one| first || one.problem != Problem::NoAuthority);
                    refused.get_or_insert((phase, vec![])).1.extend(news);
                    continue;
                }
                Err(_) if refused.is_some() => break,
                Err(source) => return Err(failure(phase, source)),
            };
            self.staged.insert(phase, Staged { files: tree.since(&before), said });
        }
        match refused {
            Some((phase, refusals)) => Err(failure(phase, PkiError::Refused { refusals }.into())),
            None => Ok(()),
        }
    }

    fn input(&self) -> files::Input<'_> {
        files::Input {
            spec: self.spec,
            proxy_env: &self.machine.proxy_env,
            program: &self.machine.program,
            now: self.now,
        }
    }

    /// What a phase does besides files and objects, where it may.
    fn action(&self, work: Work) -> Option<table::Act> {
        work.act.filter(|_| self.machine.live || work.anywhere)
    }

    /// What makes a phase's objects, where there is a cluster for them.
    fn objects(&self, work: Work) -> Option<MakeObjects> {
        work.objects.filter(|_| self.machine.live)
    }

    /// Writes the files of a phase as one batch.
    fn write_staged(&mut self, phase: &'static str, work: Work) -> Result<bool, StepError> {
        let Some(Staged { files, said }) = self.staged.remove(phase) else { return Ok(false) };
        let changed = match work.dir.is_some_and(|dir| self.foreign.iter().any(|one| one == (dir.of)(self.spec))) {
            true => stage::write(&files, &mut *self.machine.tree)?,
            false => {
                self.begin()?;
                let mut items = said.will_be_made;
                items.retain(|item| !self.foreign.iter().any(|dir| item.path.starts_with(dir)));
                self.session.commit(self.machine, &files, said.entries, &items)?
            }
        };
        let machine = &*self.machine;
        said.notes.into_iter().for_each(|text| machine.reporter.note(phase, text));
        said.warnings.into_iter().for_each(|text| machine.reporter.warn(phase, text));
        Ok(changed)
    }

    /// Journals that this command begins, where it has not yet, and keeps what it was given.
    fn begin(&mut self) -> Result<(), StepError> {
        if !self.session.has_started() {
            self.session.state_mut(&self.machine.paths)?;
            if let Some(saved) = self.saved {
                saved.write(&mut *self.machine.tree)?;
            }
        }
        Ok(())
    }

    /// Makes the objects of a phase and has them written.
    async fn write_objects(
        &mut self,
        phase: &'static str,
        make: MakeObjects,
        select: &[&'static str],
    ) -> Result<bool, StepError> {
        let generated_secrets = self.draw()?;
        let machine = &*self.machine;
        let input = objects::Input {
            spec: self.spec,
            tree: &*machine.tree,
            generated_secrets: &generated_secrets,
            proxy_env: &machine.proxy_env,
            now: self.now,
        };
        let made = match self.addons.take_if(|_| phase == "addon") {
            Some(made) => made,
            None => make(&input, select)?,
        };
        let written = tokio::select! {
            written = machine.cluster.apply(Site { paths: &machine.paths, spec: self.spec }, &made.objects) => {
                written.map_err(StepError::Cluster)?
            }
            () = machine.stop.cancelled() => return Err(StepError::Interrupted),
        };
        for (object, applied) in made.objects.iter().zip(&written) {
            if applied.outcome == Applied::Absent {
                machine.reporter.note(phase, live::not_registered(object));
            }
            tracing::debug!(phase, object = %object.key(), outcome = ?applied.outcome, "written");
        }
        made.notes.into_iter().for_each(|text| machine.reporter.note(phase, text));
        made.warnings.into_iter().for_each(|text| machine.reporter.warn(phase, text));
        if let Some(key) = made.certificate_key {
            machine.reporter.event(Event::CertificateKey { key });
        }
        self.text.push_str(&made.text);
        Ok(written.iter().any(|applied| matches!(applied.outcome, Applied::Created | Applied::Updated)))
    }

    /// What this run gives the cluster; an earlier one that was cut off may have made it up.
    fn draw(&mut self) -> Result<GeneratedSecrets, StepError> {
        if self.generated_secrets.is_none() {
            let generated_secrets = match self.session.state() {
                Some(_) => GeneratedSecrets::recall_or_draw(self.spec, &self.command, &mut *self.machine.tree)?,
                // One phase on a machine that is not ours: nothing of ours stays there.
                None => GeneratedSecrets::new(self.spec)?,
            };
            self.generated_secrets = Some(match self.initialised {
                true => generated_secrets.without_random_tokens(self.spec),
                false => generated_secrets,
            });
        }
        self.generated_secrets.clone().map_or_else(|| GeneratedSecrets::new(self.spec), Ok)
    }

    /// The run has come to its end; whatever goes wrong here is no failure of it, and the next run tries again.
    fn forget_drawn(&mut self) {
        if self.session.state().is_some()
            && let Err(error) = GeneratedSecrets::forget(&self.command, &mut *self.machine.tree)
        {
            self.machine.reporter.warn("init", error.to_string());
        }
    }

    /// Where nothing has been made after all, nothing of ours stays.
    async fn forget_if_nothing_was_done(self) {
        let Some(state) = self.session.state() else { return };
        let mut images = Vec::new();
        for entry in state.inventory.entries() {
            match entry {
                Entry::Opened { .. } => {}
                Entry::Image { runtime, reference } => images.push((runtime, reference)),
                _ => return,
            }
        }
        for (runtime, reference) in images {
            let Ok(runtime) = self.machine.runtimes.connect(runtime.as_deref()) else { return };
            if !matches!(runtime.image(reference).await, Ok(None)) {
                return;
            }
        }
        if let Err(error) = self.session.discard() {
            self.machine.reporter.warn("init", error.to_string());
        }
    }
}

impl Command for Init<'_> {
    type Work = Work;
    type Error = InitError;

    fn log(&mut self) -> (Option<PhaseLog<'_>>, &dyn Reporter) {
        (Some(self.session.phases()), &*self.machine.reporter)
    }

    async fn before(&mut self, rest: &[Selected<'static, Work>]) -> Result<Before, InitError> {
        let Some(Selected { phase, .. }) = rest.first() else { return Ok(Before::Run) };
        if self.machine.stop.is_cancelled() {
            return Err(InitError::Interrupted { phase: phase.name });
        }
        let work = phase.work;
        if work.files.is_none() && self.action(work).is_none() && self.objects(work).is_none() {
            let reason = format!("{} is not the running machine", self.machine.paths.root().display());
            return Ok(Before::Skip { reason });
        }
        if work.files.is_some() {
            if self.staged.is_empty() {
                self.stage(rest)?;
            }
            self.await_images().await?;
        }
        Ok(Before::Run)
    }

    async fn act(&mut self, selected: &Selected<'static, Work>) -> Result<PhaseEnd, InitError> {
        let (phase, work) = (selected.phase.name, selected.phase.work);
        let failed = |source| failure(phase, source);
        let mut changed = false;
        if work.files.is_some() {
            changed = self.write_staged(phase, work).map_err(failed)?;
        }
        if let Some(make) = self.objects(work) {
            changed |= self.write_objects(phase, make, &selected.children).await.map_err(failed)?;
        }
        if let Some(act) = self.action(work) {
            changed |= act(self, changed).await.map_err(failed)?;
        }
        Ok(PhaseEnd::Whole { changed })
    }
}

/// The directories in `spec` that are neither kubeadm's own nor those that this machine was initialised with.
fn foreign_dirs(spec: &ClusterSpec, tree: &dyn Tree) -> Vec<PathBuf> {
    let own = Saved::read(tree).ok().flatten().and_then(|saved| saved.spec().ok()).map(|(spec, _)| spec);
    let dirs = PHASES.list.iter().filter_map(|phase| phase.work.dir);
    let is_foreign = |dir: &Directory| {
        let given = (dir.of)(spec);
        given != Path::new(dir.usual) && own.as_ref().is_none_or(|own| (dir.of)(own) != given)
    };
    dirs.filter(is_foreign).map(|dir| (dir.of)(spec).to_owned()).collect()
}

/// The selected phases, if every one that another cannot do without is among them.
pub(super) fn resolved(run: Vec<Selected<'static, Work>>) -> Result<Vec<Selected<'static, Work>>, InitError> {
    let has = |name: &str| run.iter().any(|one| one.phase.name == name);
    let needs = run.iter().flat_map(|one| one.phase.work.needs.iter().map(|needed| (*needed, one.phase.name)));
    let missing: Vec<_> = needs.filter(|(needed, _)| !has(needed)).collect();
    if missing.is_empty() { Ok(run) } else { Err(InitError::Unresolved { missing }) }
}
