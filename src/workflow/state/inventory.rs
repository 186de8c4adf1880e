//! What kubeboot has made on this machine, written down before it is made: `reset` removes this and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StateError;
use super::record::{self, RecordLog};
use crate::host::fs::FsError;
use crate::host::tree::Recorder;

/// A path that was not there before, as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Item {
    /// Where.
    pub path: PathBuf,
    /// What may be removed there.
    pub kind: Kind,
}

impl Item {
    /// A file or a link.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: Kind::File }
    }

    /// A directory that is removed when nothing is in it.
    pub fn dir(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: Kind::Dir }
    }

    /// A directory that is removed with everything in it.
    pub fn tree(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: Kind::Tree }
    }
}

/// What a recorded path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A file or a link.
    File,
    /// A directory whose content is recorded on its own; removed only when nothing else is in it.
    Dir,
    /// A directory that a component or the agent makes and fills: everything in it is ours.
    Tree,
}

/// One record of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Entry {
    /// The first record of every inventory.
    Opened {
        /// Version of this format; 1.
        format: u32,
        /// kubeboot's version.
        version: String,
        /// When.
        at: Timestamp,
        /// The directories made to hold it, the state directory last.
        dirs: Vec<PathBuf>,
    },
    /// These paths are about to be made, all or none.
    Batch {
        /// Number of the batch.
        id: u32,
        /// The paths, outermost first.
        items: Vec<Item>,
    },
    /// The paths of a batch have all been made.
    Committed {
        /// Which batch.
        id: u32,
    },
    /// The paths of a batch have been removed again.
    Undone {
        /// Which batch.
        id: u32,
    },
    /// Paths that are not there and that the agent, a component or a tool will make, now or later.
    Expected {
        /// The paths, outermost first.
        items: Vec<Item>,
    },
    /// An image that was not there is about to be pulled.
    Image {
        /// Address of the runtime it is pulled into; None for the default.
        runtime: Option<String>,
        /// Its reference.
        reference: String,
    },
    /// The agent will run containers.
    Containers {
        /// Address of the runtime; None for the default.
        runtime: Option<String>,
        /// Value of the label by which they are known.
        owner: String,
    },
    /// A kubelet will run pods.
    Sandboxes {
        /// The socket of its runtime, a `unix://` URL.
        socket: String,
        /// Ids of the sandboxes that were there before.
        before: Vec<String>,
    },
    /// A static pod of ours, for its logs where the directory of logs was there before.
    Pod {
        /// Namespace.
        namespace: String,
        /// Name with the node's suffix.
        name: String,
    },
    /// The static pods are a kubelet's, on a node that somebody else made: they are given back.
    Adopted,
    /// The service is about to be enabled or started.
    Service {
        /// Whether it was enabled before, so that it has to stay so.
        enabled_before: bool,
    },
}

/// The inventory of a machine.
#[derive(Debug)]
pub struct Inventory {
    log: RecordLog,
    entries: Vec<Entry>,
    paths: BTreeSet<PathBuf>,
}

impl Inventory {
    /// File name below the state directory.
    pub const FILE: &str = "inventory.json";

    /// Opens the inventory at `path` (on the host), or begins one with `first`.
    pub(super) fn open(path: &Path, first: Option<Entry>) -> Result<Self, StateError> {
        let (log, entries) = RecordLog::open(path)?;
        let mut inventory = Self { log, entries: Vec::new(), paths: BTreeSet::new() };
        entries.into_iter().for_each(|entry| inventory.take(entry));
        match (inventory.entries.is_empty(), first) {
            (true, Some(first)) => inventory.add(vec![first])?,
            (true, None) => return Err(StateError::NoInventory { path: path.to_owned() }),
            (false, _) => {}
        }
        Ok(inventory)
    }

    /// Opens one that may be damaged, for taking everything away: returns what makes no sense in it too, which is
    /// [`StateError::NoInventory`] where there is nothing at all.
    ///
    /// Where a record is lost, it may be the one that took a batch back: only batches count then that were completed.
    pub(super) fn open_leniently(path: &Path) -> Result<(Self, Vec<StateError>), StateError> {
        let (log, mut entries, mut errors) = RecordLog::open_leniently(path)?;
        if !errors.is_empty() {
            let done = |entry: &Entry| if let Entry::Committed { id } = entry { Some(*id) } else { None };
            let done: BTreeSet<u32> = entries.iter().filter_map(done).collect();
            entries.retain(|entry| !matches!(entry, Entry::Batch { id, .. } if !done.contains(id)));
        }
        if entries.is_empty() && errors.is_empty() {
            errors.push(StateError::NoInventory { path: path.to_owned() });
        }
        let mut inventory = Self { log, entries: Vec::new(), paths: BTreeSet::new() };
        inventory.assume(entries);
        Ok((inventory, errors))
    }

    /// Takes records for written that are in no file.
    pub(in crate::workflow) fn assume(&mut self, entries: Vec<Entry>) {
        entries.into_iter().for_each(|entry| self.take(entry));
    }

    /// Reads an inventory that is not to be changed.
    pub fn read(path: &Path) -> Result<Vec<Entry>, StateError> {
        record::read(path)
    }

    /// Every record, oldest first, without the batches that were undone.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let undone: BTreeSet<u32> =
            self.entries.iter().filter_map(|e| if let Entry::Undone { id } = e { Some(*id) } else { None }).collect();
        self.entries.iter().filter(move |entry| match entry {
            Entry::Batch { id, .. } | Entry::Committed { id } | Entry::Undone { id } => !undone.contains(id),
            _ => true,
        })
    }

    /// Every path that is recorded, in the order of making, each once.
    pub fn items(&self) -> Vec<&Item> {
        let mut seen = BTreeSet::new();
        let of = |entry| match entry {
            &Entry::Batch { ref items, .. } | &Entry::Expected { ref items } => items.as_slice(),
            _ => &[],
        };
        self.entries().flat_map(of).filter(|item| seen.insert((&item.path, item.kind == Kind::Tree))).collect()
    }

    /// Whether `path` is ours: recorded, or below a tree that is.
    pub fn contains(&self, path: &Path) -> bool {
        self.paths.contains(path)
            || self.items().iter().any(|item| item.kind == Kind::Tree && path.starts_with(&item.path))
    }

    /// Whether nothing at all has been recorded since it was opened.
    pub fn is_unused(&self) -> bool {
        self.entries().all(|entry| matches!(entry, Entry::Opened { .. }))
    }

    /// Records that `items` will be made, durably, and returns the batch's number. What is recorded already is left
    /// out.
    pub fn begin_batch(&mut self, items: Vec<Item>) -> Result<u32, StateError> {
        let id = 1 + self.entries.iter().filter(|entry| matches!(entry, Entry::Batch { .. })).count() as u32;
        self.add(vec![Entry::Batch { id, items }])?;
        Ok(id)
    }

    /// Records that a batch is complete.
    pub fn commit_batch(&mut self, id: u32) -> Result<(), StateError> {
        self.add(vec![Entry::Committed { id }])
    }

    /// Records that a batch's paths are gone again.
    pub fn undo_batch(&mut self, id: u32) -> Result<(), StateError> {
        self.add(vec![Entry::Undone { id }])
    }

    /// The batch that was begun and neither completed nor undone, because its process died.
    pub fn open_batch(&self) -> Option<(u32, Vec<Item>)> {
        match self
            .entries
            .iter()
            .rfind(|e| matches!(e, Entry::Batch { .. } | Entry::Committed { .. } | Entry::Undone { .. }))
        {
            Some(Entry::Batch { id, items }) => Some((*id, items.clone())),
            _ => None,
        }
    }

    /// Records things other than batches; what is recorded already is left out.
    pub fn expect(&mut self, entries: Vec<Entry>) -> Result<(), StateError> {
        let mut new: Vec<Entry> = Vec::new();
        for entry in entries {
            let entry = match entry {
                Entry::Expected { items } => {
                    Entry::Expected { items: items.into_iter().filter(|item| !self.contains(&item.path)).collect() }
                }
                other => other,
            };
            let empty = matches!(&entry, Entry::Expected { items } if items.is_empty());
            let service = matches!(entry, Entry::Service { .. })
                && self.entries.iter().any(|known| matches!(known, Entry::Service { .. }));
            if !empty && !service && !self.entries.contains(&entry) && !new.contains(&entry) {
                new.push(entry);
            }
        }
        if new.is_empty() { Ok(()) } else { self.add(new) }
    }

    fn add(&mut self, entries: Vec<Entry>) -> Result<(), StateError> {
        self.log.append_durably(&entries)?;
        entries.into_iter().for_each(|entry| self.take(entry));
        Ok(())
    }

    fn take(&mut self, entry: Entry) {
        if let Entry::Batch { items, .. } | Entry::Expected { items } = &entry {
            self.paths.extend(items.iter().map(|item| item.path.clone()));
        }
        self.entries.push(entry);
    }
}

/// For writers that make one file at a time: each is a record of its own. What a command makes on a node that was taken
/// over (a manifest that was away while etcd was replaced) is the node's, and stays when it is given back.
impl Recorder for &mut Inventory {
    fn will_create(&mut self, path: &Path, is_dir: bool) -> Result<(), FsError> {
        if self.entries.contains(&Entry::Adopted) {
            return Ok(());
        }
        let item = if is_dir { Item::dir(path) } else { Item::file(path) };
        self.expect(vec![Entry::Expected { items: vec![item] }])
            .map_err(|error| FsError::new("record", path, std::io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Entry {
        Entry::Opened { format: 1, version: "0".into(), at: Timestamp::UNIX_EPOCH, dirs: vec![] }
    }

    #[test]
    fn a_batch_that_was_begun_and_not_completed_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inventory");
        let mut inventory = Inventory::open(&path, Some(first())).unwrap();
        let one = inventory.begin_batch(vec![Item::dir("/a"), Item::file("/a/b")]).unwrap();
        inventory.commit_batch(one).unwrap();
        inventory.begin_batch(vec![Item::file("/a/c")]).unwrap();
        drop(inventory);

        let mut inventory = Inventory::open(&path, None).unwrap();
        let (two, items) = inventory.open_batch().unwrap();
        assert_eq!(items, [Item::file("/a/c")]);
        inventory.undo_batch(two).unwrap();
        assert_eq!(inventory.open_batch(), None);
        assert_eq!(inventory.items(), [&Item::dir("/a"), &Item::file("/a/b")]);
    }

    #[test]
    fn what_is_below_a_tree_is_ours_and_what_is_below_a_directory_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut inventory = Inventory::open(&dir.path().join("i"), Some(first())).unwrap();
        let items = vec![Item::dir("/etc/kubernetes"), Item::tree("/var/lib/etcd")];
        inventory.expect(vec![Entry::Expected { items }]).unwrap();
        assert!(inventory.contains(Path::new("/var/lib/etcd/member/wal")));
        assert!(inventory.contains(Path::new("/etc/kubernetes")));
        assert!(!inventory.contains(Path::new("/etc/kubernetes/mine")));
    }

    #[test]
    fn the_same_thing_is_recorded_once_and_the_service_as_it_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        let mut inventory = Inventory::open(&path, Some(first())).unwrap();
        for enabled_before in [false, true] {
            let items = vec![Item::file("/x")];
            let service = Entry::Service { enabled_before };
            inventory.expect(vec![Entry::Expected { items }, service]).unwrap();
        }
        assert_eq!(Inventory::read(&path).unwrap().len(), 3);
        assert!(inventory.entries().any(|e| *e == Entry::Service { enabled_before: false }));
    }

    #[test]
    fn where_a_record_is_lost_only_batches_count_that_were_completed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        let mut inventory = Inventory::open(&path, Some(first())).unwrap();
        let one = inventory.begin_batch(vec![Item::file("/ours")]).unwrap();
        inventory.commit_batch(one).unwrap();
        let two = inventory.begin_batch(vec![Item::file("/undone")]).unwrap();
        inventory.undo_batch(two).unwrap();
        drop(inventory);
        let (whole, wrong) = Inventory::open_leniently(&path).unwrap();
        assert_eq!((whole.items(), wrong.len()), (vec![&Item::file("/ours")], 0));

        let text = std::fs::read_to_string(&path).unwrap().replace("\"undone\"", "\"lost\"");
        crate::host::fs::write_file(&path, text.as_bytes(), 0o600).unwrap();
        let (damaged, wrong) = Inventory::open_leniently(&path).unwrap();
        assert_eq!(damaged.items(), [&Item::file("/ours")], "somebody else may have made the other since");
        assert!(matches!(&wrong[..], [StateError::Record { line: 5, .. }]), "{wrong:?}");
        assert!(Inventory::open(&path, None).is_err());
    }
}
