//! One agent a root directory: two would stop each other's pods.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::AgentError;
use crate::host::fs::{FsError, make_dirs};

/// The file, below the root directory.
const FILE: &str = "kubeboot-agent.lock";

/// Held as long as the agent runs. The file stays; the lock goes with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a root directory, making the directory where it is missing.
///
/// # Errors
/// [`AgentError::Running`] with the other's process id when another agent has it.
pub fn acquire(root: &Path) -> Result<Lock, AgentError> {
    let path = root.join(FILE);
    let failed = |action, source| AgentError::Lock { source: FsError::new(action, &path, source) };
    make_dirs(root, 0o755).map_err(|source| AgentError::Lock { source })?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = file.map_err(|e| failed("open", e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(AgentError::Running { root: root.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(error) => return Err(failed("lock", error.into())),
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| failed("write", e))?;
    Ok(Lock { _file: file })
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
