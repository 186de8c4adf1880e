//! A file of records, one JSON object a line, only ever appended to: what a process that may be killed at any moment
//! leaves for the next one to read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StateError;
use crate::host::fs::FsError;
use crate::host::reserve::or_from_it;
use crate::host::sync::sync_data;

/// An open file of records.
#[derive(Debug)]
pub struct RecordLog {
    path: PathBuf,
    file: File,
}

impl RecordLog {
    /// Opens or makes the file (0600) and returns what it holds, oldest first.
    ///
    /// A last record that a kill cut short is dropped, from the file as well, so that the next one starts a line of its
    /// own.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), StateError> {
        let bytes = crate::host::fs::read_if_exists(path)?.unwrap_or_default();
        let (records, whole) = parse(path, &bytes)?;
        let fail = |source| FsError::new("open", path, source);
        let file = or_from_it(|| opened(path))?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(fail)?;
        }
        Ok((Self { path: path.to_owned(), file }, records))
    }

    /// The same of a file that may be damaged: what makes no sense is left out and returned as errors.
    pub fn open_leniently<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>, Vec<StateError>), StateError> {
        let bytes = crate::host::fs::read_if_exists(path)?.unwrap_or_default();
        let (mut records, mut errors) = (Vec::new(), Vec::new());
        for record in lines(path, &bytes) {
            match record {
                Ok(record) => records.push(record),
                Err(error) => errors.push(error),
            }
        }
        let file = or_from_it(|| opened(path))?;
        Ok((Self { path: path.to_owned(), file }, records, errors))
    }

    /// Appends records in one write. A kill of this process loses none of them; a power cut may, until [`Self::sync`].
    pub fn append<T: Serialize>(&mut self, records: &[T]) -> Result<(), StateError> {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record).map_err(|e| self.failed(e.into()))?;
            lines.push(b'\n');
        }
        Ok(or_from_it(|| self.write(&lines))?)
    }

    /// Half a line that found no room is taken away again: the next one would continue it.
    fn write(&self, lines: &[u8]) -> Result<(), FsError> {
        let fail = |source| FsError::new("write", &self.path, source);
        let length = self.file.metadata().map_err(fail)?.len();
        let mut file = &self.file;
        file.write_all(lines).map_err(|error| {
            let _ = self.file.set_len(length);
            fail(error)
        })
    }

    /// Appends records and returns when they will survive a power cut.
    pub fn append_durably<T: Serialize>(&mut self, records: &[T]) -> Result<(), StateError> {
        self.append(records)?;
        self.sync()
    }

    /// Makes everything appended so far survive a power cut.
    pub fn sync(&mut self) -> Result<(), StateError> {
        Ok(sync_data(&self.file, &self.path)?)
    }

    fn failed(&self, source: std::io::Error) -> StateError {
        FsError::new("write", &self.path, source).into()
    }
}

fn opened(path: &Path) -> Result<File, FsError> {
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    open.map_err(|source| FsError::new("open", path, source))
}

/// Reads records without opening the file for writing; a last one that was cut short is left out.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, StateError> {
    let bytes = crate::host::fs::read_if_exists(path)?.unwrap_or_default();
    Ok(parse(path, &bytes)?.0)
}

/// The records and how many bytes hold whole ones.
fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<(Vec<T>, usize), StateError> {
    Ok((lines(path, bytes).collect::<Result<_, _>>()?, whole(bytes)))
}

fn whole(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1)
}

fn lines<'a, T: DeserializeOwned>(
    path: &'a Path,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<T, StateError>> + use<'a, T> {
    let lines = bytes[..whole(bytes)].split_inclusive(|&b| b == b'\n').enumerate();
    lines.map(move |(index, line)| {
        let wrong = |source| StateError::Record { path: path.to_owned(), line: index + 1, source };
        serde_json::from_slice(line).map_err(wrong)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cut_at_any_byte_reads_up_to_its_last_whole_record_and_goes_on_from_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        RecordLog::open::<String>(&path).unwrap().0.append(&["one", "two\nlines", "three"]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let all = ["one", "two\nlines", "three"];
        for cut in 0..=whole.len() {
            let path = dir.path().join(format!("cut-{cut}"));
            crate::host::fs::write_file(&path, &whole[..cut], 0o600).unwrap();
            let expected = whole[..cut].iter().filter(|&&b| b == b'\n').count();
            let (mut log, records) = RecordLog::open::<String>(&path).unwrap();
            assert_eq!(records, all[..expected], "cut at byte {cut}");
            log.append_durably(&["next"]).unwrap();
            assert_eq!(read::<String>(&path).unwrap().last().unwrap(), "next", "cut at byte {cut}");
            assert_eq!(read::<String>(&path).unwrap().len(), expected + 1, "cut at byte {cut}");
        }
    }

    #[test]
    fn a_record_that_finds_no_room_leaves_nothing_of_itself() {
        crate::testing::threads::apart(|| {
            let dir = tempfile::tempdir().unwrap();
            crate::testing::threads::small_disk(&dir, 64 << 10);
            let path = dir.path().join("log");
            let (mut log, _) = RecordLog::open::<String>(&path).unwrap();
            log.append(&["whole".to_owned()]).unwrap();
            assert!(log.append(&["x".repeat(100 << 10)]).is_err());
            log.append(&["whole again".to_owned()]).unwrap();
            assert_eq!(read::<String>(&path).unwrap(), ["whole", "whole again"]);
        });
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named_by_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        crate::host::fs::write_file(&path, b"\"a\"\n{broken\n\"b\"\n", 0o600).unwrap();
        let error = RecordLog::open::<String>(&path).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
