//! Files of a phase, made in memory first and then written as one batch: the inventory knows all of them before the
//! first one exists, and a batch that was cut short is taken back whole, so that a later run never meets half a key
//! pair.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::state::StateError;
use super::state::inventory::{Inventory, Item, Kind};
use crate::host::Paths;
use crate::host::fs::{FsError, NewFile, Written, link_end};
use crate::host::tree::{MemoryTree, Tree};

/// Why a batch could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The inventory could not be kept.
    #[error("cannot keep the inventory")]
    State(#[from] StateError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FsError),
}

impl CommitError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::File(error) | Self::State(StateError::File(error)) => error.is_full(),
            Self::State(_) => false,
        }
    }
}

/// The paths in `staged` that are not there yet, outermost first.
pub fn new_paths(staged: &MemoryTree, tree: &dyn Tree) -> Vec<Item> {
    let mut items = Vec::new();
    let mut seen = BTreeSet::new();
    let dirs = staged.dirs().keys().flat_map(|dir| dir.ancestors());
    let above_files = staged.files().keys().filter_map(|file| file.parent()).flat_map(Path::ancestors);
    let missing: BTreeSet<&Path> = dirs.chain(above_files).filter(|dir| !tree.exists(dir)).collect();
    for dir in missing {
        seen.insert(dir);
        items.push(Item::dir(dir));
    }
    // A link that was there is not ours, wherever it leads.
    items.extend(staged.files().keys().filter(|file| !tree.is_taken(file)).map(Item::file));
    items
}

/// The files in `staged` that are there with another content.
pub fn changed_paths(staged: &MemoryTree, tree: &dyn Tree) -> Result<Vec<PathBuf>, FsError> {
    let mut changed = Vec::new();
    for (path, file) in staged.files() {
        if tree.read(path)?.is_some_and(|there| there != file.content) {
            changed.push(path.clone());
        }
    }
    Ok(changed)
}

/// Writes what was staged; returns whether anything was not in place before.
///
/// When a write fails, what this batch made is removed again.
pub fn commit(
    staged: &MemoryTree,
    tree: &mut dyn Tree,
    inventory: &mut Inventory,
    paths: &Paths,
) -> Result<bool, CommitError> {
    let items = new_paths(staged, tree);
    let batch = if items.is_empty() { None } else { Some(inventory.begin_batch(items.clone())?) };
    match (write(staged, tree), batch) {
        (Ok(changed), Some(id)) => {
            inventory.commit_batch(id)?;
            Ok(changed)
        }
        (Ok(changed), None) => Ok(changed),
        (Err(error), None) => Err(error.into()),
        (Err(error), Some(id)) => {
            // What cannot be taken back now is taken back by the next run, or by reset.
            if remove_batch(&items, paths).is_ok() {
                let _ = inventory.undo_batch(id);
            }
            Err(error.into())
        }
    }
}

/// Takes back the batch that a killed process left half made, if there is one, and the files it left aside.
pub fn recover(inventory: &mut Inventory, paths: &Paths) -> Result<bool, CommitError> {
    let items = inventory.items();
    let trees: Vec<&Path> =
        items.iter().filter(|item| item.kind == Kind::Tree).map(|item| item.path.as_path()).collect();
    // An agent that runs may be writing below a tree at this moment.
    let is_ours_alone = |dir: &&Path| !trees.iter().any(|tree| dir.starts_with(tree));
    let dirs: BTreeSet<&Path> = items.iter().filter_map(|item| item.path.parent()).filter(is_ours_alone).collect();
    for dir in dirs {
        remove_temporaries(&paths.on_host(dir))?;
    }
    // A file that is kept elsewhere was written there.
    let links = items.iter().map(|item| paths.on_host(&item.path)).filter(|path| path.is_symlink());
    for end in links.filter_map(|link| link_end(&link).ok()) {
        end.parent().map_or(Ok(()), remove_temporaries)?;
    }
    let Some((id, items)) = inventory.open_batch() else { return Ok(false) };
    remove_batch(&items, paths)?;
    inventory.undo_batch(id)?;
    Ok(true)
}

/// Writes what was staged and records nothing; returns whether anything was not in place before.
///
/// # Errors
/// A file that cannot be written; what was written before it stays.
pub fn write(staged: &MemoryTree, tree: &mut dyn Tree) -> Result<bool, FsError> {
    let mut changed = false;
    for (dir, mode) in staged.dirs() {
        changed |= !tree.exists(dir);
        tree.make_dir(dir, *mode)?;
    }
    let files: Vec<_> =
        staged.files().iter().map(|(path, f)| NewFile { path, content: &f.content, mode: f.mode }).collect();
    Ok(tree.write_all(&files)?.iter().any(|written| *written != Written::Same) || changed)
}

fn remove_batch(items: &[Item], paths: &Paths) -> Result<(), FsError> {
    for item in items.iter().rev() {
        let path = paths.on_host(&item.path);
        match item.kind {
            Kind::File => drop(crate::host::fs::remove_file(&path)?),
            Kind::Dir | Kind::Tree => {
                remove_temporaries(&path)?;
                // A directory somebody else has put something into since then is theirs.
                let _ = std::fs::remove_dir(&path);
            }
        }
    }
    // Files written into directories that were there before leave their temporaries in those.
    for dir in items.iter().filter_map(|item| item.path.parent()).collect::<BTreeSet<_>>() {
        remove_temporaries(&paths.on_host(dir))?;
    }
    Ok(())
}

/// Removes what [`crate::host::fs::write_file`] leaves in a directory when it is killed before its rename.
pub fn remove_temporaries(dir: &Path) -> Result<(), FsError> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_ours =
            entry.file_name().to_str().is_some_and(|name| name.starts_with(crate::host::fs::TEMPORARY_PREFIX));
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            crate::host::fs::remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Moves files from one directory to another: each is whole in the one before it leaves the other. What a run that was
/// killed while it copied has left in either goes.
///
/// # Errors
/// A file that cannot be read, written or removed; the same call goes on from there.
pub fn transfer(paths: &Paths, tree: &mut dyn Tree, names: &[String], from: &str, to: &str) -> Result<(), FsError> {
    let files: Vec<(PathBuf, PathBuf)> =
        names.iter().map(|name| (Path::new(from).join(name), Path::new(to).join(name))).collect();
    for dir in [from, to] {
        remove_temporaries(&paths.on_host(dir))?;
    }
    // All copies first: what watches the other directory sees all go at once.
    for (from, to) in &files {
        let Some(content) = tree.read(from)? else { continue };
        let meta = paths.on_host(from).metadata().map_err(|e| FsError::new("look at", from, e))?;
        tree.write(to, &content, meta.permissions().mode() & 0o7777)?;
    }
    for (from, to) in &files {
        if tree.exists(to) {
            tree.remove(from)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::{HostTree, NoRecord};
    use crate::testing::listing;
    use crate::testing::tree::FaultyTree;
    use crate::workflow::state::State;

    fn staged(paths: &Paths) -> MemoryTree {
        let mut tree = MemoryTree::staging(paths.clone());
        tree.make_dir(Path::new("/etc/k/closed"), 0o700).unwrap();
        tree.write(Path::new("/etc/k/closed/ca.crt"), b"c", 0o644).unwrap();
        tree.write(Path::new("/etc/k/closed/ca.key"), b"k", 0o600).unwrap();
        tree.write(Path::new("/etc/there"), b"new", 0o644).unwrap();
        tree
    }

    fn machine() -> (tempfile::TempDir, Paths, State) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut tree = HostTree::new(paths.clone(), NoRecord);
        tree.write(Path::new("/etc/there"), b"old", 0o644).unwrap();
        let state = State::open_or_create(&paths).unwrap();
        (root, paths, state)
    }

    #[test]
    fn only_what_was_not_there_is_recorded_and_a_second_commit_changes_nothing() {
        let (root, paths, mut state) = machine();
        let mut tree = HostTree::new(paths.clone(), NoRecord);
        let staged = staged(&paths);
        assert_eq!(changed_paths(&staged, &tree).unwrap(), [Path::new("/etc/there")]);
        assert!(commit(&staged, &mut tree, &mut state.inventory, &paths).unwrap());
        assert!(!commit(&staged, &mut tree, &mut state.inventory, &paths).unwrap());
        let recorded: Vec<_> = state.inventory.items().iter().map(|item| item.path.display().to_string()).collect();
        assert_eq!(recorded, ["/etc/k", "/etc/k/closed", "/etc/k/closed/ca.crt", "/etc/k/closed/ca.key"]);
        let mode = std::fs::metadata(root.path().join("etc/k/closed")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_write_that_fails_takes_the_whole_batch_back() {
        for fail_at in 1..=4 {
            let (root, paths, mut state) = machine();
            let before = listing(root.path());
            let mut tree = FaultyTree::new(HostTree::new(paths.clone(), NoRecord));
            tree.fail_at(fail_at);
            commit(&staged(&paths), &mut tree, &mut state.inventory, &paths).unwrap_err();
            assert_eq!(listing(root.path()), before, "operation {fail_at}");
            assert!(state.inventory.is_unused(), "operation {fail_at}");
        }
    }

    #[test]
    fn a_batch_of_a_killed_process_is_taken_back_by_the_next_one() {
        let (root, paths, mut state) = machine();
        let before = listing(root.path());
        let mut tree = HostTree::new(paths.clone(), NoRecord);
        let staged = staged(&paths);
        state.inventory.begin_batch(new_paths(&staged, &tree)).unwrap();
        tree.write(Path::new("/etc/k/closed/ca.crt"), b"c", 0o644).unwrap();
        tree.write(Path::new("/etc/k/closed/.kubeboot-a1b2"), b"half", 0o600).unwrap();
        assert!(recover(&mut state.inventory, &paths).unwrap());
        assert!(!recover(&mut state.inventory, &paths).unwrap());
        assert_eq!(listing(root.path()), before);
    }
}
