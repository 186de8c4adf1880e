//! etcd's write-ahead log, read without etcd: which writes a data directory holds.
//!
//! A file is a row of records, each behind the length of it (8 bytes, the lowest first; the topmost says how many bytes of
//! padding follow), and ends with zeros. Whatever etcd has acknowledged is in it.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;

use super::proto::{Entry, RaftRequest, Record};

/// [`Record::kind`] of an entry of the log.
const ENTRY: i64 = 2;

impl Entry {
    /// Whether it writes or deletes keys.
    fn is_write(&self) -> bool {
        let request = RaftRequest::decode(self.data.as_slice()).ok().filter(|_| self.kind == 0);
        let request = request.filter(|it| it.header.is_some());
        request.is_some_and(|it| it.put.is_some() || it.delete_range.is_some() || it.txn.is_some())
    }
}

/// How many writes the data directory `data` holds that `copy`, an earlier state of the same, does not; None where either
/// cannot be read.
pub fn writes_since(copy: &Path, data: &Path) -> Option<u64> {
    let last = *entries(copy)?.last_key_value()?.0;
    let now = entries(data)?;
    // etcd throws old files away: where there is a gap, nothing tells.
    if *now.first_key_value()?.0 > last.saturating_add(1) {
        return None;
    }
    let writes = now.into_iter().filter(|(index, is_write)| *index > last && *is_write);
    u64::try_from(writes.count()).ok()
}

/// Every entry of the log, and whether it is a write; of several with one index the last counts.
fn entries(data: &Path) -> Option<BTreeMap<u64, bool>> {
    let dir = data.join("member/wal");
    let mut files: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    files.sort();
    let mut all = BTreeMap::new();
    for file in files {
        for record in records(&std::fs::read(file).ok()?) {
            if record.kind == ENTRY {
                let entry = Entry::decode(record.data.as_slice()).ok()?;
                all.insert(entry.index, entry.is_write());
            }
        }
    }
    Some(all)
}

/// The records of one file, up to the first that is not whole: it was being written, and is none that was acknowledged.
fn records(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let [low @ .., top] = *length;
        let mut wide = [0; 8];
        wide[..7].copy_from_slice(&low);
        let length = u64::from_le_bytes(wide);
        let padding = if top & 0x80 == 0 { 0 } else { u64::from(top & 0x7) };
        let (Ok(length), Ok(whole)) = (usize::try_from(length), usize::try_from(length.saturating_add(padding))) else {
            break;
        };
        let Some(record) = rest.get(..length).filter(|_| length > 0) else { break };
        let Ok(record) = Record::decode(record) else { break };
        records.push(record);
        bytes = rest.get(whole..).unwrap_or_default();
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    /// A file as etcd writes it: framed, padded to eight bytes, and longer than what is in it.
    fn file(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let records = entries.iter().map(|entry| Record { kind: ENTRY, data: entry.encode_to_vec() });
        for record in [Record { kind: 4, data: vec![] }].into_iter().chain(records) {
            let data = record.encode_to_vec();
            let padding = (8 - data.len() % 8) % 8;
            let mut length = u64::try_from(data.len()).unwrap();
            if padding > 0 {
                length |= u64::try_from(0x80 | padding).unwrap() << 56;
            }
            bytes.extend(length.to_le_bytes());
            bytes.extend(data);
            bytes.resize(bytes.len() + padding, 0);
        }
        bytes.resize(bytes.len() + 4096, 0);
        bytes
    }

    fn entry(index: u64, request: &RaftRequest) -> Entry {
        Entry { kind: 0, index, data: request.encode_to_vec() }
    }

    fn put(index: u64) -> Entry {
        let put = Some(vec![1; usize::try_from(index).unwrap()]);
        entry(index, &RaftRequest { put, header: Some(vec![]), ..RaftRequest::default() })
    }

    fn txn(index: u64) -> Entry {
        entry(index, &RaftRequest { txn: Some(vec![]), header: Some(vec![]), ..RaftRequest::default() })
    }

    fn data(files: &[Vec<u8>]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        make_dirs(&dir.path().join("member/wal"), 0o700).unwrap();
        for (n, file) in files.iter().enumerate() {
            write_file(&dir.path().join(format!("member/wal/{n:016x}-0.wal")), file, 0o600).unwrap();
        }
        dir
    }

    #[test]
    fn writes_that_came_after_the_copy_are_counted_and_what_is_none_is_not() {
        let before = vec![put(1), put(2), entry(3, &RaftRequest::default())];
        let copy = data(&[file(&before)]);
        assert_eq!(writes_since(copy.path(), copy.path()), Some(0));
        let change = Entry { kind: 1, ..put(4) };
        let of_members = entry(6, &RaftRequest { put: Some(b"3.4.0".to_vec()), ..RaftRequest::default() });
        let after = [before.clone(), vec![change, entry(5, &RaftRequest::default()), of_members]].concat();
        assert_eq!(writes_since(copy.path(), data(&[file(&after)]).path()), Some(0), "an election is no write");
        let more = file(&[put(7), txn(8), txn(8), put(9)]);
        let now = data(&[file(&after), more.clone()]);
        assert_eq!(writes_since(copy.path(), now.path()), Some(3), "of two with one index the last counts");
        // Into the last record, whatever its padding.
        let cut = more.len() - 4096 - 9;
        assert_eq!(writes_since(copy.path(), data(&[file(&after), more[..cut].to_vec()]).path()), Some(2));
    }

    #[test]
    fn what_cannot_be_read_has_no_number() {
        let empty = tempfile::tempdir().unwrap();
        let copy = data(&[file(&[put(1)])]);
        assert_eq!(writes_since(empty.path(), copy.path()), None);
        assert_eq!(writes_since(copy.path(), empty.path()), None);
        assert_eq!(writes_since(data(&[vec![0xff; 64]]).path(), copy.path()), None);
        assert_eq!(writes_since(copy.path(), data(&[file(&[put(2)])]).path()), Some(1));
        assert_eq!(writes_since(copy.path(), data(&[file(&[put(3)])]).path()), None, "2 is missing");
    }
}
