//! `join`: the phases of the table, run so that a run that was cut off anywhere is finished by the next one, and so that
//! a reset takes all of it away again.

pub mod dry_run;
pub mod files;
mod live;
pub mod options;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::error::failure;
pub use super::error::{RunError as JoinError, StepError};
use super::machine::Machine;
use super::machine::joining::{Access, Credentials, Found};
pub use super::phase::PhaseSelection;
use super::phase::Selected;
use super::runner::{Before, Command, PhaseEnd, run_phases};
use super::session::{PhaseLog, Session};
use crate::cluster::discovery::kubeconfig::ClusterInfo;
use crate::config::spec::JoinSpec;
use crate::event::Reporter;
use crate::host::digest::sha256;
use crate::host::facts::{Facts, Interest};
use crate::host::tree::MemoryTree;
use crate::pki::{Kubeconfig, inspect, text_in};
use crate::release::{KubeletRow, KubernetesVersion, kubelet_row};
use crate::workflow::state::inventory::Entry;
use crate::workflow::state::journal::Record;
use files::{BOOTSTRAP_CONF, KUBELET_CONF};
pub use table::{PHASES, Work};

/// One run of `join`.
pub struct Join<'a> {
    machine: &'a mut Machine,
    spec: &'a JoinSpec,
    session: Session,
    found: Option<Found>,
}

/// Runs `what` on `machine`, which has to be the running one.
///
/// A run that was killed, or failed, is finished by the next one.
///
/// # Errors
/// See [`JoinError`]. What was done stays, for the same command to go on from or for `reset`.
pub async fn run(machine: &mut Machine, spec: &JoinSpec, what: &PhaseSelection) -> Result<(), JoinError> {
    refuse_control_plane(spec)?;
    let selected = what.of(&PHASES, &spec.skip_phases, Some(&*machine.reporter))?;
    if !machine.live {
        return Err(JoinError::NotLive { root: machine.paths.root().to_owned() });
    }
    let config = sha256(spec.node.name.as_bytes());
    let mut session = Session::new(what.command("join"), config);
    session.open(&machine.paths).map_err(|error| JoinError::Recover(error.into()))?;
    if session.recover(&machine.paths).map_err(JoinError::Recover)? {
        machine.reporter.note("join", "took back what an interrupted run had half written".into());
    }
    let mut join = Join { machine, spec, session, found: None };
    let result = join.run(&selected).await;
    let Join { machine, session, .. } = join;
    if let Err(error) = session.close() {
        machine.reporter.warn("join", error.to_string());
    }
    result
}

fn refuse_control_plane(spec: &JoinSpec) -> Result<(), JoinError> {
    if spec.control_plane.is_some() { Err(JoinError::ControlPlane) } else { Ok(()) }
}

impl Join<'_> {
    async fn run(&mut self, selected: &[Selected<'static, Work>]) -> Result<(), JoinError> {
        if let Some(state) = self.session.state() {
            let is_init =
                |record: &Record| matches!(record, Record::Begun { command, .. } if command.starts_with("init"));
            if state.journal.records().iter().any(is_init) {
                return Err(JoinError::IsControlPlane);
            }
        }
        run_phases(self, selected).await?;
        Ok(self.session.finish()?)
    }

    /// The kubelet on this machine: its program, and what it takes.
    fn kubelet(&self, control_plane: &KubernetesVersion) -> Result<(PathBuf, &'static KubeletRow), StepError> {
        let interest = Interest { kubelet: true, programs: vec!["kubelet"], ..Interest::default() };
        let facts = self.machine.facts.gather(&self.machine.paths, &interest);
        kubelet(&facts, control_plane)
    }

    /// The kubeconfig that this machine's kubelet has got by an earlier run of ours.
    fn own_kubeconfig(&self) -> Result<Option<Access>, StepError> {
        if !self.session.owns(Path::new(KUBELET_CONF)) {
            return Ok(None);
        }
        let Some(text) = self.machine.tree.read(Path::new(KUBELET_CONF))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&text).into_owned();
        let Ok(info) = ClusterInfo::parse(&text) else { return Ok(None) };
        if let Some(name) = self.certified_name(&text)
            && name != self.spec.node.name
        {
            return Err(StepError::OtherName { is: name, wanted: self.spec.node.name.clone() });
        }
        Ok(Some(Access { kubeconfig: Credentials::new(text), ca: info.ca }))
    }

    /// The node that the kubelet's certificate is for.
    fn certified_name(&self, kubeconfig: &str) -> Option<String> {
        let config = Kubeconfig::parse(kubeconfig.as_bytes()).ok()?;
        let file = text_in(config.user()?.1, "client-certificate").ok()??;
        let pem = std::fs::read(self.machine.paths.on_host(file)).ok()?;
        let name = inspect::read(&pem).ok()?.into_iter().next()?.common_name?;
        name.strip_prefix("system:node:").map(str::to_owned)
    }

    /// Finds the cluster, once a run. A kubelet that is a member already vouches for it; the token may have expired.
    async fn find(&mut self) -> Result<&Found, StepError> {
        let found = match self.found.take() {
            Some(found) => found,
            None => self.ask().await?,
        };
        Ok(self.found.insert(found))
    }

    async fn ask(&self) -> Result<Found, StepError> {
        let own = self.own_kubeconfig()?;
        let machine = &*self.machine;
        let asked = async {
            let access = match &own {
                Some(own) => own.clone(),
                None => machine.joining.discover(self.spec, &*machine.reporter).await.map_err(StepError::Discovery)?,
            };
            let limit = self.spec.timeouts.kubernetes_api_call;
            let facts = machine.joining.read(&access.kubeconfig, limit).await.map_err(StepError::Settings)?;
            Ok(Found {
                bootstrap: own.is_none().then_some(access.kubeconfig),
                ca: access.ca,
                version: facts.version,
                kubelet_config: facts.kubelet_config,
            })
        };
        tokio::select! {
            found = asked => found,
            () = machine.stop.cancelled() => Err(StepError::Interrupted),
        }
    }

    /// Makes the kubelet's files in memory and writes them as one batch; returns whether any was new.
    fn write_files(&mut self, before: Vec<String>) -> Result<bool, StepError> {
        let Some(found) = &self.found else { return Ok(false) };
        let (program, row) = self.kubelet(&found.version)?;
        let mut tree = MemoryTree::staging(self.machine.paths.clone());
        let session = &self.session;
        let input = files::Input { spec: self.spec, found, program: &program, row, owns: &|path| session.owns(path) };
        let said = files::kubelet(&input, &mut tree)?;
        let mut entries = said.entries;
        entries.push(Entry::Service { enabled_before: self.machine.service.is_enabled()? });
        let is_known = |entry: &Entry| matches!(entry, Entry::Sandboxes { .. });
        if !self.session.state().is_some_and(|state| state.inventory.entries().any(is_known)) {
            entries.push(Entry::Sandboxes { socket: files::socket(self.spec).to_owned(), before });
        }
        let changed = self.session.commit(self.machine, &tree, entries, &said.will_be_made)?;
        said.notes.into_iter().for_each(|text| self.machine.reporter.note("kubelet-start", text));
        Ok(changed)
    }

    fn is_bootstrapped(&self) -> bool {
        matches!(self.own_kubeconfig(), Ok(Some(_)))
    }

    fn forget_bootstrap_credentials(&mut self) -> Result<bool, StepError> {
        Ok(self.machine.tree.remove(Path::new(BOOTSTRAP_CONF))?)
    }
}

impl Command for Join<'_> {
    type Work = Work;
    type Error = JoinError;

    fn log(&mut self) -> (Option<PhaseLog<'_>>, &dyn Reporter) {
        (Some(self.session.phases()), &*self.machine.reporter)
    }

    async fn before(&mut self, rest: &[Selected<'static, Work>]) -> Result<Before, JoinError> {
        match rest.first() {
            Some(next) if self.machine.stop.is_cancelled() => Err(JoinError::Interrupted { phase: next.phase.name }),
            _ => Ok(Before::Run),
        }
    }

    async fn act(&mut self, selected: &Selected<'static, Work>) -> Result<PhaseEnd, JoinError> {
        let acted = (selected.phase.work.act)(self).await;
        acted.map(|changed| PhaseEnd::Whole { changed }).map_err(|source| failure(selected.phase.name, source))
    }
}

/// The kubelet that `facts` tell of; one that does not say its version is taken for the control plane's.
fn kubelet(facts: &Facts, control_plane: &KubernetesVersion) -> Result<(PathBuf, &'static KubeletRow), StepError> {
    let program = facts.programs.get("kubelet").cloned().flatten().ok_or(StepError::NoKubelet)?;
    let version = facts.kubelet_version.as_ref().and_then(|text| text.parse::<KubernetesVersion>().ok());
    Ok((program, kubelet_row(version.as_ref().unwrap_or(control_plane))))
}
