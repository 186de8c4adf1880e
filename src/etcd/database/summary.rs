//! What is in a database, counted as `etcdutl snapshot status` counts it.

use std::collections::HashSet;
use std::path::Path;

use prost::Message;

use super::{Database, DatabaseError};
use crate::etcd::Minor;
use crate::etcd::proto::KeyName;
use crate::host::digest::Sha256;

/// The bucket of the keys, by their revisions.
pub(super) const KEYS: &[u8] = b"key";
/// The bucket of what etcd knows of the database itself.
pub(super) const META: &str = "meta";
/// Bytes of a revision: two numbers of eight with a `_` between them. A `t` behind them says that the key was deleted.
const REVISION: usize = 17;

/// What is in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// CRC-32C of all buckets' names, keys and values: the HASH of `etcdutl snapshot status`.
    pub hash: u32,
    /// The newest revision.
    pub revision: i64,
    /// Keys that are not deleted.
    pub keys: usize,
    /// Bytes of all pages.
    pub size: u64,
    /// The format of the data; None before etcd 3.6, which does not say.
    pub storage: Option<Minor>,
}

/// Reads all of the database in the file `path`, and checks its pages by that. Needs memory for its longest value, and some
/// bytes for each key.
///
/// # Errors
/// [`DatabaseError`].
pub fn summary(path: &Path) -> Result<Summary, DatabaseError> {
    let database = Database::open(path)?;
    let (mut hash, mut revision, mut storage) = (0, 0, None);
    let mut live: HashSet<[u8; 16]> = HashSet::new();
    for (name, bucket) in database.buckets()? {
        hash = crc32c(hash, &name);
        database.keys(&bucket, &mut |key, value| {
            hash = crc32c(crc32c(hash, key), value);
            if name == KEYS {
                let (main, is_deleted) = revision_of(key)?;
                revision = main;
                let named = name_of(value)?;
                if is_deleted {
                    live.remove(&named);
                } else {
                    live.insert(named);
                }
            } else if name == META.as_bytes() && key == b"storageVersion" {
                storage = std::str::from_utf8(value).ok().and_then(Minor::of);
            }
            Ok(())
        })?;
    }
    let size = database.meta.pages * database.meta.page_size;
    Ok(Summary { hash, revision, keys: live.len(), size, storage })
}

/// The revision, and whether the key was deleted with it.
pub(in crate::etcd) fn revision_of(key: &[u8]) -> Result<(i64, bool), String> {
    let main = key.first_chunk::<8>().filter(|_| key.len() >= REVISION && key[8] == b'_');
    let main = main.and_then(|main| i64::try_from(u64::from_be_bytes(*main)).ok());
    Ok((main.ok_or("a key of etcd has no revision")?, key.get(REVISION) == Some(&b't')))
}

/// A digest of the key's name, which may be long.
fn name_of(value: &[u8]) -> Result<[u8; 16], String> {
    let name = KeyName::decode(value).map_err(|error| format!("a value of etcd cannot be read: {error}"))?.key;
    let mut digest = Sha256::default();
    digest.update(&name);
    digest.finish().first_chunk().copied().ok_or_else(|| "no digest".to_owned())
}

/// CRC-32C (Castagnoli) of what `before` is that of, and of `bytes` behind it.
pub(in crate::etcd) fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut crc = !before;
    let mut eights = bytes.chunks_exact(8);
    for eight in &mut eights {
        let low = crc ^ u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]]);
        let [a, b, c, d] = low.to_le_bytes();
        crc = TABLES[7][a as usize] ^ TABLES[6][b as usize] ^ TABLES[5][c as usize] ^ TABLES[4][d as usize];
        let high = &eight[4..];
        crc ^= TABLES[3][high[0] as usize] ^ TABLES[2][high[1] as usize];
        crc ^= TABLES[1][high[2] as usize] ^ TABLES[0][high[3] as usize];
    }
    for byte in eights.remainder() {
        crc = crc >> 8 ^ TABLES[0][(crc as u8 ^ byte) as usize];
    }
    !crc
}

/// What a byte does to a CRC that is `n` bytes further.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut all = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        all[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = all[n - 1][byte];
            all[n][byte] = crc >> 8 ^ all[0][(crc & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    all
}
