//! The file tree a command writes into: the real one, which tells a recorder before it makes anything, or one in
//! memory, which is what a dry run is.
//!
//! Every path given here is a path *as the node sees it* (`/etc/kubernetes/...`); the tree puts its root in front.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Paths;
use super::fs::{self, FsError, NewFile, Written};

/// Where files of the node are read and written.
pub trait Tree: Send {
    /// The content of a file, None when it is not there.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FsError>;

    /// Whether something is at `path`.
    fn exists(&self, path: &Path) -> bool;

    /// Whether something is at `path`, be it a link to something that is not there.
    fn is_taken(&self, path: &Path) -> bool {
        self.exists(path)
    }

    /// Makes a directory and what is missing above it; what is missing above gets 0755. An existing one is left as it
    /// is.
    fn make_dir(&mut self, path: &Path, mode: u32) -> Result<(), FsError>;

    /// Writes a file in one rename, and the directories above it (0755) where they are missing. A link stays one, and the
    /// file it leads to is written.
    fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError>;

    /// Writes several files; a real tree does so in less time than one after the other.
    fn write_all(&mut self, files: &[NewFile<'_>]) -> Result<Vec<Written>, FsError> {
        files.iter().map(|file| self.write(file.path, file.content, file.mode)).collect()
    }

    /// Removes a file; returns whether it was there.
    fn remove(&mut self, path: &Path) -> Result<bool, FsError>;
}

/// Records everything a [`HostTree`] is about to make, before it is made, so that whatever happens then, the record
/// says whose it is.
pub trait Recorder: Send {
    /// `path`, as the node sees it, is not there now and will be made. Must be durable when this returns.
    fn will_create(&mut self, path: &Path, is_dir: bool) -> Result<(), FsError>;
}

/// A recorder that forgets: for files that are not kubeboot's.
#[derive(Debug, Clone, Copy)]
pub struct NoRecord;

impl Recorder for NoRecord {
    fn will_create(&mut self, _: &Path, _: bool) -> Result<(), FsError> {
        Ok(())
    }
}

/// What is recorded where there is a record, and forgotten elsewhere.
impl<R: Recorder> Recorder for Option<R> {
    fn will_create(&mut self, path: &Path, is_dir: bool) -> Result<(), FsError> {
        self.as_mut().map_or(Ok(()), |record| record.will_create(path, is_dir))
    }
}

/// The real file system below a root.
#[derive(Debug, Clone)]
pub struct HostTree<R: Recorder> {
    paths: Paths,
    recorder: R,
}

impl<R: Recorder> HostTree<R> {
    /// Writes below `paths.root()` and tells `recorder`.
    pub fn new(paths: Paths, recorder: R) -> Self {
        Self { paths, recorder }
    }

    /// The recorder.
    pub fn recorder_mut(&mut self) -> &mut R {
        &mut self.recorder
    }
}

impl<R: Recorder> HostTree<R> {
    /// Tells of a file that is not there yet, and makes the directories above it.
    fn announce(&mut self, path: &Path) -> Result<(), FsError> {
        if self.is_taken(path) {
            return Ok(());
        }
        if let Some(dir) = path.parent() {
            self.make_dir(dir, 0o755)?;
        }
        self.recorder.will_create(path, false)
    }

    /// Where a file that is written to `path` goes. A service manager's own links are none to be written through: they
    /// mask a unit, or lead to one that a package has brought.
    fn place(&self, path: &Path) -> Result<PathBuf, FsError> {
        let on_host = self.paths.on_host(path);
        let is_unit = SERVICE_DIRS.iter().any(|dir| path.starts_with(dir));
        match std::fs::metadata(&on_host) {
            Ok(meta) if !meta.is_file() => Ok(on_host),
            _ if is_unit => Ok(on_host),
            _ => match fs::link_end(&on_host)? {
                end if end == on_host || self.is_below_root(&end) => Ok(end),
                _ => Err(FsError::new("write", on_host, io::Error::other("it is a link that leads out of --rootfs"))),
            },
        }
    }

    /// Whether `end`, as this process sees it, is part of the file system that is written to.
    fn is_below_root(&self, end: &Path) -> bool {
        let root = self.paths.on_host("/");
        let dir = end.parent().and_then(|dir| dir.canonicalize().ok());
        self.paths.is_live() || dir.zip(root.canonicalize().ok()).is_none_or(|(dir, root)| dir.starts_with(root))
    }
}

/// Where service managers have their units and scripts.
const SERVICE_DIRS: [&str; 3] = ["/etc/systemd", "/etc/init.d", "/etc/conf.d"];

impl<R: Recorder> Tree for HostTree<R> {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FsError> {
        fs::read_if_exists(&self.paths.on_host(path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.paths.on_host(path).exists()
    }

    fn is_taken(&self, path: &Path) -> bool {
        self.paths.on_host(path).symlink_metadata().is_ok()
    }

    fn make_dir(&mut self, path: &Path, mode: u32) -> Result<(), FsError> {
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| !self.exists(dir)).collect();
        for dir in missing.into_iter().rev() {
            self.recorder.will_create(dir, true)?;
            fs::make_dirs_durably(&self.paths.on_host(dir), if dir == path { mode } else { 0o755 })?;
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError> {
        self.announce(path)?;
        fs::write_file(&self.place(path)?, content, mode)
    }

    fn write_all(&mut self, files: &[NewFile<'_>]) -> Result<Vec<Written>, FsError> {
        let paths = files.iter().map(|file| self.place(file.path)).collect::<Result<Vec<_>, _>>()?;
        for file in files {
            self.announce(file.path)?;
        }
        let files: Vec<_> = files.iter().zip(&paths).map(|(file, path)| NewFile { path, ..*file }).collect();
        fs::write_files(&files)
    }

    fn remove(&mut self, path: &Path) -> Result<bool, FsError> {
        fs::remove_file(&self.paths.on_host(path))
    }
}

/// One file that a [`MemoryTree`] holds.
#[derive(Clone, PartialEq, Eq)]
pub struct MemoryFile {
    /// Its content; may be a private key, hence no Debug.
    pub content: Vec<u8>,
    /// Its mode.
    pub mode: u32,
}

/// What would be written, kept in memory above a real tree that is only read.
///
/// What the process may not read (an ordinary user looking at `/etc/kubernetes/pki`) counts as absent: a dry run shows
/// what `init` would write on a fresh machine rather than failing.
#[derive(Clone, Default)]
pub struct MemoryTree {
    below: Option<Paths>,
    strict: bool,
    files: BTreeMap<PathBuf, MemoryFile>,
    dirs: BTreeMap<PathBuf, u32>,
}

impl MemoryTree {
    /// Nothing but memory.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Memory above the real tree of `paths`.
    pub fn above(paths: Paths) -> Self {
        Self { below: Some(paths), ..Self::default() }
    }

    /// Memory above the real tree of `paths`, for what will be written there: a file that is there and cannot be read
    /// is an error, because taking it for absent would replace it.
    pub fn staging(paths: Paths) -> Self {
        Self { strict: true, ..Self::above(paths) }
    }

    /// What was written, by path.
    pub fn files(&self) -> &BTreeMap<PathBuf, MemoryFile> {
        &self.files
    }

    /// What was written here and not, or otherwise, in `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        later.files.retain(|path, file| earlier.files.get(path) != Some(file));
        later.dirs.retain(|path, _| !earlier.dirs.contains_key(path));
        later
    }

    /// The directories that were made, with their modes.
    pub fn dirs(&self) -> &BTreeMap<PathBuf, u32> {
        &self.dirs
    }
}

impl Tree for MemoryTree {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FsError> {
        if let Some(file) = self.files.get(path) {
            return Ok(Some(file.content.clone()));
        }
        match &self.below {
            Some(paths) if self.strict => fs::read_if_exists(&paths.on_host(path)),
            Some(paths) => Ok(std::fs::read(paths.on_host(path)).ok()),
            None => Ok(None),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
            || self.dirs.contains_key(path)
            || self.below.as_ref().is_some_and(|paths| paths.on_host(path).exists())
    }

    fn make_dir(&mut self, path: &Path, mode: u32) -> Result<(), FsError> {
        if !self.exists(path) {
            self.dirs.insert(path.to_owned(), mode);
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError> {
        let before = self.read(path)?;
        self.files.insert(path.to_owned(), MemoryFile { content: content.to_vec(), mode });
        Ok(match before {
            None => Written::Created,
            Some(old) if old == content => Written::Same,
            Some(_) => Written::Changed,
        })
    }

    fn remove(&mut self, path: &Path) -> Result<bool, FsError> {
        Ok(self.files.remove(path).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log(Vec<(PathBuf, bool)>);

    impl Recorder for Log {
        fn will_create(&mut self, path: &Path, is_dir: bool) -> Result<(), FsError> {
            self.0.push((path.to_owned(), is_dir));
            Ok(())
        }
    }

    #[test]
    fn what_a_host_tree_makes_is_recorded_once_and_before() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = HostTree::new(Paths::new(root.path()), Log(vec![]));
        tree.write(Path::new("/a/b/c"), b"x", 0o600).unwrap();
        tree.write(Path::new("/a/b/c"), b"y", 0o600).unwrap();
        let made: Vec<_> = tree.recorder.0.iter().map(|(p, d)| (p.to_str().unwrap(), *d)).collect();
        assert_eq!(made, [("/a", true), ("/a/b", true), ("/a/b/c", false)]);
        assert_eq!(tree.read(Path::new("/a/b/c")).unwrap().unwrap(), b"y");
    }

    #[test]
    fn a_linked_file_is_written_where_it_is_kept_and_recorded_as_nobodys() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::make_dirs(&at("etc/pki"), 0o755).unwrap();
        fs::make_dirs(&at("etc/systemd/system"), 0o755).unwrap();
        fs::make_dirs(&at("store"), 0o755).unwrap();
        for file in ["store/a", "store/b", "store/unit"] {
            fs::write_file(&at(file), b"old", 0o644).unwrap();
        }
        symlink("../../store/a", at("etc/pki/a")).unwrap();
        symlink(at("store/b"), at("etc/pki/b")).unwrap();
        symlink(at("store/c"), at("etc/pki/c")).unwrap();
        symlink(at("store/unit"), at("etc/systemd/system/kubelet.service")).unwrap();
        let mut tree = HostTree::new(Paths::new(root.path()), Log(vec![]));
        tree.write(Path::new("/etc/pki/a"), b"1", 0o600).unwrap();
        let [b, c] = [Path::new("/etc/pki/b"), Path::new("/etc/pki/c")];
        let file = |path, content| NewFile { path, content, mode: 0o600 };
        tree.write_all(&[file(b, b"2"), file(c, b"3")]).unwrap();
        tree.write(Path::new("/etc/systemd/system/kubelet.service"), b"ours", 0o644).unwrap();
        let read = |path: &str| std::fs::read_to_string(at(path)).unwrap();
        assert_eq!(["store/a", "store/b", "store/c", "store/unit"].map(read), ["1", "2", "3", "old"]);
        assert!(["etc/pki/a", "etc/pki/b", "etc/pki/c"].iter().all(|link| at(link).is_symlink()));
        assert_eq!(read("etc/systemd/system/kubelet.service"), "ours");
        assert!(tree.recorder.0.is_empty(), "{:?}", tree.recorder.0);
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path().join("d"), at("etc/pki/d")).unwrap();
        let error = tree.write(Path::new("/etc/pki/d"), b"4", 0o600).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("out of --rootfs"), "{error}");
        assert!(!elsewhere.path().join("d").exists());
        // Of a link only the link goes.
        tree.remove(Path::new("/etc/pki/a")).unwrap();
        assert!(!at("etc/pki/a").is_symlink() && at("store/a").exists());
    }

    #[test]
    fn a_memory_tree_touches_nothing_and_reads_what_it_wrote() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let mut tree = MemoryTree::above(Paths::new(root.path()));
        assert!(tree.exists(Path::new("/etc")));
        assert_eq!(tree.write(Path::new("/etc/f"), b"x", 0o600).unwrap(), Written::Created);
        assert_eq!(tree.read(Path::new("/etc/f")).unwrap().unwrap(), b"x");
        assert!(!root.path().join("etc/f").exists());
    }
}
