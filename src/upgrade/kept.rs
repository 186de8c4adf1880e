//! Files besides the manifests: copied aside before they are replaced, and put back.

use std::path::{Path, PathBuf};

use super::UpgradeError;
use super::journal::{Journal, Kept};
use super::manifest::hash;
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
        let ours = hash(&file.content);
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

/// Puts the old files back. One that somebody has changed since the upgrade stays as it is; returns those.
///
/// # Errors
/// A file that cannot be read or written.
pub fn restore(tree: &mut dyn Tree, journal: &Journal) -> Result<Vec<PathBuf>, UpgradeError> {
    let (mut old, mut left) = (Vec::new(), Vec::new());
    for kept in &journal.files {
        let now = tree.read(&kept.path)?;
        let before = kept.copy.as_ref().map(|copy| tree.read(copy)).transpose()?.flatten();
        if now == before {
            continue;
        }
        let is_ours = now.as_ref().is_none_or(|now| kept.ours.contains(&hash(now)));
        match before {
            _ if !is_ours => left.push(kept.path.clone()),
            Some(before) => old.push((kept, before)),
            None if kept.copy.is_none() => drop(tree.remove(&kept.path)?),
            // Somebody has removed the copy.
            None => left.push(kept.path.clone()),
        }
    }
    let files: Vec<NewFile<'_>> =
        old.iter().map(|(kept, content)| NewFile { path: &kept.path, content, mode: kept.mode }).collect();
    tree.write_all(&files)?;
    Ok(left)
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
        assert_eq!(restore(&mut tree, &journal).unwrap(), Vec::<PathBuf>::new());
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
        assert_eq!(restore(&mut tree, &journal).unwrap(), [PathBuf::from("/a")]);
        assert_eq!(read(&tree, "/a").unwrap(), "theirs");
    }
}
