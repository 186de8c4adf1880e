//! The file of etcd's database, read without etcd: pages of a B+ tree in the second and only format of bbolt, whose
//! documentation of it is its source (`internal/common/page.go` and `meta.go`).
//!
//! A file is a row of pages. The first two are metas, written in turn: the one with a valid checksum and the later
//! transaction counts. It names the page of the root bucket, whose values are the other buckets; a small bucket stands in its
//! value. Whatever is not as it has to be is an error: pages of their own number, keys that ascend, lengths within pages.

mod edit;
mod page;
mod summary;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::host::fs::FsError;

pub use edit::Edit;
use page::{Item, Kind, META, Meta, Page};
pub use summary::{Summary, summary};
pub(super) use summary::{crc32c, revision_of};

/// How deep a tree may be: one of a hundred terabytes has a depth of eight.
const DEEPEST: usize = 32;
/// Sizes of pages, one of which the machine had on which the database was made.
const PAGE_SIZES: [u64; 5] = [4096, 8192, 16 << 10, 32 << 10, 64 << 10];

/// A database.
#[derive(Debug)]
pub struct Database {
    file: File,
    path: PathBuf,
    meta: Meta,
}

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// Its content is none.
    #[error("{} is no sound database of etcd: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        damage: String,
    },
}

/// Keys and their values, in ascending order.
pub type Items = Vec<(Vec<u8>, Vec<u8>)>;

/// What visits keys: the key and the value, in ascending order. An error ends the visit.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>;

/// Where a bucket's keys are.
enum Place<'a> {
    /// In a tree of their own, from this page on.
    Page(u64),
    /// In the value of the bucket.
    Inline(&'a [u8]),
}

/// Where the keys of the bucket with this value are.
fn place(value: &[u8]) -> Result<Place<'_>, String> {
    let (root, rest) = value.split_first_chunk::<8>().ok_or("a bucket without a header")?;
    let page = rest.get(8..).ok_or("a bucket without a header")?;
    Ok(match u64::from_le_bytes(*root) {
        0 => Place::Inline(page),
        root => Place::Page(root),
    })
}

impl Database {
    /// Opens the database in the file `path`. What stands behind its last page is not looked at, so that a snapshot, with its
    /// hash, can be opened too.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let fail = |e| FsError::new("read", path, e);
        let file = File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        let mut metas = Vec::new();
        // The second meta is in the second page, whose size only a sound first one tells.
        for at in [0].into_iter().chain(PAGE_SIZES) {
            let mut bytes = [0; META];
            if at + META as u64 <= size {
                file.read_exact_at(&mut bytes, at).map_err(fail)?;
                metas.extend(Meta::decode(&bytes).filter(|meta| at == 0 || at == meta.page_size));
            }
        }
        let damaged = |damage: &str| DatabaseError::Damaged { path: path.to_owned(), damage: damage.to_owned() };
        let meta = metas.into_iter().max_by_key(|meta| meta.transaction);
        let meta = meta.ok_or_else(|| damaged("neither of its two heads is one"))?;
        if meta.pages.checked_mul(meta.page_size).is_none_or(|bytes| bytes > size) {
            return Err(damaged("its last pages are missing"));
        }
        Ok(Self { file, path: path.to_owned(), meta })
    }

    fn damaged(&self, damage: String) -> DatabaseError {
        DatabaseError::Damaged { path: self.path.clone(), damage }
    }

    /// The page with this number, and those that belong to it.
    fn page(&self, number: u64) -> Result<Page, DatabaseError> {
        let fail = |e| FsError::new("read", &self.path, e);
        let Meta { page_size, pages, .. } = self.meta;
        let mut head = [0; page::HEADER];
        if number < 2 || number >= pages {
            return Err(self.damaged(format!("there is no page {number}, which it names")));
        }
        self.file.read_exact_at(&mut head, number * page_size).map_err(fail)?;
        let more = u64::from(u32::from_le_bytes([head[12], head[13], head[14], head[15]]));
        if more >= pages - number {
            return Err(self.damaged(format!("page {number} is longer than the file")));
        }
        let length = usize::try_from((more + 1) * page_size).map_err(|_| self.damaged("a page is too long".into()))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, number * page_size).map_err(fail)?;
        Page::new(bytes, Some(number)).map_err(|damage| self.damaged(damage))
    }

    /// Visits every bucket by its name and value, in ascending order.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn buckets(&self) -> Result<Items, DatabaseError> {
        let mut all = Vec::new();
        let mut walk = Walk { database: self, last: None, pages: 0 };
        walk.tree(self.meta.root, DEEPEST, &mut |item| {
            if !item.is_bucket {
                return Err("something is in its root that is no bucket".into());
            }
            all.push((item.key.to_vec(), item.value.to_vec()));
            Ok(())
        })?;
        Ok(all)
    }

    /// Visits every key of a bucket, by the bucket's value.
    ///
    /// # Errors
    /// [`DatabaseError`], or that of `visit`.
    fn keys(&self, bucket: &[u8], visit: Visit<'_>) -> Result<(), DatabaseError> {
        let mut walk = Walk { database: self, last: None, pages: 0 };
        let mut each = |item: Item<'_>| match item.is_bucket {
            true => Err("a bucket is in a bucket".to_owned()),
            false => visit(item.key, item.value),
        };
        match place(bucket).map_err(|damage| self.damaged(damage))? {
            Place::Page(root) => walk.tree(root, DEEPEST, &mut each),
            Place::Inline(bytes) => {
                let page = Page::new(bytes.to_vec(), None).map_err(|damage| self.damaged(damage))?;
                walk.leaf(&page, &mut each)
            }
        }
    }

    /// Everything in the bucket `name`, which is small; nothing where there is no such bucket.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn small_bucket(&self, name: &str) -> Result<Items, DatabaseError> {
        let mut all = Vec::new();
        if let Some((_, value)) = self.buckets()?.into_iter().find(|(found, _)| found == name.as_bytes()) {
            self.keys(&value, &mut |key, value| {
                all.push((key.to_vec(), value.to_vec()));
                Ok(())
            })?;
        }
        Ok(all)
    }
}

/// A walk through one tree.
struct Walk<'a> {
    database: &'a Database,
    /// The key before.
    last: Option<Vec<u8>>,
    /// How many pages were seen: more than there are, and the tree has a circle.
    pages: u64,
}

impl Walk<'_> {
    fn tree(
        &mut self,
        number: u64,
        depth: usize,
        visit: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), DatabaseError> {
        self.pages += 1;
        if depth == 0 || self.pages > self.database.meta.pages {
            return Err(self.database.damaged("its pages go round in a circle".into()));
        }
        let page = self.database.page(number)?;
        match page.kind {
            Kind::Leaf => self.leaf(&page, visit),
            Kind::Branch => {
                for at in 0..page.count {
                    let (_, child) = page.branch(at).map_err(|damage| self.database.damaged(damage))?;
                    self.tree(child, depth - 1, visit)?;
                }
                Ok(())
            }
        }
    }

    fn leaf(
        &mut self,
        page: &Page,
        visit: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), DatabaseError> {
        for at in 0..page.count {
            let item = page.item(at).map_err(|damage| self.database.damaged(damage))?;
            if self.last.as_deref().is_some_and(|last| last >= item.key) {
                return Err(self.database.damaged("its keys do not ascend".into()));
            }
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(item.key);
            visit(item).map_err(|damage| self.database.damaged(damage))?;
        }
        Ok(())
    }
}
