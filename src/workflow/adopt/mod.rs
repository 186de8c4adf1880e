//! Taking over a node that kubeadm made: the same manifests, certificates and data, run by our agent in the kubelet's
//! place; and giving it back.
//!
//! Nothing of kubeadm's is changed. A drop-in puts the agent into the kubelet's own unit, and the manifests are moved
//! aside for as long as the kubelet needs to stop their pods. Giving back is what the inventory makes a reset do.

mod back;
pub mod manifests;
pub mod plan;
pub mod processes;
mod settings;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::machine::Machine;
use super::node_files::made_by_agent;
use super::phase::{PhaseError, PhaseSelection, Selected};
use super::reset::plan::is_adopted;
use super::reset::{self, ResetError};
use super::runner::{Before, Command, PhaseEnd, run_phases};
use super::session::{PhaseLog, Session, with_missing_parents};
use super::stage::transfer;
use super::state::inventory::{Entry, Item};
use super::state::{State, StateError};
use crate::agent::control::expect::{Expectation, Verdict, WaitError, until_met};
use crate::config::spec::PullPolicy;
use crate::event::Reporter;
use crate::host::fs::FsError;
use crate::host::paths::{ADOPTED_MANIFESTS, KUBELET_ADOPTED, KUBELET_CONFIG, KUBELET_DIR, MANIFESTS_DIR};
use crate::host::process::ProcessError;
use crate::kubelet::service::ServiceError;
use crate::kubelet::unit::{self, UnitError};
use crate::runtime::endpoint::Endpoint;
use crate::runtime::images::{ImagesError, ensure_images, present};
use crate::runtime::{ContainerRuntime, RuntimeError};
pub use back::{give_back, prepare_back};
use manifests::Found;
use plan::{Observed, PHASES, Part, Step, plan};
use processes::{Processes, all_ended};

/// The phase that events name.
const PHASE: &str = "adopt";
/// How long a kubelet may take to stop its pods: what they may take themselves, and to notice.
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// How long the control plane may take to be healthy, as in `init`.
const HEALTH_LIMIT: Duration = Duration::from_secs(240);
/// How often a kubelet's pods are looked for: no event tells of a process that begins.
const LOOK: Duration = Duration::from_millis(200);

/// What everybody should know before.
const WITHOUT_A_KUBELET: &str = "pods of the cluster that the kubelet has started here run on without it until \
                                 `kubeboot adopt --back`, whatever the cluster wants of them: drain the node first";

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct AdoptRequest {
    /// Address of the runtime; None for the default.
    pub docker_host: Option<String>,
}

/// How it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The agent runs the node's static pods.
    Adopted,
    /// It did so before.
    AlreadyAdopted,
}

/// Why a node was not taken over, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Below another root there is no kubelet to take over from.
    #[error("a node is taken over on the running machine alone, not below --rootfs")]
    NotLive,
    /// No one keeps a kubelet running here.
    #[error("no systemd runs here, so there is no unit of a kubelet to take over")]
    NoServiceManager,
    /// Not a node of kubeadm's.
    #[error("{} is not there: this machine is no control-plane node that kubeadm made", path.display())]
    NoNode {
        /// What is missing.
        path: PathBuf,
    },
    /// The kubelet's static pods are elsewhere.
    #[error("staticPodPath in {KUBELET_CONFIG} is {path:?}: only nodes with {MANIFESTS_DIR} can be taken over")]
    OtherPath {
        /// What is there.
        path: String,
    },
    /// No one runs the manifests now.
    #[error(
        "the kubelet does not run, so its control plane cannot be healthy: start it first (systemctl start kubelet)"
    )]
    NotRunning,
    /// One of our own.
    #[error("this node was made by kubeboot, and its agent runs the static pods already")]
    MadeByKubeboot,
    /// There is nothing to give back.
    #[error("this node was not taken over by kubeboot adopt: there is nothing to give back")]
    NotAdopted,
    /// A manifest that no one can run, or that cannot be moved.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// Which one.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Images that the agent's runtime has not got.
    #[error("the agent runs the pods with Docker, which needs their images")]
    Images(#[from] ImagesError),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A phase that is none.
    #[error(transparent)]
    Phase(#[from] PhaseError),
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file.
    #[error(transparent)]
    File(#[from] FsError),
    /// The kubelet's service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The drop-in.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kubelet has not stopped its pods.
    #[error("the kubelet has not stopped its static pods within {} s: processes {pids:?} still run", limit.as_secs())]
    StillRunning {
        /// Which processes are left.
        pids: Vec<u32>,
        /// The limit.
        limit: Duration,
    },
    /// The agent could not run them.
    #[error("the control plane did not become healthy")]
    Unhealthy(#[source] WaitError),
    /// The kubelet did not start them again.
    #[error("the kubelet has not started {} again within {} s: see journalctl -u kubelet", missing.join(", "),
        limit.as_secs())]
    NotBack {
        /// Manifests whose processes are missing.
        missing: Vec<String>,
        /// The limit.
        limit: Duration,
    },
    /// The kubelet has started it, and it does not do its work.
    #[error("the API server has not answered an administrator within {} s: see journalctl -u kubelet", limit.as_secs())]
    NotServing {
        /// The limit.
        limit: Duration,
    },
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
    /// It failed, and everything is as it was.
    #[error("the node was not taken over, and the kubelet runs its pods as before")]
    Undone(#[source] Box<AdoptError>),
    /// It failed, and so did going back.
    #[error("the node was not taken over, and going back failed too: {undo}")]
    Stuck {
        /// Why it was not taken over.
        #[source]
        source: Box<AdoptError>,
        /// Why going back failed.
        undo: ResetError,
    },
    /// Giving back failed.
    #[error(transparent)]
    Back(#[from] ResetError),
}

/// What taking over would do: the steps, and the manifests. None where it is done already.
///
/// # Errors
/// Everything that makes the machine unfit; nothing has been touched then.
pub fn prepare(machine: &Machine) -> Result<Vec<Step>, AdoptError> {
    let session = Session::attach(&machine.paths)?;
    check(machine, session.as_ref().and_then(Session::state))?;
    Ok(plan(&observe(machine)?))
}

/// Takes the node over.
///
/// A run that was killed is finished by the next one, or taken back by [`give_back`]. One that fails takes itself back.
///
/// # Errors
/// See [`AdoptError`].
pub async fn run(
    machine: &mut Machine,
    order: &AdoptRequest,
    processes: &dyn Processes,
) -> Result<Outcome, AdoptError> {
    State::sweep(&machine.paths)?;
    let mut session = Session::new(PHASE, "");
    session.open(&machine.paths)?;
    check(machine, session.state())?;
    let found = found(machine, &observe(machine)?)?;
    let runtime = machine.runtimes.connect(order.docker_host.as_deref())?;
    let images: Vec<String> = found.iter().flat_map(Found::images).collect();
    let missing: Vec<String> =
        present(&*runtime, &images).await?.into_iter().filter(|(_, image)| image.is_none()).map(|(i, _)| i).collect();
    let had_finished = session.state().is_some_and(|state| state.journal.has_finished(PHASE));
    session.state_mut(&machine.paths)?;
    let images = Images { runtime, all: images, missing };
    let mut run = Run { machine, session, order, processes, found, images, steps: None };
    let phases = PhaseSelection::Everything.of(&PHASES, &[], None)?;
    let done = run_phases(&mut run, &phases).await;
    let Run { machine, mut session, .. } = run;
    match done {
        Ok(()) => {
            session.finish()?;
            Ok(if had_finished { Outcome::AlreadyAdopted } else { Outcome::Adopted })
        }
        // What ran before this run goes on running.
        Err(error) if had_finished => Err(error),
        Err(error) => {
            drop(session);
            Err(take_back(machine, error).await)
        }
    }
}

/// Whether kubeadm, and not kubeboot, has made a node of this machine, and a kubelet runs it.
pub fn is_foreign_node(machine: &Machine) -> bool {
    matches!(Session::attach(&machine.paths), Ok(None)) && check(machine, None).is_ok()
}

/// Why this machine cannot be taken over, if there is a reason.
fn check(machine: &Machine, state: Option<&State>) -> Result<(), AdoptError> {
    let is_begun = state.is_some_and(|state| is_adopted(state.inventory.entries()));
    // Images may have been pulled by a run that came no further.
    let is_trace = |entry: &Entry| matches!(entry, Entry::Opened { .. } | Entry::Image { .. });
    if !machine.live {
        return Err(AdoptError::NotLive);
    }
    if state.is_some_and(|state| !state.inventory.entries().all(is_trace)) && !is_begun {
        return Err(AdoptError::MadeByKubeboot);
    }
    if machine.service.name() == "none" {
        return Err(AdoptError::NoServiceManager);
    }
    let config = Path::new(KUBELET_CONFIG);
    let Some(content) = machine.tree.read(config)? else { return Err(AdoptError::NoNode { path: config.to_owned() }) };
    let refused = |reason: String| AdoptError::Manifest { path: config.to_owned(), reason };
    let text = String::from_utf8_lossy(&content);
    let config = crate::yaml::to_value(&text).map_err(|e| refused(e.to_string()))?;
    let path = config.get("staticPodPath").and_then(serde_json::Value::as_str).unwrap_or_default();
    if path.trim_end_matches('/') != MANIFESTS_DIR {
        return Err(AdoptError::OtherPath { path: path.to_owned() });
    }
    let observed = observe(machine)?;
    if observed.in_place.is_empty() && observed.aside.is_empty() {
        return Err(AdoptError::NoNode { path: Path::new(MANIFESTS_DIR).join("*.yaml") });
    }
    if !is_begun && !machine.service.is_running()? {
        return Err(AdoptError::NotRunning);
    }
    Ok(())
}

fn observe(machine: &Machine) -> Result<Observed, AdoptError> {
    Ok(Observed {
        in_place: manifests::names(&machine.paths, MANIFESTS_DIR)?,
        aside: manifests::names(&machine.paths, ADOPTED_MANIFESTS)?,
        installed: machine.tree.exists(Path::new(KUBELET_ADOPTED)),
        running: machine.service.is_running()?,
    })
}

fn found(machine: &Machine, observed: &Observed) -> Result<Vec<Found>, AdoptError> {
    let mut names: Vec<String> = observed.in_place.iter().chain(&observed.aside).cloned().collect();
    names.sort();
    names.dedup();
    manifests::read(&*machine.tree, names.into_iter())
}

/// Puts everything back as it was.
async fn take_back(machine: &mut Machine, error: AdoptError) -> AdoptError {
    let source = Box::new(error);
    let planned = match reset::prepare(machine, &reset::ResetOptions::everything()) {
        Ok(Some(planned)) => planned,
        Ok(None) => return AdoptError::Undone(source),
        Err(undo) => return AdoptError::Stuck { source, undo },
    };
    // What was asked to stop is to go back all the same.
    let stop = std::mem::take(&mut machine.stop);
    let undone = reset::run(machine, planned).await;
    machine.stop = stop;
    match undone {
        // Nothing had been touched.
        Ok(()) if matches!(*source, AdoptError::Images(_)) => *source,
        Ok(()) => AdoptError::Undone(source),
        Err(undo) => AdoptError::Stuck { source, undo },
    }
}

/// The images of the node's static pods.
struct Images {
    runtime: Arc<dyn ContainerRuntime>,
    all: Vec<String>,
    /// Those that the runtime has not got.
    missing: Vec<String>,
}

/// One run.
struct Run<'a> {
    machine: &'a mut Machine,
    session: Session,
    order: &'a AdoptRequest,
    processes: &'a dyn Processes,
    found: Vec<Found>,
    images: Images,
    /// What is left to do; None before it is known.
    steps: Option<Vec<Step>>,
}

impl Command for Run<'_> {
    type Work = Part;
    type Error = AdoptError;

    fn log(&mut self) -> (Option<PhaseLog<'_>>, &dyn Reporter) {
        (Some(self.session.phases()), &*self.machine.reporter)
    }

    async fn before(&mut self, _: &[Selected<'static, Part>]) -> Result<Before, AdoptError> {
        Ok(Before::Run)
    }

    async fn act(&mut self, selected: &Selected<'static, Part>) -> Result<PhaseEnd, AdoptError> {
        if selected.phase.work == Part::Images {
            return self.get_images().await.map(|changed| PhaseEnd::Whole { changed });
        }
        if selected.phase.work == Part::Settings {
            return Ok(PhaseEnd::Whole { changed: self.keep_settings().await });
        }
        let mut all = match self.steps.take() {
            Some(steps) => steps,
            None => self.begin()?,
        };
        let steps: Vec<Step> = all.extract_if(.., |step| step.part() == selected.phase.work).collect();
        self.steps = Some(all);
        let changed = !steps.is_empty();
        for step in steps {
            if self.machine.stop.is_cancelled() {
                return Err(AdoptError::Interrupted);
            }
            self.machine.reporter.note(PHASE, step.to_string());
            self.act_on(&step).await?;
        }
        Ok(PhaseEnd::Whole { changed })
    }
}

impl Run<'_> {
    /// Makes sure that the runtime has the images, before anything else is touched; returns whether any was missing.
    async fn get_images(&mut self) -> Result<bool, AdoptError> {
        let Images { runtime, all, missing } = &mut self.images;
        let (address, missing) = (&self.order.docker_host, std::mem::take(missing));
        let any = !missing.is_empty();
        let entry = |reference| Entry::Image { runtime: address.clone(), reference };
        self.session.expect(missing.into_iter().map(entry).collect())?;
        ensure_images(&**runtime, all, PullPolicy::IfNotPresent, &*self.machine.reporter).await?;
        Ok(any)
    }

    /// Records the run; returns what it has to do.
    fn begin(&mut self) -> Result<Vec<Step>, AdoptError> {
        self.record()?;
        let observed = observe(self.machine)?;
        if !observed.installed {
            self.machine.reporter.warn(PHASE, WITHOUT_A_KUBELET.to_owned());
        }
        Ok(plan(&observed))
    }

    /// Writes down what a reset has to take away again.
    fn record(&mut self) -> Result<(), AdoptError> {
        let enabled_before = self.machine.service.is_enabled()?;
        let items = [vec![Item::file(KUBELET_ADOPTED)], made_by_agent(true)].concat();
        let entries = vec![
            Entry::Adopted,
            Entry::Service { enabled_before },
            Entry::Containers { runtime: self.order.docker_host.clone(), owner: KUBELET_DIR.to_owned() },
            Entry::Expected { items: with_missing_parents(&items, &*self.machine.tree) },
        ];
        Ok(self.session.expect(entries)?)
    }

    async fn act_on(&mut self, step: &Step) -> Result<(), AdoptError> {
        let Machine { paths, tree, service, program, .. } = &mut *self.machine;
        match step {
            Step::SetAside(names) => {
                tree.make_dir(Path::new(ADOPTED_MANIFESTS), 0o700)?;
                Ok(transfer(paths, &mut **tree, names, MANIFESTS_DIR, ADOPTED_MANIFESTS)?)
            }
            Step::AwaitEnd => self.await_end(STOP_LIMIT).await,
            Step::StopKubelet => {
                service.stop()?;
                // Nothing starts them any more: what runs now would run beside the agent's.
                self.await_end(Duration::ZERO).await
            }
            Step::Install => {
                let docker_host = Endpoint::Docker(self.order.docker_host.clone()).docker_host();
                let drop_in = unit::render_adopted(program, docker_host.as_deref())?;
                tree.write(Path::new(KUBELET_ADOPTED), drop_in.as_bytes(), 0o644)?;
                Ok(())
            }
            Step::PutBack(names) => Ok(transfer(paths, &mut **tree, names, ADOPTED_MANIFESTS, MANIFESTS_DIR)?),
            Step::StartAgent => {
                let mut how = service.start()?;
                if !service.outlives_machine() {
                    how += "; after a restart of the machine run `kubeboot adopt` again";
                }
                self.machine.reporter.note(PHASE, how);
                Ok(())
            }
            Step::AwaitHealth => self.await_health().await,
        }
    }

    async fn await_end(&self, limit: Duration) -> Result<(), AdoptError> {
        let is_aside = |one: &&Found| !self.machine.tree.exists(&Path::new(MANIFESTS_DIR).join(&one.name));
        let commands: Vec<Vec<String>> = self.found.iter().filter(is_aside).flat_map(Found::commands).collect();
        let left = tokio::select! {
            left = all_ended(self.processes, &commands, limit) => left?,
            () = self.machine.stop.cancelled() => return Err(AdoptError::Interrupted),
        };
        if left.is_empty() { Ok(()) } else { Err(AdoptError::StillRunning { pids: left, limit }) }
    }

    async fn await_health(&self) -> Result<(), AdoptError> {
        let wants: Vec<Expectation> = self.found.iter().filter_map(Found::expectation).collect();
        let reporter = self.machine.reporter.clone();
        let mut changed = move |want: &Expectation, verdict: &Verdict| reporter.event(want.event(verdict));
        tokio::select! {
            healthy = until_met(&*self.machine.health, &wants, HEALTH_LIMIT, &mut changed) => {
                healthy.map_err(AdoptError::Unhealthy)
            }
            () = self.machine.stop.cancelled() => Err(AdoptError::Interrupted),
        }
    }
}
