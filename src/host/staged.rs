//! A file that is written piece by piece, for minutes perhaps, and is in its place only when it is whole.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::fs::{FsError, entries, remove_file, sync_dir};
use super::sync::sync_file;

/// What the names of half files begin with.
const PREFIX: &str = ".kubeboot-part-";

/// A file on its way. It is a locked dot file beside its place: dropped before [`StagedFile::place`] it is removed, and
/// what a process that was killed has left goes with the next one that is begun in the same directory.
#[derive(Debug)]
pub struct StagedFile {
    temp: tempfile::NamedTempFile,
    path: PathBuf,
}

impl StagedFile {
    /// Begins the file `path` with `mode`, whatever the umask is. Its directory must exist.
    ///
    /// # Errors
    /// A file cannot be made there.
    pub fn create(path: &Path, mode: u32) -> Result<Self, FsError> {
        let fail = |source| FsError::new("write", path, source);
        remove_left(dir_of(path))?;
        let permissions = || fs::Permissions::from_mode(mode);
        let mut builder = tempfile::Builder::new();
        let made = builder.prefix(PREFIX).permissions(permissions()).tempfile_in(dir_of(path));
        let temp = made.map_err(fail)?;
        flock(temp.as_file(), FlockOperation::NonBlockingLockExclusive).map_err(|errno| fail(errno.into()))?;
        // The umask may have taken bits away; they are only added now.
        temp.as_file().set_permissions(permissions()).map_err(fail)?;
        Ok(Self { temp, path: path.to_owned() })
    }

    /// Adds to its end.
    ///
    /// # Errors
    /// It cannot be written; what is there of it goes when this is dropped.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        self.temp.write_all(bytes).map_err(|e| FsError::new("write", &self.path, e))
    }

    /// Puts it in its place, durably, in one rename: what was there before stays whole until then.
    ///
    /// # Errors
    /// As [`StagedFile::write`].
    pub fn place(self) -> Result<(), FsError> {
        let Self { temp, path } = self;
        sync_file(temp.as_file(), &path)?;
        temp.persist(&path).map_err(|e| FsError::new("write", &path, e.error))?;
        sync_dir(dir_of(&path))
    }
}

fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        None => Path::new("/"),
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
    }
}

/// Removes half files whose process has ended: the kernel has given their locks back.
fn remove_left(dir: &Path) -> Result<(), FsError> {
    for path in entries(dir)? {
        let is_half = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        if !is_half || !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::write_file;
    use crate::testing::threads::with_umask;

    #[test]
    fn a_file_is_in_its_place_when_it_is_whole_and_what_was_there_stays_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        write_file(&path, b"old", 0o644).unwrap();
        with_umask(0o777, || {
            let mut staged = StagedFile::create(&path, 0o640).unwrap();
            staged.write(b"ne").unwrap();
            staged.write(b"w").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
            staged.place().unwrap();
        });
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        drop(StagedFile::create(&path, 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_another_one_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let half = dir.path().join(format!("{PREFIX}killed"));
        write_file(&half, b"half", 0o600).unwrap();
        let mut first = StagedFile::create(&dir.path().join("a"), 0o600).unwrap();
        assert!(!half.exists());
        first.write(b"first").unwrap();
        StagedFile::create(&dir.path().join("b"), 0o600).unwrap().place().unwrap();
        first.place().unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"first");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_with_the_file() {
        let error = StagedFile::create(Path::new("/nonexistent-kubeboot/db"), 0o600).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nonexistent-kubeboot/db");
    }
}
