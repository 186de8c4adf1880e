//! Taking an upgrade back: certificates and settings, manifests, objects.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::apply::{Machine, tell, wait};
use super::copy::SNAPSHOT;
use super::data::writes_since;
use super::etcd::{Aim, Facts, Way, call_off_downgrade, downgrade, look, new_manifest, version_that_stays, ways};
use super::journal::{DataCopy, Journal, State};
use super::manifest::{image, parse};
use super::progress::{Going, report_away, watched};
use super::snapshot::keep_log_if_possible;
use super::target::file;
use super::{UpgradeError, data, kept, objects, swap};
use crate::event::{Away, ReplacementStep, Reporter};
use crate::host::digest::sha256;
use crate::host::tree::Tree;
use crate::manifests::{COMPONENTS, ETCD};
use crate::workflow::session::{report_end, report_start};

/// Going back may take this long however short the limit for going forward is: what failed gets its grace period to
/// stop.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(300);

/// How the last upgrade is taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RollbackOptions {
    /// Whether the copy of etcd's data goes back too, whatever was written since.
    pub etcd_copy: bool,
    /// Whether it is taken back although another upgrade has followed it.
    pub force: bool,
}

impl RollbackOptions {
    /// The words of the command.
    pub fn command(self) -> String {
        let flags = [(self.etcd_copy, " --etcd-copy"), (self.force, " --force")];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, words)| *words);
        format!("kubeboot upgrade rollback{}", flags.collect::<String>())
    }
}

/// Whether an upgrade that has ended is the last one: kubeadm's are in no journal, but each component then runs an image that
/// this one neither came from nor went to. A manifest that is not there, or makes no sense, is no upgrade's.
///
/// # Errors
/// [`UpgradeError::NotLast`]; a file that cannot be read.
pub fn is_last(tree: &dyn Tree, journal: &Journal) -> Result<(), UpgradeError> {
    if journal.state == State::Applying {
        return Ok(());
    }
    let image_in = |path: &Path| -> Result<Option<String>, UpgradeError> {
        let parsed = tree.read(path)?.and_then(|content| parse(path, &content).ok());
        Ok(parsed.map(|manifest| image(&manifest).to_owned()))
    };
    for component in COMPONENTS {
        let old = image_in(&journal.backup.join(format!("{component}.yaml")))?;
        let (new, now) = (image_in(&journal.new_manifest(component))?, image_in(&file(component))?);
        let (Some(old), Some(new), Some(image)) = (old, new, now) else { continue };
        if image != old && image != new {
            let upgrade = format!("`{}`, from {old} to {new}", journal.command);
            return Err(UpgradeError::NotLast { component, image, upgrade, backup: journal.backup.clone() });
        }
    }
    Ok(())
}

/// Takes the last upgrade back: the one that was cut off, or the one that succeeded.
///
/// etcd goes back where that loses nothing: on the same data, by its own downgrade, or, where the new one has never
/// served, with the copy of its data. Else it stays, and [`Journal::etcd_kept`] says so.
///
/// # Errors
/// What stands in the way; the same call goes on from there.
pub async fn rollback(machine: &mut Machine<'_>, aim: Aim) -> Result<Journal, UpgradeError> {
    let nothing = || UpgradeError::NothingToRollBack { path: PathBuf::from(super::journal::JOURNAL) };
    let mut journal = Journal::read(machine.tree)?.ok_or_else(nothing)?;
    if aim == Aim::Copy && journal.restorable().is_none() {
        return Err(journal
            .etcd_data
            .map_or(UpgradeError::NoCopy, |data| UpgradeError::OfSeveral { snapshot: data.to.join(SNAPSHOT) }));
    }
    if journal.state != State::Applying {
        journal.api_away = journal.api_answered.then(Away::default);
    }
    roll_back(machine, &mut journal, aim).await?;
    report_away(machine.reporter, &journal);
    Ok(journal)
}

/// Puts back everything that has a backup and differs from it, and waits for the components.
pub(super) async fn roll_back(machine: &mut Machine<'_>, journal: &mut Journal, aim: Aim) -> Result<(), UpgradeError> {
    let started = report_start(machine.reporter, "rollback", "put everything old back");
    machine.limit = machine.limit.max(ROLLBACK_LIMIT);
    // Before the manifests, so that a component that is started again reads the old certificates.
    for (path, why) in kept::restore(machine.tree, journal, Timestamp::now())? {
        machine.reporter.warn("rollback", format!("{} {why}", path.display()));
    }
    keep_log_if_possible(machine, journal);
    let facts = look(machine, journal, aim).await?;
    let ways = ways(&facts);
    for (at, way) in ways.iter().enumerate() {
        let (api, mut away) = (machine.api, journal.api_away);
        let went = watched(api, &mut away, go(machine, journal, *way, &facts)).await;
        journal.api_away = away;
        match (went, ways.get(at + 1)) {
            (Ok(()), _) => break,
            (Err(error), None) => {
                if let Some(data) = journal.restorable().filter(|data| *way != Way::Copy && !data.restoring) {
                    machine.reporter.warn("rollback", way_out(data, writes_since(machine, data)));
                }
                return Err(error);
            }
            (Err(error), Some(next)) => {
                let text = format!("{:#}; {}", anyhow::Error::new(error), next.words());
                machine.reporter.warn("rollback", text);
            }
        }
    }
    put_objects_back(machine, journal).await?;
    journal.state = State::RolledBack;
    journal.write(machine.tree)?;
    report_end(machine.reporter, "rollback", started, true);
    Ok(())
}

/// What is left to do where nothing else helps.
fn way_out(data: &DataCopy, writes: Option<u64>) -> String {
    let writes = writes.map_or_else(|| "what was written".to_owned(), |writes| format!("the {writes} writes"));
    format!(
        "etcd's data as they were before the upgrade are in {}: `kubeboot upgrade rollback --etcd-copy` puts them back, \
         without {writes} since",
        data.to.display()
    )
}

/// Puts the manifests back, with etcd going one `way`.
///
/// etcd comes first, and serves again before the others are touched: an API server that starts while its etcd is away misses the
/// first check of its address allocators, and gives up after a minute of serving.
async fn go(machine: &mut Machine<'_>, journal: &mut Journal, way: Way, facts: &Facts) -> Result<(), UpgradeError> {
    let mut kept = None;
    if let Some(old) = backup(machine, journal, ETCD)? {
        let ending = swap::ending(machine, journal).await;
        let content = match way {
            Way::Manifest => old,
            Way::Stay => kept.insert(new_manifest(machine, journal)?.unwrap_or(old)).clone(),
            Way::Downgrade => {
                if let Some(to) = facts.versions.0 {
                    downgrade(machine, to).await?;
                }
                old
            }
            Way::Copy => {
                data::restore(machine, journal, facts.aim == Aim::Copy || facts.restoring).await?;
                old
            }
        };
        let going = put_back(machine, journal, ETCD, &content, if kept.is_some() { "new" } else { "old" })?;
        swap::wait_for(machine, &file(ETCD), sha256(&content), &ending).await?;
        has_gone_back(going);
    }
    let mut restored = Vec::new();
    for component in COMPONENTS.into_iter().filter(|component| *component != ETCD) {
        let Some(old) = backup(machine, journal, component)? else { continue };
        restored.push((component, sha256(&old), put_back(machine, journal, component, &old, "old")?));
    }
    for (component, hash, going) in restored {
        wait(machine, component, &file(component), Some(hash)).await?;
        has_gone_back(going);
    }
    journal.etcd_kept = match kept {
        Some(manifest) => Some(version_that_stays(machine, &manifest).await),
        None => None,
    };
    if let Some(version) = &journal.etcd_kept {
        call_off_downgrade(machine).await;
        let text =
            format!("everything else is old again, with etcd {version}: its data hold writes that must not be lost");
        machine.reporter.note("rollback", text);
    }
    Ok(())
}

fn backup(machine: &Machine<'_>, journal: &Journal, component: &str) -> Result<Option<Vec<u8>>, UpgradeError> {
    Ok(machine.tree.read(&journal.backup.join(format!("{component}.yaml")))?)
}

/// Writes a manifest in the place of another one; returns how the component goes back, where it does. One that somebody has
/// changed since the upgrade is kept beside the backup.
fn put_back<'m>(
    machine: &mut Machine<'m>,
    journal: &Journal,
    component: &'static str,
    content: &[u8],
    which: &str,
) -> Result<Option<Going<'m>>, UpgradeError> {
    let file = file(component);
    let now = machine.tree.read(&file)?;
    if now.as_deref() == Some(content) {
        return Ok(None);
    }
    if let Some(now) = &now
        && machine.tree.read(&journal.new_manifest(component))?.is_some_and(|new| new != *now)
    {
        let kept = journal.backup.join(format!("changed/{component}.yaml"));
        machine.tree.write(&kept, now, 0o600)?;
        let (file, kept) = (file.display(), kept.display());
        machine
            .reporter
            .warn("rollback", format!("{file} has been changed since the upgrade: what it was is in {kept}"));
    }
    let going = now.and_then(|now| going_back(machine.reporter, component, (&now, content)));
    machine.tree.write(&file, content, 0o600)?;
    tell(machine.reporter, component, format!("{which} manifest put back"), false);
    Ok(going)
}

fn has_gone_back(going: Option<Going<'_>>) {
    if let Some(going) = going {
        going.at(ReplacementStep::Done);
    }
}

/// A component whose manifest is put back.
fn going_back<'a>(
    reporter: &'a dyn Reporter,
    component: &'static str,
    (now, then): (&[u8], &[u8]),
) -> Option<Going<'a>> {
    let file = file(component);
    let (now, then) = (parse(&file, now).ok()?, parse(&file, then).ok()?);
    let going = Going::begin(reporter, component, (image(&now), image(&then)));
    going.at(ReplacementStep::Swap);
    Some(going)
}

async fn put_objects_back(machine: &mut Machine<'_>, journal: &Journal) -> Result<(), UpgradeError> {
    let Some(path) = journal.objects.as_ref().filter(|_| journal.objects_written) else { return Ok(()) };
    let Some(content) = machine.tree.read(path)? else {
        return Err(UpgradeError::NothingToRollBack { path: path.clone() });
    };
    let before: Vec<objects::Before> =
        serde_json::from_slice(&content).map_err(|source| UpgradeError::Journal { path: path.clone(), source })?;
    objects::restore(machine.api, &before).await?;
    machine.reporter.note("rollback", "the cluster's objects are as they were".into());
    Ok(())
}
