//! etcd's write-ahead log, read without etcd: which writes a data directory holds, and which files of it were those of a
//! moment that has passed.
//!
//! A file is a row of records, each behind the length of it (8 bytes, the lowest first; the topmost says how many bytes of
//! padding follow), and ends with zeros. Whatever etcd has acknowledged is in it, and it is only added to: what it was at a
//! moment is its beginning.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use prost::Message;
use serde::{Deserialize, Serialize};

use super::database::crc32c;
use super::proto::{Entry, HardState, RaftRequest, Record};
use crate::host::fs::FsError;

/// [`Record::kind`] of whose log it is.
pub(super) const METADATA: i64 = 1;
/// [`Record::kind`] of an entry of the log.
pub(super) const ENTRY: i64 = 2;
/// [`Record::kind`] of what a member remembers of votes and terms.
pub(super) const STATE: i64 = 3;
/// [`Record::kind`] of the CRC that the next record's goes on from.
const CRC: i64 = 4;
/// [`Record::kind`] of a state after which the log goes on.
pub(super) const SNAPSHOT: i64 = 5;
/// Where the log is, in a data directory.
pub const LOG: &str = "member/wal";
/// Where the state of the log's beginning is: members and the like, of some kilobytes. (The database is there too.)
const SNAPSHOTS: &str = "member/snap";

impl Entry {
    /// Whether it writes or deletes keys.
    fn is_write(&self) -> bool {
        let request = RaftRequest::decode(self.data.as_slice()).ok().filter(|_| self.kind == 0);
        let request = request.filter(|it| it.header.is_some());
        request.is_some_and(|it| it.put.is_some() || it.delete_range.is_some() || it.txn.is_some())
    }
}

/// A moment in the life of the only member of a cluster, taken while a snapshot of its database was.
///
/// It elects itself whenever it starts, which makes a new term: what has a later one was written by a later process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Moment {
    /// The term of the process that ran.
    pub term: u64,
    /// The entry after which its log begins.
    pub begin: u64,
}

/// A file of a data directory, as far as it is that of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Which, below the data directory.
    pub path: PathBuf,
    /// How many bytes of its beginning.
    pub length: u64,
}

/// Why there is no log of a moment.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FsError),
    /// etcd throws old files away.
    #[error("etcd's log in {} no longer goes back to entry {}", dir.display(), begin)]
    Gone {
        /// Where the log is.
        dir: PathBuf,
        /// What it should go back to.
        begin: u64,
    },
}

/// The entry after which the log of a running etcd begins that suits a database with every entry up to `applied`, and the
/// file in the data directory `data` that says what was before; 0 and none where that is nothing.
///
/// # Errors
/// They cannot be read.
pub fn begin_of(data: &Path, applied: u64) -> Result<(u64, Option<LogFile>), FsError> {
    let indexed = |(name, path): (String, PathBuf)| Some((numbers(&name)?.1, name, path));
    let all = list(&data.join(SNAPSHOTS), "snap")?.into_iter().filter_map(indexed);
    let Some((begin, name, path)) = all.filter(|(index, ..)| *index <= applied).max() else { return Ok((0, None)) };
    let length = fs::metadata(&path).map_err(|e| FsError::new("read", &path, e))?.len();
    Ok((begin, Some(LogFile { path: Path::new(SNAPSHOTS).join(name), length })))
}

/// The files of the log in the data directory `data` as they were when the process of `moment` ended. Together with the
/// snapshot of its database, which may be older, and the file of [`begin_of`], they are a data directory with every write
/// that process has acknowledged: an etcd that starts on them adds to the database what the log has more, as after a crash.
///
/// # Errors
/// [`LogError`].
pub fn log_of(data: &Path, moment: Moment) -> Result<Vec<LogFile>, LogError> {
    let (dir, mut files) = (data.join(LOG), Vec::new());
    let indexed = |(name, path): (String, PathBuf)| Some((numbers(&name)?.1, name, path));
    let all: Vec<_> = list(&dir, "wal")?.into_iter().filter_map(indexed).collect();
    let first = all.iter().rposition(|(index, ..)| *index <= moment.begin);
    let first = first.ok_or(LogError::Gone { dir, begin: moment.begin })?;
    for (_, name, path) in &all[first..] {
        let bytes = read(path)?;
        let (mut length, mut is_later) = (0, false);
        for (record, end) in records(&bytes) {
            is_later = term_of(&record).is_some_and(|term| term > moment.term);
            if is_later {
                break;
            }
            length = end;
        }
        if length > 0 {
            files.push(LogFile { path: Path::new(LOG).join(name), length });
        }
        if is_later {
            break;
        }
    }
    Ok(files)
}

/// The term in which a record was written; None of those that do not say.
fn term_of(record: &Record) -> Option<u64> {
    let data = record.data.as_slice();
    match record.kind {
        ENTRY => Some(Entry::decode(data).ok()?.term),
        STATE => Some(HardState::decode(data).ok()?.term),
        _ => None,
    }
}

/// The two numbers of which names are made: `0000000000000001-000000000000abcd.wal`.
fn numbers(name: &str) -> Option<(u64, u64)> {
    let (first, second) = name.split_once('.')?.0.split_once('-')?;
    Some((u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(second, 16).ok()?))
}

/// The files of a kind in a directory, by name.
fn list(dir: &Path, extension: &str) -> Result<Vec<(String, PathBuf)>, FsError> {
    let of_kind = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        (path.extension()? == extension).then_some((name, path))
    };
    let mut files: Vec<_> = crate::host::fs::entries(dir)?.into_iter().filter_map(of_kind).collect();
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, FsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|e| FsError::new("read", path, e))
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
    let mut all = BTreeMap::new();
    for (_, file) in list(&data.join(LOG), "wal").ok()? {
        for (record, _) in records(&read(&file).ok()?) {
            if record.kind == ENTRY {
                let entry = Entry::decode(record.data.as_slice()).ok()?;
                all.insert(entry.index, entry.is_write());
            }
        }
    }
    Some(all)
}

/// The records of one file and where each ends, up to the first that is not whole: it was being written, and is none that
/// was acknowledged.
fn records(bytes: &[u8]) -> impl Iterator<Item = (Record, u64)> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<8>()?;
        let [low @ .., top] = *length;
        let mut wide = [0; 8];
        wide[..7].copy_from_slice(&low);
        let length = u64::from_le_bytes(wide);
        let padding = if top & 0x80 == 0 { 0 } else { u64::from(top & 0x7) };
        let (length, whole) = (usize::try_from(length).ok()?, usize::try_from(length.saturating_add(padding)).ok()?);
        let record = Record::decode(after.get(..length).filter(|_| length > 0)?).ok()?;
        // Of the last one the padding may be missing.
        rest = after.get(whole..).unwrap_or_default();
        Some((record, u64::try_from(bytes.len() - rest.len()).ok()?))
    })
}

/// A log that begins with these records, by kind and content, as etcd writes it.
pub(super) fn begin(records: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut crc) = (Vec::new(), 0);
    let first = (CRC, Vec::new());
    for (kind, data) in [&first].into_iter().chain(records) {
        crc = crc32c(crc, data);
        let record = Record { kind: *kind, crc, data: data.clone() }.encode_to_vec();
        let padding = (8 - record.len() % 8) % 8;
        let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
        bytes.extend((record.len() as u64 | mark).to_le_bytes());
        bytes.extend(record);
        bytes.resize(bytes.len() + padding, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::{make_dirs, write_file};
    use crate::testing::etcd_log::records as wal_records;

    /// A file as etcd writes it: framed, padded to eight bytes, and longer than what is in it.
    fn file(entries: &[Entry]) -> Vec<u8> {
        let records: Vec<_> = entries.iter().map(|entry| (ENTRY, entry.encode_to_vec())).collect();
        let mut bytes = wal_records(&[vec![(4, vec![])], records].concat());
        bytes.resize(bytes.len() + 4096, 0);
        bytes
    }

    fn entry(index: u64, request: &RaftRequest) -> Entry {
        Entry { kind: 0, term: 2, index, data: request.encode_to_vec() }
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

    /// A state as etcd writes it when it begins a term.
    fn state(term: u64) -> (i64, Vec<u8>) {
        (STATE, HardState { term, ..HardState::default() }.encode_to_vec())
    }

    fn entries_of(entries: &[Entry]) -> Vec<(i64, Vec<u8>)> {
        entries.iter().map(|entry| (ENTRY, entry.encode_to_vec())).collect()
    }

    #[test]
    fn the_log_of_a_moment_ends_where_a_later_process_began() {
        let own = [vec![state(2)], entries_of(&[put(1), txn(2)]), vec![state(2)]].concat();
        let later = |record: &dyn Fn() -> Vec<(i64, Vec<u8>)>| wal_records(&[own.clone(), record()].concat());
        let length = u64::try_from(wal_records(&own).len()).unwrap();
        let moment = Moment { term: 2, begin: 0 };
        let expected = [LogFile { path: "member/wal/0000000000000000-0.wal".into(), length }];
        let election = || [vec![state(3)], entries_of(&[Entry { term: 3, ..put(3) }])].concat();
        let no_state = || entries_of(&[Entry { term: 3, ..put(3) }]);
        let nothing = Vec::new;
        for files in [vec![later(&election)], vec![later(&no_state)], vec![later(&nothing)]] {
            let zeros = |mut file: Vec<u8>| {
                file.resize(file.len() + 100, 0);
                file
            };
            let now = data(&files.into_iter().map(zeros).collect::<Vec<_>>());
            assert_eq!(log_of(now.path(), moment).unwrap(), expected);
        }
        // Into the next file, which has nothing of the moment but its head.
        let head = [vec![(4, vec![])], vec![(1, b"metadata".to_vec()), state(2)], election()].concat();
        let now = data(&[wal_records(&own), wal_records(&head), file(&[put(9)])]);
        for (seq, index) in [(1, 3), (2, 9)] {
            let name = |index: u64| now.path().join(format!("{LOG}/{seq:016x}-{index}.wal"));
            fs::rename(name(0), name(index)).unwrap();
        }
        let files = log_of(now.path(), moment).unwrap();
        let kept = u64::try_from(wal_records(&head[..3]).len()).unwrap();
        assert_eq!(files.iter().map(|file| file.length).collect::<Vec<_>>(), [length, kept]);
    }

    #[test]
    fn a_log_begins_with_the_newest_state_that_suits_the_database_and_one_that_has_gone_is_said() {
        let now = data(&[file(&[put(1)])]);
        assert_eq!(begin_of(now.path(), 7).unwrap(), (0, None));
        make_dirs(&now.path().join(SNAPSHOTS), 0o700).unwrap();
        for index in [5, 0x10, 0x20] {
            let name = format!("{SNAPSHOTS}/0000000000000002-{index:016x}.snap");
            write_file(&now.path().join(name), b"state", 0o600).unwrap();
        }
        write_file(&now.path().join(SNAPSHOTS).join("db"), b"", 0o600).unwrap();
        let (begin, newest) = begin_of(now.path(), 0x1f).unwrap();
        let path = PathBuf::from("member/snap/0000000000000002-0000000000000010.snap");
        assert_eq!((begin, newest), (0x10, Some(LogFile { path, length: 5 })));

        let wal = now.path().join(LOG);
        fs::remove_file(wal.join("0000000000000000-0.wal")).unwrap();
        for (seq, index) in [(3, 6), (4, 0xc), (5, 0x15)] {
            let content = file(&[Entry { index, ..put(1) }]);
            write_file(&wal.join(format!("{seq:016x}-{index:016x}.wal")), &content, 0o600).unwrap();
        }
        let names = |begin| {
            let files = log_of(now.path(), Moment { term: 2, begin })?;
            Ok::<_, LogError>(
                files.iter().map(|file| file.path.to_str().unwrap()[11..27].to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(names(0x10).unwrap(), ["0000000000000004", "0000000000000005"]);
        assert_eq!(names(6).unwrap().len(), 3);
        let error = names(5).unwrap_err().to_string();
        assert_eq!(error, format!("etcd's log in {} no longer goes back to entry 5", wal.display()));
    }
}
