//! The files of `--config` and `--config-dir`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The ending of a drop-in; every other file is left alone.
const ENDING: &str = "conf";

/// A file with a KubeletConfiguration in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
    /// What relative paths in it are relative to.
    pub base: PathBuf,
}

impl ConfigFile {
    /// The file of `--config`, beside which relative paths in it begin.
    pub fn main(path: PathBuf, text: String) -> Self {
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { path, text, base }
    }

    /// A file of `--config-dir`. Relative paths in it begin in the agent's working directory, as with the kubelet.
    pub fn drop_in(path: PathBuf, text: String) -> Self {
        let base = std::env::current_dir().unwrap_or_default();
        Self { path, text, base }
    }
}

/// The drop-ins of a directory, in the order in which they are merged: by name, a directory's where the directory's name
/// is.
///
/// # Errors
/// A directory or a file that cannot be read, with its path.
pub fn drop_ins(dir: &Path) -> Result<Vec<ConfigFile>, (PathBuf, io::Error)> {
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
            files.push(ConfigFile::drop_in(path, text));
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
        let texts: Vec<_> = drop_ins(dir.path()).unwrap().into_iter().map(|file| file.text).collect();
        assert_eq!(texts, ["10-a.conf", "15-more/x.conf", "20-b.conf"]);
        let (path, _) = drop_ins(&dir.path().join("none")).unwrap_err();
        assert_eq!(path, dir.path().join("none"));
    }
}
