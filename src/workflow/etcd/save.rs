//! A snapshot of etcd's data in a file that a user names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::etcd::Maintenance;
use crate::etcd::snapshot::{self, Saved, SnapshotError};
use crate::host::disk::Disk;
use crate::host::fs::FsError;

/// Why nothing was saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A file is there.
    #[error("{} exists: name another file, or replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Something else is there, which no file takes the place of.
    #[error("{} exists and is no regular file: name another one", path.display())]
    NoFile {
        /// What is there.
        path: PathBuf,
    },
    /// There is nothing to put it into.
    #[error("the directory {} does not exist: make it first", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error(transparent)]
    File(#[from] FsError),
    /// It is not taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Whether a snapshot may be saved in the file `path`.
///
/// # Errors
/// [`SaveError`].
pub fn look(path: &Path, force: bool) -> Result<(), SaveError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return Err(SaveError::NoDirectory { path: dir.to_owned() });
    }
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FsError::new("read", path, error).into()),
        Ok(meta) if !meta.is_file() => Err(SaveError::NoFile { path: path.to_owned() }),
        Ok(_) if force => Ok(()),
        Ok(_) => Err(SaveError::Exists { path: path.to_owned() }),
    }
}

/// Has `etcd` send a snapshot into the file `path`. One that is there is replaced only with `force`, and stays whole until
/// the new one is; `etcdctl snapshot save` replaces it without a question.
///
/// # Errors
/// [`SaveError`]; everything is as it was then.
pub async fn save(etcd: &dyn Maintenance, disk: &mut dyn Disk, path: &Path, force: bool) -> Result<Saved, SaveError> {
    look(path, force)?;
    Ok(snapshot::save(etcd, disk, path).await?)
}
