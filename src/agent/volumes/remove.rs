//! The end of a pod's directory.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::pod_dir;
use crate::host::fs::FsError;

/// Removes a pod's directory, unmounting what was mounted below it. Never deletes below a mount point that stays.
pub fn remove_pod_dir(root: &Path, uid: &str) -> Result<(), FsError> {
    let dir = pod_dir(root, uid);
    // The UID may come from a label that anybody can set.
    let plain = !uid.is_empty() && !uid.contains('/') && !uid.starts_with('.');
    if !plain || fs::symlink_metadata(&dir).is_err() {
        return Ok(());
    }
    unmount_below(&dir)?;
    fs::remove_dir_all(&dir).map_err(|e| FsError::new("remove", &dir, e))
}

/// Unmounts everything at and below `dir`: afterwards what is deleted there is the pod's own.
fn unmount_below(dir: &Path) -> Result<(), FsError> {
    let mut mounts = mounts_below(dir);
    // The latest first: one may lie on top of another.
    mounts.reverse();
    for mount in &mounts {
        unmount(mount)?;
    }
    match mounts_below(dir).into_iter().next() {
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

/// Whether something is mounted just there.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    mounts_below(path).contains(&real)
}

/// Mount points at and below `path`, in the order they were mounted.
fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.filter(|point| point.starts_with(&real)).collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = text.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, plain);
    }
    PathBuf::from(out)
}
