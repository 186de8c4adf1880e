//! kubeboot's own directory on a machine: lock, inventory and journal, made in one rename and removed last.

pub mod inventory;
pub mod journal;
pub mod lock;
pub(in crate::workflow) mod record;
pub mod saved;

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::host::Paths;
use crate::host::fs::{FsError, sync_dir};
use crate::host::paths::STATE_DIR;
use crate::host::remove::remove_tree;
use inventory::{Entry, Inventory};
use journal::Journal;
use lock::{Lock, LockError};

/// What is wrong with kubeboot's own directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another command runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// A record makes no sense to this version.
    #[error("{} line {line} is no record that kubeboot {} knows; use the kubeboot that wrote it", path.display(),
        env!("CARGO_PKG_VERSION"))]
    Record {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What the decoder said.
        #[source]
        source: serde_json::Error,
    },
    /// The directory is there and the inventory is not, or has nothing in it.
    #[error("{} is missing or empty, so nothing says what kubeboot made on this machine; put it back, or take away what is \
        known to be kubeboot's with `kubeboot reset`", path.display())]
    NoInventory {
        /// Where it should be.
        path: PathBuf,
    },
}

/// Name of the directory while it is being made or removed; the process id follows.
const ASIDE: &str = ".kubeboot-state-";
/// File name of the lock below the state directory.
pub(in crate::workflow) const LOCK: &str = "lock";
const LOST_AND_FOUND: &str = "lost+found";

/// The open, locked state of a machine.
#[derive(Debug)]
pub struct State {
    paths: Paths,
    /// What was made.
    pub inventory: Inventory,
    /// What was run.
    pub journal: Journal,
    _lock: Lock,
}

impl State {
    /// Locks and reads the state, or None on a machine that has none.
    pub fn open(paths: &Paths) -> Result<Option<Self>, StateError> {
        let dir = paths.state();
        if !dir.exists() || is_unused(&dir)? {
            return Ok(None);
        }
        let lock = Lock::acquire(&dir.join(LOCK))?;
        let inventory = Inventory::open(&dir.join(Inventory::FILE), None)?;
        let journal = Journal::open(&dir.join(Journal::FILE))?;
        Ok(Some(Self { paths: paths.clone(), inventory, journal, _lock: lock }))
    }

    /// The same for a reset, which works from what there is: returns what is wrong with the records too.
    pub fn open_leniently(paths: &Paths) -> Result<Option<(Self, Vec<StateError>)>, StateError> {
        let dir = paths.state();
        if !dir.exists() || is_unused(&dir)? {
            return Ok(None);
        }
        let lock = Lock::acquire(&dir.join(LOCK))?;
        let (inventory, mut errors) = Inventory::open_leniently(&dir.join(Inventory::FILE))?;
        let (journal, damaged) = Journal::open_leniently(&dir.join(Journal::FILE))?;
        errors.extend(damaged);
        Ok(Some((Self { paths: paths.clone(), inventory, journal, _lock: lock }, errors)))
    }

    /// Locks and reads the state, made now if it has to be.
    ///
    /// The directory appears in one rename with an inventory that names it, so that no kill leaves it unaccounted for. One
    /// that is there and unused, such as a mount point, is taken as it is.
    pub fn open_or_create(paths: &Paths) -> Result<Self, StateError> {
        if let Some(state) = Self::open(paths)? {
            return Ok(state);
        }
        if paths.state().exists() {
            return Self::begin(paths);
        }
        let site = Site::of(paths);
        let aside = site.base.join(format!("{ASIDE}{}", std::process::id()));
        match site.build(&aside) {
            Ok(Some(lock)) => {
                let dir = paths.state();
                let inventory = Inventory::open(&dir.join(Inventory::FILE), None)?;
                let journal = Journal::open(&dir.join(Journal::FILE))?;
                Ok(Self { paths: paths.clone(), inventory, journal, _lock: lock })
            }
            // Somebody else was quicker; that one holds the lock, or has died since.
            Ok(None) => {
                remove_aside(&aside)?;
                Self::open(paths)?.ok_or_else(|| LockError::Gone { path: paths.state().join(LOCK) }.into())
            }
            Err(error) => {
                let _ = remove_aside(&aside);
                Err(error)
            }
        }
    }

    /// Begins the state in a directory that is there and unused.
    fn begin(paths: &Paths) -> Result<Self, StateError> {
        let dir = paths.state();
        let lock = Lock::acquire(&dir.join(LOCK))?;
        // Another command may have begun it before this one got the lock.
        let first = is_unused(&dir)?.then(|| opened(vec![]));
        let inventory = Inventory::open(&dir.join(Inventory::FILE), first)?;
        let journal = Journal::open(&dir.join(Journal::FILE))?;
        sync_dir(&dir)?;
        Ok(Self { paths: paths.clone(), inventory, journal, _lock: lock })
    }

    /// Removes the directory and those above it that were made for it. Everything else must be gone: no one knows of it
    /// afterwards.
    pub fn discard(self) -> Result<(), StateError> {
        let made = opened_dirs(self.inventory.entries());
        let dir = self.paths.state();
        if made.as_ref().is_some_and(Vec::is_empty) {
            return empty(&dir);
        }
        // Where the record is lost, it was made as usual.
        let made = made.unwrap_or_default();
        let site = Site::of_made(&self.paths, &made);
        let aside = site.base.join(format!("{ASIDE}{}", std::process::id()));
        fs::rename(&dir, &aside).map_err(|e| FsError::new("remove", &dir, e))?;
        finish_discard(&self.paths, &made, &aside)?;
        Ok(sync_dir(&site.base)?)
    }

    /// Finishes what killed processes left of making or removing the directory. Returns whether there was anything.
    pub fn sweep(paths: &Paths) -> Result<bool, StateError> {
        let mut found = false;
        for dir in paths.state().ancestors().skip(1).filter(|dir| dir.starts_with(paths.root())) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(ASIDE)) else { continue };
                if Path::new("/proc").join(pid).exists() {
                    continue;
                }
                // One that is damaged names no directories, and goes all the same.
                let entries = Inventory::read(&entry.path().join(Inventory::FILE)).unwrap_or_default();
                let made = opened_dirs(entries.iter()).unwrap_or_default();
                finish_discard(paths, &made, &entry.path())?;
                found = true;
            }
        }
        Ok(found)
    }
}

/// Whether nothing was recorded in the directory yet: an inventory without any record lies beside a journal only where it
/// has lost its records.
fn is_unused(dir: &Path) -> Result<bool, StateError> {
    let fail = |source| FsError::new("read directory", dir, source);
    let names = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>());
    // The last one is ext4's, at the top of each file system.
    let known = [LOCK, Inventory::FILE, LOST_AND_FOUND];
    if names.map_err(fail)?.iter().any(|name| !known.iter().any(|known| name == known)) {
        return Ok(false);
    }
    Ok(fs::metadata(dir.join(Inventory::FILE)).map_or(true, |inventory| inventory.len() == 0))
}

/// Takes everything out of a directory that was there before, the inventory last: until then nothing is forgotten.
fn empty(dir: &Path) -> Result<(), StateError> {
    let fail = |source| FsError::new("read directory", dir, source);
    for entry in fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if [LOCK, Inventory::FILE, LOST_AND_FOUND].iter().all(|kept| name != *kept) {
            remove_tree(&dir.join(name))?;
        }
    }
    sync_dir(dir)?;
    for name in [Inventory::FILE, LOCK] {
        remove_tree(&dir.join(name))?;
    }
    Ok(sync_dir(dir)?)
}

/// An inventory's first record.
fn opened(dirs: Vec<PathBuf>) -> Entry {
    Entry::Opened { format: 1, version: env!("CARGO_PKG_VERSION").to_owned(), at: Timestamp::now(), dirs }
}

fn finish_discard(paths: &Paths, made: &[PathBuf], aside: &Path) -> Result<(), StateError> {
    for dir in made.iter().rev() {
        // One that is not empty has something of somebody else's in it by now.
        let _ = fs::remove_dir(paths.on_host(dir));
    }
    Ok(remove_aside(aside)?)
}

fn remove_aside(aside: &Path) -> Result<(), FsError> {
    remove_tree(aside).map(drop)
}

fn opened_dirs<'a>(mut entries: impl Iterator<Item = &'a Entry>) -> Option<Vec<PathBuf>> {
    entries.find_map(|e| if let Entry::Opened { dirs, .. } = e { Some(dirs.clone()) } else { None })
}

/// Where the state directory comes to be: the deepest directory that is there, and those that are missing below it.
struct Site {
    base: PathBuf,
    /// As the node sees them, outermost first, the state directory last.
    missing: Vec<PathBuf>,
    paths: Paths,
}

impl Site {
    fn of(paths: &Paths) -> Self {
        let missing: Vec<PathBuf> = Path::new(STATE_DIR)
            .ancestors()
            .take_while(|dir| !paths.on_host(dir).exists())
            .map(Path::to_owned)
            .collect();
        let missing = missing.into_iter().rev().collect::<Vec<_>>();
        Self::of_made(paths, &missing)
    }

    fn of_made(paths: &Paths, made: &[PathBuf]) -> Self {
        let outermost = made.first().map_or(Path::new(STATE_DIR), PathBuf::as_path);
        let base = paths.on_host(outermost.parent().unwrap_or(Path::new("/")));
        Self { base, missing: made.to_vec(), paths: paths.clone() }
    }

    /// Makes everything aside, locked, and moves it into place; None when something is in that place by now.
    fn build(&self, aside: &Path) -> Result<Option<Lock>, StateError> {
        let Some(outermost) = self.missing.first() else { return Ok(None) };
        let mut dir = aside.to_owned();
        for made in &self.missing {
            let below = made.strip_prefix(outermost).unwrap_or(Path::new(""));
            dir = if below.as_os_str().is_empty() { aside.to_owned() } else { aside.join(below) };
            let mode = if made == Path::new(STATE_DIR) { 0o700 } else { 0o755 };
            let made = fs::DirBuilder::new().mode(mode).create(&dir);
            // The umask may have taken bits away.
            let made = made.and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(mode)));
            made.map_err(|e| FsError::new("create directory", &dir, e))?;
        }
        let lock = Lock::acquire(&dir.join(LOCK))?;
        Inventory::open(&dir.join(Inventory::FILE), Some(opened(self.missing.clone())))?;
        sync_dir(&dir)?;
        let target = self.paths.on_host(outermost);
        match fs::rename(aside, &target) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc_codes::ENOTEMPTY | libc_codes::EEXIST)) => return Ok(None),
            Err(e) => return Err(FsError::new("create directory", target, e).into()),
        }
        sync_dir(&self.base)?;
        Ok(Some(lock))
    }
}

/// The two codes with which `rename` refuses to replace a directory that is in use.
mod libc_codes {
    use rustix::io::Errno;

    pub const ENOTEMPTY: i32 = Errno::NOTEMPTY.raw_os_error();
    pub const EEXIST: i32 = Errno::EXIST.raw_os_error();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    #[test]
    fn the_directory_comes_with_an_inventory_and_goes_with_everything_made_for_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let state = State::open_or_create(&paths).unwrap();
        assert!(state.inventory.is_unused());
        assert!(matches!(State::open(&paths), Err(StateError::Lock(LockError::Held { .. }))));
        drop(state);
        let state = State::open(&paths).unwrap().unwrap();
        state.discard().unwrap();
        assert_eq!(listing(root.path()), Vec::<String>::new());
        assert!(State::open(&paths).unwrap().is_none());
    }

    #[test]
    fn directories_that_were_there_before_stay() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/lib")).unwrap();
        let paths = Paths::new(root.path());
        State::open_or_create(&paths).unwrap().discard().unwrap();
        assert_eq!(listing(root.path()), ["var/", "var/lib/"]);
    }

    #[test]
    fn what_killed_processes_left_aside_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        drop(State::open_or_create(&paths).unwrap());
        // As `discard` leaves it when it is killed after its rename; no process has this id.
        let aside = root.path().join(format!("{ASIDE}999999999"));
        fs::rename(paths.state(), &aside).unwrap();
        fs::create_dir_all(root.path().join(format!("{ASIDE}999999998/lib/kubeboot"))).unwrap();
        assert!(State::sweep(&paths).unwrap());
        assert_eq!(listing(root.path()), Vec::<String>::new());
        assert!(!State::sweep(&paths).unwrap());
    }

    #[test]
    fn a_directory_without_its_inventory_is_an_error_that_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        drop(State::open_or_create(&paths).unwrap());
        fs::remove_file(paths.state().join(Inventory::FILE)).unwrap();
        let error = State::open(&paths).unwrap_err();
        assert!(error.to_string().contains("inventory.json is missing or empty"), "{error}");
    }

    #[test]
    fn a_directory_that_was_there_and_unused_is_taken_and_stays() {
        // As a mount point is, and as earlier versions left one that they had refused.
        for (names, kept) in [
            (vec![], vec!["var/", "var/lib/", "var/lib/kubeboot/"]),
            (vec![LOST_AND_FOUND], vec!["var/", "var/lib/", "var/lib/kubeboot/", "var/lib/kubeboot/lost+found"]),
            (vec![LOCK, Inventory::FILE], vec!["var/", "var/lib/", "var/lib/kubeboot/"]),
        ] {
            let root = tempfile::tempdir().unwrap();
            let paths = Paths::new(root.path());
            fs::create_dir_all(paths.state()).unwrap();
            for name in &names {
                fs::File::create(paths.state().join(name)).unwrap();
            }
            assert!(State::open(&paths).unwrap().is_none(), "{names:?}");
            assert!(State::open_leniently(&paths).unwrap().is_none(), "{names:?}");
            drop(State::open_or_create(&paths).unwrap());
            let state = State::open(&paths).unwrap().unwrap();
            assert!(state.inventory.is_unused());
            fs::create_dir_all(paths.state().join("upgrade/one")).unwrap();
            state.discard().unwrap();
            assert_eq!(listing(root.path()), kept);
        }
    }

    #[test]
    fn a_directory_with_somebody_elses_file_or_a_journal_alone_is_not_unused() {
        for (name, content) in [("notes", ""), (Journal::FILE, ""), (Journal::FILE, "{}\n")] {
            let root = tempfile::tempdir().unwrap();
            let paths = Paths::new(root.path());
            fs::create_dir_all(paths.state()).unwrap();
            crate::host::fs::write_file(&paths.state().join(name), content.as_bytes(), 0o600).unwrap();
            assert!(matches!(State::open_or_create(&paths), Err(StateError::NoInventory { .. })), "{name}");
            assert!(
                matches!(State::open(&paths), Err(StateError::NoInventory { .. })),
                "{name}: neither the next time"
            );
        }
    }
}
