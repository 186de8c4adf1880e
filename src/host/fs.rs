//! One way to write a file: aside, synced, renamed, the directory synced; and only when its content differs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::beneath::DIRECTORY;
use super::reserve::or_from_it;
pub use super::sync::sync_dir;
use super::sync::sync_file;

/// A file operation that failed, with the path it was on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FsError {
    /// What was tried (`write`, `read`, `create directory`).
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FsError {
    /// An error of `action` on `path`.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { action, path: path.into(), source }
    }

    /// Whether the disk is full (or a quota is used up).
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// What [`write_file`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The file was not there.
    Created,
    /// The file had another content or mode.
    Changed,
    /// Nothing was touched, so the modification time stays.
    Same,
}

/// What the names of temporary files begin with: they are left behind only by a process that is killed while it writes.
pub const TEMPORARY_PREFIX: &str = ".kubeboot-";

/// A file to write.
#[derive(Clone, Copy)]
pub struct NewFile<'a> {
    /// Where.
    pub path: &'a Path,
    /// Its content.
    pub content: &'a [u8],
    /// Its mode.
    pub mode: u32,
}

/// Writes `content` to `path` with `mode`, in one rename: a reader sees the old file or the new one, never half of one.
///
/// The temporary file is a dot file beside the target, so no reader of manifests takes it for one, and is gone when
/// anything fails. The parent directory must exist.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError> {
    or_from_it(|| {
        let Some((aside, written)) = write_aside(NewFile { path, content, mode })? else { return Ok(Written::Same) };
        aside.sync_and_rename()?;
        sync_dir(parent(path))?;
        Ok(written)
    })
}

/// As [`write_file`], through a link at `path`: the link stays, and the file it leads to is replaced in one rename. What is
/// no file, such as a terminal or a pipe, is written to as it is.
///
/// # Errors
/// Links in a circle; those of [`write_file`], which name the end of the links.
pub fn write_through(path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError> {
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        let written = File::options().write(true).open(path).and_then(|mut file| file.write_all(content));
        return written.map(|()| Written::Changed).map_err(|e| FsError::new("write", path, e));
    }
    write_file(&link_end(path)?, content, mode)
}

/// Where the links that begin at `path` end, there or not: `path` itself where it is no link.
///
/// # Errors
/// Links in a circle, or closed to this process.
pub fn link_end(path: &Path) -> Result<PathBuf, FsError> {
    let mut end = path.to_owned();
    for _ in 0..LINKS_LIMIT {
        match fs::read_link(&end) {
            Ok(next) => end = parent(&end).join(next),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(FsError::new("follow the link", end, e));
            }
            // Nothing that could be followed is there.
            Err(_) => return Ok(end),
        }
    }
    Err(FsError::new("follow the link", path, rustix::io::Errno::LOOP.into()))
}

/// As many links as the kernel follows.
const LINKS_LIMIT: usize = 40;

/// Writes several files, each as [`write_file`] does, in less time: all are written aside, synced at once, and renamed
/// in the order given; each directory is synced once. When one fails, those before it may be in place.
pub fn write_files(files: &[NewFile<'_>]) -> Result<Vec<Written>, FsError> {
    or_from_it(|| write_files_once(files))
}

fn write_files_once(files: &[NewFile<'_>]) -> Result<Vec<Written>, FsError> {
    let mut outcomes = Vec::with_capacity(files.len());
    let mut asides = Vec::new();
    for file in files {
        match write_aside(*file)? {
            Some((aside, written)) => {
                asides.push(aside);
                outcomes.push(written);
            }
            None => outcomes.push(Written::Same),
        }
    }
    // The disk takes many syncs at once as quickly as one.
    let synced = std::thread::scope(|scope| {
        let syncs: Vec<_> = asides.iter().map(|aside| scope.spawn(|| aside.sync())).collect();
        syncs.into_iter().try_for_each(|sync| sync.join().unwrap_or_else(|_| Err(FsError::new("sync", "", broken()))))
    });
    synced?;
    let mut dirs: Vec<PathBuf> = Vec::new();
    for aside in asides {
        dirs.push(parent(&aside.path).to_owned());
        aside.rename()?;
    }
    dirs.sort();
    dirs.dedup();
    dirs.iter().try_for_each(|dir| sync_dir(dir))?;
    Ok(outcomes)
}

fn broken() -> io::Error {
    io::Error::other("a thread ended early")
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A file that is written and not in its place yet.
struct Aside {
    temp: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Aside {
    fn sync(&self) -> Result<(), FsError> {
        sync_file(self.temp.as_file(), &self.path)
    }

    fn rename(self) -> Result<(), FsError> {
        self.temp.persist(&self.path).map(drop).map_err(|e| FsError::new("write", &self.path, e.error))
    }

    fn sync_and_rename(self) -> Result<(), FsError> {
        self.sync()?;
        self.rename()
    }
}

/// None when the file is as it should be.
fn write_aside(file: NewFile<'_>) -> Result<Option<(Aside, Written)>, FsError> {
    let NewFile { path, content, mode } = file;
    let before = match (fs::read(path), fs::metadata(path)) {
        (Ok(old), Ok(meta)) => Some((old, meta.permissions().mode() & 0o7777)),
        _ => None,
    };
    if before.as_ref().is_some_and(|(old, old_mode)| old == content && *old_mode == mode) {
        return Ok(None);
    }
    let fail = |source| FsError::new("write", path, source);
    let mut temp = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(parent(path))
        .map_err(fail)?;
    temp.write_all(content).map_err(fail)?;
    // The umask may have taken bits away at birth; keys stay closed because bits are only added now.
    temp.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)?;
    let written = if before.is_some() { Written::Changed } else { Written::Created };
    Ok(Some((Aside { temp, path: path.to_owned() }, written)))
}

/// Makes `path` and what is missing above it, each with `mode` whatever the umask is, and returns the directories it
/// made, outermost first.
pub fn make_dirs(path: &Path, mode: u32) -> Result<Vec<PathBuf>, FsError> {
    let missing: Vec<PathBuf> =
        path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).map(Path::to_owned).collect();
    let mut made = Vec::new();
    for dir in missing.into_iter().rev() {
        let is_made = or_from_it(|| match make_dir(&dir, mode) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(FsError::new("create directory", &dir, e)),
        })?;
        if is_made {
            made.push(dir);
        }
    }
    Ok(made)
}

/// As [`make_dirs`], and what was made survives a power cut: syncing a file says nothing of the directories above it.
///
/// # Errors
/// Those of [`make_dirs`]; a directory that cannot be synced.
pub fn make_dirs_durably(path: &Path, mode: u32) -> Result<Vec<PathBuf>, FsError> {
    let made = make_dirs(path, mode)?;
    made.iter().try_for_each(|dir| sync_dir(parent(dir)))?;
    Ok(made)
}

fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(dir)?;
    let opened = rustix::fs::openat(rustix::fs::CWD, dir, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
    let has = rustix::fs::fstat(&opened)?.st_mode & 0o7777;
    if has & mode != mode {
        // The umask has taken bits away. Those that the directory above has given stay.
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(has | mode))?;
    }
    Ok(())
}

/// Reads a whole file, or None when it is not there.
pub fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, FsError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(FsError::new("read", path, e)),
    }
}

/// What is in a directory; nothing in one that is not there.
pub fn entries(dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let listed = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other.and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect()),
    };
    listed.map_err(|e| FsError::new("list", dir, e))
}

/// Removes a file; that it is not there is fine. Returns whether it was.
pub fn remove_file(path: &Path) -> Result<bool, FsError> {
    match fs::remove_file(path) {
        Ok(()) => {
            if let Some(dir) = path.parent() {
                sync_dir(dir)?;
            }
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(FsError::new("remove", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::threads::with_umask;

    #[test]
    fn a_file_is_written_with_its_mode_and_left_alone_when_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(write_file(&path, b"a", 0o600).unwrap(), Written::Created);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(write_file(&path, b"a", 0o600).unwrap(), Written::Same);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert_eq!(write_file(&path, b"b", 0o644).unwrap(), Written::Changed);
        assert_eq!(fs::read(&path).unwrap(), b"b");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn several_files_are_written_as_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = |path, content, mode| NewFile { path, content, mode };
        write_file(&b, b"2", 0o600).unwrap();
        let outcomes = write_files(&[file(&a, b"1", 0o644), file(&b, b"2", 0o600)]).unwrap();
        assert_eq!(outcomes, [Written::Created, Written::Same]);
        assert_eq!(fs::metadata(&a).unwrap().permissions().mode() & 0o777, 0o644);
        let missing = dir.path().join("none/c");
        assert!(write_files(&[file(&a, b"3", 0o644), file(&missing, b"", 0o600)]).is_err());
        assert_eq!(fs::read(&a).unwrap(), b"1", "nothing is renamed when one cannot be written");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_link_stays_and_the_file_it_leads_to_is_replaced() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        make_dirs(&at("store/new"), 0o755).unwrap();
        write_file(&at("store/key"), b"old", 0o644).unwrap();
        symlink("../key", at("store/new/second")).unwrap();
        symlink(at("store/new/second"), at("first")).unwrap();
        assert_eq!(write_through(&at("first"), b"new", 0o600).unwrap(), Written::Changed);
        assert_eq!(fs::read(at("store/key")).unwrap(), b"new");
        assert_eq!(fs::metadata(at("store/key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(at("first").is_symlink() && at("store/new/second").is_symlink() && !at("store/key").is_symlink());
        assert_eq!(write_through(&at("first"), b"new", 0o600).unwrap(), Written::Same);
        // One that leads to nothing yet is followed too.
        symlink("store/later", at("dangling")).unwrap();
        assert_eq!(write_through(&at("dangling"), b"x", 0o600).unwrap(), Written::Created);
        assert_eq!(fs::read(at("store/later")).unwrap(), b"x");
        symlink("circle", at("circle")).unwrap();
        assert!(
            write_through(&at("circle"), b"x", 0o600).unwrap_err().to_string().starts_with("cannot follow the link")
        );
        symlink("none/x", at("nowhere")).unwrap();
        let error = write_through(&at("nowhere"), b"x", 0o600).unwrap_err().to_string();
        assert_eq!(error, format!("cannot write {}", at("none/x").display()), "the end of the link is named");
        symlink("/dev/null", at("device")).unwrap();
        write_through(&at("device"), b"x", 0o600).unwrap();
        assert!(at("device").is_symlink());
    }

    #[test]
    fn make_dirs_tells_what_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let made = make_dirs(&dir.path().join("a/b"), 0o700).unwrap();
        assert_eq!(made, [dir.path().join("a"), dir.path().join("a/b")]);
        assert!(make_dirs(&dir.path().join("a/b"), 0o700).unwrap().is_empty());
    }

    #[test]
    fn directories_and_files_have_their_modes_whatever_the_umask_is() {
        let dir = tempfile::tempdir().unwrap();
        with_umask(0o077, || {
            make_dirs(&dir.path().join("a/b"), 0o755).unwrap();
            write_file(&dir.path().join("a/file"), b"", 0o644).unwrap();
            let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(["a", "a/b", "a/file"].map(mode), [0o755, 0o755, 0o644]);
        });
    }

    #[test]
    fn a_write_into_a_missing_directory_names_the_file() {
        let error = write_file(Path::new("/nonexistent-kubeboot/x"), b"", 0o600).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nonexistent-kubeboot/x");
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }
}
