//! Deleting a directory with all that is in it, by descriptors.
//!
//! The kernel is asked to follow no link and to cross no mount point on the way down, so that nothing but the
//! directory's own content goes, whatever is exchanged or mounted while it is being deleted. However deep a directory
//! is, one descriptor is enough.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::{DIRECTORY, open_dir};
use super::fs::FsError;

/// How often a directory is emptied again into which something writes meanwhile.
const ROUNDS: u32 = 8;

/// Removes `path` with everything in it; a link goes, what it points to stays. Links above it are followed. Returns
/// whether it was there.
///
/// # Errors
/// What cannot be removed; a mount point at or below `path` is one, and nothing behind it is touched.
pub fn remove_tree(path: &Path) -> Result<bool, FsError> {
    let fail = |e: Errno| FsError::new("remove", path, e.into());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(fail(Errno::INVAL)) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match rustix::fs::openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(fail(e)),
        Ok(parent) => remove_at(parent.as_fd(), name, path),
    }
}

/// Removes `name` in the directory `parent` with everything in it, as [`remove_tree`] does. `path` is what errors call
/// it.
///
/// # Errors
/// See there.
pub fn remove_at(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<bool, FsError> {
    let name = CString::new(name.as_bytes()).map_err(|e| FsError::new("remove", path, e.into()))?;
    match rustix::fs::statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(FsError::new("look at", path, e.into())),
        Ok(_) => {}
    }
    for _ in 0..ROUNDS {
        match unlink(parent, &name) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(e) => return Err(refused(e, path)),
        }
        match open_dir(parent, &*name) {
            Ok(dir) => empty(dir, path)?,
            // It has been exchanged, and is looked at once more.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => return Err(refused(e, path)),
        }
    }
    Err(refused(Errno::NOTEMPTY, path))
}

/// A directory above the one that is being emptied.
struct Level {
    /// Its identity, by which it is known again on the way up.
    id: (u64, u64),
    /// Which directory in it was entered last, and how often.
    entered: CString,
    times: u32,
}

/// Removes everything in `dir`.
fn empty(dir: OwnedFd, path: &Path) -> Result<(), FsError> {
    let (mut here, mut at) = (dir, path.to_owned());
    let mut above: Vec<Level> = Vec::new();
    let mut last: Option<(CString, u32)> = None;
    loop {
        let Some(child) = sweep(&here, &at)? else {
            let Some(level) = above.pop() else { return Ok(()) };
            // No mount lies between: the way down crossed none, and by its identity it is known again.
            let up = rustix::fs::openat(&here, c"..", OFlags::RDONLY | DIRECTORY, Mode::empty())
                .map_err(|e| refused(e, &at))?;
            if identity(up.as_fd()).map_err(|e| refused(e, &at))? != level.id {
                // It was moved elsewhere meanwhile: what is there is not for this.
                return Err(refused(Errno::STALE, &at));
            }
            at.pop();
            (here, last) = (up, Some((level.entered, level.times)));
            continue;
        };
        let times = last.take().filter(|(name, _)| *name == child).map_or(0, |(_, times)| times) + 1;
        let shown = at.join(OsStr::from_bytes(child.as_bytes()));
        if times > ROUNDS {
            return Err(refused(Errno::NOTEMPTY, &shown));
        }
        match open_dir(here.as_fd(), &*child) {
            Ok(dir) => {
                let id = identity(here.as_fd()).map_err(|e| refused(e, &at))?;
                above.push(Level { id, entered: child, times });
                (here, at) = (dir, shown);
            }
            // It is gone, or something else by now: the next sweep sees what.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => last = Some((child, times)),
            Err(e) => return Err(refused(e, &shown)),
        }
    }
}

/// Removes what goes at once, and returns the name of a directory that has something in it.
fn sweep(dir: &OwnedFd, at: &Path) -> Result<Option<CString>, FsError> {
    let entries = Dir::read_from(dir).map_err(|e| FsError::new("list", at, e.into()))?;
    for entry in entries {
        let entry = entry.map_err(|e| FsError::new("list", at, e.into()))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let removed = match entry.file_type() {
            FileType::Directory | FileType::Unknown => unlink(dir.as_fd(), name),
            _ => match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => unlink(dir.as_fd(), name),
                other => other,
            },
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
            Err(e) => return Err(refused(e, &at.join(OsStr::from_bytes(name.to_bytes())))),
        }
    }
    Ok(None)
}

/// Removes a file, a link or an empty directory.
fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    rustix::fs::unlinkat(dir, name, flags)
}

fn identity(fd: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

fn refused(error: Errno, path: &Path) -> FsError {
    let action = match error {
        Errno::XDEV | Errno::BUSY => "delete, because something is mounted there:",
        _ => "remove",
    };
    FsError::new(action, PathBuf::from(path), error.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::mount::mount_bind;

    use super::*;
    use crate::testing::threads::apart;

    #[test]
    fn a_tree_goes_without_what_its_links_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        fs::create_dir_all(ours.join("a/b/c")).unwrap();
        fs::create_dir_all(theirs.join("kept")).unwrap();
        fs::File::create(ours.join("a/b/file")).unwrap();
        symlink(&theirs, ours.join("a/link")).unwrap();
        symlink(&theirs, dir.path().join("top")).unwrap();
        assert!(remove_tree(&ours).unwrap() && !ours.exists());
        assert!(remove_tree(&dir.path().join("top")).unwrap());
        assert!(theirs.join("kept").exists() && dir.path().join("top").symlink_metadata().is_err());
        assert!(!remove_tree(&ours).unwrap() && !remove_tree(&ours.join("a/b")).unwrap());
        fs::File::create(&ours).unwrap();
        assert!(remove_tree(&ours).unwrap() && !remove_tree(&ours.join("below/a-file")).unwrap());
    }

    #[test]
    fn a_directory_deeper_than_there_are_descriptors_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut here = rustix::fs::open(&top, OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&here, "e", Mode::RWXU).unwrap();
            here = rustix::fs::openat(&here, "d", OFlags::PATH, Mode::empty()).unwrap();
        }
        assert!(remove_tree(&top).unwrap() && !top.exists());
    }

    #[test]
    fn nothing_behind_a_mount_point_is_touched_not_even_of_the_same_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours/v"), dir.path().join("theirs"));
        fs::create_dir_all(&ours).unwrap();
        fs::create_dir_all(theirs.join("kept")).unwrap();
        apart(|| {
            mount_bind(&theirs, &ours).unwrap();
            for path in [ours.as_path(), ours.parent().unwrap()] {
                let error = remove_tree(path).unwrap_err();
                assert!(error.to_string().contains("something is mounted there: "), "{error}");
                assert!(theirs.join("kept").exists(), "{}", path.display());
            }
            let file = dir.path().join("file");
            fs::File::create(&file).unwrap();
            mount_bind("/proc/version", &file).unwrap();
            let error = remove_tree(&file).unwrap_err();
            assert!(error.to_string().contains("something is mounted there: "), "{error}");
        });
    }
}
