//! A file tree and a disk whose n-th change fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::host::disk::{Disk, HostDisk};
use crate::host::fs::{FsError, Written};
use crate::host::tree::Tree;

/// Counts changes (directories made, files written, copied or removed) and fails one of them as a full disk does.
#[derive(Clone, Default)]
struct Faults {
    changes: Arc<AtomicUsize>,
    fail_at: Arc<AtomicUsize>,
    deadly: Arc<AtomicBool>,
}

impl Faults {
    /// `half` is what a process that is killed, or whose disk is full, has done of the change by then.
    fn count(&self, action: &'static str, path: &Path, half: impl FnOnce()) -> Result<(), FsError> {
        let now = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        if now != self.fail_at.load(Ordering::SeqCst) {
            return Ok(());
        }
        half();
        match self.deadly.swap(false, Ordering::SeqCst) {
            true => std::panic::resume_unwind(Box::new(Killed)),
            false => Err(FsError::new(action, path, io::ErrorKind::StorageFull.into())),
        }
    }
}

/// A tree that fails the n-th change.
#[derive(Clone)]
pub struct FaultyTree<T> {
    inner: T,
    faults: Faults,
}

/// What a test catches where a real process would have been killed.
pub struct Killed;

impl<T: Tree> FaultyTree<T> {
    /// A tree that fails nothing until it is told.
    pub fn new(inner: T) -> Self {
        Self { inner, faults: Faults::default() }
    }

    /// The disk below it: its changes count with those of the tree.
    pub fn disk(&self) -> FaultyDisk {
        FaultyDisk { faults: self.faults.clone(), free: Arc::new(AtomicU64::new(u64::MAX)), mount: None }
    }

    /// Fails the `n`-th change from now on (1 is the next one).
    pub fn fail_at(&mut self, n: usize) {
        self.faults.fail_at.store(self.changes() + n, Ordering::SeqCst);
    }

    /// Ends the process, so to speak, at the `n`-th change from now on: unwinds with [`Killed`], so that no one tidies
    /// up.
    pub fn die_at(&mut self, n: usize) {
        self.faults.deadly.store(true, Ordering::SeqCst);
        self.fail_at(n);
    }

    /// How many changes were tried.
    pub fn changes(&self) -> usize {
        self.faults.changes.load(Ordering::SeqCst)
    }

    fn count(&self, action: &'static str, path: &Path) -> Result<(), FsError> {
        self.faults.count(action, path, || {})
    }
}

impl<T: Tree> Tree for FaultyTree<T> {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FsError> {
        self.inner.read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn is_taken(&self, path: &Path) -> bool {
        self.inner.is_taken(path)
    }

    fn make_dir(&mut self, path: &Path, mode: u32) -> Result<(), FsError> {
        self.count("create directory", path)?;
        self.inner.make_dir(path, mode)
    }

    fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError> {
        self.count("write", path)?;
        self.inner.write(path, content, mode)
    }

    fn remove(&mut self, path: &Path) -> Result<bool, FsError> {
        self.count("remove", path)?;
        self.inner.remove(path)
    }
}

/// A disk that fails the n-th change half way: half of a file is copied then, one entry of a directory removed.
#[derive(Clone)]
pub struct FaultyDisk {
    faults: Faults,
    free: Arc<AtomicU64>,
    mount: Option<(PathBuf, u64)>,
}

impl FaultyDisk {
    /// From now on only so many bytes are free.
    pub fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::SeqCst);
    }

    /// What is below `at` is another file system from now on, with so many bytes free.
    pub fn mount(&mut self, at: PathBuf, bytes: u64) {
        self.mount = Some((at, bytes));
    }

    fn mounted(&self, path: &Path) -> Option<u64> {
        self.mount.as_ref().filter(|(at, _)| path.starts_with(at)).map(|(_, bytes)| *bytes)
    }
}

fn write_half(from: &Path, to: &Path) {
    let content = std::fs::read(from).unwrap_or_default();
    let _ = crate::host::fs::write_file(to, &content[..content.len() / 2], 0o600);
}

fn remove_one(path: &Path) {
    if let Some(entry) = std::fs::read_dir(path).into_iter().flatten().flatten().next() {
        let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
    }
}

impl Disk for FaultyDisk {
    fn make_dir(&mut self, path: &Path, like: &Path) -> Result<(), FsError> {
        self.faults.count("create directory", path, || {})?;
        HostDisk.make_dir(path, like)
    }

    fn copy_file(&mut self, from: &Path, to: &Path) -> Result<(), FsError> {
        self.faults.count("copy", from, || write_half(from, to))?;
        HostDisk.copy_file(from, to)
    }

    fn copy_beginning(&mut self, from: &Path, to: &Path, length: u64, like: &Path) -> Result<(), FsError> {
        self.faults.count("copy", from, || write_half(from, to))?;
        HostDisk.copy_beginning(from, to, length, like)
    }

    fn sync_dir(&mut self, path: &Path) -> Result<(), FsError> {
        self.faults.count("sync directory", path, || {})?;
        HostDisk.sync_dir(path)
    }

    fn exchange(&mut self, new: &Path, place: &Path) -> Result<(), FsError> {
        self.faults.count("put in place", place, || {})?;
        HostDisk.exchange(new, place)
    }

    fn remove_tree(&mut self, path: &Path) -> Result<(), FsError> {
        self.faults.count("remove", path, || remove_one(path))?;
        HostDisk.remove_tree(path)
    }

    fn free(&self, path: &Path) -> Result<u64, FsError> {
        let free = self.mounted(path).unwrap_or_else(|| self.free.load(Ordering::SeqCst));
        Ok(HostDisk.free(path)?.min(free))
    }

    fn device(&self, path: &Path) -> Result<u64, FsError> {
        HostDisk.device(path).map(|device| if self.mounted(path).is_some() { !device } else { device })
    }
}
