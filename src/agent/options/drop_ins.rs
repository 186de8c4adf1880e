//! The files of `--config-dir`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The ending of a drop-in; every other file is left alone.
const ENDING: &str = "conf";

/// The drop-ins of a directory with their content, in the order in which they are merged: by name, a directory's where
/// the directory's name is.
///
/// # Errors
/// A directory or a file that cannot be read, with its path.
pub fn drop_ins(dir: &Path) -> Result<Vec<(PathBuf, String)>, (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let found: Result<Vec<_>, _> = fs::read_dir(dir).map_err(at(dir))?.collect();
    let mut paths: Vec<PathBuf> = found.map_err(at(dir))?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        // A link to a directory is not followed: it may lead back here.
        if fs::symlink_metadata(&path).map_err(at(&path))?.is_dir() {
            files.extend(drop_ins(&path)?);
        } else if path.extension().is_some_and(|ending| ending == ENDING) {
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            files.push((path, text));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::write_file;

    #[test]
    fn drop_ins_come_by_name_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("15-more")).unwrap();
        for name in ["20-b.conf", "10-a.conf", "15-more/x.conf", "notes.yaml", "30-c.conf~"] {
            write_file(&dir.path().join(name), name.as_bytes(), 0o600).unwrap();
        }
        let texts: Vec<_> = drop_ins(dir.path()).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["10-a.conf", "15-more/x.conf", "20-b.conf"]);
        let (path, _) = drop_ins(&dir.path().join("none")).unwrap_err();
        assert_eq!(path, dir.path().join("none"));
    }
}
