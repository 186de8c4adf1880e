//! Files besides the manifests: copied aside before they are replaced, and put back.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::journal::{Journal, Kept};
use super::{UpgradeError, certificates};
use crate::host::digest::sha256;
use crate::host::fs::NewFile;
use crate::host::tree::Tree;

/// A file as it is to be. May hold a private key, hence no Debug.
#[derive(Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Where, as the node sees it.
    pub path: PathBuf,
    /// Its new content.
    pub content: Vec<u8>,
    /// Its mode.
    pub mode: u32,
}

/// Writes `files`, the old ones having been copied aside and the journal having heard of it.
///
/// # Errors
/// A file that cannot be read or written.
pub fn replace(tree: &mut dyn Tree, journal: &mut Journal, files: &[FileChange]) -> Result<(), UpgradeError> {
    if files.is_empty() {
        return Ok(());
    }
    for file in files {
        let ours = sha256(&file.content);
        match journal.files.iter_mut().find(|kept| kept.path == file.path) {
            Some(kept) => kept.ours.push(ours),
            None => {
                let copy = copy_aside(tree, &journal.backup, &file.path)?;
                journal.files.push(Kept { path: file.path.clone(), mode: file.mode, copy, ours: vec![ours] });
            }
        }
    }
    journal.write(tree)?;
    let new = |file: &'_ FileChange| (file.path.clone(), file.content.clone(), file.mode);
    let all: Vec<_> = files.iter().map(new).collect();
    let all: Vec<NewFile<'_>> =
        all.iter().map(|(path, content, mode)| NewFile { path, content, mode: *mode }).collect();
    tree.write_all(&all)?;
    Ok(())
}

fn copy_aside(tree: &mut dyn Tree, backup: &Path, path: &Path) -> Result<Option<PathBuf>, UpgradeError> {
    let Some(old) = tree.read(path)? else { return Ok(None) };
    let copy = backup.join("files").join(path.strip_prefix("/").unwrap_or(path));
    tree.write(&copy, &old, 0o600)?;
    Ok(Some(copy))
}

/// Why a file stays as it is.
const CHANGED: &str = "has been changed since the upgrade, and stays as it is";
const EXPIRED: &str = "stays as it is: what it was before the upgrade has expired since";

/// Puts the old files back. One that somebody has changed since the upgrade stays as it is, and so does a certificate, with
/// its key, whose predecessor has expired by `now`; returns those, each with the reason.
///
/// # Errors
/// A file that cannot be read or written.
pub fn restore(
    tree: &mut dyn Tree,
    journal: &Journal,
    now: Timestamp,
) -> Result<Vec<(PathBuf, &'static str)>, UpgradeError> {
    let (mut old, mut left) = (Vec::new(), Vec::new());
    for kept in &journal.files {
        let current = tree.read(&kept.path)?;
        let before = before(tree, kept)?;
        if current == before {
            continue;
        }
        let is_ours = current.as_ref().is_none_or(|current| kept.ours.contains(&sha256(current)));
        match before {
            _ if !is_ours => left.push((kept.path.clone(), CHANGED)),
            Some(_) if has_expired(tree, journal, &kept.path, now)? => left.push((kept.path.clone(), EXPIRED)),
            Some(before) => old.push((kept, before)),
            None if kept.copy.is_none() => drop(tree.remove(&kept.path)?),
            // Somebody has removed the copy.
            None => left.push((kept.path.clone(), CHANGED)),
        }
    }
    let files: Vec<NewFile<'_>> =
        old.iter().map(|(kept, content)| NewFile { path: &kept.path, content, mode: kept.mode }).collect();
    tree.write_all(&files)?;
    Ok(left)
}

fn before(tree: &dyn Tree, kept: &Kept) -> Result<Option<Vec<u8>>, UpgradeError> {
    Ok(kept.copy.as_ref().map(|copy| tree.read(copy)).transpose()?.flatten())
}

/// Whether the certificate in a file, or the one that a key belongs to, has expired as it was before and has not as it is.
fn has_expired(tree: &dyn Tree, journal: &Journal, path: &Path, now: Timestamp) -> Result<bool, UpgradeError> {
    let is_key = path.extension().is_some_and(|extension| extension == "key");
    let path = if is_key { path.with_extension("crt") } else { path.to_owned() };
    let Some(kept) = journal.files.iter().find(|kept| kept.path == path) else { return Ok(false) };
    let ends = |content: Option<Vec<u8>>| content.and_then(|content| certificates::not_after(&content));
    let (was, is) = (ends(before(tree, kept)?), ends(tree.read(&path)?));
    Ok(was.is_some_and(|was| was <= now) && is.is_some_and(|is| is > now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::MemoryTree;

    fn change(path: &str, content: &str) -> FileChange {
        FileChange { path: path.into(), content: content.into(), mode: 0o644 }
    }

    fn read(tree: &MemoryTree, path: &str) -> Option<String> {
        tree.read(Path::new(path)).unwrap().map(|content| String::from_utf8(content).unwrap())
    }

    #[test]
    fn what_was_replaced_comes_back_and_what_was_new_goes() {
        let mut tree = MemoryTree::empty();
        tree.write(Path::new("/a"), b"old", 0o644).unwrap();
        let mut journal = Journal::new("t", "c", "/backup".into());
        replace(&mut tree, &mut journal, &[change("/a", "new"), change("/b", "made")]).unwrap();
        // A second run, after a kill, writes other content; the copy is the first one's.
        replace(&mut tree, &mut journal, &[change("/a", "newer")]).unwrap();
        assert_eq!(Journal::read(&tree).unwrap().unwrap(), journal);
        assert_eq!((read(&tree, "/a"), read(&tree, "/b")), (Some("newer".into()), Some("made".into())));
        assert_eq!(restore(&mut tree, &journal, Timestamp::now()).unwrap(), []);
        assert_eq!((read(&tree, "/a"), read(&tree, "/b")), (Some("old".into()), None));
        assert_eq!(tree.files()[Path::new("/backup/files/a")].mode, 0o600);
    }

    #[test]
    fn what_somebody_has_changed_since_stays_and_is_named() {
        let mut tree = MemoryTree::empty();
        tree.write(Path::new("/a"), b"old", 0o644).unwrap();
        let mut journal = Journal::new("t", "c", "/backup".into());
        replace(&mut tree, &mut journal, &[change("/a", "new")]).unwrap();
        tree.write(Path::new("/a"), b"theirs", 0o644).unwrap();
        assert_eq!(restore(&mut tree, &journal, Timestamp::now()).unwrap(), [(PathBuf::from("/a"), CHANGED)]);
        assert_eq!(read(&tree, "/a").unwrap(), "theirs");
    }

    #[test]
    fn a_certificate_that_has_expired_since_does_not_come_back_nor_does_its_key() {
        let spec = crate::testing::spec();
        let made = Timestamp::now();
        let files = |at: Timestamp| {
            let mut tree = MemoryTree::empty();
            crate::pki::ensure_certificates(&spec, &mut tree, &[], at).unwrap();
            crate::pki::ensure_kubeconfigs(&spec, &mut tree, &[], at).unwrap();
            tree
        };
        let pki = "/etc/kubernetes/pki";
        let paths =
            [format!("{pki}/apiserver.crt"), format!("{pki}/apiserver.key"), "/etc/kubernetes/admin.conf".into()];
        let day = jiff::SignedDuration::from_hours(24);
        let mut tree = files(made);
        let later = files(made + day * 300);
        let changes: Vec<FileChange> = paths
            .iter()
            .map(|path| {
                let file = &later.files()[Path::new(path)];
                FileChange { path: path.into(), content: file.content.clone(), mode: file.mode }
            })
            .chain([change("/settings", "new")])
            .collect();
        tree.write(Path::new("/settings"), b"old", 0o644).unwrap();
        let mut journal = Journal::new("t", "c", "/backup".into());
        replace(&mut tree, &mut journal, &changes).unwrap();
        let mut in_time = tree.clone();
        assert_eq!(restore(&mut in_time, &journal, made + day * 301).unwrap(), []);
        let left = restore(&mut tree, &journal, made + day * 400).unwrap();
        assert_eq!(left, paths.each_ref().map(|path| (PathBuf::from(path), EXPIRED)));
        for (path, change) in paths.iter().zip(&changes) {
            assert!(tree.read(Path::new(path)).unwrap().unwrap() == change.content, "{path}");
            assert!(in_time.read(Path::new(path)).unwrap().unwrap() != change.content, "{path}");
        }
        assert_eq!(read(&tree, "/settings").unwrap(), "old");
    }
}
