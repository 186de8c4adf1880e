//! Taking an upgrade back: certificates and settings, manifests, objects.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::UpgradeError;
use super::apply::{Machine, tell, wait};
use super::copy::restore_tree;
use super::journal::{Journal, State};
use super::manifest::hash;
use super::{kept, objects};
use crate::event::Event;
use crate::host::paths::MANIFESTS_DIR;
use crate::manifests::COMPONENTS;

/// Going back may take this long however short the limit for going forward is: what failed gets its grace period to
/// stop.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(300);

/// Takes the last upgrade back: the one that was cut off, or the one that succeeded.
///
/// etcd's data stays as it is: what was written since then is nobody's to lose.
///
/// # Errors
/// What stands in the way; the same call goes on from there.
pub async fn rollback(machine: &mut Machine<'_>) -> Result<Journal, UpgradeError> {
    let nothing = || UpgradeError::NothingToRollBack { path: PathBuf::from(super::journal::JOURNAL) };
    let mut journal = Journal::read(machine.tree)?.ok_or_else(nothing)?;
    roll_back(machine, &mut journal, false).await?;
    Ok(journal)
}

/// Puts back everything that has a backup and differs from it, and waits for the components.
pub(super) async fn roll_back(
    machine: &mut Machine<'_>,
    journal: &mut Journal,
    failing_etcd: bool,
) -> Result<(), UpgradeError> {
    let (phase, title) = ("rollback".to_owned(), "put everything old back".to_owned());
    machine.reporter.event(Event::PhaseStarted { phase, title });
    machine.limit = machine.limit.max(ROLLBACK_LIMIT);
    // Before the manifests, so that a component that starts anew reads the old certificates.
    for path in kept::restore(machine.tree, journal)? {
        let text = format!("{} has been changed since the upgrade, and stays as it is", path.display());
        machine.reporter.warn("rollback", text);
    }
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
    if let Some(path) = journal.objects.as_ref().filter(|_| journal.objects_written) {
        let Some(content) = machine.tree.read(path)? else {
            return Err(UpgradeError::NothingToRollBack { path: path.clone() });
        };
        let before: Vec<objects::Before> =
            serde_json::from_slice(&content).map_err(|source| UpgradeError::Journal { path: path.clone(), source })?;
        objects::restore(machine.api, &before).await?;
        machine.reporter.note("rollback", "the cluster's objects are as they were".into());
    }
    journal.state = State::RolledBack;
    journal.write(machine.tree)
}
