//! A file tree whose n-th change fails.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::host::fs::{FsError, Written};
use crate::host::tree::Tree;

/// Counts changes (directories made, files written or removed) and fails one of them as a full disk does.
#[derive(Clone)]
pub struct FaultyTree<T> {
    inner: T,
    changes: Arc<AtomicUsize>,
    fail_at: Arc<AtomicUsize>,
    deadly: Arc<AtomicBool>,
}

/// What a test catches where a real process would have been killed.
pub struct Killed;

impl<T: Tree> FaultyTree<T> {
    /// A tree that fails nothing until it is told.
    pub fn new(inner: T) -> Self {
        Self { inner, changes: Arc::default(), fail_at: Arc::default(), deadly: Arc::default() }
    }

    /// Fails the `n`-th change from now on (1 is the next one).
    pub fn fail_at(&mut self, n: usize) {
        self.fail_at.store(self.changes.load(Ordering::SeqCst) + n, Ordering::SeqCst);
    }

    /// Ends the process, so to speak, at the `n`-th change from now on: unwinds with [`Killed`], so that nobody tidies
    /// up.
    pub fn die_at(&mut self, n: usize) {
        self.deadly.store(true, Ordering::SeqCst);
        self.fail_at(n);
    }

    /// How many changes were tried.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    fn count(&self, action: &'static str, path: &Path) -> Result<(), FsError> {
        let now = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        match now == self.fail_at.load(Ordering::SeqCst) {
            true if self.deadly.swap(false, Ordering::SeqCst) => std::panic::resume_unwind(Box::new(Killed)),
            true => Err(FsError::new(action, path, io::ErrorKind::StorageFull.into())),
            false => Ok(()),
        }
    }
}

impl<T: Tree> Tree for FaultyTree<T> {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FsError> {
        self.inner.read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
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
