//! etcd's data: copied while etcd is stopped, and put back.

use std::path::Path;

use super::UpgradeError;
use super::apply::{Machine, wait};
use super::copy::{copy_tree, restore_tree, size};
use super::journal::{DataCopy, Journal};
use super::manifest::image_version;
use super::plan::Step;
use super::target::file;
use crate::manifests::ETCD;

/// What may be added to etcd's data between looking and stopping: one more segment of its log.
const SPARE: u64 = 64 << 20;

/// Whether there is room for what a step copies. Asked before anything is touched.
///
/// # Errors
/// [`UpgradeError::NoRoom`], with numbers.
pub(super) fn look(machine: &Machine<'_>, step: &Step, journal: &Journal) -> Result<(), UpgradeError> {
    match &step.data_dir {
        Some(data_dir) if journal.etcd_data.is_none() => {
            let from = machine.paths.on_host(data_dir);
            room(machine, "the copy of etcd's data", &from, &journal.etcd_copy())
        }
        _ => Ok(()),
    }
}

fn room(machine: &Machine<'_>, what: &'static str, from: &Path, to: &Path) -> Result<(), UpgradeError> {
    let need = size(from)?.saturating_add(SPARE);
    let free = machine.disk.free(&machine.paths.on_host(to))?;
    match free < need {
        true => Err(UpgradeError::NoRoom { what, path: to.to_owned(), need, free }),
        false => Ok(()),
    }
}

/// Stops etcd and copies its data: only a stopped etcd's files are consistent. A copy that fails goes again.
pub(super) async fn copy(machine: &mut Machine<'_>, step: &Step, journal: &mut Journal) -> Result<(), UpgradeError> {
    let Some(data_dir) = step.data_dir.as_ref().filter(|_| journal.etcd_data.is_none()) else { return Ok(()) };
    let dir = journal.etcd_copy();
    let (from, to) = (machine.paths.on_host(data_dir), machine.paths.on_host(&dir).join(ETCD));
    // No journal names it: a copy that was cut off.
    machine.disk.remove_tree(&to)?;
    look(machine, step, journal)?;
    let version = machine.etcd.status().await.ok().map(|status| status.version);
    machine.tree.remove(&step.file)?;
    wait(machine, step.component, &step.file, None).await?;
    machine.tree.make_dir(&dir, 0o700)?;
    if let Err(error) = copy_tree(machine.disk, &from, &to) {
        // What goes back now may need the room.
        if let Err(left) = machine.disk.remove_tree(&to) {
            machine.reporter.warn("upgrade", format!("half a copy of etcd's data stays: {left}"));
        }
        return Err(error.into());
    }
    let version = version.or_else(|| image_version(&step.old_image));
    let data = DataCopy { from: data_dir.clone(), to: dir.join(ETCD), version, ..DataCopy::default() };
    journal.etcd_data = Some(data);
    journal.write(machine.tree)
}

/// Puts the copy of etcd's data back, with etcd stopped. The journal says so before the first change and until the last,
/// so that a run that goes on with the upgrade, or takes it back, begins with this; afterwards the copy is forgotten.
pub(super) async fn restore(machine: &mut Machine<'_>, journal: &mut Journal) -> Result<(), UpgradeError> {
    let Some(data) = &mut journal.etcd_data else { return Ok(()) };
    let (copy, place) = (machine.paths.on_host(&data.to), machine.paths.on_host(&data.from));
    let is_first = !data.restoring;
    if is_first {
        room(machine, "putting the copy of etcd's data back", &copy, &data.from)?;
        data.restoring = true;
        journal.write(machine.tree)?;
    }
    let manifest = file(ETCD);
    machine.tree.remove(&manifest)?;
    wait(machine, ETCD, &manifest, None).await?;
    if is_first {
        machine.reporter.warn("rollback", loss(machine.etcd.writes_since(&copy, &place)));
    }
    restore_tree(machine.disk, &copy, &place)?;
    journal.etcd_data = None;
    journal.write(machine.tree)
}

/// What is lost with the copy in the place of the data, in words.
pub fn loss(writes: Option<u64>) -> String {
    let copy = "etcd's data go back to what they were before the upgrade";
    match writes {
        Some(0) => format!("{copy}; no write is lost with that"),
        Some(1) => format!("{copy}: 1 write since then is lost"),
        Some(writes) => format!("{copy}: {writes} writes since then are lost"),
        None => format!("{copy}: every write since then is lost, and how many there were cannot be read"),
    }
}

/// How many writes are not in the copy.
pub(super) fn writes_since(machine: &Machine<'_>, data: &DataCopy) -> Option<u64> {
    machine.etcd.writes_since(&machine.paths.on_host(&data.to), &machine.paths.on_host(&data.from))
}
