//! etcd's data: kept before another etcd opens them, and put back. An etcd that serves is not stopped for that
//! (`snapshot.rs`); of one that does not, the files are copied.

use std::path::{Path, PathBuf};

use super::apply::{Machine, wait};
use super::copy::{copy_tree, restore_tree, size};
use super::journal::{DataCopy, Journal};
use super::manifest::image_version;
use super::plan::Step;
use super::target::file;
use super::{UpgradeError, snapshot};
use crate::etcd::Minor;
use crate::host::fs::FsError;
use crate::host::paths::TMP_DIR;
use crate::manifests::ETCD;
use crate::release::{etcd_opens, etcds_for};

/// What may be added to etcd's data between looking and stopping: one more segment of its log.
const SPARE: u64 = 64 << 20;
/// What needs room, in words.
const COPY: &str = "the copy of etcd's data";

/// Whether the next etcd opens the data, and there is room for what a step copies; the journal of an upgrade that begins
/// learns where. Asked before anything is touched.
///
/// # Errors
/// [`UpgradeError::Unopened`]; [`UpgradeError::NoRoom`], with numbers.
pub(super) fn look(machine: &Machine<'_>, step: &Step, journal: &mut Journal) -> Result<(), UpgradeError> {
    let Some(data_dir) = &step.data_dir else { return Ok(()) };
    opens(step)?;
    let places = places(machine, data_dir, journal)?;
    let place = room(machine, COPY, &machine.paths.on_host(data_dir), &places)?;
    journal.etcd_copy = Some(place.to_owned()).filter(|place| !place.starts_with(TMP_DIR));
    Ok(())
}

/// Where the data in `data_dir` may be copied to, as the node sees it, the best place first: the file system that holds them
/// is made for their size, the one of /etc often is not.
///
/// Beside them, or, where they are a file system of their own, among them: etcd warns of a name that it does not know, and
/// leaves it alone (seen with 3.4.23, 3.5.16, 3.6.8 and 3.7.1).
fn places(machine: &Machine<'_>, data_dir: &Path, journal: &Journal) -> Result<Vec<PathBuf>, FsError> {
    let device = |path: &Path| machine.disk.device(&machine.paths.on_host(path));
    let (usual, own) = (Path::new(TMP_DIR), device(data_dir)?);
    let mut dirs = vec![usual];
    if device(usual)? != own {
        let above = data_dir.parent().unwrap_or(data_dir);
        dirs.insert(0, if device(above)? == own { above } else { data_dir });
    }
    Ok(dirs.into_iter().map(|dir| journal.etcd_copy_in(dir)).collect())
}

/// An etcd whose image says no version is left to find out itself.
fn opens(step: &Step) -> Result<(), UpgradeError> {
    let (Some(from), Some(to)) = (image_version(&step.old_image), image_version(&step.new_image)) else {
        return Ok(());
    };
    let (Some(old), Some(new)) = (Minor::of(&from), Minor::of(&to)) else { return Ok(()) };
    let data = (old.major, old.minor);
    match etcd_opens((new.major, new.minor), data) {
        true => Ok(()),
        false => {
            let reachable = etcds_for(data).into_iter().filter(|etcd| *etcd > data);
            let reachable = reachable.map(|(major, minor)| format!("{major}.{minor}")).collect();
            Err(UpgradeError::Unopened { from, to, reachable })
        }
    }
}

/// The first of `places` with room for what is at `from`.
fn room<'p>(
    machine: &Machine<'_>,
    what: &'static str,
    from: &Path,
    places: &'p [PathBuf],
) -> Result<&'p Path, UpgradeError> {
    let need = size(from)?.saturating_add(SPARE);
    let mut small = Vec::new();
    for place in places {
        match machine.disk.free(&machine.paths.on_host(place))? {
            free if free < need => small.push((place.clone(), free)),
            _ => return Ok(place),
        }
    }
    Err(UpgradeError::NoRoom { what, need, places: small })
}

/// Keeps etcd's data before the next etcd opens them.
pub(super) async fn keep(machine: &mut Machine<'_>, step: &Step, journal: &mut Journal) -> Result<(), UpgradeError> {
    let Some(data_dir) = &step.data_dir else { return Ok(()) };
    let before = journal.etcd_data.take_if(|data| data.snapshot.is_some());
    if journal.etcd_data.is_some() {
        return Ok(());
    }
    if before.is_some() && machine.etcd.status().await.is_err() {
        // A run that was cut off has taken one. If the old etcd does not serve now, that is the last of it that there is.
        journal.etcd_data = before;
        return Ok(());
    }
    // etcd has been written to since: it is taken again, and until that is whole there is none.
    if before.is_some() {
        journal.write(machine.tree)?;
    }
    if let Some(data) = snapshot::take(machine, data_dir, &journal.etcd_copy()).await? {
        journal.etcd_data = Some(data);
        return journal.write(machine.tree);
    }
    machine
        .reporter
        .warn("upgrade", "etcd does not serve, or keeps its log elsewhere: its data are copied with it stopped".into());
    copy(machine, step, data_dir, journal).await
}

/// Stops etcd and copies its data: only a stopped etcd's files are consistent. A copy that fails goes again.
async fn copy(
    machine: &mut Machine<'_>,
    step: &Step,
    data_dir: &Path,
    journal: &mut Journal,
) -> Result<(), UpgradeError> {
    let dir = journal.etcd_copy();
    let (from, to) = (machine.paths.on_host(data_dir), machine.paths.on_host(&dir).join(ETCD));
    // No journal names it: a copy that was cut off.
    machine.disk.remove_tree(&to)?;
    room(machine, COPY, &from, std::slice::from_ref(&dir))?;
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
    let version = image_version(&step.old_image);
    journal.etcd_data =
        Some(DataCopy { from: data_dir.to_owned(), to: dir.join(ETCD), version, ..DataCopy::default() });
    journal.write(machine.tree)
}

/// Puts the copy of etcd's data back, with etcd stopped. The journal says so before the first change and until the last,
/// so that a run that goes on with the upgrade, or takes it back, begins with this; afterwards the copy is forgotten.
///
/// # Errors
/// [`UpgradeError::WouldLose`] where writes would be lost, which was not asked for (`whatever_is_lost`).
pub(super) async fn restore(
    machine: &mut Machine<'_>,
    journal: &mut Journal,
    whatever_is_lost: bool,
) -> Result<(), UpgradeError> {
    let Some(data) = journal.etcd_data.clone() else { return Ok(()) };
    let (copy, place) = (machine.paths.on_host(&data.to), machine.paths.on_host(&data.from));
    if !data.restoring {
        snapshot::check(machine, &data)?;
        room(machine, "putting the copy of etcd's data back", &copy, std::slice::from_ref(&data.from))?;
    }
    let manifest = file(ETCD);
    let before = machine.tree.read(&manifest)?;
    machine.tree.remove(&manifest)?;
    wait(machine, ETCD, &manifest, None).await?;
    if !data.restoring {
        // Nothing is added any more.
        let writes = machine.etcd.writes_since(&copy, &place);
        if writes != Some(0) && !whatever_is_lost {
            if let Some(before) = before {
                machine.tree.write(&manifest, &before, 0o600)?;
            }
            return Err(UpgradeError::WouldLose { writes });
        }
        machine.reporter.warn("rollback", loss(writes));
        if let Some(data) = &mut journal.etcd_data {
            data.restoring = true;
        }
        journal.write(machine.tree)?;
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
