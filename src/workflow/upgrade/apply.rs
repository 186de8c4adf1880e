//! Carrying an upgrade out, from its beginning or from where one was cut off; the first phase that fails brings all back.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::etcd::Aim;
use super::gates::Settling;
use super::journal::{BACKUP_PREFIX, Journal, State};
use super::kept::{self, FileChange};
use super::objects::{self, Group};
use super::plan::Step;
use super::progress::report_away;
use super::replace::{control_plane, settle};
use super::rollback::roll_back;
use super::table::{Part, SelectedPhases};
use super::{Outcome, UpgradeError, data, gates};
use crate::agent::control::expect::{Expectation, HealthSource, Verdict, until_met};
use crate::cluster::addons::coredns;
use crate::config::ClusterSpec;
use crate::config::spec::PullPolicy;
use crate::etcd::Server;
use crate::event::{Away, Event, Reporter};
use crate::host::Paths;
use crate::host::disk::Disk;
use crate::host::paths::TMP_DIR;
use crate::host::tree::Tree;
use crate::runtime::images::ensure_images;
use crate::workflow::machine::Runtimes;
use crate::workflow::machine::cluster::Api;
use crate::workflow::phase::Selected;
use crate::workflow::preflight::{conclude, upgrade as checks};
use crate::workflow::runner::{Before, Command, PhaseEnd, run_phases};
use crate::workflow::session::PhaseLog;
use crate::workflow::state::saved::SAVED;

/// What an upgrade acts on.
pub struct Machine<'a> {
    /// Where files are.
    pub paths: Paths,
    /// How files are written.
    pub tree: &'a mut dyn Tree,
    /// Where etcd's data are copied.
    pub disk: &'a mut dyn Disk,
    /// The etcd of this node.
    pub etcd: &'a dyn Server,
    /// What the agent says.
    pub health: &'a dyn HealthSource,
    /// The API server.
    pub api: Api<'a>,
    /// Container runtimes by address.
    pub runtimes: &'a dyn Runtimes,
    /// Where the phases are recorded; None records none.
    pub log: Option<PhaseLog<'a>>,
    /// Where events go.
    pub reporter: &'a dyn Reporter,
    /// How long one replaced component may take to be healthy (`timeouts.upgradeManifests`).
    pub limit: Duration,
}

/// What an upgrade does; what its phases leave out is empty.
#[derive(Default)]
pub struct Work<'a> {
    /// The phases.
    pub phases: SelectedPhases,
    /// Checks of the cluster whose errors are only warnings; None looks at nothing.
    pub checks: Option<&'a [String]>,
    /// Whence images are fetched; None expects them to be there.
    pub images: Option<ImageSource>,
    /// The components that are replaced.
    pub steps: Vec<Step>,
    /// Whose certificates are renewed, with the components and last; None renews none.
    pub renewal: Option<Renewal<'a>>,
    /// Files of the node, once the components are healthy.
    pub files: Vec<FileChange>,
    /// Objects of the cluster, last.
    pub objects: Vec<Group>,
    /// Whether every component is seen healthy in the end, the ones that stay too.
    pub settle: bool,
}

/// Whence images come.
#[derive(Debug, Clone)]
pub struct ImageSource {
    /// Address of the runtime; None for the default.
    pub runtime: Option<String>,
    /// When they are fetched.
    pub policy: PullPolicy,
}

impl Work<'_> {
    /// Whether a phase has anything to do; `resumed` is whether it goes on with an upgrade that was cut off.
    fn has(&self, part: Part, resumed: bool) -> bool {
        match part {
            // What runs half old and half new may well fail the checks.
            Part::Preflight => self.checks.is_some() && !resumed,
            Part::ControlPlane => resumed || !self.steps.is_empty() || self.files(part).next().is_some(),
            Part::KubeletConfig => self.files(part).next().is_some(),
            Part::UploadConfig | Part::BootstrapToken | Part::Addon => self.groups(part).next().is_some(),
            Part::PostUpgrade => self.settle,
        }
    }

    fn files(&self, part: Part) -> impl Iterator<Item = &FileChange> {
        // The version that is remembered is the components'.
        let of =
            |file: &FileChange| if file.path == Path::new(SAVED) { Part::ControlPlane } else { Part::KubeletConfig };
        self.files.iter().filter(move |file| of(file) == part)
    }

    fn groups(&self, part: Part) -> impl Iterator<Item = &Group> {
        self.objects.iter().filter(move |group| group.part == part)
    }

    /// Whether nothing of this machine would change.
    pub fn is_idle(&self) -> bool {
        self.steps.is_empty() && self.files.is_empty()
    }
}

/// How certificates are renewed.
#[derive(Clone, Copy)]
pub struct Renewal<'a> {
    /// The cluster.
    pub spec: &'a ClusterSpec,
    /// From when they are valid.
    pub now: Timestamp,
}

/// What an upgrade calls itself.
#[derive(Debug, Clone)]
pub struct Title {
    /// What it goes to, in words.
    pub target: String,
    /// The command that finishes it when it is cut off.
    pub command: String,
    /// Local time for the names of backups, `2026-11-23-20-30-00`, as kubeadm writes it.
    pub stamp: String,
}

/// Runs the phases that have anything to do; the first that fails brings back what all of them have changed.
///
/// # Errors
/// Only what happens before anything is touched; from then on the [`Outcome`] tells.
pub async fn apply(machine: &mut Machine<'_>, work: &Work<'_>, title: &Title) -> Result<Outcome, UpgradeError> {
    let cut_off = Journal::read(machine.tree)?.filter(|journal| journal.state == State::Applying);
    let phases = work.phases.with_work(|part| work.has(part, cut_off.is_some()));
    let mut run = Run { machine, work, title, cut_off, has_images: false, begun: None, settling: None };
    let done = async {
        run_phases(&mut run, &phases).await?;
        run.finish().await
    };
    let done = done.await;
    let Run { machine, begun, .. } = run;
    let (cause, mut journal) = match (done, begun) {
        (Ok(()), begun) => {
            if let Some(Begun { journal, .. }) = begun {
                report_away(machine.reporter, &journal);
            }
            return Ok(Outcome::Upgraded { replaced: work.steps.iter().map(|step| step.component).collect() });
        }
        (Err(error), None) => return Err(error),
        (Err(cause), Some(Begun { journal, .. })) => (cause, journal),
    };
    machine.reporter.warn("upgrade", format!("{cause}; putting everything old back"));
    let back = roll_back(machine, &mut journal, Aim::Running).await;
    report_away(machine.reporter, &journal);
    Ok(match back {
        Ok(()) => Outcome::RolledBack { cause, etcd: journal.etcd_kept },
        Err(rollback) => Outcome::Failed { cause, rollback },
    })
}

/// One run.
struct Run<'r, 'm> {
    machine: &'r mut Machine<'m>,
    work: &'r Work<'r>,
    title: &'r Title,
    /// The upgrade that a run before this one has not finished.
    cut_off: Option<Journal>,
    /// Whether every image is here.
    has_images: bool,
    /// None until something may be touched.
    begun: Option<Begun>,
    /// The first seconds of what was replaced, which the other phases use.
    settling: Option<Settling>,
}

/// An upgrade that has begun: everything old can be put back.
struct Begun {
    journal: Journal,
    /// Whether it goes on with one that was cut off.
    resumed: bool,
}

impl Command for Run<'_, '_> {
    type Work = Part;
    type Error = UpgradeError;

    fn log(&mut self) -> (Option<PhaseLog<'_>>, &dyn Reporter) {
        (self.machine.log.as_mut().map(PhaseLog::reborrow), self.machine.reporter)
    }

    async fn before(&mut self, rest: &[Selected<'static, Part>]) -> Result<Before, UpgradeError> {
        if self.begun.is_none() && rest.first().is_some_and(|next| next.phase.work != Part::Preflight) {
            if !self.has_images {
                fetch(self.machine, self.work).await?;
            }
            self.begun = Some(begin(self.machine, self.work, self.title, self.cut_off.take()).await?);
        }
        Ok(Before::Run)
    }

    async fn act(&mut self, selected: &Selected<'static, Part>) -> Result<PhaseEnd, UpgradeError> {
        let (part, Self { machine, work, has_images, begun, settling, .. }) = (selected.phase.work, self);
        let changed = PhaseEnd::Whole { changed: true };
        let Some(Begun { journal, resumed }) = begun else {
            preflight(machine, work).await?;
            fetch(machine, work).await?;
            *has_images = true;
            return Ok(changed);
        };
        match part {
            Part::Preflight => {}
            Part::ControlPlane => {
                *settling = control_plane(machine, work, journal, *resumed).await?;
                node_files(machine, work.files(part), journal)?;
            }
            Part::KubeletConfig => node_files(machine, work.files(part), journal)?,
            Part::UploadConfig | Part::BootstrapToken | Part::Addon => {
                cluster_objects(machine, work.groups(part), journal).await?;
            }
            Part::PostUpgrade => settle(machine, |_| true).await?,
        }
        Ok(changed)
    }
}

impl Run<'_, '_> {
    async fn finish(&mut self) -> Result<(), UpgradeError> {
        if let Some(settling) = self.settling.take() {
            settling.end(self.machine.health, self.machine.reporter).await?;
        }
        let Some(Begun { journal, .. }) = &mut self.begun else { return Ok(()) };
        if let Some(log) = &mut self.machine.log {
            log.finish()?;
        }
        journal.state = State::Done;
        journal.write(self.machine.tree)
    }
}

/// Asks the cluster whether it may be upgraded; not of an upgrade that leaves the cluster's objects alone, which needs no
/// API server.
async fn preflight(machine: &Machine<'_>, work: &Work<'_>) -> Result<(), UpgradeError> {
    let Some(ignored) = work.checks.filter(|_| !work.objects.is_empty()) else { return Ok(()) };
    let objects = work.objects.iter().flat_map(|group| &group.objects);
    let mut settings = objects.filter(|object| object.resource.kind == "ConfigMap" && object.name() == coredns::NAME);
    let seen = checks::see_cluster(machine.api, settings.next()).await.map_err(UpgradeError::Unreadable)?;
    Ok(conclude(checks::findings(&seen, ignored), machine.reporter)?)
}

/// Every image, before anything is touched.
async fn fetch(machine: &Machine<'_>, work: &Work<'_>) -> Result<(), UpgradeError> {
    let Some(ImageSource { runtime, policy }) = &work.images else { return Ok(()) };
    let runtime = machine.runtimes.connect(runtime.as_deref())?;
    let images: Vec<String> = work.steps.iter().map(|step| step.new_image.clone()).collect();
    ensure_images(&*runtime, &images, *policy, machine.reporter).await?;
    Ok(())
}

/// Copies the manifests aside and writes the journal. An upgrade to the same target that was `cut_off` is taken up again,
/// with the backup it made.
async fn begin(
    machine: &mut Machine<'_>,
    work: &Work<'_>,
    title: &Title,
    cut_off: Option<Journal>,
) -> Result<Begun, UpgradeError> {
    let resumed = cut_off.is_some();
    let mut journal = match cut_off {
        Some(journal) if journal.target == title.target => journal,
        Some(journal) => {
            return Err(UpgradeError::Interrupted { target: journal.target, command: journal.command });
        }
        None => {
            let backup = Path::new(TMP_DIR).join(format!("{BACKUP_PREFIX}{}", title.stamp));
            Journal::new(title.target.clone(), title.command.clone(), backup)
        }
    };
    // Asked before anything is touched: what cannot be read could not be put back.
    let before = match (&journal.objects, work.objects.is_empty()) {
        (None, false) => Some(objects::before(machine.api, &work.objects).await?),
        _ => None,
    };
    // One that was cut off looks when it comes to it: by then something has to go back.
    for step in work.steps.iter().filter(|_| !resumed) {
        data::look(machine, step, &mut journal)?;
    }
    if let Some(log) = &mut machine.log {
        log.begin()?;
    }
    back_up(machine, work, &journal, resumed)?;
    match &mut journal.api_away {
        Some(away) if resumed => away.at_least = true,
        _ if resumed => {}
        away => {
            journal.api_answered = before.is_some() || !work.steps.is_empty() && gates::answers(machine.api).await;
            let can_be_asked = journal.api_answered && machine.api.cluster.ping(machine.api.site).is_some();
            *away = (can_be_asked && !work.steps.is_empty()).then(Away::default);
        }
    }
    if let Some(before) = before {
        let path = journal.backup.join("objects.json");
        let json =
            serde_json::to_vec(&before).map_err(|source| UpgradeError::Journal { path: path.clone(), source })?;
        machine.tree.write(&path, &json, 0o600)?;
        journal.objects = Some(path);
    }
    journal.write(machine.tree)?;
    Ok(Begun { journal, resumed })
}

/// Copies of the manifests, each made once.
fn back_up(machine: &mut Machine<'_>, work: &Work<'_>, journal: &Journal, resumed: bool) -> Result<(), UpgradeError> {
    machine.tree.make_dir(&journal.backup, 0o700)?;
    let (about, content) = journal.about()?;
    machine.tree.write(&about, &content, 0o600)?;
    for step in &work.steps {
        let copy = journal.backup.join(format!("{}.yaml", step.component));
        if !resumed || !machine.tree.exists(&copy) {
            machine.tree.write(&copy, &step.old, 0o600)?;
        }
        machine.tree.write(&journal.new_manifest(step.component), &step.new, 0o600)?;
    }
    Ok(())
}

fn node_files<'a>(
    machine: &mut Machine<'_>,
    files: impl Iterator<Item = &'a FileChange>,
    journal: &mut Journal,
) -> Result<(), UpgradeError> {
    let files: Vec<FileChange> = files.cloned().collect();
    kept::replace(machine.tree, journal, &files)?;
    for file in files {
        machine.reporter.note("upgrade", format!("wrote {}", file.path.display()));
    }
    Ok(())
}

async fn cluster_objects<'a>(
    machine: &mut Machine<'_>,
    groups: impl Iterator<Item = &'a Group>,
    journal: &mut Journal,
) -> Result<(), UpgradeError> {
    if !journal.objects_written {
        journal.objects_written = true;
        journal.write(machine.tree)?;
    }
    for group in groups {
        for warning in &group.warnings {
            machine.reporter.warn("upgrade", warning.clone());
        }
        let said = objects::write(machine.api, group).await?;
        machine.reporter.note("upgrade", said);
    }
    Ok(())
}

pub(super) async fn wait(
    machine: &Machine<'_>,
    component: &'static str,
    file: &Path,
    file_hash: Option<String>,
) -> Result<(), UpgradeError> {
    let want = Expectation { component: component.into(), file: file.display().to_string(), file_hash };
    let gone = want.file_hash.is_none();
    let reporter = machine.reporter;
    let mut changed = |_: &Expectation, verdict: &Verdict| match verdict {
        Verdict::Waiting(text) => tell(reporter, component, text.clone(), false),
        Verdict::Met => tell(reporter, component, if gone { "stopped" } else { "healthy" }.into(), !gone),
        Verdict::Failed(failure) => tell(reporter, component, failure.reason.clone(), false),
    };
    until_met(machine.health, &[want], machine.limit, &mut changed)
        .await
        .map_err(|source| UpgradeError::Unhealthy { component, source: Box::new(source) })
}

pub(super) fn tell(reporter: &dyn Reporter, component: &str, state: String, healthy: bool) {
    reporter.event(Event::Component { name: component.to_owned(), state, healthy, detail: None });
}
