//! The end of a pod's directory.

use std::fs;
use std::path::Path;

use rustix::mount::UnmountFlags;

use super::{CLAIM, pod_dir};
use crate::host::fs::{FsError, entries};
use crate::host::mounts;
use crate::host::remove::remove_tree;

/// Removes a pod's directory, unmounting what was mounted below it. Never deletes below a mount point that stays, nor
/// when it is not known what is mounted.
pub fn remove_pod_dir(root: &Path, uid: &str) -> Result<(), FsError> {
    let dir = pod_dir(root, uid);
    // The UID may come from a label that anybody can set.
    let plain = !uid.is_empty() && !uid.contains('/') && !uid.starts_with('.');
    if !plain || fs::symlink_metadata(&dir).is_err() {
        return Ok(());
    }
    unmount_below(&dir)?;
    // As long as the claim is there, an agent that is killed here has a successor that goes on.
    for entry in entries(&dir)?.iter().filter(|entry| !entry.ends_with(CLAIM)) {
        remove_tree(entry)?;
    }
    remove_tree(&dir).map(drop)
}

/// Unmounts everything at and below `dir`: afterwards what is deleted there is the pod's own.
fn unmount_below(dir: &Path) -> Result<(), FsError> {
    // The latest first: one may lie on top of another.
    for mount in mounts::below(dir)?.iter().rev() {
        unmount(mount)?;
    }
    match mounts::below(dir)?.into_iter().next() {
        None => Ok(()),
        Some(left) => Err(FsError::new("delete below the mount point", left, rustix::io::Errno::BUSY.into())),
    }
}

/// A mount that somebody uses goes from the tree now, and altogether when he is done.
pub(super) fn unmount(mount: &Path) -> Result<(), FsError> {
    let result = match rustix::mount::unmount(mount, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => rustix::mount::unmount(mount, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        other => other,
    };
    result.map_err(|e| FsError::new("unmount", mount, e.into()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    use rustix::mount::mount_bind;

    use super::*;
    use crate::testing::threads::{apart, tmpfs};

    /// A pod with a volume that is to be mounted on, and a directory with something in it to mount there.
    fn pod(root: &Path) -> (PathBuf, PathBuf) {
        let (volume, data) = (pod_dir(root, "u").join("volumes/v"), root.join("data"));
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(data.join("kept")).unwrap();
        super::super::claim(root, "u").unwrap();
        (volume, data)
    }

    #[test]
    fn nothing_is_deleted_while_the_mounts_cannot_be_read() {
        let root = tempfile::tempdir().unwrap();
        let (volume, data) = pod(root.path());
        apart(|| {
            mount_bind(&data, &volume).unwrap();
            tmpfs("/proc");
            assert!(remove_pod_dir(root.path(), "u").is_err());
            assert!(data.join("kept").exists() && pod_dir(root.path(), "u").join(CLAIM).exists());
        });
    }

    #[test]
    fn a_mount_whose_name_is_no_text_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        let (volume, data) = pod(root.path());
        let odd = volume.with_file_name(OsStr::from_bytes(b"\xff"));
        fs::create_dir(&odd).unwrap();
        apart(|| {
            mount_bind(&data, &volume).unwrap();
            mount_bind(&data, &odd).unwrap();
            remove_pod_dir(root.path(), "u").unwrap();
            assert!(data.join("kept").exists() && !pod_dir(root.path(), "u").exists());
        });
    }
}
