//! Snapshots of etcd's data: taken while it serves, piece by piece into a file, and checked.
//!
//! A snapshot is the file of the database, which is a multiple of 512 bytes long, and behind it the SHA-256 of that: what
//! `etcdctl snapshot save` writes and `etcdctl snapshot restore` reads.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use tokio::sync::mpsc;

use super::{EtcdError, Maintenance, Minor, Pieces};
use crate::host::digest::{Sha256, hex};
use crate::host::disk::Disk;
use crate::host::fs::FsError;
use crate::host::staged::StagedFile;

/// It holds every secret of the cluster.
const MODE: u32 = 0o600;
/// What stays free on the file system: that may be etcd's own, whose log takes so much for its next segment, and without
/// room etcd ends.
const SPARE: u64 = 64 << 20;
/// Pieces of 32 KiB that wait for the disk.
const WAITING: usize = 64;
/// Bytes of the hash at the end of a snapshot, behind the database.
pub const HASH: usize = Sha256::SIZE;
/// What a database's size is a multiple of.
const SECTOR: u64 = 512;
/// Where a database says that it is one: behind the header of its first page.
const MAGIC_AT: usize = 16;
/// What it says there.
const MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();
const MIB: u64 = 1 << 20;

/// A whole snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of the file, with the hash at its end.
    pub size: u64,
    /// The SHA-256 of the database, in hexadecimal.
    pub sha256: String,
}

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The file.
    pub snapshot: Snapshot,
    /// The version of the etcd that sent it: `3.6.8`.
    pub version: String,
    /// The format of the data; None before etcd 3.6, which does not say.
    pub storage: Option<Minor>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// etcd does not send one.
    #[error("cannot take a snapshot of etcd")]
    Etcd(#[from] EtcdError),
    /// It would not fit.
    #[error(
        "the snapshot of etcd needs {} MiB in {}, where {} MiB are free: make room there, or save it elsewhere",
        need.div_ceil(MIB), path.display(), free / MIB
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Bytes, with those that have to stay free.
        need: u64,
        /// Bytes.
        free: u64,
    },
    /// The disk was filled meanwhile.
    #[error(
        "the file system of {} is full after {written} of the {size} bytes of etcd's snapshot, of which nothing is kept: \
         make room there, or save it elsewhere", path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes that were written.
        written: u64,
        /// Bytes that it would have had.
        size: u64,
        /// What the system said.
        #[source]
        source: FsError,
    },
    /// etcd went away over it.
    #[error(
        "etcd's snapshot for {} ended after {received} of {size} bytes, of which nothing is kept: see that etcd runs, and \
         take it again", path.display()
    )]
    Cut {
        /// The file that it was for.
        path: PathBuf,
        /// Bytes that came.
        received: u64,
        /// Bytes that should have come.
        size: u64,
        /// What was said, if anything.
        #[source]
        source: Option<EtcdError>,
    },
    /// It is none, or not the one that was sent.
    #[error("{} is no whole snapshot of etcd: {damage}; take another one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        damage: Damage,
    },
    /// It cannot be written or read.
    #[error(transparent)]
    File(#[from] FsError),
    /// The thread that writes ended early.
    #[error("writing the snapshot {} ended early", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// What is wrong with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Bytes are missing, or too many.
    #[error("it has {size} bytes, and a database with its SHA-256 behind it has 32 more than a multiple of 512")]
    Size {
        /// Bytes that it has.
        size: u64,
    },
    /// The bytes are others than those that were sent.
    #[error("the SHA-256 at its end is {stated}, that of its content {found}")]
    Hash {
        /// In hexadecimal.
        stated: String,
        /// In hexadecimal.
        found: String,
    },
    /// It is something else.
    #[error("it does not begin as a database of etcd does")]
    Kind,
}

/// Has `etcd` send a snapshot into the file `path`, in its place only once it is whole and durable: what was there before
/// stays until then. Needs a few MiB of memory whatever the size. The file's directory must exist, and room is left there
/// for etcd itself.
///
/// # Errors
/// [`SnapshotError`]; nothing of the snapshot is there then. Dropping the future leaves nothing either, or all of it.
pub async fn save(etcd: &dyn Maintenance, disk: &mut dyn Disk, path: &Path) -> Result<Saved, SnapshotError> {
    let status = etcd.status().await?;
    // What a killed one has left there goes with this, and its room counts.
    let begun = StagedFile::create(path, MODE)?;
    room(disk, path, status.db_size)?;
    let pieces = etcd.snapshot().await?;
    let (send, receive) = mpsc::channel(WAITING);
    let writer = tokio::task::spawn_blocking(move || write(begun, receive));
    let sent = pass(pieces, &send, disk, path).await;
    drop(send);
    let thread = |source| SnapshotError::Thread { path: path.to_owned(), source };
    let written = writer.await.map_err(thread)?;
    let full = |written: u64, size: u64, source: FsError| match source.is_full() {
        true => SnapshotError::Full { path: path.to_owned(), written, size, source },
        false => source.into(),
    };
    let (size, storage) = match sent? {
        Sent::Whole { size, storage } => (size, storage),
        // The disk's error says why.
        Sent::NotTaken { size } => match written {
            Err((at, source)) => return Err(full(at, size, source)),
            Ok((_, check)) => return Err(cut(path, check.size, size, None)),
        },
    };
    let (staged, check) = written.map_err(|(at, source)| full(at, size, source))?;
    let snapshot = check.finish().map_err(|damage| SnapshotError::Damaged { path: path.to_owned(), damage })?;
    let placed = tokio::task::spawn_blocking(move || staged.place()).await.map_err(thread)?;
    placed.map_err(|source| full(snapshot.size, size, source))?;
    Ok(Saved { snapshot, version: status.version, storage })
}

/// Looks at a file: size, hash, and whether it is a database at all.
///
/// # Errors
/// [`SnapshotError::Damaged`], or the file cannot be read.
pub fn check(path: &Path) -> Result<Snapshot, SnapshotError> {
    let fail = |e| FsError::new("read", path, e);
    let mut file = File::open(path).map_err(fail)?;
    let (mut check, mut buffer) = (Check::default(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => break,
            read => check.take(&buffer[..read]),
        }
    }
    check.finish().map_err(|damage| SnapshotError::Damaged { path: path.to_owned(), damage })
}

/// Takes the database out of the snapshot in the file `path`, into the file `to`, whose directory must exist. With
/// `unchecked` the file may also be a database without a hash, as one copied from a data directory is, and a hash may be wrong.
///
/// # Errors
/// [`SnapshotError::Damaged`], or a file cannot be read or written; nothing is left at `to` then.
pub fn extract(path: &Path, to: &Path, unchecked: bool) -> Result<(), SnapshotError> {
    let fail = |e| FsError::new("read", path, e);
    let damaged = |damage| SnapshotError::Damaged { path: path.to_owned(), damage };
    let mut file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let hash = match size % SECTOR {
        0 if unchecked => 0,
        rest if rest == HASH as u64 => HASH as u64,
        _ => return Err(damaged(Damage::Size { size })),
    };
    let (mut staged, mut check) = (StagedFile::create(to, MODE)?, Check::default());
    let (mut left, mut buffer) = (size - hash, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(fail)?;
        if read == 0 {
            break;
        }
        check.take(&buffer[..read]);
        let own = read.min(usize::try_from(left).unwrap_or(read));
        staged.write(&buffer[..own])?;
        left -= own as u64;
    }
    if !unchecked {
        check.finish().map_err(damaged)?;
    }
    Ok(staged.place()?)
}

fn room(disk: &dyn Disk, path: &Path, size: u64) -> Result<(), SnapshotError> {
    let (need, free) = (size.saturating_add(SPARE), disk.free(path)?);
    match free < need {
        true => Err(SnapshotError::NoRoom { path: path.to_owned(), need, free }),
        false => Ok(()),
    }
}

fn cut(path: &Path, received: u64, size: u64, source: Option<EtcdError>) -> SnapshotError {
    SnapshotError::Cut { path: path.to_owned(), received, size, source }
}

/// What was passed on to the writer.
enum Sent {
    /// Everything.
    Whole { size: u64, storage: Option<Minor> },
    /// Not everything: the writer has ended.
    NotTaken { size: u64 },
}

/// Passes what etcd sends on to the writer. The size is known from the first piece on.
async fn pass(
    mut pieces: Pieces,
    send: &mpsc::Sender<Vec<u8>>,
    disk: &mut dyn Disk,
    path: &Path,
) -> Result<Sent, SnapshotError> {
    let (mut received, mut size, mut storage) = (0_u64, None, None);
    while let Some(piece) = pieces.next().await {
        let known = size.unwrap_or_default();
        let piece = piece.map_err(|error| cut(path, received, known, Some(error)))?;
        let length = piece.bytes.len() as u64;
        let size = match size {
            Some(size) => size,
            None => {
                let whole = length.saturating_add(piece.remaining).saturating_add(HASH as u64);
                // It may have grown since its status was asked for.
                room(disk, path, whole)?;
                *size.insert(whole)
            }
        };
        storage = storage.or(piece.storage);
        received = received.saturating_add(length);
        // One that cannot read its own file sends empty pieces for ever.
        if received > size || (length == 0 && piece.remaining > 0) {
            return Err(cut(path, received, size, None));
        }
        if send.send(piece.bytes).await.is_err() {
            return Ok(Sent::NotTaken { size });
        }
    }
    match size {
        Some(size) if size == received => Ok(Sent::Whole { size, storage }),
        size => Err(cut(path, received, size.unwrap_or_default(), None)),
    }
}

/// Writes what comes until no more does; with an error goes how many bytes were written before.
fn write(mut staged: StagedFile, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<(StagedFile, Check), (u64, FsError)> {
    let mut check = Check::default();
    while let Some(bytes) = pieces.blocking_recv() {
        staged.write(&bytes).map_err(|error| (check.size, error))?;
        check.take(&bytes);
    }
    Ok((staged, check))
}

/// What is known of a snapshot's bytes so far.
#[derive(Default)]
struct Check {
    size: u64,
    /// The first bytes, as far as they say what it is.
    head: Vec<u8>,
    /// Of everything but the tail.
    hash: Sha256,
    /// The last bytes, which are the hash in the end.
    tail: Vec<u8>,
}

impl Check {
    fn take(&mut self, bytes: &[u8]) {
        self.size = self.size.saturating_add(bytes.len() as u64);
        let missing = (MAGIC_AT + MAGIC.len()).saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        self.tail.extend_from_slice(bytes);
        let sure = self.tail.len().saturating_sub(HASH);
        self.hash.update(&self.tail[..sure]);
        self.tail.drain(..sure);
    }

    fn finish(self) -> Result<Snapshot, Damage> {
        let Self { size, head, hash, tail } = self;
        if size % SECTOR != HASH as u64 {
            return Err(Damage::Size { size });
        }
        let found = hash.finish();
        if found != tail {
            return Err(Damage::Hash { stated: hex(&tail), found: hex(&found) });
        }
        match head.get(MAGIC_AT..) {
            Some(magic) if magic == MAGIC => Ok(Snapshot { size, sha256: hex(&found) }),
            _ => Err(Damage::Kind),
        }
    }
}

#[cfg(test)]
mod tests;
