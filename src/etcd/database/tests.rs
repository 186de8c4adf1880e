use std::path::Path;

use super::*;
use crate::host::fs::write_file;
use crate::testing::etcd_database::Builder;

fn items(all: &[(&str, &str)]) -> Items {
    all.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// A database with three keys of etcd, one of which was deleted.
fn written(dir: &Path) -> PathBuf {
    let path = dir.join("db");
    let mut builder = Builder::default();
    builder.bucket("meta", &[(b"consistent_index".to_vec(), vec![0, 0, 0, 0, 0, 0, 0, 9])]);
    builder.bucket("members", &items(&[("1", "{}"), ("2", "{}")]));
    builder.keys(&[(2, "a", false), (3, "b", false), (4, "c", false), (5, "b", true)]);
    write_file(&path, &builder.bytes(), 0o600).unwrap();
    path
}

#[test]
fn crc_32c_is_that_of_castagnoli() {
    assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), 0xe306_9283);
    assert_eq!(crc32c(0, b""), 0);
}

#[test]
fn a_database_is_counted_by_its_live_keys_and_its_newest_revision() {
    let dir = tempfile::tempdir().unwrap();
    let found = summary(&written(dir.path())).unwrap();
    assert_eq!((found.keys, found.revision, found.storage), (2, 5, None));
    let database = Database::open(&dir.path().join("db")).unwrap();
    assert_eq!(database.small_bucket("members").unwrap(), items(&[("1", "{}"), ("2", "{}")]));
    assert_eq!(database.small_bucket("none").unwrap(), []);
}

#[test]
fn what_is_changed_is_there_and_everything_else_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let before = Database::open(&path).unwrap().meta;
    let mut edit = Edit::open(&path).unwrap();
    let many: Vec<_> = (0..40).map(|n| (format!("member-{n:02}").into_bytes(), vec![n; 100])).collect();
    edit.replace("members", &many).unwrap();
    edit.replace("members_removed", &[]).unwrap();
    let last = edit.last_key("key").unwrap().unwrap();
    assert_eq!(revision_of(&last).unwrap(), (5, true));
    edit.append("key", &[&1000_u64.to_be_bytes()[..], b"_", &[0; 8]].concat(), &[]).unwrap();
    edit.write().unwrap();

    let after = Database::open(&path).unwrap();
    assert_eq!(after.meta.transaction, before.transaction + 1);
    assert_eq!(after.small_bucket("members").unwrap(), many);
    assert_eq!(after.small_bucket("members_removed").unwrap(), []);
    assert_eq!(after.small_bucket("meta").unwrap().len(), 1);
    let found = summary(&path).unwrap();
    assert_eq!((found.keys, found.revision), (3, 1000));
    // Again, where the buckets have pages of their own.
    let mut edit = Edit::open(&path).unwrap();
    edit.append("key", &[&2000_u64.to_be_bytes()[..], b"_", &[0; 8]].concat(), &[]).unwrap();
    edit.replace("members", &items(&[("1", "{}")])).unwrap();
    edit.write().unwrap();
    assert_eq!(summary(&path).unwrap().revision, 2000);
    assert_eq!(Database::open(&path).unwrap().small_bucket("members").unwrap().len(), 1);
}

#[test]
fn a_head_that_was_not_written_whole_leaves_the_database_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let (before, old) = (summary(&path).unwrap(), std::fs::read(&path).unwrap());
    let mut edit = Edit::open(&path).unwrap();
    edit.replace("members", &[]).unwrap();
    edit.write().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let transaction = Database::open(&path).unwrap().meta.transaction;
    let at = if transaction.is_multiple_of(2) { 0 } else { 4096 };
    assert_eq!(bytes[4096 - at..][..4096], old[4096 - at..][..4096], "the head before is as it was");
    bytes[at + 70] ^= 1;
    write_file(&path, &bytes, 0o600).unwrap();
    let cut = Database::open(&path).unwrap();
    assert_eq!(cut.meta.transaction, transaction - 1);
    assert_eq!(cut.small_bucket("members").unwrap().len(), 2);
    assert_eq!(summary(&path).unwrap(), before);
}

#[test]
fn no_damage_is_read_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    let whole = summary(&path).unwrap();
    let mut seen = 0;
    // Every byte of heads and elements, which are in the first bytes of each page.
    for at in (0..bytes.len()).filter(|at| at % 4096 < 160) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x55;
        write_file(&path, &bad, 0o600).unwrap();
        // An error, or a byte that means nothing; never a panic or an endless walk.
        seen += usize::from(summary(&path).is_err());
    }
    assert!(seen > 100, "{seen}");
    for length in [0, 16, 79, 4096, bytes.len() - 1] {
        write_file(&path, &bytes[..length], 0o600).unwrap();
        let error = summary(&path).unwrap_err().to_string();
        assert!(error.contains("no sound database of etcd"), "{length}: {error}");
    }
    write_file(&path, &[bytes, vec![7; 32]].concat(), 0o600).unwrap();
    assert_eq!(summary(&path).unwrap(), whole, "a snapshot has its hash behind it");
}
