//! The pid file and the socket of an agent that did not end cleanly. The directory is kubeboot's alone, so whatever the
//! inventory knows of it, none of the two outlives a reset.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::{ResetError, StepError};
use crate::host::Paths;
use crate::host::fs::{FsError, remove_file};
use crate::host::paths::{AGENT_PID, CONTROL_SOCKET, RUN_DIR};
use crate::workflow::machine::Machine;

fn all(paths: &Paths) -> [PathBuf; 2] {
    [AGENT_PID, CONTROL_SOCKET].map(|file| paths.on_host(file))
}

/// Whether there is any.
pub fn are_there(paths: &Paths) -> bool {
    all(paths).iter().any(|path| path.symlink_metadata().is_ok())
}

/// Removes them, and their directory if it is empty then, unless an agent runs: `running` says so of the service's, the
/// socket of one in a terminal. Returns whether there was anything.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove(paths: &Paths, running: bool) -> Result<bool, StepError> {
    if running || UnixStream::connect(paths.on_host(CONTROL_SOCKET)).is_ok() {
        return Ok(false);
    }
    let mut any = false;
    for path in all(paths) {
        any |= remove_file(&path)?;
    }
    let dir = paths.on_host(RUN_DIR);
    match std::fs::remove_dir(&dir) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(any),
        Err(e) => Err(FsError::new("remove", &dir, e).into()),
    }
}

/// Removes them on a machine that was never initialised: an agent may have been started there all the same.
///
/// # Errors
/// A service that cannot be asked, a file that cannot be removed.
pub fn sweep(machine: &Machine) -> Result<bool, ResetError> {
    if !machine.live || !are_there(&machine.paths) {
        return Ok(false);
    }
    let running = machine.service.is_running()?;
    remove(&machine.paths, running)
        .map_err(|error| ResetError::Steps { failed: vec![(super::Step::RemoveLeftovers, error)], total: 1 })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    #[test]
    fn a_stale_pid_file_and_a_dead_socket_go_with_their_directory() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        assert!(!are_there(&paths) && !remove(&paths, false).unwrap());
        make_dirs(&paths.on_host(RUN_DIR), 0o755).unwrap();
        write_file(&paths.on_host(AGENT_PID), b"4194305\n", 0o644).unwrap();
        drop(UnixListener::bind(paths.on_host(CONTROL_SOCKET)).unwrap());
        assert!(are_there(&paths) && remove(&paths, false).unwrap());
        assert!(!paths.on_host(RUN_DIR).exists());
    }

    #[test]
    fn those_of_an_agent_that_runs_stay_and_so_does_what_others_have_put_there() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        make_dirs(&paths.on_host(RUN_DIR), 0o755).unwrap();
        write_file(&paths.on_host(AGENT_PID), b"1\n", 0o644).unwrap();
        assert!(!remove(&paths, true).unwrap() && are_there(&paths));
        let listener = UnixListener::bind(paths.on_host(CONTROL_SOCKET)).unwrap();
        assert!(!remove(&paths, false).unwrap() && are_there(&paths), "somebody listens");
        drop(listener);
        write_file(&paths.on_host("/run/kubeboot/theirs"), b"", 0o644).unwrap();
        assert!(remove(&paths, false).unwrap() && !are_there(&paths));
        assert!(paths.on_host("/run/kubeboot/theirs").exists());
    }
}
