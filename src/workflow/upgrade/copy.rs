//! Copies of a directory tree, for etcd's data; with a snapshot of its database in the copy, or with the database itself.

use std::fs;
use std::path::{Path, PathBuf};

use super::journal::DATA_PREFIX;
use crate::etcd::snapshot::HASH;
use crate::host::disk::Disk;
use crate::host::fs::FsError;

/// Beside what is restored, on its file system, which may be one of its own: where it is made ready.
const ASIDE: &str = ".kubeboot-restored";
/// The snapshot in a copy, in the place of the database, as `etcdutl snapshot restore` takes it too.
pub const SNAPSHOT: &str = "snapshot.db";
/// The database in a data directory.
const DATABASE: &str = "member/snap/db";

/// Copies the tree `from` to `to`, which must not exist, with modes and owners, durably.
///
/// # Errors
/// What cannot be read or written; what is there of `to` stays.
pub fn copy_tree(disk: &mut dyn Disk, from: &Path, to: &Path) -> Result<(), FsError> {
    disk.make_dir(to, from)?;
    for (source, name) in entries(from)? {
        let (meta, target) = (lstat(&source)?, to.join(name));
        if meta.is_dir() {
            copy_tree(disk, &source, &target)?;
        } else if meta.is_file() {
            disk.copy_file(&source, &target)?;
        }
    }
    disk.sync_dir(to)
}

/// Where [`restore_tree`] makes ready what goes into a directory; one that was cut off leaves it there.
pub fn aside(of: &Path) -> PathBuf {
    of.join(ASIDE)
}

/// Puts what the tree `from` holds in the place of what has the same names in `to`. `to` itself stays: it may be a mount
/// point.
///
/// At every moment each name stands for the old or the new whole. Safe to repeat, also after one that was cut off.
///
/// # Errors
/// What cannot be read or written.
pub fn restore_tree(disk: &mut dyn Disk, from: &Path, to: &Path) -> Result<(), FsError> {
    let aside = aside(to);
    if to.exists() {
        disk.remove_tree(&aside)?;
    } else {
        disk.make_dir(to, from)?;
    }
    let snapshot = from.join(SNAPSHOT);
    match lstat(&snapshot).ok() {
        Some(meta) => {
            disk.make_dir(&aside, from)?;
            for (source, name) in entries(from)?.into_iter().filter(|(_, name)| name != SNAPSHOT) {
                copy_tree(disk, &source, &aside.join(name))?;
            }
            // The database that it takes the place of is etcd's, whoever that runs as.
            let like = Some(to.join(DATABASE)).filter(|path| path.exists());
            let length = meta.len().saturating_sub(HASH as u64);
            disk.copy_beginning(&snapshot, &aside.join(DATABASE), length, like.as_deref().unwrap_or(&snapshot))?;
            aside.join(DATABASE).parent().map_or(Ok(()), |dir| disk.sync_dir(dir))?;
        }
        None => copy_tree(disk, from, &aside)?,
    }
    for (ready, name) in entries(&aside)? {
        disk.exchange(&ready, &to.join(name))?;
    }
    disk.sync_dir(to)?;
    disk.remove_tree(&aside)?;
    disk.sync_dir(to)
}

/// How many bytes a tree takes, whole blocks of its files.
///
/// # Errors
/// What cannot be read, unless it has gone meanwhile.
pub fn size(of: &Path) -> Result<u64, FsError> {
    const BLOCK: u64 = 4096;
    let meta = match lstat(of) {
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        meta => meta?,
    };
    if !meta.is_dir() {
        return Ok(meta.len().next_multiple_of(BLOCK));
    }
    entries(of)?.into_iter().try_fold(BLOCK, |sum, (path, _)| Ok(sum.saturating_add(size(&path)?)))
}

fn lstat(path: &Path) -> Result<fs::Metadata, FsError> {
    fs::symlink_metadata(path).map_err(|e| FsError::new("read", path, e))
}

/// What is in a directory: paths and names, but for what is made ready there, and for copies of it.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, std::ffi::OsString)>, FsError> {
    let fail = |e| FsError::new("read", dir, e);
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        if name != ASIDE && !name.to_string_lossy().starts_with(DATA_PREFIX) {
            all.push((entry.path(), name));
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    use super::*;
    use crate::host::disk::HostDisk;
    use crate::host::fs::write_file;

    #[test]
    fn a_tree_is_copied_and_put_back_with_its_modes_and_what_else_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
        fs::DirBuilder::new().mode(0o700).recursive(true).create(data.join("member/wal")).unwrap();
        write_file(&data.join("member/wal/1"), b"one", 0o600).unwrap();
        copy_tree(&mut HostDisk, &data, &backup).unwrap();
        assert_eq!(fs::metadata(backup.join("member/wal/1")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(backup.join("member")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(size(&backup).unwrap() >= 4 * 4096);
        write_file(&data.join("member/wal/2"), b"two", 0o600).unwrap();
        fs::create_dir(data.join("lost+found")).unwrap();
        fs::create_dir(data.join(ASIDE)).unwrap();
        let own = data.join(format!("{DATA_PREFIX}2026-11-30-23-00-00"));
        let before = size(&data).unwrap();
        fs::create_dir(&own).unwrap();
        copy_tree(&mut HostDisk, &data, &own.join("etcd")).unwrap();
        assert_eq!(fs::read_dir(own.join("etcd")).unwrap().count(), 2, "member and lost+found, and no copies");
        assert_eq!(size(&data).unwrap(), before);
        restore_tree(&mut HostDisk, &backup, &data).unwrap();
        assert_eq!(fs::read(data.join("member/wal/1")).unwrap(), b"one");
        assert!(!data.join("member/wal/2").exists() && !data.join(ASIDE).exists());
        assert!(data.join("lost+found").exists() && own.exists());
    }

    #[test]
    fn a_snapshot_becomes_the_database_without_its_hash_and_with_the_owner_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
        for member in [&data, &backup].map(|of| of.join("member")) {
            fs::create_dir_all(member.join("snap")).unwrap();
            fs::create_dir_all(member.join("wal")).unwrap();
        }
        write_file(&data.join(DATABASE), b"newer", 0o640).unwrap();
        write_file(&data.join("member/wal/2"), b"newer", 0o600).unwrap();
        write_file(&backup.join("member/wal/1"), b"log", 0o600).unwrap();
        write_file(&backup.join(SNAPSHOT), &[b"database".to_vec(), vec![7; HASH]].concat(), 0o600).unwrap();
        restore_tree(&mut HostDisk, &backup, &data).unwrap();
        assert_eq!(fs::read(data.join(DATABASE)).unwrap(), b"database");
        assert_eq!(fs::metadata(data.join(DATABASE)).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read(data.join("member/wal/1")).unwrap(), b"log");
        assert_eq!(crate::testing::listing(&data).len(), 5, "{:?}", crate::testing::listing(&data));
    }
}
