//! A lock file that names the process which holds it. The kernel gives the lock back when that process ends, however it
//! ends; the file stays.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::fs::FsError;

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Attempt {
    /// This process has it.
    Taken(Lock),
    /// Another process has it.
    Held {
        /// Which one, if it had time to write its id.
        pid: Option<u32>,
    },
}

/// Tries to take the lock at `path`, whose directory must exist, without waiting, and leaves this process' id in the file.
///
/// # Errors
/// The file cannot be made, locked or written.
pub fn try_lock(path: &Path) -> Result<Attempt, FsError> {
    let fail = |action, source| FsError::new(action, path, source);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = file.map_err(|e| fail("open", e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Attempt::Held { pid: read_pid(&mut file) }),
        Err(errno) => return Err(fail("lock", errno.into())),
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| fail("write", e))?;
    Ok(Attempt::Taken(Lock { file }))
}

/// Whether a process has the lock at `path`, and its id if it has written it. Nothing is locked or made.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn holder(path: &Path) -> Result<Option<Option<u32>>, FsError> {
    let fail = |action, source| FsError::new(action, path, source);
    let mut file = match OpenOptions::new().read(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| fail("open", e))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(read_pid(&mut file))),
        Err(errno) => Err(fail("lock", errno.into())),
    }
}

/// Waits until no process has the lock at `path`, and takes it for no longer than to know that; returns at once where there
/// is no such file.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn wait_until_free(path: &Path) -> Result<(), FsError> {
    let fail = |action, source| FsError::new(action, path, source);
    let file = match OpenOptions::new().read(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(|e| fail("open", e))?,
    };
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(fail("lock", errno.into())),
        }
    }
}

impl Lock {
    /// Whether the file at `path` is still the one that was locked: its holder before may have removed it, and then another
    /// process locks a new one at the same path.
    pub fn is_of(&self, path: &Path) -> bool {
        match (self.file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_had_by_one_at_a_time_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Attempt::Taken(first) = try_lock(&path).unwrap() else { panic!("it is held") };
        assert!(matches!(try_lock(&path).unwrap(), Attempt::Held { pid: Some(pid) } if pid == std::process::id()));
        assert_eq!(holder(&path).unwrap(), Some(Some(std::process::id())));
        drop(first);
        assert_eq!(holder(&path).unwrap(), None);
        assert_eq!(holder(&dir.path().join("none")).unwrap(), None);
        assert!(matches!(try_lock(&path).unwrap(), Attempt::Taken(_)));
    }

    #[test]
    fn who_waits_for_a_lock_goes_on_when_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        wait_until_free(&path).unwrap();
        let Attempt::Taken(first) = try_lock(&path).unwrap() else { panic!("it is held") };
        let (sender, freed) = std::sync::mpsc::channel();
        let waiting = path.clone();
        let thread = std::thread::spawn(move || sender.send(wait_until_free(&waiting).is_ok()));
        assert!(freed.recv_timeout(std::time::Duration::from_millis(200)).is_err(), "it is held");
        drop(first);
        assert!(freed.recv_timeout(std::time::Duration::from_secs(20)).unwrap());
        thread.join().unwrap().unwrap();
        assert!(matches!(try_lock(&path).unwrap(), Attempt::Taken(_)));
    }

    #[test]
    fn a_lock_of_a_file_that_was_removed_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Attempt::Taken(lock) = try_lock(&path).unwrap() else { panic!("it is held") };
        assert!(lock.is_of(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!lock.is_of(&path));
        crate::host::fs::write_file(&path, b"another", 0o600).unwrap();
        assert!(!lock.is_of(&path));
    }
}
