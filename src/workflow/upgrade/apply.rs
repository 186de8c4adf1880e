//! Carrying an upgrade out.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::certificates::{self, ADMIN};
use super::etcd::{Aim, call_off_downgrade};
use super::journal::{BACKUP_PREFIX, Journal, State};
use super::kept::{self, FileChange};
use super::objects::{self, Group};
use super::plan::Step;
use super::rollback::roll_back;
use super::{Outcome, UpgradeError, data};
use crate::agent::control::expect::{Expectation, HealthSource, Verdict, until_met};
use crate::config::ClusterSpec;
use crate::etcd::Etcd;
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::host::digest::sha256;
use crate::host::disk::Disk;
use crate::host::paths::{MANIFESTS_DIR, TMP_DIR};
use crate::host::tree::Tree;
use crate::manifests::COMPONENTS;
use crate::workflow::machine::cluster::Api;
use crate::workflow::session::{report_end, report_start};

/// What an upgrade acts on.
pub struct Machine<'a> {
    /// Where files are.
    pub paths: Paths,
    /// How files are written.
    pub tree: &'a mut dyn Tree,
    /// Where etcd's data are copied.
    pub disk: &'a mut dyn Disk,
    /// The etcd of this node.
    pub etcd: &'a dyn Etcd,
    /// What the agent says.
    pub health: &'a dyn HealthSource,
    /// The API server.
    pub api: Api<'a>,
    /// Where events go.
    pub reporter: &'a dyn Reporter,
    /// How long one replaced component may take to be healthy (`timeouts.upgradeManifests`).
    pub limit: Duration,
}

/// What an upgrade does; what its phases leave out is empty.
#[derive(Default)]
pub struct Work<'a> {
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

impl Work<'_> {
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

/// Replaces one component after the other and waits for each, then the node's files and the cluster's objects; the first
/// that fails brings all of them back.
///
/// # Errors
/// Only what happens before anything is touched; from then on the [`Outcome`] tells.
pub async fn apply(machine: &mut Machine<'_>, work: &Work<'_>, title: &Title) -> Result<Outcome, UpgradeError> {
    let (mut journal, resumed) = begin(machine, work, title).await?;
    let done = async {
        if journal.is_restoring() {
            data::restore(machine, &mut journal).await?;
        }
        components(machine, work, &mut journal).await?;
        if resumed || work.settle {
            settle(machine, &journal, resumed, work.settle).await?;
        }
        if let Some(data) = journal.etcd_data.as_mut().filter(|_| resumed) {
            data.served = Some(true);
            call_off_downgrade(machine).await;
        }
        if !work.steps.is_empty() || resumed {
            renew(machine, work, ADMIN, &mut journal)?;
        }
        node_files(machine, &work.files, &mut journal)?;
        cluster_objects(machine, &work.objects, &mut journal).await?;
        journal.state = State::Done;
        journal.write(machine.tree)
    };
    let Err(cause) = done.await else {
        return Ok(Outcome::Upgraded { replaced: work.steps.iter().map(|step| step.component).collect() });
    };
    machine.reporter.warn("upgrade", format!("{cause}; putting everything old back"));
    Ok(match roll_back(machine, &mut journal, Aim::Running).await {
        Ok(()) => Outcome::RolledBack { cause, etcd: journal.etcd_kept },
        Err(rollback) => Outcome::Failed { cause, rollback },
    })
}

/// Copies the manifests aside and writes the journal. An upgrade to the same target that was cut off is taken up again,
/// with the backup it made. Returns whether it was.
async fn begin(machine: &mut Machine<'_>, work: &Work<'_>, title: &Title) -> Result<(Journal, bool), UpgradeError> {
    let cut_off = Journal::read(machine.tree)?.filter(|journal| journal.state == State::Applying);
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
        data::look(machine, step, &journal)?;
    }
    machine.tree.make_dir(&journal.backup, 0o700)?;
    for step in &work.steps {
        let copy = journal.backup.join(format!("{}.yaml", step.component));
        if !resumed || !machine.tree.exists(&copy) {
            machine.tree.write(&copy, &step.old, 0o600)?;
        }
        if step.data_dir.is_some() {
            machine.tree.write(&journal.new_etcd(), &step.new, 0o600)?;
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
    Ok((journal, resumed))
}

async fn components(machine: &mut Machine<'_>, work: &Work<'_>, journal: &mut Journal) -> Result<(), UpgradeError> {
    for step in &work.steps {
        renew(machine, work, step.component, journal)?;
        replace(machine, step, journal).await?;
    }
    Ok(())
}

/// New certificates for `component`, which reads them when it starts again; a run that was cut off may have made them.
fn renew(
    machine: &mut Machine<'_>,
    work: &Work<'_>,
    component: &str,
    journal: &mut Journal,
) -> Result<(), UpgradeError> {
    let Some(Renewal { spec, now }) = work.renewal else { return Ok(()) };
    if journal.renewed.iter().any(|name| name == component) {
        return Ok(());
    }
    let files = certificates::renew(spec, &machine.paths, component, now, machine.reporter)?;
    kept::replace(machine.tree, journal, &files)?;
    journal.renewed.push(component.to_owned());
    journal.write(machine.tree)
}

/// Waits for the components that stay as they are: those that a run which was cut off has replaced, or all.
async fn settle(machine: &Machine<'_>, journal: &Journal, resumed: bool, all: bool) -> Result<(), UpgradeError> {
    for component in COMPONENTS {
        let file = Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"));
        let replaced = resumed && machine.tree.exists(&journal.backup.join(format!("{component}.yaml")));
        let Some(now) = machine.tree.read(&file)?.filter(|_| replaced || all) else { continue };
        wait(machine, component, &file, Some(sha256(&now))).await?;
    }
    Ok(())
}

fn node_files(machine: &mut Machine<'_>, files: &[FileChange], journal: &mut Journal) -> Result<(), UpgradeError> {
    kept::replace(machine.tree, journal, files)?;
    for file in files {
        machine.reporter.note("upgrade", format!("wrote {}", file.path.display()));
    }
    Ok(())
}

async fn cluster_objects(
    machine: &mut Machine<'_>,
    groups: &[Group],
    journal: &mut Journal,
) -> Result<(), UpgradeError> {
    if groups.is_empty() {
        return Ok(());
    }
    journal.objects_written = true;
    journal.write(machine.tree)?;
    for group in groups {
        for warning in &group.warnings {
            machine.reporter.warn("upgrade", warning.clone());
        }
        let said = objects::write(machine.api, group).await?;
        machine.reporter.note("upgrade", said);
    }
    Ok(())
}

async fn replace(machine: &mut Machine<'_>, step: &Step, journal: &mut Journal) -> Result<(), UpgradeError> {
    let phase = format!("upgrade/{}", step.component);
    let title = format!("{}: {} -> {}", step.component, step.old_image, step.new_image);
    let started = report_start(machine.reporter, &phase, &title);
    data::copy(machine, step, journal).await?;
    if step.data_dir.is_some() {
        start_etcd(machine, step, journal).await?;
    } else {
        machine.tree.write(&step.file, &step.new, 0o600)?;
        wait(machine, step.component, &step.file, Some(step.new_hash())).await?;
    }
    report_end(machine.reporter, &phase, started, true);
    Ok(())
}

/// Starts the new etcd, waits for it, and journals whether it has served: what it has written since then is not in the
/// copy.
async fn start_etcd(machine: &mut Machine<'_>, step: &Step, journal: &mut Journal) -> Result<(), UpgradeError> {
    if let Some(data) = &mut journal.etcd_data
        && data.served.take().is_some()
    {
        // What an earlier try came to says nothing of this one.
        journal.write(machine.tree)?;
    }
    machine.tree.write(&step.file, &step.new, 0o600)?;
    let healthy = wait(machine, step.component, &step.file, Some(step.new_hash())).await;
    if let Some(data) = &mut journal.etcd_data {
        data.served = Some(healthy.is_ok());
        journal.write(machine.tree)?;
    }
    healthy
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
