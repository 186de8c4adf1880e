//! Files that change all at once, in the layout the kubelet gives them: `NAME -> ..data/NAME`, `..data -> ..TIME`, and
//! the content in the directory `..TIME`. A new content is a new directory and one rename of `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::host::fs::{FsError, make_dirs};

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";
/// Directories: `pods/UID` keeps strangers out, containers need to get in.
const DIR_MODE: u32 = 0o755;

/// One file. It may hold a secret: what it holds is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// Whose it is; None leaves it the agent's.
    pub owner: Option<u32>,
}

/// Files by their path in the volume.
pub type Payload = BTreeMap<String, Content>;

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, mode {:o}", self.bytes.len(), self.mode)
    }
}

/// Makes `dir` hold just these files, belonging to `group` if one is given. Nothing is touched when it does already.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<(), FsError> {
    make_dirs(dir, DIR_MODE)?;
    let current = fs::read_link(dir.join(DATA)).ok();
    let same = |data: &PathBuf| payload.iter().all(|(path, file)| is_same(&dir.join(data).join(path), file));
    let tops: BTreeSet<&str> = payload.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    if current.as_ref().is_some_and(same) && tops.iter().all(|top| fs::symlink_metadata(dir.join(top)).is_ok()) {
        return Ok(());
    }
    let name = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let fresh = dir.join(&name);
    fill(&fresh, payload, group)?;
    replace_link(Path::new(&name), &dir.join(NEXT))?;
    let next = dir.join(NEXT);
    fs::rename(&next, dir.join(DATA)).map_err(|e| FsError::new("replace", dir.join(DATA), e))?;
    for top in &tops {
        replace_link(&Path::new(DATA).join(top), &dir.join(top))?;
    }
    clean(dir, &tops, &name)
}

fn is_same(path: &Path, file: &Content) -> bool {
    let mode = fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    mode.is_ok_and(|mode| mode == file.mode) && fs::read(path).is_ok_and(|bytes| bytes == file.bytes)
}

fn fill(fresh: &Path, payload: &Payload, group: Option<u32>) -> Result<(), FsError> {
    make_dirs(fresh, DIR_MODE)?;
    for (path, file) in payload {
        let path = fresh.join(path);
        let fail = |e: io::Error| FsError::new("write", &path, e);
        if let Some(parent) = path.parent() {
            make_dirs(parent, DIR_MODE)?;
        }
        let mut opened = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
        if group.is_some() || file.owner.is_some() {
            std::os::unix::fs::fchown(&opened, file.owner, group).map_err(fail)?;
        }
        opened.set_permissions(Permissions::from_mode(file.mode)).map_err(fail)?;
        opened.write_all(&file.bytes).map_err(fail)?;
    }
    Ok(())
}

/// Makes or changes a link; what it is already stays.
fn replace_link(target: &Path, link: &Path) -> Result<(), FsError> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    match fs::remove_file(link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(FsError::new("remove", link, e)),
        _ => {}
    }
    symlink(target, link).map_err(|e| FsError::new("link", link, e))
}

/// Removes what is no longer among the files.
fn clean(dir: &Path, tops: &BTreeSet<&str>, data: &str) -> Result<(), FsError> {
    let entries = fs::read_dir(dir).map_err(|e| FsError::new("list", dir, e))?.flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == DATA || name == data || tops.contains(name.as_ref()) {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| FsError::new("remove", &path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let content = |text: &str| Content { bytes: text.into(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect()
    }

    #[test]
    fn files_are_links_into_a_directory_that_is_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("v");
        write(&dir, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_link(dir.join("d")).unwrap(), Path::new("..data/d"));
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let first = fs::read_link(dir.join(DATA)).unwrap();
        write(&dir, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), first, "the same is not written again");
        write(&dir, &payload(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}: ..data, its directory, a and c");
        assert!(!dir.join(first).exists());
    }
}
