//! A snapshot made into a data directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::etcd::MemberId;
use crate::etcd::database::DatabaseError;
use crate::etcd::restore::{NewCluster, Revisions};
use crate::etcd::snapshot::{self, SnapshotError};
use crate::etcd::wal::LOG;
use crate::host::disk::Disk;
use crate::host::fs::{FsError, entries, make_dirs_durably, write_file};
use crate::host::remove::remove_tree;
use crate::host::sync::sync_dir;

/// Where data are put together, in the data directory itself: that may be a file system of its own.
const STAGE: &str = ".kubeboot-restore";
/// Where they are in the end.
const MEMBER: &str = "member";
/// What a file system may have from the beginning.
const LOST_AND_FOUND: &str = "lost+found";
/// For the owner alone: every secret of the cluster is in it.
const DIR: u32 = 0o700;
/// As [`DIR`].
const FILE: u32 = 0o600;
/// What stays free for etcd: a segment of its log.
const SPARE: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

/// What is restored.
pub struct Wanted<'a> {
    /// The snapshot.
    pub snapshot: &'a Path,
    /// Where to.
    pub data_dir: &'a Path,
    /// The members that there will be.
    pub cluster: &'a NewCluster,
    /// Which of them this is.
    pub own: MemberId,
    /// What is done to the revisions.
    pub revisions: Revisions,
    /// Whether the snapshot's hash does not count.
    pub skip_hash_check: bool,
}

/// Why nothing is restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There are data.
    #[error(
        "{} is not empty ({first} is in it): nothing is restored over what is there. Stop etcd and move the directory away \
         (`mv {} {}.before`), or name another one with --data-dir", path.display(), path.display(), path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        first: String,
    },
    /// They would not fit.
    #[error(
        "the data of etcd need {} MiB in {}, where {} MiB are free: make room there", need.div_ceil(MIB), path.display(),
        free / MIB
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Bytes, with those that have to stay free.
        need: u64,
        /// Bytes.
        free: u64,
    },
    /// The snapshot is not whole.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What is in it is no database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Files cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
}

/// Makes the data of the member in an empty directory, or one that is not there. They are put together beside their place and
/// are there in one rename, so that a run that was cut off leaves nothing that an etcd would start on; the next one removes it.
///
/// # Errors
/// [`RestoreError`]; the directory is as it was then.
pub fn restore(disk: &dyn Disk, wanted: &Wanted<'_>) -> Result<(), RestoreError> {
    let dir = wanted.data_dir;
    let others = entries(dir)?.into_iter().filter_map(|path| path.file_name().map(OsStr::to_owned));
    if let Some(first) = others.into_iter().find(|name| name != STAGE && name != LOST_AND_FOUND) {
        return Err(RestoreError::NotEmpty { path: dir.to_owned(), first: first.to_string_lossy().into_owned() });
    }
    let size = std::fs::metadata(wanted.snapshot).map_err(|e| FsError::new("read", wanted.snapshot, e))?.len();
    let stage = dir.join(STAGE);
    remove_tree(&stage)?;
    let (need, free) = (size.saturating_add(SPARE), disk.free(dir)?);
    if free < need {
        return Err(RestoreError::NoRoom { path: dir.to_owned(), need, free });
    }
    let made = make_dirs_durably(dir, DIR)?;
    let outcome = fill(&stage, wanted).and_then(|()| put_in_place(&stage, dir));
    if outcome.is_err() {
        // What was made goes, the innermost first; the error that counts is the first.
        let left = [stage].into_iter().chain(made.into_iter().rev());
        left.for_each(|path| drop(remove_tree(&path)));
    }
    outcome
}

fn fill(stage: &Path, wanted: &Wanted<'_>) -> Result<(), RestoreError> {
    let log = Path::new(LOG).file_name().unwrap_or(OsStr::new("wal"));
    let (snap, wal) = (stage.join("snap"), stage.join(log));
    make_dirs_durably(&snap, DIR)?;
    make_dirs_durably(&wal, DIR)?;
    let database = snap.join("db");
    snapshot::extract(wanted.snapshot, &database, wanted.skip_hash_check)?;
    wanted.cluster.take_over(&database, wanted.revisions)?;
    let files = wanted.cluster.files(wanted.own);
    write_file(&snap.join(files.state.0), &files.state.1, FILE)?;
    write_file(&wal.join(files.log.0), &files.log.1, FILE)?;
    Ok(())
}

fn put_in_place(stage: &Path, dir: &Path) -> Result<(), RestoreError> {
    let place = dir.join(MEMBER);
    std::fs::rename(stage, &place).map_err(|e| FsError::new("put in place", &place, e))?;
    Ok(sync_dir(dir)?)
}
