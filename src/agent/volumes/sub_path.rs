//! subPath: a part of a volume as a mount of its own.
//!
//! What is in the volume is the containers' to write, so a path in it is never trusted: it is opened by the kernel with
//! the order not to leave the volume, and what was opened is bound to a place of the agent's own, which no container can
//! swap for a link before the runtime mounts it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::remove::unmount;
use super::{SUB_PATHS, VolumeError, pod_dir};
use crate::host::beneath::make_dir;
use crate::host::fs::{FsError, make_dirs};
use crate::host::mounts::is_mount_point;

/// Which mount of which container a sub-path is for.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// The agent's root directory.
    pub root: &'a Path,
    /// The pod's UID.
    pub uid: &'a str,
    /// The container.
    pub container: &'a str,
    /// The mount's index in the container.
    pub index: usize,
}

impl Slot<'_> {
    /// `ROOT/pods/UID/volume-subpaths/VOLUME/CONTAINER/INDEX`, where the kubelet has it too.
    fn path(&self, volume: &str) -> PathBuf {
        let base = pod_dir(self.root, self.uid).join(SUB_PATHS).join(volume);
        base.join(self.container).join(self.index.to_string())
    }
}

/// The source of a mount with a sub-path, which is made where it is missing and may not lead out of the volume.
pub fn sub_path(volume: &str, base: &Path, sub_path: &str, slot: Slot<'_>) -> Result<PathBuf, VolumeError> {
    let io = |action, path: &Path, source: io::Error| VolumeError::Io {
        volume: volume.to_owned(),
        source: FsError::new(action, path, source),
    };
    let at = base.join(sub_path);
    let opened = open(base, sub_path).map_err(|error| match error {
        Errno::XDEV => VolumeError::Escape { volume: volume.to_owned(), sub_path: sub_path.to_owned() },
        other => io("open", &at, other.into()),
    })?;
    let target = slot.path(volume);
    match bind(&opened, &target) {
        Ok(()) => Ok(target),
        // Without the right to mount, the runtime has to be trusted to mount what was checked.
        Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
            fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).map_err(|e| io("resolve", &at, e))
        }
        Err(source) => Err(VolumeError::Io { volume: volume.to_owned(), source }),
    }
}

/// Opens a path below `base`, making directories that are missing with the mode of `base`.
fn open(base: &Path, sub_path: &str) -> Result<OwnedFd, Errno> {
    let root = rustix::fs::openat(CWD, base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root)?.st_mode & 0o7777);
    let mut so_far = PathBuf::new();
    let mut opened = root.try_clone().map_err(|_| Errno::MFILE)?;
    for part in Path::new(sub_path).components() {
        so_far.push(part);
        opened = match beneath(root.as_fd(), &so_far) {
            Err(Errno::NOENT) => {
                make(opened.as_fd(), part.as_os_str(), mode)?;
                beneath(root.as_fd(), &so_far)?
            }
            other => other?,
        };
    }
    Ok(opened)
}

/// A container may have been quicker, or put something else there: what is there is opened like everything else then.
fn make(parent: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> Result<(), Errno> {
    match make_dir(parent, name, mode) {
        Err(Errno::EXIST | Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => Ok(()),
        other => other.map(drop),
    }
}

fn beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
}

/// Binds what is open to `target`, unless it is there already from an earlier start of the container.
fn bind(opened: &OwnedFd, target: &Path) -> Result<(), FsError> {
    let fail = |action| move |e: io::Error| FsError::new(action, target, e);
    let stat = rustix::fs::fstat(opened).map_err(|e| fail("look at")(e.into()))?;
    if is_mount_point(target)? {
        let there = fs::metadata(target).map_err(fail("look at"))?;
        if (there.dev(), there.ino()) == (stat.st_dev, stat.st_ino) {
            return Ok(());
        }
        unmount(target)?;
    }
    let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    if let Some(parent) = target.parent() {
        make_dirs(parent, 0o750)?;
    }
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() == is_dir => {}
        Ok(meta) if meta.is_dir() => fs::remove_dir(target).map_err(fail("remove"))?,
        Ok(_) => fs::remove_file(target).map_err(fail("remove"))?,
        Err(_) => {}
    }
    if is_dir {
        make_dirs(target, 0o750)?;
    } else {
        File::options().write(true).create(true).truncate(false).open(target).map_err(fail("create"))?;
    }
    let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
    rustix::mount::mount_bind(source, target).map_err(|e| fail("bind a sub-path to")(e.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::remove_pod_dir;
    use super::*;

    #[test]
    fn a_sub_path_is_made_with_the_volumes_mode_and_cannot_leave_it() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("volume");
        fs::create_dir(&base).unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o2775)).unwrap();
        symlink("/etc", base.join("absolute")).unwrap();
        symlink("../../etc", base.join("relative")).unwrap();
        fs::create_dir_all(base.join("x/y")).unwrap();
        symlink("../x", base.join("x/around")).unwrap();
        let slot = |index| Slot { root: dir.path(), uid: "u", container: "c", index };
        let made = sub_path("v", &base, "a/b", slot(0)).unwrap();
        assert_eq!(fs::metadata(base.join("a/b")).unwrap().permissions().mode() & 0o7777, 0o2775);
        assert_eq!(fs::metadata(&made).unwrap().ino(), fs::metadata(base.join("a/b")).unwrap().ino());
        assert_eq!(sub_path("v", &base, "a/b", slot(0)).unwrap(), made, "a restart finds it mounted");
        let inside = sub_path("v", &base, "x/around/y", slot(1)).unwrap();
        assert_eq!(fs::metadata(&inside).unwrap().ino(), fs::metadata(base.join("x/y")).unwrap().ino());
        for out in ["absolute/ssl", "relative", "relative/new"] {
            let error = sub_path("v", &base, out, slot(2)).unwrap_err();
            assert!(matches!(error, VolumeError::Escape { .. }), "{out}: {error}");
        }
        assert!(!Path::new("/etc/new").exists());
        // Removing the pod's directory unmounts first: the volume keeps what it has.
        fs::create_dir(base.join("a/b/kept")).unwrap();
        remove_pod_dir(dir.path(), "u").unwrap();
        assert!(base.join("a/b/kept").exists());
        assert!(!pod_dir(dir.path(), "u").exists());
    }

    /// A container that has the volume mounted tries to be quicker than the agent.
    #[test]
    fn what_replaces_a_directory_that_was_just_made_does_not_get_its_mode() {
        use std::sync::atomic::{AtomicBool, Ordering};

        use rustix::fs::RenameFlags;

        let dir = tempfile::tempdir().unwrap();
        let (base, victim) = (dir.path().join("volume"), dir.path().join("victim"));
        [&base, &victim].iter().for_each(|dir| fs::create_dir(dir).unwrap());
        fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).unwrap();
        let (made, other) = (base.join("x"), base.join("y"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = symlink(&victim, &other);
                    let _ = rustix::fs::renameat_with(CWD, &made, CWD, &other, RenameFlags::EXCHANGE);
                }
            });
            for _ in 0..2000 {
                let _ = open(&base, "x");
                let _ = fs::remove_file(&made);
                let _ = fs::remove_dir(&made);
                let _ = fs::remove_dir(&other);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_sub_path_may_be_a_file_and_may_become_another() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot { root: dir.path(), uid: "u", container: "c", index: 0 };
        let base = dir.path().join("volume");
        fs::create_dir(&base).unwrap();
        for content in ["one", "two"] {
            let file = dir.path().join("new");
            io::Write::write_all(&mut File::create(&file).unwrap(), content.as_bytes()).unwrap();
            fs::rename(&file, base.join("file")).unwrap();
            let made = sub_path("v", &base, "file", slot).unwrap();
            assert_eq!(fs::read_to_string(made).unwrap(), content);
        }
        remove_pod_dir(dir.path(), "u").unwrap();
    }
}
