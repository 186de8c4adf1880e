//! Volumes in memory.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::MountFlags;
use tracing::warn;

use crate::error::chain;
use crate::host::fs::{FsError, make_dirs};
use crate::host::mounts::is_mount_point;

/// Mounts a file system of memory.
pub(super) fn mount(system: &str, path: &Path, options: &str) -> Result<(), FsError> {
    let data = CString::new(options).unwrap_or_default();
    rustix::mount::mount(system, path, system, MountFlags::empty(), data.as_c_str())
        .map_err(|e| FsError::new("mount memory (as root, with CAP_SYS_ADMIN) on", path, e.into()))
}

/// Makes the directory of a volume that holds secrets, in memory: they must get onto no disk. Where nothing can be
/// mounted they are on the disk after all, behind a directory that is root's alone.
pub(super) fn ensure(path: &Path) -> Result<(), FsError> {
    let is_new = !path.is_dir();
    if is_new {
        if let Some(parent) = path.parent() {
            make_dirs(parent, 0o750)?;
        }
        make_dirs(path, 0o755)?;
    }
    if is_mount_point(path)? {
        return Ok(());
    }
    let Err(error) = mount("tmpfs", path, "mode=0755") else { return Ok(()) };
    if is_new {
        warn!(path = %path.display(), error = chain(&error), "secrets are kept on the disk");
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::set_permissions(parent, Permissions::from_mode(0o700)).map_err(|e| FsError::new("close", parent, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_in_memory_or_behind_a_closed_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("kubernetes.io~secret/v");
        ensure(&path).unwrap();
        fs::File::create(path.join("kept")).unwrap();
        ensure(&path).unwrap();
        assert!(path.join("kept").exists(), "what is there stays");
        let closed = fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777;
        if is_mount_point(&path).unwrap() {
            assert_eq!(closed, 0o750);
            super::super::remove::unmount(&path).unwrap();
        } else {
            assert_eq!(closed, 0o700);
        }
    }
}
