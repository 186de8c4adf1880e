//! Carrying a plan out, and taking it back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::copy::{copy_tree, restore_tree};
use super::journal::{DataCopy, Journal, State};
use super::manifest::hash;
use super::plan::Step;
use super::{Outcome, UpgradeError};
use crate::agent::expect::{Expectation, HealthSource, Verdict, until_met};
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::host::fs::FsError;
use crate::host::paths::{MANIFESTS_DIR, TMP_DIR};
use crate::host::tree::Tree;
use crate::manifests::COMPONENTS;

/// Going back may take this long however short the limit for going forward is: what failed gets its grace period to
/// stop.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(300);

/// What an upgrade acts on.
pub struct Machine<'a> {
    /// Where files are.
    pub paths: Paths,
    /// How files are written.
    pub tree: &'a mut dyn Tree,
    /// What the agent says.
    pub health: &'a dyn HealthSource,
    /// Who is told.
    pub reporter: &'a dyn Reporter,
    /// How long one replaced component may take to be healthy (`timeouts.upgradeManifests`).
    pub limit: Duration,
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

/// Replaces one component after the other and waits for each; the first that fails brings all of them back.
///
/// # Errors
/// Only what happens before the first manifest is touched; from then on the [`Outcome`] tells.
pub async fn apply(machine: &mut Machine<'_>, steps: &[Step], title: &Title) -> Result<Outcome, UpgradeError> {
    let mut journal = begin(machine, steps, title)?;
    let mut replaced = Vec::new();
    for step in steps {
        if let Err(cause) = replace(machine, step, &mut journal, title).await {
            machine.reporter.warn("upgrade", format!("{cause}; putting the old manifests back"));
            let failing_etcd = step.component == "etcd";
            return Ok(match roll_back(machine, &mut journal, failing_etcd).await {
                Ok(()) => Outcome::RolledBack { cause },
                Err(rollback) => Outcome::Failed { cause, rollback },
            });
        }
        replaced.push(step.component);
    }
    journal.state = State::Done;
    journal.write(machine.tree)?;
    Ok(Outcome::Upgraded { replaced })
}

/// Takes the last upgrade back: the one that was cut off, or the one that succeeded.
///
/// etcd's data stays as it is: what was written since then is nobody's to lose.
pub async fn rollback(machine: &mut Machine<'_>) -> Result<Journal, UpgradeError> {
    let nothing = || UpgradeError::NothingToRollBack { path: PathBuf::from(super::journal::JOURNAL) };
    let mut journal = Journal::read(machine.tree)?.ok_or_else(nothing)?;
    roll_back(machine, &mut journal, false).await?;
    Ok(journal)
}

/// Copies the manifests aside and writes the journal. An upgrade to the same target that was cut off is taken up again,
/// with the backup it made.
fn begin(machine: &mut Machine<'_>, steps: &[Step], title: &Title) -> Result<Journal, UpgradeError> {
    if let Some(journal) = Journal::read(machine.tree)?
        && journal.state == State::Applying
    {
        if journal.target == title.target {
            return Ok(journal);
        }
        return Err(UpgradeError::Interrupted { target: journal.target, command: journal.command });
    }
    let backup = Path::new(TMP_DIR).join(format!("kubeadm-backup-manifests-{}", title.stamp));
    machine.tree.make_dir(&backup, 0o700)?;
    for step in steps {
        machine.tree.write(&backup.join(format!("{}.yaml", step.component)), &step.old, 0o600)?;
    }
    let journal = Journal {
        target: title.target.clone(),
        command: title.command.clone(),
        backup,
        etcd_data: None,
        state: State::Applying,
    };
    journal.write(machine.tree)?;
    Ok(journal)
}

async fn replace(
    machine: &mut Machine<'_>,
    step: &Step,
    journal: &mut Journal,
    names: &Title,
) -> Result<(), UpgradeError> {
    let (phase, started) = (format!("upgrade/{}", step.component), Instant::now());
    let title = format!("{}: {} -> {}", step.component, step.old_image, step.new_image);
    machine.reporter.event(Event::PhaseStarted { phase: phase.clone(), title });
    if let Some(data_dir) = &step.data_dir {
        copy_data(machine, step, data_dir, journal, names).await?;
    }
    machine.tree.write(&step.file, &step.new, 0o600)?;
    wait(machine, step.component, &step.file, Some(step.new_hash())).await?;
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    machine.reporter.event(Event::PhaseDone { phase, changed: true, millis });
    Ok(())
}

/// Stops etcd and copies its data: only a stopped etcd's files are consistent.
async fn copy_data(
    machine: &mut Machine<'_>,
    step: &Step,
    data_dir: &Path,
    journal: &mut Journal,
    title: &Title,
) -> Result<(), UpgradeError> {
    if journal.etcd_data.is_some() {
        return Ok(());
    }
    let to = Path::new(TMP_DIR).join(format!("kubeadm-backup-etcd-{}", title.stamp));
    machine.tree.remove(&step.file)?;
    wait(machine, step.component, &step.file, None).await?;
    machine.tree.make_dir(&to, 0o700)?;
    let copy = machine.paths.on_host(&to).join("etcd");
    if copy.exists() {
        // No journal names it: a copy that was cut off.
        std::fs::remove_dir_all(&copy).map_err(|e| FsError::new("remove", &copy, e))?;
    }
    copy_tree(&machine.paths.on_host(data_dir), &copy)?;
    journal.etcd_data = Some(DataCopy { from: data_dir.to_owned(), to: to.join("etcd") });
    journal.write(machine.tree)
}

/// Puts back every manifest that has a backup and differs from it, and waits for all of them.
async fn roll_back(machine: &mut Machine<'_>, journal: &mut Journal, failing_etcd: bool) -> Result<(), UpgradeError> {
    let (phase, title) = ("rollback".to_owned(), "put the old manifests back".to_owned());
    machine.reporter.event(Event::PhaseStarted { phase, title });
    machine.limit = machine.limit.max(ROLLBACK_LIMIT);
    let mut restored = Vec::new();
    for component in COMPONENTS {
        let Some(old) = machine.tree.read(&journal.backup.join(format!("{component}.yaml")))? else { continue };
        let file = Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"));
        let now = machine.tree.read(&file)?;
        if component == "etcd"
            && failing_etcd
            && let Some(data) = &journal.etcd_data
        {
            machine.tree.remove(&file)?;
            wait(machine, component, &file, None).await?;
            restore_tree(&machine.paths.on_host(&data.to), &machine.paths.on_host(&data.from))?;
        }
        if now.as_ref() != Some(&old) || !machine.tree.exists(&file) {
            machine.tree.write(&file, &old, 0o600)?;
            tell(machine.reporter, component, "old manifest put back".into(), false);
        }
        restored.push((component, file, hash(&old)));
    }
    for (component, file, hash) in restored {
        wait(machine, component, &file, Some(hash)).await?;
    }
    journal.state = State::RolledBack;
    journal.write(machine.tree)
}

async fn wait(
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

fn tell(reporter: &dyn Reporter, component: &str, state: String, healthy: bool) {
    reporter.event(Event::Component { name: component.to_owned(), state, healthy, detail: None });
}
