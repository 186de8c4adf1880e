//! The end of a pod's volumes, and of its directory.

use std::fs;
use std::path::Path;

use rustix::mount::UnmountFlags;

use super::{CLAIM, SUB_PATHS, VOLUMES, pod_dir};
use crate::host::fs::{FsError, entries};
use crate::host::mounts;
use crate::host::remove::remove_tree;

/// Removes a pod's directory, unmounting what was mounted below it. Never deletes below a mount point that stays, nor
/// when it is not known what is mounted.
pub fn remove_pod_dir(root: &Path, uid: &str) -> Result<(), FsError> {
    let dir = pod_dir(root, uid);
    if !is_plain(uid) || fs::symlink_metadata(&dir).is_err() {
        return Ok(());
    }
    unmount_below(&dir)?;
    // As long as the claim is there, an agent that is killed here has a successor that goes on.
    for entry in entries(&dir)?.iter().filter(|entry| !entry.ends_with(CLAIM)) {
        remove_tree(entry)?;
    }
    remove_tree(&dir).map(drop)
}

/// Removes the volumes of a pod that has ended, as the kubelet does (`UnmountVolumes`): its secrets and what it keeps in memory
/// are gone then, however long the API server has the pod. What containers have said at their end stays.
pub fn remove_volumes(root: &Path, uid: &str) -> Result<(), FsError> {
    if !is_plain(uid) {
        return Ok(());
    }
    // The parts of volumes first: they are mounted from the volumes.
    for part in [SUB_PATHS, VOLUMES] {
        let dir = pod_dir(root, uid).join(part);
        if fs::symlink_metadata(&dir).is_ok() {
            unmount_below(&dir)?;
            remove_tree(&dir)?;
        }
    }
    Ok(())
}

/// A UID may come from a label that any user of the runtime can set.
fn is_plain(uid: &str) -> bool {
    !uid.is_empty() && !uid.contains('/') && !uid.starts_with('.')
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

/// A mount that is in use goes from the tree now, and altogether when its last user is done.
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
    fn the_volumes_of_a_pod_that_has_ended_go_and_its_last_words_stay() {
        let root = tempfile::tempdir().unwrap();
        let (volume, data) = pod(root.path());
        let words = super::super::termination_file(root.path(), "u", "c", 0);
        super::super::make_termination_file(&words).unwrap();
        let part = pod_dir(root.path(), "u").join("volume-subpaths/v/c/0");
        fs::create_dir_all(&part).unwrap();
        apart(|| {
            mount_bind(&data, &volume).unwrap();
            mount_bind(data.join("kept"), &part).unwrap();
            remove_volumes(root.path(), "u").unwrap();
            assert!(data.join("kept").exists() && words.exists());
            let left = ["volumes", "volume-subpaths"].map(|part| pod_dir(root.path(), "u").join(part).exists());
            assert_eq!(left, [false, false]);
            remove_volumes(root.path(), "u").unwrap();
            remove_volumes(root.path(), "../u").unwrap();
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
