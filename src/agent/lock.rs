//! One agent a root directory: two would stop each other's pods.

use std::path::Path;

use super::AgentError;
use crate::host::fs::make_dirs;
use crate::host::lock::{Attempt, Lock, try_lock};

/// The file, below the root directory.
const FILE: &str = "kubeboot-agent.lock";

/// Takes the lock of a root directory, making the directory where it is missing. It is held as long as the agent runs; the
/// file stays.
///
/// # Errors
/// [`AgentError::Running`] with the other's process id when another agent has it.
pub fn acquire(root: &Path) -> Result<Lock, AgentError> {
    make_dirs(root, 0o755).map_err(|source| AgentError::Lock { source })?;
    match try_lock(&root.join(FILE)).map_err(|source| AgentError::Lock { source })? {
        Attempt::Taken(lock) => Ok(lock),
        Attempt::Held { pid } => Err(AgentError::Running { root: root.to_owned(), pid }),
    }
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
        assert!(matches!(error, AgentError::Running { pid: Some(other), .. } if other == pid), "{error}");
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        drop(first);
        acquire(root.path()).unwrap();
    }
}
