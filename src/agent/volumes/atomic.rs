//! Files that change all at once, in the layout the kubelet gives them: `NAME -> ..data/NAME`, `..data -> ..TIME`, and
//! the content in the directory `..TIME`. A new content is a new directory and one rename of `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::host::beneath::{DIRECTORY, make_dir, open_dir};
use crate::host::fs::{FsError, make_dirs};
use crate::host::remove::remove_at;

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
///
/// All of it goes by descriptors, for what is in the volume may have been a container's to write: `dir` itself is the
/// agent's, and below it no link is followed and no mount point crossed.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<(), FsError> {
    make_dirs(dir, DIR_MODE)?;
    let opened = rustix::fs::openat(CWD, dir, OFlags::RDONLY | DIRECTORY, Mode::empty());
    let volume = Volume { fd: opened.map_err(|e| FsError::new("open", dir, e.into()))?, path: dir };
    let tops: BTreeSet<&str> = payload.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    let current = volume.data();
    if let Some(data) = &current
        && volume.holds(data, payload, group)
        && tops.iter().all(|top| volume.leads_to(top, &top_target(top)))
    {
        // What an agent that was killed in the midst of a change has begun, or has not removed yet.
        return volume.clean(|entry| entry != DATA && entry != data && !tops.contains(entry));
    }
    let name = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    volume.fill(&name, payload, group)?;
    volume.replace_data(&name)?;
    for top in &tops {
        volume.link(top, &top_target(top))?;
    }
    volume.clean(|entry| entry != DATA && entry != name && !tops.contains(entry))
}

/// Whether `dir` has content.
pub fn is_written(dir: &Path) -> bool {
    dir.join(DATA).is_dir()
}

fn top_target(top: &str) -> String {
    format!("{DATA}/{top}")
}

/// The directory of a volume.
struct Volume<'a> {
    fd: OwnedFd,
    /// What errors call it.
    path: &'a Path,
}

impl Volume<'_> {
    fn error(&self, action: &'static str, name: &str, error: Errno) -> FsError {
        FsError::new(action, self.path.join(name), error.into())
    }

    /// The directory that `..data` names.
    fn data(&self) -> Option<String> {
        let target = rustix::fs::readlinkat(&self.fd, DATA, Vec::new()).ok()?.into_string().ok()?;
        (target.len() > 2 && target.starts_with("..") && !target.contains('/')).then_some(target)
    }

    fn leads_to(&self, link: &str, target: &str) -> bool {
        rustix::fs::readlinkat(&self.fd, link, Vec::new()).is_ok_and(|found| found.as_bytes() == target.as_bytes())
    }

    /// Whether the directory `data` has these files as they should be, and no others: a secret that is taken back must go.
    fn holds(&self, data: &str, payload: &Payload, group: Option<u32>) -> bool {
        let Ok(data) = open_dir(self.fd.as_fd(), data) else { return false };
        payload.iter().all(|(path, file)| is_same(&data, path, file, group).unwrap_or(false))
            && has_no_other(&data, "", payload).unwrap_or(false)
    }

    /// Makes the directory `name` with the files.
    fn fill(&self, name: &str, payload: &Payload, group: Option<u32>) -> Result<(), FsError> {
        let fresh = make_dir(self.fd.as_fd(), name, Mode::RWXU).map_err(|e| self.error("make", name, e))?;
        for (path, file) in payload {
            put(&fresh, path, file, group).map_err(|e| FsError::new("write", self.path.join(name).join(path), e))?;
        }
        rustix::fs::fchmod(&fresh, Mode::from_raw_mode(DIR_MODE)).map_err(|e| self.error("open up", name, e))
    }

    /// Makes `..data` lead to `name`, at once.
    fn replace_data(&self, name: &str) -> Result<(), FsError> {
        let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if !rustix::fs::statat(&self.fd, DATA, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(is_link) {
            self.remove(DATA)?;
        }
        self.link(NEXT, name)?;
        rustix::fs::renameat(&self.fd, NEXT, &self.fd, DATA).map_err(|e| self.error("replace", DATA, e))
    }

    /// Makes or changes a link; what it is already stays.
    fn link(&self, name: &str, target: &str) -> Result<(), FsError> {
        if self.leads_to(name, target) {
            return Ok(());
        }
        self.remove(name)?;
        rustix::fs::symlinkat(target, &self.fd, name).map_err(|e| self.error("link", name, e))
    }

    fn remove(&self, name: &str) -> Result<(), FsError> {
        remove_at(self.fd.as_fd(), name.as_ref(), &self.path.join(name)).map(drop)
    }

    /// Removes the entries that are `surplus`.
    fn clean(&self, surplus: impl Fn(&str) -> bool) -> Result<(), FsError> {
        let entries = Dir::read_from(&self.fd).map_err(|e| self.error("list", "", e))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.error("list", "", e))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || !surplus(&name.to_string_lossy()) {
                continue;
            }
            remove_at(self.fd.as_fd(), name, &self.path.join(name))?;
        }
        Ok(())
    }
}

/// The directory of a file below `top`, and the file's name. Missing directories are made where that is wanted.
fn parent<'a>(top: &OwnedFd, path: &'a str, make: bool) -> io::Result<(OwnedFd, &'a str)> {
    let mut here = top.try_clone()?;
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return Ok((here, part));
        }
        here = match open_dir(here.as_fd(), part) {
            Err(Errno::NOENT) if make => make_dir(here.as_fd(), part, Mode::from_raw_mode(DIR_MODE))?,
            other => other?,
        };
    }
    Err(Errno::INVAL.into())
}

/// Whether a directory of the content, at `prefix` in it, has nothing but files of the payload and directories of such. It
/// goes no deeper than they do.
fn has_no_other(dir: &OwnedFd, prefix: &str, payload: &Payload) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { return Ok(false) };
        let path = format!("{prefix}{name}");
        if name == "." || name == ".." || payload.contains_key(&path) {
            continue;
        }
        let below = format!("{path}/");
        let leads_to_files = payload.range(below.clone()..).next().is_some_and(|(file, _)| file.starts_with(&below));
        if !leads_to_files || !has_no_other(&open_dir(dir.as_fd(), name)?, &below, payload)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is opened must be a plain file: anything else may never come to an end.
fn is_same(data: &OwnedFd, path: &str, file: &Content, group: Option<u32>) -> io::Result<bool> {
    let (dir, name) = parent(data, path, false)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut opened = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let meta = opened.metadata()?;
    let right = meta.is_file()
        && meta.permissions().mode() & 0o7777 == file.mode
        && usize::try_from(meta.len()).is_ok_and(|length| length == file.bytes.len())
        && file.owner.is_none_or(|owner| owner == meta.uid())
        && group.is_none_or(|group| group == meta.gid());
    if !right {
        return Ok(false);
    }
    let mut bytes = Vec::with_capacity(file.bytes.len());
    opened.read_to_end(&mut bytes)?;
    Ok(bytes == file.bytes)
}

fn put(fresh: &OwnedFd, path: &str, file: &Content, group: Option<u32>) -> io::Result<()> {
    let (dir, name) = parent(fresh, path, true)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut opened = File::from(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?);
    opened.write_all(&file.bytes)?;
    if group.is_some() || file.owner.is_some() {
        std::os::unix::fs::fchown(&opened, file.owner, group)?;
    }
    opened.set_permissions(Permissions::from_mode(file.mode))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::threads::with_umask;

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

    #[test]
    fn what_is_no_longer_to_be_there_goes_and_with_it_its_name() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("v");
        let names = || {
            let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = entries.filter(|name| !name.starts_with("..")).collect();
            names.sort();
            names
        };
        let all = [("a", "1"), ("b", "2"), ("d/x", "3"), ("d/y", "4")];
        write(&dir, &payload(&all), None).unwrap();
        // Fewer keys, each time with the rest as it was.
        for (left, expected) in [
            (&all[..3], vec!["a", "b", "d"]),
            (&all[1..3], vec!["b", "d"]),
            (&all[1..2], vec!["b"]),
            (&all[..0], vec![]),
        ] {
            let before = fs::read_link(dir.join(DATA)).unwrap();
            write(&dir, &payload(left), None).unwrap();
            assert_eq!(names(), expected);
            assert!(!dir.join(before).exists() && !dir.join("d/y").exists(), "{expected:?}");
            assert_eq!(fs::read_dir(dir.join(DATA)).unwrap().count(), expected.len());
        }
        // An agent was killed between the content and the names.
        symlink("..data/a", dir.join("a")).unwrap();
        write(&dir, &payload(&[]), None).unwrap();
        assert_eq!(names(), Vec::<String>::new());
    }

    /// A volume was writable in containers once, and what runs on from then still has it so.
    #[test]
    fn what_a_container_puts_in_the_way_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let (dir, outside) = (root.path().join("v"), root.path().join("outside"));
        fs::create_dir_all(outside.join("d")).unwrap();
        fs::File::create(outside.join("a")).unwrap();
        let files = payload(&[("a", "1"), ("d/b", "2")]);
        let whole = |what: &str| {
            let read = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
            assert_eq!((read("a"), read("d/b")), ("1".to_owned(), "2".to_owned()), "{what}");
            assert_eq!(fs::read_dir(outside.join("d")).unwrap().count(), 0, "{what}");
            assert_eq!(fs::read(outside.join("a")).unwrap(), b"", "{what}");
        };
        write(&dir, &files, None).unwrap();
        type Plant = fn(&Path, &Path);
        let plants: &[(&str, Plant)] = &[
            ("..data leads out", |dir, outside| {
                fs::remove_file(dir.join(DATA)).unwrap();
                symlink(outside, dir.join(DATA)).unwrap();
            }),
            ("..data is a directory", |dir, _| {
                fs::remove_file(dir.join(DATA)).unwrap();
                fs::create_dir_all(dir.join(DATA).join("x")).unwrap();
            }),
            ("the next ..data is a directory", |dir, _| {
                fs::remove_file(dir.join(DATA)).unwrap();
                fs::create_dir_all(dir.join(NEXT).join("x")).unwrap();
            }),
            ("a directory of the content leads out", |dir, outside| {
                let data = dir.join(fs::read_link(dir.join(DATA)).unwrap());
                fs::remove_dir_all(data.join("d")).unwrap();
                symlink(outside.join("d"), data.join("d")).unwrap();
            }),
            ("a name is a directory", |dir, _| {
                fs::remove_file(dir.join("a")).unwrap();
                fs::create_dir_all(dir.join("a/x")).unwrap();
            }),
            ("a file is a pipe without an end", |dir, _| {
                let file = dir.join(fs::read_link(dir.join(DATA)).unwrap()).join("a");
                fs::remove_file(&file).unwrap();
                rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
            }),
        ];
        for (what, plant) in plants {
            plant(&dir, &outside);
            write(&dir, &files, None).unwrap_or_else(|error| panic!("{what}: {error}"));
            whole(what);
        }
    }

    #[test]
    fn everything_has_its_mode_whatever_the_umask_is() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("p/v");
        with_umask(0o077, || {
            write(&dir, &payload(&[("d/b", "2")]), None).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            let dirs = [root.path().join("p"), dir.clone(), dir.join(DATA), dir.join("d")].map(|dir| mode(&dir));
            assert_eq!((dirs, mode(&dir.join("d/b"))), ([0o755; 4], 0o640));
        });
    }

    #[test]
    fn what_a_killed_agent_has_begun_goes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("v");
        write(&dir, &payload(&[("d/b", "2")]), None).unwrap();
        fs::create_dir_all(dir.join("..2020_begun")).unwrap();
        symlink("..2020_begun", dir.join(NEXT)).unwrap();
        write(&dir, &payload(&[("d/b", "2")]), None).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "..data, its directory and d");
    }
}
