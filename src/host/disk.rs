//! Whole directories: copied, exchanged, removed, one step at a time.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use rustix::io::Errno;

use super::fs::{FsError, sync_dir};
use super::remove::remove_tree;
use super::sync::sync_file;

/// The steps in which directories are copied and put in place. Paths are those of the host.
pub trait Disk: Send {
    /// Makes a directory with the mode and the owner of the directory `like`.
    fn make_dir(&mut self, path: &Path, like: &Path) -> Result<(), FsError>;

    /// Copies a file with its mode and owner, durably.
    fn copy_file(&mut self, from: &Path, to: &Path) -> Result<(), FsError>;

    /// Copies the first `length` bytes of a file, with the mode and the owner of the file `like`, durably.
    fn copy_beginning(&mut self, from: &Path, to: &Path, length: u64, like: &Path) -> Result<(), FsError>;

    /// Makes renames in a directory survive a power cut.
    fn sync_dir(&mut self, path: &Path) -> Result<(), FsError>;

    /// Puts `new` in the place of `place` in one step; what was there, if anything, is at `new` then.
    fn exchange(&mut self, new: &Path, place: &Path) -> Result<(), FsError>;

    /// Removes a directory with everything in it; that it is not there is fine.
    fn remove_tree(&mut self, path: &Path) -> Result<(), FsError>;

    /// How many bytes are free for this process where `path` is or will be.
    fn free(&self, path: &Path) -> Result<u64, FsError>;

    /// The number of the file system that `path` is or will be on.
    fn device(&self, path: &Path) -> Result<u64, FsError>;
}

/// The disks of this machine.
#[derive(Debug, Clone, Copy)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn make_dir(&mut self, path: &Path, like: &Path) -> Result<(), FsError> {
        let meta = fs::metadata(like).map_err(|e| FsError::new("read", like, e))?;
        let fail = |e| FsError::new("create directory", path, e);
        fs::DirBuilder::new().mode(0o700).create(path).map_err(fail)?;
        own(path, &meta)?;
        // Whatever the umask is; bits are only added now.
        fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777)).map_err(fail)?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    fn copy_file(&mut self, from: &Path, to: &Path) -> Result<(), FsError> {
        self.copy_beginning(from, to, u64::MAX, from)
    }

    fn copy_beginning(&mut self, from: &Path, to: &Path, length: u64, like: &Path) -> Result<(), FsError> {
        let meta = fs::metadata(like).map_err(|e| FsError::new("read", like, e))?;
        let fail = |e| FsError::new("copy", from, e);
        let mut source = fs::File::open(from).map_err(fail)?.take(length);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(to).map_err(fail)?;
        io::copy(&mut source, &mut file).map_err(fail)?;
        own(to, &meta)?;
        let permissions = fs::Permissions::from_mode(meta.mode() & 0o7777);
        file.set_permissions(permissions).map_err(|e| FsError::new("sync", to, e))?;
        sync_file(&file, to)
    }

    fn sync_dir(&mut self, path: &Path) -> Result<(), FsError> {
        sync_dir(path)
    }

    fn exchange(&mut self, new: &Path, place: &Path) -> Result<(), FsError> {
        let fail = |e: io::Error| FsError::new("put in place", place, e);
        match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => fs::rename(new, place).map_err(fail),
            // A file system that cannot exchange: the caller finishes it, should it be cut off in between.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let mut name = new.as_os_str().to_owned();
                name.push(".old");
                fs::rename(place, &name).and_then(|()| fs::rename(new, place)).map_err(fail)?;
                fs::rename(&name, new).map_err(fail)
            }
            Err(errno) => Err(fail(errno.into())),
        }
    }

    fn remove_tree(&mut self, path: &Path) -> Result<(), FsError> {
        remove_tree(path).map(drop)
    }

    fn free(&self, path: &Path) -> Result<u64, FsError> {
        let there = what_is_there_of(path);
        let stat = statvfs(there).map_err(|e| FsError::new("look for room at", there, e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn device(&self, path: &Path) -> Result<u64, FsError> {
        let there = what_is_there_of(path);
        fs::metadata(there).map(|meta| meta.dev()).map_err(|e| FsError::new("look at", there, e))
    }
}

/// `path`, or the directory above that it will be made in.
fn what_is_there_of(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn own(path: &Path, like: &fs::Metadata) -> Result<(), FsError> {
    chown(path, Some(like.uid()), Some(like.gid())).map_err(|e| FsError::new("change owner of", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    #[test]
    fn two_directories_change_places_and_one_without_a_predecessor_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (new, place) = (dir.path().join("new"), dir.path().join("place"));
        make_dirs(&new, 0o700).unwrap();
        write_file(&new.join("f"), b"new", 0o600).unwrap();
        HostDisk.exchange(&new, &place).unwrap();
        assert!(!new.exists() && place.join("f").exists());
        make_dirs(&new, 0o700).unwrap();
        HostDisk.exchange(&new, &place).unwrap();
        assert!(new.join("f").exists() && !place.join("f").exists());
        HostDisk.remove_tree(&new).unwrap();
        HostDisk.remove_tree(&new).unwrap();
        assert!(!new.exists());
    }

    #[test]
    fn the_beginning_of_a_file_is_copied_with_the_mode_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, like) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("like"));
        write_file(&from, b"beginning and end", 0o600).unwrap();
        write_file(&like, b"", 0o640).unwrap();
        HostDisk.copy_beginning(&from, &to, 9, &like).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"beginning");
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o640);
        HostDisk.copy_file(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"beginning and end");
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn room_is_that_of_the_directory_above_what_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        assert!(HostDisk.free(&dir.path().join("not/there")).unwrap() > 0);
        let here = HostDisk.device(dir.path()).unwrap();
        assert_eq!(HostDisk.device(&dir.path().join("not/there")).unwrap(), here);
        assert_ne!(HostDisk.device(Path::new("/proc/not/there")).unwrap(), here);
    }
}
