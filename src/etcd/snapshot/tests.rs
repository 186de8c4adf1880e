use std::path::PathBuf;

use super::super::Piece;
use super::*;
use crate::error::chain;
use crate::host::disk::HostDisk;
use crate::host::fs::write_file;
use crate::testing::etcd::{FakeData, Fault, Sent, database, part_size, pieces};
use crate::testing::listing;
use crate::testing::threads::apart;
use crate::testing::tree::{FaultyDisk, FaultyTree};

/// A directory with the snapshot of yesterday in it.
struct Place {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.db");
        write_file(&path, b"yesterday's", 0o600).unwrap();
        Self { dir, path }
    }

    async fn save(&self, etcd: &FakeData) -> Result<Saved, SnapshotError> {
        save(etcd, &mut HostDisk, &self.path).await
    }

    /// Saving fails, leaves nothing, and keeps the one of yesterday.
    async fn fails(&self, etcd: &FakeData) -> SnapshotError {
        let error = self.save(etcd).await.unwrap_err();
        self.untouched();
        error
    }

    fn untouched(&self) {
        assert_eq!(std::fs::read(&self.path).unwrap(), b"yesterday's");
        assert_eq!(listing(self.dir.path()), ["etcd.db"]);
    }
}

fn disk(free: u64) -> FaultyDisk {
    let tree = crate::host::tree::HostTree::new(crate::host::Paths::default(), crate::host::tree::NoRecord);
    let disk = FaultyTree::new(tree).disk();
    disk.set_free(free);
    disk
}

fn sent(pieces: Vec<Piece>) -> Vec<Sent> {
    pieces.into_iter().map(Sent::Piece).collect()
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_the_one_before_when_it_is_whole() {
    use std::os::unix::fs::PermissionsExt;
    let database = database(16);
    for size in [1, 100, 512, 1 << 20] {
        let place = Place::new();
        let saved = place.save(&FakeData::new(sent(pieces(&database, size)))).await.unwrap();
        assert_eq!(saved.snapshot.size, 16 * 512 + 32);
        assert_eq!(saved.snapshot.sha256, crate::host::digest::sha256(&database));
        assert_eq!((saved.version.as_str(), saved.storage), ("3.6.8", Minor::of("3.6")));
        let written = std::fs::read(&place.path).unwrap();
        assert_eq!((&written[..16 * 512], written.len()), (&database[..], 16 * 512 + 32));
        assert_eq!(std::fs::metadata(&place.path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(listing(place.dir.path()), ["etcd.db"]);
        assert_eq!(check(&place.path).unwrap(), saved.snapshot);
    }
}

#[tokio::test]
async fn a_snapshot_that_is_cut_off_anywhere_leaves_nothing_and_says_how_much_came() {
    let all = sent(pieces(&database(16), 1000));
    for end in 0..all.len() {
        for breaks in [true, false] {
            let place = Place::new();
            let mut etcd = FakeData::new(all[..end].to_vec());
            if breaks {
                etcd.sent.push(Sent::Broken);
            }
            let error = place.fails(&etcd).await;
            let SnapshotError::Cut { received, size, source, .. } = &error else { panic!("{error:?}") };
            let came = (end * 1000).min(16 * 512) as u64;
            let known = if end == 0 { 0 } else { 16 * 512 + 32 };
            assert_eq!((*received, *size, source.is_some()), (came, known, breaks), "{end}");
            let text = chain(&error);
            assert!(text.contains(&format!("etcd.db ended after {came} of {known} bytes")), "{text}");
            assert_eq!(text.ends_with("the connection was reset"), breaks, "{text}");
        }
    }
}

#[tokio::test]
async fn an_etcd_that_cannot_read_its_file_and_sends_nothing_for_ever_is_not_waited_for() {
    let mut all = pieces(&database(16), 1000);
    all.truncate(3);
    let empty = Piece { bytes: vec![], ..all[2].clone() };
    all.extend(std::iter::repeat_n(empty, 1000));
    let error = Place::new().fails(&FakeData::new(sent(all))).await;
    assert!(matches!(error, SnapshotError::Cut { received: 3000, source: None, .. }), "{error:?}");
}

#[tokio::test]
async fn a_byte_that_changed_on_the_way_is_found() {
    let good = pieces(&database(16), 1000);
    for at in 0..good.len() {
        let mut all = good.clone();
        all[at].bytes[7] ^= 1;
        let error = Place::new().fails(&FakeData::new(sent(all))).await;
        let SnapshotError::Damaged { damage: Damage::Hash { stated, found }, .. } = &error else { panic!("{error:?}") };
        assert_ne!(stated, found);
        assert!(error.to_string().contains("etcd.db is no whole snapshot of etcd"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_database_is_found() {
    // Whole, with its hash, and something else.
    let error = Place::new().fails(&FakeData::whole(&[7; 1024])).await;
    assert!(matches!(error, SnapshotError::Damaged { damage: Damage::Kind, .. }), "{error:?}");
    let short = &database(16)[..8000];
    let error = Place::new().fails(&FakeData::whole(short)).await;
    assert!(matches!(error, SnapshotError::Damaged { damage: Damage::Size { size: 8032 }, .. }), "{error:?}");
}

#[tokio::test]
async fn without_room_nothing_is_asked_for_and_the_numbers_are_said() {
    let (place, mut etcd) = (Place::new(), FakeData::whole(&database(16)));
    etcd.status.db_size = 10 << 20;
    let error = save(&etcd, &mut disk(70 << 20), &place.path).await.unwrap_err();
    let text = error.to_string();
    let wanted = format!("needs 74 MiB in {}, where 70 MiB are free", place.path.display());
    assert!(text.contains(&wanted), "{text}");
    assert_eq!(etcd.calls(), ["status"]);
    place.untouched();
    save(&etcd, &mut disk(74 << 20), &place.path).await.unwrap();

    // One that has grown since it was asked: the first piece says so.
    let place = Place::new();
    let mut grown = pieces(&database(16), 1000);
    grown[0].remaining = 100 << 20;
    let error = save(&FakeData::new(sent(grown)), &mut disk(100 << 20), &place.path).await.unwrap_err();
    assert!(matches!(error, SnapshotError::NoRoom { need, .. } if need > 164 << 20), "{error:?}");
    place.untouched();
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_named_with_how_far_it_came() {
    apart(|| {
        let dir = tempfile::tempdir().unwrap();
        let options = c"size=256k";
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(options)).unwrap();
        let path = dir.path().join("etcd.db");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let etcd = FakeData::new(sent(pieces(&database(2048), 32 << 10)));
        // The disk says that there is room, and others take it then.
        struct Roomy;
        impl Disk for Roomy {
            fn make_dir(&mut self, path: &Path, like: &Path) -> Result<(), FsError> {
                HostDisk.make_dir(path, like)
            }
            fn copy_file(&mut self, from: &Path, to: &Path) -> Result<(), FsError> {
                HostDisk.copy_file(from, to)
            }
            fn copy_beginning(&mut self, from: &Path, to: &Path, length: u64, like: &Path) -> Result<(), FsError> {
                HostDisk.copy_beginning(from, to, length, like)
            }
            fn sync_dir(&mut self, path: &Path) -> Result<(), FsError> {
                HostDisk.sync_dir(path)
            }
            fn exchange(&mut self, new: &Path, place: &Path) -> Result<(), FsError> {
                HostDisk.exchange(new, place)
            }
            fn remove_tree(&mut self, path: &Path) -> Result<(), FsError> {
                HostDisk.remove_tree(path)
            }
            fn free(&self, _: &Path) -> Result<u64, FsError> {
                Ok(u64::MAX)
            }
            fn device(&self, path: &Path) -> Result<u64, FsError> {
                HostDisk.device(path)
            }
        }
        let error = runtime.block_on(save(&etcd, &mut Roomy, &path)).unwrap_err();
        let SnapshotError::Full { written, size, .. } = &error else { panic!("{error:?}") };
        assert!((128 << 10..=256 << 10).contains(written) && *size == (1 << 20) + 32, "{error:?}");
        assert!(chain(&error).contains("No space left on device"), "{}", chain(&error));
        assert_eq!(listing(dir.path()), [""; 0]);
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    });
}

#[tokio::test]
async fn what_a_killed_one_has_left_is_gone_before_there_is_a_look_for_room() {
    let place = Place::new();
    write_file(&place.dir.path().join(".kubeboot-part-killed"), &[0; 1000], 0o600).unwrap();
    let error = save(&FakeData::whole(&database(16)), &mut disk(1 << 20), &place.path).await.unwrap_err();
    assert!(matches!(error, SnapshotError::NoRoom { .. }), "{error}");
    place.untouched();
}

#[tokio::test]
async fn an_etcd_that_is_not_there_and_a_directory_that_is_not_there_are_errors_of_their_own() {
    for call in ["status", "snapshot"] {
        let (place, etcd) = (Place::new(), FakeData::whole(&database(16)));
        etcd.fail(call, Fault::Before);
        let error = place.fails(&etcd).await;
        assert!(chain(&error).starts_with("cannot take a snapshot of etcd: etcd at fake cannot be reached"), "{error}");
    }
    let etcd = FakeData::whole(&database(16));
    let error = save(&etcd, &mut HostDisk, Path::new("/nonexistent-kubeboot/db")).await.unwrap_err();
    let text = chain(&error);
    assert!(text.starts_with("cannot write /nonexistent-kubeboot/db: No such file or directory"), "{text}");
    assert_eq!(etcd.calls(), ["status"]);
}

#[tokio::test]
async fn one_that_is_given_up_leaves_nothing() {
    let (place, mut etcd) = (Place::new(), FakeData::new(sent(pieces(&database(16), 1000))));
    etcd.sent.truncate(3);
    etcd.sent.push(Sent::Silence);
    let mut disk = HostDisk;
    let mut saving = Box::pin(save(&etcd, &mut disk, &place.path));
    // Up to the silence.
    while part_size(place.dir.path()) != Some(3000) {
        assert!(futures::poll!(saving.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(saving);
    // The thread that writes ends by itself.
    while part_size(place.dir.path()).is_some() {
        tokio::task::yield_now().await;
    }
    place.untouched();
}

#[test]
fn a_file_is_checked_as_what_was_sent_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.db");
    let whole: Vec<u8> = pieces(&database(8), 512).into_iter().flat_map(|piece| piece.bytes).collect();
    let damage = |content: &[u8]| {
        write_file(&path, content, 0o600).unwrap();
        match check(&path) {
            Ok(_) => None,
            Err(SnapshotError::Damaged { damage, .. }) => Some(damage),
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(damage(&whole), None);
    assert_eq!(damage(b""), Some(Damage::Size { size: 0 }));
    assert_eq!(damage(&whole[..512 * 8]), Some(Damage::Size { size: 512 * 8 }), "without the hash, as etcd's own file");
    assert_eq!(damage(&whole[..whole.len() - 1]), Some(Damage::Size { size: 512 * 8 + 31 }));
    assert!(matches!(damage(&whole[512..]), Some(Damage::Hash { .. })));
    assert!(matches!(damage(&[0; 32]), Some(Damage::Hash { .. })));
    let missing = check(&dir.path().join("none")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read "), "{missing}");
}
