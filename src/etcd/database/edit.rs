//! Changes of small parts of a database that no etcd has open.
//!
//! What is changed is written on new pages behind all others, and a new head names them: until the head is written the
//! database is as it was. The pages that they take the place of are free afterwards, for the new head has no list of free
//! pages, as in every database of etcd, and they are found when the database is opened.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::page::{self, Item, Kind, Meta, NewItem, Page};
use super::{DEEPEST, Database, DatabaseError, Items, Place, place};
use crate::host::fs::FsError;
use crate::host::sync::sync_file;

/// Of a page, how much a bucket may have that stands in its value: as bbolt decides.
const INLINE: u64 = 4;

/// A database that is changed.
pub struct Edit {
    database: Database,
    file: File,
    /// The buckets.
    root: Items,
    /// New pages by their numbers.
    pages: Vec<(u64, Vec<u8>)>,
    /// The next number.
    next: u64,
}

impl Edit {
    /// Opens the database in the file `path`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let database = Database::open(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| FsError::new("write", path, e))?;
        Ok(Self { root: database.buckets()?, pages: vec![], next: database.meta.pages, database, file })
    }

    /// The error for what is wrong with it.
    pub(in crate::etcd) fn damaged(&self, damage: String) -> DatabaseError {
        self.database.damaged(damage)
    }

    /// What the bucket `name` has, which is small.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn small_bucket(&self, name: &str) -> Result<Items, DatabaseError> {
        self.database.small_bucket(name)
    }

    /// The last key of the bucket `name`; None where it has none.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn last_key(&self, name: &str) -> Result<Option<Vec<u8>>, DatabaseError> {
        let Some((_, value)) = self.root.iter().find(|(found, _)| found == name.as_bytes()) else { return Ok(None) };
        let damaged = |damage| self.database.damaged(damage);
        let mut page = match place(value).map_err(damaged)? {
            Place::Inline(bytes) => Page::new(bytes.to_vec(), None).map_err(damaged)?,
            Place::Page(root) => self.database.page(root)?,
        };
        for _ in 0..DEEPEST {
            let Some(last) = page.count.checked_sub(1) else { return Ok(None) };
            page = match page.kind {
                Kind::Leaf => return Ok(Some(page.item(last).map_err(damaged)?.key.to_vec())),
                Kind::Branch => self.database.page(page.branch(last).map_err(damaged)?.1)?,
            };
        }
        Err(damaged("its pages go round in a circle".into()))
    }

    /// Gives the bucket `name` other keys, in ascending order; it is made where it is not there.
    ///
    /// # Errors
    /// They are more than a page can count.
    pub fn replace(&mut self, name: &str, items: &[(Vec<u8>, Vec<u8>)]) -> Result<(), DatabaseError> {
        let items: Vec<_> = items.iter().map(|(key, value)| NewItem { key, value, is_bucket: false }).collect();
        let too_much = || self.database.damaged(format!("bucket {name} would be too large"));
        let inline = page::leaf(0, None, &items).ok_or_else(too_much)?;
        let value = match inline.len() as u64 > self.database.meta.page_size / INLINE {
            false => [vec![0; 16], inline].concat(),
            true => {
                let size = Some(self.database.meta.page_size);
                let whole = page::leaf(self.next, size, &items).ok_or_else(too_much)?;
                header(self.add(whole), &[])
            }
        };
        self.set(name, value);
        Ok(())
    }

    /// Adds a key behind all others of the bucket `name`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn append(&mut self, name: &str, key: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        let bucket = self.root.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| value.clone());
        let bucket = bucket.ok_or_else(|| self.database.damaged(format!("there is no bucket {name}")))?;
        match place(&bucket).map_err(|damage| self.database.damaged(damage))? {
            Place::Inline(_) => {
                let mut items = self.small_bucket(name)?;
                items.push((key.to_vec(), value.to_vec()));
                self.replace(name, &items)
            }
            Place::Page(root) => {
                let root = self.append_below(root, DEEPEST, key, value)?;
                self.set(name, header(root, &bucket[8..16]));
                Ok(())
            }
        }
    }

    /// The page that takes the place of `number`, with one more key at the end of it or of what is below.
    fn append_below(&mut self, number: u64, depth: usize, key: &[u8], value: &[u8]) -> Result<u64, DatabaseError> {
        let page = self.database.page(number)?;
        let size = self.database.meta.page_size;
        let bytes = match page.kind {
            Kind::Leaf => {
                let items: Result<Vec<Item<'_>>, String> = (0..page.count).map(|at| page.item(at)).collect();
                let items = items.map_err(|damage| self.database.damaged(damage))?;
                let old = items.iter().map(|it| NewItem { key: it.key, value: it.value, is_bucket: it.is_bucket });
                let items: Vec<_> = old.chain([NewItem { key, value, is_bucket: false }]).collect();
                page::leaf(self.next, Some(size), &items)
            }
            Kind::Branch => {
                let items: Result<Vec<_>, String> =
                    (0..page.count).map(|at| page.branch(at).map(|(key, child)| (key.to_vec(), child))).collect();
                let mut items = items.map_err(|damage| self.database.damaged(damage))?;
                let circle = || "its pages go round in a circle, or end nowhere".to_owned();
                let depth = depth.checked_sub(1).ok_or_else(|| self.database.damaged(circle()))?;
                let Some((_, last)) = items.last_mut() else { return Err(self.database.damaged(circle())) };
                *last = self.append_below(*last, depth, key, value)?;
                page::branch(self.next, size, &items)
            }
        };
        let bytes = bytes.ok_or_else(|| self.database.damaged(format!("page {number} would be too large")))?;
        Ok(self.add(bytes))
    }

    /// Writes what was changed, durably.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn write(mut self) -> Result<(), DatabaseError> {
        let Meta { page_size, transaction, sequence, .. } = self.database.meta;
        let buckets = self.root.iter().map(|(key, value)| NewItem { key, value, is_bucket: true });
        let root = page::leaf(self.next, Some(page_size), &buckets.collect::<Vec<_>>());
        let root = root.ok_or_else(|| self.database.damaged("its root would be too large".into()))?;
        let root = self.add(root);
        let path = self.database.path.as_path();
        let fail = |e| FsError::new("write", path, e);
        self.file.set_len(self.next * page_size).map_err(fail)?;
        for (number, bytes) in &self.pages {
            self.file.write_all_at(bytes, number * page_size).map_err(fail)?;
        }
        sync_file(&self.file, path)?;
        let meta = Meta { page_size, root, sequence, pages: self.next, transaction: transaction + 1 };
        let (number, bytes) = meta.encode();
        self.file.write_all_at(&bytes, number * page_size).map_err(fail)?;
        Ok(sync_file(&self.file, path)?)
    }

    fn set(&mut self, name: &str, value: Vec<u8>) {
        match self.root.binary_search_by(|(found, _)| found.as_slice().cmp(name.as_bytes())) {
            Ok(at) => self.root[at].1 = value,
            Err(at) => self.root.insert(at, (name.as_bytes().to_vec(), value)),
        }
    }

    /// Adds a page, and returns its number.
    fn add(&mut self, bytes: Vec<u8>) -> u64 {
        let number = self.next;
        self.next += bytes.len() as u64 / self.database.meta.page_size;
        self.pages.push((number, bytes));
        number
    }
}

/// The value of a bucket whose keys are on the page `root`; its counter goes on from `sequence`.
fn header(root: u64, sequence: &[u8]) -> Vec<u8> {
    let mut value = root.to_le_bytes().to_vec();
    value.extend_from_slice(sequence);
    value.resize(16, 0);
    value
}
