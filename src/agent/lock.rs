//! One agent a root directory: two would stop each other's pods.

use std::path::{Path, PathBuf};

use crate::host::fs::{FsError, make_dirs};
use crate::host::lock::{Attempt, Lock, holder, try_lock};

/// The file, below the root directory.
const FILE: &str = "kubeboot-agent.lock";

/// Why the lock of a root directory was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another agent runs on {} ({})", root.display(), pid.map_or("process unknown".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The root directory.
        root: PathBuf,
        /// The other's process id, if it has written it.
        pid: Option<u32>,
    },
    /// The file or its directory cannot be made.
    #[error("cannot take the agent's lock")]
    File(#[source] FsError),
}

/// Takes the lock of a root directory, making the directory where it is missing. It is held as long as the agent runs; the
/// file stays.
///
/// # Errors
/// [`LockError::Held`] with the other's process id when another agent has it.
pub fn acquire(root: &Path) -> Result<Lock, LockError> {
    make_dirs(root, 0o755).map_err(LockError::File)?;
    match try_lock(&root.join(FILE)).map_err(LockError::File)? {
        Attempt::Taken(lock) => Ok(lock),
        Attempt::Held { pid } => Err(LockError::Held { root: root.to_owned(), pid }),
    }
}

/// Whether an agent runs on a root directory, and its process id if it has written it.
///
/// # Errors
/// The lock's file cannot be read.
pub fn running(root: &Path) -> Result<Option<Option<u32>>, FsError> {
    holder(&root.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_is_told_who_the_first_one_is() {
        let root = tempfile::tempdir().unwrap();
        let first = acquire(root.path()).unwrap();
        let error = acquire(root.path()).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, LockError::Held { pid: Some(other), .. } if other == pid), "{error}");
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        assert_eq!(running(root.path()).unwrap(), Some(Some(pid)));
        drop(first);
        assert_eq!(running(root.path()).unwrap(), None);
        acquire(root.path()).unwrap();
    }
}
