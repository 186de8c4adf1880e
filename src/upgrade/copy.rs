//! Copies of a directory tree, for etcd's data.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::host::fs::{FsError, sync_dir};

/// Copies the tree `from` to `to`, which must not exist, with modes and owners, and syncs every file.
pub fn copy_tree(from: &Path, to: &Path) -> Result<(), FsError> {
    let meta = fs::metadata(from).map_err(|e| FsError::new("read", from, e))?;
    fs::DirBuilder::new()
        .mode(meta.permissions().mode())
        .create(to)
        .map_err(|e| FsError::new("create directory", to, e))?;
    own(to, &meta)?;
    for entry in fs::read_dir(from).map_err(|e| FsError::new("read", from, e))? {
        let entry = entry.map_err(|e| FsError::new("read", from, e))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata().map_err(|e| FsError::new("read", &source, e))?;
        if meta.is_dir() {
            copy_tree(&source, &target)?;
        } else if meta.is_file() {
            fs::copy(&source, &target).map_err(|e| FsError::new("copy", &source, e))?;
            own(&target, &meta)?;
            fs::File::open(&target).and_then(|f| f.sync_all()).map_err(|e| FsError::new("sync", &target, e))?;
        }
    }
    sync_dir(to)
}

fn own(path: &Path, like: &fs::Metadata) -> Result<(), FsError> {
    std::os::unix::fs::chown(path, Some(like.uid()), Some(like.gid()))
        .map_err(|e| FsError::new("change owner of", path, e))
}

/// Puts the tree `from` in the place of `to`'s content. `to` itself stays: it may be a mount point.
pub fn restore_tree(from: &Path, to: &Path) -> Result<(), FsError> {
    for entry in fs::read_dir(to).map_err(|e| FsError::new("read", to, e))? {
        let path = entry.map_err(|e| FsError::new("read", to, e))?.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| FsError::new("remove", &path, e))?;
    }
    for entry in fs::read_dir(from).map_err(|e| FsError::new("read", from, e))? {
        let entry = entry.map_err(|e| FsError::new("read", from, e))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(|e| FsError::new("copy", &source, e))?;
        }
    }
    sync_dir(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_and_put_back_with_its_modes() {
        let dir = tempfile::tempdir().unwrap();
        let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
        fs::DirBuilder::new().mode(0o700).recursive(true).create(data.join("member/wal")).unwrap();
        crate::host::fs::write_file(&data.join("member/wal/1"), b"one", 0o600).unwrap();
        copy_tree(&data, &backup).unwrap();
        assert_eq!(fs::metadata(backup.join("member/wal/1")).unwrap().permissions().mode() & 0o777, 0o600);
        crate::host::fs::write_file(&data.join("member/wal/2"), b"two", 0o600).unwrap();
        restore_tree(&backup, &data).unwrap();
        assert_eq!(fs::read(data.join("member/wal/1")).unwrap(), b"one");
        assert!(!data.join("member/wal/2").exists());
    }
}
