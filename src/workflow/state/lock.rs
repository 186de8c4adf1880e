//! One command at a time may change a machine. The kernel gives the lock back when its holder dies, however it dies.

use std::path::{Path, PathBuf};

use crate::host::fs::FsError;
use crate::host::lock::{self, Attempt};

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is at work on this machine (it holds {}); wait until it ends", holder(*pid), path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who, if the holder had time to say so.
        pid: Option<u32>,
    },
    /// The file was removed while it was being locked: a reset has just ended.
    #[error("{} has just been removed; run the command again", path.display())]
    Gone {
        /// The lock file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FsError),
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("another kubeboot, process {pid},"),
        None => "another kubeboot".to_owned(),
    }
}

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _lock: lock::Lock,
}

impl Lock {
    /// Takes the lock at `path`, whose directory must exist, without waiting, and leaves this process' id in the file.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let lock = match lock::try_lock(path).map_err(|error| FsError { action: "lock", ..error })? {
            Attempt::Taken(lock) => lock,
            Attempt::Held { pid } => return Err(LockError::Held { path: path.to_owned(), pid }),
        };
        if !lock.is_of(path) {
            return Err(LockError::Gone { path: path.to_owned() });
        }
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_has_the_lock_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()), "{error:?}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Lock::acquire(&path).unwrap();
    }
}
