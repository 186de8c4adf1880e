//! What is kept of etcd's data without stopping it: a snapshot of its database, taken while it serves, and the log of what
//! came after, kept when the next etcd has started.
//!
//! Both are a data directory with every write that the old etcd has acknowledged. The log is only added to, and the next
//! etcd begins a term of its own in it: what the old one has left is found there afterwards, so nothing has to be done
//! between the end of the one and the start of the other.

use std::path::{Path, PathBuf};

use super::UpgradeError;
use super::apply::Machine;
use super::copy::SNAPSHOT;
use super::journal::{DataCopy, Journal, Snapshot};
use crate::etcd::snapshot;
use crate::etcd::wal::{LOG, LogFile, Moment, begin_of, log_of};
use crate::event::Event;
use crate::host::fs::FsError;
use crate::manifests::ETCD;

/// The directories of a member's files, each after the one that it is in.
const MEMBER: &[&str] = &["member", "member/snap", LOG];

/// Takes a snapshot of the etcd whose data directory is `data_dir`, into `dir`; None where it does not serve. One that fails
/// leaves nothing.
pub(super) async fn take(
    machine: &mut Machine<'_>,
    data_dir: &Path,
    dir: &Path,
) -> Result<Option<DataCopy>, UpgradeError> {
    let Ok(status) = machine.etcd.status().await else { return Ok(None) };
    // `--wal-dir` may put the log elsewhere.
    if status.leader.is_none() || !machine.paths.on_host(data_dir).join(LOG).is_dir() {
        return Ok(None);
    }
    let is_alone = machine.etcd.list().await?.len() == 1;
    let data = DataCopy { from: data_dir.to_owned(), to: dir.join(ETCD), ..DataCopy::default() };
    // No journal names it: one that was cut off.
    machine.disk.remove_tree(&machine.paths.on_host(&data.to))?;
    machine.tree.make_dir(dir, 0o700)?;
    let taken = save(machine, &data, is_alone.then_some(status.applied_index)).await;
    if taken.is_err()
        && let Err(left) = machine.disk.remove_tree(&machine.paths.on_host(&data.to))
    {
        machine.reporter.warn("upgrade", format!("half a copy of etcd's data stays: {left}"));
    }
    taken.map(|snapshot| Some(DataCopy { version: Some(status.version), snapshot: Some(snapshot), ..data }))
}

/// Saves everything that the log is added to later; `applied` is what the database has already, None where the log will not
/// be kept.
async fn save(machine: &mut Machine<'_>, data: &DataCopy, applied: Option<u64>) -> Result<Snapshot, UpgradeError> {
    let (from, to) = places(machine, data);
    machine.disk.make_dir(&to, &from)?;
    for part in MEMBER {
        machine.disk.make_dir(&to.join(part), &from.join(part))?;
    }
    let mut begin = 0;
    if let Some(applied) = applied {
        let (index, state) = begin_of(&from, applied)?;
        begin = index;
        copy(machine, &from, &to, state.as_slice())?;
    }
    tell(machine, "taking a snapshot of its data");
    let saved = snapshot::save(machine.etcd, machine.disk, &to.join(SNAPSHOT)).await?;
    let now = machine.etcd.status().await?;
    Ok(Snapshot {
        sha256: saved.snapshot.sha256,
        storage: saved.storage.map(|storage| storage.to_string()),
        moment: applied.map(|_| Moment { term: now.raft_term, begin }),
        has_log: false,
    })
}

/// Adds the log of the old etcd to the snapshot, once the next one has been started, or was not. Safe to repeat.
pub(super) fn keep_log(machine: &mut Machine<'_>, journal: &mut Journal) -> Result<(), UpgradeError> {
    let Some(data) = journal.etcd_data.clone() else { return Ok(()) };
    let Some(moment) = data.snapshot.as_ref().filter(|it| !it.has_log).and_then(|it| it.moment) else {
        return Ok(());
    };
    let (from, to) = places(machine, &data);
    let dir = to.join(LOG);
    machine.disk.remove_tree(&dir)?;
    machine.disk.make_dir(&dir, &from.join(LOG))?;
    copy(machine, &from, &to, &log_of(&from, moment)?)?;
    if let Some(snapshot) = journal.etcd_data.as_mut().and_then(|data| data.snapshot.as_mut()) {
        snapshot.has_log = true;
    }
    journal.write(machine.tree)
}

/// As [`keep_log`], where nothing depends on it: without the log the copy is not put back, and that says so.
pub(super) fn keep_log_if_possible(machine: &mut Machine<'_>, journal: &mut Journal) {
    if let Err(error) = keep_log(machine, journal) {
        machine.reporter.warn("upgrade", format!("the copy of etcd's data is not whole: {error}"));
    }
}

/// Whether a snapshot is as it was saved, and has its log: looked at before it takes the place of anything.
pub(super) fn check(machine: &Machine<'_>, data: &DataCopy) -> Result<(), UpgradeError> {
    let Some(snapshot) = &data.snapshot else { return Ok(()) };
    let path = machine.paths.on_host(&data.to).join(SNAPSHOT);
    let found = snapshot::check(&path)?;
    match (found.sha256 == snapshot.sha256, snapshot.has_log) {
        (true, true) => Ok(()),
        (false, _) => Err(UpgradeError::OtherSnapshot { path }),
        (true, false) => Err(UpgradeError::NoLog { path: data.to.clone() }),
    }
}

/// Copies files from one data directory to the other.
fn copy(machine: &mut Machine<'_>, from: &Path, to: &Path, files: &[LogFile]) -> Result<(), FsError> {
    for LogFile { path, length } in files {
        let source = from.join(path);
        machine.disk.copy_beginning(&source, &to.join(path), *length, &source)?;
    }
    for dir in MEMBER {
        machine.disk.sync_dir(&to.join(dir))?;
    }
    machine.disk.sync_dir(to)
}

/// The data directory and its copy, on the host.
fn places(machine: &Machine<'_>, data: &DataCopy) -> (PathBuf, PathBuf) {
    (machine.paths.on_host(&data.from), machine.paths.on_host(&data.to))
}

fn tell(machine: &Machine<'_>, state: &str) {
    let (name, state) = (ETCD.to_owned(), state.to_owned());
    machine.reporter.event(Event::Component { name, state, healthy: true, detail: None });
}
