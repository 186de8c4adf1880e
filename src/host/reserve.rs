//! Room that is set aside before something is begun that has to come to its end, whatever fills the disk meanwhile. What is
//! written then is small (a journal, manifests, certificates), and without it neither the new nor the old would be whole.
//!
//! A [`Reserve`] is a file of allocated blocks on each file system. The first write of [`fs`](super::fs) that finds no room
//! removes them all and is tried once more.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::fs::{FsError, remove_file};

/// The name of the file.
pub const NAME: &str = ".kubeboot-reserve";
/// How many bytes are set aside on each file system: several times what an upgrade writes beside etcd's data.
pub const SIZE: u64 = 2 << 20;

/// The files that hold room for this process.
static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Room that is held as long as this lives, or until it is needed.
#[derive(Debug)]
pub struct Reserve {
    files: Vec<PathBuf>,
}

impl Reserve {
    /// Sets room aside where these directories are, once on each file system; one that is not there is left out. A file that
    /// a killed process left is taken over.
    ///
    /// # Errors
    /// There is no room.
    pub fn take(dirs: &[PathBuf]) -> Result<Self, FsError> {
        let mut reserve = Self { files: Vec::new() };
        let mut devices = Vec::new();
        for dir in dirs {
            let Ok(meta) = std::fs::metadata(dir) else { continue };
            let file = dir.join(NAME);
            if reserve.files.contains(&file) {
                continue;
            }
            remove_file(&file)?;
            if devices.contains(&meta.dev()) {
                continue;
            }
            devices.push(meta.dev());
            reserve.files.push(file.clone());
            allocate(&file).map_err(|e| FsError::new("set room aside in", &file, e))?;
        }
        HELD.lock().unwrap_or_else(PoisonError::into_inner).extend(reserve.files.iter().cloned());
        Ok(reserve)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|file| !self.files.contains(file));
        remove(&self.files);
    }
}

/// Blocks, where the file system can set them aside, else zeros.
fn allocate(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => zeros(&mut file),
        allocated => Ok(allocated?),
    }
}

fn zeros(file: &mut File) -> io::Result<()> {
    let block = vec![0; 64 << 10];
    (0..SIZE / block.len() as u64).try_for_each(|_| file.write_all(&block))
}

fn remove(files: &[PathBuf]) {
    for file in files {
        if let Err(error) = remove_file(file) {
            tracing::warn!(%error, "room that was set aside is not given back");
        }
    }
}

/// Gives back the room that this process holds; returns whether it held any.
fn give_back() -> bool {
    let files = std::mem::take(&mut *HELD.lock().unwrap_or_else(PoisonError::into_inner));
    if files.is_empty() {
        return false;
    }
    tracing::warn!("the disk is full: what was set aside for that is used");
    remove(&files);
    true
}

/// Writes, and where there is no room gives back what was set aside and writes again.
///
/// # Errors
/// Those of `write`.
pub fn or_from_it<T>(mut write: impl FnMut() -> Result<T, FsError>) -> Result<T, FsError> {
    match write() {
        Err(error) if error.is_full() && give_back() => write(),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::write_file;
    use crate::testing::threads::{apart, small_disk};

    /// Takes what room is left.
    fn fill(dir: &Path) {
        let mut file = OpenOptions::new().create(true).append(true).open(dir.join("fill")).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
    }

    /// One test: the room is the whole process's.
    #[test]
    fn what_finds_no_room_is_written_into_what_was_set_aside() {
        apart(|| {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().to_owned();
            small_disk(&dir, 4 << 20);
            let file = dir.join("journal");
            let reserve = Reserve::take(&[dir.clone(), dir.join("missing"), dir.clone()]).unwrap();
            assert_eq!(reserve.files.len(), 1, "once on each file system");
            let meta = std::fs::metadata(dir.join(NAME)).unwrap();
            assert!(meta.len() == SIZE && meta.blocks() * 512 >= SIZE, "blocks, not a hole");
            fill(&dir);
            write_file(&file, &[7; 100_000], 0o600).unwrap();
            assert!(!dir.join(NAME).exists(), "it is used up");
            fill(&dir);
            assert!(write_file(&file, &[8; 200_000], 0o600).unwrap_err().is_full());
            assert_eq!(std::fs::read(&file).unwrap(), [7; 100_000], "what was there stays");
            drop(reserve);

            let refused = Reserve::take(std::slice::from_ref(&dir)).unwrap_err();
            assert!(refused.is_full() && refused.to_string().starts_with("cannot set room aside in "), "{refused}");
            assert!(!dir.join(NAME).exists());

            std::fs::remove_file(dir.join("fill")).unwrap();
            write_file(&dir.join(NAME), b"of a process that was killed", 0o600).unwrap();
            let reserve = Reserve::take(std::slice::from_ref(&dir)).unwrap();
            assert_eq!(std::fs::metadata(dir.join(NAME)).unwrap().len(), SIZE);
            drop(reserve);
            assert!(!dir.join(NAME).exists(), "given back at the end");
        });
    }
}
