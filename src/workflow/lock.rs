//! One command at a time may change a machine. The kernel gives the lock back when its holder dies, however it dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::host::fs::FsError;

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
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`, whose directory must exist, without waiting, and leaves this process' id in the file.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let fail = |source| FsError::new("lock", path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { path: path.to_owned(), pid: read_pid(&mut file) }),
            Err(errno) => return Err(fail(errno.into()).into()),
        }
        // Who had the lock before may have removed the file, and then a third process locks a new one at the same path.
        let same = match (file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        };
        if !same {
            return Err(LockError::Gone { path: path.to_owned() });
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(fail)?;
        Ok(Self { _file: file })
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
